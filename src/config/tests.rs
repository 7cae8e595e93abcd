//! The configuration as a whole: from sources to a configuration or messages.

use super::schema::{self, Kind};
use super::{Command, Config, ConfigError, FileRead, Loaded, Secret, Sources, load};
use crate::limits::{Limits, MeshLimits};
use log::LevelFilter;
use std::ffi::OsString;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

pub(super) fn no_files(_: &Path) -> Result<FileRead> {
    Err(Error::from(ErrorKind::NotFound))
}

pub(super) fn env(variables: &[(&str, &str)]) -> Sources {
    sources(&[], variables)
}

fn sources(args: &[&str], variables: &[(&str, &str)]) -> Sources {
    Sources {
        args: args.iter().map(OsString::from).collect(),
        env: variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect(),
        found: None,
    }
}

/// A file system of a few files.
fn files<'a>(files: &'a [(&'a str, &'a [u8])]) -> impl Fn(&Path) -> Result<FileRead> + 'a {
    move |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        match found {
            Some((_, bytes)) => Ok(FileRead { bytes: bytes.to_vec(), open_to_others: false }),
            None => no_files(path),
        }
    }
}

/// Loads `text` as the file in the current directory, and nothing else.
pub(super) fn loaded(text: &str) -> std::result::Result<Loaded, ConfigError> {
    load(&Sources::default(), &files(&[("olivia.toml", text.as_bytes())]))
}

fn problem(text: &str) -> String {
    loaded(text).unwrap_err().to_string()
}

/// Every layer at once.
fn layered(args: &[&str], variables: &[(&str, &str)], text: &str) -> Config {
    load(&sources(args, variables), &files(&[("olivia.toml", text.as_bytes())])).unwrap().config
}

#[test]
fn without_any_source_it_listens_on_loopback_at_5454() {
    let loaded = load(&Sources::default(), &no_files).unwrap();
    assert_eq!(loaded.command, Command::Run);
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.config.listen_port, 5454);
    assert_eq!(loaded.config.bind.to_string(), "127.0.0.1");
    assert!(loaded.config.base_node);
    assert_eq!(
        loaded.notes,
        ["no configuration file: looked at olivia.toml, then at /etc/olivia/olivia.toml"]
    );
    assert!(loaded.warnings.is_empty());
}

#[test]
fn every_key_can_be_set_from_the_environment_and_from_the_file() {
    for key in schema::keys() {
        let (text, toml) = match key.kind {
            Kind::Bool if key.name == "base_node" => ("false".to_owned(), "false".to_owned()),
            Kind::Bool => ("true".to_owned(), "true".to_owned()),
            Kind::Integer { .. } if key.name == "buffers_max" => {
                ("99999999".to_owned(), "99999999".to_owned())
            }
            Kind::Integer { .. } if key.name == "memory_max" => {
                ("2_000_000".to_owned(), "2000000".to_owned())
            }
            Kind::Integer { min, .. } => ((min + 1).to_string(), (min + 1).to_string()),
            Kind::Address => ("127.0.0.9".to_owned(), "'127.0.0.9'".to_owned()),
            Kind::Endpoint => ("203.0.113.7:1".to_owned(), "'203.0.113.7:1'".to_owned()),
            Kind::Peers => ("localhost:1, [::1]:2".to_owned(), "['localhost:1', '[::1]:2']".to_owned()),
            Kind::Secret { .. } => ("0123456789abcdef".to_owned(), "'0123456789abcdef'".to_owned()),
            Kind::Path => ("pw".to_owned(), "'pw'".to_owned()),
            // The last word is not the default.
            Kind::Word(words) => (words[words.len() - 1].to_owned(), format!("'{}'", words[words.len() - 1])),
        };
        // A limit must not be below another one, which is lowered too.
        let (more, more_toml): (&[(&str, &str)], &str) = match key.name {
            "reply_bytes_max" => (&[("OLIVIA_LIMITS_VALUE_BYTES_MAX", "9")], "value_bytes_max = 9\n"),
            "lookup_timeout_ms" => (&[("OLIVIA_MESH_LOOKUP_TRY_MS", "1")], "lookup_try_ms = 1\n"),
            "known_peers_max" => (&[("OLIVIA_MESH_ACTIVE_PEERS", "1")], "active_peers = 1\n"),
            _ => (&[], ""),
        };
        let secret: &[u8] = b"fedcba9876543210\n";
        let name = key.env_name();
        let mut variables = vec![(name.as_str(), text.as_str())];
        variables.extend(more);
        let by_env = load(&env(&variables), &files(&[("pw", secret)])).unwrap().config;
        let table = if key.table.is_empty() { String::new() } else { format!("[{}]\n", key.table) };
        let file = format!("{table}{} = {toml}\n{more_toml}", key.name);
        let by_file = load(&Sources::default(), &files(&[("pw", secret), ("olivia.toml", file.as_bytes())]))
            .unwrap()
            .config;
        assert_ne!(by_env, Config::default(), "{name} changed nothing");
        assert_eq!(by_env, by_file, "{name}");
    }
}

#[test]
fn flags_win_over_the_environment_and_it_over_the_file() {
    let file = "listen_port = 1\nbind = '127.0.0.1'\n[log]\nlevel = 'warn'\n";
    let variables = [("OLIVIA_LISTEN_PORT", "2"), ("OLIVIA_BIND", "127.0.0.2")];
    let config = layered(&["--port", "3"], &variables, file);
    assert_eq!(config.listen_port, 3);
    assert_eq!(config.bind.to_string(), "127.0.0.2");
    assert_eq!(config.log_level, LevelFilter::Warn);
    assert_eq!(layered(&["--port", "1", "--port", "4"], &[], "").listen_port, 4);
}

#[test]
fn an_error_in_a_layer_that_another_one_hides_is_reported_all_the_same() {
    let read = files(&[("olivia.toml", b"listen_port = 70000")]);
    assert!(load(&sources(&["--port", "1"], &[]), &read).is_err());
}

#[test]
fn problems_of_the_file_and_the_environment_are_reported_together() {
    let read = files(&[("olivia.toml", b"listen_prot = 1")]);
    let message = load(&env(&[("OLIVIA_LISTEN_PROT", "1")]), &read).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 2, "{message}");
}

#[test]
fn a_peer_beside_the_shipped_file_makes_no_base_node() {
    let shipped = super::DEFAULT_TEXT;
    let config = layered(&["--peer", "localhost:1", "--peer", "127.0.0.1:2"], &[], shipped);
    assert!(!config.base_node);
    assert_eq!(config.remote_peers, ["localhost:1", "127.0.0.1:2"]);
    assert!(!layered(&[], &[("OLIVIA_REMOTE_PEERS", "localhost:1")], shipped).base_node);
    assert!(!layered(&[], &[], "remote_peers = ['localhost:1']").base_node);
}

#[test]
fn a_base_node_that_names_peers_itself_stays_one() {
    assert!(layered(&[], &[], "base_node = true\nremote_peers = ['localhost:1']").base_node);
    let variables = [("OLIVIA_REMOTE_PEERS", "localhost:1"), ("OLIVIA_BASE_NODE", "true")];
    assert!(layered(&[], &variables, "").base_node);
    assert!(!layered(&["--peer", "localhost:2"], &variables, "").base_node);
}

#[test]
fn taking_the_peers_away_makes_a_base_node_again() {
    let config = layered(&[], &[("OLIVIA_REMOTE_PEERS", "")], "remote_peers = ['localhost:1']");
    assert!(config.base_node);
    assert!(config.remote_peers.is_empty());
}

#[test]
fn a_lonely_node_that_is_no_base_node_is_warned_about() {
    assert!(loaded("base_node = false").unwrap().warnings[0].contains("waits to be dialled"));
}

#[test]
fn a_bind_beyond_loopback_without_a_password_is_refused() {
    for address in ["0.0.0.0", "::", "192.168.1.1", "2001:db8::1", "::ffff:10.0.0.1"] {
        let message = problem(&format!("bind = '{address}'"));
        assert!(message.starts_with("olivia.toml:1: bind is"), "{message}");
        assert!(message.contains("password") && message.contains("open_without_password"), "{message}");
    }
    for address in ["127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1"] {
        assert!(loaded(&format!("bind = '{address}'")).is_ok(), "{address}");
    }
    let flag = load(&sources(&["--bind", "0.0.0.0"], &[]), &no_files).unwrap_err().to_string();
    assert!(flag.starts_with("--bind: "), "{flag}");
}

#[test]
fn a_password_or_the_override_opens_the_node() {
    assert!(loaded("bind = '0.0.0.0'\n[security]\npassword = 'x'").unwrap().warnings.is_empty());
    let open = loaded("bind = '0.0.0.0'\n[security]\nopen_without_password = true").unwrap();
    assert!(open.warnings[0].contains("open_without_password"));
}

#[test]
fn a_mesh_beyond_this_machine_without_a_secret_is_refused() {
    for peer in ["10.0.0.2:5454", "db.example:5454", "[2001:db8::1]:1"] {
        let message = problem(&format!("remote_peers = ['localhost:1', '{peer}']"));
        assert!(message.contains("[mesh] secret") && message.contains(peer), "{message}");
        let secret = format!("remote_peers = ['{peer}']\n[mesh]\nsecret = '0123456789abcdef'");
        assert!(loaded(&secret).is_ok());
    }
    assert!(loaded("remote_peers = ['localhost:1', '127.0.0.1:2', '[::1]:3']").is_ok());
    let open = "\n[security]\nopen_without_password = true";
    for joins in ["base_node = false", "remote_peers = ['localhost:1']"] {
        let message = problem(&format!("bind = '0.0.0.0'\n{joins}{open}"));
        assert!(message.starts_with("olivia.toml:1: bind is 0.0.0.0, where nodes"), "{message}");
        let secret = "\n[mesh]\nsecret = '0123456789abcdef'";
        assert!(loaded(&format!("bind = '0.0.0.0'\n{joins}{open}{secret}")).is_ok());
    }
    assert!(loaded(&format!("bind = '0.0.0.0'{open}")).is_ok());
}

#[test]
fn a_secret_file_is_read_without_its_last_line_end() {
    for (bytes, want) in [
        (&b"hunter2"[..], &b"hunter2"[..]),
        (b"hunter2\n", b"hunter2"),
        (b"hunter2\r\n", b"hunter2"),
        (b" hunter2 \n", b" hunter2 "),
    ] {
        let there = [("pw", bytes)];
        let read = files(&there);
        let config = load(&env(&[("OLIVIA_SECURITY_PASSWORD_FILE", "pw")]), &read).unwrap().config;
        assert_eq!(config.password.unwrap().as_bytes(), want);
        assert_eq!(config.password_file, Some(PathBuf::from("pw")));
    }
}

#[test]
fn a_bad_secret_file_is_reported_without_its_content() {
    let long = [b'x'; 600];
    for (bytes, hint) in [
        (&b""[..], "is empty"),
        (b"\n", "is empty"),
        (b"hunter2\n\n", "control character"),
        (b"hunter2\nmore\n", "control character"),
        (b"hunter2\xff", "not UTF-8"),
        (&long, "too long"),
    ] {
        let there = [("pw", bytes)];
        let read = files(&there);
        let variables = [("OLIVIA_SECURITY_PASSWORD_FILE", "pw"), ("OLIVIA_BIND", "0.0.0.0")];
        let message = load(&env(&variables), &read).unwrap_err().to_string();
        assert!(message.contains(hint) && !message.contains("hunter2"), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let message =
        load(&env(&[("OLIVIA_MESH_SECRET_FILE", "pw")]), &files(&[("pw", b"short\n")])).unwrap_err();
    assert!(message.to_string().contains("16 to 512 bytes"), "{message}");
    let message = load(&env(&[("OLIVIA_MESH_SECRET_FILE", "gone")]), &no_files).unwrap_err().to_string();
    assert!(message.starts_with("OLIVIA_MESH_SECRET_FILE: gone does not exist"), "{message}");
}

#[test]
fn a_later_password_takes_back_an_earlier_password_file() {
    let file = "[security]\npassword_file = 'gone'\n";
    let config = layered(&[], &[("OLIVIA_SECURITY_PASSWORD", "x")], file);
    assert_eq!(config.password, Some(Secret::new("x".to_owned())));
    assert_eq!(config.password_file, None);
}

#[test]
fn secrets_that_other_users_can_read_are_warned_about() {
    let read = |path: &Path| match path.to_str() {
        Some("pw") => Ok(FileRead { bytes: b"hunter2".to_vec(), open_to_others: true }),
        Some("olivia.toml") => {
            let bytes = b"[mesh]\nsecret = '0123456789abcdef'".to_vec();
            Ok(FileRead { bytes, open_to_others: true })
        }
        _ => no_files(path),
    };
    let warnings = load(&env(&[("OLIVIA_SECURITY_PASSWORD_FILE", "pw")]), &read).unwrap().warnings;
    assert_eq!(warnings.len(), 2);
    assert!(warnings.iter().all(|warning| warning.contains("chmod 600")), "{warnings:?}");
}

#[test]
fn debug_shows_no_secret() {
    let text = "[security]\npassword = 'hunter2'\n[mesh]\nsecret = 'hunter2hunter2hunter2'\n";
    let loaded = loaded(text).unwrap();
    let layer = super::parse_toml("x", text).unwrap();
    for debug in [format!("{loaded:?}"), format!("{loaded:#?}"), format!("{layer:?}")] {
        assert!(!debug.contains("hunter2"), "{debug}");
    }
}

#[test]
fn the_first_file_that_exists_is_read() {
    let etc = "/etc/olivia/olivia.toml";
    let both = [("olivia.toml", &b"listen_port = 1"[..]), (etc, &b"listen_port = 2"[..])];
    let loaded = load(&Sources::default(), &files(&both)).unwrap();
    assert_eq!((loaded.config.listen_port, loaded.file), (1, Some(PathBuf::from("olivia.toml"))));
    let loaded = load(&Sources::default(), &files(&both[1..])).unwrap();
    assert_eq!(loaded.config.listen_port, 2);
    assert_eq!(loaded.notes, [format!("configuration read from {etc}")]);
}

#[test]
fn a_named_file_is_the_only_one_looked_at_and_must_exist() {
    let some = [("olivia.toml", &b"listen_port = 1"[..]), ("x.toml", &b"listen_port = 2"[..])];
    let variable = env(&[("OLIVIA_CONFIG", "x.toml")]);
    assert_eq!(load(&variable, &files(&some)).unwrap().config.listen_port, 2);
    let flag = sources(&["--config", "olivia.toml"], &[("OLIVIA_CONFIG", "x.toml")]);
    assert_eq!(load(&flag, &files(&some)).unwrap().config.listen_port, 1);
    let message = load(&sources(&["--config", "gone"], &[]), &files(&some)).unwrap_err().to_string();
    assert!(message.starts_with("--config: gone does not exist"), "{message}");
    let message = load(&env(&[("OLIVIA_CONFIG", "gone")]), &files(&some)).unwrap_err().to_string();
    assert!(message.starts_with("OLIVIA_CONFIG: gone"), "{message}");
}

#[test]
fn a_file_that_is_there_but_cannot_be_read_is_not_passed_over() {
    for kind in [ErrorKind::PermissionDenied, ErrorKind::IsADirectory] {
        let read = |_: &Path| Err(Error::from(kind));
        assert!(load(&Sources::default(), &read).unwrap_err().to_string().starts_with("olivia.toml "));
    }
}

#[test]
fn a_found_file_that_is_gone_at_a_reload_is_an_error() {
    let sources = Sources { found: Some(PathBuf::from("olivia.toml")), ..Sources::default() };
    assert!(load(&sources, &no_files).unwrap_err().to_string().contains("does not exist"));
}

#[test]
fn a_byte_order_mark_is_passed_over_with_a_warning() {
    let loaded = loaded("\u{feff}listen_port = 1").unwrap();
    assert_eq!(loaded.config.listen_port, 1);
    assert!(loaded.warnings[0].contains("byte order mark"));
}

#[test]
fn help_and_version_need_no_configuration() {
    let read = files(&[("olivia.toml", b"\xff")]);
    let bad = [("OLIVIA_BOGUS", "1")];
    assert_eq!(load(&sources(&["--help"], &bad), &read).unwrap().command, Command::Help);
    assert_eq!(load(&sources(&["-V"], &bad), &read).unwrap().command, Command::Version);
    assert!(load(&sources(&["--check-config"], &bad), &read).is_err());
}

#[test]
fn limits_that_contradict_each_other_are_refused() {
    assert!(problem("[limits]\nvalue_bytes_max = 99999999").contains("[limits] value_bytes_max is 99999999"));
    assert!(problem("[mesh]\nlookup_try_ms = 101").contains("[mesh] lookup_timeout_ms is 100"));
}

#[test]
fn an_unknown_key_beside_the_numbers_of_the_mesh_is_refused() {
    let message = problem("[mesh]\nheartbeat_interval_ms = 500\nheartbeat_ms = 500");
    assert!(message.contains("olivia.toml:3: unknown key"), "{message}");
    let numbers = loaded("[mesh]\nheartbeat_interval_ms = 500\nsecret = '0123456789abcdef'").unwrap().config;
    assert_eq!(numbers.mesh, MeshLimits { heartbeat_interval_ms: 500, ..MeshLimits::default() });
}

#[test]
fn a_reload_takes_what_it_can_and_names_the_rest() {
    let old = Config { mesh_secret: Some(Secret::new("0123456789abcdef".to_owned())), ..Config::default() };
    let new = Config {
        base_node: false,
        listen_port: 1,
        remote_peers: vec!["localhost:1".to_owned()],
        bind: "::1".parse().unwrap(),
        password: Some(Secret::new("x".to_owned())),
        limits: Limits { clients_max: 7, ..Limits::default() },
        mesh: MeshLimits { active_peers: 7, ..MeshLimits::default() },
        log_level: LevelFilter::Debug,
        ..Config::default()
    };
    let (merged, notes) = old.reload_from(new.clone());
    assert_eq!(
        merged,
        Config { password: new.password, limits: new.limits, log_level: new.log_level, ..old.clone() }
    );
    for name in ["bind", "listen_port", "base_node", "remote_peers", "[mesh] secret", "[mesh] stays"] {
        assert!(notes.iter().any(|note| note.contains(name)), "{name}: {notes:?}");
    }
    assert!(notes.iter().all(|note| !note.contains("0123456789abcdef")));
    let changes = old.changes_to(&merged).unwrap();
    assert_eq!(changes, "log.level \"info\" -> \"debug\", limits.clients_max 10000 -> 7, security.password");
    assert_eq!(old.changes_to(&old), None);
    assert_eq!(old.reload_from(old.clone()), (old, Vec::new()));
}

#[test]
fn sizes_and_times_of_a_file_take_units() {
    let text =
        "[limits]\nmemory_max = '1GiB'\ndrain_ms = \"2s\"\nbuffers_max = '512 MB'\n[log]\nlevel = 'WARN'";
    let config = loaded(text).unwrap().config;
    assert_eq!((config.limits.memory_max, config.limits.drain_ms), (1 << 30, 2_000));
    assert_eq!((config.limits.buffers_max, config.log_level), (512_000_000, LevelFilter::Warn));
    let message = problem("[limits]\nmemory_max = '1 gig'");
    assert!(message.contains("it takes 0 (no limit) or 1MiB to 1PiB, in bytes or with a unit"), "{message}");
    assert!(problem("[limits]\nmemory_max = 1GB").contains("memory_max = \"1GB\""));
    assert!(problem("clients_max = '5s'").contains("it goes into [limits]"));
}

#[test]
fn byte_order_mark_is_no_part_of_a_secret_and_white_space_at_its_ends_is_warned_about() {
    let there = [("pw", &b"\xef\xbb\xbfgeheim \n"[..])];
    let loaded = load(&env(&[("OLIVIA_SECURITY_PASSWORD_FILE", "pw")]), &files(&there)).unwrap();
    assert_eq!(loaded.config.password.unwrap().as_bytes(), b"geheim ");
    assert!(loaded.warnings[0].contains("byte order mark"), "{:?}", loaded.warnings);
    assert!(loaded.warnings[1].contains("white space"), "{:?}", loaded.warnings);
}

#[test]
fn a_reload_does_not_open_a_node_that_others_reach() {
    let old = Config {
        bind: "0.0.0.0".parse().unwrap(),
        password: Some(Secret::new("x".to_owned())),
        ..Config::default()
    };
    let (merged, notes) = old.reload_from(Config::default());
    assert_eq!(merged, old);
    assert!(notes.iter().any(|note| note.contains("password")));
}

#[test]
fn value_without_quotes_is_shown_with_them() {
    for (line, shown) in [
        ("bind = 0.0.0.0", "bind = \"0.0.0.0\""),
        ("[limits]\nmemory_max = 1GiB # all", "memory_max = \"1GiB\""),
        ("[security]\npassword = sesame", "password = \"…\""),
    ] {
        let message = crate::config::parse_toml("t", line).unwrap_err().to_string();
        assert!(message.contains(shown) && !message.contains("sesame"), "{message}");
    }
}
