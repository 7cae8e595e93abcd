//! Remote operations: what one node requests of another for a key.
//!
//! Each has a row of policy, and everything that sends, queues, repeats or answers queries works by it.

use crate::wire::frame::{Body, Wanted};

/// What the peer is to do with the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::node) enum Operation {
    /// Return what its own store has of it.
    Lookup(Wanted),
}

/// How an operation may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Policy {
    /// The next peer is queried too when the one before has not answered after `lookup_try_ms`.
    pub(in crate::node) is_hedged: bool,
    /// A query whose link broke is sent again; otherwise its outcome is unknown, and it ends.
    pub(in crate::node) is_repeatable: bool,
}

impl Operation {
    /// The row of an operation.
    pub(in crate::node) const fn policy(self) -> Policy {
        match self {
            Self::Lookup(_) => Policy { is_hedged: true, is_repeatable: true },
        }
    }

    /// The frame that requests it.
    pub(in crate::node) const fn query(self, key: &[u8]) -> Body<'_> {
        match self {
            Self::Lookup(wanted) => Body::Get { key, wanted },
        }
    }
}
