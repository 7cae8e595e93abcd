//! The state of one connection: its role, its phase, its buffers.
//!
//! Clients and peers share this type; [`Role`] tells them apart. Only [`Conn::set_phase`] changes the
//! [`Phase`], and only [`close_conn`](crate::node::state::close_conn) removes a connection.

use crate::base::buffer::{Buffer, Pool};
use crate::base::chunk_queue::ChunkQueue;
use crate::base::shared_bytes::SharedBytes;
use crate::base::time::Instant;
use crate::limits::Limits;
use crate::node::alarm::Alarm;
use crate::node::conn::replies::{Place, Replies};
use crate::node::conn::session::{Refusal, Session};
use crate::node::ids::{AddressKey, NodeId, PeerKey};
use crate::node::peer::link_queues::LinkQueues;
use crate::node::schedule::{Account, Class};
use crate::wire::encoder::Protocol;
use crate::wire::handshake::{Links, Proof};
use crate::wire::resp::parse::Progress;
use std::net::SocketAddr;

/// What is at the other end.
#[derive(Debug)]
pub(in crate::node) enum Role {
    /// A client; also a node that has not completed its handshake yet.
    Client,
    /// A node that we dialled; the handshake is under way.
    OutboundHandshake(Box<OutboundHandshake>),
    /// A peer: the connection carries frames.
    Link(PeerKey),
    /// A former link that is closing: only its last frames are still sent.
    Parted,
}

/// A handshake that we began.
#[derive(Debug)]
pub(in crate::node) struct OutboundHandshake {
    pub(in crate::node) address: AddressKey,
    /// When it was dialled; once connected, when the handshake began.
    pub(in crate::node) at: Instant,
    /// Our nonce, which the proof of the other side has to cover.
    pub(in crate::node) nonce: [u8; 16],
    /// What our offer stated about our links.
    pub(in crate::node) links: Links,
    /// The identity that the other side has proven, once it has.
    pub(in crate::node) theirs: Option<PeerIdentity>,
}

/// The identity and address that a node sent in its handshake.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct PeerIdentity {
    pub(in crate::node) id: NodeId,
    /// Where it listens, as seen from here.
    pub(in crate::node) addr: SocketAddr,
    /// What its offer stated about its links.
    pub(in crate::node) links: Links,
}

/// A handshake that another node began; its proof is still to come.
#[derive(Debug)]
pub(in crate::node) struct InboundHandshake {
    pub(in crate::node) theirs: PeerIdentity,
    /// The expected proof.
    pub(in crate::node) proof: Proof,
    /// When the handshake began.
    pub(in crate::node) at: Instant,
}

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Dialling; nothing can be sent yet.
    Connecting,
    /// Requests are read and replies sent.
    Open,
    /// The other side sends no more; what it requested is still answered.
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
    /// It was reset, or a system call on it failed.
    Lost,
    /// QUIT, or REQUEST disconnect.
    Quit,
    /// CLIENT KILL.
    Killed,
    /// The input cannot be parsed further: a line over its limit, another protocol.
    Protocol,
    /// A browser was made to send to this port.
    Browser,
    /// No input inside a request, or before the first byte, for too long.
    Idle,
    /// Did not read its replies in time.
    SlowReader,
    /// All buffers together were over `buffers_max`, and this connection made no progress for longest.
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

    /// Whether only connections with other nodes end so.
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

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum ClientProtocol {
    /// Commands, in lines or in RESP.
    Commands(Protocol),
    /// HTTP.
    Http,
}

/// Seconds of the windows that traffic is counted in.
const TRAFFIC_SECONDS: u64 = 10;

/// Bytes of a connection lately: in this window of 10 s and in the one before.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::node) struct Traffic {
    window: u64,
    bytes: u64,
    before: u64,
}

impl Traffic {
    /// Counts bytes that were read or written.
    pub(in crate::node) fn add(&mut self, now: Instant, bytes: usize) {
        let window = now.millis() / (1_000 * TRAFFIC_SECONDS);
        if window != self.window {
            *self = Self { window, bytes: 0, before: if window == self.window + 1 { self.bytes } else { 0 } };
        }
        self.bytes += bytes as u64;
    }

    /// Bytes per second over this window and the one before.
    pub(in crate::node) fn per_second(mut self, now: Instant) -> u64 {
        self.add(now, 0);
        let into = now.millis() / 1_000 % TRAFFIC_SECONDS;
        (self.bytes + self.before) / (TRAFFIC_SECONDS + into)
    }
}

/// Requests of a connection whose replies are not known yet.
#[derive(Debug, Default)]
pub(in crate::node) struct UnderWay {
    /// Keys that are being looked up on other nodes.
    lookups: usize,
    /// Requests that later ones of the connection wait for, since those could change what they find or depend on what
    /// they do: commands on another node, scans, long replies that read keys of this node.
    barriers: usize,
    /// Bytes of memory.
    bytes: usize,
}

impl UnderWay {
    /// A request begins, which waits for so many lookups and holds so many bytes.
    pub(in crate::node) const fn begin(&mut self, lookups: usize, bytes: usize) {
        self.lookups += lookups;
        self.bytes += bytes;
    }

    /// A lookup for one of the requests has ended.
    pub(in crate::node) const fn lookup_ended(&mut self) {
        self.lookups -= 1;
    }

    /// A request has held `before` bytes and holds `after`.
    pub(in crate::node) const fn holds(&mut self, before: usize, after: usize) {
        self.bytes = (self.bytes + after).saturating_sub(before);
    }

    /// Later requests wait for one of them.
    pub(in crate::node) const fn raise_barrier(&mut self) {
        self.barriers += 1;
    }

    /// A request has ended, which held so many bytes.
    pub(in crate::node) fn end(&mut self, was_barrier: bool, bytes: usize) {
        self.barriers -= usize::from(was_barrier);
        self.holds(bytes, 0);
    }
}

/// One connection. What few connections have is boxed, so that ten thousand silent ones take little memory. Output, queues,
/// replies, timer and account have functions of their own; all else changes in this folder alone.
#[derive(Debug)]
pub struct Conn {
    pub(super) addr: SocketAddr,
    /// Its number: connections are counted from 1, and no number is used twice.
    number: u64,
    phase: Phase,
    pub(super) role: Role,
    /// A handshake that the other side began.
    pub(super) offered: Option<Box<InboundHandshake>>,
    /// Input that is not processed yet: at most one request and one read.
    pub(super) inbound: Buffer,
    /// Output that is not written yet.
    pub(in crate::node) outbound: ChunkQueue,
    /// Frames that wait for room in `outbound`, of a link.
    pub(in crate::node) link_queues: Option<Box<LinkQueues>>,
    /// Replies behind one that is not known yet.
    pub(in crate::node) replies: Replies,
    /// When the connection was made.
    pub(super) since: Instant,
    /// Bytes read and written lately.
    pub(super) traffic: Traffic,
    /// When the connection was made, last sent input, or began to close.
    pub(super) last_active: Instant,
    /// Since when its socket has taken none of the output that waits.
    pub(super) waits_since: Option<Instant>,
    /// Fires when the time limit that was armed last ends.
    pub(in crate::node) alarm: Alarm,
    /// What its turns have cost.
    pub(super) account: Account,
    /// Its part of the bytes counted against `buffers_max`.
    pub(super) accounted: usize,
    /// Bytes still to come of a frame that is skipped.
    pub(super) skip: usize,
    /// Its requests under way, since the first one. Boxed, since most connections never have any.
    under_way: Option<Box<UnderWay>>,
    /// Bytes of replies so far to a client that has not authenticated.
    unauthenticated_bytes: u32,
    pub(super) is_authenticated: bool,
    /// What a client speaks; `None` before its first line is known.
    pub(super) protocol: Option<ClientProtocol>,
    /// What a client has set for its connection, if anything.
    pub(super) session: Option<Box<Session>>,
    /// Its session decides what becomes of each request: it is queued, or not answered.
    pub(super) is_intercepted: bool,
    /// The requests of its transaction are being carried out.
    is_transacting: bool,
    /// The answer to a wrong password waits for its time.
    is_refused: bool,
    /// How far an unfinished request in RESP is parsed.
    pub(super) progress: Progress,
    /// All of `inbound` is the beginning of a line, without its end.
    pub(super) has_partial_line: bool,
    /// The request whose turn it is waits for the replies to all earlier ones.
    pub(super) awaits_replies: bool,
    /// A request was received.
    has_requested: bool,
    /// In the list of connections to be reconciled before the node returns.
    pub(super) is_dirty: bool,
    /// [`Action::Flush`](crate::node::Action::Flush) was emitted and output is left.
    pub(super) is_flushing: bool,
    /// [`Action::StopReading`](crate::node::Action::StopReading) was emitted.
    pub(super) is_stopped: bool,
    /// In the queue of connections with unprocessed input.
    pub(super) is_runnable: bool,
    /// It has used up a turn since it was last read.
    pub(super) is_deep: bool,
    /// Its requests wait: too much output, or too many pending requests.
    pub(super) is_paused: bool,
    /// The other side closed while ours was closing.
    pub(super) is_read_closed: bool,
}

impl Conn {
    /// An accepted connection, the `number`th one.
    pub(in crate::node) fn new(addr: SocketAddr, number: u64, now: Instant, is_authenticated: bool) -> Self {
        Self {
            addr,
            number,
            phase: Phase::Open,
            role: Role::Client,
            offered: None,
            inbound: Buffer::new(),
            outbound: ChunkQueue::new(),
            link_queues: None,
            replies: Replies::default(),
            since: now,
            traffic: Traffic::default(),
            last_active: now,
            waits_since: None,
            alarm: Alarm::default(),
            account: Account::default(),
            accounted: 0,
            skip: 0,
            under_way: None,
            unauthenticated_bytes: 0,
            is_authenticated,
            protocol: None,
            session: None,
            is_intercepted: false,
            is_transacting: false,
            is_refused: false,
            progress: Progress::default(),
            has_partial_line: false,
            awaits_replies: false,
            has_requested: false,
            is_dirty: false,
            is_flushing: false,
            is_stopped: false,
            is_runnable: false,
            is_deep: false,
            is_paused: false,
            is_read_closed: false,
        }
    }

    /// A connection that is being made to `addr`, for a handshake.
    pub(in crate::node) fn dialled(addr: SocketAddr, now: Instant, dialling: OutboundHandshake) -> Self {
        Self {
            phase: Phase::Connecting,
            role: Role::OutboundHandshake(Box::new(dialling)),
            ..Self::new(addr, 0, now, true)
        }
    }

    pub(in crate::node) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its number: connections are counted from 1, and no number is used twice.
    pub(in crate::node) const fn number(&self) -> u64 {
        self.number
    }

    /// When the connection was made.
    pub(in crate::node) const fn since(&self) -> Instant {
        self.since
    }

    /// When the connection was made, last sent input, or began to close.
    pub(in crate::node) const fn last_active(&self) -> Instant {
        self.last_active
    }

    /// Bytes read and written per second lately.
    pub(in crate::node) fn traffic_per_second(&self, now: Instant) -> u64 {
        self.traffic.per_second(now)
    }

    pub(in crate::node) const fn role(&self) -> &Role {
        &self.role
    }

    /// The session, if a client has set something.
    pub(in crate::node) fn session(&self) -> Option<&Session> {
        self.session.as_deref()
    }

    /// The same, to be changed in what does not decide whether requests are intercepted.
    pub(in crate::node) fn session_if_any(&mut self) -> Option<&mut Session> {
        self.session.as_deref_mut()
    }

    /// The session, begun if there is none, to be changed in what does not decide whether requests are intercepted.
    pub(in crate::node) fn session_mut(&mut self) -> &mut Session {
        self.session.get_or_insert_default()
    }

    /// Changes the session, begun if there is none.
    pub(in crate::node) fn change_session<R>(&mut self, change: impl FnOnce(&mut Session) -> R) -> R {
        let session = self.session.get_or_insert_default();
        let result = change(session);
        self.is_intercepted = session.intercepts();
        result
    }

    /// Ends the session, but for the count of wrong passwords.
    pub(in crate::node) fn reset_session(&mut self, is_authenticated: bool) {
        self.session = self.session.as_ref().and_then(|session| session.failures_only()).map(Box::new);
        self.is_intercepted = false;
        self.is_authenticated = is_authenticated;
    }

    /// Answers a wrong password later; until then no request is read.
    pub(in crate::node) fn hold_refusal(&mut self, refusal: Refusal) {
        self.session_mut().hold_refusal(refusal);
        self.is_refused = true;
    }

    /// The answer to a wrong password whose time has come.
    pub(in crate::node) fn take_refusal(&mut self, due: u64) -> Option<Refusal> {
        let refusal = self.session.as_mut()?.take_refusal(due)?;
        self.is_refused = false;
        Some(refusal)
    }

    pub(in crate::node) const fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    /// The client has given the password, or needs none.
    pub(in crate::node) const fn authenticate(&mut self) {
        self.is_authenticated = true;
    }

    /// What the client speaks, once its first line is known.
    pub(in crate::node) const fn protocol(&self) -> Option<ClientProtocol> {
        self.protocol
    }

    pub(in crate::node) const fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = Some(ClientProtocol::Commands(protocol));
    }

    /// Notes a request; whether it is the first one.
    #[inline]
    pub(in crate::node) const fn requested(&mut self) -> bool {
        !std::mem::replace(&mut self.has_requested, true)
    }

    /// The requests of its transaction are being carried out, or no more.
    pub(in crate::node) const fn set_transacting(&mut self, is_transacting: bool) {
        self.is_transacting = is_transacting;
    }

    pub(in crate::node) const fn is_transacting(&self) -> bool {
        self.is_transacting
    }

    /// Has the request whose turn it is wait until all earlier replies are known; whether there are any.
    pub(in crate::node) fn await_replies(&mut self) -> bool {
        let must_wait = !self.is_transacting && self.replies.waiting() > 0;
        self.awaits_replies |= must_wait;
        must_wait
    }

    /// All of its input is the beginning of a line, or not.
    pub(in crate::node) const fn set_partial_line(&mut self, is_partial: bool) {
        self.has_partial_line = is_partial;
    }

    /// Whether it has used up a turn since it was last read.
    pub(in crate::node) const fn is_deep(&self) -> bool {
        self.is_deep
    }

    /// Bytes of input that are not processed yet.
    pub(in crate::node) fn unprocessed(&self) -> usize {
        self.inbound.len()
    }

    /// Its part of the bytes counted against `buffers_max`.
    pub(in crate::node) const fn accounted(&self) -> usize {
        self.accounted
    }

    /// It has changed; whether it is to be put in the list of those to be reconciled.
    #[inline]
    pub(in crate::node) const fn changed(&mut self) -> bool {
        !std::mem::replace(&mut self.is_dirty, true)
    }

    /// The dial has succeeded: the handshake begins, with what our offer states about our links. Returns our nonce.
    pub(in crate::node) fn connected(&mut self, now: Instant, links: Links) -> Option<[u8; 16]> {
        self.set_phase(Phase::Open);
        self.last_active = now;
        let Role::OutboundHandshake(dialling) = &mut self.role else { return None };
        (dialling.at, dialling.links) = (now, links);
        Some(dialling.nonce)
    }

    /// The handshake that we began.
    pub(in crate::node) fn dialling(&self) -> Option<&OutboundHandshake> {
        match &self.role {
            Role::OutboundHandshake(dialling) => Some(dialling),
            Role::Client | Role::Link(_) | Role::Parted => None,
        }
    }

    /// The dialled node has proven its identity.
    pub(in crate::node) fn proven(&mut self, theirs: PeerIdentity) {
        if let Role::OutboundHandshake(dialling) = &mut self.role {
            dialling.theirs = Some(theirs);
        }
    }

    /// The other side has begun a handshake.
    pub(in crate::node) fn offered(&mut self, handshake: InboundHandshake) {
        self.offered = Some(Box::new(handshake));
    }

    /// Ends a handshake that the other side began, if it did.
    pub(in crate::node) const fn take_offer(&mut self) -> Option<Box<InboundHandshake>> {
        self.offered.take()
    }

    /// Whether a handshake that the other side began goes on.
    pub(in crate::node) const fn has_offer(&self) -> bool {
        self.offered.is_some()
    }

    /// Ends the link: what waits is dropped. Its peer.
    pub(in crate::node) fn part(&mut self, pool: &mut Pool) -> Option<PeerKey> {
        let peer = self.link()?;
        self.role = Role::Parted;
        if let Some(mut queues) = self.link_queues.take() {
            queues.release(pool);
        }
        Some(peer)
    }

    /// Appends a reply after those that are known, or waits with it for those that are not.
    pub(in crate::node) fn reply(&mut self, pool: &mut Pool, write: impl FnOnce(&mut Vec<u8>)) {
        self.replies.next(&mut self.outbound, pool, write);
    }

    /// Gives its memory back.
    pub(in crate::node) fn release(&mut self, pool: &mut Pool) {
        self.inbound.release(pool);
        self.outbound.release(pool);
        if let Some(mut queues) = self.link_queues.take() {
            queues.release(pool);
        }
        self.replies.release(pool);
    }

    /// Counts bytes of replies to a client that has not authenticated; whether they are more than `bytes_max`.
    pub(in crate::node) fn is_over_unauthenticated(&mut self, bytes: usize, bytes_max: u32) -> bool {
        let more = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.unauthenticated_bytes = self.unauthenticated_bytes.saturating_add(more);
        self.unauthenticated_bytes > bytes_max
    }

    /// Makes it the link to a peer.
    pub(in crate::node) fn become_link(&mut self, peer: PeerKey) {
        self.role = Role::Link(peer);
        self.link_queues = Some(Box::default());
        self.offered = None;
        self.is_authenticated = true;
    }

    /// The peer whose link it is.
    pub(in crate::node) const fn link(&self) -> Option<PeerKey> {
        match self.role {
            Role::Link(peer) => Some(peer),
            Role::Client | Role::OutboundHandshake(_) | Role::Parted => None,
        }
    }

    /// What it speaks; lines as long as nothing else is known.
    pub(in crate::node) fn speaks(&self) -> ClientProtocol {
        self.protocol.unwrap_or(ClientProtocol::Commands(Protocol::Lines))
    }

    /// Whether it speaks lines.
    pub(in crate::node) fn is_in_lines(&self) -> bool {
        self.speaks() == ClientProtocol::Commands(Protocol::Lines)
    }

    /// Whether it is a client's, or not known to be a peer's yet.
    pub(in crate::node) const fn is_client(&self) -> bool {
        matches!(self.role, Role::Client)
    }

    /// Whether it is a link, or a dialled connection that may become one.
    pub(in crate::node) const fn is_of_mesh(&self) -> bool {
        matches!(self.role, Role::Link(_) | Role::OutboundHandshake(_))
    }

    /// The class whose share its input is processed in.
    pub(in crate::node) const fn class(&self) -> Class {
        if self.is_of_mesh() { Class::Links } else { Class::Clients }
    }

    /// The phase.
    pub(in crate::node) const fn phase(&self) -> Phase {
        self.phase
    }

    /// The only way to change the phase, always to a later one.
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

    /// Whether it is open in both directions.
    pub(in crate::node) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether it is open, all its input is processed, and all replies are in its output.
    #[inline]
    pub(in crate::node) fn flows(&self) -> bool {
        self.is_open() && !self.must_wait() && self.replies.is_empty()
    }

    /// Whether its input is still processed.
    pub(in crate::node) const fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::ReadClosed)
    }

    /// Ignores input from here on; the connection closes after its last reply.
    pub(in crate::node) fn begin_closing(&mut self, reason: CloseReason, now: Instant, pool: &mut Pool) {
        self.is_read_closed |= self.phase == Phase::ReadClosed;
        self.set_phase(Phase::Closing(reason));
        self.inbound.release(pool);
        self.last_active = now;
        self.is_paused = false;
    }

    /// Whether its requests have to wait: for a request that is a barrier, for earlier replies, for the answer to a
    /// wrong password; or its output is over `outbound_pause_bytes`, too many of its keys are being looked up, or a
    /// response in HTTP, which may be long, is being written. Frames never wait: two nodes that wait for each other
    /// would deadlock.
    pub(in crate::node) fn must_pause(&self, limits: &Limits) -> bool {
        self.is_client()
            && (self.is_refused
                || self.unsent() > limits.outbound_pause_bytes as usize
                || self.under_way.as_ref().is_some_and(|requests| {
                    requests.barriers > 0 || requests.lookups >= limits.lookups_per_connection as usize
                })
                || self.replies.waiting() > 0
                    && (self.awaits_replies
                        || self.replies.waiting() >= limits.lookups_per_connection as usize
                        || self.protocol == Some(ClientProtocol::Http)))
    }

    /// Its requests under way.
    pub(in crate::node) fn under_way(&mut self) -> &mut UnderWay {
        self.under_way.get_or_insert_default()
    }

    /// Keys of its requests that are being looked up on other nodes.
    pub(in crate::node) fn lookups(&self) -> usize {
        self.under_way.as_ref().map_or(0, |requests| requests.lookups)
    }

    /// Whether the next piece of a long reply is to be written: enough of the output has drained.
    pub(in crate::node) fn has_long_reply_to_write(&self, limits: &Limits) -> bool {
        self.replies.long_at_front().is_some() && self.outbound.len() < limits.outbound_pause_bytes as usize
    }

    /// Fills a reply slot. A closing connection that waited for it gets its time to read from now on.
    pub(in crate::node) fn fill(&mut self, now: Instant, place: Place, reply: &[u8], pool: &mut Pool) {
        let was_waiting = self.outbound.is_empty();
        self.replies.fill(now, place, reply, &mut self.outbound, pool);
        if was_waiting && !self.is_serving() {
            self.last_active = now;
        }
    }

    /// The same with a long reply in pieces.
    pub(in crate::node) fn fill_pieces(
        &mut self,
        now: Instant,
        place: Place,
        pieces: Vec<SharedBytes>,
        pool: &mut Pool,
    ) {
        let was_waiting = self.outbound.is_empty();
        self.replies.fill_pieces(now, place, pieces, &mut self.outbound, pool);
        if was_waiting && !self.is_serving() {
            self.last_active = now;
        }
    }

    /// Since when it has made no progress with what it holds memory for: output that it does not take, or a request
    /// that is not complete. `None`: it waits for this node, or holds nothing.
    pub(in crate::node) fn stalled_since(&self) -> Option<Instant> {
        let waits_for_us = self.must_wait() || !self.replies.is_empty();
        let is_partial = !self.inbound.is_empty() && !waits_for_us;
        self.waits_since.or_else(|| is_partial.then_some(self.last_active))
    }

    /// Whether its input waits: for its next turn, or for what [`Conn::must_pause`] names.
    pub(super) const fn must_wait(&self) -> bool {
        self.is_runnable || self.is_paused
    }

    /// Bytes without which the request in RESP, or the frame, that has begun cannot be parsed further; `None`: none has begun.
    pub(in crate::node) fn missing_bytes(&self) -> Option<usize> {
        let needed = self.progress.needed();
        (needed > 0).then(|| needed.saturating_sub(self.inbound.len()))
    }

    /// Bytes of output, and of replies after one that is not known yet.
    pub(in crate::node) fn unsent(&self) -> usize {
        self.outbound.len() + self.replies.bytes()
    }

    /// Bytes of memory of its buffers and pending requests.
    #[inline]
    pub(in crate::node) fn held(&self) -> usize {
        let queued = self.link_queues.as_ref().map_or(0, |queues| queues.held());
        let session = self.session.as_ref().map_or(0, |session| session.held());
        let buffers = self.inbound.held() + self.outbound.held() + self.replies.held();
        let under_way = self.under_way.as_ref().map_or(0, |requests| requests.bytes);
        buffers + queued + session + under_way
    }
}
