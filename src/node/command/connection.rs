//! Commands about the connection itself.

use crate::node::command::client::check_name;
use crate::node::command::error::{CommandError, NO_INTEGER};
use crate::node::command::login::{USER, authenticate};
use crate::node::command::row::{Call, CommandResult, Effect, Further};
use crate::node::conn::session::Text;
use crate::node::state::State;
use crate::wire::encoder::Protocol;
use crate::wire::resp::parse::number;

/// The version of Redis whose commands are implemented, for clients that check it.
pub(in crate::node) const REDIS_VERSION: &str = "7.2.4";

/// PING. In lines the reply is `PONG 1` with the id of the request, or 0; the only argument accepted is 0.
pub(super) fn ping<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let message = call.args.get(0);
    if !call.reply.is_line() {
        match message {
            Some(message) if call.args.len() == 1 => call.reply.bulk(message),
            Some(_) => return Err(CommandError::WrongArity(call.command.name)),
            None => call.reply.status("PONG"),
        }
        return Ok(Effect::Reply);
    }
    match message {
        None | Some(b"0") if call.args.len() <= 1 => {
            call.reply.default_id(b"0");
            call.reply.integer(1);
            Ok(Effect::Reply)
        }
        other => Err(CommandError::Syntax(call.command.name, other.unwrap_or_default())),
    }
}

/// QUIT.
pub(super) fn quit<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    call.reply.ok();
    Ok(Further::Close.into())
}

/// REQUEST disconnect: QUIT with another reply.
pub(super) fn disconnect<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    call.reply.text("bye");
    Ok(Further::Close.into())
}

/// AUTH password, and in RESP AUTH user password.
pub(super) fn auth<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    match (call.args.get(0), call.args.get(1), call.args.len()) {
        (Some(_), None, _) if state.config.password.is_none() => return Err(CommandError::NoPasswordSet),
        (Some(password), None, _) => authenticate(state, call.now, call.conn, USER, password)?,
        (Some(user), Some(password), 2) => authenticate(state, call.now, call.conn, user, password)?,
        (_, _, _) => return Err(CommandError::Syntax(call.command.name, b"")),
    }
    call.reply.ok();
    Ok(Further::Authenticate.into())
}

/// HELLO [version [AUTH user password] [SETNAME name]]: sets the protocol, from this reply on, and describes the node.
pub(super) fn hello<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let protocol = match call.args.get(0).map(number) {
        None => call.reply.protocol(),
        Some(Some(2)) => Protocol::Resp2,
        Some(Some(3)) => Protocol::Resp3,
        Some(Some(_)) => return Err(CommandError::UnknownProtocol),
        Some(None) => {
            return Err(CommandError::Plain("Protocol version is not an integer or out of range"));
        }
    };
    let mut rest = call.args.iter().skip(1);
    let mut is_authenticated = state.conns.get(call.conn).is_some_and(|conn| conn.is_authenticated());
    let mut name = None;
    while let Some(option) = rest.next() {
        if option.eq_ignore_ascii_case(b"SETNAME")
            && let Some(given) = rest.next()
        {
            check_name(given)?;
            name = Some(given);
        } else if option.eq_ignore_ascii_case(b"AUTH")
            && let (Some(user), Some(password)) = (rest.next(), rest.next())
        {
            authenticate(state, call.now, call.conn, user, password)?;
            is_authenticated = true;
        } else {
            let option = String::from_utf8_lossy(option);
            return Err(CommandError::Sentence(format!("Syntax error in HELLO option '{option}'")));
        }
    }
    if !is_authenticated {
        return Err(CommandError::HelloUnauthenticated);
    }
    let Some(conn) = state.conns.get_mut(call.conn) else { return Ok(Effect::Reply) };
    if let Some(name) = name {
        let set = conn.session_mut().set_text(Text::Name, name);
        set.map_err(|error| CommandError::Sentence(error.to_string()))?;
    }
    let reply = &mut call.reply;
    reply.set_protocol(protocol);
    reply.map(7);
    for (name, value) in [("server", "olivia"), ("version", REDIS_VERSION)] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(if protocol == Protocol::Resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.count(usize::try_from(conn.number()).unwrap_or(usize::MAX));
    for (name, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(Further::Authenticate.into())
}

/// ECHO.
pub(super) fn echo<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    call.reply.bulk(call.args.get(0).unwrap_or_default());
    Ok(Effect::Reply)
}

/// SELECT: there is one database, 0.
pub(super) fn select<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    match call.args.get(0).and_then(number) {
        Some(0) => call.reply.ok(),
        Some(index) if i32::try_from(index).is_ok() => {
            return Err(CommandError::Plain("DB index is out of range"));
        }
        Some(_) => {
            return Err(CommandError::Plain(
                "value is out of range, value must between -2147483648 and 2147483647",
            ));
        }
        None => return Err(CommandError::Plain(NO_INTEGER)),
    }
    Ok(Effect::Reply)
}

/// RESET: returns the connection to its initial state, except for the count of wrong passwords.
pub(super) fn reset<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let is_authenticated = state.config.password.is_none();
    if let Some(conn) = state.conns.get_mut(call.conn) {
        conn.reset_session(is_authenticated);
        conn.set_protocol(Protocol::Resp2);
    }
    call.reply.set_protocol(Protocol::Resp2);
    call.reply.status("RESET");
    Ok(Effect::Reply)
}

/// READONLY, READWRITE and CLUSTER: an error, since there is no cluster support.
pub(super) fn no_cluster<'a>(_: &mut State, _: &mut Call<'a>) -> CommandResult<'a> {
    Err(CommandError::Plain("This instance has cluster support disabled"))
}
