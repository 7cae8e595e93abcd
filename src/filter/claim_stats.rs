//! Claim statistics: what came of the claims of a peer's filter. Figures only; nothing depends on them.
//!
//! Each query that a claim caused ends as a hit, as a false positive (the peer never had the key, or lost it and has
//! not rebuilt the block yet) or as a stale claim (a change of the filter was on its way). The measured rate is the share
//! of absent keys that are claimed; a key counts once, since clients request one that is gone again and again, which
//! the filter claims until its block is rebuilt.

/// Keys after which older ones count half.
const WINDOW: u32 = 65_536;

/// Keys with a false claim that are remembered, so that each counts once.
const REMEMBERED: usize = 256;

/// What came of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The peer had the key.
    Hit,
    /// It did not, and its filter is as it was when the claim was made.
    FalsePositive,
    /// It did not: it lost the key lately, and a change of its filter was on its way.
    Stale,
}

/// The claims of one peer: counters of the whole link, and a window for the rate.
#[derive(Debug, Clone, Default)]
pub struct ClaimStats {
    hits: u64,
    false_positives: u64,
    stale: u64,
    /// Of the window: absent keys that were looked for, and how many of them were claimed.
    absent: u32,
    false_claims: u32,
    /// Hashes of keys with a false claim, each at the index that its low bits name.
    remembered: Vec<u64>,
}

impl ClaimStats {
    /// No claims yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The peer was queried because of its claim of a key with this hash. O(1).
    pub fn claimed(&mut self, hash: u64, claim: Claim) {
        match claim {
            Claim::Hit => self.hits += 1,
            Claim::Stale => self.stale += 1,
            Claim::FalsePositive => {
                self.false_positives += 1;
                if self.is_new(hash) {
                    self.false_claims += 1;
                    self.not_claimed(1);
                }
            }
        }
    }

    /// Remembers a key with a false claim; false if it is remembered already.
    fn is_new(&mut self, hash: u64) -> bool {
        if self.remembered.is_empty() {
            self.remembered = vec![0; REMEMBERED];
        }
        let at = usize::try_from(hash).unwrap_or_default() % REMEMBERED;
        // A hash of 0, which is one in 2^64, is not remembered.
        self.remembered.get_mut(at).is_none_or(|seen| std::mem::replace(seen, hash) != hash)
    }

    /// So many absent keys were looked for; whether a claim was made is counted apart. O(1).
    pub fn not_claimed(&mut self, keys: u64) {
        self.absent += u32::try_from(keys).unwrap_or(u32::MAX).min(WINDOW);
        while self.absent >= WINDOW {
            self.absent /= 2;
            self.false_claims /= 2;
        }
    }

    /// Claims that were true, false and stale, since the link began.
    pub const fn counts(&self) -> (u64, u64, u64) {
        (self.hits, self.false_positives, self.stale)
    }

    /// The share of absent keys that were claimed lately, 0 to 1; `None` if none was looked for.
    pub fn measured_rate(&self) -> Option<f64> {
        (self.absent > 0).then(|| f64::from(self.false_claims) / f64::from(self.absent))
    }
}

#[cfg(test)]
mod tests {
    use super::{Claim, ClaimStats};

    #[test]
    fn rate_is_the_share_of_absent_keys_that_are_claimed_and_follows_a_change() {
        let mut stats = ClaimStats::new();
        assert_eq!(stats.measured_rate(), None);
        for (every, keys) in [(250, 300_000u64), (10, 300_000)] {
            for key in 0..keys {
                if key % every == 0 {
                    stats.claimed(key + 1, Claim::FalsePositive)
                } else {
                    stats.not_claimed(1)
                }
            }
            let ratio = stats.measured_rate().unwrap() * every as f64;
            assert!((0.9..1.1).contains(&ratio), "{ratio} times one in {every}");
        }
    }

    #[test]
    fn key_that_is_requested_again_and_again_is_one_false_claim() {
        let mut stats = ClaimStats::new();
        stats.not_claimed(969);
        for _ in 0..1_000 {
            (1..=31).for_each(|hash| stats.claimed(hash, Claim::FalsePositive));
        }
        assert_eq!((stats.measured_rate(), stats.counts()), (Some(0.031), (0, 31_000, 0)));
    }

    #[test]
    fn hits_and_stale_claims_are_no_false_positives() {
        let mut stats = ClaimStats::new();
        (0..1_000).for_each(|hash| stats.claimed(hash, Claim::Hit));
        (0..1_000).for_each(|hash| stats.claimed(hash, Claim::Stale));
        assert_eq!((stats.measured_rate(), stats.counts()), (None, (1_000, 0, 1_000)));
    }
}
