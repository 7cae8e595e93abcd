//! Nodes on hosts of their own, between which packets can get lost: network namespaces around a router.
//!
//! On loopback a process that dies resets its connections. Here a host vanishes without a reset, in both directions or
//! in one. Needs root and iproute2; without them the tests print that and pass. Namespaces are named after this process
//! and removed at the end.

#![cfg(target_os = "linux")]

mod common;

use common::client::Client;
use common::mesh::{wait_for_peers, wait_for_value};
use common::net::{Loss, Net, PASSWORD, PORT, SECRET};
use common::server::Launch;
use common::wait_until;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Short, and yet three of them are longer than a busy machine delays a process.
const BEAT_MS: u64 = 1_000;

/// For how long a node waits for another one: three times this is over before a silent one is unlinked.
const LOOKUP_TIMEOUT_MS: u64 = 500;

/// Has the names of a host resolved by a name server on another one. `ip netns exec` shows the host this file in
/// place of `/etc/resolv.conf`; gone with the returned value.
fn resolve_at(net: &Net, host: usize, server: usize) -> ResolvConf {
    let dir = Path::new("/etc/netns").join(&net.hosts[host]);
    fs::create_dir_all(&dir).unwrap();
    let text = format!("nameserver 10.77.{server}.2\noptions timeout:5 attempts:2\n");
    fs::write(dir.join("resolv.conf"), text).unwrap();
    ResolvConf(dir)
}

/// A name server on a host: it answers every name alike.
fn name_server(net: &Net, host: usize) -> NameServer {
    let answer = NameServer::default();
    let (shared, bind) = (Arc::clone(&answer.0), format!("10.77.{host}.2:53"));
    let socket = net.inside(host, move || UdpSocket::bind(bind).unwrap());
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let Some((delay, ip)) = *shared.lock().unwrap() else { continue };
            thread::sleep(delay);
            let _ = socket.send_to(&dns_answer(&query[..length], ip), from);
        }
    });
    answer
}

/// A name server that answers with this address after a delay; `None`: it does not answer.
#[derive(Debug, Clone, Default)]
struct NameServer(Arc<Mutex<Option<(Duration, Ipv4Addr)>>>);

impl NameServer {
    fn answers(&self, delay: Duration, host: u8) {
        *self.0.lock().unwrap() = Some((delay, Ipv4Addr::new(10, 77, host, 2)));
    }
}

/// The answer to a DNS query with one question: the address for type A, no record for any other type.
fn dns_answer(query: &[u8], ip: Ipv4Addr) -> Vec<u8> {
    let question_end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let is_a = query[question_end - 4..question_end - 2] == [0, 1];
    let mut answer = query[..question_end].to_vec();
    // A response, recursion available, one question, one answer or none.
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    if is_a {
        // The name of the question, type A, class IN, TTL 1 s, 4 bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(ip.octets());
    }
    answer
}

struct ResolvConf(PathBuf);

impl Drop for ResolvConf {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn set_all(client: &mut Client, prefix: &str, count: usize) {
    for n in 0..count {
        assert_eq!(client.call(&format!("SET {prefix}-{n}:{n}")), format!(":SAT {prefix}-{n}:{n}"));
    }
}

fn all_found(client: &mut Client, prefix: &str, count: usize) {
    (0..count).for_each(|n| wait_for_value(client, &format!("{prefix}-{n}"), &n.to_string()));
}

#[test]
fn vanished_host_is_unlinked_after_three_heartbeats_and_linked_again() {
    let Some(net) = Net::new("vanish", 3) else { return };
    let nodes = net.start("vanish", BEAT_MS, LOOKUP_TIMEOUT_MS);
    let mut clients: Vec<Client> = (0..3).map(|host| net.client(host)).collect();
    clients.iter_mut().for_each(|client| wait_for_peers(client, 2));
    set_all(&mut clients[2], "third", 30);
    // These are claimed by the node that will vanish, too, though the later write has won.
    set_all(&mut clients[2], "twice", 30);
    set_all(&mut clients[1], "twice", 30);
    all_found(&mut clients[0], "third", 30);
    all_found(&mut clients[0], "twice", 30);

    net.rule("add", 2, Loss::Both);
    for n in 0..30 {
        assert_eq!(clients[0].call(&format!("GET twice-{n}")), format!(":GOT twice-{n}:{n}"), "no failover");
    }
    for n in 0..30 {
        assert_eq!(clients[0].call(&format!("GET third-{n}")), ":GOT ");
    }
    assert!(clients[0].stat("lookup_timeouts") <= 3, "lookups time out after the circuit breaker opened");
    for (host, left) in [(0, 1), (1, 1), (2, 0)] {
        wait_until("the vanished host is unlinked", || clients[host].stat("peers_linked") == left);
    }
    nodes[0].wait_for_log("peer 10.77.2.2:5454: 3 heartbeats missed; closing the link");
    assert_eq!(clients[2].call("GET third-1,twice-1"), ":GOT third-1:1");
    set_all(&mut clients[2], "meanwhile", 30);
    assert_eq!(clients[0].call("GET meanwhile-1"), ":GOT ");

    net.rule("delete", 2, Loss::Both);
    clients.iter_mut().for_each(|client| wait_for_peers(client, 2));
    for client in &mut clients {
        ["third", "twice", "meanwhile"].iter().for_each(|prefix| all_found(client, prefix, 30));
    }
}

#[test]
fn host_cut_off_in_one_direction_is_unlinked_by_both_sides() {
    let Some(net) = Net::new("deaf", 2) else { return };
    let nodes = net.start("deaf", BEAT_MS, LOOKUP_TIMEOUT_MS);
    let mut clients: Vec<Client> = (0..2).map(|host| net.client(host)).collect();
    clients.iter_mut().for_each(|client| wait_for_peers(client, 1));
    set_all(&mut clients[1], "deaf", 3);
    all_found(&mut clients[0], "deaf", 3);
    net.rule("add", 1, Loss::ToIt);
    for client in &mut clients {
        wait_until("the host that receives nothing is unlinked", || client.stat("peers_linked") == 0);
    }
    // The host that still sends notices that it is not heard.
    nodes[1].wait_for_log("peer 10.77.0.2:5454: 3 heartbeats missed; closing the link");
    net.rule("delete", 1, Loss::ToIt);
    clients.iter_mut().for_each(|client| wait_for_peers(client, 1));
    all_found(&mut clients[0], "deaf", 3);
}

#[test]
fn host_without_the_secret_is_refused_from_everywhere() {
    let Some(net) = Net::new("stranger", 2) else { return };
    let launch = |host: usize| {
        Launch::new(&format!("stranger-{host}"))
            .inside(&net.hosts[host])
            .arg("--bind")
            .arg("0.0.0.0")
            .port(PORT)
            .env("OLIVIA_SECURITY_PASSWORD", PASSWORD)
    };
    let member = launch(0).env("OLIVIA_MESH_SECRET", SECRET).start();
    let stranger = launch(1).env("OLIVIA_MESH_SECRET", "some other secret").peer(Net::addr(0)).start();
    member.wait_for_log("refused the handshake of 10.77.1.2:");
    stranger.wait_for_log("need the same [mesh] secret");
    let (mut inside, mut large_objects) = (net.client(0), net.client(1));
    wait_for_peers(&mut large_objects, 0);
    set_all(&mut inside, "secret", 1);
    assert_eq!(large_objects.call("GET secret-0"), ":GOT ");
    assert_eq!(inside.stat("peers_linked"), 0);
}

#[test]
fn name_server_that_is_silent_late_or_changes_its_answer_delays_nothing_but_its_name() {
    // The name server, the node, and two hosts that the name leads to, one after the other.
    let Some(net) = Net::new("names", 4) else { return };
    let _resolv_conf = resolve_at(&net, 1, 0);
    let names = name_server(&net, 0);
    let launch = |host| net.launch_alone("names", host, BEAT_MS);
    let _first = launch(2).start();
    let begin = Instant::now();
    let _node = launch(1).arg("--peer").arg(&format!("seed.test:{PORT}")).start();
    let mut client = net.client(1);
    assert!(begin.elapsed() < Duration::from_secs(8), "a silent name server delays the start: {begin:?}");
    set_all(&mut client, "meanwhile", 100);
    assert!(begin.elapsed() < Duration::from_secs(8), "a silent name server delays requests: {begin:?}");
    assert_eq!(client.stat("peers_linked"), 0);
    assert_eq!(client.stat("peers_configured"), 1);

    names.answers(Duration::from_millis(700), 2);
    wait_for_peers(&mut client, 1);
    assert!(client.call("MESH").contains("10.77.2.2:5454 linked"), "{}", client.call("MESH"));

    // The host is gone without a word, and the name leads to another one.
    let _second = launch(3).start();
    net.rule("add", 2, Loss::Both);
    names.answers(Duration::ZERO, 3);
    wait_until("the name is resolved again", || client.call("MESH").contains("10.77.3.2:5454 linked"));
    set_all(&mut net.client(3), "moved", 1);
    all_found(&mut client, "moved", 1);
    drop(client);
    net.rule("delete", 2, Loss::Both);
}
