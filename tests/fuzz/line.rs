//! Fuzz target: the ends of lines, against a slower definition, and the same however the input is cut.

use olivia::wire::line::{Parsed, parse};

/// The first byte is the limit, the others are the input.
pub fn run(data: &[u8]) {
    let Some((&limit, input)) = data.split_first() else { return };
    let limit = usize::from(limit);
    let mut at = 0;
    loop {
        let rest = &input[at..];
        let found = parse(rest, limit);
        assert_eq!(found, slow_front(rest, limit), "{rest:?} {limit}");
        check_cuts(rest, limit, found);
        let Parsed::Line(line) = found else { break };
        assert!(line.consumed > line.text.len() && line.text.len() <= limit);
        at += line.consumed;
    }
}

/// Checks that the result for a prefix of the input is that for the whole.
fn check_cuts(input: &[u8], limit: usize, whole: Parsed<'_>) {
    let mut decided = false;
    for cut in 0..input.len().min(2 * limit + 8) {
        let part = parse(&input[..cut], limit);
        decided |= part != Parsed::Partial;
        assert!(!decided || part == whole, "{cut} of {input:?} is {part:?}, all of it {whole:?}");
        if let Parsed::Line(line) = whole {
            assert_eq!(decided, cut >= line.consumed, "{cut} of {input:?}");
        }
    }
}

/// The rule, byte by byte: a line ends at its LF, a CR before that is not text.
fn slow_front(input: &[u8], limit: usize) -> Parsed<'_> {
    let end = input.iter().position(|&byte| byte == b'\n');
    let before = &input[..end.unwrap_or(input.len())];
    let text = before.strip_suffix(b"\r").unwrap_or(before);
    match end {
        _ if text.len() > limit => Parsed::TooLong,
        None => Parsed::Partial,
        Some(end) => Parsed::Line(olivia::wire::line::Line {
            text,
            crlf: text.len() < before.len(),
            consumed: end + 1,
        }),
    }
}
