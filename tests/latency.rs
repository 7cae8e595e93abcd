//! Times of requests in the histograms and the log of slow requests, with a virtual clock.

mod kit;

use kit::ClientId;
use kit::peer::{Face, World};
use kit::{ms, resp};
use olivia::config::Config;
use olivia::limits::Limits;
use olivia::wire::frame::Body;
use std::time::Duration;

fn world(limits: Limits) -> World {
    World::new(Config { limits, ..Config::default() })
}

/// The bulk strings of a reply.
fn texts(reply: &str) -> Vec<&str> {
    let lines: Vec<&str> = reply.split("\r\n").collect();
    lines.windows(2).filter(|pair| pair[0].starts_with('$')).map(|pair| pair[1]).collect()
}

/// The integers of a reply.
fn numbers(reply: &str) -> Vec<i64> {
    reply.split("\r\n").filter_map(|line| line.strip_prefix(':')?.parse().ok()).collect()
}

/// Returns the reply to a request of another client.
fn call(world: &mut World, client: ClientId, words: &[&str]) -> String {
    world.driver.call(client, &resp(words))
}

#[test]
fn log_of_slow_requests_parts_the_time_here_with_peers_and_in_output() {
    let mut world = world(Limits::default());
    let mut link = world.linked(&Face::new(1));
    let watcher = world.driver.client();
    let client = world.driver.connect("127.0.0.1:4711").unwrap();
    call(&mut world, client, &["CLIENT", "SETNAME", "shop"]);
    // The peer answers after 30 ms, and the client reads after 50 more.
    world.driver.reads(client, false);
    world.driver.send(client, resp(&["GET", "far"]));
    world.driver.pass(ms(30));
    let request = world.queries(&mut link)[0];
    let hash = world.hash("far");
    let body = Body::Value { hash, version: 1, left_ms: None, value: b"v" };
    world.send(&link, &[(request, body)]);
    world.driver.pass(ms(50));
    world.driver.reads(client, true);
    assert_eq!(world.driver.take(client), "$1\r\nv\r\n");
    let log = call(&mut world, watcher, &["SLOWLOG", "GET"]);
    let parts = "... (0 us here, 30000 us waiting for peers, 50000 us in output)";
    assert_eq!(texts(&log), ["GET", "far", parts, "127.0.0.1:4711", "shop"], "{log}");
    assert_eq!(numbers(&log)[2], 80_000);
    world.driver.pass(ms(1_000));
    // The shell reports the work of the call that a request is carried out in.
    world.driver.reads(client, false);
    world.driver.send(client, resp(&["GET", "own"]).repeat(3));
    world.driver.node.took(ms(25));
    world.driver.pass(ms(25));
    world.driver.reads(client, true);
    let log = call(&mut world, watcher, &["SLOWLOG", "GET", "1"]);
    let parts = "... (25000 us here, 0 us waiting for peers, 0 us in output)";
    assert_eq!(texts(&log)[..3], ["GET", "... (2 more requests)", parts], "{log}");
    assert_eq!(numbers(&log)[0], 1);
    assert_eq!(numbers(&call(&mut world, watcher, &["SLOWLOG", "LEN"])), [2]);
    let latest = call(&mut world, watcher, &["LATENCY", "LATEST"]);
    assert_eq!((texts(&latest)[0], numbers(&latest)[1..].to_vec()), ("command", vec![25, 80]), "{latest}");
    assert_eq!(numbers(&call(&mut world, watcher, &["LATENCY", "HISTORY", "command"])).len(), 4);
    assert_eq!(numbers(&call(&mut world, watcher, &["LATENCY", "RESET", "event-loop"])), [0]);
    assert_eq!(numbers(&call(&mut world, watcher, &["LATENCY", "RESET"])), [1]);
    assert_eq!(call(&mut world, watcher, &["SLOWLOG", "RESET"]), "+OK\r\n");
    assert_eq!(numbers(&call(&mut world, watcher, &["SLOWLOG", "LEN"])), [0]);
    assert_eq!(world.call("STATS slow_requests\n"), ":STATS slow_requests:2\n");
}

#[test]
fn slow_requests_are_kept_up_to_their_limit_and_not_at_all_without_a_threshold() {
    for (limits, kept, counted) in [
        (Limits { slow_requests_max: 3, ..Limits::default() }, 3, 5),
        (Limits { slow_requests_max: 0, ..Limits::default() }, 0, 5),
        (Limits { slow_request_us: 0, ..Limits::default() }, 0, 0),
        (Limits { slow_request_us: 30_000, ..Limits::default() }, 0, 0),
    ] {
        let mut world = world(limits);
        let (client, watcher) = (world.driver.client(), world.driver.client());
        for _ in 0..5 {
            world.driver.reads(client, false);
            world.driver.send(client, "PING\n");
            world.driver.pass(ms(20));
            world.driver.reads(client, true);
        }
        assert_eq!(numbers(&call(&mut world, watcher, &["SLOWLOG", "LEN"])), [kept]);
        assert_eq!(world.call("STATS slow_requests\n"), format!(":STATS slow_requests:{counted}\n"));
    }
}

#[test]
fn requests_of_one_read_share_its_work_and_each_is_in_the_histogram_of_its_command() {
    let mut world = world(Limits::default());
    let (client, watcher) = (world.driver.client(), world.driver.client());
    call(&mut world, watcher, &["PING"]);
    // Shared with the SET of the key that is there from the beginning.
    world.driver.node.took(Duration::from_micros(3));
    world.driver.send(client, "SET a:1\nGET a\nGET a\nGET own\n");
    world.driver.node.took(Duration::from_micros(40));
    let read = call(&mut world, watcher, &["LATENCY", "HISTOGRAM", "mget", "SET", "get", "config"]);
    // 10 us each: from 8.192 to 16.384.
    assert_eq!(
        (texts(&read), numbers(&read)),
        (
            vec!["get", "calls", "histogram_usec", "set", "calls", "histogram_usec"],
            vec![3, 16, 3, 2, 2, 1, 16, 2]
        )
    );
    let ping = call(&mut world, watcher, &["LATENCY", "HISTOGRAM", "ping"]);
    assert_eq!(numbers(&ping), [1, 2, 1]);
    world.driver.node.took(Duration::from_micros(10));
    // A word that others stand under means those.
    for name in ["latency", "latency|histogram"] {
        let histogram = call(&mut world, watcher, &["LATENCY", "HISTOGRAM", name]);
        assert_eq!((texts(&histogram)[0], numbers(&histogram)[0]), ("latency|histogram", 2), "{histogram}");
    }
    call(&mut world, watcher, &["CONFIG", "RESETSTAT"]);
    assert_eq!(call(&mut world, watcher, &["LATENCY", "HISTOGRAM", "get"]), "*0\r\n");
}

#[test]
fn pipeline_that_is_not_read_costs_bounded_memory_and_all_its_requests_are_counted() {
    let mut world = world(Limits { outbound_pause_bytes: 1 << 20, ..Limits::default() });
    let client = world.driver.client();
    world.driver.reads(client, false);
    for _ in 0..1_000 {
        world.driver.send(client, "PING\n");
        world.driver.pass(ms(1));
    }
    world.driver.reads(client, true);
    let watcher = world.driver.client();
    let stats = world.driver.call(watcher, "STATS slow_requests,latency_p99_us\n");
    let number = |name: &str| -> u64 {
        let at = stats.find(name).unwrap() + name.len() + 1;
        stats[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    assert!(number("slow_requests") <= 32, "{stats}");
    assert!(number("latency_p99_us") >= 900_000, "{stats}");
}
