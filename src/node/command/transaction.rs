//! MULTI and EXEC. Requests between them are queued and carried out in order by EXEC; their replies are the elements of
//! its reply. A read of a key on other nodes is looked up like any other, and holds a reply slot among the elements.

use crate::base::time::Now;
use crate::limits::{TRANSACTION_KEYS_MAX, WATCHED_KEYS_MAX};
use crate::node::command::error::CommandError;
use crate::node::command::row::{Call, Command, CommandResult, Effect, Further};
use crate::node::conn::connection::Conn;
use crate::node::conn::session::{KeyState, Session};
use crate::node::ids::ConnKey;
use crate::node::keyspace::Keyspace;
use crate::node::state::State;
use crate::wire::args::Args;
use crate::wire::owned_args::RequestList;

/// MULTI.
pub(super) fn multi<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let Some(conn) = state.conns.get_mut(call.conn) else { return Ok(Effect::Reply) };
    if conn.session().and_then(Session::transaction).is_some() {
        return Err(CommandError::Plain("MULTI calls can not be nested"));
    }
    conn.change_session(Session::begin_transaction);
    call.reply.ok();
    Ok(Effect::Reply)
}

/// Queues a request for EXEC if its connection is in a transaction. Returns false if it must be carried out now.
///
/// # Errors
/// The transaction has reached its limit of requests, keys or bytes, or the system has no memory for the request.
pub(in crate::node) fn queue<'a>(
    state: &mut State,
    key: ConnKey,
    words: Args<'a>,
    found: Result<&(&'static Command, Args<'a>), &CommandError<'a>>,
) -> Result<bool, CommandError<'a>> {
    let State { conns, pool, config, .. } = state;
    let bytes_max = config.limits.reply_bytes_max as usize;
    let Some(conn) = conns.get_mut(key) else { return Ok(false) };
    let Some(transaction) = conn.session_if_any().and_then(Session::transaction_mut) else {
        return Ok(false);
    };
    let (command, args) = match found {
        Ok((command, _)) if command.is_immediate => return Ok(false),
        Ok((command, args)) => (command, *args),
        Err(CommandError::WrongArity("EXEC")) => {
            end(conn);
            return Ok(false);
        }
        Err(_) => {
            transaction.break_off();
            return Ok(false);
        }
    };
    if transaction.is_broken() {
        return Ok(true);
    }
    let cost = command.cost_of(false, args);
    if let Err(error) = transaction.add(words, cost, pool) {
        transaction.break_off();
        return Err(CommandError::Sentence(error.to_string()));
    }
    if transaction.cost() > TRANSACTION_KEYS_MAX || transaction.bytes() > bytes_max {
        transaction.break_off();
        return Err(CommandError::Sentence(format!(
            "a transaction has at most {TRANSACTION_KEYS_MAX} requests or keys and {bytes_max} bytes \
             (reply_bytes_max); send several, or a pipeline without MULTI"
        )));
    }
    Ok(true)
}

/// EXEC.
pub(super) fn exec<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let has_changed = has_changed(state, call);
    let Some(conn) = state.conns.get_mut(call.conn) else { return Ok(Effect::Reply) };
    let session = conn.session_mut();
    session.unwatch();
    match session.transaction() {
        None => return Err(CommandError::Plain("EXEC without MULTI")),
        Some(transaction) if transaction.is_broken() => {
            end(conn);
            return Err(CommandError::TransactionAborted);
        }
        Some(_) if has_changed => {
            end(conn);
            call.reply.null_array();
            return Ok(Effect::Reply);
        }
        Some(_) => {}
    }
    Ok(Further::Transact.into())
}

/// Ends the transaction of a connection; returns its requests.
pub(in crate::node) fn end(conn: &mut Conn) -> RequestList {
    conn.change_session(Session::end_transaction)
}

/// DISCARD.
pub(super) fn discard<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let Some(conn) = state.conns.get_mut(call.conn) else { return Ok(Effect::Reply) };
    let session = conn.session_mut();
    if session.transaction().is_none() {
        return Err(CommandError::Plain("DISCARD without MULTI"));
    }
    session.unwatch();
    end(conn);
    call.reply.ok();
    Ok(Effect::Reply)
}

/// WATCH of keys that are on this node or on none.
pub(super) fn watch<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let mut is_here =
        |key: &[u8]| state_of(&state.keyspace, call.now, key).is_some() || !is_elsewhere(state, key);
    if !call.args.iter().all(&mut is_here) {
        return Err(CommandError::Plain(
            "WATCH takes keys of this node; one of these may be on another (WHO shows where)",
        ));
    }
    let State { conns, keyspace, pool, .. } = state;
    let Some(conn) = conns.get_mut(call.conn) else { return Ok(Effect::Reply) };
    let session = conn.session_mut();
    if session.transaction().is_some() {
        return Err(CommandError::Plain("WATCH inside MULTI is not allowed"));
    }
    if session.watched_keys() + call.args.len() > WATCHED_KEYS_MAX {
        return Err(CommandError::Sentence(format!("a connection watches at most {WATCHED_KEYS_MAX} keys")));
    }
    for key in call.args.iter() {
        let now = state_of(keyspace, call.now, key);
        session.watch(key, now, pool).map_err(|error| CommandError::Sentence(error.to_string()))?;
    }
    call.reply.ok();
    Ok(Effect::Reply)
}

/// UNWATCH.
pub(super) fn unwatch<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    if let Some(session) = state.conns.get_mut(call.conn).and_then(Conn::session_if_any) {
        session.unwatch();
    }
    call.reply.ok();
    Ok(Effect::Reply)
}

fn state_of(keyspace: &Keyspace, now: Now, key: &[u8]) -> KeyState {
    keyspace.peek(now, keyspace.key(key)).map(|item| (item.version, item.expiry))
}

fn is_elsewhere(state: &mut State, key: &[u8]) -> bool {
    let hash = state.keyspace.key(key).hash.0;
    state.mesh.may_be_elsewhere(hash)
}

/// Whether a watched key has changed or expired, or may now be on another node.
fn has_changed(state: &mut State, call: &Call<'_>) -> bool {
    let session = state.conns.get_mut(call.conn).and_then(Conn::session_if_any);
    let watched = session.map(Session::unwatch).unwrap_or_default();
    watched.iter().any(|(key, was)| {
        let now = state_of(&state.keyspace, call.now, key);
        !was(now) || (now.is_none() && is_elsewhere(state, key))
    })
}
