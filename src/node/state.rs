//! All that a node is, in one place, and what its parts share. The logic stands in the files above,
//! as functions over `&mut State`.

use crate::base::address::is_loopback;
use crate::base::buffer::Pool;
use crate::base::rng::Rng;
use crate::base::slots::Slots;
use crate::base::time::{Instant, Now};
use crate::base::wheel::Wheel;
use crate::config::Config;
use crate::limits::{CLIENT_LOG_LINES_PER_SECOND, POOLED_BUFFER_BYTES_MAX, POOLED_BUFFERS_MAX};
use crate::node::conn::connection::{CloseReason, Conn, Role};
use crate::node::ids::{AddressKey, ConnKey, ConnTag, PeerKey};
use crate::node::keyspace::Keyspace;
use crate::node::metrics::Stats;
use crate::node::peer::mesh::Mesh;
use crate::node::tasks::Tasks;
use crate::store::HashSecret;
use crate::wire::handshake::{HASH_CHECK_TEXT, derive_hash_secret, public_hash_secret};
use crate::wire::request::Parser;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// What the node wants the shell to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect to there, and say `connected` when that is done, or `lost` when it is not.
    Connect(ConnKey, SocketAddr),
    /// Bytes wait in `outbound`: write them at the end of the turn, and whenever the socket takes more,
    /// until none is left. Said again only after that.
    Flush(ConnKey),
    /// Shut the writing side; go on reading.
    ShutdownWrite(ConnKey),
    /// Close the socket and forget the key.
    Close(ConnKey),
    /// Read no more from it until told otherwise.
    StopReading(ConnKey),
    /// Read on: something may have come in between.
    ResumeReading(ConnKey),
}

/// What a timer of the node is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Whether this connection is keeping us waiting.
    Conn(ConnKey),
    /// When this address is looked at next.
    AddressEntry(AddressKey),
    /// The next beat of this peer, or the end of what is remembered of it.
    Peer(PeerKey),
    /// The next lookup that is to be looked after.
    Lookups,
    /// The end of the time in which changes of our filter gather.
    Tell,
    /// The end of the time in which connections may take their last replies.
    DrainEnd,
}

/// The whole state of a node.
#[derive(Debug)]
pub struct State {
    pub(in crate::node) config: Config,
    pub(in crate::node) started: Instant,
    pub(in crate::node) keyspace: Keyspace,
    pub(in crate::node) conns: Slots<ConnTag, Conn>,
    pub(in crate::node) pool: Pool,
    /// Bytes of buffers of all connections.
    pub(in crate::node) buffered: usize,
    pub(in crate::node) timers: Wheel<Timer>,
    pub(in crate::node) actions: VecDeque<Action>,
    /// Connections with requests left over from an earlier step, each once.
    pub(in crate::node) runnable: VecDeque<ConnKey>,
    pub(in crate::node) tasks: Tasks,
    /// Connections to be settled before the node returns, each once.
    pub(in crate::node) dirty: VecDeque<ConnKey>,
    pub(in crate::node) parser: Parser,
    pub(in crate::node) mesh: Mesh,
    pub(in crate::node) rng: Rng,
    pub(in crate::node) stats: Stats,
    pub(in crate::node) log_gate: LogGate,
    /// The node takes no more connections and ends those it has.
    pub(in crate::node) is_draining: bool,
}

impl State {
    pub(in crate::node) fn new(config: Config, seed: u64, now: Now) -> Self {
        let mut rng = Rng::new(seed);
        let secret = hash_secret(&config, &mut rng);
        let mut mesh = Mesh::new(&config, &mut rng);
        mesh.hash_check = secret.hash(HASH_CHECK_TEXT).0;
        Self {
            started: now.mono,
            keyspace: Keyspace::new(now, secret, config.limits.memory_max),
            conns: Slots::new(),
            pool: Pool::new(POOLED_BUFFERS_MAX, POOLED_BUFFER_BYTES_MAX),
            buffered: 0,
            timers: Wheel::new(),
            actions: VecDeque::new(),
            runnable: VecDeque::new(),
            tasks: Tasks::default(),
            dirty: VecDeque::new(),
            parser: Parser::default(),
            mesh,
            rng,
            stats: Stats::default(),
            log_gate: LogGate::default(),
            is_draining: false,
            config,
        }
    }
}

impl State {
    /// Connections of clients, as far as is known, and of nodes that are told goodbye: those are no peers any
    /// more, and nothing else would bound how many there are.
    pub(in crate::node) fn clients(&self) -> usize {
        self.conns.len() - self.mesh.conns
    }
}

/// What keys are hashed with: the same in all of a mesh. Without a secret of the mesh its nodes can only be
/// on this machine, and need not hide anything from each other; a node that others can reach has no mesh
/// then, and draws its own.
fn hash_secret(config: &Config, rng: &mut Rng) -> HashSecret {
    match &config.mesh_secret {
        Some(secret) => HashSecret::from_bytes(derive_hash_secret(secret.as_bytes())),
        None if is_loopback(config.bind) => HashSecret::from_bytes(public_hash_secret()),
        None => HashSecret::draw(rng),
    }
}

/// Has a connection settled before the node returns.
pub(in crate::node) fn mark_dirty(state: &mut State, key: ConnKey) {
    if let Some(conn) = state.conns.get_mut(key)
        && !std::mem::replace(&mut conn.is_dirty, true)
    {
        state.dirty.push_back(key);
    }
}

/// Ends a connection now: gives back its buffers, forgets it, tells the shell, counts the reason. Its
/// key is stale from here on, and so are its timers and its places in queues.
pub(in crate::node) fn close_conn(state: &mut State, key: ConnKey, reason: CloseReason) {
    if forget_conn(state, key, reason) {
        state.actions.push_back(Action::Close(key));
    }
}

/// The same for a connection whose socket the shell has given up already.
pub(in crate::node) fn forget_conn(state: &mut State, key: ConnKey, reason: CloseReason) -> bool {
    let Some(mut conn) = state.conns.remove(key) else { return false };
    conn.inbound.release(&mut state.pool);
    conn.outbound.release(&mut state.pool);
    if let Some(mut queues) = conn.link_queues.take() {
        queues.release(&mut state.pool);
    }
    conn.replies.release(&mut state.pool);
    state.buffered -= conn.accounted;
    state.stats.connections_closed[reason as usize] += 1;
    state.mesh.conns -= usize::from(conn.is_of_mesh());
    match conn.role {
        Role::OutboundHandshake(dialling) => state.mesh.lost_dials.push_back((dialling.contact, key)),
        Role::Link(peer) => state.mesh.lost_links.push_back((peer, key)),
        Role::Client | Role::Parted => {}
    }
    if state.conns.is_empty() {
        state.conns.shrink();
    }
    true
}

/// Lets through so many log lines a second about what clients cause.
#[derive(Debug, Default)]
pub(in crate::node) struct LogGate {
    second: u64,
    lines: u32,
}

impl LogGate {
    /// Whether one more line may be written; if not, it is counted.
    pub(in crate::node) fn allows(&mut self, now: Now, stats: &mut Stats) -> bool {
        let second = now.mono.millis() / 1_000;
        if second != self.second {
            *self = Self { second, lines: 0 };
        }
        self.lines = self.lines.saturating_add(1);
        let allowed = self.lines <= CLIENT_LOG_LINES_PER_SECOND;
        stats.log_lines_dropped += u64::from(!allowed);
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
        let at = |ms| Now { mono: Instant::from_millis(ms), wall_ms: 0 };
        let passed = (0..100).filter(|_| gate.allows(at(5), &mut stats)).count();
        assert_eq!(passed, 10);
        assert_eq!(stats.log_lines_dropped, 90);
        assert!(gate.allows(at(1_000), &mut stats));
    }
}
