//! The arguments of `olivia bench`.

use super::drive::{End, Plan};
use super::keys::{Pick, Sizes};
use super::protocol::Protocol;
use crate::client::ClientError;
use crate::client::connection::addresses;
use lexopt::{Arg, Parser};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

/// The text of `olivia bench --help`.
pub(super) const HELP: &str = "\
olivia bench: load a server, measure it, verify every reply

Usage: olivia bench HOST:PORT [HOST:PORT ...] [flags]
It sets keys of its own: digits, as 0000000000000042. On a node in use, fill the
cache with little: --keys 1000. Connections go to the addresses by turns.
OLIVIA_SECURITY_PASSWORD is sent, as by ask and top.

  --protocol P       resp, lines or memcached                     (default resp)
  --mix M            get, set, or percentages of both as in 90/10 (default get)
  --fill             set every key first; then a GET that finds nothing is wrong
  --connections N    their number                                 (default 50)
  --pipeline N       requests in flight on each                   (default 1)
  --rate N           requests per second, sent when due whatever the replies do:
                     an open loop; latency counts from when each was due
  --seconds S        time measured                                (default 10)
  --requests N       requests measured, instead of a time
  --warm-up S        time before that                             (default 1)
  --keys N           different keys                               (default 1000000)
  --first-key N      the number of the first; generators with others do not overlap
  --key-bytes N      size of each key                             (default 16)
  --value-bytes V    size of values: 64, 10-1000 (uniform), 64:9,1024:1 (weighted)
                                                                  (default 64)
  --zipf E           some keys more often, by this exponent below 1, as 0.99
  --seed N           of the order of keys                         (default 1)
  --spin             poll without sleeping: lower latency, a whole core
  --json             print one object instead of text
  -h, --help         print this, exit

Progress is on standard error. Measure from another machine, or pin both:
taskset -c 1 olivia bench 127.0.0.1:5454 --fill --mix 90/10 --pipeline 16
";

/// Maximum connections: a machine has no more ports for one address.
const CONNECTIONS_MAX: u64 = 60_000;

/// Maximum requests in flight on one connection.
const PIPELINE_MAX: u64 = 10_000;

/// Maximum of `--keys` and of `--first-key`.
const KEYS_MAX: u64 = 1_000_000_000_000;

/// Maximum bytes of a key, of a value.
const KEY_BYTES_MAX: u64 = 64 * 1024;
const VALUE_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Maximum seconds of a run.
const SECONDS_MAX: f64 = 1e6;

/// The command line.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) plan: Plan,
    pub(super) fill: bool,
    pub(super) json: bool,
}

const NAMES: [&str; 18] = [
    "--protocol",
    "--mix",
    "--fill",
    "--connections",
    "--pipeline",
    "--rate",
    "--seconds",
    "--requests",
    "--warm-up",
    "--keys",
    "--first-key",
    "--key-bytes",
    "--value-bytes",
    "--zipf",
    "--seed",
    "--spin",
    "--json",
    "--help",
];

impl Options {
    /// Reads the arguments; `None` if help is requested.
    pub(super) fn parse(args: &[OsString]) -> Result<Option<Self>, ClientError> {
        let usage = |problem: String| ClientError::Usage(format!("{problem}; see olivia bench --help"));
        let mut parser = Parser::from_args(args);
        let mut plan = Plan::new(Vec::new(), Protocol::Resp);
        let (mut fill, mut json, mut seconds, mut requests) = (false, false, None, None);
        while let Some(arg) = parser.next().map_err(|error| usage(error.to_string()))? {
            let flag = match arg {
                Arg::Short('h') => return Ok(None),
                Arg::Value(addr) => {
                    plan.addrs.push(address(&addr.to_string_lossy())?);
                    continue;
                }
                Arg::Short(letter) => return Err(usage(format!("unknown flag '-{letter}'"))),
                Arg::Long(name) => format!("--{name}"),
            };
            let mut value = Value { flag: &flag, parser: &mut parser };
            let read = match &*flag {
                "--help" => return Ok(None),
                "--fill" => {
                    fill = true;
                    Ok(())
                }
                "--spin" => {
                    plan.spin = true;
                    Ok(())
                }
                "--json" => {
                    json = true;
                    Ok(())
                }
                "--protocol" => value.protocol().map(|protocol| plan.protocol = protocol),
                "--mix" => value.mix().map(|percent| plan.get_percent = percent),
                "--connections" => {
                    value.count(1, CONNECTIONS_MAX).map(|count| plan.connections = small(count))
                }
                "--pipeline" => value.count(1, PIPELINE_MAX).map(|count| plan.pipeline = small(count)),
                "--rate" => value.number(0.1, 1e9).map(|rate| plan.rate = Some(rate)),
                "--seconds" => value.number(0.001, SECONDS_MAX).map(|time| seconds = Some(time)),
                "--requests" => value.count(1, u64::MAX).map(|count| requests = Some(count)),
                "--warm-up" => {
                    value.number(0.0, SECONDS_MAX).map(|time| plan.warm_up = Duration::from_secs_f64(time))
                }
                "--keys" => value.count(1, KEYS_MAX).map(|count| plan.keys = count),
                "--first-key" => value.count(0, KEYS_MAX).map(|number| plan.first_key = number),
                "--key-bytes" => value.count(1, KEY_BYTES_MAX).map(|count| plan.key_bytes = small(count)),
                "--value-bytes" => value.sizes().map(|sizes| plan.sizes = sizes),
                "--zipf" => value.number(0.01, 0.9999).map(|exponent| plan.pick = Pick::Zipf(exponent)),
                "--seed" => value.count(0, u64::MAX).map(|seed| plan.seed = seed),
                _ => Err(unknown(&flag)),
            };
            read.map_err(usage)?;
        }
        plan.end = match (seconds, requests) {
            (Some(_), Some(_)) => {
                return Err(usage("--seconds and --requests exclude each other".to_owned()));
            }
            (_, Some(requests)) => End::Requests(requests),
            (Some(seconds), None) => End::After(Duration::from_secs_f64(seconds)),
            (None, None) => plan.end,
        };
        plan.is_filled = fill;
        if plan.addrs.is_empty() {
            return Err(usage("no address; usage: olivia bench HOST:PORT [flags]".to_owned()));
        }
        let digits = plan.first_key.saturating_add(plan.keys).to_string().len();
        if plan.key_bytes < digits {
            return Err(usage(format!("--key-bytes is {}; the keys need at least {digits}", plan.key_bytes)));
        }
        Ok(Some(Self { plan, fill, json }))
    }
}

/// The first address of a name.
fn address(text: &str) -> Result<SocketAddr, ClientError> {
    addresses(text)?
        .next()
        .ok_or_else(|| ClientError::Bench(format!("cannot find {text}: the name has no address")))
}

fn unknown(flag: &str) -> String {
    let near = NAMES.iter().map(|name| (strsim::damerau_levenshtein(name, flag), name)).min();
    match near {
        Some((1..=2, name)) => format!("unknown flag '{flag}' (did you mean '{name}'?)"),
        Some(_) | None => format!("unknown flag '{flag}'"),
    }
}

fn small(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// The value of a flag, not yet read.
struct Value<'p> {
    flag: &'p str,
    parser: &'p mut Parser,
}

impl Value<'_> {
    fn text(&mut self) -> Result<String, String> {
        let value = self.parser.value().map_err(|error| error.to_string())?;
        value.into_string().map_err(|_| format!("the value of {} is not UTF-8", self.flag))
    }

    fn wrong<T>(&self, text: &str, right: &str) -> Result<T, String> {
        Err(format!("{} is '{}'; it takes {right}", self.flag, text.escape_debug()))
    }

    fn count(&mut self, min: u64, max: u64) -> Result<u64, String> {
        let text = self.text()?;
        match text.parse() {
            Ok(count) if (min..=max).contains(&count) => Ok(count),
            Ok(_) | Err(_) => self.wrong(&text, &format!("{min} to {max}")),
        }
    }

    fn number(&mut self, min: f64, max: f64) -> Result<f64, String> {
        let text = self.text()?;
        match text.parse() {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            Ok(_) | Err(_) => self.wrong(&text, &format!("{min} to {max}")),
        }
    }

    fn protocol(&mut self) -> Result<Protocol, String> {
        let text = self.text()?;
        let found = Protocol::NAMES.iter().find(|(name, _)| *name == text);
        found.map_or_else(|| self.wrong(&text, "resp, lines or memcached"), |(_, protocol)| Ok(*protocol))
    }

    /// The percentage of GETs.
    fn mix(&mut self) -> Result<u64, String> {
        let text = self.text()?;
        let shares = text.split_once('/').and_then(|(gets, sets)| gets.parse().ok().zip(sets.parse().ok()));
        match (text.as_str(), shares) {
            ("get", _) => Ok(100),
            ("set", _) => Ok(0),
            (_, Some((gets @ 0..=100, sets))) if 100 - gets == sets => Ok(gets),
            _ => self.wrong(&text, "get, set, or percentages of both as in 90/10"),
        }
    }

    fn sizes(&mut self) -> Result<Sizes, String> {
        let text = self.text()?;
        match Sizes::parse(&text) {
            Some(sizes) if sizes.max() <= VALUE_BYTES_MAX => Ok(sizes),
            Some(_) | None => self.wrong(&text, "bytes as 64, 10-1000 or 64:9,1024:1, at most 1 GiB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HELP, NAMES, Options};
    use std::ffi::OsString;

    #[test]
    fn help_names_every_flag_and_fits_the_width() {
        assert!(HELP.lines().all(|line| line.len() <= 88), "{HELP}");
        for flag in NAMES {
            assert!(HELP.contains(flag), "{flag}");
        }
    }

    #[test]
    fn wrong_usage_is_reported_with_what_would_be_right() {
        for (args, sentence) in [
            ("", "no address; usage: olivia bench HOST:PORT"),
            ("1.1.1.1:1 --pipe 3", "unknown flag '--pipe'"),
            ("1.1.1.1:1 --pipelin 3", "did you mean '--pipeline'?"),
            ("1.1.1.1:1 --pipeline 0", "--pipeline is '0'; it takes 1 to 10000"),
            ("1.1.1.1:1 --mix 90/20", "--mix is '90/20'; it takes get, set, or"),
            ("1.1.1.1:1 --protocol redis", "--protocol is 'redis'; it takes resp, lines or memcached"),
            ("1.1.1.1:1 --value-bytes big", "--value-bytes is 'big'; it takes bytes as 64"),
            ("1.1.1.1:1 --zipf 1", "--zipf is '1'; it takes 0.01 to 0.9999"),
            ("1.1.1.1:1 --seconds 1 --requests 1", "exclude each other"),
            ("1.1.1.1:1 --key-bytes 3", "--key-bytes is 3; the keys need at least 7"),
            ("1.1.1.1:1 --key-bytes 7 --first-key 9999999", "the keys need at least 8"),
            ("1.1.1.1:1 --seconds", "--seconds"),
            ("1.1.1.1:1 -x", "unknown flag '-x'"),
            ("1.1.1.1:1 --fill=yes", "--fill"),
        ] {
            let args: Vec<OsString> = args.split_whitespace().map(OsString::from).collect();
            let error = Options::parse(&args).unwrap_err().to_string();
            assert!(error.contains(sentence), "{args:?}: {error}");
            assert!(error.ends_with("see olivia bench --help"), "{args:?}: {error}");
        }
    }
}
