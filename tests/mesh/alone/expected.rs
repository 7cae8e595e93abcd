//! The replies that one connection may send next: each is checked as it appears, against the next request that
//! the node was given on that connection.
//!
//! A call below the boundary carries out requests of one connection only, and their replies appear in
//! its outbound buffer within that call. So judging what is new after each call meets the requests of
//! all connections in the order in which they were carried out.

use super::super::protocol::{PendingRequest, Request, read, trim};
use super::model::{Model, can_hold};
use olivia::base::time::Instant;
use olivia::config::Config;
use std::time::Duration;

/// Why a connection gets no more replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Quit,
    Protocol,
    Idle,
    Unauthenticated,
    Drained,
}

/// The oracle's state of the node, without that of one connection.
#[derive(Debug)]
pub struct Desk<'w> {
    pub model: &'w mut Model,
    pub config: &'w Config,
    pub now: Instant,
    pub is_draining: bool,
    /// Writes that had no room.
    pub full: &'w mut u64,
}

const TOO_MANY_WRONG_PASSWORDS: &[u8] =
    b"ERR too many wrong passwords from your address range; try again in ";

/// The next input for the node to answer.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// A line's text, whether CR stood before its LF, and where the next begins.
    Line(Vec<u8>, bool, usize),
    TooLong,
    Resp,
    Browser,
    Nothing,
}

/// One connection.
#[derive(Debug)]
pub struct Talk {
    /// All input of the node.
    input: Vec<u8>,
    /// Up to where it is answered.
    at: usize,
    pub is_shut: bool,
    is_authenticated: bool,
    early_bytes: usize,
    pub is_loopback: bool,
    made: Instant,
    /// When a byte last came, or the connection was made.
    pub heard: Instant,
    pub end: Option<End>,
    /// A reply that has no line end yet.
    partial: Vec<u8>,
}

impl Talk {
    pub fn new(config: &Config, now: Instant, is_loopback: bool) -> Self {
        Self {
            input: Vec::new(),
            at: 0,
            is_shut: false,
            is_authenticated: config.password.is_none(),
            early_bytes: 0,
            is_loopback,
            made: now,
            heard: now,
            end: None,
            partial: Vec::new(),
        }
    }

    /// Notes what the node was given.
    pub fn gave(&mut self, now: Instant, bytes: &[u8]) {
        self.heard = now;
        self.input.extend_from_slice(bytes);
    }

    /// Judges new bytes from the node. Gives the texts of STATS replies, each with the fewest keys that
    /// were there then.
    pub fn check_replies(&mut self, desk: &mut Desk<'_>, bytes: &[u8]) -> Vec<(String, usize)> {
        let mut stats = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if let Some(line) = self.partial.strip_suffix(b"\n").map(<[u8]>::to_vec) {
                self.partial.clear();
                assert_eq!(self.end, None, "a reply behind the last one: {}", line.escape_ascii());
                let text = self.reply(desk, &line);
                stats.extend(text.map(|text| (text, desk.model.count(desk.now.millis()).0)));
            }
        }
        assert!(self.partial.is_empty(), "a reply without its end: {}", self.partial.escape_ascii());
        stats
    }

    /// Whether all that can be answered was.
    pub fn is_answered(&self, config: &Config) -> bool {
        self.end.is_some() || self.next(config).0 == Next::Nothing
    }

    /// Whether the next line is an HTTP head.
    pub fn is_browser_next(&self, config: &Config) -> bool {
        self.next(config).0 == Next::Browser
    }

    /// Notes that the node has closed the connection in a call that may have carried out any of its
    /// requests, whose replies are not seen.
    pub fn vanish(&mut self, desk: &mut Desk<'_>) {
        while self.end.is_none() {
            let (Next::Line(text, crlf, behind), _) = self.next(desk.config) else { return };
            self.at = behind;
            let Some(request) = self.read(desk.config, &text, crlf) else { continue };
            match request.content {
                PendingRequest::Keys(verb, args) if self.is_authenticated => {
                    let now_ms = desk.now.millis();
                    if args.iter().all(|arg| can_hold(now_ms, arg.seconds)) {
                        desk.model.perhaps(now_ms, verb, &args);
                    }
                }
                PendingRequest::Auth(given) => self.is_authenticated |= is_password(desk.config, &given),
                PendingRequest::Quit => return,
                PendingRequest::Disconnect if self.is_authenticated => return,
                PendingRequest::Keys(..)
                | PendingRequest::Disconnect
                | PendingRequest::Ping
                | PendingRequest::RedisPing
                | PendingRequest::Stats
                | PendingRequest::Help => {}
                PendingRequest::Mesh | PendingRequest::Peers | PendingRequest::Wrong => {}
            }
        }
    }

    /// Returns the next input to answer and its begin, after lines without a reply.
    fn next(&self, config: &Config) -> (Next, usize) {
        let limit = config.limits.line_bytes_max;
        let early = config.limits.unauthenticated_line_bytes_max.min(limit);
        let limit = if self.is_authenticated { limit } else { early } as usize;
        if self.input.first() == Some(&b'*') {
            return (if self.at == 0 { Next::Resp } else { Next::Nothing }, self.at);
        }
        let mut at = self.at;
        loop {
            let rest = &self.input[at..];
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                let text = rest.strip_suffix(b"\r").unwrap_or(rest);
                return (if text.len() > limit { Next::TooLong } else { Next::Nothing }, at);
            };
            let text = &rest[..end];
            let crlf = text.ends_with(b"\r");
            let text = if crlf { &text[..end - 1] } else { text };
            if text.len() > limit {
                return (Next::TooLong, at);
            }
            if text.starts_with(b"POST ") || text.starts_with(b"Host:") {
                return (Next::Browser, at);
            }
            if !trim(text).is_empty() {
                return (Next::Line(text.to_vec(), crlf, at + end + 1), at);
            }
            at += end + 1;
        }
    }

    fn read(&self, config: &Config, text: &[u8], crlf: bool) -> Option<Request> {
        let limits = &config.limits;
        let early = limits.args_max.min(limits.unauthenticated_args_max);
        read(text, crlf, limits, if self.is_authenticated { limits.args_max } else { early })
    }

    fn reply(&mut self, desk: &mut Desk<'_>, line: &[u8]) -> Option<String> {
        let shown = line.escape_ascii();
        if line.starts_with(b":ERR the password was not given in time") {
            self.stayed_strange(desk);
            return None;
        }
        let (next, begin) = self.next(desk.config);
        match next {
            Next::Line(text, crlf, behind) => {
                let request = self.read(desk.config, &text, crlf);
                let request = request.unwrap_or_else(|| panic!("{shown} is a reply to an empty line"));
                self.at = behind;
                let stats = self
                    .answer(desk, &request, line)
                    .unwrap_or_else(|wrong| panic!("{} was answered {shown}: {wrong}", text.escape_ascii()));
                if !self.is_authenticated && self.end.is_none() {
                    self.early_bytes += line.len() + 1;
                    let is_over =
                        self.early_bytes > desk.config.limits.unauthenticated_output_bytes_max as usize;
                    self.end = is_over.then_some(End::Unauthenticated);
                }
                return stats;
            }
            Next::TooLong => {
                assert!(line.starts_with(b":ERR line longer than "), "{shown} for a line too long");
                self.end = Some(End::Protocol);
            }
            Next::Resp => {
                assert!(line.starts_with(b"-ERR Protocol error: "), "{shown} for another protocol");
                self.end = Some(End::Protocol);
            }
            Next::Browser => panic!("a browser received {shown}"),
            Next::Nothing => self.unasked(desk, line, begin),
        }
        None
    }

    /// The time limit of a client that gave no password has passed, and the node carries out no more, whatever
    /// has come already.
    fn stayed_strange(&mut self, desk: &Desk<'_>) {
        assert!(!self.is_authenticated && !self.is_loopback, "no password is waited for");
        let (strange, patience_ms) = (desk.now.since(self.made), desk.config.limits.request_idle_ms);
        assert!(strange >= Duration::from_millis(patience_ms.into()), "it had {strange:?} for the password");
        self.end = Some(End::Unauthenticated);
    }

    /// Checks lines that the node sends without a request.
    fn unasked(&mut self, desk: &Desk<'_>, line: &[u8], begin: usize) {
        let shown = line.escape_ascii();
        let limits = &desk.config.limits;
        if line == b":BYE " {
            assert!(desk.is_draining, "BYE, though the node does not shut down");
            self.end = Some(End::Drained);
        } else if line.starts_with(b":ERR the last line has no line end") {
            assert!(self.is_shut && begin < self.input.len(), "{shown}, though there is no such line");
            self.at = self.input.len();
        } else if line.starts_with(b":ERR nothing came for too long") {
            let patience_ms = if begin < self.input.len() {
                limits.request_idle_ms
            } else {
                let is_expected = self.input.is_empty() && !self.is_loopback;
                assert!(is_expected, "{shown}, though nothing is expected");
                limits.first_byte_ms
            };
            let silent = desk.now.since(self.heard);
            assert!(silent >= Duration::from_millis(patience_ms.into()), "{shown}, after {silent:?}");
            self.end = Some(End::Idle);
        } else {
            panic!("{shown}, and no request is pending");
        }
    }

    /// Judges the reply to a request, and carries it out. What is wrong, if anything is.
    fn answer(
        &mut self,
        desk: &mut Desk<'_>,
        request: &Request,
        line: &[u8],
    ) -> Result<Option<String>, String> {
        if request.content == PendingRequest::RedisPing {
            return if line == b"+PONG\r" { Ok(None) } else { Err("not as Redis does".to_owned()) };
        }
        let rest = line.strip_prefix(request.id.as_slice());
        // A PING without an id has one all the same.
        let is_numbered = request.content == PendingRequest::Ping && request.id.is_empty();
        let rest = rest.and_then(|rest| if is_numbered { rest.strip_prefix(b"0") } else { Some(rest) });
        let rest = rest.and_then(|rest| rest.strip_prefix(b":")).ok_or("another id")?;
        let is_error = rest.starts_with(b"ERR ") && rest.len() > 4;
        let demand = |is_right: bool| if is_right { Ok(None) } else { Err("not right".to_owned()) };
        let is_open_to_all = matches!(
            request.content,
            PendingRequest::Ping
                | PendingRequest::Help
                | PendingRequest::Quit
                | PendingRequest::Auth(_)
                | PendingRequest::Wrong
        );
        if !self.is_authenticated && !is_open_to_all {
            return demand(rest == b"ERR authentication needed; send AUTH password");
        }
        match &request.content {
            PendingRequest::Ping => demand(rest == b"PONG 1"),
            // All verbs, or what one of them does.
            PendingRequest::Help => {
                let lists_all = rest.starts_with(b"HELP GET key,") && rest.ends_with(b",QUIT");
                let is_of_one = rest.windows(10).any(|text| text == b" Example: ");
                demand(rest.starts_with(b"HELP ") && (lists_all || is_of_one))
            }
            PendingRequest::Quit => {
                self.end = Some(End::Quit);
                demand(rest == b"BYE ")
            }
            // Of all clients of the address range; wrong ones count before they are answered.
            PendingRequest::Auth(_) if rest.starts_with(TOO_MANY_WRONG_PASSWORDS) => Ok(None),
            PendingRequest::Auth(given) if is_password(desk.config, given) => {
                self.is_authenticated = true;
                demand(rest == b"WELCOME ")
            }
            PendingRequest::Auth(_) | PendingRequest::Wrong | PendingRequest::RedisPing => demand(is_error),
            PendingRequest::Mesh => demand(rest == b"MESH "),
            PendingRequest::Peers => demand(rest == b"FULFILLED "),
            PendingRequest::Disconnect => {
                self.end = Some(End::Quit);
                demand(rest == b"FULFILLED bye")
            }
            PendingRequest::Stats => {
                let fields = rest.strip_prefix(b"STATS ").ok_or("no figures")?;
                Ok(Some(String::from_utf8(fields.to_vec()).map_err(|error| error.to_string())?))
            }
            PendingRequest::Keys(..) => keys(desk, request, line.len(), rest),
        }
    }
}

/// Judges the reply to a request about keys.
fn keys(
    desk: &mut Desk<'_>,
    request: &Request,
    line_bytes: usize,
    rest: &[u8],
) -> Result<Option<String>, String> {
    let PendingRequest::Keys(verb, args) = &request.content else { return Err("no keys".to_owned()) };
    let now_ms = desk.now.millis();
    let word_bytes = request.id.len() + verb.word().len() + 2;
    let limits = &desk.config.limits;
    if let Some(sentence) = rest.strip_prefix(b"ERR ") {
        let is_full = sentence.starts_with(b"out of memory") && limits.memory_max != 0;
        let is_long = sentence.starts_with(b"the reply would be longer")
            && word_bytes + desk.model.longest_reply(now_ms, *verb, args) > limits.reply_bytes_max as usize;
        let is_far = sentence.starts_with(b"the deadline is too far")
            && !args.iter().all(|arg| can_hold(now_ms, arg.seconds));
        *desk.full += u64::from(is_full);
        return if is_full || is_long || is_far { Ok(None) } else { Err("no reason to refuse".to_owned()) };
    }
    let is_bounded = matches!(verb.word(), "GOT" | "SAT" | "SATEX");
    if is_bounded && line_bytes > limits.reply_bytes_max as usize {
        return Err(format!("a reply of {line_bytes} bytes"));
    }
    let fields = rest.strip_prefix(verb.word().as_bytes()).and_then(|rest| rest.strip_prefix(b" "));
    let fields = fields.ok_or("another word")?;
    if desk.model.accepts(now_ms, *verb, args, fields) {
        return Ok(None);
    }
    let held: Vec<_> = args.iter().map(|arg| desk.model.candidates(&arg.key, now_ms)).collect();
    Err(format!("at {now_ms} ms there is {held:?}"))
}

fn is_password(config: &Config, given: &[u8]) -> bool {
    config.password.as_ref().is_some_and(|password| password.as_bytes() == given)
}
