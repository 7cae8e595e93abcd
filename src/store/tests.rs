#![expect(clippy::cast_possible_truncation, reason = "bounded by the tables of the test")]

use super::{Expiry, Full, HashSecret, RemoveOutcome, Store, Version};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::base::wheel::Popped;

const PAGE_BYTES: u64 = 64 * 1024;
/// The memory limit of a small store.
const ROOM_BYTES: u64 = 2 << 20;

fn store(memory_max: u64) -> Store {
    Store::new(HashSecret::draw(&mut Rng::new(1)), memory_max)
}

fn set(store: &mut Store, id: u64, value_len: usize, expiry: Option<Expiry>) -> bool {
    let value = vec![id as u8; value_len];
    store.set(Instant::ZERO, store.key(&id.to_be_bytes()), &value, expiry, Version::MAX).is_ok()
}

fn has(store: &Store, now: Instant, id: u64) -> bool {
    store.get(now, store.key(&id.to_be_bytes())).is_some()
}

fn remove(store: &mut Store, id: u64) -> bool {
    remove_at(store, Instant::ZERO, id) == RemoveOutcome::Removed
}

fn remove_at(store: &mut Store, now: Instant, id: u64) -> RemoveOutcome {
    store.remove(now, store.key(&id.to_be_bytes()), Version::MAX)
}

fn reconcile(store: &mut Store, now: Instant) {
    for _ in 0..100_000 {
        if !store.has_work(now) {
            return;
        }
        store.reclaim(now, 256);
    }
    panic!("work without end");
}

fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1_000)
}

fn after(seconds: u64) -> Option<Expiry> {
    Expiry::in_seconds(Instant::ZERO, seconds)
}

#[test]
fn expired_item_is_not_served_whether_freed_or_not() {
    let mut store = store(0);
    set(&mut store, 1, 10, after(5));
    assert!(has(&store, Instant::from_millis(4_999), 1) && !has(&store, at(5), 1));
    assert_eq!((store.len(), store.next_deadline().is_some()), (1, true));
    reconcile(&mut store, at(5));
    assert_eq!((store.len(), store.expired(), store.next_deadline()), (0, 1, None));
}

#[test]
fn map_of_a_large_value_is_kept_for_the_next_one_for_some_seconds() {
    let bytes = 300_000;
    let mut store = store(0);
    set(&mut store, 1, bytes, None);
    remove(&mut store, 1);
    (0..9).for_each(|seconds| reconcile(&mut store, at(seconds)));
    let map = store.take_idle(bytes);
    assert!(map.is_some_and(|map| map.len() >= bytes), "the map was given back");
    set(&mut store, 1, bytes, None);
    remove(&mut store, 1);
    (9..40).for_each(|seconds| reconcile(&mut store, at(seconds)));
    assert!(store.take_idle(bytes).is_none() && store.next_deadline().is_none(), "the map is kept for good");
}

#[test]
fn stale_timer_does_not_remove_the_item_that_reuses_its_slot() {
    let mut store = store(0);
    set(&mut store, 1, 10, after(5));
    remove(&mut store, 1);
    set(&mut store, 2, 10, after(9));
    reconcile(&mut store, at(5));
    assert!(has(&store, at(5), 2));
    assert_eq!((store.len(), store.expired(), store.timers()), (1, 0, 1));
    store.audit();
}

#[test]
fn removal_of_an_expired_item_frees_it_though_its_timer_was_dropped() {
    let mut store = store(0);
    set(&mut store, 1, 10, after(5));
    while store.timers.pop(5_000) != Popped::Idle {}
    reconcile(&mut store, at(5));
    assert_eq!((store.len(), store.timers()), (1, 0));
    assert_eq!(remove_at(&mut store, at(5), 1), RemoveOutcome::Absent);
    assert_eq!((store.len(), store.expired()), (0, 1));
    store.audit();
}

#[test]
fn last_expiry_set_is_the_one_that_counts() {
    let mut store = store(0);
    set(&mut store, 1, 10, after(5));
    let key = 1u64.to_be_bytes();
    for seconds in [3, 20, 5, 9] {
        assert_eq!(store.set_expiry(Instant::ZERO, store.key(&key), Some(after(seconds).unwrap())), Ok(true));
    }
    reconcile(&mut store, Instant::from_millis(8_999));
    assert!(has(&store, Instant::from_millis(8_999), 1));
    reconcile(&mut store, at(9));
    assert_eq!((store.len(), store.timers()), (0, 1));
}

#[test]
fn write_of_several_keys_that_room_was_made_for_is_not_refused() {
    let mut rng = Rng::new(3);
    let mut store = store(16 * ROOM_BYTES);
    let (mut id, mut granted, mut denied) = (0, 0, 0);
    while denied < 50 {
        let (count, bits) = (1 + rng.below(600), rng.below(14));
        let sizes: Vec<usize> = (0..count).map(|_| rng.below(1 << bits) as usize).collect();
        let bytes = sizes.iter().sum::<usize>() + 8 * sizes.len();
        if store.make_room(Instant::ZERO, sizes.len(), bytes).is_err() {
            denied += 1;
            continue;
        }
        granted += 1;
        for len in sizes {
            let expiry = if rng.one_in(2) { after(1_000 + rng.below(1 << 20)) } else { None };
            assert!(set(&mut store, id, len, expiry), "item {id}, after {granted} times");
            id += 1;
        }
    }
    assert!(store.memory_bytes() > 6 * ROOM_BYTES, "{} of 32 MiB", store.memory_bytes() >> 20);
}

#[test]
fn used_address_space_is_reported_apart_from_the_limit_before_anything_is_set() {
    let mut store = store(0);
    store.limit_regions(4);
    let mut id = 0;
    while store.make_room(Instant::ZERO, 10, 10 * 1_000).is_ok() {
        (0..10).for_each(|_| {
            id += 1;
            assert!(set(&mut store, id, 900, None), "refused though there is room");
        });
    }
    assert_eq!(store.make_room(Instant::ZERO, 10, 10 * 1_000), Err(Full::Space));
    let last = (id + 1..).find(|&id| !set(&mut store, id, 900, None)).unwrap();
    let key = last.to_be_bytes();
    let refused = store.set(Instant::ZERO, store.key(&key), &[0; 900], None, Version(0));
    assert_eq!(refused, Err(Full::Space));
    // A large object needs a slot for its header only.
    assert!(remove(&mut store, 1) && set(&mut store, last, 900, None));
    store.audit();
}

#[test]
fn first_expiries_stay_within_the_reserve_or_change_nothing() {
    for len in [20, 100, 16_000, 16_360, 100_000] {
        let mut store = store(ROOM_BYTES);
        let full = (0..).find(|&id| !set(&mut store, id, len, None)).unwrap();
        let mut refused = 0;
        for id in 0..full {
            let key = id.to_be_bytes();
            let result = store.set_expiry(Instant::ZERO, store.key(&key), Some(after(1_000 + id).unwrap()));
            refused += u64::from(result.is_err());
            let timed = store.get(Instant::ZERO, store.key(&key)).unwrap().expiry.is_some();
            let most = ROOM_BYTES + store.reserve_bytes();
            assert_eq!((result.is_ok(), store.memory_bytes() <= most), (timed, true), "{len}");
        }
        // Items whose slot has room for an expiry only need a timer page.
        assert!(refused > 0 || len == 16_000 || len == 100_000, "{len}");
        store.audit();
    }
}

#[test]
fn pages_are_returned_after_a_shift_of_value_sizes() {
    shift_of_sizes(u64::MAX, 100_000);
    // The same with items moved within the overflow.
    shift_of_sizes(0, 10_000);
}

fn shift_of_sizes(mask: u64, items: u64) {
    let mut rng = Rng::new(6);
    let mut store = Store::new(HashSecret::draw(&mut rng).masked(mask), 0);
    (0..items).for_each(|id| assert!(set(&mut store, id, 200, after(1_000_000))));
    let before = store.memory_bytes();
    let kept: Vec<u64> = (0..items).filter(|_| rng.one_in(10)).collect();
    let mut kept_at = kept.iter().copied().peekable();
    for id in 0..items {
        if kept_at.next_if_eq(&id).is_none() {
            remove(&mut store, id);
        }
    }
    reconcile(&mut store, Instant::ZERO);
    let (pause, timers) = (store.next_deadline().unwrap(), store.timers());
    reconcile(&mut store, pause);
    let few = items < 100_000;
    assert!(few || store.memory_bytes() < before / 2, "{} of {before}", store.memory_bytes());
    assert!(store.audit().timers > timers, "nothing was moved");
    assert!(kept.iter().all(|&id| has(&store, pause, id)) && store.len() == kept.len());
    reconcile(&mut store, at(1_000_000));
    assert_eq!((store.len(), store.expired() as usize), (0, kept.len()));
}

#[test]
fn compaction_continues_when_deletions_empty_its_page() {
    let mut store = store(0);
    (0..20_000).for_each(|id| assert!(set(&mut store, id, 200, None)));
    (0..20_000).filter(|id| id % 10 != 0).for_each(|id| assert!(remove(&mut store, id)));
    reconcile(&mut store, Instant::ZERO);
    let (pause, sparse_bytes) = (store.next_deadline().unwrap(), store.memory_bytes());
    store.reclaim(pause, 20);
    let emptying = store.heap.page_to_empty(false, true).unwrap();
    assert!(emptying.slot > 0);
    while let Some((handle, _)) = store.heap.next_live(emptying.page, 0) {
        let key = store.heap.key(handle).to_vec();
        assert_eq!(store.remove(pause, store.key(&key), Version::MAX), RemoveOutcome::Removed);
    }
    reconcile(&mut store, pause);
    assert!(store.memory_bytes() < sparse_bytes / 2, "{} of {sparse_bytes}", store.memory_bytes());
    store.audit();
}

#[test]
fn compaction_is_charged_for_free_slots_that_it_reads() {
    let mut store = store(0);
    (0..60_000).for_each(|id| assert!(set(&mut store, id, 0, after(1_000_000))));
    (0..60_000).filter(|id| id % 320 != 319).for_each(|id| assert!(remove(&mut store, id)));
    reconcile(&mut store, Instant::ZERO);
    let (pause, timers) = (store.next_deadline().unwrap(), store.timers());
    store.reclaim(pause, 64);
    // One item found after reading 319 free slots costs 10 steps.
    let moved = store.timers() - timers;
    assert!((1..=8).contains(&moved), "{moved}");
}

#[test]
fn cleared_store_is_empty_at_once_and_is_freed_in_steps() {
    let mut store = store(0);
    (0..100_000).for_each(|id| {
        assert!(set(&mut store, id, 100 + id as usize % 3 * 20_000 * usize::from(id % 1_000 == 0), after(50)))
    });
    let before = store.memory_bytes();
    store.clear();
    assert!(store.is_empty() && !has(&store, Instant::ZERO, 7));
    assert!(store.memory_bytes() >= before);
    set(&mut store, 7, 10, None);
    store.clear();
    set(&mut store, 8, 10, None);
    reconcile(&mut store, Instant::ZERO);
    assert!(store.memory_bytes() < 8 * PAGE_BYTES, "{}", store.memory_bytes());
    assert!(has(&store, at(100), 8) && store.len() == 1);
    reconcile(&mut store, at(100));
    assert_eq!(store.expired(), 0);
    store.audit();
}

#[test]
fn clearing_again_and_again_leaves_nothing_to_be_freed() {
    let mut store = store(0);
    let before = store.memory_bytes();
    (0..10_000).for_each(|_| store.clear());
    assert!(store.memory_bytes() == before && !store.has_work(Instant::ZERO));
    for id in 0..10_000 {
        set(&mut store, id, 10, after(9));
        store.clear();
    }
    assert_eq!(store.memory_bytes(), before);
    store.audit();
}

#[test]
fn purge_ends_for_an_item_given_two_expiries_in_alternation() {
    let mut store = store(0);
    set(&mut store, 1, 10, after(1_000));
    let key = 1u64.to_be_bytes();
    for turn in 0..200_000 {
        let expiry = after(1_000 + turn % 2).unwrap();
        assert_eq!(store.set_expiry(Instant::ZERO, store.key(&key), Some(expiry)), Ok(true));
    }
    reconcile(&mut store, Instant::ZERO);
    reconcile(&mut store, at(1_001));
    assert_eq!((store.len(), store.timers()), (0, 0));
}

#[test]
fn equal_hashes_take_at_most_twice_the_memory_and_are_all_found() {
    let memory = |mask, keys| {
        let mut store = Store::new(HashSecret::draw(&mut Rng::new(1)).masked(mask), 0);
        (0..keys).for_each(|id| assert!(set(&mut store, id, 8, None)));
        assert!((0..keys).all(|id| has(&store, Instant::ZERO, id)) && !has(&store, Instant::ZERO, keys));
        let audit = store.audit();
        assert!(audit.segments < 2 * keys as usize / 300 + 40, "{audit:?}");
        (0..keys).for_each(|id| assert!(remove(&mut store, id)));
        assert!(store.audit().segments <= 1);
        audit.memory_bytes
    };
    for keys in [3_000, 65_536] {
        assert!(memory(0, keys) <= 2 * memory(u64::MAX, keys));
    }
}
