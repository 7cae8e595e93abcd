//! The records of the index's segments: what each covers, how full it is, and how many keys it has lost
//! since the filter was last told what is left in it.
//!
//! A segment that has lost 7 % of its keys is *worn*: the filter still claims those keys, and its blocks
//! are worth being made again. The records say how many segments are worn, and find the next one by a
//! walk in steps, so that wear costs no memory and no order has to be kept while segments split, merge
//! and move.
//!
//! Not here: the segments, and the directory that leads to them.

use super::hash::HashRange;
use crate::base::chunked_vec::ChunkedVec;

/// Bits of the hash that the directory may use at most: 2^26 segments are 256 GiB.
pub(super) const DEPTH_MAX: u32 = 26;

/// Of what was in it, the share in percent that a segment has lost when it is worn.
const REBUILD_PERCENT: u32 = 7;

/// Keys that a segment must have lost at least to be worn: a rebuild for each of the last few keys of an
/// almost empty store would be work for nothing.
const REBUILD_LOST_MIN: u16 = 8;

/// MetadataTable that one call of [`MetadataTable::next_rebuild`] looks at: 48 KiB, some µs.
const READS_PER_STEP: usize = 4_096;

/// One segment's metadata.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Metadata {
    /// The top bits of the hashes in it, the other bits 0.
    pub(super) prefix: u32,
    pub(super) live: u16,
    /// Keys that left since the filter was last told what is left. Splitting halves it, merging adds.
    pub(super) lost: u16,
    pub(super) depth: u8,
    /// An entry of its range may be in the overflow.
    pub(super) overflowed: bool,
    /// It has lost so much that its part of the filter is worth being made again. Stays until that is
    /// done, however many keys come in between.
    pub(super) needs_rebuild: bool,
}

impl Metadata {
    /// The hashes that belong in it.
    pub(super) fn range(self) -> HashRange {
        let first = u64::from(self.prefix) << 32;
        HashRange { first, last: first | u64::MAX >> self.depth }
    }

    fn has_lost_much(self) -> bool {
        let was = u32::from(self.live) + u32::from(self.lost);
        self.lost >= REBUILD_LOST_MIN && 100 * u32::from(self.lost) >= REBUILD_PERCENT * was
    }
}

/// All records, by segment.
#[derive(Debug)]
pub(super) struct MetadataTable {
    list: ChunkedVec<Metadata>,
    /// Segments of each depth.
    by_depth: [u32; DEPTH_MAX as usize + 1],
    worn: usize,
    /// Where the walk for worn ones goes on.
    walk: usize,
}

impl MetadataTable {
    pub(super) const fn new() -> Self {
        Self { list: ChunkedVec::new(), by_depth: [0; DEPTH_MAX as usize + 1], worn: 0, walk: 0 }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.list.memory_bytes()
    }

    /// What [`MetadataTable::memory_bytes`] grows by at most when there are segments up to `end`.
    pub(super) fn growth_bytes(&self, end: usize) -> usize {
        self.list.growth_bytes(end)
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> Metadata {
        self.list[id as usize]
    }

    /// Writes the metadata of a new segment; `end` is one past the highest segment that there can be.
    pub(super) fn add(&mut self, id: u32, metadata: Metadata, end: usize) {
        self.list.grow_to(end);
        self.write(id, metadata);
    }

    /// Writes another metadata for a segment.
    pub(super) fn put(&mut self, id: u32, metadata: Metadata) {
        self.discount(self.list[id as usize]);
        self.write(id, metadata);
    }

    /// Forgets a segment.
    pub(super) fn remove(&mut self, id: u32) {
        self.discount(self.list[id as usize]);
        self.list[id as usize] = Metadata::default();
    }

    /// Gives memory back; `end` as in [`MetadataTable::add`].
    pub(super) fn truncate(&mut self, end: usize) {
        self.list.truncate(end);
    }

    fn write(&mut self, id: u32, mut metadata: Metadata) {
        metadata.needs_rebuild |= metadata.has_lost_much();
        self.list[id as usize] = metadata;
        self.by_depth[usize::from(metadata.depth)] += 1;
        self.worn += usize::from(metadata.needs_rebuild);
    }

    fn discount(&mut self, metadata: Metadata) {
        self.by_depth[usize::from(metadata.depth)] -= 1;
        self.worn -= usize::from(metadata.needs_rebuild);
    }

    /// Notes that a segment has one entry more.
    #[inline]
    pub(super) fn entry_added(&mut self, id: u32) {
        self.list[id as usize].live += 1;
    }

    /// Notes that a segment has one entry less, of `live` or of those of its range in the overflow;
    /// returns how many it still has.
    pub(super) fn entry_removed(&mut self, id: u32, live: u16) -> u16 {
        let metadata = &mut self.list[id as usize];
        metadata.live -= live;
        metadata.lost = metadata.lost.saturating_add(1);
        if !metadata.needs_rebuild && metadata.has_lost_much() {
            metadata.needs_rebuild = true;
            self.worn += 1;
        }
        metadata.live
    }

    /// Notes that the range of a segment has an entry in the overflow.
    pub(super) fn set_overflowed(&mut self, id: u32) {
        self.list[id as usize].overflowed = true;
    }

    /// Notes that the filter is being told what is left in a segment.
    pub(super) fn mark_rebuilt(&mut self, id: u32) {
        let metadata = &mut self.list[id as usize];
        self.worn -= usize::from(metadata.needs_rebuild);
        metadata.needs_rebuild = false;
        metadata.lost = 0;
    }

    /// Segments that are worn.
    pub(super) const fn worn(&self) -> usize {
        self.worn
    }

    /// The next worn segment of the walk; `None` if none of the records that it looked at is. Comes to
    /// each of them when it is called often enough. Looks at 4,096 records at most.
    pub(super) fn next_rebuild(&mut self) -> Option<u32> {
        if self.worn == 0 {
            return None;
        }
        if self.walk >= self.list.len() {
            self.walk = 0;
        }
        let until = self.list.len().min(self.walk + READS_PER_STEP);
        let Some(id) = (self.walk..until).find(|&id| self.list[id].needs_rebuild) else {
            self.walk = until;
            return None;
        };
        self.walk = id + 1;
        u32::try_from(id).ok()
    }

    /// Segments of a depth.
    pub(super) fn of_depth(&self, depth: u32) -> usize {
        self.by_depth[depth as usize] as usize
    }

    /// The greatest depth of a segment.
    pub(super) fn deepest(&self) -> usize {
        self.by_depth.iter().rposition(|&segments| segments > 0).unwrap_or(0)
    }

    /// Checks the counts against the records of `segments`, which are all that there are.
    pub(super) fn audit(&self, segments: impl Iterator<Item = u32>) {
        let (mut by_depth, mut worn) = ([0; DEPTH_MAX as usize + 1], 0);
        for id in segments {
            let metadata = self.get(id);
            by_depth[usize::from(metadata.depth)] += 1;
            worn += usize::from(metadata.needs_rebuild);
            assert!(
                metadata.needs_rebuild || !metadata.has_lost_much(),
                "a worn segment that nobody knows of"
            );
        }
        assert_eq!((by_depth, worn), (self.by_depth, self.worn));
    }
}
