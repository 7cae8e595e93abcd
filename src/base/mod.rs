//! Data structures that are independent of Olivia: time, typed keys, timer wheel, byte buffers, shared bytes, random
//! numbers, arena, addresses, patterns, histograms, numbers for people.
//!
//! Nothing here does I/O, reads a clock, or imports from another layer.

pub mod address;
pub mod arena;
pub mod buffer;
pub mod chunk_queue;
pub mod chunked_vec;
pub mod glob;
pub mod histogram;
pub mod human;
pub mod kept_bytes;
pub mod key_queue;
pub mod limiter;
pub mod memory;
pub mod prefetch;
pub mod rng;
pub mod shared_bytes;
pub mod slots;
pub mod time;
pub mod timer_pages;
pub mod wheel;
