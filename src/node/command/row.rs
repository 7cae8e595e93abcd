//! What a command is: its row in the table, and a call of it.

use crate::base::time::Now;
use crate::limits::KEYS_PER_STEP;
use crate::node::command::error::{CommandError, NO_INTEGER};
use crate::node::command::key_scan::KeyScan;
use crate::node::ids::ConnKey;
use crate::node::latency::CommandClass;
use crate::node::lookup::forwarded::OnMissing;
use crate::node::lookup::key_reply::KeyReply;
use crate::node::metrics::COMMANDS_MAX;
use crate::node::state::State;
use crate::wire::args::Args;
use crate::wire::encoder::{Encoder, ReplyTooLong};
use crate::wire::line_form::{LineForm, Syntax};
use crate::wire::resp::parse::number;

/// One command. Its name is in upper case; one of several under one word has that word before it:
/// `COMMAND COUNT`.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    pub(in crate::node) name: &'static str,
    /// Its place in the table.
    pub(super) index: usize,
    pub(super) group: &'static str,
    /// One sentence.
    pub(super) summary: &'static str,
    /// The version of Olivia that had it first.
    pub(super) since: &'static str,
    pub(super) access: Access,
    pub(super) scope: Scope,
    /// It does nothing where its first key is missing.
    needs_key: bool,
    pub(super) cost: Cost,
    /// How it differs from Redis; empty: it does not.
    pub(super) differs: &'static str,
    /// Carried out before AUTH.
    pub(super) is_open: bool,
    /// Carried out between MULTI and EXEC instead of being kept.
    pub(super) is_immediate: bool,
    /// A word that others stand under: its first argument is looked up as one of them.
    pub(super) has_topics: bool,
    /// `None`: it is not spoken in lines.
    pub(super) line: Option<LineForm>,
    /// `None`: it is not spoken in RESP.
    pub(super) resp: Option<RespForm>,
    pub(super) run: Handler,
}

/// What a command does to keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is about no key.
    None,
    Read,
    Write,
}

/// Which nodes a command concerns beside the one that received it. What depends on the old values of keys is carried
/// out once, by the node that holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// None: it reads, or does the same whatever there was.
    Here,
    /// The holder of its first key.
    FirstKey,
    /// The holder of each of its keys, apart from the others.
    EachKey,
    /// The one holder of all of its keys, which are changed together or not at all.
    AllKeys,
    /// The same in RESP, if an option after the keys and values is a condition, or requests what there was.
    Options,
    /// All nodes that may hold one of its keys.
    Claimants,
    /// All linked nodes, if its argument says so.
    Mesh,
    /// The one holder of all keys on whose old values its queued requests depend.
    Transaction,
}

/// Options of SET and MSETEX that depend on what there was.
const CONDITIONS: [&str; 5] = ["NX", "XX", "GET", "KEEPTTL", "IFEQ"];

/// Those with which nothing is set where there is no key.
const EXISTING: [&str; 2] = ["XX", "IFEQ"];

/// What it costs to remove a key, in keys.
const REMOVAL_KEYS: usize = 3;

/// What a call costs its connection, in keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// As many as it has keys, at least one.
    Keys,
    /// Three times as many: a key that is removed leaves the index, the heap and the own filter, and a tombstone stays.
    Removals,
    /// A whole step: it grows with what is known of other nodes.
    Step,
}

/// How a command looks in RESP.
#[derive(Debug, Clone, Copy)]
pub struct RespForm {
    /// Arguments with the name; negative: at least as many.
    pub(super) arity: i32,
    pub(super) keys: Keys,
}

/// Which arguments are keys, counted from the last word of the name at 0; all zero: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    pub(super) first: usize,
    /// From the end, if negative: -1 is the last argument. 0 after a first: the first argument gives their number.
    pub(super) last: i32,
    pub(super) step: usize,
}

impl Keys {
    pub(in crate::node) const NONE: Self = Self { first: 0, last: 0, step: 0 };
    pub(in crate::node) const FIRST: Self = Self { first: 1, last: 1, step: 1 };
    pub(in crate::node) const ALL: Self = Self { first: 1, last: -1, step: 1 };
    pub(in crate::node) const PAIRS: Self = Self { first: 1, last: -1, step: 2 };
    pub(in crate::node) const TWO: Self = Self { first: 1, last: 2, step: 1 };
    /// Pairs after their number, as in MSETEX.
    pub(in crate::node) const COUNTED_PAIRS: Self = Self { first: 2, last: 0, step: 2 };

    /// The keys among arguments without the name.
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

    /// Whether the first argument gives the number of keys.
    const fn is_counted(self) -> bool {
        self.first > 0 && self.last == 0
    }

    /// How many of so many arguments are keys, at most.
    fn count(self, args: usize) -> usize {
        let args = (self.end(args) + 1).saturating_sub(self.first);
        if self.step <= 1 { args * self.step } else { args.div_ceil(self.step) }
    }

    /// The last of so many arguments that can be a key; 0: none can.
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

/// What comes of a call.
pub type CommandResult<'a> = Result<Effect, CommandError<'a>>;

/// Carries out a call. Nothing is changed where it fails, unless the error says otherwise.
pub type Handler = for<'a> fn(&mut State, &mut Call<'a>) -> CommandResult<'a>;

/// A command with its arguments, and the reply that it writes.
#[derive(Debug)]
pub struct Call<'a> {
    pub(super) now: Now,
    pub(super) conn: ConnKey,
    pub(super) command: &'static Command,
    pub(super) table: &'static Table,
    /// Without the command's name.
    pub(super) args: Args<'a>,
    pub(super) reply: Encoder,
}

/// What a call does to its connection.
#[derive(Debug)]
pub enum Effect {
    /// The reply is written.
    Reply,
    /// It is written, and the connection ends with it.
    Close,
    /// It is written; the connection's protocol is now the encoder's, and it is authenticated.
    Authenticate,
    /// Nothing is written, and the arguments are keys: the one at this place is not here and may be elsewhere; none
    /// before it is missing here and may be elsewhere.
    LookUp(KeyReply, usize),
    /// Nothing is written: the own filter is to be written as text.
    DumpFilter,
    /// Nothing is written: the scan is not complete.
    Scan(Box<KeyScan>),
    /// Nothing is written: the arguments are a node's handshake.
    Handshake,
    /// Nothing is written: the requests of the connection's transaction are to be carried out.
    Transact,
}

impl<'a> Call<'a> {
    /// The keys, in order.
    pub(in crate::node) fn keys(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        self.command.keys(self.reply.is_line(), self.args)
    }

    /// The arguments of a command that takes exactly `N`.
    pub(in crate::node) fn words<const N: usize>(&self) -> Result<[&'a [u8]; N], CommandError<'a>> {
        let mut tuples = self.args.tuples::<N>();
        tuples.next().filter(|_| self.args.len() == N).ok_or(CommandError::WrongArity(self.command.name))
    }

    /// Fails if a topic of a command has more arguments than this, in RESP.
    pub(in crate::node) fn takes_at_most(&self, count: usize) -> Result<(), CommandError<'a>> {
        if self.args.len() > count { Err(CommandError::TopicArity(self.command.name)) } else { Ok(()) }
    }

    /// A whole number among the arguments.
    pub(in crate::node) fn integer(&self, at: usize) -> Result<i64, CommandError<'a>> {
        self.args.get(at).and_then(number).ok_or(CommandError::Plain(NO_INTEGER))
    }

    /// What the call costs its connection, in keys.
    pub(in crate::node) fn cost(&self) -> usize {
        self.command.cost_of(self.reply.is_line(), self.args)
    }

    /// Checks that the reply is not longer than one may be.
    pub(in crate::node) fn check_length(&self, state: &State) -> Result<(), CommandError<'a>> {
        let limit_bytes = state.config.limits.reply_bytes_max;
        if self.reply.len() <= limit_bytes as usize {
            return Ok(());
        }
        Err(CommandError::ReplyTooLong(ReplyTooLong { limit_bytes, keys: self.keys().len() }))
    }
}

impl Command {
    /// A command without keys, arguments or a form in any protocol.
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
        Self { resp: Some(RespForm { arity, keys }), ..self }
    }

    /// The keys among the arguments of a line, or of a request in RESP.
    pub(in crate::node) fn keys<'a>(
        &self,
        is_line: bool,
        args: Args<'a>,
    ) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        self.key_positions(is_line).of(args)
    }

    /// The key of a request in RESP, the name among its words, if the command has one key, the first argument.
    #[inline]
    pub(in crate::node) fn only_key<'a>(&self, words: Args<'a>) -> Option<&'a [u8]> {
        if self.has_only_key() { words.get(1) } else { None }
    }

    /// Whether the first argument of a request in RESP is its only key.
    #[inline]
    pub(in crate::node) fn has_only_key(&self) -> bool {
        self.resp.as_ref().is_some_and(|form| form.keys == Keys::FIRST)
    }

    /// Which nodes a request concerns: never [`Scope::Options`].
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

    /// What a request does on keys that no node holds.
    pub(in crate::node) fn on_missing(&self, is_line: bool, args: Args<'_>) -> OnMissing {
        let needs_key =
            self.needs_key || (self.scope == Scope::Options && !is_line && self.has_option(args, &EXISTING));
        if needs_key { OnMissing::NoEffect } else { OnMissing::Creates }
    }

    /// Whether one of these options stands after keys and values.
    fn has_option(&self, args: Args<'_>, options: &[&str]) -> bool {
        let keys = self.key_positions(false);
        let first = keys.first.saturating_sub(1) + 2 * keys.of(args).len();
        let is_one = |word: &[u8]| options.iter().any(|option| word.eq_ignore_ascii_case(option.as_bytes()));
        args.iter().skip(first).any(is_one)
    }

    /// Arguments of each key in lines: the key and what is set off from it by colons.
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

    /// What a call costs its connection, in keys.
    pub(in crate::node) fn cost_of(&self, is_line: bool, args: Args<'_>) -> usize {
        match self.cost {
            Cost::Step => KEYS_PER_STEP,
            Cost::Keys => self.key_positions(is_line).count(args.len()).max(1),
            Cost::Removals => REMOVAL_KEYS * self.key_positions(is_line).count(args.len()),
        }
    }

    /// The class that its times are kept in, if it is carried out at once.
    #[inline]
    pub(in crate::node) const fn class(&self) -> CommandClass {
        match self.access {
            Access::None => CommandClass::Other,
            Access::Read => CommandClass::Read,
            Access::Write => CommandClass::Write,
        }
    }

    /// The name as Redis writes it.
    pub(in crate::node) fn resp_name(&self) -> String {
        self.name.to_ascii_lowercase().replace(' ', "|")
    }

    /// Whether a request with so many words, the name among them, may be this command in RESP.
    pub(in crate::node) fn takes(&self, words: usize) -> bool {
        let Some(form) = &self.resp else { return false };
        let count = form.arity.unsigned_abs() as usize;
        if form.arity < 0 { words >= count } else { words == count }
    }
}

/// Bytes of the longest name.
const NAME_BYTES_MAX: usize = 24;

/// A name in upper case, padded with zeros: what the table is searched by.
type Name = [u64; NAME_BYTES_MAX / 8];

/// All commands, found by their names without regard to case.
#[derive(Debug)]
pub struct Table {
    pub(in crate::node) rows: &'static [Command],
    names: [Name; Self::ROWS_MAX],
    /// Open addressing: the number of a row and 1, or 0.
    slots: [u8; Self::SLOTS],
}

impl Table {
    pub(in crate::node) const ROWS_MAX: usize = COMMANDS_MAX;
    const SLOTS: usize = 512;

    /// The table of these rows. At compile time, so that two rows of one name do not compile.
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

    /// The command of a name.
    #[inline]
    pub(in crate::node) fn find(&self, word: &[u8]) -> Option<&'static Command> {
        let found = match short_name(word) {
            Some(name) => self.search([name, 0, 0]),
            None => self.find_long(word),
        };
        // Names are padded with zeros, which a word may hold.
        found.filter(|command| command.name.len() == word.len())
    }

    fn find_long(&self, word: &[u8]) -> Option<&'static Command> {
        let mut bytes = [0; NAME_BYTES_MAX];
        bytes.get_mut(..word.len())?.copy_from_slice(word);
        self.search(packed(bytes))
    }

    /// The command of a name under another.
    pub(in crate::node) fn find_topic(&self, command: &Command, topic: &[u8]) -> Option<&'static Command> {
        let start = command.name.len() + 1;
        let mut bytes = [0; NAME_BYTES_MAX];
        bytes[..start - 1].copy_from_slice(command.name.as_bytes());
        bytes[start - 1] = b' ';
        bytes.get_mut(start..start + topic.len())?.copy_from_slice(topic);
        self.search(packed(bytes)).filter(|command| command.name.len() == start + topic.len())
    }

    /// The topics that stand under a command.
    pub(in crate::node) fn topics(&self, command: &Command) -> impl Iterator<Item = &'static Command> {
        let name = command.name;
        let is_under =
            move |row: &&Command| row.name.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
        self.rows.iter().filter(is_under)
    }

    /// The error about a topic that a command does not have; an empty one is none.
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

/// A name of up to 8 bytes in upper case: most are, and packing them needs no copy.
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

/// A longer name in upper case.
fn packed(bytes: [u8; NAME_BYTES_MAX]) -> Name {
    let (words, _) = bytes.as_chunks::<8>();
    [0, 1, 2].map(|at: usize| upper(u64::from_le_bytes(words[at])))
}

/// Eight bytes with ASCII letters in upper case.
const fn upper(bytes: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // The high bit of each byte says: at least 'a', and more than 'z'. No sum carries into the next byte.
    let low_bits = bytes & (0x7f * EACH);
    let from_a = low_bits + (0x80 - b'a' as u64) * EACH;
    let after_z = low_bits + (0x7f - b'z' as u64) * EACH;
    let is_lower = from_a & !after_z & !bytes & (0x80 * EACH);
    bytes ^ (is_lower >> 2)
}

/// Rows with their places in the table.
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
