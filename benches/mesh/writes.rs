//! The cost of a SET in a mesh, by the place of its key, and the time until the old value is gone on another node.
//!
//! Cost is the CPU time of the node that is written to, as the scheduler counts it, since other load changes it less
//! than wall time. The meshes take turns within a round.

use super::options::Options;
use super::processes::Mesh;
use super::report::{Report, digits, median, micros, nanos};
use super::server::{cpu_ns, waited_ns};
use olivia::base::rng::Rng;
use olivia::client::bench::Times;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Requests that are on their way at once.
const PIPELINE: usize = 64;

/// Time in which all keys that were set are published.
const SPREAD: Duration = Duration::from_millis(300);

/// An old value that is returned for this time counts as an error.
const LOST: Duration = Duration::from_secs(10);

/// A time longer than a node gathers additions.
const PAUSE: Duration = Duration::from_millis(6);

/// The places of the keys that are set.
const PLACES: [&str; 3] = ["new", "here", "elsewhere"];

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let sizes: &[usize] = if options.quick { &[1, 3] } else { &[1, 3, 16] };
    let (rounds, keys) = if options.quick { (1, 500) } else { (7, 50_000) };
    let mut meshes = sizes.iter().map(|nodes| Mesh::start(*nodes)).collect::<Result<Vec<_>, _>>()?;
    let mut costs = vec![[const { Vec::new() }; PLACES.len()]; sizes.len()];
    let mut notices = vec![0.0; sizes.len()];
    for round in 0..rounds {
        for (at, mesh) in meshes.iter_mut().enumerate() {
            for costs in costs[at].iter_mut().take(2) {
                costs.push(set_all(mesh, 0, "near", round, keys)?);
                std::thread::sleep(SPREAD);
            }
            // Keys of other nodes, so that the first node keeps all of its own, as the lone node does.
            if mesh.servers.len() > 2 {
                set_all(mesh, 2, "far", round, keys)?;
                std::thread::sleep(SPREAD);
                let sent = notices_sent(mesh)?;
                costs[at][2].push(set_all(mesh, 1, "far", round, keys)?);
                std::thread::sleep(SPREAD);
                notices[at] = (notices_sent(mesh)? - sent) as f64 / keys as f64;
            }
        }
    }
    let head = ["title: CPU time of a SET by where its key is", "kind: table"];
    let columns =
        ["nodes", "new us", "here us", "elsewhere us", "alone/new", "alone/here", "notices elsewhere"];
    let mut report = Report::new("set", &head, &columns);
    let alone: Vec<f64> = costs[0].iter().take(2).map(|costs| median(costs)).collect();
    for ((nodes, costs), notices) in sizes.iter().zip(&costs).zip(notices) {
        let [new, here, elsewhere] = costs.each_ref().map(|costs| median(costs));
        let (of_new, of_here) = (alone[0] / new, alone[1] / here);
        println!(
            "set       {nodes:3} nodes: new {new:.3} us, here {here:.3} us, elsewhere {elsewhere:.3} us of CPU per SET; \
             a lone node's {of_new:.2} and {of_here:.2} of that; {notices:.2} notices per key elsewhere"
        );
        let cells = [new, here, elsewhere].map(|cost| digits(cost, 3));
        report.row(&[
            nodes,
            &cells[0],
            &cells[1],
            &cells[2],
            &digits(of_new, 2),
            &digits(of_here, 2),
            &digits(notices, 2),
        ]);
    }
    report.finish(options.has("--write"))
}

fn notices_sent(mesh: &mut Mesh) -> Result<u64, String> {
    mesh.conns.iter_mut().map(|conn| conn.stat("invalidations_sent")).sum()
}

/// Sets the keys of a round on a node. Returns its CPU time per key, in us.
fn set_all(mesh: &mut Mesh, node: usize, prefix: &str, round: usize, keys: usize) -> Result<f64, String> {
    let value = "v".repeat(64);
    let pid = mesh.servers[node].pid();
    let before = cpu_ns(pid)?;
    for first in (0..keys).step_by(PIPELINE) {
        let count = PIPELINE.min(keys - first);
        let mut requests = String::new();
        for n in first..first + count {
            _ = writeln!(requests, "SET {prefix}-{round}-{n:07}:{value}");
        }
        mesh.conns[node].call_all(&requests, count)?;
    }
    Ok((cpu_ns(pid)? - before) as f64 / keys as f64 / 1e3)
}

/// Measures the time from before a key is set on one node until the node that held it returns the new value, also
/// without the time for which one of the two processes waited for a core that other processes used, such as the 14
/// other nodes.
pub(crate) fn gone(options: &Options) -> Result<(), String> {
    let sizes: &[usize] = if options.quick { &[3] } else { &[3, 16] };
    let rounds = if options.quick { 10 } else { 2_000 };
    let head = ["title: From SET on one node until the old value is gone on another", "kind: table"];
    let columns = ["nodes", "p50 ms", "p99 ms", "p99.9 ms", "p50 without waits ms", "p99 without waits ms"];
    let mut report = Report::new("gone", &head, &columns);
    for &nodes in sizes {
        let mut mesh = Mesh::start(nodes)?;
        let mut rng = Rng::new(1);
        let (mut times, mut own) = (Times::default(), Times::default());
        let mut holder = 0;
        mesh.conns[holder].call("SET moved:0\n")?;
        for round in 1..=rounds {
            let writer = (holder + 1 + usize::try_from(rng.below(nodes as u64 - 1)).unwrap_or(0)) % nodes;
            std::thread::sleep(PAUSE + Duration::from_micros(rng.below(4_000)));
            let pids = [holder, writer].map(|node| mesh.servers[node].pid());
            let waited = || Ok::<u64, String>(waited_ns(pids[0])? + waited_ns(pids[1])?);
            let expected = format!(":GOT moved:{round}");
            let before = waited()?;
            let begin = Instant::now();
            mesh.conns[writer].call(&format!("SET moved:{round}\n"))?;
            while mesh.conns[holder].call("GET moved\n")? != expected {
                if begin.elapsed() > LOST {
                    return Err(format!("the old value is still there after {LOST:?}"));
                }
            }
            let took = begin.elapsed();
            times.add(nanos(took), 1);
            own.add(nanos(took.saturating_sub(Duration::from_nanos(waited()? - before))), 1);
            holder = writer;
        }
        let ms = |times: &Times, permille| micros(times, permille) / 1e3;
        let cells = [ms(&times, 500), ms(&times, 990), ms(&times, 999), ms(&own, 500), ms(&own, 990)];
        println!(
            "gone      {nodes:3} nodes: p50 {:.3} p99 {:.3} p99.9 {:.3} ms; without waits for a core p50 {:.3} p99 {:.3} ms ({rounds} keys)",
            cells[0], cells[1], cells[2], cells[3], cells[4]
        );
        let cells = cells.map(|cell| digits(cell, 3));
        report.row(&[&nodes, &cells[0], &cells[1], &cells[2], &cells[3], &cells[4]]);
    }
    report.finish(options.has("--write"))
}
