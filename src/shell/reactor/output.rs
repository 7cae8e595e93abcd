//! Output of connections: writes, alone or in batches.

use super::Reactor;
use crate::base::time::{Instant, Now};
use crate::batch::SOCKETS_MAX;
use crate::node::{Class, ConnKey};
use crate::shell::socket::{Socket, WriteEnd};

/// Maximum bytes of an output that is written in a batch: a value of 16 KiB with what is around it. A batch of them takes
/// some 200 µs.
const BATCHED_WRITE_BYTES_MAX: usize = 20 * 1024;

impl Reactor {
    /// Writes pending output, links first, one bounded write per connection and turn, until all is written, no socket
    /// accepts more, or `until` is reached.
    pub(super) fn flush(&mut self, until: Instant) {
        let mut some = |class| !self.unflushed.has(class) || self.flush_some(class, usize::MAX, until);
        let _ = some(Class::Links) && some(Class::Clients);
    }

    /// Makes at most `writes` writes to connections of a class, small ones together; false if `until` was reached.
    pub(super) fn flush_some(&mut self, class: Class, writes: usize, until: Instant) -> bool {
        let (mut now, mut left) = (self.clock.last(), writes);
        while left > 0 {
            if left < writes {
                now = self.clock.read_again();
            }
            while self.writes.len() < left.min(SOCKETS_MAX)
                && let Some(key) = self.unflushed.next(class)
                && self.is_small_write(key)
            {
                self.unflushed.pop(class);
                self.writes.push(key);
            }
            left -= self.writes.len();
            if self.writes.is_empty() {
                let Some(key) = self.unflushed.pop(class) else { return true };
                left -= 1;
                self.write_alone(now, class, key);
            } else {
                self.write_batch(now, class);
            }
            if now.mono >= until {
                return false;
            }
        }
        true
    }

    /// Whether the output of a connection can be written in a batch.
    fn is_small_write(&self, key: ConnKey) -> bool {
        let is_writable = self.sockets.get(key).is_some_and(Socket::is_writable);
        let bytes = self.node.outbound_slice(key).map_or(0, <[u8]>::len);
        is_writable && (1..=BATCHED_WRITE_BYTES_MAX).contains(&bytes)
    }

    /// Writes once to each connection of [`Reactor::writes`].
    fn write_batch(&mut self, now: Now, class: Class) {
        let write = |key: &ConnKey| Some((self.sockets.get(*key)?.stream(), self.node.outbound_slice(*key)?));
        self.batch.write(self.writes.iter().filter_map(write));
        for at in 0..self.writes.len() {
            let (key, result) = (self.writes[at], self.batch.take(at));
            // What was done for another one may have closed it.
            if let Some(socket) = self.sockets.get_mut(key) {
                let end = socket.has_written(result);
                self.has_written(now, class, key, end);
            }
        }
        self.writes.clear();
    }

    /// Writes once to a connection.
    fn write_alone(&mut self, now: Now, class: Class, key: ConnKey) {
        if let Some(socket) = self.sockets.get_mut(key).filter(|socket| socket.is_writable()) {
            let end = socket.write_slices(self.node.outbound(key));
            self.has_written(now, class, key, end);
        }
    }

    /// Passes the result of a write to the node. A connection is queued again if its socket may accept more, and there is
    /// more that no action will announce.
    fn has_written(&mut self, now: Now, class: Class, key: ConnKey, end: WriteEnd) {
        match end {
            WriteEnd::Took(0) => {}
            WriteEnd::Took(count) => {
                let is_left = self.node.outbound_bytes(key) > count;
                self.node.wrote(now, key, count);
                if is_left && self.node.outbound_bytes(key) > 0 {
                    self.unflushed.push(class, key, true);
                }
            }
            WriteEnd::Blocked => self.node.wrote(now, key, 0),
            WriteEnd::Broken(error) => self.lost(now, key, &error),
        }
        self.act();
    }
}
