//! INFO: metrics under Redis's names, then all metrics under their own names.

use crate::node::command::connection::REDIS_VERSION;
use crate::node::command::row::{Call, CommandResult, Effect};
use crate::node::command::settings::policy_name;
use crate::node::command::status::snapshot;
use crate::node::metrics::{METRICS, Metric, Snapshot, Value};
use crate::node::state::State;
use std::fmt::Write;

/// The source of a field of Redis.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// A constant.
    Always(&'static str),
    /// The metric with this name.
    Plain(&'static str),
    /// The metric with this name, in bytes, shown in the largest unit.
    Human(&'static str),
}

use Source::{Always, Human, Plain};

/// Redis's sections, each with its fields.
const SECTIONS: [(&str, &[(&str, Source)]); 8] = [
    (
        "Server",
        &[
            ("redis_version", Always(REDIS_VERSION)),
            ("redis_mode", Always("standalone")),
            ("server_name", Always("olivia")),
            ("olivia_version", Plain("version")),
            ("arch_bits", Always("64")),
            ("run_id", Plain("node_id")),
            ("uptime_in_seconds", Plain("uptime_seconds")),
        ],
    ),
    (
        "Clients",
        &[
            ("connected_clients", Plain("clients")),
            ("cluster_connections", Always("0")),
            ("maxclients", Plain("clients_max")),
            ("blocked_clients", Always("0")),
            ("tracking_clients", Always("0")),
        ],
    ),
    (
        "Memory",
        &[
            ("used_memory", Plain("memory_bytes")),
            ("used_memory_human", Human("memory_bytes")),
            ("used_memory_dataset", Plain("memory_live_bytes")),
            ("mem_clients_normal", Plain("buffers_bytes")),
            ("maxmemory", Plain("memory_max")),
            ("maxmemory_human", Human("memory_max")),
        ],
    ),
    (
        "Persistence",
        &[
            ("loading", Always("0")),
            ("async_loading", Always("0")),
            ("rdb_bgsave_in_progress", Always("0")),
            ("aof_enabled", Always("0")),
            ("aof_rewrite_in_progress", Always("0")),
        ],
    ),
    (
        "Stats",
        &[
            ("total_connections_received", Plain("connections_accepted")),
            ("total_commands_processed", Plain("requests")),
            ("rejected_connections", Plain("connections_refused")),
            ("expired_keys", Plain("expirations")),
            ("evicted_keys", Plain("evictions")),
            ("keyspace_hits", Plain("hits")),
            ("keyspace_misses", Plain("misses")),
            ("pubsub_channels", Always("0")),
            ("pubsub_patterns", Always("0")),
            ("total_error_replies", Plain("request_errors")),
            ("acl_access_denied_auth", Plain("auth_failures")),
        ],
    ),
    (
        "Replication",
        &[
            ("role", Always("master")),
            ("connected_slaves", Always("0")),
            ("master_failover_state", Always("no-failover")),
            ("master_repl_offset", Always("0")),
        ],
    ),
    ("Modules", &[]),
    ("Cluster", &[("cluster_enabled", Always("0"))]),
];

/// Olivia's own sections, each with its sections of the metrics table.
const OWN_SECTIONS: [(&str, &[&str]); 2] =
    [("Olivia", &["server", "connections", "memory", "keyspace"]), ("Mesh", &["mesh", "lookup", "filter"])];

/// INFO [section …]. Without sections: all except `commandstats`.
pub(super) fn info<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let is_named = |name: &str| call.args.iter().any(|arg| arg.eq_ignore_ascii_case(name.as_bytes()));
    let is_everything = is_named("all") || is_named("everything");
    let is_default = call.args.is_empty() || is_named("default") || is_everything;
    let snapshot = snapshot(state, call.now);
    let mut text = String::new();
    let begin = |text: &mut String, name: &str| {
        let is_meant = is_default || is_named(name);
        if is_meant {
            let gap = if text.is_empty() { "" } else { "\r\n" };
            // Writing to a string cannot fail.
            let _ = write!(text, "{gap}# {name}\r\n");
        }
        is_meant
    };
    for (name, fields) in SECTIONS {
        if begin(&mut text, name) {
            fields.iter().for_each(|(field, source)| put_field(&mut text, field, *source, &snapshot));
            if name == "Server" {
                put_moment(&mut text, call, &snapshot);
            }
            if name == "Memory" {
                let _ = write!(text, "maxmemory_policy:{}\r\n", policy_name(snapshot.limits));
            }
        }
    }
    if begin(&mut text, "Keyspace") {
        put_keyspace(&mut text, &snapshot);
    }
    for (name, sections) in OWN_SECTIONS {
        if begin(&mut text, name) {
            for row in METRICS.iter().filter(|row| sections.contains(&row.section)) {
                let _ = write!(text, "{}:{}\r\n", row.name, row.read(&snapshot));
            }
        }
    }
    if is_everything || is_named("commandstats") {
        let _ = write!(text, "\r\n# Commandstats\r\n");
        for (row, calls) in call.table.rows.iter().zip(state.calls.iter()).filter(|(_, calls)| *calls > 0) {
            let name = row.name.to_ascii_lowercase().replace(' ', "|");
            let _ = write!(text, "cmdstat_{name}:calls={calls}\r\n");
        }
    }
    call.reply.verbatim(&text);
    Ok(Effect::Reply)
}

fn metric(name: &str, snapshot: &Snapshot<'_>) -> Option<Value> {
    Metric::named(name.as_bytes()).next().map(|row| row.read(snapshot))
}

fn put_field(text: &mut String, field: &str, source: Source, snapshot: &Snapshot<'_>) {
    let value = match source {
        Always(value) => value.to_owned(),
        Plain(name) => metric(name, snapshot).map_or_else(String::new, |value| value.to_string()),
        Human(name) => match metric(name, snapshot) {
            Some(Value::Number(bytes)) => human(bytes),
            Some(Value::Ratio(_) | Value::Flag(_) | Value::Text(_) | Value::Node(_)) | None => String::new(),
        },
    };
    let _ = write!(text, "{field}:{value}\r\n");
}

/// Bytes as Redis shows them: `1.50M`.
fn human(bytes: u64) -> String {
    for (unit, shift) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] {
        if bytes >> shift > 0 {
            let hundredths = (u128::from(bytes) * 100) >> shift;
            return format!("{}.{:02}{unit}", hundredths / 100, hundredths % 100);
        }
    }
    format!("{bytes}B")
}

/// Appends the fields that are not metrics: the time, and the uptime in days.
fn put_moment(text: &mut String, call: &Call<'_>, snapshot: &Snapshot<'_>) {
    let days = snapshot.uptime.as_secs() / 86_400;
    let _ = write!(text, "uptime_in_days:{days}\r\nserver_time_usec:{}000\r\n", call.now.wall_ms());
}

fn put_keyspace(text: &mut String, snapshot: &Snapshot<'_>) {
    let store = snapshot.keyspace.store();
    if !store.is_empty() {
        // Stale timers count too, until they are purged.
        let expires = store.timers().min(store.len());
        let _ = write!(text, "db0:keys={},expires={expires},avg_ttl=0\r\n", store.len());
    }
}

#[cfg(test)]
mod tests {
    use super::{OWN_SECTIONS, SECTIONS, Source, human};
    use crate::node::metrics::{self, METRICS, Metric};

    #[test]
    fn each_field_names_a_metric_that_there_is() {
        for (field, source) in SECTIONS.iter().flat_map(|(_, fields)| *fields) {
            if let Source::Plain(name) | Source::Human(name) = source {
                assert_eq!(Metric::named(name.as_bytes()).count(), 1, "{field}");
            }
            // Clients read all sections into one map.
            assert!(METRICS.iter().all(|row| row.name != *field), "{field} twice");
        }
        let own: Vec<_> = OWN_SECTIONS.iter().flat_map(|(_, sections)| *sections).collect();
        assert_eq!(own, metrics::SECTIONS.iter().collect::<Vec<_>>());
    }

    #[test]
    fn bytes_are_shown_in_the_largest_unit() {
        assert_eq!([0, 1_023, 1_024, 1_572_864].map(human), ["0B", "1023B", "1.00K", "1.50M"]);
    }
}
