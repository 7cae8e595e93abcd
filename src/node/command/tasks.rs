//! The steps of resumable tasks ([`crate::node::tasks`]): what each does, and the reply at its end.

use crate::base::buffer::OutOfMemory;
use crate::base::memory::{has_left, has_room};
use crate::base::time::Now;
use crate::filter::size::Size;
use crate::limits::BYTES_PER_STEP;
use crate::node::command::scan;
use crate::node::http::report;
use crate::node::ids::ConnKey;
use crate::node::state::{State, mark_dirty};
use crate::node::tasks::{Dump, Job, ReplyForm, Scan, Task, Waiter};
use crate::wire::encoder::{Encoder, ReplyHead, ReplyTooLong};
use crate::wire::filter_dump::{FilterDump, FilterHead};
use crate::wire::http::{Status, TEXT, put_response};
use std::mem;

/// Filter blocks per step: 16 KiB of filter, 32 KiB of text, about 20 µs.
const BLOCKS_PER_STEP: usize = 256;

/// Bytes of a piece of a long reply: such a chunk is written to the socket without being copied.
const PIECE_BYTES: usize = 64 * 1024;

/// Bytes that the system has left at least when a scan goes on after a piece: most of the reserve.
const BYTES_LEFT_FOR_PIECES: usize = 3 << 20;

/// Takes a reply slot for a dump of the own filter.
pub(in crate::node) fn begin_filter_dump(state: &mut State, key: ConnKey, head: ReplyHead) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    let waiter = Waiter::new(key, conn.replies.hold(), ReplyForm::Field(head));
    state.tasks.wait(waiter, Job::FilterDump(None), |job| matches!(job, Job::FilterDump(None)));
}

/// Takes a reply slot for a scan. Later requests of the connection wait for it, as they may change what it finds.
pub(in crate::node) fn begin_scan(state: &mut State, key: ConnKey, head: ReplyHead, scan: Box<Scan>) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    conn.under_way().barriers += 1;
    let waiter = Waiter::new(key, conn.replies.hold(), ReplyForm::Values(head));
    state.tasks.wait(waiter, Job::Scan(scan), |_| false);
}

/// Does one step of the next task.
pub(in crate::node) fn step(state: &mut State, now: Now) {
    let Some(Task { job, mut waiters }) = state.tasks.pop() else { return };
    waiters.retain(|waiter| state.conns.get(waiter.conn).is_some());
    if waiters.is_empty() {
        return;
    }
    let job = match job {
        Job::FilterDump(dump) => step_of_dump(state, dump),
        Job::Scan(scan) => step_of_scan(state, now, scan, &mut waiters),
        Job::Report(kind, draft) => {
            let mut draft = draft.unwrap_or_default();
            let is_complete = report::step(state, now, kind, &mut draft);
            if is_complete { Job::Reply(Ok(draft.text)) } else { Job::Report(kind, Some(draft)) }
        }
        Job::Reply(reply) => {
            let mut written = 0;
            while written < BYTES_PER_STEP
                && let Some(waiter) = waiters.last_mut()
            {
                let (bytes, is_complete) = answer(state, now, waiter, &reply);
                written += bytes;
                if is_complete {
                    waiters.pop();
                }
            }
            Job::Reply(reply)
        }
    };
    if !waiters.is_empty() {
        state.tasks.push(Task { job, waiters });
    }
}

/// Does a step of a scan, and accounts for the keys found. The last one replies.
fn step_of_scan(state: &mut State, now: Now, mut scan: Box<Scan>, waiters: &mut Vec<Waiter>) -> Job {
    let is_complete = scan::step(state, now, &mut scan);
    let mut lacks_memory = false;
    if scan.found.len() >= PIECE_BYTES {
        lacks_memory = !has_left(BYTES_LEFT_FOR_PIECES);
        let piece = scan.found.take_written(Vec::with_capacity(PIECE_BYTES));
        scan.pieces.push(piece);
    }
    let limit_bytes = state.config.limits.reply_bytes_max;
    let found_bytes = scan.bytes();
    let is_too_long = found_bytes > limit_bytes as usize;
    for waiter in &*waiters {
        if let Some(conn) = state.conns.get_mut(waiter.conn) {
            let has_ended = is_complete || is_too_long || lacks_memory;
            let under_way = conn.under_way();
            under_way.barriers -= usize::from(has_ended);
            let bytes = if has_ended { 0 } else { found_bytes };
            under_way.bytes = under_way.bytes + bytes - scan.counted;
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
            if let (ReplyForm::Values(head), Some(conn)) = (&waiter.form, state.conns.get_mut(waiter.conn)) {
                let reply = Encoder::resume(state.pool.take(), head);
                conn.fill_pieces(now.mono, waiter.slot, pieces_of(reply, &mut scan), &mut state.pool);
            }
        }
    }
    Job::Scan(scan)
}

/// The reply with the keys that a scan has found, of which no more than two pieces are copied.
fn pieces_of(mut reply: Encoder, scan: &mut Scan) -> Vec<Vec<u8>> {
    scan::put_head(&mut reply, scan);
    let mut pieces = mem::take(&mut scan.pieces);
    let last = scan.found.take_written(Vec::new());
    match pieces.first_mut() {
        None => reply.append(&last),
        Some(first) => {
            reply.append(first);
            *first = reply.take_written(last);
        }
    }
    pieces.push(reply.end());
    pieces
}

fn step_of_dump(state: &State, dump: Option<Dump>) -> Job {
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
    if until < size.blocks() {
        return Job::FilterDump(Some(dump));
    }
    dump.writer.finish(&mut dump.text);
    Job::Reply(Ok(dump.text))
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

/// Writes the reply to one request, or the next piece of it. Returns its bytes, and whether it is complete.
fn answer(
    state: &mut State,
    now: Now,
    waiter: &mut Waiter,
    reply: &Result<Vec<u8>, String>,
) -> (usize, bool) {
    let State { conns, pool, stats, .. } = state;
    let Some(conn) = conns.get_mut(waiter.conn) else { return (0, true) };
    let mut out = if waiter.copied == 0 { pool.take() } else { Vec::new() };
    match (&waiter.form, reply) {
        (ReplyForm::Field(head) | ReplyForm::Values(head), Ok(text)) => {
            let is_first = waiter.copied == 0;
            let piece = &text[waiter.copied..text.len().min(waiter.copied + PIECE_BYTES)];
            waiter.copied += piece.len();
            let is_complete = waiter.copied == text.len();
            let bytes = piece.len();
            out = if is_first { Encoder::begin_text(out, head, text.len()) } else { out };
            out.extend_from_slice(piece);
            if is_complete {
                Encoder::end_text(&mut out, head);
            }
            waiter.pieces.push(out);
            if is_complete {
                conn.fill_pieces(now.mono, waiter.slot, mem::take(&mut waiter.pieces), pool);
                mark_dirty(state, waiter.conn);
            }
            return (bytes, is_complete);
        }
        (ReplyForm::Field(head) | ReplyForm::Values(head), Err(sentence)) => {
            let mut encoder = Encoder::resume(out, head);
            encoder.error("ERR", sentence);
            out = encoder.end();
        }
        (ReplyForm::Http(content_type, delivery), Ok(body)) => {
            put_response(&mut out, Status::Ok, content_type, *delivery, body);
        }
        (ReplyForm::Http(_, delivery), Err(sentence)) => {
            put_response(&mut out, Status::Unavailable, TEXT, *delivery, sentence.as_bytes());
        }
    }
    stats.request_errors += u64::from(reply.is_err());
    conn.fill(now.mono, waiter.slot, &out, pool);
    let bytes = out.len();
    pool.give(out);
    mark_dirty(state, waiter.conn);
    (bytes, true)
}
