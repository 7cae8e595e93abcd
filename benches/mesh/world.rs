//! A whole mesh inside this process: real nodes, perfect links without delay, virtual time.
//!
//! For counting: every byte that nodes say to each other is seen, and nothing depends on this machine.
//! Nothing goes wrong here; the simulation in `tests/mesh` is for that.

use super::traffic::{Listener, Traffic};
use olivia::base::time::{Instant, Now};
use olivia::config::Config;
use olivia::node::{Action, ConnKey, Node};
use olivia::wire::frame::FrameLimits;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The port of the first host; they all live on loopback, which needs no secret.
const PORT: u16 = 10_000;

/// Calls of `tick` in a row after which a node that still has work is broken.
const TICKS_MAX: usize = 10_000_000;

/// Time in which nodes find each other and tell each other of all they have.
const SETTLE: Duration = Duration::from_millis(500);

/// What happens to a connection, as its node is told.
#[derive(Debug)]
enum Event {
    Connected,
    Bytes(Vec<u8>),
    Ended,
    Lost,
}

#[derive(Debug, Clone, Copy)]
enum Far {
    /// The host's own client.
    Client,
    Host(usize, ConnKey),
}

#[derive(Debug)]
struct Socket {
    key: ConnKey,
    far: Far,
    is_stopped: bool,
    /// What waits until it is read again.
    held: VecDeque<Event>,
    listener: Listener,
}

struct Host {
    node: Node,
    addr: SocketAddr,
    sockets: Vec<Option<Socket>>,
    inbox: VecDeque<(ConnKey, Event)>,
    unflushed: VecDeque<ConnKey>,
    is_busy: bool,
    client: ConnKey,
    replies: Vec<u8>,
}

impl Host {
    fn socket(&mut self, key: ConnKey) -> Option<&mut Socket> {
        self.sockets.get_mut(key.index())?.as_mut().filter(|socket| socket.key == key)
    }

    fn add_socket(&mut self, key: ConnKey, far: Far) {
        if self.sockets.len() <= key.index() {
            self.sockets.resize_with(key.index() + 1, || None);
        }
        let listener = Listener::default();
        let socket = Socket { key, far, is_stopped: false, held: VecDeque::new(), listener };
        self.sockets[key.index()] = Some(socket);
    }

    fn remove_socket(&mut self, key: ConnKey) -> Option<Socket> {
        self.socket(key)?;
        self.sockets[key.index()].take()
    }
}

/// The mesh.
pub(crate) struct World {
    now: Now,
    hosts: Vec<Host>,
    /// Hosts that have something to do at this moment, each once.
    busy: VecDeque<usize>,
    limits: FrameLimits,
    /// What nodes have said to each other so far.
    pub(crate) traffic: Traffic,
}

impl World {
    /// So many nodes, all linked to all.
    pub(crate) fn new(count: usize) -> Result<Self, String> {
        let now = Now { mono: Instant::from_millis(1_000), wall_ms: 1_700_000_000_000 };
        let config = Config::default();
        let limits = FrameLimits {
            key_bytes_max: config.limits.key_bytes_max as usize,
            value_bytes_max: config.limits.value_bytes_max as usize,
        };
        let mut world =
            Self { now, hosts: Vec::new(), busy: VecDeque::new(), limits, traffic: Traffic::default() };
        for _ in 0..count {
            world.add(&config)?;
        }
        // A short time is enough: links are made at once, and filters are small.
        for _ in 0..20 {
            world.pass(SETTLE);
            if world.is_complete() {
                return Ok(world);
            }
        }
        Err(format!("{count} nodes do not find each other"))
    }

    /// One more node, which is told of the first.
    fn add(&mut self, config: &Config) -> Result<(), String> {
        let at = self.hosts.len();
        let port = PORT + u16::try_from(at).map_err(|_| "too many nodes")?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut node = Node::new(config.clone(), at as u64 + 1, self.now);
        let peers: Vec<SocketAddr> = self.hosts.first().map(|host| host.addr).into_iter().collect();
        let entries: Vec<_> = peers.iter().map(|peer| vec![*peer]).collect();
        node.join(self.now, addr, &entries);
        let client = node
            .accept(self.now, SocketAddr::from((Ipv4Addr::LOCALHOST, 9)))
            .map_err(|refusal| refusal.to_string())?;
        let mut host = Host {
            node,
            addr,
            sockets: Vec::new(),
            inbox: VecDeque::new(),
            unflushed: VecDeque::new(),
            is_busy: false,
            client,
            replies: Vec::new(),
        };
        host.add_socket(client, Far::Client);
        self.hosts.push(host);
        self.wake(at);
        self.run();
        Ok(())
    }

    fn is_complete(&self) -> bool {
        let links = self.hosts.len() - 1;
        let is_linked = |host: &Host| host.node.peers(self.now).iter().filter(|peer| peer.is_linked).count();
        self.hosts.iter().all(|host| host.node.is_ready() && is_linked(host) == links)
    }

    pub(crate) fn len(&self) -> usize {
        self.hosts.len()
    }

    pub(crate) fn node(&self, at: usize) -> &Node {
        &self.hosts[at].node
    }

    /// A number of STATS.
    pub(crate) fn stat(&mut self, at: usize, name: &str) -> Result<u64, String> {
        let line = self.ask(at, "STATS\n")?;
        let mut fields = line.trim_end().split([' ', ',']).filter_map(|field| field.split_once(':'));
        let value = fields.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok());
        value.ok_or_else(|| format!("STATS has no {name}"))
    }

    /// Lets the client of a node ask, and gives the reply. Time passes only if it has to.
    pub(crate) fn ask(&mut self, at: usize, request: &str) -> Result<String, String> {
        let host = &mut self.hosts[at];
        host.replies.clear();
        host.inbox.push_back((host.client, Event::Bytes(request.as_bytes().to_vec())));
        self.wake(at);
        self.run();
        for _ in 0..1_000 {
            if self.hosts[at].replies.last() == Some(&b'\n') {
                break;
            }
            self.pass(Duration::from_millis(1));
        }
        let reply = String::from_utf8_lossy(&self.hosts[at].replies).into_owned();
        if reply.is_empty() || reply.starts_with(":ERR") {
            return Err(format!("'{}' as the reply to {}", reply.trim_end(), request.trim_end()));
        }
        Ok(reply)
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now.mono.after(span);
        loop {
            let next = self.hosts.iter().filter_map(|host| host.node.next_deadline()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.set_time(next.max(self.now.mono));
            for at in 0..self.hosts.len() {
                if self.hosts[at].node.next_deadline().is_some_and(|deadline| deadline <= next) {
                    self.wake(at);
                }
            }
            self.run();
        }
        self.set_time(end);
    }

    fn set_time(&mut self, mono: Instant) {
        let wall_ms = 1_700_000_000_000 + mono.millis();
        self.now = Now { mono, wall_ms };
    }

    fn wake(&mut self, at: usize) {
        if !std::mem::replace(&mut self.hosts[at].is_busy, true) {
            self.busy.push_back(at);
        }
    }

    /// Does all that can be done at this moment.
    fn run(&mut self) {
        while let Some(at) = self.busy.pop_front() {
            self.hosts[at].is_busy = false;
            self.turn(at);
        }
    }

    /// A turn of the loop of one host, until it has nothing to do.
    fn turn(&mut self, at: usize) {
        self.act(at);
        for _ in 0..TICKS_MAX {
            if let Some((key, event)) = self.hosts[at].inbox.pop_front() {
                self.deliver(at, key, event);
            } else if self.hosts[at].node.has_work(self.now) {
                self.hosts[at].node.tick(self.now);
            } else if let Some(key) = self.hosts[at].unflushed.pop_front() {
                self.flush(at, key);
            } else {
                return;
            }
            self.act(at);
        }
        panic!("host {at} finds no rest");
    }

    fn deliver(&mut self, at: usize, key: ConnKey, event: Event) {
        let now = self.now;
        let host = &mut self.hosts[at];
        let Some(socket) = host.socket(key) else { return };
        match event {
            Event::Connected => host.node.connected(now, key),
            Event::Lost => {
                host.remove_socket(key);
                host.node.lost(now, key, &"connection reset");
            }
            Event::Bytes(_) | Event::Ended if socket.is_stopped => socket.held.push_back(event),
            Event::Bytes(bytes) => host.node.received(now, key, &bytes),
            Event::Ended => host.node.read_closed(now, key),
        }
    }

    fn act(&mut self, at: usize) {
        while let Some(action) = self.hosts[at].node.next_action() {
            match action {
                Action::Connect(key, addr) => self.connect(at, key, addr),
                Action::Flush(key) => self.hosts[at].unflushed.push_back(key),
                Action::ShutdownWrite(key) => self.tell(at, key, Event::Ended),
                Action::Close(key) => {
                    self.tell(at, key, Event::Ended);
                    self.hosts[at].remove_socket(key);
                }
                Action::StopReading(key) => self.set_stopped(at, key, Reading::Stopped),
                Action::ResumeReading(key) => self.set_stopped(at, key, Reading::On),
            }
        }
    }

    fn set_stopped(&mut self, at: usize, key: ConnKey, reading: Reading) {
        let host = &mut self.hosts[at];
        let Some(socket) = host.socket(key) else { return };
        socket.is_stopped = reading == Reading::Stopped;
        if reading == Reading::On {
            let held = std::mem::take(&mut socket.held);
            held.into_iter().rev().for_each(|event| host.inbox.push_front((key, event)));
        }
    }

    fn connect(&mut self, at: usize, key: ConnKey, addr: SocketAddr) {
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let now = self.now;
        let far = self.hosts.iter().position(|host| host.addr == addr);
        let accepted = far.and_then(|far| Some((far, self.hosts[far].node.accept(now, from).ok()?)));
        let event = match accepted {
            Some((far, far_key)) => {
                self.hosts[far].add_socket(far_key, Far::Host(at, key));
                self.hosts[at].add_socket(key, Far::Host(far, far_key));
                self.wake(far);
                Event::Connected
            }
            None => {
                self.hosts[at].add_socket(key, Far::Client);
                Event::Lost
            }
        };
        self.hosts[at].inbox.push_back((key, event));
    }

    fn flush(&mut self, at: usize, key: ConnKey) {
        let host = &mut self.hosts[at];
        let bytes = host.node.outbound(key).collect::<Vec<_>>().concat();
        let Some(socket) = host.socket(key).filter(|_| !bytes.is_empty()) else { return };
        match socket.far {
            Far::Client => host.replies.extend_from_slice(&bytes),
            Far::Host(..) => socket.listener.hear(&bytes, self.limits, &mut self.traffic),
        }
        self.hosts[at].node.wrote(self.now, key, bytes.len());
        self.tell(at, key, Event::Bytes(bytes));
    }

    /// Passes an event on to the other end of a connection.
    fn tell(&mut self, at: usize, key: ConnKey, event: Event) {
        let Some(Far::Host(far, far_key)) = self.hosts[at].socket(key).map(|socket| socket.far) else {
            return;
        };
        if self.hosts[far].socket(far_key).is_some() {
            self.hosts[far].inbox.push_back((far_key, event));
            self.wake(far);
        } else if matches!(event, Event::Bytes(_)) {
            // Nobody is there any more, which the system would answer with a reset.
            self.hosts[at].inbox.push_back((key, Event::Lost));
            self.wake(at);
        }
    }
}

/// Whether a connection is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    On,
    Stopped,
}
