//! Commands about the connection itself.

use crate::node::command::error::CommandError;
use crate::node::command::row::{Call, Effect};
use crate::node::state::State;
use crate::wire::encoder::Protocol;
use subtle::ConstantTimeEq;

/// The one user there is.
const USER: &[u8] = b"default";

/// The version of Redis whose commands these are, for clients that ask.
pub(in crate::node) const REDIS_VERSION: &str = "7.2.4";

/// PING. In lines `0:PONG 1`, or with the request's id; an argument may only be the 0 that is answered so.
pub(in crate::node) fn ping<'a>(_: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
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

/// QUIT, and REQUEST disconnect.
pub(in crate::node) fn quit<'a>(_: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    call.reply.status("OK");
    Ok(Effect::Close)
}

/// REQUEST disconnect, which has something to say.
pub(in crate::node) fn disconnect<'a>(
    _: &mut State,
    call: &mut Call<'a>,
) -> Result<Effect, CommandError<'a>> {
    call.reply.text("bye");
    Ok(Effect::Close)
}

/// AUTH password, and in RESP AUTH user password.
pub(in crate::node) fn auth<'a>(state: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    match (call.args.get(0), call.args.get(1), call.args.len()) {
        (Some(_), None, _) if state.config.password.is_none() => return Err(CommandError::NoPasswordSet),
        (Some(password), None, _) => authenticate(state, USER, password)?,
        (Some(user), Some(password), 2) => authenticate(state, user, password)?,
        (_, _, _) => return Err(CommandError::Syntax(call.command.name, b"")),
    }
    call.reply.status("OK");
    Ok(Effect::Authenticate)
}

/// Checks a user and a password. Without a password on this node any will do, as in Redis.
fn authenticate<'a>(state: &mut State, user: &[u8], given: &[u8]) -> Result<(), CommandError<'a>> {
    let password = state.config.password.as_ref();
    let is_right = password.is_none_or(|password| bool::from(password.as_bytes().ct_eq(given)));
    if is_right && user == USER {
        return Ok(());
    }
    state.stats.auth_failures += 1;
    Err(CommandError::WrongPassword)
}

/// HELLO [version [AUTH user password]]: the protocol from this reply on, and what this node is.
pub(in crate::node) fn hello<'a>(state: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    let protocol = match call.args.get(0) {
        None => call.reply.protocol(),
        Some(b"2") => Protocol::Resp2,
        Some(b"3") => Protocol::Resp3,
        Some(_) => return Err(CommandError::UnknownProtocol),
    };
    let mut rest = call.args.iter().skip(1);
    let mut is_authenticated = state.conns.get(call.conn).is_some_and(|conn| conn.is_authenticated);
    while let Some(option) = rest.next() {
        match (option.eq_ignore_ascii_case(b"AUTH"), rest.next(), rest.next()) {
            (true, Some(user), Some(password)) => authenticate(state, user, password)?,
            (_, _, _) => return Err(CommandError::Syntax(call.command.name, option)),
        }
        is_authenticated = true;
    }
    if !is_authenticated {
        return Err(CommandError::HelloUnauthenticated);
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
    reply.integer(i64::try_from(call.conn.to_bits()).unwrap_or(i64::MAX));
    for (name, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(Effect::Authenticate)
}
