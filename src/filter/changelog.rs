//! What a node publishes of its filter: one ordered log of changes, read by each peer at its own pace.
//!
//! The log says that a hash was added, that a block was rebuilt, that the size changes. It does not hold
//! the image of a block: that is taken from the filter when a peer reads the entry, so it is never older
//! than its place, and newer is harmless. The log is a ring of 30 s or 8 MiB. Who falls off it, or cannot
//! be replayed to, reads a snapshot in pieces, and the changes go on in between: a piece is as new as the
//! moment at which it is read, so the order of reading is all that counts.
//!
//! While nobody reads, and nobody did so for the last 30 s, changes are counted and not kept: whoever comes
//! then gets a snapshot anyway.
//!
//! Here are no frames and no limits of a link: the caller reads as much as its peer's buffer takes. The
//! other side is [`super::receiver`].

use super::bloom::Bloom;
use super::change_ring::{CHUNK, Entry, Log};
use super::size::{BLOCK_WORDS, Block, Size};
use crate::base::slots::{Key, Slots};
use crate::base::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes of the log; what is older than its newest 8 MiB is forgotten.
pub const LOG_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Entries of the log that this is.
pub const LOG_ENTRIES_MAX: usize = LOG_BYTES_MAX / size_of::<Entry>();

/// The share of the memory that the log may have where that is limited, if it is less than 8 MiB: one in so many.
const LOG_SHARE: u64 = 16;

/// For how long the log remembers, to within a tenth of a second.
pub const LOG_KEPT: Duration = Duration::from_secs(30);

/// How finely the age of entries is known.
const MARK_EVERY: Duration = Duration::from_millis(100);

/// Blocks of a piece of a snapshot: 16 KiB.
pub const PIECE_BLOCKS: usize = 256;

/// The tag of [`ReaderKey`].
#[derive(Debug)]
pub enum ReaderTag {}

/// Names a peer that reads the digest.
pub type ReaderKey = Key<ReaderTag>;

/// A place in a digest: every change before `seq` is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The life of the node that the digest belongs to.
    pub epoch: u64,
    /// The number of the next change.
    pub seq: u64,
}

/// A change as it is told to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A key with this hash came.
    Add(u64),
    /// A block has this content.
    Block {
        /// Its number at the size that was announced last.
        number: u32,
        /// Its bits.
        image: Block,
    },
    /// From here on block numbers are those of this size, twice or half the one before.
    Resize(Size),
}

/// A piece of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A snapshot begins; changes from `position` on follow in between and after it.
    Begin {
        /// Where the changes go on.
        position: Position,
        /// The size of the filter.
        size: Size,
    },
    /// The next blocks, as the words that were appended to the caller's buffer.
    Blocks {
        /// The number of the first.
        first: u32,
    },
    /// Each block was told.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Snapshot {
    None,
    Due,
    Under { next: usize },
}

#[derive(Debug)]
struct Reader {
    next: u64,
    /// The size that the peer was told last.
    size: Size,
    snapshot: Snapshot,
}

/// The log and its readers.
#[derive(Debug)]
pub struct Changelog {
    epoch: u64,
    /// The size at the end of the log.
    size: Size,
    log: Log,
    log_entries_max: usize,
    /// Somebody reads, or did so not long ago: changes are kept.
    is_kept: bool,
    /// Since when nobody reads, as far as changes are kept.
    alone_since: Option<Instant>,
    /// Entries from this number on are numbered by `size`.
    resized_until: u64,
    /// Moments, and the number of the first entry since.
    marks: VecDeque<(Instant, u64)>,
    readers: Slots<ReaderTag, Reader>,
    snapshots: u64,
}

impl Changelog {
    /// The digest of a filter of this size. `epoch` must be larger in each life of the node.
    pub const fn new(epoch: u64, size: Size) -> Self {
        Self {
            epoch,
            size,
            log: Log::new(),
            log_entries_max: LOG_ENTRIES_MAX,
            is_kept: false,
            alone_since: None,
            resized_until: 0,
            marks: VecDeque::new(),
            readers: Slots::new(),
            snapshots: 0,
        }
    }

    /// Where the log ends.
    pub fn head(&self) -> Position {
        Position { epoch: self.epoch, seq: self.log.end() }
    }

    /// Bytes that the log takes, and may take before that is asked again. O(1).
    pub fn log_bytes(&self) -> u64 {
        self.log.memory_bytes() as u64
    }

    /// Has the log keep to its share of `memory_max` bytes, 0 being no limit: what is older is forgotten as more
    /// comes. It has room for a chunk of 64 KiB in any case. O(1).
    pub fn limit_log(&mut self, memory_max: u64) {
        let share = usize::try_from(memory_max / LOG_SHARE).unwrap_or(usize::MAX) / size_of::<Entry>();
        let is_limited = memory_max > 0;
        self.log_entries_max = if is_limited { share.clamp(CHUNK, LOG_ENTRIES_MAX) } else { LOG_ENTRIES_MAX };
    }

    /// How many snapshots were begun.
    pub const fn snapshots(&self) -> u64 {
        self.snapshots
    }

    /// A key that was absent came. To be told even if no bit of the filter changed: a peer's bits can be
    /// ahead of ours by nothing but what it was told. O(1).
    pub fn added(&mut self, now: Instant, hash: u64) {
        self.append(now, Entry::Add(hash));
    }

    /// A block was rebuilt; its number is that of `size`, which is the filter's coarse one. After growth
    /// each block must be rebuilt and told, changed or not: an addition in the middle of a stretch falls
    /// into both halves of its block, here and there not at the same moments. O(1).
    pub fn rebuilt(&mut self, now: Instant, size: Size, number: u32) {
        if size < self.size {
            // Halfway through a stretch that the log has announced already.
            let deeper = self.size.log2() - size.log2();
            for half in 0..1 << deeper.min(1) {
                self.append(now, Entry::Dirty(number << deeper | half));
            }
        } else {
            self.append(now, Entry::Dirty(number >> (size.log2() - self.size.log2())));
        }
    }

    /// The filter begins to stretch or to fold to this size. O(1).
    pub fn resized(&mut self, now: Instant, size: Size) {
        self.size = size;
        self.append(now, Entry::Resize(size));
        self.resized_until = self.head().seq;
    }

    /// Whether anybody reads it. O(1).
    pub fn is_read(&self) -> bool {
        !self.readers.is_empty()
    }

    fn append(&mut self, now: Instant, entry: Entry) {
        if self.readers.is_empty() {
            self.be_alone(now);
        }
        if !self.is_kept && self.log.skip() {
            return;
        }
        let surplus = (self.log.len() + 1).saturating_sub(self.log_entries_max);
        if surplus > 0 {
            self.log.forget_until(self.log.first() + surplus as u64);
        }
        let is_marked = self.marks.back().is_none_or(|(moment, _)| now.since(*moment) >= MARK_EVERY);
        if is_marked {
            self.marks.push_back((now, self.log.end()));
        }
        self.log.push(entry);
        if is_marked {
            self.trim(now);
        }
    }

    /// Ends the keeping of changes when nobody has read for as long as they would be kept.
    fn be_alone(&mut self, now: Instant) {
        if self.is_kept && now.since(*self.alone_since.get_or_insert(now)) >= LOG_KEPT {
            self.is_kept = false;
        }
        if !self.is_kept && self.log.forget_until(self.log.end()) {
            self.marks.clear();
        }
    }

    /// Forgets what is too old, at most what came in two tenths of a second of it.
    pub fn trim(&mut self, now: Instant) {
        for _ in 0..2 {
            let Some((moment, _)) = self.marks.front().copied() else { return };
            let until = self.marks.get(1).map_or(self.log.end(), |(_, seq)| *seq);
            let is_old = now.since(moment) >= LOG_KEPT && self.log.forget_until(until);
            if !is_old && until > self.log.first() {
                return;
            }
            self.marks.pop_front();
        }
    }

    /// When [`Changelog::trim`] will have emptied the log, if nothing more comes; `None` while it is empty.
    /// So who trims then only, wakes once for all that came.
    pub fn empty_at(&self) -> Option<Instant> {
        self.marks.back().map(|(moment, _)| moment.after(LOG_KEPT))
    }

    /// A peer begins to read: where it stopped, if that is in the log, else with a snapshot.
    pub fn join(&mut self, at: Option<Position>) -> ReaderKey {
        self.is_kept = true;
        self.alone_since = None;
        let reader = Reader { next: 0, size: self.size, snapshot: Snapshot::Due };
        let key = self.readers.insert(reader);
        self.resync(key, at);
        key
    }

    /// A peer wants to read on from another place, or a snapshot if it names none. O(1). It gets a snapshot
    /// too if the place has left the log, or the size has changed since.
    pub fn resync(&mut self, key: ReaderKey, at: Option<Position>) {
        let head = self.head();
        let replayed =
            at.filter(|at| at.epoch == head.epoch && (self.log.first()..=head.seq).contains(&at.seq));
        // Behind a change of size the block numbers are others; the log does not know which.
        let replayed = replayed.filter(|at| at.seq >= self.resized_until);
        let size = self.size;
        let Some(reader) = self.readers.get_mut(key) else { return };
        match replayed {
            Some(at) => *reader = Reader { next: at.seq, size, snapshot: Snapshot::None },
            None => reader.snapshot = Snapshot::Due,
        }
    }

    /// A peer has gone.
    pub fn leave(&mut self, key: ReaderKey) {
        self.readers.remove(key);
    }

    /// Whether the peer has something to read that is no snapshot.
    pub fn has_change(&self, key: ReaderKey) -> bool {
        let reader = self.readers.get(key);
        reader.is_some_and(|reader| reader.snapshot != Snapshot::Due && reader.next < self.head().seq)
    }

    /// Whether the peer has (more of) a snapshot to read.
    pub fn has_piece(&self, key: ReaderKey) -> bool {
        let reader = self.readers.get(key);
        reader.is_some_and(|reader| reader.snapshot != Snapshot::None || reader.next < self.log.first())
    }

    /// The next change for a peer, with its number, and the peer's place is behind it. `None` if there is
    /// none, or none before a snapshot. Images are taken from `filter` now. O(1).
    pub fn next_change(&mut self, key: ReaderKey, filter: &Bloom) -> Option<(u64, Change)> {
        let head = self.head().seq;
        let reader = self.readers.get_mut(key)?;
        if reader.next < self.log.first() {
            reader.snapshot = Snapshot::Due;
        }
        if reader.snapshot == Snapshot::Due || reader.next >= head {
            return None;
        }
        let change = match self.log.get(reader.next)? {
            Entry::Add(hash) => Change::Add(hash),
            Entry::Resize(_) if reader.snapshot != Snapshot::None => {
                // Its blocks are numbered by the old size: begin again by the new one.
                reader.snapshot = Snapshot::Due;
                return None;
            }
            Entry::Resize(size) => {
                reader.size = size;
                Change::Resize(size)
            }
            // A merger of four blocks and more claims nearly every key, and a snapshot is soon due anyway.
            Entry::Dirty(number) => match filter.image(reader.size, number as usize) {
                Some(_) if filter.coarse_size().log2() > reader.size.log2() + 1 => {
                    reader.snapshot = Snapshot::Due;
                    return None;
                }
                Some(image) => Change::Block { number, image },
                None => {
                    reader.snapshot = Snapshot::Due;
                    return None;
                }
            },
        };
        reader.next += 1;
        Some((reader.next - 1, change))
    }

    /// The next piece of a peer's snapshot, if it has one to read; words of blocks are appended to `out`,
    /// at most 16 KiB.
    pub fn next_piece(&mut self, key: ReaderKey, filter: &Bloom, out: &mut Vec<u64>) -> Option<Piece> {
        let position = self.head();
        let reader = self.readers.get_mut(key)?;
        if reader.next < self.log.first() {
            reader.snapshot = Snapshot::Due;
        }
        match reader.snapshot {
            Snapshot::None => None,
            Snapshot::Due => {
                self.snapshots += 1;
                *reader =
                    Reader { next: position.seq, size: self.size, snapshot: Snapshot::Under { next: 0 } };
                Some(Piece::Begin { position, size: self.size })
            }
            Snapshot::Under { next } if next >= reader.size.blocks() => {
                reader.snapshot = Snapshot::None;
                Some(Piece::End)
            }
            Snapshot::Under { next } => {
                let until = reader.size.blocks().min(next + PIECE_BLOCKS);
                let size = reader.size;
                if size != self.size {
                    // Not one more block by a size that is past.
                    reader.snapshot = Snapshot::Due;
                    return self.next_piece(key, filter, out);
                }
                out.reserve((until - next) * BLOCK_WORDS);
                (next..until).filter_map(|number| filter.image(size, number)).for_each(|b| out.extend(b));
                reader.snapshot = Snapshot::Under { next: until };
                Some(Piece::Blocks { first: u32::try_from(next).ok()? })
            }
        }
    }
}
