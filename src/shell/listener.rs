//! The listening socket: opening it, accepting from it, and refusing clients.

use super::fd_limit;
use crate::base::time::{Instant, Now};
use crate::wire::encoder::{self, put_error};
use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

/// Connections that may wait to be accepted; the system may allow fewer. The usual 128 overflow when a thousand
/// clients reconnect at once, and each dropped one waits a second for its next try.
const BACKLOG: i32 = 4_096;

/// Time until accepting is tried again when the system had no descriptor and none was closed.
const RETRY: Duration = Duration::from_millis(100);

/// Minimum time between two warnings that accepting fails.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// Idle time after which the system probes a connection, the time between probes, and the probes that may fail: a
/// client whose machine vanished is closed after 90 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// The listening socket and its readiness.
pub(super) struct Listener {
    /// `None` once the node shuts down.
    socket: Option<TcpListener>,
    /// Connections may wait: an edge was seen and no accept has failed since.
    is_ready: bool,
    /// When the system had no descriptor: the time from which on accepting is tried again.
    retry_at: Option<Instant>,
    warned_at: Option<Instant>,
    spare: Option<File>,
}

impl Listener {
    /// Listens on `addr`, with as long a backlog as the system allows.
    pub(super) fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        // A restarted node must not wait until the system has dropped the connections of its predecessor.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Accepted sockets inherit keepalive.
        set_keepalive(&SockRef::from(&socket));
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self {
            socket: Some(TcpListener::from_std(socket.into())),
            is_ready: true,
            retry_at: None,
            warned_at: None,
            spare: fd_limit::spare().ok(),
        })
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.socket.as_mut().map_or(Ok(()), |socket| socket.register(registry, token, Interest::READABLE))
    }

    /// The address listened on, if it still is.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.as_ref()?.local_addr().ok()
    }

    /// Notes a readiness event.
    pub(super) fn ready(&mut self) {
        self.is_ready = true;
    }

    /// Whether an accept may return a connection now.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready && self.retry_at.is_none()
    }

    /// Whether connections may wait, also if accepting them has to be tried again later.
    pub(super) fn may_have_backlog(&self) -> bool {
        self.is_ready
    }

    /// When accepting is tried again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.is_ready)
    }

    /// Notes that a descriptor was closed; returns whether accepting was to be tried again later, and now may succeed.
    pub(super) fn descriptor_closed(&mut self) -> bool {
        self.retry_at.take().is_some()
    }

    pub(super) fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    pub(super) fn close(&mut self) {
        self.socket = None;
        self.is_ready = false;
    }

    /// Accepts one connection; `None`: no more for now.
    pub(super) fn accept(&mut self, now: Now) -> Option<(TcpStream, SocketAddr)> {
        if !self.is_ready || self.retry_at.is_some_and(|at| now.mono < at) {
            return None;
        }
        self.retry_at = None;
        loop {
            match self.socket.as_ref()?.accept() {
                Ok(accepted) => return Some(accepted),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_ready = false;
                    return None;
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    // No further edge reports the connections that wait now: the bit stays set.
                    self.retry_at = Some(now.mono.after(RETRY));
                    self.warn(now, &error);
                    if fd_limit::is_reached(&error) {
                        self.refuse_one();
                    }
                    return None;
                }
            }
        }
    }

    fn warn(&mut self, now: Now, error: &io::Error) {
        if self.warned_at.is_none_or(|then| now.mono.since(then) >= WARN_EVERY) {
            self.warned_at = Some(now.mono);
            log::warn!("cannot accept connections: {error}; trying again every 100 ms");
        }
    }

    /// Uses the spare descriptor to send one waiting client an error: there is no room.
    fn refuse_one(&mut self) {
        self.spare = None;
        if let Some((stream, _)) = self.socket.as_ref().and_then(|socket| socket.accept().ok()) {
            refuse(stream, "this node has no room for more connections; try again later");
        }
        self.spare = fd_limit::spare().ok();
    }
}

/// Makes the system detect connections whose other end vanished without closing.
pub(super) fn set_keepalive(socket: &SockRef<'_>) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    // If it fails, the connection is broken already, or works without it.
    let _ = socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_PROBES));
}

/// Whether accepting failed because of one connection, which was gone before it was accepted, and not because of the
/// system.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

/// Sends one error to a client that is refused, and closes. Best effort, without waiting.
pub(super) fn refuse(mut stream: TcpStream, sentence: &str) {
    let mut line = Vec::new();
    put_error(&mut line, encoder::Protocol::Lines, b"", sentence);
    let _ = stream.write(&line);
    let _ = stream.shutdown(Shutdown::Write);
    // Closing with unread bytes would send a reset, which can overtake the error.
    let _ = stream.read(&mut [0; 4_096]);
}
