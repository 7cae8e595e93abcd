//! Peers with and without the secret that send anything they like: what is refused, what
//! it costs, what is counted, and that everybody else is answered meanwhile.
//!
//! One node with a virtual clock, everything else decided by the test; see `tests/kit/peer.rs`. The limits of the mesh
//! that honest peers reach are in `tests/limits_mesh.rs`, whole meshes in a simulation of their own.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

#[path = "../kit/mod.rs"]
mod kit;

mod addresses;
mod answers;
mod commands;
mod deltas;
mod ends;
mod frames;
mod handshake;
mod identities;
mod queries;
mod snapshots;
mod storm;
mod versions;
