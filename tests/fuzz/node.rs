//! Fuzz target: a whole node under a shell that keeps the contract and is otherwise random. The node never panics or
//! spins, answers in whole lines, stays within its limits, ends when drained, and repeats its output for the same
//! input.

#[path = "../kit/contract.rs"]
mod contract;

use contract::{Contract, conn_of, receive};
use olivia::base::time::{Instant, Now};
use olivia::config::{Config, Secret};
use olivia::limits::{EvictionPolicy, Limits};
use olivia::node::{Action, ConnKey, Node};
use std::net::SocketAddr;
use std::time::Duration;

/// Calls of `tick` at one moment, after which a node spins.
const TICKS_MAX: u32 = 10_000;

/// Bytes of one connection's output, beyond the limit at which requests wait: one reply, or a line
/// of metrics.
const REPLY_SPARE_BYTES: usize = 8 * 1024;

/// The input is a script: see [`World::step`].
pub fn run(data: &[u8]) {
    let one = play(data);
    assert_eq!(one, play(data), "the same input gave another output");
}

/// Plays a script to its end, and the node to its own; returns all that was sent.
fn play(data: &[u8]) -> Vec<Vec<u8>> {
    let mut script = Script { rest: data };
    let mut world = World::new(script.byte());
    while !script.rest.is_empty() {
        world.step(&mut script);
    }
    world.end();
    world.clients.into_iter().map(|client| client.sent).collect()
}

/// One connection, as the shell sees it.
struct Client {
    key: ConnKey,
    is_open: bool,
    is_read_closed: bool,
    contract: Contract,
    sent: Vec<u8>,
}

struct World {
    node: Node,
    now: Now,
    clients: Vec<Client>,
    limits: Limits,
}

struct Script<'d> {
    rest: &'d [u8],
}

impl<'d> Script<'d> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn take(&mut self, count: usize) -> &'d [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}

impl World {
    fn new(flags: u8) -> Self {
        let limits = Limits {
            clients_max: 4,
            memory_max: 4_096 * u64::from(flags & 1),
            eviction: EvictionPolicy::Refuse,
            eviction_only_with_ttl: false,
            buffers_max: if flags & 2 == 0 { 1 << 20 } else { 8 << 10 },
            line_bytes_max: 200,
            args_max: 6,
            key_bytes_max: 40,
            value_bytes_max: 100,
            reply_bytes_max: 400,
            outbound_pause_bytes: 1_024,
            slow_reader_ms: 50,
            request_idle_ms: 80,
            first_byte_ms: 60,
            unauthenticated_args_max: 3,
            unauthenticated_line_bytes_max: 100,
            unauthenticated_output_bytes_max: 600,
            drain_ms: 40,
            peer_filters_max: 1 << 20,
            lookups_max: 8,
            lookups_per_connection: 2,
            lookups_per_peer: 4,
            slow_request_us: 1_000,
            slow_requests_max: 3,
            tombstones_max: 8,
        };
        let password = (flags & 4 != 0).then(|| Secret::new("pw".to_owned()));
        let config = Config { limits: limits.clone(), password, ..Config::default() };
        let now = Now { mono: Instant::from_millis(5), wall_nanos: 1_000_000_000_000 };
        Self { node: Node::new(config, 7, now), now, clients: Vec::new(), limits }
    }

    /// One call into the node: its kind, the connection, a length, and perhaps bytes.
    fn step(&mut self, script: &mut Script<'_>) {
        let kind = script.byte();
        match kind % 8 {
            0 => self.accept(kind & 8 == 0),
            1..=3 => {
                let (at, length) = (script.byte(), usize::from(script.byte()));
                let bytes = script.take(length);
                self.receive(at, bytes);
            }
            4 => {
                let (at, count) = (script.byte(), usize::from(script.byte()) * 8);
                self.write(at, count);
            }
            5 => self.wait(u64::from(script.byte())),
            6 => {
                let at = script.byte();
                self.hang_up(at, kind & 8 == 0);
            }
            _ if kind == 0xFF => self.node.drain(self.now),
            _ => self.tick(),
        }
        self.reconcile();
    }

    fn accept(&mut self, is_near: bool) {
        let host = if is_near { [127, 0, 0, 1] } else { [192, 0, 2, 1] };
        let has_room = self.node.conns() < self.limits.clients_max as usize;
        if let Ok(key) = self.node.accept(self.now, SocketAddr::from((host, 9))) {
            assert!(has_room);
            let sent = Vec::new();
            self.clients.push(Client {
                key,
                is_open: true,
                is_read_closed: false,
                contract: Contract::default(),
                sent,
            });
        }
    }

    /// The client number `at`, counted round those that are open.
    fn pick(&mut self, at: u8) -> Option<&mut Client> {
        let open = self.clients.iter().filter(|client| client.is_open).count();
        let at = usize::from(at).checked_rem(open)?;
        self.clients.iter_mut().filter(|client| client.is_open).nth(at)
    }

    fn receive(&mut self, at: u8, bytes: &[u8]) {
        let now = self.now;
        let Some(client) = self.pick(at) else { return };
        if !client.contract.is_stopped && !client.is_read_closed && !bytes.is_empty() {
            let key = client.key;
            receive(&mut self.node, now, key, bytes, false);
        }
    }

    fn write(&mut self, at: u8, count: usize) {
        let Some(key) = self.pick(at).map(|client| client.key) else { return };
        let mut bytes = self.node.outbound(key).collect::<Vec<_>>().concat();
        bytes.truncate(count);
        let count = bytes.len();
        if let Some(client) = self.pick(at) {
            client.sent.extend_from_slice(&bytes);
            self.node.wrote(self.now, key, count);
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono = self.now.mono.after(Duration::from_millis(ms));
        self.now.wall_nanos = self.now.wall_nanos.wrapping_add(ms * 7_000_000) % 2_000_000_000_000;
        self.tick();
    }

    fn tick(&mut self) {
        let mut ticks = 0;
        while self.node.has_work(self.now) {
            self.node.tick(self.now);
            self.reconcile();
            ticks += 1;
            assert!(ticks < TICKS_MAX, "the node spins");
        }
        let next = self.node.next_deadline();
        assert!(next.is_none_or(|next| next > self.now.mono), "{next:?} is not after {:?}", self.now);
        let node = &self.node;
        let is_stuck = |client: &Client| client.contract.is_stopped && node.outbound_bytes(client.key) == 0;
        let stuck = self.clients.iter().find(|client| client.is_open && is_stuck(client));
        // A wrong password is answered when its time has come.
        let waits_for_refusal = next.is_some() && node.stats().auth_failures > 0;
        assert!(stuck.is_none() || waits_for_refusal, "nothing waits, and yet it is not read from");
    }

    /// The other side shuts its side, or is lost.
    fn hang_up(&mut self, at: u8, is_polite: bool) {
        let now = self.now;
        let Some(client) = self.pick(at) else { return };
        let key = client.key;
        if is_polite && (client.is_read_closed || client.contract.is_stopped) {
            return;
        }
        client.is_read_closed = true;
        client.is_open = is_polite;
        if is_polite {
            self.node.read_closed(now, key)
        } else {
            self.node.lost(now, key, &"connection reset")
        }
    }

    /// Carries out the node's actions, and checks its sizes.
    fn reconcile(&mut self) {
        while let Some(action) = self.node.next_action() {
            let key = conn_of(action);
            let Some(client) = self.clients.iter_mut().find(|client| client.key == key && client.is_open)
            else {
                assert!(!matches!(action, Action::Close(_)), "closed twice: {key:?}");
                continue;
            };
            client.contract.act(action);
            client.is_open = !client.contract.is_closed;
            assert!(!matches!(action, Action::Connect(..)), "no address was to be dialled");
            let has_more = matches!(action, Action::ShutdownWrite(_)) && self.node.outbound_bytes(key) > 0;
            assert!(!has_more, "shut before all was written");
        }
        let bytes_max = self.limits.outbound_pause_bytes as usize + REPLY_SPARE_BYTES;
        for client in &mut self.clients {
            let waiting = self.node.outbound(client.key).collect::<Vec<_>>().concat();
            assert!(client.is_open || waiting.is_empty());
            assert!(waiting.len() <= bytes_max, "{} bytes wait", waiting.len());
            client.contract.check(waiting.len());
            assert!(waiting.last().is_none_or(|&byte| byte == b'\n'), "{:?}", waiting.escape_ascii());
            client.contract.is_flushing &= !waiting.is_empty();
        }
        let open = self.clients.iter().filter(|client| client.is_open).count();
        assert_eq!(self.node.conns(), open, "a connection was forgotten by one side");
    }

    /// Every client takes its replies; the node drains and must come to its end.
    fn end(&mut self) {
        self.node.drain(self.now);
        self.reconcile();
        for _ in 0..TICKS_MAX {
            if self.node.is_drained() {
                return;
            }
            let open = u8::try_from(self.clients.len()).unwrap_or(u8::MAX);
            (0..open).for_each(|at| {
                self.write(at, usize::MAX);
                self.reconcile();
            });
            self.wait(1);
            self.reconcile();
        }
        panic!("the node does not come to its end");
    }
}
