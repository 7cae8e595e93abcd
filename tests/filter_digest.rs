//! Digest sync from one node to another over a link that breaks at any message: a filter that counts as known never
//! lacks a published key, and after all messages both filters are equal. Random histories, and all histories of a few
//! actions.

use olivia::base::rng::Rng;
use olivia::base::time::Instant;
use olivia::filter::bloom::Bloom;
use olivia::filter::changelog::{Bulk, BulkBuffer, Changelog, LOG_ENTRIES_MAX, Position, ReaderKey};
use olivia::filter::receiver::{ApplyResult, ReceiveError, Receiver};
use olivia::filter::size::{Block, Size};
use olivia::filter::{FilterKey, PeerFilters};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

enum Message {
    Head(Position),
    Addition(u64, u64),
    Block(u64, u32, Block),
    Begin(Position, Size),
    Blocks(u32, Vec<u64>),
    End,
}

/// Both nodes and the link between them.
struct World {
    now: Instant,
    /// The keys, each with the number of its addition.
    live: HashMap<u64, u64>,
    filter: Bloom,
    /// A filter of another size in the making, and its next block that is not done.
    migration: Option<(Bloom, usize)>,
    /// A message was lost and those after it were not, which a link does not do: an addition may be applied after the
    /// image of a block from which it is gone. No key is missing for that, but one that is gone may be claimed.
    has_lost: bool,
    digest: Changelog,
    reader: ReaderKey,
    link: VecDeque<Message>,
    back: VecDeque<Option<Position>>,
    filters: PeerFilters,
    key: FilterKey,
    receiver: Receiver,
}

impl World {
    fn new(log2: u8) -> Self {
        let size = Size::from_log2(log2).unwrap();
        let mut digest = Changelog::new(7, size);
        let mut filters = PeerFilters::new(1 << 24);
        let (reader, key) = (digest.join(None), filters.join());
        Self {
            now: Instant::ZERO,
            live: HashMap::new(),
            filter: Bloom::new(size),
            migration: None,
            has_lost: false,
            digest,
            reader,
            link: VecDeque::new(),
            back: VecDeque::new(),
            filters,
            key,
            receiver: Receiver::new(key),
        }
    }

    fn add(&mut self, hash: u64) {
        if !self.live.contains_key(&hash) {
            self.filter.insert(hash);
            self.migration.iter_mut().for_each(|(filter, _)| _ = filter.insert(hash));
            self.live.insert(hash, self.digest.head().seq);
            self.digest.added(self.now, hash);
        }
    }

    fn delete(&mut self, hash: u64) {
        if self.live.remove(&hash).is_some() {
            let block = self.filter.size().block_of(hash);
            let mut changed = Vec::new();
            assert!(self.filter.rebuild_blocks(block..block + 1, self.live.keys().copied(), &mut changed));
            changed.iter().for_each(|&number| self.digest.rebuilt(self.now, number));
        }
    }

    fn resize(&mut self, size: Option<Size>) {
        if let Some(size) = size
            && self.migration.is_none()
        {
            self.migration = Some((Bloom::new(size), 0));
        }
    }

    /// A step of the sender's migration; after the last the filter is replaced.
    fn step(&mut self) {
        let Some((filter, next)) = &mut self.migration else { return };
        let blocks = if filter.size() > self.filter.size() {
            let block = *next..*next + 1;
            assert!(filter.rebuild_blocks(block, self.live.keys().copied(), &mut Vec::new()));
            filter.size().blocks()
        } else {
            filter.merge(&self.filter, *next);
            self.filter.size().blocks()
        };
        *next += 1;
        if *next == blocks
            && let Some((filter, _)) = self.migration.take()
        {
            self.filter = filter;
            self.digest.resized(self.filter.size());
        }
    }

    fn send_addition(&mut self) -> bool {
        let mut hashes = Vec::new();
        let first = self.digest.next_additions(self.reader, 1, &mut hashes);
        first.map(|seq| self.link.push_back(Message::Addition(seq, hashes[0]))).is_some()
    }

    /// Bulk is for a reader that has all additions, or one that is gone from the filter by then comes after it.
    fn send_bulk(&mut self) -> bool {
        if self.send_addition() {
            return true;
        }
        let mut out = BulkBuffer::default();
        match self.digest.next_bulk(self.reader, &self.filter, &mut out) {
            None => return false,
            Some(Bulk::Begin { position, size }) => self.link.push_back(Message::Begin(position, size)),
            Some(Bulk::Piece { first }) => self.link.push_back(Message::Blocks(first, out.words)),
            Some(Bulk::End) => self.link.push_back(Message::End),
            Some(Bulk::Images { first }) => {
                let images = (first..).zip(out.images);
                let blocks = images.map(|(change, (number, image))| Message::Block(change, number, image));
                self.link.extend(blocks);
            }
        }
        true
    }

    fn deliver(&mut self) -> bool {
        let Some(message) = self.link.pop_front() else { return false };
        let (receiver, filters) = (&mut self.receiver, &mut self.filters);
        let outcome = match message {
            Message::Head(head) => {
                receiver.head_is(filters, head.epoch, head.seq);
                Ok(ApplyResult::Applied)
            }
            Message::Addition(seq, hash) => receiver.addition(filters, seq, hash),
            Message::Block(change, number, image) => receiver.block(filters, change, number, &image),
            Message::Begin(at, size) => receiver.begin(filters, at, size).map(|()| ApplyResult::Applied),
            Message::Blocks(first, words) => receiver.blocks(filters, first, &words),
            Message::End => receiver.end(filters),
        };
        match outcome {
            Ok(ApplyResult::Applied | ApplyResult::Dropped) => {}
            Ok(ApplyResult::Resync(at)) => self.back.push_back(at),
            // A message was lost in the middle of a snapshot; a link that breaks heals it.
            Err(ReceiveError::OutOfOrder) => self.relink(),
            Err(other) => panic!("an honest node was refused: {other}"),
        }
        true
    }

    fn lose(&mut self) -> bool {
        let was_there = self.link.pop_front().is_some();
        self.has_lost |= was_there;
        was_there
    }

    fn answer(&mut self) -> bool {
        let Some(at) = self.back.pop_front() else { return false };
        self.digest.resync(self.reader, at);
        self.link.push_back(Message::Head(self.digest.head()));
        true
    }

    fn relink(&mut self) {
        self.link.clear();
        self.back.clear();
        self.digest.leave(self.reader);
        self.reader = self.digest.join(self.receiver.relinked(&mut self.filters));
        self.link.push_back(Message::Head(self.digest.head()));
    }

    fn claims(&self, hash: u64) -> bool {
        let mut out = Vec::new();
        self.filters.claimants(hash, &mut out);
        !out.is_empty()
    }

    /// No key that was published to the follower is missing from a filter that it trusts.
    fn check(&self) {
        if self.filters.is_unknown(self.key) {
            return;
        }
        let at = self.receiver.position().expect("only what is followed is trusted");
        for (&hash, &added) in &self.live {
            assert!(added >= at.seq || self.claims(hash), "{hash:x}, added at {added}, is missing at {at:?}");
        }
    }

    /// No more faults: everything is sent and delivered, all steps are done, and both filters are equal.
    fn heal(&mut self) {
        let mut rounds = 0;
        loop {
            let sent = self.send_bulk() | self.answer();
            let more = self.migration.is_some() | self.filters.has_work() | self.deliver() | sent;
            self.step();
            self.filters.step();
            if !more {
                break;
            }
            rounds += 1;
            assert!(rounds < 100_000, "it never becomes quiet");
        }
        if self.filters.is_unknown(self.key) || self.receiver.position() != Some(self.digest.head()) {
            // The last message was lost and nothing came after it. A link does not do that; it breaks.
            self.relink();
            return self.heal();
        }
        self.check();
        for number in 0..self.filter.size().blocks() {
            let theirs = self.filters.block(self.key, number);
            let own = self.filter.block(number);
            if self.has_lost {
                let (theirs, own) = (theirs.unwrap(), own.unwrap());
                assert!(theirs.iter().zip(own).all(|(theirs, own)| own & !theirs == 0), "block {number}");
            } else {
                assert_eq!(theirs.as_ref(), own, "block {number}");
            }
        }
    }
}

#[test]
fn follower_equals_the_sender_after_any_loss_of_links_and_messages() {
    for seed in 0..if cfg!(debug_assertions) { 25 } else { 300 } {
        let mut rng = Rng::new(seed);
        let mut world = World::new(2);
        for _ in 0..3_000 {
            let hash = rng.next_u64();
            match rng.below(1_000) {
                0..300 if world.live.len() < 30 << world.filter.size().log2() => world.add(hash),
                300..400 => {
                    let live = world.live.keys().copied().min_by_key(|key| key ^ hash);
                    live.into_iter().for_each(|hash| world.delete(hash));
                }
                400..403 if world.filter.size().log2() < 8 => {
                    world.resize(Size::from_log2(world.filter.size().log2() + 1));
                }
                403..405 if world.live.len() < 10 << world.filter.size().log2() => {
                    world.resize(world.filter.size().log2().checked_sub(1).and_then(Size::from_log2));
                }
                405..408 => world.relink(),
                408..411 if rng.one_in(2) && seed % 2 == 0 => _ = world.lose(),
                411..420 => world.heal(),
                420..500 => _ = world.filters.step(),
                500..560 => world.step(),
                560..700 => _ = world.send_addition() || world.send_bulk(),
                700..720 => _ = world.send_bulk(),
                720..730 => _ = world.answer(),
                730..732 => world.now = world.now.after(Duration::from_secs(rng.below(20))),
                _ => _ = world.deliver(),
            }
            world.check();
        }
        world.heal();
    }
}

/// The actions of the exhaustive histories.
const ACTIONS: [fn(&mut World) -> bool; 8] = [
    |world| {
        let hash = if world.live.is_empty() { 0x1111_1111_1111_1111 } else { 0xEEEE_1234_5678_9ABC };
        let new = !world.live.contains_key(&hash);
        world.add(hash);
        new
    },
    |world| {
        let hash = world.live.keys().copied().min();
        hash.map(|hash| world.delete(hash)).is_some()
    },
    |world| {
        let small = world.filter.size() == Size::MIN && world.migration.is_none();
        if small {
            world.resize(Size::from_log2(1));
        }
        small
    },
    |world| {
        let busy = world.migration.is_some();
        world.step();
        busy
    },
    |world| world.link.len() < 3 && (world.send_addition() || world.send_bulk()),
    |world| world.deliver() | world.answer() | world.filters.step(),
    World::lose,
    |world| {
        let used = !world.link.is_empty();
        if used {
            world.relink();
        }
        used
    },
];

/// The world after a history; `None` if its last action did nothing.
fn replay(history: &[usize], prepare: fn(&mut World)) -> Option<World> {
    let mut world = World::new(0);
    prepare(&mut world);
    let mut did = true;
    for action in history {
        did = ACTIONS[*action](&mut world);
        world.check();
    }
    did.then_some(world)
}

#[test]
fn every_short_history_with_three_messages_in_flight_heals() {
    let depth = if cfg!(debug_assertions) { 6 } else { 8 };
    let mut checked = 0;
    let prepared: [fn(&mut World); 2] = [|_| {}, World::heal];
    for prepare in prepared {
        let mut histories = vec![vec![]];
        while let Some(history) = histories.pop() {
            let Some(mut world) = replay(&history, prepare) else { continue };
            world.heal();
            checked += 1;
            if history.len() < depth {
                histories.extend((0..ACTIONS.len()).map(|action| [&history[..], &[action]].concat()));
            }
        }
    }
    assert!(checked > 10_000, "only {checked}");
    println!("{checked} histories");
}

#[test]
fn reader_that_falls_off_the_log_gets_a_snapshot() {
    let mut world = World::new(4);
    world.heal();
    assert_eq!(world.digest.snapshots(), 1);
    world.add(1);
    world.now = world.now.after(Duration::from_secs(31));
    world.add(2);
    world.heal();
    assert_eq!(world.digest.snapshots(), 2);
    // By number too, while its time has not come.
    for hash in 0..=LOG_ENTRIES_MAX as u64 {
        world.digest.added(world.now, hash << 40);
        world.filter.insert(hash << 40 & 3);
    }
    world.heal();
    assert_eq!(world.digest.snapshots(), 3);
}

#[test]
fn log_without_readers_is_not_kept() {
    let mut world = World::new(4);
    world.heal();
    world.digest.leave(world.reader);
    let mut added = world.digest.head().seq;
    for second in 0..40 {
        world.now = Instant::from_millis(second * 1_000);
        (0..5_000).for_each(|hash| world.digest.added(world.now, hash));
        added += 5_000;
        assert_eq!(world.digest.head().seq, added);
        let kept = world.digest.empty_at().is_some();
        assert_eq!(kept, second < 30, "second {second}");
    }
    world.reader = world.digest.join(None);
    world.add(1 << 60);
    assert_eq!(world.digest.empty_at(), Some(world.now.after(Duration::from_secs(30))));
    world.heal();
    assert_eq!(world.digest.snapshots(), 2);
    world.now = world.now.after(Duration::from_secs(30));
    world.digest.trim(world.now);
    assert_eq!(world.digest.empty_at(), None);
}

#[test]
fn reader_that_comes_back_soon_is_replayed_to() {
    let mut world = World::new(4);
    world.heal();
    world.add(1 << 60);
    world.relink();
    assert!(world.filters.is_unknown(world.key), "it may lack what came meanwhile");
    world.heal();
    assert!(world.claims(1 << 60) && !world.filters.is_unknown(world.key));
    assert_eq!(world.digest.snapshots(), 1);
}

#[test]
fn link_lost_in_a_change_of_size_costs_a_snapshot_and_no_key() {
    let mut world = World::new(4);
    world.add(1 << 60);
    world.heal();
    world.resize(Size::from_log2(9));
    (0..512).for_each(|_| world.step());
    // Its beginning and one piece.
    assert!(world.send_bulk() && world.send_bulk());
    while world.deliver() {}
    world.add(2 << 60);
    world.relink();
    // All additions are known before the size is.
    while world.send_addition() {}
    while world.deliver() {}
    assert!(!world.filters.is_unknown(world.key) && world.claims(1 << 60) && world.claims(2 << 60));
    assert_eq!(world.filters.size(world.key), Size::from_log2(4));
    world.heal();
    assert_eq!(world.filters.size(world.key), Size::from_log2(9));
}
