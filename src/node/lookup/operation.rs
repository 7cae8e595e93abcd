//! Remote operations: the kinds of queries between nodes.
//!
//! Each has a row of policy, which determines how its queries are sent, queued, repeated and answered.

use crate::wire::frame::Wanted;

/// The operation of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::node) enum Operation {
    /// Return the key from the local store.
    Lookup(Wanted),
    /// Carry out a command if the node holds the key.
    Execute,
    /// Delete the key.
    Delete,
    /// Drop all keys up to a version.
    Floor,
}

/// The policy of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Policy {
    /// The next peer is queried too if the previous one has not answered after `lookup_try_ms`.
    pub(super) is_hedged: bool,
    /// A query whose link broke is sent again; otherwise the operation ends with an unknown outcome.
    pub(super) is_repeatable: bool,
    /// Several requests can share one.
    pub(super) is_joined: bool,
    /// Its queries are sent in the ordered stream of the link, after the changes of the own filter.
    pub(super) is_ordered: bool,
}

impl Operation {
    /// The policy of an operation.
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
