//! The log on standard error, written only while the descriptor is writable.
//!
//! A line is written if a poll with timeout 0 reports the descriptor as writable, else dropped and counted: a full
//! pipe, a stopped terminal or a stuck log driver must not stop the loop. `O_NONBLOCK` would apply to every process
//! that shares the descriptor. If other processes write to the same pipe, one of them can still fill it between poll
//! and write.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::{self, Stderr, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a line; the rest is cut. A pipe that polls as writable takes 4 KiB (`PIPE_BUF`) without blocking.
const LINE_BYTES_MAX: usize = 4_096;

/// Lines dropped since the program started.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines that were dropped because standard error did not take them, since the program started.
pub(super) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Writes whole lines to standard error.
#[derive(Debug)]
pub struct LogOutput {
    stderr: Stderr,
    line: Vec<u8>,
    /// The value of [`dropped`] when it was last reported.
    reported: u64,
}

impl LogOutput {
    /// An output to standard error.
    pub fn new() -> Self {
        Self { stderr: io::stderr(), line: Vec::new(), reported: 0 }
    }

    fn end_line(&mut self) {
        let dropped = dropped();
        if dropped > self.reported && self.is_writable() {
            let lines = dropped - self.reported;
            // Standard error is closed: the line is lost.
            let _ = writeln!(self.stderr, "{lines} log lines dropped: standard error was not read");
            self.reported = dropped;
        }
        if self.line.len() > LINE_BYTES_MAX {
            self.line.truncate(LINE_BYTES_MAX - 1);
            self.line.push(b'\n');
        }
        if self.is_writable() {
            let _ = self.stderr.write_all(&self.line);
        } else {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        self.line.clear();
    }

    fn is_writable(&self) -> bool {
        let mut fds = [PollFd::new(&self.stderr, PollFlags::OUT)];
        loop {
            match poll(&mut fds, Some(&Timespec::default())) {
                Ok(count) => return count > 0,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

impl Default for LogOutput {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for LogOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
