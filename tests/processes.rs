//! Conversations with the program itself over real TCP: a person, `printf … | nc`, a script that
//! pipelines, and thousands of connections that are silent.
//!
//! Not here: limits (`limits.rs`), shutdown and signals (`signals.rs`).

#![cfg(target_os = "linux")]

mod common;

use common::client::{Client, End};
use common::mesh::free_port;
use common::server::{Launch, Server};
use common::{raise_open_files, wait_until};
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::thread;
use std::time::Duration;

/// Requests of a burst.
const BURST: usize = 200_000;

/// Sends all of it, then the end of the stream, and gives all that came back.
fn piped(server: &Server, input: &str) -> String {
    let mut client = server.connect();
    client.send(input);
    client.finish_sending();
    let (output, end) = client.rest();
    assert_eq!(end, End::Eof, "{output}");
    output
}

#[test]
fn conversation_of_the_readme_holds_byte_for_byte() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let lines: Vec<&str> = readme
        .lines()
        .skip_while(|line| *line != "    $ nc 127.0.0.1 5454")
        .skip(1)
        .map_while(|line| line.strip_prefix("    "))
        .collect();
    assert!(lines.len() >= 10 && lines.len().is_multiple_of(2), "{lines:?}");
    let server = Launch::new("readme").start();
    let mut client = server.connect();
    for exchange in lines.chunks_exact(2) {
        assert_eq!(client.call(exchange[0]), exchange[1], "{}", exchange[0]);
    }
    assert_eq!(client.rest(), (String::new(), End::Eof));
}

#[test]
fn requests_before_the_end_of_the_stream_are_answered() {
    let server = Launch::new("half-close").start();
    assert_eq!(piped(&server, "SET a:1\nGET a\n"), ":SAT a:1\n:GOT a:1\n");
    assert_eq!(piped(&server, ""), "");
    assert_eq!(piped(&server, "\n\r\n"), "");
    assert_eq!(piped(&server, "REQUEST disconnect\nGET a\n"), ":FULFILLED bye\n");
    // Many times, since data and the end of the stream may or may not come as one event.
    for round in 0..300 {
        assert_eq!(
            piped(&server, &format!("{round}:GET a\nGET nope\n")),
            format!("{round}:GOT a:1\n:GOT \n")
        );
    }
    let many: String = (0..20_000).fold(String::new(), |mut all, n| {
        writeln!(all, "{n}:GET a").unwrap();
        all
    });
    let replies = piped(&server, &many);
    assert_eq!(replies.lines().count(), 20_000);
    assert!(replies.lines().enumerate().all(|(n, line)| line == format!("{n}:GOT a:1")));
}

#[test]
fn bytes_and_the_end_of_the_stream_that_come_as_one_event_are_both_seen() {
    let server = Launch::new("one-event").start();
    let mut known = server.connect();
    assert_eq!(known.call("SET a:1"), ":SAT a:1");
    // While it stands still, everything gathers: new connections, what they say, and their ends.
    server.signal("STOP");
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    clients.push(known);
    for client in &mut clients {
        client.send("GET a\nGET b\n");
        client.finish_sending();
    }
    server.signal("CONT");
    for client in &mut clients {
        assert_eq!(client.rest(), (":GOT a:1\n:GOT \n".to_owned(), End::Eof));
    }
}

#[test]
fn input_longer_than_one_read_with_its_end_behind_is_all_answered() {
    let server = Launch::new("long-input").start();
    server.signal("STOP");
    let mut client = server.connect();
    // More than one read takes, and a last read that is exactly full.
    client.send(&"PING 0\n".repeat(2 * 65_536 / 7 + 1)[..2 * 65_536]);
    client.finish_sending();
    server.signal("CONT");
    let (replies, end) = client.rest();
    assert_eq!(end, End::Eof);
    assert_eq!(replies.matches("0:PONG 1\n").count(), 2 * 65_536 / 7);
    assert!(replies.ends_with(":ERR the last line has no line end; it was not executed\n"));
}

/// Sends the burst; each request has its number for an id.
fn send_burst(client: &Client) -> thread::JoinHandle<()> {
    let mut stream = client.writer();
    thread::spawn(move || {
        let mut batch = String::new();
        for n in 0..BURST {
            writeln!(batch, "{n}:GET key").unwrap();
            if batch.len() > 16 * 1024 || n + 1 == BURST {
                stream.write_all(batch.as_bytes()).unwrap();
                batch.clear();
            }
        }
    })
}

/// Demands the replies of the burst, all and in order.
fn read_burst(client: &mut Client, value: &str) {
    for n in 0..BURST {
        assert_eq!(client.line(), format!("{n}:GOT key:{value}"));
    }
}

#[test]
fn burst_of_200_000_requests_is_answered_in_order() {
    let server = Launch::new("burst").start();
    let mut client = server.connect();
    assert_eq!(client.call("SET key:value"), ":SAT key:value");
    let writer = send_burst(&client);
    read_burst(&mut client, "value");
    writer.join().unwrap();
    assert_eq!(client.stat("requests"), 200_002);
}

#[test]
fn client_that_writes_all_before_reading_is_paused_and_gets_all_replies() {
    let server = Launch::new("late-reader").start();
    let value = "v".repeat(200);
    let mut client = Client::connect_narrow(server.addr());
    client.call(&format!("SET key:{value}"));
    let writer = send_burst(&client);
    let mut other = server.connect();
    let mut before = 0;
    let mut still = 0;
    // Its own STATS is one request of each look.
    wait_until("the server reads no more of what is not taken", || {
        thread::sleep(Duration::from_millis(20));
        let requests = other.stat("requests");
        still = if requests == before + 1 { still + 1 } else { 0 };
        before = requests;
        still == 10
    });
    assert!(before < 200_000, "everything was answered, {before} requests, though the client does not read");
    // One pause worth and the step that passed it, with the buffer's doubling; not all of the replies.
    assert!(other.stat("buffers_bytes") < 2 * 1024 * 1024);
    read_burst(&mut client, &value);
    writer.join().unwrap();
    assert_eq!(client.call("PING"), "0:PONG 1");
}

#[test]
fn client_that_half_closes_before_reading_gets_all_replies() {
    let server = Launch::new("late-piped").start();
    let value = "v".repeat(5_000);
    server.connect().call(&format!("SET key:{value}"));
    let mut client = Client::connect_narrow(server.addr());
    client.send(&"GET key,nope\n".repeat(6_000));
    client.finish_sending();
    let mut other = server.connect();
    let mut before = 0;
    wait_until("it is paused", || {
        thread::sleep(Duration::from_millis(20));
        let requests = other.stat("requests");
        requests == std::mem::replace(&mut before, requests) + 1
    });
    assert!(before < 6_000);
    let (replies, end) = client.rest();
    assert_eq!((replies.len(), end), (6_000 * (":GOT key:\n".len() + value.len()), End::Eof));
    wait_until("it is forgotten", || other.stat("clients") == 1);
}

#[test]
fn five_thousand_idle_connections_cost_no_cpu_and_delay_no_client() {
    let files = raise_open_files();
    assert!(files >= 6_000, "this test needs 6,000 open files; the hard limit is {files}, see `ulimit -Hn`");
    let server = Launch::new("silent").start();
    let files = server.open_files();
    let mut client = server.connect();
    assert_eq!(client.call("SET key:value"), ":SAT key:value");
    let mut silent = Vec::new();
    while silent.len() < 5_000 {
        // No more at once than the system keeps for a listener: what it drops is tried again a second later.
        silent.extend((0..100).map(|_| server.connect()));
        wait_until("they are accepted", || client.stat("clients") == silent.len() as u64 + 1);
    }
    let before = server.cpu_ticks();
    thread::sleep(Duration::from_secs(2));
    let used = server.cpu_ticks() - before;
    assert!(used <= 2, "{used} ticks of 10 ms in 2 s in which nothing happened");
    assert_eq!(client.call("GET key"), ":GOT key:value");
    for silent in silent.iter_mut().step_by(500) {
        assert_eq!(silent.call("GET key"), ":GOT key:value");
    }
    drop(silent);
    wait_until("all are forgotten", || client.stat("clients") == 1);
    assert_eq!((client.stat("connections_closed_lost"), client.stat("stale_events")), (0, 0));
    assert!(client.stat("buffers_bytes") < 1024 * 1024);
    wait_until("all files are closed", || server.open_files() == files + 1);
}

#[test]
fn address_in_use_exits_with_an_error() {
    let server = Launch::new("owner").start();
    let mut client = server.connect();
    client.call("SET key:value");
    let port = server.addr().port();
    let (code, log) = Launch::new("second").arg("--port").arg(&port.to_string()).spawn().end();
    assert_eq!(code, Some(1), "{log}");
    let sentence = format!("cannot listen on 127.0.0.1:{port}: another process has this port;");
    assert!(log.contains(&sentence) && log.contains("--port"), "{log}");
    assert!(!log.contains("listens on") && !log.contains("panicked"), "{log}");
    assert_eq!(client.call("GET key"), ":GOT key:value");
    assert_eq!(server.connect().call("GET key"), ":GOT key:value");
}

#[test]
fn port_is_free_again_at_once_after_an_end_with_open_connections() {
    let port = free_port();
    let server = Launch::new("first-life").port(port).start();
    let mut client = server.connect();
    client.call("PING");
    drop(server);
    let _server = Launch::new("second-life").port(port).start();
}
