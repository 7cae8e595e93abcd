//! Draws the pictures of the documentation: each `docs/measured/NAME.csv` becomes `docs/NAME.svg`.
//!
//! The benches write the data there; only coordinates are computed here. The first lines of a file are the parameters
//! of the drawing, as `# key: value`: `title`, `kind` (`bars`, `points` or `lines`; `table` is not drawn), `x`, `y`
//! (axis labels), `unit` (`us`: y is microseconds), `scale` (`log`: y by powers of ten), `x scale` (`nines`: x is
//! percentages by their nines), `from` (the start of x, if not 0), `command` (the command that measured it). Then a
//! header of column names and the rows; the first column is the label of a group of bars, or x. `mesh.svg` shows no
//! data; `mesh.rs` draws it.

mod mesh;
mod svg;

use std::error::Error;
use std::fs;
use std::path::Path;
use svg::{Chart, Kind, Scale};

fn main() -> Result<(), Box<dyn Error>> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut files: Vec<_> = fs::read_dir(docs.join("measured"))?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        let path = file.path();
        if path.extension().is_none_or(|extension| extension != "csv") {
            continue;
        }
        let name = path.with_extension("svg");
        let target = docs.join(name.file_name().ok_or("a file without a name")?);
        let chart =
            parse(&fs::read_to_string(&path)?).map_err(|error| format!("{}: {error}", path.display()))?;
        let Some(chart) = chart else { continue };
        fs::write(&target, chart.draw())?;
        println!("{}", target.display());
    }
    let target = docs.join("mesh.svg");
    fs::write(&target, mesh::draw())?;
    println!("{}", target.display());
    Ok(())
}

/// Reads one file of measured data; `None`: it is not drawn.
fn parse(text: &str) -> Result<Option<Chart>, String> {
    let head = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("# ")?.split_once(": "));
        lines.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
    };
    let need = |key: &str| head(key).ok_or_else(|| format!("no line '# {key}: …'"));
    let mut rows = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let split = |line: &str| line.split(',').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let columns = split(rows.next().ok_or("no header")?);
    let mut labels = Vec::new();
    let mut values = vec![Vec::new(); columns.len() - 1];
    for line in rows {
        let cells = split(line);
        if cells.len() != columns.len() {
            return Err(format!("'{line}' has {} cells, the header {}", cells.len(), columns.len()));
        }
        labels.push(cells[0].clone());
        for (column, cell) in values.iter_mut().zip(&cells[1..]) {
            // An empty cell: not measured.
            column.push(cell.parse().unwrap_or(f64::NAN));
        }
    }
    let kind = match need("kind")?.as_str() {
        "bars" => Kind::Bars,
        "points" => Kind::Points,
        "lines" => Kind::Lines,
        "table" => return Ok(None),
        other => return Err(format!("kind is bars, points, lines or table, not {other}")),
    };
    let from = head("from").map_or(Ok(0.0), |from| from.parse().map_err(|_| format!("from: {from}")))?;
    let scale = if head("scale").as_deref() == Some("log") { Scale::Log } else { Scale::Linear };
    if kind == Kind::Bars && scale == Scale::Log {
        return Err("bars have no meaning on a logarithmic axis; kind is points".to_owned());
    }
    let x_scale = if head("x scale").as_deref() == Some("nines") { Scale::Nines } else { Scale::Linear };
    Ok(Some(Chart {
        title: need("title")?,
        x: need("x")?,
        y: need("y")?,
        command: need("command")?,
        kind,
        scale,
        is_time: head("unit").as_deref() == Some("us"),
        x_scale,
        from,
        labels,
        series: columns[1..].iter().cloned().zip(values).collect(),
    }))
}
