//! Reads and writes of many sockets in one system call: by io_uring where the system has it and permits it, else by a
//! call for each.
//!
//! Nothing is under way between two batches: no socket blocks, so the system has carried out each read and write when its
//! call returns. Which sockets are readable and writable is known from the poll, as for single calls.
//!
//! Not here: the poll, and reads and writes of large values, whose cost is not that of the call.

#[cfg(target_os = "linux")]
mod ring;

use mio::net::TcpStream;
#[cfg(target_os = "linux")]
use ring::Ring;
use std::io::{self, ErrorKind, Read, Write};

/// Maximum sockets of one batch.
pub const SOCKETS_MAX: usize = 32;

/// The results of a batch, in its order; `None`: not carried out yet, or taken.
type Results = [Option<io::Result<usize>>; SOCKETS_MAX];

/// Carries out batches, of at most [`SOCKETS_MAX`] sockets each.
#[derive(Debug)]
pub struct Batch {
    /// `None`: the system has none or does not permit it.
    #[cfg(target_os = "linux")]
    ring: Option<Ring>,
    results: Results,
}

impl Batch {
    /// Prepares batches: some 50 µs, and 10 KiB in the system.
    pub fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            ring: Ring::new().map_err(|error| log::debug!("no io_uring: {error}")).ok(),
            results: [const { None }; SOCKETS_MAX],
        }
    }

    /// Reads once from each socket into its part of `scratch`, which has `part_bytes`. The parts are in the order of the
    /// sockets.
    pub fn read<'s>(
        &mut self,
        sockets: impl Iterator<Item = &'s TcpStream> + Clone,
        scratch: &mut [u8],
        part_bytes: usize,
    ) {
        #[cfg(target_os = "linux")]
        self.by_ring(|ring, results| ring.read(sockets.clone().zip(scratch.chunks_mut(part_bytes)), results));
        let reads = sockets.zip(scratch.chunks_mut(part_bytes));
        for ((mut socket, part), result) in reads.zip(&mut self.results) {
            result.get_or_insert_with(|| uninterrupted(|| socket.read(part)));
        }
    }

    /// Writes once to each socket.
    pub fn write<'s>(&mut self, writes: impl Iterator<Item = (&'s TcpStream, &'s [u8])> + Clone) {
        #[cfg(target_os = "linux")]
        self.by_ring(|ring, results| ring.write(writes.clone(), results));
        for ((mut socket, bytes), result) in writes.zip(&mut self.results) {
            result.get_or_insert_with(|| uninterrupted(|| socket.write(bytes)));
        }
    }

    /// Takes the result of the socket at this place in the last batch. All are to be taken before the next one.
    ///
    /// # Errors
    /// Those of the system; `WouldBlock` also if the batch had no such place.
    pub fn take(&mut self, at: usize) -> io::Result<usize> {
        self.results.get_mut(at).and_then(Option::take).unwrap_or(Err(ErrorKind::WouldBlock.into()))
    }

    /// Has the ring carry out a batch, if there is one. What it leaves without a result is done by single calls.
    #[cfg(target_os = "linux")]
    fn by_ring(&mut self, carry_out: impl FnOnce(&mut Ring, &mut Results) -> io::Result<()>) {
        let Some(ring) = &mut self.ring else { return };
        if let Err(error) = carry_out(ring, &mut self.results) {
            log::warn!("io_uring fails, each read and write is a system call from now on: {error}");
            self.ring = None;
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// The result of a call, which is repeated if a signal interrupts it.
pub fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Batch, SOCKETS_MAX};
    use mio::net::TcpStream;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpListener};

    /// Both forms: by the ring of the system, if it has one, and by single calls.
    fn both() -> [Batch; 2] {
        let mut single = Batch::new();
        #[cfg(target_os = "linux")]
        {
            single.ring = None;
        }
        [Batch::new(), single]
    }

    /// As many connections as a batch can have: this side and the other one.
    fn connections() -> Vec<(TcpStream, std::net::TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = |_| {
            let other = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (this, _) = listener.accept().unwrap();
            this.set_nonblocking(true).unwrap();
            (TcpStream::from_std(this), other)
        };
        (0..SOCKETS_MAX).map(connect).collect()
    }

    #[test]
    fn each_socket_is_read_once_into_its_part_and_has_its_own_result() {
        for mut batch in both() {
            let mut pairs = connections();
            for (at, (_, other)) in pairs.iter_mut().enumerate() {
                match at % 4 {
                    0 => other.write_all(format!("{at:02}").as_bytes()).unwrap(),
                    1 => other.write_all(b"more than its part has room for").unwrap(),
                    2 => other.shutdown(Shutdown::Both).unwrap(),
                    _ => {}
                }
            }
            for sockets in [1, 2, SOCKETS_MAX] {
                let mut scratch = [0; SOCKETS_MAX * 8];
                batch.read(pairs.iter().take(sockets).map(|(this, _)| this), &mut scratch, 8);
                for (at, part) in scratch.chunks(8).enumerate() {
                    match (at % 4, batch.take(at)) {
                        (_, result) if at >= sockets => assert!(result.is_err(), "{result:?}"),
                        (0, Ok(2)) => assert_eq!(part[..2], *format!("{at:02}").as_bytes()),
                        (1, Ok(8)) => {}
                        (2, Ok(0)) => {}
                        (0 | 3, Err(error)) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                        (_, result) => panic!("{at}: {result:?}"),
                    }
                    assert_eq!(batch.take(at).unwrap_err().kind(), ErrorKind::WouldBlock, "taken twice");
                }
            }
        }
    }

    #[test]
    fn each_socket_is_written_to_once_and_a_broken_one_has_an_error() {
        for mut batch in both() {
            let mut pairs = connections();
            let large = vec![b'x'; 64 << 20];
            let bytes = |at: usize| if at == 3 { &large[..] } else { &b"reply"[..] };
            // The other side answers the first write to it by a reset.
            pairs[1].1.shutdown(Shutdown::Both).unwrap();
            (&pairs[1].0).write_all(b"unread").unwrap();
            batch.write(pairs.iter().enumerate().map(|(at, (this, _))| (this, bytes(at))));
            for (at, (_, other)) in pairs.iter_mut().enumerate() {
                let result = batch.take(at);
                if at == 1 {
                    assert_eq!(result.unwrap_err().kind(), ErrorKind::BrokenPipe);
                    continue;
                }
                let count = result.unwrap();
                assert!(if at == 3 { count < large.len() } else { count == 5 }, "{at}: {count}");
                let mut read = [0; 5];
                other.read_exact(&mut read).unwrap();
                assert_eq!(read, bytes(at)[..5]);
            }
        }
    }
}
