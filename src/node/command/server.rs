//! HELP and COMMAND: the documentation of the commands, from the table.

use crate::base::glob;
use crate::node::command::error::CommandError;
use crate::node::command::inspect::CATEGORIES;
use crate::node::command::row::{Access, Call, Command, CommandResult, Cost, Effect, Table};
use crate::node::command::suggest::suggestion;
use crate::node::state::State;
use crate::wire::encoder::Encoder;
use memchr::memchr;

/// HELP, and HELP with a verb.
pub(super) fn help<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let Some(verb) = call.args.get(0) else {
        for row in call.table.rows.iter().filter(|row| !row.has_topics) {
            if let Some(form) = &row.line {
                call.reply.text(form);
            }
        }
        return Ok(Effect::Reply);
    };
    let row = call.table.find(verb).ok_or_else(|| unknown_verb(call, verb))?;
    for row in std::iter::once(row).filter(|row| !row.has_topics).chain(call.table.topics(row)) {
        if let Some(form) = &row.line {
            call.reply.text(format_args!("{form}: {} Example: {}", row.summary, form.example));
        }
    }
    if call.reply.is_blank() {
        return Err(unknown_verb(call, verb));
    }
    Ok(Effect::Reply)
}

/// HELP of a command with topics: lists them.
pub(super) fn topics<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let rows = || call.table.topics(call.command).filter(|row| row.resp.is_some());
    let name = call.command.name;
    call.reply.array(1 + 2 * rows().count());
    call.reply.status(&format!("{name} <subcommand> [<arg> ...]. Subcommands are:"));
    for row in rows() {
        call.reply.status(&row.name[name.len() + 1..]);
        call.reply.status(&format!("    {}", row.summary));
    }
    Ok(Effect::Reply)
}

fn unknown_verb<'a>(call: &Call<'a>, verb: &'a [u8]) -> CommandError<'a> {
    CommandError::UnknownVerb(verb, suggestion(call.table, b"", verb))
}

/// COMMAND: the description of each command that exists in RESP.
pub(super) fn command<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    if !call.args.is_empty() {
        return topics(state, call);
    }
    let spoken = || call.table.rows.iter().filter(|row| is_top(row));
    call.reply.array(spoken().count());
    spoken().for_each(|row| put_info(call.table, &mut call.reply, row));
    Ok(Effect::Reply)
}

/// COMMAND COUNT.
pub(super) fn count<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    call.reply.count(call.table.rows.iter().filter(|row| is_top(row)).count());
    Ok(Effect::Reply)
}

/// COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern].
pub(super) fn list<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let words = (call.args.get(0), call.args.get(1), call.args.get(2), call.args.len());
    let category = |word: &[u8]| {
        let name = String::from_utf8_lossy(word).to_ascii_lowercase();
        CATEGORIES.iter().find(|(category, _)| *category == name).map(|(_, is_in)| *is_in)
    };
    let is_meant: &dyn Fn(&Command) -> bool = match words {
        (None, ..) => &|_| true,
        (Some(filter), Some(kind), Some(word), 3) if filter.eq_ignore_ascii_case(b"FILTERBY") => {
            if kind.eq_ignore_ascii_case(b"PATTERN") {
                &move |row| glob::matches(&word.to_ascii_lowercase(), row.resp_name().as_bytes())
            } else if kind.eq_ignore_ascii_case(b"ACLCAT") {
                &move |row| category(word).is_some_and(|is_in| is_in(row))
            } else if kind.eq_ignore_ascii_case(b"MODULE") {
                &|_| false
            } else {
                return Err(CommandError::Syntax(call.command.name, kind));
            }
        }
        (Some(word), ..) => return Err(CommandError::Syntax(call.command.name, word)),
    };
    let spoken = || call.table.rows.iter().filter(|row| is_top(row) && is_meant(row));
    call.reply.array(spoken().count());
    spoken().for_each(|row| call.reply.bulk(row.resp_name().as_bytes()));
    Ok(Effect::Reply)
}

/// COMMAND INFO: as COMMAND, for the named commands; null for unknown ones.
pub(super) fn info<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    if call.args.is_empty() {
        return command(state, call);
    }
    call.reply.array(call.args.len());
    for name in call.args.iter() {
        match find(call, name) {
            Some(row) => put_info(call.table, &mut call.reply, row),
            None => call.reply.null(),
        }
    }
    Ok(Effect::Reply)
}

/// COMMAND DOCS: the documentation of the named commands, or of all.
pub(super) fn docs<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let rows: Vec<&Command> = if call.args.is_empty() {
        call.table.rows.iter().filter(|row| is_top(row)).collect()
    } else {
        call.args.iter().filter_map(|name| find(call, name)).collect()
    };
    call.reply.map(rows.len());
    rows.iter().for_each(|row| put_docs(call.table, &mut call.reply, row));
    Ok(Effect::Reply)
}

fn put_docs(table: &Table, reply: &mut Encoder, row: &Command) {
    let topics = || table.topics(row).filter(|topic| topic.resp.is_some());
    let count = topics().count();
    reply.bulk(row.resp_name().as_bytes());
    let fields =
        [("summary", row.summary), ("since", row.since), ("group", row.group), ("differs", row.differs)];
    let fields = fields.iter().filter(|(_, value)| !value.is_empty());
    reply.map(fields.clone().count() + usize::from(count > 0));
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    if count > 0 {
        reply.bulk(b"subcommands");
        reply.map(count);
        topics().for_each(|topic| put_docs(table, reply, topic));
    }
}

/// COMMAND GETKEYS: the keys of the request in the arguments.
pub(super) fn getkeys<'a>(_: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let words = call.args.len();
    let row = call.args.get(0).and_then(|name| find(call, name));
    let Some(mut row) = row else { return Err(CommandError::Plain("Invalid command specified")) };
    let mut args = call.args.skip(1);
    if let Some(topic) = call.args.get(1).and_then(|topic| call.table.find_topic(row, topic)) {
        (row, args) = (topic, call.args.skip(2));
    }
    if !row.takes(words) {
        return Err(CommandError::Plain("Invalid number of arguments specified for command"));
    }
    let keys = row.keys(false, args);
    if keys.len() == 0 {
        return Err(CommandError::Plain("The command has no key arguments"));
    }
    call.reply.array(keys.len());
    keys.for_each(|key| call.reply.bulk(key));
    Ok(Effect::Reply)
}

/// The command with a name in RESP; a topic has a name as `client|id`.
fn find(call: &Call<'_>, name: &[u8]) -> Option<&'static Command> {
    let found = match memchr(b'|', name) {
        None => call.table.find(name),
        Some(at) => {
            let above = call.table.find(&name[..at]).filter(|row| row.has_topics)?;
            call.table.find_topic(above, &name[at + 1..])
        }
    };
    found.filter(|row| row.resp.is_some())
}

/// Whether a command has a form in RESP and is not a topic.
fn is_top(row: &Command) -> bool {
    row.resp.is_some() && !row.name.contains(' ')
}

/// Writes name, arity, flags, first and last key, step; then categories, tips, key specifications and subcommands.
fn put_info(table: &Table, reply: &mut Encoder, row: &Command) {
    let Some(form) = row.resp else { return };
    let flags = [
        ("readonly", row.access == Access::Read),
        ("write", row.access == Access::Write),
        ("no_auth", row.is_open),
        ("fast", row.cost != Cost::Step),
    ];
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    reply.array(10);
    reply.bulk(row.resp_name().as_bytes());
    reply.integer(form.arity.into());
    reply.set(flags.iter().filter(|(_, is)| *is).count());
    flags.iter().filter(|(_, is)| *is).for_each(|(flag, _)| reply.status(flag));
    reply.integer(number(form.keys.first));
    reply.integer(form.keys.last.into());
    reply.integer(number(form.keys.step));
    let categories = || CATEGORIES.iter().filter(|(_, is_in)| is_in(row));
    reply.set(categories().count());
    categories().for_each(|(name, _)| reply.status(&format!("@{name}")));
    reply.set(0);
    reply.set(0);
    let topics = || table.topics(row).filter(|topic| topic.resp.is_some());
    reply.set(topics().count());
    topics().for_each(|topic| put_info(table, reply, topic));
}
