//! The steps of resumable tasks ([`crate::node::tasks`]), and the replies at their end.

use crate::base::shared_bytes::SharedBytes;
use crate::base::time::Now;
use crate::node::command::dump::Dump;
use crate::node::command::key_scan::KeyScan;
use crate::node::conn::in_flight::Held;
use crate::node::http::report;
use crate::node::ids::ConnKey;
use crate::node::state::{State, mark_dirty};
use crate::node::tasks::{Job, ReplyForm, Task, Waiter};
use crate::wire::encoder::{Encoder, ReplyHead, ReplyTooLong};
use crate::wire::http::{Status, TEXT, put_response, put_response_head};
use std::iter;

/// The cost of a step of any task, in keys: about 36 µs.
const STEP_KEYS: usize = 144;

/// The most pieces that a step appends to the output of waiters: about 20 µs.
const PIECES_PER_STEP: usize = 512;

/// Takes a reply slot for a dump of the own filter. Later requests of the connection wait for it, so that a connection
/// has at most one dump.
pub(in crate::node) fn begin_filter_dump(state: &mut State, key: ConnKey, head: ReplyHead) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    conn.in_flight().raise_barrier();
    let waiter = Waiter { conn: key, slot: conn.replies.hold(), form: ReplyForm::Field(head) };
    state.tasks.wait(waiter, Job::FilterDump(None), |job| matches!(job, Job::FilterDump(None)));
}

/// Takes a reply slot for a scan. Later requests of the connection wait for it, since they can change the keys.
pub(in crate::node) fn begin_scan(state: &mut State, key: ConnKey, head: ReplyHead, scan: Box<KeyScan>) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    conn.in_flight().raise_barrier();
    let waiter = Waiter { conn: key, slot: conn.replies.hold(), form: ReplyForm::Values(head) };
    state.tasks.wait(waiter, Job::Scan(scan), |_| false);
}

/// Does one step of the next task. Returns its cost in keys.
pub(in crate::node) fn step(state: &mut State, now: Now) -> usize {
    let Some(Task { job, mut waiters }) = state.tasks.pop() else { return 0 };
    let held = job.held();
    waiters.retain(|waiter| state.conns.get(waiter.conn).is_some());
    if waiters.is_empty() {
        state.buffered.replace(held, 0);
        return 1;
    }
    let job = match job {
        Job::FilterDump(dump) => step_of_dump(state, dump),
        Job::Scan(scan) => step_of_scan(state, now, scan, &mut waiters),
        Job::Report(kind, draft) => {
            let mut draft = draft.unwrap_or_default();
            let is_complete = report::step(state, now, kind, &mut draft);
            if is_complete {
                Job::Reply(Ok(vec![state.pool.shared().share(draft.into_text())]))
            } else {
                Job::Report(kind, Some(draft))
            }
        }
        Job::Reply(reply) => {
            let mut written = 0;
            while written < PIECES_PER_STEP
                && let Some(waiter) = waiters.pop()
            {
                written += answer(state, now, waiter, &reply);
            }
            Job::Reply(reply)
        }
    };
    state.buffered.replace(held, if waiters.is_empty() { 0 } else { job.held() });
    if !waiters.is_empty() {
        state.tasks.push(Task { job, waiters });
    }
    STEP_KEYS
}

/// Does a step of a scan, and counts the bytes found for its connection. The last step replies.
fn step_of_scan(state: &mut State, now: Now, mut scan: Box<KeyScan>, waiters: &mut Vec<Waiter>) -> Job {
    let is_complete = scan.step(&state.keyspace, now);
    let result = scan.cut(&mut state.pool);
    let (limit_bytes, found_bytes) = (state.config.limits.reply_bytes_max, scan.bytes());
    let is_too_long = found_bytes > limit_bytes as usize;
    for waiter in &*waiters {
        if let Some(conn) = state.conns.get_mut(waiter.conn) {
            let has_ended = is_complete || is_too_long || result.is_err();
            let bytes = if has_ended { 0 } else { scan.held() };
            conn.in_flight().has_found(bytes);
            mark_dirty(state, waiter.conn);
        }
    }
    if let Err(error) = result {
        return Job::Reply(Err(error.to_string()));
    }
    if is_too_long {
        return Job::Reply(Err(ReplyTooLong { limit_bytes, keys: 0 }.to_string()));
    }
    if is_complete {
        for waiter in waiters.drain(..) {
            if let ReplyForm::Values(head) = &waiter.form {
                let reply = Encoder::resume(state.pool.take(), head);
                let (begin, pieces, end) = scan.reply(reply);
                complete(state, now, &waiter, begin, pieces, end);
            }
        }
    }
    Job::Scan(scan)
}

fn step_of_dump(state: &mut State, dump: Option<Dump>) -> Job {
    let State { keyspace, pool, config, .. } = state;
    let filter = keyspace.own_filter();
    let dump = match dump.filter(|dump| dump.is_of(filter)) {
        Some(dump) => Ok(dump),
        None => Dump::begin(keyspace, config.limits.reply_bytes_max),
    };
    let mut dump = match dump {
        Ok(dump) => dump,
        Err(sentence) => return Job::Reply(Err(sentence)),
    };
    match dump.step(filter, pool) {
        Ok(true) => Job::Reply(Ok(dump.into_pieces())),
        Ok(false) => Job::FilterDump(Some(dump)),
        Err(error) => Job::Reply(Err(error.to_string())),
    }
}

/// Replies to one waiter with the shared pieces of a text, or with an error. Returns the number of pieces plus 1.
fn answer(state: &mut State, now: Now, waiter: Waiter, reply: &Result<Vec<SharedBytes>, String>) -> usize {
    let out = state.pool.take();
    let pieces = reply.as_deref().unwrap_or_default();
    let bytes = pieces.iter().map(SharedBytes::len).sum();
    let (begin, pieces, end) = match (&waiter.form, reply) {
        (ReplyForm::Field(head) | ReplyForm::Values(head), Ok(_)) => {
            let mut end = Vec::new();
            Encoder::end_text(&mut end, head);
            (Encoder::begin_text(out, head, bytes), pieces, end)
        }
        (ReplyForm::Field(head) | ReplyForm::Values(head), Err(sentence)) => {
            let mut encoder = Encoder::resume(out, head);
            encoder.error("ERR", sentence);
            (encoder.end(), pieces, Vec::new())
        }
        (ReplyForm::Http(content_type, delivery), Ok(_)) => {
            let mut begin = out;
            put_response_head(&mut begin, Status::Ok, content_type, *delivery, bytes);
            (begin, if delivery.is_head { &[] } else { pieces }, Vec::new())
        }
        (ReplyForm::Http(_, delivery), Err(sentence)) => {
            let mut begin = out;
            put_response(&mut begin, Status::Unavailable, TEXT, *delivery, sentence.as_bytes());
            (begin, pieces, Vec::new())
        }
    };
    if reply.is_err() {
        state.stats.request_error();
    }
    complete(state, now, &waiter, begin, pieces, end);
    pieces.len() + 1
}

/// Fills the reply slot of a waiter with a beginning, shared pieces, and an end.
fn complete(
    state: &mut State,
    now: Now,
    waiter: &Waiter,
    begin: Vec<u8>,
    pieces: &[SharedBytes],
    end: Vec<u8>,
) {
    let State { conns, pool, .. } = state;
    let Some(conn) = conns.get_mut(waiter.conn) else { return };
    conn.in_flight().end(waiter.form.is_barrier(), Held::default());
    if pieces.is_empty() {
        let reply = [begin, end].concat();
        conn.fill(now.mono, waiter.slot, &reply, pool);
    } else {
        let [begin, end] = [begin, end].map(|bytes| pool.shared().share(bytes));
        let pieces = iter::once(begin).chain(pieces.iter().cloned()).chain([end]).collect();
        conn.fill_pieces(now.mono, waiter.slot, pieces, pool);
    }
    mark_dirty(state, waiter.conn);
}
