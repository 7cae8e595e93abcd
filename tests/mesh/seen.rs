//! The coverage of all seeds together: an event that never occurs in the simulation is not tested by it.

use olivia::node::{CloseReason, Stats};
use std::collections::BTreeMap;

/// Sums by name.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    sums: BTreeMap<&'static str, u64>,
}

impl Seen {
    pub fn add(&mut self, name: &'static str, count: u64) {
        *self.sums.entry(name).or_default() += count;
    }

    /// The counters of one run of a node.
    pub fn add_node(&mut self, stats: &Stats) {
        for reason in CloseReason::ALL {
            self.add(reason.name(), stats.connections_closed[reason as usize]);
        }
        let counts = [
            ("hits", stats.hits),
            ("misses", stats.misses),
            ("remote hits", stats.lookup_hits),
            ("remote misses", stats.lookup_misses),
            ("lookups that took too long", stats.lookup_timeouts),
            ("lookups joined", stats.lookups_coalesced),
            ("answers too late", stats.answers_late),
            ("forged answers", stats.answers_mismatched),
            ("questions lost with their link", stats.queries_lost),
            ("questions given up", stats.queries_abandoned),
            ("false claims", stats.query_false_positives),
            ("digests dropped", stats.digest_messages_dropped),
            ("digests refused", stats.digest_messages_refused),
            ("broken frames", stats.frames_broken),
            ("handshakes refused", stats.handshakes_refused),
            ("stale events", stats.stale_events),
        ];
        counts.into_iter().for_each(|(name, count)| self.add(name, count));
    }

    pub fn merge(&mut self, other: &Self) {
        other.sums.iter().for_each(|(name, count)| self.add(name, *count));
    }

    /// Panics with what has not come about and could have, in worlds of one node or in meshes.
    pub fn check(&self, is_alone: bool) {
        let is_wanted = |name: &str| {
            let reason = CloseReason::ALL.into_iter().find(|reason| reason.name() == name);
            let by_hostile_clients =
                ["protocol", "browser", "buffers_full", "unauthenticated", "slow_reader", "idle"];
            match reason {
                // Clients of the simulation speak lines, and only RESP has a command that closes others.
                Some(CloseReason::Killed) => false,
                Some(reason) if is_alone => !reason.is_of_the_mesh(),
                Some(_) => !by_hostile_clients.contains(&name),
                None => !is_alone || ["hits", "misses", "stale events"].contains(&name),
            }
        };
        let missing = self.sums.iter().filter(|(name, count)| **count == 0 && is_wanted(name));
        let missing: Vec<_> = missing.map(|(name, _)| *name).collect();
        assert!(missing.is_empty(), "never seen: {missing:?}, of {:?}", self.sums);
        // Only a node without peers has so few places for clients that one is refused.
        let by_limits = ["clients refused", "writes without memory"].into_iter().filter(|_| is_alone);
        for name in by_limits.chain(["pauses"]) {
            assert!(self.sums.contains_key(name), "never seen: {name}");
        }
    }
}
