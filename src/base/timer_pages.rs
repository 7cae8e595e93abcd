//! Bags of timer entries: chains of small pages, from which entries come out in no promised order.
//!
//! Two kinds behind one interface. [`Typed`] holds payloads of any type in one vector, for wheels of some
//! thousand timers. [`Mapped`] holds numbers in regions that go back to the system when they are empty,
//! for wheels of millions; and so that a page costs nothing but its first touch, none is ever cleared.
//!
//! Not here: what an entry means and when it is due.

use super::arena::Arena;

/// The chain without entries.
pub const EMPTY: u32 = u32::MAX;

/// Where a wheel keeps the entries of its slots. A chain is named by its first page, or [`EMPTY`].
pub trait TimerPages<P> {
    /// Puts an entry into a chain; false, and nothing changed, if the system gives no memory for it. O(1).
    fn push(&mut self, chain: &mut u32, deadline_low: u32, payload: P) -> bool;

    /// Takes an entry out of a chain. O(1).
    fn pop(&mut self, chain: &mut u32) -> Option<(u32, P)>;

    /// Calls `see` with each entry of a chain.
    fn for_each(&self, chain: u32, see: impl FnMut(u32, P));

    /// Bytes of memory held.
    fn memory_bytes(&self) -> usize;

    /// What [`TimerPages::memory_bytes`] grows by at most when so many entries are added, to so many chains.
    fn growth_bytes_max(&self, entries: usize, timer_pages: usize) -> usize;

    /// Gives some memory back, whatever is in it; false when there is none left. For chains that nobody
    /// will ask again.
    fn drop_step(&mut self) -> bool;
}

/// Entries of one page of [`Typed`].
const TYPED_ENTRIES: usize = 30;

/// Bags of payloads of any type; see the module.
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

    fn for_each(&self, chain: u32, mut see: impl FnMut(u32, P)) {
        let mut chain = chain;
        while let Some(page) = self.pages.get(chain as usize) {
            page.entries.iter().for_each(|&(deadline_low, payload)| see(deadline_low, payload));
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

/// Pages kept at hand, warm in the cache, before they go back to the arena.
const SPARE_PAGES: usize = 64;

/// Bags of numbers in mapped memory; see the module.
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

    /// Checks what is counted of the memory. O(regions).
    ///
    /// # Panics
    /// If anything was counted wrong.
    pub fn audit(&self) {
        self.arena.audit();
    }

    /// Gives one region of memory back to the system that is not used, if [`Mapped::has_idle`] says that
    /// there is one.
    pub fn trim(&mut self) {
        self.arena.trim();
    }

    /// Whether [`Mapped::trim`] has something to give back. O(1).
    pub const fn has_idle(&self) -> bool {
        self.arena.has_idle()
    }

    fn page(&self, page: u32) -> &[[u8; ENTRY_BYTES]] {
        self.arena.block(page).as_chunks().0
    }

    fn page_mut(&mut self, page: u32) -> &mut [[u8; ENTRY_BYTES]] {
        self.arena.block_mut(page).as_chunks_mut().0
    }

    /// A page to fill: a warm one, or the lowest there is while regions could be emptied by that.
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
        // What is kept at hand must not keep regions when it is all there is.
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

    fn for_each(&self, chain: u32, mut see: impl FnMut(u32, u32)) {
        let mut chain = chain;
        while chain != EMPTY {
            let page = self.page(chain);
            let (next, len) = read(page[0]);
            for entry in &page[1..=len as usize] {
                let (deadline_low, payload) = read(*entry);
                see(deadline_low, payload);
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

    fn random_bags(mut timer_pages: impl TimerPages<u32>) {
        let mut rng = Rng::new(1);
        let mut heads = [EMPTY; 20];
        let mut oracle: Vec<Vec<(u32, u32)>> = vec![Vec::new(); 20];
        for step in 0..60_000u32 {
            let at = rng.below(20) as usize;
            if rng.below(100) < if step < 40_000 { 60 } else { 30 } {
                let said = timer_pages.memory_bytes() + timer_pages.growth_bytes_max(1, 1);
                assert!(timer_pages.push(&mut heads[at], step, step * 3));
                assert!(timer_pages.memory_bytes() <= said);
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
    fn bags_give_back_what_was_put_in() {
        random_bags(Typed::new());
        random_bags(Mapped::new());
    }

    #[test]
    fn emptied_bags_give_their_memory_back() {
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
