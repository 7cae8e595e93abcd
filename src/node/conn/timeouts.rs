//! The time limits of a connection.
//!
//! A connection has at most one live timer, and none while no limit runs: between requests a client may be
//! silent for any time. Traffic never re-arms a timer; when one fires, the limit that applies *then* decides.

use crate::base::address::is_loopback;
use crate::base::time::Instant;
use crate::base::wheel::Wheel;
use crate::limits::{DIAL_MS, HANDSHAKE_TIMEOUT_MS, LINGER_MS, Limits};
use crate::node::conn::connection::Conn;
use crate::node::conn::phase::{CloseReason, Phase};
use crate::node::conn::role::Role;
use crate::node::ids::ConnKey;
use crate::node::state::{State, Timer};
use std::time::Duration;

/// When the time limit that applies to this connection now ends, and the reason to close it then.
pub(in crate::node) fn time_limit(conn: &Conn, limits: &Limits) -> Option<(Instant, CloseReason)> {
    match conn.phase() {
        Phase::Connecting => Some((after(conn.last_active, DIAL_MS), CloseReason::DialFailed)),
        Phase::Lingering(reason) => Some((after(conn.last_active, LINGER_MS), reason)),
        Phase::Closing(CloseReason::Killed) => Some((conn.last_active, CloseReason::Killed)),
        // It waits for a reply of this node.
        Phase::Closing(_) if conn.outbound.is_empty() => None,
        Phase::Closing(_) => Some((after(conn.last_active, limits.slow_reader_ms), CloseReason::SlowReader)),
        Phase::Open | Phase::ReadClosed => limit_of_open(conn, limits),
    }
}

/// The same for a connection whose input is processed.
#[inline]
fn limit_of_open(conn: &Conn, limits: &Limits) -> Option<(Instant, CloseReason)> {
    if let Some(since) = conn.waits_since {
        return Some((after(since, limits.slow_reader_ms), CloseReason::SlowReader));
    }
    // A handshake gets a fixed total time, however many bytes come.
    match (&conn.role, &conn.offered) {
        (Role::Client, None) => {}
        (Role::Client, Some(offered)) => {
            return Some((after(offered.at, HANDSHAKE_TIMEOUT_MS), CloseReason::Refused));
        }
        (Role::OutboundHandshake(dialling), _) => {
            return Some((after(dialling.at, HANDSHAKE_TIMEOUT_MS), CloseReason::DialFailed));
        }
        // Silence of a link is detected by missed heartbeats.
        (Role::Link(_) | Role::FormerLink, _) => return None,
    }
    match (idle_limit(conn, limits), unauthenticated_limit(conn, limits)) {
        (Some(idle), Some(total)) => Some(if total.0 < idle.0 { total } else { idle }),
        (idle, total) => idle.or(total),
    }
}

/// When a client that stays silent is closed.
#[inline]
fn idle_limit(conn: &Conn, limits: &Limits) -> Option<(Instant, CloseReason)> {
    let waits_for_us = || conn.is_paused || conn.is_runnable || !conn.replies.is_empty();
    let idle_ms = if !conn.inbound.is_empty() && !waits_for_us() {
        limits.request_idle_ms
    } else if conn.protocol.is_some() || conn.is_runnable || is_loopback(conn.addr.ip()) {
        // A connection whose requests wait for us is not idle.
        return None;
    } else {
        limits.first_byte_ms
    };
    Some((after(conn.last_active, idle_ms), CloseReason::Idle))
}

/// When a client that has not authenticated is closed: such connections get a fixed total time.
#[inline]
fn unauthenticated_limit(conn: &Conn, limits: &Limits) -> Option<(Instant, CloseReason)> {
    let is_limited = !conn.is_authenticated && !is_loopback(conn.addr.ip());
    is_limited.then(|| (after(conn.since, limits.request_idle_ms), CloseReason::Unauthenticated))
}

fn after(since: Instant, ms: u32) -> Instant {
    since.after(Duration::from_millis(u64::from(ms)))
}

/// Arms the connection's timer for its time limit, unless it fires earlier already.
pub(in crate::node) fn arm(state: &mut State, key: ConnKey) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    if let Some((due, _)) = time_limit(conn, &state.config.limits) {
        conn.alarm.arm(&mut state.timers, due, Timer::Conn(key));
    }
}

/// The same for a connection at hand whose input is processed.
#[inline]
pub(in crate::node) fn arm_open(conn: &mut Conn, key: ConnKey, limits: &Limits, timers: &mut Wheel<Timer>) {
    // The common case: an authenticated client between two requests.
    let is_between = conn.waits_since.is_none() && conn.inbound.is_empty() && conn.offered.is_none();
    if is_between && conn.is_authenticated && conn.is_client() && conn.protocol.is_some() {
        return;
    }
    if let Some((due, _)) = limit_of_open(conn, limits) {
        conn.alarm.arm(timers, due, Timer::Conn(key));
    }
}
