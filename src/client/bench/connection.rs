//! One connection of the generator: its unsent requests, and the replies that it waits for.
//!
//! A reply is compared with the expected one in the input buffer, piece by piece as it arrives: nothing is copied,
//! however long the value. Only a reply that differs is collected, to be shown.

use super::keys::Texts;
use super::protocol::{Parsed, Protocol, Request};
use crate::base::rng::Rng;
use mio::net::TcpStream;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};

/// Bytes of a value above which it is written without being copied.
const COPY_BYTES_MAX: usize = 4 * 1024;

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

/// The parameters that determine the expected replies.
#[derive(Debug)]
pub(super) struct Expectation {
    pub(super) protocol: Protocol,
    pub(super) texts: Texts,
    /// A GET that finds nothing is right.
    pub(super) misses_allowed: bool,
    /// The value of every key is that of key 0, as an echo server replies.
    pub(super) one_value: bool,
    pub(super) key: Vec<u8>,
    pub(super) head: Vec<u8>,
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
        let Expectation { protocol, texts, key, .. } = expected;
        let out = &mut self.outbound;
        texts.key(request.number, key);
        if request.is_get {
            protocol.put_get(&mut out.text, key);
        } else {
            let value = texts.value(request.number);
            let tail = protocol.put_set(&mut out.text, key, value.len());
            if value.len() <= COPY_BYTES_MAX {
                out.text.extend_from_slice(value);
            } else {
                out.values.push_back((out.text.len(), request.number));
            }
            out.text.extend_from_slice(tail);
        }
        self.waiting.push_back(request);
    }

    /// Writes as much as the socket accepts.
    pub(super) fn flush(&mut self, texts: &Texts) -> io::Result<()> {
        let out = &mut self.outbound;
        while out.text_written < out.text.len() {
            let wrote = match out.values.front() {
                None => self.stream.write(&out.text[out.text_written..]),
                Some((at, number)) => {
                    let until = out.values.get(1).map_or(out.text.len(), |(next, _)| *next);
                    self.stream.write_vectored(&[
                        IoSlice::new(&out.text[out.text_written..*at]),
                        IoSlice::new(&texts.value(*number)[out.value_written..]),
                        IoSlice::new(&out.text[*at..until]),
                    ])
                }
            };
            match wrote {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => out.advance(count, texts),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        out.text.clear();
        out.text_written = 0;
        Ok(())
    }

    /// Parses replies; calls `done` with each and its request.
    pub(super) fn take(
        &mut self,
        input: &[u8],
        expected: &mut Expectation,
        done: &mut dyn FnMut(Request, Verdict<'_>),
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
        done: &mut dyn FnMut(Request, Verdict<'_>),
    ) {
        while !input.is_empty() {
            let Some(&request) = self.waiting.front() else {
                let nothing = Request { number: 0, is_get: true, due_nanos: 0 };
                return done(nothing, Verdict::Wrong(input));
            };
            let (length, verdict) = match expected.compare(request, self.matched, input) {
                Match::Whole(length) => (length, Verdict::Right(expected.value(request).len())),
                Match::Partial => {
                    self.matched += input.len();
                    return;
                }
                Match::Differs if self.matched > 0 => {
                    let mut whole = expected.bytes(request);
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
            let left = texts.value(*number).len() - self.value_written;
            if count < left {
                self.value_written += count;
                return;
            }
            count -= left;
            self.value_written = 0;
            self.values.pop_front();
        }
        self.text_written += count;
    }
}

impl Expectation {
    fn value(&self, request: Request) -> &[u8] {
        self.texts.value(if self.one_value { 0 } else { request.number })
    }

    /// Writes the head of the expected reply into `head`, and returns its tail, if there is a value between them.
    fn prepare(&mut self, request: Request) -> Option<&'static [u8]> {
        self.head.clear();
        // RESP does not repeat the key.
        if self.protocol != Protocol::Resp {
            self.texts.key(request.number, &mut self.key);
        }
        if request.is_get {
            let length = self.value(request).len();
            Some(self.protocol.put_hit(&mut self.head, &self.key, length))
        } else {
            self.protocol.put_stored(&mut self.head, &self.key)
        }
    }

    /// Compares input with the reply to a request from byte `from` on.
    fn compare(&mut self, request: Request, from: usize, input: &[u8]) -> Match {
        let tail = self.prepare(request);
        let value: &[u8] = if tail.is_some() { self.value(request) } else { &[] };
        let (mut skip, mut at) = (from, 0);
        for piece in [self.head.as_slice(), value, tail.unwrap_or_default()] {
            let Some(rest) = piece.get(skip..) else {
                skip -= piece.len();
                continue;
            };
            skip = 0;
            let count = rest.len().min(input.len() - at);
            // The system's comparison of no bytes reads at the address of an empty slice, which is no address, with a
            // mask: the processor takes 80 ns to suppress the fault.
            if count > 0 && rest[..count] != input[at..at + count] {
                return Match::Differs;
            }
            if count < rest.len() {
                return Match::Partial;
            }
            at += count;
        }
        Match::Whole(at)
    }

    /// The whole expected reply.
    fn bytes(&mut self, request: Request) -> Vec<u8> {
        match self.prepare(request) {
            Some(tail) => [&self.head, self.value(request), tail].concat(),
            None => self.head.clone(),
        }
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
        let texts = Texts::new(8, Sizes::Uniform(0, 100));
        let (key, head) = (Vec::new(), Vec::new());
        Expectation { protocol, texts, misses_allowed, one_value: false, key, head }
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
                expected.bytes(Request { number, is_get, due_nanos: 0 })
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
