//! Olivia beside other servers: `make compare`, which says what it needs with ARGS=--help.
//!
//! The servers take turns in every round, on one core, while the generator of `olivia bench` has another; what disturbs the
//! machine disturbs all, and medians of the rounds count. Every reply is verified. One file of JSON holds all figures
//! of all rounds; README, `docs/performance.md` and pictures are rendered from it.

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

/// Does what the arguments say.
///
/// # Errors
/// A sentence, also when a single reply was wrong.
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
