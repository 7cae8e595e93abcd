//! Shared parts of the tests with the real program: a started program, and a client of it.
//!
//! Not here: code that depends on the program's internals.

#![allow(dead_code, reason = "each test program uses its own part of this")]

pub mod client;
pub mod mesh;
#[cfg(target_os = "linux")]
pub mod net;
pub mod resp;
pub mod server;

use std::thread;
use std::time::{Duration, Instant};

/// Time limit of every wait, so long that only a hang reaches it.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// Raises the limit of open files, often 1024, of this process and of those that it starts. Returns it.
pub fn raise_open_files() -> u64 {
    rlimit::increase_nofile_limit(1 << 16).unwrap()
}

/// Waits until `is_so`, which is called every few milliseconds. Panics with `what` after [`WAIT_MAX`].
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < WAIT_MAX, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
