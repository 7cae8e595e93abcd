//! The circuit breaker of a peer: whether lookups query it.
//!
//! - Closed: lookups query the peer. Three consecutive timeouts open the circuit.
//! - Open: lookups skip the peer. One probe per heartbeat; after N answers the circuit is half open.
//! - Half open: lookups query the peer. The next answer closes the circuit, the next timeout opens it again.
//!
//! N doubles per reopening, 1 to 16; 32 answers while closed reset it to 1. Timeouts of queries that were in flight
//! at the same time count as one.

use crate::base::time::Instant;

/// Consecutive timeouts that open a closed circuit.
const TIMEOUTS_MAX: u32 = 3;

/// Probe answers that an open circuit needs, at most. With one heartbeat per second, lookups then wait for timeouts
/// less than 1 % of the time.
const PROBES_MAX: u32 = 16;

/// Answers while closed that reset the number of needed probe answers.
const ANSWERS_TO_FORGET: u32 = 32;

/// The state of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Circuit {
    Closed { timeouts: u32, answers: u32 },
    Open { probes_left: u32 },
    HalfOpen,
}

/// The circuit breaker of one peer; see the module.
#[derive(Debug)]
pub(in crate::node) struct CircuitBreaker {
    circuit: Circuit,
    /// Probe answers that the next opening will need.
    probes_next: u32,
    /// When the last timeout was counted.
    counted_at: Option<Instant>,
}

impl CircuitBreaker {
    /// A closed circuit.
    pub(in crate::node) const fn new() -> Self {
        Self { circuit: Circuit::Closed { timeouts: 0, answers: 0 }, probes_next: 1, counted_at: None }
    }

    /// Whether lookups query the peer.
    pub(in crate::node) const fn lets_pass(&self) -> bool {
        !matches!(self.circuit, Circuit::Open { .. })
    }

    /// Missing probe answers of an open circuit; 0 if it is not open.
    pub(in crate::node) const fn probes_left(&self) -> u32 {
        match self.circuit {
            Circuit::Open { probes_left } => probes_left,
            Circuit::Closed { .. } | Circuit::HalfOpen => 0,
        }
    }

    /// Counts a timeout of a query sent at `sent_at`. Returns whether that opened the circuit.
    pub(in crate::node) fn timed_out(&mut self, now: Instant, sent_at: Instant) -> bool {
        if self.counted_at.is_some_and(|counted_at| sent_at < counted_at) {
            return false;
        }
        let timeouts = match self.circuit {
            Circuit::Closed { timeouts, .. } => timeouts + 1,
            Circuit::HalfOpen => TIMEOUTS_MAX,
            Circuit::Open { .. } => return false,
        };
        self.counted_at = Some(now);
        if timeouts < TIMEOUTS_MAX {
            self.circuit = Circuit::Closed { timeouts, answers: 0 };
            return false;
        }
        self.circuit = Circuit::Open { probes_left: self.probes_next };
        self.probes_next = (2 * self.probes_next).min(PROBES_MAX);
        true
    }

    /// Counts the answer to the oldest in-flight query. An answer that overtakes an older query does not count: the
    /// peer may never answer that one.
    pub(in crate::node) fn answered(&mut self) {
        let answers = match self.circuit {
            Circuit::Closed { answers, .. } => (answers + 1).min(ANSWERS_TO_FORGET),
            Circuit::HalfOpen => 1,
            Circuit::Open { .. } => return,
        };
        if answers == ANSWERS_TO_FORGET {
            self.probes_next = 1;
        }
        self.circuit = Circuit::Closed { timeouts: 0, answers };
    }

    /// Counts an answer to a probe in time.
    pub(in crate::node) fn probe_answered(&mut self) {
        if let Circuit::Open { probes_left } = self.circuit {
            self.circuit = match probes_left.saturating_sub(1) {
                0 => Circuit::HalfOpen,
                probes_left => Circuit::Open { probes_left },
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ANSWERS_TO_FORGET, CircuitBreaker};
    use crate::base::time::Instant;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// Times queries out one after the other until the circuit opens; how many that took.
    fn open(breaker: &mut CircuitBreaker, clock: &mut u64) -> u32 {
        (1..100)
            .find(|_| {
                *clock += 100;
                breaker.timed_out(at(*clock), at(*clock - 100))
            })
            .unwrap()
    }

    /// Answers probes until lookups query the peer; how many that took.
    fn half_open(breaker: &mut CircuitBreaker) -> u32 {
        (1..100)
            .find(|_| {
                breaker.probe_answered();
                breaker.lets_pass()
            })
            .unwrap()
    }

    #[test]
    fn answer_closes_a_half_open_circuit_and_many_forget_its_openings() {
        let (mut breaker, mut clock) = (CircuitBreaker::new(), 0);
        open(&mut breaker, &mut clock);
        half_open(&mut breaker);
        breaker.answered();
        assert_eq!(open(&mut breaker, &mut clock), 3);
        assert_eq!(half_open(&mut breaker), 2);
        (0..ANSWERS_TO_FORGET).for_each(|_| breaker.answered());
        assert_eq!(open(&mut breaker, &mut clock), 3);
        assert_eq!(half_open(&mut breaker), 1);
    }

    #[test]
    fn queries_in_flight_together_count_as_one_timeout() {
        let mut breaker = CircuitBreaker::new();
        assert!((0..100).all(|late| !breaker.timed_out(at(100 + late), at(late))));
        assert!(!breaker.timed_out(at(200), at(100)));
        assert!(breaker.timed_out(at(300), at(200)));
    }

    #[test]
    fn answers_and_timeouts_of_an_open_circuit_change_nothing() {
        let (mut breaker, mut clock) = (CircuitBreaker::new(), 0);
        open(&mut breaker, &mut clock);
        breaker.answered();
        assert!(!breaker.timed_out(at(clock + 200), at(clock + 100)));
        assert_eq!(breaker.probes_left(), 1);
    }
}
