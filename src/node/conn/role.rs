//! The roles of a connection, and the handshakes by which it becomes a link.

use crate::base::time::Instant;
use crate::node::ids::{AddressKey, NodeId, PeerKey};
use crate::wire::handshake::{Links, Proof};
use std::net::SocketAddr;

/// The kind of the other end of a connection.
#[derive(Debug)]
pub(in crate::node) enum Role {
    /// A client; also a node that has not completed its handshake yet.
    Client,
    /// A node that we dialled; the handshake is under way.
    OutboundHandshake(Box<OutboundHandshake>),
    /// A peer: the connection carries frames.
    Link(PeerKey),
    /// A former link that is closing: only its last frames are still sent.
    FormerLink,
}

/// A handshake that we began.
#[derive(Debug)]
pub(in crate::node) struct OutboundHandshake {
    pub(in crate::node) address: AddressKey,
    /// When it was dialled; once connected, when the handshake began.
    pub(in crate::node) at: Instant,
    /// Our nonce, which the proof of the other side has to cover.
    pub(in crate::node) nonce: [u8; 16],
    /// The links that our offer stated.
    pub(in crate::node) links: Links,
    /// The identity of the other side, once it is proven.
    pub(in crate::node) theirs: Option<PeerIdentity>,
}

/// The identity and address that a node sent in its handshake.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct PeerIdentity {
    pub(in crate::node) id: NodeId,
    /// The address at which it listens, as seen from this node.
    pub(in crate::node) addr: SocketAddr,
    /// The links that its offer stated.
    pub(in crate::node) links: Links,
}

/// A handshake that another node began; its proof is still to come.
#[derive(Debug)]
pub(in crate::node) struct InboundHandshake {
    pub(in crate::node) theirs: PeerIdentity,
    /// The expected proof.
    pub(in crate::node) proof: Proof,
    /// When the handshake began.
    pub(in crate::node) at: Instant,
}
