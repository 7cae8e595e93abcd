//! One value per key: the later version wins, and the filters determine which peers are notified.
//!
//! [`notices`] sends and receives INVALIDATE and NEWER; [`moved`] has the holders of newer values on other nodes,
//! [`tombstones`] the removed keys, which [`collection`] collects; [`floor`] is the version up to which all keys are
//! removed. [`resync`] repeats notices that a broken link lost, and [`discarded`] sends deletions beyond the limit of
//! tombstones.

pub(in crate::node) mod collection;
pub(in crate::node) mod discarded;
pub(in crate::node) mod floor;
pub(in crate::node) mod moved;
pub(in crate::node) mod notices;
pub(in crate::node) mod of_peer;
pub(in crate::node) mod resync;
pub(in crate::node) mod tombstones;
pub(in crate::node) mod work;
pub(in crate::node) mod writers;
