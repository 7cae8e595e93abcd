//! Lists in payloads: views of the input, without a copy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const HASH_BYTES: usize = 8;
/// 64-bit words of a block of a filter.
pub(in crate::wire) const BLOCK_WORDS: usize = 8;
pub(super) const BLOCK_BYTES: usize = 8 * BLOCK_WORDS;
pub(super) const IMAGE_BYTES: usize = 4 + BLOCK_BYTES;

/// Bytes of a hint: the id of a node.
pub(super) const HINT_BYTES: usize = 16;
/// Hints in one frame.
pub const HINTS_MAX: usize = 4;

pub(super) const FAMILY_V4: u8 = 4;
pub(super) const FAMILY_V6: u8 = 6;

/// The address of another node, as known to the sender of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The id of the node; zeroes: unknown.
    pub id: [u8; 16],
    /// The address, which need not be reachable.
    pub addr: SocketAddr,
}

/// Entries of the same length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct List<'a, const BYTES: usize> {
    pub(super) entries: &'a [[u8; BYTES]],
}

/// Hashes of added keys, of consecutive numbers.
pub type Hashes<'a> = List<'a, HASH_BYTES>;

/// Images of rebuilt blocks, of consecutive numbers.
pub type Images<'a> = List<'a, IMAGE_BYTES>;

/// Consecutive blocks of a filter.
pub type Blocks<'a> = List<'a, BLOCK_BYTES>;

/// Ids of nodes that may hold a key, at most [`HINTS_MAX`].
pub type Hints<'a> = List<'a, HINT_BYTES>;

impl<'a, const BYTES: usize> List<'a, BYTES> {
    /// A view of the whole entries in a payload.
    pub(super) const fn read(payload: &'a [u8]) -> Self {
        Self { entries: payload.as_chunks().0 }
    }

    /// The number of entries.
    pub const fn len(self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.entries.is_empty()
    }
}

impl<'a> Hashes<'a> {
    /// The hashes in order.
    pub fn iter(self) -> impl Iterator<Item = u64> + use<'a> {
        self.entries.iter().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

impl<'a> Images<'a> {
    /// The blocks in order: the number in the filter, and the words.
    pub fn iter(self) -> impl Iterator<Item = (u32, [u64; BLOCK_WORDS])> + use<'a> {
        self.entries.iter().filter_map(|bytes| {
            let (number, image) = bytes.split_first_chunk::<4>()?;
            Some((u32::from_le_bytes(*number), block(image)))
        })
    }
}

impl<'a> Blocks<'a> {
    /// The words of each block in order.
    pub fn iter(self) -> impl Iterator<Item = [u64; BLOCK_WORDS]> + use<'a> {
        self.entries.iter().map(|bytes| block(bytes))
    }
}

impl<'a> Hints<'a> {
    /// No hints.
    pub const NONE: Self = Self { entries: &[] };

    /// Hints of at most the first [`HINTS_MAX`] ids.
    pub fn new(ids: &'a [[u8; HINT_BYTES]]) -> Self {
        Self { entries: &ids[..ids.len().min(HINTS_MAX)] }
    }

    /// The ids in order.
    pub fn iter(self) -> impl Iterator<Item = [u8; HINT_BYTES]> + use<'a> {
        self.entries.iter().copied()
    }
}

/// The words of a block.
fn block(bytes: &[u8]) -> [u64; BLOCK_WORDS] {
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|at| words.get(at).map_or(0, |word| u64::from_le_bytes(*word)))
}

/// A function that splits a list into its first item and the rest.
type TakeItem<'a, T> = fn(&'a [u8]) -> Option<(T, &'a [u8])>;

/// Checks a list: the position of the first byte that is not part of an item. O(bytes).
fn check<'a, T>(bytes: &'a [u8], take: TakeItem<'a, T>) -> Result<(), usize> {
    let mut rest = bytes;
    while !rest.is_empty() {
        (_, rest) = take(rest).ok_or(bytes.len() - rest.len())?;
    }
    Ok(())
}

/// The items of a list, in order.
fn items<'a, T>(mut rest: &'a [u8], take: TakeItem<'a, T>) -> impl Iterator<Item = T> + Clone + use<'a, T> {
    std::iter::from_fn(move || {
        let (item, after) = take(rest)?;
        rest = after;
        Some(item)
    })
}

/// The nodes in a PEERS frame. All entries were checked when the view was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> Addresses<'a> {
    /// A view of a payload, or the position of the first invalid byte. O(bytes).
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, usize> {
        check(bytes, address).map(|()| Self { bytes })
    }

    /// The nodes in order.
    pub fn iter(self) -> impl Iterator<Item = Address> + use<'a> {
        items(self.bytes, address)
    }
}

/// The first node of a list, and the rest.
fn address(bytes: &[u8]) -> Option<(Address, &[u8])> {
    let (id, rest) = bytes.split_first_chunk::<16>()?;
    let (family, rest) = rest.split_first()?;
    let (ip, rest) = match *family {
        FAMILY_V4 => {
            let (ip, rest) = rest.split_first_chunk::<4>()?;
            (IpAddr::V4(Ipv4Addr::from(*ip)), rest)
        }
        FAMILY_V6 => {
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            (IpAddr::V6(Ipv6Addr::from(*ip)), rest)
        }
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some((Address { id: *id, addr: SocketAddr::new(ip, u16::from_le_bytes(*port)) }, rest))
}

/// The arguments of a command, each after its length (u32). All were checked when the view was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arguments<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> Arguments<'a> {
    /// Clears `out` and writes arguments to it, each below 4 GiB.
    pub fn write<'b>(out: &'a mut Vec<u8>, arguments: impl Iterator<Item = &'b [u8]>) -> Self {
        out.clear();
        for argument in arguments {
            out.extend(u32::try_from(argument.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend(argument);
        }
        Self { bytes: out }
    }

    /// A view of the end of a payload, or the position of the first invalid byte. O(arguments).
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, usize> {
        check(bytes, argument).map(|()| Self { bytes })
    }

    /// The arguments in order.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        items(self.bytes, argument)
    }
}

/// The first argument of a list, and the rest.
fn argument(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}
