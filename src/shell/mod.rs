//! The only code that knows mio, real sockets, signals and real time. Everything that it learns goes
//! over the boundary of `node`, and everything it does it was told to by a
//! [`crate::node::Action`].
//!
//! Not here: any rule of the protocol, and any decision about a connection that the node could take.

mod clock;
mod fd_limit;
mod listener;
mod log_output;
mod reactor;
mod resolver;
mod signals;
mod socket;

use crate::config::{Config, explain_bind_error};
pub use log_output::LogOutput;
use reactor::Reactor;

use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Reads the configuration anew, for SIGHUP. The error is a sentence for the log.
pub type Reload = Box<dyn FnMut() -> Result<Config, String>>;

/// Why a node did not run to its proper end. Displays as a sentence that says what to do.
#[derive(Debug)]
pub enum ShellError {
    /// The address could not be listened on.
    Bind(SocketAddr, io::Error),
    /// This entry of `remote_peers` has no address.
    Resolve(String, io::Error),
    /// A system call that there is no node without failed; the text names it.
    System(&'static str, io::Error),
    /// A second signal ended the node before its connections had ended.
    Interrupted,
}

impl fmt::Display for ShellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(addr, error) => f.write_str(&explain_bind_error(*addr, error)),
            Self::Resolve(entry, error) => write!(
                f,
                "remote_peers names {entry}, whose address cannot be found: {error}; correct the name, or write \
                 an IP address, such as 10.0.0.2:5454"
            ),
            Self::System(what, error) => write!(f, "cannot {what}: {error}"),
            Self::Interrupted => {
                f.write_str("a second signal ended the node before its connections had ended")
            }
        }
    }
}

impl std::error::Error for ShellError {}

/// Runs a node until it is told to end by SIGTERM or SIGINT, and has ended.
///
/// # Errors
/// [`ShellError`]; only `Resolve`, `Bind` and `System` can come before the node listens.
pub fn run(mut config: Config, reload: Reload) -> Result<(), ShellError> {
    let peers = resolver::resolve(&config, resolver::ask_system)?;
    config.limits.clients_max = fd_limit::make_room(&config);
    Reactor::start(config, &peers, reload)?.run()
}
