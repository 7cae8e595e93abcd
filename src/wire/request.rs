//! A line's text into a command: verbs, arguments, quotes, and the sentences for what is wrong.
//!
//! A line is parsed whole before anything is carried out, so a command with an error in its last
//! argument changes nothing. Arguments are spans of the line; only those with escapes are copied, into
//! a scratch that lives in the [`Parser`], so a request allocates nothing once the scratch has grown.

use super::args::{ArgLimits, Args, Scratch, Shape, trim};
use super::line::Line;
use super::request_error::RequestError;
use memchr::memchr;

/// Bytes of a request's id.
pub(super) const ID_BYTES_MAX: usize = 64;

/// Bytes of the longest verb.
const VERB_BYTES_MAX: usize = 7;

/// A request as far as it could be read: the id, if it had a proper one, and the command or what is wrong.
#[derive(Debug)]
pub struct Request<'a> {
    /// The id, empty if there was none.
    pub id: &'a [u8],
    /// What is asked.
    pub command: Result<Command<'a>, RequestError<'a>>,
}

/// What is asked. The arguments of those that take several are in the order of the line, at least one.
#[derive(Debug)]
pub enum Command<'a> {
    /// Values of keys.
    Get(Args<'a>),
    /// Set keys to values, for ever.
    Set(Args<'a>),
    /// Set keys to values, for some seconds.
    SetEx(Args<'a>),
    /// Remove keys.
    Del(Args<'a>),
    /// Give keys a deadline.
    Expire(Args<'a>),
    /// How long keys have left.
    Ttl(Args<'a>),
    /// Whether anybody is there.
    Ping {
        /// In exactly the form that health checkers written for Redis use.
        of_redis: bool,
    },
    /// About the mesh.
    Request(Topic),
    /// A node that wants to link: the arguments of its `REQUEST connect`, for [`super::handshake`].
    Handshake(&'a [u8]),
    /// Which nodes hold a key.
    Who(&'a [u8]),
    /// The peers, for people.
    Mesh,
    /// A password.
    Auth(&'a [u8]),
    /// The node's figures.
    Stats,
    /// The verbs.
    Help,
    /// The end of the connection.
    Quit,
}

impl Command<'_> {
    /// How many keys it is about: what it costs, roughly. 1 for those that are about none.
    pub fn keys(&self) -> usize {
        match self {
            Self::Get(args)
            | Self::Set(args)
            | Self::SetEx(args)
            | Self::Del(args)
            | Self::Expire(args)
            | Self::Ttl(args) => args.len(),
            Self::Ping { .. }
            | Self::Request(_)
            | Self::Handshake(_)
            | Self::Who(_)
            | Self::Mesh
            | Self::Auth(_)
            | Self::Stats
            | Self::Help
            | Self::Quit => 1,
        }
    }
}

/// What a `REQUEST` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// The node's filter, as text.
    BloomFilter,
    /// The peers' addresses.
    Peers,
    /// As the filter.
    Connect,
    /// The end of the connection.
    Disconnect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Set,
    SetEx,
    Del,
    Expire,
    Ttl,
    Ping,
    Request,
    Who,
    Mesh,
    Auth,
    Stats,
    Help,
    Quit,
}

/// The verbs with their arguments, as HELP shows them.
pub const HELP: &str = "GET key,SET key:value,SETEX key:value:seconds,DEL key,EXPIRE key:seconds,TTL key,\
     WHO key,PING,MESH,STATS,AUTH password,REQUEST peers,REQUEST bloomfilter,REQUEST connect,\
     REQUEST disconnect,HELP,QUIT";

/// Reads requests. Keeps its scratch from one to the next: as much as the largest needed.
#[derive(Debug, Default)]
pub struct Parser {
    scratch: Scratch,
}

impl Parser {
    /// Reads one line. `None`: it is empty, which is not a request. O(bytes of the line).
    pub fn parse<'a>(&'a mut self, line: Line<'a>, limits: ArgLimits) -> Option<Request<'a>> {
        let text = trim(line.text);
        if text.is_empty() {
            return None;
        }
        let word_end = memchr(b' ', text).unwrap_or(text.len());
        let (word, body) = (&text[..word_end], trim(&text[word_end..]));
        let (id, verb) = match memchr(b':', word) {
            Some(colon) if !is_id(&word[..colon]) => {
                return Some(Request { id: b"", command: Err(RequestError::BadId) });
            }
            Some(colon) => (&word[..colon], &word[colon + 1..]),
            None => (&b""[..], word),
        };
        let Some((verb, name)) = find_verb(verb) else {
            let error = if verb.is_empty() { RequestError::NoVerb } else { RequestError::UnknownVerb(verb) };
            return Some(Request { id, command: Err(error) });
        };
        let of_redis = line.crlf && line.text.len() == word.len() && id.is_empty();
        Some(Request { id, command: self.command(verb, name, body, of_redis, limits) })
    }

    fn command<'a>(
        &'a mut self,
        verb: Verb,
        name: &'static str,
        body: &'a [u8],
        of_redis: bool,
        limits: ArgLimits,
    ) -> Result<Command<'a>, RequestError<'a>> {
        let bare = |command| match body {
            b"" => Ok(command),
            _ => Err(RequestError::SurplusArgument(name, body)),
        };
        match verb {
            Verb::Get => self.scratch.args(name, Shape::Key, body, limits).map(Command::Get),
            Verb::Set => self.scratch.args(name, Shape::KeyValue, body, limits).map(Command::Set),
            Verb::SetEx => self.scratch.args(name, Shape::KeyValueSeconds, body, limits).map(Command::SetEx),
            Verb::Del => self.scratch.args(name, Shape::Key, body, limits).map(Command::Del),
            Verb::Expire => self.scratch.args(name, Shape::KeySeconds, body, limits).map(Command::Expire),
            Verb::Ttl => self.scratch.args(name, Shape::Key, body, limits).map(Command::Ttl),
            Verb::Who => self.one_field(name, "key", body, limits).map(Command::Who),
            Verb::Auth => {
                // A password is no key: what bounds it is the line.
                let limits = ArgLimits { key_bytes_max: usize::MAX, ..limits };
                self.one_field(name, "a password", body, limits).map(Command::Auth)
            }
            Verb::Ping if body == b"0" => Ok(Command::Ping { of_redis: false }),
            Verb::Ping => bare(Command::Ping { of_redis }),
            Verb::Request => about_mesh(body),
            Verb::Mesh => bare(Command::Mesh),
            Verb::Stats => bare(Command::Stats),
            Verb::Help => bare(Command::Help),
            Verb::Quit => bare(Command::Quit),
        }
    }

    fn one_field<'a>(
        &'a mut self,
        name: &'static str,
        what: &'static str,
        body: &'a [u8],
        limits: ArgLimits,
    ) -> Result<&'a [u8], RequestError<'a>> {
        if body.is_empty() {
            return Err(RequestError::NoArgument(name, what));
        }
        let args = self.scratch.args(name, Shape::Key, body, limits)?;
        let mut fields = args.iter();
        match (fields.next(), fields.next()) {
            (Some(field), None) => Ok(field.key),
            _ => Err(RequestError::OneFieldOnly(name)),
        }
    }
}

fn about_mesh(body: &[u8]) -> Result<Command<'_>, RequestError<'_>> {
    let end = memchr(b' ', body).unwrap_or(body.len());
    let (word, rest) = (&body[..end], trim(&body[end..]));
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let topic = match () {
        () if word.is_empty() => {
            return Err(RequestError::NoArgument("REQUEST", "peers, bloomfilter, connect or disconnect"));
        }
        () if is("bloomfilter") => Topic::BloomFilter,
        () if is("peers") => Topic::Peers,
        () if is("connect") && !rest.is_empty() => return Ok(Command::Handshake(rest)),
        () if is("connect") => Topic::Connect,
        () if is("disconnect") => Topic::Disconnect,
        () => return Err(RequestError::UnknownTopic(word)),
    };
    match rest {
        b"" => Ok(Command::Request(topic)),
        _ => Err(RequestError::SurplusArgument("REQUEST", rest)),
    }
}

/// The verb that a word names in any case, with its proper name.
fn find_verb(word: &[u8]) -> Option<(Verb, &'static str)> {
    if word.len() > VERB_BYTES_MAX {
        return None;
    }
    let mut upper = [0; VERB_BYTES_MAX];
    let upper = &mut upper[..word.len()];
    upper.copy_from_slice(word);
    upper.make_ascii_uppercase();
    Some(match &*upper {
        b"GET" => (Verb::Get, "GET"),
        b"SET" => (Verb::Set, "SET"),
        b"SETEX" => (Verb::SetEx, "SETEX"),
        b"DEL" => (Verb::Del, "DEL"),
        b"EXPIRE" => (Verb::Expire, "EXPIRE"),
        b"TTL" => (Verb::Ttl, "TTL"),
        b"PING" => (Verb::Ping, "PING"),
        b"REQUEST" => (Verb::Request, "REQUEST"),
        b"WHO" => (Verb::Who, "WHO"),
        b"MESH" => (Verb::Mesh, "MESH"),
        b"AUTH" => (Verb::Auth, "AUTH"),
        b"STATS" => (Verb::Stats, "STATS"),
        b"HELP" => (Verb::Help, "HELP"),
        b"QUIT" => (Verb::Quit, "QUIT"),
        _ => return None,
    })
}

/// The keys that a line seems to name.
#[derive(Debug, Clone)]
pub struct LikelyKeys<'l> {
    /// Whether it seems to set them: SET and SETEX have a value behind each key.
    pub sets: bool,
    rest: Option<&'l [u8]>,
}

/// The keys that a line seems to name, without reading it properly: for fetching what will be needed,
/// never for deciding anything. O(bytes of the line), less what the caller does not take.
pub fn likely_keys(text: &[u8]) -> LikelyKeys<'_> {
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let word_end = memchr(b' ', text).unwrap_or(text.len());
    let verb = text[..word_end].rsplit(|&byte| byte == b':').next();
    let sets = verb.and_then(<[u8]>::first).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'S'));
    let body = text.get(word_end + 1..).unwrap_or_default();
    LikelyKeys { sets, rest: Some(body).filter(|body| !body.is_empty()) }
}

impl<'l> Iterator for LikelyKeys<'l> {
    type Item = &'l [u8];

    fn next(&mut self) -> Option<&'l [u8]> {
        let body = self.rest?;
        let end = memchr(b',', body).unwrap_or(body.len());
        self.rest = body.get(end + 1..);
        let field = &body[..end];
        Some(if self.sets { &field[..memchr(b':', field).unwrap_or(end)] } else { field })
    }
}

/// Whether these bytes may stand before the colon of a request. None holds a space or a colon by now.
fn is_id(bytes: &[u8]) -> bool {
    (1..=ID_BYTES_MAX).contains(&bytes.len()) && !bytes.iter().any(|byte| matches!(byte, b',' | b'"' | b'\r'))
}

#[cfg(test)]
mod tests {
    use super::{Command, Parser, Topic};
    use crate::base::rng::Rng;
    use crate::wire::args::ArgLimits;
    use crate::wire::line::{Front, front};
    use crate::wire::reply::Reply;

    const LIMITS: ArgLimits = ArgLimits { args_max: 4, key_bytes_max: 10, value_bytes_max: 20 };

    /// The arguments of a line, or the sentence about it.
    fn parse(text: &str) -> Result<Vec<(String, String, u64)>, String> {
        let mut parser = Parser::default();
        let whole = format!("{text}\n");
        let Front::Line(line) = front(whole.as_bytes(), 1_000) else { panic!("{text}") };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match parser.parse(line, LIMITS).unwrap().command {
            Ok(
                Command::Get(args)
                | Command::Set(args)
                | Command::SetEx(args)
                | Command::Del(args)
                | Command::Expire(args)
                | Command::Ttl(args),
            ) => Ok(args.iter().map(|arg| (text(arg.key), text(arg.value), arg.seconds)).collect()),
            Ok(Command::Who(key) | Command::Auth(key)) => Ok(vec![(text(key), String::new(), 0)]),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    fn args(expected: &[(&str, &str, u64)]) -> Result<Vec<(String, String, u64)>, String> {
        Ok(expected.iter().map(|&(key, value, seconds)| (key.into(), value.into(), seconds)).collect())
    }

    #[test]
    fn colon_that_splits_depends_on_the_verb() {
        assert_eq!(parse("GET a:b:c"), args(&[("a:b:c", "", 0)]));
        assert_eq!(parse("SET a:b:c"), args(&[("a", "b:c", 0)]));
        assert_eq!(parse("SETEX a:b:c:9"), args(&[("a", "b:c", 9)]));
        assert_eq!(parse("EXPIRE a:b:9"), args(&[("a:b", "", 9)]));
        assert_eq!(parse("SET \"a:b\":c"), args(&[("a:b", "c", 0)]));
        assert_eq!(parse("SETEX \"a:b\":\"c:1,\":9"), args(&[("a:b", "c:1,", 9)]));
        assert_eq!(parse("EXPIRE \"a\":9"), args(&[("a", "", 9)]));
    }

    #[test]
    fn connect_is_a_handshake_only_with_arguments() {
        let mut parser = Parser::default();
        let mut command = |text: &'static [u8]| {
            let Front::Line(line) = front(text, 100) else { panic!("{text:?}") };
            format!("{:?}", parser.parse(line, LIMITS).unwrap().command)
        };
        assert_eq!(
            command(b"REQUEST connect\n"),
            format!("{:?}", Ok::<_, ()>(Command::Request(Topic::Connect)))
        );
        let handshake = Ok::<_, ()>(Command::Handshake(b"a=1, b=\",\""));
        assert_eq!(command(b"h1:request CONNECT  a=1, b=\",\" \n"), format!("{handshake:?}"));
        assert!(command(b"REQUEST peers x\n").contains("SurplusArgument"));
    }

    #[test]
    fn spaces_around_fields_are_not_part_of_them() {
        assert_eq!(parse("  set  a : b c  , d:  e "), args(&[("a", "b c", 0), ("d", "e", 0)]));
        assert_eq!(parse("GET  a b , \"c\"  ,d"), args(&[("a b", "", 0), ("c", "", 0), ("d", "", 0)]));
        assert_eq!(parse("SET a: \" b \" ,c:d"), args(&[("a", " b ", 0), ("c", "d", 0)]));
        assert_eq!(parse("SETEX a: b : 9 "), args(&[("a", "b", 9)]));
        assert_eq!(parse("SET a:\tb\t"), args(&[("a", "\tb\t", 0)]));
    }

    #[test]
    fn empty_value_is_fine_empty_key_only_in_quotes() {
        assert_eq!(parse("SET a:"), args(&[("a", "", 0)]));
        assert_eq!(parse("SETEX a::9"), args(&[("a", "", 9)]));
        assert_eq!(parse("GET \"\""), args(&[("", "", 0)]));
        assert_eq!(parse("SET \"\":\"\""), args(&[("", "", 0)]));
        assert!(parse("SET :b").unwrap_err().contains("empty key"));
        assert!(parse("SET  :b").unwrap_err().contains("empty key"));
        assert!(parse("EXPIRE :9").unwrap_err().contains("empty key"));
    }

    #[test]
    fn quote_opens_a_field_only_as_its_first_byte() {
        assert_eq!(parse("GET a\"b,c\""), args(&[("a\"b", "", 0), ("c\"", "", 0)]));
        assert_eq!(parse(r#"SET a:"a\"\\\n\r\t\0\x41\x7A,:""#), args(&[("a", "a\"\\\n\r\t\0Az,:", 0)]));
        assert_eq!(parse(r#"SET a:\n"#), args(&[("a", "\\n", 0)]));
    }

    #[test]
    fn each_mistake_gets_its_own_sentence() {
        for (text, sentence) in [
            ("FOO x", "unknown verb FOO; try HELP"),
            ("x:", "no verb after the id; try HELP"),
            ("SET key", "SET needs key:value; 'key' has no colon"),
            ("SET a:b,key", "SET needs key:value; 'key' has no colon"),
            ("SETEX a:1", "SETEX needs key:value:seconds; 'a:1' has no second colon"),
            ("SETEX a", "SETEX needs key:value:seconds; 'a' has no second colon"),
            ("EXPIRE a", "EXPIRE needs key:seconds; 'a' has no colon"),
            ("GET", "GET needs key"),
            ("AUTH", "AUTH needs a password"),
            ("STATS now", "STATS takes no argument like 'now'"),
            ("PING 5", "PING takes no argument like '5'"),
            ("AUTH a,b", "AUTH takes exactly one field; quote it if it holds a comma"),
            ("SETEX a:b:0", "SETEX needs at least 1 second; DEL removes a key at once"),
            ("SETEX a:b:-5", "SETEX counts seconds from now, at least 1; '-5' is negative"),
            ("SETEX a:b:1.5", "SETEX needs whole seconds; '1.5' is a fraction"),
            ("SETEX a:b:x", "SETEX needs whole seconds behind the last colon; 'x' is no number"),
            ("SETEX a:b:", "SETEX needs whole seconds behind the last colon; '' is no number"),
            ("EXPIRE a:1000000001", "EXPIRE takes at most 1000000000 seconds; '1000000001' is more"),
            (
                "EXPIRE a:99999999999999999999999",
                "EXPIRE takes at most 1000000000 seconds; '99999999999999999999999' is more",
            ),
            ("GET \"a", "GET has a quote that never closes; end the field with \""),
            ("GET \"a\\", "GET has an unknown escape '\\'; there are \\\" \\\\ \\n \\r \\t \\0 \\xHH"),
            ("GET \"\\q\"", "GET has an unknown escape '\\q\"'; there are \\\" \\\\ \\n \\r \\t \\0 \\xHH"),
            ("GET \"a\"b", "GET has 'b' behind a closing quote; a quoted field ends there"),
            ("SET \"a\"b:c", "SET has 'b:c' behind a closing quote; a quoted field ends there"),
            ("SET a:\"b\"c", "SET has 'c' behind a closing quote; a quoted field ends there"),
            ("GET a,b,c,d,e", "GET has more than 4 arguments; send several requests"),
            ("GET 12345678901", "GET has a key of more than 10 bytes"),
            ("SET a:123456789012345678901", "SET has a value of more than 20 bytes"),
            ("REQUEST tea", "REQUEST takes peers, bloomfilter, connect or disconnect, not 'tea'"),
            ("a,b:GET x", "an id before the verb is 1 to 64 bytes without space, colon, comma or quote"),
            (":GOT x", "an id before the verb is 1 to 64 bytes without space, colon, comma or quote"),
        ] {
            assert_eq!(parse(text), Err(sentence.to_owned()), "{text}");
        }
        for text in ["GET a,", "GET ,a", "GET a,,b", "SET a:b,", "SET ,"] {
            assert!(parse(text).unwrap_err().contains("empty argument"), "{text}");
        }
    }

    #[test]
    fn whatever_a_key_and_value_hold_the_printed_pair_reads_back() {
        let mut rng = Rng::new(5);
        let mut parser = Parser::default();
        let limits = ArgLimits { args_max: 3, key_bytes_max: 99, value_bytes_max: 99 };
        let alphabet = b" \",:\\\r\n\t\0ax\x7f\xff\xc3\xbc-0";
        for _ in 0..60_000 {
            let mut draw = || -> Vec<u8> {
                let wild = rng.one_in(3);
                (0..rng.below(8))
                    .map(|_| {
                        let at = rng.below(if wild { 256 } else { alphabet.len() as u64 });
                        let at = usize::try_from(at).unwrap();
                        if wild { u8::try_from(at).unwrap() } else { alphabet[at] }
                    })
                    .collect()
            };
            let pairs: Vec<_> = (0..3).map(|_| (draw(), draw())).collect();
            let mut text = Vec::new();
            let mut reply = Reply::begin(&mut text, b"", "SET");
            for (key, value) in &pairs {
                reply.pair(key, value);
            }
            reply.end();
            let Front::Line(line) = front(&text[1..], 10_000) else { panic!("{text:?}") };
            let request = parser.parse(line, limits).unwrap();
            let Ok(Command::Set(args)) = request.command else { panic!("{text:?}: {request:?}") };
            let read: Vec<_> = args.iter().map(|arg| (arg.key.to_vec(), arg.value.to_vec())).collect();
            assert_eq!(read, pairs, "{}", String::from_utf8_lossy(&text));
        }
    }
}
