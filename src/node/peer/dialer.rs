//! Dialling known addresses, until the nodes behind them are linked: at most [`DIALS_MAX`] at a time, at growing
//! intervals and for ever.
//!
//! Up to `active_peers` are linked; addresses beyond that are *backup*: known, not dialled until a link goes, but
//! for a *visit* now and then. A node that has no link may be one of them, and know nobody: it is linked beyond that
//! number, up to [`PLACES_FOR_THE_ALONE`]. It has the same right where it dials itself, at one address at a time.
//! What is said once somebody picks up is in [`crate::node::peer::handshake`].

use crate::base::time::Now;
use crate::limits::PLACES_FOR_THE_ALONE;
use crate::node::conn::connection::{CloseReason, Conn, OutboundHandshake, Role};
use crate::node::conn::timeouts;
use crate::node::ids::{AddressKey, ConnKey, NodeId};
use crate::node::peer::address_book::{AddressEntry, Origin, slowest};
use crate::node::peer::table::Dialler;
use crate::node::state::{Action, State, Timer, close_conn};
use crate::wire::handshake::Standing;
use std::net::SocketAddr;
use std::time::Duration;

/// Addresses being dialled at one time: they take of the files that are reserved beside the clients.
const DIALS_MAX: usize = 16;

/// Of these, addresses for which nothing speaks but that somebody told them: a peer that tells thousands must
/// not keep those from being dialled where a node was met, or that the operator told.
const DIALS_ON_HEARSAY_MAX: usize = 8;

/// The least time between two visits of backups.
const VISIT_EVERY: Duration = Duration::from_secs(5);

/// How soon backups are dialled when a link has gone: a little later than its node, which may only have been cut
/// off.
const PROMOTED_AFTER: Duration = Duration::from_millis(150);

/// The contact of an address, made if there is none and room for it; with whether it is new.
pub(in crate::node) fn note(
    state: &mut State,
    now: Now,
    addr: SocketAddr,
    origin: Origin,
) -> Option<(AddressKey, bool)> {
    let contacts_max = state.config.mesh.known_peers_max as usize;
    state.mesh.address_book.note(now.mono, addr, origin, contacts_max)
}

/// Makes sure that an address is looked at after `wait` at the latest.
pub(in crate::node) fn dial_after(state: &mut State, now: Now, key: AddressKey, wait: Duration) {
    let Some(contact) = state.mesh.address_book.get_mut(key) else { return };
    let at = now.mono.after(wait).millis_ceil();
    if contact.timer_at.is_none_or(|armed| armed > at) {
        contact.timer_at = Some(at);
        state.timers.insert(at, Timer::AddressEntry(key));
    }
}

/// An address is to be looked at: dials it, or says when to look again.
pub(in crate::node) fn address_due(state: &mut State, now: Now, key: AddressKey, deadline: u64) {
    let Some(contact) = state.mesh.address_book.get_mut(key) else { return };
    if contact.timer_at != Some(deadline) {
        return;
    }
    contact.timer_at = None;
    if contact.dial.is_some() || state.is_draining {
        return;
    }
    let is_hearsay = contact.is_hearsay();
    let is_linked = is_linked(state, key);
    let is_full = standing(state) == Standing::Full;
    if state.mesh.address_book.forget_hopeless(now.mono, key) {
        return;
    }
    let may_go = !is_linked && if is_full { may_visit(state, now) } else { may_dial(state, is_hearsay) };
    if may_go {
        return dial(state, now, key);
    }
    // If the link goes, or a place is free, it is looked at sooner.
    look_again(state, now, key);
    let Some(contact) = state.mesh.address_book.get_mut(key) else { return };
    // Nothing more is to be learned there now: the node is linked, or none is wanted.
    contact.was_tried |= is_linked || is_full;
    if !is_linked {
        state.mesh.address_book.wait(key);
    }
}

/// Whether the node that is said to live at an address is linked.
fn is_linked(state: &State, key: AddressKey) -> bool {
    let id = state.mesh.address_book.get(key).and_then(AddressEntry::id);
    id.is_some_and(|id| state.mesh.peers.is_linked(id))
}

/// What is to be said of our links.
pub(in crate::node) fn standing(state: &State) -> Standing {
    match state.mesh.peers.linked_count() {
        0 => Standing::Alone,
        links if links >= state.config.mesh.active_peers as usize => Standing::Full,
        _ => Standing::Open,
    }
}

/// What is to be said of them where we dial: that we are alone at one place at a time, so that no node takes
/// two places that are kept for those.
pub(in crate::node) fn standing_of_dial(state: &State) -> Standing {
    let is_said = |conn: ConnKey| match state.conns.get(conn).map(|conn| &conn.role) {
        Some(Role::OutboundHandshake(dialling)) => dialling.standing == Standing::Alone,
        Some(Role::Client | Role::Link(_) | Role::Parted) | None => false,
    };
    let is_said = state.mesh.dials.iter().any(|(_, conn)| is_said(*conn));
    Some(standing(state))
        .filter(|standing| *standing != Standing::Alone || !is_said)
        .unwrap_or(Standing::Open)
}

/// Whether there is a place for a link to this node.
pub(in crate::node) fn has_place(state: &State, id: NodeId, theirs: Standing) -> bool {
    let ours = standing(state);
    let kept = if theirs == Standing::Alone { PLACES_FOR_THE_ALONE } else { 0 };
    let places = state.config.mesh.active_peers + kept;
    let is_free = state.mesh.peers.linked_count() < places as usize;
    // Who has no place comes to see whether we are alone.
    let is_wanted = theirs != Standing::Full || ours == Standing::Alone;
    state.mesh.peers.is_linked(id) || is_free && is_wanted
}

/// Whether a backup may be visited now.
fn may_visit(state: &mut State, now: Now) -> bool {
    let next = now.mono.after(VISIT_EVERY);
    let visit_at = state.mesh.visit_at.get_or_insert(next);
    let may_visit = *visit_at <= now.mono && state.mesh.dials.is_empty();
    if may_visit {
        *visit_at = next;
    }
    may_visit
}

/// Addresses being dialled on hearsay.
fn on_hearsay(state: &State) -> usize {
    let mesh = &state.mesh;
    let is_hearsay = |key: AddressKey| mesh.address_book.get(key).is_some_and(AddressEntry::is_hearsay);
    mesh.dials.iter().filter(|(key, _)| is_hearsay(*key)).count()
}

/// Whether one more address may be dialled now.
fn may_dial(state: &State, is_hearsay: bool) -> bool {
    state.mesh.dials.len() < DIALS_MAX && !(is_hearsay && on_hearsay(state) >= DIALS_ON_HEARSAY_MAX)
}

/// A dial has ended or a link has gone: after `wait`, addresses that wait for a place may have it. A few, however
/// many wait.
fn offer_places(state: &mut State, now: Now, wait: Duration) {
    if standing(state) == Standing::Full || state.is_draining {
        return;
    }
    let free = DIALS_MAX.saturating_sub(state.mesh.dials.len());
    let free_to_hearsay = free.min(DIALS_ON_HEARSAY_MAX.saturating_sub(on_hearsay(state)));
    let address_book = &mut state.mesh.address_book;
    let mut next: Vec<AddressKey> = (0..free).map_while(|_| address_book.next_proven()).collect();
    let left = free_to_hearsay.min(free - next.len());
    next.extend((0..left).map_while(|_| address_book.next_on_hearsay()));
    for key in next {
        if !is_linked(state, key) {
            dial_after(state, now, key, wait);
        }
    }
}

fn dial(state: &mut State, now: Now, key: AddressKey) {
    let nonce = state.mesh.draw();
    state.mesh.address_book.wait_no_more(key);
    let Some(contact) = state.mesh.address_book.get_mut(key) else { return };
    let standing = Standing::Open;
    let dialling = OutboundHandshake { contact: key, at: now.mono, nonce, standing, theirs: None };
    let conn = state.conns.insert(Conn::dialled(contact.addr, now.mono, dialling));
    contact.dial = Some(conn);
    state.mesh.dials.push((key, conn));
    state.mesh.conns += 1;
    state.actions.push_back(Action::Connect(conn, contact.addr));
    timeouts::arm(state, conn);
}

/// A dial ended without a link.
pub(in crate::node) fn dial_lost(
    state: &mut State,
    now: Now,
    key: AddressKey,
    conn: ConnKey,
    reason: CloseReason,
) {
    state.mesh.dials.retain(|(_, dialled)| *dialled != conn);
    if let Some(contact) = state.mesh.address_book.get_mut(key).filter(|contact| contact.dial == Some(conn)) {
        contact.failed(now.mono);
        let wait = contact.backoff(&mut state.rng);
        dial_after(state, now, key, wait);
        warn_if_unreachable(state, now, key, reason);
    }
    offer_places(state, now, Duration::ZERO);
}

/// Warns of a configured peer all of whose addresses fail, at once and then each minute.
fn warn_if_unreachable(state: &mut State, now: Now, key: AddressKey, reason: CloseReason) {
    let cause = match reason {
        CloseReason::Lost => state.mesh.loss_cause.as_str(),
        CloseReason::DialFailed => "no answer in time",
        CloseReason::Done
        | CloseReason::Quit
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
    let Some(addr) = state.mesh.address_book.get(key).map(|contact| contact.addr) else { return };
    let peers = &state.mesh.peers;
    if state.mesh.address_book.is_to_be_warned_of(now.mono, addr, |id| peers.is_linked(id)) {
        log::warn!("cannot reach peer {addr}: {cause}; trying again");
    }
}

/// A dialled connection has become a link, or was given up for one: it is no dial any more.
pub(in crate::node) fn dial_done(state: &mut State, now: Now, key: AddressKey, conn: ConnKey, id: NodeId) {
    state.mesh.dials.retain(|(_, dialled)| *dialled != conn);
    if state.mesh.address_book.get(key).is_some_and(|contact| contact.dial == Some(conn)) {
        state.mesh.address_book.met(key, id);
        look_again(state, now, key);
    }
    offer_places(state, now, Duration::ZERO);
}

/// Makes sure that an address is looked at again some time, where nothing is to be done for now.
pub(in crate::node) fn look_again(state: &mut State, now: Now, key: AddressKey) {
    let wait = slowest(&mut state.rng);
    dial_after(state, now, key, wait);
}

/// Whether another connection that we dialled is, or is about to be, the link to a node. Of two such the ends
/// could keep different ones, since their last words can cross.
pub(in crate::node) fn is_dialled_otherwise(state: &State, conn: ConnKey, id: NodeId) -> bool {
    let is_another = |other: ConnKey| match state.conns.get(other).map(|conn| &conn.role) {
        Some(Role::OutboundHandshake(OutboundHandshake { theirs: Some(theirs), .. })) => {
            other != conn && theirs.id == id
        }
        Some(Role::OutboundHandshake(_) | Role::Client | Role::Link(_) | Role::Parted) | None => false,
    };
    let link = state.mesh.peers.by_id(id).and_then(|key| state.mesh.peers.get(key)?.link);
    link.is_some_and(|link| link.dialler == Dialler::We)
        || state.mesh.dials.iter().any(|(_, other)| is_another(*other))
}

/// Gives a dial up, since its node is dialled otherwise: looks again in a moment whether that came to a link.
pub(in crate::node) fn dial_spared(state: &mut State, now: Now, key: AddressKey, conn: ConnKey, id: NodeId) {
    dial_done(state, now, key, conn, id);
    let Some(contact) = state.mesh.address_book.get(key) else { return };
    let wait = contact.backoff(&mut state.rng);
    dial_after(state, now, key, wait);
    close_conn(state, conn, CloseReason::Duplicate);
}

/// A node was met where it was dialled, and one of us has no place for a link. It is looked at again, soon only if
/// there is no link at all: then the dial has failed.
pub(in crate::node) fn turned_away(state: &mut State, now: Now, key: AddressKey, conn: ConnKey, id: NodeId) {
    let standing = standing(state);
    if standing != Standing::Alone {
        dial_done(state, now, key, conn, id);
    }
    if standing == Standing::Full {
        state.mesh.address_book.wait(key);
    }
    close_conn(state, conn, CloseReason::Refused);
}

/// An address has turned out to be our own. That may change: it is looked at again.
pub(in crate::node) fn met_self(state: &mut State, now: Now, key: AddressKey) {
    if let Some(contact) = state.mesh.address_book.get_mut(key) {
        contact.is_self = true;
        contact.was_tried = true;
        contact.dial = None;
        look_again(state, now, key);
    }
}

/// Dials the addresses of a node whose link has gone, those too that had failed and were left alone while it
/// was linked by another, and then backups, since there is room for one now.
pub(in crate::node) fn dial_again(state: &mut State, now: Now, id: NodeId) {
    for key in state.mesh.address_book.of_node(id) {
        let Some(contact) = state.mesh.address_book.get(key) else { continue };
        let wait = contact.backoff(&mut state.rng);
        dial_after(state, now, key, wait);
    }
    offer_places(state, now, PROMOTED_AFTER);
}
