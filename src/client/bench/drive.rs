//! The event loop of the generator: one thread, so that it costs one core and no locks.
//!
//! Closed loop: each connection sends as many requests as its pipeline is deep, takes all their replies, and sends
//! the next. Open loop: requests are due at moments that do not depend on replies, and latency counts from these
//! moments, so that a server that stalls is charged for what was delayed by it.
//!
//! Connections are read from and written to in batches of one system call. A reply counts as received right after the call
//! that read its batch: it has arrived by then, and what is done with the other replies of the batch is not counted. A
//! latency of the closed loop begins right before the call that writes its batch. So no latency is too short, and one may be
//! too long by the reads and writes of 31 other connections, some 100 µs. With a call for each, the last of these would
//! wait for the same reads and writes, one by one, and for the checks between them.

use super::connection::{COPY_BYTES_MAX, Connection, Expectation, Verdict};
use super::keys::{Draw, Pick, Sizes, Texts};
use super::protocol::{Protocol, Request};
use super::schedule::Schedule;
use crate::base::histogram::{Histogram, buckets};
use crate::base::rng::Rng;
use crate::batch::{Batch, SOCKETS_MAX};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Bytes read at once, from all connections of a batch.
const READ_BYTES: usize = 256 * 1024;

/// Bytes of a request or reply around its key and value, at most.
const FRAME_BYTES_MAX: usize = 32;

/// Time without input after which a run fails.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Time between two reports of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Maximum requests without a reply in the open loop; above it, due requests wait unsent, and their latency counts.
const OUTSTANDING_MAX: u64 = 100_000;

/// Requests sent in the open loop before replies are read again.
const SEND_BATCH: usize = 256;

/// The timeout of the poll counts in milliseconds, so shorter waits spin.
const SPIN_BELOW: Duration = Duration::from_millis(2);

/// File descriptors in addition to those of the connections.
const SPARE_FILES: u64 = 64;

/// Share of its core from which on the generator is reported as the bottleneck.
const BUSY_MAX: f64 = 0.95;

/// Times with an error of at most a 256th.
pub type Times = Histogram<8, { buckets(8) }>;

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    /// After this number of requests.
    Requests(u64),
    /// After this time.
    After(Duration),
}

/// The parameters of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The addresses to which connections are made, in turns.
    pub addrs: Vec<SocketAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The password, sent first on each connection.
    pub password: Option<Vec<u8>>,
    /// The number of connections.
    pub connections: usize,
    /// Requests in flight on each connection, in the closed loop.
    pub pipeline: usize,
    /// Requests per second over all connections: the open loop. `None`: the closed one.
    pub rate: Option<f64>,
    /// Time before anything is recorded.
    pub warm_up: Duration,
    /// The end of the recorded part.
    pub end: End,
    /// The number of different keys.
    pub keys: u64,
    /// The number of the first key.
    pub first_key: u64,
    /// Bytes of each key.
    pub key_bytes: usize,
    /// Sizes of values.
    pub sizes: Sizes,
    /// Percentage of GETs among the requests; the others are SETs.
    pub get_percent: u64,
    /// How often each key is requested.
    pub pick: Pick,
    /// Every key has been set, so a GET that finds nothing is wrong.
    pub is_filled: bool,
    /// Every GET is answered with the value of key 0, as by an echo server.
    pub is_echo: bool,
    /// Poll without sleeping.
    pub spin: bool,
    /// The seed of keys and mix.
    pub seed: u64,
}

impl Plan {
    /// 50 connections, each with one GET at a time of a million keys of 16 bytes with values of 64, for ten seconds
    /// after one of warm-up.
    pub fn new(addrs: Vec<SocketAddr>, protocol: Protocol) -> Self {
        Self {
            addrs,
            protocol,
            password: None,
            connections: 50,
            pipeline: 1,
            rate: None,
            warm_up: Duration::from_secs(1),
            end: End::After(Duration::from_secs(10)),
            keys: 1_000_000,
            first_key: 0,
            key_bytes: 16,
            sizes: Sizes::Fixed(64),
            get_percent: 100,
            pick: Pick::Uniform,
            is_filled: false,
            is_echo: false,
            spin: false,
            seed: 1,
        }
    }

    /// The value of a key.
    pub fn value(&self, number: u64) -> Vec<u8> {
        self.texts().value(number).pieces(0).collect::<Vec<_>>().concat()
    }

    /// Connections per batch: as many as fit the buffer with the replies to their pipelines. Large values have single
    /// calls: it is not the call that they cost.
    fn batch_max(&self) -> usize {
        if self.sizes.max() > COPY_BYTES_MAX {
            return 1;
        }
        let bytes = self.pipeline * (self.sizes.max() + self.key_bytes + FRAME_BYTES_MAX);
        (READ_BYTES / bytes).clamp(1, SOCKETS_MAX.min(self.connections))
    }

    fn texts(&self) -> Texts {
        Texts::new(self.key_bytes, self.sizes.clone())
    }

    /// The plan that sets every key of this one once.
    #[must_use]
    pub fn fill(&self) -> Self {
        Self {
            connections: self.connections.min(50),
            pipeline: if self.sizes.max() > 4_096 { 1 } else { 64 },
            rate: None,
            warm_up: Duration::ZERO,
            end: End::Requests(self.keys),
            get_percent: 0,
            pick: Pick::Sequential,
            ..self.clone()
        }
    }
}

/// The measurements of a run.
#[derive(Debug, Clone, Default)]
pub struct RunResult {
    /// From the end of the warm-up to the last reply.
    pub took: Duration,
    /// From the time at which each request was sent, or was due in the open loop, to its reply.
    pub times: Box<Times>,
    /// The longest time, exactly.
    pub longest: Duration,
    /// In the open loop: the delay of each request after it was due.
    pub late: Box<Times>,
    /// Bytes of values that were set or found.
    pub value_bytes: u64,
    /// GETs that found nothing.
    pub misses: u64,
    /// Replies that were errors, or not the expected ones.
    pub wrong: u64,
    /// The first of those, as text.
    pub first_wrong: Option<String>,
    /// The share of its time in which the generator's thread worked.
    pub busy: f64,
}

impl RunResult {
    /// Replies per second.
    pub fn per_second(&self) -> f64 {
        self.times.count() as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The time that a share of the requests did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        self.times.quantile(share).min(self.longest)
    }

    /// The reason for which the figures may be the generator's rather than the server's, if there is one.
    pub fn bottleneck(&self) -> Option<String> {
        let (late, p99) = (self.late.quantile(0.99), self.quantile(0.99));
        if self.busy >= BUSY_MAX {
            return Some(format!("the generator was busy {:.0} % of the time", 100.0 * self.busy));
        }
        (late > p99 / 4).then(|| format!("1 % of the requests were sent more than {late:.0?} late"))
    }
}

/// The events that [`run`] reports.
#[derive(Debug)]
pub enum Moment<'o> {
    /// The warm-up is over.
    Begin,
    /// Another second has passed.
    Progress(&'o RunResult),
    /// The last reply has come.
    End,
}

struct Driver<'p> {
    plan: &'p Plan,
    begin: Instant,
    expected: Expectation,
    draw: Draw,
    /// Requests not yet begun; `None`: until the time is over.
    left: Option<u64>,
    is_recording: bool,
    is_over: bool,
    outstanding: u64,
    result: RunResult,
    batch: Batch,
    batch_max: usize,
    /// The bytes of the reads of a batch.
    scratch: Vec<u8>,
    /// Connections to read from, at most `batch_max`.
    readable: Vec<usize>,
    /// Connections with requests to write, at most `batch_max`.
    sending: Vec<usize>,
}

/// Carries out a plan. `observe` may end it with an error.
///
/// # Errors
/// A sentence, if the server cannot be reached, breaks a connection or sends nothing for too long. Wrong replies are no
/// error here: they are counted.
pub fn run(
    plan: &Plan,
    observe: &mut dyn FnMut(Moment<'_>) -> Result<(), String>,
) -> Result<RunResult, String> {
    let addrs = plan.addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let failed = |error: io::Error| format!("{addrs}: {error}");
    let files = plan.connections as u64 + SPARE_FILES;
    if rlimit::increase_nofile_limit(files).is_ok_and(|limit| limit < files) {
        return Err(format!("{} connections need {files} open files (ulimit -n)", plan.connections));
    }
    let mut poll = Poll::new().map_err(failed)?;
    let mut conns = connect(plan, &poll)?;
    let mut driver = Driver::new(plan);
    let mut schedule = plan.rate.map(|rate| Schedule::new(plan.connections, rate, plan.seed));
    let mut events = Events::with_capacity(1_024);
    let begin = driver.begin;
    if schedule.is_none() {
        driver.send_first(&mut conns).map_err(failed)?;
    }
    let (mut received_at, mut progress_at) = (begin, begin + plan.warm_up + PROGRESS_EVERY);
    let (mut recorded_from, mut cpu_from, mut idle) = (begin, thread_cpu(), Duration::ZERO);
    // Until when it is known whether the thread worked or spun.
    let mut known_until = begin;
    loop {
        let now = Instant::now();
        if !driver.is_recording && now - begin >= plan.warm_up {
            driver.is_recording = true;
            (recorded_from, cpu_from, idle) = (now, thread_cpu(), Duration::ZERO);
            observe(Moment::Begin)?;
        }
        driver.is_over |=
            driver.is_recording && matches!(plan.end, End::After(time) if now - recorded_from >= time);
        driver.is_over |= driver.left == Some(0);
        if driver.is_over && driver.outstanding == 0 {
            break;
        }
        if now >= progress_at {
            progress_at += PROGRESS_EVERY;
            driver.result.took = now - recorded_from;
            observe(Moment::Progress(&driver.result))?;
        }
        let mut timeout = if plan.spin { Duration::ZERO } else { progress_at.saturating_duration_since(now) };
        if let Some(schedule) = &mut schedule {
            if driver.send_due(schedule, &mut conns).map_err(failed)? {
                known_until = Instant::now();
            }
            if !driver.is_over {
                let due = begin + Duration::from_nanos(schedule.next().0);
                timeout = timeout.min(due.saturating_duration_since(now));
            }
        }
        timeout = if timeout < SPIN_BELOW { Duration::ZERO } else { timeout - SPIN_BELOW / 2 };
        match poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let now = Instant::now();
        if events.is_empty() {
            // A poll that slept did not use the CPU.
            idle += if timeout.is_zero() { now - known_until } else { Duration::ZERO };
            known_until = now;
            if now - received_at > SILENCE_MAX && driver.outstanding > 0 {
                return Err(format!("{addrs}: no reply for {SILENCE_MAX:?}"));
            }
        } else {
            received_at = now;
        }
        driver.serve(&events, &mut conns).map_err(failed)?;
        if !events.is_empty() {
            known_until = Instant::now();
        }
    }
    let took = recorded_from.elapsed();
    let used = thread_cpu().saturating_sub(cpu_from).saturating_sub(idle);
    observe(Moment::End)?;
    let busy = used.as_secs_f64() / took.as_secs_f64().max(f64::MIN_POSITIVE);
    Ok(RunResult { took, busy, ..driver.result })
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

fn connect(plan: &Plan, poll: &Poll) -> Result<Vec<Connection>, String> {
    let mut seeds = Rng::new(plan.seed);
    (0..plan.connections)
        .map(|index| {
            let addr = plan.addrs[index % plan.addrs.len()];
            let failed = |error: io::Error| format!("{addr}: {error}");
            let mut stream = std::net::TcpStream::connect_timeout(&addr, SILENCE_MAX).map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            if let Some(password) = &plan.password {
                authenticate(plan.protocol, &mut stream, password)
                    .map_err(|error| format!("{addr}: {error}"))?;
            }
            stream.set_nonblocking(true).map_err(failed)?;
            let mut stream = TcpStream::from_std(stream);
            let both = Interest::READABLE.add(Interest::WRITABLE);
            poll.registry().register(&mut stream, Token(index), both).map_err(failed)?;
            Ok(Connection::new(stream, Rng::new(seeds.next_u64())))
        })
        .collect()
}

fn authenticate(protocol: Protocol, stream: &mut std::net::TcpStream, password: &[u8]) -> Result<(), String> {
    let mut request = Vec::new();
    let Some(expected) = protocol.put_auth(&mut request, password) else {
        return Err("a password, but the protocol has no request for it".to_owned());
    };
    let mut reply = vec![0; expected.len()];
    let exchanged = stream
        .set_read_timeout(Some(SILENCE_MAX))
        .and_then(|()| stream.write_all(&request))
        .and_then(|()| stream.read_exact(&mut reply));
    match exchanged {
        Ok(()) if reply == expected => Ok(()),
        Ok(()) => Err("the password is refused".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl<'p> Driver<'p> {
    fn new(plan: &'p Plan) -> Self {
        Self {
            plan,
            begin: Instant::now(),
            expected: Expectation::new(plan.protocol, plan.texts(), !plan.is_filled, plan.is_echo),
            draw: Draw::new(plan.pick, plan.keys),
            left: match plan.end {
                End::Requests(requests) => Some(requests),
                End::After(_) => None,
            },
            is_recording: false,
            is_over: false,
            outstanding: 0,
            result: RunResult::default(),
            batch: Batch::new(),
            batch_max: plan.batch_max(),
            scratch: vec![0; READ_BYTES],
            readable: Vec::with_capacity(SOCKETS_MAX),
            sending: Vec::with_capacity(SOCKETS_MAX),
        }
    }

    /// Appends one request to a connection; false: there are no more.
    fn put(&mut self, conn: &mut Connection, due_nanos: u64) -> bool {
        match &mut self.left {
            Some(0) => return false,
            // The warm-up does not count.
            Some(left) if self.is_recording || self.plan.warm_up.is_zero() => *left -= 1,
            Some(_) | None => {}
        }
        let number = self.plan.first_key + self.draw.next(&mut conn.rng, self.plan.keys);
        let is_get = match self.plan.get_percent {
            0 => false,
            100 => true,
            percent => conn.rng.below(100) < percent,
        };
        conn.put(Request { number, is_get, due_nanos }, &mut self.expected);
        self.outstanding += 1;
        true
    }

    /// Sends the first requests of the closed loop.
    fn send_first(&mut self, conns: &mut [Connection]) -> io::Result<()> {
        for from in (0..conns.len()).step_by(self.batch_max) {
            self.sending.extend(from..conns.len().min(from + self.batch_max));
            self.send_next(conns)?;
        }
        Ok(())
    }

    /// Sends the next requests of the connections in [`Driver::sending`], which have all their replies.
    fn send_next(&mut self, conns: &mut [Connection]) -> io::Result<()> {
        let now = self.now();
        for place in 0..self.sending.len() {
            let conn = &mut conns[self.sending[place]];
            let count = if self.is_over { 0 } else { self.plan.pipeline };
            (0..count).all(|_| self.put(conn, now));
        }
        // At the end of a run there are no more requests.
        self.sending.retain(|at| !conns[*at].unwritten().is_empty());
        self.write(conns)?;
        self.sending.clear();
        Ok(())
    }

    /// Sends the requests that are due; returns whether there were any.
    fn send_due(&mut self, schedule: &mut Schedule, conns: &mut [Connection]) -> io::Result<bool> {
        let first = schedule.next;
        let mut now = self.now();
        while schedule.next < first + SEND_BATCH && self.put_due(now, schedule, conns) {
            self.write(conns)?;
            let written = self.now();
            let count = self.sending.len() as u64;
            for (place, at) in (0..).zip(self.sending.drain(..)) {
                // The system writes one after another.
                let sent = now + (written - now) * place / count;
                if let Some(request) = conns[at].waiting.back().filter(|_| self.is_recording) {
                    self.result.late.add(sent - request.due_nanos, 1);
                }
            }
            now = written;
        }
        Ok(schedule.next > first)
    }

    /// Appends requests that are due to their connections, and these, which differ, to [`Driver::sending`]; returns whether
    /// there were any.
    fn put_due(&mut self, now: u64, schedule: &mut Schedule, conns: &mut [Connection]) -> bool {
        while self.sending.len() < self.batch_max {
            let (due, at) = schedule.next();
            if due > now || self.is_over || self.outstanding >= OUTSTANDING_MAX {
                break;
            }
            if !self.put(&mut conns[at], due) {
                break;
            }
            schedule.next += 1;
            self.sending.push(at);
        }
        !self.sending.is_empty()
    }

    /// Writes the requests of the connections in [`Driver::sending`], as much as the sockets accept.
    fn write(&mut self, conns: &mut [Connection]) -> io::Result<()> {
        if self.sending.len() > 1 {
            let writes = self.sending.iter().map(|&at| (&conns[at].stream, conns[at].unwritten()));
            self.batch.write(writes);
            for (place, &at) in self.sending.iter().enumerate() {
                conns[at].has_written(self.batch.take(place), &self.expected)?;
            }
        }
        // What is left, and that of a single connection.
        self.sending.iter().try_for_each(|&at| conns[at].flush(&self.expected))
    }

    /// Reads from and writes to the connections with events.
    fn serve(&mut self, events: &Events, conns: &mut [Connection]) -> io::Result<()> {
        for event in events {
            let at = event.token().0;
            if event.is_writable() {
                conns[at].flush(&self.expected)?;
            }
            if event.is_readable() {
                self.readable.push(at);
            }
            while self.readable.len() >= self.batch_max {
                self.receive(conns)?;
            }
        }
        while !self.readable.is_empty() {
            self.receive(conns)?;
        }
        Ok(())
    }

    /// Receives replies on the connections in [`Driver::readable`], and sends the next requests in the closed loop. Those
    /// with more to read stay.
    fn receive(&mut self, conns: &mut [Connection]) -> io::Result<()> {
        let part_bytes = READ_BYTES / self.batch_max;
        let sockets = self.readable.iter().map(|&at| &conns[at].stream);
        self.batch.read(sockets, &mut self.scratch, part_bytes);
        let now = self.now();
        let mut left = 0;
        for (place, part) in (0..self.readable.len()).zip(self.scratch.chunks(part_bytes)) {
            let (at, result) = (self.readable[place], self.batch.take(place));
            let conn = &mut conns[at];
            let count = match result {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "it closed a connection")),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let was_waiting = !conn.waiting.is_empty();
            let Self { expected, result, outstanding, is_recording, .. } = self;
            conn.take(&part[..count], expected, &mut |request, verdict| {
                *outstanding = outstanding.saturating_sub(1);
                result.record(request, verdict, now, *is_recording);
            });
            if self.plan.rate.is_none() && was_waiting && conn.waiting.is_empty() {
                self.sending.push(at);
            }
            // A short read has drained the socket; what comes later is a new edge.
            if count == part_bytes {
                self.readable[left] = at;
                left += 1;
            }
        }
        self.readable.truncate(left);
        if self.sending.is_empty() { Ok(()) } else { self.send_next(conns) }
    }

    /// Nanoseconds since the beginning.
    fn now(&self) -> u64 {
        nanos(self.begin.elapsed())
    }
}

impl RunResult {
    fn record(&mut self, request: Request, verdict: Verdict<'_>, now: u64, is_recording: bool) {
        match verdict {
            Verdict::Wrong(reply) => {
                self.wrong += 1;
                let reply = &reply[..reply.len().min(200)];
                self.first_wrong.get_or_insert_with(|| {
                    let verb = if request.is_get { "GET" } else { "SET" };
                    format!("'{}' as the reply to a {verb} of key {}", reply.escape_ascii(), request.number)
                });
            }
            Verdict::Miss if is_recording => self.misses += 1,
            Verdict::Right(bytes) if is_recording => self.value_bytes += bytes as u64,
            Verdict::Miss | Verdict::Right(_) => {}
        }
        if is_recording {
            let took = now.saturating_sub(request.due_nanos);
            self.times.add(took, 1);
            if took > nanos(self.longest) {
                self.longest = Duration::from_nanos(took);
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{
        Connection, Driver, Plan, READ_BYTES, RunResult, SEND_BATCH, SILENCE_MAX, Schedule, connect,
    };
    use crate::batch::SOCKETS_MAX;
    use crate::client::bench::protocol::Protocol;
    use mio::{Events, Poll};
    use socket2::SockRef;
    use std::io::{self, ErrorKind, Read, Write};
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    #[test]
    fn generator_that_was_the_bottleneck_says_so() {
        let mut result = RunResult { busy: 0.94, longest: Duration::from_secs(1), ..RunResult::default() };
        result.times.add(1_000_000, 100);
        result.late.add(200_000, 100);
        assert_eq!(result.bottleneck(), None);
        result.late.add(400_000, 2);
        assert_eq!(result.bottleneck().unwrap(), "1 % of the requests were sent more than 400µs late");
        result.busy = 0.97;
        assert_eq!(result.bottleneck().unwrap(), "the generator was busy 97 % of the time");
    }

    const REQUEST: &[u8] = b"*2\r\n$3\r\nGET\r\n$16\r\n0000000000000000\r\n";

    fn plan(connections: usize, pipeline: usize) -> Plan {
        Plan { connections, pipeline, is_echo: true, ..Plan::new(Vec::new(), Protocol::Resp) }
    }

    /// The generator, and a server that the test plays.
    struct Rig<'p> {
        poll: Poll,
        driver: Driver<'p>,
        conns: Vec<Connection>,
        peers: Vec<std::net::TcpStream>,
        /// Bytes that each peer has read.
        requests: Vec<Vec<u8>>,
        reply: Vec<u8>,
    }

    impl<'p> Rig<'p> {
        /// Connections in batches of `batch_max`.
        fn new(plan: &'p mut Plan, batch_max: usize) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            plan.addrs = vec![listener.local_addr().unwrap()];
            let poll = Poll::new().unwrap();
            let conns = connect(plan, &poll).unwrap();
            let peers: Vec<_> = conns.iter().map(|_| listener.accept().unwrap().0).collect();
            peers.iter().for_each(|peer| peer.set_nonblocking(true).unwrap());
            let mut driver = Driver::new(plan);
            (driver.is_recording, driver.batch_max) = (true, batch_max);
            let mut reply = Vec::new();
            let tail = plan.protocol.put_hit(&mut reply, b"", plan.value(0).len());
            reply.extend_from_slice(&[&plan.value(0), tail].concat());
            let requests = vec![Vec::new(); peers.len()];
            Self { poll, driver, conns, peers, requests, reply }
        }

        /// One iteration of the loop; `wait_ms` is the longest time without an event.
        fn serve(&mut self, wait_ms: u64) -> io::Result<()> {
            let mut events = Events::with_capacity(1_024);
            self.poll.poll(&mut events, Some(Duration::from_millis(wait_ms)))?;
            self.driver.serve(&events, &mut self.conns)
        }

        /// Has a peer read until it has so many requests in total, and no more, while the generator writes.
        fn expect(&mut self, peer: usize, requests: usize) {
            let begin = Instant::now();
            loop {
                let read = self.peers[peer].read_to_end(&mut self.requests[peer]);
                assert!(read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
                if self.requests[peer].len() >= requests * REQUEST.len() {
                    break;
                }
                assert!(begin.elapsed() < SILENCE_MAX, "{} bytes", self.requests[peer].len());
                self.serve(0).unwrap();
            }
            let is_request = |text: &[u8]| text.starts_with(&REQUEST[..20]) && text.ends_with(b"\r\n");
            assert!(self.requests[peer].chunks(REQUEST.len()).all(is_request));
            assert_eq!(self.requests[peer].len(), requests * REQUEST.len());
        }

        /// Has a peer reply to some requests in one write, which has arrived on return.
        fn reply(&mut self, peer: usize, requests: usize) {
            let replies = self.reply.repeat(requests);
            assert_eq!(self.peers[peer].write(&replies).unwrap(), replies.len());
            let (begin, mut arrived) = (Instant::now(), vec![0; replies.len()]);
            while self.conns[peer].stream.peek(&mut arrived).ok() != Some(replies.len()) {
                assert!(begin.elapsed() < SILENCE_MAX);
            }
        }
    }

    #[test]
    fn all_ready_connections_are_served_in_batches_of_any_size() {
        for batch_max in [1, 7, SOCKETS_MAX] {
            let mut plan = plan(100, 3);
            let mut rig = Rig::new(&mut plan, batch_max);
            rig.driver.send_first(&mut rig.conns).unwrap();
            (0..100).for_each(|peer| rig.expect(peer, 3));
            std::thread::sleep(Duration::from_millis(20));
            (0..100).for_each(|peer| rig.reply(peer, 3));
            rig.serve(10_000).unwrap();
            let result = &rig.driver.result;
            assert_eq!((result.times.count(), &result.first_wrong), (300, &None), "{batch_max}");
            assert!(result.quantile(0.0) >= Duration::from_millis(19), "{batch_max}");
            (0..100).for_each(|peer| rig.expect(peer, 6));
            assert_eq!(rig.driver.outstanding, 300);
        }
    }

    #[test]
    fn replies_beyond_the_part_of_their_connection_are_read() {
        let mut plan = plan(40, 400);
        let mut rig = Rig::new(&mut plan, SOCKETS_MAX);
        assert!(400 * rig.reply.len() > 3 * READ_BYTES / SOCKETS_MAX);
        rig.driver.send_first(&mut rig.conns).unwrap();
        for peer in (0..40).step_by(2) {
            rig.expect(peer, 400);
            rig.reply(peer, 400);
        }
        rig.serve(10_000).unwrap();
        let result = &rig.driver.result;
        assert_eq!((result.times.count(), &result.first_wrong), (20 * 400, &None));
    }

    #[test]
    fn requests_that_sockets_do_not_accept_at_once_follow() {
        let mut plan = plan(40, 5_000);
        let mut rig = Rig::new(&mut plan, SOCKETS_MAX);
        for conn in &rig.conns {
            SockRef::from(&conn.stream).set_send_buffer_size(4_096).unwrap();
        }
        rig.driver.send_first(&mut rig.conns).unwrap();
        assert!(rig.conns.iter().all(|conn| !conn.unwritten().is_empty()));
        (0..40).for_each(|peer| rig.expect(peer, 5_000));
    }

    #[test]
    fn requests_that_are_due_are_sent_by_turns() {
        for connections in [3, 40] {
            let mut plan = plan(connections, 1);
            let batch_max = plan.batch_max();
            let mut rig = Rig::new(&mut plan, batch_max);
            let mut schedule = Schedule::new(connections, 1e9, 1);
            std::thread::sleep(Duration::from_millis(1));
            assert!(rig.driver.send_due(&mut schedule, &mut rig.conns).unwrap());
            let sent = schedule.next;
            assert!((SEND_BATCH..SEND_BATCH + batch_max).contains(&sent), "{sent}");
            assert_eq!((rig.driver.result.late.count(), rig.driver.outstanding), (sent as u64, sent as u64));
            assert!(rig.driver.result.late.quantile(0.0) > Duration::from_micros(900));
            let mut counts = vec![0; connections];
            for number in 0..sent {
                schedule.next = number;
                counts[schedule.next().1] += 1;
            }
            (0..).zip(counts).for_each(|(peer, count)| rig.expect(peer, count));
        }
    }

    #[test]
    fn connection_that_breaks_in_the_middle_of_a_batch_ends_the_run() {
        for (is_read, kinds) in [
            (true, &[ErrorKind::UnexpectedEof][..]),
            (false, &[ErrorKind::ConnectionReset, ErrorKind::BrokenPipe]),
        ] {
            let mut plan = plan(40, 1);
            let mut rig = Rig::new(&mut plan, SOCKETS_MAX);
            rig.driver.send_first(&mut rig.conns).unwrap();
            // A peer that has not read all that was sent resets the connection.
            if is_read {
                rig.expect(20, 1);
            }
            (0..40).filter(|peer| *peer != 20).for_each(|peer| rig.reply(peer, 1));
            rig.peers.remove(20);
            let error = (0..10).find_map(|_| rig.serve(1_000).err()).unwrap();
            assert!(kinds.contains(&error.kind()), "{error}");
        }
    }
}
