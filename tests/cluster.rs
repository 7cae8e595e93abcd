//! The mesh of real processes on loopback: nodes discover each other, find each other's keys, die, stop, return, and
//! refuse nodes without the secret.
//!
//! Not here: faults between two hosts, which `tests/namespaces.rs` tests.

#![cfg(target_os = "linux")]

mod common;

use common::client::Client;
use common::mesh::{free_port, mesh, wait_for_peers, wait_for_value};
use common::server::{Launch, Server};
use common::wait_until;
use std::fmt::Write;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

const SECRET: &str = "sixteen bytes at least, and these are more";

/// Silence of a second ends nothing, so what ends sooner has another reason.
const SLOW_BEAT_MS: u64 = 60_000;

/// Short, and yet long enough to distinguish three heartbeats from four on a busy machine.
const QUICK_BEAT_MS: u64 = 1_500;

fn with_secret(launch: Launch) -> Launch {
    launch.env("OLIVIA_MESH_SECRET", SECRET)
}

/// Sets keys `from-0` and so on, with the number for a value.
fn set_keys(client: &mut Client, from: &str, count: usize) {
    let mut request = String::from("SET ");
    for n in 0..count {
        write!(request, "{}{from}-{n}:{n}", if n == 0 { "" } else { "," }).unwrap();
    }
    let reply = client.call(&request);
    assert!(reply.starts_with(":SAT "), "{reply}");
}

#[test]
fn key_set_on_any_of_three_nodes_is_found_from_all() {
    for (name, launch) in [("open", (|launch| launch) as fn(Launch) -> Launch), ("closed", with_secret)] {
        let nodes = mesh(name, 3, launch);
        let mut clients: Vec<Client> = nodes.iter().map(Server::connect).collect();
        for (index, client) in clients.iter_mut().enumerate() {
            set_keys(client, &format!("from{index}"), 10);
        }
        for client in &mut clients {
            for index in 0..3 {
                (0..10).for_each(|n| wait_for_value(client, &format!("from{index}-{n}"), &n.to_string()));
            }
            assert_eq!(
                client.call("GET from0-1,nobody,from1-2,from2-3"),
                ":GOT from0-1:1,from1-2:2,from2-3:3"
            );
            assert_eq!(client.call("GET nobody"), ":GOT ");
        }
        clients[2].call("SETEX brief:b:100");
        wait_for_value(&mut clients[0], "brief", "b");
        let lasts = clients[0].call("TTL brief,from1-1");
        assert!(
            lasts == ":LASTS brief:100,from1-1:never" || lasts == ":LASTS brief:99,from1-1:never",
            "{lasts}"
        );
    }
}

#[test]
fn killed_node_is_unlinked_at_once_and_its_successor_is_a_new_member() {
    let slow = |launch: Launch| with_secret(launch).mesh("heartbeat_interval_ms", SLOW_BEAT_MS);
    let mut nodes = mesh("killed", 3, slow);
    let mut clients: Vec<Client> = nodes.iter().map(Server::connect).collect();
    set_keys(&mut clients[2], "lost", 10);
    wait_for_value(&mut clients[1], "lost-9", "9");
    let identity = clients[2].stat_text("node_id");
    let (base, addr) = (nodes[0].addr(), nodes[2].addr());
    nodes[2].kill();
    clients.pop();
    // A dead link is detected by its reset: no heartbeat is due for a minute.
    for client in &mut clients {
        wait_until("the dead node is gone", || client.stat("peers_linked") == 1);
        (0..10).for_each(|n| assert_eq!(client.call(&format!("GET lost-{n}")), ":GOT "));
        assert_eq!(client.stat("lookup_timeouts"), 0);
    }
    nodes[0].wait_for_log(&format!("link to {addr} (node {identity}) lost: "));
    nodes[2] = slow(Launch::new("killed-again")).port(addr.port()).peer(base).start();
    let mut again = nodes[2].connect();
    wait_for_peers(&mut again, 2);
    assert_ne!(again.stat_text("node_id"), identity);
    set_keys(&mut again, "new", 10);
    for client in &mut clients {
        wait_for_peers(client, 2);
        (0..10).for_each(|n| wait_for_value(client, &format!("new-{n}"), &n.to_string()));
        assert_eq!(client.call("GET lost-1"), ":GOT ");
    }
}

#[test]
fn stopped_node_costs_three_timeouts_and_is_unlinked_after_three_heartbeats() {
    // Three timeouts are over before the second heartbeat.
    let quick = |launch: Launch| {
        with_secret(launch).mesh("heartbeat_interval_ms", QUICK_BEAT_MS).mesh("lookup_timeout_ms", 100)
    };
    let nodes = mesh("still", 3, quick);
    let mut client = nodes[0].connect();
    set_keys(&mut nodes[2].connect(), "still", 50);
    wait_for_value(&mut client, "still-49", "49");
    nodes[2].signal("STOP");
    for n in 0..50 {
        assert_eq!(client.call(&format!("GET still-{n}")), ":GOT ");
    }
    // It claims all of these keys; three timeouts in a row open its circuit.
    assert_eq!(client.stat("lookup_timeouts"), 3);
    wait_until("the silent node is gone", || client.stat("peers_linked") == 1);
    nodes[0].wait_for_log(&format!("peer {}: 3 heartbeats missed; closing the link", nodes[2].addr()));
    assert_eq!(client.stat("lookup_timeouts"), 3);
    nodes[2].signal("CONT");
    wait_for_peers(&mut client, 2);
    (0..50).for_each(|n| wait_for_value(&mut client, &format!("still-{n}"), &n.to_string()));
}

#[test]
fn node_paused_for_a_moment_stays_linked() {
    // The pause, until one lookup has timed out, is short before three heartbeats.
    let nodes = mesh("moment", 2, |launch| with_secret(launch).mesh("heartbeat_interval_ms", 3_000));
    let mut client = nodes[0].connect();
    set_keys(&mut nodes[1].connect(), "moment", 2);
    wait_for_value(&mut client, "moment-0", "0");
    nodes[1].signal("STOP");
    assert_eq!(client.call("GET moment-0"), ":GOT ");
    nodes[1].signal("CONT");
    // It is queried again after its next frame.
    wait_for_value(&mut client, "moment-0", "0");
    assert_eq!(client.call("GET moment-1"), ":GOT moment-1:1");
    assert_eq!(client.stat("lookup_timeouts"), 1);
    assert!(!nodes[0].log().contains("link to "), "{}", nodes[0].log());
}

#[test]
fn node_with_another_secret_is_refused_and_both_log_why() {
    let member = with_secret(Launch::new("member")).start();
    for (name, stranger) in [
        ("wrong", Launch::new("wrong").env("OLIVIA_MESH_SECRET", "another secret of the same length or so")),
        ("none", Launch::new("none")),
    ] {
        let stranger = stranger.peer(member.addr()).start();
        for node in [&member, &stranger] {
            node.wait_for_log("all nodes of a mesh need the same [mesh] secret");
        }
        let mut client = stranger.connect();
        // It has dialled; it serves its own keys only.
        wait_for_peers(&mut client, 0);
        assert_eq!(client.call("SET own:1"), ":SAT own:1");
        member.connect().call("SET theirs:1");
        assert_eq!(client.call("GET own,theirs"), ":GOT own:1", "{name}");
        assert_eq!(member.connect().call("GET own"), ":GOT ", "{name}");
        assert_eq!(member.connect().stat("peers_linked"), 0);
    }
}

#[test]
fn node_behind_a_mapped_port_is_dialled_at_the_address_that_it_advertises() {
    let seed = Launch::new("seed").start();
    let (listens, mapped) = (free_port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let advertised = mapped.local_addr().unwrap();
    thread::spawn(move || {
        for near in mapped.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(("127.0.0.1", listens)) else { continue };
            for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                thread::spawn(move || io::copy(&mut from, &mut to).map(|_| to.shutdown(Shutdown::Both)));
            }
        }
    });
    let behind = Launch::new("behind")
        .port(listens)
        .peer(seed.addr())
        .env("OLIVIA_MESH_ADVERTISE", advertised.to_string())
        .start();
    wait_for_peers(&mut seed.connect(), 1);
    assert_eq!(seed.connect().call("REQUEST peers"), format!(":FULFILLED {advertised}"));
    // It gets the other node's address from the seed only, and so the advertised one.
    let third = Launch::new("third").peer(seed.addr()).start();
    wait_for_peers(&mut third.connect(), 2);
    wait_for_peers(&mut behind.connect(), 2);
    assert_eq!(behind.connect().call("SET a:1"), ":SAT a:1");
    wait_for_value(&mut third.connect(), "a", "1");
    assert!(third.connect().call("REQUEST peers").contains(&advertised.to_string()));
}
