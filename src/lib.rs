//! Olivia, a distributed in-memory key-value store.

pub mod base;
pub mod config;
pub mod limits;
pub mod node;
pub mod shell;
pub mod store;
pub mod wire;
