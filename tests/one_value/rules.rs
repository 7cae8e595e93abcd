//! The rules of the protocol, each of which can be switched off.

/// One rule. Its comment is the rule; the hole is what `docs/consistency.md` calls the history that it prevents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// SET sends INVALIDATE to each linked peer whose filter claims the key or is unknown.
    SetInvalidates,
    /// An addition of a key that is held here is answered with INVALIDATE, even if its bit was set before.
    AdditionAnswered,
    /// An INVALIDATE below the own version is answered with NEWER.
    NewerAnswered,
    /// Of two values with one version that of the greater node stays; a tombstone beats both.
    TiesDecided,
    /// A frame's clock is adopted before the frame is handled.
    ClockAdopted,
    /// Pending additions leave before an INVALIDATE or a NEWER does.
    AdditionsFirst,
    /// A reconnect tests all own keys, whatever the peer had acknowledged.
    ReconnectTestsAll,
    /// The end of a snapshot tests all own keys.
    SnapshotTestsAll,
    /// NONE, NOTHOLDER and DELETED name nodes that have the key now.
    Hints,
    /// The view of an unlinked peer is kept; while it claims the key, travelling commands do nothing.
    ViewKept,
    /// Only one node creates a key by a travelling command: the highest rendezvous rank.
    HomeNode,
    /// A claim whose peer just answered NOTHOLDER does not keep the home node from creating.
    TriedExcluded,
    /// A lookup starts with the version that `moved` remembers as its floor.
    MovedIsFloor,
    /// An addition that meets a tombstone is answered with INVALIDATE GONE.
    AdditionMeetsTombstone,
    /// An INVALIDATE below a tombstone is answered with NEWER GONE.
    TombstoneAnswers,
    /// DELETE removes what is there and stamps above it, instead of comparing versions.
    DeleteIsCommand,
    /// DELETED acts at the deleting node as an INVALIDATE GONE.
    DeletedInvalidates,
    /// A heartbeat acknowledges only when the sender's changelog is applied up to its length.
    BeatNamesPosition,
    /// A heartbeat does not overtake frames of the ordered stream, whose clocks it acknowledges.
    BeatKeepsOrder,
    /// A heartbeat acknowledges nothing while a resync with its sender runs.
    AcknowledgedAfterResync,
    /// No tombstone is collected while a resync runs.
    ResyncKeepsTombstones,
    /// A handshake acknowledges nothing.
    HelloAcknowledgesNothing,
    /// What a heartbeat acknowledges counts when a later one acknowledges the clock at which it arrived.
    AcknowledgedTwice,
    /// An acknowledged clock covers what was sent at clocks strictly below it.
    AcknowledgedMeansBelow,
    /// A tombstone stays beside a newer value.
    TombstoneBesideValue,
    /// Expiry leaves a tombstone while a peer has not acknowledged the version.
    ExpiryLeavesTombstone,
    /// Commands on the TTL keep the version.
    TtlKeepsVersion,
    /// `FLUSHALL MESH` is answered after all linked nodes have acknowledged the floor.
    FlushWaits,
    /// A block is rebuilt only after frames that were under way at the drop have arrived.
    RebuildWaits,
    /// Additions and block images share one queue; an image shows the filter at the moment it is put there.
    OneQueue,
    /// VALUE sets `moved` at the querying node, so that its next read does not return less.
    ValueSetsMoved,
    /// EXECUTED sets `moved` at the querying node.
    ExecutedSetsMoved,
    /// EXECUTED acts at the querying node as an INVALIDATE of the holder.
    ExecutedInvalidates,
    /// Own tombstones are a floor for lookups.
    TombstoneIsFloor,
    /// INVALIDATE from a peer makes it eligible again for an open lookup.
    InvalidateRepeatsQuery,
}

impl Rule {
    /// Rules that the search shows no need for while all others hold.
    pub const BESIDE_OTHERS: [Self; 4] = [
        Self::BeatKeepsOrder,
        Self::AcknowledgedAfterResync,
        Self::ResyncKeepsTombstones,
        Self::TombstoneBesideValue,
    ];

    pub const ALL: [Self; 35] = [
        Self::SetInvalidates,
        Self::AdditionAnswered,
        Self::NewerAnswered,
        Self::TiesDecided,
        Self::ClockAdopted,
        Self::AdditionsFirst,
        Self::ReconnectTestsAll,
        Self::SnapshotTestsAll,
        Self::Hints,
        Self::ViewKept,
        Self::HomeNode,
        Self::TriedExcluded,
        Self::MovedIsFloor,
        Self::AdditionMeetsTombstone,
        Self::TombstoneAnswers,
        Self::DeleteIsCommand,
        Self::DeletedInvalidates,
        Self::BeatNamesPosition,
        Self::BeatKeepsOrder,
        Self::AcknowledgedAfterResync,
        Self::ResyncKeepsTombstones,
        Self::HelloAcknowledgesNothing,
        Self::AcknowledgedTwice,
        Self::AcknowledgedMeansBelow,
        Self::TombstoneBesideValue,
        Self::ExpiryLeavesTombstone,
        Self::TtlKeepsVersion,
        Self::FlushWaits,
        Self::RebuildWaits,
        Self::OneQueue,
        Self::ValueSetsMoved,
        Self::ExecutedSetsMoved,
        Self::ExecutedInvalidates,
        Self::TombstoneIsFloor,
        Self::InvalidateRepeatsQuery,
    ];
}
