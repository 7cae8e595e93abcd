//! The memory of a store by kind and by size class.

/// Bytes of [`Store::memory_bytes`](super::Store::memory_bytes) by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Pages of items up to 16 KiB, and the metadata of pages.
    pub pages: u64,
    /// Keys and values of larger items.
    pub large_objects: u64,
    /// The index.
    pub index: u64,
    /// Timers of items with a TTL.
    pub timers: u64,
    /// The queues of eviction.
    pub queues: u64,
    /// Tables that were replaced and are freed in steps.
    pub deferred_free: u64,
    /// Reserved: own filter and changelog, tombstones, the history of requests.
    pub reserved: u64,
}

impl Memory {
    /// The sum.
    pub const fn total(&self) -> u64 {
        self.pages
            + self.large_objects
            + self.index
            + self.timers
            + self.queues
            + self.deferred_free
            + self.reserved
    }
}

/// The memory of one size class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassMemory {
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Bytes of its pages or slabs.
    pub held: u64,
    /// Bytes of its slots in use.
    pub live: u64,
}
