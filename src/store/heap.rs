//! The memory of items: slots of size classes in pages of 64 KiB, and large objects.
//!
//! A handle is a slot's address in granules of 8 bytes: 32 bits address 32 GiB. A page belongs to one size class
//! while it has an item. Its slots are allocated once in order, then from a free list that is linked through the
//! slots themselves: an allocation touches only the page's metadata and the slot that is about to be written.
//!
//! Items over 16 KiB have only their header in a slot; key and value are a large object.
//!
//! Not here: the index, the timers, and when to compact.

use super::item::{self, Expiry, Item, Layout, Marks, Version, equal};
use super::large_objects::LargeObjects;
use super::memory::ClassMemory;
use super::pages::{Emptying, NO_SLOT, Page, Pages, is_enough};
use super::size_classes::{
    GRANULE_BYTES, PAGE_BYTES, PAGE_CLASSES, PAGE_GRANULES, bytes_of, class_of, granules_of,
};
use crate::base::arena::{Arena, REGION_BYTES};
use crate::base::prefetch::{CACHE_LINE_BYTES, prefetch};
use crate::base::shared_bytes::{Account, SharedBytes, SharedMemory};
use std::rc::Rc;

/// The end of a short key in its slot: 16 bytes after the header without an expiry.
const SHORT_KEY_END: usize = 28;

const REGION_GRANULES: u32 = PAGE_GRANULES * 4;
const _: () = assert!(REGION_GRANULES as usize * GRANULE_BYTES == REGION_BYTES);

/// The memory of items; see the module.
#[derive(Debug)]
pub(super) struct Heap {
    arena: Arena<PAGE_BYTES>,
    pages: Pages,
    large_objects: LargeObjects,
    live: usize,
    /// Items may take slots of a larger class if their class has no free slot.
    takes_larger: bool,
    /// [`Heap::held_bytes`] of the items in the small queue of eviction.
    small_bytes: usize,
}

impl Heap {
    pub(super) fn new() -> Self {
        Self {
            arena: Arena::new(),
            pages: Pages::new(),
            large_objects: LargeObjects::new(),
            live: 0,
            takes_larger: false,
            small_bytes: 0,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let (pages, large_objects) = self.memory_by_kind();
        pages + large_objects
    }

    /// Bytes of pages with their metadata, and of large objects.
    #[inline]
    pub(super) fn memory_by_kind(&self) -> (usize, usize) {
        (self.arena.memory_bytes() + self.pages.memory_bytes(), self.large_objects.memory_bytes())
    }

    /// See [`LargeObjects::offer`].
    pub(super) fn offer(&mut self, map: Option<Rc<SharedMemory>>) {
        self.large_objects.offer(map);
    }

    /// See [`LargeObjects::share_offered`].
    pub(super) fn share_offered(&self, value: &[u8], account: &Account) -> Option<SharedBytes> {
        self.large_objects.share_offered(value, account)
    }

    /// See [`LargeObjects::take_idle`].
    pub(super) fn take_idle(&mut self, bytes: usize) -> Option<Rc<SharedMemory>> {
        self.large_objects.take_idle(bytes)
    }

    /// Whether a large key and value lie in the offered map.
    pub(super) fn is_offered(&self, key: &[u8], value: &[u8]) -> bool {
        self.large_objects.is_offered(key, value)
    }

    /// The size classes that hold memory.
    pub(super) fn classes(&self) -> impl Iterator<Item = ClassMemory> {
        self.pages.memory_of_classes(PAGE_BYTES).chain(self.large_objects.classes())
    }

    /// Bytes of the slots and large objects in use. O(1).
    pub(super) fn live_bytes(&self) -> usize {
        self.pages.live_bytes() + self.large_objects.live_bytes()
    }

    /// Growth of [`Heap::memory_bytes`] at most when an item is added, or replaces the one at `old`. `is_offered`: it
    /// lies in the offered map.
    pub(super) fn growth_bytes(&self, layout: Layout, old: Option<u32>, is_offered: bool) -> usize {
        if old.is_some_and(|old| self.fits(old, layout)) {
            return 0;
        }
        let class = self.class_for(layout);
        let page = if self.pages.with_room(class).is_some() { 0 } else { self.page_growth_bytes(1) };
        page + match (layout.is_large(), is_offered) {
            (false, _) => 0,
            (true, false) => self.large_objects.growth_bytes(layout.body_bytes()),
            (true, true) => self.large_objects.growth_bytes_of_offered(),
        }
    }

    /// Growth of [`Heap::memory_bytes`] at most when `items` items of any sizes are added, with `bytes` bytes of keys
    /// and values in total.
    pub(super) fn growth_bytes_max(&self, items: usize, bytes: usize) -> usize {
        self.page_growth_bytes(self.pages_max(items, bytes))
            + self.large_objects.growth_bytes_max(items, bytes)
    }

    /// Pages allocated for that at most.
    pub(super) fn pages_max(&self, items: usize, bytes: usize) -> usize {
        // A slot is at most a quarter larger than its item, and a page is at least 9/10 slots.
        let slots = items * (item::HEADER_BYTES_MAX + GRANULE_BYTES) + bytes;
        (slots + slots / 2).div_ceil(PAGE_BYTES) + items.min(PAGE_CLASSES + 1)
    }

    /// Whether handles can address `pages` more pages.
    pub(super) fn has_space_for(&self, pages: usize) -> bool {
        pages <= self.arena.blocks_left()
    }

    /// Limits the address space of handles, for tests.
    #[cfg(test)]
    pub(super) fn limit_regions(&mut self, regions_max: usize) {
        self.arena.limit_regions(regions_max);
    }

    /// Growth of [`Heap::memory_bytes`] at most when an item gets its first expiry.
    pub(super) fn growth_bytes_to_move(&self, handle: u32) -> usize {
        let old = Layout::read(self.slot(handle));
        let new = old.timed(true);
        if new.is_large() == old.is_large() && new.slot_bytes() <= self.slot_bytes(handle) {
            return 0;
        }
        let class = class_of(new.slot_bytes());
        let page = if self.pages.with_room(class).is_some() { 0 } else { self.page_growth_bytes(1) };
        let becomes_large = new.is_large() && !old.is_large();
        page + if becomes_large { self.large_objects.growth_bytes(new.body_bytes()) } else { 0 }
    }

    /// Bytes of a live item with its header.
    pub(super) fn item_bytes(&self, handle: u32) -> usize {
        Layout::read(self.slot(handle)).item_bytes()
    }

    /// Writes an item into a slot of its size; returns its handle. `None`, and nothing changed, if the system has no
    /// memory or all 32 GiB of handles are used. Bounded; copies key and value.
    pub(super) fn add(
        &mut self,
        key: &[u8],
        value: &[u8],
        expiry: Option<Expiry>,
        version: Version,
    ) -> Option<u32> {
        let layout = Layout::new(key.len(), value.len(), expiry.is_some());
        let block = if layout.is_large() { Some(self.large_objects.add(key, value)?) } else { None };
        let Some(handle) = self.allocate(self.class_for(layout)) else {
            block.into_iter().for_each(|block| self.large_objects.free(block));
            return None;
        };
        let slot = self.slot_mut(handle);
        layout.write(slot, expiry, version);
        let body = &mut slot[layout.body_at()..];
        match block {
            Some(block) => {
                body[..4].copy_from_slice(&block.to_le_bytes());
                self.small_bytes += self.large_objects.held_bytes(block);
            }
            None => item::write_body(body, key, value),
        }
        Some(handle)
    }

    /// The marks of a live item.
    pub(super) fn marks(&self, handle: u32) -> Marks {
        Marks::read(self.slot(handle))
    }

    /// Changes the marks of a live item. It must stay in the main queue if it is there.
    pub(super) fn set_marks(&mut self, handle: u32, marks: Marks) {
        if marks.is_main() && !self.marks(handle).is_main() {
            self.small_bytes -= self.held_bytes(handle);
        }
        marks.write(self.slot_mut(handle));
    }

    /// Counts a use of a live item for eviction: writes its header, unless three uses are counted.
    #[inline]
    pub(super) fn count_use(&mut self, handle: u32) {
        Marks::count_use(self.slot_mut(handle));
    }

    /// Bytes held for a live item: its slot and large object.
    pub(super) fn held_bytes(&self, handle: u32) -> usize {
        let slot = self.slot(handle);
        let layout = Layout::read(slot);
        let large = || self.large_objects.held_bytes(item::u32_at(slot, layout.body_at()));
        self.slot_bytes(handle) + if layout.is_large() { large() } else { 0 }
    }

    /// [`Heap::held_bytes`] of the items that are not in the main queue.
    pub(super) const fn small_bytes(&self) -> usize {
        self.small_bytes
    }

    /// Bytes of free slots.
    pub(super) fn free_bytes(&self) -> usize {
        self.memory_bytes().saturating_sub(self.live_bytes())
    }

    /// Overwrites value and version of an item by those of one of the same key and layout; false, and nothing changed,
    /// if the item has another layout, an expiry or wide lengths.
    #[inline]
    pub(super) fn overwrite_value(
        &mut self,
        handle: u32,
        layout: Layout,
        value: &[u8],
        version: Version,
    ) -> bool {
        layout.overwrite(self.slot_mut(handle), value, version)
    }

    /// Overwrites an item by another one of the same key, in place; false, and nothing changed, if the slot or large
    /// object does not have the size of the new item.
    pub(super) fn overwrite(
        &mut self,
        handle: u32,
        key: &[u8],
        value: &[u8],
        expiry: Option<Expiry>,
        version: Version,
    ) -> bool {
        let layout = Layout::new(key.len(), value.len(), expiry.is_some());
        let Some((held_key, held)) = self.resize_in_place(handle, layout, expiry, version) else {
            return false;
        };
        held_key.copy_from_slice(key);
        held.copy_from_slice(value);
        true
    }

    /// Changes the version and the length of the value of a live item, in place; added bytes are 0. False, and
    /// nothing changed, if the slot or large object does not have the new size.
    pub(super) fn resize_value(&mut self, handle: u32, value_len: usize, version: Version) -> bool {
        let slot = self.slot(handle);
        let (old, expiry) = (Layout::read(slot), item::expiry(slot));
        let layout = old.with_value_len(value_len);
        let Some((_, value)) = self.resize_in_place(handle, layout, expiry, version) else { return false };
        if value_len > old.value_len() {
            value[old.value_len()..].fill(0);
        }
        true
    }

    /// The mutable value of a live item.
    pub(super) fn value_mut(&mut self, handle: u32) -> &mut [u8] {
        let slot = self.slot(handle);
        let layout = Layout::read(slot);
        let at = layout.body_at();
        if layout.is_large() {
            let number = item::u32_at(slot, at);
            return self.large_objects.key_and_value_mut(number, layout.key_len(), layout.value_len()).1;
        }
        &mut self.slot_mut(handle)[at + layout.key_len()..at + layout.body_bytes()]
    }

    /// Copies an item to another slot with an expiry; returns the new handle. Both slots hold the item until
    /// [`Heap::free_slot`] frees one. `None`, and nothing changed, as [`Heap::add`].
    pub(super) fn copy_with_expiry(&mut self, handle: u32, expiry: Expiry) -> Option<u32> {
        let slot = self.slot(handle);
        let (old, version) = (Layout::read(slot), item::version(slot));
        let layout = old.timed(true);
        let marks = Marks::read(slot);
        let body_bytes = old.slot_bytes() - old.body_at();
        let new = if layout.is_large() == old.is_large() {
            let new = self.allocate(class_of(layout.slot_bytes()))?;
            self.copy_bytes(handle, old.body_at(), new, layout.body_at(), body_bytes);
            layout.write(self.slot_mut(new), Some(expiry), version);
            if marks.is_main() {
                self.small_bytes -= self.slot_bytes(new);
            }
            marks.write(self.slot_mut(new));
            new
        } else {
            // With an expiry the item is too large for a slot.
            let (key, value) = self.key_and_value(handle);
            let (key, value) = (key.to_vec(), value.to_vec());
            let new = self.add(&key, &value, Some(expiry), version)?;
            self.set_marks(new, marks);
            new
        };
        Some(new)
    }

    /// Copies an item to another slot of its size or a larger one, without mapping memory; returns the new handle.
    /// Both slots hold the item until [`Heap::free_slot`] frees one. `None`, and nothing changed, if there is no
    /// room.
    pub(super) fn copy(&mut self, handle: u32) -> Option<u32> {
        let class = self.pages.of(handle / PAGE_GRANULES).class;
        let new_class = self.class_with_room(class).or_else(|| self.arena.has_room().then_some(class))?;
        let new = self.allocate(new_class)?;
        self.copy_bytes(handle, 0, new, 0, bytes_of(class));
        if self.marks(new).is_main() {
            self.small_bytes -= bytes_of(new_class);
        }
        Some(new)
    }

    /// The first class with free slots: `class`, or a larger one if those are allowed.
    fn class_with_room(&self, class: u8) -> Option<u8> {
        let larger = (class..).take_while(|&other| usize::from(other) < PAGE_CLASSES);
        let allowed = larger.take(if self.takes_larger { PAGE_CLASSES } else { 1 });
        allowed.into_iter().find(|&class| self.pages.with_room(class).is_some())
    }

    /// Frees the slot of an item that was copied, but not its large object.
    pub(super) fn free_slot(&mut self, handle: u32) {
        self.release(handle);
    }

    /// Frees an item's slot, and its large object, whose memory is returned by [`Heap::trim`]. O(1).
    pub(super) fn free(&mut self, handle: u32) {
        let layout = Layout::read(self.slot(handle));
        if layout.is_large() {
            let number = item::u32_at(self.slot(handle), layout.body_at());
            if !self.marks(handle).is_main() {
                self.small_bytes -= self.large_objects.held_bytes(number);
            }
            self.large_objects.free(number);
        }
        self.release(handle);
    }

    /// The key of a live item.
    #[inline(always)]
    pub(super) fn key(&self, handle: u32) -> &[u8] {
        let slot = self.slot(handle);
        let layout = Layout::read(slot);
        self.body_of(slot, layout).0
    }

    /// A live item, if `key` is its key.
    #[inline(always)]
    pub(super) fn item(&self, handle: u32, key: &[u8]) -> Option<Item<'_>> {
        let slot = self.slot(handle);
        let layout = Layout::read(slot);
        let (held, value) = self.body_of(slot, layout);
        equal(held, key).then(|| Item { value, expiry: item::expiry(slot), version: item::version(slot) })
    }

    /// A live item.
    #[inline]
    pub(super) fn item_at(&self, handle: u32) -> Item<'_> {
        let slot = self.slot(handle);
        let layout = Layout::read(slot);
        let (_, value) = self.body_of(slot, layout);
        Item { value, expiry: item::expiry(slot), version: item::version(slot) }
    }

    /// A live item; counts a use.
    #[inline]
    pub(super) fn use_item(&mut self, handle: u32) -> Item<'_> {
        let layout = Layout::read(self.slot(handle));
        if layout.is_large() {
            self.count_use(handle);
            return self.item_at(handle);
        }
        let slot = self.slot_mut(handle);
        Marks::count_use(slot);
        let value = &slot[layout.body_at()..layout.slot_bytes()][layout.key_len()..];
        Item { value, expiry: item::expiry(slot), version: item::version(slot) }
    }

    /// The shared value of a live item, if it has a map of its own.
    pub(super) fn share_value(&self, handle: u32, account: &Account) -> Option<SharedBytes> {
        let slot = self.slot(handle);
        let layout = Layout::read(slot);
        let number = || item::u32_at(slot, layout.body_at());
        layout.is_large().then(|| self.large_objects.share(number(), layout.value_len(), account))?
    }

    /// The expiry of a live item.
    #[inline]
    pub(super) fn expiry(&self, handle: u32) -> Option<Expiry> {
        item::expiry(self.slot(handle))
    }

    /// The version of a live item.
    pub(super) fn version(&self, handle: u32) -> Version {
        item::version(self.slot(handle))
    }

    /// Changes, adds or removes the expiry of a live item in place; false, and nothing changed, if its slot has no
    /// room for one. Removing always succeeds.
    pub(super) fn set_expiry(&mut self, handle: u32, expiry: Option<Expiry>) -> bool {
        let slot_bytes = self.slot_bytes(handle);
        let slot = self.slot_mut(handle);
        let (old, version, marks) = (Layout::read(slot), item::version(slot), Marks::read(slot));
        let layout = old.timed(expiry.is_some());
        if layout.is_large() != old.is_large() || layout.slot_bytes() > slot_bytes {
            return false;
        }
        slot.copy_within(old.body_at()..old.slot_bytes(), layout.body_at());
        layout.write(slot, expiry, version);
        marks.write(slot);
        true
    }

    /// The expiry of the item at `handle`, which may be stale: `None` also if no slot begins there, or the slot is
    /// free.
    pub(super) fn expiry_if_live(&self, handle: u32) -> Option<Expiry> {
        let page = self.pages.get(handle / PAGE_GRANULES)?;
        let granules = granules_of(page.class)?;
        let (slot, rest) = (handle % PAGE_GRANULES / granules, handle % PAGE_GRANULES % granules);
        if rest != 0 || slot >= u32::from(page.fresh) {
            return None;
        }
        let slot = self.slot(handle);
        if item::is_live(slot) { item::expiry(slot) } else { None }
    }

    /// Prefetches the header at `handle`, which may be stale, and the end of a short key.
    #[inline]
    pub(super) fn fetch_key(&self, handle: u32) {
        self.fetch_two(handle, SHORT_KEY_END);
    }

    /// Prefetches the first two cache lines at `handle`, which may be stale.
    #[inline]
    pub(super) fn fetch(&self, handle: u32) {
        self.fetch_two(handle, CACHE_LINE_BYTES);
    }

    /// Whether there is a page that should be emptied. O(1).
    pub(super) fn is_sparse(&self) -> bool {
        self.pages.is_sparse() || self.arena.fenced().is_some() || self.arena.is_sparse()
    }

    /// The page to be emptied, and its next slot: the page begun before, else an emptiest one of a sparse class, else
    /// one of a sparse region; with `pressure`, of any class or region whose items fit elsewhere. `empties_regions`
    /// is false where no region could be emptied. The page is not allocated from until it is empty or
    /// [`Heap::stop_emptying`]. O(1), once per region O(regions).
    pub(super) fn page_to_empty(&mut self, pressure: bool, empties_regions: bool) -> Option<Emptying> {
        if self.pages.emptying().is_some() {
            return self.pages.emptying();
        }
        // Under pressure free pages did not help; a whole free region can.
        let page = if pressure { None } else { self.pages.sparse_page() };
        let page = page.or_else(|| if empties_regions { self.page_of_sparse_region(pressure) } else { None });
        let page = page.or_else(|| if pressure { self.pages.page_under_pressure() } else { None })?;
        Some(self.pages.begin_emptying(page))
    }

    /// Begins to empty a page with free slots and nearly the fewest items, if these are at most `items_max` and fit
    /// in other free slots of its class and larger classes, which take at most `bytes_max` more bytes.
    pub(super) fn empty_into_larger(&mut self, items_max: u16, bytes_max: usize) -> Option<u32> {
        self.stop_emptying();
        let page =
            self.pages.emptiest_page(|_| true).filter(|&page| self.pages.of(page).live <= items_max)?;
        self.pages.fits_in_larger(page, bytes_max).then(|| self.pages.begin_emptying(page).page)
    }

    /// Records that the page being emptied has no live item before `slot`.
    pub(super) fn continue_emptying(&mut self, slot: u32) {
        self.pages.continue_emptying(slot);
    }

    /// Stops emptying: the page is allocated from again.
    pub(super) fn stop_emptying(&mut self) {
        self.pages.stop_emptying();
        self.arena.fence(None);
    }

    /// The first live item of a page at or after `slot`, with the slot after it. O(free slots before it).
    pub(super) fn next_live(&self, page: u32, slot: u32) -> Option<(u32, u32)> {
        let record = self.pages.of(page);
        let granules = granules_of(record.class)?;
        let mut slots = slot..u32::from(record.fresh);
        slots.find_map(|slot| {
            let handle = page * PAGE_GRANULES + slot * granules;
            item::is_live(self.slot(handle)).then_some((handle, slot + 1))
        })
    }

    /// Slots of a page that were in use since it got its class.
    pub(super) fn slots_used(&self, page: u32) -> u32 {
        self.pages.of(page).fresh.into()
    }

    /// Bytes of an item's slot.
    pub(super) fn slot_bytes(&self, handle: u32) -> usize {
        bytes_of(self.pages.of(handle / PAGE_GRANULES).class)
    }

    /// Returns one region, slab or large object to the system, with the items in it; false when none is left. The
    /// heap is unusable after the first call.
    pub(super) fn drop_step(&mut self) -> bool {
        self.pages = Pages::new();
        self.large_objects.drop_step() || self.arena.drop_region()
    }

    /// Returns one idle region, slab or large object to the system, if [`Heap::has_idle`].
    pub(super) fn trim(&mut self, keeps_maps: bool) {
        if self.large_objects.has_idle(keeps_maps) {
            return self.large_objects.trim(keeps_maps);
        }
        self.arena.trim();
        self.pages.truncate(self.arena.blocks_end());
    }

    /// Makes the spare region idle, so that [`Heap::trim`] returns it too; false if there is none.
    pub(super) fn release_spare(&mut self) -> bool {
        self.arena.release_spare()
    }

    /// Whether there is idle memory; with `keeps_maps`, not counting idle maps within their limit. O(1).
    pub(super) const fn has_idle(&self, keeps_maps: bool) -> bool {
        self.large_objects.has_idle(keeps_maps) || self.arena.has_idle()
    }

    /// Whether there is an idle map of a large object. O(1).
    pub(super) const fn has_idle_map(&self) -> bool {
        self.large_objects.has_idle_map()
    }

    /// Whether a map became idle or was used again since the last call.
    pub(super) const fn take_maps_used(&mut self) -> bool {
        self.large_objects.take_maps_used()
    }

    /// Whether there is a slab that should be emptied. O(1).
    pub(super) const fn has_sparse_slab(&self) -> bool {
        self.large_objects.is_sparse()
    }

    /// Moves one large object out of the emptiest slab, if there is room for it; returns the copied bytes.
    pub(super) fn move_large_object(&mut self, pressure: bool) -> usize {
        self.large_objects.compact(pressure)
    }

    /// Checks every page and slot, and returns the handles of all live items. O(n).
    pub(super) fn audit(&self) -> Vec<u32> {
        let mut handles = Vec::with_capacity(self.live);
        self.arena.audit();
        let (mut large_objects, mut small_bytes, mut counted) = (0, 0, Vec::new());
        for page in self.arena.all_blocks() {
            let record = self.pages.of(page);
            let before = handles.len();
            let mut slot = 0;
            while let Some((handle, next)) = self.next_live(page, slot) {
                let layout = Layout::read(self.slot(handle));
                assert!(layout.slot_bytes() <= bytes_of(record.class), "item larger than its slot");
                large_objects += usize::from(layout.is_large());
                small_bytes += if self.marks(handle).is_main() { 0 } else { self.held_bytes(handle) };
                handles.push(handle);
                slot = next;
            }
            counted.push((page, handles.len() - before));
            let free = usize::from(record.fresh - record.live);
            assert_eq!(self.count_free_slots(page, record), free, "list of free slots");
        }
        self.pages.audit(counted.into_iter());
        if let Some(Emptying { page, slot }) = self.pages.emptying() {
            let first = self.next_live(page, 0).map(|(_, next)| next);
            assert!(first.is_some_and(|next| next > slot), "an item that compaction has passed");
        }
        assert_eq!((handles.len(), large_objects), (self.live, self.large_objects.audit()));
        assert_eq!(small_bytes, self.small_bytes, "bytes of the small queue");
        handles
    }

    #[inline]
    fn slot(&self, handle: u32) -> &[u8] {
        let (region, at) = place(handle);
        &self.arena.region(region)[at..]
    }

    fn slot_mut(&mut self, handle: u32) -> &mut [u8] {
        let (region, at) = place(handle);
        &mut self.arena.region_mut(region)[at..]
    }

    #[inline]
    fn fetch_two(&self, handle: u32, distance: usize) {
        let (region, at) = place(handle);
        let Some(region) = self.arena.region_if_mapped(region) else { return };
        prefetch(&region[at]);
        prefetch(&region[(at + distance) % REGION_BYTES]);
    }

    fn key_and_value(&self, handle: u32) -> (&[u8], &[u8]) {
        let slot = self.slot(handle);
        self.body_of(slot, Layout::read(slot))
    }

    #[inline]
    fn body_of<'h>(&'h self, slot: &'h [u8], layout: Layout) -> (&'h [u8], &'h [u8]) {
        let at = layout.body_at();
        if layout.is_large() {
            return self.large_body(item::u32_at(slot, at), layout);
        }
        slot[at..at + layout.body_bytes()].split_at(layout.key_len())
    }

    #[cold]
    fn large_body(&self, number: u32, layout: Layout) -> (&[u8], &[u8]) {
        self.large_objects.key_and_value(number, layout.key_len(), layout.value_len())
    }

    /// Writes another header of a live item and resizes its body, of which the common part keeps its bytes. Returns
    /// key and value; `None`, and nothing changed, if the slot or large object does not have the new size.
    #[inline]
    fn resize_in_place(
        &mut self,
        handle: u32,
        layout: Layout,
        expiry: Option<Expiry>,
        version: Version,
    ) -> Option<(&mut [u8], &mut [u8])> {
        let (region, at) = place(handle);
        let slot = &mut self.arena.region_mut(region)[at..];
        let (old, marks) = (Layout::read(slot), Marks::read(slot));
        let is_large = old.is_large();
        let fits = || {
            let class = self.pages.of(handle / PAGE_GRANULES).class;
            layout.is_large() == is_large && is_enough(class, class_of(layout.slot_bytes()))
        };
        if layout != old && !fits() {
            return None;
        }
        let number = item::u32_at(slot, old.body_at());
        if is_large && !self.large_objects.fits(number, layout.key_len(), layout.value_len()) {
            return None;
        }
        layout.write(slot, expiry, version);
        marks.write(slot);
        let body = &mut slot[layout.body_at()..];
        if !is_large {
            return Some(body[..layout.body_bytes()].split_at_mut(layout.key_len()));
        }
        body[..4].copy_from_slice(&number.to_le_bytes());
        self.large_objects.resize(number, layout.body_bytes());
        Some(self.large_objects.key_and_value_mut(number, layout.key_len(), layout.value_len()))
    }

    /// Allocates a slot of a class, in its fullest pages, else in a new one.
    fn allocate(&mut self, class: u8) -> Option<u32> {
        let page = match self.pages.with_room(class) {
            Some(page) => page,
            None => {
                let page = self.arena.take()?;
                self.pages.add(page, class, self.arena.blocks_end());
                page
            }
        };
        let record = self.pages.of(page);
        let slot = if record.free == NO_SLOT { record.fresh } else { record.free };
        let handle = page * PAGE_GRANULES + u32::from(slot) * granules_of(class)?;
        let next_free = (record.free != NO_SLOT).then(|| self.next_free(handle));
        self.pages.slot_taken(page, next_free);
        self.live += 1;
        self.small_bytes += bytes_of(class);
        Some(handle)
    }

    /// Frees a slot, and its page if the slot was the last one in use.
    fn release(&mut self, handle: u32) {
        let page = handle / PAGE_GRANULES;
        let record = self.pages.of(page);
        let Some(granules) = granules_of(record.class) else { return };
        let word = u32::from(record.free) << 16;
        let slot = self.slot_mut(handle);
        let is_main = Marks::read(slot).is_main();
        slot[..4].copy_from_slice(&word.to_le_bytes());
        if !is_main {
            self.small_bytes -= bytes_of(record.class);
        }
        self.live -= 1;
        let slot = u16::try_from(handle % PAGE_GRANULES / granules).unwrap_or(NO_SLOT);
        if self.pages.slot_freed(page, slot) {
            self.pages.remove(page);
            self.arena.give_back(page);
        }
    }

    /// Copies bytes from an offset in one slot to an offset in another.
    fn copy_bytes(&mut self, from: u32, from_at: usize, to: u32, to_at: usize, bytes: usize) {
        let (page, to_page) = (from / PAGE_GRANULES, to / PAGE_GRANULES);
        let (from_at, to_at) = (page_offset(from) + from_at, page_offset(to) + to_at);
        if page == to_page {
            self.arena.block_mut(page).copy_within(from_at..from_at + bytes, to_at);
            return;
        }
        let (source, target) = self.arena.two_blocks_mut(page, to_page);
        target[to_at..to_at + bytes].copy_from_slice(&source[from_at..from_at + bytes]);
    }

    /// The next free slot in the free list.
    fn next_free(&self, handle: u32) -> u16 {
        u16::try_from(item::u32_at(self.slot(handle), 0) >> 16).unwrap_or(NO_SLOT)
    }

    /// The class of slots for a new item.
    fn class_for(&self, layout: Layout) -> u8 {
        let class = class_of(layout.slot_bytes());
        let larger = if self.takes_larger { self.pages.larger_with_room(class) } else { None };
        larger.unwrap_or(class)
    }

    /// Allows new items to take slots up to a quarter larger than they need, and moved items any larger slots;
    /// returns the previous setting.
    pub(super) fn take_larger(&mut self, takes_larger: bool) -> bool {
        std::mem::replace(&mut self.takes_larger, takes_larger)
    }

    /// Whether the slot, and large object, of a live item has the size of another one.
    fn fits(&self, handle: u32, layout: Layout) -> bool {
        let old = Layout::read(self.slot(handle));
        let class = self.pages.of(handle / PAGE_GRANULES).class;
        let fits_large = || {
            let number = item::u32_at(self.slot(handle), old.body_at());
            self.large_objects.fits(number, layout.key_len(), layout.value_len())
        };
        layout.is_large() == old.is_large()
            && is_enough(class, class_of(layout.slot_bytes()))
            && (!layout.is_large() || fits_large())
    }

    fn page_of_sparse_region(&mut self, pressure: bool) -> Option<u32> {
        let region = self.arena.fenced().or_else(|| self.arena.sparsest(pressure))?;
        self.arena.fence(Some(region));
        self.arena.blocks_of(region).next()
    }

    fn page_growth_bytes(&self, pages: usize) -> usize {
        let pages_per_region = Arena::<PAGE_BYTES>::BLOCKS_PER_REGION as usize;
        let end = self.arena.blocks_end() + pages.next_multiple_of(pages_per_region);
        self.arena.growth_bytes_max(pages) + self.pages.growth_bytes(end)
    }

    fn count_free_slots(&self, page: u32, record: Page) -> usize {
        let granules = granules_of(record.class).unwrap_or(0);
        let mut slot = record.free;
        let mut count = 0;
        while slot != NO_SLOT {
            let handle = page * PAGE_GRANULES + u32::from(slot) * granules;
            assert!(!item::is_live(self.slot(handle)), "live slot in the list of free ones");
            slot = self.next_free(handle);
            count += 1;
        }
        count
    }
}

/// The region of a slot, and the slot's offset in it.
#[inline]
const fn place(handle: u32) -> (usize, usize) {
    ((handle / REGION_GRANULES) as usize, (handle % REGION_GRANULES) as usize * GRANULE_BYTES)
}

fn page_offset(handle: u32) -> usize {
    (handle % PAGE_GRANULES) as usize * GRANULE_BYTES
}

#[cfg(test)]
mod tests {

    use super::{GRANULE_BYTES, Heap};
    use crate::base::time::Instant;
    use crate::store::item::{self, Expiry, Layout, Version};

    #[test]
    fn handle_into_the_middle_of_a_slot_is_stale() {
        let expiry = Expiry::in_seconds(Instant::ZERO, 5);
        let mut heap = Heap::new();
        let small = [1, 2].map(|key| heap.add(&[key; 8], &[7; 10], expiry, Version(0)).unwrap());
        small.iter().for_each(|&handle| heap.free(handle));
        // The same page with another class, and at the stale handle the bytes of the small item's header.
        let mut value = vec![0; 700];
        let large = heap.add(b"key", &value, None, Version(0)).unwrap();
        assert_eq!((large, heap.expiry_if_live(small[1])), (small[0], None));
        let distance = (small[1] - small[0]) as usize * GRANULE_BYTES;
        let at = distance - Layout::new(3, 700, false).body_at() - 3;
        Layout::new(8, 10, true).write(&mut value[at..], expiry, Version(0));
        assert!(heap.overwrite(large, b"key", &value, None, Version(0)));
        assert!(item::is_live(heap.slot(small[1])) && heap.expiry(small[1]) == expiry);
        assert_eq!(heap.expiry_if_live(small[1]), None);
    }
}
