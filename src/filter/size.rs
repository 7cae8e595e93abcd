//! The sizes of filters, and the positions of a hash in one.
//!
//! A filter is 2^b blocks of 512 bits, a block one cache line of 8 lanes of 64 bits. The top b bits of a
//! hash select its block; the top 48 bits of hash × an odd constant are eight positions of 6 bits, one per
//! lane. The positions do not depend on b, so a filter is resized without its keys. One bit per lane, after
//! Putze, Sanders, Singler: "Cache-, hash- and space-efficient Bloom filters", 2007.

/// 64-bit words of a block: one per lane.
pub const BLOCK_WORDS: usize = 8;

/// Bits of a block.
pub const BLOCK_BITS: usize = 64 * BLOCK_WORDS;

/// Bytes of a block, also of its image on the wire.
pub const BLOCK_BYTES: usize = 8 * BLOCK_WORDS;

/// The bits of one block.
pub type Block = [u64; BLOCK_WORDS];

/// The logarithm of the blocks of the largest filter: 4 GiB, for 2.8 billion keys at 12 bits per key. Counts of bits
/// stay below 2^35, block numbers within a `u32`.
pub const SIZE_LOG2_MAX: u8 = 26;

/// Odd, and without a pattern: the golden ratio times 2^64.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// The size of a filter: a power of two of blocks, 1 to 2^26.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size {
    log2: u8,
}

impl Size {
    /// One block.
    pub const MIN: Self = Self { log2: 0 };

    /// The largest size there is.
    pub const MAX: Self = Self { log2: SIZE_LOG2_MAX };

    /// 2^`log2` blocks; `None` above the largest size.
    pub const fn from_log2(log2: u8) -> Option<Self> {
        if log2 <= SIZE_LOG2_MAX { Some(Self { log2 }) } else { None }
    }

    /// Exactly `blocks` blocks; `None` if that is not a power of two, or above the largest size.
    pub const fn from_blocks(blocks: u64) -> Option<Self> {
        if !blocks.is_power_of_two() {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "below 64")]
        Self::from_log2(blocks.trailing_zeros() as u8)
    }

    /// The smallest size that gives each of `keys` keys `bits_per_key` bits; `None` above the largest.
    pub fn for_keys(keys: u64, bits_per_key: u32) -> Option<Self> {
        let bits = keys.checked_mul(bits_per_key.into())?;
        let last_block = bits.saturating_sub(1) / BLOCK_BITS as u64;
        #[expect(clippy::cast_possible_truncation, reason = "64 at most")]
        Self::from_log2((u64::BITS - last_block.leading_zeros()) as u8)
    }

    /// An estimate of the keys in a filter of this size from its share of set bits: each key sets one of 64 bits in
    /// each lane of its block.
    pub fn keys_at_fill(self, fill: f64) -> f64 {
        (self.words() as f64 * 8.0 * libm::log(1.0 - fill.min(0.999_999)).abs()).round()
    }

    /// The logarithm of the number of blocks: the number of top bits of a hash that select its block.
    pub const fn log2(self) -> u8 {
        self.log2
    }

    /// The number of blocks.
    pub const fn blocks(self) -> usize {
        1 << self.log2
    }

    /// The number of bits.
    pub const fn bits(self) -> u64 {
        (BLOCK_BITS as u64) << self.log2
    }

    /// The number of 64-bit words.
    pub const fn words(self) -> usize {
        BLOCK_WORDS << self.log2
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        (BLOCK_BYTES as u64) << self.log2
    }

    /// The block of a hash: below `blocks()`.
    pub const fn block_of(self, hash: u64) -> usize {
        // Two shifts, since a shift by 64 is undefined.
        ((hash >> 1) >> (63 - self.log2)) as usize
    }
}

/// The positions of a hash's bits in the lanes of its block: eight, each below 64.
pub(super) const fn positions(hash: u64) -> [u32; BLOCK_WORDS] {
    let mixed = hash.wrapping_mul(SPREAD);
    let mut positions = [0; BLOCK_WORDS];
    let mut lane = 0;
    while lane < BLOCK_WORDS {
        positions[lane] = (mixed >> (58 - 6 * lane) & 63) as u32;
        lane += 1;
    }
    positions
}

/// Sets the bits of `from` in `into`.
pub(super) fn merge(into: &mut Block, from: &Block) {
    for (lane, bits) in into.iter_mut().zip(from) {
        *lane |= bits;
    }
}

/// The number of set bits.
pub(super) fn ones_of(words: &[u64]) -> u64 {
    words.iter().map(|word| u64::from(word.count_ones())).sum()
}

#[cfg(test)]
mod tests {
    use super::{SIZE_LOG2_MAX, Size, positions};

    #[test]
    fn size_beyond_the_limit_or_uneven_is_none() {
        assert_eq!(Size::from_blocks(0), None);
        assert_eq!(Size::from_blocks(3), None);
        assert_eq!(Size::from_blocks(1 << (SIZE_LOG2_MAX + 1)), None);
        assert_eq!(Size::from_blocks(1 << SIZE_LOG2_MAX), Some(Size::MAX));
        assert_eq!(Size::for_keys(u64::MAX, 12), None);
        assert_eq!(Size::for_keys(0, 12), Some(Size::MIN));
        assert_eq!(Size::for_keys(43, 12), Size::from_log2(1));
        assert_eq!(Size::for_keys(42, 12), Some(Size::MIN));
    }

    #[test]
    fn block_of_the_last_hash_is_the_last_block_at_every_size() {
        for log2 in 0..=SIZE_LOG2_MAX {
            let size = Size::from_log2(log2).unwrap();
            assert_eq!(size.block_of(u64::MAX), size.blocks() - 1);
            assert_eq!(size.block_of(0), 0);
        }
    }

    #[test]
    fn positions_are_the_top_48_bits_of_the_product() {
        let hash = 0x0123_4567_89AB_CDEF;
        let product: u64 = u64::wrapping_mul(hash, super::SPREAD);
        let joined = positions(hash).iter().fold(0u64, |all, &position| all << 6 | u64::from(position));
        assert_eq!(joined, product >> 16);
    }
}
