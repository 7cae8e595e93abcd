//! A queue of bytes for one direction of one connection, and the pool that its memory comes from.
//!
//! A connection that has nothing to send and nothing half received holds no buffer at all: emptied
//! buffers go back to the pool, which keeps a few and frees the rest. Not a ring: the front is only
//! moved when less than half of the buffer is in use, so the bytes are always one slice.
//!
//! All but the smallest buffers have memory maps of their own, since the allocator of the process returns only the end
//! of its heap to the system, and kept 40 to 270 MiB of buffers of connections that were closed.

use super::memory::{self, SYSTEM_PAGE_BYTES};
use super::shared_bytes::{Account, SharedBytes, SharedMemory};
use std::fmt;
use std::rc::Rc;

/// Bytes above which a buffer has a map of its own: ten thousand smaller ones take 5 MiB of the heap.
pub const SMALL_MAX: usize = 512;

/// Bytes of the maps that the pool keeps.
const MAP_BYTES: usize = 64 * 1024;

/// Bytes that the pool keeps while no buffer is in use.
const IDLE_BYTES_MAX: usize = 256 * 1024;

/// Maximum bytes that the pool keeps in addition to maps.
const POOL_BYTES_MAX: usize = 2 << 20;

/// The system has no memory for a buffer. Displays as a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system has no memory for this request")
    }
}

/// Bytes in a map of their own.
#[derive(Debug)]
pub struct Mapped {
    /// Nothing is written to it while it is shared.
    map: Rc<SharedMemory>,
    len: usize,
    /// The most bytes that it ever had: these are resident.
    touched: usize,
}

impl Mapped {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.map[..self.len]
    }

    /// Bytes of memory that are resident.
    pub const fn held(&self) -> usize {
        self.touched.next_multiple_of(SYSTEM_PAGE_BYTES)
    }

    /// The number of bytes that can be appended.
    fn free(&self) -> usize {
        if Rc::strong_count(&self.map) > 1 { 0 } else { self.map.len() - self.len }
    }

    /// The memory for bytes to be appended.
    fn room(&mut self) -> &mut [u8] {
        let len = self.len;
        Rc::get_mut(&mut self.map).map_or(&mut [], |map| &mut map[len..])
    }

    /// Counts bytes that were written to the front of [`Mapped::room`].
    fn filled(&mut self, count: usize) {
        self.len = self.map.len().min(self.len + count);
        self.touched = self.touched.max(self.len);
    }

    /// Appends as many of the bytes as there is room for; returns their number.
    pub(super) fn append(&mut self, bytes: &[u8]) -> usize {
        let room = self.room();
        let count = bytes.len().min(room.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.filled(count);
        count
    }

    /// Drops bytes at the front; false if the memory is shared.
    fn drop_front(&mut self, count: usize) -> bool {
        let Some(map) = Rc::get_mut(&mut self.map) else { return false };
        map.copy_within(count..self.len, 0);
        self.len -= count;
        true
    }
}

#[derive(Debug)]
enum Bytes {
    Small(Vec<u8>),
    Mapped(Mapped),
}

/// Bytes in, at the back; bytes out, at the front.
#[derive(Debug)]
pub struct Buffer {
    bytes: Bytes,
    start: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Buffer {
    /// An empty one; holds no memory.
    pub const fn new() -> Self {
        Self { bytes: Bytes::Small(Vec::new()), start: 0 }
    }

    fn all(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Small(bytes) => bytes,
            Bytes::Mapped(bytes) => bytes.as_slice(),
        }
    }

    /// The bytes in the queue.
    pub fn as_slice(&self) -> &[u8] {
        &self.all()[self.start..]
    }

    /// The number of bytes in the queue.
    pub fn len(&self) -> usize {
        self.all().len() - self.start
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held, whether in use or not.
    pub const fn held(&self) -> usize {
        match &self.bytes {
            Bytes::Small(bytes) => bytes.capacity(),
            Bytes::Mapped(bytes) => bytes.held(),
        }
    }

    /// Appends bytes. `expected`: the bytes that the queue will hold before any is consumed, as far as that is known;
    /// large input is then copied only once.
    ///
    /// # Errors
    /// [`OutOfMemory`] if the system has no memory; nothing is changed then.
    pub fn append(&mut self, more: &[u8], expected: usize, pool: &mut Pool) -> Result<(), OutOfMemory> {
        self.reserve(more.len(), expected, pool)?;
        match &mut self.bytes {
            Bytes::Small(bytes) => bytes.extend_from_slice(more),
            Bytes::Mapped(bytes) => _ = bytes.append(more),
        }
        Ok(())
    }

    /// Makes room for `more` bytes; `expected` as in [`Buffer::append`].
    ///
    /// # Errors
    /// The same.
    pub fn reserve(&mut self, more: usize, expected: usize, pool: &mut Pool) -> Result<(), OutOfMemory> {
        let needed = self.len() + more;
        match &mut self.bytes {
            Bytes::Small(bytes) if bytes.len() + more <= SMALL_MAX && expected <= SMALL_MAX => {
                return bytes.try_reserve(more).map_err(|_| OutOfMemory);
            }
            Bytes::Mapped(bytes) if bytes.free() >= more => return Ok(()),
            Bytes::Small(_) | Bytes::Mapped(_) => {}
        }
        // A buffer gets no more than it is expected to need at first, since the store may keep its map as a value.
        let is_begun = self.len() <= MAP_BYTES && needed <= expected;
        let room = if is_begun || needed <= MAP_BYTES { needed } else { 2 * needed };
        let grown = pool.map(room.max(expected))?;
        self.move_to(grown, pool);
        Ok(())
    }

    /// Moves the bytes into `map`, which was in use before, and continues there.
    pub fn continue_in(&mut self, map: Rc<SharedMemory>, pool: &mut Pool) {
        let touched = map.len();
        self.move_to(Mapped { map, len: 0, touched }, pool);
    }

    fn move_to(&mut self, mut mapped: Mapped, pool: &mut Pool) {
        if mapped.append(self.as_slice()) == self.len() {
            self.release(pool);
            self.bytes = Bytes::Mapped(mapped);
        }
    }

    /// Whether the bytes are few and in no map.
    pub const fn is_small(&self) -> bool {
        matches!(self.bytes, Bytes::Small(_))
    }

    /// The memory for further bytes, if they are in a map; else empty.
    pub fn room(&mut self) -> &mut [u8] {
        match &mut self.bytes {
            Bytes::Small(_) => &mut [],
            Bytes::Mapped(bytes) => bytes.room(),
        }
    }

    /// Counts bytes that were written to the front of [`Buffer::room`].
    pub fn filled(&mut self, count: usize) {
        if let Bytes::Mapped(bytes) = &mut self.bytes {
            bytes.filled(count);
        }
    }

    /// The map that holds the bytes, if there is one; nothing is written to it while it is shared.
    pub fn map(&self) -> Option<Rc<SharedMemory>> {
        match &self.bytes {
            Bytes::Small(_) => None,
            Bytes::Mapped(bytes) => Some(Rc::clone(&bytes.map)),
        }
    }

    /// Removes `count` bytes at the front, all if there are fewer. The memory is returned to the pool with the last
    /// byte. Amortised O(1) per byte.
    pub fn consume(&mut self, count: usize, pool: &mut Pool) {
        self.start = self.all().len().min(self.start.saturating_add(count));
        if self.is_empty() {
            self.release(pool);
        } else if self.start >= self.len() && self.start >= 4_096 {
            let is_dropped = match &mut self.bytes {
                Bytes::Small(bytes) => bytes.drain(..self.start).len() > 0,
                Bytes::Mapped(bytes) => bytes.drop_front(self.start),
            };
            self.start = if is_dropped { 0 } else { self.start };
        }
    }

    /// Drops all bytes and returns the memory to the pool.
    pub fn release(&mut self, pool: &mut Pool) {
        self.start = 0;
        if let Bytes::Mapped(bytes) = std::mem::replace(&mut self.bytes, Bytes::Small(Vec::new())) {
            pool.give_mapped(bytes);
        }
    }
}

/// Emptied buffers, kept for the next connection that needs one.
#[derive(Debug)]
pub struct Pool {
    free: Vec<Vec<u8>>,
    /// All of [`MAP_BYTES`].
    maps: Vec<Rc<SharedMemory>>,
    held: usize,
    count_max: usize,
    bytes_max: usize,
    shared: Account,
}

impl Pool {
    /// A pool that keeps at most `count_max` buffers of at most `bytes_max` bytes each, and as many maps.
    pub fn new(count_max: usize, bytes_max: usize) -> Self {
        let shared = Account::default();
        Self { free: Vec::new(), maps: Vec::new(), held: 0, count_max, bytes_max, shared }
    }

    /// Counts memory that is shared in this account.
    pub fn counting_in(self, shared: &Account) -> Self {
        Self { shared: shared.clone(), ..self }
    }

    /// The account of memory that is shared.
    pub const fn shared(&self) -> &Account {
        &self.shared
    }

    /// An empty vector, with memory from an earlier use if there is one.
    pub fn take(&mut self) -> Vec<u8> {
        let Some(bytes) = self.free.pop() else { return Vec::with_capacity(SMALL_MAX) };
        self.held -= bytes.capacity();
        bytes
    }

    /// Takes a vector back; frees it when it is too large or the pool is full.
    pub fn give(&mut self, mut bytes: Vec<u8>) {
        let room = POOL_BYTES_MAX.saturating_sub(self.held - self.maps.len() * MAP_BYTES);
        let kept = 1..=self.bytes_max.min(room);
        if self.free.len() < self.count_max && kept.contains(&bytes.capacity()) {
            bytes.clear();
            self.held += bytes.capacity();
            self.free.push(bytes);
        }
    }

    /// An empty map with room for `bytes`.
    ///
    /// # Errors
    /// [`OutOfMemory`] if the system has no memory.
    pub(super) fn map(&mut self, bytes: usize) -> Result<Mapped, OutOfMemory> {
        let pooled = if bytes <= MAP_BYTES { self.maps.pop() } else { None };
        self.held -= pooled.as_ref().map_or(0, |map| map.len());
        // The memory of a pooled map is resident.
        let touched = pooled.as_ref().map_or(0, |map| map.len());
        let map = match pooled {
            Some(map) => map,
            None => {
                let unit = if bytes <= MAP_BYTES { MAP_BYTES } else { SYSTEM_PAGE_BYTES };
                let map = memory::map(bytes.max(1).next_multiple_of(unit)).ok_or(OutOfMemory)?;
                Rc::new(SharedMemory::from(map))
            }
        };
        Ok(Mapped { map, len: 0, touched })
    }

    /// Copies bytes into a map that can be shared, and is returned to the system with its last owner; `None` if the
    /// system has no memory for it.
    pub fn share(&mut self, bytes: &[u8]) -> Option<SharedBytes> {
        let mut mapped = self.map(bytes.len()).ok()?;
        mapped.append(bytes);
        mapped.map.enter(&self.shared);
        mapped.map.count(mapped.held());
        Some(SharedBytes::new(mapped.map, 0..bytes.len()))
    }

    /// Takes a map back; returns it to the system when it is large or the pool is full.
    pub fn give_mapped(&mut self, bytes: Mapped) {
        let is_shared = Rc::strong_count(&bytes.map) > 1;
        if self.maps.len() < self.count_max && bytes.map.len() == MAP_BYTES && !is_shared {
            bytes.map.count(0);
            self.held += MAP_BYTES;
            self.maps.push(bytes.map);
        }
    }

    /// Whether more memory is held than is kept while no buffer is in use.
    pub const fn holds_much(&self) -> bool {
        self.held > IDLE_BYTES_MAX
    }

    /// Frees all memory held.
    pub fn clear(&mut self) {
        (self.free, self.maps, self.held) = (Vec::new(), Vec::new(), 0);
    }

    /// Bytes of memory held for later use: at most 2 MiB and `count_max` × 64 KiB.
    pub const fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, Pool};
    use crate::base::rng::Rng;

    #[test]
    fn emptied_buffer_holds_no_memory() {
        let mut pool = Pool::new(4, 1_024);
        let mut buffer = Buffer::new();
        buffer.append(b"hello", 0, &mut pool).unwrap();
        buffer.consume(2, &mut pool);
        assert_eq!(buffer.as_slice(), b"llo");
        buffer.consume(9, &mut pool);
        assert!(buffer.is_empty());
        assert_eq!((buffer.held(), pool.held()), (0, 0));
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
    fn bytes_come_out_as_they_went_in_and_large_memory_goes_back() {
        let mut rng = Rng::new(1);
        let mut pool = Pool::new(2, 1_024);
        let (mut buffer, mut model) = (Buffer::new(), Vec::new());
        let draw = |rng: &mut Rng, most: u64| usize::try_from(rng.below(most)).unwrap();
        for step in 0..3_000u32 {
            if (step / 100) % 2 == 0 || buffer.is_empty() {
                let bytes = vec![step.to_le_bytes()[0]; draw(&mut rng, 9_000)];
                let expected = if rng.one_in(50) { 1 << 20 } else { 0 };
                buffer.append(&bytes, expected, &mut pool).unwrap();
                model.extend(bytes);
            } else {
                let count = draw(&mut rng, 12_000).min(buffer.len());
                buffer.consume(count, &mut pool);
                model.drain(..count);
            }
            assert!(buffer.as_slice() == model, "step {step}");
            assert!((buffer.len()..2 << 20).contains(&buffer.held()));
        }
        buffer.release(&mut pool);
        assert_eq!(buffer.held(), 0);
        assert!(pool.held() <= 2 * (1_024 + 64 * 1_024));
    }

    #[test]
    fn long_queue_does_not_keep_what_was_consumed() {
        let mut pool = Pool::new(1, 1_024);
        let mut buffer = Buffer::new();
        for round in 0..1_000u32 {
            buffer.append(&[u8::try_from(round % 251).unwrap(); 1_000], 0, &mut pool).unwrap();
            if round > 0 {
                buffer.consume(1_000, &mut pool);
            }
        }
        assert_eq!(buffer.as_slice(), &[u8::try_from(999 % 251).unwrap(); 1_000]);
        assert!(buffer.held() < 64 * 1_024, "{}", buffer.held());
    }
}
