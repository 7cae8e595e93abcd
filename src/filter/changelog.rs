//! The changelog of the own filter: additions and rebuilt blocks, read by each peer at its own pace.
//!
//! Two logs, with a cursor per reader in each. *Additions* are hashes, in order, and are read first. *Blocks* are the
//! numbers of rebuilt blocks; they are bulk, read when nothing else waits. The image of a block is copied from the
//! live filter when it is read, so it contains every addition that was read before. A resized filter, or a cursor
//! that is no longer in a log, causes a *snapshot*: the whole filter in pieces, also bulk, while additions continue.
//! It begins at the next addition of the reader, if that is still in the log, so that the reader's filter stays
//! complete.
//!
//! Both logs keep 30 s, within their limits. After 30 s without readers, changes are numbered but not stored: the next
//! reader gets a snapshot.
//!
//! Not here: frames, limits of links (`node::digest::sync`). The reading side is [`super::receiver`].

use super::bloom::Bloom;
use super::change_ring::{CHUNK_BYTES, Ring};
use super::size::{BLOCK_WORDS, Block, Size};
use crate::base::slots::{Key, Slots};
use crate::base::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes of the log of additions, at most.
pub const LOG_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Entries of the log of additions, at most.
pub const LOG_ENTRIES_MAX: usize = LOG_BYTES_MAX / size_of::<u64>();

/// The log of additions may have this many times the bytes of the log of blocks.
const BLOCKS_SHARE: usize = 8;

/// Divisor of the memory limit that gives the bytes of the log of additions, if that is below 8 MiB.
const LOG_SHARE: u64 = 16;

/// How long changes are kept, to within 0.1 s.
pub const LOG_KEPT: Duration = Duration::from_secs(30);

/// The resolution of the age of entries.
const MARK_EVERY: Duration = Duration::from_millis(100);

/// Blocks of a piece of a snapshot: 16 KiB.
pub const PIECE_BLOCKS: usize = 256;

/// Images of blocks read at once: 17 KiB.
pub const IMAGES_MAX: usize = 256;

/// The tag of [`ReaderKey`].
#[derive(Debug)]
pub enum ReaderTag {}

/// The key of a reader: a peer that reads the changelog.
pub type ReaderKey = Key<ReaderTag>;

/// A position in a changelog: every change before it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The epoch of the changelog: larger after each start of the node.
    pub epoch: u64,
    /// The number of the next addition.
    pub seq: u64,
    /// The number of the next change of blocks: one per rebuilt block, and one per change of size.
    pub blocks: u64,
}

/// One unit of bulk for a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bulk {
    /// A snapshot begins; additions from `position.seq` on continue meanwhile, changes of blocks after it.
    Begin {
        /// The reader's position after the snapshot, apart from additions.
        position: Position,
        /// The size of the filter.
        size: Size,
    },
    /// The next blocks of the snapshot, in `words`.
    Piece {
        /// The number of the first.
        first: u32,
    },
    /// The snapshot is complete.
    End,
    /// Rebuilt blocks, in `images`.
    Images {
        /// The number of the first change.
        first: u64,
    },
}

/// Buffers that bulk is generated into, reused.
#[derive(Debug, Default)]
pub struct BulkBuffer {
    /// Blocks of a snapshot, as words.
    pub words: Vec<u64>,
    /// Images of rebuilt blocks with the number of each block.
    pub images: Vec<(u32, Block)>,
    numbers: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Snapshot {
    None,
    Due,
    Under { next: usize },
}

#[derive(Debug)]
struct Reader {
    /// The number of the next addition; `None` before the snapshot that it depends on has begun.
    addition: Option<u64>,
    /// The number of the next change of blocks.
    block: u64,
    snapshot: Snapshot,
}

/// The ends of the logs at one time.
#[derive(Debug, Clone, Copy)]
struct Mark {
    moment: Instant,
    addition: u64,
    block: u64,
}

/// The logs and their readers.
#[derive(Debug)]
pub struct Changelog {
    epoch: u64,
    size: Size,
    additions: Ring<u64>,
    blocks: Ring<u32>,
    additions_max: usize,
    blocks_max: usize,
    /// Changes are stored: there is a reader, or was one in the last 30 s.
    is_kept: bool,
    /// Since when there is no reader, while changes are stored.
    alone_since: Option<Instant>,
    /// The first change of blocks that is numbered by `size`.
    resized_at: u64,
    marks: VecDeque<Mark>,
    readers: Slots<ReaderTag, Reader>,
    snapshots: u64,
}

impl Changelog {
    /// The changelog of a filter of this size. `epoch` must be larger after each start of the node.
    pub const fn new(epoch: u64, size: Size) -> Self {
        Self {
            epoch,
            size,
            additions: Ring::new(),
            blocks: Ring::new(),
            additions_max: LOG_ENTRIES_MAX,
            blocks_max: LOG_BYTES_MAX / BLOCKS_SHARE / size_of::<u32>(),
            is_kept: false,
            alone_since: None,
            resized_at: 0,
            marks: VecDeque::new(),
            readers: Slots::new(),
            snapshots: 0,
        }
    }

    /// The end of the changelog.
    pub const fn head(&self) -> Position {
        Position { epoch: self.epoch, seq: self.additions.end(), blocks: self.blocks.end() }
    }

    /// Bytes that the logs hold, or may hold before the next call. O(1).
    pub fn log_bytes(&self) -> u64 {
        (self.additions.memory_bytes() + self.blocks.memory_bytes()) as u64
    }

    /// Limits the logs to their share of `memory_max` bytes (0: no limit), but not below a chunk of 64 KiB each. O(1).
    pub fn limit_log(&mut self, memory_max: u64) {
        let share = usize::try_from(memory_max / LOG_SHARE).unwrap_or(usize::MAX);
        let bytes = if memory_max > 0 { share.clamp(CHUNK_BYTES, LOG_BYTES_MAX) } else { LOG_BYTES_MAX };
        self.additions_max = bytes / size_of::<u64>();
        self.blocks_max = (bytes / BLOCKS_SHARE).max(CHUNK_BYTES) / size_of::<u32>();
    }

    /// Snapshots begun since the start.
    pub const fn snapshots(&self) -> u64 {
        self.snapshots
    }

    /// Logs the addition of an absent key, even if no bit of the filter changed: the peer's copy may have fewer bits.
    /// O(1).
    pub fn added(&mut self, now: Instant, hash: u64) {
        if self.keeps(now) {
            self.additions.push(hash, self.additions_max);
        } else {
            self.additions.skip();
        }
    }

    /// Logs a rebuilt block. O(1).
    pub fn rebuilt(&mut self, now: Instant, number: u32) {
        if self.keeps(now) {
            self.blocks.push(number, self.blocks_max);
        } else {
            self.blocks.skip();
        }
    }

    /// Begins a snapshot for each reader, since the filter was replaced by one of another size. O(readers).
    pub fn resized(&mut self, size: Size) {
        self.size = size;
        self.blocks.clear();
        self.blocks.skip();
        self.resized_at = self.blocks.end();
        self.readers.values_mut().for_each(|reader| reader.snapshot = Snapshot::Due);
    }

    /// The number of readers. O(1).
    pub fn readers(&self) -> usize {
        self.readers.len()
    }

    /// Unread additions of the slowest reader that does not wait for a snapshot. O(readers).
    pub fn backlog(&self) -> u64 {
        let slowest = self.readers.iter().filter_map(|(_, reader)| reader.addition).min();
        slowest.map_or(0, |addition| self.additions.end().saturating_sub(addition))
    }

    /// Whether changes are stored. Makes room for one.
    fn keeps(&mut self, now: Instant) -> bool {
        if self.readers.is_empty() {
            self.be_alone(now);
        }
        let has_entries = !self.additions.is_empty() || !self.blocks.is_empty();
        if !self.is_kept && !has_entries {
            return false;
        }
        if self.marks.back().is_none_or(|mark| now.since(mark.moment) >= MARK_EVERY) {
            self.trim(now);
            let Position { seq, blocks, .. } = self.head();
            self.marks.push_back(Mark { moment: now, addition: seq, block: blocks });
        }
        true
    }

    /// Stops to store changes after [`LOG_KEPT`] without a reader.
    fn be_alone(&mut self, now: Instant) {
        if self.is_kept && now.since(*self.alone_since.get_or_insert(now)) >= LOG_KEPT {
            self.is_kept = false;
        }
        if !self.is_kept && !self.marks.is_empty() && self.drop_before(u64::MAX, u64::MAX) {
            self.marks.clear();
        }
    }

    fn drop_before(&mut self, addition: u64, block: u64) -> bool {
        self.additions.drop_before(addition) && self.blocks.drop_before(block)
    }

    /// Drops entries that are too old, at most those of 0.2 s.
    pub fn trim(&mut self, now: Instant) {
        for _ in 0..2 {
            let Some(Mark { moment, .. }) = self.marks.front().copied() else { return };
            let (addition, block) = self
                .marks
                .get(1)
                .map_or((self.additions.end(), self.blocks.end()), |mark| (mark.addition, mark.block));
            let is_old = now.since(moment) >= LOG_KEPT && self.drop_before(addition, block);
            if !is_old && (addition > self.additions.first() || block > self.blocks.first()) {
                return;
            }
            self.marks.pop_front();
        }
    }

    /// When [`Changelog::trim`] will have emptied the logs, if no more changes come; `None` while they are empty.
    pub fn empty_at(&self) -> Option<Instant> {
        self.marks.back().map(|mark| mark.moment.after(LOG_KEPT))
    }

    /// Adds a reader, at a position if that is in the logs, else with a snapshot.
    pub fn join(&mut self, at: Option<Position>) -> ReaderKey {
        self.is_kept = true;
        self.alone_since = None;
        let key = self.readers.insert(Reader { addition: None, block: 0, snapshot: Snapshot::Due });
        self.resync(key, at);
        key
    }

    /// Moves a reader to another position; without one, or if it is not in the logs, to a snapshot. If only its
    /// additions are in the log, the snapshot begins at that addition. O(1).
    pub fn resync(&mut self, key: ReaderKey, at: Option<Position>) {
        let head = self.head();
        let Some(reader) = self.readers.get_mut(key) else { return };
        let at =
            at.filter(|at| at.epoch == head.epoch && (self.additions.first()..=head.seq).contains(&at.seq));
        let from = self.blocks.first().max(self.resized_at);
        let replayed = at.filter(|at| (from..=head.blocks).contains(&at.blocks));
        *reader = Reader {
            addition: at.map(|at| at.seq),
            block: replayed.map_or(0, |at| at.blocks),
            snapshot: if replayed.is_some() { Snapshot::None } else { Snapshot::Due },
        };
    }

    /// Removes a reader.
    pub fn leave(&mut self, key: ReaderKey) {
        self.readers.remove(key);
    }

    /// Whether there are additions for a reader. O(1).
    pub fn has_additions(&self, key: ReaderKey) -> bool {
        let next = self.readers.get(key).and_then(|reader| reader.addition);
        next.is_some_and(|next| next < self.additions.end())
    }

    /// Reads up to `count` additions and appends them to `out`. Returns the number of the first; `None` if there is
    /// none.
    pub fn next_additions(&mut self, key: ReaderKey, count: usize, out: &mut Vec<u64>) -> Option<u64> {
        let reader = self.readers.get_mut(key)?;
        let next = reader.addition?;
        if next < self.additions.first() {
            *reader = Reader { addition: None, block: 0, snapshot: Snapshot::Due };
            return None;
        }
        let before = out.len();
        self.additions.read(next, count, out);
        let read = out.len() - before;
        reader.addition = Some(next + read as u64);
        (read > 0).then_some(next)
    }

    /// Whether there is bulk for a reader. O(1).
    pub fn has_bulk(&self, key: ReaderKey) -> bool {
        let reader = self.readers.get(key);
        reader.is_some_and(|reader| reader.snapshot != Snapshot::None || reader.block < self.blocks.end())
    }

    /// Reads the next bulk, generated from `filter` into `out`, at most 17 KiB. The reader must have read all
    /// additions.
    pub fn next_bulk(&mut self, key: ReaderKey, filter: &Bloom, out: &mut BulkBuffer) -> Option<Bulk> {
        let head = self.head();
        let reader = self.readers.get_mut(key)?;
        if reader.snapshot == Snapshot::None && reader.block < self.blocks.first() {
            reader.snapshot = Snapshot::Due;
        }
        out.words.clear();
        out.images.clear();
        match reader.snapshot {
            Snapshot::Due => {
                self.snapshots += 1;
                let seq = *reader.addition.get_or_insert(head.seq);
                reader.block = head.blocks;
                reader.snapshot = Snapshot::Under { next: 0 };
                Some(Bulk::Begin { position: Position { seq, ..head }, size: self.size })
            }
            Snapshot::Under { next } if next >= self.size.blocks() => {
                reader.snapshot = Snapshot::None;
                Some(Bulk::End)
            }
            Snapshot::Under { next } => {
                let until = self.size.blocks().min(next + PIECE_BLOCKS);
                let words = filter.words().get(next * BLOCK_WORDS..until * BLOCK_WORDS)?;
                out.words.extend_from_slice(words);
                reader.snapshot = Snapshot::Under { next: until };
                Some(Bulk::Piece { first: u32::try_from(next).ok()? })
            }
            Snapshot::None => {
                out.numbers.clear();
                self.blocks.read(reader.block, IMAGES_MAX, &mut out.numbers);
                let first = reader.block;
                reader.block += out.numbers.len() as u64;
                let image = |number: &u32| Some((*number, *filter.block(*number as usize)?));
                out.images.extend(out.numbers.iter().filter_map(image));
                (!out.images.is_empty()).then_some(Bulk::Images { first })
            }
        }
    }
}
