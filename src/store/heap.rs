//! Where items lie: slots of a few sizes in pages of 64 KiB, and whole blocks for what is larger.
//!
//! A handle is a slot's address in granules of 8 bytes: 32 bits reach 32 GiB. A page belongs to one class
//! of sizes while it has an item, and hands out its slots in order once, and then those that came back,
//! which form a list through the slots themselves: allocating touches no line but the page's record and
//! the slot that is about to be written.
//!
//! Items over 16 KiB keep only their header in a slot; key and value lie in a block outside.
//!
//! Not here: what an item means, who points at it, and when to compact.

use super::item::{self, Deadline, Item, Layout, Version, equal};
use super::large_objects::LargeObjects;
use super::pages::{Emptying, NO_SLOT, Page, Pages};
use super::size_classes::{
    GRANULE_BYTES, PAGE_BYTES, PAGE_CLASSES, PAGE_GRANULES, bytes_of, class_of, granules_of,
};
use crate::base::arena::{Arena, REGION_BYTES};
use crate::base::prefetch::prefetch;

/// Of the processors that we know. Elsewhere a guess costs a fetch.
const CACHE_LINE_BYTES: usize = 64;

/// Where a short key ends in its slot: 16 bytes behind the longest header.
const SHORT_KEY_END: usize = 28;

const REGION_GRANULES: u32 = PAGE_GRANULES * 4;
const _: () = assert!(REGION_GRANULES as usize * GRANULE_BYTES == REGION_BYTES);

/// The items' memory; see the module.
#[derive(Debug)]
pub(super) struct Heap {
    arena: Arena<PAGE_BYTES>,
    pages: Pages,
    large_objects: LargeObjects,
    live: usize,
}

impl Heap {
    pub(super) fn new() -> Self {
        Self { arena: Arena::new(), pages: Pages::new(), large_objects: LargeObjects::new(), live: 0 }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.arena.memory_bytes() + self.pages.memory_bytes() + self.large_objects.memory_bytes()
    }

    /// What [`Heap::memory_bytes`] grows by at most when this item is added, or takes the place of the
    /// one at `old`.
    pub(super) fn growth_bytes(&self, layout: Layout, old: Option<u32>) -> usize {
        if old.is_some_and(|old| self.fits(old, layout)) {
            return 0;
        }
        let class = class_of(layout.slot_bytes());
        let page = if self.pages.with_room(class).is_some() { 0 } else { self.page_growth_bytes(1) };
        page + if layout.is_outside() { self.large_objects.growth_bytes(layout.body_bytes()) } else { 0 }
    }

    /// What [`Heap::memory_bytes`] grows by at most when so many items are added, whatever their sizes,
    /// with so many bytes of keys and values in all.
    pub(super) fn growth_bytes_max(&self, items: usize, bytes: usize) -> usize {
        self.page_growth_bytes(self.pages_max(items, bytes))
            + self.large_objects.growth_bytes_max(items, bytes)
    }

    /// The pages that are taken for that at most.
    pub(super) fn pages_max(&self, items: usize, bytes: usize) -> usize {
        // A slot is at most a quarter larger than what is asked for, and a page is at least 9/10 slots.
        let slots = items * (item::HEADER_BYTES_MAX + GRANULE_BYTES) + bytes;
        (slots + slots / 2).div_ceil(PAGE_BYTES) + items.min(PAGE_CLASSES + 1)
    }

    /// Whether handles reach so many pages more.
    pub(super) fn has_space_for(&self, pages: usize) -> bool {
        pages <= self.arena.blocks_left()
    }

    /// Makes handles reach less far, for tests of their end.
    #[cfg(test)]
    pub(super) fn limit_regions(&mut self, regions_max: usize) {
        self.arena.limit_regions(regions_max);
    }

    /// What [`Heap::memory_bytes`] grows by at most in [`Heap::copy_with_deadline`].
    pub(super) fn growth_bytes_to_move(&self, handle: u32) -> usize {
        let old = Layout::read(self.slot(handle));
        let new = old.with_deadline();
        let class = class_of(new.slot_bytes());
        let page = if self.pages.with_room(class).is_some() { 0 } else { self.page_growth_bytes(1) };
        let goes_outside = new.is_outside() && !old.is_outside();
        page + if goes_outside { self.large_objects.growth_bytes(new.body_bytes()) } else { 0 }
    }

    /// Bytes of key and value that [`Heap::copy_with_deadline`] copies.
    pub(super) fn bytes_to_move(&self, handle: u32) -> usize {
        let layout = Layout::read(self.slot(handle));
        if layout.is_outside() { 0 } else { layout.body_bytes() }
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
        let block = if layout.is_outside() { Some(self.large_objects.add(key, value)?) } else { None };
        let Some(handle) = self.allocate(class_of(layout.slot_bytes())) else {
            block.into_iter().for_each(|block| self.large_objects.free(block));
            return None;
        };
        let slot = self.slot_mut(handle);
        layout.write(slot, deadline, version);
        let body = &mut slot[layout.body_at()..];
        match block {
            Some(block) => body[..4].copy_from_slice(&block.to_le_bytes()),
            None => item::write_body(body, key, value),
        }
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
        if !self.fits(handle, layout) {
            return false;
        }
        let slot = self.slot_mut(handle);
        layout.write(slot, deadline, version);
        item::write_body(&mut slot[layout.body_at()..], key, value);
        true
    }

    /// Writes an item into another slot, with its first deadline; its new handle. Both slots hold it until
    /// [`Heap::forget`] is told which of them is no longer meant. `None`, and nothing changed, as with
    /// [`Heap::add`].
    pub(super) fn copy_with_deadline(&mut self, handle: u32, deadline: Deadline) -> Option<u32> {
        let slot = self.slot(handle);
        let (old, version) = (Layout::read(slot), item::version(slot));
        let layout = old.with_deadline();
        let body_bytes = old.slot_bytes() - old.body_at();
        if layout.is_outside() != old.is_outside() {
            // Five bytes more, and it is too large for a slot.
            let (key, value) = self.body(handle).split_at(old.key_len());
            let (key, value) = (key.to_vec(), value.to_vec());
            return self.add(&key, &value, Some(deadline), version);
        }
        let new = self.allocate(class_of(layout.slot_bytes()))?;
        self.copy_bytes(handle, old.body_at(), new, layout.body_at(), body_bytes);
        layout.write(self.slot_mut(new), Some(deadline), version);
        Some(new)
    }

    /// Copies an item to another slot of its size without mapping memory; its new handle. Both slots hold
    /// it until [`Heap::forget`] is told which of them is no longer meant. `None`, and nothing changed,
    /// if there is no room.
    pub(super) fn copy(&mut self, handle: u32) -> Option<u32> {
        let class = self.pages.of(handle / PAGE_GRANULES).class;
        if self.pages.with_room(class).is_none() && !self.arena.has_room() {
            return None;
        }
        let new = self.allocate(class)?;
        self.copy_bytes(handle, 0, new, 0, bytes_of(class));
        Some(new)
    }

    /// Frees the slot of an item that was copied, and nothing but the slot.
    pub(super) fn forget(&mut self, handle: u32) {
        self.release(handle);
    }

    /// Frees an item's slot, and block if it has one. O(1): a large block waits for [`Heap::trim`].
    pub(super) fn free(&mut self, handle: u32) {
        let layout = Layout::read(self.slot(handle));
        if layout.is_outside() {
            self.large_objects.free(item::u32_at(self.slot(handle), layout.body_at()));
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

    /// A live item, if this is its key.
    #[inline]
    pub(super) fn item(&self, handle: u32, key: &[u8]) -> Option<Item<'_>> {
        let slot = self.slot(handle);
        let layout = Layout::read(slot);
        let (held, value) = self.body_of(slot, layout).split_at(layout.key_len());
        equal(held, key).then(|| Item { value, deadline: item::deadline(slot), version: item::version(slot) })
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
        let page = self.pages.get(handle / PAGE_GRANULES)?;
        let granules = granules_of(page.class)?;
        let (slot, rest) = (handle % PAGE_GRANULES / granules, handle % PAGE_GRANULES % granules);
        if rest != 0 || slot >= u32::from(page.fresh) {
            return None;
        }
        let slot = self.slot(handle);
        if item::is_live(slot) { item::deadline(slot) } else { None }
    }

    /// Begins to fetch the header of what is at `handle`, whatever it is, and the end of a short key.
    #[inline]
    pub(super) fn fetch_key(&self, handle: u32) {
        self.fetch_two(handle, SHORT_KEY_END);
    }

    /// Begins to fetch the first two cache lines of what is at `handle`, whatever it is.
    #[inline]
    pub(super) fn fetch(&self, handle: u32) {
        self.fetch_two(handle, CACHE_LINE_BYTES);
    }

    /// Whether there is a page that should be emptied. O(1).
    pub(super) fn is_sparse(&self) -> bool {
        self.pages.is_sparse() || self.arena.fenced().is_some() || self.arena.is_sparse()
    }

    /// The page to be emptied now, and from where on: the one begun, else an emptiest one of a class with
    /// too much room, else one of a region with few pages. From then on nothing is allocated in it, until
    /// [`Heap::stop_emptying`] or until it is empty. O(1), once in a region O(regions).
    pub(super) fn page_to_empty(&mut self) -> Option<Emptying> {
        if self.pages.emptying().is_some() {
            return self.pages.emptying();
        }
        let page = self.pages.sparse_page().or_else(|| self.page_of_sparse_region())?;
        Some(self.pages.begin_emptying(page))
    }

    /// Notes that the page being emptied has no live item before `slot`.
    pub(super) fn go_on_emptying(&mut self, slot: u32) {
        self.pages.go_on_emptying(slot);
    }

    /// Lets a page that could not be emptied be used again.
    pub(super) fn stop_emptying(&mut self) {
        self.pages.stop_emptying();
        self.arena.fence(None);
    }

    /// The first live item of a page in or after the given slot, with the slot after it; bounded by the
    /// slots that are not live before it.
    pub(super) fn next_live(&self, page: u32, slot: u32) -> Option<(u32, u32)> {
        let record = self.pages.of(page);
        let granules = granules_of(record.class)?;
        let mut slots = slot..u32::from(record.fresh);
        slots.find_map(|slot| {
            let handle = page * PAGE_GRANULES + slot * granules;
            item::is_live(self.slot(handle)).then_some((handle, slot + 1))
        })
    }

    /// Slots of a page that were ever in use since it came to its class.
    pub(super) fn slots_used(&self, page: u32) -> u32 {
        self.pages.of(page).fresh.into()
    }

    /// Bytes of the slot that an item lies in.
    pub(super) fn slot_bytes(&self, handle: u32) -> usize {
        bytes_of(self.pages.of(handle / PAGE_GRANULES).class)
    }

    /// Gives one region, slab or outside block back, with the items in it; false when there is none left.
    /// For a heap that nobody will ask again.
    pub(super) fn drop_step(&mut self) -> bool {
        self.pages = Pages::new();
        self.large_objects.drop_step() || self.arena.drop_region()
    }

    /// Gives one region, slab or block back to the system that is not in use, if [`Heap::has_idle`].
    pub(super) fn trim(&mut self) {
        if self.large_objects.has_idle() {
            return self.large_objects.trim();
        }
        self.arena.trim();
        self.pages.truncate(self.arena.blocks_end());
    }

    /// Whether memory waits to be given back. O(1).
    pub(super) const fn has_idle(&self) -> bool {
        self.large_objects.has_idle() || self.arena.has_idle()
    }

    /// Whether there is a slab of outside blocks that should be emptied. O(1).
    pub(super) const fn has_sparse_slab(&self) -> bool {
        self.large_objects.is_sparse()
    }

    /// Moves one outside block of the emptiest slab, if it can be; the bytes that it copied.
    pub(super) fn move_block(&mut self) -> usize {
        self.large_objects.compact()
    }

    /// Walks over every page and slot, checks them, and returns the handles of all live items. O(n).
    pub(super) fn audit(&self) -> Vec<u32> {
        let mut handles = Vec::with_capacity(self.live);
        self.arena.audit();
        let (mut large_objects, mut counted) = (0, Vec::new());
        for page in self.arena.all_blocks() {
            let record = self.pages.of(page);
            let before = handles.len();
            let mut slot = 0;
            while let Some((handle, next)) = self.next_live(page, slot) {
                let layout = Layout::read(self.slot(handle));
                assert_eq!(class_of(layout.slot_bytes()), record.class, "item of another class");
                large_objects += usize::from(layout.is_outside());
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
            assert!(first.is_some_and(|next| next > slot), "an item that compaction has passed by");
        }
        assert_eq!((handles.len(), large_objects), (self.live, self.large_objects.audit()));
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

    fn body(&self, handle: u32) -> &[u8] {
        let slot = self.slot(handle);
        self.body_of(slot, Layout::read(slot))
    }

    #[inline]
    fn body_of<'h>(&'h self, slot: &'h [u8], layout: Layout) -> &'h [u8] {
        let at = layout.body_at();
        if layout.is_outside() {
            return self.large_objects.bytes(item::u32_at(slot, at));
        }
        &slot[at..at + layout.body_bytes()]
    }

    /// A free slot of a class, from its fullest pages, else from a new one.
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
        Some(handle)
    }

    /// Frees a slot, and its page if that was its last.
    fn release(&mut self, handle: u32) {
        let page = handle / PAGE_GRANULES;
        let record = self.pages.of(page);
        let Some(granules) = granules_of(record.class) else { return };
        let word = u32::from(record.free) << 16;
        self.slot_mut(handle)[..4].copy_from_slice(&word.to_le_bytes());
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

    /// In a free slot, the free slot after it.
    fn next_free(&self, handle: u32) -> u16 {
        u16::try_from(item::u32_at(self.slot(handle), 0) >> 16).unwrap_or(NO_SLOT)
    }

    /// Whether the slot of a live item is the right one for another.
    fn fits(&self, handle: u32, layout: Layout) -> bool {
        let old = Layout::read(self.slot(handle));
        let inside = !layout.is_outside() && !old.is_outside();
        inside && class_of(layout.slot_bytes()) == class_of(old.slot_bytes())
    }

    fn page_of_sparse_region(&mut self) -> Option<u32> {
        let region = self.arena.fenced().or_else(|| self.arena.sparsest())?;
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

/// The region of a slot, and where in it the slot begins.
#[inline]
const fn place(handle: u32) -> (usize, usize) {
    ((handle / REGION_GRANULES) as usize, (handle % REGION_GRANULES) as usize * GRANULE_BYTES)
}

fn page_offset(handle: u32) -> usize {
    (handle % PAGE_GRANULES) as usize * GRANULE_BYTES
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "bounded by the tables of the test")]

    use super::{GRANULE_BYTES, Heap, PAGE_BYTES};
    use crate::base::rng::Rng;
    use crate::base::time::Instant;
    use crate::store::item::{self, Deadline, Layout, Version};

    #[test]
    fn handle_into_the_middle_of_a_slot_means_nothing_whatever_lies_there() {
        let deadline = Deadline::in_seconds(Instant::ZERO, 5);
        let mut heap = Heap::new();
        let small = [1, 2].map(|key| heap.add(&[key; 8], &[7; 10], deadline, Version(0)).unwrap());
        small.iter().for_each(|&handle| heap.free(handle));
        // The same page, now of another class, and there the very bytes of the small item's header.
        let mut value = vec![0; 700];
        let large = heap.add(b"key", &value, None, Version(0)).unwrap();
        assert_eq!((large, heap.deadline_if_live(small[1])), (small[0], None));
        let distance = (small[1] - small[0]) as usize * GRANULE_BYTES;
        let at = distance - Layout::new(3, 700, false).body_at() - 3;
        Layout::new(8, 10, true).write(&mut value[at..], deadline, Version(0));
        assert!(heap.overwrite(large, b"key", &value, None, Version(0)));
        assert!(item::is_live(heap.slot(small[1])) && heap.deadline(small[1]) == deadline);
        assert_eq!(heap.deadline_if_live(small[1]), None);
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
                let said = heap.growth_bytes_max(1, len + 8).min(heap.growth_bytes(layout, None));
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
        while heap.has_idle() {
            heap.trim();
        }
        assert!(heap.audit().is_empty());
        assert!(heap.memory_bytes() < 5 * PAGE_BYTES, "{}", heap.memory_bytes());
    }
}
