//! The bytes of buffers of all connections, which `buffers_max` and the memory of the system bound.

use crate::base::memory::has_left;

/// Bytes by which buffers grow until it is looked whether the system has memory left: small ones are allocated without
/// that.
const BYTES_PER_PROBE: usize = 1 << 20;

/// The sum; see the module.
#[derive(Debug, Default)]
pub(in crate::node) struct Buffered {
    bytes: usize,
    /// The same when it was last looked whether the system has memory for more, or less since.
    at_probe: usize,
}

impl Buffered {
    pub(in crate::node) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// A connection has held `before` bytes and holds `after`.
    #[inline]
    pub(in crate::node) const fn replace(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes - before + after;
    }

    /// Whether buffers are over `buffers_max`, or have grown to where the system has little memory left.
    #[inline]
    pub(super) fn are_over(&mut self, buffers_max: u64) -> bool {
        self.at_probe = self.at_probe.min(self.bytes);
        let must_probe = self.bytes - self.at_probe >= BYTES_PER_PROBE;
        if must_probe {
            self.at_probe = self.bytes;
        }
        self.bytes as u64 > buffers_max || must_probe && !has_left(2 * BYTES_PER_PROBE)
    }
}
