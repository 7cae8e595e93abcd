//! Large objects: the keys and values of items that are too large for a page.
//!
//! Objects up to 128 KiB are in slots of [`Slabs`]; each larger one has a map of its own. The allocator of the
//! process is not used, since it returns only the end of its heap: it kept 99 of 128 MiB after all values of 20 to
//! 100 KiB were deleted (`cargo test --release --test resident`).
//!
//! An object keeps its number when it is moved. Freed memory is idle until [`LargeObjects::trim`], since unmapping
//! costs some 150 µs per MiB, and touching fresh memory as much again: an idle map is reused for the next object of
//! about its size, or by a connection that receives one. A map in which a request was received is linked without a
//! copy, with the rest of the request before the value.
//!
//! Not here: the header of such an item, which is in a slot of the heap.

use super::item::{SLOT_BYTES_MAX, write_body};
use super::memory::ClassMemory;
use super::size_classes::{bytes_of, large_class_of};
use super::slabs::{Moved, Slabs};
use crate::base::chunked_vec::ChunkedVec;
use crate::base::memory::{self, SYSTEM_PAGE_BYTES};
use crate::base::shared_bytes::{Account, SharedBytes, SharedMemory, place_in};
use std::mem;
use std::rc::Rc;

/// Maps of single objects above which memory comes from the allocator: Linux allows 65,530 maps, and unmapping one
/// between others can split a map in two.
const MAPS_MAX: usize = 32 * 1024;

/// Bytes of idle maps kept for the next large objects. Idle maps above it are returned at once.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Idle blocks searched for one of the right size, at most.
const IDLE_SEARCHED_MAX: usize = 8;

/// Blocks without a map that one step of [`LargeObjects::drop_step`] drops.
const BLOCKS_PER_STEP: usize = 4_096;

/// The large objects; see the module.
#[derive(Debug)]
pub(super) struct LargeObjects {
    /// The blocks by number.
    blocks: ChunkedVec<Block>,
    /// One past the highest number in use or free.
    end: usize,
    free: Option<u32>,
    used: usize,
    /// The map that contains the request being executed.
    offered: Option<Rc<SharedMemory>>,
    /// The head of the list of idle blocks.
    idle: Option<u32>,
    idle_bytes: usize,
    /// A block became idle, or was used again, since [`LargeObjects::take_maps_used`].
    maps_used: bool,
    /// Bytes of the blocks in use that are not in slabs.
    own_memory_bytes: usize,
    maps: usize,
    slabs: Slabs,
}

#[derive(Debug)]
enum Block {
    InSlab { slab: u32, slot: u16, bytes: u32 },
    OwnMemory(Box<OwnMemory>),
    Idle { alone: Box<OwnMemory>, next: Option<u32> },
    Free { next: Option<u32> },
}

impl Default for Block {
    fn default() -> Self {
        Self::Free { next: None }
    }
}

/// An object with memory of its own, which is shared while it is sent, and the offsets of its key and value.
#[derive(Debug)]
struct OwnMemory {
    memory: Rc<SharedMemory>,
    key_at: u32,
    value_at: u32,
}

impl Drop for OwnMemory {
    fn drop(&mut self) {
        if self.is_shared() {
            // The store counted it so far.
            self.memory.count(self.held_bytes());
        }
    }
}

impl OwnMemory {
    /// Key and value of these lengths.
    fn key_and_value(&self, key_len: usize, value_len: usize) -> (&[u8], &[u8]) {
        let (key_at, value_at) = (self.key_at as usize, self.value_at as usize);
        let bytes = &self.memory;
        (&bytes[key_at..key_at + key_len], &bytes[value_at..value_at + value_len])
    }

    /// The same, mutable; empty while they are shared.
    fn key_and_value_mut(&mut self, key_len: usize, value_len: usize) -> (&mut [u8], &mut [u8]) {
        let (key_at, value_at) = (self.key_at as usize, self.value_at as usize);
        let Some(bytes) = Rc::get_mut(&mut self.memory) else { return (&mut [], &mut []) };
        let (front, value) = bytes.split_at_mut(value_at);
        (&mut front[key_at..key_at + key_len], &mut value[..value_len])
    }

    fn share_value(&self, value_len: usize, account: &Account) -> SharedBytes {
        let at = self.value_at as usize;
        self.memory.enter(account);
        SharedBytes::new(Rc::clone(&self.memory), at..at + value_len)
    }

    fn is_shared(&self) -> bool {
        Rc::strong_count(&self.memory) > 1
    }

    fn held_bytes(&self) -> usize {
        self.memory.len()
    }
}

impl LargeObjects {
    pub(super) fn new() -> Self {
        Self {
            blocks: ChunkedVec::new(),
            end: 0,
            free: None,
            used: 0,
            offered: None,
            idle: None,
            idle_bytes: 0,
            maps_used: false,
            own_memory_bytes: 0,
            maps: 0,
            slabs: Slabs::new(),
        }
    }

    /// Offers the map that contains a request while it is executed: a value that fills nearly all of the map is
    /// linked, not copied. `None` ends the offer.
    pub(super) fn offer(&mut self, map: Option<Rc<SharedMemory>>) {
        self.offered = map;
    }

    /// Whether key and value are in the offered map and fill nearly all of it.
    pub(super) fn is_offered(&self, key: &[u8], value: &[u8]) -> bool {
        self.place_in_offered(key, value).is_some()
    }

    /// Growth of [`LargeObjects::memory_bytes`] when the offered map is linked.
    pub(super) fn growth_bytes_of_offered(&self) -> usize {
        self.numbers_growth_bytes() + self.offered.as_ref().map_or(0, |map| map.len())
    }

    /// The value in the offered map, shared and counted in an account, if it fills nearly all of the map.
    pub(super) fn share_offered(&self, value: &[u8], account: &Account) -> Option<SharedBytes> {
        let map = self.offered.as_ref().filter(|map| is_about(value.len(), map.len()))?;
        let at = place_in(map, value)?;
        map.enter(account);
        map.count(map.len());
        Some(SharedBytes::new(Rc::clone(map), at..at + value.len()))
    }

    /// The offsets of key and value in the offered map.
    fn place_in_offered(&self, key: &[u8], value: &[u8]) -> Option<(u32, u32)> {
        let bytes = key.len() + value.len();
        let map = self.offered.as_ref().filter(|map| is_about(bytes, map.len()))?;
        if large_class_of(bytes).is_some() || self.maps >= MAPS_MAX {
            return None;
        }
        let (key_at, value_at) = (place_in(map, key)?, place_in(map, value)?);
        let is_in_front = key_at + key.len() <= value_at;
        is_in_front.then_some((number_of_bytes(key_at), number_of_bytes(value_at)))
    }

    /// Takes an idle map of about this many bytes.
    pub(super) fn take_idle(&mut self, bytes: usize) -> Option<Rc<SharedMemory>> {
        let (mut before, mut at) = (None, self.idle);
        for _ in 0..IDLE_SEARCHED_MAX {
            let number = at?;
            let Block::Idle { alone, next } = &self.blocks[number as usize] else { return None };
            let next = *next;
            if alone.memory.is_map() && is_about(bytes, alone.held_bytes()) {
                match before.map(|before: u32| &mut self.blocks[before as usize]) {
                    Some(Block::Idle { next: of_before, .. }) => *of_before = next,
                    Some(Block::InSlab { .. } | Block::OwnMemory(_) | Block::Free { .. }) => return None,
                    None => self.idle = next,
                }
                self.maps_used = true;
                let map = Rc::clone(&self.forget_idle(number)?.memory);
                map.count(0);
                return Some(map);
            }
            (before, at) = (at, next);
        }
        None
    }

    /// Frees an idle block that is in no list, and returns its memory, which is no longer counted.
    fn forget_idle(&mut self, number: u32) -> Option<Box<OwnMemory>> {
        let free = Block::Free { next: self.free.replace(number) };
        let Block::Idle { alone, .. } = mem::replace(&mut self.blocks[number as usize], free) else {
            return None;
        };
        self.idle_bytes -= alone.held_bytes();
        self.maps -= usize::from(alone.memory.is_map());
        self.forget_numbers();
        Some(alone)
    }

    /// Links or copies key and value into a block; returns its number. `None`, and nothing changed, if the system has
    /// no memory.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) -> Option<u32> {
        let bytes = key.len() + value.len();
        let next = |this: &Self| this.free.unwrap_or_else(|| number(this.end));
        let (number, block) = match large_class_of(bytes) {
            Some(class) => {
                let number = next(self);
                let (slab, slot) = self.slabs.take(class, number)?;
                write_body(self.slabs.slot_mut(slab, slot, bytes), key, value);
                (number, Block::InSlab { slab, slot, bytes: number_of_bytes(bytes) })
            }
            None => {
                let alone = self.alone(key, value)?;
                (next(self), Block::OwnMemory(alone))
            }
        };
        self.used += 1;
        if self.free.is_none() {
            self.end += 1;
            self.blocks.grow_to(self.end);
        }
        match mem::replace(&mut self.blocks[number as usize], block) {
            Block::Free { next } => self.free = next,
            Block::InSlab { .. } | Block::OwnMemory(_) | Block::Idle { .. } => {
                debug_assert!(false, "a free number in use");
            }
        }
        Some(number)
    }

    /// Frees a block. O(1); its memory is idle until [`LargeObjects::trim`].
    pub(super) fn free(&mut self, number: u32) {
        let block = &mut self.blocks[number as usize];
        match mem::take(block) {
            Block::InSlab { slab, slot, .. } => {
                *block = Block::Free { next: self.free.replace(number) };
                self.slabs.release(slab, slot);
            }
            Block::OwnMemory(alone) => {
                self.own_memory_bytes -= alone.held_bytes();
                if alone.is_shared() {
                    *block = Block::Free { next: self.free.replace(number) };
                    self.maps -= usize::from(alone.memory.is_map());
                } else {
                    self.idle_bytes += alone.held_bytes();
                    self.maps_used = true;
                    *block = Block::Idle { alone, next: self.idle.replace(number) };
                }
            }
            Block::Idle { .. } | Block::Free { .. } => {
                debug_assert!(false, "freed twice");
                return;
            }
        }
        self.used -= 1;
        self.forget_numbers();
    }

    /// Key and value of a block in use, of these lengths.
    pub(super) fn key_and_value(&self, number: u32, key_len: usize, value_len: usize) -> (&[u8], &[u8]) {
        match &self.blocks[number as usize] {
            Block::InSlab { slab, slot, .. } => {
                self.slabs.slot(*slab, *slot, key_len + value_len).split_at(key_len)
            }
            Block::OwnMemory(alone) => alone.key_and_value(key_len, value_len),
            Block::Idle { .. } | Block::Free { .. } => (&[], &[]),
        }
    }

    /// Shares the value of a block in use, of this length; `None` if it is in a slab, where it may be moved. It counts in
    /// the account once the block is freed.
    pub(super) fn share(&self, number: u32, value_len: usize, account: &Account) -> Option<SharedBytes> {
        match &self.blocks[number as usize] {
            Block::OwnMemory(alone) => Some(alone.share_value(value_len, account)),
            Block::InSlab { .. } | Block::Idle { .. } | Block::Free { .. } => None,
        }
    }

    /// Mutable key and value of a block in use, which must [`fit`](LargeObjects::fits).
    pub(super) fn key_and_value_mut(
        &mut self,
        number: u32,
        key_len: usize,
        value_len: usize,
    ) -> (&mut [u8], &mut [u8]) {
        if let Block::InSlab { slab, slot, .. } = self.blocks[number as usize] {
            return self.slabs.slot_mut(slab, slot, key_len + value_len).split_at_mut(key_len);
        }
        match &mut self.blocks[number as usize] {
            Block::OwnMemory(alone) => alone.key_and_value_mut(key_len, value_len),
            Block::InSlab { .. } | Block::Idle { .. } | Block::Free { .. } => (&mut [], &mut []),
        }
    }

    /// Bytes held for a block in use; in a slab those of its class, even if it was moved to a larger slot.
    pub(super) fn held_bytes(&self, number: u32) -> usize {
        match &self.blocks[number as usize] {
            Block::InSlab { bytes, .. } => large_class_of(*bytes as usize).map_or(0, bytes_of),
            Block::OwnMemory(alone) => alone.held_bytes(),
            Block::Idle { .. } | Block::Free { .. } => 0,
        }
    }

    /// Whether a block in use has about the memory that a key and value of these lengths would get, and is not
    /// shared.
    pub(super) fn fits(&self, number: u32, key_len: usize, value_len: usize) -> bool {
        let bytes = key_len + value_len;
        let class = large_class_of(bytes);
        match &self.blocks[number as usize] {
            Block::InSlab { bytes, .. } => class.is_some() && class == large_class_of(*bytes as usize),
            Block::OwnMemory(alone) => {
                let held = alone.held_bytes();
                let has_room = alone.value_at as usize + value_len <= held;
                class.is_none() && has_room && is_about(bytes, held) && !alone.is_shared()
            }
            Block::Idle { .. } | Block::Free { .. } => false,
        }
    }

    /// Sets the length of a block, which must [`fit`](LargeObjects::fits). Bytes within both lengths stay.
    pub(super) fn resize(&mut self, number: u32, len: usize) {
        if let Block::InSlab { bytes, .. } = &mut self.blocks[number as usize] {
            *bytes = number_of_bytes(len);
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.own_memory_bytes + self.idle_bytes + self.blocks.memory_bytes() + self.slabs.memory_bytes()
    }

    /// The size classes that hold memory.
    pub(super) fn classes(&self) -> impl Iterator<Item = ClassMemory> {
        self.slabs.classes()
    }

    /// Bytes of the blocks in use. O(1).
    pub(super) fn live_bytes(&self) -> usize {
        self.slabs.live_bytes() + self.own_memory_bytes
    }

    /// Growth of [`LargeObjects::memory_bytes`] at most for a block of `bytes`.
    pub(super) fn growth_bytes(&self, bytes: usize) -> usize {
        let numbers = self.numbers_growth_bytes();
        numbers
            + match large_class_of(bytes) {
                Some(class) => self.slabs.growth_bytes(class),
                None => bytes.next_multiple_of(SYSTEM_PAGE_BYTES).saturating_sub(self.idle_bytes),
            }
    }

    fn numbers_growth_bytes(&self) -> usize {
        if self.free.is_some() { 0 } else { self.blocks.growth_bytes(self.end + 1) }
    }

    /// Growth of [`LargeObjects::memory_bytes`] at most for `items` items with `bytes` bytes in total.
    pub(super) fn growth_bytes_max(&self, items: usize, bytes: usize) -> usize {
        let items = items.min(bytes / (SLOT_BYTES_MAX / 2));
        if items == 0 {
            return 0;
        }
        let rounded = bytes + bytes / 4 + items * SYSTEM_PAGE_BYTES;
        rounded + self.slabs.growth_bytes_max(items) + self.blocks.growth_bytes(self.end + items)
    }

    /// Returns one idle block or slab to the system, if [`LargeObjects::has_idle`].
    pub(super) fn trim(&mut self, keeps_maps: bool) {
        if self.has_idle_above(keeps_maps) {
            self.give_back();
        } else {
            self.slabs.trim();
        }
    }

    /// Whether there is an idle block or slab; with `keeps_maps`, not counting blocks within their limit. O(1).
    pub(super) const fn has_idle(&self, keeps_maps: bool) -> bool {
        self.has_idle_above(keeps_maps) || self.slabs.has_idle()
    }

    const fn has_idle_above(&self, keeps_maps: bool) -> bool {
        self.idle.is_some() && (!keeps_maps || self.idle_bytes > KEPT_BYTES_MAX)
    }

    /// Whether there is an idle block. O(1).
    pub(super) const fn has_idle_map(&self) -> bool {
        self.idle.is_some()
    }

    /// Whether a block became idle, or was used again, since the last call.
    pub(super) const fn take_maps_used(&mut self) -> bool {
        mem::replace(&mut self.maps_used, false)
    }

    /// Whether there is a slab that should be emptied. O(1).
    pub(super) const fn is_sparse(&self) -> bool {
        self.slabs.is_sparse()
    }

    /// Moves one block between slabs, see [`Slabs::move_one`]; returns the bytes copied.
    pub(super) fn compact(&mut self, pressure: bool) -> usize {
        let blocks = &self.blocks;
        let bytes_of = |number: u32| match &blocks[number as usize] {
            Block::InSlab { bytes, .. } => *bytes,
            Block::OwnMemory(_) | Block::Idle { .. } | Block::Free { .. } => 0,
        };
        let Some(Moved { number, slab, slot }) = self.slabs.move_one(pressure, bytes_of) else { return 0 };
        let bytes = bytes_of(number);
        self.blocks[number as usize] = Block::InSlab { slab, slot, bytes };
        bytes as usize
    }

    /// Returns one slab or block to the system, in use or not; false when none is left.
    pub(super) fn drop_step(&mut self) -> bool {
        if self.has_idle(false) {
            self.trim(false);
            return true;
        }
        if self.slabs.drop_last() {
            return true;
        }
        for _ in 0..BLOCKS_PER_STEP {
            let Some(last) = self.end.checked_sub(1) else {
                *self = Self::new();
                return false;
            };
            self.end = last;
            if let Block::OwnMemory(alone) = mem::take(&mut self.blocks[last]) {
                self.own_memory_bytes -= alone.held_bytes();
                self.maps -= usize::from(alone.memory.is_map());
                break;
            }
        }
        true
    }

    /// Checks all blocks and slabs, and returns the number of blocks in use.
    pub(super) fn audit(&self) -> usize {
        let (mut used, mut maps, mut own_memory_bytes, mut idle_bytes) = (0, 0, 0, 0);
        let mut in_slabs = Vec::new();
        for (number, block) in self.blocks.iter().enumerate() {
            match block {
                Block::InSlab { slab, slot, .. } => {
                    in_slabs.push((*slab, *slot, number));
                    used += 1;
                }
                Block::OwnMemory(alone) | Block::Idle { alone, .. } => {
                    let is_used = matches!(block, Block::OwnMemory(_));
                    used += usize::from(is_used);
                    *if is_used { &mut own_memory_bytes } else { &mut idle_bytes } += alone.held_bytes();
                    maps += usize::from(alone.memory.is_map());
                }
                Block::Free { .. } => {}
            }
        }
        assert_eq!((used, maps), (self.used, self.maps), "blocks");
        assert_eq!(
            (own_memory_bytes, idle_bytes),
            (self.own_memory_bytes, self.idle_bytes),
            "bytes of blocks"
        );
        self.slabs.audit(&in_slabs);
        used
    }

    /// Key and value in memory of their own: in the offered map, copied to an idle map of about the size, or copied
    /// to a new map, for which as much idle memory is unmapped first.
    fn alone(&mut self, key: &[u8], value: &[u8]) -> Option<Box<OwnMemory>> {
        let (memory, key_at, value_at) = self.memory_for(key, value)?;
        let alone = Box::new(OwnMemory { memory, key_at, value_at });
        self.own_memory_bytes += alone.held_bytes();
        self.maps += usize::from(alone.memory.is_map());
        Some(alone)
    }

    fn memory_for(&mut self, key: &[u8], value: &[u8]) -> Option<(Rc<SharedMemory>, u32, u32)> {
        if let Some((key_at, value_at)) = self.place_in_offered(key, value) {
            return Some((self.offered.take()?, key_at, value_at));
        }
        let bytes = (key.len() + value.len()).next_multiple_of(SYSTEM_PAGE_BYTES);
        let memory = if let Some(mut map) = self.take_idle(bytes) {
            write_body(Rc::get_mut(&mut map)?, key, value);
            map
        } else {
            let enough = self.idle_bytes.saturating_sub(bytes);
            while self.idle_bytes > enough && self.give_back() {}
            Rc::new(self.copied(bytes, key, value)?)
        };
        Some((memory, 0, number_of_bytes(key.len())))
    }

    /// Copies key and value into fresh memory.
    fn copied(&self, bytes: usize, key: &[u8], value: &[u8]) -> Option<SharedMemory> {
        if self.maps < MAPS_MAX {
            let mut map = memory::map(bytes)?;
            write_body(&mut map, key, value);
            return Some(map.into());
        }
        let mut body = Vec::new();
        if !memory::reserve(&mut body, key.len() + value.len()) {
            return None;
        }
        body.extend_from_slice(key);
        body.extend_from_slice(value);
        Some(body.into())
    }

    /// Unmaps the first idle block; false if there is none.
    fn give_back(&mut self) -> bool {
        let Some(number) = self.idle else { return false };
        if let Block::Idle { next, .. } = self.blocks[number as usize] {
            self.idle = next;
        }
        self.forget_idle(number).is_some()
    }

    /// Frees the table of numbers when no number is in use.
    fn forget_numbers(&mut self) {
        if self.used == 0 && self.idle.is_none() {
            self.blocks = ChunkedVec::new();
            self.end = 0;
            self.free = None;
        }
    }
}

/// Whether `bytes` bytes fill nearly all of a map of `held` bytes.
const fn is_about(bytes: usize, held: usize) -> bool {
    bytes <= held && held <= bytes + bytes / 8
}

/// An index of one of the tables.
fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or_else(|_| panic!("2^32 blocks of over 16 KiB"))
}

/// The length of a block in a slab.
fn number_of_bytes(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::LargeObjects;
    use crate::base::rng::Rng;

    const KEY: &[u8] = b"key";

    fn check(large_objects: &LargeObjects, number: u32, value: &[u8]) {
        assert!(large_objects.key_and_value(number, KEY.len(), value.len()) == (KEY, value));
    }

    #[test]
    fn few_blocks_left_in_many_slabs_are_compacted() {
        let mut rng = Rng::new(2);
        let mut large_objects = LargeObjects::new();
        let value = vec![7; 20_000];
        let numbers: Vec<u32> = (0..4_000).map(|_| large_objects.add(KEY, &value).unwrap()).collect();
        let before = large_objects.memory_bytes();
        let (left, gone): (Vec<u32>, Vec<u32>) = numbers.into_iter().partition(|_| rng.one_in(10));
        gone.into_iter().for_each(|number| large_objects.free(number));
        let mut copied = 0;
        while large_objects.is_sparse() {
            copied += large_objects.compact(false);
        }
        while large_objects.has_idle(false) {
            large_objects.trim(false);
        }
        assert!(
            copied > 0 && large_objects.memory_bytes() < before / 5,
            "{} of {before}",
            large_objects.memory_bytes()
        );
        left.iter().for_each(|&number| check(&large_objects, number, &value));
        assert_eq!(large_objects.audit(), left.len());
    }

    #[test]
    fn freed_maps_are_unmapped_in_later_steps() {
        let mut large_objects = LargeObjects::new();
        let value = vec![7; 1 << 20];
        let numbers: Vec<u32> = (0..20).map(|_| large_objects.add(KEY, &value).unwrap()).collect();
        let before = large_objects.memory_bytes();
        numbers.into_iter().for_each(|number| large_objects.free(number));
        assert_eq!((large_objects.memory_bytes(), large_objects.audit()), (before, 0));
        large_objects.trim(false);
        let step = before - large_objects.memory_bytes();
        assert!((1 << 20..1_100_000).contains(&step), "{step}");
        // A value added meanwhile reuses an idle map.
        assert!(large_objects.growth_bytes(KEY.len() + value.len()) == 0);
        large_objects.add(KEY, &value).unwrap();
        assert!(large_objects.memory_bytes() <= before - step);
        assert!(large_objects.drop_step());
        while large_objects.drop_step() {}
        assert_eq!(large_objects.memory_bytes(), LargeObjects::new().memory_bytes());
    }
}
