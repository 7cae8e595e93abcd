//! Every limit of a node: what bounds it, in which unit, and why that number.
//!
//! Two kinds. [`Limits`] holds what an operator may set in `[limits]` of `olivia.toml`; the defaults
//! below are the ones documented there. The constants are part of the design: changing one changes
//! what a turn of the loop costs, and the assertions at the end of this file keep them in relation.
//!
//! Not here: the limits of the wire format itself (they stand with the codec that enforces them), and
//! anything derived from a limit.

use serde::{Deserialize, Serialize};

/// Limits that an operator may set. Sizes are in bytes, times in milliseconds, as the names say.
///
/// Reaching one is never fatal: the request or the connection that reached it gets an error that names
/// the limit, it is counted, and nobody else is affected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections of clients at one time; one more is refused with a sentence. 1 to 1,000,000.
    pub clients_max: u32,
    /// Bytes of items and index; a write that would pass it gets an error. 0: no limit.
    pub memory_max: u64,
    /// Bytes that all connections together may hold in buffers; above it the largest is closed.
    pub buffers_max: u64,
    /// Bytes of one line with its arguments, without the line end.
    pub line_bytes_max: u32,
    /// Arguments of one request.
    pub args_max: u32,
    /// Bytes of one key.
    pub key_bytes_max: u32,
    /// Bytes of one value.
    pub value_bytes_max: u32,
    /// Bytes of one reply; a request whose answer would be longer gets an error instead.
    pub reply_bytes_max: u32,
    /// Bytes waiting to be sent to one connection above which its requests are not read on.
    pub outbound_pause_bytes: u32,
    /// Bytes waiting to be sent to one connection that count as a slow reader.
    pub slow_reader_bytes: u32,
    /// For how long a slow reader is borne before it is closed.
    pub slow_reader_ms: u32,
    /// For how long a connection may stay silent inside a request.
    pub request_idle_ms: u32,
    /// For how long a connection from elsewhere than loopback may stay silent before its first byte.
    pub first_byte_ms: u32,
    /// Arguments of one request before authentication.
    pub unauthenticated_args_max: u32,
    /// Bytes of one line before authentication.
    pub unauthenticated_line_bytes_max: u32,
    /// Bytes of replies that a connection may get in all before authentication; then it is closed.
    pub unauthenticated_output_bytes_max: u32,
    /// For how long the end of the node waits for connections to take their last replies.
    pub drain_ms: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients_max: 10_000,
            memory_max: 0,
            buffers_max: 256 * 1024 * 1024,
            line_bytes_max: 64 * 1024,
            args_max: 1_024,
            key_bytes_max: 64 * 1024,
            value_bytes_max: 8 * 1024 * 1024,
            reply_bytes_max: 32 * 1024 * 1024,
            outbound_pause_bytes: 256 * 1024,
            slow_reader_bytes: 8 * 1024 * 1024,
            slow_reader_ms: 10_000,
            request_idle_ms: 60_000,
            first_byte_ms: 10_000,
            unauthenticated_args_max: 10,
            unauthenticated_line_bytes_max: 16 * 1024,
            unauthenticated_output_bytes_max: 64 * 1024,
            drain_ms: 5_000,
        }
    }
}

/// Requests carried out by one call below the boundary: some 50 to 150 µs of work, so that the shell
/// can look at its clock several times in a turn.
pub const REQUESTS_PER_STEP: u32 = 256;

/// Bytes of requests and replies after which a call below the boundary returns, however few requests
/// they were: copying them takes about as long as the requests of a step.
pub const BYTES_PER_STEP: usize = 256 * 1024;

/// Timer entries looked at by one call of `tick`.
pub const TIMERS_PER_STEP: u32 = 256;

/// For how long a closing connection may take to accept what it was told, and to close its own side.
/// Long enough for a retransmission, short enough that leaving clients do not fill the table.
pub const LINGER_MS: u32 = 2_000;

/// Log lines a second about things that a client can cause; what is left out is counted.
pub const CLIENT_LOG_LINES_PER_SECOND: u32 = 10;

/// Files that the process needs beside its clients: standard streams, listener, poll, signals, the
/// spare one, links to peers being dialled.
pub const RESERVED_FILES: u32 = 32;

/// Bytes of a buffer that is kept for the next connection instead of being freed.
pub const POOLED_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Buffers kept for the next connection.
pub const POOLED_BUFFERS_MAX: usize = 64;

const _: () = assert!(REQUESTS_PER_STEP > 0 && TIMERS_PER_STEP > 0);
const _: () = assert!(POOLED_BUFFER_BYTES_MAX <= BYTES_PER_STEP);
