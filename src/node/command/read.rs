//! Commands that read keys, which may be on other nodes.
//!
//! While each key is here, or nowhere, the reply is written at once. The first one that may be elsewhere
//! makes the request a pending one, which keeps what was found so far.

use crate::base::time::{Instant, Now};
use crate::node::command::error::CommandError;
use crate::node::command::row::{Call, Effect};
use crate::node::conn::pending;
use crate::node::ids::ConnKey;
use crate::node::lookup::remote;
use crate::node::lookup::table::{Answer, Found, KeyReply, PendingRequest, Waiter};
use crate::node::state::State;
use crate::store::Item;
use crate::wire::args::Args;
use crate::wire::encoder::ReplyHead;
use crate::wire::frame::Wanted;
use std::rc::Rc;

/// Writes what there is of each key of a call.
#[inline]
pub(in crate::node) fn read<'a>(
    state: &mut State,
    call: &mut Call<'a>,
    form: &'static KeyReply,
) -> Result<Effect, CommandError<'a>> {
    let now = call.now.mono;
    let mut misses = 0;
    if form.is_array {
        call.reply.array(call.args.len());
    }
    for (at, key) in call.args.iter().enumerate() {
        let hashed = state.keyspace.key(key);
        match state.keyspace.get(call.now, hashed) {
            Some(item) => {
                (form.write)(&mut call.reply, now, key, Some(found(&item)));
                call.check_length(state)?;
            }
            None if state.mesh.may_be_elsewhere(hashed.hash.0) => return look_up(state, call, form, at),
            None => {
                misses += 1;
                (form.write)(&mut call.reply, now, key, None);
            }
        }
    }
    state.mesh.checks += misses;
    if form.wanted == Wanted::Value {
        let keys = call.args.len() as u64;
        state.stats.gets += keys;
        state.stats.hits += keys - misses;
        state.stats.misses += misses;
    }
    Ok(Effect::Reply)
}

fn found<'s>(item: &Item<'s>) -> Found<'s> {
    Found { value: item.value, until: item.expiry.map(|deadline| Instant::from_millis(deadline.millis())) }
}

fn look_up<'a>(
    state: &State,
    call: &Call<'a>,
    form: &'static KeyReply,
    at: usize,
) -> Result<Effect, CommandError<'a>> {
    let lookups_max = state.config.limits.lookups_max;
    if state.mesh.lookups.has_room(call.args.len(), lookups_max as usize) {
        Ok(Effect::LookUp(form, at))
    } else {
        Err(CommandError::TooManyLookups(lookups_max))
    }
}

/// Makes a request a pending one: it holds its place among the replies of its connection until each of its
/// keys is answered for. The key at `first_absent` is the one whose claims were just searched; keys before it
/// are here or nowhere. There is room for that many lookups.
pub(in crate::node) fn begin_pending(
    state: &mut State,
    now: Now,
    conn: ConnKey,
    head: ReplyHead,
    keys: Args<'_>,
    form: &'static KeyReply,
    first_absent: usize,
) {
    remote::close_changed(state);
    let Some(request) = pending::begin(state, conn, head, form, keys.iter()) else { return };
    let mut begun = Vec::new();
    for (part, key) in keys.iter().enumerate() {
        let hashed = state.keyspace.key(key);
        let waiter = Waiter { ask: request, part };
        let is_absent = part == first_absent;
        if let Some(item) = state.keyspace.get(now, hashed).filter(|_| !is_absent) {
            let found = found(&item);
            let is_kept = state.mesh.lookups.pending.get(request).is_some_and(PendingRequest::keeps_values);
            let value = if is_kept { found.value.into() } else { Rc::default() };
            pending::store_part(state, waiter, Answer::Found { value, until: found.until });
        } else if is_absent || (part > first_absent && state.mesh.may_be_elsewhere(hashed.hash.0)) {
            state.mesh.checks += 1;
            remote::look_up(state, now, key, hashed.hash, waiter, form.wanted, &mut begun);
        } else {
            state.mesh.checks += 1;
            pending::store_part(state, waiter, Answer::Missing);
        }
    }
    remote::start(state, now, begun);
}
