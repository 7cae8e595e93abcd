//! Every key of the configuration: its table, its kind, what it takes.
//!
//! The file, the environment, the flags and `--print-config` derive from this list. Not here: defaults
//! (`Config::default`) and how sources are merged (`layers`).

use super::peers;
use super::units::Unit;
use crate::limits::{EvictionPolicy, LIMIT_RANGES, LimitRange, MESH_RANGES};
use std::net::{IpAddr, SocketAddr};
use toml::Value;

/// Maximum entries of `remote_peers`: well above the links of a full mesh, and still a readable list.
pub const REMOTE_PEERS_MAX: usize = 1_024;

/// Bytes of the longest password or mesh secret: more adds no strength, and the comparison before authentication stays
/// short.
pub const SECRET_BYTES_MAX: usize = 512;

/// Bytes of the shortest mesh secret: 128 bits, if they are random.
pub const MESH_SECRET_BYTES_MIN: usize = 16;

/// Maximum characters of an operator's text that a message repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// One key of the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Its table; empty for the top level.
    pub(super) table: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// The values that a key takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Bool,
    Integer {
        min: u64,
        max: u64,
        zero: Option<&'static str>,
        unit: Unit,
    },
    Address,
    Endpoint,
    Peers,
    Secret {
        bytes_min: usize,
    },
    Path,
    /// One word of a list, in upper or lower case.
    Word(&'static [&'static str]),
}

const fn key(table: &'static str, name: &'static str, kind: Kind) -> Key {
    Key { table, name, kind }
}

pub(super) const BASE_NODE: Key = key("", "base_node", Kind::Bool);
pub(super) const LISTEN_PORT: Key = key(
    "",
    "listen_port",
    Kind::Integer { min: 0, max: 65_535, zero: Some("any free port"), unit: Unit::Count },
);
pub(super) const REMOTE_PEERS: Key = key("", "remote_peers", Kind::Peers);
pub(super) const BIND: Key = key("", "bind", Kind::Address);
pub(super) const PASSWORD: Key = key("security", "password", Kind::Secret { bytes_min: 1 });
pub(super) const PASSWORD_FILE: Key = key("security", "password_file", Kind::Path);
pub(super) const OPEN_WITHOUT_PASSWORD: Key = key("security", "open_without_password", Kind::Bool);
pub(super) const MESH_SECRET: Key = key("mesh", "secret", Kind::Secret { bytes_min: MESH_SECRET_BYTES_MIN });
pub(super) const MESH_SECRET_FILE: Key = key("mesh", "secret_file", Kind::Path);
pub(super) const ADVERTISE: Key = key("mesh", "advertise", Kind::Endpoint);
pub(super) const LOG_LEVEL: Key = key("log", "level", Kind::Word(&LEVELS));
const EVICTION: Key = key("limits", "eviction", Kind::Word(&EvictionPolicy::WORDS));
const EVICTION_ONLY_WITH_TTL: Key = key("limits", "eviction_only_with_ttl", Kind::Bool);

const KEYS_BESIDE_LIMITS: [Key; 13] = [
    BASE_NODE,
    LISTEN_PORT,
    REMOTE_PEERS,
    BIND,
    PASSWORD,
    PASSWORD_FILE,
    OPEN_WITHOUT_PASSWORD,
    MESH_SECRET,
    MESH_SECRET_FILE,
    ADVERTISE,
    LOG_LEVEL,
    EVICTION,
    EVICTION_ONLY_WITH_TTL,
];

/// The tables of the file, without the top level.
pub(super) const TABLES: [&str; 4] = ["security", "mesh", "limits", "log"];

/// All keys.
pub(super) fn keys() -> impl Iterator<Item = Key> {
    let mesh = MESH_RANGES.iter().map(|range| limit_key("mesh", range));
    let limits = LIMIT_RANGES.iter().map(|range| limit_key("limits", range));
    KEYS_BESIDE_LIMITS.into_iter().chain(mesh).chain(limits)
}

fn limit_key<L>(table: &'static str, range: &LimitRange<L>) -> Key {
    let &LimitRange { name, min, max, zero, .. } = range;
    key(table, name, Kind::Integer { min, max, zero, unit: Unit::of(name) })
}

/// The key `name` in `table`, if there is one.
pub(super) fn find(table: &str, name: &str) -> Option<Key> {
    keys().find(|key| key.table == table && key.name == name)
}

impl Key {
    /// The key as messages name it: `listen_port`, `limits.clients_max`.
    pub(super) fn path(self) -> String {
        if self.table.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.table, self.name) }
    }

    /// The environment variable that sets it.
    pub(super) fn env_name(self) -> String {
        format!("OLIVIA_{}", self.path().replace('.', "_").to_ascii_uppercase())
    }

    /// Reads the text of an environment variable or a flag.
    ///
    /// # Errors
    /// A message with the values that the key takes.
    pub(super) fn read_text(self, text: &str) -> Result<Value, String> {
        let value = match self.kind {
            Kind::Bool => match text.trim() {
                "true" => Value::Boolean(true),
                "false" => Value::Boolean(false),
                _ => return Err(self.refusal(&shown(text))),
            },
            Kind::Integer { unit, .. } => match unit.read(text) {
                Some(number) => Value::Integer(number),
                None => return Err(self.refusal(&shown(text))),
            },
            Kind::Peers if text.contains(['[', '"', '\'']) && text.contains(['"', '\'']) => {
                return Err(format!("{} takes host:port,host:port here, without quotes", self.path()));
            }
            Kind::Peers => {
                let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
                Value::Array(entries.map(|entry| Value::String(entry.to_owned())).collect())
            }
            Kind::Address | Kind::Endpoint => Value::String(text.trim().to_owned()),
            Kind::Word(_) => Value::String(text.trim().to_ascii_lowercase()),
            Kind::Secret { .. } | Kind::Path => Value::String(text.to_owned()),
        };
        self.check(&value).map(|()| value)
    }

    /// A value of the file with its unit read: `"1GiB"` is a number; a word in lower case.
    pub(super) fn with_unit(self, value: Value) -> Value {
        if let (Kind::Word(_), Value::String(text)) = (self.kind, &value) {
            return Value::String(text.to_ascii_lowercase());
        }
        let number = match (self.kind, &value) {
            (Kind::Integer { unit, .. }, Value::String(text)) if unit != Unit::Count => unit.read(text),
            _ => None,
        };
        number.map_or(value, Value::Integer)
    }

    /// A value as a file or a message shows it: `"256MiB"`, `10000`.
    pub(super) fn written(self, value: &Value) -> String {
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        let shown = match (self.kind, number) {
            (Kind::Integer { unit, .. }, Some(number)) => unit.show(number),
            _ => return value.to_string(),
        };
        if shown.bytes().all(|byte| byte.is_ascii_digit()) { shown } else { format!("\"{shown}\"") }
    }

    /// Checks the type and the range of a value.
    ///
    /// # Errors
    /// A message that names the key, shows the value (never a secret one) and names the allowed values.
    pub(super) fn check(self, value: &Value) -> Result<(), String> {
        match (self.kind, value) {
            (Kind::Bool, Value::Boolean(_)) => Ok(()),
            (Kind::Integer { min, max, zero, .. }, Value::Integer(number)) => {
                let fits = u64::try_from(*number)
                    .is_ok_and(|n| (n == 0 && zero.is_some()) || (min <= n && n <= max));
                if fits { Ok(()) } else { Err(self.refusal(&number.to_string())) }
            }
            (Kind::Address, Value::String(text)) => self.check_address(text),
            (Kind::Endpoint, Value::String(text)) => {
                let addr: Option<SocketAddr> = text.parse().ok();
                addr.filter(|addr| addr.port() > 0).map(|_| ()).ok_or_else(|| self.refusal(&shown(text)))
            }
            (Kind::Peers, Value::Array(entries)) => self.check_peers(entries),
            (Kind::Secret { .. }, Value::String(text)) => {
                self.check_secret(text).map_err(|problem| format!("{} {problem}", self.path()))
            }
            (Kind::Path, Value::String(text)) if text.is_empty() || text.contains('\0') => {
                Err(self.refusal(&shown(text)))
            }
            (Kind::Path, Value::String(_)) => Ok(()),
            (Kind::Word(words), Value::String(text)) if words.contains(&text.as_str()) => Ok(()),
            (Kind::Word(_), Value::String(text)) => Err(self.refusal(&shown(text))),
            (_, other) => Err(self.refusal(self.shown_value(other).as_str())),
        }
    }

    fn check_address(self, text: &str) -> Result<(), String> {
        if text.parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        if text.parse::<SocketAddr>().is_ok() {
            return Err(format!("{}; the port goes into listen_port", self.refusal(&shown(text))));
        }
        Err(self.refusal(&shown(text)))
    }

    fn check_peers(self, entries: &[Value]) -> Result<(), String> {
        if entries.len() > REMOTE_PEERS_MAX {
            return Err(self.refusal(&format!("a list of {}", entries.len())));
        }
        for entry in entries {
            let Value::String(text) = entry else {
                return Err(self.refusal(&format!("a list that holds {}", self.shown_value(entry))));
            };
            peers::check(text).map_err(|problem| format!("{}: {} {problem}", self.path(), shown(text)))?;
        }
        Ok(())
    }

    /// Checks the length and the characters of a secret from any source.
    ///
    /// # Errors
    /// The rest of a message that begins with the origin of the secret; the secret is not in it.
    pub(super) fn check_secret(self, text: &str) -> Result<(), String> {
        let bytes_min = if let Kind::Secret { bytes_min } = self.kind { bytes_min } else { 0 };
        if text.is_empty() {
            return Err(format!("is empty; it takes {}; leave it out for none", self.takes()));
        }
        if text.len() < bytes_min || text.len() > SECRET_BYTES_MAX {
            return Err(format!("has {} bytes; it takes {}", text.len(), self.takes()));
        }
        if text.chars().any(char::is_control) {
            return Err(format!(
                "has a line end or another control character in it; it takes {}",
                self.takes()
            ));
        }
        Ok(())
    }

    /// The message about a value that is refused.
    pub(super) fn refusal(self, shown: &str) -> String {
        let hint = if let Kind::Integer { unit, .. } = self.kind { unit.hint() } else { "" };
        format!("{} is {shown}; it takes {}{hint}", self.path(), self.takes())
    }

    /// The values that the key takes, as the end of a message.
    pub(super) fn takes(self) -> String {
        match self.kind {
            Kind::Bool => "true or false".to_owned(),
            Kind::Integer { min, max, zero, unit } => match zero {
                Some(zero) if min <= 1 => format!("0 to {} (0: {zero})", unit.show(max)),
                Some(zero) => format!("0 ({zero}) or {} to {}", unit.show(min), unit.show(max)),
                None => format!("{} to {}", unit.show(min), unit.show(max)),
            },
            Kind::Address => {
                "one IP address: 127.0.0.1, 0.0.0.0 (all of IPv4), :: (all), or an address of this machine"
                    .to_owned()
            }
            Kind::Endpoint => {
                "IP:port as other nodes reach it, such as 203.0.113.7:15454 or, with the host that they see, 0.0.0.0:15454"
                    .to_owned()
            }
            Kind::Peers => format!("a list of at most {REMOTE_PEERS_MAX} \"host:port\""),
            Kind::Secret { bytes_min } => {
                format!("{bytes_min} to {SECRET_BYTES_MAX} bytes of text without control characters")
            }
            Kind::Path => "the path of a file".to_owned(),
            Kind::Word(words) => words.join(", "),
        }
    }

    /// Shows a value in a message: by its type where it is long or has the wrong type, never a secret.
    fn shown_value(self, value: &Value) -> String {
        match value {
            Value::String(_) if matches!(self.kind, Kind::Secret { .. }) => "text".to_owned(),
            Value::String(text) => format!("text, {}", shown(text)),
            Value::Integer(_) | Value::Float(_) if matches!(self.kind, Kind::Secret { .. }) => {
                "a number, not text in quotes".to_owned()
            }
            Value::Integer(number) => format!("a number, {number}"),
            Value::Float(number) => format!("{number:?}, with a point or an exponent"),
            Value::Boolean(truth) => truth.to_string(),
            Value::Datetime(_) => "a date".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        }
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// An operator's text as a message repeats it: quoted, escaped, cut.
pub(super) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let rest = if cut.len() < text.len() { "…" } else { "" };
    format!("'{}{rest}'", cut.escape_debug())
}

/// The candidate that `word` is probably meant for: one that ends in it (`port`, `listen_port`), else one that differs
/// in at most a third of the letters, else one that has it as a part (`log`, `log-level`).
///
/// Cost: bounded by the number of candidates times the square of [`SHOWN_CHARS_MAX`].
pub(super) fn nearest(word: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let word: String = word.chars().take(SHOWN_CHARS_MAX).flat_map(char::to_lowercase).collect();
    let edits_max = (word.chars().count() / 3).max(1);
    let rank = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        let is_part = word.len() >= 3 && candidate.split(['_', '.', '-']).any(|part| part == word);
        let edits = strsim::damerau_levenshtein(&word, &candidate);
        let rest = candidate.strip_suffix(word.as_str()).filter(|_| word.len() >= 3);
        if rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(['_', '.', '-'])) {
            Some((0, candidate.len()))
        } else if edits <= edits_max {
            Some((1, edits))
        } else {
            is_part.then_some((2, candidate.len()))
        }
    };
    candidates
        .filter_map(|candidate| Some((rank(&candidate)?, candidate)))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::{Key, Kind, SHOWN_CHARS_MAX, find, keys, nearest, shown};
    use toml::Value;

    #[test]
    fn no_key_is_listed_twice() {
        let mut names: Vec<String> = keys().map(Key::env_name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_kind_refuses_every_other_type() {
        let values = [
            Value::Boolean(true),
            Value::Integer(20),
            Value::Float(1.5),
            Value::Datetime("2026-11-22".parse().unwrap()),
            Value::Table(toml::Table::new()),
            Value::Array(Vec::new()),
        ];
        for key in keys() {
            for value in &values {
                let right = match key.kind {
                    Kind::Bool => value.is_bool(),
                    Kind::Integer { .. } => value.is_integer(),
                    Kind::Peers => value.is_array(),
                    Kind::Address | Kind::Endpoint | Kind::Secret { .. } | Kind::Path | Kind::Word(_) => {
                        false
                    }
                };
                if right {
                    continue;
                }
                let message = key.check(value).unwrap_err();
                assert!(message.contains(&key.path()) && message.contains("it takes"), "{message}");
            }
        }
    }

    #[test]
    fn a_refused_secret_is_not_in_its_message() {
        let key = find("mesh", "secret").unwrap();
        for text in ["short-secret", "with a line\nend in its middle"] {
            let message = key.read_text(text).unwrap_err();
            assert!(!message.contains("secret-") && !message.contains("line\n"), "{message}");
            assert!(!message.contains("short"), "{message}");
        }
        assert!(!key.check(&Value::Integer(12_345_678)).unwrap_err().contains("12345678"));
    }

    #[test]
    fn secrets_take_their_shortest_and_longest_length() {
        let secret = find("mesh", "secret").unwrap();
        let password = find("security", "password").unwrap();
        assert!(secret.read_text(&"x".repeat(15)).is_err());
        assert!(secret.read_text(&"x".repeat(16)).is_ok());
        assert!(password.read_text("").is_err());
        assert!(password.read_text("x").is_ok());
        assert!(password.read_text(&"x".repeat(512)).is_ok());
        assert!(password.read_text(&"x".repeat(513)).is_err());
    }

    #[test]
    fn too_many_peers_are_refused() {
        let peers = find("", "remote_peers").unwrap();
        let list = |count: usize| Value::Array(vec![Value::String("a:1".to_owned()); count]);
        assert!(peers.check(&list(1_024)).is_ok());
        assert!(peers.check(&list(1_025)).unwrap_err().contains("a list of 1025"));
    }

    #[test]
    fn an_address_with_a_port_is_reported_with_the_key_of_the_port() {
        let bind = find("", "bind").unwrap();
        assert!(bind.read_text("0.0.0.0:80").unwrap_err().contains("listen_port"));
        assert!(bind.read_text("localhost").unwrap_err().contains("127.0.0.1"));
        assert!(bind.read_text("::1").is_ok());
    }

    #[test]
    fn a_mistyped_name_finds_its_neighbour() {
        let among = |word: &str| nearest(word, keys().map(|key| key.name.to_owned())).unwrap();
        assert_eq!(among("listen_prot"), "listen_port");
        assert_eq!(among("port"), "listen_port");
        assert_eq!(among("CLIENT_MAX"), "clients_max");
        assert_eq!(among("password"), "password");
        assert_eq!(nearest("home", keys().map(|key| key.name.to_owned())), None);
        assert_eq!(nearest("x", std::iter::empty()), None);
    }

    #[test]
    fn what_is_shown_is_cut_and_escaped() {
        assert_eq!(shown("a\u{1b}[2J"), "'a\\u{1b}[2J'");
        assert!(shown(&"x".repeat(1_000)).chars().count() <= SHOWN_CHARS_MAX + 3);
    }
}
