//! After the last fault everything must recover within a bounded time: every link is up, every digest equals its
//! filter, every live key is found from every node, and nothing is left to do but heartbeats.

use super::boundary;
use super::host::Kind;
use super::net::MS;
use super::oracle::{Item, Local};
use super::pending::What;
use super::protocol::Verb;
use super::world::{Event, World};
use olivia::node::Node;

/// The longest wait between two tries of a dialler, with its jitter, and the look at backups.
const WHOLE_WITHIN: u64 = 90_000 * MS;

/// Time limit for readers that fall asleep to read their replies.
const REST_WITHIN: u64 = 30_000 * MS;

/// Requests of clients after the faults.
const CALM_REQUESTS: u64 = 300;

/// Keys of one request, and in all.
const KEYS_PER_REQUEST: usize = 8;
const KEYS_MAX: usize = 100;

/// Keys that no node holds, and the first of them.
const ABSENT_KEYS: u32 = 240;
const ABSENT_FROM: u32 = 1_000_000;

/// Keys that get a TTL at the end, the first of them, and TTL requests for them.
const LIVES: u32 = 12;
const LIVES_FROM: u32 = 2_000_000;
const LIVES_ASKED: usize = 60;

impl World {
    /// Ends all faults and checks what must hold then.
    pub fn finale(&mut self) {
        self.ops_left = 0;
        self.style.sleepy = 0;
        self.heal();
        let end = self.net.now + WHOLE_WITHIN;
        while let Some(missing) = self.missing() {
            assert!(self.net.now < end, "still not whole: {missing}");
            self.run_until(self.net.now + 250 * MS);
        }
        self.newest.whole_since = Some(self.net.now);
        self.calm_talk();
        self.rest();
        self.check_digests();
        self.find_all();
        self.find_appended();
        self.find_none();
        self.find_lives();
        self.rest();
        self.check_agreement();
        self.check_idle();
    }

    /// Returns a description of an unmet condition of a recovered mesh, if there is one.
    fn missing(&self) -> Option<String> {
        let enough = (self.plan.active_peers as usize).min(self.members - 1);
        for at in 0..self.members {
            let host = &self.hosts[at];
            let Some(node) = host.node.as_ref().filter(|_| host.is_well()) else {
                return Some(format!("host {at} is down"));
            };
            let now = host.now(self.net.now);
            let linked = boundary::linked(node, now);
            if enough == self.members - 1 {
                for other in (0..self.members).filter(|other| *other != at) {
                    if !linked.contains(&self.hosts[other].addr) {
                        return Some(format!("host {at} is not linked to host {other}"));
                    }
                }
            }
            if linked.is_empty() {
                return Some(format!("host {at} has no link"));
            }
            let is_linked = |host: &&super::host::Host| linked.contains(&host.addr);
            let strangers = self.hosts.iter().filter(|host| host.kind == Kind::Stranger);
            assert!(
                strangers.filter(is_linked).count() == 0,
                "host {at} is linked to a node with another secret"
            );
            if let Some(unknown) = boundary::unknown_filter(node, now).filter(|_| !self.plan.is_cramped) {
                return Some(format!("host {at} does not know the filter of {unknown}"));
            }
            if let Some(silent) = boundary::silent(node, now).first() {
                return Some(format!("host {at} does not query {silent}"));
            }
        }
        None
    }

    /// Clients go on, and everything is checked strictly.
    fn calm_talk(&mut self) {
        let calm = self.calm_since();
        self.run_until(calm.max(self.net.now));
        // What hostile peers sent is gone by now.
        self.has_hostile_peers = false;
        self.ops_left = CALM_REQUESTS;
        for client in 0..self.clients.len() {
            self.agenda.put(self.net.now, Event::Client(client));
        }
        for _ in 0..400 {
            if self.ops_left == 0 {
                return;
            }
            self.run_until(self.net.now + 100 * MS);
        }
        panic!("clients come to nothing: {} requests are left", self.ops_left);
    }

    /// Lets everything come to rest.
    fn rest(&mut self) {
        let end = self.net.now + REST_WITHIN;
        while self.net.now < end && !self.clients.iter().all(super::client::Client::is_content) {
            self.run_until(self.net.now + 100 * MS);
        }
        self.run_until(self.net.now + 1_500 * MS);
        for (at, client) in self.clients.iter().enumerate() {
            assert!(client.is_content(), "client {at} waits for ever: {:?}", client.pending.front());
        }
        self.hosts.iter().filter_map(|host| host.node.as_ref()).for_each(Node::audit);
        for at in 0..self.hosts.len() {
            // At any one moment something may have become due just now.
            let is_resting = (0..50).any(|_| {
                self.run_until(self.net.now + 3 * MS);
                let host = &self.hosts[at];
                host.node.as_ref().is_none_or(|node| !node.has_work(host.now(self.net.now)))
            });
            assert!(is_resting, "host {at} has work for ever");
        }
    }

    fn check_digests(&self) {
        for at in (0..self.members).filter(|_| !self.plan.is_cramped) {
            for other in (0..self.members).filter(|other| *other != at) {
                let (Some(node), Some(peer)) = (&self.hosts[at].node, &self.hosts[other].node) else {
                    continue;
                };
                if let Err(wrong) = boundary::compare(node, peer, self.hosts[at].now(self.net.now)) {
                    panic!("host {at} has a wrong view of the filter of host {other}: {wrong}");
                }
            }
        }
    }

    /// Requests every key with enough TTL from every node.
    fn find_all(&mut self) {
        let until = self.net.now + 60_000 * MS;
        let mut keys: Vec<u32> = (0..self.members).flat_map(|at| self.oracle.keys_held(at, until)).collect();
        keys.sort_unstable();
        keys.dedup();
        let spare = keys.len().saturating_sub(KEYS_MAX);
        for _ in 0..spare {
            let at = usize::try_from(self.rng.below(keys.len() as u64)).unwrap();
            keys.swap_remove(at);
        }
        let is_quick = !self.plan.is_fine || self.members <= 4;
        self.is_strict = is_quick && self.plan.lookup_timeout_ms >= 40;
        let readers: Vec<usize> = (0..self.members).map(|host| self.add_client(host)).collect();
        self.run_until(self.net.now + 100 * MS);
        let before = self.replies;
        let mut sent = 0;
        for reader in readers {
            let is_slow = self.plan.is_tight || self.style.padding > 1_000;
            let at_once = if is_slow { 1 } else { KEYS_PER_REQUEST };
            for keys in keys.chunks(at_once) {
                let item = |key: &u32| Item { key: *key, value: usize::MAX, seconds: 0 };
                let items: Vec<Item> = keys.iter().map(item).collect();
                sent += 1;
                assert!(
                    self.request_now(reader, What::Keys(Verb::Get, items)),
                    "the client is not connected"
                );
                let claims = What::Keys(Verb::Who, vec![item(&keys[0])]);
                sent += 1;
                assert!(self.request_now(reader, claims), "the client is not connected");
                // One after the other, so that nothing can be late but by a mistake.
                self.run_until(self.net.now + 40 * MS);
            }
            self.run_until(self.net.now + 50 * MS);
        }
        self.run_until(self.net.now + 1_000 * MS);
        assert_eq!(self.replies - before, sent, "not everything is answered");
    }

    /// Requests absent keys from every node: nearly all are answered without a query.
    fn find_none(&mut self) {
        if self.plan.is_cramped {
            return;
        }
        let queries =
            |world: &Self, at: usize| world.hosts[at].node.as_ref().map_or(0, |node| node.stats().queries);
        for at in 0..self.members {
            let reader = self.add_client(at);
            self.run_until(self.net.now + 100 * MS);
            let before = queries(self, at);
            for key in 0..ABSENT_KEYS {
                let item = Item { key: ABSENT_FROM + key, value: usize::MAX, seconds: 0 };
                assert!(
                    self.request_now(reader, What::Keys(Verb::Get, vec![item])),
                    "the client is not connected"
                );
            }
            self.run_until(self.net.now + 500 * MS);
            let sent = queries(self, at) - before;
            // Ten times what filters of the worst fill should claim.
            let most = 4 + u64::from(ABSENT_KEYS) * (self.members as u64 - 1) / 20;
            assert!(sent <= most, "host {at} sent {sent} queries for {ABSENT_KEYS} absent keys");
        }
    }

    /// Requests TTLs at the only moments that show how they are rounded: about when a whole number
    /// of seconds is left, and up to the milliseconds by which an answer of a peer is too short.
    fn find_lives(&mut self) {
        let readers: Vec<usize> = (0..self.members).map(|host| self.add_client(host)).collect();
        self.run_until(self.net.now + 100 * MS);
        let mut moments = Vec::new();
        for key in LIVES_FROM..LIVES_FROM + LIVES {
            let host = usize::try_from(self.rng.below(self.members as u64)).unwrap();
            let value = self.oracle.new_value(host, key, 0);
            let item = Item { key, value, seconds: 2 };
            assert!(
                self.request_now(readers[host], What::Keys(Verb::SetEx, vec![item])),
                "the client is not connected"
            );
            let later = 40 * MS + self.rng.below(MS);
            self.run_until(self.net.now + later);
            let Local::Here(_, deadline) = self.oracle.local(host, key, self.net.now) else { continue };
            for reader in readers.iter().filter(|reader| **reader != readers[host]) {
                moments.push((deadline - 1_000 * MS - self.rng.below(4 * MS), *reader, key));
            }
        }
        moments.sort_unstable();
        for (moment, reader, key) in moments.into_iter().take(LIVES_ASKED) {
            self.run_until(moment);
            let item = Item { key, value: usize::MAX, seconds: 0 };
            assert!(
                self.request_now(reader, What::Keys(Verb::Ttl, vec![item])),
                "the client is not connected"
            );
        }
        self.run_until(self.net.now + 3_000 * MS);
        for reader in readers {
            assert!(self.request_now(reader, What::Stats), "the client is not connected");
        }
    }

    /// Checks that only heartbeats are sent.
    fn check_idle(&mut self) {
        let heartbeats = 5;
        let before: Vec<u64> = self.hosts.iter().map(|host| host.iterations).collect();
        let span = heartbeats * u64::from(self.plan.heartbeat_ms) * MS;
        let begin = self.net.now;
        self.run_until(begin + span);
        for (at, host) in self.hosts.iter().enumerate().filter(|(_, host)| host.is_well()) {
            let iterations = host.iterations - before[at];
            // A beat and its answer for each peer, each in pieces and at moments of their own; a dial now
            // and then.
            let pieces = if self.plan.manners.piece < 100 || self.plan.read_bytes < 100 { 80 } else { 16 };
            let endings = self.oracle.endings(at, begin, begin + span + 100 * MS);
            let most = (heartbeats + 2) * self.hosts.len() as u64 * pieces + 100 + 2 * endings;
            assert!(iterations <= most, "host {at} had {iterations} turns in {heartbeats} beats, not {most}");
        }
    }
}
