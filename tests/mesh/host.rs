//! One machine: its clocks, its sockets as the shell sees them, and the node that runs on it.

use super::alone::Talk;
use super::kit::contract::Contract;
use super::net::Port;
use super::oracle::Stamp;
use olivia::base::time::{Instant, Now};
use olivia::config::Config;
use olivia::node::{ConnKey, Node, NodeId, Shares, Turns};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// The kind of program on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A member of the mesh.
    Member,
    /// A node with another secret, which no member may ever link to.
    Stranger,
    /// A hostile member.
    Hostile,
}

/// The state of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Runs,
    /// Stopped: the system still takes connections and bytes, the program does nothing.
    Paused,
    /// The program has ended.
    Down,
}

/// A connection, as the shell keeps it.
#[derive(Debug)]
pub struct Socket {
    pub key: ConnKey,
    pub port: Port,
    pub is_queued: bool,
    pub is_connecting: bool,
    pub contract: Contract,
    /// The client at the other end, if it is one.
    pub client: Option<usize>,
    /// Bytes at the front of the outbound buffer that were checked already.
    pub seen: usize,
    /// The bytes that a hostile client and the node have exchanged.
    pub talk: Option<Talk>,
}

/// An iteration of which links are served.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// When it began.
    pub at: u64,
    /// A connection was ready to be read then.
    pub is_busy: bool,
}

pub struct Host {
    pub kind: Kind,
    pub state: State,
    pub addr: SocketAddr,
    pub config: Config,
    /// Number of nodes that have run here.
    pub life: u32,
    pub node: Option<Node>,
    /// The node's clock runs ahead of the world's by this.
    pub offset: u64,
    /// And its wall clock by this, in milliseconds.
    pub skew_ms: i64,
    pub sockets: BTreeMap<u64, Socket>,
    pub backlog: VecDeque<Port>,
    /// Connections that broke, are up, have something to read, have something to write.
    pub broken: VecDeque<ConnKey>,
    pub connected: VecDeque<ConnKey>,
    pub ready: Turns,
    pub unflushed: Turns,
    pub shares: Shares,
    /// The node's charged cost when the iteration began.
    pub began_at: u64,
    /// The node's charged cost after the last call.
    pub spent: u64,
    /// Calls of the node in this iteration.
    pub calls: u64,
    /// How many times as long as on the other hosts everything takes.
    pub slowness: u64,
    /// Keys that have gone stale.
    pub gone: Vec<ConnKey>,
    pub turn_at: Option<u64>,
    /// The iteration whose clients are yet to be served.
    pub begun: Option<Begun>,
    pub busy_until: u64,
    /// Iterations so far, to find a node that spins.
    pub iterations: u64,
    /// Calls of `tick` in a row that left work behind.
    pub spins: u32,
    /// When it was last paused or resumed, and all the time it was paused.
    pub paused_at: u64,
    pub paused: u64,
    pub is_ending: bool,
    /// Peers it is linked to, or was a moment ago, and since when not any more.
    pub linked: Vec<(NodeId, Option<u64>)>,
    /// Keys looked up for clients that are gone, and since when.
    pub orphans: Vec<(u32, Stamp)>,
}

impl Host {
    pub fn new(kind: Kind, addr: SocketAddr, config: Config, offset: u64, skew_ms: i64) -> Self {
        Self {
            kind,
            state: State::Down,
            addr,
            config,
            life: 0,
            node: None,
            offset,
            skew_ms,
            sockets: BTreeMap::new(),
            backlog: VecDeque::new(),
            broken: VecDeque::new(),
            connected: VecDeque::new(),
            ready: Turns::default(),
            unflushed: Turns::default(),
            shares: Shares::default(),
            began_at: 0,
            spent: 0,
            calls: 0,
            slowness: 1,
            gone: Vec::new(),
            turn_at: None,
            begun: None,
            busy_until: 0,
            iterations: 0,
            spins: 0,
            paused_at: 0,
            paused: 0,
            is_ending: false,
            linked: Vec::new(),
            orphans: Vec::new(),
        }
    }

    /// The time on this host.
    pub fn now(&self, nanos: u64) -> Now {
        let wall_nanos = (1_700_000_000_000_000_000 + nanos).saturating_add_signed(self.skew_ms * 1_000_000);
        Now { mono: Instant::from_nanos(nanos + self.offset), wall_nanos }
    }

    pub fn is_member(&self) -> bool {
        self.kind == Kind::Member
    }

    /// A member that works at the moment.
    pub fn is_well(&self) -> bool {
        self.is_member() && self.state == State::Runs && self.node.is_some() && !self.is_ending
    }

    pub fn socket(&mut self, key: ConnKey) -> Option<&mut Socket> {
        self.sockets.get_mut(&key.to_bits())
    }

    /// Returns the total time of its pauses until `nanos`.
    pub fn paused_until(&self, nanos: u64) -> u64 {
        let running = if self.state == State::Paused { nanos - self.paused_at } else { 0 };
        self.paused + running
    }

    /// Puts a connection into the queue of those to be read.
    pub fn queue_read(&mut self, key: ConnKey) {
        if let Some(socket) = self.sockets.get_mut(&key.to_bits())
            && !socket.contract.is_stopped
            && !socket.is_connecting
            && !std::mem::replace(&mut socket.is_queued, true)
            && let Some(node) = &self.node
        {
            let (class, is_deep) = node.queue_of(key);
            self.ready.push(class, key, is_deep);
        }
    }

    /// Begins an iteration, to which later cost is charged.
    pub fn begin_iteration(&mut self) {
        self.began_at = self.node.as_ref().map_or(0, Node::spent);
        self.calls = 0;
    }

    /// Queues a connection to be written to; `is_deep`: it has more than one write takes.
    pub fn queue_write(&mut self, key: ConnKey, is_deep: bool) {
        if let Some(node) = &self.node {
            self.unflushed.push(node.class(key), key, is_deep);
        }
    }

    /// Drops the state of a run that has ended.
    pub fn clear(&mut self) {
        self.sockets.clear();
        self.backlog.clear();
        self.broken.clear();
        self.connected.clear();
        self.ready = Turns::default();
        self.unflushed = Turns::default();
        self.gone.clear();
        self.begun = None;
        self.node = None;
        self.spent = 0;
        self.is_ending = false;
        self.linked.clear();
        self.orphans.clear();
    }
}
