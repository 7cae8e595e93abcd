//! False positives: queries per 1,000 absent keys, and queries per key of another node, from a filter that has just
//! grown to one that is about to grow again.
//!
//! Whole meshes inside this process. All nodes hold the same number of keys, so that all filters are at their worst at
//! the same time, which is unlikely by chance.

use super::options::Options;
use super::report::{Report, digits};
use super::world::World;
use olivia::base::rng::Rng;
use std::fmt::Write;
use std::time::Duration;

/// Keys in one request.
const KEYS_PER_LINE: u64 = 100;

/// Fills at which is measured, as multiples of the keys at one growth; the last is just before the next growth.
const FILLS: [f64; 6] = [1.02, 1.2, 1.4, 1.6, 1.8, 1.98];

/// A time longer than it takes to publish any change and to rebuild filters.
const SPREAD: Duration = Duration::from_secs(2);

/// The result at one fill.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// Queries per 1,000 absent keys.
    pub(crate) absent: f64,
    /// Queries per key of another node.
    pub(crate) per_hit: f64,
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let sizes: &[usize] = if options.quick { &[3] } else { &[3, 16, 64] };
    let (bits_min, absent) = if options.quick { (1 << 15, 500) } else { (1 << 17, 100_000) };
    let head = [
        "title: Queries for 1,000 absent keys",
        "kind: lines",
        "from: 50",
        "x: keys, in percent of those at which the filters grow",
        "y: queries",
    ];
    let mut columns = vec!["fill".to_owned()];
    let mut found = Vec::new();
    for &nodes in sizes {
        let mut at_fills = Vec::new();
        let mut world = World::new(nodes)?;
        let mut filler = Filler::default();
        let grown_at = filler.fill_until_grown(&mut world, bits_min)?;
        for fill in FILLS {
            filler.fill_to(&mut world, (grown_at as f64 * fill).round())?;
            at_fills.push(measure(&mut world, &filler, absent)?);
        }
        let mean = |of: fn(&Found) -> f64| at_fills.iter().map(of).sum::<f64>() / at_fills.len() as f64;
        let most = |of: fn(&Found) -> f64| at_fills.iter().map(of).fold(0.0, f64::max);
        println!(
            "queries {nodes:3} nodes, {grown_at} to {} keys each: for 1,000 absent keys {:.1} at the worst fill, {:.1} on average; \
             for a remote hit {:.3} at the worst, {:.3} on average",
            filler.keys,
            most(|found| found.absent),
            mean(|found| found.absent),
            most(|found| found.per_hit),
            mean(|found| found.per_hit),
        );
        columns.push(format!("{nodes} nodes"));
        found.push(at_fills);
    }
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut report = Report::new("queries", &head, &columns);
    for (at, fill) in FILLS.iter().enumerate() {
        let mut row = vec![digits(fill * 50.0, 0)];
        row.extend(found.iter().map(|fills| digits(fills[at].absent, 2)));
        report.row(&row.iter().map(|cell| cell as &dyn std::fmt::Display).collect::<Vec<_>>());
    }
    report.finish(options.has("--write"))
}

/// Gives all nodes of a world the same number of keys, each key to one node.
#[derive(Debug, Default)]
pub(crate) struct Filler {
    /// Keys of each node.
    pub(crate) keys: u64,
}

impl Filler {
    /// Adds keys until the filters have grown to more than `bits`; returns the number of keys per node then.
    pub(crate) fn fill_until_grown(&mut self, world: &mut World, bits: u64) -> Result<u64, String> {
        while world.node(0).own_filter().size().bits() <= bits {
            let more = (self.keys / 50).clamp(1, KEYS_PER_LINE);
            self.add(world, more)?;
        }
        let grown_at = self.keys;
        world.pass(SPREAD);
        Ok(grown_at)
    }

    /// Adds keys until each node has `keys`.
    pub(crate) fn fill_to(&mut self, world: &mut World, keys: f64) -> Result<(), String> {
        while (self.keys as f64) < keys {
            let more = (keys - self.keys as f64).min(KEYS_PER_LINE as f64);
            #[expect(clippy::cast_possible_truncation, reason = "1 to 100")]
            self.add(world, more.ceil() as u64)?;
        }
        world.pass(SPREAD);
        Ok(())
    }

    fn add(&mut self, world: &mut World, count: u64) -> Result<(), String> {
        for at in 0..world.len() {
            let mut line = String::from("SET ");
            for n in self.keys..self.keys + count {
                let _ = write!(line, "{}k{at}-{n}:1", if n == self.keys { "" } else { "," });
            }
            line.push('\n');
            world.call(at, &line)?;
        }
        self.keys += count;
        world.pass(Duration::from_millis(5));
        Ok(())
    }
}

/// Sends GETs to the nodes in turn: of keys that no node has, then of keys of one other node each.
pub(crate) fn measure(world: &mut World, filler: &Filler, absent: u64) -> Result<Found, String> {
    let nodes = world.len();
    let mut rng = Rng::new(filler.keys);
    let before = requests(world);
    for batch in 0..absent / KEYS_PER_LINE {
        let at = usize::try_from(batch % nodes as u64).unwrap_or(0);
        let mut line = format!("GET absent-{}", rng.next_u64());
        (1..KEYS_PER_LINE).for_each(|_| {
            let _ = write!(line, ",absent-{}", rng.next_u64());
        });
        line.push('\n');
        if world.call(at, &line)? != ":GOT \n" {
            return Err("an absent key was found".to_owned());
        }
    }
    let in_vain = requests(world) - before;
    let before = requests(world);
    let present = absent / 10;
    for n in 0..present {
        let at = usize::try_from(n % nodes as u64).unwrap_or(0);
        let holder = (at + 1 + usize::try_from(rng.below(nodes as u64 - 1)).unwrap_or(0)) % nodes;
        let key = format!("k{holder}-{}", rng.below(filler.keys));
        if world.call(at, &format!("GET {key}\n"))? == ":GOT \n" {
            return Err(format!("node {at} does not find {key}"));
        }
    }
    Ok(Found {
        absent: in_vain as f64 * 1e3 / (absent / KEYS_PER_LINE * KEYS_PER_LINE) as f64,
        per_hit: (requests(world) - before) as f64 / present as f64,
    })
}

fn requests(world: &World) -> u64 {
    (0..world.len()).map(|at| world.node(at).stats().queries).sum()
}
