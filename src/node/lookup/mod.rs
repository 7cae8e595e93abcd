//! Queries for keys: to peers, and from peers.

pub(in crate::node) mod answers;
pub(in crate::node) mod broadcast;
pub(in crate::node) mod forward;
pub(in crate::node) mod forwarded;
pub(in crate::node) mod key_reply;
pub(in crate::node) mod operation;
pub(in crate::node) mod pending_request;
pub(in crate::node) mod placement;
pub(in crate::node) mod queries;
pub(in crate::node) mod query;
pub(in crate::node) mod remote;
pub(in crate::node) mod serve;
pub(in crate::node) mod table;
