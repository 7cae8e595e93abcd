//! How a frame gets to a peer, into the outbound buffer of its link if it has one, and how a link ends.

use crate::base::time::Now;
use crate::node::conn::connection::{CloseReason, Role};
use crate::node::ids::{ConnKey, PeerKey};
use crate::node::state::{State, mark_dirty};
use crate::wire::frame::{Body, put};

/// Hands `write` the place where the next frame for a peer goes, and the clock that it carries. Returns
/// the bytes written: none if the peer is not linked.
pub(in crate::node) fn write(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    write: impl FnOnce(&mut Vec<u8>, u64),
) -> usize {
    let Some(link) = state.mesh.peers.get(peer).and_then(|peer| peer.link) else { return 0 };
    let clock = state.keyspace.clock(now);
    let Some(conn) = state.conns.get_mut(link.conn).filter(|conn| conn.is_serving()) else { return 0 };
    let out = conn.outbound.back(&mut state.pool);
    let before = out.len();
    write(out, clock);
    let written = out.len() - before;
    mark_dirty(state, link.conn);
    written
}

/// Sends one frame to a peer; the bytes it took.
pub(in crate::node) fn send(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    request: u32,
    body: &Body<'_>,
) -> usize {
    write(state, now, peer, |out, clock| put(out, clock, request, body))
}

/// Bytes that wait to be sent to a peer; as many as can be if it is not linked.
pub(in crate::node) fn outbound_bytes(state: &State, peer: PeerKey) -> usize {
    let link = state.mesh.peers.get(peer).and_then(|peer| peer.link);
    link.and_then(|link| state.conns.get(link.conn)).map_or(usize::MAX, |conn| conn.outbound.len())
}

/// Ends a link with a goodbye that says why. The peer is no longer linked from here on, unless it is by
/// another connection.
pub(in crate::node) fn hang_up(
    state: &mut State,
    now: Now,
    conn_key: ConnKey,
    why: &[u8],
    reason: CloseReason,
) {
    let clock = state.keyspace.clock(now);
    let Some(conn) = state.conns.get_mut(conn_key).filter(|conn| conn.link().is_some()) else { return };
    put(conn.outbound.back(&mut state.pool), clock, 0, &Body::Bye(why));
    part(state, now, conn_key, reason);
}

/// Ends a link whose other side has said goodbye, or knows already.
pub(in crate::node) fn part(state: &mut State, now: Now, conn_key: ConnKey, reason: CloseReason) {
    let Some(conn) = state.conns.get_mut(conn_key) else { return };
    let Some(peer) = conn.link() else { return };
    conn.role = Role::Parted;
    state.mesh.conns -= 1;
    if conn.is_serving() {
        conn.begin_closing(reason, now.mono, &mut state.pool);
    }
    state.mesh.lost_links.push_back((peer, conn_key));
    mark_dirty(state, conn_key);
}
