//! Digests: the own filter, sent to peers, and the filters received from them.

pub(in crate::node) mod following;
pub(in crate::node) mod own_filter;
pub(in crate::node) mod publishing;
pub(in crate::node) mod sync;
