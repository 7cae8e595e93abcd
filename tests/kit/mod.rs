//! The kit for tests and benches that run whole nodes without sockets: the shell's part of the contract in
//! `olivia::node`, a mesh of such nodes, and a peer whose every byte the test controls. The network with delays and
//! faults is in `tests/mesh`.

#![allow(dead_code, reason = "each target that includes this file uses a part of it")]
#![allow(unused_imports, reason = "each target that includes this file uses a part of it")]

pub mod contract;
pub mod driver;
pub mod mesh;
pub mod peer;
#[path = "../common/resp.rs"]
#[allow(clippy::duplicate_mod, reason = "some targets include tests/common, too")]
pub mod resp;

pub use driver::{ClientId, Driver, ELSEWHERE, LOOPBACK};
pub use resp::{request, resp};

use std::time::Duration;

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
