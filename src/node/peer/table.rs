//! The peers: nodes that are linked, or were until lately.
//!
//! A peer is one life of a node. It outlives its link for a while, so that digest sync can resume after a
//! short cut.

use crate::base::limiter::Limiter;
use crate::base::slots::Slots;
use crate::base::time::Instant;
use crate::filter::FilterKey;
use crate::filter::bloom::Bloom;
use crate::filter::changelog::ReaderKey;
use crate::filter::claim_stats::ClaimStats;
use crate::filter::receiver::Receiver;
use crate::node::alarm::Alarm;
use crate::node::ids::{ConnKey, NodeId, PeerKey, PeerTag};
use crate::node::lookup::queries::{DeferredQueries, Queries};
use crate::node::peer::health::CircuitBreaker;
use crate::store::{KeyHash, ScanCursor, Version};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// The round trip assumed of a peer that has not answered yet.
const ROUND_TRIP_ASSUMED: Duration = Duration::from_millis(1);

/// The weight of a new round trip in the smoothed one: one in so many. RFC 6298.
const SMOOTHING: u32 = 8;

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

/// How far a resync is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Resync {
    /// The position in the own keys.
    Keys(ScanCursor),
    /// The first tombstone that is not tested.
    Tombstones(KeyHash),
    /// The first block of the discarded deletions that is not sent.
    Discarded(usize),
}

impl Resync {
    /// Nothing is tested yet.
    pub(in crate::node) const START: Self = Self::Keys(ScanCursor::START);
}

/// Discarded deletions of a peer, as they arrive, and then while the own keys are tested against them.
#[derive(Debug)]
pub(in crate::node) struct DiscardedScan {
    pub(in crate::node) filter: Bloom,
    /// Newer values stay.
    pub(in crate::node) version: Version,
    /// The next block.
    pub(in crate::node) next: usize,
    /// The position in the own keys, once all blocks are here.
    pub(in crate::node) at: Option<ScanCursor>,
}

/// Versions that a heartbeat has acknowledged, until a later one acknowledges the clock at which it arrived.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct PendingAck {
    pub(in crate::node) up_to: Version,
    pub(in crate::node) mark: Version,
}

/// One life of another node.
#[derive(Debug)]
pub(in crate::node) struct Peer {
    pub(in crate::node) id: NodeId,
    /// Where it listens.
    pub(in crate::node) addr: SocketAddr,
    pub(in crate::node) link: Option<Link>,
    /// When the link was made, or lost.
    pub(in crate::node) since: Instant,
    /// When bytes were last received from it.
    pub(in crate::node) received_at: Instant,
    /// It is linked to other nodes too, by its last list.
    pub(in crate::node) has_other_links: bool,
    /// The link has lasted for a heartbeat, so dialling it counts as a success.
    pub(in crate::node) is_stable: bool,
    /// Whether lookups query it.
    pub(in crate::node) breaker: CircuitBreaker,
    /// The next heartbeat, or the moment at which an unlinked peer is forgotten.
    pub(in crate::node) alarm: Alarm,
    /// The number of the last heartbeat, and when it was sent if it is not answered.
    pub(in crate::node) heartbeat: u32,
    pub(in crate::node) heartbeat_sent_at: Option<Instant>,
    round_trip: Option<Duration>,
    /// The clock of its last heartbeat: everything that it sent before, in the ordered stream, was processed.
    pub(in crate::node) heard: u64,
    /// Versions up to this one it has met: it has no older value, and can get none.
    pub(in crate::node) acked: Version,
    /// What its heartbeats acknowledge next.
    pub(in crate::node) pending_ack: Option<PendingAck>,
    /// It has ended, and its keys with it; it does not come back. Hints of others may name it for a while.
    pub(in crate::node) has_left: bool,
    /// All own keys and tombstones are being tested against its filter.
    pub(in crate::node) resync: Option<Resync>,
    /// In the queue of those whose resync goes on.
    pub(in crate::node) is_in_resyncs: bool,
    /// Its discarded deletions.
    pub(in crate::node) discarded: Option<DiscardedScan>,
    /// Our queries to it.
    pub(in crate::node) queries: Queries,
    /// Its queries that wait for room in the link.
    pub(in crate::node) deferred: DeferredQueries,

    /// Its filter, and how it is followed.
    pub(in crate::node) filter: FilterKey,
    pub(in crate::node) receiver: Receiver,
    /// When its link was lost its filter was known: what it does not claim the peer did not have.
    pub(in crate::node) was_known: bool,
    /// When its filter was last known to be whole.
    pub(in crate::node) filter_known_at: Option<Instant>,
    /// How often digests may be requested of it, and by it.
    pub(in crate::node) resyncs_out: Limiter,
    pub(in crate::node) resyncs_in: Limiter,
    /// When its filter was last requested from the beginning.
    pub(in crate::node) snapshot_asked: Option<Instant>,
    /// How much of a snapshot had come when that was last looked at, and since when it is no more.
    pub(in crate::node) snapshot_at: Option<(usize, Instant)>,
    /// How often its filter was refused since it was last known.
    pub(in crate::node) refusals: u32,
    pub(in crate::node) claim_stats: ClaimStats,
    /// How many keys had been looked for in the filters when `claim_stats` was last brought up to date.
    checks_seen: u64,

    /// Its position in our changelog, once it has requested one.
    pub(in crate::node) reader: Option<ReaderKey>,
    /// In the queue of those with more to read of our changelog.
    pub(in crate::node) is_reading: bool,
    /// The version of the list of linked peers that it was sent, and when.
    pub(in crate::node) sent_list: u64,
    pub(in crate::node) sent_list_at: Instant,
}

impl Peer {
    pub(in crate::node) fn new(
        id: NodeId,
        addr: SocketAddr,
        now: Instant,
        filter: FilterKey,
        checks: u64,
    ) -> Self {
        Self {
            id,
            addr,
            link: None,
            since: now,
            received_at: now,
            has_other_links: false,
            is_stable: false,
            breaker: CircuitBreaker::new(),
            alarm: Alarm::default(),
            heartbeat: 0,
            heartbeat_sent_at: None,
            round_trip: None,
            heard: 0,
            acked: Version::default(),
            pending_ack: None,
            has_left: false,
            resync: None,
            is_in_resyncs: false,
            discarded: None,
            queries: Queries::default(),
            deferred: DeferredQueries::default(),
            filter,
            receiver: Receiver::new(filter),
            was_known: false,
            filter_known_at: None,
            resyncs_out: Limiter::default(),
            resyncs_in: Limiter::default(),
            snapshot_asked: None,
            snapshot_at: None,
            refusals: 0,
            claim_stats: ClaimStats::new(),
            checks_seen: checks,
            reader: None,
            is_reading: false,
            sent_list: 0,
            sent_list_at: now,
        }
    }

    /// Whether lookups query it: it is linked, and its circuit is not open.
    pub(in crate::node) const fn is_queryable(&self) -> bool {
        self.link.is_some() && self.breaker.lets_pass()
    }

    /// Takes a measured round trip into account.
    pub(in crate::node) fn measured(&mut self, took: Duration) {
        let old = self.round_trip.unwrap_or(took);
        self.round_trip = Some(old - old / SMOOTHING + took / SMOOTHING);
    }

    /// The smoothed round trip, if one was measured.
    pub(in crate::node) const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// What orders claimants: the smoothed round trip times the queries before the next one.
    pub(in crate::node) fn distance(&self) -> Duration {
        let backlog = u32::try_from(self.queries.backlog()).unwrap_or(u32::MAX);
        self.round_trip.unwrap_or(ROUND_TRIP_ASSUMED).saturating_mul(backlog.saturating_add(1))
    }

    /// Brings the claim statistics up to date: of `checks` keys searched for in all filters so far, those since
    /// the last call that it did not claim are true negatives. `claims` of them are accounted for otherwise.
    pub(in crate::node) fn account(&mut self, checks: u64, claims: u64) {
        let seen = checks.saturating_sub(self.checks_seen);
        self.checks_seen = checks;
        self.claim_stats.not_claimed(seen.saturating_sub(claims));
    }
}

/// All peers, linked or lately so.
#[derive(Debug, Default)]
pub(in crate::node) struct Peers {
    slots: Slots<PeerTag, Peer>,
    by_id: BTreeMap<NodeId, PeerKey>,
    /// Whose filter has this index.
    by_filter: Vec<Option<PeerKey>>,
    /// How many are linked.
    linked: usize,
    /// Rises with each link that comes or goes.
    version: u64,
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

    /// Whose filter this is. O(1).
    pub(in crate::node) fn by_filter(&self, filter: FilterKey) -> Option<PeerKey> {
        let key = self.by_filter.get(filter.index()).copied().flatten()?;
        self.get(key).filter(|peer| peer.filter == filter).map(|_| key)
    }

    pub(in crate::node) fn iter(&self) -> impl Iterator<Item = (PeerKey, &Peer)> {
        self.slots.iter()
    }

    /// Those that are linked, in the order of their keys.
    pub(in crate::node) fn linked(&self) -> impl Iterator<Item = (PeerKey, &Peer)> {
        self.slots.iter().filter(|(_, peer)| peer.link.is_some())
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

    pub(in crate::node) fn insert(&mut self, peer: Peer) -> PeerKey {
        let (id, at) = (peer.id, peer.filter.index());
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
        if let Some(entry) = self.by_filter.get_mut(peer.filter.index()) {
            *entry = None;
        }
        Some(peer)
    }

    /// The only way to give a peer a link or to take it away.
    pub(in crate::node) fn set_link(&mut self, key: PeerKey, now: Instant, link: Option<Link>) {
        let Some(peer) = self.slots.get_mut(key) else { return };
        self.linked = self.linked + usize::from(link.is_some()) - usize::from(peer.link.is_some());
        peer.link = link;
        peer.since = now;
        self.version += 1;
    }
}
