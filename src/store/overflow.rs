//! The overflow of the index: entries whose segment is full and cannot be split, because many keys have equal hashes
//! or memory is short.
//!
//! Handles ordered by (hash, key) in chunks of up to 512: a B-tree of two levels. A lookup is a binary search in
//! both; an insertion moves at most 2 KiB, and once in 256 times the list of chunks, which is 96 KiB for a million
//! keys.
//!
//! Not here: the keys. Callers pass the order as a function of a handle.

use super::hash::HashRange;
use std::cmp::Ordering;

const CHUNK_MAX: usize = 512;

/// Hashes returned per call of [`Overflow::scan_hashes`]. A hash with several entries costs a search.
const HASHES_PER_STEP: usize = 128;

/// Handles in order.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    chunks: Vec<Vec<u32>>,
    len: usize,
}

/// The position of an entry, or the one where it would be inserted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    chunk: usize,
    at: usize,
}

impl Overflow {
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<Vec<u32>>() + self.chunks.len() * CHUNK_MAX * 4
    }

    /// Growth of [`Overflow::memory_bytes`] at most for this many more entries.
    pub(super) fn growth_bytes_max(&self, entries: usize) -> usize {
        let chunks = 1 + entries / (CHUNK_MAX / 2);
        chunks * CHUNK_MAX * 4 + (self.chunks.len() + chunks + 8) * size_of::<Vec<u32>>()
    }

    /// The handle for which `order`, which compares an entry with the target, is `Equal`; else the position to insert
    /// it. O(log n) calls of `order`.
    pub(super) fn find(&self, order: impl Fn(u32) -> Ordering) -> Result<(Spot, u32), Spot> {
        let chunk = self.chunks.partition_point(|chunk| order(chunk[0]) != Ordering::Greater);
        let chunk = chunk.saturating_sub(1);
        let Some(handles) = self.chunks.get(chunk) else { return Err(Spot { chunk, at: 0 }) };
        match handles.binary_search_by(|&handle| order(handle)) {
            Ok(at) => Ok((Spot { chunk, at }, handles[at])),
            Err(at) => Err(Spot { chunk, at }),
        }
    }

    /// The handles for which `order` is `Equal`. O(log n) calls of `order`, and one per handle.
    pub(super) fn equal(&self, order: impl Fn(u32) -> Ordering) -> impl Iterator<Item = u32> {
        let is_less = |&handle: &u32| order(handle) == Ordering::Less;
        let chunk = self.chunks.partition_point(|chunk| is_less(&chunk[0])).saturating_sub(1);
        let at = self.chunks.get(chunk).map_or(0, |handles| handles.partition_point(is_less));
        let handles = self.chunks.iter().skip(chunk).flatten().copied();
        handles.skip(at).take_while(move |&handle| order(handle) == Ordering::Equal)
    }

    /// Inserts a handle at the position returned by [`Overflow::find`].
    pub(super) fn insert(&mut self, mut spot: Spot, handle: u32) {
        self.len += 1;
        if self.chunks.is_empty() {
            self.chunks.push(Vec::with_capacity(CHUNK_MAX));
        }
        if self.chunks[spot.chunk].len() == CHUNK_MAX {
            let mut upper = Vec::with_capacity(CHUNK_MAX);
            upper.extend(self.chunks[spot.chunk].drain(CHUNK_MAX / 2..));
            self.chunks.insert(spot.chunk + 1, upper);
            if spot.at > CHUNK_MAX / 2 {
                spot = Spot { chunk: spot.chunk + 1, at: spot.at - CHUNK_MAX / 2 };
            }
        }
        self.chunks[spot.chunk].insert(spot.at, handle);
    }

    /// Removes the handle at a position.
    pub(super) fn remove(&mut self, spot: Spot) {
        self.len -= 1;
        self.chunks[spot.chunk].remove(spot.at);
        if self.chunks[spot.chunk].is_empty() {
            self.chunks.remove(spot.chunk);
        } else if !self.merge_with_next(spot.chunk)
            && let Some(before) = spot.chunk.checked_sub(1)
        {
            self.merge_with_next(before);
        }
        if self.chunks.capacity() > 4 * self.chunks.len() + 8 {
            self.chunks.shrink_to(2 * self.chunks.len());
        }
    }

    /// Merges a chunk and the next one if together they fill at most half a chunk; returns whether it did.
    fn merge_with_next(&mut self, chunk: usize) -> bool {
        let few = |next: &Vec<u32>| self.chunks[chunk].len() + next.len() <= CHUNK_MAX / 2;
        let merges = self.chunks.get(chunk + 1).is_some_and(few);
        if merges {
            let next = self.chunks.remove(chunk + 1);
            self.chunks[chunk].extend(next);
        }
        merges
    }

    /// Replaces the handle at a position.
    pub(super) fn replace(&mut self, spot: Spot, handle: u32) {
        self.chunks[spot.chunk][spot.at] = handle;
    }

    /// Appends up to 128 distinct hashes of `range` in order. Returns the hash to continue from if there are more.
    /// Entries of equal hashes are skipped by a search, so that a million of them cost as much as one.
    pub(super) fn scan_hashes(
        &self,
        hash_of: impl Fn(u32) -> u64,
        range: HashRange,
        out: &mut Vec<u64>,
    ) -> Option<u64> {
        let mut spot = self.first_above(&hash_of, range.first.checked_sub(1));
        let mut last = None;
        for _ in 0..HASHES_PER_STEP {
            let mut hash = hash_of(*self.chunks.get(spot.chunk)?.get(spot.at)?);
            if last == Some(hash) {
                spot = self.first_above(&hash_of, Some(hash));
                hash = hash_of(*self.chunks.get(spot.chunk)?.get(spot.at)?);
            }
            if hash > range.last {
                return None;
            }
            out.push(hash);
            last = Some(hash);
            let more = spot.at + 1 < self.chunks[spot.chunk].len();
            spot =
                if more { Spot { at: spot.at + 1, ..spot } } else { Spot { chunk: spot.chunk + 1, at: 0 } };
        }
        last?.checked_add(1).filter(|&next| next <= range.last)
    }

    /// Appends hash and handle of the entries of `range`, in order: `budget` entries, and further ones with the hash
    /// of the last. Returns the hash up to which all entries were appended.
    pub(super) fn scan(
        &self,
        hash_of: impl Fn(u32) -> u64,
        range: HashRange,
        budget: usize,
        out: &mut Vec<(u64, u32)>,
    ) -> u64 {
        let spot = self.first_above(&hash_of, range.first.checked_sub(1));
        let tail = self.chunks.get(spot.chunk).map_or(&[][..], |chunk| &chunk[spot.at..]);
        let after = self.chunks.iter().skip(spot.chunk + 1).flatten();
        let (mut left, mut last) = (budget, None);
        for &handle in tail.iter().chain(after) {
            let hash = hash_of(handle);
            if hash > range.last {
                break;
            }
            if left == 0 && last != Some(hash) {
                return last.unwrap_or(range.last);
            }
            out.push((hash, handle));
            left = left.saturating_sub(1);
            last = Some(hash);
        }
        range.last
    }

    /// The position of the first entry with a hash above `hash`; of the first entry for `None`.
    fn first_above(&self, hash_of: &impl Fn(u32) -> u64, hash: Option<u64>) -> Spot {
        let Some(hash) = hash else { return Spot { chunk: 0, at: 0 } };
        let chunk = self.chunks.partition_point(|chunk| hash_of(chunk[0]) <= hash).saturating_sub(1);
        let Some(handles) = self.chunks.get(chunk) else { return Spot { chunk, at: 0 } };
        let at = handles.partition_point(|&handle| hash_of(handle) <= hash);
        if at < handles.len() { Spot { chunk, at } } else { Spot { chunk: chunk + 1, at: 0 } }
    }

    /// All handles in order.
    pub(super) fn handles(&self) -> impl Iterator<Item = u32> {
        self.chunks.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "bounded by the tables of the test")]

    use super::Overflow;
    use crate::base::rng::Rng;
    use crate::store::hash::HashRange;
    use std::collections::BTreeSet;

    #[test]
    fn few_handles_left_take_few_chunks_in_whatever_order_the_others_go() {
        let filled = || {
            let mut overflow = Overflow::default();
            for handle in 0..20_000u32 {
                let Err(spot) = overflow.find(|held| held.cmp(&handle)) else { panic!("there already") };
                overflow.insert(spot, handle);
            }
            overflow
        };
        let gone: Vec<u32> = (0..20_000).filter(|handle| handle % 250 != 0).collect();
        let descending: Vec<u32> = gone.iter().rev().copied().collect();
        for order in [gone, descending] {
            let mut overflow = filled();
            for handle in order {
                overflow.remove(overflow.find(|held| held.cmp(&handle)).unwrap().0);
            }
            assert_eq!(overflow.len(), 80);
            assert!(overflow.chunks.len() < 4, "{} chunks", overflow.chunks.len());
        }
    }

    #[test]
    fn random_handles_agree_with_an_ordered_set() {
        let mut rng = Rng::new(1);
        let mut overflow = Overflow::default();
        let mut oracle = BTreeSet::new();
        for step in 0..60_000u32 {
            let handle = rng.below(20_000) as u32;
            let bias = if step < 30_000 { 3 } else { 1 };
            match overflow.find(|held| held.cmp(&handle)) {
                Ok((spot, found)) => {
                    assert!(found == handle && oracle.contains(&handle));
                    if rng.below(4) >= bias {
                        overflow.remove(spot);
                        oracle.remove(&handle);
                    }
                }
                Err(spot) => {
                    if rng.below(4) < bias {
                        let expected = overflow.memory_bytes() + overflow.growth_bytes_max(1);
                        overflow.insert(spot, handle);
                        assert!(oracle.insert(handle) && overflow.memory_bytes() <= expected);
                    }
                }
            }
            assert_eq!(overflow.len(), oracle.len());
        }
        assert!(overflow.handles().eq(oracle.iter().copied()));
        // Hashes of 1, 3 and 500 handles each, scanned in steps from a random position.
        for share in [1, 3, 500] {
            let hash_of = |handle: u32| u64::from(handle / share);
            for range in [HashRange::ALL, HashRange { first: 20, last: 9_000 }] {
                let mut expected: Vec<u64> = oracle
                    .iter()
                    .map(|&handle| hash_of(handle))
                    .filter(|&hash| range.contains(hash))
                    .collect();
                expected.dedup();
                let (mut found, mut next) = (Vec::new(), Some(range.first));
                while let Some(first) = next {
                    next = overflow.scan_hashes(hash_of, HashRange { first, ..range }, &mut found);
                }
                assert_eq!(found, expected);
            }
        }
        for handle in oracle {
            overflow.remove(overflow.find(|held| held.cmp(&handle)).unwrap().0);
        }
        assert!(overflow.is_empty() && overflow.memory_bytes() < 1_024);
    }
}
