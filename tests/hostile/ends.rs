//! BYE and half closes, in every phase: the link ends at once, its queries fail over to other peers, and later
//! frames are dropped.

use crate::kit::peer::{Face, Received, World, bytes_of, heartbeat, known, linked, ms};
use olivia::config::Config;
use olivia::node::CloseReason;
use olivia::wire::frame::{Body, Wanted};

#[test]
fn bye_ends_a_link_at_once_and_later_frames_are_dropped() {
    let (mut world, face, mut link) = linked();
    let storm: Vec<_> = (0..10_000).map(|n| (n, Body::Bye(b"again"))).collect();
    world.send(&link, &storm);
    assert!(!world.is_linked(&face));
    assert_eq!(world.driver.node.stats().frames, 1);
    world.send(&link, &[heartbeat(1), (2, Body::Get { key: b"own", wanted: Wanted::Value })]);
    assert_eq!(world.frames(&mut link), []);
    assert!(world.driver.has_ended(link.conn));
    // It goes on talking and never closes: two seconds, and it is closed.
    for _ in 0..4 {
        world.driver.pass(ms(500));
        world.send(&link, &[heartbeat(1)]);
    }
    assert!(world.driver.is_closed(link.conn));
    assert_eq!(world.closed(CloseReason::PeerLeft), 1);
    assert_eq!(world.driver.node.stats().frames, 1);
}

#[test]
fn query_to_a_leaving_peer_ends_at_once() {
    for how in 0..4 {
        let (mut world, _, mut link) = linked();
        world.begin("GET far\n");
        assert_eq!(world.queries(&mut link).len(), 1);
        match how {
            0 => world.send(&link, &[(0, Body::Bye(b""))]),
            1 => world.driver.shut(link.conn),
            2 => world.driver.lose(link.conn),
            _ => world.driver.send(link.conn, "garbage"),
        }
        assert_eq!(world.replies(), ":GOT \n");
        assert_eq!(world.driver.node.stats().queries_lost, 1);
        assert_eq!(world.driver.node.lookups(), 0);
    }
}

#[test]
fn lookup_fails_over_when_a_peer_leaves() {
    let mut world = World::new(Config::default());
    let far = world.hash("far");
    let faces = [Face::new(1), Face::new(2)];
    let mut links = faces.each_ref().map(|face| world.known(face));
    for link in &links {
        world.driver.send(link.conn, crate::kit::peer::deltas(0, &[far]));
    }
    world.begin("GET far\n");
    let queried = links.each_mut().map(|link| world.queries(link));
    let first = usize::from(queried[0].is_empty());
    assert!(queried[1 - first].is_empty(), "both are queried at once");
    world.send(&links[first], &[(0, Body::Bye(b"leaving"))]);
    let request = world.queries(&mut links[1 - first])[0];
    let value = Body::Value { hash: far, version: 1, left_ms: None, value: b"there" };
    world.send(&links[1 - first], &[(request, value)]);
    assert_eq!(world.replies(), ":GOT far:there\n");
}

#[test]
fn half_close_in_each_phase_of_being_dialled_ends_the_connection() {
    let (mut world, face) = World::with_secret();
    // Before a byte, in the middle of the offer, after it, in the middle of the proof.
    for cut in [0, 20] {
        let conn = world.driver.connect(&face.seen).unwrap();
        world.driver.send(conn, &face.offer_line()[..cut]);
        world.driver.shut(conn);
        assert!(world.driver.is_closed(conn));
    }
    let (conn, node) = world.offered(&face);
    let proof = face.proof_line(&node);
    world.driver.send(conn, &proof[..30]);
    world.driver.shut(conn);
    assert!(world.driver.is_closed(conn));
    assert!(world.driver.take(conn).contains("no line end"));
    let (conn, _) = world.offered(&face);
    world.driver.shut(conn);
    assert!(world.driver.is_closed(conn));
    assert_eq!(world.closed(CloseReason::Done), 4);
    // Together with the proof: a half-closed link is closed.
    let (conn, node) = world.offered(&face);
    world.driver.deliver(conn, &face.proof_line(&node));
    world.driver.shut_ahead(conn);
    assert!(world.driver.is_closed(conn) && !world.is_linked(&face));
    assert_eq!(world.closed(CloseReason::PeerLeft), 1);
}

#[test]
fn half_close_in_each_phase_of_dialling_fails_the_dial_and_it_is_dialled_again() {
    let (mut world, face) = World::with_secret();
    world.join(&[&face.listen]);
    // Before a byte, in the middle of the counter offer, and instead of the welcome.
    for cut in [0, 30, usize::MAX] {
        let (conn, node) = world.picked_up();
        let line = face.counter_line(&node);
        world.driver.send(conn, &line[..line.len().min(cut)]);
        world.driver.shut(conn);
        assert!(world.driver.is_closed(conn));
    }
    let (conn, _) = world.next_dial();
    world.driver.lose(conn);
    assert_eq!((world.closed(CloseReason::Refused), world.closed(CloseReason::Lost)), (3, 1));
    let mut link = world.accept(&face);
    assert!(world.frames(&mut link).contains(&Received::Resync(None)));
    // With the welcome.
    world.driver.shut(link.conn);
    assert!(!world.is_linked(&face));
    assert_eq!(world.closed(CloseReason::PeerLeft), 1);
}

#[test]
fn frames_before_the_end_of_the_stream_are_all_read() {
    let (mut world, _, link) = linked();
    let frames = world.driver.node.stats().frames;
    let storm: Vec<_> = (0..2_000).map(heartbeat).collect();
    world.driver.deliver(link.conn, &bytes_of(&storm));
    world.driver.shut_ahead(link.conn);
    assert!(world.driver.is_closed(link.conn));
    assert_eq!(world.driver.node.stats().frames, frames + 2_000);
}

#[test]
fn peer_continues_its_changelog_after_a_lost_link() {
    let (mut world, face, link) = known();
    world.driver.send(link.conn, crate::kit::peer::deltas(0, &[world.hash("far")]));
    world.driver.lose(link.conn);
    world.driver.pass(ms(29_000));
    let mut link = world.dial(&face);
    let at = Some(crate::kit::peer::head(1, 1));
    assert!(world.frames(&mut link).contains(&Received::Resync(at)));
    world.driver.lose(link.conn);
    world.driver.pass(ms(31_000));
    let mut link = world.dial(&face);
    assert!(world.frames(&mut link).contains(&Received::Resync(None)));
}
