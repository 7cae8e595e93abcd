//! How the reply to a command that reads keys is written, whether they were found here or elsewhere.

use crate::base::time::Now;
use crate::store::{Expiry, Item};
use crate::wire::encoder::Encoder;
use crate::wire::frame::Wanted;
use std::ops::Range;

/// A key that was found, as a reply shows it.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Found<'a> {
    /// Empty if only the TTL is wanted.
    pub(in crate::node) value: &'a [u8],
    /// When it expires, if it does.
    pub(in crate::node) until: Option<Expiry>,
}

impl<'a> Found<'a> {
    /// What a reply shows of an item.
    pub(in crate::node) fn of(item: &Item<'a>) -> Self {
        Self { value: item.value, until: item.expiry }
    }
}

/// The form of a reply.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct KeyReply {
    pub(in crate::node) wanted: Wanted,
    pub(in crate::node) shape: Shape,
    /// Which bytes of the value are shown, as GETRANGE counts them: first and last, from the end if negative.
    pub(in crate::node) range: Option<(i64, i64)>,
    /// Writes what there is of one key.
    pub(in crate::node) write: fn(&mut Encoder, Now, &[u8], Option<Found<'_>>),
}

/// What a reply to a command that reads keys is in RESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Shape {
    /// What is written of the one key.
    One,
    /// An array of what is written of each key.
    Array,
    /// The number of keys found. What is written of each is for lines.
    Count,
}

impl KeyReply {
    /// Writes what stands before the keys, of which there are so many.
    pub(in crate::node) fn begin(&self, reply: &mut Encoder, keys: usize) {
        if self.shape == Shape::Array {
            reply.array(keys);
        }
    }

    /// The bytes that are shown of a value of so many.
    pub(in crate::node) fn shown(&self, len: usize) -> Range<usize> {
        self.range.map_or(0..len, |(first, last)| range_of(len, first, last))
    }

    /// Writes what there is of one key, the part of it that is shown.
    #[inline]
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
}

/// Of `bytes` bytes, those from the one at `first` to the one at `last`; negative numbers count from the end.
fn range_of(bytes: usize, first: i64, last: i64) -> Range<usize> {
    let len = i64::try_from(bytes).unwrap_or(i64::MAX);
    let at = |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index };
    // Two ends before the begin are no bytes, not the first one.
    if first < 0 && last < 0 && first > last {
        return 0..0;
    }
    let end = at(last).saturating_add(1).min(len);
    let range = usize::try_from(at(first)).ok().zip(usize::try_from(end).ok());
    range.filter(|(start, end)| start <= end).map_or(0..0, |(start, end)| start..end)
}
