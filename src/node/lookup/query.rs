//! Queries to peers: each is one frame of an operation, and has one answer or none.
//!
//! The operations decide which peers are queried when: [`crate::node::lookup::remote`] looks keys up,
//! [`crate::node::lookup::forward`] forwards commands, [`crate::node::lookup::broadcast`] deletes.

use crate::base::time::{Instant, Now};
use crate::limits::{CLOCK_AHEAD_MAX_MS, MeshLimits};
use crate::node::digest::sync;
use crate::node::hybrid_clock::HybridClock;
use crate::node::ids::{LookupKey, PeerKey};
use crate::node::lookup::forwarded::ForwardedCommand;
use crate::node::lookup::operation::Operation;
use crate::node::lookup::queries::InFlightQuery;
use crate::node::lookup::table::{Lookup, Queried, QueryReason, Task};
use crate::node::peer::link_output;
use crate::node::peer::table::Peer;
use crate::node::state::{State, Timer};
use crate::store::KeyHash;
use crate::wire::frame::{Arguments, Body, Hints, RemoteCommand, Wanted};
use std::time::Duration;

/// The time without an answer after which the next candidate is queried too.
pub(super) fn try_after(limits: &MeshLimits) -> Duration {
    Duration::from_millis(limits.lookup_try_ms.into())
}

/// The timeout of a lookup or probe.
pub(super) fn timeout(limits: &MeshLimits) -> Duration {
    Duration::from_millis(limits.lookup_timeout_ms.into())
}

pub(super) fn is_queryable(state: &State, peer: PeerKey) -> bool {
    state.mesh.peers.get(peer).is_some_and(Peer::is_queryable)
}

/// Sends a query to a peer, or queues the lookup if `lookups_per_peer` are in flight or the link has no room.
pub(super) fn query(state: &mut State, now: Now, key: LookupKey, peer_key: PeerKey, reason: QueryReason) {
    let has_room = link_output::has_room_for_query(state, peer_key);
    let State { mesh, config, stats, .. } = state;
    mesh.lookups.count_query();
    let Some(lookup) = mesh.lookups.get_mut(key) else { return };
    let Some(peer) = mesh.peers.get_mut(peer_key) else { return };
    lookup.queried.retain(|queried| queried.peer != peer_key);
    if !has_room || peer.queries.len() >= config.limits.lookups_per_peer as usize {
        peer.queries.wait(key);
        lookup.note_query(Queried { peer: peer_key, request: None, at: now.mono, reason });
        return;
    }
    let request =
        peer.queries.begin(InFlightQuery { lookup: Some(key), hash: lookup.hash, sent_at: now.mono });
    lookup.note_query(Queried { peer: peer_key, request: Some(request), at: now.mono, reason });
    stats.queries += 1;
    // Moved out of the lookup, since writing the frame borrows the whole state.
    let (operation, text) = (lookup.operation, std::mem::take(&mut lookup.key));
    let task = std::mem::replace(&mut lookup.task, Task::None);
    if operation.policy().is_ordered {
        sync::flush(state, now, peer_key);
    }
    match (operation, &task) {
        (Operation::Lookup(wanted), _) => {
            link_output::send_answer(state, now, peer_key, request, &Body::Get { key: &text, wanted });
        }
        (Operation::Execute, Task::Forward(command)) => {
            send_command(state, now, key, peer_key, request, command);
        }
        (Operation::Delete, Task::Broadcast(deletion)) => {
            let body = Body::Delete { key: &text, version: deletion.version };
            link_output::send_ordered(state, now, peer_key, request, &body);
        }
        (Operation::Floor, Task::Broadcast(floor)) => {
            link_output::send_ordered(state, now, peer_key, request, &Body::Floor(floor.version));
        }
        (Operation::Execute | Operation::Delete | Operation::Floor, _) => {}
    }
    if let Some(lookup) = state.mesh.lookups.get_mut(key) {
        lookup.key = text;
        lookup.task = task;
    }
}

/// Ends the query of an answer. Returns the lookup and the reason of the query; `None` if the answer is to no query
/// in flight, to a probe, or about another key.
pub(super) fn take_answer(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    request: u32,
    hash: KeyHash,
    is_hit: bool,
) -> Option<(LookupKey, InFlightQuery, QueryReason)> {
    let State { mesh, stats, .. } = state;
    let peer = mesh.peers.get_mut(peer_key)?;
    let Some(query) = peer.queries.get(request) else {
        stats.answer_late();
        return None;
    };
    if query.hash != hash {
        stats.answers_mismatched += 1;
        return None;
    }
    let is_oldest = peer.queries.is_oldest(request);
    peer.queries.end(request);
    let Some(key) = query.lookup else {
        probe_answered(state, now, peer_key, query);
        return None;
    };
    if is_oldest {
        peer.breaker.answered();
    }
    peer.measured(now.mono.since(query.sent_at));
    stats.query_hits += u64::from(is_hit);
    stats.query_misses += u64::from(!is_hit);
    let lookup = mesh.lookups.get_mut(key)?;
    let reason = lookup.queried.iter().find(|queried| queried.peer == peer_key).map(|queried| queried.reason);
    lookup.queried.retain(|queried| queried.peer != peer_key);
    Some((key, query, reason?))
}

/// Whether an answer fits the operation of its query in flight; counts it as mismatched if not.
pub(super) fn is_about(
    state: &mut State,
    peer_key: PeerKey,
    request: u32,
    is_meant: fn(Operation) -> bool,
) -> bool {
    let query = state.mesh.peers.get(peer_key).and_then(|peer| peer.queries.get(request));
    let operation = match query.map(|query| query.lookup) {
        Some(Some(key)) => state.mesh.lookups.get(key).map(|lookup| lookup.operation),
        // A probe looks up.
        Some(None) => Some(Operation::Lookup(Wanted::Ttl)),
        None => None,
    };
    let is_about = operation.is_some_and(is_meant);
    match operation {
        Some(_) if !is_about => state.stats.answers_mismatched += 1,
        None => state.stats.answer_late(),
        Some(_) => {}
    }
    is_about
}

/// Counts the answer to a probe for the circuit breaker if it is in time.
fn probe_answered(state: &mut State, now: Now, peer_key: PeerKey, probe: InFlightQuery) {
    let timeout = timeout(&state.config.mesh);
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
    if now.mono.since(probe.sent_at) >= timeout {
        return;
    }
    peer.breaker.probe_answered();
    if peer.breaker.lets_pass() && state.log_gate.allows(now, &mut state.stats) {
        log::info!("peer {} answers queries again", peer.addr());
    }
}

/// Sends queries for queued lookups to a peer while there are slots and room in its link.
pub(in crate::node) fn query_waiting(state: &mut State, now: Now, peer_key: PeerKey) {
    let in_flight_max = state.config.limits.lookups_per_peer as usize;
    while let Some(peer) = state.mesh.peers.get_mut(peer_key)
        && let Some(key) = peer.queries.first_waiting()
    {
        let lookup = state.mesh.lookups.get(key);
        let waits = lookup.and_then(|lookup| {
            lookup.queried.iter().find(|queried| queried.peer == peer_key && queried.request.is_none())
        });
        let has_slot = peer.queries.len() < in_flight_max;
        match waits.map(|queried| queried.reason) {
            Some(_) if !has_slot || !link_output::has_room_for_query(state, peer_key) => return,
            reason => {
                let peer = state.mesh.peers.get_mut(peer_key);
                peer.into_iter().for_each(|peer| peer.queries.dequeue());
                reason.into_iter().for_each(|reason| query(state, now, key, peer_key, reason));
            }
        }
    }
}

/// Removes a lookup that has ended. Abandons its queries in flight; [`query_waiting`] must be called for their peers.
pub(super) fn remove(state: &mut State, key: LookupKey) -> Option<Lookup> {
    let lookup = state.mesh.lookups.remove(key)?;
    for queried in &lookup.queried {
        let Some(peer) = state.mesh.peers.get_mut(queried.peer) else { continue };
        if queried.request.is_some_and(|request| peer.queries.end(request)) {
            state.stats.queries_abandoned += 1;
        }
    }
    Some(lookup)
}

/// Arms the timer for the next try or timeout of a lookup.
pub(super) fn arm(state: &mut State) {
    state.mesh.lookups.arm(&mut state.timers, Instant::ZERO, Timer::Lookups);
}

/// Sends an EXECUTE. Its deadline is the timeout of the operation plus the allowed difference of clocks.
fn send_command(
    state: &mut State,
    now: Now,
    key: LookupKey,
    peer_key: PeerKey,
    request: u32,
    command: &ForwardedCommand,
) {
    let Some(lookup) = state.mesh.lookups.get(key) else { return };
    let left = lookup.ends_at.millis().saturating_sub(now.mono.millis());
    let ids = lookup.refused.iter().filter_map(|peer| state.mesh.peers.get(*peer));
    let refused: Vec<[u8; 16]> = ids.map(|peer| peer.id().0).collect();
    let create = lookup.creates_at == Some(peer_key);
    let mut arguments = state.pool.take();
    let body = RemoteCommand {
        name: &command.request.name,
        arguments: Arguments::write(&mut arguments, command.request.args.args().iter()),
        create,
        deadline: HybridClock::after(state.keyspace.clock(now), left + CLOCK_AHEAD_MAX_MS),
        refused: Hints::new(&refused),
        protocol: command.request.protocol,
    };
    link_output::send_ordered(state, now, peer_key, request, &Body::Execute(body));
    state.pool.give(arguments);
}

/// The name of a node in errors.
pub(super) fn name_of(state: &State, peer: PeerKey) -> String {
    state
        .mesh
        .peers
        .get(peer)
        .map_or_else(|| "a node that has left".to_owned(), |peer| peer.addr().to_string())
}
