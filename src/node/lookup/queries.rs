//! The queries between this node and one peer: own queries in flight or waiting for a slot, and deferred queries of
//! the peer, whose answers wait for room in the link.

use crate::base::time::Instant;
use crate::node::ids::LookupKey;
use crate::store::KeyHash;
use crate::wire::frame::Wanted;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A query in flight.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct InFlightQuery {
    /// The lookup that waits for the answer; `None`: a probe of the circuit breaker.
    pub(in crate::node) lookup: Option<LookupKey>,
    pub(super) hash: KeyHash,
    pub(super) sent_at: Instant,
}

/// The own queries to one peer.
#[derive(Debug, Default)]
pub(in crate::node) struct Queries {
    last_request: u32,
    in_flight: BTreeMap<u32, InFlightQuery>,
    /// Lookups that wait for a slot among the queries in flight.
    waiting: VecDeque<LookupKey>,
}

impl Queries {
    /// Adds a query and returns its unused number for the frame.
    pub(in crate::node) fn begin(&mut self, query: InFlightQuery) -> u32 {
        loop {
            self.last_request = self.last_request.wrapping_add(1);
            if !self.in_flight.contains_key(&self.last_request) {
                self.in_flight.insert(self.last_request, query);
                return self.last_request;
            }
        }
    }

    /// The query with this number, if it is in flight.
    pub(in crate::node) fn get(&self, request: u32) -> Option<InFlightQuery> {
        self.in_flight.get(&request).copied()
    }

    /// Whether no query in flight is older. Numbers wrap around after 2^32 queries; then one answer may be misjudged.
    pub(in crate::node) fn is_oldest(&self, request: u32) -> bool {
        self.in_flight.first_key_value().is_some_and(|(oldest, _)| *oldest == request)
    }

    /// Ends a query; returns whether it was in flight.
    pub(in crate::node) fn end(&mut self, request: u32) -> bool {
        self.in_flight.remove(&request).is_some()
    }

    /// The probe in flight, with its number.
    pub(in crate::node) fn probe(&self) -> Option<(u32, InFlightQuery)> {
        let mut probes = self.in_flight.iter().filter(|(_, query)| query.lookup.is_none());
        probes.next().map(|(request, query)| (*request, *query))
    }

    /// Queries in flight.
    pub(in crate::node) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Queries in flight, in the order of their numbers.
    pub(in crate::node) fn iter(&self) -> impl Iterator<Item = InFlightQuery> {
        self.in_flight.values().copied()
    }

    /// Queries in flight, and lookups that wait for a slot.
    pub(in crate::node) fn backlog(&self) -> usize {
        self.in_flight.len() + self.waiting.len()
    }

    /// Queues a lookup for a slot.
    pub(in crate::node) fn wait(&mut self, lookup: LookupKey) {
        self.waiting.push_back(lookup);
    }

    /// The first queued lookup, which may have ended.
    pub(in crate::node) fn first_waiting(&self) -> Option<LookupKey> {
        self.waiting.front().copied()
    }

    /// Removes the first queued lookup.
    pub(in crate::node) fn dequeue(&mut self) {
        self.waiting.pop_front();
    }

    /// Takes all queued lookups.
    pub(in crate::node) fn take_waiting(&mut self) -> VecDeque<LookupKey> {
        std::mem::take(&mut self.waiting)
    }

    /// Takes all queries in flight, after their link was lost.
    pub(in crate::node) fn take_in_flight(&mut self) -> BTreeMap<u32, InFlightQuery> {
        std::mem::take(&mut self.in_flight)
    }
}

/// A query of a peer whose answer waits for room in the link.
#[derive(Debug)]
pub(in crate::node) struct DeferredQuery {
    pub(super) request: u32,
    pub(super) wanted: Wanted,
    pub(super) key: Box<[u8]>,
    received_at: Instant,
}

/// The deferred queries of one peer, oldest first, with the bytes of their keys.
#[derive(Debug, Default)]
pub(in crate::node) struct DeferredQueries {
    queue: VecDeque<DeferredQuery>,
    bytes: usize,
}

impl DeferredQueries {
    /// The number of deferred queries.
    pub(in crate::node) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is none.
    pub(in crate::node) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes of their keys.
    pub(in crate::node) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory.
    pub(in crate::node) fn held(&self) -> usize {
        self.bytes + self.queue.capacity() * size_of::<DeferredQuery>()
    }

    /// Defers a query.
    pub(in crate::node) fn push(&mut self, now: Instant, request: u32, wanted: Wanted, key: &[u8]) {
        self.bytes += key.len();
        self.queue.push_back(DeferredQuery { request, wanted, key: key.into(), received_at: now });
    }

    /// Takes the oldest.
    pub(in crate::node) fn pop(&mut self) -> Option<DeferredQuery> {
        let query = self.queue.pop_front()?;
        self.bytes -= query.key.len();
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(query)
    }

    /// Drops queries received at least `timeout` ago; returns their number.
    pub(in crate::node) fn drop_older(&mut self, now: Instant, timeout: Duration) -> u64 {
        let mut dropped = 0;
        while self.queue.front().is_some_and(|query| now.since(query.received_at) >= timeout) {
            dropped += u64::from(self.pop().is_some());
        }
        dropped
    }

    /// Bytes of their keys, counted one by one.
    pub(in crate::node) fn count_bytes(&self) -> usize {
        self.queue.iter().map(|query| query.key.len()).sum()
    }
}
