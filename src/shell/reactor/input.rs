//! Input of connections: reads, alone or in batches, and the node's turns at it.

use super::Reactor;
use crate::base::time::{Instant, Now};
use crate::batch::SOCKETS_MAX;
use crate::node::{Class, ConnKey};
use crate::shell::socket::{BATCHED_READ_BYTES, ReadEnd, Socket};
use std::time::Duration;

/// Bytes per read of one connection.
const READ_BYTES: usize = 64 * 1024;

/// Bytes of the buffer for reads.
pub(super) const SCRATCH_BYTES: usize = SOCKETS_MAX * BATCHED_READ_BYTES;
const _: () = assert!(READ_BYTES <= SCRATCH_BYTES, "a read of one connection fits the buffer of a batch");

/// The time of a batch of requests after which the rest of it is buffered, and takes turns with others: the share is not
/// checked within a batch.
const BATCH_TIME_MAX: Duration = Duration::from_micros(400);

/// The longest time that bytes of a large request wait for more of them: its client must not seem idle.
const UNREPORTED_MAX: Duration = Duration::from_millis(100);

/// The result of one read of a connection.
#[derive(Debug)]
pub(super) struct Arrival {
    key: ConnKey,
    /// The position of its bytes in the scratch buffer, without those read into the room of the connection.
    begin: usize,
    count: usize,
    end: ReadEnd,
}

impl Arrival {
    fn of<'s>(&self, scratch: &'s [u8]) -> &'s [u8] {
        &scratch[self.begin..self.begin + self.count]
    }
}

impl Reactor {
    /// Runs a class for its share: reads of ready connections and steps of the node, in turns, until there is nothing
    /// to do or `until` is reached. Returns whether there was nothing left to do. `now` is read before a single read, and
    /// after those of a batch.
    pub(super) fn serve(&mut self, class: Class, mut now: Now, until: Instant) -> bool {
        while now.mono < until {
            let has_read = class != Class::Due && self.read_next(&mut now, class);
            let are_many = self.arrivals.len() == SOCKETS_MAX;
            let has_stepped = self.deliver(now, class);
            if are_many {
                // At once, while the system's data of these sockets is in the caches.
                self.flush_some(class, SOCKETS_MAX, until);
            }
            if !(has_read || has_stepped) || class != Class::Due && !self.has_input(class) {
                return true;
            }
            now = self.clock.read_again();
        }
        false
    }

    /// Reads once from the connection of a class that has waited longest; together with others, if they are clients
    /// that do not send much. Then `now` is read again: a pause of the process between two reads would make it
    /// too old for the second. False if none waits.
    fn read_next(&mut self, now: &mut Now, class: Class) -> bool {
        let together = if class == Class::Clients { SOCKETS_MAX } else { 1 };
        let mut has_some = false;
        while self.arrivals.len() < together
            && let Some(key) = self.ready.next(class)
        {
            let Some(socket) = self.sockets.get_mut(key) else {
                self.ready.pop(class);
                continue;
            };
            let is_alone = socket.may_send_much() || !self.node.room(key).is_empty();
            if is_alone && !self.arrivals.is_empty() {
                break;
            }
            self.ready.pop(class);
            has_some = true;
            if !socket.leave_queue() {
                continue;
            }
            if is_alone {
                self.read_alone(*now, class, key);
                return true;
            }
            self.arrivals.push(Arrival { key, begin: 0, count: 0, end: ReadEnd::Blocked });
            if let Some(next) = self.ready.next(class) {
                self.node.prefetch_conn(next);
            }
        }
        self.read_batch(class);
        if self.arrivals.len() > 1 {
            *now = self.clock.read_again();
        }
        has_some
    }

    /// Reads a connection that may send much, into the room for its large request, if it has one.
    fn read_alone(&mut self, now: Now, class: Class, key: ConnKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let room = self.node.room(key);
        let room_bytes = room.len();
        let end = socket.read(room, &mut self.scratch[..READ_BYTES]);
        let in_place = end.count().min(room_bytes);
        if in_place > 0 {
            self.node.filled(now, key, in_place);
        }
        if !end.has_more() && class == Class::Clients {
            let missing = if in_place > 0 { self.node.room(key).len() } else { 0 };
            if socket.wait_for(missing, in_place) {
                self.report_all_at.get_or_insert(now.mono.after(UNREPORTED_MAX));
            }
        }
        self.arrivals.push(Arrival { key, begin: 0, count: end.count() - in_place, end });
        self.queue_rest(0, class);
    }

    /// Reads the connections of all arrivals, each into its part of the scratch buffer.
    fn read_batch(&mut self, class: Class) {
        let part = if self.arrivals.len() > 1 { BATCHED_READ_BYTES } else { READ_BYTES };
        let sockets = self.arrivals.iter().filter_map(|arrival| self.sockets.get(arrival.key));
        self.batch.read(sockets.map(Socket::stream), &mut self.scratch, part);
        for at in 0..self.arrivals.len() {
            let arrival = &mut self.arrivals[at];
            let result = self.batch.take(at);
            let Some(socket) = self.sockets.get_mut(arrival.key) else { continue };
            arrival.end = socket.has_read(result, part);
            (arrival.begin, arrival.count) = (at * part, arrival.end.count());
            self.queue_rest(at, class);
        }
    }

    /// Queues a connection for the rest of its input, which is read after the part that has arrived is carried out.
    fn queue_rest(&mut self, at: usize, class: Class) {
        let Arrival { key, end, .. } = &self.arrivals[at];
        if end.has_more()
            && let Some(socket) = self.sockets.get_mut(*key)
            && socket.enter_queue()
        {
            self.ready.push(class, *key, true);
        }
    }

    /// Passes the input to the node, in turns with steps of the node. Returns whether a step had work.
    fn deliver(&mut self, now: Now, class: Class) -> bool {
        if self.arrivals.is_empty() {
            let mut last = now.mono;
            return self.step(now, class, false, &mut last);
        }
        let mut arrivals = std::mem::take(&mut self.arrivals);
        if class == Class::Clients {
            self.node.prefetch(arrivals.iter().map(|arrival| (arrival.key, arrival.of(&self.scratch))));
        }
        let begin = self.clock.mono();
        let (mut last, mut has_stepped) = (begin, false);
        for arrival in arrivals.drain(..) {
            let bytes = arrival.of(&self.scratch);
            match arrival.end {
                ReadEnd::Drained(_) | ReadEnd::More(_) if last.since(begin) > BATCH_TIME_MAX => {
                    self.node.buffer(now, arrival.key, bytes);
                }
                ReadEnd::Drained(_) | ReadEnd::More(_) => self.node.received(now, arrival.key, bytes),
                ReadEnd::Closed => self.node.read_closed(now, arrival.key),
                ReadEnd::Broken(error) => self.lost(now, arrival.key, &error),
                ReadEnd::Blocked => {}
            }
            has_stepped |= self.step(now, class, true, &mut last);
        }
        self.arrivals = arrivals;
        has_stepped
    }

    /// Does one step of a class and carries out the actions. Reports the time since `last`, which is set to now, if there
    /// was input or work. Returns whether the step had work.
    #[inline]
    fn step(&mut self, now: Now, class: Class, has_arrived: bool, last: &mut Instant) -> bool {
        let may_have_work = class == Class::Due || self.node.has_input(class);
        let has_stepped = may_have_work && self.node.step(now, class);
        self.act();
        if has_arrived || has_stepped {
            let mono = self.clock.mono();
            self.node.took(mono.since(std::mem::replace(last, mono)));
        }
        has_stepped
    }
}
