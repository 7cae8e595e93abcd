//! Consistency checks of counts and references, for simulations and tests only.

use crate::base::buffer::SMALL_MAX;
use crate::node::conn::role::Role;
use crate::node::lookup::answers::Answer;
use crate::node::lookup::pending_request::PendingRequest;
use crate::node::peer::table::Peer;
use crate::node::state::State;

/// Panics if a check fails.
pub(in crate::node) fn audit(state: &State) {
    conns(state);
    lookups(state);
    queries(state);
    versions(state);
    address_book(state);
    assert!(state.dirty.is_empty(), "connections left dirty");
}

fn conns(state: &State) {
    let held: usize = state.conns.iter().map(|(_, conn)| conn.held()).sum();
    let is_left = |request: &&PendingRequest| state.conns.get(request.conn()).is_none();
    let left: usize = state.mesh.pending.iter().filter(is_left).map(|request| request.held().memory).sum();
    assert_eq!(held + left + state.tasks.held(), state.buffered.owned(), "bytes of buffers");
    let in_heap: usize = state.conns.iter().map(|(_, conn)| conn.in_heap).sum();
    assert_eq!(in_heap, state.buffered.in_heap(), "bytes of output in the heap");
    let long = state.conns.iter().filter(|(_, conn)| conn.outbound.len() > SMALL_MAX);
    long.for_each(|(_, conn)| assert_eq!(conn.in_heap, conn.outbound.in_heap(), "output in the heap"));
    let of_nodes = state.conns.iter().filter(|(_, conn)| conn.is_of_mesh()).count();
    assert_eq!(of_nodes, state.mesh.conns(), "connections of the mesh");
    for (key, conn) in state.conns.iter() {
        conn.audit(&state.config.limits, state.runnable.contains(key));
        assert!(
            !conn.awaits_peer || state.mesh.versions.writers.contains(key),
            "connection {} waits for no peer",
            conn.number()
        );
        if let Role::Link(peer) = *conn.role() {
            let link = state.mesh.peers.conn(peer);
            assert!(link == Some(key), "a link whose peer has another link");
        }
    }
    let linked = state.mesh.peers.linked();
    for (_, peer) in linked {
        let conn = peer.link().and_then(|link| state.conns.get(link.conn));
        assert!(conn.is_some_and(|conn| conn.link().is_some()), "a peer whose link was closed");
    }
    assert_eq!(state.mesh.peers.linked().count(), state.mesh.peers.linked_count(), "linked peers");
}

fn lookups(state: &State) {
    let (stats, lookups) = (&state.stats, &state.mesh.lookups);
    let ended = stats.lookup_hits + stats.lookup_misses + stats.lookup_timeouts;
    assert_eq!(stats.lookups, ended + lookups.looking_up() as u64, "lookups");
    assert!(lookups.due_adds_up(), "what is to be done about lookups");
    assert!(lookups.hashes_add_up(), "lookups by hash");
    let (mut waiting, mut whole) = (0, 0);
    let mut of_conns: Vec<(u64, usize)> = Vec::new();
    for request in state.mesh.pending.iter() {
        let parts = request.parts().filter(|(_, answer)| matches!(answer, Answer::Waiting)).count();
        assert_eq!(parts, request.waiting(), "parts that wait");
        whole += usize::from(parts == 0);
        waiting += if request.wants_values() { parts as u64 } else { 0 };
        of_conns.push((request.conn().to_bits(), parts));
    }
    assert_eq!(stats.gets, stats.hits + stats.misses + waiting, "keys requested");
    let long: usize = state.conns.iter().map(|(_, conn)| conn.replies.long().count()).sum();
    assert_eq!(whole, state.mesh.pending.backlog() + long, "complete requests whose reply is not written");
    assert_eq!(lookups.waiters(), of_conns.iter().map(|(_, parts)| parts).sum::<usize>(), "waiters");
    for (key, conn) in state.conns.iter() {
        let mine = of_conns.iter().filter(|(conn, _)| *conn == key.to_bits()).map(|(_, parts)| parts);
        assert_eq!(mine.sum::<usize>(), conn.lookups(), "lookups of a connection");
    }
}

fn queries(state: &State) {
    let (stats, mesh) = (&state.stats, &state.mesh);
    let of_lookups = |peer: &Peer| peer.queries.iter().filter_map(|query| query.lookup).count();
    let in_flight: usize = mesh.peers.iter().map(|(_, peer)| of_lookups(peer)).sum();
    let ended = stats.query_hits + stats.query_misses + stats.queries_lost + stats.queries_abandoned;
    assert_eq!(stats.queries, ended + in_flight as u64, "queries");
    assert_eq!(mesh.lookups.in_flight(), in_flight, "queries of lookups");
    for (_, peer) in mesh.peers.iter() {
        let mut lookups = peer.queries.iter().filter_map(|query| query.lookup);
        assert!(lookups.all(|key| mesh.lookups.get(key).is_some()), "queries of ended lookups");
        assert!(peer.is_linked() || peer.queries.len() == 0, "queries without a link");
    }
    for (_, conn) in state.conns.iter() {
        let Some(queues) = conn.link_queues.as_deref() else { continue };
        for deferred in [&queues.deferred, &queues.deferred_long] {
            assert_eq!(deferred.count_bytes(), deferred.bytes(), "bytes of keys of deferred queries");
        }
    }
}

fn versions(state: &State) {
    assert!(state.keyspace.tombstones().adds_up(), "tombstones");
    let mesh = &state.mesh;
    assert!(!mesh.versions.has_unanswered(), "additions that are not answered");
    for (_, peer) in mesh.peers.iter() {
        assert!(peer.is_linked() || peer.versions.resync().is_none(), "a resync without a link");
    }
}

fn address_book(state: &State) {
    let dialled = state.conns.iter().filter(|(_, conn)| matches!(conn.role(), Role::OutboundHandshake(_)));
    assert_eq!(dialled.count(), state.mesh.dials.len(), "dials");
    for (_, entry) in state.mesh.address_book.iter() {
        let dial = entry.dial().and_then(|conn| state.conns.get(conn));
        assert!(entry.dial().is_none() || dial.is_some(), "a dial whose connection was closed");
        let is_examined = entry.is_armed() || entry.dial().is_some();
        assert!(is_examined || state.is_draining, "{} has neither a timer nor a dial", entry.addr());
    }
}
