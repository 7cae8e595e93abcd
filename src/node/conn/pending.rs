//! Pending requests: those that wait for lookups of some of their keys. The last result completes one, and its
//! reply is written by the encoder and the function that would have written it at once.
//!
//! Not here: which nodes the lookups query ([`crate::node::lookup::remote`]).

use crate::base::time::{Instant, Now};
use crate::limits::{BYTES_PER_STEP, KEYS_PER_STEP};
use crate::node::ids::{ConnKey, PendingKey};
use crate::node::lookup::table::{Answer, Found, KeyReply, Part, PendingRequest, Waiter};
use crate::node::state::{State, mark_dirty};
use crate::wire::encoder::{Encoder, ReplyHead, ReplyTooLong};
use crate::wire::frame::Wanted;

/// What a reply costs beside its bytes: as much as a request.
const REPLY_COST_BYTES: usize = BYTES_PER_STEP / KEYS_PER_STEP;

/// Holds a place among the replies of a connection for a request, no key of which has a result yet.
pub(in crate::node) fn begin<'k>(
    state: &mut State,
    conn_key: ConnKey,
    head: ReplyHead,
    form: &'static KeyReply,
    keys: impl Iterator<Item = &'k [u8]>,
) -> Option<PendingKey> {
    let conn = state.conns.get_mut(conn_key)?;
    let place = conn.replies.hold();
    let parts: Vec<Part> = keys.map(|key| Part { key: key.into(), answer: Answer::Waiting }).collect();
    let bytes = parts.iter().map(|part| part.key.len()).sum::<usize>();
    let waiting = parts.len();
    conn.lookups += waiting;
    conn.pending_bytes += bytes + waiting * Part::BYTES;
    state.stats.gets += if form.wanted == Wanted::Value { waiting as u64 } else { 0 };
    let request =
        PendingRequest { conn: conn_key, place, head, form, parts, waiting, bytes, is_too_long: false };
    Some(state.mesh.lookups.pending.insert(request))
}

/// Stores the result for one key; the last one completes the request, and its reply is written soon.
pub(in crate::node) fn store_part(state: &mut State, waiter: Waiter, answer: Answer) {
    let bytes_max = state.config.limits.reply_bytes_max as usize;
    let Some(request) = state.mesh.lookups.pending.get_mut(waiter.ask) else { return };
    if request.form.wanted == Wanted::Value {
        state.stats.hits += u64::from(matches!(answer, Answer::Found { .. }));
        state.stats.misses += u64::from(matches!(answer, Answer::Missing));
    }
    let before = request.bytes;
    request.answer(waiter.part, answer, bytes_max);
    request.waiting -= 1;
    let (conn, after) = (request.conn, request.bytes);
    if request.waiting == 0 {
        state.mesh.lookups.whole.push_back(waiter.ask);
    }
    if let Some(conn) = state.conns.get_mut(conn) {
        conn.lookups -= 1;
        conn.pending_bytes = (conn.pending_bytes + after).saturating_sub(before);
    }
    mark_dirty(state, conn);
}

/// Writes the reply of one complete request into its place, and takes its cost off `budget`, in bytes; false if
/// nothing is left of the budget, or of requests. Many may have waited for one large value: their connections
/// are reconciled in between, so that the limit of all buffers holds.
pub(in crate::node) fn reply_next(state: &mut State, now: Now, budget: &mut usize) -> bool {
    if *budget == 0 {
        return false;
    }
    let Some(key) = state.mesh.lookups.whole.pop_front() else { return false };
    *budget = budget.saturating_sub(REPLY_COST_BYTES);
    let Some(request) = state.mesh.lookups.pending.remove(key) else { return true };
    let State { conns, pool, stats, config, .. } = state;
    let Some(conn) = conns.get_mut(request.conn) else {
        stats.lookups_unwanted += 1;
        return true;
    };
    conn.pending_bytes = conn.pending_bytes.saturating_sub(request.bytes + request.parts.len() * Part::BYTES);
    let limit_bytes = config.limits.reply_bytes_max;
    let mut reply = Encoder::resume(pool.take(), &request.head);
    if !request.is_too_long {
        write_parts(&request, now.mono, &mut reply);
    }
    if request.is_too_long || reply.len() > limit_bytes as usize {
        stats.request_errors += 1;
        reply.error("ERR", ReplyTooLong { limit_bytes, keys: request.parts.len() });
    }
    let text = reply.end();
    *budget = budget.saturating_sub(text.len());
    conn.fill(now.mono, request.place, &text, pool);
    pool.give(text);
    mark_dirty(state, request.conn);
    true
}

/// Writes what was found and has not expired while it waited for the rest.
fn write_parts(request: &PendingRequest, now: Instant, reply: &mut Encoder) {
    if request.form.is_array {
        reply.array(request.parts.len());
    }
    for part in &request.parts {
        let found = match &part.answer {
            Answer::Found { until: Some(until), .. } if *until <= now => None,
            Answer::Found { value, until } => Some(Found { value, until: *until }),
            Answer::Missing | Answer::Waiting => None,
        };
        (request.form.write)(reply, now, &part.key, found);
    }
}
