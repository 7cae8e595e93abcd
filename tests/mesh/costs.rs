//! The measured time of calls per key that the node charges for them. [`super::plan::KEY_NANOS`] is the constant by
//! which the simulation converts charged keys to time.

use super::kit::peer::{Face, Link, World, bytes_of, deltas};
use super::kit::{ClientId, ms};
use olivia::config::Config;
use olivia::node::Class;
use olivia::wire::frame::{Body, KeyState};
use std::hint::black_box;
use std::time::Duration;

/// Calls of each kind.
const CALLS: u64 = 2_000;

/// The processor time of this thread.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
}

/// Delivers input, and goes on until it is processed.
fn serve(world: &mut World, conn: ClientId, bytes: &[u8]) {
    world.driver.deliver(conn, bytes);
    let now = world.driver.now;
    while [Class::Links, Class::Clients].into_iter().any(|class| world.driver.node.step(now, class)) {}
}

/// Nanoseconds per key, and keys per call, of calls that `call` makes with their number.
fn measure(name: &str, world: &mut World, mut call: impl FnMut(&mut World, u64)) -> f64 {
    (0..CALLS / 4).for_each(|n| call(world, n));
    let (mut nanos, mut keys) = (0, 0);
    for n in CALLS / 4..CALLS {
        let (before, begin) = (world.driver.node.spent(), cpu());
        call(world, n);
        nanos += (cpu() - begin).as_nanos();
        keys += world.driver.node.spent() - before;
    }
    let per_key = nanos as f64 / keys as f64;
    println!(
        "{name:<40} {per_key:>6.0} ns per key, {:>6.1} keys per call",
        keys as f64 / (CALLS - CALLS / 4) as f64
    );
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
    let kinds: [(&str, &dyn Fn(u64) -> String); 6] = [
        ("64 GETs of one key", &|_| "GET own\n".to_owned()),
        ("64 SETs of new keys", &|n| format!("SET key{n}:value\n")),
        ("64 GETs of other keys", &|n| format!("GET key{}\n", n * 7_919 % 100_000)),
        ("64 EXPIREs", &|n| format!("EXPIRE key{n}:60\n")),
        ("64 DELs", &|n| format!("DEL key{n}\n")),
        ("64 keys that expire", &|n| format!("SETEX ttl{n}:value:60\n")),
    ];
    for (name, one) in kinds {
        all.push(measure(name, &mut world, |world, n| {
            serve(world, client, requests(one, n).as_bytes());
            world.driver.read_now(client);
            black_box(world.driver.take_bytes(client));
        }));
    }
    let value = "x".repeat(60_000);
    world.call(&format!("SET large:{value}\n"));
    all.push(measure("a GET of 60 KB", &mut world, |world, _| {
        serve(world, client, b"GET large\n");
        world.driver.read_now(client);
        black_box(world.driver.take_bytes(client));
    }));
    all.push(measure("2 KiB of additions of a peer", &mut world, |world, n| {
        let hashes: Vec<u64> = (0..256).map(|k| (256 * n + k).wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let frame = deltas(256 * n, &hashes);
        serve(world, link.conn, &frame);
    }));
    let keys: Vec<String> = (0..64 * CALLS).map(|n| format!("note{n}")).collect();
    for keys in keys.chunks(64) {
        let lines: String = keys.iter().map(|key| format!("SET {key}:value\n")).collect();
        serve(&mut world, client, lines.as_bytes());
        world.driver.read_now(client);
        world.driver.take_bytes(client);
    }
    let notices: Vec<Vec<u8>> = keys
        .chunks(64)
        .map(|keys| {
            let notice = |key: &'_ String| {
                let (version, _) = world.driver.node.version_of(world.driver.now, key.as_bytes()).unwrap();
                let body =
                    Body::Invalidate { key: key.as_bytes(), version: version + 1, state: KeyState::Held };
                bytes_of(&[(0, body)])
            };
            keys.iter().flat_map(notice).collect()
        })
        .collect();
    all.push(measure("64 notices that drop a value", &mut world, |world, n| {
        serve(world, link.conn, &notices[usize::try_from(n).unwrap()]);
    }));
    world.driver.leap(ms(5_000));
    all.push(measure("a step of a filter that is rebuilt", &mut world, |world, _| {
        world.driver.node.step(world.driver.now, Class::Due);
    }));
    all.push(measure("a step of KEYS", &mut world, |world, _| {
        if !world.driver.node.has_work(world.driver.now) {
            world.driver.deliver(client, b"KEYS none*\n");
        }
        world.driver.node.step(world.driver.now, Class::Due);
        world.driver.read_now(client);
        black_box(world.driver.take_bytes(client));
    }));
    all.push(measure("a step of timers and digests", &mut world, |world, _| {
        world.driver.leap(ms(5));
        world.driver.node.tick(world.driver.now);
        world.frames(&mut link);
    }));
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    println!("on average {mean:.0} ns per key");
}
