//! Answers without a query, twice, late or for another key, and answers that never come.

use crate::kit::peer::{Face, Link, Received, World, deltas, head, heartbeat, linked, ms, none};
use crate::kit::resp;
use olivia::config::Config;
use olivia::limits::Limits;
use olivia::node::Class;
use olivia::wire::frame::Body;

fn value(hash: u64, value: &[u8]) -> Body<'_> {
    Body::Value { hash, version: 1, left_ms: None, value }
}

/// Links a peer whose filter claims `far`, and nothing else.
fn link_claimant(world: &mut World, face: &Face) -> Link {
    let mut link = world.known(face);
    world.driver.send(link.conn, deltas(0, &[world.hash("far")]));
    assert_eq!(world.frames(&mut link), []);
    link
}

/// A node with such a peer.
fn claims_far() -> (World, Face, Link) {
    let (mut world, face) = World::open();
    let link = link_claimant(&mut world, &face);
    (world, face, link)
}

/// Requests `far`; returns the number of the query that follows.
fn queried(world: &mut World, link: &mut Link) -> u32 {
    world.begin("GET far\n");
    let queries = world.queries(link);
    assert_eq!(queries.len(), 1, "{queries:?}");
    queries[0]
}

#[test]
fn answers_without_a_query_change_nothing() {
    let (mut world, _, mut link) = claims_far();
    let far = world.hash("far");
    for request in [0, 1, 2, u32::MAX] {
        world.send(&link, &[(request, value(far, b"forged")), (request, none(far))]);
    }
    assert_eq!(world.driver.node.stats().answers_late, 8);
    let request = queried(&mut world, &mut link);
    world.send(&link, &[(request.wrapping_add(1), value(far, b"forged"))]);
    world.send(&link, &[(request, value(far, b"true")), (request, value(far, b"2")), (request, none(far))]);
    assert_eq!(world.replies(), ":GOT far:true\n");
    let stats = world.driver.node.stats();
    assert_eq!((stats.lookup_hits, stats.query_hits, stats.answers_late), (1, 1, 11));
}

#[test]
fn lookup_from_before_a_write_does_not_answer_a_request_after_it() {
    let (mut world, _, mut link) = claims_far();
    let far = world.hash("far");
    let before = queried(&mut world, &mut link);
    let other = world.driver.client();
    let set = resp(&["SET", "far", "new", "PXAT", "1"]);
    assert_eq!(world.driver.call(other, &set), "+OK\r\n");
    world.driver.send(other, resp(&["GET", "far"]));
    let after = world.queries(&mut link);
    world.send(&link, &[(before, value(far, b"old"))]);
    assert_eq!(world.replies(), ":GOT far:old\n");
    assert_eq!(
        (after.len(), world.driver.take(other)),
        (1, String::new()),
        "the value from before the write"
    );
    world.send(&link, &[(after[0], value(far, b"old"))]);
    assert_eq!(world.driver.take(other), "$-1\r\n");
}

#[test]
fn answer_for_another_key_is_dropped() {
    let (mut world, _, mut link) = claims_far();
    let (far, own) = (world.hash("far"), world.hash("own"));
    let request = queried(&mut world, &mut link);
    world.send(&link, &[(request, value(own, b"forged")), (request, none(own))]);
    assert_eq!(world.replies(), "");
    assert_eq!(world.driver.node.stats().answers_mismatched, 2);
    world.send(&link, &[(request, value(far, b"true"))]);
    assert_eq!(world.replies(), ":GOT far:true\n");
    // Forged answers do not delay a client beyond the lookup timeout.
    let request = queried(&mut world, &mut link);
    world.send(&link, &[(request, value(own, b"forged"))]);
    world.driver.pass(ms(100));
    assert_eq!(world.replies(), ":GOT \n");
    assert_eq!(world.call("GET own\n"), ":GOT own:1\n");
}

#[test]
fn answer_after_the_timeout_is_dropped() {
    let (mut world, _, mut link) = claims_far();
    let far = world.hash("far");
    let request = queried(&mut world, &mut link);
    world.driver.pass(ms(100));
    assert_eq!(world.replies(), ":GOT \n");
    world.send(&link, &[(request, value(far, b"late"))]);
    let stats = world.driver.node.stats();
    assert_eq!((stats.lookup_timeouts, stats.queries_abandoned, stats.answers_late), (1, 1, 1));
    // It does not answer the next query either.
    let next = queried(&mut world, &mut link);
    assert_ne!(next, request);
    world.send(&link, &[(request, value(far, b"late"))]);
    assert_eq!(world.replies(), "");
    world.send(&link, &[(next, none(far))]);
    assert_eq!(world.replies(), ":GOT \n");
}

#[test]
fn answer_over_a_replaced_link_is_dropped() {
    let mut world = World::new(Config::default());
    let face = Face::new(1);
    let mut old = link_claimant(&mut world, &face);
    let far = world.hash("far");
    let request = queried(&mut world, &mut old);
    let mut new = world.dial(&face);
    // It is queried again over the new link, and a miss is not final before that answer.
    assert_eq!(world.replies(), "");
    world.send(&old, &[(request, value(far, b"old"))]);
    assert_eq!(world.driver.node.stats().answers_late, 0);
    world.send(&new, &[(request, value(far, b"old"))]);
    let stats = world.driver.node.stats();
    assert_eq!((stats.answers_late, stats.queries_lost), (1, 1));
    let again = world.queries(&mut new);
    assert!(again.len() == 1 && again[0] != request);
    world.send(&new, &[(again[0], value(far, b"new"))]);
    assert_eq!(world.replies(), ":GOT far:new\n");
}

#[test]
fn miss_of_a_peer_queried_again_over_a_new_link_is_no_false_positive() {
    let mut world = World::new(Config::default());
    let face = Face::new(1);
    let mut old = world.linked(&face);
    let far = world.hash("far");
    queried(&mut world, &mut old);
    let mut new = world.dial(&face);
    let again = world.queries(&mut new);
    assert_eq!(again.len(), 1);
    world.send(&new, &[(again[0], none(far))]);
    assert_eq!(world.replies(), ":GOT \n");
    let stats = world.driver.node.stats();
    assert_eq!((stats.query_misses, stats.query_false_positives), (1, 0));
}

#[test]
fn claims_are_counted_against_all_absent_keys_whatever_was_queried_of_them() {
    let rate_after = |verb: &str| {
        let mut world = World::new(Config::default());
        world.driver.watch = None;
        let face = Face::new(1);
        let mut link = link_claimant(&mut world, &face);
        for n in 0..2_000 {
            world.call(&format!("{verb} absent{n}\n"));
            world.frames(&mut link);
        }
        world.driver.pass(ms(200));
        world.frames(&mut link);
        world.send(&link, &[heartbeat(1)]);
        world.frames(&mut link);
        let request = queried(&mut world, &mut link);
        world.send(&link, &[(request, none(world.hash("far")))]);
        world.view(&face).unwrap().measured_rate
    };
    let of_gets = rate_after("GET");
    assert!(of_gets.is_some_and(|rate| rate < 0.01), "{of_gets:?}");
    assert_eq!(rate_after("TTL"), of_gets);
}

#[test]
fn remote_ttl_is_shown_from_zero_to_the_longest() {
    let (mut world, _, mut link) = claims_far();
    let hash = world.hash("far");
    let mut answered = |world: &mut World, left_ms: u64| {
        world.begin("TTL far\n");
        let request = world.queries(&mut link)[0];
        let value = Body::Value { hash, version: 1, left_ms: Some(left_ms), value: b"surplus" };
        world.send(&link, &[(request, value)]);
        world.replies()
    };
    assert_eq!(answered(&mut world, 0), ":LASTS \n");
    assert_eq!(answered(&mut world, 1), ":LASTS far:1\n");
    for huge in [u64::MAX - 1, u64::MAX / 2, 1 << 60] {
        let reply = answered(&mut world, huge);
        let seconds = reply.trim_end().strip_prefix(":LASTS far:").unwrap();
        assert!(seconds.parse::<u64>().unwrap() > 1 << 30, "{reply}");
    }
}

#[test]
fn value_longer_than_the_limit_is_a_miss_at_once() {
    let limits = Limits { value_bytes_max: 1_000, ..Limits::default() };
    let mut world = World::new(Config { limits, ..Config::default() });
    let mut link = link_claimant(&mut world, &Face::new(1));
    let far = world.hash("far");
    let request = queried(&mut world, &mut link);
    world.send(&link, &[(request, value(far, &[b'x'; 1_001]))]);
    assert_eq!(world.replies(), ":GOT \n");
    let stats = world.driver.node.stats();
    assert_eq!((stats.lookup_misses, stats.frames_oversized), (1, 1));
    let request = queried(&mut world, &mut link);
    world.send(&link, &[(request, value(far, &[b'x'; 1_000]))]);
    assert_eq!(world.replies().len(), ":GOT far:\n".len() + 1_000);
}

#[test]
fn key_too_long_for_the_peer_is_a_miss_at_once_and_the_peer_is_queried_again() {
    let (mut world, _, mut link) = claims_far();
    for round in 1..=3 {
        let request = queried(&mut world, &mut link);
        world.send(&link, &[(request, Body::NotTaken)]);
        assert_eq!(world.replies(), ":GOT \n");
        assert_eq!(world.driver.node.stats().query_misses, round);
    }
    world.send(&link, &[(77, Body::NotTaken)]);
    let stats = world.driver.node.stats();
    assert_eq!((stats.lookup_misses, stats.lookup_timeouts, stats.answers_late), (3, 0, 1));
}

#[test]
fn values_that_do_not_fit_into_one_reply_are_an_error() {
    let limits = Limits {
        value_bytes_max: 1_000,
        reply_bytes_max: 1_024,
        outbound_pause_bytes: 4_096,
        ..Limits::default()
    };
    let mut world = World::new(Config { limits, ..Config::default() });
    let mut link = world.linked(&Face::new(1));
    world.begin("GET a,b,c\n");
    let received = world.frames(&mut link);
    for received in &received {
        let Received::Get { request, key } = received else { panic!("{received:?}") };
        let hash = world.hash(std::str::from_utf8(key).unwrap());
        world.send(&link, &[(*request, value(hash, &[b'x'; 900]))]);
    }
    assert_eq!(
        world.replies(),
        ":ERR the reply would be longer than 1024 bytes; request fewer keys at a time\n"
    );
}

#[test]
fn peer_that_sends_nothing_costs_three_timeouts_until_its_link_ends() {
    let (mut world, face, mut link) = claims_far();
    for _ in 0..3 {
        queried(&mut world, &mut link);
        world.driver.pass(ms(99));
        assert_eq!(world.replies(), "");
        world.driver.pass(ms(1));
        assert_eq!(world.replies(), ":GOT \n");
    }
    for _ in 0..100 {
        assert_eq!(world.call("GET far\n"), ":GOT \n");
        assert_eq!(world.call("GET far,own,nowhere\n"), ":GOT own:1\n");
    }
    assert_eq!(world.queries(&mut link), [0; 0]);
    assert_eq!(world.driver.node.stats().lookup_timeouts, 3);
    // Three missed heartbeats end the link.
    world.driver.pass(ms(3_000));
    assert!(!world.is_linked(&face));
}

/// The node's own delay is no timeout: the answer lies unread in the socket.
#[test]
fn answer_that_arrived_in_time_and_is_read_late_is_a_hit() {
    let (mut world, _, mut link) = claims_far();
    let request = queried(&mut world, &mut link);
    for _ in 0..500 {
        world.driver.leap(ms(1));
        while world.driver.node.step(world.driver.now, Class::Due) {}
    }
    assert_eq!(world.replies(), "");
    world.send(&link, &[(request, value(world.hash("far"), b"true"))]);
    assert_eq!(world.replies(), ":GOT far:true\n");
    let stats = world.driver.node.stats();
    assert_eq!((stats.lookup_hits, stats.lookup_timeouts, stats.answers_late), (1, 0, 0));
}

/// Lets lookups of `far` wait for a peer that beats and does not answer, until they do so no longer; how many
/// did.
fn times_out(world: &mut World, link: &mut Link) -> u64 {
    let before = world.driver.node.stats().lookup_timeouts;
    for waits in 0..200 {
        world.send(link, &[heartbeat(1)]);
        world.begin("GET far\n");
        if world.replies() == ":GOT \n" {
            assert_eq!(world.driver.node.stats().lookup_timeouts, before + waits);
            return waits;
        }
        world.driver.pass(ms(100));
        assert_eq!(world.replies(), ":GOT \n");
    }
    panic!("lookups wait for ever");
}

/// Lets a peer send heartbeats and answer the probes, until lookups query it again; how
/// many that were.
fn answers_until_queried(world: &mut World, face: &Face, link: &mut Link) -> u32 {
    world.frames(link);
    let mut answers = 0;
    while world.view(face).unwrap().probes_left > 0 {
        world.driver.pass(ms(50));
        world.send(link, &[heartbeat(1)]);
        assert_eq!(world.call("GET far\n"), ":GOT \n");
        let hash = world.hash("?");
        for request in world.queries(link) {
            world.send(link, &[(request, none(hash))]);
            answers += 1;
        }
        assert!(answers < 100);
    }
    answers
}

#[test]
fn peer_with_heartbeats_but_no_answers_costs_three_timeouts() {
    for knows_its_filter in [true, false] {
        let mut world = World::new(Config::default());
        let face = Face::new(1);
        let mut link = if knows_its_filter { link_claimant(&mut world, &face) } else { world.linked(&face) };
        assert_eq!(times_out(&mut world, &mut link), 3);
        for _ in 0..100 {
            world.driver.pass(ms(250));
            world.send(&link, &[heartbeat(1)]);
            assert_eq!(world.call("GET far\n"), ":GOT \n");
            assert_eq!(world.call("TTL far,own\n"), ":LASTS own:never\n");
        }
        assert_eq!(world.driver.node.stats().lookup_timeouts, 3);
        assert!(world.is_linked(&face) && world.view(&face).unwrap().probes_left == 1);
        assert!(world.call("MESH\n").contains("; circuit open: does not answer queries; probes left 1"));
        // It is queried with each beat whether it does.
        let probes = world.stat("probes");
        assert!((24..=26).contains(&probes), "{probes}");
    }
}

#[test]
fn briefly_slow_peer_is_queried_again_after_the_next_heartbeat() {
    let (mut world, face, mut link) = claims_far();
    times_out(&mut world, &mut link);
    assert_eq!(answers_until_queried(&mut world, &face, &mut link), 1);
    let request = queried(&mut world, &mut link);
    let far = world.hash("far");
    world.send(&link, &[(request, value(far, b"there"))]);
    assert_eq!(world.replies(), ":GOT far:there\n");
}

#[test]
fn answer_to_a_probe_that_is_late_or_about_another_key_counts_for_nothing() {
    let (mut world, face, mut link) = claims_far();
    times_out(&mut world, &mut link);
    world.frames(&mut link);
    for (name, late) in [("far", 0), ("?", 100)] {
        let hash = world.hash(name);
        let request = loop {
            world.driver.pass(ms(50));
            world.send(&link, &[heartbeat(1)]);
            if let Some(request) = world.queries(&mut link).first() {
                break *request;
            }
        };
        world.driver.pass(ms(late));
        world.send(&link, &[(request, none(hash)), (request, none(hash))]);
        assert_eq!(world.view(&face).unwrap().probes_left, 1);
    }
    let stats = world.driver.node.stats();
    assert_eq!((stats.answers_mismatched, stats.answers_late), (2, 1));
}

#[test]
fn circuit_breaker_needs_more_answers_after_each_reopening() {
    let (mut world, face, mut link) = claims_far();
    assert_eq!(times_out(&mut world, &mut link), 3);
    for answers in [1, 2, 4, 8, 16, 16] {
        // A new link is no new beginning.
        link = world.dial(&face);
        assert_eq!(answers_until_queried(&mut world, &face, &mut link), answers);
        assert_eq!(times_out(&mut world, &mut link), 1);
    }
}

#[test]
fn peer_that_drops_some_queries_does_not_delay_every_lookup() {
    let (mut world, _, mut link) = linked();
    let mut waited = 0;
    for round in 0..1_000 {
        // Several are on their way at any time; it answers two of three.
        world.begin(&format!("GET a{round},b{round},c{round}\n"));
        let received = world.frames(&mut link);
        let queries: Vec<_> = received
            .into_iter()
            .filter_map(|received| {
                if let Received::Get { request, key } = received { Some((request, key)) } else { None }
            })
            .collect();
        waited += usize::from(queries.len() == 3);
        for (request, key) in queries.iter().skip(1) {
            let hash = world.hash(std::str::from_utf8(key).unwrap());
            world.send(&link, &[(*request, none(hash))]);
        }
        world.driver.pass(ms(10));
        world.send(&link, &[heartbeat(1)]);
    }
    assert!(waited < 100, "{waited} of 1,000 requests waited");
    world.driver.pass(ms(100));
    world.replies();
}

#[test]
fn many_silent_peers_of_unknown_filters_cost_three_timeouts_together() {
    let mut world = World::new(Config::default());
    let faces: Vec<Face> = (1..=8).map(Face::new).collect();
    let mut links: Vec<Link> = faces.iter().map(|face| world.linked(face)).collect();
    for _ in 0..3 {
        world.begin("GET nowhere\n");
        for link in &mut links {
            assert_eq!(world.queries(link).len(), 1);
        }
        world.driver.pass(ms(100));
        assert_eq!(world.replies(), ":GOT \n");
    }
    assert_eq!(world.call("GET nowhere,neither\n"), ":GOT \n");
    assert_eq!(world.driver.node.stats().lookup_timeouts, 3);
}

#[test]
fn request_that_joins_a_lookup_has_peers_queried_that_are_new_and_unknown() {
    let mut world = World::new(Config::default());
    let mut silent = world.linked(&Face::new(1));
    world.begin("GET far\n");
    assert_eq!(world.queries(&mut silent).len(), 1);
    world.driver.pass(ms(10));
    let mut newcomer = world.linked(&Face::new(2));
    world.begin("GET far\n");
    let request = world.queries(&mut newcomer)[0];
    let far = world.hash("far");
    world.send(&newcomer, &[(request, value(far, b"there"))]);
    assert_eq!(world.replies(), ":GOT far:there\n:GOT far:there\n");
    assert_eq!(world.queries(&mut silent), [0; 0]);
}

#[test]
fn lookup_goes_on_to_the_next_claimant_after_a_timeout() {
    let mut world = World::new(Config::default());
    let faces = [Face::new(1), Face::new(2)];
    let mut links = faces.each_ref().map(|face| link_claimant(&mut world, face));
    let far = world.hash("far");
    world.begin("GET far\n");
    let first = usize::from(world.queries(&mut links[0]).is_empty());
    world.driver.pass(ms(20));
    let second = &mut links[1 - first];
    let request = world.queries(second)[0];
    world.send(second, &[(request, value(far, b"there"))]);
    assert_eq!(world.replies(), ":GOT far:there\n");
    assert_eq!(world.driver.node.stats().lookup_timeouts, 0);
}

#[test]
fn shared_lookup_answers_the_waiters_still_connected() {
    let (mut world, _, mut link) = claims_far();
    let far = world.hash("far");
    let clients: Vec<_> = (0..20).map(|_| world.driver.client()).collect();
    for client in &clients {
        world.driver.send(*client, "GET far\n");
    }
    let queries = world.queries(&mut link);
    assert_eq!(queries.len(), 1);
    for client in &clients[..10] {
        world.driver.lose(*client);
    }
    world.send(&link, &[(queries[0], value(far, b"v"))]);
    for client in &clients[10..] {
        assert_eq!(world.driver.take(*client), ":GOT far:v\n");
    }
    let stats = world.driver.node.stats();
    assert_eq!((stats.lookups_coalesced, stats.lookups_unwanted), (19, 10));
    world.check();
    // A filter that begins anew in the middle of it all takes no lookup with it.
    let request = queried(&mut world, &mut link);
    world.publish(&mut link, head(2, 0), 0, &[0; 8]);
    world.send(&link, &[(request, value(far, b"w"))]);
    assert_eq!(world.replies(), ":GOT far:w\n");
}
