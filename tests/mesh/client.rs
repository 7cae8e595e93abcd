//! Clients: their connections to nodes, their requests, and how they leave.
//!
//! The bytes that a client reads are not checked, since replies are checked when they appear in the outbound buffer of
//! its node. Slow reading affects only the node.

use super::host::Socket;
use super::net::{MS, Party, Port, Read, US};
use super::oracle::Stamp;
use super::pending::{PendingRequest, What};
use super::protocol::Verb;
use super::world::{Event, World};
use std::collections::VecDeque;

/// Requests on their way above which a client writes no more.
const ASKS_MAX: usize = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Connecting,
    Talking,
    /// It sends nothing more.
    Leaving,
}

/// The behaviour of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Talks to one host after the other.
    Roams,
    /// Talks to one host, as a person at a machine does.
    Stays,
    /// Sends requests only through `request_now`.
    Waits,
}

#[derive(Debug)]
pub struct Client {
    pub host: usize,
    pub port: Option<Port>,
    phase: Phase,
    pub pending: VecDeque<PendingRequest>,
    /// Bytes written, and those of them that the node was given.
    pub written: usize,
    given: usize,
    /// A reply that has no line end yet.
    pub partial: Vec<u8>,
    /// When the last reply was written.
    pub last_reply: Stamp,
    /// Requests until it leaves.
    left: u64,
    sleeps_until: u64,
    has_half_closed: bool,
    /// The node has sent BYE: later requests are not carried out.
    is_dismissed: bool,
    pub serial: u64,
    habit: Habit,
}

impl Client {
    pub const fn new(host: usize, habit: Habit) -> Self {
        Self {
            host,
            port: None,
            phase: Phase::Idle,
            pending: VecDeque::new(),
            written: 0,
            given: 0,
            partial: Vec::new(),
            last_reply: Stamp { call: 0, nanos: 0 },
            left: 0,
            sleeps_until: 0,
            has_half_closed: false,
            is_dismissed: false,
            serial: 0,
            habit,
        }
    }

    /// Whether every request is answered.
    pub fn is_content(&self) -> bool {
        self.pending.is_empty()
    }
}

impl World {
    /// A client's next step.
    pub fn client_step(&mut self, at: usize) {
        if self.alone.is_some() {
            return self.hostile_step(at);
        }
        match self.clients[at].phase {
            Phase::Idle => self.client_dials(at),
            Phase::Connecting | Phase::Leaving => {}
            Phase::Talking => self.client_talks(at),
        }
    }

    fn client_later(&mut self, at: usize, nanos: u64) {
        self.agenda.put(self.net.now + nanos, Event::Client(at));
    }

    fn think(&mut self) -> u64 {
        US + self.rng.below(2 * self.style.think_us * US)
    }

    fn client_dials(&mut self, at: usize) {
        if self.ops_left == 0 || self.clients[at].habit == Habit::Waits {
            return;
        }
        if self.clients[at].habit == Habit::Roams {
            let members = self.members as u64;
            self.clients[at].host = usize::try_from(self.rng.below(members)).unwrap();
        }
        let host = self.clients[at].host;
        let port = self.net.dial(&mut self.agenda, Party::Client(at), host, None);
        self.trace.note(self.net.now, "client dials", at, port.wire as u64, &[u8::try_from(host).unwrap()]);
        let left = 1 + self.rng.below(2 * self.style.requests);
        let client = &mut self.clients[at];
        let (habit, serial) = (client.habit, client.serial);
        *client =
            Client { port: Some(port), phase: Phase::Connecting, left, serial, ..Client::new(host, habit) };
        // One that gets no answer tries elsewhere.
        self.agenda.put(self.net.now + 700 * MS, Event::ClientGivesUp(at, port.wire));
    }

    /// Gives up a connection that was not made.
    pub fn client_gives_up(&mut self, at: usize, wire: usize) {
        let client = &self.clients[at];
        if client.phase == Phase::Connecting && client.port.is_some_and(|port| port.wire == wire) {
            self.net.vanish(Port { wire, side: 0 });
            self.client_idle(at);
        }
    }

    pub fn client_connected(&mut self, at: usize, wire: usize) {
        let client = &mut self.clients[at];
        if client.port.is_some_and(|port| port.wire == wire) && client.phase == Phase::Connecting {
            client.phase = Phase::Talking;
            if client.habit != Habit::Waits {
                self.client_talks(at);
            }
        }
    }

    fn client_idle(&mut self, at: usize) {
        self.leave_orphans(at);
        self.trace.note(self.net.now, "client idle", at, 0, b"");
        let client = &mut self.clients[at];
        client.phase = Phase::Idle;
        client.port = None;
        client.pending.clear();
        client.partial.clear();
        let later = self.think();
        self.client_later(at, later);
    }

    /// The lookups of a client that is gone go on.
    fn leave_orphans(&mut self, at: usize) {
        let client = &self.clients[at];
        let orphans = &mut self.hosts[client.host].orphans;
        let old = self.net.now.saturating_sub(20_000 * MS);
        orphans.retain(|(_, given)| given.nanos >= old);
        for request in &client.pending {
            let (Some(given), What::Keys(Verb::Get | Verb::Ttl, items)) = (request.given, &request.what)
            else {
                continue;
            };
            orphans.extend(items.iter().map(|item| (item.key, given)));
        }
    }

    fn client_talks(&mut self, at: usize) {
        let Some(port) = self.clients[at].port else { return };
        if self.clients[at].left == 0 || self.ops_left == 0 {
            return self.client_leaves(at, port);
        }
        if self.clients[at].pending.len() < ASKS_MAX {
            let count = 1 + self.rng.below(self.style.burst);
            let mut text = Vec::new();
            for _ in 0..count.min(self.ops_left).min(self.clients[at].left) {
                self.ops_left -= 1;
                self.clients[at].left -= 1;
                let request = self.compose(self.clients[at].host);
                self.put_pending(at, request, &mut text);
            }
            self.net.write(&mut self.agenda, port, &text);
        }
        let later = self.think();
        self.client_later(at, later);
    }

    fn client_leaves(&mut self, at: usize, port: Port) {
        let is_rude = self.rng.one_in(self.style.rude);
        self.clients[at].phase = Phase::Leaving;
        self.trace.note(self.net.now, "client leaves", at, port.wire as u64, &[u8::from(is_rude)]);
        if is_rude {
            self.net.reset(&mut self.agenda, port);
            let is_known = self.hosts[self.clients[at].host].sockets.values().any(|s| s.client == Some(at));
            if !is_known {
                self.client_idle(at);
            }
        } else if self.rng.one_in(2) {
            self.clients[at].has_half_closed = true;
            self.net.shut(&mut self.agenda, port);
        } else {
            let mut text = Vec::new();
            self.put_pending(at, What::Quit, &mut text);
            self.net.write(&mut self.agenda, port, &text);
        }
    }

    /// Sends a request of a client now, beside what it does by itself. False if it cannot.
    pub fn request_now(&mut self, at: usize, what: What) -> bool {
        let Some(port) = self.clients[at].port.filter(|_| self.clients[at].phase == Phase::Talking) else {
            return false;
        };
        let mut text = Vec::new();
        self.put_pending(at, what, &mut text);
        self.net.write(&mut self.agenda, port, &text);
        true
    }

    /// A client of one host that sends requests only through `request_now`.
    pub fn add_client(&mut self, host: usize) -> usize {
        self.clients.push(Client::new(host, Habit::Waits));
        let at = self.clients.len() - 1;
        let port = self.net.dial(&mut self.agenda, Party::Client(at), host, None);
        let client = &mut self.clients[at];
        (client.port, client.phase) = (Some(port), Phase::Connecting);
        at
    }

    /// The node is being given so many more bytes of a client.
    pub fn client_gives(&mut self, at: usize, count: usize) {
        let now = Stamp { call: self.moment + 1, nanos: self.net.now };
        let client = &mut self.clients[at];
        client.given += count;
        if client.is_dismissed {
            return;
        }
        for request in client.pending.iter_mut().filter(|request| request.given.is_none()) {
            if request.end > client.given {
                break;
            }
            request.given = Some(now);
        }
    }

    /// Handles the arrival of bytes at a client, which reads them unless it is asleep.
    pub fn client_read(&mut self, at: usize, port: Port) {
        if self.clients[at].port != Some(port) {
            // Left behind by a client that has gone on.
            let mut bytes = Vec::new();
            while self.net.read(&mut self.agenda, port, usize::MAX, &mut bytes) == Read::Bytes {}
            self.net.close(&mut self.agenda, port);
            return;
        }
        if self.net.now < self.clients[at].sleeps_until {
            return;
        }
        if self.rng.one_in(self.style.sleepy) {
            let nap = self.rng.below(400 * MS);
            self.clients[at].sleeps_until = self.net.now + nap;
            self.agenda.put(self.net.now + nap, Event::ClientWakes(at, port.wire));
            return;
        }
        self.client_reads(at, port);
    }

    pub fn client_wakes(&mut self, at: usize, wire: usize) {
        if let Some(port) = self.clients[at].port.filter(|port| port.wire == wire) {
            self.client_reads(at, port);
        }
    }

    fn client_reads(&mut self, at: usize, port: Port) {
        let mut bytes = std::mem::take(&mut self.scratch);
        loop {
            match self.net.read(&mut self.agenda, port, usize::MAX, &mut bytes) {
                Read::Bytes => {}
                Read::Nothing => break,
                Read::End => {
                    self.net.close(&mut self.agenda, port);
                    let host = &self.hosts[self.clients[at].host];
                    if !host.sockets.values().any(|socket| socket.client == Some(at)) {
                        self.client_idle(at);
                    }
                    break;
                }
            }
        }
        self.scratch = bytes;
    }

    /// The client has learnt that its connection is broken.
    pub fn client_reset(&mut self, at: usize, port: Port) {
        let client = &self.clients[at];
        if client.port != Some(port) {
            return;
        }
        let host = &self.hosts[client.host];
        // While its node has the other end, requests may still be carried out.
        if host.sockets.values().any(|socket| socket.client == Some(at)) {
            self.clients[at].phase = Phase::Leaving;
        } else {
            self.client_idle(at);
        }
    }

    /// The node has sent BYE to a client.
    pub fn client_dismissed(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.is_dismissed = true;
        client.phase = Phase::Leaving;
        client.pending.clear();
    }

    /// A node has learnt that a client's connection broke.
    pub fn client_lost(&mut self, host: usize, socket: &Socket) {
        if let Some(at) = socket.client {
            self.perhaps_done(host, at);
            self.client_idle(at);
        }
    }

    /// A node has closed a client's connection.
    pub fn client_closed(&mut self, host: usize, socket: &Socket) {
        let Some(at) = socket.client else { return };
        let client = &self.clients[at];
        let unanswered = client.pending.iter().filter(|request| request.given.is_some()).count();
        assert!(
            unanswered == 0
                || socket.contract.is_flushing
                || client.phase == Phase::Leaving && !client.has_half_closed,
            "host {host} closed {:?} and owed {unanswered} replies, the first to {:?}",
            socket.key,
            client.pending.front()
        );
        self.perhaps_done(host, at);
        self.client_idle(at);
    }

    /// A host has died.
    pub fn host_died(&mut self, host: usize) {
        let waiting: Vec<Port> = self.hosts[host].backlog.iter().map(|port| port.other()).collect();
        let waiting = (0..self.clients.len())
            .filter(|at| self.clients[*at].port.is_some_and(|port| waiting.contains(&port)));
        let clients = self.hosts[host].sockets.values().filter_map(|socket| socket.client).chain(waiting);
        for at in clients.collect::<Vec<_>>() {
            self.client_idle(at);
        }
    }
}
