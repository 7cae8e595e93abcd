//! The benchmarks in their quick form, so that they cannot rot. Their figures mean nothing here.
//!
//! The programs are included as modules: so they are built once more, but with the flags of the tests,
//! by no cargo inside of cargo, and their own small tests run here too, which a benchmark without the
//! test harness never does.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![allow(clippy::duplicate_mod, reason = "both benchmarks start servers, and each is a program of its own")]

#[path = "../benches/footprint/main.rs"]
#[allow(dead_code, reason = "its main is for cargo bench")]
mod footprint;
#[path = "../benches/load/main.rs"]
#[allow(dead_code, reason = "its main is for cargo bench")]
mod load;

use std::ffi::OsString;

fn args(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

#[test]
fn load_runs_its_table_and_every_reply_is_right() {
    load::run(args(&["--bench", "--quick"])).unwrap();
}

#[test]
fn load_refuses_what_it_does_not_know() {
    assert!(load::run(args(&["--pipelines", "3"])).unwrap_err().contains("--pipelines"));
    assert!(load::run(args(&["--keys", "1000", "--key-bytes", "2"])).unwrap_err().contains("key-bytes"));
}

#[test]
fn footprint_runs() {
    footprint::run(args(&["--bench", "--quick"])).unwrap();
}
