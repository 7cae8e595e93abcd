//! Links between nodes, with every order of events at the two ends: whole nodes, and a network in which the test
//! selects the next delivery. Nothing is random, and only the test advances time.

mod kit;

use kit::mesh::Mesh;
use kit::{ClientId, Driver, ms};
use olivia::config::Config;
use std::net::SocketAddr;

/// Deliveries of which every order is tried; what comes later comes in the order of the connections.
const DEPTH: usize = 9;

/// Steps after which a world that is still busy will not find rest.
const STEPS_MAX: usize = 10_000;

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Runs a mesh once for each order in which the first things that are on their way can arrive.
fn in_every_order(make: impl Fn() -> Mesh, check: impl Fn(&Mesh)) {
    let mut path: Vec<usize> = Vec::new();
    let mut runs = 0;
    loop {
        let mut world = make();
        let mut widths = Vec::new();
        for step in 0..STEPS_MAX {
            let pending: Vec<_> = world.pending().collect();
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

/// The nodes a and b with these ports, each with those that it dials, have one link whatever the order.
fn linked_once([of_a, of_b]: [&[u16]; 2], [a_dials, b_dials]: [&[u16]; 2]) {
    let addrs = |ports: &[u16]| ports.iter().map(|port| addr(*port)).collect::<Vec<_>>();
    for seeds in [(1, 2), (2, 1)] {
        let make = || {
            let mut world = Mesh::new();
            let a = world.add(seeds.0, Config::default(), &addrs(of_a));
            let b = world.add(seeds.1, Config::default(), &addrs(of_b));
            world.join(b, addr(of_b[0]), &addrs(b_dials));
            world.join(a, addr(of_a[0]), &addrs(a_dials));
            world
        };
        in_every_order(make, |world| {
            assert_eq!((world.linked(0), world.linked(1), world.alive()), (1, 1, 1));
        });
    }
}

#[test]
fn of_two_nodes_that_dial_each_other_both_keep_the_same_link() {
    linked_once([&[5_001], &[5_002]], [&[5_002], &[5_001]]);
}

#[test]
fn node_dialled_at_two_addresses_at_once_is_linked_once() {
    linked_once([&[5_001], &[5_002, 5_003]], [&[5_002, 5_003], &[]]);
}

fn with_peers(active_peers: u32) -> Config {
    let mut config = Config::default();
    config.mesh.active_peers = active_peers;
    config
}

#[test]
fn nodes_that_dial_one_with_a_single_active_peer_at_once_are_all_linked() {
    let make = || {
        let mut world = Mesh::new();
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

/// The nodes that a node has as configured peers, by its number.
type Configured = fn(u16) -> Vec<u16>;

/// The configured peers of each node: the first one; the one before; all.
const CONFIGURED: [Configured; 3] =
    [|at| vec![0; usize::from(at > 0)], |at| at.checked_sub(1).into_iter().collect(), |_| (0..9).collect()];

/// Lets time pass until every node has a link; none may have more than it should.
fn all_linked(world: &mut Mesh, active_peers: usize, what: &str) {
    for waited in 0.. {
        let links: Vec<usize> = (0..world.nodes.len()).map(|at| world.linked(at)).collect();
        assert!(links.iter().all(|links| *links <= active_peers + 1), "{what}: {links:?}");
        if links.iter().all(|links| *links > 0) {
            return;
        }
        assert!(waited < 60_000, "{what}: {links:?}");
        world.pass(ms(1));
    }
}

#[test]
fn no_node_is_left_without_a_link_however_few_each_may_have() {
    for (active_peers, count, configured) in (1..=3)
        .flat_map(|active| (5..=9u16).map(move |count| (active, count)))
        .flat_map(|(active, count)| (0..CONFIGURED.len()).map(move |configured| (active, count, configured)))
    {
        let what = format!("{count} nodes of {active_peers} links, configured {configured}");
        let home = |at: u16| addr(5_000 + at);
        let mut world = Mesh::new();
        for at in 0..count {
            world.add(u64::from(at) + 1, with_peers(active_peers), &[home(at)]);
        }
        for at in 0..count {
            let peers: Vec<SocketAddr> =
                CONFIGURED[configured](at).into_iter().filter(|to| *to < count).map(home).collect();
            world.join(usize::from(at), home(at), &peers);
        }
        all_linked(&mut world, active_peers as usize, &what);
        // The first restarts without any address; then all links break.
        world.restart(0, with_peers(active_peers), 100);
        world.join(0, home(0), &[]);
        all_linked(&mut world, active_peers as usize, &what);
        world.break_wires(|_| true);
        all_linked(&mut world, active_peers as usize, &what);
    }
}

#[test]
fn node_that_claims_the_address_of_another_does_not_cut_its_link() {
    let mut world = Mesh::new();
    let a = world.add(1, Config::default(), &[addr(5_001)]);
    let b = world.add(2, Config::default(), &[addr(5_002)]);
    let impostor = world.add(3, Config::default(), &[]);
    world.join(a, addr(5_001), &[]);
    world.join(b, addr(5_002), &[addr(5_001)]);
    world.reconcile(|_| true);
    world.join(impostor, addr(5_002), &[addr(5_001)]);
    world.reconcile(|_| true);
    assert_eq!((world.linked(a), world.linked(b), world.linked(impostor)), (2, 1, 1));
}

#[test]
fn lookup_on_its_way_survives_the_change_to_the_other_link() {
    let mut world = Mesh::new();
    let homes = [addr(5_001), addr(5_002)];
    for (seed, home) in [(1, homes[0]), (2, homes[1])] {
        world.add(seed, Config::default(), &[home]);
    }
    // The link that the smaller one dials is the one to stay.
    let (peer, holder) = if world.nodes[0].node.id() < world.nodes[1].node.id() { (0, 1) } else { (1, 0) };
    world.join(holder, homes[holder], &[homes[peer]]);
    world.join(peer, homes[peer], &[homes[holder]]);
    let of_holder = world.wires.iter().position(|wire| wire.ends[0].0 == holder).unwrap();
    world.reconcile(|wire| wire == of_holder);
    let (writer, reader) = (world.nodes[holder].client(), world.nodes[peer].client());
    world.nodes[holder].send(writer, "SET k:v\n");
    world.reconcile(|wire| wire == of_holder);
    assert_eq!(world.nodes[peer].call(reader, "GET k\n"), "", "the query is on its way");
    world.reconcile(|wire| wire != of_holder);
    world.reconcile(|_| true);
    assert_eq!(world.alive(), 1);
    assert_eq!(world.nodes[peer].take(reader), ":GOT k:v\n");
}

#[test]
fn second_address_of_a_node_is_dialled_again_after_an_earlier_failure() {
    let mut world = Mesh::new();
    let a = world.add(1, Config::default(), &[addr(5_001)]);
    let b = world.add(2, Config::default(), &[addr(5_002), addr(5_003)]);
    world.join(b, addr(5_002), &[]);
    world.join(a, addr(5_001), &[addr(5_003)]);
    world.reconcile(|_| true);
    assert_eq!(world.linked(a), 1);
    // Both fail for a while, then the first leads to the node again.
    world.homes.clear();
    world.break_wires(|_| true);
    world.pass(ms(1_000));
    world.homes.push((addr(5_002), b));
    world.pass(ms(5_000));
    assert_eq!(world.linked(a), 1);
    // Now it is the first that fails.
    world.homes.clear();
    world.homes.push((addr(5_003), b));
    world.break_wires(|_| true);
    world.pass(ms(2_000));
    assert_eq!(world.linked(a), 1);
}

#[test]
fn own_address_taken_over_by_another_node_is_linked() {
    let mut world = Mesh::new();
    let a = world.add(1, Config::default(), &[addr(5_001), addr(5_003)]);
    world.join(a, addr(5_001), &[addr(5_003)]);
    world.reconcile(|_| true);
    world.pass(ms(5));
    assert!(world.nodes[a].node.is_ready() && world.nodes[a].node.peers(world.now).is_empty());
    world.homes.retain(|(home, _)| *home != addr(5_003));
    let b = world.add(2, Config::default(), &[addr(5_003)]);
    world.join(b, addr(5_003), &[]);
    // At the longest interval of a failing address.
    world.pass(ms(22_000));
    assert_eq!(world.linked(a), 0);
    world.pass(ms(16_000));
    assert_eq!((world.linked(a), world.linked(b)), (1, 1));
}

#[test]
fn node_with_active_peers_links_is_ready() {
    let mut world = Mesh::new();
    let a = world.add(1, with_peers(1), &[addr(5_001)]);
    let b = world.add(2, Config::default(), &[addr(5_002)]);
    world.join(b, addr(5_002), &[]);
    let peers: Vec<SocketAddr> = (5_002..5_040).map(addr).collect();
    world.join(a, addr(5_001), &peers);
    world.reconcile(|_| true);
    world.pass(ms(200));
    assert!(world.linked(a) == 1 && world.nodes[a].node.is_ready());
}

#[test]
fn draining_node_sends_bye_before_the_call_returns() {
    let mut world = Mesh::new();
    let a = world.add(1, Config::default(), &[addr(5_001)]);
    let b = world.add(2, Config::default(), &[addr(5_002)]);
    world.join(b, addr(5_002), &[]);
    world.join(a, addr(5_001), &[addr(5_002)]);
    world.reconcile(|_| true);
    world.nodes[a].node.drain(world.now);
    world.nodes[a].node.audit();
    world.act(a);
    assert_eq!(world.linked(a), 0);
}

#[test]
fn waiters_of_one_large_value_are_answered_in_steps() {
    const CLIENTS: usize = 100;
    const VALUE: usize = 60_000;
    let mut world = Mesh::new();
    let a = world.add(1, Config::default(), &[addr(5_001)]);
    let b = world.add(2, Config::default(), &[addr(5_002)]);
    world.join(b, addr(5_002), &[]);
    world.join(a, addr(5_001), &[addr(5_002)]);
    world.reconcile(|_| true);
    let writer = world.nodes[b].client();
    world.nodes[b].send(writer, format!("SET k:{}\n", "x".repeat(VALUE)));
    world.reconcile(|_| true);
    let readers: Vec<ClientId> = (0..CLIENTS).map(|_| world.nodes[a].client()).collect();
    readers.iter().for_each(|reader| world.nodes[a].send(*reader, "GET k\n"));
    // The query to the one, then the answer to the other.
    world.deliver((0, 1));
    let [(_, link), (_, far)] = world.wires[0].ends;
    let answer = world.nodes[b].take_bytes(far);
    world.nodes[a].deliver(link, &answer);
    let waiting: usize = readers.iter().map(|reader| world.nodes[a].waiting(*reader)).sum();
    assert!((VALUE..1_000_000).contains(&waiting), "{waiting} bytes of replies in one call");
    world.act(a);
    assert!(readers.iter().all(|reader| world.nodes[a].take_bytes(*reader).len() == VALUE + 8));
}

#[test]
fn client_that_requests_the_filter_again_and_again_is_paused() {
    let mut driver = Driver::new(Config::default());
    let client = driver.client();
    let was_stopped = (0..100).any(|_| {
        driver.deliver(client, "REQUEST bloomfilter\n".repeat(100).as_bytes());
        driver.is_stopped(client)
    });
    assert!(was_stopped);
}

#[test]
fn cut_of_an_hour_with_a_dead_seed_heals() {
    let mut world = Mesh::new();
    let seed = addr(5_001);
    for at in 0..4u16 {
        let listen = addr(5_001 + at);
        let node = world.add(u64::from(at) + 1, Config::default(), &[listen]);
        world.join(node, listen, &[seed][..usize::from(at > 0)]);
        world.pass(ms(1_000));
    }
    assert!((0..4).all(|at| world.linked(at) == 3));
    // The seed is gone for good, and nothing can be dialled while the last node is cut off.
    let homes = std::mem::take(&mut world.homes);
    world.restart(0, Config::default(), 9);
    world.break_wires(|wire| wire.ends.iter().any(|(at, _)| *at == 3));
    world.pass(ms(3_600_000));
    assert_eq!([1, 2, 3].map(|at| world.linked(at)), [1, 1, 0]);
    world.homes = homes.into_iter().filter(|(home, _)| *home != seed).collect();
    world.pass(ms(40_000));
    assert_eq!([1, 2, 3].map(|at| world.linked(at)), [2, 2, 2]);
}

#[test]
fn copies_of_a_node_with_its_id_are_linked_after_one_has_drawn_another() {
    let mut world = Mesh::new();
    for at in 0..4u16 {
        // Three copies of one virtual machine: the same seed gives the same id.
        let node = world.add(if at == 0 { 1 } else { 2 }, Config::default(), &[addr(5_001 + at)]);
        world.join(node, addr(5_001 + at), &[addr(5_001)][..usize::from(at > 0)]);
        world.pass(ms(3_000));
    }
    world.pass(ms(60_000));
    assert_eq!([0, 1, 2, 3].map(|at| world.linked(at)), [3; 4]);
}
