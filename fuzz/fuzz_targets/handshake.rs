//! libFuzzer's way into the target that `tests/fuzz/handshake.rs` is.
#![no_main]

#[path = "../../tests/fuzz/handshake.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
