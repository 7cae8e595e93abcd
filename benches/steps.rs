//! The longest iteration of a node in CPU time of its thread, while it does work that grows with its keys and peers and
//! another client plays ping-pong: `cargo bench --bench steps`. 5 M keys and 128 peers with known filters, then a
//! million keys and one peer that relinks; the node has no sockets, its iterations are those of the shell, and the
//! clock is the thread's CPU time. Fails above 2 ms. `-- --quick`: 50,000 keys and 8 peers.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]
#![allow(dead_code, reason = "the kit has more than this uses")]

#[path = "../tests/kit/mod.rs"]
mod kit;
#[path = "support/options.rs"]
mod options;

use kit::ClientId;
use kit::peer::{Face, Link, WITHOUT_OWN, World, bytes_of, head, piece};
use olivia::base::rng::Rng;
use olivia::config::Config;
use olivia::filter::changelog::PIECE_BLOCKS;
use olivia::limits::Limits;
use olivia::node::{Class, Shares};
use olivia::wire::frame::Body;
use options::{Options, Takes};
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

/// The longest iteration that is allowed.
const LIMIT: Duration = Duration::from_millis(2);

/// Number of iterations with ping-pong only, of which the longest is measured.
const IDLE_ITERATIONS: usize = 2_000;

/// Bytes that the shell reads at once.
const BYTES_PER_READ: usize = 64 * 1024;

/// Samples of the history in a day.
const SAMPLES: usize = 8_640;

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
}

struct Loop {
    world: World,
    player: ClientId,
    worker: ClientId,
    shares: Shares,
    links: Vec<Link>,
}

impl Loop {
    fn new(keys: usize, peers: u16) -> Self {
        let limits = Limits { reply_bytes_max: 64 << 20, ..Limits::default() };
        let mut world = World::new(Config { limits, ..Config::default() });
        world.driver.watch = None;
        let (player, worker) = (world.driver.client(), world.driver.client());
        for first in (0..keys).step_by(64) {
            let mut line = String::from("SET ");
            for id in first..first + 64 {
                write!(line, "key{id}:{},", "v".repeat(32)).unwrap();
            }
            line.pop();
            line.push('\n');
            world.driver.send(worker, line);
            world.driver.take_bytes(worker);
        }
        // A day with requests in each sample of the history.
        for _ in 0..SAMPLES {
            world.driver.leap(Duration::from_secs(10));
            world.driver.node.iteration_begins(world.driver.now);
            world.driver.call(player, "PING\nGET key1\n");
        }
        let links = (1..=peers).map(|number| world.known(&Face::new(number))).collect();
        Self { world, player, worker, shares: Shares::default(), links }
    }

    /// Loses the link to the first peer and makes it again. The peer requests the whole filter and sends its own, of as
    /// many keys, against which all own keys are then tested. Returns the longest iteration, the number of iterations,
    /// and the bytes that the peer got.
    fn relink(&mut self) -> (Duration, usize, usize) {
        let begin = cpu();
        self.world.driver.lose(self.links[0].conn);
        let link = self.world.dial(&Face::new(1));
        // The handshake of both sides counts as one iteration.
        let (mut longest, mut count, mut bytes) = (cpu() - begin, 1, 0);
        let size = self.world.driver.node.own_filter().size();
        let mut rng = Rng::new(1);
        let mut input = bytes_of(&[
            (0, Body::Resync(None)),
            (0, Body::Snap { head: head(2, 0), size_log2: size.log2() }),
        ]);
        for first in (0..size.blocks()).step_by(PIECE_BLOCKS) {
            let words: Vec<u64> = (0..PIECE_BLOCKS * 8).map(|_| rng.next_u64()).collect();
            input.extend(piece(u32::try_from(first).unwrap(), &words));
        }
        input.extend(bytes_of(&[(0, Body::SnapEnd)]));
        let mut reads = input.chunks(BYTES_PER_READ);
        loop {
            let driver = &mut self.world.driver;
            let begin = cpu();
            if let Some(read) = reads.next().filter(|_| !driver.is_stopped(link.conn)) {
                driver.deliver(link.conn, read);
            }
            let until = self.shares.links_until();
            while cpu() - begin < until && driver.node.step(driver.now, Class::Links) {}
            longest = longest.max(cpu() - begin + self.iterate(None));
            count += 1;
            let driver = &mut self.world.driver;
            driver.read_now(link.conn);
            bytes += driver.take_bytes(link.conn).len();
            if reads.len() == 0 && !driver.node.has_work(driver.now) && driver.waiting(link.conn) == 0 {
                return (longest, count, bytes);
            }
        }
    }

    /// Runs one iteration: a request of each client, then due work for its share. Returns its time, without that of
    /// writing to the sockets, which the shell does in pieces.
    fn iterate(&mut self, request: Option<&str>) -> Duration {
        let driver = &mut self.world.driver;
        let begin = cpu();
        driver.deliver(self.player, b"PING\n");
        if let Some(request) = request {
            driver.deliver(self.worker, request.as_bytes());
        }
        let until = self.shares.clients_until(Duration::ZERO);
        while cpu() - begin < until && driver.node.step(driver.now, Class::Clients) {}
        let from = cpu();
        let share = self.shares.due(from - begin);
        let mut is_done = false;
        while !is_done && cpu() - from < share {
            is_done = !driver.node.step(driver.now, Class::Due);
        }
        self.shares.ended(Class::Due, is_done);
        let took = cpu() - begin;
        driver.act();
        driver.read_now(self.player);
        driver.read_now(self.worker);
        driver.take_bytes(self.player);
        took
    }

    /// Iterates until a request is answered in full. Returns the longest iteration, the number of iterations, and the
    /// reply.
    fn run(&mut self, request: &str) -> (Duration, usize, Vec<u8>) {
        let (mut longest, mut count, mut reply) = (Duration::ZERO, 0, Vec::new());
        loop {
            longest = longest.max(self.iterate((count == 0).then_some(request)));
            count += 1;
            reply.extend(self.world.driver.take_bytes(self.worker));
            let driver = &self.world.driver;
            if !reply.is_empty() && !driver.node.has_work(driver.now) && driver.waiting(self.worker) == 0 {
                return (longest, count, reply);
            }
        }
    }
}

fn main() -> ExitCode {
    options::run(Takes { flags: &[], values: &[], words: &[] }, run)
}

fn run(options: &Options) -> Result<(), String> {
    let (keys, peers) = if options.quick { (50_000, 8) } else { (5_000_000, 128) };
    let mut node = Loop::new(keys, peers);
    let mut worst = Duration::ZERO;
    let mut show = |what: &str, longest: Duration, count: usize, bytes: usize| {
        worst = worst.max(longest);
        println!(
            "{what:<28} {:>10.0} us {count:>10} iterations {bytes:>12} bytes",
            longest.as_secs_f64() * 1e6
        );
    };
    println!("{keys} keys, {peers} peers; the longest iteration in CPU time");
    let idle = (0..IDLE_ITERATIONS).map(|_| node.iterate(None)).max().unwrap();
    show("ping-pong alone", idle, IDLE_ITERATIONS, 0);
    for path in ["/metrics", "/status.json", "/history.json", "/"] {
        // Each request as the first of its connection.
        node.worker = node.world.driver.client();
        let (longest, count, reply) = node.run(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert!(reply.starts_with(b"HTTP/1.1 200 OK"), "{}", reply.escape_ascii());
        show(&format!("GET {path}"), longest, count, reply.len());
    }
    node.worker = node.world.driver.client();
    for request in
        ["STATS\n", "MESH\n", "KEYS nothing*\n", "KEYS key*99\n", "KEYS *\n", "REQUEST bloomfilter\n"]
    {
        let (longest, count, reply) = node.run(request);
        show(request.trim_end(), longest, count, reply.len());
    }
    node.worker = node.world.driver.client();
    let (mut longest, mut count, mut bytes, mut cursor) = (Duration::ZERO, 0, 0, "0".to_owned());
    loop {
        let words = ["SCAN", cursor.as_str(), "COUNT", "10000"];
        let words: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        let (took, iterations, reply) = node.run(&format!("*4\r\n{words}"));
        (longest, count, bytes) = (longest.max(took), count + iterations, bytes + reply.len());
        let reply = String::from_utf8(reply).unwrap();
        reply.split("\r\n").nth(2).unwrap().clone_into(&mut cursor);
        if cursor == "0" {
            break;
        }
    }
    show("SCAN of all, COUNT 10000", longest, count, bytes);
    node.world.last = WITHOUT_OWN;
    let (longest, count, reply) = node.run("*1\r\n$8\r\nFLUSHALL\r\n");
    show("FLUSHALL", longest, count, reply.len());
    let mut node = Loop::new(keys / 5, 1);
    let (longest, count, bytes) = node.relink();
    show("a link is made again", longest, count, bytes);
    assert!(node.world.stat("invalidations_sent") > 0, "no key was tested");
    if options.quick || worst < LIMIT {
        Ok(())
    } else {
        Err(format!("an iteration took {worst:?} of CPU time"))
    }
}
