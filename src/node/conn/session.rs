//! What a client sets for its connection: names, a transaction, watched keys, whether it is answered. Most clients
//! set nothing, and then there is no session.

use crate::base::time::Instant;
use crate::node::conn::replies::Place;
use crate::store::{Expiry, Version};
use crate::wire::args::OwnedArgs;

/// The settings of one connection.
#[derive(Debug, Default)]
pub(in crate::node) struct Session {
    /// By CLIENT SETNAME.
    pub(in crate::node) name: Box<[u8]>,
    /// By CLIENT SETINFO: the client's library and its version.
    pub(in crate::node) library: [Box<[u8]>; 2],
    /// Between MULTI and EXEC.
    pub(in crate::node) transaction: Option<Transaction>,
    /// Keys whose change ends the next transaction, by the WATCH that named them.
    pub(in crate::node) watched: Vec<Watched>,
    pub(in crate::node) answers: Answers,
    /// Wrong passwords so far.
    pub(in crate::node) failures: u32,
    /// When a wrong password is answered at once again.
    pub(in crate::node) answered_from: Option<Instant>,
    /// The answer to a wrong password, which is given later. Until then no request is read.
    pub(in crate::node) refusal: Option<Refusal>,
}

/// Requests that EXEC carries out.
#[derive(Debug, Default)]
pub(in crate::node) struct Transaction {
    /// Each with its command's name.
    pub(in crate::node) requests: Vec<OwnedArgs>,
    /// What they cost together, in keys.
    pub(in crate::node) cost: usize,
    /// Bytes of memory of the requests.
    pub(in crate::node) bytes: usize,
    /// One of them was refused, so EXEC carries out none.
    pub(in crate::node) is_broken: bool,
}

/// What a write of a key changes; `None` where there is no such key.
pub(in crate::node) type KeyState = Option<(Version, Option<Expiry>)>;

/// The keys of one WATCH, each as it was.
#[derive(Debug)]
pub(in crate::node) struct Watched {
    pub(in crate::node) keys: OwnedArgs,
    pub(in crate::node) states: Box<[KeyState]>,
}

/// Whether requests are answered, by CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::node) enum Answers {
    #[default]
    All,
    AllButNext,
    None,
}

/// A reply that waits for its time.
#[derive(Debug)]
pub(in crate::node) struct Refusal {
    pub(in crate::node) place: Place,
    pub(in crate::node) reply: Vec<u8>,
    /// A tick of the timers.
    pub(in crate::node) due: u64,
}

impl Session {
    /// Whether each request has to pass by the session.
    pub(in crate::node) fn intercepts(&self) -> bool {
        self.transaction.is_some() || self.answers != Answers::All
    }

    /// Keys that are watched.
    pub(in crate::node) fn watched_keys(&self) -> usize {
        self.watched.iter().map(|watched| watched.states.len()).sum()
    }

    /// Bytes of memory.
    pub(in crate::node) fn held(&self) -> usize {
        let names = self.name.len() + self.library.iter().map(|text| text.len()).sum::<usize>();
        let transaction = self.transaction.as_ref().map_or(0, |transaction| transaction.bytes);
        let watched = self.watched.iter().map(|watched| watched.keys.held() + size_of_val(&*watched.states));
        size_of::<Self>() + names + transaction + watched.sum::<usize>()
    }
}
