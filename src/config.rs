//! The configuration: built-in defaults, the file, the environment, flags; the later win key by key.
//!
//! Nothing here opens a file or reads the environment: `main` passes the arguments, the variables and a function that
//! reads a file, so that all of it can be tested and fuzzed.
//!
//! Reading order: `schema` (every key and what it takes), `units`, `layers` (how sources are merged and checked), then
//! the sources, `file`, `env` and `flags`.

mod env;
mod explain;
mod file;
mod flags;
mod layers;
mod memory;
mod peers;
mod print;
mod running;
mod schema;
mod units;

pub use explain::explain_bind_error;
pub use file::parse_toml;
pub use flags::HELP;
pub use layers::Layer;
pub use memory::memory_max_of;
pub use print::{DEFAULT_TEXT, print_config};
pub use running::settings;
pub use schema::{MESH_SECRET_BYTES_MIN, REMOTE_PEERS_MAX, SECRET_BYTES_MAX};

use crate::limits::{Limits, MeshLimits};
use log::LevelFilter;
use serde::Deserialize;
use std::ffi::OsString;
use std::fmt::{self, Debug, Display, Formatter};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Bytes of a configuration file; the shipped one has 4 KiB, so a larger one is probably another file.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// The paths at which the configuration file is looked for, in this order, if none is named.
pub const LOOKED_AT: [&str; 2] = ["olivia.toml", "/etc/olivia/olivia.toml"];

/// The effective configuration of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// True: ready without waiting for its configured peers. They are dialled nevertheless.
    pub base_node: bool,
    /// The one port, for people, programs and peers. 0: any free one.
    pub listen_port: u16,
    /// The nodes to dial, as `host:port`, each checked. At most [`REMOTE_PEERS_MAX`].
    pub remote_peers: Vec<String>,
    /// The address listened on.
    pub bind: IpAddr,
    /// The password of clients, if any: 1 to [`SECRET_BYTES_MAX`] bytes.
    pub password: Option<Secret>,
    /// The file that the password was read from, if it was.
    pub password_file: Option<PathBuf>,
    /// True: a bind beyond loopback without a password is allowed.
    pub open_without_password: bool,
    /// The secret that all nodes of the mesh share, if any: [`MESH_SECRET_BYTES_MIN`] to
    /// [`SECRET_BYTES_MAX`] bytes.
    pub mesh_secret: Option<Secret>,
    /// The file that the mesh secret was read from, if it was.
    pub mesh_secret_file: Option<PathBuf>,
    /// The address that other nodes are to dial, if it is not the one listened on. Its host may be unspecified: other
    /// nodes then use the host from which this node connects.
    pub advertise: Option<SocketAddr>,
    /// Settings of the mesh.
    pub mesh: MeshLimits,
    /// Limits.
    pub limits: Limits,
    /// The least important level that is logged.
    pub log_level: LevelFilter,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base_node: true,
            listen_port: 5454,
            remote_peers: Vec::new(),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            password: None,
            password_file: None,
            open_without_password: false,
            mesh_secret: None,
            mesh_secret_file: None,
            advertise: None,
            mesh: MeshLimits::default(),
            limits: Limits::default(),
            log_level: LevelFilter::Info,
        }
    }
}

impl Config {
    /// The configuration of a running node after a reload: `new`, except for settings that need a restart, with a
    /// message per setting that differs.
    ///
    /// The password stays too if removing it would open an address beyond loopback.
    pub fn reload_from(&self, new: Config) -> (Config, Vec<String>) {
        let mut notes = Vec::new();
        let mut stays = |name: &str, now: &dyn Display, then: &dyn Display| {
            notes.push(format!("{name} stays {now} until a restart (configured: {then})"));
        };
        if self.bind != new.bind {
            stays("bind", &self.bind, &new.bind);
        }
        if self.listen_port != new.listen_port {
            stays("listen_port", &self.listen_port, &new.listen_port);
        }
        if self.base_node != new.base_node {
            stays("base_node", &self.base_node, &new.base_node);
        }
        if self.remote_peers != new.remote_peers {
            let list = |peers: &[String]| format!("[{}]", peers.join(", "));
            stays("remote_peers", &list(&self.remote_peers), &list(&new.remote_peers));
        }
        if self.mesh_secret != new.mesh_secret {
            notes.push("[mesh] secret stays unchanged until a restart".to_owned());
        }
        if self.mesh != new.mesh || self.advertise != new.advertise {
            notes.push("[mesh] stays unchanged until a restart".to_owned());
        }
        let mut merged = Config {
            base_node: self.base_node,
            listen_port: self.listen_port,
            remote_peers: self.remote_peers.clone(),
            bind: self.bind,
            mesh_secret: self.mesh_secret.clone(),
            mesh_secret_file: self.mesh_secret_file.clone(),
            mesh: self.mesh.clone(),
            ..new
        };
        if let Some(problem) = layers::bind_problem(&merged) {
            notes.push(format!("[security] stays unchanged: {problem}"));
            merged.password = self.password.clone();
            merged.password_file = self.password_file.clone();
            merged.open_without_password = self.open_without_password;
        }
        (merged, notes)
    }
}

impl Config {
    /// The differences of `new`, as `limits.clients_max 100 -> 200`; `None` if there are none. Secrets are named only.
    pub fn changes_to(&self, new: &Config) -> Option<String> {
        print::changes(self, new)
    }
}

/// A password or a mesh secret: text that is not shown by `Debug`, and has no `Display`.
///
/// Its equality is not constant-time; the node compares the passwords of clients with `subtle`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`, whatever its length.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Debug for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

/// The sources of a configuration, without the files.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The arguments, without the program's name.
    pub args: Vec<OsString>,
    /// The whole environment; only names that begin with `OLIVIA_` are used.
    pub env: Vec<(OsString, OsString)>,
    /// The file that an earlier [`load`] found: it must still exist, so that a reload while it is missing does not fall
    /// back to defaults.
    pub found: Option<PathBuf>,
}

/// A file's content, as [`load`] needs it.
#[derive(Debug, Clone, Default)]
pub struct FileRead {
    /// The content; of a longer file at least [`FILE_BYTES_MAX`] + 1 bytes.
    pub bytes: Vec<u8>,
    /// True if the group or all users may read the file.
    pub open_to_others: bool,
}

/// Reads a file. A directory is to fail with [`ErrorKind::IsADirectory`].
pub type ReadFile<'a> = dyn Fn(&Path) -> io::Result<FileRead> + 'a;

/// The action that the command line requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Run a node.
    Run,
    /// Check the configuration.
    CheckConfig,
    /// Print the effective configuration.
    PrintConfig,
    /// Print the version.
    Version,
    /// Print [`HELP`].
    Help,
}

/// The result of [`load`].
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The command.
    pub command: Command,
    /// The configuration; the defaults, where the command needs none.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Messages for the log at level INFO: where the configuration was looked for.
    pub notes: Vec<String>,
    /// Messages for the log at level WARN: settings that are allowed but rarely intended.
    pub warnings: Vec<String>,
}

/// The error of [`load`]: messages for the operator, one per line, none with a secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Vec<String>);

impl ConfigError {
    fn new(problems: Vec<String>) -> Self {
        Self(problems)
    }

    fn one(problem: String) -> Self {
        Self(vec![problem])
    }
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Makes the configuration from its sources, reading files through `read`: the configuration file, and the password
/// and secret files that it names. `--help` and `--version` work with a broken configuration too.
///
/// # Errors
/// A message per problem; exit code 2.
pub fn load(sources: &Sources, read: &ReadFile<'_>) -> Result<Loaded, ConfigError> {
    let flags = flags::parse(&sources.args)?;
    let mut loaded = Loaded {
        command: flags.command,
        config: Config::default(),
        file: None,
        notes: Vec::new(),
        warnings: Vec::new(),
    };
    if matches!(flags.command, Command::Help | Command::Version) {
        return Ok(loaded);
    }
    let environment = env::read(&sources.env);
    let mut problems = environment.problems;
    let named = match (flags.config, environment.config) {
        (Some(path), _) => Some(("--config: ", path)),
        (None, Some(path)) => Some(("OLIVIA_CONFIG: ", path)),
        (None, None) => sources.found.clone().map(|path| ("", path)),
    };
    let file = find_file(named, read).and_then(|found| match found {
        Some((path, content)) => read_layer(&path, &content, &mut loaded),
        None => Ok(Layer::default()),
    });
    match file {
        Ok(file) if problems.is_empty() => {
            let sets_memory =
                [&file, &environment.layer, &flags.layer].iter().any(|layer| layer.sets_memory_max());
            let (config, warnings) = layers::resolve([file, environment.layer, flags.layer], read)?;
            loaded.config = config;
            loaded.warnings.extend(warnings);
            loaded.notes.push(where_it_looked(loaded.file.as_deref()));
            if !sets_memory {
                loaded.notes.extend(memory::set_default(&mut loaded.config, read));
            }
            Ok(loaded)
        }
        Ok(_) => Err(ConfigError::new(problems)),
        Err(error) => {
            problems.splice(0..0, error.0);
            Err(ConfigError::new(problems))
        }
    }
}

/// The configuration file and its content: the named one, else the first of [`LOOKED_AT`] that exists.
fn find_file(
    named: Option<(&str, PathBuf)>,
    read: &ReadFile<'_>,
) -> Result<Option<(PathBuf, FileRead)>, ConfigError> {
    if let Some((by, path)) = named {
        return match read(&path) {
            Ok(content) => Ok(Some((path, content))),
            Err(err) => Err(ConfigError::one(format!("{by}{}", explain::read_error(&path, &err)))),
        };
    }
    for path in LOOKED_AT.map(PathBuf::from) {
        match read(&path) {
            Ok(content) => return Ok(Some((path, content))),
            Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(err) => return Err(ConfigError::one(explain::read_error(&path, &err))),
        }
    }
    Ok(None)
}

fn read_layer(path: &Path, content: &FileRead, loaded: &mut Loaded) -> Result<Layer, ConfigError> {
    let (text, marked) = file::decode(path, &content.bytes).map_err(ConfigError::one)?;
    let name = path.display();
    let layer = parse_toml(&name.to_string(), text)?;
    if marked {
        loaded.warnings.push(format!("{name} begins with a byte order mark, which is ignored"));
    }
    if layer.holds_secret() && content.open_to_others {
        loaded
            .warnings
            .push(format!("{name} holds a secret and can be read by other users; `chmod 600` stops that"));
    }
    loaded.file = Some(path.to_owned());
    Ok(layer)
}

fn where_it_looked(file: Option<&Path>) -> String {
    match file {
        Some(path) => format!("configuration read from {}", path.display()),
        None => format!("no configuration file: looked at {}", LOOKED_AT.join(", then at ")),
    }
}

#[cfg(test)]
mod tests;
