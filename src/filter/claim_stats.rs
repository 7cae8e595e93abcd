//! Whether a peer's filter tells the truth: its claims held against what came of them.
//!
//! Each question to a peer because of its filter ends in a hit, in a collision (the peer never had the
//! key, or lost it and has not rebuilt its filter yet) or in a stale claim (it had it until lately). A
//! filter of a certain fill is expected to claim a certain share of absent keys. One that claims ten times
//! as many, and of whose claims less than one in ten comes true, lies or is broken, and is then asked 1
//! time in 64 only. Both are needed: what is not asked is not found, so a peer whose keys expire, and which
//! goes on claiming them for a while, must stay believed for the sake of those that it has. And what is
//! expected is summed up with the fill of the moment, since a filter that has just grown has the collisions
//! of its fuller days behind it. A key that was claimed in vain counts once: clients ask again and again for one
//! that is gone, and the filter claims it until its block is rebuilt.
//!
//! Here is nobody who asks, and no clock: the caller tells what happened.

use super::rate::false_positive_rate_at_fill;

/// How many times the expected false claims are a lie, and how many false ones a true one makes up for.
const LIE_FACTOR: f64 = 10.0;

/// One of so many questions is still asked of a liar, so that it can be found honest again.
pub const LIAR_ASKED_ONE_IN: u32 = 64;

/// Keys after which older ones count half: what a peer was is forgotten by and by.
const WINDOW: u32 = 65_536;

/// False claims below which nobody is called a liar, whatever the rate: chance, or a few odd keys.
const FALSE_CLAIMS_MIN: u32 = 32;

/// The rate of a filter that is about to grow, with 12 bits a key. What an emptier one claims in vain is held
/// against this too: it costs no more, and a few keys that are gone are many times the next to nothing that
/// is expected of it.
const RATE_MIN: f64 = 0.0042;

/// Keys claimed in vain that are remembered, so that each counts once.
const REMEMBERED: usize = 256;

/// A fill that differs by less from the one that the rate was computed for has that rate.
const FILL_STEP: f64 = 0.005;

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
pub struct ClaimStats {
    true_hits: u64,
    collisions: u64,
    stale: u64,
    /// Of the window: keys that the peer did not have and might have claimed, how many it did claim, and
    /// how many a filter of its fill would have; and claims that came true.
    absent: u32,
    false_claims: u32,
    expected: f64,
    true_claims: u32,
    /// The rate of false claims to be expected at the moment, and the fill that it was computed for.
    rate: f64,
    fill: f64,
    /// The hashes of keys claimed in vain, each at the place that its low bits name.
    in_vain: Vec<u64>,
}

impl ClaimStats {
    /// Nothing was claimed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The share of the filter's bits that are set at the moment; `None` if it is not known, so that every
    /// claim is as expected. O(1), and microseconds where it has changed by much.
    pub fn fill_is(&mut self, fill: Option<f64>) {
        let fill = fill.unwrap_or(1.0);
        if (fill - self.fill).abs() >= FILL_STEP {
            self.fill = fill;
            self.rate = false_positive_rate_at_fill(fill).max(RATE_MIN);
        }
    }

    /// The peer was asked because of its claim of a key with this hash. What comes of the few questions that a
    /// liar is asked stands for all that it is not asked. O(1).
    pub fn claimed(&mut self, hash: u64, claim: Claim) {
        let weight = if self.is_liar() { LIAR_ASKED_ONE_IN } else { 1 };
        match claim {
            Claim::TrueHit => {
                self.true_hits += 1;
                self.true_claims += weight;
            }
            Claim::Collision => {
                self.collisions += 1;
                if self.is_new_in_vain(hash) {
                    self.false_claims += weight;
                    self.absent_keys(weight);
                }
            }
            Claim::Stale => self.stale += 1,
        }
        self.forget();
    }

    /// Remembers a key that was claimed in vain; false if it is remembered already.
    fn is_new_in_vain(&mut self, hash: u64) -> bool {
        if self.in_vain.is_empty() {
            self.in_vain = vec![0; REMEMBERED];
        }
        let at = usize::try_from(hash).unwrap_or_default() % REMEMBERED;
        // Of a hash of 0, which is one in 2^64, nothing is remembered.
        self.in_vain.get_mut(at).is_none_or(|seen| std::mem::replace(seen, hash) != hash)
    }

    /// The filter did not claim `keys` keys that somebody looked for. O(1).
    pub fn not_claimed(&mut self, keys: u64) {
        let keys = u32::try_from(keys).unwrap_or(u32::MAX).min(WINDOW);
        self.absent_keys(keys);
        self.forget();
    }

    fn absent_keys(&mut self, keys: u32) {
        self.absent += keys;
        self.expected += f64::from(keys) * self.rate;
    }

    /// At most a window of them.
    fn forget(&mut self) {
        while self.absent + self.true_claims >= WINDOW {
            self.absent /= 2;
            self.false_claims /= 2;
            self.expected /= 2.0;
            self.true_claims /= 2;
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

    /// Whether the filter claims ten times as many absent keys as one of its fill should, and hardly
    /// anything else. O(1).
    pub fn is_liar(&self) -> bool {
        let false_claims = f64::from(self.false_claims);
        self.false_claims >= FALSE_CLAIMS_MIN
            && false_claims > LIE_FACTOR * self.expected
            && false_claims > LIE_FACTOR * f64::from(self.true_claims)
    }
}

#[cfg(test)]
mod tests {
    use super::{Claim, ClaimStats, LIAR_ASKED_ONE_IN};
    use crate::base::rng::Rng;

    /// The fill of 12 bits a key, of which 4.2 claims in a thousand are false.
    const FILL: f64 = 0.487;

    fn new() -> ClaimStats {
        let mut truth = ClaimStats::new();
        truth.fill_is(Some(FILL));
        truth
    }

    fn told(rate_in_1000: u64, keys: u32, truth: &mut ClaimStats) {
        let mut rng = Rng::new(1);
        for _ in 0..keys {
            if rng.below(1_000) >= rate_in_1000 {
                truth.not_claimed(1);
            } else if !truth.is_liar() || rng.one_in(LIAR_ASKED_ONE_IN.into()) {
                truth.claimed(rng.next_u64(), Claim::Collision);
            }
        }
    }

    #[test]
    fn honest_filter_is_no_liar() {
        let mut truth = new();
        told(4, 500_000, &mut truth);
        assert!(!truth.is_liar());
        assert!((0.003..0.005).contains(&truth.measured_rate().unwrap()));
    }

    #[test]
    fn filter_that_claims_ten_times_too_much_is_a_liar_until_it_stops() {
        let mut truth = new();
        told(80, 2_000, &mut truth);
        assert!(truth.is_liar());
        told(4, 1_000_000, &mut truth);
        assert!(!truth.is_liar());
    }

    #[test]
    fn few_false_claims_make_no_liar() {
        let mut truth = new();
        (0..31).for_each(|hash| truth.claimed(hash + 1, Claim::Collision));
        assert!(!truth.is_liar());
        truth.claimed(32, Claim::Collision);
        assert!(truth.is_liar());
    }

    #[test]
    fn filter_that_has_just_grown_is_no_liar_for_what_it_claimed_before() {
        let mut truth = new();
        told(4, 60_000, &mut truth);
        // Half as full, and the rate a fortieth.
        truth.fill_is(Some(0.284));
        for _ in 0..1_000 {
            truth.not_claimed(20);
            assert!(!truth.is_liar());
        }
    }

    #[test]
    fn peer_that_claims_keys_which_have_expired_is_believed_for_those_that_have_not() {
        let mut truth = new();
        truth.fill_is(Some(0.2));
        for hash in 0..100_000 {
            // All absent keys are such ones: each a false claim, far more than expected.
            truth.claimed(hash, Claim::Collision);
            truth.claimed(hash, Claim::TrueHit);
            assert!(!truth.is_liar());
        }
    }

    #[test]
    fn liar_whose_claims_come_true_again_is_soon_believed() {
        let mut truth = new();
        (0..1_000).for_each(|hash| truth.claimed(hash, Claim::Collision));
        assert!(truth.is_liar());
        let asked = (0..).take_while(|_| {
            truth.claimed(0, Claim::TrueHit);
            truth.is_liar()
        });
        assert!(asked.count() < 200);
    }

    #[test]
    fn key_that_is_asked_for_in_vain_again_and_again_is_one_false_claim() {
        let mut truth = new();
        for _ in 0..1_000 {
            (1..=31).for_each(|hash| truth.claimed(hash, Claim::Collision));
        }
        assert!(!truth.is_liar());
        assert_eq!(truth.counts().1, 31_000);
    }

    #[test]
    fn hits_and_stale_claims_are_no_lies() {
        let mut truth = new();
        (0..1_000).for_each(|hash| truth.claimed(hash, Claim::TrueHit));
        (0..1_000).for_each(|hash| truth.claimed(hash, Claim::Stale));
        assert!(!truth.is_liar());
        assert_eq!(truth.counts(), (1_000, 0, 1_000));
    }
}
