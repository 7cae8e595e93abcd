//! The goals of Olivia, as bounds of figures or of ratios to other servers, and whether they are reached.

use super::figures::{Figures, best, ratios};
use Beside::{Best, Echo, Nothing, Own};
use Bound::{AtLeast, AtMost};
use std::fmt::Write;

/// The divisor of a figure of Olivia.
#[derive(Clone, Copy)]
enum Beside {
    /// The best of the peers.
    Best,
    Echo,
    /// Another figure of the same row.
    Own(&'static str),
    /// None: the bound is of the figure itself.
    Nothing,
}

/// A bound of the ratio, or of the figure itself.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

const RATE: &str = "requests_per_second";
const CPU: &str = "server_ns";

/// Row, figure, divisor and bound.
const GOALS: [(&str, &str, Beside, Bound); 43] = [
    ("GET 1", RATE, Best, AtLeast(1.05)),
    ("GET 16", RATE, Best, AtLeast(1.7)),
    ("GET 64", RATE, Best, AtLeast(2.5)),
    ("GET 1", RATE, Echo, AtLeast(0.93)),
    ("GET 16", RATE, Echo, AtLeast(0.65)),
    ("GET 64", RATE, Echo, AtLeast(0.4)),
    ("SET 1", RATE, Best, AtLeast(1.05)),
    ("SET 16", RATE, Best, AtLeast(1.6)),
    ("SET 64", RATE, Best, AtLeast(2.0)),
    ("90 % GET 16, Zipf", RATE, Best, AtLeast(1.7)),
    ("GET 1", CPU, Best, AtMost(1.0 / 1.05)),
    ("GET 16", CPU, Best, AtMost(1.0 / 1.7)),
    ("GET 64", CPU, Best, AtMost(1.0 / 2.5)),
    ("SET 1", CPU, Best, AtMost(1.0 / 1.05)),
    ("SET 16", CPU, Best, AtMost(1.0 / 1.6)),
    ("SET 64", CPU, Best, AtMost(1.0 / 2.0)),
    ("90 % GET 16, Zipf", CPU, Best, AtMost(1.0 / 1.7)),
    ("open loop, own rate", "p99_us", Best, AtMost(0.9)),
    ("open loop, own rate", "p999_us", Best, AtMost(0.9)),
    ("open loop, same rate", "p99_us", Best, AtMost(0.9)),
    ("open loop, same rate", "p999_us", Best, AtMost(0.9)),
    ("ping-pong", "p50_us", Best, AtMost(0.97)),
    ("ping-pong", "p99_us", Best, AtMost(0.97)),
    ("ping-pong", "p999_us", Best, AtMost(0.97)),
    ("ping-pong", "p50_us", Echo, AtMost(1.05)),
    ("ping-pong", "p99_us", Echo, AtMost(1.05)),
    ("ping-pong", "p999_us", Echo, AtMost(1.05)),
    ("10,000 idle connections", "silent_bytes", Nothing, AtMost(450.0)),
    ("10,000 idle connections", "after_get_bytes", Nothing, AtMost(700.0)),
    ("10,000 idle connections", "beside_p99_us", Own("alone_p99_us"), AtMost(1.1)),
    ("GET 1, 1,000 connections", RATE, Best, AtLeast(1.1)),
    ("GET 1, 10,000 connections", RATE, Best, AtLeast(1.1)),
    ("GET, 1 KiB", "bytes_per_second", Best, AtLeast(1.0)),
    ("SET, 1 KiB", "bytes_per_second", Best, AtLeast(1.0)),
    ("GET, 16 KiB", "bytes_per_second", Best, AtLeast(1.0)),
    ("SET, 16 KiB", "bytes_per_second", Best, AtLeast(1.0)),
    ("GET, 256 KiB", "bytes_per_second", Best, AtLeast(1.0)),
    ("SET, 256 KiB", "bytes_per_second", Best, AtLeast(1.0)),
    ("GET, 8 MiB", "bytes_per_second", Best, AtLeast(1.0)),
    ("SET, 8 MiB", "bytes_per_second", Best, AtLeast(1.0)),
    ("idle", "cpu_ms_per_10_s", Nothing, AtMost(0.0)),
    ("idle", "resident_mib", Nothing, AtMost(3.8)),
    ("start", "start_ms", Best, AtMost(1.0)),
];

/// Returns a table of all goals whose figures were measured; empty without any.
pub(crate) fn table(figures: &Figures) -> String {
    let mut out = String::new();
    for (row, figure, beside, bound) in GOALS {
        let own = figures.rounds(row, "olivia", figure);
        let ones = vec![1.0; own.len()];
        let (name, other) = match beside {
            Best => {
                let best = best(figures, row, figure, matches!(bound, AtLeast(_)));
                (
                    "the best peer",
                    best.map_or(&[][..], |(_, system)| figures.rounds(row, system.name(), figure)),
                )
            }
            Echo => ("echo", figures.rounds(row, "echo", figure)),
            Own(other) => ("alone", figures.rounds(row, "olivia", other)),
            Nothing => ("", ones.as_slice()),
        };
        let Some([low, value, high]) = ratios(own, other) else { continue };
        let (is_reached, goal) = match bound {
            AtLeast(bound) => (value >= bound, format!("≥ {bound:.2}")),
            AtMost(bound) => (value <= bound, format!("≤ {bound:.2}")),
        };
        if out.is_empty() {
            out.push_str(
                "| row | figure | as a multiple of | goal | measured | middle half of rounds | |\n|---|---|---|---|---|---|---|\n",
            );
        }
        let verdict = if is_reached { "reached" } else { "missed" };
        let half = if own.len() > 3 { format!("{low:.2} to {high:.2}") } else { String::new() };
        let figure = figure.replace('_', " ");
        let _ = writeln!(out, "| {row} | {figure} | {name} | {goal} | {value:.2} | {half} | {verdict} |");
    }
    out
}
