//! RESP, the protocol of Redis: requests are arrays of bulk strings, replies are typed values.
//!
//! ```text
//! request = "*" count CR LF { "$" bytes CR LF <that many bytes> CR LF }     count times
//! ```
//!
//! A count of zero or less is an empty request and has no reply. Lengths are decimal without leading zeros
//! or a plus sign. Like Redis, the parser finds the end of a length by its CR, and skips the two bytes
//! after a bulk string unread. Inline commands are not supported: a request begins with `*`.
//!
//! A stream that breaks these rules gets one `-ERR Protocol error: ...` and is closed.

pub mod encode;
pub mod parse;
