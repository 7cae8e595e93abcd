//! Measured properties of the Bloom filter: the false-positive rate against the exact theory of its layout, and under
//! churn against a fresh filter; no false negative at any moment against a set.

use olivia::base::rng::Rng;
use olivia::filter::bloom::Bloom;
use olivia::filter::size::{BLOCK_BITS, BLOCK_WORDS, Size};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Enough for 250 false positives at the smallest rate.
const PROBES: u32 = if cfg!(debug_assertions) { 300_000 } else { 2_000_000 };

/// The rate at `load` keys a block on average, computed apart from the program: the loads of blocks are
/// Poisson distributed, and each of 8 lanes of 64 bits has one bit of each of its block's keys.
fn theory(load: f64) -> f64 {
    let mut probability = f64::exp(-load);
    let mut rate = 0.0;
    for keys in 1..2_000 {
        let keys = f64::from(keys);
        probability *= load / keys;
        rate += probability * (1.0 - (63.0f64 / 64.0).powf(keys)).powi(8);
    }
    rate
}

fn size(log2: u8) -> Size {
    Size::from_log2(log2).unwrap()
}

/// The share of hashes that were never inserted and are claimed.
fn measured(filter: &Bloom, rng: &mut Rng, probes: u32) -> f64 {
    let claimed = (0..probes).filter(|_| filter.contains(rng.next_u64())).count();
    claimed as f64 / f64::from(probes)
}

fn assert_rates(log2: u8, probes: u32) {
    for bits_per_key in [8, 10, 12, 16] {
        let mut rng = Rng::new(u64::from(log2) << 8 | bits_per_key);
        let mut filter = Bloom::new(size(log2));
        for _ in 0..size(log2).bits() / bits_per_key {
            filter.insert(rng.next_u64());
        }
        let expected = theory(BLOCK_BITS as f64 / bits_per_key as f64);
        let ratio = measured(&filter, &mut rng, probes) / expected;
        println!("2^{log2} blocks, {bits_per_key} bits a key: theory {expected:.6}, ratio {ratio:.4}");
        assert!(ratio <= 1.15, "{ratio} times the theory at {bits_per_key} bits, 2^{log2} blocks");
        assert!(ratio >= 0.85, "too good to be true: {ratio}");
        let predicted = filter.predicted_false_positive_rate() / expected;
        assert!((0.95..1.05).contains(&predicted), "predicted {predicted} times the theory");
    }
}

#[test]
fn false_positives_are_as_rare_as_the_theory_says_in_small_filters() {
    assert_rates(10, PROBES);
}

#[test]
fn false_positives_are_as_rare_as_the_theory_says_in_middling_filters() {
    assert_rates(16, PROBES);
}

#[test]
#[ignore = "half a minute in release, minutes in debug: cargo test --release -- --ignored"]
fn false_positives_are_as_rare_as_the_theory_says_in_large_filters() {
    assert_rates(21, 10_000_000);
}

/// Hashes as they come: some alike in their top bits, some in their low ones.
fn hash(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0 => rng.next_u64() >> 20,
        1 => rng.next_u64() << 30,
        _ => rng.next_u64(),
    }
}

fn between(blocks: Range<usize>, size: Size) -> (u64, u64) {
    let width = u128::from(u64::MAX / size.blocks() as u64) + 1;
    let (first, end) = (blocks.start as u128 * width, blocks.end as u128 * width);
    (u64::try_from(first).unwrap(), u64::try_from(end - 1).unwrap())
}

#[test]
fn no_hash_is_missing_at_any_moment_of_any_change() {
    for seed in 0..if cfg!(debug_assertions) { 5 } else { 100 } {
        let mut rng = Rng::new(seed);
        let mut filter = Bloom::new(size(u8::try_from(rng.below(13)).unwrap()));
        let mut live = BTreeSet::new();
        let mut changed = Vec::new();
        let mut migration: Option<(Bloom, usize)> = None;
        for round in 0..4_000 {
            let new = hash(&mut rng);
            match rng.below(100) {
                0..40 => {
                    filter.insert(new);
                    migration.iter_mut().for_each(|(filter, _)| _ = filter.insert(new));
                    live.insert(new);
                }
                40..55 => _ = live.range(new..).next().copied().map(|gone| live.remove(&gone)),
                55..75 if migration.is_none() => {
                    let coarse = filter.size();
                    let start = coarse.block_of(new);
                    let range = start..coarse.blocks().min(start + 1 + usize::from(rng.one_in(4)) * 200);
                    let (first, last) = between(range.clone(), coarse);
                    changed.clear();
                    let left = live.range(first..=last).copied();
                    assert!(filter.rebuild_blocks(range.clone(), left, &mut changed));
                    assert!(changed.iter().all(|&block| range.contains(&(block as usize))));
                }
                75..76 if migration.is_none() => {
                    let log2 = u8::try_from(rng.below(14)).unwrap();
                    migration = Some((Bloom::new(size(log2)), 0));
                }
                _ => {
                    let Some((next, at)) = &mut migration else { continue };
                    let until = filter.size().blocks().min(*at + 1_024);
                    (*at..until).for_each(|number| next.merge(&filter, number));
                    *at = until;
                    if until == filter.size().blocks()
                        && let Some((next, _)) = migration.take()
                    {
                        filter = next;
                    }
                }
            }
            if round % 50 == 0 {
                assert!(live.iter().all(|&hash| filter.contains(hash)), "seed {seed}, round {round}");
            }
            assert!((0.0..=1.0).contains(&filter.fill()));
        }
        let words = filter.words();
        let ones: u64 = words.iter().map(|word| u64::from(word.count_ones())).sum();
        assert_eq!((words.len(), filter.ones()), (filter.size().blocks() * BLOCK_WORDS, ones), "{seed}");
    }
}

#[test]
fn churn_leaves_a_rate_near_that_of_a_fresh_filter() {
    const SEGMENT_BLOCKS: usize = 16;
    let (mut rng, size) = (Rng::new(9), size(8));
    let keys = usize::try_from(size.bits() / 12).unwrap();
    let mut filter = Bloom::new(size);
    let (mut live, mut picked) = (BTreeSet::new(), Vec::new());
    let mut lost: BTreeMap<usize, usize> = BTreeMap::new();
    for _ in 0..keys {
        let new = rng.next_u64();
        filter.insert(new);
        live.insert(new);
        picked.push(new);
    }
    let mut worst = 0.0f64;
    for turn in 0..keys * 5 {
        // Each with the same chance, or the hashes that are left would be crowded.
        let new = rng.next_u64();
        let at = usize::try_from(rng.below(keys as u64)).unwrap();
        let gone = std::mem::replace(&mut picked[at], new);
        live.remove(&gone);
        let segment = size.block_of(gone) / SEGMENT_BLOCKS;
        let count = lost.entry(segment).or_default();
        *count += 1;
        // 7 % of what a segment holds.
        if *count * 100 > 7 * keys / (size.blocks() / SEGMENT_BLOCKS) {
            *count = 0;
            let blocks = segment * SEGMENT_BLOCKS..(segment + 1) * SEGMENT_BLOCKS;
            let (first, last) = between(blocks.clone(), size);
            let left = live.range(first..=last).copied();
            assert!(filter.rebuild_blocks(blocks, left, &mut Vec::new()));
        }
        filter.insert(new);
        live.insert(new);
        if turn % keys == keys - 1 {
            let fresh = theory(live.len() as f64 / size.blocks() as f64);
            worst = worst.max(measured(&filter, &mut rng, PROBES) / fresh);
        }
    }
    println!("worst rate under churn: {worst:.3} times a fresh filter's");
    assert!(worst <= 1.5, "{worst} times the rate of a fresh filter");
    assert!(live.iter().all(|&hash| filter.contains(hash)));
}
