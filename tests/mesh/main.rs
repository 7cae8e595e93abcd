//! A seeded simulation of whole meshes: nodes, the network between them, clients, and an oracle that knows
//! what each node holds.
//!
//! First things go wrong, at rates drawn from the seed: bytes come late, in pieces, or not at all;
//! connections are refused, reset at any byte, left half open; hosts are cut off, one way or both; nodes
//! are stopped, killed, told to end, and come back as others; clocks jump; peers lie. Every reply is judged
//! meanwhile, as strictly as the moment allows. Then nothing goes wrong any more, and all has to be well
//! within bounded time. Some seeds are run twice, and both runs have to be the same in every byte.
//!
//! `OLIVIA_SIM_SEED=n` runs that seed alone, with `OLIVIA_SIM_TRACE=1` telling all that happens;
//! `OLIVIA_SIM_SEEDS=n` runs so many seeds; `OLIVIA_SIM_NODES=n` has meshes of so many nodes;
//! `OLIVIA_SIM_ALL=1` goes on after a failure and tells each seed that fails.
//!
//! Not here: sockets, real time, hostile clients (`tests/simulation`).

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod agenda;
mod boundary;
mod client;
mod finale;
mod host;
mod judge;
#[path = "../kit/mod.rs"]
mod kit;
mod liar;
mod mirror;
mod net;
mod oracle;
mod pending;
mod plan;
mod seen;
mod shell;
mod trace;
mod trouble;
mod world;

#[allow(dead_code, reason = "the reader of requests is for clients that send any bytes")]
#[path = "../simulation/protocol.rs"]
mod protocol;

use net::MS;
use plan::Size;
use seen::Seen;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use world::World;

/// Seeds of a run that names none; some seconds without optimisation.
const SEEDS: u64 = 24;

/// Requests that clients make while things go wrong.
const REQUESTS: u64 = 3_000;

/// Seeds among which everything has to come about that can.
const SEEN_FROM: u64 = 500;

/// One seed in so many is run twice.
const TWICE: u64 = 8;

/// The longest that clients may take for their requests: then they are cut short.
const TALK_MAX: u64 = 120_000 * MS;

/// One life of a world.
fn live(world: &mut World) {
    let end = world.net.now + TALK_MAX;
    while world.ops_left > 0 && world.net.now < end {
        world.step();
    }
    world.finale();
}

/// Runs a seed; gives the digest of its trace. What failed is told, with the events before it.
fn run(seed: u64, size: Size, is_told: bool) -> Result<(u64, Seen), String> {
    let mut world = World::new(seed, size, is_told);
    let outcome = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    match outcome {
        Ok(()) => {
            let nodes = world.hosts.iter().filter_map(|host| host.node.as_ref());
            nodes.for_each(|node| world.seen.add_node(node.stats()));
            Ok((world.trace.digest(), world.seen))
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let text = text.unwrap_or_else(|| "a panic".to_owned());
            let nodes = std::env::var("OLIVIA_SIM_NODES").map(|n| format!("OLIVIA_SIM_NODES={n} "));
            let nodes = nodes.unwrap_or_default();
            Err(format!(
                "{}\nseed {seed}: {text}\n{:?}\nreplay with {nodes}OLIVIA_SIM_SEED={seed} OLIVIA_SIM_TRACE=1",
                world.trace.last(),
                world.plan
            ))
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn mesh_keeps_its_promises_whatever_goes_wrong() {
    let one = number("OLIVIA_SIM_SEED");
    let first = one.unwrap_or(0);
    let count = if one.is_some() { 1 } else { number("OLIVIA_SIM_SEEDS").unwrap_or(SEEDS) };
    let is_told = std::env::var_os("OLIVIA_SIM_TRACE").is_some();
    let next = AtomicU64::new(first);
    let seen: Mutex<Seen> = Mutex::default();
    let failures: Mutex<BTreeMap<u64, String>> = Mutex::default();
    let goes_on = std::env::var_os("OLIVIA_SIM_ALL").is_some();
    let nodes = number("OLIVIA_SIM_NODES");
    let size_of = |seed: u64| {
        let (members_min, members_max) =
            nodes.map_or((2, if seed.is_multiple_of(4) { 7 } else { 3 }), |n| (n, n));
        Size { members_min, members_max, requests: number("OLIVIA_SIM_REQUESTS").unwrap_or(REQUESTS) }
    };
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count || (!goes_on && !failures.lock().unwrap().is_empty()) {
                return;
            }
            let outcome = run(seed, size_of(seed), is_told).and_then(|(digest, news)| {
                seen.lock().unwrap().merge(&news);
                if !seed.is_multiple_of(TWICE) || run(seed, size_of(seed), false)?.0 == digest {
                    return Ok(());
                }
                Err(format!("two runs of seed {seed} differ"))
            });
            if let Err(text) = outcome {
                failures.lock().unwrap().insert(seed, text);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads =
            std::thread::available_parallelism().map_or(1, usize::from).min(count.try_into().unwrap_or(1));
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let failures = failures.into_inner().unwrap();
    if goes_on {
        let first_line = |text: &str| text.lines().find(|line| line.starts_with("seed ")).map(str::to_owned);
        failures.values().filter_map(|text| first_line(text)).for_each(|line| eprintln!("{line:.400}"));
    }
    if let Some((_, text)) = failures.first_key_value() {
        panic!("{} of {count} seeds failed; the first:\n{text}", failures.len());
    }
    if count >= SEEN_FROM {
        seen.into_inner().unwrap().check();
    }
}
