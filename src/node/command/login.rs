//! Authentication: the comparison of passwords, and the limits on wrong ones.
//!
//! A connection gets one answer to a wrong password per second and is closed after ten. The answer waits in its reply
//! slot; other connections do not wait. Passwords from an address range that sends more than ten wrong ones per second
//! are not checked for a while.

use crate::base::time::Now;
use crate::config::SECRET_BYTES_MAX;
use crate::limits::LOGIN_FAILURES_MAX;
use crate::node::command::error::CommandError;
use crate::node::conn::phase::CloseReason;
use crate::node::conn::reconcile::{limit_unauthenticated, reconcile};
use crate::node::conn::session::{Refusal, Session};
use crate::node::ids::ConnKey;
use crate::node::state::{State, Timer};
use hmac_sha256::HMAC;
use subtle::ConstantTimeEq;

/// The only user.
pub(in crate::node) const USER: &[u8] = b"default";

/// Checks a user and a password. If none is set on this node, any password of the user `default` is correct, as in
/// Redis.
///
/// # Errors
/// The user or the password is wrong, or the address range is locked. If a password is set, the failure is counted and
/// logged.
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
    // The connection is being closed; its transaction may contain more passwords.
    if conn.session().is_some_and(Session::has_failed_too_often) {
        return Err(CommandError::WrongPassword);
    }
    let locked_for = state.logins.locked_for(now.mono, addr.ip());
    if locked_for.is_none() && is_equal(password.as_bytes(), given) && user == USER {
        if let Some(session) = conn.session_if_any() {
            session.login_succeeded();
        }
        return Ok(());
    }
    let failures = conn.session_mut().login_failed();
    let what =
        if locked_for.is_some() { "password from a locked address range," } else { "wrong password from" };
    if state.log_gate.allows(now, &mut state.stats) {
        log::warn!("{what} {addr}: {failures} of {LOGIN_FAILURES_MAX} before it is closed");
    }
    if let Some(left) = locked_for {
        return Err(CommandError::TooManyFailures(left.as_secs() + 1));
    }
    state.stats.auth_failure();
    state.logins.failed(now.mono, addr.ip());
    Err(CommandError::WrongPassword)
}

/// Whether two passwords are equal. Hashes of blocks of one length are compared, so the time depends on neither length
/// nor common prefix.
fn is_equal(password: &[u8], given: &[u8]) -> bool {
    let hash = |text: &[u8]| {
        let mut block = [0; SECRET_BYTES_MAX + size_of::<usize>()];
        let (padded, length) = block.split_at_mut(SECRET_BYTES_MAX);
        let start = &text[..text.len().min(SECRET_BYTES_MAX)];
        padded[..start.len()].copy_from_slice(start);
        length.copy_from_slice(&text.len().to_le_bytes());
        HMAC::mac(block, b"olivia password")
    };
    hash(password).ct_eq(&hash(given)).into()
}

/// Answers a wrong password: the first one at once, each later one a second after the answer before.
pub(in crate::node) fn refuse(state: &mut State, now: Now, key: ConnKey, reply: Vec<u8>) {
    let State { conns, pool, timers, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    let slot = conn.replies.hold();
    let session = conn.session_mut();
    let due = session.answer_from(now.mono);
    let is_last = session.has_failed_too_often();
    // Within a transaction another answer may be held already.
    if due > now.mono && session.refusal_due().is_none() {
        let due = due.millis_ceil();
        conn.hold_refusal(Refusal { slot, reply, due });
        timers.insert(due, Timer::Refusal(key));
        return;
    }
    conn.fill(now.mono, slot, &reply, pool);
    if is_last && conn.is_serving() {
        conn.begin_closing(CloseReason::Unauthenticated, now.mono, pool);
    }
}

/// Sends the held answer to a wrong password, which is due.
pub(in crate::node) fn refusal_due(state: &mut State, now: Now, key: ConnKey, deadline: u64) {
    let State { conns, pool, .. } = state;
    let Some(conn) = conns.get_mut(key) else { return };
    let Some(refusal) = conn.take_refusal(deadline) else { return };
    let is_last = conn.session().is_some_and(Session::has_failed_too_often);
    let unsent_before = conn.unsent();
    conn.fill(now.mono, refusal.slot, &refusal.reply, pool);
    if is_last && conn.is_serving() {
        conn.begin_closing(CloseReason::Unauthenticated, now.mono, pool);
    }
    limit_unauthenticated(state, now, key, unsent_before);
    reconcile(state, now, key);
}

#[cfg(test)]
mod tests {
    use super::{SECRET_BYTES_MAX, is_equal};
    use std::time::{Duration, Instant};

    #[test]
    fn comparing_passwords_takes_as_long_whatever_their_length_and_common_prefix() {
        let given = [b'x'; SECRET_BYTES_MAX];
        let other = [b'y'; SECRET_BYTES_MAX];
        let longer = [b'x'; SECRET_BYTES_MAX + 1];
        assert!(
            is_equal(&given, &given) && !is_equal(&given, &longer) && !is_equal(&longer[..9], &longer[..8])
        );
        // Two are as long as what is given.
        let passwords = [&given[..], &given[..1], &given[..64], &other[..], &other[..64]];
        let mut shortest = [Duration::MAX; 5];
        for _ in 0..1_000 {
            for (password, shortest) in passwords.iter().zip(&mut shortest) {
                let begin = Instant::now();
                std::hint::black_box(is_equal(password, &given[..64]));
                *shortest = begin.elapsed().min(*shortest);
            }
        }
        let (least, most) = (shortest.iter().min().unwrap(), shortest.iter().max().unwrap());
        assert!(*most < *least * 5 / 4, "{shortest:?}");
    }
}
