//! Connections: what the node keeps for each, the phases of its life, and the one way to its end.
//!
//! A connection is the same type whoever is at the other end. It goes from `Open` to gone through
//! [`Phase`]s that only [`Conn::set_phase`] changes, and it is gone only through
//! [`close_conn`](super::state::close_conn), which settles all that was attached to it.

use super::replies::Replies;
use crate::base::buffer::{Buffer, Pool};
use crate::base::time::Instant;
use std::net::SocketAddr;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
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
    /// Too much was said to a client that never gave the password.
    Unauthenticated,
    /// The node ends.
    Drained,
}

impl CloseReason {
    /// How many reasons there are, for tables by reason.
    pub const COUNT: usize = 10;

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
    ];

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
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    pub(super) addr: SocketAddr,
    phase: Phase,
    /// What came and is not carried out yet: at most a line and one read.
    pub(super) inbound: Buffer,
    /// What waits to be written.
    pub(super) outbound: Buffer,
    /// Replies behind one that is not known yet.
    pub(super) replies: Replies,
    /// When the connection was made, last heard from, or began to end.
    pub(super) last_active: Instant,
    /// Since when more than the limit of a slow reader waits.
    pub(super) slow_since: Option<Instant>,
    /// The one live timer of this connection, as a tick of the node's wheel.
    pub(super) timer_at: Option<u64>,
    /// Bytes of buffers that are counted for this connection in the node's sum.
    pub(super) accounted: usize,
    /// Bytes of replies so far to a client that has yet to give the password.
    pub(super) unauthenticated_bytes: u32,
    pub(super) is_authenticated: bool,
    /// A byte has come.
    pub(super) has_spoken: bool,
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
            inbound: Buffer::new(),
            outbound: Buffer::new(),
            replies: Replies::default(),
            last_active: now,
            slow_since: None,
            timer_at: None,
            accounted: 0,
            unauthenticated_bytes: 0,
            is_authenticated,
            has_spoken: false,
            is_flushing: false,
            is_stopped: false,
            is_runnable: false,
            is_paused: false,
            is_read_closed: false,
        }
    }

    /// Where the connection stands.
    pub(super) const fn phase(&self) -> Phase {
        self.phase
    }

    /// The only way from one phase to another. Phases are never gone back.
    pub(super) fn set_phase(&mut self, to: Phase) {
        let rank = |phase| match phase {
            Phase::Open => 0,
            Phase::ReadClosed => 1,
            Phase::Closing(_) => 2,
            Phase::Lingering(_) => 3,
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

    /// Bytes that wait to be sent, or wait behind an answer.
    pub(super) fn unsent(&self) -> usize {
        self.outbound.len() + self.replies.held()
    }

    /// Bytes of memory in its buffers.
    pub(super) fn held(&self) -> usize {
        self.inbound.held() + self.outbound.held() + self.replies.held()
    }
}
