//! `/`: one document with its style and its script, which draws `/status.json` each second. Without JavaScript it holds
//! the same figures as tables, and loads itself again. Writing to a vector does not fail.

use crate::base::time::Now;
use crate::node::command::status::{PeerView, snapshot};
use crate::node::metrics::METRICS;
use crate::node::state::State;
use crate::node::tasks::Draft;
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
    text.extend_from_slice(b"</table>\n<table>\n<caption>Linked peers</caption>\n");
}
