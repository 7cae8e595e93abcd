//! The measured servers, and their requests.

use crate::server::Server;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

/// A kind of server.
#[derive(Debug)]
pub(crate) enum Peer {
    /// The program of this package.
    Olivia,
    /// A redis-server at this path.
    Redis(String),
    /// A memcached at this path.
    Memcached(String),
}

impl Peer {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Olivia => "olivia",
            Self::Redis(_) => "redis",
            Self::Memcached(_) => "memcached",
        }
    }

    pub(crate) fn start(&self) -> Result<Server, String> {
        match self {
            Self::Olivia => Server::olivia(None),
            Self::Redis(program) => Server::redis(program, None),
            Self::Memcached(program) => Server::memcached(program, None),
        }
    }

    /// Appends the request that sets key number `id`. Its reply is one line.
    pub(crate) fn put_set(&self, out: &mut Vec<u8>, id: u32, value_bytes: usize, ttl: Option<u32>) {
        let value = "v".repeat(value_bytes);
        let key = format!("key:{id:012}");
        let request = match (self, ttl) {
            (Self::Olivia, None) => format!("SET \"{key}\":{value}\n"),
            (Self::Olivia, Some(ttl)) => format!("SETEX \"{key}\":{value}:{ttl}\n"),
            (Self::Redis(_), None) => {
                format!("*3\r\n$3\r\nSET\r\n$16\r\n{key}\r\n${value_bytes}\r\n{value}\r\n")
            }
            (Self::Redis(_), Some(ttl)) => {
                let digits = ttl.to_string().len();
                format!(
                    "*5\r\n$3\r\nSET\r\n$16\r\n{key}\r\n${value_bytes}\r\n{value}\r\n$2\r\nEX\r\n${digits}\r\n{ttl}\r\n"
                )
            }
            (Self::Memcached(_), ttl) => {
                format!("set {key} 0 {} {value_bytes}\r\n{value}\r\n", ttl.unwrap_or(0))
            }
        };
        out.extend_from_slice(request.as_bytes());
    }

    /// Appends the request that deletes key number `id`. Its reply is one line.
    pub(crate) fn put_delete(&self, out: &mut Vec<u8>, id: u32) {
        let key = format!("key:{id:012}");
        let request = match self {
            Self::Olivia => format!("DEL \"{key}\"\n"),
            Self::Redis(_) => format!("*2\r\n$3\r\nDEL\r\n$16\r\n{key}\r\n"),
            Self::Memcached(_) => format!("delete {key}\r\n"),
        };
        out.extend_from_slice(request.as_bytes());
    }

    /// Returns a request without a key whose reply is one line.
    pub(crate) const fn ping(&self) -> &'static [u8] {
        match self {
            Self::Olivia => b"PING\n",
            Self::Redis(_) => b"*1\r\n$4\r\nPING\r\n",
            Self::Memcached(_) => b"version\r\n",
        }
    }

    /// Returns the number of keys, including expired ones that are not reclaimed yet.
    pub(crate) fn keys(&self, conn: &mut Conn) -> Result<u64, String> {
        match self {
            Self::Olivia => conn.stat("keys"),
            Self::Redis(_) => {
                let line = conn.call(b"*1\r\n$6\r\nDBSIZE\r\n")?;
                line.trim_start_matches(':').parse().map_err(|_| format!("DBSIZE said {line}"))
            }
            Self::Memcached(_) => conn.memcached_items(),
        }
    }

    /// Returns the longest iteration so far in µs, if the server reports it.
    pub(crate) fn iteration_max_us(&self, conn: &mut Conn) -> Result<Option<u64>, String> {
        match self {
            Self::Olivia => conn.stat("iteration_max_us").map(Some),
            Self::Redis(_) | Self::Memcached(_) => Ok(None),
        }
    }
}

/// A blocking connection.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: BufReader<TcpStream>,
}

impl Conn {
    pub(crate) fn open(addr: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(addr).map_err(|error| format!("{addr}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Self { stream: BufReader::with_capacity(1 << 20, stream) })
    }

    /// Sends requests and reads `lines` reply lines.
    pub(crate) fn exchange(&mut self, requests: &[u8], lines: u32) -> Result<(), String> {
        self.stream.get_mut().write_all(requests).map_err(|error| error.to_string())?;
        let mut line = Vec::new();
        for _ in 0..lines {
            line.clear();
            let read = self.stream.read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
            let is_error =
                line.starts_with(b"-") || line.starts_with(b":ERR") || line.starts_with(b"SERVER_ERROR");
            if read == 0 || is_error {
                return Err(format!("an error of the server: '{}'", line.escape_ascii()));
            }
        }
        Ok(())
    }

    fn call(&mut self, request: &[u8]) -> Result<String, String> {
        self.stream.get_mut().write_all(request).map_err(|error| error.to_string())?;
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(|error| error.to_string())?;
        Ok(line.trim_end().to_owned())
    }

    /// Returns one field of Olivia's STATS.
    fn stat(&mut self, name: &str) -> Result<u64, String> {
        let line = self.call(b"STATS\n")?;
        let mut fields = line.split([' ', ',']).filter_map(|field| field.split_once(':'));
        let value = fields.find(|(field, _)| *field == name).and_then(|(_, value)| value.parse().ok());
        value.ok_or_else(|| format!("STATS has no {name}"))
    }

    /// Returns `curr_items` of memcached's stats, which end with a line END.
    fn memcached_items(&mut self) -> Result<u64, String> {
        let mut line = self.call(b"stats\r\n")?;
        let mut items = 0;
        while line != "END" {
            if let Some(value) = line.strip_prefix("STAT curr_items ") {
                items = value.parse().map_err(|_| line.clone())?;
            }
            line = self.call(b"")?;
        }
        Ok(items)
    }
}
