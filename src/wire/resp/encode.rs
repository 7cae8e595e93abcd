//! Writes values of RESP2 and RESP3. The caller writes as many values after a header as the header states.

use std::fmt;
use std::io::Write;

/// The version of the protocol that a connection speaks: 2 until `HELLO 3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// RESP2: simple strings, errors, integers, bulk strings and arrays.
    #[default]
    Two,
    /// RESP3: also nulls, doubles, booleans, maps, sets, pushes and verbatim strings.
    Three,
}

/// Writes the simple string `OK`.
#[inline(always)]
pub fn ok(out: &mut Vec<u8>) {
    out.extend_from_slice(b"+OK\r\n");
}

/// Writes a simple string, which must not contain CR or LF.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    debug_assert!(!text.contains(['\r', '\n']), "{text:?} is not a simple string");
    out.push(b'+');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes an error: a prefix as `ERR` or `NOAUTH`, then a sentence. CR and LF in it become spaces.
pub fn error(out: &mut Vec<u8>, prefix: &str, sentence: impl fmt::Display) {
    out.push(b'-');
    let start = out.len();
    // Writing to a vector cannot fail.
    let _ = write!(out, "{prefix} {sentence}");
    out[start..].iter_mut().filter(|byte| matches!(byte, b'\r' | b'\n')).for_each(|byte| *byte = b' ');
    out.extend_from_slice(b"\r\n");
}

/// Writes an integer.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    out.push(b':');
    if value < 0 {
        out.push(b'-');
    }
    line(out, value.unsigned_abs());
}

/// Writes a bulk string.
#[inline(never)]
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Writes the header of a bulk string of this many bytes.
pub fn bulk_header(out: &mut Vec<u8>, bytes: usize) {
    header(out, b'$', bytes);
}

/// Writes a null: the null bulk string in RESP2.
pub fn null(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(match version {
        Version::Two => b"$-1\r\n",
        Version::Three => b"_\r\n",
    });
}

/// Writes the null of a reply that would be an array: the null array in RESP2.
pub fn null_array(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(match version {
        Version::Two => b"*-1\r\n",
        Version::Three => b"_\r\n",
    });
}

/// Begins an array of `count` values.
pub fn array(out: &mut Vec<u8>, count: usize) {
    header(out, b'*', count);
}

/// Begins a map of `count` pairs, each a key and a value: an array of twice as many in RESP2.
pub fn map(out: &mut Vec<u8>, version: Version, count: usize) {
    match version {
        Version::Two => header(out, b'*', count.saturating_mul(2)),
        Version::Three => header(out, b'%', count),
    }
}

/// Begins a set of `count` values: an array in RESP2.
pub fn set(out: &mut Vec<u8>, version: Version, count: usize) {
    match version {
        Version::Two => header(out, b'*', count),
        Version::Three => header(out, b'~', count),
    }
}

/// Writes text for people, as of INFO: a bulk string in RESP2.
pub fn verbatim(out: &mut Vec<u8>, version: Version, text: &[u8]) {
    match version {
        Version::Two => bulk(out, text),
        Version::Three => {
            header(out, b'=', text.len().saturating_add(4));
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Writes the line of a type byte and a length.
#[inline(always)]
fn header(out: &mut Vec<u8>, kind: u8, length: usize) {
    let digit = |value: usize| b'0' + value.to_le_bytes()[0];
    match length {
        0..10 => out.extend_from_slice(&[kind, digit(length), b'\r', b'\n']),
        10..100 => {
            out.extend_from_slice(&[kind, digit(length / 10), digit(length % 10), b'\r', b'\n']);
        }
        _ => {
            out.push(kind);
            line(out, length as u64);
        }
    }
}

/// Writes a number and the end of its line.
fn line(out: &mut Vec<u8>, mut value: u64) {
    if value < 10 {
        let digit = b'0' + value.to_le_bytes()[0];
        out.extend_from_slice(&[digit, b'\r', b'\n']);
        return;
    }
    // u64::MAX has 20 digits.
    let mut text = [b'\r'; 22];
    text[21] = b'\n';
    let mut at = 20;
    while value > 0 {
        at -= 1;
        text[at] = b'0' + (value % 10).to_le_bytes()[0];
        value /= 10;
    }
    out.extend_from_slice(&text[at..]);
}

#[cfg(test)]
mod tests {
    use super::{Version, array, bulk, error, integer, map, null, null_array, ok, set, simple, verbatim};

    /// The bytes that `write` writes in RESP2 and in RESP3.
    fn both(write: impl Fn(&mut Vec<u8>, Version)) -> [String; 2] {
        [Version::Two, Version::Three].map(|version| {
            let mut out = Vec::new();
            write(&mut out, version);
            String::from_utf8(out).unwrap()
        })
    }

    #[test]
    fn values_without_a_version_are_the_same_in_both() {
        let mut out = Vec::new();
        ok(&mut out);
        simple(&mut out, "PONG");
        error(&mut out, "ERR", "unknown command 'a\r\nb'");
        bulk(&mut out, b"");
        bulk(&mut out, b"a\r\nb");
        array(&mut out, 0);
        array(&mut out, 1_048_576);
        let text =
            "+OK\r\n+PONG\r\n-ERR unknown command 'a  b'\r\n$0\r\n\r\n$4\r\na\r\nb\r\n*0\r\n*1048576\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }

    #[test]
    fn integers_of_every_length() {
        let ends = [i64::MIN, i64::MAX, 0, -1, 9, 10, 11, 99, 100, 101];
        let powers = (0..=18).map(|power| 10i64.pow(power));
        for value in ends.into_iter().chain(powers.flat_map(|power| [power - 1, power, -power])) {
            let mut out = Vec::new();
            integer(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), format!(":{value}\r\n"));
        }
    }

    #[test]
    fn types_of_resp3_have_a_form_in_resp2() {
        assert_eq!(both(null), ["$-1\r\n", "_\r\n"]);
        assert_eq!(both(null_array), ["*-1\r\n", "_\r\n"]);
        assert_eq!(both(|out, version| map(out, version, 7)), ["*14\r\n", "%7\r\n"]);
        assert_eq!(both(|out, version| set(out, version, 3)), ["*3\r\n", "~3\r\n"]);
        assert_eq!(both(|out, version| verbatim(out, version, b"ab")), ["$2\r\nab\r\n", "=6\r\ntxt:ab\r\n"]);
    }
}
