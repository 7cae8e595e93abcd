//! Resync: all own keys, and all tombstones, are tested against the filter of a peer when it becomes known.
//!
//! What was sent over a link that broke is lost, and keys that come in a snapshot are no additions: so two nodes can hold
//! a key without having met. From the moment at which a filter is known, each key that it claims is reported to the peer
//! (INVALIDATE), in steps. A filter that becomes unknown again ends the resync; the next one begins at the front. At last
//! come the discarded deletions ([`crate::node::versions::discarded`]).

use crate::base::time::Now;
use crate::limits::TESTS_PER_KEY;
use crate::node::ids::PeerKey;
use crate::node::peer::link_output;
use crate::node::state::State;
use crate::node::versions::discarded;
use crate::node::versions::notices::invalidate;
use crate::node::versions::of_peer::Resync;
use crate::store::{KeyHash, ScanCursor};

/// Keys, or tombstones, that one step tests.
const KEYS_PER_STEP: usize = 512;

/// Whether [`step`] has something to do.
pub(in crate::node) fn has_work(state: &State) -> bool {
    !state.mesh.versions.resyncs.is_empty()
}

/// Goes on with the resync of one peer.
pub(in crate::node) fn step(state: &mut State, now: Now) -> usize {
    let Some(peer_key) = state.mesh.versions.resyncs.pop() else { return 0 };
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return 1 };
    if state.mesh.filters.is_unknown(peer.filter()) || !peer.is_linked() {
        peer.versions.continue_resync(None);
        return 1;
    }
    let Some(resync) = peer.versions.resync() else { return 1 };
    let sent = state.stats.invalidations_sent;
    // Without room it goes on when the link has taken bytes.
    if link_output::has_room_for_ordered(state, peer_key) {
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

/// Reports some keys that a peer claims. Returns what is to be done next.
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

/// Reports some tombstones of keys that a peer claims; those beside a value were reported with it. Returns what is to be
/// done next.
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

/// Reports keys as far as the link has room. Returns the first one that is to be reported later.
fn report(state: &mut State, now: Now, peer: PeerKey, hashes: &[KeyHash]) -> Option<KeyHash> {
    for hash in hashes {
        if !link_output::has_room_for_ordered(state, peer) {
            return Some(*hash);
        }
        for own in state.keyspace.versions_of(now, *hash) {
            invalidate(state, now, peer, &own);
        }
    }
    None
}
