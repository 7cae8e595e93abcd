//! The hash of a key: keyed xxh3 of 64 bits, used by index, filter and wire.
//!
//! xxh3 is used with a secret, not with a seed: for keys up to 240 bytes the seed form only mixes 64 bits of seed
//! into public constants.

use crate::base::rng::Rng;
use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_secret;

/// Bytes of a hash secret: xxh3's default length.
pub(super) const SECRET_BYTES: usize = 192;

/// The secret of the hash, the same on all nodes of a mesh.
#[derive(Clone)]
pub struct HashSecret {
    bytes: [u8; SECRET_BYTES],
    /// Bits of a hash that are used: all, except in tests of equal hashes.
    mask: u64,
}

impl HashSecret {
    /// The secret with exactly these bytes.
    pub const fn from_bytes(bytes: [u8; SECRET_BYTES]) -> Self {
        Self { bytes, mask: u64::MAX }
    }

    /// The same secret with a mask for its hashes, for tests of equal hashes.
    #[must_use]
    pub const fn masked(self, mask: u64) -> Self {
        Self { mask, ..self }
    }

    /// A random secret, as unpredictable as the seed of `rng`.
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

/// A range of hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashRange {
    /// The first hash.
    pub first: u64,
    /// The last hash, inclusive.
    pub last: u64,
}

impl HashRange {
    /// All hashes.
    pub const ALL: Self = Self { first: 0, last: u64::MAX };

    /// Whether a hash is in the range.
    pub const fn contains(self, hash: u64) -> bool {
        self.first <= hash && hash <= self.last
    }
}

/// A key with its hash, so that a request hashes it once.
#[derive(Debug, Clone, Copy)]
pub struct HashedKey<'k> {
    /// Its hash under the secret of the store.
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
