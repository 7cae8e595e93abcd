//! The kit for tests and benches that run whole nodes without sockets: the shell's part of the contract in
//! `olivia::node`, a mesh of such nodes, and a peer whose every byte the test controls. The network with delays and
//! faults is in `tests/mesh`.

#![allow(dead_code, reason = "each target that includes this file uses a part of it")]
#![allow(unused_imports, reason = "each target that includes this file uses a part of it")]

pub mod contract;
pub mod driver;
pub mod mesh;
pub mod peer;

pub use driver::{ClientId, Driver, ELSEWHERE, LOOPBACK};

use std::time::Duration;

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Encodes a request in RESP.
pub fn resp(words: &[&str]) -> String {
    let bulks: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{bulks}", words.len())
}
