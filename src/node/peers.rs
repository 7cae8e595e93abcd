//! The other nodes that this one knows by name: links, questions on their way, what their filters are
//! worth.
//!
//! A peer is one life of a node. It outlives its link for a while, so that a link that was only cut can
//! go on where it stopped. What a peer needs to be told and asked lies here; who does it stands above.

use super::credit::Credit;
use super::keys::{ConnKey, LookupKey, NodeId, PeerKey, PeerTag};
use crate::base::slots::Slots;
use crate::base::time::Instant;
use crate::filter::digest::ReaderKey;
use crate::filter::receiver::Receiver;
use crate::filter::truth::{LIAR_ASKED_ONE_IN, Truth};
use crate::filter::{FilterKey, PeerFilters};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// The round trip that is assumed of a peer that has not answered yet.
const ROUND_TRIP_ASSUMED: Duration = Duration::from_millis(1);

/// The weight of a new round trip in the smoothed one: one in so many. RFC 6298.
const SMOOTHING: u32 = 8;

/// Who dialled a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialler {
    We,
    They,
}

/// The connection to a peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) conn: ConnKey,
    pub(super) dialler: Dialler,
}

/// A question on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) lookup: LookupKey,
    pub(super) asked_at: Instant,
}

/// A question from a peer that waits until the link has taken earlier answers.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) request: u32,
    pub(super) key: Box<[u8]>,
    pub(super) wants_value: bool,
    pub(super) came_at: Instant,
}

/// One life of another node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    /// Where it listens.
    pub(super) addr: SocketAddr,
    pub(super) link: Option<Link>,
    /// When the link was made, or lost.
    pub(super) since: Instant,
    /// When a byte came from it last.
    pub(super) last_heard: Instant,
    /// The link has lived for a beat: it is a success, and the next wait to dial begins anew.
    pub(super) is_settled: bool,
    /// It let a lookup time out, and no byte has come since.
    pub(super) is_suspect: bool,
    /// Whether it answers what it is asked.
    pub(super) credit: Credit,
    /// The one live timer, as a tick of the node's wheel.
    pub(super) timer_at: Option<u64>,
    /// The number of the last beat, and when it went out if it was not answered.
    pub(super) beat: u32,
    pub(super) beat_sent: Option<Instant>,
    round_trip: Option<Duration>,

    /// Its filter, and how it is followed.
    pub(super) filter: FilterKey,
    pub(super) receiver: Receiver,
    /// When its filter was last known to be whole.
    pub(super) filter_known_at: Option<Instant>,
    /// When it was last asked for its filter from the beginning.
    pub(super) snapshot_asked: Option<Instant>,
    /// How much of a snapshot had come when that was last looked at, and since when it is no more.
    pub(super) snapshot_at: Option<(usize, Instant)>,
    /// How often its filter was refused since it was last known.
    pub(super) refusals: u32,
    pub(super) truth: Truth,
    /// How many keys had been looked for in the filters when `truth` was last brought up to date.
    checks_seen: u64,

    /// Its place in our digest, once it has said from where it wants it.
    pub(super) reader: Option<ReaderKey>,
    /// In the queue of those to be told more of our digest.
    pub(super) is_pumping: bool,
    /// The version of the list of linked peers that it was told, and when.
    pub(super) told_version: u64,
    pub(super) told_at: Instant,

    next_request: u32,
    pub(super) questions: BTreeMap<u32, Question>,
    /// Lookups that wait for a free place among the questions.
    pub(super) queue: VecDeque<LookupKey>,
    pub(super) owed: VecDeque<Owed>,
    /// Bytes of the keys in `owed`.
    pub(super) owed_bytes: usize,
    /// Bytes of answers since the last part of a snapshot.
    pub(super) answered_bytes: usize,
}

impl Peer {
    pub(super) fn new(id: NodeId, addr: SocketAddr, now: Instant, filter: FilterKey, checks: u64) -> Self {
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
            beat: 0,
            beat_sent: None,
            round_trip: None,
            filter,
            receiver: Receiver::new(filter),
            filter_known_at: None,
            snapshot_asked: None,
            snapshot_at: None,
            refusals: 0,
            truth: Truth::new(),
            checks_seen: checks,
            reader: None,
            is_pumping: false,
            told_version: 0,
            told_at: now,
            next_request: 0,
            questions: BTreeMap::new(),
            queue: VecDeque::new(),
            owed: VecDeque::new(),
            owed_bytes: 0,
            answered_bytes: 0,
        }
    }

    /// Whether it is worth asking now.
    pub(super) const fn is_askable(&self) -> bool {
        self.link.is_some() && !self.is_suspect && self.credit.owed() == 0
    }

    /// The number of the next question on this link, which is not in use.
    pub(super) fn next_request(&mut self) -> u32 {
        loop {
            self.next_request = self.next_request.wrapping_add(1);
            let is_free = !self.questions.contains_key(&self.next_request);
            if is_free && !self.credit.is_probe(self.next_request) {
                return self.next_request;
            }
        }
    }

    /// Takes a measured round trip into account.
    pub(super) fn measured(&mut self, took: Duration) {
        let old = self.round_trip.unwrap_or(took);
        self.round_trip = Some(old - old / SMOOTHING + took / SMOOTHING);
    }

    /// The smoothed round trip, if one was measured.
    pub(super) const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// How far away it is, for choosing among several: the smoothed round trip times the questions that
    /// stand before the next one.
    pub(super) fn distance(&self) -> Duration {
        let waiting = u32::try_from(self.questions.len() + self.queue.len()).unwrap_or(u32::MAX);
        self.round_trip.unwrap_or(ROUND_TRIP_ASSUMED).saturating_mul(waiting.saturating_add(1))
    }

    /// Brings the account of its claims up to date: of `checks` keys looked for so far in all filters, those
    /// since the last time that it did not claim are absent keys that it was right about. `claims` are those
    /// of them that are being accounted for otherwise.
    pub(super) fn account(&mut self, filters: &PeerFilters, checks: u64, claims: u64) {
        let seen = checks.saturating_sub(self.checks_seen);
        self.checks_seen = checks;
        self.truth.fill_is(filters.fill(self.filter));
        self.truth.not_claimed(seen.saturating_sub(claims));
    }
}

/// All peers, linked or lately so.
#[derive(Debug, Default)]
pub(super) struct Peers {
    slots: Slots<PeerTag, Peer>,
    by_id: BTreeMap<NodeId, PeerKey>,
    /// Whose filter has this index.
    by_filter: Vec<Option<PeerKey>>,
    /// How many are linked.
    linked: usize,
    /// Changes with each link that comes or goes.
    pub(super) version: u64,
}

impl Peers {
    pub(super) fn get(&self, key: PeerKey) -> Option<&Peer> {
        self.slots.get(key)
    }

    pub(super) fn get_mut(&mut self, key: PeerKey) -> Option<&mut Peer> {
        self.slots.get_mut(key)
    }

    pub(super) fn by_id(&self, id: NodeId) -> Option<PeerKey> {
        self.by_id.get(&id).copied()
    }

    /// Whose filter this is. O(1).
    pub(super) fn by_filter(&self, filter: FilterKey) -> Option<PeerKey> {
        let key = self.by_filter.get(filter.index()).copied().flatten()?;
        self.get(key).filter(|peer| peer.filter == filter).map(|_| key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerKey, &Peer)> {
        self.slots.iter()
    }

    /// Those that are linked, in the order of their keys.
    pub(super) fn linked(&self) -> impl Iterator<Item = (PeerKey, &Peer)> {
        self.slots.iter().filter(|(_, peer)| peer.link.is_some())
    }

    pub(super) const fn linked_count(&self) -> usize {
        self.linked
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether a node of this identity is linked.
    pub(super) fn is_linked(&self, id: NodeId) -> bool {
        self.by_id(id).and_then(|key| self.get(key)).is_some_and(|peer| peer.link.is_some())
    }

    pub(super) fn insert(&mut self, peer: Peer) -> PeerKey {
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
    pub(super) fn remove(&mut self, key: PeerKey) -> Option<Peer> {
        let peer = self.slots.remove(key)?;
        debug_assert!(peer.link.is_none(), "a link without its peer");
        self.by_id.remove(&peer.id);
        if let Some(entry) = self.by_filter.get_mut(peer.filter.index()) {
            *entry = None;
        }
        Some(peer)
    }

    /// The only way to give a peer a link or to take it away.
    pub(super) fn set_link(&mut self, key: PeerKey, now: Instant, link: Option<Link>) {
        let Some(peer) = self.slots.get_mut(key) else { return };
        self.linked = self.linked + usize::from(link.is_some()) - usize::from(peer.link.is_some());
        peer.link = link;
        peer.since = now;
        self.version += 1;
    }
}

/// Whether a claim of this peer's filter is to be followed: a liar is believed 1 time in 64.
pub(super) fn is_believed(peer: &mut Peer, filters: &PeerFilters, checks: u64) -> bool {
    if !peer.truth.is_liar() || checks.is_multiple_of(LIAR_ASKED_ONE_IN.into()) {
        return true;
    }
    peer.account(filters, checks, 1);
    false
}
