//! Collection of tombstones: removes those that every node that may hold an older value has acknowledged.
//!
//! Each heartbeat has the highest clock of its receiver that the sender has processed, and the end of the sender's
//! changelog. Once that changelog is applied here, no older version from before that clock is in flight: later
//! additions of the peer have higher versions, and earlier ones were answered by notices if they were older than a
//! value or tombstone here. These notices are sent but maybe not processed, so the clock counts when a later
//! heartbeat acknowledges the current one (`AcknowledgedTwice` in tests/one_value). A peer that is not linked, whose
//! filter is unknown, or whose resync is incomplete, acknowledges nothing.

use crate::base::time::Now;
use crate::node::ids::PeerKey;
use crate::node::peer::table::Peer;
use crate::node::state::State;
use crate::store::Version;
use crate::wire::frame::Head;

/// Tombstones per step.
const TOMBSTONES_PER_STEP: usize = 256;

/// Processes a heartbeat: the peer has processed everything up to our clock `ack`, and its changelog ends at `head`.
pub(in crate::node) fn acknowledged(state: &mut State, now: Now, key: PeerKey, head: Head, ack: u64) {
    let mark = Version(state.keyspace.clock(now));
    let mesh = &mut state.mesh;
    let Some(peer) = mesh.peers.get_mut(key) else { return };
    let ack = Version(ack).min(mark);
    let at = peer.following.position().filter(|_| !mesh.filters.is_unknown(peer.filter()));
    let is_applied = at.is_some_and(|at| at.epoch == head.epoch && at.seq >= head.seq);
    peer.versions.acknowledge(ack, mark, is_applied);
    update(state, now);
}

/// Updates the acknowledged versions from the peers, after each heartbeat and change of the peers. O(peers).
pub(in crate::node) fn update(state: &mut State, now: Now) {
    let State { keyspace, mesh, .. } = state;
    mesh.absent.forget_old(now.mono);
    let is_complete = |peer: &Peer| {
        peer.is_linked() && peer.versions.resync().is_none() && !mesh.filters.is_unknown(peer.filter())
    };
    let mut by_all = if mesh.absent.is_empty() { Version::MAX } else { Version::default() };
    let mut by_known = Version::MAX;
    for (_, peer) in mesh.peers.iter().filter(|(_, peer)| !peer.has_left()) {
        let acked = peer.versions.acked();
        by_all = by_all.min(if is_complete(peer) { acked } else { Version::default() });
        by_known = by_known.min(acked);
    }
    keyspace.set_acknowledged(by_all, by_known);
}

/// Removes some acknowledged tombstones. Returns the cost in keys.
pub(in crate::node) fn step(state: &mut State, now: Now) -> usize {
    update(state, now);
    let before = state.keyspace.tombstones().len();
    state.keyspace.collect_tombstones(TOMBSTONES_PER_STEP);
    1 + before - state.keyspace.tombstones().len()
}
