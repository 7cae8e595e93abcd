//! Resync: tests all own keys and tombstones against the filter of a peer when it becomes known.
//!
//! Frames of a broken link are lost, and keys in a snapshot are not additions, so two nodes can hold a key without
//! having exchanged a notice. Each own key that the filter claims is therefore sent to the peer as INVALIDATE, in
//! steps. A resync ends when the filter becomes unknown again; the next one starts from the beginning. Discarded
//! deletions ([`crate::node::versions::discarded`]) are sent last.

use crate::base::time::Now;
use crate::limits::TESTS_PER_KEY;
use crate::node::ids::PeerKey;
use crate::node::peer::link_output;
use crate::node::state::State;
use crate::node::versions::discarded;
use crate::node::versions::notices::invalidate;
use crate::node::versions::of_peer::Resync;
use crate::store::{KeyHash, ScanCursor};

/// Keys or tombstones tested per step.
const KEYS_PER_STEP: usize = 512;

/// Whether [`step`] has work.
pub(in crate::node) fn has_work(state: &State) -> bool {
    !state.mesh.versions.resyncs.is_empty()
}

/// Continues the resync of one peer. Returns the cost in keys.
pub(in crate::node) fn step(state: &mut State, now: Now) -> usize {
    let Some(peer_key) = state.mesh.versions.resyncs.pop() else { return 0 };
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return 1 };
    if state.mesh.filters.is_unknown(peer.filter()) || !peer.is_linked() {
        peer.versions.continue_resync(None);
        return 1;
    }
    let Some(resync) = peer.versions.resync() else { return 1 };
    let sent = state.stats.invalidations_sent;
    // Without room it continues when the link has written bytes, or the peer has answered a heartbeat.
    if link_output::has_room_for_notice(state, now, peer_key) {
        let next = match resync {
            Resync::Keys(cursor) => test_keys(state, now, peer_key, cursor),
            Resync::Tombstones(from) => test_tombstones(state, now, peer_key, from),
            Resync::Discarded(block) => discarded::send(state, now, peer_key, block).map(Resync::Discarded),
        };
        if let Some(peer) = state.mesh.peers.get_mut(peer_key) {
            peer.versions.continue_resync(next);
        }
        state.mesh.enqueue_resync(peer_key);
        let sent = usize::try_from(state.stats.invalidations_sent - sent).unwrap_or(usize::MAX);
        return KEYS_PER_STEP / TESTS_PER_KEY + sent;
    }
    1
}

/// Sends notices of some keys that a peer claims. Returns the next progress.
fn test_keys(state: &mut State, now: Now, peer_key: PeerKey, cursor: ScanCursor) -> Option<Resync> {
    let State { keyspace, mesh, .. } = state;
    let filter = mesh.peers.get(peer_key)?.filter();
    let mut claimed: Vec<KeyHash> = Vec::new();
    let next = keyspace.store().scan_keys(cursor, KEYS_PER_STEP, |key| {
        let hash = keyspace.key(key).hash;
        if mesh.filters.claims(filter, hash.0) && claimed.last() != Some(&hash) {
            claimed.push(hash);
        }
    });
    if let Some(hash) = report(state, now, peer_key, &claimed) {
        return Some(Resync::Keys(ScanCursor(hash.0)));
    }
    Some(if next == ScanCursor::START { Resync::Tombstones(KeyHash(0)) } else { Resync::Keys(next) })
}

/// Sends notices of some tombstones whose keys a peer claims; those of existing keys were sent with the key. Returns
/// the next progress.
fn test_tombstones(state: &mut State, now: Now, peer_key: PeerKey, from: KeyHash) -> Option<Resync> {
    let State { keyspace, mesh, .. } = state;
    let filter = mesh.peers.get(peer_key)?.filter();
    let mut tested: Vec<KeyHash> = keyspace.tombstones().hashes_from(from).take(KEYS_PER_STEP).collect();
    let next = tested.last().and_then(|last| last.0.checked_add(1));
    tested.dedup();
    tested.retain(|hash| {
        let mut is_held = false;
        let is_claimed = mesh.filters.claims(filter, hash.0);
        if is_claimed {
            keyspace.store().with_hash(now.mono, *hash, |_, _, is_alive| is_held |= is_alive);
        }
        is_claimed && !is_held
    });
    if let Some(hash) = report(state, now, peer_key, &tested) {
        return Some(Resync::Tombstones(hash));
    }
    Some(next.map_or(Resync::Discarded(0), |next| Resync::Tombstones(KeyHash(next))))
}

/// Sends notices while the link has room. Returns the first key that is left.
fn report(state: &mut State, now: Now, peer: PeerKey, hashes: &[KeyHash]) -> Option<KeyHash> {
    for hash in hashes {
        if !link_output::has_room_for_notice(state, now, peer) {
            return Some(*hash);
        }
        for own in state.keyspace.versions_of(now, *hash) {
            invalidate(state, now, peer, &own);
        }
    }
    None
}
