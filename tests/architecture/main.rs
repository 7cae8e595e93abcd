//! Reads the sources and checks the architecture: imports between layers, cycles between files, calls that are
//! forbidden below the sans-IO boundary, and the pictures of the architecture. `make pictures` draws these again.

mod layers;
mod paths;
mod picture;
mod queues;
mod source;

use layers::{BOUNDARY, LAYERS, layer_of};
use source::{Source, Sources};
use std::collections::{BTreeMap, BTreeSet};

/// Names that only layers above the boundary may use: time, threads, files, sockets, the environment, randomness.
const BANNED_BELOW: [&str; 13] = [
    "Instant::now",
    "SystemTime",
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

/// The files in which `unsafe` is allowed.
const UNSAFE: [&str; 3] = ["base/memory.rs", "base/prefetch.rs", "batch/ring.rs"];

/// The one write path, and the own filter, which it hands the store.
const WRITE_PATH: [&str; 2] = ["node/keyspace.rs", "node/digest/own_filter.rs"];

/// Files that import each other in a circle although they should not. None may be added.
const CYCLES: [&[&str]; 0] = [];

/// Lines of code from here on are reported.
const LONG_FILE_LINES: usize = 500;

fn sources() -> Sources {
    let sources = Sources::read();
    assert!(sources.files.len() > 50, "only {} files found", sources.files.len());
    sources
}

fn check(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The lines of code of a file, their tokens next to each other.
fn code_lines(source: &Source) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for token in &source.tokens {
        match lines.last_mut().filter(|(line, _)| *line == token.line) {
            Some((_, text)) => text.push_str(&token.text),
            None => lines.push((token.line, token.text.clone())),
        }
    }
    lines
}

#[test]
fn layers_import_only_layers_below() {
    let sources = sources();
    let mut wrong = Vec::new();
    for (at, layer) in LAYERS.iter().enumerate() {
        let is_below = |name: &&str| LAYERS[at + 1..].iter().any(|below| below.name == *name);
        assert!(layer.imports().iter().all(is_below), "{} imports a layer that is not below it", layer.name);
    }
    for import in sources.imports() {
        let (from, to) = (&sources.files[import.from].path, &sources.files[import.to].path);
        let layer =
            |path| layer_of(path).map_or_else(|| panic!("src/{path} is in no layer"), |at| &LAYERS[at]);
        let (upper, lower) = (layer(from), layer(to));
        if upper.name != lower.name && !upper.imports().contains(&lower.name) {
            wrong.push(format!("src/{from}:{}: {} imports {to} ({})", import.line, upper.name, lower.name));
        }
    }
    check(&wrong);
}

#[test]
fn each_path_of_the_layers_exists_and_is_in_one_of_them() {
    let sources = sources();
    let mut seen = BTreeSet::new();
    for path in LAYERS.iter().flat_map(|layer| layer.holds()) {
        let is_in = |file: &Source| file.path == *path || file.path.starts_with(&format!("{path}/"));
        assert!(sources.files.iter().any(is_in), "src/{path} does not exist");
        assert!(seen.insert(path), "src/{path} is in two layers");
    }
}

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    let sources = sources();
    let cycles = sources.cycles();
    for cycle in &cycles {
        assert!(CYCLES.contains(&cycle.as_slice()), "import each other in a circle: {cycle:?}");
    }
    for known in CYCLES {
        assert!(
            cycles.iter().any(|cycle| cycle == known),
            "no cycle any more, take it out of CYCLES: {known:?}"
        );
    }
}

#[test]
fn no_import_takes_everything() {
    let mut wrong = Vec::new();
    for file in &sources().files {
        for at in 0..file.tokens.len() {
            if file.text(at) == "::" && file.text(at + 1) == "*" {
                wrong.push(format!("src/{}:{}: glob import", file.path, file.tokens[at].line));
            }
        }
    }
    check(&wrong);
}

#[test]
fn below_the_boundary_there_is_no_clock_no_socket_and_no_randomness() {
    let boundary = LAYERS.iter().position(|layer| layer.name == BOUNDARY).unwrap();
    let mut wrong = Vec::new();
    for file in sources().files.iter().filter(|file| layer_of(&file.path) >= Some(boundary)) {
        for (line, code) in code_lines(file) {
            for banned in BANNED_BELOW.iter().filter(|banned| code.contains(**banned)) {
                wrong.push(format!("src/{}:{line} uses {banned}", file.path));
            }
        }
    }
    check(&wrong);
}

#[test]
fn unsafe_is_in_three_files() {
    let has_unsafe = |file: &&Source| file.tokens.iter().any(|token| token.text == "unsafe");
    let sources = sources();
    let files: Vec<&str> = sources.files.iter().filter(has_unsafe).map(|file| file.path.as_str()).collect();
    assert_eq!(files, UNSAFE);
}

#[test]
fn only_the_keyspace_changes_the_store() {
    let sources = sources();
    let mut changing = BTreeSet::new();
    for file in sources.files.iter().filter(|file| file.path.starts_with("store/")) {
        changing.extend(public_functions_that_change(file, "Store"));
    }
    assert!(changing.contains("set") && changing.contains("remove"), "{changing:?}");
    let mut wrong = Vec::new();
    for file in sources
        .files
        .iter()
        .filter(|file| !file.path.starts_with("store/") && !WRITE_PATH.contains(&file.path.as_str()))
    {
        for at in 0..file.tokens.len() {
            let is_call = file.text(at) == "store" && file.text(at + 1) == "." && file.text(at + 3) == "(";
            if is_call && changing.contains(file.text(at + 2)) {
                wrong.push(format!(
                    "src/{}:{} calls store.{}",
                    file.path,
                    file.tokens[at].line,
                    file.text(at + 2)
                ));
            }
        }
    }
    check(&wrong);
}

#[test]
fn each_counter_is_counted_in_one_file() {
    let sources = sources();
    let mut files: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in sources.files.iter().filter(|file| file.path != "node/metrics.rs") {
        for at in 0..file.tokens.len() {
            let is_field = file.text(at) == "stats" && file.text(at + 1) == ".";
            let is_changed = match file.text(at + 3) {
                "+" | "-" => file.text(at + 4) == "=",
                "=" => file.text(at + 4) != "=",
                _ => false,
            };
            if is_field && is_changed {
                files.entry(file.text(at + 2)).or_default().insert(&file.path);
            }
        }
    }
    assert!(files.len() > 20, "{files:?}");
    let wrong = files.iter().filter(|(_, files)| files.len() > 1);
    check(&wrong.map(|(name, files)| format!("{name} is counted in {files:?}")).collect::<Vec<_>>());
}

/// The functions with `&mut self` in the `impl` blocks of a type.
fn public_functions_that_change<'s>(file: &'s Source, of: &str) -> Vec<&'s str> {
    let (mut found, mut is_inside, mut depth) = (Vec::new(), false, 0_usize);
    for at in 0..file.tokens.len() {
        match file.text(at) {
            "{" => depth += 1,
            "}" => depth -= 1,
            "impl" if depth == 0 => is_inside = file.text(at + 1) == of && file.text(at + 2) == "{",
            "fn" if is_inside && depth == 1 && file.text(at - 1) == "pub" => {
                let is_mut = (at..at + 40)
                    .take_while(|at| file.text(*at) != ")")
                    .any(|at| file.text(at) == "mut" && file.text(at + 1) == "self");
                found.extend(is_mut.then(|| file.text(at + 1)));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn loopback_is_decided_in_one_place() {
    let mut wrong = Vec::new();
    for file in sources().files.iter().filter(|file| file.path != "base/address.rs") {
        for (line, code) in code_lines(file).iter().filter(|(_, code)| code.contains(".is_loopback()")) {
            wrong.push(format!("src/{}:{line}: does not know ::ffff:127.0.0.1: {code}", file.path));
        }
    }
    check(&wrong);
}

/// Lines of the log below the boundary that do not pass its gate, by their file: what causes them is rare or bounded
/// otherwise (a shutdown, a reload, a sample, a minute, an id that is drawn, a stop of the process).
const UNGATED_LINES: [(&str, usize); 6] = [
    ("node/command/inspect.rs", 1),
    ("node/command/settings.rs", 1),
    ("node/conn/measure.rs", 2),
    ("node/peer/dialer.rs", 1),
    ("node/peer/handshake.rs", 1),
    ("node/peer/link.rs", 2),
];

#[test]
fn lines_of_the_log_that_others_cause_at_will_pass_its_gate() {
    let mut wrong = Vec::new();
    for file in sources().files.iter().filter(|file| file.path.starts_with("node/")) {
        let lines = code_lines(file);
        let is_gated =
            |at: &usize| lines[at.saturating_sub(3)..*at].iter().any(|(_, code)| code.contains("log_gate"));
        let logs =
            |code: &str| ["log::warn!", "log::info!", "log::error!"].iter().any(|call| code.contains(call));
        let ungated: Vec<usize> = (0..lines.len())
            .filter(|at| logs(&lines[*at].1) && !is_gated(at))
            .map(|at| lines[at].0)
            .collect();
        let allowed =
            UNGATED_LINES.iter().find(|(path, _)| *path == file.path).map_or(0, |(_, count)| *count);
        if ungated.len() != allowed {
            wrong.push(format!(
                "src/{}: lines {ungated:?} log without log_gate, and {allowed} may",
                file.path
            ));
        }
    }
    check(&wrong);
}

#[test]
fn every_file_begins_with_what_it_is() {
    let sources = sources();
    let wordless = sources.files.iter().filter(|file| !file.first_line.starts_with("//! "));
    check(&wordless.map(|file| format!("src/{} has no first line", file.path)).collect::<Vec<_>>());
}

/// Reported, not enforced: a file is split by meaning.
#[test]
fn long_files_are_reported() {
    for file in sources().files {
        let code = code_lines(&file).len();
        if code > LONG_FILE_LINES {
            println!("src/{}: {code} lines of code, {} in all", file.path, file.lines);
        }
    }
}

#[test]
fn every_queue_is_in_the_table_of_queues_with_what_empties_it() {
    check(&queues::check(&sources()));
}

#[test]
fn steps_in_the_pictures_call_each_other() {
    check(&paths::check(&sources()));
}

#[test]
fn pictures_are_up_to_date() {
    picture::check(&sources());
}

#[test]
fn every_form_of_import_is_seen() {
    let lib = "use a::{b, c::{self, d as e}};\npub use crate::f::G;\nfn h() { e::i(); super::j::k() }\n";
    let names =
        ["lib.rs", "x/mod.rs", "x/a/mod.rs", "x/a/b.rs", "x/a/c/mod.rs", "x/a/c/d.rs", "f.rs", "j.rs"];
    let files = names.map(|name| (name.to_owned(), if name == "x/mod.rs" { lib } else { "" }.to_owned()));
    let sources = Sources::new(files.into_iter());
    let mut seen: Vec<&str> =
        sources.imports().iter().map(|import| sources.files[import.to].path.as_str()).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["f.rs", "j.rs", "x/a/b.rs", "x/a/c/d.rs", "x/a/c/d.rs", "x/a/c/mod.rs"]);
}

#[test]
fn comments_strings_visibility_and_tests_are_no_imports() {
    let text = "// use crate::b;\npub(in crate::b) fn f() { g(\"crate::b::c\", 'x', '\\'') }\n\
                #[cfg(test)]\nmod tests { use crate::b::c; }\n";
    let files = [("a.rs", text), ("b.rs", "use crate::a::f;")];
    let sources = Sources::new(files.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())));
    assert_eq!(sources.imports().len(), 1);
}

#[test]
fn a_cycle_between_files_is_found() {
    let files =
        [("a.rs", "use crate::b;"), ("b.rs", "use crate::c::{D};"), ("c.rs", "fn f() { crate::a::g() }")];
    let sources = Sources::new(files.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())));
    assert_eq!(sources.cycles(), [["a.rs", "b.rs", "c.rs"]]);
}
