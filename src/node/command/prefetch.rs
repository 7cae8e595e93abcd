//! Reading ahead: while requests wait in a row, the memory of their keys is fetched for several at once.
//!
//! In a store larger than the processor's caches a look-up mostly waits for memory, some 100 ns two or
//! three times, one after the other. A pipeline tells in advance what will be looked up; asking for all
//! of it together lets the waits overlap. It is a guess about bytes that are not parsed yet: a wrong one
//! costs the fetch and changes nothing.

use crate::node::state::State;
use crate::store::{HashedKey, KeyHash, PREFETCH_MAX};
use crate::wire::request::likely_keys;
use memchr::memchr;

/// Bytes of items and index below which they are taken to be in the caches anyway.
const STORE_BYTES_MIN: u64 = 1024 * 1024;

/// Keys below which reading ahead is not worth its own cost.
const KEYS_MIN: usize = 4;

/// Lines looked at together at most: many that name no key would be looked at again and again, up to the end of
/// the input, which holds thousands of empty ones.
const LINES_MAX: u32 = 64;

/// Fetches the memory of the keys of the requests at the front of `input`, at most 16 keys. Returns how
/// many requests it looked at, 1 to 64: not before so many are done is there reason to look again.
pub(in crate::node) fn prefetch_requests(state: &State, input: &[u8]) -> u32 {
    if state.keyspace.store().memory_bytes() < STORE_BYTES_MIN {
        return u32::MAX;
    }
    let mut requests = 0;
    let mut keys = [HashedKey { hash: KeyHash(0), bytes: b"" }; PREFETCH_MAX];
    let mut found = 0;
    let mut rest = input;
    let mut sets = false;
    while found < PREFETCH_MAX
        && requests < LINES_MAX
        && let Some(end) = memchr(b'\n', rest)
    {
        let likely = likely_keys(&rest[..end]);
        sets |= likely.sets;
        for (key, slot) in likely.zip(&mut keys[found..]) {
            *slot = state.keyspace.key(key);
            found += 1;
        }
        rest = &rest[end + 1..];
        requests += 1;
    }
    if found >= KEYS_MIN {
        state.keyspace.prefetch(&keys[..found], sets);
    }
    requests.max(1)
}

#[cfg(test)]
mod tests {
    use super::{LINES_MAX, prefetch_requests};
    use crate::base::time::{Instant, Now};
    use crate::config::Config;
    use crate::node::state::State;

    #[test]
    fn lines_that_name_no_key_are_looked_at_once_and_not_to_the_end_of_the_input() {
        let now = Now { mono: Instant::ZERO, wall_ms: 0 };
        let mut state = State::new(Config::default(), 1, now);
        let looks = |state: &State, lines: &str| prefetch_requests(state, lines.repeat(10_000).as_bytes());
        assert_eq!(looks(&state, "PING\n"), u32::MAX, "a small store is in the caches");
        for id in 0..30_000u64 {
            let key = id.to_be_bytes();
            let key = state.keyspace.key(&key);
            state.keyspace.set(now, key, &[0; 64], None).unwrap();
        }
        for (lines, most) in [("\n", LINES_MAX), ("PING\n", LINES_MAX), ("GET a\n", 16), ("GET a,b\n", 8)] {
            assert_eq!(looks(&state, lines), most, "{lines:?}");
        }
        assert_eq!(prefetch_requests(&state, b"GET a"), 1, "what is not whole yet is not waited for");
    }
}
