//! The settings of a client for its connection: names, a transaction, watched keys, which requests are answered. Most
//! clients set none, and have no session.

use crate::base::buffer::{OutOfMemory, Pool};
use crate::base::time::Instant;
use crate::limits::{LOGIN_DELAY_MS, LOGIN_FAILURES_MAX};
use crate::node::conn::replies::SlotNumber;
use crate::store::{Expiry, Version};
use crate::wire::args::Args;
use crate::wire::owned_args::{OwnedArgs, RequestList};
use std::time::Duration;

/// The settings of one connection.
#[derive(Debug, Default)]
pub(in crate::node) struct Session {
    /// By [`Text`], if any is set.
    texts: Option<OwnedArgs>,
    transaction: Option<Transaction>,
    watched: WatchedKeys,
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

/// Watched keys, each with the bytes of its state then: a change of one makes the next transaction fail.
#[derive(Debug, Default)]
pub(in crate::node) struct WatchedKeys(RequestList);

/// A text that a client has set for its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Text {
    /// By CLIENT SETNAME.
    Name,
    /// By CLIENT SETINFO: the name of its library.
    LibraryName,
    /// The version of its library.
    LibraryVersion,
}

impl Text {
    const ALL: [Self; 3] = [Self::Name, Self::LibraryName, Self::LibraryVersion];
}

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
    /// A text; empty: none.
    pub(in crate::node) fn text(&self, text: Text) -> &[u8] {
        self.texts.as_ref().and_then(|texts| texts.args().get(text as usize)).unwrap_or_default()
    }

    /// Sets a text.
    ///
    /// # Errors
    /// [`OutOfMemory`] if the system has no memory for it; nothing is changed then.
    pub(in crate::node) fn set_text(&mut self, text: Text, bytes: &[u8]) -> Result<(), OutOfMemory> {
        let texts = Text::ALL.iter().map(|of| if *of == text { bytes } else { self.text(*of) });
        self.texts = Some(OwnedArgs::of(texts).ok_or(OutOfMemory)?);
        Ok(())
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

    /// Watches a key with its present state.
    ///
    /// # Errors
    /// [`OutOfMemory`] if the system has no memory for it.
    pub(in crate::node) fn watch(
        &mut self,
        key: &[u8],
        state: KeyState,
        pool: &mut Pool,
    ) -> Result<(), OutOfMemory> {
        self.watched.0.push([key, &state_bytes(state)].into_iter(), pool)
    }

    /// Ends all watches; returns the watched keys.
    pub(in crate::node) fn unwatch(&mut self) -> WatchedKeys {
        std::mem::take(&mut self.watched)
    }

    /// Keys that are watched.
    pub(in crate::node) const fn watched_keys(&self) -> usize {
        self.watched.0.len()
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
        let texts = self.texts.as_ref().map_or(0, OwnedArgs::held);
        let transaction = self.transaction.as_ref().map_or(0, Transaction::bytes);
        let refusal = self.refusal.as_ref().map_or(0, |refusal| refusal.reply.capacity());
        size_of::<Self>() + texts + transaction + self.watched.0.held() + refusal
    }
}

impl Transaction {
    /// Adds a request with its cost in keys.
    ///
    /// # Errors
    /// [`OutOfMemory`] if the system has no memory for it: the transaction must be broken off.
    pub(in crate::node) fn add(
        &mut self,
        request: Args<'_>,
        cost: usize,
        pool: &mut Pool,
    ) -> Result<(), OutOfMemory> {
        self.cost += cost;
        self.requests.push(request.iter(), pool)
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
    /// Each key, with whether this is the state that it was in.
    pub(in crate::node) fn iter(&self) -> impl Iterator<Item = (&[u8], impl Fn(KeyState) -> bool)> {
        self.0.iter().filter_map(|watched| {
            let (key, was) = (watched.get(0)?, watched.get(1)?);
            Some((key, move |state| *was == state_bytes(state)))
        })
    }
}

/// A state as bytes: the version and the expiry, all zero for a key that does not exist.
fn state_bytes(state: KeyState) -> [u8; 16] {
    let mut bytes = [0; 16];
    if let Some((version, expiry)) = state {
        bytes[..8].copy_from_slice(&version.0.to_le_bytes());
        // No expiry is at the end of time.
        let expiry = expiry.map_or(u64::MAX, Expiry::millis);
        bytes[8..].copy_from_slice(&expiry.to_le_bytes());
    }
    bytes
}
