//! Growth with the number of nodes: memory of peers' filters, traffic, queries.
//!
//! Whole meshes inside this process, each node with the same number of keys.

use super::options::Options;
use super::queries::{Filler, measure};
use super::report::{Report, digits};
use super::world::World;
use std::time::Duration;

/// Time over which idle traffic is counted.
const IDLE: Duration = Duration::from_secs(10);

/// Number of keys that are set one by one, far enough apart that each is published alone.
const SINGLE_KEYS: u64 = 100;

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let sizes: &[usize] = if options.quick { &[3, 5] } else { &[3, 8, 16, 32, 64, 100] };
    let (keys, absent) = if options.quick { (200.0, 500) } else { (3_000.0, 50_000) };
    let head = ["title: Queries per lookup, by size of the mesh", "kind: lines", "x: nodes", "y: queries"];
    let columns = ["nodes", "for a key that another node has", "for a key that nobody has"];
    let mut report = Report::new("scale", &head, &columns);
    let head = [
        "title: Bytes between nodes by size of the mesh, without headers of TCP and IP",
        "kind: lines",
        "x: nodes",
        "y: bytes",
    ];
    let columns = ["nodes", "per second of an idle node", "per key that is published alone"];
    let mut traffic = Report::new("scale_traffic", &head, &columns);
    for &nodes in sizes {
        let mut world = World::new(nodes)?;
        let mut filler = Filler::default();
        filler.fill_to(&mut world, keys)?;
        let found = measure(&mut world, &filler, absent)?;
        let before = world.traffic;
        world.pass(IDLE);
        let idle = world.traffic.since(before).all();
        let before = world.traffic;
        for n in 0..SINGLE_KEYS {
            world.call(0, &format!("SET single-{n}:1\n"))?;
            world.pass(Duration::from_millis(10));
        }
        let sent = world.traffic.since(before).digests;
        let filters = world.stat(0, "peer_filters_bytes")?;
        let own = world.node(0).own_filter().size().bytes();
        let idle = idle.bytes as f64 / IDLE.as_secs_f64() / nodes as f64;
        let sent = sent.bytes as f64 / SINGLE_KEYS as f64;
        println!(
            "scale     {nodes:3} nodes of {} keys: filters of the others {} KiB (one is {} KiB); idle {idle:.0} bytes per second and node; \
             a key that comes alone is published to all in {sent:.0} bytes; {:.4} queries for an absent key, {:.4} for a remote hit",
            filler.keys,
            filters / 1024,
            own / 1024,
            found.absent / 1e3,
            found.per_hit,
        );
        report.row(&[&nodes, &digits(found.per_hit, 4), &digits(found.absent / 1e3, 5)]);
        traffic.row(&[&nodes, &digits(idle, 0), &digits(sent, 0)]);
    }
    traffic.finish(options.has("--write"))?;
    report.finish(options.has("--write"))
}
