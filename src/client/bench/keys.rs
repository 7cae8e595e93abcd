//! The choice of keys, and the bytes of keys and values.
//!
//! Everything about a key follows from its number, so a reply is checked without a record of the values that were set.

use crate::base::rng::Rng;

const ALPHABET: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// The bytes of which all values consist: whole alphabets, and few enough to stay in a cache while values are large.
const FILLER_BYTES: usize = 1_024 * ALPHABET.len();

/// The number of positions at which values begin, so that neighbours differ.
const SHIFTS: u64 = 61;

/// The skew of the Zipf distributions of YCSB and its followers.
pub const ZIPF_USUAL: f64 = 0.99;

/// The size of a value, drawn by the number of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sizes {
    /// All of one size.
    Fixed(usize),
    /// Each size from the first to the second, equally often.
    Uniform(usize, usize),
    /// Each with its weight.
    Weighted(Vec<(usize, u64)>),
}

impl Sizes {
    /// Reads `64`, `10-1000` or `64:9,1024:1`, each size with its weight. `None` for other text.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains(':') {
            let part = |part: &str| {
                let (size, weight) = part.split_once(':')?;
                size.trim().parse().ok().zip(weight.trim().parse().ok())
            };
            let parts: Vec<(usize, u64)> = text.split(',').map(part).collect::<Option<_>>()?;
            let weights = parts.iter().try_fold(0u64, |sum, (_, weight)| sum.checked_add(*weight));
            return weights.is_some_and(|sum| sum > 0).then_some(Self::Weighted(parts));
        }
        match text.split_once('-') {
            None => text.parse().ok().map(Self::Fixed),
            Some((low, high)) => {
                let (low, high) = low.parse().ok().zip(high.parse().ok())?;
                (low <= high).then_some(Self::Uniform(low, high))
            }
        }
    }

    /// The largest size.
    pub fn max(&self) -> usize {
        match self {
            Self::Fixed(size) | Self::Uniform(_, size) => *size,
            Self::Weighted(parts) => parts.iter().map(|(size, _)| *size).max().unwrap_or(0),
        }
    }

    /// The size of the value of key number `number`.
    #[inline]
    fn of(&self, number: u64) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform(low, high) => {
                let more = Rng::new(number).below((high - low) as u64 + 1);
                low + usize::try_from(more).unwrap_or(0)
            }
            Self::Weighted(parts) => {
                let mut drawn = Rng::new(number).below(parts.iter().map(|(_, weight)| weight).sum());
                let found = parts.iter().find(|(_, weight)| match drawn.checked_sub(*weight) {
                    None => true,
                    Some(left) => {
                        drawn = left;
                        false
                    }
                });
                found.map_or(0, |(size, _)| *size)
            }
        }
    }
}

/// The bytes of keys and values: letters and digits, which no protocol quotes.
#[derive(Debug)]
pub(super) struct Texts {
    pub(super) key_bytes: usize,
    sizes: Sizes,
    filler: Vec<u8>,
}

/// A value: the filler from some position on, repeated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'t> {
    filler: &'t [u8],
    start: usize,
    pub(super) bytes: usize,
}

impl Texts {
    /// Keys of exactly `key_bytes`.
    pub(super) fn new(key_bytes: usize, sizes: Sizes) -> Self {
        let filler = ALPHABET.iter().copied().cycle().take(FILLER_BYTES).collect();
        Self { key_bytes, sizes, filler }
    }

    /// The value of key number `number`.
    #[inline]
    pub(super) fn value(&self, number: u64) -> Value<'_> {
        let start = usize::try_from(number % SHIFTS).unwrap_or(0);
        Value { filler: &self.filler, start, bytes: self.sizes.of(number) }
    }
}

impl<'t> Value<'t> {
    /// Its bytes, if they are in one piece.
    #[inline]
    pub(super) fn contiguous(self) -> Option<&'t [u8]> {
        self.filler.get(self.start..self.start + self.bytes)
    }

    /// Its bytes after the first `from`.
    #[inline]
    pub(super) fn pieces(self, mut from: usize) -> impl Iterator<Item = &'t [u8]> {
        std::iter::from_fn(move || {
            let left = self.bytes - from;
            if left == 0 {
                return None;
            }
            let at = (self.start + from) % FILLER_BYTES;
            let piece = &self.filler[at..(at + left).min(FILLER_BYTES)];
            from += piece.len();
            Some(piece)
        })
    }
}

/// Writes a number over the last of some digits `0`.
#[inline]
pub(super) fn put_number(number: u64, zeros: &mut [u8]) {
    let mut left = number;
    for byte in zeros.iter_mut().rev() {
        if left == 0 {
            break;
        }
        *byte = b"0123456789"[usize::try_from(left % 10).unwrap_or(0)];
        left /= 10;
    }
}

/// How often each key is requested.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pick {
    /// One after the other, each once: to fill.
    Sequential,
    /// All equally often.
    Uniform,
    /// A few often, many seldom: a Zipf distribution with this exponent below 1.
    Zipf(f64),
}

/// Draws the numbers of keys.
#[derive(Debug)]
pub(super) enum Draw {
    /// One after the other, each once, for all connections together.
    Sequential(u64),
    Uniform,
    Zipf(Zipf),
}

impl Draw {
    /// O(keys) for Zipf.
    pub(super) fn new(pick: Pick, keys: u64) -> Self {
        match pick {
            Pick::Sequential => Self::Sequential(0),
            Pick::Uniform => Self::Uniform,
            Pick::Zipf(exponent) => Self::Zipf(Zipf::new(keys, exponent)),
        }
    }

    /// The next of `keys` keys; `rng` is that of the connection.
    pub(super) fn next(&mut self, rng: &mut Rng, keys: u64) -> u64 {
        match self {
            Self::Sequential(next) => {
                *next += 1;
                (*next - 1) % keys
            }
            Self::Uniform => rng.below(keys),
            Self::Zipf(zipf) => zipf.next(rng),
        }
    }
}

/// Points at which the inverse of a Zipf distribution is kept: 32 KiB, which stay in a cache.
const POINTS: usize = 4_096;

/// Ranks whose shares are added one by one; above, the sum is the integral.
const EXACT: u64 = 1_000;

/// A Zipf distribution, drawn without a power per number: the inverse of its cumulative distribution, linear between
/// points at which it is exact.
#[derive(Debug)]
pub(super) struct Zipf {
    /// The rank up to which each multiple of 1 / `POINTS` of all draws goes.
    ranks: Vec<f64>,
}

impl Zipf {
    /// Over `keys` keys, number 0 the most frequent. O(1).
    fn new(keys: u64, exponent: f64) -> Self {
        let exact = EXACT.min(keys);
        let mut sums = vec![0.0];
        for rank in 1..=exact {
            sums.push(sums[sums.len() - 1] + libm::pow(rank as f64, -exponent));
        }
        // Of the ranks above `exact`, each from half a rank below to half a rank above.
        let rest = 1.0 - exponent;
        let power = |rank: u64| libm::pow(rank as f64 + 0.5, rest);
        let (head, first) = (sums[sums.len() - 1], power(exact));
        let all = head + (power(keys) - first) / rest;
        let rank = |point: usize| {
            let sum = all * point as f64 / POINTS as f64;
            if sum >= head {
                return libm::pow(first + (sum - head) * rest, 1.0 / rest) - 0.5;
            }
            let below = sums.partition_point(|other| *other <= sum) - 1;
            below as f64 + (sum - sums[below]) / (sums[below + 1] - sums[below])
        };
        let mut ranks: Vec<f64> = (0..=POINTS).map(rank).collect();
        // The last rank is below the number of keys, whatever rounding adds.
        ranks[POINTS] = keys as f64;
        Self { ranks }
    }

    #[inline]
    fn next(&self, rng: &mut Rng) -> u64 {
        let scaled = rng.below((POINTS as u64) << 32);
        let at = usize::try_from(scaled >> 32).unwrap_or(0);
        let (low, high) = (self.ranks[at], self.ranks[at + 1]);
        let share = (scaled & u64::from(u32::MAX)) as f64 / (1u64 << 32) as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to the number of keys"
        )]
        let rank = (low + (high - low) * share) as u64;
        rank
    }
}

#[cfg(test)]
mod tests {
    use super::{ALPHABET, Draw, FILLER_BYTES, Pick, Sizes, Texts, ZIPF_USUAL};
    use crate::base::rng::Rng;

    #[test]
    fn values_have_their_length_and_differ_and_go_on_at_any_byte() {
        let bytes = FILLER_BYTES * 2 + 10;
        let texts = Texts::new(8, Sizes::Fixed(bytes));
        let from = |number, from| texts.value(number).pieces(from).collect::<Vec<_>>().concat();
        let whole = from(42, 0);
        assert_eq!(whole.len(), bytes);
        assert!(whole.iter().zip(ALPHABET.iter().cycle().skip(42)).all(|(byte, letter)| byte == letter));
        assert_ne!(from(1, 0), from(2, 0));
        for at in [1, FILLER_BYTES - 42, FILLER_BYTES, bytes - 1, bytes] {
            assert!(from(42, at) == whole[at..], "from {at}");
        }
    }

    #[test]
    fn sizes_are_read_and_drawn_by_their_weights() {
        for wrong in ["", "x", "5-2", "1:", "1:0", "64,128", "-5", "1:2,3"] {
            assert_eq!(Sizes::parse(wrong), None, "{wrong}");
        }
        let mean = |text: &str| {
            let texts = Texts::new(8, Sizes::parse(text).unwrap());
            (0..10_000).map(|number| texts.value(number).bytes).sum::<usize>() / 10_000
        };
        assert_eq!(mean("64"), 64);
        assert!((495..=515).contains(&mean("10-1000")), "{}", mean("10-1000"));
        assert!((155..=165).contains(&mean("64:9,1024:1")), "{}", mean("64:9,1024:1"));
    }

    #[test]
    fn zipf_draws_each_rank_as_often_as_its_share() {
        for keys in [1u32, 2, 1_000, 1_000_000] {
            let mut draw = Draw::new(Pick::Zipf(ZIPF_USUAL), keys.into());
            let mut rng = Rng::new(1);
            let mut drawn: Vec<u64> = (0..200_000).map(|_| draw.next(&mut rng, keys.into())).collect();
            drawn.sort_unstable();
            assert!(drawn[drawn.len() - 1] < keys.into());
            let sum = |ranks: u32| (1..=ranks).map(|rank| f64::from(rank).powf(-ZIPF_USUAL)).sum::<f64>();
            for ranks in
                [1, 2, 10, 100, 999, 1_001, 10_000, 500_000].into_iter().filter(|ranks| *ranks <= keys)
            {
                let found = drawn.partition_point(|number| *number < ranks.into()) as f64 / 200_000.0;
                let share = sum(ranks) / sum(keys);
                assert!(
                    (found - share).abs() < 0.004,
                    "{found} of draws in {ranks} of {keys} ranks: {share}"
                );
            }
        }
    }
}
