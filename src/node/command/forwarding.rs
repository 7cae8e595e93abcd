//! Commands that are carried out by other nodes, or for other nodes.
//!
//! A command that depends on the old values of keys is carried out once, by the node that holds them; see
//! [`crate::node::lookup::forward`]. Before the handler of such a command is called, [`is_for_here`] decides whether
//! this node holds the keys, or may create them. If not, [`begin`] makes the request pending, and later requests of its
//! connection wait for its reply. For a peer the same handler is called, and its reply is sent without head and end.

use crate::base::chunk_queue::ChunkQueue;
use crate::base::memory::reserve;
use crate::base::shared_bytes::SharedBytes;
use crate::base::time::Now;
use crate::limits::RESP_ARGS_MAX;
use crate::node::command::error::{CommandError, seconds};
use crate::node::command::find::{find_command, find_for_peer};
use crate::node::command::keys;
use crate::node::command::read::read_here;
use crate::node::command::row::{Access, Call, Command, Effect, Further, Scope};
use crate::node::command::table::TABLE;
use crate::node::conn::pending;
use crate::node::conn::pending::store_part;
use crate::node::conn::session::Session;
use crate::node::digest::sync;
use crate::node::ids::{ConnKey, LookupKey, NodeId, PendingKey};
use crate::node::lookup::answers::Answer;
use crate::node::lookup::broadcast;
use crate::node::lookup::forward;
use crate::node::lookup::forwarded::{Failure, ForwardedCommand, OnMissing, PeerCommand, Request};
use crate::node::lookup::key_reply::{KeyReply, Shape};
use crate::node::lookup::pending_request::{PendingRequest, Waiter};
use crate::node::lookup::placement::{self, Verdict};
use crate::node::lookup::table::Task;
use crate::node::peer::link_output;
use crate::node::schedule::cost_of_bytes;
use crate::node::state::State;
use crate::node::versions::floor;
use crate::store::Version;
use crate::wire::args::Args;
use crate::wire::encoder::{Encoder, Protocol, ReplyHead, ReplyTooLong};
use crate::wire::frame::{Body, Hints, KeyState, Wanted};
use crate::wire::line_form::Syntax;
use crate::wire::owned_args::{OwnedArgs, RequestList};
use crate::wire::remote_reply::{KeyVersion, put_keys, put_result_head};
use std::collections::{BTreeMap, BTreeSet};

/// The name of a forwarded transaction. Its arguments are, per request, the number of words and the words.
const TRANSACTION: &[u8] = b"EXEC";

/// The form of a reply that another node has written: adds nothing.
pub(super) static VERBATIM: KeyReply =
    KeyReply { wanted: Wanted::Ttl, shape: Shape::One, range: None, write: |_, _, _, _| {} };

/// The form of the reply to FLUSHALL MESH, whose only part has the number of nodes as its key.
static FLUSHED: KeyReply = KeyReply {
    write: |reply, _, nodes, _| {
        if reply.is_line() {
            reply.text(String::from_utf8_lossy(nodes));
        } else {
            reply.ok();
        }
    },
    ..VERBATIM
};

/// Whether this node alone carries out a request. True before authentication: this node returns the error.
#[inline]
pub(in crate::node) fn is_for_here(
    state: &State,
    now: Now,
    conn: ConnKey,
    command: &Command,
    is_line: bool,
    args: Args<'_>,
) -> bool {
    state.mesh.peers.len() == 0
        || command.scope_of(is_line, args) == Scope::Here
        || is_all_here(state, now, conn, command, is_line, args)
}

/// The general case of [`is_for_here`]: the request may concern other nodes.
#[inline(never)]
fn is_all_here(
    state: &State,
    now: Now,
    conn: ConnKey,
    command: &Command,
    is_line: bool,
    args: Args<'_>,
) -> bool {
    let Some(conn) = state.conns.get(conn).filter(|conn| conn.is_authenticated()) else { return true };
    let (keys, on_missing) = (|| command.keys(is_line, args), || command.on_missing(is_line, args));
    let is_here =
        |key| placement::verdict(state, now, std::iter::once(key), on_missing(), &[]) == Verdict::Here;
    // `plan` found the keys of a transaction here before it began; its own writes since do not count.
    match (command.scope_of(is_line, args), conn.is_transacting()) {
        (Scope::Here | Scope::Options, _) => true,
        (Scope::FirstKey | Scope::AllKeys | Scope::EachKey | Scope::Transaction, true) => true,
        (Scope::FirstKey, false) => keys().take(1).all(is_here),
        (Scope::EachKey, false) => keys().all(is_here),
        (Scope::AllKeys, false) => placement::verdict(state, now, keys(), on_missing(), &[]) == Verdict::Here,
        (Scope::Claimants, _) => !keys().any(|key| may_be_elsewhere(state, key)),
        (Scope::Mesh, _) => state.mesh.peers.linked_count() == 0 || args.len() != 1,
        (Scope::Transaction, false) => {
            let requests = conn.session().and_then(Session::transaction);
            plan(state, now, requests.into_iter().flat_map(|queued| queued.requests().iter())).is_none()
        }
    }
}

/// Whether an earlier request of a connection waits for one of these keys: its reply must show the value before the
/// write.
pub(in crate::node) fn writes_what_is_looked_up<'k>(
    state: &State,
    conn: ConnKey,
    mut keys: impl Iterator<Item = &'k [u8]>,
) -> bool {
    let is_earlier = |waiter: Waiter| {
        let request = state.mesh.pending.get(waiter.pending);
        request.is_some_and(|request| request.conn() == conn)
    };
    keys.any(|key| state.mesh.lookups.has_waiter(state.keyspace.key(key).hash, is_earlier))
}

/// Whether another node may hold a key.
fn may_be_elsewhere(state: &State, key: &[u8]) -> bool {
    let hash = state.keyspace.key(key).hash;
    placement::may_hold(state, hash, &[]).next().is_some()
}

/// Begins a request that concerns other nodes: it becomes pending. `head` is the head of its reply.
///
/// # Errors
/// A limit is reached, or an argument is invalid; nothing was done.
pub(in crate::node) fn begin<'a>(
    state: &mut State,
    now: Now,
    conn: ConnKey,
    head: ReplyHead,
    is_answered: bool,
    command: &'static Command,
    args: Args<'a>,
) -> Result<(), CommandError<'a>> {
    let (protocol, is_line) = (head.protocol(), head.protocol() == Protocol::Lines);
    let scope = command.scope_of(is_line, args);
    let keys = command.keys(is_line, args);
    let (count, limits) = (keys.len(), &state.config.limits);
    let lookups = match scope {
        Scope::Claimants => keys.clone().filter(|key| may_be_elsewhere(state, key)).count(),
        Scope::FirstKey | Scope::AllKeys | Scope::Mesh => 1,
        Scope::EachKey => count,
        Scope::Here | Scope::Options | Scope::Transaction => 0,
    };
    if !state.mesh.lookups.has_room(lookups, limits.lookups_max as usize) {
        return Err(CommandError::TooManyLookups(limits.lookups_max));
    }
    // With quotes and escapes a byte takes up to four.
    let reply_bytes: usize = args.iter().map(|arg| 4 * arg.len() + 24).sum();
    if is_line && count > 1 && reply_bytes > limits.reply_bytes_max as usize {
        return Err(CommandError::ReplyTooLong(ReplyTooLong {
            limit_bytes: limits.reply_bytes_max,
            keys: count,
        }));
    }
    if command.line.as_ref().is_some_and(|form| is_line && form.syntax == Syntax::Numbers) {
        for [_, text] in args.tuples::<2>() {
            seconds(command.name, text)?;
        }
    }
    match scope {
        Scope::Claimants => {
            let Some(pending) = hold(state, conn, head, keys::PRESENT, is_answered, keys.clone()) else {
                return Ok(());
            };
            delete(state, now, pending, keys);
        }
        Scope::Mesh => {
            let nodes = format!("{} nodes", state.mesh.peers.linked_count() + 1);
            let keys = std::iter::once(nodes.as_bytes());
            let Some(pending) = hold(state, conn, head, FLUSHED, is_answered, keys) else { return Ok(()) };
            let version = floor::raise(state, now);
            broadcast::floor(state, now, Waiter { pending, part: 0 }, version);
        }
        Scope::EachKey => {
            let Some(pending) = hold(state, conn, head, VERBATIM, is_answered, keys.clone()) else {
                return Ok(());
            };
            let step = command.step(is_line);
            for (part, key) in keys.enumerate() {
                let args = if is_line { args.skip(part * step).first(step) } else { args };
                send(state, now, Waiter { pending, part }, protocol, command, args, vec![key.into()]);
            }
        }
        Scope::FirstKey | Scope::AllKeys => {
            let depends = if scope == Scope::FirstKey { 1 } else { count };
            let Some(pending) = hold(state, conn, head, VERBATIM, is_answered, keys.clone().take(1)) else {
                return Ok(());
            };
            let keys = keys.take(depends).map(Box::from).collect();
            send(state, now, Waiter { pending, part: 0 }, protocol, command, args, keys);
        }
        Scope::Here | Scope::Options | Scope::Transaction => {}
    }
    Ok(())
}

/// Makes a request pending; later requests of its connection wait for its reply. `None` if the connection is closed.
fn hold<'k>(
    state: &mut State,
    conn: ConnKey,
    head: ReplyHead,
    form: KeyReply,
    is_answered: bool,
    keys: impl Iterator<Item = &'k [u8]> + Clone,
) -> Option<PendingKey> {
    let pending = pending::begin(state, conn, head, form, is_answered, keys)?;
    pending::make_barrier(state, pending);
    Some(pending)
}

/// Deletes keys here and on all nodes that may hold them.
fn delete<'k>(state: &mut State, now: Now, pending: PendingKey, keys: impl Iterator<Item = &'k [u8]>) {
    for (part, key) in keys.enumerate() {
        let hashed = state.keyspace.key(key);
        let (version, had) = state.keyspace.delete_command(now, hashed, Version(0));
        let waiter = Waiter { pending, part };
        if may_be_elsewhere(state, key) {
            broadcast::delete(state, now, waiter, key, version, had);
        } else if had {
            store_part(state, waiter, Answer::Found { value: SharedBytes::default(), until: None }, 0);
        } else {
            store_part(state, waiter, Answer::Missing, 0);
        }
    }
    state.keyspace.keep_up(now);
}

/// Forwards one command to the node that holds its keys.
fn send(
    state: &mut State,
    now: Now,
    waiter: Waiter,
    protocol: Protocol,
    command: &Command,
    args: Args<'_>,
    keys: Vec<Box<[u8]>>,
) {
    let on_missing = command.on_missing(protocol == Protocol::Lines, args);
    let Some(args) = OwnedArgs::new(args) else {
        return store_part(state, waiter, Answer::Failed(Failure::NoMemory), 0);
    };
    let request = Request { name: command.name.as_bytes().into(), args, protocol };
    send_request(state, now, waiter, request, keys, on_missing);
}

fn send_request(
    state: &mut State,
    now: Now,
    waiter: Waiter,
    request: Request,
    keys: Vec<Box<[u8]>>,
    on_missing: OnMissing,
) {
    let limits = &state.config.limits;
    if request.args.held() > limits.key_bytes_max as usize + limits.value_bytes_max as usize {
        return store_part(state, waiter, Answer::Failed(Failure::NotTaken), 0);
    }
    pending::count_command(state, waiter.pending, request.args.held());
    let command =
        ForwardedCommand { request, keys, on_missing, moved_version: 0, absent: Vec::new(), home_changes: 0 };
    forward::begin(state, now, waiter, command);
}

/// The part of a transaction that is carried out by the node that holds its keys.
#[derive(Debug)]
pub(in crate::node) struct Plan {
    /// The deciding keys: that node holds them, or may create them.
    keys: Vec<Box<[u8]>>,
    /// Per request, whether that node carries it out.
    is_there: Vec<bool>,
}

/// Plans a transaction; `None` if all of it is carried out here. One node carries out the requests that depend on old
/// values, reads of keys that later requests write, and all other requests for the same keys. Exception: a read that
/// also has other keys is looked up afterwards, like any read, unless a later request writes one of the same keys.
pub(in crate::node) fn plan<'r>(
    state: &State,
    now: Now,
    requests: impl Iterator<Item = Args<'r>>,
) -> Option<Plan> {
    if state.mesh.peers.len() == 0 {
        return None;
    }
    let found = requests.map(|request| find_command(request, &state.config.limits));
    let requests: Vec<(&Command, Args<'_>)> = found.collect::<Result<_, _>>().ok()?;
    let mut keys: BTreeSet<&[u8]> = BTreeSet::new();
    for (command, args) in requests.iter().filter(|(command, args)| depends(command, false, *args)) {
        keys.extend(deciding_keys(command, false, *args));
    }
    // Per key, the index of the last request that writes it.
    let mut written: BTreeMap<&[u8], usize> = BTreeMap::new();
    for (at, (command, args)) in requests.iter().enumerate().filter(|(_, (command, _))| is_write(command)) {
        written.extend(command.keys(false, *args).map(|key| (key, at)));
    }
    let is_written_after = |key: &[u8], at: usize| written.get(key).is_some_and(|last| *last > at);
    let is_elsewhere = |key: &&[u8]| {
        placement::verdict(state, now, std::iter::once(*key), OnMissing::NoEffect, &[]) != Verdict::Here
    };
    let reads = requests.iter().enumerate().filter(|(_, (command, _))| !is_write(command));
    let read = reads.flat_map(|(at, (command, args))| command.keys(false, *args).map(move |key| (key, at)));
    let read_before = read.filter(|(key, at)| is_written_after(key, *at)).map(|(key, _)| key);
    let read_before: Vec<&[u8]> = read_before.filter(is_elsewhere).collect();
    let verdict = placement::verdict(state, now, keys.iter().copied(), OnMissing::Creates, &[]);
    if verdict == Verdict::Here && read_before.is_empty() {
        return None;
    }
    keys.extend(read_before);
    let mut is_there = vec![false; requests.len()];
    loop {
        let before = keys.len();
        for (at, (command, args)) in requests.iter().enumerate() {
            let mut of = command.keys(false, *args);
            let is_about = of.clone().any(|key| keys.contains(key));
            let must_be_there = is_write(command) || of.clone().all(|key| keys.contains(key));
            if is_about && (must_be_there || of.any(|key| keys.contains(key) && is_written_after(key, at))) {
                is_there[at] = true;
                keys.extend(deciding_keys(command, false, *args));
            }
        }
        if keys.len() == before {
            break;
        }
    }
    let ordered = requests.iter().zip(&is_there).filter(|(_, is_there)| **is_there);
    let ordered = ordered.flat_map(|((command, args), _)| deciding_keys(command, false, *args));
    Some(Plan { keys: ordered.map(Box::from).collect(), is_there })
}

fn is_write(command: &Command) -> bool {
    command.access == Access::Write
}

/// Whether a command depends on old values.
fn depends(command: &Command, is_line: bool, args: Args<'_>) -> bool {
    matches!(command.scope_of(is_line, args), Scope::FirstKey | Scope::EachKey | Scope::AllKeys)
}

/// The keys on whose values the effect or the reply of a command depends. The node that carries it out must hold them.
fn deciding_keys<'a>(
    command: &Command,
    is_line: bool,
    args: Args<'a>,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let count = match command.scope_of(is_line, args) {
        Scope::FirstKey => 1,
        Scope::EachKey | Scope::AllKeys => usize::MAX,
        Scope::Here if command.access == Access::Read => usize::MAX,
        Scope::Here | Scope::Options | Scope::Claimants | Scope::Mesh | Scope::Transaction => 0,
    };
    command.keys(is_line, args).take(count)
}

/// Forwards the planned part of a transaction; the rest is carried out after its answer.
pub(in crate::node) fn begin_transaction(
    state: &mut State,
    now: Now,
    conn: ConnKey,
    protocol: Protocol,
    is_answered: bool,
    requests: RequestList,
    plan: Plan,
) {
    let mut words: Vec<&[u8]> = Vec::new();
    let counts: Vec<[u8; 4]> = requests.iter().map(|request| count_of(request.len())).collect();
    for ((request, count), is_there) in requests.iter().zip(&counts).zip(&plan.is_there) {
        if *is_there {
            words.push(count);
            words.extend(request.iter());
        }
    }
    let args = OwnedArgs::of(words.into_iter());
    let head = Encoder::begin(Vec::new(), protocol, b"", "").head();
    let first = plan.keys.first().cloned().unwrap_or_default();
    let pending = pending::begin(state, conn, head, VERBATIM, is_answered, std::iter::once(&*first));
    let Some(pending) = pending else { return };
    pending::make_barrier(state, pending);
    let waiter = Waiter { pending, part: 0 };
    let Some(args) = args else {
        return store_part(state, waiter, Answer::Failed(Failure::NoMemory), 0);
    };
    let request = Request { name: TRANSACTION.into(), args, protocol };
    pending::count_command(state, pending, requests.held());
    if let Some(pending) = state.mesh.pending.get_mut(pending) {
        pending.set_transaction(requests, plan.is_there);
    }
    send_request(state, now, waiter, request, plan.keys, OnMissing::Creates);
}

fn count_of(words: usize) -> [u8; 4] {
    u32::try_from(words).unwrap_or(u32::MAX).to_le_bytes()
}

/// Carries out a command for a peer, if this node holds its keys or may create them, and answers. Returns its cost in
/// keys.
pub(in crate::node) fn serve(state: &mut State, now: Now, command: &PeerCommand) -> usize {
    let PeerCommand { peer, number, request, create, deadline, refused } = command;
    let Some(conn_key) = state.mesh.peers.conn(*peer) else { return 1 };
    let requests = match requests_of(state, request) {
        Some(requests) => requests,
        None => {
            link_output::send_answer(state, now, *peer, *number, &Body::NotTaken);
            return 1;
        }
    };
    let is_line = request.protocol == Protocol::Lines;
    let keys = keys_of(&requests, is_line);
    let Some(first) = keys.first() else {
        link_output::send_answer(state, now, *peer, *number, &Body::NotTaken);
        return 1;
    };
    let hash = state.keyspace.key(first).hash.0;
    let is_late = state.keyspace.clock(now) > *deadline;
    if is_late || !link_output::has_room_for_answer(state, *peer) {
        link_output::send_answer(state, now, *peer, *number, &Body::NotDone { hash });
        return 1;
    }
    // The querying node does not hold the key either.
    let querier = state.mesh.peers.get(*peer).map(|peer| peer.id());
    let refused: Vec<NodeId> = refused.iter().copied().chain(querier).collect();
    let on_missing = if *create { OnMissing::Creates } else { OnMissing::Refused };
    let verdict = placement::verdict(state, now, keys.iter().copied(), on_missing, &refused);
    if verdict == Verdict::Elsewhere {
        let (moved_version, ids) = placement::hints(state, first, *peer, &refused);
        sync::flush(state, now, *peer);
        let body = Body::NotHolder { hash, moved_version: moved_version.0, hints: Hints::new(&ids) };
        link_output::send_answer(state, now, *peer, *number, &body);
        return 1;
    }
    let cost: usize = requests.iter().map(|(command, args)| command.cost_of(is_line, *args)).sum();
    let mut reply = ChunkQueue::new();
    let mut key = KeyVersion { hash, version: 0, state: KeyState::Held };
    if verdict == Verdict::Here {
        key = carry_out(state, now, conn_key, request.protocol, &requests, &keys, &mut reply);
    } else {
        // No results: nothing was done, since some of the keys may be on other nodes.
        put_keys(reply.back(&mut state.pool), &[]);
    }
    // Changes of the own filter before this answer must not arrive after it.
    sync::flush(state, now, *peer);
    let KeyVersion { version, state: of, .. } = key;
    let body = Body::Executed { hash, version, state: of, reply: b"" };
    let bytes = reply.len();
    link_output::send_reply(state, now, *peer, *number, &body, &mut reply);
    cost + cost_of_bytes(bytes)
}

/// Carries out here a client's command that was begun as a forwarded one. Returns its cost in keys.
pub(in crate::node) fn carry_out_own(state: &mut State, now: Now, key: LookupKey) -> usize {
    let Some(lookup) = state.mesh.lookups.get_mut(key) else { return 1 };
    let waiter = lookup.waiter();
    let Task::Forward(command) = lookup.take_task() else { return 1 };
    let conn = waiter.and_then(|waiter| state.mesh.pending.get(waiter.pending)).map(PendingRequest::conn);
    let (Some(conn), Some(requests)) = (conn, requests_of(state, &command.request)) else {
        forward::carried_out(state, now, key, Some(&0u32.to_le_bytes()));
        return 1;
    };
    let is_line = command.request.protocol == Protocol::Lines;
    let keys = keys_of(&requests, is_line);
    let cost = requests.iter().map(|(command, args)| command.cost_of(is_line, *args)).sum();
    let mut reply = ChunkQueue::new();
    carry_out(state, now, conn, command.request.protocol, &requests, &keys, &mut reply);
    let mut bytes = Vec::new();
    let has_memory = reserve(&mut bytes, reply.len());
    if has_memory {
        reply.slices().for_each(|slice| bytes.extend_from_slice(slice));
    }
    reply.release(&mut state.pool);
    forward::carried_out(state, now, key, has_memory.then_some(&bytes));
    cost
}

/// The commands of a request with their arguments; `None` if one is unknown here, or does not take its arguments.
fn requests_of<'r>(state: &State, request: &'r Request) -> Option<Vec<(&'static Command, Args<'r>)>> {
    let (args, limits) = (request.args.args(), &state.config.limits);
    if args.len() > RESP_ARGS_MAX as usize {
        return None;
    }
    if *request.name != *TRANSACTION {
        let is_line = request.protocol == Protocol::Lines;
        let found = find_for_peer(&request.name, is_line, args, limits)?;
        return depends(found.0, is_line, args).then(|| vec![found]);
    }
    let mut rest = args;
    let mut requests = Vec::new();
    while let Some(count) = rest.get(0) {
        let words = usize::try_from(u32::from_le_bytes(*count.first_chunk()?)).ok()?;
        let words_of = rest.skip(1).first(words);
        if words == 0 || words_of.len() < words {
            return None;
        }
        let found = find_command(words_of, limits).ok()?;
        requests.push(Some(found).filter(|(command, _)| command.access != Access::None)?);
        rest = rest.skip(1 + words);
    }
    Some(requests)
}

fn keys_of<'r>(requests: &[(&'static Command, Args<'r>)], is_line: bool) -> Vec<&'r [u8]> {
    requests.iter().flat_map(|(command, args)| deciding_keys(command, is_line, *args)).collect()
}

/// Carries out requests whose deciding `keys` are here or may be created here. Writes to `out` the versions of their
/// other keys, so that the querier reads its own writes, then the results. Returns the first deciding key.
fn carry_out(
    state: &mut State,
    now: Now,
    conn: ConnKey,
    protocol: Protocol,
    requests: &[(&'static Command, Args<'_>)],
    keys: &[&[u8]],
    out: &mut ChunkQueue,
) -> KeyVersion {
    let mut results = ChunkQueue::new();
    for (command, args) in requests {
        carry_out_one(state, now, conn, protocol, command, *args, &mut results);
    }
    let version_of = |key: &[u8]| {
        let key = state.keyspace.key(key);
        let (version, state) = state.keyspace.version_of(now, key).unwrap_or((Version(0), KeyState::Gone));
        KeyVersion { hash: key.hash.0, version: version.0, state }
    };
    let first = keys.first().copied().unwrap_or_default();
    let is_line = protocol == Protocol::Lines;
    let all: BTreeSet<&[u8]> =
        requests.iter().flat_map(|(command, args)| command.keys(is_line, *args)).collect();
    let others: Vec<KeyVersion> =
        all.into_iter().filter(|key| *key != first).map(version_of).filter(|key| key.version > 0).collect();
    let first = version_of(first);
    let mut head = Vec::new();
    put_keys(&mut head, &others);
    out.push_chunk(head, &mut state.pool);
    results.move_front(usize::MAX, out, &mut state.pool);
    first
}

/// Carries out one command on the keys of this node only, and appends its result. Large values are shared, not copied.
pub(in crate::node) fn carry_out_one(
    state: &mut State,
    now: Now,
    conn: ConnKey,
    protocol: Protocol,
    command: &'static Command,
    args: Args<'_>,
    results: &mut ChunkQueue,
) {
    let mut values = ChunkQueue::new();
    let mut call =
        Call { now, conn, command, table: &TABLE, args, hash: None, reply: Encoder::part(protocol) };
    let is_error = match call.run(state) {
        Ok(Effect::Reply) => false,
        Ok(Effect::Further(Further::LookUp(form, _))) => {
            read_here(state, &mut call, &form, &mut values);
            false
        }
        Ok(Effect::Further(Further::Show(shown))) => {
            shown.form.begin(&mut call.reply, shown.parts.len());
            for (word, answer) in shown.parts {
                if let Answer::Found { value, until } = answer {
                    let out = (&mut values, &mut state.pool);
                    shown.form.put_shared(&mut call.reply, now, &word, (value, until), out);
                } else {
                    shown.form.put(&mut call.reply, now, &word, None);
                }
            }
            false
        }
        Ok(Effect::Further(
            Further::Close
            | Further::Authenticate
            | Further::DumpFilter
            | Further::Scan(_)
            | Further::Handshake
            | Further::Transact,
        )) => {
            CommandError::Plain("not a command on keys").write(&mut call.reply);
            true
        }
        Err(error) => {
            call.reply = Encoder::part(protocol);
            error.write(&mut call.reply);
            true
        }
    };
    let rest = call.reply.take_written(Vec::new());
    put_result_head(results.back(&mut state.pool), is_error, values.len() + rest.len());
    values.move_front(usize::MAX, results, &mut state.pool);
    results.push_chunk(rest, &mut state.pool);
}
