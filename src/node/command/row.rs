//! The row of a command in the table, and a call of a command.

use crate::base::time::Now;
use crate::limits::KEYS_PER_STEP;
use crate::node::command::error::{CommandError, NO_INTEGER};
use crate::node::command::key_scan::KeyScan;
use crate::node::ids::ConnKey;
use crate::node::keyspace::COPIED_MAX;
use crate::node::latency::CommandClass;
use crate::node::lookup::answers::Answer;
use crate::node::lookup::forwarded::OnMissing;
use crate::node::lookup::key_reply::KeyReply;
use crate::node::metrics::COMMANDS_MAX;
use crate::node::state::State;
use crate::store::{COPIED_BYTES_PER_KEY, HashedKey, KeyHash};
use crate::wire::args::Args;
use crate::wire::encoder::{Encoder, ReplyTooLong};
use crate::wire::line_form::{LineForm, Syntax};
use crate::wire::resp::parse::number;

/// One command. Its name is in upper case; that of a topic (subcommand) begins with the name of its command:
/// `COMMAND COUNT`.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    pub(in crate::node) name: &'static str,
    /// Its index in the table.
    pub(super) index: usize,
    pub(super) group: &'static str,
    /// What it does, in one sentence.
    pub(super) summary: &'static str,
    /// The first version of Olivia that has it.
    pub(super) since: &'static str,
    pub(super) access: Access,
    pub(super) scope: Scope,
    /// Whether it has no effect if its first key is missing.
    needs_key: bool,
    pub(super) cost: Cost,
    /// The differences from Redis; empty if there are none.
    pub(super) differs: &'static str,
    /// Whether it can be called before AUTH.
    pub(super) is_open: bool,
    /// Whether it is carried out between MULTI and EXEC at once, not queued.
    pub(super) is_immediate: bool,
    /// Whether it has topics: its first argument names one of them.
    pub(super) has_topics: bool,
    /// Its form in lines; `None` if it has none.
    pub(super) line: Option<LineForm>,
    /// Its form in RESP; `None` if it has none.
    pub(super) resp: Option<RespForm>,
    /// Whether the first argument of a request in RESP is its only key.
    has_only_key: bool,
    pub(super) run: Handler,
}

/// The access of a command to keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It counts as neither a read nor a write.
    None,
    Read,
    Write,
}

/// The nodes that a command concerns beside the one that received it. A command that depends on old values of keys is
/// carried out once, by the node that holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// None: it reads, or does not depend on old values.
    Here,
    /// The holder of its first key.
    FirstKey,
    /// The holder of each of its keys, separately per key.
    EachKey,
    /// The one holder of all of its keys, which are changed together or not at all.
    AllKeys,
    /// As `AllKeys` in RESP if an option after the keys and values depends on old values, else as `Here`.
    Options,
    /// All nodes that may hold one of its keys.
    Claimants,
    /// All linked nodes if its argument is MESH, else none.
    Mesh,
    /// The one holder of all keys on whose old values its queued requests depend.
    Transaction,
}

/// Options of SET and MSETEX that depend on old values.
const CONDITIONS: [&str; 5] = ["NX", "XX", "GET", "KEEPTTL", "IFEQ"];

/// The options with which a missing key is not set.
const EXISTING: [&str; 2] = ["XX", "IFEQ"];

/// The cost of removing a key, in keys.
const REMOVAL_KEYS: usize = 3;

/// The cost of a call, in keys; its connection is charged for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// The number of its keys, at least 1.
    Keys,
    /// Three per key: a removal changes the index, the heap and the own filter, and leaves a tombstone.
    Removals,
    /// A whole step, `KEYS_PER_STEP`: its work does not depend on the number of its keys.
    Step,
}

/// The form of a command in RESP.
#[derive(Debug, Clone, Copy)]
pub struct RespForm {
    /// The number of words, the name included; if negative, the least number, as in Redis.
    pub(super) arity: i32,
    pub(super) keys: Keys,
}

/// The positions of the keys among the arguments, of which the first has position 1. All fields 0: no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// The position of the first key.
    pub(super) first: usize,
    /// The position of the last key; if negative, from the end: -1 is the last argument. 0 if `first` is not 0: the
    /// first argument is the number of keys.
    pub(super) last: i32,
    /// The distance between two keys.
    pub(super) step: usize,
}

impl Keys {
    pub(in crate::node) const NONE: Self = Self { first: 0, last: 0, step: 0 };
    pub(in crate::node) const FIRST: Self = Self { first: 1, last: 1, step: 1 };
    pub(in crate::node) const ALL: Self = Self { first: 1, last: -1, step: 1 };
    pub(in crate::node) const PAIRS: Self = Self { first: 1, last: -1, step: 2 };
    pub(in crate::node) const TWO: Self = Self { first: 1, last: 2, step: 1 };
    /// Pairs of key and value after the number of pairs, as in MSETEX.
    pub(in crate::node) const COUNTED_PAIRS: Self = Self { first: 2, last: 0, step: 2 };

    /// The keys among the arguments, without the name.
    pub(in crate::node) fn of<'a>(
        self,
        args: Args<'a>,
    ) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let end = if self.is_counted() {
            let count = args.get(0).and_then(number).and_then(|count| usize::try_from(count).ok());
            count.unwrap_or(0).saturating_mul(self.step).saturating_add(1)
        } else {
            self.end(args.len())
        };
        args.first(end).skip(self.first.saturating_sub(1)).every(self.step.max(1))
    }

    /// Whether the first argument is the number of keys.
    const fn is_counted(self) -> bool {
        self.first > 0 && self.last == 0
    }

    /// The most keys that `args` arguments can contain.
    fn count(self, args: usize) -> usize {
        let args = (self.end(args) + 1).saturating_sub(self.first);
        if self.step <= 1 { args * self.step } else { args.div_ceil(self.step) }
    }

    /// The position of the last of `args` arguments that can be a key; 0 if none can.
    const fn end(self, args: usize) -> usize {
        match (self.first, self.last) {
            (0, _) => 0,
            (_, 0) => args,
            (_, ..0) => (args + 1).saturating_sub(self.last.unsigned_abs() as usize),
            (_, 0..) if (self.last as usize) < args => self.last as usize,
            (_, 0..) => args,
        }
    }
}

/// The result of a call.
pub type CommandResult<'a> = Result<Effect, CommandError<'a>>;

/// Carries out a call. After an error nothing is changed, unless the error states otherwise.
pub type Handler = for<'a> fn(&mut State, &mut Call<'a>) -> CommandResult<'a>;

/// A call: a command, its arguments, and the reply being written.
#[derive(Debug)]
pub struct Call<'a> {
    pub(super) now: Now,
    pub(super) conn: ConnKey,
    pub(super) command: &'static Command,
    pub(super) table: &'static Table,
    /// The arguments, without the command's name.
    pub(super) args: Args<'a>,
    /// The hash of its only key, if that is known.
    pub(super) hash: Option<KeyHash>,
    pub(super) reply: Encoder,
}

/// The effect of a call on its connection.
#[derive(Debug)]
pub enum Effect {
    /// The reply is written.
    Reply,
    /// Something is left to do.
    Further(Further),
}

impl From<Further> for Effect {
    fn from(further: Further) -> Self {
        Self::Further(further)
    }
}

/// What is left to do for a connection after a call.
#[derive(Debug)]
pub enum Further {
    /// The reply is written, and the connection closes after it.
    Close,
    /// The reply is written; the connection is authenticated and changes to the protocol of the encoder.
    Authenticate,
    /// Nothing is written, and the arguments are keys. The one at this index may be on another node, or makes the reply
    /// long; each key before it is on this node or on none.
    LookUp(KeyReply, usize),
    /// Nothing is written: the reply is these values, however long they are and whatever becomes of their keys.
    Show(Box<Shown>),
    /// Nothing is written: the reply is a filter dump.
    DumpFilter,
    /// Nothing is written: the scan continues in steps.
    Scan(Box<KeyScan>),
    /// Nothing is written: the arguments are a node's handshake.
    Handshake,
    /// Nothing is written: the requests of the connection's transaction are to be carried out.
    Transact,
}

/// A reply of values of this node, which are shared and not copied.
#[derive(Debug)]
pub struct Shown {
    pub(in crate::node) form: KeyReply,
    /// The parts in order: words, most of them keys, with what is shown for each.
    pub(in crate::node) parts: Vec<(Box<[u8]>, Answer)>,
}

impl Shown {
    /// A reply without parts.
    pub(in crate::node) const fn new(form: KeyReply) -> Self {
        Self { form, parts: Vec::new() }
    }

    /// Adds a key with the value that it has now.
    pub(in crate::node) fn add(&mut self, state: &State, now: Now, key: HashedKey<'_>) {
        let value = state.keyspace.share(now, key).unwrap_or_default();
        self.parts.push((key.bytes.into(), Answer::Found { value, until: None }));
    }
}

impl<'a> Call<'a> {
    /// The keys among the arguments, in order.
    pub(in crate::node) fn keys(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        self.command.keys(self.reply.is_line(), self.args)
    }

    /// Hashes a key of the call; `at` is its index among the arguments.
    #[inline]
    pub(in crate::node) fn hashed(&self, state: &State, at: usize, key: &'a [u8]) -> HashedKey<'a> {
        match self.hash {
            Some(hash) if at == 0 => HashedKey { hash, bytes: key },
            Some(_) | None => state.keyspace.key(key),
        }
    }

    /// The arguments; an error unless there are exactly `N`.
    pub(in crate::node) fn words<const N: usize>(&self) -> Result<[&'a [u8]; N], CommandError<'a>> {
        let mut tuples = self.args.tuples::<N>();
        tuples.next().filter(|_| self.args.len() == N).ok_or(CommandError::WrongArity(self.command.name))
    }

    /// Returns an error if a topic has more than `count` arguments, in RESP.
    pub(in crate::node) fn takes_at_most(&self, count: usize) -> Result<(), CommandError<'a>> {
        if self.args.len() > count { Err(CommandError::TopicArity(self.command.name)) } else { Ok(()) }
    }

    /// The argument at index `at` as an integer of 64 bits; an error if it is none.
    pub(in crate::node) fn integer(&self, at: usize) -> Result<i64, CommandError<'a>> {
        self.args.get(at).and_then(number).ok_or(CommandError::Plain(NO_INTEGER))
    }

    /// Calls the handler, unless the requests before it in a transaction have copied as much as they may: all of them are
    /// one step.
    #[inline]
    pub(in crate::node) fn run(&mut self, state: &mut State) -> CommandResult<'a> {
        if state.keyspace.has_copied_too_much() {
            return Err(copied_too_much());
        }
        (self.command.run)(state, self)
    }

    /// The cost of the call, in keys.
    pub(in crate::node) fn cost(&self) -> usize {
        self.command.cost_of(self.reply.is_line(), self.args)
    }

    /// Returns an error if the reply is longer than `reply_bytes_max`.
    pub(in crate::node) fn check_length(&self, state: &State) -> Result<(), CommandError<'a>> {
        self.check_bytes(state, self.reply.len())
    }

    /// The same for a reply of this many bytes.
    pub(in crate::node) fn check_bytes(&self, state: &State, bytes: usize) -> Result<(), CommandError<'a>> {
        let limit_bytes = state.config.limits.reply_bytes_max;
        if bytes <= limit_bytes as usize {
            return Ok(());
        }
        Err(CommandError::ReplyTooLong(ReplyTooLong { limit_bytes, keys: self.keys().len() }))
    }
}

// The table, and so docs/compatibility.md, names it.
const _: () = assert!(COPIED_MAX * COPIED_BYTES_PER_KEY == 16 << 20);

/// The error of a request after others in its transaction that have copied as much as they may.
#[cold]
fn copied_too_much() -> CommandError<'static> {
    let mebibytes = COPIED_MAX * COPIED_BYTES_PER_KEY / (1 << 20);
    CommandError::Sentence(format!(
        "not carried out: the requests before it in this transaction have copied {mebibytes} MiB of values; send it in \
         another one"
    ))
}

impl Command {
    /// A row with defaults: no access to keys, no form in any protocol.
    pub(in crate::node) const fn new(
        name: &'static str,
        group: &'static str,
        summary: &'static str,
        run: Handler,
    ) -> Self {
        Self {
            name,
            index: 0,
            group,
            summary,
            since: "0.1.0",
            access: Access::None,
            scope: Scope::Here,
            needs_key: false,
            cost: Cost::Keys,
            differs: "",
            is_open: false,
            is_immediate: false,
            has_topics: false,
            line: None,
            resp: None,
            has_only_key: false,
            run,
        }
    }

    pub(in crate::node) const fn reads(self) -> Self {
        Self { access: Access::Read, ..self }
    }

    pub(in crate::node) const fn writes(self) -> Self {
        Self { access: Access::Write, ..self }
    }

    pub(in crate::node) const fn scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    pub(in crate::node) const fn needs_key(self) -> Self {
        Self { needs_key: true, ..self }
    }

    pub(in crate::node) const fn open(self) -> Self {
        Self { is_open: true, ..self }
    }

    pub(in crate::node) const fn immediate(self) -> Self {
        Self { is_immediate: true, ..self }
    }

    pub(in crate::node) const fn differs(self, differs: &'static str) -> Self {
        Self { differs, ..self }
    }

    pub(in crate::node) const fn topics(self) -> Self {
        Self { has_topics: true, ..self }
    }

    pub(in crate::node) const fn removes(self) -> Self {
        Self { cost: Cost::Removals, ..self }
    }

    pub(in crate::node) const fn takes_a_step(self) -> Self {
        Self { cost: Cost::Step, ..self }
    }

    pub(in crate::node) const fn line(
        self,
        verb: &'static str,
        arguments: &'static str,
        syntax: Syntax,
        word: &'static str,
        example: &'static str,
    ) -> Self {
        Self { line: Some(LineForm { verb, arguments, syntax, word, example }), ..self }
    }

    pub(in crate::node) const fn resp(self, arity: i32, keys: Keys) -> Self {
        let has_only_key = matches!(keys, Keys::FIRST);
        Self { resp: Some(RespForm { arity, keys }), has_only_key, ..self }
    }

    /// The keys among the arguments of a request in lines or in RESP.
    pub(in crate::node) fn keys<'a>(
        &self,
        is_line: bool,
        args: Args<'a>,
    ) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        self.key_positions(is_line).of(args)
    }

    /// The key of a request in RESP, if [`Command::has_only_key`]. `words` include the name.
    #[inline]
    pub(in crate::node) fn only_key<'a>(&self, words: Args<'a>) -> Option<&'a [u8]> {
        if self.has_only_key() { words.get(1) } else { None }
    }

    /// Whether the first argument of a request in RESP is its only key.
    #[inline]
    pub(in crate::node) const fn has_only_key(&self) -> bool {
        self.has_only_key
    }

    /// The scope of a request, never [`Scope::Options`].
    #[inline]
    pub(in crate::node) fn scope_of(&self, is_line: bool, args: Args<'_>) -> Scope {
        match self.scope {
            Scope::Options if is_line || !self.has_option(args, &CONDITIONS) => Scope::Here,
            Scope::Options => Scope::AllKeys,
            Scope::Mesh if !args.get(0).is_some_and(|word| word.eq_ignore_ascii_case(b"MESH")) => Scope::Here,
            Scope::Here
            | Scope::FirstKey
            | Scope::EachKey
            | Scope::AllKeys
            | Scope::Claimants
            | Scope::Mesh
            | Scope::Transaction => self.scope,
        }
    }

    /// The effect of a request on keys that no node holds.
    pub(in crate::node) fn on_missing(&self, is_line: bool, args: Args<'_>) -> OnMissing {
        let needs_key =
            self.needs_key || (self.scope == Scope::Options && !is_line && self.has_option(args, &EXISTING));
        if needs_key { OnMissing::NoEffect } else { OnMissing::Creates }
    }

    /// Whether one of `options` follows the keys and values.
    fn has_option(&self, args: Args<'_>, options: &[&str]) -> bool {
        let keys = self.key_positions(false);
        let first = keys.first.saturating_sub(1) + 2 * keys.of(args).len();
        let is_one = |word: &[u8]| options.iter().any(|option| word.eq_ignore_ascii_case(option.as_bytes()));
        args.iter().skip(first).any(is_one)
    }

    /// Arguments per key: in lines, the key and the fields after it, separated by colons.
    pub(in crate::node) fn step(&self, is_line: bool) -> usize {
        self.key_positions(is_line).step
    }

    fn key_positions(&self, is_line: bool) -> Keys {
        match (is_line, &self.line, &self.resp) {
            (true, Some(form), _) if self.access != Access::None => {
                Keys { step: form.syntax.step(), ..Keys::ALL }
            }
            (false, _, Some(form)) => form.keys,
            (true | false, _, _) => Keys::NONE,
        }
    }

    /// The cost of a call, in keys.
    #[inline(always)]
    pub(in crate::node) fn cost_of(&self, is_line: bool, args: Args<'_>) -> usize {
        if self.has_only_key && !is_line && self.cost == Cost::Keys {
            1
        } else {
            self.any_cost(is_line, args)
        }
    }

    #[inline(never)]
    fn any_cost(&self, is_line: bool, args: Args<'_>) -> usize {
        match self.cost {
            Cost::Step => KEYS_PER_STEP,
            Cost::Keys => self.key_positions(is_line).count(args.len()).max(1),
            Cost::Removals => REMOVAL_KEYS * self.key_positions(is_line).count(args.len()),
        }
    }

    /// The class of its latency histogram, if it is carried out at once.
    #[inline]
    pub(in crate::node) const fn class(&self) -> CommandClass {
        match self.access {
            Access::None => CommandClass::Other,
            Access::Read => CommandClass::Read,
            Access::Write => CommandClass::Write,
        }
    }

    /// The name in lower case, with `|` between command and topic, as in Redis.
    pub(in crate::node) fn resp_name(&self) -> String {
        self.name.to_ascii_lowercase().replace(' ', "|")
    }

    /// Whether the command takes this many words in RESP, the name included.
    pub(in crate::node) fn takes(&self, words: usize) -> bool {
        let Some(form) = &self.resp else { return false };
        let count = form.arity.unsigned_abs() as usize;
        words == count || form.arity < 0 && words > count
    }
}

/// Bytes of the longest name.
const NAME_BYTES_MAX: usize = 24;

/// A name in upper case, padded with zeros: the key of the table.
type Name = [u64; NAME_BYTES_MAX / 8];

/// A hash table of all commands by name, case-insensitive.
#[derive(Debug)]
pub struct Table {
    pub(in crate::node) rows: &'static [Command],
    names: [Name; Self::ROWS_MAX],
    /// Open addressing: the index of a row plus 1; 0 if the slot is empty.
    slots: [u8; Self::SLOTS],
}

impl Table {
    pub(in crate::node) const ROWS_MAX: usize = COMMANDS_MAX;
    const SLOTS: usize = 512;

    /// Builds the table at compile time: two rows with the same name do not compile.
    pub(in crate::node) const fn new(rows: &'static [Command]) -> Self {
        assert!(rows.len() <= Self::ROWS_MAX);
        let (mut names, mut slots) = ([[0; 3]; Self::ROWS_MAX], [0; Self::SLOTS]);
        let (mut row, mut number) = (0, 1);
        while row < rows.len() {
            let name = const_name(rows[row].name.as_bytes());
            let mut at = slot(name);
            while slots[at] != 0 {
                let other = names[slots[at] as usize - 1];
                assert!(
                    other[0] != name[0] || other[1] != name[1] || other[2] != name[2],
                    "two rows of one name"
                );
                at = (at + 1) % Self::SLOTS;
            }
            slots[at] = number;
            names[row] = name;
            row += 1;
            number += 1;
        }
        Self { rows, names, slots }
    }

    /// The command with a name.
    #[inline]
    pub(in crate::node) fn find(&self, word: &[u8]) -> Option<&'static Command> {
        let found = match short_name(word) {
            Some(name) => self.search([name, 0, 0]),
            None => self.find_long(word),
        };
        // Names are padded with zeros, and a word can contain zeros.
        found.filter(|command| command.name.len() == word.len())
    }

    fn find_long(&self, word: &[u8]) -> Option<&'static Command> {
        let mut bytes = [0; NAME_BYTES_MAX];
        bytes.get_mut(..word.len())?.copy_from_slice(word);
        self.search(packed(bytes))
    }

    /// The topic of a command with a name.
    pub(in crate::node) fn find_topic(&self, command: &Command, topic: &[u8]) -> Option<&'static Command> {
        let start = command.name.len() + 1;
        let mut bytes = [0; NAME_BYTES_MAX];
        bytes[..start - 1].copy_from_slice(command.name.as_bytes());
        bytes[start - 1] = b' ';
        bytes.get_mut(start..start + topic.len())?.copy_from_slice(topic);
        self.search(packed(bytes)).filter(|command| command.name.len() == start + topic.len())
    }

    /// The topics of a command.
    pub(in crate::node) fn topics(&self, command: &Command) -> impl Iterator<Item = &'static Command> {
        let name = command.name;
        let is_under =
            move |row: &&Command| row.name.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
        self.rows.iter().filter(is_under)
    }

    /// The error for an unknown topic of a command; an empty topic counts as missing.
    pub(in crate::node) fn unknown_topic<'a>(&self, command: &Command, topic: &'a [u8]) -> CommandError<'a> {
        let topics = self.topics(command).map(|row| row.name[command.name.len() + 1..].to_ascii_lowercase());
        CommandError::UnknownTopic(command.name, topics.collect::<Vec<_>>().join(", "), topic)
    }

    #[inline]
    fn search(&self, name: Name) -> Option<&'static Command> {
        let mut at = slot(name);
        loop {
            let row = usize::from(self.slots[at]).checked_sub(1)?;
            if self.names[row] == name {
                return self.rows.get(row);
            }
            at = (at + 1) % Self::SLOTS;
        }
    }
}

/// Packs a name of up to 8 bytes in upper case, without a copy. Most names are that short.
#[inline]
fn short_name(word: &[u8]) -> Option<u64> {
    let packed = match word {
        [] => 0,
        [first] => u64::from(*first),
        [first, second] => u64::from(u16::from_le_bytes([*first, *second])),
        [first, second, third] => u64::from(u32::from_le_bytes([*first, *second, *third, 0])),
        // The first and the last four bytes, which may overlap.
        [a, b, c, d, ..] if word.len() <= 8 => {
            let last = u32::from_le_bytes(*word.last_chunk()?);
            u64::from(u32::from_le_bytes([*a, *b, *c, *d])) | u64::from(last) << ((word.len() - 4) * 8)
        }
        _ => return None,
    };
    Some(upper(packed))
}

/// Packs a longer name in upper case.
fn packed(bytes: [u8; NAME_BYTES_MAX]) -> Name {
    let (words, _) = bytes.as_chunks::<8>();
    [0, 1, 2].map(|at: usize| upper(u64::from_le_bytes(words[at])))
}

/// Eight bytes with ASCII letters in upper case.
const fn upper(bytes: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // High bits: `from_a` marks bytes from 'a' on, `after_z` those after 'z'. No sum carries into the next byte.
    let low_bits = bytes & (0x7f * EACH);
    let from_a = low_bits + (0x80 - b'a' as u64) * EACH;
    let after_z = low_bits + (0x7f - b'z' as u64) * EACH;
    let is_lower = from_a & !after_z & !bytes & (0x80 * EACH);
    bytes ^ (is_lower >> 2)
}

/// Copies rows, each with its index in the table.
pub(in crate::node) const fn numbered<const N: usize>(list: &[Command]) -> [Command; N] {
    let mut rows = [list[0]; N];
    let mut row = 0;
    while row < N {
        rows[row] = list[row];
        rows[row].index = row;
        row += 1;
    }
    rows
}

const fn const_name(text: &[u8]) -> Name {
    assert!(text.len() <= NAME_BYTES_MAX);
    let mut name = [0; 3];
    let mut at = 0;
    while at < text.len() {
        assert!(!text[at].is_ascii_lowercase(), "names of commands are in upper case");
        name[at / 8] |= (text[at] as u64) << (at % 8 * 8);
        at += 1;
    }
    name
}

const fn slot(name: Name) -> usize {
    let folded = name[0] ^ name[1].rotate_left(21) ^ name[2].rotate_left(42);
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - 9)) as usize
}

#[cfg(test)]
mod tests {
    use crate::node::command::table::TABLE;

    #[test]
    fn each_row_is_found_by_its_name_in_any_case_and_nothing_else_is() {
        for row in TABLE.rows {
            let found = match row.name.split_once(' ') {
                None => TABLE.find(row.name.to_ascii_lowercase().as_bytes()),
                Some((word, topic)) => {
                    TABLE.find_topic(TABLE.find(word.as_bytes()).unwrap(), topic.as_bytes())
                }
            };
            assert_eq!(found.map(|found| found.index), Some(row.index), "{}", row.name);
            assert!(TABLE.find(format!("{}\0", row.name).as_bytes()).is_none(), "{}", row.name);
        }
        for word in [&b""[..], b"G", b"GE", b"GETT", b"NOSUCHCOMMAND", &[b'A'; 25], b"\0\0\0"] {
            assert!(TABLE.find(word).is_none(), "{}", word.escape_ascii());
        }
    }
}
