//! External faults that must not stop a node: a log that is not read, names without an address, files that block,
//! clients that vanish, urgent data.

#![cfg(target_os = "linux")]

mod common;

use common::client::Client;
use common::mesh::free_port;
use common::server::{Launch, Server};
use common::wait_until;
use std::fs;
use std::io::{PipeReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes that a pipe holds until its reader takes some.
const PIPE_BYTES: usize = 64 * 1024;

/// The program with a full pipe at its standard error, killed when it is dropped.
struct Muted {
    child: Child,
    addr: SocketAddr,
    log: PipeReader,
}

impl Muted {
    /// Starts it, and waits until it accepts connections.
    fn start() -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let (log, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&[b'\n'; PIPE_BYTES]).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_olivia"))
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .env_clear()
            .args(["--config", "/dev/null", "--port", &addr.port().to_string()])
            .stdin(Stdio::null())
            .stderr(writer)
            .spawn()
            .unwrap();
        wait_until("the node accepts connections", || Client::try_connect(addr).is_ok());
        Self { child, addr, log }
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Sends SIGTERM, and checks that it ends well.
    fn end(&mut self) {
        self.signal("TERM");
        wait_until("the node ends", || self.child.try_wait().unwrap().is_some());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Muted {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn full_pipe_at_standard_error_stops_neither_requests_nor_sigterm() {
    let mut node = Muted::start();
    let mut client = Client::connect(node.addr);
    node.signal("HUP");
    wait_until("a dropped log line is counted", || client.stat("log_lines_dropped") > 1);
    assert_eq!(client.call("PING"), "0:PONG 1");
    let mut taken = vec![0; PIPE_BYTES];
    node.log.read_exact(&mut taken).unwrap();
    drop(client);
    node.end();
    let mut log = String::new();
    node.log.read_to_string(&mut log).unwrap();
    assert!(log.contains(" log lines dropped: standard error was not read\n"), "{log}");
}

#[test]
fn node_ends_at_sigterm_while_its_log_takes_nothing() {
    Muted::start().end();
}

/// Waits until `count` lines of the log hold `text`, and returns the last one.
fn log_line(server: &Server, text: &str, count: usize) -> String {
    wait_until(&format!("the log holds {text:?}"), || server.log().matches(text).count() >= count);
    server.log().lines().rfind(|line| line.contains(text)).unwrap().to_owned()
}

#[test]
fn name_without_an_address_delays_neither_listening_nor_other_peers() {
    let secret = "[mesh]\nsecret = '0123456789abcdef'\n";
    let seed = Launch::new("names-seed").config(secret).start();
    let begin = Instant::now();
    let peers = format!("remote_peers = ['not-yet.invalid:1', '{}']\n{secret}", seed.addr());
    let node = Launch::new("names").config(&peers).start();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(log_line(&node, "cannot resolve not-yet.invalid:1", 1).contains("[WARN ]"));
    let mut client = node.connect();
    wait_until("the peer with an address is linked", || client.stat("peers_linked") == 1);
}

#[test]
fn configured_peer_that_is_not_there_is_a_warning_with_its_address_and_cause() {
    let gone = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let node = Launch::new("gone").peer(gone).start();
    let line = log_line(&node, "cannot reach peer", 1);
    let wanted = format!("[WARN ] cannot reach peer {gone}: Connection refused (os error 111); trying again");
    assert!(line.ends_with(&wanted), "{line}");
}

#[test]
fn shipped_configuration_with_a_port_and_a_peer_makes_a_mesh() {
    let seed = Launch::new("shipped-seed").start();
    let peers = format!("remote_peers = [\"{}\"]", seed.addr());
    let text = olivia::config::DEFAULT_TEXT.replace("remote_peers = []", &peers);
    assert!(text.contains(&peers));
    for text in [text.replace("#base_node = true", "base_node = true"), text] {
        let node = Launch::new("shipped").config(&text).start();
        let mut client = node.connect();
        wait_until("the nodes are linked", || client.stat("peers_linked") == 1);
    }
}

#[test]
fn files_that_became_pipes_or_devices_are_refused_at_reload_and_do_not_stop_the_node() {
    let config = "[security]\npassword_file = 'password'\n[mesh]\nsecret_file = 'secret'\n";
    let files = [("olivia.toml", config), ("password", "right"), ("secret", "0123456789abcdef")];
    let launch = files.iter().fold(Launch::new("fifo"), |launch, (name, text)| launch.file(name, text));
    let node = launch.start();
    let mut refused = 0;
    for (name, text) in files {
        let path = node.home().join(name);
        for replace in ["mkfifo \"$0\"", "ln -s /dev/zero \"$0\"", "ln -s /dev/ptmx \"$0\""] {
            fs::remove_file(&path).unwrap();
            let replaced = Command::new("sh").args(["-c", replace]).arg(&path).status();
            assert!(replaced.unwrap().success(), "{replace}");
            node.signal("HUP");
            refused += 1;
            let line = log_line(&node, "configuration not changed", refused);
            assert!(line.contains("not a regular file"), "{replace}: {line}");
            assert_eq!(node.connect().call("AUTH right"), ":WELCOME ");
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, text).unwrap();
    }
    node.signal("HUP");
    node.wait_for_log("configuration read again: nothing changed");
}

#[test]
fn reload_says_what_changed_and_that_memory_is_above_its_limit_and_then_near_it() {
    let node = Launch::new("reload-memory").config("[limits]\nmemory_max = 0\n").start();
    let mut client = node.connect();
    for n in 0..40 {
        client.call(&format!("SET key{n}:{}", "v".repeat(60_000)));
    }
    node.write_config("[limits]\nmemory_max = '1MiB'\n");
    node.signal("HUP");
    let line = log_line(&node, "configuration read again", 1);
    assert!(line.contains("limits.memory_max 0 -> \"1MiB\""), "{line}");
    let line = log_line(&node, "1048576", 1);
    assert_eq!(line.find("Z [WARN ] "), Some("2026-11-28T21:50:00.000".len()), "times of one width: {line}");
    assert!(line.contains("memory_max"), "{line}");
    // At the end of a sample of 10 s in which something happened.
    let used = "of memory_max = 1.0 MiB are used; the items used least are evicted";
    let begin = Instant::now();
    for round in 0.. {
        (0..100).for_each(|n| _ = client.call(&format!("SET {round}-{n}:{}", "v".repeat(100))));
        std::thread::sleep(Duration::from_millis(50));
        if node.log().contains(used) {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", node.log());
    }
}

#[test]
fn vanished_clients_are_found_by_keepalive() {
    let node = Launch::new("keepalive").start();
    let mut client = node.connect();
    client.call("PING");
    // Local address, remote address, state 01 (established), queues, timer: 02 is keepalive, 01 retransmission, until the
    // reply is acknowledged.
    let local = format!("0100007F:{:04X}", node.addr().port());
    let is_ours = |line: &&str| line.split_whitespace().nth(1) == Some(&local) && line.contains(" 01 ");
    wait_until("the keepalive timer runs", || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let timer = table.lines().find(is_ours).and_then(|line| line.split_whitespace().nth(5));
        timer.unwrap().starts_with("02:")
    });
}

#[test]
fn request_after_an_urgent_byte_is_answered() {
    let node = Launch::new("urgent").start();
    let mut client = node.connect();
    client.call("PING");
    for _ in 0..20 {
        node.signal("STOP");
        client.send("GET a");
        let stream = client.writer();
        rustix::net::send(&stream, b"!", rustix::net::SendFlags::OOB).unwrap();
        client.send("\nPING\n");
        node.signal("CONT");
        assert_eq!((client.line(), client.line()), (":GOT ".to_owned(), "0:PONG 1".to_owned()));
    }
}

#[test]
fn largest_value_can_be_set_by_lines_and_slow_bytes_of_a_long_line_cost_no_search_of_all_of_it() {
    let server = Launch::new("long-line").start();
    let mut client = server.connect();
    let value = "v".repeat(8 * 1024 * 1024);
    client.send("SET key:");
    client.send(&value[3_000..]);
    wait_until("the node has read it", || server.connect().stat("buffers_bytes") > 8_000_000);
    let before = server.cpu_ticks();
    for byte in 0..3_000 {
        client.send(&value[byte..=byte]);
    }
    client.send("\n");
    assert_eq!(client.line().len(), ":SAT key:".len() + value.len());
    let used = server.cpu_ticks() - before;
    assert!(used <= 60, "{used} ticks of 10 ms for 3,000 bytes");
}
