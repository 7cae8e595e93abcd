//! How a command is written as a line: the form in the row of each command, used by the parser and its errors.

use memchr::memchr;

/// Bytes of a request's id.
pub const ID_BYTES_MAX: usize = 64;

/// How a command looks in lines.
#[derive(Debug, Clone, Copy)]
pub struct LineForm {
    /// The verb, with the topic of one that has several.
    pub verb: &'static str,
    /// What follows it, as HELP shows it: `key:value`. Empty if that is nothing, or need not be.
    pub arguments: &'static str,
    /// What follows the verb.
    pub syntax: Syntax,
    /// The first word of the reply.
    pub word: &'static str,
    /// A request that works.
    pub example: &'static str,
}

/// What follows a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// Nothing.
    Bare,
    /// Nothing, or fields. Arguments: field, field.
    Words,
    /// One field.
    Field,
    /// One key.
    Key,
    /// Nothing, or anything, which is one argument as it is.
    Raw,
    /// `key,key`. Arguments: key, key.
    Keys,
    /// `key:value,key:value`, split at the first colon. Arguments: key, value, key, value.
    Pairs,
    /// `key:number,key:number`, split at the last colon. Arguments: key, number, key, number.
    Numbers,
    /// `key:value:seconds`, split at the first and at the last colon. Arguments: key, seconds, value.
    Timed,
}

impl Syntax {
    /// Whether each field begins with a key.
    pub const fn has_keys(self) -> bool {
        matches!(self, Self::Key | Self::Keys | Self::Pairs | Self::Numbers | Self::Timed)
    }

    /// Arguments for each field of the line.
    pub const fn step(self) -> usize {
        match self {
            Self::Bare | Self::Words | Self::Field | Self::Key | Self::Raw | Self::Keys => 1,
            Self::Pairs | Self::Numbers => 2,
            Self::Timed => 3,
        }
    }

    /// The first key after a verb, without reading it properly: for prefetching only.
    pub fn likely_key(self, body: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Bare | Self::Words | Self::Field | Self::Key | Self::Raw => None,
            Self::Keys => Some(&body[..memchr(b',', body).unwrap_or(body.len())]),
            Self::Pairs | Self::Timed | Self::Numbers => memchr(b':', body).map(|end| &body[..end]),
        }
    }
}
