//! Snapshots that are wrong, too large, or incomplete: a refused one leaves the peer's filter unknown, so that the peer
//! is queried, and its memory is freed.

use crate::kit::peer::{
    Face, Link, Received, World, bytes_of, deltas, head, heartbeat, known, linked, ms, none, piece,
};
use olivia::config::Config;
use olivia::limits::Limits;
use olivia::node::FilterState;
use olivia::wire::frame::Body;

/// A node that keeps a megabyte of filters.
fn small() -> World {
    let limits = Limits { peer_filters_max: 1 << 20, ..Limits::default() };
    World::new(Config { limits, ..Config::default() })
}

fn snap(at: u64, size_log2: u8) -> Vec<u8> {
    bytes_of(&[(0, Body::Snap { head: head(at, 0), size_log2 })])
}

fn end() -> Vec<u8> {
    bytes_of(&[(0, Body::SnapEnd)])
}

/// The peer is queried for a key, since its filter is unknown, and answers NONE.
fn is_queried(world: &mut World, link: &mut Link) {
    world.begin("GET nowhere\n");
    let queried = world.queries(link);
    assert_eq!(queried.len(), 1, "it is not queried");
    world.send(link, &[(queried[0], none(world.hash("nowhere")))]);
    assert_eq!(world.replies(), ":GOT \n");
}

fn refusals(world: &World) -> u64 {
    world.driver.node.stats().digest_messages_refused
}

#[test]
fn filter_of_all_ones_is_refused_and_its_peer_queried_as_unknown() {
    let (mut world, face, mut link) = known();
    world.publish(&mut link, head(1, 0), 4, &[u64::MAX; 8 << 4]);
    assert_eq!(refusals(&world), 1);
    assert_eq!(world.filter(&face), FilterState::Unknown);
    assert_eq!(world.stat("peer_filters_bytes"), 0);
    is_queried(&mut world, &mut link);
}

#[test]
fn stalled_snapshot_frees_its_memory() {
    let (mut world, face, link) = known();
    let bytes = world.stat("peer_filters_bytes");
    // A change in the middle of it that has left others out.
    world.driver.send(link.conn, snap(1, 10));
    assert!(world.stat("peer_filters_bytes") > bytes);
    world.driver.send(link.conn, deltas(7, &[1]));
    assert_eq!(world.stat("peer_filters_bytes"), bytes);
    // A new link.
    world.driver.send(link.conn, snap(1, 10));
    assert!(world.stat("peer_filters_bytes") > bytes);
    let link = world.dial(&face);
    assert_eq!(world.stat("peer_filters_bytes"), bytes);
    // The end of a link, and what is kept of its peer after it.
    world.driver.send(link.conn, snap(1, 10));
    world.driver.lose(link.conn);
    assert_eq!(world.stat("peer_filters_bytes"), bytes);
}

#[test]
fn filter_that_fills_up_by_deltas_is_refused_when_it_claims_nearly_all() {
    let (mut world, face, mut link) = known();
    let mut hashes = (1..).map(|n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut seq = 0;
    while world.filter(&face) == FilterState::Known {
        let next: Vec<u64> = hashes.by_ref().take(8).collect();
        world.driver.send(link.conn, deltas(seq, &next));
        seq += 8;
        assert!(seq < 1_000, "it is never full");
    }
    assert_eq!((refusals(&world), world.filter(&face)), (1, FilterState::Unknown));
    is_queried(&mut world, &mut link);
    // What follows is dropped, and a RESYNC is sent later.
    let dropped = world.driver.node.stats().digest_messages_dropped;
    world.driver.send(link.conn, deltas(seq, &[1]));
    assert!(world.driver.node.stats().digest_messages_dropped > dropped);
    world.frames(&mut link);
    let queried = resyncs_within(&mut world, &mut link, 60);
    assert_eq!(queried, 3, "once in twenty seconds");
}

/// RESYNCs that the peer gets during so many seconds of heartbeats.
fn resyncs_within(world: &mut World, link: &mut Link, seconds: u32) -> usize {
    let mut queried = 0;
    for second in 0..seconds {
        world.driver.pass(ms(1_000));
        world.send(link, &[heartbeat(second)]);
        queried +=
            world.frames(link).iter().filter(|received| matches!(received, Received::Resync(_))).count();
    }
    queried
}

#[test]
fn false_claims_are_measured_and_every_claim_is_followed() {
    let (mut world, face, mut link) = linked();
    // Every bit of the first block, none of the second: half full, as far as can be seen.
    let mut words = [u64::MAX; 16];
    words[8..].fill(0);
    world.publish(&mut link, head(1, 0), 1, &words);
    let keys: Vec<String> = world.keys(0).take(500).collect();
    for key in &keys {
        world.begin(&format!("GET {key}\n"));
        let requests = world.queries(&mut link);
        assert_eq!(requests.len(), 1);
        world.send(&link, &[(requests[0], none(world.hash(key)))]);
        assert_eq!(world.replies(), ":GOT \n");
    }
    assert_eq!(world.driver.node.stats().query_false_positives, 500);
    assert!(world.view(&face).unwrap().measured_rate > Some(0.9));
}

#[test]
fn filters_beyond_the_largest_size_are_refused_before_a_byte_is_allocated() {
    let (mut world, face, mut link) = known();
    for size_log2 in [27, 28, 64, 255] {
        world.driver.send(link.conn, snap(2, size_log2));
    }
    assert_eq!(refusals(&world), 4);
    // Of no size that there is: nothing has changed.
    assert_eq!(world.filter(&face), FilterState::Known);
    assert_eq!(world.frames(&mut link), []);
    // The largest that there is, above what all filters may take.
    world.driver.send(link.conn, snap(2, 26));
    assert_eq!((refusals(&world), world.stat("peer_filters_bytes")), (5, 0));
    assert_eq!(world.filter(&face), FilterState::Unknown);
    assert_eq!(world.frames(&mut link), [Received::Resync(Some(head(2, 0)))]);
    world.driver.send(link.conn, piece(0, &[u64::MAX; 2_048]));
    assert_eq!(world.driver.node.stats().digest_messages_dropped, 1);
    is_queried(&mut world, &mut link);
}

#[test]
fn filter_that_does_not_fit_beside_the_others_leaves_its_own_peer_unknown() {
    let mut world = small();
    let faces = [Face::new(1), Face::new(2)];
    let mut first = world.linked(&faces[0]);
    let mut second = world.linked(&faces[1]);
    world.publish(&mut first, head(1, 0), 13, &[0; 8 << 13]);
    assert_eq!(world.stat("peer_filters_bytes"), 1 << 19);
    world.frames(&mut second);
    world.publish(&mut second, head(1, 0), 14, &[0; 8 << 14]);
    assert_eq!(world.filter(&faces[0]), FilterState::Known);
    assert_eq!(world.filter(&faces[1]), FilterState::Unknown);
    assert_eq!(world.stat("peer_filters_bytes"), 1 << 19);
    assert_eq!(refusals(&world), 1);
    is_queried(&mut world, &mut second);
    assert_eq!(world.queries(&mut first), [0; 0]);
    // As soon as there is room its filter is requested and known, whether it changes or not.
    world.driver.lose(first.conn);
    for _ in 0..60 {
        world.driver.pass(ms(1_000));
        world.send(&second, &[heartbeat(1)]);
        if world.frames(&mut second).contains(&Received::Resync(None)) {
            world.publish(&mut second, head(1, 0), 14, &[0; 8 << 14]);
        }
    }
    assert_eq!(world.filter(&faces[1]), FilterState::Known);
}

#[test]
fn out_of_order_pieces_are_counted_and_dropped() {
    let (mut world, face, link) = linked();
    let dropped = |world: &World| world.driver.node.stats().digest_messages_dropped;
    // Before the beginning.
    world.driver.send(link.conn, [piece(0, &[0; 16]), end()].concat());
    assert_eq!((dropped(&world), refusals(&world)), (2, 0));
    // The second block first, blocks beyond the last, the end before it; the right ones count all the same.
    world.driver.send(link.conn, snap(1, 1));
    world.driver.send(link.conn, piece(1, &[0; 8]));
    world.driver.send(link.conn, piece(0, &[0; 24]));
    world.driver.send(link.conn, end());
    assert_eq!((dropped(&world), refusals(&world)), (2, 3));
    world.driver.send(link.conn, piece(0, &[0; 8]));
    world.driver.send(link.conn, piece(0, &[0; 8]));
    world.driver.send(link.conn, piece(1, &[0; 16]));
    world.driver.send(link.conn, piece(u32::MAX, &[0; 8]));
    world.driver.send(link.conn, end());
    assert_eq!((dropped(&world), refusals(&world)), (2, 7));
    assert_eq!(world.filter(&face), FilterState::Unknown);
    world.driver.send(link.conn, [piece(1, &[0; 8]), end()].concat());
    assert_eq!(world.filter(&face), FilterState::Known);
    // After the end.
    world.driver.send(link.conn, [piece(0, &[u64::MAX; 16]), end()].concat());
    assert_eq!((dropped(&world), refusals(&world)), (2, 9));
    assert_eq!(world.filter(&face), FilterState::Known);
    assert_eq!(world.view(&face).unwrap().fill, Some(0.0));
}

#[test]
fn empty_pieces_and_empty_deltas_change_nothing() {
    let (mut world, face, mut link) = known();
    for kind in [2, 3, 6] {
        world.driver.send(link.conn, crate::kit::peer::header(kind, 0, 0));
    }
    assert_eq!(world.filter(&face), FilterState::Known);
    assert_eq!(world.frames(&mut link), []);
}

#[test]
fn endless_snapshot_leaves_its_peer_unknown_and_is_freed_with_it() {
    let mut world = small();
    let face = Face::new(1);
    let mut link = world.linked(&face);
    world.driver.send(link.conn, [snap(1, 10), piece(0, &[u64::MAX; 64])].concat());
    assert_eq!(world.stat("peer_filters_bytes"), 64 << 10);
    resyncs_within(&mut world, &mut link, 30);
    assert_eq!(world.filter(&face), FilterState::Unknown);
    is_queried(&mut world, &mut link);
    world.driver.lose(link.conn);
    world.driver.pass(ms(31_000));
    assert_eq!(world.stat("peer_filters_bytes"), 0);
}

#[test]
fn snapshots_begun_one_after_the_other_never_hold_more_than_the_budget() {
    let mut world = small();
    let face = Face::new(1);
    let mut link = world.linked(&face);
    for round in 0..200 {
        let size_log2 = [14, 13, 0, 14, 12][round % 5];
        let begins: Vec<u8> = (0..50).flat_map(|_| snap(1, size_log2)).collect();
        world.driver.deliver(link.conn, &begins);
        world.check_at_once();
        let held = world.stat("peer_filters_bytes");
        assert!(held <= 1 << 20, "{held} bytes");
        world.frames(&mut link);
    }
    // One that is whole then counts.
    world.publish(&mut link, head(1, 0), 10, &[0; 8 << 10]);
    assert_eq!(world.filter(&face), FilterState::Known);
    assert_eq!(world.stat("peer_filters_bytes"), 64 << 10);
}

#[test]
fn snapshot_of_an_older_epoch_is_refused() {
    let (mut world, face, mut link) = linked();
    world.publish(&mut link, head(5, 0), 1, &[0; 16]);
    world.publish(&mut link, head(4, 9), 1, &[u64::MAX; 16]);
    // The beginning, a piece in the middle of nothing, and an end of nothing.
    assert_eq!(refusals(&world), 3);
    assert_eq!(world.filter(&face), FilterState::Known);
    assert_eq!(world.view(&face).unwrap().fill, Some(0.0));
    world.publish(&mut link, head(6, 0), 0, &[1; 8]);
    assert_eq!(world.filter(&face), FilterState::Known);
}
