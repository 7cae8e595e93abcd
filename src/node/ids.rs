//! Typed keys of connections, peers, addresses and requests. A key is an index with a generation: stale keys find
//! nothing.

use crate::base::slots::Key;
use crate::wire::handshake::Hex;
use std::fmt;

/// The tag of keys of connections.
#[derive(Debug)]
pub enum ConnTag {}

/// The key of a connection.
pub type ConnKey = Key<ConnTag>;

/// The tag of keys of peers.
#[derive(Debug)]
pub enum PeerTag {}

/// The key of a peer: another node, from its start to its end.
pub type PeerKey = Key<PeerTag>;

/// The tag of keys of addresses.
#[derive(Debug)]
pub enum AddressTag {}

/// The key of an address of another node.
pub type AddressKey = Key<AddressTag>;

/// The tag of keys of lookups.
#[derive(Debug)]
pub enum LookupTag {}

/// The key of a lookup on other nodes.
pub type LookupKey = Key<LookupTag>;

/// The tag of keys of pending requests.
#[derive(Debug)]
pub enum PendingTag {}

/// The key of a pending request: one that waits for other nodes.
pub type PendingKey = Key<PendingTag>;

/// The id of a node, drawn at random at each start. Displays as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
