//! One value per key: the later version wins, and the filters say which peers are to be notified.
//!
//! [`notices`] sends and receives INVALIDATE and NEWER; [`moved`] remembers where values went that other nodes wrote,
//! [`tombstones`] which keys are gone, and [`collection`] for how long; [`floor`] up to which version all keys are. [`resync`] makes up
//! for what a broken link lost, and [`discarded`] for deletions that
//! were too many to be remembered one by one.

pub(in crate::node) mod collection;
pub(in crate::node) mod discarded;
pub(in crate::node) mod floor;
pub(in crate::node) mod moved;
pub(in crate::node) mod notices;
pub(in crate::node) mod of_peer;
pub(in crate::node) mod resync;
pub(in crate::node) mod tombstones;
pub(in crate::node) mod work;
