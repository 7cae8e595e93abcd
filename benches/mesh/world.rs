//! A whole mesh inside this process: real nodes, perfect links without delay, virtual time.
//!
//! For counts: every byte between nodes is counted, and no result depends on this machine.

use super::kit::mesh::Mesh;
use super::kit::{ClientId, ms};
use super::traffic::{Listener, Traffic};
use olivia::config::Config;
use olivia::node::Node;
use olivia::wire::frame::FrameLimits;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The port of the first node; all nodes are on loopback, which needs no secret.
const PORT: u16 = 10_000;

/// Time in which nodes discover each other and exchange their filters.
const SETTLE: Duration = ms(500);

/// The mesh.
pub(crate) struct World {
    mesh: Mesh,
    clients: Vec<ClientId>,
    /// Per wire, the splitters of the bytes from its two ends.
    listeners: Vec<[Listener; 2]>,
    limits: FrameLimits,
    /// The traffic between nodes so far.
    pub(crate) traffic: Traffic,
}

impl World {
    /// Starts `count` nodes, all linked to each other.
    pub(crate) fn new(count: usize) -> Result<Self, String> {
        let config = Config::default();
        let limits = FrameLimits {
            key_bytes_max: config.limits.key_bytes_max as usize,
            value_bytes_max: config.limits.value_bytes_max as usize,
        };
        let (mut mesh, traffic) = (Mesh::new(), Traffic::default());
        mesh.record = Some(Vec::new());
        let mut world = Self { mesh, clients: Vec::new(), listeners: Vec::new(), limits, traffic };
        for at in 0..count {
            let port = PORT + u16::try_from(at).map_err(|_| "too many nodes")?;
            let home = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            world.mesh.add(at as u64 + 1, config.clone(), &[home(port)]);
            world.clients.push(world.mesh.nodes[at].client());
            let first = (at > 0).then(|| home(PORT));
            world.mesh.join(at, home(port), first.as_slice());
            world.run(at);
        }
        // A short time is enough: links are made at once, and filters are small.
        for _ in 0..20 {
            world.pass(SETTLE);
            if world.is_complete() {
                return Ok(world);
            }
        }
        Err(format!("{count} nodes do not find each other"))
    }

    fn is_complete(&self) -> bool {
        let links = self.len() - 1;
        (0..self.len()).all(|at| self.node(at).is_ready() && self.mesh.linked(at) == links)
    }

    pub(crate) fn len(&self) -> usize {
        self.mesh.nodes.len()
    }

    pub(crate) fn node(&self, at: usize) -> &Node {
        &self.mesh.nodes[at].node
    }

    /// Returns a number of STATS.
    pub(crate) fn stat(&mut self, at: usize, name: &str) -> Result<u64, String> {
        let line = self.call(at, "STATS\n")?;
        let mut fields = line.trim_end().split([' ', ',']).filter_map(|field| field.split_once(':'));
        let value = fields.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok());
        value.ok_or_else(|| format!("STATS has no {name}"))
    }

    /// Sends a request of a node's client, and returns the reply. Time passes only if the reply needs it.
    pub(crate) fn call(&mut self, at: usize, request: &str) -> Result<String, String> {
        let client = self.clients[at];
        let mut reply = self.mesh.nodes[at].call(client, request);
        self.run(at);
        for _ in 0..1_000 {
            reply += &self.mesh.nodes[at].take(client);
            if reply.ends_with('\n') {
                break;
            }
            self.pass(ms(1));
        }
        if reply.is_empty() || reply.starts_with(":ERR") {
            return Err(format!("'{}' as the reply to {}", reply.trim_end(), request.trim_end()));
        }
        Ok(reply)
    }

    /// Advances virtual time.
    pub(crate) fn pass(&mut self, span: Duration) {
        self.mesh.pass(span);
        self.count();
    }

    fn run(&mut self, at: usize) {
        self.mesh.run([at]);
        self.count();
    }

    fn count(&mut self) {
        self.listeners.resize_with(self.mesh.wires.len(), Default::default);
        for sent in self.mesh.record.iter_mut().flat_map(|record| record.drain(..)) {
            self.listeners[sent.wire][sent.end].frames(&sent.bytes, self.limits, &mut self.traffic);
        }
    }
}
