//! Looking a key up on other nodes, without waiting for any of them.
//!
//! A key that is not here is asked for where a filter claims it: of one claimant at a time, the nearest
//! first, the next when the one before has said no or has let `lookup_try_ms` pass. Peers whose filter is
//! not known may have any key; they are asked, all at once, when the claimants have said no or one of
//! them was slow. `lookup_timeout_ms` ends all of it. A link that breaks is as good as a no.
//!
//! No answer in time is a miss, not an error: what a cache does not say in time it does not have. Yet no
//! key is called missing while a linked peer's filter is unknown and that peer was not asked, unless it
//! is one that let an earlier lookup time out and has not been heard from since, or one that has let several
//! wait in vain and has still to show that it answers ([`crate::node::peer::health`]).
//!
//! What a peer asks *us* is answered in [`crate::node::lookup::serve`], from the local store only.

use crate::base::time::{Instant, Now};
use crate::filter::claim_stats::Claim;
use crate::limits::QUESTIONS_PER_STEP;
use crate::node::conn::pending::store_part;
use crate::node::ids::{ConnKey, LookupKey, PeerKey};
use crate::node::lookup::table::{
    Answer, Asked, Due, Lookup, Part, PendingRequest, QueryReason, Waiter, Wanted,
};
use crate::node::peer::link_output;
use crate::node::peer::probe;
use crate::node::peer::table::{InFlightQuery, Peer, is_believed};
use crate::node::state::{State, Timer};
use crate::store::{Expiry, KeyHash};
use crate::wire::args::Args;
use crate::wire::frame::{Body, Wants};
use std::rc::Rc;
use std::time::Duration;

/// What a peer said to a question.
#[derive(Debug)]
pub(in crate::node) enum QueryAnswer<'a> {
    /// It has the key, with this value and for so many milliseconds, or for ever.
    Value { value: &'a [u8], left_ms: Option<u64> },
    /// It has the key, but the value is longer than this node takes.
    TooLong,
    /// It has not.
    None,
}

/// How a lookup ended.
enum End<'a> {
    Found { value: &'a [u8], until: Option<Instant> },
    Nowhere,
    TimedOut,
}

/// Takes up a request for keys of which some are not here: it keeps its place among the replies of its
/// connection until all of them are answered for. The caller has made sure that there is room.
pub(in crate::node) fn begin(
    state: &mut State,
    now: Now,
    conn_key: ConnKey,
    id: &[u8],
    wanted: Wanted,
    args: Args<'_>,
) {
    close_changed(state);
    let Some(conn) = state.conns.get_mut(conn_key) else { return };
    let place = conn.replies.hold();
    let parts: Vec<Part> =
        args.iter().map(|arg| Part { key: arg.key.into(), answer: Answer::Waiting }).collect();
    let bytes = parts.iter().map(|part| part.key.len()).sum::<usize>();
    let waiting = parts.len();
    conn.lookups += waiting;
    conn.pending_bytes += bytes + waiting * Part::BYTES;
    let ask = PendingRequest {
        conn: conn_key,
        place,
        id: id.into(),
        wanted,
        parts,
        waiting,
        bytes,
        is_too_long: false,
    };
    let ask = state.mesh.lookups.pending.insert(ask);
    state.stats.gets += if wanted == Wanted::Value { waiting as u64 } else { 0 };
    let mut begun = Vec::new();
    for (part, arg) in args.iter().enumerate() {
        let key = state.keyspace.key(arg.key);
        let waiter = Waiter { ask, part };
        if let Some(item) = state.keyspace.get(now, key) {
            let is_kept = state.mesh.lookups.pending.get(ask).is_some_and(PendingRequest::keeps_values);
            let value = if is_kept { item.value.into() } else { Rc::default() };
            let answer = Answer::Found { value, until: item.expiry.map(moment_of) };
            store_part(state, waiter, answer);
        } else if !look_up(state, now, arg.key, key.hash, waiter, wanted, &mut begun) {
            store_part(state, waiter, Answer::Missing);
        }
    }
    let enough = state.mesh.lookups.asked + QUESTIONS_PER_STEP;
    for lookup in begun {
        // With many keys and many peers whose filter is not known, the rest is for steps of their own.
        if state.mesh.lookups.asked < enough {
            advance(state, now, lookup);
        } else {
            state.mesh.lookups.orphans.push_back(lookup);
        }
    }
    arm(state);
}

/// Lookups of keys that have changed here take no more waiters: those must not get an older answer.
pub(in crate::node) fn close_changed(state: &mut State) {
    let State { keyspace, mesh, .. } = state;
    keyspace.take_changes().for_each(|hash| mesh.lookups.changed(hash));
}

fn moment_of(deadline: Expiry) -> Instant {
    Instant::from_millis(deadline.millis())
}

/// Joins the lookup of a key or begins it; new ones are appended to `begun`. False if there is nobody to ask.
fn look_up(
    state: &mut State,
    now: Now,
    key: &[u8],
    hash: KeyHash,
    waiter: Waiter,
    wanted: Wanted,
    begun: &mut Vec<LookupKey>,
) -> bool {
    let may_be_elsewhere = state.mesh.may_be_elsewhere(hash.0);
    state.mesh.checks += 1;
    if !may_be_elsewhere {
        return false;
    }
    let candidates = candidates(state);
    // Who has said no may have got the key since, and so may a peer that did not claim it then.
    if let Some(open) = state.mesh.lookups.find_open(key, hash, wanted)
        && let Some(lookup) = state.mesh.lookups.slots.get_mut(open)
        && lookup.refused.is_empty()
        && candidates.iter().all(|peer| lookup.has_asked(*peer) || lookup.candidates.contains(peer))
    {
        lookup.waiters.push(waiter);
        state.stats.lookups_coalesced += 1;
        return true;
    }
    let mesh = &state.config.mesh;
    let until = now.mono.after(Duration::from_millis(mesh.lookup_timeout_ms.into()));
    let mut lookup = Lookup::new(key, hash, wanted, waiter, until);
    lookup.candidates = candidates;
    let lookup = state.mesh.lookups.insert(lookup);
    state.stats.lookups += 1;
    begun.push(lookup);
    true
}

/// The peers to be asked among those that were just found to claim a key, the nearest last.
fn candidates(state: &mut State) -> Vec<PeerKey> {
    let mesh = &mut state.mesh;
    let mut found = Vec::new();
    for filter in mesh.claims.drain(..) {
        let Some(key) = mesh.peers.by_filter(filter) else { continue };
        let Some(peer) = mesh.peers.get_mut(key).filter(|peer| peer.is_askable()) else { continue };
        if is_believed(peer, &mesh.filters, mesh.checks) {
            found.push((peer.distance(), key));
        } else {
            state.stats.claims_ignored += 1;
        }
    }
    found.sort_by_key(|&(distance, _)| std::cmp::Reverse(distance));
    found.into_iter().map(|(_, key)| key).collect()
}

/// Asks whoever is next, and ends the lookup if there is nobody left whose answer could change it.
fn advance(state: &mut State, now: Now, key: LookupKey) {
    while let Some(lookup) = state.mesh.lookups.slots.get_mut(key) {
        let Some(peer) = lookup.candidates.pop() else {
            ask_the_unknown(state, now, key);
            break;
        };
        let hash = lookup.hash.0;
        if !lookup.has_asked(peer) && state.mesh.peers.get(peer).is_some_and(Peer::is_askable) {
            // One whose link was lost may have been asked because its filter was not known.
            let because =
                if state.mesh.claims(peer, hash) { QueryReason::Claimed } else { QueryReason::Unknown };
            ask(state, now, key, peer, because);
            let at = now.mono.after(Duration::from_millis(state.config.mesh.lookup_try_ms.into()));
            state.mesh.lookups.try_at(key, at);
            return;
        }
    }
    if state.mesh.lookups.slots.get(key).is_some_and(|lookup| lookup.asked.is_empty()) {
        finish(state, now, key, &End::Nowhere);
    }
}

/// Asks all linked peers whose filter is not known, those excepted that were asked already. Whose filter has
/// come in doubt since, or whose link is new, is asked the next time.
fn ask_the_unknown(state: &mut State, now: Now, key: LookupKey) {
    let mesh = &state.mesh;
    let Some(lookup) = mesh.lookups.slots.get(key) else { return };
    let unknown = mesh.filters.unknown().iter().filter_map(|filter| mesh.peers.by_filter(*filter));
    let askable =
        |peer: &PeerKey| mesh.peers.get(*peer).is_some_and(Peer::is_askable) && !lookup.has_asked(*peer);
    let unknown: Vec<PeerKey> = unknown.filter(askable).collect();
    for peer in unknown {
        ask(state, now, key, peer, QueryReason::Unknown);
    }
}

/// Puts a question to a peer, or in its queue if too many are on their way already.
fn ask(state: &mut State, now: Now, key: LookupKey, peer_key: PeerKey, because: QueryReason) {
    let State { mesh, config, stats, .. } = state;
    let Some(lookup) = mesh.lookups.slots.get_mut(key) else { return };
    let Some(peer) = mesh.peers.get_mut(peer_key) else { return };
    mesh.lookups.asked += 1;
    if peer.queries.len() >= config.limits.lookups_per_peer as usize {
        peer.queue.push_back(key);
        lookup.asked.push(Asked { peer: peer_key, request: None, because });
        return;
    }
    let request = peer.next_request();
    peer.queries.insert(request, InFlightQuery { lookup: key, asked_at: now.mono });
    lookup.asked.retain(|asked| asked.peer != peer_key);
    lookup.asked.push(Asked { peer: peer_key, request: Some(request), because });
    stats.queries += 1;
    let wants = match lookup.wanted {
        Wanted::Value => Wants::Value,
        Wanted::Life => Wants::Life,
    };
    // Out of the lookup while the frame is written, since that changes the state it lies in.
    let text = std::mem::take(&mut lookup.key);
    link_output::send_answer(state, now, peer_key, request, &Body::Get { key: &text, wants });
    if let Some(lookup) = state.mesh.lookups.slots.get_mut(key) {
        lookup.key = text;
    }
}

/// Takes in a peer's answer. One that was not asked for, or is about another key, changes nothing.
pub(in crate::node) fn answered(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    request: u32,
    hash: KeyHash,
    said: &QueryAnswer<'_>,
) {
    let State { mesh, stats, .. } = state;
    let Some(peer) = mesh.peers.get_mut(peer_key) else { return };
    let Some(question) = peer.queries.get(&request).copied() else {
        if !probe::answered(state, now, peer_key, request, hash) {
            state.stats.answers_late += 1;
        }
        return;
    };
    let Some(lookup) = mesh.lookups.slots.get_mut(question.lookup).filter(|lookup| lookup.hash == hash)
    else {
        stats.answers_mismatched += 1;
        return;
    };
    if peer.queries.first_key_value().is_some_and(|(oldest, _)| *oldest == request) {
        peer.credit.answered_in_turn();
    }
    peer.queries.remove(&request);
    peer.measured(now.mono.since(question.asked_at));
    let because = lookup.asked.iter().find(|asked| asked.peer == peer_key).map(|asked| asked.because);
    lookup.asked.retain(|asked| asked.peer != peer_key);
    if !matches!(said, QueryAnswer::Value { .. }) {
        lookup.refused.push(peer_key);
    }
    stats.query_hits += u64::from(!matches!(said, QueryAnswer::None));
    stats.query_misses += u64::from(matches!(said, QueryAnswer::None));
    if because == Some(QueryReason::Claimed) {
        let claim = match said {
            QueryAnswer::Value { .. } | QueryAnswer::TooLong => Claim::TrueHit,
            QueryAnswer::None if mesh.filters.claims(peer.filter, hash.0) => Claim::Collision,
            QueryAnswer::None => Claim::Stale,
        };
        stats.query_false_positives += u64::from(claim != Claim::TrueHit);
        peer.account(&mesh.filters, mesh.checks, 1);
        peer.truth.claimed(hash.0, claim);
    }
    match *said {
        QueryAnswer::Value { value, left_ms } => {
            // Its holder counted from some moment after the question: from there on it cannot be too late.
            let until = left_ms.map(|left| question.asked_at.after(Duration::from_millis(left)));
            finish(state, now, question.lookup, &End::Found { value, until });
        }
        QueryAnswer::None | QueryAnswer::TooLong => {
            if state.mesh.lookups.slots.get(question.lookup).is_some_and(|lookup| lookup.asked.is_empty()) {
                advance(state, now, question.lookup);
            }
        }
    }
    ask_queued(state, now, peer_key);
    arm(state);
}

/// A peer has answered without naming the key, since that is longer than it takes; or with a value that is
/// longer than this node takes. To clients both are a no.
pub(in crate::node) fn unreadable(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    request: u32,
    said: &QueryAnswer<'_>,
) {
    let question = state.mesh.peers.get(peer_key).and_then(|peer| peer.queries.get(&request));
    let lookup = question.and_then(|question| state.mesh.lookups.slots.get(question.lookup));
    match lookup.map(|lookup| lookup.hash) {
        Some(hash) => answered(state, now, peer_key, request, hash, said),
        None => state.stats.answers_late += 1,
    }
}

/// Gives the free places among a peer's questions to those that wait for one. Who has just let a lookup time out
/// is not asked more: those go on elsewhere, in steps.
fn ask_queued(state: &mut State, now: Now, peer_key: PeerKey) {
    if state.mesh.peers.get(peer_key).is_some_and(|peer| !peer.is_askable() && !peer.queue.is_empty()) {
        let silent = &mut state.mesh.lookups.silent;
        if !silent.contains(&peer_key) {
            silent.push_back(peer_key);
        }
        return;
    }
    let places_max = state.config.limits.lookups_per_peer as usize;
    while let Some(peer) = state.mesh.peers.get_mut(peer_key).filter(|peer| peer.queries.len() < places_max)
        && let Some(key) = peer.queue.pop_front()
    {
        let lookup = state.mesh.lookups.slots.get(key);
        let waits = lookup.and_then(|lookup| {
            lookup.asked.iter().find(|asked| asked.peer == peer_key && asked.request.is_none())
        });
        if let Some(because) = waits.map(|asked| asked.because) {
            ask(state, now, key, peer_key, because);
        }
    }
}

/// Takes up to `budget` lookups out of the queue of a peer that is not asked more, if that is still so.
fn dismiss_queued(state: &mut State, now: Now, budget: u32) {
    let State { mesh, .. } = state;
    let Some(peer_key) = mesh.lookups.silent.pop_front() else { return };
    let Some(peer) = mesh.peers.get_mut(peer_key) else { return };
    if peer.is_askable() {
        return ask_queued(state, now, peer_key);
    }
    let some = peer.queue.len().min(budget as usize);
    if some < peer.queue.len() {
        mesh.lookups.silent.push_back(peer_key);
    }
    for key in peer.queue.drain(..some) {
        let Some(lookup) = mesh.lookups.slots.get_mut(key) else { continue };
        let waiting = lookup.asked.len();
        lookup.asked.retain(|asked| asked.peer != peer_key || asked.request.is_some());
        if lookup.asked.len() < waiting {
            mesh.lookups.orphans.push_back(key);
        }
    }
}

/// A link has broken: what was asked through it is not answered any more. Those lookups go on elsewhere by
/// [`fail_over`], soon: in steps, since it can be a lot.
pub(in crate::node) fn link_lost(state: &mut State, peer_key: PeerKey) {
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
    let queries = std::mem::take(&mut peer.queries);
    let queue = std::mem::take(&mut peer.queue);
    peer.credit.link_lost();
    peer.owed.clear();
    peer.deferred_bytes = 0;
    state.stats.queries_lost += queries.len() as u64;
    for key in queries.into_values().map(|question| question.lookup).chain(queue) {
        let Some(lookup) = state.mesh.lookups.slots.get_mut(key) else { continue };
        lookup.asked.retain(|asked| asked.peer != peer_key);
        // If only the link was another's, it is asked again; if the peer is gone, it is passed over.
        lookup.candidates.push(peer_key);
        state.mesh.lookups.orphans.push_back(key);
    }
}

/// Goes on with up to `budget` lookups that have nobody to wait for, and with fewer if that makes many questions.
pub(in crate::node) fn fail_over(state: &mut State, now: Now, budget: u32) {
    dismiss_queued(state, now, budget);
    if state.mesh.lookups.orphans.is_empty() {
        return;
    }
    let enough = state.mesh.lookups.asked + QUESTIONS_PER_STEP;
    for _ in 0..budget {
        if state.mesh.lookups.asked >= enough {
            break;
        }
        let Some(key) = state.mesh.lookups.orphans.pop_front() else { break };
        if state.mesh.lookups.slots.get(key).is_some_and(|lookup| lookup.asked.is_empty()) {
            advance(state, now, key);
        }
    }
    arm(state);
}

/// Looks after up to `budget` lookups whose time has come, and after fewer if that makes many questions: the
/// next candidate's turn, or the end.
pub(in crate::node) fn run_due(state: &mut State, now: Now, deadline: u64, budget: u32) {
    if state.mesh.lookups.timer_at != Some(deadline) {
        return;
    }
    state.mesh.lookups.timer_at = None;
    let enough = state.mesh.lookups.asked + QUESTIONS_PER_STEP;
    for _ in 0..budget {
        if state.mesh.lookups.asked >= enough {
            break;
        }
        match state.mesh.lookups.pop_due(now.mono) {
            Some((Due::Try, key)) => try_next(state, now, key),
            Some((Due::End, key)) => time_out(state, now, key),
            None => break,
        }
    }
    arm(state);
}

/// The one asked last is slow: the next candidate is asked too, and nobody's filter stays unasked.
fn try_next(state: &mut State, now: Now, key: LookupKey) {
    ask_the_unknown(state, now, key);
    if state.mesh.lookups.slots.get(key).is_some_and(|lookup| !lookup.candidates.is_empty()) {
        advance(state, now, key);
    }
}

fn time_out(state: &mut State, now: Now, key: LookupKey) {
    let Some(lookup) = state.mesh.lookups.slots.get(key) else { return };
    let enough = Duration::from_millis(state.config.mesh.lookup_try_ms.into());
    for asked in &lookup.asked {
        let Some(peer) = state.mesh.peers.get_mut(asked.peer) else { continue };
        let question = asked.request.and_then(|request| peer.queries.get(&request).copied());
        let Some(InFlightQuery { asked_at, .. }) = question else { continue };
        peer.is_suspect |= peer.last_heard <= asked_at;
        // Who was asked just before the end has not had its time.
        if now.mono.since(asked_at) >= enough {
            peer.credit.waited_in_vain(now.mono, asked_at);
        }
    }
    finish(state, now, key, &End::TimedOut);
}

/// The only end of a lookup: those who wait for it get their answer, questions still on their way are
/// forgotten.
fn finish(state: &mut State, now: Now, key: LookupKey, end: &End<'_>) {
    let Some(lookup) = state.mesh.lookups.remove(key) else { return };
    match end {
        End::Found { .. } => state.stats.lookup_hits += 1,
        End::Nowhere => state.stats.lookup_misses += 1,
        End::TimedOut => state.stats.lookup_timeouts += 1,
    }
    for asked in &lookup.asked {
        let Some(peer) = state.mesh.peers.get_mut(asked.peer) else { continue };
        if asked.request.is_some_and(|request| peer.queries.remove(&request).is_some()) {
            state.stats.queries_abandoned += 1;
        }
    }
    let found = match end {
        End::Found { value, until } => Some((Rc::<[u8]>::from(*value), *until)),
        End::Nowhere | End::TimedOut => None,
    };
    for waiter in lookup.waiters {
        let Some(is_kept) = state.mesh.lookups.pending.get(waiter.ask).map(PendingRequest::keeps_values)
        else {
            continue;
        };
        let answer = found.as_ref().map_or(Answer::Missing, |(value, until)| {
            let value = if is_kept { Rc::clone(value) } else { Rc::default() };
            Answer::Found { value, until: *until }
        });
        store_part(state, waiter, answer);
    }
    for asked in lookup.asked {
        ask_queued(state, now, asked.peer);
    }
}

/// Makes sure that a timer fires when the next lookup has something due.
fn arm(state: &mut State) {
    let lookups = &mut state.mesh.lookups;
    let Some(at) = lookups.next_due().map(Instant::millis_ceil) else { return };
    if lookups.timer_at.is_none_or(|armed| armed > at) {
        lookups.timer_at = Some(at);
        state.timers.insert(at, Timer::Lookups);
    }
}
