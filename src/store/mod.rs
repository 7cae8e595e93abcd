//! The store of one node: items of key, value, version and expiry, with a memory limit and expiry to the millisecond.
//!
//! Every read compares the expiry with `now`. The timer wheel only frees memory, in steps, in [`Store::reclaim`].
//!
//! [`Store::key`] hashes a key once per request; all calls take the [`HashedKey`]. The hash is keyed with a secret,
//! so that clients cannot choose keys that collide.
//!
//! No operation reorganises the whole store: the index grows by one segment of 4 KiB at a time, and
//! [`Store::reclaim`] does background work (expiry, purging of stale timers, compaction, deferred free) in steps. A
//! write at the memory limit reclaims memory and is attempted again, see [`Store::set`].
//!
//! ```text
//! key ── hash ──► index (directory ► segment of 4 KiB) ── handle ──► heap (page ► slot: the item)
//!                                                   expiry, handle ──► timers (wheel)
//! ```
//!
//! Not here: commands, the choice of versions, other nodes, the clock.

mod audit;
mod compaction;
mod deferred_free;
mod directory;
mod eviction;
mod expiry;
mod hash;
mod heap;
mod index;
mod item;
mod large_objects;
mod memory;
mod overflow;
mod pages;
mod room;
mod scan;
mod segment;
mod segment_metadata;
mod size_classes;
mod slabs;

pub use audit::Audit;
pub use eviction::Eviction;
pub use hash::{HashRange, HashSecret, HashedKey, KeyHash};
pub use item::{Expiry, Item, Version};
pub use memory::{ClassMemory, Memory};
pub use room::Full;
pub use scan::{ScanCursor, SegmentScan};

use crate::base::memory::reserve;
use crate::base::shared_bytes::{Account, SharedBytes, SharedMemory};
use crate::base::time::Instant;
use compaction::Compaction;
use deferred_free::DeferredFree;
use eviction::Queues;
use expiry::Timers;
use heap::Heap;
use index::{Index, Keys};
use item::Layout;
use size_classes::LARGE_BYTES_MAX as MAPPED_BYTES_MIN;
use std::cmp::Ordering;
use std::rc::Rc;

/// Keys per call of [`Store::prefetch`] at most: the bits of a word.
pub const PREFETCH_MAX: usize = u64::BITS as usize;

/// Bytes of an item's share of its segment: a bucket of 64 bytes has twelve entries.
const INDEX_ENTRY_BYTES: usize = 6;

/// Bytes of a timer in a timer page.
const TIMER_BYTES: usize = 8;

/// Copied bytes that cost as much as one key: with fresh memory for them.
pub const COPIED_BYTES_PER_KEY: usize = 1024;

/// The result of [`Store::set`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOutcome {
    /// The key was added.
    Created,
    /// The key's item, which may have expired, was replaced.
    Replaced,
    /// Nothing: the item of the key has a higher version and stays.
    Newer,
}

/// The result of [`Store::remove`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveOutcome {
    /// The item was removed.
    Removed,
    /// There was no item, or it had expired.
    Absent,
    /// Nothing: the item of the key has a higher version and stays.
    Newer,
}

/// All items of a node.
#[derive(Debug)]
pub struct Store {
    secret: HashSecret,
    memory_max: u64,
    index: Index,
    heap: Heap,
    timers: Timers,
    compaction: Compaction,
    queues: Queues,
    /// Memory of cleared stores that is not freed yet.
    deferred_free: DeferredFree,
    /// Bytes outside the store that count against the limit.
    reserved: u64,
    reserved_apart: u64,
    /// Bytes above the limit that the current write may take, since memory was reclaimed for it.
    overdraft: u64,
    expired: u64,
    departures: Departures,
    /// Steps of evictions and compaction since the start.
    steps: u64,
    /// The copies of values since [`Store::take_uncharged`], in keys.
    copied: usize,
    /// The evictions and compaction for writes since then, in keys.
    reclaimed: usize,
    shared: Account,
}

/// Keys that have expired or were evicted and are to be reported.
#[derive(Debug)]
struct Departures {
    /// Versions up to this one are not reported.
    above: Version,
    keys: Vec<(Box<[u8]>, Version)>,
}

impl Store {
    /// An empty store that hashes with `secret` and holds at most `memory_max` bytes; 0: no limit.
    pub fn new(secret: HashSecret, memory_max: u64) -> Self {
        Self {
            secret,
            memory_max,
            index: Index::new(),
            heap: Heap::new(),
            timers: Timers::new(),
            compaction: Compaction::default(),
            queues: Queues::default(),
            deferred_free: DeferredFree::default(),
            reserved: 0,
            reserved_apart: 0,
            overdraft: 0,
            expired: 0,
            departures: Departures { above: Version::MAX, keys: Vec::new() },
            steps: 0,
            copied: 0,
            reclaimed: 0,
            shared: Account::default(),
        }
    }

    /// Counts copies of values, or work like it, in keys.
    pub const fn charge_copy(&mut self, keys: usize) {
        self.copied += keys;
    }

    /// The copies of values that are not charged yet, in keys.
    #[inline]
    pub const fn copied(&self) -> usize {
        self.copied
    }

    /// The work that requests caused beside their keys and their own bytes since the last call, in keys. 0 for most.
    #[inline]
    pub const fn take_uncharged(&mut self) -> usize {
        let keys = self.copied + self.reclaimed;
        if keys > 0 {
            (self.copied, self.reclaimed) = (0, 0);
        }
        keys
    }

    /// Makes [`Store::take_departures`] report keys that expire or are evicted from here on, if their version is
    /// above `version`. Initially [`Version::MAX`]: none is reported.
    pub fn report_departures_above(&mut self, version: Version) {
        self.departures.above = version;
    }

    /// Whether [`Store::take_departures`] would return any. O(1).
    pub fn has_departures(&self) -> bool {
        !self.departures.keys.is_empty()
    }

    /// The keys that have expired or were evicted since the last call, with their versions.
    pub fn take_departures(&mut self) -> Vec<(Box<[u8]>, Version)> {
        std::mem::take(&mut self.departures.keys)
    }

    /// Records the item at a handle, which has expired or is evicted, if it is to be reported.
    #[inline]
    fn departs(&mut self, handle: u32) {
        let version = self.heap.version(handle);
        if version > self.departures.above {
            self.departures.keys.push((self.heap.key(handle).into(), version));
        }
    }

    /// Masks all hashes, so that keys have equal hashes. For tests, before the first key.
    pub fn mask_hashes(&mut self, mask: u64) {
        self.secret = self.secret.clone().masked(mask);
    }

    /// Changes the limit, in bytes. Above a lower limit items are evicted by [`Store::reclaim`]; without eviction
    /// they stay, and writes are refused until there is room.
    pub fn set_memory_max(&mut self, memory_max: u64) {
        let had_limit = std::mem::replace(&mut self.memory_max, memory_max) != 0;
        if had_limit != (memory_max != 0) {
            self.reset_queues();
        }
    }

    /// The limit; 0: none.
    pub const fn memory_max(&self) -> u64 {
        self.memory_max
    }

    /// Sets the bytes outside the store that count against the limit: own filter and changelog. O(1).
    pub fn reserve(&mut self, bytes: u64) {
        self.reserved = bytes;
    }

    /// The same for a second count: tombstones and the history of requests. O(1).
    pub fn reserve_apart(&mut self, bytes: u64) {
        self.reserved_apart = bytes;
    }

    /// Offers the map that contains the request being executed, until the next call: a value that fills nearly all of
    /// the map is linked, not copied, if that is within the limit. `None` ends the offer.
    pub fn offer(&mut self, map: Option<Rc<SharedMemory>>) {
        self.heap.offer(map);
    }

    /// The value in the offered map, shared, if it fills nearly all of the map.
    pub fn share_offered(&self, value: &[u8]) -> Option<SharedBytes> {
        self.heap.share_offered(value, &self.shared)
    }

    /// Takes an idle map of about this many bytes, to receive a large value in it.
    pub fn take_idle(&mut self, bytes: usize) -> Option<Rc<SharedMemory>> {
        self.heap.take_idle(bytes)
    }

    /// Hashes a key for the other calls. Some 5 ns for a short key.
    pub fn key<'k>(&self, bytes: &'k [u8]) -> HashedKey<'k> {
        HashedKey { hash: self.secret.hash(bytes), bytes }
    }

    /// The item of `key`; `None` if it is absent or has expired. Three cache lines: directory, segment, item. O(log
    /// n) if thousands of keys have equal hashes.
    #[inline(always)]
    pub fn get(&self, now: Instant, key: HashedKey<'_>) -> Option<Item<'_>> {
        self.lookup(key).and_then(|(_, item)| unexpired(now, item))
    }

    /// The same, and counts a use of the item for eviction, if that is on: some 2 ns, and a write to a cache line
    /// that is read anyway.
    #[inline(always)]
    pub fn access(&mut self, now: Instant, key: HashedKey<'_>) -> Option<Item<'_>> {
        if !self.queues.is_on() {
            return self.get(now, key);
        }
        let handle = self.find(key)?;
        unexpired(now, self.heap.use_item(handle))
    }

    /// The value of `key` as immutable bytes; `None` if it is absent or has expired. A value over 128 KiB is shared
    /// with the store, and its memory is not freed before both drop it; a smaller one is copied.
    pub fn share(&self, now: Instant, key: HashedKey<'_>) -> Option<SharedBytes> {
        let handle = self.find(key)?;
        let item = unexpired(now, self.heap.item_at(handle))?;
        let shared = self.heap.share_value(handle, &self.shared);
        Some(shared.unwrap_or_else(|| self.shared.share(item.value.to_vec())))
    }

    /// The account of memory that was shared and is not the store's: copies, and values that the store has dropped.
    pub const fn shared(&self) -> &Account {
        &self.shared
    }

    /// The version of `key`, and whether it is unexpired; `None` if there is no item.
    pub fn version(&self, now: Instant, key: HashedKey<'_>) -> Option<(Version, bool)> {
        self.find(key).map(|handle| (self.heap.version(handle), self.is_alive(now, handle)))
    }

    /// Prefetches the index entry of a key that will be read soon, but not its item.
    #[inline]
    pub fn prefetch_index(&self, key: KeyHash) {
        self.index.fetch(key.0);
    }

    /// Prefetches the memory of up to [`PREFETCH_MAX`] keys that will be read next, so that their cache misses overlap.
    /// Costs some 5 ns per key and two cache misses in total; does not pay below four keys. Calls `visit_absent` for each
    /// key that is probably absent.
    #[inline]
    pub fn prefetch(&self, keys: &[KeyHash], mut visit_absent: impl FnMut(KeyHash)) {
        let keys = &keys[..keys.len().min(PREFETCH_MAX)];
        let mut homes = [None; PREFETCH_MAX];
        homes.iter_mut().zip(keys).for_each(|(home, key)| *home = self.index.fetch(key.0));
        // One bit per key that is not in its home bucket.
        let mut elsewhere = 0u64;
        for (at, (key, home)) in keys.iter().zip(&homes).enumerate() {
            match home.and_then(|home| Index::first(home, key.0)) {
                Some(handle) => self.heap.fetch(handle),
                None => {
                    self.index.fetch_next(key.0);
                    elsewhere |= 1 << at;
                }
            }
        }
        while elsewhere != 0 {
            let key = keys[elsewhere.trailing_zeros() as usize];
            elsewhere &= elsewhere - 1;
            match self.index.candidates(key.0).next() {
                Some(handle) => self.heap.fetch(handle),
                None => visit_absent(key),
            }
        }
    }

    /// Sets `key` to `value`, with an expiry or without one. Replaces the key's item, unless that is unexpired and
    /// has a higher version than `version`: then nothing is changed. Copies key and value; touches one segment of the
    /// index and splits it at most once.
    ///
    /// # Errors
    /// [`Full`] when there is no memory for it; nothing is changed then.
    pub fn set(
        &mut self,
        now: Instant,
        key: HashedKey<'_>,
        value: &[u8],
        expiry: Option<Expiry>,
        version: Version,
    ) -> Result<SetOutcome, Full> {
        match self.set_in_place(now, key, value, expiry, version) {
            Ok(outcome) => Ok(outcome),
            Err(old) => self.set_with_memory(now, key, value, expiry, version, old),
        }
    }

    /// Sets a key if that takes no memory, else returns its item, if there is one.
    #[inline(always)]
    fn set_in_place(
        &mut self,
        now: Instant,
        key: HashedKey<'_>,
        value: &[u8],
        expiry: Option<Expiry>,
        version: Version,
    ) -> Result<SetOutcome, Option<Held>> {
        let Some(old) = self.find_held(key) else { return Err(None) };
        if old.version > version && old.is_alive(now) {
            return Ok(SetOutcome::Newer);
        }
        if expiry.is_none() && self.put_in_place(key, value, version, old) {
            return Ok(SetOutcome::Replaced);
        }
        Err(Some(old))
    }

    /// Sets a key whose item, if there is one, is `old`, and reclaims memory for it if needed.
    #[inline(never)]
    fn set_with_memory(
        &mut self,
        now: Instant,
        key: HashedKey<'_>,
        value: &[u8],
        expiry: Option<Expiry>,
        version: Version,
        old: Option<Held>,
    ) -> Result<SetOutcome, Full> {
        let result = self.put(key, value, expiry, version, old);
        if !self.needs_memory(&result) {
            return result;
        }
        self.reclaiming(now, key.bytes.len() + value.len(), |store| {
            match store.set_in_place(now, key, value, expiry, version) {
                Ok(outcome) => Ok(outcome),
                Err(old) => store.put(key, value, expiry, version, old),
            }
        })
    }

    /// Overwrites an item of up to 16 KiB without an expiry by another one without an expiry, the most frequent case
    /// of a SET. Takes no memory, so the limit is not checked. False, and nothing changed, if it does not fit the
    /// slot.
    #[inline(always)]
    fn put_in_place(&mut self, key: HashedKey<'_>, value: &[u8], version: Version, old: Held) -> bool {
        let layout = Layout::new(key.bytes.len(), value.len(), false);
        if old.expiry.is_some()
            || layout.is_large()
            || self.check_size(layout.item_bytes()).is_err()
            || !self.heap.overwrite_value(old.handle, layout, value, version)
                && !self.heap.overwrite(old.handle, key.bytes, value, None, version)
        {
            return false;
        }
        if self.queues.is_on() {
            self.heap.count_use(old.handle);
        }
        true
    }

    /// Sets a key whose item, if there is one, is `old`.
    #[inline]
    fn put(
        &mut self,
        key: HashedKey<'_>,
        value: &[u8],
        expiry: Option<Expiry>,
        version: Version,
        old: Option<Held>,
    ) -> Result<SetOutcome, Full> {
        let is_offered = value.len() > MAPPED_BYTES_MIN && self.heap.is_offered(key.bytes, value);
        // If the limit leaves no room for both items, the value is copied over the old one.
        let is_linked = is_offered && self.check_room_for_item(key, value, expiry, None, true).is_ok();
        if self.memory_max != 0 && !is_linked {
            self.check_room_for_item(key, value, expiry, old.map(|old| old.handle), is_offered)?;
        }
        let Some(Held { handle: old, expiry: old_expiry, .. }) = old else {
            let handle = self.heap.add(key.bytes, value, expiry, version).ok_or_else(|| self.refused())?;
            self.index.insert(&heap_keys(&self.heap, &self.secret), key, handle);
            self.arm_new(expiry, handle);
            if self.queues.is_on() {
                self.enqueue(key.hash, handle, true);
            }
            return Ok(SetOutcome::Created);
        };
        let handle = if !is_linked && self.heap.overwrite(old, key.bytes, value, expiry, version) {
            old
        } else {
            let marks = self.heap.marks(old);
            let new = self.heap.add(key.bytes, value, expiry, version).ok_or_else(|| self.refused())?;
            self.index.replace(&heap_keys(&self.heap, &self.secret), key, old, new);
            self.heap.free(old);
            self.heap.set_marks(new, marks);
            new
        };
        if old_expiry.is_some() {
            self.timers.item_gone();
        }
        if handle == old && expiry == old_expiry {
            // The new item uses the timer of the old one.
            if expiry.is_some() {
                self.timers.item_added();
            }
        } else {
            self.arm_new(expiry, handle);
        }
        if self.queues.is_on() {
            self.heap.count_use(handle);
            if old_expiry.is_none() && expiry.is_some() {
                self.enqueue(key.hash, handle, false);
            }
        }
        Ok(SetOutcome::Replaced)
    }

    /// Changes the value and version of `key` and keeps its expiry: resizes the value to `len` bytes, added bytes
    /// being 0, and calls `edit` with it. In place if the new length fits the slot or large object, else in a copy.
    /// Returns the result of `edit`; `None`, without calling it, if the key is absent or has expired.
    ///
    /// # Errors
    /// [`Full`] when there is no memory for it; nothing is changed then.
    pub fn update<R>(
        &mut self,
        now: Instant,
        key: HashedKey<'_>,
        len: usize,
        version: Version,
        edit: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<Option<R>, Full> {
        let Some(old) = self.find(key).filter(|&handle| self.is_alive(now, handle)) else { return Ok(None) };
        if self.heap.resize_value(old, len, version) {
            return Ok(Some(edit(self.heap.value_mut(old))));
        }
        let expiry = self.heap.expiry(old);
        let mut value = Vec::new();
        let old_value = self.heap.item_at(old).value;
        if !reserve(&mut value, len.max(old_value.len())) {
            return Err(Full::System);
        }
        value.extend_from_slice(old_value);
        value.resize(len, 0);
        self.charge_copy(len / COPIED_BYTES_PER_KEY);
        let result = edit(&mut value);
        self.reclaiming(now, key.bytes.len() + len, |store| {
            let old = store.find_held(key);
            store.put(key, &value, expiry, version, old)
        })?;
        Ok(Some(result))
    }

    /// Removes `key`, unless its item has a version higher than `version`. An expired item is removed whatever its
    /// version, and counted as expired. Touches one segment of the index, and its buddy if both are merged.
    pub fn remove(&mut self, now: Instant, key: HashedKey<'_>, version: Version) -> RemoveOutcome {
        let Some(handle) = self.find(key) else { return RemoveOutcome::Absent };
        if self.is_newer(now, handle, version) {
            return RemoveOutcome::Newer;
        }
        // Its timer may have been dropped because allocation failed.
        let has_expired = !self.is_alive(now, handle);
        self.expired += u64::from(has_expired);
        if has_expired {
            self.departs(handle);
        }
        self.drop_item(key, handle);
        if has_expired { RemoveOutcome::Absent } else { RemoveOutcome::Removed }
    }

    /// Changes or removes the expiry of `key`, and keeps its version; true if it exists and is unexpired. The first
    /// expiry of an item may move it to another slot; removing one takes no memory.
    ///
    /// # Errors
    /// [`Full`] when there is no memory for that, or for the timer; nothing is changed then.
    pub fn set_expiry(
        &mut self,
        now: Instant,
        key: HashedKey<'_>,
        expiry: Option<Expiry>,
    ) -> Result<bool, Full> {
        self.reclaiming(now, 0, |store| {
            let Some(handle) = store.find(key).filter(|&handle| store.is_alive(now, handle)) else {
                return Ok(false);
            };
            let old = store.heap.expiry(handle);
            let Some(expiry) = expiry else {
                if old.is_some() {
                    store.heap.set_expiry(handle, None);
                    store.timers.item_gone();
                }
                return Ok(true);
            };
            if old != Some(expiry) {
                store.move_expiry(key, handle, expiry)?;
            }
            Ok(true)
        })
    }

    /// Restores the expiry that `key` had before [`Store::set_expiry`] changed it. Never fails: its slot has room for
    /// an expiry, and if its timer is dropped because allocation failed it still expires.
    pub fn restore_expiry(&mut self, key: HashedKey<'_>, expiry: Option<Expiry>) {
        let Some(handle) = self.find(key) else { return };
        self.heap.set_expiry(handle, expiry);
        match expiry {
            Some(expiry) => self.timers.arm(expiry, handle),
            None => self.timers.item_gone(),
        }
    }

    /// Changes the expiry of the item at `handle`.
    fn move_expiry(&mut self, key: HashedKey<'_>, handle: u32, expiry: Expiry) -> Result<(), Full> {
        let was_timed = self.heap.expiry(handle).is_some();
        let moving = if was_timed { 0 } else { self.heap.growth_bytes_to_move(handle) };
        self.check_room(moving + self.timers.growth_bytes_max(1), self.reserve_bytes())?;
        let handle = if self.heap.set_expiry(handle, Some(expiry)) {
            handle
        } else {
            let new = self.heap.copy_with_expiry(handle, expiry).ok_or_else(|| self.refused())?;
            self.index.replace(&heap_keys(&self.heap, &self.secret), key, handle, new);
            self.heap.free_slot(handle);
            new
        };
        self.timers.arm(expiry, handle);
        if !was_timed {
            self.timers.item_added();
            if self.queues.is_on() {
                self.enqueue(key.hash, handle, false);
            }
        }
        Ok(())
    }

    /// Removes all items. O(1): [`Store::reclaim`] returns their memory to the system; it is counted until then.
    pub fn clear(&mut self) {
        if self.is_empty() {
            return;
        }
        let heap = std::mem::replace(&mut self.heap, Heap::new());
        let index = std::mem::replace(&mut self.index, Index::emptied());
        let timers = std::mem::replace(&mut self.timers, Timers::new());
        self.compaction = Compaction::default();
        self.reset_queues();
        self.deferred_free.add(heap, index, timers);
    }

    /// Frees expired items, stale timers, cleared stores, and pages that were sparse for a while, in about `budget`
    /// steps, each of which checks one timer or moves one small item. Must be called while [`Store::has_work`].
    /// Returns the steps done.
    pub fn reclaim(&mut self, now: Instant, budget: u32) -> u32 {
        let left = self.keep_up(now, budget);
        let mut spent = budget - left;
        if self.has_stale_entries() {
            self.purge_queues(budget as usize);
            spent += budget;
        }
        if self.is_over_limit() {
            spent += budget;
            // Larger slots help writes, but not to get below the limit.
            self.heap.take_larger(true);
            self.reclaim_piece(now, 0);
            self.heap.take_larger(false);
        } else if !self.trim_due(now) && left > 0 {
            self.deferred_free.step();
            self.compact(now, left);
            spent += left;
        }
        spent
    }

    /// The part of [`Store::reclaim`] that must keep pace with writes: processes up to `budget` due timers, and
    /// checks as many others if too many are stale. With a budget of four after each write with an expiry and each
    /// removal there are at most two timers per item with an expiry and 64 Ki more. Returns the budget left.
    pub fn keep_up(&mut self, now: Instant, budget: u32) -> u32 {
        self.overdraft = 0;
        let left = self.expire(now, budget);
        if self.timers.has_too_many() {
            self.timers.purge(budget, &self.heap);
        }
        left
    }

    /// Whether [`Store::reclaim`] has work now. O(1).
    pub fn has_work(&self, now: Instant) -> bool {
        self.timers.has_due(now.millis())
            || self.timers.has_too_many()
            || !self.deferred_free.is_empty()
            || self.needs_trim(now)
            || self.has_stale_entries()
            || self.is_over_limit()
            || self.needs_compaction(now)
    }

    /// When [`Store::reclaim`] will have work, if it has none now; `None`: not before the next write. O(1).
    pub fn next_deadline(&self) -> Option<Instant> {
        let timers = self.timers.next_deadline().map(Instant::from_millis);
        timers.into_iter().chain(self.compaction.due()).min()
    }

    /// The number of items, including expired ones that are not freed yet.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Expired items freed since the start.
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// Timers, stale ones included. O(1).
    pub fn timers(&self) -> usize {
        self.timers.len()
    }

    /// Bytes held: pages, index and timers by capacity, cleared stores not yet freed, and the bytes of
    /// [`Store::reserve`]. O(1).
    pub fn memory_bytes(&self) -> u64 {
        self.memory().total()
    }

    /// The memory by kind. O(1).
    pub fn memory(&self) -> Memory {
        let (pages, large_objects) = self.heap.memory_by_kind();
        Memory {
            pages: pages as u64,
            large_objects: large_objects as u64,
            index: self.index.memory_bytes() as u64,
            timers: self.timers.memory_bytes() as u64,
            queues: self.queues.memory_bytes() as u64,
            deferred_free: self.deferred_free.memory_bytes() as u64,
            reserved: self.reserved + self.reserved_apart,
        }
    }

    /// The size classes that hold memory, the smallest first; objects over 128 KiB have no class. O(1): there are
    /// some hundred.
    pub fn classes(&self) -> impl Iterator<Item = ClassMemory> {
        self.heap.classes()
    }

    /// Bytes of the items themselves: their slots and large objects, an index entry per item and a timer per expiry.
    /// The rest of [`Store::memory_bytes`] is free or not yet returned to the system. O(1).
    pub fn live_bytes(&self) -> u64 {
        let entries = self.len() * INDEX_ENTRY_BYTES + self.timers.items() * TIMER_BYTES;
        (self.heap.live_bytes() + entries) as u64
    }

    /// The position and header of a key's item, for writes.
    #[inline]
    fn find_held(&self, key: HashedKey<'_>) -> Option<Held> {
        let (handle, item) = self.lookup(key)?;
        Some(Held { handle, expiry: item.expiry, version: item.version })
    }

    #[inline]
    fn find(&self, key: HashedKey<'_>) -> Option<u32> {
        self.lookup(key).map(|(handle, _)| handle)
    }

    #[inline(always)]
    fn lookup(&self, key: HashedKey<'_>) -> Option<(u32, Item<'_>)> {
        self.index.get(&heap_keys(&self.heap, &self.secret), key)
    }

    /// Whether an item is unexpired and has a higher version.
    #[inline]
    fn is_newer(&self, now: Instant, handle: u32, version: Version) -> bool {
        self.heap.version(handle) > version && self.is_alive(now, handle)
    }

    fn is_alive(&self, now: Instant, handle: u32) -> bool {
        self.heap.expiry(handle).is_none_or(|expiry| !expiry.has_come(now))
    }

    /// Limits the address space of the heap, for tests.
    #[cfg(test)]
    pub(crate) fn limit_regions(&mut self, regions_max: usize) {
        self.heap.limit_regions(regions_max);
    }

    /// Counts a new item with an expiry and arms its timer; does nothing without an expiry.
    fn arm_new(&mut self, expiry: Option<Expiry>, handle: u32) {
        if let Some(expiry) = expiry {
            self.timers.item_added();
            self.timers.arm(expiry, handle);
        }
    }

    /// Removes an item from index, timers and heap.
    fn drop_item(&mut self, key: HashedKey<'_>, handle: u32) {
        let removed = self.index.remove(&heap_keys(&self.heap, &self.secret), key, handle);
        debug_assert!(removed, "an item that is not in the index");
        if self.heap.expiry(handle).is_some() {
            self.timers.item_gone();
        }
        self.heap.free(handle);
        self.forget_queues_if_empty();
    }
}

/// The item of a key that is being written.
#[derive(Debug, Clone, Copy)]
struct Held {
    handle: u32,
    expiry: Option<Expiry>,
    version: Version,
}

impl Held {
    fn is_alive(&self, now: Instant) -> bool {
        self.expiry.is_none_or(|expiry| !expiry.has_come(now))
    }
}

#[inline]
fn unexpired(now: Instant, item: Item<'_>) -> Option<Item<'_>> {
    item.expiry.is_none_or(|expiry| !expiry.has_come(now)).then_some(item)
}

/// The keys in the heap, as the index accesses them.
#[derive(Debug, Clone, Copy)]
struct HeapKeys<'s> {
    heap: &'s Heap,
    secret: &'s HashSecret,
}

const fn heap_keys<'s>(heap: &'s Heap, secret: &'s HashSecret) -> HeapKeys<'s> {
    HeapKeys { heap, secret }
}

impl<'s> Keys for HeapKeys<'s> {
    type Item = Item<'s>;

    #[inline(always)]
    fn item(&self, handle: u32, key: HashedKey<'_>) -> Option<Item<'s>> {
        self.heap.item(handle, key.bytes)
    }

    #[inline]
    fn hash_of(&self, handle: u32) -> u64 {
        self.secret.hash(self.heap.key(handle)).0
    }

    fn hashes_of(&self, handles: &[u32], hashes: &mut [u64]) {
        handles.iter().for_each(|&handle| self.heap.fetch_key(handle));
        for (hash, &handle) in hashes.iter_mut().zip(handles) {
            *hash = self.hash_of(handle);
        }
    }

    fn order(&self, handle: u32, key: HashedKey<'_>) -> Ordering {
        let held = self.heap.key(handle);
        self.secret.hash(held).cmp(&key.hash).then_with(|| held.cmp(key.bytes))
    }
}

#[cfg(test)]
mod tests;
