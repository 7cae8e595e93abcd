//! The world: hosts with nodes, a network, clients, and faults.

use super::agenda::Agenda;
use super::alone::Alone;
use super::appended::Appended;
use super::client::{Client, Habit};
use super::faults::Undo;
use super::host::{Host, Kind, State};
use super::hostile_peer::HostilePeer;
use super::load::{Load, Scenario};
use super::net::{MS, Net, Party, Port, US};
use super::newest::NewestVersions;
use super::oracle::{Oracle, Stamp};
use super::pending::Style;
use super::plan::{Plan, Size};
use super::seen::Seen;
use super::trace::Trace;
use olivia::base::rng::Rng;
use olivia::filter::changelog::Position;
use olivia::node::Node;
use olivia::store::HashSecret;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

/// A future event.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    Syn(usize),
    Connected(usize),
    Reset(Port),
    Piece(Port),
    Room(Port),
    Iteration(usize),
    Client(usize),
    ClientWakes(usize, usize),
    ClientGivesUp(usize, usize),
    Start(usize),
    Fault,
    Undo(Undo),
    Hostile(usize),
}

pub struct World {
    pub plan: Plan,
    pub style: Style,
    pub agenda: Agenda<Event>,
    pub net: Net,
    pub hosts: Vec<Host>,
    /// Hosts below this number are members.
    pub members: usize,
    pub clients: Vec<Client>,
    pub oracle: Oracle,
    pub newest: NewestVersions,
    pub appended: Appended,
    pub trace: Trace,
    pub rng: Rng,
    /// The number of the last call to any node, and what it was.
    pub moment: u64,
    pub what: &'static str,
    /// Requests that clients still may make.
    pub ops_left: u64,
    pub faults_on: bool,
    /// There are no more faults.
    pub is_healed: bool,
    /// Troubles under way, and when the last one ended.
    pub faults: u32,
    pub faulty_until: u64,
    pub has_hostile_peers: bool,
    pub hostile_peers: BTreeMap<usize, HostilePeer>,
    /// Whether a lookup has time enough to find what there is.
    pub is_strict: bool,
    /// The largest lead of any wall clock so far, in ms.
    pub furthest_skew_ms: i64,
    /// A wall clock has jumped by so much that its node is refused, or refuses links until the clock is right.
    pub has_wrong_clock: bool,
    /// The covered events.
    pub seen: Seen,
    pub replies: u64,
    /// The hash of the mesh.
    pub hashes: HashSecret,
    /// Per connection between nodes, the positions of both ends' logs when it was accepted.
    pub began: BTreeMap<usize, [Option<Position>; 2]>,
    pub scratch: Vec<u8>,
    /// In a world of one node with hostile clients.
    pub alone: Option<Alone>,
    /// In a world under load.
    pub load: Option<Load>,
    pub received: Vec<(usize, Vec<u8>)>,
    pub reconciled: Vec<(usize, bool)>,
}

impl World {
    pub fn new(seed: u64, size: Size, is_traced: bool) -> Self {
        let mut rng = Rng::new(seed ^ 0x6d65_7368);
        let plan = Plan::draw(&mut rng, size);
        Self::with(rng, seed, plan, size.requests, None, is_traced)
    }

    /// A world under load, on machines of this speed.
    pub fn under_load(scenario: Scenario, key_nanos: u64) -> Self {
        let plan = Plan::calm(scenario.members, key_nanos);
        let mut world = Self::with(Rng::new(1), 1, plan, 0, Some(Load::new(scenario)), false);
        world.hosts[scenario.members - 1].slowness = scenario.slowness;
        world
    }

    fn with(mut rng: Rng, seed: u64, plan: Plan, requests: u64, load: Option<Load>, is_traced: bool) -> Self {
        let (alone, config) = plan.is_alone().then(|| Alone::draw(&mut rng, seed)).unzip();
        let style = Style::draw(&mut rng, plan.is_fine);
        // Large values over a long or narrow line take their time.
        let is_light = plan.manners.nanos_per_byte <= 1 && plan.delay < MS;
        let mut net = Net::new(plan.hosts(), plan.manners.clone(), Rng::new(rng.next_u64()));
        let mut hosts = Vec::new();
        for at in 0..plan.hosts() {
            let kind = match at {
                at if at < plan.members => Kind::Member,
                at if at < plan.members + plan.strangers => Kind::Stranger,
                _ => Kind::Hostile,
            };
            for to in 0..plan.hosts() {
                net.path_mut(at, to).delay = plan.delay / 2 + rng.below(plan.delay);
            }
            let config = config.clone().unwrap_or_else(|| plan.config(&mut rng, at));
            let offset = rng.below(100_000_000_000);
            // Within what nodes accept of one another.
            let skew_ms = i64::try_from(rng.below(400)).unwrap() - 200;
            hosts.push(Host::new(kind, plan.addr(at), config, offset, skew_ms));
        }
        let mut world = Self {
            agenda: Agenda::new(),
            net,
            members: plan.members,
            clients: Vec::new(),
            oracle: Oracle::new(plan.hosts()),
            newest: NewestVersions::default(),
            appended: Appended::default(),
            trace: Trace::new(is_traced),
            moment: 0,
            what: "",
            ops_left: match style.items {
                _ if alone.is_some() => requests / 10,
                0..=12 => requests,
                13..=500 => requests / 10,
                _ => requests / 20,
            },
            faults_on: plan.fault_every > 0,
            is_healed: false,
            faults: 0,
            faulty_until: 0,
            has_hostile_peers: plan.hostile_peers > 0,
            hostile_peers: BTreeMap::new(),
            is_strict: plan.has_long_timeouts && (style.padding <= 200 || is_light),
            furthest_skew_ms: 0,
            has_wrong_clock: false,
            seen: Seen::default(),
            replies: 0,
            hashes: plan.hash_secret(),
            began: BTreeMap::new(),
            scratch: Vec::new(),
            received: Vec::new(),
            reconciled: Vec::new(),
            alone,
            load,
            hosts,
            rng,
            plan,
            style,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        // Nodes that start as one dial each other at the same moment.
        let are_one = self.rng.one_in(3);
        for at in 0..self.hosts.len() {
            let late = if self.rng.one_in(4) { 500 * MS } else { 20 * MS };
            let late = if are_one { MS } else { self.rng.below(late) };
            self.agenda.put(late, Event::Start(at));
        }
        if let Some(alone) = &self.alone {
            for at in 0..alone.clients() {
                let later = self.rng.below(50 * MS);
                self.agenda.put(later, Event::Client(at));
            }
        }
        let clients =
            if self.alone.is_some() || self.load.is_some() { 0 } else { (self.members * 2).clamp(3, 40) };
        for at in 0..clients {
            let host = usize::try_from(self.rng.below(self.members as u64)).unwrap();
            let habit = if self.rng.one_in(2) { Habit::Stays } else { Habit::Roams };
            self.clients.push(Client::new(host, habit));
            let late = self.rng.below(50 * MS);
            self.agenda.put(late, Event::Client(at));
        }
        if self.faults_on {
            let later = self.rng.below(2 * self.plan.fault_every);
            self.agenda.put(later, Event::Fault);
        }
    }

    /// Since when the network has no fault; in the future if it has one, or had a moment ago.
    pub fn calm_since(&self) -> u64 {
        if self.faults > 0 {
            return u64::MAX;
        }
        self.faulty_until + 4 * u64::from(self.plan.heartbeat_ms) * MS + 1_000 * MS
    }

    /// Returns the address from which a connection appears to come.
    pub fn addr_of(&self, party: Party, wire: usize) -> SocketAddr {
        let port = 20_000 + u16::try_from(wire % 40_000).unwrap();
        match party {
            Party::Host(host) => SocketAddr::new(self.hosts[host].addr.ip(), port),
            Party::Client(_) if self.alone.as_ref().is_some_and(|alone| alone.is_remote(wire)) => {
                SocketAddr::from(([192, 0, 2, 1], port))
            }
            Party::Client(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        }
    }

    /// Starts a node on a host.
    pub fn start(&mut self, at: usize) {
        let seed = self.rng.next_u64();
        let peers = self.plan.peers(&mut self.rng, at);
        let host = &mut self.hosts[at];
        // A hostile peer that comes late does not come at all.
        if host.state == State::Runs || host.kind == Kind::Hostile && self.is_healed {
            return;
        }
        host.life += 1;
        host.state = State::Runs;
        self.net.is_off[at] = false;
        self.net.is_deaf[at] = false;
        self.net.release(&mut self.agenda);
        self.trace.note(self.net.now, "start", at, u64::from(self.hosts[at].life), b"");
        if self.hosts[at].kind == Kind::Hostile {
            return self.hostile_peer_start(at);
        }
        let host = &mut self.hosts[at];
        let now = host.now(self.net.now);
        let mut node = Node::new(host.config.clone(), seed, now);
        let entries: Vec<_> = peers.iter().map(|addr| vec![*addr]).collect();
        match &mut self.alone {
            Some(alone) => alone.started(&mut node),
            None => node.join(now, host.addr, &entries),
        }
        host.node = Some(node);
        self.moment += 1;
        self.after_call(at);
        self.wake(at, self.net.now);
    }

    /// Ends the node on a host: its system resets all connections, or they stay half open.
    pub fn stop(&mut self, at: usize, is_traced: bool) {
        self.moment += 1;
        self.trace.note(self.net.now, "stop", at, u64::from(is_traced), b"");
        if let Some(node) = &self.hosts[at].node {
            self.seen.add_node(node.stats());
        }
        let now = Stamp { call: self.moment, nanos: self.net.now };
        self.note_death(at, now);
        self.oracle.died(at, now);
        self.host_died(at);
        let host = &mut self.hosts[at];
        let ports: Vec<Port> = host.sockets.values().map(|socket| socket.port).collect();
        let ports: Vec<Port> = ports.into_iter().chain(host.backlog.drain(..)).collect();
        host.clear();
        host.state = State::Down;
        self.hostile_peer_stop(at);
        for port in ports {
            if !is_traced {
                self.net.vanish(port);
            } else if self.rng.one_in(2) {
                self.net.reset(&mut self.agenda, port);
            } else {
                self.net.close(&mut self.agenda, port);
            }
        }
        self.net.is_deaf[at] = true;
        self.net.is_off[at] = !is_traced;
    }

    /// A draining node has ended.
    pub fn ended(&mut self, at: usize) {
        assert!(self.hosts[at].sockets.is_empty(), "host {at} has ended and left connections");
        if let Some(node) = &self.hosts[at].node {
            node.audit();
            node.audit_store();
        }
        self.stop(at, true);
        let later = self.rng.below(self.plan.fault_lasts);
        self.agenda.put(self.net.now + later, Event::Undo(Undo::Start(at)));
    }

    /// Lets happen all that happens until `nanos`.
    pub fn run_until(&mut self, nanos: u64) {
        while self.agenda.next_nanos().is_some_and(|next| next <= nanos) {
            self.step();
        }
        self.net.now = nanos;
    }

    /// Lets the next thing happen.
    pub fn step(&mut self) {
        let Some((nanos, event)) = self.agenda.pop() else { return };
        self.net.now = self.net.now.max(nanos);
        match event {
            Event::Syn(wire) => {
                if let Some(port) = self.net.syn(&mut self.agenda, wire)
                    && let Party::Host(host) = self.net.party(port)
                {
                    self.hosts[host].backlog.push_back(port);
                    self.hostile_peer_accept(host);
                    self.wake(host, self.net.now + 10 * US);
                }
            }
            Event::Connected(wire) => self.connected(wire),
            Event::Reset(port) => self.reset(port),
            Event::Piece(port) => {
                if let Some(port) = self.net.piece(&mut self.agenda, port) {
                    self.arrived(port);
                }
            }
            Event::Room(port) => self.room(port),
            Event::Iteration(host) => self.iteration_due(host),
            Event::Client(client) if self.load.is_some() => self.load_step(client),
            Event::Client(client) => self.client_step(client),
            Event::ClientWakes(client, wire) => self.client_wakes(client, wire),
            Event::ClientGivesUp(client, wire) => self.client_gives_up(client, wire),
            Event::Start(host) => self.start(host),
            Event::Fault => self.fault(),
            Event::Undo(undo) => self.undo(undo),
            Event::Hostile(host) => self.hostile_peer_act(host),
        }
    }
}
