//! Shutdown and reload of the program: the effect of SIGTERM, SIGINT and SIGHUP on connections.

#![cfg(target_os = "linux")]

mod common;

use common::client::{Client, End};
use common::server::{Launch, Server};
use common::wait_until;
use std::fmt::Write as _;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Pipelines numbered requests until `stop` is set or the connection is closed.
fn send_without_end(mut stream: TcpStream, stop: &AtomicBool) {
    for batch in 0.. {
        let requests = (batch * 64..(batch + 1) * 64).fold(String::new(), |mut all, n| {
            writeln!(all, "{n}:GET key").unwrap();
            all
        });
        if stop.load(Ordering::Relaxed) || stream.write_all(requests.as_bytes()).is_err() {
            return;
        }
    }
}

/// Loads the server from one connection and demands numbered replies in order, then BYE, then
/// a proper end. Gives the number of replies.
fn load(server: &Server, answered: &Arc<AtomicUsize>) -> thread::JoinHandle<usize> {
    // With little on its way, the client is at its end before the node gives up waiting for that.
    let mut client = Client::connect_narrow(server.addr());
    let answered = Arc::clone(answered);
    thread::spawn(move || {
        let stop = Arc::new(AtomicBool::new(false));
        let writer = thread::spawn({
            let (stream, stop) = (client.writer(), Arc::clone(&stop));
            move || send_without_end(stream, &stop)
        });
        let mut count = 0;
        loop {
            let line = client.line();
            if line == ":BYE " {
                break;
            }
            assert_eq!(line, format!("{count}:GOT key:value"));
            count += 1;
            answered.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(client.rest(), (String::new(), End::Eof), "after BYE");
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        count
    })
}

#[test]
fn sigterm_under_load_sends_whole_replies_in_order_and_bye() {
    let server = Launch::new("term-load").limit("drain_ms", 60_000).start();
    server.connect().call("SET key:value");
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..6).map(|_| load(&server, &answered)).collect();
    wait_until("the load is on", || answered.load(Ordering::Relaxed) > 20_000);
    drop(server);
    for client in clients {
        assert!(client.join().unwrap() > 0);
    }
}

#[test]
fn requests_before_the_signal_are_answered_before_bye() {
    for signal in ["TERM", "INT"] {
        let launch = Launch::new(&format!("requested-before-{signal}"));
        let mut server = launch.limit("drain_ms", 60_000).start();
        let requests = (0..2_000).fold(String::new(), |mut all, n| {
            writeln!(all, "{n}:PING").unwrap();
            all
        });
        let mut busy = server.connect();
        let mut idle = server.connect();
        let mut inside_a_request = server.connect();
        idle.call("PING");
        inside_a_request.call("PING");
        inside_a_request.send("SET a:");
        busy.send(&requests);
        // The signal follows the requests: they are all there once the first is answered.
        assert_eq!(busy.line(), "0:PONG 1");
        server.signal(signal);
        for n in 1..2_000 {
            assert_eq!(busy.line(), format!("{n}:PONG 1"));
        }
        for client in [&mut busy, &mut idle, &mut inside_a_request] {
            assert_eq!(client.rest(), (":BYE \n".to_owned(), End::Eof));
        }
        drop((busy, idle, inside_a_request));
        let (code, log) = server.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("shutting down; open connections: 3"), "{log}");
        assert!(log.contains("] stopped\n"), "{log}");
    }
}

#[test]
fn unread_requests_at_the_signal_are_answered() {
    let server = Launch::new("unread").limit("drain_ms", 60_000).start();
    server.connect().call("SET key:value");
    let mut clients: Vec<Client> = (0..400).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.call("PING");
    }
    server.signal("STOP");
    for client in &mut clients {
        client.send(&"GET key\n".repeat(50));
    }
    server.signal("TERM");
    server.signal("CONT");
    let whole = format!("{}:BYE \n", ":GOT key:value\n".repeat(50));
    let cut = clients.iter_mut().filter_map(|client| Some(client.rest().0).filter(|text| *text != whole));
    assert_eq!(cut.count(), 0, "clients got no answer to what they had sent before the signal");
}

#[test]
fn client_accepted_just_before_the_signal_is_answered() {
    let server = Launch::new("just-before").limit("drain_ms", 60_000).start();
    server.signal("STOP");
    let mut client = server.connect();
    client.send("PING\n");
    server.signal("TERM");
    server.signal("CONT");
    assert_eq!(client.rest().0, "0:PONG 1\n:BYE \n");
}

/// A client that requests more than the system's buffers hold, and reads nothing.
fn deaf_client(server: &Server) -> Client {
    let mut client = Client::connect_narrow(server.addr());
    let value = "v".repeat(60_000);
    client.call(&format!("SET key:{value}"));
    client.send(&"GET key\n".repeat(1_000));
    let mut other = server.connect();
    let mut before = 0;
    wait_until("the client is paused", || {
        thread::sleep(Duration::from_millis(20));
        let requests = other.stat("requests");
        let stands = requests == before + 1;
        before = requests;
        stands
    });
    assert!(before < 1_000);
    client
}

#[test]
fn client_that_reads_nothing_delays_shutdown_by_drain_ms_at_most() {
    let server = Launch::new("deaf").limit("drain_ms", 700).start();
    let mut deaf = deaf_client(&server);
    let begin = Instant::now();
    drop(server);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    // Its input is cut somewhere, but no BYE stands in the middle of a reply.
    while let Ok(line) = deaf.try_line() {
        assert!(line.starts_with(":GOT key:vvv"), "{line}");
    }
}

#[test]
fn slow_client_gets_all_replies_and_bye_during_drain() {
    let server = Launch::new("slow-end").limit("drain_ms", 60_000).start();
    let mut slow = deaf_client(&server);
    server.signal("TERM");
    server.wait_for_log("shutting down");
    for _ in 0..1_000 {
        assert!(slow.line().starts_with(":GOT key:vvv"));
    }
    assert_eq!(slow.rest(), (":BYE \n".to_owned(), End::Eof));
}

#[test]
fn second_signal_exits_at_once_with_code_1() {
    for signal in ["TERM", "INT"] {
        let mut server = Launch::new(&format!("second-{signal}")).limit("drain_ms", 60_000).start();
        let deaf = deaf_client(&server);
        server.signal("TERM");
        server.wait_for_log("shutting down");
        assert!(!server.has_ended());
        let begin = Instant::now();
        server.signal(signal);
        let (code, log) = server.end();
        assert_eq!(code, Some(1), "{log}");
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        assert!(log.contains("a second signal ended the node"), "{log}");
        drop(deaf);
    }
}

#[test]
fn new_connections_are_refused_during_drain() {
    let server = Launch::new("refused").limit("drain_ms", 60_000).start();
    let mut slow = deaf_client(&server);
    server.signal("TERM");
    server.wait_for_log("shutting down");
    let before = server.cpu_ticks();
    for _ in 0..20 {
        assert!(Client::try_connect(server.addr()).is_err());
    }
    thread::sleep(Duration::from_millis(300));
    let used = server.cpu_ticks() - before;
    assert!(used <= 3, "{used} ticks of 10 ms while only a deaf client was waited for");
    while slow.line() != ":BYE " {}
}

#[test]
fn reload_brings_password_limits_and_log_level() {
    let server = Launch::new("reload").config("").start();
    let mut old = server.connect();
    old.call("SET key:value");
    server.write_config(
        "[security]\npassword = 'right'\n[limits]\nclients_max = 2\nkey_bytes_max = 8\n[log]\nlevel = 'debug'\n",
    );
    server.signal("HUP");
    server.wait_for_log("configuration read again: ");
    assert_eq!(old.call("GET key"), ":GOT key:value");
    assert!(old.call("GET longer-than-8").starts_with(":ERR "));
    let mut new = server.connect();
    let new_addr = new.writer().local_addr().unwrap().to_string();
    assert_eq!(new.call("GET key"), ":ERR authentication needed; send AUTH password");
    assert_eq!(new.call("AUTH wrong"), ":ERR wrong password");
    assert_eq!(new.call("AUTH right"), ":WELCOME ");
    assert_eq!(new.call("GET key"), ":GOT key:value");
    let (sentence, _) = server.connect().rest();
    assert_eq!(sentence, ":ERR client limit reached (clients_max = 2); try again later\n");
    assert!(!server.log().contains("right") && !server.log().contains("value"), "{}", server.log());
    server.write_config("[log]\nlevel = 'off'\n");
    server.signal("HUP");
    let mut last = server.connect();
    wait_until("the password is gone", || {
        last = server.connect();
        last.call("GET longer-than-8") == ":GOT "
    });
    let last_addr = last.writer().local_addr().unwrap().to_string();
    drop((old, new, last));
    let mut server = server;
    server.signal("TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0));
    // Each connection and the shutdown are logged at other levels.
    assert!(log.contains(&new_addr) && !log.contains(&last_addr) && !log.contains("shutting down"), "{log}");
}

#[test]
fn reload_of_a_broken_file_changes_nothing() {
    let server = Launch::new("broken").config("[security]\npassword = 'right'\n").start();
    for (text, hint) in [
        ("[security]\npasswort = 'other'\n", "olivia.toml:2: unknown key"),
        ("[limits]\nclients_max = 0\n", "clients_max"),
        ("listen_port = = 1\n", "olivia.toml:1"),
    ] {
        server.write_config(text);
        server.signal("HUP");
        server.wait_for_log(hint);
        let mut client = server.connect();
        assert_eq!(client.call("AUTH other"), ":ERR wrong password");
        assert_eq!(client.call("AUTH right"), ":WELCOME ");
    }
    assert_eq!(server.log().matches("configuration not changed").count(), 3);
}

#[test]
fn reload_logs_what_needs_a_restart() {
    let server = Launch::new("restart-needed").config("").start();
    server.write_config("bind = '127.0.0.2'\nlisten_port = 1\n");
    server.signal("HUP");
    server.wait_for_log("bind stays 127.0.0.1 until a restart (configured: 127.0.0.2)");
    assert_eq!(server.connect().call("PING"), "0:PONG 1");
}

#[test]
fn closed_standard_error_does_not_stop_the_node() {
    let server = Launch::new("no-stderr").unheard().start();
    for _ in 0..300 {
        server.signal("HUP");
        assert_eq!(server.connect().call("PING"), "0:PONG 1");
    }
}
