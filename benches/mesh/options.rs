//! What can be said to the bench.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The options, for people.
pub(crate) const HELP: &str = "\
cargo bench --bench mesh -- [tables] [options]

Tables; all of them, if none is named. With real processes on loopback:
  found       time from SET on one node until GET finds it on another
  hit         latency of a remote hit and of an absent key, as ratios of a local hit
  digest      bytes of the digest for each new key and peer, at several rates
  set         CPU time of a SET in a mesh of 1, 3 and 16, by where its key is
  gone        time from SET on one node until the old value is gone on another
  incr        latency and CPU time of INCR by where its key is, beside GET
  counter     100 clients that increment one key through 3 nodes
  relink      linking again with a million keys on both nodes
  idle        traffic of nodes that nobody pending anything
  dead        time until a dead peer is no longer asked
With whole meshes inside this process, by virtual time:
  queries   queries for 1,000 absent keys, and for a remote hit, over the fills of the filters
  scale       memory, traffic and queries from 3 to 100 nodes
  trace       messages, bytes and hit ratio on a trace, beside ICP

  --trace FILE   the trace: CSV with a header, columns second, object, bytes and perhaps client, .gz or
                 plain; without it one is drawn: see benches/mesh/trace.rs
  --life N       objects live for so many seconds, by the time that nodes see; else for ever
  --requests N   at most so many requests of the trace
  --write        writes the table as docs/measured/mesh_TABLE.csv too
  --quick        a tiny form, whose figures mean nothing
";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Found,
    Hit,
    Changelog,
    Queries,
    Set,
    Gone,
    Incr,
    Counter,
    Relink,
    Idle,
    Dead,
    Scale,
    Trace,
}

const TABLES: [(&str, Table); 13] = [
    ("found", Table::Found),
    ("hit", Table::Hit),
    ("digest", Table::Changelog),
    ("set", Table::Set),
    ("gone", Table::Gone),
    ("incr", Table::Incr),
    ("counter", Table::Counter),
    ("relink", Table::Relink),
    ("idle", Table::Idle),
    ("dead", Table::Dead),
    ("queries", Table::Queries),
    ("scale", Table::Scale),
    ("trace", Table::Trace),
];

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) tables: Vec<Table>,
    pub(crate) quick: bool,
    pub(crate) write: bool,
    pub(crate) trace: Option<PathBuf>,
    pub(crate) requests: Option<usize>,
    pub(crate) life: Option<Duration>,
    pub(crate) help: bool,
}

impl Options {
    /// Reads the arguments. Without `--bench`, which cargo adds when it is not a test, it is quick.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self {
            tables: Vec::new(),
            quick: true,
            write: false,
            trace: None,
            requests: None,
            life: None,
            help: false,
        };
        let mut wants_quick = false;
        let mut args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--bench" => options.quick = false,
                "--quick" => wants_quick = true,
                "--write" => options.write = true,
                "--trace" => options.trace = Some(value()?.into()),
                "--requests" => {
                    let text = value()?;
                    options.requests = Some(text.parse().map_err(|_| format!("--requests {text}"))?);
                }
                "--life" => {
                    let text = value()?;
                    let seconds = text.parse().map_err(|_| format!("--life {text}"))?;
                    options.life = Some(Duration::from_secs(seconds));
                }
                "--help" => options.help = true,
                name => match TABLES.iter().find(|(table, _)| *table == name) {
                    Some((_, table)) => options.tables.push(*table),
                    None => return Err(format!("'{name}' is not known; --help lists the tables")),
                },
            }
        }
        options.quick |= wants_quick;
        if options.tables.is_empty() {
            options.tables = TABLES.iter().map(|(_, table)| *table).collect();
        }
        Ok(options)
    }
}
