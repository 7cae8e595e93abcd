//! Execution of the frames of peers.
//!
//! An invalid frame closes the link with a BYE that names the error. A valid frame that does not fit the state (an
//! answer to no query, a change of an unknown filter) changes nothing and is counted.

use crate::base::memory::has_room_for_request;
use crate::base::time::Now;
use crate::node::conn::phase::CloseReason;
use crate::node::digest::sync;
use crate::node::hybrid_clock::HybridClock;
use crate::node::ids::{ConnKey, NodeId, PeerKey};
use crate::node::lookup::broadcast;
use crate::node::lookup::forward;
use crate::node::lookup::forwarded::{PeerCommand, QueuedCommand, Request};
use crate::node::lookup::remote::{self, QueryAnswer};
use crate::node::lookup::serve;
use crate::node::peer::clock;
use crate::node::peer::heartbeat;
use crate::node::peer::link;
use crate::node::peer::link_output;
use crate::node::state::State;
use crate::node::versions::notices::{self, Notice};
use crate::node::versions::{collection, discarded, floor};
use crate::store::{KeyHash, Version};
use crate::wire::frame::{Body, Frame, FrameError, Hints, Oversized};
use crate::wire::owned_args::OwnedArgs;
use crate::wire::remote_reply::KeyVersion;
use std::fmt;

/// Additions prefetched together, so that their cache misses overlap.
const ADDITIONS_AHEAD: usize = 16;

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
    if frame.body.is_about_filter() {
        state.stats.digest_received_bytes += bytes as u64;
    }
    if let Body::Heartbeat { wall_ms, .. } = frame.body
        && let Some(ahead) = clock::is_ahead(now, wall_ms)
    {
        refuse_peer(state, now, peer, &ahead);
        return 1;
    }
    state.keyspace.adopt(now, frame.clock);
    // Changes of one frame have consecutive numbers, beginning with its own.
    let number = |at: usize| request.wrapping_add(u32::try_from(at).unwrap_or(u32::MAX));
    let cost = match &frame.body {
        Body::Heartbeat { head, ack, is_answer, wall_ms } => {
            if let Some(peer) = state.mesh.peers.get_mut(peer).filter(|_| !is_answer) {
                peer.versions.note_clock(frame.clock);
                let addr = peer.addr();
                clock::reported(state, now, addr, *wall_ms);
            }
            heartbeat::received(state, now, peer, request, *head, *is_answer);
            collection::acknowledged(state, now, peer, *head, *ack);
            0
        }
        Body::Delta(hashes) => {
            let (mut notices, mut ahead) = (0, hashes.iter());
            for (at, hash) in hashes.iter().enumerate() {
                if at.is_multiple_of(ADDITIONS_AHEAD) {
                    ahead.by_ref().take(ADDITIONS_AHEAD).for_each(|hash| sync::fetch(state, peer, hash));
                }
                if sync::addition(state, now, peer, number(at), hash) {
                    notices += notices::added(state, peer, KeyHash(hash));
                }
            }
            hashes.len() / 2 + notices
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
        Body::Piece(blocks) => {
            let words: Vec<u64> = blocks.iter().flatten().collect();
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
        Body::Get { key, wanted } => serve::received(state, now, peer, request, *wanted, key),
        Body::Value { hash, version, left_ms, value } => {
            if !HybridClock::is_within_bound(now, *version) {
                refuse_peer(state, now, peer, &clock::VERSION_AHEAD);
                return 1;
            }
            let answer = QueryAnswer::Value { version: Version(*version), value, left_ms: *left_ms };
            remote::answered(state, now, peer, request, KeyHash(*hash), &answer);
            0
        }
        Body::None { hash, moved_version, hints } => {
            if !HybridClock::is_within_bound(now, *moved_version) {
                refuse_peer(state, now, peer, &clock::VERSION_AHEAD);
                return 1;
            }
            let answer = QueryAnswer::None { moved_version: Version(*moved_version), hints: *hints };
            remote::answered(state, now, peer, request, KeyHash(*hash), &answer);
            0
        }
        Body::NotTaken => {
            remote::unreadable(state, now, peer, request, &QueryAnswer::NOTHING);
            0
        }
        Body::Peers(addresses) => link::list_received(state, now, peer, *addresses),
        Body::Bye(reason) => {
            link::bye_received(state, now, peer, reason);
            0
        }
        Body::Delete { key, version } => {
            if !HybridClock::is_within_bound(now, *version) {
                refuse_peer(state, now, peer, &clock::VERSION_AHEAD);
                return 1;
            }
            serve::delete(state, now, peer, request, key, Version(*version));
            0
        }
        // Its arguments are copied, since it is carried out at the end of the call.
        Body::Execute(_) if !has_room_for_request(bytes) => {
            link_output::send_answer(state, now, peer, request, &Body::NotTaken);
            0
        }
        Body::Execute(command) => {
            let protocol = command.protocol;
            let Some(args) = OwnedArgs::of(command.arguments.iter()) else {
                link_output::send_answer(state, now, peer, request, &Body::NotTaken);
                return 1;
            };
            let request_of = Request { name: command.name.into(), args, protocol };
            state.mesh.queued_commands.push(QueuedCommand::FromPeer(Box::new(PeerCommand {
                peer,
                number: request,
                request: request_of,
                create: command.create,
                deadline: command.deadline,
                refused: command.refused.iter().map(NodeId).collect(),
            })));
            0
        }
        Body::Deleted { hash, version, had, hints } => {
            if !HybridClock::is_within_bound(now, *version) {
                refuse_peer(state, now, peer, &clock::VERSION_AHEAD);
                return 1;
            }
            let key = broadcast::done(state, now, peer, request, KeyHash(*hash), *had, *hints);
            if let Some(key) = key {
                let key = state.keyspace.key(&key);
                state.keyspace.delete_older(now, key, Version(*version));
            }
            0
        }
        Body::Executed { hash, version, state: of, reply } => {
            let first = KeyVersion { hash: *hash, version: *version, state: *of };
            let versions = forward::executed(state, now, peer, request, first, reply);
            for (key, KeyVersion { version, state: of, .. }) in versions {
                if !HybridClock::is_within_bound(now, version) {
                    refuse_peer(state, now, peer, &clock::VERSION_AHEAD);
                    return 1;
                }
                let notice = Notice { key: &key, version: Version(version), state: of, is_answer: false };
                notices::received(state, now, peer, &notice);
            }
            0
        }
        Body::NotHolder { hash, moved_version, hints } => {
            forward::refused(state, now, peer, request, KeyHash(*hash), *moved_version, *hints);
            0
        }
        Body::NotDone { hash } => {
            forward::not_done(state, now, peer, request, KeyHash(*hash));
            0
        }
        Body::Floored(version) => {
            broadcast::done(state, now, peer, request, KeyHash(*version), false, Hints::default());
            0
        }
        Body::Invalidate { key, version, state: of } | Body::Newer { key, version, state: of } => {
            if !HybridClock::is_within_bound(now, *version) {
                refuse_peer(state, now, peer, &clock::VERSION_AHEAD);
                return 1;
            }
            let is_answer = matches!(frame.body, Body::Newer { .. });
            state.stats.invalidations_received += 1;
            let notice = Notice { key, version: Version(*version), state: *of, is_answer };
            notices::received(state, now, peer, &notice);
            0
        }
        Body::Discarded { version, blocks } => {
            if !HybridClock::is_within_bound(now, *version) {
                refuse_peer(state, now, peer, &clock::VERSION_AHEAD);
                return 1;
            }
            discarded::received(state, now, peer, request, Version(*version), blocks.iter());
            blocks.len() / 8
        }
        Body::Floor(version) => {
            if !HybridClock::is_within_bound(now, *version) {
                refuse_peer(state, now, peer, &clock::VERSION_AHEAD);
                return 1;
            }
            floor::received(state, now, peer, request, Version(*version))
        }
    };
    // An answer frees a slot, for which other lookups wait.
    1 + cost + state.mesh.lookups.queries_since(queries_before)
}

/// Closes the link of a peer whose wall clock or version is too far ahead, before the clock is adopted.
fn refuse_peer(state: &mut State, now: Now, key: PeerKey, why: &dyn fmt::Display) {
    let Some(peer) = state.mesh.peers.get(key) else { return };
    let Some(link) = peer.link() else { return };
    if state.log_gate.allows(now, &mut state.stats) {
        log::warn!("closing the link to {}: {why}", peer.addr());
    }
    link_output::disconnect(state, now, link.conn, why.to_string().as_bytes(), CloseReason::Refused);
}

/// Handles a frame with a key or value longer than this node accepts, which is skipped.
pub(in crate::node) fn oversized(state: &mut State, now: Now, peer: PeerKey, request: u32, what: Oversized) {
    state.stats.frames_oversized += 1;
    match what {
        Oversized::Key => serve::declined(state, now, peer, request),
        Oversized::Value => remote::unreadable(state, now, peer, request, &QueryAnswer::TooLong),
        // This node holds no such key.
        Oversized::Notice => {}
    }
}

/// Closes a link after an invalid frame, with a BYE that names the error.
pub(in crate::node) fn refuse(state: &mut State, now: Now, conn_key: ConnKey, error: &FrameError) {
    if let Some(conn) = state.conns.get(conn_key)
        && state.log_gate.allows(now, &mut state.stats)
    {
        log::warn!("closing the link to {}: {error}", conn.addr());
    }
    state.stats.frames_broken += 1;
    link_output::disconnect(state, now, conn_key, error.to_string().as_bytes(), CloseReason::Protocol);
}
