//! Fuzz target: what a line means. A request that can be read is printed and read again, and must be
//! the same; one that cannot gets one printable line.

use olivia::wire::args::{ArgLimits, Args};
use olivia::wire::line::{Front, front};
use olivia::wire::reply::{Reply, put_error};
use olivia::wire::request::{Command, Parser, Request};

/// Small, so that inputs reach them.
const LIMITS: ArgLimits = ArgLimits { args_max: 8, key_bytes_max: 24, value_bytes_max: 40 };

/// Bytes that no sentence about a request needs more of.
const SENTENCE_BYTES_MAX: usize = 400;

/// An argument with memory of its own.
type Owned = (Vec<u8>, Vec<u8>, u64);

/// The input is lines, the last of which need not end.
pub fn run(data: &[u8]) {
    let mut parser = Parser::default();
    let whole = [data, b"\n"].concat();
    let mut at = 0;
    while let Front::Line(line) = front(&whole[at..], whole.len()) {
        at += line.consumed;
        match parser.parse(line, LIMITS) {
            None => assert!(line.text.iter().all(|&byte| byte == b' '), "{line:?}"),
            Some(request) => check(&request),
        }
    }
    assert_eq!(at, whole.len());
}

fn check(request: &Request<'_>) {
    let is_id_byte = |byte: &u8| !b" :,\"\r\n".contains(byte);
    assert!(request.id.len() <= 64 && request.id.iter().all(is_id_byte), "{request:?}");
    match &request.command {
        Ok(command) => check_command(request.id, command),
        Err(error) => {
            let sentence = error.to_string();
            assert!(!sentence.is_empty() && sentence.len() <= SENTENCE_BYTES_MAX, "{sentence:?}");
            assert!(!sentence.contains(|c: char| c.is_control()), "{sentence:?}");
            let mut out = Vec::new();
            put_error(&mut out, request.id, error);
            assert_eq!(out.iter().position(|&byte| byte == b'\n'), Some(out.len() - 1), "{out:?}");
        }
    }
}

fn check_command(id: &[u8], command: &Command<'_>) {
    let Some(args) = arguments(command) else { return };
    let text = print(id, command);
    let Front::Line(line) = front(&text, text.len()) else { panic!("no line: {text:?}") };
    assert_eq!(line.consumed, text.len(), "more than a line: {text:?}");
    let mut parser = Parser::default();
    let again = parser.parse(line, LIMITS);
    let again = again.unwrap_or_else(|| panic!("nothing in {text:?}"));
    assert_eq!(again.id, id, "{text:?}");
    let read = again.command.unwrap_or_else(|error| panic!("{error} in {text:?}"));
    assert_eq!(std::mem::discriminant(&read), std::mem::discriminant(command), "{text:?}");
    assert_eq!(arguments(&read), Some(args), "{text:?}");
}

/// The arguments of commands that have some.
fn arguments(command: &Command<'_>) -> Option<Vec<Owned>> {
    let all = |args: Args<'_>| {
        assert!((1..=LIMITS.args_max).contains(&args.len()));
        args.iter().map(|arg| (arg.key.to_vec(), arg.value.to_vec(), arg.seconds)).collect()
    };
    match command {
        Command::Get(args)
        | Command::Set(args)
        | Command::SetEx(args)
        | Command::Del(args)
        | Command::Expire(args)
        | Command::Ttl(args) => Some(all(*args)),
        Command::Who(key) | Command::Auth(key) => Some(vec![(key.to_vec(), Vec::new(), 0)]),
        Command::Ping { .. }
        | Command::Request(_)
        | Command::Handshake(_)
        | Command::Mesh
        | Command::Stats
        | Command::Help
        | Command::Quit => None,
    }
}

/// The request as a line, in the form of replies.
fn print(id: &[u8], command: &Command<'_>) -> Vec<u8> {
    let word = match command {
        Command::Get(_) => "GET",
        Command::Set(_) => "SET",
        Command::SetEx(_) => "SETEX",
        Command::Del(_) => "DEL",
        Command::Expire(_) => "EXPIRE",
        Command::Ttl(_) => "TTL",
        Command::Who(_) => "WHO",
        Command::Auth(_) => "AUTH",
        Command::Ping { .. }
        | Command::Request(_)
        | Command::Handshake(_)
        | Command::Mesh
        | Command::Stats
        | Command::Help
        | Command::Quit => panic!("{command:?} has no arguments"),
    };
    let mut out = Vec::new();
    let mut reply = Reply::begin(&mut out, id, word);
    for (key, value, seconds) in arguments(command).unwrap_or_default() {
        match word {
            "SET" => reply.pair(&key, &value),
            "SETEX" => reply.pair_seconds(&key, &value, seconds),
            "EXPIRE" => reply.key_text(&key, seconds),
            _ => reply.key(&key),
        }
    }
    reply.end();
    if id.is_empty() { out.split_off(1) } else { out }
}
