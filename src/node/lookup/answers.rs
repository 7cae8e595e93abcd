//! The results for the keys of a pending request: one byte per key, since requests can have many keys and replies can
//! wait long, and an entry for each key that was found on another node.

use crate::base::shared_bytes::SharedBytes;
use crate::node::lookup::forwarded::Failure;
use crate::store::Expiry;
use std::collections::BTreeMap;

/// The result for one key of a pending request.
#[derive(Debug)]
pub(in crate::node) enum Answer {
    Waiting,
    Missing,
    /// The key is on this node. It is read, without a copy, when the long reply is written. Later requests of the
    /// connection wait until then, so that they cannot change it.
    Here,
    /// The value, if requested, and its expiry. The waiters of a lookup share the value.
    Found {
        value: SharedBytes,
        until: Option<Expiry>,
    },
    /// The values of the reply of the command that was carried out for this key.
    Reply(SharedBytes),
    /// The same if the reply is an error.
    Error(SharedBytes),
    /// The command was not carried out, or its outcome is unknown.
    Failed(Failure),
}

impl Answer {
    /// Bytes of its value or reply.
    pub(in crate::node) const fn bytes(&self) -> usize {
        match self {
            Self::Found { value: bytes, .. } | Self::Reply(bytes) | Self::Error(bytes) => bytes.len(),
            Self::Waiting | Self::Missing | Self::Here | Self::Failed(_) => 0,
        }
    }
}

/// The kind of the answer for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Waiting,
    Missing,
    Here,
    /// The answer has an entry in `others`.
    Other,
}

/// Bytes of memory of an entry, without its value.
const BYTES_PER_ENTRY: usize = size_of::<(usize, Answer)>();

/// The results for all keys of a request.
#[derive(Debug)]
pub(in crate::node) struct Answers {
    kinds: Vec<Kind>,
    others: BTreeMap<usize, Answer>,
}

impl Answers {
    /// Answers for this many keys, all unknown.
    pub(in crate::node) fn new(keys: usize) -> Self {
        Self { kinds: vec![Kind::Waiting; keys], others: BTreeMap::new() }
    }

    /// The number of keys.
    pub(in crate::node) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Bytes of memory, without values.
    pub(in crate::node) fn held(&self) -> usize {
        self.kinds.len() + self.others.len() * BYTES_PER_ENTRY
    }

    /// The answer for a key; `None` if there is no such key.
    pub(in crate::node) fn get(&self, part: usize) -> Option<&Answer> {
        match self.kinds.get(part)? {
            Kind::Waiting => Some(&Answer::Waiting),
            Kind::Missing => Some(&Answer::Missing),
            Kind::Here => Some(&Answer::Here),
            Kind::Other => self.others.get(&part),
        }
    }

    /// The answers for all keys.
    pub(in crate::node) fn iter(&self) -> impl Iterator<Item = &Answer> {
        (0..self.len()).filter_map(|part| self.get(part))
    }

    /// Stores the answer for a key that has none.
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

    /// Drops the values; returns their bytes.
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
