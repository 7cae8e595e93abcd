//! Collection of tombstones: what every node that may hold an older value has acknowledged is forgotten.
//!
//! Each heartbeat carries the highest clock of its receiver that the sender has processed, and how far its own changelog
//! goes. Once all of that changelog was applied here, nothing from before that clock is under way any more: all that
//! the peer has added was compared with the tombstones, and all that it adds from here on has a higher version. A peer
//! that is not linked, whose filter is unknown, or whose resync is not complete, has acknowledged nothing.

use crate::base::time::Now;
use crate::node::ids::PeerKey;
use crate::node::state::State;
use crate::store::Version;
use crate::wire::frame::Head;

/// Tombstones that one step examines.
const TOMBSTONES_PER_STEP: usize = 256;

/// A heartbeat of a peer: it has processed everything up to our clock `ack`, and its changelog ends at `head`.
pub(in crate::node) fn acknowledged(state: &mut State, now: Now, key: PeerKey, head: Head, ack: u64) {
    let clock = state.keyspace.clock(now);
    let mesh = &mut state.mesh;
    let Some(peer) = mesh.peers.get_mut(key) else { return };
    let at = peer.receiver.position().filter(|_| !mesh.filters.is_unknown(peer.filter));
    if at.is_some_and(|at| at.epoch == head.epoch && at.seq >= head.seq) {
        peer.acked = peer.acked.max(Version(ack.min(clock)));
    }
    update(state, now);
}

/// Brings what tombstones depend on in line with the peers: after each heartbeat, and when a peer comes or goes.
/// O(peers).
pub(in crate::node) fn update(state: &mut State, now: Now) {
    let State { keyspace, mesh, .. } = state;
    mesh.absent.forget_old(now.mono);
    let is_complete = |filter, resync: bool| !resync && !mesh.filters.is_unknown(filter);
    let mut by_all = if mesh.absent.is_empty() { Version::MAX } else { Version::default() };
    let mut by_known = Version::MAX;
    for (_, peer) in mesh.peers.iter().filter(|(_, peer)| !peer.has_left) {
        let is_linked = peer.link.is_some() && is_complete(peer.filter, peer.resync.is_some());
        by_all = by_all.min(if is_linked { peer.acked } else { Version::default() });
        by_known = by_known.min(peer.acked);
    }
    keyspace.set_acknowledged(by_all, by_known);
}

/// Forgets some acknowledged tombstones.
pub(in crate::node) fn step(state: &mut State, now: Now) {
    update(state, now);
    state.keyspace.collect_tombstones(TOMBSTONES_PER_STEP);
}
