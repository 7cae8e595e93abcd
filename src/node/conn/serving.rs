//! The input of a connection by its role: requests of a client, lines of a handshake, or frames of a peer.

use crate::base::time::Now;
use crate::node::command::queued;
use crate::node::conn::connection::Conn;
use crate::node::conn::phase::CloseReason;
use crate::node::conn::requests::serve_client;
use crate::node::conn::role::Role;
use crate::node::conn::turn::Turn;
use crate::node::ids::{ConnKey, PeerKey};
use crate::node::peer::{frames, handshake, link_output};
use crate::node::schedule::cost_of_bytes;
use crate::node::state::{State, close_conn};
use crate::node::versions::{notices, writers};
use crate::wire::frame::{self, FrameError, FrameLimits};
use crate::wire::handshake::LINE_BYTES_MAX;
use crate::wire::line::{Parsed, parse};
use crate::wire::resp::parse::Progress;

/// Gives a connection its turn: carries out the requests or frames at the front of `input`, by its role. The role may
/// change in the middle: frames follow a handshake. Returns the bytes processed; the cost is added to the turn, and
/// charged to the connection.
pub(super) fn serve(state: &mut State, now: Now, key: ConnKey, input: &[u8], turn: &mut Turn) -> usize {
    let before = notified(state);
    let Some(conn) = state.conns.get_mut(key) else { return input.len() };
    turn.begin(&mut conn.account);
    let charged = turn.excess();
    if conn.notifies_peers && !conn.awaits_peer {
        conn.awaits_peer = writers::must_wait(&mut state.mesh, now, key);
    }
    let mut at = match conn.role {
        Role::Client => serve_client(state, now, key, input, turn),
        Role::OutboundHandshake(_) => serve_dialled(state, now, key, input),
        Role::Link(_) | Role::FormerLink => 0,
    };
    if let Some(peer) = state.conns.get(key).and_then(Conn::link) {
        at += serve_link(state, now, key, peer, &input[at..], turn);
    }
    turn.cost += notices::process_changes(state, now) + state.keyspace.take_uncharged();
    let has_notified = notified(state) != before && state.mesh.peers.linked_count() > 0;
    let Some(conn) = state.conns.get_mut(key).filter(|conn| conn.is_serving()) else {
        return input.len();
    };
    conn.account.charge(turn.excess() - charged);
    conn.notifies_peers = conn.is_client() && (conn.awaits_peer || has_notified);
    conn.is_deep |= turn.is_over();
    if conn.account.must_let_pass() && !conn.must_wait() {
        conn.is_runnable = true;
        state.runnable.push(conn.class(), key);
    }
    at
}

/// The additions and notices so far, of which peers are notified.
fn notified(state: &State) -> (u64, u64) {
    (state.keyspace.changelog().head().seq, state.stats.invalidations_sent)
}

/// Carries out frames of a peer until there is no whole one or the step's budget is spent.
fn serve_link(
    state: &mut State,
    now: Now,
    key: ConnKey,
    peer: PeerKey,
    input: &[u8],
    turn: &mut Turn,
) -> usize {
    let limits = FrameLimits {
        key_bytes_max: state.config.limits.key_bytes_max as usize,
        value_bytes_max: state.config.limits.value_bytes_max as usize,
    };
    let mut at = 0;
    loop {
        if state.conns.get(key).is_some_and(Conn::has_open_fragment) {
            at += take_fragment(state, now, key, peer, &input[at..], limits, turn);
        }
        if at == input.len() {
            break;
        }
        let Some(conn) = state.conns.get_mut(key).filter(|conn| conn.link().is_some()) else { break };
        let passed_over = conn.skip.min(input.len() - at);
        conn.skip -= passed_over;
        at += passed_over;
        turn.cost += cost_of_bytes(passed_over);
        if turn.is_over() {
            conn.is_runnable = true;
            state.runnable.push(conn.class(), key);
            break;
        }
        match frame::parse(&input[at..], limits) {
            frame::Parsed::Partial => {
                conn.progress = Progress::until(frame::frame_bytes(&input[at..]).unwrap_or_default());
                break;
            }
            frame::Parsed::Oversized { what, request, consumed, skip } => {
                conn.skip = skip;
                at += consumed;
                turn.cost += 1;
                frames::oversized(state, now, peer, request, what);
            }
            frame::Parsed::Fragment { consumed, bytes } => {
                conn.progress = Progress::default();
                conn.fragments.get_or_insert_default().begin(bytes);
                at += consumed;
            }
            frame::Parsed::Broken(error) => {
                frames::refuse(state, now, key, &error);
                break;
            }
            frame::Parsed::Frame { frame, consumed } => {
                conn.progress = Progress::default();
                at += consumed;
                turn.cost += cost_of_bytes(consumed) + frames::execute(state, now, peer, &frame, consumed);
                turn.cost += queued::run(state, now);
            }
        }
    }
    at
}

/// Takes bytes of a fragment from the front of `input`, and executes its frame if that is complete. Returns how many.
fn take_fragment(
    state: &mut State,
    now: Now,
    key: ConnKey,
    peer: PeerKey,
    input: &[u8],
    limits: FrameLimits,
    turn: &mut Turn,
) -> usize {
    let State { conns, pool, keyspace, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return 0 };
    let Some(mut fragments) = conn.fragments.take() else { return 0 };
    let Ok((taken, filled)) = fragments.take(input, limits, pool, |bytes| keyspace.take_idle(bytes)) else {
        fragments.frame.release(pool);
        link_output::disconnect(state, now, key, b"out of memory", CloseReason::BuffersFull);
        return 0;
    };
    turn.cost += cost_of_bytes(taken + filled);
    turn.counted += cost_of_bytes(filled);
    let is_last = !fragments.is_open();
    match frame::parse(fragments.frame.as_slice(), limits) {
        frame::Parsed::Partial => {
            conn.fragments = Some(fragments);
            return taken;
        }
        frame::Parsed::Oversized { what, request, consumed, skip } => {
            let skip = (consumed + skip).saturating_sub(fragments.frame.len());
            fragments.frame.release(pool);
            fragments.skip = skip;
            conn.fragments = Some(fragments);
            frames::oversized(state, now, peer, request, what);
            return taken;
        }
        frame::Parsed::Frame { frame, consumed } if is_last && consumed == fragments.frame.len() => {
            state.keyspace.offer(fragments.frame.map());
            turn.cost += frames::execute(state, now, peer, &frame, consumed);
            turn.cost += queued::run(state, now);
            state.keyspace.offer(None);
        }
        frame::Parsed::Frame { .. } | frame::Parsed::Fragment { .. } => {
            frames::refuse(state, now, key, &FrameError::Fragment);
        }
        frame::Parsed::Broken(error) => frames::refuse(state, now, key, &error),
    }
    fragments.frame.release(&mut state.pool);
    taken
}

/// Parses what a dialled node sends: lines, until the handshake is complete.
fn serve_dialled(state: &mut State, now: Now, key: ConnKey, input: &[u8]) -> usize {
    let mut at = 0;
    while at < input.len()
        && state.conns.get(key).is_some_and(|conn| matches!(conn.role, Role::OutboundHandshake(_)))
    {
        match parse(&input[at..], LINE_BYTES_MAX) {
            Parsed::Partial => break,
            Parsed::TooLong => {
                close_conn(state, key, CloseReason::Refused);
                break;
            }
            Parsed::Line(line) => {
                at += line.consumed;
                handshake::replied(state, now, key, line.text);
            }
        }
    }
    at
}
