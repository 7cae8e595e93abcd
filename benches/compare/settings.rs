//! The settings of the measurements, and the arguments.

use super::systems::{Found, SYSTEMS, System, plan};
use lexopt::{Arg, Parser, ValueExt};
use olivia::client::bench::Plan;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const KEYS: u64 = 1_000_000;
pub(crate) const CONNECTIONS: usize = 50;

/// Keys and connections of a quick run.
const QUICK: (u64, usize) = (1_000, 4);

pub(crate) const HELP: &str = "\
make compare: Olivia beside the servers that are installed, one thread each, by turns

  ROUNDS=7        rounds, of which the medians count
  SECONDS=0.8     time per measured point
  ONLY=a,b        only these groups, and only printed: rate, latency, connections,
                  values, idle, tools, mesh, builds
  ARGS=--beside=PROGRAM   another build of Olivia, for the group builds: CPU time
                  per request by lines, this build and that one by turns
  VALKEY= REDIS= MEMCACHED= POGOCACHE=   programs, where they are not in PATH

It writes docs/measured/compare.json and renders what is made of it.
";

/// The groups of figures.
pub(crate) const GROUPS: [&str; 8] =
    ["rate", "latency", "connections", "values", "idle", "tools", "mesh", "builds"];

/// The command line.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) only: Vec<String>,
    /// Another build of Olivia.
    pub(crate) beside: Option<String>,
    /// The file of the figures; `None`: they are printed only.
    pub(crate) write: Option<PathBuf>,
    pub(crate) keys: u64,
    pub(crate) connections: usize,
    pub(crate) is_quick: bool,
}

/// The task that the arguments select.
#[derive(Debug)]
pub(crate) enum Task {
    Help,
    /// Run the echo server, with keys of this size, this value, at this port.
    Echo(usize, String, u16),
    /// Render again from the stored figures.
    Render,
    Measure(Options),
}

impl Task {
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let (keys, connections) = (KEYS, CONNECTIONS);
        let mut options = Options {
            rounds: 7,
            seconds: 0.8,
            only: Vec::new(),
            beside: None,
            write: None,
            keys,
            connections,
            is_quick: false,
        };
        let mut parser = Parser::from_args(args);
        let text = |error: lexopt::Error| error.to_string();
        while let Some(arg) = parser.next().map_err(text)? {
            match arg {
                // Cargo passes it to every benchmark.
                Arg::Long("bench") => {}
                Arg::Long("help") => return Ok(Self::Help),
                Arg::Long("render") => return Ok(Self::Render),
                Arg::Long("echo") => {
                    let key_bytes = parser.value().and_then(|value| value.parse()).map_err(text)?;
                    let value = parser.value().map_err(text)?.to_string_lossy().into_owned();
                    let port = parser.value().and_then(|value| value.parse()).map_err(text)?;
                    return Ok(Self::Echo(key_bytes, value, port));
                }
                Arg::Long("quick") => {
                    (options.keys, options.connections) = QUICK;
                    (options.rounds, options.seconds, options.is_quick) = (1, 0.02, true);
                }
                Arg::Long("rounds") => {
                    options.rounds = parser.value().and_then(|value| value.parse()).map_err(text)?;
                }
                Arg::Long("seconds") => {
                    options.seconds = parser.value().and_then(|value| value.parse()).map_err(text)?;
                }
                Arg::Long("write") => options.write = Some(super::figures::path()),
                Arg::Long("beside") => {
                    options.beside = Some(parser.value().map_err(text)?.to_string_lossy().into_owned());
                }
                Arg::Long("only") => {
                    let groups = parser.value().map_err(text)?.to_string_lossy().into_owned();
                    options.only = groups.split(',').map(str::to_owned).collect();
                }
                Arg::Long(_) | Arg::Short(_) | Arg::Value(_) => {
                    return Err(format!("{}; see --help", arg.unexpected()));
                }
            }
        }
        if options.rounds == 0 || !(0.01..=60.0).contains(&options.seconds) {
            return Err("rounds are at least 1, seconds 0.01 to 60".to_owned());
        }
        if let Some(wrong) = options.only.iter().find(|group| !GROUPS.contains(&group.as_str())) {
            return Err(format!("--only takes {}, not '{wrong}'", GROUPS.join(", ")));
        }
        if options.only.iter().any(|group| group == "builds") && options.beside.is_none() {
            return Err("builds needs --beside and the path of another build of olivia".to_owned());
        }
        Ok(Self::Measure(options))
    }
}

impl Options {
    pub(crate) fn wants(&self, group: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == group)
    }

    /// Returns the plan for a server that all measurements start from.
    pub(crate) fn plan(&self, found: &Found, addr: SocketAddr) -> Plan {
        Plan {
            connections: self.connections,
            keys: self.keys,
            warm_up: Duration::from_secs_f64(self.seconds / 4.0),
            end: olivia::client::bench::End::After(Duration::from_secs_f64(self.seconds)),
            is_filled: true,
            is_echo: found.system == System::Echo,
            ..plan(addr, found.system.protocol())
        }
    }

    /// Searches all programs, and prints how to get missing ones.
    pub(crate) fn find(&self) -> Vec<Found> {
        let mut all = Vec::new();
        for system in SYSTEMS {
            match system.find() {
                // The quick form tests this program and not the installed servers; the echo server is part of this
                // program.
                Some(_) if self.is_quick && system != System::Olivia => {}
                Some(found) => {
                    println!("{:13} {} {}", system.name(), found.program, found.version);
                    all.push(found);
                }
                None => println!("{:13} not found: {}", system.name(), system.source()),
            }
        }
        all
    }
}
