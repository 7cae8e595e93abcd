//! From bytes to requests and frames, fairly: what one call carries out is bounded, and what is left waits
//! its turn.
//!
//! Requests and frames are parsed straight from the slice that the shell has read into; only an unfinished tail is
//! copied. When a step's budget is spent with requests left over, they are stashed, the connection goes
//! to the end of the queue of runnable ones, and the shell is requested not to read from it until it has
//! caught up. The same happens, without the queue, while too much waits to be sent to it. So a
//! connection holds at most one line, or one frame, and one read of input.

use crate::base::buffer::OutOfMemory;
use crate::base::memory::has_room;
use crate::base::time::Now;
use crate::limits::{BYTES_PER_STEP, Limits, RESP_ARGS_MAX};
use crate::node::command::dispatch;
use crate::node::command::errands;
use crate::node::command::prefetch::{prefetch_inputs, prefetch_lines, prefetch_requests};
use crate::node::conn::connection::{ClientProtocol, Conn};
use crate::node::conn::measure;
use crate::node::conn::pending;
use crate::node::conn::phase::{CloseReason, Phase};
use crate::node::conn::reconcile::reconcile;
use crate::node::conn::role::Role;
use crate::node::conn::timeouts;
use crate::node::digest::sync;
use crate::node::http;
use crate::node::ids::{ConnKey, PeerKey};
use crate::node::lookup::query::query_waiting;
use crate::node::lookup::serve;
use crate::node::peer::frames;
use crate::node::peer::handshake;
use crate::node::peer::link_output;
use crate::node::schedule::cost_of_bytes;
use crate::node::state::{Scratch, State, close_conn};
use crate::node::versions::notices;
use crate::wire::encoder::{Protocol, put_error};
use crate::wire::frame::{self, FrameLimits};
use crate::wire::handshake::LINE_BYTES_MAX;
use crate::wire::http::{HEAD_BYTES_MAX, is_request_line};
use crate::wire::line::{Front, front, front_until};
use crate::wire::resp;
use crate::wire::resp::parse::{Progress, RequestLimits};
use memchr::memchr;
use std::fmt::Display;
use std::mem;
use std::net::SocketAddr;

/// Bytes of a request above which it is looked whether the system has memory for what carrying it out may take, and how
/// many times its bytes that is: its arguments, their copies, and a reply that shows them in quotes.
const LARGE_REQUEST_BYTES: usize = 64 * 1024;
const MEMORY_FACTOR: usize = 5;

/// Bytes that are missing of a request above which they are read to where they will lie.
const RECEIVED_IN_PLACE_MIN: usize = 16 * 1024;

/// Takes in a connection that `addr` has made.
pub(in crate::node) fn accepted(state: &mut State, now: Now, addr: SocketAddr) -> ConnKey {
    state.stats.connections_accepted += 1;
    let is_authenticated = state.config.password.is_none();
    let conn = Conn::new(addr, state.stats.connections_accepted, now.mono, is_authenticated);
    let key = state.conns.insert(conn);
    timeouts::arm(state, key);
    key
}

/// The longest input of a client whose key is fetched together with those of other clients: a longer one is several
/// requests, or takes longer than the memory of its key.
const SHORT_INPUT_BYTES: usize = 256;

/// Looks at what will be received next on several connections: fetches the memory of their keys.
pub(in crate::node) fn expect<'b>(state: &State, inputs: impl Iterator<Item = (ConnKey, &'b [u8])>) {
    let of_clients = inputs.filter_map(|(key, input)| {
        let conn = state.conns.get(key).filter(|conn| conn.is_client() && conn.inbound.is_empty())?;
        match conn.protocol {
            Some(ClientProtocol::Commands(protocol)) if input.len() <= SHORT_INPUT_BYTES => {
                Some((protocol, input))
            }
            Some(_) | None => None,
        }
    });
    prefetch_inputs(&state.keyspace, of_clients);
}

/// Takes in what the shell has read.
pub(in crate::node) fn received(state: &mut State, now: Now, key: ConnKey, bytes: &[u8]) {
    let Some(conn) = state.conns.get_mut(key) else {
        state.stats.stale_events += 1;
        return;
    };
    if conn.phase() != Phase::Open {
        return;
    }
    conn.last_active = now.mono;
    conn.is_deep = false;
    conn.traffic.add(now.mono, bytes.len());
    if let Some(peer) = conn.link()
        && let Some(peer) = state.mesh.peers.get_mut(peer)
    {
        peer.received(now.mono);
    }
    let class = conn.class();
    if conn.has_partial_line && continues_line(&state.config.limits, conn, bytes) {
        keep(state, now, key, bytes);
        state.runnable.has_read(class, cost_of_bytes(bytes.len()));
        return reconcile(state, now, key);
    }
    let must_wait = conn.must_wait();
    let has_begun = !conn.inbound.is_empty();
    let mut turn = Turn::default();
    if must_wait {
        keep(state, now, key, bytes);
    } else if has_begun {
        go_on(state, now, key, bytes, &mut turn);
    } else {
        let used = serve(state, now, key, bytes, &mut turn);
        keep(state, now, key, &bytes[used..]);
    }
    state.runnable.has_read(class, turn.cost);
    reconcile(state, now, key);
}

/// Goes on with a request that has begun: it is completed first, so that what follows is parsed where it lies.
fn go_on(state: &mut State, now: Now, key: ConnKey, bytes: &[u8], turn: &mut Turn) {
    let missing = state.conns.get(key).map_or(0, |conn| missing_bytes(conn, bytes));
    let (missing, rest) = bytes.split_at(missing);
    keep(state, now, key, missing);
    serve_stash(state, now, key, turn);
    let Some(conn) = state.conns.get(key).filter(|conn| conn.is_open() && !rest.is_empty()) else { return };
    if conn.inbound.is_empty() && !conn.must_wait() {
        let used = serve(state, now, key, rest, turn);
        keep(state, now, key, &rest[used..]);
    } else {
        keep(state, now, key, rest);
        serve_stash(state, now, key, turn);
    }
}

/// The bytes at the front of some input that complete the request that has begun, as far as can be seen; else all.
fn missing_bytes(conn: &Conn, input: &[u8]) -> usize {
    let missing = match (&conn.role, conn.speaks()) {
        (Role::Client, ClientProtocol::Commands(Protocol::Resp2 | Protocol::Resp3)) => {
            conn.missing_bytes().filter(|missing| *missing > 0)
        }
        (Role::Client, ClientProtocol::Commands(Protocol::Lines) | ClientProtocol::Http) => {
            memchr(b'\n', input).map(|end| end + 1)
        }
        (Role::Link(_), _) => conn.missing_bytes().filter(|missing| *missing > 0),
        (Role::OutboundHandshake(_) | Role::Parted, _) => None,
    };
    missing.map_or(input.len(), |missing| missing.min(input.len()))
}

/// The memory in which the rest of a large request in RESP, or of a large frame, will lie, a bounded part of it: a read of
/// the socket may fill it from the front. None for all other input.
pub(in crate::node) fn room(state: &mut State, key: ConnKey) -> &mut [u8] {
    let Some(conn) = state.conns.get_mut(key).filter(|conn| conn.is_open()) else { return &mut [] };
    match conn.missing_bytes() {
        Some(missing) if missing > RECEIVED_IN_PLACE_MIN => {
            let room = conn.inbound.room();
            let bytes = missing.min(BYTES_PER_STEP).min(room.len());
            &mut room[..bytes]
        }
        Some(_) | None => &mut [],
    }
}

/// Notes that the shell has read bytes into the front of [`room`].
pub(in crate::node) fn filled(state: &mut State, now: Now, key: ConnKey, count: usize) {
    if let Some(conn) = state.conns.get_mut(key) {
        conn.inbound.filled(count);
        conn.traffic.add(now.mono, count);
    }
}

/// Keeps input that is not processed yet, or closes the connection if the system has no memory for it.
fn keep(state: &mut State, now: Now, key: ConnKey, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let State { conns, keyspace, pool, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    let needed = conn.progress.needed();
    if needed > LARGE_REQUEST_BYTES
        && conn.inbound.is_small()
        && let Some(map) = keyspace.take_idle(needed)
    {
        conn.inbound.go_on_in(map, pool);
    }
    let Err(error) = conn.inbound.append(bytes, needed, pool) else { return };
    let reason = CloseReason::BuffersFull;
    match (conn.speaks(), &conn.role) {
        (ClientProtocol::Commands(protocol), Role::Client) => {
            refuse(state, now, key, protocol, reason, error);
        }
        (_, Role::Link(_)) => {
            link_output::hang_up(state, now, key, b"out of memory", reason);
        }
        (ClientProtocol::Http, Role::Client) | (_, Role::OutboundHandshake(_) | Role::Parted) => {
            close_conn(state, key, reason)
        }
    }
}

/// Notes that the other side will send no more. A line without its end is not carried out: nobody
/// can know whether it is whole.
pub(in crate::node) fn read_closed(state: &mut State, now: Now, key: ConnKey) {
    let Some(conn) = state.conns.get_mut(key) else {
        state.stats.stale_events += 1;
        return;
    };
    match conn.phase() {
        Phase::Open => {
            conn.set_phase(Phase::ReadClosed);
            reconcile(state, now, key);
        }
        Phase::Closing(_) => conn.is_read_closed = true,
        Phase::Lingering(reason) => close_conn(state, key, reason),
        Phase::ReadClosed | Phase::Connecting => {}
    }
}

/// Notes that `count` bytes of a connection's outbound buffer were written, none if the socket takes none.
pub(in crate::node) fn wrote(state: &mut State, now: Now, key: ConnKey, count: usize) {
    let State { conns, pool, stats, runnable, .. } = state;
    let Some(conn) = conns.get_mut(key) else {
        stats.stale_events += 1;
        return;
    };
    conn.outbound.consume(count, pool);
    conn.traffic.add(now.mono, count);
    runnable.has_written(count);
    if !conn.is_serving() {
        // It is being waited for to take its last replies, and does.
        conn.last_active = now.mono;
    }
    if conn.outbound.is_empty() {
        conn.is_flushing = false;
        conn.waits_since = None;
    } else if count > 0 || conn.waits_since.is_none() {
        conn.waits_since = Some(now.mono);
    }
    if conn.is_client() {
        measure::wrote(state, now, key, count);
    } else if let Some(peer) = conn.link() {
        link_output::drained(state, key);
        serve::answer_deferred(state, now, peer);
        query_waiting(state, now, peer);
        sync::link_drained(state, peer);
        state.mesh.enqueue_resync(peer);
    }
    reconcile(state, now, key);
}

/// Goes on with a connection whose turn it is: with a long reply, or with input left from an earlier step.
pub(in crate::node) fn run(state: &mut State, now: Now, key: ConnKey) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    let class = conn.class();
    if conn.account.must_let_pass() {
        conn.account.begin_turn();
        return state.runnable.push(class, key);
    }
    conn.is_runnable = false;
    let mut cost = 0;
    if conn.has_long_reply_to_write(&state.config.limits) {
        cost = pending::write_piece(state, now, key);
        if let Some(conn) = state.conns.get_mut(key) {
            conn.account.charge(cost);
        }
    }
    let mut turn = Turn::default();
    serve_stash(state, now, key, &mut turn);
    state.runnable.has_run(class, cost + turn.cost);
    reconcile(state, now, key);
}

/// Carries out requests from the connection's own stash, unless it has to wait.
fn serve_stash(state: &mut State, now: Now, key: ConnKey, turn: &mut Turn) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    if conn.must_wait() || conn.inbound.is_empty() {
        return;
    }
    // Out of the connection while it is read, since requests change the state it lies in.
    let mut stash = mem::take(&mut conn.inbound);
    state.keyspace.offer(stash.map());
    let used = serve(state, now, key, stash.as_slice(), turn);
    state.keyspace.offer(None);
    stash.consume(used, &mut state.pool);
    match state.conns.get_mut(key) {
        Some(conn) if conn.is_serving() => conn.inbound = stash,
        Some(_) | None => stash.release(&mut state.pool),
    }
}

/// The turn of a connection: the cost that it may have, in keys, once it has begun, and what it has had.
#[derive(Default)]
struct Turn {
    budget: Option<usize>,
    cost: usize,
}

impl Turn {
    fn is_over(&self) -> bool {
        self.budget.is_some_and(|budget| self.cost >= budget)
    }

    /// The cost above what it may have.
    fn excess(&self) -> usize {
        self.cost.saturating_sub(self.budget.unwrap_or(0))
    }
}

/// Gives a connection its turn: carries out what stands at the front of `input`, by what the connection is. It may be
/// another in the middle: what a client sends after its handshake are frames. Returns the bytes done with; the
/// cost is added to the turn, and charged to the connection.
fn serve(state: &mut State, now: Now, key: ConnKey, input: &[u8], turn: &mut Turn) -> usize {
    let Some(conn) = state.conns.get_mut(key) else { return input.len() };
    turn.budget.get_or_insert_with(|| conn.account.begin_turn());
    let charged = turn.excess();
    let mut at = match conn.role {
        Role::Client => serve_client(state, now, key, input, turn),
        Role::OutboundHandshake(_) => serve_dialled(state, now, key, input),
        Role::Link(_) | Role::Parted => 0,
    };
    if let Some(peer) = state.conns.get(key).and_then(Conn::link) {
        at += serve_link(state, now, key, peer, &input[at..], turn);
    }
    turn.cost += notices::settle(state, now);
    let Some(conn) = state.conns.get_mut(key).filter(|conn| conn.is_serving()) else {
        return input.len();
    };
    conn.account.charge(turn.excess() - charged);
    conn.is_deep |= turn.is_over();
    if conn.account.must_let_pass() && !conn.must_wait() {
        conn.is_runnable = true;
        state.runnable.push(conn.class(), key);
    }
    at
}

/// Carries out frames of a peer until there is no whole one or the step's budget is spent.
fn serve_link(
    state: &mut State,
    now: Now,
    key: ConnKey,
    peer: PeerKey,
    input: &[u8],
    turn: &mut Turn,
) -> usize {
    let limits = FrameLimits {
        key_bytes_max: state.config.limits.key_bytes_max as usize,
        value_bytes_max: state.config.limits.value_bytes_max as usize,
    };
    let mut at = 0;
    while at < input.len() {
        let Some(conn) = state.conns.get_mut(key).filter(|conn| conn.link().is_some()) else { break };
        let passed_over = conn.skip.min(input.len() - at);
        conn.skip -= passed_over;
        at += passed_over;
        turn.cost += cost_of_bytes(passed_over);
        if turn.is_over() {
            conn.is_runnable = true;
            state.runnable.push(conn.class(), key);
            break;
        }
        match frame::front(&input[at..], limits) {
            frame::Front::Partial => {
                conn.progress = Progress::until(frame::frame_bytes(&input[at..]).unwrap_or_default());
                break;
            }
            frame::Front::Oversized { what, request, consumed, skip } => {
                conn.skip = skip;
                at += consumed;
                turn.cost += 1;
                frames::oversized(state, now, peer, request, what);
            }
            frame::Front::Broken(error) => {
                frames::refuse(state, now, key, &error);
                break;
            }
            frame::Front::Frame { frame, consumed } => {
                conn.progress = Progress::default();
                at += consumed;
                turn.cost += cost_of_bytes(consumed) + frames::execute(state, now, peer, &frame, consumed);
                turn.cost += errands::run(state, now);
            }
        }
    }
    at
}

/// Parses what a dialled node sends: lines, until the handshake is complete.
fn serve_dialled(state: &mut State, now: Now, key: ConnKey, input: &[u8]) -> usize {
    let mut at = 0;
    while at < input.len()
        && state.conns.get(key).is_some_and(|conn| matches!(conn.role, Role::OutboundHandshake(_)))
    {
        match front(&input[at..], LINE_BYTES_MAX) {
            Front::Partial => break,
            Front::TooLong => {
                close_conn(state, key, CloseReason::Refused);
                break;
            }
            Front::Line(line) => {
                at += line.consumed;
                handshake::replied(state, now, key, line.text);
            }
        }
    }
    at
}

/// Executes requests from the front of `input` until it holds no whole one, the step's budget is spent, the
/// connection has to wait, or it has become a link. Returns the bytes done with.
fn serve_client(state: &mut State, now: Now, key: ConnKey, input: &[u8], turn: &mut Turn) -> usize {
    state.latency.serves(key);
    // Out of the state while arguments lie in it, since commands change the state.
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
    scratch.ahead.clear();
    let mut additions = state.keyspace.changelog().head().seq;
    while at < input.len() {
        let Some(conn) = state.conns.get_mut(key).filter(|conn| conn.is_serving()) else {
            return input.len();
        };
        if !conn.is_client() {
            break;
        }
        if conn.must_pause(&state.config.limits) {
            conn.is_paused = true;
            break;
        }
        turn.cost = before + keys + cost_of_bytes(at + conn.unsent().saturating_sub(unsent_before));
        if turn.is_over() {
            conn.is_runnable = true;
            state.runnable.push(conn.class(), key);
            break;
        }
        conn.has_partial_line = false;
        conn.awaits_replies = false;
        let (is_authenticated, is_intercepted) = (conn.is_authenticated, conn.is_intercepted);
        let rest = &input[at..];
        let is_tls = conn.protocol.is_none() && rest.starts_with(&TLS_HANDSHAKE);
        if conn.protocol.is_none() {
            conn.protocol = protocol_of(rest);
        }
        let served = match conn.speaks() {
            ClientProtocol::Commands(Protocol::Lines) if is_tls => {
                let sentence =
                    "this port does not speak TLS, https:// and rediss:// neither; use http:// or redis://";
                refuse(state, now, key, Protocol::Lines, CloseReason::Protocol, sentence);
                Some((rest.len(), 1))
            }
            ClientProtocol::Http => http::serve(state, now, key, rest),
            ClientProtocol::Commands(Protocol::Lines) => {
                serve_line(state, now, key, rest, is_authenticated, scratch)
            }
            ClientProtocol::Commands(protocol @ (Protocol::Resp2 | Protocol::Resp3)) => {
                serve_resp(state, now, key, rest, (protocol, is_intercepted), scratch)
            }
        };
        let Some((consumed, cost)) = served else { break };
        if cost == 0 {
            // It waits for the replies to earlier ones, and is read again then.
            if let Some(conn) = state.conns.get_mut(key) {
                conn.is_paused = true;
            }
            break;
        }
        at += consumed;
        keys += cost;
        let head = state.keyspace.changelog().head().seq;
        if head != additions {
            keys += sync::cost_of_additions(state, head - additions) + state.keyspace.take_filter_cost();
            additions = head;
        }
        keys += notices::settle_many(state, now);
    }
    let unsent = state.conns.get(key).map_or(0, Conn::unsent);
    turn.cost = before + keys + cost_of_bytes(at + unsent.saturating_sub(unsent_before));
    at
}

/// The bytes that a line may have, and the name of the setting.
fn line_limit(limits: &Limits, is_authenticated: bool) -> (u32, &'static str) {
    if is_authenticated || limits.line_bytes_max <= limits.unauthenticated_line_bytes_max {
        (limits.line_bytes_max, "line_bytes_max")
    } else {
        (limits.unauthenticated_line_bytes_max, "unauthenticated_line_bytes_max")
    }
}

/// Whether `bytes` neither end the line that has begun to arrive nor take it over its limit: then the begun part, which
/// may be megabytes, is not searched again.
fn continues_line(limits: &Limits, conn: &Conn, bytes: &[u8]) -> bool {
    let limit = match conn.speaks() {
        ClientProtocol::Http => HEAD_BYTES_MAX,
        ClientProtocol::Commands(_) => line_limit(limits, conn.is_authenticated).0 as usize,
    };
    !conn.inbound.is_empty() && conn.inbound.len() + bytes.len() <= limit && memchr(b'\n', bytes).is_none()
}

/// How a TLS handshake begins: the type of the record and the major version.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 3];

/// What a client speaks whose first bytes these are. `None`: a line that may become one of HTTP has no end yet.
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

/// Executes the line at the front of `input`. Returns the bytes that it took and its cost in keys; `None`: it is
/// not there yet.
fn serve_line(
    state: &mut State,
    now: Now,
    key: ConnKey,
    input: &[u8],
    is_authenticated: bool,
    scratch: &mut Scratch,
) -> Option<(usize, usize)> {
    let (limit, setting) = line_limit(&state.config.limits, is_authenticated);
    let found = match scratch.ahead.next_line() {
        Some(end) => front_until(input, end, limit as usize),
        None => front(input, limit as usize),
    };
    match found {
        Front::Partial => {
            state.conns.get_mut(key)?.has_partial_line = true;
            None
        }
        Front::TooLong => {
            let sentence = format!("line longer than {limit} bytes ({setting})");
            refuse(state, now, key, Protocol::Lines, CloseReason::Protocol, sentence);
            Some((input.len(), 1))
        }
        Front::Line(line)
            if line.consumed > LARGE_REQUEST_BYTES && !has_room(MEMORY_FACTOR * line.consumed) =>
        {
            let id = line.request().and_then(Result::ok).map(|request| request.id);
            decline(state, key, Protocol::Lines, id.unwrap_or_default());
            Some((line.consumed, 1))
        }
        Front::Line(line) => {
            prefetch_lines(&mut scratch.ahead, &state.keyspace, &input[line.consumed..]);
            let cost = dispatch::execute_line(state, now, key, line, is_authenticated, &mut scratch.line);
            Some((line.consumed, cost))
        }
    }
}

/// The same for the request at the front of `input` in RESP, on a connection whose session intercepts it or not.
fn serve_resp(
    state: &mut State,
    now: Now,
    key: ConnKey,
    input: &[u8],
    (protocol, is_intercepted): (Protocol, bool),
    scratch: &mut Scratch,
) -> Option<(usize, usize)> {
    if scratch.ahead.requests.is_empty() {
        let conn = state.conns.get_mut(key)?;
        match input {
            // An empty request in a line, which redis-cli --pipe sends before its last one.
            [b'\r', b'\n', ..] => return Some((2, 1)),
            [b'\r'] => return None,
            _ => {}
        }
        let is_large = conn.progress.needed() > LARGE_REQUEST_BYTES && input.len() >= conn.progress.needed();
        if is_large && !has_room(MEMORY_FACTOR * input.len()) {
            // Its end is not known before it is parsed.
            refuse(state, now, key, protocol, CloseReason::BuffersFull, OutOfMemory);
            return Some((input.len(), 1));
        }
        // Before AUTH the next request may come under other limits.
        if conn.is_authenticated && conn.progress == Progress::default() {
            let limits = request_limits(&state.config.limits, true);
            prefetch_requests(&mut scratch.ahead, &state.keyspace, input, limits);
        }
    }
    let found = match scratch.ahead.requests.take(input) {
        Some(request) => resp::parse::Front::Request(request),
        None => {
            let conn = state.conns.get_mut(key)?;
            let limits = request_limits(&state.config.limits, conn.is_authenticated);
            scratch.resp.front(input, &mut conn.progress, limits)
        }
    };
    match found {
        resp::parse::Front::Partial { .. } => None,
        resp::parse::Front::Broken(error) => {
            refuse(state, now, key, protocol, CloseReason::Protocol, error);
            Some((input.len(), 1))
        }
        resp::parse::Front::Request(request) => {
            let words = request.args();
            let cost = if words.is_empty() {
                1
            } else if is_intercepted {
                dispatch::execute_intercepted(state, now, key, protocol, words)
            } else {
                dispatch::execute_resp(state, now, key, protocol, words)
            };
            Some((request.consumed, cost))
        }
    }
}

/// What one request in RESP may hold.
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

/// Answers a request that there is no memory for.
#[cold]
fn decline(state: &mut State, key: ConnKey, protocol: Protocol, id: &[u8]) {
    let State { conns, pool, stats, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    stats.requests += 1;
    stats.request_errors += 1;
    conn.replies.next(&mut conn.outbound, pool, |out| put_error(out, protocol, id, OutOfMemory));
}

/// Answers what cannot be read on, and ends the connection with that answer.
fn refuse(
    state: &mut State,
    now: Now,
    key: ConnKey,
    protocol: Protocol,
    reason: CloseReason,
    sentence: impl Display,
) {
    let State { conns, pool, stats, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    stats.requests += 1;
    stats.request_errors += 1;
    conn.replies.next(&mut conn.outbound, pool, |out| put_error(out, protocol, b"", sentence));
    conn.begin_closing(reason, now.mono, pool);
}
