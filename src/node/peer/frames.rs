//! What each frame of a peer does.
//!
//! A frame that cannot be read on closes the link with a goodbye that says why; one that can be read but
//! does not fit (an answer to nothing, a change of an unknown filter) changes nothing and is counted
//! where it is dropped.

use crate::base::time::Now;
use crate::filter::changelog::Change;
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

/// Takes in one frame of `bytes` bytes. Returns what it cost, in keys: at least 1.
pub(in crate::node) fn execute(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    frame: &Frame<'_>,
    bytes: usize,
) -> usize {
    state.stats.frames += 1;
    let request = frame.request;
    let asked_before = state.mesh.lookups.queries();
    match &frame.body {
        Body::Heartbeat { head, is_answer } => {
            heartbeat::received(state, now, peer, request, *head, *is_answer)
        }
        Body::Get { key, wanted } => {
            serve::received(state, now, peer, request, Operation::Lookup(*wanted), key);
        }
        Body::Value { hash, version: _, left_ms, value } => {
            let said = QueryAnswer::Value { value, left_ms: *left_ms };
            remote::answered(state, now, peer, request, KeyHash(*hash), &said);
        }
        Body::None { hash } => {
            remote::answered(state, now, peer, request, KeyHash(*hash), &QueryAnswer::None);
        }
        Body::NotTaken => remote::unreadable(state, now, peer, request, &QueryAnswer::None),
        Body::Peers(addresses) => return 1 + link::list_received(state, now, peer, *addresses),
        Body::Bye(reason) => link::bye_received(state, now, peer, reason),
        Body::Delta(_)
        | Body::Block(_)
        | Body::Resize { .. }
        | Body::Snap { .. }
        | Body::Piece(_)
        | Body::SnapEnd
        | Body::Resync(_) => {
            state.stats.digest_received_bytes += bytes as u64;
            return digest(state, now, peer, frame);
        }
    }
    // An answer gives places free for which others wait.
    1 + state.mesh.lookups.queries_since(asked_before)
}

/// Takes in a frame about a filter.
fn digest(state: &mut State, now: Now, peer: PeerKey, frame: &Frame<'_>) -> usize {
    let first = frame.request;
    // Where each change of a frame stands: one after the other from the frame's number.
    let place = |at: usize| first.wrapping_add(u32::try_from(at).unwrap_or(u32::MAX));
    match &frame.body {
        Body::Delta(hashes) => {
            for (at, hash) in hashes.iter().enumerate() {
                sync::change(state, now, peer, place(at), &Change::Add(hash));
            }
            1 + hashes.len() / 2
        }
        Body::Block(images) => {
            for (at, (number, image)) in images.iter().enumerate() {
                sync::change(state, now, peer, place(at), &Change::Block { number, image });
            }
            1 + images.len()
        }
        Body::Resize { size_log2 } => {
            sync::resize(state, now, peer, first, *size_log2);
            1
        }
        Body::Snap { head, size_log2 } => {
            sync::snapshot(state, now, peer, *head, *size_log2);
            1
        }
        Body::Piece(words) => {
            let words: Vec<u64> = words.iter().collect();
            sync::piece(state, now, peer, first, &words);
            1 + words.len() / 64
        }
        Body::SnapEnd => {
            sync::snapshot_end(state, now, peer);
            1
        }
        Body::Resync(from) => {
            sync::resync(state, now, peer, *from);
            1
        }
        Body::Heartbeat { .. }
        | Body::Get { .. }
        | Body::Value { .. }
        | Body::None { .. }
        | Body::NotTaken
        | Body::Peers(_)
        | Body::Bye(_) => 1,
    }
}

/// Passes over a key or a value that is longer than this node takes.
pub(in crate::node) fn oversized(state: &mut State, now: Now, peer: PeerKey, request: u32, what: Oversized) {
    state.stats.frames_oversized += 1;
    match what {
        Oversized::Key => serve::declined(state, now, peer, request),
        Oversized::Value => remote::unreadable(state, now, peer, request, &QueryAnswer::TooLong),
    }
}

/// Ends a link whose bytes make no sense, with a goodbye that says so.
pub(in crate::node) fn refuse(state: &mut State, now: Now, conn_key: ConnKey, error: &FrameError) {
    if let Some(conn) = state.conns.get(conn_key)
        && state.log_gate.allows(now, &mut state.stats)
    {
        log::warn!("closed the link to {}: {error}", conn.addr);
    }
    state.stats.frames_broken += 1;
    link_output::hang_up(state, now, conn_key, error.to_string().as_bytes(), CloseReason::Protocol);
}
