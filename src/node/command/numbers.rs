//! Commands that add to numbers: INCR, DECR, INCRBY, DECRBY, INCRBYFLOAT. The expiry of a key does not change.

use crate::node::command::error::CommandError;
use crate::node::command::row::{Call, CommandResult, Effect};
use crate::node::command::strings::make_room;
use crate::node::state::State;
use crate::wire::resp::parse::number;

/// Bytes of the longest integer of 64 bits as text.
const NUMBER_BYTES_MAX: usize = 20;

/// Digits after the point of a sum of fractions.
const FRACTION_DIGITS: u32 = 17;

/// Digits before the point of a number that is added exactly.
const WHOLE_DIGITS_MAX: u32 = 20;

/// INCR.
pub(super) fn incr<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    add(state, call, 1)
}

/// DECR.
pub(super) fn decr<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    add(state, call, -1)
}

/// INCRBY key number.
pub(super) fn incr_by<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let step = call.integer(1)?;
    call.args = call.args.first(1);
    add(state, call, step)
}

/// DECRBY key number.
pub(super) fn decr_by<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let step = call.integer(1)?.checked_neg().ok_or(CommandError::Plain("decrement would overflow"))?;
    call.args = call.args.first(1);
    add(state, call, step)
}

/// Adds `step` to the integers of all keys, or of none; a missing key counts as 0.
fn add<'a>(state: &mut State, call: &mut Call<'a>, step: i64) -> CommandResult<'a> {
    let (keys, name) = (call.args.iter(), call.command.name);
    let read = |state: &State, key| {
        let item = state.keyspace.peek(call.now, state.keyspace.key(key));
        item.map_or(Ok(0), |item| number(item.value).ok_or(CommandError::NoNumber(name, key)))
    };
    // A key can occur several times in the request.
    let most = i64::try_from(keys.len()).ok().and_then(|count| step.checked_mul(count));
    for key in keys.clone() {
        most.and_then(|most| read(state, key).map(|value| value.checked_add(most)).transpose())
            .ok_or(CommandError::Overflow(name, key))??;
        call.reply.key(key);
        call.reply.integer(i64::MIN);
    }
    call.check_length(state)?;
    call.reply.clear();
    make_room(state, call.now, keys.len(), keys.clone().map(|key| key.len() + NUMBER_BYTES_MAX))?;
    for key in keys {
        let sum = read(state, key)?.checked_add(step).ok_or(CommandError::Overflow(name, key))?;
        let text = sum.to_string();
        let hashed = state.keyspace.key(key);
        if !state.keyspace.update(call.now, hashed, text.as_bytes())? {
            state.keyspace.set(call.now, hashed, text.as_bytes(), None)?;
        }
        call.reply.key(key);
        call.reply.integer(sum);
    }
    state.keyspace.keep_up(call.now);
    Ok(Effect::Reply)
}

/// INCRBYFLOAT key number.
pub(super) fn incr_by_float<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let [key, step] = call.words()?;
    let key = state.keyspace.key(key);
    let text = {
        let item = state.keyspace.peek(call.now, key);
        add_fractions(item.map_or(b"0", |item| item.value), step)?
    };
    if !state.keyspace.update(call.now, key, text.as_bytes())? {
        state.keyspace.set(call.now, key, text.as_bytes(), None)?;
    }
    state.keyspace.keep_up(call.now);
    call.reply.bulk(text.as_bytes());
    Ok(Effect::Reply)
}

/// The sum of two decimal fractions as text without an exponent: exact if it has at most 20 digits before the
/// point and 17 after it, else that of two doubles.
fn add_fractions(a: &[u8], b: &[u8]) -> Result<String, CommandError<'static>> {
    let sum = double(a)? + double(b)?;
    if !sum.is_finite() {
        return Err(CommandError::Plain("increment would produce NaN or Infinity"));
    }
    let exact = decimal(a).zip(decimal(b)).map(|(a, b)| a + b);
    let Some(exact) = exact else { return Ok(sum.to_string()) };
    let unit = 10u128.pow(FRACTION_DIGITS);
    let sign = if exact < 0 { "-" } else { "" };
    let (whole, fraction) = (exact.unsigned_abs() / unit, exact.unsigned_abs() % unit);
    let text = format!("{sign}{whole}.{fraction:0width$}", width = FRACTION_DIGITS as usize);
    Ok(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

/// A number with a point or an exponent, as Redis takes it.
fn double(text: &[u8]) -> Result<f64, CommandError<'static>> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
    number.filter(|number| !number.is_nan()).ok_or(CommandError::Plain("value is not a valid float"))
}

/// A decimal number in units of the 17th digit after the point; `None` if it has more digits.
fn decimal(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        None => (text, 0),
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}").parse::<i128>().ok()?;
    let shift = exponent.checked_add(i32::try_from(FRACTION_DIGITS).ok()?)?;
    let shift = u32::try_from(shift.checked_sub(i32::try_from(fraction.len()).ok()?)?).ok()?;
    let value = digits.checked_mul(10i128.checked_pow(shift)?)?;
    (value.unsigned_abs() < 10u128.pow(WHOLE_DIGITS_MAX + FRACTION_DIGITS)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::add_fractions;

    #[test]
    fn sum_of_fractions_shows_no_binary_rounding() {
        for (a, b, sum) in [
            ("10.50", "0.1", "10.6"),
            ("10.6", "-5", "5.6"),
            ("0.1", "0.2", "0.3"),
            ("3.0e3", "200", "3200"),
            ("-0.5", "+.25", "-0.25"),
            ("-1", "1", "0"),
            ("1.", "2", "3"),
            ("1e300", "1", &format!("1{:0300}", 0)),
            ("99999999999999999999", "0.00000000000000001", "99999999999999999999.00000000000000001"),
        ] {
            assert_eq!(add_fractions(a.as_bytes(), b.as_bytes()).unwrap(), sum, "{a} + {b}");
        }
        for (a, b) in
            [("x", "1"), ("1", ""), (" 1", "1"), ("nan", "1"), ("1", "inf"), ("1e400", "1"), ("1", "1_0")]
        {
            assert!(add_fractions(a.as_bytes(), b.as_bytes()).is_err(), "{a} + {b}");
        }
    }
}
