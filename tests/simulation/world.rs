//! The world of one node: its clock, its network, its clients. It is the node's shell, and keeps the
//! contract of `olivia::node` to the letter, while everything beyond the contract goes wrong.

use super::client::{Author, Style, at};
use super::faults::{Faults, Move, config, give_theme, reconfigured};
use super::kit::contract::{Contract, conn_of};
use super::model::Model;
use super::oracle::{Desk, End, Talk};
use olivia::base::rng::Rng;
use olivia::base::time::{Instant, Now};
use olivia::config::Config;
use olivia::node::{Action, CloseReason, ConnKey, Node};
use std::io::Write;
use std::time::Duration;

/// Milliseconds that the clock never passes: 10 years.
const END_MS: u64 = 10 * 365 * 86_400_000;

/// Bytes on their way to the node above which a client writes no more.
const FLIGHT_BYTES_MAX: usize = 1 << 20;

/// What some nodes have left of each hash: all keys have the same, or one of four that differ in their
/// highest bits, or in their lowest.
const MASKS: [u64; 3] = [0, 3 << 62, 3];

/// Both ends of one connection.
#[derive(Debug)]
pub struct Link {
    pub key: ConnKey,
    pub talk: Talk,
    /// On its way to the node.
    pub flight: Vec<u8>,
    pub has_shut: bool,
    pub reads: bool,
    pub contract: Contract,
    /// Bytes at the front of the outbound buffer that were judged already.
    seen: usize,
}

/// Everything.
#[derive(Debug)]
pub struct World {
    pub node: Node,
    pub now: Now,
    pub config: Config,
    pub model: Model,
    pub links: Vec<Link>,
    pub rng: Rng,
    /// The last moment of a node that was told to end.
    pub ends_at: Option<Instant>,
    /// All that the node did, in order.
    pub trace: Vec<u8>,
    /// How many keys the node said it holds when it was asked last.
    pub keys_told: Option<usize>,
    /// How often a connection was not read on for a while, and a write had no room.
    pub pauses: u64,
    pub full: u64,
    author: Author,
    faults: Faults,
    gone: Vec<ConnKey>,
    /// The connection that looks at STATS, and to which nothing bad happens.
    watch: Option<ConnKey>,
    closed_before: [u64; CloseReason::COUNT],
    accepted: u64,
    refused: u64,
    stale: u64,
    is_traced: bool,
}

impl World {
    pub fn new(seed: u64, is_traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let password = "pass, word".to_owned();
        let mut config = config(&mut rng, &password);
        let mut style = Style::draw(&mut rng);
        let mut faults = Faults::draw(&mut rng);
        give_theme(&mut rng, &mut config, &mut style, &mut faults);
        let now = Now { mono: Instant::from_nanos(rng.below(5_000_000_000)), wall_ms: rng.below(1 << 41) };
        let mut node = Node::new(config.clone(), rng.next_u64(), now);
        if seed % 8 < MASKS.len() as u64 {
            node.mask_hashes(MASKS[usize::try_from(seed % 8).unwrap()]);
        }
        Self {
            node,
            now,
            config,
            model: Model::default(),
            links: Vec::new(),
            ends_at: None,
            trace: Vec::new(),
            keys_told: None,
            pauses: 0,
            full: 0,
            author: Author::new(style, password),
            faults,
            gone: Vec::new(),
            watch: None,
            closed_before: [0; CloseReason::COUNT],
            accepted: 0,
            refused: 0,
            stale: 0,
            is_traced,
            rng,
        }
    }

    /// Lets one thing happen.
    pub fn step(&mut self) {
        let chosen = self.faults.next(&mut self.rng);
        let link = (!self.links.is_empty()).then(|| at(&mut self.rng, self.links.len()));
        let link = link.filter(|&link| Some(self.links[link].key) != self.watch);
        match (chosen, link) {
            (Move::Connect, _) => self.connect(),
            (Move::Tick, _) => self.tick(),
            (Move::Pass, _) => self.pass(),
            (Move::Stale, _) => self.stale(),
            (Move::Reconfigure, _) => self.reconfigure(),
            (Move::Watch, _) => self.watch(),
            (Move::Write, Some(link)) => self.write(link),
            (Move::Deliver, Some(link)) => {
                let most = 1 + at(&mut self.rng, self.faults.chunk);
                self.deliver(link, most);
            }
            (Move::Take, Some(link)) if self.links[link].reads => {
                let most = 1 + at(&mut self.rng, self.faults.chunk);
                self.take(link, most);
            }
            (Move::HalfClose, Some(link)) => self.links[link].has_shut = true,
            (Move::Reset, Some(link)) => self.reset(link),
            (Move::Write | Move::Deliver | Move::Take | Move::HalfClose | Move::Reset, _) => {}
        }
    }

    fn connect(&mut self) {
        let is_loopback = !self.rng.one_in(self.faults.strangers);
        let reads = !self.rng.one_in(self.faults.non_readers);
        if self.connect_from(is_loopback, reads).is_some()
            && self.rng.one_in(2)
            && let Some(link) = self.links.last_mut()
        {
            link.flight = self.author.auth();
        }
    }

    fn connect_from(&mut self, is_loopback: bool, reads: bool) -> Option<ConnKey> {
        let addr = if is_loopback { "127.0.0.1:4000" } else { "192.0.2.1:4000" };
        let is_full = self.links.len() >= self.config.limits.clients_max as usize;
        let accepted = self.node.accept(self.now, addr.parse().unwrap());
        assert_eq!(accepted.is_err(), is_full || self.ends_at.is_some(), "{accepted:?}");
        let Ok(key) = accepted else {
            self.refused += 1;
            return None;
        };
        self.accepted += 1;
        assert!(!self.gone.contains(&key) && self.links.iter().all(|link| link.key != key));
        self.links.push(Link {
            key,
            talk: Talk::new(&self.config, self.now.mono, is_loopback),
            flight: Vec::new(),
            has_shut: false,
            reads,
            contract: Contract::default(),
            seen: 0,
        });
        self.observe(&format!("accept {key:?}"), b"");
        Some(key)
    }

    fn write(&mut self, link: usize) {
        let Self { links, author, rng, faults, .. } = self;
        let link = &mut links[link];
        if link.has_shut || link.flight.len() > FLIGHT_BYTES_MAX {
            return;
        }
        for _ in 0..=rng.below(faults.burst as u64) {
            let line = author.line(rng);
            link.flight.extend(line);
        }
    }

    /// Gives the node up to `most` bytes of what is on its way, or the end behind them.
    pub fn deliver(&mut self, at: usize, most: usize) -> bool {
        let link = &mut self.links[at];
        if link.contract.is_stopped && !self.faults.reads_ahead {
            return false;
        }
        let key = link.key;
        if link.flight.is_empty() {
            if !link.has_shut || link.talk.is_shut {
                return false;
            }
            link.talk.is_shut = true;
            self.node.read_closed(self.now, key);
            self.observe(&format!("shut {key:?}"), b"");
            return true;
        }
        let most = most.min(64 * 1_024).min(link.flight.len());
        let bytes: Vec<u8> = link.flight.drain(..most).collect();
        if link.talk.end.is_none() {
            link.talk.gave(self.now.mono, &bytes);
        }
        self.node.received(self.now, key, &bytes);
        self.observe(&format!("received {key:?}"), &bytes);
        true
    }

    /// Takes up to `most` bytes of what the node has written.
    pub fn take(&mut self, at: usize, most: usize) -> bool {
        let link = &mut self.links[at];
        let waiting = self.node.outbound_bytes(link.key);
        let count = waiting.min(most);
        if count == 0 {
            return false;
        }
        let key = link.key;
        link.seen -= count;
        link.contract.is_flushing = count < waiting;
        self.node.wrote(self.now, key, count);
        self.observe(&format!("wrote {key:?} {count}"), b"");
        true
    }

    fn reset(&mut self, at: usize) {
        let link = self.links.remove(at);
        self.gone.push(link.key);
        self.node.lost(self.now, link.key, &"connection reset");
        self.closed_before[CloseReason::Lost as usize] += 1;
        self.observe(&format!("lost {:?}", link.key), b"");
    }

    pub fn tick(&mut self) {
        self.node.tick(self.now);
        self.observe("tick", b"");
    }

    fn pass(&mut self) {
        let now_ms = self.now.mono.millis();
        let deadlines = self.model.deadlines_ms(now_ms);
        let mono = match self.rng.below(4) {
            0 => self.now.mono.after(Duration::from_nanos(self.rng.below(3_000_000))),
            1 => self.now.mono.after(Duration::from_millis(self.rng.below(self.faults.jump_ms))),
            2 if !deadlines.is_empty() => {
                let deadline = deadlines[at(&mut self.rng, deadlines.len())];
                let early_nanos = [0, 1, 1_000_000][at(&mut self.rng, 3)];
                Instant::from_nanos(Instant::from_millis(deadline).nanos() - early_nanos)
            }
            _ => self.node.next_deadline().unwrap_or(self.now.mono),
        };
        let mono = mono.max(self.now.mono).min(Instant::from_millis(END_MS).max(self.now.mono));
        self.set_time(mono);
    }

    pub fn set_time(&mut self, mono: Instant) {
        let jump = if self.rng.one_in(4) { self.rng.below(1 << 42) } else { 0 };
        let wall_ms = if jump > 0 { jump } else { self.now.wall_ms + 1 };
        self.now = Now { mono, wall_ms };
    }

    /// Tells the node of things that happened to connections it has forgotten.
    fn stale(&mut self) {
        if self.gone.is_empty() {
            return;
        }
        let key = self.gone[at(&mut self.rng, self.gone.len())];
        match self.rng.below(4) {
            0 => self.node.received(self.now, key, b"SET a:stale\n"),
            1 => self.node.read_closed(self.now, key),
            2 => self.node.lost(self.now, key, &"connection reset"),
            _ => self.node.wrote(self.now, key, 1),
        }
        assert_eq!(self.node.outbound_bytes(key), 0);
        self.stale += 1;
        self.observe(&format!("stale {key:?}"), b"");
    }

    fn reconfigure(&mut self) {
        self.config = reconfigured(&mut self.rng, &self.config, &self.author.password);
        self.node.reconfigure(self.now, self.config.clone());
        self.observe("reconfigure", b"");
    }

    /// Asks for STATS, and judges them, on a connection that behaves.
    pub fn watch(&mut self) {
        self.ask_watch("STATS\n");
    }

    /// Has the connection that behaves ask something. False if there is none.
    pub fn ask_watch(&mut self, line: &str) -> bool {
        if self.watch.is_none_or(|key| self.gone.contains(&key)) {
            self.watch = self.connect_from(true, true);
            let Some(key) = self.watch else { return false };
            if self.config.password.is_some() {
                let auth = format!("AUTH \"{}\"\n", self.author.password);
                self.give_watch(key, &auth);
            }
        }
        if let Some(key) = self.watch {
            self.give_watch(key, line);
        }
        true
    }

    fn give_watch(&mut self, key: ConnKey, line: &str) {
        for (step, most) in [(0, usize::MAX), (1, usize::MAX)] {
            let Some(at) = self.links.iter().position(|link| link.key == key) else { return };
            if step == 0 {
                self.links[at].flight.extend_from_slice(line.as_bytes());
                self.deliver(at, most);
            } else {
                self.take(at, most);
            }
        }
    }

    pub fn drain(&mut self) {
        let patience = Duration::from_millis(self.config.limits.drain_ms.into());
        let end = self.now.mono.after(patience);
        // Timers have a tick of 1 ms, and are not early.
        self.ends_at = self.ends_at.or(Some(Instant::from_millis(end.millis_ceil())));
        self.node.drain(self.now);
        self.observe("drain", b"");
    }

    /// Draws the conclusions of one call: what is new is judged, what the node asks for is done.
    fn observe(&mut self, call: &str, bytes: &[u8]) {
        let call = format!("{} ns: {call} ", self.now.mono.nanos());
        note(&mut self.trace, self.is_traced, &call, bytes);
        self.read_outbound();
        self.act();
        for link in &self.links {
            link.contract.check(self.node.outbound_bytes(link.key));
        }
        let stats = self.node.stats();
        assert_eq!(stats.gets, stats.hits + stats.misses);
        assert_eq!(stats.connections_accepted, self.accepted);
        assert_eq!(stats.connections_refused, self.refused);
        assert_eq!(
            stats.connections_accepted,
            stats.connections_closed.iter().sum::<u64>() + self.node.conns() as u64
        );
        assert_eq!(stats.stale_events, self.stale);
        assert_eq!(self.node.conns(), self.links.len());
    }

    fn read_outbound(&mut self) {
        let Self { node, now, config, model, links, ends_at, trace, is_traced, full, .. } = self;
        let mut figures = Vec::new();
        for link in links {
            if node.outbound_bytes(link.key) > link.seen {
                let outbound = node.outbound(link.key).collect::<Vec<_>>().concat();
                let new = &outbound[link.seen..];
                link.seen = outbound.len();
                note(trace, *is_traced, &format!("  {:?} < ", link.key), new);
                let is_draining = ends_at.is_some();
                let mut desk = Desk { model, config, now: now.mono, is_draining, full };
                figures.extend(link.talk.judge(&mut desk, new));
            }
        }
        for (text, keys_min) in figures {
            self.judge_stats(&text, keys_min);
        }
    }

    fn act(&mut self) {
        let mut vanished = Vec::new();
        while let Some(action) = self.node.next_action() {
            note(&mut self.trace, self.is_traced, &format!("  {action:?}"), b"");
            let key = conn_of(action);
            // What was said of a connection that broke before the shell got to it means nothing.
            let Some(at) = self.links.iter().position(|link| link.key == key) else {
                assert!(self.gone.contains(&key), "{action:?} for nobody");
                continue;
            };
            let link = &mut self.links[at];
            link.contract.act(action);
            match action {
                Action::Connect(..) => panic!("nobody was to be dialled"),
                Action::Flush(_) | Action::ResumeReading(_) => {}
                Action::ShutdownWrite(_) => {
                    assert!(link.talk.end.is_some(), "ended {key:?}, which nobody asked for");
                    // Well-behaved or not, a client sees the end and ends too, or goes on regardless.
                    link.has_shut |= !self.rng.one_in(4);
                }
                Action::StopReading(_) => self.pauses += 1,
                Action::Close(_) => {
                    vanished.push(self.links.remove(at));
                    self.gone.push(key);
                }
            }
        }
        self.judge_ends(vanished);
    }

    /// Judges why connections were closed, as far as one call tells, and forgets what is uncertain.
    fn judge_ends(&mut self, vanished: Vec<Link>) {
        let closed = self.node.stats().connections_closed;
        let reasons: Vec<CloseReason> = CloseReason::ALL
            .into_iter()
            .flat_map(|reason| {
                let at = reason as usize;
                vec![reason; usize::try_from(closed[at] - self.closed_before[at]).unwrap()]
            })
            .collect();
        self.closed_before = closed;
        assert_eq!(reasons.len(), vanished.len(), "{reasons:?}");
        let is_one = reasons.len() == 1;
        for (mut link, reason) in vanished.into_iter().zip(reasons) {
            if is_one {
                note(&mut self.trace, self.is_traced, &format!("  {:?} for {reason:?}", link.key), b"");
                let end = link.talk.end;
                let is_right = match reason {
                    CloseReason::Done => link.talk.is_shut && link.talk.is_answered(&self.config),
                    CloseReason::Quit => end == Some(End::Quit),
                    CloseReason::Protocol => end == Some(End::Protocol),
                    CloseReason::Browser => link.talk.is_browser_next(&self.config) || end.is_none(),
                    CloseReason::Idle => end == Some(End::Idle),
                    CloseReason::SlowReader => link.seen > 0,
                    CloseReason::Unauthenticated => end == Some(End::Unauthenticated),
                    CloseReason::Drained => self.ends_at.is_some(),
                    CloseReason::BuffersFull => self.config.limits.buffers_max < 1 << 28,
                    // Here is no other node.
                    CloseReason::Lost
                    | CloseReason::DialFailed
                    | CloseReason::Refused
                    | CloseReason::Duplicate
                    | CloseReason::PeerSilent
                    | CloseReason::PeerLeft => false,
                };
                assert!(is_right, "{:?} was closed for {reason:?}, and its end was {end:?}", link.key);
            }
            let Self { model, config, now, ends_at, full, .. } = self;
            let mut desk = Desk { model, config, now: now.mono, is_draining: ends_at.is_some(), full };
            link.talk.vanish(&mut desk);
        }
    }

    fn judge_stats(&mut self, text: &str, keys_min: usize) {
        let number = |name: &str| -> u64 {
            let fields = text.split(',').filter_map(|field| field.split_once(':'));
            let mut values = fields.filter(|(field, _)| *field == name).map(|(_, value)| value);
            let value = values.next().unwrap_or_else(|| panic!("{name} is not in {text}"));
            assert_eq!(values.next(), None, "{name} twice in {text}");
            value.parse().unwrap()
        };
        assert_eq!(number("gets"), number("hits") + number("misses"), "{text}");
        // The same call may have closed some before.
        assert!(number("clients") <= self.links.len() as u64, "{text}");
        let closed: u64 = CloseReason::ALL
            .iter()
            .map(|reason| number(&format!("connections_closed_{}", reason.name())))
            .sum();
        assert_eq!(number("connections_accepted"), closed + number("clients"), "{text}");
        let keys = usize::try_from(number("keys")).unwrap();
        assert!(keys >= keys_min, "{text}");
        self.keys_told = Some(keys);
        // Besides requests, silence and a last line without its end get an error, once a connection.
        assert!(number("requests") + number("connections_accepted") >= number("request_errors"), "{text}");
        // Beyond the limit there can be what one call adds, and the buffers kept for later.
        let limits = &self.config.limits;
        let one_call = u64::from(limits.reply_bytes_max + limits.line_bytes_max) + 512 * 1_024;
        let kept = 64 * 64 * 1_024;
        assert!(number("buffers_bytes") <= limits.buffers_max + 2 * one_call + kept, "{text}");
        for name in [
            "uptime_seconds",
            "memory_bytes",
            "sets",
            "expirations",
            "iterations",
            "iteration_max_us",
            "peers_linked",
        ] {
            number(name);
        }
    }
}

/// Adds a line to the trace, and shows it if all is to be told.
fn note(trace: &mut Vec<u8>, is_traced: bool, text: &str, bytes: &[u8]) {
    // Writing to a vector cannot fail.
    let _ = trace.write_all(text.as_bytes());
    let _ = trace.write_all(bytes);
    trace.push(b'\n');
    if is_traced {
        eprintln!("{text}{}", bytes.escape_ascii());
    }
}
