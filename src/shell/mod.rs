//! The only code of a node that waits for events, owns sockets, and knows signals and real time. It passes input across the boundary of `node`, and
//! carries out each [`crate::node::Action`].
//!
//! Not here: any rule of the protocol, and any decision about a connection that the node could make.

mod clock;
mod fd_limit;
mod listener;
mod lobby;
mod log_output;
mod reactor;
mod resolver;
mod signals;
mod socket;

pub use log_output::LogOutput;

use crate::config::{Config, explain_bind_error};
use reactor::Reactor;
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Reads the configuration again, for SIGHUP. The error is a message for the log.
pub type Reload = Box<dyn FnMut() -> Result<Config, String>>;

/// Why a node did not shut down properly. Displays as a message with advice.
#[derive(Debug)]
pub enum ShellError {
    /// The address could not be listened on.
    Bind(SocketAddr, io::Error),
    /// A system call failed that the node needs; the text names it.
    System(&'static str, io::Error),
    /// A second signal ended the node before its connections were closed.
    Interrupted,
}

impl fmt::Display for ShellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(addr, error) => f.write_str(&explain_bind_error(*addr, error)),
            Self::System(what, error) => write!(f, "cannot {what}: {error}"),
            Self::Interrupted => {
                f.write_str("a second signal ended the node before its connections were closed")
            }
        }
    }
}

impl std::error::Error for ShellError {}

/// Runs a node until SIGTERM or SIGINT has shut it down.
///
/// # Errors
/// [`ShellError`]; only `Bind` and `System` can come before the node listens.
pub fn run(config: Config, reload: Reload) -> Result<(), ShellError> {
    Reactor::start(config, reload)?.run()
}
