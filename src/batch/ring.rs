//! Batches by io_uring: their entries are put into the ring, and one system call has all of them carried out.
#![expect(unsafe_code, reason = "the use has its argument beside it")]

use super::{Results, SOCKETS_MAX};
use io_uring::squeue::Entry;
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};
use mio::net::TcpStream;
use nix::libc::{MSG_DONTWAIT, MSG_NOSIGNAL};
use std::fmt::{self, Debug, Formatter};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::thread;

/// A ring, empty between two batches.
pub(super) struct Ring {
    ring: IoUring,
    /// The entries of the last batch.
    entries: Vec<Entry>,
}

impl Ring {
    /// Asks the system for a ring, which only this thread can use.
    ///
    /// # Errors
    /// The system has none with these options, as before Linux 6.0, or does not permit it, as in many containers.
    pub(super) fn new() -> io::Result<Self> {
        let size = u32::try_from(SOCKETS_MAX).unwrap_or(u32::MAX);
        let ring =
            IoUring::builder().setup_single_issuer().setup_coop_taskrun().setup_submit_all().build(size)?;
        Ok(Self { ring, entries: Vec::with_capacity(SOCKETS_MAX) })
    }

    /// Reads once from each socket. The only one of a batch is left without a result: a single call costs less.
    ///
    /// # Errors
    /// The system refuses the ring, which must not be used again; what it did not carry out has no result.
    pub(super) fn read<'s, 'b>(
        &mut self,
        reads: impl Iterator<Item = (&'s TcpStream, &'b mut [u8])>,
        results: &mut Results,
    ) -> io::Result<()> {
        self.carry_out(results, reads, |(socket, buffer)| {
            let bytes = length(buffer);
            opcode::Recv::new(Fd(socket.as_raw_fd()), buffer.as_mut_ptr(), bytes).flags(MSG_DONTWAIT).build()
        })
    }

    /// Writes once to each socket; otherwise as [`Ring::read`].
    ///
    /// # Errors
    /// As for [`Ring::read`].
    pub(super) fn write<'b>(
        &mut self,
        writes: impl Iterator<Item = (&'b TcpStream, &'b [u8])>,
        results: &mut Results,
    ) -> io::Result<()> {
        self.carry_out(results, writes, |(socket, bytes)| {
            opcode::Send::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), length(bytes))
                .flags(MSG_DONTWAIT | MSG_NOSIGNAL)
                .build()
        })
    }

    /// Carries out the entries of operations. The buffers of these are borrowed until it returns.
    fn carry_out<O>(
        &mut self,
        results: &mut Results,
        operations: impl Iterator<Item = O>,
        entry: impl Fn(O) -> Entry,
    ) -> io::Result<()> {
        self.entries.clear();
        let numbered = (0..).zip(operations.take(SOCKETS_MAX));
        self.entries.extend(numbered.map(|(at, operation)| entry(operation).user_data(at)));
        if self.entries.len() < 2 {
            return Ok(());
        }
        // SAFETY: the system accesses the buffer of an entry from the call that submits it until it is completed. This
        // function returns, and the borrow of the buffers ends, when each submitted entry is completed; entries that are
        // not are never submitted, since the ring is not used again. Nothing in between panics.
        unsafe { self.ring.submission().push_multiple(&self.entries) }.map_err(io::Error::other)?;
        let mut left = self.entries.len();
        while left > 0 {
            let called = self.ring.submit_and_wait(left);
            left -= self.take_completed(results);
            if let Err(error) = called
                && error.kind() != ErrorKind::Interrupted
            {
                let unsubmitted = self.ring.submission().len();
                while left > unsubmitted {
                    thread::yield_now();
                    left -= self.take_completed(results);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes the results of completed entries; returns their number.
    fn take_completed(&mut self, results: &mut Results) -> usize {
        let mut count = 0;
        for entry in self.ring.completion() {
            count += 1;
            let result = usize::try_from(entry.result());
            let result = result.map_err(|_| io::Error::from_raw_os_error(-entry.result()));
            let place = usize::try_from(entry.user_data()).ok().and_then(|at| results.get_mut(at));
            // One that a signal interrupted is repeated by a single call.
            let is_interrupted = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Interrupted);
            if let Some(place) = place.filter(|_| !is_interrupted) {
                *place = Some(result);
            }
        }
        count
    }
}

impl Debug for Ring {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

/// The length of a buffer; of a longer one than an entry can have, its start.
fn length(buffer: &[u8]) -> u32 {
    u32::try_from(buffer.len()).unwrap_or(u32::MAX)
}
