//! `make run-cluster`, that is `examples/cluster`: it ends the processes that it starts, and none outlives it.
//!
//! The example is built by `cargo test` with everything else, not for this test alone.

#![cfg(target_os = "linux")]

mod common;

use common::client::Client;
use common::mesh::{free_port, wait_for_value};
use common::{WAIT_MAX, wait_until};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

/// The example, built beside the tests.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples/cluster");
    assert!(example.exists(), "no {}: cargo build --examples makes it", example.display());
    example
}

/// The running example, and its output.
struct Running {
    child: Child,
    printed: Arc<Mutex<String>>,
    first_port: u16,
}

impl Running {
    fn start(name: &str, nodes: &str, first_port: u16) -> Self {
        Self::start_with(name, nodes, first_port, &[])
    }

    fn start_with(name: &str, nodes: &str, first_port: u16, more: &[&str]) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("run-{name}-{}", std::process::id()));
        let mut child = Command::new(example())
            .args(["--nodes", nodes, "--program", env!("CARGO_BIN_EXE_olivia")])
            .args(["--port", &first_port.to_string(), "--dir"])
            .arg(dir)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let printed = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        thread::spawn({
            let printed = Arc::clone(&printed);
            move || lines.map_while(Result::ok).for_each(|line| *printed.lock().unwrap() += &(line + "\n"))
        });
        Self { child, printed, first_port }
    }

    fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    fn wait_for(&self, text: &str) {
        wait_until(&format!("it prints {text:?}"), || self.printed().contains(text));
    }

    /// The addresses that it has shown.
    fn addrs(&self) -> Vec<SocketAddr> {
        let printed = self.printed();
        let lines = printed.lines().filter(|line| line.starts_with("  n"));
        lines.map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap()).collect()
    }

    /// The processes that it has started.
    fn children(&self) -> Vec<u32> {
        let stats = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, fs::read_to_string(entry.path().join("stat")).ok()?))
        });
        let parent = |stat: &str| stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok();
        stats.filter(|(_, stat)| parent(stat) == Some(self.child.id())).map(|(pid, _)| pid).collect()
    }

    /// Waits for its end, and gives the exit code.
    fn end(&mut self) -> Option<i32> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begin.elapsed() < WAIT_MAX, "it does not end:\n{}", self.printed());
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

fn wait_until_nobody_listens(addrs: &[SocketAddr]) {
    for addr in addrs {
        wait_until(&format!("no process listens on {addr}"), || TcpListener::bind(addr).is_ok());
    }
}

#[test]
fn three_nodes_come_up_find_each_others_keys_and_end_on_ctrl_c() {
    let mut cluster = Running::start("three", "3", free_port());
    cluster.wait_for("Ctrl-C ends");
    assert!(cluster.printed().contains("3 nodes are ready"), "{}", cluster.printed());
    let addrs = cluster.addrs();
    assert_eq!(addrs.len(), 3);
    assert!(addrs.iter().all(|addr| addr.port() >= cluster.first_port));
    assert_eq!(Client::connect(addrs[0]).call("SET greeting:hello"), ":SAT greeting:hello");
    wait_for_value(&mut Client::connect(addrs[2]), "greeting", "hello");
    let children = cluster.children();
    assert_eq!(children.len(), 3);
    signal(cluster.child.id(), "INT");
    assert_eq!(cluster.end(), Some(0), "{}", cluster.printed());
    let left: Vec<&u32> = children.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
    assert!(left.is_empty(), "{left:?} outlive it");
    wait_until_nobody_listens(&addrs);
}

#[test]
fn demo_shows_the_page_and_loads_every_node_again_after_it_was_stopped() {
    let mut cluster = Running::start_with("demo", "2", free_port(), &["--demo"]);
    cluster.wait_for("Ctrl-C ends");
    let addrs = cluster.addrs();
    assert!(cluster.printed().contains(&format!("http://{}/", addrs[0])), "{}", cluster.printed());
    // As many nodes as cores, or fewer, have one each.
    let core = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap().to_owned()
    };
    if thread::available_parallelism().is_ok_and(|cores| cores.get() >= 2) {
        let cores: Vec<String> = cluster.children().iter().map(core).collect();
        assert!(cores[0] != cores[1] && cores.iter().all(|core| core.parse::<u32>().is_ok()), "{cores:?}");
        assert!(cluster.printed().contains(&format!("  core {}\n", cores[0])), "{}", cluster.printed());
    }
    let mut clients = [Client::connect(addrs[0]), Client::connect(addrs[1])];
    for client in &mut clients {
        wait_until("there are keys and hits", || client.stat("keys") > 20 && client.stat("hits") > 20);
        wait_until("keys of the other node are found", || client.stat("lookup_hits") > 0);
    }
    let stopped = cluster.children()[0];
    signal(stopped, "STOP");
    thread::sleep(std::time::Duration::from_millis(700));
    signal(stopped, "CONT");
    for client in &mut clients {
        let before = client.stat("hits");
        wait_until("the load goes on", || client.stat("hits") > before + 20);
    }
    signal(cluster.child.id(), "INT");
    assert_eq!(cluster.end(), Some(0), "{}", cluster.printed());
}

#[test]
fn port_in_use_is_skipped() {
    let port = free_port();
    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let mut cluster = Running::start("skip", "2", port);
    cluster.wait_for("Ctrl-C ends");
    assert!(cluster.addrs().iter().all(|addr| addr.port() > port), "{:?}", cluster.addrs());
    signal(cluster.child.id(), "TERM");
    assert_eq!(cluster.end(), Some(0), "{}", cluster.printed());
}

#[test]
fn node_that_dies_is_reported_with_the_command_that_restarts_it_and_the_others_go_on() {
    let mut cluster = Running::start("dies", "3", free_port());
    cluster.wait_for("Ctrl-C ends");
    let addrs = cluster.addrs();
    let victim = addrs[1];
    let is_victim = |pid: &u32| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        command.contains(&format!("{}.toml", victim.port()))
    };
    signal(cluster.children().into_iter().find(is_victim).unwrap(), "KILL");
    cluster.wait_for(&format!("n2 ({victim}) died (signal 9); start it again: "));
    wait_until("log lines name the node", || cluster.printed().contains("link to n2 lost"));
    assert_eq!(Client::connect(addrs[2]).call("SET still:here"), ":SAT still:here");
    wait_for_value(&mut Client::connect(addrs[0]), "still", "here");
    signal(cluster.child.id(), "INT");
    assert_eq!(cluster.end(), Some(0), "{}", cluster.printed());
    wait_until_nobody_listens(&addrs);
}

#[test]
fn nodes_do_not_outlive_it_even_if_it_is_killed() {
    let mut cluster = Running::start("killed", "2", free_port());
    cluster.wait_for("Ctrl-C ends");
    let addrs = cluster.addrs();
    signal(cluster.child.id(), "KILL");
    assert_eq!(cluster.end(), None);
    wait_until_nobody_listens(&addrs);
}

#[test]
fn node_that_does_not_end_is_killed() {
    let mut cluster = Running::start("deaf", "2", free_port());
    cluster.wait_for("Ctrl-C ends");
    let addrs = cluster.addrs();
    signal(cluster.children()[0], "STOP");
    signal(cluster.child.id(), "INT");
    cluster.wait_for("does not shut down and is killed");
    assert_eq!(cluster.end(), Some(1), "{}", cluster.printed());
    wait_until_nobody_listens(&addrs);
}

#[test]
fn failed_start_is_reported_with_its_exit_code() {
    let run = |args: &[&str]| {
        let output = Command::new(example()).args(args).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = run(&["--nodes", "65"]);
    assert!(code == Some(2) && text.contains("it takes 1 to 64"), "{code:?} {text}");
    let (code, text) = run(&["--bogus"]);
    assert!(code == Some(2) && text.contains("--bogus"), "{code:?} {text}");
    let (code, text) = run(&["--program", "/nowhere/olivia"]);
    assert!(code == Some(1) && text.contains("/nowhere/olivia"), "{code:?} {text}");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("run-false");
    let (code, text) = run(&["--program", "/bin/false", "--dir", dir.to_str().unwrap()]);
    assert!(code == Some(1) && text.contains("n1 did not start"), "{code:?} {text}");
}
