//! The names by which the parts of a node know each other. Never references: a key outlives a turn, and
//! one that has gone stale finds nothing.

use super::conns::Conn;
use crate::base::slots::Key;

/// Names a connection.
pub type ConnKey = Key<Conn>;
