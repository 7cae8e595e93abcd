//! What happens to a connection that keeps the node waiting.
//!
//! A connection has at most one live timer, and none while nothing is expected of it: people think
//! while they type. Traffic never re-arms a timer. When one fires, it asks what the connection is being
//! waited for *now*: if that is overdue the connection ends, if not the timer goes back in. A timer
//! whose tick is not the one its connection remembers is dead, and says nothing.

use super::conns::{CloseReason, Conn, Phase, close_conn};
use super::intake;
use super::keys::ConnKey;
use super::state::State;
use crate::base::time::{Instant, Now};
use crate::base::wheel::Popped;
use crate::limits::{LINGER_MS, Limits};
use crate::wire::reply::put_error;
use std::time::Duration;

/// What a timer of the node is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Whether this connection is keeping us waiting.
    Conn(ConnKey),
    /// The end of the time in which connections may take their last replies.
    DrainEnd,
}

/// Until when this connection may go on as it does, and what it is if it goes on longer.
fn patience(conn: &Conn, limits: &Limits) -> Option<(Instant, CloseReason)> {
    let after = |since: Instant, ms: u32| since.after(Duration::from_millis(u64::from(ms)));
    match conn.phase() {
        Phase::Lingering(reason) => Some((after(conn.last_active, LINGER_MS), reason)),
        Phase::Closing(_) => Some((after(conn.last_active, limits.slow_reader_ms), CloseReason::SlowReader)),
        Phase::Open | Phase::ReadClosed => {
            if let Some(since) = conn.slow_since {
                return Some((after(since, limits.slow_reader_ms), CloseReason::SlowReader));
            }
            let waits_for_us = conn.is_paused || conn.is_runnable || !conn.replies.is_empty();
            if !conn.inbound.is_empty() && !waits_for_us {
                return Some((after(conn.last_active, limits.request_idle_ms), CloseReason::Idle));
            }
            (!conn.has_spoken && !conn.addr.ip().is_loopback())
                .then(|| (after(conn.last_active, limits.first_byte_ms), CloseReason::Idle))
        }
    }
}

/// Makes sure that a timer fires when the connection's patience ends, if it has none that early.
pub(super) fn arm(state: &mut State, key: ConnKey) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    let Some((due, _)) = patience(conn, &state.config.limits) else { return };
    // Up to the next tick: a timer that fired early would only have to go back in.
    let at = due.nanos().div_ceil(1_000_000);
    if conn.timer_at.is_none_or(|armed| armed > at) {
        conn.timer_at = Some(at);
        state.timers.insert(at, Timer::Conn(key));
    }
}

/// Looks at up to `budget` timers of the node that are due.
pub(super) fn run(state: &mut State, now: Now, budget: u32) {
    for _ in 0..budget {
        match state.timers.pop(now.mono.millis()) {
            Popped::Due { deadline, payload: Timer::Conn(key) } => fire(state, now, key, deadline),
            Popped::Due { payload: Timer::DrainEnd, .. } => end_drain(state),
            Popped::Moved => {}
            Popped::Idle => break,
        }
    }
}

fn fire(state: &mut State, now: Now, key: ConnKey, deadline: u64) {
    let State { conns, config, pool, stats, .. } = state;
    let Some(conn) = conns.get_mut(key).filter(|conn| conn.timer_at == Some(deadline)) else { return };
    conn.timer_at = None;
    let overdue = patience(conn, &config.limits).filter(|(due, _)| *due <= now.mono);
    match (overdue, conn.is_serving()) {
        (None, _) => arm(state, key),
        (Some((_, CloseReason::Idle)), true) => {
            stats.errors += 1;
            conn.replies.next(&mut conn.outbound, pool, |out| {
                put_error(out, b"", "nothing came for too long inside a request; the connection ends");
            });
            conn.begin_closing(CloseReason::Idle, now.mono, pool);
            intake::settle(state, now, key);
        }
        (Some((_, reason)), _) => close_conn(state, key, reason),
    }
}

fn end_drain(state: &mut State) {
    let keys: Vec<ConnKey> = state.conns.iter().map(|(key, _)| key).collect();
    for key in keys {
        close_conn(state, key, CloseReason::Drained);
    }
}
