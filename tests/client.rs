//! `olivia ask`, `olivia top` and `olivia bench` as processes, with a node.

mod common;

use common::mesh::free_port;
use common::server::Launch;
use common::wait_until;
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
}

#[test]
fn bench_measures_and_verifies_in_every_protocol_and_loop() {
    let server = Launch::new("bench").start();
    let addr = server.addr().to_string();
    let small = ["--keys", "500", "--warm-up", "0.05", "--connections", "3"];
    let bench = |more: &[&str]| printed(&[&["bench", &addr], &small[..], more].concat());
    for protocol in ["lines", "resp"] {
        let text = bench(&[
            "--protocol",
            protocol,
            "--fill",
            "--mix",
            "50/50",
            "--pipeline",
            "5",
            "--seconds",
            "0.2",
        ]);
        assert!(text.contains("each verified") && text.contains("p99.99"), "{text}");
        assert!(text.contains("the generator was busy"), "{text}");
    }
    // Values of several sizes, some of them written and compared in many pieces.
    let text = bench(&["--fill", "--value-bytes", "10:8,300000:1", "--zipf", "0.9", "--requests", "500"]);
    assert!(text.contains("each verified"), "{text}");
    let mut json = serde_json::Value::Null;
    wait_until("the machine has the time for this rate", || {
        let text = bench(&["--json", "--rate", "2000", "--seconds", "0.5", "--value-bytes", "10:8,300000:1"]);
        json = serde_json::from_str(&text).unwrap();
        json["requests_per_second"].as_f64().is_some_and(|rate| (1_500.0..2_500.0).contains(&rate))
    });
    let number = |name: &str| json[name].as_f64().unwrap_or_else(|| panic!("{name} in {json}"));
    assert!(number("p50_us") <= number("p99_us") && number("p99_us") <= number("max_us"), "{json}");
    assert_eq!(number("rate"), 2_000.0);
    // No client has set keys of this length.
    let text = bench(&["--key-bytes", "20", "--requests", "1000", "--warm-up", "0"]);
    assert!(text.starts_with("1000 replies") && text.contains("1000 GETs found nothing; --fill"), "{text}");
    let output =
        olivia(&[&["bench", &addr], &small[..], &["--value-bytes", "11", "--requests", "9"]].concat(), None);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("wrong replies; the first is '$10\\r\\n"), "{said}");
    assert!(printed(&["bench", "--help"]).starts_with("olivia bench: load a server"));
    assert!(printed(&["ask", "--help"]).starts_with("usage: olivia ask HOST:PORT 'REQUEST'"));
    assert!(printed(&["top", "-h"]).starts_with("usage: olivia top HOST:PORT"));
}

#[test]
fn errors_are_reported_in_one_line_and_by_the_exit_code() {
    let server = Launch::new("ask-errors").env("OLIVIA_SECURITY_PASSWORD", "a \"b\"").start();
    let addr = server.addr().to_string();
    let closed = format!("127.0.0.1:{}", free_port());
    for (args, password, code, sentence) in [
        (
            &["ask", &addr, "GET a"][..],
            None,
            1,
            "authentication needed; the password is taken from OLIVIA_SECURITY_PASSWORD",
        ),
        (&["ask", &addr, "GET a"], Some("wrong"), 1, "wrong password"),
        (&["ask", &addr, "GTE a"], Some("a \"b\""), 1, "unknown verb GTE; did you mean GET?"),
        (&["ask", &closed, "PING"], None, 1, "cannot connect to 127.0.0.1:"),
        (&["top", &closed], None, 1, "cannot connect to 127.0.0.1:"),
        (&["ask", &addr], None, 2, "usage: olivia ask HOST:PORT 'REQUEST'"),
        (&["ask", &addr, "GET a\nGET b"], None, 2, "usage: olivia ask HOST:PORT 'REQUEST', with one"),
        (&["top"], None, 2, "usage: olivia top HOST:PORT"),
        (&["top", "127.0.0.1"], None, 2, "'127.0.0.1' has no port; write HOST:PORT, as in 127.0.0.1:5454"),
        (&["ask", "5454", "PING"], None, 2, "'5454' has no port; write HOST:PORT"),
        (&["bench", "a:b"], None, 2, "'a:b' has no port; write HOST:PORT"),
        (&["tpo", &addr], None, 2, "'tpo' is neither a flag nor ask, top or bench, which come first"),
        (&["bench"], None, 2, "no address; usage: olivia bench HOST:PORT"),
        (
            &["bench", &addr, "--fil"],
            None,
            2,
            "unknown flag '--fil' (did you mean '--fill'?); see olivia bench",
        ),
        (&["bench", &closed], None, 1, "127.0.0.1:"),
        (&["bench", &addr, "--keys", "10"], Some("wrong"), 1, "127.0.0.1:"),
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
}
