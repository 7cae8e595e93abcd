//! Bytes that are kept for a connection or a request: all but the smallest are in a map of their own, since the allocator
//! of the process returns only the end of its heap to the system.

use super::buffer::SMALL_MAX;
use super::memory::{self, SYSTEM_PAGE_BYTES};
use memmap2::MmapMut;

/// Bytes; see the module.
#[derive(Debug)]
pub struct KeptBytes(Memory);

#[derive(Debug)]
enum Memory {
    Small(Box<[u8]>),
    Mapped { map: MmapMut, len: usize },
}

impl KeptBytes {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Memory::Small(bytes) => bytes,
            Memory::Mapped { map, len } => &map[..*len],
        }
    }

    /// Bytes of memory.
    pub fn held(&self) -> usize {
        match &self.0 {
            Memory::Small(bytes) => bytes.len(),
            Memory::Mapped { len, .. } => len.next_multiple_of(SYSTEM_PAGE_BYTES),
        }
    }
}

impl From<Vec<u8>> for KeptBytes {
    /// They stay where they are if the system has no memory for a map.
    fn from(bytes: Vec<u8>) -> Self {
        let map = if bytes.len() > SMALL_MAX { memory::map(bytes.len()) } else { None };
        Self(match map {
            Some(mut map) => {
                map[..bytes.len()].copy_from_slice(&bytes);
                Memory::Mapped { map, len: bytes.len() }
            }
            None => Memory::Small(bytes.into()),
        })
    }
}
