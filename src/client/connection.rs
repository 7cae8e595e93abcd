//! A connection to a node: a request line out, a reply line in.

use super::ClientError;
use super::reply::Reply;
use crate::wire::field::{FieldKind, put_field};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;
use std::vec::IntoIter;

/// The time limits of connecting to one address, and of waiting for a reply.
pub(super) const TIME_LIMITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));

/// The same for a peer of the node that is shown.
pub(super) const PEER_TIME_LIMITS: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_millis(500));

/// Bytes of a reply: the upper end of `reply_bytes_max`.
const REPLY_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The addresses of a `host:port`.
pub(super) fn addresses(text: &str) -> Result<IntoIter<SocketAddr>, ClientError> {
    let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none_or(|port| port == 0) {
        return Err(ClientError::Usage(format!(
            "'{text}' has no port; write HOST:PORT, as in 127.0.0.1:5454"
        )));
    }
    text.to_socket_addrs().map_err(|error| ClientError::Connection(format!("find {text}"), error))
}

/// A connection, authenticated if a password was given.
#[derive(Debug)]
pub(super) struct Connection {
    address: String,
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to the first address that accepts.
    pub(super) fn open(
        address: &str,
        password: Option<&[u8]>,
        (connect_max, reply_max): (Duration, Duration),
    ) -> Result<Self, ClientError> {
        let failed = |error| ClientError::Connection(format!("connect to {address}"), error);
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        let mut stream = None;
        for addr in addresses(address)? {
            match TcpStream::connect_timeout(&addr, connect_max) {
                Ok(made) => {
                    stream = Some(made);
                    break;
                }
                Err(error) => last = error,
            }
        }
        let Some(stream) = stream else { return Err(failed(last)) };
        stream.set_read_timeout(Some(reply_max)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut connection = Self { address: address.to_owned(), stream: BufReader::new(stream) };
        if let Some(password) = password {
            let mut request = b"AUTH ".to_vec();
            put_field(&mut request, password, FieldKind::Key);
            connection.ask(&request)?;
        }
        Ok(connection)
    }

    /// Sends a request, without its line end, and waits for its reply.
    pub(super) fn ask(&mut self, request: &[u8]) -> Result<Reply, ClientError> {
        let line = self.exchange(request);
        let line =
            line.map_err(|error| ClientError::Connection(format!("talk to {}", self.address), error))?;
        match Reply::read(&line) {
            Some(reply) if reply.word == "ERR" => Err(ClientError::Refused(reply.body)),
            Some(reply) => Ok(reply),
            None => {
                let error =
                    io::Error::new(ErrorKind::InvalidData, "it does not answer like a node of Olivia");
                Err(ClientError::Connection(format!("talk to {}", self.address), error))
            }
        }
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<String> {
        self.stream.get_mut().write_all(&[request, b"\n"].concat())?;
        let mut line = Vec::new();
        self.stream.by_ref().take(REPLY_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "it closed the connection"));
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}
