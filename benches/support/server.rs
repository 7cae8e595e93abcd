//! Servers started for a measurement, killed on drop, and figures of their processes from Linux.
//!
//! A server that does not start is an error, without a retry.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// Time limit for a server to listen.
const START_MAX: Duration = Duration::from_secs(10);

/// A server process on loopback.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    addr: SocketAddr,
    /// Held open: a log line into a closed pipe would be an error in the server.
    _log: Option<BufReader<ChildStderr>>,
}

impl Server {
    /// Starts the program of this package on a free port and waits until it listens. It reads no configuration of this
    /// machine.
    #[allow(dead_code, reason = "not every bench starts it as it is")]
    pub(crate) fn olivia(core: Option<u32>) -> Result<Self, String> {
        Self::olivia_with(core, &[], &[])
    }

    /// [`Server::olivia`] with more arguments and variables.
    pub(crate) fn olivia_with(
        core: Option<u32>,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self, String> {
        Self::program(env!("CARGO_BIN_EXE_olivia"), core, args, env)
    }

    /// [`Server::olivia_with`] with another build of the program.
    pub(crate) fn program(
        program: &str,
        core: Option<u32>,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self, String> {
        let mut command = on_core(core, program);
        command.args(["--config", "/dev/null", "--port", "0"]).args(args).env_clear();
        command.envs(env.iter().copied());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start olivia: {error}"))?;
        let log = child.stderr.take().map(BufReader::new);
        let mut server = Self { child, addr: SocketAddr::from(([127, 0, 0, 1], 0)), _log: None };
        let mut log = log.ok_or("olivia has no standard error")?;
        let mut line = String::new();
        while log.read_line(&mut line).map_err(|error| format!("cannot read olivia's log: {error}"))? > 0 {
            if let Some((_, rest)) = line.split_once("listens on ") {
                let addr = rest.split(';').next().unwrap_or_default().trim();
                server.addr = addr.parse().map_err(|error| format!("'{addr}' in olivia's log: {error}"))?;
                server._log = Some(log);
                return Ok(server);
            }
            line.clear();
        }
        Err("olivia ended before it listened".to_owned())
    }

    /// Starts a redis-server without persistence, and waits until it listens.
    #[allow(dead_code, reason = "not every bench compares")]
    pub(crate) fn redis(program: &str, core: Option<u32>) -> Result<Self, String> {
        let peer = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port"];
        Self::peer(program, core, &peer)
    }

    /// Starts a memcached with enough memory for each measurement, and waits until it listens.
    #[allow(dead_code, reason = "not every bench compares")]
    pub(crate) fn memcached(program: &str, core: Option<u32>) -> Result<Self, String> {
        Self::memcached_with(program, core, 16_384)
    }

    /// Starts a memcached with a memory limit in MiB, and waits until it listens.
    #[allow(dead_code, reason = "not every bench compares")]
    pub(crate) fn memcached_with(program: &str, core: Option<u32>, mebibytes: u64) -> Result<Self, String> {
        let memory = mebibytes.to_string();
        Self::peer(program, core, &["-u", "nobody", "-t", "1", "-m", &memory, "-l", "127.0.0.1", "-p"])
    }

    /// Starts a program whose last argument is the port to listen on.
    #[allow(dead_code, reason = "not every bench compares")]
    pub(crate) fn peer(program: &str, core: Option<u32>, args: &[&str]) -> Result<Self, String> {
        let addr = free_addr().map_err(|error| format!("no free port: {error}"))?;
        let child = on_core(core, program)
            .args(args)
            .arg(addr.port().to_string())
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {program}: {error}"))?;
        let server = Self { child, addr, _log: None };
        let begin = Instant::now();
        while TcpStream::connect(addr).is_err() {
            if begin.elapsed() > START_MAX {
                return Err(format!("{program} does not listen on {addr}"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(server)
    }

    /// The address on which it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process id.
    #[allow(dead_code, reason = "not every bench uses it")]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the CPU time in ns that the threads of a process have used, as the scheduler counts it. The times in
/// /proc/PID/stat are sampled at ticks, and wrong for threads that wake up at ticks.
#[allow(dead_code, reason = "not every bench uses it")]
pub(crate) fn cpu_ns(pid: u32) -> Result<u64, String> {
    schedstat(pid, 0)
}

/// Returns the time in ns for which the threads of a process were runnable and had no core.
#[allow(dead_code, reason = "not every bench uses it")]
pub(crate) fn waited_ns(pid: u32) -> Result<u64, String> {
    schedstat(pid, 1)
}

/// Returns the time in ns for which this thread was runnable and had no core.
#[allow(dead_code, reason = "not every bench uses it")]
pub(crate) fn waited_ns_of_thread() -> Result<u64, String> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    text.split(' ').nth(1).and_then(|time| time.parse().ok()).ok_or_else(|| format!("{path} has no times"))
}

fn schedstat(pid: u32, column: usize) -> Result<u64, String> {
    let path = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
    let of_one = |thread: fs::DirEntry| -> Option<u64> {
        fs::read_to_string(thread.path().join("schedstat")).ok()?.split(' ').nth(column)?.parse().ok()
    };
    // A thread may end meanwhile.
    let times: Vec<u64> = threads.flatten().filter_map(of_one).collect();
    if times.is_empty() { Err(format!("{path} has no times")) } else { Ok(times.iter().sum()) }
}

/// Returns a number of /proc/PID/status, without its unit.
#[allow(dead_code, reason = "not every bench uses it")]
pub(crate) fn status(pid: u32, name: &str) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| format!("{path} has no {name}"))
}

/// Returns the command of a program, bound to a core if one is given.
fn on_core(core: Option<u32>, program: &str) -> Command {
    let Some(core) = core else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), program]);
    command
}

fn free_addr() -> std::io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}
