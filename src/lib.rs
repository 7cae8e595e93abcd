//! Olivia, a distributed in-memory key-value store: one process, one thread, one poll loop.
//!
//! People use it with `nc`, one request per line, programs with any Redis client. This page is the map of the source.
//!
//! # Bird's eye
//!
//! <!-- layers: drawn by `make pictures` -->
//! ```text
//! main      arguments, configuration, logger, exit code
//! client    subcommands that talk to a running node, and load it
//!           ask  bench/connection  bench/drive  bench/keys  bench/mod  bench/options  bench/protocol
//!           bench/report  bench/schedule  connection  reply  table  terminal  top
//! shell     the event loop: sockets, signals and real time
//!           clock  fd_limit  listener  lobby  log_output  reactor/input  reactor/new_connections
//!           reactor/output  reactor  resolver  signals  socket
//! batch     reads and writes of many sockets in one system call
//!           ring  batch
//! ──────────── below: no clock, no socket, no thread; the same calls give the same bytes
//! node      sans-IO boundary: bytes, keys and `now` in, bytes and actions out
//!           audit  conn/reader  conn/requests  conn/serving  sources  timers
//! command   requests of clients to replies
//!           client  connection  dispatch  error  find  forwarding  info  inspect  keys  login  numbers
//!           prefetch  queued  ranges  read  row  scan  server  settings  slow  status  strings  suggest
//!           table  tasks  time  transaction  http/drawing  http/history_json  http/metrics_text  http/mod
//!           http/page  http/report  http/status_json
//! peer      discovery, dialling, handshake, links, frames
//!           clock  dialer  frames  handshake  heartbeat  link
//! versions  one value per key: notices of newer versions
//!           collection  discarded  floor  notices  resync  writers
//! lookup    queries to peers, and from peers
//!           broadcast  forward  placement  query  remote  serve
//! digest    own filter and filters of peers, kept equal
//!           sync
//! conn      one connection: order of replies, timeouts, output of links
//!           measure  pending  reconcile  timeouts  peer/link_output
//! state     all that a node has
//!           state
//! records   the tables of a node, and its one write path
//!           alarm  command/dump  command/key_scan  conn/buffered  conn/connection  conn/fragments
//!           conn/in_flight  conn/phase  conn/replies  conn/role  conn/session  conn/traffic  conn/turn
//!           digest/following  digest/own_filter  digest/publishing  history  http/draft  hybrid_clock  ids
//!           keyspace  latency  logins  lookup/answers  lookup/forwarded  lookup/key_reply  lookup/operation
//!           lookup/pending_request  lookup/queries  lookup/table  metrics  peer/absent  peer/address_book
//!           peer/clock_offsets  peer/dials  peer/health  peer/link_queues  peer/losses  peer/mesh
//!           peer/stream  peer/table  schedule  slow_log  tasks  versions/moved  versions/of_peer
//!           versions/tombstones  versions/work
//! filter    Bloom filters and their synchronisation
//!           bit_sliced  bloom  change_ring  changelog  claim_stats  deferred_free  key  peer_filters  rate
//!           receiver  size
//! store     items, index, heap, expiry
//!           audit  compaction  deferred_free  directory  eviction  expiry  hash  heap  index  item
//!           large_objects  memory  overflow  pages  room  scan  segment  segment_metadata  size_classes
//!           slabs
//! wire      the protocol: bytes to messages and back, no state
//!           args  encoder  field  filter_dump  frame/body  frame/kind  frame/lists  frame/write  frame
//!           handshake/proof  handshake  http  line  line_form  lookahead  owned_args  remote_reply
//!           request_error  resp/encode  resp/mod  resp/parse
//! config    what an operator can set
//!           env  explain  file  flags  layers  memory  peers  print  running  schema  units  config
//! base      time, slots, arena, buffers, timer wheel; knows nothing of Olivia
//!           address  arena  buffer  chunk_queue  chunked_vec  glob  histogram  human  kept_bytes  key_queue
//!           limiter  memory  prefetch  rng  shared_bytes  slots  time  timer_pages  wheel
//! limits    sizes and counts that bound everything
//! ```
//! <!-- end of layers -->
//!
//! Layers import downwards only. Bytes arrive in [`shell`], cross the boundary into
//! [`node::Node::received`], are parsed by [`wire`] into a row of the command table and its arguments, and are
//! executed by the row's handler. The reply goes through one encoder into the connection's output, which the
//! shell writes. `docs/architecture.md` follows a GET, a remote GET and a SET from function to function.
//!
//! A key that is not stored here may be stored on another node. Each node publishes a Bloom filter of its keys and
//! every change of the filter ([`filter`]). A request for a key that a peer's filter claims holds a slot among the
//! replies of its connection while that peer is queried (`node/lookup`). Queries and answers are frames on a link,
//! which begins as a connection in lines, as a client's does (`node/peer/handshake.rs`).
//!
//! # Reading order
//!
//! 1. [`wire`]: the protocol. The transcripts in `tests/sessions` show it in use.
//! 2. [`node`]: the contract of the boundary, then the files in the order that it gives.
//! 3. [`store`], then its `index`, `heap` and `eviction`, and [`base::wheel`]: where keys are stored, expire and are
//!    evicted.
//! 4. [`filter`]: how a node finds the peers to query; then `node/digest` and `node/lookup`, and `node/versions`: which
//!    of two values of a key is kept.
//! 5. `shell/reactor.rs`: one iteration of the event loop, with the shares of `node/schedule.rs`.
//! # Invariants
//!
//! - Below the boundary there is **no clock, no socket, no file, no environment, no thread and no unseeded
//!   randomness**: a node is a function of its calls. `tests/architecture` checks the sources for it.
//! - One thread serves everything, **without locks**. The shell starts short-lived helper threads that resolve names
//!   and never access the node.
//! - State kept between iterations holds no reference and no bare index to other state, but a [`base::slots::Key`]. A
//!   lookup by a stale key finds nothing.
//! - **A peer's query never causes another query**: it is answered from the local store.
//! - **Only `node/keyspace.rs` changes the store**, so no change misses the own filter, the changelog or an open
//!   lookup.
//! - A connection is closed **only** by `close_conn`, changes its phase only by `set_phase`, and **no reply
//!   overtakes** another.
//! - **No read consults the timer wheel**: whether a key has expired is decided by comparing its expiry with
//!   `now`. The wheel only frees memory.
//! - **No queue with work in it is missing from `node/sources.rs`**, and no class of work can starve another.
//! - **No loop below the boundary is bounded by time**, only by counts; the shell reads its clock
//!   between calls.
//! - Bytes from a socket can cause **no panic, no unchecked index and no truncating cast**.
//! - **`unsafe`** occurs only in `base/prefetch.rs`, which prefetches memory, in one call in `base/memory.rs`, and in one
//!   in `batch/ring.rs`, which passes buffers to the system.

// Not among the lints of Cargo.toml, since tests and benches may call `unwrap`.
#![warn(clippy::unwrap_used, clippy::expect_used)]

pub mod base;
pub mod batch;
pub mod client;
pub mod config;
pub mod filter;
pub mod limits;
pub mod node;
pub mod shell;
pub mod store;
pub mod wire;
