//! Writes fields of the line protocol, bare or quoted, so that every reply can be parsed back.

use crate::base::prefetch::are_between;
use std::fmt;

/// The quoting rules of a field: an empty key needs quotes, an empty value does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// A key.
    Key,
    /// A value.
    Value,
}

/// Bytes with a meaning outside quotes.
const SPECIAL: [u8; 3] = [b',', b'"', b':'];

/// Appends a field, in quotes if it would be parsed differently without. O(bytes).
pub fn put_field(out: &mut Vec<u8>, field: &[u8], kind: FieldKind) {
    if reads_bare(field, kind) {
        out.extend_from_slice(field);
    } else {
        put_quoted(out, field);
    }
}

/// Whether a field is parsed as itself without quotes.
fn reads_bare(field: &[u8], kind: FieldKind) -> bool {
    let (Some(first), Some(last)) = (field.first(), field.last()) else {
        return kind == FieldKind::Value;
    };
    if *first == b' ' || *last == b' ' || (*last == b'*' && kind == FieldKind::Key) {
        return false;
    }
    let least = if kind == FieldKind::Key { b' ' + 1 } else { b' ' };
    are_plain(field, least, SPECIAL)
        || !field.is_ascii()
            && field.iter().all(|byte| *byte >= least && *byte != 0x7f && !SPECIAL.contains(byte))
            && std::str::from_utf8(field).is_ok()
}

/// Whether all bytes are printable ASCII, at least `least`, and none is in `others`. Tests 16 bytes at a time; the
/// last 16 may overlap those before.
#[inline]
fn are_plain<const N: usize>(bytes: &[u8], least: u8, others: [u8; N]) -> bool {
    const MOST: u8 = 0x7e;
    let Some(last) = bytes.last_chunk() else {
        return bytes.iter().all(|byte| (least..=MOST).contains(byte) && !others.contains(byte));
    };
    let (blocks, rest) = bytes.as_chunks();
    blocks.iter().all(|block| are_between(block, least, MOST, others))
        && (rest.is_empty() || are_between(last, least, MOST, others))
}

/// Appends a field in quotes: UTF-8 unchanged, control bytes and all other bytes escaped.
fn put_quoted(out: &mut Vec<u8>, field: &[u8]) {
    out.push(b'"');
    if are_plain(field, b' ', [b'"', b'\\']) {
        out.extend_from_slice(field);
    } else {
        put_escaped(out, field);
    }
    out.push(b'"');
}

/// Looks through the next `bytes_max` bytes from `from` on of a value that is plain up to there: how far it is of printable
/// ASCII that means the same without quotes. `None`: it needs quotes. At the speed of memory.
pub fn plain_up_to(value: &[u8], from: usize, bytes_max: usize) -> Option<usize> {
    let has_outer_space = value.first() == Some(&b' ') || value.last() == Some(&b' ');
    let end = value.len().min(from.saturating_add(bytes_max));
    let next = value.get(from..end).unwrap_or_default();
    (!has_outer_space && are_plain(next, b' ', SPECIAL)).then_some(end)
}

/// Appends the next piece of a quoted value: `bytes_max` bytes, or up to three fewer so that no character is cut.
/// Returns the number of bytes of the value that were written.
pub fn put_escaped_piece(out: &mut Vec<u8>, value: &[u8], bytes_max: usize) -> usize {
    let is_inside = |at: &usize| value.get(*at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
    let end = value.len().min(bytes_max);
    let end = (end.saturating_sub(3).max(1)..=end).rev().find(|at| !is_inside(at)).unwrap_or(end);
    put_escaped(out, &value[..end.min(value.len())]);
    end.min(value.len())
}

fn put_escaped(out: &mut Vec<u8>, field: &[u8]) {
    for chunk in field.utf8_chunks() {
        for &byte in chunk.valid().as_bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0 => out.extend_from_slice(b"\\0"),
                0x01..=0x1f | 0x7f => put_hex(out, byte),
                _ => out.push(byte),
            }
        }
        for &byte in chunk.invalid() {
            put_hex(out, byte);
        }
    }
}

fn put_hex(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let (high, low) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
    out.extend_from_slice(&[b'\\', b'x', high, low]);
}

/// Input of somebody else as text on one line: what cannot be printed, or changes how the text around it is shown, is
/// escaped.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(pub &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if matches!(c, '"' | '\'' | '\\') {
                    write!(f, "{c}")?
                } else {
                    write!(f, "{}", c.escape_debug())?
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// The same inside a sentence: at most 40 bytes of it.
#[derive(Debug, Clone, Copy)]
pub struct Excerpt<'a>(pub &'a [u8]);

/// Bytes of input that an [`Excerpt`] shows.
const EXCERPT_BYTES_MAX: usize = 40;

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(EXCERPT_BYTES_MAX)];
        Printable(shown).fmt(f)?;
        if shown.len() < self.0.len() { f.write_str("...") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Excerpt, FieldKind, are_plain, put_field};

    fn field(bytes: &[u8], kind: FieldKind) -> String {
        let mut out = Vec::new();
        put_field(&mut out, bytes, kind);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn field_is_quoted_only_when_bare_it_would_read_differently() {
        for (bytes, key, value) in [
            (&b"plain"[..], "plain", "plain"),
            (b"", "\"\"", ""),
            (b"user:1", "\"user:1\"", "\"user:1\""),
            (b"a b", "\"a b\"", "a b"),
            (b"a*", "\"a*\"", "a*"),
            (b" a", "\" a\"", "\" a\""),
            (b"a ", "\"a \"", "\"a \""),
            (b"a\"b", "\"a\\\"b\"", "\"a\\\"b\""),
            (b"ab\"", "\"ab\\\"\"", "\"ab\\\"\""),
            (b"\"", "\"\\\"\"", "\"\\\"\""),
            (b"a,b", "\"a,b\"", "\"a,b\""),
            (b"a\\b", "a\\b", "a\\b"),
            (b"a\\,b", "\"a\\\\,b\"", "\"a\\\\,b\""),
            (b"\0\t\r\n\x01\x7f", "\"\\0\\t\\r\\n\\x01\\x7f\"", "\"\\0\\t\\r\\n\\x01\\x7f\""),
            ("grüße".as_bytes(), "grüße", "grüße"),
            (b"\xff\xfe", "\"\\xff\\xfe\"", "\"\\xff\\xfe\""),
            (b"\xc3\xbc\xff", "\"ü\\xff\"", "\"ü\\xff\""),
        ] {
            assert_eq!(field(bytes, FieldKind::Key), key);
            assert_eq!(field(bytes, FieldKind::Value), value);
        }
    }

    #[test]
    fn sixteen_bytes_at_a_time_decide_as_each_byte_does() {
        for length in 0..40 {
            for at in 0..length {
                for byte in 0..=255 {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = byte;
                    let is_plain = (b' '..0x7f).contains(&byte) && !b"\":".contains(&byte);
                    assert_eq!(are_plain(&bytes, b' ', [b'"', b':']), is_plain, "{byte} at {at} of {length}");
                }
            }
        }
    }

    #[test]
    fn excerpt_is_one_short_printable_piece() {
        assert_eq!(Excerpt(b"a\nb\xff").to_string(), "a\\nb\\xff");
        let hidden = "'\u{e9}\"\u{202e}\u{2028}\u{1b}\\";
        assert_eq!(Excerpt(hidden.as_bytes()).to_string(), "'\u{e9}\"\\u{202e}\\u{2028}\\u{1b}\\");
        assert_eq!(Excerpt(&[b'x'; 41]).to_string(), format!("{}...", "x".repeat(40)));
    }
}
