//! libFuzzer's way into the target that `tests/fuzz/line.rs` is.
#![no_main]

#[path = "../../tests/fuzz/line.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
