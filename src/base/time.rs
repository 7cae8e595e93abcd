//! Time as integers. Only the shell reads a clock: it passes a [`Now`] to each call, which stays fixed during the call.
//!
//! An own instant type, as in smoltcp, lets a simulator control time.

use std::time::Duration;

/// A moment on the monotonic clock: nanoseconds since an origin that the shell chose at start. Comparable only within
/// one process. Covers 584 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant {
    nanos: u64,
}

impl Instant {
    /// The origin of the clock.
    pub const ZERO: Self = Self { nanos: 0 };

    /// The moment `nanos` after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { nanos }
    }

    /// The moment `millis` after the origin; the latest moment there is if that is later.
    pub const fn from_millis(millis: u64) -> Self {
        Self { nanos: millis.saturating_mul(1_000_000) }
    }

    /// Nanoseconds since the origin.
    pub const fn nanos(self) -> u64 {
        self.nanos
    }

    /// Whole milliseconds since the origin, rounded down.
    pub const fn millis(self) -> u64 {
        self.nanos / 1_000_000
    }

    /// Milliseconds since the origin, rounded up.
    pub const fn millis_ceil(self) -> u64 {
        self.nanos.div_ceil(1_000_000)
    }

    /// How long ago `earlier` was; zero if it was not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }

    /// The moment `span` later; the latest moment there is if that is later.
    pub fn after(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self { nanos: self.nanos.saturating_add(nanos) }
    }
}

/// The time of a call of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Never decreases; timers and expiries use it.
    pub mono: Instant,
    /// Nanoseconds since 1970 by the system clock, which may jump either way. For versions and absolute expiries. While
    /// it does not jump, its milliseconds begin with those of `mono`. Covers the time until 2554.
    pub wall_nanos: u64,
}

impl Now {
    /// Whole milliseconds since 1970, rounded down.
    pub const fn wall_ms(self) -> u64 {
        self.wall_nanos / 1_000_000
    }
}
