//! The status of a node and of its mesh, for people and for monitoring programs.

use crate::base::time::Now;
use crate::filter::changelog::Position;
use crate::limits::CLOCK_AHEAD_MAX_MS;
use crate::node::command::error::CommandError;
use crate::node::command::row::{Call, CommandResult, Effect, Further};
use crate::node::conn::measure;
use crate::node::history::{Span, Summary};
use crate::node::ids::NodeId;
use crate::node::metrics::{METRICS, Metric, Recent, SECTIONS, Snapshot};
use crate::node::peer::address_book::AddressEntry;
use crate::node::peer::table::{Dialler, Peer};
use crate::node::state::State;
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// The most backups that one reply lists: about 300 µs.
const BACKUPS_LISTED_MAX: usize = 1_024;

/// The state of the copy of a peer's filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterState {
    /// No copy: the peer may hold any key.
    Unknown,
    /// Changes may be missing: the peer may hold any key.
    Outdated,
    /// Complete, except for changes in flight.
    Known,
}

/// One known peer or address, as MESH shows it.
#[derive(Debug, Clone)]
pub struct PeerView {
    /// The address at which it listens.
    pub addr: SocketAddr,
    /// Its identity, if a handshake ever succeeded.
    pub id: Option<NodeId>,
    /// Whether there is a link to it.
    pub is_linked: bool,
    /// Whether the link, if any, was dialled by this node.
    pub dialled: bool,
    /// The smoothed round trip, if one was measured.
    pub round_trip: Option<Duration>,
    /// The state of the copy of its filter.
    pub filter: FilterState,
    /// The time since its filter was last known to be complete.
    pub filter_age: Option<Duration>,
    /// The share of its filter's bits that are set.
    pub fill: Option<f64>,
    /// The predicted false-positive rate of its filter.
    pub predicted_rate: Option<f64>,
    /// The share of absent keys that its filter claimed lately.
    pub measured_rate: Option<f64>,
    /// The position in its changelog up to which its filter is known.
    pub position: Option<Position>,
    /// Queries to it in flight.
    pub queries: usize,
    /// Probes that it must answer before lookups query it again; 0: its circuit is closed.
    pub probes_left: u32,
    /// Failed dials since the last success.
    pub failures: u32,
    /// Whether it is being dialled and has no link.
    pub is_being_dialled: bool,
    /// Whether a handshake succeeded there, or a peer lists it and no dial has failed.
    pub is_credible: bool,
    /// Keys that its filter claims, estimated from its fill.
    pub claimed_keys: Option<f64>,
}

impl PeerView {
    /// Whether its filter is known, except for changes in flight.
    pub(in crate::node) fn is_filter_known(&self) -> bool {
        self.filter == FilterState::Known
    }
}

/// All known peers and addresses, the linked ones first.
pub(in crate::node) fn peers_known(state: &State, now: Now) -> Vec<PeerView> {
    linked_peers(state, now).chain(unlinked_peers(state)).collect()
}

/// The linked peers.
pub(in crate::node) fn linked_peers(state: &State, now: Now) -> impl Iterator<Item = PeerView> {
    state.mesh.peers.linked().map(move |(_, peer)| view_of_peer(state, now, peer))
}

/// The known addresses that are not those of linked nodes.
pub(in crate::node) fn unlinked_peers(state: &State) -> impl Iterator<Item = PeerView> {
    backups(state).map(view_of_address)
}

/// The entries of the address book that are not those of linked nodes. O(known addresses).
fn backups(state: &State) -> impl Iterator<Item = &AddressEntry> {
    state.mesh.address_book.unlinked(|id| state.mesh.peers.is_linked(id))
}

fn view_of_peer(state: &State, now: Now, peer: &Peer) -> PeerView {
    let filters = &state.mesh.filters;
    let fill = filters.fill(peer.filter());
    let filter = match (fill, filters.is_unknown(peer.filter())) {
        (None, _) => FilterState::Unknown,
        (Some(_), true) => FilterState::Outdated,
        (Some(_), false) => FilterState::Known,
    };
    PeerView {
        addr: peer.addr(),
        id: Some(peer.id()),
        is_linked: peer.is_linked(),
        dialled: peer.link().is_some_and(|link| link.dialler == Dialler::We),
        round_trip: peer.round_trip(),
        filter,
        filter_age: peer.following.known_at().map(|then| now.mono.since(then)),
        fill,
        predicted_rate: filters.predicted_false_positive_rate(peer.filter()),
        measured_rate: peer.measured_rate(),
        position: peer.following.position(),
        queries: peer.queries.len(),
        probes_left: peer.breaker.probes_left(),
        failures: 0,
        is_being_dialled: false,
        is_credible: true,
        claimed_keys: fill.and_then(|fill| Some(filters.size(peer.filter())?.keys_at_fill(fill))),
    }
}

fn view_of_address(entry: &AddressEntry) -> PeerView {
    PeerView {
        addr: entry.addr(),
        id: entry.id(),
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
        failures: entry.failures(),
        is_being_dialled: entry.dial().is_some(),
        is_credible: entry.is_credible(),
        claimed_keys: None,
    }
}

impl fmt::Display for PeerView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.addr)?;
        if !self.is_linked {
            return match self.failures {
                0 if self.is_being_dialled => f.write_str(" being dialled"),
                0 if self.is_credible => f.write_str(" backup"),
                0 => f.write_str(" not reached yet"),
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
            FilterState::Outdated => f.write_str("; filter outdated")?,
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

/// STATS [section or name …]: metrics; `calls` adds the calls per command. Not limited by `reply_bytes_max`, since the
/// reply is bounded by the tables.
pub(super) fn stats<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let snapshot = snapshot(state, call.now);
    let reply = &mut call.reply;
    let mut put = |metric: &Metric| reply.text(format_args!("{}:{}", metric.name, metric.read(&snapshot)));
    if call.args.is_empty() {
        METRICS.iter().for_each(&mut put);
    }
    for word in call.args.iter() {
        Metric::named(word).for_each(&mut put);
    }
    if call.args.iter().any(|word| word.eq_ignore_ascii_case(b"calls")) {
        for (row, calls) in call.table.rows.iter().zip(state.calls.iter()) {
            let name = row.name.to_ascii_lowercase().replace(' ', "_");
            call.reply.text(format_args!("calls_{name}:{calls}"));
        }
    }
    if call.reply.is_blank() {
        let word = call.args.get(0).unwrap_or_default();
        let topics = format!("sections ({}, summary, calls) and names of metrics", SECTIONS.join(", "));
        return Err(CommandError::UnknownTopic(call.command.name, topics, word));
    }
    Ok(Effect::Reply)
}

/// The quantiles of latency in the last minute.
fn recent(state: &State, now: Now) -> Recent {
    let latency = summary(state, now, Span::Minute).latency;
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| latency.quantile(share));
    Recent { p50, p99, p999 }
}

/// The counts and the latency of a span that ends now.
pub(in crate::node) fn summary(state: &State, now: Now, span: Span) -> Summary {
    state.history.summary(now.mono, span, measure::counters(state), &state.latency.of_all())
}

/// The values that the rows of the metrics table read. O(known addresses).
pub(in crate::node) fn snapshot(state: &State, now: Now) -> Snapshot<'_> {
    let mesh = &state.mesh;
    let filter = state.keyspace.own_filter();
    let backups = backups(state).count();
    Snapshot {
        stats: &state.stats,
        keyspace: &state.keyspace,
        limits: &state.config.limits,
        uptime: now.mono.since(state.started),
        clients: state.clients(),
        buffers_bytes: state.buffered.bytes() + state.pool.held(),
        is_ready: readiness(state).is_ready(),
        is_mesh_complete: backups == 0,
        peers_linked: mesh.peers.linked_count(),
        clock_ahead_ms: mesh.clock_offsets.ahead_ms(now.mono),
        configured: mesh.address_book.configured(|id| mesh.peers.is_linked(id)),
        peers_backup: backups,
        lookups_in_flight: mesh.lookups.len(),
        peer_filters_bytes: mesh.filters.bytes(),
        filter_fill: filter.fill(),
        filter_bits: filter.size().bits(),
        addresses_dropped: mesh.address_book.dropped(),
        node_id: mesh.id(),
        loop_times: &state.loop_times,
        loop_busy: state.loop_times.busy(now.mono),
        slow_requests: state.slow_log.count(),
        recent: recent(state, now),
    }
}

/// The conditions on which the readiness of the node depends.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Readiness {
    is_draining: bool,
    /// Milliseconds by which the wall clock is ahead of most others.
    clock_ahead_ms: u64,
    /// Whether a configured address was not dialled yet; false on a base node.
    has_untried: bool,
    /// The numbers of linked configured peers and of all configured peers.
    configured: (usize, usize),
    /// The numbers of linked peers whose filter is known or was refused, and of all linked peers.
    filters: (usize, usize),
}

impl Readiness {
    /// Whether the node is ready for requests.
    pub(in crate::node) fn is_ready(&self) -> bool {
        !self.is_draining
            && !self.has_untried
            && self.clock_ahead_ms <= CLOCK_AHEAD_MAX_MS
            && self.filters.0 == self.filters.1
    }

    /// The reasons why the node is not ready.
    pub(in crate::node) fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.is_draining {
            reasons.push("shutting down".to_owned());
        }
        if self.has_untried {
            let (linked, all) = self.configured;
            reasons.push(format!("configured peers linked: {linked}/{all}"));
        }
        if self.clock_ahead_ms > CLOCK_AHEAD_MAX_MS {
            let ahead_ms = self.clock_ahead_ms;
            reasons.push(format!("the wall clock is {ahead_ms} ms ahead of those of most other nodes"));
        }
        if self.filters.0 < self.filters.1 {
            reasons.push(format!("filters of linked peers known: {}/{}", self.filters.0, self.filters.1));
        }
        reasons
    }

    /// The reasons why the node is not ready; if it is ready, the warnings.
    pub(in crate::node) fn notes(&self) -> Vec<String> {
        if self.is_ready() { self.unlinked().into_iter().collect() } else { self.reasons() }
    }

    /// A warning if configured peers are not linked.
    pub(in crate::node) fn unlinked(&self) -> Option<String> {
        let (linked, all) = self.configured;
        (linked < all).then(|| format!("configured peers linked: {linked}/{all}"))
    }
}

/// OLIVIA STATS [section or name …]: metrics by name.
pub(super) fn metrics<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let snapshot = snapshot(state, call.now);
    let rows: Vec<&Metric> = if call.args.is_empty() {
        METRICS.iter().collect()
    } else {
        call.args.iter().flat_map(Metric::named).collect()
    };
    call.reply.map(rows.len());
    for row in rows {
        call.reply.text(row.name);
        call.reply.text(row.read(&snapshot));
    }
    Ok(Effect::Reply)
}

/// The readiness of the node: it has dialled each configured address, unless it is a base node; the filter of each
/// linked peer is known or was refused; its clock is not ahead. O(known addresses).
pub(in crate::node) fn readiness(state: &State) -> Readiness {
    let mesh = &state.mesh;
    let is_known = |peer: &Peer| peer.following.is_known_or_refused(&mesh.filters);
    let known = mesh.peers.linked().filter(|(_, peer)| is_known(peer)).count();
    Readiness {
        is_draining: state.is_draining,
        clock_ahead_ms: mesh.clock_offsets.ahead_ms(state.links_current_at),
        has_untried: !state.config.base_node && mesh.address_book.iter().any(|(_, entry)| entry.is_untried()),
        configured: mesh.address_book.configured(|id| mesh.peers.is_linked(id)),
        filters: (known, mesh.peers.linked_count()),
    }
}

/// MESH: one quoted field per peer, and one with the number of backups left out.
pub(super) fn mesh<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let mut backups = backups(state);
    for peer in
        linked_peers(state, call.now).chain(backups.by_ref().take(BACKUPS_LISTED_MAX).map(view_of_address))
    {
        call.reply.text(format_args!("\"{peer}\""));
    }
    let left_out = backups.count();
    if left_out > 0 {
        call.reply.text(format_args!("\"and {left_out} more\""));
    }
    call.check_length(state)?;
    Ok(Effect::Reply)
}

/// OLIVIA MESH: a line per known node, the linked ones first, then at most [`BACKUPS_LISTED_MAX`] others.
pub(super) fn nodes<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let linked = state.mesh.peers.linked().map(|(_, peer)| view_of_peer(state, call.now, peer));
    let backups = backups(state).take(BACKUPS_LISTED_MAX).map(view_of_address);
    let views: Vec<PeerView> = linked.chain(backups).collect();
    call.reply.array(views.len());
    views.iter().for_each(|view| call.reply.text(view));
    Ok(Effect::Reply)
}

/// REQUEST without a topic.
pub(super) fn request<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    Err(call.table.unknown_topic(call.command, b""))
}

/// REQUEST peers: the addresses of the linked nodes, then the others, quoted, each with its state.
pub(super) fn peers<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let linked = state.mesh.peers.linked().map(|(_, peer)| peer.addr());
    // A restarted node can be linked at the same address before its old link has timed out.
    let mut listed = BTreeSet::new();
    for addr in linked {
        if listed.insert(addr) {
            call.reply.text(addr);
        }
    }
    for other in backups(state).take(BACKUPS_LISTED_MAX).map(view_of_address) {
        if listed.insert(other.addr) {
            call.reply.text(format_args!("\"{other}\""));
        }
    }
    call.check_length(state)?;
    Ok(Effect::Reply)
}

/// REQUEST bloomfilter: a dump of the own filter.
pub(super) fn filter<'a>(_: &mut State, _: &mut Call<'a>) -> CommandResult<'a> {
    Ok(Further::DumpFilter.into())
}

/// REQUEST connect: with arguments the handshake of a node, without them the same as REQUEST bloomfilter.
pub(super) fn connect<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    if !call.args.is_empty() {
        return Ok(Further::Handshake.into());
    }
    match state.conns.get(call.conn) {
        Some(conn) if conn.is_authenticated() => Ok(Further::DumpFilter.into()),
        Some(_) | None => Err(CommandError::Unauthenticated),
    }
}

/// WHO: this node if it holds a key, then the linked nodes whose filters claim it, the nearest first. Queries no node.
pub(super) fn who<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let Some(key) = call.args.get(0) else { return Ok(Effect::Reply) };
    let (is_here, holders) = holders(state, call.now, key);
    if is_here {
        call.reply.key(key);
        call.reply.text("here");
    }
    for addr in holders {
        call.reply.key(key);
        call.reply.text(addr);
    }
    call.check_length(state)?;
    Ok(Effect::Reply)
}

/// OLIVIA WHO: as WHO for several keys, an array per key.
pub(super) fn whos<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    call.reply.array(call.args.len());
    for key in call.args.iter() {
        let (is_here, holders) = holders(state, call.now, key);
        call.reply.array(usize::from(is_here) + holders.len());
        if is_here {
            call.reply.text("here");
        }
        holders.iter().for_each(|addr| call.reply.text(addr));
    }
    call.check_length(state)?;
    Ok(Effect::Reply)
}

/// Whether a key is here, and the linked peers that claim it, the nearest first.
fn holders(state: &mut State, now: Now, key: &[u8]) -> (bool, Vec<SocketAddr>) {
    let hashed = state.keyspace.key(key);
    let is_here = state.keyspace.peek(now, hashed).is_some();
    state.mesh.may_be_elsewhere(hashed.hash.0);
    let peers = state.mesh.claimants().map(|(_, peer)| peer).filter(|peer| peer.is_linked());
    let mut holders: Vec<(Duration, SocketAddr)> = peers.map(|peer| (peer.distance(), peer.addr())).collect();
    holders.sort();
    (is_here, holders.into_iter().map(|(_, addr)| addr).collect())
}
