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
//!   node/      mod > timers, intake > commands, settle, ahead > patience > state > stats > conns > replies, keys
//!   filter/    bloom  digest  peers  ...                   what nodes will tell each other of their keys; the
//!                                                          mesh that asks it is being built
//!   store/     mod > compact  expiry  index > segment  overflow; heap > pages  sizes  outside; item  hash
//!   wire/      mod (the protocol) > request > args > mistake; reply  line  filter_text  handshake
//!              frame                                     bytes <-> messages, no state
//!   base/      time  slots  wheel > bags > arena; buffer  rng                       knows nothing of Olivia
//!   config  limits.rs                                      what an operator can say; leaves for every floor
//! ```
//!
//! Floors import downwards only. Bytes arrive in [`shell`], cross the boundary into
//! [`node::Node::received`], are cut into lines and read by [`wire`], carried out on [`store`], and go
//! back as bytes in a connection's outbound buffer, which the shell writes at the end of the turn.
//!
//! # Reading order
//!
//! 1. [`wire`]: the protocol, and with it what all of this is for. The transcripts in `tests/sessions`
//!    show it at work.
//! 2. [`node`]: the contract of the boundary, then the files in the order that it gives.
//! 3. [`store`], then its `index`, `heap` and `compact`, and [`base::wheel`]: where keys live and how they end.
//! 4. `shell/reactor.rs`: how a turn goes.
//!
//! # Invariants, each naming what is deliberately absent
//!
//! - Below the boundary there is **no clock, no socket, no file, no environment, no thread and no unseeded
//!   randomness**: a node is a function of its calls. `tests/house.rs` reads the sources for it.
//! - There is **no second thread** and no lock anywhere.
//! - Nothing that outlives a turn is a reference or a bare index: it is a [`base::slots::Key`], and a stale
//!   one finds nothing.
//! - There is **no way for a connection to end** but `close_conn`, none to change its phase but
//!   `set_phase`, and none to jump the order of its replies.
//! - **No reading ever consults the timer wheel**: whether a key has expired is decided by comparing its
//!   deadline with `now`. The wheel only gives memory back.
//! - **No loop below the boundary is bounded by time**, only by counts; the shell looks at its clock
//!   between calls.
//! - Nothing that came from a socket can reach a **panic, an unchecked index or a cast that cuts**.

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
