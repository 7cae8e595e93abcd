//! The closed loop: each connection sends as many requests as its pipeline is deep, takes all their
//! replies, and sends the next. One thread, so that it costs one core and no locks.

use super::histogram::Histogram;
use super::keys::{Order, Texts, Zipf};
use super::protocol::{Front, Protocol};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use olivia::base::rng::Rng;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

/// A server from which nothing comes for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// After so many requests.
    Requests(u64),
    /// After so much time.
    After(Duration),
}

/// How keys are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    /// One after the other, each once: to fill.
    Sequential,
    /// Each as often as any other.
    Uniform,
    /// A few often, many seldom.
    Zipf,
}

/// What a run does.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) addr: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) connections: usize,
    pub(crate) pipeline: usize,
    pub(crate) end: End,
    pub(crate) keys: u64,
    pub(crate) key_bytes: usize,
    pub(crate) value_bytes: usize,
    /// Of a hundred requests so many are GETs, the others SETs.
    pub(crate) get_percent: u64,
    pub(crate) pick: Pick,
    /// Compare every reply with what it should be.
    pub(crate) check: bool,
    /// With `check`: every key has been set, so a GET that finds nothing is wrong.
    pub(crate) is_filled: bool,
    /// Poll without sleeping.
    pub(crate) spin: bool,
}

/// What a run has shown.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) took: Duration,
    pub(crate) times: Histogram,
    /// Replies that were errors or not what they should be.
    pub(crate) wrong: u64,
    /// The first of those, as text.
    pub(crate) first_wrong: Option<String>,
}

impl Outcome {
    /// Replies per second.
    pub(crate) fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }
}

/// A request that is on its way, as far as its reply follows from it.
#[derive(Debug, Clone, Copy)]
struct Asked {
    number: u64,
    is_get: bool,
}

#[derive(Debug)]
struct Conn {
    stream: TcpStream,
    outbound: Vec<u8>,
    written: usize,
    /// The beginning of a reply whose end has not come.
    partial: Vec<u8>,
    waiting: usize,
    sent: Instant,
    /// With `check`: what is on its way.
    asked: VecDeque<Asked>,
}

struct Driver<'p> {
    plan: &'p Plan,
    texts: Texts,
    order: Order,
    rng: Rng,
    /// Requests not yet begun; `None`: until the time is over.
    left: Option<u64>,
    is_over: bool,
    outcome: Outcome,
    key: Vec<u8>,
    expected: Vec<u8>,
}

/// Carries out a plan.
///
/// # Errors
/// A sentence, if the server cannot be reached, breaks a connection or falls silent. Wrong replies are
/// no error here: they are counted.
pub(crate) fn run(plan: &Plan) -> Result<Outcome, String> {
    let failed = |error: io::Error| format!("{}: {error}", plan.addr);
    let mut poll = Poll::new().map_err(failed)?;
    let mut conns = connect(plan, &poll).map_err(failed)?;
    let mut driver = Driver::new(plan);
    let mut scratch = vec![0; READ_BYTES];
    let mut events = Events::with_capacity(1_024);
    let begin = Instant::now();
    let mut heard = begin;
    let mut busy = 0;
    for conn in &mut conns {
        busy += usize::from(driver.send(conn, begin).map_err(failed)?);
    }
    while busy > 0 {
        let timeout = if plan.spin { Duration::ZERO } else { SILENCE_MAX };
        if let Err(error) = poll.poll(&mut events, Some(timeout))
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(failed(error));
        }
        let now = Instant::now();
        driver.is_over |= matches!(plan.end, End::After(time) if now - begin >= time);
        for event in &events {
            heard = now;
            let conn = &mut conns[event.token().0];
            if event.is_writable() {
                conn.flush().map_err(failed)?;
            }
            if event.is_readable() && !driver.receive(conn, &mut scratch).map_err(failed)? {
                busy -= 1;
            }
        }
        if now - heard > SILENCE_MAX {
            return Err(format!("{} has been silent for {SILENCE_MAX:?}", plan.addr));
        }
    }
    driver.outcome.took = begin.elapsed();
    Ok(driver.outcome)
}

fn connect(plan: &Plan, poll: &Poll) -> io::Result<Vec<Conn>> {
    (0..plan.connections)
        .map(|index| {
            let stream = std::net::TcpStream::connect(plan.addr)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            let both = Interest::READABLE.add(Interest::WRITABLE);
            poll.registry().register(&mut stream, Token(index), both)?;
            Ok(Conn {
                stream,
                outbound: Vec::new(),
                written: 0,
                partial: Vec::new(),
                waiting: 0,
                sent: Instant::now(),
                asked: VecDeque::new(),
            })
        })
        .collect()
}

impl<'p> Driver<'p> {
    fn new(plan: &'p Plan) -> Self {
        Self {
            plan,
            texts: Texts::new(plan.key_bytes, plan.value_bytes),
            order: match plan.pick {
                Pick::Sequential => Order::Sequential(0),
                Pick::Uniform => Order::Uniform,
                Pick::Zipf => Order::Zipf(Zipf::new(plan.keys)),
            },
            rng: Rng::new(1),
            left: match plan.end {
                End::Requests(requests) => Some(requests),
                End::After(_) => None,
            },
            is_over: false,
            outcome: Outcome { took: Duration::ZERO, times: Histogram::new(), wrong: 0, first_wrong: None },
            key: Vec::new(),
            expected: Vec::new(),
        }
    }

    /// Sends the next requests of a connection that has all its replies; false if there are none left.
    fn send(&mut self, conn: &mut Conn, now: Instant) -> io::Result<bool> {
        let mut count = self.plan.pipeline;
        if let Some(left) = &mut self.left {
            count = count.min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= count as u64;
        }
        if self.is_over || count == 0 {
            return Ok(false);
        }
        conn.outbound.clear();
        conn.written = 0;
        for _ in 0..count {
            let asked = Asked {
                number: self.order.next(&mut self.rng, self.plan.keys),
                is_get: self.rng.below(100) < self.plan.get_percent,
            };
            self.texts.key(asked.number, &mut self.key);
            if asked.is_get {
                self.plan.protocol.put_get(&mut conn.outbound, &self.key);
            } else {
                self.plan.protocol.put_set(&mut conn.outbound, &self.key, self.texts.value(asked.number));
            }
            if self.plan.check {
                conn.asked.push_back(asked);
            }
        }
        conn.waiting = count;
        conn.sent = now;
        conn.flush()?;
        Ok(true)
    }

    /// Takes what has come on a connection; false if it has nothing more to do.
    fn receive(&mut self, conn: &mut Conn, scratch: &mut [u8]) -> io::Result<bool> {
        let mut is_busy = conn.waiting > 0;
        loop {
            let count = match conn.stream.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // What was not busy before has been counted out already.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            let before = conn.waiting;
            let partial = std::mem::take(&mut conn.partial);
            if partial.is_empty() {
                let used = self.take_replies(conn, &scratch[..count]);
                conn.partial = partial;
                conn.partial.extend_from_slice(&scratch[used..count]);
            } else {
                let mut whole = partial;
                whole.extend_from_slice(&scratch[..count]);
                let used = self.take_replies(conn, &whole);
                whole.drain(..used);
                conn.partial = whole;
            }
            self.outcome.times.add(now - conn.sent, (before - conn.waiting) as u64);
            if is_busy && conn.waiting == 0 {
                is_busy = self.send(conn, now)?;
                if !is_busy {
                    return Ok(false);
                }
            }
            // A short read has drained the socket; what comes later is a new edge.
            if count < scratch.len() {
                return Ok(true);
            }
        }
    }

    /// Goes through whole replies; returns their bytes.
    fn take_replies(&mut self, conn: &mut Conn, input: &[u8]) -> usize {
        let mut at = 0;
        while at < input.len() {
            let (length, is_fine) = match self.plan.protocol.front(&input[at..]) {
                Front::Partial => break,
                Front::Reply(length) => (length, conn.waiting > 0),
                Front::Error(length) => (length, false),
            };
            let reply = &input[at..at + length];
            let asked = conn.asked.pop_front();
            if !is_fine || !asked.is_none_or(|asked| self.is_right(asked, reply)) {
                self.outcome.wrong += 1;
                self.outcome.first_wrong.get_or_insert_with(|| {
                    let shown = &reply[..reply.len().min(200)];
                    format!("'{}' as the reply to {asked:?}", shown.escape_ascii())
                });
            }
            conn.waiting = conn.waiting.saturating_sub(1);
            at += length;
        }
        at
    }

    fn is_right(&mut self, asked: Asked, reply: &[u8]) -> bool {
        let Plan { protocol, is_filled, .. } = *self.plan;
        let value = self.texts.value(asked.number);
        self.texts.key(asked.number, &mut self.key);
        self.expected.clear();
        if asked.is_get {
            protocol.put_hit(&mut self.expected, &self.key, value);
        } else {
            protocol.put_stored(&mut self.expected, &self.key, value);
        }
        reply == self.expected || (asked.is_get && !is_filled && reply == protocol.miss())
    }
}

impl Conn {
    /// Writes what waits, as much as the socket takes.
    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.outbound.len() {
            match self.stream.write(&self.outbound[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
