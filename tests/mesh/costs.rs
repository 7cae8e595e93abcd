//! What a key costs, measured: the time of calls by what the node charges for them. [`super::plan::KEY_NANOS`] is the
//! constant by which the simulation turns the one into the other.

use super::kit::ms;
use super::kit::peer::{Face, Link, World, deltas};
use olivia::config::Config;
use std::hint::black_box;
use std::time::Instant;

/// Calls of each kind.
const CALLS: u64 = 2_000;

/// Nanoseconds per key, and keys per call, of calls that `call` makes with their number.
fn measure(name: &str, world: &mut World, mut call: impl FnMut(&mut World, u64)) -> f64 {
    (0..CALLS / 4).for_each(|n| call(world, n));
    let (mut nanos, mut keys) = (0, 0);
    for n in CALLS / 4..CALLS {
        let (before, begin) = (world.driver.node.spent(), Instant::now());
        call(world, n);
        nanos += begin.elapsed().as_nanos();
        keys += world.driver.node.spent() - before;
    }
    let per_key = nanos as f64 / keys as f64;
    println!("{name:<40} {per_key:>6.0} ns per key, {:>6.1} keys per call", keys as f64 / CALLS as f64);
    per_key
}

#[test]
#[ignore = "it measures; run it with --release and --nocapture"]
fn costs() {
    let mut world = World::new(Config::default());
    world.driver.watch = None;
    let client = world.driver.client();
    let mut link: Link = world.known(&Face::new(1));
    let mut all = Vec::new();
    let requests = |one: &dyn Fn(u64) -> String, n: u64| (0..64).map(|k| one(64 * n + k)).collect::<String>();
    let kinds: [(&str, &dyn Fn(u64) -> String); 5] = [
        ("64 GETs of one key", &|_| "GET own\n".to_owned()),
        ("64 SETs of new keys", &|n| format!("SET key{n}:value\n")),
        ("64 GETs of other keys", &|n| format!("GET key{}\n", n * 7_919 % 100_000)),
        ("64 DELs", &|n| format!("DEL key{n}\n")),
        ("64 keys that expire", &|n| format!("SETEX ttl{n}:value:60\n")),
    ];
    for (name, one) in kinds {
        all.push(measure(name, &mut world, |world, n| {
            world.driver.deliver(client, requests(one, n).as_bytes());
            world.driver.read_now(client);
            black_box(world.driver.take_bytes(client));
        }));
    }
    let value = "x".repeat(60_000);
    world.ask(&format!("SET large:{value}\n"));
    all.push(measure("a GET of 60 KB", &mut world, |world, _| {
        world.driver.deliver(client, b"GET large\n");
        world.driver.read_now(client);
        black_box(world.driver.take_bytes(client));
    }));
    all.push(measure("2 KiB of additions of a peer", &mut world, |world, n| {
        let hashes: Vec<u64> = (0..256).map(|k| (256 * n + k).wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let frame = deltas(256 * n, &hashes);
        world.driver.deliver(link.conn, &frame);
    }));
    all.push(measure("a step of timers and digests", &mut world, |world, _| {
        world.driver.leap(ms(5));
        world.driver.node.tick(world.driver.now);
        world.frames(&mut link);
    }));
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    println!("on average {mean:.0} ns per key");
}
