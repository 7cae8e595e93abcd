//! Prefetch: fetches the memory of the keys of several queued requests before they are executed.
//!
//! In a store larger than the processor's caches a lookup consists mostly of two or three cache misses in sequence,
//! some 100 ns each. Prefetches for the keys of a pipeline overlap them. In lines the keys are guessed from bytes that
//! are not parsed yet: a wrong guess costs a prefetch and has no other effect.

use crate::limits::Limits;
use crate::node::command::find::{find_plain_command, find_recent};
use crate::node::command::row::Access;
use crate::node::keyspace::Keyspace;
use crate::node::state::{PrefetchedKeys, RecentName, Resolved, Scratch};
use crate::store::KeyHash;
use crate::wire::args::Args;
use crate::wire::encoder::Protocol;
use crate::wire::line::split_word;
use crate::wire::resp::parse::{RequestLimits, likely_key};
use memchr::memrchr;

/// Keys of queued requests, to be prefetched together. Stays empty while the store fits the caches.
struct Seen<'s> {
    keyspace: &'s Keyspace,
    is_worth_it: bool,
    keys: &'s mut PrefetchedKeys,
    /// Whether one of the requests writes.
    writes: bool,
    recent: &'s mut RecentName,
}

impl<'s> Seen<'s> {
    #[inline]
    fn new(keyspace: &'s Keyspace, keys: &'s mut PrefetchedKeys, recent: &'s mut RecentName) -> Self {
        keys.count = 0;
        Self { keyspace, is_worth_it: keyspace.is_beyond_caches(), keys, writes: false, recent }
    }

    /// Adds a key, unless there are too many; returns its hash.
    #[inline]
    fn add(&mut self, key: &[u8]) -> Option<KeyHash> {
        let slot = self.keys.hashes.get_mut(self.keys.count)?;
        *slot = self.keyspace.key(key).hash;
        self.keys.count += 1;
        Some(*slot)
    }

    /// Adds the likely first key of a line.
    #[inline]
    fn add_line(&mut self, text: &[u8]) {
        if !self.is_worth_it {
            return;
        }
        let (word, body) = split_word(text.strip_suffix(b"\r").unwrap_or(text));
        let after_id = |word: &[u8]| memrchr(b':', word).map(|colon| colon + 1);
        if let Some(command) =
            find_recent(self.recent, word).or_else(|| find_recent(self.recent, &word[after_id(word)?..]))
            && let Some(form) = &command.line
        {
            self.writes |= command.access == Access::Write;
            form.syntax.likely_key(body).filter(|key| !key.is_empty()).and_then(|key| self.add(key));
        }
    }

    /// Finds the command of a request in RESP, and adds its keys.
    #[inline(always)]
    fn resolve(&mut self, words: Args<'_>, limits: &Limits) -> Resolved {
        let Some(command) = find_plain_command(words, limits, self.recent) else {
            return Resolved::default();
        };
        let row = command.index;
        if !self.is_worth_it {
            return Resolved { row, hash: None };
        }
        self.writes |= command.access == Access::Write;
        let hash = match command.only_key(words) {
            Some(key) => self.add(key),
            // The first request fetches several keys when it is executed.
            None if self.keys.count == 0 => None,
            None => {
                command.keys(false, words.skip(1)).take_while(|key| self.add(key).is_some()).for_each(drop);
                None
            }
        };
        Resolved { row, hash }
    }

    /// Adds the likely key of an unparsed request in RESP.
    #[inline]
    fn add_request(&mut self, input: &[u8]) {
        if let Some((name, key)) = likely_key(input)
            && let Some(command) = find_recent(self.recent, name).filter(|command| command.has_only_key())
        {
            self.writes |= command.access == Access::Write;
            self.add(key);
        }
    }

    fn prefetch(&self) {
        self.keyspace.prefetch(&self.keys.hashes[..self.keys.count], self.writes);
    }
}

/// Prefetches the likely first key of each of the next lines, unless scanned lines are left. Called before a line is
/// executed, with the input after it.
#[inline]
pub(in crate::node) fn prefetch_lines(scratch: &mut Scratch, keyspace: &Keyspace, input: &[u8]) {
    let Scratch { lookahead, keys, recent, .. } = scratch;
    if lookahead.is_out_of_lines() && !input.is_empty() {
        let mut seen = Seen::new(keyspace, keys, recent);
        lookahead.scan_lines(input, |line| seen.add_line(line));
        seen.prefetch();
    }
}

/// Prefetches the likely first key in the input of each of several clients, before any of it is executed.
pub(in crate::node) fn prefetch_inputs<'k>(
    keyspace: &Keyspace,
    inputs: impl Iterator<Item = (Protocol, &'k [u8])>,
) {
    let (mut keys, mut recent) = (PrefetchedKeys::default(), RecentName::default());
    let mut seen = Seen::new(keyspace, &mut keys, &mut recent);
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

/// Parses the requests in RESP at the start of `input`, finds their commands, and prefetches their keys if there are at
/// least two. All of them are subject to the limits of now.
#[inline(never)]
pub(in crate::node) fn prefetch_requests(
    scratch: &mut Scratch,
    keyspace: &Keyspace,
    input: &[u8],
    limits: &Limits,
    request_limits: RequestLimits,
) {
    let Scratch { lookahead, keys, recent, .. } = scratch;
    let mut seen = Seen::new(keyspace, keys, recent);
    if lookahead.requests.parse(input, request_limits, |words| seen.resolve(words, limits)) > 1 {
        seen.prefetch();
    }
}
