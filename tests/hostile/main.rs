//! Peers with and without the secret that send arbitrary bytes: refusals, their cost and counters, and the service of
//! other clients and peers meanwhile.
//!
//! One node with a virtual clock, and a peer whose bytes the test controls; see `tests/kit/peer.rs`. The limits of the
//! mesh that correct peers reach are in `tests/limits_mesh.rs`, whole meshes in `tests/mesh`.

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
