//! Resumable tasks: work that grows with the store, done in bounded steps while connections wait for the reply.
//!
//! A task has a cursor and a reply slot per waiting connection. Tasks run round robin, one step at a time. A request
//! joins a queued task of its kind that has not begun, so at most one task of a kind runs and one is queued. Replies
//! are written in steps too, since many connections may wait for one text. Not here: the steps (`command/tasks`,
//! `http/report`).

use crate::base::shared_bytes::SharedBytes;
use crate::node::command::dump::Dump;
use crate::node::command::key_scan::KeyScan;
use crate::node::conn::replies::SlotNumber;
use crate::node::http::draft::Draft;
use crate::node::ids::ConnKey;
use crate::wire::encoder::ReplyHead;
use crate::wire::http::Delivery;
use std::collections::VecDeque;

/// The tasks of a node.
#[derive(Debug, Default)]
pub(in crate::node) struct Tasks {
    queue: VecDeque<Task>,
}

/// A task: a job, and the requests that wait for it.
#[derive(Debug)]
pub(in crate::node) struct Task {
    pub(in crate::node) job: Job,
    pub(in crate::node) waiters: Vec<Waiter>,
}

/// A request that waits for a task.
#[derive(Debug)]
pub(in crate::node) struct Waiter {
    pub(in crate::node) conn: ConnKey,
    pub(in crate::node) slot: SlotNumber,
    pub(in crate::node) form: ReplyForm,
}

/// The form of a reply.
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
    /// Whether later requests of the connection must wait; for HTTP they always do.
    pub(in crate::node) const fn is_barrier(&self) -> bool {
        match self {
            Self::Field(_) | Self::Values(_) => true,
            Self::Http(..) => false,
        }
    }
}

/// The kind of a report, whose length grows with the number of peers. Concurrent requests for one kind share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum ReportKind {
    /// The page for people.
    Page,
    /// The metrics of the page, as JSON.
    Status,
    /// The samples of the last hour and day.
    History,
    /// The metrics in the text format of Prometheus.
    Prometheus,
    /// The same in OpenMetrics.
    OpenMetrics,
}

/// The work of a task, with its progress.
#[derive(Debug)]
pub(in crate::node) enum Job {
    /// The own filter as text: `None` before its first step.
    FilterDump(Option<Dump>),
    /// The keys that match a pattern.
    Scan(Box<KeyScan>),
    /// A report: `None` before its first step.
    Report(ReportKind, Option<Draft>),
    /// Complete: the text, whose pieces the replies share, or the sentence of an error.
    Reply(Result<Vec<SharedBytes>, String>),
}

impl Job {
    /// Bytes of memory of its text, without pieces that are shared. What a scan has found is counted by the connection
    /// that waits for it.
    pub(in crate::node) fn held(&self) -> usize {
        match self {
            Self::FilterDump(dump) => dump.as_ref().map_or(0, Dump::held),
            Self::Report(_, draft) => draft.as_ref().map_or(0, Draft::held),
            Self::Scan(_) | Self::Reply(_) => 0,
        }
    }
}

impl Tasks {
    /// Whether a task is queued.
    pub(in crate::node) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The number of queued tasks.
    pub(in crate::node) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of memory of their texts.
    pub(in crate::node) fn held(&self) -> usize {
        self.queue.iter().map(|task| task.job.held()).sum()
    }

    /// Adds a request that waits for a job: to a queued task whose job `is_same`, else as a new task.
    pub(in crate::node) fn wait(&mut self, waiter: Waiter, job: Job, is_same: impl Fn(&Job) -> bool) {
        match self.queue.iter_mut().find(|task| is_same(&task.job)) {
            Some(task) => task.waiters.push(waiter),
            None => self.queue.push_back(Task { job, waiters: vec![waiter] }),
        }
    }

    /// Takes the next task.
    pub(in crate::node) fn pop(&mut self) -> Option<Task> {
        self.queue.pop_front()
    }

    /// Puts a task back after the others.
    pub(in crate::node) fn push(&mut self, task: Task) {
        self.queue.push_back(task);
    }
}
