//! Lookups of keys on other nodes, without blocking.
//!
//! Peers whose filter claims the key are queried one at a time, the nearest first; the next one after the answer
//! "not found", or after `lookup_try_ms` without an answer. Then all peers whose filter is unknown are queried
//! at once. After `lookup_timeout_ms` the lookup times out, unless a long answer is arriving meanwhile, by a fragment or
//! more. A link that breaks counts as "not found".
//!
//! A timeout is a miss, not an error. A miss is final only after every reachable peer with an unknown filter was
//! queried. Peers with an open circuit are skipped ([`crate::node::peer::health`]).
//!
//! Queries *from* peers are answered in [`crate::node::lookup::serve`].

use crate::base::shared_bytes::SharedBytes;
use crate::base::time::{Instant, Now};
use crate::filter::claim_stats::Claim;
use crate::limits::QUERIES_PER_STEP;
use crate::node::conn::pending::{note_answer, store_part};
use crate::node::ids::{LookupKey, NodeId, PeerKey};
use crate::node::lookup::answers::Answer;
use crate::node::lookup::broadcast;
use crate::node::lookup::forward;
use crate::node::lookup::forwarded::Failure;
use crate::node::lookup::operation::Operation;
use crate::node::lookup::pending_request::{PendingRequest, Waiter};
use crate::node::lookup::queries::InFlightQuery;
use crate::node::lookup::query::{
    arm, is_about, is_queryable, query, query_waiting, remove, take_answer, timeout, try_after,
};
use crate::node::lookup::table::{Due, Lookup, Queried, QueryReason};
use crate::node::peer::link_output;
use crate::node::peer::table::Peer;
use crate::node::state::{State, Timer};
use crate::store::{Expiry, HashedKey, KeyHash, Version};
use crate::wire::frame::{Body, Hints, Wanted};
use std::time::Duration;

/// How soon due lookups are checked again while links have unread input.
const LINKS_RECHECK: Duration = Duration::from_millis(1);

/// Repeated queries per lookup to peers named by hints, without a newer version.
const HOPS_MAX: u32 = 6;

/// The key of probes. Arbitrary; a single byte is accepted by every node.
const PROBE_KEY: &[u8] = b"?";

/// A peer's answer to a query.
#[derive(Debug)]
pub(in crate::node) enum QueryAnswer<'a> {
    /// The peer holds the key: version, value, and the milliseconds until it expires.
    Value { version: Version, value: &'a [u8], left_ms: Option<u64> },
    /// The peer holds the key, but the value is longer than this node accepts.
    TooLong,
    /// The peer does not hold the key. `moved_version`: a version that was on another node (0: none).
    None { moved_version: Version, hints: Hints<'a> },
}

impl QueryAnswer<'_> {
    /// The answer without versions and hints.
    pub(in crate::node) const NOTHING: Self = Self::None { moved_version: Version(0), hints: Hints::NONE };
}

/// The result of a lookup.
enum End {
    /// Without a value if the system has no memory for it: then it is as if it had not been found.
    Found {
        value: Option<SharedBytes>,
        until: Option<Expiry>,
    },
    NotFound,
    TimedOut,
}

/// Sends the first queries of new lookups.
pub(in crate::node) fn start(state: &mut State, now: Now, begun: Vec<LookupKey>) {
    let enough = state.mesh.lookups.queries() + QUERIES_PER_STEP;
    for lookup in begun {
        // Many keys and many peers with unknown filters cause many queries: the rest is left to later steps.
        if state.mesh.lookups.queries() < enough {
            advance(state, now, lookup);
        } else {
            state.mesh.lookups.postpone(lookup);
        }
    }
    arm(state);
}

/// Joins the lookup of a key, or begins one and appends it to `begun`. The filters must just have been searched for
/// the key.
pub(in crate::node) fn look_up(
    state: &mut State,
    now: Now,
    key: &[u8],
    hash: KeyHash,
    waiter: Waiter,
    wanted: Wanted,
    begun: &mut Vec<LookupKey>,
) {
    let candidates = candidates(state);
    let operation = Operation::Lookup(wanted);
    // A peer that answered "not found", or did not claim the key, may have received it since.
    if let Some(open) = state.mesh.lookups.find_open(key, hash, operation)
        && let Some(lookup) = state.mesh.lookups.get_mut(open)
        && lookup.refused.is_empty()
        && candidates.iter().all(|peer| lookup.has_queried(*peer) || lookup.candidates.contains(peer))
    {
        lookup.waiters.push(waiter);
        state.stats.lookups_coalesced += 1;
        if lookup.has_queried_unknown {
            query_unknown(state, now, open);
        }
        return;
    }
    let ends_at = now.mono.after(timeout(&state.config.mesh));
    let moved = state.mesh.moved.get(hash);
    let tombstone = state.keyspace.tombstones().version(HashedKey { hash, bytes: key });
    let floor = moved.map(|moved| moved.version).max(tombstone).unwrap_or_default();
    let floor = floor.max(state.mesh.versions.floor());
    let mut lookup = Lookup::new(key, hash, operation, waiter, ends_at, floor);
    lookup.candidates = candidates;
    if let Some(holder) = moved.and_then(|moved| moved.holder)
        && let Some(at) = lookup.candidates.iter().position(|peer| *peer == holder)
    {
        // This claimant had the newest version.
        lookup.candidates[at..].rotate_left(1);
    }
    begun.push(state.mesh.lookups.insert(lookup));
    state.stats.lookups += 1;
}

/// The queryable claimants of the last search, the nearest last.
fn candidates(state: &State) -> Vec<PeerKey> {
    let claimants = state.mesh.claimants().filter(|(_, peer)| peer.is_queryable());
    let mut found: Vec<(Duration, PeerKey)> = claimants.map(|(key, peer)| (peer.distance(), key)).collect();
    found.sort_by_key(|&(distance, _)| std::cmp::Reverse(distance));
    found.into_iter().map(|(_, key)| key).collect()
}

/// Advances a lookup without a query in flight, by its operation.
fn advance(state: &mut State, now: Now, key: LookupKey) {
    match state.mesh.lookups.get(key).map(|lookup| lookup.operation) {
        Some(Operation::Lookup(_)) => query_next(state, now, key),
        Some(Operation::Execute) => forward::advance(state, now, key),
        Some(Operation::Delete | Operation::Floor) => broadcast::finish(state, now, key),
        None => {}
    }
}

/// Queries the next candidate; after the last one, the peers with unknown filters. Ends the lookup if no answer is
/// outstanding.
fn query_next(state: &mut State, now: Now, key: LookupKey) {
    while let Some(lookup) = state.mesh.lookups.get_mut(key) {
        let Some(peer) = lookup.candidates.pop() else {
            query_unknown(state, now, key);
            break;
        };
        let (hash, is_new) = (lookup.hash.0, !lookup.has_queried(peer));
        if is_new && is_queryable(state, peer) {
            // A candidate whose link was replaced may have been queried for its unknown filter.
            let is_claimant = state.mesh.claims(peer, hash);
            let reason = if is_claimant { QueryReason::Claimed } else { QueryReason::Unknown };
            query(state, now, key, peer, reason);
            let at = now.mono.after(try_after(&state.config.mesh));
            state.mesh.lookups.try_at(key, at);
            return;
        }
    }
    if state.mesh.lookups.get(key).is_some_and(|lookup| lookup.queried.is_empty()) {
        finish(state, now, key, &End::NotFound);
    }
}

/// Queries all linked peers with unknown filters that this lookup has not queried.
fn query_unknown(state: &mut State, now: Now, key: LookupKey) {
    let mesh = &mut state.mesh;
    let Some(lookup) = mesh.lookups.get_mut(key) else { return };
    lookup.has_queried_unknown = true;
    let unknown = mesh.filters.unknown().iter().filter_map(|filter| mesh.peers.by_filter(*filter));
    let is_wanted =
        |peer: &PeerKey| mesh.peers.get(*peer).is_some_and(Peer::is_queryable) && !lookup.has_queried(*peer);
    let unknown: Vec<PeerKey> = unknown.filter(is_wanted).collect();
    for peer in unknown {
        query(state, now, key, peer, QueryReason::Unknown);
    }
}

/// Processes a peer's answer. Ignored if it is to no query in flight, or about another key.
pub(in crate::node) fn answered(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    request: u32,
    hash: KeyHash,
    answer: &QueryAnswer<'_>,
) {
    if !is_about(state, peer_key, request, |operation| matches!(operation, Operation::Lookup(_))) {
        return;
    }
    let is_hit = !matches!(answer, QueryAnswer::None { .. });
    let taken = take_answer(state, now, peer_key, request, hash, is_hit);
    let Some((key, query, reason)) = taken else { return };
    let State { mesh, stats, .. } = state;
    if reason == QueryReason::Claimed {
        let claim = match answer {
            QueryAnswer::Value { .. } | QueryAnswer::TooLong => Claim::Hit,
            QueryAnswer::None { .. } if mesh.claims(peer_key, hash.0) => Claim::FalsePositive,
            QueryAnswer::None { .. } => Claim::Stale,
        };
        stats.query_false_positives += u64::from(claim != Claim::Hit);
        mesh.peers.claimed(peer_key, hash, claim);
    }
    match *answer {
        QueryAnswer::Value { version, value, left_ms }
            if mesh.lookups.get(key).is_some_and(|lookup| version >= lookup.floor) =>
        {
            // The holder computed the rest after the query was sent, so this is never too late.
            let until = left_ms.map(|left| Expiry::in_millis_at_most(query.sent_at, left));
            let value = state.keyspace.keep(value);
            finish(state, now, key, &End::Found { value, until });
        }
        QueryAnswer::Value { .. } | QueryAnswer::TooLong | QueryAnswer::None { .. } => {
            if let Some(lookup) = mesh.lookups.get_mut(key) {
                lookup.refuse(peer_key);
            }
            if let QueryAnswer::None { moved_version, hints } = *answer {
                follow_hints(state, key, peer_key, moved_version, hints);
            }
            if state.mesh.lookups.get(key).is_some_and(|lookup| lookup.queried.is_empty()) {
                advance(state, now, key);
            }
        }
    }
    query_waiting(state, now, peer_key);
    arm(state);
}

/// Makes the nodes named by hints the next candidates. A peer that was queried before is queried again if a newer
/// version is known, else up to [`HOPS_MAX`] times, since the key may have moved.
fn follow_hints(state: &mut State, key: LookupKey, from: PeerKey, moved_version: Version, hints: Hints<'_>) {
    let mesh = &mut state.mesh;
    let Some(lookup) = mesh.lookups.get_mut(key) else { return };
    let is_newer = moved_version > lookup.floor;
    lookup.floor = lookup.floor.max(moved_version);
    for id in hints.iter() {
        let peer = mesh.peers.by_id(NodeId(id)).filter(|peer| *peer != from);
        let Some(peer) = peer.filter(|peer| mesh.peers.get(*peer).is_some_and(Peer::is_queryable)) else {
            continue;
        };
        if lookup.is_queried(peer) || lookup.candidates.contains(&peer) {
            continue;
        }
        if let Some(at) = lookup.refused.iter().position(|refused| *refused == peer) {
            if !is_newer && lookup.hops >= HOPS_MAX {
                continue;
            }
            lookup.hops += 1;
            lookup.refused.swap_remove(at);
        }
        lookup.candidates.push(peer);
    }
}

/// Completes the lookups of a key that was written here.
pub(in crate::node) fn finish_here(state: &mut State, now: Now, hash: KeyHash) {
    if state.mesh.lookups.len() == 0 {
        return;
    }
    for lookup in state.mesh.lookups.with_hash(hash).collect::<Vec<_>>() {
        let lookup_of = state.mesh.lookups.get(lookup).filter(|lookup| lookup.operation.policy().is_joined);
        let Some(bytes) = lookup_of.map(|lookup| lookup.key.clone()) else { continue };
        let key = HashedKey { hash, bytes: &bytes };
        if let Some(until) = state.keyspace.peek(now, key).map(|item| item.expiry) {
            let value = state.keyspace.share(now, key);
            finish(state, now, lookup, &End::Found { value, until });
        }
    }
    arm(state);
}

/// Processes an answer without a key, which is longer than the peer accepts, or with a value longer than this node
/// accepts. Both count as "not found".
pub(in crate::node) fn unreadable(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    request: u32,
    answer: &QueryAnswer<'_>,
) {
    let query = state.mesh.peers.get(peer_key).and_then(|peer| peer.queries.get(request));
    let Some(query) = query else {
        state.stats.answer_late();
        return;
    };
    let operation = query.lookup.and_then(|key| state.mesh.lookups.get(key)).map(|lookup| lookup.operation);
    match (operation, answer) {
        (None | Some(Operation::Lookup(_)), _) => {
            answered(state, now, peer_key, request, query.hash, answer);
        }
        (Some(Operation::Execute), QueryAnswer::None { .. }) => {
            forward::failed(state, now, peer_key, request, query.hash, Failure::NotTaken);
        }
        (Some(Operation::Execute), QueryAnswer::TooLong | QueryAnswer::Value { .. }) => {
            forward::failed(state, now, peer_key, request, query.hash, Failure::ReplyTooLong);
        }
        // A node that does not accept the key does not hold it.
        (Some(Operation::Delete | Operation::Floor), _) => {
            broadcast::done(state, now, peer_key, request, query.hash, false, Hints::default());
        }
    }
}

/// Sends a probe to a peer with an open circuit, unless one that has not timed out is in flight.
pub(in crate::node) fn probe(state: &mut State, now: Now, peer_key: PeerKey) {
    let timeout = timeout(&state.config.mesh);
    let hash = state.keyspace.key(PROBE_KEY).hash;
    let Some(peer) = state.mesh.peers.get_mut(peer_key).filter(|peer| !peer.breaker.lets_pass()) else {
        return;
    };
    if let Some((request, probe)) = peer.queries.probe() {
        if now.mono.since(probe.sent_at) < timeout {
            return;
        }
        peer.queries.end(request);
    }
    let request = peer.queries.begin(InFlightQuery { lookup: None, hash, sent_at: now.mono });
    state.stats.probes += 1;
    let body = Body::Get { key: PROBE_KEY, wanted: Wanted::Ttl };
    link_output::send_answer(state, now, peer_key, request, &body);
}

/// Ends the queries of a broken link. Their lookups continue in later steps.
pub(in crate::node) fn link_lost(state: &mut State, peer_key: PeerKey) {
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
    let in_flight = peer.queries.take_in_flight();
    state.mesh.lookups.postpone_all(peer.queries.take_waiting(), peer_key);
    for key in in_flight.into_values().filter_map(|query| query.lookup) {
        state.stats.queries_lost += 1;
        let Some(lookup) = state.mesh.lookups.get_mut(key) else { continue };
        lookup.queried.retain(|queried| queried.peer != peer_key);
        if lookup.operation.policy().is_repeatable {
            // If the link was replaced the peer is queried again, else it is skipped.
            lookup.candidates.push(peer_key);
        } else {
            lookup.lost.push(peer_key);
        }
        state.mesh.lookups.postpone(key);
    }
}

/// Advances up to `budget` postponed lookups, fewer if that causes many queries. Returns the cost in keys.
pub(in crate::node) fn step(state: &mut State, now: Now, budget: u32) -> usize {
    let before = state.mesh.lookups.queries();
    let enough = before + QUERIES_PER_STEP;
    let mut cost = 0;
    for _ in 0..budget {
        if state.mesh.lookups.queries() >= enough {
            break;
        }
        let Some((key, left)) = state.mesh.lookups.next_postponed() else { break };
        cost += 1;
        let Some(lookup) = state.mesh.lookups.get_mut(key) else { continue };
        if let Some(peer) = left {
            let before = lookup.queried.len();
            lookup.queried.retain(|queried| queried.peer != peer || queried.request.is_some());
            if lookup.queried.len() < before {
                lookup.candidates.push(peer);
            }
        }
        if lookup.queried.is_empty() {
            advance(state, now, key);
        }
    }
    arm(state);
    cost + queries_since(state, before)
}

/// Queries made since there were `before`.
fn queries_since(state: &State, before: u64) -> usize {
    usize::try_from(state.mesh.lookups.queries() - before).unwrap_or(usize::MAX)
}

/// Processes up to `budget` due tries and timeouts of lookups, fewer if that causes many queries. Returns the cost in
/// keys.
///
/// The clock of lookups is the time up to which links are read: an answer that arrived in time but is unread because
/// this node is busy does not count as a timeout.
pub(in crate::node) fn run_due(state: &mut State, now: Now, deadline: u64, budget: u32) -> usize {
    if !state.mesh.lookups.fired(deadline) {
        return 0;
    }
    let mut cost = 0;
    let before = state.mesh.lookups.queries();
    let enough = before + QUERIES_PER_STEP;
    let links_current_at = state.links_current_at.min(now.mono);
    for _ in 0..budget {
        if state.mesh.lookups.queries() >= enough {
            break;
        }
        match state.mesh.lookups.pop_due(links_current_at) {
            Some((Due::Try, key)) => hedge(state, now, key),
            Some((Due::End, key)) => time_out(state, now, key),
            None => break,
        }
        cost += 1;
    }
    let is_late = links_current_at < now.mono;
    let earliest = if is_late { now.mono.after(LINKS_RECHECK) } else { Instant::ZERO };
    state.mesh.lookups.arm(&mut state.timers, earliest, Timer::Lookups);
    cost + queries_since(state, before)
}

/// Hedges a late query: queries the next candidate too, and the peers with unknown filters.
fn hedge(state: &mut State, now: Now, key: LookupKey) {
    if !state.mesh.lookups.get(key).is_some_and(|lookup| lookup.operation.policy().is_hedged) {
        return;
    }
    query_unknown(state, now, key);
    if state.mesh.lookups.get(key).is_some_and(|lookup| !lookup.candidates.is_empty()) {
        advance(state, now, key);
    }
}

/// Times out a lookup with its queries in flight, which count for the circuit breakers of their peers. A lookup whose
/// long answer is arriving gets more time.
fn time_out(state: &mut State, now: Now, key: LookupKey) {
    let Some(lookup) = state.mesh.lookups.get(key) else { return };
    let received = lookup.queried.iter().filter_map(|queried| {
        let link = state.mesh.peers.get(queried.peer)?.link()?;
        Some(state.conns.get(link.conn)?.received_of_answer(queried.request?))
    });
    let (received, more) = (received.max().unwrap_or(0), timeout(&state.config.mesh));
    let queried = lookup.queried.clone();
    if state.mesh.lookups.put_off(key, received, now.mono.after(more)) {
        return;
    }
    for Queried { peer: peer_key, request, at, .. } in queried {
        // A stalled link is a timeout of its peer. A lookup that only waits for a slot is not.
        let is_stalled = request.is_none() && !link_output::has_room_for_query(state, peer_key);
        let Some(peer) = state.mesh.peers.get_mut(peer_key) else { continue };
        let had_its_time = now.mono.since(at) >= try_after(&state.config.mesh);
        if (request.is_some() || is_stalled) && had_its_time && peer.breaker.timed_out(now.mono, at) {
            circuit_opened(state, now, peer_key);
        }
    }
    match state.mesh.lookups.get(key).map(|lookup| lookup.operation) {
        Some(Operation::Lookup(_)) => finish(state, now, key, &End::TimedOut),
        Some(Operation::Execute) => forward::time_out(state, now, key),
        Some(Operation::Delete | Operation::Floor) => broadcast::finish(state, now, key),
        None => {}
    }
}

/// Makes lookups skip a peer whose circuit has opened, including those queued for a slot.
fn circuit_opened(state: &mut State, now: Now, peer_key: PeerKey) {
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
    state.mesh.lookups.postpone_all(peer.queries.take_waiting(), peer_key);
    state.stats.circuits_opened += 1;
    if state.log_gate.allows(now, &mut state.stats) {
        let (addr, probes) = (peer.addr(), peer.breaker.probes_left());
        log::warn!("peer {addr} does not answer queries; lookups skip it until it answers {probes} probes");
    }
}

/// Ends a lookup: its waiters get their result. Nothing else does.
fn finish(state: &mut State, now: Now, key: LookupKey, end: &End) {
    let Some(lookup) = remove(state, key) else { return };
    match end {
        End::Found { .. } => state.stats.lookup_hits += 1,
        End::NotFound => state.stats.lookup_misses += 1,
        End::TimedOut => state.stats.lookup_timeouts += 1,
    }
    let found = match end {
        End::Found { value, until } => value.as_ref().map(|value| (value, *until)),
        End::NotFound | End::TimedOut => None,
    };
    for waiter in lookup.waiters {
        let Some(is_kept) = state.mesh.pending.get(waiter.pending).map(PendingRequest::keeps_values) else {
            continue;
        };
        let answer = found.map_or(Answer::Missing, |(value, until)| {
            let value = if is_kept { value.clone() } else { SharedBytes::default() };
            Answer::Found { value, until }
        });
        let value_bytes = found.map_or(0, |(value, _)| value.len());
        if !matches!(end, End::TimedOut) {
            note_answer(state, waiter, value_bytes);
        }
        store_part(state, waiter, answer, value_bytes);
    }
    for queried in lookup.queried {
        query_waiting(state, now, queried.peer);
    }
}
