//! The arguments and the exit code of a benchmark.

#![allow(dead_code, reason = "no bench has all kinds of arguments")]

use std::process::ExitCode;
use std::str::FromStr;

/// The arguments that a benchmark takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Takes {
    /// Flags such as `--write`. Every benchmark also takes `--quick`.
    pub(crate) flags: &'static [&'static str],
    /// Options with a value, as the next argument or after `=`.
    pub(crate) values: &'static [&'static str],
    /// Words without hyphens.
    pub(crate) words: &'static [&'static str],
}

/// The arguments that were given.
#[derive(Debug)]
pub(crate) struct Options {
    /// A tiny form, whose figures mean nothing. Also set without `--bench`, which cargo adds except in tests.
    pub(crate) quick: bool,
    flags: Vec<String>,
    values: Vec<(String, String)>,
    words: Vec<String>,
}

/// Runs a benchmark with the arguments of this process; prints what is wrong with them or has failed.
pub(crate) fn run(takes: Takes, bench: impl FnOnce(&Options) -> Result<(), String>) -> ExitCode {
    match Options::parse(std::env::args().skip(1), takes).and_then(|options| bench(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    pub(crate) fn parse(args: impl IntoIterator<Item = String>, takes: Takes) -> Result<Self, String> {
        let (mut flags, mut values, mut words) = (Vec::new(), Vec::new(), Vec::new());
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (&*arg, None),
            };
            if takes.values.contains(&name) {
                let value = value.or_else(|| args.next()).ok_or(format!("{name} needs a value"))?;
                values.push((name.to_owned(), value));
            } else if ["--bench", "--quick"].contains(&&*arg) || takes.flags.contains(&&*arg) {
                flags.push(arg);
            } else if takes.words.contains(&&*arg) {
                words.push(arg);
            } else {
                let known = [takes.words, &["--quick"], takes.flags, takes.values].concat().join(", ");
                return Err(format!("'{arg}' is not known; this bench takes {known}"));
            }
        }
        let has = |name| flags.iter().any(|flag| flag == name);
        Ok(Self { quick: has("--quick") || !has("--bench"), flags, values, words })
    }

    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }

    /// Returns the last value of an option.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.values_of(name).last()
    }

    /// Returns all values of an option.
    pub(crate) fn values_of(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values.iter().filter(move |(given, _)| given == name).map(|(_, value)| &**value)
    }

    pub(crate) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let parsed = |text: &str| text.parse().map_err(|_| format!("{name} takes a number, not '{text}'"));
        self.value(name).map(parsed).transpose()
    }

    /// Whether a part is to run: it was named, or no part was.
    pub(crate) fn wants(&self, word: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|given| given == word)
    }
}
