//! Commands: the table of them, their handlers, and the way from a request to its reply.

mod connection;
pub(in crate::node) mod dispatch;
mod error;
mod keys;
pub(in crate::node) mod prefetch;
mod read;
mod row;
mod server;
pub(in crate::node) mod status;
mod strings;
pub(in crate::node) mod table;
pub(in crate::node) mod tasks;
