//! Dispatch: calls the handler of a request in either protocol, and applies its effect to the connection.

use crate::base::buffer::Pool;
use crate::base::shared_bytes::SharedBytes;
use crate::base::time::Now;
use crate::limits::LONG_REPLY_BYTES;
use crate::node::command::error::CommandError;
use crate::node::command::find::{arg_limits, find_command, find_verb, resolved};
use crate::node::command::forwarding;
use crate::node::command::login;
use crate::node::command::read;
use crate::node::command::row::{Access, Call, Command, Effect, Further, Scope};
use crate::node::command::table::TABLE;
use crate::node::command::tasks;
use crate::node::command::transaction;
use crate::node::conn::connection::{ClientProtocol, Conn};
use crate::node::conn::measure;
use crate::node::conn::pending;
use crate::node::conn::phase::CloseReason;
use crate::node::conn::reconcile::limit_unauthenticated;
use crate::node::conn::session::Session;
use crate::node::ids::ConnKey;
use crate::node::latency::CommandClass;
use crate::node::lookup::answers::Answer;
use crate::node::lookup::forwarded::Failure;
use crate::node::metrics::Stats;
use crate::node::peer::handshake;
use crate::node::state::{Resolved, State, close_conn};
use crate::store::KeyHash;
use crate::wire::args::{Args, Scratch};
use crate::wire::encoder::{Encoder, Protocol, ReplyHead};
use crate::wire::line::{Line, is_from_browser};
use std::mem;

/// Executes one line for a connection. Returns its cost in keys, queries to peers included; 0 if it is deferred until
/// earlier replies are complete.
pub(in crate::node) fn execute_line(
    state: &mut State,
    now: Now,
    key: ConnKey,
    line: Line<'_>,
    is_authenticated: bool,
    scratch: &mut Scratch,
) -> usize {
    if is_from_browser(line.text) {
        close_browser(state, now, key);
        return 1;
    }
    let request = match line.request() {
        None => return 1,
        Some(Err(error)) => return refuse(state, now, key, Protocol::Lines, b"", &error.into()),
        Some(Ok(request)) => request,
    };
    let protocol = if line.is_redis_ping() { Protocol::Resp2 } else { Protocol::Lines };
    let limits = arg_limits(&state.config, is_authenticated);
    match find_verb(request, limits, scratch) {
        Ok((command, args)) => {
            execute(state, now, key, Request { protocol, id: request.id, command, args, hash: None })
        }
        Err(error) => refuse(state, now, key, protocol, request.id, &error),
    }
}

/// Executes one request in RESP, of which something may be known. `is_intercepted`: it passes through the session. Returns
/// its cost as [`execute_line`] does.
#[inline(always)]
pub(in crate::node) fn execute_resp(
    state: &mut State,
    now: Now,
    key: ConnKey,
    (protocol, is_intercepted): (Protocol, bool),
    words: Args<'_>,
    known: Resolved,
) -> usize {
    match resolved(known) {
        Some(command) if !is_intercepted => {
            let args = words.skip(1);
            execute(state, now, key, Request { protocol, id: b"", command, args, hash: known.hash })
        }
        Some(_) | None => execute_words(state, now, key, (protocol, is_intercepted), words),
    }
}

/// The same for a request of which nothing is known. Its first word is the command's name; without words it is ignored.
#[inline(never)]
pub(in crate::node) fn execute_words(
    state: &mut State,
    now: Now,
    key: ConnKey,
    (protocol, is_intercepted): (Protocol, bool),
    words: Args<'_>,
) -> usize {
    if words.is_empty() {
        1
    } else if is_intercepted {
        execute_intercepted(state, now, key, protocol, words)
    } else {
        let found = find_command(words, &state.config.limits);
        execute_found(state, now, key, protocol, found)
    }
}

/// A request whose command is found.
struct Request<'a> {
    protocol: Protocol,
    /// In lines; empty if there is none.
    id: &'a [u8],
    command: &'static Command,
    args: Args<'a>,
    /// The hash of its only key, if that is known.
    hash: Option<KeyHash>,
}

fn execute_found<'a>(
    state: &mut State,
    now: Now,
    key: ConnKey,
    protocol: Protocol,
    found: Result<(&'static Command, Args<'a>), CommandError<'a>>,
) -> usize {
    match found {
        Ok((command, args)) => {
            execute(state, now, key, Request { protocol, id: b"", command, args, hash: None })
        }
        Err(error) => refuse(state, now, key, protocol, b"", &error),
    }
}

/// Executes one request in RESP on a connection whose session intercepts it: it is queued for EXEC, or not answered.
fn execute_intercepted(
    state: &mut State,
    now: Now,
    key: ConnKey,
    protocol: Protocol,
    words: Args<'_>,
) -> usize {
    let found = find_command(words, &state.config.limits);
    let is_answered = state.conns.get_mut(key).is_none_or(|conn| conn.change_session(Session::answers_next));
    let is_about_answers = matches!(&found, Ok((command, _)) if command.name == "CLIENT REPLY");
    let is_silent = !is_answered && !is_about_answers;
    let queued = transaction::queue(state, key, words, found.as_ref());
    match queued {
        Ok(false) if is_silent => execute_silently(state, now, key, protocol, found),
        Ok(false) => execute_found(state, now, key, protocol, found),
        Ok(true) | Err(_) if is_silent => 1,
        Ok(true) => {
            write_reply(state, now, key, protocol, |reply| reply.status("QUEUED"));
            1
        }
        Err(error) => refuse(state, now, key, protocol, b"", &error),
    }
}

/// Writes a reply without calling a handler.
fn write_reply(
    state: &mut State,
    now: Now,
    key: ConnKey,
    protocol: Protocol,
    write: impl FnOnce(&mut Encoder),
) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    let unsent_before = conn.unsent();
    let out = conn.replies.open(&mut conn.outbound, &mut state.pool);
    let mut reply = Encoder::begin(out, protocol, b"", "");
    write(&mut reply);
    give_back(state, now, key, &mut reply.end(), unsent_before);
}

/// Carries out the requests of a transaction whose replies are not sent. Returns their cost in keys.
pub(in crate::node) fn execute_all_silently<'a>(
    state: &mut State,
    now: Now,
    key: ConnKey,
    protocol: Protocol,
    requests: &mut dyn Iterator<Item = Args<'a>>,
) -> usize {
    set_transacting(state, key, true);
    let mut cost = 0;
    for words in requests {
        let found = find_command(words, &state.config.limits);
        cost += execute_silently(state, now, key, protocol, found);
    }
    set_transacting(state, key, false);
    cost
}

/// Carries out a request whose reply is not sent, without looking up keys on other nodes. Returns its cost in keys.
fn execute_silently<'a>(
    state: &mut State,
    now: Now,
    key: ConnKey,
    protocol: Protocol,
    found: Result<(&'static Command, Args<'a>), CommandError<'a>>,
) -> usize {
    state.stats.request();
    let Ok((command, args)) = found else {
        state.stats.request_error();
        return 1;
    };
    let is_forwarded =
        command.scope != Scope::Here && !forwarding::is_for_here(state, now, key, command, false, args);
    if is_forwarded && command.scope != Scope::Transaction {
        let head = Encoder::begin(Vec::new(), protocol, b"", "").head();
        let begun = forwarding::begin(state, now, key, head, false, command, args);
        if begun.is_err() {
            state.stats.request_error();
        }
        return command.cost_of(false, args);
    }
    state.calls.count(command.index);
    let reply = Encoder::begin(state.pool.take(), protocol, b"", "");
    let mut call = Call { now, conn: key, command, table: &TABLE, args, hash: None, reply };
    let is_authenticated = state.conns.get(key).is_some_and(Conn::is_authenticated);
    let outcome = if is_authenticated || command.is_open {
        call.run(state)
    } else {
        Err(CommandError::Unauthenticated)
    };
    let cost = call.cost();
    let protocol = call.reply.protocol();
    state.pool.give(call.reply.discard());
    let State { conns, pool, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return cost };
    match outcome {
        Ok(Effect::Further(Further::Authenticate)) => {
            conn.authenticate();
            conn.set_protocol(protocol);
        }
        Ok(Effect::Further(Further::Close)) if conn.is_serving() => {
            conn.begin_closing(CloseReason::Quit, now.mono, pool);
        }
        Ok(Effect::Further(Further::Transact)) => {
            let requests = transaction::end(conn);
            if let Some(plan) = forwarding::plan(state, now, requests.iter()) {
                forwarding::begin_transaction(state, now, key, protocol, false, requests, plan);
                return cost;
            }
            let executed = execute_all_silently(state, now, key, protocol, &mut requests.iter());
            requests.release(&mut state.pool);
            return cost + executed;
        }
        Err(CommandError::WrongPassword | CommandError::TooManyFailures(_)) => {
            login::refuse(state, now, key, Vec::new());
        }
        Ok(_) => {}
        Err(_) => state.stats.request_error(),
    }
    cost
}

/// The first word of the reply to a command; only lines have one.
fn word(command: &Command, is_line: bool) -> &'static str {
    command.line.as_ref().filter(|_| is_line).map_or("", |form| form.word)
}

/// Defers a request until all earlier replies of its connection are complete, since they must not show its effect.
/// Returns whether it is deferred.
fn awaits_replies(state: &mut State, key: ConnKey) -> bool {
    state.conns.get_mut(key).is_some_and(Conn::await_replies)
}

/// Begins a request that concerns other nodes. Returns its cost in keys.
fn forward<'a>(
    state: &mut State,
    now: Now,
    key: ConnKey,
    head: ReplyHead,
    command: &'static Command,
    args: Args<'a>,
) -> usize {
    let queries_before = state.mesh.lookups.queries();
    let protocol = head.protocol();
    let cost = command.cost_of(protocol == Protocol::Lines, args);
    state.calls.count(command.index);
    if let Some(conn) = state.conns.get_mut(key) {
        conn.requested();
    }
    let id = head.id().to_vec();
    measure::note_written(state, now, key);
    if let Err(error) = forwarding::begin(state, now, key, head, true, command, args) {
        return refuse(state, now, key, protocol, &id, &error);
    }
    state.stats.request();
    measure::note_held(state, now, key, CommandClass::Lookup, command.index);
    cost.saturating_add(state.mesh.lookups.queries_since(queries_before))
}

/// Carries out the requests of a transaction; their replies are the elements of one array. Returns their cost in keys.
fn transact(state: &mut State, now: Now, key: ConnKey, protocol: Protocol) -> usize {
    let Some(conn) = state.conns.get_mut(key) else { return 0 };
    let requests = transaction::end(conn);
    let count = requests.len();
    if let Some(plan) = forwarding::plan(state, now, requests.iter()) {
        forwarding::begin_transaction(state, now, key, protocol, true, requests, plan);
        return count;
    }
    let all = requests.iter().map(|request| (request, false));
    let cost = finish_transaction(state, now, key, protocol, (count, all), std::iter::empty());
    requests.release(&mut state.pool);
    cost
}

/// Replies to a transaction. Requests marked true were carried out by another node, and `results` are their results;
/// the others are carried out now. Returns their cost in keys.
pub(in crate::node) fn finish_transaction<'r>(
    state: &mut State,
    now: Now,
    key: ConnKey,
    protocol: Protocol,
    (count, requests): (usize, impl Iterator<Item = (Args<'r>, bool)>),
    mut results: impl Iterator<Item = SharedBytes>,
) -> usize {
    write_reply(state, now, key, protocol, |reply| reply.array(count));
    set_transacting(state, key, true);
    let mut cost = 0;
    for (words, is_done) in requests {
        // HELLO in the transaction changes the protocol.
        let protocol = match state.conns.get(key).and_then(Conn::protocol) {
            Some(ClientProtocol::Commands(protocol)) => protocol,
            Some(ClientProtocol::Http) | None => protocol,
        };
        if is_done {
            let result = results.next().unwrap_or_default();
            if result.len() > LONG_REPLY_BYTES {
                let head = Encoder::begin(Vec::new(), protocol, b"", "").head();
                let parts = vec![(Box::default(), Answer::Reply(result))];
                pending::begin_shown(state, key, head, forwarding::VERBATIM, parts);
            } else {
                write_reply(state, now, key, protocol, |reply| reply.append(result.as_slice()));
            }
        } else {
            let found = find_command(words, &state.config.limits);
            cost += execute_found(state, now, key, protocol, found);
        }
    }
    set_transacting(state, key, false);
    cost
}

fn set_transacting(state: &mut State, key: ConnKey, is_transacting: bool) {
    if let Some(conn) = state.conns.get_mut(key) {
        conn.set_transacting(is_transacting);
    }
}

/// Replies with an error to a transaction that was not carried out, or whose outcome is unknown.
pub(in crate::node) fn fail_transaction(
    state: &mut State,
    now: Now,
    key: ConnKey,
    protocol: Protocol,
    failure: &Failure,
    about: &[u8],
) {
    state.stats.request_error();
    let code = if failure.had_no_effect() { "EXECABORT" } else { failure.code() };
    write_reply(state, now, key, protocol, |reply| reply.error(code, failure.about(about)));
}

/// Calls a command's handler and writes the reply, or begins the work that writes it later. Returns the cost in keys; 0
/// if the request is deferred.
#[inline(always)]
fn execute(state: &mut State, now: Now, key: ConnKey, request: Request<'_>) -> usize {
    let Request { protocol, id, command, args, hash } = request;
    let is_line = protocol == Protocol::Lines;
    if command.scope != Scope::Here && !forwarding::is_for_here(state, now, key, command, is_line, args) {
        if awaits_replies(state, key) {
            return 0;
        }
        if command.scope != Scope::Transaction {
            return forward(
                state,
                now,
                key,
                Encoder::begin(Vec::new(), protocol, id, word(command, is_line)).head(),
                command,
                args,
            );
        }
    }
    if state.mesh.lookups.len() > 0 {
        let keys = command.keys(is_line, args);
        let is_write = command.access == Access::Write;
        let may_be_seen = is_write && forwarding::writes_what_is_looked_up(state, key, keys);
        if (may_be_seen || command.scope == Scope::Transaction) && awaits_replies(state, key) {
            return 0;
        }
    }
    let State { conns, pool, stats, calls, .. } = &mut *state;
    let Some(conn) = conns.get_mut(key) else { return 1 };
    let Output { out, unsent_before, is_authenticated } = open(conn, stats, pool);
    calls.count(command.index);
    let reply = Encoder::begin(out, protocol, id, word(command, is_line));
    let mut call = Call { now, conn: key, command, table: &TABLE, args, hash, reply };
    let outcome = if is_authenticated || command.is_open {
        call.run(state)
    } else {
        Err(CommandError::Unauthenticated)
    };
    let cost = call.cost();
    match outcome {
        // There is nothing to drop, which the compiler does not see.
        done @ Ok(Effect::Reply) => mem::forget(done),
        Ok(Effect::Further(further)) => {
            let queries_before = state.mesh.lookups.queries();
            let cost = cost.saturating_add(apply_effect(state, call, id, further, unsent_before));
            return cost.saturating_add(state.mesh.lookups.queries_since(queries_before));
        }
        Err(error) => {
            fail(state, call, &error, unsent_before);
            return cost;
        }
    }
    state.latency.executed(command.class(), command.index);
    give_back(state, now, key, call.reply.end_in_place(), unsent_before);
    cost
}

/// Replies with the error of a call.
#[cold]
fn fail(state: &mut State, call: Call<'_>, error: &CommandError<'_>, unsent_before: usize) {
    let Call { now, conn: key, command, reply, .. } = call;
    if let CommandError::WrongPassword | CommandError::TooManyFailures(_) = error {
        let answer = Encoder::resume(Vec::new(), &reply.head());
        let answer = put_error(state, answer, error);
        give_back(state, now, key, &mut reply.discard(), unsent_before);
        measure::note_written(state, now, key);
        login::refuse(state, now, key, answer);
        limit_unauthenticated(state, now, key, unsent_before);
    } else {
        state.latency.executed(command.class(), command.index);
        let mut out = put_error(state, reply, error);
        give_back(state, now, key, &mut out, unsent_before);
    }
}

/// Applies the effect of a call that has not written its whole reply, or that has changed its connection. Returns the
/// cost of that, in keys.
#[inline(never)]
fn apply_effect(
    state: &mut State,
    call: Call<'_>,
    id: &[u8],
    further: Further,
    unsent_before: usize,
) -> usize {
    let Call { now, conn: key, command, args, .. } = call;
    let protocol = call.reply.protocol();
    match further {
        Further::Authenticate => {
            // Before the reply is written: the limits of unauthenticated connections must not count it.
            if let Some(conn) = state.conns.get_mut(key) {
                conn.authenticate();
                conn.set_protocol(call.reply.protocol());
            }
            give_back(state, now, key, &mut call.reply.end(), unsent_before);
        }
        Further::Close => {
            give_back(state, now, key, &mut call.reply.end(), unsent_before);
            let State { conns, pool, .. } = state;
            if let Some(conn) = conns.get_mut(key).filter(|conn| conn.is_serving()) {
                conn.begin_closing(CloseReason::Quit, now.mono, pool);
            }
        }
        Further::LookUp(form, first_absent) => {
            let (head, keys) = (call.reply.head(), call.args);
            give_back(state, now, key, &mut call.reply.discard(), unsent_before);
            measure::note_written(state, now, key);
            read::begin_pending(state, now, key, head, keys, form, first_absent);
            measure::note_held(state, now, key, CommandClass::Lookup, command.index);
        }
        Further::Show(shown) => {
            let head = call.reply.head();
            give_back(state, now, key, &mut call.reply.discard(), unsent_before);
            measure::note_written(state, now, key);
            pending::begin_shown(state, key, head, shown.form, shown.parts);
            measure::note_held(state, now, key, command.class(), command.index);
        }
        Further::DumpFilter => {
            let head = call.reply.head();
            give_back(state, now, key, &mut call.reply.discard(), unsent_before);
            measure::note_written(state, now, key);
            tasks::begin_filter_dump(state, key, head);
            measure::note_held(state, now, key, CommandClass::Scan, command.index);
        }
        Further::Scan(scan) => {
            let head = call.reply.head();
            give_back(state, now, key, &mut call.reply.discard(), unsent_before);
            measure::note_written(state, now, key);
            tasks::begin_scan(state, key, head, scan);
            measure::note_held(state, now, key, CommandClass::Scan, command.index);
        }
        Further::Handshake => {
            let is_first = state.conns.get_mut(key).is_some_and(Conn::requested);
            give_back(state, now, key, &mut call.reply.discard(), unsent_before);
            handshake::requested(state, now, key, id, args.get(0).unwrap_or_default(), is_first);
            limit_unauthenticated(state, now, key, unsent_before);
        }
        Further::Transact => {
            give_back(state, now, key, &mut call.reply.discard(), unsent_before);
            return transact(state, now, key, protocol);
        }
    }
    0
}

/// Replies with an error to a request that is not carried out. Returns its cost in keys.
#[cold]
fn refuse(
    state: &mut State,
    now: Now,
    key: ConnKey,
    protocol: Protocol,
    id: &[u8],
    error: &CommandError<'_>,
) -> usize {
    let State { conns, pool, stats, .. } = &mut *state;
    let Some(conn) = conns.get_mut(key) else { return 1 };
    let Output { out, unsent_before, .. } = open(conn, stats, pool);
    let mut out = put_error(state, Encoder::begin(out, protocol, id, "ERR"), error);
    give_back(state, now, key, &mut out, unsent_before);
    1
}

/// The output of a connection while a reply is written, and the state of the connection before the reply.
struct Output {
    out: Vec<u8>,
    /// Bytes of output before the reply; of an authenticated connection, which has no limit of them, the highest number.
    unsent_before: usize,
    /// Whether all commands can be called: no password is set, or it was given.
    is_authenticated: bool,
}

/// Counts a request and takes the buffer to which its reply is appended; [`give_back`] must follow.
#[inline(always)]
fn open(conn: &mut Conn, stats: &mut Stats, pool: &mut Pool) -> Output {
    stats.request();
    Output {
        unsent_before: if conn.is_authenticated() { usize::MAX } else { conn.unsent() },
        is_authenticated: conn.is_authenticated(),
        out: conn.replies.open(&mut conn.outbound, pool),
    }
}

/// Replaces a reply by an error, and counts the error.
fn put_error(state: &mut State, mut reply: Encoder, error: &CommandError<'_>) -> Vec<u8> {
    state.stats.request_error();
    error.write(&mut reply);
    reply.end()
}

/// Returns the buffer, with the reply, to its connection.
#[inline(always)]
fn give_back(state: &mut State, now: Now, key: ConnKey, out: &mut Vec<u8>, unsent_before: usize) {
    let State { conns, pool, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return pool.give(mem::take(out)) };
    conn.requested();
    conn.replies.close(out, &mut conn.outbound, pool);
    if !conn.is_authenticated() {
        limit_unauthenticated(state, now, key, unsent_before);
    }
}

fn close_browser(state: &mut State, now: Now, key: ConnKey) {
    if let Some(conn) = state.conns.get(key)
        && state.log_gate.allows(now, &mut state.stats)
    {
        log::warn!("closed {}: it sends HTTP; a browser was made to connect to this port", conn.addr());
    }
    close_conn(state, key, CloseReason::Browser);
}

#[cfg(test)]
mod tests {
    use crate::base::time::{Instant, Now};
    use crate::config::Config;
    use crate::limits::{EvictionPolicy, Limits};
    use crate::node::{ConnKey, Node};
    use std::fmt::Write;

    const CLIENTS: usize = 50;

    /// A node with clients, served as by a shell under load: per iteration the input of each client, then one tick.
    struct Load {
        node: Node,
        now: Now,
        clients: Vec<ConnKey>,
    }

    impl Load {
        fn new() -> Self {
            let now = Now { mono: Instant::ZERO, wall_nanos: 1_700_000_000_000_000_000 };
            let mut node = Node::new(Config::default(), 1, now);
            let addr = "127.0.0.1:40000".parse().unwrap();
            let clients = (0..CLIENTS).map(|_| node.accept(now, addr).unwrap()).collect();
            Self { node, now, clients }
        }

        /// Sends requests of one client; returns the replies.
        fn send(&mut self, requests: &str) -> String {
            let client = self.clients[0];
            self.node.received(self.now, client, requests.as_bytes());
            let reply = String::from_utf8(self.node.outbound(client).collect::<Vec<_>>().concat()).unwrap();
            self.node.wrote(self.now, client, reply.len());
            reply
        }

        /// An iteration, 5 ms after the last, in which each client sends what `requests` returns for its index.
        fn iterate(&mut self, requests: impl Fn(usize) -> String) {
            self.now.mono = Instant::from_millis(self.now.mono.millis() + 5);
            for (at, &client) in self.clients.iter().enumerate() {
                self.node.received(self.now, client, requests(at).as_bytes());
            }
            self.node.tick(self.now);
            for &client in &self.clients {
                let count = self.node.outbound_bytes(client);
                self.node.wrote(self.now, client, count);
            }
            while self.node.next_action().is_some() {}
        }
    }

    #[test]
    fn timers_do_not_gather_while_keys_are_deleted_or_get_other_expiries_without_a_pause() {
        let deleted = |text: &mut String, key: &str, at: usize| {
            writeln!(text, "SETEX {key}-{at}:v:{}\nDEL {key}-{at}", 1_000 + at)
        };
        let given_others = |text: &mut String, key: &str, at: usize| {
            let set = if at == 0 { format!("SET {key}:v\n") } else { String::new() };
            writeln!(text, "{set}EXPIRE {key}:{}", 1_000 + at)
        };
        let kinds: [fn(&mut String, &str, usize) -> std::fmt::Result; 2] = [deleted, given_others];
        for requests in kinds {
            let mut load = Load::new();
            for iteration in 0..30 {
                load.iterate(|client| {
                    let mut text = String::new();
                    let mut each = (iteration * 128..iteration * 128 + 128)
                        .map(|at| requests(&mut text, &format!("k{client}"), at));
                    assert!(each.all(|written| written.is_ok()));
                    text
                });
                let timers = load.node.state.keyspace.store().timers();
                assert!(timers <= 2 * CLIENTS + 64 * 1_024, "{timers} timers after {iteration} iterations");
            }
        }
    }

    #[test]
    fn expired_items_do_not_gather_while_keys_are_set_without_a_pause() {
        let mut load = Load::new();
        let mut most = 0;
        for iteration in 0..500 {
            load.iterate(|client| {
                (0..8).fold(String::new(), |mut text, at| {
                    let _ = writeln!(text, "SETEX k{client}-{iteration}-{at}:v:1");
                    text
                })
            });
            most = most.max(load.node.state.keyspace.store().len());
        }
        // 400 keys are set per iteration, and expire after 200 iterations.
        assert!(most < 95_000, "{most} items");
    }

    /// A request in RESP.
    fn in_resp(words: &[&str]) -> String {
        words.iter().fold(format!("*{}\r\n", words.len()), |text, word| {
            text + &format!("${}\r\n{word}\r\n", word.len())
        })
    }

    #[test]
    fn pipelined_requests_are_about_their_own_keys_in_a_store_beyond_the_caches() {
        let mut load = Load::new();
        let value = |id: usize| format!("{id:0100}");
        // A turn of the connection may end before the last request.
        let mut replies_to = |requests: &str, bytes: usize| {
            let mut replies = load.send(requests);
            for _ in 0..100 {
                if replies.len() >= bytes {
                    break;
                }
                load.node.tick(load.now);
                replies += &load.send("");
            }
            replies
        };
        for first in (0..10_000).step_by(100) {
            let each = |id: usize| in_resp(&["SET", &format!("k{id}"), &value(id)]);
            let all = "+OK\r\n".repeat(100);
            assert_eq!(replies_to(&(first..first + 100).map(each).collect::<String>(), all.len()), all);
        }
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let (mut requests, mut replies) = (String::new(), String::new());
        for id in 0..60 {
            let (key, next, old) = (format!("k{id}"), format!("k{}", id + 1), value(id));
            let (request, reply) = match id % 6 {
                0 => (in_resp(&["MGET", &key, "none", &next]), {
                    format!("*3\r\n{}$-1\r\n{}", bulk(&old), bulk(&value(id + 1)))
                }),
                1 => (in_resp(&["GET", &key]), bulk(&old)),
                2 => (
                    in_resp(&["SET", &key, "new"]) + &in_resp(&["GET", &key]),
                    format!("+OK\r\n{}", bulk("new")),
                ),
                3 => (in_resp(&["get", "none"]), "$-1\r\n".to_owned()),
                4 => (in_resp(&["DEL", &key, "none"]) + &in_resp(&["GET", &key]), ":1\r\n$-1\r\n".to_owned()),
                _ => (in_resp(&["GET", &key, "x"]), {
                    "-ERR wrong number of arguments for 'get' command\r\n".to_owned()
                }),
            };
            requests += &request;
            replies += &reply;
        }
        assert_eq!(replies_to(&requests, replies.len()), replies);
        assert!(load.node.state.keyspace.is_beyond_caches());
    }

    #[test]
    fn space_of_the_store_that_is_used_refuses_all_of_a_request_and_says_what_it_is() {
        let mut load = Load::new();
        load.node.state.keyspace.store_mut().limit_regions(8);
        let value = "x".repeat(1_000);
        let mut reply = String::new();
        for id in 0..4_000 {
            reply = load.send(&format!("SET k{id}-a:{value},k{id}-b:{value},k{id}-c:{value}\n"));
            if reply.starts_with(":ERR ") {
                let got = load.send(&format!("GET k{id}-a,k{id}-b,k{id}-c\n"));
                assert_eq!(got, ":GOT \n", "after {reply}");
                break;
            }
        }
        let sentence = "out of memory: the 32 GiB for small items are used; delete something";
        assert_eq!(reply, format!(":ERR {sentence}\n"));
        // One key is set as long as there is a slot.
        assert!(load.send(&format!("SET one:{value}\n")).starts_with(":SAT "));
    }

    #[test]
    fn filter_that_grows_takes_nothing_of_what_a_request_was_granted() {
        let mut load = Load::new();
        // Setting the second of the keys below begins the next filter.
        let (at_growth, step) = (174_763usize.next_multiple_of(64), 97);
        let mut id = 0;
        while id < at_growth - 2 {
            let keys: Vec<String> =
                (id..(id + step).min(at_growth - 2)).map(|id| format!("k{id}:")).collect();
            id += keys.len();
            load.send(&format!("SET {}\n", keys.join(",")));
            if id < 174_000 {
                load.node.tick(load.now);
            }
        }
        // Room for that filter, and for the pages of two keys of different size classes.
        let room = 2 * load.node.own_filter().bytes() + 2 * 64 * 1_024 + 20_000;
        let limit = load.node.state.keyspace.store().memory_bytes() + room;
        load.node.state.keyspace.set_limits(&Limits {
            memory_max: limit,
            eviction: EvictionPolicy::Refuse,
            ..Limits::default()
        });
        let sizes = [3_000, 5_000, 7_000];
        let args: Vec<String> = sizes.iter().map(|len| format!("new{len}:{}", "x".repeat(*len))).collect();
        let reply = load.send(&format!("SET {}\n", args.join(",")));
        let got = load.send("GET new3000,new5000,new7000\n");
        assert!(reply.starts_with(":SAT new3000:"), "{reply}; then there is {}", &got[..got.len().min(20)]);
        assert_eq!(reply.replace("SAT", "GOT"), got);
    }
}
