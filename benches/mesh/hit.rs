//! Latency of a remote hit: ping-pong on one connection, with a local hit, a remote hit and an absent key in turns, so
//! that other load on the machine affects all three.

use super::options::Options;
use super::processes::Mesh;
use super::report::{Report, digits, micros, nanos};
use olivia::client::bench::Times;
use std::time::Instant;

/// Keys of each kind.
const KEYS: usize = 1_000;

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let sizes: &[usize] = if options.quick { &[3] } else { &[3, 16] };
    let rounds = if options.quick { 50 } else { 30_000 };
    let head = ["title: Latency of a GET by where its key lies, ping-pong on one connection", "kind: table"];
    let columns = [
        "nodes",
        "local p50 us",
        "local p99 us",
        "remote p50 us",
        "remote p99 us",
        "absent p50 us",
        "remote/local p50",
        "remote/local p99",
    ];
    let mut report = Report::new("hit", &head, &columns);
    for &nodes in sizes {
        let mut mesh = Mesh::start(nodes)?;
        fill(&mut mesh)?;
        let [local, remote, absent] = measure(&mut mesh, rounds)?;
        let ratio = |permille| micros(&remote, permille) / micros(&local, permille);
        let queries = mesh.conns[0].stat("queries")?;
        println!(
            "hit       {nodes:3} nodes: local p50 {:.1} p99 {:.1} us; remote p50 {:.1} p99 {:.1} us, {:.2} and {:.2} times; \
             absent p50 {:.1} us; {queries} queries for {} remote hits",
            micros(&local, 500),
            micros(&local, 990),
            micros(&remote, 500),
            micros(&remote, 990),
            ratio(500),
            ratio(990),
            micros(&absent, 500),
            remote.count(),
        );
        let us = |times: &Times, permille| digits(micros(times, permille), 1);
        report.row(&[
            &nodes,
            &us(&local, 500),
            &us(&local, 990),
            &us(&remote, 500),
            &us(&remote, 990),
            &us(&absent, 500),
            &digits(ratio(500), 2),
            &digits(ratio(990), 2),
        ]);
    }
    report.finish(options.has("--write"))
}

fn fill(mesh: &mut Mesh) -> Result<(), String> {
    for n in 0..KEYS {
        mesh.conns[0].call(&format!("SET local-{n}:{}\n", "v".repeat(64)))?;
        mesh.conns[1].call(&format!("SET remote-{n}:{}\n", "v".repeat(64)))?;
    }
    // Each is found once before anything is measured.
    for n in 0..KEYS {
        while mesh.conns[0].call(&format!("GET remote-{n}\n"))? == ":GOT" {}
    }
    Ok(())
}

fn measure(mesh: &mut Mesh, rounds: usize) -> Result<[Times; 3], String> {
    let mut times = [Times::default(), Times::default(), Times::default()];
    let conn = &mut mesh.conns[0];
    for round in 0..rounds {
        let n = round % KEYS;
        let requests = [format!("GET local-{n}\n"), format!("GET remote-{n}\n"), format!("GET absent-{n}\n")];
        for (kind, (request, times)) in requests.iter().zip(&mut times).enumerate() {
            let begin = Instant::now();
            let is_hit = conn.call(request)? != ":GOT";
            times.add(nanos(begin.elapsed()), 1);
            if is_hit != (kind < 2) {
                return Err(format!("the wrong reply to {}", request.trim_end()));
            }
        }
    }
    Ok(times)
}
