//! Real time, read once per iteration and before each read of a socket.

use crate::base::time::{Instant, Now};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// On Linux the clock that goes on while the machine sleeps, so that a TTL of a minute ends after a minute.
#[cfg(target_os = "linux")]
const MONOTONIC: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const MONOTONIC: ClockId = ClockId::Monotonic;

/// The monotonic time since it was made, and the wall clock.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Duration,
    /// The wall clock at the origin, in milliseconds since 1970, as it was last seen.
    wall_origin_ms: Cell<u64>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { origin: since_boot(), wall_origin_ms: Cell::new(0) }
    }

    /// The monotonic time.
    pub(super) fn mono(&self) -> Instant {
        Instant::ZERO.after(since_boot().saturating_sub(self.origin))
    }

    /// Both clocks. A wall clock before 1970 counts as 1970. The two advance by whole milliseconds together while the
    /// wall clock does not jump: an expiry that was set by one reads back by the other as it was.
    pub(super) fn read(&self) -> Now {
        let mono = self.mono();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        if wall_ms.abs_diff(self.wall_origin_ms.get().saturating_add(mono.millis())) > 1 {
            self.wall_origin_ms.set(wall_ms.saturating_sub(mono.millis()));
        }
        Now { mono, wall_ms: self.wall_origin_ms.get().saturating_add(mono.millis()) }
    }
}

fn since_boot() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(MONOTONIC);
    Duration::new(u64::try_from(tv_sec).unwrap_or(0), u32::try_from(tv_nsec).unwrap_or(0))
}
