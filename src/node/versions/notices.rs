//! INVALIDATE and NEWER: what nodes send each other about versions, so that of two values the later one stays.
//!
//! A node that has written a key sends INVALIDATE to each peer whose filter claims the key or is unknown. A node that
//! receives the addition of a key that it holds, or whose deletion it remembers, sends INVALIDATE too. So two holders
//! always meet. The node with the lower version drops its value; the one with the higher version answers NEWER.
//! These frames go in the ordered stream, after the additions of their sender: the receiver of one finds the key
//! in the filter of its holder.

use crate::base::time::Now;
use crate::node::digest::sync;
use crate::node::ids::PeerKey;
use crate::node::keyspace::OwnVersion;
use crate::node::lookup::remote;
use crate::node::peer::link_output;
use crate::node::state::State;
use crate::store::{KeyHash, Version};
use crate::wire::frame::{Body, KeyState, put};

/// Handles the changes of keys of an entry point, at its end. Their lookups must not be joined any more, since an
/// answer may be older. A new version completes them, and is sent to each peer that may hold an older one.
pub(in crate::node) fn settle(state: &mut State, now: Now) {
    if state.keyspace.take_clearing() {
        state.mesh.lookups.close_all();
    }
    if !state.keyspace.has_changes() {
        return;
    }
    let changes = state.keyspace.take_changes();
    for change in &changes {
        state.mesh.lookups.close(change.hash);
        if change.is_new_version {
            remote::finish_here(state, now, change.hash);
            announce(state, now, change.hash);
        }
    }
    state.keyspace.give_back_changes(changes);
}

/// Sends the version of a key that was written here to each peer whose filter claims it or is unknown.
fn announce(state: &mut State, now: Now, hash: KeyHash) {
    let mesh = &mut state.mesh;
    mesh.claims.clear();
    mesh.filters.claimants(hash.0, &mut mesh.claims);
    let claimants = mesh.claims.len();
    for filter in mesh.filters.unknown() {
        if !mesh.claims[..claimants].contains(filter) {
            mesh.claims.push(*filter);
        }
    }
    if mesh.claims.is_empty() {
        return;
    }
    let filters = std::mem::take(&mut mesh.claims);
    let own = state.keyspace.versions_of(now, hash);
    for peer in filters.iter().filter_map(|filter| state.mesh.peers.by_filter(*filter)).collect::<Vec<_>>() {
        own.iter().for_each(|own| invalidate(state, now, peer, own));
    }
    state.mesh.claims = filters;
}

/// A peer has added a key to its filter: if this node holds it, or remembers its deletion, one of both is older.
/// Returns how many notices were sent.
pub(in crate::node) fn added(state: &mut State, now: Now, peer: PeerKey, hash: KeyHash) -> usize {
    if !state.keyspace.may_know(hash) {
        return 0;
    }
    let own = state.keyspace.versions_of(now, hash);
    own.iter().for_each(|own| invalidate(state, now, peer, own));
    own.len()
}

/// Sends INVALIDATE to a peer, if it is linked. A deletion is remembered until the peer has acknowledged this notice.
pub(in crate::node) fn invalidate(state: &mut State, now: Now, peer: PeerKey, own: &OwnVersion) {
    if own.state == KeyState::Gone {
        state.keyspace.renew_tombstone(now, &own.key);
    }
    let body = Body::Invalidate { key: &own.key, version: own.version.0, state: own.state };
    if send(state, now, peer, &body) {
        state.stats.invalidations_sent += 1;
    }
}

/// Sends a notice behind the additions that the peer was not sent yet; false if it is not linked.
fn send(state: &mut State, now: Now, peer: PeerKey, body: &Body<'_>) -> bool {
    sync::flush(state, now, peer);
    let clock = state.keyspace.clock(now);
    link_output::append_ordered(state, now, peer, |out| put(out, clock, 0, body)) > 0
}

/// What a peer has sent about the version of a key.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Notice<'a> {
    pub(in crate::node) key: &'a [u8],
    pub(in crate::node) version: Version,
    pub(in crate::node) state: KeyState,
    /// It answers an INVALIDATE of this node: NEWER.
    pub(in crate::node) is_answer: bool,
}

/// Takes in a notice: drops an older value, or answers with a newer version.
pub(in crate::node) fn received(state: &mut State, now: Now, peer: PeerKey, notice: &Notice<'_>) {
    let Notice { key, version, state: theirs, is_answer } = *notice;
    state.stats.invalidations_received += 1;
    let Some(is_ours_first) = state.mesh.peers.get(peer).map(|peer| state.mesh.id > peer.id) else { return };
    let key = state.keyspace.key(key);
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
            send(state, now, peer, &answer);
        }
        return;
    }
    if state.keyspace.drop_older(now, key, version) {
        state.stats.conflicts_settled += 1;
        state.stats.values_dropped += 1;
    }
    let holder = match theirs {
        KeyState::Held => Some(peer),
        KeyState::Gone => None,
    };
    state.mesh.moved.note(key.hash, version, holder);
}
