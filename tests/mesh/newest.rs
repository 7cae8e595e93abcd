//! The newest version of each key that any node wrote or deleted, and whether it may be lost.
//!
//! After the faults at most one node holds a key, and its version is not older than the newest one whose node did not
//! die: an older value must not come back, also after the newest has expired or was deleted.

use super::boundary;
use super::net::MS;
use super::oracle::{Item, Stamp, key_text};
use super::pending::{PendingRequest, What};
use super::protocol::Verb;
use super::world::World;
use std::collections::BTreeMap;

/// For how long after its request a command may be carried out by another node, and what it did be reported.
const TRAVELS_FOR: u64 = 5_000 * MS;

/// The newest known version of a key.
#[derive(Debug, Clone)]
struct Newest {
    version: u64,
    /// It is that of a deletion that was answered without an error.
    is_gone: bool,
    host: usize,
    /// The node that had it has died: what it had replaced elsewhere may come back.
    is_lost: bool,
    has_ttl: bool,
    at: u64,
    /// Hosts that its node was linked to then. Values of a node that was not known may come back.
    known: Vec<usize>,
}

/// By key.
#[derive(Debug, Default)]
pub struct NewestVersions {
    by_key: BTreeMap<u32, Newest>,
    /// When a key was last to be deleted, or to get a TTL.
    changed: BTreeMap<u32, u64>,
    /// Since when all nodes are linked for good.
    pub whole_since: Option<u64>,
    /// Deletions since then, and when they were answered.
    deleted: BTreeMap<u32, (u64, u64)>,
}

impl NewestVersions {
    fn add(&mut self, key: u32, added: Newest) {
        let newest = self.by_key.entry(key).or_insert_with(|| added.clone());
        if (added.version, added.is_gone) > (newest.version, newest.is_gone) {
            *newest = added;
        } else if added.version == newest.version {
            // Of two nodes either may stay.
            newest.is_lost |= added.host != newest.host;
            newest.has_ttl |= added.has_ttl;
        }
    }

    /// A node was given a command that may delete a key or give it a TTL, wherever it is.
    pub fn note_command(&mut self, key: u32, at: u64) {
        self.changed.insert(key, at);
    }

    /// Whether this version of a key counts as deleted for requests at `given`: more than `lag` after the deletion's
    /// answer.
    pub fn was_deleted(&self, key: u32, version: u64, given: u64, lag: u64) -> bool {
        self.deleted.get(&key).is_some_and(|(deleted, at)| version <= *deleted && at + lag < given)
    }
}

impl World {
    /// A node has carried out a change at this moment, or may have. Returns the version of the value that was set.
    pub fn note_change(&mut self, host: usize, verb: Verb, key: u32) -> Option<u64> {
        let at = self.net.now;
        if !matches!(verb, Verb::Set | Verb::SetEx) {
            self.newest.note_command(key, at);
            return None;
        }
        let node = self.hosts[host].node.as_ref()?;
        let version = boundary::held_version(node, self.hosts[host].now(at), &key_text(key))?;
        let (known, has_ttl) = (self.linked_hosts(host), verb == Verb::SetEx);
        self.newest.add(key, Newest { version, is_gone: false, host, is_lost: false, has_ttl, at, known });
        Some(version)
    }

    /// A node has answered DEL without an error.
    pub fn note_deletions(&mut self, host: usize, request: &PendingRequest) {
        let What::Keys(Verb::Del, items) = &request.what else { return };
        let at = self.net.now;
        let known = self.linked_hosts(host);
        for Item { key, .. } in items {
            let Some(node) = &self.hosts[host].node else { return };
            let version = boundary::gone_version(node, self.hosts[host].now(at), &key_text(*key));
            let Some(version) = version else { continue };
            let known = known.clone();
            let gone = Newest { version, is_gone: true, host, is_lost: false, has_ttl: false, at, known };
            self.newest.add(*key, gone);
            let given = request.given.unwrap_or_default();
            let is_whole = self.newest.whole_since.is_some_and(|since| since < given.nanos);
            if is_whole && self.is_everybody_linked() {
                self.newest.deleted.insert(*key, (version, at));
            }
        }
    }

    /// Whether all nodes can be linked to all others, and no clock was further off than nodes accept.
    pub fn is_everybody_linked(&self) -> bool {
        self.plan.active_peers as usize >= self.members - 1 && !self.oracle.has_wrong_clocks
    }

    /// A node is about to die, and with it what it holds.
    pub fn note_death(&mut self, host: usize, now: Stamp) {
        let Some(node) = &self.hosts[host].node else { return };
        let time = self.hosts[host].now(now.nanos);
        for (key, newest) in &mut self.newest.by_key {
            let held = boundary::held_version(node, time, &key_text(*key));
            newest.is_lost |= newest.host == host || held.is_some_and(|held| held >= newest.version);
            newest.known.retain(|known| *known != host);
        }
    }

    /// All nodes agree on every key that was ever written.
    pub fn check_agreement(&self) {
        if self.plan.is_cramped || !self.is_everybody_linked() {
            return;
        }
        for key in self.oracle.keys() {
            let text = key_text(key);
            let held = |at: usize| {
                let host = &self.hosts[at];
                boundary::held_version(host.node.as_ref()?, host.now(self.net.now), &text)
            };
            let held: Vec<(usize, u64)> = (0..self.members).filter_map(|at| Some((at, held(at)?))).collect();
            let newest = self.newest.by_key.get(&key);
            let shown = || format!("{}: {held:?}, {newest:?}", text.escape_ascii());
            assert!(held.len() <= 1, "two nodes hold a key after all: {}", shown());
            let Some(newest) = newest else { continue };
            let is_changed = || self.newest.changed.get(&key).is_some_and(|at| at + TRAVELS_FOR > newest.at);
            let is_right = match held.first() {
                Some((host, version)) => {
                    *version >= newest.version || newest.is_lost || !newest.known.contains(host)
                }
                None => newest.is_gone || newest.is_lost || newest.has_ttl || is_changed(),
            };
            let wrong = if held.is_empty() { "the newest value is lost" } else { "an older value came back" };
            assert!(is_right, "{wrong}: {}", shown());
        }
    }
}
