//! One connection: its bytes in, its replies in order, its timeouts, its end.

pub(in crate::node) mod buffered;
pub(in crate::node) mod connection;
mod fragments;
pub(in crate::node) mod in_flight;
pub(in crate::node) mod measure;
pub(in crate::node) mod pending;
pub(in crate::node) mod phase;
pub(in crate::node) mod reader;
pub(in crate::node) mod reconcile;
pub(in crate::node) mod replies;
mod requests;
pub(in crate::node) mod role;
mod serving;
pub(in crate::node) mod session;
pub(in crate::node) mod timeouts;
mod traffic;
pub(in crate::node) mod turn;
