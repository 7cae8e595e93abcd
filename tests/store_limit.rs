//! A store at its memory limit: freed memory can be used again at once, in any size, and operations that free memory
//! are never refused.
//!
//! Not here: that the limit holds under random operations; see `store_oracle`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use olivia::base::rng::Rng;
use olivia::base::time::Instant;
use olivia::store::{Eviction, Expiry, Full, HashSecret, RemoveOutcome, Store, Version};

const LIMIT_BYTES: u64 = 16 << 20;

struct World {
    store: Store,
    rng: Rng,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let store = Store::new(HashSecret::draw(&mut Rng::new(1)), LIMIT_BYTES);
        Self { store, rng: Rng::new(2), now: Instant::ZERO }
    }

    /// Sets a key; whether it was not refused.
    fn set(&mut self, id: u64, len: usize, expiry: Option<Expiry>) -> bool {
        let (key, value) = (id.to_be_bytes(), vec![7; len]);
        let done = self.store.set(self.now, self.store.key(&key), &value, expiry, Version::MAX).is_ok();
        let limit = self.store.memory_max();
        let most = limit + limit / 32 + limit / 16;
        assert!(self.store.memory_bytes() <= most, "{}", self.store.memory_bytes());
        done
    }

    fn remove(&mut self, id: u64) {
        let key = id.to_be_bytes();
        let outcome = self.store.remove(self.now, self.store.key(&key), Version::MAX);
        assert_eq!(outcome, RemoveOutcome::Removed);
    }

    /// Sets keys from `first` on until one is refused; returns the id of that one.
    fn fill(&mut self, first: u64, len: usize) -> u64 {
        (first..).find(|&id| !self.set(id, len, None)).unwrap()
    }

    /// Of the keys from `first` to `end`, one in `one_in` at random is removed; returns how many.
    fn remove_some(&mut self, first: u64, end: u64, one_in: u64) -> u64 {
        let ids: Vec<u64> = (first..end).filter(|_| self.rng.one_in(one_in)).collect();
        ids.iter().for_each(|&id| self.remove(id));
        ids.len() as u64
    }
}

#[test]
fn after_deletions_as_many_values_of_the_same_size_can_be_set() {
    for len in [20, 100, 1_000, 4_096, 15_000, 20_000, 30_000, 60_000, 100_000, 300_000] {
        let strides = [None, Some(2), Some(3), Some(4)];
        for every in &strides[..if len < 20_000 { 1 } else { strides.len() }] {
            let mut world = World::new();
            let end = world.fill(0, len);
            let removed = match every {
                None => world.remove_some(0, end, 4),
                Some(every) => (0..end).step_by(*every).map(|id| world.remove(id)).count() as u64,
            };
            let refused = (end..end + removed).filter(|&id| !world.set(id, len, None)).count() as u64;
            assert!(
                refused * 100 <= removed,
                "{len} B, one in {every:?} removed: {refused} of {removed} refused"
            );
            world.store.audit();
        }
    }
}

#[test]
fn after_deletions_values_of_another_size_can_be_set_at_once() {
    for (old, new) in [
        (100, 130),
        (100, 20),
        (100, 60_000),
        (100, 1_000_000),
        (4_096, 100),
        (60_000, 100),
        (30_000, 100_000),
    ] {
        let mut world = World::new();
        let end = world.fill(0, old);
        let full = world.store.live_bytes();
        world.remove_some(0, end, 2);
        let last = world.fill(end, new);
        let live = world.store.live_bytes();
        println!("{old} B, then {new} B: {} set, {live} bytes live, before {full}", last - end);
        assert!(
            live + 2 * new as u64 >= full * 97 / 100,
            "{old} B, then {new} B: {live} bytes live of {full}"
        );
        world.store.audit();
    }
}

#[test]
fn expired_items_make_room_at_once() {
    let mut world = World::new();
    let expiry = Expiry::in_seconds(world.now, 5);
    let end = (0..).find(|&id| !world.set(id, 100, expiry)).unwrap();
    world.now = Instant::from_millis(5_000);
    let refused = (end..2 * end).filter(|&id| !world.set(id, 100, None)).count() as u64;
    assert!(refused <= end / 50, "{refused} of {end} refused");
    world.store.audit();
}

#[test]
fn expiry_and_smaller_values_are_not_refused_at_the_limit() {
    for len in [100, 4_000, 15_000, 60_000] {
        let mut world = World::new();
        let end = world.fill(0, len);
        // As many as the reserve is for.
        for id in (0..end).take(16_000) {
            let key = id.to_be_bytes();
            let expiry = Expiry::in_seconds(world.now, 1_000 + id);
            let result = world.store.set_expiry(world.now, world.store.key(&key), expiry);
            assert_eq!(result, Ok(true), "{len} B: item {id} of {end}");
        }
        for id in 0..end {
            assert!(world.set(id, len / 2, None), "{len} B: item {id} of {end}");
        }
        world.store.audit();
    }
}

#[test]
fn large_value_is_replaced_by_one_of_its_size_at_the_limit() {
    for len in [20_000, 100_000, 300_000] {
        let mut world = World::new();
        let end = world.fill(0, len);
        assert!((0..end).all(|id| world.set(id, len, None) && world.set(id, len - 1, None)), "{len} B");
        world.store.audit();
    }
}

#[test]
fn key_that_is_read_again_and_again_is_never_evicted() {
    const HOT: u64 = u64::MAX;
    let mut rng = Rng::new(77);
    let all = [100, 1_000, 17_000, 25_000, 40_000, 53_000, 71_000, 98_000, 120_000];
    for round in 0..100 {
        let limit = (4 << 20) << rng.below(2);
        let sizes: Vec<usize> = all.iter().copied().filter(|_| rng.one_in(4)).chain([62_000]).collect();
        let (every, has_ttl) = (1 + rng.below(6), rng.one_in(3));
        let mut world = World::new();
        world.store.set_memory_max(limit);
        world.store.set_eviction(Eviction::AnyItem);
        world.store.reserve(rng.below(1 << 20));
        world.set(HOT, 8, None);
        let expiry = Expiry::in_seconds(world.now, 1_000).filter(|_| has_ttl);
        let mut written = 0;
        for (id, &len) in (0..).zip(sizes.iter().cycle()) {
            world.set(id, len, expiry);
            if rng.one_in(4) {
                world.store.reclaim(world.now, 64);
            }
            written += len as u64;
            let key = HOT.to_be_bytes();
            if id % every == 0 {
                let found = world.store.access(world.now, world.store.key(&key)).is_some();
                assert!(found, "round {round}: {limit} B, values of {sizes:?} B: lost after {id} items");
            }
            if written > 3 * limit {
                break;
            }
        }
        world.store.audit();
    }
}

/// A store of 8 MiB that evicts, to which values of `len` bytes were written until twice as much was written; the id
/// after the last, and how many are younger than the small queue.
fn evicting(len: usize) -> (World, u64, u64) {
    let mut world = World::new();
    world.store.set_memory_max(8 << 20);
    world.store.set_eviction(Eviction::AnyItem);
    let bytes = len as u64 + 48;
    let end = (16 << 20) / bytes;
    (0..end).for_each(|id| assert!(world.set(id, len, None)));
    (world, end, (8 << 20) / 16 / bytes)
}

impl World {
    fn has(&self, id: u64) -> bool {
        self.store.get(self.now, self.store.key(&id.to_be_bytes())).is_some()
    }
}

/// Also in a small store of many size classes, where whole pages are emptied.
#[test]
fn key_younger_than_the_small_queue_is_not_evicted() {
    for (mebibytes, shortest, sizes) in [
        (8, 200, 1),
        (8, 1_000, 1),
        (8, 40_000, 1),
        (2, 20, 1_480),
        (4, 20, 1_480),
        (4, 20, 15_000),
        (8, 20, 1_480),
        (8, 20, 15_000),
        (8, 20, 30_000),
    ] {
        let mut world = World::new();
        let limit = mebibytes << 20;
        world.store.set_memory_max(limit);
        world.store.set_eviction(Eviction::AnyItem);
        let len = |id: u64| shortest + usize::try_from(id * 7_919 % sizes).unwrap();
        let (mut youngest, mut bytes, mut lost) = (0, 0, 0);
        let end = 8 * limit / (shortest as u64 + sizes / 2);
        for id in 0..end {
            assert!(world.set(id, len(id), None));
            bytes += len(id) as u64 + 48;
            if id.is_multiple_of(3) {
                // Two uses bring it to the main queue.
                let key = id.to_be_bytes();
                (0..2).for_each(|_| _ = world.store.access(world.now, world.store.key(&key)));
            }
            while bytes > limit / 20 {
                lost += u64::from(!world.has(youngest));
                bytes -= len(youngest) as u64 + 48;
                youngest += 1;
            }
        }
        let live = world.store.live_bytes() as f64 / limit as f64;
        let what = format!("{mebibytes} MiB, {shortest} B and up to {sizes} more");
        println!("{what}: {live:.3} live");
        assert_eq!(lost, 0, "{what}: of {end} items some were evicted young");
        assert!(live > 0.82, "{what}: {live} live");
        world.store.audit();
    }
}

#[test]
fn more_than_half_of_the_limit_at_once_is_refused_and_evicts_nothing() {
    let (mut world, end, _) = evicting(1_000);
    let (before, limit) = (world.store.len(), world.store.memory_max());
    let value = vec![0; 5 << 20];
    let key = end.to_be_bytes();
    let refused = world.store.set(world.now, world.store.key(&key), &value, None, Version(0));
    assert_eq!(refused, Err(Full::TooLarge { limit_bytes: limit }));
    assert_eq!(world.store.make_room(world.now, 2, 5 << 20), Err(Full::TooLarge { limit_bytes: limit }));
    assert_eq!((world.store.len(), world.store.evicted()), (before, end - before as u64));
}

/// A store that evicts takes every set of several keys, and is not emptied by one. A store that does not evict refuses
/// them only when it is full.
#[test]
fn several_keys_are_set_together_in_a_small_store() {
    for (mebibytes, eviction, keys) in [1, 2, 4]
        .into_iter()
        .flat_map(|limit| [Eviction::Refuse, Eviction::AnyItem].map(|eviction| (limit, eviction)))
        .flat_map(|(limit, eviction)| [2, 20, 100].map(|keys| (limit, eviction, keys)))
    {
        let limit: u64 = mebibytes << 20;
        let what = format!("{mebibytes} MiB, {eviction:?}, {keys} keys");
        let mut world = World::new();
        world.store.set_memory_max(limit);
        world.store.set_eviction(eviction);
        let sets = 3 * limit / (keys as u64 * 150);
        let lens: Vec<usize> = (0..keys).map(|at| 50 + (at * 37) % 200).collect();
        let bytes = lens.iter().map(|len| len + 8).sum();
        let done = (0..sets).take_while(|set| {
            let is_done = world.store.make_room(world.now, keys, bytes).is_ok();
            for (id, len) in (set * keys as u64..).zip(&lens).take_while(|_| is_done) {
                let (key, value) = (id.to_be_bytes(), vec![7; *len]);
                world.store.set(world.now, world.store.key(&key), &value, None, Version::MAX).expect(&what);
            }
            world.store.keep_up(world.now, 16);
            while world.store.memory_bytes() > limit && eviction != Eviction::Refuse {
                world.store.reclaim(world.now, 128);
            }
            is_done
        });
        let done = done.count() as u64;
        let live = world.store.live_bytes() as f64 / limit as f64;
        let above = world.store.memory_bytes().saturating_sub(limit);
        println!("{what}: {done} of {sets} times, {live:.2} live, {above} bytes above the limit");
        assert!(
            done == sets || eviction == Eviction::Refuse && live > 0.6,
            "{what}: {done} of {sets} times, {live}"
        );
        assert!(live > 0.4, "{what}: {live} live");
        assert!(above <= 4 << 20, "{what}: {above} bytes above the limit");
        world.store.audit();
    }
}

#[test]
fn evicted_key_that_returns_outlives_keys_that_are_new() {
    for len in [300, 1_000] {
        let (mut world, end, young) = evicting(len);
        let first = (0..end).find(|&id| world.has(id)).unwrap();
        let returning: Vec<u64> = (first - 50..first).collect();
        returning.iter().for_each(|&id| assert!(world.set(id, len, None)));
        (end..2 * end).for_each(|id| assert!(world.set(id, len, None)));
        let left = returning.iter().filter(|&&id| world.has(id)).count();
        assert!(left >= 45, "{len} B: {left} of 50 are left");
        let new_left = (end..end + young).filter(|&id| world.has(id)).count() as u64;
        assert!(new_left * 4 < young, "{len} B: {new_left} of {young} that were new then are left, too");
    }
}

#[test]
fn small_items_outlive_large_ones_that_were_read_as_often() {
    let (mut world, first, end) = (World::new(), 4_000, 8_000);
    world.store.set_memory_max(8 << 20);
    world.store.set_eviction(Eviction::AnyItem);
    for id in 0..end {
        assert!(world.set(id, if id.is_multiple_of(2) { 100 } else { 10_000 }, None));
        let key = id.to_be_bytes();
        (0..2).for_each(|_| _ = world.store.access(world.now, world.store.key(&key)));
    }
    let left = |parity| (first..end).filter(|&id| id % 2 == parity && world.has(id)).count();
    let (small, large) = (left(0), left(1));
    assert!(
        small > 1_900 && large < 900,
        "{small} of 2,000 small ones are left, {large} of 2,000 large ones"
    );
}

#[test]
fn items_read_once_outlive_unread_ones_while_the_main_queue_is_short() {
    let (mut world, end) = (World::new(), 6_000);
    world.store.set_memory_max(8 << 20);
    world.store.set_eviction(Eviction::AnyItem);
    for id in 0..2 * end {
        assert!(world.set(id, 1_000, None));
        if id.is_multiple_of(4) {
            assert!(world.store.access(world.now, world.store.key(&id.to_be_bytes())).is_some());
        }
    }
    let left = |remainder| (0..end).filter(|&id| id % 4 == remainder && world.has(id)).count();
    let (read, unread) = (left(0), left(1));
    assert!(
        read == 1_500 && unread < 150,
        "{read} of 1,500 that were read are left, {unread} of 1,500 others"
    );
}

#[test]
fn items_that_compaction_moved_are_evicted_in_their_turn_and_counted_once() {
    let (mut world, end, _) = evicting(1_000);
    let first = (0..end).find(|&id| world.has(id)).unwrap();
    let doomed: Vec<u64> =
        (first..end).filter(|id| !id.is_multiple_of(4)).filter(|&id| world.has(id)).collect();
    doomed.iter().for_each(|&id| world.remove(id));
    world.now = Instant::from_millis(5_000);
    for _ in 0..10_000 {
        world.store.reclaim(world.now, 64);
        world.now = Instant::from_millis(world.now.millis() + 1);
    }
    let left: Vec<u64> = (first..end).filter(|&id| world.has(id)).collect();
    (end..6 * end).for_each(|id| assert!(world.set(id, 2_000, None)));
    assert!(left.iter().all(|&id| !world.has(id)), "an item is never evicted");
    assert_eq!(world.store.evicted() + doomed.len() as u64 + world.store.len() as u64, 6 * end);
    world.store.audit();
}
