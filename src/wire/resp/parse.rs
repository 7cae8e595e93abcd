//! A parser of RESP requests. Arguments are spans of the input; nothing is copied.
//!
//! # Use by a reader
//!
//! [`Parser`] is scratch memory shared by all connections. [`Progress`] is 12 bytes of state per connection: how much
//! of an incomplete request was parsed, so that a request that arrives in small pieces costs CPU linear in its
//! length. The input passed to [`Parser::parse`] must begin at the same request until that request is complete.
//!
//! In [`Parsed::Partial`], `bytes` is the least length of the input with which another call can make progress. With
//! fewer bytes a call returns at once. A reader that buffers the incomplete request maps room for `bytes` in its
//! buffer, so that a value is copied once; mapped memory that is not touched costs nothing.

use super::super::args::{Args, Span, packed, span};
use super::super::field::Excerpt;
use crate::base::buffer::OutOfMemory;
use crate::base::memory::reserve_one;
use std::fmt;

/// The longest bulk string of the protocol: 512 MiB, as in Redis.
pub const BULK_BYTES_MAX: u32 = 512 * 1024 * 1024;

/// Bytes of a length line before its CR. A valid one has at most 20 with its type byte.
const LENGTH_LINE_BYTES_MAX: usize = 32;

/// Spans whose memory is reused for the next request.
const SPANS_KEPT: usize = 16 * 1024;

/// The shortest argument: `$0\r\n\r\n`.
const ARGUMENT_BYTES_MIN: usize = 6;

/// Limits of one request in RESP.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// Arguments, the command's name among them.
    pub args_max: u32,
    /// Bytes of each argument.
    pub bulk_bytes_max: u32,
    /// Bytes of the whole request.
    pub request_bytes_max: u32,
    /// Whether these are the lower limits before AUTH; selects the error only.
    pub is_unauthenticated: bool,
}

/// How far an incomplete request was parsed. Default: at the start of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the array's length and of complete arguments. 0: the length is not known yet.
    walked: u32,
    /// Arguments that are missing.
    args_left: u32,
    /// Bytes of input needed to make progress.
    needed: u32,
}

impl Progress {
    /// The progress of any other message that cannot be parsed before `needed` bytes of it have arrived.
    pub fn until(needed: usize) -> Self {
        Self { needed: u32::try_from(needed).unwrap_or(u32::MAX), ..Self::default() }
    }

    /// The least length of the input with which another call can make progress.
    pub const fn needed(&self) -> usize {
        self.needed as usize
    }
}

/// The result of parsing the start of some input.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A complete request.
    Request(Request<'a>),
    /// An incomplete request.
    Partial {
        /// The least length of the input with which another call can make progress.
        bytes: usize,
    },
    /// Not a request. The connection must be closed.
    Broken(ProtocolError),
}

/// A complete request. The caller must ignore an empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    input: &'a [u8],
    spans: &'a [Span],
    /// Bytes of the request.
    pub consumed: usize,
}

impl<'a> Request<'a> {
    /// The arguments in order, the command's name first.
    pub const fn args(&self) -> Args<'a> {
        Args::new(self.input, self.spans)
    }
}

/// An error in a stream of RESP. Displays as the text of Redis, without `ERR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// A request that does not begin with `*`.
    NoArray(u8),
    /// An array's length that is not a number, or above the limit.
    InvalidArrayLength,
    /// An array's length above the limit before AUTH.
    UnauthenticatedArrayLength,
    /// An array's length whose line is too long.
    ArrayLengthTooLong,
    /// An argument that does not begin with `$`.
    NoBulk(u8),
    /// A bulk string's length that is not a number, negative or above the limit.
    InvalidBulkLength,
    /// A bulk string's length above the limit before AUTH.
    UnauthenticatedBulkLength,
    /// A bulk string's length whose line is too long.
    BulkLengthTooLong,
    /// A request above this many bytes.
    RequestTooLong(u32),
    /// The system has no memory for the table of its arguments.
    NoMemory,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self != Self::NoMemory {
            f.write_str("Protocol error: ")?;
        }
        match self {
            Self::NoArray(byte) => write!(f, "expected '*', got '{}'", Excerpt(&[*byte])),
            Self::InvalidArrayLength => f.write_str("invalid multibulk length"),
            Self::UnauthenticatedArrayLength => f.write_str("unauthenticated multibulk length"),
            Self::ArrayLengthTooLong => f.write_str("too big mbulk count string"),
            Self::NoBulk(byte) => write!(f, "expected '$', got '{}'", Excerpt(&[*byte])),
            Self::InvalidBulkLength => f.write_str("invalid bulk length"),
            Self::UnauthenticatedBulkLength => f.write_str("unauthenticated bulk length"),
            Self::BulkLengthTooLong => f.write_str("too big bulk count string"),
            Self::RequestTooLong(max) => write!(f, "request longer than {max} bytes"),
            Self::NoMemory => OutOfMemory.fmt(f),
        }
    }
}

/// A parser; reuses the memory of the argument spans for the next request.
#[derive(Debug, Default)]
pub struct Parser {
    spans: Vec<Span>,
}

impl Parser {
    /// Parses the request at the start of `input`, from `progress` on. O(bytes) over all calls for one request; O(1)
    /// while fewer bytes have arrived than are needed.
    pub fn parse<'a>(
        &'a mut self,
        input: &'a [u8],
        progress: &mut Progress,
        limits: RequestLimits,
    ) -> Parsed<'a> {
        if input.len() < progress.needed as usize {
            return Parsed::Partial { bytes: progress.needed as usize };
        }
        let is_resumed = progress.walked > 0;
        self.spans.clear();
        if self.spans.capacity() > SPANS_KEPT {
            self.spans = Vec::new();
        }
        if *progress == Progress::default() {
            if let Some(consumed) = self.walk_short(input, limits) {
                return Parsed::Request(Request { input: &input[..consumed], spans: &self.spans, consumed });
            }
            self.spans.clear();
        }
        let mut walked = self.walk(input, progress, limits);
        if is_resumed && matches!(walked, Ok(true)) {
            // Earlier calls did not keep their spans: a complete request is parsed once more from the start.
            *progress = Progress::default();
            self.spans.clear();
            walked = self.walk(input, progress, limits);
        }
        match walked {
            Ok(true) => {
                let consumed = progress.walked as usize;
                *progress = Progress::default();
                Parsed::Request(Request { input: &input[..consumed], spans: &self.spans, consumed })
            }
            Ok(false) => Parsed::Partial { bytes: progress.needed as usize },
            Err(error) => Parsed::Broken(error),
        }
    }

    /// Parses the request at the start of `input` if it is complete and all of its lengths are below 100, as in most
    /// requests; returns its bytes. [`Parser::walk`] would add the same spans. `None`, perhaps after adding some, for
    /// any other.
    #[inline(always)]
    fn walk_short(&mut self, input: &[u8], limits: RequestLimits) -> Option<usize> {
        let (count, mut at) = short_length(input, b'*')?;
        if count > limits.args_max || limits.bulk_bytes_max < SHORT_MAX {
            return None;
        }
        for _ in 0..count {
            let (length, header) = short_length(input.get(at as usize..)?, b'$')?;
            let start = at + header;
            let end = start + length;
            self.spans.push(packed(start, end));
            at = end + 2;
        }
        (at as usize <= input.len() && at <= limits.request_bytes_max).then_some(at as usize)
    }

    /// Parses complete arguments from `progress` on. True at the end of the request.
    #[inline]
    fn walk(
        &mut self,
        input: &[u8],
        progress: &mut Progress,
        limits: RequestLimits,
    ) -> Result<bool, ProtocolError> {
        let bytes_max = limits.request_bytes_max as usize;
        let within = |bytes: usize| {
            let too_long = ProtocolError::RequestTooLong(limits.request_bytes_max);
            u32::try_from(bytes).ok().filter(|_| bytes <= bytes_max).ok_or(too_long)
        };
        let (mut at, mut args_left) = (progress.walked as usize, progress.args_left);
        if at == 0 {
            let Some((count, bytes)) = array_length(input, limits)? else {
                progress.needed = within(input.len() + 1)?;
                return Ok(false);
            };
            (at, args_left) = (bytes, count);
        }
        let needed = loop {
            if args_left == 0 {
                progress.walked = within(at)?;
                return Ok(true);
            }
            if at + args_left as usize * ARGUMENT_BYTES_MIN > bytes_max {
                return Err(ProtocolError::RequestTooLong(limits.request_bytes_max));
            }
            let Some((length, header)) = bulk_length(&input[at..], limits)? else { break input.len() + 1 };
            let start = at + header;
            let end = start + length as usize;
            if end + 2 > input.len().min(bytes_max) {
                break end + 2;
            }
            if !reserve_one(&mut self.spans) {
                return Err(ProtocolError::NoMemory);
            }
            self.spans.push(span(start, end));
            at = end + 2;
            args_left -= 1;
        };
        progress.args_left = args_left;
        progress.needed = within(needed)?;
        progress.walked = within(at)?;
        Ok(false)
    }
}

/// Requests per batch at most, and arguments from which on no request is added to a batch.
const BATCH_REQUESTS_MAX: usize = 64;
const BATCH_ARGS: usize = 256;

/// A request of a batch.
#[derive(Debug)]
struct Ahead<T> {
    /// The end of its arguments in the spans of the batch.
    end: usize,
    bytes: usize,
    known: T,
}

/// Complete requests at the start of some input, parsed before the first is executed, each with what is known of it.
/// Its memory is reused.
#[derive(Debug, Default)]
pub struct Batch<T> {
    parser: Parser,
    requests: Vec<Ahead<T>>,
    taken: usize,
    /// The first argument of the next request to be taken, in the spans of the batch.
    begin: usize,
}

impl<T: Copy> Batch<T> {
    /// Drops everything that was parsed. Must be called before other input.
    pub fn clear(&mut self) {
        self.requests.clear();
        (self.taken, self.begin) = (0, 0);
    }

    /// Parses up to `BATCH_REQUESTS_MAX` requests at the start of `input`, up to the first that is incomplete or
    /// invalid. `resolve` returns what is known of a request with these arguments. Returns their number.
    pub fn parse(
        &mut self,
        input: &[u8],
        limits: RequestLimits,
        mut resolve: impl FnMut(Args<'_>) -> T,
    ) -> usize {
        self.clear();
        self.parser.spans.clear();
        let (mut rest, mut begin) = (input, 0);
        while !rest.is_empty() && self.requests.len() < BATCH_REQUESTS_MAX && begin < BATCH_ARGS {
            let bytes = match self.parser.walk_short(rest, limits) {
                Some(bytes) => bytes,
                None => {
                    self.parser.spans.truncate(begin);
                    let mut progress = Progress::default();
                    let Ok(true) = self.parser.walk(rest, &mut progress, limits) else { break };
                    progress.walked as usize
                }
            };
            let (request, after) = rest.split_at(bytes);
            let known = resolve(Args::new(request, &self.parser.spans[begin..]));
            begin = self.parser.spans.len();
            self.requests.push(Ahead { end: begin, bytes, known });
            rest = after;
        }
        self.requests.len()
    }

    /// Takes the next request, and what is known of it; `input` must begin with it.
    pub fn take<'a>(&'a mut self, input: &'a [u8]) -> Option<(Request<'a>, T)> {
        let &Ahead { end, bytes: consumed, known } = self.requests.get(self.taken)?;
        let spans = &self.parser.spans[self.begin..end];
        (self.taken, self.begin) = (self.taken + 1, end);
        Some((Request { input: &input[..consumed], spans, consumed }, known))
    }

    /// Whether no request is left.
    pub fn is_empty(&self) -> bool {
        self.taken == self.requests.len()
    }
}

/// The highest length that [`short_length`] parses.
const SHORT_MAX: u32 = 99;

/// Parses a length line of one or two digits, as most are: the length, and the bytes of the line.
#[inline(always)]
fn short_length(input: &[u8], kind: u8) -> Option<(u32, u32)> {
    let &[first, tens, ones, end, _] = input.first_chunk()?;
    let digit = |byte: u8| u32::from(byte.wrapping_sub(b'0'));
    if first != kind || digit(tens) > 9 {
        None
    } else if ones == b'\r' {
        Some((digit(tens), 4))
    } else if end == b'\r' && digit(ones) <= 9 && tens != b'0' {
        Some((10 * digit(tens) + digit(ones), 5))
    } else {
        None
    }
}

/// A guess of the name and first argument of the request at the start of `input`, for prefetching only. `None` if their
/// lengths have more than two digits.
#[inline]
pub fn likely_key(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let bulk = |input| {
        let (length, header) = short_length(input, b'$')?;
        input.get(header as usize..)?.split_at_checked(length as usize)
    };
    let (_, header) = short_length(input, b'*')?;
    let (name, rest) = bulk(&input[header as usize..])?;
    let (key, _) = bulk(rest.get(2..)?)?;
    Some((name, key))
}

/// The number of arguments at the start of `input`, and the bytes of its line.
#[inline(always)]
fn array_length(input: &[u8], limits: RequestLimits) -> Result<Option<(u32, usize)>, ProtocolError> {
    match short_length(input, b'*') {
        Some((count, bytes)) if count <= limits.args_max => Ok(Some((count, bytes as usize))),
        Some(_) | None => any_array_length(input, limits),
    }
}

#[inline(never)]
fn any_array_length(input: &[u8], limits: RequestLimits) -> Result<Option<(u32, usize)>, ProtocolError> {
    if let Some(&byte) = input.first().filter(|byte| **byte != b'*') {
        return Err(ProtocolError::NoArray(byte));
    }
    let Some(line) = length_line(input).map_err(|TooLong| ProtocolError::ArrayLengthTooLong)? else {
        return Ok(None);
    };
    let count = line.value.ok_or(ProtocolError::InvalidArrayLength)?.max(0);
    match u32::try_from(count) {
        Ok(count) if count <= limits.args_max => Ok(Some((count, line.bytes))),
        Ok(count) if limits.is_unauthenticated && i32::try_from(count).is_ok() => {
            Err(ProtocolError::UnauthenticatedArrayLength)
        }
        Ok(_) | Err(_) => Err(ProtocolError::InvalidArrayLength),
    }
}

/// The length of the bulk string at the start of `input`, and the bytes of its line.
#[inline(always)]
fn bulk_length(input: &[u8], limits: RequestLimits) -> Result<Option<(u32, usize)>, ProtocolError> {
    match short_length(input, b'$') {
        Some((length, bytes)) if length <= limits.bulk_bytes_max => Ok(Some((length, bytes as usize))),
        Some(_) | None => any_bulk_length(input, limits),
    }
}

#[inline(never)]
fn any_bulk_length(input: &[u8], limits: RequestLimits) -> Result<Option<(u32, usize)>, ProtocolError> {
    if let Some(&byte) = input.first().filter(|byte| **byte != b'$') {
        return Err(ProtocolError::NoBulk(byte));
    }
    let Some(line) = length_line(input).map_err(|TooLong| ProtocolError::BulkLengthTooLong)? else {
        return Ok(None);
    };
    match line.value.map(u32::try_from) {
        Some(Ok(length)) if length <= limits.bulk_bytes_max => Ok(Some((length, line.bytes))),
        Some(Ok(length)) if limits.is_unauthenticated && length <= BULK_BYTES_MAX => {
            Err(ProtocolError::UnauthenticatedBulkLength)
        }
        Some(_) | None => Err(ProtocolError::InvalidBulkLength),
    }
}

struct LengthLine {
    /// `None`: not a number.
    value: Option<i64>,
    /// Bytes of the line with its end.
    bytes: usize,
}

struct TooLong;

/// Reads a line of a type byte and a number. `None`: the line is incomplete.
fn length_line(input: &[u8]) -> Result<Option<LengthLine>, TooLong> {
    let window = &input[..input.len().min(LENGTH_LINE_BYTES_MAX + 1)];
    let Some(end) = window.iter().position(|&byte| byte == b'\r') else {
        return if window.len() > LENGTH_LINE_BYTES_MAX { Err(TooLong) } else { Ok(None) };
    };
    let bytes = end + 2;
    Ok((bytes <= input.len()).then(|| LengthLine { value: number(&input[1..end]), bytes }))
}

/// A decimal number as in Redis: no plus sign, no leading zeros, no `-0`.
pub fn number(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !is_negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    digits.iter().try_fold(0i64, |value, byte| {
        let digit = i64::from(byte.wrapping_sub(b'0'));
        let next = value.checked_mul(10)?;
        match (digit <= 9, is_negative) {
            (false, _) => None,
            (true, false) => next.checked_add(digit),
            (true, true) => next.checked_sub(digit),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{Batch, Parsed, Parser, Progress, ProtocolError, RequestLimits, number};
    use crate::base::rng::Rng;

    const LIMITS: RequestLimits = RequestLimits {
        args_max: 1_000_000,
        bulk_bytes_max: 512 * 1024 * 1024,
        request_bytes_max: 1024 * 1024 * 1024,
        is_unauthenticated: false,
    };

    const UNAUTHENTICATED: RequestLimits = RequestLimits {
        args_max: 10,
        bulk_bytes_max: 16_384,
        request_bytes_max: 65_536,
        is_unauthenticated: true,
    };

    /// The requests in `input`, and the rest after them.
    fn requests(input: &[u8], limits: RequestLimits) -> (Vec<Vec<Vec<u8>>>, Result<usize, ProtocolError>) {
        let mut parser = Parser::default();
        let mut progress = Progress::default();
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            match parser.parse(&input[at..], &mut progress, limits) {
                Parsed::Request(request) => {
                    at += request.consumed;
                    found.push(request.args().iter().map(<[u8]>::to_vec).collect());
                }
                Parsed::Partial { bytes } => {
                    assert!(bytes > input.len() - at);
                    return (found, Ok(input.len() - at));
                }
                Parsed::Broken(error) => return (found, Err(error)),
            }
        }
    }

    fn error(input: &[u8], limits: RequestLimits) -> String {
        requests(input, limits).1.unwrap_err().to_string()
    }

    fn array(args: &[&[u8]]) -> Vec<u8> {
        let mut out = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            out.extend_from_slice(arg);
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    #[test]
    fn arguments_are_ranges_of_the_input() {
        let input = [array(&[b"SET", b"k\r\n", b""]), array(&[b"PING"]), b"*2\r\n$3".to_vec()].concat();
        let (found, rest) = requests(&input, LIMITS);
        assert_eq!(found, [vec![b"SET".to_vec(), b"k\r\n".to_vec(), Vec::new()], vec![b"PING".to_vec()]]);
        assert_eq!(rest, Ok(6));
    }

    #[test]
    fn requests_parsed_together_are_those_parsed_one_by_one() {
        let mut rng = Rng::new(1);
        let mut draw = |below: u64| usize::try_from(rng.below(below)).unwrap();
        let long = [b'x'; 120];
        let words: [&[u8]; 6] = [b"GET", b"GEX", b"PING", b"", b"FOURTEENLETTER", &long];
        for _ in 0..3_000 {
            let mut each = || (0..1 + draw(3)).map(|_| words[draw(6)]).collect::<Vec<_>>();
            let mut input: Vec<u8> = (0..12).flat_map(|_| array(&each())).collect();
            input.truncate(input.len() - draw(20));
            let (args_max, bulk_bytes_max) = [(2, 1_000), (9, 50), (9, 110), (9, 1_000)][draw(4)];
            let limits = RequestLimits { args_max, bulk_bytes_max, ..LIMITS };
            let (one_by_one, _) = requests(&input, limits);
            let (mut batch, mut seen) = (Batch::default(), Vec::<Vec<Vec<u8>>>::new());
            batch.parse(&input, limits, |args| {
                seen.push(args.iter().map(<[u8]>::to_vec).collect());
                seen.len() - 1
            });
            assert_eq!(seen, one_by_one, "{}", input.escape_ascii());
            let mut rest = &input[..];
            while let Some((request, at)) = batch.take(rest) {
                assert!(request.args().iter().eq(&seen[at]));
                rest = &rest[request.consumed..];
            }
        }
    }

    #[test]
    fn empty_arrays_are_requests_without_arguments() {
        let (found, rest) = requests(b"*0\r\n*-1\r\n*-7\r\n*1\r\n$4\r\nPING\r\n", LIMITS);
        assert_eq!(found, [vec![], vec![], vec![], vec![b"PING".to_vec()]]);
        assert_eq!(rest, Ok(0));
    }

    #[test]
    fn long_request_in_single_bytes_costs_time_linear_in_its_length() {
        let args: Vec<&[u8]> = std::iter::repeat_n(&b"12345678"[..], 100_001).collect();
        let input = array(&args);
        let mut parser = Parser::default();
        let mut progress = Progress::default();
        // Parsing from the start each time would visit 70,000,000,000 arguments.
        for cut in 0..input.len() {
            assert!(matches!(parser.parse(&input[..cut], &mut progress, LIMITS), Parsed::Partial { .. }));
        }
        let Parsed::Request(request) = parser.parse(&input, &mut progress, LIMITS) else { panic!() };
        assert_eq!((request.args().len(), request.args().get(100_000)), (100_001, Some(&b"12345678"[..])));
    }

    #[test]
    fn partial_value_states_how_many_bytes_are_needed() {
        let input = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nx";
        let (mut parser, mut progress) = (Parser::default(), Progress::default());
        let parsed = parser.parse(input, &mut progress, LIMITS);
        assert_eq!(parsed, Parsed::Partial { bytes: 27 + 1_000 + 2 });
    }

    #[test]
    fn broken_stream_gets_the_text_of_redis() {
        for (input, text) in [
            (&b"*2\r\n$3\r\nGET\r\n$-1\r\n"[..], "invalid bulk length"),
            (b"*3\r\n$3\r\nset\r\n$5\r\nkey1\r\n$3\r\nval\r\n", "expected '$', got '3'"),
            (b"*2\r\n$3\r\nGET\r\n$536870913\r\n", "invalid bulk length"),
            (b"*2\r\n$3\r\nGET\r\n$9223372036854775808\r\n", "invalid bulk length"),
            (b"*1\r\n$\r\n", "invalid bulk length"),
            (b"*1\r\n$+4\r\nPING\r\n", "invalid bulk length"),
            (b"*1\r\n$04\r\nPING\r\n", "invalid bulk length"),
            (b"*1\r\n$4a\r\nPING\r\n", "invalid bulk length"),
            (b"*1\r\nPING\r\n", "expected '$', got 'P'"),
            (b"*1\r\n\x01", "expected '$', got '\\u{1}'"),
            (b"*\r\n", "invalid multibulk length"),
            (b"*x\r\n", "invalid multibulk length"),
            (b"*3000000000\r\n", "invalid multibulk length"),
            (b"*1000001\r\n", "invalid multibulk length"),
            (b"*9223372036854775808\r\n", "invalid multibulk length"),
            (b"*111111111111111111111111111111111111111", "too big mbulk count string"),
            (b"*1\r\n$111111111111111111111111111111111111111", "too big bulk count string"),
            (b"PING\r\n", "expected '*', got 'P'"),
        ] {
            assert_eq!(error(input, LIMITS), format!("Protocol error: {text}"), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn limits_before_auth_are_smaller_and_named() {
        assert_eq!(error(b"*11\r\n", UNAUTHENTICATED), "Protocol error: unauthenticated multibulk length");
        assert_eq!(error(b"*3000000000\r\n", UNAUTHENTICATED), "Protocol error: invalid multibulk length");
        let bulk = b"*2\r\n$4\r\nAUTH\r\n$16385\r\n";
        assert_eq!(error(bulk, UNAUTHENTICATED), "Protocol error: unauthenticated bulk length");
        let huge = b"*2\r\n$4\r\nAUTH\r\n$536870913\r\n";
        assert_eq!(error(huge, UNAUTHENTICATED), "Protocol error: invalid bulk length");
    }

    #[test]
    fn request_over_its_bytes_is_refused_before_the_value_comes() {
        let limits = RequestLimits { request_bytes_max: 100, ..LIMITS };
        let text = "Protocol error: request longer than 100 bytes";
        assert_eq!(error(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$90\r\n", limits), text);
        assert_eq!(error(b"*30\r\n$3\r\nDEL\r\n", limits), text);
    }

    #[test]
    fn numbers_are_those_of_redis() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("-0", None),
            ("-", None),
            ("", None),
            ("+1", None),
            ("01", None),
            ("1 ", None),
        ] {
            assert_eq!(number(text.as_bytes()), value, "{text}");
        }
    }
}
