//! The dials in progress, and their limits.

use crate::base::limiter::Limiter;
use crate::base::time::Instant;
use crate::node::ids::{AddressKey, ConnKey};
use std::time::Duration;

/// Addresses dialled at the same time. Their sockets are reserved beside those of clients.
const DIALS_MAX: usize = 16;

/// Of these, unverified addresses: thousands learned from a peer must not delay configured ones.
const UNVERIFIED_DIALS_MAX: usize = 8;

/// Rate limit of dials of unverified addresses, after a burst of `active_peers`. A peer can list addresses of hosts
/// that are not nodes.
const UNVERIFIED_DIAL_EVERY: Duration = Duration::from_millis(100);

/// The least time between two dials of a node with `active_peers` links.
const VISIT_EVERY: Duration = Duration::from_secs(5);

/// Addresses being dialled, each with its connection: a few.
#[derive(Debug, Default)]
pub(in crate::node) struct Dials {
    under_way: Vec<(AddressKey, ConnKey)>,
    /// The rate of dials of unverified addresses.
    unverified: Limiter,
    /// When the next dial is allowed although `active_peers` nodes are linked.
    visit_at: Option<Instant>,
}

impl Dials {
    pub(super) fn begin(&mut self, address: AddressKey, conn: ConnKey) {
        self.under_way.push((address, conn));
    }

    /// Removes a dial that has ended.
    pub(in crate::node) fn end(&mut self, conn: ConnKey) {
        self.under_way.retain(|(_, dialled)| *dialled != conn);
    }

    pub(in crate::node) const fn len(&self) -> usize {
        self.under_way.len()
    }

    /// The connections of the dials in progress.
    pub(in crate::node) fn conns(&self) -> impl Iterator<Item = ConnKey> {
        self.under_way.iter().map(|(_, conn)| *conn)
    }

    /// The numbers of addresses that may be dialled now, and of unverified ones among them.
    pub(in crate::node) fn free(&self, is_unverified: impl Fn(AddressKey) -> bool) -> (usize, usize) {
        let free = DIALS_MAX.saturating_sub(self.len());
        let unverified = self.under_way.iter().filter(|(address, _)| is_unverified(*address)).count();
        (free, free.min(UNVERIFIED_DIALS_MAX.saturating_sub(unverified)))
    }

    /// The wait before the next dial of an unverified address, after a burst of `burst`.
    pub(in crate::node) fn unverified_wait(&self, now: Instant, burst: u32) -> Duration {
        self.unverified.wait(now, UNVERIFIED_DIAL_EVERY, burst)
    }

    /// Counts a dial of an unverified address.
    pub(in crate::node) fn count_unverified(&mut self, now: Instant, burst: u32) {
        self.unverified.allows(now, UNVERIFIED_DIAL_EVERY, burst);
    }

    /// Whether an address may be dialled now although `active_peers` nodes are linked; counts the dial if so.
    pub(in crate::node) fn may_visit(&mut self, now: Instant) -> bool {
        let next = now.after(VISIT_EVERY);
        let visit_at = self.visit_at.get_or_insert(next);
        let may_visit = *visit_at <= now && self.under_way.is_empty();
        if may_visit {
            *visit_at = next;
        }
        may_visit
    }
}
