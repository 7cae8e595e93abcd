//! The names by which the parts of a node know each other. Never references: a key outlives a turn, and
//! one that has gone stale finds nothing.

use crate::base::slots::Key;
use crate::wire::handshake::Hex;
use std::fmt;

/// The tag of keys of connections.
#[derive(Debug)]
pub enum ConnTag {}

/// Names a connection.
pub type ConnKey = Key<ConnTag>;

/// The tag of keys of peers.
#[derive(Debug)]
pub enum PeerTag {}

/// Names a peer: one life of another node.
pub type PeerKey = Key<PeerTag>;

/// The tag of keys of contacts.
#[derive(Debug)]
pub enum AddressTag {}

/// Names a contact: an address at which a node may be found.
pub type AddressKey = Key<AddressTag>;

/// The tag of keys of lookups.
#[derive(Debug)]
pub enum LookupTag {}

/// Names a lookup: a key that other nodes are asked for.
pub type LookupKey = Key<LookupTag>;

/// The tag of keys of asks.
#[derive(Debug)]
pub enum PendingTag {}

/// Names an ask: a client's request that waits for lookups.
pub type PendingKey = Key<PendingTag>;

/// The identity of a node, drawn anew in each of its lives. Displays as 32 hex digits.
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
