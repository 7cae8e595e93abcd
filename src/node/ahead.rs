//! Reading ahead: while requests wait in a row, the memory of their keys is fetched for several at once.
//!
//! In a store larger than the processor's caches a look-up mostly waits for memory, some 100 ns two or
//! three times, one after the other. A pipeline tells in advance what will be looked up; asking for all
//! of it together lets the waits overlap. It is a guess about bytes that are not parsed yet: a wrong one
//! costs the fetch and changes nothing.

use super::state::State;
use crate::store::{HashedKey, KeyHash, READ_AHEAD_MAX};
use crate::wire::request::likely_keys;
use memchr::memchr;

/// Bytes of items and index below which they are taken to be in the caches anyway.
const STORE_BYTES_MIN: u64 = 1024 * 1024;

/// Keys below which reading ahead is not worth its own cost.
const KEYS_MIN: usize = 4;

/// Fetches the memory of the keys of the requests at the front of `input`, at most 16 keys. Returns how
/// many requests it looked at, at least 1: not before so many are done is there reason to look again.
pub(super) fn look_ahead(state: &State, input: &[u8]) -> u32 {
    if state.store.memory_bytes() < STORE_BYTES_MIN {
        return u32::MAX;
    }
    let mut requests = 0;
    let mut keys = [HashedKey { hash: KeyHash(0), bytes: b"" }; READ_AHEAD_MAX];
    let mut found = 0;
    let mut rest = input;
    let mut sets = false;
    while let Some(end) = memchr(b'\n', rest).filter(|_| found < READ_AHEAD_MAX) {
        let likely = likely_keys(&rest[..end]);
        sets |= likely.sets;
        for (key, slot) in likely.zip(&mut keys[found..]) {
            *slot = state.store.key(key);
            found += 1;
        }
        rest = &rest[end + 1..];
        requests += 1;
    }
    if found >= KEYS_MIN {
        if sets {
            // A new key is written to the filter too.
            let filter = state.published.filter();
            keys[..found].iter().for_each(|key| filter.fetch(key.hash.0));
        }
        state.store.read_ahead(&keys[..found]);
    }
    requests.max(1)
}
