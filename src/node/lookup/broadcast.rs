//! Broadcasts: a deletion of a key, or a floor below which all keys are dropped, sent to all nodes that it concerns.
//! They are queried at once, then the nodes that their hints name. The reply names the nodes that have not answered
//! in time.

use crate::base::shared_bytes::SharedBytes;
use crate::base::time::Now;
use crate::node::conn::pending::store_part;
use crate::node::ids::{LookupKey, NodeId, PeerKey};
use crate::node::lookup::answers::Answer;
use crate::node::lookup::forwarded::{Broadcast, Failure};
use crate::node::lookup::operation::Operation;
use crate::node::lookup::pending_request::Waiter;
use crate::node::lookup::placement;
use crate::node::lookup::query::{
    arm, is_about, name_of, query, query_waiting, remove, take_answer, timeout,
};
use crate::node::lookup::table::{Lookup, QueryReason, Task};
use crate::node::state::State;
use crate::store::{KeyHash, Version};
use crate::wire::frame::Hints;

/// Begins the deletion of a key on all other nodes that may hold it. It was deleted here with this version; `had`:
/// there was a value. There must be room for a lookup.
pub(in crate::node) fn delete(
    state: &mut State,
    now: Now,
    waiter: Waiter,
    key: &[u8],
    version: Version,
    had: bool,
) {
    let hash = state.keyspace.key(key).hash;
    let concerned: Vec<PeerKey> = placement::may_hold(state, hash, &[]).collect();
    let broadcast = Broadcast { version: version.0, had, unreached: Vec::new() };
    begin(state, now, waiter, (key, hash, Operation::Delete), broadcast, &concerned);
}

/// Begins to make all linked nodes drop their keys up to a version.
pub(in crate::node) fn floor(state: &mut State, now: Now, waiter: Waiter, version: Version) {
    let concerned: Vec<PeerKey> = state.mesh.peers.linked().map(|(key, _)| key).collect();
    let broadcast = Broadcast { version: version.0, had: false, unreached: Vec::new() };
    begin(state, now, waiter, (b"", KeyHash(version.0), Operation::Floor), broadcast, &concerned);
}

fn begin(
    state: &mut State,
    now: Now,
    waiter: Waiter,
    (key, hash, operation): (&[u8], KeyHash, Operation),
    mut broadcast: Broadcast,
    concerned: &[PeerKey],
) {
    let is_linked = |peer: &&PeerKey| state.mesh.peers.get(**peer).is_some_and(|peer| peer.is_linked());
    let (linked, unlinked): (Vec<&PeerKey>, Vec<&PeerKey>) = concerned.iter().partition(is_linked);
    broadcast.unreached = unlinked.into_iter().map(|peer| name_of(state, *peer)).collect();
    let ends_at = now.mono.after(timeout(&state.config.mesh));
    let mut lookup = Lookup::new(key, hash, operation, waiter, ends_at, Version::default());
    lookup.task = Task::Broadcast(Box::new(broadcast));
    let lookup = state.mesh.lookups.insert(lookup);
    for peer in &linked {
        query(state, now, lookup, **peer, QueryReason::Claimed);
    }
    if linked.is_empty() {
        finish(state, now, lookup);
    }
    arm(state);
}

/// Processes the answer of a node. Returns the key, and the version of its deletion there.
pub(in crate::node) fn done(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    number: u32,
    hash: KeyHash,
    had: bool,
    hints: Hints<'_>,
) -> Option<Box<[u8]>> {
    let is_broadcast = |operation| matches!(operation, Operation::Delete | Operation::Floor);
    if !is_about(state, peer, number, is_broadcast) {
        return None;
    }
    let (key, ..) = take_answer(state, now, peer, number, hash, had)?;
    let own = state.mesh.id();
    let State { mesh, .. } = state;
    let lookup = mesh.lookups.get_mut(key)?;
    let deleted = lookup.key.clone();
    lookup.refused.push(peer);
    let (mut hinted, mut unknown) = (Vec::new(), Vec::new());
    for id in hints.iter().map(NodeId).filter(|id| *id != own) {
        match mesh.peers.by_id(id).and_then(|key| Some((key, mesh.peers.get(key)?))) {
            Some((key, of)) if of.has_left() || lookup.has_queried(key) => {}
            Some((key, of)) if of.is_linked() => hinted.push(key),
            Some(_) | None => unknown.push(format!("node {id}")),
        }
    }
    if let Task::Broadcast(broadcast) = &mut lookup.task {
        broadcast.had |= had;
        broadcast.unreached.append(&mut unknown);
    }
    for peer in hinted {
        query(state, now, key, peer, QueryReason::Claimed);
    }
    if state.mesh.lookups.get(key).is_some_and(|lookup| lookup.queried.is_empty()) {
        finish(state, now, key);
    }
    query_waiting(state, now, peer);
    arm(state);
    Some(deleted)
}

/// Ends a broadcast: all nodes have answered, or it has timed out.
pub(super) fn finish(state: &mut State, now: Now, key: LookupKey) {
    let Some(lookup) = remove(state, key) else { return };
    let Task::Broadcast(mut broadcast) = lookup.task else { return };
    let missing = lookup.queried.iter().map(|queried| queried.peer).chain(lookup.lost.iter().copied());
    let missing = missing.filter(|peer| state.mesh.peers.get(*peer).is_none_or(|peer| !peer.has_left()));
    broadcast.unreached.extend(missing.map(|peer| name_of(state, peer)));
    broadcast.unreached.sort_unstable();
    broadcast.unreached.dedup();
    let answer = match (broadcast.unreached.is_empty(), lookup.operation == Operation::Delete) {
        (false, true) => Answer::Failed(Failure::Undeleted(broadcast.unreached)),
        (false, false) => Answer::Failed(Failure::Unflushed(broadcast.unreached)),
        (true, true) if broadcast.had => Answer::Found { value: SharedBytes::default(), until: None },
        (true, true | false) => Answer::Missing,
    };
    if let Some(waiter) = lookup.waiters.first() {
        store_part(state, *waiter, answer, 0);
    }
    for queried in lookup.queried {
        query_waiting(state, now, queried.peer);
    }
}
