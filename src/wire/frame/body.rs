//! The kinds of frames: a row for each, and how its payload is read and written.

use super::lists::{Addresses, BLOCK_BYTES, HASH_BYTES, Hashes, IMAGE_BYTES, Images, Words};
use super::{FrameError, FrameLimits, LIST_BYTES_MAX, MAGIC, Oversized, PAYLOAD_BYTES_MAX, REASON_BYTES_MAX};

/// Bytes of the longest key and value that any node may be configured to accept.
const KEY_BYTES_MAX: usize = 16 * 1024 * 1024;
const VALUE_BYTES_MAX: usize = 512 * 1024 * 1024;

const HEAD_BYTES: usize = 16;
/// Hash, version and milliseconds left, before the bytes of a value.
const VALUE_HEAD_BYTES: usize = 24;

/// Set in a BEAT that answers one.
const FLAG_ANSWER: u16 = 1;
/// Set in a GET that asks for the TTL only.
const FLAG_TTL_ONLY: u16 = 1;

/// Milliseconds left of a key without TTL.
const NO_TTL: u64 = u64::MAX;

/// A position in a changelog: every change before it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The life of the node.
    pub epoch: u64,
    /// The number of the next change.
    pub seq: u64,
}

/// What a GET asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// The value, with version and TTL.
    Value,
    /// Only the TTL.
    Ttl,
}

/// The content of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// A heartbeat. `request` counts them; an answer repeats it.
    Heartbeat {
        /// The end of the sender's changelog.
        head: Head,
        /// Whether it answers a heartbeat.
        is_answer: bool,
    },
    /// Added keys; `request` is the low half of the first one's number.
    Delta(Hashes<'a>),
    /// Rebuilt blocks; `request` is the low half of the first one's number.
    Block(Images<'a>),
    /// A snapshot of the filter follows; `request` is the low half of its position in the changes of blocks.
    Snap {
        /// Its position in the changelog.
        head: Head,
        /// Its size, as the logarithm of its blocks.
        size_log2: u8,
    },
    /// Blocks of the snapshot; `request` is the number of the first.
    Piece(Words<'a>),
    /// The snapshot is complete.
    SnapEnd,
    /// Asks for changes from a position on; without one, for a snapshot. `request` is the low half of the position in the
    /// changes of blocks.
    Resync(Option<Head>),
    /// A query for a key; the answer repeats its `request`.
    Get {
        /// The key.
        key: &'a [u8],
        /// What of it.
        wanted: Wanted,
    },
    /// The node holds the key.
    Value {
        /// Its hash.
        hash: u64,
        /// The version of its value.
        version: u64,
        /// Milliseconds until it expires; `None`, or the largest number, is no TTL.
        left_ms: Option<u64>,
        /// The value; empty if it was not asked for.
        value: &'a [u8],
    },
    /// The node does not hold the key.
    None {
        /// Its hash.
        hash: u64,
    },
    /// The key is longer than the node accepts, so it does not hold it: a NONE without a hash.
    NotTaken,
    /// Nodes that the sender is linked to.
    Peers(Addresses<'a>),
    /// The link ends, with a reason as text.
    Bye(&'a [u8]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Heartbeat,
    Delta,
    Block,
    Snap,
    Piece,
    SnapEnd,
    Resync,
    Get,
    Value,
    None,
    Peers,
    Bye,
}

/// What the header of a kind may say.
pub(super) struct Row {
    kind: Kind,
    /// The byte on the wire.
    pub(super) byte: u8,
    pub(super) name: &'static str,
    /// The flags that may be set.
    pub(super) flags: u16,
    /// Bytes of the longest payload.
    pub(super) bytes_max: usize,
    /// Whether a payload may have this length, and which lengths it may have.
    pub(super) fits: fn(usize) -> bool,
    pub(super) needs: &'static str,
    /// What of a payload of this length is longer than this node accepts.
    pub(super) oversized: fn(usize, FrameLimits) -> Option<Oversized>,
}

/// A row without flags, limited by [`PAYLOAD_BYTES_MAX`].
const fn row(kind: Kind, byte: u8, name: &'static str, fits: fn(usize) -> bool, needs: &'static str) -> Row {
    Row { kind, byte, name, flags: 0, bytes_max: PAYLOAD_BYTES_MAX, fits, needs, oversized: |_, _| None }
}

/// All kinds, in the order of [`Kind`].
const KINDS: [Row; 12] = [
    Row { flags: FLAG_ANSWER, ..row(Kind::Heartbeat, 1, "BEAT", |n| n == HEAD_BYTES, "16") },
    Row {
        bytes_max: LIST_BYTES_MAX,
        ..row(Kind::Delta, 2, "DELTA", |n| n.is_multiple_of(HASH_BYTES), "8 for each hash")
    },
    Row {
        bytes_max: LIST_BYTES_MAX,
        ..row(Kind::Block, 3, "BLOCK", |n| n.is_multiple_of(IMAGE_BYTES), "68 for each block")
    },
    row(Kind::Snap, 5, "SNAP", |n| n == HEAD_BYTES + 1, "17"),
    Row {
        bytes_max: LIST_BYTES_MAX,
        ..row(Kind::Piece, 6, "PIECE", |n| n.is_multiple_of(BLOCK_BYTES), "64 for each block")
    },
    row(Kind::SnapEnd, 7, "SNAPEND", |n| n == 0, "none"),
    row(Kind::Resync, 8, "RESYNC", |n| n == 0 || n == HEAD_BYTES, "none or 16"),
    Row {
        flags: FLAG_TTL_ONLY,
        bytes_max: KEY_BYTES_MAX,
        oversized: |n, limits| (n > limits.key_bytes_max).then_some(Oversized::Key),
        ..row(Kind::Get, 9, "GET", |_| true, "")
    },
    Row {
        bytes_max: VALUE_BYTES_MAX + VALUE_HEAD_BYTES,
        oversized: |n, limits| {
            (n.saturating_sub(VALUE_HEAD_BYTES) > limits.value_bytes_max).then_some(Oversized::Value)
        },
        ..row(Kind::Value, 10, "VALUE", |n| n >= VALUE_HEAD_BYTES, "24 before the value")
    },
    row(Kind::None, 11, "NONE", |n| n == 0 || n == HASH_BYTES, "none or 8"),
    row(Kind::Peers, 12, "PEERS", |_| true, ""),
    Row { bytes_max: REASON_BYTES_MAX, ..row(Kind::Bye, 13, "BYE", |_| true, "") },
];

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        KINDS.iter().find(|row| row.byte == byte).map(|row| row.kind)
    }

    pub(super) const fn row(self) -> &'static Row {
        &KINDS[self as usize]
    }
}

impl<'a> Body<'a> {
    /// Reads a payload. Its length is one that the kind may have.
    pub(super) fn read(kind: Kind, flags: u16, payload: &'a [u8]) -> Result<Self, FrameError> {
        let mut fields = Fields { rest: payload };
        let body = match kind {
            Kind::Heartbeat => {
                fields.head().map(|head| Body::Heartbeat { head, is_answer: flags & FLAG_ANSWER != 0 })
            }
            Kind::Delta => Some(Body::Delta(Hashes { entries: payload.as_chunks().0 })),
            Kind::Block => Some(Body::Block(Images { entries: payload.as_chunks().0 })),
            Kind::Snap => {
                fields.head().zip(fields.byte()).map(|(head, size_log2)| Body::Snap { head, size_log2 })
            }
            Kind::Piece => Some(Body::Piece(Words { blocks: payload.as_chunks().0 })),
            Kind::SnapEnd => Some(Body::SnapEnd),
            Kind::Resync => Some(Body::Resync(fields.head())),
            Kind::Get => {
                let wanted = if flags & FLAG_TTL_ONLY != 0 { Wanted::Ttl } else { Wanted::Value };
                Some(Body::Get { key: payload, wanted })
            }
            Kind::Value => fields.value(),
            Kind::None => Some(fields.number().map_or(Body::NotTaken, |hash| Body::None { hash })),
            Kind::Peers => Some(Body::Peers(Addresses::read(payload).map_err(FrameError::Address)?)),
            Kind::Bye => Some(Body::Bye(payload)),
        };
        // Cannot fail, since the length was checked.
        body.ok_or(FrameError::Length(kind.row().name, 0, "more"))
    }
}

/// Appends one frame to `out`. A payload over its limit is refused by the reader: keys and values are bounded
/// before, and lists are written by the functions of `write`.
pub fn put(out: &mut Vec<u8>, clock: u64, request: u32, body: &Body<'_>) {
    match *body {
        Body::Heartbeat { head, is_answer } => {
            let flags = if is_answer { FLAG_ANSWER } else { 0 };
            put_frame(out, Kind::Heartbeat, flags, request, clock, |out| put_head(out, head));
        }
        Body::Delta(hashes) => {
            put_frame(out, Kind::Delta, 0, request, clock, |out| out.extend(hashes.entries.as_flattened()));
        }
        Body::Block(images) => {
            put_frame(out, Kind::Block, 0, request, clock, |out| out.extend(images.entries.as_flattened()));
        }
        Body::Snap { head, size_log2 } => put_frame(out, Kind::Snap, 0, request, clock, |out| {
            put_head(out, head);
            out.push(size_log2);
        }),
        Body::Piece(words) => {
            put_frame(out, Kind::Piece, 0, request, clock, |out| out.extend(words.blocks.as_flattened()));
        }
        Body::SnapEnd => put_frame(out, Kind::SnapEnd, 0, request, clock, |_| {}),
        Body::Resync(head) => put_frame(out, Kind::Resync, 0, request, clock, |out| {
            if let Some(head) = head {
                put_head(out, head);
            }
        }),
        Body::Get { key, wanted } => {
            let flags = match wanted {
                Wanted::Value => 0,
                Wanted::Ttl => FLAG_TTL_ONLY,
            };
            put_frame(out, Kind::Get, flags, request, clock, |out| out.extend(key));
        }
        Body::Value { hash, version, left_ms, value } => {
            put_frame(out, Kind::Value, 0, request, clock, |out| {
                out.reserve(VALUE_HEAD_BYTES + value.len());
                out.extend(hash.to_le_bytes());
                out.extend(version.to_le_bytes());
                out.extend(left_ms.unwrap_or(NO_TTL).to_le_bytes());
                out.extend(value);
            });
        }
        Body::None { hash } => {
            put_frame(out, Kind::None, 0, request, clock, |out| out.extend(hash.to_le_bytes()));
        }
        Body::NotTaken => put_frame(out, Kind::None, 0, request, clock, |_| {}),
        Body::Peers(peers) => put_frame(out, Kind::Peers, 0, request, clock, |out| out.extend(peers.bytes)),
        Body::Bye(reason) => {
            let reason = &reason[..reason.len().min(REASON_BYTES_MAX)];
            put_frame(out, Kind::Bye, 0, request, clock, |out| out.extend(reason));
        }
    }
}

fn put_head(out: &mut Vec<u8>, head: Head) {
    out.extend(head.epoch.to_le_bytes());
    out.extend(head.seq.to_le_bytes());
}

/// Appends a header and the payload that `payload` writes, then sets the length in the header.
pub(super) fn put_frame(
    out: &mut Vec<u8>,
    kind: Kind,
    flags: u16,
    request: u32,
    clock: u64,
    payload: impl FnOnce(&mut Vec<u8>),
) {
    out.extend([MAGIC, kind.row().byte]);
    out.extend(flags.to_le_bytes());
    let length_at = out.len();
    out.extend([0; 4]);
    out.extend(request.to_le_bytes());
    out.extend(clock.to_le_bytes());
    let start = out.len();
    payload(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Reads a payload from its front.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn number(&mut self) -> Option<u64> {
        let (bytes, rest) = self.rest.split_first_chunk::<8>()?;
        self.rest = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    fn head(&mut self) -> Option<Head> {
        Some(Head { epoch: self.number()?, seq: self.number()? })
    }

    fn value(mut self) -> Option<Body<'a>> {
        let (hash, version) = (self.number()?, self.number()?);
        let left_ms = Some(self.number()?).filter(|&left_ms| left_ms != NO_TTL);
        Some(Body::Value { hash, version, left_ms, value: self.rest })
    }
}

#[cfg(test)]
mod tests {
    use super::{KINDS, Kind};

    #[test]
    fn rows_stand_in_the_order_of_their_kinds_and_bytes() {
        for (at, row) in KINDS.iter().enumerate() {
            assert_eq!(row.kind as usize, at, "{}", row.name);
            assert_eq!(Kind::from_byte(row.byte), Some(row.kind));
        }
    }
}
