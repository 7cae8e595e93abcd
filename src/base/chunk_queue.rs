//! The output of one connection: bytes in, at the back; bytes out, at the front, in chunks that never move.
//!
//! Replies are appended to the last chunk; one that has reached [`CHUNK_BYTES`] is sealed, and the next reply
//! begins another. So a long queue is neither copied when it grows nor moved when its front is sent, and what
//! was sent is freed chunk by chunk. Shared bytes are a chunk of their own, and are never copied.

use super::buffer::{Mapped, Pool};
use super::shared_bytes::SharedBytes;
use std::collections::VecDeque;

/// Bytes from which on a chunk is sealed. With one reply more it still fits the pool.
pub const CHUNK_BYTES: usize = 32 * 1024;

/// Bytes of a chunk above which it gets a map of its own while it waits for its socket.
const LARGE_BYTES: usize = 16 * 1024;

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

    /// Bytes of memory. Shared ones count in full for each queue that they are in.
    fn held(&self) -> usize {
        match self {
            Self::Owned(bytes) => bytes.capacity(),
            Self::Mapped(bytes) => bytes.held(),
            Self::Shared(bytes) => bytes.len(),
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
    /// Chunks at the front that [`ChunkQueue::move_to_maps`] need not examine again: in maps, small or shared.
    settled: usize,
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

    /// Bytes of memory held, in use or not. O(1).
    pub fn held(&self) -> usize {
        self.sealed.as_ref().map_or(0, |sealed| sealed.held) + self.last.capacity()
    }

    /// All unsent bytes, if they are in one chunk.
    #[inline]
    pub fn single(&self) -> Option<&[u8]> {
        if self.sealed.is_none() { self.last.get(self.start..) } else { None }
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
    /// between. An empty chunk is freed if it is large.
    #[inline]
    pub fn put_back(&mut self, chunk: Vec<u8>) {
        self.last = if chunk.is_empty() && chunk.capacity() > 2 * CHUNK_BYTES { Vec::new() } else { chunk };
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

    /// Appends a piece of a long output: in a map, unless it is small.
    pub fn push_piece(&mut self, piece: Vec<u8>, pool: &mut Pool) {
        if piece.len() <= LARGE_BYTES {
            return self.push_chunk(piece, pool);
        }
        if !self.last.is_empty() {
            self.seal();
        }
        self.push_sealed(pool.move_to_map(piece).map_or_else(Chunk::Owned, Chunk::Mapped));
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

    /// Moves large chunks to maps of their own, which are returned to the system as soon as they are sent: for a queue
    /// that waits for its socket. At most 256 KiB per call, from the front, and at least one chunk; each is examined
    /// once. Without memory for maps the chunks stay.
    pub fn move_to_maps(&mut self, pool: &mut Pool) {
        if self.last.len() > LARGE_BYTES {
            self.seal();
        }
        let Some(sealed) = &mut self.sealed else { return };
        let mut moved = 0;
        while moved < MOVED_BYTES
            && let Some(chunk) = sealed.chunks.get_mut(sealed.settled)
        {
            sealed.settled += 1;
            if let Chunk::Owned(bytes) = chunk
                && bytes.len() > LARGE_BYTES
            {
                moved += bytes.len();
                sealed.held -= bytes.capacity();
                *chunk = pool.move_to_map(std::mem::take(bytes)).map_or_else(Chunk::Owned, Chunk::Mapped);
                sealed.held += chunk.held();
            }
        }
    }

    fn push_sealed(&mut self, chunk: Chunk) {
        let sealed = self.sealed.get_or_insert_default();
        sealed.bytes += chunk.as_slice().len();
        sealed.held += chunk.held();
        sealed.chunks.push_back(chunk);
    }

    /// Removes `count` bytes at the front, all if there are fewer. O(chunks freed).
    pub fn consume(&mut self, count: usize, pool: &mut Pool) {
        self.start += count.min(self.len());
        while let Some(sealed) = &mut self.sealed {
            match sealed.chunks.front() {
                Some(first) if self.start < first.as_slice().len() => return,
                Some(first) => {
                    let bytes = first.as_slice().len();
                    self.start -= bytes;
                    sealed.bytes -= bytes;
                    sealed.held -= first.held();
                    sealed.settled = sealed.settled.saturating_sub(1);
                    match sealed.chunks.pop_front() {
                        Some(Chunk::Owned(bytes)) => pool.give(bytes),
                        Some(Chunk::Mapped(bytes)) => pool.give_mapped(bytes),
                        Some(Chunk::Shared(_)) | None => {}
                    }
                }
                None => self.sealed = None,
            }
        }
        if self.start == self.last.len() {
            pool.give(std::mem::take(&mut self.last));
            self.start = 0;
        }
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
    use super::{CHUNK_BYTES, ChunkQueue};
    use crate::base::buffer::Pool;
    use crate::base::rng::Rng;
    use std::collections::VecDeque;

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
                match step % 4 {
                    0 => queue.push_chunk(bytes, &mut pool),
                    1 => queue.push_shared(bytes.into(), &mut pool),
                    2 => queue.push_piece(bytes, &mut pool),
                    _ => queue.back(&mut pool).extend_from_slice(&bytes),
                }
            } else if rng.one_in(10) {
                queue.move_to_maps(&mut pool);
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
            assert!(queue.held() >= queue.len());
        }
        queue.release(&mut pool);
        assert_eq!((queue.len(), queue.held()), (0, 0));
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
