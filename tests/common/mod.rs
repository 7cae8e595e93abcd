//! What the tests with the real program share: a started program, and a client of it.
//!
//! Not here: anything that knows how the program works inside.

#![allow(dead_code, reason = "each test program uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails is a test that fails")]

pub mod client;
pub mod mesh;
#[cfg(target_os = "linux")]
pub mod net;
pub mod server;

use std::thread;
use std::time::{Duration, Instant};

/// How long anything is waited for. Far more than it takes, so that only a hang reaches it.
pub const WAIT_MAX: Duration = Duration::from_secs(20);

/// Waits until `is_so`, looking every few milliseconds. Panics with `what` when it takes too long.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < WAIT_MAX, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
