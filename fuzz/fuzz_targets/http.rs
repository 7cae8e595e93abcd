//! libFuzzer's way into the target that `tests/fuzz/http.rs` is.
#![no_main]

#[path = "../../tests/fuzz/http.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
