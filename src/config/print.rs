//! The effective configuration as a file: the shipped `olivia.toml`, line by line, with other values. Secrets are not
//! printed; a comment states that one is set.

use super::layers::Form;
use super::schema::{self, Key};
use super::{Config, ConfigError};
use toml::Value;

/// The shipped `olivia.toml`: every key with its default, unit and meaning.
pub const DEFAULT_TEXT: &str = include_str!("../../olivia.toml");

/// `config` as a file. If no secret is set directly, it loads back to an equal configuration.
///
/// # Errors
/// A message if a limit exceeds a TOML number, which no limit of a loaded configuration does.
pub fn print_config(config: &Config) -> Result<String, ConfigError> {
    let values = toml::Table::try_from(Form::of(config))
        .map_err(|err| ConfigError::one(format!("this configuration cannot be printed: {err}")))?;
    let mut table = "";
    let mut text = String::with_capacity(DEFAULT_TEXT.len());
    for line in DEFAULT_TEXT.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = name;
        }
        match key_of(table, line) {
            Some(key) => text.push_str(&set_line(config, &values, key).unwrap_or_else(|| line.to_owned())),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    Ok(text)
}

/// The key that a line sets, or would set without the `#` right before it.
fn key_of(table: &str, line: &str) -> Option<Key> {
    let (name, _) = line.strip_prefix('#').unwrap_or(line).split_once(" = ")?;
    schema::find(table, name)
}

/// The line that sets `key`; `None`: it is not set.
fn set_line(config: &Config, values: &toml::Table, key: Key) -> Option<String> {
    let hidden = match (key.table, key.name) {
        ("security", "password") => config.password.is_some() && config.password_file.is_none(),
        ("mesh", "secret") => config.mesh_secret.is_some() && config.mesh_secret_file.is_none(),
        _ => false,
    };
    if hidden {
        return Some(format!("# {} is set; not shown", key.name));
    }
    let table = if key.table.is_empty() { values } else { values.get(key.table)?.as_table()? };
    let value: &Value = table.get(key.name)?;
    Some(format!("{} = {}", key.name, key.written(value)))
}

/// The differences of two configurations, key by key; `None` if there are none.
pub(super) fn changes(old: &Config, new: &Config) -> Option<String> {
    let tables = [old, new].map(|config| toml::Table::try_from(Form::of(config)).unwrap_or_default());
    let shown = |values: &toml::Table, key: Key| {
        let table = if key.table.is_empty() { values } else { values.get(key.table)?.as_table()? };
        Some(key.written(table.get(key.name)?))
    };
    let mut changes: Vec<String> = schema::keys()
        .filter_map(|key| {
            let [old, new] =
                tables.each_ref().map(|values| shown(values, key).unwrap_or("not set".to_owned()));
            (old != new).then(|| format!("{} {old} -> {new}", key.path()))
        })
        .collect();
    if old.password != new.password {
        changes.push("security.password".to_owned());
    }
    (!changes.is_empty()).then(|| changes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT_TEXT, key_of, print_config};
    use crate::config::schema::{self, Kind};
    use crate::config::tests::loaded;
    use crate::config::{Config, Secret};
    use crate::limits::{LIMIT_RANGES, LimitRange, Limits, MESH_RANGES, MeshLimits};
    use std::path::PathBuf;

    #[test]
    fn the_shipped_file_is_what_the_defaults_print() {
        // Without a limit, since it is not known here how much memory there is.
        let text = DEFAULT_TEXT.replace("#memory_max = 0", "memory_max = 0");
        assert_eq!(print_config(&Config::default()).unwrap(), text);
    }

    #[test]
    fn the_shipped_file_has_every_key_once_right_below_its_comment() {
        for key in schema::keys() {
            let mut table = "";
            let mut before = "";
            let mut found = 0;
            for line in DEFAULT_TEXT.lines() {
                if line.starts_with('[') {
                    table = line.trim_matches(['[', ']']);
                }
                if key_of(table, line).is_some_and(|k| k.table == key.table && k.name == key.name) {
                    found += 1;
                    assert!(before.starts_with("# "), "{} has no comment", key.path());
                    if let Kind::Integer { .. } = key.kind {
                        assert!(before.contains(&key.takes()), "{}: {before}: {}", key.path(), key.takes());
                    }
                }
                before = line;
            }
            assert_eq!(found, 1, "{}", key.path());
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = Config {
            password: Some(Secret::new("hunter2".to_owned())),
            mesh_secret: Some(Secret::new("0123456789abcdef".to_owned())),
            ..Config::default()
        };
        let text = print_config(&config).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("0123456789abcdef"));
        assert!(text.contains("\n# password is set; not shown\n"));
        assert!(text.contains("\n# secret is set; not shown\n"));
        assert!(loaded(&text).is_ok());
    }

    #[test]
    fn where_a_secret_was_read_from_is_printed() {
        let config = Config {
            password: Some(Secret::new("hunter2".to_owned())),
            password_file: Some(PathBuf::from("/run/it's \"here\"\n")),
            ..Config::default()
        };
        let text = print_config(&config).unwrap();
        assert!(!text.contains("not shown"));
        assert!(crate::config::parse_toml("x", &text).is_ok(), "{text}");
    }

    /// A number below `below`, from a seeded generator: a configuration can be drawn again by its seed.
    fn draw(state: &mut u64, below: u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 16) % below
    }

    /// A value for each key within its range.
    fn draw_all<L>(state: &mut u64, ranges: &[LimitRange<L>]) -> toml::Table {
        let value = |range: &LimitRange<L>| {
            let value = range.min + draw(state, range.max - range.min + 1);
            (range.name.to_owned(), toml::Value::Integer(value.try_into().unwrap()))
        };
        ranges.iter().map(value).collect()
    }

    #[test]
    fn what_is_printed_loads_back_to_the_same_configuration() {
        for seed in 0..200 {
            let state = &mut { seed };
            let mut limits: Limits = draw_all(state, &LIMIT_RANGES).try_into().unwrap();
            let mut mesh: MeshLimits = draw_all(state, &MESH_RANGES).try_into().unwrap();
            mesh.lookup_timeout_ms = mesh.lookup_timeout_ms.max(mesh.lookup_try_ms);
            mesh.known_peers_max = mesh.known_peers_max.max(mesh.active_peers);
            limits.reply_bytes_max = limits.reply_bytes_max.max(limits.value_bytes_max);
            limits.buffers_max = limits.buffers_max.max(limits.reply_bytes_max.into());
            let peers = ["localhost:1", "127.0.0.1:65535", "[::1]:5454"];
            let bind = usize::try_from(draw(state, 4)).unwrap();
            // A node of a mesh that other machines reach needs a secret, which is not printed.
            let is_alone = bind < 2;
            let config = Config {
                base_node: is_alone || draw(state, 2) == 0,
                listen_port: u16::try_from(draw(state, 65_536)).unwrap(),
                remote_peers: (0..if is_alone { 0 } else { draw(state, 4) })
                    .map(|_| peers[usize::try_from(draw(state, 3)).unwrap()].to_owned())
                    .collect(),
                bind: ["0.0.0.0", "::", "127.0.0.2", "::1"][bind].parse().unwrap(),
                open_without_password: true,
                limits,
                mesh,
                log_level: log::LevelFilter::iter().nth(usize::try_from(draw(state, 6)).unwrap()).unwrap(),
                ..Config::default()
            };
            let text = print_config(&config).unwrap();
            assert_eq!(loaded(&text).unwrap().config, config, "seed {seed}\n{text}");
        }
    }
}
