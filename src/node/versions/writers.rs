//! Clients that change more than peers process: their next requests wait for these peers.
//!
//! Keys that a client sets cause work on each peer: an addition to its filter, and a notice if the peer holds the key.
//! So that each change reaches all peers soon, such a client waits while the ordered stream to a peer is late. Clients
//! that only read go on, and a peer that processes nothing is not waited for for long.

use crate::base::time::{Instant, Now};
use crate::node::ids::ConnKey;
use crate::node::peer::mesh::Mesh;
use crate::node::peer::table::Peer;
use crate::node::state::{State, mark_dirty};

/// Clients that one step lets go on.
const CLIENTS_PER_STEP: usize = 16;

/// Whether a client that has changed keys must wait. If so, it goes on later.
pub(in crate::node) fn must_wait(mesh: &mut Mesh, now: Now, key: ConnKey) -> bool {
    let Some(peer) = mesh.peers.late(now.mono) else { return false };
    mesh.versions.writers.push(key);
    mesh.versions.awaited = Some(peer);
    true
}

/// Whether clients wait for a peer that is not late.
pub(in crate::node) fn has_work(state: &State, now: Now) -> bool {
    !state.mesh.versions.writers.is_empty() && awaited(state).is_none_or(|peer| !peer.is_late(now.mono))
}

/// When the clients that wait go on if their peer processes nothing.
pub(in crate::node) fn next_deadline(state: &State) -> Option<Instant> {
    let is_awaited = !state.mesh.versions.writers.is_empty();
    awaited(state).filter(|_| is_awaited)?.stream.stalls_at()
}

/// The peer that clients wait for.
fn awaited(state: &State) -> Option<&Peer> {
    state.mesh.peers.get(state.mesh.versions.awaited?)
}

/// Lets some of the clients go on, unless another peer is late. Returns the cost in keys.
pub(in crate::node) fn step(state: &mut State, now: Now) -> usize {
    if let Some(peer) = state.mesh.peers.late(now.mono) {
        state.mesh.versions.awaited = Some(peer);
        return 1;
    }
    for _ in 0..CLIENTS_PER_STEP {
        let Some(key) = state.mesh.versions.writers.pop() else { break };
        if let Some(conn) = state.conns.get_mut(key) {
            conn.awaits_peer = false;
            mark_dirty(state, key);
        }
    }
    CLIENTS_PER_STEP
}
