//! The subcommands of the program that talk to a running node. They use the wire format and no code of the node.
//!
//! `olivia ask HOST:PORT REQUEST` sends one request and prints the reply, one field per line; `olivia top HOST:PORT`
//! shows a node live; `olivia bench HOST:PORT` measures it under load.

mod ask;
pub mod bench;
mod connection;
mod reply;
mod table;
mod terminal;
mod top;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;

/// The error of a subcommand. Displays as a sentence.
#[derive(Debug)]
pub enum ClientError {
    /// The arguments are wrong: what is wrong, or what would be right.
    Usage(String),
    /// The node cannot be reached, or the connection broke: what was tried, and why it failed.
    Connection(String, io::Error),
    /// The node answered with an error.
    Refused(String),
    /// The node has a password, and none was given.
    Unauthenticated,
    /// A measurement failed, or replies were wrong.
    Bench(String),
    /// Writing to standard output or the terminal failed.
    Output(io::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(what, error) => write!(f, "cannot {what}: {error}"),
            Self::Usage(sentence) | Self::Refused(sentence) | Self::Bench(sentence) => f.write_str(sentence),
            Self::Unauthenticated => {
                f.write_str("authentication needed; the password is taken from OLIVIA_SECURITY_PASSWORD")
            }
            Self::Output(error) => write!(f, "cannot write to the terminal: {error}"),
        }
    }
}

const ASK_USAGE: &str =
    "usage: olivia ask HOST:PORT 'REQUEST', as in: olivia ask 127.0.0.1:5454 'STATS mesh'";
const TOP_USAGE: &str =
    "usage: olivia top HOST:PORT, which shows a node and its mesh each second until q or Ctrl-C";

/// Whether the arguments, without the program's name, call a subcommand.
pub fn is_called(args: &[OsString]) -> bool {
    args.first().is_some_and(|name| name == "ask" || name == "top" || name == "bench")
}

/// Runs the subcommand that the arguments call. `password` is sent first, if there is one.
///
/// # Errors
/// [`ClientError`], to be shown; earlier output is not taken back.
pub fn run(args: &[OsString], password: Option<&OsStr>) -> Result<(), ClientError> {
    let words: Option<Vec<&str>> = args.iter().map(|arg| arg.to_str()).collect();
    let password = password.map(OsStr::as_encoded_bytes);
    let result = match words.as_deref() {
        Some([name @ ("ask" | "top"), "-h" | "--help"]) => {
            return terminal::print(&[if *name == "ask" { ASK_USAGE } else { TOP_USAGE }.to_owned()]);
        }
        Some(["ask", address, request]) => ask::run(address, request, password),
        Some(["top", address]) => top::run(address, password),
        Some(["top", ..]) => Err(ClientError::Usage(TOP_USAGE.to_owned())),
        Some(["bench", ..]) => bench::command(&args[1..], password),
        _ => Err(ClientError::Usage(ASK_USAGE.to_owned())),
    };
    match result {
        Err(ClientError::Refused(sentence))
            if password.is_none() && sentence.starts_with("authentication needed") =>
        {
            Err(ClientError::Unauthenticated)
        }
        result => result,
    }
}
