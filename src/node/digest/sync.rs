//! Digest sync: publishing the changes of the own filter to peers, and following theirs.
//!
//! A peer is sent nothing before its RESYNC, which states the position to read from. From then on *additions* are sent
//! to all peers together, at the end of the entry point that made them: at once if none were sent recently, or if many
//! wait; a few milliseconds later while many are made. So the cost of publishing a key is part of the cost of writing
//! it, and a reader whose link has room lags by no more than that. A reader whose link had no room continues once it
//! has, or gets a snapshot if the changelog no longer holds its position. *Bulk* (snapshots, rebuilt blocks) is due
//! work, one frame at a time, for readers that have all additions.

use crate::base::time::Now;
use crate::filter::changelog::{Bulk, Position, ReaderKey};
use crate::filter::receiver::{ApplyResult, ReceiveError, Receiver};
use crate::filter::size::{Block, Size};
use crate::filter::{FilterError, PeerFilters};
use crate::node::digest::publishing::{ADDITIONS_PER_WRITE, Entries};
use crate::node::ids::PeerKey;
use crate::node::peer::link_output;
use crate::node::state::{State, Timer};
use crate::wire::frame::{Body, Head, low_half, put, put_blocks, put_deltas, put_piece};

/// Maximum readers that one step serves, and bytes after which the others are left to the next step.
const READERS_PER_STEP: usize = 16;
const BYTES_PER_STEP: u64 = 16 * 1024;

/// Bytes sent that cost as much as setting a key, and the cost in keys of a step of peers' filters.
const BYTES_PER_KEY: usize = 8 * ENTRIES_PER_KEY;
const FILTERS_STEP_KEYS: usize = 32;

/// Additions times readers that cost as much as setting a key.
const ENTRIES_PER_KEY: usize = 64;

/// Whether [`step`] has work.
pub(in crate::node) fn has_work(state: &State) -> bool {
    !state.mesh.publishing.readers.is_empty() || state.mesh.filters.has_work()
}

/// Cost of publishing `additions` new keys, in keys set: one entry per addition and reader.
pub(in crate::node) fn cost_of_additions(state: &State, additions: u64) -> usize {
    let entries = usize::try_from(additions).unwrap_or(usize::MAX);
    entries.saturating_mul(state.keyspace.changelog().readers()) / ENTRIES_PER_KEY
}

/// Publishes the changes of the own filter, or sets the timer for them. Called at the end of each entry point.
#[inline]
pub(in crate::node) fn schedule(state: &mut State, now: Now) {
    let head = state.keyspace.changelog().head();
    let waiting = state.mesh.publishing.waiting(head);
    if waiting > 0 && state.mesh.peers.linked_count() == 0 {
        state.mesh.publishing.skip(head);
    } else if waiting > 0 {
        schedule_changes(state, now, waiting);
    }
}

/// Publishes `waiting` changes, or sets the timer for them.
#[inline(never)]
fn schedule_changes(state: &mut State, now: Now, waiting: u64) {
    let entries = Entries { waiting, readers: state.keyspace.changelog().readers() };
    if state.mesh.publishing.is_due(now.mono, entries, &mut state.timers, Timer::Publish) {
        publish(state, now);
    }
}

/// Publishes the changes if the timer that fired is the live one.
pub(in crate::node) fn timer_fired(state: &mut State, now: Now, deadline: u64) {
    if state.mesh.publishing.fired(deadline) {
        schedule(state, now);
    }
}

/// Sends all additions to all readers, as far as their links have room.
fn publish(state: &mut State, now: Now) {
    let head = state.keyspace.changelog().head();
    state.mesh.publishing.published(now.mono, head);
    let peers: Vec<PeerKey> = state.mesh.peers.linked().map(|(key, _)| key).collect();
    let mut encoded = Encoded { first: 0, count: 0, frames: state.pool.take() };
    for peer in peers {
        send_additions(state, now, peer, &mut encoded, Amount::AsRoomPermits);
        enqueue_if_more(state, peer);
        send_heartbeat_if_due(state, now, peer);
    }
    state.pool.give(encoded.frames);
}

/// Additions as frames: most readers are at the same position, and their frames are equal.
#[derive(Debug)]
struct Encoded {
    first: u64,
    count: usize,
    frames: Vec<u8>,
}

/// The number of additions that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amount {
    AsRoomPermits,
    /// All: the next frame must not arrive before them. The changelog bounds them.
    All,
}

/// Sends a peer its unsent additions.
fn send_additions(state: &mut State, now: Now, peer: PeerKey, encoded: &mut Encoded, amount: Amount) {
    let Some(reader) = reader_of(state, peer) else { return };
    while state.keyspace.changelog().has_additions(reader)
        && (amount == Amount::All || link_output::has_room_for_ordered(state, peer))
    {
        let hashes = state.mesh.publishing.hashes();
        let (_, changelog) = state.keyspace.publication();
        let Some(first) = changelog.next_additions(reader, ADDITIONS_PER_WRITE, hashes) else { return };
        if (first, hashes.len()) != (encoded.first, encoded.count) {
            encoded.frames.clear();
            (encoded.first, encoded.count) = (first, hashes.len());
            let clock = state.keyspace.clock(now);
            put_deltas(&mut encoded.frames, clock, first, hashes.iter().copied());
        }
        let frames = &encoded.frames;
        let sent = link_output::append_ordered(state, now, peer, |out| out.extend_from_slice(frames));
        state.stats.digest_sent_bytes += sent as u64;
    }
}

/// Sends a peer all its unsent additions: an answer must not arrive before them.
pub(in crate::node) fn flush(state: &mut State, now: Now, peer: PeerKey) {
    send_unsent(state, now, peer, Amount::All);
}

fn send_unsent(state: &mut State, now: Now, peer: PeerKey, amount: Amount) {
    if reader_of(state, peer).is_some_and(|reader| state.keyspace.changelog().has_additions(reader)) {
        let mut encoded = Encoded { first: 0, count: 0, frames: state.pool.take() };
        send_additions(state, now, peer, &mut encoded, amount);
        state.pool.give(encoded.frames);
    }
}

/// Does one bounded piece of due work: bulk for readers, and work of the filters of peers. Returns its cost, in keys
/// set.
pub(in crate::node) fn step(state: &mut State, now: Now) -> usize {
    let sent_before = state.stats.digest_sent_bytes;
    let mut readers = 0;
    for _ in 0..READERS_PER_STEP {
        let Some(peer) = state.mesh.publishing.readers.pop() else { break };
        readers += 1;
        send_unsent(state, now, peer, Amount::AsRoomPermits);
        send_bulk(state, now, peer);
        enqueue_if_more(state, peer);
        send_heartbeat_if_due(state, now, peer);
        if state.stats.digest_sent_bytes - sent_before >= BYTES_PER_STEP {
            break;
        }
    }
    let has_worked = state.mesh.filters.step();
    let sent = usize::try_from(state.stats.digest_sent_bytes - sent_before).unwrap_or(usize::MAX);
    readers + sent / BYTES_PER_KEY + if has_worked { FILTERS_STEP_KEYS } else { 0 }
}

/// Queues a peer whose link has accepted bytes, if it has more to read.
pub(in crate::node) fn link_drained(state: &mut State, peer: PeerKey) {
    enqueue_if_more(state, peer);
}

fn reader_of(state: &State, peer: PeerKey) -> Option<ReaderKey> {
    state.mesh.peers.get(peer)?.following.reader()
}

/// Queues a peer for [`step`] if it has unsent changes and its link has room for them.
fn enqueue_if_more(state: &mut State, peer_key: PeerKey) {
    let Some(reader) = reader_of(state, peer_key) else { return };
    let changelog = state.keyspace.changelog();
    let has_more = if changelog.has_additions(reader) {
        link_output::has_room_for_ordered(state, peer_key)
    } else {
        changelog.has_bulk(reader) && link_output::has_room_for_bulk(state, peer_key)
    };
    if has_more {
        state.mesh.publishing.readers.push(peer_key);
    }
}

/// Sends one frame of bulk to a peer that has all additions, if its link has room.
fn send_bulk(state: &mut State, now: Now, peer: PeerKey) {
    let Some(reader) = reader_of(state, peer) else { return };
    if state.keyspace.changelog().has_additions(reader) || !link_output::has_room_for_bulk(state, peer) {
        return;
    }
    let clock = state.keyspace.clock(now);
    let mut buffer = std::mem::take(state.mesh.publishing.bulk());
    let (filter, changelog) = state.keyspace.publication();
    if let Some(bulk) = changelog.next_bulk(reader, filter, &mut buffer) {
        let sent = link_output::append_bulk(state, now, peer, |out| match bulk {
            Bulk::Begin { position, size } => {
                let body = Body::Snap { head: head_of(position), size_log2: size.log2() };
                put(out, clock, low_half(position.blocks), &body);
            }
            Bulk::Piece { first } => put_piece(out, clock, first, &buffer.words),
            Bulk::End => put(out, clock, 0, &Body::SnapEnd),
            Bulk::Images { first } => put_blocks(out, clock, first, buffer.images.iter().copied()),
        });
        state.stats.digest_sent_bytes += sent as u64;
    }
    *state.mesh.publishing.bulk() = buffer;
}

const fn head_of(position: Position) -> Head {
    Head { epoch: position.epoch, seq: position.seq }
}

/// Sends a heartbeat with the end of our additions, in the ordered stream: its clock acknowledges everything sent
/// before, and its answer shows that the peer has processed it.
pub(in crate::node) fn send_heartbeat(state: &mut State, now: Now, peer: PeerKey) {
    flush(state, now, peer);
    let body = own_heartbeat(state, now, peer, false);
    let Some(stream) = state.mesh.peers.get_mut(peer).map(|peer| &mut peer.stream) else { return };
    let number = stream.heartbeat_sent(now.mono);
    let clock = state.keyspace.clock(now);
    link_output::append_ordered(state, now, peer, |out| put(out, clock, number, &body));
}

/// The same after many bytes of the ordered stream, if all additions are sent.
pub(in crate::node) fn send_heartbeat_if_due(state: &mut State, now: Now, peer_key: PeerKey) {
    let Some(peer) = state.mesh.peers.get(peer_key) else { return };
    let is_due = peer.is_linked() && peer.stream.needs_heartbeat();
    if is_due
        && !peer.following.reader().is_some_and(|reader| state.keyspace.changelog().has_additions(reader))
    {
        send_heartbeat(state, now, peer_key);
    }
}

/// A heartbeat for a peer, with the end of our additions.
fn own_heartbeat(state: &State, now: Now, peer: PeerKey, is_answer: bool) -> Body<'static> {
    let head = head_of(state.keyspace.changelog().head());
    let ack = state.mesh.peers.get(peer).map_or(0, |peer| peer.versions.clock());
    Body::Heartbeat { head, wall_ms: now.wall_ms(), ack, is_answer }
}

/// Requests the peer's changelog from the known position, at the start of a link.
pub(in crate::node) fn link_up(state: &mut State, now: Now, peer_key: PeerKey) {
    let mesh = &mut state.mesh;
    let Some(peer) = mesh.peers.get_mut(peer_key) else { return };
    let at = peer.following.link_up(&mut mesh.filters);
    request_again(state, now, peer_key, at);
}

/// Removes the peer as a reader of the own changelog, at the loss of its link.
pub(in crate::node) fn link_lost(state: &mut State, peer_key: PeerKey) {
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
    peer.versions.link_lost();
    if let Some(reader) = peer.following.link_lost(&mut state.mesh.filters) {
        state.keyspace.publication().1.leave(reader);
    }
}

/// Once per heartbeat: drops a stalled snapshot, since others may need the memory, and requests a refused filter again
/// after some time.
pub(in crate::node) fn heartbeat(state: &mut State, now: Now, peer_key: PeerKey) {
    let mesh = &mut state.mesh;
    let Some(peer) = mesh.peers.get_mut(peer_key) else { return };
    if peer.following.give_up_stalled(now.mono, &mut mesh.filters) {
        state.stats.digest_messages_refused += 1;
    }
    if peer.following.is_snapshot_due(now.mono) {
        request_again(state, now, peer_key, None);
    }
}

fn request_again(state: &mut State, now: Now, peer_key: PeerKey, at: Option<Position>) {
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
    if !peer.following.may_request(now.mono, at) {
        state.stats.resyncs_dropped += 1;
        return;
    }
    // The sender needs only the low half of the position in the changes of blocks.
    let blocks = at.map_or(0, |at| low_half(at.blocks));
    link_output::send_control(state, now, peer_key, blocks, &Body::Resync(at.map(head_of)));
}

/// Handles a RESYNC: the peer reads our changelog from this position on; `blocks` is the low half of the position in
/// the changes of blocks. The end of our additions is sent at once, so that the peer can detect when it has caught up.
pub(in crate::node) fn resync(state: &mut State, now: Now, peer_key: PeerKey, at: Option<Head>, blocks: u32) {
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
    if !peer.following.may_be_requested(now.mono) {
        state.stats.resyncs_dropped += 1;
        return;
    }
    let (_, changelog) = state.keyspace.publication();
    let blocks = nearest(changelog.head().blocks, blocks);
    let at = at.map(|Head { epoch, seq }| Position { epoch, seq, blocks });
    peer.following.read_from(changelog, at);
    answer_heartbeat(state, now, peer_key, 0);
    enqueue_if_more(state, peer_key);
}

/// Answers a heartbeat, or a RESYNC, with the end of our additions.
pub(in crate::node) fn answer_heartbeat(state: &mut State, now: Now, peer_key: PeerKey, request: u32) {
    let body = own_heartbeat(state, now, peer_key, true);
    if !link_output::send_control_reply(state, now, peer_key, request, &body) {
        state.stats.heartbeats_unanswered += 1;
    }
}

/// Handles a heartbeat of a peer, which states the end of its additions.
pub(in crate::node) fn heartbeat_from(state: &mut State, now: Now, peer_key: PeerKey, head: Head) {
    follow(state, now, peer_key, |receiver, filters| {
        receiver.heartbeat_from(filters, head.epoch, head.seq);
        Ok(ApplyResult::Applied)
    });
    note_if_known(state, now, peer_key);
}

/// Handles the answer to a heartbeat, which states the end of the peer's additions.
pub(in crate::node) fn head_is(state: &mut State, now: Now, peer_key: PeerKey, head: Head) {
    follow(state, now, peer_key, |receiver, filters| {
        receiver.head_is(filters, head.epoch, head.seq);
        Ok(ApplyResult::Applied)
    });
    note_if_known(state, now, peer_key);
}

fn note_if_known(state: &mut State, now: Now, peer_key: PeerKey) {
    let mesh = &mut state.mesh;
    if let Some(peer) = mesh.peers.get_mut(peer_key) {
        peer.following.note_if_known(now.mono, &mesh.filters);
    }
}

/// Begins a snapshot of a peer's filter; `blocks` is the low half of its position in the changes of blocks. If it does
/// not fit, the changelog is requested from that position on, which ends the snapshot.
pub(in crate::node) fn snapshot(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    head: Head,
    blocks: u32,
    size_log2: u8,
) {
    let Some(peer) = state.mesh.peers.get(peer_key) else { return };
    let blocks = nearest(peer.following.expected().blocks, blocks);
    let at = Position { epoch: head.epoch, seq: head.seq, blocks };
    let Some(size) = Size::from_log2(size_log2) else {
        state.stats.digest_messages_refused += 1;
        return;
    };
    let refusal = follow(state, now, peer_key, |receiver, filters| {
        receiver.begin(filters, at, size).map(|()| ApplyResult::Applied)
    });
    if refusal == Some(Err(ReceiveError::Filter(FilterError::OverBudget))) {
        request_again(state, now, peer_key, Some(at));
    }
}

/// Applies blocks of a snapshot.
pub(in crate::node) fn piece(state: &mut State, now: Now, peer_key: PeerKey, first: u32, words: &[u64]) {
    follow(state, now, peer_key, |receiver, filters| receiver.blocks(filters, first, words));
}

/// Ends a snapshot.
pub(in crate::node) fn snapshot_end(state: &mut State, now: Now, peer_key: PeerKey) {
    follow(state, now, peer_key, |receiver, filters| receiver.end(filters));
    note_if_known(state, now, peer_key);
}

/// Prefetches the memory that an addition to a peer's filter changes, and the block of the own filter for the key.
pub(in crate::node) fn fetch(state: &State, peer_key: PeerKey, hash: u64) {
    if let Some(peer) = state.mesh.peers.get(peer_key) {
        state.mesh.filters.fetch(peer.following.filter(), hash);
    }
    state.keyspace.own_filter().fetch(hash);
}

/// Applies an addition to a peer's filter; `low` is the low half of its number. Returns whether it was the next one.
pub(in crate::node) fn addition(state: &mut State, now: Now, peer_key: PeerKey, low: u32, hash: u64) -> bool {
    let result = follow(state, now, peer_key, |receiver, filters| {
        receiver.addition(filters, nearest(receiver.expected().seq, low), hash)
    });
    result == Some(Ok(ApplyResult::Applied))
}

/// Applies a rebuilt block of a peer's filter; `low` is the low half of the number of the change.
pub(in crate::node) fn block(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    low: u32,
    number: u32,
    image: &Block,
) {
    follow(state, now, peer_key, |receiver, filters| {
        receiver.block(filters, nearest(receiver.expected().blocks, low), number, image)
    });
}

/// The number nearest to `expected` with the low half `low`; above `expected` if the nearest would be negative, so that
/// no other number is taken for `expected`.
fn nearest(expected: u64, low: u32) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    let ahead = low.wrapping_sub(expected as u32);
    let behind = expected.checked_add_signed(ahead.cast_signed().into());
    behind.unwrap_or_else(|| expected.saturating_add(ahead.into()))
}

/// Applies a change to the receiver of a peer, counts the result, and requests a resync where it needs one.
fn follow(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    apply: impl FnOnce(&mut Receiver, &mut PeerFilters) -> Result<ApplyResult, ReceiveError>,
) -> Option<Result<ApplyResult, ReceiveError>> {
    let mesh = &mut state.mesh;
    let peer = mesh.peers.get_mut(peer_key)?;
    let (result, has_become_known) = peer.following.apply(&mut mesh.filters, apply);
    let addr = peer.addr();
    if has_become_known {
        peer.versions.begin_resync();
        mesh.enqueue_resync(peer_key);
    }
    match result {
        Ok(ApplyResult::Applied) => {}
        Ok(ApplyResult::Dropped) => state.stats.digest_messages_dropped += 1,
        Ok(ApplyResult::Resync(at)) => request_again(state, now, peer_key, at),
        Err(error) => {
            state.stats.digest_messages_refused += 1;
            log::debug!("refused a change of the filter of {addr}: {error}");
        }
    }
    Some(result)
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
