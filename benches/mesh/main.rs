//! What the mesh costs and how quick it is: every figure of `docs/mesh.md`, one table a figure.
//!
//! `cargo bench --bench mesh -- [tables] [options]`; all tables, if none is named. With real processes on loopback:
//!
//! - `found`: time from SET on one node until GET finds it on another
//! - `hit`: latency of a remote hit and of an absent key, as ratios of a local hit
//! - `digest`: bytes of the digest for each new key and peer, at several rates
//! - `set`: CPU time of a SET in a mesh of 1, 3 and 16, by where its key is
//! - `gone`: time from SET on one node until the old value is gone on another
//! - `incr`: latency and CPU time of INCR by where its key is, beside GET
//! - `counter`: 100 clients that increment one key through 3 nodes
//! - `relink`: linking again with a million keys on both nodes
//! - `idle`: traffic of nodes without requests
//! - `dead`: time until a dead peer is no longer queried
//!
//! With whole meshes inside this process, by virtual time, where a hundred nodes cost no more than their work and every
//! byte is seen (`world.rs`):
//!
//! - `queries`: queries for 1,000 absent keys, and for a remote hit, over the fills of the filters
//! - `scale`: memory, traffic and queries from 3 to 100 nodes
//! - `trace`: messages, bytes and hit ratio on a trace, beside ICP: `--trace FILE` (CSV with a header, columns second,
//!   object, bytes and perhaps client, .gz or plain; without it one is drawn: `trace.rs`), `--life N` (objects live for so
//!   many seconds, by the time that nodes see; else for ever), `--requests N` (at most)
//!
//! `--write` writes a table as docs/measured/mesh_TABLE.csv too; `--quick` is a tiny form, whose figures mean nothing.
//! Not here: what one node does for its own clients, which `olivia bench` measures.

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

/// Each table, and what measures it.
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
