//! The false-positive rate of the Bloom filter against the exact theory of its layout. No false negative, and the rate
//! under churn: `src/node/digest/own_filter/tests.rs`.

use olivia::base::rng::Rng;
use olivia::filter::bloom::Bloom;
use olivia::filter::size::{BLOCK_BITS, Size};

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
