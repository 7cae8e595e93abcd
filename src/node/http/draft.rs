//! A report as far as it is written, and what it keeps of clients and peers until its end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// A client as it is shown.
#[derive(Debug)]
pub(in crate::node) struct ClientView {
    pub(super) addr: SocketAddr,
    /// The name that it has given its connection.
    pub(super) name: Box<[u8]>,
    pub(super) protocol: &'static str,
    /// Bytes read and written per second lately.
    pub(super) traffic: u64,
    pub(super) connected: Duration,
    /// Bytes that wait to be written.
    pub(super) unsent: usize,
}

/// A report as far as it is written.
#[derive(Debug, Default)]
pub(in crate::node) struct Draft {
    /// Whether what does not grow with clients and peers is written.
    pub(super) is_begun: bool,
    pub(super) text: Vec<u8>,
    /// Texts that each take something of every peer, and then follow `text`, or stand in it.
    pub(super) families: Vec<Vec<u8>>,
    /// Connections that were looked at, whether it was all of them, and the busiest clients among them, in order.
    pub(super) conns: usize,
    pub(super) are_clients_listed: bool,
    pub(super) busiest: Vec<ClientView>,
    /// Linked peers that are written, and their addresses.
    pub(super) peers: usize,
    pub(super) listed: BTreeSet<SocketAddr>,
    /// Peers that the page is to show, and those that it shows so far.
    pub(super) peers_known: usize,
    pub(super) peers_written: usize,
}

impl Draft {
    /// The text of a complete report.
    pub(in crate::node) fn into_text(self) -> Vec<u8> {
        self.text
    }
}
