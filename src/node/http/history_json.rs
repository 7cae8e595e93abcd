//! `/history.json`: the samples of the last hour and day, the oldest first, without those in which nothing happened.
//!
//! Per sample: seconds since its end, requests, hits, misses, the quantiles 50, 99 and 99.9 % of latency in
//! microseconds, and bytes of memory at its end.

use crate::base::time::Now;
use crate::node::history::{Sample, Span};
use crate::node::http::draft::Draft;
use crate::node::state::State;
use std::io::Write;

/// Writes the document. Writing to a vector does not fail. O(samples): at most 720, about 100 µs.
pub(super) fn put(state: &State, now: Now, draft: &mut Draft) {
    let text = &mut draft.text;
    text.push(b'{');
    for (at, span) in [Span::Hour, Span::Day].into_iter().enumerate() {
        let (length, each) = span.seconds();
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(
            text,
            "{comma}\"{}\":{{\"seconds\":{length},\"sample_seconds\":{each},\"samples\":[",
            span.name()
        );
        for (at, sample) in state.history.samples(span).iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let age = (now.mono.millis() / 1_000).saturating_sub((sample.number + 1) * each);
            let Sample { rise, memory, quantiles: [p50, p99, p999], .. } = sample;
            let (requests, hits, misses) = (rise.requests, rise.hits, rise.misses);
            let _ = write!(text, "{comma}\n[{age},{requests},{hits},{misses},{p50},{p99},{p999},{memory}]");
        }
        text.extend_from_slice(b"]}");
    }
    text.extend_from_slice(b"}\n");
}
