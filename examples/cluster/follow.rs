//! The cluster: starts the nodes, waits until all are linked, shows their logs, shuts them down.
//!
//! One loop over one channel of events: lines of logs, ends of logs, signals.

use crate::Options;
use crate::demo;
use crate::node::{Node, Plan, cores};
use crate::output::Output;
use olivia::config::{FileRead, memory_max_of};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::fmt::Write;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Time limit for a node to listen.
const START_MAX: Duration = Duration::from_secs(10);

/// Time limit for all nodes to be linked.
const READY_MAX: Duration = Duration::from_secs(30);

/// Time between two queries for readiness.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Time for which a line is held back, since other nodes may log the same: all of them log the death of one.
const HOLD: Duration = Duration::from_millis(100);

/// Number of names shown before a line that several nodes have logged; above it the number of nodes is shown.
const NAMES_MAX: usize = 4;

/// The wait while no line is held back.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// Time limit for nodes to shut down: somewhat more than their default `drain_ms`.
const END_MAX: Duration = Duration::from_secs(7);

/// A second signal within this time counts as the first: a terminal and a parent (make, timeout) may both send it.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// An event.
#[derive(Debug)]
pub(crate) enum Event {
    /// A node has logged a line.
    Line(usize, String),
    /// A node has closed its log: it has exited.
    Ended(usize),
    /// A signal to this program.
    Signal,
}

/// A line that is held back, with the nodes that have logged it.
#[derive(Debug)]
struct Held {
    since: Instant,
    line: String,
    nodes: Vec<usize>,
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct Cluster {
    program: PathBuf,
    dir: PathBuf,
    nodes_wanted: u16,
    next_port: u16,
    secret: String,
    has_load: bool,
    nodes: Vec<Node>,
    sender: Sender<Event>,
    events: Receiver<Event>,
    output: Output,
    held: Vec<Held>,
    /// When the first signal arrived.
    signalled: Option<Instant>,
    /// A second signal arrived: the nodes are killed.
    is_hurried: bool,
    /// All nodes are linked: their logs are shown from here on.
    is_up: bool,
    /// The nodes are being shut down.
    is_ending: bool,
    /// A node did not start or did not end.
    has_failed: bool,
}

impl Cluster {
    /// A cluster without nodes yet.
    pub(crate) fn new(options: &Options, output: Output) -> Result<Self, String> {
        let (sender, events) = channel();
        watch_signals(&sender).map_err(|error| format!("cannot listen to signals: {error}"))?;
        let secret = (0..4).try_fold(String::new(), |all, _| Ok(format!("{all}{:016x}", getrandom::u64()?)));
        let secret = secret.map_err(|error: getrandom::Error| format!("cannot draw a secret: {error}"))?;
        Ok(Self {
            program: options.program.clone(),
            dir: options.dir.clone(),
            nodes_wanted: options.nodes,
            next_port: options.port,
            secret,
            has_load: options.has_load,
            nodes: Vec::new(),
            sender,
            events,
            output,
            held: Vec::new(),
            signalled: None,
            is_hurried: false,
            is_up: false,
            is_ending: false,
            has_failed: false,
        })
    }

    /// Runs from the start of the first node to the end of the last.
    pub(crate) fn run(mut self) -> Result<ExitCode, String> {
        let up = self.start_all().and_then(|()| self.wait_until_ready());
        match up {
            Ok(()) if !self.is_to_end() => {
                self.is_up = true;
                let text = self.introduction();
                self.output.line(&text);
                if self.has_load {
                    demo::start(self.nodes.iter().map(|node| node.addr).collect());
                }
            }
            Ok(()) => {}
            Err(_) => self.has_failed = true,
        }
        while up.is_ok() && !self.is_to_end() && self.living() > 0 {
            self.step(FOR_EVER);
        }
        self.end_all();
        up?;
        Ok(if self.has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn is_to_end(&self) -> bool {
        self.signalled.is_some() || self.output.is_closed
    }

    fn living(&self) -> usize {
        self.nodes.iter().filter(|node| node.ended.is_none()).count()
    }

    /// Waits for an event, up to a time limit, and handles all events that are there then.
    fn step(&mut self, time_limit: Duration) {
        let hold = self.held.first().map_or(time_limit, |held| HOLD.saturating_sub(held.since.elapsed()));
        match self.events.recv_timeout(time_limit.min(hold)) {
            Ok(event) => self.take(event),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        while let Ok(event) = self.events.try_recv() {
            self.take(event);
        }
        if self.held.first().is_some_and(|held| held.since.elapsed() >= HOLD) {
            self.show_held();
        }
    }

    /// Holds a line back, together with those of other nodes that differ in the time only.
    fn hold(&mut self, index: usize, line: String) {
        let text = |line: &str| line.split_once(' ').map(|(_, text)| text.to_owned());
        let same = self.held.iter_mut().find(|held| text(&held.line) == text(&line));
        match same.filter(|held| !held.nodes.contains(&index)) {
            Some(held) => held.nodes.push(index),
            None => self.held.push(Held { since: Instant::now(), line, nodes: vec![index] }),
        }
    }

    fn show_held(&mut self) {
        for Held { line, mut nodes, .. } in std::mem::take(&mut self.held) {
            nodes.sort_unstable();
            let names: Vec<&str> = nodes.iter().map(|index| self.nodes[*index].name.as_str()).collect();
            let names = match names.len() {
                ..=NAMES_MAX => names.join(" "),
                count => format!("{count} nodes"),
            };
            self.output.log(nodes[0], &names, &line);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Line(index, line) => {
                let node = &mut self.nodes[index];
                node.note(&line);
                // INFO lines of start and shutdown are many and report no problem.
                if self.is_up && !self.is_ending || !line.contains("[INFO ]") {
                    let line = self.with_names(&line);
                    self.hold(index, line);
                }
            }
            Event::Ended(index) => self.ended(index),
            Event::Signal => {
                let first = *self.signalled.get_or_insert_with(Instant::now);
                self.is_hurried |= first.elapsed() >= SAME_SIGNAL;
            }
        }
    }

    /// Returns a line with the names of nodes in place of their addresses, and without their ids.
    fn with_names(&self, line: &str) -> String {
        let mut line = match line.split_once(" (node ") {
            Some((before, after)) => format!("{before}{}", after.get(33..).unwrap_or_default()),
            None => line.to_owned(),
        };
        for node in &self.nodes {
            let addr = node.addr.to_string();
            while let Some(at) = line.find(&addr).filter(|at| !line[at + addr.len()..].starts_with(is_digit))
            {
                line.replace_range(at..at + addr.len(), &node.name);
            }
        }
        line
    }

    /// Reports the exit of a node.
    fn ended(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let status = match node.reap() {
            Ok(status) => status,
            Err(error) => return self.output.alarm(&format!("{} cannot be waited for: {error}", node.name)),
        };
        if self.is_ending && status.success() || node.was_too_late() {
            return;
        }
        self.show_held();
        let node = &self.nodes[index];
        let (name, addr, how) = (&node.name, node.addr, how_it_ended(status));
        if self.is_up {
            let verb = if status.success() { "ended" } else { "died" };
            self.output.alarm(&format!("{name} ({addr}) {verb} ({how}); start it again: {}", node.command));
        } else {
            self.has_failed = true;
            self.output.alarm(&format!("{name} ({addr}) died ({how}); its last lines:{}", node.last_lines()));
        }
    }

    fn start_all(&mut self) -> Result<(), String> {
        if !self.program.exists() {
            let program = self.program.display();
            return Err(format!("{program} does not exist; build it first: cargo build --release"));
        }
        while self.nodes.len() < usize::from(self.nodes_wanted) && !self.is_to_end() {
            self.start_next()?;
        }
        Ok(())
    }

    /// Starts one more node on the next free port, and waits until it listens.
    fn start_next(&mut self) -> Result<(), String> {
        let index = self.nodes.len();
        let plan = Plan {
            program: &self.program,
            dir: &self.dir,
            port: free_port(self.next_port)?,
            base: self.nodes.first().map(|node| node.addr),
            secret: &self.secret,
            memory_max: memory_max_of(self.nodes_wanted.into(), &|path| {
                Ok(FileRead { bytes: std::fs::read(path)?, open_to_others: false })
            }),
            // One node per core; more nodes than cores are left to the scheduler.
            core: Some(cores())
                .filter(|cores| cores.len() >= usize::from(self.nodes_wanted))
                .map(|cores| cores[index]),
        };
        self.next_port = plan.port.checked_add(1).ok_or("there are no more ports")?;
        self.nodes.push(Node::start(index, &plan, &self.sender)?);
        let begin = Instant::now();
        while !self.nodes[index].listens && !self.is_to_end() {
            self.step(POLL_EVERY);
            let node = &self.nodes[index];
            if node.was_too_late() && node.ended.is_some() {
                // The port was taken after it was found free; the next one is tried.
                self.nodes.pop();
                break;
            }
            if node.ended.is_some() {
                return Err(format!("{} did not start", node.name));
            }
            if begin.elapsed() > START_MAX {
                return Err(format!("{} does not listen after {START_MAX:?}", node.name));
            }
        }
        Ok(())
    }

    /// Waits until each node is ready and linked to all the others.
    fn wait_until_ready(&mut self) -> Result<(), String> {
        let links = self.nodes.len() - 1;
        let begin = Instant::now();
        let mut next = 0;
        while next < self.nodes.len() && !self.is_to_end() {
            self.step(Duration::ZERO);
            if self.has_failed {
                return Err("a node died before all were linked".to_owned());
            }
            let node = &self.nodes[next];
            let stats = node.stats().unwrap_or_else(|error| error.to_string());
            let peers = field(&stats, "peers_linked").and_then(|count| count.parse().ok());
            if field(&stats, "ready") == Some("yes") && peers == Some(links) {
                next += 1;
            } else if begin.elapsed() > READY_MAX {
                let (name, stats) = (&node.name, stats.trim_end());
                return Err(format!("{name} is not ready after {READY_MAX:?}; its STATS: {stats}"));
            } else {
                self.step(POLL_EVERY);
            }
        }
        Ok(())
    }

    fn introduction(&self) -> String {
        let (Some(first), Some(last)) = (self.nodes.first(), self.nodes.last()) else { return String::new() };
        let mut text = match self.nodes.len() {
            1 => "\nOne node is ready:\n".to_owned(),
            count => format!("\n{count} nodes are ready; each can be queried for any key:\n"),
        };
        for node in &self.nodes {
            let core = node.core.map_or_else(String::new, |core| format!("  core {core}"));
            let _ = writeln!(text, "  {:3} {}  pid {}{core}", node.name, node.addr, node.pid());
        }
        let _ = write!(
            text,
            "\nSet a key on the first, get it from the last:\n  \
             printf 'SET greeting:hello\\n' | nc -N {ip} {first}\n  \
             printf 'GET greeting\\n' | nc -N {ip} {last}\n\
             Type requests by hand:  nc -N {ip} {first}\n\
             In a browser:           http://{ip}:{first}/{load}\n\
             See the links:          printf 'MESH\\n' | nc -N {ip} {first}\n\
             Kill a node:            kill {}\n\
             Start it again:         {}\n\n\
             Ctrl-C ends all of them.\n",
            self.nodes[self.nodes.len() - 1].pid(),
            self.nodes[self.nodes.len() - 1].command,
            load = if self.has_load { ", a small load is running" } else { "" },
            ip = first.addr.ip(),
            first = first.addr.port(),
            last = last.addr.port(),
        );
        text
    }

    /// Shuts all nodes down; kills those that take too long, or all of them at a second signal.
    fn end_all(&mut self) {
        self.is_ending = true;
        self.nodes.iter().for_each(Node::terminate);
        let begin = Instant::now();
        while self.living() > 0 && begin.elapsed() < END_MAX && !self.is_hurried {
            self.step(POLL_EVERY);
        }
        self.show_held();
        if self.is_up && self.living() == 0 {
            self.output.line("All nodes have stopped.");
        }
        for node in self.nodes.iter_mut().filter(|node| node.ended.is_none()) {
            self.output.alarm(&format!("{} ({}) does not shut down and is killed", node.name, node.addr));
            self.has_failed = true;
            node.kill();
            let _ = node.reap();
        }
    }
}

/// Starts the thread that sends an event per signal.
fn watch_signals(events: &Sender<Event>) -> std::io::Result<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        pipe::register(signal, theirs.try_clone()?)?;
    }
    let events = events.clone();
    thread::spawn(move || {
        let mut byte = [0];
        while ours.read_exact(&mut byte).is_ok() && events.send(Event::Signal).is_ok() {}
    });
    Ok(())
}

/// Returns the first free port from `port` up.
fn free_port(port: u16) -> Result<u16, String> {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (port..=u16::MAX).find(is_free).ok_or_else(|| format!("no port from {port} up is free"))
}

/// Returns one field of a STATS reply.
fn field<'l>(stats: &'l str, name: &str) -> Option<&'l str> {
    let fields = stats.trim_end().strip_prefix(":STATS ")?.split(',');
    fields.filter_map(|field| field.split_once(':')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn how_it_ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
