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
        let at = key.index();
        if self.entries.len() <= at {
            self.entries.resize_with(at + 1, || None);
        }
        self.entries[at] = Some(Socket {
            key,
            stream,
            is_readable: false,
            is_writable: true,
            is_read_closed: false,
            is_stopped: false,
            is_queued: false,
        });
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
