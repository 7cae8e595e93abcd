//! The cost of the store in time and memory: `cargo bench --bench store`. Prints a table.
//!
//! Arguments: names of parts (`get`, `grow`, `wheel`, `expire`, `churn`, `memory`, `empty`, `equal`, `shift`;
//! none: all), `--quick` for a small form that only shows that it runs (also under `cargo test`), `--large` for 50
//! million items, and `--csv FILE` for the curve of the slowest insertion while growing.
//!
//! Absolute times are valid for one machine and one day; only figures of the same run are comparable.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on ends")]
#![expect(clippy::cast_possible_truncation, reason = "numbers of a benchmark are far below any limit")]

#[path = "support/options.rs"]
mod options;

use olivia::base::rng::Rng;
use olivia::base::time::Instant as Moment;
use olivia::base::wheel::{Popped, Wheel};
use olivia::store::{Eviction, Expiry, HashSecret, HashedKey, RemoveOutcome, Store, Version};
use options::{Options, Takes};
use std::collections::HashMap;
use std::hint::black_box;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const VALUE: [u8; 64] = [b'v'; 64];
const KEY_BYTES: usize = 16;
const ITEM_BYTES: usize = KEY_BYTES + VALUE.len();
/// Insertions between two readings of the thread's CPU time, which cost as much as one insertion each.
const GROUP: u64 = 8;
const CURVE_POINTS: usize = 200;

/// The head of the curve's file, for `benches/pictures`.
const CURVE_HEAD: &str = "\
# title: The slowest insertion while growing to 50 million items
# kind: lines
# scale: log
# x: items
# y: CPU time of the slowest 8 insertions
# unit: us
# command: cargo bench --bench store -- --large grow --csv=docs/measured/growth.csv
items,olivia,hashbrown (16 B entries)
";

/// A part of the benchmark with its name.
type Part = (&'static str, fn(&Options));

const TAKES: Takes = Takes {
    flags: &["--large"],
    values: &["--csv"],
    words: &["memory", "get", "wheel", "expire", "churn", "empty", "equal", "shift", "grow"],
};

fn main() -> ExitCode {
    options::run(TAKES, run)
}

fn run(options: &Options) -> Result<(), String> {
    let parts: [Part; 9] = [
        ("memory", memory),
        ("get", get),
        ("wheel", wheel),
        ("expire", expire),
        ("churn", churn),
        ("empty", empty),
        ("equal", equal),
        ("shift", shift),
        ("grow", grow),
    ];
    println!("{:<44} {:>12}  unit", "figure", "value");
    for (name, part) in parts {
        if options.wants(name) {
            part(options);
        }
    }
    Ok(())
}

fn scaled(options: &Options, n: u64) -> u64 {
    if options.quick { (n / 100).clamp(1_000, 100_000) } else { n }
}

fn row(figure: &str, value: f64, unit: &str) {
    println!("{figure:<44} {value:>12.1}  {unit}");
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Returns the resident bytes of this process: current and peak.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    (1_024 * field("VmRSS:").unwrap_or(0), 1_024 * field("VmHWM:").unwrap_or(0))
}

fn key_bytes(id: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"key:0000........";
    key[8..].copy_from_slice(&id.to_be_bytes());
    key
}

fn new_store() -> Store {
    Store::new(HashSecret::draw(&mut Rng::new(1)), 0)
}

fn insert(store: &mut Store, id: u64, expiry: Option<Expiry>) {
    let key = key_bytes(id);
    store.set(Moment::ZERO, store.key(&key), &VALUE, expiry, Version(id)).expect("no limit");
}

fn filled(items: u64) -> Store {
    let mut store = new_store();
    (0..items).for_each(|id| insert(&mut store, id, None));
    store
}

fn memory(options: &Options) {
    for items in [1_000_000, 5_000_000] {
        let items = scaled(options, items);
        let ttl = Expiry::in_seconds(Moment::ZERO, 3_600);
        let kinds = [
            ("no TTL", None, 0),
            ("TTL", ttl, 0),
            ("no TTL, evicting", None, 1 << 40),
            ("TTL, evicting", ttl, 1 << 40),
        ];
        for (what, expiry, limit) in kinds {
            let before = resident().0;
            let mut store = Store::new(HashSecret::draw(&mut Rng::new(1)), limit);
            store.set_eviction(Eviction::AnyItem);
            for id in 0..items {
                let expiry = expiry.and_then(|_| Expiry::in_seconds(Moment::from_millis(id / 100), 3_600));
                insert(&mut store, id, expiry);
            }
            let over = |bytes: u64| bytes as f64 / items as f64 - ITEM_BYTES as f64;
            row(
                &format!("memory, {items} items, {what}, resident"),
                over(resident().0 - before),
                "B over key+value",
            );
            row(
                &format!("memory, {items} items, {what}, memory_bytes"),
                over(store.memory_bytes()),
                "B over key+value",
            );
        }
    }
}

fn get(options: &Options) {
    let mut sizes = vec![scaled(options, 10_000), scaled(options, 1_000_000)];
    if options.has("--large") {
        sizes.push(scaled(options, 50_000_000));
    }
    for items in sizes {
        let store = filled(items);
        let mut best = [f64::MAX; 3];
        let gets = scaled(options, 4_000_000);
        // Drawn beforehand: drawing is no part of a lookup.
        let mut rng = Rng::new(1);
        let order: Vec<u32> = (0..gets).map(|_| rng.below(items) as u32).collect();
        for _ in 0..5 {
            let start = cpu();
            for &id in &order {
                let key = key_bytes(id.into());
                black_box(store.get(Moment::ZERO, store.key(&key)).expect("it is there").value.len());
            }
            best[0] = best[0].min((cpu() - start).as_nanos() as f64 / gets as f64);
            let start = cpu();
            for &id in &order {
                let key = key_bytes(items + u64::from(id));
                black_box(store.get(Moment::ZERO, store.key(&key)).is_none());
            }
            best[1] = best[1].min((cpu() - start).as_nanos() as f64 / gets as f64);
            best[2] = best[2].min(get_pipelined(&store, &order));
        }
        let (small, small_free) = far_read(items * 96, Pages::Small);
        let (chained, free) = far_read(items * 96, Pages::Huge);
        row(&format!("one far read in as much memory, {items} items"), small, "ns");
        row(&format!("the same in huge pages, {items} items"), chained, "ns");
        row(&format!("one far read, 16 at a time, {items} items"), small_free, "ns");
        row(&format!("the same in huge pages, {items} items"), free, "ns");
        row(&format!("GET hit, random, {items} items"), best[0], "ns");
        row(&format!("GET hit, random, {items} items"), best[0] / small, "far reads");
        row(&format!("GET miss, random, {items} items"), best[1], "ns");
        row(&format!("GET hit, 16 keys at a time, {items} items"), best[2], "ns a key");
    }
}

fn get_pipelined(store: &Store, order: &[u32]) -> f64 {
    let start = cpu();
    let (together, _) = order.as_chunks::<16>();
    for ids in together {
        let bytes: [[u8; KEY_BYTES]; 16] = ids.map(|id| key_bytes(id.into()));
        let keys: [HashedKey<'_>; 16] = std::array::from_fn(|at| store.key(&bytes[at]));
        store.prefetch(&keys.map(|key| key.hash), |_| {});
        for key in keys {
            black_box(store.get(Moment::ZERO, key).expect("it is there").value.len());
        }
    }
    (cpu() - start).as_nanos() as f64 / (together.len() * 16) as f64
}

/// The page size of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pages {
    /// 4 KiB, as in the store: nearly every far read misses the TLB.
    Small,
    Huge,
}

/// Measures a read at a random place in `bytes` bytes, in ns: if it depends on the one before, and if 16 do not depend
/// on each other. Lookups are compared with these.
fn far_read(bytes: u64, pages: Pages) -> (f64, f64) {
    let mut map = memmap2::MmapMut::map_anon(bytes as usize).expect("memory");
    if pages == Pages::Huge {
        let _ = map.advise(memmap2::Advice::HugePage);
    }
    let lines = bytes / 64;
    for line in 0..lines {
        map[line as usize * 64] = (line * 7) as u8;
    }
    let read = |line: u64| u64::from(map[(line % lines) as usize * 64]);
    let (mut chained, mut free, reads) = (f64::MAX, f64::MAX, 1_000_000);
    for round in 0..5 {
        let (mut rng, mut last) = (Rng::new(round), 0);
        let start = cpu();
        for _ in 0..reads {
            last = read(rng.below(lines) ^ last & 1);
        }
        chained = chained.min((cpu() - start).as_nanos() as f64 / reads as f64);
        let start = cpu();
        for _ in 0..reads / 16 {
            last ^= (0..16).fold(0, |sum, _| sum + read(rng.below(lines) ^ last & 1));
        }
        free = free.min((cpu() - start).as_nanos() as f64 / reads as f64);
        black_box(last);
    }
    (chained, free)
}

fn wheel(options: &Options) {
    let timers = scaled(options, 4_000_000);
    let (mut insert, mut drain) = (f64::MAX, f64::MAX);
    for round in 0..5 {
        let mut rng = Rng::new(round);
        let mut wheel = Wheel::mapped();
        let start = cpu();
        for id in 0..timers {
            wheel.insert(1_000 + rng.below(3_600_000), id as u32);
        }
        insert = insert.min((cpu() - start).as_nanos() as f64 / timers as f64);
        let start = cpu();
        let mut due = 0;
        let mut now = 0;
        while due < timers {
            now += 100;
            loop {
                match wheel.pop(now) {
                    Popped::Due { payload, .. } => {
                        black_box(payload);
                        due += 1;
                    }
                    Popped::Moved => {}
                    Popped::Idle => break,
                }
            }
        }
        drain = drain.min((cpu() - start).as_nanos() as f64 / timers as f64);
    }
    row(&format!("wheel, insert, {timers} timers"), insert, "ns");
    row(&format!("wheel, drain, {timers} timers"), drain, "ns");
    let timers = scaled(options, 10_000_000);
    let before = resident().0;
    let mut wheel = Wheel::mapped();
    let mut rng = Rng::new(1);
    for id in 0..timers {
        wheel.insert(1_000 + rng.below(3_600_000), id as u32);
    }
    row(&format!("wheel, {timers} timers, resident"), (resident().0 - before) as f64 / timers as f64, "B");
    row(&format!("wheel, {timers} timers, memory_bytes"), wheel.memory_bytes() as f64 / timers as f64, "B");
    drop(wheel);
    row("wheel, dropped, still resident", resident().0.saturating_sub(before) as f64 / 1_048_576.0, "MiB");
}

/// Measures reclaiming a million items that are due in one second, and in one millisecond.
fn expire(options: &Options) {
    let items = scaled(options, 1_000_000);
    for (what, spread) in [("one second", 1_000), ("one millisecond", 1)] {
        let (mut total, mut worst) = (Duration::MAX, Duration::MAX);
        for _ in 0..3 {
            let mut store = new_store();
            let mut rng = Rng::new(1);
            for id in 0..items {
                let due = Moment::from_millis(rng.below(spread));
                insert(&mut store, id, Expiry::in_seconds(due, 10));
            }
            let (start, mut longest) = (cpu(), Duration::ZERO);
            for millis in 10_000..12_000 {
                let now = Moment::from_millis(millis);
                while store.has_work(now) {
                    let before = cpu();
                    store.reclaim(now, 64);
                    longest = longest.max(cpu() - before);
                }
            }
            total = total.min(cpu() - start);
            worst = worst.min(longest);
            assert!(store.is_empty());
        }
        row(&format!("expire, {items} in {what}, CPU"), total.as_secs_f64() * 1e3, "ms");
        row(&format!("expire, {items} in {what}, longest reclaim"), worst.as_secs_f64() * 1e6, "µs");
    }
}

/// Measures SETEX then DEL, a million per second for ten seconds of the store's time.
fn churn(options: &Options) {
    let seconds = if options.quick { 1 } else { 10 };
    let mut store = new_store();
    let mut rng = Rng::new(1);
    let (start, mut timers_max) = (cpu(), 0);
    for millis in 0..seconds * 1_000 {
        let now = Moment::from_millis(millis);
        for turn in 0..1_000 {
            let key = key_bytes(rng.below(100_000));
            let expiry = Expiry::in_seconds(now, 30 + rng.below(100_000));
            store.set(Moment::ZERO, store.key(&key), &VALUE, expiry, Version(1)).expect("no limit");
            store.remove(now, store.key(&key), Version::MAX);
            if turn % 128 == 0 && store.has_work(now) {
                store.reclaim(now, 256);
            }
        }
        timers_max = timers_max.max(store.timers());
    }
    row("SETEX + DEL, at most, timers", timers_max as f64, "entries");
    row("SETEX + DEL, CPU a pair", (cpu() - start).as_nanos() as f64 / (seconds * 1_000_000) as f64, "ns");
}

/// Measures emptying a store by DELs, and at once.
fn empty(options: &Options) {
    let items = scaled(options, 5_000_000);
    let before = resident().0;
    for what in ["DEL", "clear"] {
        let mut store = filled(items);
        let mut rng = Rng::new(1);
        let mut ids: Vec<u64> = (0..items).collect();
        for at in (1..ids.len()).rev() {
            ids.swap(at, rng.below(at as u64 + 1) as usize);
        }
        let (start, mut longest) = (cpu(), Duration::ZERO);
        let mut step = |work: &mut dyn FnMut(&mut Store)| {
            let before = cpu();
            work(&mut store);
            longest = longest.max(cpu() - before);
        };
        if what == "clear" {
            step(&mut Store::clear);
        } else {
            for group in ids.chunks(GROUP as usize) {
                step(&mut |store| {
                    for &id in group {
                        let key = key_bytes(id);
                        assert_eq!(
                            store.remove(Moment::ZERO, store.key(&key), Version::MAX),
                            RemoveOutcome::Removed
                        );
                    }
                });
                step(&mut |store| _ = store.reclaim(Moment::ZERO, 16));
            }
        }
        drop(ids);
        let mut more = true;
        while more {
            step(&mut |store| {
                store.reclaim(Moment::ZERO, 256);
                more = store.has_work(Moment::ZERO);
            });
        }
        row(&format!("empty by {what}, {items} items, CPU"), (cpu() - start).as_secs_f64() * 1e3, "ms");
        row(&format!("empty by {what}, longest step"), longest.as_secs_f64() * 1e6, "µs");
        row(&format!("empty by {what}, memory_bytes left"), store.memory_bytes() as f64 / 1024.0, "KiB");
        let left = resident().0.saturating_sub(before);
        row(&format!("empty by {what}, resident left"), left as f64 / 1_048_576.0, "MiB");
    }
}

/// Measures keys with equal hashes, as from a constant hash function.
fn equal(options: &Options) {
    let items = if options.quick { 5_000 } else { 65_536 };
    for (what, mask) in [("all different", u64::MAX), ("all equal", 0)] {
        let mut store = Store::new(HashSecret::draw(&mut Rng::new(1)).masked(mask), 0);
        let mut longest = Duration::ZERO;
        for id in 0..items {
            let before = cpu();
            insert(&mut store, id, None);
            longest = longest.max(cpu() - before);
        }
        let start = cpu();
        for id in 0..items {
            let key = key_bytes(id);
            black_box(store.get(Moment::ZERO, store.key(&key)).expect("it is there").value.len());
        }
        row(&format!("{items} hashes {what}, longest SET"), longest.as_secs_f64() * 1e6, "µs");
        row(&format!("{items} hashes {what}, GET"), (cpu() - start).as_nanos() as f64 / items as f64, "ns");
        row(
            &format!("{items} hashes {what}, memory"),
            store.memory_bytes() as f64 / items as f64,
            "B per item",
        );
    }
}

/// CPU time from which on a SET is recorded.
const LONG: Duration = Duration::from_micros(100);

/// Measures a full store whose values change their size: the live share of its limit, the evicted bytes, and the CPU
/// time of a SET. In three equal rounds, since a SET's own time is the same in each, and delays by the machine are not.
fn shift(options: &Options) {
    let rounds = if options.quick { 1 } else { 3 };
    let mut long = HashMap::new();
    for round in 1..=rounds {
        shift_once(options, round, rounds, &mut long);
    }
}

/// Runs one round of [`shift`]; `long` has the SETs that were long in each round so far, with their number and least
/// time. The last round prints.
fn shift_once(options: &Options, round: u32, rounds: u32, long: &mut HashMap<u64, (u32, Duration)>) {
    let limit = if options.quick { 16 << 20 } else { 128u64 << 20 };
    let times = if options.quick { 2 } else { 3 };
    let before = resident().0;
    let mut store = Store::new(HashSecret::draw(&mut Rng::new(1)), limit);
    store.set_eviction(Eviction::AnyItem);
    let (mut id, value) = (0, vec![b'v'; 64 * 1024]);
    for len in [64, 1_024, 200, 16_384, 64, 40_000, 64] {
        let bytes_per_item = (KEY_BYTES + len) as u64;
        let mut latencies = Latencies::new(0);
        let (mut written, mut refused, mut sets, mut spent, mut longest) = (0, 0, 0, 0, Duration::ZERO);
        let (mut early, mut least) = (0.0, f64::MAX);
        let (first, live_before, item_bytes) = (id, store.live_bytes(), live_bytes_of_one(len));
        let (mut freed, mut needed) = (0, 0);
        while written < times * limit {
            let key = key_bytes(id);
            let before = cpu();
            let begin = Instant::now();
            let done = store.set(Moment::ZERO, store.key(&key), &value[..len], None, Version(id)).is_ok();
            let nanos = begin.elapsed().as_nanos() as usize;
            latencies.buckets[(nanos / 250).min(2_047)] += 1;
            let took = cpu() - before;
            longest = longest.max(took);
            if took >= LONG {
                let (count, least) = long.entry(id).or_insert((0, took));
                *least = took.min(*least);
                *count += 1;
            }
            spent += nanos;
            refused += u64::from(!done);
            sets += 1;
            id += 1;
            written += bytes_per_item;
            let share = store.live_bytes() as f64 / limit as f64;
            if written < 2 * limit {
                early = share;
                let set = (id - first) * item_bytes;
                freed = (live_before + set).saturating_sub(store.live_bytes());
                needed = (live_before + set).saturating_sub(limit * 9 / 10);
            } else {
                least = share.min(least);
            }
        }
        let mean = spent as f64 / f64::from(sets);
        let held = store.memory_bytes() as f64 / limit as f64;
        let rss = resident().0.saturating_sub(before) as f64 / limit as f64;
        let own = long.iter().filter(|&(at, (count, _))| (first..id).contains(at) && *count == round);
        let own = own.map(|(_, (_, took))| *took).max().unwrap_or_default();
        if round == rounds {
            println!(
                "values of {len} B: live {early:.3} after 2 x the limit, at least {least:.3} later; evicted {:.3} of \
                 what is needed for 0.9; held {held:.3}, resident {rss:.3}; SET mean {mean:.0} ns, p99.9 {} µs, \
                 longest {} µs of CPU, {} µs each time; refused {refused} of {sets}",
                freed as f64 / needed.max(1) as f64,
                latencies.percentile_micros(0.999),
                longest.as_micros(),
                own.as_micros(),
            );
            let memory = store.memory();
            let free: u64 = store.classes().map(|class| class.held - class.live).sum();
            let share = |bytes: u64| bytes as f64 / limit as f64;
            println!(
                "    of the limit: pages {:.3}, large objects {:.3}, free of both {:.3}, index {:.3} with {:.3} of entries, \
                 queues {:.3}",
                share(memory.pages),
                share(memory.large_objects),
                share(free),
                share(memory.index),
                share(6 * store.len() as u64),
                share(memory.queues),
            );
        }
    }
    if round == rounds {
        println!("evicted {} items", store.evicted());
    }
}

/// Returns the live bytes of an item with a value of `len` bytes.
fn live_bytes_of_one(len: usize) -> u64 {
    let mut store = Store::new(HashSecret::draw(&mut Rng::new(1)), 0);
    let key = key_bytes(1);
    let done = store.set(Moment::ZERO, store.key(&key), &vec![b'v'; len], None, Version(1));
    assert!(done.is_ok());
    store.live_bytes()
}

/// Latencies of insertions: a histogram, and the CPU time in ns of each group of 8, an upper bound for each of its
/// insertions.
struct Latencies {
    buckets: [u64; 2_048],
    groups: Vec<u32>,
}

impl Latencies {
    /// Reserves and touches the memory for `items` insertions, so that its first touch is not measured as the store's.
    fn new(items: u64) -> Self {
        Self { buckets: [0; 2_048], groups: vec![u32::MAX; (items / GROUP) as usize] }
    }

    /// Runs `step` for each id and keeps the shortest time of each group over all runs: the work of a group is the same
    /// in each run, and delays by the system are not. Returns the longest group of this run in µs, and the number of
    /// groups over 1 ms.
    fn run(&mut self, mut step: impl FnMut(u64)) -> (u32, usize) {
        let (mut longest, mut over_1_ms) = (0, 0);
        let mut before = cpu();
        for (group, shortest) in self.groups.iter_mut().enumerate() {
            for id in group as u64 * GROUP..(group as u64 + 1) * GROUP {
                let start = Instant::now();
                step(id);
                let quarters = start.elapsed().as_nanos() as usize / 250;
                self.buckets[quarters.min(2_047)] += 1;
            }
            let after = cpu();
            let nanos = after.saturating_sub(before).as_nanos().min(u32::MAX.into()) as u32;
            before = after;
            *shortest = nanos.min(*shortest);
            longest = nanos.max(longest);
            over_1_ms += usize::from(nanos > 1_000_000);
        }
        (longest / 1_000, over_1_ms)
    }

    /// Returns the longest group in µs.
    fn longest_micros(&self) -> f64 {
        self.groups.iter().max().map_or(0.0, |&nanos| f64::from(nanos) / 1e3)
    }

    fn over_1_ms(&self) -> usize {
        self.groups.iter().filter(|&&nanos| nanos > 1_000_000).count()
    }

    /// Returns the number of items and the longest group in µs of each 200th of the insertions.
    fn curve(&self) -> impl Iterator<Item = (u64, f64)> {
        let per_point = (self.groups.len() / CURVE_POINTS).max(1);
        self.groups.chunks(per_point).enumerate().map(move |(at, groups)| {
            let items = (at * per_point + groups.len()) as u64 * GROUP;
            (items, groups.iter().max().map_or(0.0, |&nanos| f64::from(nanos) / 1e3))
        })
    }

    fn percentile_micros(&self, share: f64) -> f64 {
        let total: u64 = self.buckets.iter().sum();
        let mut left = (total as f64 * (1.0 - share)) as u64;
        for (bucket, &count) in self.buckets.iter().enumerate().rev() {
            if count > left {
                return (bucket + 1) as f64 / 4.0;
            }
            left -= count;
        }
        0.0
    }
}

fn grow(options: &Options) {
    let items = scaled(options, if options.has("--large") { 50_000_000 } else { 5_000_000 });
    let mut ours = Latencies::new(items);
    let before = resident().0;
    // Resets the peak of resident memory.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let mut runs = Vec::new();
    let mut grown_bytes = 0;
    for round in 0..5 {
        let start = cpu();
        let mut store = new_store();
        runs.push(ours.run(|id| insert(&mut store, id, None)));
        let spent = cpu() - start;
        if round == 0 {
            let (settled, peak) = resident();
            grown_bytes = settled.saturating_sub(before);
            row(&format!("grow to {items}, mean"), spent.as_nanos() as f64 / items as f64, "ns");
            row(&format!("grow to {items}, resident"), grown_bytes as f64 / 1_048_576.0, "MiB");
            row(
                &format!("grow to {items}, peak of what it settles at"),
                peak as f64 / settled as f64,
                "times",
            );
        }
    }
    println!("longest group of 8 in µs of CPU, and how many over 1 ms, in each run: {runs:?}");
    row(
        &format!("grow to {items}, longest, best of 5 runs"),
        ours.longest_micros(),
        "µs of CPU (8 at a time)",
    );
    row(&format!("grow to {items}, over 1 ms, best of 5 runs"), ours.over_1_ms() as f64, "groups of 8");
    row(&format!("grow to {items}, p99.99"), ours.percentile_micros(0.9999), "µs");
    row(&format!("grow to {items}, p99.9"), ours.percentile_micros(0.999), "µs");
    first_touches(grown_bytes);
    let mut theirs = Latencies::new(items);
    let mut map: hashbrown::HashMap<u64, u64> = hashbrown::HashMap::new();
    theirs.run(|id| {
        map.insert(id, id);
    });
    row(&format!("hashbrown to {items} of 16 B, longest, CPU"), theirs.longest_micros(), "µs");
    row(&format!("hashbrown to {items} of 16 B, p99.99"), theirs.percentile_micros(0.9999), "µs");
    if let Some(path) = options.value("--csv") {
        let mut file = std::fs::File::create(path).expect("a file to write");
        file.write_all(CURVE_HEAD.as_bytes()).expect("a file to write");
        for ((items, ours), (_, theirs)) in ours.curve().zip(theirs.curve()) {
            writeln!(file, "{items},{ours},{theirs}").expect("a file to write");
        }
    }
}

/// Measures the system's time for fresh memory, mapped per region and touched per page as in the store: the lower bound
/// of an insertion that needs a first touch.
fn first_touches(bytes: u64) {
    const REGION_BYTES: usize = 256 * 1024;
    let (mut longest, mut over_1_ms, mut regions) = (Duration::ZERO, 0, Vec::new());
    for _ in 0..bytes / REGION_BYTES as u64 {
        let mut region = memmap2::MmapMut::map_anon(REGION_BYTES).expect("memory");
        for page in region.chunks_mut(4_096) {
            let start = cpu();
            page[0] = 1;
            let took = cpu() - start;
            longest = longest.max(took);
            over_1_ms += u32::from(took >= Duration::from_millis(1));
        }
        regions.push(region);
    }
    println!("first touches of so much memory over 1 ms of CPU: {over_1_ms}");
    row("first touch of a page alone, longest, CPU", longest.as_secs_f64() * 1e6, "µs");
}
