//! The line form of a command: part of its row in the command table, used by the parser, its errors and HELP.

use memchr::memchr;

/// Bytes of a request's id.
pub const ID_BYTES_MAX: usize = 64;

/// The form of a command in lines.
#[derive(Debug, Clone, Copy)]
pub struct LineForm {
    /// The verb, with the topic of one that has several.
    pub verb: &'static str,
    /// Its arguments as HELP shows them: `key:value`. Empty if there are none, or none are required.
    pub arguments: &'static str,
    /// The syntax of its arguments.
    pub syntax: Syntax,
    /// The first word of the reply.
    pub word: &'static str,
    /// A valid request.
    pub example: &'static str,
}

/// The syntax of the arguments after a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// No arguments.
    Bare,
    /// Any number of fields. Arguments: field, field.
    Words,
    /// One field.
    Field,
    /// One key.
    Key,
    /// The whole rest of the line as one argument, or none if that is empty.
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

    /// Arguments per field of the line.
    pub const fn step(self) -> usize {
        match self {
            Self::Bare | Self::Words | Self::Field | Self::Key | Self::Raw | Self::Keys => 1,
            Self::Pairs | Self::Numbers => 2,
            Self::Timed => 3,
        }
    }

    /// A guess of the first key after a verb, without parsing it: for prefetching only.
    pub fn likely_key(self, body: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Bare | Self::Words | Self::Field | Self::Key | Self::Raw => None,
            Self::Keys => Some(&body[..memchr(b',', body).unwrap_or(body.len())]),
            Self::Pairs | Self::Timed | Self::Numbers => memchr(b':', body).map(|end| &body[..end]),
        }
    }
}
