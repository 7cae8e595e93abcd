//! The shell of one host: an iteration of the loop by the contract of `olivia::node`, and the checks of the simulator
//! after each call.

use super::alone::{Alone, Talk};
use super::host::{Begun, Host, Socket, State};
use super::kit::contract::{Contract, receive};
use super::load::TIMED;
use super::net::{MS, Party, Port, Read, US};
use super::world::{Event, World};
use olivia::node::{Action, BACKLOG_UNTIL, Class, ConnKey, EVENTS_AGAIN_AFTER, OUTPUT_UNTIL};
use std::net::SocketAddr;
use std::time::Duration;

/// Connections accepted in one iteration.
const ACCEPTS_PER_TURN: usize = 64;

/// Bytes offered to a connection by one write.
const WRITE_BYTES_MAX: usize = 256 * 1024;

/// Iterations in a row after which a node that still has due work is spinning.
const SPINS_MAX: u32 = 100_000;

/// One iteration in about so many ends with an audit.
const AUDIT_EVERY: u64 = 64;

/// Iterations of a host between two checks of its node's view of its peers.
const PEERS_CHECKED_EVERY: u64 = 6;

/// Fixed cost of an iteration and of each call of the node in ns, in addition to the cost that the node charges.
const ITERATION_NANOS: u64 = 2 * US;
const CALL_NANOS: u64 = US / 4;

impl World {
    /// Lets a host run an iteration at `nanos` at the latest.
    pub fn wake(&mut self, at: usize, nanos: u64) {
        let host = &mut self.hosts[at];
        let nanos = nanos.max(host.busy_until).max(self.net.now);
        if host.turn_at.is_none_or(|turn| turn > nanos) {
            host.turn_at = Some(nanos);
            self.agenda.put(nanos, Event::Iteration(at));
        }
    }

    /// The iteration that was requested for this moment.
    pub fn iteration_due(&mut self, at: usize) {
        let now = self.net.now;
        let host = &mut self.hosts[at];
        if host.turn_at != Some(now) {
            return;
        }
        host.turn_at = None;
        if host.state != State::Runs || host.node.is_none() {
            return;
        }
        if let Some(begun) = host.begun.take() {
            return self.continue_iteration(at, begun);
        }
        host.iterations += 1;
        host.begin_iteration();
        let begun = Begun { at: now, is_busy: !host.ready.is_empty() };
        self.take_losses(at);
        self.accept(at);
        let links_are_read = self.serve(at, Class::Links, self.hosts[at].shares.links_until());
        self.hosts[at].shares.ended(Class::Links, links_are_read);
        if links_are_read {
            let now = self.hosts[at].now(now);
            self.hosts[at].node.iter_mut().for_each(|node| node.links_current(now));
        }
        self.flush(at, BACKLOG_UNTIL);
        let used = self.used(at);
        let host = &mut self.hosts[at];
        let is_behind = !links_are_read || !host.unflushed.is_empty();
        if is_behind && used >= EVENTS_AGAIN_AFTER {
            // What comes until then is noted before clients are served.
            let until = now + u64::try_from(used.as_nanos()).unwrap();
            host.begun = Some(begun);
            host.busy_until = until;
            return self.wake(at, until);
        }
        self.continue_iteration(at, begun);
    }

    /// The rest of an iteration, from its clients on.
    fn continue_iteration(&mut self, at: usize, begun: Begun) {
        self.serve(at, Class::Clients, self.hosts[at].shares.clients_until(self.used(at)));
        self.flush(at, OUTPUT_UNTIL);
        let used = self.used(at);
        let due = used + self.hosts[at].shares.due(if begun.is_busy { used } else { Duration::ZERO });
        let is_done = self.serve(at, Class::Due, due);
        self.hosts[at].shares.ended(Class::Due, is_done);
        self.flush(at, OUTPUT_UNTIL);
        if self.load.is_some() {
            self.sample_backlogs(at, |name| TIMED.contains(&name));
        } else if self.hosts[at].iterations.is_multiple_of(PEERS_CHECKED_EVERY) {
            self.check_peers(at);
        }
        self.end_turn(at, begun.at);
    }

    /// The time that an iteration has taken so far: what its calls cost.
    fn used(&self, at: usize) -> Duration {
        let host = &self.hosts[at];
        let keys = host.node.as_ref().map_or(0, |node| node.spent() - host.began_at);
        let nanos = ITERATION_NANOS + host.calls * CALL_NANOS + keys * self.plan.key_nanos;
        Duration::from_nanos(nanos * host.slowness)
    }

    /// Gives a class its share, as the shell does: reads and steps by turns, until there is nothing to do or `until` is
    /// reached. Whether there was nothing left to do.
    fn serve(&mut self, at: usize, class: Class, until: Duration) -> bool {
        loop {
            if self.used(at) >= until {
                return false;
            }
            let has_read = class != Class::Due && self.read_next(at, class);
            let has_stepped = self.node_step(at, class);
            if !has_read && !has_stepped {
                return true;
            }
        }
    }

    /// A step of a class; whether there was one to do.
    fn node_step(&mut self, at: usize, class: Class) -> bool {
        let now = self.hosts[at].now(self.net.now);
        let Some(node) = &mut self.hosts[at].node else { return false };
        let has_stepped = node.step(now, class);
        if has_stepped {
            self.what = "step";
            self.moment += 1;
            self.hosts[at].calls += 1;
            self.trace.note(self.net.now, "step", at, class as u64, b"");
            self.after_call(at);
        }
        has_stepped
    }

    fn end_turn(&mut self, at: usize, began: u64) {
        let now = self.net.now;
        let used = u64::try_from(self.used(at).as_nanos()).unwrap();
        let host = &mut self.hosts[at];
        let Some(node) = &host.node else { return };
        host.busy_until = began + used;
        let is_over = host.is_ending && node.is_drained();
        let time = host.now(now);
        let next = node.next_deadline();
        let has_work = node.has_work(time);
        if self.load.is_none() && self.moment.is_multiple_of(AUDIT_EVERY) {
            node.audit();
        }
        assert!(
            has_work || next.is_none_or(|next| next > time.mono),
            "host {at} wants to be woken at {next:?}, which is not after {:?}, and has no work",
            time.mono
        );
        host.spins = if has_work { host.spins + 1 } else { 0 };
        assert!(host.spins < SPINS_MAX, "host {at} finds no rest");
        let has_more = has_work
            || !host.ready.is_empty()
            || !host.broken.is_empty()
            || !host.connected.is_empty()
            || !host.backlog.is_empty()
            || !host.unflushed.is_empty();
        let next = if has_more { Some(now + US) } else { next.map(|next| next.nanos() - host.offset) };
        if is_over {
            return self.ended(at);
        }
        if let Some(next) = next {
            // A poll sleeps whole milliseconds, rounded up, and wakes a little late.
            let late = if has_more { 0 } else { self.rng.below(self.plan.late_nanos + 1) };
            self.wake(at, next.saturating_add(late));
        }
    }

    fn take_losses(&mut self, at: usize) {
        while let Some(key) = self.hosts[at].broken.pop_front() {
            let Some(socket) = self.hosts[at].sockets.remove(&key.to_bits()) else { continue };
            self.alone.iter_mut().for_each(Alone::lost);
            self.call(at, "lost", key, b"", |node, now| node.lost(now, key, &"connection reset"));
            self.hosts[at].gone.push(key);
            self.client_lost(at, &socket);
        }
        while let Some(key) = self.hosts[at].connected.pop_front() {
            let Some(socket) = self.hosts[at].socket(key) else { continue };
            socket.is_connecting = false;
            self.call(at, "connected", key, b"", |node, now| node.connected(now, key));
            self.hosts[at].queue_read(key);
        }
    }

    fn accept(&mut self, at: usize) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(port) = self.hosts[at].backlog.pop_front() else { return };
            if self.net.is_gone(port) {
                continue;
            }
            let from = self.net.party(port.other());
            let addr = self.addr_of(from, port.wire);
            let now = self.hosts[at].now(self.net.now);
            let Some(node) = &mut self.hosts[at].node else { return };
            self.moment += 1;
            let accepted = node.accept(now, addr);
            accepted.as_ref().err().into_iter().for_each(|refusal| node.refused(now, addr, refusal));
            self.trace.note(self.net.now, "accept", at, port.wire as u64, b"");
            if let Some(alone) = &mut self.alone {
                let host = &self.hosts[at];
                let is_full = host.sockets.len() >= host.config.limits.clients_max as usize || host.is_ending;
                alone.accepts(accepted.is_err(), is_full);
            }
            let Ok(key) = accepted else {
                self.seen.add("clients refused", 1);
                self.net.open(port, None);
                self.net.close(&mut self.agenda, port);
                continue;
            };
            self.net.open(port, Some(key));
            self.note_beginning(from, at, port.wire);
            let client = match from {
                Party::Client(client)
                    if self.clients.get(client).is_some_and(|client| client.port == Some(port.other())) =>
                {
                    Some(client)
                }
                Party::Client(_) | Party::Host(_) => None,
            };
            self.add_socket(at, key, port, client);
            if self.alone.is_some()
                && let Host { config, .. } = &self.hosts[at]
            {
                let talk = Talk::new(config, now.mono, addr.ip().is_loopback());
                self.hosts[at].socket(key).unwrap().talk = Some(talk);
            }
            self.after_call(at);
            self.hosts[at].queue_read(key);
        }
    }

    fn add_socket(&mut self, at: usize, key: ConnKey, port: Port, client: Option<usize>) {
        let is_connecting = port.side == 0;
        let socket = Socket {
            key,
            port,
            is_queued: false,
            is_connecting,
            contract: Contract::default(),
            client,
            seen: 0,
            talk: None,
        };
        let before = self.hosts[at].sockets.insert(key.to_bits(), socket);
        assert!(before.is_none() && !self.hosts[at].gone.contains(&key), "the key {key:?} is used twice");
    }

    /// Reads once from the connection of a class that has waited longest. False if none waits.
    fn read_next(&mut self, at: usize, class: Class) -> bool {
        let Some(key) = self.hosts[at].ready.pop(class) else { return false };
        let Some(socket) = self.hosts[at].socket(key) else { return true };
        socket.is_queued = false;
        if socket.contract.is_stopped && !self.alone.as_ref().is_some_and(Alone::reads_ahead) {
            return true;
        }
        let (port, client) = (socket.port, socket.client);
        let mut bytes = std::mem::take(&mut self.scratch);
        let most = self.plan.read_bytes;
        let read = self.net.read(&mut self.agenda, port, most, &mut bytes);
        match read {
            Read::Bytes => {
                let now = self.hosts[at].now(self.net.now).mono;
                let talk = self.hosts[at].socket(key).and_then(|socket| socket.talk.as_mut());
                talk.into_iter().for_each(|talk| talk.gave(now, &bytes));
                if let Some(client) = client {
                    self.client_gives(client, bytes.len());
                }
                self.call(at, "received", key, &bytes, |node, now| receive(node, now, key, &bytes, false));
                if self.net.is_readable(port) {
                    self.hosts[at].queue_read(key);
                }
            }
            Read::End => {
                let talk = self.hosts[at].socket(key).and_then(|socket| socket.talk.as_mut());
                talk.into_iter().for_each(|talk| talk.is_shut = true);
                self.call(at, "read_closed", key, b"", |node, now| node.read_closed(now, key));
            }
            Read::Nothing => {}
        }
        self.scratch = bytes;
        true
    }

    /// Writes pending output, links first, one bounded write per connection and turn, until all is written, no
    /// connection takes more, or `until` is reached.
    fn flush(&mut self, at: usize, until: Duration) {
        for class in [Class::Links, Class::Clients] {
            while let Some(key) = self.hosts[at].unflushed.pop(class) {
                self.flush_one(at, key);
                if self.used(at) >= until {
                    return;
                }
            }
        }
    }

    fn flush_one(&mut self, at: usize, key: ConnKey) {
        let Host { sockets, node, .. } = &mut self.hosts[at];
        let (Some(node), Some(socket)) = (node, sockets.get_mut(&key.to_bits())) else { return };
        if socket.is_connecting {
            return;
        }
        let port = socket.port;
        let mut outbound = node.outbound(key).collect::<Vec<_>>().concat();
        outbound.truncate(WRITE_BYTES_MAX);
        let count = self.net.write(&mut self.agenda, port, &outbound);
        if count == 0 {
            // An event follows when there is room.
            self.call(at, "wrote", key, &count.to_le_bytes(), |node, now| node.wrote(now, key, 0));
            return;
        }
        socket.seen = socket.seen.saturating_sub(count);
        let is_all = count == node.outbound_bytes(key);
        socket.contract.is_flushing = !is_all;
        self.call(at, "wrote", key, &count.to_le_bytes(), |node, now| node.wrote(now, key, count));
        if !is_all && self.net.has_room(port) {
            self.hosts[at].queue_write(key, true);
        }
    }

    /// One call to the node about a connection, and what follows from it.
    pub fn call(
        &mut self,
        at: usize,
        what: &'static str,
        key: ConnKey,
        bytes: &[u8],
        call: impl FnOnce(&mut olivia::node::Node, olivia::base::time::Now),
    ) {
        let now = self.hosts[at].now(self.net.now);
        self.moment += 1;
        self.hosts[at].calls += 1;
        self.trace.note(self.net.now, what, at, key.to_bits(), bytes);
        self.what = what;
        if let Some(node) = &mut self.hosts[at].node {
            call(node, now);
        }
        self.after_call(at);
    }

    /// Carries out the node's actions and checks its output.
    pub fn after_call(&mut self, at: usize) {
        self.check_cost(at);
        self.check_conversations();
        self.sample_backlogs(at, |name| !TIMED.contains(&name));
        while let Some(action) = self.hosts[at].node.as_mut().and_then(olivia::node::Node::next_action) {
            self.act(at, action);
        }
        // A world under load has other checks, which cost less per call.
        if self.load.is_none() {
            self.carry_out_given(at);
            self.check_outbound(at);
            self.check_call();
        }
    }

    /// Checks what the last call has cost.
    fn check_cost(&mut self, at: usize) {
        let Host { node: Some(node), spent, .. } = &mut self.hosts[at] else { return };
        let keys = node.spent() - std::mem::replace(spent, node.spent());
        let what = self.what;
        self.load.iter_mut().for_each(|load| load.called(what, keys));
    }

    fn dial(&mut self, at: usize, key: ConnKey, addr: SocketAddr) {
        self.trace.note(self.net.now, "  Connect", at, key.to_bits(), addr.to_string().as_bytes());
        let Some(to) = self.hosts.iter().position(|host| host.addr == addr) else {
            panic!("host {at} dials {addr}, where no node ever was");
        };
        let port = self.net.dial(&mut self.agenda, Party::Host(at), to, Some(key));
        self.add_socket(at, key, port, None);
    }

    fn act(&mut self, at: usize, action: Action) {
        let (what, key) = match action {
            Action::Connect(key, addr) => return self.dial(at, key, addr),
            Action::Flush(key) => ("  Flush", key),
            Action::ShutdownWrite(key) => ("  Shutdown", key),
            Action::Close(key) => ("  Close", key),
            Action::StopReading(key) => ("  Stop", key),
            Action::ResumeReading(key) => ("  Resume", key),
        };
        self.trace.note(self.net.now, what, at, key.to_bits(), b"");
        // Actions on a connection that broke before the shell got to them are ignored.
        let Some(socket) = self.hosts[at].socket(key) else {
            assert!(self.hosts[at].gone.contains(&key), "{action:?} without a connection on host {at}");
            return;
        };
        socket.contract.act(action);
        match action {
            Action::Connect(..) => {}
            Action::Flush(_) => {
                let host = &mut self.hosts[at];
                let bytes = host.node.as_ref().map_or(0, |node| node.outbound_bytes(key));
                host.queue_write(key, bytes > WRITE_BYTES_MAX);
            }
            Action::ShutdownWrite(_) => {
                let port = socket.port;
                let is_expected = socket.talk.as_ref().is_none_or(|talk| talk.end.is_some());
                assert!(is_expected, "ended {key:?}, without a request of the node");
                self.net.shut(&mut self.agenda, port);
            }
            Action::StopReading(_) => self.seen.add("pauses", 1),
            Action::ResumeReading(_) => self.hosts[at].queue_read(key),
            Action::Close(_) => {
                self.hosts[at].gone.push(key);
                if let Some(socket) = self.hosts[at].sockets.remove(&key.to_bits()) {
                    self.net.close(&mut self.agenda, socket.port);
                    self.client_closed(at, &socket);
                    if let Some(alone) = &mut self.alone {
                        alone.closed(socket);
                    }
                }
            }
        }
    }

    fn check_outbound(&mut self, at: usize) {
        let mut received = std::mem::take(&mut self.received);
        let Host { sockets, node, .. } = &mut self.hosts[at];
        let Some(node) = node else { return };
        for socket in sockets.values_mut() {
            let Some(client) = socket.client else { continue };
            if node.outbound_bytes(socket.key) > socket.seen {
                let outbound = node.outbound(socket.key).collect::<Vec<_>>().concat();
                socket.contract.check(outbound.len());
                received.push((client, outbound[socket.seen..].to_vec()));
                socket.seen = outbound.len();
            }
        }
        for (client, bytes) in received.drain(..) {
            self.check_replies(at, client, &bytes);
        }
        self.received = received;
    }

    /// Handles the arrival of bytes at a party.
    pub fn arrived(&mut self, port: Port) {
        match self.net.party(port) {
            Party::Host(at) => {
                if let Some(key) = self.net.key(port) {
                    self.hosts[at].queue_read(key);
                    let soon = self.net.now + self.rng.below(self.plan.wake_nanos + 1);
                    self.wake(at, soon);
                }
                self.hostile_peer_read(at, port);
            }
            Party::Client(client) if self.load.is_some() => self.load_read(client, port),
            Party::Client(client) if self.alone.is_some() => self.hostile_client_read(client, port),
            Party::Client(client) => self.client_read(client, port),
        }
    }

    /// A connection has room again.
    pub fn room(&mut self, port: Port) {
        match self.net.party(port) {
            Party::Host(at) => {
                let key = self.net.key(port).filter(|key| self.hosts[at].socket(*key).is_some());
                if let Some(key) = key.filter(|_| self.net.is_open(port)) {
                    self.hosts[at].queue_write(key, true);
                    self.wake(at, self.net.now);
                }
                self.hostile_peer_write(at, port);
            }
            Party::Client(_) => {}
        }
    }

    /// Reports a connection to the node that dialled it.
    pub fn connected(&mut self, wire: usize) {
        let port = Port { wire, side: 0 };
        if self.net.is_gone(port) {
            // The dialler has closed it already; the other end gets a reset.
            return self.agenda.put(self.net.now, Event::Reset(port.other()));
        }
        match self.net.party(port) {
            Party::Host(at) => {
                let key = self.net.key(port);
                self.net.open(port, key);
                if let Some(key) = key {
                    self.hosts[at].connected.push_back(key);
                    self.wake(at, self.net.now);
                }
                self.hostile_peer_connected(at, port);
            }
            Party::Client(client) => {
                self.net.open(port, None);
                match self.alone {
                    _ if self.load.is_some() => self.load_connected(client),
                    Some(_) => self.hostile_connected(client, port),
                    None => self.client_connected(client, wire),
                }
            }
        }
    }

    /// A reset arrives.
    pub fn reset(&mut self, port: Port) {
        if !self.net.reset_arrives(port) {
            return;
        }
        match self.net.party(port) {
            Party::Host(at) => {
                if let Some(key) = self.net.key(port) {
                    self.hosts[at].broken.push_back(key);
                    self.wake(at, self.net.now);
                }
                self.hostile_peer_reset(at, port);
            }
            Party::Client(client) if self.load.is_some() => self.load_reset(client),
            Party::Client(client) if self.alone.is_some() => self.hostile_reset(client, port),
            Party::Client(client) => self.client_reset(client, port),
        }
    }

    /// Time that a host may take to notice what has come, at most: for judgements about speed.
    pub fn sluggishness(&self) -> u64 {
        2 * MS + self.plan.wake_nanos + self.plan.late_nanos
    }
}
