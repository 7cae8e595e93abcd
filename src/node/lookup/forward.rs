//! Forwards a command to the node that holds its keys, which carries it out once.
//!
//! Nodes whose filters claim the keys are queried one at a time, then those with unknown filters. A node that does
//! not hold the keys does nothing and names nodes that may (hints). If no node holds them, the command is carried out
//! on the home node of the keys only ([`crate::node::lookup::placement`]), so that a new key has one value.
//!
//! Nothing is sent twice. After a lost link or a timeout the outcome is unknown, and the error states that. While a
//! node that cannot be queried may hold a key, nothing is done.

use crate::base::time::Now;
use crate::node::conn::pending::store_part;
use crate::node::ids::{LookupKey, NodeId, PeerKey};
use crate::node::lookup::answers::Answer;
use crate::node::lookup::forwarded::{Failure, ForwardedCommand, OnMissing, QueuedCommand, Request};
use crate::node::lookup::operation::Operation;
use crate::node::lookup::pending_request::{PendingRequest, Waiter};
use crate::node::lookup::placement::{self, Verdict};
use crate::node::lookup::query::{
    arm, is_about, is_queryable, name_of, query, query_waiting, remove, take_answer, timeout,
};
use crate::node::lookup::table::{Lookup, QueryReason, Task};
use crate::node::state::State;
use crate::store::{KeyHash, Version};
use crate::wire::frame::Hints;
use crate::wire::remote_reply::{KeyVersion, RemoteReply};
use std::collections::BTreeMap;

/// Bytes of an error at most: errors are sentences.
const ERROR_BYTES_MAX: usize = 4 * 1024;

/// Nodes queried as the home node, at most, before the command fails.
const HOME_CHANGES_MAX: u32 = 2;

/// Begins to forward a command. There must be room for a lookup.
pub(in crate::node) fn begin(state: &mut State, now: Now, waiter: Waiter, command: ForwardedCommand) {
    let ends_at = now.mono.after(timeout(&state.config.mesh));
    let first: Box<[u8]> = command.keys.first().cloned().unwrap_or_default();
    let hash = state.keyspace.key(&first).hash;
    let mut lookup = Lookup::new(&first, hash, Operation::Execute, waiter, ends_at, Version::default());
    lookup.candidates = placement::candidates(state, keys(&command), &[]);
    lookup.task = Task::Forward(Box::new(command));
    let key = state.mesh.lookups.insert(lookup);
    advance(state, now, key);
    arm(state);
}

/// The keys on which a command depends.
fn keys(command: &ForwardedCommand) -> impl Iterator<Item = &[u8]> + Clone {
    command.keys.iter().map(|key| &**key)
}

/// The next step of a forwarded command.
enum Next {
    Here,
    Query(PeerKey, QueryReason),
    Create(PeerKey),
    GiveUp(Failure),
}

/// Advances a command without a query in flight: queries the next node, carries the command out here, or fails it.
pub(super) fn advance(state: &mut State, now: Now, key: LookupKey) {
    let Some(lookup) = state.mesh.lookups.get_mut(key) else { return };
    if let Some(peer) = lookup.lost.first().copied() {
        let node = name_of(state, peer);
        return finish(state, now, key, Answer::Failed(Failure::Unknown(node)));
    }
    let Task::Forward(mut command) = std::mem::replace(&mut lookup.task, Task::None) else { return };
    let next = next(state, now, key, &mut command);
    if let Some(lookup) = state.mesh.lookups.get_mut(key) {
        lookup.task = Task::Forward(command);
        lookup.creates_at = match next {
            Next::Create(peer) => Some(peer),
            Next::Here | Next::Query(..) | Next::GiveUp(_) => None,
        };
    }
    match next {
        Next::Here => state.mesh.queued_commands.push(QueuedCommand::Own(key)),
        Next::Query(peer, reason) => query(state, now, key, peer, reason),
        Next::Create(peer) => query(state, now, key, peer, QueryReason::HomeNode),
        Next::GiveUp(failure) => finish(state, now, key, Answer::Failed(failure)),
    }
}

fn next(state: &mut State, now: Now, key: LookupKey, command: &mut ForwardedCommand) -> Next {
    match placement::verdict(state, now, keys(command), OnMissing::Refused, &[]) {
        Verdict::Here => return Next::Here,
        Verdict::Apart => return Next::GiveUp(Failure::Apart),
        Verdict::Elsewhere => {}
    }
    loop {
        while let Some(lookup) = state.mesh.lookups.get_mut(key)
            && let Some(peer) = lookup.candidates.pop()
        {
            if !lookup.has_queried(peer) && is_queryable(state, peer) {
                let is_unknown = placement::is_unknown(state, peer);
                return Next::Query(
                    peer,
                    if is_unknown { QueryReason::Unknown } else { QueryReason::Claimed },
                );
            }
        }
        let refused = refusals(state, key);
        // Searched again, since filters change while nodes are queried.
        let candidates = placement::candidates(state, keys(command), &refused);
        if !candidates.is_empty()
            && let Some(lookup) = state.mesh.lookups.get_mut(key)
        {
            lookup.candidates = candidates;
            continue;
        }
        let unreachable = placement::unreachable(state, keys(command), &refused);
        let mut names: Vec<_> = unreachable.into_iter().map(|peer| name_of(state, peer)).collect();
        names.append(&mut command.absent);
        if !names.is_empty() {
            return Next::GiveUp(Failure::Unreachable(names));
        }
        if command.home_changes >= HOME_CHANGES_MAX {
            return Next::GiveUp(Failure::Moving);
        }
        if command.on_missing == OnMissing::NoEffect {
            return here_or_moving(state, now, command, &refused);
        }
        let homes: Vec<_> = keys(command).map(|key| placement::home_node(state, key)).collect();
        let home_node = homes.first().copied().flatten();
        if homes.iter().any(|other| *other != home_node) {
            return Next::GiveUp(Failure::Apart);
        }
        return match home_node {
            None => here_or_moving(state, now, command, &refused),
            Some(peer) if is_queryable(state, peer) => {
                command.home_changes += 1;
                Next::Create(peer)
            }
            Some(peer) => Next::GiveUp(Failure::Unreachable(vec![name_of(state, peer)])),
        };
    }
}

/// Carries a command out here without its keys, unless a filter claims one now.
fn here_or_moving(state: &State, now: Now, command: &ForwardedCommand, refused: &[NodeId]) -> Next {
    match placement::verdict(state, now, keys(command), command.on_missing, refused) {
        Verdict::Here => Next::Here,
        Verdict::Elsewhere | Verdict::Apart => Next::GiveUp(Failure::Moving),
    }
}

/// The nodes that have answered NOTHOLDER.
fn refusals(state: &State, key: LookupKey) -> Vec<NodeId> {
    let refused = state.mesh.lookups.get(key).map_or(&[][..], |lookup| &lookup.refused);
    refused.iter().filter_map(|peer| state.mesh.peers.get(*peer)).map(|peer| peer.id()).collect()
}

/// Processes the reply of a node that has carried out a command; `first` is its first key. Returns the keys with
/// their versions on that node, which count as notices.
pub(in crate::node) fn executed(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    number: u32,
    first: KeyVersion,
    reply: &[u8],
) -> Vec<(Box<[u8]>, KeyVersion)> {
    if !is_about(state, peer, number, |operation| operation == Operation::Execute) {
        return Vec::new();
    }
    let Some((key, ..)) = take_answer(state, now, peer, number, KeyHash(first.hash), true) else {
        return Vec::new();
    };
    let remote = RemoteReply::read(reply);
    let answer = match &remote {
        Some(remote) => answer_of(state, key, reply, remote),
        None => Answer::Failed(Failure::Unknown(name_of(state, peer))),
    };
    let task = state.mesh.lookups.get_mut(key).map(Lookup::take_task);
    let named = match (task, remote) {
        (Some(Task::Forward(command)), Some(remote)) => {
            name_keys(state, &command.request, std::iter::once(first).chain(remote.keys()))
        }
        (Some(Task::None | Task::Broadcast(_) | Task::Forward(_)) | None, _) => Vec::new(),
    };
    finish(state, now, key, answer);
    query_waiting(state, now, peer);
    arm(state);
    named
}

/// Finds the keys of these versions among the arguments of a request. Memory by the request, not by the versions.
fn name_keys(
    state: &State,
    request: &Request,
    versions: impl Iterator<Item = KeyVersion>,
) -> Vec<(Box<[u8]>, KeyVersion)> {
    let words = request.args.args();
    let by_hash: BTreeMap<u64, &[u8]> =
        words.iter().map(|word| (state.keyspace.key(word).hash.0, word)).collect();
    let mut named = BTreeMap::new();
    for version in versions.filter(|version| version.version > 0) {
        if let Some(word) = by_hash.get(&version.hash) {
            named.insert(*word, version);
        }
    }
    named.into_iter().map(|(word, version)| (word.into(), version)).collect()
}

/// Stores the reply of a command that was carried out here instead; `None`: there is no memory for it.
pub(in crate::node) fn carried_out(state: &mut State, now: Now, key: LookupKey, reply: Option<&[u8]>) {
    let Some(reply) = reply else { return finish(state, now, key, Answer::Failed(Failure::ReplyTooLong)) };
    if let Some(remote) = RemoteReply::read(reply) {
        let answer = answer_of(state, key, reply, &remote);
        finish(state, now, key, answer);
    }
}

/// The answer for the client. The reply of a transaction is split later.
fn answer_of(state: &State, key: LookupKey, reply: &[u8], remote: &RemoteReply<'_>) -> Answer {
    let waiter = state.mesh.lookups.get(key).and_then(|lookup| lookup.waiters.first());
    let pending = waiter.and_then(|waiter| state.mesh.pending.get(waiter.pending));
    let is_transaction = pending.is_some_and(PendingRequest::is_transaction);
    let Some(result) = remote.results().next() else { return Answer::Failed(Failure::Apart) };
    if result.is_error && !is_transaction && result.bytes.len() > ERROR_BYTES_MAX {
        return Answer::Failed(Failure::ReplyTooLong);
    }
    match state.keyspace.keep(if is_transaction { reply } else { result.bytes }) {
        None => Answer::Failed(Failure::ReplyTooLong),
        Some(error) if result.is_error && !is_transaction => Answer::Error(error),
        Some(reply) => Answer::Reply(reply),
    }
}

/// Processes a NOTHOLDER: the node does not hold the keys, and names nodes that may.
pub(in crate::node) fn refused(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    number: u32,
    hash: KeyHash,
    moved_version: u64,
    hints: Hints<'_>,
) {
    if !is_about(state, peer, number, |operation| operation == Operation::Execute) {
        return;
    }
    let Some((key, ..)) = take_answer(state, now, peer, number, hash, false) else { return };
    let own = state.mesh.id();
    let State { mesh, .. } = state;
    if let Some(lookup) = mesh.lookups.get_mut(key)
        && let Task::Forward(command) = &mut lookup.task
    {
        lookup.refused.push(peer);
        // A node that refused before may have received the key since.
        let has_moved = moved_version > command.moved_version;
        command.moved_version = command.moved_version.max(moved_version);
        for id in hints.iter().map(NodeId).filter(|id| *id != own) {
            match mesh.peers.by_id(id).and_then(|key| Some((key, mesh.peers.get(key)?))) {
                Some((hinted, of)) if of.is_queryable() => {
                    if has_moved && hinted != peer {
                        lookup.refused.retain(|refused| *refused != hinted);
                    }
                    lookup.candidates.push(hinted);
                }
                Some((_, of)) if of.has_left() => {}
                Some((_, of)) => command.absent.push(of.addr().to_string()),
                None => command.absent.push(format!("node {id}")),
            }
        }
        advance(state, now, key);
    }
    query_waiting(state, now, peer);
    arm(state);
}

/// Fails a command that was not carried out, or whose reply cannot be read.
pub(in crate::node) fn failed(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    number: u32,
    hash: KeyHash,
    failure: Failure,
) {
    if !is_about(state, peer, number, |operation| operation == Operation::Execute) {
        return;
    }
    let Some((key, ..)) = take_answer(state, now, peer, number, hash, false) else { return };
    finish(state, now, key, Answer::Failed(failure));
    query_waiting(state, now, peer);
    arm(state);
}

/// Processes a NOTDONE: the deadline passed on the node, or it had no room.
pub(in crate::node) fn not_done(state: &mut State, now: Now, peer: PeerKey, number: u32, hash: KeyHash) {
    let failure = Failure::NotDone(name_of(state, peer));
    failed(state, now, peer, number, hash, failure);
}

/// Times out a command: if a node was queried, the outcome is unknown.
pub(super) fn time_out(state: &mut State, now: Now, key: LookupKey) {
    let Some(lookup) = state.mesh.lookups.get(key) else { return };
    let failure = match lookup.queried.first() {
        Some(queried) if queried.request.is_some() => Failure::Unknown(name_of(state, queried.peer)),
        Some(queried) => Failure::NotDone(name_of(state, queried.peer)),
        None => Failure::Moving,
    };
    finish(state, now, key, Answer::Failed(failure));
}

/// Ends a forwarded command. Nothing else does.
fn finish(state: &mut State, now: Now, key: LookupKey, answer: Answer) {
    let Some(lookup) = remove(state, key) else { return };
    state.stats.forwarded += 1;
    state.stats.forwarded_unknown += u64::from(matches!(answer, Answer::Failed(Failure::Unknown(_))));
    let bytes = answer.bytes();
    if let Some(waiter) = lookup.waiters.first() {
        store_part(state, *waiter, answer, bytes);
    }
    for queried in lookup.queried {
        query_waiting(state, now, queried.peer);
    }
}
