//! The input of a connection: parsed and carried out within the step's budget, the rest kept for later.
//!
//! Requests and frames are parsed straight from the slice that the shell has read into; only an unfinished tail is
//! copied. When the budget of a step is spent and requests are left, these are stashed, the connection goes to the end
//! of the queue of runnable ones, and the shell stops reading from it until it has caught up. A connection with too
//! much unsent output stops as well, without the queue. So a connection holds at most one line, or one frame, and one
//! read of input.

use crate::base::memory::LARGE_BYTES;
use crate::base::time::Now;
use crate::limits::{BYTES_PER_STEP, Limits};
use crate::node::command::prefetch::prefetch_inputs;
use crate::node::conn::connection::{ClientProtocol, Conn};
use crate::node::conn::phase::{CloseReason, Phase};
use crate::node::conn::reconcile::reconcile;
use crate::node::conn::requests::{line_limit, refuse};
use crate::node::conn::role::Role;
use crate::node::conn::turn::Turn;
use crate::node::conn::{measure, pending, serving, timeouts};
use crate::node::digest::sync;
use crate::node::ids::ConnKey;
use crate::node::lookup::query::query_waiting;
use crate::node::lookup::serve;
use crate::node::peer::link_output;
use crate::node::schedule::cost_of_bytes;
use crate::node::state::{State, close_conn};
use crate::wire::encoder::Protocol;
use crate::wire::http::HEAD_BYTES_MAX;
use memchr::memchr;
use std::mem;
use std::net::SocketAddr;

/// Missing bytes of a request above which the shell reads straight into the buffer of the connection.
const RECEIVED_IN_PLACE_MIN: usize = 16 * 1024;

/// Adds a connection accepted from `addr`.
pub(in crate::node) fn accepted(state: &mut State, now: Now, addr: SocketAddr) -> ConnKey {
    state.stats.connections_accepted += 1;
    let is_authenticated = state.config.password.is_none();
    let conn = Conn::new(addr, state.stats.connections_accepted, now.mono, is_authenticated);
    let key = state.conns.insert(conn);
    timeouts::arm(state, key);
    key
}

/// Bytes of the longest input of a client whose key is prefetched together with those of other clients: a longer one is
/// several requests, or takes longer than fetching the memory of its key.
const SHORT_INPUT_BYTES: usize = 256;

/// Prefetches the first key of the input of several connections that will be received next.
pub(in crate::node) fn prefetch<'b>(state: &State, inputs: impl Iterator<Item = (ConnKey, &'b [u8])>) {
    let of_clients = inputs.filter_map(|(key, input)| {
        let conn = state.conns.get(key).filter(|conn| conn.is_client() && conn.inbound.is_empty())?;
        match conn.protocol {
            Some(ClientProtocol::Commands(protocol)) if input.len() <= SHORT_INPUT_BYTES => {
                Some((protocol, input))
            }
            Some(_) | None => None,
        }
    });
    prefetch_inputs(&state.keyspace, of_clients);
}

/// Processes bytes that the shell has read as far as the turn allows; buffers the rest.
pub(in crate::node) fn received(state: &mut State, now: Now, key: ConnKey, bytes: &[u8], mut turn: Turn) {
    let Some(conn) = state.conns.get_mut(key) else {
        state.stats.stale_event();
        return;
    };
    if conn.phase() != Phase::Open {
        return;
    }
    conn.last_active = now.mono;
    conn.is_deep = false;
    conn.traffic.add(now.mono, bytes.len());
    if let Some(peer) = conn.link()
        && let Some(peer) = state.mesh.peers.get_mut(peer)
    {
        peer.received(now.mono);
    }
    let class = conn.class();
    if conn.has_partial_line && continues_line(&state.config.limits, conn, bytes) {
        stash(state, now, key, bytes);
        state.runnable.has_read(class, cost_of_bytes(bytes.len()));
        return reconcile(state, now, key);
    }
    let must_wait = conn.must_wait();
    let has_begun = !conn.inbound.is_empty();
    if must_wait {
        stash(state, now, key, bytes);
    } else if has_begun {
        resume(state, now, key, bytes, &mut turn);
    } else {
        let used = serving::serve(state, now, key, bytes, &mut turn);
        stash(state, now, key, &bytes[used..]);
    }
    state.runnable.has_read(class, turn.cost.saturating_sub(turn.counted));
    reconcile(state, now, key);
}

/// Resumes an incomplete request: completes it first, so that the following requests are parsed in place.
fn resume(state: &mut State, now: Now, key: ConnKey, bytes: &[u8], turn: &mut Turn) {
    let missing = state.conns.get(key).map_or(0, |conn| missing_bytes(conn, bytes));
    let (missing, rest) = bytes.split_at(missing);
    stash(state, now, key, missing);
    serve_stash(state, now, key, turn);
    let Some(conn) = state.conns.get(key).filter(|conn| conn.is_open() && !rest.is_empty()) else { return };
    if conn.inbound.is_empty() && !conn.must_wait() {
        let used = serving::serve(state, now, key, rest, turn);
        stash(state, now, key, &rest[used..]);
    } else {
        stash(state, now, key, rest);
        serve_stash(state, now, key, turn);
    }
}

/// The number of bytes at the start of `input` that complete the incomplete request, if that is known; else all.
fn missing_bytes(conn: &Conn, input: &[u8]) -> usize {
    let missing = match (&conn.role, conn.speaks()) {
        (Role::Client, ClientProtocol::Commands(Protocol::Resp2 | Protocol::Resp3)) | (Role::Link(_), _) => {
            conn.missing_bytes()
        }
        (Role::Client, ClientProtocol::Commands(Protocol::Lines) | ClientProtocol::Http) => {
            memchr(b'\n', input).map(|end| end + 1)
        }
        (Role::OutboundHandshake(_) | Role::FormerLink, _) => None,
    };
    missing.map_or(input.len(), |missing| missing.min(input.len()))
}

/// The memory for the next bytes of a large RESP request or frame, at most [`BYTES_PER_STEP`] bytes: the shell may read
/// into its start. Empty for all other input.
pub(in crate::node) fn room(state: &mut State, key: ConnKey) -> &mut [u8] {
    let Some(conn) = state.conns.get_mut(key).filter(|conn| conn.is_open()) else { return &mut [] };
    if conn.has_open_fragment() {
        let is_next = conn.inbound.is_empty() && !conn.must_wait();
        let fragments = conn.fragments.as_mut().filter(|_| is_next);
        return fragments.map_or(&mut [], |fragments| fragments.room());
    }
    match conn.missing_bytes() {
        Some(missing) if missing > RECEIVED_IN_PLACE_MIN => {
            let room = conn.inbound.room();
            let bytes = missing.min(BYTES_PER_STEP).min(room.len());
            &mut room[..bytes]
        }
        Some(_) | None => &mut [],
    }
}

/// Notes that the shell has read `count` bytes into the start of [`room`].
pub(in crate::node) fn filled(state: &mut State, now: Now, key: ConnKey, count: usize) {
    if let Some(conn) = state.conns.get_mut(key) {
        match conn.fragments.as_mut().filter(|fragments| fragments.is_open()) {
            Some(fragments) => fragments.filled(count),
            None => {
                conn.inbound.filled(count);
                conn.filled_bytes += count;
            }
        }
        conn.traffic.add(now.mono, count);
        state.runnable.has_read(conn.class(), cost_of_bytes(count));
    }
}

/// Buffers unprocessed input, or closes the connection if the system has no memory for it.
fn stash(state: &mut State, now: Now, key: ConnKey, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let State { conns, keyspace, pool, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    let needed = conn.progress.needed();
    if needed > LARGE_BYTES
        && conn.inbound.is_small()
        && let Some(map) = keyspace.take_idle(needed)
    {
        conn.inbound.continue_in(map, pool);
    }
    let Err(error) = conn.inbound.append(bytes, needed, pool) else { return };
    let reason = CloseReason::BuffersFull;
    match (conn.speaks(), &conn.role) {
        (ClientProtocol::Commands(protocol), Role::Client) => {
            refuse(state, now, key, protocol, reason, error);
        }
        (_, Role::Link(_)) => {
            link_output::disconnect(state, now, key, b"out of memory", reason);
        }
        (ClientProtocol::Http, Role::Client) | (_, Role::OutboundHandshake(_) | Role::FormerLink) => {
            close_conn(state, key, reason)
        }
    }
}

/// Notes that the other side will send no more. A line without its end is not executed, since it may be incomplete.
pub(in crate::node) fn read_closed(state: &mut State, now: Now, key: ConnKey) {
    let Some(conn) = state.conns.get_mut(key) else {
        state.stats.stale_event();
        return;
    };
    match conn.phase() {
        Phase::Open => {
            conn.set_phase(Phase::ReadClosed);
            reconcile(state, now, key);
        }
        Phase::Closing(_) => conn.is_read_closed = true,
        Phase::Lingering(reason) => close_conn(state, key, reason),
        Phase::ReadClosed | Phase::Connecting => {}
    }
}

/// Notes that `count` bytes of a connection's outbound buffer were written; 0 if the socket accepts none.
pub(in crate::node) fn wrote(state: &mut State, now: Now, key: ConnKey, count: usize) {
    let State { conns, pool, stats, runnable, .. } = state;
    let Some(conn) = conns.get_mut(key) else {
        stats.stale_event();
        return;
    };
    conn.outbound.consume(count, pool);
    conn.traffic.add(now.mono, count);
    runnable.has_written(count);
    if !conn.is_serving() {
        // The connection closes after its last replies: each byte accepted extends its time limit.
        conn.last_active = now.mono;
    }
    if conn.outbound.is_empty() {
        conn.is_flushing = false;
        conn.waits_since = None;
    } else if count > 0 || conn.waits_since.is_none() {
        conn.waits_since = Some(now.mono);
    }
    if conn.is_client() {
        measure::wrote(state, now, key, count);
    } else if let Some(peer) = conn.link() {
        link_output::drained(state, key);
        let cost = serve::answer_deferred(state, now, peer);
        state.runnable.has_stepped(cost);
        if let Some(conn) = state.conns.get_mut(key) {
            conn.account.charge(cost);
        }
        query_waiting(state, now, peer);
        sync::link_drained(state, peer);
        state.mesh.enqueue_resync(peer);
    }
    reconcile(state, now, key);
}

/// Runs the turn of a queued connection: writes a piece of its long reply, and processes input left from earlier
/// steps.
pub(in crate::node) fn run(state: &mut State, now: Now, key: ConnKey) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    let class = conn.class();
    if conn.account.must_let_pass() {
        conn.account.begin_turn();
        return state.runnable.push(class, key);
    }
    conn.is_runnable = false;
    let mut cost = 0;
    if conn.has_long_reply_to_write(&state.config.limits) {
        cost = pending::write_piece(state, now, key);
    }
    let mut turn = Turn::default();
    serve_stash(state, now, key, &mut turn);
    state.runnable.has_run(class, cost + turn.cost.saturating_sub(turn.counted));
    reconcile(state, now, key);
}

/// Processes the connection's buffered input, unless it must wait.
fn serve_stash(state: &mut State, now: Now, key: ConnKey, turn: &mut Turn) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    if conn.must_wait() || conn.inbound.is_empty() {
        return;
    }
    // Taken out of the connection while it is parsed, since requests change the state that holds it.
    let mut stash = mem::take(&mut conn.inbound);
    let filled_bytes = conn.filled_bytes;
    state.keyspace.offer(stash.map());
    let used = serving::serve(state, now, key, stash.as_slice(), turn);
    state.keyspace.offer(None);
    stash.consume(used, &mut state.pool);
    match state.conns.get_mut(key) {
        Some(conn) if conn.is_serving() => {
            conn.inbound = stash;
            if used > 0 {
                conn.filled_bytes = 0;
                turn.counted += cost_of_bytes(filled_bytes);
            }
        }
        Some(_) | None => stash.release(&mut state.pool),
    }
}

/// Whether `bytes` neither end the incomplete line nor exceed its limit: then the earlier part of the line, which may
/// be megabytes, is not searched again.
fn continues_line(limits: &Limits, conn: &Conn, bytes: &[u8]) -> bool {
    let limit = match conn.speaks() {
        ClientProtocol::Http => HEAD_BYTES_MAX,
        ClientProtocol::Commands(_) => line_limit(limits, conn.is_authenticated).0 as usize,
    };
    !conn.inbound.is_empty() && conn.inbound.len() + bytes.len() <= limit && memchr(b'\n', bytes).is_none()
}
