//! Handshakes that must be refused: no state is kept of them, each is counted, and a recorded one cannot be
//! replayed.

use crate::kit::ClientId;
use crate::kit::peer::{Face, SECRET, World, head, ms, secretive};
use olivia::config::{Config, Secret};
use olivia::node::CloseReason;
use olivia::wire::frame::Body;

/// The refusal of a handshake, which must end the connection.
fn refused(world: &mut World, conn: ClientId, line: &[u8]) -> String {
    let before = world.driver.node.stats().handshakes_refused;
    world.driver.send(conn, line);
    let sentence = world.driver.take(conn);
    let (_, sentence) = sentence.split_once(":ERR ").unwrap_or_else(|| panic!("{sentence}"));
    assert!(world.driver.has_ended(conn), "{sentence}");
    let stats = world.driver.node.stats();
    assert_eq!(stats.handshakes_refused, before + 1, "{sentence}");
    assert_eq!(world.driver.node.peers(world.driver.now).len(), 0, "{sentence}");
    world.check();
    sentence.trim_end().to_owned()
}

fn refused_offer(world: &mut World, face: &Face) -> String {
    let conn = world.driver.connect(&face.seen).unwrap();
    refused(world, conn, &face.offer_line())
}

#[test]
fn wrong_proof_is_refused() {
    let mut world = World::new(secretive());
    let right = Face::elsewhere(1);
    let empty = Face { secret: None, ..right.clone() };
    let other = Face { secret: Some("another secret of the same length"), ..right.clone() };
    let moved = Face { listen: "192.0.2.99:1".to_owned(), ..right.clone() };
    let renamed = Face { node: [9; 16], ..right.clone() };
    for wrong in [empty, other, moved, renamed] {
        let (conn, node) = world.offered(&right);
        let sentence = refused(&mut world, conn, &wrong.proof_line(&node));
        assert_eq!(sentence, "wrong proof; all nodes of a mesh need the same [mesh] secret");
    }
    assert_eq!(world.stat("peers_linked"), 0);
}

#[test]
fn proof_of_the_other_role_is_refused() {
    let (mut world, face) = World::with_secret();
    let (conn, reply) = world.offer(&face);
    // The node's own proof, sent back to it.
    let (_, proof) = reply.trim_end().split_once(",proof=").unwrap();
    let line = format!("h2:REQUEST connect proof={proof}\n");
    assert!(refused(&mut world, conn, line.as_bytes()).starts_with("wrong proof"));
    // What the face would prove if it had been dialled.
    let (conn, node) = world.offered(&face);
    let counter = String::from_utf8(face.counter_line(&node)).unwrap();
    let (_, proof) = counter.trim_end().split_once(",proof=").unwrap();
    let line = format!("h2:REQUEST connect proof={proof}\n");
    assert!(refused(&mut world, conn, line.as_bytes()).starts_with("wrong proof"));
}

#[test]
fn replayed_handshake_of_a_dialler_is_refused() {
    let (mut world, face) = World::with_secret();
    let (conn, node) = world.offered(&face);
    let (first, second) = (face.offer_line(), face.proof_line(&node));
    world.driver.send(conn, &second);
    assert!(world.is_linked(&face));
    world.driver.lose(conn);
    world.driver.pass(ms(31_000));
    assert_eq!(world.driver.node.stats().handshakes_refused, 0);
    let conn = world.driver.connect(&face.seen).unwrap();
    world.driver.send(conn, &first);
    assert!(world.driver.take(conn).contains(":FULFILLED proto=2"));
    world.driver.send(conn, &second);
    assert!(world.driver.take(conn).contains(":ERR wrong proof"));
    assert!(!world.is_linked(&face));
}

#[test]
fn replayed_counter_offer_is_refused() {
    let (mut world, face) = World::with_secret();
    world.join(&[&face.listen]);
    let (conn, node) = world.picked_up();
    let recorded = face.counter_line(&node);
    world.driver.lose(conn);
    for _ in 0..3 {
        let (conn, again) = world.picked_up();
        assert!(again.node == node.node && again.nonce != node.nonce);
        world.driver.send(conn, &recorded);
        assert!(world.driver.is_closed(conn));
        assert_eq!(world.driver.take(conn), "", "no proof is sent before the other side has sent its own");
    }
    assert_eq!(world.closed(CloseReason::Refused), 3);
    assert_eq!(world.stat("peers_linked"), 0);
}

#[test]
fn echoed_handshake_is_refused_and_the_address_is_dialled_again() {
    let (mut world, face) = World::with_secret();
    world.join(&[&face.listen]);
    let (conn, node) = world.picked_up();
    let mirror = Face { secret: None, ..node.clone() };
    world.driver.send(conn, mirror.counter_line(&node));
    assert!(world.driver.is_closed(conn));
    assert_eq!(world.driver.take(conn), "");
    world.check();
    // It has not dialled itself: no connection with that offer has arrived.
    let link = world.accept(&face);
    assert!(world.is_linked(&face) && !world.driver.is_closed(link.conn));
}

#[test]
fn node_that_dialled_itself_closes_and_backs_off() {
    let mut world = World::new(secretive());
    world.join(&["192.0.2.1:5454"]);
    let (out, node) = world.picked_up();
    let seen = Face { seen: "192.0.2.1:41000".to_owned(), ..node };
    let conn = world.driver.connect(&seen.seen).unwrap();
    world.driver.send(conn, seen.offer_line());
    let reply = world.driver.take(conn);
    assert_eq!(reply, "h1:ERR this node has dialled itself\n");
    world.driver.send(out, reply);
    assert!(world.driver.is_closed(out) && world.driver.has_ended(conn));
    world.driver.pass(ms(22_000));
    assert_eq!(world.driver.next_dial(), None);
    assert!(world.driver.node.is_ready());
    // Another node may listen there later.
    world.driver.pass(ms(600_000));
    let dials = std::iter::from_fn(|| world.driver.next_dial()).count();
    assert!((14..=25).contains(&dials), "{dials}");
}

#[test]
fn node_of_another_mesh_is_refused_at_its_offer() {
    let mut world = World::new(secretive());
    let right = Face::elsewhere(1);
    let sentence = refused_offer(&mut world, &Face { hash: 7, ..right });
    assert_eq!(sentence, "the hash differs; all nodes of a mesh need the same [mesh] secret");
    let open = Face { secret: Some(SECRET), ..Face::new(1) };
    assert!(refused_offer(&mut world, &open).starts_with("the hash differs"));
}

#[test]
fn check_of_the_hash_secret_differs_in_each_handshake_and_cannot_be_reused() {
    let (mut world, face) = World::with_secret();
    let checks = [(); 2].map(|()| world.offered(&face).1.hash);
    assert_ne!(checks[0], checks[1]);
    // It belongs to the nonce that it was sent with.
    let reused = Face { hash: checks[0], ..Face::elsewhere(2) };
    assert!(refused_offer(&mut world, &reused).starts_with("the hash differs"));
}

#[test]
fn without_a_secret_remote_nodes_are_refused() {
    let mut world = World::new(Config::default());
    let face = Face { seen: "192.0.2.7:40000".to_owned(), ..Face::new(1) };
    let sentence = refused_offer(&mut world, &face);
    assert_eq!(
        sentence,
        "without [mesh] secret only nodes on one host are linked; set the same secret on all nodes"
    );
    let mapped = Face { seen: "[::ffff:127.0.0.1]:40000".to_owned(), ..Face::new(1) };
    let link = world.dial(&mapped);
    assert!(world.is_linked(&mapped) && !world.driver.has_ended(link.conn));
}

#[test]
fn without_a_secret_a_password_keeps_nodes_out_from_either_end() {
    let password = Some(Secret::new("password".to_owned()));
    let mut world = World::new(Config { password, ..Config::default() });
    let face = Face::new(1);
    assert!(refused_offer(&mut world, &face).starts_with("this node has a password and no [mesh] secret"));
    world.join(&[&face.listen]);
    let (conn, node) = world.picked_up();
    world.driver.send(conn, face.counter_line(&node));
    assert!(world.driver.is_closed(conn));
    assert_eq!(world.stat("peers_linked"), 0);
}

#[test]
fn password_set_without_a_secret_ends_links_and_handshakes() {
    let mut world = World::new(Config::default());
    let faces: Vec<Face> = (1..=5).map(Face::new).collect();
    world.join(&[&faces[0].listen, &faces[1].listen]);
    // Linked from both ends, and half introduced from both ends.
    let mut linked = [world.accept(&faces[0]), world.linked(&faces[2])];
    let (dialled, node) = world.picked_up();
    world.driver.send(dialled, faces[1].counter_line(&node));
    let (offered, node) = world.offered(&faces[3]);
    world.begin("GET nowhere\n");
    let password = Some(Secret::new("password".to_owned()));
    world.driver.node.reconfigure(world.driver.now, Config { password, ..Config::default() });
    world.driver.run();
    for link in &mut linked {
        assert_eq!(world.bye_reason(link), "this node has a password now, and no [mesh] secret");
    }
    assert_eq!(world.replies(), ":GOT \n");
    assert!(world.driver.is_closed(dialled));
    world.driver.send(offered, faces[3].proof_line(&node));
    assert!(world.driver.take(offered).starts_with("h2:ERR this node has a password and no [mesh] secret"));
    let (_, reply) = world.offer(&faces[4]);
    assert!(reply.starts_with("h1:ERR this node has a password and no [mesh] secret"), "{reply}");
    assert_eq!(world.driver.node.peers(world.driver.now).iter().filter(|peer| peer.is_linked).count(), 0);
}

#[test]
fn with_a_secret_a_password_that_is_set_ends_no_link() {
    let (mut world, face) = World::with_secret();
    world.linked(&face);
    let password = Some(Secret::new("password".to_owned()));
    world.driver.node.reconfigure(world.driver.now, Config { password, ..secretive() });
    world.driver.run();
    assert!(world.is_linked(&face));
}

#[test]
fn with_a_secret_a_link_needs_no_password_and_is_no_client() {
    let password = Some(Secret::new("password".to_owned()));
    let mut world = World::new(Config { password, ..secretive() });
    let link = world.dial(&Face::elsewhere(1));
    assert_eq!((world.stat("clients"), world.stat("peers_linked")), (1, 1));
    assert!(!world.driver.has_ended(link.conn));
}

#[test]
fn handshake_after_other_requests_is_refused() {
    let (mut world, face) = World::with_secret();
    for before in ["PING\n", "GET own\n", "nonsense\n"] {
        let conn = world.driver.client();
        world.driver.call(conn, before);
        let sentence = refused(&mut world, conn, &face.offer_line());
        assert_eq!(sentence, "a handshake is the first request on its connection; open another");
    }
    let conn = world.driver.client();
    let sentence = refused(&mut world, conn, &face.proof_line(&face));
    assert!(sentence.starts_with("a proof without an offer"), "{sentence}");
}

#[test]
fn second_offer_ends_the_handshake() {
    let (mut world, face) = World::with_secret();
    let (conn, node) = world.offered(&face);
    let sentence = refused(&mut world, conn, &face.offer_line());
    assert!(sentence.starts_with("a handshake is the first request"), "{sentence}");
    world.driver.send(conn, face.proof_line(&node));
    assert!(!world.is_linked(&face));
}

#[test]
fn second_proof_is_no_frame() {
    let (mut world, face) = World::with_secret();
    let (conn, node) = world.offered(&face);
    let proof = face.proof_line(&node);
    world.driver.send(conn, [&proof[..], &proof[..]].concat());
    assert!(world.driver.has_ended(conn));
    assert_eq!(world.driver.node.stats().frames_broken, 1);
    assert!(!world.is_linked(&face));
}

#[test]
fn proof_after_pending_requests_is_refused() {
    let mut world = World::new(Config::default());
    let mut slow = world.linked(&Face::new(1));
    let face = Face::new(2);
    let (conn, node) = world.offered(&face);
    let both = [b"GET elsewhere\n".to_vec(), face.proof_line(&node)].concat();
    world.driver.send(conn, both);
    let queried = world.queries(&mut slow);
    assert_eq!(queried.len(), 1);
    assert!(!world.is_linked(&face));
    world.driver.pass(ms(100));
    let reply = world.driver.take(conn);
    assert!(reply.starts_with(":GOT \nh2:ERR a handshake is the first request"), "{reply}");
}

#[test]
fn lines_of_more_than_a_kilobyte_are_refused_from_either_end() {
    let (mut world, face) = World::with_secret();
    let mut long = face.offer_line();
    long.splice(long.len() - 1..long.len() - 1, format!(",x={}", "y".repeat(1_024)).into_bytes());
    let conn = world.driver.connect(&face.seen).unwrap();
    let sentence = refused(&mut world, conn, &long);
    assert_eq!(sentence, "connect has a line longer than 1024 bytes");
    world.join(&[&face.listen]);
    let (conn, _) = world.picked_up();
    world.driver.send(conn, "h1:FULFILLED proto=2,");
    world.driver.send(conn, "x".repeat(1_003));
    assert!(!world.driver.is_closed(conn));
    world.driver.send(conn, "x");
    assert!(world.driver.is_closed(conn));
    assert_eq!(world.closed(CloseReason::Refused), 1);
}

#[test]
fn out_of_order_handshake_answers_end_a_dial() {
    for line in ["h2:FULFILLED welcome\n", "h1:GOT a:1\n", ":ERR go away\n", "\n", "+OK\n"] {
        let mut world = World::new(Config::default());
        let face = Face::new(1);
        world.join(&[&face.listen]);
        let (conn, _) = world.picked_up();
        world.driver.send(conn, line);
        assert!(world.driver.is_closed(conn), "{line}");
        assert_eq!(world.closed(CloseReason::Refused), 1);
        world.accept(&face);
        assert!(world.is_linked(&face));
    }
}

#[test]
fn second_counter_offer_ends_a_dial() {
    let (mut world, face) = World::with_secret();
    world.join(&[&face.listen]);
    let (conn, node) = world.picked_up();
    let line = face.counter_line(&node);
    world.driver.send(conn, [&line[..], &line[..]].concat());
    assert!(world.driver.is_closed(conn));
    assert!(!world.is_linked(&face));
}

/// Sends some bytes each half second, and demands that the connection ends after five seconds.
fn drips_until_closed(world: &mut World, conn: ClientId, trickle: &str) {
    let mut passed = 0;
    while !world.driver.is_closed(conn) {
        world.driver.pass(ms(500));
        world.driver.send(conn, trickle);
        passed += 500;
        assert!(passed <= 5_000, "it is waited for for ever");
    }
    assert_eq!(passed, 5_000);
}

#[test]
fn handshake_times_out_however_many_bytes_arrive() {
    for trickle in ["", "\n"] {
        let mut world = World::new(secretive());
        let (conn, _) = world.offered(&Face::elsewhere(1));
        drips_until_closed(&mut world, conn, trickle);
        assert_eq!(world.closed(CloseReason::Refused), 1);
    }
}

#[test]
fn dialled_handshake_times_out_however_many_bytes_arrive() {
    for trickle in ["", "x"] {
        let mut world = World::new(secretive());
        world.join(&["192.0.2.11:5454"]);
        let (conn, _) = world.picked_up();
        drips_until_closed(&mut world, conn, trickle);
        assert_eq!(world.closed(CloseReason::DialFailed), 1);
    }
}

#[test]
fn draining_node_accepts_no_links() {
    let (mut world, face) = World::with_secret();
    let (conn, node) = world.offered(&face);
    // A client that has not read its BYE delays the end of the node.
    let client = world.driver.client();
    world.driver.reads(client, false);
    world.last = ":BYE \n";
    world.driver.node.drain(world.driver.now);
    world.driver.run();
    world.driver.send(conn, face.proof_line(&node));
    assert!(!world.is_linked(&face));
    assert!(world.driver.has_ended(conn));
}

#[test]
fn node_whose_clock_is_ahead_is_refused_in_its_handshake_and_at_its_heartbeat() {
    let mut world = World::new(secretive());
    let wall_ms = world.driver.now.wall_ms();
    let ahead = |ms| Face { wall_ms: wall_ms + ms, ..Face::elsewhere(1) };
    let sentence = refused_offer(&mut world, &ahead(501));
    assert!(sentence.starts_with("your clock is 501 ms ahead of this node's"), "{sentence}");
    let mut link = world.dial(&ahead(500));
    let beat = |wall_ms| (1, Body::Heartbeat { head: head(1, 0), wall_ms, ack: 0, is_answer: false });
    // Reports that come and go fill no log.
    (0..30).for_each(|_| world.send(&link, &[beat(0), beat(wall_ms)]));
    assert!(world.stat("log_lines_dropped") >= 15);
    world.send(&link, &[beat(wall_ms + 500)]);
    assert!(!world.driver.has_ended(link.conn));
    world.send(&link, &[beat(wall_ms + 501)]);
    assert!(world.bye_reason(&mut link).starts_with("your clock is 501 ms ahead"));
    // A clock that is behind is its own node's concern.
    world.dial(&Face { wall_ms: 0, ..Face::elsewhere(2) });
}

#[test]
fn node_that_dials_one_whose_clock_is_ahead_gives_up() {
    let mut world = World::new(secretive());
    let face = Face { wall_ms: world.driver.now.wall_ms() + 501, ..Face::elsewhere(1) };
    world.join(&[&face.listen]);
    let (conn, node) = world.picked_up();
    assert_eq!(node.wall_ms, world.driver.now.wall_ms());
    world.driver.send(conn, face.counter_line(&node));
    assert!(world.driver.is_closed(conn));
}

#[test]
fn version_beyond_the_bound_ends_the_link_before_it_is_used() {
    let mut world = World::new(secretive());
    let mut link = world.linked(&Face::elsewhere(1));
    world.begin("GET far\n");
    let request = world.queries(&mut link)[0];
    let (hash, bound) = (world.hash("far"), (world.driver.now.wall_ms() + 1_000) << 20);
    let value = |version| (request, Body::Value { hash, version, left_ms: None, value: b"lie" });
    world.send(&link, &[value(bound + 1)]);
    assert!(world.bye_reason(&mut link).starts_with("a version more than a second ahead"));
    assert_eq!(world.replies(), ":GOT \n");
}

#[test]
fn node_whose_clock_was_set_back_links_again_when_it_has_caught_up() {
    let mut world = World::new(secretive());
    world.call("SET k:v\n");
    world.driver.now.wall_nanos -= 5_000_000_000;
    let face = Face { wall_ms: 0, ..Face::elsewhere(1) };
    let sentence = refused_offer(&mut world, &face);
    assert!(sentence.starts_with("this node's wall clock was set back by 4000 ms more"), "{sentence}");
    world.driver.pass(ms(4_000));
    world.dial(&face);
}
