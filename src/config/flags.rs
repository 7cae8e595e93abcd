//! The command line: flags to a [`Layer`], and the text of `--help`. Flags are for settings that differ between the
//! nodes of one machine; all others are set in the file.

use super::schema::{self, Key};
use super::{Command, ConfigError, Layer};
use lexopt::{Arg, Parser};
use std::ffi::OsString;
use std::path::PathBuf;
use toml::Value;

/// The command to which messages about usage refer.
pub(super) const SEE_HELP: &str = "olivia --help";

/// The text of `--help`: one screen.
pub const HELP: &str = "\
olivia: a distributed in-memory key-value store

Usage: olivia [flags], or about a running node:
  olivia ask HOST:PORT 'STATS'   send a request, print one field per line
  olivia top HOST:PORT           show it live; OLIVIA_SECURITY_PASSWORD is sent
  olivia bench HOST:PORT         measure it under load; olivia bench --help

  --config PATH      read this file, instead of looking for one
  --bind ADDR        listen on this IP address           (default 127.0.0.1)
  --port N           listen on this port, 0: any free    (default 5454)
  --peer HOST:PORT   join this node's mesh; repeat for more; replaces remote_peers
  --log-level LEVEL  off, error, warn, info, debug, trace (default info)
  --check-config     check the configuration, open no socket, exit
  --print-config     print the effective configuration, without secrets, exit
  -V, --version      print the version, exit
  -h, --help         print this, exit

Configuration, later over earlier: built-in defaults, the file, the environment,
flags. The file is ./olivia.toml, else /etc/olivia/olivia.toml, else none. Each
key has its variable: listen_port is OLIVIA_LISTEN_PORT, clients_max in [limits]
is OLIVIA_LIMITS_CLIENTS_MAX, remote_peers is OLIVIA_REMOTE_PEERS, separated by
commas; OLIVIA_CONFIG names the file. --print-config shows every key.

SIGHUP reads the configuration again; SIGTERM and SIGINT shut the node down.
Exit codes: 0 success, 1 failed while running, 2 wrong usage or configuration.

Try it:  olivia &  then  nc 127.0.0.1 5454  and type  SET greeting:hello
";

/// The configuration from the command line.
#[derive(Debug)]
pub(super) struct Flags {
    pub(super) command: Command,
    pub(super) layer: Layer,
    pub(super) config: Option<PathBuf>,
}

const NAMES: [&str; 9] = [
    "--config",
    "--bind",
    "--port",
    "--peer",
    "--log-level",
    "--check-config",
    "--print-config",
    "--version",
    "--help",
];

/// Reads the arguments, without the program's name. `--help` and `--version` end the reading.
///
/// # Errors
/// A message about the first argument that is not valid.
pub(super) fn parse(args: &[OsString]) -> Result<Flags, ConfigError> {
    let usage = |problem: String| ConfigError::one(format!("{problem}; see {SEE_HELP}"));
    let mut flags = Flags { command: Command::Run, layer: Layer::default(), config: None };
    let mut peers = Vec::new();
    let mut parser = Parser::from_args(args);
    while let Some(arg) = parser.next().map_err(|err| usage(err.to_string()))? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Flags { command: Command::Help, ..flags }),
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Flags { command: Command::Version, ..flags });
            }
            Arg::Long("check-config") => choose(&mut flags.command, Command::CheckConfig).map_err(usage)?,
            Arg::Long("print-config") => choose(&mut flags.command, Command::PrintConfig).map_err(usage)?,
            Arg::Long("config") => {
                let path = parser.value().map_err(|err| usage(err.to_string()))?;
                if path.is_empty() {
                    return Err(usage("--config is empty; it takes the path of a file".to_owned()));
                }
                flags.config = Some(PathBuf::from(path));
            }
            Arg::Long("bind") => set(&mut flags.layer, &mut parser, schema::BIND, "--bind").map_err(usage)?,
            Arg::Long("port") => {
                set(&mut flags.layer, &mut parser, schema::LISTEN_PORT, "--port").map_err(usage)?;
            }
            Arg::Long("log-level") => {
                set(&mut flags.layer, &mut parser, schema::LOG_LEVEL, "--log-level").map_err(usage)?;
            }
            Arg::Long("peer") => {
                let text = text(&mut parser, "--peer").map_err(usage)?;
                peers.push(Value::String(text.trim().to_owned()));
            }
            Arg::Long(name) => return Err(usage(unknown(name))),
            Arg::Short(letter) => {
                return Err(usage(format!("unknown flag {}", schema::shown(&format!("-{letter}")))));
            }
            Arg::Value(value) => {
                let shown = schema::shown(&value.to_string_lossy());
                return Err(usage(format!(
                    "{shown} is neither a flag nor ask, top or bench, which come first"
                )));
            }
        }
    }
    if !peers.is_empty() {
        let peers = Value::Array(peers);
        schema::REMOTE_PEERS.check(&peers).map_err(|problem| usage(format!("--peer: {problem}")))?;
        flags.layer.set(schema::REMOTE_PEERS, peers, "--peer".to_owned());
    }
    Ok(flags)
}

fn choose(command: &mut Command, chosen: Command) -> Result<(), String> {
    if *command != Command::Run && *command != chosen {
        return Err(
            "--check-config and --print-config exclude each other; printing checks as well".to_owned()
        );
    }
    *command = chosen;
    Ok(())
}

fn text(parser: &mut Parser, flag: &str) -> Result<String, String> {
    let value = parser.value().map_err(|err| err.to_string())?;
    value.into_string().map_err(|_| format!("the value of {flag} is not UTF-8"))
}

fn set(layer: &mut Layer, parser: &mut Parser, key: Key, flag: &str) -> Result<(), String> {
    let value = key.read_text(&text(parser, flag)?).map_err(|problem| format!("{flag}: {problem}"))?;
    layer.set(key, value, flag.to_owned());
    Ok(())
}

fn unknown(name: &str) -> String {
    let flag = format!("--{name}");
    let shown = schema::shown(&flag);
    if name.contains("password") || name.contains("secret") {
        return format!(
            "unknown flag {shown}; a command line can be read by others: set password_file or [mesh] secret_file, or \
             OLIVIA_SECURITY_PASSWORD or OLIVIA_MESH_SECRET"
        );
    }
    match schema::nearest(name, NAMES.iter().map(|name| name.trim_start_matches('-').to_owned())) {
        Some(near) => format!("unknown flag {shown} (did you mean '--{near}'?)"),
        None => format!("unknown flag {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{HELP, NAMES, parse};
    use std::ffi::OsString;

    fn args(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn problem(words: &[&str]) -> String {
        parse(&args(words)).unwrap_err().to_string()
    }

    #[test]
    fn help_fits_one_screen_and_names_every_flag() {
        assert!(HELP.lines().count() <= 30);
        assert!(HELP.lines().all(|line| line.len() <= 88), "{HELP}");
        for flag in NAMES {
            assert!(HELP.contains(flag), "{flag}");
        }
    }

    #[test]
    fn values_may_follow_after_an_equals_sign() {
        assert!(parse(&args(&["--port=0", "--bind=::1", "--peer=a:1", "--config=x"])).is_ok());
    }

    #[test]
    fn wrong_usage_is_reported_with_what_would_be_right() {
        assert!(problem(&["--prot", "1"]).contains("did you mean '--port'?"));
        assert!(problem(&["--log", "debug"]).contains("did you mean '--log-level'?"));
        assert!(problem(&["--password", "x"]).contains("OLIVIA_SECURITY_PASSWORD"));
        assert!(!problem(&["--verbose"]).contains("did you mean"));
        assert!(problem(&["--peer", "a:1,b:2"]).contains("names several"));
        assert!(problem(&["--port"]).contains("--port"));
        assert!(problem(&["--port", "x"]).contains("it takes 0 to 65535"));
        assert!(problem(&["--port", "65536"]).starts_with("--port: listen_port is 65536"));
        assert!(problem(&["--bind", "localhost"]).contains("127.0.0.1"));
        assert!(problem(&["--peer", "nowhere"]).contains("has no port"));
        assert!(problem(&["--config", ""]).contains("path of a file"));
        assert!(problem(&["--check-config=yes"]).contains("--check-config"));
        assert!(problem(&["--check-config", "--print-config"]).contains("exclude"));
        assert!(problem(&["start"]).contains("neither a flag nor"));
        assert!(problem(&["-x"]).contains("'-x'"));
        assert!(problem(&["start"]).ends_with("see olivia --help"));
    }

    #[cfg(unix)]
    #[test]
    fn arguments_that_are_not_utf8_are_refused() {
        use std::os::unix::ffi::OsStringExt;
        let bad = OsString::from_vec(vec![b'-', b'-', 0xff]);
        assert!(parse(std::slice::from_ref(&bad)).is_err());
        assert!(parse(&[OsString::from("--bind"), bad.clone()]).is_err());
        assert!(parse(&[OsString::from("--config"), bad]).is_ok());
    }
}
