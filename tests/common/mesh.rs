//! Meshes of nodes as processes.

use super::client::Client;
use super::server::{Launch, Server};
use super::wait_until;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports between two that [`free_port`] returns.
const PORTS_APART: u16 = 8;

/// For how long a node of a mesh waits for another: a busy machine delays a process for longer than the default.
const LOOKUP_TIMEOUT_MS: u64 = 2_000;

/// Starts `count` nodes, each but the first configured with the first as its peer. `launch` prepares each. Returns when
/// all are linked to each other. Each has a port that is free again when it has ended.
pub fn mesh(name: &str, count: usize, launch: impl Fn(Launch) -> Launch) -> Vec<Server> {
    let mut nodes: Vec<Server> = Vec::new();
    for index in 0..count {
        let node = Launch::new(&format!("{name}-{index}")).port(free_port());
        let node = launch(node.mesh("lookup_timeout_ms", LOOKUP_TIMEOUT_MS));
        nodes.push(match nodes.first() {
            Some(base) => node.peer(base.addr()).start(),
            None => node.start(),
        });
    }
    for node in &nodes {
        wait_for_peers(&mut node.connect(), count - 1);
    }
    nodes
}

/// Waits until a node is ready and has exactly `count` peers.
pub fn wait_for_peers(client: &mut Client, count: usize) {
    wait_until(&format!("there are {count} peers"), || {
        client.stat("peers_linked") == count as u64 && client.stat_text("ready") == "yes"
    });
}

/// Waits until a key is found, and checks that it has the right value then.
pub fn wait_for_value(client: &mut Client, key: &str, value: &str) {
    let mut reply = String::new();
    wait_until(&format!("{key} is found"), || {
        reply = client.call(&format!("GET {key}"));
        reply != ":GOT "
    });
    assert_eq!(reply, format!(":GOT {key}:{value}"));
}

/// Returns a port that is free and stays so until it is bound: below those that the system gives to sockets without a
/// port of their own, and in each process and at each call another one. The next [`PORTS_APART`] are the caller's too.
pub fn free_port() -> u16 {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    loop {
        let call = std::process::id() * 8 + u32::from(CALLS.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + u16::try_from(call % (20_000 / u32::from(PORTS_APART))).unwrap() * PORTS_APART;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
