//! Commands that read and write values.

use crate::base::time::Now;
use crate::limits::LONG_REPLY_BYTES;
use crate::node::command::error::{BadSeconds, CommandError, seconds};
use crate::node::command::read::read;
use crate::node::command::row::{Call, CommandResult, Effect, Further, Shown};
use crate::node::command::time::TimeForm;
use crate::node::lookup::answers::Answer;
use crate::node::lookup::key_reply::{Found, KeyReply, Shape};
use crate::node::state::State;
use crate::store::{Expiry, Full, HashedKey, PREFETCH_MAX};
use crate::wire::args::Args;
use crate::wire::encoder::Encoder;
use crate::wire::frame::Wanted;
use crate::wire::resp::parse::number;
use std::mem;

/// The reply of GET: in lines the keys found with their values, in RESP one value or null.
static VALUE: KeyReply =
    KeyReply { wanted: Wanted::Value, shape: Shape::One, range: None, write: write_value };

/// Inlined, so that GET makes no call for it.
#[inline(always)]
fn write_value(reply: &mut Encoder, _: Now, key: &[u8], found: Option<Found<'_>>) {
    match found {
        Some(found) => {
            reply.key(key);
            reply.bulk(found.value);
        }
        None => reply.null(),
    }
}

/// The reply of MGET: an array of values.
static VALUES: KeyReply = KeyReply { shape: Shape::Array, ..VALUE };

/// The reply of commands that return the value of a key before they change the key.
static OLD_VALUE: KeyReply = KeyReply {
    write: |reply, _, _, found| match found {
        Some(found) => reply.bulk(found.value),
        None => reply.null(),
    },
    ..VALUE
};

/// GET.
pub(super) fn get<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    read(state, call, &VALUE)
}

/// MGET.
pub(super) fn mget<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    read(state, call, &VALUES)
}

/// SET. In lines it takes pairs, all or none, and the reply shows them; in RESP one pair and options.
pub(super) fn set<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    if call.reply.is_line() {
        return set_pairs(state, call);
    }
    let (2, Some(key), Some(value)) = (call.args.len(), call.args.get(0), call.args.get(1)) else {
        return set_with_options(state, call);
    };
    let key = call.hashed(state, 0, key);
    state.keyspace.set(call.now, key, value, None)?;
    state.keyspace.keep_up(call.now);
    call.reply.ok();
    Ok(Effect::Reply)
}

/// Sets pairs, all or none.
fn set_pairs<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let pairs = call.args.tuples::<2>();
    make_room(state, call.now, pairs.len(), pairs.clone().map(|[key, value]| key.len() + value.len()))?;
    if call.reply.is_line() {
        for [key, value] in pairs.clone() {
            if value.len() > LONG_REPLY_BYTES {
                let sets = pairs.map(|[key, value]| Set { key, value, ttl: None });
                return set_and_show(state, call, sets, false);
            }
            call.reply.key(key);
            call.reply.bulk(value);
        }
        call.check_length(state)?;
    } else {
        call.reply.ok();
    }
    let are_several = pairs.len() > 1;
    for (at, [key, value]) in pairs.enumerate() {
        if are_several && at.is_multiple_of(PREFETCH_MAX) {
            let next = call.args.skip(2 * at).first(2 * PREFETCH_MAX).tuples::<2>();
            state.keyspace.prefetch_several(next.map(|[key, _]| key), true);
        }
        let key = state.keyspace.key(key);
        state.keyspace.set(call.now, key, value, None)?;
    }
    state.keyspace.keep_up(call.now);
    Ok(Effect::Reply)
}

/// What a line sets and shows: a key, its value, and its TTL in seconds if it has one.
struct Set<'a> {
    key: &'a [u8],
    value: &'a [u8],
    ttl: Option<(u64, Expiry)>,
}

impl Set<'_> {
    const fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }

    /// Writes the part of the reply.
    fn show(&self, reply: &mut Encoder) {
        reply.key(self.key);
        if reply.is_line() {
            reply.bulk(self.value);
        }
        if let Some((seconds, _)) = self.ttl {
            reply.text(seconds);
        }
    }
}

/// The reply of commands in lines that show what they have set, if a value is large: keys with their values, after each
/// the seconds of its TTL.
static SHOWN: KeyReply = KeyReply {
    write: |reply, now, word, found| match found {
        Some(_) => (VALUE.write)(reply, now, word, found),
        None => reply.text(String::from_utf8_lossy(word)),
    },
    ..VALUE
};

/// Sets all keys or, if `only_absent`, those that are not here. In lines the reply shows what is set, large values without
/// a copy; in RESP it is their number.
fn set_and_show<'a>(
    state: &mut State,
    call: &mut Call<'a>,
    sets: impl ExactSizeIterator<Item = Set<'a>> + Clone,
    only_absent: bool,
) -> CommandResult<'a> {
    let is_long = call.reply.is_line() && sets.clone().any(|set| set.value.len() > LONG_REPLY_BYTES);
    call.reply.clear();
    if is_long {
        call.check_bytes(state, sets.clone().map(|set| set.bytes()).sum())?;
    } else {
        // The longest possible reply.
        sets.clone().for_each(|set| set.show(&mut call.reply));
        call.check_length(state)?;
        call.reply.clear();
    }
    make_room(state, call.now, sets.len(), sets.clone().map(|set| set.bytes()))?;
    let (mut shown, mut count) = (Shown::new(SHOWN), 0);
    for set in sets {
        let key = state.keyspace.key(set.key);
        if only_absent && state.keyspace.peek(call.now, key).is_some() {
            continue;
        }
        state.keyspace.set(call.now, key, set.value, set.ttl.map(|(_, expiry)| expiry))?;
        count += 1;
        if is_long {
            shown.add(state, call.now, key);
            let seconds = set.ttl.map(|(seconds, _)| seconds.to_string().into_bytes());
            shown.parts.extend(seconds.map(|seconds| (seconds.into(), Answer::Missing)));
        } else {
            set.show(&mut call.reply);
        }
    }
    state.keyspace.keep_up(call.now);
    call.reply.count(count);
    Ok(if shown.parts.is_empty() { Effect::Reply } else { Further::Show(Box::new(shown)).into() })
}

/// SETEX. In lines it takes keys, seconds and values, all or none; in RESP one of each.
pub(super) fn setex<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    if !call.reply.is_line() {
        return set_timed(state, call, TimeForm::SECONDS);
    }
    let timed = call.args.tuples::<3>();
    let (now, name) = (call.now, call.command.name);
    let ttl = |text| {
        let seconds = seconds(name, text)?;
        Expiry::in_seconds(now.mono, seconds)
            .ok_or(CommandError::BadSeconds(name, text, BadSeconds::TooMany))
            .map(|expiry| (seconds, expiry))
    };
    for [_, text, _] in timed.clone() {
        ttl(text)?;
    }
    let sets = timed.map(|[key, text, value]| Set { key, value, ttl: ttl(text).ok() });
    set_and_show(state, call, sets, false)
}

/// PSETEX.
pub(super) fn psetex<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    set_timed(state, call, TimeForm::MILLIS)
}

/// Sets key, time and value in RESP.
fn set_timed<'a>(state: &mut State, call: &mut Call<'a>, form: TimeForm) -> CommandResult<'a> {
    let [key, text, value] = call.words()?;
    let expiry = form.expiry(call.now, call.command.name, text)?;
    let key = state.keyspace.key(key);
    state.keyspace.set(call.now, key, value, Some(expiry))?;
    state.keyspace.keep_up(call.now);
    call.reply.ok();
    Ok(Effect::Reply)
}

/// MSET of pairs, all or none.
pub(super) fn mset<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    if !call.args.len().is_multiple_of(2) {
        return Err(CommandError::WrongArity(call.command.name));
    }
    set_pairs(state, call)
}

/// MSETNX of pairs: sets all if none of the keys is here, else none.
pub(super) fn msetnx<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    if !call.args.len().is_multiple_of(2) {
        return Err(CommandError::WrongArity(call.command.name));
    }
    let has_some = call.keys().any(|key| state.keyspace.peek(call.now, state.keyspace.key(key)).is_some());
    if !has_some {
        set_pairs(state, call)?;
        call.reply.clear();
    }
    call.reply.integer((!has_some).into());
    Ok(Effect::Reply)
}

/// MSETEX count key value … [NX | XX] [EX | PX | EXAT | PXAT time | KEEPTTL]: sets all pairs, or none if the
/// condition does not hold for one of them.
pub(super) fn msetex<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let count = call.args.get(0).and_then(number).and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|&count| count > 0).ok_or(CommandError::Plain("invalid numkeys value"))?;
    let words = count.saturating_mul(2);
    if call.args.len() - 1 < words {
        return Err(CommandError::Plain("wrong number of key-value pairs"));
    }
    let options = SetOptions::parse(call.now, call.command.name, call.args.skip(1 + words))?;
    if options.returns_old || matches!(options.condition, Condition::Equal(_)) {
        return Err(CommandError::Syntax(call.command.name, b"GET"));
    }
    let pairs = call.args.skip(1).first(words).tuples::<2>();
    let old = |key| state.keyspace.peek(call.now, state.keyspace.key(key)).map(|item| item.value);
    let is_set = pairs.clone().all(|[key, _]| options.allows(old(key)));
    if is_set {
        make_room(state, call.now, count, pairs.clone().map(|[key, value]| key.len() + value.len()))?;
        for [key, value] in pairs {
            options.set(state, call.now, key, value)?;
        }
        state.keyspace.keep_up(call.now);
    }
    call.reply.integer(is_set.into());
    Ok(Effect::Reply)
}

/// SETNX of pairs: sets those whose keys are not here. In lines the reply shows them, in RESP it is their number.
pub(super) fn setnx<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let sets = call.args.tuples::<2>().map(|[key, value]| Set { key, value, ttl: None });
    set_and_show(state, call, sets, true)
}

/// Writes the value of a key of this node, or null; a long one is shared, so that it can be shown when the key has
/// changed. Returns whether the key exists.
fn put_value(state: &mut State, call: &mut Call<'_>, key: HashedKey<'_>) -> (bool, Effect) {
    match state.keyspace.get(call.now, key) {
        Some(item) if item.value.len() > LONG_REPLY_BYTES => {
            let mut shown = Shown::new(OLD_VALUE);
            shown.add(state, call.now, key);
            return (true, Further::Show(Box::new(shown)).into());
        }
        Some(item) => call.reply.bulk(item.value),
        None => {
            call.reply.null();
            return (false, Effect::Reply);
        }
    }
    (true, Effect::Reply)
}

/// GETSET key value.
pub(super) fn getset<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let [key, value] = call.words()?;
    let key = state.keyspace.key(key);
    let (_, shown) = put_value(state, call, key);
    state.keyspace.set(call.now, key, value, None)?;
    state.keyspace.keep_up(call.now);
    Ok(shown)
}

/// GETDEL.
pub(super) fn getdel<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let [key] = call.words()?;
    let key = state.keyspace.key(key);
    let (exists, shown) = put_value(state, call, key);
    if exists {
        state.keyspace.remove(call.now, key);
        state.keyspace.keep_up(call.now);
    }
    Ok(shown)
}

/// GETEX key [EX | PX | EXAT | PXAT time | PERSIST].
pub(super) fn getex<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let name = call.command.name;
    let key = call.args.get(0).ok_or(CommandError::WrongArity(name))?;
    let time = match (call.args.get(1), call.args.get(2), call.args.len()) {
        (None, _, _) => None,
        (Some(_), ..) if call.args.skip(1).iter().all(|word| word.eq_ignore_ascii_case(b"PERSIST")) => {
            Some(None)
        }
        (Some(option), Some(text), 3) => {
            let form = TimeForm::of_option(option).ok_or(CommandError::Syntax(name, option))?;
            Some(Some((form, text)))
        }
        (Some(option), _, _) => return Err(CommandError::Syntax(name, option)),
    };
    let key = state.keyspace.key(key);
    let (exists, shown) = put_value(state, call, key);
    if let Some(time) = time.filter(|_| exists) {
        let expiry = time.map(|(form, text)| form.expiry(call.now, name, text)).transpose()?;
        state.keyspace.set_expiry(call.now, key, expiry)?;
        state.keyspace.keep_up(call.now);
    }
    Ok(shown)
}

/// DELIFEQ key value: removes a key that has this value.
pub(super) fn delifeq<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let [key, value] = call.words()?;
    let key = state.keyspace.key(key);
    let is_equal = state.keyspace.peek(call.now, key).is_some_and(|item| item.value == value);
    let is_removed = is_equal && state.keyspace.remove(call.now, key);
    state.keyspace.keep_up(call.now);
    call.reply.integer(is_removed.into());
    Ok(Effect::Reply)
}

/// The options of SET.
struct SetOptions<'a> {
    condition: Condition<'a>,
    /// The reply is the old value.
    returns_old: bool,
    /// The expiry stays as it is.
    keeps_expiry: bool,
    expiry: Option<Expiry>,
}

/// The condition under which SET sets a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition<'a> {
    Always,
    /// The key does not exist.
    Absent,
    Present,
    /// The key has this value.
    Equal(&'a [u8]),
}

impl<'a> SetOptions<'a> {
    /// Parses options in any order.
    fn parse(now: Now, command: &'static str, options: Args<'a>) -> Result<Self, CommandError<'a>> {
        let mut read =
            Self { condition: Condition::Always, returns_old: false, keeps_expiry: false, expiry: None };
        let mut time: Option<(&[u8], TimeForm, &[u8])> = None;
        let mut words = options.iter();
        while let Some(word) = words.next() {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            let wrong = CommandError::Syntax(command, word);
            if let Some(form) = TimeForm::of_option(word) {
                // A repeated option replaces the earlier one.
                if read.keeps_expiry || time.is_some_and(|(name, ..)| !name.eq_ignore_ascii_case(word)) {
                    return Err(wrong);
                }
                time = Some((word, form, words.next().ok_or(wrong)?));
                continue;
            }
            let condition = if is("NX") {
                Condition::Absent
            } else if is("XX") {
                Condition::Present
            } else if is("IFEQ") {
                Condition::Equal(words.next().ok_or(CommandError::Syntax(command, word))?)
            } else if is("GET") {
                read.returns_old = true;
                continue;
            } else if is("KEEPTTL") && time.is_none() {
                read.keeps_expiry = true;
                continue;
            } else {
                return Err(wrong);
            };
            if read.condition != Condition::Always
                && mem::discriminant(&read.condition) != mem::discriminant(&condition)
            {
                return Err(wrong);
            }
            read.condition = condition;
        }
        read.expiry = time.map(|(_, form, text)| form.expiry(now, command, text)).transpose()?;
        Ok(read)
    }

    /// Whether a key that holds `old` is set.
    fn allows(&self, old: Option<&[u8]>) -> bool {
        match self.condition {
            Condition::Always => true,
            Condition::Absent => old.is_none(),
            Condition::Present => old.is_some(),
            Condition::Equal(value) => old == Some(value),
        }
    }

    /// Sets a key, without checking the condition.
    fn set(&self, state: &mut State, now: Now, key: &[u8], value: &[u8]) -> Result<(), Full> {
        let key = state.keyspace.key(key);
        if !self.keeps_expiry || !state.keyspace.update(now, key, value)? {
            state.keyspace.set(now, key, value, self.expiry)?;
        }
        Ok(())
    }
}

/// SET key value with options.
fn set_with_options<'a>(state: &mut State, call: &mut Call<'a>) -> CommandResult<'a> {
    let (Some(key), Some(value)) = (call.args.get(0), call.args.get(1)) else {
        return Err(CommandError::WrongArity(call.command.name));
    };
    let options = SetOptions::parse(call.now, call.command.name, call.args.skip(2))?;
    let hashed = state.keyspace.key(key);
    let is_set = options.allows(state.keyspace.peek(call.now, hashed).map(|item| item.value));
    let mut effect = Effect::Reply;
    if options.returns_old {
        (_, effect) = put_value(state, call, hashed);
    } else if is_set {
        call.reply.ok();
    } else {
        call.reply.null();
    }
    if is_set {
        options.set(state, call.now, key, value)?;
        state.keyspace.keep_up(call.now);
    }
    Ok(effect)
}

/// Makes room for several writes, of which all or none are done. Does nothing for one key, which needs no room if it
/// replaces a value of the same size.
pub(in crate::node) fn make_room<'a>(
    state: &mut State,
    now: Now,
    keys: usize,
    bytes: impl Iterator<Item = usize>,
) -> Result<(), CommandError<'a>> {
    if keys == 1 {
        return Ok(());
    }
    Ok(state.keyspace.make_room(now, keys, bytes.sum())?)
}
