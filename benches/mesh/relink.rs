//! Cost of relinking when each of two nodes has many keys: all of them are tested against the filter of the other node,
//! in steps.
//!
//! One node is stopped for longer than three heartbeats, so both close the link.

use super::options::Options;
use super::processes::{Conn, Mesh};
use super::report::{Report, digits};
use super::server::cpu_ns;
use std::fmt::Write;
use std::process::Command;
use std::time::{Duration, Instant};

/// Keys in one request.
const KEYS_PER_LINE: usize = 64;

/// Time for which a node is stopped, longer than three heartbeats.
const STOPPED: Duration = Duration::from_millis(4_500);

/// A resync is complete when no notice was sent for this time.
const QUIET: Duration = Duration::from_millis(300);

const WAIT_MAX: Duration = Duration::from_secs(60);

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let keys = if options.quick { 5_000 } else { 1_000_000 };
    let mut mesh = Mesh::start(2)?;
    for (node, conn) in mesh.conns.iter_mut().enumerate() {
        fill(conn, node, keys)?;
    }
    std::thread::sleep(QUIET);
    let pids = [0, 1].map(|node| mesh.servers[node].pid());
    signal(pids[1], "-STOP")?;
    std::thread::sleep(STOPPED);
    let mut conns = [Conn::open(mesh.servers[0].addr())?, Conn::open(mesh.servers[1].addr())?];
    conns[0].command(&["CONFIG", "RESETSTAT"])?;
    let frames = mesh.conns[0].stat("frames")?;
    let before = [cpu_ns(pids[0])?, cpu_ns(pids[1])?];
    signal(pids[1], "-CONT")?;
    let begin = Instant::now();
    conns[1].command(&["CONFIG", "RESETSTAT"])?;
    let is_ready = |mesh: &mut Mesh| {
        let conn = &mut mesh.conns[0];
        Ok::<bool, String>(conn.stat("peers_linked")? == 1 && conn.stat_text("ready")? == "yes")
    };
    while !is_ready(&mut mesh)? {
        if begin.elapsed() > WAIT_MAX {
            return Err(format!("no link after {WAIT_MAX:?}"));
        }
    }
    let linked = begin.elapsed();
    let (mut last, mut at) = (notices(&mut mesh)?, Instant::now());
    while at.elapsed() < QUIET {
        let now = notices(&mut mesh)?;
        if now != last {
            (last, at) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = at.duration_since(begin);
    let frames = mesh.conns[0].stat("frames")? - frames;
    let used = [cpu_ns(pids[0])? - before[0], cpu_ns(pids[1])? - before[1]].map(|ns| ns as f64 / 1e6);
    let longest = [mesh.conns[0].stat("iteration_max_us")?, mesh.conns[1].stat("iteration_max_us")?];
    let (linked, took) = (linked.as_secs_f64() * 1e3, took.as_secs_f64() * 1e3);
    println!(
        "relink    {keys} keys each: linked after {linked:.0} ms, last notice after {took:.0} ms, {frames} frames and {last} notices; \
         {:.0} and {:.0} ms of CPU, the longest iterations {} and {} us",
        used[0], used[1], longest[0], longest[1]
    );
    let head = ["title: Linking again with many keys on both nodes", "kind: table"];
    let columns =
        ["keys each", "linked after ms", "last notice after ms", "frames", "notices", "longest iteration us"];
    let mut report = Report::new("relink", &head, &columns);
    report.row(&[&keys, &digits(linked, 0), &digits(took, 0), &frames, &last, &longest[0].max(longest[1])]);
    report.finish(options.has("--write"))
}

fn fill(conn: &mut Conn, node: usize, keys: usize) -> Result<(), String> {
    for first in (0..keys).step_by(KEYS_PER_LINE) {
        let mut line = String::from("SET ");
        for n in first..keys.min(first + KEYS_PER_LINE) {
            _ = write!(line, "{}key-{node}-{n}:v", if n > first { "," } else { "" });
        }
        line.push('\n');
        conn.call(&line)?;
    }
    Ok(())
}

fn notices(mesh: &mut Mesh) -> Result<u64, String> {
    mesh.conns.iter_mut().map(|conn| conn.stat("invalidations_sent")).sum()
}

fn signal(pid: u32, signal: &str) -> Result<(), String> {
    let done = Command::new("kill").args([signal, &pid.to_string()]).status();
    done.map(|_| ()).map_err(|error| format!("kill: {error}"))
}
