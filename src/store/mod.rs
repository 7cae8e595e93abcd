//! The items of one node: keys, values, deadlines. Bounded in memory, exact in time.
//!
//! An item is never served past its deadline: every reading compares it with `now`. The timer wheel
//! only gives the memory back, in steps, through [`Store::reclaim`].
//!
//! A key is hashed once per request, by [`Store::key`]; the [`HashedKey`] then serves every call. The
//! hash is keyed with a secret, so nobody outside can choose keys that collide.
//!
//! Not here: who may write, what a command answers, whether another node holds the key.

mod hash;
mod item;

pub use hash::{HashSecret, HashedKey, KeyHash};
pub use item::{Deadline, Item, Version};

use crate::base::time::Instant;
use crate::base::wheel::{Popped, Wheel};
use item::Stored;
use slab::Slab;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Dead timers that are borne beyond one per live item, before they are sifted out.
const DEAD_TIMERS_SPARE: usize = 64 * 1024;

/// Why a write was refused; nothing was changed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// Bytes in use.
    pub used_bytes: u64,
    /// The limit that the write would have passed.
    pub limit_bytes: u64,
}

/// All items of a node.
#[derive(Debug)]
pub struct Store {
    secret: HashSecret,
    memory_max: u64,
    /// Handles of the items with this hash: nearly always one.
    index: HashMap<u64, Vec<u32>, BuildHasherDefault<AlreadyHashed>>,
    items: Slab<Stored>,
    /// Handles of items with a deadline. An entry counts only while its item has exactly that deadline.
    wheel: Wheel<u32>,
    item_bytes: usize,
    with_deadline: usize,
    expired: u64,
}

impl Store {
    /// An empty store that hashes with `secret` and holds at most `memory_max` bytes; 0: no limit.
    pub fn new(secret: HashSecret, memory_max: u64) -> Self {
        Self {
            secret,
            memory_max,
            index: HashMap::default(),
            items: Slab::new(),
            wheel: Wheel::new(),
            item_bytes: 0,
            with_deadline: 0,
            expired: 0,
        }
    }

    /// Changes the limit. Items above a lower one stay; writes are refused until there is room.
    pub fn set_memory_max(&mut self, memory_max: u64) {
        self.memory_max = memory_max;
    }

    /// Hashes a key for the other calls. Costs what xxh3 costs: some 5 ns for a short key.
    pub fn key<'k>(&self, bytes: &'k [u8]) -> HashedKey<'k> {
        HashedKey { hash: self.secret.hash(bytes), bytes }
    }

    /// The item of `key`, unless there is none or its deadline has come.
    pub fn get(&self, now: Instant, key: HashedKey<'_>) -> Option<Item<'_>> {
        let stored = &self.items[self.find(key)? as usize];
        stored.is_alive(now).then(|| stored.item())
    }

    /// Sets `key` to `value`, with a deadline or for ever; what it held before, deadline included, is gone.
    ///
    /// # Errors
    /// [`Full`] when it would pass the memory limit; the old item then stays as it was.
    pub fn set(
        &mut self,
        key: HashedKey<'_>,
        value: &[u8],
        deadline: Option<Deadline>,
        version: Version,
    ) -> Result<(), Full> {
        self.room_for(1, key.bytes.len() + value.len())?;
        let stored = Stored::new(key.bytes, value, deadline, version);
        self.item_bytes += stored.bytes();
        self.with_deadline += usize::from(deadline.is_some());
        let handle = if let Some(handle) = self.find(key) {
            let old = std::mem::replace(&mut self.items[handle as usize], stored);
            self.item_bytes -= old.bytes();
            self.with_deadline -= usize::from(old.deadline.is_some());
            handle
        } else {
            let handle = handle(self.items.insert(stored));
            self.index.entry(key.hash.0).or_default().push(handle);
            handle
        };
        if let Some(deadline) = deadline {
            self.wheel.insert(deadline.millis(), handle);
        }
        Ok(())
    }

    /// Whether `items` items with `bytes` bytes of keys and values in all can be set one after the other
    /// without an error, even if none of them replaces another.
    ///
    /// # Errors
    /// [`Full`] if not.
    pub fn room_for(&self, items: usize, bytes: usize) -> Result<(), Full> {
        let used_bytes = self.memory_bytes();
        let more = (items * Stored::OVERHEAD_BYTES + bytes) as u64;
        if self.memory_max != 0 && used_bytes.saturating_add(more) > self.memory_max {
            return Err(Full { used_bytes, limit_bytes: self.memory_max });
        }
        Ok(())
    }

    /// Removes `key`; true if it was there and its deadline had not come.
    pub fn remove(&mut self, now: Instant, key: HashedKey<'_>) -> bool {
        let Some(handle) = self.find(key) else { return false };
        let alive = self.items[handle as usize].is_alive(now);
        if alive {
            self.drop_item(handle);
        }
        alive
    }

    /// Gives `key` a new deadline; true if it was there and its old one had not come.
    pub fn set_deadline(&mut self, now: Instant, key: HashedKey<'_>, deadline: Deadline) -> bool {
        let Some(handle) = self.find(key) else { return false };
        let stored = &mut self.items[handle as usize];
        if !stored.is_alive(now) {
            return false;
        }
        self.with_deadline += usize::from(stored.deadline.is_none());
        stored.deadline = Some(deadline);
        self.wheel.insert(deadline.millis(), handle);
        true
    }

    /// Gives back the memory of items whose deadline has come, and of timers that no longer mean
    /// anything: at most `budget` timers are looked at. Call it while [`Store::has_work`].
    pub fn reclaim(&mut self, now: Instant, budget: u32) {
        for _ in 0..budget {
            match self.wheel.pop(now.millis()) {
                Popped::Due { deadline, payload: handle } => {
                    if counts(&self.items, deadline, handle) {
                        self.drop_item(handle);
                        self.expired += 1;
                    }
                }
                Popped::Moved => {}
                Popped::Idle => break,
            }
        }
        if self.has_dead_timers() {
            let items = &self.items;
            self.wheel.sift(budget, |deadline, handle| counts(items, deadline, handle));
        }
    }

    /// Whether [`Store::reclaim`] has something to do now.
    pub fn has_work(&self, now: Instant) -> bool {
        self.wheel.has_work(now.millis()) || self.has_dead_timers()
    }

    /// When [`Store::reclaim`] will next have something to do; `None`: never, as things stand.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.wheel.next_deadline().map(Instant::from_millis)
    }

    /// Items held, among them those whose deadline has come but whose memory is not yet reclaimed.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Items whose deadline came, since the start.
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// Bytes of items, index and timers.
    pub fn memory_bytes(&self) -> u64 {
        (self.item_bytes + self.wheel.memory_bytes()) as u64
    }

    fn has_dead_timers(&self) -> bool {
        self.wheel.len() > 2 * self.with_deadline + DEAD_TIMERS_SPARE
    }

    fn find(&self, key: HashedKey<'_>) -> Option<u32> {
        let handles = self.index.get(&key.hash.0)?;
        handles.iter().copied().find(|&handle| self.items[handle as usize].key() == key.bytes)
    }

    fn drop_item(&mut self, handle: u32) {
        let stored = self.items.remove(handle as usize);
        self.item_bytes -= stored.bytes();
        self.with_deadline -= usize::from(stored.deadline.is_some());
        let hash = self.secret.hash(stored.key()).0;
        if let Some(handles) = self.index.get_mut(&hash) {
            handles.retain(|&other| other != handle);
            if handles.is_empty() {
                self.index.remove(&hash);
            }
        }
    }
}

/// Whether a timer still means something: its item lives and has exactly that deadline.
fn counts(items: &Slab<Stored>, deadline: u64, handle: u32) -> bool {
    items.get(handle as usize).and_then(|stored| stored.deadline).is_some_and(|d| d.millis() == deadline)
}

fn handle(index: usize) -> u32 {
    u32::try_from(index).unwrap_or_else(|_| panic!("more than 2^32 items"))
}

/// The hasher of a map whose keys are hashes already.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "only hashes are keys here: {bytes:?}");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
