//! What surrounds a node and must not stop it: a log that nobody reads, names without an address, files that block,
//! clients that vanish, urgent data.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod common;

use common::client::Client;
use common::wait_until;
use std::io::{PipeReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes that a pipe holds until its reader takes some.
const PIPE_BYTES: usize = 64 * 1024;

/// A port of loopback that nobody listens on at this moment.
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
            .args(["--port", &addr.port().to_string()])
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
