//! Discarded deletions: sent to a peer at the end of a resync, and received from one.
//!
//! A node that has deleted more keys during a partition than it may have tombstones sends a Bloom filter of them with
//! their highest version. The receiver drops its matching keys that are not newer, in steps, and counts them.

use crate::base::time::Now;
use crate::filter::size::{BLOCK_WORDS, Block};
use crate::limits::TESTS_PER_KEY;
use crate::node::ids::PeerKey;
use crate::node::peer::link_output;
use crate::node::state::State;
use crate::node::versions::of_peer::Discarded;
use crate::store::{HashedKey, ScanCursor, Version};
use crate::wire::frame::put_discarded;

/// Blocks of the filter in one frame: 16 KiB.
const BLOCKS_PER_FRAME: usize = 256;

/// Keys tested per step.
const KEYS_PER_STEP: usize = 512;

/// Sends blocks from `first` on to a peer that has not acknowledged these deletions. Returns the next block, if any.
pub(in crate::node) fn send(state: &mut State, now: Now, peer_key: PeerKey, first: usize) -> Option<usize> {
    let acked = state.mesh.peers.get(peer_key)?.versions.acked();
    let clock = state.keyspace.clock(now);
    let (filter, version) =
        state.keyspace.tombstones().discarded().filter(|(_, version)| *version > acked)?;
    let until = filter.size().blocks().min(first + BLOCKS_PER_FRAME);
    let words = filter.words().get(first * BLOCK_WORDS..until * BLOCK_WORDS)?.to_vec();
    let next = (until < filter.size().blocks()).then_some(until);
    let number = u32::try_from(first).unwrap_or(u32::MAX);
    link_output::append_ordered(state, now, peer_key, |out| {
        put_discarded(out, clock, number, version.0, &words);
    });
    next
}

/// Processes blocks of a peer's filter, from `first` on. After the last one the keys of this node are tested.
pub(in crate::node) fn received(
    state: &mut State,
    now: Now,
    peer_key: PeerKey,
    first: u32,
    version: Version,
    blocks: impl Iterator<Item = Block>,
) {
    let Some(peer) = state.mesh.peers.get_mut(peer_key) else { return };
    match peer.versions.take_discarded(first as usize, version, blocks) {
        Discarded::Incomplete => {}
        Discarded::Complete => state.mesh.versions.discards.push(peer_key),
        Discarded::TooFull if state.log_gate.allows(now, &mut state.stats) => {
            log::warn!("peer {}: refused its discarded deletions, which match too many keys", peer.addr());
        }
        Discarded::TooFull => {}
    }
}

/// Whether [`step`] has work.
pub(in crate::node) fn has_work(state: &State) -> bool {
    !state.mesh.versions.discards.is_empty()
}

/// Tests some keys against the discarded deletions of one peer. Returns the cost in keys.
pub(in crate::node) fn step(state: &mut State, now: Now) -> usize {
    let State { keyspace, mesh, stats, .. } = state;
    let Some(peer_key) = mesh.versions.discards.pop() else { return 0 };
    let Some(peer) = mesh.peers.get_mut(peer_key) else { return 1 };
    let Some(scan) = peer.versions.discarded() else { return 1 };
    let (Some(at), version) = (scan.position(), scan.version()) else { return 1 };
    let mut tested = 0;
    let mut dropped: Vec<Box<[u8]>> = Vec::new();
    let next = keyspace.store().scan_keys(at, KEYS_PER_STEP, |key| {
        tested += 1;
        if scan.contains(keyspace.key(key).hash) {
            dropped.push(key.into());
        }
    });
    let cost = tested / TESTS_PER_KEY + dropped.len();
    for key in dropped {
        let HashedKey { hash, bytes } = keyspace.key(&key);
        let is_dropped = keyspace.drop_older(now, HashedKey { hash, bytes }, version);
        stats.drop_values(is_dropped.into());
        stats.discarded_dropped += u64::from(is_dropped);
    }
    peer.versions.continue_discarded(next);
    if next != ScanCursor::START {
        mesh.versions.discards.push(peer_key);
    }
    cost
}
