//! Tables and pictures from the figures: parts of README and `docs/performance.md` between two marks, and `docs/*.svg`.

use super::figures::{Figures, Settings, best, measured, median, peers, ratios};
use super::goals;
use super::measure::{
    ACTIVE, FULL, LINES, MESH, MESH_ROWS, NEW_KEYS, NODES, PEERS, RATES, REMOTE, VALUES, nodes,
};
use super::svg::{Chart, Kind, Scale};
use super::systems::{SYSTEMS, System};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The marks around a rendered part of a document.
const BEGIN: &str = "<!-- rendered from docs/measured/compare.json: begin -->\n";
const END: &str = "<!-- rendered from docs/measured/compare.json: end -->\n";

/// Busy share of the generator from which on it is marked as the bottleneck, as in `olivia bench`.
const BUSY_MAX: f64 = 0.95;

/// A figure with its unit, digits and direction.
#[derive(Clone, Copy)]
struct Quantity {
    figure: &'static str,
    /// The divisor of the figure.
    unit: f64,
    decimals: usize,
    more_is_better: bool,
}

const RATE: Quantity =
    Quantity { figure: "requests_per_second", unit: 1.0, decimals: 0, more_is_better: true };
const CPU: Quantity = Quantity { figure: "server_ns", unit: 1.0, decimals: 0, more_is_better: false };

const fn time(figure: &'static str) -> Quantity {
    Quantity { figure, unit: 1.0, decimals: 0, more_is_better: false }
}

/// A file and its rendered text.
pub(crate) type Rendered = (PathBuf, String);

/// Renders all files.
pub(crate) fn files(figures: &Figures) -> Result<Vec<Rendered>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![
        between(&root.join("README.md"), &readme(figures))?,
        between(&root.join("docs/performance.md"), &report(figures))?,
    ];
    for (name, chart) in charts(figures) {
        all.push((root.join("docs").join(name), chart.draw()));
    }
    Ok(all)
}

/// Writes all files.
pub(crate) fn write(figures: &Figures) -> Result<(), String> {
    for (path, text) in files(figures)? {
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Renders a document: replaces its part between the marks.
fn between(path: &Path, part: &str) -> Result<Rendered, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let marks = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = marks else {
        return Err(format!("{} has no part marked {}", path.display(), BEGIN.trim()));
    };
    Ok((path.to_owned(), format!("{before}{BEGIN}{part}{END}{after}")))
}

/// Returns the name of a system with the first two parts of its version.
fn name(figures: &Figures, system: System) -> String {
    let found = figures.systems.iter().find(|found| found.name == system.name());
    let version = found.map_or("", |found| found.version.as_str());
    let mut parts = version.split('.');
    match parts.next().zip(parts.next()) {
        Some((major, minor)) if system != System::Olivia => format!("{} {major}.{minor}", system.name()),
        Some(_) | None => system.name().to_owned(),
    }
}

fn ratio(own: &[f64], other: &[f64]) -> String {
    ratios(own, other).map_or_else(String::new, |[_, middle, _]| format!("{middle:.2}"))
}

/// Formats a number with commas.
fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text
        .split_once('.')
        .map_or((text.as_str(), String::new()), |(whole, rest)| (whole, format!(".{rest}")));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    format!("{sign}{}{rest}", groups.join(","))
}

fn cell(figures: &Figures, row: &str, system: &str, quantity: Quantity) -> String {
    let Some(value) = figures.median(row, system, quantity.figure) else { return String::new() };
    let busy = figures.median(row, system, "generator_busy").unwrap_or(0.0);
    // The server's limit is then unknown, but its CPU time is not.
    let mark = if busy >= BUSY_MAX && quantity.figure != CPU.figure { "°" } else { "" };
    format!("{}{mark}", number(value / quantity.unit, quantity.decimals))
}

fn line(out: &mut String, cells: &[String]) {
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

/// Returns a table of one quantity: a row per name, a column per system, then Olivia as a multiple of the best peer and
/// of the echo server. Empty if nothing of it was measured.
fn table(figures: &Figures, head: &str, rows: &[&str], quantity: Quantity) -> String {
    let systems: Vec<System> = measured(figures)
        .filter(|system| rows.iter().any(|row| figures.median(row, system.name(), quantity.figure).is_some()))
        .collect();
    let mut out = String::new();
    if systems.is_empty() {
        return out;
    }
    let (has_peers, has_echo) = (!peers(figures).is_empty(), systems.contains(&System::Echo));
    let mut header = vec![head.to_owned()];
    header.extend(systems.iter().map(|system| name(figures, *system)));
    header.extend(has_peers.then(|| "of the best peer".to_owned()));
    header.extend(has_echo.then(|| "of echo".to_owned()));
    line(&mut out, &header);
    let _ = writeln!(out, "|{}", "---|".repeat(header.len()));
    for row in rows {
        let of = |system| figures.rounds(row, system, quantity.figure);
        let mut cells = vec![(*row).to_owned()];
        cells.extend(systems.iter().map(|system| cell(figures, row, system.name(), quantity)));
        let best = best(figures, row, quantity.figure, quantity.more_is_better);
        let best = best.map_or(&[][..], |(_, system)| of(system.name()));
        cells.extend(has_peers.then(|| ratio(of("olivia"), best)));
        cells.extend(has_echo.then(|| ratio(of("olivia"), of("echo"))));
        line(&mut out, &cells);
    }
    out
}

/// Returns a table of several figures of one row.
fn figures_of(figures: &Figures, row: &str, quantities: &[(&str, Quantity)]) -> String {
    let mut out = String::new();
    for (name, quantity) in quantities {
        let table = table(figures, "", &[row], *quantity);
        // The head of the first table is that of all.
        let skip = if out.is_empty() { 0 } else { 2 };
        for text in table.lines().skip(skip) {
            let named = text.strip_prefix(&format!("| {row} |")).map(|rest| format!("| {name} |{rest}"));
            let _ = writeln!(out, "{}", named.as_deref().unwrap_or(text));
        }
    }
    out
}

/// Returns a sentence on the spread of the rounds.
fn spread(figures: &Figures, rows: &[&str], figure: &str) -> String {
    let ratios: Vec<(f64, String)> = rows
        .iter()
        .flat_map(|row| SYSTEMS.map(|system| (*row, system.name())))
        .filter_map(|(row, system)| {
            let rounds = figures.rounds(row, system, figure);
            let (low, high) = rounds
                .iter()
                .fold((f64::MAX, 0.0f64), |(low, high), &value| (low.min(value), high.max(value)));
            (rounds.len() > 1 && low > 0.0).then(|| (high / low, format!("{row}, {system}")))
        })
        .collect();
    let middle = median(&ratios.iter().map(|(ratio, _)| *ratio).collect::<Vec<_>>());
    let widest = ratios.iter().max_by(|a, b| a.0.total_cmp(&b.0));
    match middle.zip(widest) {
        Some((middle, (most, whose))) => {
            format!("Highest over lowest round: {middle:.2} in the middle, {most:.2} at most ({whose}).\n\n")
        }
        None => String::new(),
    }
}

/// Returns the paragraph on machine and method.
fn conditions(figures: &Figures) -> String {
    let (machine, settings) = (&figures.machine, &figures.settings);
    let cores = match (settings.server_core, settings.generator_core) {
        (Some(server), Some(generator)) => {
            format!("servers on core {server}, the generator on core {generator}")
        }
        _ => "servers and generator on one core".to_owned(),
    };
    let rounds = match settings.rounds {
        1 => "one round".to_owned(),
        rounds => format!("medians of {rounds} rounds"),
    };
    let trial = if settings.rounds < 3 || machine.load_before > 0.5 {
        "**A trial, not a measurement**: too few rounds, or other programs were running. `make compare` on a quiet machine \
         replaces it.\n\n"
    } else {
        ""
    };
    format!(
        "{trial}Measured on {} at commit {}: {}, {} cores, {} GiB, Linux {}; load before: {:.2}. {cores}, over loopback; {rounds} of \
         {} s per point, in which the servers took turns; ratios are medians of those within each round. 1 M keys of 16 B, values of 64 B, 50 connections, RESP (memcached: \
         its text protocol), one thread and no persistence each; every reply is verified.\n\n",
        machine.date,
        machine.commit,
        machine.processor,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        machine.load_before,
        settings.seconds
    )
}

fn rate_names() -> Vec<&'static str> {
    RATES.iter().map(|(name, ..)| *name).collect()
}

/// Renders the part of README.
fn readme(figures: &Figures) -> String {
    let mut out = String::from("\n![Requests per second beside other servers](docs/throughput.svg)\n\n");
    out.push_str("Requests per second, with so many in flight on each connection:\n\n");
    out.push_str(&table(figures, "", &rate_names(), RATE));
    out.push('\n');
    out.push_str(
        &table(figures, "bytes", &["memory"], MEMORY)
            .replace("| memory |", "| per item over key and value |"),
    );
    out.push('\n');
    out.push_str(&conditions(figures));
    out
}

const MEMORY: Quantity = Quantity { figure: "bytes_per_item", unit: 1.0, decimals: 1, more_is_better: false };

/// Renders the part of `docs/performance.md`.
pub(crate) fn report(figures: &Figures) -> String {
    let mut out = String::from("\n");
    out.push_str(&conditions(figures));
    out.push_str("    make compare\n\n| system | version | command |\n|---|---|---|\n");
    for found in &figures.systems {
        line(&mut out, &[found.name.clone(), found.version.clone(), format!("`{}`", found.command)]);
    }
    out.push_str(
        "\n`echo` is a bare mio echo server with replies of the same size: what the system calls of one thread allow. ° marks \
         figures that the generator limits: it was busy 95 % of the time or more.\n\n",
    );
    section(
        &mut out,
        "Requests per second",
        &[&table(figures, "in flight per connection", &rate_names(), RATE)],
    );
    if !out.ends_with("\n\n") {
        out.push('\n');
    }
    out.push_str(&spread(figures, &rate_names(), RATE.figure));
    if figures.median("GET 1", "olivia", RATE.figure).is_some() {
        out.push_str("![Requests per second](throughput.svg)\n\n");
    }
    section(
        &mut out,
        "CPU time of the server per request, ns",
        &[&table(figures, "in flight per connection", &rate_names(), CPU)],
    );
    if figures.median("GET 1", "olivia", CPU.figure).is_some() {
        out.push_str(&spread(figures, &rate_names(), CPU.figure));
        out.push_str("![CPU time per request](cpu.svg)\n\n");
    }
    section(&mut out, "Olivia by lines, in a mesh, and full", &[&variants(figures)]);
    latency(&mut out, figures);
    connections(&mut out, figures);
    let rows: Vec<String> =
        VALUES.iter().flat_map(|(size, ..)| ["GET", "SET"].map(|verb| format!("{verb}, {size}"))).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let bytes = Quantity { figure: "bytes_per_second", unit: 1e6, decimals: 0, more_is_better: true };
    section(&mut out, "Large values, MB per second", &[&table(figures, "", &rows, bytes)]);
    let ms = |figure| Quantity { figure, unit: 1.0, decimals: 1, more_is_better: false };
    let idle = figures_of(
        figures,
        "idle",
        &[("CPU per 10 s idle, ms", ms("cpu_ms_per_10_s")), ("resident at start, MiB", ms("resident_mib"))],
    );
    let start = figures_of(figures, "start", &[("start to first reply, ms", ms("start_ms"))]);
    let start: String = start.lines().skip(2).map(|line| format!("{line}\n")).collect();
    let memory = figures_of(figures, "memory", &[("bytes per item over key and value", MEMORY)]);
    section(&mut out, "Idle, start", &[&format!("{idle}{start}")]);
    section(&mut out, "Memory", &[&memory]);
    section(&mut out, "Two nodes on two cores", &[&mesh(figures)]);
    section(&mut out, "What a new key costs in a mesh", &[&publishing(figures)]);
    let tests = ["GET", "SET", "INCR", "MSET"];
    let rows: Vec<String> = ["1", "16"]
        .iter()
        .flat_map(|pipeline| tests.map(|test| format!("redis-benchmark {test} {pipeline}")))
        .collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    section(
        &mut out,
        "redis-benchmark, requests per second",
        &[
            "`redis-benchmark -t get,set,incr,mset -c 50 -P 1` and `-P 16`, `-r 1000000 -d 64`. It saturates its own core before \
           a fast server does.\n\n",
            &table(figures, "", &rows, RATE),
        ],
    );
    section(
        &mut out,
        "Goals",
        &["What Olivia is to reach, whatever the others become:\n\n", &goals::table(figures)],
    );
    out
}

/// Appends a heading and its parts, unless all parts are empty.
fn section(out: &mut String, heading: &str, parts: &[&str]) {
    if parts.iter().any(|part| part.contains("|---|")) {
        let _ = writeln!(out, "## {heading}\n\n{}", parts.concat());
    }
}

fn variants(figures: &Figures) -> String {
    let mut out = String::new();
    if figures.median("GET 16", LINES, RATE.figure).is_none() {
        return out;
    }
    let header = ["", "GET 16", "of RESP alone", "CPU, ns", "SET 16", "of RESP alone", "CPU, ns"];
    line(&mut out, &header.map(str::to_owned));
    let _ = writeln!(out, "|{}", "---|".repeat(header.len()));
    for name in ["olivia", LINES, PEERS, FULL] {
        let mut cells =
            vec![if name == "olivia" { "RESP, alone".to_owned() } else { name.replace("olivia, ", "") }];
        for row in ["GET 16", "SET 16"] {
            cells.push(cell(figures, row, name, RATE));
            let of = |name| figures.rounds(row, name, RATE.figure);
            cells.push(ratio(of(name), of("olivia")));
            cells.push(cell(figures, row, name, CPU));
        }
        line(&mut out, &cells);
    }
    out
}

fn mesh(figures: &Figures) -> String {
    let mut out = String::from(
        "Each node shares its core with the generator that loads it, so one node on one core is the measure. Clients that spread \
         their keys read each key from the node that holds it; others read any key from any node. Both nodes hold half of \
         the keys.\n\n",
    );
    let header =
        ["", MESH[0], MESH[1], "of one", "queries per request", MESH[2], "of one", "queries per request"];
    line(&mut out, &header.map(str::to_owned));
    let _ = writeln!(out, "|{}", "---|".repeat(header.len()));
    for (row, ..) in MESH_ROWS {
        let of = |name| figures.rounds(row, name, RATE.figure);
        let crossing =
            Quantity { figure: "queries_per_request", unit: 1.0, decimals: 3, more_is_better: false };
        let mut cells = vec![row.replace("two cores, ", ""), cell(figures, row, MESH[0], RATE)];
        for name in &MESH[1..] {
            cells.push(cell(figures, row, name, RATE));
            cells.push(ratio(of(name), of(MESH[0])));
            cells.push(cell(figures, row, name, crossing));
        }
        line(&mut out, &cells);
    }
    if figures.median(MESH_ROWS[0].0, MESH[0], RATE.figure).is_none() {
        out.clear();
    }
    out
}

/// Renders the CPU time of filters: measured with one writer, calculated for a mesh in which every node is a writer.
fn publishing(figures: &Figures) -> String {
    let mut out = String::from(
        "One node gets new keys and publishes them; all others only listen. CPU time of servers, without heartbeats, which have a \
         column of their own. From that the share of its core that each node spends on filters when every node gets as many: \
         what publishing adds at the writer, and what the keys of all others cost to take in.\n\n",
    );
    let header = [
        "new keys/s per node",
        "nodes",
        "heartbeats, % of a core",
        "writer, ns per key",
        "each other, ns per key",
        "filters, % of each core",
    ];
    line(&mut out, &header.map(str::to_owned));
    let _ = writeln!(out, "|{}", "---|".repeat(header.len()));
    let mut rows = 0;
    for (rate, count) in NEW_KEYS.iter().flat_map(|rate| NODES.map(|count| (*rate, count))) {
        let row = format!("{rate} new keys per second");
        let of = |count, figure| figures.median(&row, &nodes(count), figure);
        let idle = figures.median("idle node of a mesh", &nodes(count), "percent_of_core");
        if let (Some(alone), Some(writer), Some(other), Some(idle)) =
            (of(1, "writer_ns"), of(count, "writer_ns"), of(count, "peer_ns"), idle)
        {
            rows += 1;
            let mut cells =
                vec![number(f64::from(rate), 0), count.to_string(), number(idle, 2), number(writer, 0)];
            if count > 1 {
                let share = ((writer - alone).max(0.0) + (count - 1) as f64 * other) * f64::from(rate) / 1e9;
                cells.extend([number(other, 0), number(100.0 * share, 1)]);
            } else {
                cells.extend([String::new(), String::new()]);
            }
            line(&mut out, &cells);
        }
    }
    if rows > 0 { out } else { String::new() }
}

/// Returns the sentence on the rounds of latencies.
fn short_rounds(figures: &Figures) -> String {
    let Settings { rounds, seconds, .. } = figures.settings;
    let count = figures.rounds("open loop, same rate", "olivia", "p99_us").len().max(1);
    let seconds = seconds * f64::from(rounds) / count as f64;
    format!(
        "{count} rounds of {seconds:.2} s: what else runs on the machine stops a server, whichever it is, for 1 to 6 ms now and \
         then, which is more than 1 % of a round but spoils few of them. A round in which server and generator waited for a \
         processor for more than 1 % of it is measured again, twice at most."
    )
}

fn latency(out: &mut String, figures: &Figures) {
    let quantities = [
        ("requests per second", Quantity { figure: "rate", ..RATE }),
        ("p50", time("p50_us")),
        ("p99", time("p99_us")),
        ("p99.9", time("p999_us")),
    ];
    let own = figures_of(figures, "open loop, own rate", &quantities);
    let same = figures_of(figures, "open loop, same rate", &quantities);
    section(
        out,
        "Latency under load, µs",
        &[
            "Open loop: GETs are sent when they are due, whatever the replies do, and latency counts from then. ",
            &short_rounds(figures),
            " At 70 % of what each server reaches at pipeline 1:\n\n",
            &own,
            "\nAt the same rate for all, 70 % of what the slowest reaches:\n\n",
            &same,
            "\n![Latency at the same rate](latency.svg)\n",
        ],
    );
    let fine = |figure| Quantity { figure, unit: 1.0, decimals: 1, more_is_better: false };
    let ping_pong = figures_of(
        figures,
        "ping-pong",
        &[("p50", fine("p50_us")), ("p99", fine("p99_us")), ("p99.9", fine("p999_us"))],
    );
    let at = |figure| figures.median("ping-pong", REMOTE, figure);
    let remote = match (at("p50_us"), at("p99_us"), at("p999_us")) {
        (Some(p50), Some(p99), Some(p999)) => format!(
            "\nA GET from an Olivia of a key that another node holds: {p50:.1}, {p99:.1} and {p999:.1} µs, both nodes on one core.\n"
        ),
        _ => String::new(),
    };
    section(
        out,
        "Latency of one connection, µs",
        &[
            "One GET at a time, with a generator that polls without sleeping, in rounds as above:\n\n",
            &ping_pong,
            &remote,
        ],
    );
}

fn connections(out: &mut String, figures: &Figures) {
    let whole = |figure| Quantity { figure, unit: 1.0, decimals: 0, more_is_better: false };
    let idle = figures_of(
        figures,
        "10,000 idle connections",
        &[
            ("bytes each, silent", whole("silent_bytes")),
            ("bytes each, 4 s after one GET", whole("after_get_bytes")),
            ("ping-pong p99 beside them, µs", whole("beside_p99_us")),
            ("ping-pong p99 alone, µs", whole("alone_p99_us")),
        ],
    );
    section(out, "10,000 idle connections", &[&idle]);
    let rows = ACTIVE.map(|(name, _)| name);
    section(out, "Many active connections, requests per second", &[&table(figures, "", &rows, RATE)]);
}

/// Returns the pictures by file name.
fn charts(figures: &Figures) -> Vec<(&'static str, Chart)> {
    let all: Vec<System> = measured(figures).collect();
    let but_echo: Vec<System> = all.iter().copied().filter(|system| *system != System::Echo).collect();
    let open = ["open loop, own rate", "open loop, same rate"];
    let chart = |title: &str, y: &str, rows: &[&str], systems: &[System], quantity: Quantity| Chart {
        title: title.to_owned(),
        x: "requests in flight per connection".to_owned(),
        y: y.to_owned(),
        command: format!("make compare; {}, commit {}", figures.machine.date, figures.machine.commit),
        kind: Kind::Bars,
        scale: Scale::Linear,
        is_time: false,
        x_scale: Scale::Linear,
        from: 0.0,
        labels: rows.iter().map(|row| (*row).to_owned()).collect(),
        series: systems
            .iter()
            .map(|system| {
                let value = |row: &&str| figures.median(row, system.name(), quantity.figure);
                let values = rows.iter().map(|row| value(row).unwrap_or(f64::NAN));
                (name(figures, *system), values.collect())
            })
            .collect(),
    };
    let rates = rate_names();
    let mut latency = chart("99 % of the GETs within, open loop", "µs", &open, &all, time("p99_us"));
    latency.x = "at 70 % of each server's own throughput; at 70 % of the slowest one's".to_owned();
    let charts = [
        ("throughput.svg", chart("Requests per second", "requests per second", &rates, &but_echo, RATE)),
        ("cpu.svg", chart("CPU time of the server per request", "ns", &rates, &all, CPU)),
        ("latency.svg", latency),
    ];
    let has_values =
        |chart: &Chart| chart.series.iter().flat_map(|(_, values)| values).any(|value| value.is_finite());
    charts.into_iter().filter(|(_, chart)| has_values(chart)).collect()
}
