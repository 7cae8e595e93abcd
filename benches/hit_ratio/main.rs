//! Misses of the store with eviction, and of LRU, LFU and S3-FIFO simulated byte for byte at the same memory: `cargo
//! bench --bench hit_ratio -- [--trace=FILE] [--copies=N]`. A trace is a CSV of time, object number, bytes of key and
//! value. Without one, five traces are generated: Zipf, Zipf with scans, Zipf with objects that are used once, Zipf
//! with sizes of 20 bytes to 64 KiB, and, for real servers only, Zipf with TTLs. `--only=scans,once` selects some,
//! `--requests=N` sets their length (5 million), `--per-object=N` the requests per object (10), and `--bytes-max=N` the
//! largest size of the first three and the last (1,500 bytes). With `--server=KIND[:PROGRAM]`, once per server, the
//! trace is sent to real servers instead, see `servers`. `--copies=N`: the store gets N copies of the trace at once,
//! with keys of their own, and N times the memory, so that pages are small in comparison.
//!
//! The memory is a share of the memory that the store takes for all objects of the trace. A simulated item takes its
//! bytes and the store's average overhead per item when it holds all objects, without fragmentation or bookkeeping.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on ends")]

#[path = "../support/options.rs"]
mod options;
#[path = "../support/server.rs"]
mod server;
mod servers;

use olivia::base::rng::Rng;
use olivia::base::time::Instant;
use olivia::store::{Eviction, HashSecret, Store, Version};
use options::{Options, Takes};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::process::ExitCode;

const KEY_BYTES: usize = 8;

/// Object and bytes of each request.
type Trace = Vec<(u32, u32)>;

/// The parameters of generated traces.
struct Drawn {
    requests: u32,
    per_object: u32,
    bytes_max: u32,
}

const TAKES: Takes = Takes {
    flags: &[],
    values: &[
        "--trace",
        "--copies",
        "--requests",
        "--per-object",
        "--bytes-max",
        "--only",
        "--server",
        "--memory",
    ],
    words: &[],
};

fn main() -> ExitCode {
    options::run(TAKES, run)
}

fn run(options: &Options) -> Result<(), String> {
    let copies = options.number("--copies")?.unwrap_or(1);
    let mut drawn = Drawn {
        requests: options.number("--requests")?.unwrap_or(if options.quick { 20_000 } else { 5_000_000 }),
        per_object: options.number("--per-object")?.unwrap_or(10),
        bytes_max: options.number("--bytes-max")?.unwrap_or(1_500),
    };
    let servers: Vec<&str> = options.values_of("--server").collect();
    let percents = options.value("--memory").unwrap_or("1,10,50").split(',').map(str::parse);
    let percents: Vec<u64> = percents.collect::<Result<_, _>>().map_err(|_| "--memory takes percentages")?;
    let report = |name: &str, trace: &Trace, has_ttl: bool| {
        if servers.is_empty() {
            report(name, trace, copies, &percents);
        } else {
            servers::report(name, trace, copies, &percents, &servers, has_ttl);
        }
    };
    if servers.is_empty() {
        println!(
            "{:<24} {:>6} {:>10}  {:>8} {:>8} {:>8} {:>8}  misses in %, payload of the store",
            "trace", "memory", "bytes", "store", "S3-FIFO", "LRU", "LFU"
        );
    }
    if let Some(path) = options.value("--trace") {
        report("file", &read(path), false);
        return Ok(());
    }
    let only = options.value("--only");
    let is_wanted = |name: &str| only.is_none_or(|only| only.split(',').any(|only| only == name));
    if is_wanted("zipf") {
        report("zipf", &drawn.zipf(|_, _| None), false);
    }
    // Every tenth request reads the next of many objects in sequence.
    if is_wanted("scans") {
        let scans = drawn.zipf(|at, objects| (at % 10 == 0).then(|| objects + at / 10 % objects));
        report("zipf, scans", &scans, false);
    }
    if is_wanted("once") {
        let once = drawn.zipf(|at, objects| (at % 2 == 0).then_some(objects + at / 2));
        report("zipf, half used once", &once, false);
    }
    if is_wanted("ttl") && !servers.is_empty() {
        report("zipf, TTLs", &drawn.zipf(|_, _| None), true);
    }
    if is_wanted("sizes") {
        drawn.requests /= 5;
        drawn.bytes_max = 65_536;
        report("zipf, 20 B to 64 KiB", &drawn.zipf(|_, _| None), false);
    }
    Ok(())
}

fn read(path: &str) -> Trace {
    let text = std::fs::read_to_string(path).expect("the trace can be read");
    let request = |line: &str| {
        let mut fields = line.split(',').skip(1).map(|field| field.trim().parse::<u32>());
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    };
    text.lines().filter_map(request).collect()
}

impl Drawn {
    /// Generates requests for objects of 20 bytes to `bytes_max` with a Zipf distribution; `other` replaces some. Up to
    /// 10,000 bytes all sizes are equally frequent, above that all orders of magnitude.
    fn zipf(&self, other: impl Fn(u32, u32) -> Option<u32>) -> Trace {
        let objects = (self.requests / self.per_object).max(1_000);
        let mut rng = Rng::new(1);
        let mut sum = 0.0;
        let sums: Vec<f64> = (1..=objects)
            .map(|rank| {
                sum += f64::from(rank).powf(-0.9);
                sum
            })
            .collect();
        (0..self.requests)
            .map(|at| {
                #[expect(clippy::cast_precision_loss, reason = "a fraction")]
                let drawn = rng.below(1 << 53) as f64 / (1u64 << 53) as f64 * sum;
                let rank = u32::try_from(sums.partition_point(|&sum| sum < drawn)).unwrap_or(0);
                let object = other(at, objects).unwrap_or(rank);
                (object, size_of_object(object, self.bytes_max))
            })
            .collect()
    }
}

fn size_of_object(object: u32, bytes_max: u32) -> u32 {
    let drawn = object.wrapping_mul(0x9E37_79B1);
    if bytes_max <= 10_000 {
        return 20 + drawn % (bytes_max - 20);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "20 to bytes_max")]
    let bytes = (20.0 * (f64::from(bytes_max) / 20.0).powf(f64::from(drawn) / f64::from(u32::MAX))) as u32;
    bytes
}

/// Returns the bytes that the store takes for all objects of a trace, their number, and their own bytes.
fn all_objects(trace: &Trace) -> (u64, u64, u64) {
    let sizes: HashMap<u32, u32> = trace.iter().copied().collect();
    let mut all = Store::new(HashSecret::draw(&mut Rng::new(1)), 0);
    sizes.iter().for_each(|(&object, &bytes)| set(&mut all, object.into(), bytes));
    let payload: u64 = sizes.values().map(|&bytes| u64::from(bytes)).sum();
    (all.memory_bytes(), sizes.len() as u64, payload)
}

fn report(name: &str, trace: &Trace, copies: u32, percents: &[u64]) {
    let (total, objects, payload) = all_objects(trace);
    let beside = (total - payload) / objects;
    let requests = trace.len() as f64;
    for percent in percents {
        let memory = total * percent / 100;
        let share = |misses: usize| 100.0 * misses as f64 / requests;
        let ours_memory = memory * u64::from(copies);
        // At least four regions: the store holds next to nothing in less.
        let (ours, held) =
            if ours_memory < 1 << 20 { (f64::NAN, 0) } else { our_misses(trace, ours_memory, copies) };
        println!(
            "{name:<24} {percent:>4} % {memory:>10}  {:>8.2} {:>8.2} {:>8.2} {:>8.2}  {:.3}",
            ours * 100.0 / requests / f64::from(copies),
            share(s3_fifo(trace, memory, beside)),
            share(lru(trace, memory, beside)),
            share(lfu(trace, memory, beside)),
            held as f64 / ours_memory as f64,
        );
    }
}

fn set(store: &mut Store, object: u64, bytes: u32) {
    let key = object.to_be_bytes();
    let value = vec![0; (bytes as usize).saturating_sub(KEY_BYTES)];
    store.set(Instant::ZERO, store.key(&key), &value, None, Version(1)).expect("items can be evicted");
}

/// Returns the misses of the store, and the bytes of its keys and values at the end.
fn our_misses(trace: &Trace, memory: u64, copies: u32) -> (f64, u64) {
    let mut store = Store::new(HashSecret::draw(&mut Rng::new(1)), memory);
    store.set_eviction(Eviction::AnyItem);
    let mut misses = 0.0;
    for &(object, bytes) in trace {
        for copy in 0..copies {
            let object = u64::from(copy) << 32 | u64::from(object);
            if store.access(Instant::ZERO, store.key(&object.to_be_bytes())).is_none() {
                misses += 1.0;
                set(&mut store, object, bytes);
            }
        }
    }
    (misses, store.audit().key_and_value_bytes)
}

fn lru(trace: &Trace, memory: u64, beside: u64) -> usize {
    ordered(trace, memory, beside, |_, now| (0, now))
}

/// Returns the misses of LFU; ties are broken by the last use.
fn lfu(trace: &Trace, memory: u64, beside: u64) -> usize {
    ordered(trace, memory, beside, |uses, now| (uses, now))
}

/// Returns the misses if the item of the least rank is evicted; each use computes its rank anew.
fn ordered(trace: &Trace, memory: u64, beside: u64, rank: impl Fn(usize, usize) -> (usize, usize)) -> usize {
    let mut held: HashMap<u32, (usize, (usize, usize), u64)> = HashMap::new();
    let mut order = BTreeSet::new();
    let (mut used, mut misses) = (0, 0);
    for (now, &(object, bytes)) in trace.iter().enumerate() {
        if let Some((uses, at, _)) = held.get_mut(&object) {
            order.remove(&(*at, object));
            *uses += 1;
            *at = rank(*uses, now);
            order.insert((*at, object));
            continue;
        }
        misses += 1;
        let size = u64::from(bytes) + beside;
        while used + size > memory {
            let Some((_, victim)) = order.pop_first() else { break };
            used -= held.remove(&victim).map_or(0, |(_, _, size)| size);
        }
        held.insert(object, (1, rank(1, now), size));
        order.insert((rank(1, now), object));
        used += size;
    }
    misses
}

/// Returns the misses of S3-FIFO as in the paper: a tenth of the memory is the small queue, and the ghost has as many
/// objects as the main queue.
fn s3_fifo(trace: &Trace, memory: u64, beside: u64) -> usize {
    let mut held: HashMap<u32, (u8, u64)> = HashMap::new();
    let (mut small, mut main, mut ghosts) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
    let mut ghost: HashMap<u32, u32> = HashMap::new();
    let (mut small_bytes, mut main_bytes, mut misses) = (0, 0, 0);
    for &(object, bytes) in trace {
        if let Some((uses, _)) = held.get_mut(&object) {
            *uses = (*uses + 1).min(3);
            continue;
        }
        misses += 1;
        let size = u64::from(bytes) + beside;
        while small_bytes + main_bytes + size > memory && !held.is_empty() {
            if small_bytes > memory / 10 || main.is_empty() {
                let Some(victim) = small.pop_front() else { break };
                let (uses, size) = held[&victim];
                small_bytes -= size;
                if uses > 1 {
                    held.insert(victim, (0, size));
                    main.push_back(victim);
                    main_bytes += size;
                    continue;
                }
                held.remove(&victim);
                ghosts.push_back(victim);
                *ghost.entry(victim).or_insert(0) += 1;
                while ghosts.len() > main.len().max(1) {
                    let Some(old) = ghosts.pop_front() else { break };
                    if let Some(times) = ghost.get_mut(&old) {
                        *times -= 1;
                        if *times == 0 {
                            ghost.remove(&old);
                        }
                    }
                }
            } else {
                let Some(victim) = main.pop_front() else { break };
                let (uses, size) = held[&victim];
                if uses > 0 {
                    held.insert(victim, (uses - 1, size));
                    main.push_back(victim);
                } else {
                    held.remove(&victim);
                    main_bytes -= size;
                }
            }
        }
        held.insert(object, (0, size));
        if ghost.contains_key(&object) {
            main.push_back(object);
            main_bytes += size;
        } else {
            small.push_back(object);
            small_bytes += size;
        }
    }
    misses
}
