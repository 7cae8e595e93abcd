//! What the filter of a store's keys has to know beside additions: which ranges of hashes have lost many
//! keys, and which hashes are left in a range. All in steps.
//!
//! The index and the filter share the top bits of the hash, so the keys behind some blocks of the filter
//! are those of one segment, or of few. Here is nothing of the filter itself.

use super::index::{Index, Keys};
use super::segment;
use super::{HashRange, Store, known};

/// How far the hashes of a range are gathered; see [`Store::gather`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentScan {
    /// Segments from the one of this hash on.
    Segments(u64),
    /// What had no place in a segment, from this hash on.
    Overflow(u64),
    /// All.
    Done,
}

impl Store {
    /// Whether [`Store::take_worn`] has ranges to name. O(1).
    pub fn has_worn(&self) -> bool {
        self.index.has_worn()
    }

    /// A range of hashes that has lost 7 % of its keys, or more, since it was last named here, or by
    /// [`Store::mend`]: a segment of the index. `None` if this step found none: call it again while
    /// [`Store::has_worn`]. Looks at 4,096 segments' records at most.
    pub fn take_worn(&mut self) -> Option<HashRange> {
        self.index.take_worn()
    }

    /// The range of the segment in which this hash belongs, as if it were worn. O(1).
    pub fn mend(&mut self, hash: u64) -> HashRange {
        self.index.mend(hash)
    }

    /// Appends to `hashes` those of the keys in `range` that one segment holds, some 700 at most, or 128
    /// that are in no segment. Begins with `SegmentScan::Segments(range.first)`, goes on with what it
    /// returned, and is done when that says so. A key that is there from the first call to the last is
    /// among the hashes then, whatever else is set, removed or moved in between; one that comes or goes
    /// meanwhile may be. Some hashes may come several times. Costs a far read for each key, many of them at once.
    pub fn gather(&mut self, range: HashRange, at: SegmentScan, hashes: &mut Vec<u64>) -> SegmentScan {
        let known = known(&self.heap, &self.secret);
        match at {
            SegmentScan::Segments(from) => match self.index.gather(&known, range, from, hashes) {
                Some(next) => SegmentScan::Segments(next),
                None => self.gather(range, SegmentScan::Overflow(range.first), hashes),
            },
            SegmentScan::Overflow(from) => self
                .index
                .gather_overflowed(&known, range, from, hashes)
                .map_or(SegmentScan::Done, SegmentScan::Overflow),
            SegmentScan::Done => SegmentScan::Done,
        }
    }
}

impl Index {
    const fn has_worn(&self) -> bool {
        self.is_hollow || self.records.worn() > 0
    }

    /// A range of hashes that has lost many keys, which are not counted any more; `None` if this step of
    /// the walk found none.
    fn take_worn(&mut self) -> Option<HashRange> {
        if self.is_hollow {
            self.is_hollow = false;
            return Some(HashRange::ALL);
        }
        let id = self.records.next_worn()?;
        self.records.mend(id);
        Some(self.records.get(id).range())
    }

    /// The range of the segment of this hash, whose lost keys are not counted any more.
    fn mend(&mut self, hash: u64) -> HashRange {
        let Some(id) = self.segment_of(hash) else { return HashRange::ALL };
        self.records.mend(id);
        self.records.get(id).range()
    }

    /// Appends the hashes in one segment's part of `range`: in that of `from`. Returns where the next
    /// segment begins, if it is in the range. Keys lost by segments that lie in the range whole are not
    /// counted any more.
    fn gather(&mut self, keys: &impl Keys, range: HashRange, from: u64, out: &mut Vec<u64>) -> Option<u64> {
        let id = self.segment_of(from)?;
        let before = out.len();
        let hashes_of = |handles: &[u32], hashes: &mut [u64]| keys.hashes_of(handles, hashes);
        segment::gather(self.segments.block(id), out, hashes_of);
        let covered = self.records.get(id).range();
        if range.contains(covered.first) && range.contains(covered.last) {
            self.records.mend(id);
        } else {
            let mut kept = before;
            for at in before..out.len() {
                out[kept] = out[at];
                kept += usize::from(range.contains(out[at]));
            }
            out.truncate(kept);
        }
        covered.last.checked_add(1).filter(|&next| range.contains(next))
    }

    /// The same for the overflow, at most 128 different hashes, from `from` on.
    fn gather_overflowed(
        &self,
        keys: &impl Keys,
        range: HashRange,
        from: u64,
        out: &mut Vec<u64>,
    ) -> Option<u64> {
        self.overflow.gather(|handle| keys.hash_of(handle), HashRange { first: from, ..range }, out)
    }
}
