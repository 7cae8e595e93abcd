//! What waits for other nodes: lookups of keys, and the requests of clients that wait for them.
//!
//! A *lookup* is one key that peers are asked for, whoever wants to know. An *ask* is one request of a
//! client, in its place in that connection's order; each key of it that is not here is a part that waits
//! for a lookup. Equal lookups in flight are one, with several waiters, until these are many, or the key is
//! changed on this node: from then on they take no new ones. Who is asked, and when, is decided in [`crate::node::lookup::remote`].

use crate::base::slots::Slots;
use crate::base::time::Instant;
use crate::limits::WAITERS_PER_LOOKUP_MAX;
use crate::node::conn::replies::Place;
use crate::node::ids::{ConnKey, LookupKey, LookupTag, PeerKey, PendingKey, PendingTag};
use crate::store::KeyHash;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// What is wanted of a key. A life alone is not sent its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::node) enum Wanted {
    Value,
    Life,
}

/// Who waits for a lookup: a part of an ask.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Waiter {
    pub(in crate::node) ask: PendingKey,
    pub(in crate::node) part: usize,
}

/// A peer that was asked, or is to be asked as soon as it has a place free.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Asked {
    pub(in crate::node) peer: PeerKey,
    /// The number of the question; `None` while it waits for a place.
    pub(in crate::node) request: Option<u32>,
    /// By its filter's claim, or because its filter is not known.
    pub(in crate::node) because: QueryReason,
}

/// Why a peer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum QueryReason {
    Claimed,
    Unknown,
}

/// One key that peers are asked for.
#[derive(Debug)]
pub(in crate::node) struct Lookup {
    pub(in crate::node) key: Box<[u8]>,
    pub(in crate::node) hash: KeyHash,
    pub(in crate::node) wanted: Wanted,
    pub(in crate::node) waiters: Vec<Waiter>,
    /// Claimants still to be asked, the next one last.
    pub(in crate::node) candidates: Vec<PeerKey>,
    /// Whose answer is outstanding.
    pub(in crate::node) asked: Vec<Asked>,
    /// Who said no.
    pub(in crate::node) refused: Vec<PeerKey>,
    /// The end of the time for all of it.
    pub(in crate::node) ends_at: Instant,
    /// The next candidate's turn, if one is being waited for.
    tries_at: Option<Instant>,
}

impl Lookup {
    /// A lookup that has asked nobody yet, for one that waits for it.
    pub(in crate::node) fn new(
        key: &[u8],
        hash: KeyHash,
        wanted: Wanted,
        waiter: Waiter,
        ends_at: Instant,
    ) -> Self {
        Self {
            key: key.into(),
            hash,
            wanted,
            waiters: vec![waiter],
            candidates: Vec::new(),
            asked: Vec::new(),
            refused: Vec::new(),
            ends_at,
            tries_at: None,
        }
    }

    /// Whether a peer has been asked, with whatever answer so far.
    pub(in crate::node) fn has_asked(&self, peer: PeerKey) -> bool {
        self.refused.contains(&peer) || self.asked.iter().any(|asked| asked.peer == peer)
    }
}

/// What became of one key of an ask.
#[derive(Debug)]
pub(in crate::node) enum Answer {
    Waiting,
    Missing,
    /// There, with its value if that was wanted, until the moment at which its life ends. Who waited for one
    /// lookup shares the value.
    Found {
        value: Rc<[u8]>,
        until: Option<Instant>,
    },
}

/// One key of an ask.
#[derive(Debug)]
pub(in crate::node) struct Part {
    pub(in crate::node) key: Box<[u8]>,
    pub(in crate::node) answer: Answer,
}

impl Part {
    /// Bytes of memory that a part takes beside its key and value.
    pub(in crate::node) const BYTES: usize = size_of::<Self>() + size_of::<Waiter>();
}

/// A request of a client that waits for lookups.
#[derive(Debug)]
pub(in crate::node) struct PendingRequest {
    pub(in crate::node) conn: ConnKey,
    pub(in crate::node) place: Place,
    pub(in crate::node) id: Box<[u8]>,
    pub(in crate::node) wanted: Wanted,
    pub(in crate::node) parts: Vec<Part>,
    /// Parts that wait.
    pub(in crate::node) waiting: usize,
    /// Bytes of keys and values held in `parts`.
    pub(in crate::node) bytes: usize,
    /// The values have passed what one reply may hold, and are kept no longer.
    pub(in crate::node) is_too_long: bool,
}

impl PendingRequest {
    /// Whether its reply shows values, as far as can be told now.
    pub(in crate::node) fn keeps_values(&self) -> bool {
        self.wanted == Wanted::Value && !self.is_too_long
    }

    /// Puts the answer to one key. Once the values are too long for one reply of `bytes_max`, none is kept.
    pub(in crate::node) fn answer(&mut self, part: usize, mut answer: Answer, bytes_max: usize) {
        if let Answer::Found { value, .. } = &mut answer {
            if self.is_too_long {
                *value = Rc::default();
            }
            self.bytes += value.len();
        }
        let Some(part) = self.parts.get_mut(part) else { return };
        part.answer = answer;
        if self.bytes > bytes_max && !self.is_too_long {
            self.is_too_long = true;
            for part in &mut self.parts {
                if let Answer::Found { value, .. } = &mut part.answer {
                    self.bytes -= std::mem::take(value).len();
                }
            }
        }
    }
}

/// What is to be done about a lookup at some moment, if it is still there then. At the same moment in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::node) enum Due {
    /// It is the next candidate's turn.
    Try,
    /// Its time is over.
    End,
}

/// All that waits for other nodes.
#[derive(Debug, Default)]
pub(in crate::node) struct Lookups {
    pub(in crate::node) slots: Slots<LookupTag, Lookup>,
    pub(in crate::node) pending: Slots<PendingTag, PendingRequest>,
    /// Those of which every part is answered, and whose reply is to be written.
    pub(in crate::node) whole: VecDeque<PendingKey>,
    /// Lookups that wait for nobody, since they have lost a peer whom they had asked, or have yet to ask the
    /// first: they go on with the next.
    pub(in crate::node) orphans: VecDeque<LookupKey>,
    /// Peers that are not asked more, though lookups stand in their queues: those go on elsewhere.
    pub(in crate::node) silent: VecDeque<PeerKey>,
    /// Questions so far, those included that wait for a place: what each call is bounded by.
    pub(in crate::node) asked: u64,
    /// Those that take new waiters.
    open: BTreeMap<(KeyHash, Wanted), LookupKey>,
    /// What is to be done when: two entries for each lookup at most, which go with it. By the bits of its key.
    due: BTreeSet<(Instant, Due, u64)>,
    /// The tick of the one live timer of all this.
    pub(in crate::node) timer_at: Option<u64>,
}

impl Lookups {
    /// Whether [`fail_over`](super::remote::fail_over) has something to do.
    pub(in crate::node) fn has_work(&self) -> bool {
        !self.whole.is_empty() || !self.orphans.is_empty() || !self.silent.is_empty()
    }

    /// How many questions there were since `asked`.
    pub(in crate::node) fn asked_since(&self, asked: u64) -> usize {
        usize::try_from(self.asked - asked).unwrap_or(usize::MAX)
    }

    /// Whether `keys` more lookups may begin where there may be `lookups_max`.
    pub(in crate::node) fn has_room(&self, keys: usize, lookups_max: usize) -> bool {
        self.slots.len() + keys <= lookups_max
    }

    /// A lookup in flight of just this that still takes waiters. O(log lookups).
    pub(in crate::node) fn find_open(&self, key: &[u8], hash: KeyHash, wanted: Wanted) -> Option<LookupKey> {
        // A value tells the life too.
        let both = [Wanted::Value, wanted];
        let open = both.iter().filter_map(|wanted| self.open.get(&(hash, *wanted)).copied());
        let takes = |lookup: &Lookup| *lookup.key == *key && lookup.waiters.len() < WAITERS_PER_LOOKUP_MAX;
        open.into_iter().find(|found| self.slots.get(*found).is_some_and(takes))
    }

    /// Adds a lookup and lets it take waiters.
    pub(in crate::node) fn insert(&mut self, lookup: Lookup) -> LookupKey {
        let at = (lookup.hash, lookup.wanted);
        let ends_at = lookup.ends_at;
        let key = self.slots.insert(lookup);
        self.due.insert((ends_at, Due::End, key.to_bits()));
        self.open.insert(at, key);
        key
    }

    /// Takes a lookup out.
    pub(in crate::node) fn remove(&mut self, key: LookupKey) -> Option<Lookup> {
        let lookup = self.slots.remove(key)?;
        self.close(key, lookup.hash, lookup.wanted);
        self.due.remove(&(lookup.ends_at, Due::End, key.to_bits()));
        if let Some(at) = lookup.tries_at {
            self.due.remove(&(at, Due::Try, key.to_bits()));
        }
        if self.slots.is_empty() {
            self.slots.shrink();
        }
        Some(lookup)
    }

    /// The key with this hash has changed here: who asks from now on must not get an older answer.
    pub(in crate::node) fn changed(&mut self, hash: KeyHash) {
        for wanted in [Wanted::Value, Wanted::Life] {
            self.open.remove(&(hash, wanted));
        }
    }

    fn close(&mut self, key: LookupKey, hash: KeyHash, wanted: Wanted) {
        if self.open.get(&(hash, wanted)) == Some(&key) {
            self.open.remove(&(hash, wanted));
        }
    }

    /// Makes it the next candidate's turn at a moment. O(log lookups), as what follows.
    pub(in crate::node) fn try_at(&mut self, key: LookupKey, at: Instant) {
        let Some(lookup) = self.slots.get_mut(key) else { return };
        if let Some(before) = lookup.tries_at.replace(at) {
            self.due.remove(&(before, Due::Try, key.to_bits()));
        }
        self.due.insert((at, Due::Try, key.to_bits()));
    }

    /// When something has to be done next.
    pub(in crate::node) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// Takes out what has to be done by now, the oldest first.
    pub(in crate::node) fn pop_due(&mut self, now: Instant) -> Option<(Due, LookupKey)> {
        let (at, due, bits) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        let key = LookupKey::from_bits(bits)?;
        if let Some(lookup) = self.slots.get_mut(key).filter(|_| due == Due::Try) {
            lookup.tries_at = None;
        }
        Some((due, key))
    }

    /// Whether there is nothing to be done about lookups that have ended, and an end for each that has not.
    pub(in crate::node) fn due_adds_up(&self) -> bool {
        let tries = self.slots.iter().filter(|(_, lookup)| lookup.tries_at.is_some()).count();
        self.due.len() == self.slots.len() + tries
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Part, PendingRequest, Wanted};
    use crate::base::slots::Slots;
    use crate::node::conn::replies::Replies;
    use std::rc::Rc;

    #[test]
    fn values_that_are_too_long_together_are_kept_no_longer_and_those_behind_them_not_at_all() {
        let parts = (0..4).map(|_| Part { key: Box::default(), answer: Answer::Waiting }).collect();
        let (conn, place) = (Slots::new().insert(()), Replies::default().hold());
        let mut ask = PendingRequest {
            conn,
            place,
            id: Box::default(),
            wanted: Wanted::Value,
            parts,
            waiting: 4,
            bytes: 3,
            is_too_long: false,
        };
        let value: Rc<[u8]> = Rc::from([b'x'; 40]);
        let kept: Vec<(bool, usize, usize)> = (0..4)
            .map(|part| {
                ask.answer(part, Answer::Found { value: Rc::clone(&value), until: None }, 100);
                (ask.keeps_values(), ask.bytes, Rc::strong_count(&value) - 1)
            })
            .collect();
        assert_eq!(kept, [(true, 43, 1), (true, 83, 2), (false, 3, 0), (false, 3, 0)]);
    }
}
