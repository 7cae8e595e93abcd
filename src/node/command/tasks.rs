//! The steps of resumable tasks ([`crate::node::tasks`]): what each does, and the reply at its end.

use crate::base::time::Now;
use crate::filter::size::Size;
use crate::node::ids::ConnKey;
use crate::node::state::{State, mark_dirty};
use crate::node::tasks::{Dump, Job, Task, Waiter};
use crate::wire::encoder::{Encoder, Protocol};
use crate::wire::filter_dump::{FilterDump, FilterHead};

/// Filter blocks per step: 16 KiB of filter, 32 KiB of text, about 20 µs.
const BLOCKS_PER_STEP: usize = 256;

/// What one step came to: the fields of the reply, or the sentence of an error.
enum Step {
    More(Job),
    Done(Result<Vec<u8>, String>),
}

/// Takes a reply slot for a dump of the own filter.
pub(in crate::node) fn begin_filter_dump(state: &mut State, key: ConnKey, id: &[u8]) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    let waiter = Waiter { conn: key, slot: conn.replies.hold(), id: id.into() };
    state.tasks.wait(waiter, Job::FilterDump(None), |job| matches!(job, Job::FilterDump(None)));
}

/// Does one step of the next task.
pub(in crate::node) fn step(state: &mut State, now: Now) {
    let Some(Task { job, mut waiters }) = state.tasks.pop() else { return };
    waiters.retain(|waiter| state.conns.get(waiter.conn).is_some());
    if waiters.is_empty() {
        return;
    }
    let step = match job {
        Job::FilterDump(dump) => step_of_dump(state, dump),
    };
    match step {
        Step::More(job) => state.tasks.push(Task { job, waiters }),
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
        dump.writer.words(&filter.block(number).copied().unwrap_or_default(), &mut dump.text);
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
