//! A node that publishes and a node that follows, over a link that is lost at any message: what the
//! follower trusts never lacks a key that it was told of, and once all is quiet both filters are equal.
//! Random histories, and every history of a few actions.

use olivia::base::rng::Rng;
use olivia::base::time::Instant;
use olivia::filter::bloom::Bloom;
use olivia::filter::changelog::{Change, Changelog, LOG_ENTRIES_MAX, Piece, Position, ReaderKey};
use olivia::filter::receiver::{Outcome, ReceiveError, Receiver};
use olivia::filter::size::Size;
use olivia::filter::{FilterError, FilterKey, PeerFilters};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

enum Message {
    Head(Position),
    Change(Position, Change),
    Begin(Position, Size),
    Blocks(u32, Vec<u64>),
    End,
}

/// Both nodes and the link between them.
struct World {
    now: Instant,
    /// What lives, with the number of the change that told of it.
    live: HashMap<u64, u64>,
    filter: Bloom,
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
            self.live.insert(hash, self.digest.head().seq);
            self.digest.added(self.now, hash);
        }
    }

    fn delete(&mut self, hash: u64) {
        if self.live.remove(&hash).is_some() {
            let block = self.filter.coarse_size().block_of(hash);
            let mut changed = Vec::new();
            assert!(self.filter.rebuild_blocks(block..block + 1, self.live.keys().copied(), &mut changed));
            let size = self.filter.coarse_size();
            changed.iter().for_each(|&number| self.digest.rebuilt(self.now, size, number));
        }
    }

    fn grow(&mut self) {
        if self.filter.start_stretch().is_ok() {
            self.digest.resized(self.now, self.filter.size());
        }
    }

    fn shrink(&mut self) {
        if self.filter.start_fold().is_ok() {
            self.digest.resized(self.now, self.filter.size());
        }
    }

    /// A step of the sender's growth; when it is done each block is rebuilt and told.
    fn step(&mut self) {
        if self.filter.is_reshaping() && !self.filter.step() {
            let size = self.filter.size();
            let hashes: Vec<u64> = self.live.keys().copied().collect();
            assert!(self.filter.rebuild_blocks(0..size.blocks(), hashes, &mut Vec::new()));
            (0..size.blocks()).for_each(|number| {
                self.digest.rebuilt(self.now, size, u32::try_from(number).unwrap());
            });
        }
    }

    fn send_change(&mut self) -> bool {
        let epoch = self.digest.head().epoch;
        let change = self.digest.next_change(self.reader, &self.filter);
        let message = change.map(|(seq, change)| Message::Change(Position { epoch, seq }, change));
        message.map(|message| self.link.push_back(message)).is_some()
    }

    fn send_piece(&mut self) -> bool {
        let mut words = Vec::new();
        let piece = self.digest.next_piece(self.reader, &self.filter, &mut words);
        let message = piece.map(|piece| match piece {
            Piece::Begin { position, size } => Message::Begin(position, size),
            Piece::Blocks { first } => Message::Blocks(first, words),
            Piece::End => Message::End,
        });
        message.map(|message| self.link.push_back(message)).is_some()
    }

    fn deliver(&mut self) -> bool {
        let Some(message) = self.link.pop_front() else { return false };
        let (receiver, filters) = (&mut self.receiver, &mut self.filters);
        let outcome = match message {
            Message::Head(head) => {
                receiver.heard_head(filters, head);
                Ok(Outcome::Applied)
            }
            Message::Change(at, change) => receiver.change(filters, at, &change),
            Message::Begin(at, size) => receiver.begin(filters, at, size).map(|()| Outcome::Applied),
            Message::Blocks(first, words) => receiver.blocks(filters, first, &words),
            Message::End => receiver.end(filters),
        };
        match outcome {
            Ok(Outcome::Applied | Outcome::Dropped) => {}
            Ok(Outcome::Resync(at)) => self.back.push_back(at),
            // A message was lost in the middle of a snapshot; a link that breaks heals it.
            Err(ReceiveError::OutOfOrder) => self.relink(),
            Err(other) => panic!("an honest node was refused: {other}"),
        }
        true
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

    /// No key that the follower was told of is missing from a filter that it trusts.
    fn check(&self) {
        if self.filters.is_unknown(self.key) {
            return;
        }
        let at = self.receiver.position().expect("only what is followed is trusted");
        for (&hash, &told) in &self.live {
            assert!(told >= at.seq || self.claims(hash), "{hash:x}, told at {told}, is missing at {at:?}");
        }
    }

    /// No more faults: everything is sent and delivered, all steps are done, and both filters are equal.
    fn heal(&mut self) {
        let mut rounds = 0;
        loop {
            let sent = self.send_piece() | self.send_change() | self.answer();
            let more = self.filter.is_reshaping() | self.filters.has_work() | self.deliver() | sent;
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
            assert_eq!(theirs, self.filter.image(self.filter.size(), number), "block {number}");
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
                400..403 if world.filter.size().log2() < 8 => world.grow(),
                403..405 if world.live.len() < 10 << world.filter.size().log2() => world.shrink(),
                405..408 => world.relink(),
                408..411 if rng.one_in(2) => _ = world.link.pop_front(),
                411..420 => world.heal(),
                420..500 => _ = world.filters.step(),
                500..520 => world.step(),
                520..700 => _ = world.send_change() || world.send_piece(),
                700..720 => _ = world.send_piece(),
                720..730 => _ = world.answer(),
                730..732 => world.now = world.now.after(Duration::from_secs(rng.below(20))),
                _ => _ = world.deliver(),
            }
            world.check();
        }
        world.heal();
    }
}

/// What may happen in the exhaustive histories.
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
        let small = world.filter.size() == Size::MIN && !world.filter.is_reshaping();
        if small {
            world.grow();
        }
        small
    },
    |world| {
        let busy = world.filter.is_reshaping();
        world.step();
        busy
    },
    |world| world.link.len() < 3 && (world.send_change() || world.send_piece()),
    |world| world.deliver() | world.answer() | world.filters.step(),
    |world| world.link.pop_front().is_some(),
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
    let mut told = world.digest.head().seq;
    for second in 0..40 {
        world.now = Instant::from_millis(second * 1_000);
        (0..5_000).for_each(|hash| world.digest.added(world.now, hash));
        told += 5_000;
        assert_eq!(world.digest.head().seq, told);
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
fn old_lives_replays_and_gaps_are_harmless() {
    let mut world = World::new(2);
    world.heal();
    let (filters, receiver) = (&mut world.filters, &mut world.receiver);
    let add = Change::Add(9 << 50);
    let at = receiver.position().unwrap();
    let older = Position { epoch: at.epoch - 1, ..at };
    assert_eq!(receiver.change(filters, older, &add), Err(ReceiveError::OldEpoch));
    assert_eq!(receiver.begin(filters, older, Size::MIN), Err(ReceiveError::OldEpoch));
    assert_eq!(receiver.change(filters, at, &add), Ok(Outcome::Applied));
    assert_eq!(receiver.change(filters, at, &add), Ok(Outcome::Dropped));
    let later = Position { seq: at.seq + 2, ..at };
    let wanted = Position { seq: at.seq + 1, ..at };
    assert_eq!(receiver.change(filters, later, &add), Ok(Outcome::Resync(Some(wanted))));
    assert!(filters.is_unknown(world.key));
    assert_eq!(receiver.change(filters, later, &add), Ok(Outcome::Dropped), "asked for once");
    assert_eq!(receiver.change(filters, wanted, &add), Ok(Outcome::Applied));
    assert!(filters.is_unknown(world.key), "one of the two is still missing");
    assert_eq!(receiver.change(filters, later, &add), Ok(Outcome::Applied));
    assert!(!filters.is_unknown(world.key));
    let end = Position { epoch: u64::MAX, seq: u64::MAX };
    assert_eq!(receiver.change(filters, end, &add), Ok(Outcome::Resync(None)));
}

#[test]
fn snapshot_in_the_wrong_order_or_too_long_is_refused() {
    let mut world = World::new(2);
    let (filters, receiver) = (&mut world.filters, &mut world.receiver);
    let at = Position { epoch: 1, seq: 0 };
    assert_eq!(receiver.end(filters), Ok(Outcome::Dropped));
    let too_large = receiver.begin(filters, at, Size::MAX);
    assert_eq!(too_large, Err(ReceiveError::Filter(FilterError::OverBudget)));
    assert_eq!(filters.bytes(), 0);
    receiver.begin(filters, at, Size::from_log2(2).unwrap()).unwrap();
    for (first, words) in [(1, 8), (0, 7), (0, 40), (u32::MAX, 8)] {
        let refused = receiver.blocks(filters, first, &vec![0; words]);
        assert_eq!(refused, Err(ReceiveError::OutOfOrder), "{first} {words}");
    }
    receiver.blocks(filters, 0, &[0; 24]).unwrap();
    assert_eq!(receiver.end(filters), Err(ReceiveError::OutOfOrder));
    receiver.blocks(filters, 3, &[0; 8]).unwrap();
    assert_eq!(receiver.end(filters), Ok(Outcome::Applied));
    let block = Change::Block { number: 4, image: [0; 8] };
    let beyond = receiver.change(filters, at, &block);
    assert_eq!(beyond, Err(ReceiveError::Filter(FilterError::NoSuchBlock)));
    assert!(filters.is_unknown(world.key));
}
