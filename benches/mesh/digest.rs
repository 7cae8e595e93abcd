//! Digest bytes that a node sends to one peer per new key, at several rates of new keys, and snapshot bytes per key.
//!
//! The nodes are real processes, since the number of keys per frame depends on time. Keys are added first, so that the
//! filter does not grow during a measurement; the cost of growing, a doubling and the rebuilt blocks after it, is
//! measured separately.

use super::options::Options;
use super::processes::{Conn, Mesh};
use super::report::{Report, digits};
use super::server::Server;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Time in which all keys that were set are published.
const SPREAD: Duration = Duration::from_millis(300);

const NODES: usize = 3;

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let (rates, time): (&[u64], _) = if options.quick {
        (&[100, 10_000], Duration::from_millis(100))
    } else {
        (&[10, 100, 1_000, 10_000, 30_000, 100_000], Duration::from_secs(5))
    };
    let head = [
        "title: Bytes of the digest per new key and peer",
        "kind: bars",
        "x: new keys per second",
        "y: bytes",
    ];
    let mut report = Report::new("digest", &head, &["new keys per second", "bytes per key and peer"]);
    for &rate in rates {
        let mut mesh = Mesh::start(NODES)?;
        let conn = &mut mesh.conns[0];
        let keys = u64::try_from(time.as_millis()).unwrap_or(0) * rate / 1_000;
        prefill(conn, keys.max(100))?;
        let (sent, reached, grown) = paced(conn, rate, time)?;
        println!(
            "digest    {rate:7} new keys per second wanted, {reached:.0} reached: {sent:6.2} bytes per key and peer{}",
            if grown { " (the filter has grown meanwhile)" } else { "" }
        );
        report.row(&[&rate, &digits(sent, 2)]);
    }
    growth(options)?;
    snapshot(options)?;
    report.finish(options.has("--write"))
}

/// Adds keys until as many again fit into the filter without a growth.
fn prefill(conn: &mut Conn, keys: u64) -> Result<(), String> {
    let mut next = 0;
    loop {
        let bits = conn.stat("filter_bits")?;
        while conn.stat("filter_bits")? == bits && next < (1 << 26) {
            set_some(conn, "before", next, 500)?;
            next += 500;
        }
        // The filter has just grown: it has room for nearly as many keys as there are.
        if next > keys * 5 / 4 {
            return wait_until_published(conn).map(drop);
        }
    }
}

/// Waits until nothing more is sent, rebuilt blocks after a growth included. Returns the bytes so far.
fn wait_until_published(conn: &mut Conn) -> Result<u64, String> {
    let mut sent = conn.stat("digest_sent_bytes")?;
    loop {
        std::thread::sleep(SPREAD);
        let now = conn.stat("digest_sent_bytes")?;
        if now == sent {
            return Ok(sent);
        }
        sent = now;
    }
}

fn set_some(conn: &mut Conn, prefix: &str, first: u64, count: u64) -> Result<(), String> {
    let mut request = String::from("SET ");
    for n in first..first + count {
        let _ = write!(request, "{}{prefix}-{n}:1", if n == first { "" } else { "," });
    }
    request.push('\n');
    conn.call(&request).map(drop)
}

/// Sets keys at a rate for some time. Returns the bytes per key and peer, the rate that was reached, and whether the
/// filter has grown.
fn paced(conn: &mut Conn, rate: u64, time: Duration) -> Result<(f64, f64, bool), String> {
    let (bits, before) = (conn.stat("filter_bits")?, conn.stat("digest_sent_bytes")?);
    let begin = Instant::now();
    let mut set = 0;
    while begin.elapsed() < time {
        let due = u64::try_from(begin.elapsed().as_micros()).unwrap_or(0) * rate / 1_000_000 + 1;
        if due > set {
            let count = (due - set).min(500);
            set_some(conn, "paced", set, count)?;
            set += count;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let took = begin.elapsed();
    std::thread::sleep(SPREAD);
    let sent = (conn.stat("digest_sent_bytes")? - before) as f64 / set as f64 / (NODES - 1) as f64;
    Ok((sent, set as f64 / took.as_secs_f64(), conn.stat("filter_bits")? != bits))
}

/// Measures the cost of a doubling: from one growth to after the next, at full speed.
fn growth(options: &Options) -> Result<(), String> {
    let mut mesh = Mesh::start(NODES)?;
    let conn = &mut mesh.conns[0];
    prefill(conn, if options.quick { 1_000 } else { 100_000 })?;
    let (bits, keys) = (conn.stat("filter_bits")?, conn.stat("keys")?);
    let before = conn.stat("digest_sent_bytes")?;
    let mut next = 0;
    while conn.stat("filter_bits")? == bits {
        set_some(conn, "growing", next, 500)?;
        next += 500;
    }
    let sent = wait_until_published(conn)?;
    let each = (sent - before) as f64 / next as f64 / (NODES - 1) as f64;
    println!(
        "digest    from {keys} keys to {}, a doubling of the filter with it: {each:.2} bytes per key and peer",
        keys + next
    );
    Ok(())
}

/// Measures the snapshot that a new peer gets: the whole filter, which is largest when it has just grown.
fn snapshot(options: &Options) -> Result<(), String> {
    let mut mesh = Mesh::start(1)?;
    let conn = &mut mesh.conns[0];
    prefill(conn, if options.quick { 1_000 } else { 200_000 })?;
    let keys = conn.stat("keys")?;
    let before = conn.stat("digest_sent_bytes")?;
    let base = mesh.servers[0].addr().to_string();
    let late = Server::olivia_with(None, &["--peer", &base], &[])?;
    let mut late = Conn::open(late.addr()).map(|conn| (conn, late))?;
    while late.0.stat_text("ready")? != "yes" || late.0.stat("peers_linked")? != 1 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = (mesh.conns[0].stat("digest_sent_bytes")? - before) as f64 / keys as f64;
    println!("digest    snapshot of {keys} keys, just grown: {sent:.2} bytes per key");
    Ok(())
}
