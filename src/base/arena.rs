//! Blocks of one size, cut from regions of 256 KiB that go back to the system when they are empty.
//!
//! A region is an anonymous map, so untouched memory costs nothing, a fresh one is zeroed, and dropping
//! it gives the memory back whatever the allocator of the process thinks. Huge pages are not asked for:
//! the first touch of one takes some 200 µs on a good day, and was measured to take 5 ms of the thread's
//! time in a virtual machine whose host backs it by small pages. They made a look-up among a million
//! items 12 % faster.
//!
//! Giving a region back costs some 60 µs, so it waits for [`Arena::trim`], which gives back one at a time;
//! a region that waits is used again before a new one is mapped.
//!
//! Blocks are taken from the lowest region that has one, so regions at the top empty first. A region can
//! be fenced: nothing is taken from it, so that its owner can move away what is left in it.
//!
//! Not here: what is in a block, and who moves it.

use memmap2::MmapMut;

/// Bytes of a region. Giving 2 MiB back was measured to take 300 µs, in the middle of a turn: this is an
/// eighth of it. Neighbouring maps are one to Linux, which limits their number.
pub const REGION_BYTES: usize = 256 << 10;

/// Regions mapped above which an empty one is kept as a spare.
const SPARE_FROM: usize = 8;

/// Blocks that the only region may hold when no block is in use, so that to take and give back a first
/// block by turns needs no new map each time.
const LEAN_BLOCKS: u32 = 1;

/// Regions that one arena may have: 32 GiB.
const REGIONS_MAX: usize = 128 * 1024;

/// What the tables of one more region take at most, the owner's tables left aside.
const REGION_TABLES_BYTES: usize = 1_024;

/// One region's book-keeping.
#[derive(Debug)]
struct Region {
    /// One bit a block: in use.
    used: Box<[u64]>,
    blocks: u32,
    /// Blocks below this one have been in use at some time, and so are resident.
    touched: u32,
}

/// Blocks of one size; see the module.
#[derive(Debug)]
pub struct Arena {
    block_bytes: usize,
    maps: Vec<Option<MmapMut>>,
    regions: Vec<Option<Region>>,
    /// One bit a region: mapped, not fenced, and with a block to take.
    roomy: Vec<u64>,
    fenced: Option<usize>,
    blocks: usize,
    mapped: usize,
    /// The one mapped region without a block in use, kept so that the next block needs no new map.
    spare: Option<usize>,
    /// Regions without a block in use that wait to be given back. Nothing is taken from them.
    idle: Vec<u32>,
    held_bytes: usize,
}

impl Arena {
    /// No blocks yet, and no memory. `block_bytes`: a power of two from 512 to [`REGION_BYTES`].
    pub fn new(block_bytes: usize) -> Self {
        assert!(block_bytes.is_power_of_two() && (512..=REGION_BYTES).contains(&block_bytes));
        Self {
            block_bytes,
            maps: Vec::new(),
            regions: Vec::new(),
            roomy: Vec::new(),
            fenced: None,
            blocks: 0,
            mapped: 0,
            spare: None,
            idle: Vec::new(),
            held_bytes: 0,
        }
    }

    /// Takes a block; its content is arbitrary. `None`, and nothing changed, when the system gives no
    /// more memory or the arena has 32 GiB. Costs a map once in a region, else a look at some bitmaps.
    pub fn take(&mut self) -> Option<u32> {
        let at = match self.roomy_region() {
            Some(at) => at,
            None => self.wake_region().map_or_else(|| self.map_region(), Some)?,
        };
        let per_region = self.blocks_per_region();
        let region = self.regions[at].as_mut()?;
        let word = region.used.iter().position(|&word| word != u64::MAX)?;
        let bit = region.used[word].trailing_ones();
        region.used[word] |= 1 << bit;
        region.blocks += 1;
        let block = number(word) * 64 + bit;
        if block >= region.touched {
            self.held_bytes += (block + 1 - region.touched) as usize * self.block_bytes;
            region.touched = block + 1;
        }
        if region.blocks == per_region {
            self.roomy[at / 64] &= !(1 << (at % 64));
        }
        if self.spare == Some(at) {
            self.spare = None;
        }
        self.blocks += 1;
        Some(number(at) * per_region + block)
    }

    /// Gives a block back. O(1); what that empties waits for [`Arena::trim`].
    pub fn give_back(&mut self, block: u32) {
        let per_region = self.blocks_per_region();
        let (at, block) = ((block / per_region) as usize, (block % per_region) as usize);
        let Some(region) = self.regions[at].as_mut() else { return };
        debug_assert!(region.used[block / 64] >> (block % 64) & 1 == 1, "given back twice");
        region.used[block / 64] &= !(1 << (block % 64));
        region.blocks -= 1;
        let (empty, lean) = (region.blocks == 0, region.touched <= LEAN_BLOCKS);
        self.blocks -= 1;
        if self.fenced != Some(at) {
            self.roomy[at / 64] |= 1 << (at % 64);
        }
        if !empty {
            return;
        }
        if self.fenced == Some(at) {
            self.fence(None);
        }
        let busy = self.mapped - self.idle.len();
        if self.spare.is_none() && (busy > SPARE_FROM || (busy == 1 && lean)) {
            self.spare = Some(at);
            return;
        }
        self.lay_idle(at);
        if busy <= SPARE_FROM + 1
            && let Some(spare) = self.spare.take()
        {
            self.lay_idle(spare);
        }
    }

    /// Gives one region back to the system that has no block in use. Costs some 60 µs.
    pub fn trim(&mut self) {
        if let Some(at) = self.idle.pop() {
            self.unmap_region(at as usize);
        }
        if self.idle.is_empty() {
            self.idle = Vec::new();
        }
    }

    /// Whether [`Arena::trim`] has something to give back. O(1).
    pub const fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// The bytes of a block in use.
    pub fn block(&self, block: u32) -> &[u8] {
        let per_region = self.blocks_per_region();
        let start = (block % per_region) as usize * self.block_bytes;
        &self.region((block / per_region) as usize)[start..start + self.block_bytes]
    }

    /// The bytes of a block in use.
    pub fn block_mut(&mut self, block: u32) -> &mut [u8] {
        let per_region = self.blocks_per_region();
        let start = (block % per_region) as usize * self.block_bytes;
        let bytes = self.block_bytes;
        &mut self.region_mut((block / per_region) as usize)[start..start + bytes]
    }

    /// Two different blocks in use at once.
    pub fn two_blocks_mut(&mut self, one: u32, other: u32) -> (&mut [u8], &mut [u8]) {
        let (per_region, bytes) = (self.blocks_per_region(), self.block_bytes);
        let (start, other_start) =
            ((one % per_region) as usize * bytes, (other % per_region) as usize * bytes);
        let (at, other_at) = ((one / per_region) as usize, (other / per_region) as usize);
        if at == other_at {
            let region = self.region_mut(at);
            if start < other_start {
                let (low, high) = region.split_at_mut(other_start);
                return (&mut low[start..start + bytes], &mut high[..bytes]);
            }
            let (low, high) = region.split_at_mut(start);
            return (&mut high[..bytes], &mut low[other_start..other_start + bytes]);
        }
        let (low, high) = self.maps.split_at_mut(at.max(other_at));
        let (low, high) = (&mut low[at.min(other_at)], &mut high[0]);
        let (map, other_map) = if at < other_at { (low, high) } else { (high, low) };
        (
            &mut map.as_deref_mut().unwrap_or_default()[start..start + bytes],
            &mut other_map.as_deref_mut().unwrap_or_default()[other_start..other_start + bytes],
        )
    }

    /// All bytes of a region; empty if there is no such region.
    #[inline]
    pub fn region(&self, at: usize) -> &[u8] {
        self.maps.get(at).and_then(Option::as_deref).unwrap_or_default()
    }

    /// All bytes of a region; empty if there is no such region.
    #[inline]
    pub fn region_mut(&mut self, at: usize) -> &mut [u8] {
        self.maps[at].as_deref_mut().unwrap_or_default()
    }

    /// Blocks that fit into a region.
    pub const fn blocks_per_region(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "at most 4,096")]
        let blocks = (REGION_BYTES / self.block_bytes) as u32;
        blocks
    }

    /// Blocks in use.
    pub const fn blocks(&self) -> usize {
        self.blocks
    }

    /// Regions mapped.
    pub const fn regions(&self) -> usize {
        self.mapped
    }

    /// One past the highest block that can be in use now.
    pub fn blocks_end(&self) -> usize {
        self.regions.len() * self.blocks_per_region() as usize
    }

    /// Bytes held: what was ever touched of the regions, and the tables.
    pub fn memory_bytes(&self) -> usize {
        self.held_bytes
            + self.maps.capacity() * size_of::<Option<MmapMut>>()
            + self.regions.capacity() * size_of::<Option<Region>>()
            + self.roomy.capacity() * 8
            + self.idle.capacity() * 4
            + self.mapped * self.bitmap_words() * 8
    }

    /// What [`Arena::memory_bytes`] grows by at most when so many blocks more are taken; for one block as
    /// exactly as can be.
    pub fn growth_bytes_max(&self, blocks: usize) -> usize {
        if blocks == 0 {
            return 0;
        }
        if blocks == 1
            && let Some(region) = self.roomy_region().and_then(|at| self.regions[at].as_ref())
        {
            return if region.blocks < region.touched { 0 } else { self.block_bytes };
        }
        let regions = blocks.div_ceil(self.blocks_per_region() as usize);
        blocks * self.block_bytes + regions * (REGION_TABLES_BYTES + self.bitmap_words() * 8)
    }

    /// The region with the fewest blocks in use, if more than a third of what is mapped, and two
    /// regions, is not in use: the one to empty next. O(regions).
    pub fn sparsest(&self) -> Option<usize> {
        if !self.is_sparse() {
            return None;
        }
        let regions = self.regions.iter().enumerate();
        let used = regions.filter_map(|(at, region)| Some((region.as_ref()?.blocks, at)));
        used.filter(|&(blocks, _)| blocks > 0).min().map(|(_, at)| at)
    }

    /// Whether [`Arena::sparsest`] has a region to name. O(1).
    pub fn is_sparse(&self) -> bool {
        let per_region = self.blocks_per_region() as usize;
        let spare = usize::from(self.spare.is_some()) * per_region;
        let free = (self.mapped - self.idle.len()) * per_region - self.blocks - spare;
        free > 2 * per_region + self.blocks / 2
    }

    /// Takes no block from that region until another one, or none, is fenced. The fence falls by itself
    /// when the region is empty.
    pub fn fence(&mut self, region: Option<usize>) {
        if let Some(old) = std::mem::replace(&mut self.fenced, region)
            && self
                .regions
                .get(old)
                .and_then(Option::as_ref)
                .is_some_and(|r| r.blocks < self.blocks_per_region())
        {
            self.roomy[old / 64] |= 1 << (old % 64);
        }
        if let Some(at) = region {
            self.roomy[at / 64] &= !(1 << (at % 64));
        }
    }

    /// The region that is fenced.
    pub const fn fenced(&self) -> Option<usize> {
        self.fenced
    }

    /// Whether a block can be taken without mapping a region.
    pub fn has_room(&self) -> bool {
        self.roomy_region().is_some() || self.has_idle()
    }

    /// The blocks in use of one region, in order. O(its blocks).
    pub fn blocks_of(&self, region: usize) -> impl Iterator<Item = u32> {
        let first = number(region) * self.blocks_per_region();
        let words = self.regions.get(region).and_then(Option::as_ref).map_or(&[][..], |r| &r.used);
        let bits = self.blocks_per_region().min(64);
        words.iter().enumerate().flat_map(move |(at, &word)| {
            (0..bits).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + number(at) * 64 + bit)
        })
    }

    /// All blocks in use, in order. O(regions).
    pub fn all_blocks(&self) -> impl Iterator<Item = u32> {
        (0..self.regions.len()).flat_map(|region| self.blocks_of(region))
    }

    /// Counts blocks, regions and bytes again, from the bitmaps. O(regions).
    ///
    /// # Panics
    /// If anything was counted wrong.
    pub fn audit(&self) {
        let (mut blocks, mut mapped, mut held_bytes) = (0, 0, 0);
        for (at, region) in self.regions.iter().enumerate() {
            assert_eq!(region.is_some(), self.maps[at].is_some(), "a record for each map");
            let Some(region) = region else { continue };
            let used = self.blocks_of(at).count();
            assert_eq!(used, region.blocks as usize, "blocks of a region");
            let is_idle = self.idle.contains(&number(at));
            assert!(!is_idle || used == 0 && self.spare != Some(at), "an idle region in use");
            let roomy = used < self.blocks_per_region() as usize && self.fenced != Some(at) && !is_idle;
            assert_eq!(self.roomy[at / 64] >> (at % 64) & 1 == 1, roomy, "regions with room");
            blocks += used;
            mapped += 1;
            held_bytes += region.touched as usize * self.block_bytes;
        }
        assert_eq!((blocks, mapped, held_bytes), (self.blocks, self.mapped, self.held_bytes));
    }

    /// Gives one region back, whatever is in it; false when there is none left. For the end of a store,
    /// one step at a time.
    pub fn drop_region(&mut self) -> bool {
        let Some(Some(region)) = self.regions.last() else { return false };
        self.blocks -= region.blocks as usize;
        let at = self.regions.len() - 1;
        if self.spare == Some(at) {
            self.spare = None;
        }
        self.idle.retain(|&idle| idle != number(at));
        self.unmap_region(at);
        true
    }

    fn lay_idle(&mut self, at: usize) {
        self.roomy[at / 64] &= !(1 << (at % 64));
        self.idle.push(number(at));
    }

    /// Takes the idle region that was emptied last back into use.
    fn wake_region(&mut self) -> Option<usize> {
        let at = self.idle.pop()? as usize;
        self.roomy[at / 64] |= 1 << (at % 64);
        Some(at)
    }

    fn bitmap_words(&self) -> usize {
        (self.blocks_per_region() as usize).div_ceil(64)
    }

    fn roomy_region(&self) -> Option<usize> {
        let word = self.roomy.iter().position(|&word| word != 0)?;
        Some(word * 64 + self.roomy[word].trailing_zeros() as usize)
    }

    /// A place whose region was given back. O(regions) only if there is one.
    fn vacant_region(&self) -> Option<usize> {
        if self.mapped == self.maps.len() { None } else { self.maps.iter().position(Option::is_none) }
    }

    fn map_region(&mut self) -> Option<usize> {
        let at = match self.vacant_region() {
            Some(at) => at,
            None if self.maps.len() < REGIONS_MAX => self.maps.len(),
            None => return None,
        };
        let map = MmapMut::map_anon(REGION_BYTES).ok()?;
        if at == self.maps.len() {
            self.maps.reserve_exact(8);
            self.regions.reserve_exact(8);
            self.maps.push(None);
            self.regions.push(None);
            self.roomy.resize(self.roomy.len().max(at / 64 + 1), 0);
        }
        // A last word that stands for fewer than 64 blocks has its other bits set for good.
        let mut used = vec![0; self.bitmap_words()];
        if self.blocks_per_region() < 64 {
            used[0] = u64::MAX << self.blocks_per_region();
        }
        self.maps[at] = Some(map);
        self.regions[at] = Some(Region { used: used.into(), blocks: 0, touched: 0 });
        self.roomy[at / 64] |= 1 << (at % 64);
        self.mapped += 1;
        Some(at)
    }

    fn unmap_region(&mut self, at: usize) {
        let Some(region) = self.regions[at].take() else { return };
        self.maps[at] = None;
        self.held_bytes -= region.touched as usize * self.block_bytes;
        self.mapped -= 1;
        self.roomy[at / 64] &= !(1 << (at % 64));
        if self.fenced == Some(at) {
            self.fenced = None;
        }
        while self.regions.last().is_some_and(Option::is_none) {
            self.regions.pop();
            self.maps.pop();
        }
        self.roomy.truncate(self.regions.len().div_ceil(64));
        if self.regions.capacity() > 2 * self.regions.len() + 8 {
            self.regions.shrink_to_fit();
            self.maps.shrink_to_fit();
            self.roomy.shrink_to_fit();
        }
    }
}

/// A position in one of the tables, which are all far below 2^32 long.
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
    fn no_block_is_handed_out_twice_and_content_stays_apart() {
        let mut rng = Rng::new(1);
        for block_bytes in [512, 4_096, 65_536] {
            let mut arena = Arena::new(block_bytes);
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
            assert!(arena.held_bytes <= super::LEAN_BLOCKS as usize * block_bytes);
        }
    }

    #[test]
    fn growth_is_never_more_than_was_said() {
        let mut arena = Arena::new(65_536);
        for _ in 0..arena.blocks_per_region() as usize * (SPARE_FROM + 3) {
            let (said, before) = (arena.growth_bytes_max(1), arena.memory_bytes());
            arena.take().unwrap();
            assert!(arena.memory_bytes() - before <= said);
        }
    }

    #[test]
    fn fenced_region_is_not_taken_from_and_goes_back_when_empty() {
        let mut arena = Arena::new(super::REGION_BYTES / 32);
        let blocks: Vec<u32> = (0..32 * 12).map(|_| arena.take().unwrap()).collect();
        for &block in blocks.iter().filter(|&&block| block % 4 != 0) {
            arena.give_back(block);
        }
        let region = arena.sparsest().unwrap();
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
}
