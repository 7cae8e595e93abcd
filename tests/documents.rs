//! The documents are true: make targets and files that they name exist, configurations load, requests are understood.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod common;

use common::mesh::{free_port, wait_for_peers, wait_for_value};
use common::server::Launch;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Every document, with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let folders = [root(), root().join("docs")];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap().flatten());
    let paths = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "md"));
    let all: Vec<_> = paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect();
    assert!(all.len() >= 10, "{all:?}");
    all
}

/// The fenced blocks of a document that are marked so.
fn blocks<'t>(text: &'t str, mark: &str) -> Vec<&'t str> {
    let fence = format!("```{mark}\n");
    text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn make_targets_that_documents_name_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    for (path, text) in documents() {
        for (at, _) in text.match_indices("make ").filter(|(at, _)| {
            let before = &text[..*at];
            before.ends_with('`')
                || before.ends_with("\n    ")
                || before.ends_with("5454 ")
                || before.ends_with("GiB ")
        }) {
            let target: String =
                text[at + 5..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            let is_known = makefile.contains(&format!("\n{target}: ##"));
            assert!(is_known, "{}: make {target}", path.display());
        }
    }
}

#[test]
fn files_that_documents_name_exist() {
    for (path, text) in documents() {
        let folder = path.parent().unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let quoted = text.split('`').skip(1).step_by(2).filter(|word| {
            let is_file =
                ["src/", "tests/", "docs/", "examples/", "benches/"].iter().any(|f| word.starts_with(f));
            is_file && !word.contains([' ', '*', '<', '\n'])
        });
        for name in links.filter(|link| !link.contains("://") && !link.starts_with('#')).chain(quoted) {
            let name = name.split('#').next().unwrap().trim_end_matches('/');
            let found = [folder.join(name), root().join(name)].iter().any(|path| path.exists());
            assert!(found, "{}: {name} does not exist", path.display());
        }
    }
}

#[test]
fn requests_that_documents_send_by_nc_are_understood() {
    let server = Launch::new("documents").start();
    let mut client = server.connect();
    let mut sent = 0;
    for (path, text) in documents() {
        let commands = text.lines().filter_map(|line| line.trim().strip_prefix("printf '"));
        for (requests, _) in commands.filter_map(|line| line.split_once("' | nc -N 127.0.0.1 5454")) {
            for request in requests.split("\\n").filter(|request| !request.is_empty()) {
                let reply = client.ask(request);
                assert!(!reply.contains("ERR "), "{}: {request}: {reply}", path.display());
                sent += 1;
            }
        }
    }
    assert!(sent >= 4, "{sent}");
    drop(client);
    server.end_well();
}

#[test]
fn configurations_in_documents_load() {
    for (path, text) in documents() {
        for block in blocks(&text, "toml") {
            let loaded = olivia::config::parse_toml("a document", block);
            assert!(loaded.is_ok(), "{}: {:?}", path.display(), loaded.err());
        }
    }
}

#[test]
fn three_nodes_of_the_tutorial_find_each_others_keys() {
    let text = fs::read_to_string(root().join("docs/tutorial.md")).unwrap();
    let config = blocks(&text, "toml")[0];
    // The same file for all; 10.0.0.1 to 10.0.0.3 are 127.0.0.1 to 127.0.0.3 here.
    let port = free_port();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tutorial-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    for (file, secret) in [("password", "open sesame"), ("secret", "0123456789abcdef0123456789abcdef")] {
        fs::write(dir.join(file), secret).unwrap();
    }
    let config = config
        .replace("/etc/olivia", dir.to_str().unwrap())
        .replace("10.0.0.", "127.0.0.")
        .replace(":5454", &format!(":{port}"));
    let nodes: Vec<_> = (1..=3)
        .map(|number| {
            let config = config.replace("0.0.0.0", &format!("127.0.0.{number}"));
            Launch::new(&format!("tutorial-{number}")).port(port).config(&config).start()
        })
        .collect();
    let mut clients: Vec<_> = nodes.iter().map(|node| node.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("AUTH open sesame"), ":WELCOME ");
        wait_for_peers(client, 2);
    }
    assert_eq!(clients[0].ask("SET greeting:hello"), ":SAT greeting:hello");
    wait_for_value(&mut clients[2], "greeting", "hello");
    drop(clients);
    // Each finds its own address in that file.
    nodes.iter().for_each(|node| assert!(!node.log().contains("dialled itself"), "{}", node.log()));
    nodes.into_iter().for_each(|node| node.end_well());
    fs::remove_dir_all(dir).unwrap();
}
