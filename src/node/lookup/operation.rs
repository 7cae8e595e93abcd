//! Remote operations: what one node requests of another for a key.
//!
//! Each has a row of policy, and everything that sends, queues, repeats or answers queries works by it.

use crate::wire::frame::Wanted;

/// What the peer is to do with the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::node) enum Operation {
    /// Return what its own store has of it.
    Lookup(Wanted),
    /// Carry out a command, if it holds the key.
    Execute,
    /// Delete the key.
    Delete,
    /// Drop all keys up to a version.
    Floor,
}

/// How an operation may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Policy {
    /// The next peer is queried too when the one before has not answered after `lookup_try_ms`.
    pub(super) is_hedged: bool,
    /// A query whose link broke is sent again; otherwise its outcome is unknown, and it ends.
    pub(super) is_repeatable: bool,
    /// One for several requests.
    pub(super) is_joined: bool,
    /// Its queries go after the changes of the own filter, in the ordered stream of the link.
    pub(super) is_ordered: bool,
}

impl Operation {
    /// The row of an operation.
    pub(in crate::node) const fn policy(self) -> Policy {
        match self {
            Self::Lookup(_) => {
                Policy { is_hedged: true, is_repeatable: true, is_joined: true, is_ordered: false }
            }
            Self::Execute | Self::Delete | Self::Floor => {
                Policy { is_hedged: false, is_repeatable: false, is_joined: false, is_ordered: true }
            }
        }
    }
}
