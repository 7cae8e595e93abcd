//! Every limit of a node, with its unit and reason.
//!
//! [`Limits`] are the keys of `[limits]` in `olivia.toml`, [`MeshLimits`] those of `[mesh]`, with their defaults. The
//! constants are part of the design: they determine the cost of an event-loop iteration.
//!
//! Not here: the limits of the wire format, which are with its decoders, and anything derived from a limit.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Configurable limits. Sizes are in bytes, times in milliseconds.
///
/// Reaching one is never fatal: the request or the connection that reached it gets an error that names the limit; it
/// is counted, and no other connection is affected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Client connections; one more is refused with an error.
    pub clients_max: u32,
    /// Bytes of items, index, own filter and changelog; above it items are evicted, or writes get an error. 0: no
    /// limit. Not configured: 80 % of the machine's memory, at most [`HEAP_BYTES_MAX`]. Items of up to 16 KiB take at
    /// most [`HEAP_BYTES_MAX`], whatever this limit is; larger ones may take the rest.
    pub memory_max: u64,
    /// How room is made for writes at `memory_max`.
    pub eviction: EvictionPolicy,
    /// Only items with a TTL are evicted.
    pub eviction_only_with_ttl: bool,
    /// Bytes in the buffers of all connections; above it connections without progress are closed.
    pub buffers_max: u64,
    /// Bytes of one line with its arguments, without the line end.
    pub line_bytes_max: u32,
    /// Arguments of one line. A request in RESP is bounded by its bytes.
    pub args_max: u32,
    /// Bytes of one key.
    pub key_bytes_max: u32,
    /// Bytes of one value.
    pub value_bytes_max: u32,
    /// Bytes of one reply; a longer one becomes an error.
    pub reply_bytes_max: u32,
    /// Unsent bytes of one connection above which its requests wait.
    pub outbound_pause_bytes: u32,
    /// Time after which a connection is closed if its socket accepts none of its unsent bytes.
    pub slow_reader_ms: u32,
    /// Longest silence inside a request; on connections that are not from loopback also the time until AUTH.
    pub request_idle_ms: u32,
    /// Time until the first byte of a connection that is not from loopback. A terminal sends whole lines, so this
    /// bounds the time to type the first one.
    pub first_byte_ms: u32,
    /// Arguments of one request before authentication.
    pub unauthenticated_args_max: u32,
    /// Bytes of one line before authentication.
    pub unauthenticated_line_bytes_max: u32,
    /// Bytes of all replies to one connection before authentication; then it is closed.
    pub unauthenticated_output_bytes_max: u32,
    /// Time that a shutdown waits for clients to read their last replies.
    pub drain_ms: u32,
    /// Bytes of the peers' filters. A peer whose filter does not fit is queried for every key.
    pub peer_filters_max: u64,
    /// Lookups on other nodes at one time; a request that needs one more gets an error.
    pub lookups_max: u32,
    /// Lookups at one time per connection; above it the next request waits. One request may exceed it by its number of
    /// keys.
    pub lookups_per_connection: u32,
    /// Queries in flight per peer; further ones are deferred.
    pub lookups_per_peer: u32,
    /// Microseconds from the arrival of a request to the last byte of its reply from which the request is slow. 0: none
    /// is slow.
    pub slow_request_us: u32,
    /// Slow requests that are kept, each up to 400 bytes; the oldest one is dropped for one more.
    pub slow_requests_max: u32,
    /// Deleted keys that are kept one by one until every other node has acknowledged the deletion.
    pub tombstones_max: u32,
}

/// What happens to a write at `memory_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EvictionPolicy {
    /// Items are evicted to make room, by S3-FIFO.
    #[serde(rename = "s3-fifo")]
    S3Fifo,
    /// The write gets an error.
    #[serde(rename = "refuse")]
    Refuse,
}

impl EvictionPolicy {
    /// The words of the configuration.
    pub const WORDS: [&str; 2] = ["s3-fifo", "refuse"];
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients_max: 10_000,
            memory_max: 0,
            eviction: EvictionPolicy::S3Fifo,
            eviction_only_with_ttl: false,
            buffers_max: 256 * 1024 * 1024,
            line_bytes_max: 9 * 1024 * 1024,
            args_max: 1_024,
            key_bytes_max: 64 * 1024,
            value_bytes_max: 8 * 1024 * 1024,
            reply_bytes_max: 32 * 1024 * 1024,
            outbound_pause_bytes: 256 * 1024,
            slow_reader_ms: 10_000,
            request_idle_ms: 60_000,
            first_byte_ms: 300_000,
            unauthenticated_args_max: 10,
            unauthenticated_line_bytes_max: 16 * 1024,
            unauthenticated_output_bytes_max: 64 * 1024,
            drain_ms: 5_000,
            peer_filters_max: GIB,
            lookups_max: 65_536,
            lookups_per_connection: 256,
            lookups_per_peer: 1_024,
            slow_request_us: 10_000,
            slow_requests_max: 128,
            tombstones_max: 100_000,
        }
    }
}

/// Configurable numbers of the mesh; times are in milliseconds. Changes need a restart.
///
/// [`crate::config`] refuses unknown keys, since `[mesh]` has keys that are not listed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshLimits {
    /// Time between two heartbeats on a link; three missed ones close it.
    pub heartbeat_interval_ms: u32,
    /// Time to wait for one peer before the next is queried too.
    pub lookup_try_ms: u32,
    /// Time limit of a lookup; at least `lookup_try_ms`.
    pub lookup_timeout_ms: u32,
    /// Maximum number of links; one more is made to a node that has no other.
    pub active_peers: u32,
    /// Maximum number of known peers, linked or not; at least `active_peers`.
    pub known_peers_max: u32,
}

impl Default for MeshLimits {
    fn default() -> Self {
        Self {
            heartbeat_interval_ms: 1_000,
            lookup_try_ms: 20,
            lookup_timeout_ms: 100,
            active_peers: 128,
            known_peers_max: 4_096,
        }
    }
}

/// The range of one configurable limit.
#[derive(Debug)]
pub struct LimitRange<L> {
    /// The field of [`Limits`] or [`MeshLimits`], which is also the key in `[limits]` or `[mesh]`.
    pub name: &'static str,
    /// The smallest value, in the unit of the field.
    pub min: u64,
    /// The largest value, in the unit of the field.
    pub max: u64,
    /// The meaning of zero, if it has one; zero is then allowed whatever `min` is.
    pub zero: Option<&'static str>,
    get: fn(&L) -> u64,
}

impl<L> LimitRange<L> {
    /// True if `value` is allowed.
    pub const fn allows(&self, value: u64) -> bool {
        (value == 0 && self.zero.is_some()) || (self.min <= value && value <= self.max)
    }

    fn check(&self, limits: &L) -> Result<(), String> {
        let value = (self.get)(limits);
        if self.allows(value) {
            return Ok(());
        }
        Err(format!("{} is {value}; it takes {} to {}", self.name, self.min, self.max))
    }
}

const fn range<L>(name: &'static str, min: u64, max: u64, get: fn(&L) -> u64) -> LimitRange<L> {
    LimitRange { name, min, max, zero: None, get }
}

const fn range_or_zero<L>(
    name: &'static str,
    min: u64,
    max: u64,
    zero: &'static str,
    get: fn(&L) -> u64,
) -> LimitRange<L> {
    LimitRange { name, min, max, zero: Some(zero), get }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// Maximum bytes of items of up to 16 KiB and of the headers of larger ones: the range of a handle.
pub const HEAP_BYTES_MAX: u64 = 32 * GIB;
const MINUTE_MS: u64 = 60 * 1_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// The range of each field of [`Limits`], in their order.
///
/// Below the lower ends a node is unusable: a line of 1 KiB holds the handshake of a node, 2 KiB before authentication
/// hold the longest password in quotes, 8 arguments hold a `HELLO` with password and name.
pub const LIMIT_RANGES: [LimitRange<Limits>; 23] = [
    range("clients_max", 1, 1_000_000, |l| l.clients_max.into()),
    range_or_zero("memory_max", MIB, 1024 * 1024 * GIB, "no limit", |l| l.memory_max),
    range("buffers_max", MIB, 1024 * 1024 * GIB, |l| l.buffers_max),
    range("line_bytes_max", KIB, GIB, |l| l.line_bytes_max.into()),
    range("args_max", 8, 1024 * 1024, |l| l.args_max.into()),
    range("key_bytes_max", 1, 16 * MIB, |l| l.key_bytes_max.into()),
    range("value_bytes_max", 1, 512 * MIB, |l| l.value_bytes_max.into()),
    range("reply_bytes_max", KIB, GIB, |l| l.reply_bytes_max.into()),
    range("outbound_pause_bytes", KIB, GIB, |l| l.outbound_pause_bytes.into()),
    range("slow_reader_ms", 1, DAY_MS, |l| l.slow_reader_ms.into()),
    range("request_idle_ms", 1, DAY_MS, |l| l.request_idle_ms.into()),
    range("first_byte_ms", 1, DAY_MS, |l| l.first_byte_ms.into()),
    range("unauthenticated_args_max", 8, 1024, |l| l.unauthenticated_args_max.into()),
    range("unauthenticated_line_bytes_max", 2 * KIB, MIB, |l| l.unauthenticated_line_bytes_max.into()),
    range("unauthenticated_output_bytes_max", KIB, 16 * MIB, |l| l.unauthenticated_output_bytes_max.into()),
    range_or_zero("drain_ms", 1, DAY_MS, "do not wait", |l| l.drain_ms.into()),
    range("peer_filters_max", MIB, 1024 * 1024 * GIB, |l| l.peer_filters_max),
    range("lookups_max", 1, 1024 * 1024, |l| l.lookups_max.into()),
    range("lookups_per_connection", 1, 64 * 1024, |l| l.lookups_per_connection.into()),
    range("lookups_per_peer", 1, LOOKUPS_PER_LINK_MAX as u64, |l| l.lookups_per_peer.into()),
    range_or_zero("slow_request_us", 1, 1_000 * MINUTE_MS, "log none", |l| l.slow_request_us.into()),
    range_or_zero("slow_requests_max", 1, 64 * KIB, "keep none", |l| l.slow_requests_max.into()),
    range("tombstones_max", 1, 16 * MIB, |l| l.tombstones_max.into()),
];

/// The range of each field of [`MeshLimits`], in their order.
pub const MESH_RANGES: [LimitRange<MeshLimits>; 5] = [
    range("heartbeat_interval_ms", 10, MINUTE_MS, |m| m.heartbeat_interval_ms.into()),
    range("lookup_try_ms", 1, MINUTE_MS, |m| m.lookup_try_ms.into()),
    range("lookup_timeout_ms", 1, MINUTE_MS, |m| m.lookup_timeout_ms.into()),
    range("active_peers", 1, 1_024, |m| m.active_peers.into()),
    range("known_peers_max", 1, 64 * 1024, |m| m.known_peers_max.into()),
];

impl Limits {
    /// Checks each limit against its range, and related limits against each other.
    ///
    /// # Errors
    /// A message that names the first limit out of range, and its range.
    pub fn check(&self) -> Result<(), String> {
        LIMIT_RANGES.iter().try_for_each(|range| range.check(self))?;
        if self.value_bytes_max > self.reply_bytes_max {
            return Err(format!(
                "value_bytes_max is {}, above reply_bytes_max of {}: such a value could be set but never read",
                self.value_bytes_max, self.reply_bytes_max
            ));
        }
        if u64::from(self.reply_bytes_max) > self.buffers_max {
            return Err(format!(
                "reply_bytes_max is {}, above buffers_max of {}: one reply would close its own connection",
                self.reply_bytes_max, self.buffers_max
            ));
        }
        Ok(())
    }
}

impl MeshLimits {
    /// The silence after which a link is lost.
    pub fn dead_time(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms.into()) * HEARTBEATS_MISSED_MAX
    }

    /// Checks each number against its range, and related numbers against each other.
    ///
    /// # Errors
    /// A message that names the first number out of range, and its range.
    pub fn check(&self) -> Result<(), String> {
        MESH_RANGES.iter().try_for_each(|range| range.check(self))?;
        if self.lookup_timeout_ms < self.lookup_try_ms {
            return Err(format!(
                "lookup_timeout_ms is {}, below lookup_try_ms of {}: no peer would get that long",
                self.lookup_timeout_ms, self.lookup_try_ms
            ));
        }
        if self.known_peers_max < self.active_peers {
            return Err(format!(
                "known_peers_max is {}, below active_peers of {}: every linked peer is known",
                self.known_peers_max, self.active_peers
            ));
        }
        Ok(())
    }
}

/// Keys of requests per call below the boundary, at least one per request: 50 to 150 µs of work, so that the shell
/// reads its clock several times per iteration.
pub const KEYS_PER_STEP: usize = 256;

/// Tests of own keys against a filter that cost as much as one key of a request.
pub const TESTS_PER_KEY: usize = 8;

/// Bytes of requests and replies after which a call below the boundary returns: copying them takes about as long as
/// the requests of a step.
pub const BYTES_PER_STEP: usize = 256 * 1024;

/// Timers processed per call of `tick`: about 15 µs of work, if each removes an item.
pub const TIMERS_PER_STEP: u32 = 64;

/// Timers processed per key that is given a TTL or deleted, if any are due or too many are stale: under load `tick`
/// runs rarely, and a client that sets and deletes without a pause would leave stale timers faster than they are
/// purged. The bound of `Store::keep_up` needs four.
pub const TIMERS_PER_WRITE: u32 = 4;

/// Queries sent per call below the boundary, exceeded by at most those of one lookup. A query costs as much as a key.
pub const QUERIES_PER_STEP: u64 = 256;

/// Words of one request in RESP, as in Redis.
pub const RESP_ARGS_MAX: u32 = 1024 * 1024;

/// Milliseconds for the other side of a closing connection to read the last reply and to close. Long enough for a
/// retransmission, short enough that closing clients do not fill the table.
pub const LINGER_MS: u32 = 2_000;

/// Missed heartbeats after which a link is lost.
pub const HEARTBEATS_MISSED_MAX: u32 = 3;

/// Upper end of `lookups_per_peer`, and deferred queries per link.
pub const LOOKUPS_PER_LINK_MAX: usize = 1_024;

/// Maximum waiters per lookup; a further waiter begins another lookup. This bounds the copies of one answer per call,
/// so that copies of the largest values fit the buffers.
pub const WAITERS_PER_LOOKUP_MAX: usize = 32;

/// Time limit of a dial, in milliseconds: a little more than the retransmission of one lost packet takes.
pub const DIAL_MS: u32 = 3_000;

/// Time limit of a handshake, in milliseconds, from the first byte to the welcome.
pub const HANDSHAKE_TIMEOUT_MS: u32 = 5_000;

/// Wrong passwords after which a connection is closed.
pub const LOGIN_FAILURES_MAX: u32 = 10;

/// Milliseconds between the answers to two wrong passwords on one connection.
pub const LOGIN_DELAY_MS: u64 = 1_000;

/// Milliseconds by which the wall clock of a peer may be ahead of ours.
pub const CLOCK_AHEAD_MAX_MS: u64 = 500;

/// Milliseconds charged to an address range per wrong password: ten per second are answered.
pub const LOGIN_RANGE_MS: u64 = 100;

/// Milliseconds charged to a range above which its passwords are not checked: a hundred wrong ones at once.
pub const LOGIN_RANGE_DEBT_MS: u64 = 10_000;

/// Address ranges with a count of wrong passwords, 32 bytes each; all other ranges share one count.
pub const LOGIN_RANGES_MAX: usize = 4_096;

/// Requests and keys of one transaction: EXEC carries them out in one step, about 1 ms of work.
pub const TRANSACTION_KEYS_MAX: usize = 4_096;

/// Keys that one connection watches.
pub const WATCHED_KEYS_MAX: usize = 1_024;

/// Clients in a reply of CLIENT LIST, about 300 bytes each: about 1 ms of work.
pub const CLIENTS_LISTED_MAX: usize = 1_024;

/// Log lines per second that clients can cause; dropped ones are counted.
pub const CLIENT_LOG_LINES_PER_SECOND: u32 = 10;

/// Connections beyond `clients_max` without a first byte yet; as many more may have begun a handshake.
pub const SPARE_HANDSHAKES: usize = 8;

/// File descriptors in addition to those of clients and links: standard streams, listener, poll, signals, the spare
/// one, dials, handshakes.
pub const RESERVED_FILES: u64 = 32 + 2 * SPARE_HANDSHAKES as u64;

/// Bytes of a buffer that is kept for the next connection instead of being freed: a reply with the largest value that
/// is copied, after others.
pub const POOLED_BUFFER_BYTES_MAX: usize = 176 * 1024;

/// A reply of more bytes is written in pieces, and a value of more bytes is shared with the output, not copied.
pub const LONG_REPLY_BYTES: usize = 128 * 1024;

/// Bytes per piece of a long text. A piece has a map of its own and is written to the socket without being copied.
pub const PIECE_BYTES: usize = 64 * 1024;

/// Buffers kept for the next connection.
pub const POOLED_BUFFERS_MAX: usize = 64;

const _: () = assert!(KEYS_PER_STEP > 0 && TIMERS_PER_STEP > 0);
const _: () = assert!(POOLED_BUFFER_BYTES_MAX <= BYTES_PER_STEP);

#[cfg(test)]
mod tests {
    use super::{LIMIT_RANGES, Limits, MESH_RANGES, MeshLimits};

    #[test]
    fn the_defaults_are_within_their_ranges() {
        assert_eq!(Limits::default().check(), Ok(()));
        assert_eq!(MeshLimits::default().check(), Ok(()));
    }

    #[test]
    fn every_limit_has_exactly_one_range() {
        let table = toml::Table::try_from(Limits::default()).unwrap();
        let numbers = table.iter().filter(|(_, value)| value.is_integer());
        let mut fields: Vec<&str> = numbers.map(|(name, _)| name.as_str()).collect();
        let mut ranges: Vec<&str> = LIMIT_RANGES.iter().map(|range| range.name).collect();
        fields.sort_unstable();
        ranges.sort_unstable();
        assert_eq!(fields, ranges);
        let table = toml::Table::try_from(MeshLimits::default()).unwrap();
        let mut fields: Vec<&str> = table.keys().map(String::as_str).collect();
        let mut ranges: Vec<&str> = MESH_RANGES.iter().map(|range| range.name).collect();
        fields.sort_unstable();
        ranges.sort_unstable();
        assert_eq!(fields, ranges);
    }

    #[test]
    fn each_range_reads_the_field_of_its_name() {
        for range in &LIMIT_RANGES {
            let mut table = toml::Table::try_from(Limits::default()).unwrap();
            table.insert(range.name.to_owned(), toml::Value::Integer(4_321));
            let limits: Limits = table.try_into().unwrap();
            assert_eq!((range.get)(&limits), 4_321, "{}", range.name);
        }
        for range in &MESH_RANGES {
            let mut table = toml::Table::try_from(MeshLimits::default()).unwrap();
            table.insert(range.name.to_owned(), toml::Value::Integer(4_321));
            let limits: MeshLimits = table.try_into().unwrap();
            assert_eq!((range.get)(&limits), 4_321, "{}", range.name);
        }
    }

    #[test]
    fn limits_out_of_range_and_limits_that_contradict_each_other_are_named() {
        let limits = Limits::default;
        for (limits, error) in [
            (Limits { memory_max: 0, drain_ms: 0, ..limits() }, None),
            (Limits { memory_max: 1, ..limits() }, Some("memory_max is 1")),
            (Limits { clients_max: 0, ..limits() }, Some("clients_max is 0; it takes 1 to 1000000")),
            (Limits { value_bytes_max: 2_048, reply_bytes_max: 1_024, ..limits() }, Some("never read")),
            (Limits { buffers_max: 1024 * 1024, ..limits() }, Some("buffers_max")),
        ] {
            assert_eq!(limits.check().err().is_none(), error.is_none());
            assert!(limits.check().err().unwrap_or_default().contains(error.unwrap_or_default()));
        }
        let mesh = MeshLimits::default;
        for (limits, error) in [
            (MeshLimits { lookup_try_ms: 50, lookup_timeout_ms: 49, ..mesh() }, "below lookup_try_ms of 50"),
            (MeshLimits { active_peers: 9, known_peers_max: 8, ..mesh() }, "below active_peers of 9"),
            (MeshLimits { heartbeat_interval_ms: 9, ..mesh() }, "heartbeat_interval_ms is 9; it takes 10 to"),
        ] {
            assert!(limits.check().unwrap_err().contains(error), "{error}");
        }
    }
}
