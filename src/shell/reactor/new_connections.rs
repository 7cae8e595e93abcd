//! New connections: accepted ones, those beyond `clients_max`, dials, and the addresses of names.

use super::{CONNECTION, LOBBY, Reactor, queue_read, token_of};
use crate::base::time::{Instant, Now};
use crate::node::{ConnKey, Refusal};
use crate::shell::listener::{refuse, set_keepalive};
use crate::shell::lobby::Waiting;
use crate::shell::socket::DialEnd;
use mio::net::TcpStream;
use socket2::SockRef;
use std::net::SocketAddr;

/// Connections accepted per iteration.
const ACCEPTS_PER_ITERATION: u32 = 64;

impl Reactor {
    /// Accepts connections, sorts those beyond `clients_max`, passes on addresses of names, and finishes dials; notes when
    /// there will be more of that to do.
    #[inline(never)]
    pub(super) fn make_connections(&mut self, now: Now) {
        self.accept(now);
        self.sort_lobby(now);
        self.resolve(now);
        self.finish_dials(now);
        let is_left = self.listener.is_ready() || !self.undialled.is_empty();
        let deadlines = [self.listener.retry_at(), self.lobby.next_deadline(), self.resolver.next_deadline()];
        self.new_due = if is_left { Some(Instant::ZERO) } else { deadlines.into_iter().flatten().min() };
    }

    fn accept(&mut self, now: Now) {
        for _ in 0..ACCEPTS_PER_ITERATION {
            let Some((stream, addr)) = self.listener.accept(now) else { return };
            match self.node.accept(now, addr) {
                Ok(key) => self.accepted(now, key, stream),
                Err(refusal @ Refusal::TooManyClients { .. }) => {
                    let oldest = self.lobby.admit(now, self.poll.registry(), LOBBY, stream, addr, refusal);
                    oldest
                        .into_iter()
                        .for_each(|oldest| self.refuse(now, oldest.stream, oldest.addr, &oldest.refusal));
                }
                Err(refusal @ (Refusal::Draining | Refusal::NoMemory)) => {
                    self.refuse(now, stream, addr, &refusal)
                }
            }
        }
    }

    fn accepted(&mut self, now: Now, key: ConnKey, stream: TcpStream) {
        match self.register(key, stream) {
            Ok(stream) => self.sockets.insert(key, stream),
            Err(error) => self.lost(now, key, &error),
        }
    }

    fn refuse(&mut self, now: Now, stream: TcpStream, addr: SocketAddr, refusal: &Refusal) {
        refuse(stream, &refusal.to_string());
        self.descriptor_closed();
        self.node.refused(now, addr, refusal);
    }

    /// Accepts the nodes among the connections beyond `clients_max`, and refuses the clients.
    fn sort_lobby(&mut self, now: Now) {
        for (Waiting { stream, addr, refusal, .. }, is_node) in self.lobby.sort(now, self.poll.registry()) {
            let accepted = if is_node { self.node.accept_node(now, addr) } else { Err(refusal) };
            match accepted {
                Ok(key) => self.accepted(now, key, stream),
                Err(refusal) => self.refuse(now, stream, addr, &refusal),
            }
            self.act();
        }
    }

    /// Notes that a descriptor was closed: accepting may succeed again.
    pub(super) fn descriptor_closed(&mut self) {
        if self.listener.descriptor_closed() {
            self.new_due = Some(Instant::ZERO);
        }
    }

    /// Starts a dial. The node gets the result in a later iteration, also if there was no socket for it: with the
    /// result at once, it could dial further addresses without end.
    pub(super) fn dial(&mut self, key: ConnKey, addr: SocketAddr) {
        self.new_due = Some(Instant::ZERO);
        self.resolver.dialled(addr);
        match TcpStream::connect(addr).and_then(|stream| self.register(key, stream)) {
            Ok(stream) => {
                set_keepalive(&SockRef::from(&stream));
                self.sockets.insert_connecting(key, stream);
            }
            Err(error) => self.undialled.push_back((key, error)),
        }
    }

    /// Passes changed addresses of names to the node, and starts the queries that are due.
    fn resolve(&mut self, now: Now) {
        for (entry, addrs) in self.resolver.step(now) {
            self.node.resolved(now, entry, &addrs);
            self.act();
        }
    }

    /// Reports dials that succeeded or failed to the node.
    fn finish_dials(&mut self, now: Now) {
        for _ in 0..self.undialled.len() {
            let Some((key, error)) = self.undialled.pop_front() else { break };
            self.node.lost(now, key, &error);
            self.act();
        }
        while let Some(key) = self.dialled.pop_front() {
            let Some(socket) = self.sockets.get_mut(key).filter(|socket| socket.is_connecting()) else {
                continue;
            };
            match socket.finish_dial() {
                DialEnd::UnderWay => continue,
                DialEnd::Up => {
                    queue_read(socket, key, &mut self.ready, &self.node);
                    self.node.connected(now, key);
                }
                DialEnd::Broken(error) => self.lost(now, key, &error),
            }
            self.act();
        }
    }

    /// Registers a connection for all of its events, until it is closed.
    fn register(&self, key: ConnKey, mut stream: TcpStream) -> std::io::Result<TcpStream> {
        // Without it replies would wait for the acknowledgement of earlier ones. If it fails, the connection is broken
        // already, or works without it.
        let _ = stream.set_nodelay(true);
        self.poll.registry().register(&mut stream, token_of(key), CONNECTION)?;
        Ok(stream)
    }
}
