//! One node without peers, with hostile clients and limits as small as they can be.
//!
//! Clients send any bytes in any pieces, do not read, reset, half-close; clocks jump to the moments at which keys
//! expire; limits change. Every reply of every connection is known: `Talk` reads the same bytes as the node.

mod author;
mod expected;
mod limits;
mod model;

use super::host::{Host, Socket};
use super::net::{MS, Party, Port, Read, US};
use super::protocol::quote;
use super::world::{Event, World};
use author::{Author, at};
pub use expected::Talk;
use expected::{Desk, End};
use limits::Rates;
use model::Model;
use olivia::base::rng::Rng;
use olivia::base::time::Instant;
use olivia::config::Config;
use olivia::node::{CloseReason, ConnKey, Node};

/// The index of the only host.
const HOST: usize = 0;

/// The client that behaves, and checks STATS.
const WATCH: usize = 0;

/// The clock does not pass this: 10 years.
const END_MS: u64 = 10 * 365 * 86_400_000;

/// Bytes not yet read by the node above which a client writes no more.
const UNREAD_BYTES_MAX: usize = 1 << 20;

/// What some nodes keep of each hash: all keys have the same, or one of four that differ in their highest bits, or
/// in their lowest.
const MASKS: [u64; 3] = [0, 3 << 62, 3];

/// The longest that a calm node may take until everything is answered: wrong passwords between right ones take a
/// second each.
const REST_WITHIN: u64 = 3_600_000 * MS;

#[derive(Debug, Default)]
struct HostileClient {
    port: Option<Port>,
    is_connected: bool,
    reads: bool,
}

/// The state of a world of one node in addition to its host and its network.
#[derive(Debug)]
pub struct Alone {
    model: Model,
    author: Author,
    rates: Rates,
    clients: Vec<HostileClient>,
    is_calm: bool,
    mask: Option<u64>,
    /// Connections closed during the current call.
    vanished: Vec<Socket>,
    closed_before: [u64; CloseReason::COUNT],
    accepted: u64,
    refused: u64,
    stale: u64,
    /// Keys in the last reply to STATS.
    keys_told: Option<usize>,
    /// Writes refused for lack of memory.
    pub full: u64,
}

impl Alone {
    pub fn draw(rng: &mut Rng, seed: u64) -> (Self, Config) {
        let (author, rates, config) = limits::draw(rng);
        let mut clients = Vec::new();
        clients.resize_with([4, 12, 50][at(rng, 3)], HostileClient::default);
        let mask = MASKS.get(usize::try_from(seed % 8).unwrap()).copied();
        let alone = Self {
            model: Model::default(),
            author,
            rates,
            clients,
            is_calm: false,
            mask,
            vanished: Vec::new(),
            closed_before: [0; CloseReason::COUNT],
            accepted: 0,
            refused: 0,
            stale: 0,
            keys_told: None,
            full: 0,
        };
        (alone, config)
    }

    /// A node without data has started.
    pub fn started(&mut self, node: &mut Node) {
        self.mask.into_iter().for_each(|mask| node.mask_hashes(mask));
        self.model = Model::default();
        self.closed_before = [0; CloseReason::COUNT];
        (self.accepted, self.refused, self.stale) = (0, 0, 0);
    }

    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Whether the node is given also what had been read when it returned `StopReading`.
    pub const fn reads_ahead(&self) -> bool {
        self.rates.reads_ahead
    }

    pub const fn is_remote(&self, wire: usize) -> bool {
        self.rates.remote > 0 && (wire as u64).is_multiple_of(self.rates.remote)
    }

    pub const fn added_stale(&mut self) {
        self.stale += 1;
    }

    /// The node was notified that the connection broke.
    pub const fn lost(&mut self) {
        self.closed_before[CloseReason::Lost as usize] += 1;
    }

    pub fn closed(&mut self, socket: Socket) {
        self.vanished.push(socket);
    }

    /// The node has taken or refused a connection.
    pub fn accepts(&mut self, is_refused: bool, is_full: bool) {
        assert_eq!(is_refused, is_full, "refused: {is_refused}");
        *(if is_refused { &mut self.refused } else { &mut self.accepted }) += 1;
    }
}

/// Clients.
impl World {
    fn hostile(&mut self, at: usize) -> &mut HostileClient {
        &mut self.alone.as_mut().unwrap().clients[at]
    }

    /// The next step of a hostile client.
    pub fn hostile_step(&mut self, client: usize) {
        if self.ops_left == 0 || self.alone().is_calm {
            return;
        }
        self.ops_left -= 1;
        let later = US + self.rng.below(2 * self.style.think_us * US);
        self.agenda.put(self.net.now + later, Event::Client(client));
        if client == WATCH {
            self.disturb();
        }
        let HostileClient { port, is_connected, .. } = *self.hostile(client);
        match port {
            None => self.hostile_dials(client),
            Some(port) if is_connected && client == WATCH => self.hostile_writes(port, b"STATS\n"),
            Some(port) if self.rng.one_in(20) => {
                self.net.reset(&mut self.agenda, port);
                *self.hostile(client) = HostileClient::default();
            }
            Some(port) if is_connected && self.rng.one_in(20) => self.net.shut(&mut self.agenda, port),
            Some(port) if is_connected && self.net.unread(port) < UNREAD_BYTES_MAX => {
                let alone = self.alone.as_mut().unwrap();
                let count = 1 + self.rng.below(alone.rates.burst);
                let lines: Vec<_> = (0..count).map(|_| alone.author.line(&mut self.rng)).collect();
                self.hostile_writes(port, &lines.concat());
            }
            Some(_) => {}
        }
    }

    fn alone(&self) -> &Alone {
        self.alone.as_ref().unwrap()
    }

    fn hostile_dials(&mut self, client: usize) {
        let reads = client == WATCH || !self.rng.one_in(self.alone().rates.non_readers);
        let port = self.net.dial(&mut self.agenda, Party::Client(client), HOST, None);
        *self.hostile(client) = HostileClient { port: Some(port), is_connected: false, reads };
    }

    fn hostile_writes(&mut self, port: Port, bytes: &[u8]) {
        self.net.write(&mut self.agenda, port, bytes);
    }

    pub fn hostile_connected(&mut self, client: usize, port: Port) {
        if self.hostile(client).port != Some(port) {
            return self.net.close(&mut self.agenda, port);
        }
        self.hostile(client).is_connected = true;
        if client == WATCH || self.rng.one_in(2) {
            let auth = self.alone().author.auth();
            self.hostile_writes(port, &auth);
        }
    }

    pub fn hostile_reset(&mut self, client: usize, port: Port) {
        if self.hostile(client).port == Some(port) {
            *self.hostile(client) = HostileClient::default();
        }
    }

    /// Handles the arrival of bytes at a client, which reads them now, later or never.
    pub fn hostile_client_read(&mut self, client: usize, port: Port) {
        let is_current = self.hostile(client).port == Some(port);
        let reads = self.hostile(client).reads && (self.alone().is_calm || self.rng.one_in(2));
        if !is_current || client == WATCH || reads {
            self.hostile_reads(client, port);
        }
    }

    fn hostile_reads(&mut self, client: usize, port: Port) {
        let mut bytes = Vec::new();
        loop {
            match self.net.read(&mut self.agenda, port, usize::MAX, &mut bytes) {
                Read::Bytes => {}
                Read::Nothing => return,
                Read::End => {
                    self.net.close(&mut self.agenda, port);
                    return self.hostile_reset(client, port);
                }
            }
        }
    }
}

/// The node's clock and configuration.
impl World {
    /// Causes an event of the node outside its connections.
    fn disturb(&mut self) {
        match self.rng.below(8) {
            0 => {
                let Self { rng, hosts, alone: Some(alone), .. } = self else { return };
                let config = limits::redrawn(rng, &hosts[HOST].config, &alone.author.password);
                self.reconfigure(config);
            }
            1..4 => self.jump(),
            _ => {}
        }
    }

    fn reconfigure(&mut self, config: Config) {
        let host = &mut self.hosts[HOST];
        let now = host.now(self.net.now);
        let Some(node) = &mut host.node else { return };
        node.reconfigure(now, config.clone());
        host.config = config;
        self.moment += 1;
        self.trace.note(self.net.now, "reconfigure", HOST, 0, b"");
        self.after_call(HOST);
        self.wake(HOST, self.net.now);
    }

    /// The node's clock jumps forward: some time, or to the moment of a timer or of an expiry.
    fn jump(&mut self) {
        let host = &self.hosts[HOST];
        let mono = host.now(self.net.now).mono;
        let deadlines = self.alone().model.deadlines_ms(mono.millis());
        let jump_ms = self.alone().rates.jump_ms;
        let target = match self.rng.below(4) {
            0 => mono.nanos() + self.rng.below(3 * MS),
            1 => mono.nanos() + self.rng.below(jump_ms * MS),
            2 if !deadlines.is_empty() => {
                let deadline = deadlines[at(&mut self.rng, deadlines.len())];
                Instant::from_millis(deadline).nanos() - [0, 1, MS][at(&mut self.rng, 3)]
            }
            _ => host.node.as_ref().and_then(Node::next_deadline).map_or(0, Instant::nanos),
        };
        if self.rng.one_in(4) {
            self.hosts[HOST].skew_ms = i64::try_from(self.rng.below(1 << 42)).unwrap();
        }
        self.set_clock(target.min(END_MS * MS));
    }

    /// Sets the node's clock so that its next iteration begins at this moment; never back.
    fn set_clock(&mut self, target: u64) {
        let host = &mut self.hosts[HOST];
        let begin = self.net.now.max(host.busy_until);
        host.offset = host.offset.max(target.saturating_sub(begin));
        self.wake(HOST, self.net.now);
    }
}

/// The checks after each call.
impl World {
    /// Judges what is new in the outbound buffers.
    pub fn check_conversations(&mut self) {
        let Self { hosts, alone: Some(alone), net, trace, .. } = self else { return };
        let now = hosts[HOST].now(net.now).mono;
        let Host { sockets, node: Some(node), config, is_ending, .. } = &mut hosts[HOST] else { return };
        let mut metrics = Vec::new();
        let Alone { model, full, .. } = alone;
        let mut desk = Desk { model, config, now, is_draining: *is_ending, full };
        for socket in sockets.values_mut() {
            let Some(talk) = &mut socket.talk else { continue };
            if node.outbound_bytes(socket.key) > socket.seen {
                let outbound = node.outbound(socket.key).collect::<Vec<_>>().concat();
                let new = &outbound[socket.seen..];
                socket.seen = outbound.len();
                trace.note(net.now, "    reply", HOST, socket.key.to_bits(), new);
                metrics.extend(talk.check_replies(&mut desk, new));
            }
        }
        for (text, keys_min) in metrics {
            self.check_metrics(&text, keys_min);
        }
    }

    /// Checks the connections that are gone after a call, and the counters.
    pub fn check_call(&mut self) {
        self.check_ends();
        let Self { hosts, alone: Some(alone), .. } = self else { return };
        let Host { sockets, node: Some(node), .. } = &hosts[HOST] else { return };
        sockets.values().for_each(|socket| socket.contract.check(node.outbound_bytes(socket.key)));
        let stats = node.stats();
        assert_eq!(stats.gets, stats.hits + stats.misses);
        assert_eq!(stats.connections_accepted, alone.accepted);
        assert_eq!(stats.connections_refused, alone.refused);
        let closed = stats.connections_closed.iter().sum::<u64>();
        assert_eq!(stats.connections_accepted, closed + node.conns() as u64);
        assert_eq!(stats.stale_events, alone.stale);
        assert_eq!(node.conns(), sockets.len());
    }

    /// Checks why connections were closed, as far as one call shows it, and forgets what is uncertain.
    fn check_ends(&mut self) {
        let Self { hosts, alone: Some(alone), net, .. } = self else { return };
        let now = hosts[HOST].now(net.now).mono;
        let Host { node: Some(node), config, is_ending, .. } = &hosts[HOST] else { return };
        let closed = node.stats().connections_closed;
        let mut reasons = Vec::new();
        for reason in CloseReason::ALL {
            let count = closed[reason as usize] - alone.closed_before[reason as usize];
            reasons.resize(reasons.len() + usize::try_from(count).unwrap(), reason);
        }
        alone.closed_before = closed;
        let vanished = std::mem::take(&mut alone.vanished);
        assert_eq!(reasons.len(), vanished.len(), "{reasons:?}");
        let is_one = reasons.len() == 1;
        for (mut socket, reason) in vanished.into_iter().zip(reasons) {
            let Some(talk) = &mut socket.talk else { continue };
            let end = talk.end;
            let is_right = match reason {
                _ if !is_one => true,
                CloseReason::Done => talk.is_shut && talk.is_answered(config),
                CloseReason::Quit => end == Some(End::Quit),
                CloseReason::Protocol => end == Some(End::Protocol),
                CloseReason::Browser => talk.is_browser_next(config) || end.is_none(),
                CloseReason::Idle => end == Some(End::Idle),
                CloseReason::SlowReader => socket.seen > 0,
                CloseReason::Unauthenticated => end == Some(End::Unauthenticated),
                CloseReason::Drained => *is_ending,
                CloseReason::BuffersFull => config.limits.buffers_max < 1 << 28,
                CloseReason::Lost
                | CloseReason::Killed
                | CloseReason::DialFailed
                | CloseReason::Refused
                | CloseReason::Duplicate
                | CloseReason::PeerSilent
                | CloseReason::PeerLeft => false,
            };
            assert!(is_right, "{:?} was closed for {reason:?}, and its end was {end:?}", socket.key);
            let Alone { model, full, .. } = &mut *alone;
            talk.vanish(&mut Desk { model, config, now, is_draining: *is_ending, full });
        }
    }

    /// Checks the metrics of STATS.
    fn check_metrics(&mut self, text: &str, keys_min: usize) {
        let number = |name: &str| -> u64 {
            let fields = text.split(',').filter_map(|field| field.split_once(':'));
            let mut values = fields.filter(|(field, _)| *field == name).map(|(_, value)| value);
            let value = values.next().unwrap_or_else(|| panic!("{name} is not in {text}"));
            assert_eq!(values.next(), None, "{name} twice in {text}");
            value.parse().unwrap()
        };
        let Host { sockets, config, .. } = &self.hosts[HOST];
        assert_eq!(number("gets"), number("hits") + number("misses"), "{text}");
        // The same call may have closed some before.
        assert!(number("clients") <= sockets.len() as u64, "{text}");
        let name = |reason: CloseReason| format!("connections_closed_{}", reason.name());
        let closed: u64 = CloseReason::ALL.into_iter().map(|reason| number(&name(reason))).sum();
        assert_eq!(number("connections_accepted"), closed + number("clients"), "{text}");
        let keys = usize::try_from(number("keys")).unwrap();
        assert!(keys >= keys_min, "{text}");
        // Besides requests, silence and a last line without its end get an error, once for each connection.
        assert!(number("requests") + number("connections_accepted") >= number("request_errors"), "{text}");
        // Above the limit there can be what one call adds, and the buffers kept for later.
        let limits = &config.limits;
        let one_call = u64::from(limits.reply_bytes_max + limits.line_bytes_max) + 512 * 1_024;
        let kept = 64 * 64 * 1_024;
        assert!(number("buffers_bytes") <= limits.buffers_max + 2 * one_call + kept, "{text}");
        for name in ["uptime_seconds", "memory_bytes", "sets", "expirations", "iterations", "peers_linked"] {
            number(name);
        }
        number("iteration_max_us");
        if let Some(alone) = &mut self.alone {
            alone.keys_told = Some(keys);
        }
    }
}

/// The end of a run.
impl World {
    /// Clients and network behave from here on: everything is answered, keys expire on time, and the node ends
    /// within its time.
    pub fn finale_alone(&mut self, is_cut_short: bool) {
        if !is_cut_short {
            self.calm_down();
            self.outlive();
        }
        self.drain_within_time();
    }

    fn calm_down(&mut self) {
        self.heal();
        self.alone.as_mut().unwrap().is_calm = true;
        let end = self.net.now + REST_WITHIN;
        loop {
            for client in 0..self.alone().clients() {
                self.hostile(client).reads = true;
                if let HostileClient { port: Some(port), is_connected: true, .. } = *self.hostile(client) {
                    self.hostile_reads(client, port);
                }
            }
            self.run_until(self.net.now + 50 * MS);
            let Some(wrong) = self.unfinished() else { break };
            assert!(self.net.now < end, "{wrong}");
        }
        self.audit_alone();
    }

    /// Returns a description of unanswered requests or unread bytes, if there are any.
    fn unfinished(&self) -> Option<String> {
        let Host { sockets, node, config, .. } = &self.hosts[HOST];
        let Some(node) = node else { return Some("the node is down".to_owned()) };
        sockets.values().find_map(|socket| {
            let (talk, key) = (socket.talk.as_ref()?, socket.key);
            if socket.contract.is_stopped || node.outbound_bytes(key) > 0 {
                return Some(format!("{key:?} is not read, though nothing waits"));
            }
            if !talk.is_answered(config) || self.net.is_readable(socket.port) {
                return Some(format!("{key:?} waits for an answer: {talk:?}"));
            }
            let is_left = talk.is_shut && talk.end.is_none();
            is_left.then(|| format!("{key:?} is open, though all it requested is answered"))
        })
    }

    fn audit_alone(&self) {
        for node in self.hosts.iter().filter_map(|host| host.node.as_ref()) {
            node.audit();
            node.audit_store();
        }
    }

    /// Every key is found until its expiry and not at it; when all have expired their memory is free.
    fn outlive(&mut self) {
        for _ in 0..30 {
            let now_ms = self.hosts[HOST].now(self.net.now).mono.millis();
            let Some(next) = self.alone().model.deadlines_ms(now_ms + 3).into_iter().min() else { break };
            for moment in [next - 1, next] {
                // The requests come before the node had time to free anything.
                let Some(watch) = self.watch() else { return };
                self.set_clock(moment * MS);
                self.call_all(watch);
            }
        }
        let now_ms = self.hosts[HOST].now(self.net.now).mono.millis();
        if let Some(last) = self.alone().model.deadlines_ms(now_ms).into_iter().max() {
            self.set_clock(last * MS);
        }
        // Time to free them, also on a node that takes long to wake up.
        self.run_until(self.net.now + 100 * MS);
        let Some(watch) = self.watch() else { return };
        self.call_all(watch);
        let now_ms = self.hosts[HOST].now(self.net.now).mono.millis();
        let alone = self.alone();
        if let Some(keys) = alone.keys_told {
            let (fewest, most) = alone.model.count(now_ms);
            assert!((fewest..=most).contains(&keys), "{keys} keys, not {fewest} to {most}");
        }
    }

    /// The node's end of the connection that behaves; a new one if the node closed it.
    fn watch(&mut self) -> Option<ConnKey> {
        for _ in 0..20 {
            if let HostileClient { port: Some(port), is_connected: true, .. } = *self.hostile(WATCH)
                && let Some(key) = self.net.key(port.other())
                && self.hosts[HOST].socket(key).is_some_and(|socket| !socket.contract.is_stopped)
            {
                return Some(key);
            }
            if self.hostile(WATCH).port.is_none() {
                self.hostile_dials(WATCH);
            }
            self.run_until(self.net.now + 5 * MS);
        }
        None
    }

    /// Requests every key at this very moment.
    fn call_all(&mut self, watch: ConnKey) {
        let keys: Vec<Vec<u8>> = self.alone().model.keys().cloned().collect();
        self.alone.as_mut().unwrap().keys_told = None;
        let begin = self.net.now.max(self.hosts[HOST].busy_until);
        self.net.now = begin;
        let lines = keys.into_iter().flat_map(|key| {
            let key = String::from_utf8(quote(&key)).unwrap();
            ["GET", "TTL", "WHO"].map(|verb| format!("{verb} {key}\n"))
        });
        for line in lines.chain(["STATS\n".to_owned()]).collect::<Vec<_>>() {
            let now = self.hosts[HOST].now(self.net.now).mono;
            let Some(socket) = self.hosts[HOST].socket(watch).filter(|socket| !socket.contract.is_stopped)
            else {
                break;
            };
            socket.talk.iter_mut().for_each(|talk| talk.gave(now, line.as_bytes()));
            self.call(HOST, "received", watch, line.as_bytes(), |node, now| {
                node.received(now, watch, line.as_bytes());
            });
        }
        self.wake(HOST, self.net.now);
        self.run_until(self.net.now + 300 * US);
    }

    /// The node drains: no connection stays open longer than the time for it, whatever clients do.
    fn drain_within_time(&mut self) {
        self.faults_on = false;
        while !self.hosts[HOST].is_well() {
            self.run_until(self.net.now + MS);
        }
        let life = self.hosts[HOST].life;
        self.end(HOST);
        let drain_ms = u64::from(self.hosts[HOST].config.limits.drain_ms);
        self.run_until(self.net.now + (drain_ms + 2) * MS + self.sluggishness());
        let host = &self.hosts[HOST];
        assert!(host.node.is_none() || host.life > life, "{} connections are left", host.sockets.len());
    }
}
