//! A long frame that arrives in fragments, between which a link receives other frames.

use crate::base::buffer::{Buffer, OutOfMemory, Pool};
use crate::base::memory::LARGE_BYTES;
use crate::base::shared_bytes::SharedMemory;
use crate::limits::BYTES_PER_STEP;
use crate::wire::frame::{FrameLimits, Parsed, frame_bytes, number_answered, parse};
use std::rc::Rc;

/// The frame so far.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    pub(super) frame: Buffer,
    /// Bytes of the current fragment that are still to come.
    left: usize,
    /// Bytes of the frame still to come that are dropped.
    pub(super) skip: usize,
    /// Bytes that were read straight into `frame`, and whose cost is not charged yet.
    filled_bytes: usize,
}

impl Fragments {
    /// Begins a fragment of `bytes` bytes.
    pub(super) const fn begin(&mut self, bytes: usize) {
        self.left = bytes;
    }

    /// Whether a fragment is incomplete, or its last bytes were read and not processed.
    pub(super) const fn is_open(&self) -> bool {
        self.left > 0 || self.filled_bytes > 0
    }

    /// The memory for the next bytes of the fragment; empty if they cannot be read in place.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let left = if self.skip > 0 { 0 } else { self.left };
        let room = self.frame.room();
        let bytes = left.min(BYTES_PER_STEP).min(room.len());
        &mut room[..bytes]
    }

    /// Counts bytes that were read into the start of [`Fragments::room`].
    pub(super) fn filled(&mut self, count: usize) {
        self.frame.filled(count);
        self.left = self.left.saturating_sub(count);
        self.filled_bytes += count;
    }

    /// Takes bytes of the fragment from the front of `input`; `idle` returns memory for a frame of so many bytes, if
    /// there is some. Returns how many, and how many more had been read in place since the last call.
    ///
    /// # Errors
    /// [`OutOfMemory`] if the system has no memory for them.
    pub(super) fn take(
        &mut self,
        input: &[u8],
        limits: FrameLimits,
        pool: &mut Pool,
        idle: impl FnOnce(usize) -> Option<Rc<SharedMemory>>,
    ) -> Result<(usize, usize), OutOfMemory> {
        let bytes = &input[..self.left.min(input.len())];
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let kept = &bytes[skipped..];
        if !kept.is_empty() {
            let is_begun = !self.frame.is_empty();
            let head = if is_begun { self.frame.as_slice() } else { kept };
            let is_partial = parse(head, limits) == Parsed::Partial;
            let expected = if is_partial { frame_bytes(head).unwrap_or_default() } else { 0 };
            if !is_begun
                && expected > LARGE_BYTES
                && let Some(map) = idle(expected)
            {
                self.frame.continue_in(map, pool);
            }
            self.frame.append(kept, expected, pool)?;
        }
        self.left -= bytes.len();
        Ok((bytes.len(), std::mem::take(&mut self.filled_bytes)))
    }

    /// Bytes so far of the answer to a query; 0 if it is another frame.
    pub(super) fn received(&self, request: u32) -> usize {
        let is_answer = number_answered(self.frame.as_slice()) == Some(request);
        if is_answer { self.frame.len() } else { 0 }
    }
}
