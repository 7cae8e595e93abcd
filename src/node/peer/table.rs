//! The other nodes that this one knows by name: links, questions on their way, what their filters are
//! worth.
//!
//! A peer is one life of a node. It outlives its link for a while, so that a link that was only cut can
//! go on where it stopped. What a peer needs to be told and asked lies here; who does it stands above.

use crate::base::slots::Slots;
use crate::base::time::Instant;
use crate::filter::changelog::ReaderKey;
use crate::filter::claim_stats::{ClaimStats, LIAR_ASKED_ONE_IN};
use crate::filter::receiver::Receiver;
use crate::filter::{FilterKey, PeerFilters};
use crate::node::ids::{ConnKey, LookupKey, NodeId, PeerKey, PeerTag};
use crate::node::peer::health::Credit;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// The round trip that is assumed of a peer that has not answered yet.
const ROUND_TRIP_ASSUMED: Duration = Duration::from_millis(1);

/// The weight of a new round trip in the smoothed one: one in so many. RFC 6298.
const SMOOTHING: u32 = 8;

/// Who dialled a link.
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

/// A question on its way.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct InFlightQuery {
    pub(in crate::node) lookup: LookupKey,
    pub(in crate::node) asked_at: Instant,
}

/// A question from a peer that waits until the link has taken earlier answers.
#[derive(Debug)]
pub(in crate::node) struct DeferredQuery {
    pub(in crate::node) request: u32,
    pub(in crate::node) key: Box<[u8]>,
    pub(in crate::node) wants_value: bool,
    pub(in crate::node) came_at: Instant,
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
    /// When a byte came from it last.
    pub(in crate::node) last_heard: Instant,
    /// The link has lived for a beat: it is a success, and the next wait to dial begins anew.
    pub(in crate::node) is_settled: bool,
    /// It let a lookup time out, and no byte has come since.
    pub(in crate::node) is_suspect: bool,
    /// Whether it answers what it is asked.
    pub(in crate::node) credit: Credit,
    /// The one live timer, as a tick of the node's wheel.
    pub(in crate::node) timer_at: Option<u64>,
    /// The number of the last beat, and when it went out if it was not answered.
    pub(in crate::node) heartbeat: u32,
    pub(in crate::node) heartbeat_sent_at: Option<Instant>,
    round_trip: Option<Duration>,

    /// Its filter, and how it is followed.
    pub(in crate::node) filter: FilterKey,
    pub(in crate::node) receiver: Receiver,
    /// When its filter was last known to be whole.
    pub(in crate::node) filter_known_at: Option<Instant>,
    /// When it was last asked for its filter from the beginning.
    pub(in crate::node) snapshot_asked: Option<Instant>,
    /// How much of a snapshot had come when that was last looked at, and since when it is no more.
    pub(in crate::node) snapshot_at: Option<(usize, Instant)>,
    /// How often its filter was refused since it was last known.
    pub(in crate::node) refusals: u32,
    pub(in crate::node) truth: ClaimStats,
    /// How many keys had been looked for in the filters when `truth` was last brought up to date.
    checks_seen: u64,

    /// Its place in our digest, once it has said from where it wants it.
    pub(in crate::node) reader: Option<ReaderKey>,
    /// In the queue of those to be told more of our digest.
    pub(in crate::node) is_pumping: bool,
    /// The version of the list of linked peers that it was told, and when.
    pub(in crate::node) told_version: u64,
    pub(in crate::node) told_at: Instant,

    next_request: u32,
    pub(in crate::node) queries: BTreeMap<u32, InFlightQuery>,
    /// Lookups that wait for a free place among the questions.
    pub(in crate::node) queue: VecDeque<LookupKey>,
    pub(in crate::node) owed: VecDeque<DeferredQuery>,
    /// Bytes of the keys in `owed`.
    pub(in crate::node) deferred_bytes: usize,
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
            last_heard: now,
            is_settled: false,
            is_suspect: false,
            credit: Credit::default(),
            timer_at: None,
            heartbeat: 0,
            heartbeat_sent_at: None,
            round_trip: None,
            filter,
            receiver: Receiver::new(filter),
            filter_known_at: None,
            snapshot_asked: None,
            snapshot_at: None,
            refusals: 0,
            truth: ClaimStats::new(),
            checks_seen: checks,
            reader: None,
            is_pumping: false,
            told_version: 0,
            told_at: now,
            next_request: 0,
            queries: BTreeMap::new(),
            queue: VecDeque::new(),
            owed: VecDeque::new(),
            deferred_bytes: 0,
        }
    }

    /// Whether it is worth asking now.
    pub(in crate::node) const fn is_askable(&self) -> bool {
        self.link.is_some() && !self.is_suspect && self.credit.owed() == 0
    }

    /// The number of the next question on this link, which is not in use.
    pub(in crate::node) fn next_request(&mut self) -> u32 {
        loop {
            self.next_request = self.next_request.wrapping_add(1);
            let is_free = !self.queries.contains_key(&self.next_request);
            if is_free && !self.credit.is_probe(self.next_request) {
                return self.next_request;
            }
        }
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

    /// How far away it is, for choosing among several: the smoothed round trip times the questions that
    /// stand before the next one.
    pub(in crate::node) fn distance(&self) -> Duration {
        let waiting = u32::try_from(self.queries.len() + self.queue.len()).unwrap_or(u32::MAX);
        self.round_trip.unwrap_or(ROUND_TRIP_ASSUMED).saturating_mul(waiting.saturating_add(1))
    }

    /// Brings the account of its claims up to date: of `checks` keys looked for so far in all filters, those
    /// since the last time that it did not claim are absent keys that it was right about. `claims` are those
    /// of them that are being accounted for otherwise.
    pub(in crate::node) fn account(&mut self, filters: &PeerFilters, checks: u64, claims: u64) {
        let seen = checks.saturating_sub(self.checks_seen);
        self.checks_seen = checks;
        self.truth.fill_is(filters.fill(self.filter));
        self.truth.not_claimed(seen.saturating_sub(claims));
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
    /// Changes with each link that comes or goes.
    pub(in crate::node) version: u64,
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

/// Whether a claim of this peer's filter is to be followed: a liar is believed 1 time in 64.
pub(in crate::node) fn is_believed(peer: &mut Peer, filters: &PeerFilters, checks: u64) -> bool {
    if !peer.truth.is_liar() || checks.is_multiple_of(LIAR_ASKED_ONE_IN.into()) {
        return true;
    }
    peer.account(filters, checks, 1);
    false
}
