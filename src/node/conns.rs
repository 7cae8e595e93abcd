//! Connections: what the node keeps for each, the phases of its life, and the one way to its end.
//!
//! A connection is the same type whoever is at the other end; its [`Role`] says who. It goes from its first
//! phase to gone through
//! [`Phase`]s that only [`Conn::set_phase`] changes, and it is gone only through
//! [`close_conn`](super::state::close_conn), which settles all that was attached to it.

use super::keys::{ContactKey, NodeId, PeerKey};
use super::replies::{Place, Replies};
use crate::base::buffer::{Buffer, Pool};
use crate::base::time::Instant;
use crate::limits::Limits;
use crate::wire::handshake::{Proof, Standing};
use std::net::SocketAddr;

/// Who is at the other end.
#[derive(Debug)]
pub(super) enum Role {
    /// A client, as far as is known.
    Client,
    /// A node that we dialled, and to which we are introducing ourselves.
    Dialling(Dialling),
    /// A peer: frames come and go.
    Link(PeerKey),
    /// A peer that it is the link to no more; only what was said last still goes out.
    Parted,
}

/// An introduction on a connection that we dialled.
#[derive(Debug)]
pub(super) struct Dialling {
    pub(super) contact: ContactKey,
    /// When it was dialled, and then, when the introduction began.
    pub(super) at: Instant,
    /// What the other side has to put into its proof.
    pub(super) nonce: [u8; 16],
    /// What we have said of our links.
    pub(super) standing: Standing,
    /// Whom the other side has proven to be, once it has.
    pub(super) theirs: Option<Introduced>,
}

/// A node that has said who it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Introduced {
    pub(super) id: NodeId,
    /// Where it listens, as seen from here.
    pub(super) addr: SocketAddr,
    /// What it says of its links.
    pub(super) standing: Standing,
}

/// An introduction on a connection that another node dialled: it has still to prove that it may.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) theirs: Introduced,
    /// The proof that is right.
    pub(super) proof: Proof,
    /// When the introduction began.
    pub(super) at: Instant,
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
    pub(super) addr: SocketAddr,
    phase: Phase,
    pub(super) role: Role,
    /// A node has begun to introduce itself here.
    pub(super) offered: Option<Box<Offered>>,
    /// What came and is not carried out yet: at most a line and one read.
    pub(super) inbound: Buffer,
    /// What waits to be written.
    pub(super) outbound: Buffer,
    /// Replies behind one that is not known yet.
    pub(super) replies: Replies,
    /// When the connection was made.
    pub(super) since: Instant,
    /// When the connection was made, last heard from, or began to end.
    pub(super) last_active: Instant,
    /// Since when more than the limit of a slow reader waits.
    pub(super) slow_since: Option<Instant>,
    /// The one live timer of this connection, as a tick of the node's wheel.
    pub(super) timer_at: Option<u64>,
    /// Bytes of buffers that are counted for this connection in the node's sum.
    pub(super) accounted: usize,
    /// Keys that its requests wait for other nodes for.
    pub(super) lookups: usize,
    /// Bytes of a frame that is passed over, still to come.
    pub(super) skip: usize,
    /// Bytes of requests that wait for other nodes.
    pub(super) ask_bytes: usize,
    /// Bytes of replies so far to a client that has yet to give the password.
    pub(super) unauthenticated_bytes: u32,
    pub(super) is_authenticated: bool,
    /// A byte has come.
    pub(super) has_spoken: bool,
    /// A request has come.
    pub(super) has_asked: bool,
    /// In the list of those to be settled before the node returns.
    pub(super) is_touched: bool,
    /// Flush was said and not everything is written yet.
    pub(super) is_flushing: bool,
    /// StopReading was said.
    pub(super) is_stopped: bool,
    /// In the queue of those with requests left over from an earlier step.
    pub(super) is_runnable: bool,
    /// Too much waits to be sent; requests are not read on.
    pub(super) is_paused: bool,
    /// The other side has shut its side while ours was closing.
    pub(super) is_read_closed: bool,
}

impl Conn {
    pub(super) fn new(addr: SocketAddr, now: Instant, is_authenticated: bool) -> Self {
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
            ask_bytes: 0,
            unauthenticated_bytes: 0,
            is_authenticated,
            has_spoken: false,
            has_asked: false,
            is_touched: false,
            is_flushing: false,
            is_stopped: false,
            is_runnable: false,
            is_paused: false,
            is_read_closed: false,
        }
    }

    /// A connection that is being made to `addr`, on which we shall introduce ourselves.
    pub(super) fn dialled(addr: SocketAddr, now: Instant, dialling: Dialling) -> Self {
        Self { phase: Phase::Connecting, role: Role::Dialling(dialling), ..Self::new(addr, now, true) }
    }

    /// From here on frames come and go.
    pub(super) fn become_link(&mut self, peer: PeerKey) {
        self.role = Role::Link(peer);
        self.offered = None;
        self.is_authenticated = true;
    }

    /// The peer that it is the link to.
    pub(super) const fn link(&self) -> Option<PeerKey> {
        match self.role {
            Role::Link(peer) => Some(peer),
            Role::Client | Role::Dialling(_) | Role::Parted => None,
        }
    }

    /// Whether it is a client's, as far as is known.
    pub(super) const fn is_client(&self) -> bool {
        matches!(self.role, Role::Client)
    }

    /// Whether it is a link, or may become one that we have dialled.
    pub(super) const fn is_of_mesh(&self) -> bool {
        matches!(self.role, Role::Link(_) | Role::Dialling(_))
    }

    /// Where the connection stands.
    pub(super) const fn phase(&self) -> Phase {
        self.phase
    }

    /// The only way from one phase to another. Phases are never gone back.
    pub(super) fn set_phase(&mut self, to: Phase) {
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
    pub(super) const fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::ReadClosed)
    }

    /// From here on what comes is ignored, and the connection ends with its last reply.
    pub(super) fn begin_closing(&mut self, reason: CloseReason, now: Instant, pool: &mut Pool) {
        self.is_read_closed |= self.phase == Phase::ReadClosed;
        self.set_phase(Phase::Closing(reason));
        self.inbound.release(pool);
        self.last_active = now;
        self.is_paused = false;
    }

    /// Whether its requests have to wait: too much is to be sent to it, or being looked up or written for it.
    /// A peer's frames never wait, since among them is what empties the other direction.
    pub(super) fn must_pause(&self, limits: &Limits) -> bool {
        self.is_client()
            && (self.unsent() > limits.outbound_pause_bytes as usize
                || self.lookups.max(self.replies.waiting()) >= limits.lookups_per_connection as usize)
    }

    /// Puts a reply into its place. A connection that was only waiting for it begins to be waited for.
    pub(super) fn fill(&mut self, now: Instant, place: Place, reply: &[u8], pool: &mut Pool) {
        let was_waiting = self.outbound.is_empty();
        self.replies.fill(place, reply, &mut self.outbound, pool);
        if was_waiting && !self.is_serving() {
            self.last_active = now;
        }
    }

    /// Bytes that wait to be sent, or wait behind an answer.
    pub(super) fn unsent(&self) -> usize {
        self.outbound.len() + self.replies.held()
    }

    /// Bytes of memory in its buffers, and of requests that wait.
    pub(super) fn held(&self) -> usize {
        self.inbound.held() + self.outbound.held() + self.replies.held() + self.ask_bytes
    }
}
