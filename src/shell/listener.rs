//! The listening socket: how it is opened, and what is said to those who are not taken.

use crate::wire::reply::put_error;
use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};

/// Connections that may wait to be accepted; the system may allow fewer. The usual 128 overflow when a
/// thousand clients come back at once, and each one that is dropped waits a second for its next try.
const BACKLOG: i32 = 4_096;

/// Listens on `addr`, with as long a queue as the system allows.
pub(super) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A node that starts again must not wait for the connections of its last life to be forgotten.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Whether accepting failed because of the connection, which was gone before it was accepted, and not
/// because of the system.
pub(super) fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

/// One sentence to a client that is not taken. Best effort: it is not waited for.
pub(super) fn say_and_close(mut stream: TcpStream, sentence: &str) {
    let mut line = Vec::new();
    put_error(&mut line, b"", sentence);
    let _ = stream.write(&line);
    let _ = stream.shutdown(Shutdown::Write);
    // What it has said already: closing with that unread would send a reset behind the sentence.
    let _ = stream.read(&mut [0; 4_096]);
}
