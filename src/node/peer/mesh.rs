//! The state of the mesh on this node: its id, the address book, the peers and their filters, the lookups.

use crate::base::limiter::Limiter;
use crate::base::rng::Rng;
use crate::base::slots::Slots;
use crate::base::time::Now;
use crate::config::Config;
use crate::filter::{FilterKey, PeerFilters};
use crate::limits::SPARE_HANDSHAKES;
use crate::node::conn::connection::Conn;
use crate::node::conn::phase::CloseReason;
use crate::node::conn::role::Role;
use crate::node::digest::publishing::Publishing;
use crate::node::ids::{AddressKey, ConnKey, ConnTag, NodeId, PeerKey};
use crate::node::lookup::forwarded::CommandQueue;
use crate::node::lookup::pending_request::PendingRequests;
use crate::node::lookup::table::Lookups;
use crate::node::peer::absent::Absent;
use crate::node::peer::address_book::AddressBook;
use crate::node::peer::clock_offsets::ClockOffsets;
use crate::node::peer::dials::Dials;
use crate::node::peer::losses::Losses;
use crate::node::peer::table::{Peer, Peers};
use crate::node::versions::moved::Moved;
use crate::node::versions::work::VersionWork;
use crate::store::{HashSecret, KeyHash, Version};
use crate::wire::frame::{HINTS_MAX, Hints};
use crate::wire::handshake::{hash_check_text, keyed_bytes, other_key};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Rate limit of changes of the node's id: a burst, then one per interval. Copies of a machine need few, and each
/// change makes all links again.
const ID_CHANGES_BURST: u32 = 4;
const ID_CHANGE_EVERY: Duration = Duration::from_secs(600);

/// Information about a key that this node does not hold.
#[derive(Debug)]
pub(in crate::node) struct Elsewhere {
    /// The highest known version of a value on another node or of a deletion; 0: none.
    pub(in crate::node) version: Version,
    ids: [[u8; 16]; HINTS_MAX],
    len: usize,
}

impl Elsewhere {
    /// The nodes that may hold the key: the last known holder, else the claimants.
    pub(in crate::node) fn hints(&self) -> Hints<'_> {
        Hints::new(&self.ids[..self.len])
    }

    fn add(&mut self, peer: Option<&Peer>) {
        if let (Some(peer), Some(id)) = (peer, self.ids.get_mut(self.len)) {
            *id = peer.id().0;
            self.len += 1;
        }
    }
}

/// The mesh, as this node sees it.
#[derive(Debug)]
pub(in crate::node) struct Mesh {
    id: NodeId,
    /// The address that this node listens on.
    listen: SocketAddr,
    /// The advertised address, if it differs.
    advertise: Option<SocketAddr>,
    /// The hash secret, for the check in handshakes.
    hash_secret: HashSecret,
    /// The key from which ids and nonces are drawn; see [`Mesh::draw`].
    draw_key: [u8; 32],
    drawn: u64,
    id_changes: Limiter,
    pub(in crate::node) address_book: AddressBook,
    pub(in crate::node) peers: Peers,
    pub(in crate::node) absent: Absent,
    pub(in crate::node) clock_offsets: ClockOffsets,
    pub(in crate::node) filters: PeerFilters,
    pub(in crate::node) lookups: Lookups,
    /// Requests of clients that wait for lookups.
    pub(in crate::node) pending: PendingRequests,
    /// Work for the command layer.
    pub(in crate::node) queued_commands: CommandQueue,
    pub(in crate::node) dials: Dials,
    pub(in crate::node) losses: Losses,
    /// Links, and connections in an outbound handshake.
    conns: usize,
    /// Connections in the reserve beyond `clients_max`, oldest first: inbound handshakes, and former links that are
    /// closing.
    spare: VecDeque<ConnKey>,
    /// The timing of publishing the own filter.
    pub(in crate::node) publishing: Publishing,
    /// The result of the last search, whose memory is reused.
    claims: Vec<FilterKey>,
    /// The holders of keys that other nodes wrote.
    pub(in crate::node) moved: Moved,
    pub(in crate::node) versions: VersionWork,
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
            id_changes: Limiter::default(),
            address_book: AddressBook::default(),
            peers: Peers::default(),
            absent: Absent::default(),
            clock_offsets: ClockOffsets::default(),
            filters: PeerFilters::new(config.limits.peer_filters_max),
            lookups: Lookups::default(),
            pending: PendingRequests::default(),
            queued_commands: CommandQueue::default(),
            dials: Dials::default(),
            losses: Losses::default(),
            conns: 0,
            spare: VecDeque::new(),
            publishing: Publishing::default(),
            claims: Vec::new(),
            moved: Moved::default(),
            versions: VersionWork::default(),
        };
        mesh.id = NodeId(mesh.draw());
        mesh
    }

    /// The id of this node.
    pub(in crate::node) const fn id(&self) -> NodeId {
        self.id
    }

    /// Sets the address that this node listens on.
    pub(in crate::node) fn listens_on(&mut self, addr: SocketAddr) {
        self.listen = addr;
    }

    /// Links, and connections in an outbound handshake.
    pub(in crate::node) const fn conns(&self) -> usize {
        self.conns
    }

    /// Counts an accepted connection that has become a link.
    pub(in crate::node) fn joined(&mut self) {
        self.conns += 1;
    }

    /// Counts a dialled connection.
    pub(in crate::node) fn dialled(&mut self, address: AddressKey, conn: ConnKey) {
        self.address_book.dialled(address, conn);
        self.dials.begin(address, conn);
        self.conns += 1;
    }

    /// Notes the end of the link to a peer, whose connection may still be open.
    pub(in crate::node) fn unlinked(&mut self, peer: PeerKey, conn: ConnKey) {
        self.losses.add_link(peer, conn);
        self.conns -= 1;
    }

    /// Notes a closed connection; records the loss if it was a link or a dial.
    pub(in crate::node) fn closed(&mut self, conn: ConnKey, role: &Role, reason: CloseReason) {
        match role {
            Role::OutboundHandshake(dialling) => self.losses.add_dial(dialling.address, conn, reason),
            Role::Link(peer) => return self.unlinked(*peer, conn),
            Role::Client | Role::FormerLink => return,
        }
        self.conns -= 1;
    }

    /// Counts a connection against the reserve beyond `clients_max`. If that is full, returns the connection to
    /// close: one that is closing, else one without an accepted offer, else the oldest.
    pub(in crate::node) fn take_spare_place(
        &mut self,
        conns: &Slots<ConnTag, Conn>,
        key: ConnKey,
    ) -> Option<ConnKey> {
        self.spare.retain(|spare| conns.get(*spare).is_some_and(|conn| !conn.is_of_mesh()));
        let rank = |key: &&ConnKey| conns.get(**key).map(|conn| (conn.is_serving(), conn.has_offer()));
        let is_full = self.spare.len() >= SPARE_HANDSHAKES;
        let last = self.spare.iter().filter(|_| is_full).min_by_key(rank).copied();
        self.spare.retain(|spare| Some(*spare) != last);
        self.spare.push_back(key);
        last
    }

    /// Draws 16 bytes that cannot be predicted from earlier ones, unlike the numbers of [`Rng`].
    pub(in crate::node) fn draw(&mut self) -> [u8; 16] {
        self.drawn += 1;
        keyed_bytes(&self.draw_key, self.drawn)
    }

    /// The hash in an offer with this nonce of a node with the same hash secret.
    pub(in crate::node) fn hash_check(&self, nonce: &[u8; 16]) -> u64 {
        self.hash_secret.hash(&hash_check_text(nonce)).0
    }

    /// The advertised address.
    pub(in crate::node) fn advertised(&self) -> SocketAddr {
        self.advertise.unwrap_or(self.listen)
    }

    /// Whether an address is a known one of this node.
    pub(in crate::node) fn is_own(&self, addr: SocketAddr) -> bool {
        addr == self.listen || self.advertise == Some(addr)
    }

    /// Changes the node's id after another node was found to have it. The new id depends on the time, this node's
    /// address and `from`, the node that found it, so that it differs from that of a copy of this machine. False if the
    /// rate limit is reached.
    pub(in crate::node) fn change_id(&mut self, now: Now, from: SocketAddr) -> bool {
        let is_allowed = self.id_changes.allows(now.mono, ID_CHANGE_EVERY, ID_CHANGES_BURST);
        if is_allowed {
            let salt = format!("{now:?} {} {from}", self.listen);
            self.draw_key = other_key(&self.draw_key, salt.as_bytes());
            self.id = NodeId(self.draw());
        }
        is_allowed
    }

    /// Queues the resync of a peer, if there is one.
    pub(in crate::node) fn enqueue_resync(&mut self, key: PeerKey) {
        if self.peers.get(key).is_some_and(|peer| peer.versions.resync().is_some()) {
            self.versions.resyncs.push(key);
        }
    }

    /// Whether a peer's filter claims the hash.
    pub(in crate::node) fn claims(&self, peer: PeerKey, hash: u64) -> bool {
        self.peers.get(peer).is_some_and(|peer| self.filters.claims(peer.filter(), hash))
    }

    /// Whether a call has left work that must be done before it returns: lost links and dials, complete requests,
    /// queued commands.
    #[inline]
    pub(in crate::node) fn must_reconcile(&self) -> bool {
        !(self.losses.is_empty() && self.pending.backlog() == 0 && self.queued_commands.is_empty())
    }

    /// Information about a key that this node does not hold, without the querying peer. `tombstone` is the version of
    /// the key's tombstone, if there is one.
    pub(in crate::node) fn elsewhere(
        &mut self,
        hash: KeyHash,
        tombstone: Option<Version>,
        querier: PeerKey,
    ) -> Elsewhere {
        let Self { claims, filters, peers, moved, .. } = self;
        let moved = moved.get(hash);
        let version = moved.map(|moved| moved.version).max(tombstone).unwrap_or_default();
        let mut elsewhere = Elsewhere { version, ids: Default::default(), len: 0 };
        claims.clear();
        let holder = moved.and_then(|moved| moved.holder).filter(|holder| *holder != querier);
        match holder.and_then(|holder| peers.get(holder)).filter(|holder| !holder.has_left()) {
            Some(holder) => elsewhere.add(Some(holder)),
            None => filters.claimants(hash.0, claims),
        }
        let claimants = claims.iter().filter_map(|filter| peers.by_filter(*filter));
        claimants.filter(|peer| *peer != querier).for_each(|peer| elsewhere.add(peers.get(peer)));
        elsewhere
    }

    /// Searches the filters of linked peers for a hash and stores the claimants. Returns whether there is a peer to
    /// query: a claimant or one with an unknown filter.
    #[inline]
    pub(in crate::node) fn may_be_elsewhere(&mut self, hash: u64) -> bool {
        self.claims.clear();
        if self.peers.linked_count() == 0 {
            return false;
        }
        self.filters.claimants(hash, &mut self.claims);
        let Self { claims, filters, peers, moved, .. } = self;
        let holder = moved.get(KeyHash(hash)).and_then(|moved| peers.get(moved.holder?));
        claims.extend(holder.map(Peer::filter).filter(|holder| !claims.contains(holder)));
        let is_queryable = |filter: &FilterKey| {
            peers.by_filter(*filter).and_then(|peer| peers.get(peer)).is_some_and(Peer::is_queryable)
        };
        claims.iter().chain(filters.unknown()).any(is_queryable)
    }

    /// The claimants of the last search.
    pub(in crate::node) fn claimants(&self) -> impl Iterator<Item = (PeerKey, &Peer)> {
        let keys = self.claims.iter().filter_map(|filter| self.peers.by_filter(*filter));
        keys.filter_map(|key| Some((key, self.peers.get(key)?)))
    }

    /// The filters that claim a hash, and those that are unknown. [`Mesh::give_back`] takes the memory back.
    pub(in crate::node) fn take_claiming_or_unknown(&mut self, hash: KeyHash) -> Vec<FilterKey> {
        let mut found = std::mem::take(&mut self.claims);
        found.clear();
        self.filters.claimants(hash.0, &mut found);
        let claimants = found.len();
        for filter in self.filters.unknown() {
            if !found[..claimants].contains(filter) {
                found.push(*filter);
            }
        }
        found
    }

    /// The keys, of at most 64, that a filter claims or an unknown one may: one bit per key, in order.
    pub(in crate::node) fn claimed(&self, hashes: &[u64]) -> u64 {
        if self.filters.unknown().is_empty() { self.filters.claimed(hashes) } else { u64::MAX }
    }

    pub(in crate::node) fn give_back(&mut self, claims: Vec<FilterKey>) {
        self.claims = claims;
    }
}
