//! SLOWLOG and LATENCY: slow requests, and the latency of requests. Redis measures the execution of a command; this log
//! measures from the arrival of the request to the last byte of the reply.

use crate::node::command::error::CommandError;
use crate::node::command::row::{Call, CommandResult, Effect, Table};
use crate::node::latency::Spent;
use crate::node::metrics::TIME_LIMITS;
use crate::node::slow_log::{EVENT_NAMES, SlowRequest};
use crate::node::state::State;
use crate::wire::encoder::Encoder;
use crate::wire::resp::parse::number;
use std::fmt;
use std::time::Duration;

/// Entries that SLOWLOG GET returns without a count, as in Redis.
const ENTRIES: usize = 10;

/// SLOWLOG GET [count]; -1: all.
pub(super) fn get<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    call.takes_at_most(1)?;
    let count = match call.args.get(0).map(number) {
        None => ENTRIES,
        Some(Some(-1)) => usize::MAX,
        Some(Some(count @ 0..)) => usize::try_from(count).unwrap_or(usize::MAX),
        Some(_) => return Err(CommandError::Plain("count should be greater than or equal to -1")),
    };
    let requests = state.slow_log.requests();
    call.reply.array(requests.len().min(count));
    for request in requests.take(count) {
        put_request(&mut call.reply, call.table, request);
    }
    Ok(Effect::Reply)
}

fn put_request(reply: &mut Encoder, table: &Table, request: &SlowRequest) {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let micros = u64::try_from(request.spent.total().as_micros()).unwrap_or(u64::MAX);
    let name = command_name(table, request);
    reply.array(6);
    reply.integer(number(request.id));
    reply.integer(number(request.wall_ms / 1_000));
    reply.integer(number(micros));
    reply.array(2 + usize::from(request.key.is_some()) + usize::from(request.others > 0));
    reply.bulk(name.as_bytes());
    if let Some(key) = &request.key {
        reply.bulk(key);
    }
    if request.others > 0 {
        reply.bulk(format!("... ({} more requests)", request.others).as_bytes());
    }
    reply.bulk(format!("... ({})", Parts(&request.spent)).as_bytes());
    reply.bulk(request.client.to_string().as_bytes());
    reply.bulk(&request.name);
}

/// The name of the command of a slow request.
pub(in crate::node) fn command_name(table: &Table, request: &SlowRequest) -> &'static str {
    table.rows.get(request.command).map_or("", |row| row.name)
}

/// Displays how the time of a request was spent.
struct Parts<'s>(&'s Spent);

impl fmt::Display for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spent { here, peers, output } = self.0;
        let [here, peers, output] = [here, peers, output].map(Duration::as_micros);
        write!(f, "{here} us here, {peers} us waiting for peers, {output} us in output")
    }
}

/// SLOWLOG LEN.
pub(super) fn len<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    call.reply.count(state.slow_log.requests().len());
    Ok(Effect::Reply)
}

/// SLOWLOG RESET.
pub(super) fn reset<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    state.slow_log.reset();
    call.reply.ok();
    Ok(Effect::Reply)
}

/// LATENCY LATEST: per kind of event the latest and the longest, in milliseconds.
pub(super) fn latest<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let kinds = || {
        let kinds = EVENT_NAMES.iter().zip(&state.slow_log.events);
        kinds.filter_map(|(name, events)| Some((name, events.recent.back()?, events.max)))
    };
    call.reply.array(kinds().count());
    for (name, (second, took), max) in kinds() {
        call.reply.array(4);
        call.reply.bulk(name.as_bytes());
        call.reply.integer(i64::try_from(*second).unwrap_or(i64::MAX));
        call.reply.integer(millis(*took));
        call.reply.integer(millis(max));
    }
    Ok(Effect::Reply)
}

/// LATENCY HISTORY event: per event its time in seconds since 1970 and its milliseconds, the oldest first.
pub(super) fn history<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let recent = event(call.args.get(0).unwrap_or_default()).map(|at| &state.slow_log.events[at].recent);
    call.reply.array(recent.map_or(0, |recent| recent.len()));
    for (second, took) in recent.into_iter().flatten() {
        call.reply.array(2);
        call.reply.integer(i64::try_from(*second).unwrap_or(i64::MAX));
        call.reply.integer(millis(*took));
    }
    Ok(Effect::Reply)
}

/// LATENCY RESET [event …]: drops the events; returns the number of kinds that had any.
pub(super) fn reset_events<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let mut count = 0;
    for (name, events) in EVENT_NAMES.iter().zip(&mut state.slow_log.events) {
        let is_meant =
            call.args.is_empty() || call.args.iter().any(|arg| arg.eq_ignore_ascii_case(name.as_bytes()));
        if is_meant && !events.recent.is_empty() {
            *events = Default::default();
            count += 1;
        }
    }
    call.reply.count(count);
    Ok(Effect::Reply)
}

/// The index of a kind of events.
fn event(name: &[u8]) -> Option<usize> {
    EVENT_NAMES.iter().position(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// LATENCY HISTOGRAM [command …]: the work of this node per request, by command; a command with topics stands for
/// all of them.
pub(super) fn histogram<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let is_meant = |name: &str| {
        let (word, _) = name.split_once('|').unwrap_or((name, ""));
        let is_named = |arg: &[u8]| [name, word].iter().any(|own| arg.eq_ignore_ascii_case(own.as_bytes()));
        call.args.is_empty() || call.args.iter().any(is_named)
    };
    let commands = state.latency.work();
    let named = commands.filter_map(|(place, times)| Some((call.table.rows.get(place)?.resp_name(), times)));
    let commands: Vec<_> = named.filter(|(name, _)| is_meant(name)).collect();
    call.reply.map(commands.len());
    for (name, times) in commands {
        let mut before = 0;
        let steps: Vec<_> = times
            .up_to(&TIME_LIMITS)
            .filter(|(limit, count)| limit.as_micros() > 0 && std::mem::replace(&mut before, *count) < *count)
            .collect();
        call.reply.bulk(name.as_bytes());
        call.reply.map(2);
        call.reply.bulk(b"calls");
        call.reply.integer(i64::try_from(times.count()).unwrap_or(i64::MAX));
        call.reply.bulk(b"histogram_usec");
        call.reply.map(steps.len());
        for (limit, count) in steps {
            call.reply.integer(i64::try_from(limit.as_micros()).unwrap_or(i64::MAX));
            call.reply.integer(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
    Ok(Effect::Reply)
}
