//! Errors of requests in lines. Each sentence names what is wrong and what would be right.

use super::field::Excerpt;
use super::line_form::{ID_BYTES_MAX, LineForm, Syntax};
use std::fmt;

/// An example of a field with quotes inside.
const QUOTED: &str = "SET j:\"{\\\"a\\\":1}\"";

/// An example of several keys, one with spaces.
const SPACED: &str = "GET a,b,\"c d\"";

/// An error of a request in lines. The request changed nothing. Displays as the sentence of the reply.
#[derive(Debug, Clone, Copy)]
pub enum RequestError<'a> {
    /// The bytes before a colon in the first word are not an id.
    BadId,
    /// An argument is missing.
    NoArgument(&'static LineForm),
    /// A verb that takes no argument has one.
    SurplusArgument(&'static LineForm, &'a [u8]),
    /// A verb that takes one field has several.
    OneFieldOnly(&'static LineForm),
    /// Nothing is between two commas, or before the first or after the last one.
    EmptyArgument(&'static LineForm),
    /// Nothing is before the colon.
    EmptyKey(&'static LineForm),
    /// A part after a colon is missing.
    NoColon(&'static LineForm, &'a [u8]),
    /// A quote inside a bare field.
    InnerQuote(&'static LineForm, &'a [u8]),
    /// A bare key with spaces inside, which is most likely several keys.
    SpacedKey(&'static LineForm, &'a [u8]),
    /// A bare key that ends in `*`, which is most likely a pattern.
    PatternKey(&'static LineForm, &'a [u8]),
    /// A bare value that ends in an option of Redis's SET.
    RedisExpiry(&'static LineForm, &'a [u8]),
    /// A quote that never closes.
    OpenQuote(&'static LineForm),
    /// An unknown escape.
    BadEscape(&'static LineForm, &'a [u8]),
    /// Bytes between a closing quote and the next comma or colon.
    AfterQuote(&'static LineForm, &'a [u8]),
    /// More fields than the limit, with the name of its setting.
    TooManyArguments(&'static LineForm, usize, &'static str),
    /// A key longer than the limit.
    KeyTooLong(&'static LineForm, usize),
    /// A value longer than the limit.
    ValueTooLong(&'static LineForm, usize),
}

impl fmt::Display for LineForm {
    /// Writes the verb with its arguments: `SET key:value`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gap = if self.arguments.is_empty() { "" } else { " " };
        write!(f, "{}{gap}{}", self.verb, self.arguments)
    }
}

impl fmt::Display for RequestError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadId => write!(
                f,
                "an id before the verb is 1 to {ID_BYTES_MAX} bytes without space, colon, comma or quote"
            ),
            Self::NoArgument(form) => {
                write!(f, "{} needs {}, as in: {}", form.verb, form.arguments, form.example)
            }
            Self::SurplusArgument(form, arg) => {
                write!(f, "{} takes no arguments; '{}' is one", form.verb, Excerpt(arg))
            }
            Self::OneFieldOnly(form) => {
                write!(f, "{} takes exactly one field; quote it if it holds a comma", form.verb)
            }
            Self::EmptyArgument(form) => write!(
                f,
                "{} has an empty argument; leave out the comma, or write \"\" for an empty key",
                form.verb
            ),
            Self::EmptyKey(form) => write!(f, "{} has an empty key; write \"\" if it is meant", form.verb),
            Self::NoColon(form, arg) => {
                let which = if form.syntax == Syntax::Timed { "second colon" } else { "colon" };
                write!(f, "{} needs {}; '{}' has no {which}", form.verb, form.arguments, Excerpt(arg))?;
                let is_inside =
                    form.syntax != Syntax::Timed && arg.first() == Some(&b'"') && arg.contains(&b':');
                f.write_str(if is_inside { " outside the quotes" } else { "" })
            }
            Self::InnerQuote(form, field) => write!(
                f,
                "{} has a quote inside '{}'; a field with quotes, commas or colons goes in quotes, as in: {}",
                form.verb,
                Excerpt(field),
                QUOTED
            ),
            Self::SpacedKey(form, key) => write!(
                f,
                "{} has a key with spaces, '{}'; keys are separated by commas, and one with spaces goes in quotes, as in: {}",
                form.verb,
                Excerpt(key),
                SPACED
            ),
            Self::PatternKey(form, key) => write!(
                f,
                "{} takes keys, not patterns; KEYS {key} shows the keys; a key of that name goes in quotes: \"{key}\"",
                form.verb,
                key = Excerpt(key)
            ),
            Self::RedisExpiry(form, value) => write!(
                f,
                "{} has a value with an expiry as in Redis, '{}'; write SETEX key:value:seconds, or quote the value",
                form.verb,
                Excerpt(value)
            ),
            Self::OpenQuote(form) => {
                write!(f, "{} has a quote that never closes; end the field with \"", form.verb)
            }
            Self::BadEscape(form, escape) => write!(
                f,
                "{} has an unknown escape '{}'; there are \\\" \\\\ \\n \\r \\t \\0 \\xHH",
                form.verb,
                Excerpt(escape)
            ),
            Self::AfterQuote(form, rest) => write!(
                f,
                "{} has '{}' after a closing quote; a quoted field ends there",
                form.verb,
                Excerpt(rest)
            ),
            Self::TooManyArguments(form, limit, setting) => {
                write!(f, "{} has more than {limit} arguments ({setting}); send several requests", form.verb)
            }
            Self::KeyTooLong(form, limit) => {
                write!(f, "{} has a key of more than {limit} bytes (key_bytes_max)", form.verb)
            }
            Self::ValueTooLong(form, limit) => {
                write!(f, "{} has a value of more than {limit} bytes (value_bytes_max)", form.verb)
            }
        }
    }
}
