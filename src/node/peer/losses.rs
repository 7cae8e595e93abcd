//! Links and dials that have ended, until they are reconciled at the end of the entry point.

use crate::node::conn::phase::CloseReason;
use crate::node::ids::{AddressKey, ConnKey, PeerKey};
use std::collections::VecDeque;

/// Lost links and dials, and the cause reported by the shell.
#[derive(Debug, Default)]
pub(in crate::node) struct Losses {
    links: VecDeque<(PeerKey, ConnKey)>,
    dials: VecDeque<(AddressKey, ConnKey, CloseReason)>,
    /// The cause, during the call that reported the loss.
    cause: String,
}

impl Losses {
    pub(super) fn add_link(&mut self, peer: PeerKey, conn: ConnKey) {
        self.links.push_back((peer, conn));
    }

    pub(super) fn add_dial(&mut self, address: AddressKey, conn: ConnKey, reason: CloseReason) {
        self.dials.push_back((address, conn, reason));
    }

    #[inline]
    pub(in crate::node) fn is_empty(&self) -> bool {
        self.links.is_empty() && self.dials.is_empty()
    }

    pub(in crate::node) fn next_link(&mut self) -> Option<(PeerKey, ConnKey)> {
        self.links.pop_front()
    }

    pub(in crate::node) fn next_dial(&mut self) -> Option<(AddressKey, ConnKey, CloseReason)> {
        self.dials.pop_front()
    }

    /// Sets the cause of a lost connection; empty: none.
    pub(in crate::node) fn set_cause(&mut self, cause: String) {
        self.cause = cause;
    }

    pub(in crate::node) fn cause(&self) -> &str {
        &self.cause
    }
}
