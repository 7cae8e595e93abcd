//! Finding other nodes, keeping links to them, noticing that they are gone.
//!
//! Linked nodes tell each other whom else they are linked to, so one address is enough to join. How addresses
//! are dialled is in [`crate::node::peer::dialer`].
//!
//! A link lives by its bytes: who says nothing for three beats is gone. A link that breaks is dialled
//! anew by both ends; of two links to one node that come of that, or of dialling each other at once, both
//! ends keep the same one ([`link_up`]). A peer outlives its link by [`REMEMBERED`], so that a short cut
//! does not cost its whole filter again.
//!
//! Who may become a peer is decided in [`crate::node::peer::handshake`].

use crate::base::address::is_loopback;
use crate::base::time::{Instant, Now};
use crate::node::alarm::Alarm;
use crate::node::conn::connection::{CloseReason, Conn, PeerIdentity, Phase, Role};
use crate::node::digest::sync;
use crate::node::ids::{AddressKey, ConnKey, NodeId, PeerKey};
use crate::node::lookup::remote;
use crate::node::peer::address_book::Origin;
use crate::node::peer::dialer::{dial_after, dial_again, dial_done, dial_lost, look_again, note};
use crate::node::peer::link_output;
use crate::node::peer::table::{Dialler, Link, Peer};
use crate::node::state::{State, Timer, close_conn};
use crate::wire::frame::{Address, Addresses, Body, Head};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// For how long a peer is remembered whose link is gone: as long as our log is (see `filter::digest`).
const REMEMBERED: Duration = Duration::from_secs(30);

/// Beats after which a peer that says nothing is gone.
const HEARTBEATS_MISSED_MAX: u32 = 3;

/// Addresses taken from one PEERS frame.
const PEERS_TAKEN_MAX: usize = 1_024;

/// How often a peer is told at least who else is linked: well within the time after which it forgets an address.
const TELL_PEERS_EVERY: Duration = Duration::from_secs(120);

/// Takes up the mesh: where this node listens, and the addresses that it was told to dial.
pub(in crate::node) fn join(state: &mut State, now: Now, listen: SocketAddr, entries: &[Vec<SocketAddr>]) {
    state.mesh.listen = listen;
    for (entry, addrs) in entries.iter().enumerate() {
        resolved(state, now, entry, addrs);
    }
}

/// Takes the addresses of a configured peer, and dials those that are new.
pub(in crate::node) fn resolved(state: &mut State, now: Now, entry: usize, addrs: &[SocketAddr]) {
    let listen = state.mesh.listen;
    // One list for all nodes of a mesh holds this one's own address too.
    for addr in addrs.iter().filter(|addr| **addr != listen) {
        if let Some((contact, _)) = note(state, now, *addr, Origin::Configured) {
            dial_after(state, now, contact, Duration::ZERO);
        }
    }
    state.mesh.address_book.set_entry(entry, addrs, listen);
}

/// Keeps the cause of a lost connection for the log, if it leads to a node.
pub(in crate::node) fn note_cause(state: &mut State, conn: ConnKey, cause: &dyn fmt::Display) {
    state.mesh.loss_cause.clear();
    if state.conns.get(conn).is_some_and(Conn::is_of_mesh) {
        state.mesh.loss_cause = cause.to_string();
    }
}

/// Tells people what happened to a link, unless too much of it happens.
fn tell_log(state: &mut State, now: Now, what: fmt::Arguments<'_>) {
    if state.log_gate.allows(now, &mut state.stats) {
        log::info!("{what}");
    }
}

/// A node whose proof is right is at the other end of a connection: makes it the link to that node.
///
/// Of two links to one node both ends keep the same: of two that the same end dialled the newer one, of
/// two that each end dialled the one dialled by the smaller identity. The other goes with a goodbye.
pub(in crate::node) fn link_up(
    state: &mut State,
    now: Now,
    conn_key: ConnKey,
    PeerIdentity { id, addr, .. }: PeerIdentity,
    contact: Option<AddressKey>,
) {
    let Some(seen) = state.conns.get(conn_key).map(|conn| conn.addr) else { return };
    let dialler = if contact.is_some() { Dialler::We } else { Dialler::They };
    if let Some(contact) = contact {
        dial_done(state, now, contact, conn_key, id);
    } else {
        state.mesh.conns += 1;
    }
    let was_met = seen == addr && dialler == Dialler::We;
    doubt_predecessor(state, now, id, addr, if was_met { Proven::ByDialling } else { Proven::Not });
    let peer = find_or_make(state, now, id, addr);
    if let Some(conn) = state.conns.get_mut(conn_key) {
        conn.become_link(peer);
    }
    let old = state.mesh.peers.get(peer).and_then(|peer| peer.link);
    if let Some(old) = old {
        let ours_is_smaller = state.mesh.id < id;
        let rightful = if ours_is_smaller { Dialler::We } else { Dialler::They };
        if old.dialler != dialler && old.dialler == rightful {
            link_output::hang_up(state, now, conn_key, b"linked already", CloseReason::Duplicate);
            // If the old one is dead on the other side, this finds it out at once.
            send_heartbeat(state, now, peer);
            return;
        }
        link_output::hang_up(state, now, old.conn, b"a newer link has come", CloseReason::Duplicate);
    }
    // Of what went over an older link nothing counts any more; what was asked is asked again over this one.
    sync::link_lost(state, peer);
    remote::link_lost(state, peer);
    state.mesh.peers.set_link(peer, now.mono, Some(Link { conn: conn_key, dialler }));
    if let Some(entry) = state.mesh.peers.get_mut(peer) {
        entry.addr = addr;
        entry.received_at = now.mono;
        entry.is_stable = false;
        entry.heartbeat_sent_at = None;
    }
    tell_log(state, now, format_args!("linked to {addr} (node {id})"));
    let listed = if is_believed(state, seen, addr) {
        note(state, now, addr, Origin::Learned).map(|(key, _)| key)
    } else {
        state.stats.addresses_refused += 1;
        None
    };
    if let Some(key) = listed {
        state.mesh.address_book.lives_at(key, id);
        if let Some(contact) = state.mesh.address_book.get_mut(key) {
            contact.was_tried = true;
        }
        look_again(state, now, key);
    }
    state.keyspace.set_peers(state.mesh.peers.linked_count());
    sync::link_up(state, now, peer);
    tell_peers(state, now, peer);
    send_heartbeat(state, now, peer);
    arm_heartbeat(state, now, peer);
}

/// How it is known where a node lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proven {
    /// We have dialled it there.
    ByDialling,
    /// It says so.
    Not,
}

/// A node turns up that lives where another one is linked from. If it was met there, the other is dead. If it
/// only says so, that is no reason to give up the other's link: it may be wrong, or a lie. But if it is true,
/// the other's machine answers a beat with a reset at once.
fn doubt_predecessor(state: &mut State, now: Now, id: NodeId, addr: SocketAddr, proven: Proven) {
    let earlier = state.mesh.peers.linked().find(|(_, peer)| peer.addr == addr && peer.id != id);
    let Some((earlier, Some(link))) = earlier.map(|(key, peer)| (key, peer.link)) else { return };
    match proven {
        Proven::Not => send_heartbeat(state, now, earlier),
        Proven::ByDialling => {
            let why = b"another node lives at your address";
            link_output::hang_up(state, now, link.conn, why, CloseReason::Duplicate);
            link_down(state, now, earlier, link.conn);
        }
    }
}

/// The peer of this identity. One that was linked from the same address before is not waited for any more.
fn find_or_make(state: &mut State, now: Now, id: NodeId, addr: SocketAddr) -> PeerKey {
    if let Some(peer) = state.mesh.peers.by_id(id) {
        return peer;
    }
    let earlier = state.mesh.peers.iter().find(|(_, peer)| peer.addr == addr && peer.link.is_none());
    if let Some(earlier) = earlier.map(|(key, _)| key) {
        forget(state, earlier);
    }
    let peers_max = 2 * state.config.mesh.active_peers as usize;
    if state.mesh.peers.len() >= peers_max {
        let gone = state.mesh.peers.iter().filter(|(_, peer)| peer.link.is_none());
        let oldest = gone.min_by_key(|(_, peer)| peer.since).map(|(key, _)| key);
        oldest.into_iter().for_each(|key| forget(state, key));
    }
    let filter = state.mesh.filters.join();
    let peer = Peer::new(id, addr, now.mono, filter, state.mesh.checks);
    state.mesh.peers.insert(peer)
}

/// Forgets a peer that is not linked.
fn forget(state: &mut State, key: PeerKey) {
    if let Some(peer) = state.mesh.peers.remove(key) {
        state.mesh.filters.leave(peer.filter);
    }
}

/// A link has gone. What was asked through it is asked elsewhere, its address is dialled again.
pub(in crate::node) fn link_down(state: &mut State, now: Now, key: PeerKey, conn: ConnKey) {
    let Some(peer) = state.mesh.peers.get(key) else { return };
    if peer.link.is_none_or(|link| link.conn != conn) {
        return;
    }
    let (addr, id, was_stable) = (peer.addr, peer.id, peer.is_stable);
    state.mesh.peers.set_link(key, now.mono, None);
    let cause = std::mem::take(&mut state.mesh.loss_cause);
    let cause = if cause.is_empty() { cause } else { format!(": {cause}") };
    tell_log(state, now, format_args!("link to {addr} (node {id}) lost{cause}"));
    if !was_stable {
        state.mesh.address_book.count_failure(now.mono, id);
    }
    sync::link_lost(state, key);
    remote::link_lost(state, key);
    state.keyspace.set_peers(state.mesh.peers.linked_count());
    rearm(state, key, now.mono.after(REMEMBERED));
    dial_again(state, now, id);
}

/// The timer of a peer: the next beat, or the end of what is remembered.
pub(in crate::node) fn peer_due(state: &mut State, now: Now, key: PeerKey, deadline: u64) {
    let Some(peer) = state.mesh.peers.get_mut(key) else { return };
    if !peer.alarm.fired(deadline) {
        return;
    }
    let Some(link) = peer.link else { return forget(state, key) };
    let interval = Duration::from_millis(state.config.mesh.heartbeat_interval_ms.into());
    if now.mono.since(peer.received_at) >= interval * HEARTBEATS_MISSED_MAX {
        log::warn!("{} has said nothing for {HEARTBEATS_MISSED_MAX} beats", peer.addr);
        close_conn(state, link.conn, CloseReason::PeerSilent);
        return;
    }
    let (id, told, told_at) = (peer.id, peer.sent_list, peer.sent_list_at);
    if !std::mem::replace(&mut peer.is_stable, true) {
        state.mesh.address_book.count_success(id);
    }
    if told != state.mesh.peers.version() || now.mono.since(told_at) >= TELL_PEERS_EVERY {
        tell_peers(state, now, key);
    }
    sync::heartbeat(state, now, key);
    send_heartbeat(state, now, key);
    arm_heartbeat(state, now, key);
}

/// Sets the timer of the next beat, or of the moment at which the peer will have been silent for too long.
fn arm_heartbeat(state: &mut State, now: Now, key: PeerKey) {
    let interval = Duration::from_millis(state.config.mesh.heartbeat_interval_ms.into());
    if let Some(peer) = state.mesh.peers.get(key) {
        let lost_at = peer.received_at.after(interval * HEARTBEATS_MISSED_MAX);
        rearm(state, key, now.mono.after(interval).min(lost_at));
    }
}

/// Sets the one timer of a peer.
fn rearm(state: &mut State, key: PeerKey, at: Instant) {
    if let Some(peer) = state.mesh.peers.get_mut(key) {
        peer.alarm = Alarm::default();
        peer.alarm.arm(&mut state.timers, at, Timer::Peer(key));
    }
}

fn send_heartbeat(state: &mut State, now: Now, key: PeerKey) {
    let head = sync::own_head(state);
    let Some(peer) = state.mesh.peers.get_mut(key) else { return };
    peer.heartbeat = peer.heartbeat.wrapping_add(1);
    peer.heartbeat_sent_at = Some(now.mono);
    let heartbeat = peer.heartbeat;
    link_output::send_control(state, now, key, heartbeat, &Body::Heartbeat { head, is_answer: false });
    remote::probe(state, now, key);
}

/// A beat has come, or the answer to ours.
pub(in crate::node) fn heartbeat_received(
    state: &mut State,
    now: Now,
    key: PeerKey,
    request: u32,
    head: Head,
    is_answer: bool,
) {
    if !is_answer {
        sync::heartbeat_from(state, now, key, head);
        return sync::answer_heartbeat(state, now, key, request);
    }
    sync::heard_head(state, now, key, head);
    if let Some(peer) = state.mesh.peers.get_mut(key).filter(|peer| peer.heartbeat == request)
        && let Some(sent) = peer.heartbeat_sent_at.take()
    {
        peer.measured(now.mono.since(sent));
    }
}

/// Tells a peer who else is linked.
fn tell_peers(state: &mut State, now: Now, key: PeerKey) {
    let version = state.mesh.peers.version();
    let Some(peer) = state.mesh.peers.get_mut(key) else { return };
    (peer.sent_list, peer.sent_list_at) = (version, now.mono);
    let others = state.mesh.peers.linked().filter(|(other, _)| *other != key);
    let list: Vec<Address> =
        others.map(|(_, peer)| Address { id: peer.id.0, addr: peer.addr }).take(PEERS_TAKEN_MAX).collect();
    if !list.is_empty() {
        link_output::send_peers(state, now, key, &list);
    }
}

/// Whether an address may be dialled because somebody says so who is seen at `seen`.
fn is_believed(state: &State, seen: SocketAddr, addr: SocketAddr) -> bool {
    // Without a secret only this machine is the mesh, whatever somebody says. With one, a loopback address
    // told from another machine means that machine.
    if is_loopback(addr.ip()) { is_loopback(seen.ip()) } else { state.config.mesh_secret.is_some() }
}

/// A peer has told who else is linked to it. Returns how many addresses were looked at.
pub(in crate::node) fn peers_heard(
    state: &mut State,
    now: Now,
    from: PeerKey,
    addresses: Addresses<'_>,
) -> usize {
    let link = state.mesh.peers.get(from).and_then(|peer| peer.link);
    let Some(seen) = link.and_then(|link| state.conns.get(link.conn)).map(|conn| conn.addr) else { return 0 };
    let taken = addresses.len().min(PEERS_TAKEN_MAX);
    state.stats.addresses_refused += (addresses.len() - taken) as u64;
    for Address { id, addr } in addresses.iter().take(taken) {
        let id = NodeId(id);
        if id == state.mesh.id || state.mesh.peers.is_linked(id) {
            continue;
        }
        let Some((contact, is_new)) = told(state, now, seen, addr) else { continue };
        state.mesh.address_book.listed(now.mono, contact);
        if is_new {
            // By zeroes nobody is named: who told it does not know.
            if id != NodeId([0; 16]) {
                state.mesh.address_book.lives_at(contact, id);
            }
        }
    }
    taken
}

/// Somebody who is seen at `seen` says that a node listens at an address: has that dialled if it is new, and gives
/// its contact, if it may be believed, with whether it is new.
pub(in crate::node) fn told(
    state: &mut State,
    now: Now,
    seen: SocketAddr,
    addr: SocketAddr,
) -> Option<(AddressKey, bool)> {
    let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    if addr == state.mesh.listen || addr.port() == 0 || addr.ip().is_unspecified() {
        return None;
    }
    if !is_believed(state, seen, addr) {
        state.stats.addresses_refused += 1;
        return None;
    }
    let (contact, is_new) = note(state, now, addr, Origin::Learned)?;
    if is_new {
        dial_after(state, now, contact, Duration::ZERO);
    }
    Some((contact, is_new))
}

/// A peer says goodbye: it will close, and says why.
pub(in crate::node) fn bye_heard(state: &mut State, now: Now, key: PeerKey, reason: &[u8]) {
    let Some(peer) = state.mesh.peers.get(key) else { return };
    let Some(link) = peer.link else { return };
    let addr = peer.addr;
    let reason = String::from_utf8_lossy(reason);
    tell_log(state, now, format_args!("{addr} says goodbye: {}", reason.escape_debug()));
    link_output::part(state, now, link.conn, CloseReason::PeerLeft);
}

/// Draws the conclusions of links and dials that have ended; true if there were any.
pub(in crate::node) fn reconcile_losses(state: &mut State, now: Now) -> bool {
    let mut any = false;
    while let Some((peer, conn)) = state.mesh.lost_links.pop_front() {
        link_down(state, now, peer, conn);
        any = true;
    }
    while let Some((contact, conn, reason)) = state.mesh.lost_dials.pop_front() {
        dial_lost(state, now, contact, conn, reason);
        any = true;
    }
    any
}

/// The node ends, and no client is left: says goodbye to the peers. Dials are given up before, at once.
pub(in crate::node) fn leave(state: &mut State, now: Now) {
    let keys: Vec<ConnKey> = state.conns.iter().map(|(key, _)| key).collect();
    for key in keys {
        let Some(conn) = state.conns.get(key) else { continue };
        match conn.role {
            Role::OutboundHandshake(_) => close_conn(state, key, CloseReason::Drained),
            Role::Link(_) if conn.phase() == Phase::Open => {
                link_output::hang_up(state, now, key, b"the node ends", CloseReason::Drained);
            }
            Role::Link(_) | Role::Parted | Role::Client => {}
        }
    }
}
