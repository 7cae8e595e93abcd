//! RESP by real connections: the `redis` crate in RESP2 and RESP3, and raw bytes where a crate would not send
//! them.
//!
//! With `OLIVIA_RESP_ADDR` the tests that need one node only run on another server, such as redis-server, whose replies
//! are the reference. A test of commands that the server does not list prints that and is skipped.

#![cfg(target_os = "linux")]

mod common;

use common::mesh::mesh;
use common::resp::request;
use common::server::{Launch, Server};
use common::{WAIT_MAX, wait_until};
use redis::{Client, Connection, FromRedisValue, Value, cmd, pipe};
use std::collections::BTreeSet;
use std::env;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A server of this test, or the one that the environment names.
struct Target {
    addr: SocketAddr,
    own: Option<Server>,
}

impl Target {
    fn start(name: &str) -> Self {
        if let Ok(addr) = env::var("OLIVIA_RESP_ADDR") {
            return Self { addr: addr.parse().unwrap(), own: None };
        }
        let own = Launch::new(name).start();
        Self { addr: own.addr(), own: Some(own) }
    }

    /// A connection in each version of the protocol, and the commands of the server.
    fn connections(&self) -> [Connection; 2] {
        [connect(self.addr, "resp2"), connect(self.addr, "resp3")]
    }

    fn end(self) {}
}

fn connect(addr: SocketAddr, protocol: &str) -> Connection {
    let client = Client::open(format!("redis://{addr}/?protocol={protocol}")).unwrap();
    let connection = client.get_connection_with_timeout(WAIT_MAX).unwrap();
    connection.set_read_timeout(Some(WAIT_MAX)).unwrap();
    connection
}

/// Whether the server has all these commands.
fn has(connection: &mut Connection, names: &[&str]) -> bool {
    let commands: Vec<Vec<Value>> = cmd("COMMAND").query(connection).unwrap();
    let listed: BTreeSet<String> =
        commands.iter().map(|row| String::from_redis_value_ref(&row[0]).unwrap().to_uppercase()).collect();
    let missing: Vec<&&str> = names.iter().filter(|name| !listed.contains(**name)).collect();
    if !missing.is_empty() {
        println!("skipped: the server has no {missing:?}");
    }
    missing.is_empty()
}

fn call<T: FromRedisValue>(connection: &mut Connection, words: &[&str]) -> T {
    query(connection, words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn query<T: FromRedisValue>(connection: &mut Connection, words: &[&str]) -> redis::RedisResult<T> {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word);
    }
    command.query(connection)
}

/// Sends bytes; returns the reply of `expected` bytes, after which the connection stays open and silent.
fn exchange(addr: SocketAddr, sent: &[u8], expected: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    stream.write_all(sent).unwrap();
    let mut received = vec![0; expected];
    stream.read_exact(&mut received).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let more = stream.read(&mut [0; 4_096]);
    assert!(more.is_err(), "{more:?} after {}", received.escape_ascii());
    received
}

#[test]
fn values_of_every_kind_read_back() {
    let target = Target::start("resp-values");
    for mut connection in target.connections() {
        let all_bytes: Vec<u8> = (0..=255).collect();
        let large: Vec<u8> = all_bytes.iter().copied().cycle().take(3_000_001).collect();
        for (key, value) in [
            (&b"k"[..], &b"v"[..]),
            (b"", b""),
            (b"\r\n\0 :,\"", &all_bytes),
            (&all_bytes, b"1"),
            (b"large", &large),
        ] {
            let () = cmd("SET").arg(key).arg(value).query(&mut connection).unwrap();
            let read: Option<Vec<u8>> = cmd("GET").arg(key).query(&mut connection).unwrap();
            assert!(read.as_deref() == Some(value), "{}", key.escape_ascii());
            assert_eq!(cmd("DEL").arg(key).query::<u32>(&mut connection).unwrap(), 1);
            assert_eq!(cmd("GET").arg(key).query::<Option<Vec<u8>>>(&mut connection).unwrap(), None);
        }
    }
    target.end();
}

/// Sets keys `prefix:0` and so on by MSET.
fn set_many(connection: &mut Connection, prefix: &str, count: usize) -> BTreeSet<String> {
    let keys: BTreeSet<String> = (0..count).map(|number| format!("{prefix}:{number}")).collect();
    let mut request = cmd("MSET");
    keys.iter().for_each(|key| {
        request.arg(key).arg("v");
    });
    request.query::<()>(connection).unwrap();
    keys
}

#[test]
fn requests_of_tens_of_thousands_of_keys_are_answered() {
    let target = Target::start("resp-many");
    for mut connection in target.connections() {
        let keys = set_many(&mut connection, "many", 50_000);
        let found: Vec<Option<String>> = cmd("MGET").arg(&keys).query(&mut connection).unwrap();
        assert!(found.len() == keys.len() && found.iter().all(|value| value.as_deref() == Some("v")));
        for (name, count) in [("EXISTS", 50_000), ("DEL", 50_000), ("UNLINK", 0)] {
            assert_eq!(cmd(name).arg(&keys).query::<usize>(&mut connection).unwrap(), count, "{name}");
        }
    }
    target.end();
}

#[test]
fn scan_returns_each_key_that_stays_while_others_come_and_go() {
    let target = Target::start("resp-scan");
    for (mut connection, count) in target.connections().into_iter().zip(["17", "500"]) {
        let kept = set_many(&mut connection, "kept", 5_000);
        let (mut cursor, mut found, mut calls) = ("0".to_owned(), Vec::new(), 0);
        let mut passing = BTreeSet::new();
        loop {
            let reply: (String, Vec<String>) =
                call(&mut connection, &["SCAN", &cursor, "MATCH", "kept:*", "COUNT", count]);
            found.extend(reply.1);
            cursor = reply.0;
            // What comes makes the index split, and what goes makes it merge.
            if calls % 40 == 0 {
                passing = set_many(&mut connection, "passing", 10_000);
            } else if calls % 40 == 20 {
                cmd("DEL").arg(&passing).query::<()>(&mut connection).unwrap();
            }
            calls += 1;
            if cursor == "0" {
                break;
            }
            assert!(cursor.parse::<u64>().unwrap() < 1 << 53, "{cursor} is not exact as a double");
        }
        let distinct: BTreeSet<String> = found.iter().cloned().collect();
        assert!(distinct == kept, "{} of {} keys in {calls} calls", distinct.len(), kept.len());
        assert_eq!(found.len(), kept.len(), "keys are returned twice");
        call::<()>(&mut connection, &["FLUSHALL"]);
    }
    target.end();
}

#[test]
fn requests_behind_a_scan_in_steps_wait_for_it() {
    let target = Target::start("resp-keys");
    for mut connection in target.connections() {
        let keys = set_many(&mut connection, "steps", 40_000);
        type Replies = (Vec<String>, (String, Vec<String>), String, usize, Vec<String>);
        let replies: Replies = pipe()
            .cmd("KEYS")
            .arg("steps:*")
            .cmd("SCAN")
            .arg(0)
            .arg("COUNT")
            .arg(i64::MAX)
            .cmd("FLUSHALL")
            .cmd("DBSIZE")
            .cmd("KEYS")
            .arg("*")
            .query(&mut connection)
            .unwrap();
        assert!(replies.0.len() == keys.len() && replies.0.into_iter().collect::<BTreeSet<_>>() == keys);
        assert!(replies.1.0 == "0" && replies.1.1.into_iter().collect::<BTreeSet<_>>() == keys);
        assert_eq!((replies.2.as_str(), replies.3, replies.4.len()), ("OK", 0, 0));
    }
    target.end();
}

#[test]
fn request_in_crumbs_costs_time_linear_in_its_length() {
    let target = Target::start("resp-crumbs");
    let value = vec![b'x'; 400_000];
    let request = request(&[&b"SET"[..], b"crumbs", &value]);
    for crumb in [7, 1_400] {
        let mut stream = TcpStream::connect(target.addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        let begin = target.own.as_ref().map(Server::cpu_ticks);
        request.chunks(crumb).for_each(|crumb| stream.write_all(crumb).unwrap());
        let mut reply = [0; 5];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"+OK\r\n");
        if let (Some(own), Some(begin)) = (&target.own, begin) {
            // 57,000 reads; walking what came before each time would be 11 GB.
            assert!(own.cpu_ticks() - begin < 300, "{} ticks of 10 ms", own.cpu_ticks() - begin);
        }
    }
    target.end();
}

#[test]
fn reads_of_every_kind_find_a_key_of_another_node() {
    let nodes = mesh("resp-reads", 2, |launch| launch);
    let (mut here, mut there) = (connect(nodes[0].addr(), "resp2"), connect(nodes[1].addr(), "resp3"));
    call::<()>(&mut there, &["SET", "far", "a value", "PXAT", "4102444800000"]);
    wait_until("the key is found", || call::<Option<String>>(&mut here, &["GET", "far"]).is_some());
    for (words, expected) in [
        (&["EXISTS", "far", "nope", "far"][..], 2),
        (&["TOUCH", "far", "nope"], 1),
        (&["STRLEN", "far"], 7),
        (&["STRLEN", "nope"], 0),
        (&["TTL", "nope"], -2),
        (&["EXPIRETIME", "nope"], -2),
    ] {
        assert_eq!(call::<i64>(&mut here, words), expected, "{words:?}");
    }
    for (words, expected) in [
        (&["GETRANGE", "far", "2", "-2"][..], "valu"),
        (&["GETRANGE", "far", "-100", "0"], "a"),
        (&["GETRANGE", "nope", "0", "-1"], ""),
        (&["TYPE", "far"], "string"),
        (&["TYPE", "nope"], "none"),
    ] {
        assert_eq!(call::<String>(&mut here, words), expected, "{words:?}");
    }
    // The time that a frame takes is taken off.
    let near = |time: i64, all: i64| (all - 2_000..=all + 2_000).contains(&time);
    assert!(near(call(&mut here, &["PEXPIRETIME", "far"]), 4_102_444_800_000));
    assert!(near(1_000 * call::<i64>(&mut here, &["EXPIRETIME", "far"]), 4_102_444_800_000));
    assert!(call::<i64>(&mut here, &["PTTL", "far"]) > 1_000 * (call::<i64>(&mut here, &["TTL", "far"]) - 2));
    // Reads within a transaction are looked up like any others, and what follows it waits for its replies. What it does
    // to `near` goes to the node where that key belongs, and so no command may have both keys.
    for round in 0..20 {
        let mut requests = pipe();
        requests.atomic().set("near", round).cmd("GET").arg("far").cmd("MGET").arg(&["far", "nope"]);
        requests.cmd("STRLEN").arg("far").cmd("INCR").arg("near");
        type Replies = (String, String, [Option<String>; 2], i64, i64);
        let replies: Replies = requests.query(&mut here).unwrap();
        let far = || "a value".to_owned();
        assert_eq!(replies, ("OK".to_owned(), far(), [Some(far()), None], 7, round + 1));
    }
    let once = [request(&[b"MULTI"]), request(&[b"GET", b"far"]), request(&[b"EXEC"])].concat();
    let reply = b"+OK\r\n+QUEUED\r\n*1\r\n$7\r\na value\r\n";
    let pipeline = [once.repeat(100), request(&[b"PING"])].concat();
    let replies = exchange(nodes[0].addr(), &pipeline, 100 * reply.len() + 7);
    assert!(replies == [&reply.repeat(100)[..], b"+PONG\r\n"].concat(), "{}", replies.escape_ascii());
    // What depends on the old value is carried out at its holder.
    assert_eq!(call::<i64>(&mut here, &["PERSIST", "far"]), 1);
    assert_eq!(call::<i64>(&mut here, &["SETNX", "far", "another"]), 0);
}

#[test]
fn key_expires_to_the_millisecond() {
    let target = Target::start("resp-expiry");
    for mut connection in target.connections() {
        if has(&mut connection, &["PEXPIRE", "PTTL"]) {
            call::<()>(&mut connection, &["SET", "soon", "v"]);
            let begin = Instant::now();
            // In one read of the server, which may be slow to come to the next.
            let set: (i64, i64) = pipe()
                .cmd("PEXPIRE")
                .arg("soon")
                .arg(60)
                .cmd("PTTL")
                .arg("soon")
                .query(&mut connection)
                .unwrap();
            assert!(set.0 == 1 && (1..=60).contains(&set.1), "{set:?}");
            while call::<Option<String>>(&mut connection, &["GET", "soon"]).is_some() {
                assert!(begin.elapsed() < WAIT_MAX, "served long after it expired");
            }
            assert!(begin.elapsed() >= Duration::from_millis(59), "expired after {:?}", begin.elapsed());
            assert_eq!(call::<i64>(&mut connection, &["PTTL", "soon"]), -2);
        }
    }
    target.end();
}
