//! Commands that read keys, which may be on other nodes.
//!
//! If each key is on this node or on none, the reply is written at once. If not, or if the reply is longer than
//! `LONG_REPLY_BYTES`, the request becomes pending.

use crate::base::chunk_queue::ChunkQueue;
use crate::base::time::Now;
use crate::limits::LONG_REPLY_BYTES;
use crate::node::command::error::CommandError;
use crate::node::command::row::{Call, CommandResult, Effect, Further};
use crate::node::conn::pending;
use crate::node::ids::ConnKey;
use crate::node::lookup::answers::Answer;
use crate::node::lookup::key_reply::{Found, KeyReply, Shape};
use crate::node::lookup::pending_request::Waiter;
use crate::node::lookup::remote;
use crate::node::state::State;
use crate::node::versions::notices;
use crate::store::PREFETCH_MAX;
use crate::wire::args::Args;
use crate::wire::encoder::ReplyHead;
use crate::wire::frame::Wanted;

/// Writes the reply for the keys of a call, or returns [`Further::LookUp`]. Inlined, so that the form is a constant per
/// command.
#[inline(always)]
pub(in crate::node) fn read<'a>(
    state: &mut State,
    call: &mut Call<'a>,
    form: &KeyReply,
) -> CommandResult<'a> {
    let keys = call.args.len();
    let mut found = 0;
    if form.shape == Shape::Array {
        call.reply.array(keys);
    }
    if keys == 1 {
        // Most requests: the compiler prepares no loop for it.
        match read_key(state, call, form, 0) {
            Ok(is_here) => found += usize::from(is_here),
            Err(result) => return result,
        }
    } else {
        for at in 0..keys {
            if at.is_multiple_of(PREFETCH_MAX) {
                let next = call.args.skip(at).first(PREFETCH_MAX);
                state.keyspace.prefetch_several(next.iter(), false);
            }
            match read_key(state, call, form, at) {
                Ok(is_here) => found += usize::from(is_here),
                Err(result) => return result,
            }
        }
    }
    if form.shape == Shape::Count {
        call.reply.count(found);
    }
    let misses = keys - found;
    state.mesh.peers.count_searches(misses as u64);
    if form.wanted == Wanted::Value {
        state.stats.keys_read(keys);
        state.stats.keys_found(found, misses);
    }
    Ok(Effect::Reply)
}

/// Writes the part of the reply for the key at index `at`. Returns whether the key is on this node, or the result of the
/// whole call.
#[inline(always)]
fn read_key<'a>(
    state: &mut State,
    call: &mut Call<'a>,
    form: &KeyReply,
    at: usize,
) -> Result<bool, CommandResult<'a>> {
    let Some(key) = call.args.get(at).filter(|_| call.reply.len() <= LONG_REPLY_BYTES) else {
        return Err(look_up(state, call, form, at));
    };
    let hashed = call.hashed(state, at, key);
    match state.keyspace.get(call.now, hashed) {
        Some(item)
            if form.wanted == Wanted::Value && form.shown(item.value.len()).len() > LONG_REPLY_BYTES =>
        {
            Err(look_up(state, call, form, at))
        }
        Some(item) => {
            form.put(&mut call.reply, call.now, key, Some(Found::of(&item)));
            call.check_length(state).map_err(Err)?;
            Ok(true)
        }
        None if state.mesh.may_be_elsewhere(hashed.hash.0) => Err(look_up(state, call, form, at)),
        None => {
            form.put(&mut call.reply, call.now, key, None);
            Ok(false)
        }
    }
}

fn look_up<'a>(state: &State, call: &Call<'a>, form: &KeyReply, at: usize) -> CommandResult<'a> {
    let lookups_max = state.config.limits.lookups_max;
    if state.mesh.lookups.has_room(call.args.len(), lookups_max as usize) {
        Ok(Further::LookUp(*form, at).into())
    } else {
        Err(CommandError::TooManyLookups(lookups_max))
    }
}

/// Writes the reply for the keys of a call from this node only. Large values are shared with `out`, to which all before
/// them is moved.
pub(in crate::node) fn read_here(
    state: &mut State,
    call: &mut Call<'_>,
    form: &KeyReply,
    out: &mut ChunkQueue,
) {
    call.reply.clear();
    form.begin(&mut call.reply, call.args.len());
    let mut found = 0;
    for key in call.args.iter() {
        if call.reply.len() > LONG_REPLY_BYTES {
            out.push_chunk(call.reply.take_written(Vec::new()), &mut state.pool);
        }
        let hashed = state.keyspace.key(key);
        let item = state.keyspace.get(call.now, hashed);
        found += usize::from(item.is_some());
        match item.map(|item| Found::of(&item)) {
            Some(Found { value, until }) if value.len() > LONG_REPLY_BYTES => {
                let value = state.keyspace.share(call.now, hashed).unwrap_or_default();
                form.put_shared(&mut call.reply, call.now, key, (value, until), (out, &mut state.pool));
            }
            found => form.put(&mut call.reply, call.now, key, found),
        }
    }
    if form.shape == Shape::Count {
        call.reply.count(found);
    }
}

/// Makes a request pending: it holds its reply slot until each of its keys has a result. Keys before `first_open` are
/// on this node or on none; that one may be on another. The caller has checked that there is room for the lookups.
pub(in crate::node) fn begin_pending(
    state: &mut State,
    now: Now,
    conn: ConnKey,
    head: ReplyHead,
    keys: Args<'_>,
    form: KeyReply,
    first_open: usize,
) {
    notices::process_changes(state, now);
    let Some(request) = pending::begin(state, conn, head, form, true, keys.iter()) else { return };
    let mut begun = Vec::new();
    let wants_value = form.wanted == Wanted::Value;
    if wants_value {
        state.stats.keys_read(keys.len());
    }
    let mut local = |key| {
        let hashed = state.keyspace.key(key);
        state.keyspace.peek(now, hashed).map_or(0, |item| form.shown(item.value.len()).len())
    };
    let is_long = wants_value && keys.iter().map(&mut local).sum::<usize>() > LONG_REPLY_BYTES;
    // Later requests wait for a long reply: each of many would count as memory of the connection.
    if is_long {
        pending::make_barrier(state, request);
    }
    // A single value is shared now; several are read when they are written to the output.
    let is_read_later = is_long && keys.len() > 1;
    for (part, key) in keys.iter().enumerate() {
        let hashed = state.keyspace.key(key);
        let waiter = Waiter { pending: request, part };
        if let Some(item) = state.keyspace.get(now, hashed) {
            let Found { value, until } = Found::of(&item);
            let bytes = if wants_value { value.len() } else { 0 };
            let answer = if is_read_later {
                Answer::Here
            } else {
                let value = if wants_value { state.keyspace.share(now, hashed) } else { None };
                Answer::Found { value: value.unwrap_or_default(), until }
            };
            pending::store_part(state, waiter, answer, bytes);
        } else if part >= first_open && state.mesh.may_be_elsewhere(hashed.hash.0) {
            state.mesh.peers.count_searches(1);
            remote::look_up(state, now, key, hashed.hash, waiter, form.wanted, &mut begun);
        } else {
            state.mesh.peers.count_searches(1);
            pending::store_part(state, waiter, Answer::Missing, 0);
        }
    }
    remote::start(state, now, begun);
}
