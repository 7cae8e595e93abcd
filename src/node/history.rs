//! The history of requests of the last minute, hour and day: samples of 10 s, and of 4 minutes for the day.
//!
//! Filled lazily: a sample ends with the first call of the node after its time, and empty samples are not stored. So
//! an idle node does not wake up for it.

use crate::base::histogram::Histogram;
use crate::base::time::Instant;
use std::collections::VecDeque;

/// Seconds of a sample.
pub(in crate::node) const SAMPLE_SECONDS: u64 = 10;

/// Samples merged into one sample of the day.
const MERGED: u64 = 24;

/// Samples kept of the last hour, and merged ones of the last day.
const SAMPLES_MAX: u64 = 360;

/// Counters at one time, or their increase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::node) struct Counters {
    pub(in crate::node) requests: u64,
    pub(in crate::node) hits: u64,
    pub(in crate::node) misses: u64,
}

impl Counters {
    /// The increase since `earlier`; 0 if CONFIG RESETSTAT came in between.
    fn since(self, earlier: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            hits: self.hits.saturating_sub(earlier.hits),
            misses: self.misses.saturating_sub(earlier.misses),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
        }
    }
}

/// The requests of one period.
#[derive(Debug, Clone, Default)]
pub(in crate::node) struct Sample {
    /// Its number: the time divided by the length of samples.
    pub(in crate::node) number: u64,
    pub(in crate::node) rise: Counters,
    /// Bytes of memory at its end.
    pub(in crate::node) memory: u64,
    /// Quantiles 0.5, 0.99 and 0.999 of the latency, in microseconds.
    pub(in crate::node) quantiles: [u32; 3],
    /// The non-empty buckets of the latency: some 200 bytes.
    times: Vec<(u8, u32)>,
}

impl Sample {
    /// The latency as a histogram.
    pub(in crate::node) fn latency(&self) -> Histogram {
        let mut all = Histogram::default();
        self.add_to(&mut all);
        all
    }

    fn set_times(&mut self, times: Vec<(u8, u32)>) {
        self.times = times;
        let latency = self.latency();
        let micros = |share| u32::try_from(latency.quantile(share).as_micros()).unwrap_or(u32::MAX);
        self.quantiles = [0.5, 0.99, 0.999].map(micros);
    }

    fn add_to(&self, all: &mut Histogram) {
        self.times.iter().for_each(|(bucket, count)| all.add_to_bucket(*bucket, *count));
    }
}

/// A span of time that is summarised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Span {
    Minute,
    Hour,
    Day,
}

impl Span {
    pub(in crate::node) const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Its name in metrics.
    pub(in crate::node) const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Its length, and that of its samples, in seconds.
    pub(in crate::node) const fn seconds(self) -> (u64, u64) {
        match self {
            Self::Minute => (60, SAMPLE_SECONDS),
            Self::Hour => (SAMPLES_MAX * SAMPLE_SECONDS, SAMPLE_SECONDS),
            Self::Day => (SAMPLES_MAX * SAMPLE_SECONDS * MERGED, SAMPLE_SECONDS * MERGED),
        }
    }
}

/// The requests within a span until now.
#[derive(Debug, Clone)]
pub(in crate::node) struct Summary {
    pub(in crate::node) rise: Counters,
    /// Seconds that it covers: fewer than the span if the node started later.
    pub(in crate::node) seconds: f64,
    pub(in crate::node) latency: Histogram,
}

/// The samples of a node.
#[derive(Debug)]
pub(in crate::node) struct History {
    /// Of the last hour, the oldest first.
    samples: VecDeque<Sample>,
    /// Of the last day, merged.
    merged: VecDeque<Sample>,
    started: Instant,
    /// The number of the current sample, and the counters at its beginning.
    number: u64,
    counters: Counters,
    times: Histogram,
}

impl History {
    pub(in crate::node) fn new(now: Instant) -> Self {
        Self {
            samples: VecDeque::new(),
            merged: VecDeque::new(),
            started: now,
            number: number(now),
            counters: Counters::default(),
            times: Histogram::default(),
        }
    }

    /// Whether the time of the current sample is over.
    #[inline]
    pub(in crate::node) fn is_due(&self, now: Instant) -> bool {
        number(now) != self.number
    }

    /// Ends the current sample.
    pub(in crate::node) fn roll(&mut self, now: Instant, counters: Counters, times: Histogram, memory: u64) {
        let sample = Sample { memory, ..self.current(counters, &times) };
        self.number = number(now);
        if sample.rise != Counters::default() || !sample.times.is_empty() {
            merge(&mut self.merged, &sample);
            self.samples.push_back(sample);
        }
        (self.counters, self.times) = (counters, times);
        let oldest = self.number.saturating_sub(SAMPLES_MAX);
        drop_before(&mut self.samples, oldest);
        drop_before(&mut self.merged, (self.number / MERGED).saturating_sub(SAMPLES_MAX));
    }

    /// Bytes of memory of the samples. O(samples).
    pub(in crate::node) fn memory_bytes(&self) -> u64 {
        let slots = (self.samples.capacity() + self.merged.capacity()) * size_of::<Sample>();
        let times = self.samples.iter().chain(&self.merged);
        let times: usize = times.map(|sample| sample.times.capacity()).sum();
        (slots + times * size_of::<(u8, u32)>()) as u64
    }

    fn current(&self, counters: Counters, times: &Histogram) -> Sample {
        let rise = counters.since(self.counters);
        let mut sample = Sample { number: self.number, rise, ..Sample::default() };
        sample.set_times(times.added_since(&self.times).collect());
        sample
    }

    /// Summarises a span until now: the stored samples and the current one.
    pub(in crate::node) fn summary(
        &self,
        now: Instant,
        span: Span,
        counters: Counters,
        times: &Histogram,
    ) -> Summary {
        let (length, each) = span.seconds();
        let first = (seconds(now) / each).saturating_sub(length / each);
        let current = self.current(counters, times);
        let mut summary = Summary {
            rise: current.rise,
            seconds: now.since(self.started).as_secs_f64().clamp(1.0, (length + seconds(now) % each) as f64),
            latency: current.latency(),
        };
        for sample in self.samples(span).iter().filter(|sample| sample.number >= first) {
            summary.rise = summary.rise.plus(sample.rise);
            sample.add_to(&mut summary.latency);
        }
        summary
    }

    /// The stored samples of a span, the oldest first.
    pub(in crate::node) fn samples(&self, span: Span) -> &VecDeque<Sample> {
        match span {
            Span::Minute | Span::Hour => &self.samples,
            Span::Day => &self.merged,
        }
    }
}

fn seconds(now: Instant) -> u64 {
    now.millis() / 1_000
}

fn number(now: Instant) -> u64 {
    seconds(now) / SAMPLE_SECONDS
}

/// Adds a sample to those of the day.
fn merge(merged: &mut VecDeque<Sample>, sample: &Sample) {
    let number = sample.number / MERGED;
    match merged.back_mut().filter(|last| last.number == number) {
        None => merged.push_back(Sample { number, ..sample.clone() }),
        Some(last) => {
            last.rise = last.rise.plus(sample.rise);
            last.memory = sample.memory;
            let mut times = last.latency();
            sample.add_to(&mut times);
            last.set_times(times.added_since(&Histogram::default()).collect());
        }
    }
}

fn drop_before(samples: &mut VecDeque<Sample>, oldest: u64) {
    while samples.front().is_some_and(|sample| sample.number < oldest) {
        samples.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::{Counters, History, Span};
    use crate::base::histogram::Histogram;
    use crate::base::time::Instant;
    use std::time::Duration;

    /// A node that answers a given number of requests per second, each in 1 ms.
    struct Load {
        history: History,
        counters: Counters,
        times: Histogram,
    }

    impl Load {
        fn serve(&mut self, second: u64, requests: u32) {
            let now = Instant::from_millis(second * 1_000);
            if self.history.is_due(now) {
                self.history.roll(now, self.counters, self.times.clone(), 1_000 * second);
            }
            self.counters.requests += u64::from(requests);
            self.times.add(1_000_000, requests);
        }

        fn requests(&self, second: u64, span: Span) -> u64 {
            let now = Instant::from_millis(second * 1_000);
            self.history.summary(now, span, self.counters, &self.times).rise.requests
        }
    }

    #[test]
    fn spans_hold_what_happened_in_them_and_memory_is_bounded() {
        let begin = 1_234_000;
        let mut load = Load {
            history: History::new(Instant::from_millis(begin * 1_000)),
            counters: Counters::default(),
            times: Histogram::default(),
        };
        let end = begin + 2 * 86_400;
        (begin..end).for_each(|second| load.serve(second, 2));
        for (span, seconds) in
            [(Span::Minute, 60..=70), (Span::Hour, 3_600..=3_610), (Span::Day, 86_400..=86_640)]
        {
            let requests = load.requests(end - 1, span);
            assert!(seconds.contains(&(requests / 2)), "{requests} in a {}", span.name());
        }
        let minute = load.history.summary(
            Instant::from_millis((end - 1) * 1_000),
            Span::Minute,
            load.counters,
            &load.times,
        );
        assert!((requests_per_second(&minute) - 2.0).abs() < 0.2);
        assert!(minute.latency.quantile(0.99) < Duration::from_micros(1_130));
        assert!(load.history.memory_bytes() < 256 * 1_024, "{}", load.history.memory_bytes());
        assert!(load.history.samples.len() <= 361 && load.history.merged.len() <= 361);
        assert_eq!(load.history.merged[100].memory % 240_000, 0, "memory at the end of a sample");
    }

    fn requests_per_second(summary: &super::Summary) -> f64 {
        summary.rise.requests as f64 / summary.seconds
    }

    #[test]
    fn burst_after_a_pause_is_not_counted_before_it() {
        let begin = 1_234_000;
        let mut load = Load {
            history: History::new(Instant::from_millis(begin * 1_000)),
            counters: Counters::default(),
            times: Histogram::default(),
        };
        load.serve(begin, 5);
        let later = begin + 7_200;
        load.serve(later, 7);
        assert_eq!(load.requests(later, Span::Minute), 7);
        assert_eq!(load.requests(later, Span::Hour), 7);
        assert_eq!(load.requests(later, Span::Day), 12);
        assert_eq!(load.history.samples(Span::Day).len(), 1, "samples without requests are not kept");
    }
}
