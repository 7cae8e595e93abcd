//! Prefetch: fetches the memory of the keys of several queued requests before they are executed.
//!
//! In a store larger than the processor's caches a lookup consists mostly of two or three cache misses in sequence,
//! some 100 ns each. Prefetches for the keys of a pipeline overlap them. In lines the keys are guessed from bytes that
//! are not parsed yet: a wrong guess costs a prefetch and has no other effect.

use crate::node::command::find::find_recent;
use crate::node::command::row::Access;
use crate::node::keyspace::Keyspace;
use crate::node::state::RecentName;
use crate::store::{KeyHash, PREFETCH_MAX};
use crate::wire::args::Args;
use crate::wire::encoder::Protocol;
use crate::wire::line::split_word;
use crate::wire::lookahead::Lookahead;
use crate::wire::resp::parse::{RequestLimits, likely_key};
use memchr::memrchr;

/// Keys of queued requests, to be prefetched together. Stays empty while the store fits the caches.
struct Seen<'s> {
    keyspace: &'s Keyspace,
    is_worth_it: bool,
    keys: [KeyHash; PREFETCH_MAX],
    count: usize,
    /// Whether one of the requests writes.
    writes: bool,
    recent: &'s mut RecentName,
}

impl<'s> Seen<'s> {
    #[inline]
    fn new(keyspace: &'s Keyspace, recent: &'s mut RecentName) -> Self {
        let is_worth_it = keyspace.is_beyond_caches();
        Self { keyspace, is_worth_it, keys: [KeyHash(0); PREFETCH_MAX], count: 0, writes: false, recent }
    }

    fn add<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) {
        for key in keys {
            let Some(slot) = self.keys.get_mut(self.count) else { return };
            *slot = self.keyspace.key(key).hash;
            self.count += 1;
        }
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
            self.add(form.syntax.likely_key(body).filter(|key| !key.is_empty()).into_iter());
        }
    }

    /// Adds the keys of a request in RESP.
    #[inline]
    fn add_words(&mut self, words: Args<'_>) {
        if self.is_worth_it
            && let Some(command) = words.get(0).and_then(|name| find_recent(self.recent, name))
        {
            self.writes |= command.access == Access::Write;
            match command.only_key(words) {
                Some(key) => self.add(std::iter::once(key)),
                None => self.add(command.keys(false, words.skip(1))),
            }
        }
    }

    /// Adds the likely key of an unparsed request in RESP.
    #[inline]
    fn add_request(&mut self, input: &[u8]) {
        if let Some((name, key)) = likely_key(input)
            && let Some(command) = find_recent(self.recent, name).filter(|command| command.has_only_key())
        {
            self.writes |= command.access == Access::Write;
            self.add(std::iter::once(key));
        }
    }

    fn prefetch(&self) {
        self.keyspace.prefetch(&self.keys[..self.count], self.writes);
    }
}

/// Prefetches the likely first key of each of the next lines, unless scanned lines are left. Called before a line is
/// executed, with the input after it.
#[inline]
pub(in crate::node) fn prefetch_lines(
    lookahead: &mut Lookahead,
    recent: &mut RecentName,
    keyspace: &Keyspace,
    input: &[u8],
) {
    if lookahead.is_out_of_lines() && !input.is_empty() {
        let mut seen = Seen::new(keyspace, recent);
        lookahead.scan_lines(input, |line| seen.add_line(line));
        seen.prefetch();
    }
}

/// Prefetches the likely first key in the input of each of several clients, before any of it is executed.
pub(in crate::node) fn prefetch_inputs<'k>(
    keyspace: &Keyspace,
    inputs: impl Iterator<Item = (Protocol, &'k [u8])>,
) {
    let mut recent = RecentName::default();
    let mut seen = Seen::new(keyspace, &mut recent);
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

/// Parses the requests in RESP at the start of `input`, and prefetches their keys if there are at least two.
pub(in crate::node) fn prefetch_requests(
    lookahead: &mut Lookahead,
    recent: &mut RecentName,
    keyspace: &Keyspace,
    input: &[u8],
    limits: RequestLimits,
) {
    if lookahead.requests.parse(input, limits) > 1 {
        let mut seen = Seen::new(keyspace, recent);
        lookahead.requests.for_each(input, |words| seen.add_words(words));
        seen.prefetch();
    }
}
