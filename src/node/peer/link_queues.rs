//! The queues of a link: waiting frames, one queue per class.
//!
//! The outbound buffer of the connection has at most [`COMMITTED_MAX`] bytes and one more frame. Further frames wait
//! in the queue of their class, and are committed class by class as bytes are written. So an urgent frame waits for
//! at most that many bytes.
//!
//! Not here: which frames are sent, and the limit of each class ([`crate::node::peer::link_output`]).

use crate::base::buffer::Pool;
use crate::base::chunk_queue::ChunkQueue;
use crate::wire::frame::frame_bytes;

/// Bytes in the outbound buffer of a link above which frames wait in the queue of their class.
pub(in crate::node) const COMMITTED_MAX: usize = 64 * 1024;

/// The classes whose frames may wait, the most urgent first. Bulk is not among them: it is generated when it is
/// written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Class {
    /// Heartbeats, RESYNC, PEERS.
    Control,
    /// Changes of the own filter, in the order in which they happened.
    Ordered,
    /// Queries to the peer, and answers to its queries.
    Answer,
}

/// The queues of one link.
#[derive(Debug, Default)]
pub(in crate::node) struct LinkQueues {
    queues: [ChunkQueue; 3],
    /// Bytes of answers since the last frame of bulk.
    pub(super) answered_bytes: usize,
}

impl LinkQueues {
    /// Calls `write` with the vector to append whole frames of a class to. Returns the bytes written.
    pub(in crate::node) fn append(
        &mut self,
        class: Class,
        outbound: &mut ChunkQueue,
        pool: &mut Pool,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        let out = self.queue_for(class, outbound).back(pool);
        let before = out.len();
        write(out);
        out.len() - before
    }

    /// The same for a frame whose end is not copied: `write` appends the rest, `push` then the end.
    pub(in crate::node) fn append_and_push(
        &mut self,
        class: Class,
        outbound: &mut ChunkQueue,
        pool: &mut Pool,
        write: impl FnOnce(&mut Vec<u8>),
        push: impl FnOnce(&mut ChunkQueue, &mut Pool),
    ) -> usize {
        let queue = self.queue_for(class, outbound);
        let before = queue.len();
        write(queue.back(pool));
        push(queue, pool);
        queue.len() - before
    }

    fn queue_for<'q>(&'q mut self, class: Class, outbound: &'q mut ChunkQueue) -> &'q mut ChunkQueue {
        let is_first = self.queues[..=class as usize].iter().all(ChunkQueue::is_empty);
        if is_first && outbound.len() < COMMITTED_MAX { outbound } else { &mut self.queues[class as usize] }
    }

    /// Moves frames to the outbound buffer while it has room, the most urgent first.
    pub(in crate::node) fn commit(&mut self, outbound: &mut ChunkQueue, pool: &mut Pool) {
        for queue in &mut self.queues {
            while outbound.len() < COMMITTED_MAX && !queue.is_empty() {
                // Its header lies in one chunk.
                let frame = frame_bytes(queue.front()).unwrap_or(usize::MAX);
                queue.move_front(frame, outbound, pool);
            }
        }
    }

    /// Bytes that wait in the queue of a class.
    pub(in crate::node) fn waiting(&self, class: Class) -> usize {
        self.queues[class as usize].len()
    }

    /// Bytes of memory held.
    pub(in crate::node) fn held(&self) -> usize {
        self.queues.iter().map(ChunkQueue::held).sum()
    }

    /// Drops all frames and frees the memory.
    pub(in crate::node) fn release(&mut self, pool: &mut Pool) {
        self.queues.iter_mut().for_each(|queue| queue.release(pool));
    }
}

#[cfg(test)]
mod tests {
    use super::{COMMITTED_MAX, Class, LinkQueues};
    use crate::base::buffer::Pool;
    use crate::base::chunk_queue::ChunkQueue;
    use crate::wire::frame::{Body, FrameLimits, Parsed, Wanted, parse, put};

    #[test]
    fn urgent_frame_overtakes_what_waits_and_order_within_a_class_is_kept() {
        let (mut pool, mut outbound, mut queues) =
            (Pool::new(4, 1 << 20), ChunkQueue::new(), LinkQueues::default());
        let key = [b'k'; 10_000];
        let mut append = |class, request, body: &Body<'_>| {
            queues.append(class, &mut outbound, &mut pool, |out| put(out, 0, request, body));
        };
        (0..20).for_each(|n| append(Class::Answer, n, &Body::Get { key: &key, wanted: Wanted::Value }));
        append(Class::Ordered, 100, &Body::SnapEnd);
        append(Class::Control, 101, &Body::Resync(None));
        append(Class::Ordered, 102, &Body::SnapEnd);
        let mut order = Vec::new();
        while !outbound.is_empty() {
            assert!(outbound.len() <= COMMITTED_MAX + key.len() + 20);
            let limits = FrameLimits { key_bytes_max: 10_000, value_bytes_max: 0 };
            let Parsed::Frame { frame, consumed } = parse(outbound.front(), limits) else { panic!() };
            order.push(frame.request);
            outbound.consume(consumed, &mut pool);
            queues.commit(&mut outbound, &mut pool);
        }
        assert_eq!(
            order,
            [0, 1, 2, 3, 4, 5, 6, 101, 100, 102, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
        );
        assert_eq!(queues.held(), 0);
    }
}
