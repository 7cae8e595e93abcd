//! The pictures of the layers: as text in `src/lib.rs`, as SVG in `docs`. With `OLIVIA_DRAW` they are written,
//! else they must be up to date.

use crate::layers::{BOUNDARY, LAYERS, layer_of};
use crate::paths::{VIEWS, View};
use crate::source::Sources;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const BEGIN: &str = "//! <!-- layers: drawn by `make pictures` -->\n";
const END: &str = "//! <!-- end of layers -->\n";

pub fn check(sources: &Sources) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let (before, rest) = map.split_once(BEGIN).expect("src/lib.rs lacks the marker before the layers");
    let (_, after) = rest.split_once(END).expect("src/lib.rs lacks the marker after the layers");
    keep(&root.join("src/lib.rs"), &format!("{before}{BEGIN}{}{END}{after}", text(sources)));
    keep(&root.join("docs/layers.svg"), &svg(sources));
    for view in VIEWS {
        keep(&root.join("docs").join(view.0), &steps(&view));
    }
}

/// A view as SVG: one line for each step, indented below its caller.
fn steps((_, title, steps): &View) -> String {
    let mut body = format!("<text x='10' y='20' font-weight='bold'>{title}</text>\n");
    for (row, (depth, file, function, purpose)) in steps.iter().enumerate() {
        let (x, y) = (20 + 22 * depth, 48 + 24 * row);
        let name = file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
        let colour = if file.starts_with("shell") { "#f6f6f2" } else { "#eef4ff" };
        let width = 14 + 8 * (name.len() + 2 + function.len());
        _ = writeln!(
            body,
            "<rect x='{x}' y='{}' width='{width}' height='20' rx='4' fill='{colour}' stroke='#999'/>\n\
             <text x='{}' y='{y}'>{name}::{function}</text>\n<text x='{}' y='{y}' fill='#555'>{purpose}</text>",
            y - 14,
            x + 6,
            x + width + 8
        );
    }
    page(&body, 48 + 24 * steps.len())
}

fn keep(path: &Path, wanted: &str) {
    if std::env::var_os("OLIVIA_DRAW").is_some() {
        fs::write(path, wanted).unwrap();
    }
    let is_right = fs::read_to_string(path).is_ok_and(|found| found == wanted);
    assert!(is_right, "{} is not what the sources are: run `make pictures`", path.display());
}

/// The files of a layer without `.rs`; those of other folders than its own with their folder.
fn files(sources: &Sources, layer: usize) -> Vec<String> {
    let home = LAYERS[layer].holds()[0];
    let of_layer = sources.files.iter().filter(|file| layer_of(&file.path) == Some(layer));
    let names = of_layer.map(|file| {
        let path = file.path.strip_suffix(".rs").unwrap();
        let path = path.strip_prefix(home).and_then(|path| path.strip_prefix('/')).unwrap_or(path);
        path.strip_prefix("node/").unwrap_or(path).to_owned()
    });
    names.filter(|name| name != "mod").collect()
}

/// Words in lines of at most `width` bytes.
fn wrapped(words: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut().filter(|line| line.len() + 2 + word.len() <= width) {
            Some(line) => {
                line.push_str("  ");
                line.push_str(word);
            }
            None => lines.push(word.clone()),
        }
    }
    lines
}

fn text(sources: &Sources) -> String {
    let mut out = String::from("//! ```text\n");
    for (at, layer) in LAYERS.iter().enumerate().filter(|(_, layer)| layer.name != "lib") {
        if layer.name == BOUNDARY {
            out.push_str("//! ──────────── below: no clock, no socket, no thread; the same calls give the same bytes\n");
        }
        _ = writeln!(out, "//! {:<10}{}", layer.name, layer.purpose);
        if layer.holds()[0] != "main.rs" && layer.holds() != ["limits.rs"] {
            for line in wrapped(&files(sources, at), 95) {
                _ = writeln!(out, "//!           {line}");
            }
        }
    }
    out.push_str("//! ```\n");
    out
}

fn svg(sources: &Sources) -> String {
    let mut body = String::new();
    let mut y = 10;
    for (at, layer) in LAYERS.iter().enumerate().filter(|(_, layer)| layer.name != "lib") {
        let lines = wrapped(&files(sources, at), 84);
        let height = 30 + 16 * lines.len();
        if layer.name == BOUNDARY {
            _ = writeln!(body, "<path d='M10 {y}H890' stroke='#c33' stroke-dasharray='6 4'/>");
            y += 10;
        }
        let colour = if layer.holds()[0].starts_with("node") { "#eef4ff" } else { "#f6f6f2" };
        _ = writeln!(
            body,
            "<rect x='10' y='{y}' width='880' height='{height}' rx='4' fill='{colour}' stroke='#999'/>"
        );
        _ = writeln!(
            body,
            "<text x='20' y='{}'><tspan font-weight='bold'>{}</tspan>  {}</text>",
            y + 19,
            layer.name,
            layer.purpose
        );
        for (row, line) in lines.iter().enumerate() {
            _ = writeln!(body, "<text x='110' y='{}' fill='#555'>{line}</text>", y + 35 + 16 * row);
        }
        _ = writeln!(
            body,
            "<text x='880' y='{}' text-anchor='end' font-size='9' fill='#888'>{}</text>",
            y + height - 4,
            if layer.imports().is_empty() {
                String::new()
            } else {
                format!("imports {}", layer.imports().join(" "))
            }
        );
        y += height + 6;
    }
    page(&body, y + 4)
}

/// Other colours for the page of a reader who prefers dark ones.
const DARK: &str = "<style>@media(prefers-color-scheme:dark){svg{fill:#e6edf3}rect{stroke:#57606a}\
    rect[fill='#eef4ff']{fill:#12263f}rect[fill='#f6f6f2']{fill:#1b1f24}text[fill='#555']{fill:#b0b8c0}}</style>\n";

fn page(body: &str, height: usize) -> String {
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 900 {height}' font-family='monospace' font-size='13' \
         xml:space='preserve' fill='#222'>\n{DARK}{body}</svg>\n"
    )
}
