//! Commands on all keys of this node: KEYS and SCAN, done in steps, RANDOMKEY, DBSIZE, FLUSHALL.

use crate::base::glob::Pattern;
use crate::node::command::error::CommandError;
use crate::node::command::key_scan::KeyScan;
use crate::node::command::row::{Call, CommandResult, Effect, Further};
use crate::node::state::State;
use crate::node::versions::floor;
use crate::store::ScanCursor;
use crate::wire::field::Excerpt;

/// Keys that SCAN visits without COUNT.
const COUNT_DEFAULT: usize = 10;

/// The most scan steps in which RANDOMKEY searches for a key.
const RANDOM_TRIES: usize = 64;

/// The error for a pattern that is too long.
const PATTERN_TOO_LONG: &str = "a pattern has at most 1023 characters beside *";

/// KEYS pattern.
pub(super) fn keys<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let [pattern] = call.words()?;
    let scan = KeyScan::of_all(call.reply.protocol(), compiled(pattern)?);
    begin(state, call, scan)
}

/// SCAN cursor [MATCH pattern] [COUNT number] [TYPE type].
pub(super) fn scan<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let text = call.args.get(0).unwrap_or_default();
    let cursor = std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'));
    let cursor: u64 =
        cursor.and_then(|text| text.parse().ok()).ok_or(CommandError::Plain("invalid cursor"))?;
    let options = call.args.skip(1);
    let (mut pattern, mut count, mut is_string) = (&b"*"[..], COUNT_DEFAULT, true);
    for at in (0..options.len()).step_by(2) {
        let option = options.get(at).unwrap_or_default();
        let value = options.get(at + 1).ok_or(CommandError::Syntax(call.command.name, option))?;
        if option.eq_ignore_ascii_case(b"MATCH") {
            pattern = value;
        } else if option.eq_ignore_ascii_case(b"TYPE") {
            is_string = value.eq_ignore_ascii_case(b"string");
        } else if option.eq_ignore_ascii_case(b"COUNT") {
            // The value follows the cursor and the option.
            let number = call.integer(at + 2)?;
            let above_zero = usize::try_from(number).ok().filter(|&count| count > 0);
            count = above_zero.ok_or(CommandError::Syntax(call.command.name, option))?;
        } else {
            return Err(CommandError::Syntax(call.command.name, option));
        }
    }
    let scan = KeyScan::from_cursor(call.reply.protocol(), compiled(pattern)?, cursor, count);
    let Some(scan) = scan.filter(|_| is_string) else {
        // A cursor that no scan returned, or a type that no key has.
        call.reply.array(2);
        call.reply.bulk(b"0");
        call.reply.array(0);
        return Ok(Effect::Reply);
    };
    begin(state, call, scan)
}

/// A pattern, compiled; `None` if all keys match it.
fn compiled(pattern: &[u8]) -> Result<Option<Pattern>, CommandError<'static>> {
    match pattern {
        b"*" => Ok(None),
        pattern => Pattern::new(pattern).map(Some).ok_or(CommandError::Plain(PATTERN_TOO_LONG)),
    }
}

/// Does the first step of a scan, and replies if the scan is complete.
fn begin<'a>(state: &State, call: &mut Call<'a>, mut scan: KeyScan) -> CommandResult<'a> {
    if !scan.step(&state.keyspace, call.now) {
        return Ok(Further::Scan(Box::new(scan)).into());
    }
    scan.put(&mut call.reply);
    call.check_length(state)?;
    Ok(Effect::Reply)
}

/// RANDOMKEY: the key after a random hash; null if none is found. Not all keys are equally likely.
pub(super) fn randomkey<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let mut position = ScanCursor(state.rng.next_u64());
    let reply = &mut call.reply;
    for _ in 0..RANDOM_TRIES {
        position = state.keyspace.store().scan(call.now.mono, position, 1, |key, _| {
            if reply.is_empty() {
                reply.bulk(key);
            }
            false
        });
        if !reply.is_empty() {
            return Ok(Effect::Reply);
        }
    }
    reply.null();
    Ok(Effect::Reply)
}

/// DBSIZE, and COUNT in lines: the number of keys of this node.
pub(super) fn dbsize<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    call.reply.integer(i64::try_from(state.keyspace.store().len()).unwrap_or(i64::MAX));
    Ok(Effect::Reply)
}

/// FLUSHALL [ASYNC | SYNC | MESH], and FLUSHDB. In lines the reply is the number of keys removed. O(1): the memory is
/// freed in steps later. With MESH on a node without links: nodes that are linked later drop their older keys.
pub(super) fn flush<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let is_mode = |mode: &[u8]| {
        ["ASYNC", "SYNC", "MESH"].iter().any(|known| mode.eq_ignore_ascii_case(known.as_bytes()))
    };
    match (call.args.get(0), call.args.len()) {
        (None, _) => {}
        (Some(mode), 1) if is_mode(mode) => {}
        (Some(mode), _) if call.reply.is_line() => {
            return Err(CommandError::Sentence(format!(
                "{} takes MESH, or nothing; not '{}'",
                call.command.name,
                Excerpt(mode)
            )));
        }
        (Some(mode), _) => return Err(CommandError::Syntax(call.command.name, mode)),
    }
    let is_mesh = call.args.get(0).is_some_and(|mode| mode.eq_ignore_ascii_case(b"MESH"));
    let count = state.keyspace.store().len();
    if is_mesh {
        floor::raise(state, call.now);
    } else {
        state.keyspace.clear();
    }
    call.reply.ok();
    match (call.reply.is_line(), is_mesh) {
        (true, true) => call.reply.text("1 node"),
        (true, false) => call.reply.text(count),
        (false, _) => {}
    }
    Ok(Effect::Reply)
}
