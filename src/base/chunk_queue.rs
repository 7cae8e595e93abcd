//! The output of one connection: bytes in, at the back; bytes out, at the front, in chunks that never move.
//!
//! Replies are appended to the last chunk; one that has reached [`CHUNK_BYTES`] is sealed, and the next reply
//! begins another. So a long queue is neither copied when it grows nor moved when its front is sent, and what
//! was sent is freed chunk by chunk. Shared bytes are a chunk of their own, and are never copied.
//!
//! Chunks are filled in the heap. [`ChunkQueue::move_to_maps`] is for those that stay: the allocator returns only the
//! end of its heap to the system, so one small allocation there would keep all memory before it.

use super::buffer::{Mapped, Pool, SMALL_MAX};
use super::shared_bytes::SharedBytes;
use std::collections::VecDeque;

/// Bytes from which on a chunk is sealed. With one reply more it still fits the pool.
pub const CHUNK_BYTES: usize = 32 * 1024;

/// Bytes that are moved to maps at a time: about 0.1 ms, most of it for the memory of the maps.
const MOVED_BYTES: usize = 256 * 1024;

/// Bytes below which a chunk is copied to the last one, so that a write finds few chunks.
const COPIED_BYTES_MAX: usize = 4 * 1024;

#[derive(Debug)]
enum Chunk {
    Owned(Vec<u8>),
    Mapped(Mapped),
    Shared(SharedBytes),
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Mapped(bytes) => bytes.as_slice(),
            Self::Shared(bytes) => bytes.as_slice(),
        }
    }

    /// Bytes of memory. Shared ones have an account of their own.
    fn held(&self) -> usize {
        match self {
            Self::Owned(bytes) => bytes.capacity(),
            Self::Mapped(bytes) => bytes.held(),
            Self::Shared(_) => 0,
        }
    }

    /// Bytes of memory in the heap.
    fn in_heap(&self) -> usize {
        match self {
            Self::Owned(bytes) => bytes.capacity(),
            Self::Mapped(_) | Self::Shared(_) => 0,
        }
    }
}

/// Chunks before the last one.
#[derive(Debug, Default)]
struct Sealed {
    chunks: VecDeque<Chunk>,
    /// Bytes in `chunks`, sent ones of the first included.
    bytes: usize,
    /// Bytes of memory of `chunks`.
    held: usize,
    /// Those of them in the heap.
    in_heap: usize,
    /// Chunks at the front that [`ChunkQueue::move_to_maps`] need not examine again: in maps, small or shared.
    settled: usize,
}

impl Sealed {
    /// Bytes of memory, with those of the list.
    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.held + self.chunks.capacity() * size_of::<Chunk>()
    }

    fn insert(&mut self, at: usize, chunk: Chunk) {
        self.bytes += chunk.as_slice().len();
        self.held += chunk.held();
        self.in_heap += chunk.in_heap();
        self.chunks.insert(at, chunk);
    }

    fn remove(&mut self, at: usize) -> Option<Chunk> {
        let chunk = self.chunks.remove(at)?;
        self.bytes -= chunk.as_slice().len();
        self.held -= chunk.held();
        self.in_heap -= chunk.in_heap();
        Some(chunk)
    }

    /// Moves the first chunk that is not settled to a map, from its byte `start` on, unless it is small; returns the
    /// bytes moved.
    fn settle(&mut self, start: usize, pool: &mut Pool) -> usize {
        let mut bytes = match self.remove(self.settled) {
            Some(Chunk::Owned(bytes)) => bytes,
            Some(chunk @ (Chunk::Mapped(_) | Chunk::Shared(_))) => {
                self.insert(self.settled, chunk);
                self.settled += 1;
                return 0;
            }
            None => return 0,
        };
        let mut rest = &bytes[start..];
        rest = &rest[self.append_to_settled(rest)..];
        while rest.len() > SMALL_MAX
            && let Ok(map) = pool.map(rest.len())
        {
            self.insert(self.settled, Chunk::Mapped(map));
            self.settled += 1;
            rest = &rest[self.append_to_settled(rest)..];
        }
        let (left, moved) = (rest.len(), bytes.len() - start);
        if left == 0 {
            pool.give(bytes);
        } else {
            bytes.drain(..bytes.len() - left);
            if left <= SMALL_MAX {
                bytes.shrink_to_fit();
            }
            self.insert(self.settled, Chunk::Owned(bytes));
            self.settled += 1;
        }
        moved
    }

    /// Appends as many bytes as fit to the last settled chunk, if it is in a map; returns their number.
    fn append_to_settled(&mut self, bytes: &[u8]) -> usize {
        let last = self.settled.checked_sub(1).and_then(|at| self.chunks.get_mut(at));
        let Some(Chunk::Mapped(map)) = last else { return 0 };
        let held = map.held();
        let count = map.append(bytes);
        self.bytes += count;
        self.held += map.held() - held;
        count
    }
}

/// A queue of bytes; see the module. Holds no memory while empty.
#[derive(Debug, Default)]
pub struct ChunkQueue {
    last: Vec<u8>,
    /// Boxed, since most connections never have more than one chunk.
    sealed: Option<Box<Sealed>>,
    /// Bytes of the first chunk that were sent.
    start: usize,
}

impl ChunkQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        Self { last: Vec::new(), sealed: None, start: 0 }
    }

    /// The number of unsent bytes. O(1).
    pub fn len(&self) -> usize {
        self.sealed.as_ref().map_or(0, |sealed| sealed.bytes) + self.last.len() - self.start
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held, in use or not, without shared ones. O(1).
    pub fn held(&self) -> usize {
        self.sealed.as_ref().map_or(0, |sealed| sealed.memory_bytes()) + self.last.capacity()
    }

    /// All unsent bytes, if they are in one chunk.
    #[inline]
    pub fn single(&self) -> Option<&[u8]> {
        if self.sealed.is_none() { self.last.get(self.start..) } else { None }
    }

    /// Bytes of memory in the heap. O(1).
    pub fn in_heap(&self) -> usize {
        self.sealed.as_ref().map_or(0, |sealed| sealed.in_heap) + self.last.capacity()
    }

    /// The unsent bytes of the first chunk; empty only if the queue is.
    pub fn front(&self) -> &[u8] {
        self.slices().next().unwrap_or_default()
    }

    /// The unsent bytes, chunk by chunk.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let sealed = self.sealed.iter().flat_map(|sealed| &sealed.chunks).map(Chunk::as_slice);
        let chunks = sealed.chain(std::iter::once(&self.last[..])).enumerate();
        chunks.map(|(at, chunk)| if at == 0 { &chunk[self.start..] } else { chunk })
    }

    /// The chunk to which bytes are appended, after those that it holds.
    #[inline]
    pub fn back(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        if self.last.len() >= CHUNK_BYTES {
            self.seal();
        }
        if self.last.capacity() == 0 {
            self.last = pool.take();
        }
        &mut self.last
    }

    /// Puts back the chunk of [`ChunkQueue::back`], which was taken out to be appended to; no other call may come in
    /// between. An empty chunk goes to the pool.
    #[inline(always)]
    pub fn put_back(&mut self, chunk: &mut Vec<u8>, pool: &mut Pool) {
        if chunk.is_empty() {
            pool.give(std::mem::take(chunk));
        } else {
            std::mem::swap(&mut self.last, chunk);
        }
    }

    /// Appends a chunk without copying it, unless it is small.
    pub fn push_chunk(&mut self, chunk: Vec<u8>, pool: &mut Pool) {
        if chunk.len() < COPIED_BYTES_MAX {
            self.back(pool).extend_from_slice(&chunk);
            return pool.give(chunk);
        }
        if !self.last.is_empty() {
            self.seal();
        }
        pool.give(std::mem::replace(&mut self.last, chunk));
    }

    /// Appends shared bytes as a chunk.
    pub fn push_shared(&mut self, bytes: SharedBytes, pool: &mut Pool) {
        if bytes.is_empty() {
            return;
        }
        if self.last.is_empty() {
            pool.give(std::mem::take(&mut self.last));
        } else {
            self.seal();
        }
        self.push_sealed(Chunk::Shared(bytes));
    }

    fn seal(&mut self) {
        let chunk = std::mem::take(&mut self.last);
        self.push_sealed(Chunk::Owned(chunk));
    }

    /// Moves chunks to maps, which return to the system as soon as they are sent, and small ones to memory of their
    /// size. At most 256 KiB per call, from the front, and at least one chunk; each is examined once. Without memory for
    /// maps the chunks stay.
    #[inline(never)]
    pub fn move_to_maps(&mut self, pool: &mut Pool) {
        if self.last.len() > SMALL_MAX || self.sealed.is_some() && !self.last.is_empty() {
            self.seal();
        } else if self.last.capacity() > SMALL_MAX {
            let small = self.last.clone();
            pool.give(std::mem::replace(&mut self.last, small));
        }
        let Some(sealed) = &mut self.sealed else { return };
        let mut moved = 0;
        while moved < MOVED_BYTES && sealed.settled < sealed.chunks.len() {
            // Only owned bytes lose those that were sent.
            let is_partly_sent =
                sealed.settled == 0 && matches!(sealed.chunks.front(), Some(Chunk::Owned(_)));
            let start = if is_partly_sent { std::mem::take(&mut self.start) } else { 0 };
            moved += sealed.settle(start, pool);
        }
    }

    fn push_sealed(&mut self, chunk: Chunk) {
        let sealed = self.sealed.get_or_insert_default();
        sealed.insert(sealed.chunks.len(), chunk);
    }

    /// Removes `count` bytes at the front, all if there are fewer. O(chunks freed).
    pub fn consume(&mut self, count: usize, pool: &mut Pool) {
        self.start += count.min(self.len());
        if self.sealed.is_some() {
            self.free_sent(pool);
        }
        if self.start == self.last.len() && self.sealed.is_none() {
            pool.give(std::mem::take(&mut self.last));
            self.start = 0;
        }
    }

    /// Frees the sealed chunks that are sent.
    #[inline(never)]
    fn free_sent(&mut self, pool: &mut Pool) {
        let Some(sealed) = &mut self.sealed else { return };
        while let Some(first) = sealed.chunks.front() {
            if self.start < first.as_slice().len() {
                return;
            }
            self.start -= first.as_slice().len();
            sealed.settled = sealed.settled.saturating_sub(1);
            match sealed.remove(0) {
                Some(Chunk::Owned(bytes)) => pool.give(bytes),
                Some(Chunk::Mapped(bytes)) => pool.give_mapped(bytes),
                Some(Chunk::Shared(_)) | None => {}
            }
        }
        self.sealed = None;
    }

    /// Moves `count` bytes, all if there are fewer, from the front to the end of another queue. Shared bytes are not
    /// copied.
    pub fn move_front(&mut self, count: usize, to: &mut Self, pool: &mut Pool) {
        let mut left = count.min(self.len());
        while left > 0 {
            let moved = left.min(self.front().len());
            match self.sealed.as_ref().and_then(|sealed| sealed.chunks.front()) {
                Some(Chunk::Shared(bytes)) => {
                    to.push_shared(bytes.clone().slice(self.start..self.start + moved), pool);
                }
                Some(Chunk::Owned(_) | Chunk::Mapped(_)) | None => {
                    to.back(pool).extend_from_slice(&self.front()[..moved]);
                }
            }
            self.consume(moved, pool);
            left -= moved;
        }
    }

    /// Drops all bytes and returns the memory to the pool.
    pub fn release(&mut self, pool: &mut Pool) {
        self.consume(self.len(), pool);
        pool.give(std::mem::take(&mut self.last));
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_BYTES, ChunkQueue, MOVED_BYTES, SMALL_MAX};
    use crate::base::buffer::Pool;
    use crate::base::rng::Rng;
    use std::collections::VecDeque;

    #[test]
    fn bytes_that_were_sent_of_a_shared_chunk_are_not_sent_again_after_a_move_to_maps() {
        let mut pool = Pool::new(4, 64 * 1024);
        let mut queue = ChunkQueue::new();
        queue.push_shared(pool.shared().share(b"0123456789".to_vec()), &mut pool);
        queue.consume(4, &mut pool);
        queue.move_to_maps(&mut pool);
        assert_eq!(queue.slices().flatten().copied().collect::<Vec<u8>>(), b"456789");
        assert_eq!(queue.len(), 6);
    }

    #[test]
    fn bytes_come_out_as_they_went_in_whatever_the_sizes() {
        let mut rng = Rng::new(1);
        let mut pool = Pool::new(4, 64 * 1024);
        let (mut queue, mut model) = (ChunkQueue::new(), VecDeque::new());
        let draw = |rng: &mut Rng, most: u64| usize::try_from(rng.below(most)).unwrap();
        for step in 0..20_000u32 {
            let grows = (step / 500) % 2 == 0;
            let size = if rng.one_in(100) { 100_000 } else { 3_000 };
            if rng.one_in(2) == grows {
                let bytes = vec![step.to_le_bytes()[0]; draw(&mut rng, size)];
                model.extend(&bytes);
                match step % 3 {
                    0 => queue.push_chunk(bytes, &mut pool),
                    1 => queue.push_shared(pool.shared().share(bytes), &mut pool),
                    _ => queue.back(&mut pool).extend_from_slice(&bytes),
                }
            } else if rng.one_in(10) {
                let bytes = queue.len();
                queue.move_to_maps(&mut pool);
                assert!(
                    bytes > MOVED_BYTES
                        || queue.in_heap()
                            <= queue.sealed.as_ref().map_or(1, |sealed| sealed.chunks.len()) * SMALL_MAX,
                    "{}",
                    queue.in_heap()
                );
            } else if rng.one_in(10) {
                let (mut moved, count) = (ChunkQueue::new(), draw(&mut rng, size));
                queue.move_front(count, &mut moved, &mut pool);
                assert_eq!(moved.len(), count.min(model.len()));
                assert!(moved.slices().flatten().eq(model.range(..moved.len())));
                model.drain(..moved.len());
                moved.release(&mut pool);
            } else {
                let count = draw(&mut rng, size).min(queue.front().len());
                assert!(queue.front()[..count].iter().eq(model.range(..count)));
                queue.consume(count, &mut pool);
                model.drain(..count);
            }
            assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
            assert_eq!(queue.front().is_empty(), queue.is_empty());
            let held = queue.held() + pool.shared().bytes();
            assert!(held >= queue.len() && queue.held() >= queue.in_heap());
        }
        queue.release(&mut pool);
        assert_eq!((queue.len(), queue.held(), pool.shared().bytes()), (0, 0, 0));
    }

    #[test]
    fn sent_chunks_of_a_long_queue_are_freed() {
        let mut pool = Pool::new(1, 64 * 1024);
        let mut queue = ChunkQueue::new();
        for _ in 0..100 {
            queue.back(&mut pool).extend_from_slice(&[0; CHUNK_BYTES]);
        }
        queue.consume(99 * CHUNK_BYTES, &mut pool);
        assert!(queue.held() <= 2 * CHUNK_BYTES, "{}", queue.held());
    }
}
