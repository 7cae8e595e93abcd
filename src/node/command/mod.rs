//! Commands: the table of them, their handlers, and the way from a request to its reply.

mod client;
mod connection;
pub(in crate::node) mod dispatch;
mod error;
mod find;
mod forwarding;
mod info;
mod inspect;
mod keys;
pub(in crate::node) mod login;
mod numbers;
pub(in crate::node) mod prefetch;
pub(in crate::node) mod queued;
mod ranges;
mod read;
mod row;
mod scan;
mod server;
pub(in crate::node) mod settings;
pub(in crate::node) mod slow;
pub(in crate::node) mod status;
mod strings;
mod suggest;
pub(in crate::node) mod table;
pub(in crate::node) mod tasks;
mod time;
mod transaction;
