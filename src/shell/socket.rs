//! The sockets of connections, found by the node's keys, and what is known of their readiness.
//!
//! mio reports edges, so a bit set by an event stays set until a system call has shown that it no longer
//! holds. Reading and writing happen here; what the bytes mean is the node's part.

use crate::node::ConnKey;
use mio::net::TcpStream;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;

/// How often [`Socket::write`] may be called for one connection in a turn, before others have theirs.
pub(super) const WRITES_PER_TURN: u32 = 16;

/// What one read came to.
#[derive(Debug)]
pub(super) enum ReadEnd {
    /// So many bytes, and nothing more for now.
    Drained(usize),
    /// So many bytes, and perhaps more.
    More(usize),
    /// Nothing for now.
    Blocked,
    /// The other side will send no more.
    Closed,
    /// The connection is broken.
    Broken(io::Error),
}

/// What dialling has come to.
#[derive(Debug)]
pub(super) enum DialEnd {
    /// Neither up nor failed yet.
    UnderWay,
    /// The connection is up.
    Up,
    /// There is none.
    Broken(io::Error),
}

/// What one write came to.
#[derive(Debug)]
pub(super) enum WriteEnd {
    /// So many bytes were taken.
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
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
    /// An event said that the other side has closed: short reads prove nothing from here on, since no
    /// further edge would tell of the end behind them.
    pub(super) is_read_closed: bool,
    /// It was dialled, and is not up yet: not to be read from or written to.
    pub(super) is_connecting: bool,
    /// The node wants no more from it for now.
    pub(super) is_stopped: bool,
    /// In the queue of those to be read.
    pub(super) is_queued: bool,
}

impl Socket {
    /// Reads once into `scratch`.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> ReadEnd {
        loop {
            let end = match self.stream.read(scratch) {
                Ok(0) => ReadEnd::Closed,
                // epoll(7), "Questions and answers", 9: a short read has drained a stream.
                Ok(count) if cfg!(unix) && count < scratch.len() && !self.is_read_closed => {
                    ReadEnd::Drained(count)
                }
                Ok(count) => ReadEnd::More(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => ReadEnd::Blocked,
                Err(error) => ReadEnd::Broken(error),
            };
            self.is_readable = matches!(end, ReadEnd::More(_));
            return end;
        }
    }

    /// Finds out what dialling has come to, when an event has told something.
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

    /// Writes once.
    pub(super) fn write(&mut self, bytes: &[u8]) -> WriteEnd {
        loop {
            match self.stream.write(bytes) {
                Ok(0) => return WriteEnd::Broken(ErrorKind::WriteZero.into()),
                Ok(count) => return WriteEnd::Took(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_writable = false;
                    return WriteEnd::Blocked;
                }
                Err(error) => return WriteEnd::Broken(error),
            }
        }
    }

    /// Tells the other side that nothing more will come. If that fails the connection is broken, which
    /// the next read will find.
    pub(super) fn shutdown_write(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// All sockets, at the index of their key.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    entries: Vec<Option<Socket>>,
}

impl Sockets {
    /// Keeps a socket for a connection that the node has accepted.
    pub(super) fn insert(&mut self, key: ConnKey, stream: TcpStream) {
        self.keep(Socket {
            key,
            stream,
            is_readable: false,
            is_writable: true,
            is_read_closed: false,
            is_connecting: false,
            is_stopped: false,
            is_queued: false,
        });
    }

    /// Keeps a socket for a connection that is being made.
    pub(super) fn insert_connecting(&mut self, key: ConnKey, stream: TcpStream) {
        self.keep(Socket {
            key,
            stream,
            is_readable: false,
            is_writable: false,
            is_read_closed: false,
            is_connecting: true,
            is_stopped: false,
            is_queued: false,
        });
    }

    fn keep(&mut self, socket: Socket) {
        let at = socket.key.index();
        if self.entries.len() <= at {
            self.entries.resize_with(at + 1, || None);
        }
        self.entries[at] = Some(socket);
    }

    /// The socket of a connection; `None` if the key is stale.
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
    use super::{DialEnd, Sockets};
    use crate::base::slots::Key;
    use mio::net::TcpStream;
    use mio::{Events, Interest, Poll, Token};
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::time::Duration;

    /// Dials, as the loop does, until it is known how that went.
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
            assert!(!events.is_empty(), "no event tells how dialling went");
            match sockets.get_mut(key).unwrap().finish_dial() {
                DialEnd::UnderWay => {}
                end @ (DialEnd::Up | DialEnd::Broken(_)) => return (sockets, end),
            }
        }
    }

    #[test]
    fn dialled_socket_is_up_and_writable_where_somebody_listens() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (mut sockets, end) = dial(listener.local_addr().unwrap());
        assert!(matches!(end, DialEnd::Up), "{end:?}");
        let socket = sockets.get_mut(Key::from_bits(1 << 32).unwrap()).unwrap();
        assert!(socket.is_writable && !socket.is_connecting);
    }

    #[test]
    fn dialled_socket_is_broken_where_nobody_listens() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let (_, end) = dial(addr);
        let DialEnd::Broken(error) = end else { panic!("{end:?}") };
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}
