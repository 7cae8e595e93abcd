//! Commands about all keys of this node: KEYS and SCAN in steps, their number, one of them, and the end of all.

use crate::base::glob::Pattern;
use crate::base::time::Now;
use crate::node::command::error::CommandError;
use crate::node::command::row::{Call, CommandResult, Effect};
use crate::node::state::State;
use crate::node::tasks::Scan;
use crate::node::versions::floor;
use crate::store::ScanCursor;
use crate::wire::encoder::Encoder;
use crate::wire::field::Excerpt;

/// Keys that a step looks at.
const KEYS_PER_STEP: usize = 1_024;

/// Operations of a step: what a key and its bytes cost, and what its pattern costs.
const WORK_PER_STEP: usize = 512 * 1024;

/// Bytes of the reply after which a step ends.
const FOUND_BYTES_PER_STEP: usize = 64 * 1024;

/// Operations that each key costs.
const KEY_WORK: usize = 128;

/// Keys that SCAN looks at without COUNT.
const COUNT_DEFAULT: usize = 10;

/// Bits of a position that a cursor leaves out: with 53 bits it is exact as a double, as which some clients hold it.
/// Keys whose hashes differ in these bits only may be returned twice.
const CURSOR_SHIFT: u32 = 11;

/// Pieces of the store in which RANDOMKEY looks for a key.
const RANDOM_TRIES: usize = 64;

/// The error about a pattern that is not compiled.
const PATTERN_TOO_LONG: &str = "a pattern has at most 1023 characters beside *";

/// KEYS pattern.
pub(super) fn keys<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let [pattern] = call.words()?;
    begin(state, call, ScanCursor::START, usize::MAX, pattern, false)
}

/// SCAN cursor [MATCH pattern] [COUNT number] [TYPE type].
pub(super) fn scan<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let text = call.args.get(0).unwrap_or_default();
    let cursor = std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'));
    let cursor: u64 =
        cursor.and_then(|text| text.parse().ok()).ok_or(CommandError::Plain("invalid cursor"))?;
    let options = call.args.skip(1);
    let (mut pattern, mut count, mut is_string) = (&b"*"[..], COUNT_DEFAULT, true);
    for at in (0..options.len()).step_by(2) {
        let option = options.get(at).unwrap_or_default();
        let value = options.get(at + 1).ok_or(CommandError::Syntax(call.command.name, option))?;
        if option.eq_ignore_ascii_case(b"MATCH") {
            pattern = value;
        } else if option.eq_ignore_ascii_case(b"TYPE") {
            is_string = value.eq_ignore_ascii_case(b"string");
        } else if option.eq_ignore_ascii_case(b"COUNT") {
            // The value follows the cursor and the option.
            let number = call.integer(at + 2)?;
            let above_zero = usize::try_from(number).ok().filter(|&count| count > 0);
            count = above_zero.ok_or(CommandError::Syntax(call.command.name, option))?;
        } else {
            return Err(CommandError::Syntax(call.command.name, option));
        }
    }
    let position = cursor.checked_mul(1 << CURSOR_SHIFT);
    let Some(position) = position.filter(|_| is_string) else {
        // A cursor that no scan returned, or a type that no key has.
        call.reply.array(2);
        call.reply.bulk(b"0");
        call.reply.array(0);
        return Ok(Effect::Reply);
    };
    begin(state, call, ScanCursor(position), count, pattern, true)
}

/// Does the first step of a scan, and replies if it is the last.
fn begin<'a>(
    state: &State,
    call: &mut Call<'a>,
    position: ScanCursor,
    left: usize,
    pattern: &[u8],
    has_cursor: bool,
) -> CommandResult<'a> {
    let pattern = match pattern {
        b"*" => None,
        pattern => Some(Pattern::new(pattern).ok_or(CommandError::Plain(PATTERN_TOO_LONG))?),
    };
    let found = Encoder::part(call.reply.protocol());
    let pieces = Vec::new();
    let mut scan = Scan { pattern, position, left, has_cursor, pieces, found, count: 0, counted: 0 };
    if !step(state, call.now, &mut scan) {
        return Ok(Effect::Scan(Box::new(scan)));
    }
    put(&mut call.reply, &scan);
    call.check_length(state)?;
    Ok(Effect::Reply)
}

/// Looks at the next keys of a scan: a bounded number, with a bounded cost. True if it is complete.
pub(in crate::node) fn step(state: &State, now: Now, scan: &mut Scan) -> bool {
    let Scan { pattern, position, left, found, count, .. } = scan;
    let (mut work, mut looked_at) = (0, 0);
    let begin = *position;
    // One more if it has not come to another cursor yet.
    let budget = (*left).clamp(1, KEYS_PER_STEP);
    *position = state.keyspace.store().scan(now.mono, begin, budget, |key, _| {
        looked_at += 1;
        work += KEY_WORK + key.len() + pattern.as_ref().map_or(0, |pattern| pattern.cost(key.len()));
        if pattern.as_ref().is_none_or(|pattern| pattern.matches(key)) {
            *count += 1;
            if found.is_line() { found.key(key) } else { found.bulk(key) }
        }
        work < WORK_PER_STEP && found.len() < FOUND_BYTES_PER_STEP
    });
    *left = left.saturating_sub(looked_at);
    *position == ScanCursor::START || (*left == 0 && position.0 >> CURSOR_SHIFT > begin.0 >> CURSOR_SHIFT)
}

/// Writes what a scan has found, which is one piece.
fn put(reply: &mut Encoder, scan: &Scan) {
    put_head(reply, scan);
    reply.append(scan.found.values());
}

/// Writes what stands before the keys that a scan has found.
pub(in crate::node) fn put_head(reply: &mut Encoder, scan: &Scan) {
    if scan.has_cursor {
        reply.array(2);
        reply.text(scan.position.0 >> CURSOR_SHIFT);
    }
    reply.array(scan.count);
}

/// RANDOMKEY: the key after a random hash. Not all are equally likely.
pub(super) fn randomkey<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let mut position = ScanCursor(state.rng.next_u64());
    let reply = &mut call.reply;
    for _ in 0..RANDOM_TRIES {
        position = state.keyspace.store().scan(call.now.mono, position, 1, |key, _| {
            if reply.is_empty() {
                reply.bulk(key);
            }
            false
        });
        if !reply.is_empty() {
            return Ok(Effect::Reply);
        }
    }
    reply.null();
    Ok(Effect::Reply)
}

/// DBSIZE, and COUNT in lines: the number of keys of this node.
pub(super) fn dbsize<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    call.reply.integer(i64::try_from(state.keyspace.store().len()).unwrap_or(i64::MAX));
    Ok(Effect::Reply)
}

/// FLUSHALL [ASYNC | SYNC | MESH], and FLUSHDB. In lines the reply is the number of keys removed. O(1): the memory is
/// freed in steps later. With MESH on a node without links: nodes that are linked later drop their older keys.
pub(super) fn flush<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let is_mode = |mode: &[u8]| {
        ["ASYNC", "SYNC", "MESH"].iter().any(|known| mode.eq_ignore_ascii_case(known.as_bytes()))
    };
    match (call.args.get(0), call.args.len()) {
        (None, _) => {}
        (Some(mode), 1) if is_mode(mode) => {}
        (Some(mode), _) if call.reply.is_line() => {
            return Err(CommandError::Sentence(format!(
                "{} takes MESH, or nothing; not '{}'",
                call.command.name,
                Excerpt(mode)
            )));
        }
        (Some(mode), _) => return Err(CommandError::Syntax(call.command.name, mode)),
    }
    let is_mesh = call.args.get(0).is_some_and(|mode| mode.eq_ignore_ascii_case(b"MESH"));
    let count = state.keyspace.store().len();
    if is_mesh {
        floor::raise(state, call.now);
    } else {
        state.keyspace.clear();
    }
    call.reply.status("OK");
    match (call.reply.is_line(), is_mesh) {
        (true, true) => call.reply.text("1 node"),
        (true, false) => call.reply.text(count),
        (false, _) => {}
    }
    Ok(Effect::Reply)
}
