//! Where a command that depends on old values is carried out: on the node that holds its keys; if none does, on the
//! home node of its keys.
//!
//! The home node of a key is the node with the highest rank for it (rendezvous hashing) among this node and the linked
//! nodes. All nodes that are linked with each other compute the same one, so a new key is created once. Of a key
//! with a tag in braces, as `{cart7}:a`, only the tag is hashed: keys with the same tag have the same home node.

use crate::base::time::Now;
use crate::node::ids::{NodeId, PeerKey};
use crate::node::lookup::forwarded::OnMissing;
use crate::node::lookup::query::is_queryable;
use crate::node::state::State;
use crate::store::{KeyHash, Version};
use memchr::memchr;
use std::cmp::Reverse;

/// Where a command is to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Verdict {
    /// On this node.
    Here,
    /// On another node: this one holds none of its keys.
    Elsewhere,
    /// Nowhere: this node holds some of its keys, and others may be on other nodes.
    Apart,
}

/// Where a command on these keys is to be carried out. Claims of the filters of `refused` nodes do not count.
pub(in crate::node) fn verdict<'k>(
    state: &State,
    now: Now,
    keys: impl Iterator<Item = &'k [u8]> + Clone,
    on_missing: OnMissing,
    refused: &[NodeId],
) -> Verdict {
    let holds = |key: &[u8]| state.keyspace.peek(now, state.keyspace.key(key)).is_some();
    let (mut held, mut missing) = (false, false);
    for key in keys.clone() {
        let is_here = holds(key);
        held |= is_here;
        missing |= !is_here;
    }
    match (held, missing) {
        (_, false) => return Verdict::Here,
        (false, true) if on_missing == OnMissing::Refused => return Verdict::Elsewhere,
        (_, true) => {}
    }
    let is_free = |key: &[u8]| {
        let hash = state.keyspace.key(key).hash;
        let is_here = on_missing == OnMissing::NoEffect || home_node(state, key).is_none();
        is_here && may_hold(state, hash, refused).next().is_none()
    };
    match (keys.filter(|key| !holds(key)).all(is_free), held) {
        (true, _) => Verdict::Here,
        (false, true) => Verdict::Apart,
        (false, false) => Verdict::Elsewhere,
    }
}

/// The other nodes that may hold a key, linked or not, except `refused`: their filter claims it or is unknown.
pub(in crate::node) fn may_hold<'s>(
    state: &'s State,
    hash: KeyHash,
    refused: &'s [NodeId],
) -> impl Iterator<Item = PeerKey> + 's {
    let holder = state.mesh.moved.get(hash).and_then(|moved| moved.holder);
    let peers = state.mesh.peers.iter().filter(|(_, peer)| !peer.has_left() && !refused.contains(&peer.id()));
    let may = move |key: &PeerKey| Some(*key) == holder || may_peer_hold(state, *key, hash);
    peers.map(|(key, _)| key).filter(may)
}

fn may_peer_hold(state: &State, key: PeerKey, hash: KeyHash) -> bool {
    let Some(peer) = state.mesh.peers.get(key) else { return false };
    let is_unknown = if peer.is_linked() {
        state.mesh.filters.is_unknown(peer.filter())
    } else {
        !peer.following.was_known()
    };
    is_unknown || state.mesh.filters.claims(peer.filter(), hash.0)
}

/// The hints in an answer to `querier` about a key that is not here: a version that was on another node, and nodes that
/// may hold the key, except the querier and `refused`.
pub(in crate::node) fn hints(
    state: &mut State,
    key: &[u8],
    querier: PeerKey,
    refused: &[NodeId],
) -> (Version, Vec<[u8; 16]>) {
    let key = state.keyspace.key(key);
    let tombstone = state.keyspace.tombstones().version(key);
    let elsewhere = state.mesh.elsewhere(key.hash, tombstone, querier);
    let mut ids: Vec<[u8; 16]> = elsewhere.hints().iter().collect();
    ids.retain(|id| !refused.contains(&NodeId(*id)));
    if ids.is_empty() {
        let others = may_hold(state, key.hash, refused).filter(|peer| *peer != querier);
        ids = others.filter_map(|peer| state.mesh.peers.get(peer)).map(|peer| peer.id().0).collect();
    }
    (elsewhere.version, ids)
}

/// Whether the filter of a linked peer is unknown, so that the peer may hold any key.
pub(in crate::node) fn is_unknown(state: &State, key: PeerKey) -> bool {
    state.mesh.peers.get(key).is_some_and(|peer| state.mesh.filters.is_unknown(peer.filter()))
}

/// The nodes, except `refused`, that may hold one of these keys and cannot be queried now.
pub(in crate::node) fn unreachable<'k>(
    state: &State,
    keys: impl Iterator<Item = &'k [u8]>,
    refused: &[NodeId],
) -> Vec<PeerKey> {
    let mut found = Vec::new();
    for key in keys {
        let hash = state.keyspace.key(key).hash;
        found.extend(may_hold(state, hash, refused).filter(|peer| !is_queryable(state, *peer)));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The linked peers, except `refused`, that may hold one of these keys. The last one is to be queried first: the last
/// known holder of the first key, then the peers that claim most of the keys, the nearest first, then unknown filters.
pub(in crate::node) fn candidates<'k>(
    state: &State,
    keys: impl Iterator<Item = &'k [u8]>,
    refused: &[NodeId],
) -> Vec<PeerKey> {
    let hashes: Vec<KeyHash> = keys.map(|key| state.keyspace.key(key).hash).collect();
    let holder = hashes.first().and_then(|hash| state.mesh.moved.get(*hash)).and_then(|moved| moved.holder);
    let mut found = Vec::new();
    for (key, peer) in state.mesh.peers.linked().filter(|(key, _)| is_queryable(state, *key)) {
        let claims = hashes.iter().filter(|hash| state.mesh.filters.claims(peer.filter(), hash.0)).count();
        let is_holder = holder == Some(key);
        if (claims > 0 || is_holder || is_unknown(state, key)) && !refused.contains(&peer.id()) {
            found.push(((is_holder, claims, Reverse(peer.distance()), key.to_bits()), key));
        }
    }
    found.sort_unstable_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, key)| key).collect()
}

/// The home node of a key; `None`: this node. O(links).
pub(in crate::node) fn home_node(state: &State, key: &[u8]) -> Option<PeerKey> {
    let hash = state.keyspace.key(tag(key)).hash.0;
    let own = rank(state.mesh.id(), hash);
    let linked = state.mesh.peers.linked().map(|(key, peer)| (rank(peer.id(), hash), key));
    linked.max_by_key(|(rank, _)| *rank).filter(|(rank, _)| *rank > own).map(|(_, key)| key)
}

/// The rank of a node for a key. No two nodes have the same.
fn rank(id: NodeId, hash: u64) -> (u64, NodeId) {
    let (words, _) = id.0.as_chunks::<8>();
    let mixed = words.iter().fold(hash, |mixed, word| mix(mixed ^ u64::from_le_bytes(*word)));
    (mixed, id)
}

/// The finalizer of `SplitMix64`.
const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The part of a key that determines its home node: the text between the first `{` and the next `}` unless that is
/// empty, else the whole key.
fn tag(key: &[u8]) -> &[u8] {
    let tag = memchr(b'{', key).and_then(|open| {
        let rest = &key[open + 1..];
        memchr(b'}', rest).map(|close| &rest[..close])
    });
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::{rank, tag};
    use crate::base::rng::Rng;
    use crate::node::ids::NodeId;

    #[test]
    fn tag_of_a_key_is_that_of_redis_cluster() {
        for (key, expected) in [
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("{open", "{open"),
            ("", ""),
        ] {
            assert_eq!(tag(key.as_bytes()), expected.as_bytes(), "{key}");
        }
    }

    #[test]
    fn all_nodes_compute_the_same_home_node_and_few_keys_move_when_one_joins() {
        let mut rng = Rng::new(1);
        let mut ids = [NodeId([0; 16]); 5];
        ids.iter_mut().for_each(|id| rng.fill(&mut id.0));
        let home_of = |ids: &[NodeId], hash| (0..ids.len()).max_by_key(|at| rank(ids[*at], hash)).unwrap();
        let (mut counts, mut moved) = ([0; 5], 0);
        for hash in (0..10_000).map(|_| rng.next_u64()) {
            counts[home_of(&ids, hash)] += 1;
            let before = home_of(&ids[..4], hash);
            assert!(home_of(&ids, hash) == before || home_of(&ids, hash) == 4);
            moved += u32::from(home_of(&ids, hash) != before);
        }
        assert!(counts.iter().all(|count| (1_800..2_200).contains(count)), "{counts:?}");
        assert!((1_800..2_200).contains(&moved), "{moved}");
    }
}
