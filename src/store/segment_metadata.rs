//! Segment metadata: the range of hashes of each segment, its entries, and the keys removed since the last rebuild of
//! its part of the own filter.
//!
//! A segment that has lost 7 % of its keys needs a rebuild, since the filter still claims those keys. Such segments
//! are counted and found by a scan in steps, since a queue of them would have to follow splits, merges and moves.
//!
//! Not here: the segments, and the directory.

use super::hash::HashRange;
use crate::base::chunked_vec::ChunkedVec;

/// Bits of the hash that the directory uses, at most: 2^26 segments are 256 GiB.
pub(super) const DEPTH_MAX: u32 = 26;

/// Percentage of lost keys at which a segment needs a rebuild.
const REBUILD_PERCENT: u32 = 7;

/// Lost keys at which a segment needs a rebuild, at least. Otherwise removing each of the last few keys of a store
/// would cause one.
const REBUILD_LOST_MIN: u16 = 8;

/// Segments checked per call of [`MetadataTable::next_rebuild`]: 48 KiB, some µs.
const READS_PER_STEP: usize = 4_096;

/// Metadata of one segment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Metadata {
    /// The top bits of its hashes; the other bits are 0.
    pub(super) prefix: u32,
    pub(super) live: u16,
    /// Keys removed since the last rebuild. A split halves the number, a merge adds both.
    pub(super) lost: u16,
    pub(super) depth: u8,
    /// An entry of its range may be in the overflow.
    pub(super) overflowed: bool,
    /// Its part of the filter needs a rebuild. Not reset by added keys.
    pub(super) needs_rebuild: bool,
}

impl Metadata {
    /// The range of its hashes.
    pub(super) fn range(self) -> HashRange {
        let first = u64::from(self.prefix) << 32;
        HashRange { first, last: first | u64::MAX >> self.depth }
    }

    fn has_lost_much(self) -> bool {
        let was = u32::from(self.live) + u32::from(self.lost);
        self.lost >= REBUILD_LOST_MIN && 100 * u32::from(self.lost) >= REBUILD_PERCENT * was
    }
}

/// Metadata of all segments.
#[derive(Debug)]
pub(super) struct MetadataTable {
    list: ChunkedVec<Metadata>,
    /// Segments of each depth.
    by_depth: [u32; DEPTH_MAX as usize + 1],
    to_rebuild: usize,
    /// Where [`MetadataTable::next_rebuild`] continues.
    walk: usize,
}

impl MetadataTable {
    pub(super) const fn new() -> Self {
        Self { list: ChunkedVec::new(), by_depth: [0; DEPTH_MAX as usize + 1], to_rebuild: 0, walk: 0 }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.list.memory_bytes()
    }

    /// Growth of [`MetadataTable::memory_bytes`] at most when there are segments up to `end`.
    pub(super) fn growth_bytes(&self, end: usize) -> usize {
        self.list.growth_bytes(end)
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> Metadata {
        self.list[id as usize]
    }

    /// Adds the metadata of a new segment; `end` is one past the highest possible segment.
    pub(super) fn add(&mut self, id: u32, metadata: Metadata, end: usize) {
        self.list.grow_to(end);
        self.write(id, metadata);
    }

    /// Replaces the metadata of a segment.
    pub(super) fn put(&mut self, id: u32, metadata: Metadata) {
        self.discount(self.list[id as usize]);
        self.write(id, metadata);
    }

    /// Removes the metadata of a segment.
    pub(super) fn remove(&mut self, id: u32) {
        self.discount(self.list[id as usize]);
        self.list[id as usize] = Metadata::default();
    }

    /// Drops the metadata from `end` on, which is as in [`MetadataTable::add`].
    pub(super) fn truncate(&mut self, end: usize) {
        self.list.truncate(end);
    }

    fn write(&mut self, id: u32, mut metadata: Metadata) {
        metadata.needs_rebuild |= metadata.has_lost_much();
        self.list[id as usize] = metadata;
        self.by_depth[usize::from(metadata.depth)] += 1;
        self.to_rebuild += usize::from(metadata.needs_rebuild);
    }

    fn discount(&mut self, metadata: Metadata) {
        self.by_depth[usize::from(metadata.depth)] -= 1;
        self.to_rebuild -= usize::from(metadata.needs_rebuild);
    }

    /// Counts an added entry.
    #[inline]
    pub(super) fn entry_added(&mut self, id: u32) {
        self.list[id as usize].live += 1;
    }

    /// Counts a removed key: `live` is 1 for an entry of the segment, 0 for one of its range in the overflow. Returns
    /// the entries left in the segment.
    pub(super) fn entry_removed(&mut self, id: u32, live: u16) -> u16 {
        let metadata = &mut self.list[id as usize];
        metadata.live -= live;
        metadata.lost = metadata.lost.saturating_add(1);
        if !metadata.needs_rebuild && metadata.has_lost_much() {
            metadata.needs_rebuild = true;
            self.to_rebuild += 1;
        }
        metadata.live
    }

    /// Records that the overflow has an entry of the segment's range.
    pub(super) fn set_overflowed(&mut self, id: u32) {
        self.list[id as usize].overflowed = true;
    }

    /// Records that the segment's part of the filter is being rebuilt.
    pub(super) fn mark_rebuilt(&mut self, id: u32) {
        let metadata = &mut self.list[id as usize];
        self.to_rebuild -= usize::from(metadata.needs_rebuild);
        metadata.needs_rebuild = false;
        metadata.lost = 0;
    }

    /// The number of segments that need a rebuild.
    pub(super) const fn to_rebuild(&self) -> usize {
        self.to_rebuild
    }

    /// The next segment that needs a rebuild; `None` if there is none among the 4,096 that this call checks. Repeated
    /// calls check all segments.
    pub(super) fn next_rebuild(&mut self) -> Option<u32> {
        if self.to_rebuild == 0 {
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

    /// The number of segments of a depth.
    pub(super) fn of_depth(&self, depth: u32) -> usize {
        self.by_depth[depth as usize] as usize
    }

    /// The greatest depth of a segment.
    pub(super) fn deepest(&self) -> usize {
        self.by_depth.iter().rposition(|&segments| segments > 0).unwrap_or(0)
    }

    /// Checks the counts against the metadata of `segments`, which are all segments.
    pub(super) fn audit(&self, segments: impl Iterator<Item = u32>) {
        let (mut by_depth, mut to_rebuild) = ([0; DEPTH_MAX as usize + 1], 0);
        for id in segments {
            let metadata = self.get(id);
            by_depth[usize::from(metadata.depth)] += 1;
            to_rebuild += usize::from(metadata.needs_rebuild);
            assert!(
                metadata.needs_rebuild || !metadata.has_lost_much(),
                "a segment that needs a rebuild and is not marked"
            );
        }
        assert_eq!((by_depth, to_rebuild), (self.by_depth, self.to_rebuild));
    }
}
