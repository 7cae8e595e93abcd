//! The queues of a link: waiting frames, one queue per class, and queries of the peer that wait for room.
//!
//! The outbound buffer of the connection has at most [`COMMITTED_MAX`] bytes and one more frame. Further frames wait
//! in the queue of their class, and are committed class by class as bytes are written. Long answers are committed in
//! fragments, between which all other frames pass. So an urgent frame waits for at most that many bytes and one
//! fragment.
//!
//! Not here: which frames are sent, and the limit of each class ([`crate::node::peer::link_output`]).

use crate::base::buffer::Pool;
use crate::base::chunk_queue::ChunkQueue;
use crate::node::lookup::queries::DeferredQueries;
use crate::wire::frame::{FRAGMENT_BYTES_MAX, frame_bytes, put_fragment_head};

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
    /// Answers longer than a fragment.
    Long,
}

/// The queues of one link.
#[derive(Debug, Default)]
pub(in crate::node) struct LinkQueues {
    queues: [ChunkQueue; 4],
    /// Queries of the peer that wait for room.
    pub(in crate::node) deferred: DeferredQueries,
    /// The same for long values, which are answered one at a time.
    pub(in crate::node) deferred_long: DeferredQueries,
    /// Bytes of answers since the last frame of bulk.
    pub(super) answered_bytes: usize,
    /// Bytes of the first long answer that are not committed, if some are.
    left: usize,
    /// Bytes of other answers committed since the last fragment.
    passed: usize,
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
        let appended = queue.len() - before;
        if class == Class::Long {
            self.commit(outbound, pool, false);
        }
        appended
    }

    fn queue_for<'q>(&'q mut self, class: Class, outbound: &'q mut ChunkQueue) -> &'q mut ChunkQueue {
        let is_first = self.queues[..=class as usize].iter().all(ChunkQueue::is_empty);
        let is_whole = class != Class::Long;
        if is_first && is_whole && outbound.len() < COMMITTED_MAX {
            outbound
        } else {
            &mut self.queues[class as usize]
        }
    }

    /// Moves frames to the outbound buffer while it has room, the most urgent first. Answers and fragments of long ones
    /// take turns by bytes; no fragment is committed while `is_bulk_due`.
    pub(in crate::node) fn commit(&mut self, outbound: &mut ChunkQueue, pool: &mut Pool, is_bulk_due: bool) {
        let [control, ordered, answers, long] = &mut self.queues;
        for queue in [control, ordered] {
            while outbound.len() < COMMITTED_MAX && !queue.is_empty() {
                move_frame(queue, outbound, pool);
            }
        }
        while outbound.len() < COMMITTED_MAX {
            let is_turn_of_long = answers.is_empty() || self.passed >= FRAGMENT_BYTES_MAX;
            if is_turn_of_long && !long.is_empty() && !is_bulk_due {
                let frame =
                    if self.left > 0 { self.left } else { frame_bytes(long.front()).unwrap_or(long.len()) };
                let bytes = frame.min(FRAGMENT_BYTES_MAX);
                put_fragment_head(outbound.back(pool), bytes);
                long.move_front(bytes, outbound, pool);
                self.left = frame - bytes;
                self.answered_bytes = self.answered_bytes.saturating_add(bytes);
                self.passed = 0;
            } else if answers.is_empty() {
                return;
            } else {
                self.passed += move_frame(answers, outbound, pool);
            }
        }
    }

    /// Bytes that wait in the queue of a class.
    pub(in crate::node) fn waiting(&self, class: Class) -> usize {
        self.queues[class as usize].len()
    }

    /// Whether no long answer waits: one at a time, since each takes memory for as long as it waits.
    pub(in crate::node) fn has_room_for_long(&self) -> bool {
        self.waiting(Class::Long) == 0
    }

    /// Bytes of memory held.
    pub(in crate::node) fn held(&self) -> usize {
        let frames: usize = self.queues.iter().map(ChunkQueue::held).sum();
        frames + self.deferred.held() + self.deferred_long.held()
    }

    /// Drops all frames and frees the memory.
    pub(in crate::node) fn release(&mut self, pool: &mut Pool) {
        self.queues.iter_mut().for_each(|queue| queue.release(pool));
    }
}

/// Moves the first frame of a queue to the outbound buffer; returns its bytes.
fn move_frame(queue: &mut ChunkQueue, outbound: &mut ChunkQueue, pool: &mut Pool) -> usize {
    // Its header lies in one chunk.
    let frame = frame_bytes(queue.front()).unwrap_or(queue.len());
    queue.move_front(frame, outbound, pool);
    frame
}

#[cfg(test)]
mod tests {
    use super::{COMMITTED_MAX, Class, FRAGMENT_BYTES_MAX, LinkQueues};
    use crate::base::buffer::Pool;
    use crate::base::chunk_queue::ChunkQueue;
    use crate::wire::frame::{Body, FrameLimits, Parsed, Wanted, parse, put, put_without_end};

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
            queues.commit(&mut outbound, &mut pool, false);
        }
        assert_eq!(
            order,
            [0, 1, 2, 3, 4, 5, 6, 101, 100, 102, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
        );
        assert_eq!(queues.held(), 0);
    }

    #[test]
    fn other_frames_pass_between_the_fragments_of_long_answers() {
        let (mut pool, mut outbound, mut queues) =
            (Pool::new(4, 1 << 20), ChunkQueue::new(), LinkQueues::default());
        let limits = FrameLimits { key_bytes_max: 30_000, value_bytes_max: 1 << 20 };
        let value: Vec<u8> = (0..3 * FRAGMENT_BYTES_MAX).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let body = Body::Value { hash: 1, version: 2, left_ms: None, value: b"" };
        for number in [100, 101] {
            let head = |out: &mut Vec<u8>| put_without_end(out, 0, number, &body, value.len());
            let end = |queue: &mut ChunkQueue, pool: &mut Pool| {
                queue.push_shared(pool.shared().share(value.clone()), pool);
            };
            queues.append_and_push(Class::Long, &mut outbound, &mut pool, head, end);
        }
        let key = [b'k'; 30_000];
        let answer = Body::Get { key: &key, wanted: Wanted::Value };
        for number in 0..10 {
            queues.append(Class::Answer, &mut outbound, &mut pool, |out| put(out, 0, number, &answer));
        }
        queues.append(Class::Ordered, &mut outbound, &mut pool, |out| put(out, 0, 50, &Body::SnapEnd));
        let (mut long, mut order, mut input) = (Vec::new(), Vec::new(), Vec::new());
        while !outbound.is_empty() {
            assert!(outbound.len() <= COMMITTED_MAX + FRAGMENT_BYTES_MAX + 20, "{}", outbound.len());
            // As the shell writes: as much as one write takes.
            input.extend(outbound.slices().flatten().copied().take(256 * 1_024));
            outbound.consume(256 * 1_024, &mut pool);
            queues.commit(&mut outbound, &mut pool, false);
            loop {
                let consumed = match parse(&input, limits) {
                    Parsed::Frame { frame, consumed } => {
                        order.push(frame.request);
                        consumed
                    }
                    Parsed::Fragment { consumed, bytes } if input.len() >= consumed + bytes => {
                        long.extend_from_slice(&input[consumed..consumed + bytes]);
                        order.push(1_000);
                        consumed + bytes
                    }
                    Parsed::Partial | Parsed::Fragment { .. } => break,
                    other @ (Parsed::Oversized { .. } | Parsed::Broken(_)) => panic!("{other:?}"),
                };
                input.drain(..consumed);
                if let Parsed::Frame { frame, consumed } = parse(&long, limits) {
                    order.push(frame.request);
                    assert_eq!(frame.body, Body::Value { hash: 1, version: 2, left_ms: None, value: &value });
                    assert_eq!(consumed, long.len());
                    long.clear();
                }
            }
        }
        assert_eq!(
            order,
            [
                1_000, 50, 0, 1, 2, 3, 4, 1_000, 5, 6, 7, 8, 9, 1_000, 1_000, 100, 1_000, 1_000, 1_000,
                1_000, 101
            ]
        );
        assert!(input.is_empty() && long.is_empty() && queues.held() == 0);
    }
}
