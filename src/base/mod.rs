//! What Olivia stands on and what knows nothing of her: time, typed keys, a timer wheel, byte buffers,
//! random numbers, memory by the block, addresses. Nothing here does I/O, reads a clock, or imports from another floor.

pub mod address;
pub mod arena;
pub mod bags;
pub mod buffer;
pub mod cpu;
pub mod rng;
pub mod shelves;
pub mod slots;
pub mod time;
pub mod wheel;
