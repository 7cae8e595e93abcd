//! Virtual time: a queue of future events. Of two events at one time the one that was added first comes first.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

struct Entry<T> {
    nanos: u64,
    order: u64,
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.nanos, self.order).cmp(&(other.nanos, other.order))
    }
}

/// Things to come, in order.
pub struct Agenda<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    order: u64,
}

impl<T> Agenda<T> {
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), order: 0 }
    }

    /// Lets `what` happen at `nanos`.
    pub fn put(&mut self, nanos: u64, what: T) {
        self.order += 1;
        self.heap.push(Reverse(Entry { nanos, order: self.order, what }));
    }

    /// When the next thing happens.
    pub fn next_nanos(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.0.nanos)
    }

    /// The next thing.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        self.heap.pop().map(|entry| (entry.0.nanos, entry.0.what))
    }
}
