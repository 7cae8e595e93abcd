//! Keys that are only appended to, each time with unique text: the value shows which commands were carried out, and
//! that none was twice, on whatever node.

use super::net::MS;
use super::oracle::Item;
use super::pending::{PendingRequest, What};
use super::protocol::Verb;
use super::world::World;
use std::collections::BTreeSet;

/// The first of these keys, and how many there are.
const FIRST: u32 = 3_000_000;
pub const KEYS: usize = 4;

/// The appended texts.
#[derive(Debug, Default)]
pub struct Appended {
    /// By commands that were answered while all nodes were linked for good.
    answered: BTreeSet<usize>,
    /// They must all be seen.
    are_all_seen: bool,
}

pub const fn is_appended(key: u32) -> bool {
    key >= FIRST
}

impl World {
    fn appended_key(&mut self) -> u32 {
        FIRST + u32::try_from(self.rng.below(KEYS as u64)).unwrap()
    }

    /// Draws an APPEND, or a GET of such a key.
    pub fn compose_append(&mut self, host: usize) -> What {
        let key = self.appended_key();
        let mut item = Item { key, value: usize::MAX, seconds: 0 };
        if self.rng.one_in(2) {
            return What::Keys(Verb::Get, vec![item]);
        }
        item.value = self.oracle.new_value(host, key, 0);
        What::Keys(Verb::Append, vec![item])
    }

    /// A node has answered an APPEND without an error.
    pub fn note_appended(&mut self, request: &PendingRequest) {
        let is_whole = self.newest.whole_since.zip(request.given).is_some_and(|(at, given)| at < given.nanos);
        if let What::Keys(Verb::Append, items) = &request.what
            && is_whole
            && self.is_everybody_linked()
        {
            self.appended.answered.extend(items.iter().map(|item| item.value));
        }
    }

    /// Checks what GET returns of such a key.
    pub fn check_appended(
        &self,
        request: &PendingRequest,
        key: u32,
        shown: Option<&[u8]>,
    ) -> Result<(), String> {
        let text = std::str::from_utf8(shown.unwrap_or_default()).map_err(|error| error.to_string())?;
        if text.starts_with("hostile_peer.") {
            return if self.has_hostile_peers { Ok(()) } else { Err("no hostile peer sent that".to_owned()) };
        }
        let mut seen = BTreeSet::new();
        for part in text.split_inclusive('.') {
            let value =
                self.oracle.value_of(part.as_bytes()).ok_or_else(|| format!("{part} was never appended"))?;
            if self.oracle.values[value].key != key {
                return Err(format!("{part} was appended to another key"));
            }
            if !seen.insert(value) {
                return Err(format!("{part} was appended twice"));
            }
        }
        let of_key = |value: &&usize| self.oracle.values[**value].key == key;
        let missing = self.appended.answered.iter().filter(of_key).find(|value| !seen.contains(value));
        match missing.filter(|_| self.appended.are_all_seen && request.is_prompt) {
            Some(missing) => Err(format!("v{missing}. was appended and is lost")),
            None => Ok(()),
        }
    }

    /// Requests these keys from every node, after all that was appended was answered.
    pub fn find_appended(&mut self) {
        self.appended.are_all_seen = self.is_strict;
        for host in 0..self.members {
            let reader = self.add_client(host);
            self.run_until(self.net.now + 100 * MS);
            for key in (FIRST..).take(KEYS) {
                let item = Item { key, value: usize::MAX, seconds: 0 };
                let is_sent = self.request_now(reader, What::Keys(Verb::Get, vec![item]));
                assert!(is_sent, "the client is not connected");
                self.run_until(self.net.now + 100 * MS);
            }
        }
        self.run_until(self.net.now + 1_000 * MS);
    }
}
