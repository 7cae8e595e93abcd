//! The ordered stream to one peer: how far the peer has processed it.
//!
//! Heartbeats are part of the stream, so the answer to one shows that everything before it was processed. While much is
//! sent, there are more of them than one per interval. Bytes in sockets count too, which the sender cannot see
//! otherwise: several megabytes may lie there.

use crate::base::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Unprocessed bytes that are never too many: those of one write of additions.
const UNPROCESSED_MIN: u64 = 32 * 1024;

/// Bytes after which a heartbeat follows.
const HEARTBEAT_BYTES: u64 = 8 * 1024;

/// The time in addition to the shortest round trip after which a heartbeat without an answer is late.
const LATE_AFTER: Duration = Duration::from_millis(5);

/// The longest time for which clients wait for a peer that processes nothing.
const STALLED_AFTER: Duration = Duration::from_millis(200);

/// Heartbeats without an answer that are remembered.
const UNANSWERED_MAX: usize = 1_024;

/// A heartbeat without an answer.
#[derive(Debug)]
struct Sent {
    number: u32,
    at: Instant,
    /// The bytes of the stream up to it.
    end: u64,
}

/// The ordered stream to a peer.
#[derive(Debug, Default)]
pub(in crate::node) struct Stream {
    /// Bytes appended.
    appended: u64,
    /// Bytes that the peer has certainly processed.
    processed: u64,
    /// The number of the last heartbeat.
    number: u32,
    /// The last heartbeats without an answer, in order.
    unanswered: VecDeque<Sent>,
    /// When the last answer arrived.
    answered_at: Instant,
    /// The shortest round trip.
    shortest: Option<Duration>,
}

impl Stream {
    /// Begins a new link.
    pub(super) fn reset(&mut self) {
        *self = Self { number: self.number, ..Self::default() };
    }

    /// Notes appended bytes.
    pub(in crate::node) const fn append(&mut self, bytes: usize) {
        self.appended += bytes as u64;
    }

    /// Notes a heartbeat, which is appended next. Returns its number.
    pub(in crate::node) fn heartbeat_sent(&mut self, now: Instant) -> u32 {
        if self.unanswered.len() == UNANSWERED_MAX {
            self.unanswered.pop_front();
        }
        self.number = self.number.wrapping_add(1);
        self.unanswered.push_back(Sent { number: self.number, at: now, end: self.appended });
        self.number
    }

    /// Notes the answer to a heartbeat, and to all before it. Returns the round trip; `None` for an unknown number.
    pub(super) fn heartbeat_answered(&mut self, now: Instant, number: u32) -> Option<Duration> {
        let at = self.unanswered.iter().position(|sent| sent.number == number)?;
        let sent = self.unanswered.drain(..=at).next_back()?;
        let took = now.since(sent.at);
        self.processed = sent.end;
        self.answered_at = now;
        self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        Some(took)
    }

    /// Whether a heartbeat must follow what was appended.
    pub(in crate::node) fn needs_heartbeat(&self) -> bool {
        let last = self.unanswered.back().map_or(self.processed, |sent| sent.end);
        self.appended - last >= HEARTBEAT_BYTES
    }

    /// Whether the peer processes what is appended, but too late.
    pub(in crate::node) fn is_late(&self, now: Instant) -> bool {
        let is_little = self.appended - self.processed <= UNPROCESSED_MIN;
        let Some(oldest) = self.unanswered.front().filter(|_| !is_little) else { return false };
        let late = oldest.at.after(self.shortest.unwrap_or_default() + LATE_AFTER);
        late <= now && self.stalls_at().is_some_and(|stalls_at| now < stalls_at)
    }

    /// When it counts as one that processes nothing, without a further answer.
    pub(in crate::node) fn stalls_at(&self) -> Option<Instant> {
        let oldest = self.unanswered.front()?;
        Some(oldest.at.max(self.answered_at).after(STALLED_AFTER))
    }
}

#[cfg(test)]
mod tests {
    use super::{HEARTBEAT_BYTES, Stream, UNANSWERED_MAX, UNPROCESSED_MIN};
    use crate::base::time::Instant;
    use std::time::Duration;

    const fn ms(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    /// A stream with a round trip of `round_trip` ms to which a KiB was appended in each of 100 ms.
    fn filled(round_trip: u64) -> Stream {
        let mut stream = Stream::default();
        let number = stream.heartbeat_sent(ms(0));
        assert_eq!(
            stream.heartbeat_answered(ms(round_trip), number),
            Some(Duration::from_millis(round_trip))
        );
        for at in 1_000..1_100 {
            stream.append(1_024);
            if stream.needs_heartbeat() {
                stream.heartbeat_sent(ms(at));
            }
        }
        stream
    }

    #[test]
    fn peer_is_late_until_it_has_processed_most_of_the_stream() {
        let mut stream = filled(1);
        let beats = 100 * 1_024 / HEARTBEAT_BYTES;
        assert_eq!(stream.unanswered.len() as u64, beats);
        assert!(!stream.is_late(ms(1_010)), "nothing is late yet");
        assert!(stream.is_late(ms(1_099)));
        assert_eq!(stream.stalls_at(), Some(ms(1_007 + 200)));
        // All but the last 24 KiB are processed.
        let answered = u32::try_from(beats - UNPROCESSED_MIN / HEARTBEAT_BYTES + 1).unwrap();
        assert!(stream.heartbeat_answered(ms(1_100), 1 + answered).is_some());
        assert!(!stream.is_late(ms(1_150)));
        assert!(stream.heartbeat_answered(ms(1_101), 1 + answered).is_none(), "answered twice");
    }

    #[test]
    fn peer_that_processes_nothing_is_not_late_for_long() {
        assert!(filled(1).is_late(ms(1_206)));
        assert!(!filled(1).is_late(ms(1_207)));
    }

    #[test]
    fn long_line_is_not_late() {
        assert!(!filled(95).is_late(ms(1_099)));
        assert!(filled(80).is_late(ms(1_099)));
    }

    #[test]
    fn heartbeats_that_are_never_answered_take_bounded_memory() {
        let mut stream = Stream::default();
        let numbers: Vec<u32> =
            (0..2 * UNANSWERED_MAX as u64).map(|at| stream.heartbeat_sent(ms(at))).collect();
        assert_eq!(stream.unanswered.len(), UNANSWERED_MAX);
        assert!(stream.heartbeat_answered(ms(9_999), numbers[0]).is_none());
        assert!(stream.heartbeat_answered(ms(9_999), *numbers.last().unwrap()).is_some());
    }
}
