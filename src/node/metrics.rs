//! What a node counts, and the one line that tells it.

use crate::limits::Limits;
use crate::node::conn::connection::CloseReason;
use crate::node::ids::NodeId;
use crate::node::keyspace::Keyspace;
use crate::wire::reply::Reply;
use std::time::Duration;

/// Counters since the start. What is dropped anywhere is counted here.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused, for whatever limit.
    pub refused: u64,
    /// Connections ended, by reason.
    pub closed: [u64; CloseReason::COUNT],
    /// Requests read, whether they could be carried out or not.
    pub requests: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Keys asked for: hits + misses, and those being looked up on other nodes.
    pub gets: u64,
    /// Keys asked for that were there.
    pub hits: u64,
    /// Keys asked for that were not.
    pub misses: u64,
    /// Wrong passwords.
    pub auth_failures: u64,
    /// Events about connections that were gone.
    pub stale_events: u64,
    /// Log lines left out because clients caused too many.
    pub log_lines_dropped: u64,
    /// Keys that other nodes were asked for: hits, misses, timeouts, and those in flight.
    pub remote_lookups: u64,
    /// Of these, those that a peer had.
    pub remote_hits: u64,
    /// Those that every peer asked said no to.
    pub remote_misses: u64,
    /// Those that were not answered in time.
    pub remote_timeouts: u64,
    /// Keys that waited for a lookup that was under way already.
    pub remote_coalesced: u64,
    /// Requests of clients that had gone when their lookups ended.
    pub remote_unwanted: u64,
    /// Questions to peers: values, noes, lost, abandoned, and those on their way.
    pub remote_requests: u64,
    /// Questions that a peer answered with the key.
    pub remote_values: u64,
    /// Questions that a peer answered with no.
    pub remote_nones: u64,
    /// Of these, those to a peer whose filter had claimed the key.
    pub remote_false_hits: u64,
    /// Questions whose link broke.
    pub remote_lost: u64,
    /// Questions whose lookup ended before their answer came.
    pub remote_abandoned: u64,
    /// Questions to peers for which nobody waits, to see whether they answer again.
    pub remote_probes: u64,
    /// Answers to no question on its way: too late, or never asked for.
    pub remote_late: u64,
    /// Answers about another key than was asked for.
    pub remote_forged: u64,
    /// Claims that were not followed, because the filter lies.
    pub remote_disbelieved: u64,
    /// Questions of peers.
    pub served_to_peers: u64,
    /// Of these, those given up because too many waited.
    pub deferred_dropped: u64,
    /// Those given up because they had waited for as long as a lookup may take.
    pub deferred_late: u64,
    /// Beats of peers that were not answered, because too much waited for them.
    pub heartbeats_unanswered: u64,
    /// Bytes of frames about peers' filters.
    pub digest_bytes_in: u64,
    /// Bytes of frames about our filter.
    pub digest_bytes_out: u64,
    /// Messages about peers' filters that were known, or stood behind something missing.
    pub digest_dropped: u64,
    /// Messages about peers' filters that do not fit them.
    pub digest_refused: u64,
    /// Frames of peers.
    pub frames: u64,
    /// Links closed because what came was no frame.
    pub frames_broken: u64,
    /// Keys and values of peers that were longer than this node takes, and passed over.
    pub frames_oversized: u64,
    /// Addresses of other nodes that were not believed.
    pub peers_refused: u64,
    /// Nodes that were not admitted.
    pub handshakes_refused: u64,
    /// Turns of the loop.
    pub iterations: u64,
    /// The longest turn, in microseconds of work; waiting is not counted.
    pub iteration_max_us: u64,
}

/// What STATS tells beside the counters and what store and limits know themselves.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Gauges {
    pub(in crate::node) uptime: Duration,
    pub(in crate::node) clients: usize,
    pub(in crate::node) buffers_bytes: usize,
    pub(in crate::node) is_ready: bool,
    pub(in crate::node) is_mesh_complete: bool,
    pub(in crate::node) peers_active: usize,
    pub(in crate::node) peers_backup: usize,
    pub(in crate::node) lookups_in_flight: usize,
    pub(in crate::node) peer_filters_bytes: u64,
    pub(in crate::node) filter_fill: f64,
    pub(in crate::node) filter_bits: u64,
    pub(in crate::node) filter_keys: u64,
    pub(in crate::node) addresses_refused: u64,
    pub(in crate::node) node: NodeId,
}

impl Stats {
    /// Writes the fields of a STATS reply. Names stay as they are once they are out.
    pub(in crate::node) fn write(
        &self,
        gauges: &Gauges,
        keyspace: &Keyspace,
        limits: &Limits,
        reply: &mut Reply<'_>,
    ) {
        let store = keyspace.store();
        let mut field = |name: &str, value: u64| reply.text(format_args!("{name}:{value}"));
        field("uptime_seconds", gauges.uptime.as_secs());
        field("clients", gauges.clients as u64);
        field("keys", store.len() as u64);
        field("memory_bytes", store.memory_bytes());
        field("memory_max", limits.memory_max);
        field("buffers_bytes", gauges.buffers_bytes as u64);
        field("buffers_max", limits.buffers_max);
        field("requests", self.requests);
        field("errors", self.errors);
        field("gets", self.gets);
        field("hits", self.hits);
        field("misses", self.misses);
        field("sets", keyspace.sets());
        field("deletes", keyspace.deletes());
        field("expired", store.expired());
        field("accepted", self.accepted);
        field("refused", self.refused);
        for reason in CloseReason::ALL {
            field(&format!("closed_{}", reason.name()), self.closed[reason as usize]);
        }
        field("auth_failures", self.auth_failures);
        field("stale_events", self.stale_events);
        field("log_lines_dropped", self.log_lines_dropped);
        field("turns", self.iterations);
        field("turn_max_us", self.iteration_max_us);
        self.write_mesh(gauges, limits, &mut field);
        reply.text(format_args!("filter_fill:{:.4}", gauges.filter_fill));
        let yes = |is: bool| if is { "yes" } else { "no" };
        reply.text(format_args!("mesh_complete:{}", yes(gauges.is_mesh_complete)));
        reply.text(format_args!("ready:{}", yes(gauges.is_ready)));
        reply.text(format_args!("node:{}", gauges.node));
        reply.text(format_args!("version:{}", env!("CARGO_PKG_VERSION")));
    }

    fn write_mesh(&self, gauges: &Gauges, limits: &Limits, field: &mut impl FnMut(&str, u64)) {
        field("peers_active", gauges.peers_active as u64);
        field("peers_backup", gauges.peers_backup as u64);
        field("remote_lookups", self.remote_lookups);
        field("remote_hits", self.remote_hits);
        field("remote_misses", self.remote_misses);
        field("remote_timeouts", self.remote_timeouts);
        field("remote_in_flight", gauges.lookups_in_flight as u64);
        field("remote_coalesced", self.remote_coalesced);
        field("remote_unwanted", self.remote_unwanted);
        field("remote_requests", self.remote_requests);
        field("remote_values", self.remote_values);
        field("remote_nones", self.remote_nones);
        field("remote_false_hits", self.remote_false_hits);
        field("remote_lost", self.remote_lost);
        field("remote_abandoned", self.remote_abandoned);
        field("remote_probes", self.remote_probes);
        field("remote_late", self.remote_late);
        field("remote_forged", self.remote_forged);
        field("remote_disbelieved", self.remote_disbelieved);
        field("served_to_peers", self.served_to_peers);
        field("owed_dropped", self.deferred_dropped);
        field("owed_late", self.deferred_late);
        field("beats_unanswered", self.heartbeats_unanswered);
        field("digest_bytes_in", self.digest_bytes_in);
        field("digest_bytes_out", self.digest_bytes_out);
        field("digest_dropped", self.digest_dropped);
        field("digest_refused", self.digest_refused);
        field("frames", self.frames);
        field("frames_broken", self.frames_broken);
        field("frames_oversized", self.frames_oversized);
        field("peers_refused", self.peers_refused);
        field("contacts_refused", gauges.addresses_refused);
        field("handshakes_refused", self.handshakes_refused);
        field("peer_filters_bytes", gauges.peer_filters_bytes);
        field("peer_filters_max", limits.peer_filters_max);
        field("filter_keys", gauges.filter_keys);
        field("filter_bits", gauges.filter_bits);
    }
}
