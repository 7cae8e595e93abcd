//! Consistency check of a whole store, for tests.

use super::{Store, heap_keys};
use std::collections::{HashMap, HashSet};

/// The counts of [`Store::audit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audit {
    /// Items.
    pub items: usize,
    /// Items with an expiry.
    pub items_with_expiry: usize,
    /// Timers, stale ones included.
    pub timers: usize,
    /// Segments of the index.
    pub segments: usize,
    /// Entries in the overflow.
    pub overflowed: usize,
    /// Bytes of keys and values.
    pub key_and_value_bytes: u64,
    /// Bytes held by the store.
    pub memory_bytes: u64,
}

impl Store {
    /// Checks that index and heap have the same items, each key once and found by a lookup; the counts of pages,
    /// classes, segments and directory entries; that every expiry has its timer. For tests: O(n) time and memory.
    ///
    /// # Panics
    /// On any inconsistency.
    pub fn audit(&self) -> Audit {
        let keys = heap_keys(&self.heap, &self.secret);
        let mut held = self.heap.audit();
        let mut indexed = self.index.audit(&keys);
        held.sort_unstable();
        indexed.sort_unstable();
        assert_eq!(held, indexed, "index and heap have the same items");
        let mut keys = HashSet::with_capacity(held.len());
        let mut untimed: HashMap<u32, u64> = HashMap::new();
        let mut key_and_value_bytes = 0;
        for &handle in &held {
            let key = self.heap.key(handle);
            let Some(item) = self.heap.item(handle, key) else { panic!("an item without its own key") };
            assert!(keys.insert(key), "a key twice");
            let found = self.find(self.key(key));
            assert_eq!(found, Some(handle), "an item that is not found by its key");
            key_and_value_bytes += (key.len() + item.value.len()) as u64;
            if let Some(expiry) = item.expiry {
                assert_eq!(self.heap.expiry_if_live(handle), Some(expiry));
                untimed.insert(handle, expiry.tick());
            }
        }
        let items_with_expiry = untimed.len();
        assert_eq!(items_with_expiry, self.timers.items());
        self.timers.audit();
        let mut timers = 0;
        self.timers.for_each(|expiry, handle| {
            timers += 1;
            if untimed.get(&handle) == Some(&expiry) {
                untimed.remove(&handle);
            }
        });
        assert_eq!(timers, self.timers.len());
        assert!(untimed.is_empty(), "{} items with an expiry and no timer", untimed.len());
        let (segments, overflowed) = self.index.shape();
        Audit {
            items: held.len(),
            items_with_expiry,
            timers,
            segments,
            overflowed,
            key_and_value_bytes,
            memory_bytes: self.memory_bytes(),
        }
    }
}
