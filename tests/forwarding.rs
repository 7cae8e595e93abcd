//! Counters, locks and deletions on several nodes at once: whole nodes whose frames arrive in random order, over links
//! that break and come back. A command is carried out once, or its outcome is unknown.

mod kit;

use kit::mesh::Mesh;
use kit::{ClientId, ms};
use olivia::base::rng::Rng;
use olivia::config::Config;
use olivia::limits::Limits;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

const NODES: usize = 3;
const CLIENTS: usize = 9;
const REQUESTS: usize = 400;
const COUNTERS: u64 = 4;

fn addr(at: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7_000 + u16::try_from(at).unwrap()))
}

/// The outcomes of the commands on one key.
#[derive(Debug, Default)]
struct Outcomes {
    replies: BTreeSet<i64>,
    done: i64,
    unknown: i64,
    refused: i64,
}

struct World {
    mesh: Mesh,
    rng: Rng,
    clients: Vec<(usize, ClientId)>,
    /// The request of each client that is not answered, with its key.
    open: Vec<Option<(String, String)>>,
    outcomes: BTreeMap<String, Outcomes>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self::with(seed, &Config::default())
    }

    fn with(seed: u64, config: &Config) -> Self {
        let mut mesh = Mesh::new();
        for at in 0..NODES {
            mesh.add(seed * 10 + at as u64, config.clone(), &[addr(at)]);
        }
        (0..NODES).for_each(|at| mesh.join(at, addr(at), &(0..at).map(addr).collect::<Vec<_>>()));
        mesh.pass(ms(3_000));
        assert!((0..NODES).all(|at| mesh.linked(at) == NODES - 1));
        let clients = (0..CLIENTS).map(|n| (n % NODES, mesh.nodes[n % NODES].client())).collect();
        Self { mesh, rng: Rng::new(seed), clients, open: vec![None; CLIENTS], outcomes: BTreeMap::new() }
    }

    /// Cuts a node off: its links break, and no dial succeeds, until [`World::heal`].
    fn cut_off(&mut self, node: usize) {
        self.mesh.homes.clear();
        self.mesh.break_wires(|wire| wire.ends.iter().any(|(at, _)| *at == node));
    }

    /// Lets time pass until all nodes are linked again, or until so many times something was delivered.
    fn heal(&mut self, deliveries: usize) {
        self.mesh.homes = (0..NODES).map(|at| (addr(at), at)).collect();
        self.mesh.deliveries_left = deliveries;
        for _ in 0..60_000 {
            if self.mesh.deliveries_left == 0 || (0..NODES).all(|at| self.mesh.linked(at) == NODES - 1) {
                self.mesh.deliveries_left = usize::MAX;
                return;
            }
            self.mesh.pass(ms(1));
        }
        panic!("not linked again");
    }

    /// Sends requests to a node and returns the replies so far.
    fn call(&mut self, node: usize, lines: &str) -> String {
        let (_, client) = self.clients[node];
        self.mesh.nodes[node].send(client, lines);
        self.mesh.run([node]);
        self.mesh.nodes[node].take(client)
    }

    /// The nodes that hold a key.
    fn holders(&self, key: &str) -> Vec<usize> {
        let node = |at: usize| &self.mesh.nodes[at].node;
        let holds =
            |at: &usize| node(*at).version_of(self.mesh.now, key.as_bytes()).is_some_and(|(_, held)| held);
        (0..NODES).filter(holds).collect()
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap()
    }

    /// Has a client that waits for nothing send a request.
    fn send(&mut self, client: usize) {
        if self.open[client].is_some() {
            return;
        }
        let key = format!("c{}", self.rng.below(COUNTERS));
        let (key, line) = match self.rng.below(4) {
            0 => (format!("lock{}", self.rng.below(40)), "SETNX"),
            _ => (key, "INCR"),
        };
        let line = if line == "SETNX" { format!("SETNX {key}:{client}\n") } else { format!("INCR {key}\n") };
        let (node, id) = self.clients[client];
        self.mesh.nodes[node].send(id, &line);
        self.open[client] = Some((line, key));
        self.mesh.act(node);
    }

    /// Takes in what clients were answered.
    fn take_replies(&mut self) {
        for client in 0..CLIENTS {
            let (node, id) = self.clients[client];
            let reply = self.mesh.nodes[node].take(id);
            if reply.is_empty() {
                continue;
            }
            let (line, key) = self.open[client].take().unwrap();
            let of = self.outcomes.entry(key.clone()).or_default();
            if let Some(number) = reply.strip_prefix(&format!(":COUNTS {key}:")) {
                of.done += 1;
                assert!(
                    of.replies.insert(number.trim().parse().unwrap()),
                    "{line} was answered {reply} twice"
                );
            } else if reply.contains("outcome unknown") {
                of.unknown += 1;
            } else if reply.contains("nothing was done") || reply == ":SATNX \n" {
                of.refused += 1;
            } else {
                assert_eq!(reply, format!(":SATNX {key}:{client}\n"), "{line}");
                of.done += 1;
            }
        }
    }

    /// Delivers something that is on its way, whatever it is.
    fn deliver(&mut self) {
        let pending: Vec<_> = self.mesh.pending().collect();
        if !pending.is_empty() {
            let next = self.below(pending.len());
            self.mesh.deliver(pending[next]);
        }
    }

    fn read(&mut self, node: usize, key: &str) -> Option<i64> {
        let client = self.mesh.nodes[node].client();
        self.mesh.nodes[node].send(client, format!("GET {key}\n"));
        self.mesh.act(node);
        self.mesh.pass(ms(5));
        let reply = self.mesh.nodes[node].take(client);
        reply.trim().strip_prefix(&format!(":GOT {key}:")).map(|value| value.parse().unwrap())
    }

    fn run(&mut self, one_in_breaks: u64) {
        if one_in_breaks > 0 {
            // A key that is created during a cut may be created on both sides.
            for counter in 0..COUNTERS {
                let (client, key) = (self.below(CLIENTS), format!("c{counter}"));
                let (node, id) = self.clients[client];
                self.open[client] = Some((String::new(), key.clone()));
                self.mesh.nodes[node].send(id, format!("INCR {key}\n"));
                self.mesh.pass(ms(10));
                self.take_replies();
            }
        }
        for _ in 0..REQUESTS {
            let client = self.below(CLIENTS);
            self.send(client);
            for _ in 0..self.rng.below(8) {
                self.deliver();
            }
            self.take_replies();
            if one_in_breaks > 0 && self.rng.one_in(one_in_breaks) {
                let wire = self.below(self.mesh.wires.len());
                let broken = self.mesh.wires[wire].ends;
                self.mesh.break_wires(|wire| wire.ends == broken);
            }
            if self.rng.one_in(20) {
                let span = ms(self.rng.below(40));
                self.mesh.pass(span);
            }
        }
        self.mesh.pass(ms(15_000));
        self.take_replies();
        assert!(self.open.iter().all(Option::is_none), "{:?}", self.open);
    }
}

#[test]
fn every_increment_counts_once_and_every_lock_has_one_winner_whatever_order_frames_have() {
    let (mut unknown, mut refused) = (0, 0);
    for seed in 0..40 {
        let one_in_breaks = if seed % 2 == 0 { 0 } else { 20 };
        let mut world = World::new(seed);
        world.run(one_in_breaks);
        let outcomes = std::mem::take(&mut world.outcomes);
        for (key, of) in &outcomes {
            (unknown, refused) = (unknown + of.unknown, refused + of.refused);
            assert!(one_in_breaks > 0 || of.unknown == 0, "seed {seed} {key}: {of:?}");
            let values: BTreeSet<Option<i64>> = (0..NODES).map(|node| world.read(node, key)).collect();
            assert_eq!(values.len(), 1, "seed {seed} {key}: nodes read {values:?}");
            let value = values.first().copied().flatten();
            if key.starts_with('c') {
                let value = value.unwrap_or(0);
                let possible = of.done..=of.done + of.unknown;
                assert!(possible.contains(&value), "seed {seed} {key}: {value} after {of:?}");
                assert!(of.replies.last().is_none_or(|most| *most <= value), "seed {seed} {key}: {of:?}");
            } else {
                assert!(of.done <= 1 || one_in_breaks > 0, "seed {seed} {key}: {of:?}");
                assert!(of.done + of.unknown > 0 || value.is_none(), "seed {seed} {key}: {of:?}");
            }
        }
        // A deletion leaves nothing, and each key begins again.
        let keys: Vec<&String> = outcomes.keys().collect();
        let line = format!("DEL {}\n", keys.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(","));
        let (node, client) = world.clients[0];
        world.mesh.nodes[node].send(client, line);
        world.mesh.pass(ms(200));
        let reply = world.mesh.nodes[node].take(client);
        assert!(reply.starts_with(":DELETED "), "seed {seed}: {reply}");
        for key in keys {
            assert!((0..NODES).all(|node| world.read(node, key).is_none()), "seed {seed} {key}");
        }
    }
    assert!(unknown > 4 && refused > 100, "{unknown} unknown, {refused} refused");
}

/// A client that spreads its requests over the nodes deletes through one and writes through the other, within a
/// millisecond, as its requests follow each other.
#[test]
fn value_set_right_after_a_delete_on_a_busier_node_stays() {
    let mut world = World::new(77);
    let call = |world: &mut World, node: usize, line: &str| {
        let (_, client) = world.clients[node];
        world.mesh.nodes[node].send(client, line);
        world.mesh.pass(Duration::from_micros(20));
        world.mesh.nodes[node].take(client)
    };
    for (busy, other) in [(0, 1), (1, 0), (2, 1)] {
        (0..50).for_each(|_| drop(call(&mut world, busy, "SET x:1\n")));
        assert!(call(&mut world, busy, "DEL k\n").starts_with(":DELETED"));
        assert_eq!(call(&mut world, other, "SET k:7\n"), ":SAT k:7\n");
        world.mesh.pass(ms(200));
        assert!((0..NODES).all(|node| world.read(node, "k") == Some(7)), "DEL at {busy}, SET at {other}");
    }
}

/// The time until an old value is gone elsewhere is that of the machine and its network: no timer of the node is in it,
/// not even while additions of other keys gather.
#[test]
fn old_value_is_gone_elsewhere_without_any_timer() {
    let mut world = World::new(78);
    for (round, gathering) in [0, 1, 100, 1_000].into_iter().enumerate() {
        let (holder, writer) = (round % NODES, (round + 1) % NODES);
        world.call(holder, "SET moved:old\n");
        world.mesh.pass(ms(20));
        // The first is published at once, and the others wait.
        for number in 0..gathering {
            world.call(writer, &format!("SET new-{round}-{number}:1\n"));
        }
        let begin = world.mesh.now.mono;
        assert_eq!(world.call(writer, "SET moved:new\n"), ":SAT moved:new\n");
        let held = |node: usize| world.mesh.nodes[node].node.version_of(world.mesh.now, b"moved");
        assert!(held(holder).is_none_or(|(_, is_held)| !is_held), "{gathering} additions gather");
        assert_eq!(world.mesh.now.mono, begin);
        assert_eq!(world.call(holder, "GET moved\n"), ":GOT moved:new\n");
        world.mesh.pass(ms(20));
    }
}

/// Requests of clients for `k`, and `{k}2`, which has the same home node; `k` stands for a key that was never there.
/// Several requests at once are a transaction.
const ABOUT_KEYS: &[&str] = &[
    "INCR k",
    "INCRBY k 7",
    "DECR k",
    "DECRBY k 2",
    "INCRBYFLOAT k 1.5",
    "APPEND k xy",
    "SETRANGE k 3 abc",
    "GETRANGE k 0 1",
    "STRLEN k",
    "GETSET k new",
    "GETDEL k",
    "GETEX k",
    "GETEX k EX 30",
    "GETEX k PERSIST",
    "SET k new",
    "SET k new NX",
    "SET k new XX",
    "SET k new GET",
    "SET k new NX GET",
    "SET k new KEEPTTL",
    "SET k new XX KEEPTTL",
    "SET k new IFEQ 5",
    "SETNX k new",
    "SETEX k 30 new",
    "MSET k new {k}2 new",
    "MSETNX k new {k}2 new",
    "EXPIRE k 30",
    "EXPIRE k 30 NX",
    "EXPIRE k 30 XX",
    "EXPIRE k 300 GT",
    "EXPIRE k 30 LT",
    "EXPIRE k -1",
    "EXPIRE k never",
    "PEXPIRE k 30000",
    "EXPIREAT k 1999999999",
    "PEXPIREAT k 1999999999000",
    "PERSIST k",
    "TTL k",
    "EXPIRETIME k",
    "TOUCH k",
    "EXISTS k k {k}2",
    "TYPE k",
    "MGET k {k}2 k",
    "DEL k {k}2",
    "UNLINK k",
    "DELIFEQ k 5",
    "DELIFEQ k 6",
    "RENAME k {k}2",
    "RENAMENX k {k}2",
    "COPY k {k}2",
    "COPY k {k}2 REPLACE",
    "INCR k; GET k; APPEND k x; EXPIRE k 30",
    "INCR k; SET {k}2 1; MGET k {k}2",
    "SET k 1; INCR k; DEL k; SET k 7 NX",
    "GET k; SET k new; GET k",
    "GET k; DEL k; GET k",
    "SET k new; DEL k; GET k",
    "DEL k {k}2; SET k new; GETEX k EX 30; TTL k",
    "GET k; SET {k}2 new; MGET k {k}2",
];

/// A client sends requests in RESP; returns the replies.
fn call(mesh: &mut Mesh, (node, client): (usize, ClientId), requests: &str) -> String {
    let mut text = String::new();
    let several = requests.contains(';');
    let framed = ["MULTI", requests, "EXEC"];
    for request in
        framed[usize::from(!several)..if several { 3 } else { 2 }].iter().flat_map(|part| part.split("; "))
    {
        text += &kit::resp(&request.split(' ').collect::<Vec<_>>());
    }
    mesh.nodes[node].send(client, text);
    mesh.pass(ms(20));
    mesh.nodes[node].take(client)
}

fn number(reply: &str) -> i64 {
    reply.trim_matches([':', '\r', '\n']).parse().unwrap()
}

#[test]
fn request_about_a_key_of_another_node_has_the_reply_and_the_effect_that_it_has_there() {
    let mut world = World::new(79);
    let mut alone = Mesh::new();
    alone.add(1, Config::default(), &[addr(9)]);
    let lone = (0, alone.nodes[0].client());
    let clients: Vec<_> = (0..NODES).map(|at| (at, world.mesh.nodes[at].client())).collect();
    let befores = ["", "SET k 5 EX 100", "SET k text", "SET k 5; SET {k}2 old", "SET k large"];
    let large = "0123456789abcdef".repeat(20_000);
    for (round, before) in befores.into_iter().enumerate() {
        for (at, request) in ABOUT_KEYS.iter().enumerate() {
            // In keys that filters do not claim from before.
            let named = |text: &str| {
                let words = text.split(' ').map(|word| match word.trim_end_matches(';') {
                    "k" | "{k}2" => word.replace('k', &format!("k-{round}-{at}")),
                    "large" => large.clone(),
                    _ => word.to_owned(),
                });
                words.collect::<Vec<_>>().join(" ")
            };
            alone.pass(world.mesh.now.mono.since(alone.now.mono));
            world.mesh.pass(alone.now.mono.since(world.mesh.now.mono));
            let mut expected = Vec::new();
            for wanted in
                ["FLUSHALL", before, request, "MGET k {k}2", "PEXPIRETIME k", "PEXPIRETIME {k}2", "DBSIZE"]
            {
                if !wanted.is_empty() {
                    expected.push(call(&mut alone, lone, &named(wanted)));
                }
            }
            assert_eq!(call(&mut world.mesh, clients[1], "FLUSHALL MESH"), "+OK\r\n");
            if !before.is_empty() {
                call(&mut world.mesh, clients[0], &named(before));
            }
            let reply = call(&mut world.mesh, clients[1], &named(request));
            let shown = &expected[expected.len() - 5..];
            if reply.starts_with("-CROSSSLOT") {
                // One of the keys is there, the other nowhere.
                assert!(
                    request.starts_with("MSETNX") && before.matches("SET").count() == 1,
                    "{request} {reply}"
                );
                continue;
            }
            assert_eq!(reply, shown[0], "{request} after '{before}'");
            for client in &clients {
                let read = |mesh: &mut Mesh, what: &str| call(mesh, *client, &named(what));
                let at = format!("at {client:?}, {request} after '{before}'");
                assert_eq!(read(&mut world.mesh, "MGET k {k}2"), shown[1], "{at}");
                for (name, expected) in ["k", "{k}2"].iter().zip(&shown[2..]) {
                    // A peer gets the rest of the TTL, and counts from the answer.
                    let expiry = number(&read(&mut world.mesh, &format!("PEXPIRETIME {name}")));
                    assert!(
                        (number(expected) - expiry).abs() <= 2,
                        "{expiry}, not {expected} of {name} {at}"
                    );
                }
            }
            let counts = clients.iter().map(|client| number(&call(&mut world.mesh, *client, "DBSIZE")));
            assert_eq!(counts.sum::<i64>(), number(&shown[4]), "keys, {request} after '{before}'");
        }
    }
    assert!(world.mesh.nodes.iter().map(|node| node.node.stats().forwarded).sum::<u64>() > 100);
}

/// More keys than a few steps of a resync test.
const MANY: usize = 1_000;

#[test]
fn keys_written_on_both_sides_of_three_splits_have_one_value_though_each_began_during_a_resync() {
    let mut unfinished = 0;
    for seed in 0..5 {
        let mut world = World::new(seed);
        // By key, the last value; none after a DEL.
        let mut last: Vec<Option<String>> = vec![None; MANY];
        let first = world.below(NODES);
        for split in 0..3 {
            let sides = [0, 1, 2].map(|at| (first + split + at) % NODES);
            world.cut_off(sides[0]);
            for side in [sides[0], sides[1], sides[2], sides[0]] {
                let mut lines = String::new();
                for (number, last) in last.iter_mut().enumerate() {
                    if world.rng.one_in(2) {
                        continue;
                    }
                    *last = (!world.rng.one_in(4)).then(|| format!("{split}.{side}.{number}"));
                    lines += &match &*last {
                        Some(value) => format!("SET k{number}:{value}\n"),
                        None => format!("DEL k{number}\n"),
                    };
                }
                world.call(side, &lines);
                world.mesh.pass(ms(200));
            }
            let deliveries = 9 + world.below(8);
            world.heal(if split < 2 { deliveries } else { usize::MAX });
            let is_held_twice = |number| world.holders(&format!("k{number}")).len() > 1;
            unfinished += usize::from(world.mesh.linked(sides[0]) > 0 && (0..MANY).any(is_held_twice));
        }
        world.mesh.pass(ms(3_000));
        for (number, last) in last.iter().enumerate() {
            let key = format!("k{number}");
            let holders = world.holders(&key);
            assert_eq!(
                holders.len(),
                usize::from(last.is_some()),
                "seed {seed} {key}: {holders:?}, {last:?}"
            );
            if let Some(last) = last.as_ref().filter(|_| number % 50 == 0) {
                let node = (holders[0] + 1) % NODES;
                assert_eq!(world.call(node, &format!("GET {key}\n")), format!(":GOT {key}:{last}\n"));
            }
        }
    }
    assert!(unfinished > 5, "of 10 splits {unfinished} began during a resync");
}

#[test]
fn node_that_is_cut_off_while_the_mesh_is_flushed_drops_its_keys_when_it_is_linked_again() {
    let mut world = World::new(90);
    (0..NODES).for_each(|at| _ = world.call(at, &format!("SET old{at}:1\n")));
    world.mesh.pass(ms(20));
    let (_, client) = world.clients[0];
    world.mesh.nodes[0].send(client, "FLUSHALL MESH\n");
    // The frame has left, and does not arrive.
    world.cut_off(2);
    world.mesh.pass(ms(200));
    let reply = world.mesh.nodes[0].take(client);
    let refusal = format!(":ERR {} has not answered yet; it removes its keys when it is linked", addr(2));
    assert!(reply.starts_with(&refusal), "{reply}");
    assert_eq!([0, 1, 2].map(|at| world.holders(&format!("old{at}")).len()), [0, 0, 1]);
    (0..NODES).for_each(|at| _ = world.call(at, &format!("SET new{at}:1\n")));
    world.heal(usize::MAX);
    world.mesh.pass(ms(100));
    assert_eq!([0, 1, 2].map(|at| world.holders(&format!("old{at}")).len()), [0; 3]);
    assert_eq!([0, 1, 2].map(|at| world.holders(&format!("new{at}"))), [[0], [1], [2]]);
}

#[test]
fn deletions_beyond_the_cap_are_made_up_for_and_drop_few_other_keys() {
    let limits = Limits { tombstones_max: 100, ..Limits::default() };
    let mut world = World::with(91, &Config { limits, ..Config::default() });
    let sets = |prefix: &str| (0..MANY).map(|n| format!("SET {prefix}{n}:1\n")).collect::<String>();
    world.call(2, &(sets("deleted") + &sets("kept")));
    world.mesh.pass(ms(100));
    world.cut_off(2);
    let (_, client) = world.clients[0];
    world.mesh.nodes[0].send(client, (0..MANY).map(|n| format!("DEL deleted{n}\n")).collect::<String>());
    world.mesh.pass(ms(500));
    let reply = world.mesh.nodes[0].take(client);
    let errors = reply.lines().filter(|line| line.contains(&format!("may be on {}", addr(2)))).count();
    assert_eq!(errors, MANY, "{}", reply.lines().next().unwrap_or_default());
    world.call(2, "SET deleted7:newer\n");
    world.heal(usize::MAX);
    world.mesh.pass(ms(1_000));
    let held =
        |prefix: &str| (0..MANY).filter(|n| !world.holders(&format!("{prefix}{n}")).is_empty()).count();
    assert_eq!(held("deleted"), 1, "only what is newer than its deletion stays");
    let (kept, dropped) = (held("kept"), MANY - held("kept"));
    let counted = world.mesh.nodes[2].node.stats().discarded_dropped;
    assert!(dropped <= MANY / 100, "{kept} kept");
    assert_eq!(counted, (MANY - 100 - 1 + dropped) as u64);
}
