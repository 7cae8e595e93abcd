//! Links between nodes, with every order of events that two ends can see: whole nodes, and a network of
//! which the test decides what arrives next. Nothing is random and no time passes unless the test says so.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use olivia::base::time::{Instant, Now};
use olivia::config::Config;
use olivia::node::{Action, ConnKey, Node};
use std::net::SocketAddr;
use std::time::Duration;

/// Deliveries of which every order is tried; what comes later comes in the order of the connections.
const DEPTH: usize = 9;

/// Steps after which a world that is still busy will not find rest.
const STEPS_MAX: usize = 10_000;

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A connection between two nodes, or between a client of the test and a node: then the second end is none.
struct Wire {
    ends: [Option<(usize, ConnKey)>; 2],
    /// Bytes on their way to each end.
    to: [Vec<u8>; 2],
    /// Each end has said that no more will come.
    ended: [bool; 2],
    /// Each end has heard that from the other.
    told: [bool; 2],
}

struct World {
    nodes: Vec<Node>,
    /// Which node listens where.
    homes: Vec<(SocketAddr, usize)>,
    wires: Vec<Wire>,
    now: Now,
}

impl World {
    fn new() -> Self {
        let now = Now { mono: Instant::from_millis(5_000), wall_ms: 1_700_000_000_000 };
        Self { nodes: Vec::new(), homes: Vec::new(), wires: Vec::new(), now }
    }

    /// A node that says it listens at the first of its addresses, and can be dialled at all of them.
    fn add(&mut self, seed: u64, config: Config, homes: &[SocketAddr]) -> usize {
        let at = self.nodes.len();
        self.nodes.push(Node::new(config, seed, self.now));
        self.homes.extend(homes.iter().map(|home| (*home, at)));
        at
    }

    fn join(&mut self, at: usize, listen: SocketAddr, peers: &[SocketAddr]) {
        let entries: Vec<_> = peers.iter().map(|addr| vec![*addr]).collect();
        self.nodes[at].join(self.now, listen, &entries);
        self.act(at);
    }

    /// Lets a node do all that it wants to do now.
    fn act(&mut self, at: usize) {
        for _ in 0..STEPS_MAX {
            while let Some(action) = self.nodes[at].next_action() {
                self.do_action(at, action);
            }
            if !self.nodes[at].has_work(self.now) {
                return self.nodes[at].audit();
            }
            self.nodes[at].tick(self.now);
        }
        panic!("the node finds no rest");
    }

    fn do_action(&mut self, at: usize, action: Action) {
        match action {
            Action::Connect(key, to) => self.dial(at, key, to),
            Action::Flush(key) => {
                let bytes = self.nodes[at].outbound(key).collect::<Vec<_>>().concat();
                self.nodes[at].wrote(self.now, key, bytes.len());
                if let Some((wire, end)) = self.find(at, key) {
                    self.wires[wire].to[1 - end].extend(bytes);
                }
            }
            Action::ShutdownWrite(key) | Action::Close(key) => {
                if let Some((wire, end)) = self.find(at, key) {
                    self.wires[wire].ended[end] = true;
                    if matches!(action, Action::Close(_)) {
                        self.wires[wire].ends[end] = None;
                    }
                }
            }
            Action::StopReading(_) | Action::ResumeReading(_) => {}
        }
    }

    fn find(&self, at: usize, key: ConnKey) -> Option<(usize, usize)> {
        let ends =
            self.wires.iter().enumerate().flat_map(|(w, wire)| [(w, 0, wire.ends[0]), (w, 1, wire.ends[1])]);
        ends.filter(|(.., end)| *end == Some((at, key))).map(|(wire, end, _)| (wire, end)).next()
    }

    fn dial(&mut self, at: usize, key: ConnKey, to: SocketAddr) {
        let home = self.homes.iter().find(|(home, _)| *home == to).map(|(_, at)| *at);
        let seen = addr(40_000 + u16::try_from(self.wires.len()).unwrap());
        let other = home.and_then(|home| Some((home, self.nodes[home].accept(self.now, seen).ok()?)));
        let Some(other) = other else { return self.nodes[at].lost(self.now, key, &"connection reset") };
        self.wire([Some((at, key)), Some(other)]);
        self.nodes[at].connected(self.now, key);
    }

    fn wire(&mut self, ends: [Option<(usize, ConnKey)>; 2]) -> usize {
        self.wires.push(Wire { ends, to: [Vec::new(), Vec::new()], ended: [false; 2], told: [false; 2] });
        self.wires.len() - 1
    }

    fn client(&mut self, at: usize) -> usize {
        let key = self.nodes[at].accept(self.now, addr(30_000)).unwrap();
        self.wire([Some((at, key)), None])
    }

    fn ask(&mut self, client: usize, text: &str) {
        let (at, key) = self.wires[client].ends[0].unwrap();
        self.nodes[at].received(self.now, key, text.as_bytes());
        self.act(at);
    }

    fn reply(&mut self, client: usize) -> String {
        String::from_utf8(std::mem::take(&mut self.wires[client].to[1])).unwrap()
    }

    /// What is on its way to a node: the connection and the end of it.
    fn pending(&self) -> Vec<(usize, usize)> {
        let both = self.wires.iter().enumerate().flat_map(|(w, wire)| [(w, 0, wire), (w, 1, wire)]);
        let waits = |end: usize, wire: &Wire| {
            wire.ends[end].is_some() && (!wire.to[end].is_empty() || (wire.ended[1 - end] && !wire.told[end]))
        };
        both.filter(|(_, end, wire)| waits(*end, wire)).map(|(wire, end, _)| (wire, end)).collect()
    }

    fn deliver(&mut self, (wire, end): (usize, usize)) {
        let Some((at, key)) = self.wires[wire].ends[end] else { return };
        let bytes = std::mem::take(&mut self.wires[wire].to[end]);
        if !bytes.is_empty() {
            self.nodes[at].received(self.now, key, &bytes);
        } else if self.wires[wire].ended[1 - end] {
            self.wires[wire].told[end] = true;
            self.nodes[at].read_closed(self.now, key);
        }
        self.act(at);
    }

    /// Delivers whatever goes over the connections that are wanted, until nothing does.
    fn reconcile(&mut self, wanted: impl Fn(usize) -> bool) {
        for _ in 0..STEPS_MAX {
            let Some(next) = self.pending().into_iter().find(|(wire, _)| wanted(*wire)) else { return };
            self.deliver(next);
        }
        panic!("the world finds no rest");
    }

    fn pass(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now.mono = self.now.mono.after(Duration::from_millis(1));
            self.now.wall_ms += 1;
            (0..self.nodes.len()).for_each(|at| self.act(at));
            self.reconcile(|_| true);
        }
    }

    fn linked(&self, at: usize) -> usize {
        self.nodes[at].peers(self.now).iter().filter(|peer| peer.is_linked).count()
    }

    /// Connections between nodes that neither end has given up.
    fn alive(&self) -> usize {
        self.wires
            .iter()
            .filter(|wire| wire.ends.iter().all(Option::is_some) && wire.ended == [false; 2])
            .count()
    }
}

/// Runs a world once for each order in which the first things that are on their way can arrive.
fn in_every_order(make: impl Fn() -> World, check: impl Fn(&World)) {
    let mut path: Vec<usize> = Vec::new();
    let mut runs = 0;
    loop {
        let mut world = make();
        let mut widths = Vec::new();
        for step in 0..STEPS_MAX {
            let pending = world.pending();
            if pending.is_empty() {
                break;
            }
            if step == path.len() {
                path.push(0);
            }
            widths.push(if step < DEPTH { pending.len() } else { 1 });
            world.deliver(pending[path[step]]);
        }
        check(&world);
        runs += 1;
        while let Some(last) = path.pop() {
            if last + 1 < widths[path.len()] {
                path.push(last + 1);
                break;
            }
        }
        if path.is_empty() {
            break;
        }
    }
    assert!(runs > 100, "only {runs} orders");
}

#[test]
fn of_two_nodes_that_dial_each_other_both_keep_the_same_link() {
    for seeds in [(1, 2), (2, 1)] {
        let make = || {
            let mut world = World::new();
            let a = world.add(seeds.0, Config::default(), &[addr(5_001)]);
            let b = world.add(seeds.1, Config::default(), &[addr(5_002)]);
            world.join(a, addr(5_001), &[addr(5_002)]);
            world.join(b, addr(5_002), &[addr(5_001)]);
            world
        };
        in_every_order(make, |world| {
            assert_eq!((world.linked(0), world.linked(1), world.alive()), (1, 1, 1));
        });
    }
}

#[test]
fn node_dialled_at_two_addresses_at_once_is_linked_once() {
    for seeds in [(1, 2), (2, 1)] {
        let make = || {
            let mut world = World::new();
            let a = world.add(seeds.0, Config::default(), &[addr(5_001)]);
            let b = world.add(seeds.1, Config::default(), &[addr(5_002), addr(5_003)]);
            world.join(b, addr(5_002), &[]);
            world.join(a, addr(5_001), &[addr(5_002), addr(5_003)]);
            world
        };
        in_every_order(make, |world| {
            assert_eq!((world.linked(0), world.linked(1), world.alive()), (1, 1, 1));
        });
    }
}

fn with_peers(active_peers: u32) -> Config {
    let mut config = Config::default();
    config.mesh.active_peers = active_peers;
    config
}

#[test]
fn of_nodes_that_come_together_to_one_with_too_few_places_each_has_a_link_in_whatever_order() {
    let make = || {
        let mut world = World::new();
        let a = world.add(1, with_peers(1), &[addr(5_001)]);
        world.join(a, addr(5_001), &[]);
        for (seed, port) in [(2, 5_002), (3, 5_003)] {
            let at = world.add(seed, with_peers(1), &[addr(port)]);
            world.join(at, addr(port), &[addr(5_001)]);
        }
        world
    };
    in_every_order(make, |world| assert_eq!([0, 1, 2].map(|at| world.linked(at)), [2, 1, 1]));
}

/// Whom each node is told of at its start, by its number.
type Told = fn(u16) -> Vec<u16>;

/// All know one; each knows the one before; each knows all.
const TOLD: [Told; 3] =
    [|at| vec![0; usize::from(at > 0)], |at| at.checked_sub(1).into_iter().collect(), |_| (0..9).collect()];

/// Lets time pass until every node has a link; none may have more than it should.
fn all_linked(world: &mut World, active_peers: usize, what: &str) {
    for waited in 0.. {
        let links: Vec<usize> = (0..world.nodes.len()).map(|at| world.linked(at)).collect();
        assert!(links.iter().all(|links| *links <= active_peers + 3), "{what}: {links:?}");
        if links.iter().all(|links| *links > 0) {
            return;
        }
        assert!(waited < 60_000, "{what}: {links:?}");
        world.pass(1);
    }
}

#[test]
fn no_node_is_left_without_a_link_however_few_each_may_have() {
    for (active_peers, count, told) in (1..=3)
        .flat_map(|active| (5..=9u16).map(move |count| (active, count)))
        .flat_map(|(active, count)| (0..TOLD.len()).map(move |told| (active, count, told)))
    {
        let what = format!("{count} nodes of {active_peers} links, told {told}");
        let home = |at: u16| addr(5_000 + at);
        let mut world = World::new();
        for at in 0..count {
            world.add(u64::from(at) + 1, with_peers(active_peers), &[home(at)]);
        }
        for at in 0..count {
            let peers: Vec<SocketAddr> =
                TOLD[told](at).into_iter().filter(|to| *to < count).map(home).collect();
            world.join(usize::from(at), home(at), &peers);
        }
        all_linked(&mut world, active_peers as usize, &what);
        // The first begins anew, and knows nobody; then all links break.
        world.break_links_of(0);
        world.nodes[0] = Node::new(with_peers(active_peers), 100, world.now);
        world.join(0, home(0), &[]);
        all_linked(&mut world, active_peers as usize, &what);
        world.break_all();
        all_linked(&mut world, active_peers as usize, &what);
    }
}

#[test]
fn node_that_claims_the_address_of_another_does_not_cut_its_link() {
    let mut world = World::new();
    let a = world.add(1, Config::default(), &[addr(5_001)]);
    let b = world.add(2, Config::default(), &[addr(5_002)]);
    let liar = world.add(3, Config::default(), &[]);
    world.join(a, addr(5_001), &[]);
    world.join(b, addr(5_002), &[addr(5_001)]);
    world.reconcile(|_| true);
    world.join(liar, addr(5_002), &[addr(5_001)]);
    world.reconcile(|_| true);
    assert_eq!((world.linked(a), world.linked(b), world.linked(liar)), (2, 1, 1));
}

#[test]
fn lookup_on_its_way_survives_the_change_to_the_other_link() {
    let mut world = World::new();
    let homes = [addr(5_001), addr(5_002)];
    for (seed, home) in [(1, homes[0]), (2, homes[1])] {
        world.add(seed, Config::default(), &[home]);
    }
    // The link that the smaller one dials is the one to stay.
    let (asker, holder) = if world.nodes[0].id() < world.nodes[1].id() { (0, 1) } else { (1, 0) };
    world.join(holder, homes[holder], &[homes[asker]]);
    world.join(asker, homes[asker], &[homes[holder]]);
    let of_holder = world.find_dialled_by(holder);
    world.reconcile(|wire| wire == of_holder);
    let (writer, reader) = (world.client(holder), world.client(asker));
    world.ask(writer, "SET k:v\n");
    world.reconcile(|wire| wire == of_holder);
    world.ask(reader, "GET k\n");
    assert_eq!(world.reply(reader), "", "the question is on its way");
    world.reconcile(|wire| wire != of_holder);
    world.reconcile(|_| true);
    assert_eq!(world.alive(), 1);
    assert_eq!(world.reply(reader), ":GOT k:v\n");
}

impl World {
    fn find_dialled_by(&self, at: usize) -> usize {
        self.wires.iter().position(|wire| wire.ends[0].is_some_and(|(node, _)| node == at)).unwrap()
    }
}

#[test]
fn second_address_of_a_node_is_tried_again_though_it_failed_before_the_node_was_linked() {
    let mut world = World::new();
    let a = world.add(1, Config::default(), &[addr(5_001)]);
    let b = world.add(2, Config::default(), &[addr(5_002), addr(5_003)]);
    world.join(b, addr(5_002), &[]);
    world.join(a, addr(5_001), &[addr(5_003)]);
    world.reconcile(|_| true);
    assert_eq!(world.linked(a), 1);
    // Both fail for a while, then the first leads to the node again.
    world.homes.clear();
    world.break_all();
    world.pass(1_000);
    world.homes.push((addr(5_002), b));
    world.pass(5_000);
    assert_eq!(world.linked(a), 1);
    // Now it is the first that fails.
    world.homes.clear();
    world.homes.push((addr(5_003), b));
    world.break_all();
    world.pass(2_000);
    assert_eq!(world.linked(a), 1);
}

impl World {
    fn break_all(&mut self) {
        self.break_wires(|_| true);
    }

    fn break_links_of(&mut self, at: usize) {
        self.break_wires(|wire| wire.ends.iter().flatten().any(|(end, _)| *end == at));
    }

    fn break_wires(&mut self, is_broken: impl Fn(&Wire) -> bool) {
        for wire in 0..self.wires.len() {
            if !is_broken(&self.wires[wire]) {
                continue;
            }
            for end in 0..2 {
                if let Some((at, key)) = self.wires[wire].ends[end].take() {
                    self.nodes[at].lost(self.now, key, &"connection reset");
                    self.act(at);
                }
            }
        }
    }
}

#[test]
fn address_that_was_our_own_is_found_to_be_another_nodes_when_that_takes_it_over() {
    let mut world = World::new();
    let a = world.add(1, Config::default(), &[addr(5_001), addr(5_003)]);
    world.join(a, addr(5_001), &[addr(5_003)]);
    world.reconcile(|_| true);
    world.pass(5);
    assert!(world.nodes[a].is_ready() && world.nodes[a].peers(world.now).is_empty());
    world.homes.retain(|(home, _)| *home != addr(5_003));
    let b = world.add(2, Config::default(), &[addr(5_003)]);
    world.join(b, addr(5_003), &[]);
    // As seldom as any address that leads to nobody.
    world.pass(22_000);
    assert_eq!(world.linked(a), 0);
    world.pass(16_000);
    assert_eq!((world.linked(a), world.linked(b)), (1, 1));
}

#[test]
fn node_that_has_all_the_peers_it_may_have_is_ready() {
    let mut world = World::new();
    let a = world.add(1, with_peers(1), &[addr(5_001)]);
    let b = world.add(2, Config::default(), &[addr(5_002)]);
    world.join(b, addr(5_002), &[]);
    let peers: Vec<SocketAddr> = (5_002..5_040).map(addr).collect();
    world.join(a, addr(5_001), &peers);
    world.reconcile(|_| true);
    world.pass(200);
    assert!(world.linked(a) == 1 && world.nodes[a].is_ready());
}

#[test]
fn node_that_ends_has_said_goodbye_to_its_peers_when_the_call_returns() {
    let mut world = World::new();
    let a = world.add(1, Config::default(), &[addr(5_001)]);
    let b = world.add(2, Config::default(), &[addr(5_002)]);
    world.join(b, addr(5_002), &[]);
    world.join(a, addr(5_001), &[addr(5_002)]);
    world.reconcile(|_| true);
    world.nodes[a].drain(world.now);
    world.nodes[a].audit();
    world.act(a);
    assert_eq!(world.linked(a), 0);
}

#[test]
fn introduction_that_drips_is_not_waited_for() {
    let mut world = World::new();
    let a = world.add(1, Config::default(), &[addr(5_001)]);
    world.nodes[a].join(world.now, addr(5_001), &[vec![addr(5_002)]]);
    world.nodes[a].tick(world.now);
    let Some(Action::Connect(key, _)) = world.nodes[a].next_action() else { panic!("nobody is dialled") };
    world.nodes[a].connected(world.now, key);
    for _ in 0..10 {
        world.now.mono = world.now.mono.after(Duration::from_secs(1));
        world.nodes[a].received(world.now, key, b"h");
        world.act(a);
    }
    assert_eq!(world.nodes[a].conns(), 0);
}

#[test]
fn many_who_wait_for_one_large_value_get_it_in_steps() {
    const CLIENTS: usize = 100;
    const VALUE: usize = 60_000;
    let mut world = World::new();
    let a = world.add(1, Config::default(), &[addr(5_001)]);
    let b = world.add(2, Config::default(), &[addr(5_002)]);
    world.join(b, addr(5_002), &[]);
    world.join(a, addr(5_001), &[addr(5_002)]);
    world.reconcile(|_| true);
    let writer = world.client(b);
    world.ask(writer, &format!("SET k:{}\n", "x".repeat(VALUE)));
    world.reconcile(|_| true);
    let readers: Vec<usize> = (0..CLIENTS).map(|_| world.client(a)).collect();
    readers.iter().for_each(|reader| world.ask(*reader, "GET k\n"));
    // The question to the one, then the answer to the other.
    world.deliver((0, 1));
    let answer = std::mem::take(&mut world.wires[0].to[0]);
    let (_, link) = world.wires[0].ends[0].unwrap();
    world.nodes[a].received(world.now, link, &answer);
    let keys = readers.iter().map(|reader| world.wires[*reader].ends[0].unwrap().1);
    let waiting: usize = keys.map(|key| world.nodes[a].outbound_bytes(key)).sum();
    assert!((VALUE..1_000_000).contains(&waiting), "{waiting} bytes of replies in one call");
    world.act(a);
    assert!(readers.iter().all(|reader| world.wires[*reader].to[1].len() == VALUE + 8));
}

#[test]
fn client_that_asks_for_the_filter_without_end_is_not_read_on() {
    let mut world = World::new();
    let a = world.add(1, Config::default(), &[]);
    let key = world.nodes[a].accept(world.now, addr(30_000)).unwrap();
    let mut was_stopped = false;
    for _ in 0..100 {
        world.nodes[a].received(world.now, key, "REQUEST bloomfilter\n".repeat(100).as_bytes());
        was_stopped |= std::iter::from_fn(|| world.nodes[a].next_action())
            .any(|action| action == Action::StopReading(key));
        if was_stopped {
            break;
        }
    }
    assert!(was_stopped);
}
