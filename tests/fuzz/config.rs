//! Fuzz target: a configuration from a file, an environment and flags. A configuration that loads is within its limits
//! and loads again when printed; any other gets errors of printable text.

use olivia::config::{Command, Config, FileRead, Sources, load, parse_toml, print_config};
use std::ffi::OsString;
use std::io::{Error, ErrorKind};
use std::path::Path;

/// The input, cut at each NUL: the file, the environment as lines `NAME=value`, the password file,
/// and then one argument each.
pub fn run(data: &[u8]) {
    let mut parts = data.split(|&byte| byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (file, environment, secret) = (part(), part(), part());
    if let Ok(text) = std::str::from_utf8(file)
        && let Err(error) = parse_toml("olivia.toml", text)
    {
        check_sentences(&error.to_string());
    }
    let text = |bytes: &[u8]| OsString::from(String::from_utf8_lossy(bytes).into_owned());
    let variable = |line: &[u8]| {
        let equals = line.iter().position(|&byte| byte == b'=')?;
        Some((text(&line[..equals]), text(&line[equals + 1..])))
    };
    let sources = Sources {
        args: parts.map(text).collect(),
        env: environment.split(|&byte| byte == b'\n').filter_map(variable).collect(),
        found: None,
    };
    match load_with(&sources, file, secret) {
        Err(sentences) => check_sentences(&sentences),
        Ok((Command::Help | Command::Version, _)) => {}
        Ok((Command::Run | Command::CheckConfig | Command::PrintConfig, config)) => check(&config, secret),
    }
}

fn load_with(sources: &Sources, file: &[u8], secret: &[u8]) -> Result<(Command, Config), String> {
    let read = |path: &Path| match path.to_str() {
        Some("olivia.toml") => Ok(FileRead { bytes: file.to_vec(), open_to_others: true }),
        Some("/etc/olivia/olivia.toml" | "gone") => Err(Error::from(ErrorKind::NotFound)),
        Some("dir") => Err(Error::from(ErrorKind::IsADirectory)),
        Some(_) | None => Ok(FileRead { bytes: secret.to_vec(), open_to_others: false }),
    };
    match load(sources, &read) {
        Ok(loaded) => {
            loaded.notes.iter().chain(&loaded.warnings).for_each(|sentence| check_sentences(sentence));
            Ok((loaded.command, loaded.config))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn check(config: &Config, secret: &[u8]) {
    assert_eq!(config.limits.check(), Ok(()));
    assert_eq!(config.mesh.check(), Ok(()));
    let is_hidden = |value: bool, file: bool| value && !file;
    if is_hidden(config.password.is_some(), config.password_file.is_some())
        || is_hidden(config.mesh_secret.is_some(), config.mesh_secret_file.is_some())
    {
        return;
    }
    let text = print_config(config).unwrap_or_else(|error| panic!("{error}"));
    let again = load_with(&Sources::default(), text.as_bytes(), secret);
    let (_, again) = again.unwrap_or_else(|sentences| panic!("{sentences}\nin\n{text}"));
    assert_eq!(&again, config, "{text}");
}

/// Lines with something in each, and nothing that a terminal would obey.
fn check_sentences(sentences: &str) {
    for line in sentences.split('\n') {
        assert!(!line.trim().is_empty(), "an empty line in {sentences:?}");
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
}
