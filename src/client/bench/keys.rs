//! The choice of keys, and the bytes of keys and values.
//!
//! Everything about a key follows from its number, so a reply is checked without a record of the values that were set.

use crate::base::rng::Rng;

/// The number of positions in one text at which values begin, so that neighbours differ.
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
    key_bytes: usize,
    sizes: Sizes,
    filler: Vec<u8>,
}

impl Texts {
    /// Keys of exactly `key_bytes`.
    pub(super) fn new(key_bytes: usize, sizes: Sizes) -> Self {
        let alphabet = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        let shifts = usize::try_from(SHIFTS).unwrap_or(0);
        let filler = alphabet.iter().copied().cycle().take(sizes.max() + shifts).collect();
        Self { key_bytes, sizes, filler }
    }

    /// Replaces `key` by key number `number`.
    pub(super) fn key(&self, number: u64, key: &mut Vec<u8>) {
        key.clear();
        key.resize(self.key_bytes, b'0');
        let mut left = number;
        for byte in key.iter_mut().rev() {
            if left == 0 {
                break;
            }
            *byte = b"0123456789"[usize::try_from(left % 10).unwrap_or(0)];
            left /= 10;
        }
    }

    /// The value of key number `number`.
    pub(super) fn value(&self, number: u64) -> &[u8] {
        let start = usize::try_from(number % SHIFTS).unwrap_or(0);
        &self.filler[start..start + self.sizes.of(number)]
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

/// A Zipf distribution, drawn as in Gray et al., "Quickly generating billion-record synthetic databases".
#[derive(Debug)]
pub(super) struct Zipf {
    keys: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
    /// Below this share the second key is drawn.
    second: f64,
}

impl Zipf {
    /// Over `keys` keys, number 0 the most frequent. O(keys).
    fn new(keys: u64, exponent: f64) -> Self {
        let zeta = |n: u64| (1..=n).map(|i| 1.0 / libm::pow(i as f64, exponent)).sum::<f64>();
        let (all, two, keys) = (zeta(keys), zeta(2.min(keys)), keys as f64);
        let eta = (1.0 - libm::pow(2.0 / keys, 1.0 - exponent)) / (1.0 - two / all);
        Self { keys, alpha: 1.0 / (1.0 - exponent), zeta: all, eta, second: 1.0 + libm::pow(0.5, exponent) }
    }

    fn next(&self, rng: &mut Rng) -> u64 {
        let drawn = rng.below(1 << 53) as f64 / (1u64 << 53) as f64;
        let scaled = drawn * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < self.second {
            return 1;
        }
        let at = self.keys * libm::pow(self.eta * drawn - self.eta + 1.0, self.alpha);
        #[expect(clippy::cast_possible_truncation, reason = "between 0 and the number of keys")]
        let at = at.clamp(0.0, self.keys - 1.0) as u64;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::{Draw, Pick, Sizes, Texts, ZIPF_USUAL};
    use crate::base::rng::Rng;

    #[test]
    fn keys_have_their_length_and_differ() {
        let texts = Texts::new(8, Sizes::Fixed(64));
        let mut key = Vec::new();
        texts.key(42, &mut key);
        assert_eq!(key, b"00000042");
        assert_eq!(texts.value(42).len(), 64);
        assert_ne!(texts.value(1), texts.value(2));
    }

    #[test]
    fn sizes_are_read_and_drawn_by_their_weights() {
        for wrong in ["", "x", "5-2", "1:", "1:0", "64,128", "-5", "1:2,3"] {
            assert_eq!(Sizes::parse(wrong), None, "{wrong}");
        }
        let mean = |text: &str| {
            let texts = Texts::new(8, Sizes::parse(text).unwrap());
            (0..10_000).map(|number| texts.value(number).len()).sum::<usize>() / 10_000
        };
        assert_eq!(mean("64"), 64);
        assert!((495..=515).contains(&mean("10-1000")), "{}", mean("10-1000"));
        assert!((155..=165).contains(&mean("64:9,1024:1")), "{}", mean("64:9,1024:1"));
    }

    #[test]
    fn zipf_draws_the_first_keys_most() {
        let mut draw = Draw::new(Pick::Zipf(ZIPF_USUAL), 1_000);
        let mut rng = Rng::new(1);
        let mut counts = [0u32; 1_000];
        for _ in 0..100_000 {
            counts[usize::try_from(draw.next(&mut rng, 1_000)).unwrap()] += 1;
        }
        assert!(counts[0] > 10_000 && counts[0] > counts[1], "{:?}", &counts[..4]);
        assert!(counts[..100].iter().sum::<u32>() > 60_000);
        assert!(counts[900..].iter().any(|&count| count > 0));
    }
}
