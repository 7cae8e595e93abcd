//! Whether a peer's filter tells the truth: its claims held against what came of them.
//!
//! Each question to a peer because of its filter ends in a hit, in a collision (the peer never had the
//! key) or in a stale claim (it had it until lately). A filter of a certain fill is expected to claim a
//! certain share of absent keys; one that claims ten times as many lies or is broken, and is then asked 1
//! time in 64 only. Here is nobody who asks, and no clock: the caller tells what happened.

/// How many times the predicted rate is a lie.
const LIE_FACTOR: f64 = 10.0;

/// One of so many questions is still asked of a liar, so that it can be found honest again.
pub const LIAR_ASKED_ONE_IN: u64 = 64;

/// Absent keys after which older ones count half: what a peer was is forgotten by and by.
const ABSENT_WINDOW: u32 = 65_536;

/// False claims below which nobody is called a liar, whatever the rate: chance, or a few odd keys.
const FALSE_CLAIMS_MIN: u32 = 32;

/// What came of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The peer had the key.
    TrueHit,
    /// It did not, and its filter is as it was when the claim was made.
    Collision,
    /// It did not, since it lost the key lately: a change of its filter was on its way.
    Stale,
}

/// The account of one peer's claims. Counters of the whole link, and a window for the rate.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    true_hits: u64,
    collisions: u64,
    stale: u64,
    /// Of the window: keys that the peer did not have and might have claimed, and how many it did claim.
    absent: u32,
    false_claims: u32,
}

impl Truth {
    /// Nothing was claimed yet.
    pub const fn new() -> Self {
        Self { true_hits: 0, collisions: 0, stale: 0, absent: 0, false_claims: 0 }
    }

    /// The peer was asked because of its claim. O(1).
    pub fn claimed(&mut self, claim: Claim) {
        match claim {
            Claim::TrueHit => self.true_hits += 1,
            Claim::Collision => {
                self.collisions += 1;
                self.false_claims = self.false_claims.saturating_add(1);
                self.absent_keys(1);
            }
            Claim::Stale => self.stale += 1,
        }
    }

    /// The filter did not claim `keys` keys that somebody looked for. O(1).
    pub fn not_claimed(&mut self, keys: u64) {
        let keys = u32::try_from(keys).unwrap_or(u32::MAX).min(ABSENT_WINDOW);
        self.absent_keys(keys);
    }

    /// A liar claimed a key, and was not asked because it is one: the claim is taken for false. O(1).
    pub const fn not_asked(&mut self) {
        self.false_claims = self.false_claims.saturating_add(1);
        self.absent_keys(1);
    }

    /// At most a window of them.
    const fn absent_keys(&mut self, keys: u32) {
        self.absent += keys;
        while self.absent >= ABSENT_WINDOW {
            self.absent /= 2;
            self.false_claims /= 2;
        }
    }

    /// Claims that were true, collisions and stale ones, since the link began.
    pub const fn counts(&self) -> (u64, u64, u64) {
        (self.true_hits, self.collisions, self.stale)
    }

    /// The share of absent keys that were claimed lately, 0 to 1; `None` if none was looked for.
    pub fn measured_rate(&self) -> Option<f64> {
        (self.absent > 0).then(|| f64::from(self.false_claims) / f64::from(self.absent))
    }

    /// Whether the filter claims ten times as often as one of its fill should. `predicted` tells that rate,
    /// and is asked only where there were false claims enough for a verdict.
    pub fn is_liar(&self, predicted: impl FnOnce() -> f64) -> bool {
        self.false_claims >= FALSE_CLAIMS_MIN
            && self.measured_rate().is_some_and(|rate| rate > LIE_FACTOR * predicted())
    }
}

#[cfg(test)]
mod tests {
    use super::{Claim, Truth};
    use crate::base::rng::Rng;

    fn told(rate_in_1000: u64, keys: u32, truth: &mut Truth) {
        let mut rng = Rng::new(1);
        for _ in 0..keys {
            if rng.below(1_000) < rate_in_1000 {
                truth.claimed(Claim::Collision);
            } else {
                truth.not_claimed(1);
            }
        }
    }

    #[test]
    fn honest_filter_is_no_liar() {
        let mut truth = Truth::new();
        told(4, 500_000, &mut truth);
        assert!(!truth.is_liar(|| 0.0042));
        assert!((0.003..0.005).contains(&truth.measured_rate().unwrap()));
    }

    #[test]
    fn filter_that_claims_ten_times_too_much_is_a_liar_until_it_stops() {
        let mut truth = Truth::new();
        told(80, 2_000, &mut truth);
        assert!(truth.is_liar(|| 0.0042));
        told(4, 1_000_000, &mut truth);
        assert!(!truth.is_liar(|| 0.0042));
    }

    #[test]
    fn few_false_claims_make_no_liar() {
        let mut truth = Truth::new();
        (0..31).for_each(|_| truth.claimed(Claim::Collision));
        assert!(!truth.is_liar(|| 0.0042));
        truth.claimed(Claim::Collision);
        assert!(truth.is_liar(|| 0.0042));
    }

    #[test]
    fn hits_and_stale_claims_are_no_lies() {
        let mut truth = Truth::new();
        (0..1_000).for_each(|_| truth.claimed(Claim::TrueHit));
        (0..1_000).for_each(|_| truth.claimed(Claim::Stale));
        assert!(!truth.is_liar(|| 0.0042));
        assert_eq!(truth.counts(), (1_000, 0, 1_000));
    }
}
