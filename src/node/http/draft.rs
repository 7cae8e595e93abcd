//! Draft: a report in progress, with the clients and peers collected for it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// A client, as reports show it.
#[derive(Debug)]
pub(in crate::node) struct ClientView {
    pub(super) addr: SocketAddr,
    /// The name of its connection; empty if it has none.
    pub(super) name: Box<[u8]>,
    pub(super) protocol: &'static str,
    /// Bytes read and written per second lately.
    pub(super) traffic: u64,
    pub(super) connected: Duration,
    /// Bytes that are not sent yet.
    pub(super) unsent: usize,
}

/// A report in progress.
#[derive(Debug, Default)]
pub(in crate::node) struct Draft {
    /// Whether the parts that do not grow with clients and peers are written.
    pub(super) is_begun: bool,
    pub(super) text: Vec<u8>,
    /// Texts to which every peer adds a part. They are appended to `text`, or inserted, at the end.
    pub(super) families: Vec<Vec<u8>>,
    /// Connections visited.
    pub(super) conns: usize,
    /// Whether all connections were visited.
    pub(super) are_clients_listed: bool,
    /// The busiest clients among them, in order.
    pub(super) busiest: Vec<ClientView>,
    /// Linked peers visited.
    pub(super) peers: usize,
    /// The addresses of the linked peers written.
    pub(super) listed: BTreeSet<SocketAddr>,
    /// Peers to be shown on the page.
    pub(super) peers_known: usize,
    /// Peers written so far.
    pub(super) peers_written: usize,
}

impl Draft {
    /// Bytes of memory of the texts.
    pub(in crate::node) fn held(&self) -> usize {
        self.text.capacity() + self.families.iter().map(Vec::capacity).sum::<usize>()
    }

    /// The text of a complete report.
    pub(in crate::node) fn into_text(self) -> Vec<u8> {
        self.text
    }
}
