//! Pending work about versions, and the version floor.

use crate::base::key_queue::KeyQueue;
use crate::node::ids::{ConnTag, PeerKey, PeerTag};
use crate::store::{KeyHash, ScanCursor, Version};
use std::collections::BTreeSet;

/// Pending work about versions, and the floor.
#[derive(Debug, Default)]
pub(in crate::node) struct VersionWork {
    /// Peers with a resync in progress.
    pub(in crate::node) resyncs: KeyQueue<PeerTag>,
    /// Peers against whose discarded deletions the own keys are being tested.
    pub(in crate::node) discards: KeyQueue<PeerTag>,
    /// Clients that wait for a peer, closed ones included.
    pub(in crate::node) writers: KeyQueue<ConnTag>,
    /// The peer that they wait for.
    pub(in crate::node) awaited: Option<PeerKey>,
    /// Additions of peers that must be answered at the end of the entry point.
    unanswered: BTreeSet<(PeerKey, KeyHash)>,
    /// The version up to which all keys are removed.
    floor: Version,
    /// The position in the own keys, while they are tested against the floor.
    floor_scan: Option<ScanCursor>,
}

impl VersionWork {
    /// Notes an addition of a peer that must be answered.
    pub(in crate::node) fn must_answer(&mut self, peer: PeerKey, hash: KeyHash) {
        self.unanswered.insert((peer, hash));
    }

    /// Removes an addition that was answered; returns whether it was noted.
    pub(in crate::node) fn answered(&mut self, peer: PeerKey, hash: KeyHash) -> bool {
        self.unanswered.remove(&(peer, hash))
    }

    /// Takes the next unanswered addition.
    pub(in crate::node) fn next_unanswered(&mut self) -> Option<(PeerKey, KeyHash)> {
        self.unanswered.pop_first()
    }

    #[inline]
    pub(in crate::node) fn has_unanswered(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// The version up to which all keys are removed.
    pub(in crate::node) const fn floor(&self) -> Version {
        self.floor
    }

    /// Raises the floor to a version; false if it was not lower.
    pub(in crate::node) fn raise_floor(&mut self, version: Version) -> bool {
        let is_new = version > self.floor;
        self.floor = self.floor.max(version);
        is_new
    }

    /// The position in the own keys, while they are tested against the floor.
    pub(in crate::node) const fn floor_scan(&self) -> Option<ScanCursor> {
        self.floor_scan
    }

    /// Sets the position of the test against the floor; `None` ends it.
    pub(in crate::node) fn scan_floor_from(&mut self, at: Option<ScanCursor>) {
        self.floor_scan = at;
    }
}
