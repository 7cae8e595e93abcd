//! The names by which the parts of a node know each other. Never references: a key outlives a turn, and
//! one that has gone stale finds nothing.

use crate::base::slots::Key;

/// The tag of keys of connections.
#[derive(Debug)]
pub enum ConnTag {}

/// Names a connection.
pub type ConnKey = Key<ConnTag>;
