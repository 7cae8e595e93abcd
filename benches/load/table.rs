//! The standard table: GET and SET at pipeline 1, 16 and 64, against servers started here, several
//! rounds in turns, of which the medians count: what disturbs the machine disturbs both.

use super::drive::Plan;
use super::options::Options;
use super::protocol::Protocol;
use super::server::Server;
use super::{fill, line, measure};

/// Share of GETs in a hundred, and its name.
const MIXES: [(u64, &str); 2] = [(100, "GET"), (0, "SET")];

const PIPELINES: [usize; 3] = [1, 16, 64];

/// One server under measurement.
struct Candidate {
    name: &'static str,
    server: Server,
    plan: Plan,
}

/// What one row of the table came to, for one server: all its rounds.
#[derive(Debug, Default)]
struct Row {
    per_second: Vec<f64>,
    server_ns: Vec<f64>,
}

/// Starts the servers, runs all rounds, prints each run and the medians.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let candidates = start(options)?;
    let mut rows: Vec<Vec<Row>> = Vec::new();
    for round in 1..=options.rounds {
        let mut at = 0;
        for (get_percent, mix) in MIXES {
            for pipeline in PIPELINES {
                if rows.len() == at {
                    rows.push(candidates.iter().map(|_| Row::default()).collect());
                }
                for (candidate, row) in candidates.iter().zip(&mut rows[at]) {
                    let plan = Plan { get_percent, pipeline, ..candidate.plan.clone() };
                    let (outcome, server_ns) = measure(&plan, Some(candidate.server.pid()))?;
                    let line = line(&outcome, server_ns);
                    println!("{round}  {:<6} {mix} P{pipeline:<2} {line}", candidate.name);
                    row.per_second.push(outcome.per_second());
                    row.server_ns.extend(server_ns);
                }
                at += 1;
            }
        }
    }
    print_medians(&candidates, &mut rows);
    Ok(())
}

fn start(options: &Options) -> Result<Vec<Candidate>, String> {
    let candidate = |name, protocol, server: Server| {
        let plan = Plan { protocol, addr: server.addr(), ..options.plan.clone() };
        fill(&plan).map(|()| Candidate { name, server, plan })
    };
    let core = options.server_core;
    let mut candidates = vec![candidate("olivia", Protocol::Lines, Server::olivia(core)?)?];
    if let Some(program) = &options.compare {
        let server = Server::redis(&program.to_string_lossy(), core)?;
        candidates.push(candidate("redis", Protocol::Resp, server)?);
    }
    Ok(candidates)
}

fn print_medians(candidates: &[Candidate], rows: &mut [Vec<Row>]) {
    println!();
    print!("medians ");
    for candidate in candidates {
        print!("  {:>8} requests/s  CPU ns", candidate.name);
    }
    println!("{}", if candidates.len() > 1 { "   ratio of requests/s" } else { "" });
    let names = MIXES.iter().flat_map(|(_, mix)| PIPELINES.map(|pipeline| format!("{mix} P{pipeline}")));
    for (name, row) in names.zip(rows) {
        print!("{name:<8}");
        let medians: Vec<f64> = row.iter_mut().map(|cell| median(&mut cell.per_second)).collect();
        for (cell, per_second) in row.iter_mut().zip(&medians) {
            print!("  {per_second:>19.0}  {:>6.0}", median(&mut cell.server_ns));
        }
        match medians[..] {
            [ours, theirs] => println!("   {:.2}", ours / theirs),
            _ => println!(),
        }
    }
}

/// The middle one, 0 of none.
fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}
