//! How long requests take, by class of commands: from the arrival of the bytes to the last byte of the reply handed to
//! the socket, and the work of this node alone.
//!
//! No clock is read for it. `now` of each call gives the moments; how long calls took is reported by the shell
//! ([`Node::took`](super::Node::took)). Requests that arrive together and are answered together share one [`Mark`].

use crate::base::histogram::Histogram;
use crate::base::time::Instant;
use crate::node::ids::ConnKey;
use std::collections::VecDeque;
use std::time::Duration;

/// Marks of one connection; more are merged with the last one, which makes replies look slower, never faster.
const MARKS_MAX: usize = 32;

/// Connections that one report of the shell is attributed to; one call serves one.
const SERVED_MAX: usize = 4;

/// What times are kept of apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandClass {
    /// Keys are read, all from this node.
    Read,
    /// Keys are read, some after queries to peers.
    Lookup,
    /// Keys are changed.
    Write,
    /// The store or the filter is gone through, in steps.
    Scan,
    /// No key is named.
    Other,
}

impl CommandClass {
    /// The number of classes.
    pub const COUNT: usize = 5;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Read, Self::Lookup, Self::Write, Self::Scan, Self::Other];

    /// Its name in figures.
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

/// Requests of one connection that arrived together, and whose replies stand together in its output.
#[derive(Debug, Default)]
pub(in crate::node) struct Mark {
    /// When their bytes were read from the socket.
    arrived: Instant,
    /// When the last of their replies was ready to be written.
    pub(in crate::node) known: Instant,
    /// Time spent on lookups on peers, their own or those of earlier requests of the connection.
    waited: Duration,
    /// Work of this node after `known`: of the call in which they were carried out.
    worked: Duration,
    /// Bytes of output of the connection, from its first one to the last of their replies.
    end: u64,
    /// Requests by class.
    counts: [u32; CommandClass::COUNT],
    /// The first of them: its place in the table of commands, and its first key if it was looked up for long.
    pub(in crate::node) command: usize,
    pub(in crate::node) key: Option<Box<[u8]>>,
}

/// The parts of the time of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Spent {
    /// On this node, its queues included.
    pub(in crate::node) here: Duration,
    /// Waiting for peers.
    pub(in crate::node) peers: Duration,
    /// From the reply's being ready to its last byte handed to the socket.
    pub(in crate::node) output: Duration,
}

impl Spent {
    /// All of it.
    pub(in crate::node) fn total(&self) -> Duration {
        self.here + self.peers + self.output
    }
}

impl Mark {
    /// Requests in it.
    pub(in crate::node) fn requests(&self) -> u32 {
        self.counts.iter().sum()
    }

    /// Adds a request whose bytes had arrived at `arrived` and which was carried out at `now`.
    #[inline]
    pub(in crate::node) fn add(
        &mut self,
        arrived: Instant,
        now: Instant,
        class: CommandClass,
        command: usize,
    ) {
        if self.requests() == 0 {
            (self.arrived, self.command) = (arrived, command);
        }
        self.known = now;
        self.counts[class as usize] += 1;
    }

    /// Ends the time in which replies were held back: until `now` they waited for peers, or for work in steps.
    pub(in crate::node) fn let_go(&mut self, now: Instant) {
        if self.counts[CommandClass::Scan as usize] == 0 {
            self.waited += now.since(self.known);
        }
        self.known = now;
    }

    /// The time since the arrival.
    pub(in crate::node) fn age(&self, now: Instant) -> Duration {
        now.since(self.arrived)
    }

    fn spent(&self, now: Instant) -> Spent {
        let output = now.since(self.known).saturating_sub(self.worked);
        let here = now.since(self.arrived).saturating_sub(self.waited + output);
        Spent { here, peers: self.waited, output }
    }

    fn merge(&mut self, later: Self) {
        (self.known, self.end) = (later.known, later.end);
        self.counts.iter_mut().zip(later.counts).for_each(|(own, more)| *own += more);
    }
}

/// The marks of replies in the output of one connection, in order.
#[derive(Debug, Default)]
pub(in crate::node) struct Marks {
    queue: VecDeque<Mark>,
    /// Bytes of output handed to the socket so far.
    sent: u64,
}

impl Marks {
    /// Adds a request whose reply is at the end of the output, of which `unsent` bytes wait.
    #[inline]
    pub(in crate::node) fn add(
        &mut self,
        unsent: usize,
        (arrived, now): (Instant, Instant),
        class: CommandClass,
        command: usize,
    ) {
        let end = self.sent + unsent as u64;
        if let Some(last) = self.queue.back_mut()
            && last.known == now
            && last.arrived == arrived
        {
            last.counts[class as usize] += 1;
            last.end = end;
            return;
        }
        let mut mark = Mark { end, ..Mark::default() };
        mark.add(arrived, now, class, command);
        self.push(mark);
    }

    /// Adds requests whose replies, which were held back, are at the end of the output now.
    pub(in crate::node) fn add_held(&mut self, unsent: usize, mut mark: Mark) {
        if mark.requests() > 0 {
            mark.end = self.sent + unsent as u64;
            self.push(mark);
        }
    }

    fn push(&mut self, mark: Mark) {
        if self.queue.len() < MARKS_MAX {
            self.queue.push_back(mark);
        } else if let Some(last) = self.queue.back_mut() {
            last.merge(mark);
        }
    }

    /// Notes that the socket has taken `count` bytes more.
    pub(in crate::node) fn wrote(&mut self, count: usize) {
        self.sent += count as u64;
    }

    /// The next requests whose replies are all handed to the socket.
    pub(in crate::node) fn next_sent(&mut self) -> Option<Mark> {
        self.queue.front().filter(|mark| mark.end <= self.sent)?;
        self.queue.pop_front()
    }

    /// Adds work of this node to the requests that were carried out last.
    pub(in crate::node) fn worked(&mut self, took: Duration) {
        if let Some(last) = self.queue.back_mut() {
            last.worked += took;
        }
    }
}

/// The times of all requests.
#[derive(Debug, Default)]
pub(in crate::node) struct Latency {
    /// From the arrival to the last byte of the reply, by class.
    pub(in crate::node) replied: [Histogram; CommandClass::COUNT],
    /// The work of this node, by class: the time of each call of the node, divided among its requests.
    pub(in crate::node) work: [Histogram; CommandClass::COUNT],
    /// Requests carried out since the last report of the shell.
    executed: [u32; CommandClass::COUNT],
    /// Their connections.
    served: Vec<ConnKey>,
}

impl Latency {
    /// Counts a request.
    #[inline]
    pub(in crate::node) fn executed(&mut self, class: CommandClass) {
        self.executed[class as usize] += 1;
    }

    /// Notes that requests of a connection are carried out.
    pub(in crate::node) fn serves(&mut self, conn: ConnKey) {
        if self.served.len() < SERVED_MAX && self.served.last() != Some(&conn) {
            self.served.push(conn);
        }
    }

    /// Divides the time of the calls since the last report among their requests. Returns a connection for each call
    /// that had any.
    pub(in crate::node) fn took(&mut self, took: Duration) -> impl Iterator<Item = ConnKey> {
        let requests: u32 = self.executed.iter().sum();
        if let Some(each) = took.checked_div(requests) {
            for (work, count) in self.work.iter_mut().zip(&mut self.executed).filter(|(_, count)| **count > 0)
            {
                work.add(each, std::mem::take(count));
            }
        }
        self.served.drain(..)
    }

    /// Adds requests whose last byte was handed to the socket at `now`. Returns how their time was spent.
    pub(in crate::node) fn replied(&mut self, now: Instant, mark: &Mark) -> Spent {
        let spent = mark.spent(now);
        for (replied, count) in self.replied.iter_mut().zip(mark.counts).filter(|(_, count)| *count > 0) {
            replied.add(spent.total(), count);
        }
        spent
    }

    /// All classes in one.
    pub(in crate::node) fn of_all(&self) -> Histogram {
        let mut all = Histogram::default();
        self.replied.iter().for_each(|class| all.merge(class));
        all
    }
}
