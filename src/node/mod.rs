//! A node without its sockets: bytes, connection keys and `now` go in; bytes and [`Action`]s come out.
//!
//! # The contract with the shell
//!
//! - After each call, drain [`Node::next_action`] before sleeping. `Flush` may wait until the end of the
//!   iteration, so that a thousand replies are one write; `StopReading` applies from the next read on.
//! - `now` is read for each read of a socket, or for all of a batch after them. Its `mono` part never decreases.
//! - While [`Node::has_work`], do not sleep: call [`Node::tick`] as often as the iteration's time allows.
//!   Otherwise sleep at most until [`Node::next_deadline`].
//! - A read fills [`Node::room`] first, which is reported by [`Node::filled`]; what does not fit goes to
//!   [`Node::received`], even if it is empty, or to [`Node::buffer`]. Using the room is optional.
//! - Data is delivered before the end of the stream: `received` comes before `read_closed`.
//! - A connection key is valid until `Close` was emitted for it or `lost` was called. Calls with a stale key have no
//!   effect and are counted.
//! - Each call is bounded: work that grows with the store or with the input is done in steps whose sizes are
//!   counts (`limits.rs`), never times.
//! - Nothing here or below reads a clock, a socket, a file, an environment variable, a thread or an unseeded
//!   random number, and no output depends on the order of a hash map. The same calls with the same seed give
//!   the same bytes, so a simulator can be the shell.
//!
//! # Reading order
//!
//! `state` (the parts), `schedule` and `sources` (what runs), `conn/` (one connection: `connection`, `reader`,
//! `serving`, `requests`, `replies`, `reconcile`, `timeouts`), `command/` (the table of commands and their handlers),
//! `keyspace` (the one write path). Then the mesh: `peer/` (`address_book`, `dialer`, `handshake`, `link`, `health`,
//! `link_output`), `digest/` (`own_filter`, `sync`), `lookup/` (`table`, `remote`, `serve`), and `versions/`: which
//! value a key has.

mod alarm;
mod audit;
mod command;
mod conn;
mod digest;
mod history;
mod http;
mod hybrid_clock;
mod ids;
mod keyspace;
mod latency;
mod logins;
mod lookup;
mod metrics;
mod peer;
mod schedule;
mod slow_log;
mod sources;
mod state;
mod tasks;
mod timers;
mod versions;

pub use command::status::{FilterState, PeerView};
pub use conn::phase::CloseReason;
pub use ids::{ConnKey, NodeId};
pub use metrics::{Kind, METRICS, Metric, SECTIONS, SUMMARY_ROWS, Stats, Unit};
pub use schedule::{BACKLOG_UNTIL, Class, EVENTS_AGAIN_AFTER, OUTPUT_UNTIL, Shares, Turns};
pub use state::Action;

use crate::base::memory::has_left;
use crate::base::prefetch::prefetch_value;
use crate::base::time::{Instant, Now};
use crate::config::Config;
use crate::filter::bloom::Bloom;
use crate::filter::changelog::Position;
use crate::filter::size::Block;
use crate::limits::BYTES_PER_STEP;
use crate::wire::frame::KeyState;
use conn::connection::Conn;
use conn::turn::Turn;
use state::{State, Timer};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Clients from which on a connection is accepted only if the system has [`BYTES_LEFT_FOR_CLIENTS`] left.
const CLIENTS_UNCHECKED: usize = 64;
const BYTES_LEFT_FOR_CLIENTS: usize = 1 << 20;

/// A node: store, connections, timers.
#[derive(Debug)]
pub struct Node {
    state: State,
}

/// The reason for refusing a connection. Displays as a sentence for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `clients_max` is reached.
    TooManyClients {
        /// The limit.
        limit: u32,
    },
    /// The node shuts down.
    Draining,
    /// The system has no memory for one more.
    NoMemory,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyClients { limit } => {
                write!(f, "client limit reached (clients_max = {limit}); try again later")
            }
            Self::Draining => f.write_str("this node is shutting down"),
            Self::NoMemory => f.write_str("the system has no memory for one more client"),
        }
    }
}

impl Node {
    /// A node without connections and keys. The same `seed` and the same calls give the same node.
    pub fn new(config: Config, seed: u64, now: Now) -> Self {
        Self { state: State::new(config, seed, now) }
    }

    /// Joins the mesh: `listen` is the address of this node, `entries` are the addresses of each configured peer,
    /// empty while its name is unresolved. Must be the first call; without it the node dials no peers.
    pub fn join(&mut self, now: Now, listen: SocketAddr, entries: &[Vec<SocketAddr>]) {
        peer::link::join(&mut self.state, now, listen, entries);
        self.conclude(now);
    }

    /// Replaces the addresses of the configured peer number `entry` by newly resolved ones.
    pub fn resolved(&mut self, now: Now, entry: usize, addrs: &[SocketAddr]) {
        peer::link::resolved(&mut self.state, now, entry, addrs);
        self.conclude(now);
    }

    /// Accepts a connection from `addr`.
    ///
    /// # Errors
    /// [`Refusal`]; the node keeps no state of the connection.
    pub fn accept(&mut self, now: Now, addr: SocketAddr) -> Result<ConnKey, Refusal> {
        let limit = self.state.config.limits.clients_max;
        if self.state.is_draining {
            Err(Refusal::Draining)
        } else if self.state.clients() >= limit as usize {
            Err(Refusal::TooManyClients { limit })
        } else if self.state.clients() >= CLIENTS_UNCHECKED && !has_left(BYTES_LEFT_FOR_CLIENTS) {
            Err(Refusal::NoMemory)
        } else {
            Ok(conn::reader::accepted(&mut self.state, now, addr))
        }
    }

    /// Accepts a connection that [`Node::accept`] has refused and that has begun a handshake: links have a reserve
    /// beyond `clients_max`.
    ///
    /// # Errors
    /// [`Refusal`] if the node shuts down.
    pub fn accept_node(&mut self, now: Now, addr: SocketAddr) -> Result<ConnKey, Refusal> {
        if self.state.is_draining {
            return Err(Refusal::Draining);
        }
        let key = conn::reader::accepted(&mut self.state, now, addr);
        state::take_spare_place(&mut self.state, key);
        self.conclude(now);
        Ok(key)
    }

    /// Notes that a connection from `addr` was refused for good.
    pub fn refused(&mut self, now: Now, addr: SocketAddr, refusal: &Refusal) {
        self.state.stats.connections_refused += 1;
        if self.state.log_gate.allows(now, &mut self.state.stats) {
            log::warn!("refused {addr}: {refusal}");
        }
    }

    /// The memory in which the rest of a large request will lie, as much as one read may take: the shell may read
    /// into its front before other memory, and notes that by [`Node::filled`]. Empty for most connections at most
    /// times.
    pub fn room(&mut self, conn: ConnKey) -> &mut [u8] {
        conn::reader::room(&mut self.state, conn)
    }

    /// Notes that `count` bytes were read into the start of [`Node::room`], without another call in between. The
    /// bytes read after them, if any, must then be passed to [`Node::received`].
    pub fn filled(&mut self, now: Now, conn: ConnKey, count: usize) {
        conn::reader::filled(&mut self.state, now, conn, count);
    }

    /// Prefetches the keys in bytes of several connections that will be passed to [`Node::received`] next, so that
    /// their cache misses overlap. Changes no state.
    pub fn prefetch<'b>(&self, inputs: impl Iterator<Item = (ConnKey, &'b [u8])>) {
        conn::reader::prefetch(&self.state, inputs);
    }

    /// Prefetches the state of a connection that will be read next. Changes nothing.
    pub fn prefetch_conn(&self, conn: ConnKey) {
        self.state.conns.get(conn).into_iter().for_each(prefetch_value);
    }

    /// Processes bytes received on a connection: executes complete requests or frames up to the budget of a turn, and
    /// buffers the rest.
    pub fn received(&mut self, now: Now, conn: ConnKey, bytes: &[u8]) {
        peer::link::wake(&mut self.state, now);
        conn::reader::received(&mut self.state, now, conn, bytes, Turn::default());
        self.conclude(now);
    }

    /// Buffers bytes received on a connection for its next turn, which [`Node::step`] gives it: input that was read
    /// together with that of others, whose requests took long.
    pub fn buffer(&mut self, now: Now, conn: ConnKey, bytes: &[u8]) {
        peer::link::wake(&mut self.state, now);
        conn::reader::received(&mut self.state, now, conn, bytes, Turn::over());
        self.conclude(now);
    }

    /// Notes that the connection of an [`Action::Connect`] is established.
    pub fn connected(&mut self, now: Now, conn: ConnKey) {
        peer::link::wake(&mut self.state, now);
        peer::handshake::connected(&mut self.state, now, conn);
        self.conclude(now);
    }

    /// Notes that the other side sends no more. Its requests are still answered.
    pub fn read_closed(&mut self, now: Now, conn: ConnKey) {
        peer::link::wake(&mut self.state, now);
        peer::link::note_end(&mut self.state, conn);
        conn::reader::read_closed(&mut self.state, now, conn);
        self.conclude(now);
        self.state.mesh.losses.set_cause(String::new());
    }

    /// Notes that a connection broke, or could not be established, with the cause for the log. Its key becomes stale;
    /// no `Close` follows.
    pub fn lost(&mut self, now: Now, conn: ConnKey, cause: &dyn fmt::Display) {
        peer::link::note_cause(&mut self.state, conn, cause);
        if !state::forget_conn(&mut self.state, conn, CloseReason::Lost) {
            self.state.stats.stale_event();
        }
        self.conclude(now);
        self.state.mesh.losses.set_cause(String::new());
    }

    /// The bytes that wait to be written to a connection, in slices of which only the last may be empty; none for
    /// a stale key.
    pub fn outbound(&self, conn: ConnKey) -> impl Iterator<Item = &[u8]> + Clone {
        self.state.conns.get(conn).into_iter().flat_map(|conn| conn.outbound.slices())
    }

    /// All of [`Node::outbound`], if it is one slice.
    #[inline]
    pub fn outbound_slice(&self, conn: ConnKey) -> Option<&[u8]> {
        self.state.conns.get(conn)?.outbound.single()
    }

    /// Bytes that wait to be written to a connection. O(1).
    pub fn outbound_bytes(&self, conn: ConnKey) -> usize {
        self.state.conns.get(conn).map_or(0, |conn| conn.outbound.len())
    }

    /// Notes that the first `count` bytes of [`Node::outbound`] were written; 0 if the socket accepts none.
    pub fn wrote(&mut self, now: Now, conn: ConnKey, count: usize) {
        peer::link::wake(&mut self.state, now);
        conn::reader::wrote(&mut self.state, now, conn, count);
        self.conclude(now);
    }

    /// Does one bounded step of each source of work of a class; returns whether any had work.
    pub fn step(&mut self, now: Now, class: Class) -> bool {
        peer::link::wake(&mut self.state, now);
        let has_worked = sources::step(&mut self.state, now, class);
        if has_worked {
            self.conclude(now);
        }
        has_worked
    }

    /// Notes that all input of links that arrived before `now` was processed. Queries to peers time out only up to
    /// that time.
    pub fn links_current(&mut self, now: Now) {
        self.state.links_current_at = now.mono;
    }

    /// Does one bounded step of each source of work, for callers without a clock, which must deliver input first.
    pub fn tick(&mut self, now: Now) {
        self.links_current(now);
        for class in [Class::Links, Class::Clients, Class::Due] {
            self.step(now, class);
        }
    }

    /// The class of a connection's input.
    pub fn class(&self, conn: ConnKey) -> Class {
        self.state.conns.get(conn).map_or(Class::Clients, Conn::class)
    }

    /// The same, and whether the connection is deep; see [`Turns`].
    pub fn queue_of(&self, conn: ConnKey) -> (Class, bool) {
        self.state.conns.get(conn).map_or((Class::Clients, false), |conn| (conn.class(), conn.is_deep()))
    }

    /// Ends each call: processes changed keys, schedules digests, reconciles connections and lost links.
    #[inline]
    fn conclude(&mut self, now: Now) {
        versions::notices::process_changes(&mut self.state, now);
        digest::sync::schedule(&mut self.state, now);
        reconcile_all(&mut self.state, now);
        if self.state.must_drain || self.state.is_draining {
            self.conclude_draining(now);
        }
    }

    /// Begins the shutdown if a call has requested it; closes links when no client is left.
    #[cold]
    fn conclude_draining(&mut self, now: Now) {
        if std::mem::take(&mut self.state.must_drain) {
            self.drain(now);
        } else if self.state.clients() == 0 && self.state.mesh.conns() > 0 {
            peer::link::leave(&mut self.state, now);
            reconcile_all(&mut self.state, now);
        }
    }

    /// Whether [`Node::tick`] has work now.
    pub fn has_work(&self, now: Now) -> bool {
        sources::has_work(&self.state, now)
    }

    /// Whether [`Node::step`] has background work now.
    pub fn has_due_work(&self, now: Now) -> bool {
        sources::has_due_work(&self.state, now)
    }

    /// Whether [`Node::step`] has work of a class with connections: input left from earlier turns.
    pub fn has_input(&self, class: Class) -> bool {
        self.state.runnable.has(class)
    }

    /// When [`Node::tick`] will have work if no event arrives before; `None`: never.
    pub fn next_deadline(&self) -> Option<Instant> {
        sources::next_deadline(&self.state)
    }

    /// The next action for the shell, in order.
    pub fn next_action(&mut self) -> Option<Action> {
        self.state.actions.pop_front()
    }

    /// Begins the shutdown: accepts no more connections, sends `:BYE` on each after its pending replies, and closes
    /// it. After `drain_ms` closes the remaining ones. O(connections).
    pub fn drain(&mut self, now: Now) {
        if self.state.is_draining {
            return;
        }
        self.state.is_draining = true;
        let limit = Duration::from_millis(u64::from(self.state.config.limits.drain_ms));
        self.state.timers.insert(now.mono.after(limit).millis_ceil(), Timer::DrainEnd);
        let keys: Vec<ConnKey> = self.state.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            conn::reconcile::reconcile(&mut self.state, now, key);
        }
        self.conclude(now);
    }

    /// Whether the shutdown is complete: draining, and no connection is left.
    pub fn is_drained(&self) -> bool {
        self.state.is_draining && self.state.conns.is_empty()
    }

    /// Applies the settings that can change while running: password and limits. Authenticated connections
    /// stay authenticated; if the password is removed, all become so. With a password and without a mesh
    /// secret, existing links are closed. O(connections).
    pub fn reconfigure(&mut self, now: Now, config: Config) {
        if config.password.is_none() {
            self.state.conns.values_mut().for_each(|conn| conn.authenticate());
        }
        command::settings::apply(&mut self.state, config.limits.clone());
        self.state.config = config;
        peer::handshake::end_unproven(&mut self.state, now);
        self.conclude(now);
    }

    /// Notes that an iteration of the event loop begins.
    pub fn iteration_begins(&mut self, now: Now) {
        conn::measure::roll_history(&mut self.state, now);
    }

    /// Reports how long the calls since the last report took, for the times of the requests that they carried out.
    pub fn took(&mut self, took: Duration) {
        conn::measure::took(&mut self.state, took);
    }

    /// Counts an iteration of the event loop that worked for `took`; time spent waiting is not included.
    pub fn iteration_done(&mut self, now: Now, took: Duration) {
        self.state.loop_times.add(now.mono, took);
        self.state.slow_log.add_iteration(&self.state.config.limits, now, took);
    }

    /// Counts an event for a closed connection that the shell dropped.
    pub fn note_stale_event(&mut self) {
        self.state.stats.stale_event();
    }

    /// Counts log lines that the shell could not write.
    pub fn note_log_lines_dropped(&mut self, lines: u64) {
        self.state.stats.drop_log_lines(lines);
    }

    /// The cost of all work so far, in keys. Simulators use it as time.
    pub fn spent(&self) -> u64 {
        self.state.runnable.spent()
    }

    /// The sources of work with their backlogs: entries, or milliseconds that the earliest timer is late.
    pub fn backlogs(&self, now: Now) -> impl Iterator<Item = (&'static str, u64)> {
        sources::backlogs(&self.state, now)
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.state.stats
    }

    /// The known peers and addresses, linked ones first.
    pub fn peers(&self, now: Now) -> Vec<PeerView> {
        command::status::peers_known(&self.state, now)
    }

    /// The id of this node: drawn at its start, and again if another node has the same.
    pub fn id(&self) -> NodeId {
        self.state.mesh.id()
    }

    /// Whether each known address was tried, and the filter of each linked peer is known.
    pub fn is_ready(&self) -> bool {
        command::status::readiness(&self.state).is_ready()
    }

    /// The filter of this node's keys.
    pub fn own_filter(&self) -> &Bloom {
        self.state.keyspace.own_filter()
    }

    /// The end of this node's changelog.
    pub fn own_position(&self) -> Position {
        self.state.keyspace.changelog().head()
    }

    /// A block of a peer's known filter; `None` while it is unknown or being resized.
    pub fn peer_block(&self, peer: NodeId, number: usize) -> Option<Block> {
        let mesh = &self.state.mesh;
        let peer = mesh.peers.by_id(peer).and_then(|key| mesh.peers.get(key))?;
        mesh.filters.block(peer.filter(), number)
    }

    /// Whether a peer's known filter claims a hash; false while it is unknown.
    pub fn peer_claims(&self, peer: NodeId, hash: u64) -> bool {
        let mesh = &self.state.mesh;
        let peer = mesh.peers.by_id(peer).and_then(|key| mesh.peers.get(key));
        peer.is_some_and(|peer| mesh.filters.claims(peer.filter(), hash))
    }

    /// The version of a key on this node, and whether it is that of a value, not of a deletion.
    pub fn version_of(&self, now: Now, key: &[u8]) -> Option<(u64, bool)> {
        let keyspace = &self.state.keyspace;
        let (version, state) = keyspace.version_of(now, keyspace.key(key))?;
        Some((version.0, state == KeyState::Held))
    }

    /// The number of lookups in flight.
    pub fn lookups(&self) -> usize {
        self.state.mesh.lookups.len()
    }

    /// Checks the consistency of all counts, for tests. Panics on an inconsistency. O(everything except keys).
    pub fn audit(&self) {
        audit::audit(&self.state);
    }

    /// The same for the store, key by key.
    pub fn audit_store(&self) {
        self.state.keyspace.store().audit();
    }

    /// Masks all hashes, so that keys collide. For tests, before the first key and link.
    pub fn mask_hashes(&mut self, mask: u64) {
        self.state.keyspace.mask_hashes(mask);
    }

    /// The number of connections.
    pub fn conns(&self) -> usize {
        self.state.conns.len()
    }
}

/// Reconciles all dirty connections and lost links, until none is left.
#[inline]
fn reconcile_all(state: &mut State, now: Now) {
    if !state.dirty.is_empty() || state.mesh.must_reconcile() {
        reconcile_changed(state, now);
    }
}

#[inline(never)]
fn reconcile_changed(state: &mut State, now: Now) {
    let mut budget = BYTES_PER_STEP;
    loop {
        if let Some(key) = state.dirty.pop_front() {
            conn::reconcile::reconcile(state, now, key);
        } else if !peer::link::reconcile_losses(state, now)
            && !conn::pending::reply_next(state, now, &mut budget)
        {
            let cost = command::queued::run(state, now);
            state.runnable.has_stepped(cost);
            if cost == 0 {
                return;
            }
        }
    }
}
