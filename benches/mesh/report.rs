//! The file of a table, `docs/measured/mesh_NAME.csv`, from which `make pictures` draws.

use olivia::client::bench::Times;
use std::fmt::{Display, Write};
use std::path::Path;
use std::time::Duration;

/// A table of measured data.
#[derive(Debug)]
pub(crate) struct Report {
    name: &'static str,
    csv: String,
}

impl Report {
    /// Starts a table. `head` are the lines for `benches/pictures`, without the `# `. The name is that of the table,
    /// optionally followed by `_` and more.
    pub(crate) fn new(name: &'static str, head: &[&str], columns: &[&str]) -> Self {
        let table = name.split('_').next().unwrap_or(name);
        let mut csv = String::new();
        for line in head {
            let _ = writeln!(csv, "# {line}");
        }
        let _ = writeln!(csv, "# command: cargo bench --bench mesh -- {table} --write");
        let _ = writeln!(csv, "{}", columns.join(","));
        Self { name, csv }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: &[&dyn Display]) {
        let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
        let _ = writeln!(self.csv, "{}", cells.join(","));
    }

    /// Writes the file if `is_wanted`.
    pub(crate) fn finish(&self, is_wanted: bool) -> Result<(), String> {
        if !is_wanted {
            return Ok(());
        }
        let path = format!("docs/measured/mesh_{}.csv", self.name);
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path), &self.csv)
            .map_err(|error| format!("{path}: {error}"))?;
        println!("written to {path}");
        Ok(())
    }
}

/// Returns the median of some numbers; 0 of none.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Formats a number with `digits` digits after the point.
pub(crate) fn digits(value: f64, digits: usize) -> String {
    format!("{value:.digits$}")
}

/// Returns the time in µs that `permille` of a thousand did not exceed, to a 256th; 1,000 is the longest.
pub(crate) fn micros(times: &Times, permille: u32) -> f64 {
    times.quantile(f64::from(permille) / 1e3).as_secs_f64() * 1e6
}

/// Converts a time to ns, the unit of histograms.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
