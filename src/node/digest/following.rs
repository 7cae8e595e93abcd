//! Digest sync with one peer: the state of its filter here, and its position in the own changelog.

use crate::base::limiter::Limiter;
use crate::base::time::Instant;
use crate::filter::changelog::{Changelog, Position, ReaderKey};
use crate::filter::receiver::{ApplyResult, ReceiveError, Receiver};
use crate::filter::{FilterKey, PeerFilters};
use std::time::Duration;

/// Time without a block after which a snapshot is dropped.
const SNAPSHOT_STALLED: Duration = Duration::from_secs(30);

/// Time between two requests for a refused filter, doubled per refusal, up to ten minutes.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(10);
const REFUSALS_COUNTED_MAX: u32 = 6;

/// Rate limit of requests for a digest per link and direction: a burst, then one per second. Each can cost a
/// snapshot. Requests over the limit are sent at a later heartbeat.
const RESYNCS_BURST: u32 = 16;
const RESYNC_EVERY: Duration = Duration::from_secs(1);

/// The digest sync with one peer: its filter, and the peer as a reader of the own changelog.
#[derive(Debug)]
pub(in crate::node) struct Following {
    filter: FilterKey,
    receiver: Receiver,
    /// Its filter was known when its link was lost.
    was_known: bool,
    /// When its filter was last known.
    known_at: Option<Instant>,
    resyncs_out: Limiter,
    resyncs_in: Limiter,
    /// When a snapshot was last requested.
    snapshot_requested: Option<Instant>,
    /// Received blocks of the snapshot at the last check, and since when that number has not changed.
    snapshot_progress: Option<(usize, Instant)>,
    /// Refusals of its filter since it was last known.
    refusals: u32,
    /// The peer as a reader of the own changelog, once it has sent a request.
    reader: Option<ReaderKey>,
}

impl Following {
    pub(in crate::node) fn new(filter: FilterKey) -> Self {
        Self {
            filter,
            receiver: Receiver::new(filter),
            was_known: false,
            known_at: None,
            resyncs_out: Limiter::default(),
            resyncs_in: Limiter::default(),
            snapshot_requested: None,
            snapshot_progress: None,
            refusals: 0,
            reader: None,
        }
    }

    pub(in crate::node) const fn filter(&self) -> FilterKey {
        self.filter
    }

    pub(in crate::node) const fn was_known(&self) -> bool {
        self.was_known
    }

    /// When its filter was last known.
    pub(in crate::node) const fn known_at(&self) -> Option<Instant> {
        self.known_at
    }

    /// Whether its filter is known, or was refused since it was last known.
    pub(in crate::node) fn is_known_or_refused(&self, filters: &PeerFilters) -> bool {
        self.refusals > 0 || !filters.is_unknown(self.filter)
    }

    pub(in crate::node) const fn reader(&self) -> Option<ReaderKey> {
        self.reader
    }

    /// The position up to which its changes are applied, if its filter is known.
    pub(in crate::node) fn position(&self) -> Option<Position> {
        self.receiver.position()
    }

    /// The position of the next changes.
    pub(in crate::node) const fn expected(&self) -> Position {
        self.receiver.expected()
    }

    /// Begins a link. Returns the position from which to request the peer's changelog.
    pub(in crate::node) fn link_up(&mut self, filters: &mut PeerFilters) -> Option<Position> {
        self.receiver.relinked(filters)
    }

    /// Ends a link. Returns its reader of the own changelog, which must be removed.
    pub(in crate::node) fn link_lost(&mut self, filters: &mut PeerFilters) -> Option<ReaderKey> {
        (self.resyncs_in, self.resyncs_out) = Default::default();
        self.was_known = !filters.is_unknown(self.filter);
        self.receiver.unlinked(filters);
        self.known_at = None;
        self.reader.take()
    }

    /// Drops the filter of a peer that has left.
    pub(in crate::node) fn node_left(&mut self, filters: &mut PeerFilters) {
        self.receiver.give_up(filters);
    }

    /// Drops a stalled snapshot, whose memory others may need; returns whether it did.
    pub(in crate::node) fn give_up_stalled(&mut self, now: Instant, filters: &mut PeerFilters) -> bool {
        let seen = self.snapshot_progress;
        self.snapshot_progress = self.receiver.snapshot_blocks().map(|blocks| {
            let since = seen.filter(|(seen, _)| *seen == blocks).map_or(now, |(_, since)| since);
            (blocks, since)
        });
        let is_stalled =
            self.snapshot_progress.is_some_and(|(_, since)| now.since(since) >= SNAPSHOT_STALLED);
        if is_stalled {
            self.receiver.give_up(filters);
            self.count_refusal();
        }
        is_stalled
    }

    /// Whether a refused filter must be requested again now.
    pub(in crate::node) fn is_snapshot_due(&self, now: Instant) -> bool {
        let every = SNAPSHOT_EVERY * 2u32.pow(self.refusals.min(REFUSALS_COUNTED_MAX));
        self.receiver.is_waiting() && self.snapshot_requested.is_none_or(|then| now.since(then) >= every)
    }

    /// Whether the digest may be requested now, from a position or as a snapshot; counts the request if so.
    pub(in crate::node) fn may_request(&mut self, now: Instant, at: Option<Position>) -> bool {
        let is_allowed = self.resyncs_out.allows(now, RESYNC_EVERY, RESYNCS_BURST);
        if is_allowed && at.is_none() {
            self.snapshot_requested = Some(now);
        }
        is_allowed
    }

    /// Whether the peer may request the own digest now; counts the request if so.
    pub(in crate::node) fn may_be_requested(&mut self, now: Instant) -> bool {
        self.resyncs_in.allows(now, RESYNC_EVERY, RESYNCS_BURST)
    }

    /// Makes the peer read the own changelog from a position on, or a snapshot.
    pub(in crate::node) fn read_from(&mut self, changelog: &mut Changelog, at: Option<Position>) {
        match self.reader {
            Some(reader) => changelog.resync(reader, at),
            None => self.reader = Some(changelog.join(at)),
        }
    }

    /// Notes whether its filter is known now.
    pub(in crate::node) fn note_if_known(&mut self, now: Instant, filters: &PeerFilters) {
        if !filters.is_unknown(self.filter) {
            self.known_at = Some(now);
            self.refusals = 0;
        }
    }

    /// Applies a change; an error counts as a refusal. Returns also whether the filter has become known.
    pub(in crate::node) fn apply(
        &mut self,
        filters: &mut PeerFilters,
        apply: impl FnOnce(&mut Receiver, &mut PeerFilters) -> Result<ApplyResult, ReceiveError>,
    ) -> (Result<ApplyResult, ReceiveError>, bool) {
        let was_unknown = filters.is_unknown(self.filter);
        let result = apply(&mut self.receiver, filters);
        if result.is_err() {
            self.count_refusal();
        }
        (result, was_unknown && !filters.is_unknown(self.filter))
    }

    fn count_refusal(&mut self) {
        self.refusals = self.refusals.saturating_add(1);
    }
}
