//! The payload of an EXECUTED: the results of requests that another node has carried out.
//!
//! ```text
//! keys (u32), then per key of the requests except the first: hash (u64), version (u64), 1 if the key does not exist (u8)
//! then per request: 1 if it is an error (u8), bytes (u32), the bytes of the reply in the client's protocol; without any
//! request: nothing was done, since the sender holds only some of the keys
//! ```
//!
//! Integers are little-endian. Everything is checked when it is read, so that iterating cannot fail.

use super::frame::KeyState;

/// Bytes of a key: hash, version, state.
const KEY_BYTES: usize = 17;

/// Bytes of a result beside its own.
pub const RESULT_HEAD_BYTES: usize = 5;

/// The version of a key after the requests were carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyVersion {
    /// Its hash.
    pub hash: u64,
    /// The version of its value or deletion; 0: none.
    pub version: u64,
    /// Whether it is that of a value or a deletion.
    pub state: KeyState,
}

/// The result of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestResult<'a> {
    /// The bytes are those of an error.
    pub is_error: bool,
    /// The values of the reply, without its framing, in the protocol of the client.
    pub bytes: &'a [u8],
}

/// The results of requests, a view of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteReply<'a> {
    keys: &'a [[u8; KEY_BYTES]],
    results: &'a [u8],
}

impl<'a> RemoteReply<'a> {
    /// Reads and checks a payload; `None`: it is invalid. O(results).
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let keys = number(&mut rest)?.checked_mul(KEY_BYTES)?;
        let (keys, results) = rest.split_at_checked(keys)?;
        let mut at = results;
        while !at.is_empty() {
            next_result(&mut at)?;
        }
        Some(Self { keys: keys.as_chunks().0, results })
    }

    /// The keys except the first, which is in the frame.
    pub fn keys(&self) -> impl Iterator<Item = KeyVersion> + use<'a> {
        self.keys.iter().map(|key| {
            let [h0, h1, h2, h3, h4, h5, h6, h7, version @ .., gone] = *key;
            KeyVersion {
                hash: u64::from_le_bytes([h0, h1, h2, h3, h4, h5, h6, h7]),
                version: u64::from_le_bytes(version),
                state: if gone == 0 { KeyState::Held } else { KeyState::Gone },
            }
        })
    }

    /// The results in the order of the requests.
    pub fn results(&self) -> impl Iterator<Item = RequestResult<'a>> + use<'a> {
        let mut at = self.results;
        std::iter::from_fn(move || next_result(&mut at))
    }
}

/// Begins a payload with the keys except the first; results follow.
pub fn put_keys(out: &mut Vec<u8>, keys: &[KeyVersion]) {
    put_number(out, keys.len());
    for key in keys {
        out.extend_from_slice(&key.hash.to_le_bytes());
        out.extend_from_slice(&key.version.to_le_bytes());
        out.push(u8::from(key.state == KeyState::Gone));
    }
}

/// Appends one result.
pub fn put_result(out: &mut Vec<u8>, result: RequestResult<'_>) {
    put_result_head(out, result.is_error, result.bytes.len());
    out.extend_from_slice(result.bytes);
}

/// Begins a result of this many bytes, which follow.
pub fn put_result_head(out: &mut Vec<u8>, is_error: bool, bytes: usize) {
    out.push(u8::from(is_error));
    put_number(out, bytes);
}

fn next_result<'a>(at: &mut &'a [u8]) -> Option<RequestResult<'a>> {
    let (&is_error, rest) = at.split_first()?;
    *at = rest;
    let len = number(at)?;
    let (bytes, rest) = at.split_at_checked(len)?;
    *at = rest;
    Some(RequestResult { is_error: is_error != 0, bytes })
}

fn number(at: &mut &[u8]) -> Option<usize> {
    let (bytes, rest) = at.split_first_chunk::<4>()?;
    *at = rest;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

fn put_number(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::{KeyVersion, RemoteReply, RequestResult, put_keys, put_result};
    use crate::wire::frame::KeyState;

    #[test]
    fn reply_reads_back_and_is_valid_if_cut_between_results_only() {
        let keys = [(1, 2, KeyState::Held), (u64::MAX, 0, KeyState::Gone)]
            .map(|(hash, version, state)| KeyVersion { hash, version, state });
        let results = [(false, &b":1\r\n"[..]), (true, b"-ERR no\r\n"), (false, b"")]
            .map(|(is_error, bytes)| RequestResult { is_error, bytes });
        let mut bytes = Vec::new();
        put_keys(&mut bytes, &keys);
        results.iter().for_each(|result| put_result(&mut bytes, *result));
        let read = RemoteReply::read(&bytes).unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), keys);
        assert_eq!(read.results().collect::<Vec<_>>(), results);
        let whole = (0..bytes.len()).filter(|&cut| RemoteReply::read(&bytes[..cut]).is_some());
        assert_eq!(whole.collect::<Vec<_>>(), [38, 47, 61]);
        assert_eq!(RemoteReply::read(&[0xFF; 40]), None);
    }
}
