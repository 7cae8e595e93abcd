//! Tombstones: the versions of removed keys, kept while a peer may return an older value.
//!
//! A tombstone stays until every known peer has acknowledged the clock `until`: the time at which it was created or
//! last sent to a peer; also beside a newer value. There are at most `tombstones_max`. Above that, tombstones of
//! expired and evicted keys are dropped first; then deletions are moved to a Bloom filter of fixed size with their
//! highest version, the *discarded deletions*, which is sent to peers that are linked again.

use crate::filter::bloom::Bloom;
use crate::filter::size::Size;
use crate::store::{HashedKey, KeyHash, Version};
use std::collections::BTreeMap;

/// Bytes of memory of a tombstone without its key: entries of two B-trees.
const TOMBSTONE_BYTES: usize = 128;

/// Bytes of memory per tombstone of the limit, on average.
const BYTES_PER_TOMBSTONE: usize = 256;

/// Divisor of the memory limit that gives the bytes of tombstones.
const MEMORY_SHARE: u64 = 16;

/// The size of the filter of discarded deletions, as the logarithm of its blocks: 256 KiB.
pub(in crate::node) const DISCARDED_SIZE_LOG2: u8 = 12;

/// Deletions in the filter at most: then half of its bits are set, and one in 250 other keys matches.
const DISCARDED_MAX: usize = 180_000;

/// The reason for the removal of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Departure {
    /// A command deleted it.
    Deleted,
    /// It has expired or was evicted.
    Dropped,
}

#[derive(Debug)]
struct Tombstone {
    version: Version,
    until: Version,
    cause: Departure,
}

/// Deletions whose tombstones were dropped.
#[derive(Debug)]
struct Discarded {
    filter: Bloom,
    count: usize,
    version: Version,
}

/// The tombstones of a node; see the module.
#[derive(Debug, Default)]
pub(in crate::node) struct Tombstones {
    entries: BTreeMap<(KeyHash, Box<[u8]>), Tombstone>,
    /// By `until`, which no two tombstones share: those of deletions, and the others.
    deleted: BTreeMap<Version, KeyHash>,
    dropped: BTreeMap<Version, KeyHash>,
    bytes: usize,
    discarded: Option<Discarded>,
    /// Deletions that were forgotten although a peer may still return their keys.
    lost: u64,
}

impl Tombstones {
    /// The number of tombstones.
    pub(in crate::node) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory.
    pub(in crate::node) fn bytes(&self) -> u64 {
        let filter = self.discarded.as_ref().map_or(0, |discarded| discarded.filter.bytes());
        self.bytes as u64 + filter
    }

    /// Deletions that were forgotten because too many were discarded: a peer may return their keys.
    pub(in crate::node) const fn lost(&self) -> u64 {
        self.lost
    }

    /// The version of the tombstone of a key. O(log tombstones).
    pub(in crate::node) fn version(&self, key: HashedKey<'_>) -> Option<Version> {
        self.with_hash(key.hash).find(|(bytes, _)| *bytes == key.bytes).map(|(_, version)| version)
    }

    /// Keys with this hash, and the versions of their tombstones. O(log tombstones).
    pub(in crate::node) fn with_hash(&self, hash: KeyHash) -> impl Iterator<Item = (&[u8], Version)> {
        let entries =
            self.entries.range((hash, Box::default())..).take_while(move |((at, _), _)| *at == hash);
        entries.map(|((_, key), tombstone)| (&**key, tombstone.version))
    }

    /// The hashes of the tombstones from `from` on, in order.
    pub(in crate::node) fn hashes_from(&self, from: KeyHash) -> impl Iterator<Item = KeyHash> {
        self.entries.range((from, Box::default())..).map(|((hash, _), _)| *hash)
    }

    /// Adds a tombstone, or raises the version of the existing one. `until` must be a new stamp.
    pub(in crate::node) fn put(
        &mut self,
        key: HashedKey<'_>,
        version: Version,
        until: Version,
        cause: Departure,
    ) {
        let old = self.remove(key);
        let is_deletion =
            cause == Departure::Deleted || old.as_ref().is_some_and(|old| old.cause == Departure::Deleted);
        let cause = if is_deletion { Departure::Deleted } else { Departure::Dropped };
        let version = old.map_or(version, |old| old.version.max(version));
        self.order(cause).insert(until, key.hash);
        self.bytes += TOMBSTONE_BYTES + key.bytes.len();
        self.entries.insert((key.hash, key.bytes.into()), Tombstone { version, until, cause });
    }

    /// Keeps the tombstone of a key, if there is one, until the new stamp `until` is acknowledged.
    pub(in crate::node) fn renew(&mut self, key: HashedKey<'_>, until: Version) {
        if let Some(Tombstone { version, cause, .. }) = self.remove(key) {
            self.put(key, version, until, cause);
        }
    }

    /// Drops at most `budget` tombstones whose `until` is at most `acknowledged`.
    pub(in crate::node) fn collect(&mut self, acknowledged: Version, budget: usize) {
        for _ in 0..budget {
            let firsts =
                [&self.deleted, &self.dropped].into_iter().filter_map(|order| order.first_key_value());
            let Some((&until, &hash)) = firsts.min().filter(|(until, _)| **until <= acknowledged) else {
                return;
            };
            self.remove_first(hash, until);
        }
    }

    /// Whether a tombstone was acknowledged. O(1).
    pub(in crate::node) fn has_acknowledged(&self, acknowledged: Version) -> bool {
        [&self.deleted, &self.dropped]
            .into_iter()
            .any(|order| order.first_key_value().is_some_and(|(until, _)| *until <= acknowledged))
    }

    /// Drops the oldest tombstones above the limits, those of expired and evicted keys first. `memory_max` is the
    /// limit of the node in bytes; 0: none.
    pub(in crate::node) fn limit(&mut self, tombstones_max: usize, memory_max: u64) {
        let share = usize::try_from(memory_max / MEMORY_SHARE).unwrap_or(usize::MAX);
        let share = if memory_max > 0 { share } else { usize::MAX };
        let bytes_max = tombstones_max.saturating_mul(BYTES_PER_TOMBSTONE).min(share);
        while self.entries.len() > tombstones_max || self.bytes > bytes_max {
            if let Some((&until, &hash)) = self.dropped.first_key_value() {
                self.remove_first(hash, until);
            } else if let Some((&until, &hash)) = self.deleted.first_key_value() {
                if let Some(tombstone) = self.remove_first(hash, until) {
                    self.discard(hash, tombstone.version);
                }
            } else {
                return;
            }
        }
    }

    fn discard(&mut self, hash: KeyHash, version: Version) {
        if self.discarded.is_none() {
            let filter = Size::from_log2(DISCARDED_SIZE_LOG2).and_then(Bloom::try_new);
            self.discarded = filter.map(|filter| Discarded { filter, count: 0, version });
        }
        match &mut self.discarded {
            Some(discarded) if discarded.count < DISCARDED_MAX => {
                discarded.filter.insert(hash.0);
                discarded.count += 1;
                discarded.version = discarded.version.max(version);
            }
            Some(_) | None => self.lost += 1,
        }
    }

    /// The filter of discarded deletions, and their highest version.
    pub(in crate::node) fn discarded(&self) -> Option<(&Bloom, Version)> {
        self.discarded.as_ref().map(|discarded| (&discarded.filter, discarded.version))
    }

    /// Drops the discarded deletions, after all peers have acknowledged them.
    pub(in crate::node) fn forget_discarded(&mut self) {
        self.discarded = None;
    }

    /// Whether indexes and bytes fit the tombstones, for the audit. O(tombstones).
    pub(in crate::node) fn adds_up(&self) -> bool {
        let bytes: usize = self.entries.keys().map(|(_, key)| TOMBSTONE_BYTES + key.len()).sum();
        let is_ordered = |((hash, _), tombstone): (&(KeyHash, Box<[u8]>), &Tombstone)| {
            let order = match tombstone.cause {
                Departure::Deleted => &self.deleted,
                Departure::Dropped => &self.dropped,
            };
            order.get(&tombstone.until) == Some(hash)
        };
        bytes == self.bytes
            && self.deleted.len() + self.dropped.len() == self.entries.len()
            && self.entries.iter().all(is_ordered)
    }

    fn order(&mut self, cause: Departure) -> &mut BTreeMap<Version, KeyHash> {
        match cause {
            Departure::Deleted => &mut self.deleted,
            Departure::Dropped => &mut self.dropped,
        }
    }

    fn remove(&mut self, key: HashedKey<'_>) -> Option<Tombstone> {
        let entries = self.entries.range((key.hash, Box::default())..);
        let mut entries = entries.take_while(|((hash, _), _)| *hash == key.hash);
        let until =
            entries.find(|((_, bytes), _)| **bytes == *key.bytes).map(|(_, tombstone)| tombstone.until)?;
        self.remove_first(key.hash, until)
    }

    /// Removes the tombstone with this hash that stays until `until`.
    fn remove_first(&mut self, hash: KeyHash, until: Version) -> Option<Tombstone> {
        let mut entries = self.entries.range((hash, Box::default())..);
        let id = entries.find(|(_, tombstone)| tombstone.until == until).map(|(id, _)| id.clone())?;
        let tombstone = self.entries.remove(&id)?;
        self.order(tombstone.cause).remove(&until);
        self.bytes -= TOMBSTONE_BYTES + id.1.len();
        Some(tombstone)
    }
}

#[cfg(test)]
mod tests {
    use super::{BYTES_PER_TOMBSTONE, DISCARDED_MAX, Departure, Tombstones};
    use crate::store::{HashedKey, KeyHash, Version};

    fn key(hash: u64, bytes: &[u8]) -> HashedKey<'_> {
        HashedKey { hash: KeyHash(hash), bytes }
    }

    #[test]
    fn tombstone_stays_until_its_last_notice_is_acknowledged() {
        let mut tombstones = Tombstones::default();
        // Two keys with one hash.
        tombstones.put(key(7, b"a"), Version(10), Version(10), Departure::Deleted);
        tombstones.put(key(7, b"b"), Version(11), Version(11), Departure::Dropped);
        tombstones.renew(key(7, b"a"), Version(20));
        tombstones.renew(key(7, b"c"), Version(21));
        assert_eq!(tombstones.version(key(7, b"a")), Some(Version(10)));
        tombstones.collect(Version(19), 9);
        assert_eq!((tombstones.version(key(7, b"b")), tombstones.len()), (None, 1));
        assert!(tombstones.has_acknowledged(Version(20)));
        tombstones.collect(Version(20), 9);
        assert_eq!((tombstones.len(), tombstones.bytes()), (0, 0));
    }

    #[test]
    fn version_of_a_tombstone_never_falls() {
        let mut tombstones = Tombstones::default();
        tombstones.put(key(1, b"a"), Version(9), Version(1), Departure::Deleted);
        tombstones.put(key(1, b"a"), Version(5), Version(2), Departure::Dropped);
        assert_eq!((tombstones.version(key(1, b"a")), tombstones.len()), (Some(Version(9)), 1));
        // It is that of a deletion still.
        tombstones.limit(0, 0);
        assert!(
            tombstones
                .discarded()
                .is_some_and(|(filter, version)| filter.contains(1) && version == Version(9))
        );
    }

    #[test]
    fn deletions_above_the_limit_are_discarded_after_everything_else_and_in_bounded_memory() {
        let mut tombstones = Tombstones::default();
        for n in 1..=10 {
            let cause = if n % 2 == 0 { Departure::Deleted } else { Departure::Dropped };
            tombstones.put(key(n << 50, b"key"), Version(n), Version(n), cause);
            tombstones.limit(6, 0);
        }
        let kept = |tombstones: &Tombstones, n: u64| tombstones.version(key(n << 50, b"key")).is_some();
        assert_eq!((1..=10).filter(|n| kept(&tombstones, *n)).collect::<Vec<_>>(), [2, 4, 6, 8, 9, 10]);
        assert!(tombstones.discarded().is_none());
        tombstones.limit(3, 0);
        let (filter, version) = tombstones.discarded().unwrap();
        assert!(filter.contains(2 << 50) && filter.contains(4 << 50) && !filter.contains(6 << 50));
        assert_eq!(version, Version(4));
        // Long keys count by their bytes.
        let long = vec![b'x'; 3 * BYTES_PER_TOMBSTONE];
        tombstones.put(key(1, &long), Version(20), Version(20), Departure::Deleted);
        tombstones.limit(3, 0);
        assert_eq!(tombstones.len(), 0);
        for n in 0..DISCARDED_MAX as u64 {
            tombstones.discard(KeyHash(n << 30), Version(n));
        }
        assert_eq!(tombstones.lost(), 6);
        // In little memory there are fewer.
        tombstones.put(key(1, b"key"), Version(30), Version(30), Departure::Dropped);
        tombstones.limit(3, 16 * 100);
        assert_eq!(tombstones.len(), 0);
    }
}
