//! The load generator: how many requests per second a node answers, and how long each takes.
//!
//! `cargo bench --bench load -- --help` lists its options. It speaks Redis' and memcached's protocols
//! as well, so that what is compared is loaded by the very same code. Not here: what a node without
//! load costs, which `benches/footprint` measures.

mod drive;
mod histogram;
mod keys;
mod options;
mod protocol;
#[path = "../support/server.rs"]
mod server;
mod table;

use drive::{End, Outcome, Pick, Plan};
use options::{HELP, Options};
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("load: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what the arguments name, and prints the results.
///
/// # Errors
/// A sentence, also when a single reply was wrong.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    let options = Options::parse(args)?;
    if options.help {
        print!("{HELP}");
        return Ok(());
    }
    if options.addr.is_none() {
        return table::run(&options);
    }
    if options.fill {
        fill(&options.plan)?;
    }
    let (outcome, server_ns) = measure(&options.plan, options.pid)?;
    println!("{}", line(&outcome, server_ns));
    Ok(())
}

/// Sets every key once.
fn fill(plan: &Plan) -> Result<(), String> {
    let plan = Plan {
        end: End::Requests(plan.keys),
        get_percent: 0,
        pick: Pick::Sequential,
        pipeline: 64,
        ..plan.clone()
    };
    measure(&plan, None).map(|_| ())
}

/// Carries out a plan, and returns the CPU time in ns for each request that process `pid` has used
/// meanwhile. Any wrong reply is an error.
fn measure(plan: &Plan, pid: Option<u32>) -> Result<(Outcome, Option<f64>), String> {
    let before = pid.map(server::cpu_ns).transpose()?;
    let outcome = drive::run(plan)?;
    if let Some(first) = &outcome.first_wrong {
        return Err(format!("{} wrong replies; the first is {first}", outcome.wrong));
    }
    let after = pid.map(server::cpu_ns).transpose()?;
    let used = before.zip(after).map(|(before, after)| after.saturating_sub(before));
    let server_ns = used.map(|ns| ns as f64 / outcome.times.len().max(1) as f64);
    Ok((outcome, server_ns))
}

fn line(outcome: &Outcome, server_ns: Option<f64>) -> String {
    let at = |permille| outcome.times.micros_at(permille);
    let mut line = format!(
        "{:>9.0} requests/s  p50 {:.0} p90 {:.0} p99 {:.0} p99.9 {:.0} max {:.0} us  {} replies",
        outcome.per_second(),
        at(500),
        at(900),
        at(990),
        at(999),
        at(1_000),
        outcome.times.len(),
    );
    if let Some(ns) = server_ns {
        line.push_str(&format!("  server {ns:.0} ns/request"));
    }
    line
}
