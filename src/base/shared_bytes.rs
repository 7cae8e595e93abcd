//! Bytes that several owners share, such as a large value that is sent to several connections: none copies them.

use std::fmt;
use std::ops::Range;
use std::rc::Rc;

/// A range of the bytes of an owner; a clone shares the same bytes.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Rc<dyn AsRef<[u8]>>,
    range: Range<usize>,
}

impl SharedBytes {
    /// The bytes of `owner` in `range`, as far as it has them.
    pub fn new(owner: Rc<dyn AsRef<[u8]>>, range: Range<usize>) -> Self {
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
        (*self.owner).as_ref().get(self.range.clone()).unwrap_or_default()
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

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Rc::new(bytes), range }
    }
}

impl Default for SharedBytes {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shared bytes", self.len())
    }
}
