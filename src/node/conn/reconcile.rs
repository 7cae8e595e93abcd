//! Reconciles a connection with its changes: one step at the end of each entry point.
//!
//! Code that changes a connection only marks it as dirty; the consequences of a change are decided here alone.

use crate::base::buffer::{Pool, SMALL_MAX};
use crate::base::time::Now;
use crate::node::conn::buffered::Buffered;
use crate::node::conn::connection::Conn;
use crate::node::conn::phase::{CloseReason, Phase};
use crate::node::conn::role::Role;
use crate::node::conn::timeouts;
use crate::node::ids::ConnKey;
use crate::node::state::{Action, POOL_KEPT_FOR, State, Timer, close_conn};
use crate::wire::encoder::{Encoder, Protocol, put_error};
use std::time::Duration;

/// Emits the actions of a connection, accounts for its buffers, advances its phase, and arms its timer.
pub(in crate::node) fn reconcile(state: &mut State, now: Now, key: ConnKey) {
    let is_draining = state.is_draining;
    let Some(conn) = state.conns.get_mut(key) else { return };
    conn.is_dirty = false;
    if is_draining || !conn.flows() {
        advance(state, now, key);
    }
    let State { conns, actions, pool, pool_alarm, config, buffered, timers, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    if !conn.outbound.is_empty() && !conn.is_flushing && conn.phase() != Phase::Connecting {
        conn.is_flushing = true;
        actions.push_back(Action::Flush(key));
    }
    let must_stop = conn.must_wait();
    if must_stop != conn.is_stopped {
        // Time in which it was not read does not count as silence.
        conn.last_active = now.mono;
        conn.is_stopped = must_stop;
        actions.push_back(if must_stop { Action::StopReading(key) } else { Action::ResumeReading(key) });
    }
    if conn.outbound.len() > SMALL_MAX || conn.in_heap > 0 || conn.waits_since.is_some() {
        settle_output(conn, buffered, pool);
    }
    let held = conn.held();
    buffered.replace(conn.accounted, held);
    conn.accounted = held;
    if buffered.have_shrunk() || buffered.are_few() && pool.holds_much() {
        // Freed at once, it would be allocated anew for each request of a client that sends one request at a time.
        pool_alarm.arm(timers, now.mono.after(POOL_KEPT_FOR), Timer::Pool);
    }
    if conn.is_open() {
        timeouts::arm_open(conn, key, &config.limits, timers);
    } else {
        finish(state, now, key);
        timeouts::arm(state, key);
    }
    while state.buffered.are_over(state.config.limits.buffers_max) && close_stalled(state, now) {}
}

/// Moves the output of a connection to maps if its socket does not take it or much output is in the heap, and accounts
/// for what stays there.
#[inline(never)]
fn settle_output(conn: &mut Conn, buffered: &mut Buffered, pool: &mut Pool) {
    if conn.waits_since.is_some() || buffered.has_much_in_heap() {
        conn.outbound.move_to_maps(pool);
    }
    let in_heap = conn.outbound.in_heap();
    buffered.replace_in_heap(conn.in_heap, in_heap);
    conn.in_heap = in_heap;
}

/// Frees the pooled buffers, memory for marks, and what the allocator keeps of many buffers, if few are in use, a while
/// after a connection that held some was closed; else later.
pub(in crate::node) fn release_pool(state: &mut State, now: Now) {
    if state.buffered.are_few() {
        state.pool.clear();
        state.latency.spare = Vec::new();
        state.buffered.trim();
    } else if state.pool.holds_much() {
        state.pool_alarm.arm(&mut state.timers, now.mono.after(POOL_KEPT_FOR), Timer::Pool);
    }
}

/// Resumes the input of a connection, or a long reply to it, if it no longer has to wait, and begins to close it when
/// the node shuts down.
fn advance(state: &mut State, now: Now, key: ConnKey) {
    let State { conns, pool, config, stats, is_draining, runnable, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    if conn.is_paused && !conn.must_pause(&config.limits, conn.unsent()) {
        conn.is_paused = false;
        conn.is_runnable = true;
        runnable.push(conn.class(), key);
    }
    if !conn.is_runnable && conn.has_long_reply_to_write(&config.limits) {
        conn.is_runnable = true;
        runnable.push(conn.class(), key);
    }
    let is_caught_up = !conn.must_wait() && conn.replies.is_empty();
    let is_client = conn.is_client();
    if is_client && conn.phase() == Phase::ReadClosed && is_caught_up && !conn.inbound.is_empty() {
        conn.inbound.release(pool);
        if conn.is_in_lines() {
            stats.request_refused();
            conn.reply(pool, |out| {
                put_error(out, Protocol::Lines, b"", "the last line has no line end; it was not executed");
            });
        }
    }
    if *is_draining && is_client && conn.is_serving() && is_caught_up {
        if conn.is_in_lines() {
            conn.reply(pool, put_bye);
        }
        conn.begin_closing(CloseReason::Drained, now.mono, pool);
    }
}

/// Closes a connection that is done, or advances it to its next phase.
fn finish(state: &mut State, now: Now, key: ConnKey) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    if conn.phase() == Phase::ReadClosed && !conn.is_client() && !conn.is_runnable {
        // A link needs both directions.
        let reason = if matches!(conn.role(), Role::OutboundHandshake(_)) {
            CloseReason::Refused
        } else {
            CloseReason::PeerLeft
        };
        return close_conn(state, key, reason);
    }
    if !conn.outbound.is_empty() || !conn.replies.is_empty() {
        return;
    }
    match conn.phase() {
        Phase::ReadClosed if conn.inbound.is_empty() && !conn.is_runnable => {
            close_conn(state, key, CloseReason::Done);
        }
        // Its timer closes it, one of some at a time: many clients may be killed together.
        Phase::Closing(CloseReason::Killed) => {}
        Phase::Closing(reason) if conn.is_read_closed => close_conn(state, key, reason),
        Phase::Closing(reason) => {
            conn.set_phase(Phase::Lingering(reason));
            conn.last_active = now.mono;
            state.actions.push_back(Action::ShutdownWrite(key));
        }
        Phase::Connecting | Phase::Open | Phase::ReadClosed | Phase::Lingering(_) => {}
    }
}

/// Closes a connection that was sent too many bytes of replies before authentication.
pub(in crate::node) fn limit_unauthenticated(
    state: &mut State,
    now: Now,
    key: ConnKey,
    unsent_before: usize,
) {
    let State { conns, pool, config, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    if conn.is_authenticated() || !conn.is_serving() {
        return;
    }
    let more = conn.unsent().saturating_sub(unsent_before);
    if conn.is_over_unauthenticated(more, config.limits.unauthenticated_output_bytes_max) {
        conn.begin_closing(CloseReason::Unauthenticated, now.mono, pool);
    }
}

/// Closes the connection without progress for the longest time; of several, the one with the most memory. False if none
/// holds memory. O(connections), only when memory is lacking.
fn close_stalled(state: &mut State, now: Now) -> bool {
    let stalled = |conn: &Conn| conn.stalled_since().map_or(Duration::ZERO, |since| now.mono.since(since));
    let holders = state.conns.iter().filter(|(_, conn)| conn.accounted > 0);
    let Some((key, conn)) = holders.max_by_key(|(_, conn)| (stalled(conn), conn.accounted)) else {
        return false;
    };
    let (addr, bytes, time) = (conn.addr(), conn.accounted, stalled(conn).as_millis());
    if state.log_gate.allows(now, &mut state.stats) {
        log::warn!(
            "closed {addr}: buffers are over buffers_max, or the system has no memory for them, and its {bytes} bytes \
             have made no progress for {time} ms"
        );
    }
    close_conn(state, key, CloseReason::BuffersFull);
    true
}

/// The last reply to a client when the node shuts down.
fn put_bye(out: &mut Vec<u8>) {
    *out = Encoder::begin(std::mem::take(out), Protocol::Lines, b"", "BYE").end();
}
