//! A seeded simulation of one node with hostile clients, and an oracle that knows every reply.
//!
//! First things go wrong, at rates drawn from the seed: any chunking, partial writes, clients that read
//! slowly or never, resets at any byte, half closes, garbage, clock jumps, tiny limits, floods of
//! connections, events for connections that are gone. Then they stop, and the node has to answer all
//! that was asked, rest, forget what has expired, and come to its end when it is told to. Each seed is
//! run twice, and both runs have to be the same in every action and every byte.
//!
//! `OLIVIA_SIM_SEED=n` runs that seed alone, with `OLIVIA_SIM_TRACE=1` telling all that happens;
//! `OLIVIA_SIM_SEEDS=n` runs so many seeds.
//!
//! Not here: sockets, real time, more than one node.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod client;
mod faults;
#[path = "../kit/mod.rs"]
mod kit;
mod model;
mod oracle;
mod protocol;
mod world;

use olivia::base::time::Instant;
use olivia::node::CloseReason;
use world::World;

/// Seeds of a run that names none; a few seconds without optimisation.
const SEEDS: u64 = 60;

/// Things that happen before all is well again.
const STEPS: usize = 1_000;

/// Rounds in which everything has to come to rest.
const ROUNDS_MAX: usize = 200_000;

/// Moves all that can be moved, until nothing is left to do at this moment.
fn reconcile(world: &mut World) {
    for _ in 0..ROUNDS_MAX {
        let mut moved = false;
        // From the back, since connections may go while they are served.
        for at in (0..world.links.len()).rev() {
            if at < world.links.len() {
                moved |= world.deliver(at, usize::MAX);
            }
            if at < world.links.len() {
                moved |= world.take(at, usize::MAX);
            }
        }
        if world.node.has_work(world.now) {
            world.tick();
        } else if !moved {
            return;
        }
    }
    panic!("the node finds no rest");
}

/// Lets time pass up to a moment as a shell does: sleeping until the node wants to be woken.
fn pass_to(world: &mut World, end: Instant) {
    while let Some(next) = world.node.next_deadline().filter(|next| *next <= end) {
        assert!(next > world.now.mono, "the node wants to be woken at a moment that has passed");
        world.set_time(next);
        reconcile(world);
    }
    world.set_time(end);
    assert!(!world.node.has_work(world.now), "there is work, for which the node did not want to be woken");
    reconcile(world);
}

/// All is well: whatever was asked is answered, and nothing is left to do.
fn heal(world: &mut World) {
    reconcile(world);
    world.node.audit();
    world.node.audit_store();
    for link in &world.links {
        let talk = &link.talk;
        assert!(!link.contract.is_stopped, "{:?} is not read, though nothing waits", link.key);
        assert!(talk.is_answered(&world.config), "{:?} waits for an answer: {talk:?}", link.key);
        assert!(
            !talk.is_shut || talk.end.is_some(),
            "{:?} is left, though it got all it asked for",
            link.key
        );
    }
    assert!(world.node.next_deadline().is_none_or(|next| next > world.now.mono));
}

/// Every key is there until its deadline and not at it; when all have passed, the memory is given back.
fn outlive(world: &mut World) {
    for link in &mut world.links {
        link.has_shut = true;
    }
    reconcile(world);
    for _ in 0..30 {
        let now_ms = world.now.mono.millis();
        let Some(next) = world.model.deadlines_ms(now_ms).into_iter().min() else { break };
        for moment in [next - 1, next].map(Instant::from_millis) {
            // Asked before the node has had time to do anything about it.
            world.set_time(moment.max(world.now.mono));
            ask_all(world);
            reconcile(world);
        }
    }
    let last = world.model.deadlines_ms(world.now.mono.millis()).into_iter().max();
    if let Some(last) = last {
        pass_to(world, Instant::from_millis(last));
    }
    ask_all(world);
    if let Some(keys) = world.keys_told {
        let (fewest, most) = world.model.count(world.now.mono.millis());
        assert!((fewest..=most).contains(&keys), "{keys} keys, not {fewest} to {most}");
    }
}

fn ask_all(world: &mut World) {
    let keys: Vec<Vec<u8>> = world.model.keys().cloned().collect();
    for key in keys {
        let key = String::from_utf8(protocol::quote(&key)).unwrap();
        world.ask_watch(&format!("GET {key}\nTTL {key}\nWHO {key}\n"));
    }
    world.keys_told = None;
    world.watch();
}

/// The node ends: each connection is told so, and none outlives the time for it.
fn end(world: &mut World) {
    world.drain();
    reconcile(world);
    let end = world.ends_at.unwrap();
    pass_to(world, end.max(world.now.mono));
    assert!(world.node.is_drained(), "{} connections are left", world.node.conns());
    assert!(world.links.is_empty());
    world.node.audit();
    world.node.audit_store();
}

/// One life of one node.
fn live(seed: u64, is_traced: bool) -> World {
    let mut world = World::new(seed, is_traced);
    for _ in 0..STEPS {
        world.step();
    }
    if seed.is_multiple_of(4) {
        // The end in the middle of everything.
        world.drain();
        for _ in 0..STEPS / 4 {
            world.step();
        }
        end(&mut world);
        return world;
    }
    heal(&mut world);
    outlive(&mut world);
    end(&mut world);
    world
}

/// Tells the seed when its run fails.
struct Tell(u64);

impl Drop for Tell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with OLIVIA_SIM_SEED={} OLIVIA_SIM_TRACE=1", self.0);
        }
    }
}

/// What all seeds together have brought about.
#[derive(Debug, Default)]
struct Seen {
    closed: [u64; CloseReason::COUNT],
    hits: u64,
    misses: u64,
    refused: u64,
    pauses: u64,
    full: u64,
}

impl Seen {
    fn add(&mut self, world: &World) {
        let stats = world.node.stats();
        for (sum, count) in self.closed.iter_mut().zip(stats.connections_closed) {
            *sum += count;
        }
        self.hits += stats.hits;
        self.misses += stats.misses;
        self.refused += stats.connections_refused;
        self.pauses += world.pauses;
        self.full += world.full;
    }

    /// A world in which something never happens says nothing about it.
    fn check(&self) {
        for reason in CloseReason::ALL.into_iter().filter(|reason| !reason.is_of_the_mesh()) {
            assert!(self.closed[reason as usize] > 0, "no connection was closed for {reason:?}: {self:?}");
        }
        let others = [self.hits, self.misses, self.refused, self.pauses, self.full];
        assert!(others.iter().all(|&count| count > 0), "{self:?}");
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn every_reply_is_right_whatever_the_clients_do() {
    let one = number("OLIVIA_SIM_SEED");
    let first = one.unwrap_or(0);
    let count = if one.is_some() { 1 } else { number("OLIVIA_SIM_SEEDS").unwrap_or(SEEDS) };
    let is_traced = std::env::var_os("OLIVIA_SIM_TRACE").is_some();
    let mut seen = Seen::default();
    for seed in first..first.saturating_add(count) {
        let _tell = Tell(seed);
        let world = live(seed, is_traced);
        assert!(world.trace == live(seed, false).trace, "two runs of seed {seed} differ");
        seen.add(&world);
    }
    if count >= SEEDS {
        seen.check();
    }
}
