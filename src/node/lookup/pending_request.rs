//! Pending requests: requests of clients that wait for lookups. A pending request has its keys, the results so far
//! and the form of its reply, which is written by the same encoder and function as an immediate one.
//!
//! A long reply is written in pieces, so that only one piece is in the output at a time. Not here: its slot among the
//! replies of its connection ([`crate::node::conn::pending`]).

use crate::base::buffer::Pool;
use crate::base::chunk_queue::ChunkQueue;
use crate::base::shared_bytes::SharedBytes;
use crate::base::slots::Slots;
use crate::base::time::Now;
use crate::limits::{BYTES_PER_STEP, LONG_REPLY_BYTES, PIECE_BYTES};
use crate::node::conn::in_flight::Held;
use crate::node::conn::replies::SlotNumber;
use crate::node::ids::{ConnKey, PendingKey, PendingTag};
use crate::node::keyspace::Keyspace;
use crate::node::lookup::answers::{Answer, Answers};
use crate::node::lookup::key_reply::{Found, KeyReply, Shape, fill_gap};
use crate::store::Expiry;
use crate::wire::encoder::{Encoder, GAP_BYTES_MIN, Protocol, ReplyHead, ReplyTooLong};
use crate::wire::field::{plain_up_to, put_escaped_piece};
use crate::wire::frame::Wanted;
use crate::wire::owned_args::{OwnedArgs, RequestList};
use std::collections::VecDeque;

/// Bytes of a large value that are put in quotes at a time.
const QUOTED_BYTES: usize = 32 * 1024;

/// Bytes of memory of a lookup, without its key.
const LOOKUP_BYTES: usize = 512;

/// The waiter of a lookup: one key of a pending request.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Waiter {
    pub(in crate::node) pending: PendingKey,
    pub(in crate::node) part: usize,
}

/// A long reply that is being written.
#[derive(Debug)]
struct Writer {
    /// The written bytes that are not in the output yet.
    reply: Encoder,
    /// The next part.
    next: usize,
    /// The large bytes of the next part, once it was examined.
    large: Option<Large>,
    /// The rest of a large value, to be written in quotes before the bytes of `reply`.
    quoted: SharedBytes,
    /// Bytes of memory of `large` and of the value of `quoted`.
    held: usize,
}

/// Bytes of a part that are not copied to the reply: the output shares them.
#[derive(Debug)]
enum Large {
    /// The shown part of a value. For a line it is first searched, in pieces, for bytes that need quotes.
    Value { value: SharedBytes, until: Option<Expiry>, plain_bytes: usize },
    /// The reply of another node.
    Reply(SharedBytes),
}

impl Large {
    const fn bytes(&self) -> &SharedBytes {
        match self {
            Self::Value { value, .. } => value,
            Self::Reply(bytes) => bytes,
        }
    }
}

/// A request of a client that waits for lookups.
#[derive(Debug)]
pub(in crate::node) struct PendingRequest {
    conn: ConnKey,
    /// `None`: the client wants no reply.
    slot: Option<SlotNumber>,
    head: ReplyHead,
    form: KeyReply,
    keys: OwnedArgs,
    answers: Answers,
    /// Keys without an answer.
    waiting: usize,
    /// Bytes of values held in `answers`.
    bytes: usize,
    /// Bytes of commands that wait with it: what its lookup sends, the requests of its transaction.
    commands_bytes: usize,
    /// Bytes of the known keys and values of the reply.
    reply_bytes: usize,
    /// The values exceed `reply_bytes_max` and were dropped.
    is_too_long: bool,
    /// Later requests of the connection wait for its reply.
    is_barrier: bool,
    /// The requests of a transaction, each with whether its result is in the reply of the other node.
    transaction: Option<(RequestList, Vec<bool>)>,
    writer: Option<Writer>,
}

impl PendingRequest {
    /// A pending request without results.
    pub(in crate::node) fn new(
        conn: ConnKey,
        slot: Option<SlotNumber>,
        head: ReplyHead,
        form: KeyReply,
        keys: OwnedArgs,
    ) -> Self {
        let waiting = keys.args().len();
        Self {
            conn,
            slot,
            head,
            form,
            reply_bytes: keys.bytes(),
            keys,
            answers: Answers::new(waiting),
            waiting,
            bytes: 0,
            commands_bytes: 0,
            is_too_long: false,
            is_barrier: false,
            transaction: None,
            writer: None,
        }
    }

    pub(in crate::node) const fn conn(&self) -> ConnKey {
        self.conn
    }

    /// Its slot among the replies of its connection; `None`: the client wants no reply.
    pub(in crate::node) const fn slot(&self) -> Option<SlotNumber> {
        self.slot
    }

    pub(in crate::node) const fn protocol(&self) -> Protocol {
        self.head.protocol()
    }

    /// Whether values are read, or only their TTL.
    pub(in crate::node) fn wants_values(&self) -> bool {
        self.form.wanted == Wanted::Value
    }

    /// Keys without a result.
    pub(in crate::node) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes charged for it.
    pub(in crate::node) fn held(&self) -> Held {
        // Lookups have copies of the keys.
        let of_lookups = if self.waiting > 0 { self.keys.bytes() + self.waiting * LOOKUP_BYTES } else { 0 };
        let writer = self.writer.as_ref().map_or(0, |writer| size_of::<Writer>() + writer.reply.held());
        let own = size_of::<Self>() + self.keys.held() + self.answers.held() + writer;
        Held { memory: own + self.commands_bytes + of_lookups, values: self.bytes }
    }

    /// Counts the bytes of a command that waits with this request, until it is complete.
    pub(in crate::node) const fn count_command(&mut self, bytes: usize) {
        self.commands_bytes += bytes;
    }

    /// Each key with its answer.
    pub(in crate::node) fn parts(&self) -> impl Iterator<Item = (&[u8], &Answer)> {
        self.keys.args().iter().zip(self.answers.iter())
    }

    /// One key with its answer.
    pub(in crate::node) fn part(&self, number: usize) -> Option<(&[u8], &Answer)> {
        self.keys.args().get(number).zip(self.answers.get(number))
    }

    /// Its first key, for logs.
    pub(in crate::node) fn first_key(&self) -> Option<&[u8]> {
        self.keys.args().get(0)
    }

    /// Whether values are kept for its reply.
    pub(in crate::node) fn keeps_values(&self) -> bool {
        self.wants_values() && !self.is_too_long
    }

    /// Makes later requests of the connection wait for its reply; false if they already did.
    pub(in crate::node) const fn make_barrier(&mut self) -> bool {
        !std::mem::replace(&mut self.is_barrier, true)
    }

    /// Whether later requests of the connection wait for its reply.
    pub(in crate::node) const fn is_barrier(&self) -> bool {
        self.is_barrier
    }

    /// Makes it wait for the part of a transaction on another node; each request with whether its result is in that
    /// part.
    pub(in crate::node) fn set_transaction(&mut self, requests: RequestList, is_there: Vec<bool>) {
        self.transaction = Some((requests, is_there));
    }

    /// Whether it waits for a part of a transaction.
    pub(in crate::node) const fn is_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Takes out the requests of the transaction.
    pub(in crate::node) const fn take_transaction(&mut self) -> Option<(RequestList, Vec<bool>)> {
        self.transaction.take()
    }

    /// Stores the result for one key, whose value has `value_bytes` bytes; true if it is the last one. Drops all
    /// values once they exceed `bytes_max`.
    pub(in crate::node) fn answer(
        &mut self,
        part: usize,
        mut answer: Answer,
        value_bytes: usize,
        bytes_max: usize,
    ) -> bool {
        self.reply_bytes += value_bytes;
        if let Answer::Found { value, .. } = &mut answer
            && self.is_too_long
        {
            *value = SharedBytes::default();
        }
        self.bytes += answer.bytes();
        self.answers.put(part, answer);
        if self.reply_bytes > bytes_max && !self.is_too_long {
            self.is_too_long = true;
            self.bytes -= self.answers.drop_values();
        }
        self.waiting -= 1;
        if self.waiting == 0 {
            self.commands_bytes = 0;
        }
        self.waiting == 0
    }

    /// Whether the reply is written in pieces. A count is not: it is known only at the end.
    pub(in crate::node) fn is_long(&self) -> bool {
        self.reply_bytes > LONG_REPLY_BYTES
            && self.answers.failures() == 0
            && !self.is_too_long
            && self.form.shape != Shape::Count
    }

    /// Begins a reply in pieces.
    pub(in crate::node) fn begin_writing(&mut self) {
        let mut reply = Encoder::resume(Vec::new(), &self.head);
        self.form.begin(&mut reply, self.answers.len());
        self.writer = Some(Writer { reply, next: 0, large: None, quoted: SharedBytes::default(), held: 0 });
    }

    /// Writes the next piece of the reply. Returns the bytes searched plus those written without being shared, and
    /// whether it was the last piece. Values are read when they are written, each at its own moment.
    pub(in crate::node) fn write_piece(
        &mut self,
        keyspace: &mut Keyspace,
        now: Now,
        outbound: &mut ChunkQueue,
        pool: &mut Pool,
    ) -> (usize, bool) {
        let Some(mut writer) = self.writer.take() else { return (0, true) };
        // It holds no memory between pieces: thousands of replies may wait for their readers.
        let memory = writer.reply.continue_in(pool.take());
        pool.give(memory);
        let mut cost = 0;
        if writer.quoted.is_empty() {
            cost = self.write_parts(&mut writer, keyspace, now, outbound, pool);
        }
        if !writer.quoted.is_empty() {
            let mut piece = pool.take();
            let written = put_escaped_piece(&mut piece, writer.quoted.as_slice(), QUOTED_BYTES);
            cost += piece.len();
            outbound.push_chunk(piece, pool);
            writer.quoted = writer.quoted.slice(written..usize::MAX);
        }
        if !writer.quoted.is_empty() {
            self.writer = Some(writer);
            return (cost, false);
        }
        if writer.large.is_none() {
            self.bytes -= std::mem::take(&mut writer.held);
        }
        cost += writer.reply.len();
        if writer.next == self.answers.len() {
            outbound.push_chunk(writer.reply.end(), pool);
            return (cost, true);
        }
        outbound.push_chunk(writer.reply.take_written(Vec::new()), pool);
        self.writer = Some(writer);
        (cost, false)
    }

    /// Writes parts of a long reply until a piece is full, or a large value must be searched further or written in
    /// quotes. Returns the bytes searched.
    fn write_parts(
        &mut self,
        writer: &mut Writer,
        keyspace: &mut Keyspace,
        now: Now,
        outbound: &mut ChunkQueue,
        pool: &mut Pool,
    ) -> usize {
        let (mut looked_at, mut shared) = (0, 0);
        while writer.next < self.answers.len() && writer.reply.len() + shared < PIECE_BYTES {
            if writer.large.is_none() {
                self.bytes -= std::mem::take(&mut writer.held);
                writer.large = self.take_large(writer.next, keyspace, now);
                writer.held = writer.large.as_ref().map_or(0, |large| large.bytes().len());
            }
            let Some((key, answer)) = self.part(writer.next) else { break };
            let reply = &mut writer.reply;
            let (bytes, at) = match writer.large.take() {
                None => {
                    self.write_part((key, answer), keyspace, now, reply);
                    writer.next += 1;
                    continue;
                }
                Some(Large::Reply(bytes)) => {
                    reply.begin_values();
                    (bytes, Some(reply.values().len()))
                }
                Some(Large::Value { value, until, plain_bytes }) => {
                    let plain = if reply.is_line() {
                        looked_at += BYTES_PER_STEP.min(value.len() - plain_bytes);
                        plain_up_to(value.as_slice(), plain_bytes, BYTES_PER_STEP)
                    } else {
                        Some(value.len())
                    };
                    if let Some(plain_bytes) = plain.filter(|plain| *plain < value.len()) {
                        writer.large = Some(Large::Value { value, until, plain_bytes });
                        break;
                    }
                    reply.leave_gap_for_large(plain.is_none());
                    let is_alive = until.is_none_or(|until| !until.has_come(now.mono));
                    let found = is_alive.then(|| Found { value: value.as_slice(), until });
                    (self.form.write)(reply, now, key, found);
                    let gap = reply.take_gap();
                    if plain.is_none() && gap.is_some() {
                        writer.quoted = value;
                        (SharedBytes::default(), gap)
                    } else {
                        (value, gap)
                    }
                }
            };
            writer.next += 1;
            let Some(at) = at else { continue };
            shared += bytes.len();
            fill_gap(reply, at, bytes, outbound, pool);
            if !writer.quoted.is_empty() {
                break;
            }
        }
        looked_at
    }

    /// Takes out the large bytes of a part, if it has any. A later change of the key does not change them.
    fn take_large(&mut self, part: usize, keyspace: &Keyspace, now: Now) -> Option<Large> {
        let (key, answer) = self.part(part)?;
        let large = match answer {
            Answer::Here => {
                let key = keyspace.key(key);
                let item = keyspace.peek(now, key).filter(|item| item.value.len() > GAP_BYTES_MIN)?;
                Large::Value { until: item.expiry, value: keyspace.share(now, key)?, plain_bytes: 0 }
            }
            Answer::Found { value, until } => {
                let shown = self.form.shown(value.len());
                Large::Value { value: value.clone().slice(shown), until: *until, plain_bytes: 0 }
            }
            Answer::Reply(bytes) => Large::Reply(bytes.clone()),
            Answer::Missing | Answer::Waiting | Answer::Error(_) | Answer::Failed(_) => return None,
        };
        if large.bytes().len() <= GAP_BYTES_MIN {
            return None;
        }
        self.bytes = self.bytes + large.bytes().len() - self.answers.take(part);
        Some(large)
    }

    /// Writes the whole reply into the memory of `out`; returns its bytes, and whether it is an error.
    pub(in crate::node) fn write(
        &self,
        keyspace: &mut Keyspace,
        now: Now,
        out: Vec<u8>,
        limit_bytes: u32,
    ) -> (Vec<u8>, bool) {
        let mut reply = Encoder::resume(out, &self.head);
        let (keys, failures) = (self.answers.len(), self.answers.failures());
        if failures > 0 {
            self.write_failure(failures, &mut reply);
        } else if !self.is_too_long {
            self.form.begin(&mut reply, keys);
            let found = self.parts().filter(|part| self.write_part(*part, keyspace, now, &mut reply)).count();
            if self.form.shape == Shape::Count {
                reply.count(found);
            }
        }
        let is_too_long = self.is_too_long || reply.len() > limit_bytes as usize;
        if is_too_long {
            reply.error("ERR", ReplyTooLong { limit_bytes, keys });
        }
        (reply.end(), is_too_long || failures > 0)
    }

    /// Writes one key, unless it was not found or has expired since; returns whether it was written.
    fn write_part(
        &self,
        (key, answer): (&[u8], &Answer),
        keyspace: &mut Keyspace,
        now: Now,
        reply: &mut Encoder,
    ) -> bool {
        let found = match answer {
            Answer::Here => {
                let hashed = keyspace.key(key);
                keyspace.get(now, hashed).map(|item| Found::of(&item))
            }
            Answer::Found { until: Some(until), .. } if until.has_come(now.mono) => None,
            Answer::Found { value, until } => Some(Found { value: value.as_slice(), until: *until }),
            Answer::Reply(bytes) => {
                reply.append(bytes.as_slice());
                return true;
            }
            Answer::Missing | Answer::Waiting | Answer::Error(_) | Answer::Failed(_) => None,
        };
        self.form.put(reply, now, key, found);
        found.is_some()
    }

    /// Writes the error about the first failed key. Other keys of the request may have been changed.
    fn write_failure(&self, failures: usize, reply: &mut Encoder) {
        let keys = self.answers.len();
        for (key, answer) in self.parts() {
            match answer {
                Answer::Failed(failure) if keys > 1 => {
                    let about = failure.about(key);
                    let sentence = format_args!("for {failures} of {keys} keys, the first: {about}");
                    return reply.error(failure.code(), sentence);
                }
                Answer::Failed(failure) => return reply.error(failure.code(), failure.about(key)),
                Answer::Error(error) => return reply.append_error(error.as_slice()),
                Answer::Reply(_)
                | Answer::Found { .. }
                | Answer::Here
                | Answer::Missing
                | Answer::Waiting => {}
            }
        }
    }
}

/// All pending requests.
#[derive(Debug, Default)]
pub(in crate::node) struct PendingRequests {
    slots: Slots<PendingTag, PendingRequest>,
    /// Complete requests whose reply is not written yet.
    complete: VecDeque<PendingKey>,
}

impl PendingRequests {
    pub(in crate::node) fn insert(&mut self, request: PendingRequest) -> PendingKey {
        self.slots.insert(request)
    }

    pub(in crate::node) fn get(&self, key: PendingKey) -> Option<&PendingRequest> {
        self.slots.get(key)
    }

    pub(in crate::node) fn get_mut(&mut self, key: PendingKey) -> Option<&mut PendingRequest> {
        self.slots.get_mut(key)
    }

    pub(in crate::node) fn remove(&mut self, key: PendingKey) -> Option<PendingRequest> {
        let request = self.slots.remove(key);
        self.slots.shrink();
        request
    }

    pub(in crate::node) fn iter(&self) -> impl Iterator<Item = &PendingRequest> {
        self.slots.iter().map(|(_, request)| request)
    }

    /// Queues a complete request for its reply to be written.
    pub(in crate::node) fn completed(&mut self, key: PendingKey) {
        self.complete.push_back(key);
    }

    /// Takes the next complete request.
    pub(in crate::node) fn next_complete(&mut self) -> Option<PendingKey> {
        self.complete.pop_front()
    }

    /// The number of complete requests whose reply is not written yet.
    pub(in crate::node) fn backlog(&self) -> usize {
        self.complete.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, KeyReply, PendingRequest, Shape};
    use crate::base::shared_bytes::{SharedBytes, SharedMemory};
    use crate::base::slots::Slots;
    use crate::node::conn::replies::Replies;
    use crate::wire::encoder::{Encoder, Protocol};
    use crate::wire::frame::Wanted;
    use crate::wire::owned_args::OwnedArgs;
    use std::rc::Rc;

    #[test]
    fn values_that_are_too_long_together_are_kept_no_longer_and_those_behind_them_not_at_all() {
        let (conn, slot) = (Slots::new().insert(()), Some(Replies::default().hold()));
        let head = Encoder::begin(Vec::new(), Protocol::Lines, b"", "GOT").head();
        let form = KeyReply { wanted: Wanted::Value, shape: Shape::One, range: None, write: |_, _, _, _| {} };
        let mut pending =
            PendingRequest::new(conn, slot, head, form, OwnedArgs::of([&b"k"[..]; 4].into_iter()).unwrap());
        let owner = Rc::new(SharedMemory::from(vec![b'x'; 40]));
        let value = SharedBytes::new(Rc::clone(&owner), 0..40);
        let kept: Vec<(bool, usize, usize)> = (0..4)
            .map(|part| {
                pending.answer(part, Answer::Found { value: value.clone(), until: None }, 40, 100);
                (pending.keeps_values(), pending.bytes, Rc::strong_count(&owner) - 2)
            })
            .collect();
        assert_eq!(kept, [(true, 40, 1), (true, 80, 2), (false, 0, 0), (false, 0, 0)]);
    }
}
