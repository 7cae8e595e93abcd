//! The error of a request that is not carried out: a sentence in lines, Redis's text in RESP.

use crate::store::Full;
use crate::wire::args::Args;
use crate::wire::encoder::{Encoder, ReplyTooLong};
use crate::wire::field::Excerpt;
use crate::wire::request_error::RequestError;
use std::fmt;

/// The longest TTL in seconds, about 31 years.
pub(in crate::node) const SECONDS_MAX: u64 = 1_000_000_000;

/// Redis's error for an argument that is not an integer of 64 bits.
pub(in crate::node) const NO_INTEGER: &str = "value is not an integer or out of range";

/// The most bytes of arguments that Redis's error for an unknown command shows.
const SHOWN_ARGS_BYTES_MAX: usize = 128;

/// The error of a request that is not carried out. Displays as the sentence in lines. Names of commands are in upper
/// case.
#[derive(Debug)]
pub enum CommandError<'a> {
    /// The line cannot be parsed.
    Request(RequestError<'a>),
    /// An id without a verb.
    NoVerb,
    /// An unknown command in RESP: its name and arguments.
    Unknown(&'a [u8], Args<'a>),
    /// An unknown verb, and a suggestion.
    UnknownVerb(&'a [u8], String),
    /// An unknown topic: the command, a list of its topics, the unknown one.
    UnknownTopic(&'static str, String, &'a [u8]),
    /// A wrong number of arguments of this command, in RESP.
    WrongArity(&'static str),
    /// Too many arguments of a topic with optional arguments, in RESP: Redis's text differs.
    TopicArity(&'static str),
    /// A command, and an argument that it does not take.
    Syntax(&'static str, &'a [u8]),
    /// A command, and a text that is not a valid time.
    BadSeconds(&'static str, &'a [u8], BadSeconds),
    /// This sentence, in all protocols.
    Plain(&'static str),
    /// This sentence, in all protocols, with a part of the request.
    Sentence(String),
    /// An unknown option of EXPIRE.
    UnknownOption(&'a [u8]),
    /// A command, and a key whose value is not an integer of 64 bits.
    NoNumber(&'static str, &'a [u8]),
    /// A command, and a key whose value would leave the range of 64 bits.
    Overflow(&'static str, &'a [u8]),
    /// A key longer than this many bytes, in RESP.
    KeyTooLong(u32),
    /// A value would be longer than this many bytes.
    ValueTooLong(u32),
    /// There is no memory for the request.
    Full(Full),
    /// The reply would be over its limit.
    ReplyTooLong(ReplyTooLong),
    /// A password is set and was not given.
    Unauthenticated,
    /// The same for HELLO, which has its own text.
    HelloUnauthenticated,
    /// EXEC after a request that was refused.
    TransactionAborted,
    /// The password is wrong.
    WrongPassword,
    /// Too many wrong passwords from this address range: none is checked for this many seconds.
    TooManyFailures(u64),
    /// A password was given and none is set.
    NoPasswordSet,
    /// `HELLO` with another version than 2 or 3.
    UnknownProtocol,
    /// This many keys are being looked up on other nodes, the limit.
    TooManyLookups(u32),
}

/// The error in a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadSeconds {
    NoNumber,
    Zero,
    Negative,
    Fraction,
    TooMany,
}

impl From<Full> for CommandError<'_> {
    fn from(full: Full) -> Self {
        Self::Full(full)
    }
}

impl<'a> From<RequestError<'a>> for CommandError<'a> {
    fn from(error: RequestError<'a>) -> Self {
        Self::Request(error)
    }
}

impl CommandError<'_> {
    /// Replaces the reply by the error.
    pub(in crate::node) fn write(&self, reply: &mut Encoder) {
        if reply.is_line() {
            return reply.error("ERR", self);
        }
        match self {
            Self::UnknownTopic(command, _, topic) => reply
                .error("ERR", format_args!("unknown subcommand '{}'. Try {} HELP.", Excerpt(topic), command)),
            Self::WrongArity("EXEC") => reply
                .error("EXECABORT", format_args!("Transaction discarded because of: {}", self.arity("EXEC"))),
            Self::WrongArity(command) => reply.error("ERR", self.arity(command)),
            Self::TopicArity(command) => {
                let (command, topic) = command.split_once(' ').unwrap_or((command, ""));
                reply.error(
                    "ERR",
                    format_args!(
                        "unknown subcommand or wrong number of arguments for '{topic}'. Try {command} HELP."
                    ),
                );
            }
            Self::Syntax(..) => reply.error("ERR", "syntax error"),
            Self::BadSeconds(_, _, BadSeconds::NoNumber | BadSeconds::Fraction) => {
                reply.error("ERR", NO_INTEGER);
            }
            Self::BadSeconds(command, ..) => {
                let name = command.to_ascii_lowercase();
                reply.error("ERR", format_args!("invalid expire time in '{name}' command"));
            }
            Self::NoNumber(..) => reply.error("ERR", NO_INTEGER),
            Self::Overflow(..) => reply.error("ERR", "increment or decrement would overflow"),
            Self::ValueTooLong(_) => {
                reply.error("ERR", "string exceeds maximum allowed size (proto-max-bulk-len)");
            }
            Self::Full(Full::TooLarge { .. }) => reply.error("OOM", self),
            Self::Full(Full::Limit { .. } | Full::Space | Full::System) => {
                reply.error("OOM", "command not allowed when used memory > 'maxmemory'.")
            }
            Self::Unauthenticated => reply.error("NOAUTH", "Authentication required."),
            Self::HelloUnauthenticated => reply.error("NOAUTH", self),
            Self::WrongPassword => {
                reply.error("WRONGPASS", "invalid username-password pair or user is disabled.");
            }
            Self::TransactionAborted => reply.error("EXECABORT", self),
            Self::NoPasswordSet => reply.error(
                "ERR",
                "AUTH <password> called without any password configured for the default user. Are you sure \
                 your configuration is correct?",
            ),
            Self::UnknownProtocol => reply.error("NOPROTO", "unsupported protocol version"),
            Self::Request(_)
            | Self::NoVerb
            | Self::Plain(_)
            | Self::Sentence(_)
            | Self::TooManyFailures(_)
            | Self::Unknown(..)
            | Self::UnknownVerb(..)
            | Self::UnknownOption(_)
            | Self::KeyTooLong(_)
            | Self::ReplyTooLong(_)
            | Self::TooManyLookups(_) => reply.error("ERR", self),
        }
    }

    fn arity(&self, command: &str) -> String {
        // Redis separates the words of a name by `|`.
        let name = command.to_ascii_lowercase().replace(' ', "|");
        format!("wrong number of arguments for '{name}' command")
    }
}

impl fmt::Display for CommandError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(error) => error.fmt(f),
            Self::NoVerb => f.write_str("no verb after the id; it follows the colon without a space: 1:GET key"),
            Self::Unknown(name, args) => UnknownCommand(name, *args).fmt(f),
            Self::UnknownVerb(verb, instead) => write!(f, "unknown verb {}; {instead}", Excerpt(verb)),
            Self::UnknownTopic(command, topics, b"") => write!(f, "{command} takes {topics}"),
            Self::UnknownTopic(command, topics, topic) => {
                write!(f, "{command} takes {topics}; not '{}'", Excerpt(topic))
            }
            Self::WrongArity(command) | Self::TopicArity(command) => f.write_str(&self.arity(command)),
            Self::Syntax(command, arg) => write!(f, "{} takes no argument like '{}'", command, Excerpt(arg)),
            Self::BadSeconds(name, text, wrong) => {
                let text = Excerpt(text);
                match wrong {
                    BadSeconds::NoNumber => {
                        write!(f, "{name} needs whole seconds after the last colon, as in :30; '{text}' is not a number")
                    }
                    BadSeconds::Zero => write!(f, "{name} needs at least 1 second; DEL removes a key at once"),
                    BadSeconds::Negative => {
                        write!(f, "{name} counts seconds from now, at least 1; '{text}' is negative")
                    }
                    BadSeconds::Fraction => write!(f, "{name} needs whole seconds; '{text}' is a fraction"),
                    BadSeconds::TooMany => {
                        write!(f, "{name} takes at most {SECONDS_MAX} seconds; '{text}' is more")
                    }
                }
            }
            Self::NoNumber(name, key) => {
                write!(f, "{name} needs a whole number of 64 bits as the value; that of '{}' is none", Excerpt(key))
            }
            Self::Overflow(name, key) => {
                write!(f, "{name} would take '{}' out of the range of 64 bits", Excerpt(key))
            }
            Self::TransactionAborted => {
                f.write_str("Transaction discarded because of previous errors.")
            }
            Self::Plain(sentence) => f.write_str(sentence),
            Self::Sentence(sentence) => f.write_str(sentence),
            Self::TooManyFailures(seconds) => {
                write!(f, "too many wrong passwords from your address range; try again in {seconds} s")
            }
            Self::UnknownOption(option) => write!(f, "Unsupported option {}", Excerpt(option)),
            Self::KeyTooLong(limit) => write!(f, "a key of more than {limit} bytes (key_bytes_max)"),
            Self::ValueTooLong(limit) => {
                write!(f, "a value would be longer than {limit} bytes (value_bytes_max)")
            }
            Self::Full(Full::Limit { used_bytes, limit_bytes }) => write!(
                f,
                "out of memory: {used_bytes} of {limit_bytes} bytes are used; \
                 delete something, set fewer keys per request, or raise memory_max"
            ),
            Self::Full(Full::TooLarge { limit_bytes }) => write!(
                f,
                "out of memory: a request may set at most half of the {limit_bytes} bytes at once; set less, or raise memory_max"
            ),
            Self::Full(Full::Space) => {
                f.write_str("out of memory: the 32 GiB for small items are used; delete something")
            }
            Self::Full(Full::System) => f.write_str(
                "out of memory: the system gives no more; delete something. Of several keys the first may be set",
            ),
            Self::ReplyTooLong(error) => error.fmt(f),
            Self::Unauthenticated => f.write_str("authentication needed; send AUTH password"),
            Self::HelloUnauthenticated => f.write_str(
                "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
                 <user> <pass> option can be used to authenticate the client and select the RESP protocol \
                 version at the same time",
            ),
            Self::WrongPassword => f.write_str("wrong password"),
            Self::NoPasswordSet => f.write_str("no password is set on this node; go on without AUTH"),
            Self::UnknownProtocol => f.write_str("unsupported protocol version"),
            Self::TooManyLookups(limit) => {
                write!(f, "{limit} keys are being looked up on other nodes, the limit (lookups_max); try again")
            }
        }
    }
}

/// Redis's error for an unknown command: its name and its first arguments.
struct UnknownCommand<'a>(&'a [u8], Args<'a>);

impl fmt::Display for UnknownCommand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_ARGS_BYTES_MAX)]).into_owned()
        };
        write!(f, "unknown command '{}', with args beginning with: ", text(self.0))?;
        let mut left = SHOWN_ARGS_BYTES_MAX;
        for arg in self.1.iter() {
            if left == 0 {
                break;
            }
            let shown = &arg[..arg.len().min(left)];
            left -= shown.len();
            write!(f, "'{}' ", text(shown))?;
        }
        Ok(())
    }
}

/// Parses a TTL in seconds, 1 to [`SECONDS_MAX`].
pub(in crate::node) fn seconds<'a>(command: &'static str, text: &'a [u8]) -> Result<u64, CommandError<'a>> {
    let bad = |wrong| Err(CommandError::BadSeconds(command, text, wrong));
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let mut parts = digits.splitn(2, |&byte| byte == b'.');
    let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next());
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    if !is_number(whole) || fraction.is_some_and(|part| !is_number(part)) {
        return bad(BadSeconds::NoNumber);
    }
    if digits.len() < text.len() {
        return bad(BadSeconds::Negative);
    }
    if fraction.is_some() {
        return bad(BadSeconds::Fraction);
    }
    let add = |n: u64, digit: &u8| n.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    match whole.iter().fold(0, add) {
        0 => bad(BadSeconds::Zero),
        number @ 1..=SECONDS_MAX => Ok(number),
        _ => bad(BadSeconds::TooMany),
    }
}
