//! The log of slow requests, and the events of latency over its threshold. Both are bounded.

use crate::base::time::Now;
use crate::limits::Limits;
use crate::node::latency::Spent;
use crate::node::metrics::nanos;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes stored of a key, and of a client's name.
pub(in crate::node) const TEXT_BYTES_MAX: usize = 128;

/// Events stored per kind, as in Redis.
const EVENTS_MAX: usize = 160;

/// A slow request, or several that arrived together.
#[derive(Debug, Clone)]
pub(in crate::node) struct SlowRequest {
    /// Its number; 0 is the first one since the start.
    pub(in crate::node) id: u64,
    /// When it was answered, in milliseconds since 1970.
    pub(in crate::node) wall_ms: u64,
    pub(in crate::node) spent: Spent,
    /// The index of its command in the command table.
    pub(in crate::node) command: usize,
    /// The key, cut at [`TEXT_BYTES_MAX`], if it was looked up on peers.
    pub(in crate::node) key: Option<Box<[u8]>>,
    /// Other requests that arrived with it and took as long.
    pub(in crate::node) others: u32,
    pub(in crate::node) client: SocketAddr,
    /// The name of the connection, set by the client.
    pub(in crate::node) name: Box<[u8]>,
}

/// Kinds of latency events: the names of LATENCY.
pub(in crate::node) const EVENT_NAMES: [&str; 2] = ["command", "event-loop"];

/// The events of one kind.
#[derive(Debug, Default)]
pub(in crate::node) struct Events {
    /// Seconds since 1970 and the time, at most one per second: the longest.
    pub(in crate::node) recent: VecDeque<(u64, Duration)>,
    /// The longest since the last reset.
    pub(in crate::node) max: Duration,
}

impl Events {
    fn add(&mut self, wall_ms: u64, took: Duration) {
        self.max = self.max.max(took);
        let second = wall_ms / 1_000;
        match self.recent.back_mut() {
            Some((last, longest)) if *last == second => *longest = took.max(*longest),
            Some(_) | None => {
                if self.recent.len() >= EVENTS_MAX {
                    self.recent.pop_front();
                }
                self.recent.push_back((second, took));
            }
        }
    }
}

/// Slow requests and latency events.
#[derive(Debug, Default)]
pub(in crate::node) struct SlowLog {
    /// The latest one last.
    requests: VecDeque<SlowRequest>,
    /// Slow requests since the start.
    count: u64,
    /// By [`EVENT_NAMES`].
    pub(in crate::node) events: [Events; EVENT_NAMES.len()],
}

impl SlowLog {
    /// Adds a request and assigns its number.
    pub(in crate::node) fn add(&mut self, limits: &Limits, request: SlowRequest) {
        self.events[0].add(request.wall_ms, request.spent.total());
        self.requests.push_back(SlowRequest { id: self.count, ..request });
        self.count += 1;
        self.limit(limits);
    }

    /// Adds an iteration of the event loop if it was slow.
    pub(in crate::node) fn add_iteration(&mut self, limits: &Limits, now: Now, took: Duration) {
        if is_slow(limits, nanos(took)) {
            self.events[1].add(now.wall_ms(), took);
        }
    }

    /// Drops the oldest requests over the limit.
    pub(in crate::node) fn limit(&mut self, limits: &Limits) {
        while self.requests.len() > limits.slow_requests_max as usize {
            self.requests.pop_front();
        }
    }

    /// The requests, the latest one first.
    pub(in crate::node) fn requests(&self) -> impl ExactSizeIterator<Item = &SlowRequest> {
        self.requests.iter().rev()
    }

    /// Slow requests since the start, those that were dropped included.
    pub(in crate::node) fn count(&self) -> u64 {
        self.count
    }

    /// Drops all requests.
    pub(in crate::node) fn reset(&mut self) {
        self.requests = VecDeque::new();
    }
}

/// Whether a time in nanoseconds is at least the threshold.
#[inline]
pub(in crate::node) fn is_slow(limits: &Limits, nanos: u64) -> bool {
    limits.slow_request_us > 0 && nanos >= u64::from(limits.slow_request_us) * 1_000
}
