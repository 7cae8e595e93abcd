//! The plan of one seed: its mesh, its network, the limits of its nodes, and the rates of faults.

use super::net::{MS, Manners, US};
use olivia::base::rng::Rng;
use olivia::config::{Config, Secret};
use olivia::store::HashSecret;
use olivia::wire::handshake::{derive_hash_secret, public_hash_secret};
use std::net::{Ipv4Addr, SocketAddr};

/// The size of a world.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub members_min: u64,
    pub members_max: u64,
    pub requests: u64,
}

/// Faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A host stops for a while.
    Pause,
    /// A node is killed; its system resets its connections.
    Kill,
    /// A host vanishes with all on it, and its connections stay half open.
    Vanish,
    /// A node drains.
    End,
    /// No packet gets from one host to another.
    CutOneWay,
    CutBothWays,
    /// Some hosts are cut off from the others.
    Split,
    /// A path takes longer.
    Slow,
    /// A host leaves connections unanswered.
    Mute,
    /// A connection is reset, at whatever byte it stands.
    Reset,
    /// The receiver of a connection has room for very little.
    Narrow,
    /// A wall clock jumps.
    Clock,
    /// A node gets events of connections that it has closed.
    Stale,
}

impl Fault {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pause => "fault: pause",
            Self::Kill => "fault: kill",
            Self::Vanish => "fault: vanish",
            Self::End => "fault: end",
            Self::CutOneWay => "fault: cut one way",
            Self::CutBothWays => "fault: cut both ways",
            Self::Split => "fault: split",
            Self::Slow => "fault: slow",
            Self::Mute => "fault: mute",
            Self::Reset => "fault: reset",
            Self::Narrow => "fault: narrow",
            Self::Clock => "fault: clock",
            Self::Stale => "fault: stale",
        }
    }
}

const TROUBLES: [Fault; 13] = [
    Fault::Pause,
    Fault::Kill,
    Fault::Vanish,
    Fault::End,
    Fault::CutOneWay,
    Fault::CutBothWays,
    Fault::Split,
    Fault::Slow,
    Fault::Mute,
    Fault::Reset,
    Fault::Narrow,
    Fault::Clock,
    Fault::Stale,
];

/// The parameters that are drawn at the beginning.
#[derive(Debug, Clone)]
pub struct Plan {
    pub members: usize,
    pub strangers: usize,
    pub hostile_peers: usize,
    pub secret: Option<&'static str>,
    /// All configured peers, or one only.
    pub is_well_known: bool,
    /// All are linked to the first, and to no other.
    pub is_star: bool,
    pub heartbeat_ms: u32,
    pub lookup_try_ms: u32,
    pub lookup_timeout_ms: u32,
    pub active_peers: u32,
    /// Limits are so small that they are reached.
    pub is_tight: bool,
    /// Not all peers' filters fit: peers with unknown filters are queried for every key.
    pub is_cramped: bool,
    /// Lookups have time enough for several tries.
    pub has_long_timeouts: bool,
    /// Bytes come one by one, or nearly so; what is sent is short then.
    pub is_fine: bool,
    /// Time per charged key in ns, on a fast or a slow machine.
    pub key_nanos: u64,
    pub wake_nanos: u64,
    pub late_nanos: u64,
    pub read_bytes: usize,
    pub delay: u64,
    pub manners: Manners,
    /// Time between two faults on average; 0: there are none.
    pub fault_every: u64,
    pub fault_lasts: u64,
    weights: [u64; TROUBLES.len()],
}

/// Bytes of a link that lie in sockets at most: what Linux gives a connection on loopback by itself, in both sockets.
const LINK_ROOM: usize = 4_400_000;

/// Deletions that nodes under load remember one by one: soon more are discarded.
pub const TOMBSTONES_UNDER_LOAD: u32 = 1_000;

/// Time per charged key in ns, from measured requests (`docs/decisions.md`):
///
/// | what | charged, in keys | at 250 ns each | measured |
/// |---|---|---|---|
/// | a GET, alone | 25: a read, a key, a write | 6.3 us | 6.3 us |
/// | one of 16 | 2.5 | 0.63 us | 0.61 us |
/// | one of 64 | 1.4 | 0.34 us | 0.32 us |
/// | 8 MiB of a value | 8,192 | 2.0 ms | 2 to 4 ms |
/// | 64 timers | 64 | 16 us | 7 to 15 us |
///
/// `cargo test --release --test mesh costs -- --ignored --nocapture` measures the calls one by one.
pub const KEY_NANOS: u64 = 250;

/// Less than an operator may set: one small filter, and nothing beside it.
const CRAMPED_BYTES: u64 = 6_000;

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[usize::try_from(rng.below(choices.len() as u64)).unwrap()]
}

impl Plan {
    pub fn draw(rng: &mut Rng, size: Size) -> Self {
        let span = size.members_max - size.members_min + 1;
        let members = usize::try_from(size.members_min + rng.below(span)).unwrap();
        let heartbeat_ms = if members > 8 { 1_000 } else { pick(rng, &[50, 200, 1_000]) };
        let lookup_try_ms = pick(rng, &[5, 20, 20, 50]);
        let lookup_timeout_ms = lookup_try_ms * pick(rng, &[2, 5, 5, 10]);
        let is_fine = rng.one_in(4);
        let is_tight = rng.one_in(8);
        let delay = pick(rng, &[30 * US, 200 * US, 2 * MS]);
        // Byte by byte, everything takes its time.
        let is_quick = !is_fine || (lookup_timeout_ms >= 100 && heartbeat_ms >= 200 && members <= 4);
        let has_long_timeouts = is_quick
            && !is_tight
            && lookup_timeout_ms >= 4 * lookup_try_ms
            && u64::from(lookup_try_ms) * MS >= 8 * delay;
        let weights = TROUBLES.map(|_| pick(rng, &[0, 1, 1, 4]));
        let small = |rng: &mut Rng, large: u32, smalls: &[u32]| {
            if rng.one_in(6) { pick(rng, smalls) } else { large }
        };
        let mut plan = Self {
            members,
            strangers: usize::from(rng.one_in(6) && members > 1),
            hostile_peers: usize::from(rng.one_in(5) && members > 1),
            secret: rng.one_in(2).then_some("the secret of this mesh"),
            is_well_known: rng.one_in(2),
            is_star: false,
            heartbeat_ms,
            lookup_try_ms,
            lookup_timeout_ms,
            active_peers: small(rng, 128, &[1, 2, 3]),
            is_tight,
            is_cramped: is_tight && rng.one_in(2),
            has_long_timeouts,
            // Byte by byte, a slow machine would do nothing but read.
            key_nanos: pick(rng, if is_fine { &[KEY_NANOS] } else { &[KEY_NANOS, 10 * KEY_NANOS] }),
            wake_nanos: pick(rng, &[0, 100 * US, 500 * US]),
            late_nanos: pick(rng, &[0, 60 * US, MS]),
            is_fine,
            read_bytes: if is_fine {
                pick(rng, if members > 1 { &[1, 9, 300] } else { &[20, 300] })
            } else {
                65_536
            },
            delay,
            manners: Manners {
                piece: if is_fine { pick(rng, &[1, 20, 300]) } else { pick(rng, &[1_460, 65_536]) },
                room: if is_fine { pick(rng, &[300, 5_000]) } else { pick(rng, &[20_000, 200_000]) },
                link_room: 0,
                partial: pick(rng, &[0, 2, 10]),
                jitter: pick(rng, &[0, 20 * US, 300 * US]),
                nanos_per_byte: pick(rng, &[0, 1, 20]),
            },
            fault_every: pick(rng, &[0, 20 * MS, 100 * MS, 500 * MS, 3_000 * MS]),
            fault_lasts: pick(rng, if members > 1 { &[10 * MS, 300 * MS, 3_000 * MS] } else { &[10 * MS] }),
            weights,
        };
        plan.manners.link_room = plan.manners.room;
        // A node without addresses may find no free link beside pairs and threes whose nodes have no other link.
        plan.is_well_known |= plan.active_peers == 1;
        plan
    }

    /// A mesh in which nothing fails, on machines of this speed.
    pub fn calm(members: usize, key_nanos: u64) -> Self {
        let size = Size { members_min: members as u64, members_max: members as u64, requests: 0 };
        Self {
            strangers: 0,
            hostile_peers: 0,
            secret: None,
            is_star: true,
            heartbeat_ms: 1_000,
            lookup_try_ms: 20,
            lookup_timeout_ms: 100,
            active_peers: 128,
            is_tight: false,
            is_cramped: false,
            is_fine: false,
            key_nanos,
            wake_nanos: 0,
            late_nanos: 60 * US,
            read_bytes: 65_536,
            delay: 200 * US,
            manners: Manners {
                piece: 65_536,
                room: 200_000,
                link_room: LINK_ROOM,
                partial: 0,
                jitter: 20 * US,
                nanos_per_byte: 0,
            },
            fault_every: 0,
            ..Self::draw(&mut Rng::new(1), size)
        }
    }

    pub const fn hosts(&self) -> usize {
        self.members + self.strangers + self.hostile_peers
    }

    /// Whether there is one node, and its clients are hostile.
    pub const fn is_alone(&self) -> bool {
        self.members == 1
    }

    /// Whether each member can be linked to all others.
    pub const fn is_full(&self) -> bool {
        self.active_peers as usize >= self.hosts()
    }

    /// The next fault, if any can be.
    pub fn fault(&self, rng: &mut Rng) -> Option<Fault> {
        let mut left = rng.below(self.weights.iter().sum());
        let mut faults = TROUBLES.iter().zip(self.weights);
        let chosen = faults.find(|(_, weight)| {
            let is_it = left < *weight;
            left = left.saturating_sub(*weight);
            is_it
        });
        chosen.map(|(fault, _)| *fault)
    }

    /// By which all members hash alike.
    pub fn hash_secret(&self) -> HashSecret {
        let secret = self.secret.map(str::as_bytes);
        HashSecret::from_bytes(secret.map_or_else(public_hash_secret, derive_hash_secret))
    }

    /// Returns the listen address of a host.
    pub fn addr(&self, host: usize) -> SocketAddr {
        let number = u16::try_from(host).unwrap();
        match &self.secret {
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, 5_454 + number)),
            Some(_) => SocketAddr::from((Ipv4Addr::from(0x0a00_0001 + u32::from(number)), 5_454)),
        }
    }

    /// The longest that bytes are in flight without a fault.
    pub const fn slowest_path(&self) -> u64 {
        let manners = &self.manners;
        // A slow line takes its time for each piece of a message.
        3 * self.delay + 6 * manners.jitter + 2_000 * manners.nanos_per_byte
    }

    /// What a busy node may add to the time that a reply takes. One that reads a byte at a time is busy with the
    /// filters of its peers, of 4 KiB at least, for long.
    pub const fn busy_slack(&self) -> u64 {
        let reads = (self.members * 4_096 / self.read_bytes) as u64;
        40 * MS + (400 + 16 * reads) * self.key_nanos
    }

    /// The configuration of a host.
    pub fn config(&self, rng: &mut Rng, host: usize) -> Config {
        let mut config = Config::default();
        let addr = self.addr(host);
        (config.bind, config.listen_port) = (addr.ip(), addr.port());
        config.open_without_password = true;
        let is_stranger = (self.members..self.members + self.strangers).contains(&host);
        let secret = if is_stranger { Some("the secret of another mesh") } else { self.secret };
        config.mesh_secret = secret.map(|secret| Secret::new(secret.to_owned()));
        config.base_node = host == 0;
        config.limits.line_bytes_max = if self.fault_every > 0 { 1 << 20 } else { 9 << 20 };
        if self.fault_every == 0 {
            config.limits.tombstones_max = TOMBSTONES_UNDER_LOAD;
        }
        let mut draw = |large: u32, small: &[u32]| if self.is_tight { pick(rng, small) } else { large };
        config.limits.outbound_pause_bytes = draw(config.limits.outbound_pause_bytes, &[1_024, 10_000]);
        config.limits.lookups_max = draw(config.limits.lookups_max, &[3, 40]);
        config.limits.lookups_per_connection = draw(config.limits.lookups_per_connection, &[1, 3]);
        config.limits.lookups_per_peer = draw(config.limits.lookups_per_peer, &[1, 3]);
        config.limits.peer_filters_max = match self.fault_every {
            // Filters of loads of new keys fit.
            0 => config.limits.peer_filters_max,
            _ if self.is_cramped => CRAMPED_BYTES,
            _ => 1 << 20,
        };
        config.mesh.heartbeat_interval_ms = self.heartbeat_ms;
        config.mesh.lookup_try_ms = self.lookup_try_ms;
        config.mesh.lookup_timeout_ms = self.lookup_timeout_ms;
        config.mesh.active_peers = if self.is_star && host > 0 { 1 } else { self.active_peers };
        config
    }

    /// The configured peers of a host.
    pub fn peers(&self, rng: &mut Rng, host: usize) -> Vec<SocketAddr> {
        let mut peers: Vec<SocketAddr> = if self.is_star {
            vec![self.addr(0)]
        } else if self.is_well_known {
            (0..self.hosts()).map(|other| self.addr(other)).collect()
        } else {
            let before = usize::try_from(rng.below(host.min(self.members) as u64)).unwrap();
            if host == 0 { Vec::new() } else { vec![self.addr(before)] }
        };
        // Some are configured with their own address.
        if rng.one_in(2) {
            peers.retain(|addr| *addr != self.addr(host));
        }
        peers
    }
}
