//! Counts of times in log-linear buckets, 2^`STEP_BITS` per power of two: with 3, in a node, a quantile is at most an
//! eighth too high; with 8, in the load generator, a 256th.

use std::time::Duration;

/// Nanoseconds that one step of the first buckets covers, as a power of two.
const UNIT_BITS: u32 = 6;

/// Powers of two of the unit up to which times are distinguished: 137 s.
const UNITS_BITS: usize = 31;

/// The number of buckets with 2^`step_bits` steps per power of two.
pub const fn buckets(step_bits: usize) -> usize {
    (UNITS_BITS - step_bits + 1) << step_bits
}

/// The number of buckets of a node's histograms.
pub const BUCKETS: usize = buckets(3);

/// Counts of times by bucket; times beyond the last bucket are in the last one.
#[derive(Debug, Clone)]
pub struct Histogram<const STEP_BITS: usize = 3, const BUCKETS: usize = { buckets(3) }> {
    counts: [u64; BUCKETS],
    count: u64,
    total_nanos: u128,
}

impl<const STEP_BITS: usize, const BUCKETS: usize> Default for Histogram<STEP_BITS, BUCKETS> {
    fn default() -> Self {
        const { assert!(BUCKETS == buckets(STEP_BITS)) };
        Self { counts: [0; BUCKETS], count: 0, total_nanos: 0 }
    }
}

/// The bucket of a time.
fn bucket(nanos: u64, step_bits: usize) -> usize {
    let (units, steps) = (nanos >> UNIT_BITS, 1 << step_bits);
    if units < steps as u64 {
        return usize::try_from(units).unwrap_or(0);
    }
    let octave = units.ilog2() as usize - step_bits;
    let step = usize::try_from(units >> octave).unwrap_or(0) - steps;
    (steps + octave * steps + step).min(buckets(step_bits) - 1)
}

/// The time at which a bucket ends.
fn end(bucket: usize, step_bits: usize) -> Duration {
    let steps = 1 << step_bits;
    let units = match bucket.checked_sub(steps) {
        None => bucket as u64 + 1,
        Some(at) => ((steps + at % steps) as u64 + 1) << (at / steps),
    };
    Duration::from_nanos(units << UNIT_BITS)
}

impl<const STEP_BITS: usize, const BUCKETS: usize> Histogram<STEP_BITS, BUCKETS> {
    /// Adds `count` times of the same length, in nanoseconds.
    #[inline]
    pub fn add(&mut self, nanos: u64, count: u32) {
        self.counts[bucket(nanos, STEP_BITS)] += u64::from(count);
        self.count += u64::from(count);
        self.total_nanos += u128::from(nanos) * u128::from(count);
    }

    /// Adds all times of another histogram.
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

    /// The counts added since an earlier state of the same histogram, by bucket.
    pub fn added_since(&self, earlier: &Self) -> impl Iterator<Item = (u8, u32)> {
        let pairs = (0u8..).zip(self.counts.iter().zip(&earlier.counts));
        pairs.filter_map(|(bucket, (now, then))| {
            let more = now.saturating_sub(*then);
            (more > 0).then(|| (bucket, u32::try_from(more).unwrap_or(u32::MAX)))
        })
    }

    /// The number of times added.
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
                return end(at, STEP_BITS);
            }
        }
        Duration::ZERO
    }

    /// The number of times up to each of `limits`, which must ascend.
    pub fn up_to<'l>(&self, limits: &'l [Duration]) -> impl Iterator<Item = (&'l Duration, u64)> {
        let mut next = 0;
        let mut below = 0;
        limits.iter().map(move |limit| {
            while next < BUCKETS && end(next, STEP_BITS) <= *limit {
                below += self.counts[next];
                next += 1;
            }
            (limit, below)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Histogram, bucket, buckets, end};
    use std::time::Duration;

    #[test]
    fn each_time_is_below_the_end_of_its_bucket_and_above_that_of_the_one_before() {
        assert_eq!(u8::try_from(BUCKETS - 1).map(usize::from), Ok(BUCKETS - 1), "a bucket is one byte");
        for bits in [3, 8] {
            let times =
                (0..37).flat_map(|bits| [0, 1, 3].map(|more| (1u64 << bits) + more * (1 << bits) / 4));
            for nanos in times.chain(0..5_000) {
                let (time, at) = (Duration::from_nanos(nanos), bucket(nanos, bits));
                let begin = if at == 0 { Duration::ZERO } else { end(at - 1, bits) };
                assert!(time < end(at, bits) && time >= begin, "{nanos} ns in bucket {at}");
                let width = end(at, bits) - begin;
                assert!(at < 1 << bits || width * (1 << bits) <= end(at, bits), "{nanos} ns");
            }
            assert_eq!(bucket(u64::MAX, bits), buckets(bits) - 1);
        }
    }

    #[test]
    fn quantiles_are_one_step_too_high_at_most() {
        quantiles::<3, { buckets(3) }>(Duration::from_micros(125));
        quantiles::<8, { buckets(8) }>(Duration::from_micros(4));
        let mut times: Histogram = Histogram::default();
        (1..=1_000).for_each(|micros| times.add(micros * 1_000, 1));
        let limits = [100, 200, 2_000].map(Duration::from_micros);
        let below: Vec<u64> = times.up_to(&limits).map(|(_, count)| count).collect();
        assert!(below[0] <= 100 && below[0] > 85 && below[1] <= 200 && below[2] == 1_000, "{below:?}");
        assert_eq!((times.count(), times.total_seconds()), (1_000, 0.5005));
    }

    /// `error`: the error of a time of one millisecond.
    fn quantiles<const STEP_BITS: usize, const BUCKETS: usize>(error: Duration) {
        let mut times = Histogram::<STEP_BITS, BUCKETS>::default();
        assert_eq!(times.quantile(0.5), Duration::ZERO);
        (1..=1_000).for_each(|micros| times.add(micros * 1_000, 1));
        for (share, exact) in [(0.001, 1), (0.5, 500), (0.99, 990), (1.0, 1_000)] {
            let (found, exact) = (times.quantile(share), Duration::from_micros(exact));
            assert!(
                found > exact && found <= exact + error.max(Duration::from_nanos(64)),
                "{share}: {found:?}"
            );
        }
    }

    #[test]
    fn what_was_added_since_is_kept_by_bucket() {
        let mut times: Histogram = Histogram::default();
        times.add(1_000_000, 3);
        let before = times.clone();
        times.add(1_000_000, 2);
        times.add(1_000_000_000, 1);
        let mut since: Histogram = Histogram::default();
        times.added_since(&before).for_each(|(bucket, count)| since.add_to_bucket(bucket, count));
        assert_eq!(since.count(), 3);
        assert!(
            since.quantile(0.5) < Duration::from_millis(2) && since.quantile(1.0) >= Duration::from_secs(1)
        );
        since.merge(&before);
        assert_eq!(since.count(), 6);
    }
}
