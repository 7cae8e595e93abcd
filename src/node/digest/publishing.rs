//! The timing of publishing changes of the own filter, and the peers with unsent changes.

use crate::base::key_queue::KeyQueue;
use crate::base::time::Instant;
use crate::base::wheel::Wheel;
use crate::filter::changelog::{BulkBuffer, Position};
use crate::node::alarm::Alarm;
use crate::node::ids::PeerTag;
use std::time::Duration;

/// The least time between two batches of changes.
const PUBLISH_EVERY: Duration = Duration::from_millis(1);

/// Changes per [`PUBLISH_EVERY`] from which on batches are longer, so that many changes share one header: at 10,000
/// new keys per second a key then takes 8.5 bytes.
const MANY: u64 = 5;

/// The time between two long batches: keys are still found on all nodes well within 10 ms.
const GATHER_FOR: Duration = Duration::from_millis(4);

/// Changes times readers from which on a batch is published at once, so that it stays short with many peers: 128 KiB
/// of hashes. With few peers the write and the wake-up of the node cost more than the data.
const ENTRIES_AT_ONCE: u64 = 16_384;

/// Additions in one write to a link: 32 KiB.
pub(in crate::node) const ADDITIONS_PER_WRITE: usize = 4_096;

/// The unpublished changes.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Entries {
    /// Changes.
    pub(in crate::node) waiting: u64,
    /// Their readers.
    pub(in crate::node) readers: usize,
}

impl Entries {
    /// Whether they must be published at once.
    const fn are_many(self) -> bool {
        self.waiting * self.readers as u64 >= ENTRIES_AT_ONCE || self.waiting >= ADDITIONS_PER_WRITE as u64
    }
}

/// The state of publishing the own filter.
#[derive(Debug, Default)]
pub(in crate::node) struct Publishing {
    /// Peers with unsent bulk, or with additions that the link had no room for.
    pub(super) readers: KeyQueue<PeerTag>,
    /// When changes were last published.
    last_at: Option<Instant>,
    last_seq: u64,
    last_blocks: u64,
    alarm: Alarm,
    hashes: Vec<u64>,
    bulk: BulkBuffer,
}

impl Publishing {
    /// The number of unpublished changes before `head`.
    #[inline]
    pub(in crate::node) const fn waiting(&self, head: Position) -> u64 {
        (head.seq - self.last_seq) + (head.blocks - self.last_blocks)
    }

    /// Skips changes before `head`, which need not be published.
    pub(in crate::node) const fn skip(&mut self, head: Position) {
        (self.last_seq, self.last_blocks) = (head.seq, head.blocks);
    }

    /// Notes that changes before `head` are published.
    pub(in crate::node) const fn published(&mut self, now: Instant, head: Position) {
        self.last_at = Some(now);
        self.skip(head);
    }

    /// Whether changes must be published now; arms `timer` for them otherwise.
    pub(in crate::node) fn is_due<T: Copy>(
        &mut self,
        now: Instant,
        entries: Entries,
        timers: &mut Wheel<T>,
        timer: T,
    ) -> bool {
        let span = if entries.waiting < MANY { PUBLISH_EVERY } else { GATHER_FOR };
        let due = self.last_at.map_or(now, |last_at| last_at.after(span));
        let is_due = due <= now || entries.are_many();
        if !is_due {
            self.alarm.arm(timers, due, timer);
        }
        is_due
    }

    /// Whether the timer that fired is the live one.
    pub(in crate::node) fn fired(&mut self, deadline: u64) -> bool {
        self.alarm.fired(deadline)
    }

    pub(in crate::node) fn is_live(&self, deadline: u64) -> bool {
        self.alarm.is_live(deadline)
    }

    /// Memory for hashes to send, reused.
    pub(in crate::node) fn hashes(&mut self) -> &mut Vec<u64> {
        self.hashes.clear();
        &mut self.hashes
    }

    /// Memory for bulk to send, reused.
    pub(in crate::node) const fn bulk(&mut self) -> &mut BulkBuffer {
        &mut self.bulk
    }
}
