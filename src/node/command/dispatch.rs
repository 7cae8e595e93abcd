//! What each command does.
//!
//! All are carried out on this node alone, but for GET and TTL: where one of their keys is not here and
//! may be elsewhere, nothing is answered yet, and the request goes over to [`crate::node::lookup::remote`].

use crate::base::time::Now;
use crate::config::Config;
use crate::limits::KEYS_PER_STEP;
use crate::node::command::status;
use crate::node::conn::connection::{CloseReason, Conn};
use crate::node::ids::ConnKey;
use crate::node::keyspace::Keyspace;
use crate::node::lookup::remote;
use crate::node::metrics::Stats;
use crate::node::peer::handshake;
use crate::node::peer::mesh::Mesh;
use crate::node::state::{State, close_conn};
use crate::store::{Expiry, Full};
use crate::wire::args::{ArgLimits, Args};
use crate::wire::frame::Wanted;
use crate::wire::line::{Line, is_from_browser};
use crate::wire::reply::{REDIS_PONG, Reply, ReplyTooLong, put_error};
use crate::wire::request::{Command, HELP, Request, Topic};
use std::fmt;
use std::mem;
use subtle::ConstantTimeEq;

/// What a command does to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    None,
    Close,
    Authenticate,
    /// It is to be asked elsewhere; nothing was written.
    LookElsewhere(Wanted),
}

/// Why a command that was read properly is refused. Nothing was changed by it, unless the system gave no memory
/// in the middle.
#[derive(Debug)]
enum CommandError {
    /// There is no memory for it.
    Full(Full),
    /// A reply over its limit.
    ReplyTooLong(ReplyTooLong),
    /// A deadline beyond what an item can hold.
    TooFar,
    /// A password is set and was not given.
    Unauthenticated,
    /// The wrong one was given.
    WrongPassword,
    /// One was given and none is set.
    NoPasswordSet,
    /// As many keys are being looked up on other nodes as may be.
    TooManyLookups(u32),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(Full::Limit { used_bytes, limit_bytes }) => write!(
                f,
                "out of memory: {used_bytes} of {limit_bytes} bytes are used; \
                 delete something or raise memory_max"
            ),
            Self::Full(Full::Space) => {
                f.write_str("out of memory: the 32 GiB that small items can lie in are used; delete something")
            }
            Self::Full(Full::System) => f.write_str(
                "out of memory: the system gives no more; delete something. Of several keys the first may be set",
            ),
            Self::ReplyTooLong(error) => error.fmt(f),
            Self::TooFar => f.write_str("the deadline is too far away; take fewer seconds"),
            Self::Unauthenticated => f.write_str("authentication needed; say AUTH password"),
            Self::WrongPassword => f.write_str("wrong password"),
            Self::NoPasswordSet => f.write_str("no password is set on this node; go on without AUTH"),
            Self::TooManyLookups(limit) => {
                write!(f, "{limit} keys are being looked up on other nodes, the limit; try again")
            }
        }
    }
}

/// What commands work on, apart from their connection.
struct Desk<'s> {
    keyspace: &'s mut Keyspace,
    mesh: &'s mut Mesh,
    stats: &'s mut Stats,
    config: &'s Config,
    now: Now,
}

/// Carries out one line for a connection and writes its reply, or sees to it that it will be written.
/// Returns how many keys it was about, at least 1, and how many questions to peers that made.
pub(in crate::node) fn execute(state: &mut State, now: Now, key: ConnKey, line: Line<'_>) -> usize {
    if is_from_browser(line.text) {
        turn_browser_away(state, now, key);
        return 1;
    }
    let Some(conn) = state.conns.get(key) else { return 1 };
    let limits = arg_limits(conn, &state.config);
    // Out of the state while its arguments are in use, since commands change the state it lies in.
    let mut parser = mem::take(&mut state.parser);
    let request = parser.parse(line, limits);
    let command = request.as_ref().and_then(|request| request.command.as_ref().ok());
    let keys = match command {
        // What goes over all that is known of other nodes is a step by itself.
        Some(Command::Stats | Command::Mesh | Command::Request(Topic::Peers)) => KEYS_PER_STEP,
        other => other.map_or(1, Command::keys),
    };
    let asked_before = state.mesh.lookups.queries();
    if let Some(request) = request {
        state.stats.requests += 1;
        carry_out(state, now, key, &request);
    }
    state.parser = parser;
    keys.saturating_add(state.mesh.lookups.queries_since(asked_before))
}

/// Carries out one request.
fn carry_out(state: &mut State, now: Now, key: ConnKey, request: &Request<'_>) {
    let Some(conn) = state.conns.get_mut(key) else { return };
    let before = conn.unsent();
    let is_first = !mem::replace(&mut conn.has_asked, true);
    let may_all = conn.is_authenticated;
    let id = request.id;
    match &request.command {
        Ok(Command::Handshake(offer)) => handshake::requested(state, now, key, id, offer, is_first),
        Ok(Command::Stats) if may_all => status::stats(state, now, key, id),
        Ok(Command::Mesh) if may_all => status::mesh(state, now, key, id),
        Ok(Command::Who(who)) if may_all => status::who(state, now, key, id, who),
        Ok(Command::Request(Topic::Peers)) if may_all => status::peers(state, key, id),
        Ok(Command::Request(Topic::BloomFilter | Topic::Connect)) if may_all => {
            status::filter(state, key, id)
        }
        Ok(_) | Err(_) => at_the_desk(state, now, key, request, may_all),
    }
    hold_strangers_short(state, now, key, before);
}

/// Carries out a request that needs no more than the desk.
fn at_the_desk(state: &mut State, now: Now, key: ConnKey, request: &Request<'_>, may_all: bool) {
    let State { conns, pool, keyspace, mesh, stats, config, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    let mut desk = Desk { keyspace, mesh, stats, config, now };
    let effect = conn.replies.next(&mut conn.outbound, pool, |out| answer(&mut desk, request, may_all, out));
    match effect {
        Effect::None => {}
        Effect::Authenticate => conn.is_authenticated = true,
        Effect::Close => conn.begin_closing(CloseReason::Quit, now.mono, pool),
        Effect::LookElsewhere(wanted) => {
            if let Ok(Command::Get(args) | Command::Ttl(args)) = &request.command {
                remote::begin(state, now, key, request.id, wanted, *args);
            }
        }
    }
}

/// Ends a connection that has been told too much without having given the password.
fn hold_strangers_short(state: &mut State, now: Now, key: ConnKey, unsent_before: usize) {
    let State { conns, pool, config, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    if conn.is_authenticated || !conn.is_serving() {
        return;
    }
    let more = u32::try_from(conn.unsent() - unsent_before).unwrap_or(u32::MAX);
    conn.unauthenticated_bytes = conn.unauthenticated_bytes.saturating_add(more);
    if conn.unauthenticated_bytes > config.limits.unauthenticated_output_bytes_max {
        conn.begin_closing(CloseReason::Unauthenticated, now.mono, pool);
    }
}

fn turn_browser_away(state: &mut State, now: Now, key: ConnKey) {
    if let Some(conn) = state.conns.get(key)
        && state.log_gate.allows(now, &mut state.stats)
    {
        log::warn!("closed {}: it speaks HTTP; a browser was made to talk to this port", conn.addr);
    }
    close_conn(state, key, CloseReason::Browser);
}

fn arg_limits(conn: &Conn, config: &Config) -> ArgLimits {
    let limits = &config.limits;
    let args_max = if conn.is_authenticated {
        limits.args_max
    } else {
        limits.args_max.min(limits.unauthenticated_args_max)
    };
    ArgLimits {
        args_max: args_max as usize,
        key_bytes_max: limits.key_bytes_max as usize,
        value_bytes_max: limits.value_bytes_max as usize,
    }
}

/// Writes the one reply to a request, whatever it is, unless it has to be looked for elsewhere.
fn answer(desk: &mut Desk<'_>, request: &Request<'_>, may_all: bool, out: &mut Vec<u8>) -> Effect {
    let id = request.id;
    let start = out.len();
    let outcome = match &request.command {
        Err(error) => {
            desk.stats.request_errors += 1;
            put_error(out, id, error);
            return Effect::None;
        }
        Ok(command) if !may_all && !is_open_to_all(command) => Err(CommandError::Unauthenticated),
        Ok(command) => work(desk, command, id, out),
    };
    match outcome {
        Ok(effect) => {
            if matches!(effect, Effect::LookElsewhere(_)) {
                out.truncate(start);
            }
            effect
        }
        Err(error) => {
            desk.stats.request_errors += 1;
            out.truncate(start);
            put_error(out, id, error);
            Effect::None
        }
    }
}

/// Whether a command is carried out before the password was given.
const fn is_open_to_all(command: &Command<'_>) -> bool {
    matches!(command, Command::Ping { .. } | Command::Help | Command::Quit | Command::Auth(_))
}

fn work(
    desk: &mut Desk<'_>,
    command: &Command<'_>,
    id: &[u8],
    out: &mut Vec<u8>,
) -> Result<Effect, CommandError> {
    match command {
        Command::Get(args) => return get(desk, *args, Reply::begin(out, id, "GOT")),
        Command::Ttl(args) => return ttl(desk, *args, Reply::begin(out, id, "LASTS")),
        Command::Set(args) => set(desk, *args, Reply::begin(out, id, "SAT"))?,
        Command::SetEx(args) => set_ex(desk, *args, Reply::begin(out, id, "SATEX"))?,
        Command::Del(args) => del(desk, *args, Reply::begin(out, id, "DELETED"))?,
        Command::Expire(args) => expire(desk, *args, Reply::begin(out, id, "EXPIRES"))?,
        Command::Ping { of_redis: true } => out.extend_from_slice(REDIS_PONG),
        Command::Ping { of_redis: false } => say(out, if id.is_empty() { b"0" } else { id }, "PONG", "1"),
        Command::Help => say(out, id, "HELP", HELP),
        Command::Auth(password) => {
            authenticate(desk, password)?;
            say(out, id, "WELCOME", "");
            return Ok(Effect::Authenticate);
        }
        Command::Request(Topic::Disconnect) => {
            say(out, id, "FULFILLED", "bye");
            return Ok(Effect::Close);
        }
        Command::Quit => {
            say(out, id, "BYE", "");
            return Ok(Effect::Close);
        }
        // Carried out before it came to this.
        Command::Handshake(_)
        | Command::Stats
        | Command::Mesh
        | Command::Who(_)
        | Command::Request(Topic::Peers | Topic::BloomFilter | Topic::Connect) => {}
    }
    Ok(Effect::None)
}

/// Writes a reply of one piece.
fn say(out: &mut Vec<u8>, id: &[u8], word: &str, text: &str) {
    let mut reply = Reply::begin(out, id, word);
    if !text.is_empty() {
        reply.text(text);
    }
    reply.end();
}

fn get(desk: &mut Desk<'_>, args: Args<'_>, mut reply: Reply<'_>) -> Result<Effect, CommandError> {
    let mut found = 0;
    for arg in args.iter() {
        let key = desk.keyspace.key(arg.key);
        match desk.keyspace.get(desk.now, key) {
            Some(item) => {
                found += 1;
                reply.pair(arg.key, item.value);
                check_length(desk, args, &reply)?;
            }
            None if desk.mesh.may_be_elsewhere(key.hash.0) => {
                return look_elsewhere(desk, args, Wanted::Value);
            }
            None => {}
        }
    }
    let asked = args.len() as u64;
    desk.stats.gets += asked;
    desk.stats.hits += found;
    desk.stats.misses += asked - found;
    desk.mesh.checks += asked - found;
    reply.end();
    Ok(Effect::None)
}

/// A key is not here and may be elsewhere: all of the request is taken up again with that in mind.
fn look_elsewhere(desk: &Desk<'_>, args: Args<'_>, wanted: Wanted) -> Result<Effect, CommandError> {
    let lookups_max = desk.config.limits.lookups_max;
    if desk.mesh.lookups.has_room(args.len(), lookups_max as usize) {
        Ok(Effect::LookElsewhere(wanted))
    } else {
        Err(CommandError::TooManyLookups(lookups_max))
    }
}

fn set(desk: &mut Desk<'_>, args: Args<'_>, mut reply: Reply<'_>) -> Result<(), CommandError> {
    check_room(desk, args)?;
    for arg in args.iter() {
        reply.pair(arg.key, arg.value);
    }
    check_length(desk, args, &reply)?;
    for arg in args.iter() {
        put(desk, arg.key, arg.value, None)?;
    }
    desk.keyspace.keep_up(desk.now);
    reply.end();
    Ok(())
}

fn set_ex(desk: &mut Desk<'_>, args: Args<'_>, mut reply: Reply<'_>) -> Result<(), CommandError> {
    check_room(desk, args)?;
    for arg in args.iter() {
        deadline(desk, arg.seconds)?;
        reply.pair_seconds(arg.key, arg.value, arg.seconds);
    }
    check_length(desk, args, &reply)?;
    for arg in args.iter() {
        let deadline = deadline(desk, arg.seconds)?;
        put(desk, arg.key, arg.value, Some(deadline))?;
    }
    desk.keyspace.keep_up(desk.now);
    reply.end();
    Ok(())
}

fn del(desk: &mut Desk<'_>, args: Args<'_>, mut reply: Reply<'_>) -> Result<(), CommandError> {
    // As if all were there: the reply that is too long must be known before the first is gone.
    args.iter().for_each(|arg| reply.key(arg.key));
    check_length(desk, args, &reply)?;
    reply.clear();
    for arg in args.iter() {
        let key = desk.keyspace.key(arg.key);
        if desk.keyspace.remove(desk.now, key) {
            reply.key(arg.key);
        }
    }
    desk.keyspace.keep_up(desk.now);
    reply.end();
    Ok(())
}

fn expire(desk: &mut Desk<'_>, args: Args<'_>, mut reply: Reply<'_>) -> Result<(), CommandError> {
    for arg in args.iter() {
        deadline(desk, arg.seconds)?;
        reply.key_text(arg.key, arg.seconds);
    }
    check_length(desk, args, &reply)?;
    reply.clear();
    for arg in args.iter() {
        let deadline = deadline(desk, arg.seconds)?;
        let key = desk.keyspace.key(arg.key);
        if desk.keyspace.set_expiry(desk.now, key, Some(deadline)).map_err(CommandError::Full)? {
            reply.key_text(arg.key, arg.seconds);
        }
    }
    desk.keyspace.keep_up(desk.now);
    reply.end();
    Ok(())
}

fn ttl(desk: &mut Desk<'_>, args: Args<'_>, mut reply: Reply<'_>) -> Result<Effect, CommandError> {
    let mut absent = 0;
    for arg in args.iter() {
        let key = desk.keyspace.key(arg.key);
        match desk.keyspace.get(desk.now, key).map(|item| item.expiry) {
            None if desk.mesh.may_be_elsewhere(key.hash.0) => {
                return look_elsewhere(desk, args, Wanted::Ttl);
            }
            None => absent += 1,
            Some(None) => reply.key_text(arg.key, "never"),
            Some(Some(deadline)) => reply.key_text(arg.key, deadline.seconds_left(desk.now.mono)),
        }
        check_length(desk, args, &reply)?;
    }
    desk.mesh.checks += absent;
    reply.end();
    Ok(Effect::None)
}

fn authenticate(desk: &mut Desk<'_>, given: &[u8]) -> Result<(), CommandError> {
    let Some(password) = &desk.config.password else { return Err(CommandError::NoPasswordSet) };
    if bool::from(password.as_bytes().ct_eq(given)) {
        return Ok(());
    }
    desk.stats.auth_failures += 1;
    Err(CommandError::WrongPassword)
}

/// Sets one key, if there is room for it; of several there is by now.
fn put(desk: &mut Desk<'_>, key: &[u8], value: &[u8], deadline: Option<Expiry>) -> Result<(), CommandError> {
    let key = desk.keyspace.key(key);
    desk.keyspace.set(desk.now, key, value, deadline).map_err(CommandError::Full)?;
    Ok(())
}

/// Whether all of a SET fits, since all or none of it is done. With one key that is found out by setting it, and
/// exactly: one that takes the place of another of its size needs no room.
fn check_room(desk: &mut Desk<'_>, args: Args<'_>) -> Result<(), CommandError> {
    if args.len() == 1 {
        return Ok(());
    }
    let bytes = args.iter().map(|arg| arg.key.len() + arg.value.len()).sum();
    desk.keyspace.make_room(desk.now, args.len(), bytes).map_err(CommandError::Full)
}

fn check_length(desk: &Desk<'_>, args: Args<'_>, reply: &Reply<'_>) -> Result<(), CommandError> {
    let limit_bytes = desk.config.limits.reply_bytes_max;
    if reply.len() <= limit_bytes as usize {
        return Ok(());
    }
    Err(CommandError::ReplyTooLong(ReplyTooLong { limit_bytes, keys: args.len() }))
}

fn deadline(desk: &Desk<'_>, seconds: u64) -> Result<Expiry, CommandError> {
    Expiry::in_seconds(desk.now.mono, seconds).ok_or(CommandError::TooFar)
}

#[cfg(test)]
mod tests {
    use crate::base::time::{Instant, Now};
    use crate::config::Config;
    use crate::node::{ConnKey, Node};
    use std::fmt::Write;

    const CLIENTS: usize = 50;

    /// A node with clients on this machine, which are served as a shell under load does it: all that each has
    /// sent, and then one step of what is due.
    struct Load {
        node: Node,
        now: Now,
        clients: Vec<ConnKey>,
    }

    impl Load {
        fn new() -> Self {
            let now = Now { mono: Instant::ZERO, wall_ms: 1_700_000_000_000 };
            let mut node = Node::new(Config::default(), 1, now);
            let addr = "127.0.0.1:40000".parse().unwrap();
            let clients = (0..CLIENTS).map(|_| node.accept(now, addr).unwrap()).collect();
            Self { node, now, clients }
        }

        /// The replies to what one client sends.
        fn ask(&mut self, requests: &str) -> String {
            let client = self.clients[0];
            self.node.received(self.now, client, requests.as_bytes());
            let told = String::from_utf8(self.node.outbound(client).collect::<Vec<_>>().concat()).unwrap();
            self.node.wrote(self.now, client, told.len());
            told
        }

        /// A turn of five milliseconds in which each client sends what `requests` says of it.
        fn turn(&mut self, requests: impl Fn(usize) -> String) {
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
    fn timers_of_keys_set_and_deleted_without_a_pause_do_not_gather() {
        let mut load = Load::new();
        for turn in 0..30 {
            load.turn(|client| {
                (0..64).fold(String::new(), |mut text, at| {
                    let _ = writeln!(text, "SETEX k{client}-{at}:v:{}\nDEL k{client}-{at}", 1_000 + turn);
                    text
                })
            });
            let timers = load.node.state.keyspace.store().timers();
            assert!(timers <= 64 * 1_024, "{timers} timers of no item after {turn} turns");
        }
    }

    #[test]
    fn expired_items_do_not_gather_while_keys_are_set_without_a_pause() {
        let mut load = Load::new();
        let mut most = 0;
        for turn in 0..500 {
            load.turn(|client| {
                (0..8).fold(String::new(), |mut text, at| {
                    let _ = writeln!(text, "SETEX k{client}-{turn}-{at}:v:1");
                    text
                })
            });
            most = most.max(load.node.state.keyspace.store().len());
        }
        // 400 come each turn, and live for 200 turns.
        assert!(most < 95_000, "{most} items");
    }

    #[test]
    fn timers_of_keys_given_ever_other_deadlines_do_not_gather() {
        let mut load = Load::new();
        for turn in 0..30 {
            load.turn(|client| {
                let begin = if turn == 0 { format!("SET k{client}:v\n") } else { String::new() };
                (0..128).fold(begin, |mut text, at| {
                    let _ = writeln!(text, "EXPIRE k{client}:{}", 1_000 + 128 * turn + at);
                    text
                })
            });
            let timers = load.node.state.keyspace.store().timers();
            assert!(timers <= 2 * CLIENTS + 64 * 1_024, "{timers} timers after {turn} turns");
        }
    }

    #[test]
    fn space_of_the_store_that_is_used_refuses_all_of_a_request_and_says_what_it_is() {
        let mut load = Load::new();
        load.node.state.keyspace.store_mut().limit_regions(8);
        let value = "x".repeat(1_000);
        let mut told = String::new();
        for id in 0..4_000 {
            told = load.ask(&format!("SET k{id}-a:{value},k{id}-b:{value},k{id}-c:{value}\n"));
            if told.starts_with(":ERR ") {
                let got = load.ask(&format!("GET k{id}-a,k{id}-b,k{id}-c\n"));
                assert_eq!(got, ":GOT \n", "after {told}");
                break;
            }
        }
        let sentence = "out of memory: the 32 GiB that small items can lie in are used; delete something";
        assert_eq!(told, format!(":ERR {sentence}\n"));
        // One key is set as long as there is a slot.
        assert!(load.ask(&format!("SET one:{value}\n")).starts_with(":SAT "));
    }

    #[test]
    fn filter_that_grows_takes_nothing_of_what_a_request_was_granted() {
        let mut load = Load::new();
        // The next filter is begun with the second of the keys below.
        let (at_growth, step) = (174_763usize.next_multiple_of(64), 97);
        let mut id = 0;
        while id < at_growth - 2 {
            let keys: Vec<String> =
                (id..(id + step).min(at_growth - 2)).map(|id| format!("k{id}:")).collect();
            id += keys.len();
            load.ask(&format!("SET {}\n", keys.join(",")));
            if id < 174_000 {
                load.node.tick(load.now);
            }
        }
        // Room for it, and for the pages of two keys, each of another size.
        let room = 2 * load.node.own_filter().bytes() + 2 * 64 * 1_024 + 20_000;
        let limit = load.node.state.keyspace.store().memory_bytes() + room;
        load.node.state.keyspace.set_memory_max(limit);
        let sizes = [3_000, 5_000, 7_000];
        let args: Vec<String> = sizes.iter().map(|len| format!("new{len}:{}", "x".repeat(*len))).collect();
        let told = load.ask(&format!("SET {}\n", args.join(",")));
        let got = load.ask("GET new3000,new5000,new7000\n");
        assert!(told.starts_with(":SAT new3000:"), "{told}; then there is {}", &got[..got.len().min(20)]);
        assert_eq!(told.replace("SAT", "GOT"), got);
    }
}
