//! The index: maps keys to handles by extendible hashing on the top bits of the hash. Segments split and merge one at
//! a time.
//!
//! The directory maps the top `depth` bits of a hash to a segment; a segment of a smaller depth has several entries.
//! An insertion into a full segment splits it; the directory doubles only if the segment has the directory's depth (4
//! bytes per entry, about one entry per 300 keys). A depth far above that of evenly spread keys means equal hashes:
//! beyond [`Index::depth_max`] entries go to an ordered overflow whose operations are logarithmic.
//!
//! After Fagin, Nievergelt, Pippenger, Strong: "Extendible hashing" (1979); on the top bits, so that a segment is a
//! contiguous range of hashes and scans are in hash order.
//!
//! Not here: keys and values; the key of a handle is read through [`Keys`].

use super::directory::Directory;
use super::hash::HashedKey;
use super::overflow::Overflow;
use super::segment::{self, Bucket, Probe, SEGMENT_BYTES, SEGMENT_SLOTS};
use super::segment_metadata::{DEPTH_MAX, Metadata, MetadataTable};
use crate::base::arena::Arena;
use crate::base::prefetch::prefetch;
use std::cmp::Ordering;

/// Bits by which the directory may be deeper than for evenly spread keys.
const DEPTH_SLACK: u32 = 4;

/// Two buddies merge when they have at most this many entries together: far below a full segment, so that splits and
/// merges do not alternate. While items are evicted, three times as many.
const MERGE_ENTRIES_MAX: usize = SEGMENT_SLOTS / 4;
const EARLY_MERGE_ENTRIES_MAX: usize = 3 * MERGE_ENTRIES_MAX;

/// Divisor of the keys that may be in the overflow to avoid splits at the memory limit.
const OVERFLOW_SHARE: usize = 128;

/// Entries of the overflow searched for a location, at most.
const LOCATED_MAX: usize = 256;

/// A merge is attempted each time a segment has lost this many entries.
const MERGE_EVERY: u16 = 16;

/// The location of a key in an index of any size: the bits of its hash that the directory and a segment use. Nearly
/// unique among a billion keys; a lookup by location must check the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location([u8; 5]);

impl Location {
    const DIRECTORY_SHIFT: u32 = 64 - DEPTH_MAX;
    const PROBE_BITS: u32 = 14;

    pub(super) const fn of(hash: u64) -> Self {
        let bits = hash >> Self::DIRECTORY_SHIFT << Self::PROBE_BITS | Probe::of(hash).bits() as u64;
        let [one, two, three, four, five, ..] = bits.to_le_bytes();
        Self([one, two, three, four, five])
    }

    const fn bits(self) -> u64 {
        let [one, two, three, four, five] = self.0;
        u64::from_le_bytes([one, two, three, four, five, 0, 0, 0])
    }

    /// The lowest hash with these top bits.
    const fn first_hash(self) -> u64 {
        self.bits() >> Self::PROBE_BITS << Self::DIRECTORY_SHIFT
    }

    const fn probe(self) -> Probe {
        let [low, high, ..] = self.0;
        Probe::from_bits(u16::from_le_bytes([low, high]) & ((1 << Self::PROBE_BITS) - 1))
    }
}

/// Access to the items of handles.
pub(super) trait Keys {
    /// An item.
    type Item;
    /// The item at a handle, if `key` is its key.
    fn item(&self, handle: u32, key: HashedKey<'_>) -> Option<Self::Item>;
    /// The hash of a handle's key.
    fn hash_of(&self, handle: u32) -> u64;
    /// The hashes of many handles' keys, with overlapping cache misses.
    fn hashes_of(&self, handles: &[u32], hashes: &mut [u64]);
    /// Compares a handle's key with `key`: by hash, then by bytes.
    fn order(&self, handle: u32, key: HashedKey<'_>) -> Ordering;
}

/// The index; see the module.
#[derive(Debug)]
pub(super) struct Index {
    directory: Directory,
    pub(super) segments: Arena<SEGMENT_BYTES>,
    pub(super) metadata: MetadataTable,
    pub(super) overflow: Overflow,
    len: usize,
    /// Full segments are not split while few keys are in the overflow.
    avoids_splits: bool,
    /// Buddies merge with up to [`EARLY_MERGE_ENTRIES_MAX`] entries.
    merges_early: bool,
    /// Merges since the last [`Index::take_merges`].
    merges: u32,
    /// The last segment, which counted removed keys, was freed: the whole filter needs a rebuild.
    pub(super) is_emptied: bool,
}

impl Index {
    /// An empty index without segments.
    pub(super) fn new() -> Self {
        Self {
            directory: Directory::new(),
            segments: Arena::new(),
            metadata: MetadataTable::new(),
            overflow: Overflow::default(),
            len: 0,
            avoids_splits: false,
            merges_early: false,
            merges: 0,
            is_emptied: false,
        }
    }

    /// The empty index that replaces one with keys.
    pub(super) fn emptied() -> Self {
        Self { is_emptied: true, ..Self::new() }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.directory.memory_bytes()
            + self.metadata.memory_bytes()
            + self.segments.memory_bytes()
            + self.overflow.memory_bytes()
    }

    /// Returns the handle of `key` and its item. Costs a cache line of the directory, one of the segment, and
    /// [`Keys::item`]; logarithmic in the overflow.
    #[inline(always)]
    pub(super) fn get<K: Keys>(&self, keys: &K, key: HashedKey<'_>) -> Option<(u32, K::Item)> {
        let probe = Probe::of(key.hash.0);
        let home = self.segment_of(key.hash.0).map(|id| segment::home(self.segments.block(id), probe));
        let first = home.and_then(|home| segment::first(home, probe));
        // Most keys are the first candidate.
        if let Some(handle) = first
            && let Some(item) = keys.item(handle, key)
        {
            return Some((handle, item));
        }
        if first.is_none() && home.is_none_or(segment::has_all) && self.overflow.is_empty() {
            return None;
        }
        self.get_further(keys, key, first.is_some())
    }

    /// [`Index::get`] of a key that is not in its home bucket, or after another key of the same tag there.
    #[inline(never)]
    fn get_further<K: Keys>(
        &self,
        keys: &K,
        key: HashedKey<'_>,
        is_first_wrong: bool,
    ) -> Option<(u32, K::Item)> {
        if let Some(id) = self.segment_of(key.hash.0) {
            let mut candidates = segment::candidates(self.segments.block(id), Probe::of(key.hash.0));
            if is_first_wrong {
                candidates.next();
            }
            for (_, handle) in candidates {
                if let Some(item) = keys.item(handle, key) {
                    return Some((handle, item));
                }
            }
        }
        if self.overflow.is_empty() {
            return None;
        }
        let handle = self.get_overflowed(keys, key)?;
        keys.item(handle, key).map(|item| (handle, item))
    }

    /// Prefetches the home bucket of a hash, and returns it.
    #[inline]
    pub(super) fn fetch(&self, hash: u64) -> Option<&Bucket> {
        let home = segment::home(self.segments.block(self.segment_of(hash)?), Probe::of(hash));
        prefetch(home);
        Some(home)
    }

    /// The first handle in the home bucket of a hash with a matching tag.
    #[inline]
    pub(super) fn first(home: &Bucket, hash: u64) -> Option<u32> {
        segment::first(home, Probe::of(hash))
    }

    /// Prefetches the next bucket where a key that is not at home can be.
    pub(super) fn fetch_next(&self, hash: u64) {
        if let Some(id) = self.segment_of(hash) {
            segment::fetch_next(self.segments.block(id), Probe::of(hash));
        }
    }

    /// A handle at a location that `accepts`. May miss entries in a large overflow.
    pub(super) fn located(
        &self,
        keys: &impl Keys,
        at: Location,
        accepts: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let is_it = |handle: u32| Location::of(keys.hash_of(handle)) == at && accepts(handle);
        if let Some(id) = self.segment_of(at.first_hash()) {
            let candidates = segment::candidates(self.segments.block(id), at.probe());
            let found = candidates.map(|(_, handle)| handle).find(|&handle| is_it(handle));
            if found.is_some() {
                return found;
            }
        }
        let top = |hash: u64| hash >> Location::DIRECTORY_SHIFT;
        let order = |handle| top(keys.hash_of(handle)).cmp(&top(at.first_hash()));
        self.overflow.equal(order).take(LOCATED_MAX).find(|&handle| is_it(handle))
    }

    /// Prefetches the home bucket of a location.
    pub(super) fn fetch_located(&self, at: Location) {
        if let Some(id) = self.segment_of(at.first_hash()) {
            prefetch(segment::home(self.segments.block(id), at.probe()));
        }
    }

    /// The first handle in the home bucket of a location with a matching tag; if there is none, prefetches the next
    /// bucket.
    pub(super) fn at_home_of(&self, at: Location) -> Option<u32> {
        let segment = self.segments.block(self.segment_of(at.first_hash())?);
        let found = segment::first(segment::home(segment, at.probe()), at.probe());
        if found.is_none() {
            segment::fetch_next(segment, at.probe());
        }
        found
    }

    /// The handles with a matching tag in the segment of a hash.
    pub(super) fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> {
        let segment = self.segment_of(hash).map(|id| self.segments.block(id));
        let candidates = segment.map(|segment| segment::candidates(segment, Probe::of(hash)));
        candidates.into_iter().flatten().map(|(_, handle)| handle)
    }

    /// Adds a key that is absent. Never fails: if the segment cannot be split, the entry goes to the overflow. Touches
    /// one segment, splits at most one, and doubles the directory at most once.
    pub(super) fn insert(&mut self, keys: &impl Keys, key: HashedKey<'_>, handle: u32) {
        self.len += 1;
        let hash = key.hash.0;
        if self.directory.is_empty() && !self.add_first_segment() {
            return self.insert_overflowed(keys, key, handle);
        }
        if self.insert_into_segment(hash, handle)
            || !self.may_overflow() && self.split(keys, hash) && self.insert_into_segment(hash, handle)
        {
            return;
        }
        self.insert_overflowed(keys, key, handle);
    }

    /// Removes a key with its handle; false if it is absent. Touches one segment. Once per 16 removals it merges the
    /// segment with its buddy, if both have few entries, then the result with its buddy, and so on; a merge moves at
    /// most 192 entries, or 576 with [`Index::merge_early`]. One of them may halve the directory, see
    /// [`Directory::halve`].
    pub(super) fn remove(&mut self, keys: &impl Keys, key: HashedKey<'_>, handle: u32) -> bool {
        let Some(id) = self.segment_of(key.hash.0) else { return self.remove_overflowed(keys, key) };
        let probe = Probe::of(key.hash.0);
        let block = self.segments.block_mut(id);
        let Some(position) = segment::position_of(block, probe, handle) else {
            return self.remove_overflowed(keys, key);
        };
        segment::remove(block, probe, position);
        self.len -= 1;
        if self.metadata.entry_removed(id, 1).is_multiple_of(MERGE_EVERY) {
            let mut merged = Some(id);
            // Continues, since an empty buddy has no removals that would start the next merge.
            while let Some(id) = merged {
                merged = self.merge(keys, id);
            }
        }
        true
    }

    /// Replaces the handle `old` of a key by `new`; false if it is absent. `keys` must still find the key by its old
    /// handle. Touches one segment.
    pub(super) fn replace(&mut self, keys: &impl Keys, key: HashedKey<'_>, old: u32, new: u32) -> bool {
        if let Some(id) = self.segment_of(key.hash.0) {
            let block = self.segments.block_mut(id);
            if let Some(position) = segment::position_of(block, Probe::of(key.hash.0), old) {
                segment::replace(block, position, new);
                return true;
            }
        }
        match self.overflow.find(|held| keys.order(held, key)) {
            Ok((spot, held)) if held == old => {
                self.overflow.replace(spot, new);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// Growth of [`Index::memory_bytes`] at most when this key is inserted.
    pub(super) fn growth_bytes(&self, hash: u64) -> usize {
        match self.segment_of(hash) {
            Some(id) if segment::has_room(self.segments.block(id), Probe::of(hash)) => 0,
            Some(_) if self.may_overflow() => self.overflow.growth_bytes_max(1),
            Some(_) | None => self.split_growth_bytes().max(self.overflow.growth_bytes_max(1)),
        }
    }

    /// Sets whether keys of full segments go to the overflow while that has few entries.
    pub(super) const fn avoid_splits(&mut self, avoids_splits: bool) {
        self.avoids_splits = avoids_splits;
    }

    /// Sets whether buddies merge at three quarters of a segment or at one quarter.
    pub(super) const fn merge_early(&mut self, merges_early: bool) {
        self.merges_early = merges_early;
    }

    /// Merges since the last call.
    pub(super) fn take_merges(&mut self) -> u32 {
        std::mem::take(&mut self.merges)
    }

    fn may_overflow(&self) -> bool {
        self.avoids_splits && self.overflow.len() < self.len / OVERFLOW_SHARE
    }

    /// Growth of [`Index::memory_bytes`] at most when `keys` keys are inserted.
    pub(super) fn growth_bytes_max(&self, keys: usize) -> usize {
        if keys == 0 {
            return 0;
        }
        // The depth is checked before a split, so the directory can be twice as large.
        let segments = self.segments.blocks() + keys;
        let directory = Directory::bytes_max(segments << (DEPTH_SLACK + 1)) + 16;
        self.segments.growth_bytes_max(keys).max(self.segments.growth_bytes_max(1))
            + directory.saturating_sub(self.directory.memory_bytes())
            + self.metadata_growth_bytes(keys)
            + self.overflow.growth_bytes_max(keys)
    }

    /// Returns one idle region to the system, if [`Index::has_idle`].
    pub(super) fn trim(&mut self) {
        self.segments.trim();
        self.metadata.truncate(self.segments.blocks_end());
    }

    /// Makes the spare region idle, so that [`Index::trim`] returns it too; false if there is none.
    pub(super) fn release_spare(&mut self) -> bool {
        self.segments.release_spare()
    }

    /// Whether there is an idle region. O(1).
    pub(super) const fn has_idle(&self) -> bool {
        self.segments.has_idle()
    }

    /// Whether [`Index::compact`] has work. O(1).
    pub(super) fn is_sparse(&self) -> bool {
        self.segments.fenced().is_some() || self.segments.is_sparse()
    }

    /// Moves one segment out of a sparse region, with `pressure` out of any; false if there is none, or no room.
    /// Copies 4 KiB and writes the segment's entries in the directory.
    pub(super) fn compact(&mut self, pressure: bool) -> bool {
        let region = self.segments.fenced().or_else(|| self.segments.sparsest(pressure));
        let Some(region) = region else { return false };
        self.segments.fence(Some(region));
        let from = self.segments.blocks_of(region).next();
        let (Some(from), true) = (from, self.segments.has_room()) else {
            self.segments.fence(None);
            return false;
        };
        let Some(to) = self.segments.take() else { return false };
        let (bytes, target) = self.segments.two_blocks_mut(from, to);
        target.copy_from_slice(bytes);
        let metadata = self.metadata.get(from);
        self.metadata.add(to, metadata, self.segments.blocks_end());
        self.point(metadata, to);
        self.free_segment(from);
        true
    }

    /// Returns one region to the system, with the entries in it; false when none is left. The index is unusable after
    /// the first call.
    pub(super) fn drop_step(&mut self) -> bool {
        self.directory = Directory::new();
        self.metadata = MetadataTable::new();
        self.overflow = Overflow::default();
        self.segments.drop_region()
    }

    /// Checks everything and returns all handles. O(n).
    pub(super) fn audit(&self, keys: &impl Keys) -> Vec<u32> {
        self.segments.audit();
        let mut handles: Vec<u32> = Vec::with_capacity(self.len);
        self.metadata.audit(self.segments.all_blocks());
        let mut covered = 0u64;
        for id in self.segments.all_blocks() {
            let metadata = self.metadata.get(id);
            let depth = u32::from(metadata.depth);
            assert!(depth <= self.directory.depth());
            covered += 1 << (self.directory.depth() - depth);
            let positions = self.directory.at(self.positions(metadata));
            assert!(positions.iter().all(|&at| at == id), "directory entry of another");
            let block = self.segments.block(id);
            assert_eq!(segment::audit(block, |handle| keys.hash_of(handle)), usize::from(metadata.live));
            for (_, handle) in segment::entries(block) {
                let differs = keys.hash_of(handle) ^ (u64::from(metadata.prefix) << 32);
                assert!(depth == 0 || differs >> (64 - depth) == 0, "entry of another segment");
                handles.push(handle);
            }
        }
        assert_eq!(covered, self.directory.len() as u64, "segments cover the directory");
        self.directory.audit();
        for handle in self.overflow.handles() {
            let flagged = self.segment_of(keys.hash_of(handle)).map(|id| self.metadata.get(id).overflowed);
            assert!(flagged.unwrap_or(true), "an entry of the overflow that lookups do not reach");
            handles.push(handle);
        }
        assert_eq!(handles.len(), self.len);
        handles
    }

    /// Segments, and entries in the overflow.
    pub(super) fn shape(&self) -> (usize, usize) {
        (self.segments.blocks(), self.overflow.len())
    }

    #[inline]
    pub(super) fn segment_of(&self, hash: u64) -> Option<u32> {
        self.directory.get(hash)
    }

    /// The depth at which segments are no longer split: that of evenly spread keys plus [`DEPTH_SLACK`].
    fn depth_max(&self) -> u32 {
        (self.segments.blocks().max(1).ilog2() + DEPTH_SLACK).min(DEPTH_MAX)
    }

    /// Allocates the first segment; false if the system has no memory.
    fn add_first_segment(&mut self) -> bool {
        let Some(id) = self.segments.take() else { return false };
        self.segments.block_mut(id).fill(0);
        let metadata = Metadata { overflowed: !self.overflow.is_empty(), ..Metadata::default() };
        self.metadata.add(id, metadata, self.segments.blocks_end());
        self.directory = Directory::of(id);
        true
    }

    fn insert_into_segment(&mut self, hash: u64, handle: u32) -> bool {
        let Some(id) = self.segment_of(hash) else { return false };
        let placed = segment::insert(self.segments.block_mut(id), Probe::of(hash), handle);
        if placed {
            self.metadata.entry_added(id);
        }
        placed
    }

    #[cold]
    fn get_overflowed(&self, keys: &impl Keys, key: HashedKey<'_>) -> Option<u32> {
        if self.segment_of(key.hash.0).is_some_and(|id| !self.metadata.get(id).overflowed) {
            return None;
        }
        self.overflow.find(|held| keys.order(held, key)).ok().map(|(_, handle)| handle)
    }

    fn insert_overflowed(&mut self, keys: &impl Keys, key: HashedKey<'_>, handle: u32) {
        match self.overflow.find(|held| keys.order(held, key)) {
            Ok((spot, _)) => self.overflow.replace(spot, handle),
            Err(spot) => self.overflow.insert(spot, handle),
        }
        if let Some(id) = self.segment_of(key.hash.0) {
            self.metadata.set_overflowed(id);
        }
    }

    fn remove_overflowed(&mut self, keys: &impl Keys, key: HashedKey<'_>) -> bool {
        let Ok((spot, _)) = self.overflow.find(|held| keys.order(held, key)) else { return false };
        self.overflow.remove(spot);
        self.len -= 1;
        if let Some(id) = self.segment_of(key.hash.0) {
            self.metadata.entry_removed(id, 0);
            if self.len == 0 {
                self.merge(keys, id);
            }
        }
        true
    }

    /// Growth of [`Index::memory_bytes`] at most when a segment splits.
    fn split_growth_bytes(&self) -> usize {
        if self.directory.is_empty() {
            return self.segments.growth_bytes_max(1) + self.metadata_growth_bytes(1) + 8;
        }
        self.segments.growth_bytes_max(1) + self.metadata_growth_bytes(1) + self.directory.growth_bytes()
    }

    /// Growth of the metadata at most for `segments` more segments.
    fn metadata_growth_bytes(&self, segments: usize) -> usize {
        let per_region = Arena::<SEGMENT_BYTES>::BLOCKS_PER_REGION as usize;
        self.metadata.growth_bytes(self.segments.blocks_end() + segments.next_multiple_of(per_region))
    }

    /// Splits the segment of `hash`; false, and nothing changed, if it has the maximal depth or there is no memory.
    #[inline(never)]
    fn split(&mut self, keys: &impl Keys, hash: u64) -> bool {
        let Some(id) = self.segment_of(hash) else { return false };
        let metadata = self.metadata.get(id);
        let depth = u32::from(metadata.depth);
        if depth >= self.depth_max() {
            return false;
        }
        let Some(other) = self.segments.take() else { return false };
        if depth == self.directory.depth() && !self.directory.double() {
            self.segments.give_back(other);
            return false;
        }
        let (stay, go) = self.segments.two_blocks_mut(id, other);
        let moved = segment::split(stay, go, 63 - depth, |handles, hashes| keys.hashes_of(handles, hashes));
        // At most the slots of a segment.
        let moved = u16::try_from(moved).unwrap_or(u16::MAX);
        let lower = Metadata {
            depth: metadata.depth + 1,
            lost: metadata.lost / 2,
            live: metadata.live - moved,
            ..metadata
        };
        let upper = Metadata { prefix: metadata.prefix | 1 << (31 - depth), live: moved, ..lower };
        self.metadata.put(id, lower);
        self.metadata.add(other, upper, self.segments.blocks_end());
        self.point(upper, other);
        self.directory.prebuild(self.metadata.of_depth(self.directory.depth()));
        true
    }

    /// Merges a segment with its buddy if both have few entries, and halves the directory if possible; returns the
    /// merged segment.
    fn merge(&mut self, keys: &impl Keys, id: u32) -> Option<u32> {
        let metadata = self.metadata.get(id);
        if metadata.depth == 0 {
            if self.len == 0 {
                self.shrink_to_nothing(id);
            }
            return None;
        }
        let buddy_prefix = metadata.prefix ^ 1 << (32 - u32::from(metadata.depth));
        let buddy = self.segment_of(u64::from(buddy_prefix) << 32)?;
        let other = self.metadata.get(buddy);
        let live = metadata.live + other.live;
        let live_max = if self.merges_early { EARLY_MERGE_ENTRIES_MAX } else { MERGE_ENTRIES_MAX };
        if other.depth != metadata.depth || usize::from(live) > live_max {
            return None;
        }
        // The lower block stays, so that higher regions drain.
        let (keep, drop) = (id.min(buddy), id.max(buddy));
        let (target, source) = self.segments.two_blocks_mut(keep, drop);
        if !segment::merge(target, source, |handles, hashes| keys.hashes_of(handles, hashes)) {
            return None;
        }
        let depth = metadata.depth - 1;
        let merged = Metadata {
            prefix: metadata.prefix & buddy_prefix,
            live,
            lost: metadata.lost.saturating_add(other.lost),
            depth,
            overflowed: metadata.overflowed || other.overflowed,
            needs_rebuild: metadata.needs_rebuild || other.needs_rebuild,
        };
        self.free_segment(drop);
        self.merges += 1;
        self.metadata.put(keep, merged);
        self.point(merged, keep);
        self.halve_directory();
        Some(keep)
    }

    /// Halves the directory once if it is four times larger than the deepest segment needs.
    fn halve_directory(&mut self) {
        let needed = self.metadata.deepest();
        if needed + 2 <= self.directory.depth() as usize {
            self.directory.halve();
        }
    }

    /// Frees the last segment when no key is left.
    fn shrink_to_nothing(&mut self, id: u32) {
        self.is_emptied = true;
        self.free_segment(id);
        self.directory = Directory::new();
    }

    fn free_segment(&mut self, id: u32) {
        self.segments.give_back(id);
        self.metadata.remove(id);
    }

    fn positions(&self, metadata: Metadata) -> std::ops::Range<usize> {
        let first = self.directory.position_of(u64::from(metadata.prefix) << 32);
        first..first + (1 << (self.directory.depth() - u32::from(metadata.depth)))
    }

    /// Writes a segment's entries in the directory.
    fn point(&mut self, metadata: Metadata, id: u32) {
        self.directory.point(self.positions(metadata), id);
    }
}

#[cfg(test)]
mod tests {
    use super::{Index, Keys};
    use crate::base::rng::Rng;
    use crate::store::hash::{HashedKey, KeyHash};
    use std::cell::Cell;
    use std::cmp::Ordering;

    /// Keys that are equal to their handles, with a given hash function.
    struct Made {
        hash: fn(u32) -> u64,
        compared: Cell<u32>,
    }

    impl Keys for Made {
        type Item = ();

        fn item(&self, handle: u32, key: HashedKey<'_>) -> Option<()> {
            self.compared.set(self.compared.get() + 1);
            (handle.to_be_bytes() == key.bytes).then_some(())
        }

        fn hash_of(&self, handle: u32) -> u64 {
            (self.hash)(handle)
        }

        fn hashes_of(&self, handles: &[u32], hashes: &mut [u64]) {
            hashes.iter_mut().zip(handles).for_each(|(hash, &handle)| *hash = self.hash_of(handle));
        }

        fn order(&self, handle: u32, key: HashedKey<'_>) -> Ordering {
            self.compared.set(self.compared.get() + 1);
            (self.hash_of(handle), &handle.to_be_bytes()[..]).cmp(&(key.hash.0, key.bytes))
        }
    }

    impl Made {
        fn new(hash: fn(u32) -> u64) -> Self {
            Self { hash, compared: Cell::new(0) }
        }

        /// Calls `work` with the key of this handle; returns also how many keys were read.
        fn with<T>(&self, handle: u32, work: impl FnOnce(HashedKey<'_>) -> T) -> (T, u32) {
            self.compared.set(0);
            let result =
                work(HashedKey { hash: KeyHash(self.hash_of(handle)), bytes: &handle.to_be_bytes() });
            (result, self.compared.get())
        }

        /// Looks up the key of this handle; returns also how many keys were read.
        fn get(&self, index: &Index, handle: u32) -> (Option<u32>, u32) {
            self.with(handle, |key| index.get(self, key).map(|(handle, ())| handle))
        }
    }

    fn spread(handle: u32) -> u64 {
        Rng::new(handle.into()).next_u64()
    }

    #[test]
    fn equal_hashes_cost_logarithmic_reads_and_few_segments() {
        let keys = Made::new(|_| 0x0123_4567_89AB_CDEF);
        let mut index = Index::new();
        for handle in 0..65_536 {
            let ((), looks) = keys.with(handle, |key| index.insert(&keys, key, handle));
            assert!(looks <= 20, "{looks}");
        }
        let (segments, overflowed) = index.shape();
        assert!(segments < 12 && overflowed > 65_000, "{segments}");
        for handle in 0..65_536 {
            let (found, looks) = keys.get(&index, handle);
            // At most the entries of a bucket, its neighbour and the stash, and then the logarithm.
            assert!(found == Some(handle) && looks <= 6 * 12 + 20, "{looks}");
        }
        assert_eq!(index.audit(&keys).len(), 65_536);
    }

    #[test]
    fn directory_grows_and_shrinks_with_the_keys() {
        let keys = Made::new(spread);
        let mut index = Index::new();
        for handle in 0..200_000 {
            keys.with(handle, |key| index.insert(&keys, key, handle));
        }
        let (segments, overflowed) = index.shape();
        assert!((300..600).contains(&segments) && overflowed == 0, "{segments}, {overflowed}");
        let grown = index.directory.len();
        assert!((512..=4_096).contains(&grown), "{grown}");
        index.audit(&keys);
        for handle in 1_000..200_000 {
            assert!(keys.with(handle, |key| index.remove(&keys, key, handle)).0);
        }
        let (segments, _) = index.shape();
        assert!(segments < 20 && index.directory.len() <= 64, "{segments}, {}", index.directory.len());
        assert_eq!(index.audit(&keys).len(), 1_000);
        assert!((0..1_000).all(|handle| keys.get(&index, handle).0 == Some(handle)));
    }
}
