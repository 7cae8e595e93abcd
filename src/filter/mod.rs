//! Bloom filters: the own filter with its changelog, and the filters of peers.
//!
//! ```text
//! size          the layout: blocks, lanes, positions      rate          the false-positive rates to expect
//! bloom         one filter: insert, rebuild, merge        deferred_free freeing large memory in steps
//! changelog     changes of the own filter, for peers      change_ring   its memory
//! receiver      following the changelog of a peer
//! peer_filters  all peers' filters: claimants of a key    bit_sliced    64 of them, searched at once
//! claim_stats   hits, false positives, stale claims       key           the key of a peer's filter
//! ```
//!
//! The input is hashes, not keys: all nodes of a mesh use the same hash function, and the filter uses the same top
//! bits of the hash as the index of the store. No I/O, no clock, no frames. Never a false negative, also while blocks
//! are rebuilt, copied or replaced.

mod bit_sliced;
pub mod bloom;
mod change_ring;
pub mod changelog;
pub mod claim_stats;
pub(crate) mod deferred_free;
mod key;
pub mod peer_filters;
pub mod rate;
pub mod receiver;
pub mod size;

pub use key::FilterKey;
pub use peer_filters::{FilterError, PeerFilters};
