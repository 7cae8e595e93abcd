//! The service of a node that is overloaded or attacked: `cargo bench --bench overload`. Real nodes on loopback, loaded
//! by `olivia bench`, and a client that sends one request at a time. `-- --beside PROGRAM` runs each row with another
//! build of Olivia as well, by turns; `--rounds N` shows the median of N rounds; `--only ROW`.
//!
//! Results and times are checked, except in the quick form. Nodes, loads and prober share the processors of one
//! machine; the prober has a higher priority if permitted. Each time is shown as it passed (`wall`) and without the
//! longest of the waits of nodes and prober for a processor (`own`, by /proc/PID/schedstat), which bounds the nodes'
//! own delay from above. `own` is checked.

#![cfg(target_os = "linux")]

#[path = "../support/options.rs"]
mod options;
#[path = "../mesh/processes.rs"]
#[allow(dead_code, reason = "the meshes there are of this build alone")]
mod processes;
#[path = "../support/server.rs"]
mod server;

use options::{Options, Takes};
use processes::Conn;
use server::{Server, waited_ns, waited_ns_of_thread};
use std::fmt::Write as _;
use std::io::{PipeWriter, Read, Write, pipe};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{array, fs, thread};

/// The priority of the prober while it measures, and that of all other threads.
const PREFERRED: &str = "-15";
const COMMON: &str = "0";

/// This build.
const OLIVIA: &str = env!("CARGO_BIN_EXE_olivia");

/// Number of keys of the other node that are read.
const REMOTE_KEYS: usize = 1_000;

/// Number and bytes of the values in replies of 30 MiB.
const VALUES: usize = 512;
const VALUE_BYTES: usize = 60_000;

/// Bytes of the value that many clients wait for.
const LARGE_BYTES: usize = 8_000_000;

/// Time limit for one reply to the prober, and for a key to be found.
const REPLY_MAX: Duration = Duration::from_secs(20);

/// The figures of a row, in the order of their names.
type Figures = [f64; 3];

struct Row {
    name: &'static str,
    figures: [&'static str; 3],
    run: fn(&Bench) -> Result<Figures, String>,
    /// Checks the figures of this build, on any machine.
    holds: fn(&Figures) -> bool,
}

/// The parameters of a row.
struct Bench<'a> {
    program: &'a str,
    seconds: f64,
    is_quick: bool,
}

const ROWS: [Row; 10] = [
    Row {
        name: "deep",
        figures: ["remote found %", "lookup p99 ms", "PING p50 ms"],
        run: |bench| remote(bench, bench.few(100, 10), 1_000, Some(100_000)),
        holds: |figures| figures[0] >= 100.0,
    },
    Row {
        name: "many",
        figures: ["remote found %", "lookup p99 ms", "PING p50 ms"],
        run: |bench| remote(bench, bench.few(4_000, 40), 64, None),
        holds: |figures| figures[0] >= 100.0,
    },
    Row { name: "writers", figures: FOUND, run: |bench| writers(bench, &["1", "2"]), holds: is_found_soon },
    Row { name: "rivals", figures: FOUND, run: |bench| writers(bench, &["1", "1"]), holds: is_found_soon },
    Row { name: "readers", figures: PROBED, run: readers, holds: is_answered_soon },
    Row { name: "dumps", figures: PROBED, run: dumps, holds: is_answered_soon },
    Row { name: "waiters", figures: PROBED, run: waiters, holds: is_answered_soon },
    Row { name: "closing", figures: PROBED, run: closing, holds: is_answered_soon },
    Row {
        name: "stderr",
        figures: ["PINGs of 50 answered", "-", "-"],
        run: stderr,
        holds: |figures| figures[0] >= 50.0,
    },
    Row {
        name: "deleted",
        figures: ["refused %", "values", "deleted"],
        run: deleted,
        holds: |figures| figures[0] <= 1.0,
    },
];

/// The figures of a row in which a prober sends PING during a load: milliseconds above the time without load.
const PROBED: [&str; 3] = ["PING p99 over calm: wall ms", "own ms", "longest wall ms"];

fn is_answered_soon([_, own, _]: &Figures) -> bool {
    *own <= 2.0
}

/// The figures of a row in which keys set on one node are read on the other.
const FOUND: [&str; 3] = ["found after SAT: wall p50 ms", "p99 ms", "own p99 ms"];

fn is_found_soon([_, _, own]: &Figures) -> bool {
    *own <= 50.0
}

fn main() -> ExitCode {
    options::run(Takes { flags: &[], values: &["--beside", "--rounds", "--only"], words: &[] }, run)
}

fn run(options: &Options) -> Result<(), String> {
    let (is_quick, only) = (options.quick, options.value("--only"));
    let rounds: u32 = options.number("--rounds")?.unwrap_or(1);
    let programs: Vec<&str> = options.value("--beside").into_iter().chain([OLIVIA]).collect();
    let mut failed = Vec::new();
    for row in ROWS.iter().filter(|row| only.is_none_or(|only| row.name == only)) {
        let mut all: Vec<Vec<Figures>> = vec![Vec::new(); programs.len()];
        for _ in 0..rounds {
            for (program, figures) in programs.iter().zip(&mut all) {
                let bench = Bench { program, seconds: if is_quick { 0.2 } else { 4.0 }, is_quick };
                figures.push((row.run)(&bench)?);
            }
        }
        for (program, mut figures) in programs.iter().zip(all) {
            let is_ours = *program == OLIVIA;
            let median: Figures = array::from_fn(|at| {
                figures.sort_by(|a, b| a[at].total_cmp(&b[at]));
                figures[figures.len() / 2][at]
            });
            let mut line = format!("{:<8} {:<7}", row.name, if is_ours { "this" } else { "beside" });
            for (name, figure) in row.figures.iter().zip(median).filter(|(name, _)| **name != "-") {
                let _ = write!(line, " {name} {figure:>8.2} ");
            }
            println!("{line}");
            if is_ours && !is_quick && !(row.holds)(&median) {
                failed.push(row.name);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed checks: {}", failed.join(", "))) }
}

impl Bench<'_> {
    fn few(&self, full: usize, quick: usize) -> usize {
        if self.is_quick { quick } else { full }
    }

    fn node(&self, args: &[&str], env: &[(&str, &str)]) -> Result<Server, String> {
        Server::program(self.program, None, args, env)
    }

    /// Starts two nodes and waits until each has the other's filter.
    fn two_nodes(&self, env: &[(&str, &str)]) -> Result<[Server; 2], String> {
        let first = self.node(&[], env)?;
        let second = self.node(&["--peer", &first.addr().to_string()], env)?;
        let (mut one, mut other) = (Conn::open(first.addr())?, Conn::open(second.addr())?);
        one.call("SET of-first:1\n")?;
        other.call("SET of-second:1\n")?;
        let begin = Instant::now();
        while one.call("GET of-second\n")? != ":GOT of-second:1"
            || other.call("GET of-first\n")? != ":GOT of-first:1"
        {
            if begin.elapsed() > REPLY_MAX {
                return Err("the nodes do not link".to_owned());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok([first, second])
    }
}

/// A process of `olivia bench`, killed on drop.
struct Load(Child);

impl Load {
    fn start(addr: SocketAddr, args: &str) -> Result<Self, String> {
        let mut command = Command::new(OLIVIA);
        command.arg("bench").arg(addr.to_string()).args([
            "--protocol",
            "lines",
            "--warm-up",
            "0",
            "--seconds",
            "1000",
        ]);
        command.args(args.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self).map_err(|error| format!("cannot start olivia bench: {error}"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Times of requests in milliseconds: as they passed, and without the longest wait of a node or of the prober for a
/// processor.
struct Times {
    /// The nodes that take part.
    pids: Vec<u32>,
    wall: Vec<f64>,
    own: Vec<f64>,
}

impl Times {
    /// Begins to measure these nodes from this thread.
    fn new(nodes: &[&Server]) -> Self {
        set_priority(PREFERRED);
        Self { pids: nodes.iter().map(|node| node.pid()).collect(), wall: Vec::new(), own: Vec::new() }
    }

    /// Sends `request` repeatedly for some time.
    fn of(node: &Server, conn: &mut Conn, request: &str, time: Duration) -> Result<Self, String> {
        let (mut times, begin) = (Self::new(&[node]), Instant::now());
        while begin.elapsed() < time {
            times.add(|| conn.call(request).map(drop))?;
        }
        Ok(times)
    }

    fn add<R>(&mut self, one: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
        let (before, begin) = (self.waited()?, Instant::now());
        let result = one()?;
        let wall = begin.elapsed().as_secs_f64() * 1e3;
        let waited = self.waited()?.iter().zip(before).map(|(after, before)| after - before).max();
        self.wall.push(wall);
        self.own.push((wall - waited.unwrap_or_default() as f64 / 1e6).max(0.0));
        Ok(result)
    }

    /// Returns for each of them the nanoseconds so far in which it was runnable without a processor.
    fn waited(&self) -> Result<Vec<u64>, String> {
        let own = waited_ns_of_thread();
        self.pids.iter().map(|pid| waited_ns(*pid)).chain([own]).collect()
    }
}

impl Drop for Times {
    fn drop(&mut self) {
        set_priority(COMMON);
    }
}

fn quantile(times: &mut [f64], share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    let up_to = times.len() as f64 * share;
    times.iter().zip(1u32..).find(|(_, at)| f64::from(*at) >= up_to).map_or(0.0, |(time, _)| *time)
}

/// Sets the priority of this thread and of those that it starts, if permitted.
fn set_priority(nice: &str) {
    let thread = fs::read_link("/proc/thread-self").unwrap_or_default();
    if let Some(thread) = thread.file_name() {
        let mut renice = Command::new("renice");
        _ = renice.args(["-n", nice, "-p"]).arg(thread).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Measures PINGs before `load` and while it runs.
fn probed(bench: &Bench, node: &Server, load: impl FnOnce(&AtomicBool) + Send) -> Result<Figures, String> {
    let time = Duration::from_secs_f64(bench.seconds);
    let mut conn = Conn::open(node.addr())?;
    let mut calm = Times::of(node, &mut conn, "PING\n", time)?;
    let is_over = AtomicBool::new(false);
    let beside = thread::scope(|scope| {
        scope.spawn(|| {
            set_priority(COMMON);
            load(&is_over);
        });
        thread::sleep(time / 10);
        let times = Times::of(node, &mut conn, "PING\n", time);
        is_over.store(true, Ordering::Relaxed);
        times
    });
    let mut beside = beside?;
    let over = |beside: &mut [f64], calm: &mut [f64]| quantile(beside, 0.99) - quantile(calm, 0.99);
    let (wall, own) = (over(&mut beside.wall, &mut calm.wall), over(&mut beside.own, &mut calm.own));
    Ok([wall, own, quantile(&mut beside.wall, 1.0)])
}

/// Measures reads of a peer's keys through a node that other clients load; new keys may be set on the peer at a rate.
fn remote(bench: &Bench, clients: usize, depth: usize, rate: Option<u32>) -> Result<Figures, String> {
    let [holder, node] = bench.two_nodes(&[])?;
    let (mut owner, mut conn, mut ping) =
        (Conn::open(holder.addr())?, Conn::open(node.addr())?, Conn::open(node.addr())?);
    for at in 0..REMOTE_KEYS {
        owner.call(&format!("SET remote{at}:1\n"))?;
    }
    let _readers = Load::start(
        node.addr(),
        &format!("--fill --mix get --keys 1000 --connections {clients} --pipeline {depth}"),
    )?;
    let _writers = rate.map(|rate| {
        Load::start(holder.addr(), &format!("--mix set --keys 1000000000 --connections 50 --rate {rate}"))
    });
    thread::sleep(Duration::from_secs_f64(bench.seconds / 4.0));
    let (mut found, mut gets) = (0, 0);
    let (mut lookups, mut pings) = (Times::new(&[&node]), Times::new(&[&node]));
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < bench.seconds {
        let key = format!("remote{}", gets % REMOTE_KEYS);
        let is_found = lookups.add(|| Ok(conn.call(&format!("GET {key}\n"))? == format!(":GOT {key}:1")))?;
        found += usize::from(is_found);
        gets += 1;
        pings.add(|| ping.call("PING\n").map(drop))?;
    }
    Ok([
        100.0 * found as f64 / gets as f64,
        quantile(&mut lookups.wall, 0.99),
        quantile(&mut pings.wall, 0.5),
    ])
}

/// Measures reads on one node of keys set on the other while clients set new keys on both as fast as possible, in the
/// order of these seeds. With equal seeds both get the same keys, of which one node drops each.
fn writers(bench: &Bench, seeds: &[&str; 2]) -> Result<Figures, String> {
    let [first, second] = bench.two_nodes(&[])?;
    let load = "--mix set --keys 1000000000 --value-bytes 8 --connections 50 --pipeline 64 --seed";
    let start = |node: &Server, seed| Load::start(node.addr(), &format!("{load} {seed}"));
    let _loads = [start(&first, seeds[0])?, start(&second, seeds[1])?];
    let (mut one, mut other) = (Conn::open(first.addr())?, Conn::open(second.addr())?);
    let mut times = Times::new(&[&first, &second]);
    let begin = Instant::now();
    for at in 0.. {
        if begin.elapsed().as_secs_f64() > bench.seconds {
            break;
        }
        one.call(&format!("SET new{at}:1\n"))?;
        times.add(|| {
            let set = Instant::now();
            while other.call(&format!("GET new{at}\n"))? != format!(":GOT new{at}:1") {
                if set.elapsed() > REPLY_MAX {
                    return Err(format!("new{at} is not found {REPLY_MAX:?} after it was set"));
                }
            }
            Ok(())
        })?;
    }
    let (wall, own) = (&mut times.wall, &mut times.own);
    Ok([quantile(wall, 0.5), quantile(wall, 0.99), quantile(own, 0.99)])
}

/// Measures PINGs beside six clients that read replies of 30 MiB.
fn readers(bench: &Bench) -> Result<Figures, String> {
    let node = bench.node(&[], &[])?;
    let mut conn = Conn::open(node.addr())?;
    let count = bench.few(VALUES, 8);
    for at in 0..count {
        conn.call(&format!("SET key{at}:{}\n", "v".repeat(VALUE_BYTES)))?;
    }
    let keys: Vec<String> = (0..count).map(|at| format!("key{at}")).collect();
    let request = format!("GET {}\n", keys.join(","));
    probed(bench, &node, |is_over| {
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| read_replies(node.addr(), &request, is_over));
            }
        });
    })
}

/// Sends a request repeatedly, and reads the replies, a line each.
fn read_replies(addr: SocketAddr, request: &str, is_over: &AtomicBool) {
    let Ok(mut stream) = TcpStream::connect(addr) else { return };
    let mut buffer = vec![0; 1 << 20];
    while !is_over.load(Ordering::Relaxed) && stream.write_all(request.as_bytes()).is_ok() {
        while let Ok(count @ 1..) = stream.read(&mut buffer)
            && buffer[count - 1] != b'\n'
        {}
    }
}

/// Measures PINGs beside a client that requests the filter of a million keys 2,000 times at once and reads the replies.
fn dumps(bench: &Bench) -> Result<Figures, String> {
    let node = bench.node(&[], &[])?;
    let keys = bench.few(1_000_000, 10_000);
    let mut conn = Conn::open(node.addr())?;
    for first in (0..keys).step_by(1_000) {
        let lines: String = (first..first + 1_000).map(|at| format!("SET key{at}:1\n")).collect();
        conn.call_all(&lines, 1_000)?;
    }
    probed(bench, &node, |is_over| {
        let Ok(mut stream) = TcpStream::connect(node.addr()) else { return };
        if stream.write_all("REQUEST bloomfilter\n".repeat(2_000).as_bytes()).is_err() {
            return;
        }
        let mut buffer = vec![0; 1 << 20];
        while !is_over.load(Ordering::Relaxed) && stream.read(&mut buffer).is_ok() {}
    })
}

/// Measures PINGs beside sixty clients that repeatedly wait for one large value of the other node.
fn waiters(bench: &Bench) -> Result<Figures, String> {
    let [holder, node] = bench.two_nodes(&[("OLIVIA_LIMITS_LINE_BYTES_MAX", "16777216")])?;
    Conn::open(holder.addr())?
        .call(&format!("SET large:{}\n", "v".repeat(bench.few(LARGE_BYTES, 80_000))))?;
    probed(bench, &node, |is_over| {
        thread::scope(|scope| {
            for _ in 0..60 {
                scope.spawn(|| read_replies(node.addr(), "GET large\n", is_over));
            }
        });
    })
}

/// Measures PINGs beside thousands of connections that repeatedly close together in the middle of a request.
fn closing(bench: &Bench) -> Result<Figures, String> {
    let node = bench.node(&[], &[])?;
    let count = bench.few(9_900, 100);
    probed(bench, &node, |is_over| {
        while !is_over.load(Ordering::Relaxed) {
            let open = |_| {
                let mut stream = TcpStream::connect(node.addr()).ok()?;
                stream.write_all(b"GET ke").ok()?;
                Some(stream)
            };
            let all: Vec<TcpStream> = (0..count).filter_map(open).collect();
            all.iter().for_each(|stream| _ = stream.shutdown(Shutdown::Both));
        }
    })
}

/// Measures a node whose standard error is a pipe without reads and with room for one page, while a client causes log
/// lines.
fn stderr(bench: &Bench) -> Result<Figures, String> {
    let failed = |error: std::io::Error| format!("a node with a full pipe: {error}");
    let port =
        TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).map_err(failed)?;
    let (_reader, mut writer) = pipe().map_err(failed)?;
    writer.write_all(&[b'\n'; 15 * 4_096]).map_err(failed)?;
    let node = unread(bench.program, port, writer).map_err(failed)?;
    let begin = Instant::now();
    while TcpStream::connect(port).is_err() && begin.elapsed() < REPLY_MAX {
        thread::sleep(Duration::from_millis(10));
    }
    let mut answered = 0;
    for _ in 0..50 {
        // Ten lines per second are logged.
        for _ in 0..10 {
            let Ok(mut stream) = TcpStream::connect(port) else { continue };
            _ = stream.write_all(b"POST / HTTP/1.1\n");
            _ = stream.shutdown(Shutdown::Write);
        }
        thread::sleep(Duration::from_secs_f64(bench.seconds / 16.0));
        let Ok(mut stream) = TcpStream::connect(port) else { continue };
        _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
        _ = stream.write_all(b"PING\n");
        answered += usize::from(stream.read(&mut [0; 64]).is_ok_and(|count| count > 0));
    }
    drop(node);
    Ok([answered as f64, 0.0, 0.0])
}

fn unread(program: &str, addr: SocketAddr, stderr: PipeWriter) -> std::io::Result<Load> {
    let mut command = Command::new(program);
    command
        .args(["--config", "/dev/null", "--port", &addr.port().to_string()])
        .stdin(Stdio::null())
        .stderr(stderr);
    command.spawn().map(Load)
}

/// Measures a node at its `memory_max` without eviction, while a quarter of the values is deleted and set again.
fn deleted(bench: &Bench) -> Result<Figures, String> {
    let max = ["OLIVIA_LIMITS_MEMORY_MAX", if bench.is_quick { "8388608" } else { "67108864" }];
    let env = [(max[0], max[1]), ("OLIVIA_LIMITS_LINE_BYTES_MAX", "1048576")];
    let refuse = [env[0], env[1], ("OLIVIA_LIMITS_EVICTION", "refuse")];
    // Earlier builds have no eviction and refuse without this setting.
    let node = bench.node(&[], &refuse).or_else(|_| bench.node(&[], &env))?;
    let mut conn = Conn::open(node.addr())?;
    let value = "v".repeat(100_000);
    let set =
        |conn: &mut Conn, name: &str, at: usize| conn.call(&format!("SET {name}{at}:{value}\n")).is_ok();
    let count = (0..).take_while(|at| set(&mut conn, "key", *at)).count();
    let gone: Vec<usize> = (0..count).step_by(4).collect();
    for at in &gone {
        conn.call(&format!("DEL key{at}\n"))?;
    }
    let refused = gone.iter().filter(|at| !set(&mut conn, "new", **at)).count();
    Ok([100.0 * refused as f64 / gone.len() as f64, count as f64, gone.len() as f64])
}
