//! A mesh of real processes on loopback, and connections to its nodes.

use super::server::Server;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Time limit for nodes to link and learn each other's filters, and for one reply.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Nodes that are all linked to each other; killed on drop.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) servers: Vec<Server>,
    pub(crate) conns: Vec<Conn>,
}

impl Mesh {
    /// Starts `count` nodes and waits until each has the filters of all the others.
    pub(crate) fn start(count: usize) -> Result<Self, String> {
        Self::start_with(count, &[])
    }

    /// [`Mesh::start`] with variables in the environment of the nodes.
    pub(crate) fn start_with(count: usize, env: &[(&str, &str)]) -> Result<Self, String> {
        let mut servers = vec![Server::olivia_with(None, &[], env)?];
        let base = servers[0].addr().to_string();
        for _ in 1..count {
            servers.push(Server::olivia_with(None, &["--peer", &base], env)?);
        }
        let conns = servers.iter().map(|server| Conn::open(server.addr())).collect::<Result<_, _>>()?;
        let mut mesh = Self { servers, conns };
        mesh.wait_until_complete()?;
        Ok(mesh)
    }

    fn wait_until_complete(&mut self) -> Result<(), String> {
        let links = (self.servers.len() - 1) as u64;
        let begin = Instant::now();
        for conn in &mut self.conns {
            while conn.stat("peers_linked")? != links || conn.stat_text("ready")? != "yes" {
                if begin.elapsed() > WAIT_MAX {
                    return Err(format!("no mesh of {} nodes after {WAIT_MAX:?}", links + 1));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}

/// A blocking connection.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: BufReader<TcpStream>,
    line: String,
}

impl Conn {
    pub(crate) fn open(addr: SocketAddr) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{addr}: {error}");
        let stream = TcpStream::connect(addr).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(WAIT_MAX)).map_err(failed)?;
        Ok(Self { stream: BufReader::with_capacity(1 << 18, stream), line: String::new() })
    }

    /// Sends one request and returns its reply, without the line end.
    pub(crate) fn call(&mut self, request: &str) -> Result<&str, String> {
        let failed = |error: std::io::Error| format!("no reply to {}: {error}", request.trim_end());
        self.stream.get_mut().write_all(request.as_bytes()).map_err(failed)?;
        self.line.clear();
        if self.stream.read_line(&mut self.line).map_err(failed)? == 0 {
            return Err(format!("the connection ended instead of a reply to {}", request.trim_end()));
        }
        if self.line.starts_with(":ERR") {
            return Err(format!("{}: {}", request.trim_end(), self.line.trim_end()));
        }
        Ok(self.line.trim_end())
    }

    /// Sends requests of a line each, and reads `count` replies.
    pub(crate) fn call_all(&mut self, requests: &str, count: usize) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("no replies: {error}");
        self.stream.get_mut().write_all(requests.as_bytes()).map_err(failed)?;
        for _ in 0..count {
            self.line.clear();
            if self.stream.read_line(&mut self.line).map_err(failed)? == 0 || self.line.starts_with(":ERR") {
                return Err(format!("'{}' as a reply", self.line.trim_end()));
            }
        }
        Ok(())
    }

    /// Sends one command in RESP and returns a reply of one line, without the line end.
    pub(crate) fn command(&mut self, words: &[&str]) -> Result<&str, String> {
        let bulks: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        self.call(&format!("*{}\r\n{bulks}", words.len()))
    }

    /// Returns a number of STATS.
    pub(crate) fn stat(&mut self, name: &str) -> Result<u64, String> {
        let text = self.stat_text(name)?;
        text.parse().map_err(|_| format!("STATS shows {name}:{text}"))
    }

    /// Returns a field of STATS as text.
    pub(crate) fn stat_text(&mut self, name: &str) -> Result<String, String> {
        let line = self.call("STATS\n")?;
        let mut fields = line.split([' ', ',']).filter_map(|field| field.split_once(':'));
        let field = fields.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
        field.ok_or_else(|| format!("STATS has no {name}"))
    }
}
