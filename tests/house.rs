//! Keeps the house in order by reading the sources: who may import whom, what may not be called below
//! the boundary. It understands text, not Rust: formatted code is
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
    assert_eq!(files, ["base/prefetch.rs"]);
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
