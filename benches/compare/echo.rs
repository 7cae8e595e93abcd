//! A bare mio echo server: the throughput that the system calls of one thread allow.
//!
//! It counts requests by their size and their first digit, which distinguishes GET (`*2`) from SET (`*3`) in RESP, and
//! sends the replies of a server, without parsing, hashing or storing.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// Replies to requests of one size of key and value.
#[derive(Debug)]
struct Replies {
    get_bytes: usize,
    set_bytes: usize,
    got: Vec<u8>,
}

struct Conn {
    stream: TcpStream,
    /// Bytes of an unfinished request that were read, and its first digit.
    part: Vec<u8>,
    outbound: Vec<u8>,
    written: usize,
}

/// Serves a port of loopback without end. `value` is that of every key.
pub(crate) fn run(port: u16, key_bytes: usize, value: &str) -> Result<(), String> {
    let bulk = |bytes: usize| 1 + bytes.to_string().len() + 2 + bytes + 2;
    let replies = Replies {
        get_bytes: "*2\r\n$3\r\nGET\r\n".len() + bulk(key_bytes),
        set_bytes: "*3\r\n$3\r\nSET\r\n".len() + bulk(key_bytes) + bulk(value.len()),
        got: format!("${}\r\n{value}\r\n", value.len()).into_bytes(),
    };
    serve(port, &replies).map_err(|error| format!("echo: {error}"))
}

fn serve(port: u16, replies: &Replies) -> std::io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    poll.registry().register(&mut listener, Token(usize::MAX), Interest::READABLE)?;
    let mut conns = slab::Slab::new();
    let mut events = Events::with_capacity(1_024);
    let mut input = vec![0; READ_BYTES];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let Token(at) = event.token();
            if at == usize::MAX {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let entry = conns.vacant_entry();
                    let mut conn = Conn { stream, part: Vec::new(), outbound: Vec::new(), written: 0 };
                    let both = Interest::READABLE.add(Interest::WRITABLE);
                    poll.registry().register(&mut conn.stream, Token(entry.key()), both)?;
                    entry.insert(conn);
                }
            } else if conns.get_mut(at).is_some_and(|conn| conn.serve(&mut input, replies).is_err()) {
                conns.remove(at);
            }
        }
    }
}

impl Conn {
    fn serve(&mut self, input: &mut [u8], replies: &Replies) -> std::io::Result<()> {
        loop {
            let before = self.part.len();
            input[..before].copy_from_slice(&self.part);
            let count = match self.stream.read(&mut input[before..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => before + count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.flush(),
                Err(error) => return Err(error),
            };
            let mut at = 0;
            while let Some(digit) = input[..count].get(at + 1) {
                let is_get = *digit == b'2';
                let end = at + if is_get { replies.get_bytes } else { replies.set_bytes };
                if end > count {
                    break;
                }
                self.outbound.extend_from_slice(if is_get { &replies.got } else { b"+OK\r\n" });
                at = end;
            }
            self.part.clear();
            self.part.extend_from_slice(&input[at..count]);
            self.flush()?;
            if count < input.len() {
                return Ok(());
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        while self.written < self.outbound.len() {
            match self.stream.write(&self.outbound[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.outbound.clear();
        self.written = 0;
        Ok(())
    }
}
