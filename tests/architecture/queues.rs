//! The table of queues in `docs/architecture.md`, compared with the fields of the sources that are queues.

use crate::source::{Source, Sources};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Types that are queues of work, or may be.
const TYPES: [&str; 8] = [
    "VecDeque<",
    "BinaryHeap<",
    "LinkedList<",
    "KeyQueue<",
    "ChunkQueue",
    "Wheel<",
    "DeferredFree",
    "Receiver<",
];

/// Sources outside a node: containers, which do not know what they hold, and the subcommands.
const LEFT_OUT: [&str; 2] = ["base/", "client/"];

/// What empties a queue, besides the sources in `node/sources.rs`.
const OTHERS: [&str; 6] = [
    "class ",
    "the call that adds it",
    "the call that completes",
    "the shell, after each call",
    "the shell, in each iteration",
    "no work",
];

/// The fields and aliases of a file that are queues.
fn queues(file: &Source) -> impl Iterator<Item = (String, String)> {
    let declared = |code: &str| {
        let (name, what) = match code.strip_prefix("type") {
            Some(alias) => alias.strip_suffix(';')?.split_once('=')?,
            // Without its visibility; a field ends in a comma, and neither borrows nor calls.
            None => {
                let field = code.strip_suffix(',')?.strip_prefix("pub").unwrap_or(code.strip_suffix(',')?);
                let field =
                    field.split_once(')').filter(|_| field.starts_with('(')).map_or(field, |(_, rest)| rest);
                field.split_once(':')?
            }
        };
        let is_queue = TYPES.iter().any(|queue| what.contains(queue))
            && !["&", "::new(", "::default("].iter().any(|other| what.contains(other));
        is_queue.then(|| (file.path.clone(), name.to_owned()))
    };
    let lines = crate::code_lines(file).into_iter();
    lines.filter_map(move |(_, code)| declared(&code)).collect::<Vec<_>>().into_iter()
}

/// Returns what is wrong.
pub fn check(sources: &Sources) -> Vec<String> {
    let is_of_a_node = |file: &&Source| !LEFT_OUT.iter().any(|folder| file.path.starts_with(folder));
    let found: BTreeSet<(String, String)> =
        sources.files.iter().filter(is_of_a_node).flat_map(queues).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let work = fs::read_to_string(root.join("src/node/sources.rs")).unwrap();
    let names: Vec<&str> =
        work.lines().filter_map(|line| line.trim().strip_prefix("name: \"")?.strip_suffix("\",")).collect();
    let (mut listed, mut used, mut wrong) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let rows = document.lines().skip_while(|line| !line.starts_with("| queue |")).skip(2);
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, queue, _, emptied, bound, _] = cells[..] else {
            wrong.push(format!("not four cells: {row}"));
            continue;
        };
        let mut words = queue.split('`').skip(1).step_by(2);
        let file = words.next().unwrap_or_default();
        listed.extend(words.map(|field| (file.to_owned(), field.to_owned())));
        if let Some(all) = emptied.strip_prefix("source ") {
            let of_row = all.split(", ").filter(|name| !names.contains(name));
            wrong.extend(of_row.map(|name| format!("{queue}: no source is called {name}")));
            used.extend(all.split(", "));
        } else if !OTHERS.iter().any(|other| emptied.starts_with(other)) {
            wrong.push(format!("{queue}: emptied by {emptied}"));
        }
        if bound.is_empty() {
            wrong.push(format!("{queue}: without a bound"));
        }
    }
    let missing = found.difference(&listed);
    wrong.extend(
        missing.map(|(file, field)| format!("src/{file}: {field} is a queue, and in no row of the table")),
    );
    let gone = listed.difference(&found);
    wrong.extend(gone.map(|(file, field)| format!("src/{file}: {field} is in the table, and no queue")));
    // The other sources have no queue: tombstones are a table, the floor is one scan.
    let unused = names.iter().filter(|name| !used.contains(*name) && !["tombstones", "floor"].contains(name));
    wrong.extend(unused.map(|name| format!("the source {name} empties no queue of the table")));
    wrong
}
