//! A chunked vector: grows and shrinks at its end without moving its entries.
//!
//! A `Vec` of a megabyte that grows allocates and copies everything, most of a millisecond in one call. Here
//! entries are in chunks of 64, each allocated alone; only the list of chunks moves, 8 bytes per chunk. A read of an
//! entry costs one more read of that list, which is in the cache.
//!
//! Not here: which entries are in use.

use std::array;
use std::ops::{Index, IndexMut};

/// Entries that are allocated together.
pub const CHUNK: usize = 64;

/// Minimum growth of the list of chunks, in chunks.
const LIST_STEP: usize = 16;

/// The table; see the module.
#[derive(Debug)]
pub struct ChunkedVec<T> {
    chunked_vec: Vec<Box<[T; CHUNK]>>,
}

impl<T: Default> ChunkedVec<T> {
    /// An empty table, without memory.
    pub const fn new() -> Self {
        Self { chunked_vec: Vec::new() }
    }

    /// The number of entries.
    pub const fn len(&self) -> usize {
        self.chunked_vec.len() * CHUNK
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.chunked_vec.is_empty()
    }

    /// The entry at `at`, if the table is that long.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&T> {
        Some(&self.chunked_vec.get(at / CHUNK)?[at % CHUNK])
    }

    /// The entry at `at`, if the table is that long.
    #[inline]
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        Some(&mut self.chunked_vec.get_mut(at / CHUNK)?[at % CHUNK])
    }

    /// Two different entries at once, if the table is that long.
    pub fn get_two_mut(&mut self, one: usize, other: usize) -> Option<(&mut T, &mut T)> {
        let (chunk, other_chunk) = (one / CHUNK, other / CHUNK);
        if chunk == other_chunk {
            let [one, other] =
                self.chunked_vec.get_mut(chunk)?.get_disjoint_mut([one % CHUNK, other % CHUNK]).ok()?;
            return Some((one, other));
        }
        let [chunk, other_chunk] = self.chunked_vec.get_disjoint_mut([chunk, other_chunk]).ok()?;
        Some((&mut chunk[one % CHUNK], &mut other_chunk[other % CHUNK]))
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunked_vec.iter().flat_map(|chunk| chunk.iter())
    }

    /// Makes the table at least `len` entries long; new ones have their default. O(new entries); now and then the
    /// list of chunks moves, 8 bytes per 64 entries.
    pub fn grow_to(&mut self, len: usize) {
        while self.len() < len {
            if self.chunked_vec.len() == self.chunked_vec.capacity() {
                self.chunked_vec.reserve_exact(self.list_growth());
            }
            self.chunked_vec.push(Box::new(array::from_fn(|_| T::default())));
        }
    }

    /// Frees chunks that no entry below `len` needs.
    pub fn truncate(&mut self, len: usize) {
        self.chunked_vec.truncate(len.div_ceil(CHUNK));
        if self.chunked_vec.capacity() > 2 * self.chunked_vec.len() + LIST_STEP {
            self.chunked_vec.shrink_to_fit();
        }
    }

    /// Bytes held, without those that entries own.
    pub const fn memory_bytes(&self) -> usize {
        self.chunked_vec.len() * size_of::<[T; CHUNK]>() + self.chunked_vec.capacity() * size_of::<Box<T>>()
    }

    /// Maximum growth of [`ChunkedVec::memory_bytes`] when the table becomes `len` entries long.
    pub fn growth_bytes(&self, len: usize) -> usize {
        let more = len.div_ceil(CHUNK).saturating_sub(self.chunked_vec.len());
        let listed = self.chunked_vec.capacity() - self.chunked_vec.len();
        // The list grows by steps, the last of which may exceed the need.
        let list = if more > listed { more - listed + self.list_growth() + more / 8 } else { 0 };
        more * size_of::<[T; CHUNK]>() + list * size_of::<Box<T>>()
    }

    fn list_growth(&self) -> usize {
        LIST_STEP.max(self.chunked_vec.len() / 8)
    }
}

impl<T: Default> Default for ChunkedVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Index<usize> for ChunkedVec<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: usize) -> &T {
        &self.chunked_vec[at / CHUNK][at % CHUNK]
    }
}

impl<T> IndexMut<usize> for ChunkedVec<T> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.chunked_vec[at / CHUNK][at % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, ChunkedVec};
    use crate::base::rng::Rng;

    #[test]
    fn entries_stay_where_they_are_while_the_table_grows() {
        let mut table: ChunkedVec<u64> = ChunkedVec::new();
        table.grow_to(1);
        table[0] = 7;
        let at: *const u64 = &raw const table[0];
        for len in 1..5_000 {
            let expected = table.memory_bytes() + table.growth_bytes(len);
            table.grow_to(len);
            assert!(table.len() >= len && table.memory_bytes() <= expected, "{len}");
        }
        assert!(std::ptr::eq(at, &raw const table[0]) && table[0] == 7);
        assert_eq!(table.iter().sum::<u64>(), 7);
    }

    #[test]
    fn growth_is_at_most_as_predicted() {
        let mut rng = Rng::new(1);
        let mut table: ChunkedVec<[u8; 20]> = ChunkedVec::new();
        for _ in 0..2_000 {
            let len = usize::try_from(rng.below(40_000)).unwrap_or(0);
            let expected = table.memory_bytes() + table.growth_bytes(len);
            table.grow_to(len);
            assert!(table.memory_bytes() <= expected);
            if rng.one_in(2) {
                table.truncate(len / 2);
            }
        }
        table.truncate(0);
        assert!(table.is_empty() && table.memory_bytes() <= 16 * 8);
    }

    #[test]
    fn two_entries_are_borrowed_from_one_chunk_and_from_two() {
        let mut table: ChunkedVec<u32> = ChunkedVec::new();
        table.grow_to(2 * CHUNK);
        for other in [1, CHUNK, CHUNK + 1] {
            let (one, two) = table.get_two_mut(0, other).expect("they are there");
            (*one, *two) = (1, 2);
            assert_eq!((table[0], table[other]), (1, 2));
        }
        assert!(table.get_two_mut(3, 3).is_none() && table.get_two_mut(0, 2 * CHUNK).is_none());
        assert!(table.get(2 * CHUNK).is_none() && table.get_mut(2 * CHUNK).is_none());
    }
}
