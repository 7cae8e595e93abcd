//! Counts of times in log-linear buckets: eight per power of two, so that a quantile is at most an eighth too high.

use std::time::Duration;

/// Nanoseconds that one step of the first buckets covers, as a power of two.
const UNIT_BITS: u32 = 6;

/// Buckets per power of two, as a power of two.
const STEP_BITS: u32 = 3;
const STEPS: usize = 1 << STEP_BITS;

/// Powers of two that are told apart above the first steps: up to 137 s.
const OCTAVES: usize = 28;

/// The number of buckets.
pub const BUCKETS: usize = STEPS + OCTAVES * STEPS;

/// Times by bucket; one beyond the last bucket is in the last one.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    count: u64,
    total_nanos: u128,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], count: 0, total_nanos: 0 }
    }
}

/// The bucket of a time.
fn bucket(nanos: u64) -> usize {
    let units = nanos >> UNIT_BITS;
    if units < STEPS as u64 {
        return usize::try_from(units).unwrap_or(0);
    }
    let octave = units.ilog2() - STEP_BITS;
    let step = usize::try_from(units >> octave).unwrap_or(0) - STEPS;
    (STEPS + octave as usize * STEPS + step).min(BUCKETS - 1)
}

/// The time at which a bucket ends.
fn end(bucket: usize) -> Duration {
    let units = match bucket.checked_sub(STEPS) {
        None => bucket as u64 + 1,
        Some(at) => ((STEPS + at % STEPS) as u64 + 1) << (at / STEPS),
    };
    Duration::from_nanos(units << UNIT_BITS)
}

impl Histogram {
    /// Adds `count` times of the same length, in nanoseconds.
    #[inline]
    pub fn add(&mut self, nanos: u64, count: u32) {
        self.counts[bucket(nanos)] += u64::from(count);
        self.count += u64::from(count);
        self.total_nanos += u128::from(nanos) * u128::from(count);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, more)| *own += more);
        self.count += other.count;
        self.total_nanos += other.total_nanos;
    }

    /// Adds to one bucket; for counts that were kept by bucket.
    pub fn add_to_bucket(&mut self, bucket: u8, count: u32) {
        if let Some(own) = self.counts.get_mut(usize::from(bucket)) {
            *own += u64::from(count);
            self.count += u64::from(count);
        }
    }

    /// What has been added since an earlier state of the same histogram, by bucket.
    pub fn added_since(&self, earlier: &Self) -> impl Iterator<Item = (u8, u32)> {
        let pairs = (0u8..).zip(self.counts.iter().zip(&earlier.counts));
        pairs.filter_map(|(bucket, (now, then))| {
            let more = now.saturating_sub(*then);
            (more > 0).then(|| (bucket, u32::try_from(more).unwrap_or(u32::MAX)))
        })
    }

    /// How many times were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum in seconds.
    pub fn total_seconds(&self) -> f64 {
        self.total_nanos as f64 / 1e9
    }

    /// The time that a share of all times does not exceed, rounded up to the end of its bucket; zero if there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.count as f64 * share).ceil().max(1.0);
        let mut below = 0;
        for (at, count) in self.counts.iter().enumerate() {
            below += count;
            if *count > 0 && below as f64 >= rank {
                return end(at);
            }
        }
        Duration::ZERO
    }

    /// The times up to each of `limits`, which rise.
    pub fn up_to<'l>(&self, limits: &'l [Duration]) -> impl Iterator<Item = (&'l Duration, u64)> {
        let mut next = 0;
        let mut below = 0;
        limits.iter().map(move |limit| {
            while next < BUCKETS && end(next) <= *limit {
                below += self.counts[next];
                next += 1;
            }
            (limit, below)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Histogram, bucket, end};
    use std::time::Duration;

    #[test]
    fn each_time_is_below_the_end_of_its_bucket_and_above_that_of_the_one_before() {
        assert_eq!(u8::try_from(BUCKETS - 1).map(usize::from), Ok(BUCKETS - 1), "a bucket is one byte");
        let times = (0..37).flat_map(|bits| [0, 1, 3].map(|more| (1u64 << bits) + more * (1 << bits) / 4));
        for nanos in times.chain(0..5_000) {
            let (time, at) = (Duration::from_nanos(nanos), bucket(nanos));
            assert!(time < end(at) && (at == 0 || time >= end(at - 1)), "{nanos} ns in bucket {at}");
            let width = end(at).saturating_sub(if at == 0 { Duration::ZERO } else { end(at - 1) });
            assert!(at < 8 || width * 8 <= end(at), "{nanos} ns");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_an_eighth_too_high_at_most() {
        let mut times = Histogram::default();
        assert_eq!(times.quantile(0.5), Duration::ZERO);
        (1..=1_000).for_each(|micros| times.add(micros * 1_000, 1));
        for (share, exact) in [(0.001, 1), (0.5, 500), (0.99, 990), (1.0, 1_000)] {
            let (found, exact) = (times.quantile(share), Duration::from_micros(exact));
            assert!(found > exact && found <= exact * 9 / 8, "{share}: {found:?}");
        }
        let limits = [100, 200, 2_000].map(Duration::from_micros);
        let below: Vec<u64> = times.up_to(&limits).map(|(_, count)| count).collect();
        assert!(below[0] <= 100 && below[0] > 85 && below[1] <= 200 && below[2] == 1_000, "{below:?}");
        assert_eq!((times.count(), times.total_seconds()), (1_000, 0.5005));
    }

    #[test]
    fn what_was_added_since_is_kept_by_bucket() {
        let mut times = Histogram::default();
        times.add(1_000_000, 3);
        let before = times.clone();
        times.add(1_000_000, 2);
        times.add(1_000_000_000, 1);
        let mut since = Histogram::default();
        times.added_since(&before).for_each(|(bucket, count)| since.add_to_bucket(bucket, count));
        assert_eq!(since.count(), 3);
        assert!(
            since.quantile(0.5) < Duration::from_millis(2) && since.quantile(1.0) >= Duration::from_secs(1)
        );
        since.merge(&before);
        assert_eq!(since.count(), 6);
    }
}
