//! What a node tells of itself and of its mesh, for people and for programs that watch it.

use crate::base::time::Now;
use crate::filter::changelog::Position;
use crate::node::conn::connection::Conn;
use crate::node::ids::{ConnKey, NodeId};
use crate::node::metrics::{METRICS, Snapshot};
use crate::node::peer::address_book::{AddressEntry, Origin};
use crate::node::peer::table::{Dialler, Peer};
use crate::node::state::State;
use crate::node::tasks;
use crate::wire::reply::{Reply, ReplyTooLong, put_error};
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Backups that one reply lists, of all that may be known: some 300 µs of writing.
const BACKUPS_LISTED_MAX: usize = 1_024;

/// What is known of a peer's filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterState {
    /// Nothing: it may have any key.
    Unknown,
    /// Something, but changes may be missing: it may have any key.
    Doubtful,
    /// All of it, up to what is on its way.
    Known,
}

/// One known peer or address, as MESH tells it.
#[derive(Debug, Clone)]
pub struct PeerView {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its identity, if it was ever met.
    pub id: Option<NodeId>,
    /// Whether there is a link to it.
    pub is_linked: bool,
    /// Whether the link, if any, was dialled by this node.
    pub dialled: bool,
    /// The smoothed round trip, if one was measured.
    pub round_trip: Option<Duration>,
    /// What is known of its filter.
    pub filter: FilterState,
    /// How long ago its filter was known to be whole.
    pub filter_age: Option<Duration>,
    /// The share of its filter's bits that are set.
    pub fill: Option<f64>,
    /// The false-positive rate to be expected of its filter, and the one that was measured.
    pub predicted_rate: Option<f64>,
    /// The share of absent keys that its filter claimed lately.
    pub measured_rate: Option<f64>,
    /// The place in its digest up to which it is known.
    pub position: Option<Position>,
    /// Questions to it on their way.
    pub queries: usize,
    /// Probes that it has to answer before lookups query it again: its circuit is open if there are any.
    pub probes_left: u32,
    /// Failed tries to reach it since the last success.
    pub failures: u32,
}

/// All that is known of other nodes: the linked ones first.
pub(in crate::node) fn peers_known(state: &State, now: Now) -> Vec<PeerView> {
    let mesh = &state.mesh;
    let linked = mesh.peers.linked().map(|(_, peer)| view_of_peer(state, now, peer));
    linked.chain(backups(state).map(view_of_contact)).collect()
}

/// Addresses that lead to no linked node, and where one may be.
fn backups(state: &State) -> impl Iterator<Item = &AddressEntry> {
    state.mesh.address_book.apart(|id| state.mesh.peers.is_linked(id))
}

fn view_of_peer(state: &State, now: Now, peer: &Peer) -> PeerView {
    let filters = &state.mesh.filters;
    let fill = filters.fill(peer.filter);
    let filter = match (fill, filters.is_unknown(peer.filter)) {
        (None, _) => FilterState::Unknown,
        (Some(_), true) => FilterState::Doubtful,
        (Some(_), false) => FilterState::Known,
    };
    PeerView {
        addr: peer.addr,
        id: Some(peer.id),
        is_linked: peer.link.is_some(),
        dialled: peer.link.is_some_and(|link| link.dialler == Dialler::We),
        round_trip: peer.round_trip(),
        filter,
        filter_age: peer.filter_known_at.map(|then| now.mono.since(then)),
        fill,
        predicted_rate: filters.predicted_false_positive_rate(peer.filter),
        measured_rate: peer.claim_stats.measured_rate(),
        position: peer.receiver.position(),
        queries: peer.queries.len(),
        probes_left: peer.breaker.probes_left(),
        failures: 0,
    }
}

fn view_of_contact(contact: &AddressEntry) -> PeerView {
    PeerView {
        addr: contact.addr,
        id: contact.id(),
        is_linked: false,
        dialled: false,
        round_trip: None,
        filter: FilterState::Unknown,
        filter_age: None,
        fill: None,
        predicted_rate: None,
        measured_rate: None,
        position: None,
        queries: 0,
        probes_left: 0,
        failures: contact.failures,
    }
}

impl fmt::Display for PeerView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.addr)?;
        if !self.is_linked {
            return match self.failures {
                0 => f.write_str(" backup"),
                failures => write!(f, " unreachable; tries {failures}"),
            };
        }
        f.write_str(" linked; round trip ")?;
        match self.round_trip {
            Some(took) => write!(f, "{} us", took.as_micros())?,
            None => f.write_str("not measured")?,
        }
        match self.filter {
            FilterState::Unknown => f.write_str("; filter unknown")?,
            FilterState::Doubtful => f.write_str("; filter doubtful")?,
            FilterState::Known => f.write_str("; filter known")?,
        }
        if let Some(age) = self.filter_age {
            write!(f, " {} ms ago", age.as_millis())?;
        }
        if self.probes_left > 0 {
            write!(f, "; circuit open: does not answer queries; probes left {}", self.probes_left)?;
        }
        if let Some(fill) = self.fill {
            write!(f, "; fill {:.1} %", 100.0 * fill)?;
        }
        if let Some(rate) = self.predicted_rate {
            write!(f, "; false positives predicted {:.3} %", 100.0 * rate)?;
        }
        if let Some(rate) = self.measured_rate {
            write!(f, " measured {:.3} %", 100.0 * rate)?;
        }
        Ok(())
    }
}

/// Writes a reply behind those before it; one that is too long becomes an error.
fn reply(state: &mut State, key: ConnKey, id: &[u8], write: impl FnOnce(&State, &mut Vec<u8>)) {
    let mut text = state.pool.take();
    write(state, &mut text);
    let limit_bytes = state.config.limits.reply_bytes_max;
    if text.len() > limit_bytes as usize {
        state.stats.request_errors += 1;
        text.clear();
        put_error(&mut text, id, ReplyTooLong { limit_bytes, keys: 0 });
    }
    let State { conns, pool, .. } = state;
    if let Some(Conn { replies, outbound, .. }) = conns.get_mut(key) {
        replies.next(outbound, pool, |out| out.extend_from_slice(&text));
    }
    state.pool.give(text);
}

/// STATS: whatever the limit of replies is, since it is bounded by itself.
pub(in crate::node) fn stats(state: &mut State, now: Now, key: ConnKey, id: &[u8]) {
    let mut text = state.pool.take();
    let snapshot = snapshot(state, now);
    let mut reply = Reply::begin(&mut text, id, "STATS");
    for metric in &METRICS {
        reply.text(format_args!("{}:{}", metric.name, metric.read(&snapshot)));
    }
    reply.end();
    let State { conns, pool, .. } = state;
    if let Some(Conn { replies, outbound, .. }) = conns.get_mut(key) {
        replies.next(outbound, pool, |out| out.extend_from_slice(&text));
    }
    state.pool.give(text);
}

fn snapshot(state: &State, now: Now) -> Snapshot<'_> {
    let mesh = &state.mesh;
    let filter = state.keyspace.own_filter();
    let backups = backups(state).count();
    Snapshot {
        stats: &state.stats,
        keyspace: &state.keyspace,
        limits: &state.config.limits,
        uptime: now.mono.since(state.started),
        clients: state.clients(),
        buffers_bytes: state.buffered + state.pool.held(),
        is_ready: is_ready(state),
        is_mesh_complete: backups == 0,
        peers_linked: mesh.peers.linked_count(),
        configured: mesh.address_book.configured(|id| mesh.peers.is_linked(id)),
        peers_backup: backups,
        lookups_in_flight: mesh.lookups.len(),
        peer_filters_bytes: mesh.filters.bytes(),
        filter_fill: filter.fill(),
        filter_bits: filter.size().bits(),
        addresses_dropped: mesh.address_book.refused,
        node_id: mesh.id,
    }
}

/// Whether the node is ready: it has tried each configured address, unless it is a base node, and knows the filter of
/// each linked peer, or has refused it.
pub(in crate::node) fn is_ready(state: &State) -> bool {
    let mesh = &state.mesh;
    let tried =
        |contact: &AddressEntry| contact.origin == Origin::Learned || contact.was_tried || contact.is_self;
    !state.is_draining
        && (state.config.base_node || mesh.address_book.iter().all(|(_, contact)| tried(contact)))
        && mesh.peers.linked().all(|(_, peer)| peer.refusals > 0 || !mesh.filters.is_unknown(peer.filter))
}

/// MESH: one quoted field for each peer, and one for the backups that are left out.
pub(in crate::node) fn mesh(state: &mut State, now: Now, key: ConnKey, id: &[u8]) {
    reply(state, key, id, |state, out| {
        let mut reply = Reply::begin(out, id, "MESH");
        let linked = state.mesh.peers.linked().map(|(_, peer)| view_of_peer(state, now, peer));
        let mut backups = backups(state);
        for peer in linked.chain(backups.by_ref().take(BACKUPS_LISTED_MAX).map(view_of_contact)) {
            reply.text(format_args!("\"{peer}\""));
        }
        let left_out = backups.count();
        if left_out > 0 {
            reply.text(format_args!("\"and {left_out} more\""));
        }
        reply.end();
    });
}

/// REQUEST peers: the linked ones, then the others.
pub(in crate::node) fn peers(state: &mut State, key: ConnKey, id: &[u8]) {
    reply(state, key, id, |state, out| {
        let mut reply = Reply::begin(out, id, "FULFILLED");
        let linked = state.mesh.peers.linked().map(|(_, peer)| peer.addr);
        // Until a dead node's link is found dead, its successor may live at the same address.
        let mut told = BTreeSet::new();
        let backups = backups(state).take(BACKUPS_LISTED_MAX);
        for addr in linked.chain(backups.map(|contact| contact.addr)) {
            if told.insert(addr) {
                reply.text(addr);
            }
        }
        reply.end();
    });
}

/// REQUEST bloomfilter, and REQUEST connect by a person: our filter as text.
pub(in crate::node) fn filter(state: &mut State, key: ConnKey, id: &[u8]) {
    tasks::begin_filter_dump(state, key, id);
}

/// WHO: who holds a key, here, or by its filter's claim, the nearest first. Nobody is asked.
pub(in crate::node) fn who(state: &mut State, now: Now, key: ConnKey, id: &[u8], who: &[u8]) {
    let hashed = state.keyspace.key(who);
    let is_here = state.keyspace.get(now, hashed).is_some();
    state.mesh.may_be_elsewhere(hashed.hash.0);
    let mesh = &state.mesh;
    let peers = mesh.claims.iter().filter_map(|filter| mesh.peers.by_filter(*filter));
    let peers = peers.filter_map(|peer| mesh.peers.get(peer)).filter(|peer| peer.link.is_some());
    let mut holders: Vec<(Duration, SocketAddr)> = peers.map(|peer| (peer.distance(), peer.addr)).collect();
    holders.sort();
    reply(state, key, id, |_, out| {
        let mut reply = Reply::begin(out, id, "HELD");
        if is_here {
            reply.key_text(who, "here");
        }
        for (_, addr) in holders {
            reply.key_text(who, addr);
        }
        reply.end();
    });
}
