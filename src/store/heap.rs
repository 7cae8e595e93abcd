//! Where items lie: slots of a few sizes in pages of 64 KiB, and whole blocks for what is larger.
//!
//! A handle is a slot's address in granules of 8 bytes: 32 bits reach 32 GiB. A page belongs to one size
//! class while it has an item: every 8 bytes up to 512, then steps of at most 12.5 % (25 % for the last
//! few), each the largest size of which as many fit into a page. A page hands out its slots in order
//! once, and then those that came back, which form a list through the slots themselves: allocating
//! touches no line but the page's record and the slot that is about to be written. Pages with room are
//! kept by class and by quarter of fill: what is allocated fills the fullest ones, so the emptiest ones
//! empty, and compaction takes them first.
//!
//! Items over 16 KiB keep only their header in a slot; key and value lie in a block of their own.
//!
//! Not here: what an item means, who points at it, and when to compact.

use super::item::{self, Deadline, Item, Layout, SLOT_BYTES_MAX, Version};
use crate::base::arena::{Arena, REGION_BYTES};

const GRANULE_BYTES: usize = 8;
const PAGE_BYTES: usize = 64 * 1024;
const PAGE_GRANULES: u32 = (PAGE_BYTES / GRANULE_BYTES) as u32;
const REGION_GRANULES: u32 = (REGION_BYTES / GRANULE_BYTES) as u32;

/// Sizes of slots in granules, smallest first.
const SIZES: [u16; CLASSES] = class_sizes();

/// How many sizes there are.
pub(super) const CLASSES: usize = count_classes();

const EXACT_GRANULES_MAX: usize = 512 / GRANULE_BYTES;

/// Bands of pages with room: by quarters of their slots in use.
const BANDS: usize = 4;

/// In place of a page, a slot, a class or a band: none.
const NO_PAGE: u32 = u32::MAX;
const NO_SLOT: u16 = u16::MAX;
const NO_CLASS: u8 = u8::MAX;
const NO_BAND: u8 = u8::MAX;

/// One page's record.
#[derive(Debug, Clone, Copy)]
struct Page {
    class: u8,
    /// The list it is in; none if it is full or being emptied.
    band: u8,
    live: u16,
    /// Slots from here on were never in use since the page came to its class.
    fresh: u16,
    /// The first slot that came back.
    free: u16,
    next: u32,
    prev: u32,
}

const UNUSED: Page =
    Page { class: NO_CLASS, band: NO_BAND, live: 0, fresh: 0, free: NO_SLOT, next: NO_PAGE, prev: NO_PAGE };

/// One class's pages.
#[derive(Debug, Clone, Copy)]
struct Class {
    bands: [u32; BANDS],
    pages: u32,
    live: u32,
}

/// The items' memory; see the module.
#[derive(Debug)]
pub(super) struct Heap {
    arena: Arena,
    pages: Vec<Page>,
    classes: Box<[Class; CLASSES]>,
    /// Classes with so much room that their emptiest pages should be emptied, one bit each.
    sparse: u128,
    /// The page being emptied: nothing is allocated in it.
    emptying: Option<u32>,
    outside: Outside,
    live: usize,
}

impl Heap {
    pub(super) fn new() -> Self {
        let class = Class { bands: [NO_PAGE; BANDS], pages: 0, live: 0 };
        Self {
            arena: Arena::new(PAGE_BYTES),
            pages: Vec::new(),
            classes: Box::new([class; CLASSES]),
            sparse: 0,
            emptying: None,
            outside: Outside::default(),
            live: 0,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.arena.memory_bytes()
            + self.pages.capacity() * size_of::<Page>()
            + size_of_val(&*self.classes)
            + self.outside.memory_bytes()
    }

    /// What [`Heap::memory_bytes`] grows by at most when this item is added.
    pub(super) fn growth_bytes(&self, layout: Layout) -> usize {
        let class = &self.classes[class_of(layout.slot_bytes())];
        let page =
            if class.bands.iter().any(|&page| page != NO_PAGE) { 0 } else { self.page_growth_bytes(1) };
        page + if layout.is_outside() { self.outside.growth_bytes_max(1, layout.body_bytes()) } else { 0 }
    }

    /// What [`Heap::memory_bytes`] grows by at most when so many items are added, whatever their sizes,
    /// with so many bytes of keys and values in all.
    pub(super) fn growth_bytes_max(&self, items: usize, bytes: usize) -> usize {
        // A slot is at most a quarter larger than what is asked for, and a page is at least 9/10 slots.
        let slots = items * (item::HEADER_BYTES_MAX + GRANULE_BYTES) + bytes;
        let pages = (slots + slots / 2).div_ceil(PAGE_BYTES) + items.min(CLASSES + 1);
        self.page_growth_bytes(pages) + self.outside.growth_bytes_max(items, bytes)
    }

    /// Writes an item into a slot of its size; its handle. `None`, and nothing changed, if the system
    /// gives no more memory or the handles' 32 GiB are used. Bounded; copies key and value.
    pub(super) fn add(
        &mut self,
        key: &[u8],
        value: &[u8],
        deadline: Option<Deadline>,
        version: Version,
    ) -> Option<u32> {
        let layout = Layout::new(key.len(), value.len(), deadline.is_some());
        let handle = self.allocate(class_of(layout.slot_bytes()))?;
        self.write(handle, layout, deadline, version, key, value);
        Some(handle)
    }

    /// Writes another item in place of one whose slot has the right size; false, and nothing changed, if
    /// it has not.
    pub(super) fn overwrite(
        &mut self,
        handle: u32,
        key: &[u8],
        value: &[u8],
        deadline: Option<Deadline>,
        version: Version,
    ) -> bool {
        let layout = Layout::new(key.len(), value.len(), deadline.is_some());
        let old = Layout::read(self.slot(handle));
        if layout.is_outside() || old.is_outside() {
            return false;
        }
        if class_of(layout.slot_bytes()) != class_of(old.slot_bytes()) {
            return false;
        }
        self.write(handle, layout, deadline, version, key, value);
        true
    }

    /// Copies an item into another slot, with another deadline; its new handle. `None`, and nothing
    /// changed, as with [`Heap::add`].
    pub(super) fn add_with_deadline(&mut self, handle: u32, deadline: Deadline) -> Option<u32> {
        let slot = self.slot(handle);
        let (layout, version) = (Layout::read(slot), item::version(slot));
        let layout = Layout::new(layout.key_len(), layout.body_bytes() - layout.key_len(), true);
        // Items are copied through the stack in steps of what a slot holds.
        let body = self.body(handle);
        if layout.is_outside() {
            let (key, value) = body.split_at(layout.key_len());
            let (key, value) = (key.to_vec(), value.to_vec());
            return self.add(&key, &value, Some(deadline), version);
        }
        let mut copy = [0; SLOT_BYTES_MAX];
        let copy = &mut copy[..body.len()];
        copy.copy_from_slice(body);
        let (key, value) = copy.split_at(layout.key_len());
        self.add(key, value, Some(deadline), version)
    }

    /// Frees an item's slot, and block if it has one. Bounded.
    pub(super) fn free(&mut self, handle: u32) {
        let layout = Layout::read(self.slot(handle));
        if layout.is_outside() {
            self.outside.free(item::u32_at(self.slot(handle), layout.body_at()));
        }
        self.release(handle);
    }

    /// The key of a live item.
    #[inline]
    pub(super) fn key(&self, handle: u32) -> &[u8] {
        let slot = self.slot(handle);
        let layout = Layout::read(slot);
        &self.body_of(slot, layout)[..layout.key_len()]
    }

    /// A live item.
    #[inline]
    pub(super) fn item(&self, handle: u32) -> Item<'_> {
        let slot = self.slot(handle);
        let layout = Layout::read(slot);
        let value = &self.body_of(slot, layout)[layout.key_len()..];
        Item { value, deadline: item::deadline(slot), version: item::version(slot) }
    }

    /// The deadline of a live item.
    #[inline]
    pub(super) fn deadline(&self, handle: u32) -> Option<Deadline> {
        item::deadline(self.slot(handle))
    }

    /// Changes the deadline of a live item that has one; false, and nothing changed, if it has none.
    pub(super) fn set_deadline(&mut self, handle: u32, deadline: Deadline) -> bool {
        let timed = self.deadline(handle).is_some();
        if timed {
            item::set_deadline(self.slot_mut(handle), deadline);
        }
        timed
    }

    /// The deadline of the item at `handle`, which may be one of long ago: `None` also when there is no
    /// slot of a page's class, or no item in it.
    pub(super) fn deadline_if_live(&self, handle: u32) -> Option<Deadline> {
        let page = self.pages.get((handle / PAGE_GRANULES) as usize)?;
        let granules = u32::from(*SIZES.get(usize::from(page.class))?);
        let (slot, rest) = (handle % PAGE_GRANULES / granules, handle % PAGE_GRANULES % granules);
        if rest != 0 || slot >= u32::from(page.fresh) {
            return None;
        }
        let slot = self.slot(handle);
        if item::is_live(slot) { item::deadline(slot) } else { None }
    }

    /// The first word of what is at `handle`, whatever it is: for reading ahead.
    #[inline]
    pub(super) fn peek(&self, handle: u32) -> u32 {
        let at = (handle % REGION_GRANULES) as usize * GRANULE_BYTES;
        let region = self.arena.region((handle / REGION_GRANULES) as usize);
        region.get(at..at + 4).map_or(0, |bytes| item::u32_at(bytes, 0))
    }

    /// Whether there is a page that should be emptied. O(1).
    pub(super) fn is_sparse(&self) -> bool {
        self.emptying.is_some() || self.sparse != 0 || self.arena.fenced().is_some() || self.arena.is_sparse()
    }

    /// The page to be emptied now: the one begun, else an emptiest one of a class with too much room,
    /// else one of a region with few pages. From then on nothing is allocated in it, until
    /// [`Heap::stop_emptying`] or until it is empty. O(1), once in a region O(regions).
    pub(super) fn page_to_empty(&mut self) -> Option<u32> {
        if self.emptying.is_some() {
            return self.emptying;
        }
        let page = self.sparse_page().or_else(|| self.page_of_sparse_region())?;
        self.unlink(page);
        self.emptying = Some(page);
        Some(page)
    }

    /// Whether this is the page that is being emptied.
    pub(super) fn is_emptying(&self, page: u32) -> bool {
        self.emptying == Some(page)
    }

    /// Lets a page that could not be emptied be used again.
    pub(super) fn stop_emptying(&mut self) {
        if let Some(page) = self.emptying.take() {
            self.sparse &= !(1 << self.pages[page as usize].class);
            self.relink(page);
        }
        self.arena.fence(None);
    }

    /// The first live item of a page in or after the given slot, with the slot after it; bounded by the
    /// slots that are not live before it.
    pub(super) fn next_live(&self, page: u32, slot: u32) -> Option<(u32, u32)> {
        let record = self.pages[page as usize];
        let granules = u32::from(*SIZES.get(usize::from(record.class))?);
        let mut slots = slot..u32::from(record.fresh);
        slots.find_map(|slot| {
            let handle = page * PAGE_GRANULES + slot * granules;
            item::is_live(self.slot(handle)).then_some((handle, slot + 1))
        })
    }

    /// Moves an item to another slot of its size without mapping memory; its new handle, its old one
    /// being free. `None`, and nothing changed, if there is no room.
    pub(super) fn relocate(&mut self, handle: u32) -> Option<u32> {
        let class = self.pages[(handle / PAGE_GRANULES) as usize].class;
        let roomy = self.classes[usize::from(class)].bands.iter().any(|&page| page != NO_PAGE);
        if !roomy && !self.arena.has_room() {
            return None;
        }
        let new = self.allocate(usize::from(class))?;
        let bytes = usize::from(SIZES[usize::from(class)]) * GRANULE_BYTES;
        let (from, to) = self.arena.two_blocks_mut(handle / PAGE_GRANULES, new / PAGE_GRANULES);
        let (at, to_at) = (page_offset(handle), page_offset(new));
        to[to_at..to_at + bytes].copy_from_slice(&from[at..at + bytes]);
        self.release(handle);
        Some(new)
    }

    /// Bytes of the slot that an item lies in.
    pub(super) fn slot_bytes(&self, handle: u32) -> usize {
        class_bytes(usize::from(self.pages[(handle / PAGE_GRANULES) as usize].class))
    }

    /// Gives one region or one outside block back, with the items in it; false when there is none left.
    /// For a heap that nobody will ask again.
    pub(super) fn drop_step(&mut self) -> bool {
        self.pages = Vec::new();
        self.outside.drop_step() || self.arena.drop_region()
    }

    /// Regions mapped for pages now.
    pub(super) fn regions(&self) -> usize {
        self.arena.blocks_end() / self.arena.blocks_per_region() as usize
    }

    /// Walks over every page and slot, checks them, and returns the handles of all live items. O(n).
    pub(super) fn audit(&self) -> Vec<u32> {
        let mut handles = Vec::with_capacity(self.live);
        let mut per_class = [(0u32, 0u32); CLASSES];
        let mut outside = 0;
        for page in self.arena.all_blocks() {
            let record = self.pages[page as usize];
            let before = handles.len();
            let mut slot = 0;
            while let Some((handle, next)) = self.next_live(page, slot) {
                let layout = Layout::read(self.slot(handle));
                assert_eq!(class_of(layout.slot_bytes()), usize::from(record.class), "item of another class");
                outside += usize::from(layout.is_outside());
                handles.push(handle);
                slot = next;
            }
            assert_eq!(handles.len() - before, usize::from(record.live), "live slots of a page");
            assert!(record.live > 0, "an empty page is given back");
            assert_eq!(self.free_slots(page), usize::from(record.fresh - record.live), "list of free slots");
            let class = usize::from(record.class);
            assert_eq!(record.band, if self.emptying == Some(page) { NO_BAND } else { band_of(&record) });
            per_class[class].0 += 1;
            per_class[class].1 += u32::from(record.live);
        }
        for (class, counted) in self.classes.iter().zip(per_class) {
            assert_eq!((class.pages, class.live), counted, "pages and items of a class");
            for (band, &first) in class.bands.iter().enumerate() {
                let mut page = first;
                while page != NO_PAGE {
                    assert_eq!(usize::from(self.pages[page as usize].band), band, "page in another's list");
                    page = self.pages[page as usize].next;
                }
            }
        }
        assert_eq!((handles.len(), outside), (self.live, self.outside.audit()));
        handles
    }

    #[inline]
    fn slot(&self, handle: u32) -> &[u8] {
        let at = (handle % REGION_GRANULES) as usize * GRANULE_BYTES;
        &self.arena.region((handle / REGION_GRANULES) as usize)[at..]
    }

    fn slot_mut(&mut self, handle: u32) -> &mut [u8] {
        let at = (handle % REGION_GRANULES) as usize * GRANULE_BYTES;
        &mut self.arena.region_mut((handle / REGION_GRANULES) as usize)[at..]
    }

    fn body(&self, handle: u32) -> &[u8] {
        let slot = self.slot(handle);
        self.body_of(slot, Layout::read(slot))
    }

    #[inline]
    fn body_of<'h>(&'h self, slot: &'h [u8], layout: Layout) -> &'h [u8] {
        let at = layout.body_at();
        if layout.is_outside() {
            return self.outside.bytes(item::u32_at(slot, at));
        }
        &slot[at..at + layout.body_bytes()]
    }

    fn write(
        &mut self,
        handle: u32,
        layout: Layout,
        deadline: Option<Deadline>,
        version: Version,
        key: &[u8],
        value: &[u8],
    ) {
        let block = layout.is_outside().then(|| self.outside.add(key, value));
        let slot = self.slot_mut(handle);
        layout.write(slot, deadline, version);
        let body = &mut slot[layout.body_at()..];
        match block {
            Some(block) => body[..4].copy_from_slice(&block.to_le_bytes()),
            None => {
                body[..key.len()].copy_from_slice(key);
                body[key.len()..key.len() + value.len()].copy_from_slice(value);
            }
        }
    }

    /// A free slot of a class, from its fullest pages, else from a new one.
    fn allocate(&mut self, class: usize) -> Option<u32> {
        let fullest = self.classes[class].bands.iter().rev().copied().find(|&page| page != NO_PAGE);
        let page = match fullest {
            Some(page) => page,
            None => self.add_page(class)?,
        };
        let granules = u32::from(SIZES[class]);
        let record = &mut self.pages[page as usize];
        let slot = if record.free == NO_SLOT {
            record.fresh += 1;
            record.fresh - 1
        } else {
            record.free
        };
        record.live += 1;
        let handle = page * PAGE_GRANULES + u32::from(slot) * granules;
        if self.pages[page as usize].free == slot {
            let after = item::u32_at(self.slot(handle), 0) >> 16;
            self.pages[page as usize].free = u16::try_from(after).unwrap_or(NO_SLOT);
        }
        self.classes[class].live += 1;
        self.live += 1;
        self.relink(page);
        Some(handle)
    }

    /// Frees a slot, and its page if that was its last.
    fn release(&mut self, handle: u32) {
        let page = handle / PAGE_GRANULES;
        let record = self.pages[page as usize];
        let class = usize::from(record.class);
        let granules = u32::from(SIZES[class]);
        let word = u32::from(record.free) << 16;
        self.slot_mut(handle)[..4].copy_from_slice(&word.to_le_bytes());
        self.live -= 1;
        self.classes[class].live -= 1;
        let record = &mut self.pages[page as usize];
        record.free = u16::try_from(handle % PAGE_GRANULES / granules).unwrap_or(NO_SLOT);
        record.live -= 1;
        if record.live == 0 {
            self.free_page(page);
        } else if self.emptying != Some(page) {
            self.relink(page);
        }
        self.judge(class);
    }

    fn add_page(&mut self, class: usize) -> Option<u32> {
        let page = self.arena.take()?;
        let len = self.arena.blocks_end();
        if self.pages.len() < len {
            self.pages.reserve_exact(len - self.pages.len());
            self.pages.resize(len, UNUSED);
        }
        // Classes are fewer than 128.
        self.pages[page as usize] = Page { class: class as u8, ..UNUSED };
        self.classes[class].pages += 1;
        Some(page)
    }

    fn free_page(&mut self, page: u32) {
        self.unlink(page);
        if self.emptying == Some(page) {
            self.emptying = None;
        }
        self.classes[usize::from(self.pages[page as usize].class)].pages -= 1;
        self.pages[page as usize] = UNUSED;
        self.arena.give_back(page);
        let len = self.arena.blocks_end();
        if len < self.pages.len() {
            self.pages.truncate(len);
            self.pages.shrink_to_fit();
        }
    }

    /// Puts a page into the list that its fill says, or into none if it is full.
    fn relink(&mut self, page: u32) {
        let record = self.pages[page as usize];
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
        if let Some(next) = self.pages.get_mut(next as usize) {
            next.prev = page;
        }
        let record = &mut self.pages[page as usize];
        record.band = band;
        record.next = next;
        record.prev = NO_PAGE;
    }

    /// Takes a page out of the list it is in, if it is in one.
    fn unlink(&mut self, page: u32) {
        let Page { class, band, next, prev, .. } = self.pages[page as usize];
        if band == NO_BAND {
            return;
        }
        match self.pages.get_mut(prev as usize) {
            Some(prev) => prev.next = next,
            None => self.classes[usize::from(class)].bands[usize::from(band)] = next,
        }
        if let Some(next) = self.pages.get_mut(next as usize) {
            next.prev = prev;
        }
        self.pages[page as usize].band = NO_BAND;
    }

    /// Notes whether a class has too much room: above two pages and half as much as its items take; no
    /// longer below one page and a quarter. An emptiest page is then at most two thirds full, so freeing
    /// a slot by moving items costs at most two moves.
    fn judge(&mut self, class: usize) {
        let Class { pages, live, .. } = self.classes[class];
        let slots = u32::from(slots_of(class));
        let free = pages * slots - live;
        if free > 2 * slots + live / 2 {
            self.sparse |= 1 << class;
        } else if free <= slots + live / 4 {
            self.sparse &= !(1 << class);
        }
    }

    fn sparse_page(&mut self) -> Option<u32> {
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

    fn page_of_sparse_region(&mut self) -> Option<u32> {
        let region = self.arena.fenced().or_else(|| self.arena.sparsest())?;
        self.arena.fence(Some(region));
        self.arena.blocks_of(region).next()
    }

    fn page_growth_bytes(&self, pages: usize) -> usize {
        let records = (pages.div_ceil(self.arena.blocks_per_region() as usize) + 1)
            * self.arena.blocks_per_region() as usize
            * size_of::<Page>();
        self.arena.growth_bytes_max(pages) + records
    }

    fn free_slots(&self, page: u32) -> usize {
        let record = self.pages[page as usize];
        let granules = u32::from(SIZES[usize::from(record.class)]);
        let next = |&slot: &u16| {
            let word = item::u32_at(self.slot(page * PAGE_GRANULES + u32::from(slot) * granules), 0);
            assert_eq!(word & 1, 0, "live slot in the list of free ones");
            u16::try_from(word >> 16).ok().filter(|&next| next != NO_SLOT)
        };
        let first = (record.free != NO_SLOT).then_some(record.free);
        std::iter::successors(first, next).take(usize::from(NO_SLOT)).count()
    }
}

/// Keys and values over 16 KiB, each in a block of its own.
#[derive(Debug, Default)]
struct Outside {
    blocks: Vec<Block>,
    first_free: Option<u32>,
    used: usize,
    bytes: usize,
}

#[derive(Debug)]
enum Block {
    Used(Box<[u8]>),
    Free { next: Option<u32> },
}

impl Outside {
    fn add(&mut self, key: &[u8], value: &[u8]) -> u32 {
        let mut bytes = Vec::with_capacity(key.len() + value.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        self.bytes += bytes.len();
        self.used += 1;
        let block = Block::Used(bytes.into());
        if let Some(at) = self.first_free
            && let Block::Free { next } = self.blocks[at as usize]
        {
            self.first_free = next;
            self.blocks[at as usize] = block;
            return at;
        }
        self.blocks.push(block);
        // A number below 2^32: each block is over 16 KiB.
        (self.blocks.len() - 1) as u32
    }

    fn free(&mut self, at: u32) {
        let free = Block::Free { next: self.first_free };
        if let Block::Used(bytes) = std::mem::replace(&mut self.blocks[at as usize], free) {
            self.bytes -= bytes.len();
            self.used -= 1;
            self.first_free = Some(at);
        }
        if self.used == 0 {
            *self = Self::default();
        }
    }

    fn bytes(&self, at: u32) -> &[u8] {
        match &self.blocks[at as usize] {
            Block::Used(bytes) => bytes,
            Block::Free { .. } => &[],
        }
    }

    fn memory_bytes(&self) -> usize {
        self.bytes + self.blocks.capacity() * size_of::<Block>()
    }

    /// What [`Outside::memory_bytes`] grows by at most.
    fn growth_bytes_max(&self, items: usize, bytes: usize) -> usize {
        let items = items.min(bytes / (SLOT_BYTES_MAX / 2));
        if items == 0 { 0 } else { bytes + (self.blocks.len() + 2 * items + 4) * size_of::<Block>() }
    }

    fn drop_step(&mut self) -> bool {
        let Some(block) = self.blocks.pop() else { return false };
        if let Block::Used(bytes) = block {
            self.bytes -= bytes.len();
        }
        true
    }

    /// Blocks in use, counted.
    fn audit(&self) -> usize {
        let lens = self.blocks.iter().filter_map(|block| match block {
            Block::Used(bytes) => Some(bytes.len()),
            Block::Free { .. } => None,
        });
        assert_eq!((lens.clone().count(), lens.clone().sum()), (self.used, self.bytes), "outside blocks");
        self.used
    }
}

/// The band of a page by its fill; none if it is full.
fn band_of(page: &Page) -> u8 {
    let (live, slots) = (u32::from(page.live), u32::from(slots_of(usize::from(page.class))));
    if live >= slots {
        return NO_BAND;
    }
    u8::from(4 * live >= slots) + u8::from(2 * live >= slots) + u8::from(4 * live >= 3 * slots)
}

fn page_offset(handle: u32) -> usize {
    (handle % PAGE_GRANULES) as usize * GRANULE_BYTES
}

/// The class with the smallest slots of at least so many bytes, which are at most those of the largest.
fn class_of(bytes: usize) -> usize {
    let granules = bytes.div_ceil(GRANULE_BYTES).max(2);
    if granules <= EXACT_GRANULES_MAX {
        return granules - 2;
    }
    SIZES.partition_point(|&size| usize::from(size) < granules)
}

fn class_bytes(class: usize) -> usize {
    usize::from(SIZES[class]) * GRANULE_BYTES
}

/// Slots of a page of that class.
fn slots_of(class: usize) -> u16 {
    SLOTS[class]
}

const SLOTS: [u16; CLASSES] = {
    let mut slots = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        slots[class] = (PAGE_GRANULES / SIZES[class] as u32) as u16;
        class += 1;
    }
    slots
};

/// The size after `granules`: one granule more, or 12.5 %, rounded up to the largest of which as many
/// fit into a page.
const fn next_size(granules: usize) -> usize {
    if granules < EXACT_GRANULES_MAX {
        return granules + 1;
    }
    let wanted = granules + granules / 8;
    let fit = PAGE_GRANULES as usize / wanted;
    PAGE_GRANULES as usize / fit
}

const fn count_classes() -> usize {
    let (mut granules, mut classes) = (2, 1);
    while granules < SLOT_BYTES_MAX / GRANULE_BYTES {
        granules = next_size(granules);
        classes += 1;
    }
    classes
}

const fn class_sizes() -> [u16; CLASSES] {
    let mut sizes = [0; CLASSES];
    let (mut granules, mut class) = (2, 0);
    while class < CLASSES {
        sizes[class] = granules as u16;
        granules = next_size(granules);
        class += 1;
    }
    sizes
}

const _: () = assert!(CLASSES < 128 && SIZES[CLASSES - 1] as usize * GRANULE_BYTES == SLOT_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::{CLASSES, Heap, PAGE_BYTES, class_bytes, class_of};
    use crate::base::rng::Rng;
    use crate::store::item::{Layout, SLOT_BYTES_MAX, Version};

    #[test]
    fn slot_is_never_smaller_and_at_most_a_quarter_larger_than_asked() {
        for bytes in 12..=SLOT_BYTES_MAX {
            let slot = class_bytes(class_of(bytes));
            assert!(slot >= bytes && (slot <= bytes + 7 || slot * 4 <= bytes * 5 + 12), "{bytes}: {slot}");
            assert!(bytes > 512 || slot < bytes + 8);
        }
        for class in 0..CLASSES {
            assert!(PAGE_BYTES % class_bytes(class) < PAGE_BYTES / 100);
        }
    }

    #[test]
    fn items_keep_their_bytes_while_others_come_and_go() {
        let mut rng = Rng::new(1);
        let mut heap = Heap::new();
        let mut items: Vec<(u32, Vec<u8>)> = Vec::new();
        for step in 0..20_000u64 {
            if rng.below(100) < if step < 12_000 { 60 } else { 40 } {
                let span = 1 << rng.below(16);
                let len = rng.below(span) as usize;
                let bytes = vec![step as u8; len];
                let key = step.to_le_bytes();
                let layout = Layout::new(8, len, false);
                let said = heap.growth_bytes_max(1, len + 8).min(heap.growth_bytes(layout));
                let said = heap.memory_bytes() + said;
                let handle = heap.add(&key, &bytes, None, Version(step)).unwrap();
                assert!(heap.memory_bytes() <= said);
                items.push((handle, [&key[..], &bytes].concat()));
            } else if !items.is_empty() {
                let at = rng.below(items.len() as u64) as usize;
                let (handle, bytes) = items.swap_remove(at);
                assert_eq!(heap.body(handle), bytes);
                assert_eq!(heap.key(handle), &bytes[..8]);
                heap.free(handle);
            }
            if step % 1_000 == 0 {
                assert_eq!(heap.audit().len(), items.len());
            }
        }
        for (handle, _) in items {
            heap.free(handle);
        }
        assert!(heap.audit().is_empty());
        assert!(heap.memory_bytes() < 5 * PAGE_BYTES, "{}", heap.memory_bytes());
    }
}
