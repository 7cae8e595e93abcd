//! Times of requests: until their replies are written to the socket, and of the calls that carry them out.

use crate::base::human;
use crate::base::time::Now;
use crate::limits::{EvictionPolicy, Limits};
use crate::node::conn::connection::Conn;
use crate::node::conn::replies::SlotNumber;
use crate::node::conn::session::Text;
use crate::node::history::Counters;
use crate::node::ids::ConnKey;
use crate::node::latency::{Batch, CommandClass};
use crate::node::metrics::nanos;
use crate::node::slow_log::{SlowRequest, TEXT_BYTES_MAX, is_slow};
use crate::node::state::State;
use std::time::Duration;

/// Notes the requests of a connection whose replies were written since the last call.
pub(in crate::node) fn note_written(state: &mut State, now: Now, key: ConnKey) {
    if let Some(batch) = state.latency.take_batch() {
        note(state, now, key, batch);
    }
}

/// Notes a request whose reply holds a slot of its connection, but is not known yet. Earlier requests must have been
/// noted.
pub(in crate::node) fn note_held(
    state: &mut State,
    now: Now,
    key: ConnKey,
    class: CommandClass,
    command: usize,
) {
    note(state, now, key, Batch::of(class, command));
}

fn note(state: &mut State, now: Now, key: ConnKey, batch: Batch) {
    if let Some(conn) = state.conns.get_mut(key) {
        conn.replies.marks.take_memory(&mut state.latency.spare);
        conn.replies.note(&conn.outbound, (conn.last_active, now.mono), batch);
    }
}

/// Notes that the socket of a client accepted `count` bytes, and accounts for the requests whose replies end in them.
pub(in crate::node) fn wrote(state: &mut State, now: Now, key: ConnKey, count: usize) {
    let State { conns, latency, slow_log, config, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    let marks = &mut conn.replies.marks;
    marks.wrote(count);
    while let Some(mark) = marks.next_sent() {
        if is_slow(&config.limits, latency.replied(now.mono, mark)) {
            let (client, wall_ms, spent) = (conn.addr, now.wall_ms(), mark.spent(now.mono));
            let name = conn.session.as_ref().map(|session| cut(session.text(Text::Name))).unwrap_or_default();
            let (command, others) = (mark.command(), mark.requests().saturating_sub(1));
            let key = mark.key.take();
            slow_log.add(
                &config.limits,
                SlowRequest { id: 0, wall_ms, spent, command, key, others, client, name },
            );
        }
        marks.drop_next();
    }
    marks.give_memory(&mut latency.spare);
}

/// Keeps the key of a request whose lookup was slow.
pub(in crate::node) fn looked_up(conn: &mut Conn, limits: &Limits, now: Now, slot: SlotNumber, key: &[u8]) {
    if let Some(mark) = conn.replies.mark_mut(slot)
        && is_slow(limits, mark.age(now.mono))
    {
        mark.key = Some(cut(key));
    }
}

/// The part of a text that is kept.
fn cut(text: &[u8]) -> Box<[u8]> {
    text[..text.len().min(TEXT_BYTES_MAX)].into()
}

/// Attributes the time of the calls since the last report to the requests that they carried out.
pub(in crate::node) fn took(state: &mut State, took: Duration) {
    let State { conns, latency, .. } = state;
    let took = nanos(took);
    for key in latency.took(took) {
        if let Some(conn) = conns.get_mut(key) {
            conn.replies.marks.worked(took);
        }
    }
}

/// Ends the current sample of the history once its time is over.
pub(in crate::node) fn roll_history(state: &mut State, now: Now) {
    if state.history.is_due(now.mono) {
        let (counters, memory) = (counters(state), state.keyspace.store().memory_bytes());
        state.history.roll(now.mono, counters, state.latency.of_all(), memory);
        state.keyspace.count_history(state.history.memory_bytes());
        note_memory(state, memory);
    }
}

/// Logs that the memory of items is above 95 % of `memory_max`; again only after it was below 90 %.
fn note_memory(state: &mut State, memory: u64) {
    let Limits { memory_max: max, eviction, .. } = state.config.limits;
    if max == 0 || memory < max - max / 10 {
        state.is_memory_full = false;
    } else if !state.is_memory_full && memory >= max - max / 20 {
        state.is_memory_full = true;
        let (memory, max) = (human::bytes(memory as f64), human::bytes(max as f64));
        match eviction {
            EvictionPolicy::S3Fifo => {
                log::info!("{memory} of memory_max = {max} are used; the items used least are evicted");
            }
            EvictionPolicy::Refuse => {
                log::warn!("{memory} of memory_max = {max} are used; writes fail at the limit (eviction)");
            }
        }
    }
}

/// The counters of a sample of the history.
pub(in crate::node) fn counters(state: &State) -> Counters {
    let stats = &state.stats;
    Counters { requests: stats.requests, hits: stats.hits, misses: stats.misses }
}
