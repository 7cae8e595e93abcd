//! The table of frame kinds: one row per kind, with the flags and lengths that its header may have.

use super::lists::{BLOCK_BYTES, HASH_BYTES, HINT_BYTES, HINTS_MAX, IMAGE_BYTES};
use super::{
    FRAGMENT_BYTES_MAX, FrameLimits, LIST_BYTES_MAX, Oversized, PAYLOAD_BYTES_MAX, REASON_BYTES_MAX,
};

/// Bytes of the longest key and value that any node may be configured to accept.
const KEY_BYTES_MAX: usize = 16 * 1024 * 1024;
const VALUE_BYTES_MAX: usize = 512 * 1024 * 1024;

const HEAD_BYTES: usize = 16;
const BEAT_BYTES: usize = HEAD_BYTES + 16;
const VERSION_BYTES: usize = 8;
/// Hash, version and milliseconds left, before the bytes of a value.
pub(super) const VALUE_HEAD_BYTES: usize = 24;
/// Hash and version, before the bytes of a reply or the hints.
const HASH_AND_VERSION_BYTES: usize = 16;
/// Deadline, the number of refusals, protocol and the length of the name, before the name of a command.
const EXECUTE_HEAD_BYTES: usize = 11;
/// Bytes that the arguments of a command may have beside a key and a value.
const ARGUMENTS_EXTRA_BYTES: usize = 64 * 1024;

/// Set in a BEAT that answers one.
pub(super) const FLAG_ANSWER: u16 = 1;
/// Set in a GET for the TTL only.
pub(super) const FLAG_TTL_ONLY: u16 = 1;
/// Set in an INVALIDATE, NEWER or EXECUTED if the version is that of a deletion.
pub(super) const FLAG_GONE: u16 = 1;
/// Set in a DELETED if there was a value.
pub(super) const FLAG_HAD: u16 = 1;
/// Set in an EXECUTE that may create the key.
pub(super) const FLAG_CREATE: u16 = 1;

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
    Invalidate,
    Newer,
    Delete,
    Deleted,
    Execute,
    Executed,
    NotHolder,
    Floor,
    Floored,
    NotDone,
    Discarded,
    Fragment,
}

/// One kind: its byte and name, and the flags and lengths that its header may have.
pub(super) struct Row {
    kind: Kind,
    /// The byte on the wire.
    pub(super) byte: u8,
    pub(super) name: &'static str,
    /// The flags that may be set.
    pub(super) flags: u16,
    /// Bytes of the longest payload.
    pub(super) bytes_max: usize,
    /// Whether a payload may have this length.
    pub(super) fits: fn(usize) -> bool,
    pub(super) needs: &'static str,
    /// The part of a payload of this length that is longer than this node accepts, if any.
    pub(super) oversized: fn(usize, FrameLimits) -> Option<Oversized>,
}

/// A row without flags, limited by [`PAYLOAD_BYTES_MAX`].
const fn row(kind: Kind, byte: u8, name: &'static str, fits: fn(usize) -> bool, needs: &'static str) -> Row {
    Row { kind, byte, name, flags: 0, bytes_max: PAYLOAD_BYTES_MAX, fits, needs, oversized: |_, _| None }
}

/// A row for a version and a key.
const fn versioned_key(kind: Kind, byte: u8, name: &'static str, flags: u16) -> Row {
    Row {
        flags,
        bytes_max: VERSION_BYTES + KEY_BYTES_MAX,
        ..row(kind, byte, name, |n| n >= VERSION_BYTES, "8 before the key")
    }
}

/// A row for a hash, a version and hints.
const fn hinted(kind: Kind, byte: u8, name: &'static str, flags: u16) -> Row {
    Row { flags, ..row(kind, byte, name, fits_hints, "16, and 16 for each of up to 4 hints") }
}

const fn fits_hints(length: usize) -> bool {
    length >= HASH_AND_VERSION_BYTES
        && length <= HASH_AND_VERSION_BYTES + HINTS_MAX * HINT_BYTES
        && (length - HASH_AND_VERSION_BYTES).is_multiple_of(HINT_BYTES)
}

/// Whether a payload of a version and a key has a key over the limit.
const fn has_long_key(length: usize, limits: FrameLimits) -> bool {
    length.saturating_sub(VERSION_BYTES) > limits.key_bytes_max
}

/// All kinds, in the order of [`Kind`].
const KINDS: [Row; 24] = [
    Row { flags: FLAG_ANSWER, ..row(Kind::Heartbeat, 1, "BEAT", |n| n == BEAT_BYTES, "32") },
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
    row(Kind::None, 11, "NONE", |n| n == 0 || fits_hints(n), "none, or 16 and 16 for each of up to 4 hints"),
    row(Kind::Peers, 12, "PEERS", |_| true, ""),
    Row { bytes_max: REASON_BYTES_MAX, ..row(Kind::Bye, 13, "BYE", |_| true, "") },
    Row {
        oversized: |n, limits| has_long_key(n, limits).then_some(Oversized::Notice),
        ..versioned_key(Kind::Invalidate, 14, "INVALIDATE", FLAG_GONE)
    },
    Row {
        oversized: |n, limits| has_long_key(n, limits).then_some(Oversized::Notice),
        ..versioned_key(Kind::Newer, 15, "NEWER", FLAG_GONE)
    },
    Row {
        oversized: |n, limits| has_long_key(n, limits).then_some(Oversized::Key),
        ..versioned_key(Kind::Delete, 16, "DELETE", 0)
    },
    hinted(Kind::Deleted, 17, "DELETED", FLAG_HAD),
    Row {
        flags: FLAG_CREATE,
        bytes_max: KEY_BYTES_MAX + VALUE_BYTES_MAX + ARGUMENTS_EXTRA_BYTES,
        oversized: |n, limits| {
            (n > limits.key_bytes_max + limits.value_bytes_max + ARGUMENTS_EXTRA_BYTES)
                .then_some(Oversized::Key)
        },
        ..row(Kind::Execute, 18, "EXECUTE", |n| n >= EXECUTE_HEAD_BYTES, "11 before the name")
    },
    Row {
        flags: FLAG_GONE,
        bytes_max: HASH_AND_VERSION_BYTES + VALUE_BYTES_MAX + ARGUMENTS_EXTRA_BYTES,
        oversized: |n, limits| {
            let bytes_max = HASH_AND_VERSION_BYTES + limits.value_bytes_max + ARGUMENTS_EXTRA_BYTES;
            (n > bytes_max).then_some(Oversized::Value)
        },
        ..row(Kind::Executed, 19, "EXECUTED", |n| n >= HASH_AND_VERSION_BYTES, "16 before the reply")
    },
    hinted(Kind::NotHolder, 20, "NOTHOLDER", 0),
    row(Kind::Floor, 21, "FLOOR", |n| n == VERSION_BYTES, "8"),
    row(Kind::Floored, 22, "FLOORED", |n| n == VERSION_BYTES, "8"),
    row(Kind::NotDone, 23, "NOTDONE", |n| n == HASH_BYTES, "8"),
    Row {
        bytes_max: VERSION_BYTES + LIST_BYTES_MAX,
        ..row(
            Kind::Discarded,
            24,
            "DISCARDED",
            |n| n >= VERSION_BYTES && (n - VERSION_BYTES).is_multiple_of(BLOCK_BYTES),
            "8, and 64 for each block",
        )
    },
    Row { bytes_max: FRAGMENT_BYTES_MAX, ..row(Kind::Fragment, 25, "FRAGMENT", |n| n > 0, "at least 1") },
];

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        KINDS.iter().find(|row| row.byte == byte).map(|row| row.kind)
    }

    pub(super) const fn row(self) -> &'static Row {
        &KINDS[self as usize]
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
