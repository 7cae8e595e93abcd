//! Allocations of sizes that clients and peers determine: a refusal by the system is an error, not the end of the
//! process.
//!
//! Sizes without a bound of their own are checked here, and refused before the system has nothing left: small
//! allocations, whose failure ends the process, use the reserve.

use memmap2::MmapMut;
use std::mem::size_of;

/// Bytes of a page of the system, by which the memory of maps is counted. If its pages are larger, a map takes more.
pub const SYSTEM_PAGE_BYTES: usize = 4 * 1024;

/// Bytes that the system must have left in addition to an allocation.
const RESERVE_BYTES: usize = 4 << 20;

/// Bytes above which memory is allocated only if the system then has the reserve left. Smaller allocations take little
/// of it.
pub const LARGE_BYTES: usize = 64 * 1024;

/// Whether the system has memory for `bytes` bytes and the reserve at this moment.
pub fn has_room(bytes: usize) -> bool {
    has_left(bytes.saturating_add(RESERVE_BYTES))
}

/// Whether the system has `bytes` bytes left at this moment, those of the reserve included: maps them, untouched, and
/// unmaps them. Some 2 µs. Not by the allocator, which would keep larger blocks from then on.
pub fn has_left(bytes: usize) -> bool {
    MmapMut::map_anon(bytes).is_ok()
}

/// Memory that executing a large request may take, as a multiple of its bytes: its arguments, their copies, and a reply
/// that shows them in quotes.
const REQUEST_FACTOR: usize = 5;

/// Whether the system has the memory that executing a request of `bytes` bytes may take, if they are more than
/// [`LARGE_BYTES`].
#[inline]
pub fn has_room_for_request(bytes: usize) -> bool {
    bytes <= LARGE_BYTES || has_room(REQUEST_FACTOR * bytes)
}

/// Maps `bytes` zero bytes, which take memory when they are touched; `None` if the system would be left without
/// reserve.
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
    (bytes <= LARGE_BYTES || has_room(bytes)) && vec.try_reserve_exact(more).is_ok()
}

/// Makes room for one more entry, and for as many as there are if there is none; false, and nothing is changed, if the
/// system has no memory for them.
#[inline]
pub fn reserve_one<T>(vec: &mut Vec<T>) -> bool {
    vec.len() < vec.capacity() || reserve(vec, vec.len().max(8))
}

/// Returns the free pages between allocations to the system: the allocator by itself returns only those at the end of its
/// heap, which one small allocation can keep. 0.3 to 3 ms for some 10 MiB of small allocations; nothing with another
/// allocator than glibc's.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "there is no safe function for it")]
    // SAFETY: a call without preconditions; it changes no memory that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A copy of `bytes` after `zeroes` zero bytes; `None` if the system has no memory for it.
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
