//! Identities: too many nodes, one node twice, one node after another at an address, a node id of another node.

use crate::kit::peer::{Face, Link, Received, World, head, heartbeat, ms, secretive};
use olivia::config::Config;
use olivia::limits::{Limits, MeshLimits};
use olivia::node::{CloseReason, Node, NodeId};
use olivia::wire::frame::{Address, Body, SAME_ID_REASON, put_peers};
use olivia::wire::handshake::Links;
use std::collections::BTreeSet;

fn with_mesh(mesh: MeshLimits) -> World {
    World::new(Config { mesh, ..secretive() })
}

fn few() -> MeshLimits {
    MeshLimits { active_peers: 2, known_peers_max: 8, ..MeshLimits::default() }
}

#[test]
fn node_beyond_active_peers_is_refused_and_linked_after_one_left() {
    let mut world = with_mesh(few());
    let faces: Vec<Face> = (1..=3).map(Face::elsewhere).collect();
    let first = world.dial(&faces[0]);
    world.dial(&faces[1]);
    let (conn, reply) = world.proven(&faces[2]);
    // The node names others that may have room, to a peer with a valid proof.
    let mut hints: Vec<&str> =
        reply.trim_end().strip_prefix("h2:FULFILLED full,").unwrap().split(',').collect();
    hints.sort_unstable();
    assert_eq!(hints, [faces[0].listen.as_str(), faces[1].listen.as_str()]);
    assert!(world.driver.has_ended(conn));
    assert_eq!(world.driver.node.stats().handshakes_refused, 1);
    // Who is linked already may come again.
    world.dial(&faces[1]);
    world.driver.lose(first.conn);
    world.dial(&faces[2]);
    assert!(world.is_linked(&faces[1]) && world.is_linked(&faces[2]));
}

#[test]
fn simultaneous_offers_do_not_exceed_active_peers() {
    let mut world = with_mesh(few());
    let faces: Vec<Face> = (1..=20).map(Face::elsewhere).collect();
    let offered: Vec<_> = faces.iter().map(|face| world.offered(face)).collect();
    for (face, (conn, node)) in faces.iter().zip(&offered) {
        world.driver.send(*conn, face.proof_line(node));
    }
    assert_eq!(world.stat("peers_linked"), 2);
    assert_eq!(world.driver.node.stats().handshakes_refused, 18);
    assert!(world.driver.take(offered[19].0).contains(":FULFILLED full,"));
}

#[test]
fn node_without_a_link_gets_one_above_active_peers_and_then_that_of_a_peer_with_others() {
    let mut world = with_mesh(few());
    let face = |number, links| Face { links, ..Face::elsewhere(number) };
    let mut old = world.dial(&face(1, Links::Unstated));
    world.dial(&face(2, Links::None));
    assert!(world.offered(&face(3, Links::Unstated)).1.links == Links::Full);
    world.dial(&face(4, Links::None));
    for face in [face(3, Links::Unstated), face(3, Links::Full), face(5, Links::None)] {
        assert!(world.proven(&face).1.starts_with("h2:FULFILLED full,"));
    }
    let mut list = Vec::new();
    let other = Address { id: [9; 16], addr: face(9, Links::None).listen.parse().unwrap() };
    put_peers(&mut list, 0, std::iter::once(other));
    world.driver.send(old.conn, list);
    world.dial(&face(5, Links::None));
    assert_eq!(world.bye_reason(&mut old), "a node without a link needs this one");
    assert_eq!(world.stat("peers_linked"), 3);
    assert!(world.proven(&face(1, Links::None)).1.starts_with("h2:FULFILLED full,"));
}

#[test]
fn full_node_that_dials_is_linked_only_to_a_node_without_a_link() {
    let mut world = with_mesh(few());
    let full: Vec<Face> =
        (1..=2).map(|number| Face { links: Links::Full, ..Face::elsewhere(number) }).collect();
    // Both are answered that there is no link, and only the first proof finds it so.
    let offered: Vec<_> = full.iter().map(|face| world.offered(face)).collect();
    assert!(offered.iter().all(|(_, node)| node.links == Links::None));
    for (face, (conn, node)) in full.iter().zip(&offered) {
        world.driver.send(*conn, face.proof_line(node));
    }
    assert!(world.is_linked(&full[0]) && !world.is_linked(&full[1]));
    assert_eq!(world.driver.take(offered[1].0), format!("h2:FULFILLED full,{}\n", full[0].listen));
}

#[test]
fn node_states_to_one_dialled_node_at_a_time_that_it_has_no_link() {
    let mut world = with_mesh(few());
    let faces: Vec<Face> = (1..=2).map(Face::elsewhere).collect();
    world.join(&[&faces[0].listen, &faces[1].listen]);
    let picked = [world.picked_up(), world.picked_up()];
    assert_eq!(picked.map(|(_, node)| node.links), [Links::None, Links::Unstated]);
}

#[test]
fn refused_node_dials_the_addresses_that_it_was_sent() {
    let mut world = with_mesh(few());
    let faces: Vec<Face> = (1..=2).map(Face::elsewhere).collect();
    world.join(&[&faces[0].listen]);
    let (conn, node) = world.picked_up();
    world.driver.send(conn, faces[0].counter_line(&node));
    world.driver.send(conn, format!("h2:FULFILLED full,{}\n", faces[1].listen));
    assert!(world.driver.is_closed(conn));
    let (_, node) = world.picked_up();
    assert_eq!(node.seen, faces[1].listen);
}

#[test]
fn node_with_active_peers_links_dials_rarely_and_links_a_node_without_links() {
    let mut world = with_mesh(few());
    let faces: Vec<Face> = (1..=3).map(Face::elsewhere).collect();
    let links = [world.dial(&faces[0]), world.dial(&faces[1])];
    world.join(&[&faces[2].listen]);
    for stated in [Links::Unstated, Links::None] {
        let mut waited = 0;
        let (conn, _) = loop {
            if let Some(dial) = world.driver.next_dial() {
                break dial;
            }
            links.iter().for_each(|link| world.send(link, &[heartbeat(1)]));
            world.driver.pass(ms(500));
            waited += 500;
        };
        assert!((20_000..=76_000).contains(&waited), "{waited} ms");
        world.driver.pick_up(conn);
        let node = world.node_at(conn, &faces[2].listen);
        assert_eq!(node.links, Links::Full);
        world.driver.send(conn, Face { links: stated, ..faces[2].clone() }.counter_line(&node));
        assert_eq!(world.driver.is_closed(conn), stated == Links::Unstated);
        if stated == Links::None {
            world.driver.send(conn, "h2:FULFILLED welcome\n");
        }
    }
    assert_eq!(world.stat("peers_linked"), 3);
}

#[test]
fn dials_that_all_get_through_link_no_more_than_active_peers() {
    let mut world = with_mesh(few());
    let faces: Vec<Face> = (1..=5).map(Face::elsewhere).collect();
    let listens: Vec<&str> = faces.iter().map(|face| face.listen.as_str()).collect();
    world.join(&listens);
    let picked: Vec<_> = faces.iter().map(|_| world.picked_up()).collect();
    for (conn, node) in &picked {
        let face = faces.iter().find(|face| face.listen == node.seen).unwrap();
        world.driver.send(*conn, face.counter_line(node));
    }
    for (conn, _) in &picked {
        world.driver.send(*conn, "h2:FULFILLED welcome\n");
    }
    assert_eq!((world.stat("peers_linked"), world.stat("peers_backup")), (2, 3));
    assert_eq!(world.closed(CloseReason::Refused), 3);
}

#[test]
fn ten_thousand_identities_leave_bounded_tables() {
    let mesh = MeshLimits { active_peers: 4, known_peers_max: 4, ..MeshLimits::default() };
    let limits = Limits { peer_filters_max: 1 << 20, ..Limits::default() };
    let mut world = World::new(Config { mesh, limits, ..Config::default() });
    for number in 0..10_000 {
        // The audit is slow, and each hundredth node shows as much.
        world.driver.watch = (number % 100 == 0).then_some(Node::audit);
        let face = Face { listen: format!("127.1.{}.{}:7", number >> 8, number & 255), ..Face::new(number) };
        let mut link = world.dial(&face);
        world.publish(&mut link, head(1, 0), 2, &[0; 8 << 2]);
        world.driver.lose(link.conn);
        while let Some((dial, _)) = world.driver.next_dial() {
            world.driver.lose(dial);
        }
        world.driver.forget_closed();
    }
    world.driver.watch = Some(Node::audit);
    world.check();
    assert_eq!(world.driver.node.peers(world.driver.now).len(), 4, "the table is full and no fuller");
    assert!(world.stat("peer_filters_bytes") <= 8 * 256);
    assert_eq!(world.stat("peers_linked"), 0);
    let ticks = world.driver.ticks;
    world.driver.pass(ms(31_000));
    assert!(world.driver.ticks - ticks < 10_000, "timers of nodes that are gone");
    assert_eq!(world.stat("peer_filters_bytes"), 0);
}

/// Whether exactly this one of two links is open, and the other got BYE with the reason.
fn survives(world: &mut World, alive: &mut Link, gone: &mut Link, why: &str) {
    assert_eq!(world.bye_reason(gone), why);
    assert!(!world.driver.has_ended(alive.conn));
    world.frames(alive);
    world.send(alive, &[heartbeat(77)]);
    let answer = world.frames(alive);
    assert!(
        answer
            .iter()
            .any(|received| matches!(received, Received::Heartbeat { request: 77, is_answer: true, .. }))
    );
    assert_eq!(world.stat("peers_linked"), 1);
    world.driver.shut(gone.conn);
    assert_eq!(world.closed(CloseReason::Duplicate), 1);
    assert!(!world.driver.has_ended(alive.conn));
}

/// A face whose identity is below, or above, whatever the node has drawn.
fn face_with(first_byte: u8) -> Face {
    Face { node: [first_byte; 16], ..Face::elsewhere(1) }
}

#[test]
fn newer_link_from_the_same_dialler_replaces_the_older() {
    for byte in [0, 0xFF] {
        let mut world = World::new(secretive());
        let mut old = world.dial(&face_with(byte));
        let mut new = world.dial(&face_with(byte));
        survives(&mut world, &mut new, &mut old, "replaced by a newer link");
    }
}

/// The node and a peer have dialled each other; the link of the peer is there first, then the node's own.
fn theirs_before_ours(face: &Face) -> (World, Link, Link) {
    let mut world = World::new(secretive());
    world.join(&[&face.listen]);
    let (conn, node) = world.picked_up();
    let theirs = world.dial(face);
    world.driver.send(conn, face.counter_line(&node));
    world.driver.take_bytes(conn);
    world.driver.send(conn, "h2:FULFILLED welcome\n");
    (world, Link::new(conn, Vec::new()), theirs)
}

#[test]
fn link_by_the_wrong_dialler_gives_way_to_the_right_one() {
    // The node's identity is larger: the link that the peer dials stays.
    let face = face_with(0);
    let mut world = World::new(secretive());
    world.join(&[&face.listen]);
    let mut ours = world.accept(&face);
    let mut theirs = world.dial(&face);
    survives(&mut world, &mut theirs, &mut ours, "replaced by a newer link");
    // It is smaller: the link that it has dialled itself stays.
    let (mut world, mut ours, mut theirs) = theirs_before_ours(&face_with(0xFF));
    survives(&mut world, &mut ours, &mut theirs, "replaced by a newer link");
}

#[test]
fn link_by_the_right_dialler_stays_when_the_wrong_one_comes() {
    let face = face_with(0xFF);
    let mut world = World::new(secretive());
    world.join(&[&face.listen]);
    let mut ours = world.accept(&face);
    let mut theirs = world.dial(&face);
    survives(&mut world, &mut ours, &mut theirs, "linked already");
    let (mut world, mut ours, mut theirs) = theirs_before_ours(&face_with(0));
    survives(&mut world, &mut theirs, &mut ours, "linked already");
}

#[test]
fn node_id_of_a_linked_peer_is_refused_from_another_address() {
    let mut world = World::new(secretive());
    let face = face_with(0x55);
    let mut link = world.known(&face);
    world.driver.pass(ms(1_000));
    world.send(&link, &[heartbeat(1)]);
    let thief = Face { listen: "192.0.2.200:1".to_owned(), seen: "192.0.2.200:2".to_owned(), ..face.clone() };
    let mut second = world.dial(&thief);
    let why = "another node is linked under your node id; draw another";
    survives(&mut world, &mut link, &mut second, why);
    // Nor from another host that states the same address.
    let thief = Face { listen: face.listen.clone(), ..thief };
    let mut third = world.dial(&thief);
    assert_eq!(world.bye_reason(&mut third), "linked already, from another host");
    assert!(!world.driver.has_ended(link.conn) && world.is_linked(&face));
    // The link is tested. Once it is lost, the id is free.
    world.driver.lose(link.conn);
    world.dial(&thief);
    assert_eq!(world.stat("peers_linked"), 1);
}

#[test]
fn peers_that_say_that_the_node_id_is_taken_make_it_draw_a_few_others() {
    let mut world = World::new(secretive());
    let claim = |world: &mut World| {
        let liar = world.dial(&Face::elsewhere(2));
        world.send(&liar, &[(0, Body::Bye(SAME_ID_REASON))]);
        world.driver.lose(liar.conn);
        world.driver.node.id()
    };
    let ids: BTreeSet<NodeId> = (0..20).map(|_| claim(&mut world)).collect();
    assert_eq!(ids.len(), 4);
    let honest = Face::elsewhere(1);
    world.dial(&honest);
    claim(&mut world);
    assert!(world.is_linked(&honest));
}

#[test]
fn one_host_with_many_identities_gets_half_of_the_links() {
    let mesh = MeshLimits { active_peers: 8, ..MeshLimits::default() };
    let mut world = World::new(Config { mesh, ..secretive() });
    let host = Face::elsewhere(1).seen;
    for number in 1..=20 {
        let face = Face { seen: host.clone(), ..Face::elsewhere(number) };
        let (conn, node) = world.offered(&face);
        world.driver.send(conn, face.proof_line(&node));
        assert_eq!(world.is_linked(&face), number <= 4, "{number}");
        if number > 4 {
            let reply = world.driver.take(conn);
            assert!(reply.contains("half of the links of this node are to your address"), "{reply}");
        }
    }
    // One that it has is not one more, and others are linked.
    world.dial(&Face { seen: host, ..Face::elsewhere(1) });
    (21..=24).for_each(|number| _ = world.dial(&Face::elsewhere(number)));
    assert_eq!(world.stat("peers_linked"), 8);
}

#[test]
fn node_with_the_id_of_another_draws_a_new_one_and_links_again() {
    let mut world = World::new(secretive());
    let face = face_with(0x55);
    let link = world.known(&face);
    let before = world.driver.node.id();
    world.send(&link, &[(0, Body::Bye(SAME_ID_REASON))]);
    let after = world.driver.node.id();
    assert_ne!(before, after);
    assert!(world.driver.has_ended(link.conn) && !world.is_linked(&face));
    world.check();
    let (conn, node) = world.offered(&face);
    assert_eq!(node.id(), after);
    world.driver.send(conn, face.proof_line(&node));
    assert!(world.is_linked(&face));
}

#[test]
fn copy_of_a_node_that_answers_with_its_id_and_a_proof_makes_it_draw_another() {
    let (mut world, face) = World::with_secret();
    world.join(&[&face.listen]);
    let (conn, node) = world.picked_up();
    let copy = Face { node: node.node, ..face.clone() };
    world.driver.send(conn, copy.counter_line(&node));
    assert_ne!(world.driver.node.id().0, node.node);
    assert!(world.driver.is_closed(conn));
    world.check();
    // Dialled by its copy it answers, and refuses the proof: the other end is to draw another id.
    let own = Face { node: world.driver.node.id().0, ..Face::elsewhere(2) };
    let (_, reply) = world.proven(&own);
    assert!(reply.contains("the node id is that of this node"), "{reply}");
    assert_eq!(world.stat("peers_linked"), 0);
}

#[test]
fn replaced_unread_links_count_against_the_clients_limit() {
    let limits = Limits { clients_max: 10, ..Limits::default() };
    let mut world = World::new(Config { limits, ..secretive() });
    let face = Face::elsewhere(1);
    let mut most = 0;
    for _ in 0..100 {
        let Ok(conn) = world.driver.connect(&face.seen) else { continue };
        let offer = world.driver.call(conn, std::str::from_utf8(&face.offer_line()).unwrap());
        let answer = olivia::wire::handshake::read_answer(offer.trim_end().as_bytes());
        let Ok(olivia::wire::handshake::Answer::Offer(theirs, _)) = answer else { panic!("{offer}") };
        let node = Face::of(&theirs);
        world.driver.reads(conn, false);
        world.driver.send(conn, face.proof_line(&node));
        most = most.max(world.driver.node.conns());
    }
    assert!(most <= 12, "{most} connections where 10 clients and one link may be");
    assert!(world.driver.node.stats().connections_refused > 0);
    world.driver.pass(ms(13_000));
    world.dial(&face);
}

#[test]
fn handshakes_beyond_the_clients_limit_are_bounded_and_proven_ones_succeed() {
    let limits = Limits { clients_max: 3, ..Limits::default() };
    let mut world = World::new(Config { limits, ..secretive() });
    let clients = [(); 2].map(|()| world.driver.client());
    assert!(world.driver.connect("192.0.2.9:40000").is_err());
    for number in 1..=50 {
        let face = Face::elsewhere(number);
        let conn = world.driver.connect_node(&face.seen);
        match number % 3 {
            0 => {}
            1 => world.driver.send(conn, face.offer_line()),
            _ => world.driver.send(conn, "REQUEST connect nonsense\n"),
        }
        assert!(world.driver.node.conns() <= 3 + 8, "{} at {number}", world.driver.node.conns());
    }
    // A node that proves itself beside them is linked, and its place is free again.
    for number in 51..=60 {
        let face = Face::elsewhere(number);
        world.dial(&face);
        assert!(world.is_linked(&face));
    }
    assert_eq!(world.stat("peers_linked"), 10);
    // Former links that take nothing more are bounded alike.
    world.driver.pass(ms(5_000));
    assert_eq!((world.stat("peers_linked"), world.driver.node.conns()), (0, 3 + 8));
    clients.into_iter().for_each(|client| assert_eq!(world.driver.call(client, "PING\n"), "0:PONG 1\n"));
}

#[test]
fn new_node_met_at_an_address_ends_the_link_of_the_one_before() {
    let mut world = World::new(secretive());
    let before = Face::elsewhere(1);
    let after = Face { node: [7; 16], ..before.clone() };
    world.join(&[&before.listen]);
    let mut old = world.known(&before);
    world.accept(&after);
    assert_eq!(world.bye_reason(&mut old), "another node listens on your address");
    assert!(world.is_linked(&after) && !world.is_linked(&before));
}

#[test]
fn unproven_listen_address_does_not_end_the_link_of_its_owner() {
    let mut world = World::new(secretive());
    let before = Face::elsewhere(1);
    let impostor = Face { node: [7; 16], ..before.clone() };
    let old = world.known(&before);
    world.dial(&impostor);
    assert!(world.is_linked(&impostor) && world.is_linked(&before) && !world.driver.has_ended(old.conn));
}
