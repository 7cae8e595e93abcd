//! Finds the row of the command that a request names, and its arguments.

use crate::config::Config;
use crate::limits::Limits;
use crate::node::command::error::CommandError;
use crate::node::command::row::Command;
use crate::node::command::suggest::suggestion;
use crate::node::command::table::TABLE;
use crate::node::state::{RecentName, Resolved};
use crate::wire::args::{ArgLimits, Args, Scratch};
use crate::wire::line::{Request, split_word};

/// Finds the command with a name, which often is that of the request before.
#[inline]
pub(in crate::node) fn find_recent(recent: &mut RecentName, name: &[u8]) -> Option<&'static Command> {
    let Some(packed) = packed(name) else { return TABLE.find(name) };
    if recent.packed == packed {
        return TABLE.rows.get(recent.row);
    }
    let command = TABLE.find(name)?;
    *recent = RecentName { packed, row: command.index };
    Some(command)
}

/// A name of three to seven bytes, with its length in the highest one. Never 0.
#[inline]
fn packed(name: &[u8]) -> Option<u64> {
    match name {
        [a, b, c] => Some(u64::from(u32::from_le_bytes([*a, *b, *c, 0])) | 3 << 56),
        // The first and the last four bytes, which may overlap.
        [a, b, c, d, ..] if name.len() < 8 => {
            let last = u64::from(u32::from_le_bytes(*name.last_chunk()?));
            let first = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
            Some(first | last << ((name.len() - 4) * 8) | (name.len() as u64) << 56)
        }
        _ => None,
    }
}

/// Finds the command and the arguments of a request in lines.
pub(in crate::node) fn find_verb<'a>(
    request: Request<'a>,
    limits: ArgLimits,
    scratch: &'a mut Scratch,
) -> Result<(&'static Command, Args<'a>), CommandError<'a>> {
    let Request { id, verb, mut body } = request;
    if verb.is_empty() {
        return Err(CommandError::NoVerb);
    }
    let unknown = || CommandError::UnknownVerb(verb, suggestion(&TABLE, id, verb));
    let mut command = TABLE.find(verb).ok_or_else(unknown)?;
    if command.has_topics {
        let (topic, rest) = split_word(body);
        command = TABLE.find_topic(command, topic).ok_or_else(|| TABLE.unknown_topic(command, topic))?;
        body = rest;
    }
    let form = command.line.as_ref().ok_or_else(unknown)?;
    Ok((command, scratch.args(form, body, limits)?))
}

/// Finds the command and the arguments of a request in RESP.
#[inline]
pub(in crate::node) fn find_command<'a>(
    words: Args<'a>,
    limits: &Limits,
) -> Result<(&'static Command, Args<'a>), CommandError<'a>> {
    match find_plain_command(words, limits, &mut RecentName::default()) {
        Some(command) => Ok((command, words.skip(1))),
        None => find_any_command(words, limits),
    }
}

/// The command of a request in RESP without topics and long arguments, if it has no error; its arguments are all words
/// after the first.
#[inline(always)]
pub(in crate::node) fn find_plain_command(
    words: Args<'_>,
    limits: &Limits,
    recent: &mut RecentName,
) -> Option<&'static Command> {
    let command = find_recent(recent, words.get(0)?)?;
    let is_plain = !command.has_topics && command.takes(words.len());
    (is_plain && words.longest_at_most() <= limits.key_bytes_max as usize).then_some(command)
}

/// The command of a request that was parsed before.
#[inline]
pub(in crate::node) fn resolved(request: Resolved) -> Option<&'static Command> {
    TABLE.rows.get(request.row)
}

/// The general case of [`find_command`]: topics, long arguments, and errors.
#[inline(never)]
fn find_any_command<'a>(
    words: Args<'a>,
    limits: &Limits,
) -> Result<(&'static Command, Args<'a>), CommandError<'a>> {
    let name = words.get(0).unwrap_or_default();
    let found = TABLE.find(name).filter(|command| command.resp.is_some());
    let mut command = found.ok_or_else(|| CommandError::Unknown(name, words.skip(1)))?;
    let mut args = words.skip(1);
    if command.has_topics
        && let Some(topic) = words.get(1)
    {
        match TABLE.find_topic(command, topic) {
            Some(found) => (command, args) = (found, words.skip(2)),
            None if topic.eq_ignore_ascii_case(b"HELP") && words.len() == 2 => {}
            None if topic.eq_ignore_ascii_case(b"HELP") => {
                let name = command.resp_name();
                let sentence = format!("wrong number of arguments for '{name}|help' command");
                return Err(CommandError::Sentence(sentence));
            }
            None => return Err(TABLE.unknown_topic(command, topic)),
        }
    }
    if !command.takes(words.len()) {
        return Err(CommandError::WrongArity(command.name));
    }
    let key_bytes_max = limits.key_bytes_max;
    if words.longest_at_most() > key_bytes_max as usize
        && command.keys(false, args).any(|key| key.len() > key_bytes_max as usize)
    {
        return Err(CommandError::KeyTooLong(key_bytes_max));
    }
    Ok((command, args))
}

/// The limits of one request in lines.
pub(in crate::node) fn arg_limits(config: &Config, is_authenticated: bool) -> ArgLimits {
    let limits = &config.limits;
    let (args_max, args_setting) = if is_authenticated || limits.args_max <= limits.unauthenticated_args_max {
        (limits.args_max, "args_max")
    } else {
        (limits.unauthenticated_args_max, "unauthenticated_args_max")
    };
    ArgLimits {
        args_max: args_max as usize,
        args_setting,
        key_bytes_max: limits.key_bytes_max as usize,
        value_bytes_max: limits.value_bytes_max as usize,
    }
}

/// Finds the command and the arguments of a request of a peer; `None` if the command is unknown here, or does not take
/// these arguments.
pub(in crate::node) fn find_for_peer<'a>(
    name: &[u8],
    is_line: bool,
    args: Args<'a>,
    limits: &Limits,
) -> Option<(&'static Command, Args<'a>)> {
    let command = TABLE.find(name)?;
    let step = command.step(is_line);
    let is_taken = if is_line {
        command.line.is_some() && step > 0 && !args.is_empty() && args.len().is_multiple_of(step)
    } else {
        command.takes(args.len() + 1)
    };
    let mut keys = command.keys(is_line, args);
    (is_taken && keys.all(|key| key.len() <= limits.key_bytes_max as usize)).then_some((command, args))
}
