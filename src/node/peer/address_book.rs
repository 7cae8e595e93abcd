//! The address book: addresses of other nodes, with the results of dialling them.
//!
//! An address does not identify a node: nodes may succeed one another at an address, and a node may have several
//! addresses. Addresses of linked nodes are not dialled. Dialling is in [`crate::node::peer::dialer`].

use crate::base::rng::Rng;
use crate::base::slots::Slots;
use crate::base::time::Instant;
use crate::base::wheel::Wheel;
use crate::node::alarm::Alarm;
use crate::node::ids::{AddressKey, AddressTag, ConnKey, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Bound;
use std::time::Duration;

/// The backoff after the first failure. It doubles with each further one, up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Addresses per node that are dialled when its link is lost, and that share its failures and successes. A peer may
/// list thousands of addresses under one id.
const ADDRESSES_OF_NODE_MAX: usize = 16;

/// The lowest address.
const ADDRESS_MIN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// How long a learned address may fail, while no peer lists it, before it is removed.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// Failing addresses of formerly linked nodes that are never removed: those that began to fail last. So nodes on both
/// sides of a partition link again, however long it lasted.
const KEPT_MAX: usize = 16;

/// Addresses examined for one to be replaced by a new one.
const EXAMINED_MAX: usize = 32;

/// Divisor of the capacity: unverified addresses that one host may list, at least [`SOURCE_MIN`].
const SOURCE_SHARE: usize = 4;
const SOURCE_MIN: usize = 16;

/// The least time between two warnings about one configured peer. Dials are 30 s apart, so that is about a minute.
const WARN_EVERY: Duration = Duration::from_secs(55);

/// The origin of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Origin {
    /// The configuration: never removed.
    Configured,
    /// A peer, or the handshake of a node that dialled this one.
    Learned,
}

/// One address.
#[derive(Debug)]
pub(in crate::node) struct AddressEntry {
    addr: SocketAddr,
    origin: Origin,
    id: Option<NodeId>,
    /// The last dial reached this node itself.
    is_self: bool,
    /// The connection that is being established or in its handshake.
    dial: Option<ConnKey>,
    /// Failures since the last success.
    failures: u32,
    /// When the first of them was.
    failing_since: Instant,
    /// When a peer last listed it as that of a linked node.
    listed_at: Option<Instant>,
    /// It was dialled at least once, or need not be.
    was_tried: bool,
    /// A handshake succeeded there at least once.
    was_met: bool,
    /// A linked node has stated that it listens there.
    was_linked: bool,
    /// The host that listed it, until a handshake succeeds there.
    source: Option<IpAddr>,
    alarm: Alarm,
}

impl AddressEntry {
    pub(in crate::node) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The node of the last handshake there, or the announced one.
    pub(in crate::node) const fn id(&self) -> Option<NodeId> {
        self.id
    }

    pub(in crate::node) const fn dial(&self) -> Option<ConnKey> {
        self.dial
    }

    pub(in crate::node) const fn failures(&self) -> u32 {
        self.failures
    }

    pub(in crate::node) const fn is_self(&self) -> bool {
        self.is_self
    }

    /// Whether a node is likely to be there: a handshake succeeded, or a peer lists it and no dial has failed.
    pub(in crate::node) const fn is_credible(&self) -> bool {
        self.was_met || (self.listed_at.is_some() && self.failures == 0)
    }

    /// Whether a configured address was never dialled.
    pub(in crate::node) fn is_untried(&self) -> bool {
        self.origin == Origin::Configured && !self.was_tried && !self.is_self
    }

    /// Whether the address is unverified: learned from a peer, and no handshake succeeded there.
    fn is_unverified(&self) -> bool {
        self.origin == Origin::Learned && !self.was_met
    }

    /// Whether it is a known address of a linked node or of this one.
    fn leads(&self, is_linked: &impl Fn(NodeId) -> bool) -> bool {
        self.is_self || self.id.is_some_and(is_linked)
    }

    fn count_failure(&mut self, now: Instant) {
        if self.failures == 0 {
            self.failing_since = now;
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// The wait before the next dial: 100 ms, doubled per failure, at most 30 s; 30 s also for an address of this
    /// node itself.
    pub(in crate::node) fn backoff(&self, rng: &mut Rng) -> Duration {
        let doubled = BACKOFF_MIN * 2u32.pow(self.failures.saturating_sub(1).min(16));
        jitter(if self.is_self { BACKOFF_MAX } else { doubled.min(BACKOFF_MAX) }, rng)
    }

    /// Whether it can be removed: learned, failing for ten minutes, and listed by no peer meanwhile.
    fn is_hopeless(&self, now: Instant) -> bool {
        let missed_since = self.listed_at.unwrap_or(Instant::ZERO).max(self.failing_since);
        self.origin == Origin::Learned && self.failures > 0 && missed_since.after(FORGOTTEN_AFTER) <= now
    }

    /// Whether the timer that fires at `deadline` is the live one.
    pub(in crate::node) fn is_live(&self, deadline: u64) -> bool {
        self.alarm.is_live(deadline)
    }

    /// Whether its timer is armed.
    pub(in crate::node) fn is_armed(&self) -> bool {
        self.alarm != Alarm::default()
    }
}

/// The longest wait before an address is examined again.
pub(in crate::node) fn slowest(rng: &mut Rng) -> Duration {
    jitter(BACKOFF_MAX, rng)
}

/// A random time between 75 and 125 % of a span, so that nodes do not dial in lockstep.
fn jitter(span: Duration, rng: &mut Rng) -> Duration {
    let quarter = u64::try_from(span.as_nanos() / 4).unwrap_or(u64::MAX);
    span - Duration::from_nanos(quarter) + Duration::from_nanos(rng.below(2 * quarter))
}

/// Addresses that wait for a free dial, each once, in rotation.
#[derive(Debug, Default)]
struct WaitingList {
    addrs: BTreeSet<SocketAddr>,
    /// The address taken last.
    last: Option<SocketAddr>,
}

impl WaitingList {
    /// Takes the next one. O(log addresses).
    fn next(&mut self) -> Option<SocketAddr> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.addrs.range((after, Bound::Unbounded)).next().or(self.addrs.first()).copied()?;
        self.addrs.remove(&next);
        self.last = Some(next);
        Some(next)
    }
}

/// The addresses of one entry of `remote_peers`: of one node (`localhost` has two addresses) or of several.
#[derive(Debug, Default)]
struct ConfiguredPeer {
    addrs: Box<[SocketAddr]>,
    /// One of them is this node's.
    is_own: bool,
    /// When it was last logged as unreachable.
    warned_at: Option<Instant>,
}

/// All known addresses, each once.
#[derive(Debug, Default)]
pub(in crate::node) struct AddressBook {
    slots: Slots<AddressTag, AddressEntry>,
    by_addr: BTreeMap<SocketAddr, AddressKey>,
    /// The addresses of each node whose id is known.
    by_node: BTreeSet<(NodeId, SocketAddr)>,
    waiting_verified: WaitingList,
    waiting_unverified: WaitingList,
    configured: Vec<ConfiguredPeer>,
    /// The last address that was examined to make room.
    examined: Option<SocketAddr>,
    /// Addresses dropped because the book was full.
    dropped: u64,
    /// Unverified addresses per listing host.
    sources: BTreeMap<IpAddr, usize>,
}

/// Reading.
impl AddressBook {
    pub(in crate::node) fn get(&self, key: AddressKey) -> Option<&AddressEntry> {
        self.slots.get(key)
    }

    pub(in crate::node) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(in crate::node) fn iter(&self) -> impl Iterator<Item = (AddressKey, &AddressEntry)> {
        self.slots.iter()
    }

    fn at(&self, addr: SocketAddr) -> Option<AddressKey> {
        self.by_addr.get(&addr).copied()
    }

    /// Addresses dropped so far because the book was full.
    pub(in crate::node) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether an address is unverified: learned from a peer, and no node was met there.
    pub(in crate::node) fn is_unverified(&self, key: AddressKey) -> bool {
        self.get(key).is_some_and(AddressEntry::is_unverified)
    }

    /// At most [`ADDRESSES_OF_NODE_MAX`] addresses of a node. O(log addresses).
    pub(in crate::node) fn of_node(&self, id: NodeId) -> Vec<AddressKey> {
        let addrs = self.by_node.range((id, ADDRESS_MIN)..).take_while(|(of, _)| *of == id);
        addrs.take(ADDRESSES_OF_NODE_MAX).filter_map(|(_, addr)| self.at(*addr)).collect()
    }

    /// Addresses known neither as those of linked nodes nor as this node's. Without addresses at which no handshake
    /// ever succeeded if another address of the same entry of `remote_peers` is linked: a name may have addresses
    /// that the node does not listen on. O(addresses).
    pub(in crate::node) fn unlinked<'a>(
        &'a self,
        is_linked: impl Fn(NodeId) -> bool + 'a,
    ) -> impl Iterator<Item = &'a AddressEntry> {
        let mut left_out = BTreeMap::new();
        for peer in &self.configured {
            let is_done = peer.is_own || self.is_reached(peer, &is_linked);
            for addr in &peer.addrs {
                *left_out.entry(*addr).or_insert(true) &= is_done;
            }
        }
        let is_left_out = move |entry: &AddressEntry| {
            let is_known = entry.was_met || entry.listed_at.is_some();
            !is_known && left_out.get(&entry.addr).is_some_and(|is_done| *is_done)
        };
        let entries = self.iter().map(|(_, entry)| entry);
        entries.filter(move |entry| !entry.leads(&is_linked) && !is_left_out(entry))
    }

    /// The numbers of linked configured peers and of all configured peers, without this node itself.
    pub(in crate::node) fn configured(&self, is_linked: impl Fn(NodeId) -> bool) -> (usize, usize) {
        let others = || self.configured.iter().filter(|peer| !peer.is_own);
        (others().filter(|peer| self.is_reached(peer, &is_linked)).count(), others().count())
    }

    /// Whether an address of a configured peer is that of a linked node or of this one.
    fn is_reached(&self, peer: &ConfiguredPeer, is_linked: &impl Fn(NodeId) -> bool) -> bool {
        let mut entries = peer.addrs.iter().filter_map(|addr| self.get(self.at(*addr)?));
        entries.any(|entry| entry.leads(is_linked))
    }
}

/// Adding and forgetting addresses.
impl AddressBook {
    /// Finds or adds the entry of an address, and returns whether it is new; `None` if there is no room. Configured
    /// addresses always have room. Unverified addresses listed by one host (`source`) can be a quarter of all
    /// entries. O(log addresses).
    pub(in crate::node) fn note(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        origin: Origin,
        source: Option<IpAddr>,
        entries_max: usize,
    ) -> Option<(AddressKey, bool)> {
        if let Some(key) = self.at(addr) {
            return Some((key, false));
        }
        let listed = source.map_or(0, |source| self.sources.get(&source).copied().unwrap_or(0));
        let is_too_many = listed >= (entries_max / SOURCE_SHARE).max(SOURCE_MIN);
        let is_full = || self.slots.len() >= entries_max && origin == Origin::Learned;
        if is_too_many || is_full() && !self.make_room() {
            self.dropped += 1;
            return None;
        }
        source.into_iter().for_each(|source| *self.sources.entry(source).or_default() += 1);
        let key = self.slots.insert(AddressEntry {
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
            was_linked: false,
            source,
            alarm: Alarm::default(),
        });
        self.by_addr.insert(addr, key);
        Some((key, true))
    }

    /// Sets the addresses of the configured peer number `at`; `is_own` if one of them is this node's. Addresses that
    /// no configured peer has any more become learned ones, which are removed if no node is there. O(configured
    /// addresses).
    pub(in crate::node) fn set_configured(&mut self, at: usize, addrs: &[SocketAddr], is_own: bool) {
        if self.configured.len() <= at {
            self.configured.resize_with(at + 1, ConfiguredPeer::default);
        }
        let new = ConfiguredPeer { addrs: addrs.into(), is_own, warned_at: None };
        let old = std::mem::replace(&mut self.configured[at], new);
        for addr in old.addrs {
            if !self.configured.iter().any(|peer| peer.addrs.contains(&addr)) {
                self.set_origin(addr, Origin::Learned);
            }
        }
        for addr in addrs {
            self.set_origin(*addr, Origin::Configured);
        }
    }

    fn set_origin(&mut self, addr: SocketAddr, origin: Origin) {
        if let Some(entry) = self.at(addr).and_then(|key| self.slots.get_mut(key)) {
            entry.origin = origin;
        }
    }

    /// Removes the learned address with the most failures among the next few; false if none has failed.
    fn make_room(&mut self) -> bool {
        let is_spare = |entry: &AddressEntry| {
            entry.origin == Origin::Learned && entry.dial.is_none() && entry.failures > 0
        };
        let after = self.examined.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.by_addr.range((after, Bound::Unbounded));
        let few = rest.chain(&self.by_addr).take(EXAMINED_MAX.min(self.by_addr.len()));
        let mut worst = None;
        for (addr, key) in few {
            self.examined = Some(*addr);
            let spare = self.slots.get(*key).filter(|entry| is_spare(entry));
            worst = worst.max(spare.map(|entry| (!entry.was_linked, entry.failures, *addr)));
        }
        let worst = worst.and_then(|(_, _, addr)| self.at(addr));
        worst.is_some_and(|key| self.forget(key))
    }

    /// Removes an address that fails for long, unless it is one of [`KEPT_MAX`]; returns whether it did.
    /// O(addresses).
    pub(in crate::node) fn forget_hopeless(&mut self, now: Instant, key: AddressKey) -> bool {
        self.get(key).is_some_and(|entry| entry.is_hopeless(now) && !self.is_kept(entry)) && self.forget(key)
    }

    fn is_kept(&self, entry: &AddressEntry) -> bool {
        let is_later = |other: &AddressEntry| {
            other.was_linked
                && other.failures > 0
                && other.origin == Origin::Learned
                && (other.failing_since, other.addr) > (entry.failing_since, entry.addr)
        };
        entry.was_linked && self.iter().filter(|(_, other)| is_later(other)).count() < KEPT_MAX
    }

    fn forget(&mut self, key: AddressKey) -> bool {
        self.dequeue(key);
        self.forget_source(key);
        let Some(entry) = self.slots.remove(key) else { return false };
        self.by_addr.remove(&entry.addr);
        if let Some(id) = entry.id {
            self.by_node.remove(&(id, entry.addr));
        }
        true
    }
}

/// Results of dials and links.
impl AddressBook {
    /// Stops counting an address for its source.
    fn forget_source(&mut self, key: AddressKey) {
        let source = self.slots.get_mut(key).and_then(|entry| entry.source.take());
        if let Some((source, count)) =
            source.and_then(|source| Some((source, self.sources.get_mut(&source)?)))
        {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }

    /// Notes that a connection dials an address.
    pub(in crate::node) fn dialled(&mut self, key: AddressKey, conn: ConnKey) {
        self.dequeue(key);
        if let Some(entry) = self.slots.get_mut(key) {
            entry.dial = Some(conn);
        }
    }

    /// Notes a failed dial.
    pub(in crate::node) fn failed(&mut self, now: Instant, key: AddressKey) {
        if let Some(entry) = self.slots.get_mut(key) {
            entry.count_failure(now);
            entry.was_tried = true;
            entry.dial = None;
        }
    }

    /// Whether to log a failed dial to `addr`: no address of its configured peer is reachable, and that was not
    /// logged for a minute.
    pub(in crate::node) fn must_warn(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        is_linked: impl Fn(NodeId) -> bool,
    ) -> bool {
        let has_failed = |addr: &SocketAddr| {
            self.at(*addr).and_then(|key| self.get(key)).is_some_and(|entry| entry.failures > 0)
        };
        let is_due = |peer: &ConfiguredPeer| {
            let is_due = peer.warned_at.is_none_or(|then| now.since(then) >= WARN_EVERY);
            is_due && peer.addrs.contains(&addr) && peer.addrs.iter().all(has_failed)
        };
        let due = self
            .configured
            .iter()
            .position(|peer| is_due(peer) && !peer.is_own && !self.is_reached(peer, &is_linked));
        let Some(peer) = due.and_then(|at| self.configured.get_mut(at)) else { return false };
        peer.warned_at = Some(now);
        true
    }

    /// Notes a successful handshake. The dial counts as a success once the link has lasted for a heartbeat.
    pub(in crate::node) fn met(&mut self, key: AddressKey, id: NodeId) {
        self.set_node(key, id);
        self.forget_source(key);
        if let Some(entry) = self.slots.get_mut(key) {
            entry.is_self = false;
            entry.was_met = true;
            entry.was_tried = true;
            entry.dial = None;
        }
    }

    /// Notes that a dial reached this node itself.
    pub(in crate::node) fn found_self(&mut self, key: AddressKey) {
        if let Some(entry) = self.slots.get_mut(key) {
            entry.is_self = true;
            entry.was_tried = true;
            entry.dial = None;
        }
    }

    /// Notes that a linked node listens on an address.
    pub(in crate::node) fn linked(&mut self, key: AddressKey, id: NodeId) {
        self.set_node(key, id);
        self.forget_source(key);
        if let Some(entry) = self.slots.get_mut(key) {
            entry.was_tried = true;
            entry.was_linked = true;
        }
    }

    /// Notes that an address need not be dialled now. It counts as tried.
    pub(in crate::node) fn tried(&mut self, key: AddressKey) {
        if let Some(entry) = self.slots.get_mut(key) {
            entry.was_tried = true;
        }
    }

    /// Notes that a peer lists an address as that of a linked node.
    pub(in crate::node) fn listed(&mut self, now: Instant, key: AddressKey) {
        if let Some(entry) = self.slots.get_mut(key) {
            entry.listed_at = Some(now);
        }
    }

    /// Notes the announced node of an address.
    pub(in crate::node) fn set_node(&mut self, key: AddressKey, id: NodeId) {
        let Some(entry) = self.slots.get_mut(key) else { return };
        if let Some(before) = entry.id.replace(id) {
            self.by_node.remove(&(before, entry.addr));
        }
        self.by_node.insert((id, entry.addr));
    }

    /// Counts a failure of a node's addresses: its link broke within the first heartbeat.
    pub(in crate::node) fn count_failure(&mut self, now: Instant, id: NodeId) {
        for key in self.of_node(id) {
            if let Some(entry) = self.slots.get_mut(key) {
                entry.count_failure(now);
            }
        }
    }

    /// Counts a success of a node's addresses: its link has lasted for a heartbeat.
    pub(in crate::node) fn count_success(&mut self, id: NodeId) {
        for key in self.of_node(id) {
            if let Some(entry) = self.slots.get_mut(key) {
                entry.failures = 0;
            }
        }
    }
}

/// Timers and waiting for a free dial. O(log addresses) each.
impl AddressBook {
    /// Arms the timer of an address for `at`, unless it is armed for an earlier time.
    pub(in crate::node) fn arm<T: Copy>(
        &mut self,
        timers: &mut Wheel<T>,
        key: AddressKey,
        at: Instant,
        timer: T,
    ) {
        if let Some(entry) = self.slots.get_mut(key) {
            entry.alarm.arm(timers, at, timer);
        }
    }

    /// Whether the timer of an address that fired is the live one.
    pub(in crate::node) fn fired(&mut self, key: AddressKey, deadline: u64) -> bool {
        self.slots.get_mut(key).is_some_and(|entry| entry.alarm.fired(deadline))
    }

    /// Queues an address for a free dial.
    pub(in crate::node) fn wait(&mut self, key: AddressKey) {
        let Some(entry) = self.slots.get(key) else { return };
        let list =
            if entry.is_unverified() { &mut self.waiting_unverified } else { &mut self.waiting_verified };
        list.addrs.insert(entry.addr);
    }

    fn dequeue(&mut self, key: AddressKey) {
        let Some(entry) = self.slots.get(key) else { return };
        self.waiting_verified.addrs.remove(&entry.addr);
        self.waiting_unverified.addrs.remove(&entry.addr);
    }

    /// Takes the next waiting verified address.
    pub(in crate::node) fn next_verified(&mut self) -> Option<AddressKey> {
        self.waiting_verified.next().and_then(|addr| self.at(addr))
    }

    /// Takes the next waiting unverified address.
    pub(in crate::node) fn next_unverified(&mut self) -> Option<AddressKey> {
        self.waiting_unverified.next().and_then(|addr| self.at(addr))
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
        let (key, _) = address_book.note(Instant::ZERO, addr(1), Origin::Configured, None, 10).unwrap();
        let mut rng = Rng::new(1);
        for tries in 0..100u32 {
            address_book.failed(Instant::from_millis(u64::from(tries) * 1_000_000), key);
            let middle = (BACKOFF_MIN * 2u32.pow(tries.min(16))).min(BACKOFF_MAX);
            let wait = address_book.get(key).unwrap().backoff(&mut rng);
            assert!(wait >= middle * 3 / 4 && wait < middle * 5 / 4, "{wait:?} after {tries}");
        }
        let late = Instant::ZERO.after(FORGOTTEN_AFTER * 1_000);
        assert!(!address_book.forget_hopeless(late, key), "a configured address is never forgotten");
    }

    #[test]
    fn last_addresses_of_linked_nodes_are_kept_however_long_they_fail() {
        let mut address_book = AddressBook::default();
        let keys: Vec<_> = (0..u16::try_from(super::KEPT_MAX).unwrap() + 2)
            .map(|port| {
                let failing_since = Instant::from_millis(u64::from(port));
                let note = address_book.note(failing_since, addr(port + 1), Origin::Learned, None, 100);
                let (key, _) = note.unwrap();
                address_book.linked(key, crate::node::ids::NodeId([1; 16]));
                address_book.failed(failing_since, key);
                key
            })
            .collect();
        let late = Instant::ZERO.after(FORGOTTEN_AFTER * 1_000);
        let kept = keys.iter().filter(|key| !address_book.forget_hopeless(late, **key)).count();
        assert_eq!(kept, super::KEPT_MAX);
        assert!(address_book.get(keys[0]).is_none() && address_book.get(keys[1]).is_none());
    }

    #[test]
    fn full_book_takes_a_new_address_only_for_one_that_fails() {
        let mut address_book = AddressBook::default();
        let (first, _) = address_book.note(Instant::ZERO, addr(1), Origin::Learned, None, 2).unwrap();
        address_book.note(Instant::ZERO, addr(2), Origin::Learned, None, 2).unwrap();
        assert!(address_book.note(Instant::ZERO, addr(3), Origin::Learned, None, 2).is_none());
        assert_eq!(address_book.dropped(), 1);
        address_book.failed(Instant::ZERO, first);
        assert!(address_book.note(Instant::ZERO, addr(3), Origin::Learned, None, 2).is_some());
        assert_eq!(address_book.get(first).map(|entry| entry.addr), None);
        assert_eq!(address_book.len(), 2);
    }
}
