//! Bytes that several owners share, such as a large value that connections are being sent: none copies them.

use std::fmt;
use std::ops::Range;
use std::rc::Rc;

/// A part of what an owner holds; a clone is another owner of the same bytes.
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

    /// The same bytes, fewer at both ends.
    pub fn slice(mut self, range: Range<usize>) -> Self {
        let end = self.range.end.min(self.range.start.saturating_add(range.end));
        self.range = self.range.start.saturating_add(range.start).min(end)..end;
        self
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        (*self.owner).as_ref().get(self.range.clone()).unwrap_or_default()
    }

    /// How many they are. O(1).
    pub const fn len(&self) -> usize {
        self.range.end - self.range.start
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
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
