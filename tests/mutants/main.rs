//! Planted defects: each is an edit of the sources in `mutants.toml`. `make test` checks that each still
//! applies; `make mutants` applies them one at a time and checks that the simulation fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Fewer would prove little.
const MUTANTS_MIN: usize = 40;

/// The test target that must find a mutant that names no other.
const TARGET: &str = "mesh";

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutants {
    mutant: Vec<Mutant>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    name: String,
    what: String,
    /// The test target that must find it.
    #[serde(default = "default_target")]
    target: String,
    change: Vec<Change>,
}

fn default_target() -> String {
    TARGET.to_owned()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    file: String,
    old: String,
    new: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn mutants() -> Vec<Mutant> {
    let text = fs::read_to_string(root().join("tests/mutants/mutants.toml")).unwrap();
    toml::from_str::<Mutants>(&text)
        .unwrap_or_else(|error| panic!("tests/mutants/mutants.toml: {error}"))
        .mutant
}

/// `text` without the white space at the ends of its lines, and the byte of `text` at which each byte of it
/// stands.
fn unindented(text: &str) -> (String, Vec<usize>) {
    let (mut plain, mut origins) = (String::new(), Vec::new());
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        let indent = line.len() - line.trim_start().len();
        plain.push_str(trimmed);
        origins.extend((0..trimmed.len()).map(|at| line_start + indent + at));
        plain.push('\n');
        origins.push(line_start + line.trim_end().len());
        line_start += line.len();
    }
    (plain, origins)
}

impl Change {
    /// `source` with this change; how often `old` occurs if that is not once.
    fn apply(&self, source: &str) -> Result<String, usize> {
        let (plain, origins) = unindented(source);
        let old = unindented(&self.old).0;
        let old = old.trim();
        let found: Vec<usize> = plain.match_indices(old).map(|(at, _)| at).collect();
        match found[..] {
            [at] if !old.is_empty() => {
                let (start, last) = (origins[at], origins[at + old.len() - 1]);
                Ok(format!("{}{}{}", &source[..start], self.new.trim(), &source[last + 1..]))
            }
            _ => Err(found.len()),
        }
    }
}

/// The files below `root` that a mutant changes, changed.
fn changed_files<'m>(root: &Path, mutant: &'m Mutant) -> Result<BTreeMap<&'m str, String>, String> {
    let mut files = BTreeMap::new();
    for change in &mutant.change {
        let Change { file, old, .. } = change;
        let source = match files.remove(file.as_str()) {
            Some(source) => source,
            None => fs::read_to_string(root.join(file))
                .map_err(|error| format!("{}: {file}: {error}", mutant.name))?,
        };
        let changed = change.apply(&source).map_err(|count| {
            format!("{}: this occurs {count} times in {file}, must be once:\n{old}\n", mutant.name)
        })?;
        files.insert(file.as_str(), changed);
    }
    Ok(files)
}

#[test]
fn every_mutant_still_applies() {
    let mutants = mutants();
    assert!(mutants.len() >= MUTANTS_MIN, "only {} mutants", mutants.len());
    let mut wrong = String::new();
    for (at, mutant) in mutants.iter().enumerate() {
        let Mutant { name, what, change, .. } = mutant;
        assert!(mutants[..at].iter().all(|other| other.name != *name), "two mutants have the name {name}");
        assert!(!what.is_empty() && !change.is_empty(), "{name} lacks its sentence or its change");
        assert!(change.iter().all(|change| change.file.starts_with("src/")), "{name} changes more than src/");
        if let Err(error) = changed_files(root(), mutant) {
            _ = writeln!(wrong, "{error}");
        }
    }
    assert!(wrong.is_empty(), "repair these in tests/mutants/mutants.toml:\n{wrong}");
}

#[test]
fn indentation_does_not_count() {
    let change = Change { file: String::new(), old: "a {\n  b;\n".into(), new: "c {\n".into() };
    assert_eq!(change.apply("x\n\t\ta {\n\t\t\tb;\n\t\t}\n"), Ok("x\n\t\tc {\n\t\t}\n".to_owned()));
    assert_eq!(change.apply("a {\nb;\na {\nb;\n"), Err(2));
}

/// A copy of the tree that is built by itself, under target/mutants.
struct TreeCopy {
    tree: PathBuf,
    build: PathBuf,
}

impl TreeCopy {
    fn new() -> Self {
        let folder = root().join("target/mutants");
        let copy = Self { tree: folder.join("tree"), build: folder.join("build") };
        _ = fs::remove_dir_all(&copy.tree);
        fs::create_dir_all(&copy.tree).unwrap();
        for path in ["Cargo.toml", "Cargo.lock", "olivia.toml", "src", "tests", "benches", "docs"] {
            copy_all(&root().join(path), &copy.tree.join(path));
        }
        // The program is not needed, and takes a while to link.
        fs::write(copy.tree.join("src/main.rs"), "fn main() {}").unwrap();
        copy
    }

    /// Returns the first failure of a target, if there is one, without waiting for its other tests.
    fn failure(&self, target: &str) -> Option<String> {
        let mut run = self.cargo(target, &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(run.stdout.take().unwrap()).lines().map_while(Result::ok);
        let failed = lines.into_iter().find_map(|line| Some(line.strip_suffix(" --- FAILED")?.to_owned()));
        if let Some(test) = failed {
            // It ends cargo and the test too, which a kill of itself would leave behind.
            _ = Command::new("kill").arg(run.id().to_string()).status();
            _ = run.wait();
            return Some(format!("found by {test}"));
        }
        match run.wait().unwrap().code() {
            Some(0) => None,
            Some(124) => Some("found, since it hangs".to_owned()),
            _ => Some("found by a crash".to_owned()),
        }
    }

    /// Most of the time goes into building, not into running.
    fn cargo(&self, target: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["900", env!("CARGO"), "test", "--release", "--quiet", "--test", target])
            .args(arguments);
        command.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.build);
        command.envs([("CARGO_PROFILE_RELEASE_LTO", "false"), ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")]);
        command.envs([
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
            ("CARGO_INCREMENTAL", "1"),
            // As tests have it, so that the library is built once.
            ("CARGO_PROFILE_RELEASE_PANIC", "unwind"),
            ("RUST_BACKTRACE", "0"),
        ]);
        for name in ["OLIVIA_SIM_SEED", "OLIVIA_SIM_NODES", "OLIVIA_SIM_ALL", "OLIVIA_SIM_TRACE"] {
            command.env_remove(name);
        }
        command
    }
}

fn copy_all(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy_all(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

/// Takes minutes, so only on demand. `OLIVIA_SIM_SEEDS`: seeds for each; `OLIVIA_MUTANTS`: the names of those to
/// run, between spaces.
#[test]
#[ignore = "takes minutes: make mutants"]
fn simulation_finds_every_mutant() {
    let wanted = std::env::var("OLIVIA_MUTANTS").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    let copy = TreeCopy::new();
    let mut missed = 0;
    let mutants = mutants();
    let is_wanted = |mutant: &&Mutant| wanted.is_empty() || wanted.contains(&mutant.name.as_str());
    let targets: BTreeSet<&str> =
        mutants.iter().filter(is_wanted).map(|mutant| mutant.target.as_str()).collect();
    for target in targets {
        let found = copy.failure(target);
        assert_eq!(found, None, "{target} without a mutant");
    }
    for mutant in mutants.iter().filter(is_wanted) {
        let (name, target) = (&mutant.name, mutant.target.as_str());
        let files = changed_files(&copy.tree, mutant).unwrap_or_else(|error| panic!("{error}"));
        let originals = files.keys().map(|file| fs::read(copy.tree.join(file)).unwrap());
        let originals: Vec<Vec<u8>> = originals.collect();
        for (file, text) in &files {
            fs::write(copy.tree.join(file), text).unwrap();
        }
        let built = copy.cargo(target, &["--no-run"]).output().unwrap();
        let found = if built.status.success() {
            copy.failure(target)
        } else {
            print!("{}", String::from_utf8_lossy(&built.stderr));
            None
        };
        missed += u32::from(found.is_none());
        println!("{name}: {}", found.as_deref().unwrap_or("NOT FOUND"));
        for (file, original) in files.keys().zip(originals) {
            fs::write(copy.tree.join(file), original).unwrap();
        }
    }
    assert_eq!(missed, 0, "mutants that were not found, or do not build");
}
