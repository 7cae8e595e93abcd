//! Filter dump: the own filter as text, written in steps. Each block is the one at the time of its step.

use crate::base::buffer::{OutOfMemory, Pool};
use crate::base::memory::has_room;
use crate::base::shared_bytes::SharedBytes;
use crate::filter::bloom::Bloom;
use crate::filter::size::Size;
use crate::limits::PIECE_BYTES;
use crate::node::keyspace::Keyspace;
use crate::wire::filter_dump::{FilterDump, FilterHead};

/// Filter blocks per step: 16 KiB of filter, 32 KiB of text, about 20 µs.
const BLOCKS_PER_STEP: usize = 256;

/// A filter dump in progress.
#[derive(Debug)]
pub(in crate::node) struct Dump {
    /// Complete pieces of the text.
    pieces: Vec<SharedBytes>,
    /// The text after the last piece.
    text: Vec<u8>,
    writer: FilterDump,
    /// The filter's size at the beginning. If it changes, the dump starts over.
    size: Size,
    /// The next block.
    next: usize,
}

impl Dump {
    /// Begins a dump: writes the head.
    ///
    /// # Errors
    /// A sentence, if the text would be longer than `limit` bytes, or there is no memory for it.
    pub(super) fn begin(keyspace: &Keyspace, limit: u32) -> Result<Self, String> {
        let (head, size) = (keyspace.changelog().head(), keyspace.own_filter().size());
        let head = FilterHead {
            blocks: size.blocks() as u64,
            keys: keyspace.store().len() as u64,
            epoch: head.epoch,
            seq: head.seq,
        };
        let mut text = Vec::new();
        let writer = FilterDump::begin(&head, &mut text);
        // Two digits per byte, fewer for runs of zeroes, and the line end.
        let bytes = size.bytes();
        if text.len() as u64 + bytes * 2 + 1 > u64::from(limit) {
            return Err(format!(
                "the filter of {bytes} bytes takes more than reply_bytes_max = {limit} as text; \
                 peers get it in frames"
            ));
        }
        if !has_room(2 * usize::try_from(bytes).unwrap_or(usize::MAX / 2)) {
            return Err(OutOfMemory.to_string());
        }
        Ok(Self { pieces: Vec::new(), text, writer, size, next: 0 })
    }

    /// Whether the filter has the size that it had at the beginning.
    pub(super) fn is_of(&self, filter: &Bloom) -> bool {
        self.size == filter.size()
    }

    /// Writes the next blocks; returns whether the dump is complete.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub(super) fn step(&mut self, filter: &Bloom, pool: &mut Pool) -> Result<bool, OutOfMemory> {
        let until = self.size.blocks().min(self.next + BLOCKS_PER_STEP);
        for number in self.next..until {
            self.writer.words(&filter.block(number).copied().unwrap_or_default(), &mut self.text);
        }
        self.next = until;
        let is_complete = until == self.size.blocks();
        if is_complete {
            self.writer.finish(&mut self.text);
        }
        if is_complete || self.text.len() >= PIECE_BYTES {
            self.pieces.push(pool.share(&self.text).ok_or(OutOfMemory)?);
            self.text.clear();
        }
        Ok(is_complete)
    }

    /// Bytes of memory, without the complete pieces.
    pub(in crate::node) fn held(&self) -> usize {
        self.text.capacity()
    }

    /// The text of a complete dump.
    pub(super) fn into_pieces(self) -> Vec<SharedBytes> {
        self.pieces
    }
}
