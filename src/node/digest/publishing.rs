//! The state of publishing the own filter. Data only; see [`crate::node::digest::sync`].

use crate::base::time::Instant;
use crate::filter::changelog::BulkBuffer;
use crate::node::alarm::Alarm;
use crate::node::ids::PeerKey;
use std::collections::VecDeque;

/// When changes are published, and which peers have more to read.
#[derive(Debug, Default)]
pub(in crate::node) struct Publishing {
    /// When changes were last published, and up to which.
    pub(in crate::node) last_at: Option<Instant>,
    pub(in crate::node) last_seq: u64,
    pub(in crate::node) last_blocks: u64,
    pub(in crate::node) alarm: Alarm,
    /// Peers with bulk to read, or with additions that found no room; each once.
    pub(in crate::node) readers: VecDeque<PeerKey>,
    pub(in crate::node) hashes: Vec<u64>,
    pub(in crate::node) bulk: BulkBuffer,
}
