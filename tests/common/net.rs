//! Hosts that are network namespaces around a router, between which packets can get lost.
//!
//! Namespaces are named after this process and removed on drop.

use super::client::Client;
use super::server::{IP, Launch, Server};
use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

pub const PORT: u16 = 5454;
pub const PASSWORD: &str = "open sesame";
pub const SECRET: &str = "what all hosts of this mesh share";

/// The packets of a host that get lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Packets to it and from it.
    Both,
    /// Packets to it.
    ToIt,
}

/// Hosts, each with a wire to the same router.
#[derive(Debug)]
pub struct Net {
    router: String,
    pub hosts: Vec<String>,
}

impl Net {
    /// Makes the hosts; `None`, with a message, where that is not possible.
    pub fn new(name: &str, count: u8) -> Option<Self> {
        if !geteuid().is_root() || !Path::new(IP).exists() {
            eprintln!("skipped: network namespaces need root and {IP} (iproute2)");
            return None;
        }
        let named = |what: &str| format!("olivia-{}-{name}-{what}", std::process::id());
        let hosts = (0..count).map(|host| named(&host.to_string())).collect();
        let net = Self { router: named("router"), hosts };
        if let Err(problem) = net.make() {
            eprintln!("skipped: no network namespaces here: {problem}");
            return None;
        }
        Some(net)
    }

    fn make(&self) -> Result<(), String> {
        ip(&["netns", "add", &self.router])?;
        for (at, host) in self.hosts.iter().enumerate() {
            let (wire, far) = (format!("w{at}"), format!("10.77.{at}.1"));
            let router = |args: &[&str]| ip(&[&["-n", &self.router], args].concat());
            let inside = |args: &[&str]| ip(&[&["-n", host], args].concat());
            ip(&["netns", "add", host])?;
            router(&["link", "add", &wire, "type", "veth", "peer", "name", "eth0", "netns", host])?;
            router(&["address", "add", &format!("{far}/24"), "dev", &wire])?;
            router(&["link", "set", &wire, "up"])?;
            inside(&["address", "add", &format!("10.77.{at}.2/24"), "dev", "eth0"])?;
            inside(&["link", "set", "lo", "up"])?;
            inside(&["link", "set", "eth0", "up"])?;
            inside(&["route", "add", "default", "via", &far])?;
        }
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        ip(&["netns", "exec", &self.router, "sh", "-c", forward])
    }

    pub fn addr(host: usize) -> SocketAddr {
        format!("10.77.{host}.2:{PORT}").parse().unwrap()
    }

    /// Prepares the node of a host, without a configured peer.
    pub fn launch_alone(&self, name: &str, host: usize, heartbeat_ms: u64) -> Launch {
        Launch::new(&format!("{name}-{host}"))
            .inside(&self.hosts[host])
            .arg("--bind")
            .arg("0.0.0.0")
            .port(PORT)
            .env("OLIVIA_SECURITY_PASSWORD", PASSWORD)
            .env("OLIVIA_MESH_SECRET", SECRET)
            .mesh("heartbeat_interval_ms", heartbeat_ms)
    }

    /// Prepares the node of a host; the node on the first host is the configured peer of all others.
    pub fn launch(&self, name: &str, host: usize, heartbeat_ms: u64) -> Launch {
        let launch = self.launch_alone(name, host, heartbeat_ms);
        if host == 0 { launch } else { launch.peer(Self::addr(0)) }
    }

    /// Starts a node on each host.
    pub fn start(&self, name: &str, heartbeat_ms: u64, lookup_timeout_ms: u64) -> Vec<Server> {
        let launch = |host| self.launch(name, host, heartbeat_ms);
        let start = |host| launch(host).mesh("lookup_timeout_ms", lookup_timeout_ms).start();
        (0..self.hosts.len()).map(start).collect()
    }

    /// Runs `make` on a host; sockets that it makes stay on that host.
    pub fn inside<T: Send + 'static>(&self, host: usize, make: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.hosts[host])).unwrap();
        // Only the new thread changes its namespace.
        let moved = thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            make()
        });
        moved.join().unwrap()
    }

    /// Connects a client on the host itself, which stays connected whatever gets lost between the hosts.
    pub fn client(&self, host: usize) -> Client {
        self.try_client(host).expect("the node takes connections")
    }

    /// Connects a client on the host itself; `None` if the node ends meanwhile.
    pub fn try_client(&self, host: usize) -> Option<Client> {
        let mut client = self.inside(host, move || Client::try_connect(Self::addr(host)).ok())?;
        client.try_send(&format!("AUTH \"{PASSWORD}\"\n")).ok()?;
        assert_eq!(client.try_line().ok()?, ":WELCOME ");
        Some(client)
    }

    /// Begins or ends a silent loss at the router.
    pub fn rule(&self, verb: &str, host: usize, loss: Loss) {
        let to = format!("10.77.{host}.2");
        let rule = ["-n", &self.router, "rule", verb];
        ip(&[&rule, ["to", &to, "blackhole"].as_slice()].concat()).unwrap();
        if loss == Loss::Both {
            ip(&[&rule, ["iif", &format!("w{host}"), "blackhole"].as_slice()].concat()).unwrap();
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in self.hosts.iter().chain([&self.router]) {
            // What was not made cannot be removed.
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output =
        Command::new(IP).args(args).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {}", args.join(" "), said.trim())) }
}
