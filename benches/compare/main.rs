//! Olivia beside other servers: `make compare`; ARGS=--help lists the programs and arguments.
//!
//! The servers take turns in every round, on one core, and the generator of `olivia bench` has another, so a
//! disturbance of the machine affects all; medians of the rounds count. Every reply is verified. One JSON file holds
//! the figures of all rounds; README, `docs/performance.md` and pictures are rendered from it.

mod echo;
pub(crate) mod figures;
mod goals;
mod measure;
pub(crate) mod render;
#[path = "../support/server.rs"]
mod server;
mod settings;
#[path = "../pictures/svg.rs"]
#[allow(dead_code, reason = "this draws bars only")]
mod svg;
mod systems;

use settings::{HELP, Task};
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("compare: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the task that the arguments select.
///
/// # Errors
/// A sentence, also if a single reply was wrong.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    match Task::parse(args)? {
        Task::Help => {
            print!("{HELP}");
            Ok(())
        }
        Task::Echo(key_bytes, value, port) => echo::run(port, key_bytes, &value),
        Task::Render => render::write(&figures::Figures::read(&figures::path())?),
        Task::Measure(options) => {
            let figures = measure::all(&options)?;
            match &options.write {
                Some(path) => figures.write(path).and_then(|()| render::write(&figures)),
                None => {
                    print!("{}", render::report(&figures));
                    Ok(())
                }
            }
        }
    }
}
