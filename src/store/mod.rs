//! The items of one node: key, value, version, expiry. Bounded in memory, exact in time.
//!
//! Items expire on time, to the millisecond: every read compares the expiry with `now`. The timer wheel only
//! frees memory, in steps, through [`Store::reclaim`].
//!
//! A key is hashed once per request, by [`Store::key`]; all calls take the [`HashedKey`]. The hash is keyed with a
//! secret, so that clients cannot choose keys that collide.
//!
//! No operation reorganises the whole: the index grows by one segment of 4 KiB at a time, and background work
//! (expiry, purging of stale timers, compaction, deferred free) is done by [`Store::reclaim`] in steps. A write
//! that the memory limit refuses reclaims memory itself and tries again, see [`Store::set`].
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
mod scan;
mod segment;
mod segment_metadata;
mod size_classes;

pub use audit::Audit;
pub use eviction::Eviction;
pub use hash::{HashRange, HashSecret, HashedKey, KeyHash};
pub use item::{Expiry, Item, Version};
pub use memory::{ClassMemory, Memory};
pub use scan::{ScanCursor, SegmentScan};

use crate::base::memory::reserve;
use crate::base::shared_bytes::SharedBytes;
use crate::base::time::Instant;
use compaction::Compaction;
use deferred_free::DeferredFree;
use eviction::Queues;
use expiry::Timers;
use heap::Heap;
use index::{Index, Keys};
use item::Layout;
use pages::Spare;
use std::cmp::Ordering;

/// Keys that [`Store::prefetch`] fetches at most.
pub const PREFETCH_MAX: usize = 16;

/// Bytes of an item's share of its segment: a bucket of a cache line has twelve entries.
const INDEX_ENTRY_BYTES: usize = 6;

/// Bytes of a timer in a timer page.
const TIMER_BYTES: usize = 8;

/// Bytes above the limit that are left to changes which free memory sooner or later (an expiry, a smaller value):
/// at least these, or this share of the limit. An expiry takes some 16 bytes.
const RESERVE_BYTES_MIN: u64 = 256 << 10;
const RESERVE_SHARE: u64 = 32;

/// What grows beside the items, such as a filter, may go above the limit by this share of it until items are evicted.
const OVERSHOOT_SHARE: u64 = 16;

/// Timers, or moved items, of one piece of work that a write at the limit does.
const STEPS_PER_PIECE: u32 = 256;

/// Pieces of work that a write at the limit does at most, beside one per [`BYTES_PER_PIECE`].
const PIECES_PER_WRITE: usize = 16;

/// A piece of compaction frees about as many bytes.
const BYTES_PER_PIECE: usize = 8 * 1024;

/// One in so many bytes of the limit may be free in pages and slabs before these are compacted.
const FREE_SHARE: u64 = 32;

/// One in so many bytes of the limit may be free in pages that cannot be compacted, before one is emptied by eviction.
const SCATTERED_SHARE: u64 = 8;

/// Why a write was refused; nothing was changed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Live items leave no room for it within the memory limit.
    Limit {
        /// Bytes in use.
        used_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// What is to be set at once is larger than half of the memory limit.
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The address space of the heap is used: 32 GiB of items up to 16 KiB and headers of larger ones.
    Space,
    /// The system gives no more memory.
    System,
}

/// What [`Store::set`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOutcome {
    /// The key was not there: it is a key more.
    Created,
    /// The new item replaced another one, which may have expired.
    Replaced,
    /// Nothing: the item of the key has a higher version and stays.
    Newer,
}

/// What [`Store::remove`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveOutcome {
    /// The item is gone.
    Removed,
    /// There was none, or it had expired.
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
    /// Memory of cleared stores that is still to be freed.
    deferred_free: DeferredFree,
    /// Bytes held elsewhere that count against the limit.
    reserved: u64,
    reserved_apart: u64,
    /// Bytes above the limit that the writes at hand may take, since as much was reclaimed as one write may.
    overdraft: u64,
    expired: u64,
    departures: Departures,
}

/// Keys that have expired or were evicted, as far as somebody wants to know.
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
        }
    }

    /// From here on keys that expire or are evicted are reported by [`Store::take_departures`], if their version is above
    /// this one. With [`Version::MAX`], as at the start, none is.
    pub fn report_departures_above(&mut self, version: Version) {
        self.departures.above = version;
    }

    /// Whether [`Store::take_departures`] has something to return. O(1).
    pub fn has_departures(&self) -> bool {
        !self.departures.keys.is_empty()
    }

    /// The keys that have expired or were evicted since the last call, with their versions.
    pub fn take_departures(&mut self) -> Vec<(Box<[u8]>, Version)> {
        std::mem::take(&mut self.departures.keys)
    }

    /// Reports the item at a handle, which has expired or is evicted.
    #[inline]
    fn departs(&mut self, handle: u32) {
        let version = self.heap.version(handle);
        if version > self.departures.above {
            self.departures.keys.push((self.heap.key(handle).into(), version));
        }
    }

    /// Keeps only these bits of each hash, so that keys have equal hashes. For tests, before the first key.
    pub fn mask_hashes(&mut self, mask: u64) {
        self.secret = self.secret.clone().masked(mask);
    }

    /// Changes the limit. Items above a lower limit are evicted by [`Store::reclaim`], or else stay, and writes are
    /// refused until there is room.
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

    /// Counts `bytes` held elsewhere against the limit: own filter and changelog. O(1).
    pub fn reserve(&mut self, bytes: u64) {
        self.reserved = bytes;
    }

    /// The same, for bytes that are counted apart from those: tombstones, the history of requests. O(1).
    pub fn reserve_apart(&mut self, bytes: u64) {
        self.reserved_apart = bytes;
    }

    /// Whether `bytes` more stay within the limit, or not far above it while [`Store::reclaim`] evicts items. O(1).
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let above = if self.queues.may_evict() { self.memory_max / OVERSHOOT_SHARE } else { 0 };
        self.memory_max == 0 || self.memory_bytes().saturating_add(bytes) <= self.memory_max + above
    }

    /// Hashes a key for the other calls. Costs what xxh3 costs: some 5 ns for a short key.
    pub fn key<'k>(&self, bytes: &'k [u8]) -> HashedKey<'k> {
        HashedKey { hash: self.secret.hash(bytes), bytes }
    }

    /// The item of `key`; `None` if it is absent or has expired. Three cache lines: directory, segment, item.
    /// Logarithmic where thousands of keys have equal hashes.
    #[inline]
    pub fn get(&self, now: Instant, key: HashedKey<'_>) -> Option<Item<'_>> {
        let read = |handle| self.heap.item(handle, key.bytes);
        self.index.get(&heap_keys(&self.heap, &self.secret), key, read).and_then(|item| unexpired(now, item))
    }

    /// The same, and counts the use of the item for eviction: some 2 ns, and a write to a line that is read anyway,
    /// only while something can be evicted.
    #[inline]
    pub fn access(&mut self, now: Instant, key: HashedKey<'_>) -> Option<Item<'_>> {
        if !self.queues.is_on() {
            return self.get(now, key);
        }
        let handle = self.find(key)?;
        self.heap.count_use(handle);
        unexpired(now, self.heap.item_at(handle))
    }

    /// The value of `key`, unless it is absent or has expired, as bytes that stay what they are. A value of more than
    /// 128 KiB is shared with the store, and takes memory of its own once it is replaced; a smaller one is copied.
    pub fn share(&self, now: Instant, key: HashedKey<'_>) -> Option<SharedBytes> {
        let handle = self.find(key)?;
        let item = unexpired(now, self.heap.item_at(handle))?;
        Some(self.heap.share_value(handle).unwrap_or_else(|| item.value.to_vec().into()))
    }

    /// The version of `key`, and whether it has not expired yet; `None` if there is no item.
    pub fn version(&self, now: Instant, key: HashedKey<'_>) -> Option<(Version, bool)> {
        self.find(key).map(|handle| (self.heap.version(handle), self.is_alive(now, handle)))
    }

    /// Prefetches the memory of up to 16 keys that will be read next, so that their cache misses overlap. Costs
    /// some 5 ns per key and two cache misses in all; not worth it for fewer than four keys.
    pub fn prefetch(&self, keys: &[HashedKey<'_>]) {
        let keys = &keys[..keys.len().min(PREFETCH_MAX)];
        keys.iter().for_each(|key| self.index.fetch(key.hash.0));
        let (mut elsewhere, mut len) = ([KeyHash(0); PREFETCH_MAX], 0);
        for key in keys {
            match self.index.at_home(key.hash.0) {
                Some(handle) => self.heap.fetch(handle),
                None => {
                    elsewhere[len] = key.hash;
                    len += 1;
                }
            }
        }
        for hash in &elsewhere[..len] {
            if let Some(handle) = self.index.candidates(hash.0).next() {
                self.heap.fetch(handle);
            }
        }
    }

    /// Sets `key` to `value`, with an expiry or without; the item that it had, expiry included, is gone,
    /// unless its version is higher than `version` and it has not expired: then nothing is changed. Copies
    /// key and value; touches one segment of the index and splits it at most once.
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
        let result = self.set_once(now, key, value, expiry, version);
        if matches!(result, Err(Full::Limit { .. })) {
            return self.reclaiming(now, key.bytes.len() + value.len(), |store| {
                store.set_once(now, key, value, expiry, version)
            });
        }
        result
    }

    fn set_once(
        &mut self,
        now: Instant,
        key: HashedKey<'_>,
        value: &[u8],
        expiry: Option<Expiry>,
        version: Version,
    ) -> Result<SetOutcome, Full> {
        let old = self.find_held(key);
        if old.is_some_and(|old| old.version > version && old.is_alive(now)) {
            return Ok(SetOutcome::Newer);
        }
        self.put(key, value, expiry, version, old)
    }

    /// Attempts a write of `bytes` bytes. While the limit refuses it, reclaims memory in bounded pieces and tries
    /// again, until nothing is left to reclaim or as many pieces are done as such a write may cost.
    #[cold]
    fn reclaiming<R>(
        &mut self,
        now: Instant,
        bytes: usize,
        mut attempt: impl FnMut(&mut Self) -> Result<R, Full>,
    ) -> Result<R, Full> {
        // Nothing is evicted: a page given away for a segment that splits would be one less for items.
        self.index.avoid_splits(!self.queues.may_evict());
        let mut result = attempt(self);
        let mut pieces = PIECES_PER_WRITE + bytes / BYTES_PER_PIECE;
        while matches!(result, Err(Full::Limit { .. })) && pieces > 0 && self.reclaim_piece(now, bytes) {
            result = attempt(self);
            pieces -= 1;
        }
        if matches!(result, Err(Full::Limit { .. })) && self.queues.may_evict() {
            // The rest is reclaimed by the next writes, or as due work.
            self.overdraft = self.overdraft_max();
            result = attempt(self);
            self.overdraft = 0;
        }
        self.heap.take_larger(Spare::None);
        self.index.avoid_splits(false);
        result
    }

    /// Reclaims memory because a write of `bytes` bytes found none: expired items, idle memory, cleared stores, then
    /// items by eviction, and pages and regions with free slots. False if there is nothing to reclaim. Some 60 µs.
    #[cold]
    fn reclaim_piece(&mut self, now: Instant, bytes: usize) -> bool {
        if self.timers.has_due(now.millis()) {
            self.expire(now, STEPS_PER_PIECE);
            return true;
        }
        if self.trim() || self.heap.release_spare() || self.index.release_spare() {
            return true;
        }
        if !self.deferred_free.is_empty() {
            self.deferred_free.step();
            return true;
        }
        let (timers, stale) =
            (self.timers.len(), self.timers.len() - self.timers.items().min(self.timers.len()));
        if (stale * TIMER_BYTES) as u64 > self.free_bytes_max() {
            self.timers.purge(STEPS_PER_PIECE, &self.heap);
            if self.timers.len() < timers {
                return true;
            }
        }
        // Nearly full pages are not worth emptying while something can be evicted.
        let is_worth_it = !self.queues.may_evict() || self.heap.free_bytes() as u64 > self.free_bytes_max();
        if is_worth_it && self.compact_now(STEPS_PER_PIECE, true) {
            return true;
        }
        // With a page for each of many classes, much can be free and no page can be emptied.
        let is_scattered = is_worth_it && self.heap.free_bytes() as u64 > self.memory_max / SCATTERED_SHARE;
        let spare =
            if is_scattered && self.heap.spare() != Spare::None { Spare::Double } else { Spare::Quarter };
        if is_worth_it && self.heap.spare() < spare {
            return self.heap.take_larger(spare);
        }
        is_scattered && self.evict_page() || self.evict(now, bytes) || self.compact_now(STEPS_PER_PIECE, true)
    }

    /// Free bytes in pages and slabs above which these are compacted before anything is evicted.
    const fn free_bytes_max(&self) -> u64 {
        self.memory_max / FREE_SHARE
    }

    /// Whether items are to be evicted as due work.
    fn is_over_limit(&self) -> bool {
        self.queues.may_evict() && self.memory_bytes() > self.memory_max
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
        if self.memory_max != 0 {
            self.check_room_for_item(key, value, expiry, old.map(|old| old.handle))?;
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
        let handle = if self.heap.overwrite(old, key.bytes, value, expiry, version) {
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
            // The timer of the old item is that of the new one.
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

    /// Changes the value and version of `key` and keeps its expiry: the value gets the length `len`, added bytes
    /// being 0, then `edit` changes it. In place if the new length fits the slot or large object, else in a copy.
    /// Returns what `edit` returned; `None`, and `edit` is not called, if the key is absent or has expired.
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
        let result = edit(&mut value);
        self.reclaiming(now, key.bytes.len() + len, |store| {
            let old = store.find_held(key);
            store.put(key, &value, expiry, version, old)
        })?;
        Ok(Some(result))
    }

    /// Reclaims memory until `items` items with `bytes` bytes of keys and values in all can be set one after the
    /// other without an error, even if none replaces another, each is of another size class, and each splits a
    /// segment: an estimate that is never too low, for writes of several keys that are done as a whole.
    ///
    /// # Errors
    /// [`Full`] if memory for that cannot be had.
    pub fn make_room(&mut self, now: Instant, items: usize, bytes: usize) -> Result<(), Full> {
        self.reclaiming(now, bytes, |store| store.check_room_for_items(items, bytes))?;
        if self.check_room_for_items(items, bytes).is_err() {
            // Until the writes are done.
            self.overdraft = self.overdraft_max();
        }
        Ok(())
    }

    /// Removes `key`, unless its item has a version higher than `version`. An item that has expired is removed
    /// whatever its version, and counted as expired. Touches one segment of the index, and its buddy when
    /// both can be merged.
    pub fn remove(&mut self, now: Instant, key: HashedKey<'_>, version: Version) -> RemoveOutcome {
        let Some(handle) = self.find(key) else { return RemoveOutcome::Absent };
        if self.is_newer(now, handle, version) {
            return RemoveOutcome::Newer;
        }
        // Its timer may have been dropped for want of memory.
        let has_expired = !self.is_alive(now, handle);
        self.expired += u64::from(has_expired);
        if has_expired {
            self.departs(handle);
        }
        self.drop_item(key, handle);
        if has_expired { RemoveOutcome::Absent } else { RemoveOutcome::Removed }
    }

    /// Gives `key` another expiry, or none, and keeps its version; true if it was there and had not expired.
    /// The first expiry of an item may move it to another slot; to remove one needs no memory.
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

    /// Gives `key` back the expiry that it had before [`Store::set_expiry`] gave it another. That takes no memory: its
    /// slot has room for one, and if its timer is dropped for want of memory it expires all the same.
    pub fn restore_expiry(&mut self, key: HashedKey<'_>, expiry: Option<Expiry>) {
        let Some(handle) = self.find(key) else { return };
        self.heap.set_expiry(handle, expiry);
        match expiry {
            Some(expiry) => self.timers.arm(expiry, handle),
            None => self.timers.item_gone(),
        }
    }

    /// Gives the item of a key, which is at `handle`, another expiry.
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

    /// Removes all items. O(1): their memory is returned to the system by [`Store::reclaim`] and counted until then.
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

    /// Frees expired items, stale timers, cleared stores, and pages that have been sparse for a while: about
    /// `budget` steps, each of which checks one timer or moves one small item. To be called while
    /// [`Store::has_work`].
    pub fn reclaim(&mut self, now: Instant, budget: u32) {
        let left = self.keep_up(now, budget);
        if self.has_stale_entries() {
            self.purge_queues(budget as usize);
        }
        if self.is_over_limit() {
            // Larger slots help writes, not to get below the limit.
            self.heap.take_larger(Spare::Double);
            self.reclaim_piece(now, 0);
            self.heap.take_larger(Spare::None);
        } else if !self.trim() && left > 0 {
            self.deferred_free.step();
            self.compact(now, left);
        }
    }

    /// The part of [`Store::reclaim`] that must keep up with writes: up to `budget` due timers, and as many others
    /// if too many are stale. With a budget of four after each write with an expiry and each removal there are
    /// at most two timers per item with an expiry and 64 Ki more. Returns the budget left.
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
            || self.has_idle()
            || self.has_stale_entries()
            || self.is_over_limit()
            || self.wants_compaction(now)
    }

    /// When [`Store::reclaim`] will next have work, if it has none now; `None` if nothing is planned. O(1).
    pub fn next_deadline(&self) -> Option<Instant> {
        let timers = self.timers.next_deadline().map(Instant::from_millis);
        timers.into_iter().chain(self.compaction.due()).min()
    }

    /// Items held, expired ones that are not yet freed included.
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

    /// The size classes that hold memory, the smallest first; objects over 128 KiB have none. O(1): there are some
    /// hundred.
    pub fn classes(&self) -> impl Iterator<Item = ClassMemory> {
        self.heap.classes()
    }

    /// Bytes that the items themselves take: their slots or large objects, an entry of the index each and, with
    /// an expiry, a timer. The rest of [`Store::memory_bytes`] is free or waits to be given back. O(1).
    pub fn live_bytes(&self) -> u64 {
        let entries = self.len() * INDEX_ENTRY_BYTES + self.timers.items() * TIMER_BYTES;
        (self.heap.live_bytes() + entries) as u64
    }

    /// The item of a key, as far as a write needs it.
    #[inline]
    fn find_held(&self, key: HashedKey<'_>) -> Option<Held> {
        let read = |handle| {
            let item = self.heap.item(handle, key.bytes)?;
            Some(Held { handle, expiry: item.expiry, version: item.version })
        };
        self.index.get(&heap_keys(&self.heap, &self.secret), key, read)
    }

    #[inline]
    fn find(&self, key: HashedKey<'_>) -> Option<u32> {
        let read = |handle| self.heap.item(handle, key.bytes).map(|_| handle);
        self.index.get(&heap_keys(&self.heap, &self.secret), key, read)
    }

    /// Whether an item that has not expired has a higher version.
    #[inline]
    fn is_newer(&self, now: Instant, handle: u32, version: Version) -> bool {
        self.heap.version(handle) > version && self.is_alive(now, handle)
    }

    fn is_alive(&self, now: Instant, handle: u32) -> bool {
        self.heap.expiry(handle).is_none_or(|expiry| !expiry.has_come(now))
    }

    /// Makes the address space of the heap smaller than 32 GiB, for tests.
    #[cfg(test)]
    pub(crate) fn limit_regions(&mut self, regions_max: usize) {
        self.heap.limit_regions(regions_max);
    }

    /// The reason why the heap has no slot.
    fn refused(&self) -> Full {
        if self.heap.has_space_for(1) { Full::System } else { Full::Space }
    }

    /// Checks whether `more` bytes stay within the limit and `reserve` bytes above it.
    fn check_room(&self, more: usize, reserve: u64) -> Result<(), Full> {
        let reserve = reserve.max(self.overdraft);
        if self.memory_max == 0 || self.memory_bytes() + more as u64 <= self.memory_max + reserve {
            return Ok(());
        }
        Err(Full::Limit { used_bytes: self.memory_bytes(), limit_bytes: self.memory_max })
    }

    fn overdraft_max(&self) -> u64 {
        self.reserve_bytes() + self.memory_max / OVERSHOOT_SHARE
    }

    fn reserve_bytes(&self) -> u64 {
        RESERVE_BYTES_MIN.max(self.memory_max / RESERVE_SHARE)
    }

    fn check_room_for_items(&self, items: usize, bytes: usize) -> Result<(), Full> {
        if !self.heap.has_space_for(self.heap.pages_max(items, bytes)) {
            return Err(Full::Space);
        }
        self.check_size(bytes)?;
        let heap = self.heap.growth_bytes_max(items, bytes);
        let index = self.index.growth_bytes_max(items);
        self.check_room(heap + index + self.timers.growth_bytes_max(items), 0)
    }

    /// Checks that what is set at once leaves half of the limit to other items: nothing is evicted for more.
    const fn check_size(&self, bytes: usize) -> Result<(), Full> {
        let limit_bytes = self.memory_max;
        if limit_bytes != 0 && bytes as u64 > limit_bytes / 2 {
            return Err(Full::TooLarge { limit_bytes });
        }
        Ok(())
    }

    /// Checks the limit for one item as exactly as can be known.
    fn check_room_for_item(
        &self,
        key: HashedKey<'_>,
        value: &[u8],
        expiry: Option<Expiry>,
        old: Option<u32>,
    ) -> Result<(), Full> {
        let layout = Layout::new(key.bytes.len(), value.len(), expiry.is_some());
        let index = if old.is_some() { 0 } else { self.index.growth_bytes(key.hash.0) };
        let timers = if expiry.is_some() { self.timers.growth_bytes_max(1) } else { 0 };
        // A smaller item in place of a larger one leaves more room than it takes.
        let is_smaller = old.is_some_and(|old| layout.item_bytes() < self.heap.item_bytes(old));
        if !is_smaller {
            self.check_size(layout.item_bytes())?;
        }
        let reserve = if is_smaller { self.reserve_bytes() } else { 0 };
        self.check_room(self.heap.growth_bytes(layout, old) + index + timers, reserve)
    }

    /// Counts and arms the timer of an item that was written, if it has an expiry.
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

/// An item that is there.
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

/// The keys of the heap, for the index.
#[derive(Debug, Clone, Copy)]
struct HeapKeys<'s> {
    heap: &'s Heap,
    secret: &'s HashSecret,
}

const fn heap_keys<'s>(heap: &'s Heap, secret: &'s HashSecret) -> HeapKeys<'s> {
    HeapKeys { heap, secret }
}

impl Keys for HeapKeys<'_> {
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
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "bounded by the tables of the test")]

    use super::{Expiry, Full, HashSecret, RemoveOutcome, Store, Version};
    use crate::base::rng::Rng;
    use crate::base::time::Instant;
    use crate::base::wheel::Popped;

    const PAGE_BYTES: u64 = 64 * 1024;
    /// Of a store with little room.
    const ROOM_BYTES: u64 = 2 << 20;

    fn store(memory_max: u64) -> Store {
        Store::new(HashSecret::draw(&mut Rng::new(1)), memory_max)
    }

    fn set(store: &mut Store, id: u64, value_len: usize, expiry: Option<Expiry>) -> bool {
        let value = vec![id as u8; value_len];
        store.set(Instant::ZERO, store.key(&id.to_be_bytes()), &value, expiry, Version::MAX).is_ok()
    }

    fn has(store: &Store, now: Instant, id: u64) -> bool {
        store.get(now, store.key(&id.to_be_bytes())).is_some()
    }

    fn remove(store: &mut Store, id: u64) -> bool {
        remove_at(store, Instant::ZERO, id) == RemoveOutcome::Removed
    }

    fn remove_at(store: &mut Store, now: Instant, id: u64) -> RemoveOutcome {
        store.remove(now, store.key(&id.to_be_bytes()), Version::MAX)
    }

    fn reconcile(store: &mut Store, now: Instant) {
        for _ in 0..100_000 {
            if !store.has_work(now) {
                return;
            }
            store.reclaim(now, 256);
        }
        panic!("work without end");
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    fn after(seconds: u64) -> Option<Expiry> {
        Expiry::in_seconds(Instant::ZERO, seconds)
    }

    #[test]
    fn expired_item_is_not_served_whether_freed_or_not() {
        let mut store = store(0);
        set(&mut store, 1, 10, after(5));
        assert!(has(&store, Instant::from_millis(4_999), 1) && !has(&store, at(5), 1));
        assert_eq!((store.len(), store.next_deadline().is_some()), (1, true));
        reconcile(&mut store, at(5));
        assert_eq!((store.len(), store.expired(), store.next_deadline()), (0, 1, None));
    }

    #[test]
    fn stale_timer_does_not_remove_the_item_that_reuses_its_slot() {
        let mut store = store(0);
        set(&mut store, 1, 10, after(5));
        remove(&mut store, 1);
        set(&mut store, 2, 10, after(9));
        reconcile(&mut store, at(5));
        assert!(has(&store, at(5), 2));
        assert_eq!((store.len(), store.expired(), store.timers()), (1, 0, 1));
        store.audit();
    }

    #[test]
    fn removal_of_an_expired_item_frees_it_though_its_timer_was_dropped() {
        let mut store = store(0);
        set(&mut store, 1, 10, after(5));
        while store.timers.pop(5_000) != Popped::Idle {}
        reconcile(&mut store, at(5));
        assert_eq!((store.len(), store.timers()), (1, 0));
        assert_eq!(remove_at(&mut store, at(5), 1), RemoveOutcome::Absent);
        assert_eq!((store.len(), store.expired()), (0, 1));
        store.audit();
    }

    #[test]
    fn last_expiry_set_is_the_one_that_counts() {
        let mut store = store(0);
        set(&mut store, 1, 10, after(5));
        let key = 1u64.to_be_bytes();
        for seconds in [3, 20, 5, 9] {
            assert_eq!(
                store.set_expiry(Instant::ZERO, store.key(&key), Some(after(seconds).unwrap())),
                Ok(true)
            );
        }
        reconcile(&mut store, Instant::from_millis(8_999));
        assert!(has(&store, Instant::from_millis(8_999), 1));
        reconcile(&mut store, at(9));
        assert_eq!((store.len(), store.timers()), (0, 1));
    }

    #[test]
    fn refused_write_changes_nothing_and_deletes_go_on() {
        let mut store = store(ROOM_BYTES);
        let full = (0..).find(|&id| !set(&mut store, id, 100, None)).unwrap();
        assert!(store.memory_bytes() <= ROOM_BYTES && full > 10_000, "{full}");
        let before = store.audit();
        assert!(!set(&mut store, full, 100, None) && !set(&mut store, 0, 5_000, None));
        assert_eq!(store.audit(), before);
        assert_eq!(store.get(Instant::ZERO, store.key(&0u64.to_be_bytes())).unwrap().value.len(), 100);
        // One of the same size in place of another needs no more memory.
        assert!(set(&mut store, 0, 100, None));
        assert!(remove(&mut store, 5) && set(&mut store, 5, 100, None));
    }

    #[test]
    fn write_of_several_keys_that_room_was_made_for_is_not_refused() {
        let mut rng = Rng::new(3);
        let mut store = store(16 * ROOM_BYTES);
        let (mut id, mut granted, mut denied) = (0, 0, 0);
        while denied < 50 {
            let (count, bits) = (1 + rng.below(600), rng.below(14));
            let sizes: Vec<usize> = (0..count).map(|_| rng.below(1 << bits) as usize).collect();
            let bytes = sizes.iter().sum::<usize>() + 8 * sizes.len();
            if store.make_room(Instant::ZERO, sizes.len(), bytes).is_err() {
                denied += 1;
                continue;
            }
            granted += 1;
            for len in sizes {
                let expiry = if rng.one_in(2) { after(1_000 + rng.below(1 << 20)) } else { None };
                assert!(set(&mut store, id, len, expiry), "item {id}, after {granted} times");
                id += 1;
            }
        }
        assert!(store.memory_bytes() > 6 * ROOM_BYTES, "{} of 32 MiB", store.memory_bytes() >> 20);
    }

    #[test]
    fn used_address_space_is_reported_apart_from_the_limit_before_anything_is_set() {
        let mut store = store(0);
        store.limit_regions(4);
        let mut id = 0;
        while store.make_room(Instant::ZERO, 10, 10 * 1_000).is_ok() {
            (0..10).for_each(|_| {
                id += 1;
                assert!(set(&mut store, id, 900, None), "refused though there is room");
            });
        }
        assert_eq!(store.make_room(Instant::ZERO, 10, 10 * 1_000), Err(Full::Space));
        let last = (id + 1..).find(|&id| !set(&mut store, id, 900, None)).unwrap();
        let key = last.to_be_bytes();
        let refused = store.set(Instant::ZERO, store.key(&key), &[0; 900], None, Version(0));
        assert_eq!(refused, Err(Full::Space));
        // A large object needs a slot for its header only.
        assert!(remove(&mut store, 1) && set(&mut store, last, 900, None));
        store.audit();
    }

    #[test]
    fn first_expiries_stay_within_the_reserve_or_change_nothing() {
        for len in [20, 100, 16_000, 16_360, 100_000] {
            let mut store = store(ROOM_BYTES);
            let full = (0..).find(|&id| !set(&mut store, id, len, None)).unwrap();
            let mut refused = 0;
            for id in 0..full {
                let key = id.to_be_bytes();
                let result =
                    store.set_expiry(Instant::ZERO, store.key(&key), Some(after(1_000 + id).unwrap()));
                refused += u64::from(result.is_err());
                let timed = store.get(Instant::ZERO, store.key(&key)).unwrap().expiry.is_some();
                let most = ROOM_BYTES + store.reserve_bytes();
                assert_eq!((result.is_ok(), store.memory_bytes() <= most), (timed, true), "{len}");
            }
            // Those whose slot has room for an expiry need a timer page alone.
            assert!(refused > 0 || len == 16_000 || len == 100_000, "{len}");
            store.audit();
        }
    }

    #[test]
    fn memory_is_returned_when_everything_is_deleted() {
        let mut rng = Rng::new(5);
        let mut store = store(0);
        for id in 0..60_000 {
            let len = rng.below(1_500) as usize;
            set(&mut store, id, len, after(10 + id));
        }
        let filled = store.memory_bytes();
        for id in (0..60_000).rev() {
            assert!(remove(&mut store, id));
        }
        reconcile(&mut store, at(100_000));
        assert!(store.memory_bytes() < 8 * PAGE_BYTES && filled > 40 << 20, "{}", store.memory_bytes());
        store.audit();
    }

    #[test]
    fn pages_are_returned_after_a_shift_of_value_sizes() {
        shift_of_sizes(u64::MAX, 100_000);
        // Moved within the overflow, too.
        shift_of_sizes(0, 10_000);
    }

    fn shift_of_sizes(mask: u64, items: u64) {
        let mut rng = Rng::new(6);
        let mut store = Store::new(HashSecret::draw(&mut rng).masked(mask), 0);
        (0..items).for_each(|id| assert!(set(&mut store, id, 200, after(1_000_000))));
        let before = store.memory_bytes();
        let kept: Vec<u64> = (0..items).filter(|_| rng.one_in(10)).collect();
        let mut kept_at = kept.iter().copied().peekable();
        for id in 0..items {
            if kept_at.next_if_eq(&id).is_none() {
                remove(&mut store, id);
            }
        }
        reconcile(&mut store, Instant::ZERO);
        let (pause, timers) = (store.next_deadline().unwrap(), store.timers());
        reconcile(&mut store, pause);
        let few = items < 100_000;
        assert!(few || store.memory_bytes() < before / 2, "{} of {before}", store.memory_bytes());
        assert!(store.audit().timers > timers, "nothing was moved");
        assert!(kept.iter().all(|&id| has(&store, pause, id)) && store.len() == kept.len());
        reconcile(&mut store, at(1_000_000));
        assert_eq!((store.len(), store.expired() as usize), (0, kept.len()));
    }

    #[test]
    fn compaction_continues_when_deletions_empty_its_page() {
        let mut store = store(0);
        (0..20_000).for_each(|id| assert!(set(&mut store, id, 200, None)));
        (0..20_000).filter(|id| id % 10 != 0).for_each(|id| assert!(remove(&mut store, id)));
        reconcile(&mut store, Instant::ZERO);
        let (pause, sparse_bytes) = (store.next_deadline().unwrap(), store.memory_bytes());
        store.reclaim(pause, 20);
        let emptying = store.heap.page_to_empty(false, true).unwrap();
        assert!(emptying.slot > 0);
        while let Some((handle, _)) = store.heap.next_live(emptying.page, 0) {
            let key = store.heap.key(handle).to_vec();
            assert_eq!(store.remove(pause, store.key(&key), Version::MAX), RemoveOutcome::Removed);
        }
        reconcile(&mut store, pause);
        assert!(store.memory_bytes() < sparse_bytes / 2, "{} of {sparse_bytes}", store.memory_bytes());
        store.audit();
    }

    #[test]
    fn compaction_is_charged_for_free_slots_that_it_reads() {
        let mut store = store(0);
        (0..60_000).for_each(|id| assert!(set(&mut store, id, 0, after(1_000_000))));
        (0..60_000).filter(|id| id % 320 != 319).for_each(|id| assert!(remove(&mut store, id)));
        reconcile(&mut store, Instant::ZERO);
        let (pause, timers) = (store.next_deadline().unwrap(), store.timers());
        store.reclaim(pause, 64);
        // One found, and 319 looked at before it, is worth 10 steps.
        let moved = store.timers() - timers;
        assert!((1..=8).contains(&moved), "{moved}");
    }

    #[test]
    fn cleared_store_is_empty_at_once_and_is_freed_in_steps() {
        let mut store = store(0);
        (0..100_000).for_each(|id| {
            assert!(set(
                &mut store,
                id,
                100 + id as usize % 3 * 20_000 * usize::from(id % 1_000 == 0),
                after(50)
            ))
        });
        let before = store.memory_bytes();
        store.clear();
        assert!(store.is_empty() && !has(&store, Instant::ZERO, 7));
        assert!(store.memory_bytes() >= before);
        set(&mut store, 7, 10, None);
        store.clear();
        set(&mut store, 8, 10, None);
        reconcile(&mut store, Instant::ZERO);
        assert!(store.memory_bytes() < 8 * PAGE_BYTES, "{}", store.memory_bytes());
        assert!(has(&store, at(100), 8) && store.len() == 1);
        reconcile(&mut store, at(100));
        assert_eq!(store.expired(), 0);
        store.audit();
    }

    #[test]
    fn clearing_again_and_again_leaves_nothing_to_be_freed() {
        let mut store = store(0);
        let before = store.memory_bytes();
        (0..10_000).for_each(|_| store.clear());
        assert!(store.memory_bytes() == before && !store.has_work(Instant::ZERO));
        for id in 0..10_000 {
            set(&mut store, id, 10, after(9));
            store.clear();
        }
        assert_eq!(store.memory_bytes(), before);
        store.audit();
    }

    #[test]
    fn timers_of_deleted_items_do_not_accumulate() {
        let mut store = store(0);
        let mut rng = Rng::new(7);
        (0..1_000).for_each(|id| assert!(set(&mut store, id, 10, after(1 << 20))));
        for id in 1_000..300_000 {
            set(&mut store, id, 10, after(1_000 + rng.below(1 << 18)));
            remove(&mut store, id);
            if store.has_work(Instant::ZERO) {
                store.reclaim(Instant::ZERO, 4);
            }
            assert!(store.timers() <= 2 * 1_000 + 64 * 1_024);
        }
        store.audit();
    }

    #[test]
    fn purge_ends_for_an_item_given_two_expiries_in_alternation() {
        let mut store = store(0);
        set(&mut store, 1, 10, after(1_000));
        let key = 1u64.to_be_bytes();
        for turn in 0..200_000 {
            let expiry = after(1_000 + turn % 2).unwrap();
            assert_eq!(store.set_expiry(Instant::ZERO, store.key(&key), Some(expiry)), Ok(true));
        }
        reconcile(&mut store, Instant::ZERO);
        reconcile(&mut store, at(1_001));
        assert_eq!((store.len(), store.timers()), (0, 0));
    }

    #[test]
    fn equal_hashes_take_at_most_twice_the_memory_and_are_all_found() {
        let memory = |mask, keys| {
            let mut store = Store::new(HashSecret::draw(&mut Rng::new(1)).masked(mask), 0);
            (0..keys).for_each(|id| assert!(set(&mut store, id, 8, None)));
            assert!((0..keys).all(|id| has(&store, Instant::ZERO, id)) && !has(&store, Instant::ZERO, keys));
            let audit = store.audit();
            assert!(audit.segments < 2 * keys as usize / 300 + 40, "{audit:?}");
            (0..keys).for_each(|id| assert!(remove(&mut store, id)));
            assert!(store.audit().segments <= 1);
            audit.memory_bytes
        };
        for keys in [3_000, 65_536] {
            assert!(memory(0, keys) <= 2 * memory(u64::MAX, keys));
        }
    }
}
