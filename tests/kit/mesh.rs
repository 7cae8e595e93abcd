//! Nodes that are connected to each other without delay and without faults. The test delivers the bytes, one delivery
//! at a time or all at once.

use super::driver::{ClientId, Driver};
use olivia::base::time::{Instant, Now};
use olivia::config::Config;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Deliveries after which a mesh that is still busy counts as livelocked.
const STEPS_MAX: usize = 10_000_000;

/// A connection between two nodes: first the end that dialled.
#[derive(Debug, Clone, Copy)]
pub struct Wire {
    pub ends: [(usize, ClientId); 2],
}

/// Bytes that one node has sent to another, with the wire and the end that sent them.
#[derive(Debug)]
pub struct Sent {
    pub wire: usize,
    pub end: usize,
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
pub struct Mesh {
    pub nodes: Vec<Driver>,
    /// The addresses of the nodes.
    pub homes: Vec<(SocketAddr, usize)>,
    pub wires: Vec<Wire>,
    /// The wire and the end of each connection of each node.
    ends: Vec<BTreeMap<ClientId, (usize, usize)>>,
    /// All bytes delivered between nodes, if they are recorded.
    pub record: Option<Vec<Sent>>,
    /// Deliveries after which further bytes are not delivered.
    pub deliveries_left: usize,
    pub now: Now,
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Mesh {
    pub fn new() -> Self {
        let now = Now { mono: Instant::from_millis(5_000), wall_nanos: 1_700_000_000_000_000_000 };
        let (nodes, homes, wires, ends) = Default::default();
        Self { nodes, homes, wires, ends, record: None, deliveries_left: usize::MAX, now }
    }

    /// Adds a node that can be dialled at each of these addresses; returns its index.
    pub fn add(&mut self, seed: u64, config: Config, homes: &[SocketAddr]) -> usize {
        let at = self.nodes.len();
        self.nodes.push(Driver::with_seed(config, seed, self.now));
        self.ends.push(BTreeMap::new());
        self.homes.extend(homes.iter().map(|home| (*home, at)));
        at
    }

    pub fn join(&mut self, at: usize, listen: SocketAddr, peers: &[SocketAddr]) {
        let entries: Vec<_> = peers.iter().map(|addr| vec![*addr]).collect();
        self.nodes[at].node.join(self.now, listen, &entries);
        self.act(at);
    }

    /// Runs a node until it is idle, and makes the connections that it dials.
    pub fn act(&mut self, at: usize) {
        self.nodes[at].run();
        while let Some((id, to)) = self.nodes[at].next_dial() {
            let home = self.homes.iter().find(|(home, _)| *home == to).map(|(_, other)| *other);
            let seen = addr(40_000 + u16::try_from(self.wires.len() % 20_000).unwrap());
            let accepted = home.and_then(|home| Some((home, self.nodes[home].connect_from(seen).ok()?)));
            match accepted {
                Some((home, other)) => {
                    self.ends[at].insert(id, (self.wires.len(), 0));
                    self.ends[home].insert(other, (self.wires.len(), 1));
                    self.wires.push(Wire { ends: [(at, id), (home, other)] });
                    self.nodes[at].pick_up(id);
                }
                None => self.nodes[at].lose(id),
            }
        }
    }

    /// Returns each wire with pending bytes or a pending end, and the end to which they go.
    pub fn pending(&self) -> impl Iterator<Item = (usize, usize)> {
        let both = (0..self.wires.len()).flat_map(|wire| [(wire, 0), (wire, 1)]);
        both.filter(|(wire, end)| self.is_pending(*wire, *end))
    }

    fn is_pending(&self, wire: usize, end: usize) -> bool {
        let ends = self.wires[wire].ends;
        let ((to, to_id), (from, from_id)) = (ends[end], ends[1 - end]);
        let from = &self.nodes[from];
        !self.nodes[to].is_closed(to_id)
            && (from.has_arrived(from_id) || from.has_ended(from_id) && !self.nodes[to].is_shut(to_id))
    }

    /// Delivers the pending bytes to this end of a wire, or the end of the stream after them.
    pub fn deliver(&mut self, (wire, end): (usize, usize)) {
        let ends = self.wires[wire].ends;
        let ((to, to_id), (from, from_id)) = (ends[end], ends[1 - end]);
        let bytes = self.nodes[from].take_bytes(from_id);
        if self.nodes[to].is_closed(to_id) {
            return;
        }
        if bytes.is_empty() {
            self.nodes[to].shut(to_id);
        } else {
            self.nodes[to].send(to_id, &bytes);
            if let Some(record) = &mut self.record {
                record.push(Sent { wire, end: 1 - end, bytes });
            }
        }
        self.act(to);
    }

    /// Delivers all bytes on the wires that `wanted` selects, until none are pending.
    pub fn reconcile(&mut self, wanted: impl Fn(usize) -> bool) {
        for _ in 0..STEPS_MAX {
            let Some(next) = self.pending().find(|(wire, _)| wanted(*wire)) else { return };
            self.deliver(next);
        }
        panic!("the mesh finds no rest");
    }

    /// Runs these nodes and delivers all bytes, until no node is busy.
    pub fn run(&mut self, busy: impl IntoIterator<Item = usize>) {
        let mut busy: VecDeque<usize> = busy.into_iter().collect();
        while let Some(at) = busy.pop_front() {
            self.act(at);
            for id in self.nodes[at].take_touched() {
                let Some((wire, end)) = self.ends[at].get(&id).copied() else { continue };
                while self.deliveries_left > 0 && self.is_pending(wire, 1 - end) {
                    self.deliveries_left -= 1;
                    self.deliver((wire, 1 - end));
                    busy.push_back(self.wires[wire].ends[1 - end].0);
                }
            }
        }
    }

    /// Advances time by `span`, with ticks at each node's deadlines.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now.mono.after(span);
        self.run(0..self.nodes.len());
        loop {
            let next = self.nodes.iter().filter_map(|driver| driver.node.next_deadline()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.set_time(next.max(self.now.mono));
            let due = |at: &usize| self.nodes[*at].node.has_work(self.now);
            let due: Vec<usize> = (0..self.nodes.len()).filter(due).collect();
            self.run(due);
        }
        self.set_time(end);
        self.run(0..self.nodes.len());
    }

    fn set_time(&mut self, mono: Instant) {
        self.now = Now { mono, wall_nanos: self.now.wall_nanos + mono.nanos() - self.now.mono.nanos() };
        self.nodes.iter_mut().for_each(|driver| driver.now = self.now);
    }

    /// Replaces a node, whose connections break, by a new one.
    pub fn restart(&mut self, at: usize, config: Config, seed: u64) {
        self.nodes[at].restart(config, seed);
        self.break_wires(|wire| wire.ends.iter().any(|(end, _)| *end == at));
    }

    /// Returns the number of peers to which a node is linked.
    pub fn linked(&self, at: usize) -> usize {
        self.nodes[at].node.peers(self.now).iter().filter(|peer| peer.is_linked).count()
    }

    /// Returns the number of connections between nodes that neither end has closed.
    pub fn alive(&self) -> usize {
        let is_up = |(at, id): &(usize, ClientId)| !self.nodes[*at].has_ended(*id);
        self.wires.iter().filter(|wire| wire.ends.iter().all(is_up)).count()
    }

    /// Breaks the connections that `is_broken` selects.
    pub fn break_wires(&mut self, is_broken: impl Fn(&Wire) -> bool) {
        for wire in self.wires.clone() {
            for (at, id) in wire.ends.into_iter().filter(|_| is_broken(&wire)) {
                if !self.nodes[at].is_closed(id) {
                    self.nodes[at].lose(id);
                    self.act(at);
                }
            }
        }
    }
}
