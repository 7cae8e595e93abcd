//! Nodes whose connections lead to each other, without delay and without faults. Bytes move when the test says
//! so, one delivery at a time or all at once.

use super::driver::{ClientId, Driver};
use olivia::base::time::{Instant, Now};
use olivia::config::Config;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Deliveries after which a mesh that is still busy will not come to rest.
const STEPS_MAX: usize = 10_000_000;

/// A connection between two nodes: that which dialled, and the other.
#[derive(Debug, Clone, Copy)]
pub struct Wire {
    pub ends: [(usize, ClientId); 2],
}

/// Bytes that one node has sent to another: the wire, the end that they came from.
#[derive(Debug)]
pub struct Sent {
    pub wire: usize,
    pub end: usize,
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
pub struct Mesh {
    pub nodes: Vec<Driver>,
    /// Which node listens where.
    pub homes: Vec<(SocketAddr, usize)>,
    pub wires: Vec<Wire>,
    /// The wire and the end of each connection of each node.
    ends: Vec<BTreeMap<ClientId, (usize, usize)>>,
    /// All bytes delivered between nodes, if they are recorded.
    pub record: Option<Vec<Sent>>,
    /// After so many more deliveries what is sent stays on its way.
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

    /// A node that can be dialled at each of these addresses.
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

    /// Lets a node do all that it has to do now, and makes the connections that it dials.
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

    /// What is on its way: the wire and the end that it goes to.
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

    /// Delivers what is on its way to this end of a wire: bytes, or the end after them.
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

    /// Delivers all that goes over the wanted wires, until nothing does.
    pub fn reconcile(&mut self, wanted: impl Fn(usize) -> bool) {
        for _ in 0..STEPS_MAX {
            let Some(next) = self.pending().find(|(wire, _)| wanted(*wire)) else { return };
            self.deliver(next);
        }
        panic!("the mesh finds no rest");
    }

    /// Delivers everything from these nodes on, until nothing moves.
    pub fn settle(&mut self, busy: impl IntoIterator<Item = usize>) {
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

    /// Lets time pass, with ticks at each node's deadlines.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now.mono.after(span);
        self.settle(0..self.nodes.len());
        loop {
            let next = self.nodes.iter().filter_map(|driver| driver.node.next_deadline()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.set_time(next.max(self.now.mono));
            let due = |at: &usize| self.nodes[*at].node.has_work(self.now);
            let due: Vec<usize> = (0..self.nodes.len()).filter(due).collect();
            self.settle(due);
        }
        self.set_time(end);
        self.settle(0..self.nodes.len());
    }

    fn set_time(&mut self, mono: Instant) {
        self.now = Now { mono, wall_nanos: self.now.wall_nanos + mono.nanos() - self.now.mono.nanos() };
        self.nodes.iter_mut().for_each(|driver| driver.now = self.now);
    }

    /// Ends a node, with its connections, and starts another.
    pub fn restart(&mut self, at: usize, config: Config, seed: u64) {
        self.nodes[at].restart(config, seed);
        self.break_wires(|wire| wire.ends.iter().any(|(end, _)| *end == at));
    }

    /// How many peers a node is linked to.
    pub fn linked(&self, at: usize) -> usize {
        self.nodes[at].node.peers(self.now).iter().filter(|peer| peer.is_linked).count()
    }

    /// Connections between nodes that neither end has given up.
    pub fn alive(&self) -> usize {
        let is_up = |(at, id): &(usize, ClientId)| !self.nodes[*at].has_ended(*id);
        self.wires.iter().filter(|wire| wire.ends.iter().all(is_up)).count()
    }

    /// Breaks the connections for which this holds.
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
