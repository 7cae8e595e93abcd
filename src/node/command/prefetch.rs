//! Prefetching: while requests wait in a row, the memory of their keys is fetched for several at once.
//!
//! In a store larger than the processor's caches a lookup mostly waits for memory, some 100 ns two or three
//! times, one after the other. A pipeline shows in advance what will be looked up; fetching all of it together
//! lets the waits overlap. In lines it is a guess about bytes that are not parsed yet: a wrong one costs the
//! fetch and changes nothing.

use crate::limits::RESP_ARGS_MAX;
use crate::node::command::row::{Access, Command};
use crate::node::command::table::TABLE;
use crate::node::keyspace::Keyspace;
use crate::node::state::Scratch;
use crate::store::{HashedKey, KeyHash, PREFETCH_MAX};
use crate::wire::encoder::Protocol;
use crate::wire::line::split_word;
use crate::wire::line_form::Syntax;
use crate::wire::resp::parse::{Front, Progress, RequestLimits};
use memchr::memchr;

/// Bytes of items and index below which they are taken to be in the caches anyway.
const STORE_BYTES_MIN: u64 = 1024 * 1024;

/// Keys below which prefetching is not worth its own cost.
const KEYS_MIN: usize = 4;

/// Requests looked at together at most: many that name no key would be looked at again and again, up to the end
/// of the input, which holds thousands of empty ones.
const REQUESTS_MAX: u32 = 64;

/// Keys that were seen ahead.
struct Seen<'s> {
    keyspace: &'s Keyspace,
    /// Only their hashes.
    keys: [HashedKey<'static>; PREFETCH_MAX],
    count: usize,
    writes: bool,
    last: Option<&'static Command>,
}

impl Seen<'_> {
    fn add<'k>(&mut self, command: &Command, keys: impl Iterator<Item = &'k [u8]>) {
        self.writes |= command.access == Access::Write;
        for (key, slot) in keys.zip(&mut self.keys[self.count..]) {
            *slot = HashedKey { hash: self.keyspace.key(key).hash, bytes: b"" };
            self.count += 1;
        }
    }
}

/// Fetches the memory of the keys of the requests at the front of `input`, at most 16 keys. Returns how many
/// requests it looked at, 1 to 64: not before so many are done is there reason to look again.
pub(in crate::node) fn prefetch_requests(
    keyspace: &Keyspace,
    input: &[u8],
    protocol: Protocol,
    scratch: &mut Scratch,
) -> u32 {
    if keyspace.store().memory_bytes() < STORE_BYTES_MIN {
        return u32::MAX;
    }
    let keys = [HashedKey { hash: KeyHash(0), bytes: b"" }; PREFETCH_MAX];
    let mut seen = Seen { keyspace, keys, count: 0, writes: false, last: None };
    let mut requests = 0;
    let mut rest = input;
    while seen.count < PREFETCH_MAX && requests < REQUESTS_MAX {
        let consumed = match protocol {
            Protocol::Lines => look_at_line(rest, &mut seen),
            Protocol::Resp2 | Protocol::Resp3 => look_at_resp(rest, scratch, &mut seen),
        };
        let Some(consumed) = consumed else { break };
        rest = &rest[consumed..];
        requests += 1;
    }
    if seen.count >= KEYS_MIN {
        keyspace.prefetch(&seen.keys[..seen.count], seen.writes);
    }
    requests.max(1)
}

/// The command of a name; requests in a row often have the same one.
fn find(name: &[u8], seen: &mut Seen<'_>) -> Option<&'static Command> {
    if seen.last.is_none_or(|last| last.name.as_bytes() != name) {
        seen.last = TABLE.find(name);
    }
    seen.last
}

/// Adds the keys that the line at the front of `input` seems to name. Returns its bytes; `None`: it is not whole.
fn look_at_line(input: &[u8], seen: &mut Seen<'_>) -> Option<usize> {
    let end = memchr(b'\n', input)?;
    let text = &input[..end];
    let (word, body) = split_word(text.strip_suffix(b"\r").unwrap_or(text));
    let verb = word.rsplit(|&byte| byte == b':').next().unwrap_or_default();
    if let Some(command) = find(verb, seen)
        && let Some(form) = &command.line
        && !body.is_empty()
    {
        seen.add(command, LikelyKeys { syntax: form.syntax, rest: Some(body) });
    }
    Some(end + 1)
}

/// The same for the request at the front of `input` in RESP.
fn look_at_resp(input: &[u8], scratch: &mut Scratch, seen: &mut Seen<'_>) -> Option<usize> {
    let limits = RequestLimits {
        args_max: RESP_ARGS_MAX,
        bulk_bytes_max: u32::MAX,
        request_bytes_max: u32::MAX,
        is_unauthenticated: false,
    };
    let Front::Request(request) = scratch.resp.front(input, &mut Progress::default(), limits) else {
        return None;
    };
    let words = request.args();
    if let Some(command) = words.get(0).and_then(|name| find(name, seen)) {
        seen.add(command, command.keys(false, words.skip(1)));
    }
    Some(request.consumed)
}

/// The keys that the arguments of a line seem to name.
struct LikelyKeys<'l> {
    syntax: Syntax,
    rest: Option<&'l [u8]>,
}

impl<'l> Iterator for LikelyKeys<'l> {
    type Item = &'l [u8];

    fn next(&mut self) -> Option<&'l [u8]> {
        let body = self.rest?;
        let end = memchr(b',', body).unwrap_or(body.len());
        self.rest = body.get(end + 1..);
        self.syntax.likely_key(&body[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::{REQUESTS_MAX, prefetch_requests};
    use crate::base::time::{Instant, Now};
    use crate::config::Config;
    use crate::node::state::{Scratch, State};
    use crate::wire::encoder::Protocol;

    #[test]
    fn requests_that_name_no_key_are_looked_at_once_and_not_to_the_end_of_the_input() {
        let now = Now { mono: Instant::ZERO, wall_ms: 0 };
        let mut state = State::new(Config::default(), 1, now);
        let look = |state: &State, input: &[u8], protocol| {
            prefetch_requests(&state.keyspace, input, protocol, &mut Scratch::default())
        };
        let lines = |state: &State, line: &str| look(state, line.repeat(10_000).as_bytes(), Protocol::Lines);
        assert_eq!(lines(&state, "PING\n"), u32::MAX, "a small store is in the caches");
        for id in 0..30_000u64 {
            let key = id.to_be_bytes();
            let key = state.keyspace.key(&key);
            state.keyspace.set(now, key, &[0; 64], None).unwrap();
        }
        for (line, most) in
            [("\n", REQUESTS_MAX), ("PING\n", REQUESTS_MAX), ("GET a\n", 16), ("GET a,b\n", 8)]
        {
            assert_eq!(lines(&state, line), most, "{line:?}");
        }
        let resp = |state: &State, input: &str| look(state, input.as_bytes(), Protocol::Resp2);
        assert_eq!(resp(&state, &"*2\r\n$3\r\nGET\r\n$1\r\na\r\n".repeat(100)), 16);
        assert_eq!(resp(&state, &"*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n".repeat(100)), 8);
        assert_eq!(resp(&state, &"*1\r\n$4\r\nPING\r\n".repeat(100)), REQUESTS_MAX);
        assert_eq!(lines(&state, "GET a").min(2), 1, "what is not whole yet is not waited for");
    }
}
