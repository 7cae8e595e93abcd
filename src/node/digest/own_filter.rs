//! What this node publishes of its keys: its own filter, which follows the store, and the digest of its
//! changes.
//!
//! Keys that come are told at once ([`OwnFilter::added`]). Keys that go are not told at all: the store
//! counts them by segment, and a segment that has lost 7 % of its keys has its blocks made again from
//! the keys that are left. That waits for a second after the first segment is worn, four while nobody reads
//! the digest, so that a burst in which a third of all keys expires makes each block again once, and not
//! once for each 7 %.
//!
//! The filter is doubled when a key has less than 12 bits (16 above 8 peers), and halved when a quarter
//! of it would do. After doubling both halves of a block claim all of its keys: one pass over the store
//! makes each block again, and tells it. All of it in steps of some 50 µs at most.
//!
//! Not here: connections, frames, peers; who reads the digest asks [`OwnFilter::parts`] for it.

use crate::base::time::Instant;
use crate::filter::bloom::Bloom;
use crate::filter::changelog::Changelog;
use crate::filter::size::Size;
use crate::store::{HashRange, SegmentScan, Store};
use std::ops::Range;
use std::time::Duration;

/// Bits of the filter for a key, up to so many peers and above.
const FEW_PEERS: usize = 8;
const BITS_PER_KEY: [u32; 2] = [12, 16];

/// The smallest filter, as the logarithm of its blocks: 4 KiB.
const SIZE_LOG2_MIN: u8 = 6;

/// A filter is halved when it is larger than its keys need by this power of two.
const SLACK_LOG2: u8 = 2;

/// For how long worn segments wait, from the first on: while somebody reads the digest, and while nobody does,
/// so that making them again is of no use yet.
const PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE_ALONE: Duration = Duration::from_secs(4);

/// Blocks that are made again together at most.
const BLOCKS_MAX: usize = 256;

/// Hashes that are gathered for a few blocks at most. A single block that so many keys fall into has
/// every bit set and stays as it is.
const HASHES_MAX: usize = 4_096;

/// Additions after which a filter that has work does a step of it, whatever the turns of the loop leave
/// it. A segment holds some 600 keys, so a pass over all of them is done before they have doubled again.
const ADDITIONS_PER_STEP: u32 = 512;

/// The same while it is being doubled: sooner, since until that is done every key makes it fuller.
const ADDITIONS_PER_GROWTH_STEP: u32 = 64;

/// Blocks that are being made again.
#[derive(Debug)]
struct Rebuild {
    /// Those that are still to be done.
    blocks: Range<usize>,
    /// How many of them are being done now, and the hashes that belong in these.
    span: usize,
    range: HashRange,
    at: SegmentScan,
}

/// The own filter and its digest; see the module.
#[derive(Debug)]
pub(in crate::node) struct OwnFilter {
    filter: Bloom,
    digest: Changelog,
    bits_per_key: u32,
    rebuild: Option<Rebuild>,
    /// What was gathered for the blocks that are being done now.
    hashes: Vec<u64>,
    changed: Vec<u32>,
    /// Since the filter was doubled, the first block that was not yet made again.
    pass: Option<usize>,
    /// Since when segments are worn, as far as was looked.
    worn_since: Option<Instant>,
    /// Keys at which the system had no memory for a larger filter.
    starved_at: Option<usize>,
    additions: u32,
    /// Of these, as many as steps were done for.
    kept_up: u32,
}

impl OwnFilter {
    /// An empty filter of 4 KiB. `epoch` must be larger in each life of the node.
    pub(in crate::node) fn new(epoch: u64) -> Self {
        let size = Size::from_log2(SIZE_LOG2_MIN).unwrap_or(Size::MIN);
        Self {
            filter: Bloom::new(size),
            digest: Changelog::new(epoch, size),
            bits_per_key: BITS_PER_KEY[0],
            rebuild: None,
            hashes: Vec::new(),
            changed: Vec::new(),
            pass: None,
            worn_since: None,
            starved_at: None,
            additions: 0,
            kept_up: 0,
        }
    }

    /// Notes that the store now has a key with this hash which it did not have; [`OwnFilter::keep_up`] is to
    /// follow. O(1), one far write.
    #[inline]
    pub(in crate::node) fn added(&mut self, now: Instant, hash: u64) {
        self.filter.insert(hash);
        self.digest.added(now, hash);
        if let Some(rebuild) = &self.rebuild
            && rebuild.range.contains(hash)
        {
            self.hashes.push(hash);
        }
        self.additions = self.additions.wrapping_add(1);
    }

    /// Does what is to be done for each 64 additions: a step, if it is time, and the account of the memory. Not
    /// before the last key of a request is set: a filter that begins to grow, and a log that does, take of the
    /// memory that the request was granted.
    #[inline]
    pub(in crate::node) fn keep_up(&mut self, now: Instant, store: &mut Store) {
        while self.additions.wrapping_sub(self.kept_up) >= ADDITIONS_PER_GROWTH_STEP {
            self.kept_up = self.kept_up.wrapping_add(ADDITIONS_PER_GROWTH_STEP);
            self.account(store);
            self.step_if_time(now, store);
        }
    }

    /// Counts what filter and log take as memory of the store, and has the log keep to its share of that.
    fn account(&mut self, store: &mut Store) {
        self.digest.limit_log(store.memory_max());
        store.reserve(self.filter.bytes() + self.digest.log_bytes());
    }

    fn step_if_time(&mut self, now: Instant, store: &mut Store) {
        let is_growing = self.filter.is_reshaping() || self.must_grow(store);
        let is_time = is_growing || self.kept_up.is_multiple_of(ADDITIONS_PER_STEP);
        if is_time && self.has_work(now, store) {
            self.step(now, store);
        }
    }

    /// Does one bounded piece of what there is to do, some 50 µs at most; true if there is more.
    pub(in crate::node) fn step(&mut self, now: Instant, store: &mut Store) -> bool {
        if self.filter.is_reshaping() {
            self.reshape();
        } else if self.must_grow(store) {
            self.grow(now, store);
        } else if self.rebuild.is_some() {
            self.rebuild(now, store);
        } else if let Some(block) = self.pass {
            let range = store.mark_rebuilt(hashes_of(self.filter.size(), block..block + 1).first);
            self.begin_rebuild(range, Some(block));
            self.rebuild(now, store);
        } else if store.has_rebuilds() {
            self.look_for_worn(now, store);
        } else if self.may_shrink(store) && self.filter.start_fold().is_ok() {
            self.digest.resized(now, self.filter.size());
        }
        if self.is_digest_old(now) {
            self.digest.trim(now);
        }
        self.account(store);
        self.has_work(now, store)
    }

    /// Whether [`OwnFilter::step`] has something to do now. O(1).
    pub(in crate::node) fn has_work(&self, now: Instant, store: &Store) -> bool {
        let has_rebuilds = store.has_rebuilds();
        self.filter.is_reshaping()
            || self.rebuild.is_some()
            || self.pass.is_some()
            || self.must_grow(store)
            || has_rebuilds && self.worn_due().is_none_or(|due| due <= now)
            || !has_rebuilds && self.may_shrink(store)
            || self.is_digest_old(now)
    }

    /// When [`OwnFilter::step`] will next have something to do, if it has nothing now; `None`: never, as
    /// things stand. O(1).
    pub(in crate::node) fn next_deadline(&self, store: &Store) -> Option<Instant> {
        let worn = self.worn_due().filter(|_| store.has_rebuilds());
        worn.into_iter().chain(self.digest.empty_at()).min()
    }

    /// The own filter.
    pub(in crate::node) const fn filter(&self) -> &Bloom {
        &self.filter
    }

    /// The size that the keys of a store need.
    fn wanted(&self, store: &Store) -> Size {
        Size::for_keys(store.len() as u64, self.bits_per_key).unwrap_or(Size::MAX)
    }

    /// Whether the filter is too small and can be larger. Doubling holds three times its bytes for a while.
    fn must_grow(&self, store: &Store) -> bool {
        !self.filter.is_reshaping()
            && self.wanted(store) > self.filter.size()
            && self.starved_at.is_none_or(|keys| store.len() > keys + keys / 8)
            && store.has_room_for(2 * self.filter.bytes())
    }

    fn may_shrink(&self, store: &Store) -> bool {
        let log2 = self.filter.size().log2();
        log2 > SIZE_LOG2_MIN && log2 >= self.wanted(store).log2() + SLACK_LOG2
    }

    fn is_digest_old(&self, now: Instant) -> bool {
        self.digest.empty_at().is_some_and(|due| due <= now)
    }

    /// Begins to double. What is being made again is left, since all of it will be.
    fn grow(&mut self, now: Instant, store: &Store) {
        if self.filter.start_stretch().is_err() {
            self.starved_at = Some(store.len());
            return;
        }
        self.starved_at = None;
        self.digest.resized(now, self.filter.size());
        self.end_rebuild();
        self.pass = None;
    }

    fn reshape(&mut self) {
        let before = self.filter.coarse_size();
        if !self.filter.step() && self.filter.size() > before {
            self.pass = Some(0);
        }
    }

    fn look_for_worn(&mut self, now: Instant, store: &mut Store) {
        let Some(due) = self.worn_due() else {
            self.worn_since = Some(now);
            return;
        };
        if due > now {
            return;
        }
        if let Some(range) = store.take_rebuild() {
            self.begin_rebuild(range, None);
        }
        if !store.has_rebuilds() {
            self.worn_since = None;
        }
    }

    /// When worn segments are made again, if any were seen.
    fn worn_due(&self) -> Option<Instant> {
        let patience = if self.digest.is_read() { PATIENCE } else { PATIENCE_ALONE };
        Some(self.worn_since?.after(patience))
    }

    /// Begins to make the blocks of a range of hashes again, from block `from` on.
    fn begin_rebuild(&mut self, range: HashRange, from: Option<usize>) {
        let size = self.filter.size();
        let first = from.unwrap_or_else(|| size.block_of(range.first));
        let blocks = first..size.block_of(range.last) + 1;
        let span = blocks.len().min(BLOCKS_MAX);
        self.begin_span(blocks, span);
    }

    fn begin_span(&mut self, blocks: Range<usize>, span: usize) {
        self.hashes.clear();
        let range = hashes_of(self.filter.size(), blocks.start..blocks.start + span);
        self.rebuild = Some(Rebuild { blocks, span, range, at: SegmentScan::Segments(range.first) });
    }

    fn end_rebuild(&mut self) {
        self.hashes.clear();
        self.rebuild = None;
    }

    /// Gathers the hashes of one segment more, and makes the blocks again when it was the last.
    fn rebuild(&mut self, now: Instant, store: &mut Store) {
        let Some(rebuild) = &mut self.rebuild else { return };
        rebuild.at = store.scan_hashes(rebuild.range, rebuild.at, &mut self.hashes);
        let is_crowded = self.hashes.len() > HASHES_MAX;
        if !is_crowded && rebuild.at != SegmentScan::Done {
            return;
        }
        let (blocks, span) = (rebuild.blocks.clone(), rebuild.span);
        if is_crowded && span > 1 {
            return self.begin_span(blocks, span / 2);
        }
        let done = blocks.start..blocks.start + span;
        self.changed.clear();
        if !is_crowded {
            self.filter.rebuild_blocks(done.clone(), self.hashes.drain(..), &mut self.changed);
        }
        self.tell(now, done.clone());
        let left = done.end..blocks.end;
        if left.is_empty() {
            let is_last = done.end == self.filter.size().blocks();
            self.pass = self.pass.map(|_| done.end).filter(|_| !is_last);
            return self.end_rebuild();
        }
        let span = left.len().min(span);
        self.begin_span(left, span);
    }

    /// Tells the blocks that changed, in the pass after a doubling all that were made again.
    fn tell(&mut self, now: Instant, done: Range<usize>) {
        let size = self.filter.coarse_size();
        if self.pass.is_some() {
            self.changed.clear();
            self.changed.extend(done.filter_map(|block| u32::try_from(block).ok()));
        }
        for &block in &self.changed {
            self.digest.rebuilt(now, size, block);
        }
    }
}

/// What the mesh asks for.
impl OwnFilter {
    /// Sets how many peers the filter is published to: above 8 of them a key gets 16 bits, not 12.
    pub(in crate::node) fn set_peers(&mut self, count: usize) {
        self.bits_per_key = BITS_PER_KEY[usize::from(count > FEW_PEERS)];
    }

    /// The digest.
    pub(in crate::node) const fn digest(&self) -> &Changelog {
        &self.digest
    }

    /// Both at once, to read changes and pieces of snapshots.
    pub(in crate::node) const fn parts(&mut self) -> (&Bloom, &mut Changelog) {
        (&self.filter, &mut self.digest)
    }
}

/// The hashes whose blocks these are, at a size.
fn hashes_of(size: Size, blocks: Range<usize>) -> HashRange {
    let first_of = |block: usize| (block as u64).checked_shl(64 - u32::from(size.log2())).unwrap_or(0);
    let last = if blocks.end >= size.blocks() { u64::MAX } else { first_of(blocks.end) - 1 };
    HashRange { first: first_of(blocks.start), last }
}

#[cfg(test)]
mod tests {
    use super::{OwnFilter, SIZE_LOG2_MIN};
    use crate::base::rng::Rng;
    use crate::base::time::Instant;
    use crate::filter::bloom::Bloom;
    use crate::filter::changelog::{Piece, Position, ReaderKey};
    use crate::filter::receiver::{Outcome, Receiver};
    use crate::filter::{FilterKey, PeerFilters};
    use crate::store::{Expiry, HashSecret, SetOutcome, Store, Version};
    use std::collections::HashMap;
    use std::time::Duration;

    /// A store, what is published of it, and a peer that reads that.
    struct World {
        now: Instant,
        store: Store,
        own_filter: OwnFilter,
        /// What lives: its hash, and the millisecond of its deadline.
        live: HashMap<u64, (u64, Option<u64>)>,
        reader: ReaderKey,
        filters: PeerFilters,
        key: FilterKey,
        receiver: Receiver,
    }

    impl World {
        fn new(mask: u64, seed: u64) -> Self {
            let mut own_filter = OwnFilter::new(7);
            let reader = own_filter.parts().1.join(None);
            let mut filters = PeerFilters::new(1 << 26);
            let key = filters.join();
            Self {
                now: Instant::from_millis(1_000),
                store: Store::new(HashSecret::draw(&mut Rng::new(seed)).masked(mask), 0),
                own_filter,
                live: HashMap::new(),
                reader,
                filters,
                key,
                receiver: Receiver::new(key),
            }
        }

        fn set(&mut self, id: u64, seconds: Option<u64>) {
            let bytes = id.to_be_bytes();
            let key = self.store.key(&bytes);
            let deadline = seconds.and_then(|seconds| Expiry::in_seconds(self.now, seconds));
            if self.store.set(self.now, key, b"value", deadline, Version(1)).unwrap() == SetOutcome::Created {
                self.own_filter.added(self.now, key.hash.0);
                self.own_filter.keep_up(self.now, &mut self.store);
            }
            self.live.insert(id, (key.hash.0, deadline.map(Expiry::millis)));
        }

        fn remove(&mut self, id: u64) {
            self.store.remove(self.now, self.store.key(&id.to_be_bytes()), Version::MAX);
            self.live.remove(&id);
        }

        fn pass_time(&mut self, millis: u64) {
            self.now = self.now.after(Duration::from_millis(millis));
            let now = self.now.millis();
            self.live.retain(|_, (_, deadline)| deadline.is_none_or(|deadline| deadline > now));
        }

        /// Something for the peer, if there is; true if so.
        fn pump(&mut self) -> bool {
            let (receiver, filters) = (&mut self.receiver, &mut self.filters);
            let (filter, digest) = self.own_filter.parts();
            let mut words = Vec::new();
            let outcome = if let Some((seq, change)) = digest.next_change(self.reader, filter) {
                let at = Position { epoch: digest.head().epoch, seq };
                receiver.change(filters, at, &change).unwrap()
            } else {
                match digest.next_piece(self.reader, filter, &mut words) {
                    None => return false,
                    Some(Piece::Begin { position, size }) => {
                        receiver.begin(filters, position, size).unwrap();
                        Outcome::Applied
                    }
                    Some(Piece::Blocks { first }) => receiver.blocks(filters, first, &words).unwrap(),
                    Some(Piece::End) => receiver.end(filters).unwrap(),
                }
            };
            if let Outcome::Resync(at) = outcome {
                digest.resync(self.reader, at);
            }
            true
        }

        fn check(&self) {
            for (id, (hash, _)) in &self.live {
                assert!(self.own_filter.filter().contains(*hash), "{id} is missing");
            }
        }

        /// One step of everything; true if there is more.
        fn work(&mut self) -> bool {
            if self.store.has_work(self.now) {
                self.store.reclaim(self.now, 64);
            }
            let mut more = self.own_filter.step(self.now, &mut self.store);
            more |= self.store.has_work(self.now);
            let pumped = (0..64).filter(|_| self.pump()).count() > 0;
            more | pumped | self.filters.step()
        }

        fn reconcile(&mut self) {
            let mut steps = 0;
            while self.work() {
                steps += 1;
                assert!(steps < 1_000_000, "work without end");
            }
        }

        /// Lets all deadlines pass that are there without doing anything; nothing is left to wake up for.
        fn come_to_rest(&mut self) {
            self.reconcile();
            for _ in 0..4 {
                self.pass_time(1_001);
                self.reconcile();
            }
            self.check();
            self.check_peer();
        }

        fn check_peer(&mut self) {
            let (filter, digest) = self.own_filter.parts();
            self.receiver.heard_head(&mut self.filters, digest.head());
            assert_eq!(self.receiver.position(), Some(digest.head()));
            assert!(!self.filters.is_unknown(self.key));
            for number in 0..filter.size().blocks() {
                let theirs = self.filters.block(self.key, number);
                assert_eq!(theirs, filter.image(filter.size(), number), "block {number}");
            }
        }

        /// The share of hashes of no key that the filter claims, by that of a fresh one with the same keys.
        fn excess(&self) -> f64 {
            let filter = self.own_filter.filter();
            let mut fresh = Bloom::new(filter.size());
            self.live.values().for_each(|(hash, _)| _ = fresh.insert(*hash));
            let mut rng = Rng::new(99);
            let (mut claimed, mut rightly) = (0, 0);
            for _ in 0..1_000_000 {
                let hash = rng.next_u64();
                claimed += u32::from(filter.contains(hash));
                rightly += u32::from(fresh.contains(hash));
            }
            f64::from(claimed) / f64::from(rightly.max(1))
        }
    }

    fn churn(mask: u64, keys: u64, operations: u64, seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let mut world = World::new(mask, seed);
        let mut grows = true;
        for step in 0..operations {
            if step % (operations / 8) == 0 {
                grows = !grows;
                world.check();
            }
            let id = rng.below(keys);
            match rng.below(100) {
                0..30 if grows => world.set(id, None),
                30..60 if grows => world.set(id, Some(1 + rng.below(20))),
                0..5 => world.set(id, Some(1 + rng.below(3))),
                5..60 => world.remove(id),
                60..61 => world.pass_time(rng.below(300)),
                61..80 => _ = world.work(),
                _ => {
                    if let Some((hash, _)) = world.live.get(&id) {
                        assert!(world.own_filter.filter().contains(*hash), "{id} is missing at {step}");
                    }
                }
            }
            if world.own_filter.filter().is_reshaping() && rng.one_in(64) {
                world.check();
            }
        }
        world.come_to_rest();
        world
    }

    #[test]
    fn no_key_is_ever_missing_and_the_peer_ends_equal() {
        for seed in 0..3 {
            let mut world = churn(u64::MAX, 30_000, 400_000, seed);
            let excess = world.excess();
            assert!(excess < 1.5, "{excess} times the false positives of a fresh filter");
            let keys: Vec<u64> = world.live.keys().copied().collect();
            keys.into_iter().for_each(|id| world.remove(id));
            world.come_to_rest();
            assert_eq!((world.own_filter.filter().ones(), world.store.len()), (0, 0));
            assert_eq!(world.own_filter.filter().size().log2(), SIZE_LOG2_MIN);
        }
    }

    #[test]
    fn no_key_is_missing_where_hashes_are_alike() {
        for mask in [0, 0xF << 60, u64::MAX >> 30, u64::MAX << 40] {
            churn(mask, 12_000, 100_000, 5);
        }
    }

    #[test]
    fn third_of_all_keys_expiring_at_once_makes_each_block_again_once() {
        let mut world = World::new(u64::MAX, 1);
        let mut rng = Rng::new(1);
        for id in 0..100_000 {
            let seconds = rng.one_in(3).then(|| 10 + id % 2);
            world.set(id, seconds);
            world.pump();
        }
        world.reconcile();
        let (told, blocks) =
            (world.own_filter.parts().1.head().seq, world.own_filter.filter().size().blocks());
        for _ in 0..12_000 {
            world.pass_time(1);
            (0..4).for_each(|_| _ = world.work());
        }
        world.come_to_rest();
        let told = world.own_filter.parts().1.head().seq - told;
        assert!(told <= blocks as u64 + blocks as u64 / 4, "{told} of {blocks} blocks");
        assert!(!world.store.has_rebuilds() && world.excess() < 1.5);
    }

    #[test]
    fn worn_segments_wait_longer_while_nobody_reads() {
        let mut world = World::new(u64::MAX, 1);
        world.own_filter.parts().1.leave(world.reader);
        (0..5_000).for_each(|id| world.set(id, None));
        while world.own_filter.step(world.now, &mut world.store) {}
        (0..1_000).for_each(|id| world.remove(id));
        while world.own_filter.step(world.now, &mut world.store) {}
        let due = |world: &World| world.own_filter.worn_due().unwrap();
        assert_eq!(due(&world), world.now.after(Duration::from_secs(4)));
        world.pass_time(1_500);
        assert!(!world.own_filter.has_work(world.now, &world.store));
        world.reader = world.own_filter.parts().1.join(None);
        assert!(due(&world) < world.now && world.own_filter.has_work(world.now, &world.store));
        world.come_to_rest();
        assert!(!world.store.has_rebuilds());
    }

    #[test]
    fn filter_keeps_to_its_bits_a_key_in_time() {
        let mut world = World::new(u64::MAX, 1);
        for id in 0..300_000 {
            world.set(id, None);
            let bits = world.own_filter.filter().size().bits() / world.store.len() as u64;
            assert!(bits >= 11, "{bits} bits a key at {id}");
        }
        world.reconcile();
        assert!(world.excess() < 1.01);
        let before = world.own_filter.filter().size();
        world.own_filter.set_peers(9);
        world.reconcile();
        assert!(world.own_filter.filter().size() > before);
    }

    #[test]
    fn idle_filter_wakes_nobody() {
        let mut world = World::new(u64::MAX, 1);
        assert_eq!(world.own_filter.next_deadline(&world.store), None);
        (0..20_000).for_each(|id| world.set(id, None));
        (0..10_000).for_each(|id| world.remove(id));
        world.reconcile();
        let mut wakes = 0;
        while let Some(due) = world.own_filter.next_deadline(&world.store) {
            assert!(due > world.now, "due in the past");
            world.now = due;
            assert!(world.own_filter.has_work(world.now, &world.store), "woken for nothing");
            world.reconcile();
            wakes += 1;
        }
        assert!(wakes <= 3, "{wakes}");
    }

    #[test]
    fn filter_counts_as_memory_and_does_not_grow_past_the_limit() {
        let mut world = World::new(u64::MAX, 1);
        world.store.set_memory_max(3 << 20);
        let mut refused = 0;
        for id in 0u64..60_000 {
            let bytes = id.to_be_bytes();
            let key = world.store.key(&bytes);
            match world.store.set(world.now, key, &[0; 40], None, Version(1)) {
                Ok(_) => {
                    world.own_filter.added(world.now, key.hash.0);
                    world.own_filter.keep_up(world.now, &mut world.store);
                }
                Err(_) => refused += 1,
            }
            assert!(world.store.memory_bytes() <= 3 << 20);
        }
        world.reconcile();
        let with = world.store.memory_bytes();
        let (bytes, log) = (world.own_filter.filter().bytes(), world.own_filter.digest().log_bytes());
        world.store.reserve(0);
        let without = world.store.memory_bytes();
        assert!(refused > 0 && with - without == bytes + log && bytes >= 32 << 10, "{bytes}");
    }

    #[test]
    fn log_of_changes_counts_as_memory_and_takes_a_small_share_of_it() {
        for (memory_max, log_max, keys) in [(2 << 20, 128 << 10, 20_000), (32 << 20, 2 << 20, 140_000)] {
            let mut world = World::new(u64::MAX, 1);
            world.store.set_memory_max(memory_max);
            let mut most = 0;
            // Keys that come and go, all within the time that the log is kept.
            for id in 0..keys {
                let bytes = u64::to_be_bytes(id);
                let key = world.store.key(&bytes);
                world.store.set(world.now, key, b"", None, Version(1)).unwrap();
                world.own_filter.added(world.now, key.hash.0);
                world.own_filter.keep_up(world.now, &mut world.store);
                world.store.remove(world.now, key, Version::MAX);
                most = most.max(world.own_filter.digest().log_bytes());
            }
            let counted = world.store.memory_bytes();
            world.store.reserve(0);
            assert!(counted - world.store.memory_bytes() > log_max, "the log is not counted");
            // What lies across the ends of two chunks, and the next one.
            assert!((log_max..=log_max + (2 << 16)).contains(&most), "{most} bytes of {memory_max}");
            // And all of it is given back when nothing comes for long.
            for _ in 0..2 {
                world.pass_time(31_000);
                while world.own_filter.step(world.now, &mut world.store) {}
            }
            assert_eq!(world.own_filter.digest().log_bytes(), 0);
        }
    }
}
