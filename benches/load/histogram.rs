//! Times in a log-linear histogram, as HdrHistogram has them: 32 steps to each power of two, so a figure
//! is at most 3 % above what was measured. Constant in memory and in time.

use std::time::Duration;

const STEP_BITS: u32 = 5;
const STEPS: u64 = 1 << STEP_BITS;
const BUCKETS: usize = 64 << STEP_BITS;

/// Counts by time.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_ns: u64,
}

impl Histogram {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max_ns: 0 }
    }

    /// Adds `count` events that each took `took`.
    pub(crate) fn add(&mut self, took: Duration, count: u64) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)] += count;
        self.total += count;
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many events there are.
    pub(crate) fn len(&self) -> u64 {
        self.total
    }

    /// The time that `permille` of a thousand events did not pass, in µs; 1,000 gives the longest.
    pub(crate) fn micros_at(&self, permille: u64) -> f64 {
        let wanted = (self.total * permille).div_ceil(1_000).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        let ns = found.map_or(0, upper_ns).min(self.max_ns);
        Duration::from_nanos(ns).as_secs_f64() * 1e6
    }
}

fn bucket(ns: u64) -> usize {
    let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(STEP_BITS + 1);
    // Below 64 × 32 whatever `ns` is.
    usize::try_from(u64::from(shift) * STEPS + (ns >> shift)).unwrap_or(BUCKETS - 1)
}

/// The longest time that falls into a bucket.
fn upper_ns(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / STEPS).saturating_sub(1);
    ((bucket - shift * STEPS + 1) << shift) - 1
}

// Run by tests/bench_quick.rs. Imports stand in the tests, since a benchmark is compiled without those.
#[cfg(test)]
mod tests {
    #[test]
    fn every_time_falls_into_a_bucket_at_most_3_percent_wide() {
        use super::{bucket, upper_ns};
        for ns in (0..5_000).chain((0..40).map(|bits| (1 << bits) + 12_345)) {
            let upper = upper_ns(bucket(ns));
            assert!(ns <= upper && upper - ns <= ns / 32, "{ns} {upper}");
        }
    }

    #[test]
    fn percentiles_of_a_thousand_times() {
        use super::Histogram;
        use std::time::Duration;
        let mut times = Histogram::new();
        (1..=1_000).for_each(|us| times.add(Duration::from_micros(us), 1));
        assert!((times.micros_at(500) - 500.0).abs() < 16.0, "{}", times.micros_at(500));
        assert!((times.micros_at(1_000) - 1_000.0).abs() < 0.1);
        assert_eq!(times.len(), 1_000);
    }
}
