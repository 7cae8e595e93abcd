//! A rate limit: a burst of events at once, and one per interval in the long run.

use crate::base::time::Instant;
use std::time::Duration;

/// The events of one kind so far, as the moment up to which they have used up the rate (generic cell rate algorithm).
#[derive(Debug, Clone, Copy, Default)]
pub struct Limiter {
    used_until: Instant,
}

impl Limiter {
    /// The time that the next event has to wait, with one per `every` and `burst` at once.
    pub fn wait(&self, now: Instant, every: Duration, burst: u32) -> Duration {
        self.used_until.since(now).saturating_sub(every * burst.saturating_sub(1))
    }

    /// Counts an event, if it need not wait; returns whether it was counted.
    pub fn allows(&mut self, now: Instant, every: Duration, burst: u32) -> bool {
        let is_allowed = self.wait(now, every, burst).is_zero();
        if is_allowed {
            self.used_until = self.used_until.max(now).after(every);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::Limiter;
    use crate::base::time::Instant;
    use std::time::Duration;

    #[test]
    fn burst_passes_at_once_and_one_event_per_interval_after_it() {
        let mut limiter = Limiter::default();
        let every = Duration::from_millis(100);
        let passed: Vec<u64> = (0..2_000)
            .filter(|ms| (0..3).any(|_| limiter.allows(Instant::from_millis(10_000 + ms), every, 5)))
            .collect();
        assert_eq!(passed[..6], [0, 1, 2, 3, 4, 100]);
        assert_eq!(passed.len(), 5 + 19);
        assert_eq!(limiter.wait(Instant::from_millis(11_999), every, 5), Duration::from_millis(1));
        assert!(limiter.allows(Instant::from_millis(13_000), every, 5));
    }
}
