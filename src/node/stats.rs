//! What a node counts, and the one line that tells it.

use super::conns::CloseReason;
use crate::limits::Limits;
use crate::store::Store;
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
    /// Keys asked for: hits + misses.
    pub gets: u64,
    /// Keys asked for that were there.
    pub hits: u64,
    /// Keys asked for that were not.
    pub misses: u64,
    /// Keys set.
    pub sets: u64,
    /// Keys removed by request.
    pub deletes: u64,
    /// Wrong passwords.
    pub auth_failures: u64,
    /// Events about connections that were gone.
    pub stale_events: u64,
    /// Log lines left out because clients caused too many.
    pub log_lines_dropped: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// The longest turn, in microseconds of work; waiting is not counted.
    pub turn_max_us: u64,
}

/// What STATS tells beside the counters and what store and limits know themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gauges {
    pub(super) uptime: Duration,
    pub(super) clients: usize,
    pub(super) buffers_bytes: usize,
    pub(super) is_ready: bool,
}

impl Stats {
    /// Writes the fields of a STATS reply. Names stay as they are once they are out.
    pub(super) fn write(&self, gauges: Gauges, store: &Store, limits: &Limits, reply: &mut Reply<'_>) {
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
        field("sets", self.sets);
        field("deletes", self.deletes);
        field("expired", store.expired());
        field("accepted", self.accepted);
        field("refused", self.refused);
        for reason in CloseReason::ALL {
            field(&format!("closed_{}", reason.name()), self.closed[reason as usize]);
        }
        field("auth_failures", self.auth_failures);
        field("stale_events", self.stale_events);
        field("log_lines_dropped", self.log_lines_dropped);
        field("turns", self.turns);
        field("turn_max_us", self.turn_max_us);
        field("peers_active", 0);
        field("peers_backup", 0);
        reply.text(format_args!("ready:{}", if gauges.is_ready { "yes" } else { "no" }));
        reply.text(format_args!("version:{}", env!("CARGO_PKG_VERSION")));
    }
}
