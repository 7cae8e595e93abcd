//! `olivia bench`: how many requests per second a server replies to, and how long each takes.
//!
//! The same generator loads Olivia and the servers that it is compared with (`make compare`): it uses lines, RESP or
//! memcached's text protocol, verifies every reply, and reports when it was the bottleneck itself. [`run`] carries out
//! a [`Plan`] and returns a [`RunResult`].

mod connection;
mod drive;
mod keys;
mod options;
mod protocol;
mod report;
mod schedule;

pub use drive::{End, Moment, Plan, RunResult, Times, run};
pub use keys::{Pick, Sizes, ZIPF_USUAL};
pub use protocol::{Parsed, Protocol};

use super::{ClientError, terminal};
use options::Options;
use report::Progress;
use std::ffi::OsString;

/// Runs the subcommand: `args` are those after its name.
pub(super) fn command(args: &[OsString], password: Option<&[u8]>) -> Result<(), ClientError> {
    let Some(options) = Options::parse(args)? else {
        return terminal::print(&[options::HELP.trim_end().to_owned()]);
    };
    let plan = Plan { password: password.map(<[u8]>::to_vec), ..options.plan };
    if options.fill {
        let mut progress = Progress::new("filling");
        measured(run(&plan.fill(), &mut |moment| progress.observe(&moment)))?;
    }
    let mut progress = Progress::new("measuring");
    let result = measured(run(&plan, &mut |moment| progress.observe(&moment)))?;
    let lines = if options.json { vec![report::json(&plan, &result)] } else { report::text(&plan, &result) };
    terminal::print(&lines)
}

/// The result of a run, or an error: any wrong reply makes figures meaningless.
fn measured(result: Result<RunResult, String>) -> Result<RunResult, ClientError> {
    let result = result.map_err(ClientError::Bench)?;
    match &result.first_wrong {
        None => Ok(result),
        Some(first) => {
            Err(ClientError::Bench(format!("{} wrong replies; the first is {first}", result.wrong)))
        }
    }
}
