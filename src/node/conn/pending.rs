//! Pending requests: those that wait for lookups of some of their keys. The last result completes one, and its
//! reply is written by the encoder and the function that would have written it at once.
//!
//! Not here: which nodes the lookups query ([`crate::node::lookup::remote`]).

use crate::base::buffer::Pool;
use crate::base::chunk_queue::ChunkQueue;
use crate::base::shared_bytes::SharedBytes;
use crate::base::time::Now;
use crate::limits::{BYTES_PER_STEP, KEYS_PER_STEP};
use crate::node::conn::connection::UnderWay;
use crate::node::conn::measure;
use crate::node::ids::{ConnKey, PendingKey};
use crate::node::keyspace::Keyspace;
use crate::node::lookup::answers::{Answer, Answers};
use crate::node::lookup::forwarded::Errand;
use crate::node::lookup::table::{Found, KeyReply, PendingRequest, Shape, Waiter, Writer};
use crate::node::schedule::cost_of_bytes;
use crate::node::state::{State, mark_dirty};
use crate::wire::args::OwnedArgs;
use crate::wire::encoder::{Encoder, ReplyHead, ReplyTooLong};
use crate::wire::field::put_escaped_piece;
use crate::wire::frame::Wanted;

/// Bytes of a reply from which on it is written in pieces, and of a piece.
const LONG_REPLY_BYTES: usize = 128 * 1024;
const PIECE_BYTES: usize = 64 * 1024;

/// Bytes of a large value that are put in quotes at a time.
const QUOTED_BYTES: usize = 32 * 1024;

/// What a reply costs beside its bytes: as much as a request.
const REPLY_COST_BYTES: usize = BYTES_PER_STEP / KEYS_PER_STEP;

/// Holds a place among the replies of a connection for a request, no key of which has a result yet; none for one that
/// is not answered.
pub(in crate::node) fn begin<'k>(
    state: &mut State,
    conn_key: ConnKey,
    head: ReplyHead,
    form: KeyReply,
    is_answered: bool,
    keys: impl Iterator<Item = &'k [u8]>,
) -> Option<PendingKey> {
    let conn = state.conns.get_mut(conn_key)?;
    let place = is_answered.then(|| conn.replies.hold());
    let keys = OwnedArgs::of(keys);
    let waiting = keys.args().len();
    state.stats.gets += if form.wanted == Wanted::Value { waiting as u64 } else { 0 };
    let request = PendingRequest {
        conn: conn_key,
        place,
        head,
        form,
        reply_bytes: keys.bytes(),
        keys,
        answers: Answers::new(waiting),
        waiting,
        bytes: 0,
        is_too_long: false,
        is_barrier: false,
        transaction: None,
        writer: None,
    };
    let under_way = conn.under_way();
    under_way.lookups += waiting;
    under_way.bytes += request.memory_bytes();
    Some(state.mesh.lookups.pending.insert(request))
}

/// Has later requests of the connection wait for the reply to this one.
pub(in crate::node) fn make_barrier(state: &mut State, key: PendingKey) {
    let Some(request) = state.mesh.lookups.pending.get_mut(key) else { return };
    if !std::mem::replace(&mut request.is_barrier, true)
        && let Some(conn) = state.conns.get_mut(request.conn)
    {
        conn.under_way().barriers += 1;
    }
}

/// Stores the result for one key, whose value has `value_bytes`; the last one completes the request, and its
/// reply is written soon.
pub(in crate::node) fn store_part(state: &mut State, waiter: Waiter, answer: Answer, value_bytes: usize) {
    let bytes_max = state.config.limits.reply_bytes_max as usize;
    let Some(request) = state.mesh.lookups.pending.get_mut(waiter.pending) else { return };
    if request.form.wanted == Wanted::Value {
        state.stats.hits += u64::from(matches!(answer, Answer::Found { .. } | Answer::Here));
        state.stats.misses += u64::from(matches!(answer, Answer::Missing));
    }
    let before = request.memory_bytes();
    request.answer(waiter.part, answer, value_bytes, bytes_max);
    request.waiting -= 1;
    let (conn, after) = (request.conn, request.memory_bytes());
    if request.waiting == 0 {
        state.mesh.lookups.whole.push_back(waiter.pending);
    }
    if let Some(conn) = state.conns.get_mut(conn) {
        let under_way = conn.under_way();
        under_way.lookups -= 1;
        under_way.bytes = (under_way.bytes + after).saturating_sub(before);
    }
    mark_dirty(state, conn);
}

/// Writes the reply of one complete request into its place, and takes its cost off `budget`, in bytes; false if
/// nothing is left of the budget, or of requests. Many may have waited for one large value: their connections
/// are reconciled in between, so that the limit of all buffers holds. A long reply is written later, piece by
/// piece ([`write_piece`]).
pub(in crate::node) fn reply_next(state: &mut State, now: Now, budget: &mut usize) -> bool {
    if *budget == 0 {
        return false;
    }
    let Some(key) = state.mesh.lookups.whole.pop_front() else { return false };
    *budget = budget.saturating_sub(REPLY_COST_BYTES);
    let State { conns, pool, stats, config, keyspace, mesh, .. } = state;
    let Some(request) = mesh.lookups.pending.get_mut(key) else { return true };
    if request.transaction.is_some() {
        mesh.lookups.errands.push_back(Errand::Transaction(key));
        return true;
    }
    let Some(conn) = conns.get_mut(request.conn) else {
        mesh.lookups.pending.remove(key);
        stats.lookups_unwanted += 1;
        return true;
    };
    let conn_key = request.conn;
    let is_long = request.reply_bytes > LONG_REPLY_BYTES && request.failures() == 0;
    // A number is not known before its end.
    if is_long
        && !request.is_too_long
        && request.form.shape != Shape::Count
        && let Some(place) = request.place
    {
        let mut reply = Encoder::resume(pool.take(), &request.head);
        request.form.begin(&mut reply, request.answers.len());
        reply.leave_gaps();
        request.writer = Some(Writer { reply, next: 0, quoted: SharedBytes::default() });
        if let Some(key) = request.keys.args().get(0) {
            measure::looked_up(conn, &config.limits, now, place, key);
        }
        conn.replies.write_later(now.mono, place, key);
        mark_dirty(state, conn_key);
        return true;
    }
    let Some(request) = mesh.lookups.pending.remove(key) else { return true };
    end(conn.under_way(), &request);
    let limit_bytes = config.limits.reply_bytes_max;
    let mut reply = Encoder::resume(pool.take(), &request.head);
    if request.failures() > 0 {
        stats.request_errors += 1;
        put_failure(&request, &mut reply);
    } else if !request.is_too_long {
        request.form.begin(&mut reply, request.answers.len());
        let found = request.parts().filter(|part| write_part(&request, *part, keyspace, now, &mut reply));
        let count = found.count();
        if request.form.shape == Shape::Count {
            reply.count(count);
        }
    }
    if request.is_too_long || reply.len() > limit_bytes as usize {
        stats.request_errors += 1;
        reply.error("ERR", ReplyTooLong { limit_bytes, keys: request.answers.len() });
    }
    let text = reply.end();
    *budget = budget.saturating_sub(text.len());
    if let Some(place) = request.place {
        if let Some(key) = request.keys.args().get(0) {
            measure::looked_up(conn, &config.limits, now, place, key);
        }
        conn.fill(now.mono, place, &text, pool);
    }
    pool.give(text);
    mark_dirty(state, conn_key);
    true
}

/// Writes the error about the first key of a request for which it failed. Of several keys the others may be changed.
fn put_failure(request: &PendingRequest, reply: &mut Encoder) {
    let (failed, all) = (request.failures(), request.answers.len());
    for (key, answer) in request.parts() {
        match answer {
            Answer::Failed(failure) if all > 1 => {
                let about = failure.about(key);
                return reply
                    .error(failure.code(), format_args!("for {failed} of {all} keys, the first: {about}"));
            }
            Answer::Failed(failure) => return reply.error(failure.code(), failure.about(key)),
            Answer::Error(error) => return reply.append_error(error),
            Answer::Reply(_) | Answer::Found { .. } | Answer::Here | Answer::Missing | Answer::Waiting => {}
        }
    }
}

/// Notes that a request has ended.
fn end(under_way: &mut UnderWay, request: &PendingRequest) {
    under_way.barriers -= usize::from(request.is_barrier);
    under_way.bytes = under_way.bytes.saturating_sub(request.memory_bytes());
}

/// Takes out a complete request whose reply is written otherwise: in its place, which is the last one.
pub(in crate::node) fn take(state: &mut State, key: PendingKey) -> Option<PendingRequest> {
    let request = state.mesh.lookups.pending.remove(key)?;
    if let Some(conn) = state.conns.get_mut(request.conn) {
        end(conn.under_way(), &request);
        if let Some(place) = request.place {
            conn.replies.withdraw(place);
        }
        mark_dirty(state, request.conn);
    }
    Some(request)
}

/// Writes the next piece of the long reply whose turn it is on this connection, if there is one: so the output
/// holds a piece of it and not the whole. Values are read when they are written, each at its own moment. Returns the
/// cost.
pub(in crate::node) fn write_piece(state: &mut State, now: Now, conn_key: ConnKey) -> usize {
    let State { conns, pool, keyspace, mesh, .. } = state;
    let Some(conn) = conns.get_mut(conn_key) else { return 0 };
    let Some(key) = conn.replies.long_at_front() else { return 0 };
    let Some(request) = mesh.lookups.pending.get_mut(key) else { return 0 };
    let Some(mut writer) = request.writer.take() else { return 0 };
    let unsent = conn.outbound.len();
    if writer.quoted.is_empty() {
        write_parts(request, &mut writer, keyspace, now, &mut conn.outbound, pool);
    }
    if !writer.quoted.is_empty() {
        let mut piece = pool.take();
        let written = put_escaped_piece(&mut piece, writer.quoted.as_slice(), QUOTED_BYTES);
        conn.outbound.push_piece(piece, pool);
        writer.quoted = writer.quoted.slice(written..usize::MAX);
    }
    let is_complete = writer.quoted.is_empty() && writer.next == request.answers.len();
    if !is_complete {
        if writer.quoted.is_empty() {
            conn.outbound.push_piece(writer.reply.take_written(Vec::new()), pool);
        }
        let cost = cost_of_bytes(conn.outbound.len() - unsent);
        request.writer = Some(writer);
        return cost;
    }
    conn.outbound.push_piece(writer.reply.end(), pool);
    let cost = cost_of_bytes(conn.outbound.len() - unsent);
    conn.replies.end_long(now.mono, &mut conn.outbound, pool);
    if let Some(request) = mesh.lookups.pending.remove(key) {
        end(conn.under_way(), &request);
    }
    cost
}

/// Writes parts of a long reply until a piece is full, or a large value is to be written in quotes. A large value that
/// needs none is not copied: the output shares it.
fn write_parts(
    request: &PendingRequest,
    writer: &mut Writer,
    keyspace: &mut Keyspace,
    now: Now,
    outbound: &mut ChunkQueue,
    pool: &mut Pool,
) {
    let Writer { reply, next, quoted } = writer;
    let mut shared_bytes = 0;
    while let Some((key, answer)) = request.part(*next)
        && reply.len() + shared_bytes < PIECE_BYTES
    {
        write_part(request, (key, answer), keyspace, now, reply);
        *next += 1;
        let Some(gap) = reply.take_gap() else { continue };
        let value = match answer {
            Answer::Here => keyspace.share(now, keyspace.key(key)).unwrap_or_default(),
            Answer::Found { value, .. } => value.clone(),
            Answer::Missing | Answer::Waiting | Answer::Reply(_) | Answer::Error(_) | Answer::Failed(_) => {
                SharedBytes::default()
            }
        };
        let shown = request.form.shown(value.len());
        let value = value.slice(shown);
        let mut written = reply.take_written(pool.take());
        let rest = written.split_off(gap.at);
        outbound.push_piece(written, pool);
        reply.put_back(rest);
        if gap.is_quoted {
            *quoted = value;
            return;
        }
        shared_bytes += value.len();
        outbound.push_shared(value, pool);
    }
}

/// Writes what was found of one key and has not expired since; whether there is something.
fn write_part(
    request: &PendingRequest,
    (key, answer): (&[u8], &Answer),
    keyspace: &mut Keyspace,
    now: Now,
    reply: &mut Encoder,
) -> bool {
    let found = match answer {
        Answer::Here => {
            let hashed = keyspace.key(key);
            keyspace.get(now, hashed).map(|item| Found::of(&item))
        }
        Answer::Found { until: Some(until), .. } if until.has_come(now.mono) => None,
        Answer::Found { value, until } => Some(Found { value: value.as_slice(), until: *until }),
        Answer::Reply(bytes) => {
            reply.append(bytes);
            return true;
        }
        Answer::Missing | Answer::Waiting | Answer::Error(_) | Answer::Failed(_) => None,
    };
    request.form.put(reply, now, key, found);
    found.is_some()
}
