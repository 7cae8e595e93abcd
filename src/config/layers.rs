//! Merges the sources of the configuration.
//!
//! A layer (the file, the environment, the flags) holds the keys that it sets, with their origins; later layers win key
//! by key. The result is typed by serde and checked as a whole. Not here: how each source is read.

use super::schema::{self, Key};
use super::units::Unit;
use super::{Config, ConfigError, FileRead, ReadFile, Secret, explain, peers};
use crate::base::address::is_loopback;
use crate::limits::{Limits, MeshLimits};
use log::LevelFilter;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use toml::Value;

/// Bytes of a password file: a byte order mark, the longest password, and a line end.
const SECRET_FILE_BYTES_MAX: usize = 3 + schema::SECRET_BYTES_MAX + 2;

/// The mark that some editors put before UTF-8 text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The keys that one source sets, each checked by itself.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    entries: BTreeMap<(&'static str, &'static str), Entry>,
}

/// A value and its origin: `olivia.toml:12`, `OLIVIA_BIND` or `--bind`.
#[derive(Clone)]
struct Entry {
    value: Value,
    origin: String,
}

impl std::fmt::Debug for Entry {
    // Without the value, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Layer {
    /// Sets a key to a value that was checked.
    pub(super) fn set(&mut self, key: Key, value: Value, origin: String) {
        self.entries.insert((key.table, key.name), Entry { value, origin });
    }

    fn has(&self, key: Key) -> bool {
        self.entries.contains_key(&(key.table, key.name))
    }

    pub(super) fn sets_memory_max(&self) -> bool {
        self.entries.contains_key(&("limits", "memory_max"))
    }

    fn names_peers(&self) -> bool {
        self.value(schema::REMOTE_PEERS).and_then(Value::as_array).is_some_and(|list| !list.is_empty())
    }

    /// True if it sets a password or a mesh secret directly.
    pub(super) fn holds_secret(&self) -> bool {
        self.has(schema::PASSWORD) || self.has(schema::MESH_SECRET)
    }

    fn value(&self, key: Key) -> Option<&Value> {
        self.entries.get(&(key.table, key.name)).map(|entry| &entry.value)
    }

    fn text(&self, key: Key) -> Option<&str> {
        self.value(key).and_then(Value::as_str)
    }

    /// Where the key was set, as the beginning of a message.
    fn origin(&self, key: Key) -> String {
        self.entries
            .get(&(key.table, key.name))
            .map(|entry| format!("{}: ", entry.origin))
            .unwrap_or_default()
    }

    /// Messages about keys of this layer that exclude one another.
    pub(super) fn conflicts(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (direct, file) in
            [(schema::PASSWORD, schema::PASSWORD_FILE), (schema::MESH_SECRET, schema::MESH_SECRET_FILE)]
        {
            if self.has(direct) && self.has(file) {
                problems.push(format!(
                    "{}both {} and {} are set; keep one of them",
                    self.origin(file),
                    direct.path(),
                    file.path()
                ));
            }
        }
        problems
    }

    /// Merges `over` into this layer. Peers without `base_node` reset it to its default, which depends on them; a
    /// password removes a password file, and the reverse.
    fn lay(&mut self, over: Layer) {
        let mut forget = Vec::new();
        if over.names_peers() && !over.has(schema::BASE_NODE) {
            forget.push(schema::BASE_NODE);
        }
        for (one, other) in
            [(schema::PASSWORD, schema::PASSWORD_FILE), (schema::MESH_SECRET, schema::MESH_SECRET_FILE)]
        {
            if over.has(one) {
                forget.push(other);
            }
            if over.has(other) {
                forget.push(one);
            }
        }
        for key in forget {
            self.entries.remove(&(key.table, key.name));
        }
        self.entries.extend(over.entries);
    }

    fn to_table(&self) -> toml::Table {
        let mut root = toml::Table::new();
        for ((table, name), entry) in &self.entries {
            let value = entry.value.clone();
            if table.is_empty() {
                root.insert((*name).to_owned(), value);
                continue;
            }
            let inner = root.entry(*table).or_insert_with(|| Value::Table(toml::Table::new()));
            if let Value::Table(inner) = inner {
                inner.insert((*name).to_owned(), value);
            }
        }
        root
    }
}

/// The layout of the file, for serde. A secret can be read through it, but not written.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Form {
    base_node: Option<bool>,
    listen_port: u16,
    remote_peers: Vec<String>,
    bind: IpAddr,
    security: SecurityForm,
    mesh: MeshForm,
    limits: Limits,
    log: LogForm,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SecurityForm {
    #[serde(skip_serializing)]
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    open_without_password: bool,
}

/// Without `deny_unknown_fields`, which cannot be combined with `flatten`: no unknown key gets into a [`Layer`].
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct MeshForm {
    #[serde(skip_serializing)]
    secret: Option<Secret>,
    secret_file: Option<PathBuf>,
    advertise: Option<SocketAddr>,
    #[serde(flatten)]
    limits: MeshLimits,
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LogForm {
    level: String,
}

impl Default for LogForm {
    fn default() -> Self {
        Self { level: level_name(Config::default().log_level) }
    }
}

impl Default for Form {
    fn default() -> Self {
        Self::of(&Config::default())
    }
}

impl Form {
    /// The form of `config`, without its secrets.
    pub(super) fn of(config: &Config) -> Self {
        Self {
            // Left out where it has its default, so that peers that are added to a printed file change it.
            base_node: (!config.base_node || !config.remote_peers.is_empty()).then_some(config.base_node),
            listen_port: config.listen_port,
            remote_peers: config.remote_peers.clone(),
            bind: config.bind,
            security: SecurityForm {
                password: None,
                password_file: config.password_file.clone(),
                open_without_password: config.open_without_password,
            },
            mesh: MeshForm {
                secret: None,
                secret_file: config.mesh_secret_file.clone(),
                advertise: config.advertise,
                limits: config.mesh.clone(),
            },
            limits: config.limits.clone(),
            log: LogForm { level: level_name(config.log_level) },
        }
    }

    fn into_config(self) -> Result<Config, String> {
        let level = self.log.level;
        Ok(Config {
            base_node: self.base_node.unwrap_or(self.remote_peers.is_empty()),
            listen_port: self.listen_port,
            remote_peers: self.remote_peers,
            bind: self.bind,
            password: self.security.password,
            password_file: self.security.password_file,
            open_without_password: self.security.open_without_password,
            mesh_secret: self.mesh.secret,
            mesh_secret_file: self.mesh.secret_file,
            advertise: self.mesh.advertise,
            mesh: self.mesh.limits,
            limits: self.limits,
            log_level: level.parse().map_err(|_| schema::LOG_LEVEL.refusal(&schema::shown(&level)))?,
        })
    }
}

/// The level as the configuration writes it.
pub(super) fn level_name(level: LevelFilter) -> String {
    level.as_str().to_ascii_lowercase()
}

/// Merges the layers, first to last, into a configuration with its warnings. Reads the password and secret files
/// through `read`.
///
/// # Errors
/// Messages about settings that contradict each other, or about a file that cannot be read.
pub(super) fn resolve(
    layers: impl IntoIterator<Item = Layer>,
    read: &ReadFile<'_>,
) -> Result<(Config, Vec<String>), ConfigError> {
    let mut all = Layer::default();
    for layer in layers {
        all.lay(layer);
    }
    let form: Form = all
        .to_table()
        .try_into()
        .map_err(|err: toml::de::Error| ConfigError::one(err.message().to_owned()))?;
    let mut config = form.into_config().map_err(ConfigError::one)?;
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let mut secret_of = |direct: Key, file: Key| {
        let path = Path::new(all.text(file)?);
        match read_secret(direct, path, read) {
            Ok((secret, found)) => {
                warnings.extend(found);
                Some(secret)
            }
            Err(problem) => {
                problems.push(format!("{}{problem}", all.origin(file)));
                // A placeholder, so that a secret that cannot be read is reported once.
                Some(Secret::new(String::new()))
            }
        }
    };
    let password = secret_of(schema::PASSWORD, schema::PASSWORD_FILE);
    let mesh_secret = secret_of(schema::MESH_SECRET, schema::MESH_SECRET_FILE);
    config.password = password.or(config.password);
    config.mesh_secret = mesh_secret.or(config.mesh_secret);
    problems.extend(config.mesh.check().err().map(|problem| format!("[mesh] {problem}")));
    problems.extend(config.limits.check().err().map(|problem| format!("[limits] {problem}")));
    problems.extend(bind_problem(&config).map(|problem| format!("{}{problem}", all.origin(schema::BIND))));
    problems.extend(mesh_problem(&config).map(|(key, problem)| format!("{}{problem}", all.origin(key))));
    if !problems.is_empty() {
        return Err(ConfigError::new(problems));
    }
    warnings.extend(warnings_about(&config));
    Ok((config, warnings))
}

fn read_secret(key: Key, path: &Path, read: &ReadFile<'_>) -> Result<(Secret, Vec<String>), String> {
    let FileRead { bytes, open_to_others } = read(path).map_err(|err| explain::read_error(path, &err))?;
    let shown = path.display();
    if bytes.len() > SECRET_FILE_BYTES_MAX {
        return Err(format!(
            "{shown} is too long for {}; it takes {} and one line end",
            key.path(),
            key.takes()
        ));
    }
    let mut text = String::from_utf8(bytes)
        .map_err(|_| format!("{shown} is not UTF-8; {} takes {}", key.path(), key.takes()))?;
    let mut warnings = Vec::new();
    if text.starts_with(BYTE_ORDER_MARK) {
        text.remove(0);
        warnings.push(format!("{shown} begins with a byte order mark, which is ignored"));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    key.check_secret(&text).map_err(|problem| format!("{shown}, read for {}, {problem}", key.path()))?;
    if open_to_others {
        warnings.push(format!("{shown} can be read by other users; `chmod 600` stops that"));
    }
    Ok((Secret::new(text), warnings))
}

/// The message about an address beyond loopback without a password.
pub(super) fn bind_problem(config: &Config) -> Option<String> {
    let open = !is_loopback(config.bind) && config.password.is_none() && !config.open_without_password;
    open.then(|| {
        format!(
            "bind is {}, which other machines can reach, and no password is set: set password or \
             password_file in [security], or open_without_password = true there to admit everybody",
            config.bind
        )
    })
}

/// The message about a mesh beyond this machine without a secret, and the key that it concerns.
fn mesh_problem(config: &Config) -> Option<(Key, String)> {
    if config.mesh_secret.is_some() {
        return None;
    }
    let beyond = config.remote_peers.iter().find(|entry| !peers::stays_here(entry));
    let has_mesh = !config.base_node || !config.remote_peers.is_empty();
    let (key, what) = match beyond {
        Some(beyond) => (schema::REMOTE_PEERS, format!("remote_peers names {beyond}, beyond this machine")),
        None if has_mesh && !is_loopback(config.bind) => {
            (schema::BIND, format!("bind is {}, where nodes of other machines can link", config.bind))
        }
        None => return None,
    };
    let problem = format!(
        "{what}, and no mesh secret is set: set [mesh] secret or secret_file, the same on every node \
         (`openssl rand -hex 32` makes a good one)"
    );
    Some((key, problem))
}

/// Warnings about settings that are allowed but rarely intended.
fn warnings_about(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if !is_loopback(config.bind) && config.password.is_none() {
        warnings.push(format!(
            "everybody who reaches {} can read and change everything (open_without_password = true)",
            config.bind
        ));
    }
    if !config.base_node && config.remote_peers.is_empty() {
        warnings
            .push("base_node is false and remote_peers is empty: this node waits to be dialled".to_owned());
    }
    let limits = &config.limits;
    if limits.line_bytes_max <= limits.value_bytes_max {
        let [line, value] =
            [limits.line_bytes_max, limits.value_bytes_max].map(u64::from).map(|n| Unit::Bytes.show(n));
        warnings.push(format!(
            "line_bytes_max is {line}, value_bytes_max {value}: values that do not fit a line can be set in RESP only"
        ));
    }
    for (name, secret) in [("the password", &config.password), ("the mesh secret", &config.mesh_secret)] {
        let text = secret.as_ref().map_or(&b""[..], Secret::as_bytes);
        if text.trim_ascii() != text {
            warnings.push(format!("{name} begins or ends with white space, which is part of it"));
        }
    }
    warnings
}
