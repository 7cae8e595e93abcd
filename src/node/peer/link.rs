//! The links of a node: one per peer, from the handshake to the loss.
//!
//! Linked nodes send each other the addresses of their peers, so one address suffices to discover the mesh. Both ends
//! dial a lost link again. If that makes two links to one node, both ends keep the same one ([`link_up`]). A peer is
//! kept for [`REMEMBERED`] after its link was lost, so that digest sync resumes after a short interruption.

use crate::base::address::is_loopback;
use crate::base::time::Now;
use crate::node::conn::phase::{CloseReason, Phase};
use crate::node::conn::role::{PeerIdentity, Role};
use crate::node::digest::sync;
use crate::node::ids::{AddressKey, ConnKey, NodeId, PeerKey};
use crate::node::lookup::remote;
use crate::node::peer::address_book::Origin;
use crate::node::peer::dialer::{dial_after, dial_again, dial_done, dial_lost, look_again, note};
use crate::node::peer::heartbeat;
use crate::node::peer::link_output;
use crate::node::peer::table::{Dialler, Link};
use crate::node::state::{State, close_conn};
use crate::node::versions::{collection, floor};
use crate::wire::frame::{Address, Addresses, SAME_ID_REASON};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a peer is kept after its link was lost: as long as the changelog keeps changes.
const REMEMBERED: Duration = Duration::from_secs(30);

/// The reason in the BYE of a node that shuts down.
const SHUTTING_DOWN: &[u8] = b"the node is shutting down";

/// Addresses taken from one PEERS frame, and sent in one.
const ADDRESSES_MAX: usize = 1_024;

/// Joins the mesh: the address this node listens on, and the addresses of each configured peer.
pub(in crate::node) fn join(state: &mut State, now: Now, listen: SocketAddr, entries: &[Vec<SocketAddr>]) {
    state.mesh.listens_on(listen);
    for (at, addrs) in entries.iter().enumerate() {
        resolved(state, now, at, addrs);
    }
}

/// Sets the resolved addresses of the configured peer number `at`, and dials new ones.
pub(in crate::node) fn resolved(state: &mut State, now: Now, at: usize, addrs: &[SocketAddr]) {
    // A list shared by all nodes of a mesh includes this node's own address.
    let is_own = addrs.iter().any(|addr| state.mesh.is_own(*addr));
    for addr in addrs {
        if state.mesh.is_own(*addr) {
            continue;
        }
        if let Some((key, _)) = note(state, now, *addr, Origin::Configured, None) {
            dial_after(state, now, key, Duration::ZERO);
        }
    }
    state.mesh.address_book.set_configured(at, addrs, is_own);
}

/// Logs the cause of a lost connection; stores it if the connection is to another node.
pub(in crate::node) fn note_cause(state: &mut State, conn: ConnKey, cause: &dyn fmt::Display) {
    let Some(conn) = state.conns.get(conn) else { return };
    log::debug!("connection with {} lost: {cause}", conn.addr());
    if conn.is_of_mesh() {
        state.mesh.losses.set_cause(cause.to_string());
    }
}

/// Stores the cause of a connection that another node has closed.
pub(in crate::node) fn note_end(state: &mut State, conn: ConnKey) {
    if state.conns.get(conn).is_some_and(|conn| conn.is_of_mesh()) {
        state.mesh.losses.set_cause("the other side closed it".to_owned());
    }
}

/// Logs a change of the mesh, at a bounded rate.
fn log_change(state: &mut State, now: Now, what: fmt::Arguments<'_>) {
    if state.log_gate.allows(now, &mut state.stats) {
        log::info!("{what}");
    }
}

/// Makes a connection the link to its node, after a successful handshake.
///
/// Of two links to one node both ends keep the same: the newer one if the same end dialled both, else the one dialled
/// by the smaller id. The other is closed with BYE. A link that has lasted for a heartbeat is not replaced by a node
/// that listens on another address, since then two nodes have one id and the second draws another; nor by one that
/// dials from another host.
pub(in crate::node) fn link_up(
    state: &mut State,
    now: Now,
    conn_key: ConnKey,
    PeerIdentity { id, addr, .. }: PeerIdentity,
    dialled: Option<AddressKey>,
) {
    let Some(seen) = state.conns.get(conn_key).map(|conn| conn.addr()) else { return };
    let dialler = if dialled.is_some() { Dialler::We } else { Dialler::They };
    if let Some(key) = dialled {
        dial_done(state, now, key, conn_key, id);
    } else {
        state.mesh.joined();
    }
    let is_verified = seen == addr && dialler == Dialler::We;
    replace_predecessor(state, now, id, addr, is_verified);
    let peer = find_or_make(state, now, id, addr);
    if let Some(conn) = state.conns.get_mut(conn_key) {
        conn.become_link(peer);
    }
    if let Some(old) = state.mesh.peers.link(peer) {
        if let Some(why) = keeps_old_link(state, now, peer, old, addr, seen, dialler) {
            link_output::disconnect(state, now, conn_key, why, CloseReason::Duplicate);
            heartbeat::send(state, now, peer);
            return;
        }
        link_output::disconnect(state, now, old.conn, b"replaced by a newer link", CloseReason::Duplicate);
    }
    // State of the older link is dropped; its queries are sent again over this one.
    sync::link_lost(state, peer);
    remote::link_lost(state, peer);
    state.mesh.peers.set_link(now.mono, peer, Link { conn: conn_key, dialler }, addr);
    state.stats.links_made += 1;
    log_change(state, now, format_args!("linked to {addr} (node {id})"));
    list_address(state, now, seen, addr, id);
    state.mesh.absent.linked(id, addr);
    state.keyspace.set_peers(state.mesh.peers.linked_count());
    sync::link_up(state, now, peer);
    collection::update(state, now);
    floor::send(state, now, peer);
    send_list(state, now, peer);
    heartbeat::send(state, now, peer);
    heartbeat::arm(state, now, peer);
}

/// The reason, if any, to close a new connection to a linked node instead of its link.
fn keeps_old_link(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    old: Link,
    addr: SocketAddr,
    seen: SocketAddr,
    dialler: Dialler,
) -> Option<&'static [u8]> {
    let old_seen = state.conns.get(old.conn).map(|conn| conn.addr().ip());
    let peer = state.mesh.peers.get(peer)?;
    if peer.is_stable() && peer.addr() != addr {
        if state.log_gate.allows(now, &mut state.stats) {
            log::warn!(
                "refused {addr}: its node id {} is that of {}; it draws another (is one a copy of the other?)",
                peer.id(),
                peer.addr()
            );
        }
        return Some(SAME_ID_REASON);
    }
    // Any holder of the secret can claim an identity from another host; a dead link is found by a heartbeat.
    if peer.is_stable() && dialler == Dialler::They && old_seen != Some(seen.ip()) {
        return Some(b"linked already, from another host");
    }
    let ours_is_smaller = state.mesh.id() < peer.id();
    let rightful = if ours_is_smaller { Dialler::We } else { Dialler::They };
    let keeps_old = old.dialler != dialler && old.dialler == rightful;
    keeps_old.then_some(b"linked already")
}

/// Adds the address that a linked node listens on to the address book, if it is acceptable.
fn list_address(state: &mut State, now: Now, seen: SocketAddr, addr: SocketAddr, id: NodeId) {
    if !is_acceptable(state, seen, addr) {
        state.stats.addresses_refused += 1;
        return;
    }
    let Some((key, _)) = note(state, now, addr, Origin::Learned, None) else { return };
    state.mesh.address_book.linked(key, id);
    look_again(state, now, key);
}

/// Handles a node that listens on the address of a peer linked under another id. If it was reached by dialling that
/// address (`is_verified`), the peer is gone and its link is closed. If it only states the address, a heartbeat is
/// sent: a host without the process answers with a reset.
fn replace_predecessor(state: &mut State, now: Now, id: NodeId, addr: SocketAddr, is_verified: bool) {
    let earlier = state.mesh.peers.linked().find(|(_, peer)| peer.addr() == addr && peer.id() != id);
    let Some((earlier, Some(link))) = earlier.map(|(key, peer)| (key, peer.link())) else { return };
    if is_verified {
        let why = b"another node listens on your address";
        link_output::disconnect(state, now, link.conn, why, CloseReason::Duplicate);
        link_down(state, now, earlier, link.conn);
    } else {
        heartbeat::send(state, now, earlier);
    }
}

/// Finds or adds the peer with this id. Removes an unlinked peer that had the same address.
fn find_or_make(state: &mut State, now: Now, id: NodeId, addr: SocketAddr) -> PeerKey {
    if let Some(peer) = state.mesh.peers.by_id(id) {
        return peer;
    }
    let earlier = state.mesh.peers.iter().find(|(_, peer)| peer.addr() == addr && !peer.is_linked());
    if let Some(earlier) = earlier.map(|(key, _)| key) {
        forget(state, now, earlier);
    }
    let peers_max = 2 * state.config.mesh.active_peers as usize;
    if state.mesh.peers.len() >= peers_max {
        let unlinked = state.mesh.peers.iter().filter(|(_, peer)| !peer.is_linked());
        let oldest = unlinked.min_by_key(|(_, peer)| peer.since()).map(|(key, _)| key);
        oldest.into_iter().for_each(|key| forget(state, now, key));
    }
    let filter = state.mesh.filters.join();
    state.mesh.peers.insert(now.mono, id, addr, filter)
}

/// Removes an unlinked peer.
fn forget(state: &mut State, now: Now, key: PeerKey) {
    if let Some(peer) = state.mesh.peers.remove(key) {
        state.mesh.filters.leave(peer.filter());
        if !peer.has_left() {
            state.mesh.absent.add(now.mono, peer.id(), peer.addr());
        }
        collection::update(state, now);
    }
}

/// Handles a lost link: its lookups continue with other peers, and its node is dialled again.
pub(in crate::node) fn link_down(state: &mut State, now: Now, key: PeerKey, conn: ConnKey) {
    let Some(peer) = state.mesh.peers.get(key) else { return };
    if peer.link().is_none_or(|link| link.conn != conn) {
        return;
    }
    let (addr, id, was_stable, has_left) = (peer.addr(), peer.id(), peer.is_stable(), peer.has_left());
    state.mesh.peers.unlink(now.mono, key);
    let cause = match state.mesh.losses.cause() {
        "" => String::new(),
        cause => format!(": {cause}"),
    };
    state.mesh.losses.set_cause(String::new());
    log_change(state, now, format_args!("link to {addr} (node {id}) lost{cause}"));
    if !was_stable {
        state.mesh.address_book.count_failure(now.mono, id);
    }
    sync::link_lost(state, key);
    remote::link_lost(state, key);
    if has_left && let Some(peer) = state.mesh.peers.get_mut(key) {
        // Its keys are gone with it.
        peer.following.node_left(&mut state.mesh.filters);
    }
    state.keyspace.set_peers(state.mesh.peers.linked_count());
    collection::update(state, now);
    heartbeat::rearm(state, key, now.mono.after(REMEMBERED));
    dial_again(state, now, id);
}

/// Closes the link to a peer that has others, to make room for a node without links.
pub(in crate::node) fn give_up(state: &mut State, now: Now, key: PeerKey) {
    let Some(conn) = state.mesh.peers.conn(key) else { return };
    let why = b"a node without a link needs this one";
    link_output::disconnect(state, now, conn, why, CloseReason::Refused);
    link_down(state, now, key, conn);
}

/// Handles the timer of a peer: sends a heartbeat, or removes an unlinked peer.
pub(in crate::node) fn peer_due(state: &mut State, now: Now, key: PeerKey, deadline: u64) {
    let Some(peer) = state.mesh.peers.get_mut(key) else { return };
    if !peer.alarm.fired(deadline) {
        return;
    }
    if !peer.is_linked() {
        return forget(state, now, key);
    }
    if heartbeat::close_if_missed(state, now, key) {
        return;
    }
    if let Some(peer) = state.mesh.peers.get_mut(key)
        && peer.lasted()
    {
        state.mesh.address_book.count_success(peer.id());
    }
    refresh_list(state, now, key);
    sync::heartbeat(state, now, key);
    heartbeat::send(state, now, key);
    heartbeat::arm(state, now, key);
}

/// Sends a peer the list of the other linked nodes, if it has changed or the last one is old.
fn refresh_list(state: &mut State, now: Now, key: PeerKey) {
    let version = state.mesh.peers.version();
    if state.mesh.peers.get(key).is_some_and(|peer| peer.needs_list(now.mono, version)) {
        send_list(state, now, key);
    }
}

fn send_list(state: &mut State, now: Now, key: PeerKey) {
    let version = state.mesh.peers.version();
    let Some(peer) = state.mesh.peers.get_mut(key) else { return };
    peer.list_sent(now.mono, version);
    let is_stable = peer.is_stable();
    let others = state.mesh.peers.linked().filter(|(other, _)| *other != key);
    let list: Vec<Address> =
        others.map(|(_, peer)| Address { id: peer.id().0, addr: peer.addr() }).take(ADDRESSES_MAX).collect();
    // A new link is assumed to have an empty list.
    if !list.is_empty() || is_stable {
        link_output::send_peers(state, now, key, &list);
    }
}

/// Whether an address stated by a node seen at `seen` may be dialled. Without a mesh secret only loopback addresses;
/// with one, a loopback address stated by another host stands for that host.
fn is_acceptable(state: &State, seen: SocketAddr, addr: SocketAddr) -> bool {
    if is_loopback(addr.ip()) { is_loopback(seen.ip()) } else { state.config.mesh_secret.is_some() }
}

/// Handles the list of a peer's linked nodes. Returns the number of examined addresses.
pub(in crate::node) fn list_received(
    state: &mut State,
    now: Now,
    from: PeerKey,
    addresses: Addresses<'_>,
) -> usize {
    let conn = state.mesh.peers.conn(from).and_then(|conn| state.conns.get(conn));
    let Some(seen) = conn.map(|conn| conn.addr()) else { return 0 };
    let listed = addresses.iter().count();
    let taken = listed.min(ADDRESSES_MAX);
    if let Some(peer) = state.mesh.peers.get_mut(from) {
        peer.listed(taken > 0);
    }
    state.stats.addresses_refused += (listed - taken) as u64;
    for Address { id, addr } in addresses.iter().take(taken) {
        let id = NodeId(id);
        if id == state.mesh.id() || state.mesh.peers.is_linked(id) {
            continue;
        }
        let Some((key, is_new)) = learn(state, now, seen, addr) else { continue };
        state.mesh.address_book.listed(now.mono, key);
        // Zeroes mean that the sender does not know the id.
        if is_new && id != NodeId([0; 16]) {
            state.mesh.address_book.set_node(key, id);
        }
    }
    taken
}

/// Adds an address stated by a node seen at `seen`, and dials it if it is new. Returns its entry, if it is
/// acceptable, and whether it is new.
pub(in crate::node) fn learn(
    state: &mut State,
    now: Now,
    seen: SocketAddr,
    addr: SocketAddr,
) -> Option<(AddressKey, bool)> {
    let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    if state.mesh.is_own(addr) || addr.port() == 0 || addr.ip().is_unspecified() {
        return None;
    }
    if !is_acceptable(state, seen, addr) {
        state.stats.addresses_refused += 1;
        return None;
    }
    let (key, is_new) = note(state, now, addr, Origin::Learned, Some(seen.ip()))?;
    if is_new {
        dial_after(state, now, key, Duration::ZERO);
    }
    Some((key, is_new))
}

/// Handles a BYE: the peer ends its link with a reason.
pub(in crate::node) fn bye_received(state: &mut State, now: Now, key: PeerKey, reason: &[u8]) {
    let Some(peer) = state.mesh.peers.get(key) else { return };
    let Some(link) = peer.link() else { return };
    let addr = peer.addr();
    if reason == SAME_ID_REASON && change_id(state, now, addr) {
        return;
    }
    if let Some(peer) = state.mesh.peers.get_mut(key) {
        peer.bye_received(reason == SHUTTING_DOWN);
    }
    let reason = String::from_utf8_lossy(reason);
    log_change(state, now, format_args!("peer {addr} closes its link: {}", reason.escape_debug()));
    link_output::part(state, now, link.conn, CloseReason::PeerLeft);
}

/// Changes the node's id, since another node has it, as copies of a running machine do, and closes all links, which are
/// made again under the new id. `from` is the node that found it. False if the rate limit is reached: any node with the
/// secret can cause a change.
pub(in crate::node) fn change_id(state: &mut State, now: Now, from: SocketAddr) -> bool {
    let before = state.mesh.id();
    if !state.mesh.change_id(now, from) {
        return false;
    }
    let id = state.mesh.id();
    log::warn!("another node has the id {before} of this one, by {from}; this node continues as {id}");
    let keys: Vec<ConnKey> = state.conns.iter().map(|(key, _)| key).collect();
    for key in keys {
        let Some(conn) = state.conns.get_mut(key) else { continue };
        conn.take_offer();
        match *conn.role() {
            Role::Link(peer) => {
                let why = b"this node has drawn another id";
                link_output::disconnect(state, now, key, why, CloseReason::Duplicate);
                link_down(state, now, peer, key);
            }
            Role::OutboundHandshake(_) => close_conn(state, key, CloseReason::Duplicate),
            Role::FormerLink | Role::Client => {}
        }
    }
    true
}

/// Handles links and dials that have ended; returns whether there were any.
pub(in crate::node) fn reconcile_losses(state: &mut State, now: Now) -> bool {
    let mut any = false;
    while let Some((peer, conn)) = state.mesh.losses.next_link() {
        link_down(state, now, peer, conn);
        any = true;
    }
    while let Some((address, conn, reason)) = state.mesh.losses.next_dial() {
        dial_lost(state, now, address, conn, reason);
        any = true;
    }
    any
}

/// Checks at each call whether the node was stopped for longer than its peers wait. If so, closes all links before
/// reading them: their input is outdated, and the senders count it as lost.
#[inline]
pub(in crate::node) fn wake(state: &mut State, now: Now) {
    let called_at = std::mem::replace(&mut state.called_at, now.mono);
    if state.mesh.peers.linked_count() > 0 && now.mono >= called_at.after(state.config.mesh.dead_time()) {
        relink(state, now, now.mono.since(called_at));
    }
}

/// Closes all links.
#[cold]
fn relink(state: &mut State, now: Now, slept: Duration) {
    log::warn!("this node was stopped for {} ms; it links again", slept.as_millis());
    let linked: Vec<ConnKey> =
        state.mesh.peers.linked().filter_map(|(_, peer)| Some(peer.link()?.conn)).collect();
    for conn in linked {
        link_output::disconnect(state, now, conn, b"this node was stopped", CloseReason::PeerSilent);
    }
    reconcile_losses(state, now);
}

/// Closes links with BYE and drops dials, at shutdown when no client is left.
pub(in crate::node) fn leave(state: &mut State, now: Now) {
    let keys: Vec<ConnKey> = state.conns.iter().map(|(key, _)| key).collect();
    for key in keys {
        let Some(conn) = state.conns.get(key) else { continue };
        match *conn.role() {
            Role::OutboundHandshake(_) => close_conn(state, key, CloseReason::Drained),
            Role::Link(_) if conn.phase() == Phase::Open => {
                link_output::disconnect(state, now, key, SHUTTING_DOWN, CloseReason::Drained);
            }
            Role::Link(_) | Role::FormerLink | Role::Client => {}
        }
    }
}
