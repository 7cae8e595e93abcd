//! Real time, read once a turn.

use crate::base::time::{Instant, Now};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time since it was made, and the time of day.
#[derive(Debug)]
pub(super) struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    /// The monotonic moment.
    pub(super) fn mono(&self) -> Instant {
        Instant::ZERO.after(self.origin.elapsed())
    }

    /// Both clocks. A time of day before 1970 counts as 1970.
    pub(super) fn read(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.mono(), wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
    }
}
