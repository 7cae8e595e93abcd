//! Compaction: moves items out of the emptiest pages, and segments out of the emptiest regions, in steps, and returns
//! that memory to the system.
//!
//! Moving an item writes its new handle into the index and, if it has an expiry, adds a timer; the old timer becomes
//! stale.
//!
//! Not here: the choice of the page or region (heap, index and arena).

use super::pages::Emptying;
use super::size_classes::PAGE_BYTES;
use super::{HashedKey, Store, heap_keys};
use crate::base::time::Instant;
use std::time::Duration;

/// Bytes whose copy costs as much as the rest of a step.
const BYTES_PER_STEP: usize = 1_024;

/// Free slots whose reads cost as much as a step.
const READS_PER_STEP: usize = 32;

/// Steps that moving a segment is charged.
const SEGMENT_STEPS: i64 = 8;

/// Additional bytes that the items of a page may take in larger slots, and items moved per piece of work.
const MORE_BYTES_MAX: usize = PAGE_BYTES / 8;
const MOVES_PER_PIECE: u16 = 128;

/// How long memory must be sparse before it is compacted: pages that are emptied or filled by clients need no moves.
/// Without this delay, a million items that expire within a second cost 1.5 times as much.
const SPARSE_FOR: Duration = Duration::from_secs(1);

/// How long idle maps of large objects are kept after the last use of one: taking fresh memory from the system costs
/// 150 µs per MiB.
const MAPS_KEPT_FOR: Duration = Duration::from_secs(10);

/// State of compaction.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// When compaction begins, or began; `None` while memory is not sparse.
    due: Option<Instant>,
    /// When the use of idle maps is checked next; `None` while there is none.
    maps_due: Option<Instant>,
}

impl Compaction {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.into_iter().chain(self.maps_due).min()
    }
}

impl Store {
    /// Returns one idle region, slab or map to the system; false if there is none. With `keeps_maps`, idle maps
    /// within their limit stay. Costs as much as some hundred timers.
    pub(super) fn trim(&mut self, keeps_maps: bool) -> bool {
        if self.heap.has_idle(keeps_maps) {
            self.heap.trim(keeps_maps);
        } else if self.index.has_idle() {
            self.index.trim();
        } else if self.timers.has_idle() {
            self.timers.trim();
        } else {
            return false;
        }
        true
    }

    /// Whether [`Store::trim_due`] has work now. O(1).
    pub(super) fn needs_trim(&self, now: Instant) -> bool {
        let has_idle = self.heap.has_idle(true) || self.index.has_idle() || self.timers.has_idle();
        has_idle || self.compaction.maps_due.map_or_else(|| self.heap.has_idle_map(), |due| due <= now)
    }

    /// Returns one piece of idle memory to the system, as [`Store::trim`]; an idle map only if none was used for
    /// [`MAPS_KEPT_FOR`].
    pub(super) fn trim_due(&mut self, now: Instant) -> bool {
        let is_due = self.compaction.maps_due.is_none_or(|due| due <= now);
        let keeps_maps = !is_due || self.heap.take_maps_used();
        if is_due && keeps_maps {
            self.compaction.maps_due = Some(now.after(MAPS_KEPT_FOR));
        } else if is_due && !self.heap.has_idle_map() {
            self.compaction.maps_due = None;
        }
        self.trim(keeps_maps)
    }

    /// Whether [`Store::compact`] has work now. O(1).
    pub(super) fn needs_compaction(&self, now: Instant) -> bool {
        match self.compaction.due {
            Some(due) => due <= now,
            None => self.is_sparse(),
        }
    }

    /// Empties sparse pages and regions, in about `budget` steps, if memory was sparse for [`SPARSE_FOR`].
    pub(super) fn compact(&mut self, now: Instant, budget: u32) {
        if !self.needs_compaction(now) {
            return;
        }
        if self.compaction.due.is_none() {
            self.compaction.due = Some(now.after(SPARSE_FOR));
            return;
        }
        self.compact_now(budget, false);
        if !self.is_sparse() {
            self.compaction.due = None;
        }
    }

    /// Empties sparse pages, slabs and regions in about `budget` steps; with `pressure` all that can be emptied, at
    /// any fill. Returns whether something was moved.
    pub(super) fn compact_now(&mut self, budget: u32, pressure: bool) -> bool {
        let mut steps = i64::from(budget);
        let (mut moved, mut empties_regions) = (false, true);
        while steps > 0 {
            let page = self.heap.page_to_empty(pressure, empties_regions);
            let Some(Emptying { page, slot }) = page else { break };
            let found = self.heap.next_live(page, slot);
            let end = found.map_or(self.heap.slots_used(page), |(_, next)| next);
            let mut cost = 1 + (end - slot) as usize / READS_PER_STEP;
            match found {
                Some((handle, next)) => {
                    cost += self.heap.slot_bytes(handle) / BYTES_PER_STEP;
                    if self.move_item(handle) {
                        self.heap.continue_emptying(next);
                        moved = true;
                    } else {
                        self.heap.stop_emptying();
                        if pressure && !empties_regions {
                            break;
                        }
                        empties_regions &= !pressure;
                    }
                }
                None => self.heap.stop_emptying(),
            }
            steps -= cost as i64;
        }
        while steps > 0 && (pressure || self.heap.has_sparse_slab()) {
            let bytes = self.heap.move_large_object(pressure);
            if pressure && bytes == 0 {
                break;
            }
            moved |= bytes > 0;
            steps -= 1 + (bytes / BYTES_PER_STEP) as i64;
        }
        while steps > 0 && (pressure || self.index.is_sparse()) {
            if !self.index.compact(pressure) {
                break;
            }
            moved = true;
            steps -= SEGMENT_STEPS;
        }
        self.steps += u64::try_from(i64::from(budget) - steps).unwrap_or(0);
        moved
    }

    /// Empties a page with nearly the fewest items: moves them to free slots of its class and larger classes. False,
    /// and nothing changed, if they do not all fit there, would take an eighth of a page more, or are more than
    /// [`MOVES_PER_PIECE`].
    pub(super) fn move_to_larger_slots(&mut self) -> bool {
        let Some(page) = self.heap.empty_into_larger(MOVES_PER_PIECE, MORE_BYTES_MAX) else { return false };
        let mut slot = 0;
        while let Some((handle, next)) = self.heap.next_live(page, slot) {
            slot = next;
            if !self.move_item(handle) {
                break;
            }
        }
        self.heap.stop_emptying();
        true
    }

    fn is_sparse(&self) -> bool {
        self.heap.is_sparse() || self.heap.has_sparse_slab() || self.index.is_sparse()
    }

    /// Moves an item to another slot; false, and nothing changed, if there is no room for it.
    pub(super) fn move_item(&mut self, handle: u32) -> bool {
        let Some(new) = self.heap.copy(handle) else { return false };
        let bytes = self.heap.key(new);
        let key = HashedKey { hash: self.secret.hash(bytes), bytes };
        let moved = self.index.replace(&heap_keys(&self.heap, &self.secret), key, handle, new);
        debug_assert!(moved, "an item that is not in the index");
        self.heap.free_slot(handle);
        if let Some(expiry) = self.heap.expiry(new) {
            self.timers.arm(expiry, new);
        }
        true
    }
}
