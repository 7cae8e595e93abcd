//! Deferred free: returns the memory of cleared stores to the system one region per step.
//!
//! Not here: when a store is cleared.

use super::expiry::Timers;
use super::heap::Heap;
use super::index::Index;
use std::collections::VecDeque;

/// Cleared stores below this size are freed at once: two regions.
const AT_ONCE_BYTES: usize = 512 * 1024;

/// Cleared stores, oldest first.
#[derive(Debug, Default)]
pub(super) struct DeferredFree {
    queue: VecDeque<Cleared>,
    bytes: usize,
}

/// The parts of one cleared store.
#[derive(Debug)]
struct Cleared {
    heap: Heap,
    index: Index,
    timers: Timers,
}

impl DeferredFree {
    /// Adds the parts of a cleared store. O(1).
    pub(super) fn add(&mut self, heap: Heap, index: Index, timers: Timers) {
        let cleared = Cleared { heap, index, timers };
        if cleared.memory_bytes() > AT_ONCE_BYTES {
            self.bytes += cleared.memory_bytes();
            self.queue.push_back(cleared);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// O(1).
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes + self.queue.capacity() * size_of::<Cleared>()
    }

    /// Returns one region, slab or large object to the system.
    pub(super) fn step(&mut self) {
        let Some(cleared) = self.queue.front_mut() else { return };
        let before = cleared.memory_bytes();
        if cleared.step() {
            self.bytes -= before - cleared.memory_bytes();
        } else {
            self.bytes -= before;
            self.queue.pop_front();
        }
        if self.queue.is_empty() {
            *self = Self::default();
        }
    }
}

impl Cleared {
    fn memory_bytes(&self) -> usize {
        self.heap.memory_bytes() + self.index.memory_bytes() + self.timers.memory_bytes()
    }

    /// False when nothing is left.
    fn step(&mut self) -> bool {
        self.heap.drop_step() || self.index.drop_step() || self.timers.drop_step()
    }
}

#[cfg(test)]
mod tests {
    use super::{AT_ONCE_BYTES, DeferredFree, Heap, Index, Timers};
    use crate::store::item::Version;

    #[test]
    fn bytes_of_cleared_stores_are_counted_while_they_are_freed() {
        let mut deferred_free = DeferredFree::default();
        for round in 1..=3 {
            let mut heap = Heap::new();
            for key in 0..round * 2_000u64 {
                heap.add(&key.to_le_bytes(), &[7; 1_000], None, Version(key)).unwrap();
            }
            heap.add(b"large", &[7; 200_000], None, Version(0)).unwrap();
            deferred_free.add(heap, Index::new(), Timers::new());
        }
        assert_eq!(deferred_free.queue.len(), 3);
        while !deferred_free.is_empty() {
            assert_eq!(
                deferred_free.bytes,
                deferred_free.queue.iter().map(super::Cleared::memory_bytes).sum::<usize>()
            );
            let before = deferred_free.memory_bytes();
            deferred_free.step();
            assert!(deferred_free.memory_bytes() <= before);
        }
        assert_eq!(deferred_free.memory_bytes(), 0);
    }

    #[test]
    fn small_cleared_store_is_freed_at_once() {
        let mut deferred_free = DeferredFree::default();
        for _ in 0..10_000 {
            let mut heap = Heap::new();
            heap.add(b"key", b"value", None, Version(0)).unwrap();
            deferred_free.add(heap, Index::emptied(), Timers::new());
        }
        assert!(deferred_free.is_empty() && deferred_free.memory_bytes() < AT_ONCE_BYTES);
    }
}
