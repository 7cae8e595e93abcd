//! Commands that read and write values.

use crate::base::time::Now;
use crate::node::command::error::{BadSeconds, CommandError, seconds};
use crate::node::command::read::read;
use crate::node::command::row::{Call, Effect};
use crate::node::lookup::table::KeyReply;
use crate::node::state::State;
use crate::store::Expiry;
use crate::wire::frame::Wanted;
use crate::wire::resp::parse::number;

/// The values of keys: found fields in lines, one value or null in RESP.
static VALUE: KeyReply = KeyReply {
    wanted: Wanted::Value,
    is_array: false,
    write: |reply, _, key, found| match found {
        Some(found) => {
            reply.key(key);
            reply.bulk(found.value);
        }
        None => reply.null(),
    },
};

/// The same as an array.
static VALUES: KeyReply = KeyReply { is_array: true, ..VALUE };

/// Bytes of the longest number of 64 bits.
const NUMBER_BYTES_MAX: usize = 20;

/// GET.
pub(in crate::node) fn get<'a>(state: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    read(state, call, &VALUE)
}

/// MGET.
pub(in crate::node) fn mget<'a>(state: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    read(state, call, &VALUES)
}

/// SET of pairs, all or none. In lines the reply shows them.
pub(in crate::node) fn set<'a>(state: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    let pairs = call.args.tuples::<2>();
    make_room(state, call.now, pairs.len(), pairs.clone().map(|[key, value]| key.len() + value.len()))?;
    if call.reply.is_line() {
        for [key, value] in pairs.clone() {
            call.reply.key(key);
            call.reply.bulk(value);
        }
        call.check_length(state)?;
    } else {
        call.reply.status("OK");
    }
    for [key, value] in pairs {
        let key = state.keyspace.key(key);
        state.keyspace.set(call.now, key, value, None)?;
    }
    state.keyspace.keep_up(call.now);
    Ok(Effect::Reply)
}

/// SETEX of keys, seconds and values, all or none.
pub(in crate::node) fn setex<'a>(state: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    let timed = call.args.tuples::<3>();
    make_room(state, call.now, timed.len(), timed.clone().map(|[key, _, value]| key.len() + value.len()))?;
    let deadline = |text| {
        let seconds = seconds(call.command.name, text)?;
        Expiry::in_seconds(call.now.mono, seconds)
            .ok_or(CommandError::BadSeconds(call.command.name, text, BadSeconds::TooMany))
            .map(|deadline| (seconds, deadline))
    };
    for [key, text, value] in timed.clone() {
        let (seconds, _) = deadline(text)?;
        call.reply.key(key);
        if call.reply.is_line() {
            call.reply.bulk(value);
            call.reply.text(seconds);
        }
    }
    call.reply.status("OK");
    call.check_length(state)?;
    for [key, text, value] in timed {
        let (_, deadline) = deadline(text)?;
        let key = state.keyspace.key(key);
        state.keyspace.set(call.now, key, value, Some(deadline))?;
    }
    state.keyspace.keep_up(call.now);
    Ok(Effect::Reply)
}

/// INCR of keys, all or none. The expiry of a key stays.
pub(in crate::node) fn incr<'a>(state: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    let (keys, name) = (call.args.iter(), call.command.name);
    let read = |state: &mut State, key| {
        let hashed = state.keyspace.key(key);
        let item = state.keyspace.get(call.now, hashed);
        item.map_or(Ok(0), |item| number(item.value).ok_or(CommandError::NoNumber(name, key)))
    };
    // A key may stand in the request several times.
    let most = i64::try_from(keys.len()).unwrap_or(i64::MAX);
    for key in keys.clone() {
        read(state, key)?.checked_add(most).ok_or(CommandError::Overflow(name, key))?;
        call.reply.key(key);
        call.reply.integer(i64::MIN);
    }
    call.check_length(state)?;
    call.reply.clear();
    make_room(state, call.now, keys.len(), keys.clone().map(|key| key.len() + NUMBER_BYTES_MAX))?;
    for key in keys {
        let sum = read(state, key)?.checked_add(1).ok_or(CommandError::Overflow(name, key))?;
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

/// Makes room for all of several writes, since all or none of them is done. One key is just set: if it takes the place
/// of another of its size it needs no room.
fn make_room<'a>(
    state: &mut State,
    now: Now,
    keys: usize,
    bytes: impl Iterator<Item = usize>,
) -> Result<(), CommandError<'a>> {
    if keys == 1 {
        return Ok(());
    }
    Ok(state.keyspace.make_room(now, keys, bytes.sum())?)
}
