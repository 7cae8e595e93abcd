//! A small load on all nodes, so that their pages show data: `make demo`.
//!
//! Keys are set with a TTL, each through one node, and read through every node, some much more often than others.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

/// Time between two batches of requests to each node.
const EVERY: Duration = Duration::from_millis(20);

/// Requests of one batch: one sets a key, the others read.
const BATCH: usize = 8;

/// Time limit for a node to accept a connection or to reply; the node may be stopped.
const REPLY_MAX: Duration = Duration::from_millis(500);

/// Number of keys; some that are read were never set, or have expired.
const KEYS: u64 = 20_000;

/// Seconds until a key expires.
const TTL_SECONDS: u64 = 300;

/// Starts the load on a thread of its own; it ends with the program.
pub(crate) fn start(addrs: Vec<SocketAddr>) {
    let mut random = Random(getrandom::u64().unwrap_or(1) | 1);
    thread::spawn(move || {
        let mut nodes: Vec<Option<BufReader<TcpStream>>> = addrs.iter().map(|_| None).collect();
        loop {
            for (at, node) in nodes.iter_mut().enumerate() {
                if node.is_none() {
                    *node = connect(addrs[at]).ok();
                }
                let requests = batch(&mut random, at, addrs.len());
                // A node that was killed is dialled again with the next batch.
                if node.as_mut().is_some_and(|stream| ask(stream, &requests).is_err()) {
                    *node = None;
                }
            }
            thread::sleep(EVERY);
        }
    });
}

fn connect(addr: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&addr, REPLY_MAX)?;
    stream.set_read_timeout(Some(REPLY_MAX))?;
    stream.set_write_timeout(Some(REPLY_MAX))?;
    Ok(BufReader::new(stream))
}

/// One batch for node number `at` of `nodes`, which sets only its own keys.
fn batch(random: &mut Random, at: usize, nodes: usize) -> String {
    let nodes = nodes as u64;
    let own = (random.below(KEYS) / nodes * nodes + at as u64) % KEYS;
    let size = 20 + random.below(400);
    let mut text =
        format!("SETEX item-{own}:{}:{TTL_SECONDS}\n", "x".repeat(usize::try_from(size).unwrap_or(20)));
    for _ in 1..BATCH {
        // The square of a fraction: a quarter of the keys gets half of the reads.
        let fraction = random.below(1_000);
        let _ = writeln!(text, "GET item-{}", KEYS * fraction * fraction / 1_000_000 + random.below(20));
    }
    text
}

fn ask(stream: &mut BufReader<TcpStream>, requests: &str) -> io::Result<()> {
    stream.get_mut().write_all(requests.as_bytes())?;
    let mut line = Vec::new();
    for _ in 0..BATCH {
        line.clear();
        if stream.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Xorshift (Marsaglia 2003); never 0.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
