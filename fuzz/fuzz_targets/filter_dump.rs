//! libFuzzer's way into the target that `tests/fuzz/filter_dump.rs` is.
#![no_main]

#[path = "../../tests/fuzz/filter_dump.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
