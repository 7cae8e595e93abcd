//! The handshake of a link, at both ends. It decides which nodes become peers.
//!
//! The dialler sends an offer. The acceptor answers with its offer and a proof of the mesh secret, then the dialler
//! sends its proof, and the connection is a link. Proofs cover both nonces, ids and addresses, so they cannot be
//! replayed. Without a secret the proofs are empty, and both ends must be on this host. No state is kept of a node
//! with a wrong proof. The lines are those of [`crate::wire::handshake`].

use crate::base::address::is_loopback;
use crate::base::time::Now;
use crate::config::Config;
use crate::node::conn::phase::{CloseReason, Phase};
use crate::node::conn::role::{InboundHandshake, PeerIdentity, Role};
use crate::node::ids::{ConnKey, NodeId};
use crate::node::peer::address_book::AddressEntry;
use crate::node::peer::clock::{self, ClockAhead};
use crate::node::peer::dialer::{self, Room, room};
use crate::node::peer::link;
use crate::node::peer::link_output;
use crate::node::state::{State, close_conn, mark_dirty};
use crate::wire::encoder::{Protocol, put_error};
use crate::wire::field::Printable;
use crate::wire::handshake::{
    Answer, ConnectArgs, HINTS_MAX, HandshakeError, Links, Offer, Proof, Prover, put_counter_offer, put_full,
    put_offer, put_proof, put_welcome, read_answer, read_request,
};
use std::fmt;
use std::net::SocketAddr;

/// The advice for a password without a secret.
const SET_A_SECRET: &str = "to link nodes set [mesh] secret, the same on all of them";

/// The reason for refusing a node as a peer. Displays as a sentence that names what would be right.
#[derive(Debug)]
enum Refusal<'a> {
    Unreadable(HandshakeError<'a>),
    Hash,
    Proof,
    Itself,
    OwnId,
    NotLocal,
    NoSecret,
    NotFirst,
    NoOffer,
    Full(u32),
    Crowded(u32),
    ShuttingDown,
    Clock(ClockAhead),
    OwnClock(u64),
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => error.fmt(f),
            Self::Hash => f.write_str("the hash differs; all nodes of a mesh need the same [mesh] secret"),
            Self::Proof => f.write_str("wrong proof; all nodes of a mesh need the same [mesh] secret"),
            Self::Itself => f.write_str("this node has dialled itself"),
            Self::OwnId => f.write_str("the node id is that of this node; draw another, by a restart"),
            Self::NotLocal => f.write_str(
                "without [mesh] secret only nodes on one host are linked; set the same secret on all nodes",
            ),
            Self::NoSecret => write!(f, "this node has a password and no [mesh] secret; {SET_A_SECRET}"),
            Self::NotFirst => f.write_str("a handshake is the first request on its connection; open another"),
            Self::NoOffer => {
                f.write_str("a proof without an offer; begin with proto, node, listen, nonce and hash")
            }
            Self::Full(limit) => {
                write!(f, "peer limit reached (active_peers = {limit}); dial another node")
            }
            Self::Crowded(limit) => write!(
                f,
                "half of the links of this node are to your address already (active_peers = {limit}); dial another node"
            ),
            Self::ShuttingDown => f.write_str("this node is shutting down"),
            Self::Clock(ahead) => ahead.fmt(f),
            Self::OwnClock(ahead) => write!(
                f,
                "this node's wall clock was set back by {ahead} ms more than its versions allow; it links again when \
                 the clock has caught up, or after a restart"
            ),
        }
    }
}

/// The bytes of the mesh secret.
fn secret(config: &Config) -> Option<&[u8]> {
    config.mesh_secret.as_ref().map(|secret| secret.as_bytes())
}

/// Calls `with` with the offer of this node.
fn with_own_offer<R>(
    state: &State,
    now: Now,
    nonce: [u8; 16],
    links: Links,
    with: impl FnOnce(&Offer<'_>) -> R,
) -> R {
    let mesh = &state.mesh;
    let listen = mesh.advertised().to_string();
    with(&Offer {
        node: mesh.id().0,
        listen: listen.as_bytes(),
        nonce,
        hash: mesh.hash_check(&nonce),
        wall_ms: now.wall_ms(),
        links,
    })
}

/// Handles the first or second request of a handshake.
pub(in crate::node) fn requested(
    state: &mut State,
    now: Now,
    key: ConnKey,
    id: &[u8],
    args: &[u8],
    is_first: bool,
) {
    let outcome = match read_request(args) {
        Err(error) => Err(Refusal::Unreadable(error)),
        Ok(ConnectArgs::Offer(offer)) if is_first => offered(state, now, key, id, &offer),
        Ok(ConnectArgs::Offer(_)) => Err(Refusal::NotFirst),
        Ok(ConnectArgs::Proof(proof)) => proven(state, now, key, id, &proof),
    };
    let Err(refusal) = outcome else { return };
    state.stats.request_error();
    state.stats.handshakes_refused += 1;
    let Some(addr) = state.conns.get(key).map(|conn| conn.addr()) else { return };
    // A configuration shared by all nodes includes the node's own address.
    if matches!(refusal, Refusal::Itself) {
        log::debug!("refused the handshake of {addr}: {refusal}");
    } else if state.log_gate.allows(now, &mut state.stats) {
        log::warn!("refused the handshake of {addr}: {refusal}");
    }
    let hints = if matches!(refusal, Refusal::Full(_)) { Some(hints(state)) } else { None };
    let State { conns, pool, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    conn.reply(pool, |out| match hints {
        Some(hints) => put_full(out, id, hints.into_iter()),
        None => put_error(out, Protocol::Lines, id, refusal),
    });
    conn.take_offer();
    conn.begin_closing(CloseReason::Refused, now.mono, pool);
}

/// Hints for a refused node: addresses of random linked peers.
fn hints(state: &mut State) -> Vec<SocketAddr> {
    let linked: Vec<SocketAddr> = state.mesh.peers.linked().map(|(_, peer)| peer.addr()).collect();
    let first = usize::try_from(state.rng.below(linked.len().max(1) as u64)).unwrap_or_default();
    linked.iter().cycle().skip(first).take(linked.len().min(HINTS_MAX)).copied().collect()
}

/// Answers an offer with the own offer and proof, if the node may become a peer.
fn offered<'a>(
    state: &mut State,
    now: Now,
    key: ConnKey,
    id: &[u8],
    theirs: &Offer<'a>,
) -> Result<(), Refusal<'a>> {
    let Some(seen) = state.conns.get(key).map(|conn| conn.addr()) else { return Ok(()) };
    if theirs.node == state.mesh.id().0 && found_self(state, now, theirs.nonce) {
        return Err(Refusal::Itself);
    }
    check(state, now, theirs)?;
    may_do_without_secret(state, seen)?;
    let Some(addr) = theirs.listen_addr(seen) else { return Ok(()) };
    let nonce = state.mesh.draw();
    let secret = secret(&state.config);
    let mut reply = Vec::new();
    let proof = with_own_offer(state, now, nonce, dialer::links(state), |ours| {
        put_counter_offer(&mut reply, id, ours, &Proof::of(secret, Prover::Acceptor, ours, theirs));
        Proof::of(secret, Prover::Dialler, theirs, ours)
    });
    let State { conns, pool, .. } = state;
    if let Some(conn) = conns.get_mut(key) {
        let theirs = PeerIdentity { id: NodeId(theirs.node), addr, links: theirs.links };
        conn.offered(InboundHandshake { theirs, proof, at: now.mono });
        conn.reply(pool, |out| out.extend_from_slice(&reply));
    }
    Ok(())
}

/// Whether a node may become a peer, if its proof is right.
fn check(state: &State, now: Now, theirs: &Offer<'_>) -> Result<(), Refusal<'static>> {
    if theirs.hash != state.mesh.hash_check(&theirs.nonce) {
        Err(Refusal::Hash)
    } else if state.is_draining {
        Err(Refusal::ShuttingDown)
    } else if let Some(ahead) = clock::is_ahead(now, theirs.wall_ms) {
        Err(Refusal::Clock(ahead))
    } else if state.keyspace.clock_ahead_ms(now) > 0 {
        Err(Refusal::OwnClock(state.keyspace.clock_ahead_ms(now)))
    } else {
        Ok(())
    }
}

/// Checks whether a peer is accepted without a mesh secret: only on this host, and only if this node has no password,
/// since peers read keys without it.
fn may_do_without_secret(state: &State, seen: SocketAddr) -> Result<(), Refusal<'static>> {
    if state.config.mesh_secret.is_some() {
        Ok(())
    } else if !is_loopback(seen.ip()) {
        Err(Refusal::NotLocal)
    } else if state.config.password.is_some() {
        Err(Refusal::NoSecret)
    } else {
        Ok(())
    }
}

/// Ends links and handshakes after a reload if there is a password and no mesh secret, since the peers have proven
/// nothing.
pub(in crate::node) fn end_unproven(state: &mut State, now: Now) {
    if state.config.mesh_secret.is_some() || state.config.password.is_none() {
        return;
    }
    if state.mesh.conns() > 0 {
        log::warn!("closing all links: a password is set now, and no [mesh] secret; {SET_A_SECRET}");
    }
    let keys: Vec<ConnKey> = state.conns.iter().map(|(key, _)| key).collect();
    for key in keys {
        match state.conns.get(key).map(|conn| conn.role()) {
            Some(Role::Link(_)) => {
                let why = b"this node has a password now, and no [mesh] secret";
                link_output::disconnect(state, now, key, why, CloseReason::Refused);
            }
            Some(Role::OutboundHandshake(_)) => close_conn(state, key, CloseReason::Refused),
            Some(Role::Client | Role::FormerLink) | None => {}
        }
    }
}

/// Whether an offer with the own id is from this node itself: it has the nonce of a dialled connection. Otherwise it
/// is from another node with the same id, which draws another after the own proof. An echoed offer on a dialled
/// connection does not prove that the address is this node's.
fn found_self(state: &mut State, now: Now, nonce: [u8; 16]) -> bool {
    let ours = state.mesh.dials.conns().find_map(|dial| {
        let dialling = state.conns.get(dial)?.dialling()?;
        (dialling.nonce == nonce).then_some(dialling.address)
    });
    ours.into_iter().for_each(|address| dialer::found_self(state, now, address));
    ours.is_some()
}

/// Handles the dialler's proof: if it is right, the connection becomes a link.
fn proven(
    state: &mut State,
    now: Now,
    key: ConnKey,
    id: &[u8],
    proof: &Proof,
) -> Result<(), Refusal<'static>> {
    let Some(conn) = state.conns.get_mut(key) else { return Ok(()) };
    // Frames would overtake pending replies.
    if !conn.replies.is_empty() {
        return Err(Refusal::NotFirst);
    }
    let (offered, seen) = (conn.take_offer().ok_or(Refusal::NoOffer)?, conn.addr());
    if !offered.proof.matches(proof) {
        return Err(Refusal::Proof);
    }
    if offered.theirs.id == state.mesh.id() {
        return Err(Refusal::OwnId);
    }
    // Checked again, since configuration and links may have changed since the offer.
    may_do_without_secret(state, seen)?;
    if state.is_draining {
        return Err(Refusal::ShuttingDown);
    }
    if dialer::is_crowded(state, seen, offered.theirs.id) {
        return Err(Refusal::Crowded(state.config.mesh.active_peers));
    }
    if !make_room(state, now, &offered.theirs) {
        return Err(Refusal::Full(state.config.mesh.active_peers));
    }
    let State { conns, pool, .. } = state;
    if let Some(conn) = conns.get_mut(key) {
        conn.reply(pool, |out| put_welcome(out, id));
    }
    link::link_up(state, now, key, offered.theirs, None);
    Ok(())
}

/// Makes room for a link to a node that has proven its identity; false if there is none.
fn make_room(state: &mut State, now: Now, theirs: &PeerIdentity) -> bool {
    match room(state, theirs.id, theirs.links) {
        Room::Free => true,
        Room::InPlaceOf(peer) => {
            link::give_up(state, now, peer);
            true
        }
        Room::None => false,
    }
}

/// Sends the own offer on an established dialled connection.
pub(in crate::node) fn connected(state: &mut State, now: Now, key: ConnKey) {
    let links = dialer::links_of_dial(state);
    let Some(conn) = state.conns.get_mut(key).filter(|conn| conn.phase() == Phase::Connecting) else {
        state.stats.stale_event();
        return;
    };
    let Some(nonce) = conn.connected(now.mono, links) else { return };
    let mut offer = Vec::new();
    with_own_offer(state, now, nonce, links, |ours| put_offer(&mut offer, ours));
    send(state, key, &offer);
}

fn send(state: &mut State, key: ConnKey, bytes: &[u8]) {
    let State { conns, pool, .. } = state;
    if let Some(conn) = conns.get_mut(key) {
        conn.outbound.back(pool).extend_from_slice(bytes);
    }
    mark_dirty(state, key);
}

/// Handles an answer of the dialled node: sends the own proof, or begins the link.
pub(in crate::node) fn replied(state: &mut State, now: Now, key: ConnKey, line: &[u8]) {
    let Some(conn) = state.conns.get(key) else { return };
    let Some(dialling) = conn.dialling() else { return };
    let (addr, address, proven) = (conn.addr(), dialling.address, dialling.theirs);
    let problem = match (read_answer(line), proven) {
        (Err(error), _) => error.to_string(),
        (Ok(Answer::Refused(sentence)), _) => {
            clock::refused(state, now, addr, sentence);
            format!("it refused: {}", Printable(sentence))
        }
        (Ok(Answer::Offer(theirs, proof)), None) => match counter_offered(state, now, key, &theirs, &proof) {
            Ok(()) => return,
            Err(refusal) => refusal.to_string(),
        },
        (Ok(Answer::Welcome), Some(theirs)) if make_room(state, now, &theirs) => {
            return link::link_up(state, now, key, theirs, Some(address));
        }
        (Ok(Answer::Welcome), Some(theirs)) => {
            return dialer::turned_away(state, now, address, key, theirs.id);
        }
        (Ok(Answer::Full(hints)), Some(theirs)) => {
            hints.iter().for_each(|hint| _ = link::learn(state, now, addr, hint));
            return dialer::turned_away(state, now, address, key, theirs.id);
        }
        (Ok(Answer::Offer(..)), Some(_)) | (Ok(Answer::Welcome | Answer::Full(_)), None) => {
            "an answer out of order".to_owned()
        }
    };
    let is_self = state.mesh.address_book.get(address).is_some_and(AddressEntry::is_self);
    if !is_self && state.log_gate.allows(now, &mut state.stats) {
        log::warn!("handshake with {addr} failed: {problem}");
    }
    close_conn(state, key, CloseReason::Refused);
}

/// Handles the offer and proof of the dialled node.
fn counter_offered(
    state: &mut State,
    now: Now,
    key: ConnKey,
    theirs: &Offer<'_>,
    proof: &Proof,
) -> Result<(), Refusal<'static>> {
    check(state, now, theirs)?;
    let Some(conn) = state.conns.get(key) else { return Ok(()) };
    let Some(dialling) = conn.dialling() else { return Ok(()) };
    let (nonce, links, address, seen) = (dialling.nonce, dialling.links, dialling.address, conn.addr());
    let secret = secret(&state.config);
    let mut reply = Vec::new();
    let is_right = with_own_offer(state, now, nonce, links, |ours| {
        put_proof(&mut reply, &Proof::of(secret, Prover::Dialler, ours, theirs));
        Proof::of(secret, Prover::Acceptor, theirs, ours).matches(proof)
    });
    if !is_right {
        return Err(Refusal::Proof);
    }
    may_do_without_secret(state, seen)?;
    let id = NodeId(theirs.node);
    if id == state.mesh.id() {
        return if link::change_id(state, now, seen) { Ok(()) } else { Err(Refusal::OwnId) };
    }
    if dialer::is_dialled_otherwise(state, key, id) {
        dialer::dial_spared(state, now, address, key, id);
        return Ok(());
    }
    if room(state, id, theirs.links) == Room::None {
        dialer::turned_away(state, now, address, key, id);
        return Ok(());
    }
    let Some(addr) = theirs.listen_addr(seen) else { return Ok(()) };
    if let Some(conn) = state.conns.get_mut(key) {
        conn.proven(PeerIdentity { id, addr, links: theirs.links });
    }
    send(state, key, &reply);
    Ok(())
}
