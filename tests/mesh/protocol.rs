//! A second parser of the line protocol for the oracle, written from the specification alone.
//!
//! It is simple and slow on purpose and shares no code with the node: where the two differ, one of them does not follow
//! the specification.

use olivia::limits::Limits;

const SECONDS_MAX: u64 = 1_000_000_000;
const ID_BYTES_MAX: usize = 64;

/// The verbs with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    Set,
    SetEx,
    Del,
    Expire,
    Ttl,
    Who,
    Append,
}

impl Verb {
    /// The word of its reply.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Get => "GOT",
            Self::Set => "SAT",
            Self::SetEx => "SATEX",
            Self::Del => "DELETED",
            Self::Expire => "EXPIRES",
            Self::Ttl => "LASTS",
            Self::Who => "HELD",
            Self::Append => "APPENDED",
        }
    }

    const fn has_value(self) -> bool {
        matches!(self, Self::Set | Self::SetEx)
    }

    const fn has_seconds(self) -> bool {
        matches!(self, Self::SetEx | Self::Expire)
    }
}

/// One argument; what the verb does not take is empty or 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arg {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub seconds: u64,
}

/// The request of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingRequest {
    Keys(Verb, Vec<Arg>),
    Auth(Vec<u8>),
    Ping,
    RedisPing,
    Stats,
    Help,
    Mesh,
    Peers,
    Disconnect,
    Quit,
    /// Anything that gets an error.
    Wrong,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub id: Vec<u8>,
    pub content: PendingRequest,
}

/// Reads a line without its end. `None`: it is empty.
pub fn read(text: &[u8], crlf: bool, limits: &Limits, args_max: u32) -> Option<Request> {
    let line = trim(text);
    if line.is_empty() {
        return None;
    }
    let (word, body) = split(line, b' ').map_or((line, &b""[..]), |(word, body)| (word, trim(body)));
    let (id, verb) = split(word, b':').map_or((None, word), |(id, verb)| (Some(id), verb));
    let id_is_fine = id.is_none_or(|id| {
        !id.is_empty() && id.len() <= ID_BYTES_MAX && !id.iter().any(|byte| b",\"\r".contains(byte))
    });
    if !id_is_fine {
        return Some(Request { id: Vec::new(), content: PendingRequest::Wrong });
    }
    let content =
        content(&verb.to_ascii_uppercase(), body, limits, args_max).unwrap_or(PendingRequest::Wrong);
    let is_redis = content == PendingRequest::Ping && crlf && text.len() == 4;
    let id = id.unwrap_or_default().to_vec();
    Some(Request { id, content: if is_redis { PendingRequest::RedisPing } else { content } })
}

fn content(verb: &[u8], body: &[u8], limits: &Limits, args_max: u32) -> Option<PendingRequest> {
    let bare = |content| body.is_empty().then_some(content);
    let keys = |verb| Some(PendingRequest::Keys(verb, args(verb, body, limits, args_max)?));
    match verb {
        b"GET" => keys(Verb::Get),
        b"SET" => keys(Verb::Set),
        b"SETEX" => keys(Verb::SetEx),
        b"DEL" => keys(Verb::Del),
        b"EXPIRE" => keys(Verb::Expire),
        b"TTL" => keys(Verb::Ttl),
        b"WHO" => {
            let args = args(Verb::Who, body, limits, args_max)?;
            (args.len() == 1).then_some(PendingRequest::Keys(Verb::Who, args))
        }
        b"AUTH" => {
            let (password, rest) = if body.starts_with(b"\"") {
                unquote(body)?
            } else {
                let password = bare_field(until_comma(body)).filter(|password| !password.is_empty())?;
                (password, &body[until_comma(body).len()..])
            };
            rest.is_empty().then_some(PendingRequest::Auth(password))
        }
        b"PING" if body == b"0" => Some(PendingRequest::Ping),
        b"PING" => bare(PendingRequest::Ping),
        b"STATS" => bare(PendingRequest::Stats),
        b"HELP" => bare(PendingRequest::Help),
        b"MESH" => bare(PendingRequest::Mesh),
        b"QUIT" => bare(PendingRequest::Quit),
        b"REQUEST" => {
            let topic = body.to_ascii_lowercase();
            match topic.as_slice() {
                b"peers" => Some(PendingRequest::Peers),
                b"disconnect" => Some(PendingRequest::Disconnect),
                _ => None,
            }
        }
        _ => None,
    }
}

fn args(verb: Verb, body: &[u8], limits: &Limits, args_max: u32) -> Option<Vec<Arg>> {
    let mut args = Vec::new();
    let mut rest = Some(body);
    while let Some(body) = rest {
        let (arg, behind) = arg(verb, body)?;
        if arg.key.len() > limits.key_bytes_max as usize || arg.value.len() > limits.value_bytes_max as usize
        {
            return None;
        }
        args.push(arg);
        rest = behind;
    }
    (args.len() <= args_max as usize).then_some(args)
}

/// Reads one argument; gives what stands behind its comma, if there is one.
fn arg(verb: Verb, body: &[u8]) -> Option<(Arg, Option<&[u8]>)> {
    let mut arg = Arg::default();
    // What is left of this argument, and perhaps of those behind it.
    let mut rest = skip_spaces(body);
    let has_more = verb.has_value() || verb.has_seconds();
    if rest.first() == Some(&b'"') {
        (arg.key, rest) = unquote(rest)?;
        if has_more {
            rest = rest.strip_prefix(b":")?;
        }
    } else {
        let piece = until_comma(rest);
        let end = match (has_more, verb.has_value()) {
            (false, _) => piece.len(),
            (true, true) => piece.iter().position(|&byte| byte == b':')?,
            (true, false) => piece.iter().rposition(|&byte| byte == b':')?,
        };
        arg.key = bare_field(&piece[..end])?;
        if arg.key.is_empty() || arg.key.contains(&b' ') || arg.key.ends_with(b"*") {
            return None;
        }
        rest = &rest[end + usize::from(has_more)..];
    }
    if verb.has_value() {
        rest = skip_spaces(rest);
        if rest.first() == Some(&b'"') {
            (arg.value, rest) = unquote(rest)?;
            if verb.has_seconds() {
                rest = rest.strip_prefix(b":")?;
            }
        } else {
            let piece = until_comma(rest);
            let end = match verb.has_seconds() {
                true => piece.iter().rposition(|&byte| byte == b':')?,
                false => piece.len(),
            };
            arg.value = bare_field(&piece[..end]).filter(|value| !has_redis_expiry(value))?;
            rest = &rest[end + usize::from(verb.has_seconds())..];
        }
    }
    if verb.has_seconds() {
        let piece = until_comma(rest);
        arg.seconds = seconds(trim(piece))?;
        rest = &rest[piece.len()..];
    }
    match rest.split_first() {
        None => Some((arg, None)),
        Some((b',', behind)) => Some((arg, Some(behind))),
        Some(_) => None,
    }
}

/// A bare field, which holds no quote.
fn bare_field(text: &[u8]) -> Option<Vec<u8>> {
    Some(trim(text).to_vec()).filter(|field| !field.contains(&b'"'))
}

/// A value that ends in an expiry as Redis writes it.
fn has_redis_expiry(value: &[u8]) -> bool {
    let digits = value.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let text = value[..value.len() - digits].to_ascii_uppercase();
    digits > 0 && (text.ends_with(b" EX ") || text.ends_with(b" PX "))
}

fn seconds(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = std::str::from_utf8(text).ok()?.trim_start_matches('0');
    let seconds = digits.parse().ok()?;
    (1..=SECONDS_MAX).contains(&seconds).then_some(seconds)
}

/// The field that begins with a quote, and what stands behind it and its spaces.
fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut field = Vec::new();
    let mut bytes = text[1..].iter();
    loop {
        match *bytes.next()? {
            b'"' => return Some((field, skip_spaces(bytes.as_slice()))),
            b'\\' => field.push(match *bytes.next()? {
                byte @ (b'"' | b'\\') => byte,
                b'n' => 10,
                b'r' => 13,
                b't' => 9,
                b'0' => 0,
                b'x' => {
                    let high = char::from(*bytes.next()?).to_digit(16)?;
                    let low = char::from(*bytes.next()?).to_digit(16)?;
                    u8::try_from(high * 16 + low).ok()?
                }
                _ => return None,
            }),
            byte => field.push(byte),
        }
    }
}

/// A field as a reply shows it.
pub fn show(field: &[u8], is_key: bool) -> Vec<u8> {
    let needs_quotes = field.first() == Some(&b' ')
        || field.last() == Some(&b' ')
        || field.iter().any(|&byte| b"\",:".contains(&byte) || byte < 32 || byte == 127)
        || std::str::from_utf8(field).is_err()
        || (is_key && (field.is_empty() || field.contains(&b' ') || field.ends_with(b"*")));
    if needs_quotes { quote(field) } else { field.to_vec() }
}

/// A field in quotes.
pub fn quote(field: &[u8]) -> Vec<u8> {
    let mut shown = vec![b'"'];
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        // The first character of several bytes goes as it is.
        let longer = (2..=4).find(|&length| {
            byte >= 128 && rest.get(..length).is_some_and(|bytes| std::str::from_utf8(bytes).is_ok())
        });
        match byte {
            _ if longer.is_some() => shown.extend(&rest[..longer.unwrap_or(0)]),
            b'"' | b'\\' => shown.extend([b'\\', byte]),
            b'\n' => shown.extend(b"\\n"),
            b'\r' => shown.extend(b"\\r"),
            b'\t' => shown.extend(b"\\t"),
            0 => shown.extend(b"\\0"),
            32..127 => shown.push(byte),
            byte => shown.extend(format!("\\x{byte:02x}").into_bytes()),
        }
        rest = longer.map_or(behind, |length| &rest[length..]);
    }
    shown.push(b'"');
    shown
}

pub fn trim(text: &[u8]) -> &[u8] {
    let text = skip_spaces(text);
    let spaces = text.iter().rev().take_while(|&&byte| byte == b' ').count();
    &text[..text.len() - spaces]
}

fn skip_spaces(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|&&byte| byte == b' ').count()..]
}

fn until_comma(text: &[u8]) -> &[u8] {
    &text[..text.iter().take_while(|&&byte| byte != b',').count()]
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == at)?;
    Some((&text[..at], &text[at + 1..]))
}
