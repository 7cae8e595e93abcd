//! Resumable tasks: work that grows with the store, done in bounded steps while connections wait for its reply.
//!
//! A task has a cursor and, for each connection that waits, a reply slot. Tasks take turns, one step each. A
//! request joins a queued task of its kind that has not begun; so at most one of a kind runs and one waits,
//! however many requests there are. Replies too are written in steps, since many may wait for one text. Not here:
//! what a step does (`command/tasks`, `http/report`).

use crate::base::glob::Pattern;
use crate::base::shared_bytes::SharedBytes;
use crate::filter::size::Size;
use crate::node::conn::replies::Place;
use crate::node::ids::ConnKey;
use crate::store::ScanCursor;
use crate::wire::encoder::{Encoder, ReplyHead};
use crate::wire::filter_dump::FilterDump;
use crate::wire::http::Delivery;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// The tasks of a node.
#[derive(Debug, Default)]
pub(in crate::node) struct Tasks {
    queue: VecDeque<Task>,
}

/// Work under way, and the requests that wait for it.
#[derive(Debug)]
pub(in crate::node) struct Task {
    pub(in crate::node) job: Job,
    pub(in crate::node) waiters: Vec<Waiter>,
}

/// A request that waits for a task.
#[derive(Debug)]
pub(in crate::node) struct Waiter {
    pub(in crate::node) conn: ConnKey,
    pub(in crate::node) slot: Place,
    pub(in crate::node) form: ReplyForm,
}

/// What a reply is written in.
#[derive(Debug)]
pub(in crate::node) enum ReplyForm {
    /// The text as the one field of this reply.
    Field(ReplyHead),
    /// The text as the values of this reply.
    Values(ReplyHead),
    /// HTTP, with this type of content.
    Http(&'static str, Delivery),
}

impl ReplyForm {
    /// Whether later requests of the connection wait for it: a response in HTTP has them wait by itself.
    pub(in crate::node) const fn is_barrier(&self) -> bool {
        match self {
            Self::Field(_) | Self::Values(_) => true,
            Self::Http(..) => false,
        }
    }
}

/// A text that grows with the number of peers. Requests for the same one share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum ReportKind {
    /// The page for people.
    Page,
    /// What it shows.
    Status,
    /// The samples of the last hour and day.
    History,
    /// The figures in the text format of Prometheus.
    Prometheus,
    /// The same in OpenMetrics.
    OpenMetrics,
}

/// A client as it is shown.
#[derive(Debug)]
pub(in crate::node) struct ClientView {
    pub(in crate::node) addr: SocketAddr,
    /// The name that it has given its connection.
    pub(in crate::node) name: Box<[u8]>,
    pub(in crate::node) protocol: &'static str,
    /// Bytes read and written per second lately.
    pub(in crate::node) traffic: u64,
    pub(in crate::node) connected: Duration,
    /// Bytes that wait to be written.
    pub(in crate::node) unsent: usize,
}

/// A report as far as it is written.
#[derive(Debug, Default)]
pub(in crate::node) struct Draft {
    /// Whether what does not grow with clients and peers is written.
    pub(in crate::node) is_begun: bool,
    pub(in crate::node) text: Vec<u8>,
    /// Texts that each take something of every peer, and then follow `text`, or stand in it.
    pub(in crate::node) families: Vec<Vec<u8>>,
    /// Connections that were looked at, whether it was all of them, and the busiest clients among them, in order.
    pub(in crate::node) conns: usize,
    pub(in crate::node) are_clients_listed: bool,
    pub(in crate::node) busiest: Vec<ClientView>,
    /// Linked peers that are written, and their addresses.
    pub(in crate::node) peers: usize,
    pub(in crate::node) listed: BTreeSet<SocketAddr>,
    /// Peers that the page is to show, and those that it shows so far.
    pub(in crate::node) peers_known: usize,
    pub(in crate::node) peers_written: usize,
}

/// What a task does, and how far it is.
#[derive(Debug)]
pub(in crate::node) enum Job {
    /// The own filter as text: `None` before its first step. The blocks are those of the moment at which each
    /// is written.
    FilterDump(Option<Dump>),
    /// The keys that match a pattern.
    Scan(Box<Scan>),
    /// A report: `None` before its first step.
    Report(ReportKind, Option<Draft>),
    /// Complete, with the text, whose pieces the replies share, or the sentence of an error.
    Reply(Result<Vec<SharedBytes>, String>),
}

/// A scan of the keys, for KEYS and SCAN.
#[derive(Debug)]
pub(in crate::node) struct Scan {
    /// `None`: all keys.
    pub(in crate::node) pattern: Option<Pattern>,
    pub(in crate::node) position: ScanCursor,
    /// Keys to be looked at.
    pub(in crate::node) left: usize,
    /// The reply begins with the cursor to go on from.
    pub(in crate::node) has_cursor: bool,
    /// The keys found: full pieces of the reply, and its end.
    pub(in crate::node) pieces: Vec<SharedBytes>,
    pub(in crate::node) found: Encoder,
    pub(in crate::node) count: usize,
    /// Bytes of them that are counted among those of the connection.
    pub(in crate::node) counted: usize,
}

impl Scan {
    /// Bytes of the keys found.
    pub(in crate::node) fn bytes(&self) -> usize {
        self.pieces.iter().map(SharedBytes::len).sum::<usize>() + self.found.len()
    }
}

#[derive(Debug)]
pub(in crate::node) struct Dump {
    /// Full pieces of the text, and its end.
    pub(in crate::node) pieces: Vec<SharedBytes>,
    pub(in crate::node) text: Vec<u8>,
    pub(in crate::node) writer: FilterDump,
    /// The filter's size at the beginning: with another one the dump begins again.
    pub(in crate::node) size: Size,
    pub(in crate::node) next: usize,
}

impl Tasks {
    /// Whether a task waits for its next step.
    pub(in crate::node) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Tasks that wait.
    pub(in crate::node) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Adds a request that waits for a job: to a queued task whose job `is_same`, else as a new task.
    pub(in crate::node) fn wait(&mut self, waiter: Waiter, job: Job, is_same: impl Fn(&Job) -> bool) {
        match self.queue.iter_mut().find(|task| is_same(&task.job)) {
            Some(task) => task.waiters.push(waiter),
            None => self.queue.push_back(Task { job, waiters: vec![waiter] }),
        }
    }

    /// Takes the task whose turn it is.
    pub(in crate::node) fn pop(&mut self) -> Option<Task> {
        self.queue.pop_front()
    }

    /// Puts a task back after the others.
    pub(in crate::node) fn push(&mut self, task: Task) {
        self.queue.push_back(task);
    }
}
