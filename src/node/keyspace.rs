//! The one write path: the only code that changes the store.
//!
//! A write takes its version from the hybrid clock, changes the store, enters a new key in the own filter
//! and its changelog, is counted, and is listed for the consumers of changes: open lookups of the key, which
//! must not be joined any more. Commands, peers and due work all write through here, so none of them can
//! forget a step.
//!
//! [`Keyspace::keep_up`] follows the writes of a command. It does the expiry and filter work that those
//! writes caused, so that the backlog is bounded by what the writers pay.

use crate::base::memory::copy_of;
use crate::base::shared_bytes::SharedBytes;
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
use memmap2::MmapMut;
use std::mem;
use std::rc::Rc;
use std::time::Duration;

/// A change of a key, for the consumers of changes.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Change {
    pub(in crate::node) hash: KeyHash,
    /// The key has a new version here; else its value is gone, or its expiry is another.
    pub(in crate::node) is_new_version: bool,
}

/// The version that this node has, or remembers, of a key.
#[derive(Debug)]
pub(in crate::node) struct OwnVersion {
    pub(in crate::node) key: Box<[u8]>,
    pub(in crate::node) version: Version,
    /// Of a value, or of a tombstone.
    pub(in crate::node) state: KeyState,
}

/// Bytes of items and index below which they are taken to be in the caches anyway.
const STORE_BYTES_MIN: u64 = 1024 * 1024;

/// Keys below which prefetching is not worth its own cost.
const PREFETCHED_KEYS_MIN: usize = 4;

/// What it costs to gather the hashes of a segment for the own filter, in keys: about 12 us.
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
    /// What all other nodes have acknowledged, those included that are absent.
    acknowledged: Version,
    /// Nodes that are linked. Without any there is no consumer of changes.
    peers: usize,
    /// Another node may have older values, and be linked some time.
    may_meet_others: bool,
    /// Changes since [`Keyspace::take_changes`], in order.
    changes: Vec<Change>,
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

    /// Whether items and index are more than processors cache anyway.
    pub(in crate::node) fn is_beyond_caches(&self) -> bool {
        self.store.memory_bytes() >= STORE_BYTES_MIN
    }

    /// Fetches the memory of the keys of one request, the first 16, if they are several; see [`Keyspace::prefetch`].
    #[inline]
    pub(in crate::node) fn prefetch_several<'k>(
        &self,
        keys: impl ExactSizeIterator<Item = &'k [u8]>,
        for_writing: bool,
    ) {
        if keys.len() < PREFETCHED_KEYS_MIN || !self.is_beyond_caches() {
            return;
        }
        let mut hashed = [HashedKey { hash: KeyHash(0), bytes: b"" }; PREFETCH_MAX];
        let count = keys.len().min(PREFETCH_MAX);
        hashed.iter_mut().zip(keys).for_each(|(slot, key)| slot.hash = self.key(key).hash);
        self.prefetch(&hashed[..count], for_writing);
    }

    /// Fetches the memory of these keys into the caches; that of the own filter too, if they will be set. Of a few keys
    /// nothing: that would not be worth its own cost.
    pub(in crate::node) fn prefetch(&self, keys: &[HashedKey<'_>], for_writing: bool) {
        if keys.len() < PREFETCHED_KEYS_MIN {
            return;
        }
        if for_writing {
            let filter = self.own_filter.filter();
            keys.iter().for_each(|key| filter.fetch(key.hash.0));
        }
        self.store.prefetch(keys);
    }

    /// Offers the map that a request, or a frame, lies in for as long as it is carried out: a large value in it is linked, not copied.
    pub(in crate::node) fn offer(&mut self, map: Option<Rc<MmapMut>>) {
        self.store.offer(map);
    }

    /// Bytes that have arrived, to be kept: shared where they lie if they are nearly all of the map that is offered, else
    /// copied. `None`: the system has no memory for a copy.
    pub(in crate::node) fn keep(&self, bytes: &[u8]) -> Option<SharedBytes> {
        self.store.share_offered(bytes).or_else(|| copy_of(bytes).map(SharedBytes::from))
    }

    /// Takes a map for about so many bytes that the store holds and does not use, to receive a value in it.
    pub(in crate::node) fn take_idle(&mut self, bytes: usize) -> Option<Rc<MmapMut>> {
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

    /// The version of a key: that of its value, or that of its tombstone if that is newer.
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

    /// Whether [`Keyspace::versions_of`] may return something: false for most keys that are not here. O(1), or O(log
    /// tombstones).
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
        self.changed(key.hash, true);
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
            self.changed(key.hash, true);
        }
        Ok(was_there)
    }

    /// Reclaims memory until so many keys with so many bytes of keys and values can be set without an error, before the
    /// next [`Keyspace::keep_up`].
    ///
    /// # Errors
    /// [`Full`] if memory for that cannot be had.
    pub(in crate::node) fn make_room(&mut self, now: Now, keys: usize, bytes: usize) -> Result<(), Full> {
        self.unpaid += 1;
        self.store.make_room(now.mono, keys, bytes)
    }

    /// Deletes a key by command; whether it was there.
    pub(in crate::node) fn remove(&mut self, now: Now, key: HashedKey<'_>) -> bool {
        self.delete_command(now, key, Version::default()).1
    }

    /// A version above all that this node has given or accepted.
    pub(in crate::node) fn stamp(&mut self, now: Now) -> Version {
        self.clock.stamp(now)
    }

    /// Deletes a key by command, whatever its version: returns the version of the deletion, at least `at_least` and above
    /// that of the value, and whether there was a value. Older values do not come back: a tombstone stays until all
    /// other nodes have acknowledged it.
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

    /// Another node has deleted a key by the same command with this version: what is not newer here is gone too.
    pub(in crate::node) fn delete_older(&mut self, now: Now, key: HashedKey<'_>, version: Version) {
        self.remove_older(now, key, version);
        self.leave_tombstone(now, key, version, Departure::Deleted);
    }

    /// Drops the value of a key, unless it is newer than `version`, since another node has a newer one, or knows of a
    /// deletion; whether there was one.
    pub(in crate::node) fn drop_older(&mut self, now: Now, key: HashedKey<'_>, version: Version) -> bool {
        let was_there = self.remove_older(now, key, version);
        if was_there {
            self.own_filter.moved(now.mono, key.hash.0);
        }
        was_there
    }

    /// Removes a key, unless its version is above `version`; whether it was there.
    fn remove_older(&mut self, now: Now, key: HashedKey<'_>, version: Version) -> bool {
        let was_there = self.store.remove(now.mono, key, version) == RemoveOutcome::Removed;
        if was_there {
            self.unpaid += 1;
            self.changed(key.hash, false);
        }
        was_there
    }

    /// Remembers that no version of a key up to this one is to come back, if another node may bring one.
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

    /// Sets what all other nodes have acknowledged, those included that are absent, and what the known peers have. Keys
    /// that expire or are evicted leave tombstones if their version is above the latter.
    pub(in crate::node) fn set_acknowledged(&mut self, by_all: Version, by_known: Version) {
        self.acknowledged = by_all;
        self.may_meet_others = by_all != Version::MAX;
        self.store.report_departures_above(by_known);
        if self.tombstones.discarded().is_some_and(|(_, version)| version <= by_all) {
            self.tombstones.forget_discarded();
        }
    }

    /// Whether [`Keyspace::collect_tombstones`] has something to do. O(1).
    pub(in crate::node) fn has_acknowledged_tombstones(&self) -> bool {
        self.tombstones.has_acknowledged(self.acknowledged)
    }

    /// Forgets up to `budget` tombstones that all other nodes have acknowledged.
    pub(in crate::node) fn collect_tombstones(&mut self, budget: usize) {
        self.tombstones.collect(self.acknowledged, budget);
        self.count_apart();
    }

    /// Counts so many bytes of the history against the memory limit.
    pub(in crate::node) fn count_history(&mut self, bytes: u64) {
        self.history_bytes = bytes;
        self.count_apart();
    }

    fn count_apart(&mut self) {
        self.store.reserve_apart(self.tombstones.bytes() + self.history_bytes);
    }

    /// Makes tombstones of the keys that have expired or were evicted, if a peer may have an older value.
    fn leave_tombstones(&mut self, now: Now) {
        for (key, version) in self.store.take_departures() {
            let key = self.store.key(&key);
            self.leave_tombstone(now, key, version, Departure::Dropped);
        }
    }

    /// Keeps the tombstone of a key until what is sent from here on was acknowledged.
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
            self.changed(key.hash, false);
        }
        Ok(was_there)
    }

    /// Takes back what [`Keyspace::set_expiry`] did to a key that had this expiry before.
    pub(in crate::node) fn restore_expiry(&mut self, key: HashedKey<'_>, expiry: Option<Expiry>) {
        self.store.restore_expiry(key, expiry);
        self.changed(key.hash, false);
    }

    /// Does the share of expiry and filter work that the writes since the last call caused. Not between the
    /// writes of one command: a filter or a changelog that grows takes memory that the command was granted.
    #[inline]
    pub(in crate::node) fn keep_up(&mut self, now: Now) {
        self.own_filter.keep_up(now.mono, &mut self.store);
        if self.unpaid > 0 {
            let budget = mem::take(&mut self.unpaid).saturating_mul(TIMERS_PER_WRITE);
            self.store.keep_up(now.mono, budget);
        }
        if self.store.has_departures() {
            self.leave_tombstones(now);
        }
    }

    /// What steps of the own filter that additions have caused since the last call cost, in keys.
    pub(in crate::node) const fn take_filter_cost(&mut self) -> usize {
        self.own_filter.take_uncharged() as usize * FILTER_STEP_KEYS
    }

    /// Lists a change for the consumers of changes.
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

    /// How many changes [`Keyspace::take_changes`] would return.
    #[inline]
    pub(in crate::node) const fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Whether [`Keyspace::take_changes`] or [`Keyspace::take_clearing`] has something to return.
    #[inline]
    pub(in crate::node) fn has_changes(&self) -> bool {
        self.has_changed_all || !self.changes.is_empty()
    }

    /// The changes since the last call, while a peer was linked, in order; to be returned for their memory.
    pub(in crate::node) fn take_changes(&mut self) -> Vec<Change> {
        mem::take(&mut self.changes)
    }

    /// Takes back the memory of changes that are handled. There are no others.
    pub(in crate::node) fn give_back_changes(&mut self, mut changes: Vec<Change>) {
        changes.clear();
        self.changes = changes;
    }
}

/// Due work.
impl Keyspace {
    /// Does one bounded piece of due work: expiry, reclaiming, the own filter. Returns what it has cost, in keys.
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

    /// Whether [`Keyspace::step`] has something to do now.
    pub(in crate::node) fn has_work(&self, now: Now) -> bool {
        self.store.has_work(now.mono) || self.own_filter.has_work(now.mono, &self.store)
    }

    /// When [`Keyspace::step`] will next have something to do; `None`: never, as things stand.
    pub(in crate::node) fn next_deadline(&self) -> Option<Instant> {
        let store = self.store.next_deadline();
        store.into_iter().chain(self.own_filter.next_deadline(&self.store)).min()
    }

    /// Takes over other limits, and what happens at them.
    pub(in crate::node) fn set_limits(&mut self, limits: &Limits) {
        self.tombstones_max = limits.tombstones_max as usize;
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

    /// Sets for how long a key stays claimed whose newer value is on another node: until a link over which its addition
    /// is sent would be given up.
    pub(in crate::node) fn set_dead_time(&mut self, time: Duration) {
        self.own_filter.set_claimed_for(time);
    }

    /// The own filter and its changelog, for readers that join, read on and leave.
    pub(in crate::node) const fn publication(&mut self) -> (&Bloom, &mut Changelog) {
        self.own_filter.parts()
    }
}

/// What an item with this version is that has or has not expired yet.
const fn own_state((version, is_alive): (Version, bool)) -> (Version, KeyState) {
    (version, if is_alive { KeyState::Held } else { KeyState::Gone })
}

/// The newer one of an item and a tombstone of one key. Of equal versions the tombstone.
fn newer(item: Option<(Version, KeyState)>, tombstone: Option<Version>) -> Option<(Version, KeyState)> {
    let is_item = item.is_some_and(|(version, _)| tombstone.is_none_or(|tombstone| version > tombstone));
    if is_item { item } else { tombstone.map(|version| (version, KeyState::Gone)) }
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
