//! The loop: waits for events, lets the node work on them, writes what it has to say.
//!
//! A turn: events only set readiness bits; then signals, new connections, those that were dialled, reads
//! (one for each ready connection, round robin, until 1 ms has gone), then all writes, so that a thousand
//! replies to one connection are one system call, then what is due, and the writes that came of it. What was
//! not reached goes on in the next turn, which then does not wait. When nothing is ready, left over or due, nothing wakes the process.

use super::clock::Clock;
use super::fd_limit;
use super::listener::{is_about_one_connection, listen, say_and_close};
use super::log_output;
use super::signals::Signals;
use super::socket::{DialEnd, ReadEnd, Socket, Sockets, WRITES_PER_TURN, WriteEnd};
use super::{Reload, ShellError};
use crate::base::slots::Key;
use crate::base::time::{Instant, Now};
use crate::config::Config;
use crate::node::{Action, ConnKey, Node, Refusal};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

/// Work after which a turn writes what it has and looks for new events.
const TURN_MAX: Duration = Duration::from_millis(1);

/// Time for what is due, in a turn in which connections had their share, and in one in which none had.
const DUE_MAX_BUSY: Duration = Duration::from_micros(25);
const DUE_MAX_CALM: Duration = Duration::from_micros(50);

/// Connections accepted in a turn.
const ACCEPTS_PER_TURN: u32 = 64;

/// How long to wait before accepting again when the system had no room and nothing was closed.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long the end waits at most for what clients sent before it to be read; less if `drain_ms` is
/// less. Only clients that never stop sending make it wait that long.
const READ_OUT_MAX: Duration = Duration::from_secs(1);

/// At most one warning in this time that nobody can be accepted.
const ACCEPT_WARN_EVERY: Duration = Duration::from_secs(1);

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// Events taken from the system at once.
const EVENTS: usize = 1_024;

// No key gives a token this small: its generation would be 0.
const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);
const _: () = assert!(usize::BITS == 64, "a token holds a key of 64 bits");

/// A node with its sockets.
pub(super) struct Reactor {
    poll: Poll,
    listener: Option<TcpListener>,
    signals: Signals,
    clock: Clock,
    node: Node,
    config: Config,
    reload: Reload,
    sockets: Sockets,
    /// Connections to be read, each once.
    ready: VecDeque<ConnKey>,
    /// Connections with something to write.
    unflushed: VecDeque<ConnKey>,
    /// Connections being made of which an event has told something.
    dialled: VecDeque<ConnKey>,
    /// Connections that there was not even a socket for, which the node is still to be told.
    undialled: VecDeque<ConnKey>,
    scratch: Box<[u8]>,
    /// The listener may have connections for us.
    can_accept: bool,
    /// The system had no room for a connection; not before this moment again.
    accept_after: Option<Instant>,
    /// When it was last said that nobody can be accepted.
    accept_warned: Option<Instant>,
    /// The node was told to end: what lies unread is read until this moment, then it says goodbye.
    ending: Option<Instant>,
    spare: Option<File>,
    /// Log lines dropped so far that the node has been told of.
    log_lines_dropped: u64,
}

impl Reactor {
    /// Listens and dials `peers`, but does not serve yet.
    pub(super) fn start(
        config: Config,
        peers: &[Vec<SocketAddr>],
        reload: Reload,
    ) -> Result<Self, ShellError> {
        let system = |what| move |error| ShellError::System(what, error);
        let addr = SocketAddr::new(config.bind, config.listen_port);
        let mut listener = listen(addr).map_err(|error| ShellError::Bind(addr, error))?;
        let poll = Poll::new().map_err(system("wait for events"))?;
        let signals = Signals::register(poll.registry(), SIGNALS).map_err(system("listen to signals"))?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)
            .map_err(system("wait for connections"))?;
        let seed = getrandom::u64()
            .map_err(|error| ShellError::System("draw a random seed", std::io::Error::other(error)))?;
        let spare = fd_limit::spare().map_err(system("open /dev/null"))?;
        let here = listener.local_addr().unwrap_or(addr);
        log::info!(
            "olivia {} listens on {here}; try: nc {} {}",
            env!("CARGO_PKG_VERSION"),
            here.ip(),
            here.port()
        );
        let clock = Clock::new();
        let mut reactor = Self {
            node: Node::new(config.clone(), seed, clock.read()),
            poll,
            listener: Some(listener),
            signals,
            clock,
            config,
            reload,
            sockets: Sockets::default(),
            ready: VecDeque::new(),
            unflushed: VecDeque::new(),
            dialled: VecDeque::new(),
            undialled: VecDeque::new(),
            scratch: vec![0; READ_BYTES].into(),
            can_accept: true,
            accept_after: None,
            accept_warned: None,
            ending: None,
            spare: Some(spare),
            log_lines_dropped: 0,
        };
        reactor.node.join(reactor.clock.read(), here, peers);
        reactor.act();
        Ok(reactor)
    }

    /// Serves until the node has ended.
    pub(super) fn run(mut self) -> Result<(), ShellError> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.node.is_drained() {
            let wait = self.wait();
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    return Err(ShellError::System("wait for events", error));
                }
                Ok(()) | Err(_) => {}
            }
            self.turn(&events)?;
        }
        log::info!("ended: every connection has been told goodbye");
        Ok(())
    }

    /// How long the next poll may wait; `None`: for ever.
    fn wait(&self) -> Option<Duration> {
        let now = self.clock.read();
        let retry = self.accept_after.filter(|_| self.can_accept);
        if !self.ready.is_empty()
            || self.is_reading_out()
            || !self.unflushed.is_empty()
            || !self.undialled.is_empty()
            || (self.can_accept && retry.is_none())
            || self.node.has_work(now)
        {
            return Some(Duration::ZERO);
        }
        let next = self.node.next_deadline().into_iter().chain(retry).min()?;
        // Rounded up to what the system counts in: a wake-up too early would find nothing due.
        let millis = next.since(now.mono).as_nanos().div_ceil(1_000_000);
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    fn turn(&mut self, events: &Events) -> Result<(), ShellError> {
        let now = self.clock.read();
        let mut signalled = false;
        for event in events {
            match event.token() {
                LISTENER => self.can_accept = true,
                SIGNALS => signalled = true,
                Token(bits) => self.note(bits, event),
            }
        }
        let had_ready = !self.ready.is_empty();
        self.accept(now);
        self.finish_dials(now);
        self.read_ready(now);
        // Who waits for a reply does not wait for what is due as well.
        self.flush(now);
        self.do_what_is_due(now, if had_ready { DUE_MAX_BUSY } else { DUE_MAX_CALM });
        let end = if signalled { self.obey_signals(now) } else { Ok(()) };
        self.drain_if_all_is_read(now, events.is_empty());
        self.flush(now);
        let dropped = log_output::dropped();
        self.node.note_log_lines_dropped(dropped - self.log_lines_dropped);
        self.log_lines_dropped = dropped;
        self.node.iteration_done(self.clock.mono().since(now.mono));
        end
    }

    /// Sets the readiness bits of one event.
    fn note(&mut self, bits: usize, event: &Event) {
        let key = Key::from_bits(bits as u64);
        let Some((key, socket)) = key.and_then(|key| Some((key, self.sockets.get_mut(key)?))) else {
            self.node.note_stale_event();
            return;
        };
        socket.is_read_closed |= event.is_read_closed() || event.is_error();
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            socket.is_readable = true;
            queue_read(socket, key, &mut self.ready);
        }
        if socket.is_connecting {
            self.dialled.push_back(key);
        } else if event.is_writable() {
            socket.is_writable = true;
            if self.node.outbound_bytes(key) > 0 {
                self.unflushed.push_back(key);
            }
        }
    }

    /// Reads from ready connections, one read each in turn, until none is ready or the turn is over.
    fn read_ready(&mut self, now: Now) {
        let begin = self.clock.mono();
        while let Some(key) = self.ready.pop_front() {
            let Some(socket) = self.sockets.get_mut(key) else { continue };
            socket.is_queued = false;
            if socket.is_stopped {
                continue;
            }
            match socket.read(&mut self.scratch) {
                ReadEnd::Drained(count) => self.node.received(now, key, &self.scratch[..count]),
                ReadEnd::More(count) => {
                    queue_read(socket, key, &mut self.ready);
                    self.node.received(now, key, &self.scratch[..count]);
                }
                ReadEnd::Blocked => {}
                ReadEnd::Closed => self.node.read_closed(now, key),
                ReadEnd::Broken(error) => self.lose(now, key, &error),
            }
            self.act();
            if self.clock.mono().since(begin) >= TURN_MAX {
                break;
            }
        }
    }

    fn do_what_is_due(&mut self, now: Now, max: Duration) {
        let begin = self.clock.mono();
        while self.node.has_work(now) {
            self.node.tick(now);
            self.act();
            if self.clock.mono().since(begin) >= max {
                break;
            }
        }
    }

    /// Does what the node has asked for since the last time.
    fn act(&mut self) {
        while let Some(action) = self.node.next_action() {
            match action {
                Action::Connect(key, addr) => self.dial(key, addr),
                Action::Flush(key) => self.unflushed.push_back(key),
                Action::Close(key) => {
                    if self.sockets.remove(key) {
                        self.accept_after = None;
                    } else {
                        self.undialled.retain(|undialled| *undialled != key);
                    }
                }
                Action::ShutdownWrite(key) => {
                    if let Some(socket) = self.sockets.get_mut(key) {
                        socket.shutdown_write();
                    }
                }
                Action::StopReading(key) => {
                    if let Some(socket) = self.sockets.get_mut(key) {
                        socket.is_stopped = true;
                    }
                }
                Action::ResumeReading(key) => {
                    if let Some(socket) = self.sockets.get_mut(key) {
                        socket.is_stopped = false;
                        queue_read(socket, key, &mut self.ready);
                    }
                }
            }
        }
    }

    /// Begins a connection. The node learns in a later turn how it went, also that there was no socket for
    /// it: said at once, it could ask for the next one without end.
    fn dial(&mut self, key: ConnKey, addr: SocketAddr) {
        match TcpStream::connect(addr).and_then(|stream| self.register(key, stream)) {
            Ok(stream) => self.sockets.insert_connecting(key, stream),
            Err(error) => {
                log::debug!("cannot dial {addr}: {error}");
                self.undialled.push_back(key);
            }
        }
    }

    /// Tells the node of connections that were made, and of those that were not.
    fn finish_dials(&mut self, now: Now) {
        for _ in 0..self.undialled.len() {
            let Some(key) = self.undialled.pop_front() else { break };
            self.node.lost(now, key);
            self.act();
        }
        while let Some(key) = self.dialled.pop_front() {
            let Some(socket) = self.sockets.get_mut(key).filter(|socket| socket.is_connecting) else {
                continue;
            };
            match socket.finish_dial() {
                DialEnd::UnderWay => continue,
                DialEnd::Up => {
                    queue_read(socket, key, &mut self.ready);
                    self.node.connected(now, key);
                }
                DialEnd::Broken(error) => self.lose(now, key, &error),
            }
            self.act();
        }
    }

    /// Waits for both kinds of events of a connection, for good.
    fn register(&self, key: ConnKey, mut stream: TcpStream) -> std::io::Result<TcpStream> {
        // Without it replies would wait for the acknowledgement of earlier ones. Where it fails the
        // connection is gone already, or works all the same.
        let _ = stream.set_nodelay(true);
        let token = Token(usize::try_from(key.to_bits()).unwrap_or(usize::MAX));
        let both = Interest::READABLE.add(Interest::WRITABLE);
        self.poll.registry().register(&mut stream, token, both)?;
        Ok(stream)
    }

    /// Writes what waits, for each connection until it is all taken or the socket is full.
    fn flush(&mut self, now: Now) {
        for _ in 0..self.unflushed.len() {
            let Some(key) = self.unflushed.pop_front() else { break };
            self.flush_one(now, key);
            self.act();
        }
    }

    fn flush_one(&mut self, now: Now, key: ConnKey) {
        for _ in 0..WRITES_PER_TURN {
            let Some(socket) = self.sockets.get_mut(key).filter(|socket| socket.is_writable) else { return };
            let bytes = self.node.outbound(key).next().unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            match socket.write(bytes) {
                WriteEnd::Took(count) => self.node.wrote(now, key, count),
                WriteEnd::Blocked => return,
                WriteEnd::Broken(error) => return self.lose(now, key, &error),
            }
        }
        if self.node.outbound_bytes(key) > 0 {
            self.unflushed.push_back(key);
        }
    }

    fn lose(&mut self, now: Now, key: ConnKey, error: &std::io::Error) {
        log::debug!("a connection broke: {error}");
        self.sockets.remove(key);
        self.accept_after = None;
        self.node.lost(now, key);
    }

    /// Accepts connections until there is none, or the system has no room, or the turn's share is taken.
    fn accept(&mut self, now: Now) {
        if !self.can_accept || self.accept_after.is_some_and(|after| now.mono < after) {
            return;
        }
        self.accept_after = None;
        for _ in 0..ACCEPTS_PER_TURN {
            let accepted = self.listener.as_ref().map(TcpListener::accept);
            match accepted.unwrap_or_else(|| Err(ErrorKind::WouldBlock.into())) {
                Ok((stream, addr)) => self.admit(now, stream, addr),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.can_accept = false;
                    return;
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    // No further edge will tell of the connections that wait now: the bit stays set.
                    self.accept_after = Some(now.mono.after(ACCEPT_RETRY));
                    if self.accept_warned.is_none_or(|then| now.mono.since(then) >= ACCEPT_WARN_EVERY) {
                        self.accept_warned = Some(now.mono);
                        log::warn!("nobody can connect: {error}; trying again every 100 ms");
                    }
                    if fd_limit::are_used_up(&error) {
                        self.turn_one_away();
                    }
                    return;
                }
            }
        }
    }

    /// Uses the spare file to tell one waiting client that there is no room.
    fn turn_one_away(&mut self) {
        self.spare = None;
        if let Some((stream, _)) = self.listener.as_ref().and_then(|listener| listener.accept().ok()) {
            say_and_close(stream, "this node has no more room for connections; try again later");
        }
        self.spare = fd_limit::spare().ok();
    }

    fn admit(&mut self, now: Now, stream: TcpStream, addr: SocketAddr) {
        let key = match self.node.accept(now, addr) {
            Ok(key) => key,
            Err(refusal @ (Refusal::TooManyClients { .. } | Refusal::Draining)) => {
                return say_and_close(stream, &refusal.to_string());
            }
        };
        match self.register(key, stream) {
            Ok(stream) => self.sockets.insert(key, stream),
            Err(error) => self.lose(now, key, &error),
        }
    }

    fn obey_signals(&mut self, now: Now) -> Result<(), ShellError> {
        let asked = self.signals.take();
        if asked.reload {
            self.reload(now);
            self.act();
        }
        if asked.end && self.ending.is_some() {
            return Err(ShellError::Interrupted);
        }
        if asked.end {
            let drain = Duration::from_millis(u64::from(self.config.limits.drain_ms));
            self.ending = Some(now.mono.after(drain.min(READ_OUT_MAX)));
        }
        Ok(())
    }

    /// Whether the end was asked for and what came before it is still being read.
    fn is_reading_out(&self) -> bool {
        self.ending.is_some() && self.listener.is_some()
    }

    /// Begins the end proper once nothing that was sent before the signal is left unread, or the time
    /// for that has gone: clients that never stop sending would make it endless.
    fn drain_if_all_is_read(&mut self, now: Now, is_calm: bool) {
        let all_is_read = is_calm && self.ready.is_empty() && !self.can_accept;
        if !self.is_reading_out() || !(all_is_read || self.ending.is_some_and(|by| now.mono >= by)) {
            return;
        }
        self.listener = None;
        log::info!("ending: no more connections, {} to be told goodbye", self.node.conns());
        self.node.drain(now);
        self.act();
    }

    fn reload(&mut self, now: Now) {
        match (self.reload)() {
            Ok(new) => {
                let (mut config, notes) = self.config.reload_from(new);
                config.limits.clients_max = fd_limit::make_room(&config);
                for note in notes {
                    log::warn!("{note}");
                }
                log::set_max_level(config.log_level);
                self.config = config.clone();
                self.node.reconfigure(now, config);
                log::info!("the configuration was read again: log level, password and limits are in force");
            }
            Err(error) => log::error!("the configuration stays as it was: {error}"),
        }
    }
}

/// Puts a connection into the queue of those to be read, if there is something and it is not in it.
fn queue_read(socket: &mut Socket, key: ConnKey, ready: &mut VecDeque<ConnKey>) {
    if socket.is_readable && !socket.is_stopped && !socket.is_queued && !socket.is_connecting {
        socket.is_queued = true;
        ready.push_back(key);
    }
}
