//! `/status.json`: what the page shows.

use crate::base::time::Now;
use crate::node::command::status::{PeerView, readiness, snapshot, unlinked_peers};
use crate::node::metrics::{Kind, METRICS, SECTIONS, Value};
use crate::node::state::State;
use crate::node::tasks::Draft;
use std::fmt::{self, Display};
use std::io::Write;

/// Unlinked addresses that are listed, of all that may be known.
const UNLINKED_LISTED_MAX: usize = 128;

/// The document up to the peers.
pub(super) fn begin(state: &State, now: Now, draft: &mut Draft) {
    put_own(state, now, &mut draft.text);
}

/// One peer. The array ends in `[` only while it is empty.
pub(super) fn put_peer(peer: &PeerView, draft: &mut Draft) {
    let comma = if draft.text.ends_with(b"[") { "" } else { "," };
    put(&mut draft.text, format_args!("{comma}\n{}", PeerJson(peer)));
}

/// Addresses without a link, and the end.
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
    let readiness = readiness(state);
    let mut notes = readiness.reasons();
    if readiness.is_ready() {
        notes.extend(readiness.unlinked());
    }
    for (at, note) in notes.iter().enumerate() {
        put(text, format_args!("{}\"{note}\"", if at > 0 { "," } else { "" }));
    }
    put(text, "],\n\"figures\":{");
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
    put(text, "},\n\"peers\":[");
}

/// A peer as an object. What is not known is `null`.
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
