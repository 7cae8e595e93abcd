//! Resumable tasks: work that grows with the store, done in bounded steps while connections wait for its reply.
//!
//! A task has a cursor and, for each connection that waits, a reply slot. Tasks take turns, one step each. A
//! request joins a queued task of its kind that has not begun; so at most one of a kind runs and one waits,
//! however many requests there are.

use crate::base::time::Now;
use crate::filter::size::Size;
use crate::node::conn::replies::Place;
use crate::node::ids::ConnKey;
use crate::node::state::{State, mark_dirty};
use crate::wire::encoder::{Encoder, Protocol};
use crate::wire::filter_dump::{FilterDump, FilterHead};
use std::collections::VecDeque;

/// Filter blocks per step: 16 KiB of filter, 32 KiB of text, about 20 µs.
const BLOCKS_PER_STEP: usize = 256;

/// The tasks of a node.
#[derive(Debug, Default)]
pub(in crate::node) struct Tasks {
    queue: VecDeque<Task>,
}

#[derive(Debug)]
struct Task {
    job: Job,
    waiters: Vec<Waiter>,
}

/// A request that waits for a task.
#[derive(Debug)]
struct Waiter {
    conn: ConnKey,
    slot: Place,
    id: Box<[u8]>,
}

/// What a task does, and how far it is.
#[derive(Debug)]
enum Job {
    /// The own filter as text: `None` before its first step. The blocks are those of the moment at which each
    /// is written.
    FilterDump(Option<Dump>),
}

#[derive(Debug)]
struct Dump {
    text: Vec<u8>,
    writer: FilterDump,
    /// The filter's size at the beginning: with another one the dump begins again.
    size: Size,
    next: usize,
}

/// What one step came to: the fields of the reply, or the sentence of an error.
enum Step {
    More(Job),
    Done(Result<Vec<u8>, String>),
}

impl Tasks {
    /// Whether [`step`] has something to do.
    pub(in crate::node) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }
}

/// Takes a reply slot for a dump of the own filter.
pub(in crate::node) fn begin_filter_dump(state: &mut State, key: ConnKey, id: &[u8]) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    let waiter = Waiter { conn: key, slot: conn.replies.hold(), id: id.into() };
    let queue = &mut state.tasks.queue;
    match queue.iter_mut().find(|task| matches!(task.job, Job::FilterDump(None))) {
        Some(task) => task.waiters.push(waiter),
        None => queue.push_back(Task { job: Job::FilterDump(None), waiters: vec![waiter] }),
    }
}

/// Does one step of the next task.
pub(in crate::node) fn step(state: &mut State, now: Now) {
    let Some(Task { job, mut waiters }) = state.tasks.queue.pop_front() else { return };
    waiters.retain(|waiter| state.conns.get(waiter.conn).is_some());
    if waiters.is_empty() {
        return;
    }
    let step = match job {
        Job::FilterDump(dump) => step_of_dump(state, dump),
    };
    match step {
        Step::More(job) => state.tasks.queue.push_back(Task { job, waiters }),
        Step::Done(reply) => waiters.iter().for_each(|waiter| answer(state, now, waiter, &reply)),
    }
}

fn step_of_dump(state: &State, dump: Option<Dump>) -> Step {
    let filter = state.keyspace.own_filter();
    let size = filter.size();
    let mut dump = match dump.filter(|dump| dump.size == size) {
        Some(dump) => dump,
        None => {
            let dump = begin_dump(state, size);
            // Two digits per byte if no run of zeroes makes it shorter, and the line end.
            let (limit, bytes) = (state.config.limits.reply_bytes_max, size.bytes());
            if dump.text.len() as u64 + bytes * 2 + 1 > u64::from(limit) {
                return Step::Done(Err(format!(
                    "the filter of {bytes} bytes takes more than reply_bytes_max = {limit} as text; \
                     peers get it in frames"
                )));
            }
            dump
        }
    };
    let until = size.blocks().min(dump.next + BLOCKS_PER_STEP);
    for number in dump.next..until {
        dump.writer.words(&filter.image(size, number).unwrap_or_default(), &mut dump.text);
    }
    dump.next = until;
    if until < size.blocks() {
        return Step::More(Job::FilterDump(Some(dump)));
    }
    dump.writer.finish(&mut dump.text);
    Step::Done(Ok(dump.text))
}

fn begin_dump(state: &State, size: Size) -> Dump {
    let head = state.keyspace.changelog().head();
    let head = FilterHead {
        blocks: size.blocks() as u64,
        keys: state.keyspace.store().len() as u64,
        epoch: head.epoch,
        seq: head.seq,
    };
    let mut text = Vec::new();
    let writer = FilterDump::begin(&head, &mut text);
    Dump { text, writer, size, next: 0 }
}

fn answer(state: &mut State, now: Now, waiter: &Waiter, reply: &Result<Vec<u8>, String>) {
    let State { conns, pool, stats, .. } = state;
    let Some(conn) = conns.get_mut(waiter.conn) else { return };
    let mut encoder = Encoder::begin(pool.take(), Protocol::Lines, &waiter.id, "FULFILLED");
    match reply {
        Ok(fields) => encoder.own_text(fields),
        Err(sentence) => {
            stats.request_errors += 1;
            encoder.error("ERR", sentence);
        }
    }
    let out = encoder.end();
    conn.fill(now.mono, waiter.slot, &out, pool);
    pool.give(out);
    mark_dirty(state, waiter.conn);
}
