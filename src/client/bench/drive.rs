//! The event loop of the generator: one thread, so that it costs one core and no locks.
//!
//! Closed loop: each connection sends as many requests as its pipeline is deep, takes all their replies, and sends
//! the next. Open loop: requests are due at moments that do not depend on replies, and latency counts from these
//! moments, so that a server that stalls is charged for what was delayed by it.

use super::connection::{Connection, Expectation, Verdict};
use super::keys::{Draw, Pick, Sizes, Texts};
use super::protocol::{Protocol, Request};
use crate::base::histogram::{Histogram, buckets};
use crate::base::rng::Rng;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

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
}

/// The moments at which requests of the open loop are due: at equal distances per connection, from a random first
/// moment on.
struct Schedule {
    /// Nanoseconds of the first moment of each connection, which rise, and the connection.
    phases: Vec<(u64, usize)>,
    period_nanos: f64,
    /// The number of the next request.
    next: usize,
}

impl Schedule {
    fn new(plan: &Plan, rate: f64) -> Self {
        let mut rng = Rng::new(plan.seed);
        let period_nanos = plan.connections as f64 * 1e9 / rate;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time within a period")]
        let mut phase = || rng.below(period_nanos as u64);
        let mut phases: Vec<_> = (0..plan.connections).map(|conn| (phase(), conn)).collect();
        phases.sort_unstable();
        Self { phases, period_nanos, next: 0 }
    }

    /// When the next request is due, and on which connection.
    fn next(&self) -> (u64, usize) {
        let (phase, conn) = self.phases[self.next % self.phases.len()];
        let periods = (self.next / self.phases.len()) as f64 * self.period_nanos;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "nanoseconds of a run")]
        let due = periods as u64 + phase;
        (due, conn)
    }
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
    let mut schedule = plan.rate.map(|rate| Schedule::new(plan, rate));
    let mut scratch = vec![0; READ_BYTES];
    let mut events = Events::with_capacity(1_024);
    let begin = driver.begin;
    if schedule.is_none() {
        conns.iter_mut().try_for_each(|conn| driver.send_batch(conn, 0)).map_err(failed)?;
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
        for event in &events {
            let conn = &mut conns[event.token().0];
            if event.is_writable() {
                conn.flush(&driver.expected).map_err(failed)?;
            }
            if event.is_readable() {
                driver.receive(conn, &mut scratch).map_err(failed)?;
            }
        }
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

    /// Sends the next requests of a connection that has all its replies.
    fn send_batch(&mut self, conn: &mut Connection, now: u64) -> io::Result<()> {
        if self.is_over {
            return Ok(());
        }
        for _ in 0..self.plan.pipeline {
            if !self.put(conn, now) {
                break;
            }
        }
        conn.flush(&self.expected)
    }

    /// Sends the requests that are due; returns whether there were any.
    fn send_due(&mut self, schedule: &mut Schedule, conns: &mut [Connection]) -> io::Result<bool> {
        let first = schedule.next;
        for _ in 0..SEND_BATCH {
            let (due, at) = schedule.next();
            let now = nanos(self.begin.elapsed());
            if due > now || self.is_over || self.outstanding >= OUTSTANDING_MAX {
                break;
            }
            let conn = &mut conns[at];
            if !self.put(conn, due) {
                break;
            }
            conn.flush(&self.expected)?;
            schedule.next += 1;
            if self.is_recording {
                self.result.late.add(now - due, 1);
            }
        }
        Ok(schedule.next > first)
    }

    /// Receives the replies on a connection, and sends the next requests in the closed loop.
    fn receive(&mut self, conn: &mut Connection, scratch: &mut [u8]) -> io::Result<()> {
        loop {
            let count = match conn.stream.read(scratch) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "it closed a connection")),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let now = nanos(self.begin.elapsed());
            let was_waiting = !conn.waiting.is_empty();
            let Self { expected, result, outstanding, is_recording, .. } = self;
            conn.take(&scratch[..count], expected, &mut |request, verdict| {
                *outstanding = outstanding.saturating_sub(1);
                result.record(request, verdict, now, *is_recording);
            });
            if self.plan.rate.is_none() && was_waiting && conn.waiting.is_empty() {
                self.send_batch(conn, now)?;
            }
            // A short read has drained the socket; what comes later is a new edge.
            if count < scratch.len() {
                return Ok(());
            }
        }
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
    use super::{Plan, RunResult, Schedule};
    use crate::client::bench::protocol::Protocol;
    use std::time::Duration;

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

    #[test]
    fn requests_of_the_open_loop_are_due_at_the_rate_and_by_turns() {
        let mut schedule = Schedule::new(&Plan::new(Vec::new(), Protocol::Resp), 1_000.0);
        let mut counts = [0u32; 50];
        let mut last = 0;
        for _ in 0..1_000 {
            let (due, conn) = schedule.next();
            assert!(due >= last, "{due} after {last}");
            (last, counts[conn]) = (due, counts[conn] + 1);
            schedule.next += 1;
        }
        assert!((950_000_000..1_000_000_000).contains(&last), "{last}");
        assert!(counts.iter().all(|count| *count == 20), "{counts:?}");
    }
}
