//! libFuzzer's way into the target that `tests/fuzz/request.rs` is.
#![no_main]

#[path = "../../tests/fuzz/request.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
