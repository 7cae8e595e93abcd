//! Olivia, a distributed in-memory key-value store: one process, one thread, one poll loop.
//!
//! People talk to it with `nc`, one request a line. This page is the map of the source.
//!
//! # Bird's eye
//!
//! ```text
//! main.rs      arguments, files, logger, exit code
//!   shell/     reactor > listener  sockets  signals; files  names  clock          the only code that knows
//!                                                          mio, sockets and real time
//!   ────────── the boundary: bytes, keys and `now` cross it, nothing else ──────────
//!   node/      mod > timers, intake > commands, frames, ahead > admission > peering, report
//!                  > remote, serving, settle, texts, dialling > asks, probing > digests > links > patience
//!                  > state > mesh > lookups, peers, contacts > publish > stats > conns > replies, credit > keys
//!   filter/    bloom  digest > log; receiver > peers > moving, sliced; truth       what nodes tell each other
//!                                                          of their keys, and what comes of that
//!   store/     mod > compact  graves > expiry > index > segment  overflow; heap > outside > pages > sizes;
//!              item  hash
//!   wire/      mod (the protocol) > request > args > mistake; reply  line  filter_text  handshake
//!              frame                                     bytes <-> messages, no state
//!   base/      time  slots  wheel > bags > arena > shelves; buffer  cpu  rng        knows nothing of Olivia
//!              address
//!   config > limits.rs                                     what an operator can say; for every floor
//! ```
//!
//! Floors import downwards only. Bytes arrive in [`shell`], cross the boundary into
//! [`node::Node::received`], are cut into lines and read by [`wire`], carried out on [`store`], and go
//! back as bytes in a connection's outbound buffer, which the shell writes when all that is ready was read.
//!
//! A key that is not here may be on another node. Each node tells the others a Bloom filter of its keys and
//! every change of it ([`filter`]); a request for a key that a filter claims keeps its place among the
//! replies of its connection while that node is asked (`node/remote.rs`), by frames over a link that
//! began as lines like any client's (`node/admission.rs`).
//!
//! # Reading order
//!
//! 1. [`wire`]: the protocol, and with it what all of this is for. The transcripts in `tests/sessions`
//!    show it at work.
//! 2. [`node`]: the contract of the boundary, then the files in the order that it gives.
//! 3. [`store`], then its `index`, `heap` and `compact`, and [`base::wheel`]: where keys live and how they end.
//! 4. [`filter`]: how a node knows whom to ask; then `node/peering.rs`, `digests.rs` and `remote.rs`.
//! 5. `shell/reactor.rs`: how a turn goes.
//!
//! # Invariants, each naming what is deliberately absent
//!
//! - Below the boundary there is **no clock, no socket, no file, no environment, no thread and no unseeded
//!   randomness**: a node is a function of its calls. `tests/house.rs` reads the sources for it.
//! - There is **no second thread** and no lock anywhere.
//! - Nothing that outlives a turn is a reference or a bare index: it is a [`base::slots::Key`], and a stale
//!   one finds nothing.
//! - **A peer's question never causes another**: it is answered from the local store, so there is no
//!   message that travels further than one link.
//! - There is **no way for a connection to end** but `close_conn`, none to change its phase but
//!   `set_phase`, and none to jump the order of its replies.
//! - **No reading ever consults the timer wheel**: whether a key has expired is decided by comparing its
//!   deadline with `now`. The wheel only gives memory back.
//! - **No loop below the boundary is bounded by time**, only by counts; the shell looks at its clock
//!   between calls.
//! - Nothing that came from a socket can reach a **panic, an unchecked index or a cast that cuts**.
//! - There is **no `unsafe`** but in `base/cpu.rs`, which asks for memory ahead of its use.

// Not among the lints of Cargo.toml, since tests and benches may.
#![warn(clippy::unwrap_used, clippy::expect_used)]

pub mod base;
pub mod config;
pub mod filter;
pub mod limits;
pub mod node;
pub mod shell;
pub mod store;
pub mod wire;
