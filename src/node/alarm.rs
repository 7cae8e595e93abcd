//! An alarm: the one live timer of its owner. Arming it keeps the earlier deadline.
//!
//! Entries of the wheel are never removed early. An entry whose deadline is not the armed one is a *stale
//! timer*: it is ignored when it fires, and purged when there are too many of its kind.

use crate::base::time::Instant;
use crate::base::wheel::Wheel;

/// An alarm: the deadline of the live timer, if one is armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Alarm {
    /// A tick of the wheel, in ms, or [`UNARMED`].
    at: u64,
}

/// No tick: no [`Instant`] has as many milliseconds.
const UNARMED: u64 = u64::MAX;

impl Default for Alarm {
    fn default() -> Self {
        Self { at: UNARMED }
    }
}

impl Alarm {
    /// Arms the alarm for `due`, rounded up to a tick, unless it is armed for an earlier time. `timer` is the entry
    /// of the wheel.
    pub(in crate::node) fn arm<T: Copy>(&mut self, timers: &mut Wheel<T>, due: Instant, timer: T) {
        let at = due.millis_ceil();
        if self.at > at {
            self.at = at;
            timers.insert(at, timer);
        }
    }

    /// Whether the entry that fired is the live one; disarms the alarm if so.
    pub(in crate::node) fn fired(&mut self, deadline: u64) -> bool {
        let is_live = self.is_live(deadline);
        if is_live {
            self.at = UNARMED;
        }
        is_live
    }

    /// Whether an entry of the wheel with this deadline is the live one.
    pub(in crate::node) fn is_live(self, deadline: u64) -> bool {
        self.at == deadline
    }
}

#[cfg(test)]
mod tests {
    use super::Alarm;
    use crate::base::time::Instant;
    use crate::base::wheel::Wheel;

    #[test]
    fn only_the_earliest_timer_is_live() {
        let (mut alarm, mut timers) = (Alarm::default(), Wheel::new());
        let at = Instant::from_millis;
        alarm.arm(&mut timers, at(9), ());
        alarm.arm(&mut timers, at(12), ());
        alarm.arm(&mut timers, at(5), ());
        assert_eq!(timers.len(), 2);
        assert!(!alarm.fired(9) && alarm.fired(5) && !alarm.fired(5));
        alarm.arm(&mut timers, at(12), ());
        assert!(alarm.is_live(12) && !alarm.is_live(9));
    }
}
