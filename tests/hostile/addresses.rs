//! Addresses learned from a peer: each is verified by dialling it, few are dialled at a time, and their number
//! is bounded.

use crate::kit::Driver;
use crate::kit::peer::{Face, LISTEN, Link, Received, World, heartbeat, linked, ms, secretive};
use olivia::config::Config;
use olivia::limits::MeshLimits;
use olivia::wire::frame::{Address, put_peers};
use std::net::{Ipv4Addr, SocketAddr};

/// The most learned addresses that are dialled at once.
const LEARNED_DIALS_MAX: usize = 8;

fn send_addresses_of(world: &mut World, link: &Link, addresses: &[&str]) {
    let list: Vec<Address> =
        addresses.iter().map(|addr| Address { id: [0; 16], addr: addr.parse().unwrap() }).collect();
    send_addresses(world, link, list);
}

fn send_addresses(world: &mut World, link: &Link, list: Vec<Address>) {
    let mut bytes = Vec::new();
    put_peers(&mut bytes, 0, list.into_iter());
    world.driver.send(link.conn, bytes);
}

/// Different addresses of nodes without a name.
fn addresses(range: std::ops::Range<u32>) -> Vec<Address> {
    let at = |n| SocketAddr::from((Ipv4Addr::from(0x0A00_0000 + n), 5_454));
    range.map(|n| Address { id: [0; 16], addr: at(n) }).collect()
}

/// Addresses that the node has dialled since the last call.
fn dialled(driver: &mut Driver) -> Vec<String> {
    std::iter::from_fn(|| driver.next_dial()).map(|(_, addr)| addr.to_string()).collect()
}

#[test]
fn loopback_learned_from_another_machine_is_not_dialled() {
    let mut world = World::new(secretive());
    let link = world.linked(&Face::elsewhere(1));
    send_addresses_of(
        &mut world,
        &link,
        &["127.0.0.1:22", "[::1]:22", "127.9.9.9:1", "[::ffff:127.0.0.1]:22", "192.0.2.50:5454"],
    );
    world.driver.pass(ms(100));
    assert_eq!(dialled(&mut world.driver), ["192.0.2.50:5454"]);
    assert_eq!(world.driver.node.stats().addresses_refused, 4);
    // An id of zeroes names no node.
    let views = world.driver.node.peers(world.driver.now);
    let reply = views.iter().find(|view| view.addr.to_string() == "192.0.2.50:5454").unwrap();
    assert_eq!(reply.id, None);
}

#[test]
fn listing_of_thousands_of_addresses_is_truncated_and_marked() {
    let mut world = World::new(secretive());
    world.driver.watch = None;
    let links = [1, 2].map(|number| world.linked(&Face::elsewhere(number)));
    send_addresses(&mut world, &links[0], addresses(0..1_000));
    send_addresses(&mut world, &links[1], addresses(1_000..2_000));
    let mesh = world.call("MESH\n");
    assert_eq!(mesh.matches(" backup").count() + mesh.matches(" being dialled").count(), 1_024);
    assert!(mesh.ends_with(",\"and 976 more\"\n"), "{mesh}");
    assert_eq!(world.call("REQUEST peers\n").matches(":5454").count(), 2 + 1_024);
    assert_eq!(world.stat("peers_backup"), 2_000);
}

#[test]
fn loopback_listen_address_offered_from_another_machine_is_not_recorded() {
    let mut world = World::new(secretive());
    let impostor = Face { listen: "127.0.0.1:22".to_owned(), ..Face::elsewhere(1) };
    let link = world.linked(&impostor);
    send_addresses_of(&mut world, &link, &["127.0.0.1:23"]);
    world.driver.pass(ms(100));
    world.driver.lose(link.conn);
    world.driver.pass(ms(200));
    assert_eq!(dialled(&mut world.driver), ["192.0.2.11:22"], "where it was seen is where it is");
    assert_eq!(world.driver.node.stats().addresses_refused, 1);
}

#[test]
fn without_a_secret_no_learned_remote_address_is_dialled() {
    let (mut world, _, link) = linked();
    send_addresses_of(&mut world, &link, &["192.0.2.50:5454", "127.0.0.1:7000"]);
    let far = Face { listen: "192.0.2.51:5454".to_owned(), ..Face::new(2) };
    let far = world.linked(&far);
    world.driver.lose(far.conn);
    world.driver.pass(ms(200));
    assert_eq!(dialled(&mut world.driver), ["127.0.0.1:7000"]);
    assert_eq!(world.driver.node.stats().addresses_refused, 2);
}

#[test]
fn undialable_and_own_addresses_are_not_dialled() {
    let mut world = World::new(Config::default());
    world.join(&[]);
    let link = world.linked(&Face::new(1));
    send_addresses_of(&mut world, &link, &["127.0.0.1:0", "0.0.0.0:5454", "[::]:5454", LISTEN]);
    let own = world.driver.node.id().0;
    send_addresses(&mut world, &link, vec![Address { id: own, addr: "127.0.0.1:7001".parse().unwrap() }]);
    world.driver.pass(ms(1_000));
    assert_eq!(dialled(&mut world.driver), [""; 0]);
    assert_eq!(world.stat("peers_backup"), 0);
}

#[test]
fn addresses_beyond_those_taken_from_a_frame_are_counted() {
    let mut world = World::new(secretive());
    let link = world.linked(&Face::elsewhere(1));
    send_addresses(&mut world, &link, addresses(0..1_820));
    assert_eq!(world.driver.node.stats().addresses_refused, 1_820 - 1_024);
    assert_eq!(world.stat("peers_backup"), 1_024);
    assert_eq!(dialled(&mut world.driver).len(), LEARNED_DIALS_MAX);
    // The same again is nothing new.
    send_addresses(&mut world, &link, addresses(0..1_024));
    assert_eq!(world.stat("peers_backup"), 1_024);
    assert_eq!(dialled(&mut world.driver).len(), 0);
    assert_eq!(world.stat("addresses_dropped"), 0);
}

#[test]
fn flood_of_addresses_is_bounded_by_the_address_book_and_read_in_steps() {
    let mesh = MeshLimits { known_peers_max: 256, ..MeshLimits::default() };
    let mut world = World::new(Config { mesh, ..secretive() });
    let link = world.linked(&Face::elsewhere(1));
    world.driver.watch = None;
    let mut reply = 0;
    while reply < 200_000 {
        let mut bytes = Vec::new();
        for _ in 0..10 {
            put_peers(&mut bytes, 0, addresses(reply..reply + 1_000).into_iter());
            reply += 1_000;
        }
        world.driver.deliver(link.conn, &bytes);
        // The first of ten frames has used the call's budget: the others wait, and clients are served.
        assert!(world.driver.node.has_work(world.driver.now));
        world.check_at_once();
        world.driver.run();
        if reply % 50_000 == 0 {
            for (dial, _) in std::iter::from_fn(|| world.driver.next_dial()).collect::<Vec<_>>() {
                world.driver.lose(dial);
            }
            world.driver.forget_closed();
            world.driver.pass(ms(100));
            world.driver.node.audit();
        }
    }
    assert!(world.stat("peers_backup") <= 256);
    assert!(world.stat("addresses_dropped") > 150_000);
    assert!(world.driver.node.conns() <= 2 + LEARNED_DIALS_MAX);
}

#[test]
fn address_that_failed_is_dialled_again_when_the_link_of_its_node_has_gone() {
    let mut world = World::new(secretive());
    let teller = world.linked(&Face::elsewhere(1));
    // Told of a node by an address at which it cannot be met; then it comes in by itself from another.
    let node = Face::elsewhere(2);
    let reply = Address { id: node.node, addr: "198.51.100.1:5454".parse().unwrap() };
    send_addresses(&mut world, &teller, vec![reply]);
    let (dial, _) = world.next_dial();
    world.driver.lose(dial);
    let link = world.dial(&node);
    world.driver.pass(ms(1_000));
    assert_eq!(dialled(&mut world.driver), [""; 0]);
    world.driver.lose(link.conn);
    world.driver.pass(ms(1_000));
    let again = dialled(&mut world.driver);
    assert!(again.contains(&reply.addr.to_string()), "{again:?}");
}

/// Lets seconds pass in which peers send heartbeats and no dial is answered. Returns the dialled addresses.
fn pass_unreachable(world: &mut World, links: &[&Link], seconds: u32) -> Vec<String> {
    let mut dialled = Vec::new();
    for _ in 0..seconds {
        world.driver.pass(ms(1_000));
        links.iter().for_each(|link| world.send(link, &[heartbeat(1)]));
        while let Some((dial, addr)) = world.driver.next_dial() {
            dialled.push(addr.to_string());
            world.driver.lose(dial);
        }
    }
    dialled
}

#[test]
fn address_that_a_peer_goes_on_listing_is_dialled_however_long_the_path_is_cut() {
    let mut world = World::new(secretive());
    let teller = world.linked(&Face::elsewhere(1));
    let listed = Face::elsewhere(2);
    for _ in 0..20 {
        send_addresses_of(&mut world, &teller, &[&listed.listen]);
        pass_unreachable(&mut world, &[&teller], 120);
        assert!(world.call("STATS\n").contains("mesh_complete:no"));
    }
    assert!(pass_unreachable(&mut world, &[&teller], 40).contains(&listed.listen));
    // Nobody lists it any more.
    pass_unreachable(&mut world, &[&teller], 640);
    assert_eq!(pass_unreachable(&mut world, &[&teller], 40), [""; 0]);
    assert_eq!(world.stat("peers_backup"), 0);
}

#[test]
fn peers_get_the_linked_addresses_again_without_a_change() {
    let mut world = World::new(secretive());
    let faces = [Face::elsewhere(1), Face::elsewhere(2)];
    let mut first = world.linked(&faces[0]);
    let second = world.linked(&faces[1]);
    pass_unreachable(&mut world, &[&first, &second], 10);
    world.frames(&mut first);
    let other = Address { id: faces[1].node, addr: faces[1].listen.parse().unwrap() };
    for _ in 0..3 {
        pass_unreachable(&mut world, &[&first, &second], 121);
        let received = world.frames(&mut first);
        let reply: Vec<_> =
            received.into_iter().filter(|received| matches!(received, Received::Peers(_))).collect();
        assert_eq!(reply, [Received::Peers(vec![other])]);
    }
}

/// Lets the node dial the addresses of one configured entry: those that listen answer, the others refuse.
fn join_by_name(world: &mut World, addrs: &[&str], there: &Face) -> Link {
    let addrs: Vec<SocketAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
    world.driver.node.join(world.driver.now, LISTEN.parse().unwrap(), &[addrs]);
    world.driver.run();
    let dials: Vec<_> = std::iter::from_fn(|| world.driver.next_dial()).collect();
    for (dial, _) in dials.iter().filter(|(_, addr)| addr.to_string() != there.listen) {
        world.driver.lose(*dial);
    }
    world.dial(there)
}

#[test]
fn name_with_an_address_that_nobody_listens_at_leaves_the_mesh_complete() {
    let mut world = World::new(Config::default());
    let there = Face::new(1);
    let here = there.listen.replace("127.0.0.1", "[::1]");
    let link = join_by_name(&mut world, &[&here, &there.listen], &there);
    let dialled = pass_unreachable(&mut world, &[&link], 10);
    assert!(dialled.contains(&here), "it may listen there later: {dialled:?}");
    assert!(
        world.call("STATS\n").contains("peers_backup:0,")
            && world.call("STATS\n").contains("mesh_complete:yes")
    );
    assert!(!world.call("MESH\n").contains("unreachable"));
    world.driver.lose(link.conn);
    assert_eq!(world.stat("peers_backup"), 2);
}

#[test]
fn own_name_with_an_address_that_the_node_does_not_listen_at_leaves_the_mesh_complete() {
    let mut world = World::new(Config::default());
    let there = Face::new(1);
    let link = join_by_name(&mut world, &[LISTEN, "[::1]:5454"], &there);
    pass_unreachable(&mut world, &[&link], 10);
    assert_eq!(world.stat("peers_backup"), 0);
}

#[test]
fn name_of_several_nodes_leaves_the_mesh_incomplete_while_one_is_missing() {
    let mut world = World::new(secretive());
    let faces = [Face::elsewhere(1), Face::elsewhere(2)];
    let link = join_by_name(&mut world, &[&faces[0].listen, &faces[1].listen], &faces[0]);
    // The other node may be there, since the first is linked to it.
    send_addresses_of(&mut world, &link, &[&faces[1].listen]);
    pass_unreachable(&mut world, &[&link], 10);
    assert_eq!(world.stat("peers_backup"), 1);
    let other = world.dial(&faces[1]);
    pass_unreachable(&mut world, &[&link, &other], 10);
    assert_eq!(world.stat("peers_backup"), 0);
    world.driver.lose(other.conn);
    assert_eq!(world.stat("peers_backup"), 1);
}

#[test]
fn thousands_of_addresses_that_lead_nowhere_do_not_keep_a_lost_peer_away() {
    let mut world = World::new(secretive());
    let faces = [Face::elsewhere(1), Face::elsewhere(2)];
    world.join(&[&faces[0].listen]);
    let lost = world.accept(&faces[0]);
    let teller = world.linked(&faces[1]);
    send_addresses(&mut world, &teller, addresses(0..1_000));
    world.driver.watch = None;
    world.driver.pass(ms(500));
    dialled(&mut world.driver);
    world.driver.lose(lost.conn);
    world.driver.pass(ms(200));
    assert_eq!(dialled(&mut world.driver), [faces[0].listen.as_str()]);
    world.driver.node.audit();
}

#[test]
fn lost_link_does_not_start_thousands_of_dials() {
    // Of unknown nodes, and those that a peer advertises as its own.
    for name in [[0; 16], Face::elsewhere(1).node] {
        let mesh = MeshLimits { active_peers: 1, ..MeshLimits::default() };
        let mut world = World::new(Config { mesh, ..secretive() });
        let link = world.linked(&Face::elsewhere(1));
        for thousand in 0..3 {
            let reply = addresses(thousand * 1_000..(thousand + 1) * 1_000);
            send_addresses(
                &mut world,
                &link,
                reply.into_iter().map(|reply| Address { id: name, ..reply }).collect(),
            );
        }
        world.driver.watch = None;
        world.driver.pass(ms(500));
        assert_eq!(world.driver.node.peers(world.driver.now).len(), if name == [0; 16] { 1_025 } else { 1 });
        let before = world.driver.ticks;
        world.driver.lose(link.conn);
        world.driver.pass(ms(1_000));
        let ticks = world.driver.ticks - before;
        assert!(ticks < 50, "{ticks} steps of work in a second");
        assert!(world.driver.node.conns() <= 1 + LEARNED_DIALS_MAX);
        world.driver.node.audit();
    }
}

#[test]
fn every_address_waiting_for_a_dial_slot_is_dialled_at_a_bounded_rate() {
    let mut world = World::new(secretive());
    let link = world.linked(&Face::elsewhere(1));
    send_addresses(&mut world, &link, addresses(0..300));
    world.driver.watch = None;
    let mut tried = std::collections::BTreeSet::new();
    for round in 0..200 {
        for (dial, addr) in std::iter::from_fn(|| world.driver.next_dial()).collect::<Vec<_>>() {
            tried.insert(addr);
            world.driver.lose(dial);
        }
        // As many at once as there may be links, and ten per second; failures are dialled again beside them.
        assert!(tried.len() <= 128 + round + LEARNED_DIALS_MAX, "{} in {round}00 ms", tried.len());
        world.send(&link, &[heartbeat(1)]);
        world.driver.pass(ms(100));
    }
    let failed = world.closed(olivia::node::CloseReason::Lost);
    assert!(failed <= 128 + 200 + LEARNED_DIALS_MAX as u64, "{failed} dials in 20 s");
    for _ in 0..30 {
        for (dial, addr) in std::iter::from_fn(|| world.driver.next_dial()).collect::<Vec<_>>() {
            tried.insert(addr);
            world.driver.lose(dial);
        }
        world.send(&link, &[heartbeat(1)]);
        world.driver.pass(ms(1_000));
    }
    assert_eq!(tried.len(), 300);
    world.driver.node.audit();
}

#[test]
fn one_host_lists_a_quarter_of_the_known_addresses_at_most() {
    let mesh = MeshLimits { known_peers_max: 400, ..MeshLimits::default() };
    let mut world = World::new(Config { mesh, ..secretive() });
    let [first, second] = [1, 2].map(|number| world.linked(&Face::elsewhere(number)));
    send_addresses(&mut world, &first, addresses(0..1_000));
    assert_eq!((world.stat("peers_backup"), world.stat("addresses_dropped")), (100, 900));
    send_addresses(&mut world, &second, addresses(2_000..2_010));
    assert_eq!(world.stat("peers_backup"), 110);
    // A node that was met is known by itself, and leaves room for another.
    let (conn, node) = world.picked_up();
    let met = Face { listen: node.seen.clone(), seen: node.seen.clone(), ..Face::elsewhere(3) };
    world.driver.send(conn, met.counter_line(&node));
    world.driver.send(conn, "h2:FULFILLED welcome\n");
    assert!(world.is_linked(&met));
    send_addresses(&mut world, &first, addresses(3_000..3_010));
    assert_eq!(world.stat("peers_backup"), 110);
}
