//! How a peer's digest is followed: which of its messages count, by epoch and number, and what follows
//! from one that is missing.
//!
//! A message that was seen already is dropped, one that is missing makes the filter doubtful and asks for
//! a replay or a snapshot, one of an older life is refused. Whatever a peer sends costs O(1) and a bounded
//! number of bytes, since sizes are held against limits before anything is allocated. The filters
//! themselves are in [`super::peers`]; the sending side is [`super::digest`].

use super::changelog::{Change, Position};
use super::peer_filters::{FilterError, FilterKey, PeerFilters};
use super::size::{BLOCK_WORDS, Size};
use std::fmt;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It counts.
    Applied,
    /// It was known, or stands behind something that is missing and was asked for already.
    Dropped,
    /// Something is missing: the peer is to be asked to go on from here, by a snapshot if from nowhere.
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
            Self::OldEpoch => f.write_str("a digest of an older life"),
            Self::OutOfOrder => f.write_str("a snapshot out of order"),
            Self::Filter(error) => error.fmt(f),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is known, and nothing counts but a snapshot's beginning.
    Waiting,
    /// A snapshot is being written, up to `next`.
    Snapshot { next: usize },
    /// Changes are applied as they come.
    Following,
}

/// Follows the digest of one peer.
#[derive(Debug)]
pub struct Receiver {
    filter: FilterKey,
    /// The newest life of the peer that was seen, and the next change of it.
    at: Position,
    stage: Stage,
    /// A resync was asked for; until it comes, later numbers are dropped.
    asked: bool,
    /// When the change of this number is known, nothing is missing any more.
    complete_at: Option<u64>,
    /// Where the log ended by the last beat, on this link and in this stage.
    beat_at: Option<u64>,
}

impl Receiver {
    /// Knows nothing yet of the filter that goes by this key.
    pub const fn new(filter: FilterKey) -> Self {
        let at = Position { epoch: 0, seq: 0 };
        Self { filter, at, stage: Stage::Waiting, asked: false, complete_at: None, beat_at: None }
    }

    /// A new link to the peer. Its filter is in doubt, since changes may be missing; gives the place from
    /// which to go on, if there is one.
    pub fn relinked(&mut self, filters: &mut PeerFilters) -> Option<Position> {
        self.unlinked(filters);
        self.asked = false;
        self.beat_at = None;
        self.position()
    }

    /// The link has gone: changes may be missing, and what has come of a snapshot is of no use.
    pub fn unlinked(&mut self, filters: &mut PeerFilters) {
        if matches!(self.stage, Stage::Snapshot { .. }) {
            self.wait(filters);
        }
        filters.doubt(self.filter);
    }

    /// From here on nothing counts but a snapshot's beginning; what has come of one is dropped.
    fn wait(&mut self, filters: &mut PeerFilters) {
        self.stage = Stage::Waiting;
        filters.drop_snapshot(self.filter);
        filters.doubt(self.filter);
    }

    /// Which changes are known.
    pub fn position(&self) -> Option<Position> {
        (self.stage == Stage::Following).then_some(self.at)
    }

    /// The life of the peer that is followed, and the number of the change that comes next.
    pub const fn expected(&self) -> Position {
        self.at
    }

    /// How many blocks of a snapshot have come, while one is coming.
    pub const fn snapshot_blocks(&self) -> Option<usize> {
        match self.stage {
            Stage::Snapshot { next } => Some(next),
            Stage::Waiting | Stage::Following => None,
        }
    }

    /// Gives up a snapshot that does not come to its end, and the memory that it was to be written to.
    pub fn give_up(&mut self, filters: &mut PeerFilters) {
        self.stage = Stage::Waiting;
        filters.forget(self.filter);
    }

    /// Whether nothing counts until a snapshot begins.
    pub fn is_waiting(&self) -> bool {
        self.stage == Stage::Waiting
    }

    /// The peer's log ended here when it beat. What it had by the beat before is to be known by now: if it is
    /// not, the filter is in doubt until it is, however little seems to be missing.
    pub fn heartbeat_from(&mut self, filters: &mut PeerFilters, head: Position) {
        if self.stage == Stage::Following && head.epoch == self.at.epoch {
            if self.beat_at.is_some_and(|seq| self.at.seq < seq) {
                filters.doubt(self.filter);
            }
            self.beat_at = Some(head.seq);
        }
        self.heard_head(filters, head);
    }

    /// The peer's log ended here when it said so: if all before it is known, the filter is trusted.
    pub fn heard_head(&mut self, filters: &mut PeerFilters, head: Position) {
        if self.stage == Stage::Following && head.epoch == self.at.epoch {
            self.complete_at = self.complete_at.max(Some(head.seq));
            self.reconcile(filters);
        }
    }

    fn reconcile(&mut self, filters: &mut PeerFilters) {
        if self.stage == Stage::Following && self.complete_at.is_some_and(|seq| self.at.seq >= seq) {
            self.complete_at = None;
            // Refused only if the filter is gone, and then it is rightly unknown.
            _ = filters.trust(self.filter);
        }
    }

    fn fresh_epoch(&self, epoch: u64) -> Result<(), ReceiveError> {
        if epoch < self.at.epoch { Err(ReceiveError::OldEpoch) } else { Ok(()) }
    }

    /// A snapshot begins.
    ///
    /// # Errors
    /// `OldEpoch` changes nothing. If it does not fit, the filter is dropped.
    pub fn begin(&mut self, filters: &mut PeerFilters, at: Position, size: Size) -> Result<(), ReceiveError> {
        self.fresh_epoch(at.epoch)?;
        self.at = at;
        self.asked = false;
        self.complete_at = None;
        self.beat_at = None;
        self.stage = Stage::Waiting;
        filters.begin_snapshot(self.filter, size)?;
        self.stage = Stage::Snapshot { next: 0 };
        Ok(())
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
        let next = match self.stage {
            Stage::Snapshot { next } => next,
            Stage::Waiting => return Ok(Outcome::Dropped),
            Stage::Following => return Err(ReceiveError::OutOfOrder),
        };
        let size = filters.size(self.filter).ok_or(FilterError::NotKnown)?;
        if first as usize != next || !rest.is_empty() || blocks.len() > size.blocks() - next {
            return Err(ReceiveError::OutOfOrder);
        }
        for (number, image) in (next..).zip(blocks) {
            filters.snapshot_block(self.filter, number, image)?;
        }
        self.stage = Stage::Snapshot { next: next + blocks.len() };
        Ok(Outcome::Applied)
    }

    /// The snapshot ends; if it is whole, the filter is known.
    ///
    /// # Errors
    /// `OutOfOrder` changes nothing; an overfull filter is dropped.
    pub fn end(&mut self, filters: &mut PeerFilters) -> Result<Outcome, ReceiveError> {
        let next = match self.stage {
            Stage::Snapshot { next } => next,
            Stage::Waiting => return Ok(Outcome::Dropped),
            Stage::Following => return Err(ReceiveError::OutOfOrder),
        };
        if filters.size(self.filter).is_none_or(|size| next != size.blocks()) {
            return Err(ReceiveError::OutOfOrder);
        }
        self.stage = Stage::Waiting;
        filters.finish_snapshot(self.filter)?;
        self.stage = Stage::Following;
        Ok(Outcome::Applied)
    }

    /// A change, with its number.
    ///
    /// # Errors
    /// `OldEpoch` and a change that does not fit the filter change nothing; an overfull filter, or one that
    /// has outgrown the budget, is dropped.
    pub fn change(
        &mut self,
        filters: &mut PeerFilters,
        at: Position,
        change: &Change,
    ) -> Result<Outcome, ReceiveError> {
        self.fresh_epoch(at.epoch)?;
        if self.stage == Stage::Waiting {
            return Ok(Outcome::Dropped);
        }
        if at.epoch == self.at.epoch && at.seq < self.at.seq {
            return Ok(Outcome::Dropped);
        }
        if at != self.at {
            self.complete_at = self.complete_at.max(Some(at.seq.saturating_add(1)));
            return Ok(self.miss(filters, at.epoch == self.at.epoch));
        }
        let applied = match change {
            Change::Add(hash) => filters.add(self.filter, *hash),
            Change::Block { number, image } => filters.replace_block(self.filter, *number, image),
            Change::Resize(size) => filters.resize(self.filter, *size),
        };
        match applied {
            Ok(()) => {
                self.at.seq = self.at.seq.saturating_add(1);
                self.asked = false;
                self.reconcile(filters);
                Ok(Outcome::Applied)
            }
            // Not the peer's fault: it is ahead of our steps.
            Err(FilterError::Busy) => {
                self.wait(filters);
                Ok(Outcome::Resync(None))
            }
            Err(error) => {
                self.wait(filters);
                Err(error.into())
            }
        }
    }

    /// Asks, once, for what is missing: a replay within one life, else a snapshot.
    fn miss(&mut self, filters: &mut PeerFilters, replayable: bool) -> Outcome {
        filters.doubt(self.filter);
        if self.asked {
            return Outcome::Dropped;
        }
        self.asked = true;
        if self.stage == Stage::Following && replayable {
            return Outcome::Resync(Some(self.at));
        }
        self.wait(filters);
        Outcome::Resync(None)
    }
}
