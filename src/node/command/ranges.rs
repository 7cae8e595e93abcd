//! Commands on parts of values: STRLEN, GETRANGE, APPEND, SETRANGE, LCS.

use crate::base::memory::{copy_after_zeroes, reserve};
use crate::node::command::error::CommandError;
use crate::node::command::read::read;
use crate::node::command::row::{Call, CommandResult, Effect};
use crate::node::command::strings::make_room;
use crate::node::lookup::key_reply::{KeyReply, Shape};
use crate::node::state::State;
use crate::store::{COPIED_BYTES_PER_KEY, Full};
use crate::wire::frame::Wanted;

/// The reply of STRLEN: the length of a value in bytes, 0 for a missing key.
static LENGTH: KeyReply = KeyReply {
    wanted: Wanted::Value,
    shape: Shape::One,
    range: None,
    write: |reply, _, _, found| {
        let len = found.map_or(0, |found| found.value.len());
        reply.integer(i64::try_from(len).unwrap_or(i64::MAX));
    },
};

/// The reply of GETRANGE: a part of a value, empty for a missing key.
static PART: KeyReply =
    KeyReply { write: |reply, _, _, found| reply.bulk(found.map_or(b"", |found| found.value)), ..LENGTH };

/// STRLEN.
pub(super) fn strlen<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    read(state, call, &LENGTH)
}

/// GETRANGE key first last, and SUBSTR.
pub(super) fn getrange<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let form = KeyReply { range: Some((call.integer(1)?, call.integer(2)?)), ..PART };
    call.args = call.args.first(1);
    read(state, call, &form)
}

/// APPEND of pairs, all or none: appends to the values on this node.
pub(super) fn append<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let pairs = call.args.tuples::<2>();
    let len_of = |state: &State, key| {
        state.keyspace.peek(call.now, state.keyspace.key(key)).map_or(0, |item| item.value.len())
    };
    // A key can occur several times in the request.
    let added: usize = pairs.clone().map(|[_, value]| value.len()).sum();
    let mut bytes = added;
    for [key, _] in pairs.clone() {
        let len = len_of(state, key);
        bytes += key.len() + len;
        check_value_length(state, len + added)?;
        call.reply.key(key);
        call.reply.integer(i64::MIN);
    }
    call.check_length(state)?;
    call.reply.clear();
    let bytes_max = state.config.limits.reply_bytes_max as usize;
    if pairs.len() > 1 && bytes > bytes_max {
        return Err(CommandError::Sentence(format!(
            "the values have {bytes} bytes together; a request appends to at most {bytes_max} (reply_bytes_max)"
        )));
    }
    make_room(state, call.now, pairs.len(), std::iter::once(bytes))?;
    for [key, value] in pairs {
        let len = len_of(state, key);
        let hashed = state.keyspace.key(key);
        let edit = |bytes: &mut [u8]| bytes[len..].copy_from_slice(value);
        if !state.keyspace.edit(call.now, hashed, len + value.len(), edit)? {
            state.keyspace.set(call.now, hashed, value, None)?;
        }
        call.reply.key(key);
        call.reply.integer(i64::try_from(len + value.len()).unwrap_or(i64::MAX));
    }
    state.keyspace.keep_up(call.now);
    Ok(Effect::Reply)
}

/// SETRANGE key offset value: overwrites a part of a value, after padding it with zeros up to the offset.
pub(super) fn setrange<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let [key, _, value] = call.words()?;
    let start = call.integer(1)?;
    let start = usize::try_from(start).map_err(|_| CommandError::Plain("offset is out of range"))?;
    let hashed = state.keyspace.key(key);
    let old = state.keyspace.peek(call.now, hashed).map(|item| item.value.len());
    let mut len = old.unwrap_or(0);
    if !value.is_empty() {
        let end = start.saturating_add(value.len());
        check_value_length(state, end)?;
        len = len.max(end);
        if old.is_none() {
            // Before memory for the zeros is allocated.
            state.keyspace.make_room(call.now, 1, key.len() + len)?;
            let bytes = copy_after_zeroes(start, value).ok_or(Full::System)?;
            state.keyspace.charge_copy(bytes.len() / COPIED_BYTES_PER_KEY);
            state.keyspace.set(call.now, hashed, &bytes, None)?;
        } else {
            let edit = |bytes: &mut [u8]| bytes[start..end].copy_from_slice(value);
            state.keyspace.edit(call.now, hashed, len, edit)?;
        }
        state.keyspace.keep_up(call.now);
    }
    call.reply.integer(i64::try_from(len).unwrap_or(i64::MAX));
    Ok(Effect::Reply)
}

fn check_value_length<'a>(state: &State, len: usize) -> Result<(), CommandError<'a>> {
    let limit = state.config.limits.value_bytes_max;
    if len <= limit as usize { Ok(()) } else { Err(CommandError::ValueTooLong(limit)) }
}

/// The most cells of the table of LCS, 4 bytes each: about 2 ms.
const LCS_CELLS_MAX: usize = 1024 * 1024;

/// Cells of this table that cost as much as one key.
const LCS_CELLS_PER_KEY: usize = 128;

/// The options of LCS: the parts of the result that it returns.
#[derive(Debug, Default)]
struct LcsOptions {
    /// The length of the subsequence.
    len: bool,
    /// The positions of its matches in both values.
    idx: bool,
    /// The length of each match.
    with_match_len: bool,
    /// Shorter matches are left out.
    min_match_len: usize,
}

impl LcsOptions {
    fn parse<'a>(call: &Call<'a>) -> Result<Self, CommandError<'a>> {
        let mut read = Self::default();
        let mut at = 2;
        while let Some(option) = call.args.get(at) {
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            if is("LEN") {
                read.len = true;
            } else if is("IDX") {
                read.idx = true;
            } else if is("WITHMATCHLEN") {
                read.with_match_len = true;
            } else if is("MINMATCHLEN") && at + 1 < call.args.len() {
                at += 1;
                read.min_match_len = usize::try_from(call.integer(at)?).unwrap_or(0);
            } else {
                return Err(CommandError::Syntax(call.command.name, option));
            }
            at += 1;
        }
        if read.len && read.idx {
            return Err(CommandError::Plain("If you want both the length and indexes, please just use IDX."));
        }
        Ok(read)
    }
}

/// The value of the key at this position, empty if it is missing.
fn value_at<'s>(state: &'s State, call: &Call<'_>, at: usize) -> &'s [u8] {
    let key = state.keyspace.key(call.args.get(at).unwrap_or_default());
    state.keyspace.peek(call.now, key).map_or(&b""[..], |item| item.value)
}

/// LCS key key [LEN] [IDX] [MINMATCHLEN length] [WITHMATCHLEN]: the longest common subsequence of two values on
/// this node.
pub(super) fn lcs<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let options = LcsOptions::parse(call)?;
    let cells = value_at(state, call, 0).len().saturating_mul(value_at(state, call, 1).len());
    state.keyspace.charge_copy(cells.min(LCS_CELLS_MAX) / LCS_CELLS_PER_KEY);
    let (a, b) = (value_at(state, call, 0), value_at(state, call, 1));
    if (a.len() + 1).saturating_mul(b.len() + 1) > LCS_CELLS_MAX {
        return Err(CommandError::Plain(LCS_TOO_LONG));
    }
    let table = LcsTable::new(a, b).ok_or(Full::System)?;
    let len = table.at(a.len(), b.len());
    if options.len {
        call.reply.integer(len.into());
        return Ok(Effect::Reply);
    }
    let (common, matches) = table.walk(a, b);
    if !options.idx {
        call.reply.bulk(&common);
        return Ok(Effect::Reply);
    }
    let is_shown = |found: &&Match| found.len >= options.min_match_len;
    call.reply.map(2);
    call.reply.bulk(b"matches");
    call.reply.array(matches.iter().filter(is_shown).count());
    for found in matches.iter().filter(is_shown) {
        call.reply.array(if options.with_match_len { 3 } else { 2 });
        for start in [found.a, found.b] {
            call.reply.array(2);
            put_number(call, start);
            put_number(call, start + found.len - 1);
        }
        if options.with_match_len {
            put_number(call, found.len);
        }
    }
    call.reply.bulk(b"len");
    call.reply.integer(len.into());
    call.check_length(state)?;
    Ok(Effect::Reply)
}

/// The error for values that are too long for LCS.
const LCS_TOO_LONG: &str = "the values are too long for LCS: their lengths multiplied are over 1048576";

fn put_number(call: &mut Call<'_>, number: usize) {
    call.reply.integer(i64::try_from(number).unwrap_or(i64::MAX));
}

/// Equal bytes of two values: the positions of the first in each, and their number.
#[derive(Debug)]
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

/// The lengths of the longest common subsequences of all pairs of prefixes of two values.
struct LcsTable {
    cells: Vec<u32>,
    width: usize,
}

impl LcsTable {
    /// Computes the table; `None` if there is no memory for it. O(product of the lengths).
    fn new(a: &[u8], b: &[u8]) -> Option<Self> {
        let width = b.len() + 1;
        let mut cells = Vec::new();
        if !reserve(&mut cells, (a.len() + 1) * width) {
            return None;
        }
        cells.resize((a.len() + 1) * width, 0);
        let mut table = Self { cells, width };
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                table.cells[(i + 1) * width + j + 1] =
                    if x == y { table.at(i, j) + 1 } else { table.at(i, j + 1).max(table.at(i + 1, j)) };
            }
        }
        Some(table)
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * self.width + j]
    }

    /// The longest common subsequence, and its matches from the last to the first.
    fn walk(&self, a: &[u8], b: &[u8]) -> (Vec<u8>, Vec<Match>) {
        let (mut i, mut j) = (a.len(), b.len());
        let (mut common, mut matches) = (Vec::new(), Vec::<Match>::new());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                match matches.last_mut().filter(|last| last.a == i && last.b == j) {
                    Some(last) => *last = Match { a: i - 1, b: j - 1, len: last.len + 1 },
                    None => matches.push(Match { a: i - 1, b: j - 1, len: 1 }),
                }
                common.push(a[i - 1]);
                i -= 1;
                j -= 1;
            } else if self.at(i - 1, j) > self.at(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        common.reverse();
        (common, matches)
    }
}
