//! Checks of the documents: files, targets and tests that they name exist, configurations load, commands with nc run as
//! printed.

#![cfg(target_os = "linux")]

mod common;

use common::mesh::{free_port, wait_for_peers, wait_for_value};
use common::server::Launch;
use olivia::limits::{LIMIT_RANGES, MESH_RANGES};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Returns every document with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let folders = [root(), root().join("docs")];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap().flatten());
    let paths = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "md"));
    let all: Vec<_> = paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect();
    assert!(all.len() >= 10, "{all:?}");
    all
}

/// Returns the fenced blocks of a document with the mark `mark`.
fn blocks<'t>(text: &'t str, mark: &str) -> Vec<&'t str> {
    let fence = format!("```{mark}\n");
    text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// Returns the arguments of every command in code of a document that runs `program`. Comments are left out, lines that
/// end in a backslash are joined.
fn commands(text: &str, program: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let lines = text.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned);
    let spans = text.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " "));
    let is_word = |word: &&str| !matches!(*word, "sh" | "-c" | "'ip" | "$" | "&");
    let commands = lines.chain(spans).filter_map(|line| {
        let line = line.split(" #").next()?.split(";").next()?;
        let (before, rest) = line.split_once(program)?;
        let starts = before.split_whitespace().all(|word| word.contains('=')) || before.ends_with("&& ");
        let words = rest.trim_end_matches('\'').split_whitespace().filter(is_word).map(str::to_owned);
        (starts && rest.starts_with(' ')).then(|| words.collect::<Vec<_>>())
    });
    commands.filter(|words| !words.is_empty()).collect()
}

/// Returns the sources under a path without `.rs` as one text, with their paths.
fn sources(of: &Path) -> String {
    if of.is_dir() {
        let entries = fs::read_dir(of).unwrap().flatten();
        return entries.map(|entry| sources(&entry.path())).collect();
    }
    let path = if of.exists() { of.to_owned() } else { of.with_extension("rs") };
    fs::read_to_string(&path).map(|text| format!("{}\n{text}", path.display())).unwrap_or_default()
}

/// Whether the name of a test, or of a file of tests, contains a filter.
fn is_of_a_test(sources: &str, filter: &str) -> bool {
    sources.lines().any(|line| {
        let name = line.trim_start().strip_prefix("fn ").and_then(|rest| rest.split('(').next());
        name.is_some_and(|name| name.contains(filter)) || (line.starts_with('/') && line.contains(filter))
    })
}

#[test]
fn make_targets_and_their_variables_that_documents_name_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut found = 0;
    for (path, text) in documents() {
        for words in commands(&text, "make") {
            let is_known = makefile.contains(&format!("\n{}: ", words[0]));
            assert!(is_known, "{}: make {words:?}", path.display());
            for (variable, _) in words.iter().filter_map(|word| word.split_once('=')) {
                let is_used = makefile.contains(&format!("$({variable})"));
                assert!(is_used || variable.contains('-'), "{}: {variable} in {words:?}", path.display());
            }
            found += 1;
        }
    }
    assert!(found > 50, "{found}");
}

#[test]
fn tests_and_benches_that_documents_run_exist() {
    let mut found = 0;
    for (path, text) in documents() {
        for (program, folder) in [("cargo test", "tests"), ("cargo bench", "benches")] {
            for words in commands(&text, program) {
                let (ours, theirs) = match words.iter().position(|word| word == "--") {
                    Some(at) => (&words[..at], &words[at + 1..]),
                    None => (&words[..], &[][..]),
                };
                let (mut source, mut filters) = (String::new(), Vec::new());
                let mut ours = ours.iter();
                while let Some(word) = ours.next() {
                    match word.as_str() {
                        "--test" | "--bench" => {
                            let target = ours.next().unwrap();
                            let more = sources(&root().join(folder).join(target));
                            assert!(!more.is_empty(), "{}: no {target} in {words:?}", path.display());
                            source += &more;
                        }
                        "--lib" => source += &sources(&root().join("src")),
                        flag if flag.starts_with("--") => {}
                        filter => filters.push(filter),
                    }
                }
                assert!(filters.len() <= 1, "{}: cargo takes one filter: {words:?}", path.display());
                let theirs = theirs.iter().map(String::as_str).filter(|word| !word.starts_with('-'));
                for filter in filters.into_iter().chain(theirs) {
                    let is_there = match folder {
                        "tests" => is_of_a_test(&source, filter),
                        // Programs, addresses and numbers go to the benches as well.
                        _ => source.contains(filter) || !filter.bytes().all(|c| c.is_ascii_lowercase()),
                    };
                    assert!(is_there, "{}: {filter} in {words:?}", path.display());
                }
                found += 1;
            }
        }
    }
    assert!(found > 50, "{found}");
}

#[test]
fn each_row_of_what_happens_when_names_tests_that_exist() {
    let text = fs::read_to_string(root().join("docs/consistency.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("What happens when")).unwrap();
    let tests = sources(&root().join("tests"));
    let named = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let exist = |names: &[String]| names.iter().all(|name| name.contains('/') || is_of_a_test(&tests, name));
    let mut rows = 0;
    for row in section.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cell = row.trim_end_matches(" |").rsplit("| ").next().unwrap();
        let names = named(cell);
        let letters = ["M", "S"].into_iter().filter(|letter| cell.split(", ").any(|part| part == *letter));
        assert!(exist(&names) && names.len() + letters.count() > 0, "{row}");
        rows += 1;
    }
    assert!(rows >= 7, "{rows}");
    for letter in ["**M**", "**S**"] {
        let meaning = section.split_once(letter).unwrap().1.split("**").next().unwrap();
        let names = named(meaning);
        assert!(names.iter().any(|name| !name.contains('/')) && exist(&names), "{letter}: {names:?}");
    }
}

#[test]
fn flags_of_the_program_that_documents_use_exist() {
    let bench = Command::new(env!("CARGO_BIN_EXE_olivia")).args(["bench", "--help"]).output().unwrap();
    let known = [olivia::config::HELP, &String::from_utf8(bench.stdout).unwrap()].concat();
    let mut found = 0;
    for (path, text) in documents() {
        let flags = commands(&text, "olivia").into_iter().flatten().filter(|word| word.starts_with("--"));
        for flag in flags {
            assert!(known.contains(&format!(" {flag} ")), "{}: olivia {flag}", path.display());
            found += 1;
        }
    }
    assert!(found > 10, "{found}");
}

/// Targets that build are not quiet, so that a long build shows progress.
#[test]
fn targets_that_build_show_their_progress_and_the_profile_has_frame_pointers() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let line = |begin: &str| makefile.lines().find(|line| line.starts_with(begin)).unwrap().to_owned();
    assert!(!line("BUILD = ").contains("--quiet"));
    assert!(makefile.contains("\nrun: ") && makefile.contains("\n\t$(BUILD)\n\t@$(BUILT)/olivia $(ARGS)\n"));
    assert!(
        makefile.contains("\n\tRUSTFLAGS=\"-C force-frame-pointers=yes\" cargo build --profile profiling")
    );
    let script = fs::read_to_string(root().join("benches/perf.sh")).unwrap();
    assert!(script.contains("make --no-print-directory profile") && script.contains("--call-graph fp"));
}

#[test]
fn unit_of_systemd_is_one() {
    let text = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let begin = text.find("    [Unit]\n").unwrap();
    let lines = text[begin..].lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let unit: String = lines.map(|line| format!("{}\n", line.trim_start())).collect();
    assert!(unit.contains("[Install]"), "{unit}");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("unit-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("olivia.service");
    fs::write(&path, unit.replace("/usr/local/bin/olivia", env!("CARGO_BIN_EXE_olivia"))).unwrap();
    match Command::new("systemd-analyze").arg("verify").arg(&path).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !said.contains("olivia.service"), "{said}");
        }
        Err(error) => eprintln!("skipped: systemd-analyze: {error}"),
    }
    fs::remove_dir_all(dir).unwrap();
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
fn every_limit_is_listed_with_what_happens_beyond_it() {
    let text = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("Limits\n")).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let cells: Vec<Vec<&str>> = rows.map(|row| row.split('|').map(str::trim).collect()).collect();
    let names = LIMIT_RANGES.iter().map(|range| range.name).chain(MESH_RANGES.iter().map(|range| range.name));
    for name in names {
        let row = cells.iter().find(|cells| cells.len() == 6 && cells[3].contains(&format!("`{name}`")));
        assert!(row.is_some_and(|cells| !cells[4].is_empty()), "{name} is in no row of docs/operations.md");
    }
}

/// Runs a shell command of a document with another port; returns its output, or `None` where there is no nc.
fn run_nc(command: &str, addr: SocketAddr, input: Option<&[u8]>) -> Option<String> {
    let command = command.replace("127.0.0.1 5454", &format!("127.0.0.1 {}", addr.port()));
    let mut child = Command::new("timeout")
        .args(["20", "sh", "-c", &command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    if let Some(input) = input {
        stdin.write_all(input).unwrap();
        while !text.ends_with(":BYE \n") && stdout.read_line(&mut text).unwrap() > 0 {}
    }
    drop(stdin);
    stdout.read_to_string(&mut text).unwrap();
    match child.wait().unwrap().code() {
        Some(127) => {
            eprintln!("skipped: no nc on PATH (Debian: apt-get install netcat-openbsd)");
            None
        }
        code => {
            assert_ne!(code, Some(124), "{command} does not end: {text}");
            Some(text)
        }
    }
}

#[test]
fn commands_of_documents_with_nc_run_as_printed_and_end() {
    let server = Launch::new("documents").start();
    let mut sent = 0;
    for (path, text) in documents() {
        let lines = text.lines().map(str::trim);
        let is_ours = |line: &&str| line.starts_with("printf '") && line.ends_with(" | nc -N 127.0.0.1 5454");
        for command in lines.filter(is_ours) {
            let Some(replies) = run_nc(command, server.addr(), None) else { return };
            let requests = command.matches("\\n").count();
            assert_eq!(replies.lines().count(), requests, "{}: {command}: {replies}", path.display());
            assert!(!replies.contains("ERR "), "{}: {command}: {replies}", path.display());
            sent += 1;
        }
    }
    assert!(sent >= 3, "{sent}");
    // `QUIT` closes the connection; nc itself ends with Ctrl-D, that is the end of its input.
    assert_eq!(run_nc("nc 127.0.0.1 5454", server.addr(), Some(b"QUIT\n")).as_deref(), Some(":BYE \n"));
    // nc -N ends with Ctrl-D alone.
    assert_eq!(run_nc("nc -N 127.0.0.1 5454", server.addr(), None).as_deref(), Some(""));
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
    // One file for all; 127.0.0.1 to 127.0.0.3 stand for 10.0.0.1 to 10.0.0.3.
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
        assert_eq!(client.call("AUTH open sesame"), ":WELCOME ");
        wait_for_peers(client, 2);
    }
    assert_eq!(clients[0].call("SET greeting:hello"), ":SAT greeting:hello");
    wait_for_value(&mut clients[2], "greeting", "hello");
    drop(clients);
    // Each node ignores its own address in that file.
    nodes.iter().for_each(|node| assert!(!node.log().contains("dialled itself"), "{}", node.log()));
    fs::remove_dir_all(dir).unwrap();
}
