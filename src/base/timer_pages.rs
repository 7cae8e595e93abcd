//! Timer pages: chains of small pages of timers, from which they are popped in no particular order.
//!
//! Two implementations: [`Typed`] has payloads of any type in one vector, for wheels of some thousand timers.
//! [`Mapped`] has numbers in regions that are returned to the system when they are empty, for wheels of millions.
//!
//! Not here: the meaning of a payload, and when a timer is due.

use super::arena::Arena;

/// The chain without entries.
pub const EMPTY: u32 = u32::MAX;

/// Storage of a wheel's slots. A chain is identified by its first page, or [`EMPTY`].
pub trait TimerPages<P> {
    /// Adds a timer to a chain; false, and nothing changed, if the system has no memory. O(1).
    fn push(&mut self, chain: &mut u32, deadline_low: u32, payload: P) -> bool;

    /// Removes a timer from a chain. O(1).
    fn pop(&mut self, chain: &mut u32) -> Option<(u32, P)>;

    /// Calls `visit` with each timer of a chain.
    fn for_each(&self, chain: u32, visit: impl FnMut(u32, P));

    /// Bytes of memory held.
    fn memory_bytes(&self) -> usize;

    /// Maximum growth of [`TimerPages::memory_bytes`] when `entries` timers are added to `timer_pages` chains.
    fn growth_bytes_max(&self, entries: usize, timer_pages: usize) -> usize;

    /// Frees some memory with the timers in it; false when none is left. The chains cannot be used after it.
    fn drop_step(&mut self) -> bool;
}

/// Entries of one page of [`Typed`].
const TYPED_ENTRIES: usize = 30;

/// Chains of payloads of any type; see the module.
#[derive(Debug)]
pub struct Typed<P> {
    pages: Vec<Page<P>>,
    free: u32,
}

#[derive(Debug)]
struct Page<P> {
    next: u32,
    entries: Vec<(u32, P)>,
}

impl<P> Typed<P> {
    /// No chains, and no memory.
    pub const fn new() -> Self {
        Self { pages: Vec::new(), free: EMPTY }
    }
}

impl<P> Default for Typed<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Copy> TimerPages<P> for Typed<P> {
    fn push(&mut self, chain: &mut u32, deadline_low: u32, payload: P) -> bool {
        let full = |page: &Page<P>| page.entries.len() == TYPED_ENTRIES;
        if self.pages.get(*chain as usize).is_none_or(full) {
            let page = match self.pages.get_mut(self.free as usize) {
                Some(page) => std::mem::replace(&mut self.free, page.next),
                None => {
                    self.pages.push(Page { next: EMPTY, entries: Vec::with_capacity(TYPED_ENTRIES) });
                    u32::try_from(self.pages.len() - 1).unwrap_or(EMPTY)
                }
            };
            self.pages[page as usize].next = std::mem::replace(chain, page);
        }
        self.pages[*chain as usize].entries.push((deadline_low, payload));
        true
    }

    fn pop(&mut self, chain: &mut u32) -> Option<(u32, P)> {
        let page = self.pages.get_mut(*chain as usize)?;
        let entry = page.entries.pop();
        if page.entries.is_empty() {
            let next = std::mem::replace(&mut page.next, self.free);
            self.free = std::mem::replace(chain, next);
        }
        entry
    }

    fn for_each(&self, chain: u32, mut visit: impl FnMut(u32, P)) {
        let mut chain = chain;
        while let Some(page) = self.pages.get(chain as usize) {
            page.entries.iter().for_each(|&(deadline_low, payload)| visit(deadline_low, payload));
            chain = page.next;
        }
    }

    fn memory_bytes(&self) -> usize {
        self.pages.capacity() * size_of::<Page<P>>()
            + self.pages.len() * TYPED_ENTRIES * size_of::<(u32, P)>()
    }

    fn growth_bytes_max(&self, entries: usize, timer_pages: usize) -> usize {
        let pages = entries.min(timer_pages + entries.div_ceil(TYPED_ENTRIES));
        pages * TYPED_ENTRIES * size_of::<(u32, P)>()
            + (self.pages.len() + 2 * pages + 4) * size_of::<Page<P>>()
    }

    fn drop_step(&mut self) -> bool {
        self.pages.pop().is_some()
    }
}

/// Bytes of a page of [`Mapped`]: its next page, its length, its entries.
const PAGE_BYTES: usize = 512;
const ENTRY_BYTES: usize = 8;
/// Entries of a full page: one less than fit, for its head.
const FULL: u32 = 63;
const _: () = assert!(FULL as usize + 1 == PAGE_BYTES / ENTRY_BYTES);

/// Free pages that are kept, warm in the cache, instead of being freed in the arena.
const SPARE_PAGES: usize = 64;

/// Chains of numbers in mapped memory; see the module.
#[derive(Debug)]
pub struct Mapped {
    arena: Arena<PAGE_BYTES>,
    spare: Vec<u32>,
}

impl Mapped {
    /// No chains, and no memory but for some words.
    pub fn new() -> Self {
        Self { arena: Arena::new(), spare: Vec::with_capacity(SPARE_PAGES) }
    }

    /// Checks the counts of the memory. O(regions).
    ///
    /// # Panics
    /// On any inconsistency.
    pub fn audit(&self) {
        self.arena.audit();
    }

    /// Returns one idle region to the system, if [`Mapped::has_idle`].
    pub fn trim(&mut self) {
        self.arena.trim();
    }

    /// Whether there is an idle region. O(1).
    pub const fn has_idle(&self) -> bool {
        self.arena.has_idle()
    }

    fn page(&self, page: u32) -> &[[u8; ENTRY_BYTES]] {
        self.arena.block(page).as_chunks().0
    }

    fn page_mut(&mut self, page: u32) -> &mut [[u8; ENTRY_BYTES]] {
        self.arena.block_mut(page).as_chunks_mut().0
    }

    /// A free page: a warm one, or the lowest while that drains regions.
    fn take(&mut self) -> Option<u32> {
        let warm = if self.arena.is_sparse() { None } else { self.spare.pop() };
        warm.or_else(|| self.arena.take())
    }

    fn give_back(&mut self, page: u32) {
        if self.spare.len() < SPARE_PAGES && !self.arena.is_sparse() {
            self.spare.push(page);
        } else {
            self.arena.give_back(page);
        }
        // Free pages must not keep regions when no other page is in use.
        if self.arena.blocks() == self.spare.len() && self.arena.blocks_end() > SPARE_PAGES {
            self.spare.drain(..).for_each(|page| self.arena.give_back(page));
        }
    }
}

impl Default for Mapped {
    fn default() -> Self {
        Self::new()
    }
}

impl TimerPages<u32> for Mapped {
    #[inline]
    fn push(&mut self, chain: &mut u32, deadline_low: u32, payload: u32) -> bool {
        let (mut next, mut len) = if *chain == EMPTY { (EMPTY, FULL) } else { read(self.page(*chain)[0]) };
        if len == FULL {
            let Some(page) = self.take() else { return false };
            next = std::mem::replace(chain, page);
            len = 0;
        }
        let page = self.page_mut(*chain);
        page[0] = write(next, len + 1);
        page[1 + len as usize] = write(deadline_low, payload);
        true
    }

    #[inline]
    fn pop(&mut self, chain: &mut u32) -> Option<(u32, u32)> {
        if *chain == EMPTY {
            return None;
        }
        let page = self.page_mut(*chain);
        let (next, len) = read(page[0]);
        let (deadline_low, payload) = read(page[len as usize]);
        if len == 1 {
            let page = std::mem::replace(chain, next);
            self.give_back(page);
        } else {
            page[0] = write(next, len - 1);
        }
        Some((deadline_low, payload))
    }

    fn for_each(&self, chain: u32, mut visit: impl FnMut(u32, u32)) {
        let mut chain = chain;
        while chain != EMPTY {
            let page = self.page(chain);
            let (next, len) = read(page[0]);
            for entry in &page[1..=len as usize] {
                let (deadline_low, payload) = read(*entry);
                visit(deadline_low, payload);
            }
            chain = next;
        }
    }

    fn memory_bytes(&self) -> usize {
        self.arena.memory_bytes() + self.spare.capacity() * 4
    }

    fn growth_bytes_max(&self, entries: usize, timer_pages: usize) -> usize {
        self.arena.growth_bytes_max(entries.min(timer_pages + entries.div_ceil(FULL as usize)))
    }

    fn drop_step(&mut self) -> bool {
        self.arena.drop_region()
    }
}

/// The two halves of 8 bytes.
fn read(bytes: [u8; ENTRY_BYTES]) -> (u32, u32) {
    let word = u64::from_le_bytes(bytes);
    #[expect(clippy::cast_possible_truncation, reason = "each half in turn")]
    let halves = (word as u32, (word >> 32) as u32);
    halves
}

fn write(low: u32, high: u32) -> [u8; ENTRY_BYTES] {
    (u64::from(low) | u64::from(high) << 32).to_le_bytes()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "bounded by the tables of the test")]

    use super::{EMPTY, Mapped, TimerPages, Typed};
    use crate::base::rng::Rng;

    fn random_chains(mut timer_pages: impl TimerPages<u32>) {
        let mut rng = Rng::new(1);
        let mut heads = [EMPTY; 20];
        let mut oracle: Vec<Vec<(u32, u32)>> = vec![Vec::new(); 20];
        for step in 0..60_000u32 {
            let at = rng.below(20) as usize;
            if rng.below(100) < if step < 40_000 { 60 } else { 30 } {
                let expected = timer_pages.memory_bytes() + timer_pages.growth_bytes_max(1, 1);
                assert!(timer_pages.push(&mut heads[at], step, step * 3));
                assert!(timer_pages.memory_bytes() <= expected);
                oracle[at].push((step, step * 3));
            } else {
                match timer_pages.pop(&mut heads[at]) {
                    Some(entry) => {
                        let known = oracle[at].iter().position(|&other| other == entry).unwrap();
                        oracle[at].swap_remove(known);
                    }
                    None => assert!(oracle[at].is_empty()),
                }
            }
        }
        for (&head, mut entries) in heads.iter().zip(oracle) {
            let mut seen = Vec::new();
            timer_pages.for_each(head, |deadline_low, payload| seen.push((deadline_low, payload)));
            seen.sort_unstable();
            entries.sort_unstable();
            assert_eq!(seen, entries);
        }
        while timer_pages.drop_step() {}
        assert!(timer_pages.memory_bytes() < 64 * 1_024);
    }

    #[test]
    fn chains_return_what_was_added() {
        random_chains(Typed::new());
        random_chains(Mapped::new());
    }

    #[test]
    fn memory_of_emptied_chains_is_returned() {
        let mut timer_pages = Mapped::new();
        let mut heads = vec![EMPTY; 1_000];
        for entry in 0..1_000_000u32 {
            timer_pages.push(&mut heads[entry as usize % 1_000], entry, entry);
        }
        assert!(timer_pages.memory_bytes() < 10 * 1_000_000);
        for head in &mut heads {
            while timer_pages.pop(head).is_some() {}
        }
        while timer_pages.has_idle() {
            timer_pages.trim();
        }
        assert!(timer_pages.memory_bytes() < 64 * 1_024, "{}", timer_pages.memory_bytes());
    }
}
