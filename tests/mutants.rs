//! Whether each planted defect of `tests/mutants` can still be put back: its patch says what it is, and the
//! lines that it takes out are there, once. `make mutants` shows that the simulation finds it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Fewer would say little.
const MUTANTS_MIN: usize = 20;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn patches() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("tests/mutants")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "patch")).collect()
}

/// The text that each part of a patch looks for, with its file: context and what is taken out.
fn wanted(patch: &str) -> Vec<(String, String)> {
    let mut wanted: Vec<(String, String)> = Vec::new();
    let mut file = String::new();
    let mut is_inside = false;
    for line in patch.lines() {
        if let Some(path) = line.strip_prefix("--- a/") {
            (file, is_inside) = (path.to_owned(), false);
        } else if line.starts_with("@@ ") {
            wanted.push((file.clone(), String::new()));
            is_inside = true;
        } else if let Some((_, text)) = wanted.last_mut().filter(|_| is_inside)
            && (line.starts_with([' ', '-']) || line.is_empty())
        {
            text.push_str(line.get(1..).unwrap_or(""));
            text.push('\n');
        }
    }
    wanted
}

#[test]
fn every_patch_says_what_it_is_and_still_applies() {
    let patches = patches();
    assert!(patches.len() >= MUTANTS_MIN, "only {} mutants", patches.len());
    let mut sources: BTreeMap<String, String> = BTreeMap::new();
    for path in patches {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let patch = fs::read_to_string(&path).unwrap();
        assert!(patch.starts_with("# "), "{name} does not say what it is in its first line");
        let wanted = wanted(&patch);
        assert!(!wanted.is_empty(), "{name} changes nothing");
        for (file, text) in wanted {
            assert!(file.starts_with("src/"), "{name} changes {file}");
            let source = sources.entry(file.clone()).or_insert_with(|| {
                fs::read_to_string(root().join(&file))
                    .unwrap_or_else(|error| panic!("{name}: {file}: {error}"))
            });
            let found = source.matches(&text).count();
            assert_eq!(
                found, 1,
                "{name}: what it looks for in {file} is there {found} times; renew it:\n{text}"
            );
        }
    }
}
