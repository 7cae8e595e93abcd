//! A Bloom filter of a fixed size.
//!
//! To change the size, a filter of the new size is built ([`Bloom::rebuild_blocks`] from hashes, [`Bloom::merge`]
//! from the blocks of another filter), and replaces the old one when it is complete.

use super::rate::false_positive_rate_at_fill;
use super::size::{BLOCK_BITS, BLOCK_WORDS, Block, Size, merge, ones_of, positions};
use crate::base::memory::has_room;
use crate::base::prefetch::prefetch;
use bitvec::order::Lsb0;
use bitvec::vec::BitVec;
use std::fmt;
use std::mem;
use std::ops::Range;

/// Blocks per rebuild at most: 64 KiB, tens of µs.
pub const BLOCKS_PER_STEP: usize = 1_024;

/// A Bloom filter of hashes. Never a false negative.
pub struct Bloom {
    bits: BitVec<u64, Lsb0>,
    size: Size,
    /// Set bits.
    ones: u64,
    /// Memory of rebuilds, reused.
    scratch: Vec<Block>,
}

/// Zeroed words without touching them; `None` if the system has no memory for them. Memory is checked first: only
/// [`vec!`] takes zeroed pages from the system, and it aborts the process if there are none.
pub(super) fn zeroes(words: usize) -> Option<Vec<u64>> {
    has_room(words.checked_mul(size_of::<u64>())?).then(|| vec![0; words])
}

impl Bloom {
    /// An empty filter. O(1): memory is touched only as it is used. Aborts the process if there is none.
    pub fn new(size: Size) -> Self {
        Self::of(size, vec![0; size.words()])
    }

    /// An empty filter; `None` if there is no memory.
    pub fn try_new(size: Size) -> Option<Self> {
        zeroes(size.words()).map(|words| Self::of(size, words))
    }

    fn of(size: Size, words: Vec<u64>) -> Self {
        Self { bits: BitVec::from_vec(words), size, ones: 0, scratch: Vec::new() }
    }

    /// The size.
    pub const fn size(&self) -> Size {
        self.size
    }

    /// Bytes of the bits.
    pub const fn bytes(&self) -> u64 {
        self.size.bytes()
    }

    /// The number of set bits.
    pub const fn ones(&self) -> u64 {
        self.ones
    }

    /// The share of bits that are set, 0 to 1.
    pub fn fill(&self) -> f64 {
        self.ones as f64 / (self.size.blocks() * BLOCK_BITS) as f64
    }

    /// The false-positive rate of a fresh filter with this fill. Takes microseconds.
    pub fn predicted_false_positive_rate(&self) -> f64 {
        false_positive_rate_at_fill(self.fill())
    }

    /// Adds a hash; true if a bit changed. O(1), one cache line.
    #[inline]
    pub fn insert(&mut self, hash: u64) -> bool {
        let Some(block) = self.block_mut(self.size.block_of(hash)) else { return false };
        let mut added = 0;
        for (lane, position) in block.iter_mut().zip(positions(hash)) {
            added += !(*lane >> position) & 1;
            *lane |= 1 << position;
        }
        self.ones += added;
        added > 0
    }

    /// Whether the hash may have been inserted. Never false for one that was. O(1), one cache line.
    #[inline]
    pub fn contains(&self, hash: u64) -> bool {
        let Some(block) = self.block(self.size.block_of(hash)) else { return true };
        let claims = block.iter().zip(positions(hash)).map(|(lane, position)| lane >> position & 1);
        claims.fold(1, |all, bit| all & bit) == 1
    }

    /// Whether the first lane contains the hash: rejects half of the hashes that are not contained. Short, so that
    /// the cache misses of several filters overlap.
    #[inline]
    pub(super) fn first_lane_contains(&self, hash: u64) -> bool {
        let block = self.block(self.size.block_of(hash));
        block.is_none_or(|block| block[0] >> positions(hash)[0] & 1 == 1)
    }

    /// Prefetches the block of a hash.
    #[inline]
    pub fn fetch(&self, hash: u64) {
        if let Some(block) = self.block(self.size.block_of(hash)) {
            prefetch(block);
        }
    }

    /// A block; `None` beyond the last.
    #[inline]
    pub fn block(&self, number: usize) -> Option<&Block> {
        self.bits.as_raw_slice().as_chunks().0.get(number)
    }

    #[inline]
    fn block_mut(&mut self, number: usize) -> Option<&mut Block> {
        self.bits.as_raw_mut_slice().as_chunks_mut().0.get_mut(number)
    }

    /// The words of the filter, block by block.
    pub fn words(&self) -> &[u64] {
        self.bits.as_raw_slice()
    }

    /// Replaces a block; false if it was equal or there is no such block.
    pub fn replace_block(&mut self, number: usize, image: &Block) -> bool {
        let Some(block) = self.block_mut(number) else { return false };
        let old = mem::replace(block, *image);
        self.ones = self.ones - ones_of(&old) + ones_of(image);
        old != *image
    }

    /// Merges a block of a filter of another size into the blocks, or block, of the same hashes: each hash of that
    /// block is then contained here. Does nothing beyond the last block of `from`. O(ratio of sizes) if this filter
    /// is larger.
    pub fn merge(&mut self, from: &Self, number: usize) {
        let Some(image) = from.block(number) else { return };
        let (ours, theirs) = (self.size.log2(), from.size.log2());
        let into = if ours < theirs {
            let into = number >> (theirs - ours);
            into..into + 1
        } else {
            number << (ours - theirs)..(number + 1) << (ours - theirs)
        };
        for number in into {
            if let Some(mut block) = self.block(number).copied() {
                merge(&mut block, image);
                self.replace_block(number, &block);
            }
        }
    }

    /// Rebuilds blocks from `hashes`, which must contain every hash that is left in them; hashes of other blocks are
    /// ignored. Appends the numbers of the changed blocks to `changed`. No hash of `hashes` is missing at any time.
    ///
    /// Does nothing and returns false for more than [`BLOCKS_PER_STEP`] blocks, or blocks beyond the last.
    pub fn rebuild_blocks(
        &mut self,
        range: Range<usize>,
        hashes: impl IntoIterator<Item = u64>,
        changed: &mut Vec<u32>,
    ) -> bool {
        if range.end > self.size.blocks() || range.len() > BLOCKS_PER_STEP {
            return false;
        }
        let mut fresh = mem::take(&mut self.scratch);
        fresh.clear();
        fresh.resize(range.len(), [0; BLOCK_WORDS]);
        for hash in hashes {
            let at = self.size.block_of(hash).wrapping_sub(range.start);
            for (lane, position) in fresh.get_mut(at).into_iter().flatten().zip(positions(hash)) {
                *lane |= 1 << position;
            }
        }
        for (number, image) in range.zip(&fresh) {
            if self.replace_block(number, image) {
                changed.extend(u32::try_from(number));
            }
        }
        self.scratch = fresh;
        true
    }

    /// The memory of the bits, for a deferred free.
    pub(crate) fn into_words(self) -> Vec<u64> {
        self.bits.into_vec()
    }
}

impl fmt::Debug for Bloom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bloom").field("size", &self.size).field("ones", &self.ones).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Bloom, zeroes};
    use crate::base::rng::Rng;
    use crate::filter::size::{Size, ones_of};

    fn filled(log2: u8, keys: usize, seed: u64) -> (Bloom, Vec<u64>) {
        let mut rng = Rng::new(seed);
        let mut filter = Bloom::new(Size::from_log2(log2).unwrap());
        let hashes: Vec<u64> = (0..keys).map(|_| rng.next_u64()).collect();
        for &hash in &hashes {
            filter.insert(hash);
        }
        (filter, hashes)
    }

    #[test]
    fn missing_memory_is_refused_and_does_not_end_the_process() {
        assert_eq!(zeroes(usize::MAX / 16), None);
        assert_eq!(zeroes(3), Some(vec![0; 3]));
    }

    #[test]
    fn insert_of_a_known_hash_changes_nothing() {
        let (mut filter, hashes) = filled(3, 100, 1);
        let ones = filter.ones();
        assert!(hashes.iter().all(|&hash| !filter.insert(hash)));
        assert_eq!(filter.ones(), ones);
    }

    #[test]
    fn filter_merged_into_another_size_contains_every_hash() {
        for (from, into) in [(4, 4), (0, 3), (6, 5), (9, 2), (2, 9)] {
            let (filter, hashes) = filled(from, 10 << from.min(into), 2);
            let mut other = Bloom::new(Size::from_log2(into).unwrap());
            (0..filter.size().blocks()).for_each(|number| other.merge(&filter, number));
            assert!(hashes.iter().all(|&hash| other.contains(hash)));
            assert_eq!(other.ones(), ones_of(other.words()));
            if into < from {
                // A filter that had that size from the beginning.
                let mut fresh = Bloom::new(other.size());
                hashes.iter().for_each(|&hash| _ = fresh.insert(hash));
                assert_eq!(other.words(), fresh.words());
            }
            other.merge(&filter, filter.size().blocks());
        }
    }

    #[test]
    fn rebuilt_blocks_equal_those_of_a_fresh_filter() {
        let (mut filter, hashes) = filled(6, 2_000, 4);
        let kept: Vec<u64> = hashes.iter().copied().filter(|hash| hash % 3 > 0).collect();
        let mut changed = Vec::new();
        assert!(filter.rebuild_blocks(0..32, kept.iter().copied(), &mut changed));
        assert!(filter.rebuild_blocks(32..64, kept.iter().copied(), &mut changed));
        let mut fresh = Bloom::new(filter.size());
        kept.iter().for_each(|&hash| assert!(fresh.insert(hash) || fresh.contains(hash)));
        assert_eq!(filter.words(), fresh.words());
        assert_eq!(filter.ones(), fresh.ones());
        assert!(changed.is_sorted() && changed.len() > 60);
        changed.clear();
        assert!(filter.rebuild_blocks(0..64, kept, &mut changed));
        assert!(changed.is_empty(), "nothing changed the second time");
    }

    #[test]
    fn blocks_out_of_range_are_refused() {
        let mut filter = Bloom::new(Size::MIN);
        assert!(!filter.rebuild_blocks(0..2, [], &mut Vec::new()));
        assert!(!filter.replace_block(1, &[0; 8]));
        assert!(filter.block(1).is_none());
    }
}
