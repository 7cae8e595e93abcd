//! The hybrid logical clock, which gives every write of this node its version.

use crate::base::time::Now;
use crate::store::Version;

/// Bits below the millisecond: a unit is about a nanosecond. With milliseconds only, counters would decide the order
/// of two writes on two nodes within one millisecond.
const FRACTION_BITS: u32 = Version::FRACTION_BITS;

/// How far above the wall clock, in milliseconds, the clocks of peers are adopted and versions are accepted.
const BOUND_MS: u64 = 1_000;

/// The clock. Each version is above all earlier ones, not below the wall clock, and above every adopted clock of a
/// peer.
#[derive(Debug, Default)]
pub(in crate::node) struct HybridClock {
    last: u64,
}

/// The wall clock in the units of versions.
const fn wall(now: Now) -> u64 {
    (now.wall_ms() << FRACTION_BITS) | (((now.wall_nanos % 1_000_000) << FRACTION_BITS) / 1_000_000)
}

/// The highest version that is accepted.
const fn bound(now: Now) -> u64 {
    HybridClock::after(wall(now), BOUND_MS)
}

impl HybridClock {
    /// The version of the next write. Strictly increasing, even if the wall clock stands still or falls.
    #[inline]
    pub(in crate::node) fn stamp(&mut self, now: Now) -> Version {
        self.last = (self.last + 1).max(wall(now));
        Version(self.last)
    }

    /// The clock in frames: at least the last version, and at least the wall clock.
    pub(in crate::node) fn reading(&self, now: Now) -> u64 {
        self.last.max(wall(now))
    }

    /// Adopts the clock of a peer, up to the bound.
    #[inline]
    pub(in crate::node) fn adopt(&mut self, now: Now, clock: u64) {
        self.last = self.last.max(clock.min(bound(now)));
    }

    /// The clock `millis` milliseconds after `clock`.
    pub(in crate::node) const fn after(clock: u64, millis: u64) -> u64 {
        clock.saturating_add(millis << FRACTION_BITS)
    }

    /// Whether a version is accepted. One above the bound could not be overwritten here before the wall clock reaches
    /// it.
    pub(in crate::node) const fn is_within_bound(now: Now, version: u64) -> bool {
        version <= bound(now)
    }

    /// Milliseconds by which the clock is above the bound: more than 0 if the wall clock was set back.
    pub(in crate::node) fn ahead_ms(&self, now: Now) -> u64 {
        (self.last >> FRACTION_BITS).saturating_sub(now.wall_ms().saturating_add(BOUND_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::{FRACTION_BITS, HybridClock};
    use crate::base::time::{Instant, Now};

    #[test]
    fn versions_rise_when_the_wall_clock_falls() {
        let at = |wall_ms: u64| Now { mono: Instant::ZERO, wall_nanos: wall_ms * 1_000_000 };
        let mut clock = HybridClock::default();
        let seen: Vec<_> = [5, 5, 3, 6, 0].map(at).map(|now| clock.stamp(now)).to_vec();
        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
        assert_eq!(seen[3].0 >> FRACTION_BITS, 6);
    }

    #[test]
    fn write_that_follows_another_on_a_busier_node_is_newer() {
        let at = |wall_nanos| Now { mono: Instant::ZERO, wall_nanos };
        let (mut busy, mut calm) = (HybridClock::default(), HybridClock::default());
        let earlier = (0..50).map(|_| busy.stamp(at(7_000_100))).last().unwrap();
        assert!(calm.stamp(at(7_000_200)) > earlier);
        assert_eq!(calm.stamp(at(7_999_999)).0 >> FRACTION_BITS, 7);
    }

    #[test]
    fn clock_of_a_peer_is_adopted_up_to_a_second_above_the_wall_clock() {
        let at = |wall_ms: u64| Now { mono: Instant::ZERO, wall_nanos: wall_ms * 1_000_000 };
        let mut clock = HybridClock::default();
        clock.adopt(at(5_000), (5_900 << FRACTION_BITS) + 7);
        assert_eq!(clock.stamp(at(5_000)).0, (5_900 << FRACTION_BITS) + 8);
        clock.adopt(at(5_000), u64::MAX);
        assert_eq!(clock.reading(at(5_000)), 6_000 << FRACTION_BITS);
        assert!(HybridClock::is_within_bound(at(5_000), 6_000 << FRACTION_BITS));
        assert!(!HybridClock::is_within_bound(at(5_000), (6_000 << FRACTION_BITS) + 1));
        assert_eq!((clock.ahead_ms(at(5_000)), clock.ahead_ms(at(4_000))), (0, 1_000));
    }
}
