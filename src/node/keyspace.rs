//! The one write path: the only code that changes the store.
//!
//! A write takes its version from the hybrid clock, changes the store, adds a new key to the own filter and its
//! changelog, is counted, and is listed as a change, which closes open lookups of the key and is announced to peers.
//! Commands, frames of peers and background work all write through this module, so that no step can be missed.
//!
//! [`Keyspace::keep_up`] must follow the writes of a command. It does the expiry and filter work that those writes
//! caused, which bounds the backlog.

use crate::base::memory::copy_of;
use crate::base::shared_bytes::{SharedBytes, SharedMemory};
use crate::base::time::{Instant, Now};
use crate::filter::bloom::Bloom;
use crate::filter::changelog::Changelog;
use crate::limits::{EvictionPolicy, Limits, TIMERS_PER_STEP, TIMERS_PER_WRITE};
use crate::node::digest::own_filter::OwnFilter;
use crate::node::hybrid_clock::HybridClock;
use crate::node::versions::tombstones::{Departure, Tombstones};
use crate::store::{
    Eviction, Expiry, Full, HashSecret, HashedKey, Item, KeyHash, PREFETCH_MAX, RemoveOutcome, SetOutcome,
    Store, Version,
};
use crate::wire::frame::KeyState;
use std::mem;
use std::rc::Rc;
use std::time::Duration;

/// A change of a key, for the consumers of changes.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Change {
    pub(in crate::node) hash: KeyHash,
    /// The key has a new version here. Otherwise its value was removed, or its expiry changed.
    pub(in crate::node) is_new_version: bool,
}

/// The version of a key on this node: of its value or its tombstone.
#[derive(Debug)]
pub(in crate::node) struct OwnVersion {
    pub(in crate::node) key: Box<[u8]>,
    pub(in crate::node) version: Version,
    /// Whether it is that of a value or a tombstone.
    pub(in crate::node) state: KeyState,
}

/// Bytes of items and their index entries below which the processor's caches are assumed to hold them.
const STORE_BYTES_MIN: u64 = 768 * 1024;

/// Keys below which prefetching does not pay.
const PREFETCHED_KEYS_MIN: usize = 4;

/// The copies of values by requests that are carried out together after which the rest gets an error, in keys: about
/// 4 ms.
pub(in crate::node) const COPIED_MAX: usize = 16 * 1024;

/// Cost of reading the hashes of a segment for the own filter, in keys: about 12 µs.
const FILTER_STEP_KEYS: usize = 48;

/// The keys of this node; see the module.
#[derive(Debug)]
pub(in crate::node) struct Keyspace {
    store: Store,
    own_filter: OwnFilter,
    clock: HybridClock,
    tombstones: Tombstones,
    /// Bytes of the history of requests, which count against the memory limit.
    history_bytes: u64,
    tombstones_max: usize,
    /// The version that all other nodes, including absent ones, have acknowledged.
    acknowledged: Version,
    /// The number of linked peers. Without any, changes are not listed.
    peers: usize,
    /// Another node may hold older values, and may be linked later.
    may_meet_others: bool,
    /// Changes since [`Keyspace::take_changes`], in order.
    changes: Vec<Change>,
    /// All keys were removed since [`Keyspace::take_clearing`].
    has_changed_all: bool,
    /// Writes since [`Keyspace::keep_up`] that caused expiry work.
    unpaid: u32,
    sets: u64,
    deletes: u64,
}

impl Keyspace {
    /// An empty keyspace. Keys are hashed with `secret`; items, index, timers and own filter take at most
    /// `memory_max` bytes (0: no limit).
    pub(in crate::node) fn new(now: Now, secret: HashSecret, limits: &Limits) -> Self {
        let own_filter = OwnFilter::new(now.wall_ms());
        let mut store = Store::new(secret, limits.memory_max);
        store.set_eviction(eviction(limits));
        store.reserve(own_filter.filter().bytes());
        Self {
            store,
            own_filter,
            clock: HybridClock::default(),
            tombstones: Tombstones::default(),
            history_bytes: 0,
            tombstones_max: limits.tombstones_max as usize,
            acknowledged: Version::MAX,
            peers: 0,
            may_meet_others: false,
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
    /// Hashes a key, for index, filters and frames.
    #[inline]
    pub(in crate::node) fn key<'k>(&self, bytes: &'k [u8]) -> HashedKey<'k> {
        self.store.key(bytes)
    }

    /// The item of a key; `None` if it is absent or has expired. Counts a use for eviction.
    #[inline(always)]
    pub(in crate::node) fn get(&mut self, now: Now, key: HashedKey<'_>) -> Option<Item<'_>> {
        self.store.access(now.mono, key)
    }

    /// The value of a key as immutable bytes: large values are shared, not copied.
    pub(in crate::node) fn share(&self, now: Now, key: HashedKey<'_>) -> Option<SharedBytes> {
        self.store.share(now.mono, key)
    }

    /// The item of a key without counting a use, for writes that depend on it.
    pub(in crate::node) fn peek(&self, now: Now, key: HashedKey<'_>) -> Option<Item<'_>> {
        self.store.get(now.mono, key)
    }

    /// Whether items and index are larger than the processor's caches.
    pub(in crate::node) fn is_beyond_caches(&self) -> bool {
        self.store.live_bytes() >= STORE_BYTES_MIN
    }

    /// Prefetches the first keys of a request of several keys; see [`Keyspace::prefetch`].
    #[inline]
    pub(in crate::node) fn prefetch_several<'k>(
        &self,
        keys: impl ExactSizeIterator<Item = &'k [u8]>,
        for_writing: bool,
    ) {
        if keys.len() < PREFETCHED_KEYS_MIN || !self.is_beyond_caches() {
            return;
        }
        let mut hashes = [KeyHash(0); PREFETCH_MAX];
        let count = keys.len().min(PREFETCH_MAX);
        hashes.iter_mut().zip(keys).for_each(|(slot, key)| *slot = self.key(key).hash);
        self.prefetch(&hashes[..count], for_writing);
    }

    /// Prefetches the memory of keys, and with `for_writing` the blocks of the own filter of those that are probably new.
    /// Of fewer than four keys it prefetches the index only, and does not wait for it.
    pub(in crate::node) fn prefetch(&self, keys: &[KeyHash], for_writing: bool) {
        if keys.len() < PREFETCHED_KEYS_MIN {
            return keys.iter().for_each(|key| self.store.prefetch_index(*key));
        }
        let filter = self.own_filter.filter();
        self.store.prefetch(keys, |absent| {
            if for_writing {
                filter.fetch(absent.0);
            }
        });
    }

    /// Offers the map that contains a request or frame while it is executed: a large value in it is linked, not
    /// copied. `None` ends the offer.
    pub(in crate::node) fn offer(&mut self, map: Option<Rc<SharedMemory>>) {
        self.store.offer(map);
    }

    /// Bytes that have arrived, to be kept: shared where they lie if they are nearly all of the map that is offered, else
    /// copied. `None`: the system has no memory for a copy.
    pub(in crate::node) fn keep(&self, bytes: &[u8]) -> Option<SharedBytes> {
        let copy = || copy_of(bytes).map(|copy| self.store.shared().share(copy));
        self.store.share_offered(bytes).or_else(copy)
    }

    /// Takes an idle map of about this many bytes from the store, to receive a value in it.
    pub(in crate::node) fn take_idle(&mut self, bytes: usize) -> Option<Rc<SharedMemory>> {
        self.store.take_idle(bytes)
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

    /// The hybrid clock for frames.
    pub(in crate::node) fn clock(&self, now: Now) -> u64 {
        self.clock.reading(now)
    }

    /// Adopts the clock in a frame of a peer.
    #[inline]
    pub(in crate::node) fn adopt(&mut self, now: Now, clock: u64) {
        self.clock.adopt(now, clock);
    }

    /// Milliseconds by which the hybrid clock is above its bound; links need 0.
    pub(in crate::node) fn clock_ahead_ms(&self, now: Now) -> u64 {
        self.clock.ahead_ms(now)
    }

    /// The version of a key: that of its value or of its tombstone, whichever is newer.
    pub(in crate::node) fn version_of(&self, now: Now, key: HashedKey<'_>) -> Option<(Version, KeyState)> {
        let item = self.store.version(now.mono, key).map(own_state);
        newer(item, self.tombstones.version(key))
    }

    /// Keys of this hash with their versions, as [`Keyspace::version_of`].
    pub(in crate::node) fn versions_of(&self, now: Now, hash: KeyHash) -> Vec<OwnVersion> {
        let mut own = Vec::new();
        self.store.with_hash(now.mono, hash, |key, version, is_alive| {
            let tombstone = self.tombstones.version(HashedKey { hash, bytes: key });
            if let Some((version, state)) = newer(Some(own_state((version, is_alive))), tombstone) {
                own.push(OwnVersion { key: key.into(), version, state });
            }
        });
        for (key, version) in self.tombstones.with_hash(hash) {
            if !own.iter().any(|own| *own.key == *key) {
                own.push(OwnVersion { key: key.into(), version, state: KeyState::Gone });
            }
        }
        own
    }

    /// Whether [`Keyspace::versions_of`] may return any; false for most absent keys. O(1) or O(log tombstones).
    #[inline]
    pub(in crate::node) fn may_know(&self, hash: KeyHash) -> bool {
        self.own_filter.filter().contains(hash.0) || self.tombstones.with_hash(hash).next().is_some()
    }

    /// The tombstones.
    pub(in crate::node) const fn tombstones(&self) -> &Tombstones {
        &self.tombstones
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

/// Writing. The last write of a command must be followed by [`Keyspace::keep_up`].
impl Keyspace {
    /// Sets a key, with an expiry or without one. Replaces its value and expiry.
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
        self.changed(key.hash, true);
        Ok(outcome)
    }

    /// Replaces the value of an existing key and keeps its expiry; false if the key is absent.
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

    /// Resizes the value of an existing key to `len` bytes, added bytes being 0, and calls `edit` with it; keeps the
    /// expiry. False if the key is absent.
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
            self.changed(key.hash, true);
        }
        Ok(was_there)
    }

    /// Reclaims memory until `keys` keys with `bytes` bytes of keys and values can be set without an error, before
    /// the next [`Keyspace::keep_up`].
    ///
    /// # Errors
    /// [`Full`] if there is no room.
    pub(in crate::node) fn make_room(&mut self, now: Now, keys: usize, bytes: usize) -> Result<(), Full> {
        self.unpaid += 1;
        self.store.make_room(now.mono, keys, bytes)
    }

    /// Deletes a key by command; false if it was absent.
    pub(in crate::node) fn remove(&mut self, now: Now, key: HashedKey<'_>) -> bool {
        self.delete_command(now, key, Version::default()).1
    }

    /// A version above all that this node has assigned or accepted.
    pub(in crate::node) fn stamp(&mut self, now: Now) -> Version {
        self.clock.stamp(now)
    }

    /// Deletes a key by command, whatever its version. Returns the version of the deletion, at least `at_least` and
    /// above that of the value, and whether there was a value. Leaves a tombstone until all other nodes have
    /// acknowledged it, so that older values cannot return.
    pub(in crate::node) fn delete_command(
        &mut self,
        now: Now,
        key: HashedKey<'_>,
        at_least: Version,
    ) -> (Version, bool) {
        let version = self.clock.stamp(now).max(at_least);
        let had = self.remove_older(now, key, Version::MAX);
        self.deletes += u64::from(had);
        self.leave_tombstone(now, key, version, Departure::Deleted);
        (version, had)
    }

    /// Deletes a key that another node has deleted with this version by the same command, unless the value here is
    /// newer.
    pub(in crate::node) fn delete_older(&mut self, now: Now, key: HashedKey<'_>, version: Version) {
        self.remove_older(now, key, version);
        self.leave_tombstone(now, key, version, Departure::Deleted);
    }

    /// Drops the value of a key, unless it is newer than `version`, the version of a value or deletion on another
    /// node. Returns whether there was one.
    pub(in crate::node) fn drop_older(&mut self, now: Now, key: HashedKey<'_>, version: Version) -> bool {
        let was_there = self.remove_older(now, key, version);
        if was_there {
            self.own_filter.moved(now.mono, key.hash.0);
        }
        was_there
    }

    /// Removes a key, unless its version is above `version`; returns whether it existed.
    fn remove_older(&mut self, now: Now, key: HashedKey<'_>, version: Version) -> bool {
        let was_there = self.store.remove(now.mono, key, version) == RemoveOutcome::Removed;
        if was_there {
            self.unpaid += 1;
            self.changed(key.hash, false);
        }
        was_there
    }

    /// Leaves a tombstone, so that no version of a key up to this one returns, if another node may hold one.
    pub(in crate::node) fn leave_tombstone(
        &mut self,
        now: Now,
        key: HashedKey<'_>,
        version: Version,
        cause: Departure,
    ) {
        if self.may_meet_others {
            let until = self.clock.stamp(now);
            self.tombstones.put(key, version, until, cause);
            self.tombstones.limit(self.tombstones_max, self.store.memory_max());
            self.count_apart();
        }
    }

    /// Sets the version that all other nodes, including absent ones, have acknowledged, and that of the known peers.
    /// Keys that expire or are evicted leave tombstones if their version is above the latter.
    pub(in crate::node) fn set_acknowledged(&mut self, by_all: Version, by_known: Version) {
        self.acknowledged = by_all;
        self.may_meet_others = by_all != Version::MAX;
        self.store.report_departures_above(by_known);
        if self.tombstones.discarded().is_some_and(|(_, version)| version <= by_all) {
            self.tombstones.forget_discarded();
        }
    }

    /// Whether [`Keyspace::collect_tombstones`] has work. O(1).
    pub(in crate::node) fn has_acknowledged_tombstones(&self) -> bool {
        self.tombstones.has_acknowledged(self.acknowledged)
    }

    /// Removes up to `budget` tombstones that all other nodes have acknowledged.
    pub(in crate::node) fn collect_tombstones(&mut self, budget: usize) {
        self.tombstones.collect(self.acknowledged, budget);
        self.count_apart();
    }

    /// Counts bytes of the history against the memory limit.
    pub(in crate::node) fn count_history(&mut self, bytes: u64) {
        self.history_bytes = bytes;
        self.count_apart();
    }

    fn count_apart(&mut self) {
        self.store.reserve_apart(self.tombstones.bytes() + self.history_bytes);
    }

    /// Leaves tombstones of expired and evicted keys of which a peer may hold an older value.
    fn leave_tombstones(&mut self, now: Now) {
        for (key, version) in self.store.take_departures() {
            let key = self.store.key(&key);
            self.leave_tombstone(now, key, version, Departure::Dropped);
        }
    }

    /// Renews the tombstone of a key: it stays until frames sent from here on are acknowledged.
    pub(in crate::node) fn renew_tombstone(&mut self, now: Now, key: &[u8]) {
        let key = self.store.key(key);
        if self.tombstones.version(key).is_some() {
            let until = self.clock.stamp(now);
            self.tombstones.renew(key, until);
        }
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

    /// Changes or removes the expiry of a key; false if it is absent. Value and version stay.
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
            self.changed(key.hash, false);
        }
        Ok(was_there)
    }

    /// Undoes [`Keyspace::set_expiry`]: restores the previous expiry of a key.
    pub(in crate::node) fn restore_expiry(&mut self, key: HashedKey<'_>, expiry: Option<Expiry>) {
        self.store.restore_expiry(key, expiry);
        self.changed(key.hash, false);
    }

    /// Does the expiry and filter work that the writes since the last call caused. Must not be called between the
    /// writes of one command: filter and changelog would take memory that was reserved for it.
    #[inline]
    pub(in crate::node) fn keep_up(&mut self, now: Now) {
        if self.unpaid > 0 || self.own_filter.is_behind() || self.store.has_departures() {
            self.catch_up(now);
        }
    }

    #[inline(never)]
    fn catch_up(&mut self, now: Now) {
        self.own_filter.keep_up(now.mono, &mut self.store);
        if self.unpaid > 0 {
            let budget = mem::take(&mut self.unpaid).saturating_mul(TIMERS_PER_WRITE);
            self.store.keep_up(now.mono, budget);
        }
        if self.store.has_departures() {
            self.leave_tombstones(now);
        }
    }

    /// Counts copies of values by a request, or work like it, in keys.
    pub(in crate::node) const fn charge_copy(&mut self, keys: usize) {
        self.store.charge_copy(keys);
    }

    /// The work of requests beside their keys and their own bytes since the last call, in keys: evictions, compaction,
    /// copies of values.
    #[inline]
    pub(in crate::node) const fn take_uncharged(&mut self) -> usize {
        self.store.take_uncharged()
    }

    /// Whether the requests that are carried out together have copied as much as they may.
    #[inline]
    pub(in crate::node) const fn has_copied_too_much(&self) -> bool {
        self.store.copied() > COPIED_MAX
    }

    /// The cost, in keys, of the steps of the own filter that additions have caused since the last call.
    pub(in crate::node) const fn take_filter_cost(&mut self) -> usize {
        self.own_filter.take_uncharged() as usize * FILTER_STEP_KEYS
    }

    /// Lists a change, if a peer is linked.
    #[inline]
    fn changed(&mut self, hash: KeyHash, is_new_version: bool) {
        if self.peers > 0 {
            self.changes.push(Change { hash, is_new_version });
        }
    }

    /// Whether all keys were removed since the last call, while a peer was linked.
    pub(in crate::node) const fn take_clearing(&mut self) -> bool {
        mem::replace(&mut self.has_changed_all, false)
    }

    /// The number of listed changes.
    #[inline]
    pub(in crate::node) const fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Whether there are listed changes, or all keys were removed.
    #[inline]
    pub(in crate::node) fn has_changes(&self) -> bool {
        self.has_changed_all || !self.changes.is_empty()
    }

    /// Takes the listed changes, in order. The vector must be given back with [`Keyspace::give_back_changes`].
    pub(in crate::node) fn take_changes(&mut self) -> Vec<Change> {
        mem::take(&mut self.changes)
    }

    /// Takes back the memory of handled changes. No change may have been listed since.
    pub(in crate::node) fn give_back_changes(&mut self, mut changes: Vec<Change>) {
        changes.clear();
        self.changes = changes;
    }
}

/// Background work.
impl Keyspace {
    /// Does one bounded piece of background work: expiry, reclaiming, the own filter. Returns its cost, in keys.
    pub(in crate::node) fn step(&mut self, now: Now) -> usize {
        let mut cost = 1;
        if self.store.has_work(now.mono) {
            cost += self.store.reclaim(now.mono, TIMERS_PER_STEP) as usize;
        }
        self.leave_tombstones(now);
        if self.own_filter.has_work(now.mono, &self.store) {
            cost += if self.own_filter.is_under_work() { FILTER_STEP_KEYS } else { 1 };
            self.own_filter.step(now.mono, &mut self.store);
        }
        cost
    }

    /// Whether [`Keyspace::step`] has work now.
    pub(in crate::node) fn has_work(&self, now: Now) -> bool {
        self.store.has_work(now.mono) || self.own_filter.has_work(now.mono, &self.store)
    }

    /// When [`Keyspace::step`] will have work; `None`: not before the next write.
    pub(in crate::node) fn next_deadline(&self) -> Option<Instant> {
        let store = self.store.next_deadline();
        store.into_iter().chain(self.own_filter.next_deadline(&self.store)).min()
    }

    /// Changes the limits and the eviction policy.
    pub(in crate::node) fn set_limits(&mut self, limits: &Limits) {
        self.tombstones_max = limits.tombstones_max as usize;
        self.store.set_memory_max(limits.memory_max);
        self.store.set_eviction(eviction(limits));
    }
}

/// Publishing.
impl Keyspace {
    /// Sets the number of linked peers, which read the changelog; with more peers the filter has more bits per key.
    pub(in crate::node) fn set_peers(&mut self, count: usize) {
        self.peers = count;
        self.own_filter.set_peers(count);
    }

    /// Sets how long a moved key stays claimed: the time after which a link over which its addition is sent would be
    /// closed.
    pub(in crate::node) fn set_dead_time(&mut self, time: Duration) {
        self.own_filter.set_claimed_for(time);
    }

    /// The own filter and its changelog, for readers.
    pub(in crate::node) const fn publication(&mut self) -> (&Bloom, &mut Changelog) {
        self.own_filter.parts()
    }
}

/// The version and state of an item that is expired or not.
const fn own_state((version, is_alive): (Version, bool)) -> (Version, KeyState) {
    (version, if is_alive { KeyState::Held } else { KeyState::Gone })
}

/// The newer version of an item and a tombstone; of equal versions that of the tombstone.
fn newer(item: Option<(Version, KeyState)>, tombstone: Option<Version>) -> Option<(Version, KeyState)> {
    let is_item = item.is_some_and(|(version, _)| tombstone.is_none_or(|tombstone| version > tombstone));
    if is_item { item } else { tombstone.map(|version| (version, KeyState::Gone)) }
}

/// The eviction policy of the store.
const fn eviction(limits: &Limits) -> Eviction {
    match limits.eviction {
        EvictionPolicy::Refuse => Eviction::Refuse,
        EvictionPolicy::S3Fifo if limits.eviction_only_with_ttl => Eviction::ItemsWithTtl,
        EvictionPolicy::S3Fifo => Eviction::AnyItem,
    }
}

/// For tests.
impl Keyspace {
    /// Masks all hashes, so that keys collide. Before the first key is set.
    pub(in crate::node) fn mask_hashes(&mut self, mask: u64) {
        self.store.mask_hashes(mask);
    }

    /// The mutable store, for setup.
    #[cfg(test)]
    pub(in crate::node) const fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }
}
