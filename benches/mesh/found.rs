//! Propagation delay: the time from a SET on one node until a GET on another finds the key.
//!
//! It begins before the SET is sent and ends with the reply to the GET, so it includes both round trips. A node
//! publishes a key at once if it has published nothing for a while, else it gathers keys, for longer if there are many.
//! So there are three cases: a key that is set alone, one that follows another within 4 ms, and one that follows many.

use super::options::Options;
use super::processes::Mesh;
use super::report::{Report, digits, micros, nanos};
use olivia::base::rng::Rng;
use olivia::client::bench::Times;
use std::time::{Duration, Instant};

/// A key that is not found within this time is lost.
const LOST: Duration = Duration::from_secs(10);

/// A time longer than a node gathers keys.
const PAUSE: Duration = Duration::from_millis(6);

/// Number of keys after which a node gathers for the longest time.
const MANY: u32 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Alone,
    Behind,
    BehindMany,
}

const CASES: [(Case, &str); 3] =
    [(Case::Alone, "alone"), (Case::Behind, "after one"), (Case::BehindMany, "after many")];

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let sizes: &[usize] = if options.quick { &[3] } else { &[3, 16] };
    let rounds = if options.quick { 10 } else { 2_000 };
    let mut columns = vec!["percent of keys".to_owned()];
    let mut series = Vec::new();
    for &nodes in sizes {
        let mut mesh = Mesh::start(nodes)?;
        for (case, name) in CASES {
            let times = measure(&mut mesh, case, rounds)?;
            let at = |permille| micros(&times, permille) / 1e3;
            println!(
                "found     {nodes:3} nodes, {name:10}  p50 {:.3} p90 {:.3} p99 {:.3} p99.9 {:.3} max {:.3} ms ({rounds} keys)",
                at(500),
                at(900),
                at(990),
                at(999),
                at(1_000)
            );
            columns.push(format!("{nodes}: {name}"));
            series.push(times);
        }
    }
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let head = [
        "title: From SET on one node until GET finds it on another, with 3 and 16 nodes",
        "kind: lines",
        "scale: log",
        "x scale: nines",
        "x: percent of the keys",
        "y: ms",
    ];
    let mut report = Report::new("found", &head, &columns);
    for permille in (10..1_000_u32).step_by(10).chain([995, 999, 1_000]) {
        let mut row = vec![digits(f64::from(permille) / 10.0, 1)];
        row.extend(series.iter().map(|times| digits(micros(times, permille) / 1e3, 3)));
        report.row(&row.iter().map(|cell| cell as &dyn std::fmt::Display).collect::<Vec<_>>());
    }
    report.finish(options.has("--write"))
}

fn measure(mesh: &mut Mesh, case: Case, rounds: u32) -> Result<Times, String> {
    let mut times = Times::default();
    let mut rng = Rng::new(1);
    let count = mesh.conns.len() as u64;
    let pick = |rng: &mut Rng, below| usize::try_from(rng.below(below)).unwrap_or(0);
    for round in 0..rounds {
        let setter = pick(&mut rng, count);
        let peer = (setter + 1 + pick(&mut rng, count - 1)) % mesh.conns.len();
        std::thread::sleep(PAUSE + Duration::from_micros(rng.below(4_000)));
        // The first of these keys is published at once, and the others wait.
        let before: &[u32] = match case {
            Case::Alone => &[],
            Case::Behind => &[1],
            Case::BehindMany => &[1, MANY],
        };
        for count in before {
            let keys: Vec<String> = (0..*count).map(|n| format!("{case:?}-{round}-{count}-{n}:1")).collect();
            mesh.conns[setter].call(&format!("SET {}\n", keys.join(",")))?;
        }
        if !before.is_empty() {
            std::thread::sleep(Duration::from_micros(rng.below(4_000)));
        }
        let key = format!("{case:?}-{round}");
        let (set, get) = (format!("SET {key}:1\n"), format!("GET {key}\n"));
        let begin = Instant::now();
        mesh.conns[setter].call(&set)?;
        while mesh.conns[peer].call(&get)? == ":GOT" {
            if begin.elapsed() > LOST {
                return Err(format!("{key} was not found for {LOST:?}"));
            }
        }
        times.add(nanos(begin.elapsed()), 1);
    }
    Ok(times)
}
