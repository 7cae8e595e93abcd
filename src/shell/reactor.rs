//! The event loop: waits for events, passes them to the node, writes its output.
//!
//! One iteration: events only set readiness bits; then come new connections, finished dials, reads of links, writes
//! left over from the last iteration, new events if these took long, reads of clients, their writes (a thousand replies
//! to one connection are one write), due work, signals, and the writes that these cause. Clients that send little are
//! read and written in batches. Work that is not reached is done in the next iteration, which then does not wait.
//! When nothing is ready, left over or due, nothing wakes the process.

mod input;
mod new_connections;
mod output;

use super::clock::Clock;
use super::fd_limit;
use super::listener::Listener;
use super::lobby::Lobby;
use super::log_output;
use super::resolver::Resolver;
use super::signals::Signals;
use super::socket::{Socket, Sockets, WRITE_BYTES_MAX};
use super::{Reload, ShellError};
use crate::base::slots::Key;
use crate::base::time::{Instant, Now};
use crate::batch::{Batch, SOCKETS_MAX};
use crate::config::Config;
use crate::node::{Action, ConnKey, Node};
use crate::node::{BACKLOG_UNTIL, Class, EVENTS_AGAIN_AFTER, OUTPUT_UNTIL, Shares, Turns};
use input::{Arrival, SCRATCH_BYTES};
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The longest time that a shutdown continues to read requests that were sent before it; less if `drain_ms` is less.
/// Only clients that never stop sending make it last that long.
const LAST_READS_MAX: Duration = Duration::from_secs(1);

/// Events taken from the system at once, and clients to be read from which on no further ones are taken: the system looks
/// at each socket when it reports its event, and what it touched is still in the caches when the socket is read. Deep
/// clients do not count: those that are not must not wait for their turns.
const EVENTS: usize = 128;

/// Batches of events per iteration.
const BATCHES_MAX: usize = 8;

// No key gives a token this small: its generation would be 0.
const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);
const RESOLVER: Token = Token(2);
const LOBBY: Token = Token(3);
const _: () = assert!(usize::BITS == 64, "a token holds a key of 64 bits");

/// Both kinds of events of a connection, and urgent data, at which a read ends early.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CONNECTION: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CONNECTION: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// A node with its sockets.
pub(super) struct Reactor {
    poll: Poll,
    /// Reports the events of links once more, so that they are taken before those of many clients.
    links: Poll,
    listener: Listener,
    /// Connections beyond `clients_max`.
    lobby: Lobby,
    resolver: Resolver,
    signals: Signals,
    clock: Clock,
    node: Node,
    config: Config,
    reload: Reload,
    sockets: Sockets,
    /// Connections to read from, each once.
    ready: Turns,
    /// Connections with something to write.
    unflushed: Turns,
    /// When [`Reactor::make_connections`] has work; `None`: not before the next event or dial.
    new_due: Option<Instant>,
    /// Dialled connections with an event.
    dialled: VecDeque<ConnKey>,
    /// Dialled connections that the system gave no socket for, with the cause; not reported to the node yet.
    undialled: VecDeque<(ConnKey, std::io::Error)>,
    batch: Batch,
    /// The bytes of the reads of a batch, or of one large read.
    scratch: Box<[u8]>,
    /// The reads of a batch; empty between two calls.
    arrivals: Vec<Arrival>,
    /// The connections written to in a batch; empty between two calls.
    writes: Vec<ConnKey>,
    shares: Shares,
    /// Only events of links are taken in this iteration.
    has_skipped_events: bool,
    /// Events were noted in the middle of the iteration: what they are about may not be done.
    has_noted: bool,
    /// SIGTERM or SIGINT came: unread input is read until this time, then the node drains.
    shutdown_by: Option<Instant>,
    /// The last iteration left no due work; what is due later is among the deadlines of the node.
    due_work_is_done: bool,
    /// When all sockets that have bytes are to be reported again.
    report_all_at: Option<Instant>,
    /// Dropped log lines that the node has counted.
    log_lines_dropped: u64,
}

impl Reactor {
    /// Listens, but does not serve yet.
    pub(super) fn start(config: Config, reload: Reload) -> Result<Self, ShellError> {
        let system = |what| move |error| ShellError::System(what, error);
        let addr = SocketAddr::new(config.bind, config.listen_port);
        let mut listener = Listener::bind(addr).map_err(|error| ShellError::Bind(addr, error))?;
        let poll = Poll::new().map_err(system("wait for events"))?;
        let links = Poll::new().map_err(system("wait for events of links"))?;
        let signals = Signals::register(poll.registry(), SIGNALS).map_err(system("listen to signals"))?;
        listener.register(poll.registry(), LISTENER).map_err(system("wait for connections"))?;
        let resolver = Resolver::new(&config.remote_peers, poll.registry(), RESOLVER)
            .map_err(system("wait for the addresses of peers"))?;
        let seed = getrandom::u64()
            .map_err(|error| ShellError::System("draw a random seed", std::io::Error::other(error)))?;
        let here = listener.local_addr().unwrap_or(addr);
        log::info!("{}", greeting(here, config.password.is_some()));
        let clock = Clock::new();
        let mut for_node = config.clone();
        for_node.limits.clients_max = fd_limit::raise(&config);
        let mut reactor = Self {
            node: Node::new(for_node, seed, clock.read()),
            poll,
            links,
            listener,
            lobby: Lobby::default(),
            resolver,
            signals,
            clock,
            config,
            reload,
            sockets: Sockets::default(),
            ready: Turns::default(),
            unflushed: Turns::default(),
            new_due: Some(Instant::ZERO),
            dialled: VecDeque::new(),
            undialled: VecDeque::new(),
            batch: Batch::new(),
            scratch: vec![0; SCRATCH_BYTES].into(),
            arrivals: Vec::with_capacity(SOCKETS_MAX),
            writes: Vec::with_capacity(SOCKETS_MAX),
            shares: Shares::default(),
            has_skipped_events: false,
            has_noted: false,
            shutdown_by: None,
            due_work_is_done: false,
            report_all_at: None,
            log_lines_dropped: 0,
        };
        reactor.node.join(reactor.clock.read(), here, &reactor.resolver.addresses());
        reactor.act();
        Ok(reactor)
    }

    /// Serves until the node has drained.
    pub(super) fn run(mut self) -> Result<(), ShellError> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.node.is_drained() {
            let wait = self.wait();
            events.clear();
            if self.takes_events() {
                take_events(&mut self.poll, &mut events, wait)?;
            }
            self.iterate(&mut events)?;
        }
        log::info!("stopped");
        Ok(())
    }

    /// Time limit of the next poll; `None`: no limit.
    fn wait(&self) -> Option<Duration> {
        let now = self.clock.last();
        if self.has_noted
            || [Class::Links, Class::Clients].iter().any(|class| self.has_input(*class))
            || self.is_before_drain()
            || !self.unflushed.is_empty()
            || !self.due_work_is_done && self.node.has_work(now)
        {
            return Some(Duration::ZERO);
        }
        let deadlines = [self.new_due, self.report_all_at, self.node.next_deadline()];
        let next = deadlines.into_iter().flatten().min()?;
        // Rounded up to the system's unit: a wake-up too early would find nothing due.
        let millis = next.since(now.mono).as_nanos().div_ceil(1_000_000);
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    fn iterate(&mut self, events: &mut Events) -> Result<(), ShellError> {
        let now = self.clock.read();
        self.node.iteration_begins(now);
        let mut signalled = self.note_all(events);
        let is_calm = events.is_empty() && !self.has_skipped_events;
        for _ in 1..BATCHES_MAX {
            if !is_full(events) || self.has_many_clients() {
                break;
            }
            take_events(&mut self.poll, events, Some(Duration::ZERO))?;
            signalled |= self.note_all(events);
        }
        // Then the system may have further events, of links too.
        let are_many = is_full(events) || self.has_skipped_events;
        let mut links_are_noted = true;
        if are_many {
            take_events(&mut self.links, events, Some(Duration::ZERO))?;
            self.note_all(events);
            links_are_noted = !is_full(events);
        }
        if self.report_all_at.take_if(|at| now.mono >= *at).is_some() {
            self.sockets.report_all();
        }
        let is_busy = !self.ready.is_empty();
        if self.new_due.is_some_and(|due| due <= now.mono) {
            self.make_connections(now);
        }
        let links_are_read = !self.has_input(Class::Links) || {
            let links_until = now.mono.after(self.shares.links_until());
            self.serve(Class::Links, self.clock.read_again(), links_until)
        };
        self.shares.ended(Class::Links, links_are_read);
        if links_are_read && links_are_noted {
            self.node.links_current(now);
        }
        let has_backlog = !self.unflushed.is_empty();
        if has_backlog {
            self.flush(now.mono.after(BACKLOG_UNTIL));
        }
        let is_behind = !links_are_read || !self.unflushed.is_empty();
        self.has_noted = is_behind && self.clock.mono() >= now.mono.after(EVENTS_AGAIN_AFTER);
        if self.has_noted {
            signalled |= self.note_new(events)?;
        }
        if self.has_input(Class::Clients) {
            let begin = if has_backlog { self.clock.read_again() } else { self.clock.last() };
            let clients_until = now.mono.after(self.shares.clients_until(begin.mono.since(now.mono)));
            self.serve(Class::Clients, begin, clients_until);
        }
        // Replies do not wait for due work.
        let output_until = now.mono.after(OUTPUT_UNTIL);
        self.flush(output_until);
        let is_done = self.do_due_work(now, is_busy);
        self.due_work_is_done = is_done && self.unflushed.is_empty() && !signalled && !self.is_before_drain();
        let end = if signalled { self.handle_signals(now) } else { Ok(()) };
        if self.is_before_drain() {
            self.drain_when_all_is_read(now, is_calm && events.is_empty());
        }
        self.flush(output_until);
        let dropped = log_output::dropped();
        self.node.note_log_lines_dropped(dropped - self.log_lines_dropped);
        self.log_lines_dropped = dropped;
        self.node.iteration_done(now, self.clock.mono().since(now.mono));
        end
    }

    /// Notes the events that have come since those of this iteration, so that a request that came meanwhile does not wait
    /// for the next one; returns whether a signal came.
    #[cold]
    fn note_new(&mut self, events: &mut Events) -> Result<bool, ShellError> {
        take_events(&mut self.poll, events, Some(Duration::ZERO))?;
        Ok(self.note_all(events))
    }

    /// Notes events; returns whether a signal came.
    fn note_all(&mut self, events: &Events) -> bool {
        let mut signalled = false;
        for event in events {
            match event.token() {
                LISTENER => {
                    self.listener.ready();
                    self.new_due = Some(Instant::ZERO);
                }
                SIGNALS => signalled = true,
                RESOLVER | LOBBY => self.new_due = Some(Instant::ZERO),
                Token(bits) => self.note(bits, event),
            }
        }
        signalled
    }

    /// Sets the readiness bits of one event.
    fn note(&mut self, bits: usize, event: &Event) {
        let key = Key::from_bits(bits as u64);
        let Some((key, socket)) = key.and_then(|key| Some((key, self.sockets.get_mut(key)?))) else {
            self.node.note_stale_event();
            return;
        };
        let has_become_writable = socket.note(event);
        queue_read(socket, key, &mut self.ready, &self.node);
        if socket.is_connecting() {
            self.dialled.push_back(key);
            self.new_due = Some(Instant::ZERO);
        } else if has_become_writable && self.node.outbound_bytes(key) > 0 {
            self.unflushed.push(self.node.class(key), key, true);
        }
    }

    /// Whether a connection of a class is ready to be read, or has input left from earlier turns.
    fn has_input(&self, class: Class) -> bool {
        self.ready.has(class) || self.node.has_input(class)
    }

    /// Whether events of all sockets are to be taken: not while many clients are to be read, but at least before every
    /// second iteration, since clients that send much stay among those.
    fn takes_events(&mut self) -> bool {
        self.has_skipped_events = !self.has_skipped_events && self.has_many_clients();
        !self.has_skipped_events
    }

    fn has_many_clients(&self) -> bool {
        self.ready.shallow(Class::Clients) >= EVENTS
    }

    /// Does due work for its share, or until there is none, in an iteration that began `now`. Returns whether there is
    /// none.
    fn do_due_work(&mut self, now: Now, is_busy: bool) -> bool {
        if !self.node.has_due_work(self.clock.last()) {
            self.shares.ended(Class::Due, true);
            return true;
        }
        let from = self.clock.read_again();
        let connections = if is_busy { from.mono.since(now.mono) } else { Duration::ZERO };
        let until = from.mono.after(self.shares.due(connections));
        let is_done = self.serve(Class::Due, from, until);
        self.shares.ended(Class::Due, is_done);
        is_done
    }

    /// Carries out the node's actions.
    fn act(&mut self) {
        while let Some(action) = self.node.next_action() {
            match action {
                Action::Connect(key, addr) => self.dial(key, addr),
                Action::Flush(key) => {
                    let is_deep = self.node.outbound_bytes(key) > WRITE_BYTES_MAX;
                    let class = self.node.class(key);
                    self.unflushed.push(class, key, is_deep);
                    if class == Class::Links {
                        self.watch(key);
                    }
                }
                Action::Close(key) => {
                    if self.sockets.remove(key) {
                        self.descriptor_closed();
                    } else {
                        self.undialled.retain(|(undialled, _)| *undialled != key);
                    }
                }
                Action::ShutdownWrite(key) => {
                    if let Some(socket) = self.sockets.get_mut(key) {
                        socket.shutdown_write();
                    }
                }
                Action::StopReading(key) => {
                    if let Some(socket) = self.sockets.get_mut(key) {
                        socket.stop();
                    }
                }
                Action::ResumeReading(key) => {
                    if let Some(socket) = self.sockets.get_mut(key) {
                        socket.resume();
                        queue_read(socket, key, &mut self.ready, &self.node);
                    }
                }
            }
        }
    }

    /// Registers the socket of a link, or of one that may become one, for [`Reactor::links`] too. If that fails, its events
    /// are taken with all others.
    fn watch(&mut self, key: ConnKey) {
        #[cfg(unix)]
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.watch(self.links.registry(), token_of(key), CONNECTION);
        }
        #[cfg(not(unix))]
        let _ = key;
    }

    fn lost(&mut self, now: Now, key: ConnKey, error: &std::io::Error) {
        self.sockets.remove(key);
        self.descriptor_closed();
        self.node.lost(now, key, error);
    }

    fn handle_signals(&mut self, now: Now) -> Result<(), ShellError> {
        let pending = self.signals.take();
        if pending.reload {
            self.reload(now);
            self.act();
        }
        if pending.shutdown && self.shutdown_by.is_some() {
            return Err(ShellError::Interrupted);
        }
        if pending.shutdown {
            let drain = Duration::from_millis(u64::from(self.config.limits.drain_ms));
            self.shutdown_by = Some(now.mono.after(drain.min(LAST_READS_MAX)));
        }
        Ok(())
    }

    /// Whether a shutdown was requested and input that came before it is still being read.
    fn is_before_drain(&self) -> bool {
        self.shutdown_by.is_some() && self.listener.is_open()
    }

    /// Drains the node once all input that was sent before the signal is read, or the time for that is over: clients
    /// that never stop sending would make it endless.
    fn drain_when_all_is_read(&mut self, now: Now, is_calm: bool) {
        let all_is_read = is_calm && self.ready.is_empty() && !self.listener.may_have_backlog();
        if !(all_is_read || self.shutdown_by.is_some_and(|by| now.mono >= by)) {
            return;
        }
        self.listener.close();
        log::info!("shutting down; open connections: {}", self.node.conns());
        self.node.drain(now);
        self.act();
    }

    fn reload(&mut self, now: Now) {
        match (self.reload)() {
            Ok(new) => {
                let (mut config, notes) = self.config.reload_from(new);
                notes.iter().for_each(|note| log::warn!("{note}"));
                // Under the old level or the new one, whichever shows more.
                log::set_max_level(config.log_level.max(log::max_level()));
                let changes = self.config.changes_to(&config);
                log::info!("configuration read again: {}", changes.as_deref().unwrap_or("nothing changed"));
                log::set_max_level(config.log_level);
                self.config = config.clone();
                config.limits.clients_max = fd_limit::raise(&config);
                self.node.reconfigure(now, config);
                self.resolver.resolve_all();
                self.new_due = Some(Instant::ZERO);
            }
            Err(error) => log::error!("configuration not changed: {error}"),
        }
    }
}

/// The log line with the address of the node and a command to try.
fn greeting(here: SocketAddr, has_password: bool) -> String {
    let ip = match here.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let auth = if has_password { ", then AUTH and the password" } else { "" };
    let (version, port) = (env!("CARGO_PKG_VERSION"), here.port());
    format!("olivia {version} listens on {here}; try: nc {ip} {port}{auth}")
}

fn token_of(key: ConnKey) -> Token {
    Token(usize::try_from(key.to_bits()).unwrap_or(usize::MAX))
}

/// Takes events from the system, at most until `wait` has passed.
fn take_events(poll: &mut Poll, events: &mut Events, wait: Option<Duration>) -> Result<(), ShellError> {
    match poll.poll(events, wait) {
        Err(error) if error.kind() != ErrorKind::Interrupted => {
            Err(ShellError::System("wait for events", error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether as many events came as fit, so that there may be more.
fn is_full(events: &Events) -> bool {
    events.iter().nth(EVENTS - 1).is_some()
}

/// Queues a connection to be read, if it is readable and not queued yet.
fn queue_read(socket: &mut Socket, key: ConnKey, ready: &mut Turns, node: &Node) {
    if socket.enter_queue() {
        let (class, is_deep) = node.queue_of(key);
        ready.push(class, key, is_deep);
    }
}

#[cfg(test)]
mod tests {
    use super::{EVENTS, Reactor, take_events};
    use crate::base::slots::Key;
    use crate::config::Config;
    use crate::node::Class;
    use mio::Events;
    use socket2::{Domain, Socket, Type};
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    struct Bench {
        reactor: Reactor,
        events: Events,
    }

    impl Bench {
        fn start(remote_peers: Vec<String>) -> Self {
            let config = Config { listen_port: 0, remote_peers, ..Config::default() };
            let reload = Box::new(|| Err("no file".to_owned()));
            Self { reactor: Reactor::start(config, reload).unwrap(), events: Events::with_capacity(EVENTS) }
        }

        fn addr(&self) -> SocketAddr {
            self.reactor.listener.local_addr().unwrap()
        }

        /// One iteration, as in [`Reactor::run`], that waits for at most a millisecond.
        fn iterate(&mut self) {
            let Self { reactor, events } = self;
            events.clear();
            if reactor.takes_events() {
                take_events(&mut reactor.poll, events, Some(Duration::from_millis(1))).unwrap();
            }
            reactor.iterate(events).unwrap();
        }
    }

    #[test]
    fn frame_is_read_before_requests_of_more_clients_than_events_are_taken() {
        let mut node = Bench::start(Vec::new());
        let mut peer = Bench::start(vec![node.addr().to_string()]);
        let both = |node: &mut Bench, peer: &mut Bench, until: &dyn Fn(&Reactor) -> bool| {
            (0..10_000).find(|_| {
                node.iterate();
                peer.iterate();
                until(&node.reactor)
            })
        };
        both(&mut node, &mut peer, &|node| node.node.is_ready() && node.node.stats().frames > 0).unwrap();
        let mut clients: Vec<TcpStream> =
            (0..3 * EVENTS).map(|_| TcpStream::connect(node.addr()).unwrap()).collect();
        both(&mut node, &mut peer, &|node| node.node.conns() > 3 * EVENTS).unwrap();
        clients.iter_mut().for_each(|client| client.write_all(b"PING\n").unwrap());
        let mut writer = TcpStream::connect(peer.addr()).unwrap();
        writer.write_all(b"SET key:value\n").unwrap();
        for _ in 0..20 {
            peer.iterate();
        }
        let frames = node.reactor.node.stats().frames;
        node.iterate();
        assert!(node.reactor.node.stats().frames > frames, "the link waits for clients");
        assert!(node.reactor.node.stats().requests < 3 * EVENTS as u64);
        for mut client in clients {
            client.set_nonblocking(true).unwrap();
            let reply = (0..1_000).find_map(|_| {
                node.iterate();
                let mut reply = [0; 16];
                client.read(&mut reply).ok().map(|count| reply[..count].to_vec())
            });
            assert!(reply.is_some_and(|reply| reply.ends_with(b"\n")), "a client gets no reply");
        }
    }

    #[test]
    fn writes_of_an_iteration_end_with_its_share_however_many_clients_have_output() {
        let mut node = Bench::start(Vec::new());
        let value = "x".repeat(8 << 20);
        let request = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len());
        let mut writer = TcpStream::connect(node.addr()).unwrap();
        let writing = std::thread::spawn(move || writer.write_all(request.as_bytes()).map(|()| writer));
        while node.reactor.node.stats().requests == 0 {
            node.iterate();
        }
        let _writer = writing.join().unwrap().unwrap();
        let readers: Vec<TcpStream> = (0..60)
            .map(|_| {
                let mut reader = TcpStream::connect(node.addr()).unwrap();
                reader.write_all(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").unwrap();
                reader
            })
            .collect();
        // The sockets take some MB of each; a KiB costs a key.
        let begin = node.reactor.node.spent();
        let most = 24 << 10;
        let ended = (0..10_000).find(|_| {
            let before = node.reactor.node.spent();
            node.iterate();
            let spent = node.reactor.node.spent() - before;
            assert!(spent < most, "{} MiB were written in one iteration", spent >> 10);
            node.reactor.node.spent() - begin > most
        });
        assert!(ended.is_some(), "{} MiB were written", (node.reactor.node.spent() - begin) >> 10);
        drop(readers);
    }

    #[test]
    fn replies_to_clients_that_are_served_together_arrive_whole() {
        let mut node = Bench::start(Vec::new());
        let mut writer = TcpStream::connect(node.addr()).unwrap();
        let replies = [0, 1, 2, 3, 4, 5, 6, 7].map(|at| format!(":GOT {at}:{}\n", "x".repeat(40)));
        writer.write_all(replies.concat().replace(":GOT", "SET").as_bytes()).unwrap();
        while node.reactor.node.stats().requests < 8 {
            node.iterate();
        }
        // More than a turn carries out, and more than the sockets accept: some of the input waits for its turn, and some
        // writes are partial.
        let requests = 8_000;
        let mut clients: Vec<TcpStream> = (0..8)
            .map(|at| {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                client.set_recv_buffer_size(4_096).unwrap();
                client.connect(&node.addr().into()).unwrap();
                client.set_nonblocking(true).unwrap();
                let mut client = TcpStream::from(client);
                client.write_all(format!("GET {at}\n").repeat(requests).as_bytes()).unwrap();
                client
            })
            .collect();
        let mut arrived = vec![0; clients.len()];
        let mut bytes = vec![0; 3_000];
        let ended = (0..100_000).find(|_| {
            node.iterate();
            for ((client, reply), arrived) in clients.iter_mut().zip(&replies).zip(&mut arrived) {
                let Ok(count) = client.read(&mut bytes) else { continue };
                assert!(count > 0, "the connection ended");
                let right = reply.bytes().cycle().skip(*arrived % reply.len());
                assert!(right.zip(&bytes[..count]).all(|(right, byte)| right == *byte), "after {arrived}");
                *arrived += count;
            }
            arrived.iter().all(|arrived| *arrived == requests * replies[0].len())
        });
        assert!(ended.is_some(), "{arrived:?}");
    }

    #[test]
    fn bytes_of_a_large_request_are_read_although_no_more_follow() {
        let mut node = Bench::start(Vec::new());
        let mut client = TcpStream::connect(node.addr()).unwrap();
        let key = Key::from_bits(1 << 32).unwrap();
        let until_missing = |node: &mut Bench, missing: usize| {
            (0..10_000)
                .find(|_| {
                    node.iterate();
                    node.reactor.node.room(key).len() == missing
                })
                .unwrap_or_else(|| panic!("{} bytes are missing", node.reactor.node.room(key).len()));
        };
        client.write_all(b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$200000\r\n").unwrap();
        // With the line end after the value.
        for (bytes, missing) in [(10_000, 190_002), (50_000, 140_002), (50_000, 90_002), (1, 90_001)] {
            client.write_all(&vec![b'x'; bytes]).unwrap();
            until_missing(&mut node, missing);
        }
        client.write_all(&[&vec![b'x'; 90_000 - 1][..], b"\r\n"].concat()).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut reply = [0; 16];
        let count = (0..10_000).find_map(|_| {
            node.iterate();
            client.read(&mut reply).ok()
        });
        assert_eq!(&reply[..count.unwrap()], b"+OK\r\n");
    }

    #[test]
    fn events_are_taken_every_second_time_while_many_clients_always_have_input() {
        let Bench { mut reactor, .. } = Bench::start(Vec::new());
        let client = Key::from_bits(1 << 32).unwrap();
        assert!(reactor.takes_events() && reactor.takes_events());
        (0..EVENTS).for_each(|_| reactor.ready.push(Class::Clients, client, true));
        assert!(reactor.takes_events(), "deep clients have few turns");
        (0..EVENTS).for_each(|_| reactor.ready.push(Class::Clients, client, false));
        assert_eq!([(); 4].map(|()| reactor.takes_events()), [false, true, false, true]);
    }
}
