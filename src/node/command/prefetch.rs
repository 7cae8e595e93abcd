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
use crate::wire::encoder::Protocol;
use crate::wire::line::split_word;
use crate::wire::lookahead::Lookahead;
use crate::wire::resp::parse::{RequestLimits, likely_key};
use memchr::memrchr;

/// Keys of requests that wait, collected to be prefetched together. Stays empty while the store fits the caches.
struct Seen<'s, 'k> {
    keyspace: &'s Keyspace,
    is_worth_it: bool,
    /// Only their hashes.
    keys: [HashedKey<'static>; PREFETCH_MAX],
    count: usize,
    writes: bool,
    /// The name of the last one, and its command: requests in a row often have the same one.
    last: Option<(&'k [u8], &'static Command)>,
}

impl<'s, 'k> Seen<'s, 'k> {
    #[inline]
    fn new(keyspace: &'s Keyspace) -> Self {
        let is_worth_it = keyspace.is_beyond_caches();
        let keys = [HashedKey { hash: KeyHash(0), bytes: b"" }; PREFETCH_MAX];
        Self { keyspace, is_worth_it, keys, count: 0, writes: false, last: None }
    }

    fn add(&mut self, keys: impl Iterator<Item = &'k [u8]>) {
        for key in keys {
            let Some(slot) = self.keys.get_mut(self.count) else { return };
            *slot = HashedKey { hash: self.keyspace.key(key).hash, bytes: b"" };
            self.count += 1;
        }
    }

    /// Adds the first key that a line seems to name.
    #[inline]
    fn add_line(&mut self, text: &'k [u8]) {
        if !self.is_worth_it {
            return;
        }
        let (word, body) = split_word(text.strip_suffix(b"\r").unwrap_or(text));
        let after_id = |word: &'k [u8]| memrchr(b':', word).map(|colon| colon + 1);
        if let Some(command) = self.find(word).or_else(|| self.find(&word[after_id(word)?..]))
            && let Some(form) = &command.line
        {
            self.writes |= command.access == Access::Write;
            self.add(form.syntax.likely_key(body).filter(|key| !key.is_empty()).into_iter());
        }
    }

    /// Adds the keys of a request in RESP.
    #[inline]
    fn add_words(&mut self, words: Args<'k>) {
        if self.is_worth_it
            && let Some(command) = words.get(0).and_then(|name| self.find(name))
        {
            self.writes |= command.access == Access::Write;
            match command.only_key(words) {
                Some(key) => self.add(std::iter::once(key)),
                None => self.add(command.keys(false, words.skip(1))),
            }
        }
    }

    /// Adds the key that a request in RESP seems to name.
    #[inline]
    fn add_request(&mut self, input: &'k [u8]) {
        if let Some((name, key)) = likely_key(input)
            && let Some(command) = self.find(name).filter(|command| command.has_only_key())
        {
            self.writes |= command.access == Access::Write;
            self.add(std::iter::once(key));
        }
    }

    #[inline]
    fn find(&mut self, name: &'k [u8]) -> Option<&'static Command> {
        if let Some((last, command)) = self.last
            && last == name
        {
            return Some(command);
        }
        let command = TABLE.find(name)?;
        self.last = Some((name, command));
        Some(command)
    }

    fn prefetch(&self) {
        self.keyspace.prefetch(&self.keys[..self.count], self.writes);
    }
}

/// Is called with what follows a line before that is carried out. If no line is left that was looked at, looks at the
/// next ones, and prefetches the first key of each.
#[inline]
pub(in crate::node) fn prefetch_lines(lookahead: &mut Lookahead, keyspace: &Keyspace, input: &[u8]) {
    if lookahead.is_out_of_lines() && !input.is_empty() {
        let mut seen = Seen::new(keyspace);
        lookahead.scan_lines(input, |line| seen.add_line(line));
        seen.prefetch();
    }
}

/// Prefetches the first key of what several clients have sent, each in its protocol, before any of it is carried out.
pub(in crate::node) fn prefetch_inputs<'k>(
    keyspace: &Keyspace,
    inputs: impl Iterator<Item = (Protocol, &'k [u8])>,
) {
    let mut seen = Seen::new(keyspace);
    if !seen.is_worth_it {
        return;
    }
    for (protocol, input) in inputs {
        match protocol {
            Protocol::Lines => seen.add_line(input.strip_suffix(b"\n").unwrap_or(input)),
            Protocol::Resp2 | Protocol::Resp3 => seen.add_request(input),
        }
    }
    seen.prefetch();
}

/// Parses the requests in RESP at the front of some input and prefetches their keys, if they are several.
pub(in crate::node) fn prefetch_requests(
    lookahead: &mut Lookahead,
    keyspace: &Keyspace,
    input: &[u8],
    limits: RequestLimits,
) {
    if lookahead.requests.parse(input, limits) > 1 {
        let mut seen = Seen::new(keyspace);
        lookahead.requests.for_each(input, |words| seen.add_words(words));
        seen.prefetch();
    }
}
