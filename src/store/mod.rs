//! The items of one node: keys, values, deadlines. Bounded in memory, exact in time.
//!
//! An item is never served past its deadline: every reading compares it with `now`. The timer wheel
//! only gives the memory back, in steps, through [`Store::reclaim`].
//!
//! A key is hashed once per request, by [`Store::key`]; the [`HashedKey`] then serves every call. The
//! hash is keyed with a secret, so nobody outside can choose keys that collide.
//!
//! Nothing here ever stops to reorganise: the index grows one segment of 4 KiB at a time, and what goes
//! on in the background (expiry, sifting of dead timers, compaction, freeing after [`Store::clear`]) is
//! done by [`Store::reclaim`], as much at a time as the caller allows.
//!
//! ```text
//! key ── hash ──► index (directory ► segment of 4 KiB) ── handle ──► heap (page ► slot: the item)
//!                                                   deadline, handle ──► timers (wheel)
//! ```
//!
//! Not here: who may write, what a command answers, whether another node holds the key, the time.

mod audit;
mod compact;
mod expiry;
mod hash;
mod heap;
mod index;
mod item;
mod outside;
mod overflow;
mod pages;
mod segment;
mod sizes;

pub use audit::Audit;
pub use hash::{HashSecret, HashedKey, KeyHash};
pub use item::{Deadline, Item, Version};

use crate::base::time::Instant;
use compact::{Compaction, Grave};
use expiry::Timers;
use heap::Heap;
use index::{Index, Keys};
use item::Layout;
use std::cmp::Ordering;
use std::collections::VecDeque;

/// Keys that [`Store::read_ahead`] takes up at most.
const READ_AHEAD_MAX: usize = 16;

/// Why a write was refused; nothing was changed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// Bytes in use.
    pub used_bytes: u64,
    /// The limit that the write would have passed.
    pub limit_bytes: u64,
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
    /// What [`Store::clear`] left to be freed.
    graves: VecDeque<Grave>,
    expired: u64,
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
            graves: VecDeque::new(),
            expired: 0,
        }
    }

    /// Changes the limit. Items above a lower one stay; writes are refused until there is room.
    pub fn set_memory_max(&mut self, memory_max: u64) {
        self.memory_max = memory_max;
    }

    /// Hashes a key for the other calls. Costs what xxh3 costs: some 5 ns for a short key.
    pub fn key<'k>(&self, bytes: &'k [u8]) -> HashedKey<'k> {
        HashedKey { hash: self.secret.hash(bytes), bytes }
    }

    /// The item of `key`, unless there is none or its deadline has come. Three cache lines: directory,
    /// segment, item. Logarithmic where thousands of keys have one hash.
    #[inline]
    pub fn get(&self, now: Instant, key: HashedKey<'_>) -> Option<Item<'_>> {
        let item = self.heap.item(self.find(key)?);
        item.deadline.is_none_or(|deadline| !deadline.has_come(now)).then_some(item)
    }

    /// Reads the memory of up to 16 keys that will be asked for next, all at once, so that the calls that
    /// follow find it in the cache. Changes nothing; costs about as much as two look-ups when the memory
    /// is far, and is not worth it for fewer than four keys.
    pub fn read_ahead(&self, keys: &[HashedKey<'_>]) {
        let mut handles = [None; READ_AHEAD_MAX];
        for (key, handle) in keys.iter().zip(&mut handles) {
            *handle = self.index.likely(*key);
        }
        let read = handles.iter().flatten().fold(0, |sum, &handle| sum ^ self.heap.peek(handle));
        std::hint::black_box(read);
    }

    /// Sets `key` to `value`, with a deadline or for ever; what it held before, deadline included, is gone.
    /// Copies key and value; touches one segment of the index, and splits it at most once.
    ///
    /// # Errors
    /// [`Full`] when it would pass the memory limit, or when the system gives no memory; the old item then
    /// stays as it was.
    pub fn set(
        &mut self,
        key: HashedKey<'_>,
        value: &[u8],
        deadline: Option<Deadline>,
        version: Version,
    ) -> Result<(), Full> {
        let old = self.find(key);
        let room_bytes = self.room_for_item(key, value, deadline, old)?;
        let Some(old) = old else {
            let handle = self.heap.add(key.bytes, value, deadline, version).ok_or_else(|| self.full())?;
            self.index.insert(&known(&self.heap, &self.secret), key, handle, room_bytes);
            self.arm_new(deadline, handle);
            return Ok(());
        };
        let old_deadline = self.heap.deadline(old);
        let handle = if self.heap.overwrite(old, key.bytes, value, deadline, version) {
            old
        } else {
            let new = self.heap.add(key.bytes, value, deadline, version).ok_or_else(|| self.full())?;
            self.index.replace(&known(&self.heap, &self.secret), key, old, new);
            self.heap.free(old);
            new
        };
        if old_deadline.is_some() {
            self.timers.item_gone();
        }
        if handle == old && deadline == old_deadline {
            // Its entry on the wheel means it still.
            if deadline.is_some() {
                self.timers.item_added();
            }
        } else {
            self.arm_new(deadline, handle);
        }
        Ok(())
    }

    /// Whether `items` items with `bytes` bytes of keys and values in all can be set one after the other
    /// without an error, even if none of them replaces another, each is of another size, and each splits
    /// a segment: an estimate that is never too low. O(1).
    ///
    /// # Errors
    /// [`Full`] if not.
    pub fn room_for(&self, items: usize, bytes: usize) -> Result<(), Full> {
        if self.memory_max == 0 {
            return Ok(());
        }
        let more = self.heap.growth_bytes_max(items, bytes)
            + self.index.growth_bytes_max(items)
            + self.timers.growth_bytes_max(items);
        self.check_room(more)
    }

    /// Removes `key`; true if it was there and its deadline had not come. Touches one segment of the
    /// index, and its buddy when both can be merged.
    pub fn remove(&mut self, now: Instant, key: HashedKey<'_>) -> bool {
        let Some(handle) = self.find(key) else { return false };
        let alive = self.is_alive(now, handle);
        if alive {
            self.drop_item(key, handle);
        }
        alive
    }

    /// Gives `key` a new deadline; true if it was there and its old one had not come. The first deadline
    /// of an item can move it to a larger slot, and so pass the memory limit by a page; if the system
    /// gives no memory at all for that, nothing is changed and the answer is false.
    pub fn set_deadline(&mut self, now: Instant, key: HashedKey<'_>, deadline: Deadline) -> bool {
        let Some(handle) = self.find(key) else { return false };
        let old = self.heap.deadline(handle);
        if old.is_some_and(|old| old.has_come(now)) {
            return false;
        }
        if old == Some(deadline) {
            return true;
        }
        if self.heap.set_deadline(handle, deadline) {
            self.timers.arm(deadline, handle);
            return true;
        }
        let Some(new) = self.heap.add_with_deadline(handle, deadline) else { return false };
        self.index.replace(&known(&self.heap, &self.secret), key, handle, new);
        self.heap.free(handle);
        self.arm_new(Some(deadline), new);
        true
    }

    /// Removes all items at once; their memory goes back to the system through [`Store::reclaim`], and is
    /// counted until then. O(1).
    pub fn clear(&mut self) {
        let heap = std::mem::replace(&mut self.heap, Heap::new());
        let index = std::mem::replace(&mut self.index, Index::new());
        let timers = std::mem::replace(&mut self.timers, Timers::new());
        self.compaction = Compaction::default();
        self.graves.push_back(Grave::new(heap, index, timers));
    }

    /// Gives back the memory of items whose deadline has come, of timers that no longer mean anything, of
    /// what was cleared, and of pages that have been sparsely used for a while: about `budget` steps, each of which looks at one
    /// timer or moves one small item. Call it while [`Store::has_work`].
    pub fn reclaim(&mut self, now: Instant, budget: u32) {
        let left = self.expire(now, budget);
        if self.timers.has_too_many() {
            self.timers.sift(budget, &self.heap);
        }
        if left > 0 {
            self.bury();
            self.compact(now, left);
        }
    }

    /// Whether [`Store::reclaim`] has something to do now. O(1).
    pub fn has_work(&self, now: Instant) -> bool {
        self.timers.has_due(now.millis())
            || self.timers.has_too_many()
            || !self.graves.is_empty()
            || self.wants_compaction(now)
    }

    /// When [`Store::reclaim`] will next have something to do, if it has nothing now; `None`: never, as
    /// things stand. O(1).
    pub fn next_deadline(&self) -> Option<Instant> {
        let timers = self.timers.next_deadline().map(Instant::from_millis);
        timers.into_iter().chain(self.compaction.due()).min()
    }

    /// Items held, among them those whose deadline has come but whose memory is not yet reclaimed.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Items whose deadline came and that were reclaimed, since the start.
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// Entries on the timer wheel, among them those that no longer mean anything. O(1).
    pub fn timers(&self) -> usize {
        self.timers.len()
    }

    /// Bytes of items, index and timers, counted exactly: whole pages, tables by their capacity, and
    /// what a cleared store has not yet given back. O(1).
    pub fn memory_bytes(&self) -> u64 {
        let graves: usize = self.graves.iter().map(Grave::memory_bytes).sum();
        let live = self.heap.memory_bytes() + self.index.memory_bytes() + self.timers.memory_bytes();
        (live + graves) as u64
    }

    #[inline]
    fn find(&self, key: HashedKey<'_>) -> Option<u32> {
        self.index.get(&known(&self.heap, &self.secret), key)
    }

    fn is_alive(&self, now: Instant, handle: u32) -> bool {
        self.heap.deadline(handle).is_none_or(|deadline| !deadline.has_come(now))
    }

    fn full(&self) -> Full {
        Full { used_bytes: self.memory_bytes(), limit_bytes: self.memory_max }
    }

    fn check_room(&self, more: usize) -> Result<(), Full> {
        if self.memory_bytes().saturating_add(more as u64) > self.memory_max {
            return Err(self.full());
        }
        Ok(())
    }

    /// Checks the limit for one item as exactly as can be known; returns by how much the index may grow.
    fn room_for_item(
        &self,
        key: HashedKey<'_>,
        value: &[u8],
        deadline: Option<Deadline>,
        old: Option<u32>,
    ) -> Result<usize, Full> {
        if self.memory_max == 0 {
            return Ok(usize::MAX);
        }
        let layout = Layout::new(key.bytes.len(), value.len(), deadline.is_some());
        let index = if old.is_some() { 0 } else { self.index.growth_bytes(key.hash.0) };
        let timers = if deadline.is_some() { self.timers.growth_bytes_max(1) } else { 0 };
        self.check_room(self.heap.growth_bytes(layout) + index + timers)?;
        Ok(index)
    }

    /// Notes an item that was just written and may have a deadline.
    fn arm_new(&mut self, deadline: Option<Deadline>, handle: u32) {
        if let Some(deadline) = deadline {
            self.timers.item_added();
            self.timers.arm(deadline, handle);
        }
    }

    /// Removes an item from everywhere.
    fn drop_item(&mut self, key: HashedKey<'_>, handle: u32) {
        let removed = self.index.remove(&known(&self.heap, &self.secret), key, handle);
        debug_assert!(removed, "an item that the index does not know");
        if self.heap.deadline(handle).is_some() {
            self.timers.item_gone();
        }
        self.heap.free(handle);
    }
}

/// Answers the index from the heap.
#[derive(Debug, Clone, Copy)]
struct Known<'s> {
    heap: &'s Heap,
    secret: &'s HashSecret,
}

const fn known<'s>(heap: &'s Heap, secret: &'s HashSecret) -> Known<'s> {
    Known { heap, secret }
}

impl Keys for Known<'_> {
    #[inline]
    fn hash_of(&self, handle: u32) -> u64 {
        self.secret.hash(self.heap.key(handle)).0
    }

    #[inline]
    fn is(&self, handle: u32, key: HashedKey<'_>) -> bool {
        equal(self.heap.key(handle), key.bytes)
    }

    fn order(&self, handle: u32, key: HashedKey<'_>) -> Ordering {
        let held = self.heap.key(handle);
        self.secret.hash(held).cmp(&key.hash).then_with(|| held.cmp(key.bytes))
    }
}

/// Whether two keys are equal, without touching a byte behind them. `memcmp` reads whole vectors, and so
/// often the next cache line of an item, which is as far away as the first was: 25 % of a look-up.
#[inline]
fn equal(one: &[u8], other: &[u8]) -> bool {
    const SHORT: usize = 64;
    if one.len() != other.len() {
        return false;
    }
    if one.len() > SHORT {
        return one == other;
    }
    let (words, rest) = one.as_chunks::<8>();
    let (other_words, other_rest) = other.as_chunks::<8>();
    let words_equal = words
        .iter()
        .zip(other_words)
        .fold(0, |differs, (a, b)| differs | (u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b)))
        == 0;
    words_equal && rest.iter().zip(other_rest).all(|(a, b)| a == b)
}
