//! The address book: where other nodes may be found, and how often they were not.
//!
//! A contact is an address, a peer is a node: behind one address one node may follow another, and one
//! node may be met at several addresses. A contact that leads to a node that is linked is left alone.
//! Here is no dialling, only what it needs to know: [`crate::node::peer::dialer`].

use crate::base::rng::Rng;
use crate::base::slots::Slots;
use crate::base::time::Instant;
use crate::node::ids::{AddressKey, AddressTag, ConnKey, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Bound;
use std::time::Duration;

/// The first wait after a failed try, doubled with each further one up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// The longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Addresses of one node that are dialled at once when its link has gone, and that share its successes and failures:
/// a peer may say of thousands that they are its own.
const ADDRESSES_OF_NODE_MAX: usize = 16;

/// No address is less than this one.
const ADDRESS_MIN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// For how long a learned address may fail, and no peer say that it is linked there, before it is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// Addresses that are looked at for one to be forgotten, when a new one needs its place: not the whole book,
/// since addresses are told by the thousand.
const LOOKED_AT_MAX: usize = 32;

/// The least time between two warnings about one configured peer: a little less than a minute, since dials are 30 s
/// apart.
const WARN_EVERY: Duration = Duration::from_secs(55);

/// How an address came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Origin {
    /// By the operator: never forgotten.
    Configured,
    /// From a peer, or by having been dialled from there.
    Learned,
}

/// An address at which a node may be found.
#[derive(Debug)]
pub(in crate::node) struct AddressEntry {
    pub(in crate::node) addr: SocketAddr,
    pub(in crate::node) origin: Origin,
    id: Option<NodeId>,
    /// It was this node itself when it was tried last.
    pub(in crate::node) is_self: bool,
    /// The connection being made, or on which we are introducing ourselves.
    pub(in crate::node) dial: Option<ConnKey>,
    /// Failed tries since the last success.
    pub(in crate::node) failures: u32,
    /// Since when there were only failures.
    failing_since: Instant,
    /// When a peer last said that it is linked there, if one did.
    listed_at: Option<Instant>,
    /// It was tried at least once, with whatever end.
    pub(in crate::node) was_tried: bool,
    /// A node was met there at least once.
    was_met: bool,
    /// The one live timer, as a tick of the node's wheel.
    pub(in crate::node) timer_at: Option<u64>,
}

impl AddressEntry {
    /// Who was met there last, or is said to be there.
    pub(in crate::node) const fn id(&self) -> Option<NodeId> {
        self.id
    }

    /// Notes a failed try.
    pub(in crate::node) fn failed(&mut self, now: Instant) {
        self.count_failure(now);
        self.was_tried = true;
        self.dial = None;
    }

    fn count_failure(&mut self, now: Instant) {
        if self.failures == 0 {
            self.failing_since = now;
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// Whether nothing speaks for the address but that somebody told it.
    pub(in crate::node) fn is_hearsay(&self) -> bool {
        self.origin == Origin::Learned && !self.was_met
    }

    /// How long to wait before the next try: 100 ms × 2 for each failure, at most 30 s; always that where this node
    /// was found itself.
    pub(in crate::node) fn backoff(&self, rng: &mut Rng) -> Duration {
        let doubled = BACKOFF_MIN * 2u32.pow(self.failures.saturating_sub(1).min(16));
        about(if self.is_self { BACKOFF_MAX } else { doubled.min(BACKOFF_MAX) }, rng)
    }

    /// Whether the address is to be forgotten: learned, and for ten minutes failing and on no peer's list. What
    /// a peer lists is there, but for the path between us, which may come back at any time.
    fn is_hopeless(&self, now: Instant) -> bool {
        let missed_since = self.listed_at.unwrap_or(Instant::ZERO).max(self.failing_since);
        let given_up = missed_since.after(FORGOTTEN_AFTER) <= now;
        self.origin == Origin::Learned && self.failures > 0 && given_up
    }
}

/// How long to wait before an address is looked at again where nothing is to be done for now.
pub(in crate::node) fn slowest(rng: &mut Rng) -> Duration {
    about(BACKOFF_MAX, rng)
}

/// By chance between three and five quarters of a span, so that many nodes do not come back as one.
fn about(span: Duration, rng: &mut Rng) -> Duration {
    let quarter = u64::try_from(span.as_nanos() / 4).unwrap_or(u64::MAX);
    span - Duration::from_nanos(quarter) + Duration::from_nanos(rng.below(2 * quarter))
}

/// Addresses that wait for a place to be dialled, each once. Their turn goes round.
#[derive(Debug, Default)]
struct Line {
    addrs: BTreeSet<SocketAddr>,
    /// Whose turn it was last.
    last: Option<SocketAddr>,
}

impl Line {
    /// Takes out whose turn it is. O(log addresses).
    fn next(&mut self) -> Option<SocketAddr> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.addrs.range((after, Bound::Unbounded)).next().or(self.addrs.first()).copied()?;
        self.addrs.remove(&next);
        self.last = Some(next);
        Some(next)
    }
}

/// What the operator named by one entry: often one node, where `localhost` is two addresses, and sometimes several.
#[derive(Debug, Default)]
struct Entry {
    addrs: Box<[SocketAddr]>,
    /// It names this node itself.
    is_own: bool,
    /// When the last warning was logged that it cannot be reached.
    warned_at: Option<Instant>,
}

/// All known addresses, each once.
#[derive(Debug, Default)]
pub(in crate::node) struct AddressBook {
    slots: Slots<AddressTag, AddressEntry>,
    by_addr: BTreeMap<SocketAddr, AddressKey>,
    /// The addresses of each node that is known by name.
    by_node: BTreeSet<(NodeId, SocketAddr)>,
    /// Who waits for a place: those where a node was met or that the operator told, and those of hearsay.
    proven: Line,
    hearsay: Line,
    /// Those of the operator.
    entries: Vec<Entry>,
    /// The last address that was looked at for one to be forgotten.
    looked_at: Option<SocketAddr>,
    /// Addresses that there was no room for.
    pub(in crate::node) refused: u64,
}

impl AddressBook {
    pub(in crate::node) fn get(&self, key: AddressKey) -> Option<&AddressEntry> {
        self.slots.get(key)
    }

    pub(in crate::node) fn get_mut(&mut self, key: AddressKey) -> Option<&mut AddressEntry> {
        self.slots.get_mut(key)
    }

    pub(in crate::node) fn at(&self, addr: SocketAddr) -> Option<AddressKey> {
        self.by_addr.get(&addr).copied()
    }

    pub(in crate::node) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(in crate::node) fn iter(&self) -> impl Iterator<Item = (AddressKey, &AddressEntry)> {
        self.slots.iter()
    }

    /// The contact of an address, made if there is none and room for it; with whether it is new. O(log
    /// contacts).
    pub(in crate::node) fn note(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        origin: Origin,
        contacts_max: usize,
    ) -> Option<(AddressKey, bool)> {
        if let Some(key) = self.at(addr) {
            return Some((key, false));
        }
        if self.slots.len() >= contacts_max && origin == Origin::Learned && !self.make_room() {
            self.refused += 1;
            return None;
        }
        let contact = AddressEntry {
            addr,
            origin,
            id: None,
            is_self: false,
            dial: None,
            failures: 0,
            failing_since: now,
            listed_at: None,
            was_tried: false,
            was_met: false,
            timer_at: None,
        };
        let key = self.slots.insert(contact);
        self.by_addr.insert(addr, key);
        Some((key, true))
    }

    /// Notes that a peer says that it is linked there.
    pub(in crate::node) fn listed(&mut self, now: Instant, key: AddressKey) {
        if let Some(contact) = self.get_mut(key) {
            contact.listed_at = Some(now);
        }
    }

    /// Sets the addresses of the configured peer number `entry`, for a node that listens at `listen`. Addresses that no
    /// entry has any more count as learned, so that they are forgotten if nobody is there. O(configured addresses).
    pub(in crate::node) fn set_entry(&mut self, entry: usize, addrs: &[SocketAddr], listen: SocketAddr) {
        if self.entries.len() <= entry {
            self.entries.resize_with(entry + 1, Entry::default);
        }
        let new = Entry { addrs: addrs.into(), is_own: addrs.contains(&listen), warned_at: None };
        let old = std::mem::replace(&mut self.entries[entry], new);
        for addr in old.addrs {
            let is_left = self.entries.iter().any(|entry| entry.addrs.contains(&addr));
            if let Some(contact) = self.at(addr).and_then(|key| self.slots.get_mut(key))
                && !is_left
            {
                contact.origin = Origin::Learned;
            }
        }
        for addr in addrs {
            if let Some(contact) = self.at(*addr).and_then(|key| self.slots.get_mut(key)) {
                contact.origin = Origin::Configured;
            }
        }
    }

    /// The configured peers that are linked, and all of them; this node itself counts as neither.
    pub(in crate::node) fn configured(&self, is_linked: impl Fn(NodeId) -> bool) -> (usize, usize) {
        let others = || self.entries.iter().filter(|entry| !entry.is_own);
        (others().filter(|entry| self.leads(entry, &is_linked)).count(), others().count())
    }

    /// Whether an address of an entry leads to a linked node, or to this one.
    fn leads(&self, entry: &Entry, is_linked: &impl Fn(NodeId) -> bool) -> bool {
        let mut contacts = entry.addrs.iter().filter_map(|addr| self.get(self.at(*addr)?));
        contacts.any(|contact| contact.is_self || contact.id.is_some_and(is_linked))
    }

    /// Whether to warn that a dial to `addr` failed: it belongs to a configured peer none of whose addresses can be
    /// reached, and there was no warning about that for a minute.
    pub(in crate::node) fn is_to_be_warned_of(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        is_linked: impl Fn(NodeId) -> bool,
    ) -> bool {
        let has_failed = |addr: &SocketAddr| {
            self.at(*addr).and_then(|key| self.get(key)).is_some_and(|contact| contact.failures > 0)
        };
        let is_due = |entry: &Entry| {
            let is_due = entry.warned_at.is_none_or(|then| now.since(then) >= WARN_EVERY);
            is_due && entry.addrs.contains(&addr) && entry.addrs.iter().all(has_failed)
        };
        let due = (0..self.entries.len()).find(|at| {
            let entry = &self.entries[*at];
            is_due(entry) && !entry.is_own && !self.leads(entry, &is_linked)
        });
        let Some(entry) = due.and_then(|at| self.entries.get_mut(at)) else { return false };
        entry.warned_at = Some(now);
        true
    }

    /// Addresses that lead to no linked node, as far as is known, and not to this one. Where another address of
    /// the same entry does, one that nobody was ever met at is left aside: that of a name which the node does not
    /// listen at. O(contacts).
    pub(in crate::node) fn apart<'a>(
        &'a self,
        is_linked: impl Fn(NodeId) -> bool + 'a,
    ) -> impl Iterator<Item = &'a AddressEntry> {
        let leads = move |contact: &AddressEntry| contact.is_self || contact.id.is_some_and(&is_linked);
        let mut aside = BTreeMap::new();
        for entry in &self.entries {
            let mut address_book = entry.addrs.iter().filter_map(|addr| self.get(self.at(*addr)?));
            let is_settled = entry.is_own || address_book.any(&leads);
            for addr in &entry.addrs {
                *aside.entry(*addr).or_insert(true) &= is_settled;
            }
        }
        let is_aside = move |contact: &AddressEntry| {
            let is_known = contact.was_met || contact.listed_at.is_some();
            !is_known && aside.get(&contact.addr).is_some_and(|is_settled| *is_settled)
        };
        let address_book = self.iter().map(|(_, contact)| contact);
        address_book.filter(move |contact| !leads(contact) && !is_aside(contact))
    }

    /// Forgets the learned address that has failed most often among the next few; false if none has.
    fn make_room(&mut self) -> bool {
        let is_spare = |contact: &AddressEntry| {
            contact.origin == Origin::Learned && contact.dial.is_none() && contact.failures > 0
        };
        let after = self.looked_at.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.by_addr.range((after, Bound::Unbounded));
        let few = behind.chain(&self.by_addr).take(LOOKED_AT_MAX.min(self.by_addr.len()));
        let mut worst = None;
        for (addr, key) in few {
            self.looked_at = Some(*addr);
            let spare = self.slots.get(*key).filter(|contact| is_spare(contact));
            worst = worst.max(spare.map(|contact| (contact.failures, *addr)));
        }
        let worst = worst.and_then(|(_, addr)| self.at(addr));
        worst.is_some_and(|key| self.forget(key))
    }

    /// Notes that a node was met where it was dialled. Whether that was a success is known when the link has
    /// lived for a beat.
    pub(in crate::node) fn met(&mut self, key: AddressKey, id: NodeId) {
        self.lives_at(key, id);
        if let Some(contact) = self.slots.get_mut(key) {
            contact.is_self = false;
            contact.was_met = true;
            contact.was_tried = true;
            contact.dial = None;
        }
    }

    /// Notes that a node is said to live at an address.
    pub(in crate::node) fn lives_at(&mut self, key: AddressKey, id: NodeId) {
        let Some(contact) = self.slots.get_mut(key) else { return };
        if let Some(before) = contact.id.replace(id) {
            self.by_node.remove(&(before, contact.addr));
        }
        self.by_node.insert((id, contact.addr));
    }

    /// Addresses of a node, not all if there are many. O(log contacts).
    pub(in crate::node) fn of_node(&self, id: NodeId) -> Vec<AddressKey> {
        let addrs = self.by_node.range((id, ADDRESS_MIN)..).take_while(|(of, _)| *of == id);
        addrs.take(ADDRESSES_OF_NODE_MAX).filter_map(|(_, addr)| self.at(*addr)).collect()
    }

    /// A link to this node broke before it had lived for a beat: that counts as a failure of its addresses, so
    /// that they are dialled less and less often.
    pub(in crate::node) fn count_failure(&mut self, now: Instant, id: NodeId) {
        for key in self.of_node(id) {
            if let Some(contact) = self.slots.get_mut(key) {
                contact.count_failure(now);
            }
        }
    }

    /// A link to this node has lived for a beat: its addresses are good.
    pub(in crate::node) fn count_success(&mut self, id: NodeId) {
        for key in self.of_node(id) {
            if let Some(contact) = self.slots.get_mut(key) {
                contact.failures = 0;
            }
        }
    }

    /// Puts an address in line for a place to be dialled. O(log contacts), as what follows.
    pub(in crate::node) fn wait(&mut self, key: AddressKey) {
        let Some(contact) = self.slots.get(key) else { return };
        let line = if contact.is_hearsay() { &mut self.hearsay } else { &mut self.proven };
        line.addrs.insert(contact.addr);
    }

    /// Takes an address out of its line, if it stands in one.
    pub(in crate::node) fn wait_no_more(&mut self, key: AddressKey) {
        let Some(contact) = self.slots.get(key) else { return };
        self.proven.addrs.remove(&contact.addr);
        self.hearsay.addrs.remove(&contact.addr);
    }

    /// Takes out of its line the address whose turn it is, of those that do not rest on hearsay.
    pub(in crate::node) fn next_proven(&mut self) -> Option<AddressKey> {
        self.proven.next().and_then(|addr| self.at(addr))
    }

    /// The same of those that do.
    pub(in crate::node) fn next_on_hearsay(&mut self) -> Option<AddressKey> {
        self.hearsay.next().and_then(|addr| self.at(addr))
    }

    /// Forgets an address if it is hopeless; true if it did.
    pub(in crate::node) fn forget_hopeless(&mut self, now: Instant, key: AddressKey) -> bool {
        self.get(key).is_some_and(|contact| contact.is_hopeless(now)) && self.forget(key)
    }

    fn forget(&mut self, key: AddressKey) -> bool {
        self.wait_no_more(key);
        let Some(contact) = self.slots.remove(key) else { return false };
        self.by_addr.remove(&contact.addr);
        if let Some(id) = contact.id {
            self.by_node.remove(&(id, contact.addr));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{AddressBook, BACKOFF_MAX, BACKOFF_MIN, FORGOTTEN_AFTER, Origin};
    use crate::base::rng::Rng;
    use crate::base::time::Instant;
    use std::net::SocketAddr;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn backoff_doubles_up_to_half_a_minute_and_never_ends() {
        let mut address_book = AddressBook::default();
        let (key, _) = address_book.note(Instant::ZERO, addr(1), Origin::Configured, 10).unwrap();
        let contact = address_book.get_mut(key).unwrap();
        let mut rng = Rng::new(1);
        for tries in 0..100u32 {
            contact.failed(Instant::from_millis(u64::from(tries) * 1_000_000));
            let middle = (BACKOFF_MIN * 2u32.pow(tries.min(16))).min(BACKOFF_MAX);
            let wait = contact.backoff(&mut rng);
            assert!(wait >= middle * 3 / 4 && wait < middle * 5 / 4, "{wait:?} after {tries}");
        }
        let late = Instant::ZERO.after(FORGOTTEN_AFTER * 1_000);
        assert!(!address_book.forget_hopeless(late, key), "a configured address is never forgotten");
    }

    #[test]
    fn learned_address_that_fails_for_long_is_forgotten() {
        let mut address_book = AddressBook::default();
        let (key, _) = address_book.note(Instant::ZERO, addr(1), Origin::Learned, 10).unwrap();
        address_book.get_mut(key).unwrap().failed(Instant::ZERO);
        assert!(!address_book.forget_hopeless(Instant::ZERO, key));
        assert!(address_book.forget_hopeless(Instant::ZERO.after(FORGOTTEN_AFTER), key));
        assert_eq!(address_book.at(addr(1)), None);
    }

    #[test]
    fn full_book_takes_a_new_address_only_for_one_that_fails() {
        let mut address_book = AddressBook::default();
        let (first, _) = address_book.note(Instant::ZERO, addr(1), Origin::Learned, 2).unwrap();
        address_book.note(Instant::ZERO, addr(2), Origin::Learned, 2).unwrap();
        assert!(address_book.note(Instant::ZERO, addr(3), Origin::Learned, 2).is_none());
        assert_eq!(address_book.refused, 1);
        address_book.get_mut(first).unwrap().failed(Instant::ZERO);
        assert!(address_book.note(Instant::ZERO, addr(3), Origin::Learned, 2).is_some());
        assert_eq!(address_book.get(first).map(|contact| contact.addr), None);
        assert_eq!(address_book.len(), 2);
    }
}
