//! One node: its configuration, its process, its log, its exit.
//!
//! A node runs in a process group of its own, so that Ctrl-C in a terminal reaches only this program, which then shuts
//! the node down. On Linux the system kills the node if this program dies first.

use crate::follow::Event;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

/// The first argument of this program in a process that becomes a node.
const AS_CHILD: &str = "--as-child-of";

/// The third argument of a node without a core of its own.
const ANY_CORE: &str = "-";

/// Time limit of one reply of a node.
const REPLY_MAX: Duration = Duration::from_secs(1);

/// Time limit for a process to exit after it has closed its log.
const REAP_MAX: Duration = Duration::from_secs(2);

/// Log lines of a node that listens, and of one whose port is taken.
const LISTENS: &str = " listens on ";
const PORT_TAKEN: &str = "another process has this port";

/// Last lines of a log that are kept, for a node that does not start.
const LAST_LINES: usize = 10;

/// Prefixes of Olivia's variables that reach the nodes. All others would override their configurations.
const VARIABLES: [&str; 2] = ["OLIVIA_LOG_", "OLIVIA_LIMITS_"];

/// The parameters of a node.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) program: &'a Path,
    pub(crate) dir: &'a Path,
    pub(crate) port: u16,
    /// The first node, which the others join.
    pub(crate) base: Option<SocketAddr>,
    pub(crate) secret: &'a str,
    /// Each node's share of the memory in bytes, if that is known.
    pub(crate) memory_max: Option<u64>,
    /// The core that no other node runs on.
    pub(crate) core: Option<usize>,
}

/// A node that was started.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) addr: SocketAddr,
    child: Child,
    last_lines: VecDeque<String>,
    pub(crate) listens: bool,
    port_is_taken: bool,
    /// Its exit status, once it has one.
    pub(crate) ended: Option<ExitStatus>,
    /// The command that starts it by hand.
    pub(crate) command: String,
    pub(crate) core: Option<usize>,
}

impl Node {
    /// Writes its configuration and starts it; its log comes through `events`.
    pub(crate) fn start(index: usize, plan: &Plan<'_>, events: &Sender<Event>) -> Result<Self, String> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, plan.port));
        let config = write_config(plan, addr)?;
        let this = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let mut command = Command::new(this);
        let core = plan.core.map_or_else(|| ANY_CORE.to_owned(), |core| core.to_string());
        command.arg(AS_CHILD).arg(std::process::id().to_string()).arg(core).arg(plan.program);
        command.arg("--config").arg(&config);
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_kept_away(name)) {
            command.env_remove(name);
        }
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start a process: {error}"))?;
        if let Some(log) = child.stderr.take() {
            let events = events.clone();
            thread::spawn(move || read_log(index, log, &events));
        }
        let name = format!("n{}", index + 1);
        let last_lines = VecDeque::new();
        let command = format!("{} --config {}", plan.program.display(), config.display());
        let (listens, port_is_taken, ended, core) = (false, false, None, plan.core);
        Ok(Self { name, addr, child, last_lines, listens, port_is_taken, ended, command, core })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the node did not start because its port is taken.
    pub(crate) fn was_too_late(&self) -> bool {
        self.port_is_taken && !self.listens
    }

    /// Notes a line of its log.
    pub(crate) fn note(&mut self, line: &str) {
        self.listens |= line.contains(LISTENS);
        self.port_is_taken |= line.contains(PORT_TAKEN);
        if self.last_lines.len() == LAST_LINES {
            self.last_lines.pop_front();
        }
        self.last_lines.push_back(line.to_owned());
    }

    /// The last lines of its log.
    pub(crate) fn last_lines(&self) -> String {
        self.last_lines.iter().fold(String::new(), |all, line| all + "\n    " + line)
    }

    /// Its STATS.
    pub(crate) fn stats(&self) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.addr, REPLY_MAX)?;
        stream.set_read_timeout(Some(REPLY_MAX))?;
        stream.write_all(b"STATS\n")?;
        let mut line = String::new();
        BufReader::new(stream.take(64 * 1024)).read_line(&mut line)?;
        Ok(line)
    }

    /// Shuts it down.
    pub(crate) fn terminate(&self) {
        // Not reaped yet, so the pid is still its own, also if it has ended.
        if self.ended.is_none() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
        }
    }

    /// Waits for its exit status after its log was closed; kills it after [`REAP_MAX`].
    pub(crate) fn reap(&mut self) -> io::Result<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.ended = Some(status);
                return Ok(status);
            }
            if begin.elapsed() > REAP_MAX {
                self.child.kill()?;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A node must not outlive this program.
        self.kill();
        let _ = self.child.wait();
    }
}

fn is_kept_away(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("OLIVIA_") && !VARIABLES.iter().any(|kept| name.starts_with(kept))
}

/// Writes the configuration, a file named by the port and readable only by its owner, since it holds the secret.
fn write_config(plan: &Plan<'_>, addr: SocketAddr) -> Result<PathBuf, String> {
    let path = plan.dir.join(format!("{}.toml", addr.port()));
    let peers = plan.base.map(|base| format!("\"{base}\"")).unwrap_or_default();
    let memory_max =
        plan.memory_max.map_or_else(String::new, |max| format!("\n[limits]\nmemory_max = {max}\n"));
    let text = format!(
        "# Written by `make run-cluster` for one of its nodes.\nlisten_port = {}\n\
         remote_peers = [{peers}]\nbind = \"{}\"\n\n[mesh]\nsecret = \"{}\"\n{memory_max}",
        addr.port(),
        addr.ip(),
        plan.secret,
    );
    let written = std::fs::create_dir_all(plan.dir).and_then(|()| {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(text.as_bytes())
    });
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path)
}

/// Passes a node's log on, line by line, then its end.
fn read_log(index: usize, log: ChildStderr, events: &Sender<Event>) {
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    while log.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        if events.send(Event::Line(index, text)).is_err() {
            return;
        }
        line.clear();
    }
    // Fails only while this program ends.
    let _ = events.send(Event::Ended(index));
}

/// Replaces this process by a node if it was started for that; returns only otherwise or if that fails.
pub(crate) fn run_as_child() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != AS_CHILD {
        return None;
    }
    let parent: Option<u32> = args.next().and_then(|parent| parent.to_str()?.parse().ok());
    let core = args.next();
    let Some((parent, program)) = parent.zip(args.next()) else {
        eprintln!("cluster: {AS_CHILD} is for its own use");
        return Some(ExitCode::FAILURE);
    };
    let core = core.and_then(|core| core.to_str()?.parse().ok());
    if let Err(sentence) = die_with(parent).and_then(|()| core.map_or(Ok(()), run_on)) {
        eprintln!("cluster: {sentence}");
        return Some(ExitCode::FAILURE);
    }
    let error = Command::new(&program).args(args).exec();
    eprintln!("cluster: cannot run {}: {error}", Path::new(&program).display());
    Some(ExitCode::FAILURE)
}

/// Has the system kill this process, also after `exec`, when its parent dies.
#[cfg(target_os = "linux")]
fn die_with(parent: u32) -> Result<(), String> {
    use rustix::process::{getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())?;
    let is_there = getppid().is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent));
    // The parent may have died before the call.
    if is_there { Ok(()) } else { Err("the parent process is gone".to_owned()) }
}

/// The cores that this process may use.
#[cfg(target_os = "linux")]
pub(crate) fn cores() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let allowed = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
}

/// Binds this process to a core, also after `exec`.
#[cfg(target_os = "linux")]
fn run_on(core: usize) -> Result<(), String> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(|error| format!("core {core}: {error}"))
}

/// No core can be chosen on this system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn cores() -> Vec<usize> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
fn run_on(_: usize) -> Result<(), String> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn die_with(_: u32) -> Result<(), String> {
    Ok(())
}
