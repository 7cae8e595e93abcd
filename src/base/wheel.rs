//! A hierarchical timer wheel whose slots are chains: 5 levels of 256 slots, ticks of 1 ms.
//!
//! After Varghese and Lauck, "Hashed and hierarchical timing wheels" (1987), with three changes:
//!
//! - A slot is a chain of timer pages, not a linked list of timers: draining reads memory in order, and an
//!   entry is the low 32 bits of its deadline and a payload.
//! - Timers are not cancelled here. The owner of a payload drops stale timers when they are due, or earlier by
//!   [`Wheel::purge`] when there are too many.
//! - Due slots are detached in O(1) and drained entry by entry by [`Wheel::pop`], so that the caller bounds the
//!   work of an iteration.
//!
//! Slots are absolute: an entry lies on the level of the highest byte in which its deadline differs from the
//! wheel's tick. So within a level only slots after the tick are in use, and the first occupied slot of the lowest
//! occupied level is the next one. An occupancy bitmap per level finds it, however far the clock jumps.
//!
//! Not here: the clock, the meaning of a payload, and any order among entries of one tick, except that the same
//! history gives the same order.

use super::timer_pages::{EMPTY, Mapped, TimerPages, Typed};
use std::collections::VecDeque;
use std::marker::PhantomData;

const LEVELS: usize = 5;
const SLOTS: usize = 256;

/// Ticks that the wheel covers: deadlines are below this, about 34.8 years of milliseconds.
pub const HORIZON: u64 = 1 << (8 * LEVELS);

/// A slot that was detached: its chain, and the deadline bits that its entries do not hold.
#[derive(Debug)]
struct Detached {
    chain: u32,
    deadline_high: u64,
}

/// The result of [`Wheel::pop`]. All cost about the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Popped<P> {
    /// This entry was due.
    Due {
        /// The deadline it was inserted with.
        deadline: u64,
        /// The payload it was inserted with.
        payload: P,
    },
    /// One entry went from a coarse slot to a finer one.
    Moved,
    /// Nothing is due.
    Idle,
}

/// Timers with payloads of type `P`, stored in `B`.
///
/// Insertion is O(1); an entry is moved once per level that it sinks through, at most four times. Memory: full pages
/// of entries, and at most one partly filled page per occupied slot.
#[derive(Debug)]
pub struct Wheel<P, B = Typed<P>> {
    /// All deadlines up to here, this one included, have left their slots.
    tick: u64,
    slots: Box<[[u32; SLOTS]; LEVELS]>,
    occupied: [[u64; SLOTS / 64]; LEVELS],
    detached: VecDeque<Detached>,
    entries: usize,
    timer_pages: B,
    /// Where [`Wheel::purge`] continues: the next slot, and the rest of the current one with its first tick.
    purge_at: usize,
    purging: Option<(u64, Detached)>,
    payloads: PhantomData<P>,
}

impl<P: Copy> Wheel<P> {
    /// An empty wheel at tick 0, for some thousand timers of any type.
    pub fn new() -> Self {
        Self::within(Typed::new())
    }
}

impl Wheel<u32, Mapped> {
    /// An empty wheel at tick 0, for millions of timers, whose memory is returned to the system.
    pub fn mapped() -> Self {
        Self::within(Mapped::new())
    }

    /// Returns some idle memory to the system. Costs some 60 µs.
    pub fn trim(&mut self) {
        self.timer_pages.trim();
    }

    /// Whether there is idle memory. O(1).
    pub const fn has_idle(&self) -> bool {
        self.timer_pages.has_idle()
    }

    /// Checks the counts of entries and memory. O(n).
    ///
    /// # Panics
    /// On any inconsistency.
    pub fn audit(&self) {
        let mut entries = 0;
        self.for_each(|_, _| entries += 1);
        assert_eq!(entries, self.entries);
        self.timer_pages.audit();
    }
}

impl<P: Copy, B: TimerPages<P>> Wheel<P, B> {
    fn within(timer_pages: B) -> Self {
        Self {
            tick: 0,
            slots: Box::new([[EMPTY; SLOTS]; LEVELS]),
            occupied: [[0; SLOTS / 64]; LEVELS],
            detached: VecDeque::new(),
            entries: 0,
            timer_pages,
            purge_at: 0,
            purging: None,
            payloads: PhantomData,
        }
    }

    /// Entries held, stale ones included.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Bytes of memory held: the pages, and the slots' heads.
    pub fn memory_bytes(&self) -> usize {
        self.timer_pages.memory_bytes()
            + size_of_val(&*self.slots)
            + self.detached.capacity() * size_of::<Detached>()
    }

    /// Adds a timer for tick `deadline`. One that has passed is due at once; one beyond the
    /// [`HORIZON`] is due at the horizon. False, and nothing changed, if the system has no memory, which is
    /// possible for [`Wheel::mapped`] only.
    pub fn insert(&mut self, deadline: u64, payload: P) -> bool {
        let deadline = deadline.min(HORIZON - 1);
        let stored = if deadline <= self.tick {
            self.add_due(deadline, payload)
        } else {
            self.place(deadline, payload)
        };
        self.entries += usize::from(stored);
        stored
    }

    /// One step of the work due at tick `now`: returns one due entry, or moves one to a finer slot. Bounded; to be
    /// repeated until [`Popped::Idle`] or until the budget is spent. If allocation fails for a move, the entry is
    /// dropped.
    pub fn pop(&mut self, now: u64) -> Popped<P> {
        loop {
            let Some(front) = self.detached.front_mut() else {
                if !self.advance(now) {
                    return Popped::Idle;
                }
                continue;
            };
            let Some((deadline_low, payload)) = self.timer_pages.pop(&mut front.chain) else {
                self.detached.pop_front();
                continue;
            };
            let deadline = front.deadline_high | u64::from(deadline_low);
            if deadline <= now {
                self.entries -= 1;
                return Popped::Due { deadline, payload };
            }
            self.entries -= usize::from(!self.place(deadline, payload));
            return Popped::Moved;
        }
    }

    /// Whether [`Wheel::pop`] has work at tick `now`.
    pub fn has_work(&self, now: u64) -> bool {
        self.next_deadline().is_some_and(|at| at <= now)
    }

    /// The tick at which [`Wheel::pop`] next has work: never after the earliest deadline, and before it only when
    /// entries move to a finer level first, at most four times per entry. `None` if the wheel is empty. Bounded.
    pub fn next_deadline(&self) -> Option<u64> {
        if self.entries == 0 {
            return None;
        }
        if !self.detached.is_empty() {
            return Some(self.tick);
        }
        let purging = self.purging.as_ref().map(|(at, _)| *at);
        let slot = self.next_slot().map(|(_, _, at)| at);
        purging.into_iter().chain(slot).min()
    }

    /// Checks up to `budget` entries, slot after slot, and drops those for which `keep` returns false. Returns how
    /// many were dropped. After `len` plus [`Wheel::purge_overhead`] steps every entry was checked at least once.
    /// Due entries are left to [`Wheel::pop`].
    pub fn purge(&mut self, budget: u32, mut keep: impl FnMut(u64, P) -> bool) -> usize {
        let before = self.entries;
        for _ in 0..budget {
            let Some((_, slot)) = &mut self.purging else {
                self.detach_for_purge();
                continue;
            };
            let Some((deadline_low, payload)) = self.timer_pages.pop(&mut slot.chain) else {
                self.purging = None;
                continue;
            };
            let deadline = slot.deadline_high | u64::from(deadline_low);
            self.entries -= 1;
            if keep(deadline, payload) {
                self.insert(deadline, payload);
            }
        }
        before - self.entries
    }

    /// Steps of a whole round of [`Wheel::purge`] in addition to one per entry.
    pub const fn purge_overhead(&self) -> usize {
        2 * LEVELS * SLOTS
    }

    /// Maximum growth of [`Wheel::memory_bytes`] when `entries` are added.
    pub fn growth_bytes_max(&self, entries: usize) -> usize {
        self.timer_pages.growth_bytes_max(entries, LEVELS * SLOTS + 2)
            + (self.detached.len() + 8) * size_of::<Detached>()
    }

    /// Frees the memory of some entries; false when none is left. The wheel cannot be used after it.
    pub fn drop_step(&mut self) -> bool {
        self.timer_pages.drop_step()
    }

    /// Calls `visit` with deadline and payload of each entry, in no particular order. O(n).
    pub fn for_each(&self, mut visit: impl FnMut(u64, P)) {
        let mut walk = |chain, deadline_high: u64| {
            self.timer_pages.for_each(chain, |low, payload| visit(deadline_high | u64::from(low), payload));
        };
        for (level, slots) in self.slots.iter().enumerate() {
            for (slot, &chain) in slots.iter().enumerate() {
                walk(chain, high_bits(self.slot_tick(level, slot)));
            }
        }
        for slot in self.detached.iter().chain(self.purging.as_ref().map(|(_, slot)| slot)) {
            walk(slot.chain, slot.deadline_high);
        }
    }

    /// Detaches the next occupied slot of the 64 after the one purged last.
    fn detach_for_purge(&mut self) {
        let (level, slot) = (self.purge_at / SLOTS, self.purge_at % SLOTS);
        let ahead = self.occupied[level][slot / 64] >> (slot % 64);
        if ahead == 0 {
            self.purge_at = (self.purge_at / 64 + 1) * 64 % (LEVELS * SLOTS);
            return;
        }
        let slot = slot + ahead.trailing_zeros() as usize;
        self.purge_at = (level * SLOTS + slot + 1) % (LEVELS * SLOTS);
        let at = self.slot_tick(level, slot);
        self.purging = Some((at, self.detach(level, slot, at)));
    }

    /// Detaches the chain of a slot that begins at tick `at`. O(1).
    fn detach(&mut self, level: usize, slot: usize, at: u64) -> Detached {
        self.occupied[level][slot / 64] &= !(1 << (slot % 64));
        let chain = std::mem::replace(&mut self.slots[level][slot], EMPTY);
        Detached { chain, deadline_high: high_bits(at) }
    }

    /// Detaches the next slot that is due at `now`; false if there is none.
    fn advance(&mut self, now: u64) -> bool {
        if let Some((_, slot)) = self.purging.take_if(|(at, _)| *at <= now) {
            self.detached.push_back(slot);
            return true;
        }
        match self.next_slot() {
            Some((level, slot, at)) if at <= now => {
                self.tick = at;
                let slot = self.detach(level, slot, at);
                self.detached.push_back(slot);
                true
            }
            _ => {
                self.tick = self.tick.max(now.min(HORIZON - 1));
                false
            }
        }
    }

    /// The next occupied slot: level, slot and its first tick.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        self.occupied.iter().enumerate().find_map(|(level, words)| {
            let word = words.iter().position(|&word| word != 0)?;
            let slot = word * 64 + words[word].trailing_zeros() as usize;
            Some((level, slot, self.slot_tick(level, slot)))
        })
    }

    /// The first tick of a slot that is after the wheel's tick.
    fn slot_tick(&self, level: usize, slot: usize) -> u64 {
        let above = self.tick >> (8 * (level + 1)) << (8 * (level + 1));
        above | (slot as u64) << (8 * level)
    }

    /// Adds an entry after the tick to its slot, if there is memory.
    fn place(&mut self, deadline: u64, payload: P) -> bool {
        debug_assert!(deadline > self.tick && deadline < HORIZON);
        let level = (63 - (deadline ^ self.tick).leading_zeros() as usize) / 8;
        let slot = usize::from((deadline >> (8 * level)).to_le_bytes()[0]);
        let stored = self.timer_pages.push(&mut self.slots[level][slot], low_bits(deadline), payload);
        self.occupied[level][slot / 64] |= u64::from(stored) << (slot % 64);
        stored
    }

    /// Adds an entry that is due to the detached slots, if there is memory.
    fn add_due(&mut self, deadline: u64, payload: P) -> bool {
        let deadline_high = high_bits(deadline);
        if let Some(last) = self.detached.back_mut().filter(|last| last.deadline_high == deadline_high) {
            return self.timer_pages.push(&mut last.chain, low_bits(deadline), payload);
        }
        let mut chain = EMPTY;
        let stored = self.timer_pages.push(&mut chain, low_bits(deadline), payload);
        if stored {
            self.detached.push_back(Detached { chain, deadline_high });
        }
        stored
    }
}

impl<P: Copy> Default for Wheel<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// The bits of a deadline that an entry does not hold.
const fn high_bits(deadline: u64) -> u64 {
    deadline >> 32 << 32
}

/// The bits of a deadline that an entry holds.
const fn low_bits(deadline: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the high bits are known from the slot")]
    let low = deadline as u32;
    low
}

#[cfg(test)]
mod tests {
    use super::{HORIZON, Mapped, Popped, TimerPages, Wheel};
    use crate::base::rng::Rng;
    use std::collections::BTreeMap;

    /// Everything due at `now`, in no particular order.
    fn drain(wheel: &mut Wheel<u32, impl TimerPages<u32>>, now: u64) -> Vec<(u64, u32)> {
        let mut due = Vec::new();
        loop {
            match wheel.pop(now) {
                Popped::Due { deadline, payload } => due.push((deadline, payload)),
                Popped::Moved => {}
                Popped::Idle => break,
            }
        }
        due.sort_unstable();
        due
    }

    #[test]
    fn timer_fires_at_its_tick_not_before() {
        for deadline in [1, 255, 256, 257, 65_535, 65_536, 1 << 24, (1 << 32) - 1, 1 << 32, HORIZON - 1] {
            let mut wheel = Wheel::new();
            wheel.insert(deadline, 9);
            assert_eq!(drain(&mut wheel, deadline - 1), [], "{deadline}");
            assert!(!wheel.has_work(deadline - 1));
            assert_eq!(drain(&mut wheel, deadline), [(deadline, 9)]);
            assert!(wheel.is_empty());
            assert_eq!(wheel.next_deadline(), None);
        }
    }

    #[test]
    fn past_deadline_is_due_at_once_and_far_deadline_at_the_horizon() {
        let mut wheel = Wheel::new();
        assert_eq!(drain(&mut wheel, 1_000), []);
        wheel.insert(10, 1);
        wheel.insert(u64::MAX, 2);
        assert_eq!(wheel.next_deadline(), Some(1_000));
        assert_eq!(drain(&mut wheel, 1_000), [(10, 1)]);
        assert_eq!(drain(&mut wheel, HORIZON), [(HORIZON - 1, 2)]);
    }

    #[test]
    fn after_work_at_now_the_next_deadline_is_later_than_now() {
        let mut rng = Rng::new(3);
        let mut wheel = Wheel::new();
        let mut now = 0;
        for _ in 0..20_000 {
            let (ahead, step) = (2 << rng.below(34), 1 << rng.below(12));
            wheel.insert(now + rng.below(ahead), 0);
            now += rng.below(step);
            drain(&mut wheel, now);
            assert!(wheel.next_deadline().is_none_or(|next| next > now));
        }
    }

    #[test]
    fn random_timers_agree_with_an_ordered_map() {
        for seed in 0..40 {
            let mut rng = Rng::new(seed);
            let mut wheel = Wheel::mapped();
            let mut oracle: BTreeMap<(u64, u32), ()> = BTreeMap::new();
            let mut now = rng.below(1 << 33);
            drain(&mut wheel, now);
            for id in 0..3_000u32 {
                let span = 1 << rng.below(36);
                let deadline = (now + rng.below(span)).min(HORIZON - 1);
                wheel.insert(deadline, id);
                oracle.insert((deadline, id), ());
                if rng.one_in(4) {
                    let span = 1 << rng.below(30);
                    now += rng.below(span);
                    let later = oracle.split_off(&(now + 1, 0));
                    let due: Vec<_> = oracle.into_keys().collect();
                    oracle = later;
                    assert_eq!(drain(&mut wheel, now), due, "seed {seed}");
                    assert_eq!(wheel.len(), oracle.len());
                    if let (Some(next), Some(((first, _), ()))) =
                        (wheel.next_deadline(), oracle.first_key_value())
                    {
                        assert!(next <= *first);
                    }
                }
                if rng.one_in(50) {
                    wheel.purge(2_000, |deadline, id| {
                        let keep = id % 2 == 0;
                        keep || oracle.remove(&(deadline, id)).is_none()
                    });
                    assert_eq!(wheel.len(), oracle.len());
                }
            }
        }
    }

    /// Timer pages whose allocation fails now and then.
    struct Starved {
        timer_pages: Mapped,
        rng: Rng,
    }

    impl TimerPages<u32> for Starved {
        fn push(&mut self, chain: &mut u32, deadline_low: u32, payload: u32) -> bool {
            self.rng.one_in(2) && self.timer_pages.push(chain, deadline_low, payload)
        }

        fn pop(&mut self, chain: &mut u32) -> Option<(u32, u32)> {
            self.timer_pages.pop(chain)
        }

        fn for_each(&self, chain: u32, visit: impl FnMut(u32, u32)) {
            self.timer_pages.for_each(chain, visit);
        }

        fn memory_bytes(&self) -> usize {
            self.timer_pages.memory_bytes()
        }

        fn growth_bytes_max(&self, entries: usize, timer_pages: usize) -> usize {
            self.timer_pages.growth_bytes_max(entries, timer_pages)
        }

        fn drop_step(&mut self) -> bool {
            self.timer_pages.drop_step()
        }
    }

    #[test]
    fn entries_dropped_for_want_of_memory_are_not_counted() {
        let mut rng = Rng::new(4);
        let mut wheel = Wheel::within(Starved { timer_pages: Mapped::new(), rng: Rng::new(5) });
        let (mut now, mut stored) = (0, 0);
        for id in 0..5_000 {
            let deadline = now + rng.below(1 << 20);
            stored += u32::from(wheel.insert(deadline, id));
            if rng.one_in(4) {
                now += rng.below(1 << 12);
                drain(&mut wheel, now);
            }
            if rng.one_in(100) {
                wheel.purge(500, |_, id| id % 2 == 0);
            }
            let mut held = 0;
            wheel.for_each(|_, _| held += 1);
            assert_eq!(wheel.len(), held);
            assert_eq!(wheel.next_deadline().is_some(), held > 0);
        }
        assert!((2_000..3_000).contains(&stored), "{stored}");
    }

    #[test]
    fn purge_drops_stale_entries_and_keeps_the_rest() {
        let mut wheel = Wheel::mapped();
        for id in 0..1_000_000u32 {
            wheel.insert(1 + u64::from(id) * 37, id);
        }
        let before = wheel.memory_bytes();
        let mut dropped = 0;
        for _ in 0..1_100 {
            dropped += wheel.purge(1_000, |_, id| id % 10 == 0);
        }
        assert_eq!(dropped, 900_000);
        while wheel.has_idle() {
            wheel.trim();
        }
        assert!(wheel.memory_bytes() < before * 4 / 5, "{} of {before}", wheel.memory_bytes());
        let due = drain(&mut wheel, 1_000_000 * 37);
        assert_eq!(due.len(), 100_000);
        assert!(due.iter().all(|&(deadline, id)| id % 10 == 0 && deadline == 1 + u64::from(id) * 37));
    }

    #[test]
    fn jump_of_a_week_costs_few_steps() {
        let mut wheel = Wheel::new();
        let week = 7 * 24 * 3_600 * 1_000;
        wheel.insert(week, 1);
        let steps = std::iter::from_fn(|| (wheel.pop(week) != Popped::Idle).then_some(())).count();
        assert!(steps <= 5, "{steps}");
    }
}
