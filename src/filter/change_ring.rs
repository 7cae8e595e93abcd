//! The numbered entries of a changelog: a ring in chunks of 64 KiB, so that it grows and shrinks without moving
//! entries.
//!
//! Not here: which entries are dropped when, and the readers.

use std::collections::VecDeque;

/// Bytes of a chunk.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks freed per call of [`Ring::drop_before`] at most: some 20 µs.
const CHUNKS_PER_STEP: usize = 4;

/// The ring; see the module.
#[derive(Debug)]
pub(super) struct Ring<T> {
    chunks: VecDeque<Vec<T>>,
    /// Dropped entries of the first chunk.
    skipped: usize,
    /// The number of the first entry.
    first: u64,
    len: usize,
}

impl<T: Copy> Ring<T> {
    /// Entries of a chunk.
    pub(super) const CHUNK: usize = CHUNK_BYTES / size_of::<T>();

    pub(super) const fn new() -> Self {
        Self { chunks: VecDeque::new(), skipped: 0, first: 0, len: 0 }
    }

    /// The number of the first entry, or of the next if there is none.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// The number of the next entry.
    pub(super) const fn end(&self) -> u64 {
        self.first + self.len as u64
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the chunks, and of one more unless the ring is empty, so that it is counted before it is allocated.
    /// O(1).
    pub(super) fn memory_bytes(&self) -> usize {
        let next = usize::from(!self.chunks.is_empty());
        (self.chunks.len() + next) * CHUNK_BYTES
    }

    /// Adds an entry, and drops the oldest ones beyond `len_max`. O(1).
    pub(super) fn push(&mut self, entry: T, len_max: usize) {
        let surplus = (self.len + 1).saturating_sub(len_max);
        if surplus > 0 {
            self.drop_before(self.first + surplus as u64);
        }
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < Self::CHUNK => chunk.push(entry),
            Some(_) | None => {
                let mut chunk = Vec::with_capacity(Self::CHUNK);
                chunk.push(entry);
                self.chunks.push_back(chunk);
            }
        }
        self.len += 1;
    }

    /// Drops all entries. O(chunks).
    pub(super) fn clear(&mut self) {
        *self = Self { first: self.end(), ..Self::new() };
    }

    /// Skips one number: an entry that is not stored. The ring must be empty.
    pub(super) const fn skip(&mut self) {
        self.first += self.is_empty() as u64;
    }

    /// Appends up to `count` entries, from the number `from` on, to `out`.
    pub(super) fn read(&self, from: u64, count: usize, out: &mut Vec<T>) {
        let Some(at) = from.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else { return };
        let (mut at, mut left) = (at + self.skipped, count);
        while left > 0
            && let Some(entries) =
                self.chunks.get(at / Self::CHUNK).and_then(|chunk| chunk.get(at % Self::CHUNK..))
            && !entries.is_empty()
        {
            let some = &entries[..entries.len().min(left)];
            out.extend_from_slice(some);
            at += some.len();
            left -= some.len();
        }
    }

    /// Drops the entries before a number, at most four chunks; true if all of them are dropped.
    pub(super) fn drop_before(&mut self, number: u64) -> bool {
        let mut budget = CHUNKS_PER_STEP;
        while self.first < number && !self.is_empty() {
            if budget == 0 {
                return false;
            }
            budget -= 1;
            let here = self.chunks.front().map_or(0, Vec::len) - self.skipped;
            let wanted = usize::try_from(number - self.first).unwrap_or(usize::MAX);
            let dropped = here.min(wanted);
            self.skipped += dropped;
            self.first += dropped as u64;
            self.len -= dropped;
            if dropped == here {
                self.chunks.pop_front();
                self.skipped = 0;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNKS_PER_STEP, Ring};

    #[test]
    fn numbers_stay_with_their_entries_while_the_front_is_dropped() {
        const CHUNK: usize = Ring::<u64>::CHUNK;
        let mut ring = Ring::new();
        ring.skip();
        ring.skip();
        let end = 20 * CHUNK as u64 + 2;
        (2..end).for_each(|number| ring.push(number, usize::MAX));
        let mut dropped = 2;
        for step in [1, 7, CHUNK - 8, CHUNK, 3 * CHUNK + 5, 1] {
            dropped += step as u64;
            assert!(ring.drop_before(dropped));
            assert_eq!((ring.first(), ring.end()), (dropped, end));
            for from in [dropped, dropped + 1, dropped + CHUNK as u64, end - 1] {
                let mut out = Vec::new();
                ring.read(from, 2 * CHUNK, &mut out);
                let until = end.min(from + 2 * CHUNK as u64);
                assert!(out.iter().copied().eq(from..until), "from {from}");
            }
            for from in [dropped - 1, end] {
                let mut out = Vec::new();
                ring.read(from, 5, &mut out);
                assert_eq!(out, [0; 0]);
            }
        }
        let mut calls = 1;
        while !ring.drop_before(u64::MAX) {
            calls += 1;
        }
        assert!(ring.is_empty() && ring.first() == end && calls <= 20 / CHUNKS_PER_STEP);
    }

    #[test]
    fn ring_at_its_limit_keeps_the_newest() {
        let mut ring = Ring::new();
        (0..100u32).for_each(|number| ring.push(number, 10));
        let mut out = Vec::new();
        ring.read(90, 100, &mut out);
        assert_eq!((ring.first(), out), (90, (90..100).collect()));
    }
}
