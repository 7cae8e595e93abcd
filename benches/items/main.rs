//! The cost of items in a whole process: resident memory above key and value, and the latency of a client that plays
//! ping-pong during a burst of expirations or deletions.
//!
//! `cargo bench --bench items`; `-- --quick` is a tiny form, `--burst` runs only the second half, `--emptying` only the
//! last part, `--redis PROGRAM` and `--memcached PROGRAM` also measure these, `--csv FILE` writes the memory as data
//! for a picture. Needs Linux' /proc. Not here: the store alone, which `benches/store.rs` measures.

#[path = "../support/options.rs"]
mod options;
#[path = "../support/server.rs"]
mod server;

mod peer;

use options::{Options, Takes};
use peer::{Conn, Peer};
use server::{Server, cpu_ns, status};
use std::fmt::Write;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Requests sent before their replies are read: so many that round trips do not matter.
const BURST: u32 = 1_000;

const KEY_BYTES: usize = 16;
const VALUE_BYTES: usize = 64;

const TAKES: Takes =
    Takes { flags: &["--burst", "--emptying"], values: &["--redis", "--memcached", "--csv"], words: &[] };

fn main() -> ExitCode {
    options::run(TAKES, run)
}

fn run(options: &Options) -> Result<(), String> {
    let mut peers = vec![Peer::Olivia];
    peers.extend(options.value("--redis").map(|program| Peer::Redis(program.to_owned())));
    peers.extend(options.value("--memcached").map(|program| Peer::Memcached(program.to_owned())));
    if options.has("--emptying") {
        return peers.iter().try_for_each(|peer| emptying(peer, options));
    }
    if !options.has("--burst") {
        memory(options, &peers)?;
    }
    for peer in &peers {
        burst(peer, options, Arrival::Spread)?;
        if matches!(peer, Peer::Olivia) {
            burst(peer, options, Arrival::AtOnce)?;
        }
        emptying(peer, options)?;
    }
    Ok(())
}

/// Prints the resident memory above that of the empty process, keys and values, per item.
fn memory(options: &Options, peers: &[Peer]) -> Result<(), String> {
    let counts: &[u32] = if options.quick { &[5_000] } else { &[1_000_000, 5_000_000] };
    let mut csv = String::from(
        "# title: Memory beside key and value: 16 B keys, 64 B values\n# kind: bars\n# x: items\n\
         # y: bytes per item\n# command: cargo bench --bench items -- --redis redis-server \
         --memcached memcached --csv docs/measured/memory.csv\nitems",
    );
    for peer in peers {
        let _ = write!(csv, ",{}", peer.name());
    }
    for &count in counts {
        for ttl in [None, Some(100_000)] {
            let label =
                format!("{} M{}", f64::from(count) / 1e6, if ttl.is_some() { " with TTL" } else { "" });
            let _ = write!(csv, "\n{label}");
            for peer in peers {
                let server = peer.start()?;
                let before = status(server.pid(), "VmRSS")?;
                fill(peer, &server, count, ttl)?;
                let held = (status(server.pid(), "VmRSS")? - before) as f64 * 1024.0;
                let over = held / f64::from(count) - (KEY_BYTES + VALUE_BYTES) as f64;
                println!(
                    "memory    {:9} {label:16} {over:7.1} bytes per item over key and value",
                    peer.name()
                );
                let _ = write!(csv, ",{over:.1}");
            }
        }
    }
    csv.push('\n');
    match options.value("--csv") {
        Some(path) => std::fs::write(path, csv).map_err(|error| format!("{path}: {error}")),
        None => Ok(()),
    }
}

fn fill(peer: &Peer, server: &Server, count: u32, ttl: Option<u32>) -> Result<(), String> {
    let mut conn = Conn::open(server.addr())?;
    let mut at = 0;
    while at < count {
        let until = count.min(at + BURST);
        let mut requests = Vec::new();
        for id in at..until {
            peer.put_set(&mut requests, id, VALUE_BYTES, ttl);
        }
        conn.exchange(&requests, until - at)?;
        at = until;
    }
    Ok(())
}

/// Whether the items of a burst expire one after the other, as they were set, or all while the process is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    Spread,
    AtOnce,
}

/// Measures a million keys that expire in a burst, while one client plays ping-pong.
fn burst(peer: &Peer, options: &Options, arrival: Arrival) -> Result<(), String> {
    let (count, ttl) = if options.quick { (5_000, 1) } else { (1_000_000, 10) };
    let server = peer.start()?;
    let mut conn = Conn::open(server.addr())?;
    let cpu = cpu_ns(server.pid())?;
    let calm = ping_pong(peer, &mut conn, Duration::from_secs(u64::from(ttl) / 4), || Ok(false))?;
    let cpu_per_ping = (cpu_ns(server.pid())? - cpu) as f64 / calm.count as f64;
    let begin = Instant::now();
    fill(peer, &server, count, Some(ttl))?;
    let filled = begin.elapsed();
    let turn_before = peer.iteration_max_us(&mut conn)?;
    let due = Duration::from_secs(u64::from(ttl));
    // The last key expires `ttl` after the end of the filling, the first `ttl` after its beginning.
    if arrival == Arrival::AtOnce {
        signal(&server, "STOP")?;
        std::thread::sleep(due + Duration::from_millis(100));
        signal(&server, "CONT")?;
    } else {
        std::thread::sleep(
            (begin + due).saturating_duration_since(Instant::now() + Duration::from_millis(50)),
        );
    }
    let cpu = cpu_ns(server.pid())?;
    let start = Instant::now();
    let mut watch = Conn::open(server.addr())?;
    let mut looked = Instant::now();
    let busy = ping_pong(peer, &mut conn, Duration::from_secs(90), || {
        if looked.elapsed() < Duration::from_millis(50) {
            return Ok(false);
        }
        looked = Instant::now();
        Ok(peer.keys(&mut watch)? == 0)
    })?;
    let gone = start.elapsed();
    let used = (cpu_ns(server.pid())? - cpu) as f64 / 1e6;
    let pings_ms = busy.count as f64 * cpu_per_ping / 1e6;
    println!(
        "burst     {:9} {arrival:?}: {count} keys set in {filled:.1?}, gone {gone:.1?} after the first was due; \
         {used:.0} ms of CPU, {pings_ms:.0} of them for {} pings by the calm rate; ping-pong p50 {} p99 {} max {} us, calm {} {} {} us{}",
        peer.name(),
        busy.count,
        busy.p50,
        busy.p99,
        busy.max,
        calm.p50,
        calm.p99,
        calm.max,
        iterations(turn_before, peer.iteration_max_us(&mut conn)?)
    );
    println!("burst     {:9} resident {} KiB afterwards", peer.name(), status(server.pid(), "VmRSS")?);
    Ok(())
}

/// Formats the longest iteration of a server that reports it, and the longest before the burst.
fn iterations(before: Option<u64>, after: Option<u64>) -> String {
    let both = before.zip(after);
    both.map_or_else(String::new, |(before, after)| format!("; longest turn {after} us, {before} before"))
}

/// Measures the deletion of five million keys in pipelines, while another client plays ping-pong.
fn emptying(peer: &Peer, options: &Options) -> Result<(), String> {
    let count = if options.quick { 5_000 } else { 5_000_000 };
    let server = peer.start()?;
    let mut conn = Conn::open(server.addr())?;
    let empty = status(server.pid(), "VmRSS")?;
    fill(peer, &server, count, None)?;
    let full = status(server.pid(), "VmRSS")?;
    let turn_before = peer.iteration_max_us(&mut conn)?;
    let addr = server.addr();
    let (busy, emptied) = std::thread::scope(|scope| {
        let emptying = scope.spawn(move || {
            let begin = Instant::now();
            let mut conn = Conn::open(addr)?;
            for from in (0..count).step_by(BURST as usize) {
                let until = count.min(from + BURST);
                let mut requests = Vec::new();
                (from..until).for_each(|id| peer.put_delete(&mut requests, id));
                conn.exchange(&requests, until - from)?;
            }
            Ok::<_, String>(begin.elapsed())
        });
        let busy = ping_pong(peer, &mut conn, Duration::from_secs(90), || Ok(emptying.is_finished()));
        (busy, emptying.join())
    });
    let (busy, emptied) = (busy?, emptied.map_err(|_| "the thread that deletes panicked")??);
    // Sparse pages are compacted after a second.
    std::thread::sleep(Duration::from_millis(if options.quick { 10 } else { 3_000 }));
    println!(
        "emptying  {:9} {count} keys deleted in {emptied:.1?}; ping-pong p50 {} p99 {} max {} us{}; resident {} KiB, \
         {full} full, {empty} before",
        peer.name(),
        busy.p50,
        busy.p99,
        busy.max,
        iterations(turn_before, peer.iteration_max_us(&mut conn)?),
        status(server.pid(), "VmRSS")?
    );
    Ok(())
}

fn signal(server: &Server, name: &str) -> Result<(), String> {
    let pid = server.pid().to_string();
    let status = Command::new("kill").args([&format!("-{name}"), &pid]).status();
    status.map_err(|error| format!("kill: {error}")).map(drop)
}

/// Round trips of one request at a time, in µs.
#[derive(Debug)]
struct Latency {
    count: usize,
    p50: u128,
    p99: u128,
    max: u128,
}

/// Plays until `until` returns true or `most` has passed, at least once. It pauses shortly after each round, so that a spinning client
/// does not affect the result.
fn ping_pong(
    peer: &Peer,
    conn: &mut Conn,
    most: Duration,
    mut until: impl FnMut() -> Result<bool, String>,
) -> Result<Latency, String> {
    let begin = Instant::now();
    let mut micros = Vec::new();
    loop {
        let sent = Instant::now();
        conn.exchange(peer.ping(), 1)?;
        micros.push(sent.elapsed().as_micros());
        if begin.elapsed() >= most.max(Duration::from_millis(50)) || until()? {
            break;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    micros.sort_unstable();
    let at = |share: usize| micros[(micros.len() * share / 100).min(micros.len() - 1)];
    Ok(Latency { count: micros.len(), p50: at(50), p99: at(99), max: at(100) })
}
