//! What can be said to the load generator.

use super::drive::{End, Pick, Plan};
use super::protocol::Protocol;
use lexopt::ValueExt;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The options, for people.
pub(crate) const HELP: &str = "\
cargo bench --bench load -- [options]

Without --addr: starts olivia itself and runs a table, GET and SET at pipeline 1, 16 and 64.
  --quick                 a tiny form of the table, every reply checked
  --compare PROGRAM       beside the redis-server at this path, in iterations: medians and ratios
  --rounds N              rounds of the table (3)
  --server-core N         binds the servers to a core; `taskset -c M` before all binds the generator

With --addr HOST:PORT: one run against what listens there.
  --protocol P            lines (Olivia's own), resp or memcached (lines)
  --mix M                 get, set or GETs/SETs as in 90/10 (get)
  --pipeline N            requests on their way on each connection (16)
  --fill                  sets every key first
  --pid N                 prints the CPU time of the process N per request

Both:
  --connections N (50)    --requests N | --seconds S (table: 1 s, else 1000000 requests)
  --keys N (1000000)      --key-bytes N (16)    --value-bytes N (64)    --zipf
  --check                 compares every reply with what it should be
  --spin                  polls without sleeping
";

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) addr: Option<SocketAddr>,
    pub(crate) plan: Plan,
    pub(crate) fill: bool,
    pub(crate) pid: Option<u32>,
    pub(crate) quick: bool,
    pub(crate) compare: Option<PathBuf>,
    pub(crate) rounds: u32,
    pub(crate) server_core: Option<u32>,
    pub(crate) help: bool,
}

impl Options {
    /// Reads the arguments.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut end = None;
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next().map_err(text)? {
            let lexopt::Arg::Long(name) = arg else { return Err(text(arg.unexpected())) };
            let name = name.to_owned();
            let plan = &mut options.plan;
            let mut number =
                || -> Result<u64, String> { parser.value().and_then(|value| value.parse()).map_err(text) };
            let small = |number: u64| usize::try_from(number).map_err(|error| error.to_string());
            let tiny = |number: u64| u32::try_from(number).map_err(|error| error.to_string());
            match &*name {
                "connections" => plan.connections = small(number()?)?,
                "pipeline" => plan.pipeline = small(number()?)?,
                "requests" => end = Some(End::Requests(number()?)),
                "keys" => plan.keys = number()?,
                "key-bytes" => plan.key_bytes = small(number()?)?,
                "value-bytes" => plan.value_bytes = small(number()?)?,
                "pid" => options.pid = Some(tiny(number()?)?),
                "rounds" => options.rounds = tiny(number()?)?,
                "server-core" => options.server_core = Some(tiny(number()?)?),
                "zipf" => plan.pick = Pick::Zipf,
                "check" => plan.check = true,
                "spin" => plan.spin = true,
                "fill" => options.fill = true,
                "quick" => options.quick = true,
                "help" => options.help = true,
                // Cargo passes it to every benchmark.
                "bench" => {}
                "seconds" => {
                    let seconds: f64 = parser.value().and_then(|value| value.parse()).map_err(text)?;
                    let time = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
                    end = Some(End::After(time));
                }
                "addr" => options.addr = Some(parser.value().and_then(|value| value.parse()).map_err(text)?),
                "compare" => options.compare = Some(parser.value().map_err(text)?.into()),
                "mix" => plan.get_percent = get_percent(&parser.value().map_err(text)?.to_string_lossy())?,
                "protocol" => plan.protocol = protocol(&parser.value().map_err(text)?.to_string_lossy())?,
                _ => return Err(format!("unknown option --{name}; try --help")),
            }
        }
        options.reconcile(end)
    }

    /// Fills in what depends on other options, and refuses what cannot be.
    fn reconcile(mut self, end: Option<End>) -> Result<Self, String> {
        let plan = &mut self.plan;
        if self.quick {
            *plan = Plan { connections: 4, keys: 1_000, check: true, ..plan.clone() };
            self.rounds = 1;
        }
        plan.end = match (end, self.addr, self.quick) {
            (Some(end), _, _) => end,
            (None, _, true) => End::Requests(2_000),
            (None, Some(_), false) => End::Requests(1_000_000),
            (None, None, false) => End::After(Duration::from_secs(1)),
        };
        plan.is_filled = self.fill || self.addr.is_none();
        if let Some(addr) = self.addr {
            plan.addr = addr;
        }
        let digits = plan.keys.to_string().len();
        if plan.keys == 0 || plan.key_bytes < digits {
            return Err(format!("{} keys need key-bytes of at least {digits}", plan.keys));
        }
        if plan.connections == 0 || plan.pipeline == 0 || self.rounds == 0 {
            return Err("connections, pipeline and rounds are at least 1".to_owned());
        }
        Ok(self)
    }
}

impl Default for Options {
    fn default() -> Self {
        let plan = Plan {
            addr: SocketAddr::from(([127, 0, 0, 1], 5454)),
            protocol: Protocol::Lines,
            connections: 50,
            pipeline: 16,
            end: End::Requests(1_000_000),
            keys: 1_000_000,
            key_bytes: 16,
            value_bytes: 64,
            get_percent: 100,
            pick: Pick::Uniform,
            check: false,
            is_filled: false,
            spin: false,
        };
        Self {
            addr: None,
            plan,
            fill: false,
            pid: None,
            quick: false,
            compare: None,
            rounds: 3,
            server_core: None,
            help: false,
        }
    }
}

fn text(error: lexopt::Error) -> String {
    error.to_string()
}

fn protocol(name: &str) -> Result<Protocol, String> {
    match name {
        "lines" => Ok(Protocol::Lines),
        "resp" => Ok(Protocol::Resp),
        "memcached" => Ok(Protocol::Memcached),
        _ => Err(format!("--protocol takes lines, resp or memcached, not '{name}'")),
    }
}

/// Of a hundred requests so many GETs.
fn get_percent(mix: &str) -> Result<u64, String> {
    let wrong = || format!("--mix takes get, set, or shares of a hundred as in 90/10, not '{mix}'");
    match mix {
        "get" => return Ok(100),
        "set" => return Ok(0),
        _ => {}
    }
    let (gets, sets) = mix.split_once('/').ok_or_else(wrong)?;
    match (gets.parse::<u64>(), sets.parse::<u64>()) {
        (Ok(gets), Ok(sets)) if gets.checked_add(sets) == Some(100) => Ok(gets),
        _ => Err(wrong()),
    }
}
