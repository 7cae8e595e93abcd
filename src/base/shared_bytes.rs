//! Memory that several owners share, such as a large value that is sent to several connections: none copies it, and it
//! counts once.
//!
//! A value counts among the memory of its store. When the store drops it, and all other memory from the beginning, it
//! counts in an [`Account`] until its last owner drops it.

use memmap2::MmapMut;
use std::cell::{Cell, OnceCell};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::rc::Rc;

/// The bytes of shared memory that no store has.
#[derive(Debug, Clone, Default)]
pub struct Account(Rc<Cell<usize>>);

impl Account {
    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.0.get()
    }

    /// Shares bytes, which count from here on.
    pub fn share(&self, bytes: Vec<u8>) -> SharedBytes {
        let (len, held) = (bytes.len(), size_of::<SharedMemory>() + bytes.capacity());
        let memory = SharedMemory::from(bytes);
        memory.enter(self);
        memory.count(held);
        SharedBytes::new(Rc::new(memory), 0..len)
    }
}

/// Memory that can be shared; nothing is written to it while it is.
#[derive(Debug)]
pub struct SharedMemory {
    bytes: Bytes,
    account: OnceCell<Account>,
    /// Bytes that count in the account.
    counted: Cell<usize>,
}

#[derive(Debug)]
enum Bytes {
    Map(MmapMut),
    Heap(Vec<u8>),
}

impl SharedMemory {
    /// Whether it is a map.
    pub const fn is_map(&self) -> bool {
        matches!(self.bytes, Bytes::Map(_))
    }

    /// Sets the account in which [`SharedMemory::count`] counts it.
    pub fn enter(&self, account: &Account) {
        self.account.get_or_init(|| account.clone());
    }

    /// Counts `bytes` bytes in its account until it is dropped; without an account nothing.
    pub fn count(&self, bytes: usize) {
        if let Some(account) = self.account.get() {
            let before = self.counted.replace(bytes);
            account.0.set(account.0.get() - before + bytes);
        }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        self.count(0);
    }
}

impl Deref for SharedMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Map(map) => map,
            Bytes::Heap(bytes) => bytes,
        }
    }
}

impl DerefMut for SharedMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.bytes {
            Bytes::Map(map) => map,
            Bytes::Heap(bytes) => bytes,
        }
    }
}

impl From<MmapMut> for SharedMemory {
    fn from(map: MmapMut) -> Self {
        Self { bytes: Bytes::Map(map), account: OnceCell::new(), counted: Cell::new(0) }
    }
}

impl From<Vec<u8>> for SharedMemory {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes: Bytes::Heap(bytes), account: OnceCell::new(), counted: Cell::new(0) }
    }
}

/// A range of shared memory; a clone shares the same bytes.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Rc<SharedMemory>,
    range: Range<usize>,
}

impl SharedBytes {
    /// The bytes of `owner` in `range`, as far as it has them.
    pub const fn new(owner: Rc<SharedMemory>, range: Range<usize>) -> Self {
        Self { owner, range }
    }

    /// A part of these bytes: `range`, as far as they reach.
    pub fn slice(mut self, range: Range<usize>) -> Self {
        let end = self.range.end.min(self.range.start.saturating_add(range.end));
        self.range = self.range.start.saturating_add(range.start).min(end)..end;
        self
    }

    /// A slice of these bytes, shared; empty if it lies elsewhere.
    pub fn part(&self, slice: &[u8]) -> Self {
        let start = place_in(self.as_slice(), slice).unwrap_or(self.len());
        self.clone().slice(start..start.saturating_add(slice.len()))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.owner.get(self.range.clone()).unwrap_or_default()
    }

    /// The number of bytes. O(1).
    pub const fn len(&self) -> usize {
        self.range.end - self.range.start
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The offset of a slice of `all`; `None` if it lies elsewhere.
pub fn place_in(all: &[u8], slice: &[u8]) -> Option<usize> {
    let (all, slice) = (all.as_ptr_range(), slice.as_ptr_range());
    let is_in = all.start <= slice.start && slice.end <= all.end;
    is_in.then(|| slice.start.addr() - all.start.addr())
}

impl Default for SharedBytes {
    fn default() -> Self {
        Self::new(Rc::new(SharedMemory::from(Vec::new())), 0..0)
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shared bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, SharedBytes, SharedMemory};
    use std::rc::Rc;

    #[test]
    fn memory_counts_once_whoever_shares_it_and_until_its_last_owner_drops_it() {
        let account = Account::default();
        let owned = account.share(vec![1; 100]);
        let counted = account.bytes();
        assert!((100..300).contains(&counted), "{counted}");
        let more: Vec<SharedBytes> = (0..9).map(|at| owned.clone().slice(at..100)).collect();
        // A value that its store drops while it is shared.
        let value = Rc::new(SharedMemory::from(vec![2; 1_000]));
        value.count(1_000);
        value.enter(&account);
        let shared = SharedBytes::new(Rc::clone(&value), 10..1_000);
        assert_eq!(account.bytes(), counted);
        value.count(1_000);
        value.count(1_000);
        assert_eq!(account.bytes(), counted + 1_000);
        drop((owned, more));
        assert_eq!((account.bytes(), shared.len()), (1_000, 990));
        drop((shared, value));
        assert_eq!(account.bytes(), 0);
    }
}
