//! The pictures of the page as SVG: the mesh, charts over time, memory by size class. Writing to a vector cannot fail.

use crate::base::human;
use crate::node::command::status::PeerView;
use crate::node::history::Sample;
use crate::store::ClassMemory;
use std::f64::consts::PI;
use std::fmt::{self, Display};
use std::io::Write;
use std::time::Duration;

/// The most peers that are drawn with labels; if there are more, all are drawn without.
const NAMED_PEERS_MAX: usize = 14;

/// Width and height of the picture of the mesh.
const MESH: (f64, f64) = (760.0, 470.0);

/// The left, right, top and bottom edge of the area of a chart.
const CHART: (f64, f64, f64, f64) = (16.0, 584.0, 24.0, 184.0);

/// The position of a peer in the picture of the mesh.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Its index among the peers.
    pub(super) at: usize,
    /// The number of peers.
    pub(super) of: usize,
}

impl Place {
    /// The point of this node: the middle, or lower if there are two peers.
    pub(super) fn own(peers: usize) -> (f64, f64) {
        (MESH.0 / 2.0, if peers == 2 { 330.0 } else { MESH.1 / 2.0 })
    }

    fn is_named(self) -> bool {
        self.of <= NAMED_PEERS_MAX
    }

    /// The point of the peer: on an ellipse, or in alternation on three if there are many peers.
    fn point(self) -> (f64, f64) {
        let (x, y) = Self::own(self.of);
        let ring = if self.is_named() { 1.0 } else { [1.0, 0.72, 0.86][self.at % 3] };
        let (angle, height) = match (self.of, self.at) {
            (2, 0) => (-5.0 * PI / 6.0, 440.0),
            (2, _) => (-PI / 6.0, 440.0),
            _ => (
                PI * (2.0 * self.at as f64 / self.of.max(1) as f64 - 0.5),
                if self.is_named() { 165.0 } else { 195.0 },
            ),
        };
        (x + 285.0 * ring * libm::cos(angle), y + height * ring * libm::sin(angle))
    }
}

/// Draws a peer: its link into `links`, its circle into `nodes`, which is drawn above the links.
pub(super) fn put_peer(peer: &PeerView, place: Place, links: &mut Vec<u8>, nodes: &mut Vec<u8>) {
    let ((own_x, own_y), (x, y)) = (Place::own(place.of), place.point());
    let is_named = place.is_named();
    let style = match (peer.is_linked, peer.is_filter_known() && peer.probes_left == 0) {
        (false, _) => " away",
        (true, true) => "",
        (true, false) => " warn",
    };
    let (least, rise, most) = if is_named { (13.0, 2.2, 13.0) } else { (6.0, 1.0, 5.0) };
    let claimed = peer.claimed_keys.unwrap_or_default();
    let radius = least + (rise * libm::log10(1.0 + claimed)).min(most);
    let (addr, note) = (peer.addr, if peer.is_linked { "" } else { ": not linked" });
    if peer.is_linked {
        let _ = writeln!(
            links,
            "<line class=\"link{style}\" x1=\"{own_x:.0}\" y1=\"{own_y:.0}\" x2=\"{x:.0}\" y2=\"{y:.0}\"/>"
        );
    }
    let _ = writeln!(
        nodes,
        "<circle class=\"node{style}\" cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"{radius:.1}\"><title>{addr}{note}</title></circle>"
    );
    if !is_named {
        return;
    }
    // The label is on the side away from the link.
    let first = if y < own_y { y - radius - 28.0 } else { y + radius + 20.0 };
    put_text(nodes, "", (x, first), addr);
    let second = (x, first + 17.0);
    match (peer.is_linked, peer.failures, peer.claimed_keys) {
        (false, 0, _) => put_text(nodes, "soft", second, "not linked"),
        (false, tries, _) => put_text(nodes, "soft", second, format_args!("unreachable, tries: {tries}")),
        (true, _, None) => put_text(nodes, "soft", second, "filter unknown"),
        (true, _, Some(keys)) => {
            let wrong = peer.measured_rate.map(|rate| format!(" · {} false", human::percent(rate, 2)));
            let (keys, wrong) = (human::count(keys), wrong.unwrap_or_default());
            put_text(nodes, "soft", second, format_args!("≈ {keys} keys{wrong}"));
        }
    }
    if let Some(took) = peer.round_trip.filter(|_| peer.is_linked) {
        let middle = (own_x + 0.55 * (x - own_x), own_y + 0.55 * (y - own_y) + 4.0);
        put_text(nodes, "soft", middle, micros(took));
    }
}

/// Draws this node with the number of its keys.
pub(super) fn put_own(peers: usize, keys: u64, nodes: &mut Vec<u8>) {
    let (x, y) = Place::own(peers);
    let _ = writeln!(nodes, "<circle class=\"own\" cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"40\"/>");
    put_text(nodes, "own-text", (x, y + 1.0), human::count(keys as f64));
    put_text(nodes, "own-text small", (x, y + 17.0), "keys here");
}

/// Appends a text to the picture of the mesh.
pub(super) fn put_text(out: &mut Vec<u8>, style: &str, (x, y): (f64, f64), text: impl Display) {
    let _ = writeln!(out, "<text class=\"{style}\" x=\"{x:.0}\" y=\"{y:.0}\">{text}</text>");
}

/// A line of a chart: its style, and the function that returns its value in a sample, if there is one.
pub(super) type Line = (&'static str, fn(&Sample) -> Option<f64>);

/// A chart of samples.
pub(super) struct Chart<'s> {
    pub(super) samples: &'s [&'s Sample],
    /// The time in seconds, from the same origin as the numbers of the samples.
    pub(super) now: u64,
    /// Seconds per sample.
    pub(super) each: u64,
    /// The most seconds that are shown.
    pub(super) span: u64,
    pub(super) title: &'static str,
    pub(super) lines: &'s [Line],
    /// Formats a value.
    pub(super) form: fn(f64) -> String,
    /// The value at the top; `None`: the highest one.
    pub(super) max: Option<f64>,
    pub(super) is_logarithmic: bool,
}

impl Chart<'_> {
    fn age(&self, sample: &Sample) -> u64 {
        self.now.saturating_sub((sample.number + 1) * self.each)
    }
}

impl Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (left, right, upper, lower) = CHART;
        let values = || self.samples.iter().flat_map(|s| self.lines.iter().filter_map(|(_, read)| read(s)));
        let highest = values().fold(0.0, f64::max);
        let top = self.max.unwrap_or(highest.max(if self.is_logarithmic { 10.0 } else { 1e-9 }));
        let low = if self.is_logarithmic { values().fold(top, f64::min).max(0.5) } else { 0.0 };
        let scale = |value: f64| {
            if self.is_logarithmic {
                libm::log(value.max(low) / low) / libm::log(top / low).max(0.1)
            } else {
                value / top
            }
        };
        let oldest = self.samples.first().map_or(0, |sample| self.age(sample) + self.each);
        let shown = oldest.clamp(600, self.span);
        let x = |age: u64| right - (right - left) * (age as f64 / shown as f64).min(1.0);
        let y = |value: f64| lower - (lower - upper) * scale(value).min(1.0);
        let form = self.form;
        let last = self.samples.last().and_then(|sample| self.lines.first()?.1(sample));
        match last {
            Some(last) => write!(
                f,
                "<svg viewBox=\"0 0 600 220\" role=\"img\" aria-label=\"{}: up to {}, lately {}\">",
                self.title,
                form(highest),
                form(last)
            )?,
            None => write!(
                f,
                "<svg viewBox=\"0 0 600 220\" role=\"img\" aria-label=\"{}: nothing happened\">",
                self.title
            )?,
        }
        for edge in [upper, lower] {
            write!(f, "<line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{edge}\" y2=\"{edge}\"/>")?;
        }
        for (style, read) in self.lines {
            write!(f, "<path class=\"curve {style}\" d=\"")?;
            let mut before = None;
            for sample in self.samples {
                let Some(value) = read(sample) else { continue };
                // A gap in time is a gap in the line: nothing happened.
                let goes_on = before.is_some_and(|before| sample.number <= before + 1);
                let (pen, end) = if goes_on { ("L", "") } else { ("M", "h2") };
                write!(f, "{pen}{:.0},{:.0}{end}", x(self.age(sample)), y(value))?;
                before = Some(sample.number);
            }
            f.write_str("\"/>")?;
        }
        let top_text = if last.is_some() { form(top) } else { "nothing happened".to_owned() };
        write!(f, "<text x=\"{left}\" y=\"18\">{top_text}</text>")?;
        write!(f, "<text x=\"{left}\" y=\"210\">−{}</text>", ago(shown))?;
        write!(f, "<text class=\"end\" x=\"{right}\" y=\"210\">now</text>")?;
        if self.is_logarithmic && last.is_some() {
            write!(f, "<text class=\"end\" x=\"{right}\" y=\"178\">{}</text>", form(low))?;
        }
        f.write_str("</svg>\n")
    }
}

fn ago(seconds: u64) -> String {
    if seconds <= 3_600 { format!("{} min", seconds / 60) } else { format!("{} h", seconds / 3_600) }
}

/// A small line of the last values, without axes; empty for fewer than two values.
pub(super) struct Spark<'v> {
    pub(super) values: &'v [f64],
    /// The value at the top; `None`: the highest one.
    pub(super) max: Option<f64>,
}

impl Display for Spark<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<svg viewBox=\"0 0 100 30\" preserveAspectRatio=\"none\" aria-hidden=\"true\">")?;
        let top = self.max.unwrap_or_else(|| self.values.iter().copied().fold(1e-9, f64::max));
        if let [_, _, ..] = self.values {
            let step = 100.0 / (self.values.len() - 1) as f64;
            let points = || {
                let points = self.values.iter().enumerate();
                points.map(|(at, value)| format!(" {:.1},{:.1}", at as f64 * step, 29.0 - 27.0 * value / top))
            };
            let points: String = points().collect();
            write!(f, "<polygon class=\"area\" points=\"0,30{points} 100,30\"/>")?;
            write!(f, "<polyline class=\"spark\" points=\"{points}\"/>")?;
        }
        f.write_str("</svg>")
    }
}

/// A chart of the bytes of pages and of slots in use, by size of slots.
pub(super) struct Classes<'c>(pub(super) &'c [ClassMemory]);

impl Display for Classes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "<svg viewBox=\"0 0 520 150\" role=\"img\" aria-label=\"Bytes of pages, and of slots in use, by size of \
             slots\">",
        )?;
        let top = self.0.iter().map(|class| class.held).max().unwrap_or_default().max(1) as f64;
        let width = 504.0 / self.0.len().max(12) as f64;
        let every = self.0.len().div_ceil(12).max(1);
        for (at, ClassMemory { slot_bytes, held, live }) in self.0.iter().enumerate() {
            let x = 8.0 + at as f64 * width;
            let bar = |bytes: u64| {
                let height = 108.0 * bytes as f64 / top;
                let (y, width) = (120.0 - height, (width - 2.0).max(1.0));
                format!("x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\"")
            };
            let [size, used, all] = [*slot_bytes, *live, *held].map(|number| human::bytes(number as f64));
            write!(
                f,
                "<rect class=\"held\" {}><title>slots of {size}: {used} of {all} in use</title></rect>",
                bar(*held)
            )?;
            write!(f, "<rect class=\"used\" {}/>", bar(*live))?;
            if at % every == 0 && *slot_bytes < 1_024 {
                write!(f, "<text x=\"{x:.1}\" y=\"134\">{slot_bytes}</text>")?;
            } else if at % every == 0 {
                write!(f, "<text x=\"{x:.1}\" y=\"134\">{}K</text>", slot_bytes / 1_024)?;
            }
        }
        f.write_str("</svg>\n")
    }
}

/// A time as text, in microseconds, milliseconds or seconds.
pub(super) fn micros(time: Duration) -> String {
    human::micros(1e6 * time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::{Chart, Place};
    use crate::node::history::Sample;

    #[test]
    fn no_two_peers_are_drawn_at_one_point_and_all_inside_the_picture() {
        for of in (1..=20).chain([100, 160]) {
            let points: Vec<(f64, f64)> = (0..of).map(|at| Place { at, of }.point()).collect();
            for (at, (x, y)) in points.iter().enumerate() {
                assert!((30.0..730.0).contains(x) && (20.0..450.0).contains(y), "{at} of {of}: {x}, {y}");
                let is_far = |(a, b): &(f64, f64)| libm::hypot(a - x, b - y) > 6.0;
                assert!(points[..at].iter().all(is_far), "{at} of {of}");
            }
        }
    }

    #[test]
    fn time_without_samples_is_a_gap_in_the_line() {
        let sample = |number, memory| {
            let mut sample = Sample::default();
            (sample.number, sample.memory) = (number, memory);
            sample
        };
        let samples = [sample(10, 5), sample(11, 10), sample(20, 10)];
        let samples: Vec<&Sample> = samples.iter().collect();
        let chart = Chart {
            samples: &samples,
            now: 210,
            each: 10,
            span: 3_600,
            title: "Memory",
            lines: &[("p50", |sample| Some(sample.memory as f64))],
            form: |value| format!("{value} B"),
            max: None,
            is_logarithmic: false,
        };
        let text = chart.to_string();
        assert!(text.contains(" d=\"M489,104h2L499,24M584,24h2\""), "{text}");
        assert!(text.contains("aria-label=\"Memory: up to 10 B, lately 10 B\""), "{text}");
        let text = Chart { samples: &[], ..chart }.to_string();
        assert!(text.contains("aria-label=\"Memory: nothing happened\""), "{text}");
    }
}
