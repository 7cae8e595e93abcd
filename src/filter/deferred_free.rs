//! Deferred free of filters: returns their memory to the system one piece per step. Freeing it at once can take
//! milliseconds.

/// Words freed per step: 512 KiB.
const WORDS_PER_STEP: usize = 64 * 1024;

/// Memory that is not freed yet.
#[derive(Debug)]
pub(crate) struct DeferredFree {
    waiting: Vec<Vec<u64>>,
    bytes: u64,
}

impl DeferredFree {
    pub(crate) const fn new() -> Self {
        Self { waiting: Vec::new(), bytes: 0 }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Frees words: at once if they are few, else in [`DeferredFree::step`].
    pub(crate) fn put(&mut self, words: Vec<u64>) {
        if words.len() > WORDS_PER_STEP {
            self.bytes += words.capacity() as u64 * 8;
            self.waiting.push(words);
        }
    }

    /// Bytes that are still held.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Frees one piece; false if nothing was left.
    pub(crate) fn step(&mut self) -> bool {
        let Some(words) = self.waiting.last_mut() else { return false };
        let before = words.capacity();
        words.truncate(words.len().saturating_sub(WORDS_PER_STEP));
        words.shrink_to_fit();
        self.bytes = self.bytes.saturating_sub((before - words.capacity()) as u64 * 8);
        if words.is_empty() {
            self.waiting.pop();
        }
        true
    }
}
