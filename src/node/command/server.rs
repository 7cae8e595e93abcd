//! Commands about the commands: HELP and COMMAND, both written from the table.

use crate::node::command::error::CommandError;
use crate::node::command::row::{Access, Call, Command, Cost, Effect};
use crate::node::state::State;
use crate::wire::encoder::Encoder;

/// HELP, and HELP with a verb.
pub(in crate::node) fn help<'a>(_: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    let Some(verb) = call.args.get(0) else {
        for row in call.table.rows.iter().filter(|row| !row.has_topics) {
            if let Some(form) = &row.line {
                call.reply.text(form);
            }
        }
        return Ok(Effect::Reply);
    };
    let row = call.table.find(verb).ok_or(CommandError::Unknown(verb, call.args))?;
    for row in std::iter::once(row).filter(|row| !row.has_topics).chain(call.table.topics(row)) {
        if let Some(form) = &row.line {
            call.reply.text(format_args!("{form}: {} Example: {}", row.summary, form.example));
        }
    }
    if call.reply.is_blank() {
        return Err(CommandError::Unknown(verb, call.args));
    }
    Ok(Effect::Reply)
}

/// COMMAND: what clients are told of each command that there is in RESP.
pub(in crate::node) fn command<'a>(_: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    let spoken = || call.table.rows.iter().filter(|row| is_top(row));
    call.reply.array(spoken().count());
    spoken().for_each(|row| put_info(&mut call.reply, row));
    Ok(Effect::Reply)
}

/// COMMAND COUNT.
pub(in crate::node) fn count<'a>(_: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    call.reply.count(call.table.rows.iter().filter(|row| is_top(row)).count());
    Ok(Effect::Reply)
}

/// COMMAND LIST.
pub(in crate::node) fn list<'a>(_: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    let spoken = || call.table.rows.iter().filter(|row| is_top(row));
    call.reply.array(spoken().count());
    spoken().for_each(|row| call.reply.bulk(resp_name(row).as_bytes()));
    Ok(Effect::Reply)
}

/// COMMAND INFO: the same as COMMAND for those that are named; null for what there is not.
pub(in crate::node) fn info<'a>(state: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    if call.args.is_empty() {
        return command(state, call);
    }
    call.reply.array(call.args.len());
    for name in call.args.iter() {
        match find(call, name) {
            Some(row) => put_info(&mut call.reply, row),
            None => call.reply.null(),
        }
    }
    Ok(Effect::Reply)
}

/// COMMAND DOCS: of those that are named, or of all.
pub(in crate::node) fn docs<'a>(_: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    let rows: Vec<&Command> = if call.args.is_empty() {
        call.table.rows.iter().filter(|row| is_top(row)).collect()
    } else {
        call.args.iter().filter_map(|name| find(call, name)).collect()
    };
    call.reply.map(rows.len());
    for row in rows {
        call.reply.bulk(resp_name(row).as_bytes());
        call.reply.map(3);
        for (name, value) in [("summary", row.summary), ("since", row.since), ("group", row.group)] {
            call.reply.bulk(name.as_bytes());
            call.reply.bulk(value.as_bytes());
        }
    }
    Ok(Effect::Reply)
}

/// COMMAND GETKEYS: the keys of a request that stands in the arguments.
pub(in crate::node) fn getkeys<'a>(_: &mut State, call: &mut Call<'a>) -> Result<Effect, CommandError<'a>> {
    let words = call.args.len();
    let row = call.args.get(0).and_then(|name| find(call, name));
    let Some(row) = row else { return Err(CommandError::NoKeys("Invalid command specified")) };
    if !row.takes(words) {
        return Err(CommandError::NoKeys("Invalid number of arguments specified for command"));
    }
    let keys = row.keys(false, call.args.skip(1));
    if keys.len() == 0 {
        return Err(CommandError::NoKeys("The command has no key arguments"));
    }
    call.reply.array(keys.len());
    keys.for_each(|key| call.reply.bulk(key));
    Ok(Effect::Reply)
}

fn find(call: &Call<'_>, name: &[u8]) -> Option<&'static Command> {
    call.table.find(name).filter(|row| row.resp.is_some())
}

/// Whether a command is spoken in RESP and stands under no other.
fn is_top(row: &Command) -> bool {
    row.resp.is_some() && !row.name.contains(' ')
}

/// The name as Redis writes it.
fn resp_name(row: &Command) -> String {
    row.name.to_ascii_lowercase().replace(' ', "|")
}

/// Name, arity, flags, first and last key, step; then categories, tips, key specifications and subcommands.
fn put_info(reply: &mut Encoder, row: &Command) {
    let Some(form) = row.resp else { return };
    let flags = [
        ("readonly", row.access == Access::Read),
        ("write", row.access == Access::Write),
        ("no_auth", row.is_open),
        ("fast", row.cost == Cost::Keys),
    ];
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    reply.array(10);
    reply.bulk(resp_name(row).as_bytes());
    reply.integer(form.arity.into());
    reply.set(flags.iter().filter(|(_, is)| *is).count());
    flags.iter().filter(|(_, is)| *is).for_each(|(flag, _)| reply.status(flag));
    reply.integer(number(form.keys.first));
    reply.integer(form.keys.last.into());
    reply.integer(number(form.keys.step));
    reply.set(0);
    (0..3).for_each(|_| reply.array(0));
}
