//! CLIENT: the settings of a connection, the list of clients, and closing clients.

use crate::limits::CLIENTS_LISTED_MAX;
use crate::node::command::error::CommandError;
use crate::node::command::row::{Call, CommandResult, Effect, Further};
use crate::node::conn::connection::{ClientProtocol, Conn};
use crate::node::conn::phase::CloseReason;
use crate::node::conn::session::{Answers, Session, Text, Transaction};
use crate::node::ids::ConnKey;
use crate::node::state::{State, mark_dirty};
use crate::wire::encoder::Protocol;
use crate::wire::resp::parse::number;
use std::fmt::Write;

/// Bytes of the longest name, and of the longest text in CLIENT SETINFO.
const NAME_BYTES_MAX: usize = 1_024;

/// Returns an error if this cannot be the name of a connection.
pub(in crate::node) fn check_name<'a>(name: &[u8]) -> Result<(), CommandError<'a>> {
    if !is_plain(name) {
        return Err(CommandError::Plain(
            "Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(CommandError::Plain("a client name has at most 1024 bytes"));
    }
    Ok(())
}

fn is_plain(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

/// CLIENT ID.
pub(super) fn id<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let number = state.conns.get(call.conn).map_or(0, Conn::number);
    call.reply.integer(i64::try_from(number).unwrap_or(i64::MAX));
    Ok(Effect::Reply)
}

/// CLIENT GETNAME.
pub(super) fn getname<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    match state.conns.get(call.conn).and_then(Conn::session) {
        Some(session) if !session.text(Text::Name).is_empty() => call.reply.bulk(session.text(Text::Name)),
        Some(_) | None => call.reply.null(),
    }
    Ok(Effect::Reply)
}

/// CLIENT SETNAME; an empty name removes the name.
pub(super) fn setname<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let name = call.args.get(0).unwrap_or_default();
    check_name(name)?;
    set_text(state, call, Text::Name, name)
}

/// CLIENT SETINFO LIB-NAME name, or LIB-VER version.
pub(super) fn setinfo<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let (option, text) = (call.args.get(0).unwrap_or_default(), call.args.get(1).unwrap_or_default());
    let (of, shown) = if option.eq_ignore_ascii_case(b"LIB-NAME") {
        (Text::LibraryName, "lib-name")
    } else if option.eq_ignore_ascii_case(b"LIB-VER") {
        (Text::LibraryVersion, "lib-ver")
    } else {
        let option = String::from_utf8_lossy(option);
        return Err(CommandError::Sentence(format!("Unrecognized option '{option}'")));
    };
    if !is_plain(text) || text.len() > NAME_BYTES_MAX {
        let sentence = format!("{shown} cannot contain spaces, newlines or special characters.");
        return Err(CommandError::Sentence(sentence));
    }
    set_text(state, call, of, text)
}

/// CLIENT REPLY ON, OFF or SKIP. Only ON is answered.
pub(super) fn reply<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let Some(conn) = state.conns.get_mut(call.conn) else { return Ok(Effect::Reply) };
    let word = call.args.get(0).unwrap_or_default();
    let answers = if word.eq_ignore_ascii_case(b"ON") {
        Answers::All
    } else if word.eq_ignore_ascii_case(b"OFF") {
        Answers::None
    } else if word.eq_ignore_ascii_case(b"SKIP") {
        // Without effect after OFF.
        match conn.session_mut().answers() {
            Answers::None => Answers::None,
            Answers::All | Answers::AllButNext => Answers::AllButNext,
        }
    } else {
        return Err(CommandError::Syntax(call.command.name, word));
    };
    conn.change_session(|session| session.set_answers(answers));
    if answers == Answers::All {
        call.reply.ok();
    }
    Ok(Effect::Reply)
}

/// CLIENT NO-EVICT and NO-TOUCH: accept ON and OFF, without effect.
pub(super) fn switch<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let word = call.args.get(0).unwrap_or_default();
    if !word.eq_ignore_ascii_case(b"ON") && !word.eq_ignore_ascii_case(b"OFF") {
        return Err(CommandError::Syntax(call.command.name, word));
    }
    call.reply.ok();
    Ok(Effect::Reply)
}

/// CLIENT TRACKING: accepts OFF only.
pub(super) fn tracking<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let word = call.args.get(0).unwrap_or_default();
    if word.eq_ignore_ascii_case(b"ON") {
        return Err(CommandError::Plain(
            "client tracking is not supported; caches of clients are not notified",
        ));
    }
    if call.args.len() > 1 || !word.eq_ignore_ascii_case(b"OFF") {
        return Err(CommandError::Syntax(call.command.name, word));
    }
    call.reply.ok();
    Ok(Effect::Reply)
}

fn set_text<'a>(state: &mut State, call: &mut Call<'a>, of: Text, text: &[u8]) -> CommandResult<'a> {
    if let Some(conn) = state.conns.get_mut(call.conn) {
        let set = conn.session_mut().set_text(of, text);
        set.map_err(|error| CommandError::Sentence(error.to_string()))?;
    }
    call.reply.ok();
    Ok(Effect::Reply)
}

/// CLIENT INFO: the line of this client.
pub(super) fn info<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let mut text = String::new();
    if let Some(conn) = state.conns.get(call.conn) {
        put_client(&mut text, call, conn.number(), conn);
    }
    call.reply.verbatim(&text);
    Ok(Effect::Reply)
}

/// CLIENT LIST [TYPE type] [ID id …]: a line per client, at most [`CLIENTS_LISTED_MAX`].
pub(super) fn list<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let mut words = call.args.iter();
    let mut numbers = None;
    let mut is_normal = true;
    match (words.next(), words.next()) {
        (None, _) => {}
        (Some(option), Some(kind)) if option.eq_ignore_ascii_case(b"TYPE") && words.len() == 0 => {
            is_normal = is_normal_type(kind)?;
        }
        (Some(option), Some(first)) if option.eq_ignore_ascii_case(b"ID") => {
            let all = std::iter::once(first).chain(words).map(client_number);
            numbers = Some(all.collect::<Result<Vec<u64>, _>>()?);
        }
        (Some(option), _) => return Err(CommandError::Syntax(call.command.name, option)),
    }
    let own = state.conns.get(call.conn).map_or(0, Conn::number);
    let mut text = String::new();
    let clients = state.conns.iter().map(|(_, conn)| conn).filter(|conn| conn.is_client() && is_normal);
    let meant = clients
        .filter(|conn| numbers.as_ref().is_none_or(|numbers: &Vec<u64>| numbers.contains(&conn.number())));
    meant.take(CLIENTS_LISTED_MAX).for_each(|conn| put_client(&mut text, call, own, conn));
    call.reply.verbatim(&text);
    Ok(Effect::Reply)
}

/// Whether a type of clients is NORMAL, the type of all clients; an error if Redis has no such type.
fn is_normal_type<'a>(kind: &[u8]) -> Result<bool, CommandError<'a>> {
    if kind.eq_ignore_ascii_case(b"NORMAL") {
        return Ok(true);
    }
    let others: [&[u8]; 4] = [b"MASTER", b"REPLICA", b"SLAVE", b"PUBSUB"];
    if others.iter().any(|other| kind.eq_ignore_ascii_case(other)) {
        return Ok(false);
    }
    Err(CommandError::Sentence(format!("Unknown client type '{}'", String::from_utf8_lossy(kind))))
}

fn client_number<'a>(text: &[u8]) -> Result<u64, CommandError<'a>> {
    let number = number(text).and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0);
    number.ok_or(CommandError::Plain("Invalid client ID"))
}

/// Appends the line of a client. Fields without a meaning here have the values of an idle client in Redis.
fn put_client(text: &mut String, call: &Call<'_>, own: u64, conn: &Conn) {
    let session = conn.session();
    let of = |text| session.map(|session| String::from_utf8_lossy(session.text(text))).unwrap_or_default();
    let queued = session.and_then(Session::transaction);
    let multi = queued.map_or(-1, |queued| i64::try_from(queued.requests().len()).unwrap_or(i64::MAX));
    let is_queueing = queued.is_some();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "id={} addr={} laddr= fd=-1 name={} age={} idle={} flags={} db=0 sub=0 psub=0 ssub=0 multi={multi} watch={} \
         qbuf={} qbuf-free=0 argv-mem=0 multi-mem={} rbs=0 rbp=0 obl=0 oll=0 omem={} tot-mem={} events=r cmd={} \
         user=default redir=-1 resp={} lib-name={} lib-ver={}",
        conn.number(),
        conn.addr(),
        of(Text::Name),
        call.now.mono.since(conn.since()).as_secs(),
        call.now.mono.since(conn.last_active()).as_secs(),
        if is_queueing { "x" } else { "N" },
        session.map_or(0, |session| session.watched_keys()),
        conn.unprocessed(),
        queued.map_or(0, Transaction::bytes),
        conn.unsent(),
        conn.held() + size_of::<Conn>(),
        if conn.number() == own {
            call.command.name.to_ascii_lowercase().replace(' ', "|")
        } else {
            "NULL".into()
        },
        if conn.protocol() == Some(ClientProtocol::Commands(Protocol::Resp3)) { 3 } else { 2 },
        of(Text::LibraryName),
        of(Text::LibraryVersion),
    );
}

/// The filter of CLIENT KILL.
#[derive(Debug, Default)]
struct Filter<'a> {
    number: Option<u64>,
    addr: Option<&'a [u8]>,
    /// Whether there is a condition that no client meets.
    is_none: bool,
    spares_caller: bool,
}

impl Filter<'_> {
    fn meets(&self, call: &Call<'_>, key: ConnKey, conn: &Conn) -> bool {
        conn.is_client()
            && !self.is_none
            && !(self.spares_caller && key == call.conn)
            && self.number.is_none_or(|number| conn.number() == number)
            && self.addr.is_none_or(|addr| conn.addr().to_string().as_bytes() == addr)
    }
}

/// CLIENT KILL address, or with filters: ID, ADDR, LADDR, TYPE, USER, SKIPME. O(clients).
pub(super) fn kill<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let is_old = call.args.len() == 1;
    let filter = if is_old { Filter { addr: call.args.get(0), ..Filter::default() } } else { filter(call)? };
    let clients = state.conns.iter().filter(|(key, conn)| filter.meets(call, *key, conn));
    let killed: Vec<ConnKey> = clients.map(|(key, _)| key).collect();
    if is_old && killed.is_empty() {
        return Err(CommandError::Plain("No such client"));
    }
    for key in killed.iter().filter(|key| **key != call.conn) {
        let State { conns, pool, .. } = state;
        if let Some(conn) = conns.get_mut(*key) {
            conn.begin_closing(CloseReason::Killed, call.now.mono, pool);
        }
        mark_dirty(state, *key);
    }
    if is_old {
        call.reply.ok();
    } else {
        call.reply.count(killed.len());
    }
    Ok(if killed.contains(&call.conn) { Further::Close.into() } else { Effect::Reply })
}

fn filter<'a>(call: &Call<'a>) -> Result<Filter<'a>, CommandError<'a>> {
    let syntax = CommandError::Syntax(call.command.name, b"");
    if !call.args.len().is_multiple_of(2) {
        return Err(syntax);
    }
    let mut filter = Filter { spares_caller: true, ..Filter::default() };
    for [option, text] in call.args.tuples::<2>() {
        let is = |word: &[u8]| option.eq_ignore_ascii_case(word);
        if is(b"ID") {
            let number = client_number(text);
            filter.number =
                Some(number.map_err(|_| CommandError::Plain("client-id should be greater than 0"))?);
        } else if is(b"ADDR") {
            filter.addr = Some(text);
        } else if is(b"LADDR") {
            // The local address of a connection is not stored.
            filter.is_none = true;
        } else if is(b"TYPE") {
            filter.is_none |= !is_normal_type(text)?;
        } else if is(b"USER") {
            if text != b"default" {
                return Err(CommandError::Sentence(format!(
                    "No such user '{}'",
                    String::from_utf8_lossy(text)
                )));
            }
        } else if is(b"SKIPME") && (text.eq_ignore_ascii_case(b"YES") || text.eq_ignore_ascii_case(b"NO")) {
            filter.spares_caller = text.eq_ignore_ascii_case(b"YES");
        } else {
            return Err(syntax);
        }
    }
    Ok(filter)
}
