//! Commands that inspect the node: TIME, MEMORY, OBJECT, ACL, LOLWUT; and SHUTDOWN.

use crate::node::command::error::{CommandError, NO_INTEGER};
use crate::node::command::login::USER;
use crate::node::command::row::{Access, Call, Command, CommandResult, Cost, Effect};
use crate::node::state::State;
use crate::store::Item;
use crate::wire::resp::parse::number;

/// Bytes of the longest value that Redis stores together with its header, as `embstr`.
const EMBEDDED_BYTES_MAX: usize = 44;

/// Overhead of an item in bytes, without and with a TTL: the mean over sizes, index included.
const ITEM_BYTES: usize = 28;
const TIMED_ITEM_BYTES: usize = 44;

/// TIME: seconds and microseconds since 1970.
pub(super) fn time<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let micros = call.now.wall_nanos / 1_000;
    call.reply.array(2);
    call.reply.bulk((micros / 1_000_000).to_string().as_bytes());
    call.reply.bulk((micros % 1_000_000).to_string().as_bytes());
    Ok(Effect::Reply)
}

/// The item of the key of a call. Does not count as a use.
fn item<'s>(state: &'s State, call: &Call<'_>) -> Option<Item<'s>> {
    let key = call.args.get(0).unwrap_or_default();
    let hashed = state.keyspace.key(key);
    state.keyspace.peek(call.now, hashed)
}

/// MEMORY USAGE: bytes of a key of this node, with the mean overhead of an item.
pub(super) fn usage<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    for [option, samples] in call.args.skip(1).tuples::<2>() {
        match (option.eq_ignore_ascii_case(b"SAMPLES"), number(samples)) {
            (true, Some(0..)) => {}
            (true, None) => return Err(CommandError::Plain(NO_INTEGER)),
            (true, Some(_)) | (false, _) => return Err(CommandError::Syntax(call.command.name, option)),
        }
    }
    if call.args.len().is_multiple_of(2) {
        return Err(CommandError::Syntax(call.command.name, b""));
    }
    let key_bytes = call.args.get(0).map_or(0, <[u8]>::len);
    match item(state, call) {
        None => call.reply.null(),
        Some(item) => {
            let over = if item.expiry.is_some() { TIMED_ITEM_BYTES } else { ITEM_BYTES };
            call.reply.count(key_bytes + item.value.len() + over);
        }
    }
    Ok(Effect::Reply)
}

/// MEMORY STATS: bytes by kind.
pub(super) fn memory<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let store = state.keyspace.store();
    let (held, keys) = (store.memory_bytes(), store.len() as u64);
    let (buffers, filters) =
        ((state.buffered.bytes() + state.pool.held()) as u64, state.mesh.filters.bytes());
    let kinds = store.memory();
    let fields = [
        ("total.allocated", held + buffers + filters),
        ("clients.normal", buffers),
        ("peers.filters", filters),
        ("items.pages", kinds.pages),
        ("items.large", kinds.large_objects),
        ("items.index", kinds.index),
        ("items.timers", kinds.timers),
        ("items.eviction", kinds.queues),
        ("items.freeing", kinds.deferred_free),
        ("own.filter", kinds.reserved),
        ("keys.count", keys),
        ("keys.bytes-per-key", held.checked_div(keys).unwrap_or(0)),
        ("dataset.bytes", store.live_bytes()),
    ];
    call.reply.map(fields.len());
    for (name, value) in fields {
        call.reply.bulk(name.as_bytes());
        call.reply.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }
    Ok(Effect::Reply)
}

/// OBJECT ENCODING: the encoding that Redis would report for the value.
pub(super) fn encoding<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    match item(state, call).map(|item| item.value) {
        None => call.reply.null(),
        Some(value) if number(value).is_some() => call.reply.bulk(b"int"),
        Some(value) if value.len() <= EMBEDDED_BYTES_MAX => call.reply.bulk(b"embstr"),
        Some(_) => call.reply.bulk(b"raw"),
    }
    Ok(Effect::Reply)
}

/// OBJECT IDLETIME: seconds since the last write. Times of reads are not recorded.
pub(super) fn idletime<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    match item(state, call) {
        None => call.reply.null(),
        Some(item) => {
            let written_ms = item.version.millis();
            let idle = call.now.wall_ms().saturating_sub(written_ms) / 1_000;
            call.reply.integer(i64::try_from(idle).unwrap_or(i64::MAX));
        }
    }
    Ok(Effect::Reply)
}

/// OBJECT FREQ: the error of Redis without an LFU policy.
pub(super) fn freq<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    if item(state, call).is_none() {
        call.reply.null();
        return Ok(Effect::Reply);
    }
    Err(CommandError::Plain(
        "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
         between policies at runtime LRU and LFU data will take some time to adjust.",
    ))
}

/// OBJECT REFCOUNT: 1 for every key.
pub(super) fn refcount<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    match item(state, call) {
        None => call.reply.null(),
        Some(_) => call.reply.integer(1),
    }
    Ok(Effect::Reply)
}

/// ACL WHOAMI.
pub(super) fn whoami<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    call.reply.bulk(USER);
    Ok(Effect::Reply)
}

/// ACL USERS: the only user.
pub(super) fn users<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    call.reply.array(1);
    call.reply.bulk(USER);
    Ok(Effect::Reply)
}

/// ACL LIST. The password is not shown.
pub(super) fn acl<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let password = if state.config.password.is_some() { "" } else { "nopass " };
    call.reply.array(1);
    call.reply.text(format_args!("user default on {password}~* &* +@all"));
    Ok(Effect::Reply)
}

/// ACL CAT: the categories, or the commands of one.
pub(super) fn cat<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    call.takes_at_most(1)?;
    let rows = || call.table.rows.iter().filter(|row| row.resp.is_some());
    let Some(category) = call.args.get(0) else {
        call.reply.array(CATEGORIES.len());
        CATEGORIES.iter().for_each(|(category, _)| call.reply.bulk(category.as_bytes()));
        return Ok(Effect::Reply);
    };
    let category = String::from_utf8_lossy(category).to_ascii_lowercase();
    let Some((_, is_in)) = CATEGORIES.iter().find(|(name, _)| *name == category) else {
        return Err(CommandError::Sentence(format!("Unknown category '{category}'")));
    };
    call.reply.array(rows().filter(|row| is_in(row)).count());
    rows().filter(|row| is_in(row)).for_each(|row| call.reply.bulk(row.resp_name().as_bytes()));
    Ok(Effect::Reply)
}

/// A category of Redis: its name, and whether it contains a command.
type Category = (&'static str, fn(&Command) -> bool);

/// The categories of commands.
pub(in crate::node) const CATEGORIES: [Category; 8] = [
    ("keyspace", |row| row.group == "generic"),
    ("read", |row| row.access == Access::Read),
    ("write", |row| row.access == Access::Write),
    ("string", |row| row.group == "string"),
    ("connection", |row| row.group == "connection"),
    ("transaction", |row| row.group == "transactions"),
    ("fast", |row| row.cost != Cost::Step),
    ("slow", |row| row.cost == Cost::Step),
];

/// LOLWUT: the version.
pub(super) fn lolwut<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    call.reply.verbatim(concat!("Olivia ver. ", env!("CARGO_PKG_VERSION"), "\n"));
    Ok(Effect::Reply)
}

/// SHUTDOWN: drains the node. There is no reply.
pub(super) fn shutdown<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    for word in call.args.iter() {
        let known: [&[u8]; 4] = [b"NOSAVE", b"SAVE", b"NOW", b"FORCE"];
        if word.eq_ignore_ascii_case(b"ABORT") {
            return Err(CommandError::Plain("No shutdown in progress."));
        }
        if !known.iter().any(|known| word.eq_ignore_ascii_case(known)) {
            return Err(CommandError::Syntax(call.command.name, word));
        }
    }
    if let Some(conn) = state.conns.get(call.conn) {
        log::info!("SHUTDOWN from {}", conn.addr());
    }
    state.must_drain = true;
    Ok(Effect::Reply)
}
