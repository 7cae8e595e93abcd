//! Arguments of a request: byte strings, the same for both protocols; and the parser of the line protocol's fields,
//! bare and quoted, separated by commas and by the colons that the command's form names.

use super::line_form::{LineForm, Syntax};
use super::request_error::RequestError;
use memchr::{memchr, memchr2, memchr3, memrchr};

/// Limits of one request in lines.
#[derive(Debug, Clone, Copy)]
pub struct ArgLimits {
    /// Arguments of a line, each with its key, value and so on.
    pub args_max: usize,
    /// The name of the setting that `args_max` comes from.
    pub args_setting: &'static str,
    /// Bytes of each key.
    pub key_bytes_max: usize,
    /// Bytes of each value.
    pub value_bytes_max: usize,
}

/// The arguments of one request, without the command's name.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a> {
    text: &'a [u8],
    unescaped: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// Arguments that lie in `text`.
    pub const fn new(text: &'a [u8], spans: &'a [Span]) -> Self {
        Self { text, unescaped: &[], spans }
    }

    /// All but the first `count`.
    pub fn skip(self, count: usize) -> Self {
        Self { spans: self.spans.get(count..).unwrap_or_default(), ..self }
    }

    /// The first `count`, or all if there are fewer.
    pub fn first(self, count: usize) -> Self {
        Self { spans: self.spans.get(..count).unwrap_or(self.spans), ..self }
    }

    /// The number of arguments.
    pub const fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|span| self.bytes(*span))
    }

    /// An upper bound of the length of every argument, in bytes. O(1).
    pub const fn longest_at_most(&self) -> usize {
        if self.text.len() > self.unescaped.len() { self.text.len() } else { self.unescaped.len() }
    }

    /// The arguments in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let args = *self;
        self.spans.iter().map(move |span| args.bytes(*span))
    }

    /// Every argument whose index is a multiple of `step`, which is not 0, in order.
    pub fn every(&self, step: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let args = *self;
        self.spans.chunks(step).map(move |spans| args.bytes(spans[0]))
    }

    /// The arguments in order, `N` at a time; fewer left over at the end are left out.
    pub fn tuples<const N: usize>(
        &self,
    ) -> impl ExactSizeIterator<Item = [&'a [u8]; N]> + Clone + use<'a, N> {
        let args = *self;
        let (tuples, _) = self.spans.as_chunks::<N>();
        tuples.iter().map(move |spans| spans.map(|span| args.bytes(span)))
    }

    fn bytes(&self, span: Span) -> &'a [u8] {
        let (start, end) = bounds(span);
        // Offsets beyond the text are those of unescaped bytes.
        match self.text.get(start..end) {
            Some(bytes) => bytes,
            None => &self.unescaped[start - self.text.len()..end - self.text.len()],
        }
    }
}

/// The position of an argument, its start and its end: in the input, or, from the input's length on, in the bytes
/// unescaped from it. Bytes, so that spans can lie in any memory.
pub type Span = [u8; 8];

/// Start and end of a span.
#[inline(always)]
const fn bounds([a, b, c, d, e, f, g, h]: Span) -> (usize, usize) {
    (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]) as usize)
}

/// A span of these bounds.
#[inline(always)]
pub(super) const fn packed(start: u32, end: u32) -> Span {
    (start as u64 | (end as u64) << u32::BITS).to_le_bytes()
}

/// The number of bytes of an argument.
const fn length(span: Span) -> usize {
    let (start, end) = bounds(span);
    end - start
}

/// Memory for the parsed arguments of one line, reused for the next.
#[derive(Debug, Default)]
pub struct Scratch {
    spans: Vec<Span>,
    unescaped: Vec<u8>,
}

impl Scratch {
    /// Parses `body`, the trimmed text after the verb, by the `form` of its command. O(bytes).
    ///
    /// # Errors
    /// The first error; the rest of the body was not parsed.
    pub fn args<'a>(
        &'a mut self,
        form: &'static LineForm,
        body: &'a [u8],
        limits: ArgLimits,
    ) -> Result<Args<'a>, RequestError<'a>> {
        self.spans.clear();
        self.unescaped.clear();
        match (form.syntax, body.is_empty()) {
            (Syntax::Bare, false) => return Err(RequestError::SurplusArgument(form, body)),
            (Syntax::Bare | Syntax::Words | Syntax::Raw, true) => return Ok(Args::new(body, &[])),
            (_, true) => return Err(RequestError::NoArgument(form)),
            (Syntax::Raw, false) => {
                self.spans.push(span(0, body.len()));
                return Ok(Args::new(body, &self.spans));
            }
            (_, false) => {}
        }
        if self.is_one_plain_field(form.syntax, body, limits) {
            return Ok(Args::new(body, &self.spans));
        }
        self.fields(form, body, limits)
    }

    /// Splits a body at the commas, colons and quotes of `form`.
    fn fields<'a>(
        &'a mut self,
        form: &'static LineForm,
        body: &'a [u8],
        limits: ArgLimits,
    ) -> Result<Args<'a>, RequestError<'a>> {
        let is_one = matches!(form.syntax, Syntax::Field | Syntax::Key);
        let mut cursor = Cursor { form, text: body, at: 0, scratch: self };
        let mut fields = 0;
        loop {
            let arg = cursor.arg()?;
            // A password is not a key: only the limit of the line bounds it.
            if form.syntax.has_keys() && length(arg.key) > limits.key_bytes_max {
                return Err(RequestError::KeyTooLong(form, limits.key_bytes_max));
            }
            if length(arg.value) > limits.value_bytes_max {
                return Err(RequestError::ValueTooLong(form, limits.value_bytes_max));
            }
            if fields == limits.args_max {
                return Err(RequestError::TooManyArguments(form, limits.args_max, limits.args_setting));
            }
            fields += 1;
            match form.syntax {
                Syntax::Pairs => cursor.scratch.spans.extend([arg.key, arg.value]),
                Syntax::Numbers => cursor.scratch.spans.extend([arg.key, arg.number]),
                Syntax::Timed => cursor.scratch.spans.extend([arg.key, arg.number, arg.value]),
                Syntax::Bare | Syntax::Words | Syntax::Field | Syntax::Key | Syntax::Raw | Syntax::Keys => {
                    cursor.scratch.spans.push(arg.key);
                }
            }
            if cursor.at == body.len() {
                break;
            }
            // Skips the comma: a field ends at one or at the end of the line.
            cursor.at += 1;
        }
        if is_one && fields > 1 {
            return Err(RequestError::OneFieldOnly(form));
        }
        Ok(Args { text: body, unescaped: &self.unescaped, spans: &self.spans })
    }
}

impl Scratch {
    /// Parses the body if it is one key, or one key with a value, without quotes and spaces, as in most requests.
    /// The general parser returns the same arguments.
    fn is_one_plain_field(&mut self, syntax: Syntax, body: &[u8], limits: ArgLimits) -> bool {
        let (key_end, value_from) = match syntax {
            Syntax::Keys => match memchr3(b',', b'"', b' ', body) {
                None => (body.len(), body.len()),
                Some(_) => return false,
            },
            Syntax::Pairs => match body.iter().position(|byte| matches!(byte, b':' | b',' | b'"' | b' ')) {
                Some(colon) if body[colon] == b':' => (colon, colon + 1),
                Some(_) | None => return false,
            },
            Syntax::Bare
            | Syntax::Words
            | Syntax::Field
            | Syntax::Key
            | Syntax::Raw
            | Syntax::Numbers
            | Syntax::Timed => return false,
        };
        let value = &body[value_from..];
        let is_plain = key_end > 0
            && body[key_end - 1] != b'*'
            && !has_redis_expiry(value)
            && key_end <= limits.key_bytes_max
            && value.len() <= limits.value_bytes_max
            && limits.args_max > 0
            && value.first() != Some(&b' ')
            && (value.is_empty() || memchr2(b',', b'"', value).is_none());
        if is_plain {
            self.spans.push(span(0, key_end));
            if syntax == Syntax::Pairs {
                self.spans.push(span(value_from, body.len()));
            }
        }
        is_plain
    }
}

/// The parsed parts of one field of a line; parts that its syntax does not have are empty.
#[derive(Debug, Default)]
struct Field {
    key: Span,
    value: Span,
    number: Span,
}

/// A cursor over the fields of one line.
struct Cursor<'a, 's> {
    form: &'static LineForm,
    text: &'a [u8],
    at: usize,
    scratch: &'s mut Scratch,
}

impl<'a> Cursor<'a, '_> {
    /// The bytes of an argument without quotes.
    fn plain(&self, span: Span) -> &'a [u8] {
        let (start, end) = bounds(span);
        &self.text[start..end]
    }

    /// Reads one field, up to the comma after it or the end of the line.
    fn arg(&mut self) -> Result<Field, RequestError<'a>> {
        self.skip_spaces();
        let begin = self.at;
        let syntax = self.form.syntax;
        let is_key_only = syntax.step() == 1;
        let mut arg = Field::default();
        let missing = |cursor: &Self| RequestError::NoColon(cursor.form, trim(cursor.until_comma(begin)));
        match self.text.get(self.at) {
            None | Some(b',') => return Err(RequestError::EmptyArgument(self.form)),
            Some(b'"') => {
                arg.key = self.quoted()?;
                match (is_key_only, self.text.get(self.at)) {
                    (true, None | Some(b',')) => return Ok(arg),
                    (true, Some(_)) => return Err(self.after_quote()),
                    (false, Some(b':')) => self.at += 1,
                    (false, None | Some(b',')) => return Err(missing(self)),
                    (false, Some(_)) => return Err(self.after_quote()),
                }
            }
            Some(_) => {
                arg.key = match syntax {
                    Syntax::Pairs | Syntax::Timed => {
                        let end = memchr2(b':', b',', &self.text[self.at..]).map(|skip| self.at + skip);
                        self.bare(end.filter(|&end| self.text[end] == b':').ok_or_else(|| missing(self))?)?
                    }
                    Syntax::Numbers => {
                        let colon = memrchr(b':', self.until_comma(self.at));
                        self.bare(self.at + colon.ok_or_else(|| missing(self))?)?
                    }
                    Syntax::Bare
                    | Syntax::Words
                    | Syntax::Field
                    | Syntax::Key
                    | Syntax::Raw
                    | Syntax::Keys => self.bare_to_comma()?,
                };
                let key = self.plain(arg.key);
                if key.is_empty() {
                    return Err(RequestError::EmptyKey(self.form));
                }
                if syntax.has_keys() && memchr(b' ', key).is_some() {
                    return Err(RequestError::SpacedKey(self.form, key));
                }
                if syntax.has_keys() && key.last() == Some(&b'*') {
                    return Err(RequestError::PatternKey(self.form, key));
                }
                if is_key_only {
                    return Ok(arg);
                }
                self.at += 1;
            }
        }
        if syntax != Syntax::Numbers {
            arg.value = self.value().map_err(|error| error.unwrap_or_else(|| missing(self)))?;
        }
        if syntax != Syntax::Pairs {
            arg.number = self.bare_to_comma()?;
        }
        Ok(arg)
    }

    /// Reads a value, and the colon after it if a number follows. `Err(None)`: that colon is missing.
    fn value(&mut self) -> Result<Span, Option<RequestError<'a>>> {
        let is_timed = self.form.syntax == Syntax::Timed;
        self.skip_spaces();
        if self.text.get(self.at) == Some(&b'"') {
            let value = self.quoted()?;
            match (is_timed, self.text.get(self.at)) {
                (true, Some(b':')) => self.at += 1,
                (true, None | Some(b',')) => return Err(None),
                (false, None | Some(b',')) => {}
                (_, Some(_)) => return Err(Some(self.after_quote())),
            }
            return Ok(value);
        }
        if is_timed {
            let colon = memrchr(b':', self.until_comma(self.at)).ok_or(None)?;
            let value = self.bare(self.at + colon)?;
            self.at += 1;
            return Ok(value);
        }
        let value = self.bare_to_comma()?;
        let bytes = self.plain(value);
        if has_redis_expiry(bytes) {
            return Err(Some(RequestError::RedisExpiry(self.form, bytes)));
        }
        Ok(value)
    }

    /// Reads the bare field up to `end`, trimmed, and moves to `end`. A quote inside is an error, since it most likely
    /// belongs to a field that should have been quoted, as JSON.
    fn bare(&mut self, end: usize) -> Result<Span, RequestError<'a>> {
        let field = self.trimmed(end);
        let bytes = self.plain(field);
        if memchr(b'"', bytes).is_some() {
            return Err(RequestError::InnerQuote(self.form, bytes));
        }
        Ok(field)
    }

    /// The same up to the next comma or the end of the line. One search finds the comma and a quote.
    fn bare_to_comma(&mut self) -> Result<Span, RequestError<'a>> {
        let rest = &self.text[self.at..];
        let stop = memchr2(b',', b'"', rest).unwrap_or(rest.len());
        if rest.get(stop) == Some(&b'"') {
            return Err(RequestError::InnerQuote(self.form, trim(self.until_comma(self.at))));
        }
        Ok(self.trimmed(self.at + stop))
    }

    /// The span up to `end` without surrounding spaces; moves to `end`.
    fn trimmed(&mut self, end: usize) -> Span {
        self.skip_spaces();
        let start = self.at.min(end);
        let bytes = trim(&self.text[start..end]).len();
        self.at = end;
        span(start, start + bytes)
    }

    /// Reads a quoted field and the spaces after it.
    fn quoted(&mut self) -> Result<Span, RequestError<'a>> {
        let open = self.at + 1;
        let first = memchr2(b'"', b'\\', &self.text[open..]).ok_or(RequestError::OpenQuote(self.form))?;
        if self.text[open + first] == b'"' {
            self.at = open + first + 1;
            self.skip_spaces();
            return Ok(span(open, open + first));
        }
        let begin = self.scratch.unescaped.len();
        self.at = open;
        loop {
            let rest = &self.text[self.at..];
            let stop = memchr2(b'"', b'\\', rest).ok_or(RequestError::OpenQuote(self.form))?;
            self.scratch.unescaped.extend_from_slice(&rest[..stop]);
            self.at += stop;
            if rest[stop] == b'"' {
                self.at += 1;
                self.skip_spaces();
                let end = self.scratch.unescaped.len();
                return Ok(span(self.text.len() + begin, self.text.len() + end));
            }
            let (byte, length) = unescape(&rest[stop..])
                .ok_or_else(|| RequestError::BadEscape(self.form, &rest[stop..rest.len().min(stop + 4)]))?;
            self.scratch.unescaped.push(byte);
            self.at += length;
        }
    }

    fn skip_spaces(&mut self) {
        while self.text.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
    }

    fn until_comma(&self, from: usize) -> &'a [u8] {
        let rest = &self.text[from..];
        &rest[..memchr(b',', rest).unwrap_or(rest.len())]
    }

    fn after_quote(&self) -> RequestError<'a> {
        RequestError::AfterQuote(self.form, self.until_comma(self.at))
    }
}

/// Whether a value ends like a SET of Redis with an expiry: ` EX 30`.
fn has_redis_expiry(value: &[u8]) -> bool {
    let digits = value.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let option = value[..value.len() - digits].last_chunk::<4>();
    digits > 0 && option.is_some_and(|o| o.eq_ignore_ascii_case(b" EX ") || o.eq_ignore_ascii_case(b" PX "))
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

/// A span of a line. Lines and their unescaped bytes are below 4 GiB together.
#[inline]
pub(super) fn span(start: usize, end: usize) -> Span {
    let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    packed(offset(start), offset(end))
}

/// `bytes` without the spaces at both ends. Other white space is part of a field.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{ArgLimits, Scratch};
    use crate::base::rng::Rng;
    use crate::wire::line_form::{LineForm, Syntax};

    const LIMITS: ArgLimits =
        ArgLimits { args_max: 4, args_setting: "args_max", key_bytes_max: 10, value_bytes_max: 20 };

    const fn form(verb: &'static str, arguments: &'static str, syntax: Syntax) -> LineForm {
        LineForm { verb, arguments, syntax, word: "", example: "GET user" }
    }

    static FORMS: [LineForm; 7] = [
        form("GET", "key", Syntax::Keys),
        form("SET", "key:value", Syntax::Pairs),
        form("SETEX", "key:value:seconds", Syntax::Timed),
        form("EXPIRE", "key:seconds", Syntax::Numbers),
        form("AUTH", "password", Syntax::Field),
        form("HELP", "verb", Syntax::Words),
        form("STATS", "", Syntax::Bare),
    ];

    /// The arguments of a line, or the sentence about it.
    fn parse(text: &str) -> Result<Vec<String>, String> {
        let (verb, body) = text.split_once(' ').unwrap_or((text, ""));
        let form = FORMS.iter().find(|form| form.verb == verb).unwrap();
        let mut scratch = Scratch::default();
        let args =
            scratch.args(form, super::trim(body.as_bytes()), LIMITS).map_err(|error| error.to_string())?;
        Ok(args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect())
    }

    fn args(expected: &[&str]) -> Result<Vec<String>, String> {
        Ok(expected.iter().map(|&arg| arg.to_owned()).collect())
    }

    #[test]
    fn colon_that_splits_depends_on_the_verb() {
        assert_eq!(parse("GET a:b:c"), args(&["a:b:c"]));
        assert_eq!(parse("SET a:b:c"), args(&["a", "b:c"]));
        assert_eq!(parse("SETEX a:b:c:9"), args(&["a", "9", "b:c"]));
        assert_eq!(parse("EXPIRE a:b:9"), args(&["a:b", "9"]));
        assert_eq!(parse("SET \"a:b\":c"), args(&["a:b", "c"]));
        assert_eq!(parse("SETEX \"a:b\":\"c:1,\":9"), args(&["a:b", "9", "c:1,"]));
        assert_eq!(parse("EXPIRE \"a\":9"), args(&["a", "9"]));
    }

    #[test]
    fn spaces_around_fields_are_not_part_of_them() {
        assert_eq!(parse("SET  a : b c  , d:  e "), args(&["a", "b c", "d", "e"]));
        assert_eq!(parse("GET  a , \"c d\"  ,d"), args(&["a", "c d", "d"]));
        assert_eq!(parse("SET a: \" b \" ,c:d"), args(&["a", " b ", "c", "d"]));
        assert_eq!(parse("SETEX a: b : 9 "), args(&["a", "9", "b"]));
        assert_eq!(parse("SET a:\tb\t"), args(&["a", "\tb\t"]));
    }

    #[test]
    fn empty_value_is_fine_empty_key_only_in_quotes() {
        assert_eq!(parse("SET a:"), args(&["a", ""]));
        assert_eq!(parse("SETEX a::9"), args(&["a", "9", ""]));
        assert_eq!(parse("GET \"\""), args(&[""]));
        assert_eq!(parse("SET \"\":\"\""), args(&["", ""]));
        assert!(parse("SET :b").unwrap_err().contains("empty key"));
        assert!(parse("SET  :b").unwrap_err().contains("empty key"));
        assert!(parse("EXPIRE :9").unwrap_err().contains("empty key"));
    }

    #[test]
    fn quote_opens_a_field_only_as_its_first_byte() {
        assert!(parse("GET a\"b").unwrap_err().contains("quote inside 'a\"b'"));
        assert!(parse("SET a:{\"b\":1}").unwrap_err().contains("quote inside '{\"b\":1}'"));
        assert_eq!(parse(r#"SET a:"a\"\\\n\r\t\0\x41\x7A,:""#), args(&["a", "a\"\\\n\r\t\0Az,:"]));
        assert_eq!(parse(r#"SET a:\n"#), args(&["a", "\\n"]));
    }

    #[test]
    fn each_error_has_its_own_sentence() {
        for (text, sentence) in [
            ("SET key", "SET needs key:value; 'key' has no colon"),
            ("SET a:b,key", "SET needs key:value; 'key' has no colon"),
            ("SETEX a:1", "SETEX needs key:value:seconds; 'a:1' has no second colon"),
            ("SETEX a", "SETEX needs key:value:seconds; 'a' has no second colon"),
            ("EXPIRE a", "EXPIRE needs key:seconds; 'a' has no colon"),
            ("GET", "GET needs key, as in: GET user"),
            ("AUTH", "AUTH needs password, as in: GET user"),
            ("STATS now", "STATS takes no arguments; 'now' is one"),
            ("AUTH a,b", "AUTH takes exactly one field; quote it if it holds a comma"),
            ("GET \"a", "GET has a quote that never closes; end the field with \""),
            ("GET \"a\\", "GET has an unknown escape '\\'; there are \\\" \\\\ \\n \\r \\t \\0 \\xHH"),
            ("GET \"\\q\"", "GET has an unknown escape '\\q\"'; there are \\\" \\\\ \\n \\r \\t \\0 \\xHH"),
            ("GET \"a\"b", "GET has 'b' after a closing quote; a quoted field ends there"),
            ("SET \"a\"b:c", "SET has 'b:c' after a closing quote; a quoted field ends there"),
            ("SET a:\"b\"c", "SET has 'c' after a closing quote; a quoted field ends there"),
            ("GET a,b,c,d,e", "GET has more than 4 arguments (args_max); send several requests"),
            ("GET 12345678901", "GET has a key of more than 10 bytes (key_bytes_max)"),
            ("SET a:123456789012345678901", "SET has a value of more than 20 bytes (value_bytes_max)"),
        ] {
            assert_eq!(parse(text), Err(sentence.to_owned()), "{text}");
        }
        for text in ["GET a,", "GET ,a", "GET a,,b", "SET a:b,", "SET ,"] {
            assert!(parse(text).unwrap_err().contains("empty argument"), "{text}");
        }
    }

    #[test]
    fn one_plain_field_has_the_arguments_that_any_field_has() {
        let mut rng = Rng::new(9);
        for _ in 0..100_000 {
            let len = 1 + rng.below(24);
            let body: Vec<u8> =
                (0..len).map(|_| b"abc: ,\"*EX9\\"[usize::try_from(rng.below(12)).unwrap()]).collect();
            let body = super::trim(&body);
            for form in FORMS.iter().filter(|_| !body.is_empty()) {
                let (mut plain, mut any) = (Scratch::default(), Scratch::default());
                if plain.is_one_plain_field(form.syntax, body, LIMITS) {
                    let any = any.fields(form, body, LIMITS).map(|args| args.iter().collect::<Vec<_>>());
                    let plain: Vec<&[u8]> = super::Args::new(body, &plain.spans).iter().collect();
                    assert_eq!(any.ok(), Some(plain), "{} {}", form.verb, body.escape_ascii());
                }
            }
        }
    }
}
