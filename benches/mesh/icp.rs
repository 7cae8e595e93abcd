//! Nodes as cooperating caches, compared with caches that query all others.
//!
//! Each request of a trace is a GET to one node; an object that no node has is fetched from its origin and set on that
//! node. Caches of ICP (RFC 2186) send a query to each other cache for every local miss, and get an answer from each.
//! For both the same messages are counted, a GET and the NONE or VALUE that answers it, without values. Olivia's
//! include the cost of selecting the node: each key published to each peer, heartbeats, false positives. The comparison
//! is that of "Summary Cache" (Fan, Cao, Almeida, Broder, IEEE/ACM Transactions on Networking 8(3), 2000).
//!
//! Two kinds of caches: those that leave an object on the node that has it, as Olivia does, and those that keep a copy
//! of an object from another cache, as Web caches do. The trace can also run faster than its own time, since keys that
//! are set close together are published together.

use super::options::Options;
use super::report::{Report, digits};
use super::trace::{self, Request};
use super::traffic::Sum;
use super::world::World;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// Longer values are cut to this length, the most that a line can carry.
const VALUE_BYTES_MAX: usize = 50_000;

/// Bytes of a frame's header, and of the answer to a query without the value. The further fields of a VALUE are not
/// counted for ICP.
const HEADER_BYTES: u64 = 20;
const ANSWER_BYTES: u64 = HEADER_BYTES + 8;

/// Where the object of a remote hit is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copies {
    Left,
    Kept,
}

/// The parameters of a run.
#[derive(Debug, Clone, Copy)]
struct Plan<'a> {
    requests: &'a [Request],
    nodes: usize,
    copies: Copies,
    /// Factor by which time runs faster than that of the trace.
    speed: u64,
    /// TTL of the objects.
    life: Option<Duration>,
}

/// The result of a run.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    traffic: Sum,
    local_hits: u64,
    lookup_hits: u64,
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let most = options.number("--requests")?.unwrap_or(if options.quick { 500 } else { usize::MAX });
    let life = options.number("--life")?.map(Duration::from_secs);
    let requests = match options.value("--trace") {
        Some(path) => trace::read(path.as_ref(), most)?,
        None => trace::draw(most),
    };
    let (sizes, speeds): (&[usize], &[u64]) =
        if options.quick { (&[4], &[100]) } else { (&[4, 16], &[1, 100]) };
    let seconds = requests.last().map_or(0, |last| last.second) + 1;
    println!("trace     {} requests in {seconds} s, {}", requests.len(), name(options));
    let head = [
        "title: Messages between caches per request, beside ICP, which queries every cache",
        "kind: points",
        "scale: log",
        "x: nodes, what becomes of a remote hit, how fast the trace runs",
        "y: messages",
    ];
    let mut report = Report::new("trace", &head, &["run", "ICP", "olivia"]);
    for &nodes in sizes {
        for copies in [Copies::Left, Copies::Kept] {
            for &speed in speeds {
                let plan = Plan { requests: &requests, nodes, copies, speed, life };
                let icp = run_icp(&plan);
                show("ICP", &plan, icp);
                let olivia = run_olivia(&plan)?;
                show("olivia", &plan, olivia);
                println!(
                    "trace     {:.1} times fewer messages, {:.1} times fewer bytes",
                    icp.traffic.messages as f64 / olivia.traffic.messages as f64,
                    icp.traffic.bytes as f64 / olivia.traffic.bytes as f64
                );
                let each =
                    |outcome: Outcome| digits(outcome.traffic.messages as f64 / requests.len() as f64, 3);
                let run = format!("{nodes} {copies:?} ×{speed}").to_lowercase();
                report.row(&[&run, &each(icp), &each(olivia)]);
            }
        }
    }
    report.finish(options.has("--write"))
}

fn name(options: &Options) -> String {
    match options.value("--trace").and_then(|path| Path::new(path).file_name()) {
        Some(name) => name.to_string_lossy().into_owned(),
        None => "drawn".to_owned(),
    }
}

fn show(who: &str, plan: &Plan<'_>, outcome: Outcome) {
    let Plan { requests, nodes, copies, speed, .. } = plan;
    let each = |count: u64| count as f64 / requests.len() as f64;
    println!(
        "trace     {who:9} {nodes:3} nodes, copies {copies:?}, at {speed} times the speed: {:.3} messages and {:.0} bytes a request; \
         hits {:.2} % local and {:.2} % remote",
        each(outcome.traffic.messages),
        each(outcome.traffic.bytes),
        100.0 * each(outcome.local_hits),
        100.0 * each(outcome.lookup_hits),
    );
}

fn node_of(request: &Request, nodes: usize) -> usize {
    usize::try_from(request.client % nodes as u64).unwrap_or(0)
}

fn key_of(object: u64) -> String {
    format!("object-{object}")
}

fn run_icp(plan: &Plan<'_>) -> Outcome {
    let mut holders: HashMap<u64, Vec<(usize, Duration)>> = HashMap::new();
    let mut outcome = Outcome::default();
    let others = plan.nodes as u64 - 1;
    let mut now = Duration::ZERO;
    for (request, pause) in plan.requests.iter().zip(pauses(plan)) {
        let at = node_of(request, plan.nodes);
        let until = now + plan.life.unwrap_or(Duration::MAX / 2);
        let holders = holders.entry(request.object).or_default();
        holders.retain(|(_, until)| *until > now);
        now += pause;
        if holders.iter().any(|(holder, _)| *holder == at) {
            outcome.local_hits += 1;
            continue;
        }
        outcome.traffic.messages += 2 * others;
        let query = HEADER_BYTES + key_of(request.object).len() as u64;
        outcome.traffic.bytes += others * (query + ANSWER_BYTES);
        if holders.is_empty() {
            holders.push((at, until));
        } else {
            outcome.lookup_hits += 1;
            if plan.copies == Copies::Kept {
                holders.push((at, until));
            }
        }
    }
    outcome
}

fn run_olivia(plan: &Plan<'_>) -> Result<Outcome, String> {
    let mut world = World::new(plan.nodes)?;
    let before = world.traffic;
    let mut outcome = Outcome::default();
    let filler = "v".repeat(VALUE_BYTES_MAX);
    for (request, pause) in plan.requests.iter().zip(pauses(plan)) {
        let at = node_of(request, plan.nodes);
        let key = key_of(request.object);
        let remote_before = world.node(at).stats().lookup_hits;
        let is_hit = world.call(at, &format!("GET {key}\n"))? != ":GOT \n";
        let is_remote = world.node(at).stats().lookup_hits > remote_before;
        outcome.local_hits += u64::from(is_hit && !is_remote);
        outcome.lookup_hits += u64::from(is_remote);
        if !is_hit || is_remote && plan.copies == Copies::Kept {
            let value = &filler[..request.bytes.saturating_sub(key.len()).clamp(1, VALUE_BYTES_MAX)];
            let set = match plan.life {
                Some(life) => format!("SETEX {key}:{value}:{}\n", life.as_secs()),
                None => format!("SET {key}:{value}\n"),
            };
            world.call(at, &set)?;
        }
        world.pass(pause);
    }
    outcome.traffic = world.traffic.since(before).all();
    Ok(outcome)
}

/// Returns the time from each request to the next: the requests of one second are spread over it.
fn pauses(plan: &Plan<'_>) -> Vec<Duration> {
    let Plan { requests, speed, .. } = *plan;
    let mut counts: HashMap<u64, u32> = HashMap::new();
    requests.iter().for_each(|request| *counts.entry(request.second).or_default() += 1);
    let speed = u32::try_from(speed).unwrap_or(u32::MAX);
    let pause = |(n, request): (usize, &Request)| {
        let share = Duration::from_secs(1) / counts[&request.second];
        let next = requests.get(n + 1).map_or(request.second, |next| next.second);
        let empty = Duration::from_secs(next.saturating_sub(request.second + 1));
        (share + empty) / speed
    };
    requests.iter().enumerate().map(pause).collect()
}
