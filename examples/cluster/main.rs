//! A mesh of nodes on this machine, for experiments: `make run-cluster`, `make run-cluster NODES=16 PORT=6000`,
//! `make demo`.
//!
//! Starts each node as a process of its own, waits until all are linked, shows their logs, and ends the nodes on
//! Ctrl-C, SIGTERM, SIGHUP or when its output is closed. A node that ends earlier is reported with the command that
//! starts it again; the others go on. Not for production: nothing restarts a node.
//!
//! Exit codes: 0 ended by a signal, 1 a node did not start or did not end, 2 wrong usage.

mod demo;
mod follow;
mod node;
mod output;

use follow::Cluster;
use output::Output;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
cluster: a mesh of nodes on this machine, to try things with

  --nodes N        number of nodes, 1 to 64                 (default 3)
  --program PATH   the program to run                       (default: olivia, beside this program)
  --dir PATH       directory of the configuration files     (default target/cluster)
  --port N         the first port to try                    (default 5454)
  --demo           a small load on all nodes, so that their pages show data
  -h, --help       print this, exit
";

/// Processes that a demonstration may start.
const NODES_MAX: u16 = 64;

const EXIT_USAGE: u8 = 2;

/// The command line.
#[derive(Debug)]
struct Options {
    nodes: u16,
    program: PathBuf,
    dir: PathBuf,
    port: u16,
    has_load: bool,
}

fn main() -> ExitCode {
    if let Some(code) = node::run_as_child() {
        return code;
    }
    let options = match parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(sentence) => {
            eprintln!("cluster: {sentence}; see --help");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match Cluster::new(&options, Output::new()).and_then(Cluster::run) {
        Ok(code) => code,
        Err(sentence) => {
            eprintln!("cluster: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the command line. `None`: the help is requested.
fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Options>, String> {
    use lexopt::{Arg, Parser};
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.parent()?.join("olivia")));
    let mut options = Options {
        nodes: 3,
        program: beside.unwrap_or_else(|| "target/release/olivia".into()),
        dir: "target/cluster".into(),
        port: 5454,
        has_load: false,
    };
    let mut parser = Parser::from_args(args);
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Long("nodes") => options.nodes = number(&mut parser, "--nodes", 1, NODES_MAX)?,
            Arg::Long("port") => options.port = number(&mut parser, "--port", 1, u16::MAX)?,
            Arg::Long("demo") => options.has_load = true,
            Arg::Long("program") => {
                options.program = parser.value().map_err(|error| error.to_string())?.into();
            }
            Arg::Long("dir") => options.dir = parser.value().map_err(|error| error.to_string())?.into(),
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => {
                return Err(format!("'{}' is not known", shown(&arg)));
            }
        }
    }
    Ok(Some(options))
}

fn shown(arg: &lexopt::Arg<'_>) -> String {
    match arg {
        lexopt::Arg::Short(letter) => format!("-{letter}"),
        lexopt::Arg::Long(name) => format!("--{name}"),
        lexopt::Arg::Value(value) => value.to_string_lossy().into_owned(),
    }
}

fn number(parser: &mut lexopt::Parser, flag: &str, min: u16, max: u16) -> Result<u16, String> {
    let value = parser.value().map_err(|error| error.to_string())?;
    let number = value.to_str().and_then(|text| text.parse().ok());
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| format!("{flag} is '{}'; it takes {min} to {max}", value.to_string_lossy()))
}
