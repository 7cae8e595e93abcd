//! The three protocols that the generator speaks: requests, the ends of replies, and what replies
//! should be. So the very same generator loads Olivia and what it is compared with.

use memchr::memchr;

/// What a server is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Olivia's own.
    Lines,
    /// Redis', version 2.
    Resp,
    /// memcached's text.
    Memcached,
}

/// What the front of some input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// No whole reply so far.
    Partial,
    /// A reply of so many bytes.
    Reply(usize),
    /// An error reply of so many bytes, or bytes that are no reply.
    Error(usize),
}

impl Protocol {
    /// Appends a request for `key`.
    pub(crate) fn put_get(self, out: &mut Vec<u8>, key: &[u8]) {
        match self {
            Self::Lines => put(out, &[b"GET ", key, b"\n"]),
            Self::Resp => {
                out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
                put_bulk(out, key);
            }
            Self::Memcached => put(out, &[b"get ", key, b"\r\n"]),
        }
    }

    /// Appends a request that sets `key` to `value`.
    pub(crate) fn put_set(self, out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
        match self {
            Self::Lines => put(out, &[b"SET ", key, b":", value, b"\n"]),
            Self::Resp => {
                out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
                put_bulk(out, key);
                put_bulk(out, value);
            }
            Self::Memcached => {
                put(out, &[b"set ", key, b" 0 0 "]);
                put_number(out, value.len());
                put(out, &[b"\r\n", value, b"\r\n"]);
            }
        }
    }

    /// Appends the reply to a GET of `key` that is there.
    pub(crate) fn put_hit(self, out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
        match self {
            Self::Lines => put(out, &[b":GOT ", key, b":", value, b"\n"]),
            Self::Resp => put_bulk(out, value),
            Self::Memcached => {
                put(out, &[b"VALUE ", key, b" 0 "]);
                put_number(out, value.len());
                put(out, &[b"\r\n", value, b"\r\nEND\r\n"]);
            }
        }
    }

    /// The reply to a GET of a key that is not there.
    pub(crate) const fn miss(self) -> &'static [u8] {
        match self {
            Self::Lines => b":GOT \n",
            Self::Resp => b"$-1\r\n",
            Self::Memcached => b"END\r\n",
        }
    }

    /// Appends the reply to a SET.
    pub(crate) fn put_stored(self, out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
        match self {
            Self::Lines => put(out, &[b":SAT ", key, b":", value, b"\n"]),
            Self::Resp => out.extend_from_slice(b"+OK\r\n"),
            Self::Memcached => out.extend_from_slice(b"STORED\r\n"),
        }
    }

    /// Looks for the first reply of `input`. Reads no more than it.
    pub(crate) fn front(self, input: &[u8]) -> Front {
        match self {
            Self::Lines => match memchr(b'\n', input) {
                None => Front::Partial,
                Some(end) if input.starts_with(b":ERR") => Front::Error(end + 1),
                Some(end) => Front::Reply(end + 1),
            },
            Self::Resp => match (head(input), input.first()) {
                (None, _) => Front::Partial,
                (Some(end), Some(b'+' | b':')) => Front::Reply(end),
                (Some(end), Some(b'$')) if input.starts_with(b"$-1") => Front::Reply(end),
                (Some(end), Some(b'$')) => block(input, end, number(&input[1..end]), b"\r\n"),
                (Some(end), _) => Front::Error(end),
            },
            Self::Memcached => match head(input) {
                None => Front::Partial,
                Some(end) if input.starts_with(b"VALUE ") => {
                    let length = input[..end].rsplit(|&byte| byte == b' ').next().and_then(number);
                    block(input, end, length, b"\r\nEND\r\n")
                }
                Some(end) if matches!(&input[..end], b"END\r\n" | b"STORED\r\n") => Front::Reply(end),
                Some(end) => Front::Error(end),
            },
        }
    }
}

/// The length of the first line with its CR LF.
fn head(input: &[u8]) -> Option<usize> {
    memchr(b'\n', input).map(|end| end + 1)
}

/// A reply of a head and `length` bytes and a tail.
fn block(input: &[u8], head: usize, length: Option<usize>, tail: &[u8]) -> Front {
    let Some(length) = length else { return Front::Error(head) };
    let end = head + length + tail.len();
    if input.len() < end { Front::Partial } else { Front::Reply(end) }
}

/// The number that a line begins with, up to its CR; at most a milliard, so that no sum overflows.
fn number(line: &[u8]) -> Option<usize> {
    let digits = &line[..line.iter().position(|byte| !byte.is_ascii_digit())?];
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|&number| number <= 1_000_000_000)
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn put_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'$');
    put_number(out, bytes.len());
    put(out, &[b"\r\n", bytes, b"\r\n"]);
}

fn put_number(out: &mut Vec<u8>, number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b"0123456789"[left % 10];
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

// Run by tests/bench_quick.rs. Imports stand in the tests, since a benchmark is compiled without those.
#[cfg(test)]
mod tests {
    #[test]
    fn every_reply_is_found_whole_and_no_part_of_it_before() {
        use super::{Front, Protocol};
        for protocol in [Protocol::Lines, Protocol::Resp, Protocol::Memcached] {
            let mut replies = [Vec::new(), protocol.miss().to_vec(), Vec::new()];
            protocol.put_hit(&mut replies[0], b"key", b"value");
            protocol.put_stored(&mut replies[2], b"key", b"value");
            for reply in replies {
                for end in 0..reply.len() {
                    assert_eq!(protocol.front(&reply[..end]), Front::Partial, "{protocol:?} {reply:?}");
                }
                let more = [&reply[..], b"more"].concat();
                assert_eq!(protocol.front(&more), Front::Reply(reply.len()), "{protocol:?} {reply:?}");
            }
        }
    }

    #[test]
    fn errors_are_told_from_replies() {
        use super::{Front, Protocol};
        assert_eq!(Protocol::Lines.front(b":ERR no\n"), Front::Error(8));
        assert_eq!(Protocol::Resp.front(b"-ERR no\r\n"), Front::Error(9));
        assert_eq!(Protocol::Resp.front(b"$x\r\n"), Front::Error(4));
        assert_eq!(Protocol::Memcached.front(b"SERVER_ERROR no\r\n"), Front::Error(17));
    }
}
