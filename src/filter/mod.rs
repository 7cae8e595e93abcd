//! Bloom filters: what a node publishes of its keys, and what it knows of the keys of its peers.
//!
//! ```text
//! size          the layout: blocks, lanes, positions      rate          the false-positive rates to expect
//! bloom         one filter: insert, rebuild, merge        deferred_free freeing large memory in steps
//! changelog     what peers read of the own filter         change_ring   its memory
//! receiver      following the changelog of a peer
//! peer_filters  all peers' filters: claimants of a key    bit_sliced    64 of them laid crosswise
//! claim_stats   claims that were true, false, stale       key           the name of a peer's filter
//! ```
//!
//! The input is hashes, never keys: all nodes of a mesh hash alike, and the filter shares the top bits of
//! the hash with the index of the store. No I/O, no clock, no frames. Never a false negative:
//! while anything is rebuilt, copied or replaced, what was inserted is found.

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
