//! The metadata of pages: size class, slots in use, free list; and the choice of the page to fill or empty next.
//!
//! Pages with free slots are listed by class and quarter of fill. Slots are allocated in the fullest pages, so that
//! the emptiest ones drain; compaction empties those.
//!
//! Not here: the memory of a page, and the links of its free list, which are in the free slots.

use super::memory::ClassMemory;
use super::size_classes::{CLASSES, bytes_of, slots_of};
use crate::base::chunked_vec::ChunkedVec;

/// Lists of pages with free slots per class, by quarter of fill.
const BANDS: usize = 4;

/// No page, slot, class or band.
const NO_PAGE: u32 = u32::MAX;
pub(super) const NO_SLOT: u16 = u16::MAX;
const NO_CLASS: u8 = u8::MAX;
const NO_BAND: u8 = u8::MAX;

/// Metadata of one page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    pub(super) class: u8,
    /// The list that the page is in; none if it is full or being emptied.
    band: u8,
    pub(super) live: u16,
    /// Slots from this one on were not used since the page got its class.
    pub(super) fresh: u16,
    /// The head of the list of freed slots.
    pub(super) free: u16,
    next: u32,
    prev: u32,
}

impl Default for Page {
    fn default() -> Self {
        UNUSED
    }
}

const UNUSED: Page =
    Page { class: NO_CLASS, band: NO_BAND, live: 0, fresh: 0, free: NO_SLOT, next: NO_PAGE, prev: NO_PAGE };

/// The pages of one class.
#[derive(Debug, Clone, Copy)]
struct Class {
    bands: [u32; BANDS],
    pages: u32,
    live: u32,
}

/// The page being emptied. It is in no list, so that it is not allocated from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Emptying {
    pub(super) page: u32,
    /// No slot before this one is live.
    pub(super) slot: u32,
}

/// Metadata of all pages; see the module.
#[derive(Debug)]
pub(super) struct Pages {
    records: ChunkedVec<Page>,
    classes: Box<[Class; CLASSES]>,
    /// The sparse classes, whose emptiest pages should be emptied: one bit per class.
    sparse: u128,
    emptying: Option<Emptying>,
    /// Bytes of the slots in use.
    live_bytes: usize,
}

impl Pages {
    pub(super) fn new() -> Self {
        let class = Class { bands: [NO_PAGE; BANDS], pages: 0, live: 0 };
        let classes = Box::new([class; CLASSES]);
        Self { records: ChunkedVec::new(), classes, sparse: 0, emptying: None, live_bytes: 0 }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.records.memory_bytes() + size_of_val(&*self.classes)
    }

    /// Growth of [`Pages::memory_bytes`] at most when there are pages up to `end`.
    pub(super) fn growth_bytes(&self, end: usize) -> usize {
        self.records.growth_bytes(end)
    }

    /// Bytes of the slots in use.
    pub(super) const fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// The memory of the classes that have pages, of `page_bytes` bytes.
    pub(super) fn memory_of_classes(&self, page_bytes: usize) -> impl Iterator<Item = ClassMemory> {
        let used = (0u8..).zip(&*self.classes).filter(|(_, class)| class.pages > 0);
        used.map(move |(number, class)| ClassMemory {
            slot_bytes: bytes_of(number) as u64,
            held: u64::from(class.pages) * page_bytes as u64,
            live: u64::from(class.live) * bytes_of(number) as u64,
        })
    }

    #[inline]
    pub(super) fn get(&self, page: u32) -> Option<&Page> {
        self.records.get(page as usize)
    }

    /// The metadata of a page in use.
    #[inline]
    pub(super) fn of(&self, page: u32) -> Page {
        self.records[page as usize]
    }

    /// A page with free slots of a class, from the fullest quarter.
    pub(super) fn with_room(&self, class: u8) -> Option<u32> {
        let bands = &self.classes[usize::from(class)].bands;
        bands.iter().rev().copied().find(|&page| page != NO_PAGE)
    }

    /// The smallest class with free slots of a class's size, or up to a quarter more.
    pub(super) fn larger_with_room(&self, class: u8) -> Option<u8> {
        let enough = (class..).take_while(|&other| usize::from(other) < CLASSES && is_enough(other, class));
        enough.into_iter().find(|&class| self.with_room(class).is_some())
    }

    /// The smallest class with free slots of a class's size or more.
    pub(super) fn any_larger_with_room(&self, class: u8) -> Option<u8> {
        (class..)
            .take_while(|&other| usize::from(other) < CLASSES)
            .find(|&class| self.with_room(class).is_some())
    }

    /// Adds a page to a class; `end` is one past the highest page in use.
    pub(super) fn add(&mut self, page: u32, class: u8, end: usize) {
        self.records.grow_to(end);
        self.records[page as usize] = Page { class, ..UNUSED };
        self.classes[usize::from(class)].pages += 1;
    }

    /// Removes an empty page from its class.
    pub(super) fn remove(&mut self, page: u32) {
        self.unlink(page);
        self.emptying.take_if(|emptying| emptying.page == page);
        let class = self.records[page as usize].class;
        self.classes[usize::from(class)].pages -= 1;
        self.records[page as usize] = UNUSED;
        self.update_sparse(class);
    }

    /// Drops the metadata from `end` on: no page there is in use.
    pub(super) fn truncate(&mut self, end: usize) {
        self.records.truncate(end);
    }

    /// Counts an allocated slot: a fresh one, or the head of the free list, whose next slot is `next_free`.
    pub(super) fn slot_taken(&mut self, page: u32, next_free: Option<u16>) {
        let record = &mut self.records[page as usize];
        match next_free {
            Some(next) => record.free = next,
            None => record.fresh += 1,
        }
        record.live += 1;
        self.live_bytes += bytes_of(record.class);
        self.classes[usize::from(record.class)].live += 1;
        self.relink(page);
    }

    /// Counts a freed slot; true if no slot of the page is in use now.
    pub(super) fn slot_freed(&mut self, page: u32, slot: u16) -> bool {
        let record = &mut self.records[page as usize];
        record.free = slot;
        record.live -= 1;
        let (class, live) = (record.class, record.live);
        self.live_bytes -= bytes_of(class);
        self.classes[usize::from(class)].live -= 1;
        if live > 0 && !self.is_emptying(page) {
            self.relink(page);
        }
        self.update_sparse(class);
        live == 0
    }

    /// The page being emptied, and its next slot.
    pub(super) const fn emptying(&self) -> Option<Emptying> {
        self.emptying
    }

    fn is_emptying(&self, page: u32) -> bool {
        self.emptying.is_some_and(|emptying| emptying.page == page)
    }

    /// Whether a class has too many free slots, or a page is being emptied.
    pub(super) const fn is_sparse(&self) -> bool {
        self.emptying.is_some() || self.sparse != 0
    }

    /// Begins to empty a page.
    pub(super) fn begin_emptying(&mut self, page: u32) -> Emptying {
        self.unlink(page);
        *self.emptying.insert(Emptying { page, slot: 0 })
    }

    /// Records that the slots before `slot` of the page being emptied are free, if it is not empty yet.
    pub(super) fn continue_emptying(&mut self, slot: u32) {
        if let Some(emptying) = &mut self.emptying {
            emptying.slot = slot;
        }
    }

    /// Stops emptying: the page is allocated from again.
    pub(super) fn stop_emptying(&mut self) {
        if let Some(Emptying { page, .. }) = self.emptying.take() {
            self.sparse &= !(1 << self.records[page as usize].class);
            self.relink(page);
        }
    }

    /// Checks counts and lists against the pages in use and the live items counted in them.
    pub(super) fn audit(&self, counted: impl Iterator<Item = (u32, usize)>) {
        let mut per_class = [(0u32, 0u32); CLASSES];
        for (page, live) in counted {
            let record = self.of(page);
            assert_eq!(usize::from(record.live), live, "live slots of a page");
            assert!(live > 0, "an empty page was not freed");
            assert_eq!(record.band, if self.is_emptying(page) { NO_BAND } else { band_of(&record) });
            per_class[usize::from(record.class)].0 += 1;
            per_class[usize::from(record.class)].1 += u32::from(record.live);
        }
        let live = (0u8..).zip(&per_class).map(|(class, &(_, live))| live as usize * bytes_of(class));
        assert_eq!(live.sum::<usize>(), self.live_bytes, "bytes of the slots in use");
        for (class, counted) in self.classes.iter().zip(per_class) {
            assert_eq!((class.pages, class.live), counted, "pages and items of a class");
            for (band, &first) in class.bands.iter().enumerate() {
                let mut page = first;
                while page != NO_PAGE {
                    assert_eq!(usize::from(self.of(page).band), band, "page in another's list");
                    page = self.of(page).next;
                }
            }
        }
    }

    /// Updates whether a class is sparse: from two pages of free slots plus half as many as are in use on, until
    /// below one page plus a quarter. An emptiest page is then at most two thirds full: at most two moves per slot
    /// gained.
    fn update_sparse(&mut self, class: u8) {
        let Class { pages, live, .. } = self.classes[usize::from(class)];
        let slots = slots_of(class);
        let free = pages * slots - live;
        if free > 2 * slots + live / 2 {
            self.sparse |= 1 << class;
        } else if free <= slots + live / 4 {
            self.sparse &= !(1 << class);
        }
    }

    /// An emptiest page of a sparse class.
    pub(super) fn sparse_page(&mut self) -> Option<u32> {
        while self.sparse != 0 {
            let class = self.sparse.trailing_zeros() as usize;
            let emptiest = self.classes[class].bands.iter().copied().find(|&page| page != NO_PAGE);
            if emptiest.is_some() {
                return emptiest;
            }
            self.sparse &= !(1 << class);
        }
        None
    }

    /// An emptiest page whose items fit in free slots of other pages of its class, if there is one. O(classes).
    pub(super) fn page_under_pressure(&self) -> Option<u32> {
        let free =
            |(number, class): (u8, &Class)| (class.pages * slots_of(number)).saturating_sub(class.live);
        (0..BANDS).find_map(|band| {
            let classes = (0u8..).zip(&*self.classes);
            let can_be_emptied = classes
                .filter(|&(at, class)| class.bands[band] != NO_PAGE && free((at, class)) >= slots_of(at));
            let emptiest =
                can_be_emptied.max_by_key(|&(at, class)| free((at, class)) as usize * bytes_of(at));
            emptiest.map(|(_, class)| class.bands[band])
        })
    }

    /// A `wanted` page with nearly the fewest items: from the emptiest quarter of fill, the first of each class is
    /// compared. O(classes).
    pub(super) fn emptiest_page(&self, wanted: impl Fn(u32) -> bool) -> Option<u32> {
        (0..BANDS).find_map(|band| {
            let pages = self.classes.iter().map(|class| class.bands[band]);
            let pages = pages.filter(|&page| page != NO_PAGE && wanted(page));
            pages.min_by_key(|&page| self.of(page).live)
        })
    }

    /// Whether the items of a page fit in free slots of other pages of its class and larger classes, which take at
    /// most `bytes_max` more bytes. O(classes).
    pub(super) fn fits_in_larger(&self, page: u32, bytes_max: usize) -> bool {
        let Page { class, live, .. } = self.of(page);
        let mut left = u32::from(live);
        let mut bytes_left = bytes_max;
        for (at, Class { pages, live: taken, .. }) in (0u8..).zip(&*self.classes).skip(class.into()) {
            let own = if at == class { slots_of(class) - left } else { 0 };
            let moved = (pages * slots_of(at) - taken).saturating_sub(own).min(left);
            let more = moved as usize * (bytes_of(at) - bytes_of(class));
            let Some(less) = bytes_left.checked_sub(more) else { return false };
            (bytes_left, left) = (less, left - moved);
        }
        left == 0
    }

    /// Moves a page to the list of its fill, or to none if it is full.
    fn relink(&mut self, page: u32) {
        let record = self.records[page as usize];
        let band = band_of(&record);
        if band == record.band {
            return;
        }
        self.unlink(page);
        if band == NO_BAND {
            return;
        }
        let first = &mut self.classes[usize::from(record.class)].bands[usize::from(band)];
        let next = std::mem::replace(first, page);
        if let Some(next) = self.records.get_mut(next as usize) {
            next.prev = page;
        }
        let record = &mut self.records[page as usize];
        record.band = band;
        record.next = next;
        record.prev = NO_PAGE;
    }

    /// Removes a page from its list, if it is in one.
    fn unlink(&mut self, page: u32) {
        let Page { class, band, next, prev, .. } = self.records[page as usize];
        if band == NO_BAND {
            return;
        }
        match self.records.get_mut(prev as usize) {
            Some(prev) => prev.next = next,
            None => self.classes[usize::from(class)].bands[usize::from(band)] = next,
        }
        if let Some(next) = self.records.get_mut(next as usize) {
            next.prev = prev;
        }
        self.records[page as usize].band = NO_BAND;
    }
}

/// Whether the slots of a class are as large as those of `needed`, or up to a quarter larger.
#[inline]
pub(super) fn is_enough(class: u8, needed: u8) -> bool {
    class == needed || class > needed && bytes_of(class) <= bytes_of(needed) + bytes_of(needed) / 4
}

/// The band of a page by its fill; none if it is full.
fn band_of(page: &Page) -> u8 {
    let (live, slots) = (u32::from(page.live), slots_of(page.class));
    if live >= slots {
        return NO_BAND;
    }
    u8::from(4 * live >= slots) + u8::from(2 * live >= slots) + u8::from(4 * live >= 3 * slots)
}
