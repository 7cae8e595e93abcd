//! Changes of a filter that arrive twice, in the wrong order, not at all, or by the hundred thousand; and the bounded
//! output that small frames cause.

use crate::kit::peer::{
    Face, Link, Received, World, beat, block, bytes_of, deltas, head, heartbeat, known, linked, ms, none,
    piece,
};
use olivia::config::Config;
use olivia::filter::changelog::Position;
use olivia::limits::Limits;
use olivia::node::{CloseReason, FilterState};
use olivia::wire::frame::{Body, Head};

/// The position of the RESYNC.
fn resyncs(world: &mut World, link: &mut Link) -> Vec<Option<Head>> {
    let received = world.frames(link).into_iter();
    received
        .filter_map(|received| if let Received::Resync(from) = received { Some(from) } else { None })
        .collect()
}

fn position(world: &World, face: &Face) -> Option<u64> {
    world.view(face).unwrap().position.map(|Position { seq, .. }| seq)
}

/// A node with a peer that is known up to change 3.
fn at_three() -> (World, Face, Link) {
    let (mut world, face, mut link) = known();
    world.driver.send(link.conn, deltas(0, &[1, 2, 3]));
    assert_eq!(position(&world, &face), Some(3));
    assert_eq!(resyncs(&mut world, &mut link), []);
    (world, face, link)
}

#[test]
fn deltas_that_come_again_are_dropped_and_counted() {
    let (mut world, face, mut link) = at_three();
    for _ in 0..100 {
        world.driver.send(link.conn, deltas(0, &[1, 2, 3]));
    }
    world.driver.send(link.conn, [block(0, 0, [0; 8]), block(0, 0, [u64::MAX; 8])].concat());
    assert_eq!(world.driver.node.stats().digest_messages_dropped, 301);
    assert_eq!((position(&world, &face), world.filter(&face)), (Some(3), FilterState::Known));
    assert_eq!(resyncs(&mut world, &mut link), []);
}

#[test]
fn missing_delta_starts_one_resync_and_the_filter_is_uncertain_until_it_ends() {
    let (mut world, face, mut link) = at_three();
    for seq in 4..504 {
        world.driver.send(link.conn, deltas(seq, &[seq]));
    }
    assert_eq!(resyncs(&mut world, &mut link), [Some(head(1, 3))]);
    assert_eq!(world.driver.node.stats().digest_messages_dropped, 499);
    assert_eq!(world.filter(&face), FilterState::Outdated);
    // While its filter is uncertain it is queried for keys that it does not claim.
    world.begin("GET nowhere\n");
    let queried = world.queries(&mut link);
    assert_eq!(queried.len(), 1);
    world.send(&link, &[(queried[0], none(world.hash("nowhere")))]);
    assert_eq!(world.replies(), ":GOT \n");
    // A heartbeat with the end of its changelog does not make it known.
    world.send(&link, &[(1, beat(head(1, 3), false))]);
    assert_eq!(world.filter(&face), FilterState::Outdated);
    world.driver.send(link.conn, deltas(3, &(3..504).collect::<Vec<u64>>()));
    assert_eq!((position(&world, &face), world.filter(&face)), (Some(504), FilterState::Known));
}

#[test]
fn announced_deltas_that_do_not_arrive_make_the_filter_uncertain() {
    let (mut world, face, link) = at_three();
    let ahead = |request, seq| (request, beat(head(1, seq), false));
    // In flight, as far as one heartbeat shows.
    world.send(&link, &[ahead(1, 5)]);
    assert_eq!(world.filter(&face), FilterState::Known);
    world.driver.send(link.conn, deltas(3, &[4]));
    world.driver.pass(ms(1_000));
    world.send(&link, &[ahead(2, 6)]);
    assert_eq!(world.filter(&face), FilterState::Outdated);
    world.driver.send(link.conn, deltas(4, &[5]));
    assert_eq!(world.filter(&face), FilterState::Outdated);
    world.driver.send(link.conn, deltas(5, &[6]));
    assert_eq!(world.filter(&face), FilterState::Known);
    // A heartbeat after the announced deltas changes nothing.
    world.send(&link, &[ahead(3, 7), ahead(4, 7)]);
    assert_eq!(world.filter(&face), FilterState::Outdated);
    world.driver.send(link.conn, deltas(6, &[7]));
    world.send(&link, &[ahead(5, 9), (9, beat(head(1, 9), true))]);
    assert_eq!(world.filter(&face), FilterState::Known);
}

#[test]
fn deltas_in_the_wrong_order_end_in_the_right_place() {
    let (mut world, face, mut link) = at_three();
    for seq in [5, 4, 3, 6, 5, 4] {
        world.driver.send(link.conn, deltas(seq, &[seq]));
    }
    assert_eq!(resyncs(&mut world, &mut link), [Some(head(1, 3)), Some(head(1, 4))]);
    assert_eq!(position(&world, &face), Some(5));
    world.driver.send(link.conn, deltas(5, &[5, 6]));
    assert_eq!((position(&world, &face), world.filter(&face)), (Some(7), FilterState::Known));
}

#[test]
fn sequence_numbers_cross_two_to_the_32() {
    let (mut world, face, mut link) = linked();
    let far = (7 << 32) - 2;
    world.publish(&mut link, head(1, far), 1, &[0; 16]);
    world.driver.send(link.conn, deltas(far, &[1, 2, 3, 4]));
    assert_eq!((position(&world, &face), world.filter(&face)), (Some(far + 4), FilterState::Known));
    // Before the wrap again, and beyond what is next.
    world.driver.send(link.conn, deltas(far, &[1]));
    assert_eq!(world.driver.node.stats().digest_messages_dropped, 1);
    world.driver.send(link.conn, deltas(far + 9, &[1]));
    assert_eq!(resyncs(&mut world, &mut link), [Some(head(1, far + 4))]);
}

#[test]
fn largest_sequence_numbers_do_no_harm() {
    let (mut world, _, mut link) = linked();
    world.publish(&mut link, head(u64::MAX, u64::MAX), 1, &[0; 16]);
    for _ in 0..3 {
        world.driver.send(link.conn, deltas(u64::MAX, &[1, 2]));
        world.send(&link, &[(1, beat(head(u64::MAX, u64::MAX), false))]);
    }
    assert_eq!(world.stat("peer_filters_bytes"), 128);
    world.publish(&mut link, head(0, 0), 1, &[0; 16]);
    assert!(world.driver.node.stats().digest_messages_refused > 0);
}

#[test]
fn block_beyond_the_filter_is_refused_and_starts_a_resync() {
    for number in [2, 1 << 26, u32::MAX] {
        let (mut world, face, mut link) = at_three();
        world.driver.send(link.conn, block(0, number, [u64::MAX; 8]));
        assert_eq!(world.driver.node.stats().digest_messages_refused, 1);
        assert_eq!(world.filter(&face), FilterState::Outdated);
        for second in 0..40 {
            world.driver.pass(ms(1_000));
            world.send(&link, &[heartbeat(second)]);
        }
        let queried = resyncs(&mut world, &mut link);
        assert!(!queried.is_empty() && queried.iter().all(Option::is_none), "{queried:?}");
        world.publish(&mut link, head(1, 4), 1, &[0; 16]);
        assert_eq!(world.filter(&face), FilterState::Known);
    }
}

#[test]
fn flood_of_tiny_deltas_does_not_delay_clients() {
    let (mut world, face, mut link) = linked();
    world.publish(&mut link, head(1, 0), 12, &[0; 8 << 12]);
    world.driver.watch = None;
    let mut seq = 0;
    for _ in 0..40 {
        let mut storm = Vec::new();
        for _ in 0..10_000 {
            // All into one block's bits: what counts is how many there are.
            storm.extend(deltas(seq, &[seq & 7]));
            seq += 1;
        }
        world.driver.deliver(link.conn, &storm);
        assert!(world.driver.node.has_work(world.driver.now), "all of it in one call");
        world.check_at_once();
        let ticks = world.driver.ticks;
        world.driver.run();
        let taken = world.driver.ticks - ticks;
        assert!((20..80).contains(&taken), "{taken} steps");
        world.driver.pass(ms(10));
    }
    world.driver.node.audit();
    assert_eq!((position(&world, &face), world.filter(&face)), (Some(seq), FilterState::Known));
    assert!(world.stat("digest_received_bytes") >= 28 * seq);
    assert!(world.stat("buffers_bytes") < 1 << 20);
}

#[test]
fn sizes_that_change_without_end_hold_no_more_than_the_budget() {
    let limits = Limits { peer_filters_max: 1 << 20, ..Limits::default() };
    let mut world = World::new(Config { limits, ..Config::default() });
    let face = Face::new(1);
    let mut link = world.known(&face);
    let resize = |world: &mut World, link: &mut Link, size_log2: u8| {
        world.publish(link, head(1, 0), size_log2, &vec![0; 8 << size_log2]);
        world.check_at_once();
        assert!(world.stat("peer_filters_bytes") <= 1 << 20);
    };
    for _ in 0..5 {
        for size_log2 in (2..=11).chain((1..=10).rev()) {
            resize(&mut world, &mut link, size_log2);
            assert_eq!(world.filter(&face), FilterState::Known);
        }
    }
    // Up until it does not fit.
    for size_log2 in 2..=15 {
        resize(&mut world, &mut link, size_log2);
    }
    assert_eq!(world.filter(&face), FilterState::Unknown);
    assert_eq!(world.driver.node.stats().digest_messages_refused, 1);
    assert_eq!(world.stat("peer_filters_bytes"), 0);
    assert_eq!(resyncs(&mut world, &mut link), [Some(head(1, 0))]);
}

#[test]
fn filter_stays_known_and_takes_additions_while_one_of_another_size_comes() {
    let (mut world, face, mut link) = at_three();
    world.send(&link, &[(0, Body::Snap { head: head(1, 3), size_log2: 3 })]);
    for seq in 3..7 {
        assert_eq!(world.filter(&face), FilterState::Known);
        let first = u32::try_from(2 * (seq - 3)).unwrap();
        world.driver.send(link.conn, [piece(first, &[0; 16]), deltas(seq, &[seq << 60])].concat());
    }
    world.send(&link, &[(0, Body::SnapEnd)]);
    assert_eq!((position(&world, &face), world.filter(&face)), (Some(7), FilterState::Known));
    assert_eq!(resyncs(&mut world, &mut link), []);
    // A snapshot from elsewhere is one of what may be missing.
    world.send(&link, &[(0, Body::Snap { head: head(1, 9), size_log2: 1 })]);
    assert_eq!(world.filter(&face), FilterState::Outdated);
}

#[test]
fn blocks_during_a_snapshot_are_dropped() {
    let (mut world, face, mut link) = linked();
    world.publish(&mut link, head(1, 0), 13, &[0; 8 << 13]);
    world.frames(&mut link);
    let mut storm = bytes_of(&[(0, Body::Snap { head: head(1, 0), size_log2: 14 })]);
    for number in 0..2_000 {
        storm.extend(block(u64::from(number), number, [1; 8]));
    }
    world.driver.send(link.conn, storm);
    assert_eq!(world.driver.node.stats().digest_messages_dropped, 2_000);
    assert_eq!(resyncs(&mut world, &mut link), []);
    world.publish(&mut link, head(1, 9_000), 1, &[0; 16]);
    assert_eq!(world.filter(&face), FilterState::Known);
    assert_eq!(world.stat("peer_filters_bytes"), 128);
}

/// A node with so many keys, that its filter is some hundred kilobytes.
fn with_keys(world: &mut World) {
    for at in 0..100 {
        let keys: Vec<String> = (0..500).map(|key| format!("{at}-{key}:1")).collect();
        assert!(world.call(&format!("SET {}\n", keys.join(","))).starts_with(":SAT"));
    }
}

#[test]
fn flood_of_resync_requests_is_answered_no_faster_than_it_is_read() {
    let mut world = World::new(Config::default());
    with_keys(&mut world);
    let link = world.linked(&Face::new(1));
    world.driver.reads(link.conn, false);
    let storm: Vec<_> = (0..1_000).map(|_| (0, Body::Resync(None))).collect();
    for _ in 0..10 {
        world.driver.deliver(link.conn, &bytes_of(&storm));
        world.check_at_once();
        world.driver.run();
    }
    // Some pieces, and an answer for each request that is not one too many.
    let waiting = world.driver.waiting(link.conn);
    assert!(waiting <= 64 << 10, "{waiting} bytes");
    assert!(world.driver.node.stats().digest_sent_bytes < 100 << 10);
    assert_eq!(world.driver.node.stats().resyncs_dropped, 10_000 - 16);
    // One per second is taken in the long run.
    world.driver.reads(link.conn, true);
    world.send(&link, &[heartbeat(1)]);
    world.driver.pass(ms(2_000));
    world.send(&link, &[(0, Body::Resync(None)), (0, Body::Resync(None)), (0, Body::Resync(None))]);
    assert_eq!(world.driver.node.stats().resyncs_dropped, 10_000 - 16 + 1);
}

#[test]
fn repeated_resync_requests_of_a_reading_peer_cost_one_step_each() {
    let mut world = World::new(Config::default());
    with_keys(&mut world);
    let mut link = world.linked(&Face::new(1));
    world.send(&link, &[(0, Body::Resync(None))]);
    assert!(world.frames(&mut link).contains(&Received::Changelog));
    let (ticks, bytes) = (world.driver.ticks, world.driver.node.stats().digest_sent_bytes);
    let storm: Vec<_> = (0..200).map(|_| (0, Body::Resync(None))).collect();
    world.send(&link, &storm);
    world.frames(&mut link);
    let sent = world.driver.node.stats().digest_sent_bytes - bytes;
    assert!(sent <= 2 * (128 << 10) + 200 * (17 << 10), "{sent} bytes");
    assert!(world.driver.ticks - ticks < 1_000);
}

#[test]
fn snapshots_that_do_not_fit_are_answered_by_a_bounded_number_of_requests() {
    let limits = Limits { peer_filters_max: 1 << 20, ..Limits::default() };
    let mut world = World::new(Config { limits, ..Config::default() });
    let mut link = world.linked(&Face::new(1));
    let snap = |epoch| Body::Snap { head: head(epoch, 0), size_log2: 20 };
    for epoch in 2..1_000 {
        world.send(&link, &[(0, snap(epoch))]);
    }
    let requests = world.frames(&mut link).into_iter().filter(|frame| matches!(frame, Received::Resync(_)));
    assert_eq!(requests.count(), 15, "beside the one that began the link");
    assert!(world.stat("resyncs_dropped") > 900);
}

#[test]
fn flood_of_heartbeats_is_answered_no_faster_than_it_is_read() {
    let (mut world, face, mut link) = linked();
    world.driver.reads(link.conn, false);
    world.driver.watch = None;
    for round in 0..20 {
        let storm: Vec<_> = (0..1_000).map(|n| heartbeat(round * 1_000 + n)).collect();
        world.driver.deliver(link.conn, &bytes_of(&storm));
        world.check_at_once();
        world.driver.run();
    }
    assert!(world.driver.waiting(link.conn) <= (256 << 10) + 100);
    let unanswered = world.stat("heartbeats_unanswered");
    assert!(unanswered > 10_000, "{unanswered}");
    world.driver.reads(link.conn, true);
    let answered = world.frames(&mut link).len() as u64;
    assert!(answered >= 20_000 - unanswered);
    // As soon as it reads it is answered again.
    world.send(&link, &[heartbeat(99_999)]);
    assert!(matches!(
        world.frames(&mut link)[..],
        [Received::Heartbeat { request: 99_999, is_answer: true, .. }]
    ));
    assert!(world.is_linked(&face));
    assert_eq!(world.closed(CloseReason::SlowReader), 0);
}
