//! Instructions per request of a node without sockets: `cargo bench --bench instructions`. Needs valgrind.
//!
//! Each case runs in this program under `valgrind --tool=callgrind`, which counts in [`World::serve_counted`] only: the
//! requests that fill the node, and the first ones after, are not counted. The count does not depend on the machine's
//! load.
//!
//! Without arguments all cases are measured. `--check` (`make instructions`) also fails if a case takes more than its
//! bound. `--time` prints the CPU time per request instead, of 1 M keys in random order at pipeline 64, without
//! valgrind. `get|set|new lines|quoted|evicting|full|meshed|resp PIPELINE BATCHES` runs one case without valgrind, for
//! a profiler: `valgrind --tool=callgrind target/release/deps/instructions-… get lines 16 1100`. `new`: SET of an
//! absent key; `quoted`: lines, keys with a colon, so that the replies have quotes; `evicting`: with a memory limit, so
//! that uses are counted for eviction; `full`: at that limit, after three of four keys were evicted; `meshed`: with two
//! linked peers without keys.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]
#![allow(dead_code, reason = "the kit has more than this uses")]

#[path = "../tests/kit/mod.rs"]
mod kit;

use kit::driver::Driver;
use kit::peer::{self, Face};
use olivia::base::rng::Rng;
use olivia::base::time::Now;
use olivia::config::Config;
use olivia::node::{ConnKey, Node};
use olivia::wire::frame::Body;
use std::process::Command;
use std::time::Duration;

const KEYS: usize = 10_000;
const VALUE_BYTES: usize = 64;
/// Requests per batch that set keys: few, so that no long reply leaves the node more buffers than it has later.
const FILL_PIPELINE: usize = 100;
/// Keys, requests per batch and batches per round with `--time`; the result is the best of the rounds.
const TIMED_KEYS: usize = 1_000_000;
const TIMED_PIPELINE: usize = 64;
const TIMED_BATCHES: usize = 2_000;
const ROUNDS: usize = 7;

/// Batches that are not counted, and those that are.
const WARM_UP: usize = 100;
const COUNTED: usize = 1_000;

/// Request, protocol, pipeline, and the bound of instructions per request: the measured number and 3 %.
const CASES: [(&str, &str, usize, u64); 20] = [
    ("get", "lines", 1, 3_220),
    ("get", "lines", 16, 1_900),
    ("set", "lines", 1, 3_690),
    ("set", "lines", 16, 2_380),
    ("get", "quoted", 1, 3_290),
    ("get", "quoted", 16, 1_960),
    ("set", "quoted", 1, 3_910),
    ("set", "quoted", 16, 2_720),
    ("get", "evicting", 1, 3_440),
    ("get", "evicting", 16, 2_000),
    ("get", "full", 1, 3_420),
    ("get", "full", 16, 2_000),
    ("set", "evicting", 16, 2_420),
    ("set", "meshed", 16, 2_510),
    ("new", "lines", 16, 3_760),
    ("new", "meshed", 16, 4_020),
    ("get", "resp", 1, 2_750),
    ("get", "resp", 16, 1_130),
    ("set", "resp", 1, 2_900),
    ("set", "resp", 16, 1_290),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] if std::env::args().any(|arg| arg == "--bench") => _ = measure(),
        ["--check"] if Command::new("valgrind").arg("--version").output().is_err() => {
            println!("skipped: needs valgrind; on Debian: apt install valgrind");
        }
        ["--check"] => assert!(measure(), "more instructions than the bound; see `benches/instructions.rs`"),
        ["--time"] => time(),
        [name, protocol, pipeline, batches] => {
            let requests = run(name, protocol, pipeline.parse().unwrap(), batches.parse().unwrap());
            println!("{requests} requests");
        }
        // As a test: each case once.
        _ => CASES.iter().for_each(|(name, protocol, pipeline, _)| {
            run(name, protocol, *pipeline, 1);
        }),
    }
}

/// Measures and prints all cases. Returns whether none takes more than its bound.
fn measure() -> bool {
    println!("{:<24} {:>24} {:>8}", "request, pipeline", "instructions per request", "bound");
    CASES.iter().fold(true, |holds, &(name, protocol, pipeline, bound)| {
        let each = instructions(name, protocol, pipeline) / (COUNTED * pipeline) as u64;
        println!("{:<24} {each:>24} {bound:>8}", format!("{name} in {protocol}, {pipeline}"));
        holds && each <= bound
    })
}

/// Returns the instructions of the counted requests of a run.
fn instructions(name: &str, protocol: &str, pipeline: usize) -> u64 {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*serve_counted*"])
        .arg(std::env::current_exe().unwrap())
        .args([name, protocol, &pipeline.to_string(), &(WARM_UP + COUNTED).to_string()])
        .output()
        .expect("cannot run valgrind; on Debian: apt install valgrind");
    let log = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{name} {protocol} {pipeline}: {}: {log}", run.status);
    let count = log.lines().find_map(|line| line.split_once("Collected : "));
    count.unwrap_or_else(|| panic!("no count in {log}")).1.trim().parse().unwrap()
}

/// A node without sockets, its client, and its links.
struct World {
    node: Node,
    now: Now,
    client: ConnKey,
    links: Vec<ConnKey>,
}

/// Returns the number of keys to set: four times `keys` for a node at its limit, of which some of the last quarter are
/// read.
fn keys_set(protocol: &str, keys: usize) -> usize {
    if protocol == "full" { 4 * keys } else { keys }
}

/// Returns a node with `keys` keys with values of 64 bytes, the last ones that were set.
fn filled(protocol: &str, keys: usize) -> World {
    let mut config = Config::default();
    if matches!(protocol, "evicting" | "full") {
        config.limits.memory_max = 200 * keys as u64;
    }
    let mut mesh = peer::World::new(config);
    mesh.driver.watch = None;
    let peers = if protocol == "meshed" { 2 } else { 0 };
    let links = (1..=peers).map(|number| {
        let link = mesh.known(&Face::new(number));
        mesh.send(&link, &[(0, Body::Resync(None))]);
        mesh.driver.pass(kit::ms(20));
        mesh.driver.key(link.conn)
    });
    let links = links.collect();
    // They answer no heartbeats, so that clients would wait for them for some time.
    mesh.driver.pass(kit::ms(300));
    let client = mesh.driver.client();
    let client = mesh.driver.key(client);
    let Driver { node, now, .. } = mesh.into_driver();
    let mut world = World { node, now, client, links };
    let end = keys_set(protocol, keys);
    for first in (0..end).step_by(FILL_PIPELINE) {
        let fill: String =
            (first..end.min(first + FILL_PIPELINE)).map(|id| request("set", protocol, id)).collect();
        world.serve(&fill);
    }
    world
}

/// Sends batches of requests to a node with [`KEYS`] keys. Returns the number of requests.
fn run(name: &str, protocol: &str, pipeline: usize, batches: usize) -> usize {
    let mut world = filled(protocol, KEYS);
    let batch = |number: usize| -> String {
        let id = |at| match name {
            "new" => keys_set(protocol, KEYS) + number * pipeline + at,
            _ => keys_set(protocol, KEYS) - 1 - (number * pipeline * 7 + at * 13) % KEYS,
        };
        (0..pipeline).map(|at| request(name, protocol, id(at))).collect()
    };
    let different: Vec<String> =
        (0..if name == "new" { WARM_UP + COUNTED } else { 100 }).map(batch).collect();
    for (at, text) in different.iter().cycle().take(batches).enumerate() {
        let reply_bytes = if at < WARM_UP { world.serve(text) } else { world.serve_counted(text) };
        let least = if name == "get" { VALUE_BYTES } else { b"+OK\r\n".len() };
        assert!(reply_bytes >= pipeline * least, "{reply_bytes} bytes");
    }
    batches * pipeline
}

/// Prints the CPU time per request, of all kinds by turns, and the ratio of a GET at the memory limit to one below it.
fn time() {
    let kinds = ["get", "set"].iter().flat_map(|name| ["lines", "resp"].map(|protocol| (*name, protocol)));
    let mut worlds: Vec<_> = kinds
        .chain([("get", "evicting"), ("get", "full")])
        .map(|(name, protocol)| (name, protocol, filled(protocol, TIMED_KEYS), Duration::MAX))
        .collect();
    let mut rng = Rng::new(1);
    for _ in 0..ROUNDS {
        for (name, protocol, world, best) in &mut worlds {
            let end = keys_set(protocol, TIMED_KEYS) - 1;
            let mut draw = || end - usize::try_from(rng.below(TIMED_KEYS as u64)).unwrap();
            let mut batch =
                |_| -> String { (0..TIMED_PIPELINE).map(|_| request(name, protocol, draw())).collect() };
            let batches: Vec<String> = (0..TIMED_BATCHES).map(&mut batch).collect();
            let begin = cpu();
            batches.iter().for_each(|text| _ = world.serve(text));
            *best = (cpu() - begin).min(*best);
        }
    }
    for (name, protocol, _, best) in &worlds {
        let each = best.as_nanos() / (TIMED_BATCHES * TIMED_PIPELINE) as u128;
        println!("{:<24} {each:>4} ns of CPU per request", format!("{name} in {protocol}, {TIMED_PIPELINE}"));
    }
    let best_of = |wanted: &str| worlds.iter().find(|(_, protocol, ..)| *protocol == wanted).unwrap().3;
    for (what, base) in [("below it", "evicting"), ("without one", "lines")] {
        let ratio = best_of("full").as_secs_f64() / best_of(base).as_secs_f64();
        println!("a GET at the memory limit takes {ratio:.3} times the CPU time of one {what}");
    }
}

/// Returns the CPU time of this thread.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
}

impl World {
    /// [`World::serve`], counted by callgrind.
    #[inline(never)]
    fn serve_counted(&mut self, input: &str) -> usize {
        self.serve(input)
    }

    /// Makes the calls of the shell for some input of a client. Returns the bytes of the replies.
    fn serve(&mut self, input: &str) -> usize {
        let Self { node, now, client, links } = self;
        node.received(*now, *client, input.as_bytes());
        while node.has_work(*now) {
            node.tick(*now);
        }
        while node.next_action().is_some() {}
        for link in links {
            let bytes = node.outbound_bytes(*link);
            if bytes > 0 {
                node.wrote(*now, *link, bytes);
            }
        }
        let reply_bytes = node.outbound_bytes(*client);
        node.wrote(*now, *client, reply_bytes);
        reply_bytes
    }
}

fn request(name: &str, protocol: &str, id: usize) -> String {
    let colon = if protocol == "quoted" { ':' } else { '-' };
    let key = format!("key{colon}{id:012}");
    let value = "v".repeat(VALUE_BYTES);
    match (name, protocol) {
        ("get", "lines" | "quoted" | "evicting" | "full" | "meshed") => format!("GET {key}\n"),
        ("set" | "new", "lines" | "evicting" | "full" | "meshed") => format!("SET {key}:{value}\n"),
        ("set", "quoted") => format!("SET \"{key}\":{value}\n"),
        ("get", "resp") => format!("*2\r\n$3\r\nGET\r\n$16\r\n{key}\r\n"),
        ("set", "resp") => format!("*3\r\n$3\r\nSET\r\n$16\r\n{key}\r\n$64\r\n{value}\r\n"),
        _ => panic!("no request '{name}' in '{protocol}'"),
    }
}
