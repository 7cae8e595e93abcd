//! The benchmarks in their quick form, so that they stay runnable. Their figures mean nothing here.
//!
//! The programs are included as modules: they are built once more with the flags of the tests, without a cargo inside
//! cargo, and their own unit tests run here, which a benchmark without the test harness does not run.

#![cfg(target_os = "linux")]
#![allow(clippy::duplicate_mod, reason = "both benchmarks start servers, and each is a program of its own")]

#[path = "../benches/compare/main.rs"]
#[allow(dead_code, reason = "its main is for cargo bench")]
mod compare;
#[path = "../benches/footprint/main.rs"]
#[allow(dead_code, reason = "its main is for cargo bench")]
mod footprint;

use std::ffi::OsString;

fn args(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

#[test]
fn compare_measures_all_groups_and_every_reply_is_right() {
    let this_build = env!("CARGO_BIN_EXE_olivia");
    compare::run(args(&["--bench", "--quick", "--beside", this_build])).unwrap();
}

#[test]
fn compare_refuses_what_it_does_not_know() {
    assert!(compare::run(args(&["--pipelines", "3"])).unwrap_err().contains("--pipelines"));
    assert!(compare::run(args(&["--only", "speed"])).unwrap_err().contains("not 'speed'"));
}

/// `make docs` writes them.
#[test]
fn documentation_is_rendered_from_the_measured_figures() {
    let figures = compare::figures::Figures::read(&compare::figures::path()).unwrap();
    for (path, text) in compare::render::files(&figures).unwrap() {
        if std::env::var_os("OLIVIA_WRITE_DOCS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{} is stale: make docs", path.display());
    }
}

#[test]
fn footprint_runs() {
    footprint::run(true).unwrap();
}
