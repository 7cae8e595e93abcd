//! The filters of many peers, bit-sliced or separate, against one plain filter per peer: equal claims, and no claim
//! missing during a migration.

use olivia::base::rng::Rng;
use olivia::filter::bloom::Bloom;
use olivia::filter::size::Size;
use olivia::filter::{FilterError, FilterKey, PeerFilters};
use std::collections::HashSet;

/// A peer as it is: its hashes, and the filter that it would publish.
struct Model {
    key: FilterKey,
    filter: Bloom,
    hashes: Vec<u64>,
}

struct World {
    rng: Rng,
    filters: PeerFilters,
    models: Vec<Model>,
}

fn size(log2: u64) -> Size {
    Size::from_log2(u8::try_from(log2).unwrap()).unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), filters: PeerFilters::new(1 << 30), models: Vec::new() }
    }

    fn pick(&mut self, of: usize) -> usize {
        usize::try_from(self.rng.below(of as u64)).unwrap()
    }

    fn join(&mut self, size: Size) {
        let (key, filter) = (self.filters.join(), Bloom::new(size));
        self.models.push(Model { key, filter, hashes: Vec::new() });
        let at = self.models.len() - 1;
        self.snapshot(at);
    }

    /// A snapshot with additions and steps in between.
    fn snapshot(&mut self, at: usize) {
        let key = self.models[at].key;
        let was_unknown = self.filters.is_unknown(key);
        self.filters.begin_snapshot(key, self.models[at].filter.size()).unwrap();
        assert_eq!(self.filters.is_unknown(key), was_unknown);
        for number in 0..self.models[at].filter.size().blocks() {
            let image = *self.models[at].filter.block(number).unwrap();
            self.filters.snapshot_block(key, number, &image).unwrap();
            if self.rng.one_in(4) {
                self.add(at);
                self.filters.step();
            }
        }
        self.filters.finish_snapshot(key).unwrap();
        self.filters.trust(key).unwrap();
    }

    fn add(&mut self, at: usize) {
        let hash = self.rng.next_u64();
        let model = &mut self.models[at];
        if model.filter.fill() > 0.6 {
            return;
        }
        model.filter.insert(hash);
        model.hashes.push(hash);
        self.filters.add(model.key, hash).unwrap();
    }

    /// Some hashes go, their block is rebuilt and its image sent.
    fn remove(&mut self, at: usize) {
        if self.models[at].hashes.is_empty() {
            return;
        }
        let gone = self.pick(self.models[at].hashes.len());
        let model = &mut self.models[at];
        let block = model.filter.size().block_of(model.hashes.swap_remove(gone));
        model.filter.rebuild_blocks(block..block + 1, model.hashes.iter().copied(), &mut Vec::new());
        let image = *model.filter.block(block).unwrap();
        self.filters.replace_block(model.key, u32::try_from(block).unwrap(), &image).unwrap();
    }

    fn resize(&mut self, at: usize) {
        let larger = self.rng.one_in(2);
        let model = &mut self.models[at];
        let log2 = model.filter.size().log2();
        let is_out = if larger { log2 > 6 } else { log2 == 0 || model.filter.fill() > 0.4 };
        if is_out {
            return;
        }
        let mut filter = Bloom::new(size(u64::from(if larger { log2 + 1 } else { log2 - 1 })));
        model.hashes.iter().for_each(|&hash| _ = filter.insert(hash));
        model.filter = filter;
        self.snapshot(at);
    }

    fn leave(&mut self, at: usize) {
        let model = self.models.swap_remove(at);
        self.filters.leave(model.key);
        assert_eq!(self.filters.add(model.key, 1), Err(FilterError::Stale));
    }

    fn claims(&self, hash: u64) -> HashSet<u64> {
        let mut found = Vec::new();
        self.filters.claimants(hash, &mut found);
        let claims: HashSet<u64> = found.iter().map(|key| key.to_bits()).collect();
        assert_eq!(claims.len(), found.len(), "somebody claims a key twice");
        claims
    }

    fn check(&mut self) {
        for at in 0..self.models.len() {
            if self.models[at].hashes.is_empty() {
                continue;
            }
            let hash = self.pick(self.models[at].hashes.len());
            let (key, hash) = (self.models[at].key, self.models[at].hashes[hash]);
            assert!(self.claims(hash).contains(&key.to_bits()), "a false negative");
        }
        if self.filters.has_work() {
            return;
        }
        let hashes: Vec<u64> = (0..50).map(|_| self.rng.next_u64()).collect();
        let claimed = self.filters.claimed(&hashes);
        for (at, hash) in hashes.into_iter().enumerate() {
            let models = self.models.iter().filter(|model| model.filter.contains(hash));
            let expected: HashSet<u64> = models.map(|model| model.key.to_bits()).collect();
            assert_eq!(claimed >> at & 1 == 1, !expected.is_empty());
            assert_eq!(self.claims(hash), expected);
        }
        for model in &self.models {
            assert_eq!(self.filters.size(model.key), Some(model.filter.size()));
            assert!((self.filters.fill(model.key).unwrap() - model.filter.fill()).abs() < 1e-12);
        }
    }
}

#[test]
fn sliced_filters_claim_exactly_what_separate_ones_claim() {
    for seed in 0..if cfg!(debug_assertions) { 8 } else { 40 } {
        let mut world = World::new(seed);
        let peers_max = [3, 40, 70, 120][usize::try_from(seed % 4).unwrap()];
        let mut most_sliced = 0;
        for _ in 0..3_000 {
            let at = world.pick(world.models.len().max(1));
            match world.rng.below(100) {
                _ if world.models.len() < 2 => world.join(size(3)),
                0..10 if world.models.len() < peers_max => world.join(size(2 + seed % 2)),
                10..11 => world.leave(at),
                11..13 => world.snapshot(at),
                13..17 => world.resize(at),
                17..35 => world.remove(at),
                35..70 => world.add(at),
                _ => {
                    world.filters.step();
                }
            }
            if world.rng.one_in(50) {
                while world.filters.step() {}
            }
            if world.rng.one_in(10) {
                world.check();
            }
            most_sliced = most_sliced.max(world.filters.layout().1);
        }
        assert_eq!(most_sliced > 0, peers_max > 8, "{most_sliced} of {peers_max} in columns");
        while !world.models.is_empty() {
            world.leave(0);
        }
        while world.filters.step() {}
        assert_eq!(world.filters.bytes(), 0, "the account of bytes does not add up");
    }
}

#[test]
fn what_changes_while_filters_move_is_in_both_places() {
    // Four steps to copy one, so that changes fall before and behind the place of the copy.
    let mut world = World::new(3);
    (0..12).for_each(|_| world.join(size(8)));
    for growing in 0..12 {
        let mut steps = 0;
        while world.filters.has_work() {
            for at in 0..12 {
                (0..30).for_each(|_| world.add(at));
                (0..5).for_each(|_| world.remove(at));
            }
            world.check();
            world.filters.step();
            steps += 1;
        }
        // The first twelve become columns, and those that have grown as soon as they are nine.
        let is_copying = growing == 0 || growing >= 9;
        assert_eq!(steps >= 4, is_copying, "{steps} steps");
        world.check();
        let model = &mut world.models[growing];
        let mut filter = Bloom::new(size(9));
        model.hashes.iter().for_each(|&hash| _ = filter.insert(hash));
        model.filter = filter;
        world.snapshot(growing);
    }
}

#[test]
fn what_does_not_fit_into_the_budget_is_refused_and_unknown() {
    let mut filters = PeerFilters::new(size(10).bytes() * 3);
    let keys: Vec<FilterKey> = (0..4).map(|_| filters.join()).collect();
    for key in &keys[..3] {
        filters.begin_snapshot(*key, size(10)).unwrap();
        filters.finish_snapshot(*key).unwrap();
        filters.trust(*key).unwrap();
    }
    assert_eq!(filters.begin_snapshot(keys[3], size(10)), Err(FilterError::OverBudget));
    assert_eq!(filters.unknown(), &keys[3..]);
    assert_eq!(filters.begin_snapshot(keys[0], size(11)), Err(FilterError::OverBudget));
    assert!(filters.is_unknown(keys[0]) && filters.size(keys[0]).is_none());
    // A smaller one fits where the one that grew was.
    while filters.step() {}
    filters.begin_snapshot(keys[3], size(9)).unwrap();
    filters.finish_snapshot(keys[3]).unwrap();
    assert!(filters.bytes() <= size(10).bytes() * 3);
}

#[test]
fn nine_filters_stay_apart_where_a_bank_would_not_fit() {
    let mut filters = PeerFilters::new(size(8).bytes() * 60);
    let mut rng = Rng::new(5);
    for _ in 0..20 {
        let key = filters.join();
        filters.begin_snapshot(key, size(8)).unwrap();
        filters.finish_snapshot(key).unwrap();
        filters.add(key, rng.next_u64()).unwrap();
    }
    while filters.step() {}
    assert_eq!(filters.layout(), (20, 0));
}
