//! The replies of commands that read keys, found on this node or on others.

use crate::base::buffer::Pool;
use crate::base::chunk_queue::ChunkQueue;
use crate::base::shared_bytes::SharedBytes;
use crate::base::time::Now;
use crate::store::{Expiry, Item};
use crate::wire::encoder::{Encoder, GAP_BYTES_MIN};
use crate::wire::field::plain_up_to;
use crate::wire::frame::Wanted;
use std::ops::Range;

/// The parts of a found key for the reply.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Found<'a> {
    /// Its value; empty if only the TTL was requested.
    pub(in crate::node) value: &'a [u8],
    /// Its expiry.
    pub(in crate::node) until: Option<Expiry>,
}

impl<'a> Found<'a> {
    /// The parts of an item for the reply.
    pub(in crate::node) fn of(item: &Item<'a>) -> Self {
        Self { value: item.value, until: item.expiry }
    }
}

/// The form of a reply.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct KeyReply {
    pub(in crate::node) wanted: Wanted,
    pub(in crate::node) shape: Shape,
    /// The range of bytes of the value, as in GETRANGE: first and last, from the end if negative; `None`: all.
    pub(in crate::node) range: Option<(i64, i64)>,
    /// Writes the part of the reply for one key.
    pub(in crate::node) write: fn(&mut Encoder, Now, &[u8], Option<Found<'_>>),
}

/// The shape of such a reply in RESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Shape {
    /// The part of its one key.
    One,
    /// An array of the parts of all keys.
    Array,
    /// The number of keys found. The parts are for lines only.
    Count,
}

impl KeyReply {
    /// Writes the head of a reply for this many keys.
    pub(in crate::node) fn begin(&self, reply: &mut Encoder, keys: usize) {
        if self.shape == Shape::Array {
            reply.array(keys);
        }
    }

    /// The range of bytes of a value of `len` bytes that is shown.
    pub(in crate::node) fn shown(&self, len: usize) -> Range<usize> {
        self.range.map_or(0..len, |(first, last)| range_of(len, first, last))
    }

    /// Writes the part of the reply for one key, with the range of its value.
    #[inline(always)]
    pub(in crate::node) fn put(&self, reply: &mut Encoder, now: Now, key: &[u8], found: Option<Found<'_>>) {
        let found = match (self.range, found) {
            (Some((first, last)), Some(found)) => {
                let range = range_of(found.value.len(), first, last);
                Some(Found { value: &found.value[range], ..found })
            }
            (Some(_) | None, found) => found,
        };
        (self.write)(reply, now, key, found);
    }

    /// The same for a value of any length, which is shared with `out` if it is large; what was written before it is moved
    /// there. In lines a value that needs quotes is copied.
    pub(in crate::node) fn put_shared(
        &self,
        reply: &mut Encoder,
        now: Now,
        key: &[u8],
        (value, until): (SharedBytes, Option<Expiry>),
        (out, pool): (&mut ChunkQueue, &mut Pool),
    ) {
        let shown = self.shown(value.len());
        let value = value.slice(shown);
        let is_large = value.len() > GAP_BYTES_MIN;
        if is_large && (!reply.is_line() || plain_up_to(value.as_slice(), 0, usize::MAX).is_some()) {
            reply.leave_gap_for_large(false);
        }
        (self.write)(reply, now, key, Some(Found { value: value.as_slice(), until }));
        if let Some(at) = reply.take_gap() {
            fill_gap(reply, at, value, out, pool);
        }
    }
}

/// Moves what is written before the gap at `at` to `out`, and the bytes that were left out there.
pub(in crate::node) fn fill_gap(
    reply: &mut Encoder,
    at: usize,
    bytes: SharedBytes,
    out: &mut ChunkQueue,
    pool: &mut Pool,
) {
    let mut written = reply.take_written(pool.take());
    reply.put_back(written.split_off(at));
    out.push_chunk(written, pool);
    out.push_shared(bytes, pool);
}

/// The range from `first` to `last` of `bytes` bytes; negative numbers count from the end.
fn range_of(bytes: usize, first: i64, last: i64) -> Range<usize> {
    let len = i64::try_from(bytes).unwrap_or(i64::MAX);
    let at = |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index };
    // Two ends before the beginning are an empty range, not the first byte.
    if first < 0 && last < 0 && first > last {
        return 0..0;
    }
    let end = at(last).saturating_add(1).min(len);
    let range = usize::try_from(at(first)).ok().zip(usize::try_from(end).ok());
    range.filter(|(start, end)| start <= end).map_or(0..0, |(start, end)| start..end)
}
