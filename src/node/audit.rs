//! Checks that counts add up and references match: for simulations and tests, never while serving.

use crate::node::conn::connection::Role;
use crate::node::lookup::table::{Answer, Wanted};
use crate::node::state::State;

/// Panics if a check fails.
pub(in crate::node) fn audit(state: &State) {
    conns(state);
    lookups(state);
    queries(state);
    address_book(state);
    assert!(state.dirty.is_empty(), "connections left dirty");
}

fn conns(state: &State) {
    let held: usize = state.conns.iter().map(|(_, conn)| conn.held()).sum();
    assert_eq!(held, state.buffered, "bytes of buffers");
    let of_nodes = state.conns.iter().filter(|(_, conn)| conn.is_of_mesh()).count();
    assert_eq!(of_nodes, state.mesh.conns, "connections of the mesh");
    for (key, conn) in state.conns.iter() {
        if let Role::Link(peer) = conn.role {
            let link = state.mesh.peers.get(peer).and_then(|peer| peer.link);
            assert!(link.is_some_and(|link| link.conn == key), "a link whose peer has another");
        }
    }
    let linked = state.mesh.peers.linked();
    for (_, peer) in linked {
        let conn = peer.link.and_then(|link| state.conns.get(link.conn));
        assert!(conn.is_some_and(|conn| conn.link().is_some()), "a peer whose link was closed");
    }
    assert_eq!(state.mesh.peers.linked().count(), state.mesh.peers.linked_count(), "linked peers");
}

fn lookups(state: &State) {
    let (stats, lookups) = (&state.stats, &state.mesh.lookups);
    let ended = stats.lookup_hits + stats.lookup_misses + stats.lookup_timeouts;
    assert_eq!(stats.lookups, ended + lookups.slots.len() as u64, "lookups");
    assert!(lookups.due_adds_up(), "what is to be done about lookups");
    let (mut waiting, mut whole) = (0, 0);
    let mut of_conns: Vec<(u64, usize)> = Vec::new();
    for (_, ask) in lookups.pending.iter() {
        let parts = ask.parts.iter().filter(|part| matches!(part.answer, Answer::Waiting)).count();
        assert_eq!(parts, ask.waiting, "parts that wait");
        whole += usize::from(parts == 0);
        waiting += if ask.wanted == Wanted::Value { parts as u64 } else { 0 };
        of_conns.push((ask.conn.to_bits(), parts));
    }
    assert_eq!(stats.gets, stats.hits + stats.misses + waiting, "keys asked for");
    assert_eq!(whole, lookups.whole.len(), "asks that wait for nothing");
    let waiters: usize = lookups.slots.iter().map(|(_, lookup)| lookup.waiters.len()).sum();
    assert_eq!(waiters, of_conns.iter().map(|(_, parts)| parts).sum::<usize>(), "waiters");
    for (key, conn) in state.conns.iter() {
        let mine = of_conns.iter().filter(|(conn, _)| *conn == key.to_bits()).map(|(_, parts)| parts);
        assert_eq!(mine.sum::<usize>(), conn.lookups, "lookups of a connection");
    }
}

fn queries(state: &State) {
    let stats = &state.stats;
    let under_way: usize = state.mesh.peers.iter().map(|(_, peer)| peer.queries.len()).sum();
    let ended = stats.query_hits + stats.query_misses + stats.queries_lost + stats.queries_abandoned;
    assert_eq!(stats.queries, ended + under_way as u64, "questions");
    let asked = state.mesh.lookups.slots.iter().flat_map(|(_, lookup)| &lookup.asked);
    assert_eq!(asked.filter(|asked| asked.request.is_some()).count(), under_way, "questions of lookups");
    for (_, peer) in state.mesh.peers.iter() {
        let of_nobody = peer.queries.values().filter(|q| state.mesh.lookups.slots.get(q.lookup).is_none());
        assert_eq!(of_nobody.count(), 0, "questions of ended lookups");
        assert!(peer.link.is_some() || peer.queries.is_empty(), "questions without a link");
        let owed: usize = peer.owed.iter().map(|owed| owed.key.len()).sum();
        assert_eq!(owed, peer.deferred_bytes, "bytes of keys owed");
    }
}

fn address_book(state: &State) {
    let dialled = state.conns.iter().filter(|(_, conn)| matches!(conn.role, Role::OutboundHandshake(_)));
    assert_eq!(dialled.count(), state.mesh.dials.len(), "dials");
    for (_, contact) in state.mesh.address_book.iter() {
        let dial = contact.dial.and_then(|conn| state.conns.get(conn));
        assert!(contact.dial.is_none() || dial.is_some(), "a dial whose connection was closed");
        let is_looked_at = contact.timer_at.is_some() || contact.dial.is_some();
        assert!(is_looked_at || state.is_draining, "{} has neither a timer nor a dial", contact.addr);
    }
}
