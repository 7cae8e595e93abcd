//! Timers of items with an expiry, and the removal of expired items.
//!
//! A timer is an entry of the wheel: deadline and handle. It is current while its handle points at a live slot of its
//! page's class whose item has exactly that expiry. Otherwise it is stale: the item was removed, replaced, moved, or
//! given another expiry. Stale timers are not cancelled but purged, slot by slot of the wheel, when
//! [`Timers::has_too_many`].
//!
//! Not here: whether an item is served. Each read compares its expiry with `now`.

use super::heap::Heap;
use super::item::Expiry;
use super::{HashedKey, Store, heap_keys};
use crate::base::time::Instant;
use crate::base::timer_pages::Mapped;
use crate::base::wheel::{Popped, Wheel};

/// Timers allowed above 1.5 per item with an expiry before a purge begins. With those added during a purge
/// there are at most 2 per item and 64 Ki more.
const STALE_SPARE: usize = 48 * 1024;

/// Due timers processed together, so that their cache misses overlap.
const BATCH: usize = 16;

/// Timers of the items; see the module.
#[derive(Debug)]
pub(super) struct Timers {
    wheel: Wheel<u32, Mapped>,
    /// Items with an expiry.
    items: usize,
    /// Timers above which the next purge begins, if the last one found few stale timers.
    purge_above: usize,
    /// Timers that the current purge has not checked.
    purging: usize,
}

impl Timers {
    pub(super) fn new() -> Self {
        Self { wheel: Wheel::mapped(), items: 0, purge_above: 0, purging: 0 }
    }

    /// Counts a new item with an expiry. The caller adds its timer with [`Timers::arm`].
    pub(super) fn item_added(&mut self) {
        self.items += 1;
    }

    /// Counts the removal of an item with an expiry. Its timers are stale now.
    pub(super) fn item_gone(&mut self) {
        self.items -= 1;
    }

    /// Adds the timer of an item. If allocation fails the timer is dropped; the item is still never served
    /// late, only freed later, when its key is used.
    #[inline]
    pub(super) fn arm(&mut self, expiry: Expiry, handle: u32) {
        self.wheel.insert(expiry.tick(), handle);
    }

    /// Takes the next timer that is due at tick `now`, stale or not.
    #[inline]
    pub(super) fn pop(&mut self, now: u64) -> Popped<u32> {
        self.wheel.pop(now)
    }

    /// Whether stale timers should be purged. O(1).
    pub(super) fn has_too_many(&self) -> bool {
        self.purging > 0 || self.wheel.len() > self.expected_entries().max(self.purge_above)
    }

    /// Checks up to `budget` timers and drops the stale ones.
    pub(super) fn purge(&mut self, budget: u32, heap: &Heap) {
        if self.purging == 0 {
            self.purging = self.wheel.len() + self.wheel.purge_overhead();
        }
        self.wheel.purge(budget, |deadline, handle| is_current(heap, deadline, handle));
        self.purging = self.purging.saturating_sub(budget as usize);
        if self.wheel.len() <= self.expected_entries() / 2 {
            self.purging = 0;
        }
        // Many timers can be current, if an item is given two expiries in alternation. The next purge begins when
        // they have doubled; otherwise purging would never end.
        if self.purging == 0 {
            self.purge_above =
                if self.wheel.len() > self.expected_entries() { 2 * self.wheel.len() } else { 0 };
        }
    }

    /// Returns some memory to the system, if [`Timers::has_idle`].
    pub(super) fn trim(&mut self) {
        self.wheel.trim();
    }

    pub(super) const fn has_idle(&self) -> bool {
        self.wheel.has_idle()
    }

    pub(super) fn has_due(&self, now: u64) -> bool {
        self.wheel.has_work(now)
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.wheel.next_deadline()
    }

    /// Items with an expiry.
    pub(super) const fn items(&self) -> usize {
        self.items
    }

    /// Timers, stale ones included.
    pub(super) fn len(&self) -> usize {
        self.wheel.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.wheel.memory_bytes()
    }

    /// Growth of [`Timers::memory_bytes`] at most for this many more entries.
    pub(super) fn growth_bytes_max(&self, entries: usize) -> usize {
        self.wheel.growth_bytes_max(entries)
    }

    /// Frees the memory of some timers; false when there is none left.
    pub(super) fn drop_step(&mut self) -> bool {
        self.wheel.drop_step()
    }

    /// Checks the counts. O(n).
    pub(super) fn audit(&self) {
        self.wheel.audit();
    }

    /// Calls `visit` with deadline and handle of each timer. O(n).
    pub(super) fn for_each(&self, visit: impl FnMut(u64, u32)) {
        self.wheel.for_each(visit);
    }

    fn expected_entries(&self) -> usize {
        self.items + self.items / 2 + STALE_SPARE
    }
}

impl Store {
    /// Removes expired items: processes at most `budget` timers. Returns the budget left.
    pub(super) fn expire(&mut self, now: Instant, budget: u32) -> u32 {
        let mut left = budget;
        while left > 0 {
            let mut batch = [(0, 0); BATCH];
            let (mut len, mut idle) = (0, false);
            while len < BATCH && left > 0 && !idle {
                match self.timers.pop(now.millis()) {
                    Popped::Due { deadline, payload: handle } => {
                        batch[len] = (deadline, handle);
                        len += 1;
                    }
                    Popped::Moved => {}
                    Popped::Idle => idle = true,
                }
                left -= u32::from(!idle);
            }
            self.expire_batch(&batch[..len]);
            if idle {
                break;
            }
        }
        left
    }

    /// Removes the expired items of due timers. Three passes, so that cache misses overlap: prefetch the items; hash
    /// their keys and prefetch the index; remove.
    fn expire_batch(&mut self, entries: &[(u64, u32)]) {
        entries.iter().for_each(|&(_, handle)| self.heap.fetch(handle));
        let mut keys = [None; BATCH];
        for (&(deadline, handle), key) in entries.iter().zip(&mut keys) {
            // A timer at the horizon of the wheel can be due before the expiry.
            let is_due = |expiry: Expiry| expiry.millis() == deadline;
            if self.heap.expiry_if_live(handle).is_some_and(is_due) {
                let bytes = self.heap.key(handle);
                let hash = self.secret.hash(bytes);
                self.index.fetch(hash.0);
                *key = Some(HashedKey { hash, bytes });
            }
        }
        let mut gone = [None; BATCH];
        for ((&(_, handle), key), gone) in entries.iter().zip(keys).zip(&mut gone) {
            // Two timers of a batch can be of one item, which the first one removes.
            let removes = |key| self.index.remove(&heap_keys(&self.heap, &self.secret), key, handle);
            *gone = key.is_some_and(removes).then_some(handle);
        }
        for handle in gone.into_iter().flatten() {
            self.timers.item_gone();
            self.departs(handle);
            self.heap.free(handle);
            self.expired += 1;
        }
        self.forget_queues_if_empty();
    }
}

/// Whether a timer is current.
fn is_current(heap: &Heap, deadline: u64, handle: u32) -> bool {
    heap.expiry_if_live(handle).is_some_and(|held| held.tick() == deadline)
}
