//! Lookups in flight.
//!
//! A *lookup* queries peers for one key. Equal lookups are joined: one lookup has up to [`WAITERS_PER_LOOKUP_MAX`]
//! waiters, which are keys of pending requests ([`crate::node::lookup::pending_request`]). It cannot be joined after
//! the key has changed on this node. [`crate::node::lookup::remote`] decides which peers are queried, and when.

use crate::base::slots::Slots;
use crate::base::time::Instant;
use crate::base::wheel::Wheel;
use crate::limits::WAITERS_PER_LOOKUP_MAX;
use crate::node::alarm::Alarm;
use crate::node::ids::{LookupKey, LookupTag, PeerKey};
use crate::node::lookup::forwarded::{Broadcast, ForwardedCommand};
use crate::node::lookup::operation::Operation;
use crate::node::lookup::pending_request::Waiter;
use crate::store::{HashedKey, KeyHash, Version};
use crate::wire::frame::{FRAGMENT_BYTES_MAX, KeyState, Wanted};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An unanswered query of a lookup.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Queried {
    pub(super) peer: PeerKey,
    /// The number of the query; `None` while it is queued for a slot or for room in the link.
    pub(super) request: Option<u32>,
    /// When the query was sent or queued.
    pub(super) at: Instant,
    pub(super) reason: QueryReason,
}

/// The reason for querying a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum QueryReason {
    /// Its filter claims the key.
    Claimed,
    /// Its filter is unknown.
    Unknown,
    /// It is the home node of the key.
    HomeNode,
}

/// The data of an operation other than a lookup.
#[derive(Debug)]
pub(in crate::node) enum Task {
    None,
    Forward(Box<ForwardedCommand>),
    Broadcast(Box<Broadcast>),
}

/// A lookup of one key.
#[derive(Debug)]
pub(in crate::node) struct Lookup {
    pub(super) key: Box<[u8]>,
    pub(super) hash: KeyHash,
    pub(super) operation: Operation,
    pub(super) waiters: Vec<Waiter>,
    /// Claimants that were not queried, the nearest last.
    pub(super) candidates: Vec<PeerKey>,
    /// Unanswered queries.
    pub(super) queried: Vec<Queried>,
    /// Peers that do not hold the key, or hold an older value than [`Lookup::floor`].
    pub(super) refused: Vec<PeerKey>,
    /// Peers that sent a version of the key while their answer was outstanding: they are queried again.
    renewed: Vec<PeerKey>,
    /// The lowest version of an acceptable value.
    pub(super) floor: Version,
    /// Repeated queries because of hints.
    pub(super) hops: u32,
    /// Peers whose link broke before they answered a query that is not repeatable.
    pub(super) lost: Vec<PeerKey>,
    /// The home node, if it was queried to create the keys.
    pub(super) creates_at: Option<PeerKey>,
    /// The peers with unknown filters were queried. A request that joins later causes queries to those that have
    /// become unknown since.
    pub(super) has_queried_unknown: bool,
    /// The data of its operation.
    pub(super) task: Task,
    /// The time of its timeout.
    pub(super) ends_at: Instant,
    /// The time at which the next candidate is queried, if an answer is late.
    tries_at: Option<Instant>,
    /// Bytes of a long answer that had arrived when the timeout was put off last.
    received: usize,
}

impl Lookup {
    /// A lookup without queries.
    pub(super) fn new(
        key: &[u8],
        hash: KeyHash,
        operation: Operation,
        waiter: Waiter,
        ends_at: Instant,
        floor: Version,
    ) -> Self {
        Self {
            key: key.into(),
            hash,
            operation,
            waiters: vec![waiter],
            candidates: Vec::new(),
            queried: Vec::new(),
            refused: Vec::new(),
            renewed: Vec::new(),
            floor,
            hops: 0,
            lost: Vec::new(),
            creates_at: None,
            has_queried_unknown: false,
            task: Task::None,
            ends_at,
            tries_at: None,
            received: 0,
        }
    }

    /// Its waiter, if its operation has only one.
    pub(in crate::node) fn waiter(&self) -> Option<Waiter> {
        self.waiters.first().copied()
    }

    /// Takes the data of its operation.
    pub(in crate::node) const fn take_task(&mut self) -> Task {
        std::mem::replace(&mut self.task, Task::None)
    }

    /// Whether a peer was queried.
    pub(super) fn has_queried(&self, peer: PeerKey) -> bool {
        self.refused.contains(&peer) || self.is_queried(peer)
    }

    /// Whether an answer of a peer is outstanding.
    pub(super) fn is_queried(&self, peer: PeerKey) -> bool {
        self.queried.iter().any(|queried| queried.peer == peer)
    }

    /// Notes a query. Most lookups have one.
    pub(super) fn note_query(&mut self, query: Queried) {
        self.queried.reserve_exact(1);
        self.queried.push(query);
    }

    /// Notes that a peer does not hold the key, or only an older value.
    pub(super) fn refuse(&mut self, peer: PeerKey) {
        match self.renewed.iter().position(|renewed| *renewed == peer) {
            Some(at) => {
                self.renewed.swap_remove(at);
                self.candidates.push(peer);
            }
            None => self.refused.push(peer),
        }
    }

    /// Makes a peer that holds a version of the key a candidate, also if it was queried before.
    fn renew(&mut self, peer: PeerKey) {
        self.refused.retain(|refused| *refused != peer);
        if self.is_queried(peer) {
            if !self.renewed.contains(&peer) {
                self.renewed.push(peer);
            }
        } else if !self.candidates.contains(&peer) {
            self.candidates.push(peer);
        }
    }
}

/// The kind of a due entry; at the same time in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::node) enum Due {
    /// The next candidate is queried too.
    Try,
    /// The lookup times out.
    End,
}

/// All lookups.
#[derive(Debug, Default)]
pub(in crate::node) struct Lookups {
    slots: Slots<LookupTag, Lookup>,
    /// Lookups that continue in a later step, with the peer that they no longer wait for, if any.
    postponed: VecDeque<(LookupKey, Option<PeerKey>)>,
    /// Queries made so far, including queued ones: they bound the work per call.
    queries: u64,
    /// Lookups that may be joined.
    open: BTreeMap<(KeyHash, Operation), LookupKey>,
    /// All lookups, by the bits of their keys.
    by_hash: BTreeSet<(KeyHash, u64)>,
    /// Due tries and timeouts: at most two entries per lookup, removed with it, by the bits of its key.
    due: BTreeSet<(Instant, Due, u64)>,
    alarm: Alarm,
}

impl Lookups {
    /// Lookups in flight.
    pub(in crate::node) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether `keys` more lookups may begin when `lookups_max` are allowed.
    pub(in crate::node) fn has_room(&self, keys: usize, lookups_max: usize) -> bool {
        self.slots.len() + keys <= lookups_max
    }

    pub(in crate::node) fn get(&self, key: LookupKey) -> Option<&Lookup> {
        self.slots.get(key)
    }

    pub(in crate::node) fn get_mut(&mut self, key: LookupKey) -> Option<&mut Lookup> {
        self.slots.get_mut(key)
    }

    /// Queries made so far.
    pub(in crate::node) const fn queries(&self) -> u64 {
        self.queries
    }

    /// Queries made since there were `before`.
    pub(in crate::node) fn queries_since(&self, before: u64) -> usize {
        usize::try_from(self.queries - before).unwrap_or(usize::MAX)
    }

    /// Counts a query.
    pub(in crate::node) const fn count_query(&mut self) {
        self.queries += 1;
    }

    /// A lookup in flight that may be joined for this operation on this key. O(log lookups).
    pub(in crate::node) fn find_open(
        &self,
        key: &[u8],
        hash: KeyHash,
        operation: Operation,
    ) -> Option<LookupKey> {
        // The answer with a value has the TTL too.
        let candidates = [Operation::Lookup(Wanted::Value), operation];
        let open = candidates.iter().filter_map(|operation| self.open.get(&(hash, *operation)).copied());
        let takes = |lookup: &Lookup| *lookup.key == *key && lookup.waiters.len() < WAITERS_PER_LOOKUP_MAX;
        open.into_iter().find(|found| self.slots.get(*found).is_some_and(takes))
    }

    /// Adds a lookup, which may be joined if its operation may.
    pub(in crate::node) fn insert(&mut self, lookup: Lookup) -> LookupKey {
        let id = (lookup.hash, lookup.operation);
        let (ends_at, is_joined) = (lookup.ends_at, lookup.operation.policy().is_joined);
        let key = self.slots.insert(lookup);
        self.due.insert((ends_at, Due::End, key.to_bits()));
        self.by_hash.insert((id.0, key.to_bits()));
        if is_joined {
            self.open.insert(id, key);
        }
        key
    }

    /// Removes a lookup with its due entries.
    pub(in crate::node) fn remove(&mut self, key: LookupKey) -> Option<Lookup> {
        let lookup = self.slots.remove(key)?;
        let id = (lookup.hash, lookup.operation);
        if self.open.get(&id) == Some(&key) {
            self.open.remove(&id);
        }
        self.by_hash.remove(&(lookup.hash, key.to_bits()));
        self.due.remove(&(lookup.ends_at, Due::End, key.to_bits()));
        if let Some(at) = lookup.tries_at {
            self.due.remove(&(at, Due::Try, key.to_bits()));
        }
        self.slots.shrink();
        Some(lookup)
    }

    /// The lookups of keys with this hash. O(log lookups).
    pub(in crate::node) fn with_hash(&self, hash: KeyHash) -> impl Iterator<Item = LookupKey> {
        let keys = self.by_hash.range((hash, 0)..=(hash, u64::MAX));
        keys.filter_map(|(_, bits)| LookupKey::from_bits(*bits))
    }

    /// Whether a lookup of a key with this hash has a waiter for which `is_wanted` holds. O(log lookups + waiters).
    pub(in crate::node) fn has_waiter(&self, hash: KeyHash, is_wanted: impl Fn(Waiter) -> bool) -> bool {
        let mut lookups = self.with_hash(hash).filter_map(|key| self.get(key));
        lookups.any(|lookup| lookup.waiters.iter().any(|waiter| is_wanted(*waiter)))
    }

    /// Raises the floor of the lookups of a key to a version sent by a peer, which becomes a candidate if it holds
    /// it.
    pub(in crate::node) fn raise_floor(
        &mut self,
        key: HashedKey<'_>,
        version: Version,
        peer: PeerKey,
        state: KeyState,
    ) {
        for lookup in self.by_hash.range((key.hash, 0)..=(key.hash, u64::MAX)) {
            let lookup = LookupKey::from_bits(lookup.1).and_then(|lookup| self.slots.get_mut(lookup));
            let Some(lookup) = lookup.filter(|lookup| *lookup.key == *key.bytes) else { continue };
            lookup.floor = lookup.floor.max(version);
            if state == KeyState::Held {
                lookup.renew(peer);
            }
        }
    }

    /// Raises the floors of all lookups above a version.
    pub(in crate::node) fn raise_all_floors(&mut self, version: Version) {
        self.slots.values_mut().for_each(|lookup| lookup.floor = lookup.floor.max(version));
    }

    /// Closes the lookups of a changed key, so that they cannot be joined.
    pub(in crate::node) fn close(&mut self, hash: KeyHash) {
        if !self.open.is_empty() {
            for wanted in [Wanted::Value, Wanted::Ttl] {
                self.open.remove(&(hash, Operation::Lookup(wanted)));
            }
        }
    }

    /// The same for all lookups.
    pub(in crate::node) fn close_all(&mut self) {
        self.open.clear();
    }

    /// Postpones a lookup to a later step.
    pub(in crate::node) fn postpone(&mut self, key: LookupKey) {
        self.postponed.push_back((key, None));
    }

    /// Postpones lookups that were queued for a slot of `peer`, which is no longer queried.
    pub(in crate::node) fn postpone_all(&mut self, waiting: VecDeque<LookupKey>, peer: PeerKey) {
        self.postponed.extend(waiting.into_iter().map(|key| (key, Some(peer))));
    }

    /// Postponed lookups.
    pub(in crate::node) fn backlog(&self) -> usize {
        self.postponed.len()
    }

    /// Takes the next postponed lookup.
    pub(in crate::node) fn next_postponed(&mut self) -> Option<(LookupKey, Option<PeerKey>)> {
        self.postponed.pop_front()
    }

    /// Sets the time at which the next candidate is queried. O(log lookups).
    pub(in crate::node) fn try_at(&mut self, key: LookupKey, at: Instant) {
        let Some(lookup) = self.slots.get_mut(key) else { return };
        if let Some(before) = lookup.tries_at.replace(at) {
            self.due.remove(&(before, Due::Try, key.to_bits()));
        }
        self.due.insert((at, Due::Try, key.to_bits()));
    }

    /// Puts off the timeout of a lookup, which is due, if a fragment more of a long answer has arrived since it was put
    /// off last: `received` bytes so far. Returns whether it did.
    pub(super) fn put_off(&mut self, key: LookupKey, received: usize, ends_at: Instant) -> bool {
        let Some(lookup) = self.slots.get_mut(key) else { return false };
        if received < lookup.received + FRAGMENT_BYTES_MAX {
            return false;
        }
        (lookup.received, lookup.ends_at) = (received, ends_at);
        self.due.insert((ends_at, Due::End, key.to_bits()));
        true
    }

    /// Takes the earliest due entry, if any. O(log lookups).
    pub(in crate::node) fn pop_due(&mut self, now: Instant) -> Option<(Due, LookupKey)> {
        let (at, due, bits) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        let key = LookupKey::from_bits(bits)?;
        if let Some(lookup) = self.slots.get_mut(key).filter(|_| due == Due::Try) {
            lookup.tries_at = None;
        }
        Some((due, key))
    }

    /// Arms the timer for the next due entry, not before `earliest`.
    pub(in crate::node) fn arm<T: Copy>(&mut self, timers: &mut Wheel<T>, earliest: Instant, timer: T) {
        if let Some((at, ..)) = self.due.first() {
            self.alarm.arm(timers, (*at).max(earliest), timer);
        }
    }

    /// Whether the timer that fired is the live one.
    pub(in crate::node) fn fired(&mut self, deadline: u64) -> bool {
        self.alarm.fired(deadline)
    }

    /// Whether a timer with this deadline is the live one.
    pub(in crate::node) fn is_live(&self, deadline: u64) -> bool {
        self.alarm.is_live(deadline)
    }
}

/// For the audit.
impl Lookups {
    /// Whether the index by hash has exactly the lookups.
    pub(in crate::node) fn hashes_add_up(&self) -> bool {
        let is_found =
            |(key, lookup): (LookupKey, &Lookup)| self.by_hash.contains(&(lookup.hash, key.to_bits()));
        self.by_hash.len() == self.slots.len() && self.slots.iter().all(is_found)
    }

    /// Whether each lookup has due entries, and no ended one has any.
    pub(in crate::node) fn due_adds_up(&self) -> bool {
        let tries = self.slots.iter().filter(|(_, lookup)| lookup.tries_at.is_some()).count();
        self.due.len() == self.slots.len() + tries
    }

    /// Lookups in flight that look a key up.
    pub(in crate::node) fn looking_up(&self) -> usize {
        self.slots.iter().filter(|(_, lookup)| matches!(lookup.operation, Operation::Lookup(_))).count()
    }

    /// Waiters of all lookups.
    pub(in crate::node) fn waiters(&self) -> usize {
        self.slots.iter().map(|(_, lookup)| lookup.waiters.len()).sum()
    }

    /// Queries in flight of all lookups.
    pub(in crate::node) fn in_flight(&self) -> usize {
        let queried = self.slots.iter().flat_map(|(_, lookup)| &lookup.queried);
        queried.filter(|queried| queried.request.is_some()).count()
    }
}
