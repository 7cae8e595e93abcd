//! Bloom filters.

pub mod bloom;
pub mod rate;
pub mod size;
