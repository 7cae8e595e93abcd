//! The limits of the mesh, each reached by peers and clients for this purpose, on a node with a virtual clock. Limits
//! that a hostile peer reaches are in `tests/hostile`, those of one node alone in `tests/limits_virtual.rs`.

mod kit;

use kit::ClientId;
use kit::mesh::Mesh;
use kit::ms;
use kit::peer::{self, Face, Link, Received, WITHOUT_OWN, World, bytes_of, head, secretive};
use olivia::config::Config;
use olivia::limits::{Limits, MeshLimits};
use olivia::node::{Class, CloseReason, FilterState};
use olivia::wire::frame::{Body, Wanted};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// A node with these limits, and a peer with an unknown filter: queried for every absent key.
fn with_unknown_peer(limits: Limits) -> (World, Link) {
    let mut world = World::new(Config { limits, ..Config::default() });
    let link = world.linked(&Face::new(1));
    (world, link)
}

/// The queries received, each with its key.
fn queried(world: &mut World, link: &mut Link) -> Vec<(u32, String)> {
    let query = |frame| {
        let Received::Get { request, key } = frame else { return None };
        Some((request, String::from_utf8(key).unwrap()))
    };
    world.frames(link).into_iter().filter_map(query).collect()
}

/// Answers queries: the value of a key is its name.
fn answer(world: &mut World, link: &Link, queries: &[(u32, String)]) {
    for (request, key) in queries {
        let hash = world.hash(key);
        let body = Body::Value { hash, version: 1, left_ms: None, value: key.as_bytes() };
        world.send(link, &[(*request, body)]);
    }
}

fn clients(world: &mut World, count: usize) -> Vec<ClientId> {
    (0..count).map(|_| world.driver.client()).collect()
}

#[test]
fn new_key_waits_for_little_of_a_snapshot_that_is_read_slowly() {
    let (mut world, face) = World::open();
    for first in (0..40_000).step_by(500) {
        let lines: String = (first..first + 500).map(|n| format!("SET k{n}:1\n")).collect();
        world.call(&lines);
    }
    assert!(world.driver.node.own_filter().bytes() >= 64 * 1024);
    let link = world.linked(&face);
    world.driver.reads(link.conn, false);
    world.send(&link, &[(0, Body::Resync(None))]);
    world.driver.pass(ms(20));
    let snapshot = world.driver.waiting(link.conn);
    assert!((16 * 1024..40 * 1024).contains(&snapshot), "{snapshot} bytes of the snapshot wait");
    world.call("SET new:1\n");
    world.driver.pass(ms(5));
    let waiting = world.driver.waiting(link.conn);
    assert!((1..200).contains(&(waiting - snapshot)), "{waiting} bytes wait with the new key");
}

#[test]
fn floor_of_a_peer_costs_what_it_removes_and_the_lookups_that_it_concerns() {
    let (mut world, link) = with_unknown_peer(Limits::default());
    world.last = WITHOUT_OWN;
    let version = |n: u64| (1_700_000_000_000 << 20) + n;
    let cost = |world: &mut World, frame: (u32, Body<'_>)| {
        let before = world.driver.node.spent();
        world.send(&link, &[frame]);
        world.driver.node.spent() - before
    };
    let unknown = cost(&mut world, (0, Body::Floor(version(1))));
    let again = cost(&mut world, (0, Body::Floor(version(1))));
    let flushed = cost(&mut world, (5, Body::Floor(version(2))));
    let keys: String = (0..1_000).map(|n| format!("SET k{n}:1\n")).collect();
    world.call(&keys);
    let dropped = cost(&mut world, (0, Body::Floor(version(1 << 20))));
    for n in 0..4 {
        let client = world.driver.client();
        let keys: Vec<String> = (0..200).map(|key| format!("absent{n}-{key}")).collect();
        world.driver.send(client, format!("GET {}\n", keys.join(",")));
    }
    assert_eq!(world.driver.node.lookups(), 800);
    let raised = cost(&mut world, (0, Body::Floor(version(2 << 20))));
    // A new store, a key, and eight lookups each cost as much as that many keys.
    for (cost, keys) in [(unknown, 1), (flushed, 256), (dropped, 1_000), (raised, 100)] {
        assert!((keys..keys + 20).contains(&(cost - again)), "{cost} for {keys}, {again} for a known floor");
    }
}

#[test]
fn request_that_needs_one_lookup_too_many_is_an_error_and_goes_through_when_others_have_ended() {
    let (mut world, mut link) = with_unknown_peer(Limits { lookups_max: 4, ..Limits::default() });
    let others = clients(&mut world, 2);
    world.driver.send(others[0], "GET a,b\n");
    world.driver.send(others[1], "GET c\n");
    let reply = ":ERR 4 keys are being looked up on other nodes, the limit (lookups_max); try again\n";
    assert_eq!(world.call("GET d,e\n"), reply);
    assert_eq!(world.call("TTL d,e\n"), reply);
    assert_eq!(world.driver.node.stats().request_errors, 2);
    // What is here is not looked up, and one key still fits.
    assert_eq!(world.call("GET own\n"), ":GOT own:1\n");
    world.begin("GET d\n");
    assert_eq!(world.driver.node.lookups(), 4);
    let queries = queried(&mut world, &mut link);
    answer(&mut world, &link, &queries);
    assert_eq!(world.replies(), ":GOT d:d\n");
    assert_eq!(world.driver.take(others[0]), ":GOT a:a,b:b\n");
    world.begin("GET e,f,g,h\n");
    assert_eq!(world.driver.node.lookups(), 4);
    world.driver.pass(ms(100));
    assert_eq!(world.replies(), ":GOT \n");
}

#[test]
fn connection_with_as_many_lookups_as_it_may_have_is_not_read_until_one_ends() {
    let (mut world, mut link) = with_unknown_peer(Limits { lookups_per_connection: 2, ..Limits::default() });
    let client = world.driver.client();
    world.driver.send(client, "0:GET a\n1:GET b\n2:GET c\n3:PING\n4:GET d,e\n");
    assert_eq!(world.driver.node.lookups(), 2);
    assert!(world.driver.is_stopped(client));
    // Others are read meanwhile, and look up as many.
    let other = world.driver.client();
    world.driver.send(other, "GET x\n");
    assert_eq!(world.driver.node.lookups(), 3);
    assert!(!world.driver.is_stopped(other));
    let mut rounds = 0;
    while world.driver.node.lookups() > 0 {
        let queries = queried(&mut world, &mut link);
        answer(&mut world, &link, &queries);
        rounds += 1;
        assert!(rounds < 10);
    }
    assert_eq!(world.driver.take(client), "0:GOT a:a\n1:GOT b:b\n2:GOT c:c\n3:PONG 1\n4:GOT d:d,e:e\n");
    assert!(!world.driver.is_stopped(client));
    assert_eq!(world.driver.take(other), ":GOT x:x\n");
}

#[test]
fn requests_that_wait_for_other_nodes_are_counted_until_they_end_even_without_their_client() {
    let key = "k".repeat(60_000);
    let keys: String = (0..20).map(|n| format!("GET {n}{key}\n")).collect();
    let value = "v".repeat(1 << 20);
    let append = format!("APPEND own2:{value}\n");
    let words = |words: &[&str]| kit::resp(words);
    let transaction = [
        words(&["MULTI"]),
        words(&["SET", "own3", &value]),
        words(&["INCR", "own2"]),
        words(&["SET", "own2", "1"]),
        words(&["EXEC"]),
    ];
    let transaction = transaction.concat();
    // Each request with the least that it takes: lookups have copies of the keys.
    for (request, bytes) in [(&keys, 2 * 20 * 60_000), (&append, 1 << 20), (&transaction, 1 << 20)] {
        let (mut world, link) = with_unknown_peer(Limits { value_bytes_max: 1 << 20, ..Limits::default() });
        let before = world.stat("buffers_bytes");
        let client = world.driver.client();
        world.driver.send(client, request);
        world.driver.take_bytes(link.conn);
        let counted = world.stat("buffers_bytes");
        assert!(counted >= before + bytes, "{counted} bytes");
        world.driver.lose(client);
        assert!(world.stat("buffers_bytes") >= before + bytes, "{} bytes", world.stat("buffers_bytes"));
        // Also the time after which the pooled buffers are freed.
        world.driver.pass(ms(2_000));
        assert_eq!(world.driver.node.lookups(), 0);
        let after = world.stat("buffers_bytes");
        assert!(after < before + 64 * 1_024, "{after} bytes");
    }
}

#[test]
fn requests_wait_while_many_values_of_other_nodes_wait_to_be_sent() {
    let (mut world, mut link) = with_unknown_peer(Limits::default());
    world.driver.watch = None;
    let client = world.driver.client();
    world.driver.reads(client, false);
    let value = "v".repeat(30_000);
    let request = |n: u32| {
        let keys: Vec<String> = (0..10).map(|key| format!("k{n}x{key}")).collect();
        format!("GET {}\n", keys.join(","))
    };
    world.driver.send(client, (0..100).map(request).collect::<String>());
    let mut most = 0;
    for _ in 0..400 {
        for (number, key) in queried(&mut world, &mut link) {
            let hash = world.hash(&key);
            let body = Body::Value { hash, version: 1, left_ms: None, value: value.as_bytes() };
            world.send(&link, &[(number, body)]);
        }
        world.driver.read_some(client, 100_000);
        most = most.max(world.stat("buffers_bytes"));
    }
    let bytes = world.driver.take_bytes(client).len();
    assert!(bytes > 100 * 10 * 30_000, "{bytes} bytes");
    // Each of the first requests has begun its lookups before a value comes.
    assert!(most < 12 << 20, "{most} bytes");
}

#[test]
fn requests_wait_before_large_values_of_other_nodes_fill_the_buffers() {
    const VALUE: u32 = 100_000;
    let limits = Limits {
        buffers_max: 8 << 20,
        reply_bytes_max: 1 << 20,
        value_bytes_max: VALUE,
        ..Limits::default()
    };
    let (mut world, mut link) = with_unknown_peer(limits);
    world.driver.watch = None;
    let client = world.driver.client();
    world.driver.reads(client, false);
    let value = "v".repeat(VALUE as usize);
    world.driver.send(client, (0..256).map(|n| format!("GET k{n}\n")).collect::<String>());
    let mut most = 0;
    for _ in 0..400 {
        // All that was queried is sent at once, the last one first: it waits for those before it.
        for (number, key) in queried(&mut world, &mut link).into_iter().rev() {
            let hash = world.hash(&key);
            let body = Body::Value { hash, version: 1, left_ms: None, value: value.as_bytes() };
            world.send(&link, &[(number, body)]);
        }
        most = most.max(world.stat("buffers_bytes"));
        world.driver.read_some(client, 100_000);
    }
    let read = world.driver.take_bytes(client).len();
    assert_eq!(read, (0..256).map(|n| format!(":GOT k{n}:\n").len() + value.len()).sum::<usize>());
    assert!(most < 3 << 20, "{most} bytes");
}

#[test]
fn queries_beyond_the_limit_of_a_peer_are_deferred() {
    let (mut world, mut link) = with_unknown_peer(Limits { lookups_per_peer: 2, ..Limits::default() });
    let all = clients(&mut world, 6);
    for (at, client) in all.iter().enumerate() {
        world.driver.send(*client, format!("GET k{at}\n"));
    }
    assert_eq!(world.driver.node.lookups(), 6);
    let mut first = queried(&mut world, &mut link);
    assert_eq!(first.len(), 2);
    // One answer, one query more.
    let rest = first.split_off(1);
    answer(&mut world, &link, &first);
    let third = queried(&mut world, &mut link);
    assert_eq!(third.len(), 1);
    answer(&mut world, &link, &rest);
    answer(&mut world, &link, &third);
    let more = queried(&mut world, &mut link);
    assert_eq!(more.len(), 2);
    // Those that never get a turn end with their time.
    world.driver.pass(ms(100));
    for (at, client) in all.iter().enumerate() {
        let expected = if at < 3 { format!(":GOT k{at}:k{at}\n") } else { ":GOT \n".to_owned() };
        assert_eq!(world.driver.take(*client), expected, "{at}");
    }
    assert_eq!(world.driver.node.stats().lookup_timeouts, 3);
}

#[test]
fn lookups_waiting_for_a_slot_go_on_when_the_circuit_opens() {
    let (mut world, mut link) = with_unknown_peer(Limits { lookups_per_peer: 2, ..Limits::default() });
    world.driver.pass(ms(1));
    let all = clients(&mut world, 202);
    for client in &all[200..] {
        world.driver.send(*client, "GET first\n");
        world.driver.pass(ms(100));
    }
    for (at, client) in all[..200].iter().enumerate() {
        if at == 2 {
            world.driver.pass(ms(50));
        }
        world.driver.send(*client, format!("GET k{at}\n"));
    }
    assert_eq!(queried(&mut world, &mut link).len(), 4);
    world.driver.pass(ms(50));
    assert_eq!(queried(&mut world, &mut link), []);
    for client in &all {
        assert_eq!(world.driver.take(*client), ":GOT \n");
    }
    let stats = world.driver.node.stats();
    assert_eq!((stats.lookup_timeouts, stats.lookup_misses, stats.circuits_opened), (4, 198, 1));
}

#[test]
fn queries_to_a_link_that_takes_nothing_wait_outside_it_and_open_the_circuit() {
    let (mut world, mut link) = with_unknown_peer(Limits::default());
    let key = |at: usize| format!("{at:05}{}", "k".repeat(10_000));
    world.driver.reads(link.conn, false);
    let all = clients(&mut world, 300);
    all.iter().enumerate().for_each(|(at, client)| world.driver.send(*client, format!("GET {}\n", key(at))));
    assert_eq!(world.driver.node.lookups(), 300);
    let sent = world.driver.node.stats().queries;
    assert!((20..30).contains(&sent), "{sent} queries of 10 KB in a link where 256 KiB may wait");
    world.driver.reads(link.conn, true);
    for _ in 0..20 {
        let queries = queried(&mut world, &mut link);
        answer(&mut world, &link, &queries);
    }
    for (at, client) in all.iter().enumerate() {
        assert_eq!(world.driver.take(*client), format!(":GOT {0}:{0}\n", key(at)));
    }
    // What is full of answers takes no query: the peer is as one that does not answer.
    world.driver.pass(ms(1));
    world.begin(&format!("SET big:{}\n", "x".repeat(100_000)));
    world.replies();
    world.driver.reads(link.conn, false);
    let get = Body::Get { key: b"big", wanted: Wanted::Value };
    world.driver.send(link.conn, bytes_of(&[(1, get), (2, get), (3, get)]));
    let before = world.driver.node.stats().queries;
    for n in 0..4 {
        world.begin(&format!("GET more{n}\n"));
        world.driver.pass(ms(100));
        assert_eq!(world.replies(), ":GOT \n");
    }
    let stats = world.driver.node.stats();
    assert_eq!((stats.queries - before, stats.circuits_opened, stats.lookup_timeouts), (0, 1, 3));
}

#[test]
fn in_flight_queries_of_a_peer_are_limited() {
    let limits = Limits {
        lookups_per_peer: 1_024,
        lookups_per_connection: 65_536,
        value_bytes_max: 1_000,
        ..Limits::default()
    };
    let (mut world, mut link) = with_unknown_peer(limits);
    world.driver.watch = None;
    let keys: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    world.begin(&format!("GET {}\n", keys.join(",")));
    world.begin("GET a,b,c\n");
    let more: Vec<String> = (1_000..1_100).map(|n| n.to_string()).collect();
    world.begin(&format!("GET {}\n", more.join(",")));
    assert_eq!(world.driver.node.lookups(), 1_103);
    assert_eq!(queried(&mut world, &mut link).len(), 1_024);
    world.driver.node.audit();
    world.driver.pass(ms(100));
    assert_eq!(world.replies(), ":GOT \n:GOT \n:GOT \n");
}

/// Does the due work step by step; the most queries of one step.
fn most_queries_in_a_step(world: &mut World) -> u64 {
    let mut most = 0;
    while world.driver.node.has_work(world.driver.now) {
        let before = world.driver.node.stats().queries;
        world.driver.node.tick(world.driver.now);
        most = most.max(world.driver.node.stats().queries - before);
    }
    world.driver.run();
    most
}

#[test]
fn lookups_of_many_keys_at_many_peers_run_in_short_steps() {
    let limits = Limits { lookups_per_connection: 65_536, ..Limits::default() };
    let mut world = World::new(Config { limits, ..Config::default() });
    world.driver.watch = None;
    let mut claimant = world.known(&Face::new(1));
    let mut links: Vec<Link> = (2..=41).map(|number| world.linked(&Face::new(number))).collect();
    for names in ["claimed", "unclaimed"] {
        let keys: Vec<String> = (0..1_000).map(|n| format!("{names}{n}")).collect();
        if names == "claimed" {
            let hashes: Vec<u64> = keys.iter().map(|key| world.hash(key)).collect();
            world.publish(&mut claimant, head(1, 0), 6, &[0; 8 << 6]);
            world.driver.send(claimant.conn, peer::deltas(0, &hashes));
        }
        let client = world.driver.client();
        let before = world.driver.node.stats().queries;
        world.driver.deliver(client, format!("GET {}\n", keys.join(",")).as_bytes());
        let at_once = world.driver.node.stats().queries - before;
        assert!(at_once <= 256 + 40, "{names}: {at_once} in one call");
        let most = most_queries_in_a_step(&mut world);
        assert!(most <= 256 + 40, "{names}: {most} in one step");
        // The claimant is slow, and the others are queried.
        world.driver.leap(ms(20));
        let most = most_queries_in_a_step(&mut world);
        assert!(most <= 256 + 40, "{names}: {most} in one step when the claimant is slow");
        for link in &mut links {
            assert_eq!(queried(&mut world, link).len(), 1_000, "{names}");
        }
        world.driver.pass(ms(80));
        assert_eq!(world.driver.take(client), ":GOT \n");
        // A silent peer is queried again after its next frame.
        links.iter().chain([&claimant]).for_each(|link| world.send(link, &[peer::heartbeat(1)]));
        world.frames(&mut claimant);
    }
    // So are many requests of one key each.
    let client = world.driver.client();
    let requests: String = (0..1_000).map(|n| format!("GET small{n}\n")).collect();
    let before = world.driver.node.stats().queries;
    world.driver.deliver(client, requests.as_bytes());
    let at_once = world.driver.node.stats().queries - before;
    assert!(at_once <= 256 + 41, "{at_once} in one call");
    let most = most_queries_in_a_step(&mut world);
    assert!(most <= 256 + 41, "{most} in one step");
    world.driver.node.audit();
}

/// A notice costs as much as a key.
#[test]
fn notices_of_writes_are_paid_for_by_their_writer_and_bounded_in_a_step() {
    let mut world = World::new(Config::default());
    // Their filters are unknown, so each write is reported to them.
    let peers = 4;
    (1..=peers).for_each(|number| _ = world.linked(&Face::new(number)));
    let writer = world.driver.client();
    let lines: String = (0..1_000).map(|n| format!("SET k{n}:v\n")).collect();
    world.driver.deliver(writer, lines.as_bytes());
    let (mut sent, mut most, mut calls) = (0, 0, 1);
    while sent < 4_000 {
        let now = world.driver.node.stats().invalidations_sent;
        most = most.max(now - sent);
        sent = now;
        world.driver.node.step(world.driver.now, Class::Clients);
        calls += 1;
        assert!(calls < 100, "{sent} notices");
    }
    // 5,000 keys by turns of 256, and what a turn is over by.
    assert!(calls >= 18 && most <= 2 * 256, "{calls} calls, {most} notices in one");
    world.driver.act();
}

#[test]
fn ended_lookups_leave_no_work() {
    let mesh = MeshLimits { lookup_timeout_ms: 60_000, ..MeshLimits::default() };
    let mut world = World::new(Config { mesh, ..Config::default() });
    let mut link = world.linked(&Face::new(1));
    let waiting = world.driver.client();
    world.driver.send(waiting, "GET slow\n");
    assert_eq!(queried(&mut world, &mut link).len(), 1);
    // The audit after each call looks whether it all adds up.
    for n in 0..1_000 {
        world.begin(&format!("GET k{n}\n"));
        let queries = queried(&mut world, &mut link);
        answer(&mut world, &link, &queries);
        assert_eq!(world.replies(), format!(":GOT k{n}:k{n}\n"));
    }
    assert_eq!(world.driver.node.lookups(), 1);
    let ticks = world.driver.ticks;
    for _ in 0..60 {
        world.driver.pass(ms(1_000));
        world.send(&link, &[peer::heartbeat(1)]);
    }
    assert_eq!(world.driver.take(waiting), ":GOT \n");
    assert!(
        world.driver.ticks - ticks < 400,
        "{} steps about a thousand lookups that have ended",
        world.driver.ticks - ticks
    );
}

#[test]
fn waiters_beyond_the_limit_start_another_lookup() {
    let (mut world, mut link) = with_unknown_peer(Limits::default());
    let all = clients(&mut world, 100);
    for client in &all {
        world.driver.send(*client, "GET far\n");
    }
    let queries = queried(&mut world, &mut link);
    assert_eq!(queries.len(), 4, "one for each 32");
    assert_eq!(world.driver.node.stats().lookups_coalesced, 96);
    for (at, query) in queries.iter().enumerate() {
        let answered = all.iter().filter(|client| world.driver.take(**client) == ":GOT far:far\n").count();
        assert_eq!(answered, if at == 0 { 0 } else { 32 });
        answer(&mut world, &link, std::slice::from_ref(query));
    }
    assert_eq!(world.driver.node.lookups(), 0);
}

#[test]
fn filter_that_does_not_fit_leaves_its_peer_unknown_until_the_budget_is_larger() {
    let limits = Limits { peer_filters_max: 1 << 20, ..Limits::default() };
    let config = Config { limits, ..Config::default() };
    let mut world = World::new(config.clone());
    let face = Face::new(1);
    let mut link = world.linked(&face);
    world.publish(&mut link, head(1, 0), 15, &[0; 8 << 15]);
    assert_eq!(world.filter(&face), FilterState::Unknown);
    assert_eq!(world.driver.node.stats().digest_messages_refused, 1);
    assert_eq!((world.stat("peer_filters_bytes"), world.stat("peer_filters_max")), (0, 1 << 20));
    assert!(world.driver.node.is_ready(), "what was refused is not waited for");
    let limits = Limits { peer_filters_max: 1 << 22, ..Limits::default() };
    world.driver.node.reconfigure(world.driver.now, Config { limits, ..config });
    world.publish(&mut link, head(1, 0), 15, &[0; 8 << 15]);
    assert_eq!((world.filter(&face), world.stat("peer_filters_bytes")), (FilterState::Known, 1 << 21));
}

#[test]
fn backup_peers_are_linked_after_a_peer_left() {
    let mesh = MeshLimits { active_peers: 1, known_peers_max: 3, ..MeshLimits::default() };
    let mut world = World::new(Config { mesh, ..secretive() });
    let faces: Vec<Face> = (1..=3).map(Face::elsewhere).collect();
    let first = world.dial(&faces[0]);
    world.join(&[&faces[1].listen]);
    world.driver.pass(ms(1_000));
    assert_eq!(world.driver.next_dial(), None);
    assert_eq!((world.stat("peers_linked"), world.stat("peers_backup")), (1, 1));
    assert!(world.call("STATS\n").contains(",mesh_complete:no,"));
    world.driver.lose(first.conn);
    world.driver.pass(ms(200));
    let dialled: Vec<String> =
        std::iter::from_fn(|| world.driver.next_dial()).map(|(_, addr)| addr.to_string()).collect();
    assert!(dialled.contains(&faces[1].listen), "{dialled:?}");
}

#[test]
fn address_beyond_the_book_is_counted_and_configured_ones_always_fit() {
    let mesh = MeshLimits { active_peers: 2, known_peers_max: 2, ..MeshLimits::default() };
    let mut world = World::new(Config { mesh, ..secretive() });
    let faces: Vec<Face> = (1..=5).map(Face::elsewhere).collect();
    let listens: Vec<&str> = faces[2..].iter().map(|face| face.listen.as_str()).collect();
    world.join(&listens);
    world.dial(&faces[0]);
    world.dial(&faces[1]);
    assert_eq!((world.stat("peers_linked"), world.stat("peers_backup")), (2, 3));
    assert_eq!(world.stat("addresses_dropped"), 2);
}

#[test]
fn dial_times_out_after_three_seconds() {
    let mut world = World::new(Config { base_node: false, ..secretive() });
    world.join(&["192.0.2.11:5454"]);
    let (conn, _) = world.next_dial();
    world.driver.pass(ms(2_999));
    assert!(!world.driver.is_closed(conn) && !world.driver.node.is_ready());
    world.driver.pass(ms(1));
    assert!(world.driver.is_closed(conn) && world.driver.node.is_ready());
    assert_eq!(world.closed(CloseReason::DialFailed), 1);
    // Each try later than the one before, up to half a minute, and for ever.
    let mut waits = Vec::new();
    for _ in 0..12 {
        let mut waited = 0;
        let conn = loop {
            if let Some((conn, _)) = world.driver.next_dial() {
                break conn;
            }
            world.driver.pass(ms(25));
            waited += 25;
        };
        waits.push(waited);
        world.driver.lose(conn);
    }
    assert!((75..=150).contains(&waits[0]), "{waits:?}");
    assert!(waits.windows(2).take(8).all(|pair| pair[0] < pair[1]), "{waits:?}");
    assert!(waits[9..].iter().all(|wait| (22_500..=37_525).contains(wait)), "{waits:?}");
}

#[test]
fn no_more_than_sixteen_addresses_are_dialled_at_a_time() {
    let mut world = World::new(Config { base_node: false, ..secretive() });
    let listens: Vec<String> = (1..=40).map(|n| Face::elsewhere(n).listen).collect();
    world.join(&listens.iter().map(String::as_str).collect::<Vec<_>>());
    let mut tried = BTreeSet::new();
    for rounds in 0.. {
        let dials: Vec<_> = std::iter::from_fn(|| world.driver.next_dial()).collect();
        assert!(dials.len() <= 16, "{}", dials.len());
        tried.extend(dials.into_iter().map(|(_, addr)| addr));
        if world.driver.node.is_ready() {
            break;
        }
        assert!(rounds < 20, "some are never dialled");
        world.driver.pass(ms(3_050));
    }
    assert_eq!(tried.len(), 40);
    assert!(world.closed(CloseReason::DialFailed) >= 40);
}

#[test]
fn lookup_uses_the_configured_timeouts() {
    let mesh = MeshLimits { lookup_try_ms: 300, lookup_timeout_ms: 700, ..MeshLimits::default() };
    let mut world = World::new(Config { mesh, ..Config::default() });
    let faces = [Face::new(1), Face::new(2)];
    let mut links = faces.each_ref().map(|face| world.known(face));
    let far = world.hash("far");
    for link in &links {
        world.driver.send(link.conn, peer::deltas(0, &[far]));
    }
    world.begin("GET far\n");
    let queried = |world: &mut World, links: &mut [Link; 2]| {
        links.iter_mut().map(|link| world.queries(link).len()).sum::<usize>()
    };
    assert_eq!(queried(&mut world, &mut links), 1);
    world.driver.pass(ms(299));
    assert_eq!(queried(&mut world, &mut links), 0);
    world.driver.pass(ms(1));
    assert_eq!(queried(&mut world, &mut links), 1);
    world.driver.pass(ms(399));
    assert_eq!(world.replies(), "");
    world.driver.pass(ms(1));
    assert_eq!(world.replies(), ":GOT \n");
}

#[test]
fn peer_silent_for_three_heartbeats_is_unlinked_at_any_interval() {
    for interval in [10, 200, 60_000] {
        let mesh = MeshLimits { heartbeat_interval_ms: interval, ..MeshLimits::default() };
        let mut world = World::new(Config { mesh, ..Config::default() });
        let face = Face::new(1);
        let link = world.linked(&face);
        world.driver.pass(ms(3 * u64::from(interval) - 1));
        assert!(world.is_linked(&face));
        world.driver.pass(ms(1));
        assert!(!world.is_linked(&face) && world.driver.is_closed(link.conn));
        assert_eq!(world.closed(CloseReason::PeerSilent), 1);
    }
}

#[test]
fn peer_with_a_full_output_gets_no_deltas_until_it_reads() {
    let limits = Limits { line_bytes_max: 4 << 20, value_bytes_max: 4 << 20, ..Limits::default() };
    let mut world = World::new(Config { limits, ..Config::default() });
    let value = "x".repeat(2 << 20);
    assert!(world.call(&format!("SET big:{value}\n")).starts_with(":SAT"));
    let mut link = world.known(&Face::new(1));
    world.send(&link, &[(0, Body::Resync(None))]);
    assert!(world.frames(&mut link).contains(&Received::Changelog));
    world.driver.reads(link.conn, false);
    world.send(&link, &[(1, Body::Get { key: b"big", wanted: Wanted::Value })]);
    let reply = world.driver.node.stats().digest_sent_bytes;
    for n in 0..1_000 {
        world.call(&format!("SET n{n}:1\n"));
    }
    world.driver.pass(ms(100));
    assert_eq!(world.driver.node.stats().digest_sent_bytes, reply);
    world.driver.reads(link.conn, true);
    world.driver.pass(ms(10));
    let more = world.driver.node.stats().digest_sent_bytes - reply;
    assert!(more >= 1_000 * 8, "{more} bytes");
    assert!(world.frames(&mut link).contains(&Received::Changelog));
}

#[test]
fn peer_that_reads_nothing_is_closed_as_a_slow_reader() {
    let limits = Limits { slow_reader_ms: 2_000, value_bytes_max: 60_000, ..Limits::default() };
    let mut world = World::new(Config { limits, ..Config::default() });
    world.call(&format!("SET big:{}\n", "x".repeat(60_000)));
    let face = Face::new(1);
    let link = world.linked(&face);
    world.driver.reads(link.conn, false);
    let get = Body::Get { key: b"big", wanted: Wanted::Value };
    world.driver.send(link.conn, bytes_of(&[(1, get), (2, get)]));
    world.driver.pass(ms(1_999));
    assert!(world.is_linked(&face));
    world.driver.pass(ms(1));
    assert!(!world.is_linked(&face));
    assert_eq!(world.closed(CloseReason::SlowReader), 1);
}

#[test]
fn filter_whose_text_is_longer_than_a_reply_by_its_head_alone_is_an_error() {
    let replies = |reply_bytes_max: u32| {
        let limits = Limits {
            value_bytes_max: 1_000,
            reply_bytes_max,
            outbound_pause_bytes: 1 << 15,
            ..Limits::default()
        };
        let mut world = World::new(Config { limits, ..Config::default() });
        (0..1_300).for_each(|n| _ = world.call(&format!("SET n{n}:1\n")));
        assert_eq!(world.stat("filter_bits"), 1 << 15);
        world.call("REQUEST bloomfilter\n")
    };
    let whole = replies(1 << 15);
    assert!(whole.starts_with(":FULFILLED v=1,"), "{whole}");
    assert!((8_193..8_300).contains(&whole.len()), "{}", whole.len());
    assert!(replies(8_192).starts_with(":ERR the filter of 4096 bytes"));
    assert_eq!(replies(8_300), whole);
}

/// Two linked nodes, the first with room for some 10,000 values of 200 bytes, and a client of each.
struct Pair {
    mesh: Mesh,
    clients: [ClientId; 2],
}

impl Pair {
    fn new() -> Self {
        let mut mesh = Mesh::new();
        let homes: [SocketAddr; 2] = ["127.0.0.1:1", "127.0.0.1:2"].map(|addr| addr.parse().unwrap());
        let small = Limits { memory_max: 4 << 20, ..Limits::default() };
        for (at, limits) in [small, Limits::default()].into_iter().enumerate() {
            mesh.add(at as u64 + 1, Config { limits, ..Config::default() }, &homes[at..=at]);
        }
        mesh.join(0, homes[0], &[]);
        mesh.join(1, homes[1], &homes[..1]);
        mesh.pass(ms(2_000));
        assert_eq!((mesh.linked(0), mesh.linked(1)), (1, 1));
        let clients = [0, 1].map(|at| mesh.nodes[at].client());
        Self { mesh, clients }
    }

    fn call(&mut self, at: usize, text: &str) -> String {
        self.mesh.nodes[at].send(self.clients[at], text);
        self.mesh.run([at]);
        self.mesh.nodes[at].take(self.clients[at])
    }

    fn stat(&mut self, at: usize, name: &str) -> u64 {
        let stats = self.call(at, "STATS\n");
        let found = stats.split([',', ' ']).find_map(|field| field.strip_prefix(&format!("{name}:")));
        found.unwrap().trim().parse().unwrap()
    }

    /// Sets keys on the first node, each with its own name, in groups of which each is published.
    fn fill(&mut self, keys: std::ops::Range<u32>) {
        for key in keys {
            let reply = self.call(0, &format!("SET k{key}:{}\n", "x".repeat(200)));
            assert!(reply.starts_with(":SAT "), "{reply}");
            if key.is_multiple_of(500) {
                self.mesh.pass(ms(100));
            }
        }
        self.mesh.pass(ms(3_000));
    }
}

#[test]
fn evicted_keys_are_misses_on_other_nodes_and_a_node_at_its_limit_takes_what_peers_send() {
    let mut pair = Pair::new();
    pair.fill(0..40_000);
    assert!(pair.stat(0, "evictions") > 20_000);
    // No deletes, and no tombstones while every peer has acknowledged what it was sent.
    assert_eq!((pair.stat(1, "invalidations_received"), pair.stat(0, "tombstones")), (0, 0));
    let before = pair.stat(1, "queries");
    for key in 0..1_000 {
        assert_eq!(pair.call(1, &format!("GET k{key}\n")), ":GOT \n");
    }
    let queries = pair.stat(1, "queries") - before;
    println!("{queries} queries for 1,000 evicted keys");
    assert!(queries < 120, "{queries} queries for 1,000 evicted keys: the filter claims them");
    // INVALIDATE, DELETE and additions of the other node.
    for key in 39_900..40_000 {
        assert!(pair.call(0, &format!("GET k{key}\n")).contains("xxx"), "one of the latest keys");
        assert!(pair.call(1, &format!("SET k{key}:new\n")).starts_with(":SAT "));
        pair.mesh.pass(ms(20));
        assert_eq!(pair.call(0, &format!("GET k{key}\n")), format!(":GOT k{key}:new\n"));
        assert_eq!(pair.call(0, &format!("DEL k{key}\n")), format!(":DELETED k{key}\n"));
        let other = key - 100;
        // Held by the node at its limit.
        assert_eq!(pair.call(1, &format!("DEL k{other}\n")), format!(":DELETED k{other}\n"));
        assert_eq!(pair.call(0, &format!("GET k{key},k{other}\n")), ":GOT \n");
    }
    assert_eq!(pair.stat(0, "evictions") + pair.stat(0, "keys") + 100, 40_000 - 100);
}

#[test]
fn keys_evicted_while_a_peer_is_cut_off_leave_bounded_tombstones() {
    let mut pair = Pair::new();
    pair.mesh.break_wires(|_| true);
    // Nothing is delivered: both fail to link again.
    for key in 0..40_000 {
        pair.mesh.nodes[0].send(pair.clients[0], format!("SET k{key}:{}\n", "x".repeat(200)));
    }
    pair.mesh.nodes[0].take(pair.clients[0]);
    let stats = |pair: &mut Pair, name: &str| -> u64 {
        let (node, client) = (&mut pair.mesh.nodes[0], pair.clients[0]);
        let stats = node.call(client, "STATS\n");
        let found = stats.split([',', ' ']).find_map(|field| field.strip_prefix(&format!("{name}:")));
        found.unwrap().trim().parse().unwrap()
    };
    let (tombstones, evictions) = (stats(&mut pair, "tombstones"), stats(&mut pair, "evictions"));
    println!("{tombstones} tombstones, {evictions} evictions");
    assert!(evictions > 20_000 && (100..4_000).contains(&tombstones), "{tombstones} of {evictions}");
    assert_eq!(stats(&mut pair, "tombstones_lost"), 0);
}
