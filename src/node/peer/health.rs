//! What a peer has earned by answering: whether lookups ask it.
//!
//! A peer can go on sending bytes and answer nothing, and each lookup that waits for it in vain costs its
//! client all the time that a lookup may take. So waits are on credit: after three in vain, lookups pass it
//! over. From then on it is asked with each beat by a question for which nobody waits (a *probe*), and when
//! it has answered as many of them in time as it owes, lookups ask it again: one at first, twice as many each time
//! that it uses up its credit anew. Only answers make a wait good again, four of them one; and only those
//! in turn, since a peer that answers some questions and leaves others has one unanswered all the
//! time. Lookups that wait at the same time count as one: a node that stood still for a moment is not a
//! worse one for having been asked a lot.
//!
//! Not here: who has said nothing at all, and is not asked before a byte comes ([`crate::node::peer::table`]).

use crate::base::time::Instant;
use crate::store::KeyHash;
use std::time::Duration;

/// Answers that make one wait in vain good.
const ANSWERS_PER_WAIT: u32 = 4;

/// Waits in vain until lookups pass a peer over.
const WAITS_MAX: u32 = 3;

/// How often what a peer owes doubles. At 16 answers, and a second between two beats, what it can make lookups
/// wait is less than a hundredth of the time.
const DOUBLINGS_MAX: u32 = 4;

/// A question that nobody waits for.
#[derive(Debug, Clone, Copy)]
struct Probe {
    request: u32,
    hash: KeyHash,
    asked_at: Instant,
}

/// The account of one peer; see the module.
#[derive(Debug, Default)]
pub(in crate::node) struct Credit {
    /// Answers that would make good all waits in vain.
    debt: u32,
    /// When the last wait in vain was counted.
    counted_at: Option<Instant>,
    /// Probes to be answered before lookups ask it again.
    owed: u32,
    probe: Option<Probe>,
}

impl Credit {
    /// Answers to probes that are missing until lookups ask this peer: none, as a rule.
    pub(in crate::node) const fn owed(&self) -> u32 {
        self.owed
    }

    /// A lookup has waited for an answer to a question of `asked_at`, and has ended without.
    pub(in crate::node) fn waited_in_vain(&mut self, now: Instant, asked_at: Instant) {
        if self.owed > 0 || self.counted_at.is_some_and(|counted| asked_at < counted) {
            return;
        }
        self.counted_at = Some(now);
        self.debt = (self.debt + ANSWERS_PER_WAIT).min(ANSWERS_PER_WAIT * (WAITS_MAX + DOUBLINGS_MAX));
        if let Some(above) = self.debt.checked_sub(ANSWERS_PER_WAIT * WAITS_MAX) {
            self.owed = 1 << (above / ANSWERS_PER_WAIT);
        }
    }

    /// It has answered the oldest of the questions on their way, for which a lookup waited.
    pub(in crate::node) const fn answered_in_turn(&mut self) {
        self.debt = self.debt.saturating_sub(1);
    }

    /// Whether another probe may be sent: one at a time, each for `patience`.
    pub(in crate::node) fn may_be_probed(&self, now: Instant, patience: Duration) -> bool {
        self.probe.is_none_or(|probe| now.since(probe.asked_at) >= patience)
    }

    /// A probe was sent.
    pub(in crate::node) const fn probed(&mut self, now: Instant, request: u32, hash: KeyHash) {
        self.probe = Some(Probe { request, hash, asked_at: now });
    }

    /// Whether this number is that of the probe on its way.
    pub(in crate::node) fn is_probe(&self, request: u32) -> bool {
        self.probe.is_some_and(|probe| probe.request == request)
    }

    /// An answer has come; true if it was to the probe. One about another key, or too late, pays nothing.
    pub(in crate::node) fn probe_answered(
        &mut self,
        now: Instant,
        request: u32,
        hash: KeyHash,
        patience: Duration,
    ) -> bool {
        let Some(probe) = self.probe.take_if(|probe| probe.request == request) else { return false };
        let is_paid = probe.hash == hash && now.since(probe.asked_at) < patience;
        self.owed = self.owed.saturating_sub(u32::from(is_paid));
        true
    }

    /// The link has gone, and with it the probe.
    pub(in crate::node) const fn link_lost(&mut self) {
        self.probe = None;
    }
}

#[cfg(test)]
mod tests {
    use super::Credit;
    use crate::base::time::Instant;
    use crate::store::KeyHash;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// Waits in vain until the credit is used up; how many that took.
    fn use_up(credit: &mut Credit, clock: &mut u64) -> u32 {
        (1..100)
            .find(|_| {
                *clock += 100;
                credit.waited_in_vain(at(*clock), at(*clock - 100));
                credit.owed() > 0
            })
            .unwrap()
    }

    /// Answers probes until lookups ask it; how many that took.
    fn pay(credit: &mut Credit, clock: u64) -> u32 {
        let hash = KeyHash(1);
        (1..100)
            .find(|probe| {
                assert!(credit.may_be_probed(at(clock), PATIENCE));
                credit.probed(at(clock), *probe, hash);
                assert!(!credit.may_be_probed(at(clock + 99), PATIENCE));
                assert!(credit.probe_answered(at(clock + 1), *probe, hash, PATIENCE));
                credit.owed() == 0
            })
            .unwrap()
    }

    #[test]
    fn each_further_wait_in_vain_costs_twice_as_many_answers() {
        let (mut credit, mut clock) = (Credit::default(), 0);
        assert_eq!(use_up(&mut credit, &mut clock), 3);
        for owed in [1, 2, 4, 8, 16, 16, 16] {
            assert_eq!(pay(&mut credit, clock), owed);
            assert_eq!(use_up(&mut credit, &mut clock), 1);
        }
    }

    #[test]
    fn answers_that_lookups_waited_for_give_the_credit_back() {
        let (mut credit, mut clock) = (Credit::default(), 0);
        use_up(&mut credit, &mut clock);
        pay(&mut credit, clock);
        (0..12).for_each(|_| credit.answered_in_turn());
        assert_eq!(use_up(&mut credit, &mut clock), 3);
    }

    #[test]
    fn lookups_that_wait_together_count_as_one() {
        let mut credit = Credit::default();
        (0..100).for_each(|late| credit.waited_in_vain(at(100 + late), at(late)));
        assert_eq!(credit.owed(), 0);
        credit.waited_in_vain(at(200), at(100));
        assert_eq!(credit.owed(), 0);
        credit.waited_in_vain(at(300), at(200));
        assert_eq!(credit.owed(), 1);
    }

    #[test]
    fn answer_that_is_late_or_about_another_key_pays_nothing() {
        let (mut credit, mut clock) = (Credit::default(), 0);
        use_up(&mut credit, &mut clock);
        for (hash, late) in [(1, 100), (2, 1)] {
            credit.probed(at(clock), 7, KeyHash(1));
            assert!(!credit.probe_answered(at(clock), 8, KeyHash(1), PATIENCE));
            assert!(credit.probe_answered(at(clock + late), 7, KeyHash(hash), PATIENCE));
            assert!(!credit.probe_answered(at(clock), 7, KeyHash(1), PATIENCE));
            assert_eq!(credit.owed(), 1);
        }
    }
}
