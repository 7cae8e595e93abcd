//! The program as a process: started on a free port, its log kept, killed at the end of the test.

use super::client::Client;
use super::{WAIT_MAX, raise_open_files, wait_until};
use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// The text before the address in the line at start.
const LISTENS: &str = " olivia 0.1.0 listens on ";

/// The program of iproute2, by its whole path, since the started program has no PATH.
pub const IP: &str = "/sbin/ip";

/// The parameters of a start of the program.
#[derive(Debug)]
pub struct Launch {
    home: PathBuf,
    args: Vec<String>,
    env: Vec<(String, OsString)>,
    port: u16,
    /// Arguments of the shell's `ulimit`; `None`: the limits of the test.
    ulimit: Option<String>,
    /// The network namespace of the program; `None`: that of the test.
    namespace: Option<String>,
    /// The text of the last line that is read from its standard error, which is closed after it.
    last_line: Option<&'static str>,
}

impl Launch {
    /// Makes a directory to run in, with an empty configuration, so that none of the machine is read; `name` is the
    /// test's.
    pub fn new(name: &str) -> Self {
        raise_open_files();
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("olivia.toml"), "").unwrap();
        Self {
            home,
            args: Vec::new(),
            env: Vec::new(),
            port: 0,
            ulimit: None,
            namespace: None,
            last_line: None,
        }
    }

    /// Sets the port, instead of any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Adds a configured peer.
    pub fn peer(self, addr: SocketAddr) -> Self {
        self.arg("--peer").arg(&addr.to_string())
    }

    /// Sets the network namespace, by its name in `ip netns`.
    pub fn inside(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Sets the limit of file descriptors.
    pub fn files_max(mut self, files: u32) -> Self {
        self.ulimit = Some(format!("-n {files}"));
        self
    }

    /// Sets the limit of address space in bytes.
    pub fn address_space_max(mut self, bytes: u64) -> Self {
        self.ulimit = Some(format!("-v {}", bytes / 1_024));
        self
    }

    /// Closes the reading end of its standard error as soon as it listens.
    pub fn unheard(mut self) -> Self {
        self.last_line = Some(LISTENS);
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Adds a variable to its environment, which is empty otherwise.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets a limit; `name` is its key in `[limits]`.
    pub fn limit(self, name: &str, value: u64) -> Self {
        self.env(&format!("OLIVIA_LIMITS_{}", name.to_ascii_uppercase()), value.to_string())
    }

    /// Writes its `olivia.toml`.
    pub fn config(self, text: &str) -> Self {
        self.file("olivia.toml", text)
    }

    /// Writes a file in its directory.
    pub fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.home.join(name), text).unwrap();
        self
    }

    /// Sets a number of `[mesh]`.
    pub fn mesh(self, name: &str, value: u64) -> Self {
        self.env(&format!("OLIVIA_MESH_{}", name.to_ascii_uppercase()), value.to_string())
    }

    /// Starts it, and waits until it listens.
    pub fn start(self) -> Server {
        let port = self.port.to_string();
        let mut server = self.arg("--port").arg(&port).spawn();
        wait_until("the program listens", || server.log().contains(LISTENS) || server.has_ended());
        let log = server.log();
        let addr = log.split_once(LISTENS).and_then(|(_, rest)| rest.split(';').next());
        server.addr = addr.and_then(|addr| addr.parse().ok()).unwrap_or_else(|| panic!("no start: {log}"));
        server
    }

    /// Starts it without waiting. It may end at once, and its address is not known.
    pub fn spawn(self) -> Server {
        let Self { home, args, env, port: _, ulimit, namespace, last_line } = self;
        let mut child = program(ulimit.as_deref(), namespace.as_deref())
            .current_dir(&home)
            .args(args)
            .env_clear()
            .envs(env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().unwrap();
        let listener = thread::spawn({
            let log = Arc::clone(&log);
            move || keep(stderr, &log, last_line)
        });
        Server {
            child,
            is_ending: Cell::new(false),
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            log,
            listener: Some(listener),
            home,
        }
    }
}

/// Returns the command of the program, in the namespace or under the limit that is set, which it cannot raise again.
fn program(ulimit: Option<&str>, namespace: Option<&str>) -> Command {
    let path = env!("CARGO_BIN_EXE_olivia");
    if let Some(namespace) = namespace {
        let mut command = Command::new(IP);
        command.args(["netns", "exec", namespace, path]);
        return command;
    }
    let Some(limit) = ulimit else { return Command::new(path) };
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\""), path]);
    command
}

/// Reads the program's log line by line until it closes its standard error or prints `last`.
fn keep(stderr: ChildStderr, log: &Mutex<String>, last: Option<&str>) {
    for line in BufReader::new(stderr).lines() {
        let Ok(line) = line else { break };
        let mut log = log.lock().unwrap();
        log.push_str(&line);
        log.push('\n');
        if last.is_some_and(|last| line.contains(last)) {
            break;
        }
    }
}

/// A running program, ended on drop.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// The test has sent it a signal that ends it.
    is_ending: Cell<bool>,
    addr: SocketAddr,
    log: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
    home: PathBuf,
}

impl Server {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.addr())
    }

    /// The directory that it runs in.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Returns its standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until its standard error holds `text`.
    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("the log holds {text:?}"), || self.log().contains(text));
    }

    /// Replaces its `olivia.toml`.
    pub fn write_config(&self, text: &str) {
        fs::write(self.home.join("olivia.toml"), text).unwrap();
    }

    /// Sends it a signal: `TERM`, `INT`, `HUP`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        self.is_ending.set(self.is_ending.get() || ["TERM", "INT"].contains(&name));
        let command = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.end();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end; returns the exit code and all its standard error.
    pub fn end(&mut self) -> (Option<i32>, String) {
        let begin = Instant::now();
        while !self.has_ended() {
            if begin.elapsed() > WAIT_MAX {
                _ = self.child.kill();
                panic!("the program does not end; its log:\n{}", self.log());
            }
            thread::sleep(std::time::Duration::from_millis(5));
        }
        if let Some(listener) = self.listener.take() {
            listener.join().unwrap();
        }
        (self.child.wait().unwrap().code(), self.log())
    }

    /// Returns the CPU time that it has used, in ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name in parentheses may hold anything; user and system time are fields 14 and 15.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Returns its resident bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        1_024 * line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
    }

    /// Returns the number of its open file descriptors.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Server {
    /// Ends it with SIGTERM, and checks that it exits with code 0 and did not panic; not if the test fails, or has
    /// killed it or looked at its end.
    fn drop(&mut self) {
        if self.listener.is_some() && !thread::panicking() {
            if !self.is_ending.get() {
                self.signal("TERM");
            }
            let (code, log) = self.end();
            assert!(code == Some(0) && !log.contains("panicked"), "{code:?}: {log}");
        }
        _ = self.child.kill();
        _ = self.child.wait();
        _ = fs::remove_dir_all(&self.home);
    }
}
