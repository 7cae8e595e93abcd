//! The requests of a connection that wait for other nodes or for a task.

use crate::limits::Limits;

/// Bytes that a request which waits for other nodes holds.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::node) struct Held {
    /// Bytes of memory.
    pub(in crate::node) memory: usize,
    /// Bytes of values, whose memory is shared and has an account of its own.
    pub(in crate::node) values: usize,
}

/// Requests of a connection whose replies are not known yet.
#[derive(Debug, Default)]
pub(in crate::node) struct InFlight {
    /// Keys that are being looked up on other nodes.
    lookups: usize,
    /// Requests for which later ones of the connection wait, since a later request could change the result of such a
    /// request or depend on it: commands on another node, scans, long replies that read keys of this node.
    barriers: usize,
    /// Bytes of requests that wait for other nodes, or for their replies to be written.
    held: Held,
    /// Bytes of the values that other nodes have sent lately; `None` before the first answer.
    value_bytes: Option<usize>,
    /// Bytes of the keys that a scan has found.
    found_bytes: usize,
}

impl InFlight {
    /// Keys that are being looked up on other nodes.
    pub(super) const fn lookups(&self) -> usize {
        self.lookups
    }

    /// Whether later requests wait: the values that are here, or those that are expected, would be too many.
    pub(super) fn must_wait(&self, limits: &Limits) -> bool {
        let value_bytes = self.value_bytes.unwrap_or(limits.value_bytes_max as usize);
        self.barriers > 0
            || self.held.values > limits.outbound_pause_bytes as usize
            || self.lookups >= limits.lookups_per_connection as usize
            || self.lookups > 0
                && (self.lookups + 1).saturating_mul(value_bytes) > limits.reply_bytes_max as usize
    }

    /// Bytes of memory.
    pub(super) const fn bytes(&self) -> usize {
        self.held.memory + self.found_bytes
    }

    /// Bytes of memory of requests that wait for other nodes.
    pub(in crate::node) const fn bytes_of_requests(&self) -> usize {
        self.held.memory
    }

    /// Sets the bytes of the keys that a scan has found.
    pub(in crate::node) const fn has_found(&mut self, bytes: usize) {
        self.found_bytes = bytes;
    }

    /// Adds a request that waits for `lookups` lookups.
    pub(in crate::node) const fn begin(&mut self, lookups: usize, held: Held) {
        self.lookups += lookups;
        self.holds(Held { memory: 0, values: 0 }, held);
    }

    /// Removes a lookup that has ended.
    pub(in crate::node) const fn lookup_ended(&mut self) {
        self.lookups -= 1;
    }

    /// Notes that other nodes have answered with a value of this length, or none. What is expected of the next ones rises
    /// at once and falls by a quarter of the difference.
    pub(in crate::node) fn answered(&mut self, value_bytes: usize) {
        let expected = self.value_bytes.unwrap_or(value_bytes);
        self.value_bytes = Some(expected.max(value_bytes) - expected.saturating_sub(value_bytes).div_ceil(4));
    }

    /// Replaces the bytes of a request.
    pub(in crate::node) const fn holds(&mut self, before: Held, after: Held) {
        self.held.memory = (self.held.memory + after.memory).saturating_sub(before.memory);
        self.held.values = (self.held.values + after.values).saturating_sub(before.values);
    }

    /// Makes later requests wait for one of the requests.
    pub(in crate::node) const fn raise_barrier(&mut self) {
        self.barriers += 1;
    }

    /// Removes a request that has ended, and what it held.
    pub(in crate::node) fn end(&mut self, was_barrier: bool, held: Held) {
        self.barriers -= usize::from(was_barrier);
        self.holds(held, Held::default());
    }
}
