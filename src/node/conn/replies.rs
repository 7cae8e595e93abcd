//! The replies of a connection in the order of its requests, though some are not known yet.
//!
//! While every reply is known at once, the queue is empty and replies are written straight to the connection's outbound
//! buffer. A request whose reply is not known yet takes a slot with [`Replies::hold`]; from then on later replies wait
//! after it, and [`Replies::fill`] releases all replies that waited for it. A [`SlotNumber`] is not used again in the
//! connection once its reply is released, so a duplicate answer, or one after the end of its connection, changes
//! nothing.

use crate::base::buffer::Pool;
use crate::base::chunk_queue::ChunkQueue;
use crate::base::shared_bytes::SharedBytes;
use crate::base::time::Instant;
use crate::node::ids::PendingKey;
use crate::node::latency::{Batch, Mark, Marks};
use std::collections::VecDeque;
use std::mem;

/// The number of a reply slot, in the order of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotNumber(u64);

/// Maximum number of slots whose memory an empty queue keeps.
const SLOTS_KEPT: usize = 4;

#[derive(Debug)]
struct Slot {
    reply: Reply,
    /// When its requests arrived.
    mark: Mark,
}

#[derive(Debug)]
enum Reply {
    /// The reply is not known yet.
    Waiting,
    /// The reply of this request is known and long: it is written piece by piece when it is at the front.
    Long(PendingKey),
    /// Replies of one or more requests, waiting for those before them.
    Ready(Vec<u8>),
    /// The long reply of one request, in pieces that are not copied.
    Pieces(Vec<SharedBytes>),
}

impl Reply {
    /// Bytes of the reply that are known.
    fn bytes(&self) -> usize {
        match self {
            Self::Waiting | Self::Long(_) => 0,
            Self::Ready(bytes) => bytes.len(),
            Self::Pieces(pieces) => pieces.iter().map(SharedBytes::len).sum(),
        }
    }

    /// Bytes of memory of the known bytes, without shared ones.
    fn held(&self) -> usize {
        match self {
            Self::Waiting | Self::Long(_) => 0,
            Self::Ready(bytes) => bytes.capacity(),
            Self::Pieces(pieces) => pieces.capacity() * size_of::<SharedBytes>(),
        }
    }
}

/// Replies that cannot be sent yet.
#[derive(Debug, Default)]
struct Queue {
    slots: VecDeque<Slot>,
    /// Bytes of the replies in `slots`, and of the memory that they take.
    bytes: usize,
    held: usize,
    /// Slots whose replies are not known, or long and not completely written.
    waiting: usize,
}

impl Queue {
    fn push(&mut self, reply: Reply) {
        self.slots.push_back(Slot { reply, mark: Mark::default() });
    }

    /// Counts a reply that enters the queue.
    fn count(&mut self, len: usize, capacity: usize) {
        self.bytes += len;
        self.held += capacity;
    }

    /// Subtracts a reply that leaves the queue.
    fn uncount(&mut self, len: usize, capacity: usize) {
        self.bytes -= len;
        self.held -= capacity;
    }
}

/// The replies of one connection in their order.
#[derive(Debug, Default)]
pub struct Replies {
    /// Replies that cannot be sent yet. Boxed, since most connections never have any.
    queue: Option<Box<Queue>>,
    /// The number of the first slot.
    first: u64,
    /// Requests whose replies are in the output.
    pub(super) marks: Marks,
}

impl Replies {
    /// Whether every reply so far is in the output.
    pub fn is_empty(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.slots.is_empty())
    }

    /// The number of replies that are not known, or long and not completely written.
    pub fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.waiting)
    }

    /// Bytes of replies in the queue, as of the last time one was added or released.
    pub fn bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes)
    }

    /// Bytes of memory of the queue, as of the same time.
    pub fn held(&self) -> usize {
        self.queue
            .as_ref()
            .map_or(0, |queue| size_of::<Queue>() + queue.held + queue.slots.capacity() * size_of::<Slot>())
    }

    /// The index of a slot in the queue, unless its reply was released.
    fn at(&self, number: SlotNumber) -> Option<usize> {
        usize::try_from(number.0.checked_sub(self.first)?).ok()
    }

    fn slot_mut(&mut self, number: SlotNumber) -> Option<&mut Slot> {
        let at = self.at(number)?;
        self.queue.as_mut()?.slots.get_mut(at)
    }

    /// Calls `write` with the buffer to which the next reply is appended, after all replies so far.
    pub fn next<R>(
        &mut self,
        outbound: &mut ChunkQueue,
        pool: &mut Pool,
        write: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> R {
        let mut out = self.open(outbound, pool);
        let result = write(&mut out);
        self.close(&mut out, outbound, pool);
        result
    }

    /// Takes out the buffer to which the next reply is appended. [`Replies::close`] must return it before any other
    /// call.
    #[inline(always)]
    pub fn open(&mut self, outbound: &mut ChunkQueue, pool: &mut Pool) -> Vec<u8> {
        let back = match &mut self.queue {
            None => outbound.back(pool),
            Some(queue) => Self::back_queued(queue, outbound, pool),
        };
        mem::take(back)
    }

    #[inline(never)]
    fn back_queued<'b>(
        queue: &'b mut Queue,
        outbound: &'b mut ChunkQueue,
        pool: &mut Pool,
    ) -> &'b mut Vec<u8> {
        if queue.slots.back().is_some_and(|slot| !matches!(slot.reply, Reply::Ready(_))) {
            let bytes = pool.take();
            queue.count(0, bytes.capacity());
            queue.push(Reply::Ready(bytes));
        }
        match queue.slots.back_mut().map(|slot| &mut slot.reply) {
            Some(Reply::Ready(bytes)) => {
                queue.bytes -= bytes.len();
                queue.held -= bytes.capacity();
                bytes
            }
            Some(Reply::Waiting | Reply::Long(_) | Reply::Pieces(_)) | None => outbound.back(pool),
        }
    }

    /// Takes out of `out` the buffer of [`Replies::open`].
    #[inline(always)]
    pub fn close(&mut self, out: &mut Vec<u8>, outbound: &mut ChunkQueue, pool: &mut Pool) {
        match &mut self.queue {
            None => outbound.put_back(out, pool),
            Some(queue) => Self::close_queued(queue, out, outbound, pool),
        }
    }

    #[inline(never)]
    fn close_queued(queue: &mut Queue, out: &mut Vec<u8>, outbound: &mut ChunkQueue, pool: &mut Pool) {
        match queue.slots.back_mut() {
            None => return outbound.put_back(out, pool),
            Some(_) if out.is_empty() => {
                // The reply comes later. An empty slot would hold a buffer that is not counted.
                queue.slots.pop_back();
                return pool.give(mem::take(out));
            }
            Some(_) => {}
        }
        queue.count(out.len(), out.capacity());
        if let Some(slot) = queue.slots.back_mut() {
            slot.reply = Reply::Ready(mem::take(out));
        }
    }

    /// Notes that the requests whose replies were written last, or the one whose reply was held last, had arrived at
    /// `arrived`, and were carried out at `now`.
    pub(in crate::node) fn note(
        &mut self,
        outbound: &ChunkQueue,
        (arrived, now): (Instant, Instant),
        batch: Batch,
    ) {
        match self.queue.as_mut().and_then(|queue| queue.slots.back_mut()) {
            None => self.marks.add(outbound.len(), (arrived, now), batch),
            Some(slot) => slot.mark.add(arrived, now, &batch),
        }
    }

    /// The mark of a held slot.
    pub(in crate::node) fn mark_mut(&mut self, number: SlotNumber) -> Option<&mut Mark> {
        self.slot_mut(number).map(|slot| &mut slot.mark)
    }

    /// Holds the next slot for a reply that is not known yet. The caller must fill it.
    pub fn hold(&mut self) -> SlotNumber {
        let queue = self.queue.get_or_insert_default();
        let number = SlotNumber(self.first + queue.slots.len() as u64);
        queue.push(Reply::Waiting);
        queue.waiting += 1;
        number
    }

    /// Removes a slot that waits, if it is the last one: the next reply takes its place.
    pub fn withdraw(&mut self, number: SlotNumber) {
        let at = self.at(number);
        let Some(queue) = &mut self.queue else { return };
        if at.is_some_and(|at| at + 1 == queue.slots.len())
            && let Some(Slot { reply: Reply::Waiting, .. }) = queue.slots.back()
        {
            queue.slots.pop_back();
            queue.waiting -= 1;
        }
    }

    /// Fills a slot with a reply, a whole line, and moves the complete replies at the front to `outbound`. Returns
    /// false and changes nothing if the slot does not wait.
    pub fn fill(
        &mut self,
        now: Instant,
        number: SlotNumber,
        reply: &[u8],
        outbound: &mut ChunkQueue,
        pool: &mut Pool,
    ) -> bool {
        let mut bytes = pool.take();
        bytes.extend_from_slice(reply);
        self.put(now, number, Reply::Ready(bytes), outbound, pool)
    }

    /// The same with a long reply in pieces, which are not copied.
    pub fn fill_pieces(
        &mut self,
        now: Instant,
        number: SlotNumber,
        pieces: Vec<SharedBytes>,
        outbound: &mut ChunkQueue,
        pool: &mut Pool,
    ) -> bool {
        self.put(now, number, Reply::Pieces(pieces), outbound, pool)
    }

    fn put(
        &mut self,
        now: Instant,
        number: SlotNumber,
        reply: Reply,
        outbound: &mut ChunkQueue,
        pool: &mut Pool,
    ) -> bool {
        let (bytes, held) = (reply.bytes(), reply.held());
        match self.slot_mut(number) {
            Some(slot) if matches!(slot.reply, Reply::Waiting) => slot.reply = reply,
            Some(_) | None => return false,
        }
        if let Some(queue) = &mut self.queue {
            queue.count(bytes, held);
            queue.waiting -= 1;
        }
        self.let_go(now, outbound, pool);
        true
    }

    /// Moves the complete replies at the front to `outbound`.
    fn let_go(&mut self, now: Instant, outbound: &mut ChunkQueue, pool: &mut Pool) {
        let Some(queue) = &mut self.queue else { return };
        while let Some(Slot { reply: Reply::Ready(_) | Reply::Pieces(_), .. }) = queue.slots.front() {
            let Some(Slot { reply, mut mark }) = queue.slots.pop_front() else { return };
            queue.uncount(reply.bytes(), reply.held());
            match reply {
                Reply::Ready(bytes) => outbound.push_chunk(bytes, pool),
                Reply::Pieces(pieces) => {
                    pieces.into_iter().for_each(|piece| outbound.push_shared(piece, pool));
                }
                Reply::Waiting | Reply::Long(_) => {}
            }
            mark.let_go(now);
            self.marks.add_held(outbound.len(), mark);
            self.first += 1;
        }
        if queue.slots.is_empty() && queue.slots.capacity() > SLOTS_KEPT {
            self.queue = None;
        }
    }

    /// Notes that the reply of a waiting slot is known, and is written in pieces when it is at the front.
    pub fn write_later(&mut self, now: Instant, number: SlotNumber, key: PendingKey) {
        if let Some(Slot { reply: reply @ Reply::Waiting, mark }) = self.slot_mut(number) {
            *reply = Reply::Long(key);
            mark.let_go(now);
        }
    }

    /// The request whose reply is to be written now, piece by piece, straight to the output.
    #[inline]
    pub fn long_at_front(&self) -> Option<PendingKey> {
        match self.queue.as_ref()?.slots.front()?.reply {
            Reply::Long(key) => Some(key),
            Reply::Waiting | Reply::Ready(_) | Reply::Pieces(_) => None,
        }
    }

    /// Ends the long reply at the front: its last piece is in the output.
    pub fn end_long(&mut self, now: Instant, outbound: &mut ChunkQueue, pool: &mut Pool) {
        if self.long_at_front().is_some()
            && let Some(queue) = &mut self.queue
            && let Some(slot) = queue.slots.pop_front()
        {
            queue.waiting -= 1;
            self.marks.add_held(outbound.len(), slot.mark);
            self.first += 1;
            self.let_go(now, outbound, pool);
        }
    }

    /// The requests with long replies that are not completely written.
    pub fn long(&self) -> impl Iterator<Item = PendingKey> {
        let slots = self.queue.iter().flat_map(|queue| &queue.slots);
        slots.filter_map(|slot| match slot.reply {
            Reply::Long(key) => Some(key),
            Reply::Waiting | Reply::Ready(_) | Reply::Pieces(_) => None,
        })
    }

    /// Drops all replies and returns their memory to the pool.
    pub fn release(&mut self, pool: &mut Pool) {
        let Some(queue) = self.queue.take() else { return };
        self.first += queue.slots.len() as u64;
        for slot in queue.slots {
            if let Reply::Ready(bytes) = slot.reply {
                pool.give(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Replies;
    use crate::base::buffer::Pool;
    use crate::base::chunk_queue::ChunkQueue;
    use crate::base::time::Instant;

    struct Bench {
        replies: Replies,
        outbound: ChunkQueue,
        pool: Pool,
    }

    impl Bench {
        fn new() -> Self {
            Self { replies: Replies::default(), outbound: ChunkQueue::new(), pool: Pool::new(4, 4_096) }
        }

        fn say(&mut self, text: &str) {
            let Self { replies, outbound, pool } = self;
            replies.next(outbound, pool, |out| out.extend_from_slice(text.as_bytes()));
        }

        fn fill(&mut self, number: super::SlotNumber, text: &str) -> bool {
            self.replies.fill(Instant::ZERO, number, text.as_bytes(), &mut self.outbound, &mut self.pool)
        }

        fn slots(&self) -> usize {
            self.replies.queue.as_ref().map_or(0, |queue| queue.slots.len())
        }

        fn sent(&self) -> &str {
            std::str::from_utf8(self.outbound.front()).unwrap()
        }
    }

    #[test]
    fn later_replies_wait_behind_a_held_place() {
        let mut bench = Bench::new();
        bench.say("a");
        let first = bench.replies.hold();
        bench.say("c");
        bench.say("d");
        let second = bench.replies.hold();
        bench.say("f");
        assert_eq!(bench.sent(), "a");
        assert!(bench.fill(second, "e"));
        assert_eq!(bench.sent(), "a");
        assert!(bench.fill(first, "b"));
        assert_eq!(bench.sent(), "abcdef");
        assert!(bench.replies.is_empty());
        assert_eq!(bench.replies.bytes(), 0);
    }

    #[test]
    fn request_that_goes_on_elsewhere_leaves_no_buffer_behind() {
        let mut bench = Bench::new();
        let first = bench.replies.hold();
        bench.say("");
        let second = bench.replies.hold();
        assert_eq!(bench.slots(), 2);
        bench.say("c");
        bench.say("");
        assert_eq!((bench.slots(), bench.replies.bytes()), (3, 1));
        assert!(bench.fill(second, "b") && bench.fill(first, "a"));
        assert_eq!(bench.sent(), "abc");
    }

    #[test]
    fn answer_that_comes_twice_changes_nothing() {
        let mut bench = Bench::new();
        let first = bench.replies.hold();
        let second = bench.replies.hold();
        assert!(bench.fill(first, "a"));
        assert!(!bench.fill(first, "x"));
        bench.replies.release(&mut bench.pool);
        assert!(!bench.fill(second, "b"));
        let third = bench.replies.hold();
        assert_ne!(second, third);
        assert!(bench.fill(third, "c"));
        assert_eq!(bench.sent(), "ac");
    }
}
