//! Memory of sizes that others choose: where the system may refuse it, that is an error and not the end of the process.

use std::hint::black_box;

/// Whether the system has memory for so many bytes at this moment: takes them, untouched, and gives them back. Some 3 us.
pub fn has_room(bytes: usize) -> bool {
    let mut probe: Vec<u8> = Vec::new();
    let has_room = probe.try_reserve_exact(bytes).is_ok();
    // Else the compiler may leave out both calls.
    black_box(&probe);
    has_room
}

/// A copy of bytes; `None` if the system has no memory for it.
pub fn copy_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).ok()?;
    copy.extend_from_slice(bytes);
    Some(copy)
}
