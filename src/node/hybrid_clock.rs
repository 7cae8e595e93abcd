//! The hybrid logical clock that stamps every write of this node with a version.

use crate::base::time::Now;
use crate::store::Version;

/// Bits of a version that count within a millisecond; the 44 above them are milliseconds since 1970.
const COUNTER_BITS: u32 = 20;

/// Gives each write a version above all earlier ones, at or after the wall clock.
#[derive(Debug, Default)]
pub(in crate::node) struct HybridClock {
    last: u64,
}

impl HybridClock {
    /// The version of the next write. Strictly rising, also while the wall clock stands still or falls.
    #[inline]
    pub(in crate::node) fn stamp(&mut self, now: Now) -> Version {
        self.last = (self.last + 1).max(now.wall_ms << COUNTER_BITS);
        Version(self.last)
    }

    /// The reading that frames carry: at least the last version, and at least the wall clock.
    pub(in crate::node) fn reading(&self, now: Now) -> u64 {
        self.last.max(now.wall_ms << COUNTER_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::{COUNTER_BITS, HybridClock};
    use crate::base::time::{Instant, Now};

    #[test]
    fn versions_rise_when_the_wall_clock_falls() {
        let at = |wall_ms| Now { mono: Instant::ZERO, wall_ms };
        let mut clock = HybridClock::default();
        let seen: Vec<_> = [5, 5, 3, 6, 0].map(at).map(|now| clock.stamp(now)).to_vec();
        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
        assert_eq!(seen[3].0 >> COUNTER_BITS, 6);
    }
}
