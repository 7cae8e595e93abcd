//! The bytes of buffers of all connections and tasks, which `buffers_max` and the memory of the system bound.

use crate::base::memory::{has_left, trim};
use crate::base::shared_bytes::Account;

/// Bytes by which the buffers grow between two checks that the system has memory left: small buffers are allocated
/// unchecked.
const BYTES_PER_PROBE: usize = 1 << 20;

/// Bytes of buffers in use up to which those that are kept for later use are freed.
const FEW_BYTES: usize = 256 * 1024;

/// Bytes of output in the heap above which more is moved to maps, whether its socket takes it or not.
const HEAP_BYTES: usize = 2 << 20;

/// The sum of the bytes of all buffers; see the module.
#[derive(Debug)]
pub(in crate::node) struct Buffered {
    /// Bytes of connections and tasks alone.
    owned: usize,
    /// Bytes that they share.
    shared: Account,
    /// Bytes of output in the heap.
    in_heap: usize,
    /// The sum at the last check of the system's memory, or the smallest one since.
    at_probe: usize,
    /// Whether there was such a check since memory was returned to the system.
    have_grown: bool,
}

impl Buffered {
    /// Without buffers; bytes that are shared count in `shared`.
    pub(in crate::node) fn new(shared: &Account) -> Self {
        Self { owned: 0, shared: shared.clone(), in_heap: 0, at_probe: 0, have_grown: false }
    }

    #[inline]
    pub(in crate::node) fn bytes(&self) -> usize {
        self.owned + self.shared.bytes()
    }

    /// Bytes of connections and tasks alone, without those that they share.
    pub(in crate::node) const fn owned(&self) -> usize {
        self.owned
    }

    /// Whether few bytes are in use.
    pub(in crate::node) fn are_few(&self) -> bool {
        self.bytes() <= FEW_BYTES
    }

    /// Whether few bytes are in use, and many were since [`Buffered::trim`].
    pub(super) fn have_shrunk(&self) -> bool {
        self.have_grown && self.are_few()
    }

    /// Returns the memory that many bytes have left to the system.
    pub(super) fn trim(&mut self) {
        if std::mem::take(&mut self.have_grown) {
            trim();
        }
    }

    /// Bytes of output in the heap.
    pub(in crate::node) const fn in_heap(&self) -> usize {
        self.in_heap
    }

    /// Whether much output is in the heap.
    #[inline]
    pub(super) const fn has_much_in_heap(&self) -> bool {
        self.in_heap > HEAP_BYTES
    }

    /// Replaces the bytes of output of a connection in the heap.
    #[inline]
    pub(in crate::node) const fn replace_in_heap(&mut self, before: usize, after: usize) {
        self.in_heap = self.in_heap - before + after;
    }

    /// Replaces the `before` bytes of a connection or a task by `after`.
    #[inline]
    pub(in crate::node) const fn replace(&mut self, before: usize, after: usize) {
        self.owned = self.owned - before + after;
    }

    /// Whether buffers are over `buffers_max`, or have grown and the system has little memory left.
    #[inline]
    pub(super) fn are_over(&mut self, buffers_max: u64) -> bool {
        let bytes = self.bytes();
        self.at_probe = self.at_probe.min(bytes);
        let must_probe = bytes - self.at_probe >= BYTES_PER_PROBE;
        if must_probe {
            self.at_probe = bytes;
            self.have_grown = true;
        }
        bytes as u64 > buffers_max || must_probe && !has_left(2 * BYTES_PER_PROBE)
    }
}
