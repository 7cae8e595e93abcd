//! Heartbeats: one frame per interval on each link, with the end of the sender's changelog, and its answer. More of them
//! follow while many changes are sent ([`crate::node::peer::stream`]).
//!
//! A link is lost if no bytes were received for three intervals. Each heartbeat also triggers the periodic work of a
//! link: a probe of an open circuit, the list of peers, the check of a stalled snapshot.

use crate::base::time::{Instant, Now};
use crate::limits::HEARTBEATS_MISSED_MAX;
use crate::node::alarm::Alarm;
use crate::node::conn::phase::CloseReason;
use crate::node::digest::sync;
use crate::node::ids::PeerKey;
use crate::node::lookup::remote;
use crate::node::state::{State, Timer, close_conn};
use crate::wire::frame::Head;
use std::time::Duration;

fn interval(state: &State) -> Duration {
    Duration::from_millis(state.config.mesh.heartbeat_interval_ms.into())
}

/// Closes the link of a peer without bytes for three intervals; returns whether it did.
pub(in crate::node) fn close_if_missed(state: &mut State, now: Now, key: PeerKey) -> bool {
    let interval = interval(state);
    let Some(peer) = state.mesh.peers.get(key) else { return false };
    let Some(link) = peer.link() else { return false };
    let is_missed = now.mono >= peer.lost_at(interval);
    if is_missed {
        if state.log_gate.allows(now, &mut state.stats) {
            log::warn!("peer {}: {HEARTBEATS_MISSED_MAX} heartbeats missed; closing the link", peer.addr());
        }
        close_conn(state, link.conn, CloseReason::PeerSilent);
    }
    is_missed
}

/// Sets the timer for the next heartbeat or the loss of the link, whichever is earlier.
pub(in crate::node) fn arm(state: &mut State, now: Now, key: PeerKey) {
    let interval = interval(state);
    if let Some(peer) = state.mesh.peers.get(key) {
        let lost_at = peer.lost_at(interval);
        rearm(state, key, now.mono.after(interval).min(lost_at));
    }
}

/// Replaces the timer of a peer.
pub(in crate::node) fn rearm(state: &mut State, key: PeerKey, at: Instant) {
    if let Some(peer) = state.mesh.peers.get_mut(key) {
        peer.alarm = Alarm::default();
        peer.alarm.arm(&mut state.timers, at, Timer::Peer(key));
    }
}

/// Sends a heartbeat, and a probe if the circuit of the peer is open. If the other end is gone, its reset ends the
/// link at once.
pub(in crate::node) fn send(state: &mut State, now: Now, key: PeerKey) {
    sync::send_heartbeat(state, now, key);
    remote::probe(state, now, key);
}

/// Handles a heartbeat of a peer, or its answer to an own one.
pub(in crate::node) fn received(
    state: &mut State,
    now: Now,
    key: PeerKey,
    number: u32,
    head: Head,
    is_answer: bool,
) {
    if !is_answer {
        sync::heartbeat_from(state, now, key, head);
        return sync::answer_heartbeat(state, now, key, number);
    }
    sync::head_is(state, now, key, head);
    if let Some(peer) = state.mesh.peers.get_mut(key) {
        peer.heartbeat_answered(now.mono, number);
    }
    sync::send_heartbeat_if_due(state, now, key);
    state.mesh.enqueue_resync(key);
}
