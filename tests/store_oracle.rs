//! The store against a `HashMap` and a `BTreeMap`: seeded random operations, with full audits in between.
//!
//! `OLIVIA_STORE_OPS=5000000 cargo test --release --test store_oracle` sets the number of operations in each world
//! (`make oracle`), `OLIVIA_STORE_SEED=7` the first seed. A failure prints the world and the seed.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::cast_possible_truncation, reason = "bounded by the tables of the test")]

use olivia::base::rng::Rng;
use olivia::base::time::{Instant, Now};
use olivia::store::{
    Eviction, Expiry, Full, HashRange, HashSecret, RemoveOutcome, ScanCursor, SegmentScan, SetOutcome, Store,
    Version,
};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Bytes above the limit that an expiry or a smaller value may take.
const RESERVE_BYTES: u64 = 256 << 10;

/// Bytes above the limit that a write may take for which room was made: a page of another size, and free slots.
const PROMISED_BYTES_MAX: u64 = 5 << 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// The parameters of a world.
#[derive(Debug, Clone, Copy)]
struct World {
    /// Bits of the hash that are left.
    mask: u64,
    keys: u64,
    memory_max: u64,
    eviction: Eviction,
    /// Values are shorter than 2 to this power.
    value_bits_max: u64,
    operations: u64,
}

struct Held {
    value: Vec<u8>,
    expiry: Option<Expiry>,
    version: Version,
}

struct Game {
    world: World,
    rng: Rng,
    now: Instant,
    store: Store,
    items: HashMap<Vec<u8>, Held>,
    /// Keys by expiry, for what must have expired.
    expiries: BTreeMap<(u64, Vec<u8>), ()>,
    clock: u64,
    refused: u64,
    /// Items that were found to be evicted.
    evicted: u64,
    /// The latest keys that were never there before, with their bytes, which are fewer than those of the small queue:
    /// none of them may be evicted. A key that returns may have its old place in the queue.
    young: VecDeque<(Vec<u8>, u64)>,
    seen: HashSet<Vec<u8>>,
    young_bytes: u64,
    /// The prevailing operation of this part of the run: 0 grow, 1 shrink, 2 churn.
    mood: u64,
    value_bits: u64,
}

impl Game {
    fn new(world: World, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let secret = HashSecret::draw(&mut rng).masked(world.mask);
        let mut store = Store::new(secret, world.memory_max);
        store.set_eviction(world.eviction);
        Self {
            world,
            rng,
            now: Instant::from_millis(1_000),
            store,
            items: HashMap::new(),
            expiries: BTreeMap::new(),
            clock: 0,
            refused: 0,
            evicted: 0,
            young: VecDeque::new(),
            seen: HashSet::new(),
            young_bytes: 0,
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

    /// Seconds or milliseconds from now, now and then a moment beyond what timers reach.
    fn expiry(&mut self) -> Expiry {
        if self.rng.one_in(500) {
            let now = Now { mono: self.now, wall_nanos: self.now.nanos() };
            return Expiry::at(now, Expiry::UNIX_MS_MAX - self.rng.below(1_000)).unwrap();
        }
        let span = 1 << self.rng.below(18);
        let ahead = self.rng.below(span);
        let expiry = if self.rng.one_in(2) { Expiry::in_seconds } else { Expiry::in_millis };
        expiry(self.now, ahead).unwrap()
    }

    fn step(&mut self) {
        let key = self.key();
        self.find_evicted(&key);
        let [set, setex, del, expire] =
            [[40, 65, 70, 75], [5, 10, 60, 65], [20, 40, 60, 70]][self.mood as usize];
        match self.rng.below(100) {
            n if n < set => self.set(key, None),
            n if n < setex => {
                let expiry = self.expiry();
                self.set(key, Some(expiry));
            }
            n if n < del => self.remove(&key),
            n if n < expire => self.expire(&key),
            n if n < expire + 4 => self.update(&key),
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
            self.expiries.clear();
        }
    }

    /// Forgets an item if it was evicted.
    fn find_evicted(&mut self, key: &[u8]) {
        let Some(expiry) = self.alive(key).map(|held| held.expiry) else { return };
        if self.world.eviction == Eviction::Refuse || self.store.get(self.now, self.store.key(key)).is_some()
        {
            return;
        }
        assert!(
            expiry.is_some() || self.world.eviction == Eviction::AnyItem,
            "an item without a TTL is gone"
        );
        assert!(self.young.iter().all(|(young, _)| young != key), "one of the latest keys is evicted");
        self.evicted += 1;
        self.forget(key);
        assert!(self.evicted <= self.store.evicted(), "an item is gone that was not evicted");
    }

    fn alive(&self, key: &[u8]) -> Option<&Held> {
        self.items.get(key).filter(|held| held.expiry.is_none_or(|expiry| !expiry.has_come(self.now)))
    }

    fn forget(&mut self, key: &[u8]) {
        if let Some(Held { expiry: Some(expiry), .. }) = self.items.remove(key) {
            self.expiries.remove(&(expiry.millis(), key.to_vec()));
        }
    }

    /// The next version, or one that is older than some.
    fn version(&mut self) -> Version {
        self.clock += 1;
        let past = if self.rng.one_in(8) { self.rng.below(1 << 12) } else { 0 };
        Version(self.clock.saturating_sub(past))
    }

    fn set(&mut self, key: Vec<u8>, expiry: Option<Expiry>) {
        let value = self.value();
        let version = self.version();
        let promised =
            self.rng.one_in(16) && self.store.make_room(self.now, 1, key.len() + value.len()).is_ok();
        self.find_evicted(&key);
        let before = self.store.memory_bytes();
        let result = self.store.set(self.now, self.store.key(&key), &value, expiry, version);
        if promised {
            self.store.keep_up(self.now, 0);
        }
        if self.alive(&key).is_some_and(|held| held.version > version) {
            assert_eq!((result, self.store.memory_bytes()), (Ok(SetOutcome::Newer), before));
            return self.get(&key);
        }
        let held = self.items.get(&key).map(|held| held.expiry.is_some_and(|at| at.has_come(self.now)));
        match (result, held) {
            (Ok(outcome), None) => assert_eq!(outcome, SetOutcome::Created),
            (Ok(outcome), Some(false)) => {
                assert!(outcome == SetOutcome::Replaced || self.world.eviction != Eviction::Refuse);
            }
            // Reclaimed or not yet.
            (Ok(_), Some(true)) | (Err(_), _) => {}
        }
        if let Err(full) = result {
            assert!(!promised, "refused after there was room");
            let used_bytes = self.store.memory_bytes();
            let Full::Limit { limit_bytes, .. } = full else { panic!("{full:?}") };
            assert_eq!(limit_bytes, self.world.memory_max);
            assert!(used_bytes <= Self::most_after_refusal(before), "refusing took memory");
            self.refused += 1;
            self.find_evicted(&key);
            return self.get(&key);
        }
        self.check_limit(before, if promised { PROMISED_BYTES_MAX } else { RESERVE_BYTES });
        if held.is_none() {
            self.created(&key, key.len() + value.len());
        }
        self.forget(&key);
        if let Some(expiry) = expiry {
            self.expiries.insert((expiry.millis(), key.clone()), ());
        }
        self.items.insert(key, Held { value, expiry, version });
    }

    /// Notes a new key, and checks those that are not among the latest any more: the small queue has a tenth of the
    /// live bytes, which may have been fewer when a key was evicted.
    fn created(&mut self, key: &[u8], bytes: usize) {
        // Keys of equal hashes have no order, and those without a TTL count as part of the small queue.
        if self.world.eviction != Eviction::AnyItem || self.world.mask != u64::MAX {
            return;
        }
        if self.seen.insert(key.to_vec()) {
            self.young.push_back((key.to_vec(), bytes as u64));
            self.young_bytes += bytes as u64;
        }
        while self.young_bytes > self.store.live_bytes() / 40 {
            let (oldest, bytes) = self.young[0].clone();
            self.find_evicted(&oldest);
            self.young.pop_front();
            self.young_bytes -= bytes;
        }
    }

    /// Bytes that may be held after a write was refused: queues and ghost of eviction may have grown, and items that
    /// were moved have timers at both places until these are purged.
    fn most_after_refusal(before: u64) -> u64 {
        before + (64 << 10)
    }

    fn check_limit(&self, before: u64, reserve: u64) {
        // Of equal hashes the queues find few at a time; the rest is reclaimed later.
        let above = if self.world.mask == u64::MAX { 0 } else { self.world.memory_max / 16 };
        let max = self.world.memory_max + reserve + above;
        assert!(
            self.world.memory_max == 0 || self.store.memory_bytes() <= max.max(before),
            "the limit was passed"
        );
    }

    /// Gives a value another length and writes into it.
    fn update(&mut self, key: &[u8]) {
        let version = self.version();
        let old_len = self.alive(key).map_or(0, |held| held.value.len());
        let len = match self.rng.below(4) {
            0 => old_len,
            1 => self.rng.below(1 << self.value_bits) as usize,
            2 => old_len + self.rng.below(20) as usize,
            _ => old_len.saturating_sub(self.rng.below(20) as usize),
        };
        let at = self.rng.below(len as u64 + 1) as usize;
        let before = self.store.memory_bytes();
        let result = self.store.update(self.now, self.store.key(key), len, version, |value| {
            value[at..].iter_mut().take(9).for_each(|byte| *byte ^= 0x55);
            value.len()
        });
        self.check_limit(before, RESERVE_BYTES);
        match result {
            Err(_) => {
                assert!(
                    self.store.memory_bytes() <= Self::most_after_refusal(before),
                    "refusing took memory"
                );
                self.refused += 1;
                self.find_evicted(key);
            }
            Ok(None) => assert!(self.alive(key).is_none()),
            Ok(Some(found)) => {
                assert!(found == len && self.alive(key).is_some());
                let held = self.items.get_mut(key).unwrap();
                held.value.resize(len, 0);
                held.value[at..].iter_mut().take(9).for_each(|byte| *byte ^= 0x55);
                held.version = version;
            }
        }
        self.get(key);
    }

    fn remove(&mut self, key: &[u8]) {
        let version = if self.rng.one_in(2) { Version::MAX } else { self.version() };
        let expected = match self.alive(key) {
            None => RemoveOutcome::Absent,
            Some(held) if held.version > version => RemoveOutcome::Newer,
            Some(_) => RemoveOutcome::Removed,
        };
        assert_eq!(self.store.remove(self.now, self.store.key(key), version), expected);
        if expected == RemoveOutcome::Removed {
            self.forget(key);
        }
        self.get(key);
    }

    fn expire(&mut self, key: &[u8]) {
        let expiry = if self.rng.one_in(4) { None } else { Some(self.expiry()) };
        let was_there = self.alive(key).is_some();
        let before = self.store.memory_bytes();
        let result = self.store.set_expiry(self.now, self.store.key(key), expiry);
        self.check_limit(before, RESERVE_BYTES);
        let Ok(found) = result else {
            assert!(expiry.is_some(), "removing an expiry was refused");
            assert!(self.store.memory_bytes() <= Self::most_after_refusal(before), "refusing took memory");
            self.find_evicted(key);
            return self.get(key);
        };
        if was_there && !found {
            self.find_evicted(key);
        }
        assert_eq!(found, self.alive(key).is_some());
        if found {
            let held = self.items.get_mut(key).unwrap();
            if let Some(old) = std::mem::replace(&mut held.expiry, expiry) {
                self.expiries.remove(&(old.millis(), key.to_vec()));
            }
            if let Some(expiry) = expiry {
                self.expiries.insert((expiry.millis(), key.to_vec()), ());
            }
        }
        self.get(key);
    }

    fn get(&self, key: &[u8]) {
        let found = self.store.get(self.now, self.store.key(key));
        let held = self.alive(key);
        assert_eq!(found.is_some(), held.is_some());
        if let (Some(found), Some(held)) = (found, held) {
            assert_eq!(found.value, held.value);
            assert_eq!((found.expiry, found.version), (held.expiry, held.version));
        }
    }

    /// Lets the store do all its work, and compares everything.
    fn check_all(&mut self) {
        self.reconcile();
        let later = self.expiries.split_off(&(self.now.millis() + 1, Vec::new()));
        for ((_, key), ()) in std::mem::replace(&mut self.expiries, later) {
            self.items.remove(&key);
        }
        let keys: Vec<Vec<u8>> = self.items.keys().cloned().collect();
        keys.iter().for_each(|key| self.find_evicted(key));
        let audit = self.store.audit();
        assert_eq!((audit.items, self.store.len()), (self.items.len(), self.items.len()));
        assert_eq!(audit.items_with_expiry, self.expiries.len());
        assert!(audit.timers <= 2 * audit.items_with_expiry + 64 * 1024);
        for key in self.items.keys() {
            self.get(key);
        }
        self.check_ranges();
        self.check_live_bytes();
        let budget = 1 + self.rng.below(200) as usize;
        let (mut cursor, mut visited) = (ScanCursor::START, Vec::new());
        loop {
            cursor = self.scan_step(cursor, budget, &mut visited);
            if cursor == ScanCursor::START {
                break;
            }
        }
        assert!(visited.is_sorted_by_key(|key| self.store.key(key).hash), "not in the order of hashes");
        let keys: HashSet<&Vec<u8>> = visited.iter().collect();
        assert_eq!((keys.len(), visited.len()), (self.items.len(), self.items.len()));
        assert!(keys.iter().all(|key| self.items.contains_key(*key)));
        if let Some(next) = self.store.next_deadline() {
            assert!(next > self.now, "work at {next:?} was left over");
        }
    }

    /// One call of scan, whose items are compared.
    fn scan_step(&self, cursor: ScanCursor, budget: usize, visited: &mut Vec<Vec<u8>>) -> ScanCursor {
        let before = visited.len();
        let next = self.store.scan(self.now, cursor, budget, |key, item| {
            let held = self.alive(key).expect("an item that is not there");
            assert!(item.value == held.value && item.expiry == held.expiry && item.version == held.version);
            visited.push(key.to_vec());
            true
        });
        let equal = |key: &Vec<u8>| {
            visited.last().is_some_and(|last| self.store.key(last).hash == self.store.key(key).hash)
        };
        let ties = visited[before..].iter().filter(|key| equal(key)).count();
        assert!(visited.len() - before < budget + ties.max(1), "more than the budget");
        next
    }

    /// Live bytes are those of keys and values with at most 45 % and 64 bytes more, if no small store had to keep
    /// items in larger slots, and all held.
    fn check_live_bytes(&self) {
        let bytes: usize = self.items.iter().map(|(key, held)| key.len() + held.value.len()).sum();
        let (live, bytes) = (self.store.live_bytes(), bytes as u64);
        let most = bytes + bytes * 45 / 100 + 64 * self.items.len() as u64;
        let most = if self.world.eviction == Eviction::Refuse { most } else { u64::MAX };
        assert!((bytes..=most).contains(&live), "{live} bytes live of {bytes}");
        assert!(live <= self.store.memory_bytes());
    }

    /// Compares the hashes of some ranges, and of each range that needs a rebuild.
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
        while self.store.has_rebuilds() {
            ranges.extend(self.store.take_rebuild());
            steps += 1;
            assert!(steps < 10_000, "rebuilds without end");
        }
        for range in ranges.into_iter().take(40) {
            let (mut found, mut at, mut steps) = (Vec::new(), SegmentScan::Segments(range.first), 0);
            while at != SegmentScan::Done {
                let before = found.len();
                at = self.store.scan_hashes(range, at, &mut found);
                assert!(found.len() - before <= 768 + 128, "{} in a step", found.len() - before);
                steps += 1;
                assert!(steps < 100_000, "scan without end");
            }
            let hashes = self.items.keys().map(|key| self.store.key(key).hash.0);
            let expected: HashSet<u64> = hashes.filter(|&hash| range.contains(hash)).collect();
            assert_eq!(found.into_iter().collect::<HashSet<u64>>(), expected, "{range:?}");
        }
        assert!(!self.store.has_rebuilds(), "a scan causes no rebuild");
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
            assert_eq!(
                self.store.remove(self.now, self.store.key(&key), Version::MAX),
                RemoveOutcome::Removed
            );
            self.forget(&key);
        }
        // Maps that were just used are kept until the next look.
        for _ in 0..2 {
            self.now = Instant::from_millis(self.now.millis() + (1 << 30));
            self.check_all();
        }
        assert!(self.store.is_empty() && self.store.live_bytes() == 0);
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
        println!("{} refused, {} of {} evicted found", game.refused, game.evicted, game.store.evicted());
        let is_reached = if world.eviction == Eviction::AnyItem { game.evicted } else { game.refused } > 0;
        assert_eq!(world.memory_max != 0, is_reached, "the limit is reached where there is one");
        assert!(
            world.eviction != Eviction::AnyItem || game.refused == 0,
            "refused though items can be evicted"
        );
    }
}

#[test]
fn many_small_items_agree_with_the_oracle() {
    play(World {
        mask: u64::MAX,
        keys: 40_000,
        memory_max: 0,
        eviction: Eviction::Refuse,
        value_bits_max: 8,
        operations: 100_000,
    });
}

#[test]
fn items_of_all_sizes_agree_with_the_oracle() {
    play(World {
        mask: u64::MAX,
        keys: 3_000,
        memory_max: 0,
        eviction: Eviction::Refuse,
        value_bits_max: 18,
        operations: 25_000,
    });
}

#[test]
fn few_keys_in_much_churn_agree_with_the_oracle() {
    play(World {
        mask: u64::MAX,
        keys: 40,
        memory_max: 0,
        eviction: Eviction::Refuse,
        value_bits_max: 12,
        operations: 80_000,
    });
}

#[test]
fn store_at_its_limit_loses_nothing_and_keeps_to_it() {
    play(World {
        mask: u64::MAX,
        keys: 20_000,
        memory_max: 4 << 20,
        eviction: Eviction::Refuse,
        value_bits_max: 12,
        operations: 80_000,
    });
}

#[test]
fn evicted_keys_are_misses_and_nothing_else_is_lost() {
    let game = |eviction, mask, memory_max, value_bits_max| {
        play(World { mask, keys: 40_000, memory_max, eviction, value_bits_max, operations: 30_000 });
    };
    for eviction in [Eviction::AnyItem, Eviction::ItemsWithTtl] {
        game(eviction, u64::MAX, 1 << 20, 8);
        game(eviction, u64::MAX, 4 << 20, 13);
        game(eviction, u64::MAX, 4 << 20, 16);
    }
    // Entries of equal hashes get lost, and are found again.
    game(Eviction::AnyItem, 0xF << 60, 1 << 20, 8);
    game(Eviction::AnyItem, 0, 1 << 20, 8);
}

#[test]
fn colliding_hashes_agree_with_the_oracle() {
    // All are equal; they differ in four bits; they lack their top bits; they fall into few buckets.
    for mask in [0, 0xF << 60, u64::MAX >> 30, !0xF000_0000] {
        let (keys, operations) = if mask == 0 { (6_000, 25_000) } else { (30_000, 40_000) };
        let (memory_max, eviction, value_bits_max) = (0, Eviction::Refuse, 6);
        play(World { mask, keys, memory_max, eviction, value_bits_max, operations });
    }
}

/// Scans a store while it grows to many times its size, shrinks again and has keys that come and go, and
/// returns how often each key that stayed was visited.
fn scan_while_it_changes(mask: u64, stay: u64, others: u64) {
    let mut rng = Rng::new(mask ^ stay);
    let mut store = Store::new(HashSecret::draw(&mut rng).masked(mask), 0);
    let now = Instant::ZERO;
    let key = |id: u64| id.to_be_bytes();
    let set = |store: &mut Store, id: u64| {
        store.set(now, store.key(&key(id)), b"value", None, Version(1)).unwrap();
    };
    for id in 0..stay {
        set(&mut store, id);
    }
    let mut world = store;
    for round in 0..4 {
        let grows = round % 2 == 0;
        let (mut seen, mut cursor, mut next) = (HashMap::new(), ScanCursor::START, 0);
        let budget = 1 + rng.below(64) as usize;
        loop {
            cursor = world.scan(now, cursor, budget, |key, _| {
                *seen.entry(u64::from_be_bytes(key.try_into().unwrap())).or_insert(0) += 1;
                true
            });
            if cursor == ScanCursor::START {
                break;
            }
            // All others come, or go, during about half of the scan.
            for _ in 0..(2 * others * budget as u64).div_ceil(stay) {
                let id = stay + next % others.max(1);
                next += 1;
                if next > others {
                    break;
                }
                if grows {
                    set(&mut world, id);
                } else {
                    world.remove(now, world.key(&key(id)), Version::MAX);
                }
            }
            world.reclaim(now, 64);
        }
        assert!((0..stay).all(|id| seen.get(&id) == Some(&1)), "round {round}: a key that stayed");
        assert!(seen.values().all(|&times| times == 1), "round {round}: a key twice");
        for id in stay..stay + others {
            if grows {
                set(&mut world, id);
            } else {
                world.remove(now, world.key(&key(id)), Version::MAX);
            }
        }
        world.audit();
    }
}

#[test]
fn scan_visits_every_key_that_stays_once_while_segments_split_and_merge() {
    scan_while_it_changes(u64::MAX, 3_000, 60_000);
}

#[test]
fn scan_visits_every_key_that_stays_once_while_an_empty_index_grows() {
    scan_while_it_changes(u64::MAX, 3, 5_000);
}

#[test]
fn scan_visits_every_key_that_stays_once_when_hashes_are_equal() {
    scan_while_it_changes(0, 2_000, 4_000);
    scan_while_it_changes(0x7 << 61, 2_000, 10_000);
    scan_while_it_changes(u64::MAX >> 30, 2_000, 20_000);
    scan_while_it_changes(u64::MAX << 53, 20_000, 20_000);
}
