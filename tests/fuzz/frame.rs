//! Fuzz target: frames. A valid frame is encoded again to the same bytes, its prefixes are partial, its lists have the
//! stated lengths; an invalid frame gets one error of printable text.

use olivia::wire::frame::{Body, FRAGMENT_BYTES_MAX, FrameLimits, HEADER_BYTES, Parsed, parse, put};

/// Bytes that no sentence about a frame needs more of.
const SENTENCE_BYTES_MAX: usize = 120;

/// The first two bytes are the limits of keys and values, the others are the input.
pub fn run(data: &[u8]) {
    let Some(([key, value], input)) = data.split_first_chunk() else { return };
    let limits = FrameLimits { key_bytes_max: usize::from(*key), value_bytes_max: usize::from(*value) };
    let mut rest = input;
    loop {
        match parse(rest, limits) {
            Parsed::Partial => return check_partial(rest, limits),
            Parsed::Oversized { consumed, skip, .. } => {
                assert!(consumed == HEADER_BYTES && skip > usize::from(*key.min(value)));
                rest = rest.get(consumed.saturating_add(skip)..).unwrap_or_default();
            }
            Parsed::Fragment { consumed, bytes } => {
                assert!(consumed == HEADER_BYTES && (1..=FRAGMENT_BYTES_MAX).contains(&bytes));
                rest = rest.get(consumed + bytes..).unwrap_or_default();
            }
            Parsed::Broken(error) => {
                let sentence = error.to_string();
                assert!(!sentence.is_empty() && sentence.len() <= SENTENCE_BYTES_MAX, "{sentence:?}");
                assert!(!sentence.contains(char::is_control), "{sentence:?}");
                return;
            }
            Parsed::Frame { frame, consumed } => {
                let mut again = Vec::new();
                put(&mut again, frame.clock, frame.request, &frame.body);
                assert_eq!(again, rest[..consumed], "{frame:?}");
                for cut in 0..consumed {
                    assert_eq!(parse(&rest[..cut], limits), Parsed::Partial, "{cut} of {frame:?}");
                }
                check_list(&frame.body, consumed - HEADER_BYTES);
                rest = &rest[consumed..];
            }
        }
    }
}

/// Checks that the missing part of a frame is within the limits: with zeroes in its place the frame is whole, or
/// invalid.
fn check_partial(input: &[u8], limits: FrameLimits) {
    let length_max = (64 << 10) + 24 + limits.value_bytes_max + limits.key_bytes_max;
    if input.len() >= HEADER_BYTES {
        let mut whole = input.to_vec();
        whole.resize(HEADER_BYTES + length_max, 0);
        assert_ne!(parse(&whole, limits), Parsed::Partial, "{input:?} waits for too much");
    }
}

/// A list has as many entries as its count, which fill the payload.
fn check_list(body: &Body<'_>, payload: usize) {
    match body {
        Body::Delta(list) => {
            assert_eq!((list.iter().count(), list.len() * 8), (list.len(), payload));
            assert_eq!(list.is_empty(), payload == 0);
        }
        Body::Block(list) => assert_eq!((list.iter().count(), list.len() * 68), (list.len(), payload)),
        Body::Piece(list) => assert_eq!((list.iter().count(), list.len() * 64), (list.len(), payload)),
        Body::Peers(list) => {
            let bytes =
                list.iter().map(|address| if address.addr.is_ipv4() { 23 } else { 35 }).sum::<usize>();
            assert_eq!(bytes, payload);
        }
        Body::None { hints, .. } | Body::NotHolder { hints, .. } | Body::Deleted { hints, .. } => {
            assert_eq!((hints.iter().count(), 16 + hints.len() * 16), (hints.len(), payload));
        }
        Body::Execute(command) => {
            let bytes = command.arguments.iter().map(|argument| 4 + argument.len()).sum::<usize>();
            assert_eq!(10 + command.name.len() + bytes, payload);
        }
        Body::Discarded { blocks, .. } => assert_eq!(8 + blocks.len() * 64, payload),
        Body::Heartbeat { .. }
        | Body::Snap { .. }
        | Body::SnapEnd
        | Body::Resync(_)
        | Body::Get { .. }
        | Body::Value { .. }
        | Body::NotTaken
        | Body::Bye(_)
        | Body::Invalidate { .. }
        | Body::Newer { .. }
        | Body::Delete { .. }
        | Body::Floor(_)
        | Body::Floored(_)
        | Body::Executed { .. }
        | Body::NotDone { .. } => {}
    }
}
