//! One connection of the generator: its unsent requests, and the replies that it waits for.
//!
//! A reply is compared with the expected one in the input buffer, piece by piece as it arrives: nothing is copied,
//! however long the value. Only a reply that differs is collected, to be shown.

use super::keys::{Texts, Value, put_number};
use super::protocol::{Parsed, Protocol, Request};
use crate::base::rng::Rng;
use crate::batch::uninterrupted;
use memchr::memchr;
use mio::net::TcpStream;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::iter::once;

/// Bytes of a value above which it is written without being copied.
pub(super) const COPY_BYTES_MAX: usize = 4 * 1024;

/// Pieces of one write.
const PIECES_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// Draws its keys.
    pub(super) rng: Rng,
    /// Requests without a reply, the oldest first.
    pub(super) waiting: VecDeque<Request>,
    outbound: Outbound,
    /// Bytes of the oldest request's reply that have arrived, and are right.
    matched: usize,
    /// The incomplete start of a reply that differs from the expected one.
    differing: Vec<u8>,
}

/// Requests that are not written: text, and values that are inserted into it.
#[derive(Debug, Default)]
struct Outbound {
    text: Vec<u8>,
    /// The position in the text before which a value stands, and the number of its key.
    values: VecDeque<(usize, u64)>,
    text_written: usize,
    value_written: usize,
}

/// The result of checking a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict<'r> {
    /// The expected reply, with the bytes of its value.
    Right(usize),
    /// The key was not found, and that is allowed.
    Miss,
    /// Any other reply.
    Wrong(&'r [u8]),
}

/// The parameters that determine requests and the expected replies.
#[derive(Debug)]
pub(super) struct Expectation {
    protocol: Protocol,
    texts: Texts,
    /// A GET that finds nothing is right.
    misses_allowed: bool,
    /// The value of every key is that of key 0, as an echo server replies.
    one_value: bool,
    get: Frame,
    set: Frame,
    hit: Frame,
    stored: Frame,
    /// The head of the last reply with a key.
    head: Vec<u8>,
}

/// The text around the value in one kind of request or reply: that of key 0, into which other keys are written.
#[derive(Debug, Default)]
struct Frame {
    head: Vec<u8>,
    /// The end of the key in the head; 0: it has none.
    key_end: usize,
    /// The text after the value; `None`: there is no value.
    tail: Option<&'static [u8]>,
    /// Bytes of the value for which it was built.
    value_bytes: Option<usize>,
}

/// An expected reply.
#[derive(Clone, Copy)]
struct Reply<'e> {
    head: &'e [u8],
    value: Value<'e>,
    /// `None`: the reply is its head, without the value.
    tail: Option<&'e [u8]>,
}

/// The result of comparing input with the expected reply.
enum Match {
    /// This many bytes complete it.
    Whole(usize),
    /// All of the input agrees, and more is to come.
    Partial,
    Differs,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, rng: Rng) -> Self {
        Self {
            stream,
            rng,
            waiting: VecDeque::new(),
            outbound: Outbound::default(),
            matched: 0,
            differing: Vec::new(),
        }
    }

    /// Appends a request; `flush` writes it.
    pub(super) fn put(&mut self, request: Request, expected: &mut Expectation) {
        let Expectation { protocol, texts, get, set, .. } = expected;
        let out = &mut self.outbound;
        if request.is_get {
            get.fit(texts, 0, |out, key| {
                protocol.put_get(out, key);
                None
            });
            get.put(request.number, &mut out.text);
        } else {
            let value = texts.value(request.number);
            set.fit(texts, value.bytes, |out, key| Some(protocol.put_set(out, key, value.bytes)));
            set.put(request.number, &mut out.text);
            if value.bytes <= COPY_BYTES_MAX {
                value.pieces(0).for_each(|piece| out.text.extend_from_slice(piece));
            } else {
                out.values.push_back((out.text.len(), request.number));
            }
            out.text.extend_from_slice(set.tail.unwrap_or_default());
        }
        self.waiting.push_back(request);
    }

    /// The unwritten text before the next value that is written from where it lies.
    pub(super) fn unwritten(&self) -> &[u8] {
        let Outbound { text, values, text_written, .. } = &self.outbound;
        &text[*text_written..values.front().map_or(text.len(), |(at, _)| *at)]
    }

    /// Notes the result of a write; false: the socket accepts no more for now.
    pub(super) fn has_written(
        &mut self,
        result: io::Result<usize>,
        expected: &Expectation,
    ) -> io::Result<bool> {
        match result {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => self.outbound.advance(count, &expected.texts),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Writes as much as the socket accepts.
    pub(super) fn flush(&mut self, expected: &Expectation) -> io::Result<()> {
        while !self.outbound.text.is_empty() {
            let (out, texts) = (&self.outbound, &expected.texts);
            let result = uninterrupted(|| match out.values.front() {
                None => (&self.stream).write(&out.text[out.text_written..]),
                Some((at, number)) => {
                    let until = out.values.get(1).map_or(out.text.len(), |(next, _)| *next);
                    let value = texts.value(*number).pieces(out.value_written);
                    let all = once(&out.text[out.text_written..*at])
                        .chain(value)
                        .chain(once(&out.text[*at..until]));
                    let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
                    let places = pieces.iter_mut().zip(all);
                    let count = places.map(|(place, piece)| *place = IoSlice::new(piece)).count();
                    (&self.stream).write_vectored(&pieces[..count])
                }
            });
            if !self.has_written(result, expected)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Parses replies; calls `done` with each and its request.
    pub(super) fn take(
        &mut self,
        input: &[u8],
        expected: &mut Expectation,
        done: &mut impl FnMut(Request, Verdict<'_>),
    ) {
        if self.differing.is_empty() {
            return self.take_whole(input, expected, done);
        }
        let mut whole = std::mem::take(&mut self.differing);
        whole.extend_from_slice(input);
        self.take_whole(&whole, expected, done);
    }

    fn take_whole(
        &mut self,
        mut input: &[u8],
        expected: &mut Expectation,
        done: &mut impl FnMut(Request, Verdict<'_>),
    ) {
        while !input.is_empty() {
            let Some(&request) = self.waiting.front() else {
                let nothing = Request { number: 0, is_get: true, due_nanos: 0 };
                return done(nothing, Verdict::Wrong(input));
            };
            let reply = expected.reply(request);
            let (length, verdict) = match reply.compare(self.matched, input) {
                Match::Whole(length) => (length, Verdict::Right(reply.value.bytes)),
                Match::Partial => {
                    self.matched += input.len();
                    return;
                }
                Match::Differs if self.matched > 0 => {
                    let mut whole = reply.bytes();
                    whole.truncate(self.matched);
                    whole.extend_from_slice(input);
                    self.matched = 0;
                    return self.take_whole(&whole, expected, done);
                }
                Match::Differs => match expected.protocol.parse_reply(input) {
                    Parsed::Partial => {
                        self.differing.extend_from_slice(input);
                        return;
                    }
                    Parsed::Reply(length) | Parsed::Error(length) => {
                        let reply = &input[..length];
                        let is_miss = request.is_get && reply == expected.protocol.miss();
                        let is_fine = is_miss && expected.misses_allowed;
                        (length, if is_fine { Verdict::Miss } else { Verdict::Wrong(reply) })
                    }
                },
            };
            self.matched = 0;
            self.waiting.pop_front();
            done(request, verdict);
            input = &input[length..];
        }
    }
}

impl Outbound {
    fn advance(&mut self, mut count: usize, texts: &Texts) {
        if let Some((at, number)) = self.values.front() {
            let before = count.min(at - self.text_written);
            self.text_written += before;
            count -= before;
            let left = texts.value(*number).bytes - self.value_written;
            if count < left {
                self.value_written += count;
                return;
            }
            count -= left;
            self.value_written = 0;
            self.values.pop_front();
        }
        self.text_written += count;
        if self.text_written == self.text.len() {
            self.text.clear();
            self.text_written = 0;
        }
    }
}

impl Frame {
    /// Builds the text for another length of the value.
    fn fit(
        &mut self,
        texts: &Texts,
        value_bytes: usize,
        put: impl FnOnce(&mut Vec<u8>, &[u8]) -> Option<&'static [u8]>,
    ) {
        if self.value_bytes == Some(value_bytes) {
            return;
        }
        self.value_bytes = Some(value_bytes);
        self.head.clear();
        // No protocol has a NUL of its own, so it shows where the key is.
        self.tail = put(&mut self.head, &vec![0; texts.key_bytes]);
        if let Some(at) = memchr(0, &self.head) {
            self.key_end = at + texts.key_bytes;
            self.head[at..self.key_end].fill(b'0');
        }
    }

    /// Appends the head with a key.
    fn put(&self, number: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.head);
        put_number(number, &mut out[start..start + self.key_end]);
    }
}

impl Expectation {
    pub(super) fn new(protocol: Protocol, texts: Texts, misses_allowed: bool, one_value: bool) -> Self {
        Self {
            protocol,
            texts,
            misses_allowed,
            one_value,
            get: Frame::default(),
            set: Frame::default(),
            hit: Frame::default(),
            stored: Frame::default(),
            head: Vec::new(),
        }
    }

    /// The reply to a request.
    fn reply(&mut self, request: Request) -> Reply<'_> {
        let Self { protocol, texts, hit, stored, .. } = self;
        let value = texts.value(if self.one_value { 0 } else { request.number });
        let frame = if request.is_get { hit } else { stored };
        frame.fit(texts, value.bytes, |out, key| {
            if request.is_get {
                Some(protocol.put_hit(out, key, value.bytes))
            } else {
                protocol.put_stored(out, key)
            }
        });
        // RESP does not repeat the key.
        let head = if frame.key_end == 0 {
            &frame.head
        } else {
            self.head.clear();
            frame.put(request.number, &mut self.head);
            &self.head
        };
        Reply { head, value, tail: frame.tail }
    }
}

impl<'e> Reply<'e> {
    /// Its text after the first `from` bytes.
    fn pieces(self, from: usize) -> impl Iterator<Item = &'e [u8]> {
        let of_value = from.saturating_sub(self.head.len());
        let rest = self.tail.map(|tail| {
            let of_tail = of_value.saturating_sub(self.value.bytes);
            self.value.pieces(of_value - of_tail).chain(once(&tail[of_tail..]))
        });
        once(&self.head[from.min(self.head.len())..]).chain(rest.into_iter().flatten())
    }

    /// Its length, if input begins with all of it and its value is not in pieces.
    #[inline]
    fn whole(self, input: &[u8]) -> Option<usize> {
        let mut rest = input.strip_prefix(self.head)?;
        if let Some(tail) = self.tail {
            rest = rest.strip_prefix(self.value.contiguous()?)?.strip_prefix(tail)?;
        }
        Some(input.len() - rest.len())
    }

    /// Compares input with its text after the first `from` bytes.
    fn compare(self, from: usize, input: &[u8]) -> Match {
        // The usual case, for which the loop takes four times as many instructions.
        if from == 0
            && let Some(length) = self.whole(input)
        {
            return Match::Whole(length);
        }
        let mut left = input;
        for piece in self.pieces(from) {
            let (start, after) = left.split_at(piece.len().min(left.len()));
            // The system's comparison of no bytes reads at the address of an empty slice, which is no address, with a
            // mask: the processor takes 80 ns to suppress the fault.
            if !start.is_empty() && *start != piece[..start.len()] {
                return Match::Differs;
            }
            if start.len() < piece.len() {
                return Match::Partial;
            }
            left = after;
        }
        Match::Whole(input.len() - left.len())
    }

    fn bytes(self) -> Vec<u8> {
        self.pieces(0).collect::<Vec<_>>().concat()
    }
}

#[cfg(test)]
mod tests {
    use super::{Connection, Expectation, Verdict};
    use crate::base::rng::Rng;
    use crate::client::bench::keys::{Sizes, Texts};
    use crate::client::bench::protocol::{Protocol, Request};
    use std::net::TcpListener;

    fn expectation(protocol: Protocol, misses_allowed: bool) -> Expectation {
        Expectation::new(protocol, Texts::new(8, Sizes::Uniform(0, 100)), misses_allowed, false)
    }

    /// The replies to requests of keys 1, 2, …, taken in pieces of `bytes`: R, M or W for each.
    fn verdicts(expected: &mut Expectation, gets: &[bool], replies: &[u8], bytes: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut conn = Connection::new(mio::net::TcpStream::from_std(stream), Rng::new(1));
        for (number, &is_get) in (1..).zip(gets) {
            conn.waiting.push_back(Request { number, is_get, due_nanos: 0 });
        }
        let mut all = String::new();
        for piece in replies.chunks(bytes) {
            conn.take(piece, expected, &mut |_, verdict| {
                all.push(match verdict {
                    Verdict::Right(_) => 'R',
                    Verdict::Miss => 'M',
                    Verdict::Wrong(_) => 'W',
                });
            });
        }
        all
    }

    #[test]
    fn replies_are_judged_alike_however_they_are_cut() {
        for (_, protocol) in Protocol::NAMES {
            let mut expected = expectation(protocol, true);
            let gets = [true, false, true, true, true];
            let right = |expected: &mut Expectation, number, is_get| {
                expected.reply(Request { number, is_get, due_nanos: 0 }).bytes()
            };
            // Right, right, a miss, the value of another key, right.
            let replies = [
                right(&mut expected, 1, true),
                right(&mut expected, 2, false),
                protocol.miss().to_vec(),
                right(&mut expected, 9, true),
                right(&mut expected, 5, true),
            ]
            .concat();
            for bytes in 1..=replies.len() {
                let found = verdicts(&mut expected, &gets, &replies, bytes);
                assert_eq!(found, "RRMWR", "{protocol:?} in pieces of {bytes}");
            }
            let miss = protocol.miss();
            assert_eq!(verdicts(&mut expectation(protocol, false), &[true], miss, 64), "W", "{protocol:?}");
            assert_eq!(verdicts(&mut expected, &[], miss, 64), "W", "{protocol:?}: nothing was requested");
        }
    }
}
