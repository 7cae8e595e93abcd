//! What each frame from a peer does.
//!
//! A frame that cannot be read closes the link with a BYE that names the error. One that can be read but does not fit
//! (an answer to no query, a change of an unknown filter) changes nothing, and is counted where it is dropped.

use crate::base::time::Now;
use crate::node::conn::connection::CloseReason;
use crate::node::digest::sync;
use crate::node::ids::{ConnKey, PeerKey};
use crate::node::lookup::operation::Operation;
use crate::node::lookup::remote::{self, QueryAnswer};
use crate::node::lookup::serve;
use crate::node::peer::heartbeat;
use crate::node::peer::link;
use crate::node::peer::link_output;
use crate::node::state::State;
use crate::store::KeyHash;
use crate::wire::frame::{Body, Frame, FrameError, Oversized};

/// Processes one frame of `bytes` bytes. Returns its cost in keys, at least 1.
pub(in crate::node) fn execute(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    frame: &Frame<'_>,
    bytes: usize,
) -> usize {
    state.stats.frames += 1;
    let request = frame.request;
    let queries_before = state.mesh.lookups.queries();
    if is_digest(&frame.body) {
        state.stats.digest_received_bytes += bytes as u64;
    }
    // Changes of one frame have consecutive numbers, beginning with its own.
    let number = |at: usize| request.wrapping_add(u32::try_from(at).unwrap_or(u32::MAX));
    let cost = match &frame.body {
        Body::Heartbeat { head, is_answer } => {
            heartbeat::received(state, now, peer, request, *head, *is_answer);
            0
        }
        Body::Delta(hashes) => {
            for (at, hash) in hashes.iter().enumerate() {
                sync::addition(state, now, peer, number(at), hash);
            }
            hashes.len() / 2
        }
        Body::Block(images) => {
            for (at, (block, image)) in images.iter().enumerate() {
                sync::block(state, now, peer, number(at), block, &image);
            }
            images.len()
        }
        Body::Snap { head, size_log2 } => {
            sync::snapshot(state, now, peer, *head, request, *size_log2);
            0
        }
        Body::Piece(words) => {
            let words: Vec<u64> = words.iter().collect();
            sync::piece(state, now, peer, request, &words);
            words.len() / 64
        }
        Body::SnapEnd => {
            sync::snapshot_end(state, now, peer);
            0
        }
        Body::Resync(from) => {
            sync::resync(state, now, peer, *from, request);
            0
        }
        Body::Get { key, wanted } => {
            serve::received(state, now, peer, request, Operation::Lookup(*wanted), key);
            0
        }
        Body::Value { hash, version: _, left_ms, value } => {
            let answer = QueryAnswer::Value { value, left_ms: *left_ms };
            remote::answered(state, now, peer, request, KeyHash(*hash), &answer);
            0
        }
        Body::None { hash } => {
            remote::answered(state, now, peer, request, KeyHash(*hash), &QueryAnswer::None);
            0
        }
        Body::NotTaken => {
            remote::unreadable(state, now, peer, request, &QueryAnswer::None);
            0
        }
        Body::Peers(addresses) => link::list_received(state, now, peer, *addresses),
        Body::Bye(reason) => {
            link::bye_received(state, now, peer, reason);
            0
        }
    };
    // An answer gives slots free, for which other lookups wait.
    1 + cost + state.mesh.lookups.queries_since(queries_before)
}

/// Whether a frame is about a filter.
const fn is_digest(body: &Body<'_>) -> bool {
    match body {
        Body::Delta(_)
        | Body::Block(_)
        | Body::Snap { .. }
        | Body::Piece(_)
        | Body::SnapEnd
        | Body::Resync(_) => true,
        Body::Heartbeat { .. }
        | Body::Get { .. }
        | Body::Value { .. }
        | Body::None { .. }
        | Body::NotTaken
        | Body::Peers(_)
        | Body::Bye(_) => false,
    }
}

/// A key or a value is longer than this node accepts, and is skipped.
pub(in crate::node) fn oversized(state: &mut State, now: Now, peer: PeerKey, request: u32, what: Oversized) {
    state.stats.frames_oversized += 1;
    match what {
        Oversized::Key => serve::declined(state, now, peer, request),
        Oversized::Value => remote::unreadable(state, now, peer, request, &QueryAnswer::TooLong),
    }
}

/// Closes a link that sent no valid frame, with a BYE that names the error.
pub(in crate::node) fn refuse(state: &mut State, now: Now, conn_key: ConnKey, error: &FrameError) {
    if let Some(conn) = state.conns.get(conn_key)
        && state.log_gate.allows(now, &mut state.stats)
    {
        log::warn!("closing the link to {}: {error}", conn.addr);
    }
    state.stats.frames_broken += 1;
    link_output::hang_up(state, now, conn_key, error.to_string().as_bytes(), CloseReason::Protocol);
}
