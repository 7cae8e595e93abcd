//! A hostile member of the mesh: it holds the secret and uses the protocol, claims keys that it does not have, answers
//! late, twice, for other keys or without a query, sends digests that are full, too large, out of order or of an older
//! epoch, and invalid frames.
//!
//! It has no node, no clock of its own and keeps no contract. Its value in answer to a query, for the queried key, is
//! acceptable; no other value of it may reach a client.

use super::host::{Kind, State};
use super::kit::peer::Face;
use super::net::{MS, Party, Port, Read, US};
use super::world::{Event, World};
use crate::kit::peer::none;
use olivia::base::rng::Rng;
use olivia::node::NodeId;
use olivia::wire::frame::{
    self, Address, Body, Frame, FrameLimits, Head, Parsed, put, put_blocks, put_deltas, put_peers, put_piece,
};
use olivia::wire::handshake::{Answer, ConnectArgs, hash_check_text, put_welcome, read_answer, read_request};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

const LIMITS: FrameLimits = FrameLimits { key_bytes_max: 1 << 20, value_bytes_max: 1 << 24 };

/// Keys that a hostile peer claims to have.
const CLAIMED_KEYS: u64 = 40;

/// A hostile member's value of a key.
pub fn forged_value(key: &[u8]) -> Vec<u8> {
    format!("hostile_peer.{:x}", xxh3_64(key)).into_bytes()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Dialled, and waits for an offer; or was dialled.
    Offering,
    Proving,
    Linked,
}

#[derive(Debug)]
struct Link {
    port: Port,
    stage: Stage,
    own: Face,
    theirs: Face,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    /// Our proof was wrong: we must not be welcome.
    is_unproven: bool,
    /// Answers kept for later.
    late: Vec<u8>,
    seq: u64,
}

/// The part of its filter that a hostile member has sent to one node, over any links.
#[derive(Debug, Clone, Copy, Default)]
pub struct Published {
    /// All changes before this one.
    pub next: u64,
    /// Every block of it, at some time.
    pub is_whole: bool,
}

/// A hostile peer's side of its links.
#[derive(Debug, Default)]
pub struct HostilePeer {
    id: [u8; 16],
    epoch: u64,
    links: Vec<Link>,
    published: BTreeMap<[u8; 16], Published>,
}

impl World {
    fn hostile_peer(&mut self, at: usize) -> Option<&mut HostilePeer> {
        self.hostile_peers.get_mut(&at)
    }

    fn link_at(&mut self, at: usize, port: Port) -> Option<&mut Link> {
        self.hostile_peer(at)?.links.iter_mut().find(|link| link.port == port)
    }

    /// Returns the part of its filter that the hostile member of this id has sent to a node.
    pub fn published_by_hostile(&self, hostile_peer: NodeId, node: NodeId) -> Option<Published> {
        let hostile_peer = self.hostile_peers.values().find(|other| other.id == hostile_peer.0)?;
        Some(hostile_peer.published.get(&node.0).copied().unwrap_or_default())
    }

    /// A hostile member is about to send so many deltas from this number on.
    fn hostile_peer_published(&mut self, at: usize, port: Port, first: u64, count: u64) {
        let Some(node) = self.link_at(at, port).map(|link| link.theirs.node) else { return };
        let Some(hostile_peer) = self.hostile_peer(at) else { return };
        let published = hostile_peer.published.entry(node).or_default();
        if first <= published.next {
            published.next = published.next.max(first + count);
        }
    }

    pub fn hostile_peer_start(&mut self, at: usize) {
        let mut hostile_peer =
            HostilePeer { epoch: 1_700_000_000_000 + self.net.now / MS, ..HostilePeer::default() };
        self.rng.fill(&mut hostile_peer.id);
        self.hostile_peers.insert(at, hostile_peer);
        self.agenda.put(self.net.now + MS, Event::Hostile(at));
    }

    pub fn hostile_peer_stop(&mut self, at: usize) {
        let Some(hostile_peer) = self.hostile_peers.remove(&at) else { return };
        for link in hostile_peer.links {
            self.net.reset(&mut self.agenda, link.port);
        }
    }

    pub fn hostile_peer_accept(&mut self, at: usize) {
        if self.hosts[at].kind != Kind::Hostile {
            return;
        }
        while let Some(port) = self.hosts[at].backlog.pop_front() {
            self.net.open(port, None);
            self.add_link(at, port);
            self.hostile_peer_read(at, port);
        }
    }

    fn add_link(&mut self, at: usize, port: Port) {
        let listen = self.hosts[at].addr.to_string();
        let wall_ms = self.hosts[at].now(self.net.now).wall_ms();
        let mut own = Face { listen, wall_ms, secret: self.plan.secret, ..Face::new(0) };
        self.rng.fill(&mut own.nonce);
        own.hash = self.hashes.hash(&hash_check_text(&own.nonce)).0;
        let Some(hostile_peer) = self.hostile_peer(at) else { return };
        own.node = hostile_peer.id;
        let theirs = Face { node: [0; 16], ..own.clone() };
        let (inbound, outbound, late) = (Vec::new(), Vec::new(), Vec::new());
        let (stage, is_unproven, seq) = (Stage::Offering, false, 0);
        hostile_peer.links.push(Link { port, stage, own, theirs, inbound, outbound, is_unproven, late, seq });
    }

    pub fn hostile_peer_connected(&mut self, at: usize, port: Port) {
        if self.hosts[at].kind != Kind::Hostile {
            return;
        }
        self.add_link(at, port);
        let offer = self.link_at(at, port).map_or(Vec::new(), |link| link.own.offer_line());
        self.hostile_peer_send(at, port, &offer);
    }

    pub fn hostile_peer_reset(&mut self, at: usize, port: Port) {
        if let Some(hostile_peer) = self.hostile_peer(at) {
            hostile_peer.links.retain(|link| link.port != port);
        }
    }

    /// The other end has sent its offer: the line with which the hostile peer answers, its proof right or wrong.
    fn hostile_peer_proof(
        &mut self,
        at: usize,
        port: Port,
        theirs: Face,
        line: fn(&Face, &Face) -> Vec<u8>,
    ) -> Vec<u8> {
        let is_wrong = self.rng.one_in(8);
        let Some(link) = self.link_at(at, port) else { return Vec::new() };
        link.is_unproven = is_wrong && link.own.secret.is_some();
        let nonce = if is_wrong { link.own.nonce } else { theirs.nonce };
        (link.stage, link.theirs) = (Stage::Proving, theirs);
        line(&link.own, &Face { nonce, ..link.theirs.clone() })
    }

    fn hostile_peer_send(&mut self, at: usize, port: Port, bytes: &[u8]) {
        if let Some(link) = self.link_at(at, port) {
            link.outbound.extend_from_slice(bytes);
        }
        self.hostile_peer_write(at, port);
    }

    /// Writes what there is room for.
    pub fn hostile_peer_write(&mut self, at: usize, port: Port) {
        let Some(link) = self.link_at(at, port) else { return };
        let bytes = std::mem::take(&mut link.outbound);
        let count = self.net.write(&mut self.agenda, port, &bytes);
        if let Some(link) = self.link_at(at, port) {
            link.outbound = bytes[count..].to_vec();
        }
    }

    /// Handles the arrival of bytes on a link of a hostile peer.
    pub fn hostile_peer_read(&mut self, at: usize, port: Port) {
        if self.link_at(at, port).is_none() {
            return;
        }
        let mut bytes = Vec::new();
        loop {
            match self.net.read(&mut self.agenda, port, usize::MAX, &mut bytes) {
                Read::Bytes => {
                    if let Some(link) = self.link_at(at, port) {
                        link.inbound.extend_from_slice(&bytes);
                    }
                }
                Read::Nothing => break,
                Read::End => {
                    self.net.close(&mut self.agenda, port);
                    return self.hostile_peer_reset(at, port);
                }
            }
        }
        while self.hostile_peer_take_one(at, port) {}
    }

    /// Takes one line or frame of what has come; false if there is none.
    fn hostile_peer_take_one(&mut self, at: usize, port: Port) -> bool {
        let Some(link) = self.link_at(at, port) else { return false };
        let inbound = std::mem::take(&mut link.inbound);
        let used = if link.stage == Stage::Linked {
            match frame::parse(&inbound, LIMITS) {
                Parsed::Frame { frame, consumed } => {
                    self.hostile_peer_answer(at, port, &frame);
                    consumed
                }
                Parsed::Partial => 0,
                Parsed::Oversized { .. } | Parsed::Fragment { .. } => {
                    panic!("a node has sent a frame that is too long")
                }
                Parsed::Broken(error) => panic!("a node has sent a frame that is none: {error}"),
            }
        } else if let Some(end) = inbound.iter().position(|byte| *byte == b'\n') {
            self.hostile_peer_handshake(at, port, &inbound[..end]);
            end + 1
        } else {
            0
        };
        if let Some(link) = self.link_at(at, port) {
            link.inbound = inbound[used..].to_vec();
        }
        used > 0
    }

    /// A line of the handshake has come.
    fn hostile_peer_handshake(&mut self, at: usize, port: Port, line: &[u8]) {
        let mut out = Vec::new();
        let is_dialler = port.side == 0;
        if is_dialler {
            match read_answer(line) {
                Ok(Answer::Offer(theirs, _)) => {
                    out = self.hostile_peer_proof(at, port, Face::of(&theirs), Face::proof_line);
                }
                Ok(Answer::Welcome) => {
                    let is_unproven = self.link_at(at, port).is_some_and(|link| link.is_unproven);
                    assert!(!is_unproven, "a wrong proof was welcome");
                    self.linked(at, port);
                }
                Ok(Answer::Full(_) | Answer::Refused(_)) | Err(_) => {}
            }
        } else if let Some(args) = line.strip_prefix(b"h1:REQUEST connect ") {
            if let Ok(ConnectArgs::Offer(theirs)) = read_request(args) {
                out = self.hostile_peer_proof(at, port, Face::of(&theirs), Face::counter_line);
            }
        } else if line.starts_with(b"h2:REQUEST connect ") {
            let is_unproven = self.link_at(at, port).is_some_and(|link| link.is_unproven);
            assert!(!is_unproven, "a wrong proof was accepted");
            put_welcome(&mut out, b"h2");
            self.linked(at, port);
        }
        self.hostile_peer_send(at, port, &out);
    }

    fn linked(&mut self, at: usize, port: Port) {
        self.seen.add("links of hostile_peers", 1);
        if let Some(link) = self.link_at(at, port) {
            link.stage = Stage::Linked;
        }
    }

    fn clock(&self) -> u64 {
        (1_700_000_000_000 + self.net.now / MS) << 20
    }

    /// Answers a frame, rightly or wrongly, or not at all.
    fn hostile_peer_answer(&mut self, at: usize, port: Port, frame: &Frame<'_>) {
        let (clock, variant) = (self.clock(), self.rng.below(10));
        let mut out = Vec::new();
        if let Body::Get { key, .. } = &frame.body {
            let hash = self.hashes.hash(key).0;
            let value = forged_value(key);
            let none = none(hash);
            let good = Body::Value { hash, version: clock, left_ms: None, value: &value };
            let forged = Body::Value { hash: hash ^ 1, version: clock, left_ms: None, value: b"forged" };
            let stranger = Body::Value { hash, version: clock, left_ms: None, value: b"forged" };
            match variant {
                0 => put(&mut out, clock, frame.request, &good),
                1 => put(&mut out, clock, frame.request, &forged),
                2 => put(&mut out, clock, frame.request.wrapping_add(1 << 20), &stranger),
                3 => {
                    let mut late = Vec::new();
                    put(&mut late, clock, frame.request, &good);
                    if let Some(link) = self.link_at(at, port) {
                        link.late.extend(late);
                    }
                }
                4 => {}
                5 => (0..2).for_each(|_| put(&mut out, clock, frame.request, &none)),
                _ => put(&mut out, clock, frame.request, &none),
            }
        } else if matches!(frame.body, Body::Heartbeat { is_answer: false, .. }) && variant > 0 {
            let head = self.head(at, port);
            let wall_ms = self.hosts[at].now(self.net.now).wall_ms();
            put(
                &mut out,
                clock,
                frame.request,
                &Body::Heartbeat { head, wall_ms, ack: clock, is_answer: true },
            );
        } else if matches!(frame.body, Body::Resync(_)) {
            self.put_snapshot(at, port, variant, &mut out);
        }
        self.hostile_peer_send(at, port, &out);
    }

    fn head(&mut self, at: usize, port: Port) -> Head {
        let epoch = self.hostile_peer(at).map_or(0, |hostile_peer| hostile_peer.epoch);
        Head { epoch, seq: self.link_at(at, port).map_or(0, |link| link.seq) }
    }

    /// A snapshot, wrong in one way or another.
    fn put_snapshot(&mut self, at: usize, port: Port, variant: u64, out: &mut Vec<u8>) {
        let (clock, mut head) = (self.clock(), self.head(at, port));
        let size_log2 = if variant == 0 { 26 } else { 6 };
        if variant == 1 {
            head.epoch -= 1_000;
        }
        put(out, clock, 0, &Body::Snap { head, size_log2 });
        let blocks = if variant == 7 { 40 } else { 64 };
        let node = self.link_at(at, port).map_or([0; 16], |link| link.theirs.node);
        if let Some(hostile_peer) = self.hostile_peer(at) {
            let published = hostile_peer.published.entry(node).or_default();
            published.next = published.next.max(head.seq);
            published.is_whole |= blocks == 64 && ![0, 5].contains(&variant);
        }
        let word = match variant {
            2 => u64::MAX,
            3 | 4 => self.rng.next_u64() & self.rng.next_u64(),
            _ => 0,
        };
        put_piece(out, clock, if variant == 5 { 3 } else { 0 }, &[word; 8 * 64][..8 * blocks]);
        if variant != 6 {
            put(out, clock, 0, &Body::SnapEnd);
        }
    }

    /// A hostile member does something by itself.
    pub fn hostile_peer_act(&mut self, at: usize) {
        if self.hosts[at].state == State::Down || self.hostile_peer(at).is_none() {
            return;
        }
        let later = self.rng.below(60 * MS);
        self.agenda.put(self.net.now + later + 100 * US, Event::Hostile(at));
        let ports: Vec<Port> =
            self.hostile_peer(at).map_or(Vec::new(), |l| l.links.iter().map(|l| l.port).collect());
        if ports.len() < self.members && self.rng.one_in(4) {
            let to = usize::try_from(self.rng.below(self.members as u64)).unwrap();
            self.net.dial(&mut self.agenda, Party::Host(at), to, None);
        }
        for port in ports {
            if self.link_at(at, port).is_some_and(|link| link.stage == Stage::Linked) {
                self.hostile_peer_send_wrong(at, port);
            }
        }
    }

    fn hostile_peer_send_wrong(&mut self, at: usize, port: Port) {
        let (clock, head) = (self.clock(), self.head(at, port));
        let wall_ms = self.hosts[at].now(self.net.now).wall_ms();
        let mut out = self.link_at(at, port).map_or(Vec::new(), |link| std::mem::take(&mut link.late));
        let mut rng = Rng::new(self.rng.next_u64());
        match rng.below(40) {
            0..10 => {
                let keys = (0..1 + rng.below(CLAIMED_KEYS)).map(|_| rng.below(self.style.keys));
                let hashes: Vec<u64> = keys
                    .map(|key| self.hashes.hash(&super::oracle::key_text(u32::try_from(key).unwrap())).0)
                    .collect();
                if let Some(link) = self.link_at(at, port) {
                    link.seq += hashes.len() as u64;
                }
                self.hostile_peer_published(at, port, head.seq, hashes.len() as u64);
                put_deltas(&mut out, clock, head.seq, hashes.into_iter());
            }
            10 => put_deltas(&mut out, clock, rng.next_u64(), [rng.next_u64()].into_iter()),
            11 => put_blocks(&mut out, clock, head.seq, [(u32::MAX, [u64::MAX; 8])].into_iter()),
            12 => {
                self.hostile_peer_published(at, port, head.seq, 1);
                put_blocks(&mut out, clock, head.seq, [(1, [u64::MAX; 8])].into_iter());
            }
            13 => {
                self.hostile_peer_published(at, port, 0, 1);
                put_blocks(&mut out, clock, rng.next_u64(), [(0, [rng.next_u64(); 8])].into_iter());
            }
            14 => put(
                &mut out,
                clock,
                0,
                &Body::Resync(Some(Head { epoch: rng.next_u64(), seq: rng.next_u64() })),
            ),
            15 => put(&mut out, clock, 0, &Body::Resync(None)),
            16 => put(
                &mut out,
                clock,
                0,
                &Body::Heartbeat {
                    head: Head { epoch: head.epoch, seq: u64::MAX },
                    wall_ms,
                    ack: u64::MAX,
                    is_answer: true,
                },
            ),
            17 => (0..20).for_each(|n| {
                put(&mut out, clock, n, &Body::Heartbeat { head, wall_ms, ack: clock, is_answer: false })
            }),
            18 => put(&mut out, clock, 0, &Body::Bye(b"no reason")),
            19 => {
                let hosts = self.hosts.iter().map(|host| Address { id: [7; 16], addr: host.addr });
                put_peers(&mut out, clock, hosts.collect::<Vec<_>>().into_iter());
            }
            20 => {
                let value =
                    Body::Value { hash: rng.next_u64(), version: 0, left_ms: Some(5), value: b"forged" };
                put(&mut out, clock, u32::try_from(rng.below(50)).unwrap(), &value);
            }
            21 => put(&mut out, clock, 3, &Body::Get { key: b"k1", wanted: frame::Wanted::Ttl }),
            22 => out.extend((0..30).map(|_| rng.next_u64().to_le_bytes()[0])),
            23 => out.extend([frame::MAGIC, 10, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0]),
            24 => put(&mut out, clock, 0, &Body::SnapEnd),
            25 => put_piece(&mut out, clock, 0, &[rng.next_u64(); 64]),
            26 => self.put_snapshot(at, port, rng.below(8), &mut out),
            // Some changes are left out.
            27..30 => {
                let first = head.seq + 1 + rng.below(3);
                self.hostile_peer_published(at, port, first, 1);
                put_deltas(&mut out, clock, first, [rng.next_u64()].into_iter());
            }
            _ => {}
        }
        self.hostile_peer_send(at, port, &out);
    }
}
