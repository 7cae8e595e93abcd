//! The environment: `OLIVIA_*` variables to a [`Layer`].

use super::schema::{self, Key};
use super::{Layer, flags};
use std::ffi::OsString;
use std::path::PathBuf;

/// Variables of the test tools, which the node ignores.
const FOREIGN: [&str; 4] = ["OLIVIA_SIM_", "OLIVIA_FUZZ_", "OLIVIA_BENCH_", "OLIVIA_TEST_"];

/// The variable that names the configuration file.
pub(super) const CONFIG: &str = "OLIVIA_CONFIG";

/// The configuration from the environment.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) layer: Layer,
    pub(super) config: Option<PathBuf>,
    pub(super) problems: Vec<String>,
}

/// Reads the variables whose names begin with `OLIVIA_`; others are ignored.
pub(super) fn read(variables: &[(OsString, OsString)]) -> Environment {
    let mut found = Environment::default();
    for (name, value) in variables {
        let name = name.to_string_lossy();
        if !name.starts_with("OLIVIA_") || FOREIGN.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        if name == CONFIG {
            if value.is_empty() {
                found.problems.push(format!("{CONFIG} is empty; it takes the path of a file"));
            }
            found.config = Some(PathBuf::from(value));
            continue;
        }
        let Some(key) = schema::keys().find(|key| key.env_name() == name) else {
            found.problems.push(unknown(&name));
            continue;
        };
        let result = value
            .to_str()
            .ok_or_else(|| format!("{} is not UTF-8; it takes {}", key.path(), key.takes()))
            .and_then(|text| key.read_text(text));
        match result {
            Ok(value) => found.layer.set(key, value, name.into_owned()),
            Err(problem) => found.problems.push(format!("{name}: {problem}")),
        }
    }
    found.problems.extend(found.layer.conflicts());
    found
}

fn unknown(name: &str) -> String {
    let names = schema::keys().map(Key::env_name).chain([CONFIG.to_owned()]);
    // Without the common prefix, which would make all names similar.
    let tails = names.filter_map(|name| name.strip_prefix("OLIVIA_").map(str::to_owned));
    let tail = name.strip_prefix("OLIVIA_").unwrap_or(name);
    let near = schema::nearest(tail, tails).map(|near| format!(" (did you mean 'OLIVIA_{near}'?)"));
    let shown = schema::shown(name);
    let hint = if tail.starts_with("SERVICE_") || tail.starts_with("PORT") {
        "; if Kubernetes set it, for a service named olivia, set enableServiceLinks: false in the pod"
    } else {
        ""
    };
    format!("unknown environment variable {shown}{}{hint}; see {}", near.unwrap_or_default(), flags::SEE_HELP)
}

#[cfg(test)]
mod tests {
    use super::read;
    use std::ffi::OsString;

    fn problems(name: &str, value: &str) -> String {
        read(&[(OsString::from(name), OsString::from(value))]).problems.join("\n")
    }

    #[test]
    fn an_unknown_variable_is_reported_with_the_nearest_one() {
        assert!(problems("OLIVIA_LISTEN_PROT", "1").contains("(did you mean 'OLIVIA_LISTEN_PORT'?)"));
        assert!(problems("OLIVIA_CLIENTS_MAX", "1").contains("'OLIVIA_LIMITS_CLIENTS_MAX'"));
        assert!(problems("OLIVIA_CONFG", "1").contains("'OLIVIA_CONFIG'"));
        assert!(problems("OLIVIA_PASSWORD", "x").contains("'OLIVIA_SECURITY_PASSWORD'"));
        assert!(!problems("OLIVIA_HOME", "x").contains("did you mean"));
        assert!(problems("OLIVIA_PORT_5454_TCP", "1").contains("enableServiceLinks"));
    }

    #[test]
    fn variables_of_others_are_not_looked_at() {
        for name in ["PATH", "OLIVIA", "XOLIVIA_BIND", "OLIVIA_SIM_SEED", "OLIVIA_FUZZ_X", "OLIVIA_TEST_Y"] {
            assert_eq!(problems(name, "anything"), "", "{name}");
        }
    }

    #[test]
    fn a_bad_value_is_reported_with_the_variable_and_what_would_be_right() {
        assert_eq!(
            problems("OLIVIA_LISTEN_PORT", "70000"),
            "OLIVIA_LISTEN_PORT: listen_port is 70000; it takes 0 to 65535 (0: any free port)"
        );
        assert!(problems("OLIVIA_BASE_NODE", "yes").contains("true or false"));
        assert!(problems("OLIVIA_LISTEN_PORT", "").contains("it takes 0 to 65535"));
        assert!(problems("OLIVIA_SECURITY_PASSWORD", "").contains("leave it out for none"));
        assert!(problems("OLIVIA_REMOTE_PEERS", "a:1,b").contains("'b' has no port"));
        for several in ["a:1;b:2", "a:1 b:2"] {
            assert!(problems("OLIVIA_REMOTE_PEERS", several).contains("names several"));
        }
        assert!(problems("OLIVIA_REMOTE_PEERS", "['a:1']").contains("without quotes"));
        assert_eq!(problems("OLIVIA_REMOTE_PEERS", "a:1,"), "");
        assert!(problems("OLIVIA_LIMITS_MEMORY_MAX", "1G").contains("\"1GiB\""));
        assert!(problems("OLIVIA_LIMITS_DRAIN_MS", "5m").contains("\"5s\""));
        assert!(problems("OLIVIA_CONFIG", "").contains("path of a file"));
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_utf8_is_refused_and_others_of_that_kind_are_ignored() {
        use std::os::unix::ffi::OsStringExt;
        let bad = OsString::from_vec(vec![0xff]);
        let found = read(&[(OsString::from("OLIVIA_BIND"), bad.clone()), (bad.clone(), bad)]);
        assert_eq!(found.problems.len(), 1);
        assert!(found.problems[0].contains("not UTF-8"));
    }

    #[test]
    fn a_password_beside_a_password_file_is_refused() {
        let set = |name: &str| (OsString::from(name), OsString::from("x"));
        let found = read(&[set("OLIVIA_SECURITY_PASSWORD"), set("OLIVIA_SECURITY_PASSWORD_FILE")]);
        assert!(found.problems[0].contains("keep one of them"));
    }
}
