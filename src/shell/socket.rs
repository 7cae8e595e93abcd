//! The sockets of connections, by the node's keys, and their readiness.
//!
//! mio reports edges, so a bit set by an event stays set until a system call has shown that it no longer holds.

use crate::batch::uninterrupted;
use crate::limits::BYTES_PER_STEP;
use crate::node::ConnKey;
use mio::event::Event;
use mio::net::TcpStream;
#[cfg(unix)]
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
#[cfg(any(target_os = "linux", target_os = "android"))]
use nix::libc;
#[cfg(any(target_os = "linux", target_os = "android"))]
use nix::sys::socket::{SetSockOpt, sockopt::SetStruct};
use socket2::SockRef;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
#[cfg(unix)]
use std::os::fd::AsRawFd;

/// Maximum bytes offered to the system by one write: without a limit one call copies all that fits its buffer, up to 16
/// MiB, for milliseconds. A value of 256 KiB fits one write with the bytes around it.
pub(super) const WRITE_BYTES_MAX: usize = 257 * 1024;

/// Maximum bytes of a write that leaves output for the next one: the largest whole number of segments up to it.
const PART_BYTES_MAX: usize = 128 * 1024;

/// Bytes per read of each connection of a batch: a pipeline of 64 requests with values of 64 bytes.
pub(super) const BATCHED_READ_BYTES: usize = 8 * 1024;

/// Bytes of a read in which a large request is expected to begin; its rest is then read straight into the buffer of the
/// connection.
const FIRST_BYTES: usize = 4 * 1024;

/// Bytes of a read into the buffer of a large request from which on its sender is taken to be fast.
const FAST_BYTES: usize = 16 * 1024;

/// Maximum chunks of output offered by one write.
const SLICES_PER_WRITE: usize = 8;

/// The option `SO_RCVLOWAT`.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[derive(Debug, Clone, Copy)]
struct LowWater;
#[cfg(any(target_os = "linux", target_os = "android"))]
nix::setsockopt_impl!(LowWater, libc::SOL_SOCKET, libc::SO_RCVLOWAT, u32, SetStruct<'_, u32>);

/// The result of one read.
#[derive(Debug)]
pub(super) enum ReadEnd {
    /// This many bytes, and nothing more for now.
    Drained(usize),
    /// This many bytes, and perhaps more.
    More(usize),
    /// Nothing for now.
    Blocked,
    /// The other side will send no more.
    Closed,
    /// The connection is broken.
    Broken(io::Error),
}

impl ReadEnd {
    /// Bytes read.
    pub(super) const fn count(&self) -> usize {
        match self {
            Self::Drained(count) | Self::More(count) => *count,
            Self::Blocked | Self::Closed | Self::Broken(_) => 0,
        }
    }

    /// Whether there may be more to read.
    pub(super) const fn has_more(&self) -> bool {
        matches!(self, Self::More(_))
    }
}

/// The state of a dial.
#[derive(Debug)]
pub(super) enum DialEnd {
    /// Neither up nor failed yet.
    UnderWay,
    /// The connection is up.
    Up,
    /// The dial has failed.
    Broken(io::Error),
}

/// The result of one write.
#[derive(Debug)]
pub(super) enum WriteEnd {
    /// This many bytes were accepted.
    Took(usize),
    /// None for now.
    Blocked,
    /// The connection is broken.
    Broken(io::Error),
}

/// One socket.
#[derive(Debug)]
pub(super) struct Socket {
    key: ConnKey,
    stream: TcpStream,
    is_readable: bool,
    is_writable: bool,
    /// The other side has closed, or sent urgent data, at which a read ends early: until a read blocks, a short read
    /// does not show that all was read, and no further edge would report the rest.
    has_more: bool,
    /// Dialled, and not up yet: not to be read from or written to.
    is_connecting: bool,
    /// The node has stopped reading from it.
    is_stopped: bool,
    /// In the queue of connections to read from.
    is_queued: bool,
    /// The last read went into the buffer of a large request: another one may follow.
    expects_large: bool,
    /// The last read was of at least [`BATCHED_READ_BYTES`]: the next one may be too.
    sends_much: bool,
    /// Its events are reported twice.
    is_watched: bool,
    /// Bytes from which on the system reports it as readable.
    low_water: u32,
}

impl Socket {
    const fn new(key: ConnKey, stream: TcpStream, is_connecting: bool) -> Self {
        Self {
            key,
            stream,
            is_readable: false,
            is_writable: !is_connecting,
            has_more: false,
            is_connecting,
            is_stopped: false,
            is_queued: false,
            expects_large: false,
            sends_much: false,
            is_watched: false,
            low_water: 1,
        }
    }

    /// Registers it with a second poll, unless it was before.
    #[cfg(unix)]
    pub(super) fn watch(&mut self, registry: &Registry, token: Token, interest: Interest) {
        if !std::mem::replace(&mut self.is_watched, true) {
            let _ = registry.register(&mut SourceFd(&self.stream.as_raw_fd()), token, interest);
        }
    }

    /// Notes an event; returns whether it made the socket writable.
    pub(super) fn note(&mut self, event: &Event) -> bool {
        let may_have_ended = event.is_read_closed() || event.is_error();
        self.has_more |= may_have_ended || event.is_priority();
        self.is_readable |= may_have_ended || event.is_readable();
        !self.is_connecting && event.is_writable() && !std::mem::replace(&mut self.is_writable, true)
    }

    /// Its stream.
    pub(super) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether the next read may be of more than [`BATCHED_READ_BYTES`], by the last one.
    pub(super) const fn may_send_much(&self) -> bool {
        self.expects_large || self.sends_much
    }

    /// Whether it is dialled and not up yet.
    pub(super) const fn is_connecting(&self) -> bool {
        self.is_connecting
    }

    /// Whether the next write may be accepted.
    pub(super) const fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// Stops reading from it until it is resumed.
    pub(super) const fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Resumes reading from it.
    pub(super) const fn resume(&mut self) {
        self.is_stopped = false;
    }

    /// Whether it must be added to the queue of connections to read from; it then counts as queued.
    pub(super) const fn enter_queue(&mut self) -> bool {
        let enters = self.is_readable && !self.is_stopped && !self.is_queued && !self.is_connecting;
        self.is_queued |= enters;
        enters
    }

    /// Notes that it has left the queue; returns whether it is to be read.
    pub(super) const fn leave_queue(&mut self) -> bool {
        self.is_queued = false;
        !self.is_stopped
    }

    /// Reads once into `room`, which is usually empty, and then `scratch`, unless more is missing than fits the room.
    pub(super) fn read(&mut self, room: &mut [u8], scratch: &mut [u8]) -> ReadEnd {
        let scratch = match room.len() {
            0 if self.expects_large => &mut scratch[..FIRST_BYTES],
            BYTES_PER_STEP => &mut [],
            _ => scratch,
        };
        self.expects_large = !room.is_empty();
        let bytes_max = room.len() + scratch.len();
        let result = uninterrupted(|| match room.is_empty() {
            true => self.stream.read(scratch),
            false => self.stream.read_vectored(&mut [IoSliceMut::new(room), IoSliceMut::new(scratch)]),
        });
        self.has_read(result, bytes_max)
    }

    /// Notes the result of a read of at most `bytes_max` bytes.
    pub(super) fn has_read(&mut self, result: io::Result<usize>, bytes_max: usize) -> ReadEnd {
        let end = match result {
            Ok(0) => ReadEnd::Closed,
            // epoll(7), "Questions and answers", 9: a short read has drained a stream.
            Ok(count) if cfg!(unix) && count < bytes_max && !self.has_more => ReadEnd::Drained(count),
            Ok(count) => ReadEnd::More(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => ReadEnd::Blocked,
            Err(error) => ReadEnd::Broken(error),
        };
        self.is_readable = end.has_more();
        self.has_more &= self.is_readable;
        self.sends_much = end.count() >= BATCHED_READ_BYTES;
        end
    }

    /// Makes the system report a drained socket as readable only when `missing` bytes can be read, if the last read
    /// had at least [`FAST_BYTES`]; else as soon as one can. Returns whether bytes may now stay unreported.
    pub(super) fn wait_for(&mut self, missing: usize, last_read: usize) -> bool {
        let bytes = if last_read < FAST_BYTES { 1 } else { missing.max(1) };
        let low_water = u32::try_from(bytes).unwrap_or(1);
        if low_water != self.low_water && set_low_water(&self.stream, low_water) {
            self.low_water = low_water;
        }
        self.low_water > 1
    }

    /// The state of a dial, after an event.
    pub(super) fn finish_dial(&mut self) -> DialEnd {
        match self.stream.take_error() {
            Ok(Some(error)) | Err(error) => return DialEnd::Broken(error),
            Ok(None) => {}
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.is_connecting = false;
                self.is_writable = true;
                DialEnd::Up
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => DialEnd::UnderWay,
            Err(error) => DialEnd::Broken(error),
        }
    }

    /// Writes once, at most [`WRITE_BYTES_MAX`] of the slices, or nothing if they are empty.
    #[inline(never)]
    pub(super) fn write_slices<'b>(&mut self, slices: impl Iterator<Item = &'b [u8]> + Clone) -> WriteEnd {
        let (mut vector, mut count, room) = gather(slices.clone(), WRITE_BYTES_MAX);
        if room == 0 {
            (vector, count, _) = gather(slices, self.part_bytes());
        }
        let result = uninterrupted(|| match &vector[..count] {
            [] => Ok(0),
            // `send` costs the system less than `writev`.
            [slice] => self.stream.write(slice),
            slices => self.stream.write_vectored(slices),
        });
        if count == 0 { WriteEnd::Took(0) } else { self.has_written(result) }
    }

    /// Notes the result of a write of at least one byte.
    #[inline]
    pub(super) fn has_written(&mut self, result: io::Result<usize>) -> WriteEnd {
        match result {
            Ok(0) => WriteEnd::Broken(ErrorKind::WriteZero.into()),
            Ok(count) => WriteEnd::Took(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_writable = false;
                WriteEnd::Blocked
            }
            Err(error) => WriteEnd::Broken(error),
        }
    }

    /// Bytes of a write that leaves output for the next one. A remainder of a segment would be sent as a small one, which
    /// costs both sides nearly as much as a whole one: on loopback a segment has 64 KiB.
    fn part_bytes(&self) -> usize {
        #[cfg(unix)]
        let segment = SockRef::from(&self.stream).tcp_mss().map_or(0, |bytes| bytes as usize);
        #[cfg(not(unix))]
        let segment = 0;
        if (1..=PART_BYTES_MAX).contains(&segment) {
            PART_BYTES_MAX - PART_BYTES_MAX % segment
        } else {
            PART_BYTES_MAX
        }
    }

    /// Shuts down the writing side. If that fails the connection is broken, which the next read reports.
    pub(super) fn shutdown_write(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// Sets the bytes from which on the system reports a socket as readable; does so at once if it has them. False: it
/// refused.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn set_low_water(stream: &TcpStream, bytes: u32) -> bool {
    LowWater.set(stream, &bytes).is_ok()
}

/// Other systems report each byte.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn set_low_water(_: &TcpStream, _: u32) -> bool {
    false
}

/// The first slices, at most `room` bytes of them, how many there are, and the room left.
fn gather<'b>(
    slices: impl Iterator<Item = &'b [u8]>,
    mut room: usize,
) -> ([IoSlice<'b>; SLICES_PER_WRITE], usize, usize) {
    let mut vector = [IoSlice::new(&[]); SLICES_PER_WRITE];
    let mut count = 0;
    for (slice, entry) in slices.zip(&mut vector) {
        let slice = &slice[..slice.len().min(room)];
        room -= slice.len();
        *entry = IoSlice::new(slice);
        count += usize::from(!slice.is_empty());
    }
    (vector, count, room)
}

/// All sockets, at the index of their key.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    entries: Vec<Option<Socket>>,
}

impl Sockets {
    /// Keeps a socket for a connection that the node has accepted.
    pub(super) fn insert(&mut self, key: ConnKey, stream: TcpStream) {
        self.insert_at(Socket::new(key, stream, false));
    }

    /// Keeps a socket for a connection that is being made.
    pub(super) fn insert_connecting(&mut self, key: ConnKey, stream: TcpStream) {
        self.insert_at(Socket::new(key, stream, true));
    }

    fn insert_at(&mut self, socket: Socket) {
        let at = socket.key.index();
        if self.entries.len() <= at {
            self.entries.resize_with(at + 1, || None);
        }
        self.entries[at] = Some(socket);
    }

    /// Makes the system report every socket that has bytes.
    pub(super) fn report_all(&mut self) {
        for socket in self.entries.iter_mut().flatten() {
            socket.wait_for(1, 0);
        }
    }

    /// The socket of a connection; `None` if the key is stale.
    pub(super) fn get(&self, key: ConnKey) -> Option<&Socket> {
        self.entries.get(key.index())?.as_ref().filter(|socket| socket.key == key)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, key: ConnKey) -> Option<&mut Socket> {
        self.entries.get_mut(key.index())?.as_mut().filter(|socket| socket.key == key)
    }

    /// Closes the socket of a connection, which also ends its events; false if the key is stale.
    pub(super) fn remove(&mut self, key: ConnKey) -> bool {
        match self.entries.get_mut(key.index()) {
            Some(entry) if entry.as_ref().is_some_and(|socket| socket.key == key) => {
                *entry = None;
                true
            }
            Some(_) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BATCHED_READ_BYTES, DialEnd, FAST_BYTES, ReadEnd, Sockets, WRITE_BYTES_MAX, WriteEnd};
    use crate::base::slots::Key;
    use mio::net::TcpStream;
    use mio::{Events, Interest, Poll, Token};
    use socket2::SockRef;
    use std::io::{ErrorKind, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::time::Duration;

    /// Dials, as the loop does, until the dial has ended.
    fn dial(addr: SocketAddr) -> (Sockets, DialEnd) {
        let mut poll = Poll::new().unwrap();
        let key = Key::from_bits(1 << 32).unwrap();
        let mut stream = TcpStream::connect(addr).unwrap();
        let both = Interest::READABLE.add(Interest::WRITABLE);
        poll.registry().register(&mut stream, Token(0), both).unwrap();
        let mut sockets = Sockets::default();
        sockets.insert_connecting(key, stream);
        let mut events = Events::with_capacity(8);
        loop {
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert!(!events.is_empty(), "no event for the dial");
            match sockets.get_mut(key).unwrap().finish_dial() {
                DialEnd::UnderWay => {}
                end @ (DialEnd::Up | DialEnd::Broken(_)) => return (sockets, end),
            }
        }
    }

    #[test]
    fn dialled_socket_is_up_and_writable_where_a_listener_is() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (mut sockets, end) = dial(listener.local_addr().unwrap());
        assert!(matches!(end, DialEnd::Up), "{end:?}");
        let socket = sockets.get_mut(Key::from_bits(1 << 32).unwrap()).unwrap();
        assert!(socket.is_writable && !socket.is_connecting);
    }

    #[test]
    fn socket_whose_last_read_was_long_may_send_much() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (mut sockets, _) = dial(listener.local_addr().unwrap());
        let socket = sockets.get_mut(Key::from_bits(1 << 32).unwrap()).unwrap();
        assert!(!socket.may_send_much());
        for (count, may) in [
            (BATCHED_READ_BYTES, true),
            (BATCHED_READ_BYTES - 1, false),
            (BATCHED_READ_BYTES + 1, true),
            (1, false),
        ] {
            socket.has_read(Ok(count), 2 * BATCHED_READ_BYTES);
            assert_eq!(socket.may_send_much(), may, "after {count} bytes");
        }
    }

    #[cfg(unix)]
    #[test]
    fn write_that_leaves_output_ends_with_a_whole_segment() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (mut sockets, _) = dial(listener.local_addr().unwrap());
        let socket = sockets.get_mut(Key::from_bits(1 << 32).unwrap()).unwrap();
        let segment = SockRef::from(&socket.stream).tcp_mss().unwrap() as usize;
        let bytes = vec![0; WRITE_BYTES_MAX];
        let mut write = |count: usize| {
            let slices = [&b"head"[..], &bytes[..count - 4]];
            match socket.write_slices(slices.into_iter()) {
                WriteEnd::Took(count) => count,
                end @ (WriteEnd::Blocked | WriteEnd::Broken(_)) => panic!("{end:?}"),
            }
        };
        let took = write(WRITE_BYTES_MAX);
        assert!(took > 4 && took % segment == 0, "{took} bytes, segments of {segment}");
        assert_eq!(write(WRITE_BYTES_MAX - 1), WRITE_BYTES_MAX - 1);
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn rest_of_a_large_request_is_reported_once_and_earlier_on_demand() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream);
        let mut poll = Poll::new().unwrap();
        poll.registry().register(&mut stream, Token(0), Interest::READABLE).unwrap();
        let mut sockets = Sockets::default();
        let key = Key::from_bits(1 << 32).unwrap();
        sockets.insert(key, stream);
        let (mut room, mut events) = (vec![0; 100_000], Events::with_capacity(8));
        let mut reported = |wait| {
            poll.poll(&mut events, Some(wait)).unwrap();
            !events.is_empty()
        };
        let (long, none) = (Duration::from_secs(10), Duration::ZERO);
        // Written, missing after it, and whether it is reported.
        for (bytes, missing, is_reported) in
            [(20_000, 40_000, true), (39_999, 40_000, false), (1, 30_000, true), (1, 30_000, false)]
        {
            client.write_all(&vec![1; bytes]).unwrap();
            assert_eq!(reported(if is_reported { long } else { none }), is_reported, "{bytes} bytes");
            if is_reported {
                let socket = sockets.get_mut(key).unwrap();
                let end = socket.read(&mut room, &mut []);
                let ReadEnd::Drained(count) = end else { panic!("{end:?}") };
                assert!(socket.wait_for(missing, count));
            }
        }
        sockets.report_all();
        assert!(reported(long), "a byte stays unreported");
        let socket = sockets.get_mut(key).unwrap();
        assert!(matches!(socket.read(&mut room, &mut []), ReadEnd::Drained(1)));
        assert!(!socket.wait_for(30_000, FAST_BYTES - 1), "the sender is slow");
    }

    #[test]
    fn dialled_socket_is_broken_where_no_listener_is() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let (_, end) = dial(addr);
        let DialEnd::Broken(error) = end else { panic!("{end:?}") };
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}
