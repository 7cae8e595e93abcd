//! The steps of resumable tasks ([`crate::node::tasks`]): what each does, and the reply at its end.

use crate::base::buffer::OutOfMemory;
use crate::base::memory::has_room;
use crate::base::shared_bytes::SharedBytes;
use crate::base::time::Now;
use crate::filter::size::Size;
use crate::node::command::scan;
use crate::node::http::report;
use crate::node::ids::ConnKey;
use crate::node::state::{State, mark_dirty};
use crate::node::tasks::{Dump, Job, ReplyForm, Scan, Task, Waiter};
use crate::wire::encoder::{Encoder, ReplyHead, ReplyTooLong};
use crate::wire::filter_dump::{FilterDump, FilterHead};
use crate::wire::http::{Status, TEXT, put_response, put_response_head};
use std::iter;

/// Filter blocks per step: 16 KiB of filter, 32 KiB of text, about 20 µs.
const BLOCKS_PER_STEP: usize = 256;

/// Bytes of a piece of a long reply, which is in a map of its own, and is written to the socket without being copied.
const PIECE_BYTES: usize = 64 * 1024;

/// What a step of any task costs, in keys: about 36 us.
const STEP_KEYS: usize = 144;

/// Pieces that a step appends to the output of those that wait for them: some 20 us.
const PIECES_PER_STEP: usize = 512;

/// Takes a reply slot for a dump of the own filter. Later requests of the connection wait for it, so that none takes
/// another before this one is read.
pub(in crate::node) fn begin_filter_dump(state: &mut State, key: ConnKey, head: ReplyHead) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    conn.under_way().raise_barrier();
    let waiter = Waiter { conn: key, slot: conn.replies.hold(), form: ReplyForm::Field(head) };
    state.tasks.wait(waiter, Job::FilterDump(None), |job| matches!(job, Job::FilterDump(None)));
}

/// Takes a reply slot for a scan. Later requests of the connection wait for it, as they may change what it finds.
pub(in crate::node) fn begin_scan(state: &mut State, key: ConnKey, head: ReplyHead, scan: Box<Scan>) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    conn.under_way().raise_barrier();
    let waiter = Waiter { conn: key, slot: conn.replies.hold(), form: ReplyForm::Values(head) };
    state.tasks.wait(waiter, Job::Scan(scan), |_| false);
}

/// Does one step of the next task, which costs as much as so many keys.
pub(in crate::node) fn step(state: &mut State, now: Now) -> usize {
    let Some(Task { job, mut waiters }) = state.tasks.pop() else { return 0 };
    waiters.retain(|waiter| state.conns.get(waiter.conn).is_some());
    if waiters.is_empty() {
        return 1;
    }
    let job = match job {
        Job::FilterDump(dump) => step_of_dump(state, dump),
        Job::Scan(scan) => step_of_scan(state, now, scan, &mut waiters),
        Job::Report(kind, draft) => {
            let mut draft = draft.unwrap_or_default();
            let is_complete = report::step(state, now, kind, &mut draft);
            if is_complete { Job::Reply(Ok(vec![draft.text.into()])) } else { Job::Report(kind, Some(draft)) }
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
    if !waiters.is_empty() {
        state.tasks.push(Task { job, waiters });
    }
    STEP_KEYS
}

/// Does a step of a scan, and accounts for the keys found. The last one replies.
fn step_of_scan(state: &mut State, now: Now, mut scan: Box<Scan>, waiters: &mut Vec<Waiter>) -> Job {
    let is_complete = scan::step(state, now, &mut scan);
    let mut lacks_memory = false;
    if scan.found.len() >= PIECE_BYTES {
        let found = scan.found.take_written(Vec::new());
        match state.pool.share(&found) {
            Some(piece) => scan.pieces.push(piece),
            None => lacks_memory = true,
        }
        scan.found.put_back(emptied(found));
    }
    let limit_bytes = state.config.limits.reply_bytes_max;
    let found_bytes = scan.bytes();
    let is_too_long = found_bytes > limit_bytes as usize;
    for waiter in &*waiters {
        if let Some(conn) = state.conns.get_mut(waiter.conn) {
            let has_ended = is_complete || is_too_long || lacks_memory;
            let bytes = if has_ended { 0 } else { found_bytes };
            conn.under_way().holds(scan.counted, bytes);
            scan.counted = bytes;
            mark_dirty(state, waiter.conn);
        }
    }
    if lacks_memory {
        return Job::Reply(Err(OutOfMemory.to_string()));
    }
    if is_too_long {
        return Job::Reply(Err(ReplyTooLong { limit_bytes, keys: 0 }.to_string()));
    }
    if is_complete {
        for waiter in waiters.drain(..) {
            if let ReplyForm::Values(head) = &waiter.form {
                let mut reply = Encoder::resume(state.pool.take(), head);
                scan::put_head(&mut reply, &scan);
                let last = scan.found.take_written(Vec::new());
                let begin = if scan.pieces.is_empty() {
                    reply.append(&last);
                    reply.take_written(Vec::new())
                } else {
                    reply.begin_values();
                    reply.take_written(last)
                };
                complete(state, now, &waiter, begin, &scan.pieces, reply.end());
            }
        }
    }
    Job::Scan(scan)
}

/// A vector without what it held, and with its memory.
fn emptied(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.clear();
    bytes
}

fn step_of_dump(state: &mut State, dump: Option<Dump>) -> Job {
    let filter = state.keyspace.own_filter();
    let size = filter.size();
    let mut dump = match dump.filter(|dump| dump.size == size) {
        Some(dump) => dump,
        None => {
            let dump = begin_dump(state, size);
            // Two digits per byte if no run of zeroes makes it shorter, and the line end.
            let (limit, bytes) = (state.config.limits.reply_bytes_max, size.bytes());
            if dump.text.len() as u64 + bytes * 2 + 1 > u64::from(limit) {
                return Job::Reply(Err(format!(
                    "the filter of {bytes} bytes takes more than reply_bytes_max = {limit} as text; \
                     peers get it in frames"
                )));
            }
            if !has_room(2 * usize::try_from(bytes).unwrap_or(usize::MAX / 2)) {
                return Job::Reply(Err(OutOfMemory.to_string()));
            }
            dump
        }
    };
    let until = size.blocks().min(dump.next + BLOCKS_PER_STEP);
    for number in dump.next..until {
        dump.writer.words(&filter.block(number).copied().unwrap_or_default(), &mut dump.text);
    }
    dump.next = until;
    let is_complete = until == size.blocks();
    if is_complete {
        dump.writer.finish(&mut dump.text);
    }
    if is_complete || dump.text.len() >= PIECE_BYTES {
        let Some(piece) = state.pool.share(&dump.text) else {
            return Job::Reply(Err(OutOfMemory.to_string()));
        };
        dump.pieces.push(piece);
        dump.text.clear();
    }
    if is_complete { Job::Reply(Ok(dump.pieces)) } else { Job::FilterDump(Some(dump)) }
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
    Dump { pieces: Vec::new(), text, writer, size, next: 0 }
}

/// Writes the reply to one request, which shares the pieces of the text. Returns their number.
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
    state.stats.request_errors += u64::from(reply.is_err());
    complete(state, now, &waiter, begin, pieces, end);
    pieces.len() + 1
}

/// Puts a reply into its place: what it begins with, pieces that it shares, and its end.
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
    conn.under_way().end(waiter.form.is_barrier(), 0);
    if pieces.is_empty() {
        let reply = [begin, end].concat();
        conn.fill(now.mono, waiter.slot, &reply, pool);
    } else {
        let pieces = iter::once(begin.into()).chain(pieces.iter().cloned()).chain([end.into()]).collect();
        conn.fill_pieces(now.mono, waiter.slot, pieces, pool);
    }
    mark_dirty(state, waiter.conn);
}
