//! The encoding of an item in a slot: key, value, version and optional expiry.
//!
//! Not here: the memory of slots.

use crate::base::time::{Instant, Now};
use crate::base::wheel::HORIZON;

/// The expiry of an item: milliseconds on the monotonic clock, in 48 bits, which suffice beyond the year 9999. It may
/// be in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry {
    millis: u64,
}

impl Expiry {
    /// The last millisecond of the year 9999, in milliseconds since 1970: the latest expiry of [`Expiry::at`].
    pub const UNIX_MS_MAX: u64 = 253_402_300_799_999;

    /// `millis` from now. `None` beyond 48 bits: more than 8,900 years.
    pub fn in_millis(now: Instant, millis: u64) -> Option<Self> {
        let millis = now.millis().checked_add(millis)?;
        (millis < 1 << EXPIRY_BITS).then_some(Self { millis })
    }

    /// `millis` from now, or the latest possible expiry.
    pub fn in_millis_at_most(now: Instant, millis: u64) -> Self {
        Self::in_millis(now, millis).unwrap_or(Self { millis: (1 << EXPIRY_BITS) - 1 })
    }

    /// `seconds` from now. `None` as for [`Expiry::in_millis`].
    pub fn in_seconds(now: Instant, seconds: u64) -> Option<Self> {
        Self::in_millis(now, seconds.checked_mul(1_000)?)
    }

    /// At a time of the wall clock, in milliseconds since 1970; a past one is due at once. `None` after the year
    /// 9999.
    pub fn at(now: Now, unix_ms: u64) -> Option<Self> {
        let ahead = unix_ms.saturating_sub(now.wall_ms());
        if unix_ms > Self::UNIX_MS_MAX {
            return None;
        }
        if ahead > 0 { Self::in_millis(now.mono, ahead) } else { Some(Self { millis: now.mono.millis() }) }
    }

    /// Milliseconds since the origin of the monotonic clock.
    pub const fn millis(self) -> u64 {
        self.millis
    }

    /// Whether the item has expired.
    pub const fn has_come(self, now: Instant) -> bool {
        self.millis <= now.millis()
    }

    /// Milliseconds left; 0 if expired.
    pub const fn millis_left(self, now: Instant) -> u64 {
        self.millis.saturating_sub(now.millis())
    }

    /// Seconds left, rounded up: at least 1 until expired.
    pub const fn seconds_left(self, now: Instant) -> u64 {
        self.millis_left(now).div_ceil(1_000)
    }

    /// The time on the current wall clock, in milliseconds since 1970.
    pub const fn unix_ms(self, now: Now) -> u64 {
        now.wall_ms().saturating_add(self.millis).saturating_sub(now.mono.millis())
    }

    /// The tick of the item's timer: the last tick of the wheel if the expiry is beyond its horizon.
    pub(super) fn tick(self) -> u64 {
        self.millis.min(HORIZON - 1)
    }
}

/// The version of a write, which orders the writes of a key: 44 bits of milliseconds since 1970, 20 bits of fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version(pub u64);

impl Version {
    /// The highest version: a change with it is unconditional.
    pub const MAX: Self = Self(u64::MAX);

    /// Bits below the millisecond.
    pub const FRACTION_BITS: u32 = 20;

    /// When it was assigned, by the wall clock of its node: milliseconds since 1970.
    pub const fn millis(self) -> u64 {
        self.0 >> Self::FRACTION_BITS
    }
}

/// The parts of an item that a read returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'s> {
    /// Its value.
    pub value: &'s [u8],
    /// Its expiry; `None`: never.
    pub expiry: Option<Expiry>,
    /// The version of the write that set it.
    pub version: Version,
}

/// The marks of eviction in an item: its queue, its uses since the last check, up to three, and the parity of the
/// last purge that checked it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks(u8);

impl Marks {
    const ALL: u8 = 0b111_1000;
    const USE: u8 = 1 << 4;
    const USES: u8 = 0b11_0000;
    const ODD: u8 = 0b100_0000;

    /// The highest count of uses.
    pub(super) const USES_MAX: u8 = Self::USES / Self::USE;

    /// In the main queue, without uses.
    pub(super) const MAIN: Self = Self(1 << 3);

    pub(super) const fn is_main(self) -> bool {
        self.0 & Self::MAIN.0 != 0
    }

    pub(super) const fn uses(self) -> u8 {
        (self.0 & Self::USES) / Self::USE
    }

    /// The same queue with other uses, up to three.
    pub(super) const fn with_uses(self, uses: u8) -> Self {
        Self((self.0 & !Self::USES) | (uses * Self::USE))
    }

    pub(super) const fn is_odd(self) -> bool {
        self.0 & Self::ODD != 0
    }

    pub(super) const fn with_odd(self, is_odd: bool) -> Self {
        Self(self.0 & !Self::ODD | if is_odd { Self::ODD } else { 0 })
    }

    /// The marks of a live item.
    pub(super) const fn read(slot: &[u8]) -> Self {
        Self(slot[0] & Self::ALL)
    }

    /// Writes the marks of a live item.
    pub(super) const fn write(self, slot: &mut [u8]) {
        slot[0] = slot[0] & !Self::ALL | self.0;
    }

    /// Counts a use of a live item. Writes nothing if three are counted.
    #[inline]
    pub(super) const fn count_use(slot: &mut [u8]) {
        if slot[0] & Self::USES != Self::USES {
            slot[0] += Self::USE;
        }
    }
}

/// The layout of an item in its slot.
///
/// ```text
/// | head 4 | version 8 | expiry 6, if timed | lengths 8, if wide | key, value: or, if large, 4 |
/// head: bit 0 live, 1 timed, 2 wide, 3..7 marks, 7..16 length of the key, 16..32 length of the value;
///       instead of the lengths, if wide: bit 7 large
/// ```
///
/// Large: key and value are a large object; the slot has its number instead. In a free slot bit 0 is clear, and the
/// heap uses the other bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    timed: bool,
    wide: bool,
    large: bool,
    key_len: usize,
    value_len: usize,
}

const LIVE: u32 = 1;
const TIMED: u32 = 1 << 1;
const WIDE: u32 = 1 << 2;
const LARGE: u32 = 1 << 7;
const MARKS: u32 = Marks::ALL as u32;
const KEY_SHIFT: u32 = 7;
const KEY_MASK: u32 = 0x1FF;
const VALUE_SHIFT: u32 = 16;
const VERSION_AT: usize = 4;
const EXPIRY_AT: usize = 12;
const EXPIRY_BYTES: usize = 6;
const EXPIRY_BITS: u32 = 8 * 6;
const _: () = assert!(EXPIRY_BITS as usize == 8 * EXPIRY_BYTES);
const LENGTHS_BYTES: usize = 8;

/// Bytes of an item without its key and value, at most.
pub(super) const HEADER_BYTES_MAX: usize = EXPIRY_AT + EXPIRY_BYTES + LENGTHS_BYTES + 4;

/// Bytes of a slot above which key and value become a large object.
pub(super) const SLOT_BYTES_MAX: usize = 16 * 1024;

impl Layout {
    pub(super) const fn new(key_len: usize, value_len: usize, timed: bool) -> Self {
        let fixed = EXPIRY_AT + if timed { EXPIRY_BYTES } else { 0 };
        let wide = key_len > KEY_MASK as usize || value_len >= 1 << VALUE_SHIFT;
        let lengths = if wide { LENGTHS_BYTES } else { 0 };
        let large = fixed + lengths + key_len + value_len > SLOT_BYTES_MAX;
        Self { timed, wide: wide || large, large, key_len, value_len }
    }

    /// The layout of the same key and value with or without an expiry. A large object stays one.
    pub(super) const fn timed(self, timed: bool) -> Self {
        if self.large { Self { timed, ..self } } else { Self::new(self.key_len, self.value_len, timed) }
    }

    /// The layout of the same key with a value of another length.
    pub(super) const fn with_value_len(self, value_len: usize) -> Self {
        Self::new(self.key_len, value_len, self.timed)
    }

    /// Reads the layout from the slot of a live item.
    #[inline]
    pub(super) fn read(slot: &[u8]) -> Self {
        let head = u32_at(slot, 0);
        let timed = head & TIMED != 0;
        if head & WIDE == 0 {
            let key_len = (head >> KEY_SHIFT & KEY_MASK) as usize;
            return Self {
                timed,
                wide: false,
                large: false,
                key_len,
                value_len: (head >> VALUE_SHIFT) as usize,
            };
        }
        Self::read_wide(slot, head)
    }

    #[cold]
    fn read_wide(slot: &[u8], head: u32) -> Self {
        let timed = head & TIMED != 0;
        let at = EXPIRY_AT + if timed { EXPIRY_BYTES } else { 0 };
        Self {
            timed,
            wide: true,
            large: head & LARGE != 0,
            key_len: u32_at(slot, at) as usize,
            value_len: u32_at(slot, at + 4) as usize,
        }
    }

    /// Bytes that the item needs in its slot.
    pub(super) const fn slot_bytes(self) -> usize {
        self.body_at() + if self.large { 4 } else { self.body_bytes() }
    }

    /// Bytes of the item with its header, in the slot or the large object.
    pub(super) const fn item_bytes(self) -> usize {
        self.slot_bytes() + if self.large { self.body_bytes() } else { 0 }
    }

    /// Bytes of key and value.
    pub(super) const fn body_bytes(self) -> usize {
        self.key_len + self.value_len
    }

    pub(super) const fn key_len(self) -> usize {
        self.key_len
    }

    pub(super) const fn value_len(self) -> usize {
        self.value_len
    }

    pub(super) const fn is_large(self) -> bool {
        self.large
    }

    /// The offset of key and value, or of the number of the large object.
    #[inline]
    pub(super) const fn body_at(self) -> usize {
        let expiry_bytes = if self.timed { EXPIRY_BYTES } else { 0 };
        let lengths = if self.wide { LENGTHS_BYTES } else { 0 };
        EXPIRY_AT + expiry_bytes + lengths
    }

    /// Overwrites value and version of a live item of the same key, if it and this layout have lengths of narrow form,
    /// the same ones, and no expiry. Returns whether they have.
    #[inline]
    pub(super) fn overwrite(self, slot: &mut [u8], value: &[u8], version: Version) -> bool {
        let is_same = !self.wide && !self.timed && u32_at(slot, 0) & !MARKS == self.narrow_head();
        if is_same {
            let (header, body) = slot.split_at_mut(EXPIRY_AT);
            header[VERSION_AT..].copy_from_slice(&version.0.to_le_bytes());
            body[self.key_len..self.body_bytes()].copy_from_slice(value);
        }
        is_same
    }

    /// The head of a live item without marks and expiry, and with the lengths.
    const fn narrow_head(self) -> u32 {
        LIVE | length_u32(self.key_len) << KEY_SHIFT | length_u32(self.value_len) << VALUE_SHIFT
    }

    /// Writes the header, without marks. `expiry` must be `Some` if and only if the layout is timed.
    pub(super) fn write(self, slot: &mut [u8], expiry: Option<Expiry>, version: Version) {
        debug_assert_eq!(self.timed, expiry.is_some());
        let mut head = match (self.wide, self.large) {
            (true, true) => LIVE | WIDE | LARGE,
            (true, false) => LIVE | WIDE,
            (false, _) => self.narrow_head(),
        };
        slot[VERSION_AT..EXPIRY_AT].copy_from_slice(&version.0.to_le_bytes());
        let mut at = EXPIRY_AT;
        if let Some(expiry) = expiry {
            head |= TIMED;
            slot[at..at + EXPIRY_BYTES].copy_from_slice(&expiry.millis.to_le_bytes()[..EXPIRY_BYTES]);
            at += EXPIRY_BYTES;
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

/// The expiry in the slot of a live item.
#[inline]
pub(super) fn expiry(slot: &[u8]) -> Option<Expiry> {
    if u32_at(slot, 0) & TIMED == 0 {
        return None;
    }
    let high = [slot[EXPIRY_AT + 4], slot[EXPIRY_AT + 5]];
    let high = u64::from(u16::from_le_bytes(high));
    Some(Expiry { millis: u64::from(u32_at(slot, EXPIRY_AT)) | high << 32 })
}

/// The version in the slot of a live item.
pub(super) fn version(slot: &[u8]) -> Version {
    Version(u64::from(u32_at(slot, VERSION_AT)) | u64::from(u32_at(slot, VERSION_AT + 4)) << 32)
}

/// Reads four bytes of a slot as a number.
#[inline]
pub(super) fn u32_at(slot: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&slot[at..at + 4]);
    u32::from_le_bytes(bytes)
}

const fn length_u32(length: usize) -> u32 {
    assert!(length <= u32::MAX as usize, "a key or value of 4 GiB: the limits are lower");
    #[expect(clippy::cast_possible_truncation, reason = "just checked")]
    let length = length as u32;
    length
}

/// Writes the value after the key.
pub(super) fn write_body(body: &mut [u8], key: &[u8], value: &[u8]) {
    body[..key.len()].copy_from_slice(key);
    body[key.len()..key.len() + value.len()].copy_from_slice(value);
}

/// Whether two keys are equal, without reading beyond their end. `memcmp` reads whole vectors and so often the next
/// cache line of the item: a cache miss that takes 25 % of a lookup.
#[inline]
pub(super) fn equal(one: &[u8], other: &[u8]) -> bool {
    const SHORT: usize = 64;
    if one.len() != other.len() {
        return false;
    }
    let differences = |one: &[u8; 8], other: &[u8; 8]| u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other);
    let (Some(last), Some(other_last)) = (one.last_chunk(), other.last_chunk()) else {
        return one.iter().zip(other).all(|(a, b)| a == b);
    };
    // The last word may overlap the previous one.
    let mut differs = differences(last, other_last);
    if one.len() > 16 {
        if one.len() > SHORT {
            return long_equal(one, other);
        }
        for (word, other) in one.as_chunks().0.iter().zip(other.as_chunks().0) {
            differs |= differences(word, other);
        }
    } else if let (Some(first), Some(other_first)) = (one.first_chunk(), other.first_chunk()) {
        differs |= differences(first, other_first);
    }
    differs == 0
}

#[cold]
fn long_equal(one: &[u8], other: &[u8]) -> bool {
    one == other
}

#[cfg(test)]
mod tests {
    use super::{Expiry, HEADER_BYTES_MAX, Layout, SLOT_BYTES_MAX, Version, expiry, is_live, version};
    use crate::base::time::{Instant, Now};

    #[test]
    fn header_reads_back_as_written() {
        for key_len in [0, 1, 1_023, 1_024, 65_536] {
            for value_len in [0, 64, 15_000, 16_384, 65_535, 65_536, 8 << 20] {
                for ends in [None, Some(Expiry { millis: (1 << 48) - 1 }), Some(Expiry { millis: 5 })] {
                    let layout = Layout::new(key_len, value_len, ends.is_some());
                    let mut slot = vec![0xFF; layout.slot_bytes()];
                    slot[0] = 0;
                    layout.write(&mut slot, ends, Version(0x0123_4567_89AB_CDEF));
                    assert!(is_live(&slot) && slot.len() <= SLOT_BYTES_MAX);
                    assert!(layout.body_at() + if layout.large { 4 } else { 0 } <= HEADER_BYTES_MAX);
                    assert_eq!(Layout::read(&slot), layout);
                    assert_eq!(expiry(&slot), ends);
                    assert_eq!(version(&slot), Version(0x0123_4567_89AB_CDEF));
                }
            }
        }
    }

    #[test]
    fn small_item_has_a_header_of_twelve_bytes() {
        assert_eq!(Layout::new(16, 64, false).slot_bytes(), 92);
        assert_eq!(Layout::new(16, 64, true).slot_bytes(), 98);
    }

    #[test]
    fn expiry_beyond_what_an_item_holds_is_refused() {
        assert_eq!(Expiry::in_seconds(Instant::ZERO, 1 << 39), None);
        assert_eq!(Expiry::in_seconds(Instant::ZERO, u64::MAX), None);
        assert_eq!(Expiry::in_millis(Instant::from_millis(7), u64::MAX), None);
        assert_eq!(Expiry::in_millis(Instant::from_millis(7), 5).map(Expiry::millis), Some(12));
    }

    #[test]
    fn absolute_expiry_reaches_the_year_9999_and_reads_back() {
        let now = Now { mono: Instant::from_millis(90_000_000), wall_nanos: 1_800_000_000_000_000_000 };
        for unix_ms in [now.wall_ms() + 1, now.wall_ms() + 86_400_000, Expiry::UNIX_MS_MAX] {
            let expiry = Expiry::at(now, unix_ms).unwrap();
            assert_eq!((expiry.unix_ms(now), expiry.has_come(now.mono)), (unix_ms, false));
            assert_eq!(expiry.millis_left(now.mono), unix_ms - now.wall_ms());
        }
        assert_eq!(Expiry::at(now, Expiry::UNIX_MS_MAX + 1), None);
        for past in [0, now.wall_ms()] {
            assert!(Expiry::at(now, past).unwrap().has_come(now.mono));
        }
    }
}
