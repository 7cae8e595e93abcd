//! Pending requests in their connections: a request holds a reply slot, and its last result completes it.
//!
//! Not here: the results and the reply ([`crate::node::lookup::pending_request`]), and which nodes the lookups query
//! ([`crate::node::lookup::remote`]).

use crate::base::buffer::OutOfMemory;
use crate::base::time::Now;
use crate::limits::{BYTES_PER_STEP, KEYS_PER_STEP};
use crate::node::conn::in_flight::Held;
use crate::node::conn::measure;
use crate::node::ids::{ConnKey, PendingKey};
use crate::node::lookup::answers::Answer;
use crate::node::lookup::forwarded::QueuedCommand;
use crate::node::lookup::key_reply::KeyReply;
use crate::node::lookup::pending_request::{PendingRequest, Waiter};
use crate::node::schedule::cost_of_bytes;
use crate::node::state::{State, mark_dirty};
use crate::wire::encoder::{ReplyHead, put_error};
use crate::wire::owned_args::OwnedArgs;

/// The cost of a reply in addition to its bytes: that of a request.
const REPLY_COST_BYTES: usize = BYTES_PER_STEP / KEYS_PER_STEP;

/// Begins a pending request without results. It holds a reply slot of its connection, unless it is not answered. `None`
/// if the connection is gone, or has an error as its reply, since the system has no memory for the keys.
pub(in crate::node) fn begin<'k>(
    state: &mut State,
    conn_key: ConnKey,
    head: ReplyHead,
    form: KeyReply,
    is_answered: bool,
    keys: impl Iterator<Item = &'k [u8]> + Clone,
) -> Option<PendingKey> {
    let State { conns, pool, stats, mesh, .. } = state;
    let conn = conns.get_mut(conn_key)?;
    let Some(keys) = OwnedArgs::of(keys) else {
        if is_answered {
            stats.request_error();
            conn.reply(pool, |out| put_error(out, head.protocol(), head.id(), OutOfMemory));
        }
        return None;
    };
    let slot = is_answered.then(|| conn.replies.hold());
    let request = PendingRequest::new(conn_key, slot, head, form, keys);
    conn.in_flight().begin(request.waiting(), request.held());
    Some(mesh.pending.insert(request))
}

/// Begins a pending request that shows known answers for its words, at least one, however long they are: it has done its
/// work.
pub(in crate::node) fn begin_shown(
    state: &mut State,
    conn: ConnKey,
    head: ReplyHead,
    form: KeyReply,
    parts: Vec<(Box<[u8]>, Answer)>,
) {
    let words = parts.iter().map(|(word, _)| &**word);
    let Some(pending) = begin(state, conn, head, form, true, words) else { return };
    for (part, (_, answer)) in parts.into_iter().enumerate() {
        let bytes = answer.bytes();
        put(state, Waiter { pending, part }, answer, bytes, usize::MAX);
    }
}

/// Makes later requests of the connection wait for the reply to this one.
pub(in crate::node) fn make_barrier(state: &mut State, key: PendingKey) {
    let Some(request) = state.mesh.pending.get_mut(key) else { return };
    if request.make_barrier()
        && let Some(conn) = state.conns.get_mut(request.conn())
    {
        conn.in_flight().raise_barrier();
    }
}

/// Counts the bytes of a command that waits with a request.
pub(in crate::node) fn count_command(state: &mut State, key: PendingKey, bytes: usize) {
    let Some(request) = state.mesh.pending.get_mut(key) else { return };
    let (conn, before) = (request.conn(), request.held());
    request.count_command(bytes);
    let after = request.held();
    holds(state, conn, before, after);
}

/// Replaces the bytes of a request, in the account of its connection. Without a connection they are
/// among those of all until the request ends.
fn holds(state: &mut State, conn: ConnKey, before: Held, after: Held) {
    match state.conns.get_mut(conn) {
        Some(conn) => conn.in_flight().holds(before, after),
        None => state.buffered.replace(before.memory, after.memory),
    }
}

/// Notes that other nodes have answered for one key with a value of `value_bytes`, or none.
pub(in crate::node) fn note_answer(state: &mut State, waiter: Waiter, value_bytes: usize) {
    let State { mesh, conns, .. } = state;
    let conn = mesh.pending.get_mut(waiter.pending).and_then(|request| conns.get_mut(request.conn()));
    if let Some(conn) = conn {
        conn.in_flight().answered(value_bytes);
    }
}

/// Stores the result for one key, whose value has `value_bytes`. The last one completes the request; [`reply_next`]
/// then writes its reply.
pub(in crate::node) fn store_part(state: &mut State, waiter: Waiter, answer: Answer, value_bytes: usize) {
    let bytes_max = state.config.limits.reply_bytes_max as usize;
    let Some(request) = state.mesh.pending.get_mut(waiter.pending) else { return };
    if request.wants_values() {
        let (is_hit, is_miss) =
            (matches!(answer, Answer::Found { .. } | Answer::Here), matches!(answer, Answer::Missing));
        state.stats.keys_found(is_hit.into(), is_miss.into());
    }
    put(state, waiter, answer, value_bytes, bytes_max);
}

fn put(state: &mut State, waiter: Waiter, answer: Answer, value_bytes: usize, bytes_max: usize) {
    let Some(request) = state.mesh.pending.get_mut(waiter.pending) else { return };
    let (conn_key, before) = (request.conn(), request.held());
    let is_complete = request.answer(waiter.part, answer, value_bytes, bytes_max);
    let after = request.held();
    if is_complete {
        state.mesh.pending.completed(waiter.pending);
    }
    if let Some(conn) = state.conns.get_mut(conn_key) {
        conn.in_flight().lookup_ended();
    }
    holds(state, conn_key, before, after);
    mark_dirty(state, conn_key);
}

/// Writes the reply of one complete request into its slot, and subtracts the cost, in bytes, from `budget`; false if
/// the budget is spent or no request is complete. Many requests may have waited for one large value: their connections
/// are reconciled in between, so that the limit of all buffers holds. A long reply is written later, piece by piece
/// ([`write_piece`]).
pub(in crate::node) fn reply_next(state: &mut State, now: Now, budget: &mut usize) -> bool {
    if *budget == 0 {
        return false;
    }
    let Some(key) = state.mesh.pending.next_complete() else { return false };
    *budget = budget.saturating_sub(REPLY_COST_BYTES);
    let State { conns, pool, stats, config, keyspace, mesh, .. } = state;
    let Some(request) = mesh.pending.get_mut(key) else { return true };
    if request.is_transaction() {
        mesh.queued_commands.push(QueuedCommand::Transaction(key));
        return true;
    }
    let (conn_key, slot) = (request.conn(), request.slot());
    let Some(conn) = conns.get_mut(conn_key) else {
        state.buffered.replace(request.held().memory, 0);
        mesh.pending.remove(key);
        stats.lookups_unwanted += 1;
        return true;
    };
    if let (Some(slot), Some(key)) = (slot, request.first_key()) {
        measure::looked_up(conn, &config.limits, now, slot, key);
    }
    if let Some(slot) = slot
        && request.is_long()
    {
        // Otherwise values of many requests would wait for this reply to be read.
        if request.make_barrier() {
            conn.in_flight().raise_barrier();
        }
        let before = request.held();
        request.begin_writing();
        conn.in_flight().holds(before, request.held());
        conn.replies.write_later(now.mono, slot, key);
    } else if let Some(request) = mesh.pending.remove(key) {
        conn.in_flight().end(request.is_barrier(), request.held());
        let (text, is_error) = request.write(keyspace, now, pool.take(), config.limits.reply_bytes_max);
        if is_error {
            stats.request_error();
        }
        *budget = budget.saturating_sub(text.len());
        if let Some(slot) = slot {
            conn.fill(now.mono, slot, &text, pool);
        }
        pool.give(text);
    }
    mark_dirty(state, conn_key);
    true
}

/// Removes a complete request whose reply its caller writes, and its reply slot, which is the last one.
pub(in crate::node) fn take(state: &mut State, key: PendingKey) -> Option<PendingRequest> {
    let request = state.mesh.pending.remove(key)?;
    if let Some(conn) = state.conns.get_mut(request.conn()) {
        conn.in_flight().end(request.is_barrier(), request.held());
        if let Some(slot) = request.slot() {
            conn.replies.withdraw(slot);
        }
        mark_dirty(state, request.conn());
    } else {
        state.buffered.replace(request.held().memory, 0);
    }
    Some(request)
}

/// Writes the next piece of the long reply at the front of this connection, if there is one, and charges the connection
/// for it. Returns the cost of the work; that of shared bytes is counted when they are written to the socket.
pub(in crate::node) fn write_piece(state: &mut State, now: Now, conn_key: ConnKey) -> usize {
    let State { conns, pool, keyspace, mesh, .. } = state;
    let Some(conn) = conns.get_mut(conn_key) else { return 0 };
    let Some(key) = conn.replies.long_at_front() else { return 0 };
    let Some(request) = mesh.pending.get_mut(key) else { return 0 };
    let (unsent, held) = (conn.outbound.len(), request.held());
    let (worked, is_complete) = request.write_piece(keyspace, now, &mut conn.outbound, pool);
    conn.in_flight().holds(held, request.held());
    let written = conn.outbound.len() - unsent;
    conn.account.charge(cost_of_bytes(written.max(worked)));
    if is_complete {
        conn.replies.end_long(now.mono, &mut conn.outbound, pool);
        if let Some(request) = mesh.pending.remove(key) {
            conn.in_flight().end(request.is_barrier(), request.held());
        }
    }
    cost_of_bytes(worked)
}
