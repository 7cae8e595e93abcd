//! Which keys are asked for, and what they and their values look like.
//!
//! Everything about a key follows from its number, so a reply can be checked without remembering
//! what was set.

use olivia::base::rng::Rng;

/// Values begin at one of so many places of one text, so that neighbours differ.
const SHIFTS: u64 = 61;

/// The skew of a Zipf distribution that YCSB and its followers measure with.
const ZIPF_THETA: f64 = 0.99;

/// The bytes of keys and values.
#[derive(Debug)]
pub(crate) struct Texts {
    key_bytes: usize,
    value_bytes: usize,
    filler: Vec<u8>,
}

impl Texts {
    /// Keys of exactly `key_bytes`, values of exactly `value_bytes`: letters and digits, which no
    /// protocol quotes.
    pub(crate) fn new(key_bytes: usize, value_bytes: usize) -> Self {
        let alphabet = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        let shifts = usize::try_from(SHIFTS).unwrap_or(0);
        let filler = alphabet.iter().copied().cycle().take(value_bytes + shifts).collect();
        Self { key_bytes, value_bytes, filler }
    }

    /// Writes key number `number` over what is in `key`.
    pub(crate) fn key(&self, number: u64, key: &mut Vec<u8>) {
        key.clear();
        key.resize(self.key_bytes, b'0');
        let mut left = number;
        let mut digits = key.iter_mut().rev();
        while left > 0
            && let Some(byte) = digits.next()
        {
            *byte = b"0123456789"[usize::try_from(left % 10).unwrap_or(0)];
            left /= 10;
        }
    }

    /// The value of key number `number`.
    pub(crate) fn value(&self, number: u64) -> &[u8] {
        let start = usize::try_from(number % SHIFTS).unwrap_or(0);
        &self.filler[start..start + self.value_bytes]
    }
}

/// In which order keys come.
#[derive(Debug)]
pub(crate) enum Order {
    /// One after the other, each once.
    Sequential(u64),
    /// Each as often as any other.
    Uniform,
    /// A few often, many seldom.
    Zipf(Zipf),
}

impl Order {
    /// The number of the next of `keys` keys.
    pub(crate) fn next(&mut self, rng: &mut Rng, keys: u64) -> u64 {
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
pub(crate) struct Zipf {
    keys: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    /// Over `keys` keys, number 0 the most frequent. O(keys).
    pub(crate) fn new(keys: u64) -> Self {
        let zeta = |n: u64| (1..=n).map(|i| 1.0 / (i as f64).powf(ZIPF_THETA)).sum::<f64>();
        let (all, two, keys) = (zeta(keys), zeta(2.min(keys)), keys as f64);
        let eta = (1.0 - (2.0 / keys).powf(1.0 - ZIPF_THETA)) / (1.0 - two / all);
        Self { keys, alpha: 1.0 / (1.0 - ZIPF_THETA), zeta: all, eta }
    }

    fn next(&self, rng: &mut Rng) -> u64 {
        let drawn = rng.below(1 << 53) as f64 / (1u64 << 53) as f64;
        let scaled = drawn * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(ZIPF_THETA) {
            return 1;
        }
        let at = self.keys * (self.eta * drawn - self.eta + 1.0).powf(self.alpha);
        #[expect(clippy::cast_possible_truncation, reason = "between 0 and the number of keys")]
        let at = at.clamp(0.0, self.keys - 1.0) as u64;
        at
    }
}

// Run by tests/bench_quick.rs. Imports stand in the tests, since a benchmark is compiled without those.
#[cfg(test)]
mod tests {
    #[test]
    fn keys_have_their_length_and_differ() {
        use super::Texts;
        let texts = Texts::new(8, 64);
        let mut key = Vec::new();
        texts.key(42, &mut key);
        assert_eq!(key, b"00000042");
        assert_eq!(texts.value(42).len(), 64);
        assert_ne!(texts.value(1), texts.value(2));
    }

    #[test]
    fn zipf_draws_the_first_keys_most() {
        use super::{Order, Zipf};
        use olivia::base::rng::Rng;
        let mut order = Order::Zipf(Zipf::new(1_000));
        let mut rng = Rng::new(1);
        let mut counts = [0u32; 1_000];
        for _ in 0..100_000 {
            counts[usize::try_from(order.next(&mut rng, 1_000)).unwrap()] += 1;
        }
        assert!(counts[0] > 10_000 && counts[0] > counts[1], "{:?}", &counts[..4]);
        assert!(counts[..100].iter().sum::<u32>() > 60_000);
        assert!(counts[900..].iter().any(|&count| count > 0));
    }
}
