//! The state of a node that the simulator reads beyond its input and output: its links, and the filters of its peers.

use olivia::base::time::Now;
use olivia::node::{FilterState, Node, PeerView};
use std::net::SocketAddr;

/// The peers that a node is linked to.
pub fn links(node: &Node, now: Now) -> impl Iterator<Item = PeerView> {
    node.peers(now).into_iter().filter(|peer| peer.is_linked)
}

/// The version of the value of a key, if the node holds it.
pub fn held_version(node: &Node, now: Now, key: &[u8]) -> Option<u64> {
    node.version_of(now, key).filter(|(_, is_held)| *is_held).map(|(version, _)| version)
}

/// The version of the deletion of a key, as far as the node remembers it, and has no newer value.
pub fn gone_version(node: &Node, now: Now, key: &[u8]) -> Option<u64> {
    node.version_of(now, key).filter(|(_, is_held)| !is_held).map(|(version, _)| version)
}

/// Returns the listen addresses of the linked peers of a node.
pub fn linked(node: &Node, now: Now) -> Vec<SocketAddr> {
    links(node, now).map(|peer| peer.addr).collect()
}

/// The listen addresses of peers whose circuit is not closed.
pub fn silent(node: &Node, now: Now) -> Vec<SocketAddr> {
    links(node, now).filter(|peer| peer.probes_left > 0).map(|peer| peer.addr).collect()
}

/// A node's view of its peers, as text.
pub fn describe(node: &Node, now: Now) -> String {
    let views = links(node, now).map(|view| format!("{view:?}"));
    views.collect::<Vec<_>>().join("; ")
}

/// A linked peer whose filter the node does not know, if there is one.
pub fn unknown_filter(node: &Node, now: Now) -> Option<SocketAddr> {
    links(node, now).find(|peer| peer.filter != FilterState::Known).map(|peer| peer.addr)
}

/// Compares a node's copy of a peer's filter with that filter, block by block; `Ok` if they are not linked.
pub fn compare(node: &Node, peer: &Node, now: Now) -> Result<(), String> {
    let Some(view) = links(node, now).find(|view| view.id == Some(peer.id())) else { return Ok(()) };
    if view.position != Some(peer.own_position()) {
        return Err(format!("it stands at {:?}, not {:?}", view.position, peer.own_position()));
    }
    let filter = peer.own_filter();
    for number in 0..filter.size().blocks() {
        let (known, own) = (node.peer_block(peer.id(), number), filter.block(number).copied());
        if known != own || own.is_none() {
            return Err(format!("block {number} of {} is {known:?}, not {own:?}", filter.size().blocks()));
        }
    }
    Ok(())
}
