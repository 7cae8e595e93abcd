//! The events of a run: a hash of all, by which two runs of one seed are compared, and the last ones as text, for the
//! reader of a failure.

use std::collections::VecDeque;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Events remembered for a failure.
const KEPT: usize = 120;

/// Bytes of an event's data that are remembered.
const SHOWN_BYTES: usize = 120;

#[derive(Debug)]
struct Event {
    nanos: u64,
    what: &'static str,
    party: usize,
    about: u64,
    bytes: Vec<u8>,
    length: usize,
}

impl Event {
    fn text(&self) -> String {
        let millis = self.nanos as f64 / 1e6;
        let cut = if self.length > self.bytes.len() { " ..." } else { "" };
        let bytes = self.bytes.escape_ascii();
        format!("{millis:>12.6} ms  {:>3} {:<12} {:x} {bytes}{cut}", self.party, self.what, self.about)
    }
}

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    digest: u64,
    is_traced: bool,
    last: VecDeque<Event>,
}

impl Trace {
    /// `is_traced`: each event is printed as it happens.
    pub fn new(is_traced: bool) -> Self {
        Self { digest: 0, is_traced, last: VecDeque::with_capacity(KEPT) }
    }

    /// Notes one event: what happened at which host or client, with a connection or another number.
    pub fn note(&mut self, nanos: u64, what: &'static str, party: usize, about: u64, bytes: &[u8]) {
        let seed = self.digest ^ nanos.rotate_left(17) ^ about.rotate_left(41) ^ (party as u64) << 56;
        self.digest = xxh3_64_with_seed(bytes, seed ^ xxh3_64_with_seed(what.as_bytes(), 0));
        let spare = if self.last.len() >= KEPT { self.last.pop_front() } else { None };
        let mut text = spare.map_or_else(Vec::new, |event| event.bytes);
        text.clear();
        let shown = if self.is_traced { 5_000 } else { SHOWN_BYTES };
        text.extend_from_slice(&bytes[..bytes.len().min(shown)]);
        let event = Event { nanos, what, party, about, bytes: text, length: bytes.len() };
        if self.is_traced {
            eprintln!("{}", event.text());
        }
        self.last.push_back(event);
    }

    /// Equal for two runs in which the same happened.
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// The last events in words, one a line.
    pub fn last(&self) -> String {
        self.last.iter().map(|event| event.text() + "\n").collect()
    }
}
