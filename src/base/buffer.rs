//! A queue of bytes for one direction of one connection, and the pool that its memory comes from.
//!
//! A connection that has nothing to send and nothing half received holds no buffer at all: emptied
//! buffers go back to the pool, which keeps a few and frees the rest. Not a ring: the front is only
//! moved when less than half of the buffer is in use, so the bytes are always one slice.

/// Bytes in, at the back; bytes out, at the front.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// An empty one; holds no memory.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), start: 0 }
    }

    /// The bytes that wait.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held, whether in use or not.
    pub fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// The vector that bytes are appended to. What it held on entry stays in front of what is added.
    pub fn back(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take();
        }
        &mut self.bytes
    }

    /// Takes `count` bytes off the front, all if there are fewer. The memory goes back to the pool with
    /// the last byte. Amortised O(1) a byte.
    pub fn consume(&mut self, count: usize, pool: &mut Pool) {
        self.start = self.bytes.len().min(self.start.saturating_add(count));
        if self.is_empty() {
            self.release(pool);
        } else if self.start >= self.bytes.len() / 2 && self.start >= 4_096 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Drops what waits and gives the memory back.
    pub fn release(&mut self, pool: &mut Pool) {
        pool.give(std::mem::take(&mut self.bytes));
        self.start = 0;
    }
}

/// Emptied buffers, kept for the next connection that needs one.
#[derive(Debug)]
pub struct Pool {
    free: Vec<Vec<u8>>,
    held: usize,
    count_max: usize,
    bytes_max: usize,
}

impl Pool {
    /// A pool that keeps at most `count_max` buffers of at most `bytes_max` bytes each.
    pub const fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { free: Vec::new(), held: 0, count_max, bytes_max }
    }

    /// An empty vector, with memory from an earlier use if there is one.
    pub fn take(&mut self) -> Vec<u8> {
        let Some(bytes) = self.free.pop() else { return Vec::with_capacity(512) };
        self.held -= bytes.capacity();
        bytes
    }

    /// Takes a vector back; frees it when it is too large or the pool is full.
    pub fn give(&mut self, mut bytes: Vec<u8>) {
        let kept = 1..=self.bytes_max;
        if self.free.len() < self.count_max && kept.contains(&bytes.capacity()) {
            bytes.clear();
            self.held += bytes.capacity();
            self.free.push(bytes);
        }
    }

    /// Bytes of memory held for later use. At most `count_max` × `bytes_max`.
    pub const fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, Pool};

    #[test]
    fn emptied_buffer_holds_no_memory() {
        let mut pool = Pool::new(4, 1_024);
        let mut buffer = Buffer::new();
        buffer.back(&mut pool).extend_from_slice(b"hello");
        buffer.consume(2, &mut pool);
        assert_eq!(buffer.as_slice(), b"llo");
        buffer.consume(9, &mut pool);
        assert!(buffer.is_empty());
        assert_eq!(buffer.held(), 0);
        assert!(pool.held() >= 5);
    }

    #[test]
    fn large_buffer_is_freed_not_pooled() {
        let mut pool = Pool::new(4, 1_024);
        pool.give(Vec::with_capacity(1_025));
        assert_eq!(pool.held(), 0);
        for _ in 0..9 {
            pool.give(Vec::with_capacity(1_000));
        }
        assert_eq!(pool.held(), 4_000);
    }

    #[test]
    fn long_queue_does_not_keep_what_was_consumed() {
        let mut pool = Pool::new(1, 1_024);
        let mut buffer = Buffer::new();
        for round in 0..1_000u32 {
            buffer.back(&mut pool).extend_from_slice(&[u8::try_from(round % 251).unwrap(); 1_000]);
            if round > 0 {
                buffer.consume(1_000, &mut pool);
            }
        }
        assert_eq!(buffer.as_slice(), &[u8::try_from(999 % 251).unwrap(); 1_000]);
        assert!(buffer.held() < 64 * 1_024, "{}", buffer.held());
    }
}
