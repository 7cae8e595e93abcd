//! Frames: the messages between two linked nodes. A header of 20 bytes, then a payload.
//!
//! ```text
//!  0      1      2        4          8          12             20
//!  | 0xB1 | kind | flags  | length   | request  | clock        | payload …
//!  | u8   | u8   | u16    | u32      | u32      | u64          | `length` bytes
//! ```
//!
//! Integers are little-endian. A header is checked as soon as it is complete, before its payload arrives. Reading
//! allocates nothing: the lists in payloads are views of the input. Each frame has exactly one encoding.
//!
//! `kind` has the kinds and what their headers may contain, `body` reads and writes the payloads, `lists` and `write`
//! the lists of many entries. The node executes frames, and checks the ranges of their numbers (a filter's size, a
//! port).

mod body;
mod kind;
mod lists;
mod write;

pub use body::{Body, Head, KeyState, RemoteCommand, Wanted, put};
pub use lists::{Address, Addresses, Arguments, Blocks, HINTS_MAX, Hashes, Hints, Images, List};
pub use write::{
    frame_bytes, low_half, number_answered, put_blocks, put_deltas, put_discarded, put_fragment_head,
    put_peers, put_piece, put_without_end,
};

use kind::Kind;
use std::fmt;

/// The first byte of every frame. No UTF-8 text begins with it: it is a continuation byte.
pub const MAGIC: u8 = 0xB1;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 20;

/// Bytes of the longest payload without a key or value.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Bytes of hashes, or of blocks, in one frame. Small, so that urgent frames do not wait long and one frame is
/// processed fast.
pub const LIST_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a long frame in one fragment: other frames wait for the rest of one fragment.
pub const FRAGMENT_BYTES_MAX: usize = 128 * 1024;

/// The reason in the BYE to a node with the id of another linked node. The receiver draws another id.
pub const SAME_ID_REASON: &[u8] = b"another node is linked under your node id; draw another";

/// Bytes of the reason in a BYE.
pub const REASON_BYTES_MAX: usize = 128;

/// The limits of this node for keys and values in frames.
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// Bytes of a key.
    pub key_bytes_max: usize,
    /// Bytes of a value.
    pub value_bytes_max: usize,
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The number that an answer repeats, or a number of the kind; see [`Body`]. Otherwise 0.
    pub request: u32,
    /// At least the highest version that the sender has given, and at least its wall clock.
    pub clock: u64,
    /// The kind, with its payload.
    pub body: Body<'a>,
}

/// The result of parsing the start of some input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A complete frame.
    Frame {
        /// The frame.
        frame: Frame<'a>,
        /// Its bytes of input.
        consumed: usize,
    },
    /// A key or a value longer than this node accepts: its limits are lower than the sender's. The caller must skip
    /// `skip` bytes of payload after the header as they arrive.
    Oversized {
        /// Which of them.
        what: Oversized,
        /// The number of the query.
        request: u32,
        /// Bytes of the header.
        consumed: usize,
        /// Bytes of the payload.
        skip: usize,
    },
    /// The header of a fragment: the next `bytes` bytes continue the frame that is sent in fragments.
    Fragment {
        /// Bytes of the header.
        consumed: usize,
        /// Bytes of the payload.
        bytes: usize,
    },
    /// The beginning of a frame.
    Partial,
    /// Not a frame, whatever follows.
    Broken(FrameError),
}

/// A part of a frame that may exceed the limits of the receiver without an error of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oversized {
    /// The key of a GET or DELETE, or the arguments of an EXECUTE.
    Key,
    /// The value of a VALUE, or the reply of an EXECUTED.
    Value,
    /// The key of an INVALIDATE or NEWER: this node holds no such key.
    Notice,
}

/// An error in a frame; the link must be closed. Displays as a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The first byte is not [`MAGIC`].
    Magic(u8),
    /// An unknown kind.
    Kind(u8),
    /// Flags that the kind does not have.
    Flags(&'static str, u16),
    /// A payload over its limit.
    TooLong(&'static str, u32, usize),
    /// A payload of a length that the kind cannot have.
    Length(&'static str, u32, &'static str),
    /// No node at this byte of the payload.
    Address(usize),
    /// No part of a command at this byte of the payload.
    Command(usize),
    /// Fragments that are not exactly one frame.
    Fragment,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(byte) => write!(f, "a frame begins with 0xb1, not with {byte:#04x}"),
            Self::Kind(kind) => write!(f, "there is no frame of kind {kind}"),
            Self::Flags(kind, flags) => write!(f, "{kind} has no flags {flags:#06x}"),
            Self::TooLong(kind, length, limit) => {
                write!(f, "{kind} of {length} bytes is longer than its limit of {limit}")
            }
            Self::Length(kind, length, needs) => write!(f, "{kind} of {length} bytes, but it needs {needs}"),
            Self::Address(at) => write!(f, "PEERS has no node at byte {at}"),
            Self::Command(at) => write!(f, "EXECUTE has no command at byte {at}"),
            Self::Fragment => f.write_str("FRAGMENTs have to be exactly one frame of another kind"),
        }
    }
}

/// Parses the first frame of `input`. An invalid header is an error before its payload arrives. O(1), for lists
/// O(entries); values are not read.
pub fn parse(input: &[u8], limits: FrameLimits) -> Parsed<'_> {
    match input.first() {
        None => return Parsed::Partial,
        Some(&MAGIC) => {}
        Some(&other) => return Parsed::Broken(FrameError::Magic(other)),
    }
    let Some((header, rest)) = input.split_first_chunk::<HEADER_BYTES>() else { return Parsed::Partial };
    let header = match Header::read(header) {
        Ok(header) => header,
        Err(error) => return Parsed::Broken(error),
    };
    if let Some(what) = (header.kind.row().oversized)(header.length, limits) {
        let Header { request, length, .. } = header;
        return Parsed::Oversized { what, request, consumed: HEADER_BYTES, skip: length };
    }
    if header.kind == Kind::Fragment {
        return Parsed::Fragment { consumed: HEADER_BYTES, bytes: header.length };
    }
    let Some(payload) = rest.get(..header.length) else { return Parsed::Partial };
    match Body::read(header.kind, header.flags, payload) {
        Ok(body) => Parsed::Frame {
            frame: Frame { request: header.request, clock: header.clock, body },
            consumed: HEADER_BYTES + header.length,
        },
        Err(error) => Parsed::Broken(error),
    }
}

/// A header whose kind, flags and length fit together.
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: Kind,
    flags: u16,
    length: usize,
    request: u32,
    clock: u64,
}

impl Header {
    fn read(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let &[_, kind, f0, f1, l0, l1, l2, l3, r0, r1, r2, r3, clock @ ..] = bytes;
        let kind = Kind::from_byte(kind).ok_or(FrameError::Kind(kind))?;
        let row = kind.row();
        let flags = u16::from_le_bytes([f0, f1]);
        if flags & !row.flags != 0 {
            return Err(FrameError::Flags(row.name, flags));
        }
        let announced = u32::from_le_bytes([l0, l1, l2, l3]);
        let too_long = FrameError::TooLong(row.name, announced, row.bytes_max);
        let length = usize::try_from(announced).ok().filter(|length| *length <= row.bytes_max);
        let length = length.ok_or(too_long)?;
        if !(row.fits)(length) {
            return Err(FrameError::Length(row.name, announced, row.needs));
        }
        let request = u32::from_le_bytes([r0, r1, r2, r3]);
        Ok(Self { kind, flags, length, request, clock: u64::from_le_bytes(clock) })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Address, Arguments, Body, Frame, FrameError, FrameLimits, HEADER_BYTES, Hints, KeyState, MAGIC,
        Oversized, Parsed, RemoteCommand, Wanted, low_half, parse, put, put_blocks, put_deltas, put_peers,
        put_piece,
    };
    use crate::wire::encoder::Protocol;
    use std::net::SocketAddr;

    const LIMITS: FrameLimits = FrameLimits { key_bytes_max: 40, value_bytes_max: 100 };

    /// A header with nothing after it.
    fn header(kind: u8, flags: u16, length: u32) -> Vec<u8> {
        let mut out = vec![MAGIC, kind];
        out.extend(flags.to_le_bytes());
        out.extend(length.to_le_bytes());
        out.extend([0; 12]);
        out
    }

    fn sentence(input: &[u8]) -> String {
        let Parsed::Broken(error) = parse(input, LIMITS) else { panic!("{input:?} is not broken") };
        error.to_string()
    }

    /// All frames of some bytes.
    fn frames(mut input: &[u8]) -> Vec<Frame<'_>> {
        let mut found = Vec::new();
        while !input.is_empty() {
            let Parsed::Frame { frame, consumed } = parse(input, LIMITS) else { panic!("{input:?}") };
            found.push(frame);
            input = &input[consumed..];
        }
        found
    }

    #[test]
    fn frame_of_each_kind_is_the_bytes_of_the_specification() {
        let mut out = Vec::new();
        let none = Body::None { hash: 0x1122, moved_version: 3, hints: Hints::new(&[[9; 16]]) };
        put(&mut out, 0x0102, 7, &none);
        let head = [0xB1, 11, 0, 0, 32, 0, 0, 0, 7, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0];
        let hash_and_version = [0x22, 0x11, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(out, [&head[..], &hash_and_version, &[9; 16]].concat());
        out.clear();
        put(&mut out, 0, 0, &Body::Invalidate { key: b"k", version: 5, state: KeyState::Gone });
        assert_eq!(out[..5], [0xB1, 14, 1, 0, 9]);
        assert_eq!(out[HEADER_BYTES..], *b"\x05\0\0\0\0\0\0\0k");
        out.clear();
        let mut arguments = Vec::new();
        put(
            &mut out,
            0,
            0,
            &Body::Execute(RemoteCommand {
                name: b"INCR",
                arguments: Arguments::write(&mut arguments, [&b"k"[..]].into_iter()),
                create: true,
                deadline: 1,
                refused: Hints::new(&[[9; 16]]),
                protocol: Protocol::Resp2,
            }),
        );
        assert_eq!(out[..4], [0xB1, 18, 1, 0]);
        let rest = b"\x02\x04INCR\x01\0\0\0k";
        assert_eq!(out[HEADER_BYTES..], [&[1, 0, 0, 0, 0, 0, 0, 0, 1][..], &[9; 16], rest].concat());
        out.clear();
        put(&mut out, 0, 0, &Body::Get { key: b"k", wanted: Wanted::Ttl });
        assert_eq!(out[..5], [0xB1, 9, 1, 0, 1]);
        assert_eq!(out[HEADER_BYTES..], *b"k");
        out.clear();
        let addr = "1.2.3.4:258".parse().unwrap();
        put_peers(&mut out, 0, [Address { id: [9; 16], addr }].into_iter());
        assert_eq!(out[HEADER_BYTES..], [&[9; 16][..], &[4, 1, 2, 3, 4, 2, 1]].concat());
        out.clear();
        put(&mut out, 0, 0, &Body::Value { hash: 0, version: 0, left_ms: None, value: b"v" });
        assert_eq!(out[HEADER_BYTES + 16..], [&[0xFF; 8][..], b"v"].concat());
    }

    #[test]
    fn length_over_its_limit_is_refused_before_the_payload_is_waited_for() {
        for (kind, limit) in [
            (2, 16_384),
            (3, 16_384),
            (6, 16_384),
            (9, 1 << 24),
            (10, (1 << 29) + 24),
            (12, 65_536),
            (13, 128),
            (25, 131_072),
        ] {
            assert!(sentence(&header(kind, 0, u32::MAX)).contains("longer than its limit"), "{kind}");
            let over = sentence(&header(kind, 0, limit + 1));
            assert!(over.contains(&format!("longer than its limit of {limit}")), "{kind}: {over}");
        }
        for kind in [2, 6, 9, 10, 12, 13] {
            let limit = [0, 0, 16_384, 0, 0, 0, 16_384, 0, 0, 40, 124, 0, 65_536, 128][usize::from(kind)];
            assert_eq!(parse(&header(kind, 0, limit), LIMITS), Parsed::Partial, "{kind}");
        }
    }

    #[test]
    fn key_and_value_over_the_limits_of_this_node_are_to_be_passed_over() {
        for (kind, limit, what) in [
            (9, 40, Oversized::Key),
            (10, 124, Oversized::Value),
            (14, 48, Oversized::Notice),
            (16, 48, Oversized::Key),
            (18, 140 + (64 << 10), Oversized::Key),
            (19, 116 + (64 << 10), Oversized::Value),
        ] {
            let over = Parsed::Oversized { what, request: 0, consumed: HEADER_BYTES, skip: limit + 1 };
            let header = header(kind, 0, u32::try_from(limit + 1).unwrap());
            assert_eq!(parse(&header, LIMITS), over);
        }
    }

    #[test]
    fn length_that_the_kind_cannot_have_is_refused_before_the_payload_is_waited_for() {
        for (kind, lengths) in [
            (1, &[0, 24, 31, 33][..]),
            (2, &[1, 9]),
            (3, &[64, 69]),
            (5, &[16, 18]),
            (6, &[1, 65]),
            (7, &[1]),
            (8, &[1, 15, 17]),
            (10, &[0, 23]),
            (11, &[1, 8, 15, 17, 96]),
            (14, &[0, 7]),
            (17, &[0, 15, 31]),
            (18, &[10]),
            (19, &[15]),
            (20, &[0, 17]),
            (21, &[0, 9]),
            (23, &[7]),
            (24, &[0, 71]),
            (25, &[0]),
        ] {
            for &length in lengths {
                assert!(sentence(&header(kind, 0, length)).contains("but it needs"), "{kind} {length}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_frame_are_reported_as_what_they_are() {
        assert_eq!(sentence(b"GET a\n"), "a frame begins with 0xb1, not with 0x47");
        assert_eq!(sentence(&header(26, 0, 0)), "there is no frame of kind 26");
        assert_eq!(sentence(&header(0, 0, 0)), "there is no frame of kind 0");
        assert_eq!(sentence(&header(2, 1, 0)), "DELTA has no flags 0x0001");
        assert_eq!(sentence(&header(1, 2, 16)), "BEAT has no flags 0x0002");
        assert_eq!(
            sentence(&header(11, 0, 9)),
            "NONE of 9 bytes, but it needs none, or 16 and 16 for each of up to 4 hints"
        );
        let mut command = header(18, 0, 12);
        command.extend([0; 12]);
        assert_eq!(sentence(&command), "EXECUTE has no command at byte 9");
        command[HEADER_BYTES + 9] = 1;
        assert_eq!(sentence(&command), "EXECUTE has no command at byte 11");
        command[HEADER_BYTES + 10] = 2;
        assert_eq!(sentence(&command), "EXECUTE has no command at byte 10");
        command[HEADER_BYTES + 8] = 1;
        assert_eq!(sentence(&command), "EXECUTE has no command at byte 8");
        let mut peers = header(12, 0, 23);
        peers.extend([0; 23]);
        assert_eq!(sentence(&peers), "PEERS has no node at byte 0");
        peers[HEADER_BYTES + 16] = 4;
        assert_eq!(frames(&peers).len(), 1);
        peers[HEADER_BYTES + 16] = 6;
        assert_eq!(parse(&peers, LIMITS), Parsed::Broken(FrameError::Address(0)));
    }

    #[test]
    fn long_lists_become_several_frames_with_numbers_that_go_on() {
        let first = u64::from(u32::MAX) - 5;
        let mut out = Vec::new();
        put_deltas(&mut out, 3, first, (0..20_000).map(|hash| hash * 7));
        let found = frames(&out);
        let (mut hashes, mut next) = (Vec::new(), first);
        for Frame { request, clock, body } in found {
            let Body::Delta(list) = body else { panic!("{body:?}") };
            assert_eq!((clock, request), (3, low_half(next)));
            next += list.len() as u64;
            hashes.extend(list.iter());
        }
        assert!(hashes.into_iter().eq((0..20_000).map(|hash| hash * 7)));
        out.clear();
        put_piece(&mut out, 0, 9, &(0..512 * 8 + 3).collect::<Vec<u64>>());
        let found = frames(&out);
        assert_eq!(found.iter().map(|frame| frame.request).collect::<Vec<_>>(), [9, 9 + 256]);
        let words = found.into_iter().flat_map(|frame| {
            let Body::Piece(blocks) = frame.body else { panic!("{frame:?}") };
            blocks.iter().flatten()
        });
        assert!(words.eq(0..512 * 8));
        out.clear();
        put_blocks(&mut out, 0, 1, (0..1_000).map(|number| (number, [u64::from(number); 8])));
        let counts = frames(&out).into_iter().map(|frame| {
            let Body::Block(images) = frame.body else { panic!("{frame:?}") };
            images.len()
        });
        assert_eq!(counts.collect::<Vec<_>>(), [240, 240, 240, 240, 40]);
        out.clear();
        let given: Vec<_> = (0..5_000)
            .map(|n: u16| Address { id: [7; 16], addr: SocketAddr::from(([n.to_be_bytes()[1]; 16], n)) })
            .collect();
        put_peers(&mut out, 0, given.iter().copied());
        let found = frames(&out).into_iter().flat_map(|frame| {
            let Body::Peers(list) = frame.body else { panic!("{frame:?}") };
            list.iter()
        });
        assert_eq!(found.collect::<Vec<_>>(), given);
        out.clear();
        put_deltas(&mut out, 0, 1, std::iter::empty());
        assert!(out.is_empty());
    }

    #[test]
    fn reason_of_any_length_makes_a_frame() {
        let mut out = Vec::new();
        put(&mut out, 0, 0, &Body::Bye(&[b'x'; 300]));
        assert_eq!(frames(&out)[0].body, Body::Bye(&[b'x'; 128]));
    }
}
