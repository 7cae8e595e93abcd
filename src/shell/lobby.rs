//! Connections beyond `clients_max`. Their first bytes decide: a node that begins a handshake is accepted, since links
//! have a quota of their own; a client is refused.

use crate::base::time::{Instant, Now};
use crate::limits::SPARE_HANDSHAKES;
use crate::node::Refusal;
use crate::wire::handshake::{LINE_BYTES_MAX, begins_handshake};
use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

/// The time limit of the first line, which a node sends as soon as it is connected.
const FIRST_LINE_TIME: Duration = Duration::from_secs(1);

/// A connection that the node has refused as one client too many.
pub(super) struct Waiting {
    pub(super) stream: TcpStream,
    pub(super) addr: SocketAddr,
    pub(super) refusal: Refusal,
    until: Instant,
}

/// The connections that wait, oldest first, at most [`SPARE_HANDSHAKES`].
#[derive(Default)]
pub(super) struct Lobby {
    waiting: VecDeque<Waiting>,
}

/// The kind of a connection, by its first bytes.
enum Verdict {
    Node,
    Client,
    Unknown,
}

impl Lobby {
    /// When the time of the oldest connection is over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.until)
    }

    /// Adds a connection. Returns the connection that leaves: the oldest, if there are too many; the new one, if its
    /// events cannot be registered.
    pub(super) fn admit(
        &mut self,
        now: Now,
        registry: &Registry,
        token: Token,
        mut stream: TcpStream,
        addr: SocketAddr,
        refusal: Refusal,
    ) -> Option<Waiting> {
        let is_registered = stream.register(registry, token, Interest::READABLE).is_ok();
        let waiting = Waiting { stream, addr, refusal, until: now.mono.after(FIRST_LINE_TIME) };
        if !is_registered {
            return Some(waiting);
        }
        self.waiting.push_back(waiting);
        if self.waiting.len() > SPARE_HANDSHAKES { self.waiting.pop_front() } else { None }
    }

    /// Removes the connections whose first bytes have arrived, or whose time is over. Returns each with whether it is a
    /// node's, whose events are no longer registered.
    pub(super) fn sort(&mut self, now: Now, registry: &Registry) -> Vec<(Waiting, bool)> {
        let mut sorted = Vec::new();
        for mut waiting in std::mem::take(&mut self.waiting) {
            match verdict(&waiting.stream) {
                Verdict::Node => {
                    // The next registration reports again that there is input.
                    let is_node = waiting.stream.deregister(registry).is_ok();
                    sorted.push((waiting, is_node));
                }
                Verdict::Unknown if now.mono < waiting.until => self.waiting.push_back(waiting),
                Verdict::Client | Verdict::Unknown => sorted.push((waiting, false)),
            }
        }
        sorted
    }
}

fn verdict(stream: &TcpStream) -> Verdict {
    // The longest line that can be one of a handshake, and its end.
    let mut first = [0; LINE_BYTES_MAX + 2];
    match stream.peek(&mut first) {
        Ok(count) if count > 0 => match begins_handshake(&first[..count]) {
            Some(true) => Verdict::Node,
            Some(false) => Verdict::Client,
            None => Verdict::Unknown,
        },
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Verdict::Unknown
        }
        Ok(_) | Err(_) => Verdict::Client,
    }
}
