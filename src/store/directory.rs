//! The directory of extendible hashing: maps the top bits of a hash to a segment.
//!
//! Doubling a directory of 1 MiB at once takes most of a millisecond, half of it to touch fresh memory. So the next
//! directory of a large one is built in steps, one per split, and replaces it when the first segment needs it.
//!
//! Not here: when a segment splits, and its metadata.

use crate::base::memory::reserve;
use std::mem;
use std::ops::Range;

/// Entries from which on the next directory is built in steps. Doubling a smaller directory takes some µs.
const PREBUILD_FROM: usize = 4_096;

/// Entries of the next directory written per step: 8 KiB.
const STEP: usize = 2_048;

/// The directory; see the module.
#[derive(Debug)]
pub(super) struct Directory {
    /// Segments: none, or 2^`depth` entries.
    entries: Vec<u32>,
    depth: u32,
    /// The built part of the next directory, of twice the size; without capacity before the first step.
    next: Vec<u32>,
}

impl Directory {
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new(), depth: 1, next: Vec::new() }
    }

    /// The smallest directory: one segment for all hashes.
    pub(super) fn of(id: u32) -> Self {
        Self { entries: vec![id; 2], ..Self::new() }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bits of the hash that the directory uses, at least 1.
    pub(super) const fn depth(&self) -> u32 {
        self.depth
    }

    pub(super) fn memory_bytes(&self) -> usize {
        (self.entries.capacity() + self.next.capacity()) * 4
    }

    /// Growth of [`Directory::memory_bytes`] when the directory is doubled, or the next one is begun.
    pub(super) fn growth_bytes(&self) -> usize {
        if self.next.capacity() > 0 { 0 } else { self.len() * 8 }
    }

    /// Upper bound of the bytes of a directory of this many entries.
    pub(super) const fn bytes_max(entries: usize) -> usize {
        4 * entries + if entries >= PREBUILD_FROM { 8 * entries } else { 0 }
    }

    #[inline]
    pub(super) fn get(&self, hash: u64) -> Option<u32> {
        self.entries.get(self.position_of(hash)).copied()
    }

    /// The entry of a hash.
    #[inline]
    pub(super) fn position_of(&self, hash: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "at most 26 bits")]
        let position = (hash >> (64 - self.depth)) as usize;
        position
    }

    /// The segments of some entries.
    pub(super) fn at(&self, positions: Range<usize>) -> &[u32] {
        &self.entries[positions]
    }

    /// Writes a segment to its entries.
    pub(super) fn point(&mut self, positions: Range<usize>, id: u32) {
        let built = self.next.len();
        self.next[built.min(2 * positions.start)..built.min(2 * positions.end)].fill(id);
        self.entries[positions].fill(id);
    }

    /// Builds a piece of the next directory if it will be needed soon, judged by `deepest`: the number of segments of
    /// the directory's depth. Bounded.
    pub(super) fn prebuild(&mut self, deepest: usize) {
        if self.len() >= PREBUILD_FROM && deepest > self.len() / 2 {
            self.build(STEP);
        }
    }

    /// Doubles the directory. Bounded if the next directory is built, else O(entries). False, and nothing changed, if
    /// the system has no memory.
    pub(super) fn double(&mut self) -> bool {
        if !self.build(usize::MAX) {
            return false;
        }
        self.entries = mem::take(&mut self.next);
        self.depth += 1;
        true
    }

    /// Builds up to `budget` entries of the next directory; false if the system has no memory.
    fn build(&mut self, budget: usize) -> bool {
        let doubled = 2 * self.len();
        if self.next.capacity() == 0 && !reserve(&mut self.next, doubled) {
            return false;
        }
        let from = self.next.len() / 2;
        let until = self.len().min(from.saturating_add(budget / 2));
        self.next.extend(self.entries[from..until].iter().flat_map(|&id| [id, id]));
        true
    }

    /// Halves the directory; no segment may need the last bit. O(entries) in one call: 50 µs from 2^18 entries, some
    /// 80 million keys, and 200 µs from 2^20. It reads in order and, unlike doubling, takes no fresh memory.
    pub(super) fn halve(&mut self) {
        self.next = Vec::new();
        let len = self.len() / 2;
        for at in 0..len {
            self.entries[at] = self.entries[2 * at];
        }
        self.entries.truncate(len);
        self.entries.shrink_to_fit();
        self.depth -= 1;
    }

    /// Checks the built part of the next directory. O(entries).
    pub(super) fn audit(&self) {
        assert!(self.is_empty() || self.len() == 1 << self.depth);
        let halves = self.next.iter().enumerate();
        halves.for_each(|(at, id)| assert_eq!(*id, self.entries[at / 2], "an entry of the next directory"));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "bounded by the tables of the test")]

    use super::{Directory, PREBUILD_FROM, STEP};
    use crate::base::rng::Rng;

    #[test]
    fn next_directory_follows_every_change() {
        let mut rng = Rng::new(1);
        let mut directory = Directory::of(0);
        while directory.len() < PREBUILD_FROM {
            assert!(directory.double());
        }
        for round in 0..4 {
            let len = directory.len();
            let steps = 2 * len / STEP;
            for step in 0..steps + 2 {
                let expected = directory.memory_bytes() + directory.growth_bytes();
                directory.prebuild(len / 2 + 1);
                assert!(directory.memory_bytes() <= expected);
                assert_eq!(directory.next.len(), (2 * len).min((step + 1) * STEP));
                for id in 0..20 {
                    let start = rng.below(len as u64) as usize;
                    let end = len.min(start + rng.below(300) as usize);
                    directory.point(start..end, id + 1);
                }
                directory.audit();
            }
            let model: Vec<u32> = directory.at(0..len).iter().flat_map(|&id| [id, id]).collect();
            assert!(directory.double());
            assert_eq!(directory.at(0..2 * len), model);
            if round % 2 == 1 {
                directory.prebuild(2 * len);
                directory.halve();
                assert_eq!((directory.len(), directory.memory_bytes()), (len, 4 * len));
            }
        }
    }
}
