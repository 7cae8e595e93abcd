//! Commands: one handler per command, and what they share.

pub(in crate::node) mod dispatch;
pub(in crate::node) mod prefetch;
pub(in crate::node) mod status;
