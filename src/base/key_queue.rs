//! A queue of keys of a table, each at most once.

use crate::base::slots::Key;
use std::collections::VecDeque;

/// First in, first out. Adding and taking are O(1).
#[derive(Debug)]
pub struct KeyQueue<Tag> {
    queue: VecDeque<Key<Tag>>,
    /// The key in the queue of each slot of the table.
    queued: Vec<Option<Key<Tag>>>,
}

impl<Tag> Default for KeyQueue<Tag> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), queued: Vec::new() }
    }
}

impl<Tag> KeyQueue<Tag> {
    /// Adds a key at the end, unless it is in the queue.
    pub fn push(&mut self, key: Key<Tag>) {
        if self.queued.len() <= key.index() {
            self.queued.resize(key.index() + 1, None);
        }
        if self.queued[key.index()].replace(key) != Some(key) {
            self.queue.push_back(key);
        }
    }

    /// Takes the first key, which may be stale by now.
    pub fn pop(&mut self) -> Option<Key<Tag>> {
        let key = self.queue.pop_front()?;
        self.queued[key.index()].take_if(|queued| *queued == key);
        Some(key)
    }

    /// Whether a key is in the queue. O(1).
    pub fn contains(&self, key: Key<Tag>) -> bool {
        self.queued.get(key.index()).is_some_and(|queued| *queued == Some(key))
    }

    /// The number of keys, stale ones included.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::KeyQueue;
    use crate::base::slots::{Key, Slots};

    #[test]
    fn key_is_queued_once_and_again_after_it_was_taken() {
        let mut slots: Slots<(), ()> = Slots::new();
        let old = slots.insert(());
        slots.remove(old);
        let (new, other) = (slots.insert(()), slots.insert(()));
        let mut queue = KeyQueue::default();
        [old, new, other, new, old].into_iter().for_each(|key| queue.push(key));
        let mut taken = || std::iter::from_fn(|| queue.pop()).collect::<Vec<Key<()>>>();
        let first = taken();
        assert_eq!((first[..3].to_vec(), taken()), (vec![old, new, other], vec![]));
        queue.push(new);
        assert_eq!((queue.len(), queue.pop(), queue.is_empty()), (1, Some(new), true));
    }
}
