//! A chart as SVG text. Readable on light and dark pages: it brings its own background.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 76.0;
const COLOURS: [&str; 6] = ["#0b6e99", "#d9730d", "#6b7280", "#448361", "#9065b0", "#c14c8a"];

/// How values are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A group of bars for each label.
    Bars,
    /// A line for each series over a numeric x.
    Lines,
}

/// How y is spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By powers of ten.
    Log,
}

/// What is drawn.
#[derive(Debug)]
pub struct Chart {
    /// Above the picture.
    pub title: String,
    /// Below the x axis.
    pub x: String,
    /// Beside the y axis.
    pub y: String,
    /// What measured it, below the picture.
    pub command: String,
    /// Bars or lines.
    pub kind: Kind,
    /// Of the y axis.
    pub scale: Scale,
    /// Where the x axis of lines begins.
    pub from: f64,
    /// Of groups of bars, or x values.
    pub labels: Vec<String>,
    /// Name and values, one for each label; NaN where there is none.
    pub series: Vec<(String, Vec<f64>)>,
}

impl Chart {
    /// The whole file.
    pub fn draw(&self) -> String {
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
        );
        text(&mut out, LEFT, 22.0, "start", "font-size=\"15\" font-weight=\"bold\"", &self.title);
        text(&mut out, LEFT, HEIGHT - 10.0, "start", "font-size=\"10\" fill=\"#6b7280\"", &self.command);
        text(&mut out, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 34.0, "middle", "", &self.x);
        let middle = f64::midpoint(TOP, HEIGHT - BOTTOM);
        let iteration_done = format!("transform=\"rotate(-90 18 {middle})\"");
        text(&mut out, 18.0, middle, "middle", &iteration_done, &self.y);
        self.legend(&mut out);
        self.grid(&mut out);
        match self.kind {
            Kind::Bars => self.bars(&mut out),
            Kind::Lines => self.lines(&mut out),
        }
        out.push_str("</svg>\n");
        out
    }

    fn legend(&self, out: &mut String) {
        let mut at = LEFT;
        for (index, (name, _)) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let _ = writeln!(out, "<rect x=\"{at}\" y=\"34\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
            text(out, at + 17.0, 44.0, "start", "", name);
            at += 40.0 + 7.0 * f64::from(u32::try_from(name.len()).unwrap_or(0));
        }
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.series.iter().flat_map(|(_, values)| values.iter().copied()).filter(|value| value.is_finite())
    }

    /// The lowest and the highest value of the y axis, and the step of its lines.
    fn range(&self) -> (f64, f64, f64) {
        let high = self.values().fold(f64::MIN_POSITIVE, f64::max);
        if self.scale == Scale::Log {
            let low = self.values().filter(|value| *value > 0.0).fold(high, f64::min);
            return (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()), 10.0);
        }
        let rough = high / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(power);
        (0.0, (high / step).ceil() * step, step)
    }

    fn y_of(&self, value: f64) -> f64 {
        let (low, high, _) = self.range();
        let part = match self.scale {
            Scale::Linear => (value - low) / (high - low),
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
            let _ = writeln!(out, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#e5e7eb\"/>");
            text(out, LEFT - 8.0, y + 4.0, "end", "", &short(value));
            value = if self.scale == Scale::Log { value * step } else { value + step };
        }
    }

    fn bars(&self, out: &mut String) {
        let groups = number(self.labels.len());
        let group = (WIDTH - LEFT - RIGHT) / groups;
        let bar = group * 0.8 / number(self.series.len());
        for (at, label) in self.labels.iter().enumerate() {
            let left = LEFT + group * (number(at) + 0.1);
            text(out, left + group * 0.4, HEIGHT - BOTTOM + 18.0, "middle", "", label);
            for (index, (_, values)) in self.series.iter().enumerate().filter(|(_, s)| s.1[at].is_finite()) {
                let (x, y) = (left + bar * number(index), self.y_of(values[at]));
                let (colour, height) = (COLOURS[index % COLOURS.len()], HEIGHT - BOTTOM - y);
                let _ = writeln!(
                    out,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>",
                    bar * 0.92
                );
                text(out, x + bar * 0.46, y - 4.0, "middle", "font-size=\"10\"", &short(values[at]));
            }
        }
    }

    fn lines(&self, out: &mut String) {
        let xs: Vec<f64> = self.labels.iter().map(|label| label.parse().unwrap_or(0.0)).collect();
        let last = xs.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let x_of = |x: f64| LEFT + (x - self.from) / (last - self.from) * (WIDTH - LEFT - RIGHT);
        for fifth in 0..=5 {
            let x = self.from + (last - self.from) * f64::from(fifth) / 5.0;
            text(out, x_of(x), HEIGHT - BOTTOM + 18.0, "middle", "", &short(x));
        }
        for (index, (_, values)) in self.series.iter().enumerate() {
            let mut path = String::new();
            for (x, value) in xs.iter().zip(values).filter(|(_, value)| value.is_finite()) {
                let verb = if path.is_empty() { 'M' } else { 'L' };
                let _ = write!(path, "{verb}{:.1} {:.1}", x_of(*x), self.y_of(*value));
            }
            let colour = COLOURS[index % COLOURS.len()];
            let _ =
                writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>");
        }
    }
}

/// Adds a text; `more` are further attributes.
pub fn text(out: &mut String, x: f64, y: f64, anchor: &str, more: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{text}</text>");
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A number with as many digits as a label needs.
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
