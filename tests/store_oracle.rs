//! The store against a `HashMap` and a `BTreeMap`: seeded random operations, with a full audit as they go.
//!
//! `OLIVIA_STORE_OPS=5000000 cargo test --release --test store_oracle` does so many operations in each
//! world (`make oracle`), `OLIVIA_STORE_SEED=7` begins with that seed. A failure prints the world and the seed.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::cast_possible_truncation, reason = "bounded by the tables of the test")]

use olivia::base::rng::Rng;
use olivia::base::time::Instant;
use olivia::store::{Deadline, Full, HashRange, HashSecret, SegmentScan, Store, Version, Was};
use std::collections::{BTreeMap, HashMap, HashSet};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// How a world differs from the others.
#[derive(Debug, Clone, Copy)]
struct World {
    /// Bits of the hash that are left.
    mask: u64,
    keys: u64,
    memory_max: u64,
    /// Values are shorter than 2 to this power.
    value_bits_max: u64,
    operations: u64,
}

struct Held {
    value: Vec<u8>,
    deadline: Option<Deadline>,
    version: Version,
}

struct Game {
    world: World,
    rng: Rng,
    now: Instant,
    store: Store,
    items: HashMap<Vec<u8>, Held>,
    /// Keys by deadline, for what must have expired.
    deadlines: BTreeMap<(u64, Vec<u8>), ()>,
    clock: u64,
    refused: u64,
    /// What this part of the game does more of: 0 grow, 1 shrink, 2 churn.
    mood: u64,
    value_bits: u64,
}

impl Game {
    fn new(world: World, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let secret = HashSecret::draw(&mut rng).masked(world.mask);
        Self {
            world,
            rng,
            now: Instant::from_millis(1_000),
            store: Store::new(secret, world.memory_max),
            items: HashMap::new(),
            deadlines: BTreeMap::new(),
            clock: 0,
            refused: 0,
            mood: 0,
            value_bits: 6,
        }
    }

    fn play(&mut self) {
        let part = (self.world.operations / 12).max(1);
        for step in 0..self.world.operations {
            if step % part == 0 {
                self.mood = self.rng.below(3);
                self.value_bits = 1 + self.rng.below(self.world.value_bits_max);
                self.check_all();
            }
            self.step();
            if self.rng.one_in(3) {
                let budget = 1 + self.rng.below(64) as u32;
                self.store.reclaim(self.now, budget);
            }
            if self.rng.one_in(part / 2 + 1) {
                self.store.audit();
            }
        }
        self.check_all();
        self.empty();
    }

    fn key(&mut self) -> Vec<u8> {
        let id = self.rng.below(self.world.keys);
        let len = if id.is_multiple_of(997) { 1_000 + id as usize % 3_000 } else { 8 + id as usize % 24 };
        let mut key = vec![b'k'; len];
        key[..8].copy_from_slice(&id.to_be_bytes());
        key
    }

    fn value(&mut self) -> Vec<u8> {
        let len = self.rng.below(1 << self.value_bits) as usize;
        let mut value = vec![0; len];
        self.rng.fill(&mut value);
        value
    }

    fn deadline(&mut self) -> Deadline {
        let span = 1 << self.rng.below(18);
        let seconds = self.rng.below(span);
        Deadline::in_seconds(self.now, seconds).unwrap()
    }

    fn step(&mut self) {
        let key = self.key();
        let [set, setex, del, expire] =
            [[40, 65, 70, 75], [5, 10, 60, 65], [20, 40, 60, 70]][self.mood as usize];
        match self.rng.below(100) {
            n if n < set => self.set(key, None),
            n if n < setex => {
                let deadline = self.deadline();
                self.set(key, Some(deadline));
            }
            n if n < del => self.remove(&key),
            n if n < expire => self.expire(&key),
            n if n < 98 => self.get(&key),
            _ => {
                let bits = if self.rng.one_in(1_000) { 28 } else { 12 };
                let span = 1 << self.rng.below(bits);
                let millis = self.rng.below(span);
                self.now = Instant::from_millis(self.now.millis() + millis);
            }
        }
        if self.rng.one_in(200_000) {
            self.store.clear();
            self.items.clear();
            self.deadlines.clear();
        }
    }

    fn alive(&self, key: &[u8]) -> Option<&Held> {
        self.items.get(key).filter(|held| held.deadline.is_none_or(|deadline| !deadline.has_come(self.now)))
    }

    fn forget(&mut self, key: &[u8]) {
        if let Some(Held { deadline: Some(deadline), .. }) = self.items.remove(key) {
            self.deadlines.remove(&(deadline.millis(), key.to_vec()));
        }
    }

    fn set(&mut self, key: Vec<u8>, deadline: Option<Deadline>) {
        let value = self.value();
        self.clock += 1;
        let version = Version(self.clock);
        let promised = self.store.room_for(1, key.len() + value.len()).is_ok();
        let before = self.store.memory_bytes();
        let result = self.store.set(self.store.key(&key), &value, deadline, version);
        let held = self.items.get(&key).map(|held| held.deadline.is_some_and(|at| at.has_come(self.now)));
        match (result, held) {
            (Ok(was), None) => assert_eq!(was, Was::Absent),
            (Ok(was), Some(false)) => assert_eq!(was, Was::Present),
            // Reclaimed or not yet.
            (Ok(_), Some(true)) | (Err(_), _) => {}
        }
        if let Err(full) = result {
            assert!(!promised, "refused after there was room");
            let limit = Full::Limit { used_bytes: before, limit_bytes: self.world.memory_max };
            assert_eq!((full, self.store.memory_bytes()), (limit, before), "refusing changed something");
            self.refused += 1;
            return self.get(&key);
        }
        let max = self.world.memory_max;
        assert!(max == 0 || self.store.memory_bytes() <= max.max(before), "the limit was passed");
        self.forget(&key);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline.millis(), key.clone()), ());
        }
        self.items.insert(key, Held { value, deadline, version });
    }

    fn remove(&mut self, key: &[u8]) {
        let was_there = self.alive(key).is_some();
        assert_eq!(self.store.remove(self.now, self.store.key(key)), was_there);
        if was_there {
            self.forget(key);
        }
    }

    fn expire(&mut self, key: &[u8]) {
        let deadline = self.deadline();
        let was_there = self.alive(key).is_some();
        let before = self.store.memory_bytes();
        let result = self.store.set_deadline(self.now, self.store.key(key), deadline);
        let (max, after) = (self.world.memory_max, self.store.memory_bytes());
        assert!(max == 0 || after <= max.max(before), "the limit was passed");
        let Ok(found) = result else {
            assert_eq!(after, before, "refusing changed something");
            return self.get(key);
        };
        assert_eq!(found, was_there);
        if found {
            let held = self.items.get_mut(key).unwrap();
            if let Some(old) = held.deadline.replace(deadline) {
                self.deadlines.remove(&(old.millis(), key.to_vec()));
            }
            self.deadlines.insert((deadline.millis(), key.to_vec()), ());
        }
    }

    fn get(&self, key: &[u8]) {
        let found = self.store.get(self.now, self.store.key(key));
        let held = self.alive(key);
        assert_eq!(found.is_some(), held.is_some());
        if let (Some(found), Some(held)) = (found, held) {
            assert_eq!(found.value, held.value);
            assert_eq!((found.deadline, found.version), (held.deadline, held.version));
        }
    }

    /// Lets the store do all its work, and compares everything.
    fn check_all(&mut self) {
        self.reconcile();
        let later = self.deadlines.split_off(&(self.now.millis() + 1, Vec::new()));
        for ((_, key), ()) in std::mem::replace(&mut self.deadlines, later) {
            self.items.remove(&key);
        }
        let audit = self.store.audit();
        assert_eq!((audit.items, self.store.len()), (self.items.len(), self.items.len()));
        assert_eq!(audit.items_with_deadline, self.deadlines.len());
        assert!(audit.timers <= 2 * audit.items_with_deadline + 64 * 1024);
        for key in self.items.keys() {
            self.get(key);
        }
        self.check_ranges();
        if let Some(next) = self.store.next_deadline() {
            assert!(next > self.now, "work at {next:?} was left over");
        }
    }

    /// Gathers the hashes of a range, and of each range that is worn, and compares.
    fn check_ranges(&mut self) {
        let (one, other) = (self.rng.next_u64(), self.rng.next_u64());
        let shift = self.rng.below(64);
        let first = self.rng.next_u64() >> shift << shift;
        let mut ranges = vec![
            HashRange::ALL,
            HashRange { first: one.min(other), last: one.max(other) },
            HashRange { first, last: first | ((1 << shift) - 1) },
        ];
        let mut steps = 0;
        while self.store.has_worn() {
            ranges.extend(self.store.take_worn());
            steps += 1;
            assert!(steps < 10_000, "worn without end");
        }
        for range in ranges.into_iter().take(40) {
            let (mut found, mut at, mut steps) = (Vec::new(), SegmentScan::Segments(range.first), 0);
            while at != SegmentScan::Done {
                let before = found.len();
                at = self.store.gather(range, at, &mut found);
                assert!(found.len() - before <= 768 + 128, "{} in a step", found.len() - before);
                steps += 1;
                assert!(steps < 100_000, "hashes without end");
            }
            let hashes = self.items.keys().map(|key| self.store.key(key).hash.0);
            let expected: HashSet<u64> = hashes.filter(|&hash| range.contains(hash)).collect();
            assert_eq!(found.into_iter().collect::<HashSet<u64>>(), expected, "{range:?}");
        }
        assert!(!self.store.has_worn(), "gathering wears nothing");
    }

    fn reconcile(&mut self) {
        let mut calls = 0;
        while self.store.has_work(self.now) {
            self.store.reclaim(self.now, 256);
            calls += 1;
            assert!(calls < 1_000_000, "work without end");
        }
    }

    fn empty(&mut self) {
        let keys: Vec<Vec<u8>> = self.items.keys().cloned().collect();
        for key in keys {
            self.remove(&key);
        }
        self.now = Instant::from_millis(self.now.millis() + (1 << 30));
        self.check_all();
        assert!(self.store.is_empty());
        assert!(self.store.memory_bytes() < 512 * 1024, "for nothing: {:?}", self.store.audit());
    }
}

fn play(world: World) {
    let first = number("OLIVIA_STORE_SEED").unwrap_or(1);
    let operations = number("OLIVIA_STORE_OPS").unwrap_or(world.operations);
    for seed in first..first + 2 {
        println!("seed {seed}, {world:?}");
        let mut game = Game::new(World { operations, ..world }, seed);
        game.play();
        assert_eq!(world.memory_max != 0, game.refused > 0, "the limit is reached where there is one");
    }
}

#[test]
fn many_small_items_agree_with_the_oracle() {
    play(World { mask: u64::MAX, keys: 40_000, memory_max: 0, value_bits_max: 8, operations: 100_000 });
}

#[test]
fn items_of_all_sizes_agree_with_the_oracle() {
    play(World { mask: u64::MAX, keys: 3_000, memory_max: 0, value_bits_max: 18, operations: 25_000 });
}

#[test]
fn few_keys_in_much_churn_agree_with_the_oracle() {
    play(World { mask: u64::MAX, keys: 40, memory_max: 0, value_bits_max: 12, operations: 80_000 });
}

#[test]
fn store_at_its_limit_loses_nothing_and_keeps_to_it() {
    play(World { mask: u64::MAX, keys: 20_000, memory_max: 4 << 20, value_bits_max: 12, operations: 80_000 });
}

#[test]
fn equal_hashes_agree_with_the_oracle() {
    play(World { mask: 0, keys: 6_000, memory_max: 0, value_bits_max: 6, operations: 25_000 });
}

#[test]
fn hashes_that_differ_in_four_bits_agree_with_the_oracle() {
    play(World { mask: 0xF << 60, keys: 30_000, memory_max: 0, value_bits_max: 6, operations: 40_000 });
}

#[test]
fn hashes_without_their_top_bits_agree_with_the_oracle() {
    play(World { mask: u64::MAX >> 30, keys: 30_000, memory_max: 0, value_bits_max: 6, operations: 40_000 });
}

#[test]
fn hashes_of_few_buckets_agree_with_the_oracle() {
    play(World { mask: !0xF000_0000, keys: 30_000, memory_max: 0, value_bits_max: 6, operations: 40_000 });
}
