//! Fuzz target: heads of HTTP. The result is the same however the input is cut, and its fields are parts of the head.

use olivia::wire::http::{HEAD_BYTES_MAX, Parsed, basic_password, is_host_trusted, parse};

/// The input is what a client sends.
pub fn run(data: &[u8]) {
    let whole = parse(data);
    for cut in 0..data.len().min(HEAD_BYTES_MAX) {
        let part = parse(&data[..cut]);
        assert!(
            part == Parsed::Partial || part == whole,
            "{cut} of {data:?} is {part:?}, all of it {whole:?}"
        );
    }
    let Parsed::Request { request, consumed } = whole else { return };
    assert!(consumed <= data.len() && consumed <= HEAD_BYTES_MAX);
    assert!(
        data[..consumed].ends_with(b"\n") && request.path.starts_with(b"/") && !request.path.contains(&b'?')
    );
    if let Some(host) = request.host {
        assert!(!is_host_trusted(host, ["evil"].into_iter()) || !host.is_empty());
    }
    if let Some(password) = request.authorization.and_then(basic_password) {
        assert!(password.len() < consumed);
    }
}
