//! Replies: one encoder for all protocols, so that a command has one handler.
//!
//! The data model is RESP's. In lines a reply is `id:WORD field,field,…`: [`Encoder::key`] begins a field, and the
//! values up to the next key are appended to it after colons; headers of arrays and nulls write nothing. In RESP,
//! [`Encoder::key`] writes nothing.

use super::field::{FieldKind, put_field};
use super::resp::encode as resp;
use super::resp::encode::Version;
use crate::base::buffer::OutOfMemory;
use crate::base::memory::reserve;
use std::fmt;
use std::io::Write;

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Olivia's lines.
    Lines,
    /// RESP, until `HELLO 3`.
    Resp2,
    /// RESP after `HELLO 3`.
    Resp3,
}

impl Protocol {
    const fn version(self) -> Option<Version> {
        match self {
            Self::Lines => None,
            Self::Resp2 => Some(Version::Two),
            Self::Resp3 => Some(Version::Three),
        }
    }
}

/// The head of a reply that is written later: protocol, id and word.
#[derive(Debug)]
pub struct ReplyHead {
    protocol: Protocol,
    word: &'static str,
    id: Box<[u8]>,
}

impl ReplyHead {
    /// The protocol of the reply.
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The request's id; empty if there is none.
    pub fn id(&self) -> &[u8] {
        &self.id
    }
}

/// One reply being written, at the end of a buffer that it owns until [`Encoder::end`].
#[derive(Debug)]
#[must_use = "the buffer comes back with the end of the reply"]
pub struct Encoder {
    out: Vec<u8>,
    protocol: Protocol,
    word: &'static str,
    /// Where the reply begins in `out`.
    start: usize,
    /// Where its word begins, in lines; the id stands before it.
    body: usize,
    /// Whether a field was written.
    has_fields: bool,
    /// Whether a key has begun the field that is being written.
    in_field: bool,
    /// For a reply whose writer puts the next large string in by itself.
    gap: Option<Gap>,
}

/// The place of a large string in a reply, which is left out of it.
#[derive(Debug, Clone, Copy)]
enum Gap {
    /// It will be left for the next large string.
    Next { is_quoted: bool },
    /// Where it was left, in the bytes that are written of the reply.
    Left(usize),
}

/// Upper bound of the bytes around a string: lengths, quotes, separators.
const LENGTHS_BYTES: usize = 64;

/// Strings of at least this many bytes may be left out.
pub const GAP_BYTES_MIN: usize = 64 * 1024;

impl Encoder {
    /// Begins a reply at the end of `out`. RESP ignores `id` and `word`; an empty `id` is none.
    #[inline]
    pub fn begin(mut out: Vec<u8>, protocol: Protocol, id: &[u8], word: &'static str) -> Self {
        let start = out.len();
        let body = if protocol == Protocol::Lines { put_head(&mut out, id, word) } else { start };
        Self { out, protocol, word, start, body, has_fields: false, in_field: false, gap: None }
    }

    /// Begins a reply with the `head` of one that was taken back.
    pub fn resume(out: Vec<u8>, head: &ReplyHead) -> Self {
        Self::begin(out, head.protocol, &head.id, head.word)
    }

    /// Begins values without the head of a reply; [`Encoder::append`] makes them part of one.
    pub const fn part(protocol: Protocol) -> Self {
        Self {
            out: Vec::new(),
            protocol,
            word: "",
            start: 0,
            body: 0,
            has_fields: false,
            in_field: false,
            gap: None,
        }
    }

    /// The values written since [`Encoder::part`].
    pub fn values(&self) -> &[u8] {
        &self.out
    }

    /// Appends values that another encoder has written for the same protocol.
    pub fn append(&mut self, values: &[u8]) {
        if self.is_line() && !values.is_empty() {
            self.separate();
        }
        self.out.extend_from_slice(values);
    }

    /// The same for values that are appended to the buffer returned by [`Encoder::take_written`].
    pub fn begin_values(&mut self) {
        if self.is_line() {
            self.separate();
        }
    }

    /// Replaces the reply by an error that another encoder has written for the same protocol with [`Encoder::part`].
    pub fn append_error(&mut self, error: &[u8]) {
        self.out.truncate(self.body);
        self.out.extend_from_slice(error);
        self.has_fields = false;
        self.in_field = false;
    }

    /// The head of this reply.
    pub fn head(&self) -> ReplyHead {
        ReplyHead { protocol: self.protocol, word: self.word, id: self.id().into() }
    }

    /// The protocol of the reply.
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Changes the protocol, of this reply too.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Whether the reply is a line.
    pub const fn is_line(&self) -> bool {
        matches!(self.protocol, Protocol::Lines)
    }

    /// The request's id; empty if there is none.
    pub fn id(&self) -> &[u8] {
        &self.out[self.start..self.body.saturating_sub(1).max(self.start)]
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Bytes of memory.
    pub const fn held(&self) -> usize {
        self.out.capacity()
    }

    /// Whether nothing is written, as at the beginning of a reply in RESP.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a line has no field so far.
    pub const fn is_blank(&self) -> bool {
        !self.has_fields
    }

    /// Takes out the written bytes; the reply continues in `out`, which must be empty. [`Encoder::len`] counts from
    /// here on, and [`Encoder::clear`] no longer removes what was taken out.
    pub fn take_written(&mut self, out: Vec<u8>) -> Vec<u8> {
        self.start = 0;
        self.body = 0;
        std::mem::replace(&mut self.out, out)
    }

    /// Continues in the memory of `out`, which must be empty, with a copy of the bytes that are written and not taken out;
    /// returns the memory so far. [`Encoder::clear`] no longer removes those bytes.
    pub fn continue_in(&mut self, out: Vec<u8>) -> Vec<u8> {
        let written = self.take_written(out);
        self.out.extend_from_slice(&written);
        written
    }

    /// Puts back the bytes taken out by [`Encoder::take_written`], or their end. Nothing may have been written since.
    pub fn put_back(&mut self, rest: Vec<u8>) {
        self.out = rest;
    }

    /// Ends the reply and gives the buffer back.
    pub fn end(mut self) -> Vec<u8> {
        std::mem::take(self.end_in_place())
    }

    /// Ends the reply; the caller takes the buffer out.
    #[inline(always)]
    pub fn end_in_place(&mut self) -> &mut Vec<u8> {
        if self.is_line() {
            self.out.push(b'\n');
        }
        &mut self.out
    }

    /// Removes the reply and gives the buffer back as it was.
    pub fn discard(mut self) -> Vec<u8> {
        self.out.truncate(self.start);
        self.out
    }

    /// Removes all but the head.
    pub fn clear(&mut self) {
        self.out.truncate(self.body);
        self.has_fields = false;
        self.in_field = false;
        // A part has no word.
        if self.is_line() && self.body > self.start {
            self.put_word(self.word);
        }
    }

    /// Sets the id of a reply without one. In RESP: nothing.
    pub fn default_id(&mut self, id: &[u8]) {
        if self.is_line() && self.id().is_empty() {
            self.out.truncate(self.start);
            self.body = put_head(&mut self.out, id, self.word);
            self.has_fields = false;
            self.in_field = false;
        }
    }

    /// In lines: begins a field with this key. In RESP: nothing.
    #[inline(always)]
    pub fn key(&mut self, key: &[u8]) {
        if self.is_line() {
            self.begin_field(key);
        }
    }

    fn begin_field(&mut self, key: &[u8]) {
        self.in_field = false;
        self.separate();
        put_field(&mut self.out, key, FieldKind::Key);
        self.in_field = true;
    }

    /// Leaves the next large string out, which its writer puts in by itself: between quotes by
    /// [`put_escaped_piece`](super::field::put_escaped_piece), or as it is.
    pub const fn leave_gap_for_large(&mut self, is_quoted: bool) {
        self.gap = Some(Gap::Next { is_quoted });
    }

    /// Where a string was left out in the bytes that are written, if one was. The next one is written.
    pub fn take_gap(&mut self) -> Option<usize> {
        match self.gap.take()? {
            Gap::Left(at) => Some(at),
            Gap::Next { .. } => None,
        }
    }

    /// Leaves a gap for a large string, or reserves room for it. False if the caller must write it.
    #[cold]
    fn put_large(&mut self, bytes: &[u8]) -> bool {
        if let Some(Gap::Next { is_quoted }) = self.gap {
            self.leave_gap(bytes.len(), is_quoted);
            return true;
        }
        // In quotes a byte takes up to four.
        let bytes = if self.is_line() { 4 * bytes.len() } else { bytes.len() };
        let has_room = reserve(&mut self.out, bytes + LENGTHS_BYTES);
        if !has_room {
            self.error("ERR", OutOfMemory);
        }
        !has_room
    }

    fn leave_gap(&mut self, bytes: usize, is_quoted: bool) {
        if self.is_line() {
            self.separate();
        } else {
            resp::bulk_header(&mut self.out, bytes);
        }
        self.out.extend_from_slice(if is_quoted { b"\"" } else { b"" });
        self.gap = Some(Gap::Left(self.out.len()));
        self.out.extend_from_slice(match (self.is_line(), is_quoted) {
            (false, _) => b"\r\n",
            (true, true) => b"\"",
            (true, false) => b"",
        });
    }

    /// A string of bytes.
    #[inline(always)]
    pub fn bulk(&mut self, bytes: &[u8]) {
        if bytes.len() > GAP_BYTES_MIN && self.put_large(bytes) {
            return;
        }
        if self.is_line() {
            self.put_value(bytes);
        } else {
            resp::bulk(&mut self.out, bytes);
        }
    }

    fn put_value(&mut self, bytes: &[u8]) {
        self.separate();
        put_field(&mut self.out, bytes, FieldKind::Value);
    }

    /// A whole number.
    pub fn integer(&mut self, number: i64) {
        if self.is_line() {
            self.separate();
            put_display(&mut self.out, number);
        } else {
            resp::integer(&mut self.out, number);
        }
    }

    /// In RESP: the number of keys that the command was carried out for. In lines: nothing, since the fields show them.
    pub fn count(&mut self, number: usize) {
        if !self.is_line() {
            resp::integer(&mut self.out, i64::try_from(number).unwrap_or(i64::MAX));
        }
    }

    /// Text that needs no quotes: part of a field, or a string.
    pub fn text(&mut self, text: impl fmt::Display) {
        if self.is_line() {
            self.separate();
            put_display(&mut self.out, text);
        } else {
            resp::bulk(&mut self.out, text.to_string().as_bytes());
        }
    }

    /// In RESP: the status `OK`. In lines: nothing, since the word is the status.
    #[inline(always)]
    pub fn ok(&mut self) {
        if !self.is_line() {
            resp::ok(&mut self.out);
        }
    }

    /// The same with another status.
    pub fn status(&mut self, status: &str) {
        if !self.is_line() {
            resp::simple(&mut self.out, status);
        }
    }

    /// In RESP: null. In lines: nothing.
    pub fn null(&mut self) {
        if let Some(version) = self.protocol.version() {
            resp::null(&mut self.out, version);
        }
    }

    /// In RESP: the null of a reply that would be an array. In lines: nothing.
    pub fn null_array(&mut self) {
        if let Some(version) = self.protocol.version() {
            resp::null_array(&mut self.out, version);
        }
    }

    /// In RESP: text for people. In lines: a field.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol.version() {
            Some(version) => resp::verbatim(&mut self.out, version, text.as_bytes()),
            None => self.bulk(text.as_bytes()),
        }
    }

    /// In RESP: begins an array of `len` elements. In lines: nothing.
    pub fn array(&mut self, len: usize) {
        if !self.is_line() {
            resp::array(&mut self.out, len);
        }
    }

    /// In RESP: begins a map of `len` pairs, in RESP2 an array of twice as many elements. In lines: nothing.
    pub fn map(&mut self, len: usize) {
        if let Some(version) = self.protocol.version() {
            resp::map(&mut self.out, version, len);
        }
    }

    /// In RESP: begins a set of `len` elements, in RESP2 an array. In lines: nothing.
    pub fn set(&mut self, len: usize) {
        if let Some(version) = self.protocol.version() {
            resp::set(&mut self.out, version, len);
        }
    }

    /// Replaces the reply by an error. `code` is the first word in RESP; in lines the word is always `ERR`.
    pub fn error(&mut self, code: &str, sentence: impl fmt::Display) {
        self.out.truncate(self.body);
        if self.is_line() {
            self.put_word("ERR");
            put_display(&mut self.out, sentence);
        } else {
            resp::error(&mut self.out, code, sentence);
        }
    }

    /// Begins a reply of one long text that needs no quotes. The caller appends `bytes` bytes, in pieces, then calls
    /// [`Self::end_text`].
    pub fn begin_text(out: Vec<u8>, head: &ReplyHead, bytes: usize) -> Vec<u8> {
        let mut reply = Self::resume(out, head);
        if !reply.is_line() {
            resp::bulk_header(&mut reply.out, bytes);
        }
        reply.out
    }

    /// Ends a reply of one long text.
    pub fn end_text(out: &mut Vec<u8>, head: &ReplyHead) {
        out.extend_from_slice(if head.protocol == Protocol::Lines { b"\n" } else { b"\r\n" });
    }

    fn put_word(&mut self, word: &str) {
        put_word(&mut self.out, word);
        self.has_fields = false;
        self.in_field = false;
    }

    fn separate(&mut self) {
        if self.has_fields {
            self.out.push(if self.in_field { b':' } else { b',' });
        }
        self.has_fields = true;
    }
}

/// Appends a whole error reply. RESP ignores `id`.
pub fn put_error(out: &mut Vec<u8>, protocol: Protocol, id: &[u8], sentence: impl fmt::Display) {
    let mut reply = Encoder::begin(std::mem::take(out), protocol, id, "ERR");
    reply.error("ERR", sentence);
    *out = reply.end();
}

/// The error of a reply longer than `reply_bytes_max`. Displays as a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTooLong {
    /// The limit, in bytes.
    pub limit_bytes: u32,
    /// Keys of the request; 0 if it has none.
    pub keys: usize,
}

impl fmt::Display for ReplyTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = if self.keys > 1 { "request fewer keys at a time" } else { "raise reply_bytes_max" };
        write!(f, "the reply would be longer than {} bytes; {advice}", self.limit_bytes)
    }
}

/// Appends the id and the word of a line. Returns where the word begins.
fn put_head(out: &mut Vec<u8>, id: &[u8], word: &str) -> usize {
    out.reserve(id.len() + word.len() + 2);
    if !id.is_empty() {
        out.extend_from_slice(id);
    }
    out.push(b':');
    let body = out.len();
    put_word(out, word);
    body
}

fn put_word(out: &mut Vec<u8>, word: &str) {
    out.extend_from_slice(word.as_bytes());
    out.push(b' ');
}

fn put_display(out: &mut Vec<u8>, text: impl fmt::Display) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::{Encoder, Protocol, put_error};

    /// The reply that `write` writes, in each protocol.
    fn replies(write: impl Fn(&mut Encoder)) -> [String; 3] {
        [Protocol::Lines, Protocol::Resp2, Protocol::Resp3].map(|protocol| {
            let mut reply = Encoder::begin(Vec::new(), protocol, b"7", "GOT");
            write(&mut reply);
            String::from_utf8(reply.end()).unwrap()
        })
    }

    #[test]
    fn reply_without_fields_keeps_its_space() {
        assert_eq!(replies(|_| {}), ["7:GOT \n", "", ""]);
        assert_eq!(replies(Encoder::null), ["7:GOT \n", "$-1\r\n", "_\r\n"]);
    }

    #[test]
    fn fields_are_set_off_by_commas_and_their_parts_by_colons() {
        let pair = |reply: &mut Encoder, key: &[u8]| {
            reply.key(key);
            reply.bulk(b"v");
            reply.integer(30);
        };
        let written = replies(|reply| {
            reply.array(4);
            pair(reply, b"a");
            pair(reply, b"b:c");
        });
        let resp = "*4\r\n$1\r\nv\r\n:30\r\n$1\r\nv\r\n:30\r\n";
        assert_eq!(written, ["7:GOT a:v:30,\"b:c\":v:30\n", resp, resp]);
        let written = replies(|reply| {
            reply.map(1);
            reply.text("x");
            reply.text(5);
        });
        assert_eq!(written, ["7:GOT x,5\n", "*2\r\n$1\r\nx\r\n$1\r\n5\r\n", "%1\r\n$1\r\nx\r\n$1\r\n5\r\n"]);
    }

    #[test]
    fn error_takes_the_place_of_what_was_written() {
        let written = replies(|reply| {
            reply.key(b"a");
            reply.bulk(b"b");
            reply.error("OOM", "no");
        });
        assert_eq!(written, ["7:ERR no\n", "-OOM no\r\n", "-OOM no\r\n"]);
        let mut out = b"before\n".to_vec();
        put_error(&mut out, Protocol::Lines, b"", "no");
        assert_eq!(out, b"before\n:ERR no\n");
    }

    #[test]
    fn discarded_reply_leaves_no_byte_and_its_head_begins_another() {
        let mut reply = Encoder::begin(b"before\n".to_vec(), Protocol::Lines, b"x", "GOT");
        reply.key(b"a");
        let head = reply.head();
        let out = reply.discard();
        assert_eq!(out, b"before\n");
        assert_eq!(Encoder::resume(out, &head).end(), b"before\nx:GOT \n");
    }
}
