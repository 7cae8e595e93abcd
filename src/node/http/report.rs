//! Reports: responses that grow with the number of peers, written in steps.

use super::{metrics_text, page, status_json};
use crate::base::time::Now;
use crate::node::command::status::{PeerView, linked_peers};
use crate::node::state::State;
use crate::node::tasks::{Draft, ReportKind};
use crate::wire::http::{HTML, JSON, OPENMETRICS_TEXT, PROMETHEUS_TEXT};

/// Peers per step: about 50 µs, most of it for the false-positive rates to be expected.
const PEERS_PER_STEP: usize = 16;

/// The type of content of a report.
pub(in crate::node) const fn content_type(kind: ReportKind) -> &'static str {
    match kind {
        ReportKind::Page => HTML,
        ReportKind::Status => JSON,
        ReportKind::Prometheus => PROMETHEUS_TEXT,
        ReportKind::OpenMetrics => OPENMETRICS_TEXT,
    }
}

/// Writes the figures of the node in the first step, and some of the linked peers in each further one; true once the
/// report is complete. A peer that is linked or lost between two steps may be left out; none comes twice.
pub(in crate::node) fn step(state: &State, now: Now, kind: ReportKind, draft: &mut Draft) -> bool {
    if draft.text.is_empty() {
        match kind {
            ReportKind::Page => page::begin(state, now, draft),
            ReportKind::Status => status_json::begin(state, now, draft),
            ReportKind::Prometheus | ReportKind::OpenMetrics => metrics_text::begin(state, now, kind, draft),
        }
        return false;
    }
    let mut peers: Vec<PeerView> = linked_peers(state, now).skip(draft.peers).take(PEERS_PER_STEP).collect();
    let is_last = peers.len() < PEERS_PER_STEP;
    draft.peers += peers.len();
    peers.retain(|peer| draft.listed.insert(peer.addr));
    for peer in &peers {
        match kind {
            ReportKind::Page => page::put_peer(peer, draft),
            ReportKind::Status => status_json::put_peer(peer, draft),
            ReportKind::Prometheus | ReportKind::OpenMetrics => metrics_text::put_peer(peer, draft),
        }
    }
    if is_last {
        match kind {
            ReportKind::Page => page::end(draft),
            ReportKind::Status => status_json::end(state, draft),
            ReportKind::Prometheus | ReportKind::OpenMetrics => metrics_text::end(kind, draft),
        }
    }
    is_last
}
