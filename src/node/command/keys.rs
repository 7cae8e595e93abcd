//! Commands about keys, whatever their values are.

use crate::base::time::Instant;
use crate::node::command::error::{BadSeconds, CommandError, seconds};
use crate::node::command::read::read;
use crate::node::command::row::{Call, Effect};
use crate::node::lookup::table::KeyReply;
use crate::node::state::State;
use crate::store::Expiry;
use crate::wire::frame::Wanted;

/// Seconds left of keys, rounded up. In RESP -1 is never, and -2 no such key.
static TTL: KeyReply = KeyReply {
    wanted: Wanted::Ttl,
    is_array: false,
    write: |reply, now, key, found| match found.map(|found| found.until) {
        None if reply.is_line() => {}
        None => reply.integer(-2),
        Some(None) if reply.is_line() => {
            reply.key(key);
            reply.text("never");
        }
        Some(None) => reply.integer(-1),
        Some(Some(until)) => {
            reply.key(key);
            reply.integer(seconds_left(until, now));
        }
    },
};

fn seconds_left(until: Instant, now: Instant) -> i64 {
    i64::try_from(until.since(now).as_nanos().div_ceil(1_000_000_000)).unwrap_or(i64::MAX)
}

/// TTL.
pub(in crate::node) fn ttl<'a>(state: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    read(state, call, &TTL)
}

/// DEL. In lines the reply shows the keys that were there, in RESP their number.
pub(in crate::node) fn del<'a>(state: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    // As if all were there: a reply that is too long must be known before the first key is gone.
    call.args.iter().for_each(|key| call.reply.key(key));
    call.check_length(state)?;
    call.reply.clear();
    let mut removed = 0;
    for key in call.args.iter() {
        let hashed = state.keyspace.key(key);
        if state.keyspace.remove(call.now, hashed) {
            removed += 1;
            call.reply.key(key);
        }
    }
    call.reply.count(removed);
    state.keyspace.keep_up(call.now);
    Ok(Effect::Reply)
}

/// EXPIRE of keys and seconds. The reply shows the keys that were there.
pub(in crate::node) fn expire<'a>(
    state: &mut State,
    call: &mut Call<'a>,
) -> Result<Effect, CommandError<'a>> {
    let pairs = call.args.tuples::<2>();
    let deadline = |text| {
        let seconds = seconds(call.command.name, text)?;
        Expiry::in_seconds(call.now.mono, seconds)
            .ok_or(CommandError::BadSeconds(call.command.name, text, BadSeconds::TooMany))
            .map(|deadline| (seconds, deadline))
    };
    for [key, text] in pairs.clone() {
        let (seconds, _) = deadline(text)?;
        call.reply.key(key);
        call.reply.text(seconds);
    }
    call.check_length(state)?;
    call.reply.clear();
    for [key, text] in pairs {
        let (seconds, deadline) = deadline(text)?;
        let hashed = state.keyspace.key(key);
        if state.keyspace.set_expiry(call.now, hashed, Some(deadline))? {
            call.reply.key(key);
            call.reply.text(seconds);
        }
    }
    state.keyspace.keep_up(call.now);
    Ok(Effect::Reply)
}
