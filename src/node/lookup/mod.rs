//! Queries for keys: to peers, and from peers.

pub(in crate::node) mod operation;
pub(in crate::node) mod queries;
pub(in crate::node) mod remote;
pub(in crate::node) mod serve;
pub(in crate::node) mod table;
