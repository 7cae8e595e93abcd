//! A chart as SVG text, whose colours follow the reader's colour scheme.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 76.0;

/// Width of the value above a bar; above a narrower bar the value is upright.
const LABEL_WIDTH: f64 = 26.0;

/// The colour of each system, in every picture: by the first word of the name of its series.
const SYSTEMS: [(&str, &str); 8] = [
    ("olivia", "#2b8cbe"),
    ("redis-server", "#d9573f"),
    ("memcached", "#5a9e5a"),
    ("hashbrown", "#9065b0"),
    ("ICP", "#8a8f98"),
    ("valkey", "#c98a1b"),
    ("pogocache", "#c2559d"),
    ("echo", "#8a8f98"),
];

/// The colours of series of one system that differ in something else, from light to dark.
const SHADES: [&str; 6] = ["#7cc0e8", "#2b8cbe", "#17557a", "#e8b04c", "#c98a1b", "#8a5a0c"];

/// The style of all pictures: classes, with other colours on a dark page.
pub const STYLE: &str = "<style>\
    .page{fill:#fff}.ink{fill:#1f2937}.soft{fill:#6b7280}.grid{stroke:#e5e7eb}.line{stroke:#6b7280}.empty{fill:#eef0f2}\
    @media(prefers-color-scheme:dark){.page{fill:#0d1117}.ink{fill:#e6edf3}.soft{fill:#9aa4b2}.grid{stroke:#30363d}\
    .line{stroke:#9aa4b2}.empty{fill:#21262d}}</style>\n";

/// The kind of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A group of bars per label; the y axis begins at 0.
    Bars,
    /// A group of points per label, for a y axis by powers of ten, on which the length of a bar has no meaning.
    Points,
    /// A line per series over a numeric x.
    Lines,
}

/// The spacing of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By powers of ten.
    Log,
    /// Percentages by their nines: 90, 99 and 99.9 are equally far apart.
    Nines,
}

/// A chart: its data and texts.
#[derive(Debug)]
pub struct Chart {
    /// The title above the picture.
    pub title: String,
    /// The label below the x axis.
    pub x: String,
    /// The label beside the y axis.
    pub y: String,
    /// The command that measured it, shown below the picture.
    pub command: String,
    /// Bars, points or lines.
    pub kind: Kind,
    /// The spacing of the y axis.
    pub scale: Scale,
    /// The values are microseconds, shown as µs, ms or s.
    pub is_time: bool,
    /// The spacing of the x axis of lines.
    pub x_scale: Scale,
    /// The start of the x axis of lines.
    pub from: f64,
    /// The labels of groups of bars, or the x values.
    pub labels: Vec<String>,
    /// Name and values of each series, one value per label; NaN: no value.
    pub series: Vec<(String, Vec<f64>)>,
}

impl Chart {
    /// Returns the SVG file.
    pub fn draw(&self) -> String {
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             {STYLE}<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" class=\"page\"/>\n"
        );
        text(&mut out, LEFT, 22.0, "start", "font-size=\"15\" font-weight=\"bold\"", &self.title);
        text(&mut out, LEFT, HEIGHT - 10.0, "start", "font-size=\"10\" class=\"soft\"", &self.command);
        text(&mut out, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 34.0, "middle", "", &self.x);
        let middle = f64::midpoint(TOP, HEIGHT - BOTTOM);
        let turned = format!("transform=\"rotate(-90 18 {middle})\"");
        text(&mut out, 18.0, middle, "middle", &turned, &self.y);
        if self.series.len() > 1 {
            self.legend(&mut out);
        }
        self.grid(&mut out);
        match self.kind {
            Kind::Bars | Kind::Points => self.groups(&mut out),
            Kind::Lines => self.lines(&mut out),
        }
        out.push_str("</svg>\n");
        out
    }

    /// Returns the colour of a series: that of its system, or a shade if several series have one system.
    fn colour(&self, index: usize) -> &'static str {
        let system = |name: &str| SYSTEMS.iter().find(|(system, _)| name.starts_with(system));
        match system(&self.series[index].0) {
            Some((_, colour)) => colour,
            None if self.series.len() == 1 => SYSTEMS[0].1,
            None => SHADES[index % SHADES.len()],
        }
    }

    fn legend(&self, out: &mut String) {
        let mut at = LEFT;
        for (index, (name, _)) in self.series.iter().enumerate() {
            let colour = self.colour(index);
            let _ = writeln!(out, "<rect x=\"{at}\" y=\"34\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
            text(out, at + 17.0, 44.0, "start", "", name);
            at += 40.0 + 7.0 * f64::from(u32::try_from(name.len()).unwrap_or(0));
        }
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.series.iter().flat_map(|(_, values)| values.iter().copied()).filter(|value| value.is_finite())
    }

    /// Returns the lowest and the highest value of the y axis, and the step of its lines.
    fn range(&self) -> (f64, f64, f64) {
        let high = self.values().fold(f64::MIN_POSITIVE, f64::max);
        if self.scale == Scale::Log {
            let low = self.values().filter(|value| *value > 0.0).fold(high, f64::min);
            return (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()), 10.0);
        }
        let step = step(high);
        (0.0, (high / step).ceil() * step, step)
    }

    fn y_of(&self, value: f64) -> f64 {
        let (low, high, _) = self.range();
        let part = match self.scale {
            Scale::Linear | Scale::Nines => (value - low) / (high - low),
            Scale::Log => (value.max(low).log10() - low.log10()) / (high.log10() - low.log10()),
        };
        HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - TOP)
    }

    fn grid(&self, out: &mut String) {
        let (low, high, step) = self.range();
        let mut value = low;
        while value <= high * 1.0001 {
            let y = self.y_of(value);
            let right = WIDTH - RIGHT;
            let _ = writeln!(out, "<path d=\"M{LEFT} {y:.1}H{right}\" class=\"grid\"/>");
            text(out, LEFT - 8.0, y + 4.0, "end", "", &self.shown(value));
            value = if self.scale == Scale::Log { value * step } else { value + step };
        }
    }

    fn shown(&self, value: f64) -> String {
        match value {
            v if !self.is_time => short(v),
            v if v >= 1e6 => format!("{} s", trim(v / 1e6)),
            v if v >= 1e3 => format!("{} ms", trim(v / 1e3)),
            v => format!("{} µs", trim(v)),
        }
    }

    fn groups(&self, out: &mut String) {
        let groups = number(self.labels.len());
        let group = (WIDTH - LEFT - RIGHT) / groups;
        let bar = group * 0.8 / number(self.series.len());
        for (at, label) in self.labels.iter().enumerate() {
            let left = LEFT + group * (number(at) + 0.1);
            text(out, left + group * 0.4, HEIGHT - BOTTOM + 18.0, "middle", "", &thousands(label));
            for (index, (_, values)) in self.series.iter().enumerate().filter(|(_, s)| s.1[at].is_finite()) {
                let (x, y) = (left + bar * number(index), self.y_of(values[at]));
                let (colour, height) = (self.colour(index), HEIGHT - BOTTOM - y);
                let _ = match self.kind {
                    Kind::Points => {
                        writeln!(
                            out,
                            "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"6\" fill=\"{colour}\"/>",
                            x + bar * 0.46
                        )
                    }
                    Kind::Bars | Kind::Lines => writeln!(
                        out,
                        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>",
                        bar * 0.92
                    ),
                };
                let above = if self.kind == Kind::Points { 10.0 } else { 4.0 };
                let (x, y, shown) = (x + bar * 0.46, y - above, self.shown(values[at]));
                if bar >= LABEL_WIDTH {
                    text(out, x, y, "middle", "font-size=\"10\"", &shown);
                } else {
                    let (x, y) = (x + 3.0, y.max(TOP + LABEL_WIDTH));
                    let turned = format!("font-size=\"9\" transform=\"rotate(-90 {x:.1} {y:.1})\"");
                    text(out, x, y, "start", &turned, &shown);
                }
            }
        }
    }

    fn lines(&self, out: &mut String) {
        let xs: Vec<f64> = self.labels.iter().map(|label| label.parse().unwrap_or(0.0)).collect();
        let last = xs.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let part = |x: f64| match self.x_scale {
            Scale::Linear | Scale::Log => (x - self.from) / (last - self.from),
            // From 0 % to 99.9 %, three nines.
            Scale::Nines => -(1.0 - x / 100.0).log10() / 3.0,
        };
        let x_of = |x: f64| LEFT + part(x) * (WIDTH - LEFT - RIGHT);
        for x in self.x_ticks(last) {
            text(out, x_of(x), HEIGHT - BOTTOM + 18.0, "middle", "", &short(x));
        }
        for (index, (_, values)) in self.series.iter().enumerate() {
            let mut path = String::new();
            let is_inside = |x: f64| self.x_scale != Scale::Nines || x <= 99.9;
            let points = xs.iter().zip(values).filter(|(x, value)| value.is_finite() && is_inside(**x));
            for (x, value) in points {
                let verb = if path.is_empty() { 'M' } else { 'L' };
                let _ = write!(path, "{verb}{:.1} {:.1}", x_of(*x), self.y_of(*value));
            }
            let colour = self.colour(index);
            let _ =
                writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>");
        }
    }

    fn x_ticks(&self, last: f64) -> Vec<f64> {
        if self.x_scale == Scale::Nines {
            return vec![0.0, 50.0, 90.0, 99.0, 99.9];
        }
        let step = step(last - self.from);
        let first = (self.from / step).ceil() * step;
        let ticks = std::iter::successors(Some(first), |tick| Some(tick + step));
        ticks.take_while(|tick| *tick <= last * 1.0001).collect()
    }
}

/// Returns the distance of about five lines over a span: 1, 2 or 5 times a power of ten.
fn step(span: f64) -> f64 {
    let rough = span / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough);
    step.unwrap_or(power)
}

/// Appends a text; `more` are further attributes. Without a colour in `more` it has that of the page's text.
pub fn text(out: &mut String, x: f64, y: f64, anchor: &str, more: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let ink = if more.contains("class=") || more.contains("fill=") { "" } else { "class=\"ink\" " };
    let _ =
        writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {ink}{more}>{text}</text>");
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Formats a whole number with commas; returns any other label unchanged.
fn thousands(label: &str) -> String {
    match label.parse::<u64>() {
        Ok(number) if number >= 10_000 => format!("{},{:03}", number / 1_000, number % 1_000),
        Ok(_) | Err(_) => label.to_owned(),
    }
}

/// Formats a number with as many digits as a label needs.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", trim(v / 1e6)),
        v if v >= 1e4 => format!("{} k", trim(v / 1e3)),
        v => trim(v),
    }
}

fn trim(value: f64) -> String {
    let text = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
