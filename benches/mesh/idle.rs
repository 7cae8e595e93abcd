//! The traffic of idle nodes, and the time until a dead one is detected.
//!
//! The traffic is that of the loopback device as Linux counts it, with headers, acknowledgements and all other traffic:
//! run it in a network namespace of its own (`unshare -rn sh -c 'ip link set lo up && …'`).

use super::options::Options;
use super::processes::Mesh;
use super::report::{Report, digits};
use super::server::{Server, cpu_ns};
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let sizes: &[usize] = if options.quick { &[3] } else { &[3, 16] };
    let time = if options.quick { Duration::from_millis(200) } else { Duration::from_secs(20) };
    let head = ["title: Traffic and CPU time of an idle node", "kind: table"];
    let columns =
        ["nodes", "bytes/s per node with TCP/IP headers", "packets/s per node", "CPU us/s per node"];
    let mut report = Report::new("idle", &head, &columns);
    for &nodes in sizes {
        let mesh = Mesh::start(nodes)?;
        std::thread::sleep(time / 10);
        let cpu =
            |servers: &[Server]| servers.iter().map(|server| cpu_ns(server.pid())).sum::<Result<u64, _>>();
        let ((bytes, packets), used) = (loopback()?, cpu(&mesh.servers)?);
        std::thread::sleep(time);
        let ((bytes_after, packets_after), used_after) = (loopback()?, cpu(&mesh.servers)?);
        let each = |before: u64, after: u64| (after - before) as f64 / time.as_secs_f64() / nodes as f64;
        let (bytes, packets, used) =
            (each(bytes, bytes_after), each(packets, packets_after), each(used, used_after) / 1e3);
        println!(
            "idle      {nodes:3} nodes: {bytes:.0} bytes and {packets:.0} packets per second sent by each, {used:.0} us of CPU per second"
        );
        report.row(&[&nodes, &digits(bytes, 0), &digits(packets, 0), &digits(used, 0)]);
    }
    report.finish(options.has("--write"))
}

/// Bytes and packets sent on the loopback device.
fn loopback() -> Result<(u64, u64), String> {
    let path = "/proc/self/net/dev";
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
    let fields: Vec<u64> =
        line.unwrap_or("").split_whitespace().filter_map(|field| field.parse().ok()).collect();
    fields.get(8).copied().zip(fields.get(9).copied()).ok_or_else(|| format!("{path} has no loopback device"))
}

/// Measures the time from the death or stop of a process until the other nodes have unlinked it, and what a client that
/// reads its keys meanwhile waits for.
pub(crate) fn dead(options: &Options) -> Result<(), String> {
    let head = ["title: Time until a dead peer is not queried any more", "kind: table"];
    let columns = ["how", "unlinked after ms", "slowest GET ms", "GETs", "timeouts"];
    let mut report = Report::new("dead", &head, &columns);
    for (how, signal) in [("killed", "-KILL"), ("stopped", "-STOP")] {
        if options.quick && signal == "-STOP" {
            continue;
        }
        let mut mesh = Mesh::start(3)?;
        for n in 0..100 {
            mesh.conns[2].call(&format!("SET dead-{n}:1\n"))?;
        }
        while mesh.conns[0].call("GET dead-99\n")? == ":GOT" {}
        let pid = mesh.servers[2].pid().to_string();
        let killed = Command::new("kill").args([signal, &pid]).status();
        let begin = Instant::now();
        killed.map_err(|error| format!("kill: {error}"))?;
        let (mut slowest, mut gets) = (Duration::ZERO, 0);
        let conn = &mut mesh.conns[0];
        while conn.stat("peers_linked")? == 2 {
            let sent = Instant::now();
            conn.call(&format!("GET dead-{}\n", gets % 100))?;
            slowest = slowest.max(sent.elapsed());
            gets += 1;
            if begin.elapsed() > Duration::from_secs(30) {
                return Err(format!("a peer that was {how} is still linked after 30 s"));
            }
        }
        let gone = begin.elapsed();
        let timeouts = conn.stat("lookup_timeouts")?;
        println!(
            "dead      {how:8} unlinked after {gone:.1?}; meanwhile {gets} GETs for its keys, the slowest {slowest:.1?}, {timeouts} timeouts"
        );
        report.row(&[
            &how,
            &digits(gone.as_secs_f64() * 1e3, 1),
            &digits(slowest.as_secs_f64() * 1e3, 1),
            &gets,
            &timeouts,
        ]);
    }
    report.finish(options.has("--write"))
}
