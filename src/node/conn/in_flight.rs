//! The requests of a connection that wait for other nodes or for a task.

/// Requests of a connection whose replies are not known yet.
#[derive(Debug, Default)]
pub(in crate::node) struct InFlight {
    /// Keys that are being looked up on other nodes.
    lookups: usize,
    /// Requests for which later ones of the connection wait, since a later request could change the result of such a
    /// request or depend on it: commands on another node, scans, long replies that read keys of this node.
    barriers: usize,
    /// Bytes of memory of requests that wait for other nodes.
    bytes: usize,
    /// Bytes of the keys that a scan has found.
    found_bytes: usize,
}

impl InFlight {
    /// Keys that are being looked up on other nodes.
    pub(super) const fn lookups(&self) -> usize {
        self.lookups
    }

    /// Whether later requests wait; `lookups_max` is the limit of lookups per connection.
    pub(super) const fn must_wait(&self, lookups_max: usize) -> bool {
        self.barriers > 0 || self.lookups >= lookups_max
    }

    /// Bytes of memory.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes + self.found_bytes
    }

    /// Bytes of memory of requests that wait for other nodes.
    pub(in crate::node) const fn bytes_of_requests(&self) -> usize {
        self.bytes
    }

    /// Sets the bytes of the keys that a scan has found.
    pub(in crate::node) const fn has_found(&mut self, bytes: usize) {
        self.found_bytes = bytes;
    }

    /// Adds a request that waits for `lookups` lookups and holds `bytes` bytes.
    pub(in crate::node) const fn begin(&mut self, lookups: usize, bytes: usize) {
        self.lookups += lookups;
        self.bytes += bytes;
    }

    /// Removes a lookup that has ended.
    pub(in crate::node) const fn lookup_ended(&mut self) {
        self.lookups -= 1;
    }

    /// Replaces the `before` bytes of a request by `after`.
    pub(in crate::node) const fn holds(&mut self, before: usize, after: usize) {
        self.bytes = (self.bytes + after).saturating_sub(before);
    }

    /// Makes later requests wait for one of the requests.
    pub(in crate::node) const fn raise_barrier(&mut self) {
        self.barriers += 1;
    }

    /// Removes a request that has ended, and the `bytes` bytes that it held.
    pub(in crate::node) fn end(&mut self, was_barrier: bool, bytes: usize) {
        self.barriers -= usize::from(was_barrier);
        self.holds(bytes, 0);
    }
}
