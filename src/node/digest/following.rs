//! The digest of one peer: how it is followed, and how far the peer has read ours.

use crate::base::limiter::Limiter;
use crate::base::time::Instant;
use crate::filter::changelog::{Changelog, Position, ReaderKey};
use crate::filter::receiver::{ApplyResult, ReceiveError, Receiver};
use crate::filter::{FilterKey, PeerFilters};
use std::time::Duration;

/// After so long without a block of a snapshot it is given up.
const SNAPSHOT_STALLED: Duration = Duration::from_secs(30);

/// Time between two requests for a filter that was refused, doubled with each refusal, up to ten minutes.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(10);
const REFUSALS_COUNTED_MAX: u32 = 6;

/// Requests for a digest on one link, in either direction: so many at once, and one per second in the long run. Each
/// can cost its sender a snapshot. What is not sent now is at a later heartbeat.
const RESYNCS_BURST: u32 = 16;
const RESYNC_EVERY: Duration = Duration::from_secs(1);

/// The filter of a peer as it arrives, and the peer as a reader of ours.
#[derive(Debug)]
pub(in crate::node) struct Following {
    filter: FilterKey,
    receiver: Receiver,
    /// When its link was lost its filter was known: what it does not claim the peer did not have.
    was_known: bool,
    /// When its filter was last known to be whole.
    known_at: Option<Instant>,
    resyncs_out: Limiter,
    resyncs_in: Limiter,
    /// When its filter was last requested from the beginning.
    snapshot_requested: Option<Instant>,
    /// How much of a snapshot had come when that was last looked at, and since when it is no more.
    snapshot_progress: Option<(usize, Instant)>,
    /// How often its filter was refused since it was last known.
    refusals: u32,
    /// Its position in our changelog, once it has requested one.
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

    /// When its filter was last known to be whole.
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

    /// How far its changes are applied, if that is known.
    pub(in crate::node) fn position(&self) -> Option<Position> {
        self.receiver.position()
    }

    /// The next changes.
    pub(in crate::node) const fn expected(&self) -> Position {
        self.receiver.expected()
    }

    /// A link is made: from where the peer's changelog is to be requested.
    pub(in crate::node) fn link_up(&mut self, filters: &mut PeerFilters) -> Option<Position> {
        self.receiver.relinked(filters)
    }

    /// A link was lost: the peer reads no more. Returns its position in our changelog, which is to be given up.
    pub(in crate::node) fn link_lost(&mut self, filters: &mut PeerFilters) -> Option<ReaderKey> {
        (self.resyncs_in, self.resyncs_out) = Default::default();
        self.was_known = !filters.is_unknown(self.filter);
        self.receiver.unlinked(filters);
        self.known_at = None;
        self.reader.take()
    }

    /// The peer has ended, and its keys with it.
    pub(in crate::node) fn node_left(&mut self, filters: &mut PeerFilters) {
        self.receiver.give_up(filters);
    }

    /// Gives up a snapshot that has stalled, since others may need the room; whether it did.
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

    /// Whether a filter that was refused is to be requested again by now.
    pub(in crate::node) fn is_snapshot_due(&self, now: Instant) -> bool {
        let every = SNAPSHOT_EVERY * 2u32.pow(self.refusals.min(REFUSALS_COUNTED_MAX));
        self.receiver.is_waiting() && self.snapshot_requested.is_none_or(|then| now.since(then) >= every)
    }

    /// Whether the digest may be requested now, from a position or from the beginning; counts the request if so.
    pub(in crate::node) fn may_request(&mut self, now: Instant, at: Option<Position>) -> bool {
        let is_allowed = self.resyncs_out.allows(now, RESYNC_EVERY, RESYNCS_BURST);
        if is_allowed && at.is_none() {
            self.snapshot_requested = Some(now);
        }
        is_allowed
    }

    /// Whether the peer may request our digest now; counts the request if so.
    pub(in crate::node) fn may_be_requested(&mut self, now: Instant) -> bool {
        self.resyncs_in.allows(now, RESYNC_EVERY, RESYNCS_BURST)
    }

    /// The peer reads our changelog from a position on, or from the beginning.
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

    /// Applies a change; an error counts as a refusal of its filter. Returns also whether its filter has become known.
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
