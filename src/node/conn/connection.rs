//! Connections: what the node keeps for each, the phases of its life, and the one way to its end.
//!
//! A connection is the same type whoever is at the other end; its [`Role`] says who. It goes from its first
//! phase to gone through
//! [`Phase`]s that only [`Conn::set_phase`] changes, and it is gone only through
//! [`close_conn`](crate::node::state::close_conn), which settles all that was attached to it.

use crate::base::buffer::{Buffer, Pool};
use crate::base::time::Instant;
use crate::limits::Limits;
use crate::node::conn::replies::{Place, Replies};
use crate::node::ids::{AddressKey, NodeId, PeerKey};
use crate::wire::handshake::{Proof, Standing};
use std::net::SocketAddr;

/// Who is at the other end.
#[derive(Debug)]
pub(in crate::node) enum Role {
    /// A client, as far as is known.
    Client,
    /// A node that we dialled, and to which we are introducing ourselves.
    OutboundHandshake(OutboundHandshake),
    /// A peer: frames come and go.
    Link(PeerKey),
    /// A peer that it is the link to no more; only what was said last still goes out.
    Parted,
}

/// An introduction on a connection that we dialled.
#[derive(Debug)]
pub(in crate::node) struct OutboundHandshake {
    pub(in crate::node) contact: AddressKey,
    /// When it was dialled, and then, when the introduction began.
    pub(in crate::node) at: Instant,
    /// What the other side has to put into its proof.
    pub(in crate::node) nonce: [u8; 16],
    /// What we have said of our links.
    pub(in crate::node) standing: Standing,
    /// Whom the other side has proven to be, once it has.
    pub(in crate::node) theirs: Option<PeerIdentity>,
}

/// A node that has said who it is.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct PeerIdentity {
    pub(in crate::node) id: NodeId,
    /// Where it listens, as seen from here.
    pub(in crate::node) addr: SocketAddr,
    /// What it says of its links.
    pub(in crate::node) standing: Standing,
}

/// An introduction on a connection that another node dialled: it has still to prove that it may.
#[derive(Debug)]
pub(in crate::node) struct InboundHandshake {
    pub(in crate::node) theirs: PeerIdentity,
    /// The proof that is right.
    pub(in crate::node) proof: Proof,
    /// When the introduction began.
    pub(in crate::node) at: Instant,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// We are dialling; nothing can be sent yet.
    Connecting,
    /// Requests come, replies go.
    Open,
    /// The other side has sent all it will; what it asked is still answered.
    ReadClosed,
    /// What comes is ignored; the connection ends when the last reply has gone.
    Closing(CloseReason),
    /// The last reply has gone and our side is shut; what still comes is read and ignored, so that the
    /// system does not answer it with a reset that would overtake the reply.
    Lingering(CloseReason),
}

/// Why a connection ended. Each is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The other side closed, and got all it had asked for.
    Done,
    /// It was reset, or a system call on it failed.
    Lost,
    /// QUIT, or REQUEST disconnect.
    Quit,
    /// What came cannot be read on: a line without end, another protocol.
    Protocol,
    /// A browser was made to talk to us.
    Browser,
    /// Silent inside a request, or before the first byte.
    Idle,
    /// Did not take its replies in time.
    SlowReader,
    /// All buffers together were over their limit, and this connection held the most.
    BuffersFull,
    /// A client that never gave the password was told too much, or took too long over it.
    Unauthenticated,
    /// The node ends.
    Drained,
    /// Nobody answered where we dialled, or not in time.
    DialFailed,
    /// The other side may not be a peer, or did not want us as one.
    Refused,
    /// There is another link to this peer.
    Duplicate,
    /// A peer said nothing for three beats.
    PeerSilent,
    /// A peer ended its link.
    PeerLeft,
}

impl CloseReason {
    /// How many reasons there are, for tables by reason.
    pub const COUNT: usize = 15;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Done,
        Self::Lost,
        Self::Quit,
        Self::Protocol,
        Self::Browser,
        Self::Idle,
        Self::SlowReader,
        Self::BuffersFull,
        Self::Unauthenticated,
        Self::Drained,
        Self::DialFailed,
        Self::Refused,
        Self::Duplicate,
        Self::PeerSilent,
        Self::PeerLeft,
    ];

    /// Whether only connections with other nodes end so.
    pub const fn is_of_the_mesh(self) -> bool {
        matches!(self, Self::DialFailed | Self::Refused | Self::Duplicate | Self::PeerSilent | Self::PeerLeft)
    }

    /// Its name in STATS, behind `closed_`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Lost => "lost",
            Self::Quit => "quit",
            Self::Protocol => "protocol",
            Self::Browser => "browser",
            Self::Idle => "idle",
            Self::SlowReader => "slow_reader",
            Self::BuffersFull => "buffers_full",
            Self::Unauthenticated => "unauthenticated",
            Self::Drained => "drained",
            Self::DialFailed => "dial_failed",
            Self::Refused => "refused_peer",
            Self::Duplicate => "duplicate",
            Self::PeerSilent => "peer_silent",
            Self::PeerLeft => "peer_left",
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    pub(in crate::node) addr: SocketAddr,
    phase: Phase,
    pub(in crate::node) role: Role,
    /// A node has begun to introduce itself here.
    pub(in crate::node) offered: Option<Box<InboundHandshake>>,
    /// What came and is not carried out yet: at most a line and one read.
    pub(in crate::node) inbound: Buffer,
    /// What waits to be written.
    pub(in crate::node) outbound: Buffer,
    /// Replies behind one that is not known yet.
    pub(in crate::node) replies: Replies,
    /// When the connection was made.
    pub(in crate::node) since: Instant,
    /// When the connection was made, last heard from, or began to end.
    pub(in crate::node) last_active: Instant,
    /// Since when more than the limit of a slow reader waits.
    pub(in crate::node) slow_since: Option<Instant>,
    /// The one live timer of this connection, as a tick of the node's wheel.
    pub(in crate::node) timer_at: Option<u64>,
    /// Bytes of buffers that are counted for this connection in the node's sum.
    pub(in crate::node) accounted: usize,
    /// Keys that its requests wait for other nodes for.
    pub(in crate::node) lookups: usize,
    /// Bytes of a frame that is passed over, still to come.
    pub(in crate::node) skip: usize,
    /// Bytes of requests that wait for other nodes.
    pub(in crate::node) pending_bytes: usize,
    /// Bytes of replies so far to a client that has yet to give the password.
    pub(in crate::node) unauthenticated_bytes: u32,
    pub(in crate::node) is_authenticated: bool,
    /// A byte has come.
    pub(in crate::node) has_spoken: bool,
    /// A request has come.
    pub(in crate::node) has_asked: bool,
    /// In the list of those to be settled before the node returns.
    pub(in crate::node) is_dirty: bool,
    /// Flush was said and not everything is written yet.
    pub(in crate::node) is_flushing: bool,
    /// StopReading was said.
    pub(in crate::node) is_stopped: bool,
    /// In the queue of those with requests left over from an earlier step.
    pub(in crate::node) is_runnable: bool,
    /// Too much waits to be sent; requests are not read on.
    pub(in crate::node) is_paused: bool,
    /// The other side has shut its side while ours was closing.
    pub(in crate::node) is_read_closed: bool,
}

impl Conn {
    pub(in crate::node) fn new(addr: SocketAddr, now: Instant, is_authenticated: bool) -> Self {
        Self {
            addr,
            phase: Phase::Open,
            role: Role::Client,
            offered: None,
            inbound: Buffer::new(),
            outbound: Buffer::new(),
            replies: Replies::default(),
            since: now,
            last_active: now,
            slow_since: None,
            timer_at: None,
            accounted: 0,
            lookups: 0,
            skip: 0,
            pending_bytes: 0,
            unauthenticated_bytes: 0,
            is_authenticated,
            has_spoken: false,
            has_asked: false,
            is_dirty: false,
            is_flushing: false,
            is_stopped: false,
            is_runnable: false,
            is_paused: false,
            is_read_closed: false,
        }
    }

    /// A connection that is being made to `addr`, on which we shall introduce ourselves.
    pub(in crate::node) fn dialled(addr: SocketAddr, now: Instant, dialling: OutboundHandshake) -> Self {
        Self {
            phase: Phase::Connecting,
            role: Role::OutboundHandshake(dialling),
            ..Self::new(addr, now, true)
        }
    }

    /// From here on frames come and go.
    pub(in crate::node) fn become_link(&mut self, peer: PeerKey) {
        self.role = Role::Link(peer);
        self.offered = None;
        self.is_authenticated = true;
    }

    /// The peer that it is the link to.
    pub(in crate::node) const fn link(&self) -> Option<PeerKey> {
        match self.role {
            Role::Link(peer) => Some(peer),
            Role::Client | Role::OutboundHandshake(_) | Role::Parted => None,
        }
    }

    /// Whether it is a client's, as far as is known.
    pub(in crate::node) const fn is_client(&self) -> bool {
        matches!(self.role, Role::Client)
    }

    /// Whether it is a link, or may become one that we have dialled.
    pub(in crate::node) const fn is_of_mesh(&self) -> bool {
        matches!(self.role, Role::Link(_) | Role::OutboundHandshake(_))
    }

    /// Where the connection stands.
    pub(in crate::node) const fn phase(&self) -> Phase {
        self.phase
    }

    /// The only way from one phase to another. Phases are never gone back.
    pub(in crate::node) fn set_phase(&mut self, to: Phase) {
        let rank = |phase| match phase {
            Phase::Connecting => 0,
            Phase::Open => 1,
            Phase::ReadClosed => 2,
            Phase::Closing(_) => 3,
            Phase::Lingering(_) => 4,
        };
        debug_assert!(rank(self.phase) < rank(to), "{:?} to {to:?}", self.phase);
        self.phase = to;
    }

    /// Whether requests are still carried out.
    pub(in crate::node) const fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::ReadClosed)
    }

    /// From here on what comes is ignored, and the connection ends with its last reply.
    pub(in crate::node) fn begin_closing(&mut self, reason: CloseReason, now: Instant, pool: &mut Pool) {
        self.is_read_closed |= self.phase == Phase::ReadClosed;
        self.set_phase(Phase::Closing(reason));
        self.inbound.release(pool);
        self.last_active = now;
        self.is_paused = false;
    }

    /// Whether its requests have to wait: too much is to be sent to it, or being looked up or written for it.
    /// A peer's frames never wait, since among them is what empties the other direction.
    pub(in crate::node) fn must_pause(&self, limits: &Limits) -> bool {
        self.is_client()
            && (self.unsent() > limits.outbound_pause_bytes as usize
                || self.lookups.max(self.replies.waiting()) >= limits.lookups_per_connection as usize)
    }

    /// Puts a reply into its place. A connection that was only waiting for it begins to be waited for.
    pub(in crate::node) fn fill(&mut self, now: Instant, place: Place, reply: &[u8], pool: &mut Pool) {
        let was_waiting = self.outbound.is_empty();
        self.replies.fill(place, reply, &mut self.outbound, pool);
        if was_waiting && !self.is_serving() {
            self.last_active = now;
        }
    }

    /// Bytes that wait to be sent, or wait behind an answer.
    pub(in crate::node) fn unsent(&self) -> usize {
        self.outbound.len() + self.replies.held()
    }

    /// Bytes of memory in its buffers, and of requests that wait.
    pub(in crate::node) fn held(&self) -> usize {
        self.inbound.held() + self.outbound.held() + self.replies.held() + self.pending_bytes
    }
}
