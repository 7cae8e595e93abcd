//! What runs next: the classes of work and their shares of an iteration of the event loop.
//!
//! The shell owns the clock. It gives each [`Class`] its share of an iteration, in the order of the classes, and
//! reads sockets and calls [`Node::step`](super::Node::step) until the share is used up or the class has nothing
//! to do; what one class leaves unused is there for the next. So frames of peers are read first, and no class
//! can starve another. Within a class connections take turns, one bounded step each. What there is to do in
//! each class is listed in [`super::sources`].

use crate::node::ids::ConnKey;
use std::collections::VecDeque;
use std::time::Duration;

/// A kind of work with a share of its own, in the order in which an iteration serves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Input of links and of handshakes that we began.
    Links,
    /// Input of clients.
    Clients,
    /// Work that is due: timers, expiry, digests, filters, failover, tasks.
    Due,
}

/// The time within an iteration until which links, then clients, then output may go on. What of it one of them
/// leaves unused passes on to the next.
pub const LINKS_UNTIL: Duration = Duration::from_micros(400);
/// See [`LINKS_UNTIL`].
pub const CLIENTS_UNTIL: Duration = Duration::from_micros(800);
/// See [`LINKS_UNTIL`].
pub const OUTPUT_UNTIL: Duration = Duration::from_micros(1_100);

/// The share of due work in an iteration in which connections had theirs, and in one in which none had any: small,
/// since a request that arrives meanwhile waits for it.
pub const DUE_SHARE_BUSY: Duration = Duration::from_micros(25);
/// See [`DUE_SHARE_BUSY`].
pub const DUE_SHARE_CALM: Duration = Duration::from_micros(50);

/// Connections with input that the node holds and has not processed, each once, by class.
#[derive(Debug, Default)]
pub(in crate::node) struct Runnable {
    links: VecDeque<ConnKey>,
    clients: VecDeque<ConnKey>,
}

impl Runnable {
    /// Appends a connection, which must not be queued already.
    pub(in crate::node) fn push(&mut self, class: Class, key: ConnKey) {
        match class {
            Class::Links => self.links.push_back(key),
            Class::Clients | Class::Due => self.clients.push_back(key),
        }
    }

    /// Whether a connection of this class waits.
    pub(in crate::node) fn has(&self, class: Class) -> bool {
        match class {
            Class::Links => !self.links.is_empty(),
            Class::Clients | Class::Due => !self.clients.is_empty(),
        }
    }

    /// Takes the connection that has waited longest.
    pub(in crate::node) fn pop(&mut self, class: Class) -> Option<ConnKey> {
        match class {
            Class::Links => self.links.pop_front(),
            Class::Clients | Class::Due => self.clients.pop_front(),
        }
    }
}
