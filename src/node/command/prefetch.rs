//! Prefetching: while requests wait in a row, the memory of their keys is fetched for several at once.
//!
//! In a store larger than the processor's caches a lookup mostly waits for memory, some 100 ns two or three
//! times, one after the other. A pipeline shows in advance what will be looked up; fetching all of it together
//! lets the waits overlap. In lines it is a guess about bytes that are not parsed yet: a wrong one costs the
//! fetch and changes nothing.

use crate::node::command::row::{Access, Command};
use crate::node::command::table::TABLE;
use crate::node::keyspace::Keyspace;
use crate::store::{HashedKey, KeyHash, PREFETCH_MAX};
use crate::wire::args::Args;
use crate::wire::line::split_word;
use crate::wire::resp::parse::{Batch, RequestLimits};
use memchr::{memchr, memrchr};

/// Bytes of items and index below which they are taken to be in the caches anyway.
const STORE_BYTES_MIN: u64 = 1024 * 1024;

/// Keys below which prefetching is not worth its own cost.
const KEYS_MIN: usize = 4;

/// Lines looked at together at most.
const LINES_MAX: usize = 16;

/// Keys that were seen ahead. What cannot be in the caches is worth looking at only.
struct Seen<'s> {
    keyspace: &'s Keyspace,
    is_worth_it: bool,
    /// Only their hashes.
    keys: [HashedKey<'static>; PREFETCH_MAX],
    count: usize,
    writes: bool,
    last: Option<&'static Command>,
}

impl<'s> Seen<'s> {
    #[inline]
    fn new(keyspace: &'s Keyspace) -> Self {
        let is_worth_it = keyspace.store().memory_bytes() >= STORE_BYTES_MIN;
        let keys = [HashedKey { hash: KeyHash(0), bytes: b"" }; PREFETCH_MAX];
        Self { keyspace, is_worth_it, keys, count: 0, writes: false, last: None }
    }

    fn add<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) {
        for (key, slot) in keys.zip(&mut self.keys[self.count..]) {
            *slot = HashedKey { hash: self.keyspace.key(key).hash, bytes: b"" };
            self.count += 1;
        }
    }

    /// Adds the first key that a line seems to name.
    #[inline]
    fn add_line(&mut self, text: &[u8]) {
        if !self.is_worth_it {
            return;
        }
        let (word, body) = split_word(text.strip_suffix(b"\r").unwrap_or(text));
        let behind_id = |word: &[u8]| memrchr(b':', word).map(|colon| colon + 1);
        if let Some(command) = self.find(word).or_else(|| self.find(&word[behind_id(word)?..]))
            && let Some(form) = &command.line
        {
            self.writes |= command.access == Access::Write;
            self.add(form.syntax.likely_key(body).filter(|key| !key.is_empty()).into_iter());
        }
    }

    /// Adds the keys of a request in RESP.
    #[inline]
    fn add_words(&mut self, words: Args<'_>) {
        if self.is_worth_it
            && let Some(command) = words.get(0).and_then(|name| self.find(name))
        {
            self.writes |= command.access == Access::Write;
            self.add(command.keys(false, words.skip(1)));
        }
    }

    /// The command of a name; requests in a row often have the same one.
    #[inline]
    fn find(&mut self, name: &[u8]) -> Option<&'static Command> {
        let is_same =
            |last: &Command| last.name.len() == name.len() && last.name.bytes().eq(name.iter().copied());
        if !self.last.is_some_and(is_same) {
            self.last = TABLE.find(name);
        }
        self.last
    }

    fn prefetch(&self) {
        if self.count >= KEYS_MIN {
            self.keyspace.prefetch(&self.keys[..self.count], self.writes);
        }
    }
}

/// Prefetches the memory of the keys of one request, at most 16, if they are several.
#[inline]
pub(in crate::node) fn prefetch_keys<'k>(
    keyspace: &Keyspace,
    keys: impl ExactSizeIterator<Item = &'k [u8]>,
    for_writing: bool,
) {
    if keys.len() < KEYS_MIN {
        return;
    }
    let mut seen = Seen::new(keyspace);
    if seen.is_worth_it {
        seen.writes = for_writing;
        seen.add(keys);
        seen.prefetch();
    }
}

/// Requests of some input that were looked at before their turn: their keys are prefetched, and where they end, or
/// their arguments, are kept until it is their turn.
#[derive(Debug, Default)]
pub(in crate::node) struct Ahead {
    /// Bytes of the lines that were looked at, up to their line feeds.
    lines: Vec<usize>,
    taken: usize,
    pub(in crate::node) requests: Batch,
}

impl Ahead {
    /// Forgets what was looked at: other input follows.
    pub(in crate::node) fn clear(&mut self) {
        self.lines.clear();
        self.taken = 0;
        self.requests.clear();
    }

    /// Where the next line ends, with which the input begins, if it was looked at.
    #[inline]
    pub(in crate::node) fn next_line(&mut self) -> Option<usize> {
        let end = self.lines.get(self.taken).copied();
        self.taken += usize::from(end.is_some());
        end
    }

    /// Is called with what follows each line before that is carried out. Looks at the next lines, if none is left
    /// that was looked at.
    #[inline]
    pub(in crate::node) fn look_at_lines(&mut self, keyspace: &Keyspace, input: &[u8]) {
        if self.taken == self.lines.len() && !input.is_empty() {
            self.prefetch_lines(keyspace, input);
        }
    }

    fn prefetch_lines(&mut self, keyspace: &Keyspace, input: &[u8]) {
        self.lines.clear();
        self.taken = 0;
        let mut seen = Seen::new(keyspace);
        let mut rest = input;
        while seen.count < PREFETCH_MAX && self.lines.len() < LINES_MAX {
            let Some(end) = memchr(b'\n', rest) else { break };
            self.lines.push(end);
            seen.add_line(&rest[..end]);
            rest = &rest[end + 1..];
        }
        seen.prefetch();
    }

    /// Looks at the requests in RESP at the front of some input.
    pub(in crate::node) fn look_at_requests(
        &mut self,
        keyspace: &Keyspace,
        input: &[u8],
        limits: RequestLimits,
    ) {
        if self.requests.parse(input, limits) > 1 {
            let mut seen = Seen::new(keyspace);
            self.requests.for_each(input, |words| seen.add_words(words));
            seen.prefetch();
        }
    }
}
#[cfg(test)]
mod tests {
    use super::Ahead;
    use crate::base::time::{Instant, Now};
    use crate::config::Config;
    use crate::node::state::State;
    use crate::wire::resp::parse::RequestLimits;

    #[test]
    fn lines_and_requests_that_were_looked_at_are_taken_in_their_turn() {
        let now = Now { mono: Instant::ZERO, wall_ms: 0 };
        let state = State::new(Config::default(), 1, now);
        let mut ahead = Ahead::default();
        let lines = b"GET a\r\n\nSET b:c\nGET d";
        ahead.look_at_lines(&state.keyspace, lines);
        assert_eq!([(); 4].map(|()| ahead.next_line()), [Some(6), Some(0), Some(7), None]);
        let limits = RequestLimits {
            args_max: 10,
            bulk_bytes_max: 100,
            request_bytes_max: 1_000,
            is_unauthenticated: false,
        };
        let mut rest = &b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*0\r\n*1\r\n$4\r\nPING\r\n*1\r\n$9"[..];
        ahead.look_at_requests(&state.keyspace, rest, limits);
        let mut taken = Vec::new();
        while let Some(request) = ahead.requests.take(rest) {
            taken.push(request.args().iter().map(<[u8]>::to_vec).collect::<Vec<_>>().concat());
            rest = &rest[request.consumed..];
        }
        assert_eq!((taken, rest), (vec![b"GETa".to_vec(), b"".to_vec(), b"PING".to_vec()], &b"*1\r\n$9"[..]));
        assert!(ahead.requests.is_empty());
    }
}
