//! The results for the keys of a pending request: a byte for each key, since a request may be of many keys and its reply
//! may wait for long to be read, and beside it what was found elsewhere.

use crate::base::shared_bytes::SharedBytes;
use crate::node::lookup::forwarded::Failure;
use crate::store::Expiry;
use std::collections::BTreeMap;

/// The result for one key of a pending request.
#[derive(Debug)]
pub(in crate::node) enum Answer {
    Waiting,
    Missing,
    /// The key is on this node. It is read when the reply, which is long, is written, and nothing is copied
    /// before; later requests of the connection wait until then, so none can change what this one reads.
    Here,
    /// The value, if it is wanted, and when it expires. The waiters of one lookup share the value.
    Found {
        value: SharedBytes,
        until: Option<Expiry>,
    },
    /// The reply of the command that was carried out for this key, without what begins and ends it.
    Reply(SharedBytes),
    /// The same, an error.
    Error(SharedBytes),
    /// It was not carried out, or that is not known.
    Failed(Failure),
}

/// What kind of an answer there is to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Waiting,
    Missing,
    Here,
    /// It has an entry among the others.
    Other,
}

/// Bytes of memory of an answer with an entry of its own, apart from its value.
const BYTES_PER_ENTRY: usize = size_of::<(usize, Answer)>();

/// The results for all keys of a request.
#[derive(Debug)]
pub(in crate::node) struct Answers {
    kinds: Vec<Kind>,
    others: BTreeMap<usize, Answer>,
}

impl Answers {
    /// Those to so many keys, none of which is known.
    pub(in crate::node) fn new(keys: usize) -> Self {
        Self { kinds: vec![Kind::Waiting; keys], others: BTreeMap::new() }
    }

    /// How many keys there are.
    pub(in crate::node) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Bytes of memory, apart from values.
    pub(in crate::node) fn held(&self) -> usize {
        self.kinds.len() + self.others.len() * BYTES_PER_ENTRY
    }

    /// The answer to one key; `None` if there is no such key.
    pub(in crate::node) fn get(&self, part: usize) -> Option<&Answer> {
        match self.kinds.get(part)? {
            Kind::Waiting => Some(&Answer::Waiting),
            Kind::Missing => Some(&Answer::Missing),
            Kind::Here => Some(&Answer::Here),
            Kind::Other => self.others.get(&part),
        }
    }

    /// The answer to each key.
    pub(in crate::node) fn iter(&self) -> impl Iterator<Item = &Answer> {
        (0..self.len()).filter_map(|part| self.get(part))
    }

    /// Stores the answer to a key that has none.
    pub(in crate::node) fn put(&mut self, part: usize, answer: Answer) {
        let Some(kind) = self.kinds.get_mut(part) else { return };
        *kind = match answer {
            Answer::Waiting => Kind::Waiting,
            Answer::Missing => Kind::Missing,
            Answer::Here => Kind::Here,
            Answer::Found { .. } | Answer::Reply(_) | Answer::Error(_) | Answer::Failed(_) => {
                self.others.insert(part, answer);
                Kind::Other
            }
        };
    }

    /// Drops the value or the reply of a key, which is then written otherwise; how many bytes it was.
    pub(in crate::node) fn take(&mut self, part: usize) -> usize {
        match self.others.get_mut(&part) {
            Some(Answer::Found { value: bytes, .. } | Answer::Reply(bytes)) => std::mem::take(bytes).len(),
            Some(Answer::Waiting | Answer::Missing | Answer::Here | Answer::Error(_) | Answer::Failed(_))
            | None => 0,
        }
    }

    /// Keys for which the request failed.
    pub(in crate::node) fn failures(&self) -> usize {
        self.others.values().filter(|answer| matches!(answer, Answer::Error(_) | Answer::Failed(_))).count()
    }

    /// Drops the values; how many bytes they were.
    pub(in crate::node) fn drop_values(&mut self) -> usize {
        let values = self.others.values_mut().filter_map(|answer| match answer {
            Answer::Found { value, .. } => Some(std::mem::take(value).len()),
            Answer::Waiting
            | Answer::Missing
            | Answer::Here
            | Answer::Reply(_)
            | Answer::Error(_)
            | Answer::Failed(_) => None,
        });
        values.sum()
    }
}
