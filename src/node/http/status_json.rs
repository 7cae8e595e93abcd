//! `/status.json`: the content of the page as JSON.

use super::{SLOW_LISTED_MAX, UNLINKED_LISTED_MAX};
use crate::base::time::Now;
use crate::node::command::slow::command_name;
use crate::node::command::status::{PeerView, readiness, snapshot, summary, unlinked_peers};
use crate::node::command::table::TABLE;
use crate::node::history::{Span, Summary};
use crate::node::http::draft::{ClientView, Draft};
use crate::node::metrics::{Kind, METRICS, SECTIONS, Value};
use crate::node::slow_log::SlowRequest;
use crate::node::state::State;
use crate::store::ClassMemory;
use std::fmt::{self, Display};
use std::io::Write;

/// Writes the document up to the clients.
pub(super) fn begin(state: &State, now: Now, draft: &mut Draft) {
    put_own(state, now, &mut draft.text);
}

/// Writes one peer. The text ends in `[` only before the first one.
pub(super) fn put_peer(peer: &PeerView, draft: &mut Draft) {
    let comma = if draft.text.ends_with(b"[") { "" } else { "," };
    put(&mut draft.text, format_args!("{comma}\n{}", PeerJson(peer)));
}

/// Writes the addresses without a link, and the end.
pub(super) fn end(state: &State, draft: &mut Draft) {
    for peer in unlinked_peers(state).take(UNLINKED_LISTED_MAX) {
        put_peer(&peer, draft);
    }
    draft.text.extend_from_slice(b"\n]}\n");
}

/// Appends some text. Writing to a vector does not fail.
fn put(text: &mut Vec<u8>, part: impl Display) {
    let _ = write!(text, "{part}");
}

fn put_own(state: &State, now: Now, text: &mut Vec<u8>) {
    let snapshot = snapshot(state, now);
    put(text, format_args!("{{\"uptime_ms\":{},\n\"notes\":[", snapshot.uptime.as_millis()));
    for (at, note) in readiness(state).notes().iter().enumerate() {
        put(text, format_args!("{}\"{note}\"", if at > 0 { "," } else { "" }));
    }
    put(text, "],\n\"metrics\":{");
    for (at, section) in SECTIONS.iter().enumerate() {
        put(text, format_args!("{}\"{section}\":{{", if at > 0 { ",\n" } else { "" }));
        let rows = METRICS.iter().filter(|metric| metric.section == *section);
        for (at, metric) in rows.enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let value = metric.read(&snapshot);
            match value {
                Value::Number(_) | Value::Ratio(_) => {
                    put(text, format_args!("{comma}\"{}\":{value}", metric.name))
                }
                Value::Flag(flag) => put(text, format_args!("{comma}\"{}\":{flag}", metric.name)),
                Value::Text(_) | Value::Node(_) => {
                    debug_assert_eq!(metric.kind, Kind::Text, "{}", metric.name);
                    put(text, format_args!("{comma}\"{}\":\"{value}\"", metric.name));
                }
            }
        }
        put(text, "}");
    }
    put(text, "},\n\"spans\":{");
    for (at, span) in Span::ALL.into_iter().enumerate() {
        let summary = summary(state, now, span);
        put(
            text,
            format_args!("{}\"{}\":{}", if at > 0 { ",\n" } else { "" }, span.name(), SummaryJson(&summary)),
        );
    }
    put(text, "},\n\"slow\":[");
    for (at, request) in state.slow_log.requests().take(SLOW_LISTED_MAX).enumerate() {
        put(text, format_args!("{}\n{}", if at > 0 { "," } else { "" }, SlowJson { request, now }));
    }
    put(text, "],\n\"classes\":[");
    for (at, class) in state.keyspace.store().classes().enumerate() {
        let ClassMemory { slot_bytes, held, live } = class;
        put(text, format_args!("{}[{slot_bytes},{held},{live}]", if at > 0 { "," } else { "" }));
    }
    put(text, "],\n\"clients\":[");
}

/// Writes the busiest clients, and the beginning of the peers.
pub(super) fn put_clients(draft: &mut Draft) {
    for (at, client) in draft.busiest.iter().enumerate() {
        put(&mut draft.text, format_args!("{}\n{}", if at > 0 { "," } else { "" }, ClientJson(client)));
    }
    put(&mut draft.text, "],\n\"peers\":[");
}

/// A client as a JSON object.
struct ClientJson<'c>(&'c ClientView);

impl Display for ClientJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ClientView { addr, name, protocol, traffic, connected, unsent } = self.0;
        write!(f, "{{\"address\":\"{addr}\",\"name\":\"{}\",\"protocol\":\"{protocol}\"", Escaped(name))?;
        write!(f, ",\"bytes_per_second\":{traffic},\"connected_ms\":{}", connected.as_millis())?;
        write!(f, ",\"unsent_bytes\":{unsent}}}")
    }
}

/// A text from a client, escaped for JSON.
struct Escaped<'t>(&'t [u8]);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in String::from_utf8_lossy(self.0).chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\0'..' ' => write!(f, "\\u{:04x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// The summary of a span as a JSON object.
struct SummaryJson<'s>(&'s Summary);

impl Display for SummaryJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { rise, seconds, latency } = self.0;
        write!(f, "{{\"seconds\":{seconds:.1},\"requests\":{}", rise.requests)?;
        write!(f, ",\"hits\":{},\"misses\":{}", rise.hits, rise.misses)?;
        let quantile = |share| (latency.count() > 0).then(|| latency.quantile(share).as_micros());
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| Known(quantile(share)));
        write!(f, ",\"p50_us\":{p50},\"p99_us\":{p99},\"p999_us\":{p999}}}")
    }
}

/// A slow request as a JSON object, without its key.
struct SlowJson<'s> {
    request: &'s SlowRequest,
    now: Now,
}

impl Display for SlowJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SlowRequest { id, wall_ms, spent, others, client, .. } = self.request;
        let age = self.now.wall_ms().saturating_sub(*wall_ms);
        let command = command_name(&TABLE, self.request);
        write!(f, "{{\"id\":{id},\"age_ms\":{age},\"command\":\"{command}\",\"others\":{others}")?;
        let [here, peers, output] = [spent.here, spent.peers, spent.output].map(|time| time.as_micros());
        write!(f, ",\"here_us\":{here},\"peers_us\":{peers},\"output_us\":{output}")?;
        write!(f, ",\"client\":\"{client}\"}}")
    }
}

/// A peer as a JSON object. Unknown values are `null`.
struct PeerJson<'p>(&'p PeerView);

impl Display for PeerJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.0;
        write!(f, "{{\"address\":\"{}\",\"id\":{}", peer.addr, Quoted(peer.id))?;
        write!(f, ",\"linked\":{},\"failures\":{}", peer.is_linked, peer.failures)?;
        write!(f, ",\"round_trip_us\":{}", Known(peer.round_trip.map(|took| took.as_micros())))?;
        write!(f, ",\"filter_known\":{}", peer.is_filter_known())?;
        write!(f, ",\"filter_age_ms\":{}", Known(peer.filter_age.map(|age| age.as_millis())))?;
        write!(f, ",\"fill\":{}", Known(peer.fill))?;
        write!(f, ",\"claimed_keys\":{}", Known(peer.claimed_keys))?;
        write!(f, ",\"false_positives_predicted\":{}", Known(peer.predicted_rate))?;
        write!(f, ",\"false_positives_measured\":{}", Known(peer.measured_rate))?;
        write!(f, ",\"queries\":{},\"circuit_open\":{}}}", peer.queries, peer.probes_left > 0)
    }
}

/// A number, or `null`.
struct Known<T>(Option<T>);

impl<T: Display> Display for Known<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("null"),
        }
    }
}

/// A text that needs no escapes, or `null`.
struct Quoted<T>(Option<T>);

impl<T: Display> Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => write!(f, "\"{value}\""),
            None => f.write_str("null"),
        }
    }
}
