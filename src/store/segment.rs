//! A segment of the index: 4 KiB of 60 home buckets and 4 stash buckets, one cache line each.
//!
//! ```text
//! bucket   0         12         13       14      16                  64
//!          | 12 tags | displaced | stashed | unused | 12 handles of 4 bytes |
//! ```
//!
//! An entry is in its home bucket, else in the next bucket, else in a stash bucket. The home counts its entries in
//! the next bucket (displaced) and in the stash (stashed), so that a miss nearly always reads one cache line. A tag
//! is 8 bits of the hash, never 0; tag 0 marks a free slot. Home, tag and directory use different bits of the hash.
//!
//! Stash buckets and neighbours are those of Dash (Lu, Hao, Wang, Lo: "Dash: scalable hashing on persistent
//! memory", 2020). Not here: the choice of the segment, and the items of handles.

use crate::base::prefetch::{equal_bytes, prefetch};
use std::iter::successors;

/// Bytes of a segment.
pub(super) const SEGMENT_BYTES: usize = 4_096;

/// Entries of a segment with all buckets full.
pub(super) const SEGMENT_SLOTS: usize = BUCKETS * SLOTS;

const BUCKET_BYTES: usize = 64;
const BUCKETS: usize = SEGMENT_BYTES / BUCKET_BYTES;
const HOMES: usize = 60;
const SLOTS: usize = 12;
/// One bit per slot.
const ALL_SLOTS: u32 = (1 << SLOTS) - 1;
const DISPLACED: usize = 12;
const STASHED: usize = 13;

/// Keys prefetched together before they are hashed: more than the cache misses that a core overlaps, and few enough
/// for its L1 cache.
const HASHED_TOGETHER: usize = 64;

/// A bucket.
pub(super) type Bucket = [u8; BUCKET_BYTES];
type Segment = [Bucket; BUCKETS];

/// The bits of a hash that a segment uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    home: usize,
    tag: u8,
}

impl Probe {
    pub(super) const fn of(hash: u64) -> Self {
        let home = ((hash & 0xFFFF_FFFF) * HOMES as u64) >> 32;
        let tag = hash.to_le_bytes()[0];
        Self { home: home as usize, tag: if tag == 0 { 1 } else { tag } }
    }

    /// The 14 bits of the probe.
    pub(super) const fn bits(self) -> u16 {
        #[expect(clippy::cast_possible_truncation, reason = "below 60")]
        let home = self.home as u16;
        home << 8 | self.tag as u16
    }

    /// The probe with these bits.
    pub(super) const fn from_bits(bits: u16) -> Self {
        let [tag, home] = bits.to_le_bytes();
        Self { home: home as usize, tag }
    }

    const fn neighbour(self) -> usize {
        if self.home + 1 == HOMES { 0 } else { self.home + 1 }
    }
}

/// The position of an entry in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    bucket: usize,
    slot: usize,
}

/// The entries with the probe's tag. Reads the home bucket; next bucket and stash only if the home has entries there
/// and the caller continues.
#[inline]
pub(super) fn candidates(bytes: &[u8], probe: Probe) -> Candidates<'_> {
    let segment = view(bytes);
    Candidates { segment, probe, bucket: probe.home, matches: matches(&segment[probe.home], probe.tag) }
}

/// See [`candidates`].
pub(super) struct Candidates<'s> {
    segment: &'s Segment,
    probe: Probe,
    bucket: usize,
    /// One bit per matching slot of the bucket that was not returned yet.
    matches: u32,
}

impl Iterator for Candidates<'_> {
    type Item = (Position, u32);

    #[inline]
    fn next(&mut self) -> Option<(Position, u32)> {
        if self.matches == 0 {
            if has_all(&self.segment[self.probe.home]) {
                return None;
            }
            (self.bucket, self.matches) = further(self.segment, self.probe, self.bucket)?;
        }
        let slot = self.matches.trailing_zeros() as usize;
        self.matches &= self.matches - 1;
        Some((Position { bucket: self.bucket, slot }, handle(&self.segment[self.bucket], slot)))
    }
}

/// The next bucket after `bucket` that can have entries of the home and has matches of the tag, with these.
fn further(segment: &Segment, probe: Probe, mut bucket: usize) -> Option<(usize, u32)> {
    let home = &segment[probe.home];
    loop {
        bucket = if bucket == probe.home && home[DISPLACED] > 0 {
            probe.neighbour()
        } else {
            if bucket < HOMES { HOMES } else { bucket + 1 }
        };
        if bucket >= HOMES && (home[STASHED] == 0 || bucket == BUCKETS) {
            return None;
        }
        let matches = matches(&segment[bucket], probe.tag);
        if matches != 0 {
            return Some((bucket, matches));
        }
    }
}

/// The position of the entry with this handle.
pub(super) fn position_of(bytes: &[u8], probe: Probe, handle: u32) -> Option<Position> {
    candidates(bytes, probe).find(|&(_, held)| held == handle).map(|(position, _)| position)
}

/// The home bucket.
#[inline]
pub(super) fn home(bytes: &[u8], probe: Probe) -> &Bucket {
    &view(bytes)[probe.home]
}

/// The first handle in a home bucket with the probe's tag.
#[inline]
pub(super) fn first(home: &Bucket, probe: Probe) -> Option<u32> {
    let matches = matches(home, probe.tag);
    (matches != 0).then(|| handle(home, matches.trailing_zeros() as usize))
}

/// Whether all entries of a home are in its bucket.
#[inline]
pub(super) const fn has_all(home: &Bucket) -> bool {
    home[DISPLACED] | home[STASHED] == 0
}

/// Prefetches the next bucket, if the home has entries there.
pub(super) fn fetch_next(bytes: &[u8], probe: Probe) {
    if home(bytes, probe)[DISPLACED] > 0 {
        prefetch(&view(bytes)[probe.neighbour()]);
    }
}

/// Whether [`insert`] would succeed.
pub(super) fn has_room(bytes: &[u8], probe: Probe) -> bool {
    let segment = view(bytes);
    let mut buckets = [probe.home, probe.neighbour()].into_iter().chain(HOMES..BUCKETS);
    buckets.any(|at| free_slot(&segment[at]).is_some())
}

/// Adds an entry; false, and nothing changed, if there is no free slot for it.
pub(super) fn insert(bytes: &mut [u8], probe: Probe, handle: u32) -> bool {
    let segment = view_mut(bytes);
    let neighbour = probe.neighbour();
    for at in [probe.home, neighbour].into_iter().chain(HOMES..BUCKETS) {
        let Some(slot) = free_slot(&segment[at]) else { continue };
        fill(&mut segment[at], slot, probe.tag, handle);
        count(&mut segment[probe.home], probe, at, |counter| *counter += 1);
        return true;
    }
    false
}

/// Removes the entry of `probe` at `position`.
pub(super) fn remove(bytes: &mut [u8], probe: Probe, position: Position) {
    let segment = view_mut(bytes);
    segment[position.bucket][position.slot] = 0;
    count(&mut segment[probe.home], probe, position.bucket, |counter| *counter -= 1);
}

/// Replaces the handle of the entry at `position`.
pub(super) fn replace(bytes: &mut [u8], position: Position, handle: u32) {
    let segment = view_mut(bytes);
    let tag = segment[position.bucket][position.slot];
    fill(&mut segment[position.bucket], position.slot, tag, handle);
}

/// All entries.
pub(super) fn entries(bytes: &[u8]) -> impl Iterator<Item = (Position, u32)> {
    view(bytes).iter().enumerate().flat_map(|(bucket, data)| {
        let taken = !matches(data, 0) & ALL_SLOTS;
        let slots = successors(Some(taken), |left| Some(left & left.wrapping_sub(1)));
        slots.take_while(|&left| left != 0).map(move |left| {
            let slot = left.trailing_zeros() as usize;
            (Position { bucket, slot }, handle(data, slot))
        })
    })
}

/// Calls `visit` with all entries and their hashes, which `hashes_of` computes for many handles at a time, so that
/// cache misses overlap.
pub(super) fn for_each_hashed(
    bytes: &[u8],
    hashes_of: impl Fn(&[u32], &mut [u64]),
    mut visit: impl FnMut(Position, u32, u64),
) {
    let mut positions = [Position { bucket: 0, slot: 0 }; HASHED_TOGETHER];
    let mut handles = [0; HASHED_TOGETHER];
    let mut hashes = [0; HASHED_TOGETHER];
    let mut entries = entries(bytes);
    loop {
        let mut len = 0;
        for (position, handle) in entries.by_ref().take(HASHED_TOGETHER) {
            (positions[len], handles[len]) = (position, handle);
            len += 1;
        }
        hashes_of(&handles[..len], &mut hashes[..len]);
        for ((position, handle), hash) in positions.iter().zip(&handles).zip(&hashes).take(len) {
            visit(*position, *handle, *hash);
        }
        if len < HASHED_TOGETHER {
            return;
        }
    }
}

/// Appends the hashes of all entries.
pub(super) fn scan_hashes(bytes: &[u8], out: &mut Vec<u64>, hashes_of: impl Fn(&[u32], &mut [u64])) {
    for_each_hashed(bytes, hashes_of, |_, _, hash| out.push(hash));
}

/// Splits a segment: overwrites `other` with the entries whose hash has the bit `1 << bit`, at the same positions;
/// then moves entries from the stash to their homes where there is room. Returns the number of entries moved to
/// `other`.
pub(super) fn split(
    bytes: &mut [u8],
    other: &mut [u8],
    bit: u32,
    hashes_of: impl Fn(&[u32], &mut [u64]),
) -> usize {
    let before = *view(bytes);
    let (stay, go) = (view_mut(bytes), view_mut(other));
    go.fill([0; BUCKET_BYTES]);
    for bucket in stay.iter_mut() {
        bucket[DISPLACED] = 0;
        bucket[STASHED] = 0;
    }
    let (mut moved, mut stashed) = (0, Vec::new());
    for_each_hashed(before.as_flattened(), hashes_of, |position, handle, hash| {
        let probe = Probe::of(hash);
        let target = if hash >> bit & 1 == 1 {
            moved += 1;
            stay[position.bucket][position.slot] = 0;
            fill(&mut go[position.bucket], position.slot, probe.tag, handle);
            &mut *go
        } else {
            &mut *stay
        };
        count(&mut target[probe.home], probe, position.bucket, |counter| *counter += 1);
        if position.bucket >= HOMES {
            stashed.push((position, handle, hash));
        }
    });
    for (position, handle, hash) in stashed {
        let target = if hash >> bit & 1 == 1 { &mut *other } else { &mut *bytes };
        remove(target, Probe::of(hash), position);
        let again = insert(target, Probe::of(hash), handle);
        debug_assert!(again, "the slot just freed");
    }
    moved
}

/// Adds the entries of `other`; false, and nothing changed, if they do not all fit.
pub(super) fn merge(bytes: &mut [u8], other: &[u8], hashes_of: impl Fn(&[u32], &mut [u64])) -> bool {
    let mut both = *view(bytes);
    let flat = both.as_flattened_mut();
    let mut fit = true;
    for_each_hashed(other, hashes_of, |_, handle, hash| fit = fit && insert(flat, Probe::of(hash), handle));
    if fit {
        bytes.copy_from_slice(flat);
    }
    fit
}

/// Checks the counters of every home against the entries, and returns the number of entries.
pub(super) fn audit(bytes: &[u8], hash_of: impl Fn(u32) -> u64) -> usize {
    let mut counted = [[0u8; 2]; HOMES];
    let mut len = 0;
    for (position, handle) in entries(bytes) {
        let probe = Probe::of(hash_of(handle));
        assert_eq!(view(bytes)[position.bucket][position.slot], probe.tag, "tag of another hash");
        if position.bucket >= HOMES {
            counted[probe.home][1] += 1;
        } else if position.bucket != probe.home {
            assert_eq!(position.bucket, probe.neighbour(), "an entry in a bucket that lookups do not read");
            counted[probe.home][0] += 1;
        }
        len += 1;
    }
    for (bucket, counted) in view(bytes).iter().zip(counted) {
        assert_eq!([bucket[DISPLACED], bucket[STASHED]], counted, "counters of a home");
    }
    len
}

fn view(bytes: &[u8]) -> &Segment {
    &bytes.as_chunks().0.as_chunks().0[0]
}

fn view_mut(bytes: &mut [u8]) -> &mut Segment {
    &mut bytes.as_chunks_mut().0.as_chunks_mut().0[0]
}

/// One bit for each slot that holds `tag`.
#[inline]
fn matches(bucket: &Bucket, tag: u8) -> u32 {
    equal_bytes(&bucket.as_chunks().0[0], tag) & ALL_SLOTS
}

fn free_slot(bucket: &Bucket) -> Option<usize> {
    let free = matches(bucket, 0);
    (free != 0).then(|| free.trailing_zeros() as usize)
}

#[inline]
fn handle(bucket: &Bucket, slot: usize) -> u32 {
    u32::from_le_bytes(bucket.as_chunks().0[(BUCKET_BYTES - 4 * SLOTS) / 4 + slot])
}

fn fill(bucket: &mut Bucket, slot: usize, tag: u8, handle: u32) {
    bucket[slot] = tag;
    bucket.as_chunks_mut().0[(BUCKET_BYTES - 4 * SLOTS) / 4 + slot] = handle.to_le_bytes();
}

/// Changes the counter of a home for entries in bucket `at`.
fn count(home: &mut Bucket, probe: Probe, at: usize, change: impl Fn(&mut u8)) {
    if at >= HOMES {
        change(&mut home[STASHED]);
    } else if at != probe.home {
        change(&mut home[DISPLACED]);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "bounded by the tables of the test")]

    use super::{
        Probe, SEGMENT_BYTES, SEGMENT_SLOTS, audit, entries, insert, merge, position_of, remove, split,
    };
    use crate::base::rng::Rng;
    use std::collections::HashMap;

    /// A segment of as many random entries as fit; a handle is the position of its hash in the list.
    fn filled(rng: &mut Rng, max: usize) -> (Vec<u8>, Vec<u64>) {
        let mut segment = vec![0; SEGMENT_BYTES];
        let mut hashes = Vec::new();
        while hashes.len() < max {
            let hash = rng.next_u64();
            if !insert(&mut segment, Probe::of(hash), hashes.len() as u32) {
                break;
            }
            hashes.push(hash);
        }
        (segment, hashes)
    }

    #[test]
    fn segment_is_80_percent_full_before_an_insertion_fails() {
        let mut rng = Rng::new(1);
        let total: usize = (0..200).map(|_| filled(&mut rng, usize::MAX).1.len()).sum();
        let share = total * 100 / 200 / SEGMENT_SLOTS;
        println!("{share} %");
        assert!(share >= 80, "{share} %");
    }

    #[test]
    fn every_entry_is_found_and_removed_ones_are_not() {
        let mut rng = Rng::new(2);
        let (mut segment, hashes) = filled(&mut rng, usize::MAX);
        for (handle, &hash) in hashes.iter().enumerate() {
            let position = position_of(&segment, Probe::of(hash), handle as u32).unwrap();
            remove(&mut segment, Probe::of(hash), position);
            assert!(position_of(&segment, Probe::of(hash), handle as u32).is_none());
            audit(&segment, |handle| hashes[handle as usize]);
        }
        assert!(segment.iter().enumerate().all(|(at, &byte)| at % 64 >= 16 || byte == 0));
    }

    #[test]
    fn split_and_merge_lose_nothing() {
        let mut rng = Rng::new(3);
        for _ in 0..50 {
            let max = 1 + rng.below(800) as usize;
            let (mut segment, hashes) = filled(&mut rng, max);
            let hash_of = |handle: u32| hashes[handle as usize];
            let hashes_of = |handles: &[u32], out: &mut [u64]| {
                out.iter_mut().zip(handles).for_each(|(hash, &handle)| *hash = hash_of(handle));
            };
            let mut other = vec![0xFF; SEGMENT_BYTES];
            let moved = split(&mut segment, &mut other, 63, hashes_of);
            assert_eq!(audit(&other, hash_of), moved);
            assert_eq!(audit(&segment, hash_of), hashes.len() - moved);
            assert!(entries(&other).all(|(_, handle)| hash_of(handle) >> 63 == 1));
            let mut seen = HashMap::new();
            for (_, handle) in entries(&segment).chain(entries(&other)) {
                *seen.entry(handle).or_insert(0) += 1;
            }
            assert!(seen.len() == hashes.len() && seen.values().all(|&times| times == 1));
            if hashes.len() < 500 {
                assert!(merge(&mut segment, &other, hashes_of));
                assert_eq!(audit(&segment, hash_of), hashes.len());
            }
        }
    }

    #[test]
    fn merge_that_does_not_fit_changes_nothing() {
        let mut rng = Rng::new(4);
        let (mut segment, _) = filled(&mut rng, usize::MAX);
        let (other, hashes) = filled(&mut rng, usize::MAX);
        let before = segment.clone();
        let hashes_of = |handles: &[u32], out: &mut [u64]| {
            out.iter_mut().zip(handles).for_each(|(hash, &handle)| *hash = hashes[handle as usize]);
        };
        assert!(!merge(&mut segment, &other, hashes_of));
        assert_eq!(segment, before);
    }
}
