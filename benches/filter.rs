//! Measures the filters: insertion, lookup, merge, rebuild, the claimants of a key among many peers, and the cost of
//! the filters of linked peers for the requests of a node without sockets.
//!
//! `cargo bench --bench filter`; with `-- --quick` small and short, as the tests run it; with `-- --requests` the last
//! part alone. Figures are the best of some rounds, in ns. No time is asserted.

#![allow(dead_code, reason = "the kit has more than this uses")]

#[path = "../tests/kit/mod.rs"]
mod kit;
#[path = "support/options.rs"]
mod options;

use kit::ClientId;
use kit::peer::{Face, World, bytes_of, head, piece};
use olivia::base::rng::Rng;
use olivia::config::Config;
use olivia::filter::bloom::Bloom;
use olivia::filter::changelog::PIECE_BLOCKS;
use olivia::filter::rate::false_positive_rate;
use olivia::filter::size::{BLOCK_WORDS, Size};
use olivia::filter::{FilterKey, PeerFilters};
use olivia::node::FilterState;
use olivia::wire::frame::Body;
use options::{Options, Takes};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

const BITS_PER_KEY: u64 = 12;

/// Requests per read of a node.
const PIPELINE: usize = 64;

struct Bench {
    rounds: u32,
    /// Operations per round.
    operations: usize,
}

impl Bench {
    /// Returns the best time of one operation in ns; `round` does `operations` of them.
    fn best(&self, operations: usize, mut round: impl FnMut()) -> f64 {
        let times = (0..self.rounds).map(|_| {
            let start = Instant::now();
            round();
            start.elapsed().as_secs_f64() * 1e9 / operations as f64
        });
        times.fold(f64::INFINITY, f64::min)
    }
}

fn line(name: &str, nanos: f64, goal: Option<f64>) {
    match goal {
        Some(goal) => println!("{name:<44} {nanos:>9.1} ns   goal {goal:>4.0}   ratio {:>5.2}", nanos / goal),
        None => println!("{name:<44} {nanos:>9.1} ns"),
    }
}

fn hashes(rng: &mut Rng, count: usize) -> Vec<u64> {
    (0..count).map(|_| rng.next_u64()).collect()
}

fn keys_at(size: Size) -> usize {
    usize::try_from(size.bits() / BITS_PER_KEY).unwrap()
}

fn filled(rng: &mut Rng, size: Size) -> Bloom {
    let mut filter = Bloom::new(size);
    for _ in 0..keys_at(size) {
        filter.insert(rng.next_u64());
    }
    filter
}

fn one_filter(bench: &Bench, log2: u8) {
    let size = Size::from_log2(log2).unwrap();
    let mut rng = Rng::new(1);
    let mut filter = filled(&mut rng, size);
    let keys = hashes(&mut rng, bench.operations.min(keys_at(size) / 4));
    keys.iter().for_each(|&hash| _ = filter.insert(hash));
    let part = keys.len();
    let yardstick = bench.best(part, || {
        let mark_dirty = |&hash: &u64| _ = black_box(filter.words()[size.block_of(hash) * BLOCK_WORDS]);
        keys.iter().for_each(mark_dirty);
    });
    line(&format!("yardstick: a word of a random block, 2^{log2}"), yardstick, None);
    let mut fresh = filled(&mut rng, size);
    let mut unused = keys.iter();
    // Each round takes other keys, since a key is new only once.
    let share = part / bench.rounds as usize;
    let insert = bench.best(share, || {
        unused.by_ref().take(share).for_each(|&hash| _ = black_box(fresh.insert(hash)));
    });
    line(&format!("insert, 2^{log2} blocks"), insert, Some(15.0));
    let again = bench.best(part, || keys.iter().for_each(|&hash| _ = black_box(fresh.insert(hash))));
    line(&format!("insert again, 2^{log2} blocks"), again, Some(15.0));
    drop(fresh);
    let hit = bench.best(part, || keys.iter().for_each(|&hash| _ = black_box(filter.contains(hash))));
    line(&format!("contains, present, 2^{log2} blocks"), hit, None);
    let absent = hashes(&mut rng, bench.operations);
    let mut claimed = 0;
    let miss = bench.best(absent.len(), || {
        claimed = absent.iter().filter(|&&hash| black_box(filter.contains(hash))).count();
    });
    line(&format!("contains, absent, 2^{log2} blocks"), miss, None);
    let load = (keys_at(size) + keys.len()) as f64 / size.blocks() as f64;
    println!(
        "{:<44} {:>9.3} %    theory {:.3} %",
        format!("false positives, 2^{log2} blocks, {:.1} bits a key", 512.0 / load),
        claimed as f64 / absent.len() as f64 * 100.0,
        false_positive_rate(load) * 100.0
    );
    let smaller = Size::from_log2(log2 - 1).unwrap();
    let start = Instant::now();
    let mut half = Bloom::new(smaller);
    (0..size.blocks()).for_each(|number| half.merge(&filter, number));
    let merge = start.elapsed().as_secs_f64() * 1e9 / size.blocks() as f64;
    line(&format!("merge into half the size, per block, 2^{log2} blocks"), merge, None);
    // As many present keys as 16 blocks hold.
    let some: Vec<u64> = hashes(&mut rng, 680).iter().map(|hash| hash >> 1 >> (log2 - 5)).collect();
    let rebuild = bench.best(some.len(), || {
        filter.rebuild_blocks(0..16.min(size.blocks()), some.iter().copied(), &mut Vec::new());
    });
    line(&format!("rebuild of 16 blocks, per key, 2^{log2} blocks"), rebuild, None);
}

/// Returns `count` peers with filters of one size, after all migrations.
fn peers(rng: &mut Rng, count: usize, size: Size) -> PeerFilters {
    let mut filters = PeerFilters::new(u64::MAX);
    for _ in 0..count {
        let (key, filter) = (filters.join(), filled(rng, size));
        filters.begin_snapshot(key, size).unwrap();
        for (number, block) in filter.words().as_chunks().0.iter().enumerate() {
            filters.snapshot_block(key, number, block).unwrap();
        }
        filters.finish_snapshot(key).unwrap();
        while filters.step() {}
    }
    filters
}

fn many_filters(bench: &Bench, log2: u8) {
    let size = Size::from_log2(log2).unwrap();
    for (count, goal) in [(3, 60.0), (8, 100.0), (64, 100.0), (128, 180.0)] {
        let mut rng = Rng::new(2);
        let filters = peers(&mut rng, count, size);
        let absent = hashes(&mut rng, bench.operations);
        let mut found: Vec<FilterKey> = Vec::new();
        let mut claims = 0;
        let nanos = bench.best(absent.len(), || {
            claims = 0;
            for &hash in &absent {
                found.clear();
                filters.claimants(black_box(hash), &mut found);
                claims += found.len();
            }
        });
        let (apart, columns) = filters.layout();
        let name = format!("claimants, {count} peers ({apart} apart, {columns} sliced), 2^{log2}");
        line(&name, nanos, Some(goal));
        let expected = false_positive_rate(512.0 / BITS_PER_KEY as f64) * count as f64;
        println!(
            "{:<44} {:>9.3}      theory {expected:.3}, {:.1} MB",
            "  claims of an absent key",
            claims as f64 / absent.len() as f64,
            filters.bytes() as f64 / 1e6
        );
    }
}

/// Returns a node with keys, and `count` linked peers with known filters.
fn node_with_peers(count: u16, keys: usize, size: Size) -> (World, ClientId, Vec<Face>) {
    let mut world = World::new(Config::default());
    world.driver.watch = None;
    let client = world.driver.client();
    for id in 0..keys {
        world.driver.send(client, format!("SET key{id}:{}\n", "v".repeat(64)));
        world.driver.take_bytes(client);
    }
    let mut rng = Rng::new(3);
    let faces: Vec<Face> = (1..=count).map(Face::new).collect();
    for face in &faces {
        let link = world.linked(face);
        let filter = filled(&mut rng, size);
        world
            .driver
            .send(link.conn, bytes_of(&[(0, Body::Snap { head: head(1, 0), size_log2: size.log2() })]));
        for (words, first) in
            filter.words().chunks(PIECE_BLOCKS * BLOCK_WORDS).zip((0..).step_by(PIECE_BLOCKS))
        {
            world.driver.send(link.conn, piece(first, words));
        }
        world.driver.send(link.conn, bytes_of(&[(0, Body::SnapEnd)]));
        world.driver.take_bytes(link.conn);
        assert_eq!(world.filter(face), FilterState::Known);
    }
    (world, client, faces)
}

/// Measures the cost of peers' filters for requests of keys that none of them claims.
fn requests(bench: &Bench, log2: u8) {
    let size = Size::from_log2(log2).unwrap();
    for count in [0, 2, 7, 63] {
        let keys = bench.operations.min(100_000);
        let (mut world, client, faces) = node_with_peers(count, keys, size);
        let unclaimed = |prefix: &str| -> Vec<String> {
            let names = (0..keys).map(|id| format!("{prefix}{id}"));
            let node = &world.driver.node;
            names
                .filter(|key| !faces.iter().any(|face| node.peer_claims(face.id(), world.hash(key))))
                .collect()
        };
        let (present, absent) = (unclaimed("key"), unclaimed("none"));
        let value = "v".repeat(64);
        for (name, lines) in [
            ("GET, found", present.iter().map(|key| format!("GET {key}\n")).collect::<Vec<_>>()),
            ("GET, not found", absent.iter().map(|key| format!("GET {key}\n")).collect()),
            ("SET again", present.iter().map(|key| format!("SET {key}:{value}\n")).collect()),
        ] {
            let batches: Vec<String> = lines.chunks_exact(PIPELINE).map(<[String]>::concat).collect();
            let nanos = bench.best(batches.len() * PIPELINE, || {
                for batch in &batches {
                    world.driver.send(client, batch);
                    assert!(world.driver.take_bytes(client).len() > PIPELINE);
                }
            });
            line(&format!("{name}, {count} peers, 2^{log2} blocks each"), nanos, None);
        }
    }
}

fn main() -> ExitCode {
    options::run(Takes { flags: &["--requests"], values: &[], words: &[] }, run)
}

fn run(options: &Options) -> Result<(), String> {
    let quick = options.quick;
    let bench = if quick {
        Bench { rounds: 1, operations: 2_000 }
    } else {
        Bench { rounds: 5, operations: 1_000_000 }
    };
    let (alone, shared): (&[u8], &[u8]) = if quick { (&[6], &[5]) } else { (&[10, 16, 21], &[10, 14]) };
    if !options.has("--requests") {
        alone.iter().for_each(|&log2| one_filter(&bench, log2));
        shared.iter().for_each(|&log2| many_filters(&bench, log2));
    }
    shared.iter().for_each(|&log2| requests(&bench, log2));
    Ok(())
}
