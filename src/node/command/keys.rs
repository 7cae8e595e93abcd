//! Commands on keys regardless of their values: EXISTS, TYPE, TTL, DEL, EXPIRE, PERSIST, RENAME, COPY.

use crate::base::time::Now;
use crate::node::command::error::{BadSeconds, CommandError, seconds};
use crate::node::command::row::{Call, CommandResult, Effect};
use crate::node::command::time::{TimeForm, expiry_at, wall_ms};
use crate::node::lookup::key_reply::{Found, KeyReply, Shape};
use crate::node::lookup::placement;
use crate::node::state::State;
use crate::store::{COPIED_BYTES_PER_KEY, Expiry, Full};
use crate::wire::args::Args;
use crate::wire::encoder::Encoder;
use crate::wire::field::Excerpt;
use crate::wire::frame::Wanted;

/// The reply of EXISTS: in lines the keys that exist, in RESP their number.
pub(in crate::node) static PRESENT: KeyReply = KeyReply {
    wanted: Wanted::Ttl,
    shape: Shape::Count,
    range: None,
    write: |reply, _, key, found| {
        if found.is_some() {
            reply.key(key);
        }
    },
};

/// The reply of TYPE: `string`, the only type, or `none`.
pub(in crate::node) static TYPE: KeyReply = KeyReply {
    shape: Shape::One,
    write: |reply, _, _, found| reply.status(if found.is_some() { "string" } else { "none" }),
    ..PRESENT
};

/// The reply of TTL: seconds until keys expire, rounded up. In RESP -1 for a key without expiry, -2 for a missing key.
pub(in crate::node) static TTL: KeyReply = KeyReply {
    shape: Shape::One,
    write: |reply, now, key, found| put_time(reply, key, found, |expiry| expiry.seconds_left(now.mono)),
    ..PRESENT
};

/// The reply of PTTL: as TTL, in milliseconds.
pub(in crate::node) static PTTL: KeyReply = KeyReply {
    write: |reply, now, key, found| put_time(reply, key, found, |expiry| expiry.millis_left(now.mono)),
    ..TTL
};

/// The reply of EXPIRETIME: when keys expire, in seconds since 1970, rounded; -1 and -2 as for TTL.
pub(in crate::node) static EXPIRETIME: KeyReply = KeyReply {
    write: |reply, now, key, found| put_time(reply, key, found, |expiry| (expiry.unix_ms(now) + 500) / 1_000),
    ..TTL
};

/// The reply of PEXPIRETIME: as EXPIRETIME, in milliseconds.
pub(in crate::node) static PEXPIRETIME: KeyReply = KeyReply {
    write: |reply, now, key, found| put_time(reply, key, found, |expiry| expiry.unix_ms(now)),
    ..TTL
};

/// Writes the expiry of a key, converted by `time`.
fn put_time(reply: &mut Encoder, key: &[u8], found: Option<Found<'_>>, time: impl Fn(Expiry) -> u64) {
    match found.map(|found| found.until) {
        None if reply.is_line() => {}
        None => reply.integer(-2),
        Some(None) if reply.is_line() => {
            reply.key(key);
            reply.text("never");
        }
        Some(None) => reply.integer(-1),
        Some(Some(expiry)) => {
            reply.key(key);
            reply.integer(i64::try_from(time(expiry)).unwrap_or(i64::MAX));
        }
    }
}

/// DEL. In lines the reply shows the keys that existed, in RESP their number.
pub(super) fn del<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    // The longest possible reply: one over its limit must be found before the first key is removed.
    call.args.iter().for_each(|key| call.reply.key(key));
    call.check_length(state)?;
    call.reply.clear();
    let mut removed = 0;
    for key in call.args.iter() {
        let hashed = state.keyspace.key(key);
        if state.keyspace.remove(call.now, hashed) {
            removed += 1;
            call.reply.key(key);
        }
    }
    call.reply.count(removed);
    state.keyspace.keep_up(call.now);
    Ok(Effect::Reply)
}

/// EXPIRE. In lines it takes keys and seconds, and the reply shows the keys that exist.
pub(super) fn expire<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    if !call.reply.is_line() {
        return expire_by(state, call, TimeForm::SECONDS);
    }
    let pairs = call.args.tuples::<2>();
    let deadline = |text| {
        let seconds = seconds(call.command.name, text)?;
        Expiry::in_seconds(call.now.mono, seconds)
            .ok_or(CommandError::BadSeconds(call.command.name, text, BadSeconds::TooMany))
            .map(|deadline| (seconds, deadline))
    };
    for [key, text] in pairs.clone() {
        let (seconds, _) = deadline(text)?;
        call.reply.key(key);
        call.reply.text(seconds);
    }
    call.check_length(state)?;
    call.reply.clear();
    // All or none: if there is no memory for one key, the earlier ones get their old expiry back.
    let mut done = Vec::new();
    for [key, text] in pairs {
        let (seconds, deadline) = deadline(text)?;
        let hashed = state.keyspace.key(key);
        let Some(old) = state.keyspace.peek(call.now, hashed).map(|item| item.expiry) else { continue };
        if let Err(full) = state.keyspace.set_expiry(call.now, hashed, Some(deadline)) {
            done.into_iter().rev().for_each(|(key, old)| state.keyspace.restore_expiry(key, old));
            return Err(full.into());
        }
        done.push((hashed, old));
        call.reply.key(key);
        call.reply.text(seconds);
    }
    state.keyspace.keep_up(call.now);
    Ok(Effect::Reply)
}

/// PEXPIRE.
pub(super) fn pexpire<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    expire_by(state, call, TimeForm::MILLIS)
}

/// EXPIREAT.
pub(super) fn expireat<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    expire_by(state, call, TimeForm::UNIX_SECONDS)
}

/// PEXPIREAT.
pub(super) fn pexpireat<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    expire_by(state, call, TimeForm::UNIX_MILLIS)
}

/// Sets the expiry of a key in RESP, from key, time and conditions. A time in the past removes the key.
fn expire_by<'a>(state: &mut State, call: &mut Call<'a>, form: TimeForm) -> CommandResult<'a> {
    let (Some(key), Some(text)) = (call.args.get(0), call.args.get(1)) else {
        return Err(CommandError::WrongArity(call.command.name));
    };
    let conditions = Conditions::parse(call.args.skip(2))?;
    let moment = form.moment(call.now, call.command.name, text)?;
    let key = state.keyspace.key(key);
    let old = state.keyspace.peek(call.now, key).map(|item| item.expiry);
    let was_changed = match old {
        Some(old) if conditions.allow(old.map(|old| old.unix_ms(call.now)), moment) => {
            if moment <= wall_ms(call.now) {
                state.keyspace.remove(call.now, key)
            } else {
                let expiry = expiry_at(call.now, call.command.name, text, moment)?;
                state.keyspace.set_expiry(call.now, key, Some(expiry))?
            }
        }
        Some(_) | None => false,
    };
    state.keyspace.keep_up(call.now);
    call.reply.integer(was_changed.into());
    Ok(Effect::Reply)
}

/// The conditions under which EXPIRE changes the expiry of a key.
#[derive(Debug, Default)]
struct Conditions {
    /// The key has no expiry.
    nx: bool,
    /// The key has an expiry.
    xx: bool,
    /// The new expiry is later than the old one; no expiry counts as the latest.
    gt: bool,
    /// The new expiry is earlier than the old one.
    lt: bool,
}

impl Conditions {
    fn parse(options: Args<'_>) -> Result<Self, CommandError<'_>> {
        let mut read = Self::default();
        for option in options.iter() {
            let Self { nx, xx, gt, lt } = &mut read;
            let flags = [("NX", nx), ("XX", xx), ("GT", gt), ("LT", lt)];
            let flag = flags.into_iter().find(|(name, _)| option.eq_ignore_ascii_case(name.as_bytes()));
            *flag.ok_or(CommandError::UnknownOption(option))?.1 = true;
        }
        if read.nx && (read.xx || read.gt || read.lt) {
            return Err(CommandError::Plain(
                "NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if read.gt && read.lt {
            return Err(CommandError::Plain("GT and LT options at the same time are not compatible"));
        }
        Ok(read)
    }

    /// Whether an expiry is changed to another, both in milliseconds since 1970.
    fn allow(&self, old: Option<u64>, new: i64) -> bool {
        let old = old.map(|old| i64::try_from(old).unwrap_or(i64::MAX));
        !(self.nx && old.is_some()
            || self.xx && old.is_none()
            || self.gt && old.is_none_or(|old| new <= old)
            || self.lt && old.is_some_and(|old| new >= old))
    }
}

/// PERSIST. In lines the reply shows the keys that had an expiry, in RESP their number.
pub(super) fn persist<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    // The longest possible reply.
    call.args.iter().for_each(|key| call.reply.key(key));
    call.check_length(state)?;
    call.reply.clear();
    let mut changed = 0;
    for key in call.args.iter() {
        let hashed = state.keyspace.key(key);
        if state.keyspace.peek(call.now, hashed).is_some_and(|item| item.expiry.is_some()) {
            state.keyspace.set_expiry(call.now, hashed, None)?;
            changed += 1;
            call.reply.key(key);
        }
    }
    state.keyspace.keep_up(call.now);
    call.reply.count(changed);
    Ok(Effect::Reply)
}

/// RENAME.
pub(super) fn rename<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let [from, to] = call.words()?;
    if !has(state, call.now, from) {
        return Err(CommandError::Plain(NO_KEY));
    }
    move_to(state, call.now, from, to)?;
    call.reply.ok();
    Ok(Effect::Reply)
}

/// RENAMENX.
pub(super) fn renamenx<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let [from, to] = call.words()?;
    if !has(state, call.now, from) {
        return Err(CommandError::Plain(NO_KEY));
    }
    let is_free = is_free(state, call, to, "RENAME")?;
    if is_free {
        move_to(state, call.now, from, to)?;
    }
    call.reply.integer(is_free.into());
    Ok(Effect::Reply)
}

/// COPY from to [DB 0] [REPLACE].
pub(super) fn copy<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let name = call.command.name;
    let (Some(from), Some(to)) = (call.args.get(0), call.args.get(1)) else {
        return Err(CommandError::WrongArity(name));
    };
    let (mut replaces, mut at) = (false, 2);
    while let Some(option) = call.args.get(at) {
        if option.eq_ignore_ascii_case(b"REPLACE") {
            replaces = true;
        } else if option.eq_ignore_ascii_case(b"DB") && call.args.len() > at + 1 {
            at += 1;
            if call.integer(at)? != 0 {
                return Err(CommandError::Plain("DB index is out of range"));
            }
        } else {
            return Err(CommandError::Syntax(name, option));
        }
        at += 1;
    }
    if from == to {
        return Err(CommandError::Plain("source and destination objects are the same"));
    }
    let is_copied = has(state, call.now, from)
        && (replaces || is_free(state, call, to, "COPY with REPLACE")?)
        && copy_to(state, call.now, from, to)?;
    state.keyspace.keep_up(call.now);
    call.reply.integer(is_copied.into());
    Ok(Effect::Reply)
}

/// Redis's error for renaming a missing key.
const NO_KEY: &str = "no such key";

fn has(state: &State, now: Now, key: &[u8]) -> bool {
    state.keyspace.peek(now, state.keyspace.key(key)).is_some()
}

/// Whether no node holds a key of this name; an error if that is not certain. `overwriting` names, in the error, the
/// command that overwrites the key.
fn is_free<'a>(
    state: &State,
    call: &Call<'a>,
    key: &'a [u8],
    overwriting: &str,
) -> Result<bool, CommandError<'a>> {
    if has(state, call.now, key) {
        return Ok(false);
    }
    let hash = state.keyspace.key(key).hash;
    if placement::may_hold(state, hash, &[]).next().is_none() {
        return Ok(true);
    }
    Err(CommandError::Sentence(format!(
        "nothing was done: '{}' may be on another node than the key (WHO shows where; a filter may claim a deleted key \
         until it is rebuilt); {overwriting} overwrites it",
        Excerpt(key)
    )))
}

/// Copies the value and the expiry of a key to another; returns whether the key exists.
fn copy_to(state: &mut State, now: Now, from: &[u8], to: &[u8]) -> Result<bool, Full> {
    let from = state.keyspace.key(from);
    let Some(expiry) = state.keyspace.peek(now, from).map(|item| item.expiry) else { return Ok(false) };
    let value = state.keyspace.share(now, from).ok_or(Full::System)?;
    state.keyspace.charge_copy(value.len() / COPIED_BYTES_PER_KEY);
    let to = state.keyspace.key(to);
    state.keyspace.set(now, to, value.as_slice(), expiry)?;
    Ok(true)
}

/// Renames a key.
fn move_to(state: &mut State, now: Now, from: &[u8], to: &[u8]) -> Result<(), Full> {
    if from != to && copy_to(state, now, from, to)? {
        let from = state.keyspace.key(from);
        state.keyspace.remove(now, from);
    }
    state.keyspace.keep_up(now);
    Ok(())
}
