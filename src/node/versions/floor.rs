//! The version floor of FLUSHALL MESH: all linked nodes drop their keys. Keys set later stay.
//!
//! A node that receives FLOOR by this command drops all its keys, whatever their versions, since clients do not carry
//! clocks from node to node, and answers FLOORED. A node that is linked later receives the floor first, and drops
//! keys that are not above it, in steps.

use crate::base::time::Now;
use crate::node::digest::sync;
use crate::node::ids::PeerKey;
use crate::node::peer::link_output;
use crate::node::state::State;
use crate::store::{ScanCursor, Version};
use crate::wire::frame::Body;

/// Keys tested per step.
const KEYS_PER_STEP: usize = 512;

/// Cost of a new store in place of the cleared one, in keys.
const CLEARED_KEYS: usize = 256;

/// Lookups whose floors are raised at the cost of one key.
const LOOKUPS_PER_KEY: usize = 8;

/// Removes all keys of this node, and sets the floor above all of its versions. Returns the floor.
pub(in crate::node) fn raise(state: &mut State, now: Now) -> Version {
    let version = state.keyspace.stamp(now);
    state.keyspace.clear();
    raise_to(state, version);
    version
}

/// Raises the floor to a version; false if it was not lower.
fn raise_to(state: &mut State, version: Version) -> bool {
    let is_new = state.mesh.versions.raise_floor(version);
    if is_new {
        state.mesh.lookups.raise_all_floors(version);
    }
    is_new
}

/// Sends the floor, if there is one, to a new peer.
pub(in crate::node) fn send(state: &mut State, now: Now, peer: PeerKey) {
    let version = state.mesh.versions.floor();
    if version > Version::default() {
        link_output::send_ordered(state, now, peer, 0, &Body::Floor(version.0));
    }
}

/// Processes a FLOOR of a peer: with a number by a command, else because of a new link. Returns its cost in keys.
pub(in crate::node) fn received(
    state: &mut State,
    now: Now,
    peer: PeerKey,
    number: u32,
    version: Version,
) -> usize {
    let is_new = raise_to(state, version);
    if number > 0 {
        state.keyspace.clear();
        state.mesh.versions.scan_floor_from(None);
        sync::flush(state, now, peer);
        link_output::send_answer(state, now, peer, number, &Body::Floored(version.0));
    } else if is_new {
        state.mesh.versions.scan_floor_from(Some(ScanCursor::START));
    }
    let cleared = if number > 0 { CLEARED_KEYS } else { 0 };
    cleared + if is_new { state.mesh.lookups.len() / LOOKUPS_PER_KEY } else { 0 }
}

/// Whether [`step`] has work.
pub(in crate::node) fn has_work(state: &State) -> bool {
    state.mesh.versions.floor_scan().is_some()
}

/// Drops some keys that are not above the floor. Returns the cost in keys.
pub(in crate::node) fn step(state: &mut State, now: Now) -> usize {
    let Some(at) = state.mesh.versions.floor_scan() else { return 0 };
    let mut tested: Vec<Box<[u8]>> = Vec::new();
    let next = state.keyspace.store().scan_keys(at, KEYS_PER_STEP, |key| tested.push(key.into()));
    let cost = tested.len();
    for key in tested {
        let key = state.keyspace.key(&key);
        let is_dropped = state.keyspace.drop_older(now, key, state.mesh.versions.floor());
        state.stats.drop_values(is_dropped.into());
    }
    state.mesh.versions.scan_floor_from((next != ScanCursor::START).then_some(next));
    cost
}
