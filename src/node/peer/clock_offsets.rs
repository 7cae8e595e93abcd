//! Offsets of the own wall clock from those reported by other nodes.
//!
//! A node whose clock is ahead is refused by others and may have no links, so a refusal counts as a report too.

use crate::base::time::Instant;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a report counts.
const KEPT: Duration = Duration::from_secs(300);

/// Nodes whose last report is stored.
const NODES_MAX: usize = 256;

/// The last report of each node, by its address.
#[derive(Debug, Default)]
pub(in crate::node) struct ClockOffsets {
    reports: BTreeMap<SocketAddr, (Instant, u64)>,
    /// The operator was warned.
    is_reported: bool,
}

impl ClockOffsets {
    /// Notes a report: the own wall clock is `ahead_ms` milliseconds ahead of the node's; 0 if not ahead.
    pub(in crate::node) fn note(&mut self, now: Instant, addr: SocketAddr, ahead_ms: u64) {
        if self.reports.len() >= NODES_MAX {
            self.reports.retain(|_, (at, _)| now.since(*at) < KEPT);
        }
        if self.reports.len() < NODES_MAX || self.reports.contains_key(&addr) {
            self.reports.insert(addr, (now, ahead_ms));
        }
    }

    /// Milliseconds by which the own clock is ahead of at least half of the recently reported clocks. O(nodes).
    pub(in crate::node) fn ahead_ms(&self, now: Instant) -> u64 {
        let mut lately: Vec<u64> =
            self.reports.values().filter(|(at, _)| now.since(*at) < KEPT).map(|(_, ahead)| *ahead).collect();
        lately.sort_unstable();
        let middle = lately.len().saturating_sub(1) / 2;
        lately.get(middle).copied().unwrap_or(0)
    }

    /// Whether `is_ahead` has become true since the last call.
    pub(in crate::node) fn has_become(&mut self, is_ahead: bool) -> bool {
        is_ahead & !std::mem::replace(&mut self.is_reported, is_ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::{ClockOffsets, KEPT, NODES_MAX};
    use crate::base::time::Instant;

    #[test]
    fn clock_is_ahead_if_most_nodes_report_it() {
        let (at, addr) = (Instant::from_millis(1_000), |port: u16| ([127, 0, 0, 1], port).into());
        let mut offsets = ClockOffsets::default();
        assert_eq!(offsets.ahead_ms(at), 0);
        offsets.note(at, addr(1), 900);
        assert_eq!(offsets.ahead_ms(at), 900);
        offsets.note(at, addr(2), 3);
        // One bad clock of two is not known to be ours.
        assert_eq!(offsets.ahead_ms(at), 3);
        offsets.note(at, addr(3), 800);
        assert_eq!((offsets.ahead_ms(at), offsets.ahead_ms(at.after(KEPT))), (800, 0));
        assert!(offsets.has_become(true) && !offsets.has_become(true));
        assert!(!offsets.has_become(false) && offsets.has_become(true));
        (0..1_000).for_each(|port| offsets.note(at, addr(port), 1));
        assert_eq!(offsets.reports.len(), NODES_MAX);
    }
}
