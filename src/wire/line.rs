//! Splits input into lines, and a line into id, verb and body.

use super::args::trim;
use super::line_form::ID_BYTES_MAX;
use super::request_error::RequestError;
use memchr::memchr;

/// A complete line, without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its bytes, without LF and without the CR before it.
    pub text: &'a [u8],
    /// Whether the line ended in CR LF.
    pub crlf: bool,
    /// Bytes of the line with its end.
    pub consumed: usize,
}

/// The result of parsing the start of some input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A line of at most the limit.
    Line(Line<'a>),
    /// A line over the limit, complete or not.
    TooLong,
    /// An incomplete line.
    Partial,
}

/// The parts of a line that do not depend on the verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The id, empty if there is none.
    pub id: &'a [u8],
    /// The verb as it was sent; may be empty.
    pub verb: &'a [u8],
    /// The text after the verb, trimmed.
    pub body: &'a [u8],
}

impl<'a> Line<'a> {
    /// Splits the line. `None`: it is empty and ignored.
    ///
    /// # Errors
    /// The bytes before a colon in the first word are not an id.
    pub fn request(&self) -> Option<Result<Request<'a>, RequestError<'a>>> {
        let text = trim(self.text);
        if text.is_empty() {
            return None;
        }
        let (id, rest) = match text.iter().position(|byte| matches!(byte, b':' | b' ')) {
            Some(end) if text[end] == b' ' => {
                return Some(Ok(Request { id: b"", verb: &text[..end], body: trim(&text[end..]) }));
            }
            Some(colon) if !is_id(&text[..colon]) => return Some(Err(RequestError::BadId)),
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (&b""[..], text),
        };
        let (verb, body) = split_word(rest);
        Some(Ok(Request { id, verb, body }))
    }

    /// Whether the line is the `PING` of health checkers written for Redis: an inline command of RESP.
    pub fn is_redis_ping(&self) -> bool {
        self.crlf && self.text.eq_ignore_ascii_case(b"PING")
    }
}

/// Splits text into its first word and the rest, trimmed.
pub fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    // A plain loop: most words are too short for a vector search to be faster.
    let end = text.iter().position(|&byte| byte == b' ').unwrap_or(text.len());
    (&text[..end], trim(&text[end..]))
}

/// Whether these bytes, without spaces and colons, are a valid id of a request.
fn is_id(bytes: &[u8]) -> bool {
    (1..=ID_BYTES_MAX).contains(&bytes.len()) && !bytes.iter().any(|byte| matches!(byte, b',' | b'"' | b'\r'))
}

/// Finds the first line of `input`; `bytes_max` bounds its text. Reads at most the line and its end.
pub fn parse(input: &[u8], bytes_max: usize) -> Parsed<'_> {
    // The longest acceptable line: the text, CR and LF.
    let window = &input[..input.len().min(bytes_max.saturating_add(2))];
    let Some(end) = memchr(b'\n', window) else {
        let longest_text = window.len() - usize::from(window.last() == Some(&b'\r'));
        return if longest_text > bytes_max { Parsed::TooLong } else { Parsed::Partial };
    };
    parse_until(window, end, bytes_max)
}

/// The same if the line feed of the first line is at `end`.
#[inline]
pub fn parse_until(input: &[u8], end: usize, bytes_max: usize) -> Parsed<'_> {
    let crlf = end > 0 && input[end - 1] == b'\r';
    let text = &input[..end - usize::from(crlf)];
    if text.len() > bytes_max {
        return Parsed::TooLong;
    }
    Parsed::Line(Line { text, crlf, consumed: end + 1 })
}

/// Whether a line is part of an HTTP request that a hostile page made a browser send. Lines after it must not be
/// executed.
pub fn is_from_browser(text: &[u8]) -> bool {
    match text.first() {
        Some(b'P') => text.starts_with(b"POST "),
        Some(b'H') => text.starts_with(b"Host:"),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, Request, is_from_browser};

    #[test]
    fn first_word_holds_the_id_and_the_verb() {
        let request = |text| Line { text, crlf: false, consumed: 0 }.request();
        let (id, verb, body) = (&b"h1"[..], &b"request"[..], &b"CONNECT  a=1, b=\",\""[..]);
        assert_eq!(
            request(b" h1:request CONNECT  a=1, b=\",\" ").unwrap().unwrap(),
            Request { id, verb, body }
        );
        assert_eq!(request(b"x:").unwrap().unwrap(), Request { id: b"x", verb: b"", body: b"" });
        assert_eq!(request(b"x:y:PING").unwrap().unwrap(), Request { id: b"x", verb: b"y:PING", body: b"" });
        assert!(request(b"  ").is_none());
        let long = [b'i'; 65];
        for bad in [&b"a,b:GET x"[..], b":GOT x", b"a\"b:PING", b"a\rb:PING", &[&long[..], b":PING"].concat()]
        {
            assert!(request(bad).unwrap().is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn browser_is_distinguished_from_a_key_named_alike() {
        assert!(is_from_browser(b"POST / HTTP/1.1"));
        assert!(is_from_browser(b"Host: 127.0.0.1:5454"));
        assert!(!is_from_browser(b"POSTS"));
        assert!(!is_from_browser(b"GET Host:"));
    }
}
