//! An arena: blocks of one size in regions of 256 KiB, which are returned to the system when they are empty.
//!
//! A region is an anonymous map: untouched memory costs nothing, a fresh one is zeroed, and unmapping returns the
//! memory independently of the allocator. Huge pages are not requested: the first touch of one takes 200 µs, and
//! up to 5 ms in a virtual machine backed by small pages. They made a lookup among a million items 12 % faster.
//!
//! Unmapping a region costs some 60 µs. So an empty region is idle until [`Arena::trim`], which unmaps one at a
//! time; an idle region is reused before a new one is mapped.
//!
//! Blocks are taken from the lowest regions, so that higher ones drain; from an empty region last. No block is taken
//! from a fenced region, so that its owner can move the blocks out of it.
//!
//! Not here: the content of blocks.

use super::chunked_vec::ChunkedVec;
use super::memory;
use memmap2::MmapMut;

/// Bytes of a region. Unmapping 2 MiB takes 300 µs of an iteration; this is an eighth of it. Adjacent maps count as
/// one for Linux, which limits their number.
pub const REGION_BYTES: usize = 256 << 10;

/// Regions mapped above which an empty one is kept as a spare.
const SPARE_FROM: usize = 8;

/// Touched blocks up to which the only region is kept when it is empty, so that taking and freeing a first block in
/// alternation does not map each time.
const LEAN_BLOCKS: u32 = 1;

/// Maximum number of regions of an arena: 32 GiB.
const REGIONS_MAX: usize = 128 * 1024;

/// Metadata of one region.
#[derive(Debug)]
struct Region {
    /// One bit per block: in use.
    used: Box<[u64]>,
    blocks: u32,
    /// Blocks below this one have been in use at some time, and so are resident.
    dirty: u32,
    /// Of an idle region: the one that became idle before it.
    next_idle: Option<u32>,
}

/// Blocks of `BLOCK_BYTES`, a power of two from 512 to [`REGION_BYTES`]; see the module. The size is a constant, so
/// that the address of a block takes a shift and no division.
#[derive(Debug)]
pub struct Arena<const BLOCK_BYTES: usize> {
    maps: ChunkedVec<Option<MmapMut>>,
    regions: ChunkedVec<Option<Region>>,
    /// One past the highest region that is mapped.
    end: usize,
    regions_max: usize,
    /// One bit per region: mapped, not fenced, and with a free block.
    with_room: Vec<u64>,
    fenced: Option<usize>,
    blocks: usize,
    mapped: usize,
    /// The empty region that is kept so that the next block needs no new map.
    spare: Option<usize>,
    /// The head of the list of idle regions: empty, and nothing is taken from them.
    idle: Option<u32>,
    idle_regions: usize,
    held_bytes: usize,
}

impl<const BLOCK_BYTES: usize> Default for Arena<BLOCK_BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const BLOCK_BYTES: usize> Arena<BLOCK_BYTES> {
    /// Blocks that fit into a region.
    pub const BLOCKS_PER_REGION: u32 = {
        assert!(BLOCK_BYTES.is_power_of_two() && BLOCK_BYTES >= 512 && BLOCK_BYTES <= REGION_BYTES);
        #[expect(clippy::cast_possible_truncation, reason = "at most 512")]
        let blocks = (REGION_BYTES / BLOCK_BYTES) as u32;
        blocks
    };

    /// An empty arena; holds no memory.
    pub const fn new() -> Self {
        Self {
            maps: ChunkedVec::new(),
            regions: ChunkedVec::new(),
            end: 0,
            regions_max: REGIONS_MAX,
            with_room: Vec::new(),
            fenced: None,
            blocks: 0,
            mapped: 0,
            spare: None,
            idle: None,
            idle_regions: 0,
            held_bytes: 0,
        }
    }

    /// Allocates a block; its content is arbitrary. `None`, and nothing changed, if the system has no memory or the
    /// arena has 32 GiB. Costs a map once per region, else reads of bitmaps.
    pub fn take(&mut self) -> Option<u32> {
        let at = match self.region_with_room() {
            Some(at) => at,
            None => self.reuse_idle_region().map_or_else(|| self.map_region(), Some)?,
        };
        let region = self.regions[at].as_mut()?;
        let word = region.used.iter().position(|&word| word != u64::MAX)?;
        let bit = region.used[word].trailing_ones();
        region.used[word] |= 1 << bit;
        region.blocks += 1;
        let block = number(word) * 64 + bit;
        if block >= region.dirty {
            self.held_bytes += (block + 1 - region.dirty) as usize * BLOCK_BYTES;
            region.dirty = block + 1;
        }
        if region.blocks == Self::BLOCKS_PER_REGION {
            self.with_room[at / 64] &= !(1 << (at % 64));
        }
        if self.spare == Some(at) {
            self.spare = None;
        }
        self.blocks += 1;
        Some(number(at) * Self::BLOCKS_PER_REGION + block)
    }

    /// Frees a block. O(1); a region that this empties is idle until [`Arena::trim`].
    pub fn give_back(&mut self, block: u32) {
        let (at, block) = (Self::place(block).0, (block % Self::BLOCKS_PER_REGION) as usize);
        let Some(region) = self.regions[at].as_mut() else { return };
        debug_assert!(region.used[block / 64] >> (block % 64) & 1 == 1, "given back twice");
        region.used[block / 64] &= !(1 << (block % 64));
        region.blocks -= 1;
        let (empty, lean) = (region.blocks == 0, region.dirty <= LEAN_BLOCKS);
        self.blocks -= 1;
        if self.fenced != Some(at) {
            self.with_room[at / 64] |= 1 << (at % 64);
        }
        if !empty {
            return;
        }
        if self.fenced == Some(at) {
            self.fence(None);
        }
        let busy = self.mapped - self.idle_regions;
        if self.spare.is_none() && (busy > SPARE_FROM || (busy == 1 && lean)) {
            self.spare = Some(at);
            return;
        }
        self.push_idle(at);
        if busy <= SPARE_FROM + 1
            && let Some(spare) = self.spare.take()
        {
            self.push_idle(spare);
        }
    }

    /// Returns one idle region to the system. Costs some 60 µs.
    pub fn trim(&mut self) {
        if let Some(at) = self.take_idle() {
            self.unmap_region(at);
        }
    }

    /// Lets [`Arena::trim`] return the spare region too; false if there is none.
    pub fn release_spare(&mut self) -> bool {
        let spare = self.spare.take();
        spare.into_iter().for_each(|at| self.push_idle(at));
        spare.is_some()
    }

    /// Whether there is an idle region. O(1).
    pub const fn has_idle(&self) -> bool {
        self.idle.is_some()
    }

    /// The bytes of a block in use.
    #[inline]
    pub fn block(&self, block: u32) -> &[u8] {
        let (at, start) = Self::place(block);
        &self.region(at)[start..start + BLOCK_BYTES]
    }

    /// The bytes of a block in use.
    #[inline]
    pub fn block_mut(&mut self, block: u32) -> &mut [u8] {
        let (at, start) = Self::place(block);
        &mut self.region_mut(at)[start..start + BLOCK_BYTES]
    }

    /// Two different blocks in use at once.
    pub fn two_blocks_mut(&mut self, one: u32, other: u32) -> (&mut [u8], &mut [u8]) {
        let ((at, start), (other_at, other_start)) = (Self::place(one), Self::place(other));
        if at == other_at {
            let region = self.region_mut(at);
            if start < other_start {
                let (low, high) = region.split_at_mut(other_start);
                return (&mut low[start..start + BLOCK_BYTES], &mut high[..BLOCK_BYTES]);
            }
            let (low, high) = region.split_at_mut(start);
            return (&mut high[..BLOCK_BYTES], &mut low[other_start..other_start + BLOCK_BYTES]);
        }
        let maps = self.maps.get_two_mut(at, other_at);
        let Some((Some(map), Some(other_map))) = maps else { not_mapped(at.max(other_at)) };
        (&mut map[start..start + BLOCK_BYTES], &mut other_map[other_start..other_start + BLOCK_BYTES])
    }

    /// All bytes of a region, if it is mapped. The length is in the type, which saves bounds checks.
    #[inline]
    pub fn region_if_mapped(&self, at: usize) -> Option<&[u8; REGION_BYTES]> {
        self.maps.get(at)?.as_deref()?.first_chunk()
    }

    /// All bytes of a region with a block in use.
    #[inline]
    pub fn region(&self, at: usize) -> &[u8; REGION_BYTES] {
        self.region_if_mapped(at).unwrap_or_else(|| not_mapped(at))
    }

    /// All bytes of a region with a block in use.
    #[inline]
    pub fn region_mut(&mut self, at: usize) -> &mut [u8; REGION_BYTES] {
        let map = self.maps.get_mut(at).and_then(Option::as_deref_mut);
        map.and_then(<[u8]>::first_chunk_mut).unwrap_or_else(|| not_mapped(at))
    }

    /// Blocks in use.
    pub const fn blocks(&self) -> usize {
        self.blocks
    }

    /// One past the highest block that can be in use now.
    pub fn blocks_end(&self) -> usize {
        self.end * Self::BLOCKS_PER_REGION as usize
    }

    /// Bytes held: blocks of the regions that were ever in use, and the tables.
    pub fn memory_bytes(&self) -> usize {
        self.held_bytes
            + self.maps.memory_bytes()
            + self.regions.memory_bytes()
            + self.with_room.capacity() * 8
            + self.mapped * self.bitmap_words() * 8
    }

    /// Maximum growth of [`Arena::memory_bytes`] when `blocks` more are taken; exact for one block that needs no map.
    pub fn growth_bytes_max(&self, blocks: usize) -> usize {
        if blocks == 0 {
            return 0;
        }
        if blocks == 1
            && let Some(at) = self.region_with_room().or_else(|| self.idle.map(|at| at as usize))
        {
            return if self.has_touched_block(at) { 0 } else { BLOCK_BYTES };
        }
        let regions = blocks.div_ceil(Self::BLOCKS_PER_REGION as usize);
        let end = self.end + regions;
        // One word per 64 regions; a `Vec` that grows by one at a time doubles, from four.
        let words = if end.div_ceil(64) > self.with_room.capacity() {
            end.div_ceil(64).max(2 * self.with_room.capacity() + 4)
        } else {
            0
        };
        blocks * BLOCK_BYTES
            + (regions * self.bitmap_words() + words) * 8
            + self.maps.growth_bytes(end)
            + self.regions.growth_bytes(end)
    }

    /// The region with the fewest blocks in use, if [`Arena::is_sparse`]: the one to empty next. Under pressure also if
    /// all regions together have as many free blocks as one region has blocks. O(regions).
    pub fn sparsest(&self, pressure: bool) -> Option<usize> {
        let is_worth_it = pressure && self.free_blocks() >= Self::BLOCKS_PER_REGION as usize;
        if !(self.is_sparse() || is_worth_it) {
            return None;
        }
        let regions = self.regions.iter().enumerate().take(self.end);
        let used = regions.filter_map(|(at, region)| Some((region.as_ref()?.blocks, at)));
        used.filter(|&(blocks, _)| blocks > 0).min().map(|(_, at)| at)
    }

    /// Whether the free blocks exceed those of two regions plus half of the blocks in use. O(1).
    pub fn is_sparse(&self) -> bool {
        self.free_blocks() > 2 * Self::BLOCKS_PER_REGION as usize + self.blocks / 2
    }

    /// Free blocks of the regions that have blocks in use.
    fn free_blocks(&self) -> usize {
        let empty = self.idle_regions + usize::from(self.spare.is_some());
        (self.mapped - empty) * Self::BLOCKS_PER_REGION as usize - self.blocks
    }

    /// Whether the next block taken from a region has been in use before.
    fn has_touched_block(&self, at: usize) -> bool {
        self.regions[at].as_ref().is_some_and(|region| region.blocks < region.dirty)
    }

    /// Fences a region, or none, instead of the one fenced before. An emptied region is no longer fenced.
    pub fn fence(&mut self, region: Option<usize>) {
        if let Some(old) = std::mem::replace(&mut self.fenced, region)
            && self
                .regions
                .get(old)
                .and_then(Option::as_ref)
                .is_some_and(|r| r.blocks < Self::BLOCKS_PER_REGION)
        {
            self.with_room[old / 64] |= 1 << (old % 64);
        }
        if let Some(at) = region {
            self.with_room[at / 64] &= !(1 << (at % 64));
        }
    }

    /// The fenced region.
    pub const fn fenced(&self) -> Option<usize> {
        self.fenced
    }

    /// Whether a block can be taken without mapping a region.
    pub fn has_room(&self) -> bool {
        self.region_with_room().is_some() || self.has_idle()
    }

    /// Blocks that can be taken before the arena has all its regions, if the system has the memory. O(1).
    pub fn blocks_left(&self) -> usize {
        let per_region = Self::BLOCKS_PER_REGION as usize;
        let fenced = self.fenced.and_then(|at| self.regions[at].as_ref());
        let shut = fenced.map_or(0, |region| per_region - region.blocks as usize);
        (self.regions_max * per_region).saturating_sub(self.blocks + shut)
    }

    /// Makes the arena smaller than 32 GiB, for tests.
    #[cfg(test)]
    pub(crate) fn limit_regions(&mut self, regions_max: usize) {
        self.regions_max = regions_max;
    }

    /// The blocks in use of one region, in order. O(its blocks).
    pub fn blocks_of(&self, region: usize) -> impl Iterator<Item = u32> {
        let first = number(region) * Self::BLOCKS_PER_REGION;
        let words = self.regions.get(region).and_then(Option::as_ref).map_or(&[][..], |r| &r.used);
        let bits = Self::BLOCKS_PER_REGION.min(64);
        words.iter().enumerate().flat_map(move |(at, &word)| {
            (0..bits).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + number(at) * 64 + bit)
        })
    }

    /// All blocks in use, in order. O(regions).
    pub fn all_blocks(&self) -> impl Iterator<Item = u32> {
        (0..self.end).flat_map(|region| self.blocks_of(region))
    }

    /// Checks the counts of blocks, regions and bytes. O(regions).
    ///
    /// # Panics
    /// On any inconsistency.
    pub fn audit(&self) {
        let (mut blocks, mut mapped, mut held_bytes) = (0, 0, 0);
        let next_idle = |&at: &usize| Some(self.regions[at].as_ref()?.next_idle? as usize);
        let idle: Vec<usize> = std::iter::successors(self.idle.map(|at| at as usize), next_idle).collect();
        assert_eq!(idle.len(), self.idle_regions);
        for (at, region) in self.regions.iter().enumerate() {
            assert!(region.is_none() || at < self.end);
            assert_eq!(region.is_some(), self.maps[at].is_some(), "a record for each map");
            let Some(region) = region else { continue };
            let used = self.blocks_of(at).count();
            assert_eq!(used, region.blocks as usize, "blocks of a region");
            let is_idle = idle.contains(&at);
            assert!(!is_idle || used == 0 && self.spare != Some(at), "an idle region in use");
            let with_room = used < Self::BLOCKS_PER_REGION as usize && self.fenced != Some(at) && !is_idle;
            assert_eq!(self.with_room[at / 64] >> (at % 64) & 1 == 1, with_room, "regions with room");
            blocks += used;
            mapped += 1;
            held_bytes += region.dirty as usize * BLOCK_BYTES;
        }
        assert_eq!((blocks, mapped, held_bytes), (self.blocks, self.mapped, self.held_bytes));
    }

    /// Unmaps one region with the blocks in it; false if none is left. For freeing an arena in steps.
    pub fn drop_region(&mut self) -> bool {
        if self.has_idle() {
            self.trim();
            return true;
        }
        let Some(at) = self.end.checked_sub(1) else { return false };
        let Some(region) = &self.regions[at] else { return false };
        self.blocks -= region.blocks as usize;
        if self.spare == Some(at) {
            self.spare = None;
        }
        self.unmap_region(at);
        true
    }

    /// The region of a block, and the block's offset in it.
    #[inline]
    const fn place(block: u32) -> (usize, usize) {
        let (at, block) = (block / Self::BLOCKS_PER_REGION, block % Self::BLOCKS_PER_REGION);
        (at as usize, block as usize * BLOCK_BYTES)
    }

    fn push_idle(&mut self, at: usize) {
        self.with_room[at / 64] &= !(1 << (at % 64));
        if let Some(region) = &mut self.regions[at] {
            region.next_idle = self.idle.replace(number(at));
            self.idle_regions += 1;
        }
    }

    /// Reuses the idle region that was emptied last.
    fn reuse_idle_region(&mut self) -> Option<usize> {
        let at = self.take_idle()?;
        self.with_room[at / 64] |= 1 << (at % 64);
        Some(at)
    }

    fn take_idle(&mut self) -> Option<usize> {
        let at = self.idle? as usize;
        self.idle = self.regions[at].as_mut()?.next_idle.take();
        self.idle_regions -= 1;
        Some(at)
    }

    fn bitmap_words(&self) -> usize {
        (Self::BLOCKS_PER_REGION as usize).div_ceil(64)
    }

    /// The lowest region with a free block that has been in use before, else the lowest with a free block. The
    /// spare only if there is no other: to empty a region into the spare would only swap the two.
    fn region_with_room(&self) -> Option<usize> {
        let words = self.with_room.iter().enumerate();
        let regions = words.flat_map(|(at, &word)| {
            let bits = std::iter::successors(Some(word), |left| Some(left & left.wrapping_sub(1)));
            bits.take_while(|&left| left != 0).map(move |left| at * 64 + left.trailing_zeros() as usize)
        });
        let mut others = regions.filter(|&at| Some(at) != self.spare);
        let first = others.next();
        let touched = first.into_iter().chain(others).find(|&at| self.has_touched_block(at));
        touched.or(first).or(self.spare)
    }

    /// The index of a region that was unmapped. O(regions) only if there is one.
    fn vacant_region(&self) -> Option<usize> {
        if self.mapped == self.end { None } else { self.maps.iter().position(Option::is_none) }
    }

    fn map_region(&mut self) -> Option<usize> {
        let at = match self.vacant_region() {
            Some(at) => at,
            None if self.end < self.regions_max => self.end,
            None => return None,
        };
        let map = memory::map(REGION_BYTES)?;
        if at == self.end {
            self.end += 1;
            self.maps.grow_to(self.end);
            self.regions.grow_to(self.end);
            self.with_room.resize(self.end.div_ceil(64), 0);
        }
        // Bits of a word beyond the last block are always set.
        let mut used = vec![0; self.bitmap_words()];
        if Self::BLOCKS_PER_REGION < 64 {
            used[0] = u64::MAX << Self::BLOCKS_PER_REGION;
        }
        self.maps[at] = Some(map);
        self.regions[at] = Some(Region { used: used.into(), blocks: 0, dirty: 0, next_idle: None });
        self.with_room[at / 64] |= 1 << (at % 64);
        self.mapped += 1;
        Some(at)
    }

    fn unmap_region(&mut self, at: usize) {
        let Some(region) = self.regions[at].take() else { return };
        self.maps[at] = None;
        self.held_bytes -= region.dirty as usize * BLOCK_BYTES;
        self.mapped -= 1;
        self.with_room[at / 64] &= !(1 << (at % 64));
        if self.fenced == Some(at) {
            self.fenced = None;
        }
        while self.end > 0 && self.regions[self.end - 1].is_none() {
            self.end -= 1;
        }
        self.maps.truncate(self.end);
        self.regions.truncate(self.end);
        self.with_room.truncate(self.end.div_ceil(64));
        if self.with_room.capacity() > 2 * self.with_room.len() + 8 {
            self.with_room.shrink_to_fit();
        }
    }
}

#[cold]
fn not_mapped(at: usize) -> ! {
    panic!("a block in region {at}, which is not mapped");
}

/// An index of a table, in 32 bits: all tables have far fewer than 2^32 entries.
const fn number(at: usize) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "at most 128 Ki regions of at most 512 blocks")]
    let number = at as u32;
    number
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "bounded by the tables of the test")]

    use super::{Arena, SPARE_FROM};
    use crate::base::rng::Rng;

    #[test]
    fn no_block_is_allocated_twice() {
        fn check<const BLOCK_BYTES: usize>(rng: &mut Rng) {
            let mut arena = Arena::<BLOCK_BYTES>::new();
            let mut held: Vec<(u32, u8)> = Vec::new();
            for step in 0..4_000u32 {
                if rng.below(5) < 3 {
                    let block = arena.take().unwrap();
                    assert!(held.iter().all(|&(other, _)| other != block));
                    let mark = step as u8;
                    arena.block_mut(block).fill(mark);
                    held.push((block, mark));
                } else if !held.is_empty() {
                    let at = rng.below(held.len() as u64) as usize;
                    let (block, mark) = held.swap_remove(at);
                    assert!(arena.block(block).iter().all(|&byte| byte == mark));
                    arena.give_back(block);
                }
                assert_eq!(arena.blocks(), held.len());
                if step % 100 == 0 {
                    arena.audit();
                }
            }
            let mut known: Vec<u32> = held.iter().map(|&(block, _)| block).collect();
            known.sort_unstable();
            assert_eq!(arena.all_blocks().collect::<Vec<_>>(), known);
            for (block, _) in held {
                arena.give_back(block);
            }
            while arena.has_idle() {
                arena.audit();
                arena.trim();
            }
            arena.audit();
            assert!(arena.held_bytes <= super::LEAN_BLOCKS as usize * BLOCK_BYTES);
        }
        let mut rng = Rng::new(1);
        check::<512>(&mut rng);
        check::<4_096>(&mut rng);
        check::<65_536>(&mut rng);
    }

    #[test]
    fn growth_is_at_most_as_predicted() {
        let mut arena = Arena::<65_536>::new();
        for _ in 0..Arena::<65_536>::BLOCKS_PER_REGION as usize * (SPARE_FROM + 3) {
            let (expected, before) = (arena.growth_bytes_max(1), arena.memory_bytes());
            arena.take().unwrap();
            assert!(arena.memory_bytes() - before <= expected);
        }
    }

    #[test]
    fn no_block_is_taken_from_a_fenced_region() {
        let mut arena = Arena::<{ super::REGION_BYTES / 32 }>::new();
        let blocks: Vec<u32> = (0..32 * 12).map(|_| arena.take().unwrap()).collect();
        for &block in blocks.iter().filter(|&&block| block % 4 != 0) {
            arena.give_back(block);
        }
        let region = arena.sparsest(false).unwrap();
        arena.fence(Some(region));
        let left: Vec<u32> = arena.blocks_of(region).collect();
        assert_eq!(left.len(), 8);
        for block in left {
            let other = arena.take().unwrap();
            assert_ne!(other as usize / 32, region);
            let (from, to) = arena.two_blocks_mut(block, other);
            to.copy_from_slice(from);
            arena.give_back(block);
        }
        assert_eq!(arena.fenced(), None);
        assert_eq!(arena.blocks(), 96);
        while arena.drop_region() {}
        assert!(arena.held_bytes == 0 && arena.memory_bytes() < 1_024);
    }

    #[test]
    fn emptying_sparse_regions_ends() {
        let mut arena = Arena::<{ 64 * 1024 }>::new();
        let blocks: Vec<u32> = (0..4 * 40).map(|_| arena.take().unwrap()).collect();
        // The first regions empty first, so that one of them is the spare; of the others one block stays.
        for &block in blocks.iter().filter(|&&block| block < 4 * 4 || block % 4 != 0) {
            arena.give_back(block);
        }
        let mut moves = 0;
        while let Some(region) = arena.sparsest(false) {
            arena.fence(Some(region));
            let left: Vec<u32> = arena.blocks_of(region).collect();
            for block in left {
                arena.take().unwrap();
                arena.give_back(block);
                moves += 1;
                assert!(moves < 100, "moved to and fro");
            }
        }
        assert_eq!(arena.blocks(), 36);
        arena.audit();
    }
}
