//! Own and peers' digests: what is sent of our keys, and what is received of theirs.

pub(in crate::node) mod following;
pub(in crate::node) mod own_filter;
pub(in crate::node) mod publishing;
pub(in crate::node) mod sync;
