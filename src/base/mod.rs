//! What Olivia stands on and what knows nothing of her: time, typed keys, a timer wheel, byte buffers,
//! random numbers, memory by the block, addresses. Nothing here does I/O, reads a clock, or imports from another floor.

pub mod address;
pub mod arena;
pub mod buffer;
pub mod chunk_queue;
pub mod chunked_vec;
pub mod prefetch;
pub mod rng;
pub mod slots;
pub mod time;
pub mod timer_pages;
pub mod wheel;
