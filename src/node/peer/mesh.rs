//! The state of the mesh on this node: its identity, the address book, the peers and their filters, the lookups.

use crate::base::limiter::Limiter;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::config::Config;
use crate::filter::{FilterKey, PeerFilters};
use crate::node::conn::connection::CloseReason;
use crate::node::digest::publishing::Publishing;
use crate::node::ids::{AddressKey, ConnKey, NodeId, PeerKey};
use crate::node::lookup::table::Lookups;
use crate::node::peer::absent::Absent;
use crate::node::peer::address_book::AddressBook;
use crate::node::peer::clock_offsets::ClockOffsets;
use crate::node::peer::table::{Peer, Peers};
use crate::node::versions::moved::Moved;
use crate::store::{HashSecret, KeyHash, ScanCursor, Version};
use crate::wire::frame::{HINTS_MAX, Hints};
use crate::wire::handshake::{hash_check_text, keyed_bytes, other_key};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

/// What a node knows of a key that it does not hold.
#[derive(Debug)]
pub(in crate::node) struct Elsewhere {
    /// The highest version that it knows of, of a value on another node or of a deletion; 0: of none.
    pub(in crate::node) version: Version,
    ids: [[u8; 16]; HINTS_MAX],
    len: usize,
}

impl Elsewhere {
    /// The nodes that may hold the key: the one that was last known to, else those whose filter claims it.
    pub(in crate::node) fn hints(&self) -> Hints<'_> {
        Hints::new(&self.ids[..self.len])
    }

    fn add(&mut self, peer: Option<&Peer>) {
        if let (Some(peer), Some(id)) = (peer, self.ids.get_mut(self.len)) {
            *id = peer.id.0;
            self.len += 1;
        }
    }
}

/// The mesh, as this node sees it.
#[derive(Debug)]
pub(in crate::node) struct Mesh {
    pub(in crate::node) id: NodeId,
    /// The address that this node listens on.
    pub(in crate::node) listen: SocketAddr,
    /// The address that others are to dial instead, if it is another.
    advertise: Option<SocketAddr>,
    /// The hash secret, for the check of a handshake.
    hash_secret: HashSecret,
    /// The key from which ids and nonces are drawn; see [`Mesh::draw`].
    draw_key: [u8; 32],
    drawn: u64,
    pub(in crate::node) address_book: AddressBook,
    pub(in crate::node) peers: Peers,
    pub(in crate::node) absent: Absent,
    pub(in crate::node) clock_offsets: ClockOffsets,
    pub(in crate::node) filters: PeerFilters,
    pub(in crate::node) lookups: Lookups,
    /// Links, and connections in an outbound handshake.
    pub(in crate::node) conns: usize,
    /// Connections beyond `clients_max`, oldest first: handshakes that others began, and former links that are closing.
    pub(in crate::node) spare: VecDeque<ConnKey>,
    /// When an address may be dialled next although `active_peers` nodes are linked.
    pub(in crate::node) visit_at: Option<Instant>,
    /// Addresses being dialled, each with its connection. A few.
    pub(in crate::node) dials: Vec<(AddressKey, ConnKey)>,
    /// The rate of dials of unverified addresses.
    pub(in crate::node) unverified_dials: Limiter,
    /// Keys not stored here that were searched for in the peers' filters.
    pub(in crate::node) checks: u64,
    /// What is published of the own filter when.
    pub(in crate::node) publishing: Publishing,
    /// Links and dials that have ended and are to be reconciled.
    pub(in crate::node) lost_links: VecDeque<(PeerKey, ConnKey)>,
    /// Why the shell lost a connection, while the call that reported it runs.
    pub(in crate::node) loss_cause: String,
    pub(in crate::node) lost_dials: VecDeque<(AddressKey, ConnKey, CloseReason)>,
    /// The result of the last search, kept for its memory.
    pub(in crate::node) claims: Vec<FilterKey>,
    /// Where keys are that other nodes wrote.
    pub(in crate::node) moved: Moved,
    /// Additions of peers that are to be answered at the end of the entry point.
    pub(in crate::node) unanswered: BTreeSet<(PeerKey, KeyHash)>,
    /// Up to which version all keys are gone.
    pub(in crate::node) floor: Version,
    /// The position in the own keys, while they are tested against the floor.
    pub(in crate::node) floor_scan: Option<ScanCursor>,
    /// Peers whose resync goes on; each once.
    pub(in crate::node) resyncs: VecDeque<PeerKey>,
    /// Peers whose discarded deletions the own keys are tested against.
    pub(in crate::node) discards: VecDeque<PeerKey>,
}

impl Mesh {
    pub(in crate::node) fn new(config: &Config, hash_secret: HashSecret, rng: &mut Rng) -> Self {
        let mut draw_key = [0; 32];
        rng.fill(&mut draw_key);
        let mut mesh = Self {
            id: NodeId([0; 16]),
            listen: SocketAddr::new(config.bind, config.listen_port),
            advertise: config.advertise,
            hash_secret,
            draw_key,
            drawn: 0,
            address_book: AddressBook::default(),
            peers: Peers::default(),
            absent: Absent::default(),
            clock_offsets: ClockOffsets::default(),
            filters: PeerFilters::new(config.limits.peer_filters_max),
            lookups: Lookups::default(),
            conns: 0,
            spare: VecDeque::new(),
            visit_at: None,
            dials: Vec::new(),
            unverified_dials: Limiter::default(),
            checks: 0,
            publishing: Publishing::default(),
            loss_cause: String::new(),
            lost_links: VecDeque::new(),
            lost_dials: VecDeque::new(),
            claims: Vec::new(),
            moved: Moved::default(),
            unanswered: BTreeSet::new(),
            floor: Version::default(),
            floor_scan: None,
            resyncs: VecDeque::new(),
            discards: VecDeque::new(),
        };
        mesh.id = NodeId(mesh.draw());
        mesh
    }

    /// 16 bytes that cannot be predicted from earlier ones, unlike the numbers of [`Rng`].
    pub(in crate::node) fn draw(&mut self) -> [u8; 16] {
        self.drawn += 1;
        keyed_bytes(&self.draw_key, self.drawn)
    }

    /// What an offer with this nonce has as its hash if its node has our hash secret.
    pub(in crate::node) fn hash_check(&self, nonce: &[u8; 16]) -> u64 {
        self.hash_secret.hash(&hash_check_text(nonce)).0
    }

    /// The address that is sent to others.
    pub(in crate::node) fn advertised(&self) -> SocketAddr {
        self.advertise.unwrap_or(self.listen)
    }

    /// Whether an address is one of this node, as far as it was told.
    pub(in crate::node) fn is_own(&self, addr: SocketAddr) -> bool {
        addr == self.listen || self.advertise == Some(addr)
    }

    /// Draws another id, which differs from that of a copy of this node: `salt` is what the copy does not have.
    pub(in crate::node) fn redraw_id(&mut self, salt: &str) {
        self.draw_key = other_key(&self.draw_key, salt.as_bytes());
        self.id = NodeId(self.draw());
    }

    /// Has a step go on with the resync of a peer, if there is one.
    pub(in crate::node) fn enqueue_resync(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key)
            && peer.resync.is_some()
            && !std::mem::replace(&mut peer.is_in_resyncs, true)
        {
            self.resyncs.push_back(key);
        }
    }

    /// Whether a peer's filter claims the hash.
    pub(in crate::node) fn claims(&self, peer: PeerKey, hash: u64) -> bool {
        self.peers.get(peer).is_some_and(|peer| self.filters.claims(peer.filter, hash))
    }

    /// Whether a call of the node has left something to do before it returns: lost links and dials, complete requests,
    /// errands.
    #[inline]
    pub(in crate::node) fn must_reconcile(&self) -> bool {
        let Lookups { whole, errands, .. } = &self.lookups;
        !(self.lost_links.is_empty() && self.lost_dials.is_empty() && whole.is_empty() && errands.is_empty())
    }

    /// What this node knows of a key that it does not hold; not of the peer that asks. `tombstone` is the version of
    /// the key's tombstone, if there is one.
    pub(in crate::node) fn elsewhere(
        &mut self,
        hash: KeyHash,
        tombstone: Option<Version>,
        asker: PeerKey,
    ) -> Elsewhere {
        let Self { claims, filters, peers, moved, .. } = self;
        let moved = moved.get(hash);
        let version = moved.map(|moved| moved.version).max(tombstone).unwrap_or_default();
        let mut elsewhere = Elsewhere { version, ids: Default::default(), len: 0 };
        claims.clear();
        let holder = moved.and_then(|moved| moved.holder).filter(|holder| *holder != asker);
        match holder.and_then(|holder| peers.get(holder)).filter(|holder| !holder.has_left) {
            Some(holder) => elsewhere.add(Some(holder)),
            None => filters.claimants(hash.0, claims),
        }
        let claimants = claims.iter().filter_map(|filter| peers.by_filter(*filter));
        claimants.filter(|peer| *peer != asker).for_each(|peer| elsewhere.add(peers.get(peer)));
        elsewhere
    }

    /// Searches the filters of linked peers for a hash. Stores the claimants in `claims`; returns whether there is a
    /// peer to query, by its claim or because its filter is unknown.
    #[inline]
    pub(in crate::node) fn may_be_elsewhere(&mut self, hash: u64) -> bool {
        self.claims.clear();
        if self.peers.linked_count() == 0 {
            return false;
        }
        self.filters.claimants(hash, &mut self.claims);
        let Self { claims, filters, peers, moved, .. } = self;
        let holder = moved.get(KeyHash(hash)).and_then(|moved| peers.get(moved.holder?));
        claims.extend(holder.map(|holder| holder.filter).filter(|holder| !claims.contains(holder)));
        let is_queryable = |filter: &FilterKey| {
            peers.by_filter(*filter).and_then(|peer| peers.get(peer)).is_some_and(Peer::is_queryable)
        };
        claims.iter().chain(filters.unknown()).any(is_queryable)
    }
}
