//! Requests of clients, from the bytes at the front of the input to the handler: in lines, in RESP and in HTTP.

use crate::base::buffer::OutOfMemory;
use crate::base::memory::{LARGE_BYTES, has_room_for_request};
use crate::base::time::Now;
use crate::limits::{Limits, RESP_ARGS_MAX};
use crate::node::command::dispatch;
use crate::node::command::prefetch::{prefetch_lines, prefetch_requests};
use crate::node::conn::connection::{ClientProtocol, Conn};
use crate::node::conn::measure;
use crate::node::conn::phase::CloseReason;
use crate::node::conn::turn::Turn;
use crate::node::digest::sync;
use crate::node::http;
use crate::node::ids::ConnKey;
use crate::node::schedule::cost_of_bytes;
use crate::node::state::{Scratch, State};
use crate::node::versions::notices;
use crate::wire::encoder::{Protocol, put_error};
use crate::wire::http::is_request_line;
use crate::wire::line::{Parsed, parse, parse_until};
use crate::wire::resp;
use crate::wire::resp::parse::{Progress, ProtocolError, RequestLimits};
use memchr::memchr;
use std::fmt::Display;
use std::num::NonZeroUsize;

/// The bytes of an executed request, and its cost in keys, 0 if it waits for the replies to earlier ones; `None` if it is
/// incomplete. In two registers.
type Served = Option<(NonZeroUsize, usize)>;

fn served(bytes: usize, cost: usize) -> Served {
    Some((NonZeroUsize::new(bytes)?, cost))
}

/// Executes requests from the front of `input` until it holds no whole one, the step's budget is spent, the connection
/// has to wait, or it has become a link. Returns the bytes processed.
pub(super) fn serve_client(
    state: &mut State,
    now: Now,
    key: ConnKey,
    input: &[u8],
    turn: &mut Turn,
) -> usize {
    state.latency.serves(key);
    // Taken out of the state while it holds arguments, since commands change the state.
    let mut scratch = state.scratch.take().unwrap_or_default();
    let at = serve_requests(state, now, key, input, &mut scratch, turn);
    measure::note_written(state, now, key);
    state.scratch = Some(scratch);
    at
}

fn serve_requests(
    state: &mut State,
    now: Now,
    key: ConnKey,
    input: &[u8],
    scratch: &mut Scratch,
    turn: &mut Turn,
) -> usize {
    let unsent_before = state.conns.get(key).map_or(0, Conn::unsent);
    let before = turn.cost;
    let mut at = 0;
    let mut keys = 0;
    scratch.lookahead.clear();
    let mut additions = state.keyspace.changelog().head().seq;
    while at < input.len() {
        let Some(conn) = state.conns.get_mut(key).filter(|conn| conn.is_serving()) else {
            return input.len();
        };
        if !conn.is_client() {
            break;
        }
        let unsent = conn.unsent();
        if conn.must_pause(&state.config.limits, unsent) {
            conn.is_paused = true;
            break;
        }
        turn.cost = before + keys + cost_of_bytes(at + unsent.saturating_sub(unsent_before));
        if turn.is_over() {
            conn.is_runnable = true;
            state.runnable.push(conn.class(), key);
            break;
        }
        conn.has_partial_line = false;
        conn.awaits_replies = false;
        let (is_authenticated, is_intercepted) = (conn.is_authenticated, conn.is_intercepted);
        let rest = &input[at..];
        let is_new = conn.protocol.is_none();
        if is_new {
            conn.protocol = protocol_of(rest);
        }
        let done = match conn.speaks() {
            ClientProtocol::Commands(Protocol::Lines) if is_new && rest.starts_with(&TLS_HANDSHAKE) => {
                let sentence =
                    "this port does not speak TLS, https:// and rediss:// neither; use http:// or redis://";
                refuse(state, now, key, Protocol::Lines, CloseReason::Protocol, sentence);
                served(rest.len(), 1)
            }
            ClientProtocol::Http => {
                http::serve(state, now, key, rest).and_then(|(bytes, cost)| served(bytes, cost))
            }
            ClientProtocol::Commands(Protocol::Lines) => {
                serve_line(state, now, key, rest, is_authenticated, scratch)
            }
            ClientProtocol::Commands(protocol @ (Protocol::Resp2 | Protocol::Resp3)) => {
                serve_resp(state, now, key, rest, (protocol, is_intercepted), scratch)
            }
        };
        let Some((consumed, cost)) = done else { break };
        if cost == 0 {
            // The request waits for the replies to earlier ones, and is parsed again after them.
            if let Some(conn) = state.conns.get_mut(key) {
                conn.is_paused = true;
            }
            break;
        }
        at += consumed.get();
        keys += cost + state.keyspace.take_uncharged();
        let head = state.keyspace.changelog().head().seq;
        if head != additions {
            keys += sync::cost_of_additions(state, head - additions) + state.keyspace.take_filter_cost();
            additions = head;
        }
        keys += notices::process_many_changes(state, now);
    }
    let unsent = state.conns.get(key).map_or(0, Conn::unsent);
    turn.cost = before + keys + cost_of_bytes(at + unsent.saturating_sub(unsent_before));
    at
}

/// The limit of the bytes of a line, and the name of its setting.
pub(super) fn line_limit(limits: &Limits, is_authenticated: bool) -> (u32, &'static str) {
    if is_authenticated || limits.line_bytes_max <= limits.unauthenticated_line_bytes_max {
        (limits.line_bytes_max, "line_bytes_max")
    } else {
        (limits.unauthenticated_line_bytes_max, "unauthenticated_line_bytes_max")
    }
}

/// How a TLS handshake begins: the type of the record and the major version.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 3];

/// The protocol of a client, by its first bytes. `None`: its first line may be one of HTTP and is incomplete.
fn protocol_of(first: &[u8]) -> Option<ClientProtocol> {
    let lines = ClientProtocol::Commands(Protocol::Lines);
    match first.first() {
        Some(b'*') => Some(ClientProtocol::Commands(Protocol::Resp2)),
        Some(b'G' | b'H') => {
            let end = memchr(b'\n', first)?;
            let line = first[..end].strip_suffix(b"\r").unwrap_or(&first[..end]);
            Some(if is_request_line(line) { ClientProtocol::Http } else { lines })
        }
        Some(_) | None => Some(lines),
    }
}

/// Executes the line at the front of `input`. Returns its bytes and its cost in keys; `None` if it is incomplete.
#[inline(never)]
fn serve_line(
    state: &mut State,
    now: Now,
    key: ConnKey,
    input: &[u8],
    is_authenticated: bool,
    scratch: &mut Scratch,
) -> Served {
    let (limit, setting) = line_limit(&state.config.limits, is_authenticated);
    let found = match scratch.lookahead.next_line() {
        Some(end) => parse_until(input, end, limit as usize),
        None => parse(input, limit as usize),
    };
    match found {
        Parsed::Partial => {
            state.conns.get_mut(key)?.has_partial_line = true;
            None
        }
        Parsed::TooLong => {
            let sentence = format!("line longer than {limit} bytes ({setting})");
            refuse(state, now, key, Protocol::Lines, CloseReason::Protocol, sentence);
            served(input.len(), 1)
        }
        Parsed::Line(line) if !has_room_for_request(line.consumed) => {
            let id = line.request().and_then(Result::ok).map(|request| request.id);
            decline(state, key, Protocol::Lines, id.unwrap_or_default());
            served(line.consumed, 1)
        }
        Parsed::Line(line) => {
            prefetch_lines(scratch, &state.keyspace, &input[line.consumed..]);
            let cost = dispatch::execute_line(state, now, key, line, is_authenticated, &mut scratch.line);
            served(line.consumed, cost)
        }
    }
}

/// The same for the request at the front of `input` in RESP; `session`: the protocol, and whether it passes through the
/// session.
fn serve_resp(
    state: &mut State,
    now: Now,
    key: ConnKey,
    input: &[u8],
    session: (Protocol, bool),
    scratch: &mut Scratch,
) -> Served {
    if scratch.lookahead.requests.is_empty() {
        let conn = state.conns.get_mut(key)?;
        match input {
            // An empty line, which redis-cli --pipe sends before its last request.
            [b'\r', b'\n', ..] => return served(2, 1),
            [b'\r'] => return None,
            _ => {}
        }
        let is_large = conn.progress.needed() > LARGE_BYTES && input.len() >= conn.progress.needed();
        if is_large && !has_room_for_request(input.len()) {
            // Its end is not known before it is parsed.
            refuse(state, now, key, session.0, CloseReason::BuffersFull, OutOfMemory);
            return served(input.len(), 1);
        }
        // Before AUTH the next request may come under other limits.
        if conn.is_authenticated && conn.progress == Progress::default() {
            let limits = &state.config.limits;
            prefetch_requests(scratch, &state.keyspace, input, limits, request_limits(limits, true));
        }
    }
    if let Some((request, resolved)) = scratch.lookahead.requests.take(input) {
        let cost = dispatch::execute_resp(state, now, key, session, request.args(), resolved);
        return served(request.consumed, cost);
    }
    serve_unparsed(state, now, key, input, session, &mut scratch.resp)
}

/// The same for a request that was not parsed with others: it is incomplete, or invalid, or the client has not
/// authenticated.
#[inline(never)]
fn serve_unparsed(
    state: &mut State,
    now: Now,
    key: ConnKey,
    input: &[u8],
    session: (Protocol, bool),
    parser: &mut resp::parse::Parser,
) -> Served {
    let conn = state.conns.get_mut(key)?;
    let limits = request_limits(&state.config.limits, conn.is_authenticated);
    match parser.parse(input, &mut conn.progress, limits) {
        resp::parse::Parsed::Partial { .. } => None,
        resp::parse::Parsed::Broken(error) => {
            let is_full = error == ProtocolError::NoMemory;
            let reason = if is_full { CloseReason::BuffersFull } else { CloseReason::Protocol };
            refuse(state, now, key, session.0, reason, error);
            served(input.len(), 1)
        }
        resp::parse::Parsed::Request(request) => {
            let cost = dispatch::execute_words(state, now, key, session, request.args());
            served(request.consumed, cost)
        }
    }
}

/// The limits of one request in RESP.
fn request_limits(limits: &Limits, is_authenticated: bool) -> RequestLimits {
    if !is_authenticated {
        return RequestLimits {
            args_max: limits.unauthenticated_args_max,
            bulk_bytes_max: limits.unauthenticated_line_bytes_max,
            request_bytes_max: 2 * limits.unauthenticated_line_bytes_max,
            is_unauthenticated: true,
        };
    }
    RequestLimits {
        args_max: RESP_ARGS_MAX,
        bulk_bytes_max: limits.value_bytes_max.max(limits.key_bytes_max),
        // A value that can be read can be set.
        request_bytes_max: limits.reply_bytes_max.saturating_add(limits.key_bytes_max).saturating_add(1_024),
        is_unauthenticated: false,
    }
}

/// Answers a request for which there is no memory.
#[cold]
fn decline(state: &mut State, key: ConnKey, protocol: Protocol, id: &[u8]) {
    let State { conns, pool, stats, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    stats.request_refused();
    conn.replies.next(&mut conn.outbound, pool, |out| put_error(out, protocol, id, OutOfMemory));
}

/// Answers input that cannot be parsed further with an error, and closes the connection after it.
pub(super) fn refuse(
    state: &mut State,
    now: Now,
    key: ConnKey,
    protocol: Protocol,
    reason: CloseReason,
    sentence: impl Display,
) {
    let State { conns, pool, stats, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    stats.request_refused();
    conn.replies.next(&mut conn.outbound, pool, |out| put_error(out, protocol, b"", sentence));
    conn.begin_closing(reason, now.mono, pool);
}
