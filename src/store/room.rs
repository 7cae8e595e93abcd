//! Room for a write: whether the limit leaves it, and the memory that is reclaimed while it does not.
//!
//! A write of one key is attempted, and while it is refused memory is reclaimed in pieces. For several keys, all or none,
//! room for their bytes is made before ([`Store::make_room`]). What frees memory sooner or later (an expiry, a smaller
//! value) may take some above the limit.

use super::item::{Expiry, Layout};
use super::{HashedKey, Store, TIMER_BYTES};
use crate::base::time::Instant;

/// Bytes above the limit that are left to changes which free memory sooner or later (an expiry, a smaller value):
/// at least these, or this share of the limit. An expiry takes some 16 bytes.
const RESERVE_BYTES_MIN: u64 = 256 << 10;
const RESERVE_SHARE: u64 = 32;

/// What grows beside the items, such as a filter, may go above the limit by this share of it until items are evicted.
const OVERSHOOT_SHARE: u64 = 16;

/// Bytes of free slots that several items are expected to use where nothing is evicted: such as in a page for each of many
/// sizes, which of a limit of 1 MiB are more than there is.
const SCATTERED_BYTES_MAX: usize = 4 << 20;

/// Bytes that one of several items takes beside its key and value, about: header, timer, entries of queue and index.
const ITEM_BYTES: usize = 48;

/// Timers, or moved items, of one piece of work that a write at the limit does.
const STEPS_PER_PIECE: u32 = 256;

/// Pieces of work that a write at the limit does at most, beside one per [`BYTES_PER_PIECE`].
const PIECES_PER_WRITE: usize = 16;

/// A piece of compaction frees about as many bytes.
const BYTES_PER_PIECE: usize = 8 * 1024;

/// One in so many bytes of the limit may be free in pages and slabs before these are compacted.
const FREE_SHARE: u64 = 32;

/// One in so many bytes of the limit may be free in pages that cannot be compacted, before items are moved to larger
/// slots.
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

impl Store {
    /// Whether `bytes` more stay within the limit, or not far above it while [`Store::reclaim`] evicts items. O(1).
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let above = if self.queues.may_evict() { self.memory_max / OVERSHOOT_SHARE } else { 0 };
        self.memory_max == 0 || self.memory_bytes().saturating_add(bytes) <= self.memory_max + above
    }

    /// Reclaims memory until `items` items with `bytes` bytes of keys and values in all fit. They can be set then, one after
    /// the other and before [`Store::keep_up`], without an error, for writes that are done as a whole. Where nothing is
    /// evicted, or the most that they may take (a page for each of many sizes) is over half of the limit, room is made for
    /// what items take on average, and what they take beyond that is above the limit until it is reclaimed.
    ///
    /// # Errors
    /// [`Full`] if memory for that cannot be had.
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

    /// Growth of [`Store::memory_bytes`] at most when so many items are added, whatever their sizes.
    fn growth_bytes_max(&self, items: usize, bytes: usize) -> usize {
        let beside = self.index.growth_bytes_max(items) + self.timers.growth_bytes_max(items);
        self.heap.growth_bytes_max(items, bytes) + beside
    }

    /// Whether memory is to be reclaimed for a write: the limit refuses it, or the system, while items can be evicted.
    pub(super) const fn wants_memory<R>(&self, result: &Result<R, Full>) -> bool {
        match result {
            Err(Full::Limit { .. }) => true,
            Err(Full::System) => self.queues.may_evict(),
            Err(Full::TooLarge { .. } | Full::Space) | Ok(_) => false,
        }
    }

    /// Attempts a write of `bytes` bytes. While memory is wanted for it, reclaims some in bounded pieces and tries
    /// again, until nothing is left to reclaim or as many pieces are done as such a write may cost.
    #[cold]
    pub(super) fn reclaiming<R>(
        &mut self,
        now: Instant,
        bytes: usize,
        mut attempt: impl FnMut(&mut Self) -> Result<R, Full>,
    ) -> Result<R, Full> {
        // Nothing is evicted: a page given away for a segment that splits would be one less for items.
        self.index.avoid_splits(!self.queues.may_evict());
        let mut result = attempt(self);
        let mut pieces = PIECES_PER_WRITE + bytes / BYTES_PER_PIECE;
        while self.wants_memory(&result) && pieces > 0 && self.reclaim_piece(now, bytes) {
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
        result
    }

    /// Reclaims memory because a write of `bytes` bytes found none: expired items, idle memory, cleared stores, then
    /// items by eviction, and pages and regions with free slots. False if there is nothing to reclaim. Some 60 µs.
    #[cold]
    pub(super) fn reclaim_piece(&mut self, now: Instant, bytes: usize) -> bool {
        if self.timers.has_due(now.millis()) {
            self.expire(now, STEPS_PER_PIECE);
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
        // Nearly full pages are not worth emptying while something can be evicted.
        let is_worth_it = !self.queues.may_evict() || self.heap.free_bytes() as u64 > self.free_bytes_max();
        if is_worth_it && self.compact_now(STEPS_PER_PIECE, true) {
            return true;
        }
        if is_worth_it && !self.heap.take_larger(true) {
            return true;
        }
        // With a page for each of many classes, much can be free and no page can be emptied into its own class.
        let is_scattered = is_worth_it && self.heap.free_bytes() as u64 > self.memory_max / SCATTERED_SHARE;
        is_scattered && self.move_to_larger_slots()
            || self.evict(now, bytes)
            || self.compact_now(STEPS_PER_PIECE, true)
    }

    /// Free bytes in pages and slabs above which these are compacted before anything is evicted.
    const fn free_bytes_max(&self) -> u64 {
        self.memory_max / FREE_SHARE
    }

    /// Whether items are to be evicted as due work.
    pub(super) fn is_over_limit(&self) -> bool {
        self.queues.may_evict() && self.memory_bytes() > self.memory_max
    }

    /// Checks the limit for one item as exactly as can be known; `is_offered`: it is linked where it lies.
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
        // A smaller item in place of a larger one leaves more room than it takes.
        let is_smaller = old.is_some_and(|old| layout.item_bytes() < self.heap.item_bytes(old));
        if !is_smaller {
            self.check_size(layout.item_bytes())?;
        }
        let reserve = if is_smaller { self.reserve_bytes() } else { 0 };
        self.check_room(self.heap.growth_bytes(layout, old, is_offered) + index + timers, reserve)
    }

    /// Checks that what is set at once leaves half of the limit to other items: nothing is evicted for more.
    pub(super) const fn check_size(&self, bytes: usize) -> Result<(), Full> {
        let limit_bytes = self.memory_max;
        if limit_bytes != 0 && bytes as u64 > limit_bytes / 2 {
            return Err(Full::TooLarge { limit_bytes });
        }
        Ok(())
    }

    /// Checks whether `more` bytes stay within the limit and `reserve` bytes above it. Where nothing is evicted, what takes
    /// none, since there is a free slot for it, may be somewhat above: slabs that cannot be compacted further would keep
    /// such slots free for ever.
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

    /// The reason why the heap has no slot.
    pub(super) fn refused(&self) -> Full {
        if self.heap.has_space_for(1) { Full::System } else { Full::Space }
    }
}
