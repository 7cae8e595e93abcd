//! Reports: responses that grow with the number of peers and clients, written in steps.

use super::{CLIENTS_LISTED_MAX, history_json, metrics_text, page, status_json};
use crate::base::time::Now;
use crate::node::command::status::{PeerView, linked_peers};
use crate::node::conn::connection::{ClientProtocol, Conn};
use crate::node::conn::session::Text;
use crate::node::http::draft::{ClientView, Draft};
use crate::node::state::State;
use crate::node::tasks::ReportKind;
use crate::wire::encoder::Protocol;
use crate::wire::http::{HTML, JSON, OPENMETRICS_TEXT, PROMETHEUS_TEXT};

/// Peers per step: about 50 µs, most of it for the predicted false-positive rates.
const PEERS_PER_STEP: usize = 16;

/// Connections per step: about 50 µs, most of it cache misses.
const CONNS_PER_STEP: usize = 512;

/// The content type of a report.
pub(in crate::node) const fn content_type(kind: ReportKind) -> &'static str {
    match kind {
        ReportKind::Page => HTML,
        ReportKind::Status | ReportKind::History => JSON,
        ReportKind::Prometheus => PROMETHEUS_TEXT,
        ReportKind::OpenMetrics => OPENMETRICS_TEXT,
    }
}

/// Does one step of a report: the metrics of the node, then some clients per step, then some linked peers per step.
/// Returns whether the report is complete. A peer that is linked or lost between two steps may be missing; none is
/// written twice.
pub(in crate::node) fn step(state: &State, now: Now, kind: ReportKind, draft: &mut Draft) -> bool {
    if !draft.is_begun {
        draft.is_begun = true;
        match kind {
            ReportKind::Page => draft.is_begun = page::begin(state, now, draft),
            ReportKind::Status => status_json::begin(state, now, draft),
            ReportKind::History => history_json::put(state, now, draft),
            ReportKind::Prometheus | ReportKind::OpenMetrics => metrics_text::begin(state, now, kind, draft),
        }
        return kind == ReportKind::History;
    }
    if !draft.are_clients_listed && matches!(kind, ReportKind::Page | ReportKind::Status) {
        look_at_clients(state, now, draft);
        if draft.are_clients_listed && kind == ReportKind::Status {
            status_json::put_clients(draft);
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
            ReportKind::History => {}
        }
    }
    if is_last {
        match kind {
            ReportKind::Page => page::end(state, now, draft),
            ReportKind::Status => status_json::end(state, draft),
            ReportKind::Prometheus | ReportKind::OpenMetrics => metrics_text::end(kind, draft),
            ReportKind::History => {}
        }
    }
    is_last
}

/// Visits some connections, and keeps the busiest clients.
fn look_at_clients(state: &State, now: Now, draft: &mut Draft) {
    let (conns, has_more) = state.conns.range(draft.conns, CONNS_PER_STEP);
    for conn in conns.filter(|conn| conn.is_client()) {
        let traffic = conn.traffic_per_second(now.mono);
        let at = draft.busiest.partition_point(|other| other.traffic >= traffic);
        if traffic > 0 && at < CLIENTS_LISTED_MAX {
            draft.busiest.truncate(CLIENTS_LISTED_MAX - 1);
            draft.busiest.insert(at, view(conn, now, traffic));
        }
    }
    draft.conns += CONNS_PER_STEP;
    draft.are_clients_listed = !has_more;
}

fn view(conn: &Conn, now: Now, traffic: u64) -> ClientView {
    ClientView {
        addr: conn.addr(),
        name: conn.session().map_or(&[][..], |session| session.text(Text::Name)).into(),
        protocol: match conn.speaks() {
            ClientProtocol::Http => "HTTP",
            ClientProtocol::Commands(Protocol::Lines) => "lines",
            ClientProtocol::Commands(Protocol::Resp2) => "RESP2",
            ClientProtocol::Commands(Protocol::Resp3) => "RESP3",
        },
        traffic,
        connected: now.mono.since(conn.since()),
        unsent: conn.unsent(),
    }
}
