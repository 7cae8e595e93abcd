//! Requests in RESP.

/// Encodes words as one request.
pub fn request(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words.iter().map(AsRef::as_ref) {
        out.extend([format!("${}\r\n", word.len()).as_bytes(), word, b"\r\n"].concat());
    }
    out
}

/// Encodes words as one request of text.
pub fn resp(words: &[&str]) -> String {
    String::from_utf8(request(words)).unwrap()
}
