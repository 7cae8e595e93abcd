//! Bytes per second of a connection lately, counted in two windows.

use crate::base::time::Instant;

/// Seconds of the windows that traffic is counted in.
const TRAFFIC_SECONDS: u64 = 10;

/// Bytes of a connection lately: in this window of 10 s and in the one before.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::node) struct Traffic {
    window: u64,
    bytes: u64,
    before: u64,
}

impl Traffic {
    /// Counts bytes that were read or written.
    pub(in crate::node) fn add(&mut self, now: Instant, bytes: usize) {
        let window = now.millis() / (1_000 * TRAFFIC_SECONDS);
        if window != self.window {
            *self = Self { window, bytes: 0, before: if window == self.window + 1 { self.bytes } else { 0 } };
        }
        self.bytes += bytes as u64;
    }

    /// Bytes per second over this window and the one before.
    pub(in crate::node) fn per_second(mut self, now: Instant) -> u64 {
        self.add(now, 0);
        let into = now.millis() / 1_000 % TRAFFIC_SECONDS;
        (self.bytes + self.before) / (TRAFFIC_SECONDS + into)
    }
}
