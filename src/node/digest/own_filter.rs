//! The own filter: a Bloom filter of the keys of the store, and its changelog.
//!
//! Added keys are published at once ([`OwnFilter::added`]). Removed keys are not published: the store counts them per
//! segment, and the blocks of a segment that has lost 7 % of its keys are rebuilt from the remaining keys. Rebuilds
//! begin one second after the first segment needs one, or four seconds while no peer reads the changelog, so that a
//! burst in which a third of all keys expires rebuilds each block once; at once if removed keys make the filter
//! fuller than [`FILL_REBUILT`].
//!
//! When there are less than 12 bits per key (16 above 8 peers), or a quarter of the filter would suffice, the filter
//! *migrates*: a filter of another size is built, a larger one from the hashes in the store, segment by segment, a
//! smaller one by merging blocks. Additions are applied to both; when the new filter is complete it replaces the old
//! one. All work is done in steps of at most some 50 µs.
//!
//! Not here: connections, frames, peers; readers of the changelog get it by [`OwnFilter::parts`].

use crate::base::time::Instant;
use crate::filter::bloom::{BLOCKS_PER_STEP, Bloom};
use crate::filter::changelog::Changelog;
use crate::filter::deferred_free::DeferredFree;
use crate::filter::size::Size;
use crate::store::{HashRange, SegmentScan, Store};
use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::time::Duration;

/// Bits per key: up to [`FEW_PEERS`] peers, and above.
const FEW_PEERS: usize = 8;
const BITS_PER_KEY: [u32; 2] = [12, 16];

/// The smallest filter, as the logarithm of its blocks: 4 KiB.
const SIZE_LOG2_MIN: u8 = 6;

/// A filter shrinks when it is larger than needed by this power of two, to twice the needed size.
const SLACK_LOG2: u8 = 2;

/// The delay of rebuilds after the first segment needs one, while a peer reads the changelog.
const REBUILD_DELAY: Duration = Duration::from_secs(1);
const REBUILD_DELAY_UNREAD: Duration = Duration::from_secs(4);

/// The fill above which rebuilds are not delayed, if the existing keys would set fewer bits. Keys with 12 bits each
/// set 0.49; peers refuse filters above 0.7.
const FILL_REBUILT: f64 = 0.55;

/// Maximum number of blocks that are rebuilt together.
const BLOCKS_MAX: usize = 256;

/// Maximum number of hashes collected for blocks. A single block with more keys has every bit set and is left
/// unchanged.
const HASHES_MAX: usize = 4_096;

/// Maximum number of moved keys that stay claimed.
const MOVED_MAX: usize = 32 * 1024;

/// Additions after which a filter with work does a step, in addition to the steps of the event loop.
const ADDITIONS_PER_STEP: u32 = 512;

/// The same while the filter is too small, too full or migrates. A segment of 300 to 600 keys takes a step, so a
/// migration ends before the keys have grown by a sixteenth.
const ADDITIONS_PER_GROWTH_STEP: u32 = 16;

/// Blocks that are being rebuilt.
#[derive(Debug)]
struct Rebuild {
    /// Blocks that are left.
    blocks: Range<usize>,
    /// The number of blocks being rebuilt now, and the range of their hashes.
    span: usize,
    range: HashRange,
    at: SegmentScan,
}

/// An incomplete filter of another size.
#[derive(Debug)]
struct Migration {
    filter: Bloom,
    /// The next block, of the larger one of both filters.
    next: usize,
}

/// The own filter and its changelog; see the module.
#[derive(Debug)]
pub(in crate::node) struct OwnFilter {
    filter: Bloom,
    changelog: Changelog,
    bits_per_key: u32,
    /// The rebuild in progress: of the migration, if there is one, else of the filter.
    rebuild: Option<Rebuild>,
    /// Hashes collected for the blocks being rebuilt.
    hashes: Vec<u64>,
    changed: Vec<u32>,
    migration: Option<Migration>,
    freed: DeferredFree,
    /// Since when segments need a rebuild, as of the last check.
    rebuild_since: Option<Instant>,
    /// Since when removed keys make the filter fuller than [`FILL_REBUILT`].
    overfull_since: Option<Instant>,
    /// Keys that have moved to another node, with the time: they stay claimed for `claimed_for`.
    moved: VecDeque<(Instant, u64)>,
    claimed_for: Duration,
    /// Number of keys when the system had no memory for a larger filter.
    starved_at: Option<usize>,
    additions: u32,
    /// The additions that steps were done for.
    kept_up: u32,
    /// Steps caused by additions and not charged yet.
    uncharged: u32,
}

impl OwnFilter {
    /// An empty filter of 4 KiB. `epoch` must be larger after each start of the node.
    pub(in crate::node) fn new(epoch: u64) -> Self {
        let size = Size::from_log2(SIZE_LOG2_MIN).unwrap_or(Size::MIN);
        Self {
            filter: Bloom::new(size),
            changelog: Changelog::new(epoch, size),
            bits_per_key: BITS_PER_KEY[0],
            rebuild: None,
            hashes: Vec::new(),
            changed: Vec::new(),
            migration: None,
            freed: DeferredFree::new(),
            rebuild_since: None,
            overfull_since: None,
            moved: VecDeque::new(),
            claimed_for: Duration::ZERO,
            starved_at: None,
            additions: 0,
            kept_up: 0,
            uncharged: 0,
        }
    }

    /// Adds a new key of the store; [`OwnFilter::keep_up`] must follow. O(1): one cache line, two during a migration.
    #[inline]
    pub(in crate::node) fn added(&mut self, now: Instant, hash: u64) {
        self.filter.insert(hash);
        if let Some(migration) = &mut self.migration {
            migration.filter.insert(hash);
        }
        self.changelog.added(now, hash);
        if let Some(rebuild) = &self.rebuild
            && rebuild.range.contains(hash)
        {
            self.hashes.push(hash);
        }
        self.additions = self.additions.wrapping_add(1);
    }

    /// Notes a key that moved to another node. Rebuilt blocks claim it for a while: until that node's addition has
    /// arrived everywhere, lookups reach the value by this claim.
    pub(in crate::node) fn moved(&mut self, now: Instant, hash: u64) {
        self.forget_moved(now);
        if self.moved.len() >= MOVED_MAX {
            self.moved.pop_front();
        }
        self.moved.push_back((now, hash));
    }

    /// Drops moved keys whose time is over.
    fn forget_moved(&mut self, now: Instant) {
        while self.moved.front().is_some_and(|(at, _)| now.since(*at) >= self.claimed_for) {
            self.moved.pop_front();
        }
    }

    /// Sets how long moved keys stay claimed.
    pub(in crate::node) fn set_claimed_for(&mut self, time: Duration) {
        self.claimed_for = time;
    }

    /// Whether [`OwnFilter::keep_up`] has work.
    #[inline]
    pub(in crate::node) const fn is_behind(&self) -> bool {
        self.additions.wrapping_sub(self.kept_up) >= ADDITIONS_PER_GROWTH_STEP
    }

    /// Does the work that additions cause: steps in proportion to them, and the accounting of memory. Must not be
    /// called before the last key of a request is set: filter and changelog would take memory that was reserved for
    /// it.
    pub(in crate::node) fn keep_up(&mut self, now: Instant, store: &mut Store) {
        while self.is_behind() {
            self.kept_up = self.kept_up.wrapping_add(ADDITIONS_PER_GROWTH_STEP);
            self.account(store);
            self.note_fill(now, store);
            self.step_if_time(now, store);
        }
    }

    /// Counts filters and changelog as memory of the store, and limits the changelog to its share.
    fn account(&mut self, store: &mut Store) {
        self.changelog.limit_log(store.memory_max());
        let migration = self.migration.as_ref().map_or(0, |migration| migration.filter.bytes());
        store.reserve(self.filter.bytes() + migration + self.freed.bytes() + self.changelog.log_bytes());
    }

    fn step_if_time(&mut self, now: Instant, store: &mut Store) {
        let is_growing = self.migration.is_some() || self.must_grow(store, self.wanted(store));
        let is_time =
            is_growing || self.overfull_since.is_some() || self.kept_up.is_multiple_of(ADDITIONS_PER_STEP);
        if is_time && self.has_work(now, store) {
            self.uncharged += 1;
            self.step(now, store);
        }
    }

    /// Takes the number of steps that additions have caused since the last call.
    pub(in crate::node) const fn take_uncharged(&mut self) -> u32 {
        mem::replace(&mut self.uncharged, 0)
    }

    /// Does one bounded piece of work, at most some 50 µs; true if there is more.
    pub(in crate::node) fn step(&mut self, now: Instant, store: &mut Store) -> bool {
        if self.migration.is_some() {
            self.migrate(now, store);
        } else if let Some(size) = self.migration_wanted(store) {
            self.begin_migration(store, size);
        } else if self.rebuild.is_some() {
            self.rebuild(now, store);
        } else if store.has_rebuilds() {
            self.look_for_rebuild(now, store);
        }
        self.freed.step();
        if self.is_changelog_old(now) {
            self.changelog.trim(now);
        }
        self.account(store);
        self.note_fill(now, store);
        self.has_work(now, store)
    }

    /// Whether blocks are being rebuilt, or the filter migrates.
    pub(in crate::node) const fn is_under_work(&self) -> bool {
        self.migration.is_some() || self.rebuild.is_some()
    }

    /// Whether [`OwnFilter::step`] has work now. O(1).
    pub(in crate::node) fn has_work(&self, now: Instant, store: &Store) -> bool {
        self.migration.is_some()
            || self.rebuild.is_some()
            || self.migration_wanted(store).is_some()
            || store.has_rebuilds() && self.rebuild_due().is_none_or(|due| due <= now)
            || !self.freed.is_empty()
            || self.is_changelog_old(now)
    }

    /// When [`OwnFilter::step`] will have work, if it has none now; `None`: not before the next change. O(1).
    pub(in crate::node) fn next_deadline(&self, store: &Store) -> Option<Instant> {
        let rebuild = self.rebuild_due().filter(|_| store.has_rebuilds());
        rebuild.into_iter().chain(self.changelog.empty_at()).min()
    }

    /// The own filter.
    pub(in crate::node) const fn filter(&self) -> &Bloom {
        &self.filter
    }

    /// The size needed for the keys of a store and the moved keys.
    fn wanted(&self, store: &Store) -> Size {
        let keys = store.len() + self.moved.len();
        Size::for_keys(keys as u64, self.bits_per_key).unwrap_or(Size::MAX)
    }

    /// The size that the filter should migrate to, if it should and there is memory.
    fn migration_wanted(&self, store: &Store) -> Option<Size> {
        let wanted = self.wanted(store);
        if self.must_grow(store, wanted) {
            return Some(wanted);
        }
        let (is, needed) = (self.filter.size().log2(), wanted.log2());
        let smaller = (needed + SLACK_LOG2 - 1).max(SIZE_LOG2_MIN);
        // Rebuilds first, since a merge would copy removed keys.
        let is_busy = self.rebuild.is_some() || store.has_rebuilds();
        if is < needed + SLACK_LOG2 || is <= smaller || is_busy {
            return None;
        }
        Size::from_log2(smaller).filter(|size| store.has_room_for(size.bytes()))
    }

    /// Whether the filter is too small and can be larger.
    fn must_grow(&self, store: &Store, wanted: Size) -> bool {
        wanted > self.filter.size()
            && self.migration.is_none()
            && self.starved_at.is_none_or(|keys| store.len() > keys + keys / 8)
            && store.has_room_for(wanted.bytes())
    }

    fn is_changelog_old(&self, now: Instant) -> bool {
        self.changelog.empty_at().is_some_and(|due| due <= now)
    }

    /// Begins a migration. Drops a rebuild in progress, since all blocks will be rebuilt or merged.
    fn begin_migration(&mut self, store: &Store, size: Size) {
        self.starved_at = None;
        match Bloom::try_new(size) {
            Some(filter) => {
                self.end_rebuild();
                self.migration = Some(Migration { filter, next: 0 });
            }
            None => self.starved_at = Some(store.len()),
        }
    }

    /// Builds some blocks of the new filter; after the last one replaces the old filter.
    fn migrate(&mut self, now: Instant, store: &mut Store) {
        let Some(migration) = &mut self.migration else { return };
        let (from, into) = (self.filter.size(), migration.filter.size());
        if into < from {
            let until = from.blocks().min(migration.next + BLOCKS_PER_STEP);
            (migration.next..until).for_each(|number| migration.filter.merge(&self.filter, number));
            migration.next = until;
        } else {
            if self.rebuild.is_none() {
                let next = migration.next;
                let range = store.mark_rebuilt(hashes_of(into, next..next + 1).first);
                self.begin_rebuild(into, range, Some(next));
            }
            self.rebuild(now, store);
        }
        if let Some(migration) = self.migration.take_if(|migration| migration.next == from.max(into).blocks())
        {
            let old = mem::replace(&mut self.filter, migration.filter);
            self.freed.put(old.into_words());
            self.changelog.resized(into);
        }
    }

    fn look_for_rebuild(&mut self, now: Instant, store: &mut Store) {
        let Some(due) = self.rebuild_due() else {
            self.rebuild_since = Some(now);
            return;
        };
        if due > now {
            return;
        }
        if let Some(range) = store.take_rebuild() {
            self.begin_rebuild(self.filter.size(), range, None);
        }
        if !store.has_rebuilds() {
            self.rebuild_since = None;
        }
    }

    /// When rebuilds begin, if any segment needs one.
    fn rebuild_due(&self) -> Option<Instant> {
        let since = self.rebuild_since?;
        let delay = if self.changelog.readers() > 0 { REBUILD_DELAY } else { REBUILD_DELAY_UNREAD };
        Some(self.overfull_since.map_or(since.after(delay), |overfull_since| overfull_since.max(since)))
    }

    /// Updates whether removed keys overfill the filter.
    fn note_fill(&mut self, now: Instant, store: &Store) {
        let is_overfull = self.filter.fill() > FILL_REBUILT && self.wanted(store) <= self.filter.size();
        self.overfull_since = is_overfull.then(|| self.overfull_since.unwrap_or(now));
    }

    /// Begins a rebuild of the blocks of a range of hashes in a filter of this size, from block `from` on.
    fn begin_rebuild(&mut self, size: Size, range: HashRange, from: Option<usize>) {
        let first = from.unwrap_or_else(|| size.block_of(range.first));
        let blocks = first..size.block_of(range.last) + 1;
        let span = blocks.len().min(BLOCKS_MAX);
        self.begin_span(size, blocks, span);
    }

    fn begin_span(&mut self, size: Size, blocks: Range<usize>, span: usize) {
        self.hashes.clear();
        let range = hashes_of(size, blocks.start..blocks.start + span);
        self.rebuild = Some(Rebuild { blocks, span, range, at: SegmentScan::Segments(range.first) });
    }

    fn end_rebuild(&mut self) {
        self.hashes.clear();
        self.rebuild = None;
    }

    /// Collects the hashes of one segment; after the last one rebuilds the blocks.
    fn rebuild(&mut self, now: Instant, store: &mut Store) {
        let Some(rebuild) = &mut self.rebuild else { return };
        rebuild.at = store.scan_hashes(rebuild.range, rebuild.at, &mut self.hashes);
        let is_crowded = self.hashes.len() > HASHES_MAX;
        if !is_crowded && rebuild.at != SegmentScan::Done {
            return;
        }
        let (blocks, span) = (rebuild.blocks.clone(), rebuild.span);
        let size = self.migration.as_ref().map_or(self.filter.size(), |migration| migration.filter.size());
        if is_crowded && span > 1 {
            return self.begin_span(size, blocks, span / 2);
        }
        let done = blocks.start..blocks.start + span;
        self.write_blocks(now, done.clone(), is_crowded);
        let left = done.end..blocks.end;
        if left.is_empty() {
            return self.end_rebuild();
        }
        let span = left.len().min(span);
        self.begin_span(size, left, span);
    }

    /// Writes blocks from the collected hashes, or, for a crowded block, from the old filter.
    fn write_blocks(&mut self, now: Instant, done: Range<usize>, is_crowded: bool) {
        self.changed.clear();
        self.forget_moved(now);
        let size = self.migration.as_ref().map_or(self.filter.size(), |migration| migration.filter.size());
        let range = hashes_of(size, done.clone());
        let moved = self.moved.iter().map(|(_, hash)| *hash);
        self.hashes.extend(moved.filter(|hash| range.contains(*hash)));
        if let Some(migration) = &mut self.migration {
            migration.next = done.end;
            if is_crowded {
                let shift = migration.filter.size().log2() - self.filter.size().log2();
                migration.filter.merge(&self.filter, done.start >> shift);
            } else {
                migration.filter.rebuild_blocks(done, self.hashes.drain(..), &mut self.changed);
            }
        } else if !is_crowded {
            self.filter.rebuild_blocks(done, self.hashes.drain(..), &mut self.changed);
            self.changed.iter().for_each(|&block| self.changelog.rebuilt(now, block));
        }
    }
}

/// Publishing.
impl OwnFilter {
    /// Sets how many peers the filter is published to: above 8 of them a key gets 16 bits, not 12.
    pub(in crate::node) fn set_peers(&mut self, count: usize) {
        self.bits_per_key = BITS_PER_KEY[usize::from(count > FEW_PEERS)];
    }

    /// The changelog.
    pub(in crate::node) const fn changelog(&self) -> &Changelog {
        &self.changelog
    }

    /// The filter and its changelog, for readers.
    pub(in crate::node) const fn parts(&mut self) -> (&Bloom, &mut Changelog) {
        (&self.filter, &mut self.changelog)
    }
}

/// The range of hashes of blocks at a size.
fn hashes_of(size: Size, blocks: Range<usize>) -> HashRange {
    let first_of = |block: usize| (block as u64).checked_shl(64 - u32::from(size.log2())).unwrap_or(0);
    let last = if blocks.end >= size.blocks() { u64::MAX } else { first_of(blocks.end) - 1 };
    HashRange { first: first_of(blocks.start), last }
}

#[cfg(test)]
mod tests;
