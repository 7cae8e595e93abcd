//! Keeps the house in order by reading the sources: who may import whom, what may not be called below
//! the boundary, how long files and functions may be. It understands text, not Rust: formatted code is
//! what it relies on.

use std::fs;
use std::path::{Path, PathBuf};

/// Each floor with the floors that it may import from. Whatever stands in no row may not exist.
const FLOORS: [(&str, &[&str]); 10] = [
    ("main.rs", &["config", "shell"]),
    ("lib.rs", &[]),
    ("shell", &["node", "wire", "base", "config", "limits"]),
    ("node", &["store", "filter", "wire", "base", "config", "limits"]),
    ("filter", &["base", "limits"]),
    ("store", &["base", "limits"]),
    ("wire", &["base", "limits"]),
    ("base", &[]),
    ("config", &["base", "limits"]),
    ("limits.rs", &[]),
];

/// The files of `node/` from top to bottom: each may import from those below it. Files of one row may
/// not import from each other.
const NODE: [&[&str]; 18] = [
    &["mod"],
    &["timers", "intake", "audit"],
    &["commands", "frames", "ahead"],
    &["admission"],
    &["peering", "report"],
    &["serving", "remote", "texts", "settle", "dialling"],
    &["asks", "probing"],
    &["digests"],
    &["links"],
    &["patience"],
    &["state"],
    &["mesh"],
    &["lookups", "peers", "contacts"],
    &["publish"],
    &["stats"],
    &["conns"],
    &["replies", "credit"],
    &["keys"],
];

/// What only `shell/` and `main.rs` may touch: time, threads, files, sockets, the environment, chance.
const BANNED_BELOW: [&str; 14] = [
    "Instant::now",
    "SystemTime",
    "std::thread",
    "thread::",
    "sleep(",
    "std::env",
    "std::fs",
    "std::process",
    "TcpStream",
    "TcpListener",
    "mio::",
    "getrandom",
    "RandomState",
    "signal_hook",
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// What is over a length, with its reason: a file or `file: function`. One that is no longer over fails.
const LONG: [(&str, &str); 0] = [];

struct Source {
    /// From `src/`, with slashes.
    path: String,
    /// Without the tests at its end.
    lines: Vec<String>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(files.len() > 20, "sources not found in {}", root.display());
    let read = |file: &PathBuf| {
        let path = file.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(file).unwrap();
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").map(str::to_owned).collect();
        Source { path, lines }
    };
    // A file of nothing but tests is not part of the house.
    files.iter().map(read).filter(|source| !source.path.ends_with("/tests.rs")).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

impl Source {
    /// The folder below `src/`, or the file if it stands there itself.
    fn floor(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        if first == "config.rs" { "config" } else { first }
    }

    /// Lines of code, without comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.lines.iter().enumerate().map(|(at, line)| (at + 1, line.trim()));
        lines.filter(|(_, line)| !line.starts_with("//"))
    }
}

/// The words behind each `prefix` in a line: the modules that it names.
fn named_behind<'l>(line: &'l str, prefix: &'l str) -> impl Iterator<Item = &'l str> {
    line.split(prefix)
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
}

/// The files of the node that a line of one of them names, in an import or in the middle of code.
fn named_in_node(line: &str) -> impl Iterator<Item = &str> {
    named_behind(line, "super::").chain(named_behind(line, "crate::node::"))
}

#[test]
fn path_in_the_middle_of_code_is_an_import_like_others() {
    let line = "super::patience::arm(state, crate::node::keys::first(conn));";
    assert!(named_in_node(line).eq(["patience", "keys"]));
    assert!(named_in_node("use super::state::{Action, State};").eq(["state"]));
    assert_eq!(named_in_node("pub(super) fn f(x: u8) {").count(), 0);
}

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    for source in sources() {
        let floor = source.floor();
        let row = FLOORS.iter().find(|(name, _)| *name == floor);
        let (_, allowed) =
            row.unwrap_or_else(|| panic!("src/{} stands on no floor of the table", source.path));
        let prefix = if floor == "main.rs" { "olivia::" } else { "crate::" };
        for (number, line) in source.code() {
            for named in named_behind(line, prefix).filter(|named| !named.is_empty()) {
                if named != floor && !allowed.contains(&named) {
                    wrong.push(format!("src/{}:{number} imports from {named}: {line}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_of_the_node_import_only_from_those_below() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(file) = source.path.strip_prefix("node/").and_then(|file| file.strip_suffix(".rs")) else {
            continue;
        };
        let row = NODE.iter().position(|row| row.contains(&file));
        let row = row.unwrap_or_else(|| panic!("src/{} stands in no row of the table", source.path));
        for (number, line) in source.code() {
            for named in named_in_node(line) {
                if !NODE[row + 1..].iter().any(|below| below.contains(&named)) {
                    wrong.push(format!("src/{}:{number} imports from {named}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn below_the_boundary_there_is_no_clock_no_socket_and_no_chance() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !["shell", "main.rs"].contains(&source.floor())) {
        for (number, line) in source.code() {
            for banned in BANNED_BELOW.iter().filter(|banned| line.contains(**banned)) {
                wrong.push(format!("src/{}:{number} uses {banned}: {line}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_in_one_file() {
    // The lint is denied; this is where it may be let go.
    let has_it = |source: &Source| source.code().any(|(_, line)| line.contains("unsafe"));
    let files: Vec<String> = sources().into_iter().filter(has_it).map(|source| source.path).collect();
    assert_eq!(files, ["base/cpu.rs"]);
}

#[test]
fn what_is_on_this_machine_is_said_in_one_place() {
    let others = sources().into_iter().filter(|source| source.path != "base/address.rs");
    for source in others {
        for (number, line) in source.code() {
            assert!(
                !line.contains(".is_loopback()"),
                "src/{}:{number} does not know ::ffff:127.0.0.1",
                source.path
            );
        }
    }
}

#[test]
fn every_file_begins_with_what_it_is() {
    for source in sources() {
        assert!(source.lines[0].starts_with("//! "), "src/{} has no first line", source.path);
    }
}

#[test]
fn files_and_functions_stay_short() {
    let mut long = Vec::new();
    for source in sources() {
        if source.lines.len() > FILE_LINES_MAX {
            long.push((source.path.clone(), source.lines.len()));
        }
        for (name, length) in functions(&source.lines) {
            if length > FUNCTION_LINES_MAX {
                long.push((format!("{}: {name}", source.path), length));
            }
        }
    }
    let unexcused: Vec<_> =
        long.iter().filter(|(what, _)| LONG.iter().all(|(name, _)| name != what)).collect();
    assert!(unexcused.is_empty(), "too long: {unexcused:?}");
    for (name, reason) in LONG {
        assert!(long.iter().any(|(what, _)| what == name), "{name} is no longer long ({reason}): strike it");
    }
}

/// Each function with its length: from the line of `fn` to the closing brace of the same indentation.
fn functions(lines: &[String]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words = line.trim_start();
        let Some((before, after)) = words.split_once("fn ") else { continue };
        let is_item =
            before.is_empty() || before.ends_with(' ') && !before.contains(['"', '/', '(', '=', '|']);
        if !(is_item || before.starts_with("pub(")) || words.starts_with("//") || words.ends_with(';') {
            continue;
        }
        let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let end = lines[at..].iter().position(|line| {
            line.trim_end() == format!("{}}}", " ".repeat(indent))
                || line.trim_end().ends_with(" }") && line == &lines[at]
        });
        found.push((name, end.map_or(1, |end| end + 1)));
    }
    found
}

#[test]
fn the_reader_of_functions_sees_them() {
    let text =
        "pub(super) fn a() {\n    let x = 1;\n}\nimpl B {\n    const fn c(&self) {\n\n\n    }\n}\nfn d() {}";
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let expected = [("a", 3), ("c", 4)].map(|(name, length)| (name.to_owned(), length));
    assert_eq!(functions(&lines)[..2], expected);
}
