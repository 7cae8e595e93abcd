//! External faults that must not stop a node: a log that is not read, names without an address, files that block,
//! clients that vanish, urgent data.

#![cfg(target_os = "linux")]

mod common;

use common::client::Client;
use common::server::Launch;
use common::wait_until;
use std::fs;
use std::io::{PipeReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes that a pipe holds until its reader takes some.
const PIPE_BYTES: usize = 64 * 1024;

/// A free port of loopback.
fn free_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// The program with a pipe at its standard error, killed when it is dropped.
struct Node {
    child: Child,
    addr: SocketAddr,
    log: PipeReader,
}

impl Node {
    /// Starts it with `filled` bytes in the pipe, and waits until it accepts connections.
    fn start(filled: usize, args: &[&str]) -> Self {
        let addr = free_port();
        let (log, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&vec![b'\n'; filled]).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_olivia"))
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .env_clear()
            .args(["--config", "/dev/null", "--port", &addr.port().to_string()])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(writer)
            .spawn()
            .unwrap();
        wait_until("the node accepts connections", || Client::try_connect(addr).is_ok());
        Self { child, addr, log }
    }

    fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    }

    /// Waits for its end; the exit code.
    fn end(&mut self) -> Option<i32> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the node does not end");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn full_pipe_at_standard_error_stops_neither_requests_nor_sigterm() {
    let mut node = Node::start(PIPE_BYTES, &[]);
    let mut client = Client::connect(node.addr);
    node.signal("HUP");
    wait_until("a dropped log line is counted", || client.stat("log_lines_dropped") > 1);
    assert_eq!(client.ask("PING"), "0:PONG 1");
    let mut taken = vec![0; PIPE_BYTES];
    node.log.read_exact(&mut taken).unwrap();
    node.signal("TERM");
    drop(client);
    assert_eq!(node.end(), Some(0));
    let mut log = String::new();
    node.log.read_to_string(&mut log).unwrap();
    assert!(log.contains(" log lines dropped: standard error was not read\n"), "{log}");
}

#[test]
fn node_ends_at_sigterm_while_its_log_takes_nothing() {
    let mut node = Node::start(PIPE_BYTES, &[]);
    node.signal("TERM");
    assert_eq!(node.end(), Some(0));
}

/// Waits until a line of the log holds `text`, and gives that line.
fn log_line(log: &mut PipeReader, text: &str) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        log.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
        if byte[0] == b'\n' {
            let whole = String::from_utf8(std::mem::take(&mut line)).unwrap();
            if whole.contains(text) {
                return whole;
            }
        }
    }
}

#[test]
fn name_without_an_address_delays_neither_listening_nor_other_peers() {
    let secret = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("names-{}.toml", std::process::id()));
    fs::write(&secret, "[mesh]\nsecret = '0123456789abcdef'\n").unwrap();
    let seed = Node::start(0, &["--config", secret.to_str().unwrap()]);
    let other = format!("127.0.0.1:{}", seed.addr.port());
    let text =
        format!("remote_peers = ['not-yet.invalid:1', '{other}']\n[mesh]\nsecret = '0123456789abcdef'\n");
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("names-{}.toml", std::process::id()));
    fs::write(&config, &text).unwrap();
    let begin = Instant::now();
    let mut node = Node::start(0, &["--config", config.to_str().unwrap()]);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(log_line(&mut node.log, "cannot resolve not-yet.invalid:1").contains("[WARN ]"));
    fs::remove_file(config).unwrap();
    let mut client = Client::connect(node.addr);
    wait_until("the peer with an address is linked", || client.stat("peers_linked") == 1);
    drop(client);
    node.signal("TERM");
    assert_eq!(node.end(), Some(0));
}

#[test]
fn configured_peer_that_is_not_there_is_a_warning_with_its_address_and_cause() {
    let gone = free_port();
    let mut node = Node::start(0, &["--peer", &gone.to_string()]);
    let line = log_line(&mut node.log, "cannot reach peer");
    let wanted =
        format!("[WARN ] cannot reach peer {gone}: Connection refused (os error 111); trying again\n");
    assert!(line.ends_with(&wanted), "{line}");
}

#[test]
fn shipped_configuration_with_a_port_and_a_peer_makes_a_mesh() {
    let seed = Node::start(0, &[]);
    let peers = format!("remote_peers = [\"{}\"]", seed.addr);
    let text = olivia::config::DEFAULT_TEXT.replace("remote_peers = []", &peers);
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shipped-{}.toml", std::process::id()));
    for text in [text.replace("#base_node = true", "base_node = true"), text] {
        assert!(text.contains(&peers));
        fs::write(&config, text).unwrap();
        let node = Node::start(0, &["--config", config.to_str().unwrap()]);
        let mut client = Client::connect(node.addr);
        wait_until("the nodes are linked", || client.stat("peers_linked") == 1);
    }
    fs::remove_file(config).unwrap();
}

#[test]
fn files_that_became_pipes_or_devices_are_refused_at_reload_and_do_not_stop_the_node() {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fifo-{}", std::process::id()));
    fs::create_dir_all(&home).unwrap();
    let [config, password, secret] = ["olivia.toml", "password", "secret"].map(|name| home.join(name));
    let text = format!("[security]\npassword_file = {password:?}\n[mesh]\nsecret_file = {secret:?}\n");
    let regular = [(&config, text.as_str()), (&password, "right"), (&secret, "0123456789abcdef")];
    regular.iter().for_each(|(path, text)| fs::write(path, text).unwrap());
    let mut node = Node::start(0, &["--config", config.to_str().unwrap()]);
    for (path, text) in regular {
        for replace in ["mkfifo \"$0\"", "ln -s /dev/zero \"$0\"", "ln -s /dev/ptmx \"$0\""] {
            fs::remove_file(path).unwrap();
            assert!(
                Command::new("sh").args(["-c", replace]).arg(path).status().unwrap().success(),
                "{replace}"
            );
            node.signal("HUP");
            let line = log_line(&mut node.log, "configuration not changed");
            assert!(line.contains("not a regular file"), "{replace}: {line}");
            assert_eq!(Client::connect(node.addr).ask("AUTH right"), ":WELCOME ");
        }
        fs::remove_file(path).unwrap();
        fs::write(path, text).unwrap();
    }
    node.signal("HUP");
    log_line(&mut node.log, "configuration read again: nothing changed");
    fs::remove_dir_all(home).unwrap();
}

#[test]
fn reload_says_what_changed_and_that_memory_is_above_its_limit_and_then_near_it() {
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reload-{}.toml", std::process::id()));
    fs::write(&config, "[limits]\nmemory_max = 0\n").unwrap();
    let mut node = Node::start(0, &["--config", config.to_str().unwrap()]);
    let mut client = Client::connect(node.addr);
    for n in 0..40 {
        client.ask(&format!("SET key{n}:{}", "v".repeat(60_000)));
    }
    fs::write(&config, "[limits]\nmemory_max = '1MiB'\n").unwrap();
    node.signal("HUP");
    let line = log_line(&mut node.log, "configuration read again");
    assert!(line.contains("limits.memory_max 0 -> \"1MiB\""), "{line}");
    let line = log_line(&mut node.log, "memory_max");
    assert_eq!(line.find("Z [WARN ] "), Some("2026-11-28T21:50:00.000".len()), "times of one width: {line}");
    assert!(line.contains("[WARN ]") && line.contains("1048576"), "{line}");
    fs::remove_file(config).unwrap();
    // At the end of a sample of 10 s in which something happened.
    std::thread::scope(|scope| {
        let line = scope.spawn(|| log_line(&mut node.log, "of memory_max"));
        for round in 0.. {
            if line.is_finished() {
                break;
            }
            for n in 0..100 {
                client.ask(&format!("SET {round}-{n}:{}", "v".repeat(100)));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let line = line.join().unwrap();
        assert!(
            line.contains("of memory_max = 1.0 MiB are used; the items used least are evicted"),
            "{line}"
        );
    });
}

#[test]
fn vanished_clients_are_found_by_keepalive() {
    let node = Node::start(0, &[]);
    let mut client = Client::connect(node.addr);
    client.ask("PING");
    // Local address, remote address, state 01 (established), queues, timer: 02 is keepalive.
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{:04X}", node.addr.port());
    let is_ours = |line: &&str| line.split_whitespace().nth(1) == Some(&local) && line.contains(" 01 ");
    let timer = table.lines().find(is_ours).and_then(|line| line.split_whitespace().nth(5)).unwrap();
    assert!(timer.starts_with("02:"), "no keepalive timer: {timer}");
}

#[test]
fn request_after_an_urgent_byte_is_answered() {
    let node = Node::start(0, &[]);
    let mut client = Client::connect(node.addr);
    client.ask("PING");
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
