//! Fuzz target: requests of the line protocol. A valid request is printed and parsed again with the same result; an
//! invalid one gets one printable line.

use olivia::wire::args::{ArgLimits, Scratch};
use olivia::wire::encoder::{Encoder, Protocol, put_error};
use olivia::wire::line::{Parsed, Request, parse};
use olivia::wire::line_form::{LineForm, Syntax};
use olivia::wire::request_error::RequestError;

/// Small, so that inputs reach them.
const LIMITS: ArgLimits =
    ArgLimits { args_max: 8, args_setting: "args_max", key_bytes_max: 24, value_bytes_max: 40 };

/// Bytes that no sentence about a request needs more of.
const SENTENCE_BYTES_MAX: usize = 400;

const fn form(verb: &'static str, arguments: &'static str, syntax: Syntax) -> LineForm {
    LineForm { verb, arguments, syntax, word: verb, example: verb }
}

/// A verb of each syntax.
static FORMS: [LineForm; 9] = [
    form("GET", "key", Syntax::Keys),
    form("SET", "key:value", Syntax::Pairs),
    form("SETEX", "key:value:seconds", Syntax::Timed),
    form("EXPIRE", "key:seconds", Syntax::Numbers),
    form("WHO", "key", Syntax::Key),
    form("AUTH", "password", Syntax::Field),
    form("HELP", "verb", Syntax::Words),
    form("STATS", "", Syntax::Bare),
    form("REQUEST", "topic", Syntax::Raw),
];

/// The input is lines, the last of which need not end.
pub fn run(data: &[u8]) {
    let whole = [data, b"\n"].concat();
    let mut at = 0;
    while let Parsed::Line(line) = parse(&whole[at..], whole.len()) {
        at += line.consumed;
        match line.request() {
            None => assert!(line.text.iter().all(|&byte| byte == b' '), "{line:?}"),
            Some(Err(error)) => check_error(b"", &error),
            Some(Ok(request)) => check(request),
        }
    }
    assert_eq!(at, whole.len());
}

fn check(request: Request<'_>) {
    let is_id_byte = |byte: &u8| !b" :,\"\r\n".contains(byte);
    assert!(request.id.len() <= 64 && request.id.iter().all(is_id_byte), "{request:?}");
    let is_named = |form: &&LineForm| request.verb.eq_ignore_ascii_case(form.verb.as_bytes());
    let Some(form) = FORMS.iter().find(is_named) else { return };
    match read(form, request.body) {
        Err(sentence) => assert!(!sentence.is_empty()),
        Ok(args) => {
            let step = form.syntax.step();
            assert!(args.len() % step == 0 && args.len() / step <= LIMITS.args_max, "{request:?}");
            if form.syntax != Syntax::Raw {
                let text = print(request.id, form, &args);
                let Parsed::Line(line) = parse(&text, text.len()) else { panic!("no line: {text:?}") };
                assert_eq!(line.consumed, text.len(), "more than a line: {text:?}");
                let again = line.request().unwrap().unwrap();
                assert_eq!((again.id, again.verb), (request.id, form.verb.as_bytes()), "{text:?}");
                assert_eq!(read(form, again.body), Ok(args), "{text:?}");
            }
        }
    }
}

/// The arguments, or the sentence about what is wrong.
fn read(form: &'static LineForm, body: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut scratch = Scratch::default();
    match scratch.args(form, body, LIMITS) {
        Ok(args) => Ok(args.iter().map(<[u8]>::to_vec).collect()),
        Err(error) => {
            check_error(b"id", &error);
            Err(error.to_string())
        }
    }
}

fn check_error(id: &[u8], error: &RequestError<'_>) {
    let sentence = error.to_string();
    assert!(!sentence.is_empty() && sentence.len() <= SENTENCE_BYTES_MAX, "{sentence:?}");
    assert!(!sentence.contains(|c: char| c.is_control()), "{sentence:?}");
    for protocol in [Protocol::Lines, Protocol::Resp2] {
        let mut out = Vec::new();
        put_error(&mut out, protocol, id, error);
        assert_eq!(out.iter().position(|&byte| byte == b'\n'), Some(out.len() - 1), "{out:?}");
    }
}

/// The request as a line, in the form of replies.
fn print(id: &[u8], form: &'static LineForm, args: &[Vec<u8>]) -> Vec<u8> {
    let mut reply = Encoder::begin(Vec::new(), Protocol::Lines, id, form.verb);
    for tuple in args.chunks(form.syntax.step()) {
        reply.key(&tuple[0]);
        match (form.syntax, tuple) {
            (Syntax::Timed, [_, seconds, value]) => {
                reply.bulk(value);
                put_number(&mut reply, seconds);
            }
            (Syntax::Numbers, [_, number]) => put_number(&mut reply, number),
            (_, rest) => rest[1..].iter().for_each(|value| reply.bulk(value)),
        }
    }
    let text = reply.end();
    if id.is_empty() { text[1..].to_vec() } else { text }
}

/// Appends what is to be a number, and may be anything.
fn put_number(reply: &mut Encoder, text: &[u8]) {
    if text.is_empty() {
        reply.text("");
    }
    reply.append(text);
}
