//! What an operator can say to a node, and where it was said.

use crate::limits::Limits;
use std::net::IpAddr;

/// The effective configuration of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// True: the first node of a mesh, which dials nobody at start.
    pub base_node: bool,
    /// The one port, for people, programs and peers. 0: any free one.
    pub listen_port: u16,
    /// The nodes dialled at start, as `host:port`.
    pub remote_peers: Vec<String>,
    /// The address listened on.
    pub bind: IpAddr,
    /// The password that clients must give, if any.
    pub password: Option<String>,
    /// True: a bind beyond loopback without a password is wanted.
    pub open_without_password: bool,
    /// The secret that all members of the mesh share, if any.
    pub mesh_secret: Option<String>,
    /// Limits, each with a default.
    pub limits: Limits,
    /// How much is logged.
    pub log_level: log::LevelFilter,
}
