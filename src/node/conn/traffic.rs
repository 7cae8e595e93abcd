//! Recent bytes per second of a connection, counted in two windows.

use crate::base::time::Instant;

/// Nanoseconds of a window.
const WINDOW_NANOS: u64 = 10 * NANOS_PER_SECOND;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Recent bytes of a connection: in this window of 10 s and in the one before.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::node) struct Traffic {
    /// The end of this window.
    ends: Instant,
    bytes: u64,
    before: u64,
}

impl Traffic {
    /// Counts bytes that were read or written.
    #[inline]
    pub(in crate::node) fn add(&mut self, now: Instant, bytes: usize) {
        if now >= self.ends {
            self.begin_window(now);
        }
        self.bytes += bytes as u64;
    }

    #[cold]
    fn begin_window(&mut self, now: Instant) {
        let is_next = now.nanos() - self.ends.nanos() < WINDOW_NANOS;
        let ends = Instant::from_nanos((now.nanos() / WINDOW_NANOS + 1) * WINDOW_NANOS);
        *self = Self { ends, bytes: 0, before: if is_next { self.bytes } else { 0 } };
    }

    /// Bytes per second over this window and the one before.
    pub(in crate::node) fn per_second(mut self, now: Instant) -> u64 {
        self.add(now, 0);
        let into = now.nanos() % WINDOW_NANOS / NANOS_PER_SECOND;
        (self.bytes + self.before) / (WINDOW_NANOS / NANOS_PER_SECOND + into)
    }
}
