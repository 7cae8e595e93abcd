//! Eviction: which items are removed when memory is short, by S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues
//! are all you need for cache eviction", SOSP 2023).
//!
//! New items enter the small queue, a tenth of the memory. At its end an item that was used at least twice moves to
//! the main queue (once while the main queue is short, as at first, when all items are in the small one); others are
//! evicted, and the ghost queue stores their fingerprints: a key found there enters the main queue directly. In the main
//! queue each use, up to three, saves an item once. These numbers are for items of the mean size of evicted items. Others
//! need uses in proportion to their bytes, at most three; fractions are rounded at random. So the items with the most
//! uses per byte stay.
//!
//! Queues contain [`Location`]s, not handles: an item that moves in the heap or the index keeps its position, and
//! removing an item costs nothing. Its entry is stale, and dropped when it is reached.
//!
//! Not here: when to evict, and the bits of an item's header that count its uses.

use super::index::Location;
use super::item::Marks;
use super::{HashedKey, KeyHash, ScanCursor, Store, heap_keys};
use crate::base::memory::has_room;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use std::collections::VecDeque;

/// The policy at the memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Eviction {
    /// Writes are refused.
    #[default]
    Refuse,
    /// Items are evicted.
    AnyItem,
    /// Items with an expiry are evicted.
    ItemsWithTtl,
}

/// Entries checked per piece of eviction: some 15 µs. If none was evicted, the last one is, whatever its uses.
const CHECKS_PER_PIECE: u32 = 128;

/// Items smaller than the mean by more than this factor count as this small, so that one in this many checks evicts.
const SMALLEST_SHARE: u64 = 64;

/// Checks that cost as much as one merge of two segments of the index.
const CHECKS_PER_MERGE: u32 = 64;

/// Divisor of the live bytes above which eviction takes from the small queue.
const SMALL_SHARE: usize = 10;

/// Divisor of the live bytes: while the small queue has more than this share, the main queue is short.
const SHORT_MAIN_SHARE: usize = 8;

/// Uses in the small queue after which an item of the mean size moves to the main queue; one while that is short.
const USES_TO_MAIN: u64 = 2;

/// The number of recently evicted items over which bytes are averaged, about.
const AVERAGED: u64 = 256;

/// Entries above two per item at which a purge of stale entries begins, and entries checked per new entry.
const STALE_SPARE: usize = 4_096;
const CHECKS_PER_PURGE: usize = 4;

/// Items queued per scan.
const ITEMS_PER_SCAN: usize = 256;

/// Entries before its check at which the bucket, and the item, of an entry are prefetched.
const BUCKETS_AHEAD: usize = 8;
const ITEMS_AHEAD: usize = 4;

/// Entries of a chunk of a queue: 4 KiB.
const CHUNK_ENTRIES: usize = 816;
type Chunk = [Location; CHUNK_ENTRIES];

/// A set of the ghost queue: fingerprints, the newest first.
type GhostSet = [u16; 8];

/// The least bytes of the ghost queue.
const GHOST_BYTES_MIN: usize = 1_024;

/// A queue of entries in chunks, first in first out.
#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Box<Chunk>>,
    /// The index of the first entry in the first chunk.
    head: usize,
    len: usize,
    /// Entries that the current purge has not checked. It keeps one entry per item, and marks the item with its
    /// parity. New items have the parity of the last purge.
    unpurged: usize,
    is_odd: bool,
    /// An empty chunk for reuse.
    spare: Option<Box<Chunk>>,
}

impl Queue {
    /// Adds an entry. It is lost if the system has no memory for it.
    fn push(&mut self, entry: Location) {
        let end = self.head + self.len;
        if end == self.chunks.len() * CHUNK_ENTRIES {
            let grown = 2 * self.chunks.len() * size_of::<Box<Chunk>>();
            if self.chunks.len() == self.chunks.capacity() && !has_room(grown) {
                return;
            }
            self.chunks.push_back(self.spare.take().unwrap_or_else(|| Box::new([entry; CHUNK_ENTRIES])));
        }
        self.chunks[end / CHUNK_ENTRIES][end % CHUNK_ENTRIES] = entry;
        self.len += 1;
    }

    fn pop(&mut self) -> Option<Location> {
        let entry = self.get(0)?;
        self.head += 1;
        self.len -= 1;
        self.unpurged = self.unpurged.saturating_sub(1);
        if self.head == CHUNK_ENTRIES {
            self.head = 0;
            self.spare = self.chunks.pop_front();
        }
        Some(entry)
    }

    /// The entry at index `at`.
    fn get(&self, at: usize) -> Option<Location> {
        let from = self.head + at;
        (at < self.len).then(|| self.chunks[from / CHUNK_ENTRIES][from % CHUNK_ENTRIES])
    }

    fn memory_bytes(&self) -> usize {
        let chunks = self.chunks.len() + usize::from(self.spare.is_some());
        chunks * size_of::<Chunk>() + self.chunks.capacity() * size_of::<Box<Chunk>>()
    }
}

/// The ghost queue: fingerprints of items evicted from the small queue, in sets of eight, each first in first out.
#[derive(Debug, Default)]
struct Ghost {
    sets: Vec<GhostSet>,
}

impl Ghost {
    /// Adds a key. The ghost queue takes 0.5 to 1 byte per item; it is emptied when its size must change and the system
    /// has memory.
    fn add(&mut self, hash: KeyHash, items: usize) {
        let bytes = (items + 1).next_power_of_two() / 2;
        let held = self.sets.len() * size_of::<GhostSet>();
        if bytes > held || bytes < held / 4 {
            let bytes = bytes.max(GHOST_BYTES_MIN);
            if bytes != held && has_room(bytes) {
                self.sets = vec![GhostSet::default(); bytes / size_of::<GhostSet>()];
            }
        }
        if self.sets.is_empty() {
            return;
        }
        let (set, fingerprint) = self.place(hash);
        let set = &mut self.sets[set];
        set.rotate_right(1);
        set[0] = fingerprint;
    }

    /// Whether a key is in the ghost queue. The false-positive rate is 1 in 8,000.
    fn has(&self, hash: KeyHash) -> bool {
        if self.sets.is_empty() {
            return false;
        }
        let (set, fingerprint) = self.place(hash);
        self.sets[set].contains(&fingerprint)
    }

    /// The set of a hash, and its fingerprint, which is not 0. The number of sets is a power of two.
    fn place(&self, hash: KeyHash) -> (usize, u16) {
        let [low, high, ..] = hash.0.to_le_bytes();
        let set = (hash.0 >> 16) as usize & (self.sets.len() - 1);
        (set, u16::from_le_bytes([low, high]).max(1))
    }

    const fn memory_bytes(&self) -> usize {
        self.sets.capacity() * size_of::<GhostSet>()
    }
}

/// The queues; see the module.
#[derive(Debug, Default)]
pub(super) struct Queues {
    policy: Eviction,
    /// False without a memory limit, or if writes are refused: then nothing is queued.
    is_on: bool,
    small: Queue,
    main: Queue,
    ghost: Ghost,
    /// Items from this position on may not be queued.
    unqueued: Option<ScanCursor>,
    /// A whole scan was done since the last eviction.
    is_scanned: bool,
    /// Nothing was found to evict.
    is_exhausted: bool,
    evicted: u64,
    /// The mean bytes of evicted items, times [`AVERAGED`]; 0 before the first check.
    averaged_bytes: u64,
    rng: Rng,
}

impl Queues {
    /// Bytes held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.small.memory_bytes() + self.main.memory_bytes() + self.ghost.memory_bytes()
    }

    /// Empties the queues. `has_items`: there are items to be queued again.
    pub(super) fn reset(&mut self, is_on: bool, has_items: bool) {
        let (policy, evicted) = (self.policy, self.evicted);
        let unqueued = (is_on && has_items).then_some(ScanCursor::START);
        *self = Self { policy, is_on, evicted, unqueued, ..Self::default() };
    }

    #[inline]
    pub(super) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether an item can possibly be evicted.
    pub(super) const fn may_evict(&self) -> bool {
        self.is_on && !self.is_exhausted
    }

    fn queue(&mut self, is_main: bool) -> &mut Queue {
        if is_main { &mut self.main } else { &mut self.small }
    }

    /// The uses that an item of `bytes` bytes needs to stay, if one of the mean size needs `mean_uses`.
    fn uses_to_stay(&mut self, bytes: u64, mean_uses: u64) -> u8 {
        if self.averaged_bytes == 0 {
            self.averaged_bytes = bytes * AVERAGED;
        }
        let mean = self.averaged_bytes.div_ceil(AVERAGED);
        let uses = (mean_uses * bytes.max(mean / SMALLEST_SHARE) + self.rng.below(mean)) / mean;
        u8::try_from(uses).unwrap_or(Marks::USES_MAX).min(Marks::USES_MAX)
    }

    fn count_evicted(&mut self, bytes: u64) {
        self.evicted += 1;
        self.averaged_bytes = self.averaged_bytes - self.averaged_bytes / AVERAGED + bytes;
    }
}

impl Store {
    /// Changes the policy at the memory limit. Existing items are queued in hash order.
    pub fn set_eviction(&mut self, policy: Eviction) {
        if self.queues.policy != policy {
            self.queues.policy = policy;
            self.reset_queues();
        }
    }

    /// Items evicted since the start.
    pub const fn evicted(&self) -> u64 {
        self.queues.evicted
    }

    pub(super) fn forget_queues_if_empty(&mut self) {
        if self.is_empty() && self.queues.is_on {
            self.reset_queues();
        }
    }

    pub(super) fn reset_queues(&mut self) {
        let is_on = self.queues.policy != Eviction::Refuse && self.memory_max != 0;
        self.index.merge_early(is_on);
        self.queues.reset(is_on, !self.is_empty());
    }

    /// Queues an item that was written, or that got its first expiry, if it could not be evicted before.
    pub(super) fn enqueue(&mut self, hash: KeyHash, handle: u32, is_new: bool) {
        let queues = &mut self.queues;
        let is_timed = self.heap.expiry(handle).is_some();
        let wanted = match queues.policy {
            Eviction::Refuse => false,
            Eviction::AnyItem => is_new,
            Eviction::ItemsWithTtl => is_timed,
        };
        if !wanted {
            return;
        }
        queues.is_exhausted = false;
        if is_new && queues.ghost.has(hash) {
            self.heap.set_marks(handle, Marks::MAIN);
        }
        self.push_queued(Location::of(hash.0), handle);
        if self.has_stale_entries() {
            self.purge_queues(CHECKS_PER_PURGE);
        }
    }

    /// Adds an entry to the queue of its item.
    fn push_queued(&mut self, entry: Location, handle: u32) {
        let marks = self.heap.marks(handle);
        let queue = self.queues.queue(marks.is_main());
        self.heap.set_marks(handle, marks.with_odd(queue.is_odd));
        queue.push(entry);
    }

    /// Whether there are more than [`STALE_SPARE`] entries above two per item.
    pub(super) const fn has_stale_entries(&self) -> bool {
        self.queues.small.len + self.queues.main.len > 2 * self.index.len() + STALE_SPARE
    }

    /// Checks entries of the longer queue and drops stale and duplicate ones.
    pub(super) fn purge_queues(&mut self, checks: usize) {
        let is_main = self.queues.main.len > self.queues.small.len;
        for _ in 0..checks {
            let queue = self.queues.queue(is_main);
            if queue.unpurged == 0 {
                queue.unpurged = queue.len;
                queue.is_odd = !queue.is_odd;
            }
            let is_odd = queue.is_odd;
            let Some(entry) = queue.pop() else { return };
            let found = self.queued(entry, is_main);
            if let Some(handle) = found.filter(|&handle| self.heap.marks(handle).is_odd() != is_odd) {
                self.push_queued(entry, handle);
            }
        }
    }

    /// The item of an entry; `None` if the entry is stale.
    fn queued(&self, entry: Location, is_main: bool) -> Option<u32> {
        let needs_expiry = self.queues.policy == Eviction::ItemsWithTtl;
        self.index.located(&heap_keys(&self.heap, &self.secret), entry, |handle| {
            self.heap.marks(handle).is_main() == is_main
                && (!needs_expiry || self.heap.expiry(handle).is_some())
        })
    }

    /// Evicts items until `bytes` bytes are free or 128 entries are checked, fewer if segments of the index merge.
    /// False if there is nothing to evict. Some 30 µs.
    pub(super) fn evict(&mut self, now: Instant, bytes: usize) -> bool {
        if !self.queues.may_evict() {
            return false;
        }
        let live_bytes = self.heap.live_bytes();
        let (mut freed, mut checks) = (0, 0);
        self.index.take_merges();
        while checks < CHECKS_PER_PIECE {
            checks += 1;
            self.steps += 1;
            let small_bytes = self.heap.small_bytes();
            let is_main = self.queues.small.len == 0
                || self.queues.main.len > 0 && small_bytes <= live_bytes / SMALL_SHARE;
            let mean_uses =
                if is_main || small_bytes > live_bytes / SHORT_MAIN_SHARE { 1 } else { USES_TO_MAIN };
            self.prefetch_queued(is_main);
            let Some(entry) = self.queues.queue(is_main).pop() else {
                self.queues.is_exhausted = !self.queue_more(now) && freed == 0;
                return !self.queues.is_exhausted;
            };
            let Some(handle) = self.queued(entry, is_main) else { continue };
            let has_expired = !self.is_alive(now, handle);
            let is_forced = has_expired || freed == 0 && checks == CHECKS_PER_PIECE;
            let bytes_held = self.heap.held_bytes(handle);
            let uses_to_stay = self.queues.uses_to_stay(bytes_held as u64, mean_uses);
            let uses_left = self.heap.marks(handle).uses().checked_sub(uses_to_stay);
            if let Some(uses) = uses_left.filter(|_| !is_forced) {
                self.heap.set_marks(handle, Marks::MAIN.with_uses(if is_main { uses } else { 0 }));
                self.push_queued(entry, handle);
                continue;
            }
            self.queues.is_scanned = false;
            self.evict_item(handle, !is_main && !has_expired);
            freed += bytes_held;
            if has_expired {
                self.expired += 1;
            } else {
                self.queues.count_evicted(bytes_held as u64);
            }
            checks += CHECKS_PER_MERGE * self.index.take_merges();
            if freed >= bytes {
                break;
            }
        }
        true
    }

    fn evict_item(&mut self, handle: u32, is_remembered: bool) {
        let bytes = self.heap.key(handle);
        let key = HashedKey { hash: self.secret.hash(bytes), bytes };
        if is_remembered {
            self.queues.ghost.add(key.hash, self.index.len());
        }
        let removed = self.index.remove(&heap_keys(&self.heap, &self.secret), key, handle);
        debug_assert!(removed, "an item that is not in the index");
        if self.heap.expiry(handle).is_some() {
            self.timers.item_gone();
        }
        self.departs(handle);
        self.heap.free(handle);
    }

    /// Prefetches the memory of the entries that are checked next.
    fn prefetch_queued(&mut self, is_main: bool) {
        let queue = self.queues.queue(is_main);
        let (bucket, item) = (queue.get(BUCKETS_AHEAD), queue.get(ITEMS_AHEAD));
        if let Some(entry) = bucket {
            self.index.fetch_located(entry);
        }
        if let Some(handle) = item.and_then(|entry| self.index.at_home_of(entry)) {
            self.heap.fetch(handle);
        }
    }

    /// Queues some items that are not queued; false if a whole scan was done since the last eviction.
    fn queue_more(&mut self, now: Instant) -> bool {
        let queues = &mut self.queues;
        // If any item can be evicted and no entry is left, entries were lost, as can happen with equal hashes.
        let is_lost = queues.policy == Eviction::AnyItem && !queues.is_scanned;
        let Some(from) = queues.unqueued.take().or(is_lost.then_some(ScanCursor::START)) else {
            return false;
        };
        let mut entries = Vec::with_capacity(ITEMS_PER_SCAN);
        let next = self.scan(now, from, ITEMS_PER_SCAN, |key, _| {
            entries.push(Location::of(self.secret.hash(key).0));
            true
        });
        self.queues.is_scanned = next == ScanCursor::START;
        self.queues.unqueued = (!self.queues.is_scanned).then_some(next);
        for entry in entries {
            for is_main in [false, true] {
                if let Some(handle) = self.queued(entry, is_main) {
                    self.push_queued(entry, handle);
                }
            }
        }
        true
    }
}
