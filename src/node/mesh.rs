//! What a node keeps of its mesh: who it is, whom it knows, what it looks up. Data only; see `peering`,
//! `digests` and `remote` for what is done with it.

use super::contacts::Contacts;
use super::keys::{ConnKey, ContactKey, NodeId, PeerKey};
use super::lookups::Lookups;
use super::peers::{Peer, Peers};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::config::Config;
use crate::filter::{FilterKey, PeerFilters};
use crate::wire::handshake::keyed_bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// This node's part of the mesh.
#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) id: NodeId,
    /// Where this node listens, as it tells others.
    pub(super) listen: SocketAddr,
    /// The hash of a fixed text: nodes that hash it alike hash everything alike.
    pub(super) hash_check: u64,
    /// What identities, nonces and secrets of this life are drawn from; see [`Mesh::draw`].
    draw_key: [u8; 32],
    drawn: u64,
    pub(super) contacts: Contacts,
    pub(super) peers: Peers,
    pub(super) filters: PeerFilters,
    pub(super) lookups: Lookups,
    /// Links, and connections on which we introduce ourselves.
    pub(super) conns: usize,
    /// Contacts being dialled, each with its connection. A few.
    pub(super) dials: Vec<(ContactKey, ConnKey)>,
    /// When a backup may be visited next; `None` until there are as many links as may be.
    pub(super) visit_at: Option<Instant>,
    /// Absent keys that were looked for in the peers' filters.
    pub(super) checks: u64,
    /// Peers to be told more of our digest, each once.
    pub(super) pump: VecDeque<PeerKey>,
    /// When the peers were last told of our digest's changes, and up to which.
    pub(super) told_at: Option<Instant>,
    pub(super) told_seq: u64,
    /// Changes are due to be told now.
    pub(super) must_tell: bool,
    /// The tick of the one live timer for telling.
    pub(super) tell_timer_at: Option<u64>,
    /// Links that have gone and dials that have failed, still to be drawn conclusions from.
    pub(super) lost_links: VecDeque<(PeerKey, ConnKey)>,
    pub(super) lost_dials: VecDeque<(ContactKey, ConnKey)>,
    /// Kept between look-ups.
    pub(super) claims: Vec<FilterKey>,
}

impl Mesh {
    pub(super) fn new(config: &Config, rng: &mut Rng) -> Self {
        let mut draw_key = [0; 32];
        rng.fill(&mut draw_key);
        let mut mesh = Self {
            id: NodeId([0; 16]),
            listen: SocketAddr::new(config.bind, config.listen_port),
            hash_check: 0,
            draw_key,
            drawn: 0,
            contacts: Contacts::default(),
            peers: Peers::default(),
            filters: PeerFilters::new(config.limits.peer_filters_max),
            lookups: Lookups::default(),
            conns: 0,
            dials: Vec::new(),
            visit_at: None,
            checks: 0,
            pump: VecDeque::new(),
            told_at: None,
            told_seq: 0,
            must_tell: false,
            tell_timer_at: None,
            lost_links: VecDeque::new(),
            lost_dials: VecDeque::new(),
            claims: Vec::new(),
        };
        mesh.id = NodeId(mesh.draw());
        mesh
    }

    /// 16 bytes that nobody can foretell who has seen all those before: unlike the numbers of [`Rng`].
    pub(super) fn draw(&mut self) -> [u8; 16] {
        self.drawn += 1;
        keyed_bytes(&self.draw_key, self.drawn)
    }

    /// Whether a peer's filter claims the hash.
    pub(super) fn claims(&self, peer: PeerKey, hash: u64) -> bool {
        self.peers.get(peer).is_some_and(|peer| self.filters.claims(peer.filter, hash))
    }

    /// Which peers that are linked claim the hash, into `claims`, and whether there is anybody to be asked
    /// for it at all. The cost is that of the filters.
    #[inline]
    pub(super) fn may_be_elsewhere(&mut self, hash: u64) -> bool {
        self.claims.clear();
        if self.peers.linked_count() == 0 {
            return false;
        }
        self.filters.claimants(hash, &mut self.claims);
        let Self { claims, filters, peers, .. } = self;
        let is_askable = |filter: &FilterKey| {
            peers.by_filter(*filter).and_then(|peer| peers.get(peer)).is_some_and(Peer::is_askable)
        };
        claims.iter().chain(filters.unknown()).any(is_askable)
    }
}
