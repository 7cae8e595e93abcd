//! Traces of requests to a cache, read from a file or generated.
//!
//! The file is CSV with a header that names at least the columns `second` (since the start, not decreasing), `object`
//! (a number) and `bytes` (of key and value), in any order, and optionally `client` (any text); others are ignored. If
//! its name ends in `.gz`, the program `gzip` unpacks it. The client of a request selects its node, at random without
//! one.
//!
//! A generated trace has a similar shape: 2,000 requests per second, objects by Zipf's law, and one request in seven
//! for a new object.

use olivia::base::rng::Rng;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

/// Requests of a generated trace, per second and in total.
const DRAWN_PER_SECOND: u64 = 2_000;
const DRAWN: usize = 1_000_000;

/// One in this many requests is for a new object.
const NEW_ONE_IN: u64 = 7;

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) second: u64,
    pub(crate) object: u64,
    pub(crate) bytes: usize,
    /// A hash of the client, or random.
    pub(crate) client: u64,
}

/// Reads at most `most` requests of a file.
pub(crate) fn read(path: &Path, most: usize) -> Result<Vec<Request>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(failed)?;
    if path.extension().is_none_or(|extension| extension != "gz") {
        return parse(BufReader::new(file), most);
    }
    let mut unpacker = Command::new("gzip")
        .arg("-dc")
        .stdin(file)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("gzip: {error}"))?;
    let requests = match unpacker.stdout.take() {
        Some(text) => parse(BufReader::new(text), most),
        None => Err("gzip has no output".to_owned()),
    };
    // It may still be unpacking requests beyond `most`.
    let _ = unpacker.kill();
    unpacker.wait().map_err(failed)?;
    requests
}

fn parse(text: impl Read, most: usize) -> Result<Vec<Request>, String> {
    let mut lines = BufReader::new(text).lines();
    let header = lines.next().ok_or("an empty trace")?.map_err(|error| error.to_string())?;
    let columns: Vec<&str> = header.split(',').map(str::trim).collect();
    let column = |name: &str| columns.iter().position(|column| *column == name);
    let need = |name: &str| column(name).ok_or(format!("the trace has no column {name}"));
    let (second, object, bytes, client) =
        (need("second")?, need("object")?, need("bytes")?, column("client"));
    let mut rng = Rng::new(1);
    let mut requests: Vec<Request> = Vec::new();
    for line in lines.take(most) {
        let line = line.map_err(|error| error.to_string())?;
        let cells: Vec<&str> = line.split(',').collect();
        let number = |at: usize| cells.get(at).and_then(|cell| cell.trim().parse::<u64>().ok());
        let read = number(second).zip(number(object)).zip(number(bytes));
        let Some(((second, object), bytes)) = read else { return Err(format!("'{line}' in the trace")) };
        let client = match client.and_then(|at| cells.get(at)) {
            Some(client) => hash_of(client),
            None => rng.next_u64(),
        };
        if requests.last().is_some_and(|last| last.second > second) {
            return Err(format!("'{line}' in the trace goes back in time"));
        }
        requests.push(Request {
            second,
            object,
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            client,
        });
    }
    Ok(requests)
}

fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Generates at most `most` requests.
pub(crate) fn draw(most: usize) -> Vec<Request> {
    let mut rng = Rng::new(2);
    let mut known = 1;
    let request = |n: usize| {
        let object = if rng.one_in(NEW_ONE_IN) {
            known += 1;
            known - 1
        } else {
            // By Zipf's law with an exponent of 1: the logarithm of the rank is uniform.
            let part = rng.below(1 << 53) as f64 / (1u64 << 53) as f64;
            #[expect(clippy::cast_possible_truncation, reason = "from 1 to the number of objects")]
            let rank = (known as f64).powf(part) as u64;
            rank.min(known) - 1
        };
        let bytes = 50 + usize::try_from(rng.below(700)).unwrap_or(0);
        Request { second: n as u64 / DRAWN_PER_SECOND, object, bytes, client: rng.next_u64() }
    };
    (0..most.min(DRAWN)).map(request).collect()
}
