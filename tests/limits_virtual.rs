//! The limits of one node, each reached by a client for this purpose, on a node with a virtual clock. The messages of
//! limits are in `tests/sessions`; invariants under any client are in `tests/mesh`.

mod kit;

use kit::{ClientId, Driver, ELSEWHERE, ms, resp};
use olivia::config::{Config, Secret};
use olivia::limits::{EvictionPolicy, Limits};
use olivia::node::{Class, CloseReason};
use std::time::Duration;

/// Returns the error of a client that exceeds a time limit.
fn idle(setting: &str, ms: u32) -> String {
    format!(":ERR nothing came for too long ({setting} = {ms}); the connection ends\n")
}

fn driver(limits: Limits) -> Driver {
    assert_eq!(limits.check(), Ok(()));
    Driver::new(Config { limits, ..Config::default() })
}

/// A node that refuses writes at its memory limit.
fn refusing(memory_max: u64) -> Driver {
    driver(Limits { memory_max, eviction: EvictionPolicy::Refuse, ..Limits::default() })
}

fn with_password(limits: Limits) -> Driver {
    let password = Some(Secret::new("secret".to_owned()));
    Driver::new(Config { limits, password, ..Config::default() })
}

fn closed(driver: &Driver, reason: CloseReason) -> u64 {
    driver.node.stats().connections_closed[reason as usize]
}

/// A number of STATS, on a connection of its own.
fn stat(driver: &mut Driver, name: &str) -> u64 {
    let client = driver.client();
    let stats = driver.call(client, "STATS\n");
    driver.lose(client);
    let found = stats.trim().split([',', ' ']).find_map(|field| field.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap().parse().unwrap()
}

/// Sets `big` to so many bytes, in a value that is shown as it is.
fn set_big(driver: &mut Driver, bytes: usize) {
    let client = driver.client();
    let reply = driver.call(client, &format!("SET big:{}\n", "x".repeat(bytes)));
    assert!(reply.starts_with(":SAT big:"), "{reply}");
    driver.call(client, "QUIT\n");
    driver.shut(client);
}

/// A client that does not read, with so many replies of `big` waiting for it.
fn hoarder(driver: &mut Driver, replies: usize) -> ClientId {
    let client = driver.client();
    driver.reads(client, false);
    driver.send(client, "GET big\n".repeat(replies));
    client
}

#[test]
fn client_beyond_the_limit_is_refused_until_one_leaves() {
    let mut driver = driver(Limits { clients_max: 2, ..Limits::default() });
    let first = driver.client();
    driver.client();
    let refusal = driver.connect(ELSEWHERE).unwrap_err().to_string();
    assert_eq!(refusal, "client limit reached (clients_max = 2); try again later");
    driver.shut(first);
    assert!(driver.is_closed(first));
    let third = driver.client();
    assert_eq!(driver.call(third, "PING\n"), "0:PONG 1\n");
    assert_eq!((driver.node.stats().connections_accepted, driver.node.stats().connections_refused), (3, 1));
}

#[test]
fn silence_inside_a_request_ends_the_connection() {
    let mut driver = driver(Limits { request_idle_ms: 1_000, ..Limits::default() });
    let client = driver.client();
    driver.send(client, "SET a:1\nGET ");
    driver.pass(ms(999));
    driver.send(client, "a");
    driver.pass(ms(999));
    assert_eq!(driver.take(client), ":SAT a:1\n");
    assert!(!driver.has_ended(client));
    driver.pass(ms(1));
    assert_eq!(driver.take(client), idle("request_idle_ms", 1_000));
    assert!(driver.has_ended(client));
    driver.shut(client);
    assert!(driver.is_closed(client));
    assert_eq!(closed(&driver, CloseReason::Idle), 1);
}

#[test]
fn connections_that_time_out_together_are_closed_in_steps() {
    let mut driver = Driver::new(Config::default());
    let other = driver.client();
    (0..500).for_each(|_| {
        let silent = driver.client();
        driver.send(silent, "GET ");
    });
    driver.leap(ms(60_000));
    // Each gets an error, which it does not take.
    while driver.node.conns() > 1 {
        if !driver.node.has_work(driver.now) {
            driver.leap(ms(1_000));
        }
        let before = driver.node.conns();
        driver.node.tick(driver.now);
        driver.act();
        let closed = before - driver.node.conns();
        assert!(closed <= 128, "{closed} connections closed in one step");
        driver.deliver(other, b"PING\n");
        driver.read_now(other);
        assert_eq!(driver.take(other), "0:PONG 1\n");
    }
}

#[test]
fn clients_that_are_killed_together_are_closed_in_steps() {
    let mut driver = Driver::new(Config::default());
    let killer = driver.client();
    let others: Vec<ClientId> = (0..500).map(|_| driver.client()).collect();
    driver.call(killer, &resp(&["SET", "k", "1"]));
    driver.deliver(killer, &resp(&["CLIENT", "KILL", "TYPE", "normal"]).into_bytes());
    driver.read_now(killer);
    assert_eq!(driver.take(killer), ":500\r\n");
    assert!(driver.node.conns() > 500 - 128, "{} are left", driver.node.conns());
    // Nothing that comes then is carried out.
    others.iter().for_each(|other| driver.deliver(*other, b"DEL k\n"));
    while driver.node.conns() > 1 {
        let before = driver.node.conns();
        driver.node.tick(driver.now);
        driver.act();
        let closed = before - driver.node.conns();
        assert!((1..=128).contains(&closed), "{closed} connections closed in one step");
    }
    assert_eq!(closed(&driver, CloseReason::Killed), 500);
    assert_eq!(driver.call(killer, &resp(&["GET", "k"])), "$1\r\n1\r\n");
}

#[test]
fn silence_between_requests_has_no_timeout() {
    let mut driver = driver(Limits { request_idle_ms: 1, first_byte_ms: 1, ..Limits::default() });
    let elsewhere = driver.connect(ELSEWHERE).unwrap();
    let here = driver.client();
    driver.send(elsewhere, "\n");
    driver.pass(Duration::from_secs(86_400 * 30));
    assert_eq!(driver.call(here, "PING\n"), "0:PONG 1\n");
    assert_eq!(driver.call(elsewhere, "PING\n"), "0:PONG 1\n");
    assert_eq!(driver.node.next_deadline(), None);
}

#[test]
fn silent_remote_client_times_out() {
    let mut driver = driver(Limits { first_byte_ms: 1_000, ..Limits::default() });
    let elsewhere = driver.connect(ELSEWHERE).unwrap();
    let mapped = driver.connect("[::ffff:192.0.2.9]:4000").unwrap();
    let here = driver.client();
    let here_too = driver.connect("[::1]:4000").unwrap();
    // As an IPv4 client of this machine is seen where bind is `::`.
    let here_as_well = driver.connect("[::ffff:127.0.0.1]:4000").unwrap();
    driver.pass(ms(999));
    assert!(!driver.has_ended(elsewhere));
    driver.pass(ms(1));
    assert_eq!(driver.take(elsewhere), idle("first_byte_ms", 1_000));
    assert!(driver.has_ended(elsewhere) && driver.has_ended(mapped));
    assert!(!driver.has_ended(here) && !driver.has_ended(here_too) && !driver.has_ended(here_as_well));
}

#[test]
fn unauthenticated_client_times_out_while_sending() {
    let mut driver = with_password(Limits { request_idle_ms: 1_000, clients_max: 3, ..Limits::default() });
    let talker = driver.connect(ELSEWHERE).unwrap();
    let dripper = driver.connect(ELSEWHERE).unwrap();
    let known = driver.connect(ELSEWHERE).unwrap();
    driver.call(known, "AUTH secret\n");
    assert!(driver.connect(ELSEWHERE).is_err());
    for _ in 0..10 {
        driver.send(talker, "\n");
        driver.send(dripper, "A");
        driver.pass(ms(99));
    }
    driver.take(talker);
    driver.pass(ms(10));
    for stranger in [talker, dripper] {
        let received = driver.take(stranger);
        assert_eq!(
            received,
            ":ERR the password was not given in time (request_idle_ms = 1000); the connection ends\n"
        );
        assert!(driver.has_ended(stranger));
        driver.shut(stranger);
    }
    assert_eq!(closed(&driver, CloseReason::Unauthenticated), 2);
    assert_eq!(driver.call(known, "PING\n"), "0:PONG 1\n");
    assert!(driver.connect(ELSEWHERE).is_ok());
}

#[test]
fn connection_kept_open_after_the_end_is_dropped() {
    let mut driver = driver(Limits::default());
    let client = driver.client();
    driver.send(client, "QUIT\n");
    assert_eq!(driver.take(client), ":BYE \n");
    assert!(driver.has_ended(client) && !driver.is_closed(client));
    // Traffic does not keep it alive.
    for _ in 0..10 {
        driver.pass(ms(200));
        driver.send(client, "PING\n");
    }
    assert!(driver.is_closed(client));
    assert_eq!(driver.take(client), "");
    assert_eq!(closed(&driver, CloseReason::Quit), 1);
}

/// A second without a byte taken makes a slow reader.
fn short_timeout() -> Limits {
    Limits { slow_reader_ms: 1_000, value_bytes_max: 20_000, ..Limits::default() }
}

#[test]
fn slow_reader_is_closed_after_slow_reader_ms() {
    let mut driver = driver(short_timeout());
    set_big(&mut driver, 15_000);
    let quick = hoarder(&mut driver, 1);
    let slow = hoarder(&mut driver, 1);
    // However few bytes wait.
    let few = driver.client();
    driver.reads(few, false);
    driver.send(few, "PING\n");
    driver.pass(ms(999));
    driver.reads(quick, true);
    assert!(!driver.is_closed(slow) && !driver.is_closed(few));
    driver.pass(ms(1));
    assert!(driver.is_closed(slow) && driver.is_closed(few));
    driver.pass(Duration::from_secs(3_600));
    assert!(!driver.is_closed(quick));
    assert_eq!(closed(&driver, CloseReason::SlowReader), 2);
}

#[test]
fn slow_reader_that_catches_up_restarts_its_timeout() {
    let mut driver = driver(short_timeout());
    set_big(&mut driver, 15_000);
    let client = hoarder(&mut driver, 1);
    driver.pass(ms(900));
    driver.read_some(client, 6_000);
    driver.send(client, "GET big\n");
    driver.pass(ms(999));
    assert!(!driver.is_closed(client));
    driver.pass(ms(1));
    assert!(driver.is_closed(client));
}

#[test]
fn requests_wait_while_too_much_is_unsent_and_go_on_in_order() {
    let mut driver = driver(Limits { outbound_pause_bytes: 20_000, ..Limits::default() });
    set_big(&mut driver, 10_000);
    let client = driver.client();
    driver.reads(client, false);
    let mut requests = String::new();
    for id in 0..10 {
        requests += &format!("{id}:GET big\n");
    }
    driver.send(client, &requests);
    assert!(driver.is_stopped(client));
    let waiting = driver.waiting(client);
    assert!((20_001..=30_100).contains(&waiting), "{waiting}");
    // What it sends now stays on its side, and others are served.
    driver.send(client, "10:PING\n");
    assert_eq!(driver.unread(client), 8);
    let other = driver.client();
    assert_eq!(driver.call(other, "PING\n"), "0:PONG 1\n");
    driver.read_some(client, waiting - 20_000);
    assert!(driver.waiting(client) > 20_000);
    driver.reads(client, true);
    let got = driver.take(client);
    let ids: Vec<&str> = got.lines().map(|line| line.split_once(':').unwrap().0).collect();
    assert_eq!(ids, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
    assert!(!driver.is_stopped(client));
}

/// Sets `k0` to `k511`, each to 60,000 bytes; a request for all of them, and the reply to it.
fn set_many(driver: &mut Driver) -> (String, String) {
    let client = driver.client();
    let keys: Vec<String> = (0..512).map(|key| format!("k{key}")).collect();
    let fields = keys.iter().map(|key| format!("{key}:{}", key.repeat(60_000 / key.len())));
    let fields: Vec<String> = fields.collect();
    for field in &fields {
        assert_eq!(driver.call(client, &format!("SET {field}\n")), format!(":SAT {field}\n"));
    }
    (format!("GET {},nope\n", keys.join(",")), format!(":GOT {}\n", fields.join(",")))
}

#[test]
fn long_reply_is_written_as_it_is_read_and_later_replies_follow() {
    let mut driver = driver(Limits::default());
    let (request, reply) = set_many(&mut driver);
    let client = driver.client();
    driver.reads(client, false);
    driver.send(client, format!("PING\n{request}1:PING\n{request}2:PING\n"));
    let mut got = String::new();
    while got.len() < 2 * reply.len() {
        // Two pieces and what an outbound buffer may hold, of 60 MB.
        let waiting = driver.waiting(client);
        assert!((1..=600_000).contains(&waiting), "{waiting} bytes of output after {}", got.len());
        driver.read_some(client, 100_000);
        got += &driver.take(client);
    }
    driver.reads(client, true);
    got += &driver.take(client);
    assert!(got == format!("0:PONG 1\n{reply}1:PONG 1\n{reply}2:PONG 1\n"), "{} bytes", got.len());
    driver.node.audit();
}

#[test]
fn long_reply_shows_each_key_at_its_own_moment_and_ends_with_its_client() {
    let mut driver = driver(Limits::default());
    let (request, reply) = set_many(&mut driver);
    let (client, other) = (driver.client(), driver.client());
    driver.reads(client, false);
    driver.send(client, &request);
    assert_eq!(driver.call(other, "DEL k511\n"), ":DELETED k511\n");
    driver.reads(client, true);
    let got = driver.take(client);
    assert!(reply.starts_with(got.trim_end()) && got.len() + 60_000 < reply.len() + 10, "{}", got.len());
    driver.reads(other, false);
    driver.send(other, &request);
    driver.lose(other);
    driver.run();
    driver.node.audit();
}

#[test]
fn write_after_a_long_reply_on_its_connection_waits_for_its_end() {
    let mut driver = driver(Limits::default());
    let (request, reply) = set_many(&mut driver);
    let client = driver.client();
    driver.reads(client, false);
    driver.send(client, format!("{request}DEL k511\n"));
    assert_eq!(driver.node.stats().requests, 513);
    driver.reads(client, true);
    assert!(driver.take(client) == format!("{reply}:DELETED k511\n"));
}

#[test]
fn long_reply_over_its_limit_is_an_error_before_its_first_byte() {
    let mut driver = driver(Limits { reply_bytes_max: 30_000_000, ..Limits::default() });
    let (request, _) = set_many(&mut driver);
    let client = driver.client();
    let got = driver.call(client, &request);
    assert!(got.starts_with(":ERR the reply would be longer than 30000000 bytes"), "{}", got.len());
    assert_eq!(driver.call(client, "PING\n"), "0:PONG 1\n");
    driver.node.audit();
}

#[test]
fn pipelined_reads_of_a_large_value_hold_it_once() {
    let limits = Limits { buffers_max: 32 << 20, ..Limits::default() };
    let mut driver = driver(limits);
    set_big(&mut driver, 3 << 20);
    let client = driver.client();
    for (words, bytes) in [(&["GET", "big"][..], 3 << 20), (&["GETRANGE", "big", "5", "5"], 1)] {
        driver.send(client, kit::resp(words).repeat(100));
        assert_eq!(
            driver.take_bytes(client).len(),
            100 * (format!("${bytes}\r\n").len() + bytes + 2),
            "{words:?}"
        );
    }
    assert_eq!(closed(&driver, CloseReason::BuffersFull), 0);
}

#[test]
fn work_that_requests_cause_beside_their_own_bytes_is_charged() {
    let mut driver = Driver::new(Config::default());
    let client = driver.client();
    set_big(&mut driver, 1 << 20);
    let text = "ab".repeat(400);
    for words in [["SET", "short", "1"], ["SET", "one", &text], ["SET", "other", &text]] {
        assert_eq!(driver.call(client, &kit::resp(&words)), "+OK\r\n");
    }
    let cost = |driver: &mut Driver, words: &[&str]| {
        let before = driver.node.spent();
        let reply = driver.call(client, &kit::resp(words));
        assert!(!reply.starts_with('-'), "{words:?}: {reply}");
        driver.node.spent() - before
    };
    // A KiB in, out or copied is a key, and so are 128 cells of a table.
    let large = "x".repeat(1 << 20);
    for (words, keys) in [
        (&["COPY", "big", "copy"][..], 1_024),
        (&["SET", "large", &large], 1_024),
        (&["GET", "large"], 1_024),
        (&["RENAME", "copy", "renamed"], 1_024),
        (&["SETRANGE", "new", "1000000", "x"], 976),
        (&["APPEND", "renamed", &"x".repeat(100_000)], 1_100),
        (&["SETRANGE", "short", "500000", "x"], 488),
        (&["LCS", "one", "other", "LEN"], 5_000),
    ] {
        let cost = cost(&mut driver, words);
        assert!((keys..2 * keys + 200).contains(&cost), "{words:?} costs {cost} keys");
    }
    // Together they are one step, of bounded work: the rest gets errors.
    let before = driver.node.spent();
    let copies = kit::resp(&["COPY", "big", "copy", "REPLACE"]).repeat(1_000);
    let all = [kit::resp(&["MULTI"]), copies, kit::resp(&["EXEC"])].concat();
    let reply = driver.call(client, &all);
    let (done, refused) = (reply.matches(":1\r\n").count(), reply.matches("-ERR not carried out").count());
    assert!(done >= 16 && done + refused == 1_000, "{done} copies, {refused} errors");
    let spent = driver.node.spent() - before;
    assert!(spent < 25_000, "{spent} keys");
    assert!(driver.call(client, &kit::resp(&["GET", "short"])).starts_with('$'));
    // New tables take as long as a step.
    let flush = cost(&mut driver, &["FLUSHALL"]);
    assert!((256..1_000).contains(&flush), "FLUSHALL costs {flush} keys");
}

#[test]
fn large_value_counts_as_a_buffer_once_and_not_before_its_key_has_changed() {
    const VALUE: u64 = 2 << 20;
    let mut driver = driver(Limits { buffers_max: 32 << 20, ..Limits::default() });
    set_big(&mut driver, 2 << 20);
    let before = stat(&mut driver, "buffers_bytes");
    let readers: Vec<ClientId> = (0..100).map(|_| hoarder(&mut driver, 1)).collect();
    driver.pass(ms(10));
    let held = |driver: &mut Driver| stat(driver, "buffers_bytes").saturating_sub(before);
    assert!(held(&mut driver) < 1 << 20, "{} bytes", held(&mut driver));
    for others in [0, 50] {
        set_big(&mut driver, 2 << 20);
        readers[..others].iter().for_each(|reader| driver.lose(*reader));
        let held = held(&mut driver);
        assert!((VALUE..VALUE + (1 << 20)).contains(&held), "{held} bytes for {others}");
    }
    for reader in &readers[50..] {
        driver.reads(*reader, true);
        assert_eq!(driver.take(*reader).len(), ":GOT big:\n".len() + (2 << 20));
        driver.lose(*reader);
    }
    assert!(held(&mut driver) < 1 << 20, "{} bytes", held(&mut driver));
    assert_eq!(closed(&driver, CloseReason::BuffersFull), 0);
    // A cleared store counts what is left of it in the same way.
    let reader = hoarder(&mut driver, 1);
    let client = driver.client();
    driver.call(client, &resp(&["FLUSHALL"]));
    driver.pass(ms(10));
    assert!((VALUE..VALUE + (1 << 20)).contains(&held(&mut driver)), "{} bytes", held(&mut driver));
    driver.lose(reader);
    assert!(held(&mut driver) < 1 << 20, "{} bytes", held(&mut driver));
}

#[test]
fn text_of_the_filter_is_counted_while_it_is_written() {
    let mut driver = Driver::new(Config::default());
    let [client, other] = [driver.client(), driver.client()];
    for at in 0..100 {
        let keys: Vec<String> = (0..1_000).map(|n| format!("k{at}x{n}:1")).collect();
        driver.call(client, &format!("SET {}\n", keys.join(",")));
    }
    driver.deliver(client, b"REQUEST bloomfilter\n");
    let mut counts: Vec<u64> = Vec::new();
    while driver.waiting(client) == 0 {
        driver.deliver(other, b"STATS buffers_bytes\n");
        driver.read_now(other);
        let reply = driver.take(other);
        counts.push(reply.trim().rsplit(':').next().unwrap().parse().unwrap());
        driver.node.step(driver.now, Class::Due);
        driver.act();
    }
    counts.dedup();
    // Half a MiB, piece by piece; and all of it until it is in the output.
    assert!(counts.len() > 4 && counts.last() > Some(&400_000), "{counts:?}");
}

#[test]
fn evictions_are_charged_to_the_write_that_needs_room() {
    let spent = |memory_max| {
        let mut driver = driver(Limits { memory_max, ..Limits::default() });
        let client = driver.client();
        let mut spent = 0;
        for key in 0..20_000 {
            let before = driver.node.spent();
            driver.deliver(client, format!("SET key{key}:{}\n", "x".repeat(200)).as_bytes());
            spent += driver.node.spent() - before;
            driver.run();
            driver.take(client);
        }
        spent
    };
    let (free, full) = (spent(0), spent(2 << 20));
    assert!(full > free + 10_000, "{full} keys at the limit, {free} below");
}

#[test]
fn transaction_at_the_memory_limit_is_carried_out_whole() {
    let mut driver = driver(Limits { memory_max: 8 << 20, ..Limits::default() });
    let (filler, client) = (driver.client(), driver.client());
    for key in 0..50_000 {
        driver.deliver(filler, format!("SET key{key}:{}\n", "x".repeat(20)).as_bytes());
        driver.run();
        driver.take(filler);
    }
    let value = "y".repeat(3_000);
    let sets: String = (0..4_000).map(|key| kit::resp(&["SET", &format!("new{key}"), &value])).collect();
    let reply = driver.call(client, &[kit::resp(&["MULTI"]), sets, kit::resp(&["EXEC"])].concat());
    assert!(reply.ends_with(&format!("*4000\r\n{}", "+OK\r\n".repeat(4_000))), "not all are set");
}

#[test]
fn large_value_is_sent_as_it_was_however_its_key_changes_meanwhile() {
    let plain = "0123456789abcdef".repeat(1 << 19);
    let quoted = "\"ü€\\\t".repeat(1 << 20);
    for value in [&plain, &quoted] {
        let mut driver = driver(Limits { line_bytes_max: 1 << 26, ..Limits::default() });
        let set = resp(&["SET", "k", value]);
        let bulk = |bytes: &str| format!("${}\r\n{bytes}\r\n", bytes.len());
        let writer = driver.client();
        assert_eq!(driver.call(writer, &set), "+OK\r\n");
        let range = &value[value.len() / 2..][..200_000];
        let [first, last] = [value.len() / 2, value.len() / 2 + 199_999].map(|at| at.to_string());
        let requests = [
            (resp(&["GET", "k"]), bulk(value)),
            (resp(&["MGET", "k", "x"]), format!("*2\r\n{}$-1\r\n", bulk(value))),
            (resp(&["GETRANGE", "k", &first, &last]), bulk(range)),
            ("GET k\n1:PING\n".to_owned(), String::new()),
            (
                resp(&["MULTI"]) + &resp(&["GETSET", "k", value]) + &resp(&["PING"]) + &resp(&["EXEC"]),
                format!("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n{}+PONG\r\n", bulk(value)),
            ),
            (resp(&["SET", "k", value, "GET"]), bulk(value)),
            (resp(&["GETDEL", "k"]), bulk(value)),
        ];
        for change in [resp(&["DEL", "k"]), resp(&["APPEND", "k", "x"])] {
            let readers: Vec<ClientId> = requests
                .iter()
                .map(|(request, _)| {
                    let reader = driver.client();
                    driver.reads(reader, false);
                    driver.send(reader, request);
                    driver.read_some(reader, 1_000);
                    reader
                })
                .collect();
            driver.call(writer, &change);
            driver.call(writer, &set.replace('7', "8"));
            driver.call(writer, &set);
            for (reader, (_, expected)) in readers.into_iter().zip(&requests) {
                driver.reads(reader, true);
                let got = driver.take(reader);
                if expected.is_empty() {
                    let shown = got.strip_suffix("\n1:PONG 1\n").unwrap();
                    let field = shown.strip_prefix(":GOT k:").unwrap();
                    let plain_field = if value == &quoted {
                        let inner = field.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
                        inner.replace("\\t", "\t").replace("\\\"", "\"").replace("\\\\", "\\")
                    } else {
                        field.to_owned()
                    };
                    assert!(plain_field == **value, "{} bytes", field.len());
                } else {
                    assert!(got == *expected, "{} bytes", got.len());
                }
            }
        }
        driver.node.audit();
        driver.node.audit_store();
    }
}

#[test]
fn large_values_come_in_whole_wherever_their_stream_is_cut() {
    let bulk = |bytes: &str| format!("${}\r\n{bytes}\r\n", bytes.len());
    let set = |value: &str| resp(&["SET", "key", value]);
    let get = resp(&["GET", "key"]);
    // In a page, in a slab, in maps of their own.
    for bytes in [10_000, 100_000, 131_000, 140_000, 700_000] {
        let mut driver = driver(Limits::default());
        let client = driver.client();
        let values = ['a', 'b', 'c'].map(|mark| "0123456789".repeat(bytes / 10) + &mark.to_string());
        let requests = values.each_ref().map(|value| set(value) + &get);
        let replies = values.each_ref().map(|value| format!("+OK\r\n{}", bulk(value)));
        let (stream, reply) = (requests.concat(), replies.concat());
        let first = requests[0].len();
        let edges = (0..50).chain(first - 50..first + 50).chain(stream.len() - 50..stream.len());
        for cut in edges {
            driver.send(client, &stream[..cut]);
            driver.send(client, &stream[cut..]);
            assert!(driver.take(client) == reply, "{bytes} bytes, cut at {cut}");
        }
        for piece in [999, 16 * 1024, 65_536, 300_000] {
            stream.as_bytes().chunks(piece).for_each(|piece| driver.send(client, piece));
            assert!(driver.take(client) == reply, "{bytes} bytes in pieces of {piece}");
        }
        // In place of a value that lies as it came in: a part of it, more than it, and all again.
        driver.call(client, &resp(&["SETRANGE", "key", "5", "xyz"]));
        driver.call(client, &resp(&["APPEND", "key", "more"]));
        let changed = format!("01234xyz{}more", &values[2][8..]);
        assert!(driver.call(client, &get) == bulk(&changed), "{bytes} bytes changed");
        driver.node.audit_store();
        // A value that is not sent to its end leaves nothing.
        stream.as_bytes()[..bytes / 2].chunks(50_000).for_each(|piece| driver.send(client, piece));
        driver.lose(client);
        driver.pass(ms(5_000));
        let client = driver.client();
        // FLUSHALL would leave no map.
        assert_eq!(driver.call(client, &resp(&["DEL", "key"])), ":1\r\n");
        driver.pass(ms(30_000));
        driver.node.audit();
        driver.node.audit_store();
        assert!(stat(&mut driver, "memory_large_objects_bytes") < 10_000, "maps are kept");
    }
}

#[test]
fn request_that_begins_in_the_read_that_ends_a_large_one_takes_no_copy_of_it() {
    let mut driver = driver(Limits::default());
    let client = driver.client();
    let set = resp(&["SET", "k", &"x".repeat(700_000)]);
    let stream = set.repeat(2).into_bytes();
    let (first, rest) = stream.split_at(set.len() - 100_000);
    first.chunks(50_000).for_each(|piece| driver.deliver(client, piece));
    driver.deliver(client, &rest[..150_000]);
    let held = stat(&mut driver, "buffers_bytes");
    assert!(held < 100_000, "{held}");
    rest[150_000..].chunks(50_000).for_each(|piece| driver.deliver(client, piece));
    driver.read_now(client);
    assert_eq!(driver.take(client), "+OK\r\n+OK\r\n");
}

#[test]
fn large_value_at_the_memory_limit_is_replaced_again_and_again() {
    let mut driver = refusing(16 << 20);
    let client = driver.client();
    let set = |key: &str, value: &str| resp(&["SET", key, value]);
    for mark in ["a", "b", "c", "d"] {
        for key in ["x", "y"] {
            let request = set(key, &mark.repeat(7 << 20));
            request.as_bytes().chunks(200_000).for_each(|piece| driver.send(client, piece));
            assert_eq!(driver.take(client), "+OK\r\n", "{mark} {key}");
            let held = stat(&mut driver, "memory_bytes");
            assert!(held <= 17 << 20, "{held} bytes after {mark} {key}");
        }
        driver.node.audit_store();
    }
    set("z", &"e".repeat(3 << 20)).as_bytes().chunks(200_000).for_each(|piece| driver.send(client, piece));
    assert!(driver.take(client).starts_with("-OOM "));
    assert!(driver.call(client, &resp(&["GET", "x"])).contains("dddd"));
}

#[test]
fn half_closed_client_that_was_paused_gets_all_its_answers() {
    // The end of the stream is read after the pause, or during it.
    for shut in [Driver::shut, Driver::shut_ahead] {
        let mut driver = driver(Limits { outbound_pause_bytes: 20_000, ..Limits::default() });
        set_big(&mut driver, 10_000);
        let client = hoarder(&mut driver, 50);
        assert!(driver.is_stopped(client));
        shut(&mut driver, client);
        driver.reads(client, true);
        assert_eq!(driver.take(client).lines().count(), 50);
        assert!(driver.is_closed(client));
        assert_eq!(closed(&driver, CloseReason::Done), 1);
    }
}

#[test]
fn connection_without_progress_for_longest_is_closed_when_buffers_are_full() {
    let limits = Limits {
        buffers_max: 1 << 20,
        reply_bytes_max: 1 << 20,
        value_bytes_max: 100_000,
        line_bytes_max: 100_000,
        ..Limits::default()
    };
    let mut driver = driver(limits);
    set_big(&mut driver, 50_000);
    let first = hoarder(&mut driver, 1);
    driver.pass(ms(1));
    // It holds the most, and takes what it is sent.
    let largest = hoarder(&mut driver, 4);
    let mut last = Vec::new();
    while !driver.is_closed(first) {
        driver.pass(ms(1));
        driver.read_some(largest, 1_000);
        last.push(hoarder(&mut driver, 1));
        assert!(last.len() < 20, "buffers are never full");
    }
    assert_eq!(closed(&driver, CloseReason::BuffersFull), 1);
    assert!(!driver.is_closed(largest));
    for client in last {
        assert!(!driver.is_closed(client));
        driver.reads(client, true);
        assert_eq!(driver.take(client).len(), ":GOT big:\n".len() + 50_000);
    }
}

#[test]
fn closed_connections_free_their_buffers() {
    let limits = Limits { buffers_max: 1 << 20, reply_bytes_max: 1 << 20, ..Limits::default() };
    let mut driver = driver(Limits { value_bytes_max: 60_000, ..limits });
    set_big(&mut driver, 50_000);
    for _ in 0..30 {
        let client = hoarder(&mut driver, 4);
        assert!(!driver.is_closed(client));
        driver.lose(client);
    }
    assert_eq!((closed(&driver, CloseReason::BuffersFull), closed(&driver, CloseReason::Lost)), (0, 30));
}

#[test]
fn unauthenticated_client_is_closed_after_its_output_limit() {
    let mut driver = with_password(Limits { unauthenticated_output_bytes_max: 1_024, ..Limits::default() });
    let client = driver.client();
    let mut received = 0;
    let mut replies = 0;
    while !driver.has_ended(client) {
        received += driver.call(client, "PING\n").len();
        replies += 1;
        assert!(replies < 1_000, "it is answered for ever");
    }
    assert_eq!(received, 1_026);
    driver.shut(client);
    assert_eq!(closed(&driver, CloseReason::Unauthenticated), 1);
    let known = driver.client();
    driver.call(known, "AUTH secret\n");
    assert_eq!(driver.call(known, &"PING\n".repeat(2_000)).lines().count(), 2_000);
    // The right password ends the limit, also where the reply to it would pass it.
    let late = driver.client();
    let mut received = 0;
    while received <= 1_010 {
        received += driver.call(late, "PING\n").len();
    }
    assert_eq!(driver.call(late, "AUTH secret\nPING\n").lines().count(), 2, "after {received} bytes");
}

/// A password in each of the ways to give one.
const LOGINS: [fn(&str) -> String; 5] = [
    |password| format!("AUTH {password}\n"),
    |password| resp(&["AUTH", password]),
    |password| resp(&["AUTH", "default", password]),
    |password| resp(&["HELLO", "3", "AUTH", "default", password]),
    |password| {
        let words = match password {
            "secret" => "eDpzZWNyZXQ=",
            _ => "eDp3cm9uZw==",
        };
        format!("HEAD / HTTP/1.1\r\nHost: a.b\r\nAuthorization: Basic {words}\r\n\r\n")
            .replace("a.b", "[::1]")
    },
];

#[test]
fn wrong_passwords_cost_their_connection_and_their_address_range_time_in_every_protocol() {
    let is_right =
        |reply: &str| [":WEL", "+OK", "%7", "HTTP/1.1 200"].iter().any(|start| reply.starts_with(start));
    for login in LOGINS {
        let mut driver = with_password(Limits::default());
        let (right, wrong) = (login("secret"), login("wrong"));
        // One is answered per second and connection, and the tenth ends it.
        let guesser = driver.connect("192.0.2.7:40000").unwrap();
        let one = driver.call(guesser, &wrong);
        driver.send(guesser, wrong.repeat(12));
        for seconds in 1..10 {
            driver.pass(ms(999));
            assert_eq!(
                (driver.take(guesser), driver.has_ended(guesser)),
                (String::new(), false),
                "{wrong:?}"
            );
            driver.pass(ms(1));
            assert_eq!(
                (driver.take(guesser), driver.has_ended(guesser)),
                (one.clone(), seconds == 9),
                "{wrong:?}"
            );
        }
        assert_eq!(driver.node.stats().auth_failures, 10);
        // Of a range ten per second are looked at, after a hundred.
        let guess = |driver: &mut Driver, count| {
            for host in 0..count {
                let guesser = driver.connect(&format!("192.0.2.{host}:40000")).unwrap();
                driver.call(guesser, &wrong);
            }
        };
        guess(&mut driver, 150);
        assert_eq!(driver.node.stats().auth_failures, 111);
        let honest = driver.connect("192.0.3.7:40000").unwrap();
        assert!(is_right(&driver.call(honest, &right)), "{right:?}");
        // What is not looked at counts for its connection. Locks last up to the next tenth of a second.
        driver.pass(ms(30));
        let locked = driver.connect("192.0.2.200:40000").unwrap();
        driver.send(locked, right.repeat(10));
        for _ in 1..10 {
            driver.pass(ms(999));
            guess(&mut driver, 12);
            driver.pass(ms(1));
            let reply = driver.take(locked);
            assert!(!reply.lines().any(is_right), "{reply:?}");
        }
        assert!(driver.has_ended(locked), "{right:?}");
        let later = driver.connect("192.0.2.201:40000").unwrap();
        driver.pass(ms(1_000));
        assert!(is_right(&driver.call(later, &right)), "{right:?}");
    }
}

#[test]
fn unauthenticated_client_has_smaller_request_limits() {
    let limits = Limits { unauthenticated_line_bytes_max: 2_048, ..Limits::default() };
    let mut driver = with_password(limits);
    let long = format!("GET {}\n", "a".repeat(3_000));
    let known = driver.client();
    driver.call(known, "AUTH secret\n");
    assert_eq!(driver.call(known, &long), ":GOT \n");
    assert_eq!(driver.call(known, "GET 1,2,3,4,5,6,7,8,9,10,11\n"), ":GOT \n");
    let stranger = driver.client();
    let received = driver.call(stranger, "GET 1,2,3,4,5,6,7,8,9,10,11\n");
    assert_eq!(
        received,
        ":ERR GET has more than 10 arguments (unauthenticated_args_max); send several requests\n"
    );
    assert_eq!(
        driver.call(stranger, &long),
        ":ERR line longer than 2048 bytes (unauthenticated_line_bytes_max)\n"
    );
    assert!(driver.has_ended(stranger));
}

#[test]
fn write_beyond_the_memory_limit_changes_nothing() {
    let mut driver = refusing(1 << 20);
    let client = driver.client();
    let value = "x".repeat(60_000);
    let mut replies = Vec::new();
    for key in 0..20 {
        replies.push(driver.call(client, &format!("SET {key}:{value}\n")));
    }
    let stored = replies.iter().filter(|reply| reply.starts_with(":SAT ")).count();
    assert!((10..18).contains(&stored), "{stored}");
    assert!(replies[19].starts_with(":ERR out of memory: "), "{}", replies[19]);
    assert_eq!(driver.call(client, "WHO 19\n"), ":HELD \n");
    let several: String = (20..25).map(|key| format!(",{key}:{value}")).collect();
    let reply = driver.call(client, &format!("SET 0:y{several}\n"));
    assert!(reply.starts_with(":ERR out of memory: "), "{}", &reply[..40]);
    assert!(driver.call(client, "GET 0\n").starts_with(":GOT 0:xx"));
    driver.call(client, "DEL 1,2\n");
    assert!(driver.call(client, &format!("SET 19:{value}\n")).starts_with(":SAT 19:"));
}

#[test]
fn full_node_evicts_for_new_keys_of_any_size_and_keeps_those_that_are_read() {
    let mut driver = driver(Limits { memory_max: 8 << 20, ..Limits::default() });
    let client = driver.client();
    driver.call(client, "SET hot:1\n");
    let mut key = 0;
    for (len, count) in [(100, 60_000), (5_000, 2_000), (300, 30_000), (40_000, 400)] {
        for _ in 0..count {
            key += 1;
            let reply = driver.call(client, &format!("SET {key}:{}\n", "x".repeat(len)));
            assert!(reply.starts_with(":SAT "), "{reply}");
            // Of 40,000 B so few fit that hardly anything is old.
            if key % 64 == 0 && len < 40_000 {
                assert_eq!(driver.call(client, "GET hot\n"), ":GOT hot:1\n", "after {key} keys");
            }
        }
        assert!(driver.call(client, &format!("GET {key}\n")).starts_with(":GOT "));
        let (memory, live) = (stat(&mut driver, "memory_bytes"), stat(&mut driver, "memory_live_bytes"));
        assert!(memory <= (8 << 20) + (8 << 20) / 16 && live > 5 << 20, "{len} B: {live} live of {memory}");
    }
    assert!(stat(&mut driver, "evictions") > 60_000);
    assert_eq!(driver.call(client, "GET 1\n"), ":HELD \n".replace("HELD ", "GOT "), "evicted long ago");
}

#[test]
fn full_store_accepts_writes_that_need_no_memory_and_none_in_part() {
    let mut driver = refusing(1 << 20);
    let client = driver.client();
    let value = "x".repeat(100);
    let full =
        (0..).find(|key| driver.call(client, &format!("SET {key}:{value}\n")).starts_with(":ERR ")).unwrap();
    let memory = |driver: &mut Driver| stat(driver, "memory_bytes");
    // A page and a region's tables are less than the hundredth part of a larger limit.
    assert!(memory(&mut driver) > (1 << 20) - 70_000, "{}", memory(&mut driver));
    for key in 0..full {
        assert_eq!(driver.call(client, &format!("SET {key}:{value}\n")), format!(":SAT {key}:{value}\n"));
    }
    // First deadlines make items longer: one by one until no page is left, several together only if all fit.
    let mut refused = 0;
    for key in (0..full - 8).step_by(4) {
        let keys: Vec<String> = (key..key + 4).map(|key| format!("{key}:1000")).collect();
        let reply = driver.call(client, &format!("EXPIRE {}\n", keys.join(",")));
        let lasts = driver.call(client, &format!("TTL {},{},{},{}\n", key, key + 1, key + 2, key + 3));
        let timed = lasts.matches(":1000").count();
        assert_eq!(timed, if reply.starts_with(":ERR out of memory") { 0 } else { 4 }, "{reply}");
        let alone = driver.call(client, &format!("EXPIRE {key}:1000\n"));
        refused += u32::from(alone.starts_with(":ERR out of memory"));
        // Expiries may take the reserve.
        assert!(memory(&mut driver) <= (1 << 20) + (256 << 10));
    }
    // The reserve is enough for all.
    assert_eq!(refused, 0);
}

#[test]
fn expire_of_several_keys_that_uses_up_the_reserve_changes_none() {
    let mut driver = refusing(4 << 20);
    let client = driver.client();
    let each = |first: u32, pair: &dyn Fn(u32) -> String| {
        (first..first + 50).map(pair).collect::<Vec<_>>().join(",")
    };
    let set = |key: &u32| format!("SET {key}:1234567890\n");
    let full = (0..).find(|key| driver.call(client, &set(key)).starts_with(":ERR ")).unwrap() / 50 * 50;
    let mut refused = 0;
    for first in (0..full).step_by(50) {
        // The first key of each fifty has an expiry, which it keeps if the others get none.
        driver.call(client, &format!("EXPIRE {first}:5000\n"));
        let before = driver.call(client, &format!("TTL {}\n", each(first, &|key| key.to_string())));
        let reply = driver.call(client, &format!("EXPIRE {}\n", each(first, &|key| format!("{key}:1000"))));
        let after = driver.call(client, &format!("TTL {}\n", each(first, &|key| key.to_string())));
        if reply.starts_with(":ERR out of memory") {
            refused += 1;
            assert_eq!(after, before);
        } else {
            assert_eq!(after.matches(":1000").count(), 50, "{reply}");
        }
    }
    assert!(refused > 100 && refused < full / 50, "{refused} of {}", full / 50);
    driver.node.audit();
}

#[test]
fn drain_waits_for_slow_readers_up_to_drain_ms() {
    let mut driver = driver(Limits { drain_ms: 1_000, outbound_pause_bytes: 20_000, ..Limits::default() });
    set_big(&mut driver, 10_000);
    let idle = driver.client();
    let inside = driver.client();
    driver.send(inside, "GET b");
    let slow = hoarder(&mut driver, 10);
    let stuck = hoarder(&mut driver, 10);
    driver.node.drain(driver.now);
    driver.run();
    assert_eq!(driver.take(idle), ":BYE \n");
    assert_eq!(driver.take(inside), ":BYE \n");
    assert!(driver.connect(ELSEWHERE).is_err());
    driver.pass(ms(500));
    driver.reads(slow, true);
    let received = driver.take(slow);
    assert_eq!(received.lines().count(), 11);
    assert!(received.ends_with("\n:BYE \n"));
    assert!(!driver.is_closed(stuck));
    driver.pass(ms(500));
    assert!(driver.is_closed(stuck));
    assert!(driver.node.is_drained());
}

#[test]
fn paused_client_is_not_idle() {
    let limits = Limits { outbound_pause_bytes: 20_000, request_idle_ms: 1_000, ..Limits::default() };
    let mut driver = driver(limits);
    set_big(&mut driver, 10_000);
    let client = driver.client();
    driver.reads(client, false);
    driver.send(client, format!("{}7:PI", "GET big\n".repeat(5)));
    assert!(driver.is_stopped(client));
    driver.pass(ms(5_000));
    // Only now does it read, and its rest is still on its way because the node did not want it.
    driver.send(client, "NG\n");
    driver.reads(client, true);
    let received = driver.take(client);
    assert!(received.ends_with("\n7:PONG 1\n"), "{}", &received[received.len() - 80..]);
}

#[test]
fn setex_that_runs_out_of_memory_half_way_sets_nothing() {
    let mut driver = refusing(1 << 20);
    let client = driver.client();
    for filler in 0..200u32 {
        let key = filler;
        driver.call(client, &format!("SET f{key}:{}\n", "x".repeat(5_000)));
    }
    // The rest of the memory in smaller and smaller pieces, each step with a SETEX of many deadlines.
    for free in 0..200u32 {
        driver.call(client, "DEL f0\n");
        driver.call(client, &format!("SET f0:{}\n", "x".repeat(4_900 - 20 * free as usize)));
        let args: Vec<String> = (0..20).map(|key| format!("s{key}:v:{}", 1 + 3 * key)).collect();
        let reply = driver.call(client, &format!("SETEX {}\n", args.join(",")));
        let keys: Vec<String> = (0..20).map(|key| format!("s{key}")).collect();
        let got = driver.call(client, &format!("GET {}\n", keys.join(",")));
        if reply.starts_with(":ERR ") {
            assert_eq!(got, ":GOT \n", "after {reply}");
        }
        driver.call(client, &format!("DEL {}\n", keys.join(",")));
    }
}

#[test]
fn removed_password_admits_waiting_clients() {
    let mut driver = with_password(Limits::default());
    let client = driver.client();
    driver.node.reconfigure(driver.now, Config::default());
    assert_eq!(driver.call(client, "SET a:1\n"), ":SAT a:1\n");
}

#[test]
fn no_reply_is_longer_than_its_limit() {
    let mut driver = driver(Limits { reply_bytes_max: 1_024, value_bytes_max: 1_024, ..Limits::default() });
    let client = driver.client();
    let key = "\u{1}".repeat(500);
    assert!(driver.call(client, &format!("WHO {key}\n")).starts_with(":HELD "));
    driver.call(client, &format!("SET {key}:\n"));
    for request in [format!("SETEX {key}:v:5\n"), format!("DEL {key}\n")] {
        let reply = driver.call(client, &request);
        assert!(reply.len() <= 1_025, "{} bytes", reply.len());
    }
    let keys: Vec<String> = (0..200).map(|key| format!("long-key-{key}")).collect();
    for key in &keys {
        driver.call(client, &format!("SET {key}:1\n"));
    }
    for verb in ["TTL", "DEL"] {
        let reply = driver.call(client, &format!("{verb} {}\n", keys.join(",")));
        assert!(reply.len() <= 1_025, "{} bytes", reply.len());
    }
}

#[test]
fn password_longer_than_key_bytes_max_authenticates() {
    let mut driver = with_password(Limits { key_bytes_max: 5, ..Limits::default() });
    let client = driver.client();
    assert_eq!(driver.call(client, "AUTH secret\n"), ":WELCOME \n");
}

#[test]
fn steady_reader_gets_all_replies_after_quit() {
    let limits = Limits { slow_reader_ms: 1_000, ..Limits::default() };
    let mut driver = driver(limits);
    set_big(&mut driver, 50_000);
    let client = driver.client();
    driver.reads(client, false);
    driver.send(client, "GET big\nQUIT\n");
    for _ in 0..5 {
        driver.pass(ms(500));
        driver.read_some(client, 10_000);
    }
    driver.reads(client, true);
    assert!(driver.take(client).ends_with(":BYE \n"));
}

#[test]
fn timers_of_closed_connections_are_purged() {
    let mut driver = driver(Limits { request_idle_ms: 86_400_000, ..Limits::default() });
    for _ in 0..300_000 {
        let key = driver.node.accept(driver.now, ELSEWHERE.parse().unwrap()).unwrap();
        driver.node.received(driver.now, key, b"G");
        driver.node.lost(driver.now, key, &"connection reset");
    }
    driver.run();
    driver.leap(Duration::from_secs(86_401));
    let mut ticks = 0;
    while driver.node.has_work(driver.now) {
        driver.node.tick(driver.now);
        ticks += 1;
    }
    assert!(ticks < 600, "{ticks} steps for the timers of no connection");
}

#[test]
fn alternating_expiries_stay_within_the_memory_limit() {
    let mut driver = refusing(1 << 20);
    let client = driver.client();
    driver.call(client, "SET a:1\n");
    // Less is left than stale timers may take.
    for filler in 0..12 {
        driver.call(client, &format!("SET f{filler}:{}\n", "x".repeat(60_000)));
    }
    let mut refused = 0;
    for turn in 0..100_000u32 {
        let reply = driver.call(client, &format!("EXPIRE a:{}\n", 1_000 + turn % 2));
        refused += u32::from(reply.starts_with(":ERR out of memory"));
    }
    assert!(refused > 0, "the timers have not reached the limit: the test shows nothing");
    let memory = stat(&mut driver, "memory_bytes");
    assert!(memory <= (1 << 20) + (256 << 10), "{memory}");
    assert_eq!(driver.call(client, "DEL a\n"), ":DELETED a\n");
}

#[test]
fn reply_to_keys_in_many_pieces_is_whole_and_requests_behind_it_are_answered_after_it() {
    let mut driver = driver(Limits::default());
    let client = driver.client();
    let keys: Vec<String> = (0..30_000).map(|id| format!("key:{id}")).collect();
    for some in keys.chunks(100) {
        driver.call(
            client,
            &format!("SET {}\n", some.iter().map(|key| format!("\"{key}\":v")).collect::<Vec<_>>().join(",")),
        );
    }
    let reply = driver.call(client, "7:KEYS *\nPING\n");
    let (line, rest) = reply.split_once('\n').unwrap();
    assert_eq!(rest, "0:PONG 1\n");
    let mut found: Vec<&str> =
        line.strip_prefix("7:KEYS ").unwrap().split(',').map(|key| key.trim_matches('"')).collect();
    found.sort_unstable();
    let mut all: Vec<&str> = keys.iter().map(String::as_str).collect();
    all.sort_unstable();
    assert!(found == all, "{} keys", found.len());
    let other = driver.client();
    let reply = driver.call(other, &(resp(&["KEYS", "*"]) + &resp(&["PING"])));
    let mut lines = reply.split("\r\n");
    assert_eq!(lines.next(), Some("*30000"));
    let lines: Vec<&str> = lines.collect();
    let mut found: Vec<&str> = lines.chunks(2).take(30_000).map(|pair| pair[1]).collect();
    found.sort_unstable();
    assert!(found == all && lines[60_000..] == ["+PONG", ""], "{:?}", &lines[60_000..]);
}

#[test]
fn looking_at_a_key_does_not_keep_it_from_eviction() {
    let looks: [(&[&str], bool); 4] = [
        (&["OBJECT", "ENCODING", "hot"], false),
        (&["MEMORY", "USAGE", "hot"], false),
        (&["WATCH", "hot"], false),
        (&["GET", "hot"], true),
    ];
    for (look, is_kept) in looks {
        let mut driver = driver(Limits { memory_max: 1 << 20, ..Limits::default() });
        let (client, looker) = (driver.client(), driver.client());
        driver.call(client, "SET hot:v\n");
        for id in 0..15_000 {
            driver.call(client, &format!("SET cold{id}:{}\n", "v".repeat(64)));
            if id % 100 == 0 {
                driver.call(looker, &resp(look));
            }
        }
        let kept = driver.call(client, "GET hot\n") == ":GOT hot:v\n";
        assert_eq!(kept, is_kept, "{look:?}");
    }
}
