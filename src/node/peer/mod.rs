//! Peer discovery, dialling, the handshake, links and their health.

pub(in crate::node) mod absent;
pub(in crate::node) mod address_book;
pub(in crate::node) mod clock;
pub(in crate::node) mod clock_offsets;
pub(in crate::node) mod dialer;
pub(in crate::node) mod dials;
pub(in crate::node) mod frames;
pub(in crate::node) mod handshake;
pub(in crate::node) mod health;
pub(in crate::node) mod heartbeat;
pub(in crate::node) mod link;
pub(in crate::node) mod link_output;
pub(in crate::node) mod link_queues;
pub(in crate::node) mod losses;
pub(in crate::node) mod mesh;
pub(in crate::node) mod stream;
pub(in crate::node) mod table;
