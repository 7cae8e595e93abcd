//! The resident memory of a process after a store was filled with large values and emptied, and after a filter was
//! outgrown: freed memory returns to the system.
//!
//! The tests run in a process of their own and one after the other, since they measure the whole process.
//! `OLIVIA_STORE_VALUES=100000` sets the number of large values, of 60 KiB on average.
//!
//! Not here: counted memory, which `store_oracle` compares with an audit.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use olivia::base::rng::Rng;
use olivia::base::time::Instant;
use olivia::filter::bloom::Bloom;
use olivia::filter::size::Size;
use olivia::store::{HashSecret, RemoveOutcome, Store, Version};
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const MIB: u64 = 1 << 20;

static ALONE: Mutex<()> = Mutex::new(());

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kib * 1_024
}

struct World {
    store: Store,
    rng: Rng,
    now: Instant,
}

impl World {
    fn set(&mut self, id: u64, len: usize) {
        let value = vec![7; len];
        let key = id.to_be_bytes();
        let key = self.store.key(&key);
        self.store.set(self.now, key, &value, None, Version(id)).unwrap();
        self.tick(4);
    }

    fn remove(&mut self, id: u64) {
        let key = id.to_be_bytes();
        let removed = self.store.remove(self.now, self.store.key(&key), Version::MAX);
        assert_eq!(removed, RemoveOutcome::Removed);
        self.tick(4);
    }

    fn tick(&mut self, budget: u32) {
        if self.store.has_work(self.now) {
            self.store.reclaim(self.now, budget);
        }
    }

    /// Until nothing is left to do, also when what waits for a while is due.
    fn rest(&mut self) {
        for _ in 0..3 {
            let mut steps = 0;
            while self.store.has_work(self.now) {
                self.tick(256);
                steps += 1;
                assert!(steps < 1_000_000, "work without end");
            }
            self.now = self.now.after(Duration::from_secs(2));
        }
    }

    /// Sets as many large values as are named, with 20 small ones each; gives the ids of all.
    fn fill(&mut self, values: u64) -> Vec<u64> {
        for id in 0..values * 21 {
            let len =
                if id % 21 == 0 { 20 * 1_024 + self.rng.below(80 * 1_024) } else { self.rng.below(200) };
            self.set(id, usize::try_from(len).unwrap());
        }
        (0..values * 21).collect()
    }
}

#[test]
fn emptied_store_of_large_values_returns_memory_to_the_system() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let values = std::env::var("OLIVIA_STORE_VALUES").map_or(2_000, |text| text.parse().unwrap());
    let store = Store::new(HashSecret::draw(&mut Rng::new(1)), 0);
    let mut world = World { store, rng: Rng::new(2), now: Instant::ZERO };
    let begin = resident_bytes();
    // Beside what the store counts, which with few items is next to nothing.
    let most = begin + begin * 3 / 10 + 16 * MIB;
    for _ in 0..3 {
        let mut ids = world.fill(values);
        let full = resident_bytes();
        for at in (1..ids.len()).rev() {
            ids.swap(at, usize::try_from(world.rng.below(at as u64 + 1)).unwrap());
        }
        for keep in [ids.len() / 10, 1, 0] {
            ids.drain(keep..).for_each(|id| world.remove(id));
            ids.shrink_to_fit();
            world.rest();
            let (left, counted) = (resident_bytes(), world.store.memory_bytes());
            println!("{} MiB, {keep} items left: {} MiB, {} counted", full / MIB, left / MIB, counted / MIB);
            assert!(left <= most + counted, "{} MiB are left of {}", left / MIB, full / MIB);
            assert!(keep < 2 || counted < full / 3, "{} MiB of {} are counted", counted / MIB, full / MIB);
        }
    }
}

#[test]
fn outgrown_filter_returns_memory_to_the_system() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let begin = resident_bytes();
    let mut filter = None;
    for log2 in 10..=18 {
        let mut larger = Bloom::try_new(Size::from_log2(log2).unwrap()).unwrap();
        (0..1 << log2).for_each(|block| assert!(larger.replace_block(block, &[1; 8])));
        let (held, bytes) = (resident_bytes() - begin, larger.bytes());
        assert!(held < bytes + bytes / 2 + MIB, "{} KiB for a filter of {}", held >> 10, bytes >> 10);
        filter = Some(larger);
    }
    drop(filter);
}
