//! The report of a run, as text and as JSON.

use super::drive::{Moment, Plan, RunResult};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

/// The shares of requests whose times are shown, with their names.
const SHARES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// Progress on standard error: one line per second.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    /// Requests and time of the last line.
    last: (u64, Duration),
}

impl Progress {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, last: (0, Duration::ZERO) }
    }

    pub(super) fn observe(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        if let Moment::Progress(result) = moment {
            let (count, took) = (result.times.count(), result.took);
            let rate = (count - self.last.0) as f64 / (took - self.last.1).as_secs_f64();
            self.last = (count, took);
            let (what, seconds) = (self.what, took.as_secs_f64());
            let p99 = micros(result.quantile(0.99));
            // The measurement does not depend on this output.
            let _ = writeln!(io::stderr(), "{what}: {seconds:.0} s, {rate:.0} requests/s, p99 {p99:.0} us");
        }
        Ok(())
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The report as text.
pub(super) fn text(plan: &Plan, result: &RunResult) -> Vec<String> {
    let replies = result.times.count();
    let mut lines = vec![format!(
        "{replies} replies in {:.3} s, each verified: {:.0} requests/s, {:.1} MB/s of values",
        result.took.as_secs_f64(),
        result.per_second(),
        result.value_bytes as f64 / result.took.as_secs_f64() / 1e6
    )];
    let from = if plan.rate.is_some() { "from when each was due" } else { "from when each was sent" };
    let mut times = format!("latency in us, {from}:");
    for (name, share) in SHARES {
        let _ = write!(times, "  {name} {:.0}", micros(result.quantile(share)));
    }
    lines.push(times);
    if result.misses > 0 {
        let hint = if plan.is_filled { "" } else { "; --fill sets every key first" };
        lines.push(format!("{} GETs found nothing{hint}", result.misses));
    }
    lines.push(format!("the generator was busy {:.0} % of the time", 100.0 * result.busy));
    if let Some(why) = result.bottleneck() {
        lines.push(format!("the generator may be the bottleneck, not the server: {why}"));
    }
    lines
}

/// The report as JSON: one object on one line.
pub(super) fn json(plan: &Plan, result: &RunResult) -> String {
    let mut text = format!(
        "{{\"replies\":{},\"seconds\":{:.6},\"requests_per_second\":{:.1},\"value_bytes_per_second\":{:.0},\"misses\":{}",
        result.times.count(),
        result.took.as_secs_f64(),
        result.per_second(),
        result.value_bytes as f64 / result.took.as_secs_f64(),
        result.misses
    );
    for (name, share) in SHARES {
        let _ = write!(text, ",\"{name}_us\":{:.3}", micros(result.quantile(share)));
    }
    if let Some(rate) = plan.rate {
        let late = micros(result.late.quantile(0.99));
        let _ = write!(text, ",\"rate\":{rate},\"sent_late_p99_us\":{late:.3}");
    }
    let _ = write!(
        text,
        ",\"connections\":{},\"pipeline\":{},\"generator_busy\":{:.3},\"generator_is_bottleneck\":{}}}",
        plan.connections,
        plan.pipeline,
        result.busy,
        result.bottleneck().is_some()
    );
    text
}
