//! When the requests of the open loop are due.

use crate::base::rng::Rng;

/// The moments at which requests of the open loop are due: at equal distances per connection, from a random first
/// moment on.
pub(super) struct Schedule {
    /// Nanoseconds of the first moment of each connection, which rise, and the connection.
    phases: Vec<(u64, usize)>,
    period_nanos: f64,
    /// The number of the next request.
    pub(super) next: usize,
}

impl Schedule {
    /// `rate` requests per second over all connections.
    pub(super) fn new(connections: usize, rate: f64, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let period_nanos = connections as f64 * 1e9 / rate;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time within a period")]
        let mut phase = || rng.below(period_nanos as u64);
        let mut phases: Vec<_> = (0..connections).map(|conn| (phase(), conn)).collect();
        phases.sort_unstable();
        Self { phases, period_nanos, next: 0 }
    }

    /// When the next request is due, and on which connection.
    pub(super) fn next(&self) -> (u64, usize) {
        let (phase, conn) = self.phases[self.next % self.phases.len()];
        let periods = (self.next / self.phases.len()) as f64 * self.period_nanos;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "nanoseconds of a run")]
        let due = periods as u64 + phase;
        (due, conn)
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn requests_of_the_open_loop_are_due_at_the_rate_and_by_turns() {
        let mut schedule = Schedule::new(50, 1_000.0, 1);
        let mut counts = [0u32; 50];
        let mut last = 0;
        for _ in 0..1_000 {
            let (due, conn) = schedule.next();
            assert!(due >= last, "{due} after {last}");
            (last, counts[conn]) = (due, counts[conn] + 1);
            schedule.next += 1;
        }
        assert!((950_000_000..1_000_000_000).contains(&last), "{last}");
        assert!(counts.iter().all(|count| *count == 20), "{counts:?}");
    }
}
