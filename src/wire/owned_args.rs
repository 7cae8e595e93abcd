//! Arguments that are kept: of a request that waits, of the requests of a transaction, of the settings of a connection.
//!
//! The spans and the bytes of a request are one piece of memory, which is a map unless it is small: the allocator
//! returns only the end of its heap to the system, so what ten thousand clients leave there would stay.

use super::args::{Args, Span, span};
use crate::base::buffer::{Buffer, OutOfMemory, Pool};
use crate::base::kept_bytes::KeptBytes;
use crate::base::memory::reserve;

const SPAN_BYTES: usize = size_of::<Span>();

/// The spans of `args`, if their bytes lie one after the other.
fn spans<'a>(args: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = Span> {
    args.scan(0, |end, arg| {
        let start = *end;
        *end += arg.len();
        Some(span(start, *end))
    })
}

/// Arguments that own their bytes.
#[derive(Debug)]
pub struct OwnedArgs {
    count: usize,
    /// The spans, and the text in which they are.
    bytes: KeptBytes,
}

impl OwnedArgs {
    /// A copy; `None` if the system has no memory for it. O(bytes).
    pub fn new(args: Args<'_>) -> Option<Self> {
        Self::of(args.iter())
    }

    /// A copy of byte strings; `None` if the system has no memory for it. O(bytes).
    pub fn of<'a>(args: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Self> {
        let (count, text) = args.clone().fold((0, 0), |(count, bytes), arg| (count + 1, bytes + arg.len()));
        let mut bytes = Vec::new();
        if !reserve(&mut bytes, count * SPAN_BYTES + text) {
            return None;
        }
        spans(args.clone()).for_each(|span| bytes.extend_from_slice(&span));
        args.for_each(|arg| bytes.extend_from_slice(arg));
        Some(Self { count, bytes: bytes.into() })
    }

    /// The arguments.
    pub fn args(&self) -> Args<'_> {
        let (spans, text) = self.bytes.as_slice().split_at(self.count * SPAN_BYTES);
        Args::new(text, spans.as_chunks().0)
    }

    /// Bytes of the arguments.
    pub fn bytes(&self) -> usize {
        self.bytes.as_slice().len() - self.count * SPAN_BYTES
    }

    /// Bytes of memory that the arguments take.
    pub fn held(&self) -> usize {
        size_of::<Self>() + self.bytes.held()
    }
}

/// Requests in the order in which they were added.
#[derive(Debug, Default)]
pub struct RequestList {
    /// Per request: the number of its arguments in four bytes, their spans, their text.
    bytes: Buffer,
    requests: usize,
}

impl RequestList {
    /// Adds a copy of a request. O(bytes).
    ///
    /// # Errors
    /// [`OutOfMemory`] if the system has no memory for it; nothing is changed then.
    pub fn push<'a>(
        &mut self,
        args: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
        pool: &mut Pool,
    ) -> Result<(), OutOfMemory> {
        let (count, text) = (args.len(), args.clone().map(<[u8]>::len).sum::<usize>());
        let Ok(number) = u32::try_from(count) else { return Err(OutOfMemory) };
        let more = size_of::<u32>() + count * SPAN_BYTES + text;
        let bytes = self.bytes.len() + more;
        self.bytes.reserve(more, bytes, pool)?;
        self.bytes.append(&number.to_le_bytes(), bytes, pool)?;
        spans(args.clone()).try_for_each(|span| self.bytes.append(&span, bytes, pool))?;
        args.into_iter().try_for_each(|arg| self.bytes.append(arg, bytes, pool))?;
        self.requests += 1;
        Ok(())
    }

    /// The number of requests.
    pub const fn len(&self) -> usize {
        self.requests
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.requests == 0
    }

    /// The requests in order.
    pub fn iter(&self) -> impl Iterator<Item = Args<'_>> + Clone {
        let mut rest = self.bytes.as_slice();
        (0..self.requests).map_while(move |_| {
            let (count, after) = rest.split_first_chunk()?;
            let spans = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(SPAN_BYTES)?;
            let (spans, text) = after.split_at_checked(spans)?;
            let args = Args::new(text, spans.as_chunks().0);
            rest = text.get(args.iter().map(<[u8]>::len).sum()..)?;
            Some(args)
        })
    }

    /// Bytes of memory.
    pub const fn held(&self) -> usize {
        self.bytes.held()
    }

    /// Drops the requests and returns their memory to the pool.
    pub fn release(mut self, pool: &mut Pool) {
        self.bytes.release(pool);
    }
}

#[cfg(test)]
mod tests {
    use super::{OwnedArgs, RequestList};
    use crate::base::buffer::Pool;

    #[test]
    fn arguments_come_out_as_they_went_in_and_take_no_memory_of_the_heap_unless_they_are_few() {
        let mut pool = Pool::new(4, 1_024);
        let long = vec![b'x'; 70_000];
        let requests: Vec<Vec<&[u8]>> = (0..200)
            .map(|at| match at % 5 {
                0 => vec![&b"PING"[..]],
                1 => vec![&b"SET"[..], b"key", &long[..at * 7]],
                2 => vec![&b""[..]; 3],
                3 if at == 103 => vec![&b"SET"[..], b"key", &long[..]],
                3 => vec![&b"k"[..]; at],
                _ => Vec::new(),
            })
            .collect();
        let mut list = RequestList::default();
        for (at, request) in requests.iter().enumerate() {
            list.push(request.iter().copied(), &mut pool).unwrap();
            let owned = OwnedArgs::of(request.iter().copied()).unwrap();
            assert!(owned.args().iter().eq(request.iter().copied()), "{at}");
            assert_eq!(owned.bytes(), request.iter().map(|arg| arg.len()).sum::<usize>());
            assert_eq!(list.len(), at + 1);
            assert!(list.iter().zip(&requests).all(|(args, words)| args.iter().eq(words.iter().copied())));
            assert_eq!(list.iter().count(), at + 1);
        }
        let bytes: usize = requests.iter().flatten().map(|arg| arg.len() + 8).sum();
        assert!((bytes..4 * bytes).contains(&list.held()), "{} for {bytes}", list.held());
    }
}
