//! Peers that send too many queries: their pending answers are bounded in number and bytes, clients are served between
//! the queries, and a peer's query never causes another query.

use crate::kit::peer::{Face, Received, World, bytes_of, deltas, heartbeat, linked, ms};
use olivia::base::time::Instant;
use olivia::config::Config;
use olivia::limits::{BYTES_PER_STEP, Limits};
use olivia::node::Class;
use olivia::wire::frame::{Body, Frame, FrameLimits, Parsed, Wanted, parse};
use std::time::Duration;

fn get(request: u32, key: &[u8]) -> (u32, Body<'_>) {
    (request, Body::Get { key, wanted: Wanted::Value })
}

#[test]
fn answers_to_a_peer_that_does_not_read_are_dropped_above_the_limit() {
    let (mut world, _, mut link) = linked();
    world.driver.reads(link.conn, false);
    world.driver.watch = None;
    for round in 0..100 {
        let storm: Vec<_> = (0..1_000).map(|n| get(round * 1_000 + n, b"own")).collect();
        world.driver.deliver(link.conn, &bytes_of(&storm));
        world.check_at_once();
        world.driver.run();
        assert!(world.driver.waiting(link.conn) <= (256 << 10) + 100);
    }
    world.driver.node.audit();
    assert!(world.stat("buffers_bytes") < 2 << 20);
    let dropped = world.stat("peer_queries_dropped");
    assert_eq!(world.stat("peer_queries"), 100_000);
    // As soon as it reads it gets its answers, in the order of its queries.
    world.driver.reads(link.conn, true);
    let received = world.frames(&mut link);
    let answered: Vec<u32> = received
        .iter()
        .filter_map(
            |received| if let Received::Value { request, .. } = received { Some(*request) } else { None },
        )
        .collect();
    assert!(answered.is_sorted());
    assert_eq!(answered.len() as u64 + dropped, 100_000);
    assert!(answered.len() > 1_024 + 4_000, "{}", answered.len());
    world.send(&link, &[get(7, b"own")]);
    assert_eq!(world.frames(&mut link), [Received::Value { request: 7, value: b"1".to_vec() }]);
}

#[test]
fn long_keys_that_wait_for_their_answers_are_bounded_by_their_bytes() {
    let mut world = World::new(Config::default());
    world.call(&format!("SET big:{}\n", "x".repeat(60_000)));
    let mut link = world.linked(&Face::new(1));
    world.driver.reads(link.conn, false);
    let filling: Vec<_> = (0..6).map(|n| get(n, b"big")).collect();
    world.send(&link, &filling);
    assert!(world.stat("buffers_bytes") > 256 << 10);
    let key = vec![b'k'; 60_000];
    let before = world.stat("buffers_bytes");
    for n in 100..400 {
        world.send(&link, &[get(n, &key)]);
    }
    // Four of these keys are all that a quarter of a megabyte holds; one of the big ones waits too.
    assert_eq!(world.driver.node.stats().peer_queries_dropped, 300 - 4);
    assert!(world.stat("buffers_bytes") >= before + 4 * 60_000);
    world.driver.reads(link.conn, true);
    let received = world.frames(&mut link);
    let noes: Vec<&Received> =
        received.iter().filter(|received| matches!(received, Received::None { .. })).collect();
    assert_eq!(noes.len(), 4);
    world.send(&link, &[get(500, &key)]);
    assert_eq!(world.frames(&mut link), [Received::None { request: 500, moved_version: 0 }]);
}

#[test]
fn large_values_are_sent_one_by_one_as_they_are_read() {
    let mut world = World::new(Config::default());
    world.call(&format!("SET big:{}\n", "x".repeat(65_000)));
    let mut link = world.linked(&Face::new(1));
    world.driver.reads(link.conn, false);
    let storm: Vec<_> = (0..500).map(|n| get(n, b"big")).collect();
    world.send(&link, &storm);
    let mut taken = 0;
    let mut most = 0;
    loop {
        most = most.max(world.driver.waiting(link.conn));
        let now = world.driver.read_some(link.conn, 50_000);
        if now == 0 {
            break;
        }
        taken += now;
    }
    assert!(most <= (256 << 10) + 65_100, "{most}");
    assert!(taken > 500 * 65_000);
    let answers =
        world.frames(&mut link).into_iter().filter(|received| matches!(received, Received::Value { .. }));
    assert_eq!(answers.count(), 500);
}

#[test]
fn bytes_of_answers_are_charged_to_the_link_that_queried() {
    // With room for all answers, and with room for a few, so that queries wait until these are written.
    for pause in [32 << 20, 256 << 10] {
        let limits = Limits { outbound_pause_bytes: pause, ..Limits::default() };
        let mut world = World::new(Config { limits, ..Config::default() });
        world.call(&format!("SET big:{}\n", "x".repeat(100_000)));
        let mut link = world.linked(&Face::new(1));
        let other = world.linked(&Face::new(2));
        world.driver.reads(link.conn, false);
        world.driver.watch = None;
        let before = world.driver.node.spent();
        let storm: Vec<_> = (0..200).map(|n| get(n, b"big")).collect();
        world.driver.deliver(link.conn, &bytes_of(&storm));
        let waiting = world.driver.waiting(link.conn);
        assert!(waiting <= BYTES_PER_STEP + 2 * 100_100, "{waiting} bytes of answers in one call");
        let now = world.driver.now;
        while pause == 256 << 10 && world.driver.node.step(now, Class::Links) {}
        (0..8).for_each(|_| world.driver.read_now(link.conn));
        // Its next frame waits for its turn; that of another link does not.
        world.driver.deliver(link.conn, &bytes_of(&[heartbeat(1)]));
        assert!(world.driver.node.has_input(Class::Links), "{pause}: the link has no deficit");
        world.driver.deliver(other.conn, &bytes_of(&[heartbeat(1)]));
        assert!(world.driver.waiting(other.conn) > 0, "{pause}: the other link waits");
        world.driver.reads(link.conn, true);
        let answers = world.frames(&mut link);
        let answers = answers.iter().filter(|frame| matches!(frame, Received::Value { .. })).count();
        assert_eq!(answers, 200);
        // Each byte is copied to the output and written to the socket.
        let spent = world.driver.node.spent() - before;
        assert!(
            spent >= (answers * 2 * 100_000 / 1_024) as u64,
            "{pause}: {spent} keys for {answers} answers"
        );
    }
}

#[test]
fn abandoned_query_does_not_delay_later_ones() {
    let mut world = World::new(Config::default());
    world.call(&format!("SET big:{}\n", "x".repeat(65_000)));
    let mut link = world.linked(&Face::new(1));
    world.driver.reads(link.conn, false);
    // More than this link takes: two answers each 100 ms, the time that a lookup has.
    let mut request = 0;
    let mut in_time = 0;
    for round in 0..20 {
        let storm: Vec<_> = (0..20).map(|n| get(request + n, b"big")).collect();
        world.send(&link, &storm);
        request += 20;
        world.driver.read_some(link.conn, 130_200);
        for received in world.frames(&mut link) {
            let Received::Value { request: answered, .. } = received else { continue };
            // The link itself holds what it takes in another 200 ms and more.
            in_time += u32::from(round >= 5 && answered >= request - 4 * 20);
        }
        world.driver.pass(ms(100));
    }
    assert!(in_time >= 20, "{in_time}");
    let (late, dropped) = (world.stat("peer_queries_timed_out"), world.stat("peer_queries_dropped"));
    assert!(late > 300 && dropped == 0, "{late} late, {dropped} dropped");
}

#[test]
fn query_flood_does_not_starve_the_snapshot() {
    for big in [100, 65_000] {
        let mut world = World::new(Config::default());
        world.call(&format!("SET big:{}\n", "x".repeat(big)));
        // A filter of several pieces.
        let keys: Vec<String> = (0..900).map(|n| format!("n{n}:1")).collect();
        for round in 0..50 {
            world.call(&format!("SET {}\n", keys.join(",").replace('n', &format!("n{round}."))));
        }
        let mut link = world.linked(&Face::new(1));
        world.driver.reads(link.conn, false);
        let storm: Vec<_> = (0..1_000).map(|n| get(n, b"big")).collect();
        (0..10).for_each(|_| world.send(&link, &storm));
        assert!(world.stat("peer_queries_dropped") > 0);
        world.send(&link, &[(0, Body::Resync(None))]);
        let (mut snapshot, mut answers, mut taken) = (0, 0, 0);
        while taken < 2 << 20 {
            taken += world.driver.read_some(link.conn, 20_000);
            for received in world.frames(&mut link) {
                snapshot += u32::from(received == Received::Changelog);
                answers += u32::from(matches!(received, Received::Value { .. }));
            }
            world.send(&link, &storm);
        }
        // Its beginning, its end, and what is between.
        assert!(snapshot >= 6, "{snapshot} frames of it");
        assert!(answers as usize * big > 1 << 20, "{answers} answers");
    }
}

#[test]
fn closed_link_has_no_deferred_queries() {
    let (mut world, face, link) = linked();
    world.driver.reads(link.conn, false);
    let storm: Vec<_> = (0..10_000).map(|n| get(n, b"own")).collect();
    world.send(&link, &storm);
    assert!(world.driver.node.stats().peer_queries_dropped > 0);
    world.driver.lose(link.conn);
    let mut link = world.dial(&face);
    world.send(&link, &[get(77, b"own")]);
    let answers: Vec<Received> = world
        .frames(&mut link)
        .into_iter()
        .filter(|received| matches!(received, Received::Value { .. }))
        .collect();
    assert_eq!(answers, [Received::Value { request: 77, value: b"1".to_vec() }]);
}

#[test]
fn flood_of_queries_is_answered_in_steps_between_client_requests() {
    let (mut world, _, mut link) = linked();
    let storm: Vec<_> = (0..10_000).map(|n| get(n, b"own")).collect();
    world.driver.deliver(link.conn, &bytes_of(&storm));
    let mut games = 0;
    while world.driver.node.has_work(world.driver.now) {
        world.check_at_once();
        world.driver.node.tick(world.driver.now);
        world.driver.read_now(link.conn);
        games += 1;
        assert!(games < 1_000);
    }
    // 256 queries are a step.
    assert!(games >= 10_000 / 256, "{games} steps");
    world.driver.run();
    let answers = world.frames(&mut link);
    assert!(answers.iter().filter(|received| matches!(received, Received::Value { .. })).count() > 9_000);
}

#[test]
fn peer_query_is_answered_locally_without_further_queries() {
    let mut world = World::new(Config::default());
    let mut holder = world.known(&Face::new(1));
    let far = world.hash("far");
    world.driver.send(holder.conn, deltas(0, &[far]));
    world.frames(&mut holder);
    let mut unknown = world.linked(&Face::new(2));
    world.frames(&mut holder);
    world.send(&unknown, &[get(1, b"far"), get(2, b"own"), get(3, b"")]);
    let received = world.frames(&mut unknown);
    assert_eq!(
        received,
        [
            Received::None { request: 1, moved_version: 0 },
            Received::Value { request: 2, value: b"1".to_vec() },
            Received::None { request: 3, moved_version: 0 }
        ]
    );
    assert_eq!(world.frames(&mut holder), []);
    assert_eq!((world.driver.node.stats().lookups, world.stat("gets")), (0, 0));
}

#[test]
fn query_for_a_key_over_the_limit_is_answered_as_a_miss() {
    let limits = Limits { key_bytes_max: 10, ..Limits::default() };
    let mut world = World::new(Config { limits, ..Config::default() });
    let mut link = world.linked(&Face::new(1));
    world.send(&link, &[get(1, b"12345678901"), get(2, b"1234567890"), heartbeat(3)]);
    let received = world.frames(&mut link);
    assert_eq!(
        received[..2],
        [Received::None { request: 1, moved_version: 0 }, Received::None { request: 2, moved_version: 0 }]
    );
    assert!(matches!(received[2], Received::Heartbeat { request: 3, .. }));
    assert_eq!(world.driver.node.stats().frames_oversized, 1);
    assert_eq!(world.stat("peer_queries"), 2);
}

#[test]
fn ttl_sent_to_a_peer_never_exceeds_the_expiry() {
    let (mut world, _, link) = linked();
    world.driver.pass(Duration::from_nanos(900_000));
    assert_eq!(world.call("SETEX brief:v:1\n"), ":SATEX brief:v:1\n");
    // Deadlines are whole milliseconds of the clock.
    let deadline = world.driver.now.mono.millis() + 1_000;
    for nanos in [0, 1, 99_999, 1, 500_000, 900_000_000, 97_500_000, 900_000, 99_998] {
        world.driver.pass(Duration::from_nanos(nanos));
        world.driver.take_bytes(link.conn);
        world.send(&link, &[get(1, b"brief")]);
        let bytes = world.driver.take_bytes(link.conn);
        let limits = FrameLimits { key_bytes_max: 100, value_bytes_max: 100 };
        let Parsed::Frame { frame: Frame { body, .. }, .. } = parse(&bytes, limits) else {
            panic!("{bytes:?}")
        };
        let Body::Value { left_ms: Some(left_ms), .. } = body else { panic!("{body:?}") };
        let left = Instant::from_millis(deadline).since(world.driver.now.mono);
        // Its peer may have queried in the turn in which the query is read, which has begun up to 1 ms ago.
        let turn = left.min(ms(1));
        assert!(ms(left_ms) + turn <= left, "{left_ms} ms of {left:?}");
        assert!(ms(left_ms + 2) > left, "{left_ms} ms of {left:?}");
    }
}

#[test]
fn reused_request_numbers_are_answered_each() {
    let (mut world, _, mut link) = linked();
    world.send(&link, &[get(5, b"own"), get(5, b"own"), get(5, b"nowhere")]);
    let value = || Received::Value { request: 5, value: b"1".to_vec() };
    assert_eq!(world.frames(&mut link), [value(), value(), Received::None { request: 5, moved_version: 0 }]);
}

#[test]
fn answer_does_not_arrive_before_the_addition_of_its_key_however_full_the_link_is() {
    let (mut world, _, mut link) = linked();
    world.send(&link, &[(0, Body::Resync(None))]);
    assert_eq!(world.frames(&mut link).last(), Some(&Received::Changelog));
    world.call(&format!("SET big:{}\n", "x".repeat(100_000)));
    world.frames(&mut link);
    // More waits than the outbound buffer of a link takes of changes, and less than keeps back an answer.
    world.driver.reads(link.conn, false);
    world.send(&link, &[get(1, b"big")]);
    world.call("SET new:1\n");
    world.send(&link, &[get(2, b"new")]);
    world.driver.reads(link.conn, true);
    let received = world.frames(&mut link);
    let place = |wanted: &Received| received.iter().position(|received| received == wanted).unwrap();
    let answer = Received::Value { request: 2, value: b"1".to_vec() };
    assert!(place(&Received::Changelog) < place(&answer), "{:?}", received.len());
}
