//! `/metrics`: the metrics table, the calls per command, histograms of the event loop and of requests, and metrics per
//! linked peer, in the text format of Prometheus or in OpenMetrics.
//!
//! Names follow the conventions of Prometheus: `olivia_`, base units, `_total` for counters. Labels are `command`,
//! `class` (of commands), `reason`, and `peer`, the address of a linked peer: at most `active_peers` values, and a
//! restarted peer keeps its value.

use crate::base::histogram::Histogram;
use crate::base::time::Now;
use crate::node::command::status::{PeerView, snapshot};
use crate::node::command::table::TABLE;
use crate::node::http::draft::Draft;
use crate::node::latency::CommandClass;
use crate::node::metrics::{Kind, METRICS, Metric, Snapshot, TIME_LIMITS, Unit, Value};
use crate::node::state::State;
use crate::node::tasks::ReportKind;
use std::fmt::{self, Display};
use std::io::Write;

/// The prefix of the rows that are one family, with the rest of their names as label `reason`.
const CLOSED: &str = "connections_closed_";

/// A metric per linked peer.
struct PeerFamily {
    name: &'static str,
    help: &'static str,
    read: fn(&PeerView) -> Option<f64>,
}

const fn family(name: &'static str, help: &'static str, read: fn(&PeerView) -> Option<f64>) -> PeerFamily {
    PeerFamily { name, help, read }
}

#[rustfmt::skip]
static PEER_FAMILIES: [PeerFamily; 8] = [
    family("peer_round_trip_seconds", "Smoothed round trip of heartbeats.", |p| p.round_trip.map(|t| t.as_secs_f64())),
    family("peer_filter_known", "Whether the filter of the peer is known; 0: it is queried for every key.", |p| Some(if p.is_filter_known() { 1.0 } else { 0.0 })),
    family("peer_filter_age_seconds", "Time since the filter of the peer was known to be complete.", |p| p.filter_age.map(|t| t.as_secs_f64())),
    family("peer_filter_fill_ratio", "Share of the bits of the peer's filter that are set.", |p| p.fill),
    family("peer_claimed_keys", "Keys that the filter of the peer claims, estimated from its fill.", |p| p.claimed_keys),
    family("peer_false_positive_ratio", "Share of absent keys that the filter of the peer claimed lately.", |p| p.measured_rate),
    family("peer_queries_in_flight", "Queries to the peer in flight.", |p| u32::try_from(p.queries).ok().map(f64::from)),
    family("peer_circuit_open", "Whether lookups skip the peer because it does not answer.", |p| Some(if p.probes_left > 0 { 1.0 } else { 0.0 })),
];

/// Writes the metrics of the node, and the heads of the families of peers.
pub(super) fn begin(state: &State, now: Now, format: ReportKind, draft: &mut Draft) {
    put_own(format, state, now, &mut draft.text);
    draft.families.resize_with(PEER_FAMILIES.len(), Vec::new);
    for (family, text) in PEER_FAMILIES.iter().zip(&mut draft.families) {
        put_head(format, text, family.name, "gauge", family.help);
    }
}

/// Writes the row of a peer in each family of peers.
pub(super) fn put_peer(peer: &PeerView, draft: &mut Draft) {
    for (family, text) in PEER_FAMILIES.iter().zip(&mut draft.families) {
        if let Some(value) = (family.read)(peer) {
            put(text, format_args!("olivia_{}{{peer=\"{}\"}} {value}", family.name, peer.addr));
        }
    }
}

/// Appends the families of peers, and ends the text.
pub(super) fn end(format: ReportKind, draft: &mut Draft) {
    draft.families.iter().for_each(|family| draft.text.extend_from_slice(family));
    if format == ReportKind::OpenMetrics {
        draft.text.extend_from_slice(b"# EOF\n");
    }
}

/// Appends a line. Writing to a vector does not fail.
fn put(text: &mut Vec<u8>, line: impl Display) {
    let _ = writeln!(text, "{line}");
}

/// Writes the HELP and TYPE comments of a family. In OpenMetrics, names of counters in them have no `_total`.
fn put_head(format: ReportKind, text: &mut Vec<u8>, name: &str, kind: &str, help: &str) {
    let total = if kind == "counter" && format == ReportKind::Prometheus { "_total" } else { "" };
    put(text, format_args!("# HELP olivia_{name}{total} {help}"));
    put(text, format_args!("# TYPE olivia_{name}{total} {kind}"));
}

fn put_own(format: ReportKind, state: &State, now: Now, text: &mut Vec<u8>) {
    let snapshot = snapshot(state, now);
    put_info(format, &snapshot, text);
    let mut is_in_closed = false;
    for metric in METRICS.iter().filter(|metric| metric.kind != Kind::Text) {
        let kind = if metric.kind == Kind::Counter { "counter" } else { "gauge" };
        let (name, factor) = name(metric);
        let value = Sample(metric.read(&snapshot), factor);
        if let Some(reason) = metric.name.strip_prefix(CLOSED) {
            if !is_in_closed {
                put_head(format, text, "connections_closed", kind, "Connections closed, by reason.");
            }
            is_in_closed = true;
            put(text, format_args!("olivia_connections_closed_total{{reason=\"{reason}\"}} {value}"));
            continue;
        }
        is_in_closed = false;
        put_head(format, text, &name, kind, metric.help);
        let total = if metric.kind == Kind::Counter { "_total" } else { "" };
        put(text, format_args!("olivia_{name}{total} {value}"));
    }
    put_head(format, text, "calls", "counter", "Calls of each command.");
    for (row, calls) in TABLE.rows.iter().zip(state.calls.iter()) {
        let command = row.name.to_ascii_lowercase().replace(' ', "_");
        put(text, format_args!("olivia_calls_total{{command=\"{command}\"}} {calls}"));
    }
    put_times(format, text, state);
}

/// Writes version and identity, as labels.
fn put_info(format: ReportKind, snapshot: &Snapshot<'_>, text: &mut Vec<u8>) {
    let (name, kind) =
        if format == ReportKind::OpenMetrics { ("build", "info") } else { ("build_info", "gauge") };
    put_head(format, text, name, kind, "Version and identity of the node.");
    let (version, id) = (env!("CARGO_PKG_VERSION"), snapshot.node_id);
    put(text, format_args!("olivia_build_info{{version=\"{version}\",node_id=\"{id}\"}} 1"));
}

/// Writes the histograms of the event loop, and those of requests by class.
fn put_times(format: ReportKind, text: &mut Vec<u8>, state: &State) {
    let mut work: [Histogram; CommandClass::COUNT] = Default::default();
    for (command, times) in state.latency.work() {
        if let Some(row) = TABLE.rows.get(command) {
            work[row.class() as usize].merge(times);
        }
    }
    let name = "loop_iteration_seconds";
    put_head(format, text, name, "histogram", "Time of iterations of the event loop, waiting not counted.");
    put_histogram(text, name, "", state.loop_times.times());
    for (name, help, classes) in [
        (
            "request_seconds",
            "Time from the arrival of requests to the last byte of their replies handed to the socket, by class.",
            &state.latency.replied,
        ),
        (
            "request_work_seconds",
            "Work of this node per request, by class; requests of one read share its time.",
            &work,
        ),
    ] {
        put_head(format, text, name, "histogram", help);
        for (class, times) in CommandClass::ALL.iter().zip(classes) {
            put_histogram(text, name, class.name(), times);
        }
    }
}

/// Writes the samples of one histogram; `class` is its label, empty if it has none.
fn put_histogram(text: &mut Vec<u8>, name: &str, class: &str, times: &Histogram) {
    let (label, labels) = if class.is_empty() {
        (String::new(), String::new())
    } else {
        (format!("class=\"{class}\","), format!("{{class=\"{class}\"}}"))
    };
    for (limit, count) in times.up_to(&TIME_LIMITS) {
        let limit = limit.as_secs_f64();
        put(text, format_args!("olivia_{name}_bucket{{{label}le=\"{limit}\"}} {count}"));
    }
    put(text, format_args!("olivia_{name}_bucket{{{label}le=\"+Inf\"}} {}", times.count()));
    put(text, format_args!("olivia_{name}_sum{labels} {}", times.total_seconds()));
    put(text, format_args!("olivia_{name}_count{labels} {}", times.count()));
}

/// The name of a row without `olivia_` and `_total`, and the factor to its base unit.
fn name(metric: &Metric) -> (String, f64) {
    let with_suffix = |name: &str, suffix: &str| {
        if name.ends_with(suffix) { name.to_owned() } else { format!("{name}{suffix}") }
    };
    match metric.unit {
        Unit::Bytes => (with_suffix(metric.name, "_bytes"), 1.0),
        Unit::Seconds => (with_suffix(metric.name, "_seconds"), 1.0),
        Unit::Ratio => (with_suffix(metric.name, "_ratio"), 1.0),
        Unit::Microseconds => {
            (with_suffix(metric.name.strip_suffix("_us").unwrap_or(metric.name), "_seconds"), 1e-6)
        }
        Unit::Count | Unit::Flag | Unit::None => (metric.name.to_owned(), 1.0),
    }
}

/// A value in its base unit.
struct Sample(Value, f64);

impl Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, factor) = self;
        match value {
            Value::Number(number) if *factor == 1.0 => number.fmt(f),
            Value::Number(number) => write!(f, "{}", *number as f64 * factor),
            Value::Ratio(ratio) => ratio.fmt(f),
            Value::Flag(flag) => u8::from(*flag).fmt(f),
            Value::Text(_) | Value::Node(_) => f.write_str("0"),
        }
    }
}
