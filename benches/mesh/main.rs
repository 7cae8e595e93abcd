//! What the mesh costs and how quick it is: every figure of `docs/mesh.md`, one table a figure.
//!
//! `cargo bench --bench mesh -- --help` lists the tables. Those that are about time run real processes on
//! loopback; those that are about counts run whole meshes inside this process, by virtual time, where a
//! hundred nodes cost no more than their work and every byte is seen (`world.rs`). Not here: what one
//! node does for its own clients, which `olivia bench` measures.

mod counters;
mod digest;
mod found;
mod hit;
mod icp;
mod idle;
#[path = "../../tests/kit/mod.rs"]
mod kit;
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

use options::{HELP, Options, Table};
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("mesh: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    let options = Options::parse(args)?;
    if options.help {
        print!("{HELP}");
        return Ok(());
    }
    for table in &options.tables {
        match table {
            Table::Found => found::run(&options),
            Table::Hit => hit::run(&options),
            Table::Changelog => digest::run(&options),
            Table::Queries => queries::run(&options),
            Table::Set => writes::run(&options),
            Table::Gone => writes::gone(&options),
            Table::Incr => counters::incr(&options),
            Table::Counter => counters::counter(&options),
            Table::Relink => relink::run(&options),
            Table::Idle => idle::run(&options),
            Table::Dead => idle::dead(&options),
            Table::Scale => scale::run(&options),
            Table::Trace => icp::run(&options),
        }?;
    }
    Ok(())
}
