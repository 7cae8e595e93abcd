//! What an operator can say to a node, and where it was said.
//!
//! Defaults, then the file, then the environment, then flags; the later ones win key by key. Nothing
//! here opens a file or reads the environment: `main` hands in the arguments, the variables and a
//! function that reads a file, so that all of it can be tested and fuzzed.
//!
//! Reading order: `schema` (every key and what it takes), `layers` (how sources are laid over one
//! another and checked), then the sources, `file`, `env` and `flags`.

mod env;
mod explain;
mod file;
mod flags;
mod layers;
mod peers;
mod print;
mod schema;

pub use explain::explain_bind_error;
pub use file::parse_toml;
pub use flags::HELP;
pub use layers::Layer;
pub use print::{DEFAULT_TEXT, print_config};
pub use schema::{MESH_SECRET_BYTES_MIN, REMOTE_PEERS_MAX, SECRET_BYTES_MAX};

use crate::limits::{Limits, MeshLimits};
use log::LevelFilter;
use serde::Deserialize;
use std::ffi::OsString;
use std::fmt::{self, Debug, Display, Formatter};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// Bytes of a configuration file; the shipped one has 4 KiB, so a larger one is not what it seems.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Where a configuration file is looked for, in this order, when none is named.
pub const LOOKED_AT: [&str; 2] = ["olivia.toml", "/etc/olivia/olivia.toml"];

/// The effective configuration of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// True: the first node of a mesh, which dials nobody at start.
    pub base_node: bool,
    /// The one port, for people, programs and peers. 0: any free one.
    pub listen_port: u16,
    /// The nodes dialled at start, as `host:port`, each checked. At most [`REMOTE_PEERS_MAX`].
    pub remote_peers: Vec<String>,
    /// The address listened on.
    pub bind: IpAddr,
    /// The password that clients must give, if any: 1 to [`SECRET_BYTES_MAX`] bytes.
    pub password: Option<Secret>,
    /// The file that the password was read from, if it was.
    pub password_file: Option<PathBuf>,
    /// True: a bind beyond loopback without a password is wanted.
    pub open_without_password: bool,
    /// The secret that all members of the mesh share, if any: [`MESH_SECRET_BYTES_MIN`] to
    /// [`SECRET_BYTES_MAX`] bytes.
    pub mesh_secret: Option<Secret>,
    /// The file that the mesh secret was read from, if it was.
    pub mesh_secret_file: Option<PathBuf>,
    /// Numbers of the mesh, each with a default.
    pub mesh: MeshLimits,
    /// Limits, each with a default.
    pub limits: Limits,
    /// How much is logged.
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
            mesh: MeshLimits::default(),
            limits: Limits::default(),
            log_level: LevelFilter::Info,
        }
    }
}

impl Config {
    /// What a running node goes on with when `new` was read: `new`, but for what cannot change while
    /// running, which stays, with a sentence for each such difference.
    ///
    /// The password stays too if `new` would leave an address beyond loopback open by taking it away.
    pub fn reload_from(&self, new: Config) -> (Config, Vec<String>) {
        let mut notes = Vec::new();
        let mut stays = |name: &str, now: &dyn Display, then: &dyn Display| {
            notes.push(format!("{name} stays {now} until a restart; the configuration now says {then}"));
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
            notes.push("the mesh secret stays what it was until a restart".to_owned());
        }
        if self.mesh != new.mesh {
            notes.push("the numbers in [mesh] stay what they were until a restart".to_owned());
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
            notes.push(format!("the password rules stay what they were: {problem}"));
            merged.password = self.password.clone();
            merged.password_file = self.password_file.clone();
            merged.open_without_password = self.open_without_password;
        }
        (merged, notes)
    }
}

/// A password or a mesh secret: text that is not shown by `Debug`, and has no `Display`.
///
/// Its equality takes a time that tells how much was equal; what a client gave is compared by the node,
/// with `subtle`.
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

/// Everything a configuration is made of, but the files.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The arguments, without the program's name.
    pub args: Vec<OsString>,
    /// The environment, all of it; only names beginning with `OLIVIA_` are looked at.
    pub env: Vec<(OsString, OsString)>,
    /// The file that an earlier [`load`] found by looking, if any: then it must still be there, so that
    /// a reload while it is missing does not fall back to defaults.
    pub found: Option<PathBuf>,
}

/// A file's content, as [`load`] needs it.
#[derive(Debug, Clone, Default)]
pub struct FileRead {
    /// The content, or the first bytes of it, at least [`FILE_BYTES_MAX`] and one.
    pub bytes: Vec<u8>,
    /// True if the group or all users may read the file.
    pub open_to_others: bool,
}

/// Reads a file. A directory is to fail with [`ErrorKind::IsADirectory`].
pub type ReadFile<'a> = dyn Fn(&Path) -> io::Result<FileRead> + 'a;

/// What the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Be a node.
    Run,
    /// Say whether the configuration is fine.
    CheckConfig,
    /// Print the effective configuration.
    PrintConfig,
    /// Print the version.
    Version,
    /// Print [`HELP`].
    Help,
}

/// What [`load`] made of its sources.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What to do.
    pub command: Command,
    /// With what. The defaults, where the command needs no configuration.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Sentences for the log at level info: where the configuration was looked for.
    pub notes: Vec<String>,
    /// Sentences for the log at level warn: what is allowed, and seldom meant.
    pub warnings: Vec<String>,
}

/// Why there is no configuration: sentences for the operator, one a line, none with a secret in it.
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

/// Makes the configuration from its sources, reading files through `read`: the configuration file, and
/// the password and secret files it names.
///
/// `--help` and `--version` need no configuration, so a broken one does not stand in their way.
///
/// # Errors
/// Sentences about everything that was found wrong; exit code 2. Nothing was changed.
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
            let (config, warnings) = layers::resolve([file, environment.layer, flags.layer], read)?;
            loaded.config = config;
            loaded.warnings.extend(warnings);
            loaded.notes.push(where_it_looked(loaded.file.as_deref()));
            Ok(loaded)
        }
        Ok(_) => Err(ConfigError::new(problems)),
        Err(error) => {
            problems.splice(0..0, error.0);
            Err(ConfigError::new(problems))
        }
    }
}

/// The configuration file and its content: the named one, else the first that exists where it is
/// looked for.
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
        loaded.warnings.push(format!("{name} begins with a byte order mark; save it as UTF-8 without one"));
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
