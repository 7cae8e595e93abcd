//! The versions that one peer has acknowledged, and the state of its resync.

use crate::filter::bloom::Bloom;
use crate::filter::size::{Block, Size};
use crate::node::versions::tombstones::DISCARDED_SIZE_LOG2;
use crate::store::{KeyHash, ScanCursor, Version};

/// The highest fill of an accepted filter of discarded deletions: above, too many other keys match.
const FILL_MAX: f64 = 0.7;

/// The progress of a resync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Resync {
    /// The position in the own keys.
    Keys(ScanCursor),
    /// The first tombstone that is not tested.
    Tombstones(KeyHash),
    /// The first block of the discarded deletions that is not sent.
    Discarded(usize),
}

/// Discarded deletions of a peer, while they arrive and while the own keys are tested against them.
#[derive(Debug)]
pub(in crate::node) struct DiscardedScan {
    filter: Bloom,
    version: Version,
    /// The next block.
    next: usize,
    /// The position in the own keys, once all blocks are here.
    at: Option<ScanCursor>,
}

impl DiscardedScan {
    /// Whether a key with this hash matches.
    pub(in crate::node) fn contains(&self, hash: KeyHash) -> bool {
        self.filter.contains(hash.0)
    }

    /// Their highest version: newer values stay.
    pub(in crate::node) const fn version(&self) -> Version {
        self.version
    }

    /// The position in the own keys, once all blocks are here.
    pub(in crate::node) const fn position(&self) -> Option<ScanCursor> {
        self.at
    }
}

/// The result of receiving blocks of discarded deletions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Discarded {
    /// More blocks are missing, or these were invalid.
    Incomplete,
    /// All blocks are here: the own keys must be tested.
    Complete,
    /// They match too many keys and were dropped.
    TooFull,
}

/// Versions acknowledged by a heartbeat, pending until a later heartbeat acknowledges the clock at its arrival.
#[derive(Debug, Clone, Copy)]
struct PendingAck {
    up_to: Version,
    mark: Version,
}

/// The versions of one peer.
#[derive(Debug, Default)]
pub(in crate::node) struct PeerVersions {
    /// The clock of its last heartbeat: its ordered stream up to then was processed.
    clock: u64,
    /// The version up to which the peer neither holds nor can receive an older value.
    acked: Version,
    /// The next acknowledgement, if one is pending.
    pending_ack: Option<PendingAck>,
    /// The resync in progress.
    resync: Option<Resync>,
    discarded: Option<DiscardedScan>,
}

impl PeerVersions {
    /// Notes the clock of a heartbeat.
    pub(in crate::node) fn note_clock(&mut self, clock: u64) {
        self.clock = self.clock.max(clock);
    }

    /// The clock up to which its ordered stream was processed.
    pub(in crate::node) const fn clock(&self) -> u64 {
        self.clock
    }

    /// The version up to which the peer neither holds nor can receive an older value.
    pub(in crate::node) const fn acked(&self) -> Version {
        self.acked
    }

    /// Processes an acknowledgement of versions up to `ack`, at the own clock `mark`; `is_applied`: all earlier
    /// additions of the peer were answered.
    pub(in crate::node) fn acknowledge(&mut self, ack: Version, mark: Version, is_applied: bool) {
        if let Some(pending) = self.pending_ack.take_if(|pending| ack > pending.mark) {
            self.acked = self.acked.max(pending.up_to);
        }
        if is_applied && self.resync.is_none() && self.pending_ack.is_none() {
            // Frames sent together have one clock, and the last of them may not have arrived.
            self.pending_ack = Some(PendingAck { up_to: Version(ack.0.saturating_sub(1)), mark });
        }
    }

    /// Ends resync and pending acknowledgement after the link was lost.
    pub(in crate::node) fn link_lost(&mut self) {
        self.resync = None;
        self.pending_ack = None;
    }

    /// The progress of the resync, if there is one.
    pub(in crate::node) const fn resync(&self) -> Option<Resync> {
        self.resync
    }

    /// Begins the resync, since the peer's filter has become known.
    pub(in crate::node) fn begin_resync(&mut self) {
        self.resync = Some(Resync::Keys(ScanCursor::START));
    }

    /// Sets the progress of the resync; `None` ends it.
    pub(in crate::node) fn continue_resync(&mut self, at: Option<Resync>) {
        self.resync = at;
    }

    /// Stores blocks of its discarded deletions, from the block `first` on.
    pub(in crate::node) fn take_discarded(
        &mut self,
        first: usize,
        version: Version,
        blocks: impl Iterator<Item = Block>,
    ) -> Discarded {
        let Some(size) = Size::from_log2(DISCARDED_SIZE_LOG2) else { return Discarded::Incomplete };
        if first == 0 {
            self.discarded =
                Bloom::try_new(size).map(|filter| DiscardedScan { filter, version, next: 0, at: None });
        }
        let scan = self.discarded.as_mut().filter(|scan| scan.next == first && scan.version == version);
        let Some(scan) = scan else { return Discarded::Incomplete };
        for block in blocks {
            scan.filter.replace_block(scan.next, &block);
            scan.next += 1;
        }
        if scan.next < size.blocks() {
            return Discarded::Incomplete;
        }
        if scan.filter.fill() > FILL_MAX {
            self.discarded = None;
            return Discarded::TooFull;
        }
        scan.at = Some(ScanCursor::START);
        Discarded::Complete
    }

    /// Its discarded deletions, if the own keys are being tested against them.
    pub(in crate::node) const fn discarded(&self) -> Option<&DiscardedScan> {
        self.discarded.as_ref()
    }

    /// Sets the position in the own keys; the start ends the test.
    pub(in crate::node) fn continue_discarded(&mut self, at: ScanCursor) {
        if at == ScanCursor::START {
            self.discarded = None;
        } else if let Some(scan) = &mut self.discarded {
            scan.at = Some(at);
        }
    }
}
