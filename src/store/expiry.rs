//! How items end: timers of those with a deadline, handles on a wheel, cancelled lazily; and what is done
//! when they are due.
//!
//! An entry means something only while its handle points at a live slot of its page's class whose item
//! has exactly that deadline. Everything else is dead: the item was removed, set again, moved, or given
//! another deadline. When more entries are dead than [`Timers::has_too_many`] bears, they are purged
//! out, slot of the wheel by slot.
//!
//! Not here: whether an item is served; every reading compares its deadline with the time.

use super::heap::Heap;
use super::item::Expiry;
use super::{HashedKey, Store, heap_keys};
use crate::base::time::Instant;
use crate::base::timer_pages::Mapped;
use crate::base::wheel::{Popped, Wheel};

/// Entries that are borne beyond three for each two items with a deadline, before they are purged. With
/// what comes in during a purge, that stays below 2 × items + 64 Ki.
const STALE_SPARE: usize = 48 * 1024;

/// Entries that are taken from the wheel together: enough to have as many cache misses under way as a
/// core can.
const BATCH: usize = 16;

/// Timers of the items; see the module.
#[derive(Debug)]
pub(super) struct Timers {
    wheel: Wheel<u32, Mapped>,
    /// Items with a deadline.
    items: usize,
    /// Entries above which the next purge begins, if the last one found that too few were dead.
    purge_above: usize,
    /// Entries still to be looked at by the purge under way.
    purging: usize,
}

impl Timers {
    pub(super) fn new() -> Self {
        Self { wheel: Wheel::mapped(), items: 0, purge_above: 0, purging: 0 }
    }

    /// Notes that one item more has a deadline, which [`Timers::arm`] tells.
    pub(super) fn item_added(&mut self) {
        self.items += 1;
    }

    /// Notes that an item with a deadline is gone, or has none any more. Its entries are dead now.
    pub(super) fn item_gone(&mut self) {
        self.items -= 1;
    }

    /// Adds the entry for an item that has this deadline at this handle from now on. Without any memory
    /// the entry is lost, and with it only the early end of its item: it is not served all the same, and
    /// goes when something is done with its key.
    #[inline]
    pub(super) fn arm(&mut self, expiry: Expiry, handle: u32) {
        self.wheel.insert(expiry.tick(), handle);
    }

    /// Takes the next entry that is due at tick `now`, whatever it means.
    #[inline]
    pub(super) fn pop(&mut self, now: u64) -> Popped<u32> {
        self.wheel.pop(now)
    }

    /// Whether so many entries are dead that they should be purged out. O(1).
    pub(super) fn has_too_many(&self) -> bool {
        self.purging > 0 || self.wheel.len() > self.expected_entries().max(self.purge_above)
    }

    /// Looks at up to `budget` entries and drops the dead ones.
    pub(super) fn purge(&mut self, budget: u32, heap: &Heap) {
        if self.purging == 0 {
            self.purging = self.wheel.len() + self.wheel.purge_overhead();
        }
        self.wheel.purge(budget, |deadline, handle| is_current(heap, deadline, handle));
        self.purging = self.purging.saturating_sub(budget as usize);
        if self.wheel.len() <= self.expected_entries() / 2 {
            self.purging = 0;
        }
        // Entries can be many and alive: one item given two deadlines by turns. To look again before
        // they have doubled would be work without end.
        if self.purging == 0 {
            self.purge_above =
                if self.wheel.len() > self.expected_entries() { 2 * self.wheel.len() } else { 0 };
        }
    }

    /// Gives some memory back to the system, if [`Timers::has_idle`].
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

    /// Items with a deadline.
    pub(super) const fn items(&self) -> usize {
        self.items
    }

    /// Entries held, dead ones included.
    pub(super) fn len(&self) -> usize {
        self.wheel.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.wheel.memory_bytes()
    }

    /// What [`Timers::memory_bytes`] grows by at most for so many entries more.
    pub(super) fn growth_bytes_max(&self, entries: usize) -> usize {
        self.wheel.growth_bytes_max(entries)
    }

    /// Frees some of the entries, whatever they mean; false when there is none left.
    pub(super) fn drop_step(&mut self) -> bool {
        self.wheel.drop_step()
    }

    /// Counts again and checks. O(n).
    pub(super) fn audit(&self) {
        self.wheel.audit();
    }

    /// Calls `see` with the deadline and handle of each entry. O(n).
    pub(super) fn for_each(&self, see: impl FnMut(u64, u32)) {
        self.wheel.for_each(see);
    }

    fn expected_entries(&self) -> usize {
        self.items + self.items / 2 + STALE_SPARE
    }
}

impl Store {
    /// Removes items whose deadline has come, at most `budget` timers; returns what is left of it.
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

    /// Removes the items that these due entries mean. First everything is fetched, so that the cache misses
    /// of all of them are under way together; then they leave the index, and last the heap.
    fn expire_batch(&mut self, entries: &[(u64, u32)]) {
        entries.iter().for_each(|&(_, handle)| self.heap.fetch(handle));
        let mut keys = [None; BATCH];
        for (&(deadline, handle), key) in entries.iter().zip(&mut keys) {
            // A timer at the horizon of the wheel may be earlier than the expiry.
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
            // Two entries of one batch can mean the same item, which then is there only for the first.
            let removes = |key| self.index.remove(&heap_keys(&self.heap, &self.secret), key, handle);
            *gone = key.is_some_and(removes).then_some(handle);
        }
        for handle in gone.into_iter().flatten() {
            self.timers.item_gone();
            self.heap.free(handle);
            self.expired += 1;
        }
    }
}

/// Whether an entry with this deadline means the item at this handle.
fn is_current(heap: &Heap, deadline: u64, handle: u32) -> bool {
    heap.expiry_if_live(handle).is_some_and(|held| held.tick() == deadline)
}
