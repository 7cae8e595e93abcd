//! Notices of versions (INVALIDATE and NEWER), by which of two values of a key the later one stays.
//!
//! After a write, a node sends INVALIDATE to each peer whose filter claims the key or is unknown. A node that
//! receives the addition of a key that it holds, or of which it has a tombstone, sends INVALIDATE too, unless a
//! notice about the key arrived with the addition. So of any two holders at least one receives a notice. The node
//! with the lower version drops its value; the one with the higher version answers NEWER. Notices are sent in the
//! ordered stream after the additions of their sender: the receiver finds the key in the sender's filter.

use crate::base::time::Now;
use crate::limits::KEYS_PER_STEP;
use crate::node::digest::sync;
use crate::node::ids::PeerKey;
use crate::node::keyspace::OwnVersion;
use crate::node::lookup::remote;
use crate::node::peer::link_output;
use crate::node::schedule::cost_of_bytes;
use crate::node::state::State;
use crate::store::{KeyHash, Version};
use crate::wire::frame::{Body, KeyState, put};

/// Changes tested against the filters of peers together.
const CHANGES_AT_ONCE: usize = 64;

/// Processes the listed changes within an entry point if they may cause many notices. Returns the cost in keys.
#[inline]
pub(in crate::node) fn process_many_changes(state: &mut State, now: Now) -> usize {
    let notices_max = state.keyspace.changes() * state.mesh.peers.linked_count();
    if notices_max < KEYS_PER_STEP { 0 } else { process_changes(state, now) }
}

/// Processes the listed changes at the end of an entry point: closes lookups of the keys, since answers may be older;
/// completes them with new versions, and announces these to each peer that may hold an older one. Then answers
/// additions that no notice has followed. Returns the cost in keys.
#[inline]
pub(in crate::node) fn process_changes(state: &mut State, now: Now) -> usize {
    if state.keyspace.has_changes() || state.mesh.versions.has_unanswered() {
        process_listed(state, now)
    } else {
        0
    }
}

#[inline(never)]
fn process_listed(state: &mut State, now: Now) -> usize {
    if state.keyspace.take_clearing() {
        state.mesh.lookups.close_all();
    }
    let mut cost = 0;
    if state.keyspace.changes() > 0 {
        let changes = state.keyspace.take_changes();
        for some in changes.chunks(CHANGES_AT_ONCE) {
            let mut hashes = [0; CHANGES_AT_ONCE];
            hashes.iter_mut().zip(some).for_each(|(slot, change)| *slot = change.hash.0);
            let claimed = state.mesh.claimed(&hashes[..some.len()]);
            for (at, change) in some.iter().enumerate() {
                state.mesh.lookups.close(change.hash);
                if change.is_new_version {
                    remote::finish_here(state, now, change.hash);
                    if claimed >> at & 1 == 1 {
                        cost += announce(state, now, change.hash);
                    }
                }
            }
        }
        state.keyspace.give_back_changes(changes);
    }
    while let Some((peer, hash)) = state.mesh.versions.next_unanswered() {
        let own = state.keyspace.versions_of(now, hash);
        own.iter().for_each(|own| _ = invalidate(state, now, peer, own));
    }
    cost
}

/// Sends the version of a key that was written here to each peer whose filter claims it or is unknown. Returns the
/// cost in keys.
fn announce(state: &mut State, now: Now, hash: KeyHash) -> usize {
    let filters = state.mesh.take_claiming_or_unknown(hash);
    let own = state.keyspace.versions_of(now, hash);
    let mut cost = 0;
    for filter in &filters {
        let Some(peer) = state.mesh.peers.by_filter(*filter) else { continue };
        state.mesh.versions.answered(peer, hash);
        for own in &own {
            cost += invalidate(state, now, peer, own);
        }
    }
    state.mesh.give_back(filters);
    cost
}

/// Processes an addition of a peer: if this node holds the key or has its tombstone, one version is older, and the
/// peer is sent a notice at the end of the entry point. Returns its cost in keys.
pub(in crate::node) fn added(state: &mut State, peer: PeerKey, hash: KeyHash) -> usize {
    let is_known = state.keyspace.may_know(hash);
    if is_known {
        state.mesh.versions.must_answer(peer, hash);
    }
    usize::from(is_known)
}

/// Sends INVALIDATE to a linked peer. A tombstone stays until the peer has acknowledged this notice. Returns the cost
/// in keys.
pub(in crate::node) fn invalidate(state: &mut State, now: Now, peer: PeerKey, own: &OwnVersion) -> usize {
    let body = Body::Invalidate { key: &own.key, version: own.version.0, state: own.state };
    send(state, now, peer, (&own.key, own.state), &body)
}

/// Sends a notice to a linked peer, after unsent additions. Returns the cost in keys.
fn send(state: &mut State, now: Now, peer: PeerKey, (key, of): (&[u8], KeyState), body: &Body<'_>) -> usize {
    if of == KeyState::Gone {
        state.keyspace.renew_tombstone(now, key);
    }
    sync::flush(state, now, peer);
    let clock = state.keyspace.clock(now);
    let bytes = link_output::append_ordered(state, now, peer, |out| put(out, clock, 0, body));
    state.stats.invalidations_sent += u64::from(bytes > 0);
    sync::send_heartbeat_if_due(state, now, peer);
    usize::from(bytes > 0) + cost_of_bytes(bytes)
}

/// A notice of a peer about the version of a key.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Notice<'a> {
    pub(in crate::node) key: &'a [u8],
    pub(in crate::node) version: Version,
    pub(in crate::node) state: KeyState,
    /// It is a NEWER, the answer to an INVALIDATE of this node.
    pub(in crate::node) is_answer: bool,
}

/// Processes a notice: drops an older value, or answers with a newer version.
pub(in crate::node) fn received(state: &mut State, now: Now, peer: PeerKey, notice: &Notice<'_>) {
    let Notice { key, version, state: theirs, is_answer } = *notice;
    let Some(is_ours_first) = state.mesh.peers.get(peer).map(|peer| state.mesh.id() > peer.id()) else {
        return;
    };
    let key = state.keyspace.key(key);
    if !is_answer && state.mesh.versions.answered(peer, key.hash) {
        // The answer to this notice also answers the addition, except for other keys with the same hash.
        for own in state.keyspace.versions_of(now, key.hash).iter().filter(|own| *own.key != *key.bytes) {
            invalidate(state, now, peer, own);
        }
    }
    state.mesh.lookups.raise_floor(key, version, peer, theirs);
    let own = state.keyspace.version_of(now, key);
    // Of equal versions a deletion wins, and of two values that of the greater node id.
    let newer = own.filter(|(own, ours)| match (ours, theirs) {
        (KeyState::Gone, KeyState::Held) => *own >= version,
        (KeyState::Held, KeyState::Held) if is_ours_first => *own >= version,
        (KeyState::Held | KeyState::Gone, KeyState::Held | KeyState::Gone) => *own > version,
    });
    if let Some((own, ours)) = newer {
        if !is_answer {
            state.stats.conflicts_settled += 1;
            let answer = Body::Newer { key: key.bytes, version: own.0, state: ours };
            send(state, now, peer, (key.bytes, ours), &answer);
        }
        return;
    }
    if state.keyspace.drop_older(now, key, version) {
        state.stats.conflicts_settled += 1;
        state.stats.drop_values(1);
    }
    let holder = match theirs {
        KeyState::Held => Some(peer),
        KeyState::Gone => None,
    };
    state.mesh.moved.note(key.hash, version, holder);
}
