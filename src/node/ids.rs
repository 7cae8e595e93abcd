//! Typed keys of connections, peers, addresses and requests. A key is an index with a generation: a stale one
//! finds nothing.

use crate::base::slots::Key;
use crate::wire::handshake::Hex;
use std::fmt;

/// The tag of keys of connections.
#[derive(Debug)]
pub enum ConnTag {}

/// A connection.
pub type ConnKey = Key<ConnTag>;

/// The tag of keys of peers.
#[derive(Debug)]
pub enum PeerTag {}

/// A peer: another node between its start and its end.
pub type PeerKey = Key<PeerTag>;

/// The tag of keys of addresses.
#[derive(Debug)]
pub enum AddressTag {}

/// An address at which a node may be reached.
pub type AddressKey = Key<AddressTag>;

/// The tag of keys of lookups.
#[derive(Debug)]
pub enum LookupTag {}

/// A lookup of a key on other nodes.
pub type LookupKey = Key<LookupTag>;

/// The tag of keys of pending requests.
#[derive(Debug)]
pub enum PendingTag {}

/// A request of a client that waits for other nodes.
pub type PendingKey = Key<PendingTag>;

/// The identity of a node, drawn at each start. Displays as 32 hex digits.
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
