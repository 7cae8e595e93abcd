//! How long the node waits for a connection, and for what.
//!
//! A connection has at most one live timer, and none while nothing is expected of it: people think
//! while they type. Traffic never re-arms a timer: when it fires, `timers` asks here what the connection
//! is being waited for *then*.

use crate::base::address::is_loopback;
use crate::base::time::Instant;
use crate::limits::{DIAL_MS, HANDSHAKE_TIMEOUT_MS, LINGER_MS, Limits};
use crate::node::conn::connection::{CloseReason, Conn, Phase, Role};
use crate::node::ids::ConnKey;
use crate::node::state::{State, Timer};
use std::time::Duration;

/// Until when this connection may go on as it does, and what it is if it goes on longer.
pub(in crate::node) fn patience(conn: &Conn, limits: &Limits) -> Option<(Instant, CloseReason)> {
    match conn.phase() {
        Phase::Connecting => Some((after(conn.last_active, DIAL_MS), CloseReason::DialFailed)),
        Phase::Lingering(reason) => Some((after(conn.last_active, LINGER_MS), reason)),
        // It waits for us, with nothing to take.
        Phase::Closing(_) if conn.outbound.is_empty() => None,
        Phase::Closing(_) => Some((after(conn.last_active, limits.slow_reader_ms), CloseReason::SlowReader)),
        Phase::Open | Phase::ReadClosed => {
            if let Some(since) = conn.slow_since {
                return Some((after(since, limits.slow_reader_ms), CloseReason::SlowReader));
            }
            // An introduction has its time, however many bytes come.
            match (&conn.role, &conn.offered) {
                (Role::OutboundHandshake(dialling), _) => {
                    return Some((after(dialling.at, HANDSHAKE_TIMEOUT_MS), CloseReason::DialFailed));
                }
                // A link's silence is noticed by its beats.
                (Role::Link(_) | Role::Parted, _) => return None,
                (Role::Client, Some(offered)) => {
                    return Some((after(offered.at, HANDSHAKE_TIMEOUT_MS), CloseReason::Refused));
                }
                (Role::Client, None) => {}
            }
            let silence = silence(conn, limits);
            silence.into_iter().chain(strangeness(conn, limits)).min_by_key(|(due, _)| *due)
        }
    }
}

/// Until when a client may stay silent.
fn silence(conn: &Conn, limits: &Limits) -> Option<(Instant, CloseReason)> {
    let waits_for_us = conn.is_paused || conn.is_runnable || !conn.replies.is_empty();
    let silence_max = if !conn.inbound.is_empty() && !waits_for_us {
        limits.request_idle_ms
    } else if conn.has_spoken || conn.is_runnable || is_loopback(conn.addr.ip()) {
        // Who waits for its turn is not silent, however long that takes.
        return None;
    } else {
        limits.first_byte_ms
    };
    Some((after(conn.last_active, silence_max), CloseReason::Idle))
}

/// Until when a client has to give the password, whatever else it says: a place for ever is what it asks for.
fn strangeness(conn: &Conn, limits: &Limits) -> Option<(Instant, CloseReason)> {
    let is_stranger = !conn.is_authenticated && !is_loopback(conn.addr.ip());
    is_stranger.then(|| (after(conn.since, limits.request_idle_ms), CloseReason::Unauthenticated))
}

fn after(since: Instant, ms: u32) -> Instant {
    since.after(Duration::from_millis(u64::from(ms)))
}

/// Makes sure that a timer fires when the connection's patience ends, if it has none that early.
pub(in crate::node) fn arm(state: &mut State, key: ConnKey) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    let Some((due, _)) = patience(conn, &state.config.limits) else { return };
    // Up to the next tick: a timer that fired early would only have to go back in.
    let at = due.millis_ceil();
    if conn.timer_at.is_none_or(|armed| armed > at) {
        conn.timer_at = Some(at);
        state.timers.insert(at, Timer::Conn(key));
    }
}
