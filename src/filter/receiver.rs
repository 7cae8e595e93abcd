//! The receiver of one peer's changelog: applies its changes to the peer's filter, and requests a resync for missing
//! ones.
//!
//! A change that was applied before is dropped; a missing one makes the filter unknown and requests a resync; a
//! snapshot of an older epoch is refused. While a snapshot that begins at the next addition is incomplete, the known
//! filter stays searched, and additions are applied to both. Each message costs O(1) time and bounded memory: sizes
//! are checked before anything is allocated. The filters are in [`super::peer_filters`]; the sending side is
//! [`super::changelog`].

use super::changelog::Position;
use super::key::FilterKey;
use super::peer_filters::{FilterError, PeerFilters};
use super::size::{BLOCK_WORDS, Block, Size};
use std::fmt;

/// The result of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyResult {
    /// It was applied.
    Applied,
    /// It was applied before, or follows a missing change that was requested.
    Dropped,
    /// A change is missing: the peer must resend from this position; `None`: a snapshot.
    Resync(Option<Position>),
}

/// An error in a message, of which nothing was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveError {
    /// It belongs to an older epoch.
    OldEpoch,
    /// Blocks of a snapshot that are not the next ones, or its end before its last block.
    OutOfOrder,
    /// The filter refuses it.
    Filter(FilterError),
}

impl From<FilterError> for ReceiveError {
    fn from(error: FilterError) -> Self {
        Self::Filter(error)
    }
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OldEpoch => f.write_str("a changelog of an older epoch"),
            Self::OutOfOrder => f.write_str("a snapshot out of order"),
            Self::Filter(error) => error.fmt(f),
        }
    }
}

/// An incomplete snapshot.
#[derive(Debug, Clone, Copy)]
struct Snapshot {
    /// The next block.
    next: usize,
    /// The number of changes of blocks that it contains.
    blocks: u64,
}

/// The receiver; see the module.
#[derive(Debug)]
pub struct Receiver {
    filter: FilterKey,
    /// The highest epoch seen, and the next changes in it.
    at: Position,
    /// The filter is known: changes are applied as they arrive. Otherwise only the begin of a snapshot is accepted.
    is_following: bool,
    snapshot: Option<Snapshot>,
    /// A resync was requested; changes are dropped until it arrives.
    has_requested: bool,
    /// The filter is complete when all additions before this one are applied.
    complete_at: Option<u64>,
    /// The end of the additions as of the last heartbeat on this link.
    heartbeat_at: Option<u64>,
}

impl Receiver {
    /// A receiver for the filter with this key, which is unknown.
    pub const fn new(filter: FilterKey) -> Self {
        Self {
            filter,
            at: Position { epoch: 0, seq: 0, blocks: 0 },
            is_following: false,
            snapshot: None,
            has_requested: false,
            complete_at: None,
            heartbeat_at: None,
        }
    }

    /// Begins a new link. The filter becomes outdated, since changes may be missing. Returns the position to resume
    /// from, if there is one.
    pub fn relinked(&mut self, filters: &mut PeerFilters) -> Option<Position> {
        self.unlinked(filters);
        self.has_requested = false;
        self.heartbeat_at = None;
        self.position()
    }

    /// Ends the link. The filter becomes outdated, and an incomplete snapshot is dropped.
    pub fn unlinked(&mut self, filters: &mut PeerFilters) {
        self.drop_snapshot(filters);
        filters.mark_outdated(self.filter);
    }

    fn drop_snapshot(&mut self, filters: &mut PeerFilters) {
        self.snapshot = None;
        filters.drop_snapshot(self.filter);
    }

    /// Makes the filter unknown until a snapshot begins.
    fn wait(&mut self, filters: &mut PeerFilters) {
        self.is_following = false;
        self.drop_snapshot(filters);
        filters.mark_outdated(self.filter);
    }

    /// The position up to which changes are applied, if the filter is known.
    pub fn position(&self) -> Option<Position> {
        self.is_following.then_some(self.at)
    }

    /// The epoch, and the numbers of the next changes.
    pub const fn expected(&self) -> Position {
        self.at
    }

    /// Received blocks of the incomplete snapshot, if there is one.
    pub fn snapshot_blocks(&self) -> Option<usize> {
        self.snapshot.map(|snapshot| snapshot.next)
    }

    /// Drops an incomplete snapshot and the filter.
    pub fn give_up(&mut self, filters: &mut PeerFilters) {
        self.wait(filters);
        filters.forget(self.filter);
    }

    /// Whether only the begin of a snapshot is accepted.
    pub const fn is_waiting(&self) -> bool {
        !self.is_following && self.snapshot.is_none()
    }

    /// Processes a heartbeat with the end of the peer's changelog. Additions before the end in the previous heartbeat
    /// must have been applied; otherwise the filter is outdated until they are.
    pub fn heartbeat_from(&mut self, filters: &mut PeerFilters, epoch: u64, seq: u64) {
        if self.is_following && epoch == self.at.epoch {
            if self.heartbeat_at.is_some_and(|seq| self.at.seq < seq) {
                filters.mark_outdated(self.filter);
            }
            self.heartbeat_at = Some(seq);
        }
        self.head_is(filters, epoch, seq);
    }

    /// Sets the end of the additions: when all before it are applied, the filter is trusted.
    pub fn head_is(&mut self, filters: &mut PeerFilters, epoch: u64, seq: u64) {
        if self.is_following && epoch == self.at.epoch {
            self.complete_at = self.complete_at.max(Some(seq));
            self.trust_if_complete(filters);
        }
    }

    fn trust_if_complete(&mut self, filters: &mut PeerFilters) {
        if self.is_following && self.complete_at.is_some_and(|seq| self.at.seq >= seq) {
            self.complete_at = None;
            // Refused only if the filter was dropped: it stays unknown.
            _ = filters.trust(self.filter);
        }
    }

    /// Begins a snapshot. If it begins at the next addition, the known filter stays trusted.
    ///
    /// # Errors
    /// `OldEpoch` changes nothing. If the snapshot does not fit the budget, the filter is dropped.
    pub fn begin(&mut self, filters: &mut PeerFilters, at: Position, size: Size) -> Result<(), ReceiveError> {
        if at.epoch < self.at.epoch {
            return Err(ReceiveError::OldEpoch);
        }
        let goes_on = self.is_following && (at.epoch, at.seq) == (self.at.epoch, self.at.seq);
        let begun = filters.begin_snapshot(self.filter, size);
        self.is_following = goes_on && filters.size(self.filter).is_some();
        self.snapshot = begun.is_ok().then_some(Snapshot { next: 0, blocks: at.blocks });
        self.has_requested = false;
        if !self.is_following {
            filters.mark_outdated(self.filter);
            self.at = at;
            self.complete_at = None;
            self.heartbeat_at = None;
        }
        Ok(begun?)
    }

    /// Writes the next blocks of the snapshot, eight words per block.
    ///
    /// # Errors
    /// `OutOfOrder` changes nothing.
    pub fn blocks(
        &mut self,
        filters: &mut PeerFilters,
        first: u32,
        words: &[u64],
    ) -> Result<ApplyResult, ReceiveError> {
        let (blocks, rest) = words.as_chunks::<BLOCK_WORDS>();
        let Some(snapshot) = &mut self.snapshot else { return self.without_snapshot() };
        let size = filters.incoming_size(self.filter).ok_or(FilterError::NotKnown)?;
        if first as usize != snapshot.next || !rest.is_empty() || blocks.len() > size.blocks() - snapshot.next
        {
            return Err(ReceiveError::OutOfOrder);
        }
        for image in blocks {
            filters.snapshot_block(self.filter, snapshot.next, image)?;
            snapshot.next += 1;
        }
        Ok(ApplyResult::Applied)
    }

    /// The result of a piece without a snapshot: pieces of a dropped snapshot may still arrive.
    const fn without_snapshot(&self) -> Result<ApplyResult, ReceiveError> {
        let is_dropped = self.has_requested || !self.is_following;
        if is_dropped { Ok(ApplyResult::Dropped) } else { Err(ReceiveError::OutOfOrder) }
    }

    /// Ends the snapshot, which replaces the filter.
    ///
    /// # Errors
    /// `OutOfOrder` changes nothing; an overfull filter is dropped.
    pub fn end(&mut self, filters: &mut PeerFilters) -> Result<ApplyResult, ReceiveError> {
        let Some(snapshot) = self.snapshot else { return self.without_snapshot() };
        if filters.incoming_size(self.filter).is_none_or(|size| snapshot.next != size.blocks()) {
            return Err(ReceiveError::OutOfOrder);
        }
        self.snapshot = None;
        if let Err(error) = filters.finish_snapshot(self.filter) {
            self.wait(filters);
            return Err(error.into());
        }
        self.at.blocks = snapshot.blocks;
        if !self.is_following {
            self.is_following = true;
            filters.trust(self.filter)?;
        }
        Ok(ApplyResult::Applied)
    }

    /// Applies the addition with number `seq`.
    ///
    /// # Errors
    /// An overfull filter is dropped.
    pub fn addition(
        &mut self,
        filters: &mut PeerFilters,
        seq: u64,
        hash: u64,
    ) -> Result<ApplyResult, ReceiveError> {
        if self.is_waiting() || seq < self.at.seq {
            return Ok(ApplyResult::Dropped);
        }
        if seq != self.at.seq {
            self.complete_at = self.complete_at.max(Some(seq.saturating_add(1)));
            filters.mark_outdated(self.filter);
            return Ok(self.miss(filters));
        }
        if let Err(error) = filters.add(self.filter, hash) {
            self.wait(filters);
            return Err(error.into());
        }
        self.at.seq = seq.saturating_add(1);
        self.has_requested = false;
        self.trust_if_complete(filters);
        Ok(ApplyResult::Applied)
    }

    /// Applies the rebuilt block with this number of change. A missing one only leaves removed keys claimed, so the
    /// filter stays known.
    ///
    /// # Errors
    /// A block that does not fit the filter changes nothing; an overfull filter is dropped.
    pub fn block(
        &mut self,
        filters: &mut PeerFilters,
        change: u64,
        number: u32,
        image: &Block,
    ) -> Result<ApplyResult, ReceiveError> {
        if !self.is_following || self.snapshot.is_some() || change < self.at.blocks {
            return Ok(ApplyResult::Dropped);
        }
        if change != self.at.blocks {
            return Ok(self.miss(filters));
        }
        if let Err(error) = filters.replace_block(self.filter, number, image) {
            self.wait(filters);
            return Err(error.into());
        }
        self.at.blocks = change.saturating_add(1);
        // A requested resync of additions is still pending.
        self.has_requested &= self.complete_at.is_some();
        Ok(ApplyResult::Applied)
    }

    /// Requests a resync once: from the known position, else a snapshot.
    fn miss(&mut self, filters: &mut PeerFilters) -> ApplyResult {
        if self.has_requested {
            return ApplyResult::Dropped;
        }
        self.has_requested = true;
        self.drop_snapshot(filters);
        if !self.is_following {
            self.wait(filters);
        }
        ApplyResult::Resync(self.position())
    }
}
