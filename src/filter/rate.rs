//! The exact false-positive rate of a blocked filter.
//!
//! Keys fall into blocks at random, so a block's load is Poisson distributed, and a block with j keys has
//! a given bit of a lane clear with probability (63/64)^j. The rate is the mean over the loads of the
//! eighth power of the fill. Measured rates are compared with these.

const LANES: i32 = 8;
const LANE_BITS: f64 = 64.0;

/// The false-positive rate of a filter whose blocks hold `keys_per_block` keys on average. 0 if that is not positive.
/// O(`keys_per_block` + 24 standard deviations): microseconds.
pub fn false_positive_rate(keys_per_block: f64) -> f64 {
    if !(keys_per_block > 0.0 && keys_per_block.is_finite()) {
        return 0.0;
    }
    if keys_per_block > 1_000.0 {
        return 1.0;
    }
    let deviation = keys_per_block.sqrt();
    let last = (keys_per_block + 12.0 * deviation + 12.0).ceil();
    let (mut load, mut clear, mut log_probability, mut rate) = (0.0, 1.0, -keys_per_block, 0.0);
    while load <= last {
        rate += libm::exp(log_probability) * f64::powi(1.0 - clear, LANES);
        load += 1.0;
        log_probability += libm::log(keys_per_block / load);
        clear *= 1.0 - 1.0 / LANE_BITS;
    }
    rate.min(1.0)
}

/// The false-positive rate of a fresh filter with this share of set bits, 0 to 1. Also that of a filter that is
/// growing, since the copy of a block is as full as the block.
pub fn false_positive_rate_at_fill(fill: f64) -> f64 {
    if fill >= 1.0 {
        return 1.0;
    }
    false_positive_rate(-LANE_BITS * libm::log(1.0 - fill.max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::{false_positive_rate, false_positive_rate_at_fill};

    #[test]
    fn twelve_bits_a_key_give_what_the_design_says() {
        let rate = false_positive_rate(512.0 / 12.0);
        assert!((0.0040..0.0044).contains(&rate), "{rate}");
    }

    #[test]
    fn nonsense_gives_a_rate_between_0_and_1() {
        for value in [f64::NAN, -1.0, 0.0, 1e-9, 1.0, 999.0, 1e9, f64::INFINITY] {
            assert!((0.0..=1.0).contains(&false_positive_rate(value)), "{value}");
            assert!((0.0..=1.0).contains(&false_positive_rate_at_fill(value)), "{value}");
        }
    }

    #[test]
    fn rate_at_the_fill_of_a_load_is_the_rate_at_that_load() {
        // The mean fill of Poisson loads is 1 - exp(-load/64).
        let by_fill = false_positive_rate_at_fill(1.0 - f64::exp(-40.0 / 64.0));
        assert!((by_fill / false_positive_rate(40.0) - 1.0).abs() < 1e-9);
    }
}
