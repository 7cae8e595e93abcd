//! Cost and speed of the mesh: the figures of `docs/mesh.md`, one table per figure.
//!
//! `cargo bench --bench mesh -- [tables] [options]`; without a table, all of them. With real processes on loopback:
//!
//! - `found`: time from SET on one node until GET finds it on another
//! - `hit`: latency of a remote hit and of an absent key, as ratios of a local hit
//! - `digest`: digest bytes per new key and peer, at several rates
//! - `set`: CPU time of a SET in a mesh of 1, 3 and 16, by the place of its key
//! - `gone`: time from SET on one node until the old value is gone on another
//! - `incr`: latency and CPU time of INCR and GET by the place of the key
//! - `counter`: 100 clients that increment one key through 3 nodes
//! - `relink`: linking again with a million keys on both nodes
//! - `idle`: traffic of nodes without requests
//! - `dead`: time until a dead peer is no longer queried
//!
//! With whole meshes inside this process, in virtual time, where a hundred nodes cost only their work and every byte is
//! counted (`world.rs`):
//!
//! - `queries`: queries per 1,000 absent keys, and per remote hit, over the fills of the filters
//! - `scale`: memory, traffic and queries from 3 to 100 nodes
//! - `trace`: messages, bytes and hit ratio on a trace, compared with ICP: `--trace FILE` (CSV with a header, columns
//!   second, object, bytes and optionally client, .gz or plain; without it one is generated: `trace.rs`), `--life N`
//!   (TTL of objects in seconds of the nodes' time; default none), `--requests N` (at most)
//!
//! `--write` also writes a table to docs/measured/mesh_TABLE.csv; `--quick` is a tiny form whose figures mean nothing.
//! Not here: requests of clients to one node, which `olivia bench` measures.

mod counters;
mod digest;
mod found;
mod hit;
mod icp;
mod idle;
#[path = "../../tests/kit/mod.rs"]
mod kit;
#[path = "../support/options.rs"]
mod options;
mod processes;
mod queries;
mod relink;
mod report;
mod scale;
#[path = "../support/server.rs"]
mod server;
mod trace;
mod traffic;
mod world;
mod writes;

use options::{Options, Takes};
use std::process::ExitCode;

/// Each table and the function that measures it.
type Table = (&'static str, fn(&Options) -> Result<(), String>);

const TABLES: [Table; 13] = [
    ("found", found::run),
    ("hit", hit::run),
    ("digest", digest::run),
    ("set", writes::run),
    ("gone", writes::gone),
    ("incr", counters::incr),
    ("counter", counters::counter),
    ("relink", relink::run),
    ("idle", idle::run),
    ("dead", idle::dead),
    ("queries", queries::run),
    ("scale", scale::run),
    ("trace", icp::run),
];

const TAKES: Takes = Takes {
    flags: &["--write"],
    values: &["--trace", "--life", "--requests"],
    words: &[
        "found", "hit", "digest", "set", "gone", "incr", "counter", "relink", "idle", "dead", "queries",
        "scale", "trace",
    ],
};

fn main() -> ExitCode {
    options::run(TAKES, |options| {
        TABLES.iter().filter(|(name, _)| options.wants(name)).try_for_each(|(_, table)| table(options))
    })
}
