//! What a node publishes of its filter: additions and rebuilt blocks, read by each peer at its own pace.
//!
//! Two logs with a cursor each per reader. *Additions* are hashes, in order, and come first. *Blocks* are the numbers
//! of rebuilt blocks; they are bulk, and read when nothing else waits. The log does not hold the image of a block: it
//! is taken from the live filter when it is read, so it holds every key whose addition was read before, and none of the
//! later additions can be undone by it. A filter of another size, and a reader that fell off a log, make a *snapshot*:
//! the whole filter in pieces, which are bulk too, while additions go on. It begins at the addition that the reader
//! stands at, if that is still in the log; so its filter lacks nothing meanwhile.
//!
//! Both logs keep 30 s, within their limits. While no peer reads, and none did for the last 30 s, changes are counted
//! and not kept: the next reader gets a snapshot anyway.
//!
//! Not here: frames, limits of links (`node::digest::sync`). The other side is [`super::receiver`].

use super::bloom::Bloom;
use super::change_ring::{CHUNK_BYTES, Ring};
use super::size::{BLOCK_WORDS, Block, Size};
use crate::base::slots::{Key, Slots};
use crate::base::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes of the log of additions at most.
pub const LOG_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Entries that this is.
pub const LOG_ENTRIES_MAX: usize = LOG_BYTES_MAX / size_of::<u64>();

/// The log of blocks has one in so many of the bytes that the log of additions may have.
const BLOCKS_SHARE: usize = 8;

/// The share of limited memory that the log of additions may have, if it is less than 8 MiB: one in so many.
const LOG_SHARE: u64 = 16;

/// For how long changes are kept, to within a tenth of a second.
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

/// Names a peer that reads the changelog.
pub type ReaderKey = Key<ReaderTag>;

/// A position in a changelog: every change before it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The life of the node that the changelog belongs to.
    pub epoch: u64,
    /// The number of the next addition.
    pub seq: u64,
    /// The number of the next change of blocks: one per rebuilt block, and one per change of size.
    pub blocks: u64,
}

/// Bulk for a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bulk {
    /// A snapshot begins; additions from `position.seq` on go on beside it, changes of blocks after it.
    Begin {
        /// Where the reader stands when the snapshot is complete, but for additions.
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

/// What bulk is generated into, kept between calls.
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

/// Where the logs stood at a moment.
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
    /// Somebody reads, or did so not long ago: changes are kept.
    is_kept: bool,
    /// Since when no peer reads, while changes are kept.
    alone_since: Option<Instant>,
    /// The first change of blocks that is numbered by `size`.
    resized_at: u64,
    marks: VecDeque<Mark>,
    readers: Slots<ReaderTag, Reader>,
    snapshots: u64,
}

impl Changelog {
    /// The changelog of a filter of this size. `epoch` must be larger in each life of the node.
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

    /// Where the changelog ends.
    pub const fn head(&self) -> Position {
        Position { epoch: self.epoch, seq: self.additions.end(), blocks: self.blocks.end() }
    }

    /// Bytes that the logs take, or may take before the next call. O(1).
    pub fn log_bytes(&self) -> u64 {
        (self.additions.memory_bytes() + self.blocks.memory_bytes()) as u64
    }

    /// Has the logs keep to their share of `memory_max` bytes, 0 being no limit. Each has room for a chunk of 64 KiB in
    /// any case. O(1).
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

    /// A key that was absent was added. Published even if no bit of the filter changed: the bits that a peer has may be
    /// fewer. O(1).
    pub fn added(&mut self, now: Instant, hash: u64) {
        if self.keeps(now) {
            self.additions.push(hash, self.additions_max);
        } else {
            self.additions.skip();
        }
    }

    /// A block was rebuilt. O(1).
    pub fn rebuilt(&mut self, now: Instant, number: u32) {
        if self.keeps(now) {
            self.blocks.push(number, self.blocks_max);
        } else {
            self.blocks.skip();
        }
    }

    /// The filter was replaced by one of another size: each reader gets a snapshot. O(readers).
    pub fn resized(&mut self, size: Size) {
        self.size = size;
        self.blocks.clear();
        self.blocks.skip();
        self.resized_at = self.blocks.end();
        self.readers.values_mut().for_each(|reader| reader.snapshot = Snapshot::Due);
    }

    /// How many peers read it. O(1).
    pub fn readers(&self) -> usize {
        self.readers.len()
    }

    /// Additions that the slowest reader has not read, of those readers that wait for no snapshot. O(readers).
    pub fn backlog(&self) -> u64 {
        let slowest = self.readers.iter().filter_map(|(_, reader)| reader.addition).min();
        slowest.map_or(0, |addition| self.additions.end().saturating_sub(addition))
    }

    /// Whether changes are kept. Makes room for one.
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

    /// Keeps no more changes when no peer has read for as long as they are kept.
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

    /// Drops what is too old, at most what came in two tenths of a second of it.
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

    /// A peer begins to read: at a position that is in the logs, else with a snapshot.
    pub fn join(&mut self, at: Option<Position>) -> ReaderKey {
        self.is_kept = true;
        self.alone_since = None;
        let key = self.readers.insert(Reader { addition: None, block: 0, snapshot: Snapshot::Due });
        self.resync(key, at);
        key
    }

    /// A peer goes on at another position; without one, or where it is not in the logs, with a snapshot. If only the
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

    /// A peer reads no more.
    pub fn leave(&mut self, key: ReaderKey) {
        self.readers.remove(key);
    }

    /// Whether there are additions for a peer. O(1).
    pub fn has_additions(&self, key: ReaderKey) -> bool {
        let next = self.readers.get(key).and_then(|reader| reader.addition);
        next.is_some_and(|next| next < self.additions.end())
    }

    /// Appends up to `count` additions for a peer to `out`. Returns the number of the first; `None` if there is none.
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

    /// Whether there is bulk for a peer. O(1).
    pub fn has_bulk(&self, key: ReaderKey) -> bool {
        let reader = self.readers.get(key);
        reader.is_some_and(|reader| reader.snapshot != Snapshot::None || reader.block < self.blocks.end())
    }

    /// The next bulk for a peer, generated from `filter` into `out`, at most 17 KiB. Additions for the peer must have
    /// been read before.
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
