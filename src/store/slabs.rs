//! Slabs of 1 MiB, each cut into slots of one size class, for large objects up to 128 KiB. They are filled, emptied and
//! compacted as pages are.
//!
//! Not here: the numbers of the objects in the slots, which stay when an object is moved.

use super::memory::ClassMemory;
use super::pages::{Emptying, NO_SLOT, Pages};
use super::size_classes::{SLAB_BYTES, SLAB_SLOTS_MAX, bytes_of, slots_of};
use crate::base::chunked_vec::ChunkedVec;
use crate::base::memory;
use memmap2::MmapMut;
use std::mem;

/// Maximum growth, in bytes, of the blocks of a slab when they are moved to larger slots.
const MORE_BYTES_MAX: usize = SLAB_BYTES / 8;

/// The slabs; see the module.
#[derive(Debug)]
pub(super) struct Slabs {
    slabs: ChunkedVec<Option<Slab>>,
    /// One past the highest slab.
    end: usize,
    mapped: usize,
    /// The head of the list of idle slabs.
    idle: Option<u32>,
    /// Metadata of the slabs, as of pages.
    pages: Pages,
    /// Bytes of all slabs that were ever in use.
    touched_bytes: usize,
    /// Bytes of the lists of slots.
    lists_bytes: usize,
}

#[derive(Debug)]
struct Slab {
    map: MmapMut,
    slots: Vec<Slot>,
    /// Bytes up to the end of the last slot that was ever in use: these are resident.
    touched_bytes: usize,
    /// Of an idle slab: the one that became idle before it.
    next_idle: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    /// Holds the block with this number.
    Used(u32),
    /// Free, with the next free slot.
    Free(u16),
}

/// A block that was moved, and its new slot.
pub(super) struct Moved {
    pub(super) number: u32,
    pub(super) slab: u32,
    pub(super) slot: u16,
}

impl Slabs {
    pub(super) fn new() -> Self {
        Self {
            slabs: ChunkedVec::new(),
            end: 0,
            mapped: 0,
            idle: None,
            pages: Pages::new(),
            touched_bytes: 0,
            lists_bytes: 0,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.touched_bytes + self.lists_bytes + self.slabs.memory_bytes() + self.pages.memory_bytes()
    }

    /// Bytes of the slots in use. O(1).
    pub(super) const fn live_bytes(&self) -> usize {
        self.pages.live_bytes()
    }

    /// The size classes that hold memory.
    pub(super) fn classes(&self) -> impl Iterator<Item = ClassMemory> {
        self.pages.memory_of_classes(SLAB_BYTES)
    }

    /// Maximum growth of [`Slabs::memory_bytes`] by one more slot of a class.
    pub(super) fn growth_bytes(&self, class: u8) -> usize {
        match self.pages.with_room(class) {
            Some(slab) if self.pages.of(slab).free != NO_SLOT => 0,
            Some(_) => bytes_of(class),
            None => {
                let idle = self.idle.and_then(|slab| self.slabs[slab as usize].as_ref());
                let (tables, touched) =
                    idle.map_or_else(|| (self.tables_growth_bytes(1), 0), |slab| (0, slab.touched_bytes));
                tables + list_bytes(class) + bytes_of(class).saturating_sub(touched)
            }
        }
    }

    /// The same for one slot per block of `blocks` blocks of any classes, without the bytes of the slots themselves.
    pub(super) fn growth_bytes_max(&self, blocks: usize) -> usize {
        blocks * SLAB_SLOTS_MAX * size_of::<Slot>() + self.tables_growth_bytes(blocks)
    }

    fn tables_growth_bytes(&self, slabs: usize) -> usize {
        let end = self.end + slabs;
        self.slabs.growth_bytes(end) + self.pages.growth_bytes(end)
    }

    /// Allocates a slot for the block of this number, in the fullest slabs of its class, else in a new one. `None` if
    /// the system has no memory for a slab.
    pub(super) fn take(&mut self, class: u8, number: u32) -> Option<(u32, u16)> {
        let at = match self.pages.with_room(class) {
            Some(at) => at,
            None => self.add(class)?,
        };
        let record = self.pages.of(at);
        let slab = self.slabs[at as usize].as_mut()?;
        let slot = if record.free == NO_SLOT { record.fresh } else { record.free };
        let next_free = match slab.slots.get_mut(usize::from(slot)) {
            Some(held) => match mem::replace(held, Slot::Used(number)) {
                Slot::Free(next) => Some(next),
                Slot::Used(_) => None,
            },
            None => {
                slab.slots.push(Slot::Used(number));
                None
            }
        };
        let end = (usize::from(slot) + 1) * bytes_of(class);
        self.touched_bytes += end.saturating_sub(slab.touched_bytes);
        slab.touched_bytes = slab.touched_bytes.max(end);
        self.pages.slot_taken(at, next_free);
        Some((at, slot))
    }

    /// Frees a slot. A slab without used slots becomes idle.
    pub(super) fn release(&mut self, at: u32, slot: u16) {
        let free = self.pages.of(at).free;
        let Some(slab) = self.slabs[at as usize].as_mut() else { return };
        slab.slots[usize::from(slot)] = Slot::Free(free);
        if self.pages.slot_freed(at, slot) {
            self.pages.remove(at);
            self.lists_bytes -= slab.slots.capacity() * size_of::<Slot>();
            slab.slots = Vec::new();
            slab.next_idle = self.idle.replace(at);
        }
    }

    /// The first `bytes` bytes of a slot.
    pub(super) fn slot(&self, at: u32, slot: u16, bytes: usize) -> &[u8] {
        let begin = usize::from(slot) * bytes_of(self.pages.of(at).class);
        let map = self.slabs[at as usize].as_ref().map_or(&[][..], |slab| &slab.map);
        &map[begin..begin + bytes]
    }

    pub(super) fn slot_mut(&mut self, at: u32, slot: u16, bytes: usize) -> &mut [u8] {
        let begin = usize::from(slot) * bytes_of(self.pages.of(at).class);
        let map = self.slabs[at as usize].as_mut().map_or(&mut [][..], |slab| &mut slab.map);
        &mut map[begin..begin + bytes]
    }

    /// Whether there is an idle slab. O(1).
    pub(super) const fn has_idle(&self) -> bool {
        self.idle.is_some()
    }

    /// Returns one idle slab to the system, if there is one.
    pub(super) fn trim(&mut self) {
        if let Some(slab) = self.take_idle() {
            self.unmap(slab as usize);
        }
    }

    /// Whether there is a slab that should be emptied. O(1).
    pub(super) const fn is_sparse(&self) -> bool {
        self.pages.is_sparse()
    }

    /// Moves one block out of an emptiest slab of a sparse class; under pressure, of any class, if necessary to larger
    /// slots, which take at most an eighth of a slab more. `bytes_of_block` returns the length of a block by its
    /// number. `None` if there is no such slab, or no room.
    pub(super) fn move_one(&mut self, pressure: bool, bytes_of_block: impl Fn(u32) -> u32) -> Option<Moved> {
        let Emptying { page: from, slot } = match self.pages.emptying() {
            Some(emptying) => emptying,
            None => self.begin_emptying(pressure)?,
        };
        let moved = self.move_first(from, slot, pressure, bytes_of_block);
        if moved.is_none() {
            self.pages.stop_emptying();
        }
        moved
    }

    fn begin_emptying(&mut self, pressure: bool) -> Option<Emptying> {
        let pages = &mut self.pages;
        let slab = pages.sparse_page();
        let slab = slab.or_else(|| if pressure { pages.page_under_pressure() } else { None });
        let into_larger = || pages.emptiest_page(|slab| pages.fits_in_larger(slab, MORE_BYTES_MAX));
        let slab = slab.or_else(|| if pressure { into_larger() } else { None });
        slab.map(|slab| self.pages.begin_emptying(slab))
    }

    /// Moves the first block in or after a slot of the slab that is being emptied.
    fn move_first(
        &mut self,
        from: u32,
        slot: u32,
        pressure: bool,
        bytes_of_block: impl Fn(u32) -> u32,
    ) -> Option<Moved> {
        let slots = self.slabs[from as usize].as_ref().map_or(&[][..], |slab| &slab.slots);
        let (at, number) = (slot..).zip(slots.get(slot as usize..)?).find_map(|(at, slot)| match slot {
            Slot::Used(number) => Some((u16::try_from(at).ok()?, *number)),
            Slot::Free(_) => None,
        })?;
        let class = self.pages.of(from).class;
        let to_class = if pressure { self.pages.any_larger_with_room(class) } else { Some(class) };
        let to_class = to_class.filter(|&class| self.pages.with_room(class).is_some())?;
        let (to, to_slot) = self.take(to_class, number)?;
        let bytes = bytes_of_block(number) as usize;
        let (begin, to_begin) =
            (usize::from(at) * bytes_of(class), usize::from(to_slot) * bytes_of(to_class));
        let (source, target) = self.slabs.get_two_mut(from as usize, to as usize)?;
        let (source, target) = (source.as_ref()?, target.as_mut()?);
        target.map[to_begin..to_begin + bytes].copy_from_slice(&source.map[begin..begin + bytes]);
        self.pages.continue_emptying(u32::from(at) + 1);
        self.release(from, at);
        Some(Moved { number, slab: to, slot: to_slot })
    }

    /// Unmaps the last slab with the blocks in it; false if there is none.
    pub(super) fn drop_last(&mut self) -> bool {
        let Some(last) = self.end.checked_sub(1) else { return false };
        self.unmap(last);
        true
    }

    /// Checks the slabs against the blocks in them: slab, slot and number of each.
    pub(super) fn audit(&self, blocks: &[(u32, u16, usize)]) {
        let mut live = vec![0; self.end];
        for &(slab, slot, number) in blocks {
            let slots = self.slabs[slab as usize].as_ref().map(|slab| &slab.slots);
            let held = slots.map(|slots| slots[usize::from(slot)]);
            assert!(matches!(held, Some(Slot::Used(held)) if held as usize == number));
            live[slab as usize] += 1;
        }
        let slabs = || self.slabs.iter().flatten();
        let touched_bytes: usize = slabs().map(|slab| slab.touched_bytes).sum();
        let lists_bytes: usize = slabs().map(|slab| slab.slots.capacity() * size_of::<Slot>()).sum();
        assert_eq!((touched_bytes, lists_bytes), (self.touched_bytes, self.lists_bytes), "bytes of slabs");
        assert_eq!(slabs().count(), self.mapped, "slabs");
        let in_use = (0..).zip(live).filter(|(_, live)| *live > 0);
        self.pages.audit(in_use);
    }

    /// Adds an empty slab to a class: an idle one, else a new one.
    fn add(&mut self, class: u8) -> Option<u32> {
        let at = match self.take_idle() {
            Some(at) => at,
            None => self.map()?,
        };
        let slab = self.slabs[at as usize].as_mut()?;
        slab.slots.reserve_exact(slots_of(class) as usize);
        self.lists_bytes += slab.slots.capacity() * size_of::<Slot>();
        self.pages.add(at, class, self.end);
        Some(at)
    }

    fn map(&mut self) -> Option<u32> {
        let map = memory::map(SLAB_BYTES)?;
        let vacant = if self.mapped == self.end { None } else { self.slabs.iter().position(Option::is_none) };
        let at = vacant.unwrap_or(self.end);
        self.end = self.end.max(at + 1);
        self.slabs.grow_to(self.end);
        self.slabs[at] = Some(Slab { map, slots: Vec::new(), touched_bytes: 0, next_idle: None });
        self.mapped += 1;
        u32::try_from(at).ok()
    }

    fn take_idle(&mut self) -> Option<u32> {
        let at = self.idle?;
        self.idle = self.slabs[at as usize].as_mut()?.next_idle.take();
        Some(at)
    }

    /// Unmaps a slab with the blocks in it.
    fn unmap(&mut self, at: usize) {
        if let Some(slab) = self.slabs[at].take() {
            self.touched_bytes -= slab.touched_bytes;
            self.lists_bytes -= slab.slots.capacity() * size_of::<Slot>();
            self.mapped -= 1;
        }
        while self.end > 0 && self.slabs[self.end - 1].is_none() {
            self.end -= 1;
        }
        self.slabs.truncate(self.end);
        self.pages.truncate(self.end);
    }
}

/// Bytes of the list of slots of a slab of this class.
fn list_bytes(class: u8) -> usize {
    slots_of(class) as usize * size_of::<Slot>()
}
