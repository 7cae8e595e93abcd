//! A client over real TCP that sends and reads lines, with a time limit for each wait.

use super::WAIT_MAX;
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// The end of a connection as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The end of the stream, after all bytes that were sent.
    Eof,
    /// A reset, or a write that failed.
    Broken,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Received bytes; those from `taken` on are not read yet.
    inbound: Vec<u8>,
    taken: usize,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"))
    }

    pub fn try_connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, WAIT_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WAIT_MAX))?;
        stream.set_write_timeout(Some(WAIT_MAX))?;
        Ok(Self { stream, inbound: Vec::new(), taken: 0 })
    }

    /// Connects a client whose system keeps little of what it does not read, whatever the settings of the machine.
    pub fn connect_narrow(addr: SocketAddr) -> Self {
        let client = Self::connect(addr);
        SockRef::from(&client.stream).set_recv_buffer_size(64 * 1024).unwrap();
        client
    }

    /// Returns a second handle of the connection, for a thread that writes while another reads.
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    pub fn send(&mut self, bytes: &str) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: &str) -> io::Result<()> {
        self.stream.write_all(bytes.as_bytes())
    }

    /// Shuts down the sending side.
    pub fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Returns the next line without its LF; panics if the connection ends before it.
    pub fn line(&mut self) -> String {
        match self.try_line() {
            Ok(line) => line,
            Err(end) => panic!("{end:?} instead of a line"),
        }
    }

    /// Returns the next line without its LF, or the end of the connection before it.
    pub fn try_line(&mut self) -> Result<String, End> {
        match self.line_within(WAIT_MAX) {
            Ok(Some(line)) => Ok(line),
            Ok(None) => panic!("no line came; so far: {:?}", self.waiting()),
            Err(end) => Err(end),
        }
    }

    /// Returns the next line without its LF; `None` if none arrives in `wait_max`.
    pub fn line_within(&mut self, wait_max: Duration) -> Result<Option<String>, End> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.waiting()[searched..]) {
                let line = String::from_utf8(self.waiting()[..searched + at].to_vec()).unwrap();
                self.taken += line.len() + 1;
                return Ok(Some(line));
            }
            searched = self.waiting().len();
            if !self.fill(wait_max)? {
                return Ok(None);
            }
        }
    }

    /// Sends one request and returns one line.
    pub fn call(&mut self, request: &str) -> String {
        self.send(&format!("{request}\n"));
        self.line()
    }

    /// Returns all text until the connection ends, and its end.
    pub fn rest(&mut self) -> (String, End) {
        let end = loop {
            match self.fill(WAIT_MAX) {
                Ok(true) => {}
                Ok(false) => panic!("the connection does not end; so far: {} bytes", self.waiting().len()),
                Err(end) => break end,
            }
        };
        let text = String::from_utf8(self.waiting().to_vec()).unwrap();
        self.taken = self.inbound.len();
        (text, end)
    }

    /// Returns one number of a STATS reply on this connection.
    pub fn stat(&mut self, name: &str) -> u64 {
        self.stat_text(name).parse().unwrap()
    }

    /// Returns one field of a STATS reply on this connection.
    pub fn stat_text(&mut self, name: &str) -> String {
        let line = self.call("STATS");
        let mut fields = line.strip_prefix(":STATS ").unwrap().split(',').filter_map(|f| f.split_once(':'));
        let field = fields.find(|(key, _)| *key == name);
        field.unwrap_or_else(|| panic!("no {name} in {line}")).1.to_owned()
    }

    fn waiting(&self) -> &[u8] {
        &self.inbound[self.taken..]
    }

    /// Reads once; returns false if no bytes arrived in `wait_max`.
    fn fill(&mut self, wait_max: Duration) -> Result<bool, End> {
        self.inbound.drain(..self.taken);
        self.taken = 0;
        self.stream.set_read_timeout(Some(wait_max)).unwrap();
        let mut chunk = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(End::Eof),
                Ok(count) => {
                    self.inbound.extend_from_slice(&chunk[..count]);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(false);
                }
                Err(_) => return Err(End::Broken),
            }
        }
    }
}
