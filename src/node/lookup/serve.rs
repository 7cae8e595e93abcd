//! Answers queries of peers from the local store only, so that a query never causes another one.
//!
//! A query is deferred while the link has no room for its answer. Reading the link continues meanwhile; otherwise two
//! nodes could block each other. Deferred queries are bounded in number and in bytes of keys. Queries above the
//! bounds are dropped, and so are those older than the timeout of a lookup, whose answers would only delay others.

use crate::base::time::Now;
use crate::limits::{CLOCK_AHEAD_MAX_MS, LONG_REPLY_BYTES, LOOKUPS_PER_LINK_MAX};
use crate::node::digest::sync;
use crate::node::hybrid_clock::HybridClock;
use crate::node::ids::PeerKey;
use crate::node::lookup::queries::DeferredQueries;
use crate::node::peer::link_output;
use crate::node::peer::link_queues::LinkQueues;
use crate::node::schedule::cost_of_bytes;
use crate::node::state::{State, mark_dirty};
use crate::store::{Expiry, Version};
use crate::wire::frame::{Body, Wanted};
use std::time::Duration;

/// The maximal age of `now` when a query is read: an iteration of the event loop. It is subtracted from TTLs, since
/// the querying node counts from the time of its query.
const TURN_MS: u64 = 1;

/// Answers a query, now or as soon as the link has room. Returns the cost of the answer in keys.
pub(in crate::node) fn received(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    request: u32,
    wanted: Wanted,
    key: &[u8],
) -> usize {
    state.stats.peer_queries += 1;
    drop_late(state, now, peer_key);
    let has_room = link_output::has_room_for_answer(state, peer_key);
    if has_room && queues_of(state, peer_key).is_some_and(|queues| queues.deferred.is_empty()) {
        return answer(state, now, peer_key, request, wanted, key);
    }
    defer(state, now, peer_key, (request, wanted, key), |queues| &mut queues.deferred);
    sync::link_drained(state, peer_key);
    0
}

/// The queues of the link to a peer.
fn queues_of(state: &mut State, peer_key: PeerKey) -> Option<&mut LinkQueues> {
    let conn = state.mesh.peers.conn(peer_key)?;
    state.conns.get_mut(conn)?.link_queues.as_deref_mut()
}

/// Defers a query, or drops it if too many are deferred.
fn defer(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    (request, wanted, key): (u32, Wanted, &[u8]),
    queue: fn(&mut LinkQueues) -> &mut DeferredQueries,
) {
    let bytes_max = state.config.limits.outbound_pause_bytes as usize;
    let Some(queue) = queues_of(state, peer_key).map(queue) else { return };
    if queue.len() >= LOOKUPS_PER_LINK_MAX || queue.bytes() + key.len() > bytes_max {
        state.stats.peer_queries_dropped += 1;
    } else {
        queue.push(now.mono, request, wanted, key);
    }
}

/// Answers a query for a key that is longer than this node accepts, and so is not here. Without an answer the peer
/// would count a timeout.
pub(in crate::node) fn declined(state: &mut State, now: Now, peer_key: PeerKey, request: u32) {
    state.stats.peer_queries += 1;
    if link_output::has_room_for_answer(state, peer_key) {
        link_output::send_answer(state, now, peer_key, request, &Body::NotTaken);
    } else {
        state.stats.peer_queries_dropped += 1;
    }
}

/// Answers deferred queries while the link has room. Returns the cost in keys.
pub(in crate::node) fn answer_deferred(state: &mut State, now: Now, peer_key: PeerKey) -> usize {
    drop_late(state, now, peer_key);
    let mut cost = 0;
    while link_output::has_room_for_answer(state, peer_key)
        && let Some(query) = queues_of(state, peer_key).and_then(|queues| queues.deferred.pop())
    {
        cost += 1 + answer(state, now, peer_key, query.request, query.wanted, &query.key);
    }
    // One answer to a query for a long value waits at a time.
    while let Some(queues) = queues_of(state, peer_key).filter(|queues| queues.has_room_for_long())
        && let Some(query) = queues.deferred_long.pop()
    {
        cost += 1 + answer(state, now, peer_key, query.request, query.wanted, &query.key);
    }
    cost
}

/// Drops deferred queries older than `lookup_timeout_ms` of this node: their lookups have timed out, unless the peer
/// has a longer timeout.
fn drop_late(state: &mut State, now: Now, peer_key: PeerKey) {
    let timeout = Duration::from_millis(state.config.mesh.lookup_timeout_ms.into());
    let Some(queues) = queues_of(state, peer_key) else { return };
    let late =
        [&mut queues.deferred, &mut queues.deferred_long].map(|queue| queue.drop_older(now.mono, timeout));
    state.stats.peer_queries_timed_out += late.iter().sum::<u64>();
}

/// Deletes a key for a peer, whatever its version, and answers with the version of the deletion. Without such a key
/// the deletion has the version of the command, so that later writes of the peer stay. So does a late one, which is
/// not answered: the peer has already reported that this node did not delete.
pub(in crate::node) fn delete(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    request: u32,
    key: &[u8],
    version: Version,
) {
    let key = state.keyspace.key(key);
    let millis = u64::from(state.config.mesh.lookup_timeout_ms) + CLOCK_AHEAD_MAX_MS;
    let is_late = state.keyspace.clock(now) > HybridClock::after(version.0, millis);
    let (version, had) = if !is_late && state.keyspace.peek(now, key).is_some() {
        state.keyspace.delete_command(now, key, version)
    } else {
        state.keyspace.delete_older(now, key, version);
        (version, false)
    };
    state.keyspace.keep_up(now);
    if is_late {
        state.stats.peer_queries_timed_out += 1;
        return;
    }
    // The state before its own deletion counts.
    let elsewhere = state.mesh.elsewhere(key.hash, None, peer_key);
    sync::flush(state, now, peer_key);
    let body = Body::Deleted { hash: key.hash.0, version: version.0, had, hints: elsewhere.hints() };
    link_output::send_answer(state, now, peer_key, request, &body);
}

/// Answers a query. Returns the cost of the copied bytes in keys.
fn answer(state: &mut State, now: Now, peer_key: PeerKey, request: u32, wanted: Wanted, key: &[u8]) -> usize {
    // Earlier changes of the own filter must arrive before this answer.
    sync::flush(state, now, peer_key);
    let Some(conn_key) = state.mesh.peers.conn(peer_key) else { return 0 };
    let clock = state.keyspace.clock(now);
    let State { conns, pool, keyspace, mesh, .. } = state;
    let Some(conn) = conns.get_mut(conn_key) else { return 0 };
    let key = keyspace.key(key);
    let hash = key.hash.0;
    let left_ms = |expiry: Expiry| expiry.millis().saturating_sub(now.mono.millis_ceil() + TURN_MS);
    let written = if let Some(item) = keyspace.get(now, key) {
        let (version, left_ms) = (item.version.0, item.expiry.map(left_ms));
        let value = if wanted == Wanted::Value { item.value } else { b"" };
        if value.len() <= LONG_REPLY_BYTES {
            let body = Body::Value { hash, version, left_ms, value };
            link_output::append_answer(conn, pool, clock, request, &body)
        } else if !conn.link_queues.as_deref().is_some_and(LinkQueues::has_room_for_long) {
            let query = (request, wanted, key.bytes);
            defer(state, now, peer_key, query, |queues| &mut queues.deferred_long);
            return 0;
        } else if let Some(value) = keyspace.share(now, key) {
            let body = Body::Value { hash, version, left_ms, value: b"" };
            // Its bytes are counted as work when they are written.
            link_output::append_large_answer(conn, pool, clock, request, &body, value);
            0
        } else {
            0
        }
    } else {
        let elsewhere = mesh.elsewhere(key.hash, keyspace.tombstones().version(key), peer_key);
        let none = Body::None { hash, moved_version: elsewhere.version.0, hints: elsewhere.hints() };
        link_output::append_answer(conn, pool, clock, request, &none)
    };
    mark_dirty(state, conn_key);
    cost_of_bytes(written)
}
