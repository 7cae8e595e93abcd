//! The password: how it is compared, and what a wrong one costs.
//!
//! A connection gets one answer to a wrong password per second and is closed after ten. The answer waits in its
//! place among the replies, and no other connection waits with it. An address range that sends more than ten per second
//! is not listened to for a while.

use crate::base::time::Now;
use crate::limits::LOGIN_FAILURES_MAX;
use crate::node::command::error::CommandError;
use crate::node::conn::phase::CloseReason;
use crate::node::conn::reconcile::{limit_unauthenticated, reconcile};
use crate::node::conn::session::{Refusal, Session};
use crate::node::ids::ConnKey;
use crate::node::state::{State, Timer};
use hmac_sha256::HMAC;
use subtle::ConstantTimeEq;

/// The one user there is.
pub(in crate::node) const USER: &[u8] = b"default";

/// Checks a user and a password. Without a password on this node any will do, as in Redis.
pub(in crate::node) fn authenticate<'a>(
    state: &mut State,
    now: Now,
    key: ConnKey,
    user: &[u8],
    given: &[u8],
) -> Result<(), CommandError<'a>> {
    let Some(conn) = state.conns.get_mut(key) else { return Err(CommandError::WrongPassword) };
    let addr = conn.addr();
    let Some(password) = &state.config.password else {
        return if user == USER { Ok(()) } else { Err(CommandError::WrongPassword) };
    };
    if let Some(left) = state.logins.locked_for(now.mono, addr.ip()) {
        return Err(CommandError::TooManyFailures(left.as_secs() + 1));
    }
    // The connection is being closed; a transaction may hold more passwords.
    if conn.session().is_some_and(Session::has_failed_too_often) {
        return Err(CommandError::WrongPassword);
    }
    if is_equal(password.as_bytes(), given) && user == USER {
        if let Some(session) = conn.session_if_any() {
            session.login_succeeded();
        }
        return Ok(());
    }
    state.stats.auth_failure();
    state.logins.failed(now.mono, addr.ip());
    let failures = conn.session_mut().login_failed();
    if state.log_gate.allows(now, &mut state.stats) {
        log::warn!("wrong password from {addr}: {failures} of {LOGIN_FAILURES_MAX} before it is closed");
    }
    Err(CommandError::WrongPassword)
}

/// Whether two passwords are equal. Their hashes are compared, so the time taken tells neither length nor prefix.
fn is_equal(password: &[u8], given: &[u8]) -> bool {
    let hash = |text| HMAC::mac(text, b"olivia password");
    hash(password).ct_eq(&hash(given)).into()
}

/// Answers a wrong password: the first one at once, each one after it a second after the last.
pub(in crate::node) fn refuse(state: &mut State, now: Now, key: ConnKey, reply: Vec<u8>) {
    let State { conns, pool, timers, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    let place = conn.replies.hold();
    let session = conn.session_mut();
    let due = session.answer_from(now.mono);
    let is_last = session.has_failed_too_often();
    // In a transaction there may be one already.
    if due > now.mono && session.refusal_due().is_none() {
        let due = due.millis_ceil();
        conn.hold_refusal(Refusal { place, reply, due });
        timers.insert(due, Timer::Refusal(key));
        return;
    }
    conn.fill(now.mono, place, &reply, pool);
    if is_last && conn.is_serving() {
        conn.begin_closing(CloseReason::Unauthenticated, now.mono, pool);
    }
}

/// Gives the answer whose time has come.
pub(in crate::node) fn refusal_due(state: &mut State, now: Now, key: ConnKey, deadline: u64) {
    let State { conns, pool, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    let Some(refusal) = conn.take_refusal(deadline) else { return };
    let is_last = conn.session().is_some_and(Session::has_failed_too_often);
    let unsent_before = conn.unsent();
    conn.fill(now.mono, refusal.place, &refusal.reply, pool);
    if is_last && conn.is_serving() {
        conn.begin_closing(CloseReason::Unauthenticated, now.mono, pool);
    }
    limit_unauthenticated(state, now, key, unsent_before);
    reconcile(state, now, key);
}
