//! `/`: one document with its style and its script, which draws `/status.json` each second. Without JavaScript it holds
//! the same figures as tables, and loads itself again. Writing to a vector does not fail.

use super::status_json::SLOW_LISTED_MAX;
use crate::base::time::Now;
use crate::node::command::slow::command_name;
use crate::node::command::status::{PeerView, snapshot, summary};
use crate::node::command::table::TABLE;
use crate::node::history::{Span, Summary};
use crate::node::metrics::METRICS;
use crate::node::state::State;
use crate::node::tasks::{ClientView, Draft};
use std::io::Write;

const BEFORE: &str = concat!(
    include_str!("page/head.html"),
    "<style>\n",
    include_str!("page/style.css"),
    "</style>\n",
    include_str!("page/body.html"),
);
const AFTER: &str = concat!(
    "</table>\n</noscript>\n</main>\n<script>\n",
    include_str!("page/script.js"),
    "</script>\n</body>\n</html>\n"
);

/// The page up to the rows of the peers.
pub(super) fn begin(state: &State, now: Now, draft: &mut Draft) {
    draft.text.extend_from_slice(BEFORE.as_bytes());
    put_figures(state, now, &mut draft.text);
}

/// The row of a peer.
pub(super) fn put_peer(peer: &PeerView, draft: &mut Draft) {
    let _ = writeln!(draft.text, "<tr><td>{peer}</td></tr>");
}

/// What follows the rows of the peers.
pub(super) fn end(draft: &mut Draft) {
    draft.text.extend_from_slice(AFTER.as_bytes());
}

/// The part for browsers without JavaScript, up to the rows of the peers. No text here needs an escape.
fn put_figures(state: &State, now: Now, text: &mut Vec<u8>) {
    let snapshot = snapshot(state, now);
    text.extend_from_slice(b"<noscript>\n<table>\n<caption>Figures</caption>\n");
    for metric in &METRICS {
        let value = metric.read(&snapshot);
        let _ = writeln!(
            text,
            "<tr><th scope=\"row\">{}</th><td>{value}</td><td>{}</td></tr>",
            metric.name, metric.help
        );
    }
    put_spans(state, now, text);
    put_slow(state, now, text);
    text.extend_from_slice(b"<table>\n<caption>Clients by traffic</caption>\n");
}

/// The requests of the last minute, hour and day.
fn put_spans(state: &State, now: Now, text: &mut Vec<u8>) {
    text.extend_from_slice(
        b"</table>\n<table>\n<caption>Requests</caption>\n<tr><th scope=\"col\">Last</th>",
    );
    text.extend_from_slice(b"<th scope=\"col\">Per second</th><th scope=\"col\">Found of keys read</th>");
    text.extend_from_slice(
        b"<th scope=\"col\">50 %</th><th scope=\"col\">99 %</th><th scope=\"col\">99.9 %</th></tr>\n",
    );
    for span in Span::ALL {
        let Summary { rise, seconds, latency } = summary(state, now, span);
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| latency.quantile(share).as_micros());
        let _ = writeln!(
            text,
            "<tr><th scope=\"row\">{}</th><td>{:.1}</td><td>{} of {}</td><td>{p50} µs</td><td>{p99} µs</td><td>{p999} µs</td></tr>",
            span.name(),
            rise.requests as f64 / seconds,
            rise.hits,
            rise.hits + rise.misses
        );
    }
    text.extend_from_slice(b"</table>\n");
}

/// The latest slow requests.
fn put_slow(state: &State, now: Now, text: &mut Vec<u8>) {
    text.extend_from_slice(b"<table>\n<caption>Slow requests</caption>\n<tr><th scope=\"col\">Command</th>");
    text.extend_from_slice(
        b"<th scope=\"col\">Seconds ago</th><th scope=\"col\">Here</th><th scope=\"col\">Peers</th>",
    );
    text.extend_from_slice(b"<th scope=\"col\">Output</th><th scope=\"col\">Client</th></tr>\n");
    for request in state.slow_log.requests().take(SLOW_LISTED_MAX) {
        let [here, peers, output] =
            [request.spent.here, request.spent.peers, request.spent.output].map(|time| time.as_micros());
        let (command, client) = (command_name(&TABLE, request), request.client);
        let ago = now.wall_ms().saturating_sub(request.wall_ms) / 1_000;
        let _ = writeln!(
            text,
            "<tr><th scope=\"row\">{command}</th><td>{ago}</td><td>{here} µs</td><td>{peers} µs</td><td>{output} µs</td>\
             <td>{client}</td></tr>"
        );
    }
    text.extend_from_slice(b"</table>\n");
}

/// The busiest clients, and the beginning of the peers.
pub(super) fn put_clients(draft: &mut Draft) {
    for client in &draft.busiest {
        let ClientView { addr, protocol, traffic, .. } = client;
        let _ = writeln!(
            draft.text,
            "<tr><th scope=\"row\">{addr}</th><td>{protocol}</td><td>{traffic} bytes per second</td></tr>"
        );
    }
    draft.text.extend_from_slice(b"</table>\n<table>\n<caption>Linked peers</caption>\n");
}
