//! Room for writes: checks the memory limit, and reclaims memory while it leaves no room.
//!
//! A write of one key is attempted; while it is refused, memory is reclaimed in pieces. For an atomic write of
//! several keys room is made first ([`Store::make_room`]). Changes that free memory later (an expiry, a smaller
//! value) may exceed the limit a little.

use super::item::{Expiry, Layout};
use super::{HashedKey, Store, TIMER_BYTES};
use crate::base::time::Instant;

/// Bytes above the limit reserved for changes that free memory later (an expiry, a smaller value): the larger of this
/// and the limit divided by [`RESERVE_SHARE`]. An expiry takes some 16 bytes.
const RESERVE_BYTES_MIN: u64 = 256 << 10;
const RESERVE_SHARE: u64 = 32;

/// Divisor of the limit: memory outside the items, such as a filter, may exceed the limit by this share until items
/// are evicted.
const OVERSHOOT_SHARE: u64 = 16;

/// Bytes of free slots in pages of many classes that an atomic write may count on where nothing is evicted.
const SCATTERED_BYTES_MAX: usize = 4 << 20;

/// Bytes per item of an atomic write without its key and value, on average: header, timer, entries of queue and
/// index.
const ITEM_BYTES: usize = 48;

/// Steps (timers or moved items) per piece of work of a write at the limit.
const STEPS_PER_PIECE: u32 = 256;

/// Pieces of work per write at the limit at most, in addition to one per [`BYTES_PER_PIECE`].
const PIECES_PER_WRITE: usize = 16;

/// Bytes that a piece of compaction frees, about.
const BYTES_PER_PIECE: usize = 8 * 1024;

/// Divisor of the limit: free bytes in pages and slabs above which these are compacted.
const FREE_SHARE: u64 = 32;

/// Divisor of the limit: free bytes in pages that cannot be compacted above which items are moved to larger slots.
const SCATTERED_SHARE: u64 = 8;

/// The reason for refusing a write, which changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The memory limit leaves no room.
    Limit {
        /// Bytes in use.
        used_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// One write is larger than half of the memory limit.
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The address space of the heap is exhausted: 32 GiB of items up to 16 KiB and headers of larger ones.
    Space,
    /// The system has no more memory.
    System,
}

impl Store {
    /// Whether `bytes` more bytes stay within the limit, or little above it while [`Store::reclaim`] evicts items.
    /// O(1).
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let above = if self.queues.may_evict() { self.memory_max / OVERSHOOT_SHARE } else { 0 };
        self.memory_max == 0 || self.memory_bytes().saturating_add(bytes) <= self.memory_max + above
    }

    /// Reclaims memory until `items` items with `bytes` bytes of keys and values in total fit. They can then be set
    /// one after the other without an error, before any other call: for atomic writes. Where nothing is evicted, or
    /// their upper bound (a page for each of many sizes) is over half of the limit, room is made for the average; the
    /// rest exceeds the limit until it is reclaimed.
    ///
    /// # Errors
    /// [`Full`] if there is no room.
    pub fn make_room(&mut self, now: Instant, items: usize, bytes: usize) -> Result<(), Full> {
        self.check_size(bytes)?;
        if !self.heap.has_space_for(self.heap.pages_max(items, bytes)) {
            return Err(Full::Space);
        }
        self.overdraft = 0;
        let takes = bytes + bytes / 8 + items * ITEM_BYTES;
        self.reclaiming(now, bytes, |store| {
            if !store.queues.may_evict() {
                return store.check_room(takes, store.heap.free_bytes().min(SCATTERED_BYTES_MAX) as u64);
            }
            let most = store.growth_bytes_max(items, bytes);
            store.check_room(if most as u64 <= store.memory_max / 2 { most } else { takes }, 0)
        })?;
        let above = self.memory_bytes().saturating_sub(self.memory_max);
        self.overdraft = above + self.growth_bytes_max(items, bytes) as u64;
        Ok(())
    }

    /// Growth of [`Store::memory_bytes`] at most when this many items of any sizes are added.
    fn growth_bytes_max(&self, items: usize, bytes: usize) -> usize {
        let beside = self.index.growth_bytes_max(items) + self.timers.growth_bytes_max(items);
        self.heap.growth_bytes_max(items, bytes) + beside
    }

    /// Whether memory must be reclaimed for a write: the limit refused it, or the system did and items can be evicted.
    pub(super) const fn needs_memory<R>(&self, result: &Result<R, Full>) -> bool {
        match result {
            Err(Full::Limit { .. }) => true,
            Err(Full::System) => self.queues.may_evict(),
            Err(Full::TooLarge { .. } | Full::Space) | Ok(_) => false,
        }
    }

    /// Attempts a write of `bytes` bytes. While it needs memory, reclaims some in bounded pieces and attempts it again,
    /// until nothing is left to reclaim or the budget of such a write is spent.
    #[cold]
    pub(super) fn reclaiming<R>(
        &mut self,
        now: Instant,
        bytes: usize,
        mut attempt: impl FnMut(&mut Self) -> Result<R, Full>,
    ) -> Result<R, Full> {
        // Nothing is evicted: memory for a segment that splits would be missing for items.
        self.index.avoid_splits(!self.queues.may_evict());
        let before = self.steps;
        let mut result = attempt(self);
        let mut pieces = PIECES_PER_WRITE + bytes / BYTES_PER_PIECE;
        while self.needs_memory(&result) && pieces > 0 && self.reclaim_piece(now, bytes) {
            result = attempt(self);
            pieces -= 1;
        }
        if matches!(result, Err(Full::Limit { .. })) && self.queues.may_evict() {
            // The rest is reclaimed by the next writes, or as due work.
            self.overdraft = self.overdraft_max();
            result = attempt(self);
            self.overdraft = 0;
        }
        self.heap.take_larger(false);
        self.index.avoid_splits(false);
        self.reclaimed += usize::try_from(self.steps - before).unwrap_or(usize::MAX);
        result
    }

    /// Reclaims one piece of memory for a write of `bytes` bytes: expired items, idle memory, cleared stores, then
    /// items by eviction, and pages and regions with free slots. False if there is nothing to reclaim. Some 60 µs.
    #[cold]
    pub(super) fn reclaim_piece(&mut self, now: Instant, bytes: usize) -> bool {
        if self.timers.has_due(now.millis()) {
            self.steps += u64::from(STEPS_PER_PIECE - self.expire(now, STEPS_PER_PIECE));
            return true;
        }
        if self.trim(false) || self.heap.release_spare() || self.index.release_spare() {
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
        // Emptying nearly full pages does not pay while something can be evicted.
        let is_worth_it = !self.queues.may_evict() || self.heap.free_bytes() as u64 > self.free_bytes_max();
        if is_worth_it && self.compact_now(STEPS_PER_PIECE, true) {
            return true;
        }
        if is_worth_it && !self.heap.take_larger(true) {
            return true;
        }
        // With pages of many classes, much can be free although no page can be emptied into its own class.
        let is_scattered = is_worth_it && self.heap.free_bytes() as u64 > self.memory_max / SCATTERED_SHARE;
        is_scattered && self.move_to_larger_slots()
            || self.evict(now, bytes)
            || self.compact_now(STEPS_PER_PIECE, true)
    }

    /// Free bytes in pages and slabs above which these are compacted before anything is evicted.
    const fn free_bytes_max(&self) -> u64 {
        self.memory_max / FREE_SHARE
    }

    /// Whether items must be evicted as background work.
    pub(super) fn is_over_limit(&self) -> bool {
        self.queues.may_evict() && self.memory_bytes() > self.memory_max
    }

    /// Checks the limit for one item by its exact growth; `is_offered`: it is linked, not copied.
    pub(super) fn check_room_for_item(
        &self,
        key: HashedKey<'_>,
        value: &[u8],
        expiry: Option<Expiry>,
        old: Option<u32>,
        is_offered: bool,
    ) -> Result<(), Full> {
        let layout = Layout::new(key.bytes.len(), value.len(), expiry.is_some());
        let index = if old.is_some() { 0 } else { self.index.growth_bytes(key.hash.0) };
        let timers = if expiry.is_some() { self.timers.growth_bytes_max(1) } else { 0 };
        // Replacing an item by a smaller one frees memory.
        let is_smaller = old.is_some_and(|old| layout.item_bytes() < self.heap.item_bytes(old));
        if !is_smaller {
            self.check_size(layout.item_bytes())?;
        }
        let reserve = if is_smaller { self.reserve_bytes() } else { 0 };
        self.check_room(self.heap.growth_bytes(layout, old, is_offered) + index + timers, reserve)
    }

    /// Checks that one write takes at most half of the limit: larger ones must not evict everything else.
    pub(super) const fn check_size(&self, bytes: usize) -> Result<(), Full> {
        let limit_bytes = self.memory_max;
        if limit_bytes != 0 && bytes as u64 > limit_bytes / 2 {
            return Err(Full::TooLarge { limit_bytes });
        }
        Ok(())
    }

    /// Checks whether `more` bytes stay within the limit plus `reserve` bytes. Where nothing is evicted, a write that
    /// takes no memory, because it uses a free slot, may be a little above: otherwise free slots in slabs that cannot
    /// be compacted would never be used.
    pub(super) fn check_room(&self, more: usize, reserve: u64) -> Result<(), Full> {
        let has_slot = more == 0 && !self.queues.may_evict();
        let reserve = if has_slot { self.reserve_bytes() } else { reserve }.max(self.overdraft);
        if self.memory_max == 0
            || self.memory_bytes() + more as u64 <= self.memory_max.saturating_add(reserve)
        {
            return Ok(());
        }
        Err(Full::Limit { used_bytes: self.memory_bytes(), limit_bytes: self.memory_max })
    }

    fn overdraft_max(&self) -> u64 {
        self.reserve_bytes() + self.memory_max / OVERSHOOT_SHARE
    }

    pub(super) fn reserve_bytes(&self) -> u64 {
        RESERVE_BYTES_MIN.max(self.memory_max / RESERVE_SHARE)
    }

    /// The error of the heap having no slot.
    pub(super) fn refused(&self) -> Full {
        if self.heap.has_space_for(1) { Full::System } else { Full::Space }
    }
}
