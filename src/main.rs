//! The program: arguments, configuration, logger, exit code.
//!
//! The configuration is parsed in `olivia::config`, which opens nothing; files and environment are read here.

#![warn(clippy::unwrap_used, clippy::expect_used)]

use log::LevelFilter;
use olivia::client::{self, ClientError};
use olivia::config::{self, Command, FILE_BYTES_MAX, FileRead, HELP, Loaded, Sources};
use olivia::shell::LogOutput;
use simplelog::{ConfigBuilder, LevelPadding, WriteLogger, format_description};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::process::ExitCode;

/// The exit code for wrong usage or a wrong configuration. 1 is a failure while running.
const EXIT_CONFIG: u8 = 2;

/// The environment variable with the password: of a node, and of `olivia ask` and `olivia top`.
const PASSWORD: &str = "OLIVIA_SECURITY_PASSWORD";

fn main() -> ExitCode {
    let sources = Sources {
        args: std::env::args_os().skip(1).collect(),
        env: std::env::vars_os().collect(),
        found: None,
    };
    if client::is_called(&sources.args) {
        let password =
            sources.env.iter().find(|(name, _)| name == PASSWORD).map(|(_, value)| value.as_os_str());
        return match client::run(&sources.args, password) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error @ ClientError::Usage(_)) => refuse(&error.to_string()),
            Err(error) => {
                print_error(&format!("olivia: {error}"));
                ExitCode::FAILURE
            }
        };
    }
    let loaded = match config::load(&sources, &|path| read_file(path, Files::Any)) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error.to_string()),
    };
    match loaded.command {
        Command::Help => print(HELP),
        Command::Version => print(concat!("olivia ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::CheckConfig => check(&loaded),
        Command::PrintConfig => match config::print_config(&loaded.config) {
            Ok(text) => print(&text),
            Err(error) => refuse(&error.to_string()),
        },
        Command::Run => {
            start_logger(loaded.config.log_level);
            let found = loaded.file.clone();
            serve(loaded, Sources { found, ..sources })
        }
    }
}

/// Runs the node until it is shut down. `sources` are read again at a reload.
fn serve(loaded: Loaded, sources: Sources) -> ExitCode {
    for note in &loaded.notes {
        log::info!("{note}");
    }
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    let reload = move || match config::load(&sources, &|path| read_file(path, Files::Regular)) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                log::warn!("{warning}");
            }
            Ok(loaded.config)
        }
        Err(error) => Err(error.to_string()),
    };
    match olivia::shell::run(loaded.config, Box::new(reload)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            if !log::log_enabled!(log::Level::Error) {
                print_error(&format!("olivia: {error}"));
            }
            ExitCode::FAILURE
        }
    }
}

fn check(loaded: &Loaded) -> ExitCode {
    for warning in &loaded.warnings {
        print_error(&format!("olivia: warning: {warning}"));
    }
    let notes = loaded.notes.join("; ");
    print(&format!("the configuration is fine ({notes})\n"))
}

/// Prints to standard output. A closed pipe (`olivia --help | head -1`) is no failure.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(err) if err.kind() != ErrorKind::BrokenPipe => {
            print_error(&format!("olivia: cannot write to standard output: {err}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn refuse(problems: &str) -> ExitCode {
    for problem in problems.lines() {
        print_error(&format!("olivia: {problem}"));
    }
    ExitCode::from(EXIT_CONFIG)
}

/// Prints to standard error. If that is closed, only the exit code is left.
fn print_error(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// Logs to standard error, one write per line: the time (UTC, RFC 3339 with milliseconds), the level, the message.
///
/// The logger accepts every level; `log::set_max_level` filters, so that a reload can change the level.
fn start_logger(level: LevelFilter) {
    let config = ConfigBuilder::new()
        .set_time_format_custom(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        ))
        .set_time_level(LevelFilter::Error)
        .set_level_padding(LevelPadding::Right)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build();
    if WriteLogger::init(LevelFilter::Trace, config, LogOutput::new()).is_err() {
        print_error("olivia: a logger is already set; using it");
    }
    log::set_max_level(level);
}

/// The kinds of files that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    /// Pipes too, at start: `--config <(command)`.
    Any,
    /// Regular files only, while the node runs: a pipe could block the event loop.
    Regular,
}

/// Reads a configuration file; of a longer one [`FILE_BYTES_MAX`] + 1 bytes.
fn read_file(path: &Path, files: Files) -> io::Result<FileRead> {
    let file = open(path, files)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::from(ErrorKind::IsADirectory));
    }
    if files == Files::Regular && !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file, and could block the running node"));
    }
    let mut bytes = Vec::new();
    let bytes_max = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(FileRead { bytes, open_to_others: open_to_others(&metadata) })
}

/// Opens a file. With [`Files::Regular`] it does not block on a pipe without a writer.
#[cfg(unix)]
fn open(path: &Path, files: Files) -> io::Result<File> {
    use rustix::fs::OFlags;
    use std::os::unix::fs::OpenOptionsExt;
    let flags = if files == Files::Regular { OFlags::NONBLOCK } else { OFlags::empty() };
    File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path, _: Files) -> io::Result<File> {
    File::open(path)
}

#[cfg(unix)]
fn open_to_others(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.mode() & 0o044 != 0
}

#[cfg(not(unix))]
fn open_to_others(_: &std::fs::Metadata) -> bool {
    false
}
