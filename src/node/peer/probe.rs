//! Asking peers that have used up their credit, with nobody waiting for the answer.

use crate::base::time::Now;
use crate::node::ids::PeerKey;
use crate::node::peer::link_output;
use crate::node::state::State;
use crate::store::KeyHash;
use crate::wire::frame::{Body, Wants};
use std::time::Duration;

/// The key that is asked for. Any would do; one of a byte is longer than no node takes.
const KEY: &[u8] = b"?";

/// For how long an answer is in time: as long as a lookup would wait.
fn patience(state: &State) -> Duration {
    Duration::from_millis(state.config.mesh.lookup_timeout_ms.into())
}

/// Asks a peer, unless the answer to the last time may still come.
pub(in crate::node) fn probe(state: &mut State, now: Now, peer_key: PeerKey) {
    let (patience, hash) = (patience(state), state.keyspace.key(KEY).hash);
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
    if !peer.credit.may_be_probed(now.mono, patience) {
        return;
    }
    let request = peer.next_request();
    peer.credit.probed(now.mono, request, hash);
    state.stats.probes += 1;
    link_output::send_answer(state, now, peer_key, request, &Body::Get { key: KEY, wants: Wants::Life });
}

/// A peer has answered a question that is not among those of lookups; true if it was the probe.
pub(in crate::node) fn answered(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    request: u32,
    hash: KeyHash,
) -> bool {
    let patience = patience(state);
    let peer = state.mesh.peers.get_mut(peer_key);
    peer.is_some_and(|peer| peer.credit.probe_answered(now.mono, request, hash, patience))
}
