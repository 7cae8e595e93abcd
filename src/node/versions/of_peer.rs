//! What is known of the versions that one peer has met, and what is still to be done about them.

use crate::filter::bloom::Bloom;
use crate::filter::size::{Block, Size};
use crate::node::versions::tombstones::DISCARDED_SIZE_LOG2;
use crate::store::{KeyHash, ScanCursor, Version};

/// Bits of discarded deletions that may be set: above that too many other keys match.
const FILL_MAX: f64 = 0.7;

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

/// Discarded deletions of a peer, as they arrive, and then while the own keys are tested against them.
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
    /// Whether a key with this hash is among them, or seems to be.
    pub(in crate::node) fn contains(&self, hash: KeyHash) -> bool {
        self.filter.contains(hash.0)
    }

    /// Newer values stay.
    pub(in crate::node) const fn version(&self) -> Version {
        self.version
    }

    /// The position in the own keys, once all blocks are here.
    pub(in crate::node) const fn position(&self) -> Option<ScanCursor> {
        self.at
    }
}

/// What follows when blocks of discarded deletions were taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Discarded {
    /// Nothing: others are to come, or these did not fit.
    Incomplete,
    /// The own keys are to be tested.
    Complete,
    /// They match too many keys, and were dropped.
    TooFull,
}

/// Versions that a heartbeat has acknowledged, until a later one acknowledges the clock at which it arrived.
#[derive(Debug, Clone, Copy)]
struct PendingAck {
    up_to: Version,
    mark: Version,
}

/// The versions of one peer.
#[derive(Debug, Default)]
pub(in crate::node) struct PeerVersions {
    /// The clock of its last heartbeat: everything that it sent before, in the ordered stream, was processed.
    clock: u64,
    /// Versions up to this one it has met: it has no older value, and can get none.
    acked: Version,
    /// What its heartbeats acknowledge next.
    pending_ack: Option<PendingAck>,
    /// All own keys and tombstones are being tested against its filter.
    resync: Option<Resync>,
    discarded: Option<DiscardedScan>,
}

impl PeerVersions {
    /// A heartbeat with this clock has arrived.
    pub(in crate::node) fn note_clock(&mut self, clock: u64) {
        self.clock = self.clock.max(clock);
    }

    /// The clock up to which everything of its ordered stream was processed.
    pub(in crate::node) const fn clock(&self) -> u64 {
        self.clock
    }

    /// The version up to which it has met all: it has no older value, and can get none.
    pub(in crate::node) const fn acked(&self) -> Version {
        self.acked
    }

    /// A heartbeat has acknowledged versions up to `ack`, when the own clock was `mark`; `is_applied`: all that the peer
    /// has added to its filter before was answered.
    pub(in crate::node) fn acknowledge(&mut self, ack: Version, mark: Version, is_applied: bool) {
        if let Some(pending) = self.pending_ack.take_if(|pending| ack > pending.mark) {
            self.acked = self.acked.max(pending.up_to);
        }
        if is_applied && self.resync.is_none() && self.pending_ack.is_none() {
            // Frames that left together have one clock, and the last of them need not have arrived.
            self.pending_ack = Some(PendingAck { up_to: Version(ack.0.saturating_sub(1)), mark });
        }
    }

    /// The link was lost: nothing is tested or acknowledged any more.
    pub(in crate::node) fn link_lost(&mut self) {
        self.resync = None;
        self.pending_ack = None;
    }

    /// How far the resync is, if one goes on.
    pub(in crate::node) const fn resync(&self) -> Option<Resync> {
        self.resync
    }

    /// Its filter has become known: the resync begins.
    pub(in crate::node) fn begin_resync(&mut self) {
        self.resync = Some(Resync::Keys(ScanCursor::START));
    }

    /// The resync goes on there, or ends.
    pub(in crate::node) fn continue_resync(&mut self, at: Option<Resync>) {
        self.resync = at;
    }

    /// Takes in blocks of its discarded deletions, from the block `first` on.
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

    /// The own keys are tested up to there; at the start again: all are.
    pub(in crate::node) fn continue_discarded(&mut self, at: ScanCursor) {
        if at == ScanCursor::START {
            self.discarded = None;
        } else if let Some(scan) = &mut self.discarded {
            scan.at = Some(at);
        }
    }
}
