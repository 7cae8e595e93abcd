//! The oracle: the keys that each node holds, derived from the requests that it received, and the values that replies
//! may have.
//!
//! A request is carried out in the call that delivers it to its node, unless the node stops reading that connection:
//! then only its reply, or the next reading, shows that it was. If that leaves the order of two changes of a key open,
//! the key is *fuzzy* until it is set again, and may have either value.

use super::protocol::{Verb, show};
use std::collections::BTreeMap;
use std::fmt;

/// How finely deadlines are noted that may have been set at any moment of a span; less than a second, as
/// TTLs are shown in seconds.
const STEP: usize = 400_000_000;
const STEPS_MAX: usize = 50;

/// How long after its request another node carries a command out, at most, in nanoseconds: `lookup_timeout_ms`, and by
/// how much clocks may differ.
const FORWARDED_FOR: u64 = 3_000_000_000;

/// The same, and for how long what is written after it may have a lower version.
const COMMANDED_FOR: u64 = 5_000_000_000;

/// A moment: the number of the call to a node, over the whole world, and the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp {
    pub call: u64,
    pub nanos: u64,
}

/// A value, each set once only, by one request on one node.
#[derive(Debug, Clone)]
pub struct Value {
    pub key: u32,
    pub host: usize,
    /// From when on it may have been there,
    pub from: Stamp,
    /// and until when: the call that certainly ended it.
    pub until: Option<Stamp>,
    /// The moment, on the world's clock, at which it expires; never: `u64::MAX`.
    pub deadline: u64,
    /// Deadlines that it had before.
    past: Vec<u64>,
    pub padding: usize,
    /// By which it stays or yields to others, if that is known.
    pub version: Option<u64>,
}

impl Value {
    fn set_deadline(&mut self, deadline: u64) {
        self.past.push(self.deadline);
        self.deadline = deadline;
    }

    /// It may have got this deadline, or have kept the one it had.
    fn perhaps_deadline(&mut self, deadline: u64) {
        self.past.extend([self.deadline, deadline]);
        self.deadline = self.deadline.max(deadline);
    }

    /// It may have got its deadline at any moment that is up to `earlier` before the one noted.
    fn smear(&mut self, earlier: u64) {
        if self.deadline != u64::MAX || !self.past.is_empty() {
            let latest = self.past.last().copied().filter(|at| *at != u64::MAX).unwrap_or(self.deadline);
            let steps = (0..=earlier).step_by(STEP).take(STEPS_MAX).chain([earlier]);
            self.past.extend(steps.map(|step| latest.saturating_sub(step)));
        }
    }

    /// Every deadline that it has had.
    pub fn deadlines(&self) -> impl Iterator<Item = u64> {
        self.past.iter().copied().chain([self.deadline])
    }
}

/// One argument of a request.
#[derive(Clone)]
pub struct Item {
    pub key: u32,
    /// The value that is set, as an index into the oracle's values.
    pub value: usize,
    pub seconds: u64,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", key_shown(self.key).escape_ascii())?;
        if self.value != usize::MAX { write!(f, ":v{}", self.value) } else { Ok(()) }
    }
}

/// A change of a key that some node may carry out at any moment: one that travels, or was given to a node that does not
/// read on.
#[derive(Debug, Clone, Copy)]
struct Command {
    host: usize,
    verb: Verb,
    deadline: u64,
    until: u64,
}

/// The state of a key on one node.
#[derive(Debug, Clone, Default)]
struct Slot {
    value: Option<usize>,
    is_fuzzy: bool,
    /// Changes given to the node that may or may not have been carried out.
    undecided: u32,
    /// Since when it has certainly been there without a break, and the end of its node's log by then.
    since: Option<Stamp>,
    position: u64,
    /// Values that may be there.
    open: Vec<usize>,
    changed: Stamp,
}

/// The possible states of a key on one node at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// This value, until this moment.
    Here(usize, u64),
    Absent,
    Unsure,
}

/// All nodes' stores.
#[derive(Debug, Default)]
pub struct Oracle {
    pub values: Vec<Value>,
    by_key: BTreeMap<u32, Vec<usize>>,
    /// Of each host's present run.
    chunked_vec: Vec<BTreeMap<u32, Slot>>,
    /// Per host, the end of its changelog after the last call of its node.
    pub heads: Vec<u64>,
    /// The highest version that a key got on a host.
    versions: BTreeMap<(u32, usize), u64>,
    commands: BTreeMap<u32, Vec<Command>>,
    /// Clocks have differed by so much that what one node writes another may refuse.
    pub has_wrong_clocks: bool,
}

/// A key by its number: of every kind that there is.
pub fn key_text(key: u32) -> Vec<u8> {
    match key % 16 {
        3 => format!("user:{key}").into_bytes(),
        7 => format!("c d{key}").into_bytes(),
        11 => format!(" e,{key}\"").into_bytes(),
        13 => [b"\xff\x00".as_slice(), &key.to_le_bytes()].concat(),
        14 => format!("a-key-that-is-somewhat-longer-than-thirty-two-bytes-{key}").into_bytes(),
        _ => format!("k{key}").into_bytes(),
    }
}

/// A key as a request or a reply shows it.
pub fn key_shown(key: u32) -> Vec<u8> {
    show(&key_text(key), true)
}

impl Oracle {
    pub fn new(hosts: usize) -> Self {
        Self { chunked_vec: vec![BTreeMap::new(); hosts], heads: vec![0; hosts], ..Self::default() }
    }

    /// A value to be set.
    pub fn new_value(&mut self, host: usize, key: u32, padding: usize) -> usize {
        let never = Stamp { call: u64::MAX, nanos: u64::MAX };
        self.values.push(Value {
            key,
            host,
            from: never,
            until: None,
            deadline: u64::MAX,
            past: Vec::new(),
            padding,
            version: None,
        });
        self.by_key.entry(key).or_default().push(self.values.len() - 1);
        self.values.len() - 1
    }

    /// A value's bytes, which need no quotes and identify the value.
    pub fn text(&self, value: usize) -> Vec<u8> {
        let mut text = format!("v{value}.").into_bytes();
        text.resize(text.len() + self.values[value].padding, b'x');
        text
    }

    /// Returns the index of the value with these bytes.
    pub fn value_of(&self, text: &[u8]) -> Option<usize> {
        let digits = text.strip_prefix(b"v")?.split(|byte| *byte == b'.').next()?;
        let value: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        (value < self.values.len() && self.text(value) == text).then_some(value)
    }

    /// Returns the possible states of a key on a node at a time.
    pub fn local(&self, host: usize, key: u32, nanos: u64) -> Local {
        match self.chunked_vec[host].get(&key) {
            None => Local::Absent,
            Some(slot) if slot.is_fuzzy || slot.undecided > 0 => Local::Unsure,
            Some(slot) => {
                let alive = slot.value.map(|value| (value, self.values[value].deadline));
                let alive = alive.filter(|(_, deadline)| *deadline > nanos);
                alive.map_or(Local::Absent, |(value, deadline)| Local::Here(value, deadline))
            }
        }
    }

    /// When a key was last certainly changed on a node.
    pub fn changed(&self, host: usize, key: u32) -> Stamp {
        self.chunked_vec[host].get(&key).map_or(Stamp::default(), |slot| slot.changed)
    }

    /// Whether a node has certainly held a key since `since`, and will until `until` at least.
    pub fn surely_held(&self, host: usize, key: u32, since: u64, until: u64) -> bool {
        self.chunked_vec[host].get(&key).is_some_and(|slot| {
            let is_live = |value: usize| self.values[value].deadline > until;
            slot.since.is_some_and(|stamp| stamp.nanos <= since) && slot.value.is_some_and(is_live)
        })
    }

    /// Up to `most` keys, from `first` on and round, that a node certainly holds at a moment, and has held
    /// without a break since its log ended at `position` or before.
    pub fn held_since(
        &self,
        host: usize,
        nanos: u64,
        position: u64,
        (first, most): (u32, usize),
    ) -> impl Iterator<Item = u32> {
        let shelf = &self.chunked_vec[host];
        let slots = shelf.range(first..).chain(shelf.range(..first)).take(8 * most);
        let held = slots.filter(move |(_, slot)| {
            let is_live = slot.value.is_some_and(|value| self.values[value].deadline > nanos);
            slot.since.is_some() && slot.undecided == 0 && slot.position <= position && is_live
        });
        held.map(|(key, _)| *key).take(most)
    }

    /// Returns the end of the changelog when the key was added, if the node certainly holds this value of it now.
    pub fn published_at(&self, value: usize) -> Option<u64> {
        let Value { host, key, .. } = self.values[value];
        let slot = self.chunked_vec[host].get(&key)?;
        let is_it = slot.value == Some(value) && slot.undecided == 0;
        slot.since.filter(|_| is_it).map(|_| slot.position)
    }

    /// Whether some value of a key expires between two moments, on any node.
    pub fn runs_out(&self, key: u32, from: u64, to: u64) -> bool {
        let values = self.by_key.get(&key).map_or(&[][..], Vec::as_slice);
        values.iter().any(|value| self.values[*value].deadlines().any(|end| (from..=to).contains(&end)))
    }

    /// Whether some node has been given a change of a key that it may not have carried out yet.
    pub fn is_changing(&self, key: u32) -> bool {
        self.chunked_vec.iter().any(|shelf| shelf.get(&key).is_some_and(|slot| slot.undecided > 0))
    }

    /// Returns the possible states of a key on a node as text.
    pub fn describe(&self, host: usize, key: u32) -> String {
        let slot = self.chunked_vec[host].get(&key);
        let value = slot.and_then(|slot| slot.value).map(|value| (value, &self.values[value]));
        format!("{slot:?} with {value:?}")
    }

    /// Keys that were ever to be set.
    pub fn keys(&self) -> impl Iterator<Item = u32> {
        self.by_key.keys().copied()
    }

    /// Values of a key that some node other than the strangers' may have held between two moments.
    pub fn between(&self, key: u32, from: Stamp, to: Stamp) -> impl Iterator<Item = usize> {
        let values = self.by_key.get(&key).map_or(&[][..], Vec::as_slice);
        values.iter().rev().copied().filter(move |value| self.may_be_seen(*value, from, to))
    }

    /// Whether a node may have held a value between two moments.
    pub fn may_be_seen(&self, value: usize, from: Stamp, to: Stamp) -> bool {
        let value = &self.values[value];
        value.from <= to && value.until.is_none_or(|until| until >= from) && value.deadline > from.nanos
    }

    /// Every key that a node certainly holds at a moment and for long enough.
    pub fn keys_held(&self, host: usize, until: u64) -> Vec<u32> {
        let slots = self.chunked_vec[host].iter().filter(|(_, slot)| !slot.is_fuzzy && slot.undecided == 0);
        let held =
            slots.filter(|(_, slot)| slot.value.is_some_and(|value| self.values[value].deadline > until));
        held.map(|(key, _)| *key).collect()
    }

    /// Returns the least and the largest possible number of keys of a node at a time, if keys that ended before `past`
    /// are gone.
    pub fn count(&self, host: usize, past: u64, nanos: u64) -> (usize, usize) {
        let slots = self.chunked_vec[host].values();
        let deadline = |value: &usize| self.values[*value].deadline;
        let is_there =
            |slot: &&Slot| slot.since.is_some() && slot.value.is_some_and(|v| deadline(&v) > nanos);
        let may_be = |slot: &&Slot| slot.open.iter().any(|value| deadline(value) > past);
        (slots.clone().filter(is_there).count(), slots.filter(may_be).count())
    }

    /// Returns the number of values of a node that may expire between two times, removed ones included.
    pub fn endings(&self, host: usize, from: u64, to: u64) -> u64 {
        let is_one = |value: &&Value| {
            value.host == host && value.deadlines().any(|deadline| (from..=to).contains(&deadline))
        };
        self.values.iter().filter(is_one).count() as u64
    }

    /// A key is set or deleted on a host: what others hold of it may be dropped, unless its version is higher.
    fn contend(&mut self, host: usize, key: u32, version: Option<u64>) {
        for (other, slots) in self.chunked_vec.iter_mut().enumerate() {
            if let Some(slot) = slots.get_mut(&key).filter(|_| other != host) {
                let held = slot.value.and_then(|value| self.values[value].version);
                let stays = held.is_some_and(|held| version.is_some_and(|version| held > version));
                if !stays || self.has_wrong_clocks {
                    (slot.is_fuzzy, slot.since) = (true, None);
                }
            }
        }
        if let Some(version) = version {
            let highest = self.versions.entry((key, host)).or_default();
            *highest = version.max(*highest);
        }
    }

    /// Whether what a host has just written may be dropped, or its expiry changed: another node has a higher version,
    /// or may still carry out a command.
    fn is_contended(&self, host: usize, key: u32, version: Option<u64>, nanos: u64) -> bool {
        let mut versions = self.versions.range((key, 0)..=(key, usize::MAX));
        let outdoes = |other: u64| self.has_wrong_clocks || version.is_none_or(|version| other >= version);
        versions.any(|((_, other), highest)| *other != host && outdoes(*highest))
            || self.commands_open(key, nanos).next().is_some()
    }

    fn commands_open(&self, key: u32, nanos: u64) -> impl Iterator<Item = &Command> {
        let commands = self.commands.get(&key).map_or(&[][..], Vec::as_slice);
        commands.iter().filter(move |command| command.until > nanos)
    }

    /// A host was given a change that another node may carry out, or this one later: at any moment up to `until`.
    fn begin_command(&mut self, host: usize, verb: Verb, key: u32, deadline: u64, (now, until): (u64, u64)) {
        let commands = self.commands.entry(key).or_default();
        commands.retain(|command| command.until > now);
        commands.push(Command { host, verb, deadline, until });
    }

    /// A node was given a change that it may not have carried out yet.
    pub fn make_uncertain(&mut self, host: usize, verb: Verb, item: &Item, given: Stamp, deadline: u64) {
        self.contend(host, item.key, None);
        self.begin_command(host, verb, item.key, deadline, (given.nanos, u64::MAX));
        let slot = self.chunked_vec[host].entry(item.key).or_default();
        if matches!(verb, Verb::Set | Verb::SetEx) {
            slot.open.push(item.value);
            self.values[item.value].from = given;
        }
        slot.undecided += 1;
        slot.is_fuzzy = true;
        slot.since = None;
    }

    /// A node has carried out one argument of a change, now. `deadline` is when what it sets ends.
    pub fn apply(&mut self, host: usize, verb: Verb, item: &Item, now: Stamp, deadline: u64) {
        let is_set = matches!(verb, Verb::Set | Verb::SetEx);
        let version = self.values.get(item.value).and_then(|value| value.version);
        if is_set || verb == Verb::Del {
            self.contend(host, item.key, version);
        }
        let is_contended = is_set && self.is_contended(host, item.key, version, now.nanos);
        let is_here = matches!(self.local(host, item.key, now.nanos), Local::Here(..));
        let travels = verb == Verb::Del || verb == Verb::Expire && !is_here;
        if travels || is_set && version.is_none() {
            let until = now.nanos + COMMANDED_FOR;
            self.begin_command(host, verb, item.key, deadline, (now.nanos, until));
        }
        let slot = self.chunked_vec[host].entry(item.key).or_default();
        if slot.undecided > 0 {
            return self.perhaps(host, verb, item, now, deadline);
        }
        let values = &mut self.values;
        if is_here || is_set {
            slot.changed = now;
        }
        match verb {
            Verb::Set | Verb::SetEx => {
                slot.open.drain(..).for_each(|value| values[value].until = Some(now));
                slot.open.push(item.value);
                (values[item.value].from, values[item.value].deadline) = (now, deadline);
                slot.value = Some(item.value);
                slot.is_fuzzy = false;
                if !is_here || slot.since.is_none() {
                    (slot.since, slot.position) = (Some(now), self.heads[host]);
                }
            }
            Verb::Del => {
                slot.open.drain(..).for_each(|value| values[value].until = Some(now));
                *slot = Slot { changed: slot.changed, ..Slot::default() };
            }
            Verb::Expire => {
                for value in &slot.open {
                    let value = &mut values[*value];
                    if value.deadline > now.nanos {
                        if is_here {
                            value.set_deadline(deadline);
                        } else {
                            value.perhaps_deadline(deadline);
                        }
                    }
                }
            }
            Verb::Get | Verb::Ttl | Verb::Who | Verb::Append => {}
        }
        if is_contended {
            self.contended(host, item, now.nanos);
        }
        if verb == Verb::Expire && !is_here {
            self.perhaps_elsewhere(item.key, deadline);
        }
    }

    /// Notes that a value just set may be dropped, or may get the expiry of an earlier command.
    fn contended(&mut self, host: usize, item: &Item, nanos: u64) {
        if let Some(slot) = self.chunked_vec[host].get_mut(&item.key) {
            (slot.is_fuzzy, slot.since) = (true, None);
        }
        let expiries = self.commands_open(item.key, nanos).filter(|command| command.verb == Verb::Expire);
        let deadlines: Vec<u64> = expiries.map(|command| command.deadline).collect();
        for deadline in deadlines {
            self.values[item.value].perhaps_deadline(deadline.saturating_add(FORWARDED_FOR));
            self.values[item.value].smear(FORWARDED_FOR);
        }
    }

    /// A node that holds a key may set its expiry, now or soon.
    pub fn perhaps_elsewhere(&mut self, key: u32, deadline: u64) {
        for slot in self.chunked_vec.iter_mut().filter_map(|slots| slots.get_mut(&key)) {
            (slot.is_fuzzy, slot.since) = (true, None);
            for value in &slot.open {
                self.values[*value].perhaps_deadline(deadline.saturating_add(FORWARDED_FOR));
                self.values[*value].smear(FORWARDED_FOR);
            }
        }
    }

    /// A change that was undecided has been carried out some time up to now.
    pub fn reconcile(
        &mut self,
        host: usize,
        verb: Verb,
        item: &Item,
        (given, now): (Stamp, Stamp),
        deadline: u64,
    ) {
        self.perhaps(host, verb, item, given, deadline);
        if matches!(verb, Verb::SetEx | Verb::Expire) {
            for value in &self.chunked_vec[host].entry(item.key).or_default().open {
                self.values[*value].smear(now.nanos - given.nanos);
            }
        }
        let slot = self.chunked_vec[host].entry(item.key).or_default();
        slot.undecided = slot.undecided.saturating_sub(1);
        let commands = self.commands.get_mut(&item.key).into_iter().flatten();
        let mut same = commands
            .filter(|command| command.host == host && command.verb == verb && command.until == u64::MAX);
        same.next().into_iter().for_each(|command| command.until = now.nanos + COMMANDED_FOR);
    }

    fn perhaps(&mut self, host: usize, verb: Verb, item: &Item, from: Stamp, deadline: u64) {
        if matches!(verb, Verb::Set | Verb::SetEx | Verb::Del) {
            self.contend(host, item.key, None);
        }
        let slot = self.chunked_vec[host].entry(item.key).or_default();
        (slot.is_fuzzy, slot.since) = (true, None);
        match verb {
            Verb::Set | Verb::SetEx => {
                if !slot.open.contains(&item.value) {
                    slot.open.push(item.value);
                }
                let value = &mut self.values[item.value];
                value.from = from;
                // Another node may have had its expiry changed before this was known to be carried out.
                if value.past.is_empty() {
                    value.deadline = deadline;
                } else {
                    value.perhaps_deadline(deadline);
                }
                self.contended(host, item, from.nanos);
            }
            Verb::Expire => {
                for value in &slot.open {
                    self.values[*value].perhaps_deadline(deadline);
                }
                self.perhaps_elsewhere(item.key, deadline);
            }
            Verb::Del | Verb::Get | Verb::Ttl | Verb::Who | Verb::Append => {}
        }
    }

    /// A node has died, and with it all that it held.
    pub fn died(&mut self, host: usize, now: Stamp) {
        for command in self.commands.values_mut().flatten().filter(|command| command.host == host) {
            command.until = command.until.min(now.nanos + COMMANDED_FOR);
        }
        for slot in std::mem::take(&mut self.chunked_vec[host]).into_values() {
            for value in slot.open {
                self.values[value].until = Some(now);
            }
        }
    }
}
