//! Real time: the wall clock is read at most once per millisecond, the monotonic one also for each read and write of a
//! socket, or batch of them.

use crate::base::time::{Instant, Now};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::cell::Cell;
use std::time::Duration;

/// On Linux the clock that advances while the machine sleeps, so that a TTL of a minute ends after a minute.
#[cfg(target_os = "linux")]
const MONOTONIC: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const MONOTONIC: ClockId = ClockId::Monotonic;

/// Nanoseconds by which the two clocks may differ before the wall clock counts as having jumped: the time that may pass
/// between the readings of both.
const JUMP_NANOS: u64 = 1_000_000;

/// The least time between two readings of the wall clock.
const WALL_EVERY: Duration = Duration::from_millis(1);

/// The monotonic time since the start of the node, and the wall clock.
#[derive(Debug)]
pub(super) struct Clock {
    /// Nanoseconds since the start of the machine.
    origin: u64,
    /// The wall clock at the origin, in nanoseconds since 1970, by its last reading: whole milliseconds.
    wall_origin: Cell<u64>,
    /// When the wall clock is to be read again.
    wall_due: Cell<Instant>,
    /// The last reading of the monotonic clock.
    last: Cell<Instant>,
}

impl Clock {
    pub(super) fn new() -> Self {
        let (since_boot, wall) = (since_boot(), since_1970());
        let fraction = wall % 1_000_000;
        Self {
            origin: since_boot.saturating_sub(fraction),
            wall_origin: Cell::new(wall - fraction),
            wall_due: Cell::default(),
            last: Cell::default(),
        }
    }

    /// The monotonic time.
    #[inline]
    pub(super) fn mono(&self) -> Instant {
        let mono = Instant::from_nanos(since_boot().saturating_sub(self.origin));
        self.last.set(mono);
        mono
    }

    /// Both clocks. A wall clock before 1970 counts as 1970. The two advance together while the wall clock does not
    /// jump, and a jump is rounded to milliseconds: an expiry that is set by one clock is the same when read by the
    /// other.
    #[inline]
    pub(super) fn read(&self) -> Now {
        let mono = self.mono();
        if mono >= self.wall_due.get() {
            self.read_wall(mono);
        }
        self.at(mono)
    }

    #[inline(never)]
    fn read_wall(&self, mono: Instant) {
        self.wall_due.set(mono.after(WALL_EVERY));
        let wall = since_1970();
        if wall.abs_diff(self.at(mono).wall_nanos) > JUMP_NANOS {
            let origin = wall.saturating_sub(mono.nanos());
            self.wall_origin.set((origin + 500_000) / 1_000_000 * 1_000_000);
        }
    }

    /// Both clocks later in an iteration, by the monotonic one alone: a later [`Clock::read`] detects jumps of the wall
    /// clock.
    #[inline]
    pub(super) fn read_again(&self) -> Now {
        self.at(self.mono())
    }

    /// Both clocks at their last reading, where nothing has taken time since.
    #[inline]
    pub(super) fn last(&self) -> Now {
        self.at(self.last.get())
    }

    fn at(&self, mono: Instant) -> Now {
        Now { mono, wall_nanos: self.wall_origin.get().saturating_add(mono.nanos()) }
    }
}

fn since_1970() -> u64 {
    nanos(clock_gettime(ClockId::Realtime))
}

/// Nanoseconds since the start of the machine.
fn since_boot() -> u64 {
    nanos(clock_gettime(MONOTONIC))
}

fn nanos(Timespec { tv_sec, tv_nsec }: Timespec) -> u64 {
    u64::try_from(tv_sec).unwrap_or(0) * 1_000_000_000 + tv_nsec.cast_unsigned()
}
