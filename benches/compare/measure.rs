//! The measurements by group.

use super::figures::{Figures, Machine, Settings, SystemOf, median, ratios};
use super::server::{Server, cpu_ns, status, waited_ns, waited_ns_of_thread};
use super::settings::Options;
use super::systems::{Found, KEY_BYTES, System, VALUE_BYTES};
use olivia::client::bench::{End, Moment, Pick, Plan, Protocol, RunResult, Sizes, ZIPF_USUAL, run};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The rows of throughput: name, percentage of GETs, pipeline, and the choice of keys.
pub(crate) const RATES: [(&str, u64, usize, Pick); 7] = [
    ("GET 1", 100, 1, Pick::Uniform),
    ("GET 16", 100, 16, Pick::Uniform),
    ("GET 64", 100, 64, Pick::Uniform),
    ("SET 1", 0, 1, Pick::Uniform),
    ("SET 16", 0, 16, Pick::Uniform),
    ("SET 64", 0, 64, Pick::Uniform),
    ("90 % GET 16, Zipf", 90, 16, Pick::Zipf(ZIPF_USUAL)),
];

/// The rows of variants of Olivia.
const VARIANT_ROWS: [&str; 2] = ["GET 16", "SET 16"];

/// Variants of Olivia among the systems, by name.
pub(crate) const LINES: &str = "olivia, lines";
/// This build and another one.
const BUILDS: [&str; 2] = ["olivia", "other build"];
pub(crate) const PEERS: &str = "olivia, two idle peers";
pub(crate) const FULL: &str = "olivia, memory_max reached";
pub(crate) const REMOTE: &str = "olivia, key on another node";

/// A limit below the memory that the keys need.
const FULL_MEMORY_MAX: &str = "64MiB";

/// Share of its throughput at which the latency of a server is measured.
const LOAD: f64 = 0.7;

/// Latencies are measured in so many times the rounds, each shorter by this factor: what stops a server for milliseconds
/// then spoils few of them.
const SHORTER: u32 = 6;

/// Such a round is measured again if server and generator waited for more than this part of it, so many times in all.
const WAITED_PART: u32 = 100;
const TRIES: u32 = 3;

/// The rows of large values: name, bytes, keys and connections.
pub(crate) const VALUES: [(&str, usize, u64, usize); 4] = [
    ("1 KiB", 1 << 10, 100_000, 50),
    ("16 KiB", 16 << 10, 10_000, 50),
    ("256 KiB", 256 << 10, 1_000, 8),
    ("8 MiB", 8 << 20, 32, 4),
];

/// Numbers of active connections.
pub(crate) const ACTIVE: [(&str, usize); 2] =
    [("GET 1, 1,000 connections", 1_000), ("GET 1, 10,000 connections", 10_000)];

/// Idle connections, and the time after which their buffers should be gone.
const IDLE_CONNECTIONS: usize = 10_000;
const SETTLED: Duration = Duration::from_secs(4);

/// Starts per round; their median counts.
const STARTS: u32 = 3;

/// The tests of redis-benchmark.
const TOOL_TESTS: &str = "get,set,incr,mset";
/// Pipelines, and requests of each run: half a second.
const TOOL_RUNS: [(&str, &str); 2] = [("1", "50000"), ("16", "200000")];

/// The arrangements of the group `mesh`, in place of systems.
pub(crate) const MESH: [&str; 3] = ["one node", "two nodes, keys of the own node", "two nodes, any key"];

/// The rows of the group `mesh`: name, mix, pipeline.
pub(crate) const MESH_ROWS: [(&str, &str, &str); 3] = [
    ("two cores, GET 1", "get", "1"),
    ("two cores, GET 16", "get", "16"),
    ("two cores, 90 % GET 16", "90/10", "16"),
];

/// Sizes of the meshes in which the cost of publishing a new key is measured, and new keys per second on the one node
/// that is written to.
pub(crate) const NODES: [usize; 5] = [1, 2, 8, 32, 64];
pub(crate) const NEW_KEYS: [u32; 2] = [1_000, 10_000];

/// Time in which the CPU time of heartbeats is counted, which does not depend on keys: two heartbeats.
const HEARTBEATS: Duration = Duration::from_secs(2);

/// One server under measurement, after its keys were set.
struct Candidate {
    name: String,
    found: Found,
    server: Server,
    plan: Plan,
    /// Its peers.
    _peers: Vec<Server>,
}

/// A group of figures.
type Group = fn(&mut Session<'_>) -> Result<(), String>;

/// The state that the measurements share.
struct Session<'o> {
    options: &'o Options,
    found: Vec<Found>,
    figures: Figures,
}

/// Measures the selected groups.
pub(crate) fn all(options: &Options) -> Result<Figures, String> {
    let machine = Machine::here();
    if machine.load_before > 0.5 {
        println!("the machine is busy (load {}): figures will not repeat", machine.load_before);
    }
    let (server_core, generator_core) = if options.is_quick { (None, None) } else { pin()? };
    rlimit::increase_nofile_limit(1 << 16).map_err(|error| format!("open files: {error}"))?;
    let found = options.find();
    let systems = found.iter().map(|found| SystemOf {
        name: found.system.name().to_owned(),
        version: found.version.clone(),
        command: found.command(),
    });
    let settings = Settings { rounds: options.rounds, seconds: options.seconds, server_core, generator_core };
    let figures = Figures { machine, settings, systems: systems.collect(), rows: Vec::new() };
    let mut session = Session { options, found, figures };
    let begin = Instant::now();
    let groups: [(&str, Group); 7] = [
        ("rate", rates_and_latency),
        ("connections", connections),
        ("values", values),
        ("idle", idle),
        ("tools", tools),
        ("mesh", mesh),
        ("builds", builds),
    ];
    for (name, group) in groups {
        if options.wants(name) || (name == "rate" && options.wants("latency")) {
            println!("{name}, after {:.0} s", begin.elapsed().as_secs_f64());
            group(&mut session)?;
        }
    }
    println!("done after {:.0} s", begin.elapsed().as_secs_f64());
    Ok(session.figures)
}

/// Binds this process to the last core that it may use. Returns the first core, for servers, and its own; with one core
/// both are the same.
fn pin() -> Result<(Option<u32>, Option<u32>), String> {
    let failed = |error| format!("cores: {error}");
    let allowed = sched_getaffinity(None).map_err(failed)?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    match cores[..] {
        [first, .., last] => {
            let mut own = CpuSet::new();
            own.set(last);
            sched_setaffinity(None, &own).map_err(failed)?;
            Ok((u32::try_from(first).ok(), u32::try_from(last).ok()))
        }
        _ => Ok((None, None)),
    }
}

/// The outcome of a run.
struct Measured {
    outcome: RunResult,
    /// CPU time of the server per request.
    server_ns: f64,
    /// The time for which server and generator were runnable and had no processor.
    waited: Duration,
}

/// Runs a plan; a wrong reply is an error.
fn measure(plan: &Plan, pid: u32) -> Result<Measured, String> {
    let waited = || Ok::<_, String>(waited_ns(pid)? + waited_ns_of_thread()?);
    let (mut cpu, mut waits) = ([0, 0], [0, 0]);
    let outcome = run(plan, &mut |moment| {
        match moment {
            Moment::Begin => (cpu[0], waits[0]) = (cpu_ns(pid)?, waited()?),
            Moment::End => (cpu[1], waits[1]) = (cpu_ns(pid)?, waited()?),
            Moment::Progress(_) => {}
        }
        Ok(())
    })?;
    match &outcome.first_wrong {
        Some(first) => Err(format!("{} wrong replies; the first is {first}", outcome.wrong)),
        None if outcome.times.count() == 0 => Err("no replies".to_owned()),
        None => {
            let server_ns = (cpu[1] - cpu[0]) as f64 / outcome.times.count() as f64;
            Ok(Measured { outcome, server_ns, waited: Duration::from_nanos(waits[1] - waits[0]) })
        }
    }
}

/// Measures latencies: again, a few times at most, if other programs had the processors meanwhile.
fn undisturbed(plan: &Plan, pid: u32) -> Result<Measured, String> {
    let mut measured = measure(plan, pid)?;
    for _ in 1..TRIES {
        if measured.waited < measured.outcome.took / WAITED_PART {
            break;
        }
        measured = measure(plan, pid)?;
    }
    Ok(measured)
}

fn fill(plan: &Plan) -> Result<(), String> {
    let outcome = run(&plan.fill(), &mut |_| Ok(()))?;
    outcome.first_wrong.map_or(Ok(()), |first| Err(format!("a wrong reply while filling: {first}")))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Returns the figures of a run that are stored.
fn kept(Measured { outcome, server_ns, waited }: &Measured) -> Vec<(&'static str, f64)> {
    vec![
        ("requests_per_second", outcome.per_second()),
        ("server_ns", *server_ns),
        ("p50_us", micros(outcome.quantile(0.5))),
        ("p99_us", micros(outcome.quantile(0.99))),
        ("p999_us", micros(outcome.quantile(0.999))),
        ("max_us", micros(outcome.longest)),
        ("generator_busy", outcome.busy),
        ("waited_us", micros(*waited)),
    ]
}

impl Session<'_> {
    fn core(&self) -> Option<u32> {
        self.figures.settings.server_core
    }

    /// Adds figures, and prints them.
    fn add(&mut self, round: u32, row: &str, system: &str, figures: &[(&str, f64)]) {
        let text: Vec<String> = figures.iter().map(|(name, value)| format!("{name} {value:.1}")).collect();
        println!("{round}  {row:<26} {system:<28} {}", text.join("  "));
        self.figures.add(row, system, figures);
    }

    /// Starts a server and sets all keys.
    fn candidate(&mut self, found: &Found) -> Result<Candidate, String> {
        let server = found.start(self.core())?;
        let before = status(server.pid(), "VmRSS")?;
        let plan = self.options.plan(found, server.addr());
        fill(&plan)?;
        if found.system != System::Echo {
            let bytes = (status(server.pid(), "VmRSS")?.saturating_sub(before) * 1_024) as f64;
            let over = bytes / self.options.keys as f64 - (KEY_BYTES + VALUE_BYTES) as f64;
            self.add(1, "memory", found.system.name(), &[("bytes_per_item", over)]);
        }
        let name = found.system.name().to_owned();
        Ok(Candidate { name, found: found.clone(), server, plan, _peers: Vec::new() })
    }

    /// Starts Olivia by lines, with two idle peers, and full.
    fn variants(&self) -> Result<Vec<Candidate>, String> {
        let (core, generator_core) = (self.core(), self.figures.settings.generator_core);
        let Some(found) = self.found.iter().find(|found| found.system == System::Olivia) else {
            return Ok(Vec::new());
        };
        let variant = |name: &str, server: Server, peers, change: fn(Plan) -> Plan| {
            let plan = change(self.options.plan(found, server.addr()));
            fill(&plan)?;
            Ok::<_, String>(Candidate {
                name: name.to_owned(),
                found: found.clone(),
                server,
                plan,
                _peers: peers,
            })
        };
        let lines = found.start(core)?;
        let meshed = found.start(core)?;
        let base = meshed.addr().to_string();
        let peer = || found.start_with(generator_core, &["--peer", &base], &[]);
        let peers = vec![peer()?, peer()?];
        linked(meshed.addr(), 2)?;
        let full = found.start_with(core, &[], &[("OLIVIA_LIMITS_MEMORY_MAX", FULL_MEMORY_MAX)])?;
        Ok(vec![
            variant(LINES, lines, Vec::new(), |plan| Plan { protocol: Protocol::Lines, ..plan })?,
            variant(PEERS, meshed, peers, |plan| plan)?,
            variant(FULL, full, Vec::new(), |plan| Plan { is_filled: false, ..plan })?,
        ])
    }
}

/// Returns the plan of a short round, of one connection that waits for each reply if it is `alone`.
fn short(options: &Options, plan: &Plan, alone: bool) -> Plan {
    let time = Duration::from_secs_f64((options.seconds / f64::from(SHORTER)).max(0.02));
    let connections = if alone { 1 } else { plan.connections };
    Plan { connections, spin: alone, warm_up: time / 4, end: End::After(time), ..plan.clone() }
}

/// Waits until a node is linked to `peers` peers.
fn linked(addr: SocketAddr, peers: usize) -> Result<(), String> {
    let begin = Instant::now();
    let expected = format!("peers_linked:{peers}");
    while !line(addr, b"STATS peers_linked\n")?.contains(&expected) {
        if begin.elapsed() > Duration::from_secs(10) {
            return Err(format!("{addr} has not linked with {peers} peers"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Sends a request line and returns the reply line.
fn line(addr: SocketAddr, request: &[u8]) -> Result<String, String> {
    let exchange = || {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(request)?;
        let mut reply = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
            reply.push(byte[0]);
        }
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&reply).into_owned())
    };
    exchange().map_err(|error| format!("{addr}: {error}"))
}

/// Measures the throughput of all candidates, then latency in the open loop at shares of it, then one connection alone.
fn rates_and_latency(session: &mut Session<'_>) -> Result<(), String> {
    let mut candidates = Vec::new();
    for found in session.found.clone() {
        candidates.push(session.candidate(&found)?);
    }
    let systems = candidates.len();
    if session.options.wants("rate") {
        candidates.extend(session.variants()?);
    }
    for round in 1..=session.options.rounds {
        for (row, get_percent, pipeline, pick) in RATES {
            // Latency needs the throughput at pipeline 1.
            if !session.options.wants("rate") && row != "GET 1" {
                continue;
            }
            for (at, candidate) in candidates.iter().enumerate() {
                if at < systems || VARIANT_ROWS.contains(&row) {
                    let plan = Plan { get_percent, pipeline, pick, ..candidate.plan.clone() };
                    let measured = measure(&plan, candidate.server.pid())?;
                    session.add(round, row, &candidate.name, &kept(&measured));
                }
            }
        }
    }
    candidates.truncate(systems);
    if session.options.wants("latency") {
        latency(session, &candidates)?;
        ping_pong(session, &candidates)?;
    }
    Ok(())
}

/// Measures the CPU time per request by lines beside another build, by turns, and prints the ratios.
fn builds(session: &mut Session<'_>) -> Result<(), String> {
    let own = session.found.iter().find(|found| found.system == System::Olivia).cloned();
    let (Some(own), Some(program)) = (own, session.options.beside.clone()) else { return Ok(()) };
    let mut candidates = Vec::new();
    for (name, program) in [(BUILDS[0], own.program.clone()), (BUILDS[1], program)] {
        let found = Found { program, ..own.clone() };
        let server = found.start(session.core())?;
        let plan = Plan { protocol: Protocol::Lines, ..session.options.plan(&found, server.addr()) };
        fill(&plan)?;
        candidates.push(Candidate { name: name.to_owned(), found, server, plan, _peers: Vec::new() });
    }
    for (row, get_percent, pipeline, pick) in RATES {
        let row = format!("lines, {row}");
        for round in 1..=session.options.rounds {
            for candidate in &candidates {
                let plan = Plan { get_percent, pipeline, pick, ..candidate.plan.clone() };
                let measured = measure(&plan, candidate.server.pid())?;
                session.add(round, &row, &candidate.name, &kept(&measured));
            }
        }
        let of = |name| session.figures.rounds(&row, name, "server_ns");
        if let Some([low, median, high]) = ratios(of(BUILDS[0]), of(BUILDS[1])) {
            println!("{row}: CPU time per request {median:.3} of the other build ({low:.3} to {high:.3})");
        }
    }
    Ok(())
}

/// Measures latency at a share of each server's own throughput, and of that of the slowest.
fn latency(session: &mut Session<'_>, candidates: &[Candidate]) -> Result<(), String> {
    let own: Vec<f64> = candidates
        .iter()
        .map(|one| session.figures.median("GET 1", &one.name, "requests_per_second").unwrap_or(0.0))
        .collect();
    let slowest = own.iter().copied().fold(f64::MAX, f64::min);
    for round in 1..=session.options.rounds * SHORTER {
        for (candidate, own) in candidates.iter().zip(&own) {
            for (row, rate) in [("open loop, own rate", own * LOAD), ("open loop, same rate", slowest * LOAD)]
            {
                let plan = Plan { rate: Some(rate), ..short(session.options, &candidate.plan, false) };
                let measured = undisturbed(&plan, candidate.server.pid())?;
                let mut figures = kept(&measured);
                figures.push(("late_p99_us", micros(measured.outcome.late.quantile(0.99))));
                figures.push(("rate", rate));
                session.add(round, row, &candidate.name, &figures);
            }
        }
    }
    Ok(())
}

/// Measures one connection with one request at a time and a generator that does not sleep; Olivia also with the key on
/// another node.
fn ping_pong(session: &mut Session<'_>, candidates: &[Candidate]) -> Result<(), String> {
    let mut remote = None;
    for candidate in candidates.iter().filter(|one| one.found.system == System::Olivia) {
        let base = candidate.server.addr().to_string();
        let node = candidate.found.start_with(session.core(), &["--peer", &base], &[])?;
        linked(node.addr(), 1)?;
        remote = Some((node.addr(), node));
    }
    for round in 1..=session.options.rounds * SHORTER {
        for candidate in candidates {
            let plan = short(session.options, &candidate.plan, true);
            let measured = undisturbed(&plan, candidate.server.pid())?;
            session.add(round, "ping-pong", &candidate.name, &kept(&measured));
            if let Some((addr, node)) = remote.as_ref().filter(|_| candidate.found.system == System::Olivia) {
                let measured = undisturbed(&Plan { addrs: vec![*addr], ..plan }, node.pid())?;
                session.add(round, "ping-pong", REMOTE, &kept(&measured));
            }
        }
    }
    Ok(())
}

/// Measures many active connections, the memory of idle ones, and the latency of one connection beside these.
fn connections(session: &mut Session<'_>) -> Result<(), String> {
    let most = if session.options.is_quick { 20 } else { usize::MAX };
    let mut candidates = Vec::new();
    for found in session.found.clone() {
        let server = found.start(session.core())?;
        let plan = session.options.plan(&found, server.addr());
        fill(&plan)?;
        let name = found.system.name().to_owned();
        candidates.push(Candidate { name, found, server, plan, _peers: Vec::new() });
    }
    for candidate in &candidates {
        idle_connections(session, candidate, IDLE_CONNECTIONS.min(most))?;
    }
    for round in 1..=session.options.rounds {
        for (row, count) in ACTIVE {
            for candidate in &candidates {
                let plan = Plan { connections: count.min(most), ..candidate.plan.clone() };
                let measured = measure(&plan, candidate.server.pid())?;
                session.add(round, row, &candidate.name, &kept(&measured));
            }
        }
    }
    Ok(())
}

fn idle_connections(session: &mut Session<'_>, candidate: &Candidate, count: usize) -> Result<(), String> {
    let ping_pong = short(session.options, &candidate.plan, true);
    let pid = candidate.server.pid();
    let failed = |error: std::io::Error| format!("{}, connection: {error}", candidate.name);
    let before = status(pid, "VmRSS")?;
    let each = |kib: u64| kib.saturating_sub(before) as f64 * 1_024.0 / count as f64;
    let mut made = Vec::with_capacity(count);
    for _ in 0..count {
        made.push(TcpStream::connect(candidate.server.addr()).map_err(failed)?);
    }
    // After one round trip all have been accepted.
    let one = Plan { end: End::Requests(1), warm_up: Duration::ZERO, ..ping_pong.clone() };
    measure(&one, pid)?;
    let silent = each(status(pid, "VmRSS")?);
    let get: &[u8] = match candidate.plan.protocol {
        Protocol::Resp => b"*2\r\n$3\r\nGET\r\n$16\r\n0000000000000042\r\n",
        Protocol::Memcached => b"get 0000000000000042\r\n",
        Protocol::Lines => b"GET 0000000000000042\n",
    };
    let mut reply = [0; 256];
    for stream in &mut made {
        stream.write_all(get).and_then(|()| stream.read(&mut reply)).map_err(failed)?;
    }
    std::thread::sleep(if session.options.is_quick { Duration::ZERO } else { SETTLED });
    let settled = each(status(pid, "VmRSS")?);
    let row = "10,000 idle connections";
    session.add(1, row, &candidate.name, &[("silent_bytes", silent), ("after_get_bytes", settled)]);
    // Another of its kind without these connections.
    let other = candidate.found.start(session.core())?;
    let alone = Plan { addrs: vec![other.addr()], ..ping_pong.clone() };
    fill(&alone)?;
    for round in 1..=session.options.rounds * SHORTER {
        let p99 = |plan, server: &Server| {
            Ok::<_, String>(micros(undisturbed(plan, server.pid())?.outcome.quantile(0.99)))
        };
        let figures =
            [("beside_p99_us", p99(&ping_pong, &candidate.server)?), ("alone_p99_us", p99(&alone, &other)?)];
        session.add(round, row, &candidate.name, &figures);
    }
    Ok(())
}

/// Measures large values in bytes per second.
fn values(session: &mut Session<'_>) -> Result<(), String> {
    let mut candidates = Vec::new();
    for found in session.found.clone().iter().filter(|found| found.system != System::Echo) {
        candidates.push((found.clone(), found.start(session.core())?));
    }
    for (size, bytes, keys, connections) in VALUES {
        let plans: Vec<Plan> = candidates
            .iter()
            .map(|(found, server)| Plan {
                sizes: Sizes::Fixed(bytes),
                keys: if session.options.is_quick { 4 } else { keys },
                connections,
                ..session.options.plan(found, server.addr())
            })
            .collect();
        plans.iter().try_for_each(fill)?;
        for round in 1..=session.options.rounds {
            for (verb, get_percent) in [("GET", 100), ("SET", 0)] {
                for ((found, server), plan) in candidates.iter().zip(&plans) {
                    let plan = Plan { get_percent, ..plan.clone() };
                    let measured = measure(&plan, server.pid())?;
                    let mut figures = kept(&measured);
                    let rate = measured.outcome.value_bytes as f64 / measured.outcome.took.as_secs_f64();
                    figures.push(("bytes_per_second", rate));
                    session.add(round, &format!("{verb}, {size}"), found.system.name(), &figures);
                }
            }
        }
    }
    Ok(())
}

/// Measures an idle server: CPU time, resident memory and start.
fn idle(session: &mut Session<'_>) -> Result<(), String> {
    let all = session.found.clone();
    for round in 1..=session.options.rounds {
        for found in &all {
            let plan = session.options.plan(found, SocketAddr::from(([127, 0, 0, 1], 0)));
            let mut starts = Vec::new();
            for _ in 0..STARTS {
                let begin = Instant::now();
                let server = found.start(session.core())?;
                let one = Plan {
                    addrs: vec![server.addr()],
                    connections: 1,
                    end: End::Requests(1),
                    warm_up: Duration::ZERO,
                    spin: true,
                    is_filled: false,
                    ..plan.clone()
                };
                measure(&one, server.pid())?;
                starts.push(begin.elapsed().as_secs_f64() * 1e3);
            }
            session.add(round, "start", found.system.name(), &[("start_ms", median(&starts).unwrap_or(0.0))]);
        }
    }
    let servers: Vec<Server> =
        all.iter().map(|found| found.start(session.core())).collect::<Result<_, _>>()?;
    let time = Duration::from_secs_f64(session.options.seconds.min(1.0) * 10.0);
    std::thread::sleep(time / 10);
    let before: Vec<u64> = servers.iter().map(|server| cpu_ns(server.pid())).collect::<Result<_, _>>()?;
    std::thread::sleep(time);
    for ((found, server), before) in all.iter().zip(&servers).zip(before) {
        let used = (cpu_ns(server.pid())? - before) as f64 / 1e6 * 10.0 / time.as_secs_f64();
        let resident = status(server.pid(), "VmRSS")? as f64 / 1_024.0;
        session.add(1, "idle", found.system.name(), &[("cpu_ms_per_10_s", used), ("resident_mib", resident)]);
    }
    Ok(())
}

/// Runs redis-benchmark if it is installed.
fn tools(session: &mut Session<'_>) -> Result<(), String> {
    let all = session.found.clone();
    let speaks_resp =
        |found: &&Found| found.system.protocol() == Protocol::Resp && found.system != System::Echo;
    let mut servers = Vec::new();
    for found in all.iter().filter(speaks_resp) {
        servers.push((found, found.start(session.core())?));
    }
    for round in 1..=session.options.rounds {
        for (pipeline, requests) in TOOL_RUNS {
            for (found, server) in &servers {
                let requests = if session.options.is_quick { "100" } else { requests };
                let port = server.addr().port().to_string();
                let output = Command::new("redis-benchmark")
                    .args(["-p", &port, "-t", TOOL_TESTS, "-n", requests, "-P", pipeline, "-c", "50"])
                    .args(["-r", "1000000", "-d", "64", "--csv"])
                    .output();
                let Ok(output) = output else {
                    println!("redis-benchmark is not installed: apt-get install redis-tools");
                    return Ok(());
                };
                for line in String::from_utf8_lossy(&output.stdout).lines() {
                    let cells: Vec<&str> = line.split(',').map(|cell| cell.trim_matches('"')).collect();
                    if let [test, rate, ..] = cells[..]
                        && let Ok(rate) = rate.parse()
                    {
                        let verb = test.split(' ').next().unwrap_or(test);
                        let row = format!("redis-benchmark {verb} {pipeline}");
                        session.add(round, &row, found.system.name(), &[("requests_per_second", rate)]);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Measures two nodes on two cores and one on one core, each with a generator on the same core: the gain of a node per
/// core. Clients read the keys of the node that they are connected to, or any key from any node.
fn mesh(session: &mut Session<'_>) -> Result<(), String> {
    let Settings { server_core: Some(first), generator_core: Some(second), .. } = session.figures.settings
    else {
        println!("one core: nothing to spread over");
        return Ok(());
    };
    let Some(found) = session.found.iter().find(|found| found.system == System::Olivia).cloned() else {
        return Ok(());
    };
    let keys = session.options.keys / 2;
    let alone = found.start(Some(first))?;
    let base = found.start(Some(first))?;
    let other = found.start_with(Some(second), &["--peer", &base.addr().to_string()], &[])?;
    linked(base.addr(), 1)?;
    linked(other.addr(), 1)?;
    for (server, first_key) in [(&alone, 0), (&base, 0), (&other, keys)] {
        fill(&Plan { keys, first_key, ..session.options.plan(&found, server.addr()) })?;
    }
    // Time to publish the last keys.
    std::thread::sleep(Duration::from_millis(500));
    // Per node its core, and the first key and the number of keys that its clients read.
    let one = vec![(&alone, first, 0, keys)];
    let own = vec![(&base, first, 0, keys), (&other, second, keys, keys)];
    let any = vec![(&base, first, 0, 2 * keys), (&other, second, 0, 2 * keys)];
    for round in 1..=session.options.rounds {
        for (row, mix, pipeline) in MESH_ROWS {
            for (name, pairs) in MESH.iter().zip([&one, &own, &any]) {
                let figures = spread_load(session.options, pairs, mix, pipeline)?;
                session.add(round, row, name, &figures);
            }
        }
    }
    drop((alone, base, other));
    publishing(session, &found)
}

/// Measures the CPU time of a new key on the node on which it is set, and on each other node.
fn publishing(session: &mut Session<'_>, found: &Found) -> Result<(), String> {
    let sizes = if session.options.is_quick { &NODES[..2] } else { &NODES };
    for &count in sizes {
        let writer = found.start(session.core())?;
        let base = writer.addr().to_string();
        let mut others = Vec::new();
        for _ in 1..count {
            others.push(found.start_with(session.core(), &["--peer", &base], &[])?);
        }
        for node in [&writer].into_iter().chain(&others) {
            linked(node.addr(), count - 1)?;
        }
        let used = || others.iter().map(|node| cpu_ns(node.pid())).sum::<Result<u64, String>>();
        let peers = (count - 1).max(1) as f64;
        let time = Duration::from_secs_f64(session.options.seconds.max(0.05));
        let before = (cpu_ns(writer.pid())?, used()?);
        let quiet = if session.options.is_quick { time } else { HEARTBEATS };
        std::thread::sleep(quiet);
        let idle = (cpu_ns(writer.pid())? - before.0, used()? - before.1);
        let share = (idle.0 + idle.1) as f64 / count as f64 / quiet.as_nanos() as f64;
        session.add(1, "idle node of a mesh", &nodes(count), &[("percent_of_core", 100.0 * share)]);
        for rate in NEW_KEYS {
            // So many numbers that drawing a key twice is unlikely.
            let plan = Plan {
                rate: Some(f64::from(rate)),
                get_percent: 0,
                keys: 1_000_000_000_000,
                end: End::After(time),
                ..session.options.plan(found, writer.addr())
            };
            let mut cpu = [0; 4];
            let outcome = run(&plan, &mut |moment| {
                match moment {
                    Moment::Begin => (cpu[0], cpu[1]) = (cpu_ns(writer.pid())?, used()?),
                    Moment::End => (cpu[2], cpu[3]) = (cpu_ns(writer.pid())?, used()?),
                    Moment::Progress(_) => {}
                }
                Ok(())
            })?;
            let keys = outcome.times.count().max(1) as f64;
            let of_keys = |used: u64, idle: u64| {
                let idle = idle as f64 * outcome.took.as_secs_f64() / quiet.as_secs_f64();
                (used as f64 - idle).max(0.0) / keys
            };
            let figures = [
                ("writer_ns", of_keys(cpu[2] - cpu[0], idle.0)),
                ("peer_ns", of_keys(cpu[3] - cpu[1], idle.1) / peers),
            ];
            session.add(1, &format!("{rate} new keys per second"), &nodes(count), &figures);
        }
    }
    Ok(())
}

/// Returns the row name of a mesh of `count` nodes.
pub(crate) fn nodes(count: usize) -> String {
    format!("{count} nodes")
}

/// Loads nodes at the same time, each with a generator on the node's core.
fn spread_load(
    options: &Options,
    pairs: &[(&Server, u32, u64, u64)],
    mix: &str,
    pipeline: &str,
) -> Result<Vec<(&'static str, f64)>, String> {
    let counters = || -> Result<[f64; 3], String> {
        let mut sums = [0.0; 3];
        for (server, ..) in pairs {
            sums[0] += stat(server.addr(), "requests")?;
            sums[1] += stat(server.addr(), "queries")?;
            sums[2] += cpu_ns(server.pid())? as f64;
        }
        Ok(sums)
    };
    let before = counters()?;
    let mut generators = Vec::new();
    for (server, core, first_key, keys) in pairs {
        let child = Command::new("taskset")
            .args([
                "-c",
                &core.to_string(),
                env!("CARGO_BIN_EXE_olivia"),
                "bench",
                &server.addr().to_string(),
            ])
            .args(["--json", "--mix", mix, "--pipeline", pipeline, "--connections", "50"])
            .args(["--keys", &keys.to_string(), "--first-key", &first_key.to_string()])
            .args(["--seconds", &options.seconds.to_string(), "--warm-up", "0.2"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        generators.push(child.map_err(|error| format!("taskset: {error}"))?);
    }
    let (mut rate, mut misses) = (0.0, 0.0);
    for generator in generators {
        let output = generator.wait_with_output().map_err(|error| format!("olivia bench: {error}"))?;
        let json: serde_json::Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("olivia bench, {}: {error}", output.status))?;
        rate += json["requests_per_second"].as_f64().unwrap_or(0.0);
        misses += json["misses"].as_f64().unwrap_or(0.0);
    }
    let after = counters()?;
    let requests = after[0] - before[0];
    Ok(vec![
        ("requests_per_second", rate),
        ("queries_per_request", (after[1] - before[1]) / requests),
        ("server_ns", (after[2] - before[2]) / requests),
        ("misses", misses),
    ])
}

/// Returns a figure of STATS.
fn stat(addr: SocketAddr, name: &str) -> Result<f64, String> {
    let reply = line(addr, format!("STATS {name}\n").as_bytes())?;
    let value = reply.trim_end().rsplit(':').next().and_then(|value| value.parse().ok());
    value.ok_or_else(|| format!("{addr}: '{reply}' as the reply to STATS {name}"))
}
