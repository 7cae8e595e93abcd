//! Claim statistics: the results of queries that claims of a peer's filter have caused. For metrics only.
//!
//! Such a query ends as a hit, a false positive (the peer never had the key, or lost it and has not rebuilt the block
//! yet) or a stale claim (a change of the filter was in flight). The measured rate is the share of absent keys that are
//! claimed. Each key counts once: clients may request a removed key often, which is claimed until its block is rebuilt.

/// Keys after which the counts of the window are halved.
const WINDOW: u32 = 65_536;

/// Remembered keys with a false claim, so that each counts once.
const REMEMBERED: usize = 256;

/// The result of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The peer had the key.
    Hit,
    /// The peer did not have the key, and its filter is unchanged since the claim.
    FalsePositive,
    /// The peer did not have the key, and a change of its filter was in flight.
    Stale,
}

/// The claim statistics of one peer: counters since the link began, and a window for the rate.
#[derive(Debug, Clone, Default)]
pub struct ClaimStats {
    hits: u64,
    false_positives: u64,
    stale: u64,
    /// In the window: absent keys that were looked up, and how many of them were claimed.
    absent: u32,
    false_claims: u32,
    /// Hashes of keys with a false claim, each at the index in its low bits.
    remembered: Vec<u64>,
}

impl ClaimStats {
    /// Statistics without claims.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts the result of a query that was caused by the claim of a hash. O(1).
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

    /// Remembers a key with a false claim; false if it was remembered before.
    fn is_new(&mut self, hash: u64) -> bool {
        if self.remembered.is_empty() {
            self.remembered = vec![0; REMEMBERED];
        }
        let at = usize::try_from(hash).unwrap_or_default() % REMEMBERED;
        // The hash 0, one in 2^64, is never remembered.
        self.remembered.get_mut(at).is_none_or(|seen| std::mem::replace(seen, hash) != hash)
    }

    /// Counts absent keys that were looked up, claimed or not. O(1).
    pub fn not_claimed(&mut self, keys: u64) {
        self.absent += u32::try_from(keys).unwrap_or(u32::MAX).min(WINDOW);
        while self.absent >= WINDOW {
            self.absent /= 2;
            self.false_claims /= 2;
        }
    }

    /// Hits, false positives and stale claims since the link began.
    pub const fn counts(&self) -> (u64, u64, u64) {
        (self.hits, self.false_positives, self.stale)
    }

    /// The share of absent keys in the window that were claimed, 0 to 1; `None` if none was looked up.
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
    fn key_requested_many_times_is_one_false_claim() {
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
