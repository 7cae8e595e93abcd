//! Absent nodes: former peers that have not announced their shutdown. They may be linked again with old values, so
//! tombstones are kept for them.

use crate::base::time::Instant;
use crate::node::ids::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a node counts as absent.
const EXPECTED: Duration = Duration::from_secs(24 * 60 * 60);

/// Absent nodes, at most; above that the one that is absent for longest is dropped.
const ABSENT_MAX: usize = 1_024;

#[derive(Debug)]
struct AbsentNode {
    /// The address that it listened on: another node that listens there is its successor.
    addr: SocketAddr,
    since: Instant,
}

/// The absent nodes; see the module.
#[derive(Debug, Default)]
pub(in crate::node) struct Absent {
    nodes: BTreeMap<NodeId, AbsentNode>,
}

impl Absent {
    /// Whether there is none.
    pub(in crate::node) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a node that was removed as a peer.
    pub(in crate::node) fn add(&mut self, now: Instant, id: NodeId, addr: SocketAddr) {
        if self.nodes.len() >= ABSENT_MAX {
            let oldest = self.nodes.iter().min_by_key(|(_, node)| node.since).map(|(id, _)| *id);
            oldest.map(|id| self.nodes.remove(&id));
        }
        self.nodes.insert(id, AbsentNode { addr, since: now });
    }

    /// Removes a node that was linked, and its predecessors at its address.
    pub(in crate::node) fn linked(&mut self, id: NodeId, addr: SocketAddr) {
        self.nodes.retain(|absent, node| *absent != id && node.addr != addr);
    }

    /// Removes nodes that are absent for a day. O(nodes).
    pub(in crate::node) fn forget_old(&mut self, now: Instant) {
        self.nodes.retain(|_, node| now.since(node.since) < EXPECTED);
    }
}

#[cfg(test)]
mod tests {
    use super::{ABSENT_MAX, Absent};
    use crate::base::time::Instant;
    use crate::node::ids::NodeId;
    use std::time::Duration;

    #[test]
    fn node_is_expected_back_for_a_day_unless_it_or_its_successor_is_there() {
        let (at, addr) = (Instant::from_millis, |port: u16| ([127, 0, 0, 1], port).into());
        let mut absent = Absent::default();
        absent.add(at(0), NodeId([1; 16]), addr(1));
        absent.add(at(0), NodeId([2; 16]), addr(2));
        absent.linked(NodeId([1; 16]), addr(9));
        assert!(!absent.is_empty());
        absent.linked(NodeId([3; 16]), addr(2));
        assert!(absent.is_empty());
        absent.add(at(0), NodeId([1; 16]), addr(1));
        absent.forget_old(at(0).after(Duration::from_secs(86_399)));
        assert!(!absent.is_empty());
        absent.forget_old(at(0).after(Duration::from_secs(86_400)));
        assert!(absent.is_empty());
    }

    #[test]
    fn absent_nodes_are_bounded() {
        let mut absent = Absent::default();
        for n in 0..=ABSENT_MAX as u128 {
            absent.add(Instant::ZERO, NodeId(n.to_be_bytes()), ([127, 0, 0, 1], 1).into());
        }
        assert_eq!(absent.nodes.len(), ABSENT_MAX);
    }
}
