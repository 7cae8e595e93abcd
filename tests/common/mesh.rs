//! Meshes of nodes as processes.

use super::client::Client;
use super::server::{Launch, Server};
use super::wait_until;
use std::net::{Ipv4Addr, TcpListener};

/// Starts `count` nodes, each but the first configured with the first as its peer. `launch` prepares each. Returns when
/// all are linked to each other.
pub fn mesh(name: &str, count: usize, launch: impl Fn(Launch) -> Launch) -> Vec<Server> {
    let mut nodes: Vec<Server> = Vec::new();
    for index in 0..count {
        let node = launch(Launch::new(&format!("{name}-{index}")));
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

/// Returns a port that is free at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
