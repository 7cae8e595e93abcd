//! `/`: the page, one document with its style and pictures. With JavaScript a short script replaces the parts of class
//! `live` each second; without it the browser reloads the page. Writing to a vector or a string does not fail.

use super::drawing::{self, Chart, Classes, Line, Place, Spark, micros};
use super::{CLIENTS_LISTED_MAX, SLOW_LISTED_MAX, UNLINKED_LISTED_MAX};
use crate::base::human::{self, bytes, count, percent, span};
use crate::base::time::Now;
use crate::node::command::slow::command_name;
use crate::node::command::status::{PeerView, readiness, snapshot, summary, unlinked_peers};
use crate::node::command::table::TABLE;
use crate::node::history::{Sample, Span, Summary};
use crate::node::http::draft::{ClientView, Draft};
use crate::node::metrics::{METRICS, Metric, SECTIONS, Snapshot, Value};
use crate::node::state::State;
use std::fmt::{self, Display};
use std::io::Write;
use std::time::Duration;

const HEAD: &str =
    concat!(include_str!("page/head.html"), "<style>\n", include_str!("page/style.css"), "</style>\n");

/// The body, with `{{name}}` in the place of each part.
const BODY: &str = include_str!("page/body.html");

const END: &str = concat!(include_str!("page/script.js"), "</script>\n</body>\n</html>\n");

/// The most peers in the picture; the table contains all that are listed.
const DRAWN_MAX: usize = 160;

/// Samples per small line: those of ten minutes.
const SPARK_SAMPLES: u64 = 60;

/// Indices of the parts that are written before the rest, in steps: the charts of two spans, then links, circles and
/// rows of the peers.
const HOUR: usize = 0;
const DAY: usize = 1;
const LINKS: usize = 2;
const NODES: usize = 3;
const ROWS: usize = 4;
const PARTS: usize = 5;

/// Writes the charts, one span per call. Returns true once all parts exist; clients and peers follow.
pub(super) fn begin(state: &State, now: Now, draft: &mut Draft) -> bool {
    let parts = &mut draft.families;
    match parts.len() {
        HOUR => parts.push(charts(state, now, Span::Hour)),
        DAY => parts.push(charts(state, now, Span::Day)),
        _ => {
            draft.peers_known =
                state.mesh.peers.linked_count() + unlinked_peers(state).take(UNLINKED_LISTED_MAX).count();
            parts.resize(PARTS, Vec::new());
        }
    }
    parts.len() == PARTS
}

/// Draws a peer and writes its row.
pub(super) fn put_peer(peer: &PeerView, draft: &mut Draft) {
    let [.., links, nodes, rows] = draft.families.as_mut_slice() else { return };
    let at = draft.peers_written;
    draft.peers_written += 1;
    if at < DRAWN_MAX {
        drawing::put_peer(peer, Place { at, of: draft.peers_known.clamp(at + 1, DRAWN_MAX) }, links, nodes);
    }
    let (word, style) = match (peer.is_linked, peer.failures, peer.probes_left) {
        (false, 0, _) => ("not linked", "warn"),
        (false, ..) => ("unreachable", "bad"),
        (true, _, 0) => ("linked", "good"),
        (true, ..) => ("does not answer", "warn"),
    };
    let addr = peer.addr;
    let _ = write!(rows, "<tr><th scope=\"row\">{addr}</th><td class=\"{style}\">{word}</td>");
    let number = |text: Option<String>| format!("<td class=\"number\">{}</td>", text.unwrap_or_default());
    let known = if peer.is_filter_known() { "known" } else { "unknown" };
    let cells = [
        number(peer.round_trip.map(micros)),
        format!("<td>{}</td>", if peer.is_linked { known } else { "" }),
        number(peer.filter_age.map(span)),
        number(peer.claimed_keys.map(count)),
        number(peer.fill.map(|fill| percent(fill, 1))),
        number(peer.measured_rate.map(|rate| percent(rate, 3))),
        number(peer.predicted_rate.map(|rate| percent(rate, 3))),
        number(peer.is_linked.then(|| count(peer.queries as f64))),
    ];
    let _ = writeln!(rows, "{}</tr>", cells.concat());
}

/// Adds the addresses without a link, and assembles the page.
pub(super) fn end(state: &State, now: Now, draft: &mut Draft) {
    for peer in unlinked_peers(state).take(UNLINKED_LISTED_MAX) {
        put_peer(&peer, draft);
    }
    let snapshot = snapshot(state, now);
    draft.text.extend_from_slice(HEAD.as_bytes());
    let mut pieces = BODY.split("{{");
    draft.text.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
    for piece in pieces {
        let (name, rest) = piece.split_once("}}").unwrap_or_default();
        put_part(state, now, &snapshot, name, draft);
        draft.text.extend_from_slice(rest.as_bytes());
    }
    draft.text.extend_from_slice(END.as_bytes());
}

/// Writes the part of the body with this name.
fn put_part(state: &State, now: Now, snapshot: &Snapshot<'_>, name: &str, draft: &mut Draft) {
    let metrics = Metrics(snapshot);
    let Draft { text, families, busiest, peers_known, .. } = draft;
    let number = |name| count(metrics.number(name) as f64);
    let size = |name| bytes(metrics.number(name) as f64);
    match name {
        "where" => put_where(state, snapshot, text),
        "state" => put_state(state, text),
        "rate" | "hits" | "p99" | "keys" | "memory" | "busy" => put_tile(state, now, &metrics, name, text),
        "mesh-title" if *peers_known == 0 => text.extend_from_slice(b"Mesh"),
        "mesh-title" => {
            let linked = snapshot.peers_linked;
            let _ = write!(text, "Mesh: {linked} of {peers_known} other nodes linked");
        }
        "mesh" => put_mesh(state, snapshot, families, *peers_known, text),
        "charts-hour" => text.append(&mut families[HOUR]),
        "charts-day" => text.append(&mut families[DAY]),
        "peers" => put_rows(&families[ROWS], 10, text),
        "spans" => put_spans(state, now, text),
        "kinds" => put_kinds(&metrics, text),
        "classes" => put_classes(state, text),
        "slow" => put_slow(state, now, text),
        "clients" => put_clients(busiest, text),
        "metrics" => put_metrics(snapshot, text),
        "lookups" => put_list(
            text,
            &[
                ("Keys looked up", number("lookups")),
                ("Found", number("lookup_hits")),
                ("Not found", number("lookup_misses")),
                ("Timed out", number("lookup_timeouts")),
                ("In flight", number("lookups_in_flight")),
                ("Queries", number("queries")),
                ("False positives", number("query_false_positives")),
            ],
        ),
        "filters" => put_list(
            text,
            &[
                ("Own filter", bytes(metrics.number("filter_bits") as f64 / 8.0)),
                ("Own fill", percent(metrics.ratio("filter_fill"), 1)),
                ("Filters of peers", size("peer_filters_bytes")),
                ("Sent", size("digest_sent_bytes")),
                ("Received", size("digest_received_bytes")),
            ],
        ),
        "connections" => put_list(
            text,
            &[
                ("Clients", number("clients")),
                ("Accepted", number("connections_accepted")),
                ("Buffers", size("buffers_bytes")),
                ("Errors in requests", number("request_errors")),
            ],
        ),
        _ => debug_assert!(false, "no part {name}"),
    }
}

/// Metrics by their names in the metrics table.
struct Metrics<'s>(&'s Snapshot<'s>);

impl Metrics<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        Metric::named(name.as_bytes()).next().map(|metric| metric.read(self.0))
    }

    fn number(&self, name: &str) -> u64 {
        match self.value(name) {
            Some(Value::Number(number)) => number,
            Some(Value::Ratio(_) | Value::Flag(_) | Value::Text(_) | Value::Node(_)) | None => 0,
        }
    }

    fn ratio(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Value::Ratio(ratio)) => ratio,
            Some(Value::Number(_) | Value::Flag(_) | Value::Text(_) | Value::Node(_)) | None => 0.0,
        }
    }
}

fn put_where(state: &State, snapshot: &Snapshot<'_>, text: &mut Vec<u8>) {
    let (up, version) = (span(snapshot.uptime), env!("CARGO_PKG_VERSION"));
    let _ = write!(text, "{} · up {up} · version {version}", state.mesh.advertised());
}

fn put_state(state: &State, text: &mut Vec<u8>) {
    let notes = readiness(state).notes();
    let (style, words) =
        if notes.is_empty() { ("good", "ready".to_owned()) } else { ("warn", notes.join("; ")) };
    let _ = write!(text, "<span class=\"{style}\">{words}</span>");
}

/// Writes the content of a tile: a figure, a note, and a small line over the last ten minutes or a meter.
fn put_tile(state: &State, now: Now, metrics: &Metrics<'_>, name: &str, text: &mut Vec<u8>) {
    let minute = summary(state, now, Span::Minute);
    let number = |name| count(metrics.number(name) as f64);
    let ratio = |hits: u64, misses: u64| (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64);
    let quantile = |share| (minute.latency.count() > 0).then(|| micros(minute.latency.quantile(share)));
    let dash = || "–".to_owned();
    let (figure, note, below) = match name {
        "rate" => (
            count(minute.rise.requests as f64 / minute.seconds),
            format!("{} since the start", number("requests")),
            spark(state, now, None, |sample| Some(sample.rise.requests as f64)),
        ),
        "hits" => {
            let whole = ratio(metrics.number("hits"), metrics.number("misses"));
            let none = || "no key was read yet".to_owned();
            (
                ratio(minute.rise.hits, minute.rise.misses).map_or_else(dash, |ratio| percent(ratio, 1)),
                whole.map_or_else(none, |ratio| format!("{} since the start", percent(ratio, 1))),
                spark(state, now, Some(1.0), hit_ratio),
            )
        }
        "p99" => (
            quantile(0.99).unwrap_or_else(dash),
            quantile(0.5)
                .map_or("no request in the last minute".to_owned(), |half| format!("50 % within {half}")),
            spark(state, now, None, |sample| Some(f64::from(sample.quantiles[1]))),
        ),
        "keys" => (
            number("keys"),
            format!("{} set, {} expired", number("sets"), number("expirations")),
            String::new(),
        ),
        "memory" => {
            let [held, live, max] =
                ["memory_bytes", "memory_live_bytes", "memory_max"].map(|name| metrics.number(name));
            let (part, of, note) = if max > 0 {
                (held, max, format!("of {}", bytes(max as f64)))
            } else {
                (live, held, format!("{} in items", bytes(live as f64)))
            };
            (bytes(held as f64), note, meter(part as f64 / of.max(1) as f64))
        }
        _ => {
            let busy = metrics.ratio("loop_busy_ratio");
            let longest = human::micros(metrics.number("iteration_max_us") as f64);
            (percent(busy, 1), format!("longest iteration {longest}"), meter(busy))
        }
    };
    let _ = write!(text, "<b>{figure}</b><small>{note}</small>{below}");
}

fn meter(share: f64) -> String {
    format!("<span class=\"meter\"><i style=\"width:{:.1}%\"></i></span>", 100.0 * share.min(1.0))
}

fn spark(state: &State, now: Now, max: Option<f64>, read: fn(&Sample) -> Option<f64>) -> String {
    let (_, each) = Span::Hour.seconds();
    let first = (now.mono.millis() / 1_000 / each).saturating_sub(SPARK_SAMPLES);
    let samples = state.history.samples(Span::Hour).iter().filter(|sample| sample.number >= first);
    let values: Vec<f64> = samples.filter_map(read).collect();
    Spark { values: &values, max }.to_string()
}

fn hit_ratio(sample: &Sample) -> Option<f64> {
    let read = sample.rise.hits + sample.rise.misses;
    (read > 0).then(|| sample.rise.hits as f64 / read as f64)
}

/// The four charts of a span.
fn charts(state: &State, now: Now, shown: Span) -> Vec<u8> {
    let samples: Vec<&Sample> = state.history.samples(shown).iter().collect();
    let (length, each) = shown.seconds();
    let quantile = |at| match at {
        0 => |sample: &Sample| (sample.rise.requests > 0).then(|| f64::from(sample.quantiles[0])),
        1 => |sample: &Sample| (sample.rise.requests > 0).then(|| f64::from(sample.quantiles[1])),
        _ => |sample: &Sample| (sample.rise.requests > 0).then(|| f64::from(sample.quantiles[2])),
    };
    let rate: fn(&Sample) -> Option<f64> = match shown {
        Span::Minute | Span::Hour => {
            |sample| Some(sample.rise.requests as f64 / Span::Hour.seconds().1 as f64)
        }
        Span::Day => |sample| Some(sample.rise.requests as f64 / Span::Day.seconds().1 as f64),
    };
    let latency: [Line; 3] = [("p50", quantile(0)), ("p99", quantile(1)), ("p999", quantile(2))];
    let chart = |title, lines, form| Chart {
        samples: &samples,
        now: now.mono.millis() / 1_000,
        each,
        span: length,
        title,
        lines,
        form,
        max: None,
        is_logarithmic: false,
    };
    let rate: [Line; 1] = [("p50", rate)];
    let hits: [Line; 1] = [("p50", hit_ratio)];
    let memory: [Line; 1] = [("p50", |sample| Some(sample.memory as f64))];
    let mut text = Vec::new();
    for (caption, chart) in [
        (
            "Requests per second",
            chart("Requests per second", &rate[..], |value| format!("{} /s", count(value))),
        ),
        (
            "Latency <i class=\"p50\">50 %</i> <i class=\"p99\">99 %</i> <i class=\"p999\">99.9 %</i>",
            Chart {
                is_logarithmic: true,
                ..chart("Latency of half the requests and of 99 and 99.9 %", &latency[..], human::micros)
            },
        ),
        ("Hit ratio", Chart { max: Some(1.0), ..chart("Hit ratio", &hits[..], |value| percent(value, 0)) }),
        ("Memory", chart("Memory", &memory[..], bytes)),
    ] {
        let _ = writeln!(text, "<figure><figcaption>{caption}</figcaption>{chart}</figure>");
    }
    text
}

fn put_mesh(state: &State, snapshot: &Snapshot<'_>, parts: &[Vec<u8>], peers: usize, text: &mut Vec<u8>) {
    let (linked, keys) = (snapshot.peers_linked, snapshot.keyspace.store().len() as u64);
    let _ = writeln!(
        text,
        "<svg viewBox=\"0 0 760 470\" role=\"img\" aria-labelledby=\"mesh-title mesh-text\"><desc id=\"mesh-text\">This node \
         and {peers} others, of which {linked} are linked. The table of peers below has the same metrics.</desc>"
    );
    text.extend_from_slice(&parts[LINKS]);
    text.extend_from_slice(&parts[NODES]);
    drawing::put_own(peers, keys, text);
    if peers == 0 {
        let (x, y) = Place::own(0);
        let addr = state.mesh.advertised();
        drawing::put_text(
            text,
            "soft",
            (x, y + 72.0),
            format_args!("No other node is known. Start one with --peer {addr}"),
        );
    }
    text.extend_from_slice(b"</svg>");
}

/// Writes the rows of a table, or one row with `None.`
fn put_rows(rows: &[u8], columns: usize, text: &mut Vec<u8>) {
    if rows.is_empty() {
        let _ = writeln!(text, "<tr><td colspan=\"{columns}\">None.</td></tr>");
    }
    text.extend_from_slice(rows);
}

/// Writes the requests of the last minute, hour and day.
fn put_spans(state: &State, now: Now, text: &mut Vec<u8>) {
    for span in Span::ALL {
        let Summary { rise, seconds, latency } = summary(state, now, span);
        let dash = || "–".to_owned();
        let read = rise.hits + rise.misses;
        let ratio = (read > 0).then(|| percent(rise.hits as f64 / read as f64, 1));
        let quantile = |share| (latency.count() > 0).then(|| micros(latency.quantile(share)));
        let _ = write!(text, "<tr><th scope=\"row\">{}</th>", span.name());
        let rate = Some(count(rise.requests as f64 / seconds));
        for cell in [rate, ratio, quantile(0.5), quantile(0.99), quantile(0.999)] {
            let _ = write!(text, "<td class=\"number\">{}</td>", cell.unwrap_or_else(dash));
        }
        text.extend_from_slice(b"</tr>\n");
    }
}

/// Kinds of memory: label, metric and color.
const KINDS: [(&str, &str, &str); 9] = [
    ("Items up to 16 KiB", "memory_pages_bytes", "olive"),
    ("Larger items", "memory_large_objects_bytes", "olive-dark"),
    ("Index", "memory_index_bytes", "warn"),
    ("Timers", "memory_timers_bytes", "bad"),
    ("Eviction queues", "memory_eviction_bytes", "soft"),
    ("Own filter, changelog", "memory_filter_bytes", "violet"),
    ("Being freed", "memory_freeing_bytes", "line"),
    ("Filters of peers", "peer_filters_bytes", "blue"),
    ("Buffers", "buffers_bytes", "teal"),
];

fn put_kinds(metrics: &Metrics<'_>, text: &mut Vec<u8>) {
    let all: u64 = KINDS.iter().map(|(_, name, _)| metrics.number(name)).sum();
    text.extend_from_slice(b"<div class=\"bar\" aria-hidden=\"true\">");
    for (_, name, color) in KINDS {
        let width = 100.0 * metrics.number(name) as f64 / all.max(1) as f64;
        let _ = write!(text, "<span style=\"width:{width:.1}%;background:var(--{color})\"></span>");
    }
    text.extend_from_slice(b"</div><dl>");
    for (label, name, color) in KINDS {
        let dot = format!("<span class=\"dot\" style=\"background:var(--{color})\"></span>");
        let _ = write!(text, "<dt>{dot}{label}</dt><dd>{}</dd>", bytes(metrics.number(name) as f64));
    }
    text.extend_from_slice(b"</dl>");
}

fn put_classes(state: &State, text: &mut Vec<u8>) {
    let classes: Vec<_> = state.keyspace.store().classes().collect();
    let Some(top) = classes.iter().map(|class| class.held).max() else {
        text.extend_from_slice(b"No items.");
        return;
    };
    let (picture, top) = (Classes(&classes), bytes(top as f64));
    let _ = write!(
        text,
        "{picture}<small>Bytes of pages, and of them in slots in use, by bytes of a slot; the highest: {top}</small>"
    );
}

/// Writes the latest slow requests.
fn put_slow(state: &State, now: Now, text: &mut Vec<u8>) {
    let mut rows = Vec::new();
    for request in state.slow_log.requests().take(SLOW_LISTED_MAX) {
        let [here, peers, output] =
            [request.spent.here, request.spent.peers, request.spent.output].map(micros);
        let (command, client) = (command_name(&TABLE, request), request.client);
        let more = if request.others > 0 { format!(" and {} more", request.others) } else { String::new() };
        let ago = span(Duration::from_millis(now.wall_ms().saturating_sub(request.wall_ms)));
        let _ = write!(rows, "<tr><th scope=\"row\">{command}{more}</th><td>{ago}</td>");
        for time in [here, peers, output] {
            let _ = write!(rows, "<td class=\"number\">{time}</td>");
        }
        let _ = writeln!(rows, "<td>{client}</td></tr>");
    }
    put_rows(&rows, 6, text);
}

/// Writes the busiest clients.
fn put_clients(busiest: &[ClientView], text: &mut Vec<u8>) {
    let mut rows = Vec::new();
    for ClientView { addr, name, protocol, traffic, connected, unsent } in
        busiest.iter().take(CLIENTS_LISTED_MAX)
    {
        let name = Escaped(name);
        let _ = write!(rows, "<tr><th scope=\"row\">{addr}</th><td>{name}</td><td>{protocol}</td>");
        for cell in [format!("{}/s", bytes(*traffic as f64)), bytes(*unsent as f64), span(*connected)] {
            let _ = write!(rows, "<td class=\"number\">{cell}</td>");
        }
        rows.extend_from_slice(b"</tr>\n");
    }
    put_rows(&rows, 6, text);
}

/// A text from a client, escaped for HTML.
struct Escaped<'t>(&'t [u8]);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in String::from_utf8_lossy(self.0).chars() {
            match c {
                '<' | '>' | '&' | '"' | '\'' | '\0'..' ' => write!(f, "&#{};", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

fn put_list(text: &mut Vec<u8>, rows: &[(&str, String)]) {
    for (name, value) in rows {
        let _ = write!(text, "<dt>{name}</dt><dd>{value}</dd>");
    }
}

/// Writes all metrics, by section.
fn put_metrics(snapshot: &Snapshot<'_>, text: &mut Vec<u8>) {
    for section in SECTIONS {
        let _ = write!(text, "<section><h3>{section}</h3><dl>");
        for metric in METRICS.iter().filter(|metric| metric.section == section) {
            let (name, help, value) = (metric.name, metric.help, metric.read(snapshot));
            let _ = write!(text, "<dt title=\"{help}\">{name}</dt><dd>{value}</dd>");
        }
        text.extend_from_slice(b"</dl></section>\n");
    }
}
