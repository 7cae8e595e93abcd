//! The life of the cluster: start, wait until every node knows the others, show the logs, end.
//!
//! One loop over one channel: lines of logs, ends of logs, signals. Whatever is waited for, all of these
//! are taken meanwhile.

use crate::Options;
use crate::node::{Node, Plan};
use crate::output::Output;
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

/// How long a node may take until it listens.
const START_MAX: Duration = Duration::from_secs(10);

/// How long all of them may take to know each other.
const READY_MAX: Duration = Duration::from_secs(30);

/// How often a node is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// When there is nothing to do but what happens.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// How long nodes may take to end: somewhat more than the `drain_ms` that they have by default.
const END_MAX: Duration = Duration::from_secs(7);

/// A signal that comes so soon after the first is the same one: a terminal and a program that waits for
/// this one (make, timeout) may both pass it on.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A node has logged a line.
    Line(usize, String),
    /// A node has closed its log, which it does when it ends.
    Ended(usize),
    /// This program was told to end.
    Signal,
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct Cluster {
    program: PathBuf,
    dir: PathBuf,
    nodes_wanted: u16,
    next_port: u16,
    secret: String,
    nodes: Vec<Node>,
    sender: Sender<Event>,
    events: Receiver<Event>,
    output: Output,
    /// When it was told to end.
    told: Option<Instant>,
    /// It was told to end again, which means: at once.
    is_hurried: bool,
    /// The ends of nodes are expected.
    is_ending: bool,
    has_failed: bool,
}

impl Cluster {
    /// Prepared, with nothing started.
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
            nodes: Vec::new(),
            sender,
            events,
            output,
            told: None,
            is_hurried: false,
            is_ending: false,
            has_failed: false,
        })
    }

    /// From the start of the first node to the end of the last.
    pub(crate) fn run(mut self) -> Result<ExitCode, String> {
        let up = self.start_all().and_then(|()| self.wait_until_ready());
        match up {
            Ok(()) if !self.is_told_to_end() => {
                let text = self.introduction();
                self.output.line(&text);
            }
            Ok(()) => {}
            Err(_) => self.has_failed = true,
        }
        while up.is_ok() && !self.is_told_to_end() && self.living() > 0 {
            self.step(FOR_EVER);
        }
        self.end_all();
        up?;
        Ok(if self.has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn is_told_to_end(&self) -> bool {
        self.told.is_some() || self.output.is_closed
    }

    fn living(&self) -> usize {
        self.nodes.iter().filter(|node| node.ended.is_none()).count()
    }

    /// Waits for an event, for so long at most, and takes all that there are then.
    fn step(&mut self, patience: Duration) {
        match self.events.recv_timeout(patience) {
            Ok(event) => self.take(event),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
        while let Ok(event) = self.events.try_recv() {
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Line(index, line) => {
                let node = &mut self.nodes[index];
                node.note(&line);
                self.output.log(index, &node.name, &line);
            }
            Event::Ended(index) => self.ended(index),
            Event::Signal => {
                let first = *self.told.get_or_insert_with(Instant::now);
                self.is_hurried |= first.elapsed() >= SAME_SIGNAL;
            }
        }
    }

    /// Takes note of the end of a node.
    fn ended(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let status = match node.reap() {
            Ok(status) => status,
            Err(error) => return self.output.alarm(&format!("{} cannot be waited for: {error}", node.name)),
        };
        if self.is_ending && status.success() || node.was_too_late() {
            return;
        }
        self.has_failed = true;
        let (how, words) = (how_it_ended(status), node.last_words());
        self.output.alarm(&format!("{} ({}) died: {how}; its last lines:{words}", node.name, node.addr));
    }

    fn start_all(&mut self) -> Result<(), String> {
        if !self.program.exists() {
            let program = self.program.display();
            return Err(format!("there is no {program}; build it first: cargo build --release"));
        }
        while self.nodes.len() < usize::from(self.nodes_wanted) && !self.is_told_to_end() {
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
        };
        self.next_port = plan.port.checked_add(1).ok_or("there are no more ports")?;
        self.nodes.push(Node::start(index, &plan, &self.sender)?);
        let begin = Instant::now();
        while !self.nodes[index].listens && !self.is_told_to_end() {
            self.step(ASK_EVERY);
            let node = &self.nodes[index];
            if node.was_too_late() && node.ended.is_some() {
                // Somebody took the port after it was seen free; the next port is tried.
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
        while next < self.nodes.len() && !self.is_told_to_end() {
            self.step(Duration::ZERO);
            if self.has_failed {
                return Err(format!("{} nodes are left before all were ready", self.living()));
            }
            let node = &self.nodes[next];
            let stats = node.stats().unwrap_or_else(|error| error.to_string());
            let peers = field(&stats, "peers_linked").and_then(|count| count.parse().ok());
            if field(&stats, "ready") == Some("yes") && peers == Some(links) {
                next += 1;
            } else if begin.elapsed() > READY_MAX {
                let (name, stats) = (&node.name, stats.trim_end());
                return Err(format!("{name} is not ready after {READY_MAX:?}; it says: {stats}"));
            } else {
                self.step(ASK_EVERY);
            }
        }
        Ok(())
    }

    fn introduction(&self) -> String {
        let (Some(first), Some(last)) = (self.nodes.first(), self.nodes.last()) else { return String::new() };
        let mut text = match self.nodes.len() {
            1 => "\nOne node is ready:\n".to_owned(),
            count => format!("\n{count} nodes are ready; each answers for all of them:\n"),
        };
        for node in &self.nodes {
            let _ = writeln!(text, "  {:3} {}", node.name, node.addr);
        }
        let _ = write!(
            text,
            "\nSet a key on the first, and get it from the last:\n  \
             printf 'SET greeting:hello\\n' | nc -N {} {}\n  \
             printf 'GET greeting\\n' | nc -N {} {}\n\
             (or type the words into: nc {} {})\n\nCtrl-C ends all of them.\n",
            first.addr.ip(),
            first.addr.port(),
            last.addr.ip(),
            last.addr.port(),
            first.addr.ip(),
            first.addr.port()
        );
        text
    }

    /// Tells all to end, waits for it, and kills those that do not, at once if told a second time.
    fn end_all(&mut self) {
        self.is_ending = true;
        self.nodes.iter().for_each(Node::terminate);
        let begin = Instant::now();
        while self.living() > 0 && begin.elapsed() < END_MAX && !self.is_hurried {
            self.step(ASK_EVERY);
        }
        for node in self.nodes.iter_mut().filter(|node| node.ended.is_none()) {
            self.output.alarm(&format!("{} ({}) does not end and is killed", node.name, node.addr));
            self.has_failed = true;
            node.kill();
            let _ = node.reap();
        }
    }
}

/// Lets signals come as events.
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

/// The first port from `port` up that nobody listens on at this moment.
fn free_port(port: u16) -> Result<u16, String> {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (port..=u16::MAX).find(is_free).ok_or_else(|| format!("no port from {port} up is free"))
}

/// One field of a STATS reply.
fn field<'l>(stats: &'l str, name: &str) -> Option<&'l str> {
    let fields = stats.trim_end().strip_prefix(":STATS ")?.split(',');
    fields.filter_map(|field| field.split_once(':')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn how_it_ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
