//! When changes of the own filter are published, and to which peers more is to be sent.

use crate::base::key_queue::KeyQueue;
use crate::base::time::Instant;
use crate::base::wheel::Wheel;
use crate::filter::changelog::{BulkBuffer, Position};
use crate::node::alarm::Alarm;
use crate::node::ids::PeerTag;
use std::time::Duration;

/// For how long changes gather, if some were published a moment ago.
const PUBLISH_EVERY: Duration = Duration::from_millis(1);

/// Changes in that time from which on they gather for longer, so that many share one header: 10,000 new
/// keys per second then take 8.5 bytes each.
const MANY: u64 = 5;

/// For how long many changes gather: a key is still found everywhere well within 10 ms.
const GATHER_FOR: Duration = Duration::from_millis(4);

/// Changes times readers that are published at once, so that it takes no longer with many peers: 128 KiB of hashes. With
/// few peers a write to a link and the wake-up of its node cost more than what they carry.
const ENTRIES_AT_ONCE: u64 = 16_384;

/// Additions in one write to a link: 32 KiB.
pub(in crate::node) const ADDITIONS_PER_WRITE: usize = 4_096;

/// What is to be published.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Entries {
    /// Changes.
    pub(in crate::node) waiting: u64,
    /// Peers that each of them goes to.
    pub(in crate::node) readers: usize,
}

impl Entries {
    /// Whether they are published at once.
    const fn are_many(self) -> bool {
        self.waiting * self.readers as u64 >= ENTRIES_AT_ONCE || self.waiting >= ADDITIONS_PER_WRITE as u64
    }
}

/// The state of publishing the own filter.
#[derive(Debug, Default)]
pub(in crate::node) struct Publishing {
    /// Peers with bulk to read, or with additions that found no room.
    pub(super) readers: KeyQueue<PeerTag>,
    /// When changes were last published, and up to which.
    last_at: Option<Instant>,
    last_seq: u64,
    last_blocks: u64,
    alarm: Alarm,
    hashes: Vec<u64>,
    bulk: BulkBuffer,
}

impl Publishing {
    /// Changes that are not published, if the changelog ends at `head`.
    #[inline]
    pub(in crate::node) const fn waiting(&self, head: Position) -> u64 {
        (head.seq - self.last_seq) + (head.blocks - self.last_blocks)
    }

    /// Changes up to `head` need not be published any more.
    pub(in crate::node) const fn skip(&mut self, head: Position) {
        (self.last_seq, self.last_blocks) = (head.seq, head.blocks);
    }

    /// Changes up to `head` are published now.
    pub(in crate::node) const fn published(&mut self, now: Instant, head: Position) {
        self.last_at = Some(now);
        self.skip(head);
    }

    /// Whether these changes are to be published now; else arms `timer` for it.
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

    /// Memory for hashes that are sent.
    pub(in crate::node) fn hashes(&mut self) -> &mut Vec<u64> {
        self.hashes.clear();
        &mut self.hashes
    }

    /// Memory for bulk that is sent.
    pub(in crate::node) const fn bulk(&mut self) -> &mut BulkBuffer {
        &mut self.bulk
    }
}
