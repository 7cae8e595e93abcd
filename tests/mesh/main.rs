//! A seeded simulation of nodes, one to a hundred: the network between them, clients, hostile clients, hostile
//! peers, and an oracle that checks every reply.
//!
//! First faults occur, at rates drawn from the seed: bytes arrive late, in pieces, or not at all; connections
//! are refused, reset at any byte, left half open; hosts are cut off, one way or both; nodes are stopped,
//! killed, drained, and start again with another identity; clocks jump; peers answer wrongly. A node without
//! peers (`alone`) has hostile clients and the smallest limits. Every reply is checked meanwhile, as strictly as the
//! faults of the moment allow. Then the faults end, and everything must recover within bounded time. Some seeds are run
//! twice, and both runs must be the same in every byte. Worlds under `load` have thousands of clients, up to 128 nodes
//! and no faults; the promises are checked while nodes are saturated.
//!
//! Virtual time advances by the cost of calls (`costs`), and an iteration has the shares of the real loop.
//!
//! `OLIVIA_SIM_SEED=n` runs that seed alone, with `OLIVIA_SIM_TRACE=1` printing all events;
//! `OLIVIA_SIM_SEEDS=n` runs n seeds; `OLIVIA_SIM_NODES=n` has meshes of n nodes (1: hostile clients);
//! `OLIVIA_SIM_LOAD=word` runs the worlds under load with the word in their name;
//! `OLIVIA_SIM_ALL=1` goes on after a failure and prints each seed that fails.
//!
//! Not here: sockets and real time.

mod agenda;
mod alone;
mod appended;
mod boundary;
mod client;
mod costs;
mod faults;
mod finale;
mod host;
mod hostile_peer;
#[path = "../kit/mod.rs"]
mod kit;
mod load;
mod net;
mod newest;
mod oracle;
mod peer_views;
mod pending;
mod plan;
mod protocol;
mod replies;
mod seen;
mod shell;
mod trace;
mod world;

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

/// Number of seeds of worlds of one node.
const SEEDS_ALONE: u64 = 60;

/// Requests that clients make while things go wrong.
const REQUESTS: u64 = 3_000;

/// Steps that clients still take while a node ends in the middle of everything.
const CUT_SHORT: u64 = 50;

/// Seeds among which everything has to come about that can.
const SEEN_FROM: u64 = 500;

/// One seed in so many is run twice.
const TWICE: u64 = 8;

/// The longest that clients may take for their requests: then they are cut short.
const TALK_MAX: u64 = 120_000 * MS;

/// One run of a world.
fn live(world: &mut World, seed: u64) {
    let end = world.net.now + TALK_MAX;
    while world.ops_left > 0 && world.net.now < end {
        world.step();
    }
    match world.alone {
        // Some nodes are shut down while everything else goes on.
        Some(_) => {
            let is_cut_short = seed.is_multiple_of(4);
            world.ops_left = if is_cut_short { CUT_SHORT } else { 0 };
            world.finale_alone(is_cut_short);
        }
        None => world.finale(),
    }
}

/// Runs a seed; returns the digest of its trace. A failure is printed with the events before it.
fn run(seed: u64, size: Size, is_traced: bool) -> Result<(u64, Seen), String> {
    let mut world = World::new(seed, size, is_traced);
    let outcome = catch_unwind(AssertUnwindSafe(|| live(&mut world, seed)));
    match outcome {
        Ok(()) => {
            let nodes = world.hosts.iter().filter_map(|host| host.node.as_ref());
            nodes.for_each(|node| world.seen.add_node(node.stats()));
            if let Some(alone) = &world.alone {
                world.seen.add("writes without memory", alone.full);
            }
            Ok((world.trace.digest(), world.seen))
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let text = text.unwrap_or_else(|| "a panic".to_owned());
            // A mesh's size is drawn unless it is given.
            let nodes = if world.alone.is_some() { Some(1) } else { number("OLIVIA_SIM_NODES") };
            let nodes = nodes.map_or_else(String::new, |nodes| format!("OLIVIA_SIM_NODES={nodes} "));
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

/// Runs seeds on all cores; panics with the first that fails.
fn simulate(seeds: u64, size_of: impl Fn(u64) -> Size + Sync) {
    let one = number("OLIVIA_SIM_SEED");
    let first = one.unwrap_or(0);
    let count = if one.is_some() { 1 } else { number("OLIVIA_SIM_SEEDS").unwrap_or(seeds) };
    let is_traced = std::env::var_os("OLIVIA_SIM_TRACE").is_some();
    let next = AtomicU64::new(first);
    let seen: Mutex<Seen> = Mutex::default();
    let failures: Mutex<BTreeMap<u64, String>> = Mutex::default();
    let goes_on = std::env::var_os("OLIVIA_SIM_ALL").is_some();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count || (!goes_on && !failures.lock().unwrap().is_empty()) {
                return;
            }
            let outcome = run(seed, size_of(seed), is_traced).and_then(|(digest, events)| {
                seen.lock().unwrap().merge(&events);
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
    if count >= if size_of(0).members_max == 1 { SEEDS_ALONE } else { SEEN_FROM } {
        seen.into_inner().unwrap().check(size_of(0).members_max == 1);
    }
}

fn requests() -> u64 {
    number("OLIVIA_SIM_REQUESTS").unwrap_or(REQUESTS)
}

#[test]
fn mesh_keeps_its_promises_whatever_goes_wrong() {
    let nodes = number("OLIVIA_SIM_NODES");
    simulate(SEEDS, |seed| {
        let small = (2, if seed.is_multiple_of(4) { 7 } else { 3 });
        let (members_min, members_max) = nodes.map_or(small, |nodes| (nodes, nodes));
        Size { members_min, members_max, requests: requests() }
    });
}

/// With OLIVIA_SIM_NODES=1 the test above runs these seeds.
#[test]
fn every_reply_of_one_node_is_right_whatever_its_clients_do() {
    if number("OLIVIA_SIM_NODES").is_none() {
        simulate(SEEDS_ALONE, |_| Size { members_min: 1, members_max: 1, requests: requests() });
    }
}

/// Each kind of load for a moment, on a slow machine, where it takes fewer requests to fill it; with `OLIVIA_SIM_SEEDS`
/// for longer, and on a fast one too. `OLIVIA_SIM_LOAD=word` runs those with the word in their name.
#[test]
fn promises_hold_under_any_load_of_clients() {
    let is_long = number("OLIVIA_SIM_SEEDS").is_some();
    let word = std::env::var("OLIVIA_SIM_LOAD").unwrap_or_default();
    let speeds: &[u64] =
        if is_long { &[plan::KEY_NANOS, 10 * plan::KEY_NANOS] } else { &[10 * plan::KEY_NANOS] };
    let span = if is_long { 2_000 } else { 500 };
    let mut filled: BTreeMap<&str, u64> = BTreeMap::new();
    for scenario in load::SCENARIOS.into_iter().filter(|scenario| scenario.name.contains(&word)) {
        for key_nanos in speeds {
            let mut world = World::under_load(scenario, *key_nanos);
            world.live_under_load(span * MS);
            for (queue, most) in world.load.iter().flat_map(load::Load::backlogs) {
                *filled.entry(queue).or_default() += most;
            }
        }
    }
    let empty = filled.iter().filter(|(_, most)| **most == 0).map(|(queue, _)| *queue);
    let empty: Vec<&str> = empty.filter(|queue| *queue != load::UNFILLED).collect();
    assert!(empty.is_empty() || !word.is_empty(), "no world fills the queues {empty:?}");
}
