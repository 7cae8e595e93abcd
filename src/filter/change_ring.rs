//! The entries of a digest's log, each with its number: a ring in chunks of 64 KiB, so that it grows and
//! gives memory back without ever moving what it holds.
//!
//! Not here: what is forgotten when, and who reads.

use super::size::Size;
use std::collections::VecDeque;

/// Entries of a chunk.
pub(super) const CHUNK: usize = 4_096;

/// Bytes of a chunk.
const CHUNK_BYTES: usize = CHUNK * size_of::<Entry>();

/// Chunks that one call of [`Log::forget_until`] frees at most: some 20 µs.
const CHUNKS_PER_STEP: usize = 4;

/// What may be said of a filter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry {
    Add(u64),
    /// A block, by its number at the size that is in force at this place of the log.
    Dirty(u32),
    Resize(Size),
}

/// The log; see the module.
#[derive(Debug)]
pub(super) struct Log {
    chunks: VecDeque<Vec<Entry>>,
    /// Entries of the first chunk that are forgotten.
    skipped: usize,
    /// The number of the first entry that is not.
    first: u64,
    len: usize,
}

impl Log {
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

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the chunks, and of the next one if there is any: so what is counted is there before it is used. O(1).
    pub(super) fn memory_bytes(&self) -> usize {
        let next = usize::from(!self.chunks.is_empty());
        (self.chunks.len() + next) * CHUNK_BYTES
    }

    /// Adds an entry. O(1).
    pub(super) fn push(&mut self, entry: Entry) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(entry),
            Some(_) | None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(entry);
                self.chunks.push_back(chunk);
            }
        }
        self.len += 1;
    }

    /// Counts an entry that is not kept, for which the log must be empty; false if it is not.
    pub(super) fn skip(&mut self) -> bool {
        self.first += u64::from(self.is_empty());
        self.is_empty()
    }

    /// The entry of a number, if it is kept. O(1).
    pub(super) fn get(&self, number: u64) -> Option<Entry> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()? + self.skipped;
        self.chunks.get(at / CHUNK)?.get(at % CHUNK).copied()
    }

    /// Forgets the entries before a number, at most four chunks of them; true if none is left.
    pub(super) fn forget_until(&mut self, number: u64) -> bool {
        let mut budget = CHUNKS_PER_STEP;
        while self.first < number && !self.is_empty() {
            if budget == 0 {
                return false;
            }
            budget -= 1;
            let here = self.chunks.front().map_or(0, Vec::len) - self.skipped;
            let wanted = usize::try_from(number - self.first).unwrap_or(usize::MAX);
            let gone = here.min(wanted);
            self.skipped += gone;
            self.first += gone as u64;
            self.len -= gone;
            if gone == here {
                self.chunks.pop_front();
                self.skipped = 0;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, CHUNKS_PER_STEP, Entry, Log};

    #[test]
    fn numbers_stay_with_their_entries_while_the_front_is_forgotten() {
        let mut log = Log::new();
        assert!(log.skip() && log.skip());
        let end = 20 * CHUNK as u64 + 2;
        (2..end).for_each(|number| log.push(Entry::Add(number)));
        assert!(!log.skip());
        let mut forgotten = 2;
        for step in [1, 7, CHUNK - 8, CHUNK, 3 * CHUNK + 5, 1] {
            forgotten += step as u64;
            assert!(log.forget_until(forgotten));
            assert_eq!((log.first(), log.end(), log.len() as u64), (forgotten, end, end - forgotten));
            assert!(log.get(forgotten - 1).is_none() && log.get(end).is_none());
            for number in [forgotten, forgotten + 1, forgotten + CHUNK as u64, end - 1] {
                assert!(matches!(log.get(number), Some(Entry::Add(hash)) if hash == number));
            }
        }
        let mut calls = 1;
        while !log.forget_until(u64::MAX) {
            calls += 1;
        }
        assert!(log.is_empty() && log.first() == end && calls <= 20 / CHUNKS_PER_STEP);
    }
}
