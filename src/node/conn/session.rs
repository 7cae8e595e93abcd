//! The settings of a client for its connection: names, a transaction, watched keys, which requests are answered. Most
//! clients set none, and have no session.

use crate::base::buffer::Pool;
use crate::base::time::Instant;
use crate::limits::{LOGIN_DELAY_MS, LOGIN_FAILURES_MAX};
use crate::node::conn::replies::SlotNumber;
use crate::store::{Expiry, Version};
use crate::wire::args::{Args, OwnedArgs, RequestList};
use std::time::Duration;

/// The settings of one connection.
#[derive(Debug, Default)]
pub(in crate::node) struct Session {
    name: Box<[u8]>,
    library: [Box<[u8]>; 2],
    transaction: Option<Transaction>,
    /// One entry per WATCH.
    watched: Vec<Watched>,
    answers: Answers,
    /// Wrong passwords so far.
    failures: u32,
    /// The earliest time of the answer to the next wrong password.
    answered_from: Option<Instant>,
    refusal: Option<Refusal>,
}

/// Requests that EXEC carries out.
#[derive(Debug, Default)]
pub(in crate::node) struct Transaction {
    /// Each with its command's name.
    requests: RequestList,
    /// Their total cost, in keys.
    cost: usize,
    is_broken: bool,
}

/// The part of a key's state that every write changes; `None` if there is no such key.
pub(in crate::node) type KeyState = Option<(Version, Option<Expiry>)>;

/// The keys of one WATCH, each with its state then.
#[derive(Debug)]
struct Watched {
    keys: OwnedArgs,
    states: Box<[KeyState]>,
}

/// Watched keys with their states: a change of one makes the next transaction fail.
#[derive(Debug, Default)]
pub(in crate::node) struct WatchedKeys(Vec<Watched>);

/// Which requests are answered, as set by CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::node) enum Answers {
    #[default]
    All,
    AllButNext,
    None,
}

/// The delayed answer to a wrong password. Until it is sent no request is read.
#[derive(Debug)]
pub(in crate::node) struct Refusal {
    pub(in crate::node) slot: SlotNumber,
    pub(in crate::node) reply: Vec<u8>,
    /// A tick of the timers.
    pub(in crate::node) due: u64,
}

impl Session {
    /// The name, as set by CLIENT SETNAME; empty: none.
    pub(in crate::node) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(in crate::node) fn set_name(&mut self, name: &[u8]) {
        self.name = name.into();
    }

    /// The name and the version of the client's library, as set by CLIENT SETINFO.
    pub(in crate::node) fn library(&self) -> [&[u8]; 2] {
        self.library.each_ref().map(|text| &**text)
    }

    pub(in crate::node) fn set_library_name(&mut self, name: &[u8]) {
        self.library[0] = name.into();
    }

    pub(in crate::node) fn set_library_version(&mut self, version: &[u8]) {
        self.library[1] = version.into();
    }

    /// Which requests are answered.
    pub(in crate::node) const fn answers(&self) -> Answers {
        self.answers
    }

    pub(in crate::node) const fn set_answers(&mut self, answers: Answers) {
        self.answers = answers;
    }

    /// Whether the next request is answered; CLIENT REPLY SKIP ends with it.
    pub(in crate::node) fn answers_next(&mut self) -> bool {
        match self.answers {
            Answers::All => true,
            Answers::None => false,
            Answers::AllButNext => {
                self.answers = Answers::All;
                false
            }
        }
    }

    /// Whether each request has to pass through the session.
    pub(in crate::node) fn intercepts(&self) -> bool {
        self.transaction.is_some() || self.answers != Answers::All
    }

    /// Begins a transaction.
    pub(in crate::node) fn begin_transaction(&mut self) {
        self.transaction = Some(Transaction::default());
    }

    /// The transaction between MULTI and EXEC, if there is one.
    pub(in crate::node) const fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// The same, to add a request.
    pub(in crate::node) const fn transaction_mut(&mut self) -> Option<&mut Transaction> {
        self.transaction.as_mut()
    }

    /// Ends the transaction; returns its requests.
    pub(in crate::node) fn end_transaction(&mut self) -> RequestList {
        self.transaction.take().map(|transaction| transaction.requests).unwrap_or_default()
    }

    /// Watches the keys of one WATCH, with their present states.
    pub(in crate::node) fn watch(&mut self, keys: OwnedArgs, states: Vec<KeyState>) {
        self.watched.push(Watched { keys, states: states.into() });
    }

    /// Ends all watches; returns the watched keys.
    pub(in crate::node) fn unwatch(&mut self) -> WatchedKeys {
        WatchedKeys(std::mem::take(&mut self.watched))
    }

    /// Keys that are watched.
    pub(in crate::node) fn watched_keys(&self) -> usize {
        self.watched.iter().map(|watched| watched.states.len()).sum()
    }

    /// Counts a wrong password; returns their number.
    pub(in crate::node) const fn login_failed(&mut self) -> u32 {
        self.failures += 1;
        self.failures
    }

    /// Clears the count of wrong passwords.
    pub(in crate::node) const fn login_succeeded(&mut self) {
        (self.failures, self.answered_from) = (0, None);
    }

    /// Whether the connection is closed for its wrong passwords.
    pub(in crate::node) const fn has_failed_too_often(&self) -> bool {
        self.failures >= LOGIN_FAILURES_MAX
    }

    /// When the wrong password that was received now is answered: [`LOGIN_DELAY_MS`] after the one before it.
    pub(in crate::node) fn answer_from(&mut self, now: Instant) -> Instant {
        let due = self.answered_from.unwrap_or(Instant::ZERO).max(now);
        self.answered_from = Some(due.after(Duration::from_millis(LOGIN_DELAY_MS)));
        due
    }

    /// The tick at which the answer to a wrong password is due, if one is delayed.
    pub(in crate::node) fn refusal_due(&self) -> Option<u64> {
        self.refusal.as_ref().map(|refusal| refusal.due)
    }

    pub(super) fn hold_refusal(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
    }

    pub(super) fn take_refusal(&mut self, due: u64) -> Option<Refusal> {
        self.refusal.take_if(|refusal| refusal.due == due)
    }

    /// The part that a reset of the connection keeps: the count of wrong passwords.
    pub(super) fn failures_only(&self) -> Option<Self> {
        let (failures, answered_from) = (self.failures, self.answered_from);
        (failures > 0).then(|| Self { failures, answered_from, ..Self::default() })
    }

    /// Bytes of memory.
    pub(in crate::node) fn held(&self) -> usize {
        let names = self.name.len() + self.library.iter().map(|text| text.len()).sum::<usize>();
        let transaction = self.transaction.as_ref().map_or(0, Transaction::bytes);
        let watched = self.watched.iter().map(|watched| watched.keys.held() + size_of_val(&*watched.states));
        let refusal = self.refusal.as_ref().map_or(0, |refusal| refusal.reply.capacity());
        size_of::<Self>() + names + transaction + watched.sum::<usize>() + refusal
    }
}

impl Transaction {
    /// Adds a request with its cost in keys; false if the system has no memory for it.
    pub(in crate::node) fn add(&mut self, request: Args<'_>, cost: usize, pool: &mut Pool) -> bool {
        self.cost += cost;
        self.requests.push(request, pool)
    }

    /// The cost of the requests, in keys.
    pub(in crate::node) const fn cost(&self) -> usize {
        self.cost
    }

    /// Drops the requests and makes EXEC carry out nothing, since one was refused.
    pub(in crate::node) fn break_off(&mut self) {
        *self = Self { is_broken: true, ..Self::default() };
    }

    /// Whether a request was refused.
    pub(in crate::node) const fn is_broken(&self) -> bool {
        self.is_broken
    }

    pub(in crate::node) const fn requests(&self) -> &RequestList {
        &self.requests
    }

    /// Bytes of memory of the requests.
    pub(in crate::node) const fn bytes(&self) -> usize {
        self.requests.held()
    }
}

impl WatchedKeys {
    /// Each key with the state that it was in.
    pub(in crate::node) fn iter(&self) -> impl Iterator<Item = (&[u8], KeyState)> {
        self.0.iter().flat_map(|watched| watched.keys.args().iter().zip(watched.states.iter().copied()))
    }
}
