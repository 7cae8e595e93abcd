//! Requests that wait for lookups: what becomes of their parts, and the reply when all are answered for.
//!
//! Not here: whom the lookups ask ([`crate::node::lookup::remote`]).

use crate::base::time::{Instant, Now};
use crate::limits::{BYTES_PER_STEP, KEYS_PER_STEP};
use crate::node::lookup::table::{Answer, Part, PendingRequest, Waiter};
use crate::node::state::{State, mark_dirty};
use crate::wire::frame::Wanted;
use crate::wire::reply::{Reply, ReplyTooLong, put_error};

/// What a reply counts for beside its bytes: as a request does.
const REPLY_COST_BYTES: usize = BYTES_PER_STEP / KEYS_PER_STEP;

/// Puts the answer to one key of an ask. With the last one it is whole, and has its reply written soon.
pub(in crate::node) fn store_part(state: &mut State, waiter: Waiter, answer: Answer) {
    let bytes_max = state.config.limits.reply_bytes_max as usize;
    let Some(ask) = state.mesh.lookups.pending.get_mut(waiter.ask) else { return };
    if ask.wanted == Wanted::Value {
        state.stats.hits += u64::from(matches!(answer, Answer::Found { .. }));
        state.stats.misses += u64::from(matches!(answer, Answer::Missing));
    }
    let before = ask.bytes;
    ask.answer(waiter.part, answer, bytes_max);
    ask.waiting -= 1;
    let (conn, after) = (ask.conn, ask.bytes);
    if ask.waiting == 0 {
        state.mesh.lookups.whole.push_back(waiter.ask);
    }
    if let Some(conn) = state.conns.get_mut(conn) {
        conn.lookups -= 1;
        conn.pending_bytes = (conn.pending_bytes + after).saturating_sub(before);
    }
    mark_dirty(state, conn);
}

/// Writes the reply of one ask that is whole into its place, and takes what that cost off `budget`, which is
/// in bytes; false if none is left of it, or of asks. Many may have waited for one large value: their
/// connections are settled in between, so that the limit of all buffers holds.
pub(in crate::node) fn reply_next(state: &mut State, now: Now, budget: &mut usize) -> bool {
    if *budget == 0 {
        return false;
    }
    let Some(key) = state.mesh.lookups.whole.pop_front() else { return false };
    *budget = budget.saturating_sub(REPLY_COST_BYTES);
    let Some(ask) = state.mesh.lookups.pending.remove(key) else { return true };
    let State { conns, pool, stats, config, .. } = state;
    let Some(conn) = conns.get_mut(ask.conn) else {
        stats.lookups_unwanted += 1;
        return true;
    };
    conn.pending_bytes = conn.pending_bytes.saturating_sub(ask.bytes + ask.parts.len() * Part::BYTES);
    let mut text = pool.take();
    let limit_bytes = config.limits.reply_bytes_max;
    if !ask.is_too_long {
        write_reply(&ask, now.mono, &mut text);
    }
    if ask.is_too_long || text.len() > limit_bytes as usize {
        stats.request_errors += 1;
        text.clear();
        put_error(&mut text, &ask.id, ReplyTooLong { limit_bytes, keys: ask.parts.len() });
    }
    *budget = budget.saturating_sub(text.len());
    conn.fill(now.mono, ask.place, &text, pool);
    pool.give(text);
    mark_dirty(state, ask.conn);
    true
}

/// The reply: what has been found and has not ended its life while it waited for the rest.
fn write_reply(ask: &PendingRequest, now: Instant, out: &mut Vec<u8>) {
    let word = match ask.wanted {
        Wanted::Value => "GOT",
        Wanted::Ttl => "LASTS",
    };
    let mut reply = Reply::begin(out, &ask.id, word);
    for part in &ask.parts {
        match (&part.answer, ask.wanted) {
            (Answer::Found { until: Some(until), .. }, _) if *until <= now => {}
            (Answer::Found { value, .. }, Wanted::Value) => reply.pair(&part.key, value),
            (Answer::Found { until: None, .. }, Wanted::Ttl) => reply.key_text(&part.key, "never"),
            (Answer::Found { until: Some(until), .. }, Wanted::Ttl) => {
                let seconds = until.since(now).as_nanos().div_ceil(1_000_000_000);
                reply.key_text(&part.key, seconds);
            }
            (Answer::Missing | Answer::Waiting, _) => {}
        }
    }
    reply.end();
}
