//! The check of wall clocks. Versions are times: a node whose clock is ahead would win every conflict, and its clock
//! would be adopted by all others. So it is refused as a peer, and one bad clock isolates itself only.

use crate::base::time::Now;
use std::fmt;

/// How far ahead of ours the wall clock of a peer may be, in milliseconds.
const AHEAD_MAX_MS: u64 = 500;

/// Why a link is closed whose peer has sent a version beyond the bound.
pub(in crate::node) const VERSION_AHEAD: &str =
    "a version more than a second ahead of this node's clock; synchronize the clocks";

/// By how much a wall clock is ahead of ours. Displays as a sentence for its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct ClockAhead(u64);

impl fmt::Display for ClockAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "your clock is {} ms ahead of this node's, and {AHEAD_MAX_MS} ms are allowed; synchronize the clocks",
            self.0
        )
    }
}

/// Whether the wall clock of a peer is too far ahead of ours, and by how much. One that is behind is accepted: it is
/// that peer which refuses us.
pub(in crate::node) fn is_ahead(now: Now, wall_ms: u64) -> Option<ClockAhead> {
    let ahead = wall_ms.saturating_sub(now.wall_ms);
    (ahead > AHEAD_MAX_MS).then_some(ClockAhead(ahead))
}
