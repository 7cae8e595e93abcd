//! The measured figures: a JSON file from which tables and pictures are rendered.

use super::systems::{SYSTEMS, System};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The figures of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) systems: Vec<SystemOf>,
    pub(crate) rows: Vec<Row>,
}

/// The machine of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) commit: String,
    pub(crate) date: String,
    /// Runnable processes before the run, over the last minute.
    pub(crate) load_before: f64,
}

/// The settings of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) server_core: Option<u32>,
    pub(crate) generator_core: Option<u32>,
}

/// A server that was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SystemOf {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) command: String,
}

/// The figures of one system, or of a variant of Olivia, under one row name; each figure once per round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) system: String,
    pub(crate) figures: BTreeMap<String, Vec<f64>>,
}

/// The path of the figures' file.
pub(crate) fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/measured/compare.json")
}

impl Figures {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Adds the figures of one round.
    pub(crate) fn add(&mut self, row: &str, system: &str, figures: &[(&str, f64)]) {
        let found = self.rows.iter().position(|found| found.name == row && found.system == system);
        let at = found.unwrap_or_else(|| {
            self.rows.push(Row { name: row.to_owned(), system: system.to_owned(), figures: BTreeMap::new() });
            self.rows.len() - 1
        });
        for (name, value) in figures {
            // Enough digits, and a text that does not change when it is read and written again.
            let rounded = (value * 1_000.0).round() / 1_000.0;
            self.rows[at].figures.entry((*name).to_owned()).or_default().push(rounded);
        }
    }

    /// Returns a figure of each round; empty if it was not measured.
    pub(crate) fn rounds(&self, row: &str, system: &str, figure: &str) -> &[f64] {
        let found = self.rows.iter().find(|found| found.name == row && found.system == system);
        found.and_then(|row| row.figures.get(figure)).map_or(&[], Vec::as_slice)
    }

    /// Returns the median of a figure.
    pub(crate) fn median(&self, row: &str, system: &str, figure: &str) -> Option<f64> {
        median(self.rounds(row, system, figure))
    }
}

/// Returns the quartiles of the ratios of two figures within each round, in which systems take turns.
pub(crate) fn ratios(own: &[f64], other: &[f64]) -> Option<[f64; 3]> {
    let rounds = own.iter().zip(other).filter(|(_, other)| **other > 0.0);
    let mut sorted: Vec<f64> = rounds.map(|(own, other)| own / other).collect();
    sorted.sort_by(f64::total_cmp);
    (!sorted.is_empty()).then(|| [1, 2, 3].map(|quarter| sorted[sorted.len() * quarter / 4]))
}

/// Returns the median, the upper of two.
pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

impl Machine {
    /// The machine of this process.
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let processor = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let memory = read("/proc/meminfo");
        let kib = memory.lines().find_map(|line| {
            line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
        });
        Self {
            processor: processor.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (kib.unwrap_or(0) + (1 << 19)) >> 20,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            commit: output("git", &["rev-parse", "--short", "HEAD"]),
            date: output("date", &["-u", "+%Y-%m-%d"]),
            load_before: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// The measured systems in the order of [`SYSTEMS`].
pub(crate) fn measured(figures: &Figures) -> impl Iterator<Item = System> {
    SYSTEMS.into_iter().filter(|system| figures.systems.iter().any(|found| found.name == system.name()))
}

pub(crate) fn peers(figures: &Figures) -> Vec<System> {
    measured(figures).filter(|system| !matches!(system, System::Olivia | System::Echo)).collect()
}

/// Returns the best median among the peers and its system.
pub(crate) fn best(
    figures: &Figures,
    row: &str,
    figure: &str,
    more_is_better: bool,
) -> Option<(f64, System)> {
    let all = peers(figures)
        .into_iter()
        .filter_map(|system| figures.median(row, system.name(), figure).map(|value| (value, system)));
    let better = |a: &(f64, System), b: &(f64, System)| a.0.total_cmp(&b.0);
    if more_is_better { all.max_by(better) } else { all.min_by(better) }
}
