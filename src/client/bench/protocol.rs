//! The protocols of the generator: requests, and the expected replies.

use crate::wire::field::{FieldKind, put_field};
use crate::wire::resp::encode::{bulk, bulk_header};
use memchr::memchr;
use std::io::Write;

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Olivia's own.
    Lines,
    /// The protocol of Redis, version 2.
    Resp,
    /// memcached's text protocol.
    Memcached,
}

/// A request, with all that determines its reply and its latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// The number of the key.
    pub(super) number: u64,
    pub(super) is_get: bool,
    /// Nanoseconds after the beginning at which it was due.
    pub(super) due_nanos: u64,
}

/// The result of parsing the first reply of some input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// No whole reply yet.
    Partial,
    /// A reply of this many bytes.
    Reply(usize),
    /// An error reply of this many bytes, or bytes that are no reply.
    Error(usize),
}

impl Protocol {
    /// All protocols, by their names on the command line.
    pub const NAMES: [(&'static str, Self); 3] =
        [("lines", Self::Lines), ("resp", Self::Resp), ("memcached", Self::Memcached)];

    /// Appends a GET of `key`.
    pub fn put_get(self, out: &mut Vec<u8>, key: &[u8]) {
        match self {
            Self::Lines => put(out, &[b"GET ", key, b"\n"]),
            Self::Resp => {
                put(out, &[b"*2\r\n$3\r\nGET\r\n"]);
                bulk(out, key);
            }
            Self::Memcached => put(out, &[b"get ", key, b"\r\n"]),
        }
    }

    /// Appends the part of a SET of `key` before the value; returns the part after it.
    pub fn put_set(self, out: &mut Vec<u8>, key: &[u8], value_bytes: usize) -> &'static [u8] {
        match self {
            Self::Lines => {
                put(out, &[b"SET ", key, b":"]);
                b"\n"
            }
            Self::Resp => {
                put(out, &[b"*3\r\n$3\r\nSET\r\n"]);
                bulk(out, key);
                bulk_header(out, value_bytes);
                b"\r\n"
            }
            Self::Memcached => {
                put(out, &[b"set ", key]);
                // Writing to a vector cannot fail.
                let _ = write!(out, " 0 0 {value_bytes}\r\n");
                b"\r\n"
            }
        }
    }

    /// Appends the part before the value of the reply to a GET that finds it; returns the part after it.
    pub(super) fn put_hit(self, out: &mut Vec<u8>, key: &[u8], value_bytes: usize) -> &'static [u8] {
        match self {
            Self::Lines => {
                put(out, &[b":GOT ", key, b":"]);
                b"\n"
            }
            Self::Resp => {
                bulk_header(out, value_bytes);
                b"\r\n"
            }
            Self::Memcached => {
                put(out, &[b"VALUE ", key]);
                let _ = write!(out, " 0 {value_bytes}\r\n");
                b"\r\nEND\r\n"
            }
        }
    }

    /// Appends the reply to a SET, up to the value if it contains one; returns the part after the value.
    pub(super) fn put_stored(self, out: &mut Vec<u8>, key: &[u8]) -> Option<&'static [u8]> {
        match self {
            Self::Lines => {
                put(out, &[b":SAT ", key, b":"]);
                Some(b"\n")
            }
            Self::Resp => {
                put(out, &[b"+OK\r\n"]);
                None
            }
            Self::Memcached => {
                put(out, &[b"STORED\r\n"]);
                None
            }
        }
    }

    /// The reply to a GET that finds nothing.
    pub const fn miss(self) -> &'static [u8] {
        match self {
            Self::Lines => b":GOT \n",
            Self::Resp => b"$-1\r\n",
            Self::Memcached => b"END\r\n",
        }
    }

    /// Appends the request that authenticates a connection, and returns the reply to it; `None` if the protocol has
    /// none.
    pub(super) fn put_auth(self, out: &mut Vec<u8>, password: &[u8]) -> Option<&'static [u8]> {
        match self {
            Self::Lines => {
                put(out, &[b"AUTH "]);
                put_field(out, password, FieldKind::Key);
                out.push(b'\n');
                Some(b":WELCOME \n")
            }
            Self::Resp => {
                put(out, &[b"*2\r\n$4\r\nAUTH\r\n"]);
                bulk(out, password);
                Some(b"+OK\r\n")
            }
            Self::Memcached => None,
        }
    }

    /// Parses the first reply of `input`.
    pub fn parse_reply(self, input: &[u8]) -> Parsed {
        match self {
            Self::Lines => match memchr(b'\n', input) {
                None => Parsed::Partial,
                Some(end) if input.starts_with(b":ERR") => Parsed::Error(end + 1),
                Some(end) => Parsed::Reply(end + 1),
            },
            Self::Resp => match (head(input), input.first()) {
                (None, _) => Parsed::Partial,
                (Some(end), Some(b'+' | b':')) => Parsed::Reply(end),
                (Some(end), Some(b'$')) if input.starts_with(b"$-1") => Parsed::Reply(end),
                (Some(end), Some(b'$')) => block(input, end, number(&input[1..end]), b"\r\n"),
                (Some(end), _) => Parsed::Error(end),
            },
            Self::Memcached => match head(input) {
                None => Parsed::Partial,
                Some(end) if input.starts_with(b"VALUE ") => {
                    let length = input[..end].rsplit(|&byte| byte == b' ').next().and_then(number);
                    block(input, end, length, b"\r\nEND\r\n")
                }
                Some(end) if matches!(&input[..end], b"END\r\n" | b"STORED\r\n") => Parsed::Reply(end),
                Some(end) => Parsed::Error(end),
            },
        }
    }
}

/// The length of the first line with its line end.
fn head(input: &[u8]) -> Option<usize> {
    memchr(b'\n', input).map(|end| end + 1)
}

/// A reply of a head, `length` bytes and a tail.
fn block(input: &[u8], head: usize, length: Option<usize>, tail: &[u8]) -> Parsed {
    let Some(length) = length else { return Parsed::Error(head) };
    let end = head + length + tail.len();
    if input.len() < end { Parsed::Partial } else { Parsed::Reply(end) }
}

/// The number that a line begins with, up to its CR; at most 10^9, so that no sum overflows.
fn number(line: &[u8]) -> Option<usize> {
    let digits = &line[..line.iter().position(|byte| !byte.is_ascii_digit())?];
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|&number| number <= 1_000_000_000)
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use super::{Parsed, Protocol};

    #[test]
    fn every_reply_is_found_whole_and_no_part_of_it_before() {
        for (_, protocol) in Protocol::NAMES {
            let mut hit = Vec::new();
            let tail = protocol.put_hit(&mut hit, b"key", 5);
            hit.extend_from_slice(&[b"value", tail].concat());
            let mut stored = Vec::new();
            if let Some(tail) = protocol.put_stored(&mut stored, b"key") {
                stored.extend_from_slice(&[b"value", tail].concat());
            }
            for reply in [hit, protocol.miss().to_vec(), stored] {
                for end in 0..reply.len() {
                    assert_eq!(
                        protocol.parse_reply(&reply[..end]),
                        Parsed::Partial,
                        "{protocol:?} {reply:?}"
                    );
                }
                let more = [&reply[..], b"more"].concat();
                assert_eq!(protocol.parse_reply(&more), Parsed::Reply(reply.len()), "{protocol:?} {reply:?}");
            }
        }
    }

    #[test]
    fn error_replies_are_recognised() {
        assert_eq!(Protocol::Lines.parse_reply(b":ERR no\n"), Parsed::Error(8));
        assert_eq!(Protocol::Resp.parse_reply(b"-ERR no\r\n"), Parsed::Error(9));
        assert_eq!(Protocol::Resp.parse_reply(b"$x\r\n"), Parsed::Error(4));
        assert_eq!(Protocol::Memcached.parse_reply(b"SERVER_ERROR no\r\n"), Parsed::Error(17));
    }
}
