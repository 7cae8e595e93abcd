//! Bloom filters: what a node publishes of its keys, and what it knows of the keys of others.
//!
//! ```text
//! size.rs      the layout: blocks, lanes, positions          rate.rs   the rates that it promises
//! bloom.rs     one filter: insert, stretch, fold, rebuild
//! peers.rs     all peers' filters: who claims a key          moving.rs  sliced.rs   how they are kept
//! digest.rs    what is told to peers of the own filter       log.rs   its memory
//! receiver.rs  how a peer's digest is followed
//! truth.rs     whether a peer's filter lies
//! ```
//!
//! Hashes come in, never keys: all members of a mesh hash alike, and the filter shares the top bits of
//! the hash with the store's index. There is no I/O here, no clock and no frame. Never a false negative:
//! while anything is stretched, folded, rebuilt, copied or replaced, what was inserted is found.

mod bit_sliced;
pub mod bloom;
mod change_ring;
pub mod changelog;
pub mod claim_stats;
mod migration;
pub mod peer_filters;
pub mod rate;
pub mod receiver;
pub mod size;

pub use peer_filters::{FilterError, FilterKey, PeerFilters};
