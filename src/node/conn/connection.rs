//! The state of one connection: its role, its phase, its buffers.
//!
//! Clients and peers share this type; only the [`Role`] differs. Only [`Conn::set_phase`] changes the
//! [`Phase`], and only [`close_conn`](crate::node::state::close_conn) removes a connection.

use crate::base::buffer::{Buffer, Pool};
use crate::base::chunk_queue::ChunkQueue;
use crate::base::shared_bytes::SharedBytes;
use crate::base::time::Instant;
use crate::limits::Limits;
use crate::node::alarm::Alarm;
use crate::node::conn::fragments::Fragments;
use crate::node::conn::in_flight::InFlight;
use crate::node::conn::phase::{CloseReason, Phase};
use crate::node::conn::replies::{Replies, SlotNumber};
use crate::node::conn::role::{InboundHandshake, OutboundHandshake, PeerIdentity, Role};
use crate::node::conn::session::{Refusal, Session};
use crate::node::conn::traffic::Traffic;
use crate::node::ids::PeerKey;
use crate::node::peer::link_queues::LinkQueues;
use crate::node::schedule::{Account, Class};
use crate::wire::encoder::Protocol;
use crate::wire::handshake::Links;
use crate::wire::resp::parse::Progress;
use std::net::SocketAddr;

/// The protocol of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum ClientProtocol {
    /// Commands, in lines or in RESP.
    Commands(Protocol),
    /// HTTP.
    Http,
}

/// One connection. Fields that few connections need are boxed, so that ten thousand silent ones take little memory.
/// Output, queues, replies, timer and account have functions of their own; all other fields are changed in this folder
/// only.
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
    /// Of a link: frames that wait for room in `outbound`.
    pub(in crate::node) link_queues: Option<Box<LinkQueues>>,
    /// Replies after one that is not known yet.
    pub(in crate::node) replies: Replies,
    /// When the connection was made.
    pub(super) since: Instant,
    /// Bytes read and written lately.
    pub(super) traffic: Traffic,
    /// When the connection was made, last sent input, or began to close.
    pub(super) last_active: Instant,
    /// Since when its socket has accepted none of its output.
    pub(super) waits_since: Option<Instant>,
    /// Fires when the time limit that was armed last ends.
    pub(in crate::node) alarm: Alarm,
    /// The cost of its turns.
    pub(super) account: Account,
    /// Its part of the bytes counted against `buffers_max`.
    pub(super) accounted: usize,
    /// Its part of the bytes of output in the heap.
    pub(in crate::node) in_heap: usize,
    /// Bytes still to come of a frame that is skipped.
    pub(super) skip: usize,
    /// Of a link: a long frame that arrives in fragments.
    pub(super) fragments: Option<Box<Fragments>>,
    /// Its requests in flight, from the first one on. Boxed, since most connections never have any.
    in_flight: Option<Box<InFlight>>,
    /// Bytes of replies so far to a client that has not authenticated.
    unauthenticated_bytes: u32,
    pub(super) is_authenticated: bool,
    /// The protocol of a client; `None` before its first line is known.
    pub(super) protocol: Option<ClientProtocol>,
    /// The settings of a client for its connection, if it has made any.
    pub(super) session: Option<Box<Session>>,
    /// Requests pass through the session, which queues them or leaves them unanswered.
    pub(super) is_intercepted: bool,
    /// The requests of its transaction are being carried out.
    is_transacting: bool,
    /// The answer to a wrong password is delayed.
    is_refused: bool,
    /// How far an unfinished request in RESP is parsed.
    pub(super) progress: Progress,
    /// Bytes of the unfinished request or frame that were read straight into `inbound`, and counted as work then.
    pub(super) filled_bytes: usize,
    /// All of `inbound` is the beginning of a line, without its end.
    pub(super) has_partial_line: bool,
    /// The next request waits for the replies to all earlier ones.
    pub(super) awaits_replies: bool,
    /// Its last requests changed keys that peers were notified of.
    pub(super) notifies_peers: bool,
    /// The next request waits for a peer that is late.
    pub(in crate::node) awaits_peer: bool,
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
            in_heap: 0,
            skip: 0,
            fragments: None,
            in_flight: None,
            unauthenticated_bytes: 0,
            is_authenticated,
            protocol: None,
            session: None,
            is_intercepted: false,
            is_transacting: false,
            is_refused: false,
            progress: Progress::default(),
            filled_bytes: 0,
            has_partial_line: false,
            awaits_replies: false,
            notifies_peers: false,
            awaits_peer: false,
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

    /// The same, to change settings that do not affect [`Session::intercepts`].
    pub(in crate::node) fn session_if_any(&mut self) -> Option<&mut Session> {
        self.session.as_deref_mut()
    }

    /// The session, created if there is none, to change settings that do not affect [`Session::intercepts`].
    pub(in crate::node) fn session_mut(&mut self) -> &mut Session {
        self.session.get_or_insert_default()
    }

    /// Changes the session, created if there is none, and updates whether it intercepts requests.
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

    /// Delays the answer to a wrong password; until then no request is read.
    pub(in crate::node) fn hold_refusal(&mut self, refusal: Refusal) {
        self.session_mut().hold_refusal(refusal);
        self.is_refused = true;
    }

    /// Takes out the delayed answer to a wrong password if its tick is `due`.
    pub(in crate::node) fn take_refusal(&mut self, due: u64) -> Option<Refusal> {
        let refusal = self.session.as_mut()?.take_refusal(due)?;
        self.is_refused = false;
        Some(refusal)
    }

    pub(in crate::node) const fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    /// Marks the client as authenticated: it has sent the password, or needs none.
    pub(in crate::node) const fn authenticate(&mut self) {
        self.is_authenticated = true;
    }

    /// The protocol of the client, once its first line is known.
    pub(in crate::node) const fn protocol(&self) -> Option<ClientProtocol> {
        self.protocol
    }

    pub(in crate::node) const fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = Some(ClientProtocol::Commands(protocol));
    }

    /// Notes a request; returns whether it is the first one.
    #[inline]
    pub(in crate::node) const fn requested(&mut self) -> bool {
        !std::mem::replace(&mut self.has_requested, true)
    }

    /// Sets whether the requests of its transaction are being carried out.
    pub(in crate::node) const fn set_transacting(&mut self, is_transacting: bool) {
        self.is_transacting = is_transacting;
    }

    pub(in crate::node) const fn is_transacting(&self) -> bool {
        self.is_transacting
    }

    /// Makes the current request wait until all earlier replies are known; returns whether it must.
    pub(in crate::node) fn await_replies(&mut self) -> bool {
        let must_wait = !self.is_transacting && self.replies.waiting() > 0;
        self.awaits_replies |= must_wait;
        must_wait
    }

    /// Sets whether all of its input is the beginning of a line.
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

    /// Marks it as changed; returns whether it must be added to the list of connections to be reconciled.
    #[inline]
    pub(in crate::node) const fn changed(&mut self) -> bool {
        !std::mem::replace(&mut self.is_dirty, true)
    }

    /// Begins the handshake after a successful dial; `links` are those that our offer states. Returns our nonce; `None`
    /// if it was not dialled.
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
            Role::Client | Role::Link(_) | Role::FormerLink => None,
        }
    }

    /// Notes the identity that the dialled node has proven.
    pub(in crate::node) fn proven(&mut self, theirs: PeerIdentity) {
        if let Role::OutboundHandshake(dialling) = &mut self.role {
            dialling.theirs = Some(theirs);
        }
    }

    /// Begins a handshake that the other side offered.
    pub(in crate::node) fn offered(&mut self, handshake: InboundHandshake) {
        self.offered = Some(Box::new(handshake));
    }

    /// Ends the handshake that the other side began, if there is one, and returns it.
    pub(in crate::node) const fn take_offer(&mut self) -> Option<Box<InboundHandshake>> {
        self.offered.take()
    }

    /// Whether a handshake that the other side began is in progress.
    pub(in crate::node) const fn has_offer(&self) -> bool {
        self.offered.is_some()
    }

    /// Ends the link and drops its queued frames; returns its peer. `None` if it is no link.
    pub(in crate::node) fn part(&mut self, pool: &mut Pool) -> Option<PeerKey> {
        let peer = self.link()?;
        self.role = Role::FormerLink;
        if let Some(mut queues) = self.link_queues.take() {
            queues.release(pool);
        }
        Some(peer)
    }

    /// Appends a reply, to the output if all earlier replies are known, else to the queue.
    pub(in crate::node) fn reply(&mut self, pool: &mut Pool, write: impl FnOnce(&mut Vec<u8>)) {
        self.replies.next(&mut self.outbound, pool, write);
    }

    /// Returns its memory to the pool.
    pub(in crate::node) fn release(&mut self, pool: &mut Pool) {
        self.inbound.release(pool);
        self.outbound.release(pool);
        if let Some(mut queues) = self.link_queues.take() {
            queues.release(pool);
        }
        self.replies.release(pool);
        self.release_fragments(pool);
    }

    /// Drops the frame that arrives in fragments, if there is one.
    pub(super) fn release_fragments(&mut self, pool: &mut Pool) {
        if let Some(mut fragments) = self.fragments.take() {
            fragments.frame.release(pool);
        }
    }

    /// Whether a fragment of a long frame is incomplete, or was read and not processed.
    pub(super) fn has_open_fragment(&self) -> bool {
        self.fragments.as_ref().is_some_and(|fragments| fragments.is_open())
    }

    /// Bytes so far of a long answer to the query of this number.
    pub(in crate::node) fn received_of_answer(&self, request: u32) -> usize {
        self.fragments.as_ref().map_or(0, |fragments| fragments.received(request))
    }

    /// Counts bytes of replies to a client that has not authenticated; returns whether they exceed `bytes_max`.
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

    /// The peer, if it is a link.
    pub(in crate::node) const fn link(&self) -> Option<PeerKey> {
        match self.role {
            Role::Link(peer) => Some(peer),
            Role::Client | Role::OutboundHandshake(_) | Role::FormerLink => None,
        }
    }

    /// Its protocol; lines before it is known.
    pub(in crate::node) fn speaks(&self) -> ClientProtocol {
        self.protocol.unwrap_or(ClientProtocol::Commands(Protocol::Lines))
    }

    /// Whether its protocol is lines.
    pub(in crate::node) fn is_in_lines(&self) -> bool {
        self.speaks() == ClientProtocol::Commands(Protocol::Lines)
    }

    /// Whether it is a client's, or a node's that has not completed its handshake.
    pub(in crate::node) const fn is_client(&self) -> bool {
        matches!(self.role, Role::Client)
    }

    /// Whether it is a link, or a dialled connection that may become one.
    pub(in crate::node) const fn is_of_mesh(&self) -> bool {
        matches!(self.role, Role::Link(_) | Role::OutboundHandshake(_))
    }

    /// The class in whose share of an iteration its input is processed.
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
        self.release_fragments(pool);
        self.last_active = now;
        self.is_paused = false;
    }

    /// Whether its next request must wait: for a barrier, for earlier replies, or for the delayed answer to a wrong
    /// password; or because its output is over `outbound_pause_bytes`, too many of its keys are being looked up, or a
    /// response in HTTP, which may be long, is being written. Frames never wait: two nodes that wait for each other
    /// would deadlock. `unsent` is [`Conn::unsent`].
    #[inline(always)]
    pub(in crate::node) fn must_pause(&self, limits: &Limits, unsent: usize) -> bool {
        let lookups_max = limits.lookups_per_connection as usize;
        let waiting = self.replies.waiting();
        self.is_client()
            && (self.is_refused
                || self.awaits_peer
                || unsent > limits.outbound_pause_bytes as usize
                || self.in_flight.as_ref().is_some_and(|requests| requests.must_wait(limits))
                || waiting > 0
                    && (self.awaits_replies
                        || waiting >= lookups_max
                        || self.protocol == Some(ClientProtocol::Http)))
    }

    /// Panics if it waits and nothing will resume it. `is_queued`: it is among the connections with a turn to come. For
    /// tests.
    pub(in crate::node) fn audit(&self, limits: &Limits, is_queued: bool) {
        let number = self.number;
        // With output it is resumed once that is written.
        let is_resumed = self.must_pause(limits, self.unsent()) || !self.outbound.is_empty();
        assert!(!self.is_paused || is_resumed, "connection {number} is paused without a cause");
        assert_eq!(self.is_runnable, is_queued, "connection {number}: a turn to come");
        assert_eq!(self.is_stopped, self.must_wait(), "connection {number} is not read");
        let is_written = self.outbound.is_empty() || self.phase == Phase::Connecting;
        assert!(is_written || self.is_flushing, "connection {number} has output that is not written");
    }

    /// Its requests in flight, created if there are none.
    pub(in crate::node) fn in_flight(&mut self) -> &mut InFlight {
        self.in_flight.get_or_insert_default()
    }

    /// Bytes of memory of its requests that wait for other nodes.
    pub(in crate::node) fn bytes_of_requests(&self) -> usize {
        self.in_flight.as_ref().map_or(0, |requests| requests.bytes_of_requests())
    }

    /// Keys of its requests that are being looked up on other nodes.
    pub(in crate::node) fn lookups(&self) -> usize {
        self.in_flight.as_ref().map_or(0, |requests| requests.lookups())
    }

    /// Whether the next piece of a long reply is to be written: enough of the output has drained.
    pub(in crate::node) fn has_long_reply_to_write(&self, limits: &Limits) -> bool {
        self.replies.long_at_front().is_some() && self.outbound.len() < limits.outbound_pause_bytes as usize
    }

    /// Fills a reply slot. The time limit of a closing connection that waited for the reply starts anew.
    pub(in crate::node) fn fill(&mut self, now: Instant, slot: SlotNumber, reply: &[u8], pool: &mut Pool) {
        let was_waiting = self.outbound.is_empty();
        self.replies.fill(now, slot, reply, &mut self.outbound, pool);
        if was_waiting && !self.is_serving() {
            self.last_active = now;
        }
    }

    /// The same with a long reply in pieces.
    pub(in crate::node) fn fill_pieces(
        &mut self,
        now: Instant,
        slot: SlotNumber,
        pieces: Vec<SharedBytes>,
        pool: &mut Pool,
    ) {
        let was_waiting = self.outbound.is_empty();
        self.replies.fill_pieces(now, slot, pieces, &mut self.outbound, pool);
        if was_waiting && !self.is_serving() {
            self.last_active = now;
        }
    }

    /// Since when it has made no progress that would free its memory: its output is not accepted, or its request is
    /// incomplete. `None`: it waits for this node, or holds nothing.
    pub(in crate::node) fn stalled_since(&self) -> Option<Instant> {
        let waits_for_us = self.must_wait() || !self.replies.is_empty();
        let is_partial = !self.inbound.is_empty() && !waits_for_us;
        self.waits_since.or_else(|| is_partial.then_some(self.last_active))
    }

    /// Whether its input waits: for its next turn, or for a reason that [`Conn::must_pause`] lists.
    pub(super) const fn must_wait(&self) -> bool {
        self.is_runnable || self.is_paused
    }

    /// Bytes that are missing to parse the unfinished RESP request or frame further; `None` if there is none.
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
        let fragments = self.fragments.as_ref().map_or(0, |fragments| fragments.frame.held());
        let buffers = self.inbound.held() + self.outbound.held() + self.replies.held() + fragments;
        let in_flight = self.in_flight.as_ref().map_or(0, |requests| requests.bytes());
        buffers + queued + session + in_flight
    }
}
