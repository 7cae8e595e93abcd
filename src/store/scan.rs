//! Scans in hash order, in steps: of all items (SCAN), and of the hashes in a range (rebuilds of the own filter).
//!
//! A segment of the index holds a range of hashes, and the filter uses the same top bits of the hash, so the keys of
//! an aligned range of filter blocks are in one or few segments. The position of a scan is a hash, which stays valid
//! when segments split, merge or move.
//!

use super::index::{Index, Keys};
use super::segment;
use super::{HashRange, Item, KeyHash, Store, Version, heap_keys};
use crate::base::time::Instant;

/// Segments read per call of [`Store::scan`] at most.
const SEGMENTS_PER_SCAN: usize = 8;

/// The position of a [`Store::scan`]: all keys with a lower hash were visited. Never becomes invalid. 0 is both the
/// start and the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanCursor(pub u64);

impl ScanCursor {
    /// The first cursor of a scan, returned again when the scan is complete.
    pub const START: Self = Self(0);
}

/// The position of a [`Store::scan_hashes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentScan {
    /// Segments from the one of this hash on.
    Segments(u64),
    /// Entries of the overflow from this hash on.
    Overflow(u64),
    /// Complete.
    Done,
}

/// The result of visiting an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visited {
    /// It counts against the budget.
    Yes,
    /// It has expired, and does not count against the budget.
    NotCounted,
    /// The scan must stop after this hash.
    Last,
}

impl Store {
    /// Calls `visit` with unexpired keys and items in hash order: `budget` of them, or until it returns false. Visits
    /// more only if they have the hash of the last; fewer, possibly none, after eight segments or before a segment
    /// with more entries than the budget left. Begins with [`ScanCursor::START`], continues with the returned cursor,
    /// and is complete when that is `START` again. A key that exists during the whole scan is visited exactly once,
    /// whatever is set, removed or moved meanwhile. Costs a cache miss per key of up to eight segments of some 700
    /// keys.
    pub fn scan(
        &self,
        now: Instant,
        cursor: ScanCursor,
        budget: usize,
        mut visit: impl FnMut(&[u8], Item<'_>) -> bool,
    ) -> ScanCursor {
        self.scan_handles(cursor, budget, |handle| {
            let key = self.heap.key(handle);
            let item = self.heap.item_at(handle);
            if item.expiry.is_some_and(|expiry| expiry.has_come(now)) {
                Visited::NotCounted
            } else if visit(key, item) {
                Visited::Yes
            } else {
                Visited::Last
            }
        })
    }

    /// The same with the keys of all items, including expired ones that are not freed yet.
    pub fn scan_keys(&self, cursor: ScanCursor, budget: usize, mut visit: impl FnMut(&[u8])) -> ScanCursor {
        self.scan_handles(cursor, budget, |handle| {
            visit(self.heap.key(handle));
            Visited::Yes
        })
    }

    fn scan_handles(
        &self,
        cursor: ScanCursor,
        budget: usize,
        mut visit: impl FnMut(u32) -> Visited,
    ) -> ScanCursor {
        let keys = heap_keys(&self.heap, &self.secret);
        let (mut from, mut left, mut entries) = (cursor.0, budget.max(1), Vec::new());
        for _ in 0..SEGMENTS_PER_SCAN {
            entries.clear();
            let mut last = self.index.scan(&keys, from, left, &mut entries);
            // Entries of a segment that were read and not visited would have to be read again.
            if entries.len() > left && left < budget {
                break;
            }
            // Only the entries that will be visited, and the next hash, must be sorted.
            if entries.len() > left {
                last = entries.select_nth_unstable(left).1.0;
                entries.retain(|(hash, _)| *hash <= last);
            }
            entries.sort_unstable();
            let mut visited = None;
            for &(hash, handle) in &entries {
                if left == 0 && visited != Some(hash) {
                    return ScanCursor(hash);
                }
                match visit(handle) {
                    Visited::Yes => left = left.saturating_sub(1),
                    Visited::NotCounted => {}
                    Visited::Last => left = 0,
                }
                visited = Some(hash);
            }
            match last.checked_add(1) {
                Some(next) => from = next,
                None => return ScanCursor::START,
            }
            if left == 0 {
                break;
            }
        }
        ScanCursor(from)
    }

    /// Calls `visit` with each key of this hash, its version, and whether it is unexpired. Costs as much as
    /// [`Store::get`].
    pub fn with_hash(&self, now: Instant, hash: KeyHash, mut visit: impl FnMut(&[u8], Version, bool)) {
        let keys = heap_keys(&self.heap, &self.secret);
        let mut visit_handle = |handle| {
            let key = self.heap.key(handle);
            if self.secret.hash(key) == hash {
                visit(key, self.heap.version(handle), self.is_alive(now, handle));
            }
        };
        self.index.candidates(hash.0).for_each(&mut visit_handle);
        if !self.index.overflow.is_empty() {
            let (range, mut entries) = (HashRange { first: hash.0, last: hash.0 }, Vec::new());
            self.index.overflow.scan(|handle| keys.hash_of(handle), range, usize::MAX, &mut entries);
            entries.into_iter().for_each(|(_, handle)| visit_handle(handle));
        }
    }

    /// Whether any segment needs a rebuild of its part of the filter. O(1).
    pub fn has_rebuilds(&self) -> bool {
        self.index.has_rebuilds()
    }

    /// The range of hashes of a segment whose part of the filter needs a rebuild, since 7 % of its keys were removed.
    /// Marks it as rebuilt. `None` if this step found none: must be repeated while [`Store::has_rebuilds`]. Checks at
    /// most 4,096 segments.
    pub fn take_rebuild(&mut self) -> Option<HashRange> {
        self.index.take_rebuild()
    }

    /// The range of the segment of this hash; marks it as rebuilt. O(1).
    pub fn mark_rebuilt(&mut self, hash: u64) -> HashRange {
        self.index.mark_rebuilt(hash)
    }

    /// Appends the hashes of the keys in `range` that are in one segment, some 700 at most, or 128 in the overflow.
    /// Begins with `SegmentScan::Segments(range.first)`, continues with the returned position, and is complete at
    /// `SegmentScan::Done`. Contains the hash of every key that exists from the first call to the last; hashes can be
    /// repeated. Costs a cache miss per key; they overlap.
    pub fn scan_hashes(&mut self, range: HashRange, at: SegmentScan, hashes: &mut Vec<u64>) -> SegmentScan {
        let keys = heap_keys(&self.heap, &self.secret);
        match at {
            SegmentScan::Segments(from) => match self.index.scan_hashes(&keys, range, from, hashes) {
                Some(next) => SegmentScan::Segments(next),
                None => self.scan_hashes(range, SegmentScan::Overflow(range.first), hashes),
            },
            SegmentScan::Overflow(from) => self
                .index
                .scan_overflow_hashes(&keys, range, from, hashes)
                .map_or(SegmentScan::Done, SegmentScan::Overflow),
            SegmentScan::Done => SegmentScan::Done,
        }
    }
}

impl Index {
    /// Appends, unsorted, hash and handle of the entries from the hash `from` to the end of its segment's range, and
    /// about `budget` of the overflow. Returns the hash up to which all entries were appended.
    fn scan(&self, keys: &impl Keys, from: u64, budget: usize, out: &mut Vec<(u64, u32)>) -> u64 {
        let (mut last, mut overflowed) = (u64::MAX, true);
        if let Some(id) = self.segment_of(from) {
            let metadata = self.metadata.get(id);
            (last, overflowed) = (metadata.range().last, metadata.overflowed);
        }
        if overflowed {
            let range = HashRange { first: from, last };
            last = self.overflow.scan(|handle| keys.hash_of(handle), range, budget, out);
        }
        if let Some(id) = self.segment_of(from) {
            let hashes_of = |handles: &[u32], hashes: &mut [u64]| keys.hashes_of(handles, hashes);
            segment::for_each_hashed(self.segments.block(id), hashes_of, |_, handle, hash| {
                if (from..=last).contains(&hash) {
                    out.push((hash, handle));
                }
            });
        }
        last
    }

    const fn has_rebuilds(&self) -> bool {
        self.is_emptied || self.metadata.to_rebuild() > 0
    }

    /// See [`Store::take_rebuild`].
    fn take_rebuild(&mut self) -> Option<HashRange> {
        if self.is_emptied {
            self.is_emptied = false;
            return Some(HashRange::ALL);
        }
        let id = self.metadata.next_rebuild()?;
        self.metadata.mark_rebuilt(id);
        Some(self.metadata.get(id).range())
    }

    /// See [`Store::mark_rebuilt`].
    fn mark_rebuilt(&mut self, hash: u64) -> HashRange {
        let Some(id) = self.segment_of(hash) else { return HashRange::ALL };
        self.metadata.mark_rebuilt(id);
        self.metadata.get(id).range()
    }

    /// Appends the hashes of `range` in the segment of `from`. Returns the first hash of the next segment, if it is
    /// in the range. Marks the segment as rebuilt if its whole range is in `range`.
    fn scan_hashes(
        &mut self,
        keys: &impl Keys,
        range: HashRange,
        from: u64,
        out: &mut Vec<u64>,
    ) -> Option<u64> {
        let id = self.segment_of(from)?;
        let before = out.len();
        let hashes_of = |handles: &[u32], hashes: &mut [u64]| keys.hashes_of(handles, hashes);
        segment::scan_hashes(self.segments.block(id), out, hashes_of);
        let covered = self.metadata.get(id).range();
        if range.contains(covered.first) && range.contains(covered.last) {
            self.metadata.mark_rebuilt(id);
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

    /// The same for the overflow, at most 128 distinct hashes, from `from` on.
    fn scan_overflow_hashes(
        &self,
        keys: &impl Keys,
        range: HashRange,
        from: u64,
        out: &mut Vec<u64>,
    ) -> Option<u64> {
        self.overflow.scan_hashes(|handle| keys.hash_of(handle), HashRange { first: from, ..range }, out)
    }
}
