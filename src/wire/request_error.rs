//! What can be wrong with a request, and the sentence that says so and what would be right.

use super::args::{SECONDS_MAX, Shape};
use super::reply::Excerpt;
use super::request::ID_BYTES_MAX;
use std::fmt;

/// What is wrong with a request. Nothing has been changed by it. Displays as the sentence of the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError<'a> {
    /// The bytes before a colon in the first word are no id.
    BadId,
    /// There is an id and nothing else.
    NoVerb,
    /// No such verb.
    UnknownVerb(&'a [u8]),
    /// A verb that needs an argument has none.
    NoArgument(&'static str, &'static str),
    /// A verb that takes no argument has one.
    SurplusArgument(&'static str, &'a [u8]),
    /// A verb that takes one field has several.
    OneFieldOnly(&'static str),
    /// Nothing stands between two commas, or beside one.
    EmptyArgument(&'static str),
    /// Nothing stands before the colon.
    EmptyKey(&'static str),
    /// A part that is set off by a colon is missing.
    NoColon(&'static str, &'static str, &'a [u8]),
    /// Seconds that are no number.
    BadSeconds(&'static str, &'a [u8]),
    /// No seconds at all: the key would be gone at once.
    ZeroSeconds(&'static str),
    /// Seconds in the past.
    NegativeSeconds(&'static str, &'a [u8]),
    /// Parts of seconds.
    FractionalSeconds(&'static str, &'a [u8]),
    /// More seconds than a key can live.
    TooManySeconds(&'static str, &'a [u8]),
    /// A quote that never closes.
    OpenQuote(&'static str),
    /// An escape that there is not.
    BadEscape(&'static str, &'a [u8]),
    /// Bytes between a closing quote and the next comma or colon.
    AfterQuote(&'static str, &'a [u8]),
    /// More arguments than the limit.
    TooManyArguments(&'static str, usize),
    /// A key longer than the limit.
    KeyTooLong(&'static str, usize),
    /// A value longer than the limit.
    ValueTooLong(&'static str, usize),
    /// A REQUEST for something else.
    UnknownTopic(&'a [u8]),
}

impl fmt::Display for RequestError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadId => write!(
                f,
                "an id before the verb is 1 to {ID_BYTES_MAX} bytes without space, colon, comma or quote"
            ),
            Self::NoVerb => f.write_str("no verb after the id; try HELP"),
            Self::UnknownVerb(verb) => write!(f, "unknown verb {}; try HELP", Excerpt(verb)),
            Self::NoArgument(verb, shape) => write!(f, "{verb} needs {shape}"),
            Self::SurplusArgument(verb, arg) => {
                write!(f, "{verb} takes no argument like '{}'", Excerpt(arg))
            }
            Self::OneFieldOnly(verb) => {
                write!(f, "{verb} takes exactly one field; quote it if it holds a comma")
            }
            Self::EmptyArgument(verb) => {
                write!(f, "{verb} has an empty argument; leave out the comma, or write \"\" for an empty key")
            }
            Self::EmptyKey(verb) => write!(f, "{verb} has an empty key; write \"\" if it is meant"),
            Self::NoColon(verb, shape, arg) => {
                let which = if shape == Shape::KeyValueSeconds.as_text() { "second colon" } else { "colon" };
                write!(f, "{verb} needs {shape}; '{}' has no {which}", Excerpt(arg))
            }
            Self::BadSeconds(verb, text) => {
                write!(
                    f,
                    "{verb} needs whole seconds behind the last colon; '{}' is no number",
                    Excerpt(text)
                )
            }
            Self::ZeroSeconds(verb) => write!(f, "{verb} needs at least 1 second; DEL removes a key at once"),
            Self::NegativeSeconds(verb, text) => {
                write!(f, "{verb} counts seconds from now, at least 1; '{}' is negative", Excerpt(text))
            }
            Self::FractionalSeconds(verb, text) => {
                write!(f, "{verb} needs whole seconds; '{}' is a fraction", Excerpt(text))
            }
            Self::TooManySeconds(verb, text) => {
                write!(f, "{verb} takes at most {SECONDS_MAX} seconds; '{}' is more", Excerpt(text))
            }
            Self::OpenQuote(verb) => write!(f, "{verb} has a quote that never closes; end the field with \""),
            Self::BadEscape(verb, escape) => write!(
                f,
                "{verb} has an unknown escape '{}'; there are \\\" \\\\ \\n \\r \\t \\0 \\xHH",
                Excerpt(escape)
            ),
            Self::AfterQuote(verb, rest) => {
                write!(f, "{verb} has '{}' behind a closing quote; a quoted field ends there", Excerpt(rest))
            }
            Self::TooManyArguments(verb, limit) => {
                write!(f, "{verb} has more than {limit} arguments; send several requests")
            }
            Self::KeyTooLong(verb, limit) => write!(f, "{verb} has a key of more than {limit} bytes"),
            Self::ValueTooLong(verb, limit) => write!(f, "{verb} has a value of more than {limit} bytes"),
            Self::UnknownTopic(topic) => {
                write!(f, "REQUEST takes peers, bloomfilter, connect or disconnect, not '{}'", Excerpt(topic))
            }
        }
    }
}
