//! Writes long lists as frames: as many frames as the limit of their payload requires.

use super::body::{Body, put, put_frame};
use super::kind::Kind;
use super::lists::{Address, BLOCK_BYTES, BLOCK_WORDS, FAMILY_V4, FAMILY_V6, IMAGE_BYTES};
use super::{HEADER_BYTES, LIST_BYTES_MAX, PAYLOAD_BYTES_MAX};
use std::net::IpAddr;

/// The positions of the kind, of the payload's length and of the number in a header.
const KIND_AT: usize = 1;
const LENGTH_AT: usize = 4;
const REQUEST_AT: usize = 8;

/// Appends the hashes of added keys as DELTA frames. `first_seq` is the number of the first.
pub fn put_deltas(out: &mut Vec<u8>, clock: u64, first_seq: u64, hashes: impl Iterator<Item = u64>) {
    put_list(out, Kind::Delta, clock, first_seq, hashes.map(u64::to_le_bytes));
}

/// Appends images of blocks, each with its number in the filter, as BLOCK frames. `first_seq` is the number of the
/// first change.
pub fn put_blocks(
    out: &mut Vec<u8>,
    clock: u64,
    first_seq: u64,
    images: impl Iterator<Item = (u32, [u64; BLOCK_WORDS])>,
) {
    let entries = images.map(|(number, words)| {
        let mut entry = [0; IMAGE_BYTES];
        let (place, image) = entry.split_at_mut(4);
        place.copy_from_slice(&number.to_le_bytes());
        image.as_chunks_mut().0.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
        entry
    });
    put_list(out, Kind::Block, clock, first_seq, entries);
}

/// Appends blocks of a snapshot, eight words each, as PIECE frames. Words after the last whole block are left out.
pub fn put_piece(out: &mut Vec<u8>, clock: u64, first_block: u32, words: &[u64]) {
    let (blocks, _) = words.as_chunks::<BLOCK_WORDS>();
    let entries = blocks.iter().map(|block| {
        let mut entry = [0; BLOCK_BYTES];
        entry.as_chunks_mut().0.iter_mut().zip(block).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
        entry
    });
    put_list(out, Kind::Piece, clock, first_block.into(), entries);
}

/// Appends blocks of a filter of discarded deletions, eight words each, as one DISCARDED frame, which must be able to
/// hold them.
pub fn put_discarded(out: &mut Vec<u8>, clock: u64, first_block: u32, version: u64, words: &[u64]) {
    put_frame(out, Kind::Discarded, 0, first_block, clock, |out| {
        out.extend(version.to_le_bytes());
        words.iter().for_each(|word| out.extend(word.to_le_bytes()));
    });
}

/// Appends the addresses of nodes as PEERS frames, at least one. Scope and flow of IPv6 addresses are left out.
pub fn put_peers(out: &mut Vec<u8>, clock: u64, entries: impl Iterator<Item = Address>) {
    const ENTRY_BYTES_MAX: usize = 16 + 1 + 16 + 2;
    let mut entries = entries.peekable();
    loop {
        put_frame(out, Kind::Peers, 0, 0, clock, |out| {
            for Address { id, addr } in entries.by_ref().take(PAYLOAD_BYTES_MAX / ENTRY_BYTES_MAX) {
                out.extend(id);
                match addr.ip() {
                    IpAddr::V4(ip) => {
                        out.push(FAMILY_V4);
                        out.extend(ip.octets());
                    }
                    IpAddr::V6(ip) => {
                        out.push(FAMILY_V6);
                        out.extend(ip.octets());
                    }
                }
                out.extend(addr.port().to_le_bytes());
            }
        });
        if entries.peek().is_none() {
            return;
        }
    }
}

/// Appends frames of entries, which are numbered from `first`.
fn put_list<const N: usize>(
    out: &mut Vec<u8>,
    kind: Kind,
    clock: u64,
    first: u64,
    entries: impl Iterator<Item = [u8; N]>,
) {
    let mut number = first;
    let mut entries = entries.peekable();
    while entries.peek().is_some() {
        put_frame(out, kind, 0, low_half(number), clock, |out| {
            for entry in entries.by_ref().take(LIST_BYTES_MAX / N) {
                out.extend(entry);
                number = number.wrapping_add(1);
            }
        });
    }
}

/// Appends a frame without the last `bytes` bytes of its payload, which are to follow: the last field of `body` is empty.
pub fn put_without_end(out: &mut Vec<u8>, clock: u64, request: u32, body: &Body<'_>, bytes: usize) {
    let begin = out.len();
    put(out, clock, request, body);
    let length = u32::try_from(out.len() - begin - HEADER_BYTES + bytes).unwrap_or(u32::MAX);
    out[begin + LENGTH_AT..begin + LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
}

/// Appends the header of a fragment of `bytes` bytes, which are to follow.
pub fn put_fragment_head(out: &mut Vec<u8>, bytes: usize) {
    let begin = out.len();
    put_frame(out, Kind::Fragment, 0, 0, 0, |_| {});
    let length = u32::try_from(bytes).unwrap_or(u32::MAX);
    out[begin + LENGTH_AT..begin + LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
}

/// The number of the query that the frame at the start of `bytes` answers, by its header; `None` if it is no answer with
/// data, or the header is incomplete.
pub fn number_answered(bytes: &[u8]) -> Option<u32> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let kind = Kind::from_byte(header[KIND_AT])?;
    let number = header[REQUEST_AT..].first_chunk::<4>()?;
    matches!(kind, Kind::Value | Kind::Executed).then(|| u32::from_le_bytes(*number))
}

/// The low half of a number: the `request` field of the header.
pub const fn low_half(number: u64) -> u32 {
    (number & 0xFFFF_FFFF) as u32
}

/// The bytes of the frame at the start of `bytes`, by its header; `None` if the header is incomplete.
pub fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = header[LENGTH_AT..].first_chunk::<4>()?;
    Some((u32::from_le_bytes(*length) as usize).saturating_add(HEADER_BYTES))
}
