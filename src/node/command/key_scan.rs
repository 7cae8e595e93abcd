//! Key scan: a scan of the keys of this node for KEYS and SCAN, done in steps.

use crate::base::buffer::{OutOfMemory, Pool};
use crate::base::glob::Pattern;
use crate::base::shared_bytes::SharedBytes;
use crate::base::time::Now;
use crate::limits::PIECE_BYTES;
use crate::node::keyspace::Keyspace;
use crate::store::ScanCursor;
use crate::wire::encoder::{Encoder, Protocol};

/// The most keys visited per step.
const VISITED_PER_STEP: usize = 1_024;

/// The most operations per step: per key [`KEY_WORK`], its bytes, and the cost of the pattern.
const WORK_PER_STEP: usize = 512 * 1024;

/// Operations per key, beside its bytes and the pattern.
const KEY_WORK: usize = 128;

/// Low bits of a position that a cursor omits: some clients store cursors as doubles, which hold 53 bits exactly. Keys
/// whose hashes differ only in the omitted bits can be returned twice.
const CURSOR_SHIFT: u32 = 11;

/// A key scan in progress.
#[derive(Debug)]
pub(in crate::node) struct KeyScan {
    /// The pattern of the keys returned; `None`: all keys.
    pattern: Option<Pattern>,
    /// The position to continue from.
    position: ScanCursor,
    /// Keys left to visit.
    left: usize,
    /// Whether the reply begins with the cursor to continue from.
    has_cursor: bool,
    /// The keys found, as complete pieces of the reply.
    pieces: Vec<SharedBytes>,
    /// The keys found since the last piece.
    found: Encoder,
    /// The number of keys found.
    count: usize,
}

impl KeyScan {
    /// A scan of all keys that match the pattern, for KEYS.
    pub(super) const fn of_all(protocol: Protocol, pattern: Option<Pattern>) -> Self {
        Self {
            pattern,
            position: ScanCursor::START,
            left: usize::MAX,
            has_cursor: false,
            pieces: Vec::new(),
            found: Encoder::part(protocol),
            count: 0,
        }
    }

    /// A scan of about `left` keys from a cursor on, for SCAN. `None` if no scan returns such a cursor.
    pub(super) fn from_cursor(
        protocol: Protocol,
        pattern: Option<Pattern>,
        cursor: u64,
        left: usize,
    ) -> Option<Self> {
        let position = ScanCursor(cursor.checked_mul(1 << CURSOR_SHIFT)?);
        Some(Self { position, left, has_cursor: true, ..Self::of_all(protocol, pattern) })
    }

    /// Visits the next keys, bounded by `VISITED_PER_STEP` and `WORK_PER_STEP`. Returns whether the scan is complete.
    pub(super) fn step(&mut self, keyspace: &Keyspace, now: Now) -> bool {
        let Self { pattern, position, left, found, count, .. } = self;
        let (mut work, mut visited) = (0, 0);
        let begin = *position;
        // At least one key, even if none is left to visit: a scan ends only at another cursor.
        let budget = (*left).clamp(1, VISITED_PER_STEP);
        *position = keyspace.store().scan(now.mono, begin, budget, |key, _| {
            visited += 1;
            work += KEY_WORK + key.len() + pattern.as_ref().map_or(0, |pattern| pattern.cost(key.len()));
            if pattern.as_ref().is_none_or(|pattern| pattern.matches(key)) {
                *count += 1;
                if found.is_line() { found.key(key) } else { found.bulk(key) }
            }
            work < WORK_PER_STEP && found.len() < PIECE_BYTES
        });
        *left = left.saturating_sub(visited);
        *position == ScanCursor::START || (*left == 0 && position.0 >> CURSOR_SHIFT > begin.0 >> CURSOR_SHIFT)
    }

    /// Moves the keys found to a new piece once they have `PIECE_BYTES`.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing is changed.
    pub(super) fn cut(&mut self, pool: &mut Pool) -> Result<(), OutOfMemory> {
        if self.found.len() >= PIECE_BYTES {
            self.pieces.push(pool.share(self.found.values()).ok_or(OutOfMemory)?);
            let mut emptied = self.found.take_written(Vec::new());
            emptied.clear();
            self.found.put_back(emptied);
        }
        Ok(())
    }

    /// Bytes of memory, without the complete pieces.
    pub(super) const fn held(&self) -> usize {
        self.found.held()
    }

    /// Bytes of the keys found.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.iter().map(SharedBytes::len).sum::<usize>() + self.found.len()
    }

    /// Writes the reply of a complete scan without pieces.
    pub(super) fn put(&self, reply: &mut Encoder) {
        self.put_head(reply);
        reply.append(self.found.values());
    }

    /// The reply of a complete scan: its beginning, its pieces, its end.
    pub(super) fn reply(&mut self, mut reply: Encoder) -> (Vec<u8>, &[SharedBytes], Vec<u8>) {
        if self.pieces.is_empty() {
            self.put(&mut reply);
            return (reply.end(), &[], Vec::new());
        }
        self.put_head(&mut reply);
        reply.begin_values();
        let begin = reply.take_written(self.found.take_written(Vec::new()));
        (begin, &self.pieces, reply.end())
    }

    fn put_head(&self, reply: &mut Encoder) {
        if self.has_cursor {
            reply.array(2);
            reply.text(self.position.0 >> CURSOR_SHIFT);
        }
        reply.array(self.count);
    }
}
