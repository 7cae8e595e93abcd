//! One item: key and value in one piece of memory, a version, perhaps a deadline.

use crate::base::time::Instant;
use crate::base::wheel::HORIZON;

/// The moment from which an item is no longer served: milliseconds on the monotonic clock, below 2^40.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    millis: u64,
}

impl Deadline {
    /// `seconds` from now. `None` when that lies beyond what an item can hold, about 34 years.
    pub fn in_seconds(now: Instant, seconds: u64) -> Option<Self> {
        let millis = now.millis().checked_add(seconds.checked_mul(1_000)?)?;
        (millis < HORIZON).then_some(Self { millis })
    }

    /// Milliseconds since the origin of the monotonic clock.
    pub const fn millis(self) -> u64 {
        self.millis
    }

    /// Whether the moment has come.
    pub const fn has_come(self, now: Instant) -> bool {
        self.millis <= now.millis()
    }

    /// Seconds left, rounded up: at least 1 until the moment has come.
    pub const fn seconds_left(self, now: Instant) -> u64 {
        self.millis.saturating_sub(now.millis()).div_ceil(1_000)
    }
}

/// Orders the writes of one key: 44 bits of milliseconds since 1970, 20 bits of counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version(pub u64);

/// An item as a reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'s> {
    /// Its value.
    pub value: &'s [u8],
    /// Until when it is served; `None`: for ever.
    pub deadline: Option<Deadline>,
    /// Of the write that made it.
    pub version: Version,
}

/// An item as the store holds it.
#[derive(Debug)]
pub(super) struct Stored {
    /// The key, and the value behind it.
    bytes: Box<[u8]>,
    key_len: u32,
    pub(super) deadline: Option<Deadline>,
    version: Version,
}

impl Stored {
    /// What an item costs beside its key and value: its record, its place in the index, its allocation.
    pub(super) const OVERHEAD_BYTES: usize = size_of::<Self>() + 2 * size_of::<(u64, Vec<u32>)>() + 16;

    pub(super) fn new(key: &[u8], value: &[u8], deadline: Option<Deadline>, version: Version) -> Self {
        let key_len = u32::try_from(key.len()).unwrap_or_else(|_| panic!("a key of 4 GiB"));
        Self { bytes: [key, value].concat().into(), key_len, deadline, version }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes.len() + Self::OVERHEAD_BYTES
    }

    pub(super) const fn is_alive(&self, now: Instant) -> bool {
        match self.deadline {
            Some(deadline) => !deadline.has_come(now),
            None => true,
        }
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len as usize]
    }

    pub(super) fn item(&self) -> Item<'_> {
        let value = &self.bytes[self.key_len as usize..];
        Item { value, deadline: self.deadline, version: self.version }
    }
}
