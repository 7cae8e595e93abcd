//! Histories of requests to real processes under faults, in the manner of Jepsen's register and set tests.
//!
//! Clients of each node write, read, delete and increment the same keys; nodes are stopped, killed, cut off, and their
//! clocks moved. `checker.rs` then searches for anomalies that `docs/consistency.md` does not allow. `make test` runs
//! half a minute of it; `make histories` an hour (`OLIVIA_HISTORY_SECONDS`: per test). Nodes run in network namespaces;
//! where these cannot be made the tests print that and pass. The preloaded library of `clock.c` moves the clocks.

#![cfg(target_os = "linux")]

mod checker;
#[path = "../common/mod.rs"]
mod common;

use checker::{Anomaly, End, Faults, Op, Verb, check};
use common::WAIT_MAX;
use common::client::Client;
use common::mesh::wait_for_peers;
use common::net::{Loss, Net, PASSWORD};
use common::server::{Launch, Server};
use redis::{Connection, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Registers that are written all the time, and others that are left alone for some seconds.
const HOT: u64 = 4;
const COLD: u64 = 1_000;
const COUNTERS: u64 = 2;
/// Clients of each node.
const CLIENTS: usize = 2;
/// For how long a client waits for a reply.
const TIMEOUT: Duration = Duration::from_secs(3);
const HEARTBEAT_MS: u64 = 300;
/// The default of `lookup_timeout_ms`: after it a key is not found, whether it exists or not.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(100);
/// Number of requests that a run makes at least, however slow the machine is.
const OPS_MIN: usize = 501;
/// Between two looks at the links of the nodes.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Three heartbeats: the longest that a link is lost without its nodes knowing.
const DEAD_TIME: Duration = Duration::from_millis(3 * HEARTBEAT_MS);
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(3);
/// The shift of a clock in ms, within the bound that nodes accept.
const CLOCK_MS: i64 = 400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// SIGSTOP, for longer than the dead time.
    Pause,
    /// Cut off by the network.
    Cut,
    /// Only what is sent to it is lost.
    Deaf,
    /// SIGKILL, and another process in its place.
    Kill,
    /// Its wall clock jumps ahead and back.
    Clock,
}

/// The shared state of the clients of one run.
struct Run {
    net: Net,
    begin: Instant,
    is_over: AtomicBool,
    next: AtomicU64,
    ops: Mutex<Vec<Op>>,
}

impl Run {
    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    fn connect(&self, node: usize) -> Option<Connection> {
        let open = move || {
            let client =
                redis::Client::open(format!("redis://:{}@{}/", encoded(PASSWORD), Net::addr(node))).unwrap();
            client.get_connection_with_timeout(TIMEOUT).ok()
        };
        let connection = self.net.inside(node, open)?;
        connection.set_read_timeout(Some(TIMEOUT)).unwrap();
        Some(connection)
    }

    fn perform(&self, connection: &mut Connection, node: usize, key: String, verb: Verb) -> Op {
        let begin = self.now();
        let result = request(connection, &key, verb);
        let end = self.now();
        let result = match result {
            Ok(End::Done) if verb == Verb::Get && end - begin >= LOOKUP_TIMEOUT => End::Nothing,
            Ok(result) => result,
            Err(error) => failure(&error, verb),
        };
        Op { node, key, verb, begin, end, result }
    }
}

/// A password in a URL.
fn encoded(text: &str) -> String {
    text.replace(' ', "%20")
}

fn request(connection: &mut Connection, key: &str, verb: Verb) -> RedisResult<End> {
    let mut command = redis::Cmd::new();
    match verb {
        Verb::Set(value) => command.arg("SET").arg(key).arg(value),
        Verb::Get => command.arg("GET").arg(key),
        Verb::Del => command.arg("DEL").arg(key),
        Verb::Incr => command.arg("INCR").arg(key),
        Verb::Lock(value) => command.arg("SET").arg(key).arg(value).arg("NX"),
    };
    let value: Value = command.query(connection)?;
    Ok(match (verb, value) {
        (Verb::Lock(_), Value::Nil) => End::Nothing,
        (Verb::Get, Value::BulkString(bytes)) => {
            End::Value(String::from_utf8(bytes).unwrap().parse().unwrap())
        }
        (Verb::Incr, Value::Int(number)) => End::Value(number.unsigned_abs()),
        _ => End::Done,
    })
}

/// Returns the end of a request that got an error.
fn failure(error: &RedisError, verb: Verb) -> End {
    let is_nothing = matches!(error.code(), Some("TRYAGAIN" | "UNREACHABLE"))
        || error.kind() == ErrorKind::Server(ServerErrorKind::TryAgain);
    // A DEL that names unreachable nodes has deleted on all others.
    if is_nothing && verb != Verb::Del { End::Nothing } else { End::Unknown }
}

/// The requests of one client until the run is over.
fn client(run: &Run, node: usize, seed: u64) {
    let mut state = seed;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut connection = None;
    while !run.is_over.load(Ordering::Relaxed) {
        let Some(open) = &mut connection else {
            connection = run.connect(node);
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let number = run.next.fetch_add(1, Ordering::Relaxed) + 1;
        let register =
            if random(2) == 0 { format!("hot:{}", random(HOT)) } else { format!("cold:{}", random(COLD)) };
        let (key, verb) = match random(20) {
            0..5 => (register, Verb::Set(number)),
            5..12 => (register, Verb::Get),
            12 => (register, Verb::Del),
            13..16 => (format!("counter:{}", random(COUNTERS)), Verb::Incr),
            // Elements of a set: each a key of its own.
            16..18 => (format!("element:{number}"), Verb::Set(number)),
            // Clients of all nodes try for the same lock at about one time.
            _ => (format!("lock:{}", number / 40), Verb::Lock(number)),
        };
        let op = run.perform(open, node, key, verb);
        let is_broken = op.result == End::Unknown;
        run.ops.lock().unwrap().push(op);
        if is_broken {
            connection = None;
        }
        thread::sleep(PAUSE);
    }
}

/// Notes from when to when nodes were not all linked, by whatever cause: a process that other processes keep from the
/// processor for the dead time is cut off too.
fn watch_links(run: &Run, nodes: usize) -> Vec<(Duration, Duration)> {
    let mut windows: Vec<(Duration, Duration)> = Vec::new();
    let mut clients: Vec<Option<Client>> = (0..nodes).map(|_| None).collect();
    let mut before = vec![None; nodes];
    let mut looked_at = run.now();
    while !run.is_over.load(Ordering::Relaxed) {
        let now: Vec<Option<String>> =
            clients.iter_mut().enumerate().map(|(at, client)| links_of(run, at, client)).collect();
        let end = run.now();
        let all = format!("peers_linked:{}", nodes - 1);
        let is_whole = now.iter().flatten().filter(|links| links.contains(&all)).count() == nodes;
        if !is_whole || now != before {
            windows.push((looked_at.saturating_sub(DEAD_TIME), end));
        }
        (before, looked_at) = (now, end);
        thread::sleep(LOOK_EVERY);
    }
    // The first look has nothing before it.
    windows.split_off(1.min(windows.len()))
}

/// Returns the fields of a node's STATS about its links, and about peers that did not answer it in time and are skipped
/// by lookups; `None` if it does not answer.
fn links_of(run: &Run, node: usize, client: &mut Option<Client>) -> Option<String> {
    if client.is_none() {
        *client = run.net.try_client(node);
    }
    let open = client.as_mut()?;
    let line = open
        .try_send("STATS peers_linked,links_made,lookup_timeouts\n")
        .ok()
        .and_then(|()| open.try_line().ok());
    if line.is_none() {
        *client = None;
    }
    line
}

/// The preloaded library that moves clocks; `None` without a compiler.
fn clock_library() -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/history/clock.c");
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("clock-{}.so", std::process::id()));
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source).arg("-ldl");
    match cc.status() {
        Ok(status) => assert!(status.success(), "cc could not build the library that moves clocks"),
        Err(error) => {
            eprintln!("SKIPPED: no clock is moved, since there is no cc: {error}");
            return None;
        }
    }
    Some(library)
}

/// The wall clock of one node.
struct Clock {
    file: File,
    path: PathBuf,
}

impl Clock {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.clock", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        let clock = Self { file, path };
        clock.moved(0);
        clock
    }

    fn moved(&self, ms: i64) {
        self.file.write_all_at(&ms.to_ne_bytes(), 0).unwrap();
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Runs clients on `count` nodes for a while under faults, and fails on what must not happen.
fn history(name: &str, count: u8, faults: &[Fault], default_seconds: u64) {
    let library = if faults.contains(&Fault::Clock) { clock_library() } else { None };
    if faults.contains(&Fault::Clock) && library.is_none() {
        return;
    }
    let Some(net) = Net::new(name, count) else { return };
    let clocks: Vec<Clock> = (0..count).map(|at| Clock::new(&format!("{name}-{at}"))).collect();
    let launch = |net: &Net, at: usize| {
        let launch = net.launch(name, at, HEARTBEAT_MS);
        match &library {
            Some(library) => launch.env("LD_PRELOAD", library).env("OLIVIA_TEST_CLOCK", &clocks[at].path),
            None => launch,
        }
    };
    let nodes = usize::from(count);
    let mut servers: Vec<Server> = (0..nodes).map(|at| Launch::start(launch(&net, at))).collect();
    let run = Arc::new(Run {
        net,
        begin: Instant::now(),
        is_over: AtomicBool::new(false),
        next: AtomicU64::new(0),
        ops: Mutex::new(Vec::new()),
    });
    let all_linked = |run: &Run| (0..nodes).for_each(|at| wait_for_peers(&mut run.net.client(at), nodes - 1));
    all_linked(&run);
    let clients: Vec<_> = (0..nodes * CLIENTS)
        .map(|at| {
            let run = Arc::clone(&run);
            thread::spawn(move || client(&run, at % nodes, at as u64 + 1))
        })
        .collect();

    let watch = {
        let run = Arc::clone(&run);
        thread::spawn(move || watch_links(&run, nodes))
    };
    let seconds = std::env::var("OLIVIA_HISTORY_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds = Duration::from_secs(seconds.unwrap_or(default_seconds));
    let mut happened = Faults::default();
    if faults.contains(&Fault::Clock) {
        happened.skew = Duration::from_millis(2 * CLOCK_MS.unsigned_abs());
    }
    let mut round = 0;
    let is_short = |run: &Run| run.ops.lock().unwrap().len() < OPS_MIN && run.now() < seconds + WAIT_MAX;
    while run.now() < seconds || is_short(&run) {
        thread::sleep(Duration::from_secs(1));
        let Some(fault) = faults.get(round % faults.len().max(1)) else { continue };
        let node = (round / faults.len() + round) % nodes;
        let begin = run.now();
        match fault {
            Fault::Pause => {
                servers[node].signal("STOP");
                thread::sleep(Duration::from_secs(2));
                servers[node].signal("CONT");
            }
            Fault::Cut | Fault::Deaf => {
                let loss = if *fault == Fault::Cut { Loss::Both } else { Loss::ToIt };
                run.net.rule("add", node, loss);
                thread::sleep(Duration::from_secs(3));
                run.net.rule("delete", node, loss);
            }
            Fault::Kill => {
                servers[node].kill();
                happened.kills.push((node, run.now()));
                servers[node] = Launch::start(launch(&run.net, node));
            }
            Fault::Clock => {
                clocks[node].moved(CLOCK_MS);
                thread::sleep(Duration::from_secs(2));
                clocks[node].moved(0);
            }
        }
        thread::sleep(Duration::from_millis(500));
        all_linked(&run);
        happened.windows.push((begin, run.now()));
        round += 1;
    }
    run.is_over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    let lost = watch.join().unwrap();
    println!("{name}: {round} faults, and {} times nodes were found unlinked, or linked anew", lost.len());
    happened.windows.extend(lost);
    all_linked(&run);
    let ops = std::mem::take(&mut *run.ops.lock().unwrap());
    let finals = read_all(&run, nodes, &ops);
    report(name, &ops, &finals, &happened);
    drop(servers);
}

/// Reads every key through every node: again while nodes do not answer or differ, which only a lasting fault does for
/// long.
fn read_all(run: &Run, nodes: usize, ops: &[Op]) -> Vec<Op> {
    let keys: BTreeSet<&str> =
        ops.iter().map(|op| op.key.as_str()).filter(|key| !key.starts_with("lock")).collect();
    let connect = |node| run.connect(node).expect("a linked node takes connections");
    let mut connections: Vec<Connection> = (0..nodes).map(connect).collect();
    let mut reads = Vec::new();
    let mut repeats = WAIT_MAX.as_millis() / LOOK_EVERY.as_millis();
    for key in keys {
        loop {
            let read = |node: usize| run.perform(&mut connections[node], node, key.to_owned(), Verb::Get);
            let of_key: Vec<Op> = (0..nodes).map(read).collect();
            let is_answered = |op: &Op| matches!(op.result, End::Done | End::Value(_));
            let is_settled = of_key.iter().all(|op| is_answered(op) && op.result == of_key[0].result);
            if is_settled || repeats == 0 {
                reads.extend(of_key);
                break;
            }
            let broken = of_key.iter().filter(|op| op.result == End::Unknown);
            broken.for_each(|op| connections[op.node] = connect(op.node));
            thread::sleep(LOOK_EVERY);
            repeats -= 1;
        }
    }
    reads
}

fn report(name: &str, ops: &[Op], finals: &[Op], faults: &Faults) {
    let count = |wanted: fn(&Op) -> bool| ops.iter().filter(|op| wanted(op)).count();
    let unknown = count(|op| op.result == End::Unknown);
    let nothing = count(|op| op.result == End::Nothing && !matches!(op.verb, Verb::Lock(_)));
    println!("{name}: {} requests, {unknown} with unknown outcome, {nothing} not carried out", ops.len());
    let found = check(ops, finals, faults);
    for (anomaly, texts) in &found {
        println!("{name}: {anomaly:?}: {}\n  {}", texts.len(), texts[..texts.len().min(3)].join("\n  "));
    }
    if let Some(key) = found.values().flatten().find_map(|text| text.split('"').nth(1)) {
        println!("{name}: all requests for {key}:");
        ops.iter().chain(finals).filter(|op| op.key == key).for_each(|op| println!("  {op:?}"));
    }
    let wrong: Vec<&Anomaly> =
        found.keys().filter(|anomaly| **anomaly != Anomaly::TwoOwnersAcrossFault).collect();
    assert!(wrong.is_empty(), "{name}: {wrong:?}, not named by docs/consistency.md; see the output");
    assert!(ops.len() >= OPS_MIN, "{name}: only {} requests", ops.len());
}

#[test]
fn three_nodes_without_faults() {
    history("calm", 3, &[], 6);
}

#[test]
fn three_nodes_paused_and_cut_off() {
    history("cut", 3, &[Fault::Cut, Fault::Pause, Fault::Deaf], 20);
}

#[test]
fn five_nodes_killed() {
    history("kill", 5, &[Fault::Kill], 12);
}

#[test]
fn three_nodes_whose_clocks_jump() {
    history("skew", 3, &[Fault::Clock], 10);
}
