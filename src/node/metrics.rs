//! All metrics of a node: one table of rows, and the counters that some of them read.
//!
//! STATS and `docs/stats.md` are written from [`METRICS`]. A new metric is a field of [`Stats`] (a counter) or of
//! [`Snapshot`] (any other) and a row. Names are stable: neither name nor meaning ever changes.

use crate::base::histogram::Histogram;
use crate::base::time::Instant;
use crate::limits::Limits;
use crate::node::conn::phase::CloseReason;
use crate::node::ids::NodeId;
use crate::node::keyspace::Keyspace;
use std::fmt;
use std::time::Duration;

/// Commands whose calls are counted, by index in the command table.
pub(in crate::node) const COMMANDS_MAX: usize = 224;

/// Calls per command, by index in the command table.
#[derive(Debug, Clone)]
pub(in crate::node) struct Calls([u64; COMMANDS_MAX]);

impl Default for Calls {
    fn default() -> Self {
        Self([0; COMMANDS_MAX])
    }
}

impl Calls {
    /// Counts a call of the command at this place.
    #[inline]
    pub(in crate::node) fn count(&mut self, command: usize) {
        self.0[command] += 1;
    }

    /// The calls of each command, in the order of the table.
    pub(in crate::node) fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }
}

/// Counters since the start. The row of the same name in [`METRICS`] describes each.
#[allow(missing_docs, reason = "the table documents them")]
#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub connections_accepted: u64,
    pub connections_refused: u64,
    /// By [`CloseReason`].
    pub connections_closed: [u64; CloseReason::COUNT],
    pub requests: u64,
    pub http_requests: u64,
    pub request_errors: u64,
    pub auth_failures: u64,
    pub gets: u64,
    pub hits: u64,
    pub misses: u64,
    pub stale_events: u64,
    pub log_lines_dropped: u64,
    pub lookups: u64,
    pub lookup_hits: u64,
    pub lookup_misses: u64,
    pub lookup_timeouts: u64,
    pub lookups_coalesced: u64,
    pub lookups_unwanted: u64,
    pub forwarded: u64,
    pub forwarded_unknown: u64,
    pub queries: u64,
    pub query_hits: u64,
    pub query_misses: u64,
    pub query_false_positives: u64,
    pub queries_lost: u64,
    pub links_made: u64,
    pub invalidations_sent: u64,
    pub invalidations_received: u64,
    pub conflicts_settled: u64,
    pub values_dropped: u64,
    pub discarded_dropped: u64,
    pub queries_abandoned: u64,
    pub probes: u64,
    pub answers_late: u64,
    pub answers_mismatched: u64,
    pub circuits_opened: u64,
    pub peer_queries: u64,
    pub peer_queries_dropped: u64,
    pub peer_queries_timed_out: u64,
    pub heartbeats_unanswered: u64,
    pub resyncs_dropped: u64,
    pub digest_received_bytes: u64,
    pub digest_sent_bytes: u64,
    pub digest_messages_dropped: u64,
    pub digest_messages_refused: u64,
    pub frames: u64,
    pub frames_broken: u64,
    pub frames_oversized: u64,
    pub addresses_refused: u64,
    pub handshakes_refused: u64,
}

/// Counters that several files count; every other counter is counted in one file.
impl Stats {
    /// Counts a received request.
    #[inline]
    pub(in crate::node) const fn request(&mut self) {
        self.requests += 1;
    }

    /// Counts a request that is answered with an error.
    pub(in crate::node) const fn request_error(&mut self) {
        self.request_errors += 1;
    }

    /// Counts a request that was received and refused before execution.
    pub(in crate::node) const fn request_refused(&mut self) {
        self.request();
        self.request_error();
    }

    /// Counts keys that a request reads.
    #[inline]
    pub(in crate::node) const fn keys_read(&mut self, keys: usize) {
        self.gets += keys as u64;
    }

    /// Counts keys that were found, and keys that were not.
    #[inline]
    pub(in crate::node) const fn keys_found(&mut self, hits: usize, misses: usize) {
        self.hits += hits as u64;
        self.misses += misses as u64;
    }

    /// Resets the counts of requests and keys. Keys in open lookups are counted when these end.
    pub(in crate::node) const fn reset(&mut self) {
        self.gets -= self.hits + self.misses;
        (self.hits, self.misses, self.requests, self.request_errors) = (0, 0, 0, 0);
    }

    /// Counts a wrong password.
    pub(in crate::node) const fn auth_failure(&mut self) {
        self.auth_failures += 1;
    }

    /// Counts an event for a closed connection.
    pub(in crate::node) const fn stale_event(&mut self) {
        self.stale_events += 1;
    }

    /// Counts dropped log lines.
    pub(in crate::node) const fn drop_log_lines(&mut self, lines: u64) {
        self.log_lines_dropped += lines;
    }

    /// Counts an answer to no query in flight.
    pub(in crate::node) const fn answer_late(&mut self) {
        self.answers_late += 1;
    }

    /// Counts values dropped because of newer versions on peers.
    pub(in crate::node) const fn drop_values(&mut self, values: u64) {
        self.values_dropped += values;
    }
}

/// Upper bounds of the published buckets, which are bounds of buckets of [`Histogram`]: 0.5 µs to 17 s.
pub(in crate::node) const TIME_LIMITS: [Duration; 26] = {
    let mut limits = [Duration::ZERO; 26];
    let mut at = 0;
    while at < limits.len() {
        limits[at] = Duration::from_nanos(512 << at);
        at += 1;
    }
    limits
};

/// The least time over which the busy ratio is computed.
const BUSY_WINDOW: Duration = Duration::from_secs(10);

/// Durations of the iterations of the event loop without waiting, as reported by the shell.
#[derive(Debug)]
pub(in crate::node) struct LoopTimes {
    times: Histogram,
    max: Duration,
    /// The window that is being filled: its beginning, and the time spent in it.
    window: (Instant, Duration),
    /// The previous window: its length, and its busy time.
    last: (Duration, Duration),
}

impl LoopTimes {
    pub(in crate::node) fn new(now: Instant) -> Self {
        Self {
            times: Histogram::default(),
            max: Duration::ZERO,
            window: (now, Duration::ZERO),
            last: (Duration::ZERO, Duration::ZERO),
        }
    }

    pub(in crate::node) const fn times(&self) -> &Histogram {
        &self.times
    }

    /// Forgets the longest iteration.
    pub(in crate::node) const fn reset_max(&mut self) {
        self.max = Duration::ZERO;
    }

    /// Adds an iteration that began at `now`.
    pub(in crate::node) fn add(&mut self, now: Instant, took: Duration) {
        self.times.add(nanos(took), 1);
        self.max = self.max.max(took);
        let length = now.since(self.window.0);
        if length >= BUSY_WINDOW {
            self.last = (length, self.window.1);
            self.window = (now, Duration::ZERO);
        }
        self.window.1 += took;
    }

    /// The busy ratio of the loop over the current and the previous window.
    pub(in crate::node) fn busy(&self, now: Instant) -> f64 {
        let length = self.last.0 + now.since(self.window.0);
        let spent = self.last.1 + self.window.1;
        if length.is_zero() { 0.0 } else { (spent.as_secs_f64() / length.as_secs_f64()).min(1.0) }
    }
}

/// A duration in nanoseconds.
pub(in crate::node) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The data that the rows read: the counters, and the state of the node at one time.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Snapshot<'a> {
    pub(in crate::node) stats: &'a Stats,
    pub(in crate::node) keyspace: &'a Keyspace,
    pub(in crate::node) limits: &'a Limits,
    pub(in crate::node) uptime: Duration,
    pub(in crate::node) clients: usize,
    pub(in crate::node) buffers_bytes: usize,
    pub(in crate::node) is_ready: bool,
    pub(in crate::node) is_mesh_complete: bool,
    pub(in crate::node) peers_linked: usize,
    pub(in crate::node) clock_ahead_ms: u64,
    /// Configured peers: linked ones, and all.
    pub(in crate::node) configured: (usize, usize),
    pub(in crate::node) peers_backup: usize,
    pub(in crate::node) lookups_in_flight: usize,
    pub(in crate::node) peer_filters_bytes: u64,
    pub(in crate::node) filter_fill: f64,
    pub(in crate::node) filter_bits: u64,
    pub(in crate::node) addresses_dropped: u64,
    pub(in crate::node) node_id: NodeId,
    pub(in crate::node) loop_times: &'a LoopTimes,
    pub(in crate::node) loop_busy: f64,
    pub(in crate::node) slow_requests: u64,
    pub(in crate::node) recent: Recent,
}

/// Quantiles 0.5, 0.99 and 0.999 of the latency of the last minute.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Recent {
    pub(in crate::node) p50: Duration,
    pub(in crate::node) p99: Duration,
    pub(in crate::node) p999: Duration,
}

/// The behaviour of a metric over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Increases from 0 at the start of the node, and never decreases.
    Counter,
    /// The current state, which can increase and decrease.
    Gauge,
    /// A word or a name.
    Text,
}

/// The unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A count of the things named by the metric.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Microseconds.
    Microseconds,
    /// A part of one: 0 to 1.
    Ratio,
    /// `yes` or `no`.
    Flag,
    /// None: a text.
    None,
}

/// The value of a metric. Displays as in a STATS reply.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::node) enum Value {
    Number(u64),
    Ratio(f64),
    Flag(bool),
    Text(&'static str),
    Node(NodeId),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Ratio(ratio) => write!(f, "{ratio:.4}"),
            Self::Flag(flag) => f.write_str(if *flag { "yes" } else { "no" }),
            Self::Text(text) => f.write_str(text),
            Self::Node(id) => id.fmt(f),
        }
    }
}

/// One row of the table.
#[derive(Debug)]
pub struct Metric {
    /// Its name in STATS: letters, digits and underscores.
    pub name: &'static str,
    /// One of [`SECTIONS`].
    pub section: &'static str,
    /// Its behaviour over time.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// One sentence.
    pub help: &'static str,
    read: fn(&Snapshot<'_>) -> Value,
}

impl Metric {
    /// The rows selected by a word: `summary`, a section, or the name of one row; none for any other word.
    pub fn named(word: &[u8]) -> impl Iterator<Item = &'static Self> {
        let first = if word == b"summary" { SUMMARY_ROWS } else { 0 };
        let is_meant = move |at: usize, row: &Self| {
            at < first || row.section.as_bytes() == word || row.name.as_bytes() == word
        };
        METRICS.iter().enumerate().filter(move |&(at, row)| is_meant(at, row)).map(|(_, row)| row)
    }

    /// The current value.
    pub(in crate::node) fn read(&self, snapshot: &Snapshot<'_>) -> Value {
        (self.read)(snapshot)
    }
}

const fn row(
    section: &'static str,
    name: &'static str,
    (kind, unit): (Kind, Unit),
    help: &'static str,
    read: fn(&Snapshot<'_>) -> Value,
) -> Metric {
    Metric { name, section, kind, unit, help, read }
}

const COUNTER: (Kind, Unit) = (Kind::Counter, Unit::Count);
const COUNTER_BYTES: (Kind, Unit) = (Kind::Counter, Unit::Bytes);
const GAUGE: (Kind, Unit) = (Kind::Gauge, Unit::Count);
const BYTES: (Kind, Unit) = (Kind::Gauge, Unit::Bytes);
const MICROS: (Kind, Unit) = (Kind::Gauge, Unit::Microseconds);
const FLAG: (Kind, Unit) = (Kind::Gauge, Unit::Flag);
const TEXT: (Kind, Unit) = (Kind::Text, Unit::None);

const SERVER: &str = "server";
const CONNECTIONS: &str = "connections";
const MEMORY: &str = "memory";
const KEYSPACE: &str = "keyspace";
const MESH: &str = "mesh";
const LOOKUP: &str = "lookup";
const FILTER: &str = "filter";

/// The number of rows of the summary: the first ones of [`METRICS`].
pub const SUMMARY_ROWS: usize = 8;

/// The sections, in the order of the documentation.
pub const SECTIONS: [&str; 7] = [SERVER, CONNECTIONS, MEMORY, KEYSPACE, MESH, LOOKUP, FILTER];

/// All metrics, in the order of STATS.
#[rustfmt::skip]
pub static METRICS: [Metric; 110] = [
    row(SERVER, "ready", FLAG, "Whether every configured peer was tried and the filter of every linked peer is known; `no` while shutting down.", |s| Value::Flag(s.is_ready)),
    row(CONNECTIONS, "requests", COUNTER, "Requests of clients, those answered with an error included.", |s| Value::Number(s.stats.requests)),
    row(CONNECTIONS, "request_errors", COUNTER, "Requests answered with an error.", |s| Value::Number(s.stats.request_errors)),
    row(KEYSPACE, "keys", GAUGE, "Keys stored on this node.", |s| Value::Number(s.keyspace.store().len() as u64)),
    row(KEYSPACE, "hits", COUNTER, "Keys read by clients and found, here or on a peer.", |s| Value::Number(s.stats.hits)),
    row(KEYSPACE, "misses", COUNTER, "Keys read by clients and not found.", |s| Value::Number(s.stats.misses)),
    row(MEMORY, "memory_bytes", BYTES, "Memory held by items, index, timers, own filter and changelog; bounded by memory_max.", |s| Value::Number(s.keyspace.store().memory_bytes())),
    row(MESH, "peers_linked", GAUGE, "Peers with a link.", |s| Value::Number(s.peers_linked as u64)),
    row(MESH, "links_made", COUNTER, "Links made: if it grows while the nodes stay the same, links break.", |s| Value::Number(s.stats.links_made)),

    row(SERVER, "version", TEXT, "Version of the program.", |_| Value::Text(env!("CARGO_PKG_VERSION"))),
    row(SERVER, "node_id", TEXT, "Identity of this node, new at each start.", |s| Value::Node(s.node_id)),
    row(SERVER, "uptime_seconds", (Kind::Gauge, Unit::Seconds), "Time since the start.", |s| Value::Number(s.uptime.as_secs())),
    row(SERVER, "iterations", COUNTER, "Iterations of the event loop.", |s| Value::Number(s.loop_times.times.count())),
    row(SERVER, "iteration_max_us", MICROS, "Longest iteration since the start or CONFIG RESETSTAT, waiting not counted.", |s| micros(s.loop_times.max)),
    row(SERVER, "loop_busy_ratio", (Kind::Gauge, Unit::Ratio), "Share of the last 10 to 20 seconds that the event loop was busy.", |s| Value::Ratio(s.loop_busy)),
    row(SERVER, "stale_events", COUNTER, "Events for connections that were closed already; they are ignored.", |s| Value::Number(s.stats.stale_events)),
    row(SERVER, "log_lines_dropped", COUNTER, "Log lines left out: clients caused too many per second, or standard error did not take them.", |s| Value::Number(s.stats.log_lines_dropped)),

    row(CONNECTIONS, "clients", GAUGE, "Connected clients; bounded by clients_max.", |s| Value::Number(s.clients as u64)),
    row(CONNECTIONS, "clients_max", GAUGE, "The setting clients_max.", |s| Value::Number(s.limits.clients_max.into())),
    row(CONNECTIONS, "connections_accepted", COUNTER, "Connections accepted, those of peers included.", |s| Value::Number(s.stats.connections_accepted)),
    row(CONNECTIONS, "connections_refused", COUNTER, "Clients refused: clients_max was reached, or the node was shutting down.", |s| Value::Number(s.stats.connections_refused)),
    row(CONNECTIONS, "connections_closed_done", COUNTER, "Connections closed by the other side, after everything it requested was answered.", |s| closed(s, CloseReason::Done)),
    row(CONNECTIONS, "connections_closed_lost", COUNTER, "Connections broken, or reset by the other side.", |s| closed(s, CloseReason::Lost)),
    row(CONNECTIONS, "connections_closed_quit", COUNTER, "Connections ended by QUIT or REQUEST disconnect.", |s| closed(s, CloseReason::Quit)),
    row(CONNECTIONS, "connections_closed_protocol", COUNTER, "Connections closed because of input that is not a request.", |s| closed(s, CloseReason::Protocol)),
    row(CONNECTIONS, "connections_closed_browser", COUNTER, "Connections closed because a browser sent an HTTP request.", |s| closed(s, CloseReason::Browser)),
    row(CONNECTIONS, "connections_closed_idle", COUNTER, "Connections closed because no byte came within first_byte_ms, or none for request_idle_ms within a request.", |s| closed(s, CloseReason::Idle)),
    row(CONNECTIONS, "connections_closed_slow_reader", COUNTER, "Connections closed because they took none of what waited for them for slow_reader_ms.", |s| closed(s, CloseReason::SlowReader)),
    row(CONNECTIONS, "connections_closed_buffers_full", COUNTER, "Connections closed because all buffers passed buffers_max and this one had made no progress for longest.", |s| closed(s, CloseReason::BuffersFull)),
    row(CONNECTIONS, "connections_closed_unauthenticated", COUNTER, "Connections closed because they took too long, or too much output, without giving the password.", |s| closed(s, CloseReason::Unauthenticated)),
    row(CONNECTIONS, "connections_closed_killed", COUNTER, "Connections closed by CLIENT KILL.", |s| closed(s, CloseReason::Killed)),
    row(CONNECTIONS, "connections_closed_drained", COUNTER, "Connections closed at shutdown.", |s| closed(s, CloseReason::Drained)),
    row(CONNECTIONS, "connections_closed_dial_failed", COUNTER, "Connections to a peer that could not be made in time.", |s| closed(s, CloseReason::DialFailed)),
    row(CONNECTIONS, "connections_closed_refused_peer", COUNTER, "Connections closed because one side did not accept the other as a peer.", |s| closed(s, CloseReason::Refused)),
    row(CONNECTIONS, "connections_closed_duplicate", COUNTER, "Connections closed because there was another link to the same peer.", |s| closed(s, CloseReason::Duplicate)),
    row(CONNECTIONS, "connections_closed_peer_silent", COUNTER, "Links closed after three missed heartbeats.", |s| closed(s, CloseReason::PeerSilent)),
    row(CONNECTIONS, "connections_closed_peer_left", COUNTER, "Links closed by the peer.", |s| closed(s, CloseReason::PeerLeft)),
    row(CONNECTIONS, "latency_p50_us", MICROS, "Time that half of the requests of the last minute took at most, from their arrival to the last byte of the reply.", |s| micros(s.recent.p50)),
    row(CONNECTIONS, "latency_p99_us", MICROS, "The same of 99 % of them.", |s| micros(s.recent.p99)),
    row(CONNECTIONS, "latency_p999_us", MICROS, "The same of 99.9 % of them.", |s| micros(s.recent.p999)),
    row(CONNECTIONS, "slow_requests", COUNTER, "Requests that took slow_request_us or longer; those that arrived together are counted once.", |s| Value::Number(s.slow_requests)),
    row(CONNECTIONS, "http_requests", COUNTER, "Requests in HTTP; they are not among requests.", |s| Value::Number(s.stats.http_requests)),
    row(CONNECTIONS, "auth_failures", COUNTER, "Wrong passwords.", |s| Value::Number(s.stats.auth_failures)),

    row(MEMORY, "memory_live_bytes", BYTES, "Of memory_bytes, what stored items take; the rest is free, or waits to be returned to the system.", |s| Value::Number(s.keyspace.store().live_bytes())),
    row(MEMORY, "memory_pages_bytes", BYTES, "Of memory_bytes: pages of items up to 16 KiB.", |s| Value::Number(s.keyspace.store().memory().pages)),
    row(MEMORY, "memory_large_objects_bytes", BYTES, "Of memory_bytes: larger items.", |s| Value::Number(s.keyspace.store().memory().large_objects)),
    row(MEMORY, "memory_index_bytes", BYTES, "Of memory_bytes: the index.", |s| Value::Number(s.keyspace.store().memory().index)),
    row(MEMORY, "memory_timers_bytes", BYTES, "Of memory_bytes: timers of keys with a TTL.", |s| Value::Number(s.keyspace.store().memory().timers)),
    row(MEMORY, "memory_eviction_bytes", BYTES, "Of memory_bytes: the queues of eviction.", |s| Value::Number(s.keyspace.store().memory().queues)),
    row(MEMORY, "memory_filter_bytes", BYTES, "Of memory_bytes: own filter and changelog, tombstones, the history of requests.", |s| Value::Number(s.keyspace.store().memory().reserved)),
    row(MEMORY, "memory_freeing_bytes", BYTES, "Of memory_bytes: tables that are being freed in steps.", |s| Value::Number(s.keyspace.store().memory().deferred_free)),
    row(MEMORY, "memory_max", BYTES, "The setting memory_max; 0: no limit.", |s| Value::Number(s.limits.memory_max)),
    row(MEMORY, "buffers_bytes", BYTES, "Memory held by the buffers of all connections; bounded by buffers_max.", |s| Value::Number(s.buffers_bytes as u64)),
    row(MEMORY, "buffers_max", BYTES, "The setting buffers_max.", |s| Value::Number(s.limits.buffers_max)),

    row(KEYSPACE, "gets", COUNTER, "Keys read by clients: hits, misses, and those being looked up on peers.", |s| Value::Number(s.stats.gets)),
    row(KEYSPACE, "sets", COUNTER, "Keys set by clients.", |s| Value::Number(s.keyspace.sets())),
    row(KEYSPACE, "deletes", COUNTER, "Keys deleted by clients.", |s| Value::Number(s.keyspace.deletes())),
    row(KEYSPACE, "evictions", COUNTER, "Keys evicted because memory_max was reached.", |s| Value::Number(s.keyspace.store().evicted())),
    row(KEYSPACE, "expirations", COUNTER, "Keys removed because they expired.", |s| Value::Number(s.keyspace.store().expired())),

    row(MESH, "peers_configured", GAUGE, "Entries of remote_peers, without this node itself.", |s| Value::Number(s.configured.1 as u64)),
    row(MESH, "peers_configured_linked", GAUGE, "Of these, with a link.", |s| Value::Number(s.configured.0 as u64)),
    row(MESH, "peers_backup", GAUGE, "Known addresses of other nodes without a link.", |s| Value::Number(s.peers_backup as u64)),
    row(MESH, "mesh_complete", FLAG, "Whether every known node is linked.", |s| Value::Flag(s.is_mesh_complete)),
    row(MESH, "handshakes_refused", COUNTER, "Handshakes refused by this node.", |s| Value::Number(s.stats.handshakes_refused)),
    row(MESH, "addresses_refused", COUNTER, "Addresses of nodes not taken from peers: not acceptable from that peer, or too many in one message.", |s| Value::Number(s.stats.addresses_refused)),
    row(MESH, "addresses_dropped", COUNTER, "Addresses of nodes not taken because known_peers_max were known.", |s| Value::Number(s.addresses_dropped)),
    row(MESH, "heartbeats_unanswered", COUNTER, "Heartbeats of peers not answered because too much output waited for the peer.", |s| Value::Number(s.stats.heartbeats_unanswered)),
    row(MESH, "resyncs_dropped", COUNTER, "Requests for a digest from its beginning, or from a position, that came or would have been sent faster than they may.", |s| Value::Number(s.stats.resyncs_dropped)),
    row(MESH, "frames", COUNTER, "Frames received from peers.", |s| Value::Number(s.stats.frames)),
    row(MESH, "invalidations_sent", COUNTER, "Notices of versions sent to peers that may hold an older value, and answers to such notices.", |s| Value::Number(s.stats.invalidations_sent)),
    row(MESH, "invalidations_received", COUNTER, "The same received from peers.", |s| Value::Number(s.stats.invalidations_received)),
    row(MESH, "conflicts_settled", COUNTER, "Versions of peers, in notices and in answers to commands, of keys with another version here: the later one stays.", |s| Value::Number(s.stats.conflicts_settled)),
    row(MESH, "values_dropped", COUNTER, "Values dropped because a peer has a newer version, or knows of a deletion.", |s| Value::Number(s.stats.values_dropped)),
    row(MESH, "discarded_dropped", COUNTER, "Of these, those that match discarded deletions of a peer.", |s| Value::Number(s.stats.discarded_dropped)),
    row(MESH, "tombstones", GAUGE, "Deleted keys that are remembered until every other node has acknowledged it; bounded by tombstones_max.", |s| Value::Number(s.keyspace.tombstones().len() as u64)),
    row(MESH, "tombstones_lost", COUNTER, "Deletions that were forgotten too early, since too many were to be remembered: an older value may come back.", |s| Value::Number(s.keyspace.tombstones().lost())),
    row(MESH, "clock_ahead_ms", (Kind::Gauge, Unit::Count), "Milliseconds by which the wall clock is ahead of those of most other nodes that reported theirs within five minutes; above 500 it is refused as a peer.", |s| Value::Number(s.clock_ahead_ms)),
    row(MESH, "frames_broken", COUNTER, "Links closed because of an invalid frame.", |s| Value::Number(s.stats.frames_broken)),
    row(MESH, "frames_oversized", COUNTER, "Frames skipped because their key or value is longer than key_bytes_max or value_bytes_max.", |s| Value::Number(s.stats.frames_oversized)),
    row(MESH, "peer_queries", COUNTER, "Queries received from peers.", |s| Value::Number(s.stats.peer_queries)),
    row(MESH, "peer_queries_dropped", COUNTER, "Queries of peers dropped because too many waited for an answer.", |s| Value::Number(s.stats.peer_queries_dropped)),
    row(MESH, "peer_queries_timed_out", COUNTER, "Queries of peers dropped because they had waited for lookup_timeout_ms.", |s| Value::Number(s.stats.peer_queries_timed_out)),

    row(LOOKUP, "lookups", COUNTER, "Keys looked up on peers: lookup_hits, lookup_misses, lookup_timeouts, and those in flight.", |s| Value::Number(s.stats.lookups)),
    row(LOOKUP, "lookup_hits", COUNTER, "Lookups that found the key.", |s| Value::Number(s.stats.lookup_hits)),
    row(LOOKUP, "lookup_misses", COUNTER, "Lookups in which every queried peer answered that it does not have the key.", |s| Value::Number(s.stats.lookup_misses)),
    row(LOOKUP, "lookup_timeouts", COUNTER, "Lookups that ended at lookup_timeout_ms without an answer from every queried peer.", |s| Value::Number(s.stats.lookup_timeouts)),
    row(LOOKUP, "lookups_in_flight", GAUGE, "Lookups in flight; bounded by lookups_max.", |s| Value::Number(s.lookups_in_flight as u64)),
    row(LOOKUP, "lookups_coalesced", COUNTER, "Keys that joined a lookup in flight instead of starting one.", |s| Value::Number(s.stats.lookups_coalesced)),
    row(LOOKUP, "lookups_unwanted", COUNTER, "Requests whose client was gone when their lookups ended.", |s| Value::Number(s.stats.lookups_unwanted)),
    row(LOOKUP, "forwarded", COUNTER, "Commands that depend on a key of another node, or were to create one there.", |s| Value::Number(s.stats.forwarded)),
    row(LOOKUP, "forwarded_unknown", COUNTER, "Of forwarded, those that may have been carried out or not: the link broke, or the answer was late.", |s| Value::Number(s.stats.forwarded_unknown)),
    row(LOOKUP, "queries", COUNTER, "Queries sent to peers: query_hits, query_misses, queries_lost, queries_abandoned, and those in flight.", |s| Value::Number(s.stats.queries)),
    row(LOOKUP, "query_hits", COUNTER, "Queries that the peer answered with the value.", |s| Value::Number(s.stats.query_hits)),
    row(LOOKUP, "query_misses", COUNTER, "Queries that the peer answered without the value.", |s| Value::Number(s.stats.query_misses)),
    row(LOOKUP, "query_false_positives", COUNTER, "Of query_misses, those to a peer whose filter claimed the key.", |s| Value::Number(s.stats.query_false_positives)),
    row(LOOKUP, "queries_lost", COUNTER, "Queries whose link broke before the answer.", |s| Value::Number(s.stats.queries_lost)),
    row(LOOKUP, "queries_abandoned", COUNTER, "Queries whose lookup ended before the answer.", |s| Value::Number(s.stats.queries_abandoned)),
    row(LOOKUP, "probes", COUNTER, "Queries sent to a peer with an open circuit, to see whether it answers again.", |s| Value::Number(s.stats.probes)),
    row(LOOKUP, "answers_late", COUNTER, "Answers to no query in flight.", |s| Value::Number(s.stats.answers_late)),
    row(LOOKUP, "answers_mismatched", COUNTER, "Answers about another key than the query.", |s| Value::Number(s.stats.answers_mismatched)),
    row(LOOKUP, "circuits_opened", COUNTER, "Times that a peer let three queries in a row time out, so that lookups skip it until it answers probes.", |s| Value::Number(s.stats.circuits_opened)),

    row(FILTER, "filter_bits", GAUGE, "Bits of the own filter.", |s| Value::Number(s.filter_bits)),
    row(FILTER, "filter_fill", (Kind::Gauge, Unit::Ratio), "Share of the own filter that is set.", |s| Value::Ratio(s.filter_fill)),
    row(FILTER, "peer_filters_bytes", BYTES, "Memory of the filters of peers; bounded by peer_filters_max.", |s| Value::Number(s.peer_filters_bytes)),
    row(FILTER, "peer_filters_max", BYTES, "The setting peer_filters_max.", |s| Value::Number(s.limits.peer_filters_max)),
    row(FILTER, "digest_received_bytes", COUNTER_BYTES, "Frames about the filters of peers.", |s| Value::Number(s.stats.digest_received_bytes)),
    row(FILTER, "digest_sent_bytes", COUNTER_BYTES, "Frames about the own filter.", |s| Value::Number(s.stats.digest_sent_bytes)),
    row(FILTER, "digest_backlog", GAUGE, "New keys that the slowest peer has not been sent yet.", |s| Value::Number(s.keyspace.changelog().backlog())),
    row(FILTER, "digest_messages_dropped", COUNTER, "Digest messages of peers ignored because they were known, or because one before them was missing.", |s| Value::Number(s.stats.digest_messages_dropped)),
    row(FILTER, "digest_messages_refused", COUNTER, "Digest messages of peers that do not fit their filter.", |s| Value::Number(s.stats.digest_messages_refused)),
];

fn micros(time: Duration) -> Value {
    Value::Number(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

fn closed(snapshot: &Snapshot<'_>, reason: CloseReason) -> Value {
    Value::Number(snapshot.stats.connections_closed[reason as usize])
}

#[cfg(test)]
mod tests {
    use super::{Kind, METRICS, Metric, SECTIONS, SUMMARY_ROWS, Stats, Unit};
    use crate::node::conn::phase::CloseReason;
    use std::fmt::Write;
    use std::{env, fs};

    #[test]
    fn names_are_unique_plain_and_no_words_of_selections() {
        for (at, row) in METRICS.iter().enumerate() {
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(row.name.chars().all(is_plain), "{}", row.name);
            assert!(METRICS[..at].iter().all(|other| other.name != row.name), "{} twice", row.name);
            assert!(row.name != "summary" && !SECTIONS.contains(&row.name), "{} is a section", row.name);
            assert!(SECTIONS.contains(&row.section) && row.help.ends_with('.'), "{}", row.name);
        }
    }

    #[test]
    fn every_counter_has_a_row_of_its_name() {
        let fields = format!("{:#?}", Stats::default());
        let fields = fields
            .lines()
            .filter_map(|line| line.strip_prefix("    "))
            .filter_map(|line| line.split_once(':'));
        let mut count = 0;
        for (field, _) in fields.filter(|(field, _)| *field != "connections_closed") {
            assert_eq!(Metric::named(field.as_bytes()).count(), 1, "{field} is not published");
            count += 1;
        }
        assert!(count >= 40, "{count} fields found");
        for reason in CloseReason::ALL {
            let name = format!("connections_closed_{}", reason.name());
            assert_eq!(Metric::named(name.as_bytes()).count(), 1, "{name} is not published");
        }
    }

    #[test]
    fn words_select_rows() {
        let names = |word: &str| Metric::named(word.as_bytes()).map(|row| row.name).collect::<Vec<_>>();
        assert_eq!(names("hits"), ["hits"]);
        assert_eq!(names("summary").len(), SUMMARY_ROWS);
        assert_eq!(names("memory")[0], "memory_bytes");
        assert_eq!(names("nope").len(), 0);
        assert_eq!(SECTIONS.iter().map(|section| names(section).len()).sum::<usize>(), METRICS.len());
    }

    /// Fails when `docs/stats.md` differs from the table. `OLIVIA_WRITE_DOCS=1` writes it.
    #[test]
    fn documentation_of_the_metrics_is_not_stale() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/stats.md");
        let page = page();
        if env::var_os("OLIVIA_WRITE_DOCS").is_some() {
            fs::write(path, &page).unwrap();
        }
        let written = fs::read_to_string(path).unwrap_or_default();
        assert!(written == page, "docs/stats.md is stale; make docs");
    }

    fn page() -> String {
        let mut page = "# STATS\n\n\
            Written by `make docs` from the table in `src/node/metrics.rs`. The names are stable.\n\n\
            `STATS` returns all metrics of this node. `STATS mesh` returns those of a section, `STATS keys,hits`\n\
            those named, `STATS summary` the eight to look at first. Counters start at 0 with the node and never\n\
            fall; gauges are the state now.\n\n\
            ## To look at first\n\n"
            .to_owned();
        table(&mut page, METRICS.iter().take(SUMMARY_ROWS));
        for section in SECTIONS {
            write!(page, "\n## {section}\n\n").unwrap();
            table(&mut page, METRICS.iter().filter(|row| row.section == section));
        }
        page
    }

    fn table<'r>(page: &mut String, rows: impl Iterator<Item = &'r Metric>) {
        page.push_str("| name | kind | unit | meaning |\n|---|---|---|---|\n");
        for row in rows {
            let kind = match row.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Text => "text",
            };
            let unit = match row.unit {
                Unit::Count | Unit::None => "",
                Unit::Bytes => "bytes",
                Unit::Seconds => "seconds",
                Unit::Microseconds => "microseconds",
                Unit::Ratio => "0 to 1",
                Unit::Flag => "yes or no",
            };
            writeln!(page, "| `{}` | {kind} | {unit} | {} |", row.name, row.help).unwrap();
        }
    }
}
