//! One Bloom filter: its bits, and how it grows, shrinks and forgets without a moment of false negatives.
//!
//! Growth is a stretch: with one more top bit of the hash each block is written twice, and no key is
//! hashed again. Shrinking is a fold: neighbours are merged. Both move a bounded number of blocks a step,
//! behind a boundary that both share: blocks of the coarser size below the boundary lie merged, those from
//! it on lie split. A stretch lowers the boundary from the top and gives the old memory back on its way; a
//! fold raises it from the bottom, in place, and never writes over a block that has not moved yet.
//!
//! Single bits go through `bitvec`; whole blocks go through its raw words, since bit by bit that is tens
//! of times slower. Here is no log of changes ([`super::digest`]) and nobody else's filter
//! ([`super::PeerFilters`]).

use super::rate::false_positive_rate_at_fill;
use super::size::{BLOCK_BITS, BLOCK_WORDS, Block, Size, merge, ones_of, positions};
use crate::base::prefetch::prefetch;
use bitvec::order::Lsb0;
use bitvec::vec::BitVec;
use std::fmt;
use std::mem;
use std::ops::Range;

/// Blocks that one [`Bloom::step`] moves, and that one rebuild takes at most: 64 KiB, tens of µs.
pub const BLOCKS_PER_STEP: usize = 1_024;

/// How many sizes smaller than the filter an image may be asked for: it merges 2 to the power of this.
const IMAGE_SPREAD_MAX: u8 = 6;

/// What a filter is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reshape {
    None,
    /// The memory of the larger size is touched for the first time; the boundary stands at the top. In
    /// steps, and not by making the old memory larger, since the system may copy it whole to do so.
    MakingRoom,
    Stretching,
    Folding,
    /// The fold is done; the words beyond it are given back.
    Trimming,
}

/// Which of the two kinds of blocks, each with its own numbers, there are while reshaping.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Of the smaller size.
    Merged,
    /// Of the larger.
    Split,
}

/// Why a filter could not change its shape; it is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReshapeError {
    /// It is in the middle of changing it.
    Busy,
    /// It is as large, or as small, as filters get.
    AtLimit,
    /// The system has no memory for it.
    NoMemory,
}

impl fmt::Display for ReshapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "the filter is changing its size",
            Self::AtLimit => "filters have 1 to 2^26 blocks",
            Self::NoMemory => "no memory for a larger filter",
        })
    }
}

/// A filter of hashes: what it does not contain was never inserted, or was rebuilt away.
pub struct Bloom {
    bits: BitVec<u64, Lsb0>,
    /// The split blocks of a stretch, at their places in the larger size; else empty. A fold has its split
    /// blocks in `bits`.
    stretched: BitVec<u64, Lsb0>,
    /// The smaller of the two sizes while reshaping, else the size.
    coarse: Size,
    /// Blocks of `coarse` below it lie merged, those from it on as two each. At the end if not reshaping.
    boundary: usize,
    reshape: Reshape,
    /// Set bits of the blocks that count; what lies beyond or behind the boundary's move does not.
    ones: u64,
    /// Kept between rebuilds.
    scratch: Vec<Block>,
}

/// So many zeroes, none of them touched yet; `None` if the system has no memory for them. It is asked twice:
/// only [`vec!`] gives zeroes that need not be written, and that would end the process.
pub(super) fn zeroes(words: usize) -> Option<Vec<u64>> {
    Vec::<u64>::new().try_reserve_exact(words).ok()?;
    Some(vec![0; words])
}

impl Bloom {
    /// An empty filter. Memory is asked for, but touched only as it is used: returns at once. If there is none,
    /// the process ends.
    pub fn new(size: Size) -> Self {
        Self::of(size, vec![0; size.words()])
    }

    /// The same, but `None` if there is no memory.
    pub fn try_new(size: Size) -> Option<Self> {
        zeroes(size.words()).map(|words| Self::of(size, words))
    }

    fn of(size: Size, words: Vec<u64>) -> Self {
        Self {
            bits: BitVec::from_vec(words),
            stretched: BitVec::new(),
            coarse: size,
            boundary: size.blocks(),
            reshape: Reshape::None,
            ones: 0,
            scratch: Vec::new(),
        }
    }

    /// The size, while reshaping the one that it will have.
    pub const fn size(&self) -> Size {
        match (self.reshape, self.coarse.doubled()) {
            (Reshape::MakingRoom | Reshape::Stretching, Some(fine)) => fine,
            (Reshape::None | Reshape::Folding | Reshape::Trimming, _) | (_, None) => self.coarse,
        }
    }

    /// The size whose block numbers [`Bloom::rebuild_blocks`] takes: the smaller one while reshaping.
    pub const fn coarse_size(&self) -> Size {
        self.coarse
    }

    /// Whether [`Bloom::step`] has work.
    pub const fn is_reshaping(&self) -> bool {
        !matches!(self.reshape, Reshape::None)
    }

    /// Bytes of the bits, at most: while reshaping those of both sizes.
    pub const fn bytes(&self) -> u64 {
        match self.reshape {
            Reshape::None => self.coarse.bytes(),
            Reshape::MakingRoom | Reshape::Stretching => self.coarse.bytes() + self.size().bytes(),
            Reshape::Folding | Reshape::Trimming => 2 * self.coarse.bytes(),
        }
    }

    /// The set bits.
    pub const fn ones(&self) -> u64 {
        self.ones
    }

    /// The share of bits that are set, 0 to 1.
    pub fn fill(&self) -> f64 {
        let blocks = self.boundary + 2 * (self.coarse.blocks() - self.boundary);
        self.ones as f64 / (blocks * BLOCK_BITS) as f64
    }

    /// The false-positive rate that a fresh filter would have at this fill. Microseconds.
    pub fn predicted_false_positive_rate(&self) -> f64 {
        false_positive_rate_at_fill(self.fill())
    }

    /// Adds a hash; true if a bit changed. O(1), one cache line.
    #[inline]
    pub fn insert(&mut self, hash: u64) -> bool {
        let (part, at) = self.place_of(hash);
        let Some(block) = self.block_mut(part, at) else { return false };
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
        let (part, at) = self.place_of(hash);
        let Some(block) = self.block(part, at) else { return true };
        let claims = block.iter().zip(positions(hash)).map(|(lane, position)| lane >> position & 1);
        claims.fold(1, |all, bit| all & bit) == 1
    }

    /// Whether the first lane claims the hash: half of those that [`Bloom::contains`] refuses fail here
    /// already. So short that a processor waits for the memory of several filters at once.
    #[inline]
    pub(super) fn first_lane_contains(&self, hash: u64) -> bool {
        let (part, at) = self.place_of(hash);
        self.block(part, at).is_none_or(|block| block[0] >> positions(hash)[0] & 1 == 1)
    }

    /// Begins to fetch the block of a hash.
    #[inline]
    pub fn fetch(&self, hash: u64) {
        let (part, at) = self.place_of(hash);
        if let Some(block) = self.block(part, at) {
            prefetch(block);
        }
    }

    /// Where the block of a hash is stored.
    #[inline]
    fn place_of(&self, hash: u64) -> (Part, usize) {
        let block = self.coarse.block_of(hash);
        if block < self.boundary {
            return (Part::Merged, block);
        }
        self.coarse.doubled().map_or((Part::Merged, block), |fine| (Part::Split, fine.block_of(hash)))
    }

    #[inline]
    fn block(&self, part: Part, at: usize) -> Option<&Block> {
        let bits = match part {
            Part::Split if !self.stretched.is_empty() => &self.stretched,
            Part::Split | Part::Merged => &self.bits,
        };
        bits.as_raw_slice().as_chunks().0.get(at)
    }

    #[inline]
    fn block_mut(&mut self, part: Part, at: usize) -> Option<&mut Block> {
        let bits = match part {
            Part::Split if !self.stretched.is_empty() => &mut self.stretched,
            Part::Split | Part::Merged => &mut self.bits,
        };
        bits.as_raw_mut_slice().as_chunks_mut().0.get_mut(at)
    }

    fn stored(&self, part: Part, at: usize) -> Block {
        self.block(part, at).copied().unwrap_or_default()
    }

    /// Everything that may be in block `number` of a filter of `size`, whatever shape this one is in: the
    /// exact block where the sizes agree, else a superset of it. `None` if there is no such block or the
    /// filter is more than 64 times as large. O(1).
    pub fn image(&self, size: Size, number: usize) -> Option<Block> {
        if number >= size.blocks() {
            return None;
        }
        if size > self.coarse {
            let deeper = size.log2() - self.coarse.log2();
            let block = number >> deeper;
            let merged = block < self.boundary;
            return Some(if merged {
                self.stored(Part::Merged, block)
            } else {
                self.stored(Part::Split, number >> (deeper - 1))
            });
        }
        let spread = self.coarse.log2() - size.log2();
        if spread > IMAGE_SPREAD_MAX {
            return None;
        }
        let mut image = [0; BLOCK_WORDS];
        for block in number << spread..(number + 1) << spread {
            if block < self.boundary {
                merge(&mut image, &self.stored(Part::Merged, block));
            } else {
                merge(&mut image, &self.stored(Part::Split, 2 * block));
                merge(&mut image, &self.stored(Part::Split, 2 * block + 1));
            }
        }
        Some(image)
    }

    /// The words of the filter, block by block, unless it is reshaping.
    pub fn words(&self) -> Option<&[u64]> {
        (!self.is_reshaping()).then(|| self.bits.as_raw_slice())
    }

    /// Puts `image` in the place of a block. False, and nothing is changed, while reshaping or if there is
    /// no such block.
    pub fn replace_block(&mut self, number: usize, image: &Block) -> bool {
        if self.is_reshaping() || number >= self.coarse.blocks() {
            return false;
        }
        self.overwrite(Part::Merged, number, image);
        true
    }

    /// Writes a block that counts; true if it was different.
    fn overwrite(&mut self, part: Part, at: usize, image: &Block) -> bool {
        let Some(block) = self.block_mut(part, at) else { return false };
        let old = mem::replace(block, *image);
        self.ones = self.ones - ones_of(&old) + ones_of(image);
        old != *image
    }

    /// Replaces blocks by what `hashes` gives, which must be every hash that is left in them; hashes of
    /// other blocks are passed over. The numbers are those of [`Bloom::coarse_size`]; those of the blocks
    /// that changed are appended to `changed`. No other block is touched, and there is no moment at which
    /// a hash of `hashes` is missing.
    ///
    /// Does nothing and returns false for more than [`BLOCKS_PER_STEP`] blocks, or blocks that are not.
    pub fn rebuild_blocks(
        &mut self,
        range: Range<usize>,
        hashes: impl IntoIterator<Item = u64>,
        changed: &mut Vec<u32>,
    ) -> bool {
        if range.end > self.coarse.blocks() || range.len() > BLOCKS_PER_STEP {
            return false;
        }
        // Two for each block: its halves behind the boundary, else the block and an empty one.
        let mut fresh = mem::take(&mut self.scratch);
        fresh.clear();
        fresh.resize(2 * range.len(), [0; BLOCK_WORDS]);
        for hash in hashes {
            let block = self.coarse.block_of(hash);
            if !range.contains(&block) {
                continue;
            }
            let half = if block < self.boundary { 0 } else { self.place_of(hash).1 & 1 };
            for (lane, position) in fresh[2 * (block - range.start) + half].iter_mut().zip(positions(hash)) {
                *lane |= 1 << position;
            }
        }
        for (block, halves) in range.zip(fresh.as_chunks::<2>().0) {
            let differs = if block < self.boundary {
                self.overwrite(Part::Merged, block, &halves[0])
            } else {
                let first = self.overwrite(Part::Split, 2 * block, &halves[0]);
                self.overwrite(Part::Split, 2 * block + 1, &halves[1]) || first
            };
            if differs {
                changed.extend(u32::try_from(block));
            }
        }
        self.scratch = fresh;
        true
    }

    /// Begins to double the size; [`Bloom::step`] does it. Asks for the memory at once, touches none.
    ///
    /// # Errors
    /// Nothing is changed.
    pub fn start_stretch(&mut self) -> Result<(), ReshapeError> {
        if self.is_reshaping() {
            return Err(ReshapeError::Busy);
        }
        let fine = self.coarse.doubled().ok_or(ReshapeError::AtLimit)?;
        let mut words = Vec::new();
        words.try_reserve_exact(fine.words()).map_err(|_| ReshapeError::NoMemory)?;
        self.stretched = BitVec::from_vec(words);
        self.reshape = Reshape::MakingRoom;
        Ok(())
    }

    /// Begins to halve the size; [`Bloom::step`] does it.
    ///
    /// # Errors
    /// Nothing is changed.
    pub fn start_fold(&mut self) -> Result<(), ReshapeError> {
        if self.is_reshaping() {
            return Err(ReshapeError::Busy);
        }
        self.coarse = self.coarse.halved().ok_or(ReshapeError::AtLimit)?;
        self.boundary = 0;
        self.reshape = Reshape::Folding;
        Ok(())
    }

    /// Moves at most [`BLOCKS_PER_STEP`] blocks; true if there is more to do.
    pub fn step(&mut self) -> bool {
        match self.reshape {
            Reshape::None => {}
            Reshape::MakingRoom => self.make_room(),
            Reshape::Stretching => self.stretch(),
            Reshape::Folding => self.fold(),
            Reshape::Trimming => self.trim(),
        }
        self.is_reshaping()
    }

    fn make_room(&mut self) {
        let Some(fine) = self.coarse.doubled() else { return };
        let mut words = mem::take(&mut self.stretched).into_vec();
        // Within the capacity that was reserved, so it does not move.
        let length = fine.words().min(words.len() + BLOCKS_PER_STEP * BLOCK_WORDS);
        words.resize(length, 0);
        self.stretched = BitVec::from_vec(words);
        if length == fine.words() {
            self.reshape = Reshape::Stretching;
        }
    }

    fn stretch(&mut self) {
        let until = self.boundary.saturating_sub(BLOCKS_PER_STEP);
        let (merged, _) = self.bits.as_raw_slice().as_chunks::<BLOCK_WORDS>();
        let (split, _) = self.stretched.as_raw_mut_slice().as_chunks_mut::<BLOCK_WORDS>();
        let halves = split.as_chunks_mut::<2>().0;
        let pairs = merged.iter().zip(halves).take(self.boundary).skip(until);
        for (block, halves) in pairs {
            *halves = [*block; 2];
            self.ones += ones_of(block);
        }
        self.boundary = until;
        cut(&mut self.bits, until * BLOCK_WORDS);
        if until == 0 {
            self.coarse = self.size();
            self.boundary = self.coarse.blocks();
            self.bits = mem::take(&mut self.stretched);
            self.reshape = Reshape::None;
        }
    }

    fn fold(&mut self) {
        let until = self.coarse.blocks().min(self.boundary + BLOCKS_PER_STEP);
        for block in self.boundary..until {
            let mut merged = self.stored(Part::Split, 2 * block);
            let second = self.stored(Part::Split, 2 * block + 1);
            self.ones -= ones_of(&merged) + ones_of(&second);
            merge(&mut merged, &second);
            self.ones += ones_of(&merged);
            if let Some(place) = self.block_mut(Part::Merged, block) {
                *place = merged;
            }
        }
        self.boundary = until;
        if until == self.coarse.blocks() {
            self.reshape = Reshape::Trimming;
        }
    }

    /// Gives the end back piece by piece, since freeing much memory at once takes milliseconds.
    fn trim(&mut self) {
        let step = BLOCKS_PER_STEP * BLOCK_WORDS;
        let length = self.coarse.words().max((self.bits.len() / 64).saturating_sub(step));
        cut(&mut self.bits, length);
        if length == self.coarse.words() {
            self.reshape = Reshape::None;
        }
    }

    /// The memory of the bits, for who frees it in steps.
    pub(super) fn into_words(self) -> [Vec<u64>; 2] {
        [self.bits.into_vec(), self.stretched.into_vec()]
    }
}

/// Gives back what lies beyond the first `words`.
fn cut(bits: &mut BitVec<u64, Lsb0>, words: usize) {
    let mut kept = mem::take(bits).into_vec();
    kept.truncate(words);
    kept.shrink_to_fit();
    *bits = BitVec::from_vec(kept);
}

impl fmt::Debug for Bloom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bloom")
            .field("coarse", &self.coarse)
            .field("boundary", &self.boundary)
            .field("reshape", &self.reshape)
            .field("ones", &self.ones)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Bloom, ReshapeError, zeroes};
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

    fn finish(filter: &mut Bloom, hashes: &[u64]) {
        while filter.step() {
            assert!(hashes.iter().all(|&hash| filter.contains(hash)));
        }
    }

    #[test]
    fn memory_that_there_is_not_is_refused_and_does_not_end_the_process() {
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
    fn stretch_then_fold_gives_the_same_filter_back() {
        for log2 in [0, 1, 4, 11] {
            let (mut filter, hashes) = filled(log2, 40 << log2, 2);
            let before = filter.words().unwrap().to_vec();
            filter.start_stretch().unwrap();
            assert_eq!(filter.start_fold(), Err(ReshapeError::Busy));
            finish(&mut filter, &hashes);
            assert_eq!(filter.size().log2(), log2 + 1);
            assert_eq!(filter.ones(), ones_of(filter.words().unwrap()));
            filter.start_fold().unwrap();
            finish(&mut filter, &hashes);
            assert_eq!(filter.words().unwrap(), before);
            assert_eq!(filter.ones(), ones_of(&before));
        }
    }

    #[test]
    fn image_at_any_size_holds_every_hash_of_its_block() {
        let (mut filter, hashes) = filled(12, 2_000, 3);
        filter.start_stretch().unwrap();
        for _ in 0..8 {
            filter.step();
            for log2 in 8..16 {
                let size = Size::from_log2(log2).unwrap();
                for &hash in &hashes {
                    let image = filter.image(size, size.block_of(hash)).unwrap();
                    let mask = crate::filter::size::mask_of(hash);
                    assert!(image.iter().zip(mask).all(|(lane, bit)| lane & bit != 0));
                }
                assert_eq!(filter.image(size, size.blocks()), None);
            }
        }
        assert_eq!(filter.image(Size::MIN, 0), None, "merging 2^13 blocks is not bounded work");
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
        assert_eq!(filter.start_fold(), Err(ReshapeError::AtLimit));
    }
}
