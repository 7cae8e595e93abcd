//! The requests of a connection that wait for other nodes or for a task.

/// Requests of a connection whose replies are not known yet.
#[derive(Debug, Default)]
pub(in crate::node) struct InFlight {
    /// Keys that are being looked up on other nodes.
    lookups: usize,
    /// Requests that later ones of the connection wait for, since those could change what they find or depend on what
    /// they do: commands on another node, scans, long replies that read keys of this node.
    barriers: usize,
    /// Bytes of memory.
    bytes: usize,
}

impl InFlight {
    /// Keys that are being looked up on other nodes.
    pub(super) const fn lookups(&self) -> usize {
        self.lookups
    }

    /// Whether later requests wait, where a connection may have so many lookups.
    pub(super) const fn must_wait(&self, lookups_max: usize) -> bool {
        self.barriers > 0 || self.lookups >= lookups_max
    }

    /// Bytes of memory.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// A request begins, which waits for so many lookups and holds so many bytes.
    pub(in crate::node) const fn begin(&mut self, lookups: usize, bytes: usize) {
        self.lookups += lookups;
        self.bytes += bytes;
    }

    /// A lookup for one of the requests has ended.
    pub(in crate::node) const fn lookup_ended(&mut self) {
        self.lookups -= 1;
    }

    /// A request has held `before` bytes and holds `after`.
    pub(in crate::node) const fn holds(&mut self, before: usize, after: usize) {
        self.bytes = (self.bytes + after).saturating_sub(before);
    }

    /// Later requests wait for one of them.
    pub(in crate::node) const fn raise_barrier(&mut self) {
        self.barriers += 1;
    }

    /// A request has ended, which held so many bytes.
    pub(in crate::node) fn end(&mut self, was_barrier: bool, bytes: usize) {
        self.barriers -= usize::from(was_barrier);
        self.holds(bytes, 0);
    }
}
