//! Answering peers: from the local store only, so that a question never causes another.
//!
//! A link that has more waiting than `outbound_pause_bytes` is owed its answers until it has taken
//! earlier ones: its frames are read on, since among them is what empties the other direction. It may be
//! owed as many as it may have questions on their way, and to as many bytes of keys as may wait in the link;
//! what is above that, its asker has given up. So it has what has waited for as long as a lookup may take: to
//! answer that would only make the next ones late too.

use crate::base::time::Now;
use crate::filter::changelog::PIECE_BLOCKS;
use crate::filter::size::BLOCK_BYTES;
use crate::limits::LOOKUPS_PER_LINK_MAX;
use crate::node::digest::sync;
use crate::node::ids::PeerKey;
use crate::node::peer::link_output;
use crate::node::peer::table::DeferredQuery;
use crate::node::state::{State, mark_dirty};
use crate::store::Deadline;
use crate::wire::frame::{Body, put};
use std::time::Duration;

/// Bytes of answers between two parts of a snapshot that wait for the same link: as many as a part has.
const ANSWERS_BYTES: usize = PIECE_BLOCKS * BLOCK_BYTES;

/// How old `now` may be when a question is read: a turn. Its asker counts what is left from the moment at which
/// it asked, which may lie in that turn, and nothing is served past its deadline.
const TURN_MS: u64 = 1;

/// Answers a question, now or as soon as the link has taken what waits for it.
pub(in crate::node) fn asked(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    request: u32,
    key: &[u8],
    wants_value: bool,
) {
    state.stats.served_to_peers += 1;
    drop_late(state, now, peer_key);
    let has_turn = has_turn(state, peer_key);
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
    if peer.owed.is_empty() && has_turn {
        return answer(state, now, peer_key, request, key, wants_value);
    }
    let pause_bytes = state.config.limits.outbound_pause_bytes as usize;
    if peer.owed.len() >= LOOKUPS_PER_LINK_MAX || peer.deferred_bytes + key.len() > pause_bytes {
        state.stats.deferred_dropped += 1;
        return;
    }
    peer.deferred_bytes += key.len();
    peer.owed.push_back(DeferredQuery { request, key: key.into(), wants_value, came_at: now.mono });
    sync::link_drained(state, peer_key);
}

/// Answers a question for a key that is longer than this node takes: no such key is here. Without an answer its
/// asker would take this node for one that is silent.
pub(in crate::node) fn declined(state: &mut State, now: Now, peer_key: PeerKey, request: u32) {
    state.stats.served_to_peers += 1;
    if link_output::outbound_bytes(state, peer_key) > state.config.limits.outbound_pause_bytes as usize {
        state.stats.deferred_dropped += 1;
        return;
    }
    link_output::send(state, now, peer_key, request, &Body::NotTaken);
}

/// The link has taken bytes: answers what it is owed, as far as there is room again.
pub(in crate::node) fn pay(state: &mut State, now: Now, peer_key: PeerKey) {
    drop_late(state, now, peer_key);
    while has_turn(state, peer_key) {
        let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
        let Some(owed) = peer.owed.pop_front() else { return };
        peer.deferred_bytes -= owed.key.len();
        answer(state, now, peer_key, owed.request, &owed.key, owed.wants_value);
    }
}

/// Whether the link may be given an answer now: there is room, and no part of a snapshot that waits for its
/// turn. Without turns answers would fill the link again before there is room for a snapshot, and a node that
/// waits for one asks for every key that it does not have.
fn has_turn(state: &State, peer_key: PeerKey) -> bool {
    let Some(peer) = state.mesh.peers.get(peer_key) else { return false };
    link_output::outbound_bytes(state, peer_key) <= state.config.limits.outbound_pause_bytes as usize
        && (peer.answered_bytes < ANSWERS_BYTES || !sync::has_piece(state, peer))
}

/// Drops the questions that have waited for as long as a lookup may take on this node: those who asked them
/// have given up, unless they were set to wait for longer.
fn drop_late(state: &mut State, now: Now, peer_key: PeerKey) {
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
    let patience = Duration::from_millis(state.config.mesh.lookup_timeout_ms.into());
    while peer.owed.front().is_some_and(|owed| now.mono.since(owed.came_at) >= patience)
        && let Some(owed) = peer.owed.pop_front()
    {
        peer.deferred_bytes -= owed.key.len();
        state.stats.deferred_late += 1;
    }
}

fn answer(state: &mut State, now: Now, peer_key: PeerKey, request: u32, key: &[u8], wants_value: bool) {
    // What was said of our keys before this answer must not arrive behind it.
    sync::tell_now(state, now, peer_key);
    let Some(link) = state.mesh.peers.get(peer_key).and_then(|peer| peer.link) else { return };
    let clock = state.keyspace.clock(now);
    let State { conns, pool, keyspace, .. } = state;
    let Some(conn) = conns.get_mut(link.conn) else { return };
    let key = keyspace.key(key);
    let hash = key.hash.0;
    let item = keyspace.get(now, key);
    let left_ms = |deadline: Deadline| deadline.millis().saturating_sub(now.mono.millis_ceil() + TURN_MS);
    let body = match &item {
        None => Body::None { hash },
        Some(item) => Body::Value {
            hash,
            version: item.version.0,
            left_ms: item.deadline.map(left_ms),
            value: if wants_value { item.value } else { b"" },
        },
    };
    let out = conn.outbound.back(pool);
    let before = out.len();
    put(out, clock, request, &body);
    let written = out.len() - before;
    if let Some(peer) = state.mesh.peers.get_mut(peer_key) {
        peer.answered_bytes = peer.answered_bytes.saturating_add(written);
    }
    mark_dirty(state, link.conn);
}
