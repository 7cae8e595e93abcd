//! One node with a virtual clock, and connections whose every byte the test controls, without sockets and without
//! waits. Nothing is random, and the only faults are those of the test.

use super::contract::{Contract, conn_of, receive};
use olivia::base::time::{Instant, Now};
use olivia::config::Config;
use olivia::node::{Action, ConnKey, Node, Refusal};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// An address on this machine, and one elsewhere.
pub const LOOPBACK: &str = "127.0.0.1:40000";
pub const ELSEWHERE: &str = "192.0.2.7:40000";

/// Maximum number of ticks until a node of a test must be idle.
const TICKS_MAX: usize = 100_000;

/// The index of a client in its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(usize);

/// One client: its side of a connection.
#[derive(Debug)]
struct Client {
    key: ConnKey,
    /// Bytes sent and not delivered yet; the node may have stopped reading.
    sent: Vec<u8>,
    has_shut: bool,
    shut_delivered: bool,
    /// Bytes received and not taken by the test yet.
    arrived: Vec<u8>,
    reads: bool,
    /// The node has dialled, and the dial is pending.
    is_dialled: bool,
    /// The connection was broken by the test.
    is_lost: bool,
    /// The node was called with a write of 0 bytes.
    is_blocked: bool,
    /// Bytes, or the end, have arrived since [`Driver::take_touched`].
    is_touched: bool,
    contract: Contract,
}

impl Client {
    const fn is_closed(&self) -> bool {
        self.contract.is_closed || self.is_lost
    }

    const fn new(key: ConnKey) -> Self {
        Self {
            key,
            sent: Vec::new(),
            has_shut: false,
            shut_delivered: false,
            arrived: Vec::new(),
            reads: true,
            is_dialled: false,
            is_lost: false,
            is_blocked: false,
            is_touched: false,
            contract: Contract { is_flushing: false, is_stopped: false, has_shut: false, is_closed: false },
        }
    }
}

/// A node, its clients and its time.
#[derive(Debug)]
pub struct Driver {
    pub node: Node,
    pub now: Now,
    /// Called after each call of the node.
    pub watch: Option<fn(&Node)>,
    /// Calls of `tick` so far.
    pub ticks: usize,
    /// Input waits for the next turn of its connection, as when requests of others have taken long.
    pub is_late: bool,
    clients: Vec<Client>,
    dials: VecDeque<(ClientId, SocketAddr)>,
    touched: Vec<ClientId>,
}

impl Driver {
    pub fn new(config: Config) -> Self {
        let now = Now { mono: Instant::from_millis(1_234_567), wall_nanos: 1_700_000_000_000_000_000 };
        Self::with_seed(config, 7, now)
    }

    pub fn with_seed(config: Config, seed: u64, now: Now) -> Self {
        let node = Node::new(config, seed, now);
        let (clients, dials, touched) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { node, now, watch: None, ticks: 0, is_late: false, clients, dials, touched }
    }

    /// Starts another node; all connections are lost.
    pub fn restart(&mut self, config: Config, seed: u64) {
        self.node = Node::new(config, seed, self.now);
        self.clients.iter_mut().for_each(|client| client.is_lost = true);
        self.dials.clear();
    }

    pub fn connect(&mut self, addr: &str) -> Result<ClientId, Refusal> {
        self.connect_from(addr.parse().unwrap())
    }

    pub fn connect_from(&mut self, addr: SocketAddr) -> Result<ClientId, Refusal> {
        let accepted = self.node.accept(self.now, addr);
        let key = accepted.inspect_err(|refusal| self.node.refused(self.now, addr, refusal))?;
        Ok(self.taken(key))
    }

    /// A connection beyond `clients_max` that has begun a handshake.
    pub fn connect_node(&mut self, addr: &str) -> ClientId {
        let key = self.node.accept_node(self.now, addr.parse().unwrap()).unwrap();
        self.act();
        self.taken(key)
    }

    fn taken(&mut self, key: ConnKey) -> ClientId {
        self.clients.push(Client::new(key));
        ClientId(self.clients.len() - 1)
    }

    /// The node's key of a connection.
    pub fn key(&self, id: ClientId) -> ConnKey {
        self.clients[id.0].key
    }

    /// A client on this machine.
    pub fn client(&mut self) -> ClientId {
        self.connect(LOOPBACK).unwrap()
    }

    /// Gives the node its listen address and its configured peers.
    pub fn join(&mut self, listen: &str, peers: &[&str]) {
        let peers: Vec<Vec<SocketAddr>> = peers.iter().map(|peer| vec![peer.parse().unwrap()]).collect();
        self.node.join(self.now, listen.parse().unwrap(), &peers);
        self.run();
    }

    /// Removes the oldest dial; returns its connection and address.
    pub fn next_dial(&mut self) -> Option<(ClientId, SocketAddr)> {
        self.dials.pop_front()
    }

    /// Lets a dial succeed; [`Driver::lose`] lets it fail.
    pub fn pick_up(&mut self, id: ClientId) {
        self.clients[id.0].is_dialled = false;
        self.node.connected(self.now, self.clients[id.0].key);
        self.run();
    }

    /// Removes closed clients from the end of the list.
    pub fn forget_closed(&mut self) {
        while self.clients.last().is_some_and(Client::is_closed) {
            self.clients.pop();
        }
    }

    /// Sends bytes in one piece, unless the node has stopped reading, and runs the node until it is idle.
    pub fn send(&mut self, id: ClientId, bytes: impl AsRef<[u8]>) {
        self.clients[id.0].sent.extend_from_slice(bytes.as_ref());
        self.run();
    }

    /// Delivers bytes to the node in one call, without running it further.
    pub fn deliver(&mut self, id: ClientId, bytes: &[u8]) {
        receive(&mut self.node, self.now, self.clients[id.0].key, bytes, self.is_late);
        self.act();
    }

    /// Sends requests and returns all replies that have arrived then.
    pub fn call(&mut self, id: ClientId, text: &str) -> String {
        self.send(id, text);
        self.take(id)
    }

    /// Shuts down the client's side.
    pub fn shut(&mut self, id: ClientId) {
        self.clients[id.0].has_shut = true;
        self.run();
    }

    /// Shuts down the client's side and delivers that to the node although it has stopped reading.
    pub fn shut_ahead(&mut self, id: ClientId) {
        let client = &mut self.clients[id.0];
        (client.has_shut, client.shut_delivered) = (true, true);
        self.node.read_closed(self.now, client.key);
        self.run();
    }

    /// Breaks the connection.
    pub fn lose(&mut self, id: ClientId) {
        self.node.lost(self.now, self.clients[id.0].key, &"connection refused");
        self.clients[id.0].is_lost = true;
        self.run();
    }

    /// Sets whether the client reads the node's output.
    pub fn reads(&mut self, id: ClientId, reads: bool) {
        self.clients[id.0].reads = reads;
        self.run();
    }

    /// Reads the pending output for a client once, without running the node.
    pub fn read_now(&mut self, id: ClientId) {
        self.write_to(id.0, self.clients[id.0].key, usize::MAX);
    }

    /// Reads at most `count` bytes of the pending output for a client that does not read; returns their number.
    pub fn read_some(&mut self, id: ClientId, count: usize) -> usize {
        let key = self.clients[id.0].key;
        let taken = self.write_to(id.0, key, count);
        self.run();
        taken
    }

    /// Returns the text that has arrived since the last call.
    pub fn take(&mut self, id: ClientId) -> String {
        String::from_utf8(self.take_bytes(id)).unwrap()
    }

    pub fn take_bytes(&mut self, id: ClientId) -> Vec<u8> {
        std::mem::take(&mut self.clients[id.0].arrived)
    }

    /// Whether the node has shut down its side: the client reads the end of the stream.
    pub fn has_ended(&self, id: ClientId) -> bool {
        self.clients[id.0].is_closed() || self.clients[id.0].contract.has_shut
    }

    /// Whether the client has shut down its side.
    pub fn is_shut(&self, id: ClientId) -> bool {
        self.clients[id.0].has_shut
    }

    /// Whether bytes have arrived that were not taken.
    pub fn has_arrived(&self, id: ClientId) -> bool {
        !self.clients[id.0].arrived.is_empty()
    }

    /// Returns the clients that got bytes, or the end, since the last call.
    pub fn take_touched(&mut self) -> Vec<ClientId> {
        for id in &self.touched {
            if let Some(client) = self.clients.get_mut(id.0) {
                client.is_touched = false;
            }
        }
        std::mem::take(&mut self.touched)
    }

    fn touch(&mut self, at: usize) {
        if !std::mem::replace(&mut self.clients[at].is_touched, true) {
            self.touched.push(ClientId(at));
        }
    }

    /// Whether the connection is closed or lost.
    pub fn is_closed(&self, id: ClientId) -> bool {
        self.clients[id.0].is_closed()
    }

    /// Whether the node has stopped reading from this client.
    pub fn is_stopped(&self, id: ClientId) -> bool {
        self.clients[id.0].contract.is_stopped
    }

    /// Returns the bytes of pending output for a client that does not read.
    pub fn waiting(&self, id: ClientId) -> usize {
        self.node.outbound_bytes(self.clients[id.0].key)
    }

    /// Returns the bytes that the client has sent and the node has not read.
    pub fn unread(&self, id: ClientId) -> usize {
        self.clients[id.0].sent.len()
    }

    /// Advances time by `span`, with a tick at each of the node's deadlines.
    pub fn pass(&mut self, span: Duration) {
        self.run();
        let end = self.now.mono.after(span);
        while let Some(next) = self.node.next_deadline().filter(|next| *next <= end) {
            assert!(next > self.now.mono, "next_deadline() is {next:?}, which has passed");
            self.set_time(next);
            self.run();
        }
        self.set_time(end);
        assert!(!self.node.has_work(self.now), "there is work, for which the node did not want to be woken");
        self.run();
    }

    /// Advances time at once, as for a process that was suspended, without a call of the node.
    pub fn leap(&mut self, span: Duration) {
        self.set_time(self.now.mono.after(span));
    }

    fn set_time(&mut self, mono: Instant) {
        self.now = Now { mono, wall_nanos: self.now.wall_nanos + mono.nanos() - self.now.mono.nanos() };
    }

    /// Makes the calls of a shell until the node is idle at this time.
    pub fn run(&mut self) {
        for _ in 0..TICKS_MAX {
            // Due work comes first, as in an iteration of the shell in which no connection is ready.
            self.act();
            if self.node.has_work(self.now) {
                self.node.tick(self.now);
                self.ticks += 1;
                continue;
            }
            if !(0..self.clients.len()).fold(false, |moved, at| self.serve(at) | moved) {
                return;
            }
        }
        panic!("the node finds no rest");
    }

    /// Moves bytes of one client in both directions. Returns false if there were none.
    fn serve(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        if client.is_closed() || client.is_dialled {
            return false;
        }
        let key = client.key;
        let mut moved = false;
        if !client.contract.is_stopped && !client.sent.is_empty() {
            let bytes = std::mem::take(&mut client.sent);
            receive(&mut self.node, self.now, key, &bytes, self.is_late);
            self.act();
            moved = true;
        }
        let client = &mut self.clients[at];
        if client.has_shut && !client.shut_delivered && !client.contract.is_stopped && client.sent.is_empty()
        {
            client.shut_delivered = true;
            self.node.read_closed(self.now, key);
            self.act();
            moved = true;
        }
        if self.clients[at].reads {
            moved |= self.write_to(at, key, usize::MAX) > 0;
        } else if self.node.outbound_bytes(key) > 0 && !self.clients[at].is_blocked {
            self.clients[at].is_blocked = true;
            self.node.wrote(self.now, key, 0);
            self.act();
        }
        moved
    }

    fn write_to(&mut self, at: usize, key: ConnKey, count: usize) -> usize {
        let bytes = self.node.outbound(key).collect::<Vec<_>>().concat();
        let bytes = &bytes[..bytes.len().min(count)];
        let (count, is_all) = (bytes.len(), bytes.len() == self.node.outbound_bytes(key));
        if count > 0 {
            self.clients[at].arrived.extend_from_slice(bytes);
            self.clients[at].contract.is_flushing = !is_all;
            self.touch(at);
            self.clients[at].is_blocked = false;
            self.node.wrote(self.now, key, count);
            self.act();
        }
        count
    }

    /// Carries out the node's actions and checks them.
    pub fn act(&mut self) {
        if let Some(watch) = self.watch {
            watch(&self.node);
        }
        while let Some(action) = self.node.next_action() {
            if let Action::Connect(key, addr) = action {
                self.dials.push_back((ClientId(self.clients.len()), addr));
                self.clients.push(Client { is_dialled: true, ..Client::new(key) });
            }
            let at = self.clients.iter().rposition(|client| client.key == conn_of(action)).unwrap();
            self.clients[at].contract.act(action);
            if matches!(action, Action::ShutdownWrite(_) | Action::Close(_)) {
                self.touch(at);
            }
        }
        for client in self.clients.iter().filter(|client| !client.is_closed()) {
            client.contract.check(self.node.outbound_bytes(client.key));
        }
    }
}
