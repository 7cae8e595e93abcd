//! Scheduling: the classes of work and their shares of an iteration of the event loop.
//!
//! The shell has the clock. For each [`Class`] in order it reads sockets and calls [`Node::step`](super::Node::step)
//! until the class's share of the iteration is used or the class has no work; unused time passes on to the next
//! class. So frames of peers are read first, and no class can starve another. Within a class connections are served
//! round robin by cost: of keys, of bytes in and out, and of the work that requests cause ([`Account`]). The work of
//! each class is listed in [`super::sources`].

use crate::limits::{BYTES_PER_STEP, KEYS_PER_STEP};
use crate::node::ids::ConnKey;
use std::collections::VecDeque;
use std::time::Duration;

/// A class of work with its own share, in the order in which an iteration serves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Input of links and of dialled connections.
    Links,
    /// Input of clients.
    Clients,
    /// Background work: timers, expiry, digests, filters, failover, tasks.
    Due,
}

/// The time within an iteration until which links are served. Longer while links leave input unread ([`Shares`]).
/// Unused time passes on to clients, then to output.
const LINKS_UNTIL: Duration = Duration::from_micros(400);
/// The time within an iteration until which clients are served.
const CLIENTS_UNTIL: Duration = Duration::from_micros(800);
/// The time within an iteration until which unwritten output of the last iteration is written, before clients are
/// served.
pub const BACKLOG_UNTIL: Duration = Duration::from_micros(700);
/// The time of links and left-over output after which events are taken again before clients are served.
pub const EVENTS_AGAIN_AFTER: Duration = Duration::from_micros(200);
/// The time within an iteration until which output is written.
pub const OUTPUT_UNTIL: Duration = Duration::from_micros(1_100);

/// The latest time until which links are served.
const LINKS_UNTIL_MAX: Duration = Duration::from_micros(900);
/// The least time that clients have, however long links and the output of the last iteration took.
const CLIENTS_MIN: Duration = Duration::from_micros(100);

/// The share of background work in an iteration that served connections, and in one that did not. Small, since a
/// request that arrives meanwhile waits.
const DUE_SHARE_BUSY: Duration = Duration::from_micros(25);
const DUE_SHARE_CALM: Duration = Duration::from_micros(50);

/// The greatest share of background work, unless connections had more time: the work that they cause, such as the
/// expiry of a key, costs no more than the requests, so it keeps pace.
const DUE_SHARE_MAX: Duration = Duration::from_micros(200);

/// Doublings from the smallest share to more than an iteration.
const DOUBLINGS_MAX: u32 = 6;

/// Shares that follow their backlog: each doubles with each iteration that leaves some of its work undone.
#[derive(Debug, Default)]
pub struct Shares {
    links: Doublings,
    due: Doublings,
}

/// The number of doublings of a share.
#[derive(Debug, Default)]
struct Doublings(u32);

impl Shares {
    /// The time within an iteration until which links are served. While links have a backlog, clients have less time,
    /// which reduces the load on other nodes.
    pub fn links_until(&self) -> Duration {
        self.links.of(LINKS_UNTIL).min(LINKS_UNTIL_MAX)
    }

    /// The time within an iteration until which clients are served, if links and output have used `used` of it.
    pub fn clients_until(&self, used: Duration) -> Duration {
        CLIENTS_UNTIL.max(self.links_until().max(used) + CLIENTS_MIN)
    }

    /// The share of background work in an iteration in which connections had this much time. At most half of that
    /// while links have a backlog: background work, such as rebuilt blocks of the filter, can wait.
    pub fn due(&self, connections: Duration) -> Duration {
        let share = if connections.is_zero() { DUE_SHARE_CALM } else { DUE_SHARE_BUSY };
        let most = if self.links.0 == 0 { connections } else { connections / 2 };
        self.due.of(share).min(DUE_SHARE_MAX.max(most))
    }

    /// Notes whether all work of links, or all background work, was done in its share.
    pub fn ended(&mut self, class: Class, is_done: bool) {
        let doublings = match class {
            Class::Links => &mut self.links.0,
            Class::Due => &mut self.due.0,
            Class::Clients => return,
        };
        *doublings = if is_done { 0 } else { DOUBLINGS_MAX.min(*doublings + 1) };
    }
}

impl Doublings {
    fn of(&self, share: Duration) -> Duration {
        share * (1 << self.0)
    }
}

/// Connections with input that the shell has not read, or with output that it has not written, each once, by class.
///
/// A connection is *deep* if it used its whole quantum when it was last read, or had more output than one write
/// takes. Deep connections together get every second turn. So a request of any other connection waits for few deep
/// ones, however many there are, and so does its reply.
#[derive(Debug, Default)]
pub struct Turns {
    links: Lanes,
    clients: Lanes,
}

#[derive(Debug, Default)]
struct Lanes {
    shallow: VecDeque<ConnKey>,
    deep: VecDeque<ConnKey>,
    /// The last turn was that of a connection that is not deep.
    was_shallow: bool,
}

impl Turns {
    /// Appends a connection, which must not be queued already.
    pub fn push(&mut self, class: Class, key: ConnKey, is_deep: bool) {
        let lanes = self.of(class);
        if is_deep { lanes.deep.push_back(key) } else { lanes.shallow.push_back(key) }
    }

    /// Takes the next connection.
    pub fn pop(&mut self, class: Class) -> Option<ConnKey> {
        let Lanes { shallow, deep, was_shallow } = self.of(class);
        *was_shallow = !*was_shallow;
        let (first, second) = if *was_shallow { (shallow, deep) } else { (deep, shallow) };
        first.pop_front().or_else(|| second.pop_front())
    }

    /// The connection that the next [`Turns::pop`] takes.
    pub fn next(&self, class: Class) -> Option<ConnKey> {
        let Lanes { shallow, deep, was_shallow } = self.at(class);
        let (first, second) = if *was_shallow { (deep, shallow) } else { (shallow, deep) };
        first.front().or_else(|| second.front()).copied()
    }

    /// Queued connections of this class that are not deep.
    pub fn shallow(&self, class: Class) -> usize {
        self.at(class).shallow.len()
    }

    /// Whether a connection of this class is queued.
    pub fn has(&self, class: Class) -> bool {
        let lanes = self.at(class);
        !lanes.shallow.is_empty() || !lanes.deep.is_empty()
    }

    /// Whether no connection is queued.
    pub fn is_empty(&self) -> bool {
        !self.has(Class::Links) && !self.has(Class::Clients)
    }

    const fn at(&self, class: Class) -> &Lanes {
        match class {
            Class::Links => &self.links,
            Class::Clients | Class::Due => &self.clients,
        }
    }

    const fn of(&mut self, class: Class) -> &mut Lanes {
        match class {
            Class::Links => &mut self.links,
            Class::Clients | Class::Due => &mut self.clients,
        }
    }
}

/// Bytes in or out per unit of cost (one key).
const BYTES_PER_KEY: usize = BYTES_PER_STEP / KEYS_PER_STEP;

/// Cost of reading a socket once and answering, in keys.
const READ_KEYS: usize = 16;

/// Cost of writing to a socket once without its bytes, in keys.
const WRITE_KEYS: usize = 8;

/// The cost of bytes in or out, in keys.
pub(in crate::node) const fn cost_of_bytes(bytes: usize) -> usize {
    bytes / BYTES_PER_KEY
}

/// The account of a connection for deficit round robin, in keys: each turn adds a quantum, and its cost is
/// subtracted. A connection that exceeded its quantum, such as by one large request, skips turns until the deficit is
/// paid.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::node) struct Account {
    debt: usize,
}

impl Account {
    /// Begins a turn: returns its budget, 0 while there is a deficit.
    pub(in crate::node) const fn begin_turn(&mut self) -> usize {
        let budget = KEYS_PER_STEP.saturating_sub(self.debt);
        self.debt = self.debt.saturating_sub(KEYS_PER_STEP);
        budget
    }

    /// Adds the excess of a turn over its budget to the deficit.
    pub(in crate::node) const fn charge(&mut self, excess: usize) {
        self.debt = self.debt.saturating_add(excess);
    }

    /// Whether the deficit is at least a quantum, so that the next turn must be skipped.
    pub(in crate::node) const fn must_let_pass(&self) -> bool {
        self.debt >= KEYS_PER_STEP
    }
}

/// Connections with buffered unprocessed input, or with a deficit, each once, by class.
///
/// Connections that the shell reads and connections queued here each get half of a class's share, by cost. So a
/// request on a connection with few requests waits for the turn of at most one queued connection, however many there
/// are.
#[derive(Debug, Default)]
pub(in crate::node) struct Runnable {
    links: Queue,
    clients: Queue,
    /// The cost of all reads, turns, writes and steps so far.
    spent: u64,
}

#[derive(Debug, Default)]
struct Queue {
    keys: VecDeque<ConnKey>,
    /// The cost of turns of queued connections that reads of others have not balanced yet.
    lead: usize,
    /// The cost of reads that turns of queued connections have not balanced yet, at most one turn.
    credit: usize,
    /// The shell has read since the last turn of a queued connection.
    has_read: bool,
}

impl Runnable {
    /// Appends a connection, which must not be queued already.
    pub(in crate::node) fn push(&mut self, class: Class, key: ConnKey) {
        self.of(class).keys.push_back(key);
    }

    /// Whether a connection of this class is queued.
    pub(in crate::node) fn has(&self, class: Class) -> bool {
        match class {
            Class::Links => !self.links.keys.is_empty(),
            Class::Clients | Class::Due => !self.clients.keys.is_empty(),
        }
    }

    /// Whether this connection is queued. O(queued), for tests.
    pub(in crate::node) fn contains(&self, key: ConnKey) -> bool {
        self.links.keys.contains(&key) || self.clients.keys.contains(&key)
    }

    /// Queued connections of this class.
    pub(in crate::node) fn len(&self, class: Class) -> u64 {
        let queue = if class == Class::Links { &self.links } else { &self.clients };
        queue.keys.len() as u64
    }

    /// Notes the cost of processing input that the shell has just read.
    pub(in crate::node) fn has_read(&mut self, class: Class, cost: usize) {
        self.spent += (cost + READ_KEYS) as u64;
        let queue = self.of(class);
        let cost = queue.credit + cost + READ_KEYS;
        queue.credit = cost.saturating_sub(queue.lead).min(KEYS_PER_STEP);
        queue.lead = queue.lead.saturating_sub(cost);
        queue.has_read = true;
    }

    /// Notes the cost of the turn of a queued connection.
    pub(in crate::node) fn has_run(&mut self, class: Class, cost: usize) {
        self.spent += cost as u64;
        let queue = self.of(class);
        queue.lead += cost.saturating_sub(queue.credit);
        queue.credit = queue.credit.saturating_sub(cost);
    }

    /// Notes bytes written to a socket.
    pub(in crate::node) const fn has_written(&mut self, bytes: usize) {
        self.spent += (WRITE_KEYS + cost_of_bytes(bytes)) as u64;
    }

    /// Notes the cost of a step, in keys, without the cost that was charged to a connection.
    pub(in crate::node) const fn has_stepped(&mut self, cost: usize) {
        self.spent += cost as u64;
    }

    /// The cost of all work so far, in keys.
    pub(in crate::node) const fn spent(&self) -> u64 {
        self.spent
    }

    /// Takes the next queued connection; none while connections that the shell reads have had less than their half.
    pub(in crate::node) fn pop(&mut self, class: Class) -> Option<ConnKey> {
        let queue = self.of(class);
        if std::mem::take(&mut queue.has_read) && queue.lead > 0 {
            return None;
        }
        queue.lead = 0;
        queue.keys.pop_front()
    }

    const fn of(&mut self, class: Class) -> &mut Queue {
        match class {
            Class::Links => &mut self.links,
            Class::Clients | Class::Due => &mut self.clients,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, CLIENTS_MIN, CLIENTS_UNTIL, Class, DUE_SHARE_BUSY, DUE_SHARE_MAX, LINKS_UNTIL};
    use super::{LINKS_UNTIL_MAX, READ_KEYS, Runnable, Shares, Turns};
    use crate::base::slots::Slots;
    use crate::limits::KEYS_PER_STEP;
    use std::time::Duration;

    /// Turns that a connection skips after a charge of `excess`.
    fn turns_passed(excess: usize) -> usize {
        let mut account = Account::default();
        account.begin_turn();
        account.charge(excess);
        (0..).take_while(|_| account.begin_turn() == 0).count()
    }

    #[test]
    fn large_request_lets_as_many_turns_pass_as_it_has_cost() {
        let passed = [0, 1, KEYS_PER_STEP, 10 * KEYS_PER_STEP, 8 * 1_024].map(turns_passed);
        assert_eq!(passed, [0, 0, 1, 10, 32]);
    }

    #[test]
    fn connections_with_backlog_and_those_that_are_read_get_the_same_cost() {
        for cost_of_read in [1, 100, KEYS_PER_STEP, 1_000] {
            let (mut runnable, mut slots) = (Runnable::default(), Slots::new());
            (0..10).for_each(|_| runnable.push(Class::Clients, slots.insert(())));
            let (mut read, mut run) = (0, 0);
            for _ in 0..1_000 {
                runnable.has_read(Class::Clients, cost_of_read);
                read += cost_of_read + READ_KEYS;
                if let Some(key) = runnable.pop(Class::Clients) {
                    runnable.push(Class::Clients, key);
                    runnable.has_run(Class::Clients, KEYS_PER_STEP);
                    run += KEYS_PER_STEP;
                }
            }
            assert!(run <= read + KEYS_PER_STEP, "{run} beside {read}");
            assert!(
                cost_of_read > KEYS_PER_STEP || run + 2 * KEYS_PER_STEP >= read * 9 / 10,
                "{run} of {read}"
            );
            // While nothing is read they have all of it.
            runnable.pop(Class::Clients).into_iter().for_each(|key| runnable.push(Class::Clients, key));
            assert!((0..10).all(|_| runnable.pop(Class::Clients).is_some()) && !runnable.has(Class::Clients));
        }
    }

    #[test]
    fn shallow_connection_waits_for_one_deep_one() {
        let (mut ready, mut slots) = (Turns::default(), Slots::new());
        let many: Vec<_> = (0..100).map(|_| slots.insert(())).collect();
        many.iter().for_each(|key| ready.push(Class::Clients, *key, true));
        for _ in 0..10 {
            let few = slots.insert(());
            ready.push(Class::Clients, few, false);
            let waited = (0..).take_while(|_| ready.pop(Class::Clients) != Some(few)).count();
            assert!(waited <= 1, "{waited}");
        }
        // No turn is lost, and the order is kept.
        let rest: Vec<_> = std::iter::from_fn(|| ready.pop(Class::Clients)).collect();
        assert!(rest.len() >= 90 && many.ends_with(&rest) && ready.is_empty());
    }

    #[test]
    fn share_of_due_work_follows_its_backlog() {
        for (connections, max) in [(10, DUE_SHARE_MAX), (700, Duration::from_micros(700))] {
            let (connections, mut shares) = (Duration::from_micros(connections), Shares::default());
            let due: Vec<_> =
                (0..7).map(|_| (shares.due(connections), shares.ended(Class::Due, false)).0).collect();
            assert_eq!((due[0], due[1], due[6]), (DUE_SHARE_BUSY, 2 * DUE_SHARE_BUSY, max));
            shares.ended(Class::Due, true);
            assert_eq!(shares.due(connections), DUE_SHARE_BUSY);
        }
    }

    #[test]
    fn clients_give_way_to_links_and_output_that_are_behind_and_keep_a_share() {
        let mut shares = Shares::default();
        let ends = |shares: &Shares| (shares.links_until(), shares.clients_until(shares.links_until()));
        assert_eq!(ends(&shares), (LINKS_UNTIL, CLIENTS_UNTIL));
        (0..9).for_each(|_| shares.ended(Class::Links, false));
        (0..9).for_each(|_| shares.ended(Class::Due, false));
        assert_eq!(ends(&shares), (LINKS_UNTIL_MAX, LINKS_UNTIL_MAX + CLIENTS_MIN));
        assert_eq!(shares.due(LINKS_UNTIL_MAX), LINKS_UNTIL_MAX / 2);
        shares.ended(Class::Links, true);
        assert_eq!(ends(&shares), (LINKS_UNTIL, CLIENTS_UNTIL));
        // One write takes longer than what the output has until clients are served.
        assert_eq!(shares.clients_until(2 * CLIENTS_UNTIL), 2 * CLIENTS_UNTIL + CLIENTS_MIN);
    }
}
