//! Dials known addresses until their nodes are linked: a few at a time, with exponential backoff, without end.
//!
//! Up to `active_peers` nodes are linked; others are refused with the addresses of peers. A node without links gets
//! one link above `active_peers`, if necessary in place of the newest link to a peer that has others, so that no node
//! stays isolated in a larger mesh. It may have no address to dial, so a node with `active_peers` links still dials
//! an address from time to time. The handshake is in [`crate::node::peer::handshake`].

use crate::base::address::is_loopback;
use crate::base::time::Now;
use crate::node::conn::connection::Conn;
use crate::node::conn::phase::CloseReason;
use crate::node::conn::role::OutboundHandshake;
use crate::node::conn::timeouts;
use crate::node::ids::{AddressKey, ConnKey, NodeId, PeerKey};
use crate::node::peer::address_book::{AddressEntry, Origin, slowest};
use crate::node::peer::table::Dialler;
use crate::node::state::{Action, State, Timer, close_conn};
use crate::wire::handshake::Links;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Links above `active_peers`, for nodes without links.
const EXTRA_LINKS: usize = 1;

/// Delay after the loss of a link before other addresses are dialled in its place: its own node is dialled first.
const REPLACED_AFTER: Duration = Duration::from_millis(150);

/// Finds or adds the entry of an address, and returns whether it is new; `None` if there is no room.
pub(in crate::node) fn note(
    state: &mut State,
    now: Now,
    addr: SocketAddr,
    origin: Origin,
    source: Option<IpAddr>,
) -> Option<(AddressKey, bool)> {
    let entries_max = state.config.mesh.known_peers_max as usize;
    state.mesh.address_book.note(now.mono, addr, origin, source, entries_max)
}

/// Arms the timer of an address for `wait` from now, unless it is armed for an earlier time.
pub(in crate::node) fn dial_after(state: &mut State, now: Now, key: AddressKey, wait: Duration) {
    state.mesh.address_book.arm(&mut state.timers, key, now.mono.after(wait), Timer::AddressEntry(key));
}

/// Handles the timer of an address: dials it, or arms the timer again.
pub(in crate::node) fn address_due(state: &mut State, now: Now, key: AddressKey, deadline: u64) {
    let is_dialled = state.mesh.address_book.get(key).is_some_and(|entry| entry.dial().is_some());
    if !state.mesh.address_book.fired(key, deadline) || is_dialled || state.is_draining {
        return;
    }
    if state.mesh.address_book.forget_hopeless(now.mono, key) {
        return;
    }
    let (is_linked, is_full) = (is_linked(state, key), is_full(state));
    if !is_linked && if is_full { state.mesh.dials.may_visit(now.mono) } else { may_dial(state, now, key) } {
        return dial(state, now, key);
    }
    // It is examined sooner if the link is lost, or a dial ends.
    look_again(state, now, key);
    if is_linked || is_full {
        state.mesh.address_book.tried(key);
    }
    if !is_linked {
        state.mesh.address_book.wait(key);
    }
}

/// Whether the known node of an address is linked.
fn is_linked(state: &State, key: AddressKey) -> bool {
    let id = state.mesh.address_book.get(key).and_then(AddressEntry::id);
    id.is_some_and(|id| state.mesh.peers.is_linked(id))
}

/// Whether `active_peers` nodes are linked.
fn is_full(state: &State) -> bool {
    state.mesh.peers.linked_count() >= state.config.mesh.active_peers as usize
}

/// The own links, as an offer states them.
pub(in crate::node) fn links(state: &State) -> Links {
    match state.mesh.peers.linked_count() {
        0 => Links::None,
        _ if is_full(state) => Links::Full,
        _ => Links::Unstated,
    }
}

/// The same in an offer to a dialled node: only one dial at a time states that there are none, since each such node
/// makes room.
pub(in crate::node) fn links_of_dial(state: &State) -> Links {
    let states_none = |conn: ConnKey| {
        let dialling = state.conns.get(conn).and_then(Conn::dialling);
        dialling.is_some_and(|dialling| dialling.links == Links::None)
    };
    let links = links(state);
    let is_stated = links == Links::None && state.mesh.dials.conns().any(states_none);
    if is_stated { Links::Unstated } else { links }
}

/// The room for a link to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Room {
    Free,
    /// In place of the link to this peer.
    InPlaceOf(PeerKey),
    None,
}

/// Whether nodes at one address of another host have half of all links, their limit: one holder of the secret must
/// not take them all.
pub(in crate::node) fn is_crowded(state: &State, seen: SocketAddr, id: NodeId) -> bool {
    let peers = &state.mesh.peers;
    if is_loopback(seen.ip()) || peers.is_linked(id) {
        return false;
    }
    let conns = peers.linked().filter_map(|(_, peer)| state.conns.get(peer.link()?.conn));
    let from_there = conns.filter(|conn| conn.addr().ip() == seen.ip()).count();
    from_there >= (state.config.mesh.active_peers as usize).div_ceil(2)
}

/// The room for a link to a node that stated `theirs` about its links.
pub(in crate::node) fn room(state: &State, id: NodeId, theirs: Links) -> Room {
    let peers = &state.mesh.peers;
    let (linked, active) = (peers.linked_count(), state.config.mesh.active_peers as usize);
    if peers.is_linked(id) {
        return Room::Free;
    }
    match theirs {
        Links::None if linked < active + EXTRA_LINKS => Room::Free,
        Links::None => {
            let others = peers.linked().filter(|(_, peer)| peer.has_other_links());
            others.max_by_key(|(_, peer)| peer.since()).map_or(Room::None, |(key, _)| Room::InPlaceOf(key))
        }
        // It has dialled, or was, in case that there are none here.
        Links::Full if linked > 0 => Room::None,
        Links::Full | Links::Unstated if linked < active => Room::Free,
        Links::Full | Links::Unstated => Room::None,
    }
}

/// The numbers of addresses that may be dialled now, and of unverified ones among them.
fn free_dials(state: &State) -> (usize, usize) {
    let mesh = &state.mesh;
    mesh.dials.free(|key| mesh.address_book.is_unverified(key))
}

/// The wait before the next dial of an unverified address.
fn unverified_wait(state: &State, now: Now) -> Duration {
    state.mesh.dials.unverified_wait(now.mono, state.config.mesh.active_peers)
}

/// Whether an address may be dialled now.
fn may_dial(state: &State, now: Now, key: AddressKey) -> bool {
    let (free, free_unverified) = free_dials(state);
    if state.mesh.address_book.is_unverified(key) {
        free_unverified > 0 && unverified_wait(state, now).is_zero()
    } else {
        free > 0
    }
}

/// Lets waiting addresses be dialled after `wait`, as many as are allowed, since a dial has ended or a link was lost.
fn dial_waiting(state: &mut State, now: Now, wait: Duration) {
    if is_full(state) || state.is_draining {
        return;
    }
    let (free, free_unverified) = free_dials(state);
    let unverified_wait = unverified_wait(state, now);
    let address_book = &mut state.mesh.address_book;
    let verified: Vec<AddressKey> = (0..free).map_while(|_| address_book.next_verified()).collect();
    let left = free_unverified.min(free - verified.len());
    // One that waits for its rate has the next one dialled when it ends.
    let left = if unverified_wait.is_zero() { left } else { left.min(1) };
    let unverified: Vec<AddressKey> = (0..left).map_while(|_| address_book.next_unverified()).collect();
    let verified = verified.into_iter().map(|key| (key, wait));
    for (key, wait) in verified.chain(unverified.into_iter().map(|key| (key, wait.max(unverified_wait)))) {
        if !is_linked(state, key) {
            dial_after(state, now, key, wait);
        }
    }
}

fn dial(state: &mut State, now: Now, key: AddressKey) {
    let Some(addr) = state.mesh.address_book.get(key).map(AddressEntry::addr) else { return };
    if state.mesh.address_book.is_unverified(key) {
        state.mesh.dials.count_unverified(now.mono, state.config.mesh.active_peers);
    }
    let nonce = state.mesh.draw();
    let handshake =
        OutboundHandshake { address: key, at: now.mono, nonce, links: Links::Unstated, theirs: None };
    let conn = state.conns.insert(Conn::dialled(addr, now.mono, handshake));
    state.mesh.dialled(key, conn);
    state.actions.push_back(Action::Connect(conn, addr));
    timeouts::arm(state, conn);
}

/// Handles a failed dial.
pub(in crate::node) fn dial_lost(
    state: &mut State,
    now: Now,
    key: AddressKey,
    conn: ConnKey,
    reason: CloseReason,
) {
    state.mesh.dials.end(conn);
    if state.mesh.address_book.get(key).is_some_and(|entry| entry.dial() == Some(conn)) {
        state.mesh.address_book.failed(now.mono, key);
        back_off(state, now, key);
        warn_if_unreachable(state, now, key, reason);
    }
    dial_waiting(state, now, Duration::ZERO);
}

/// Warns about a configured peer without a reachable address, at once and then every minute.
fn warn_if_unreachable(state: &mut State, now: Now, key: AddressKey, reason: CloseReason) {
    let cause = match reason {
        CloseReason::Lost => state.mesh.losses.cause(),
        CloseReason::DialFailed => "no answer in time",
        CloseReason::Done
        | CloseReason::Quit
        | CloseReason::Killed
        | CloseReason::Protocol
        | CloseReason::Browser
        | CloseReason::Idle
        | CloseReason::SlowReader
        | CloseReason::BuffersFull
        | CloseReason::Unauthenticated
        | CloseReason::Drained
        | CloseReason::Refused
        | CloseReason::Duplicate
        | CloseReason::PeerSilent
        | CloseReason::PeerLeft => return,
    };
    let Some(addr) = state.mesh.address_book.get(key).map(AddressEntry::addr) else { return };
    let peers = &state.mesh.peers;
    if state.mesh.address_book.must_warn(now.mono, addr, |id| peers.is_linked(id)) {
        log::warn!("cannot reach peer {addr}: {cause}; trying again");
    }
}

/// Ends a dial whose connection is a link now, or was dropped because its node is linked by another one.
pub(in crate::node) fn dial_done(state: &mut State, now: Now, key: AddressKey, conn: ConnKey, id: NodeId) {
    state.mesh.dials.end(conn);
    if state.mesh.address_book.get(key).is_some_and(|entry| entry.dial() == Some(conn)) {
        state.mesh.address_book.met(key, id);
        look_again(state, now, key);
    }
    dial_waiting(state, now, Duration::ZERO);
}

/// Examines an address again after the longest backoff.
pub(in crate::node) fn look_again(state: &mut State, now: Now, key: AddressKey) {
    let wait = slowest(&mut state.rng);
    dial_after(state, now, key, wait);
}

/// Dials an address after the backoff that its failures cause.
fn back_off(state: &mut State, now: Now, key: AddressKey) {
    let Some(entry) = state.mesh.address_book.get(key) else { return };
    let wait = entry.backoff(&mut state.rng);
    dial_after(state, now, key, wait);
}

/// Whether another dialled connection is the link to a node, or is about to be. If two of them succeeded, both ends
/// could keep different ones, since their last messages can cross.
pub(in crate::node) fn is_dialled_otherwise(state: &State, conn: ConnKey, id: NodeId) -> bool {
    let is_another = |other: ConnKey| {
        let theirs = state.conns.get(other).and_then(|conn| conn.dialling()?.theirs);
        other != conn && theirs.is_some_and(|theirs| theirs.id == id)
    };
    let link = state.mesh.peers.by_id(id).and_then(|key| state.mesh.peers.link(key));
    link.is_some_and(|link| link.dialler == Dialler::We) || state.mesh.dials.conns().any(is_another)
}

/// Drops a dial whose node is also dialled at another address. The address is examined again soon, in case that
/// fails.
pub(in crate::node) fn dial_spared(state: &mut State, now: Now, key: AddressKey, conn: ConnKey, id: NodeId) {
    dial_done(state, now, key, conn, id);
    back_off(state, now, key);
    close_conn(state, conn, CloseReason::Duplicate);
}

/// Ends a dial because the dialled node or this one has its maximal number of links. Without any link the dial is
/// repeated after its backoff; otherwise late.
pub(in crate::node) fn turned_away(state: &mut State, now: Now, key: AddressKey, conn: ConnKey, id: NodeId) {
    if state.mesh.peers.linked_count() > 0 {
        dial_done(state, now, key, conn, id);
    }
    if is_full(state) {
        state.mesh.address_book.wait(key);
    }
    close_conn(state, conn, CloseReason::Refused);
}

/// Notes an address of this node itself. It is examined again, since that may change.
pub(in crate::node) fn found_self(state: &mut State, now: Now, key: AddressKey) {
    state.mesh.address_book.found_self(key);
    look_again(state, now, key);
}

/// Dials the addresses of a node whose link was lost, including failing ones, then other waiting addresses.
pub(in crate::node) fn dial_again(state: &mut State, now: Now, id: NodeId) {
    for key in state.mesh.address_book.of_node(id) {
        back_off(state, now, key);
    }
    dial_waiting(state, now, REPLACED_AFTER);
}
