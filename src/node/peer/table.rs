//! The table of peers: nodes that are linked, or were recently.
//!
//! A peer is a node from its start to its end. It is kept for a while after its link was lost, so that digest sync
//! can resume.

use crate::base::slots::Slots;
use crate::base::time::Instant;
use crate::filter::FilterKey;
use crate::filter::claim_stats::{Claim, ClaimStats};
use crate::limits::HEARTBEATS_MISSED_MAX;
use crate::node::alarm::Alarm;
use crate::node::digest::following::Following;
use crate::node::ids::{ConnKey, NodeId, PeerKey, PeerTag};
use crate::node::lookup::queries::Queries;
use crate::node::peer::health::CircuitBreaker;
use crate::node::peer::stream::Stream;
use crate::node::versions::of_peer::PeerVersions;
use crate::store::KeyHash;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// The assumed round trip of a peer without a measured one.
const ROUND_TRIP_ASSUMED: Duration = Duration::from_millis(1);

/// Divisor that gives the weight of a new round trip in the smoothed one. RFC 6298.
const SMOOTHING: u32 = 8;

/// The longest time between two lists sent to a peer: well below the time after which it removes an address.
const LIST_EVERY: Duration = Duration::from_secs(120);

/// Which end dialled a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Dialler {
    We,
    They,
}

/// The connection to a peer.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Link {
    pub(in crate::node) conn: ConnKey,
    pub(in crate::node) dialler: Dialler,
}

/// A peer.
#[derive(Debug)]
pub(in crate::node) struct Peer {
    /// Whether lookups query it.
    pub(in crate::node) breaker: CircuitBreaker,
    /// The next heartbeat, or the removal of an unlinked peer.
    pub(in crate::node) alarm: Alarm,
    /// Own queries to it.
    pub(in crate::node) queries: Queries,
    /// The digest sync with it.
    pub(in crate::node) following: Following,
    pub(in crate::node) versions: PeerVersions,
    id: NodeId,
    /// The address that it listens on.
    addr: SocketAddr,
    link: Option<Link>,
    /// When the link was made or lost.
    since: Instant,
    /// When bytes were last received from it.
    received_at: Instant,
    /// Its last list had other linked nodes.
    has_other_links: bool,
    /// The link has lasted for a heartbeat, so dialling it counts as a success.
    is_stable: bool,
    /// It has shut down with its keys. Hints of others may name it for a while.
    has_left: bool,
    /// The ordered stream to it.
    pub(in crate::node) stream: Stream,
    round_trip: Option<Duration>,
    claim_stats: ClaimStats,
    /// Searches of the filters when `claim_stats` was last updated.
    searches_seen: u64,
    /// The version of the list of linked peers that was last sent.
    sent_list: u64,
    sent_list_at: Instant,
}

impl Peer {
    fn new(id: NodeId, addr: SocketAddr, now: Instant, filter: FilterKey, searches: u64) -> Self {
        Self {
            breaker: CircuitBreaker::new(),
            alarm: Alarm::default(),
            queries: Queries::default(),
            following: Following::new(filter),
            versions: PeerVersions::default(),
            id,
            addr,
            link: None,
            since: now,
            received_at: now,
            has_other_links: false,
            is_stable: false,
            has_left: false,
            stream: Stream::default(),
            round_trip: None,
            claim_stats: ClaimStats::new(),
            searches_seen: searches,
            sent_list: 0,
            sent_list_at: now,
        }
    }

    pub(in crate::node) const fn id(&self) -> NodeId {
        self.id
    }

    /// Where it listens.
    pub(in crate::node) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(in crate::node) const fn link(&self) -> Option<Link> {
        self.link
    }

    pub(in crate::node) const fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// When the link was made, or lost.
    pub(in crate::node) const fn since(&self) -> Instant {
        self.since
    }

    pub(in crate::node) const fn filter(&self) -> FilterKey {
        self.following.filter()
    }

    /// Whether lookups query it: it is linked, and its circuit is not open.
    pub(in crate::node) const fn is_queryable(&self) -> bool {
        self.link.is_some() && self.breaker.lets_pass()
    }

    /// Notes received bytes.
    pub(in crate::node) const fn received(&mut self, now: Instant) {
        self.received_at = now;
    }

    /// When its link is lost without further bytes, with this heartbeat interval.
    pub(in crate::node) fn lost_at(&self, interval: Duration) -> Instant {
        self.received_at.after(interval * HEARTBEATS_MISSED_MAX)
    }

    /// Notes its list of linked nodes.
    pub(in crate::node) const fn listed(&mut self, has_other_links: bool) {
        self.has_other_links = has_other_links;
    }

    pub(in crate::node) const fn has_other_links(&self) -> bool {
        self.has_other_links
    }

    /// Notes that the link has lasted for a heartbeat; returns whether that is the first one.
    pub(in crate::node) const fn lasted(&mut self) -> bool {
        !std::mem::replace(&mut self.is_stable, true)
    }

    /// Whether the link has lasted for a heartbeat.
    pub(in crate::node) const fn is_stable(&self) -> bool {
        self.is_stable
    }

    /// Notes its BYE.
    pub(in crate::node) const fn bye_received(&mut self, has_left: bool) {
        self.has_left = has_left;
    }

    /// Whether it has shut down.
    pub(in crate::node) const fn has_left(&self) -> bool {
        self.has_left
    }

    /// Notes the answer to a heartbeat, and measures the round trip.
    pub(in crate::node) fn heartbeat_answered(&mut self, now: Instant, number: u32) {
        if let Some(took) = self.stream.heartbeat_answered(now, number) {
            self.measured(took);
        }
    }

    /// Whether it is linked, and processes the ordered stream too late.
    pub(in crate::node) fn is_late(&self, now: Instant) -> bool {
        self.is_linked() && self.stream.is_late(now)
    }

    /// Whether the list of linked peers must be sent: it has changed, or the last one is old.
    pub(in crate::node) fn needs_list(&self, now: Instant, version: u64) -> bool {
        self.sent_list != version || now.since(self.sent_list_at) >= LIST_EVERY
    }

    /// Notes that the list of linked peers was sent.
    pub(in crate::node) const fn list_sent(&mut self, now: Instant, version: u64) {
        (self.sent_list, self.sent_list_at) = (version, now);
    }

    /// Adds a measured round trip to the smoothed one.
    pub(in crate::node) fn measured(&mut self, took: Duration) {
        let old = self.round_trip.unwrap_or(took);
        self.round_trip = Some(old - old / SMOOTHING + took / SMOOTHING);
    }

    /// The smoothed round trip, if one was measured.
    pub(in crate::node) const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// The order of claimants: the smoothed round trip times the number of queries before the next one.
    pub(in crate::node) fn distance(&self) -> Duration {
        let backlog = u32::try_from(self.queries.backlog()).unwrap_or(u32::MAX);
        self.round_trip.unwrap_or(ROUND_TRIP_ASSUMED).saturating_mul(backlog.saturating_add(1))
    }

    /// The measured false-positive rate of its filter.
    pub(in crate::node) fn measured_rate(&self) -> Option<f64> {
        self.claim_stats.measured_rate()
    }
}

/// All peers.
#[derive(Debug, Default)]
pub(in crate::node) struct Peers {
    slots: Slots<PeerTag, Peer>,
    by_id: BTreeMap<NodeId, PeerKey>,
    /// The peer of each filter, by the filter's index.
    by_filter: Vec<Option<PeerKey>>,
    /// The number of linked peers.
    linked: usize,
    /// Increases with each link that is made or lost.
    version: u64,
    /// Searches of the peers' filters for keys that are not here.
    searches: u64,
}

impl Peers {
    pub(in crate::node) fn get(&self, key: PeerKey) -> Option<&Peer> {
        self.slots.get(key)
    }

    pub(in crate::node) fn get_mut(&mut self, key: PeerKey) -> Option<&mut Peer> {
        self.slots.get_mut(key)
    }

    pub(in crate::node) fn by_id(&self, id: NodeId) -> Option<PeerKey> {
        self.by_id.get(&id).copied()
    }

    /// The link to a peer.
    pub(in crate::node) fn link(&self, key: PeerKey) -> Option<Link> {
        self.get(key)?.link
    }

    /// The connection of the link to a peer.
    pub(in crate::node) fn conn(&self, key: PeerKey) -> Option<ConnKey> {
        self.link(key).map(|link| link.conn)
    }

    /// Counts keys not stored here that were searched for in the peers' filters.
    #[inline]
    pub(in crate::node) const fn count_searches(&mut self, keys: u64) {
        self.searches += keys;
    }

    /// Takes a claim of a peer's filter into account, and as true negatives the keys searched for since its last claim.
    pub(in crate::node) fn claimed(&mut self, key: PeerKey, hash: KeyHash, claim: Claim) {
        let Some(peer) = self.slots.get_mut(key) else { return };
        let seen = self.searches.saturating_sub(peer.searches_seen);
        peer.searches_seen = self.searches;
        peer.claim_stats.not_claimed(seen.saturating_sub(1));
        peer.claim_stats.claimed(hash.0, claim);
    }

    /// Whose filter this is. O(1).
    pub(in crate::node) fn by_filter(&self, filter: FilterKey) -> Option<PeerKey> {
        let key = self.by_filter.get(filter.index()).copied().flatten()?;
        self.get(key).filter(|peer| peer.filter() == filter).map(|_| key)
    }

    pub(in crate::node) fn iter(&self) -> impl Iterator<Item = (PeerKey, &Peer)> {
        self.slots.iter()
    }

    /// Those that are linked, in the order of their keys.
    pub(in crate::node) fn linked(&self) -> impl Iterator<Item = (PeerKey, &Peer)> {
        self.slots.iter().filter(|(_, peer)| peer.link.is_some())
    }

    /// A linked peer that processes the ordered stream too late. O(peers).
    pub(in crate::node) fn late(&self, now: Instant) -> Option<PeerKey> {
        self.iter().find(|(_, peer)| peer.is_late(now)).map(|(key, _)| key)
    }

    pub(in crate::node) const fn linked_count(&self) -> usize {
        self.linked
    }

    /// The version of the list of linked peers.
    pub(in crate::node) const fn version(&self) -> u64 {
        self.version
    }

    pub(in crate::node) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether a node of this identity is linked.
    pub(in crate::node) fn is_linked(&self, id: NodeId) -> bool {
        self.by_id(id).and_then(|key| self.get(key)).is_some_and(|peer| peer.link.is_some())
    }

    /// Adds a peer, which is not linked yet.
    pub(in crate::node) fn insert(
        &mut self,
        now: Instant,
        id: NodeId,
        addr: SocketAddr,
        filter: FilterKey,
    ) -> PeerKey {
        let at = filter.index();
        let peer = Peer::new(id, addr, now, filter, self.searches);
        let key = self.slots.insert(peer);
        self.by_id.insert(id, key);
        if self.by_filter.len() <= at {
            self.by_filter.resize(at + 1, None);
        }
        self.by_filter[at] = Some(key);
        key
    }

    /// Forgets a peer, which must not be linked any more.
    pub(in crate::node) fn remove(&mut self, key: PeerKey) -> Option<Peer> {
        let peer = self.slots.remove(key)?;
        debug_assert!(peer.link.is_none(), "a link without its peer");
        self.by_id.remove(&peer.id);
        if let Some(entry) = self.by_filter.get_mut(peer.filter().index()) {
            *entry = None;
        }
        Some(peer)
    }

    /// Makes a connection the link to a peer, which listens on `addr`. With [`Peers::unlink`] the only way to change
    /// it.
    pub(in crate::node) fn set_link(&mut self, now: Instant, key: PeerKey, link: Link, addr: SocketAddr) {
        self.change_link(now, key, Some(link));
        let Some(peer) = self.slots.get_mut(key) else { return };
        peer.addr = addr;
        peer.received_at = now;
        peer.is_stable = false;
        peer.has_left = false;
        peer.has_other_links = false;
        peer.stream.reset();
    }

    /// The link to a peer is lost.
    pub(in crate::node) fn unlink(&mut self, now: Instant, key: PeerKey) {
        self.change_link(now, key, None);
    }

    fn change_link(&mut self, now: Instant, key: PeerKey, link: Option<Link>) {
        let Some(peer) = self.slots.get_mut(key) else { return };
        self.linked = self.linked + usize::from(link.is_some()) - usize::from(peer.link.is_some());
        peer.link = link;
        peer.since = now;
        self.version += 1;
    }
}
