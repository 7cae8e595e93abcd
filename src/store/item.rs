//! One item: key and value in one piece of memory, a version, perhaps a deadline; and its bytes.
//!
//! Not here: where the bytes are.

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

/// How an item lies in its slot.
///
/// ```text
/// | head 4 | version 8 | deadline 5, if timed | lengths 8, if wide | key, value: or, if outside, 4 |
/// head: bit 0 live, 1 timed, 2 wide, 3 outside, 4..6 unused (frequency, for eviction),
///       6..16 length of the key, 16..32 length of the value; both 0 if wide
/// ```
///
/// Outside: key and value lie in a block of their own, whose number stands in their place. A slot that
/// is not in use has bit 0 clear, and its other bits belong to the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    timed: bool,
    wide: bool,
    large_objects: bool,
    key_len: usize,
    value_len: usize,
}

const LIVE: u32 = 1;
const TIMED: u32 = 1 << 1;
const WIDE: u32 = 1 << 2;
const OUTSIDE: u32 = 1 << 3;
const KEY_SHIFT: u32 = 6;
const KEY_MASK: u32 = 0x3FF;
const VALUE_SHIFT: u32 = 16;
const VERSION_AT: usize = 4;
const DEADLINE_AT: usize = 12;
const DEADLINE_BYTES: usize = 5;
const LENGTHS_BYTES: usize = 8;

/// What an item takes at most beside its key and value.
pub(super) const HEADER_BYTES_MAX: usize = DEADLINE_AT + DEADLINE_BYTES + LENGTHS_BYTES + 4;

/// Bytes of a slot above which key and value go outside.
pub(super) const SLOT_BYTES_MAX: usize = 16 * 1024;

impl Layout {
    pub(super) const fn new(key_len: usize, value_len: usize, timed: bool) -> Self {
        let fixed = DEADLINE_AT + if timed { DEADLINE_BYTES } else { 0 };
        let wide = key_len > KEY_MASK as usize || value_len >= 1 << VALUE_SHIFT;
        let lengths = if wide { LENGTHS_BYTES } else { 0 };
        let large_objects = fixed + lengths + key_len + value_len > SLOT_BYTES_MAX;
        Self { timed, wide: wide || large_objects, large_objects, key_len, value_len }
    }

    /// The same with a deadline.
    pub(super) const fn with_deadline(self) -> Self {
        Self::new(self.key_len, self.value_len, true)
    }

    /// The layout that the slot of a live item tells.
    #[inline]
    pub(super) fn read(slot: &[u8]) -> Self {
        let head = u32_at(slot, 0);
        let timed = head & TIMED != 0;
        if head & WIDE == 0 {
            let key_len = (head >> KEY_SHIFT & KEY_MASK) as usize;
            return Self {
                timed,
                wide: false,
                large_objects: false,
                key_len,
                value_len: (head >> VALUE_SHIFT) as usize,
            };
        }
        Self::read_wide(slot, head)
    }

    #[cold]
    fn read_wide(slot: &[u8], head: u32) -> Self {
        let timed = head & TIMED != 0;
        let at = DEADLINE_AT + if timed { DEADLINE_BYTES } else { 0 };
        Self {
            timed,
            wide: true,
            large_objects: head & OUTSIDE != 0,
            key_len: u32_at(slot, at) as usize,
            value_len: u32_at(slot, at + 4) as usize,
        }
    }

    /// Bytes that the item needs in its slot.
    pub(super) const fn slot_bytes(self) -> usize {
        self.body_at() + if self.large_objects { 4 } else { self.body_bytes() }
    }

    /// Bytes of key and value.
    pub(super) const fn body_bytes(self) -> usize {
        self.key_len + self.value_len
    }

    pub(super) const fn key_len(self) -> usize {
        self.key_len
    }

    pub(super) const fn is_outside(self) -> bool {
        self.large_objects
    }

    /// Where key and value, or the number of their block, begin.
    #[inline]
    pub(super) const fn body_at(self) -> usize {
        let deadline = if self.timed { DEADLINE_BYTES } else { 0 };
        let lengths = if self.wide { LENGTHS_BYTES } else { 0 };
        DEADLINE_AT + deadline + lengths
    }

    /// Writes all that comes before the body. `deadline` must be there if the layout is timed.
    pub(super) fn write(self, slot: &mut [u8], deadline: Option<Deadline>, version: Version) {
        debug_assert_eq!(self.timed, deadline.is_some());
        let mut head = LIVE;
        if self.wide {
            head |= WIDE | if self.large_objects { OUTSIDE } else { 0 };
        } else {
            head |= length_u32(self.key_len) << KEY_SHIFT | length_u32(self.value_len) << VALUE_SHIFT;
        }
        slot[VERSION_AT..DEADLINE_AT].copy_from_slice(&version.0.to_le_bytes());
        let mut at = DEADLINE_AT;
        if let Some(deadline) = deadline {
            head |= TIMED;
            slot[at..at + DEADLINE_BYTES].copy_from_slice(&deadline.millis.to_le_bytes()[..DEADLINE_BYTES]);
            at += DEADLINE_BYTES;
        }
        if self.wide {
            slot[at..at + 4].copy_from_slice(&length_u32(self.key_len).to_le_bytes());
            slot[at + 4..at + 8].copy_from_slice(&length_u32(self.value_len).to_le_bytes());
        }
        slot[..4].copy_from_slice(&head.to_le_bytes());
    }
}

/// Whether a slot holds an item.
pub(super) fn is_live(slot: &[u8]) -> bool {
    slot[0] & 1 == 1
}

/// The deadline in the slot of a live item.
#[inline]
pub(super) fn deadline(slot: &[u8]) -> Option<Deadline> {
    if u32_at(slot, 0) & TIMED == 0 {
        return None;
    }
    let low = u64::from(u32_at(slot, DEADLINE_AT));
    Some(Deadline { millis: low | u64::from(slot[DEADLINE_AT + 4]) << 32 })
}

/// Changes the deadline of a live item that has one.
pub(super) fn set_deadline(slot: &mut [u8], deadline: Deadline) {
    let bytes = deadline.millis.to_le_bytes();
    slot[DEADLINE_AT..DEADLINE_AT + DEADLINE_BYTES].copy_from_slice(&bytes[..DEADLINE_BYTES]);
}

/// The version in the slot of a live item.
pub(super) fn version(slot: &[u8]) -> Version {
    Version(u64::from(u32_at(slot, VERSION_AT)) | u64::from(u32_at(slot, VERSION_AT + 4)) << 32)
}

/// Four bytes of a slot as a number.
#[inline]
pub(super) fn u32_at(slot: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&slot[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn length_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or_else(|_| panic!("a key or value of 4 GiB: the limits are lower"))
}

/// Writes key and value, one behind the other.
pub(super) fn write_body(body: &mut [u8], key: &[u8], value: &[u8]) {
    body[..key.len()].copy_from_slice(key);
    body[key.len()..key.len() + value.len()].copy_from_slice(value);
}

/// Whether two keys are equal, without touching a byte behind them. `memcmp` reads whole vectors, and so
/// often the next cache line of an item, which is as far away as the first was: 25 % of a look-up.
#[inline]
pub(super) fn equal(one: &[u8], other: &[u8]) -> bool {
    const SHORT: usize = 64;
    if one.len() != other.len() {
        return false;
    }
    let (Some(last), Some(other_last)) = (one.last_chunk(), other.last_chunk()) else {
        return one.iter().zip(other).all(|(a, b)| a == b);
    };
    if one.len() > SHORT {
        return long_equal(one, other);
    }
    // The last word may overlap the one before.
    let mut differs = u64::from_le_bytes(*last) ^ u64::from_le_bytes(*other_last);
    for (word, other) in one.as_chunks().0.iter().zip(other.as_chunks().0) {
        differs |= u64::from_le_bytes(*word) ^ u64::from_le_bytes(*other);
    }
    differs == 0
}

#[cold]
fn long_equal(one: &[u8], other: &[u8]) -> bool {
    one == other
}

#[cfg(test)]
mod tests {
    use super::{
        Deadline, HEADER_BYTES_MAX, Layout, SLOT_BYTES_MAX, Version, deadline, is_live, set_deadline, version,
    };
    use crate::base::time::Instant;

    #[test]
    fn header_says_again_what_was_written() {
        for key_len in [0, 1, 1_023, 1_024, 65_536] {
            for value_len in [0, 64, 15_000, 16_384, 65_535, 65_536, 8 << 20] {
                for ends in [None, Some(Deadline { millis: (1 << 40) - 1 }), Some(Deadline { millis: 5 })] {
                    let layout = Layout::new(key_len, value_len, ends.is_some());
                    let mut slot = vec![0xFF; layout.slot_bytes()];
                    slot[0] = 0;
                    layout.write(&mut slot, ends, Version(0x0123_4567_89AB_CDEF));
                    assert!(is_live(&slot) && slot.len() <= SLOT_BYTES_MAX);
                    assert!(layout.body_at() + if layout.large_objects { 4 } else { 0 } <= HEADER_BYTES_MAX);
                    assert_eq!(Layout::read(&slot), layout);
                    assert_eq!(deadline(&slot), ends);
                    assert_eq!(version(&slot), Version(0x0123_4567_89AB_CDEF));
                    if ends.is_some() {
                        set_deadline(&mut slot, Deadline { millis: 77 });
                        assert_eq!(deadline(&slot), Some(Deadline { millis: 77 }));
                        assert_eq!(Layout::read(&slot), layout);
                    }
                }
            }
        }
    }

    #[test]
    fn small_item_has_a_header_of_twelve_bytes() {
        assert_eq!(Layout::new(16, 64, false).slot_bytes(), 92);
        assert_eq!(Layout::new(16, 64, true).slot_bytes(), 97);
    }

    #[test]
    fn deadline_beyond_what_an_item_holds_is_refused() {
        assert_eq!(Deadline::in_seconds(Instant::ZERO, 1 << 33), None);
        assert_eq!(Deadline::in_seconds(Instant::ZERO, u64::MAX), None);
        assert_eq!(Deadline::in_seconds(Instant::ZERO, 5).map(Deadline::millis), Some(5_000));
    }
}
