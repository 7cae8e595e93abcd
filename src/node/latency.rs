//! Latency of requests: per class of commands from the arrival of the bytes until the last byte of the reply is
//! written to the socket, and per command the work of this node alone.
//!
//! No clock is read: times are the `now` of calls, and the shell reports how long calls took
//! ([`Node::took`](super::Node::took)). Requests that arrive together and are answered together share one [`Mark`].

use crate::base::histogram::Histogram;
use crate::base::time::Instant;
use crate::node::ids::ConnKey;
use std::collections::VecDeque;
use std::time::Duration;

/// Marks per connection. Further ones are merged with the last one, which can only overstate latency.
const MARKS_MAX: usize = 32;

/// Connections per report of the shell: a call serves one.
const SERVED_MAX: usize = 4;

/// A class of requests with a latency histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommandClass {
    /// Reads of keys that are all on this node.
    #[default]
    Read,
    /// Reads and writes that needed queries to peers.
    Lookup,
    /// Other writes.
    Write,
    /// Scans of the store or the filter, done in steps.
    Scan,
    /// Requests without keys.
    Other,
}

impl CommandClass {
    /// The number of classes.
    pub const COUNT: usize = 5;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Read, Self::Lookup, Self::Write, Self::Scan, Self::Other];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Lookup => "lookup",
            Self::Write => "write",
            Self::Scan => "scan",
            Self::Other => "other",
        }
    }
}

/// Requests of one connection that were executed in one call and have no mark yet.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::node) struct Batch {
    counts: [u32; CommandClass::COUNT],
    /// The index of the last one in the command table.
    command: usize,
}

impl Batch {
    /// A single request.
    pub(in crate::node) fn of(class: CommandClass, command: usize) -> Self {
        let mut batch = Self::default();
        batch.add(class, command, 1);
        batch
    }

    fn add(&mut self, class: CommandClass, command: usize, count: u32) {
        self.counts[class as usize] += count;
        self.command = command;
    }

    fn requests(&self) -> u32 {
        self.counts.iter().sum()
    }

    fn merge(&mut self, later: &Self) {
        self.counts.iter_mut().zip(later.counts).for_each(|(own, more)| *own += more);
        self.command = later.command;
    }
}

/// Requests of one connection that arrived together and have adjacent replies in its output. Times are in
/// nanoseconds.
#[derive(Debug, Default)]
pub(in crate::node) struct Mark {
    /// When their bytes were read from the socket.
    arrived: Instant,
    /// When the last of their replies was ready to be written.
    known: Instant,
    /// Time spent waiting for peers, also for earlier requests of the connection.
    waited: u64,
    /// Work of this node after `known`, in the call that executed them.
    worked: u64,
    /// Bytes of output of the connection up to the end of their replies.
    end: u64,
    batch: Batch,
    /// The first key, if its lookup was slow.
    pub(in crate::node) key: Option<Box<[u8]>>,
}

/// The parts of the time of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Spent {
    /// On this node, including its queues.
    pub(in crate::node) here: Duration,
    /// Waiting for peers.
    pub(in crate::node) peers: Duration,
    /// From the complete reply until its last byte was written to the socket.
    pub(in crate::node) output: Duration,
}

impl Spent {
    /// The sum.
    pub(in crate::node) fn total(&self) -> Duration {
        self.here + self.peers + self.output
    }
}

impl Mark {
    /// The number of requests.
    pub(in crate::node) fn requests(&self) -> u32 {
        self.batch.requests()
    }

    /// The index of the last request's command in the command table.
    pub(in crate::node) fn command(&self) -> usize {
        self.batch.command
    }

    /// Adds requests that arrived at `arrived` and were executed at `now`.
    pub(in crate::node) fn add(&mut self, arrived: Instant, now: Instant, batch: &Batch) {
        if self.requests() == 0 {
            self.arrived = arrived;
        }
        self.known = now;
        self.batch.merge(batch);
    }

    /// Ends the wait of replies: until `now` they waited for peers or for a task.
    pub(in crate::node) fn let_go(&mut self, now: Instant) {
        if self.batch.counts[CommandClass::Scan as usize] == 0 {
            self.waited += now.nanos() - self.known.nanos();
        }
        self.known = now;
    }

    /// Nanoseconds since the arrival.
    pub(in crate::node) fn age(&self, now: Instant) -> u64 {
        now.nanos().saturating_sub(self.arrived.nanos())
    }

    /// The parts of the time until `now`.
    pub(in crate::node) fn spent(&self, now: Instant) -> Spent {
        let output = now.nanos().saturating_sub(self.known.nanos()).saturating_sub(self.worked);
        let here = self.age(now).saturating_sub(self.waited + output);
        let [here, peers, output] = [here, self.waited, output].map(Duration::from_nanos);
        Spent { here, peers, output }
    }

    fn merge(&mut self, later: Self) {
        (self.known, self.end) = (later.known, later.end);
        self.batch.merge(&later.batch);
    }
}

/// Connections for whose marks memory is kept, and marks per connection.
const SPARE_MAX: usize = 256;
const SPARE_MARKS_MAX: usize = 16;

/// Marks in order. Boxed, since idle connections have none.
type Queue = Box<VecDeque<Mark>>;

/// The marks of replies in the output of one connection, in order.
#[derive(Debug, Default)]
pub(in crate::node) struct Marks {
    queue: Option<Queue>,
    /// Bytes of output written to the socket so far.
    sent: u64,
}

impl Marks {
    /// Adds requests whose replies are the end of the output, of which `unsent` bytes are not written.
    pub(in crate::node) fn add(&mut self, unsent: usize, (arrived, now): (Instant, Instant), batch: Batch) {
        let (end, known) = (self.sent + unsent as u64, now);
        self.push(Mark { arrived, known, end, batch, ..Mark::default() });
    }

    /// Adds requests whose replies waited and are now the end of the output.
    pub(in crate::node) fn add_held(&mut self, unsent: usize, mut mark: Mark) {
        if mark.requests() > 0 {
            mark.end = self.sent + unsent as u64;
            self.push(mark);
        }
    }

    fn push(&mut self, mark: Mark) {
        let queue = self.queue.get_or_insert_default();
        if queue.len() < MARKS_MAX {
            queue.push_back(mark);
        } else if let Some(last) = queue.back_mut() {
            last.merge(mark);
        }
    }

    /// Takes memory for marks from `spare`, if needed.
    pub(in crate::node) fn take_memory(&mut self, spare: &mut Vec<Queue>) {
        if self.queue.is_none() {
            self.queue = spare.pop();
        }
    }

    /// Returns the memory to `spare` if there is no mark.
    pub(in crate::node) fn give_memory(&mut self, spare: &mut Vec<Queue>) {
        if let Some(queue) = self.queue.take_if(|queue| queue.is_empty())
            && spare.len() < SPARE_MAX
            && queue.capacity() <= SPARE_MARKS_MAX
        {
            spare.push(queue);
        }
    }

    /// Notes that `count` more bytes were written to the socket.
    pub(in crate::node) fn wrote(&mut self, count: usize) {
        self.sent += count as u64;
    }

    /// The next requests whose replies are all written to the socket.
    pub(in crate::node) fn next_sent(&mut self) -> Option<&mut Mark> {
        self.queue.as_mut()?.front_mut().filter(|mark| mark.end <= self.sent)
    }

    /// Drops the mark of these.
    pub(in crate::node) fn drop_next(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.pop_front();
        }
    }

    /// Adds work of this node to the last requests.
    pub(in crate::node) fn worked(&mut self, took: u64) {
        if let Some(last) = self.queue.as_mut().and_then(|queue| queue.back_mut()) {
            last.worked += took;
        }
    }
}

/// The latency of all requests.
#[derive(Debug, Default)]
pub(in crate::node) struct Latency {
    /// From the arrival to the last byte of the reply, per class.
    pub(in crate::node) replied: [Histogram; CommandClass::COUNT],
    /// The work of this node, by index in the command table: the time of each call, divided among its requests.
    work: Vec<Option<Box<Histogram>>>,
    /// The last run of requests of one command: class, index in the command table, number.
    run: (CommandClass, usize, u32),
    /// Requests before that run, executed in this call and not noted yet.
    batch: Batch,
    /// Commands executed since the last report of the shell, with their numbers of requests.
    executed: Vec<(usize, u32)>,
    /// Their connections.
    served: Vec<ConnKey>,
    /// Memory for marks that no connection uses.
    pub(in crate::node) spare: Vec<Queue>,
}

impl Latency {
    /// Counts an executed request.
    #[inline]
    pub(in crate::node) fn executed(&mut self, class: CommandClass, command: usize) {
        if self.run.1 != command {
            self.begin_run(class, command);
        }
        self.run.2 += 1;
    }

    #[cold]
    fn begin_run(&mut self, class: CommandClass, command: usize) {
        if self.run.2 > 0 {
            self.end_run();
        }
        self.run = (class, command, 0);
    }

    /// Ends the run, which must have at least one request.
    fn end_run(&mut self) {
        let (class, command, count) = self.run;
        self.run.2 = 0;
        self.batch.add(class, command, count);
        match self.executed.iter_mut().find(|(known, _)| *known == command) {
            Some((_, before)) => *before += count,
            None => self.executed.push((command, count)),
        }
    }

    /// Takes the requests executed on the current connection; `None`: none.
    pub(in crate::node) fn take_batch(&mut self) -> Option<Batch> {
        if self.run.2 == 0 {
            return None;
        }
        self.end_run();
        Some(std::mem::take(&mut self.batch))
    }

    /// Notes that requests of a connection are being executed.
    pub(in crate::node) fn serves(&mut self, conn: ConnKey) {
        if self.served.len() < SERVED_MAX && self.served.last() != Some(&conn) {
            self.served.push(conn);
        }
    }

    /// Divides the nanoseconds of the calls since the last report among their requests. Returns the connection of
    /// each call that had any.
    pub(in crate::node) fn took(&mut self, took: u64) -> impl Iterator<Item = ConnKey> {
        let requests: u32 = self.executed.iter().map(|(_, count)| count).sum();
        for (command, count) in self.executed.drain(..) {
            if self.work.len() <= command {
                self.work.resize_with(command + 1, || None);
            }
            self.work[command].get_or_insert_default().add(took / u64::from(requests), count);
        }
        self.served.drain(..)
    }

    /// The work of this node per request, for each used command by its index in the table.
    pub(in crate::node) fn work(&self) -> impl Iterator<Item = (usize, &Histogram)> {
        self.work.iter().enumerate().filter_map(|(command, times)| Some((command, times.as_deref()?)))
    }

    /// Resets the histograms of work.
    pub(in crate::node) fn reset_work(&mut self) {
        self.work.clear();
    }

    /// Adds requests whose last byte was written to the socket at `now`. Returns their nanoseconds.
    pub(in crate::node) fn replied(&mut self, now: Instant, mark: &Mark) -> u64 {
        let took = mark.age(now);
        for (replied, count) in self.replied.iter_mut().zip(mark.batch.counts).filter(|(_, count)| *count > 0)
        {
            replied.add(took, count);
        }
        took
    }

    /// The histogram of all classes together.
    pub(in crate::node) fn of_all(&self) -> Histogram {
        let mut all = Histogram::default();
        self.replied.iter().for_each(|class| all.merge(class));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::{Batch, CommandClass, Marks};
    use crate::base::time::Instant;

    #[test]
    fn silent_connection_has_no_memory_for_marks() {
        let (mut marks, mut spare) = (Marks::default(), Vec::new());
        for _ in 0..3 {
            marks.take_memory(&mut spare);
            marks.add(5, (Instant::ZERO, Instant::ZERO), Batch::of(CommandClass::Read, 0));
            marks.give_memory(&mut spare);
            assert!(marks.queue.is_some(), "its reply is not sent");
            marks.wrote(5);
            assert!(marks.next_sent().is_some());
            marks.drop_next();
            marks.give_memory(&mut spare);
            assert!(marks.queue.is_none() && spare.len() == 1);
        }
    }
}
