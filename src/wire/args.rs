//! The arguments of a line: fields bare and quoted, split at commas and at the colons that count.

use super::request_error::RequestError;
use memchr::{memchr, memchr2, memrchr};

/// The longest life of a key, in seconds: some 31 years.
pub const SECONDS_MAX: u64 = 1_000_000_000;

/// What one request may hold.
#[derive(Debug, Clone, Copy)]
pub struct ArgLimits {
    /// Arguments.
    pub args_max: usize,
    /// Bytes of each key.
    pub key_bytes_max: usize,
    /// Bytes of each value.
    pub value_bytes_max: usize,
}

/// One argument. What the verb does not take is empty or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arg<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// Seconds from now: 1 to [`SECONDS_MAX`].
    pub seconds: u64,
}

/// Arguments of one request. Going through them again costs nothing.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a> {
    sources: Sources<'a>,
    spans: &'a [ArgSpan],
}

impl<'a> Args<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none, which no parsed command has.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The arguments in order.
    pub fn iter(&self) -> impl Iterator<Item = Arg<'a>> + use<'a> {
        let sources = self.sources;
        self.spans.iter().map(move |span| Arg {
            key: sources.bytes(span.key),
            value: sources.bytes(span.value),
            seconds: span.seconds,
        })
    }
}

/// Where the bytes of a span lie.
#[derive(Debug, Clone, Copy)]
struct Sources<'a> {
    text: &'a [u8],
    unescaped: &'a [u8],
}

impl<'a> Sources<'a> {
    fn bytes(self, span: Span) -> &'a [u8] {
        if span.escaped { &self.unescaped[span.start..span.end] } else { &self.text[span.start..span.end] }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: usize,
    end: usize,
    /// Whether it lies in the scratch, because it had escapes.
    escaped: bool,
}

#[derive(Debug, Clone, Copy)]
struct ArgSpan {
    key: Span,
    value: Span,
    seconds: u64,
}

/// What stands between two commas, by verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Key,
    KeyValue,
    KeyValueSeconds,
    KeySeconds,
}

impl Shape {
    pub(super) const fn as_text(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::KeyValue => "key:value",
            Self::KeyValueSeconds => "key:value:seconds",
            Self::KeySeconds => "key:seconds",
        }
    }
}

/// Where arguments are taken apart. Keeps its memory from one request to the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    spans: Vec<ArgSpan>,
    unescaped: Vec<u8>,
}

impl Scratch {
    /// Takes `body` apart, which is all that stands behind the verb `name`. O(bytes).
    pub(super) fn args<'a>(
        &'a mut self,
        name: &'static str,
        shape: Shape,
        body: &'a [u8],
        limits: ArgLimits,
    ) -> Result<Args<'a>, RequestError<'a>> {
        self.spans.clear();
        self.unescaped.clear();
        if body.is_empty() {
            return Err(RequestError::NoArgument(name, shape.as_text()));
        }
        let mut cursor = Cursor { name, text: body, at: 0, unescaped: &mut self.unescaped };
        loop {
            let span = cursor.arg(shape)?;
            if span.key.end - span.key.start > limits.key_bytes_max {
                return Err(RequestError::KeyTooLong(name, limits.key_bytes_max));
            }
            if span.value.end - span.value.start > limits.value_bytes_max {
                return Err(RequestError::ValueTooLong(name, limits.value_bytes_max));
            }
            if self.spans.len() == limits.args_max {
                return Err(RequestError::TooManyArguments(name, limits.args_max));
            }
            self.spans.push(span);
            if cursor.at == body.len() {
                break;
            }
            // Past the comma, which is all that an argument can end at beside the end of the line.
            cursor.at += 1;
        }
        let sources = Sources { text: body, unescaped: &self.unescaped };
        Ok(Args { sources, spans: &self.spans })
    }
}

/// Goes through the arguments of one line.
struct Cursor<'a, 's> {
    name: &'static str,
    text: &'a [u8],
    at: usize,
    unescaped: &'s mut Vec<u8>,
}

impl<'a> Cursor<'a, '_> {
    /// Reads one argument, up to the comma behind it or the end of the line.
    fn arg(&mut self, shape: Shape) -> Result<ArgSpan, RequestError<'a>> {
        self.skip_spaces();
        let begin = self.at;
        let mut arg = ArgSpan { key: Span::default(), value: Span::default(), seconds: 0 };
        let missing = |cursor: &Self| {
            RequestError::NoColon(cursor.name, shape.as_text(), trim(cursor.until_comma(begin)))
        };
        match self.text.get(self.at) {
            None | Some(b',') => return Err(RequestError::EmptyArgument(self.name)),
            Some(b'"') => {
                arg.key = self.quoted()?;
                match (shape, self.text.get(self.at)) {
                    (Shape::Key, None | Some(b',')) => return Ok(arg),
                    (Shape::Key, Some(_)) => return Err(self.after_quote()),
                    (_, Some(b':')) => self.at += 1,
                    (_, None | Some(b',')) => return Err(missing(self)),
                    (_, Some(_)) => return Err(self.after_quote()),
                }
            }
            Some(_) => {
                let end = match shape {
                    Shape::Key => self.comma(),
                    Shape::KeyValue | Shape::KeyValueSeconds => {
                        let end = memchr2(b':', b',', &self.text[self.at..]).map(|skip| self.at + skip);
                        end.filter(|&end| self.text[end] == b':').ok_or_else(|| missing(self))?
                    }
                    Shape::KeySeconds => {
                        let colon = memrchr(b':', self.until_comma(self.at));
                        self.at + colon.ok_or_else(|| missing(self))?
                    }
                };
                arg.key = self.bare(end);
                if arg.key.start == arg.key.end {
                    return Err(RequestError::EmptyKey(self.name));
                }
                if shape == Shape::Key {
                    return Ok(arg);
                }
                self.at += 1;
            }
        }
        if shape != Shape::KeySeconds {
            self.value(shape, &mut arg).map_err(|error| error.unwrap_or_else(|| missing(self)))?;
        }
        if shape != Shape::KeyValue {
            let end = self.comma();
            arg.seconds = seconds(self.name, trim(&self.text[self.at..end]))?;
            self.at = end;
        }
        Ok(arg)
    }

    /// Reads a value, and the colon behind it if seconds follow. `Err(None)`: that colon is missing.
    fn value(&mut self, shape: Shape, arg: &mut ArgSpan) -> Result<(), Option<RequestError<'a>>> {
        self.skip_spaces();
        if self.text.get(self.at) == Some(&b'"') {
            arg.value = self.quoted()?;
            match (shape, self.text.get(self.at)) {
                (Shape::KeyValueSeconds, Some(b':')) => self.at += 1,
                (Shape::KeyValueSeconds, None | Some(b',')) => return Err(None),
                (_, None | Some(b',')) => {}
                (_, Some(_)) => return Err(Some(self.after_quote())),
            }
            return Ok(());
        }
        if shape == Shape::KeyValueSeconds {
            let colon = memrchr(b':', self.until_comma(self.at)).ok_or(None)?;
            arg.value = self.bare(self.at + colon);
            self.at += 1;
        } else {
            arg.value = self.bare(self.comma());
        }
        Ok(())
    }

    /// The bare field from here to `end`, trimmed; goes to `end`.
    fn bare(&mut self, end: usize) -> Span {
        self.skip_spaces();
        let start = self.at.min(end);
        let length = trim(&self.text[start..end]).len();
        self.at = end;
        Span { start, end: start + length, escaped: false }
    }

    /// Reads a quoted field and the spaces behind it.
    fn quoted(&mut self) -> Result<Span, RequestError<'a>> {
        let open = self.at + 1;
        let first = memchr2(b'"', b'\\', &self.text[open..]).ok_or(RequestError::OpenQuote(self.name))?;
        if self.text[open + first] == b'"' {
            self.at = open + first + 1;
            self.skip_spaces();
            return Ok(Span { start: open, end: open + first, escaped: false });
        }
        let start = self.unescaped.len();
        self.at = open;
        loop {
            let rest = &self.text[self.at..];
            let stop = memchr2(b'"', b'\\', rest).ok_or(RequestError::OpenQuote(self.name))?;
            self.unescaped.extend_from_slice(&rest[..stop]);
            self.at += stop;
            if rest[stop] == b'"' {
                self.at += 1;
                self.skip_spaces();
                return Ok(Span { start, end: self.unescaped.len(), escaped: true });
            }
            let (byte, length) = unescape(&rest[stop..])
                .ok_or_else(|| RequestError::BadEscape(self.name, &rest[stop..rest.len().min(stop + 4)]))?;
            self.unescaped.push(byte);
            self.at += length;
        }
    }

    fn skip_spaces(&mut self) {
        while self.text.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
    }

    /// Where the next comma stands, or the end of the line.
    fn comma(&self) -> usize {
        memchr(b',', &self.text[self.at..]).map_or(self.text.len(), |skip| self.at + skip)
    }

    fn until_comma(&self, from: usize) -> &'a [u8] {
        let rest = &self.text[from..];
        &rest[..memchr(b',', rest).unwrap_or(rest.len())]
    }

    fn after_quote(&self) -> RequestError<'a> {
        RequestError::AfterQuote(self.name, self.until_comma(self.at))
    }
}

/// The byte that an escape stands for, and the escape's length; `None` if there is no such escape.
fn unescape(escape: &[u8]) -> Option<(u8, usize)> {
    let byte = match escape.get(1)? {
        b'"' => b'"',
        b'\\' => b'\\',
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'0' => 0,
        b'x' => {
            let digits = std::str::from_utf8(escape.get(2..4)?).ok()?;
            let digits = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
            return Some((u8::from_str_radix(digits, 16).ok()?, 4));
        }
        _ => return None,
    };
    Some((byte, 2))
}

fn seconds<'a>(name: &'static str, text: &'a [u8]) -> Result<u64, RequestError<'a>> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let (whole, fraction) = match memchr(b'.', digits) {
        Some(dot) => (&digits[..dot], Some(&digits[dot + 1..])),
        None => (digits, None),
    };
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    if !is_number(whole) || fraction.is_some_and(|part| !is_number(part)) {
        return Err(RequestError::BadSeconds(name, text));
    }
    if digits.len() < text.len() {
        return Err(RequestError::NegativeSeconds(name, text));
    }
    if fraction.is_some() {
        return Err(RequestError::FractionalSeconds(name, text));
    }
    let number =
        whole.iter().fold(0u64, |n, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    match number {
        0 => Err(RequestError::ZeroSeconds(name)),
        1..=SECONDS_MAX => Ok(number),
        _ => Err(RequestError::TooManySeconds(name, text)),
    }
}

/// Without the spaces at both ends. Only spaces: other white space is part of a field.
pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&byte| byte != b' ').unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|&byte| byte != b' ').map_or(start, |last| last + 1);
    &bytes[start..end]
}
