//! The holders of the newest known versions of keys that other nodes wrote.
//!
//! A direct-mapped table whose entries are overwritten freely: an optimisation that makes lookups fresher and faster.

use crate::node::ids::PeerKey;
use crate::store::{KeyHash, Version};

/// Entries of the table: 128 KiB.
const ENTRIES: usize = 4_096;

/// The newest version of a key that a peer has reported.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct MovedKey {
    hash: KeyHash,
    pub(in crate::node) version: Version,
    /// The peer that held it; `None`: the version is that of a deletion.
    pub(in crate::node) holder: Option<PeerKey>,
}

/// The table; it takes no memory before its first entry.
#[derive(Debug, Default)]
pub(in crate::node) struct Moved {
    entries: Vec<Option<MovedKey>>,
}

impl Moved {
    /// Stores a version, unless a higher one is stored for the key.
    pub(in crate::node) fn note(&mut self, hash: KeyHash, version: Version, holder: Option<PeerKey>) {
        if self.entries.is_empty() {
            self.entries.resize(ENTRIES, None);
        }
        let Some(entry) = self.entries.get_mut(slot(hash)) else { return };
        if entry.is_none_or(|entry| entry.hash != hash || entry.version <= version) {
            *entry = Some(MovedKey { hash, version, holder });
        }
    }

    /// The entry of a key. O(1).
    pub(in crate::node) fn get(&self, hash: KeyHash) -> Option<MovedKey> {
        self.entries.get(slot(hash)).copied().flatten().filter(|entry| entry.hash == hash)
    }
}

/// The index of a hash: its low bits, since the blocks of filters use the top bits.
fn slot(hash: KeyHash) -> usize {
    usize::try_from(hash.0 % ENTRIES as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{ENTRIES, Moved};
    use crate::base::slots::Slots;
    use crate::store::{KeyHash, Version};

    #[test]
    fn newest_version_of_a_key_stays_until_another_key_takes_its_entry() {
        let peer = Slots::new().insert(());
        let mut moved = Moved::default();
        let of = |moved: &Moved, hash| moved.get(KeyHash(hash)).map(|key| (key.version.0, key.holder));
        assert_eq!(of(&moved, 7), None);
        moved.note(KeyHash(7), Version(5), Some(peer));
        moved.note(KeyHash(7), Version(4), None);
        assert_eq!(of(&moved, 7), Some((5, Some(peer))));
        moved.note(KeyHash(7), Version(6), None);
        assert_eq!(of(&moved, 7), Some((6, None)));
        let other = 7 + ENTRIES as u64;
        moved.note(KeyHash(other), Version(1), Some(peer));
        assert_eq!((of(&moved, 7), of(&moved, other)), (None, Some((1, Some(peer)))));
    }
}
