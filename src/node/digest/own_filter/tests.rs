use super::{OwnFilter, SIZE_LOG2_MIN};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::filter::bloom::Bloom;
use crate::filter::changelog::{Bulk, BulkBuffer, ReaderKey};
use crate::filter::peer_filters::FILL_MAX;
use crate::filter::receiver::{ApplyResult, Receiver};
use crate::filter::{FilterKey, PeerFilters};
use crate::store::{Expiry, HashSecret, SetOutcome, Store, Version};
use std::collections::HashMap;
use std::time::Duration;

/// A store, its own filter, and a peer that reads the changelog.
struct World {
    now: Instant,
    store: Store,
    own_filter: OwnFilter,
    /// The keys in the store: the hash of each, and the millisecond of its expiry.
    live: HashMap<u64, (u64, Option<u64>)>,
    reader: ReaderKey,
    filters: PeerFilters,
    key: FilterKey,
    receiver: Receiver,
    hashes: Vec<u64>,
    bulk: BulkBuffer,
}

impl World {
    fn new(mask: u64, seed: u64) -> Self {
        let mut own_filter = OwnFilter::new(7);
        let reader = own_filter.parts().1.join(None);
        let mut filters = PeerFilters::new(1 << 26);
        let key = filters.join();
        Self {
            now: Instant::from_millis(1_000),
            store: Store::new(HashSecret::draw(&mut Rng::new(seed)).masked(mask), 0),
            own_filter,
            live: HashMap::new(),
            reader,
            filters,
            key,
            receiver: Receiver::new(key),
            hashes: Vec::new(),
            bulk: BulkBuffer::default(),
        }
    }

    fn set(&mut self, id: u64, seconds: Option<u64>) {
        let bytes = id.to_be_bytes();
        let key = self.store.key(&bytes);
        let deadline = seconds.and_then(|seconds| Expiry::in_seconds(self.now, seconds));
        if self.store.set(self.now, key, b"value", deadline, Version(1)).unwrap() == SetOutcome::Created {
            self.own_filter.added(self.now, key.hash.0);
            self.own_filter.keep_up(self.now, &mut self.store);
        }
        self.live.insert(id, (key.hash.0, deadline.map(Expiry::millis)));
    }

    fn remove(&mut self, id: u64) {
        self.store.remove(self.now, self.store.key(&id.to_be_bytes()), Version::MAX);
        self.live.remove(&id);
    }

    fn pass_time(&mut self, millis: u64) {
        self.now = self.now.after(Duration::from_millis(millis));
        let now = self.now.millis();
        self.live.retain(|_, (_, deadline)| deadline.is_none_or(|deadline| deadline > now));
    }

    /// Sends the peer one message, if there is one; true if so.
    fn pump(&mut self) -> bool {
        let (receiver, filters) = (&mut self.receiver, &mut self.filters);
        let (filter, changelog) = self.own_filter.parts();
        self.hashes.clear();
        if let Some(first) = changelog.next_additions(self.reader, 1, &mut self.hashes) {
            let added = receiver.addition(filters, first, self.hashes[0]);
            assert_eq!(added, Ok(ApplyResult::Applied));
            return true;
        }
        let was_known = !filters.is_unknown(self.key);
        let outcome = match changelog.next_bulk(self.reader, filter, &mut self.bulk) {
            None => return false,
            Some(Bulk::Begin { position, size }) => {
                receiver.begin(filters, position, size).unwrap();
                assert!(
                    !was_known || !filters.is_unknown(self.key),
                    "a change of size makes the filter outdated"
                );
                ApplyResult::Applied
            }
            Some(Bulk::Piece { first }) => receiver.blocks(filters, first, &self.bulk.words).unwrap(),
            Some(Bulk::End) => receiver.end(filters).unwrap(),
            Some(Bulk::Images { first }) => {
                for (change, (number, image)) in (first..).zip(&self.bulk.images) {
                    let applied = receiver.block(filters, change, *number, image);
                    assert_eq!(applied, Ok(ApplyResult::Applied));
                }
                ApplyResult::Applied
            }
        };
        assert_eq!(outcome, ApplyResult::Applied);
        true
    }

    fn check(&self) {
        for (id, (hash, _)) in &self.live {
            assert!(self.own_filter.filter().contains(*hash), "{id} is missing");
        }
        let is_current =
            self.receiver.position().map(|at| at.seq) == Some(self.own_filter.changelog().head().seq);
        if is_current && !self.filters.is_unknown(self.key) {
            for (id, (hash, _)) in &self.live {
                assert!(self.filters.claims(self.key, *hash), "the peer misses {id}");
            }
        }
    }

    /// One step of each kind of work; true if there is more.
    fn work(&mut self) -> bool {
        if self.store.has_work(self.now) {
            self.store.reclaim(self.now, 64);
        }
        let mut more = self.own_filter.step(self.now, &mut self.store);
        more |= self.store.has_work(self.now);
        let pumped = (0..64).filter(|_| self.pump()).count() > 0;
        more | pumped | self.filters.step()
    }

    fn reconcile(&mut self) {
        let mut steps = 0;
        while self.work() {
            steps += 1;
            assert!(steps < 1_000_000, "work without end");
        }
    }

    /// Does all work, also that of the next four seconds; the peer's filter then equals the own filter.
    fn come_to_rest(&mut self) {
        self.reconcile();
        for _ in 0..4 {
            self.pass_time(1_001);
            self.reconcile();
        }
        self.check();
        self.check_peer();
    }

    fn check_peer(&mut self) {
        let (filter, changelog) = self.own_filter.parts();
        let head = changelog.head();
        self.receiver.head_is(&mut self.filters, head.epoch, head.seq);
        assert_eq!(self.receiver.position(), Some(head));
        assert!(!self.filters.is_unknown(self.key));
        for number in 0..filter.size().blocks() {
            let theirs = self.filters.block(self.key, number);
            assert_eq!(theirs.as_ref(), filter.block(number), "block {number}");
        }
    }

    /// The false positives of the filter as a multiple of those of a fresh one with the same keys.
    fn excess(&self) -> f64 {
        let filter = self.own_filter.filter();
        let mut fresh = Bloom::new(filter.size());
        self.live.values().for_each(|(hash, _)| _ = fresh.insert(*hash));
        let mut rng = Rng::new(99);
        let (mut claimed, mut rightly) = (0, 0);
        for _ in 0..1_000_000 {
            let hash = rng.next_u64();
            claimed += u32::from(filter.contains(hash));
            rightly += u32::from(fresh.contains(hash));
        }
        f64::from(claimed) / f64::from(rightly.max(1))
    }
}

fn churn(mask: u64, keys: u64, operations: u64, seed: u64) -> World {
    let mut rng = Rng::new(seed);
    let mut world = World::new(mask, seed);
    let mut grows = true;
    for step in 0..operations {
        if step % (operations / 8) == 0 {
            grows = !grows;
            world.check();
        }
        let id = rng.below(keys);
        match rng.below(100) {
            0..30 if grows => world.set(id, None),
            30..60 if grows => world.set(id, Some(1 + rng.below(20))),
            0..5 => world.set(id, Some(1 + rng.below(3))),
            5..60 => world.remove(id),
            60..61 => world.pass_time(rng.below(300)),
            61..80 => _ = world.work(),
            _ => {
                if let Some((hash, _)) = world.live.get(&id) {
                    assert!(world.own_filter.filter().contains(*hash), "{id} is missing at {step}");
                }
            }
        }
        if world.own_filter.migration.is_some() && rng.one_in(64) {
            world.check();
        }
    }
    world.come_to_rest();
    world
}

#[test]
fn no_key_is_ever_missing_and_the_peer_ends_equal() {
    for seed in 0..3 {
        let mut world = churn(u64::MAX, 30_000, 400_000, seed);
        let excess = world.excess();
        assert!(excess < 1.5, "{excess} times the false positives of a fresh filter");
        let keys: Vec<u64> = world.live.keys().copied().collect();
        keys.into_iter().for_each(|id| world.remove(id));
        world.come_to_rest();
        assert_eq!((world.own_filter.filter().ones(), world.store.len()), (0, 0));
        assert_eq!(world.own_filter.filter().size().log2(), SIZE_LOG2_MIN);
    }
}

#[test]
fn no_key_is_missing_where_hashes_are_alike() {
    for mask in [0, 0xF << 60, u64::MAX >> 30, u64::MAX << 40] {
        churn(mask, 12_000, 100_000, 5);
    }
}

#[test]
fn third_of_all_keys_expiring_at_once_makes_each_block_again_once() {
    let mut world = World::new(u64::MAX, 1);
    let mut rng = Rng::new(1);
    for id in 0..100_000 {
        let seconds = rng.one_in(3).then(|| 10 + id % 2);
        world.set(id, seconds);
        world.pump();
    }
    world.reconcile();
    let (rebuilt, blocks) =
        (world.own_filter.parts().1.head().blocks, world.own_filter.filter().size().blocks());
    for _ in 0..12_000 {
        world.pass_time(1);
        (0..4).for_each(|_| _ = world.work());
    }
    world.come_to_rest();
    let rebuilt = world.own_filter.changelog().head().blocks - rebuilt;
    assert!(rebuilt <= blocks as u64 + blocks as u64 / 4, "{rebuilt} of {blocks} blocks");
    assert!(!world.store.has_rebuilds() && world.excess() < 1.5);
}

#[test]
fn segments_that_need_a_rebuild_wait_longer_without_readers() {
    let mut world = World::new(u64::MAX, 1);
    world.own_filter.parts().1.leave(world.reader);
    (0..5_000).for_each(|id| world.set(id, None));
    while world.own_filter.step(world.now, &mut world.store) {}
    (0..1_000).for_each(|id| world.remove(id));
    while world.own_filter.step(world.now, &mut world.store) {}
    let due = |world: &World| world.own_filter.rebuild_due().unwrap();
    assert_eq!(due(&world), world.now.after(Duration::from_secs(4)));
    world.pass_time(1_500);
    assert!(!world.own_filter.has_work(world.now, &world.store));
    world.reader = world.own_filter.parts().1.join(None);
    assert!(due(&world) < world.now && world.own_filter.has_work(world.now, &world.store));
    world.come_to_rest();
    assert!(!world.store.has_rebuilds());
}

#[test]
fn filter_of_keys_that_come_and_go_is_never_fuller_than_peers_take() {
    // (keys that stay, keys per ms, whether they leave for another node, and whether a peer reads)
    let cases = [(0, 7, false, true), (0, 7, false, false), (2_000, 40, false, true), (100, 7, true, true)];
    for (stay, per_ms, is_moved, is_read) in cases {
        let mut world = World::new(u64::MAX, 1);
        world.own_filter.set_claimed_for(Duration::from_secs(3));
        if !is_read {
            world.own_filter.parts().1.leave(world.reader);
        }
        (0..stay).for_each(|id| world.set(id, None));
        for id in (0..3_000 * per_ms).map(|id| stay + id) {
            world.set(id, None);
            if id % per_ms == 0 {
                world.pass_time(1);
                world.own_filter.step(world.now, &mut world.store);
            }
            if let Some(old) = id.checked_sub(20 * per_ms).filter(|old| *old >= stay) {
                let hash = world.live[&old].0;
                world.remove(old);
                if is_moved {
                    world.own_filter.moved(world.now, hash);
                }
            }
            let fill = world.own_filter.filter().fill();
            assert!(fill <= FILL_MAX, "{stay} and {per_ms}/ms, {is_moved}, {is_read}: {fill} at {id}");
            if is_read {
                while world.pump() {}
            }
        }
        if is_read {
            world.come_to_rest();
        }
    }
}

#[test]
fn filter_keeps_to_its_bits_a_key_in_time() {
    let mut world = World::new(u64::MAX, 1);
    for id in 0..300_000 {
        world.set(id, None);
        let bits = world.own_filter.filter().size().bits() / world.store.len() as u64;
        assert!(bits >= 11, "{bits} bits a key at {id}");
    }
    world.reconcile();
    assert!(world.excess() < 1.01);
    let before = world.own_filter.filter().size();
    world.own_filter.set_peers(9);
    world.reconcile();
    assert!(world.own_filter.filter().size() > before);
}

#[test]
fn idle_filter_wakes_nobody() {
    let mut world = World::new(u64::MAX, 1);
    assert_eq!(world.own_filter.next_deadline(&world.store), None);
    (0..20_000).for_each(|id| world.set(id, None));
    (0..10_000).for_each(|id| world.remove(id));
    world.reconcile();
    let mut wakes = 0;
    while let Some(due) = world.own_filter.next_deadline(&world.store) {
        assert!(due > world.now, "due in the past");
        world.now = due;
        assert!(world.own_filter.has_work(world.now, &world.store), "woken for nothing");
        world.reconcile();
        wakes += 1;
    }
    assert!(wakes <= 3, "{wakes}");
}

#[test]
fn filter_counts_as_memory_and_does_not_grow_past_the_limit() {
    let mut world = World::new(u64::MAX, 1);
    world.store.set_memory_max(3 << 20);
    let mut refused = 0;
    for id in 0u64..60_000 {
        let bytes = id.to_be_bytes();
        let key = world.store.key(&bytes);
        match world.store.set(world.now, key, &[0; 40], None, Version(1)) {
            Ok(_) => {
                world.own_filter.added(world.now, key.hash.0);
                world.own_filter.keep_up(world.now, &mut world.store);
            }
            Err(_) => refused += 1,
        }
        assert!(world.store.memory_bytes() <= 3 << 20);
    }
    world.reconcile();
    let with = world.store.memory_bytes();
    let (bytes, log) = (world.own_filter.filter().bytes(), world.own_filter.changelog().log_bytes());
    world.store.reserve(0);
    let without = world.store.memory_bytes();
    assert!(refused > 0 && with - without == bytes + log && bytes >= 32 << 10, "{bytes}");
}

#[test]
fn log_of_changes_counts_as_memory_and_takes_a_small_share_of_it() {
    for (memory_max, log_max, keys) in [(2 << 20, 128 << 10, 20_000), (32 << 20, 2 << 20, 280_000)] {
        let mut world = World::new(u64::MAX, 1);
        world.store.set_memory_max(memory_max);
        let mut most = 0;
        // Keys that come and go, all within the time that the log is kept.
        for id in 0..keys {
            let bytes = u64::to_be_bytes(id);
            let key = world.store.key(&bytes);
            world.store.set(world.now, key, b"", None, Version(1)).unwrap();
            world.own_filter.added(world.now, key.hash.0);
            world.own_filter.keep_up(world.now, &mut world.store);
            world.store.remove(world.now, key, Version::MAX);
            most = most.max(world.own_filter.changelog().log_bytes());
        }
        let counted = world.store.memory_bytes();
        world.store.reserve(0);
        assert!(counted - world.store.memory_bytes() > log_max, "the log is not counted");
        // Additions and blocks may each exceed their share by two chunks of 64 KiB.
        assert!((log_max..=log_max + (4 << 16)).contains(&most), "{most} bytes of {memory_max}");
        // All of it is freed after a while without changes.
        for _ in 0..2 {
            world.pass_time(31_000);
            while world.own_filter.step(world.now, &mut world.store) {}
        }
        assert_eq!(world.own_filter.changelog().log_bytes(), 0);
    }
}
