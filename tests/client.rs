//! `olivia ask` and `olivia top`, as processes that talk to a node.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod common;

use common::server::Launch;
use common::wait_until;
use std::net::TcpListener;
use std::process::{Command, Output};

/// Runs the program with these arguments and, if given, a password in its environment.
fn olivia(args: &[&str], password: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_olivia"));
    command.args(args).env_clear();
    command.envs(password.map(|password| ("OLIVIA_SECURITY_PASSWORD", password)));
    command.output().unwrap()
}

fn printed(args: &[&str]) -> String {
    let output = olivia(args, None);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn reply_is_printed_one_field_per_line_and_the_mesh_as_a_table() {
    let first = Launch::new("ask-first").start();
    let second = Launch::new("ask-second").peer(first.addr()).start();
    let addr = second.addr().to_string();
    assert_eq!(printed(&["ask", &addr, "SET a:1,\"b,c\":2"]), "a:1\n\"b,c\":2\n");
    assert_eq!(printed(&["ask", &addr, "GET nope"]), "");
    assert!(printed(&["ask", &addr, "STATS keys,ready"]).starts_with("keys:2\n"));
    wait_until("they are linked", || {
        printed(&["ask", &addr, "MESH"]).starts_with(&format!("{}  linked  round trip ", first.addr()))
    });
    let top = printed(&["top", &addr]);
    assert!(top.contains("requests/s") && top.contains("1 of 1 configured peers linked"), "{top}");
    // A row for each node: requests, hit ratio, latency, keys, memory, load, peers.
    let nodes = top.split_once("\nnode ").unwrap().1;
    for (server, keys) in [(&first, "0"), (&second, "2")] {
        let addr = server.addr().to_string();
        let row = nodes.lines().find(|line| line.starts_with(&addr)).unwrap_or_default();
        let cells: Vec<&str> = row.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect();
        assert_eq!((cells.len(), cells.get(4).copied()), (8, Some(keys)), "{top}");
    }
    second.end_well();
    first.end_well();
}

#[test]
fn what_goes_wrong_is_said_in_one_line_and_by_the_exit_code() {
    let server = Launch::new("ask-errors").env("OLIVIA_SECURITY_PASSWORD", "a \"b\"").start();
    let addr = server.addr().to_string();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (args, password, code, sentence) in [
        (&["ask", &addr, "GET a"][..], None, 1, "authentication needed; send AUTH password"),
        (&["ask", &addr, "GET a"], Some("wrong"), 1, "wrong password"),
        (&["ask", &addr, "GTE a"], Some("a \"b\""), 1, "unknown verb GTE; did you mean GET?"),
        (&["ask", &closed, "PING"], None, 1, "cannot connect to 127.0.0.1:"),
        (&["top", &closed], None, 1, "cannot connect to 127.0.0.1:"),
        (&["ask", &addr], None, 2, "usage: olivia ask HOST:PORT 'REQUEST'"),
        (&["ask", &addr, "GET a\nGET b"], None, 2, "usage: olivia ask HOST:PORT 'REQUEST', with one"),
        (&["top"], None, 2, "usage: olivia top HOST:PORT"),
    ] {
        let output = olivia(args, password);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(
            said.starts_with(&format!("olivia: {sentence}")) && said.lines().count() == 1,
            "{args:?}: {said}"
        );
    }
    let output = olivia(&["ask", &addr, "SET a:1"], Some("a \"b\""));
    assert_eq!(output.stdout, b"a:1\n");
    server.end_well();
}
