//! Following the changelog of one peer: which changes are applied, and what follows from one that is missing.
//!
//! A change that was applied before is dropped; one that is missing makes the filter unknown and requests
//! a resync; a snapshot of an older life is refused. A snapshot that begins at the addition that comes next replaces the
//! filter as long as it is known: until it is complete, the filter that is known is searched, and additions go into both.
//! Whatever a peer sends costs O(1) and a bounded number of bytes, since sizes are checked before anything is
//! allocated. The filters themselves are in [`super::peer_filters`]; the sending side is [`super::changelog`].

use super::changelog::Position;
use super::key::FilterKey;
use super::peer_filters::{FilterError, PeerFilters};
use super::size::{BLOCK_WORDS, Block, Size};
use std::fmt;

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied.
    Applied,
    /// It was known, or follows something that is missing and was requested already.
    Dropped,
    /// Something is missing: the peer is to go on from here, with a snapshot if from nowhere.
    Resync(Option<Position>),
}

/// Why a message was refused. Nothing of it was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveError {
    /// It belongs to an older life of the peer.
    OldEpoch,
    /// Blocks that are not the next of a snapshot, or an end before the last of them.
    OutOfOrder,
    /// The filter cannot take it.
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
            Self::OldEpoch => f.write_str("a changelog of an older life"),
            Self::OutOfOrder => f.write_str("a snapshot out of order"),
            Self::Filter(error) => error.fmt(f),
        }
    }
}

/// A snapshot that is being received.
#[derive(Debug, Clone, Copy)]
struct Snapshot {
    /// The next block.
    next: usize,
    /// Changes of blocks that are in it.
    blocks: u64,
}

/// Follows the changelog of one peer.
#[derive(Debug)]
pub struct Receiver {
    filter: FilterKey,
    /// The newest life of the peer that was seen, and the next changes of it.
    at: Position,
    /// The filter is known: changes are applied as they come. If not, nothing counts before a snapshot begins.
    is_following: bool,
    snapshot: Option<Snapshot>,
    /// A resync was requested; later changes are dropped until it arrives.
    has_requested: bool,
    /// When all additions before this one are known, nothing is missing any more.
    complete_at: Option<u64>,
    /// The end of the additions in the last heartbeat, on this link.
    heartbeat_at: Option<u64>,
}

impl Receiver {
    /// Knows nothing yet of the filter with this key.
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

    /// A new link to the peer. Its filter is outdated, since changes may be missing; returns the position from
    /// which to go on, if there is one.
    pub fn relinked(&mut self, filters: &mut PeerFilters) -> Option<Position> {
        self.unlinked(filters);
        self.has_requested = false;
        self.heartbeat_at = None;
        self.position()
    }

    /// The link was lost: changes may be missing, and an incomplete snapshot is of no use.
    pub fn unlinked(&mut self, filters: &mut PeerFilters) {
        self.drop_snapshot(filters);
        filters.mark_outdated(self.filter);
    }

    fn drop_snapshot(&mut self, filters: &mut PeerFilters) {
        self.snapshot = None;
        filters.drop_snapshot(self.filter);
    }

    /// From here on nothing counts before a snapshot begins.
    fn wait(&mut self, filters: &mut PeerFilters) {
        self.is_following = false;
        self.drop_snapshot(filters);
        filters.mark_outdated(self.filter);
    }

    /// Which changes are known.
    pub fn position(&self) -> Option<Position> {
        self.is_following.then_some(self.at)
    }

    /// The life of the peer that is followed, and the numbers of the changes that come next.
    pub const fn expected(&self) -> Position {
        self.at
    }

    /// Blocks of a snapshot that have come, while one is coming.
    pub fn snapshot_blocks(&self) -> Option<usize> {
        self.snapshot.map(|snapshot| snapshot.next)
    }

    /// Gives up a snapshot that does not come to its end, the memory that it was written to, and the filter.
    pub fn give_up(&mut self, filters: &mut PeerFilters) {
        self.wait(filters);
        filters.forget(self.filter);
    }

    /// Whether nothing counts before a snapshot begins.
    pub const fn is_waiting(&self) -> bool {
        !self.is_following && self.snapshot.is_none()
    }

    /// A heartbeat of the peer, and where its changelog ends. What was before the end in the heartbeat before must be
    /// known by now: if not, the filter is outdated until it is.
    pub fn heartbeat_from(&mut self, filters: &mut PeerFilters, epoch: u64, seq: u64) {
        if self.is_following && epoch == self.at.epoch {
            if self.heartbeat_at.is_some_and(|seq| self.at.seq < seq) {
                filters.mark_outdated(self.filter);
            }
            self.heartbeat_at = Some(seq);
        }
        self.head_is(filters, epoch, seq);
    }

    /// The additions of the peer ended here: when all of them are known, the filter is trusted.
    pub fn head_is(&mut self, filters: &mut PeerFilters, epoch: u64, seq: u64) {
        if self.is_following && epoch == self.at.epoch {
            self.complete_at = self.complete_at.max(Some(seq));
            self.trust_if_complete(filters);
        }
    }

    fn trust_if_complete(&mut self, filters: &mut PeerFilters) {
        if self.is_following && self.complete_at.is_some_and(|seq| self.at.seq >= seq) {
            self.complete_at = None;
            // Refused only if the filter is dropped, and then it is rightly unknown.
            _ = filters.trust(self.filter);
        }
    }

    /// A snapshot begins. If it does so at the addition that comes next, the filter that is known stays trusted.
    ///
    /// # Errors
    /// `OldEpoch` changes nothing. If it does not fit, the filter is dropped.
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

    /// The next blocks of the snapshot, as their words.
    ///
    /// # Errors
    /// Blocks that are not the next: nothing is changed.
    pub fn blocks(
        &mut self,
        filters: &mut PeerFilters,
        first: u32,
        words: &[u64],
    ) -> Result<Outcome, ReceiveError> {
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
        Ok(Outcome::Applied)
    }

    /// Pieces of a snapshot that was dropped here may still come.
    const fn without_snapshot(&self) -> Result<Outcome, ReceiveError> {
        let is_dropped = self.has_requested || !self.is_following;
        if is_dropped { Ok(Outcome::Dropped) } else { Err(ReceiveError::OutOfOrder) }
    }

    /// The snapshot ends; if it is complete, it is the filter.
    ///
    /// # Errors
    /// `OutOfOrder` changes nothing; an overfull filter is dropped.
    pub fn end(&mut self, filters: &mut PeerFilters) -> Result<Outcome, ReceiveError> {
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
        Ok(Outcome::Applied)
    }

    /// An addition, with its number.
    ///
    /// # Errors
    /// An overfull filter is dropped.
    pub fn addition(
        &mut self,
        filters: &mut PeerFilters,
        seq: u64,
        hash: u64,
    ) -> Result<Outcome, ReceiveError> {
        if self.is_waiting() || seq < self.at.seq {
            return Ok(Outcome::Dropped);
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
        Ok(Outcome::Applied)
    }

    /// A rebuilt block, with the number of the change. One that is missing leaves keys claimed that are gone, and the
    /// filter known.
    ///
    /// # Errors
    /// A block that does not fit the filter changes nothing; an overfull filter is dropped.
    pub fn block(
        &mut self,
        filters: &mut PeerFilters,
        change: u64,
        number: u32,
        image: &Block,
    ) -> Result<Outcome, ReceiveError> {
        if !self.is_following || self.snapshot.is_some() || change < self.at.blocks {
            return Ok(Outcome::Dropped);
        }
        if change != self.at.blocks {
            return Ok(self.miss(filters));
        }
        if let Err(error) = filters.replace_block(self.filter, number, image) {
            self.wait(filters);
            return Err(error.into());
        }
        self.at.blocks = change.saturating_add(1);
        // A resync for additions is still to come.
        self.has_requested &= self.complete_at.is_some();
        Ok(Outcome::Applied)
    }

    /// Requests, once, what is missing: from the position that is known, else a snapshot.
    fn miss(&mut self, filters: &mut PeerFilters) -> Outcome {
        if self.has_requested {
            return Outcome::Dropped;
        }
        self.has_requested = true;
        self.drop_snapshot(filters);
        if !self.is_following {
            self.wait(filters);
        }
        Outcome::Resync(self.position())
    }
}
