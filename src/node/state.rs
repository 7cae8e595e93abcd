//! The state of a node: its parts, each owned by a module, and the removal of connections.

use crate::base::address::is_loopback;
use crate::base::buffer::Pool;
use crate::base::rng::Rng;
use crate::base::slots::Slots;
use crate::base::time::{Instant, Now};
use crate::base::wheel::Wheel;
use crate::config::Config;
use crate::limits::{CLIENT_LOG_LINES_PER_SECOND, POOLED_BUFFER_BYTES_MAX, POOLED_BUFFERS_MAX};
use crate::node::alarm::Alarm;
use crate::node::conn::buffered::Buffered;
use crate::node::conn::connection::Conn;
use crate::node::conn::phase::CloseReason;
use crate::node::history::History;
use crate::node::ids::{AddressKey, ConnKey, ConnTag, PeerKey};
use crate::node::keyspace::Keyspace;
use crate::node::latency::Latency;
use crate::node::logins::Logins;
use crate::node::lookup::pending_request::PendingRequest;
use crate::node::metrics::{Calls, LoopTimes, Stats};
use crate::node::peer::mesh::Mesh;
use crate::node::schedule::Runnable;
use crate::node::slow_log::SlowLog;
use crate::node::tasks::Tasks;
use crate::store::{HashSecret, KeyHash, PREFETCH_MAX};
use crate::wire::handshake::{derive_hash_secret, public_hash_secret};
use crate::wire::lookahead::Lookahead;
use crate::wire::{args, resp};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// How long pooled buffers are kept while few are in use.
pub(in crate::node) const POOL_KEPT_FOR: Duration = Duration::from_secs(1);

/// An action that the shell must do for the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect to this address; then call `connected`, or `lost`.
    Connect(ConnKey, SocketAddr),
    /// Write `outbound` at the end of the iteration, and whenever the socket takes more, until it is empty.
    /// Emitted again only after that.
    Flush(ConnKey),
    /// Shut the writing side; continue reading.
    ShutdownWrite(ConnKey),
    /// Close the socket and drop the key.
    Close(ConnKey),
    /// Do not read from it until `ResumeReading`.
    StopReading(ConnKey),
    /// Read from it again: input may have arrived in between.
    ResumeReading(ConnKey),
}

/// The payload of the node's timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// A time limit of this connection.
    Conn(ConnKey),
    /// The next dial of this address, or its removal.
    AddressEntry(AddressKey),
    /// The next heartbeat of this peer, or its removal.
    Peer(PeerKey),
    /// The next retry or timeout of a lookup.
    Lookups,
    /// The batch of changes of the own filter is due.
    Publish,
    /// The answer to a wrong password on this connection.
    Refusal(ConnKey),
    /// The check whether the buffer pool is idle.
    Pool,
    /// The end of the shutdown.
    DrainEnd,
}

/// The name of the last request in RESP, if it is short, and its row in the table of commands.
#[derive(Debug, Default)]
pub(in crate::node) struct RecentName {
    /// Its bytes, and their number in the highest one; 0: none.
    pub(in crate::node) packed: u64,
    pub(in crate::node) row: usize,
}

/// What is known of a request in RESP before it is executed.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Resolved {
    /// The row of its command in the table; beyond its end if the command has a topic, long arguments or an error.
    pub(in crate::node) row: usize,
    /// The hash of its only key, if that was prefetched.
    pub(in crate::node) hash: Option<KeyHash>,
}

impl Default for Resolved {
    /// Nothing is known.
    fn default() -> Self {
        Self { row: usize::MAX, hash: None }
    }
}

/// The hashes of the keys of queued requests, the first `count`.
#[derive(Debug)]
pub(in crate::node) struct PrefetchedKeys {
    pub(in crate::node) hashes: [KeyHash; PREFETCH_MAX],
    pub(in crate::node) count: usize,
}

impl Default for PrefetchedKeys {
    fn default() -> Self {
        Self { hashes: [KeyHash(0); PREFETCH_MAX], count: 0 }
    }
}

/// Memory for parsing requests, reused.
#[derive(Debug, Default)]
pub(in crate::node) struct Scratch {
    pub(in crate::node) line: args::Scratch,
    pub(in crate::node) resp: resp::parse::Parser,
    pub(in crate::node) lookahead: Lookahead<Resolved>,
    pub(in crate::node) keys: PrefetchedKeys,
    pub(in crate::node) recent: RecentName,
}

/// The whole state of a node: a plain composition of owners, whose own fields are private to them or to their folder,
/// and of a few values that the entry points set.
#[derive(Debug)]
pub struct State {
    pub(in crate::node) config: Config,
    pub(in crate::node) started: Instant,
    pub(in crate::node) keyspace: Keyspace,
    pub(in crate::node) conns: Slots<ConnTag, Conn>,
    pub(in crate::node) pool: Pool,
    /// Fires when the pool is freed, if no buffer is in use then.
    pub(in crate::node) pool_alarm: Alarm,
    /// Bytes of buffers of all connections and tasks.
    pub(in crate::node) buffered: Buffered,
    pub(in crate::node) timers: Wheel<Timer>,
    pub(in crate::node) actions: VecDeque<Action>,
    pub(in crate::node) runnable: Runnable,
    /// All input of links that arrived before this time was processed.
    pub(in crate::node) links_current_at: Instant,
    /// `now` of the last call.
    pub(in crate::node) called_at: Instant,
    pub(in crate::node) tasks: Tasks,
    /// Connections to be reconciled before the node returns, each once.
    pub(in crate::node) dirty: VecDeque<ConnKey>,
    /// `None` while requests are parsed.
    pub(in crate::node) scratch: Option<Box<Scratch>>,
    pub(in crate::node) mesh: Mesh,
    pub(in crate::node) rng: Rng,
    pub(in crate::node) stats: Stats,
    pub(in crate::node) calls: Calls,
    pub(in crate::node) loop_times: LoopTimes,
    pub(in crate::node) latency: Latency,
    pub(in crate::node) slow_log: SlowLog,
    pub(in crate::node) history: History,
    pub(in crate::node) log_gate: LogGate,
    /// Whether it was logged that the memory of items is near its limit.
    pub(in crate::node) is_memory_full: bool,
    /// Wrong passwords, by address range.
    pub(in crate::node) logins: Logins,
    /// SHUTDOWN was received: the node drains at the end of the entry point.
    pub(in crate::node) must_drain: bool,
    /// The node shuts down.
    pub(in crate::node) is_draining: bool,
}

impl State {
    pub(in crate::node) fn new(config: Config, seed: u64, now: Now) -> Self {
        let mut rng = Rng::new(seed);
        let secret = hash_secret(&config, &mut rng);
        let mesh = Mesh::new(&config, secret.clone(), &mut rng);
        let mut keyspace = Keyspace::new(now, secret, &config.limits);
        keyspace.set_dead_time(config.mesh.dead_time());
        Self {
            started: now.mono,
            conns: Slots::new(),
            pool: Pool::new(POOLED_BUFFERS_MAX, POOLED_BUFFER_BYTES_MAX)
                .counting_in(keyspace.store().shared()),
            pool_alarm: Alarm::default(),
            buffered: Buffered::new(keyspace.store().shared()),
            keyspace,
            timers: Wheel::new(),
            actions: VecDeque::new(),
            runnable: Runnable::default(),
            links_current_at: now.mono,
            called_at: now.mono,
            tasks: Tasks::default(),
            dirty: VecDeque::new(),
            scratch: None,
            mesh,
            rng,
            stats: Stats::default(),
            calls: Calls::default(),
            loop_times: LoopTimes::new(now.mono),
            latency: Latency::default(),
            slow_log: SlowLog::default(),
            history: History::new(now.mono),
            log_gate: LogGate::default(),
            is_memory_full: false,
            logins: Logins::default(),
            must_drain: false,
            is_draining: false,
            config,
        }
    }
}

impl State {
    /// Connections that count against `clients_max`: all except links and dialled ones.
    pub(in crate::node) fn clients(&self) -> usize {
        self.conns.len() - self.mesh.conns()
    }
}

/// The hash secret, equal on all nodes of a mesh. Without a mesh secret, nodes on loopback use a public one, and
/// others a random one, since they cannot have links.
fn hash_secret(config: &Config, rng: &mut Rng) -> HashSecret {
    match &config.mesh_secret {
        Some(secret) => HashSecret::from_bytes(derive_hash_secret(secret.as_bytes())),
        None if is_loopback(config.bind) => HashSecret::from_bytes(public_hash_secret()),
        None => HashSecret::draw(rng),
    }
}

/// Marks a connection to be reconciled before the node returns.
pub(in crate::node) fn mark_dirty(state: &mut State, key: ConnKey) {
    if let Some(conn) = state.conns.get_mut(key)
        && conn.changed()
    {
        state.dirty.push_back(key);
    }
}

/// Closes a connection now: frees its buffers, removes it, emits `Close`, counts the reason. Its key, its
/// timers and its entries in queues are stale from here on.
pub(in crate::node) fn close_conn(state: &mut State, key: ConnKey, reason: CloseReason) {
    if forget_conn(state, key, reason) {
        state.actions.push_back(Action::Close(key));
    }
}

/// The same for a connection whose socket the shell has closed. False for a stale key.
pub(in crate::node) fn forget_conn(state: &mut State, key: ConnKey, reason: CloseReason) -> bool {
    let Some(mut conn) = state.conns.remove(key) else { return false };
    let long: Vec<PendingRequest> =
        conn.replies.long().filter_map(|key| state.mesh.pending.remove(key)).collect();
    long.iter().for_each(|request| conn.in_flight().end(false, request.held()));
    conn.release(&mut state.pool);
    // Requests that wait for other nodes stay until their lookups have ended.
    state.buffered.replace(conn.accounted(), conn.bytes_of_requests());
    state.buffered.replace_in_heap(conn.in_heap, 0);
    if state.pool.holds_much() {
        let at = conn.last_active().after(POOL_KEPT_FOR);
        state.pool_alarm.arm(&mut state.timers, at, Timer::Pool);
    }
    state.stats.connections_closed[reason as usize] += 1;
    state.mesh.closed(key, conn.role(), reason);
    if state.conns.is_empty() {
        state.conns.shrink();
    }
    true
}

/// Counts a connection against the reserve beyond `clients_max`; closes another one if that is full.
pub(in crate::node) fn take_spare_place(state: &mut State, key: ConnKey) {
    if let Some(last) = state.mesh.take_spare_place(&state.conns, key) {
        close_conn(state, last, CloseReason::Refused);
    }
}

/// A rate limit of the log lines that clients can cause.
#[derive(Debug, Default)]
pub(in crate::node) struct LogGate {
    second: u64,
    lines: u32,
}

impl LogGate {
    /// Whether another line may be written; counts it as dropped if not.
    pub(in crate::node) fn allows(&mut self, now: Now, stats: &mut Stats) -> bool {
        let second = now.mono.millis() / 1_000;
        if second != self.second {
            *self = Self { second, lines: 0 };
        }
        self.lines = self.lines.saturating_add(1);
        let allowed = self.lines <= CLIENT_LOG_LINES_PER_SECOND;
        stats.drop_log_lines(u64::from(!allowed));
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::{LogGate, hash_secret};
    use crate::base::rng::Rng;
    use crate::base::time::{Instant, Now};
    use crate::config::Config;
    use crate::node::metrics::Stats;

    #[test]
    fn nodes_of_one_machine_hash_alike_however_they_are_bound() {
        let hash = |bind: &str, seed| {
            let config = Config { bind: bind.parse().unwrap(), ..Config::default() };
            hash_secret(&config, &mut Rng::new(seed)).hash(b"key")
        };
        for bind in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(hash(bind, 1), hash("127.0.0.1", 2), "{bind}");
        }
        assert_ne!(hash("::", 1), hash("::", 2));
    }

    #[test]
    fn flood_of_log_lines_is_cut_and_counted() {
        let mut gate = LogGate::default();
        let mut stats = Stats::default();
        let at = |ms| Now { mono: Instant::from_millis(ms), wall_nanos: 0 };
        let passed = (0..100).filter(|_| gate.allows(at(5), &mut stats)).count();
        assert_eq!(passed, 10);
        assert_eq!(stats.log_lines_dropped, 90);
        assert!(gate.allows(at(1_000), &mut stats));
    }
}
