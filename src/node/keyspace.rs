//! The one write path: the only code that changes the store.
//!
//! A write takes its version from the hybrid clock, changes the store, enters a new key in the own filter
//! and its changelog, is counted, and is listed for the consumers of changes: open lookups of the key, which
//! must not be joined any more. Commands, peers and due work all write through here, so none of them can
//! forget a step.
//!
//! [`Keyspace::keep_up`] follows the writes of a command. It does the expiry and filter work that those
//! writes caused, so that the backlog is bounded by what the writers pay.

use crate::base::shared_bytes::SharedBytes;
use crate::base::time::{Instant, Now};
use crate::filter::bloom::Bloom;
use crate::filter::changelog::Changelog;
use crate::limits::{EvictionPolicy, Limits, TIMERS_PER_STEP, TIMERS_PER_WRITE};
use crate::node::digest::own_filter::OwnFilter;
use crate::node::hybrid_clock::HybridClock;
use crate::store::{
    Eviction, Expiry, Full, HashSecret, HashedKey, Item, KeyHash, RemoveOutcome, SetOutcome, Store, Version,
};
use std::vec::Drain;

/// The keys of this node; see the module.
#[derive(Debug)]
pub(in crate::node) struct Keyspace {
    store: Store,
    own_filter: OwnFilter,
    clock: HybridClock,
    /// Nodes that are linked. Without any there is no consumer of changes.
    peers: usize,
    /// Keys changed since [`Keyspace::take_changes`], in order.
    changes: Vec<KeyHash>,
    /// All keys were removed since [`Keyspace::take_clearing`].
    has_changed_all: bool,
    /// Writes that left expiry work, since [`Keyspace::keep_up`].
    unpaid: u32,
    sets: u64,
    deletes: u64,
}

impl Keyspace {
    /// No keys. Keys are hashed with `secret`; items, index, timers and own filter take at most `memory_max`
    /// bytes (0: no limit).
    pub(in crate::node) fn new(now: Now, secret: HashSecret, limits: &Limits) -> Self {
        let own_filter = OwnFilter::new(now.wall_ms);
        let mut store = Store::new(secret, limits.memory_max);
        store.set_eviction(eviction(limits));
        store.reserve(own_filter.filter().bytes());
        Self {
            store,
            own_filter,
            clock: HybridClock::default(),
            peers: 0,
            changes: Vec::new(),
            has_changed_all: false,
            unpaid: 0,
            sets: 0,
            deletes: 0,
        }
    }
}

/// Reading.
impl Keyspace {
    /// A key with its hash, which index, filters and frames share.
    #[inline]
    pub(in crate::node) fn key<'k>(&self, bytes: &'k [u8]) -> HashedKey<'k> {
        self.store.key(bytes)
    }

    /// The item of a key, unless there is none or it has expired. Counts its use for eviction.
    #[inline]
    pub(in crate::node) fn get(&mut self, now: Now, key: HashedKey<'_>) -> Option<Item<'_>> {
        self.store.access(now.mono, key)
    }

    /// The value of a key that is there, as bytes that stay what they are: large ones are shared, not copied.
    pub(in crate::node) fn share(&self, now: Now, key: HashedKey<'_>) -> Option<SharedBytes> {
        self.store.share(now.mono, key)
    }

    /// The same without counting a use: for what a write depends on.
    pub(in crate::node) fn peek(&self, now: Now, key: HashedKey<'_>) -> Option<Item<'_>> {
        self.store.get(now.mono, key)
    }

    /// Fetches the memory of these keys into the caches; that of the own filter too, if they will be set.
    pub(in crate::node) fn prefetch(&self, keys: &[HashedKey<'_>], for_writing: bool) {
        if for_writing {
            let filter = self.own_filter.filter();
            keys.iter().for_each(|key| filter.fetch(key.hash.0));
        }
        self.store.prefetch(keys);
    }

    /// The store, for reading: counts, sizes, room.
    pub(in crate::node) const fn store(&self) -> &Store {
        &self.store
    }

    /// The Bloom filter of the keys.
    pub(in crate::node) const fn own_filter(&self) -> &Bloom {
        self.own_filter.filter()
    }

    /// The changelog of the own filter.
    pub(in crate::node) const fn changelog(&self) -> &Changelog {
        self.own_filter.changelog()
    }

    /// The clock reading that frames carry.
    pub(in crate::node) fn clock(&self, now: Now) -> u64 {
        self.clock.reading(now)
    }

    /// Adopts the clock that a frame of a peer carries.
    #[inline]
    pub(in crate::node) fn adopt(&mut self, now: Now, clock: u64) {
        self.clock.adopt(now, clock);
    }

    /// Milliseconds by which the clock is too far above the wall clock for links.
    pub(in crate::node) fn clock_ahead_ms(&self, now: Now) -> u64 {
        self.clock.ahead_ms(now)
    }

    /// Keys set since the start.
    pub(in crate::node) const fn sets(&self) -> u64 {
        self.sets
    }

    /// Keys deleted by command since the start.
    pub(in crate::node) const fn deletes(&self) -> u64 {
        self.deletes
    }
}

/// Writing. [`Keyspace::keep_up`] is to follow the last write of a command.
impl Keyspace {
    /// Sets a key, with an expiry or without. What the key held before is gone, its expiry included.
    ///
    /// # Errors
    /// [`Full`] when there is no memory; nothing is changed then.
    #[inline]
    pub(in crate::node) fn set(
        &mut self,
        now: Now,
        key: HashedKey<'_>,
        value: &[u8],
        expiry: Option<Expiry>,
    ) -> Result<SetOutcome, Full> {
        let version = self.clock.stamp(now);
        let outcome = self.store.set(now.mono, key, value, expiry, version)?;
        if outcome == SetOutcome::Created {
            self.own_filter.added(now.mono, key.hash.0);
        }
        self.sets += 1;
        self.unpaid += u32::from(expiry.is_some());
        self.changed(key.hash);
        Ok(outcome)
    }

    /// Changes the value of a key that is there to another and keeps its expiry; whether it was there.
    ///
    /// # Errors
    /// [`Full`] when there is no memory for it; nothing is changed then.
    pub(in crate::node) fn update(
        &mut self,
        now: Now,
        key: HashedKey<'_>,
        value: &[u8],
    ) -> Result<bool, Full> {
        self.edit(now, key, value.len(), |bytes| bytes.copy_from_slice(value))
    }

    /// Gives the value of a key that is there the length `len`, added bytes being 0, then has `edit` change it;
    /// keeps the expiry. Whether the key was there.
    ///
    /// # Errors
    /// As [`Keyspace::update`].
    pub(in crate::node) fn edit(
        &mut self,
        now: Now,
        key: HashedKey<'_>,
        len: usize,
        edit: impl FnOnce(&mut [u8]),
    ) -> Result<bool, Full> {
        let version = self.clock.stamp(now);
        let was_there = self.store.update(now.mono, key, len, version, edit)?.is_some();
        if was_there {
            self.sets += 1;
            self.changed(key.hash);
        }
        Ok(was_there)
    }

    /// Reclaims memory until so many keys with so many bytes of keys and values can be set without an error.
    ///
    /// # Errors
    /// [`Full`] if memory for that cannot be had.
    pub(in crate::node) fn make_room(&mut self, now: Now, keys: usize, bytes: usize) -> Result<(), Full> {
        self.store.make_room(now.mono, keys, bytes)
    }

    /// Removes a key; whether it was there.
    pub(in crate::node) fn remove(&mut self, now: Now, key: HashedKey<'_>) -> bool {
        let was_there = self.store.remove(now.mono, key, Version::MAX) == RemoveOutcome::Removed;
        if was_there {
            self.deletes += 1;
            self.unpaid += 1;
            self.changed(key.hash);
        }
        was_there
    }

    /// Removes all keys and returns their number. O(1): their memory is freed, and the own filter rebuilt, by
    /// [`Keyspace::step`].
    pub(in crate::node) fn clear(&mut self) -> usize {
        let count = self.store.len();
        self.store.clear();
        self.deletes += count as u64;
        self.has_changed_all = self.peers > 0;
        count
    }

    /// Gives a key another expiry, or none; whether it was there. Value and version stay.
    ///
    /// # Errors
    /// [`Full`] when there is no memory for the timer; nothing is changed then.
    pub(in crate::node) fn set_expiry(
        &mut self,
        now: Now,
        key: HashedKey<'_>,
        expiry: Option<Expiry>,
    ) -> Result<bool, Full> {
        let was_there = self.store.set_expiry(now.mono, key, expiry)?;
        if was_there {
            self.unpaid += 1;
            self.changed(key.hash);
        }
        Ok(was_there)
    }

    /// Does the share of expiry and filter work that the writes since the last call caused. Not between the
    /// writes of one command: a filter or a changelog that grows takes memory that the command was granted.
    #[inline]
    pub(in crate::node) fn keep_up(&mut self, now: Now) {
        self.own_filter.keep_up(now.mono, &mut self.store);
        if self.unpaid > 0 {
            let budget = std::mem::take(&mut self.unpaid).saturating_mul(TIMERS_PER_WRITE);
            self.store.keep_up(now.mono, budget);
        }
    }

    /// Lists a change for the consumers of changes.
    #[inline]
    fn changed(&mut self, hash: KeyHash) {
        if self.peers > 0 {
            self.changes.push(hash);
        }
    }

    /// Whether all keys were removed since the last call, while a peer was linked.
    pub(in crate::node) const fn take_clearing(&mut self) -> bool {
        std::mem::replace(&mut self.has_changed_all, false)
    }

    /// The keys that were changed since the last call, while a peer was linked, in order.
    pub(in crate::node) fn take_changes(&mut self) -> Drain<'_, KeyHash> {
        self.changes.drain(..)
    }
}

/// Due work.
impl Keyspace {
    /// Does one bounded piece of due work: expiry, reclaiming, the own filter.
    pub(in crate::node) fn step(&mut self, now: Now) {
        self.store.reclaim(now.mono, TIMERS_PER_STEP);
        if self.own_filter.has_work(now.mono, &self.store) {
            self.own_filter.step(now.mono, &mut self.store);
        }
    }

    /// Whether [`Keyspace::step`] has something to do now.
    pub(in crate::node) fn has_work(&self, now: Now) -> bool {
        self.store.has_work(now.mono) || self.own_filter.has_work(now.mono, &self.store)
    }

    /// When [`Keyspace::step`] will next have something to do; `None`: never, as things stand.
    pub(in crate::node) fn next_deadline(&self) -> Option<Instant> {
        let store = self.store.next_deadline();
        store.into_iter().chain(self.own_filter.next_deadline(&self.store)).min()
    }

    /// Takes over another memory limit, and what happens at it.
    pub(in crate::node) fn set_limits(&mut self, limits: &Limits) {
        self.store.set_memory_max(limits.memory_max);
        self.store.set_eviction(eviction(limits));
    }
}

/// Publishing.
impl Keyspace {
    /// Sets how many peers are linked: those read the changelog, and more of them need more bits per key.
    pub(in crate::node) fn set_peers(&mut self, count: usize) {
        self.peers = count;
        self.own_filter.set_peers(count);
    }

    /// The own filter and its changelog, for readers that join, read on and leave.
    pub(in crate::node) const fn publication(&mut self) -> (&Bloom, &mut Changelog) {
        self.own_filter.parts()
    }
}

/// What the store does at its limit.
const fn eviction(limits: &Limits) -> Eviction {
    match limits.eviction {
        EvictionPolicy::Refuse => Eviction::Refuse,
        EvictionPolicy::S3Fifo if limits.eviction_only_with_ttl => Eviction::ItemsWithTtl,
        EvictionPolicy::S3Fifo => Eviction::AnyItem,
    }
}

/// For tests.
impl Keyspace {
    /// Keeps only these bits of each hash, so that keys collide: before the first key is set.
    pub(in crate::node) fn mask_hashes(&mut self, mask: u64) {
        self.store.mask_hashes(mask);
    }

    /// The store itself, to set it up.
    #[cfg(test)]
    pub(in crate::node) const fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }
}
