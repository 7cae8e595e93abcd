//! Checks of a node's view of its peers between any two iterations, under all faults: the position in their
//! changelogs, the keys that their filters must claim, and the links that may be lost.
//!
//! The position in a peer's changelog means that all changes before it were received. So it is never ahead of the sent
//! changes, and a filter that counts as known includes all changes up to the begin of its link and claims every key
//! that its node held then.

use super::boundary;
use super::host::{Host, Kind};
use super::net::{MS, Party, Port};
use super::oracle::key_text;
use super::world::World;
use olivia::filter::changelog::Position;
use olivia::node::{FilterState, Node, NodeId, PeerView};

/// When a link that has gone is looked for no more.
const FORGOTTEN_AFTER: u64 = 5_000 * MS;

/// Keys of a peer looked for in what is known of its filter, at a time.
const KEYS_LOOKED_FOR: usize = 4;

impl World {
    /// A node is about to take a connection from another one.
    pub fn note_beginning(&mut self, from: Party, to: usize, wire: usize) {
        let Party::Host(from) = from else { return };
        let position = |host: usize| self.hosts[host].node.as_ref().map(Node::own_position);
        let both = [position(from), position(to)];
        self.began.insert(wire, both);
    }

    /// Checks a node's view of its peers.
    pub fn check_peers(&mut self, at: usize) {
        let host = &self.hosts[at];
        let Some(node) = host.node.as_ref().filter(|_| host.is_member()) else { return };
        let views: Vec<PeerView> = boundary::links(node, host.now(self.net.now)).collect();
        let linked: Vec<NodeId> = views.iter().filter_map(|view| view.id).collect();
        self.check_links(at, &linked);
        let Some(node) = &self.hosts[at].node else { return };
        for (view, id) in views.iter().zip(&linked) {
            let has_id = |host: &Host| host.node.as_ref().is_some_and(|node| node.id() == *id);
            let wrong = match self.hosts.iter().position(has_id) {
                Some(other) if self.hosts[other].is_member() => self.check_mirror(at, other, view),
                Some(_) | None => self.check_hostile(node, *id, view),
            };
            if let Err(wrong) = wrong {
                panic!("host {at} has a wrong view of {}: {wrong}; {view:?}", view.addr);
            }
        }
        self.check_own(at, node);
    }

    /// While nothing goes wrong no link goes, unless another one to the same node is there, or about to be:
    /// of two links that have crossed one stays, and both ends agree which.
    fn check_links(&mut self, at: usize, linked: &[NodeId]) {
        let now = self.net.now;
        let calm_since = if self.plan.fault_every == 0 { 0 } else { self.calm_since() };
        let is_judged = self.plan.hostile_peers == 0 && !self.plan.is_fine && self.plan.is_full();
        let mut known = std::mem::take(&mut self.hosts[at].linked);
        known.retain(|(id, _)| !linked.contains(id));
        for (id, lost_at) in &mut known {
            let lost_at = *lost_at.get_or_insert(now);
            let has_id = |host: &&Host| host.is_well() && host.node.as_ref().is_some_and(|n| n.id() == *id);
            let other = self.hosts.iter().find(has_id).filter(|_| is_judged && lost_at >= calm_since);
            if let Some(other) = other.filter(|_| now - lost_at > self.relink_within()) {
                panic!("host {at} has lost its link to {}, and nothing has gone wrong", other.addr);
            }
        }
        known.retain(|(_, lost_at)| lost_at.is_some_and(|lost_at| now - lost_at < FORGOTTEN_AFTER));
        known.extend(linked.iter().map(|id| (*id, None)));
        self.hosts[at].linked = known;
    }

    /// Returns the maximum time from BYE on one link to the welcome on the other.
    fn relink_within(&self) -> u64 {
        10 * MS + 2 * (self.plan.slowest_path() + self.sluggishness())
    }

    /// Checks a node's copy of another node's filter.
    fn check_mirror(&self, at: usize, other: usize, view: &PeerView) -> Result<(), String> {
        let (Some(node), Some(peer)) = (&self.hosts[at].node, &self.hosts[other].node) else { return Ok(()) };
        let head = peer.own_position();
        if let Some(position) = view.position {
            demand(position.epoch == head.epoch, || "of another life".to_owned())?;
            demand(position.seq <= head.seq, || format!("it ends at {}", head.seq))?;
        }
        if view.filter != FilterState::Known {
            return Ok(());
        }
        let position = view.position.ok_or("known up to nowhere")?;
        let began = self.began_at(at, other, head).unwrap_or(0);
        demand(position.seq >= began, || format!("the link began at {began} of its changes"))?;
        let keys = self.oracle.held_since(other, self.net.now + MS, position.seq, self.some_keys());
        for key in keys {
            let is_claimed = node.peer_claims(peer.id(), self.hashes.hash(&key_text(key)).0);
            demand(is_claimed, || {
                let held = self.oracle.describe(other, key);
                format!("{} is missing: {held}", key_text(key).escape_ascii())
            })?;
        }
        Ok(())
    }

    /// Returns the end of a node's log when the oldest connection began that may be its link to another node.
    fn began_at(&self, at: usize, other: usize, head: Position) -> Option<u64> {
        let ends = self.hosts[at].sockets.values().map(|socket| socket.port.other());
        let theirs = ends.filter(|end| self.net.party(*end) == Party::Host(other));
        let places = theirs.filter_map(|Port { wire, side }| self.began.get(&wire).map(|ends| ends[side]));
        let seqs = places
            .map(|position| position.filter(|position| position.epoch == head.epoch).map_or(0, |p| p.seq));
        seqs.min()
    }

    /// Returns the keys to check, other ones at each call.
    fn some_keys(&self) -> (u32, usize) {
        let first = self.moment.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.style.keys;
        (u32::try_from(first).unwrap(), KEYS_LOOKED_FOR)
    }

    /// Checks a node's copy of a hostile member's filter: it holds no more than was sent.
    fn check_hostile(&self, node: &Node, id: NodeId, view: &PeerView) -> Result<(), String> {
        let Some(published) = self.published_by_hostile(id, node.id()) else { return Ok(()) };
        if let Some(position) = view.position {
            demand(position.seq <= published.next, || {
                format!("the changes before {} were sent", published.next)
            })?;
        }
        let is_known = view.filter == FilterState::Known;
        demand(!is_known || published.is_whole, || "not all blocks were ever sent".to_owned())
    }

    /// A node's own filter claims each key that it has.
    fn check_own(&self, at: usize, node: &Node) {
        for key in self.oracle.held_since(at, self.net.now + MS, u64::MAX, self.some_keys()) {
            let is_claimed = node.own_filter().contains(self.hashes.hash(&key_text(key)).0);
            let held = || self.oracle.describe(at, key);
            assert!(is_claimed, "host {at} does not claim {}: {}", key_text(key).escape_ascii(), held());
        }
    }

    /// A node sends all changes before an answer. So a node that has received a value is past the change that
    /// added its key.
    pub fn check_addition_before_answer(&self, at: usize, value: usize) -> Result<(), String> {
        let other = self.oracle.values[value].host;
        let (Some(node), Some(peer)) = (&self.hosts[at].node, &self.hosts[other].node) else { return Ok(()) };
        // Of very many additions only a share is sent at a time.
        if at == other || self.style.items > 12 || self.hosts[at].kind != Kind::Member {
            return Ok(());
        }
        let mut views = boundary::links(node, self.hosts[at].now(self.net.now));
        let view = views.find(|view| view.id == Some(peer.id()) && view.filter == FilterState::Known);
        let position = view.and_then(|view| view.position);
        match (position, self.oracle.published_at(value)) {
            (Some(position), Some(published)) if position.seq < published => Err(format!(
                "answered before the addition of its key: change {published}, position {}",
                position.seq
            )),
            (Some(_) | None, _) => Ok(()),
        }
    }
}

fn demand(is_right: bool, wrong: impl FnOnce() -> String) -> Result<(), String> {
    if is_right { Ok(()) } else { Err(wrong()) }
}
