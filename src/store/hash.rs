//! The one hash of a key: keyed xxh3, 64 bits, shared by index, filter and wire.
//!
//! The secret form of xxh3 is used and not the seed form, since for keys up to 240 bytes the seed form
//! mixes only 64 bits of seed into constants that everybody knows.

use crate::base::rng::Rng;
use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_secret;

/// Bytes of a hash secret: xxh3's default length.
pub(super) const SECRET_BYTES: usize = 192;

/// What makes the hash of one mesh unlike that of any other.
#[derive(Clone)]
pub struct HashSecret {
    bytes: [u8; SECRET_BYTES],
    /// All ones, but in tests of equal hashes.
    mask: u64,
}

impl HashSecret {
    /// The secret with exactly these bytes.
    pub const fn from_bytes(bytes: [u8; SECRET_BYTES]) -> Self {
        Self { bytes, mask: u64::MAX }
    }

    /// The same secret, of whose hashes only these bits are left: for tests in which many keys have
    /// equal hashes.
    #[must_use]
    pub const fn masked(self, mask: u64) -> Self {
        Self { mask, ..self }
    }

    /// A secret drawn from `rng`: as unpredictable as its seed.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut bytes = [0; SECRET_BYTES];
        rng.fill(&mut bytes);
        Self::from_bytes(bytes)
    }

    /// The hash of a key.
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(xxh3_64_with_secret(key, &self.bytes) & self.mask)
    }
}

impl fmt::Debug for HashSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashSecret(not shown)")
    }
}

/// The hash of a key under the node's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub u64);

/// All hashes from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashRange {
    /// The first of them.
    pub first: u64,
    /// The last of them, itself included.
    pub last: u64,
}

impl HashRange {
    /// Every hash that there is.
    pub const ALL: Self = Self { first: 0, last: u64::MAX };

    /// Whether a hash is one of them.
    pub const fn contains(self, hash: u64) -> bool {
        self.first <= hash && hash <= self.last
    }
}

/// A key with its hash, so that one request hashes once.
#[derive(Debug, Clone, Copy)]
pub struct HashedKey<'k> {
    /// Its hash under the secret of the store that made it.
    pub hash: KeyHash,
    /// Its bytes.
    pub bytes: &'k [u8],
}

#[cfg(test)]
mod tests {
    use super::HashSecret;
    use crate::base::rng::Rng;

    #[test]
    fn another_secret_gives_another_hash_even_for_short_keys() {
        let one = HashSecret::draw(&mut Rng::new(1));
        let two = HashSecret::draw(&mut Rng::new(2));
        for length in [0usize, 1, 3, 8, 16, 17, 128, 129, 240, 241, 1_024] {
            let key = vec![b'k'; length];
            assert_eq!(one.hash(&key), one.hash(&key));
            assert_ne!(one.hash(&key), two.hash(&key), "{length}");
        }
    }

    #[test]
    fn secret_is_not_printed() {
        let secret = HashSecret::from_bytes([0xAB; super::SECRET_BYTES]);
        assert!(!format!("{secret:?}").contains("171"));
    }
}
