//! Resumable tasks: work that grows with the store, done in bounded steps while connections wait for its reply.
//!
//! A task has a cursor and, for each connection that waits, a reply slot. Tasks take turns, one step each. A
//! request joins a queued task of its kind that has not begun; so at most one of a kind runs and one waits,
//! however many requests there are. Not here: what a step does (`command/tasks`).

use crate::filter::size::Size;
use crate::node::conn::replies::Place;
use crate::node::ids::ConnKey;
use crate::wire::filter_dump::FilterDump;
use std::collections::VecDeque;

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
    pub(in crate::node) id: Box<[u8]>,
}

/// What a task does, and how far it is.
#[derive(Debug)]
pub(in crate::node) enum Job {
    /// The own filter as text: `None` before its first step. The blocks are those of the moment at which each
    /// is written.
    FilterDump(Option<Dump>),
}

#[derive(Debug)]
pub(in crate::node) struct Dump {
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

    /// Puts a task back behind the others.
    pub(in crate::node) fn push(&mut self, task: Task) {
        self.queue.push_back(task);
    }
}
