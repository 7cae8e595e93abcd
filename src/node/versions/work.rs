//! What is still to be done about versions, and the version floor.

use crate::base::key_queue::KeyQueue;
use crate::node::ids::{PeerKey, PeerTag};
use crate::store::{KeyHash, ScanCursor, Version};
use std::collections::BTreeSet;

/// The work about versions that steps do, and the floor.
#[derive(Debug, Default)]
pub(in crate::node) struct VersionWork {
    /// Peers whose resync goes on.
    pub(in crate::node) resyncs: KeyQueue<PeerTag>,
    /// Peers whose discarded deletions the own keys are tested against.
    pub(in crate::node) discards: KeyQueue<PeerTag>,
    /// Additions of peers that are to be answered at the end of the entry point.
    unanswered: BTreeSet<(PeerKey, KeyHash)>,
    /// Up to which version all keys are gone.
    floor: Version,
    /// The position in the own keys, while they are tested against the floor.
    floor_scan: Option<ScanCursor>,
}

impl VersionWork {
    /// A peer has added a key that this node may know.
    pub(in crate::node) fn must_answer(&mut self, peer: PeerKey, hash: KeyHash) {
        self.unanswered.insert((peer, hash));
    }

    /// The addition of a key by a peer needs no answer any more; whether it did.
    pub(in crate::node) fn answered(&mut self, peer: PeerKey, hash: KeyHash) -> bool {
        self.unanswered.remove(&(peer, hash))
    }

    /// Takes the next addition that is to be answered.
    pub(in crate::node) fn next_unanswered(&mut self) -> Option<(PeerKey, KeyHash)> {
        self.unanswered.pop_first()
    }

    #[inline]
    pub(in crate::node) fn has_unanswered(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// The version up to which all keys are gone.
    pub(in crate::node) const fn floor(&self) -> Version {
        self.floor
    }

    /// Raises the floor to a version; whether that is above it.
    pub(in crate::node) fn raise_floor(&mut self, version: Version) -> bool {
        let is_new = version > self.floor;
        self.floor = self.floor.max(version);
        is_new
    }

    /// The position in the own keys, while they are tested against the floor.
    pub(in crate::node) const fn floor_scan(&self) -> Option<ScanCursor> {
        self.floor_scan
    }

    /// The own keys are to be tested against the floor from there, or no more.
    pub(in crate::node) fn scan_floor_from(&mut self, at: Option<ScanCursor>) {
        self.floor_scan = at;
    }
}
