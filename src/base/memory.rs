//! Memory of sizes that others choose: where the system may refuse it, that is an error and not the end of the process.
//!
//! What grows without bound of its own is checked here, and is refused before the system has nothing left: small
//! allocations, whose failure ends the process, live on the reserve.

use memmap2::MmapMut;
use std::mem::size_of;

/// Bytes that the system must have beside what is allocated.
const RESERVE_BYTES: usize = 4 << 20;

/// Bytes of a vector from which on that is checked first. Smaller ones take little of the reserve.
const LARGE_BYTES: usize = 64 * 1024;

/// Whether the system has memory for so many bytes, and the reserve, at this moment.
pub fn has_room(bytes: usize) -> bool {
    has_left(bytes.saturating_add(RESERVE_BYTES))
}

/// Whether the system has so many bytes left at this moment, some of the reserve if need be: maps them, untouched, and
/// gives them back. Some 2 us. Not from the allocator, which would keep larger blocks from then on.
pub fn has_left(bytes: usize) -> bool {
    MmapMut::map_anon(bytes).is_ok()
}

/// Times its bytes that carrying out a large request may take: its arguments, their copies, and a reply that shows them in
/// quotes.
const REQUEST_FACTOR: usize = 5;

/// Whether the system has memory for what carrying out a request of so many bytes may take. Small ones take little of the
/// reserve, and are not looked at.
#[inline]
pub fn has_room_for_request(bytes: usize) -> bool {
    bytes <= LARGE_BYTES || has_room(REQUEST_FACTOR * bytes)
}

/// A map of so many zeroes, which take memory as they are touched; `None` if the system would be left without reserve.
pub fn map(bytes: usize) -> Option<MmapMut> {
    let map = MmapMut::map_anon(bytes).ok()?;
    has_room(0).then_some(map)
}

/// Makes room for `more` entries in a vector; false, and nothing is changed, if the system has no memory for them.
pub fn reserve<T>(vec: &mut Vec<T>, more: usize) -> bool {
    if vec.capacity() - vec.len() >= more {
        return true;
    }
    let bytes = more.saturating_mul(size_of::<T>());
    (bytes < LARGE_BYTES || has_room(bytes)) && vec.try_reserve_exact(more).is_ok()
}

/// A copy of bytes after so many zeroes; `None` if the system has no memory for it.
pub fn copy_after_zeroes(zeroes: usize, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut copy = Vec::new();
    if !reserve(&mut copy, zeroes.saturating_add(bytes.len())) {
        return None;
    }
    copy.resize(zeroes, 0);
    copy.extend_from_slice(bytes);
    Some(copy)
}

/// A copy of bytes; `None` if the system has no memory for it.
pub fn copy_of(bytes: &[u8]) -> Option<Vec<u8>> {
    copy_after_zeroes(0, bytes)
}
