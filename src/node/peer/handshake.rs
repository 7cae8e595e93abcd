//! Who may become a peer: the handshake, from both ends.
//!
//! The node that dials offers itself; the other proves first that it knows the secret of the mesh, then
//! the dialler does, and from then on the connection is a link. Proofs cover both nonces, both identities
//! and both addresses, so none can be used again or elsewhere. Without a secret the proofs are empty, and
//! both ends must be on this machine. Nothing is kept of somebody whose proof is wrong.
//!
//! How it is written is in `wire::handshake`, what a link is for in [`crate::node::peer::link`].

use crate::base::address::is_loopback;
use crate::base::time::Now;
use crate::config::Config;
use crate::node::conn::connection::{CloseReason, Conn, InboundHandshake, PeerIdentity, Phase, Role};
use crate::node::ids::{ConnKey, NodeId};
use crate::node::peer::dialer::{self, has_place, standing, standing_of_dial};
use crate::node::peer::link;
use crate::node::peer::link_output;
use crate::node::state::{State, close_conn, mark_dirty};
use crate::wire::encoder::{Protocol, put_error};
use crate::wire::handshake::{
    Answer, ConnectArgs, HINTS_MAX, HandshakeError, Offer, Proof, Prover, Standing, put_counter_offer,
    put_full, put_offer, put_proof, put_welcome, read_answer, read_request,
};
use std::fmt;
use std::net::SocketAddr;

/// What to do about a password without a secret.
const TO_BE_LINKED: &str = "with a secret, the same on all, nodes are linked";

/// Why somebody does not become a peer. Displays as a sentence that says what would be right.
#[derive(Debug)]
enum Unfit<'a> {
    Unreadable(HandshakeError<'a>),
    Hash,
    Proof,
    Myself,
    NotFromHere,
    NoSecret,
    NotFirst,
    NoOffer,
    Full(u32),
    Ending,
}

impl fmt::Display for Unfit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => error.fmt(f),
            Self::Hash => f.write_str("another hash; the nodes of a mesh need the same [mesh] secret"),
            Self::Proof => f.write_str("wrong proof; the nodes of a mesh need the same [mesh] secret"),
            Self::Myself => f.write_str("this node has dialled itself"),
            Self::NotFromHere => f.write_str(
                "without a [mesh] secret only nodes on one machine are linked; set the same on all",
            ),
            Self::NoSecret => write!(f, "this node has a password and no [mesh] secret; {TO_BE_LINKED}"),
            Self::NotFirst => f.write_str("a handshake is the first request on its connection; open another"),
            Self::NoOffer => {
                f.write_str("a proof without an offer; begin with proto, node, listen, nonce and hash")
            }
            Self::Full(limit) => {
                write!(f, "{limit} peers are linked, the active_peers of this node; try another")
            }
            Self::Ending => f.write_str("this node is shutting down"),
        }
    }
}

/// The bytes of the mesh's secret.
fn secret(config: &Config) -> Option<&[u8]> {
    config.mesh_secret.as_ref().map(|secret| secret.as_bytes())
}

/// Calls `with` with what this node says of itself in a handshake.
fn introduce<R>(state: &State, nonce: [u8; 16], standing: Standing, with: impl FnOnce(&Offer<'_>) -> R) -> R {
    let mesh = &state.mesh;
    let listen = mesh.listen.to_string();
    with(&Offer { node: mesh.id.0, listen: listen.as_bytes(), nonce, hash: mesh.hash_check, standing })
}

/// A client turns out to be a node that wants to link: takes its offer, or its proof.
pub(in crate::node) fn requested(
    state: &mut State,
    now: Now,
    key: ConnKey,
    id: &[u8],
    args: &[u8],
    is_first: bool,
) {
    let outcome = match read_request(args) {
        Err(error) => Err(Unfit::Unreadable(error)),
        Ok(ConnectArgs::Offer(offer)) if is_first => offered(state, now, key, id, &offer),
        Ok(ConnectArgs::Offer(_)) => Err(Unfit::NotFirst),
        Ok(ConnectArgs::Proof(proof)) => proven(state, now, key, id, &proof),
    };
    let Err(unfit) = outcome else { return };
    state.stats.request_errors += 1;
    state.stats.handshakes_refused += 1;
    let Some(addr) = state.conns.get(key).map(|conn| conn.addr) else { return };
    if state.log_gate.allows(now, &mut state.stats) {
        log::warn!("refused {addr} as a peer: {unfit}");
    }
    let hints = if matches!(unfit, Unfit::Full(_)) { Some(hints(state)) } else { None };
    let State { conns, pool, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    conn.replies.next(&mut conn.outbound, pool, |out| match hints {
        Some(hints) => put_full(out, id, hints.into_iter()),
        None => put_error(out, Protocol::Lines, id, unfit),
    });
    conn.offered = None;
    conn.begin_closing(CloseReason::Refused, now.mono, pool);
}

/// Others that may have a place for somebody who is turned away: some of those that are linked, by chance.
fn hints(state: &mut State) -> Vec<SocketAddr> {
    let linked: Vec<SocketAddr> = state.mesh.peers.linked().map(|(_, peer)| peer.addr).collect();
    let first = usize::try_from(state.rng.below(linked.len().max(1) as u64)).unwrap_or_default();
    linked.iter().cycle().skip(first).take(linked.len().min(HINTS_MAX)).copied().collect()
}

/// A node offers itself: answers with an offer and a proof of our own, if it may become a peer.
fn offered<'a>(
    state: &mut State,
    now: Now,
    key: ConnKey,
    id: &[u8],
    theirs: &Offer<'a>,
) -> Result<(), Unfit<'a>> {
    let Some(seen) = state.conns.get(key).map(|conn| conn.addr) else { return Ok(()) };
    if theirs.node == state.mesh.id.0 {
        met_self(state, now, theirs.nonce);
    }
    check(state, theirs)?;
    may_do_without_secret(state, seen)?;
    let Some(addr) = theirs.listen_addr(seen) else { return Ok(()) };
    let nonce = state.mesh.draw();
    let secret = secret(&state.config);
    let mut reply = Vec::new();
    let proof = introduce(state, nonce, standing(state), |ours| {
        put_counter_offer(&mut reply, id, ours, &Proof::of(secret, Prover::Acceptor, ours, theirs));
        Proof::of(secret, Prover::Dialler, theirs, ours)
    });
    let State { conns, pool, .. } = state;
    if let Some(conn) = conns.get_mut(key) {
        let theirs = PeerIdentity { id: NodeId(theirs.node), addr, standing: theirs.standing };
        conn.offered = Some(Box::new(InboundHandshake { theirs, proof, at: now.mono }));
        conn.replies.next(&mut conn.outbound, pool, |out| out.extend_from_slice(&reply));
    }
    Ok(())
}

/// Whether a node that has said who it is may become a peer, if its proof is right.
fn check(state: &State, theirs: &Offer<'_>) -> Result<(), Unfit<'static>> {
    if theirs.node == state.mesh.id.0 {
        Err(Unfit::Myself)
    } else if theirs.hash != state.mesh.hash_check {
        Err(Unfit::Hash)
    } else if state.is_draining {
        Err(Unfit::Ending)
    } else {
        Ok(())
    }
}

/// Without a secret a peer proves nothing. That will do between nodes of one machine, unless this one has a
/// password: whoever links reads its keys without.
fn may_do_without_secret(state: &State, seen: SocketAddr) -> Result<(), Unfit<'static>> {
    if state.config.mesh_secret.is_some() {
        Ok(())
    } else if !is_loopback(seen.ip()) {
        Err(Unfit::NotFromHere)
    } else if state.config.password.is_some() {
        Err(Unfit::NoSecret)
    } else {
        Ok(())
    }
}

/// The rules have changed while nodes were linked. If these could not be linked any more, because nothing was proven and
/// there is a password now, their links end, and introductions with them.
pub(in crate::node) fn end_unproven(state: &mut State, now: Now) {
    if state.config.mesh_secret.is_some() || state.config.password.is_none() {
        return;
    }
    if state.mesh.conns > 0 {
        log::warn!("links to other nodes end: there is a password now, and no [mesh] secret; {TO_BE_LINKED}");
    }
    let keys: Vec<ConnKey> = state.conns.iter().map(|(key, _)| key).collect();
    for key in keys {
        match state.conns.get(key).map(|conn| &conn.role) {
            Some(Role::Link(_)) => {
                let why = b"this node has a password now, and no [mesh] secret";
                link_output::hang_up(state, now, key, why, CloseReason::Refused);
            }
            Some(Role::OutboundHandshake(_)) => close_conn(state, key, CloseReason::Refused),
            Some(Role::Client | Role::Parted) | None => {}
        }
    }
}

/// Somebody has come in with our own identity: we have dialled ourselves, on the connection with this nonce.
/// Who was dialled and answers with our own line is a mirror, and no proof that nobody else will be there.
fn met_self(state: &mut State, now: Now, nonce: [u8; 16]) {
    let dials = state.mesh.dials.iter().filter_map(|(_, dial)| state.conns.get(*dial));
    let ours = dials.into_iter().find_map(|conn| match &conn.role {
        Role::OutboundHandshake(dialling) if dialling.nonce == nonce => Some(dialling.contact),
        Role::Client | Role::OutboundHandshake(_) | Role::Link(_) | Role::Parted => None,
    });
    ours.into_iter().for_each(|contact| dialer::met_self(state, now, contact));
}

/// The dialler proves that it knows the secret: it is welcome, and the connection is a link.
fn proven(state: &mut State, now: Now, key: ConnKey, id: &[u8], proof: &Proof) -> Result<(), Unfit<'static>> {
    let Some(conn) = state.conns.get_mut(key) else { return Ok(()) };
    // Frames would overtake replies that wait behind a lookup.
    if !conn.replies.is_empty() {
        return Err(Unfit::NotFirst);
    }
    let (offered, seen) = (conn.offered.take().ok_or(Unfit::NoOffer)?, conn.addr);
    if !offered.proof.matches(proof) {
        return Err(Unfit::Proof);
    }
    // Since the offer came the rules may have changed, and others may have been quicker.
    may_do_without_secret(state, seen)?;
    if state.is_draining {
        return Err(Unfit::Ending);
    }
    if !has_place(state, offered.theirs.id, offered.theirs.standing) {
        return Err(Unfit::Full(state.config.mesh.active_peers));
    }
    let State { conns, pool, .. } = state;
    if let Some(conn) = conns.get_mut(key) {
        conn.replies.next(&mut conn.outbound, pool, |out| put_welcome(out, id));
    }
    link::link_up(state, now, key, offered.theirs, None);
    Ok(())
}

/// A connection that we dialled is there: offers ourselves.
pub(in crate::node) fn connected(state: &mut State, now: Now, key: ConnKey) {
    let Some(conn) = state.conns.get_mut(key).filter(|conn| conn.phase() == Phase::Connecting) else {
        state.stats.stale_events += 1;
        return;
    };
    conn.set_phase(Phase::Open);
    conn.last_active = now.mono;
    let said = standing_of_dial(state);
    let Some(Conn { role: Role::OutboundHandshake(dialling), .. }) = state.conns.get_mut(key) else { return };
    dialling.at = now.mono;
    dialling.standing = said;
    let nonce = dialling.nonce;
    let mut offer = Vec::new();
    introduce(state, nonce, said, |ours| put_offer(&mut offer, ours));
    say(state, key, &offer);
}

fn say(state: &mut State, key: ConnKey, bytes: &[u8]) {
    let State { conns, pool, .. } = state;
    if let Some(conn) = conns.get_mut(key) {
        conn.outbound.back(pool).extend_from_slice(bytes);
    }
    mark_dirty(state, key);
}

/// The node that we dialled has answered: proves ourselves, or begins the link.
pub(in crate::node) fn replied(state: &mut State, now: Now, key: ConnKey, line: &[u8]) {
    let Some(Conn { role: Role::OutboundHandshake(dialling), addr, .. }) = state.conns.get(key) else {
        return;
    };
    let (addr, contact, introduced) = (*addr, dialling.contact, dialling.theirs);
    let problem = match (read_answer(line), introduced) {
        (Err(error), _) => error.to_string(),
        (Ok(Answer::Refused(sentence)), _) => String::from_utf8_lossy(sentence).escape_debug().to_string(),
        (Ok(Answer::Offer(theirs, proof)), None) => match counter_offered(state, now, key, &theirs, &proof) {
            Ok(()) => return,
            Err(unfit) => unfit.to_string(),
        },
        (Ok(Answer::Welcome), Some(theirs)) if has_place(state, theirs.id, theirs.standing) => {
            return link::link_up(state, now, key, theirs, Some(contact));
        }
        (Ok(Answer::Welcome), Some(theirs)) => {
            return dialer::turned_away(state, now, contact, key, theirs.id);
        }
        (Ok(Answer::Full(hints)), Some(theirs)) => {
            hints.iter().for_each(|hint| _ = link::told(state, now, addr, hint));
            return dialer::turned_away(state, now, contact, key, theirs.id);
        }
        (Ok(Answer::Offer(..)), Some(_)) | (Ok(Answer::Welcome | Answer::Full(_)), None) => {
            "an answer out of turn".to_owned()
        }
    };
    let is_self = state.mesh.address_book.get(contact).is_some_and(|contact| contact.is_self);
    if !is_self && state.log_gate.allows(now, &mut state.stats) {
        log::warn!("no link to {addr}: {problem}");
    }
    close_conn(state, key, CloseReason::Refused);
}

/// The node that we dialled says who it is, and proves it.
fn counter_offered(
    state: &mut State,
    now: Now,
    key: ConnKey,
    theirs: &Offer<'_>,
    proof: &Proof,
) -> Result<(), Unfit<'static>> {
    check(state, theirs)?;
    let Some(Conn { role: Role::OutboundHandshake(dialling), addr: seen, .. }) = state.conns.get(key) else {
        return Ok(());
    };
    let (nonce, said, contact, seen) = (dialling.nonce, dialling.standing, dialling.contact, *seen);
    let secret = secret(&state.config);
    let mut reply = Vec::new();
    let is_right = introduce(state, nonce, said, |ours| {
        put_proof(&mut reply, &Proof::of(secret, Prover::Dialler, ours, theirs));
        Proof::of(secret, Prover::Acceptor, theirs, ours).matches(proof)
    });
    if !is_right {
        return Err(Unfit::Proof);
    }
    may_do_without_secret(state, seen)?;
    let id = NodeId(theirs.node);
    if dialer::is_dialled_otherwise(state, key, id) {
        dialer::dial_spared(state, now, contact, key, id);
        return Ok(());
    }
    if !has_place(state, id, theirs.standing) {
        dialer::turned_away(state, now, contact, key, id);
        return Ok(());
    }
    let Some(addr) = theirs.listen_addr(seen) else { return Ok(()) };
    if let Some(Conn { role: Role::OutboundHandshake(dialling), .. }) = state.conns.get_mut(key) {
        dialling.theirs = Some(PeerIdentity { id, addr, standing: theirs.standing });
    }
    say(state, key, &reply);
    Ok(())
}
