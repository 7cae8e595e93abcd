//! Olivia, a distributed in-memory key-value store: one process, one thread, one poll loop.
//!
//! People talk to it with `nc`, one request a line. This page is the map of the source.
//!
//! # Bird's eye
//!
//! <!-- layers: drawn by `make pictures` -->
//! ```text
//! main      arguments, configuration, logger, exit code
//! client    subcommands that talk to a running node
//!           ask  connection  reply  table  terminal  top
//! shell     the only code that knows mio, sockets and real time
//!           clock  fd_limit  listener  log_output  reactor  resolver  signals  socket
//! ──────────── below: no clock, no socket, no thread; the same calls give the same bytes
//! node      sans-IO boundary: bytes, keys and `now` in, bytes and actions out
//!           audit  conn/reader  sources  timers
//! command   requests of clients to replies
//!           client  connection  dispatch  error  info  inspect  keys  login  prefetch  read  row  server
//!           settings  status  strings  table  tasks  transaction  http/metrics_text  http/mod  http/page
//!           http/report  http/status_json
//! peer      discovery, dialling, handshake, links, frames
//!           dialer  frames  handshake  heartbeat  link
//! lookup    queries to peers, and from peers
//!           remote  serve
//! digest    own filter and filters of peers, kept equal
//!           sync
//! conn      one connection: order of replies, timeouts, output of links
//!           pending  reconcile  timeouts  peer/link_output
//! state     all that a node has
//!           state
//! records   the tables of a node, and its one write path
//!           alarm  conn/connection  conn/replies  conn/session  digest/own_filter  digest/publishing
//!           hybrid_clock  ids  keyspace  logins  lookup/operation  lookup/queries  lookup/table  metrics
//!           peer/address_book  peer/health  peer/link_queues  peer/mesh  peer/table  schedule  tasks
//! filter    Bloom filters and their synchronisation
//!           bit_sliced  bloom  change_ring  changelog  claim_stats  deferred_free  key  peer_filters  rate
//!           receiver  size
//! store     items, index, heap, expiry
//!           audit  compaction  deferred_free  directory  eviction  expiry  hash  heap  index  item
//!           large_objects  overflow  pages  scan  segment  segment_metadata  size_classes
//! wire      the protocol: bytes to messages and back, no state
//!           args  encoder  field  filter_dump  frame/body  frame/lists  frame/write  frame  handshake/proof
//!           handshake  http  line  line_form  request_error  resp/encode  resp/mod  resp/parse
//! config    what an operator can set
//!           env  explain  file  flags  layers  peers  print  running  schema  units  config
//! base      time, slots, arena, buffers, timer wheel; knows nothing of Olivia
//!           address  arena  buffer  chunk_queue  chunked_vec  glob  prefetch  rng  slots  time  timer_pages
//!           wheel
//! limits    sizes and counts that bound everything
//! ```
//! <!-- end of layers -->
//!
//! Layers import downwards only. Bytes arrive in [`shell`], cross the boundary into
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
//!   randomness**: a node is a function of its calls. `tests/architecture` reads the sources for it.
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
//! - There is **no `unsafe`** but in `base/prefetch.rs`, which asks for memory ahead of its use.

// Not among the lints of Cargo.toml, since tests and benches may.
#![warn(clippy::unwrap_used, clippy::expect_used)]

pub mod base;
pub mod client;
pub mod config;
pub mod filter;
pub mod limits;
pub mod node;
pub mod shell;
pub mod store;
pub mod wire;
