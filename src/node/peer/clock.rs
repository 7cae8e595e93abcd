//! The check of wall clocks. Versions are times: a node whose clock is ahead would win every conflict, and all others
//! would adopt its clock. So it is refused as a peer, and a bad clock isolates only its node.

use crate::base::time::Now;
use crate::limits::CLOCK_AHEAD_MAX_MS;
use crate::node::state::State;
use std::fmt;
use std::net::SocketAddr;

/// The text of [`ClockAhead`] before the milliseconds.
const CLOCK_AHEAD: &str = "your clock is ";

/// The reason for closing a link whose peer has sent a version above the bound.
pub(in crate::node) const VERSION_AHEAD: &str =
    "a version more than a second ahead of this node's clock; synchronize the clocks";

/// The milliseconds by which a peer's wall clock is ahead of the own one. Displays as a sentence for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct ClockAhead(u64);

impl fmt::Display for ClockAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{CLOCK_AHEAD}{} ms ahead of this node's, and {CLOCK_AHEAD_MAX_MS} ms are allowed; synchronize the clocks",
            self.0
        )
    }
}

/// Checks whether the wall clock of a peer is too far ahead of the own one. One that is behind is accepted: that peer
/// refuses this node.
pub(in crate::node) fn is_ahead(now: Now, wall_ms: u64) -> Option<ClockAhead> {
    let ahead = wall_ms.saturating_sub(now.wall_ms());
    (ahead > CLOCK_AHEAD_MAX_MS).then_some(ClockAhead(ahead))
}

/// Notes the wall clock reported by a node, and warns if the own one is ahead of most others.
pub(in crate::node) fn reported(state: &mut State, now: Now, addr: SocketAddr, wall_ms: u64) {
    note(state, now, addr, now.wall_ms().saturating_sub(wall_ms));
}

/// Notes a refusal by a node if its reason is that the own clock is ahead.
pub(in crate::node) fn refused(state: &mut State, now: Now, addr: SocketAddr, sentence: &[u8]) {
    let millis =
        std::str::from_utf8(sentence).ok().and_then(|text| text.strip_prefix(CLOCK_AHEAD)?.split(' ').next());
    if let Some(millis) = millis.and_then(|millis| millis.parse().ok()) {
        note(state, now, addr, millis);
    }
}

fn note(state: &mut State, now: Now, addr: SocketAddr, ahead_ms: u64) {
    let offsets = &mut state.mesh.clock_offsets;
    offsets.note(now.mono, addr, ahead_ms);
    let ahead_ms = offsets.ahead_ms(now.mono);
    if offsets.has_become(ahead_ms > CLOCK_AHEAD_MAX_MS) && state.log_gate.allows(now, &mut state.stats) {
        log::warn!(
            "the wall clock is {ahead_ms} ms ahead of those of most other nodes; synchronize the clocks"
        );
    }
}
