//! The phases of a connection, from dialling to its end, and the reasons for which it ends.

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Dialling; nothing can be sent yet.
    Connecting,
    /// Requests are read and replies sent.
    Open,
    /// The other side sends no more; its requests are still answered.
    ReadClosed,
    /// Input is ignored; the connection closes when the last reply has been sent.
    Closing(CloseReason),
    /// The last reply has been sent and our side is shut. Input is read and ignored until the other side
    /// closes, since the system would answer unread input with a reset that can overtake the reply.
    Lingering(CloseReason),
}

/// Why a connection ended. Each is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The other side closed after all its requests were answered.
    Done,
    /// The connection was reset, or a system call on it failed.
    Lost,
    /// QUIT, or REQUEST disconnect.
    Quit,
    /// CLIENT KILL.
    Killed,
    /// The input cannot be parsed further: a line over its limit, another protocol.
    Protocol,
    /// A browser sent a request that a web page caused.
    Browser,
    /// Too long without input inside a request, or before the first byte.
    Idle,
    /// Did not read its replies in time.
    SlowReader,
    /// All buffers together were over `buffers_max`, and this connection made no progress for the longest time.
    BuffersFull,
    /// Over the limits of a client that has not authenticated: bytes of replies, or time.
    Unauthenticated,
    /// The node shuts down.
    Drained,
    /// Dialling failed or timed out.
    DialFailed,
    /// The handshake was refused, by either side.
    Refused,
    /// There is another link to this peer.
    Duplicate,
    /// A peer missed three heartbeats.
    PeerSilent,
    /// A peer closed its link.
    PeerLeft,
}

impl CloseReason {
    /// The number of reasons, for tables by reason.
    pub const COUNT: usize = 16;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Done,
        Self::Lost,
        Self::Quit,
        Self::Killed,
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

    /// Whether only connections with other nodes end for this reason.
    pub const fn is_of_the_mesh(self) -> bool {
        matches!(self, Self::DialFailed | Self::Refused | Self::Duplicate | Self::PeerSilent | Self::PeerLeft)
    }

    /// Its name in STATS, after `connections_closed_`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Lost => "lost",
            Self::Quit => "quit",
            Self::Killed => "killed",
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
