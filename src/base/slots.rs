//! Typed, generation-checked keys over `slab`, for references that outlive a call.
//!
//! A [`Key`] is always looked up: if its slot was emptied, or reused, the lookup fails, and the caller drops and counts
//! whatever carried the stale key. Keys of different tags are different types, so that the key of a connection cannot
//! be used on a table of lookups.

use slab::Slab;
use std::fmt;
use std::marker::PhantomData;

/// The key of an entry of a [`Slots`] with the same tag. 8 bytes, as is `Option<Key>`.
pub struct Key<Tag> {
    index: u32,
    generation: std::num::NonZeroU32,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag> Key<Tag> {
    /// The index of the entry. For tables that run parallel to this one; check the generation there too.
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// The key as one integer, `generation << 32 | index`. Never below 2^32, since no generation is 0.
    pub const fn to_bits(self) -> u64 {
        (self.generation.get() as u64) << 32 | self.index as u64
    }

    /// The key that [`Key::to_bits`] made into `bits`; `None` for integers below 2^32, which no key gives.
    pub const fn from_bits(bits: u64) -> Option<Self> {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the integer")]
        let (high, low) = ((bits >> 32) as u32, bits as u32);
        match std::num::NonZeroU32::new(high) {
            Some(generation) => Some(Self { index: low, generation, tag: PhantomData }),
            None => None,
        }
    }
}

// By hand, since deriving would demand the same traits of `Tag`, of which no value ever exists.
impl<Tag> Clone for Key<Tag> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Tag> Copy for Key<Tag> {}

impl<Tag> PartialEq for Key<Tag> {
    fn eq(&self, other: &Self) -> bool {
        self.to_bits() == other.to_bits()
    }
}

impl<Tag> Eq for Key<Tag> {}

impl<Tag> PartialOrd for Key<Tag> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<Tag> Ord for Key<Tag> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.to_bits().cmp(&other.to_bits())
    }
}

impl<Tag> fmt::Debug for Key<Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}v{}", self.index, self.generation)
    }
}

/// A table whose entries are named by keys. Insertion, lookup and removal are O(1), insertion amortised.
#[derive(Debug)]
pub struct Slots<Tag, T> {
    entries: Slab<(std::num::NonZeroU32, T)>,
    generation: std::num::NonZeroU32,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag, T> Slots<Tag, T> {
    /// An empty table; allocates nothing.
    pub const fn new() -> Self {
        Self { entries: Slab::new(), generation: std::num::NonZeroU32::MIN, tag: PhantomData }
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Puts `value` into a free slot. A key repeats only after 2^32 insertions into this table.
    ///
    /// # Panics
    /// At 2^32 live entries, which the limits of every table are far below.
    pub fn insert(&mut self, value: T) -> Key<Tag> {
        let generation = self.generation;
        self.generation = generation.checked_add(1).unwrap_or(std::num::NonZeroU32::MIN);
        let at = self.entries.insert((generation, value));
        let Ok(index) = u32::try_from(at) else { panic!("a table of 2^32 entries") };
        Key { index, generation, tag: PhantomData }
    }

    /// The entry, unless the key is stale.
    pub fn get(&self, key: Key<Tag>) -> Option<&T> {
        self.entries.get(key.index()).filter(|entry| entry.0 == key.generation).map(|entry| &entry.1)
    }

    /// The entry, unless the key is stale.
    pub fn get_mut(&mut self, key: Key<Tag>) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index())?;
        (entry.0 == key.generation).then_some(&mut entry.1)
    }

    /// Takes the entry out, unless the key is stale. Its key is stale from here on.
    pub fn remove(&mut self, key: Key<Tag>) -> Option<T> {
        self.get(key)?;
        Some(self.entries.remove(key.index()).1)
    }

    /// Every entry with its key, in order of index: the same order for the same history.
    pub fn iter(&self) -> impl Iterator<Item = (Key<Tag>, &T)> {
        self.entries.iter().map(|(at, entry)| {
            let index = u32::try_from(at).unwrap_or(u32::MAX);
            (Key { index, generation: entry.0, tag: PhantomData }, &entry.1)
        })
    }

    /// The entries of up to `count` indices from `first` on, and whether there are more after them. O(count).
    pub fn range(&self, first: usize, count: usize) -> (impl Iterator<Item = &T>, bool) {
        let end = first.saturating_add(count);
        let entries = (first..end).filter_map(|at| self.entries.get(at)).map(|(_, value)| value);
        (entries, end < self.entries.capacity())
    }

    /// Every entry, in order of index.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().map(|(_, entry)| &mut entry.1)
    }

    /// Frees the memory of the table if it is empty.
    pub fn shrink(&mut self) {
        if self.entries.is_empty() {
            self.entries = Slab::new();
        }
    }
}

impl<Tag, T> Default for Slots<Tag, T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Slots};

    struct Fruit;

    #[test]
    fn stale_key_finds_nothing_after_slot_reuse() {
        let mut slots: Slots<Fruit, &str> = Slots::new();
        let first = slots.insert("apple");
        assert_eq!(slots.remove(first), Some("apple"));
        let second = slots.insert("pear");
        assert_eq!(first.index(), second.index());
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"pear"));
    }

    #[test]
    fn no_key_is_a_small_integer() {
        let mut slots: Slots<Fruit, u8> = Slots::new();
        let key = slots.insert(1);
        assert!(key.to_bits() > u64::from(u32::MAX));
        assert_eq!(Key::from_bits(key.to_bits()), Some(key));
        assert_eq!(Key::<Fruit>::from_bits(0), None);
        assert_eq!(Key::<Fruit>::from_bits(u64::from(u32::MAX)), None);
    }

    #[test]
    fn generation_zero_is_never_issued_when_the_counter_wraps() {
        let mut slots: Slots<Fruit, u8> = Slots::new();
        slots.generation = std::num::NonZeroU32::MAX;
        let last = slots.insert(1);
        let next = slots.insert(2);
        assert_eq!(last.to_bits() >> 32, u64::from(u32::MAX));
        assert_eq!(next.to_bits() >> 32, 1);
    }
}
