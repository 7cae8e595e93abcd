//! The store as the oracle has it: for each key what it may hold, nearly always one thing.
//!
//! Nothing here expires: reading at a moment decides. A key has several possible states only after the
//! node closed a connection in the same call in which it may have carried out requests of it, so that
//! no reply shows which; the next reply about the key must agree with one of them, and decides.

use super::super::protocol::{Arg, Verb, show};
use olivia::base::wheel::HORIZON;
use std::collections::BTreeMap;

/// The first millisecond that no deadline can reach.
const HORIZON_MS: u64 = 1 << 48;

/// The value and expiry of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    value: Vec<u8>,
    /// On the monotonic clock.
    pub deadline_ms: Option<u64>,
}

type States = BTreeMap<Vec<u8>, Option<Entry>>;

/// All keys.
#[derive(Debug, Default)]
pub struct Model {
    keys: BTreeMap<Vec<u8>, Vec<Option<Entry>>>,
}

impl Model {
    /// Returns the possible entries of a key at a time; `None`: absent.
    pub fn candidates(&self, key: &[u8], now_ms: u64) -> Vec<Option<Entry>> {
        let mut candidates = self.keys.get(key).cloned().unwrap_or_else(|| vec![None]);
        for candidate in &mut candidates {
            *candidate = candidate.take().filter(|entry| entry.deadline_ms.is_none_or(|at| now_ms < at));
        }
        candidates.dedup();
        candidates
    }

    /// Every key that was ever set.
    pub fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.keys.keys()
    }

    /// Deadlines still ahead, of whatever may be there.
    pub fn deadlines_ms(&self, now_ms: u64) -> Vec<u64> {
        let entries = self.keys.values().flatten().flatten();
        // The timer of an expiry beyond the horizon of the wheel frees nothing.
        let wheel = now_ms + 1..HORIZON;
        entries.filter_map(|entry| entry.deadline_ms).filter(|at| wheel.contains(at)).collect()
    }

    /// The fewest and the most keys that may be there at a moment.
    pub fn count(&self, now_ms: u64) -> (usize, usize) {
        let mut count = (0, 0);
        for key in self.keys.keys() {
            let candidates = self.candidates(key, now_ms);
            count.0 += usize::from(candidates.iter().all(Option::is_some));
            count.1 += usize::from(candidates.iter().any(Option::is_some));
        }
        count
    }

    /// Whether `fields`, what stands behind the word of a reply, is right for a request that was carried
    /// out at this moment; then the request is carried out here too.
    pub fn accepts(&mut self, now_ms: u64, verb: Verb, args: &[Arg], fields: &[u8]) -> bool {
        let Some(chosen) = self.walk(now_ms, verb, (args, 0), fields, true, &States::new()) else {
            return false;
        };
        for (key, state) in chosen {
            // What would have looked the same is still possible.
            let args: Vec<&Arg> = args.iter().filter(|arg| arg.key == key).collect();
            let candidates = self.candidates(&key, now_ms);
            if candidates.len() == 1 {
                let state = args.iter().fold(state, |state, arg| after(now_ms, verb, arg, state));
                self.keys.insert(key, vec![state]);
                continue;
            }
            let (shown, _) = carry_out(now_ms, verb, &args, state);
            let candidates = candidates.into_iter();
            let candidates = candidates.map(|state| carry_out(now_ms, verb, &args, state));
            let mut states: Vec<_> =
                candidates.filter(|(other, _)| *other == shown).map(|(_, state)| state).collect();
            states.dedup();
            self.keys.insert(key, states);
        }
        true
    }

    /// The longest that the fields of the reply to a request may be at this moment.
    pub fn longest_reply(&self, now_ms: u64, verb: Verb, args: &[Arg]) -> usize {
        let lengths = args.iter().map(|arg| {
            let candidates = self.candidates(&arg.key, now_ms);
            let pieces = candidates.iter().filter_map(|state| piece(now_ms, verb, arg, state.as_ref()));
            pieces.map(|piece| piece.len() + 1).max().unwrap_or(0)
        });
        lengths.sum::<usize>().saturating_sub(1)
    }

    /// Notes that a request may or may not have been carried out at this moment.
    pub fn perhaps(&mut self, now_ms: u64, verb: Verb, args: &[Arg]) {
        for arg in args {
            let mut candidates = self.candidates(&arg.key, now_ms);
            for state in candidates.clone() {
                let after = after(now_ms, verb, arg, state);
                if !candidates.contains(&after) {
                    candidates.push(after);
                }
            }
            self.keys.insert(arg.key.clone(), candidates);
        }
    }

    /// Goes through the arguments, trying each possible state, until the fields are used up exactly.
    /// Gives what each key held before, in one way in which that is so.
    fn walk(
        &self,
        now_ms: u64,
        verb: Verb,
        (args, done): (&[Arg], usize),
        fields: &[u8],
        is_first: bool,
        states: &States,
    ) -> Option<States> {
        let (done, later) = args.split_at(done);
        let Some(arg) = later.first() else {
            return fields.is_empty().then(|| states.clone());
        };
        let candidates = match states.get(&arg.key) {
            Some(state) => vec![state.clone()],
            None => self.candidates(&arg.key, now_ms),
        };
        candidates.into_iter().find_map(|state| {
            let mut rest = fields;
            let mut is_first = is_first;
            let earlier: Vec<&Arg> = done.iter().filter(|other| other.key == arg.key).collect();
            let (_, current) = carry_out(now_ms, verb, &earlier, state.clone());
            if let Some(piece) = piece(now_ms, verb, arg, current.as_ref()) {
                rest = if is_first { rest } else { rest.strip_prefix(b",")? };
                rest = rest.strip_prefix(piece.as_slice())?;
                is_first = false;
            }
            let mut states = states.clone();
            states.insert(arg.key.clone(), state);
            self.walk(now_ms, verb, (args, done.len() + 1), rest, is_first, &states)
        })
    }
}

/// Carries out the arguments of a key one after the other; returns their parts of the reply and the entry after them.
fn carry_out(
    now_ms: u64,
    verb: Verb,
    args: &[&Arg],
    state: Option<Entry>,
) -> (Vec<Option<Vec<u8>>>, Option<Entry>) {
    let mut shown = Vec::new();
    let state = args.iter().fold(state, |state, arg| {
        shown.push(piece(now_ms, verb, arg, state.as_ref()));
        after(now_ms, verb, arg, state)
    });
    (shown, state)
}

/// Whether a deadline so many seconds ahead can be held at all.
pub fn can_hold(now_ms: u64, seconds: u64) -> bool {
    now_ms + seconds * 1_000 < HORIZON_MS
}

/// Returns the part of the reply for one argument.
fn piece(now_ms: u64, verb: Verb, arg: &Arg, state: Option<&Entry>) -> Option<Vec<u8>> {
    let mut piece = show(&arg.key, true);
    let mut add = |text: &[u8]| {
        piece.push(b':');
        piece.extend_from_slice(text);
    };
    match verb {
        Verb::Set | Verb::SetEx => add(&show(&arg.value, false)),
        Verb::Get => add(&show(&state?.value, false)),
        Verb::Who => state.map(|_| add(b"here"))?,
        Verb::Ttl => match state?.deadline_ms {
            None => add(b"never"),
            Some(at) => add((at - now_ms).div_ceil(1_000).to_string().as_bytes()),
        },
        Verb::Del | Verb::Expire => {
            state?;
        }
        Verb::Append => {
            let before = state.map_or(0, |entry| entry.value.len());
            add((before + arg.value.len()).to_string().as_bytes());
        }
    }
    if matches!(verb, Verb::SetEx | Verb::Expire) {
        add(arg.seconds.to_string().as_bytes());
    }
    Some(piece)
}

/// Returns the entry of a key after one argument was carried out.
fn after(now_ms: u64, verb: Verb, arg: &Arg, state: Option<Entry>) -> Option<Entry> {
    let deadline_ms = Some(now_ms + arg.seconds * 1_000);
    match verb {
        Verb::Get | Verb::Ttl | Verb::Who => state,
        Verb::Set => Some(Entry { value: arg.value.clone(), deadline_ms: None }),
        Verb::SetEx => Some(Entry { value: arg.value.clone(), deadline_ms }),
        Verb::Del => None,
        Verb::Expire => state.map(|entry| Entry { deadline_ms, ..entry }),
        Verb::Append => {
            let mut entry = state.unwrap_or(Entry { value: Vec::new(), deadline_ms: None });
            entry.value.extend_from_slice(&arg.value);
            Some(entry)
        }
    }
}
