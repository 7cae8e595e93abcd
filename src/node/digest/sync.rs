//! Telling peers of our keys, and following what they tell of theirs.
//!
//! A peer is told nothing before it has said, by RESYNC, from where it wants our digest: from the place
//! that it knows, or from the beginning. From then on changes go to all peers together: at the end of
//! the turn if [`TELL_EVERY`] has passed since the last time, else when it has; later, up to
//! [`GATHER_FOR`], while many come; at once when a kilobyte has gathered, or before an answer to that peer. A link with much waiting is told nothing until it has
//! caught up; what it missed it is told then, or it gets a snapshot if the log has moved on.

use crate::base::time::Now;
use crate::filter::FilterError;
use crate::filter::changelog::{Change, Piece, Position};
use crate::filter::receiver::{Outcome, ReceiveError};
use crate::filter::size::{Block, Size};
use crate::limits::CHANGES_PER_STEP;
use crate::node::ids::PeerKey;
use crate::node::peer::link_output;
use crate::node::state::{State, Timer};
use crate::wire::frame::{Body, Head, put, put_blocks, put_deltas, put_piece};
use std::time::Duration;

/// How long changes gather before they are told, if some were told a moment ago.
const TELL_EVERY: Duration = Duration::from_millis(1);

/// Changes in that time from which on they gather for longer, so that many share one header: 10,000 new
/// keys a second then take 8.5 bytes each.
const MANY: u64 = 5;

/// How long many changes gather: a key is still found everywhere well within 10 ms.
const GATHER_FOR: Duration = Duration::from_millis(4);

/// Peers that one step tells, if it is little: so that a new key gets to a hundred peers within few steps;
/// and bytes after which it leaves the others to the next step.
const PEERS_PER_STEP: usize = 16;
const TOLD_PER_STEP: u64 = 16 * 1024;

/// Changes that are told without waiting: a kilobyte of hashes.
const TELL_AT_ONCE: u64 = 128;

/// For how long nothing of a snapshot may come before it is given up.
const SNAPSHOT_STALLED: Duration = Duration::from_secs(30);

/// How soon a peer is asked again for a filter that could not be followed: this, and twice as long each time
/// that it is refused, up to ten minutes.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(10);
const REFUSALS_COUNTED_MAX: u32 = 6;

/// Whether [`step`] has something to do.
pub(in crate::node) fn has_work(state: &State) -> bool {
    let mesh = &state.mesh;
    mesh.must_tell || !mesh.pump.is_empty() || mesh.filters.has_work()
}

/// Draws the conclusions of whatever has changed in our filter: whether peers are told of it now, or when.
pub(in crate::node) fn schedule(state: &mut State, now: Now) {
    let head = state.keyspace.changelog().head().seq;
    let mesh = &mut state.mesh;
    if mesh.must_tell || head == mesh.told_seq {
        return;
    }
    if mesh.peers.linked_count() == 0 {
        mesh.told_seq = head;
        return;
    }
    let waiting = head - mesh.told_seq;
    let span = if waiting < MANY { TELL_EVERY } else { GATHER_FOR };
    let due = mesh.told_at.map_or(now.mono, |told_at| told_at.after(span));
    if due <= now.mono || waiting >= TELL_AT_ONCE {
        mesh.must_tell = true;
    } else if mesh.tell_timer_at.is_none() {
        let at = due.millis_ceil();
        mesh.tell_timer_at = Some(at);
        state.timers.insert(at, Timer::Tell);
    }
}

/// The time to gather is over.
pub(in crate::node) fn timer_fired(state: &mut State, now: Now) {
    state.mesh.tell_timer_at = None;
    schedule(state, now);
}

/// Does one bounded piece of what there is to tell and to follow.
pub(in crate::node) fn step(state: &mut State, now: Now) {
    if std::mem::take(&mut state.mesh.must_tell) {
        state.mesh.told_at = Some(now.mono);
        state.mesh.told_seq = state.keyspace.changelog().head().seq;
        let all: Vec<PeerKey> = state.mesh.peers.linked().map(|(key, _)| key).collect();
        all.into_iter().for_each(|peer| enqueue(state, peer));
    }
    let sent_before = state.stats.digest_sent_bytes;
    for _ in 0..PEERS_PER_STEP {
        let Some(peer) = state.mesh.pump.pop_front() else { break };
        if let Some(peer) = state.mesh.peers.get_mut(peer) {
            peer.is_pumping = false;
        }
        if tell(state, now, peer) {
            enqueue(state, peer);
        }
        if state.stats.digest_sent_bytes - sent_before >= TOLD_PER_STEP {
            break;
        }
    }
    state.mesh.filters.step();
}

/// Tells a peer a share of what it does not know of our digest, before it gets an answer: mostly all of it.
pub(in crate::node) fn flush(state: &mut State, now: Now, peer: PeerKey) {
    let reader = state.mesh.peers.get(peer).and_then(|peer| peer.reader);
    if reader.is_some_and(|reader| state.keyspace.changelog().has_change(reader)) {
        tell(state, now, peer);
    }
}

/// The link has taken bytes: if it can be told more now, it will be.
pub(in crate::node) fn link_drained(state: &mut State, peer: PeerKey) {
    if has_more(state, peer) {
        enqueue(state, peer);
    }
}

fn enqueue(state: &mut State, peer_key: PeerKey) {
    if let Some(peer) = state.mesh.peers.get_mut(peer_key)
        && peer.reader.is_some()
        && !std::mem::replace(&mut peer.is_pumping, true)
    {
        state.mesh.pump.push_back(peer_key);
    }
}

/// Whether there is something to tell a peer, and room in its link for it.
fn has_more(state: &State, peer: PeerKey) -> bool {
    let Some(reader) = state.mesh.peers.get(peer).and_then(|peer| peer.reader) else { return false };
    let digest = state.keyspace.changelog();
    (digest.has_change(reader) && link_output::has_room_for_ordered(state, peer))
        || (digest.has_piece(reader) && link_output::has_room_for_bulk(state, peer))
}

/// Writes one share of our digest to a peer's link; true if there is more, and room for it.
fn tell(state: &mut State, now: Now, peer: PeerKey) -> bool {
    if !has_more(state, peer) {
        return false;
    }
    let Some(reader) = state.mesh.peers.get(peer).and_then(|peer| peer.reader) else { return false };
    let clock = state.keyspace.clock(now);
    let mut text = state.pool.take();
    let mut writer = Writer { out: &mut text, clock, hashes: Vec::new(), images: Vec::new(), first: 0 };
    let (filter, digest) = state.keyspace.publication();
    for _ in 0..CHANGES_PER_STEP {
        let Some((seq, change)) = digest.next_change(reader, filter) else { break };
        writer.change(seq, change);
    }
    writer.flush();
    let mut sent = link_output::append_ordered(state, now, peer, |out, _| out.extend_from_slice(&text));
    text.clear();
    if link_output::has_room_for_bulk(state, peer) {
        let (filter, digest) = state.keyspace.publication();
        let mut words = Vec::new();
        let piece = digest.next_piece(reader, filter, &mut words);
        match piece {
            None => {}
            Some(Piece::Begin { position, size }) => {
                let body = Body::Snap { head: head_of(position), size_log2: size.log2() };
                put(&mut text, clock, 0, &body);
            }
            Some(Piece::Blocks { first }) => put_piece(&mut text, clock, first, &words),
            Some(Piece::End) => put(&mut text, clock, 0, &Body::SnapEnd),
        }
    }
    if !text.is_empty() {
        sent += link_output::append_bulk(state, now, peer, |out, _| out.extend_from_slice(&text));
    }
    state.pool.give(text);
    state.stats.digest_sent_bytes += sent as u64;
    has_more(state, peer)
}

/// Gathers changes that are alike into one frame.
struct Writer<'o> {
    out: &'o mut Vec<u8>,
    clock: u64,
    hashes: Vec<u64>,
    images: Vec<(u32, Block)>,
    first: u64,
}

impl Writer<'_> {
    fn change(&mut self, seq: u64, change: Change) {
        match change {
            Change::Add(hash) => {
                if !self.images.is_empty() {
                    self.flush();
                }
                if self.hashes.is_empty() {
                    self.first = seq;
                }
                self.hashes.push(hash);
            }
            Change::Block { number, image } => {
                if !self.hashes.is_empty() {
                    self.flush();
                }
                if self.images.is_empty() {
                    self.first = seq;
                }
                self.images.push((number, image));
            }
            Change::Resize(size) => {
                self.flush();
                #[expect(clippy::cast_possible_truncation, reason = "the low half is what the frame holds")]
                put(self.out, self.clock, seq as u32, &Body::Resize { size_log2: size.log2() });
            }
        }
    }

    fn flush(&mut self) {
        if !self.hashes.is_empty() {
            put_deltas(self.out, self.clock, self.first, self.hashes.drain(..));
        }
        if !self.images.is_empty() {
            put_blocks(self.out, self.clock, self.first, self.images.drain(..));
        }
    }
}

const fn head_of(position: Position) -> Head {
    Head { epoch: position.epoch, seq: position.seq }
}

const fn position_of(head: Head) -> Position {
    Position { epoch: head.epoch, seq: head.seq }
}

/// Where our log ends, for a beat.
pub(in crate::node) fn own_head(state: &State) -> Head {
    head_of(state.keyspace.changelog().head())
}

/// A link is there: asks the peer for its digest, from where we know it.
pub(in crate::node) fn link_up(state: &mut State, now: Now, peer_key: PeerKey) {
    let mesh = &mut state.mesh;
    let Some(peer) = mesh.peers.get_mut(peer_key) else { return };
    let at = peer.receiver.relinked(&mut mesh.filters);
    ask_again(state, now, peer_key, at);
}

/// A link has gone: the peer reads no more.
pub(in crate::node) fn link_lost(state: &mut State, peer_key: PeerKey) {
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
    if let Some(reader) = peer.reader.take() {
        state.keyspace.publication().1.leave(reader);
    }
    peer.receiver.unlinked(&mut state.mesh.filters);
    peer.filter_known_at = None;
}

/// A beat's other part: gives up a snapshot of which nothing has come for long, since others may need the
/// room, and asks again for a filter that could not be followed, some time ago.
pub(in crate::node) fn heartbeat(state: &mut State, now: Now, peer_key: PeerKey) {
    let mesh = &mut state.mesh;
    let Some(peer) = mesh.peers.get_mut(peer_key) else { return };
    match (peer.receiver.snapshot_blocks(), peer.snapshot_at) {
        (None, _) => peer.snapshot_at = None,
        (Some(blocks), Some((seen, since))) if blocks == seen => {
            if now.mono.since(since) >= SNAPSHOT_STALLED {
                peer.receiver.give_up(&mut mesh.filters);
                peer.refusals = peer.refusals.saturating_add(1);
                state.stats.digest_messages_refused += 1;
            }
        }
        (Some(blocks), _) => peer.snapshot_at = Some((blocks, now.mono)),
    }
    let every = SNAPSHOT_EVERY * 2u32.pow(peer.refusals.min(REFUSALS_COUNTED_MAX));
    let asked = peer.snapshot_asked.is_some_and(|then| now.mono.since(then) < every);
    if peer.receiver.is_waiting() && !asked {
        ask_again(state, now, peer_key, None);
    }
}

fn ask_again(state: &mut State, now: Now, peer_key: PeerKey, at: Option<Position>) {
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
    if at.is_none() {
        peer.snapshot_asked = Some(now.mono);
    }
    link_output::send_control(state, now, peer_key, 0, &Body::Resync(at.map(head_of)));
}

/// A peer says from where it wants our digest. It is told at once where our log ends, so that it knows
/// when it has caught up.
pub(in crate::node) fn resync(state: &mut State, now: Now, peer_key: PeerKey, at: Option<Head>) {
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
    let at = at.map(position_of);
    let (_, digest) = state.keyspace.publication();
    match peer.reader {
        Some(reader) => digest.resync(reader, at),
        None => peer.reader = Some(digest.join(at)),
    }
    answer_heartbeat(state, now, peer_key, 0);
    enqueue(state, peer_key);
}

/// Answers a beat, or what wants to know where our log ends. Who does not take what waits for it is not
/// answered: questions of a few bytes must not fill the memory.
pub(in crate::node) fn answer_heartbeat(state: &mut State, now: Now, peer_key: PeerKey, request: u32) {
    let body = Body::Heartbeat { head: own_head(state), is_answer: true };
    if !link_output::send_control_reply(state, now, peer_key, request, &body) {
        state.stats.heartbeats_unanswered += 1;
    }
}

/// A peer beats, and says where its log ends.
pub(in crate::node) fn heartbeat_from(state: &mut State, now: Now, peer_key: PeerKey, head: Head) {
    follow(state, now, peer_key, |receiver, filters| {
        receiver.heartbeat_from(filters, position_of(head));
        Ok(Outcome::Applied)
    });
    note_if_known(state, now, peer_key);
}

/// A peer answers a beat, and says where its log ends.
pub(in crate::node) fn heard_head(state: &mut State, now: Now, peer_key: PeerKey, head: Head) {
    follow(state, now, peer_key, |receiver, filters| {
        receiver.heard_head(filters, position_of(head));
        Ok(Outcome::Applied)
    });
    note_if_known(state, now, peer_key);
}

fn note_if_known(state: &mut State, now: Now, peer_key: PeerKey) {
    let mesh = &mut state.mesh;
    if let Some(peer) = mesh.peers.get_mut(peer_key)
        && !mesh.filters.is_unknown(peer.filter)
    {
        peer.filter_known_at = Some(now.mono);
        peer.refusals = 0;
    }
}

/// A snapshot of a peer's filter begins. If it does not fit, the peer is told to go on behind it, so that
/// it does not send all of that for nothing.
pub(in crate::node) fn snapshot(state: &mut State, now: Now, peer_key: PeerKey, head: Head, size_log2: u8) {
    let Some(size) = Size::from_log2(size_log2) else { return refused(state) };
    let refusal = follow(state, now, peer_key, |receiver, filters| {
        receiver.begin(filters, position_of(head), size).map(|()| Outcome::Applied)
    });
    if refusal == Some(ReceiveError::Filter(FilterError::OverBudget)) {
        ask_again(state, now, peer_key, Some(position_of(head)));
    }
}

/// Blocks of a snapshot.
pub(in crate::node) fn piece(state: &mut State, now: Now, peer_key: PeerKey, first: u32, words: &[u64]) {
    follow(state, now, peer_key, |receiver, filters| receiver.blocks(filters, first, words));
}

/// A snapshot ends.
pub(in crate::node) fn snapshot_end(state: &mut State, now: Now, peer_key: PeerKey) {
    follow(state, now, peer_key, |receiver, filters| receiver.end(filters));
    note_if_known(state, now, peer_key);
}

/// A change of a peer's filter. `low` is the low half of its number.
pub(in crate::node) fn change(state: &mut State, now: Now, peer_key: PeerKey, low: u32, change: &Change) {
    follow(state, now, peer_key, |receiver, filters| {
        let expected = receiver.expected();
        let seq = nearest(expected.seq, low);
        receiver.change(filters, Position { epoch: expected.epoch, seq }, change)
    });
}

/// The number nearest to `expected` whose low half is `low`; ahead of it where none is behind, since no number
/// but the expected one may be taken for it.
fn nearest(expected: u64, low: u32) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    let ahead = low.wrapping_sub(expected as u32);
    let behind = expected.checked_add_signed(ahead.cast_signed().into());
    behind.unwrap_or_else(|| expected.saturating_add(ahead.into()))
}

/// A new size of a peer's filter. `low` is the low half of its number.
pub(in crate::node) fn resize(state: &mut State, now: Now, peer_key: PeerKey, low: u32, size_log2: u8) {
    let Some(size) = Size::from_log2(size_log2) else { return refused(state) };
    change(state, now, peer_key, low, &Change::Resize(size));
}

fn refused(state: &mut State) {
    state.stats.digest_messages_refused += 1;
}

/// Lets the receiver take something in, and does what follows from that. Returns why, if it was refused.
fn follow(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    take_in: impl FnOnce(
        &mut crate::filter::receiver::Receiver,
        &mut crate::filter::PeerFilters,
    ) -> Result<Outcome, ReceiveError>,
) -> Option<ReceiveError> {
    let mesh = &mut state.mesh;
    let peer = mesh.peers.get_mut(peer_key)?;
    let outcome = take_in(&mut peer.receiver, &mut mesh.filters);
    match outcome {
        Ok(Outcome::Applied) => {}
        Ok(Outcome::Dropped) => state.stats.digest_messages_dropped += 1,
        Ok(Outcome::Resync(at)) => ask_again(state, now, peer_key, at),
        Err(error) => {
            state.stats.digest_messages_refused += 1;
            peer.refusals = peer.refusals.saturating_add(1);
            log::debug!("the digest of {} was refused: {error}", peer.addr);
            return Some(error);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn number_of_a_change_is_known_by_its_low_half() {
        let far = 7 << 32;
        assert_eq!(nearest(far, 0), far);
        assert_eq!(nearest(far, u32::MAX), far - 1);
        assert_eq!(nearest(far - 1, 0), far);
        assert_eq!(nearest(far + 5, 9), far + 9);
        assert_eq!(nearest(0, u32::MAX), u32::MAX.into());
        assert_eq!(nearest(3, u32::MAX - 1), u64::from(u32::MAX) - 1);
    }
}
