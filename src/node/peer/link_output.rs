//! Link output: the only code that writes frames to a link.
//!
//! Five classes, the most urgent first: control (heartbeats, RESYNC, PEERS), the ordered stream (changes of the own
//! filter, notices of versions), answers (queries too), long answers (in fragments, by turns with other answers), bulk
//! (snapshots and images of blocks). Frames of the first four may wait in the queue of their class
//! ([`crate::node::peer::link_queues`]); bulk is generated from the live filter when the outbound buffer has room. Bulk
//! has a guaranteed share beside answers: one unit per [`ANSWERS_PER_BULK`] bytes of them.
//!
//! | class | bytes that may wait | beyond that |
//! |---|---|---|
//! | control | [`CONTROL_MAX`] | answers to heartbeats are dropped and counted |
//! | ordered | [`ORDERED_MAX`]; of additions, what a notice or an answer made necessary | the link is closed |
//! | answers | `outbound_pause_bytes`, with the outbound buffer | queries wait, ours for their turn as lookups, the peer's up to a limit; late ones are dropped |
//! | long | one value, and replies to commands | queries for further long values wait in a queue of their own, as above |
//! | bulk | [`BULK_MAX`], in the outbound buffer | generated later |

use crate::base::buffer::Pool;
use crate::base::chunk_queue::ChunkQueue;
use crate::base::shared_bytes::SharedBytes;
use crate::base::time::Now;
use crate::filter::changelog::{LOG_BYTES_MAX, PIECE_BLOCKS};
use crate::filter::size::BLOCK_BYTES;
use crate::node::conn::connection::Conn;
use crate::node::conn::phase::CloseReason;
use crate::node::ids::{ConnKey, PeerKey};
use crate::node::peer::link_queues::{COMMITTED_MAX, Class};
use crate::node::state::{State, mark_dirty, take_spare_place};
use crate::wire::frame::{Address, Body, FRAGMENT_BYTES_MAX, put, put_peers, put_without_end};

/// Bytes of waiting control frames above which heartbeats are not answered.
const CONTROL_MAX: usize = 64 * 1024;

/// Bytes of the ordered stream that may wait: twice the limit of the changelog.
const ORDERED_MAX: usize = 2 * LOG_BYTES_MAX;

/// Bytes in the outbound buffer above which no bulk is generated.
const BULK_MAX: usize = 16 * 1024;

/// Bytes of answers after which bulk is sent, if there is any: those of a piece of a snapshot. A peer without the own
/// filter queries for every key, and its answers must not delay the filter.
const ANSWERS_PER_BULK: usize = PIECE_BLOCKS * BLOCK_BYTES;

/// Sends a control frame, of which the state of the link bounds the number: one per heartbeat or event of the link.
pub(in crate::node) fn send_control(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    request: u32,
    body: &Body<'_>,
) {
    append(state, now, peer, Class::Control, |out, clock| put(out, clock, request, body));
}

/// Sends the list of other nodes, as a control frame.
pub(in crate::node) fn send_peers(state: &mut State, now: Now, peer: PeerKey, list: &[Address]) {
    append(state, now, peer, Class::Control, |out, clock| put_peers(out, clock, list.iter().copied()));
}

/// Sends an answer to a heartbeat or similar frame; false, without sending, if too much waits: requests of a few
/// bytes must not fill the memory.
pub(in crate::node) fn send_control_reply(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    request: u32,
    body: &Body<'_>,
) -> bool {
    let has_room = conn_of(state, peer)
        .and_then(|conn| conn.link_queues.as_deref())
        .is_some_and(|queues| queues.waiting(Class::Control) < CONTROL_MAX);
    if has_room {
        send_control(state, now, peer, request, body);
    }
    has_room
}

/// Appends frames of the ordered stream. Returns the bytes written. Closes the link if too many wait, since none may
/// be left out: digest sync and resync repeat them when the peer is linked again.
pub(in crate::node) fn append_ordered(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    write: impl FnOnce(&mut Vec<u8>),
) -> usize {
    let written = append(state, now, peer, Class::Ordered, |out, _| write(out));
    let queues = conn_of(state, peer).and_then(|conn| conn.link_queues.as_deref());
    if queues.is_some_and(|queues| queues.waiting(Class::Ordered) > ORDERED_MAX)
        && let Some(conn) = state.mesh.peers.conn(peer)
    {
        let why = b"too many changes wait for this link";
        disconnect(state, now, conn, why, CloseReason::SlowReader);
    }
    written
}

/// Sends a frame of the ordered stream, of which the state of the sender bounds the number.
pub(in crate::node) fn send_ordered(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    request: u32,
    body: &Body<'_>,
) {
    append(state, now, peer, Class::Ordered, |out, clock| put(out, clock, request, body));
}

/// Whether an ordered frame would be written to the outbound buffer at once.
pub(in crate::node) fn has_room_for_ordered(state: &State, peer: PeerKey) -> bool {
    let Some(conn) = conn_of(state, peer) else { return false };
    let waiting = conn.link_queues.as_deref().map_or(0, |queues| queues.waiting(Class::Ordered));
    waiting == 0 && conn.outbound.len() < COMMITTED_MAX
}

/// Whether a notice that can wait may be sent: the link has room, and the peer is not late.
pub(in crate::node) fn has_room_for_notice(state: &State, now: Now, peer: PeerKey) -> bool {
    let is_late = state.mesh.peers.get(peer).is_some_and(|peer| peer.is_late(now.mono));
    !is_late && has_room_for_ordered(state, peer)
}

/// Sends a query, or an answer without data of the store. The caller must have checked [`has_room_for_query`] or
/// [`has_room_for_answer`].
pub(in crate::node) fn send_answer(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    request: u32,
    body: &Body<'_>,
) {
    append(state, now, peer, Class::Answer, |out, clock| put(out, clock, request, body));
}

/// Whether the link has room for an answer, and no bulk is due.
pub(in crate::node) fn has_room_for_answer(state: &State, peer: PeerKey) -> bool {
    let Some(conn) = conn_of(state, peer) else { return false };
    let Some(queues) = conn.link_queues.as_deref() else { return false };
    let waiting = conn.outbound.len() + queues.waiting(Class::Answer);
    waiting <= state.config.limits.outbound_pause_bytes as usize && !is_bulk_due(state, peer)
}

/// Whether the link has room for a query.
pub(in crate::node) fn has_room_for_query(state: &State, peer: PeerKey) -> bool {
    let Some(conn) = conn_of(state, peer) else { return false };
    let Some(queues) = conn.link_queues.as_deref() else { return false };
    let waiting = conn.outbound.len() + queues.waiting(Class::Ordered) + queues.waiting(Class::Answer);
    waiting <= state.config.limits.outbound_pause_bytes as usize
}

/// Appends an answer to the connection of a link; returns its bytes. Takes parts of the state, since the answer borrows
/// from the store. A value of more than `LONG_REPLY_BYTES` is shared instead.
pub(in crate::node) fn append_answer(
    conn: &mut Conn,
    pool: &mut Pool,
    clock: u64,
    request: u32,
    body: &Body<'_>,
) -> usize {
    let Some(queues) = conn.link_queues.as_deref_mut() else { return 0 };
    let written =
        queues.append(Class::Answer, &mut conn.outbound, pool, |out| put(out, clock, request, body));
    queues.answered_bytes = queues.answered_bytes.saturating_add(written);
    written
}

/// The same for an answer whose last field, which is empty in `body`, is shared and not copied.
pub(in crate::node) fn append_large_answer(
    conn: &mut Conn,
    pool: &mut Pool,
    clock: u64,
    request: u32,
    body: &Body<'_>,
    value: SharedBytes,
) {
    let length = value.len();
    let head = |out: &mut Vec<u8>| put_without_end(out, clock, request, body, length);
    append_in_two(conn, pool, length, head, |queue, pool| queue.push_shared(value, pool));
}

/// Sends the reply to a command of the peer as the last field of an answer, which is empty in `body`.
pub(in crate::node) fn send_reply(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    request: u32,
    body: &Body<'_>,
    reply: &mut ChunkQueue,
) {
    with_link(state, now, peer, |conn, pool, clock| {
        let length = reply.len();
        let head = |out: &mut Vec<u8>| put_without_end(out, clock, request, body, length);
        append_in_two(conn, pool, length, head, |queue, pool| reply.move_front(length, queue, pool));
    });
}

/// Appends an answer: `head` writes it without its last field of `length` bytes, which `push` appends.
fn append_in_two(
    conn: &mut Conn,
    pool: &mut Pool,
    length: usize,
    head: impl FnOnce(&mut Vec<u8>),
    push: impl FnOnce(&mut ChunkQueue, &mut Pool),
) {
    let Some(queues) = conn.link_queues.as_deref_mut() else { return };
    let class = if length > FRAGMENT_BYTES_MAX { Class::Long } else { Class::Answer };
    let written = queues.append_and_push(class, &mut conn.outbound, pool, head, push);
    if class == Class::Answer {
        queues.answered_bytes = queues.answered_bytes.saturating_add(written);
    }
}

/// Whether there is bulk for a peer, and it has had its share of answers.
fn is_bulk_due(state: &State, peer: PeerKey) -> bool {
    let queues = conn_of(state, peer).and_then(|conn| conn.link_queues.as_deref());
    if queues.is_none_or(|queues| queues.answered_bytes < ANSWERS_PER_BULK) {
        return false;
    }
    let reader = state.mesh.peers.get(peer).and_then(|peer| peer.following.reader());
    reader.is_some_and(|reader| state.keyspace.changelog().has_bulk(reader))
}

/// Whether bulk may be generated for a peer: no other class waits, and little is unsent.
pub(in crate::node) fn has_room_for_bulk(state: &State, peer: PeerKey) -> bool {
    conn_of(state, peer).is_some_and(|conn| conn.outbound.len() <= BULK_MAX)
}

/// Appends frames of bulk, which must have been generated for this call. Returns the bytes written.
pub(in crate::node) fn append_bulk(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    write: impl FnOnce(&mut Vec<u8>),
) -> usize {
    let written = append(state, now, peer, Class::Ordered, |out, _| write(out));
    let conn = state.mesh.peers.conn(peer).and_then(|conn| state.conns.get_mut(conn));
    if let Some(queues) = conn.and_then(|conn| conn.link_queues.as_deref_mut()) {
        queues.answered_bytes = 0;
    }
    written
}

/// Commits waiting frames after bytes of a link were written.
pub(in crate::node) fn drained(state: &mut State, conn: ConnKey) {
    let peer = state.conns.get(conn).and_then(Conn::link);
    let is_bulk_due = peer.is_some_and(|peer| is_bulk_due(state, peer));
    let State { conns, pool, .. } = state;
    let Some(conn) = conns.get_mut(conn) else { return };
    if let Some(queues) = conn.link_queues.as_deref_mut() {
        queues.commit(&mut conn.outbound, pool, is_bulk_due);
    }
}

/// Calls `write` with the vector for the next frames of a class, and their clock. Returns the bytes written: 0 if the
/// peer is not linked.
fn append(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    class: Class,
    write: impl FnOnce(&mut Vec<u8>, u64),
) -> usize {
    let written = with_link(state, now, peer, |conn, pool, clock| {
        let queues = conn.link_queues.as_deref_mut()?;
        Some(queues.append(class, &mut conn.outbound, pool, |out| write(out, clock)))
    });
    let written = written.flatten().unwrap_or(0);
    if class == Class::Ordered
        && let Some(peer) = state.mesh.peers.get_mut(peer)
    {
        peer.stream.append(written);
    }
    written
}

/// Calls `write` with the connection of a peer, the pool, and the clock of the next frames; the connection is flushed
/// later. `None` if the peer is not linked.
fn with_link<R>(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    write: impl FnOnce(&mut Conn, &mut Pool, u64) -> R,
) -> Option<R> {
    let conn_key = state.mesh.peers.conn(peer)?;
    let clock = state.keyspace.clock(now);
    let State { conns, pool, .. } = state;
    let conn = conns.get_mut(conn_key).filter(|conn| conn.is_serving())?;
    let result = write(conn, pool, clock);
    mark_dirty(state, conn_key);
    Some(result)
}

fn conn_of(state: &State, peer: PeerKey) -> Option<&Conn> {
    state.conns.get(state.mesh.peers.conn(peer)?)
}

/// Ends a link with a BYE that names the reason, and drops waiting frames. The peer is unlinked, unless it is linked
/// by another connection.
pub(in crate::node) fn disconnect(
    state: &mut State,
    now: Now,
    conn_key: ConnKey,
    why: &[u8],
    reason: CloseReason,
) {
    let clock = state.keyspace.clock(now);
    let State { conns, pool, .. } = state;
    let Some(conn) = conns.get_mut(conn_key).filter(|conn| conn.link().is_some()) else { return };
    put(conn.outbound.back(pool), clock, 0, &Body::Bye(why));
    part(state, now, conn_key, reason);
}

/// Ends a link without a BYE: the other side has sent one.
pub(in crate::node) fn part(state: &mut State, now: Now, conn_key: ConnKey, reason: CloseReason) {
    let State { conns, pool, .. } = state;
    let Some(conn) = conns.get_mut(conn_key) else { return };
    let Some(peer) = conn.part(pool) else { return };
    if conn.is_serving() {
        conn.begin_closing(reason, now.mono, pool);
    }
    state.mesh.unlinked(peer, conn_key);
    if state.clients() > state.config.limits.clients_max as usize {
        take_spare_place(state, conn_key);
    }
    mark_dirty(state, conn_key);
}
