//! Olivia, a distributed in-memory key-value store.

pub mod config;
pub mod limits;
