//! `olivia top`: a node and the nodes linked with it, drawn again each second, until `q`. Without a terminal it prints
//! them once and ends.

use super::ClientError;
use super::connection::{Connection, PEER_TIME_LIMITS, TIME_LIMITS};
use super::reply::Reply;
use super::table;
use super::terminal::{self, Screen};
use crate::base::human::{bytes, grouped, micros, span};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// Time between two samples.
const PERIOD: Duration = Duration::from_secs(1);

/// The reply of a node to STATS, with its time.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    stats: Reply,
}

impl Sample {
    fn take(connection: &mut Connection) -> Result<Self, ClientError> {
        Ok(Self { at: Instant::now(), stats: connection.ask(b"STATS")? })
    }

    /// The rise of a counter per second since an earlier sample; `-` if that is less than half a second old.
    fn rate(&self, before: &Self, name: &str) -> String {
        let span = self.at.duration_since(before.at);
        if span < PERIOD / 2 {
            return "-".to_owned();
        }
        grouped((self.stats.number(name) - before.stats.number(name)).max(0.0) / span.as_secs_f64())
    }

    /// The share of keys found among those read since an earlier sample.
    fn hit_ratio(&self, before: &Self) -> String {
        let rise = |name| self.stats.number(name) - before.stats.number(name);
        let (hits, misses) = (rise("hits"), rise("misses"));
        if hits + misses > 0.0 { format!("{:.1} %", 100.0 * hits / (hits + misses)) } else { "-".to_owned() }
    }
}

/// A node of the mesh, with its last two samples, the later one first.
#[derive(Debug, Default)]
struct Node {
    connection: Option<Connection>,
    samples: Option<(Sample, Sample)>,
    /// Why there is no sample.
    trouble: String,
}

impl Node {
    /// Takes a sample of the node; connects first if there is no connection.
    fn sample(&mut self, address: &str, password: Option<&[u8]>) {
        let connection = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(address, password, PEER_TIME_LIMITS),
        };
        let sample = connection.and_then(|mut connection| {
            let sample = Sample::take(&mut connection)?;
            self.connection = Some(connection);
            Ok(sample)
        });
        match sample {
            Ok(sample) => {
                let before = self.samples.take().map_or_else(|| sample.clone(), |(last, _)| last);
                self.samples = Some((sample, before));
            }
            Err(error) => {
                self.trouble = error.to_string();
                self.samples = None;
            }
        }
    }

    /// Its row in the table.
    fn row(&self, address: &str) -> Vec<String> {
        let Some((now, before)) = &self.samples else {
            return vec![address.to_owned(), self.trouble.clone()];
        };
        let stats = &now.stats;
        vec![
            address.to_owned(),
            now.rate(before, "requests"),
            now.hit_ratio(before),
            micros(stats.number("latency_p99_us")),
            grouped(stats.number("keys")),
            bytes(stats.number("memory_bytes")),
            format!("{:.1} %", 100.0 * stats.number("loop_busy_ratio")),
            stats.text("peers_linked").to_owned(),
        ]
    }
}

const COLUMNS: [&str; 8] =
    ["node", "requests/s", "hit ratio", "99 % within", "keys", "memory", "loop busy", "peers linked"];

/// The node that is shown, and the nodes that are linked with it.
struct View {
    address: String,
    password: Option<Vec<u8>>,
    connection: Connection,
    before: Sample,
    peers: BTreeMap<String, Node>,
}

impl View {
    fn open(address: &str, password: Option<&[u8]>) -> Result<Self, ClientError> {
        let mut connection = Connection::open(address, password, TIME_LIMITS)?;
        let before = Sample::take(&mut connection)?;
        let mut view = Self {
            address: address.to_owned(),
            password: password.map(<[u8]>::to_vec),
            connection,
            before,
            peers: BTreeMap::new(),
        };
        view.lines()?;
        Ok(view)
    }

    /// Takes samples of all nodes, of all peers at one time. Returns the lines to be shown.
    fn lines(&mut self) -> Result<Vec<String>, ClientError> {
        let now = Sample::take(&mut self.connection)?;
        let mesh = self.connection.ask(b"MESH")?;
        let rows = table::peers(&mesh.fields());
        let linked = rows.iter().filter(|row| row.get(1).is_some_and(|state| state.starts_with("linked")));
        let mut known = std::mem::take(&mut self.peers);
        self.peers = linked
            .filter_map(|row| row.first())
            .map(|address| (address.clone(), known.remove(address).unwrap_or_default()))
            .collect();
        let password = self.password.as_deref();
        thread::scope(|scope| {
            for (address, peer) in &mut self.peers {
                scope.spawn(move || peer.sample(address, password));
            }
        });
        let own = Node { samples: Some((now.clone(), self.before.clone())), ..Node::default() };
        let mut lines = lines(&self.address, &self.before, &now);
        lines.extend(table::lines(&rows));
        if !self.peers.is_empty() {
            let header = COLUMNS.map(str::to_owned).to_vec();
            let peers = self.peers.iter().map(|(address, peer)| peer.row(address));
            let all: Vec<_> = [header, own.row(&self.address)].into_iter().chain(peers).collect();
            lines.push(String::new());
            lines.extend(table::lines(&all));
        }
        self.before = now;
        Ok(lines)
    }
}

/// Shows the node and its mesh until the user ends it.
pub(super) fn run(address: &str, password: Option<&[u8]>) -> Result<(), ClientError> {
    let mut view = View::open(address, password)?;
    let Some(screen) = Screen::open()? else {
        thread::sleep(PERIOD);
        return terminal::print(&view.lines()?);
    };
    screen.draw(&view.lines()?)?;
    while !screen.wait_for_end(PERIOD) {
        screen.draw(&view.lines()?)?;
    }
    Ok(())
}

fn lines(address: &str, before: &Sample, now: &Sample) -> Vec<String> {
    let stats = &now.stats;
    let number = |name: &str| grouped(stats.number(name));
    let rate = |name: &str| now.rate(before, name);
    let size = |name: &str| bytes(stats.number(name));
    let time = |name: &str| micros(stats.number(name));
    let ready = if stats.text("ready") == "yes" { "ready" } else { "not ready" };
    let up = Duration::from_secs(stats.text("uptime_seconds").parse().unwrap_or_default());
    let is_limited = stats.number("memory_max") > 0.0;
    let limit = if is_limited { format!("of {}", size("memory_max")) } else { "no limit".to_owned() };
    let metrics = [
        ["requests/s", &rate("requests"), "hit ratio", &now.hit_ratio(before), "clients", &number("clients")],
        ["keys", &number("keys"), "sets/s", &rate("sets"), "expirations/s", &rate("expirations")],
        ["memory", &size("memory_bytes"), "limit", &limit, "buffers", &size("buffers_bytes")],
        [
            "lookups/s",
            &rate("lookups"),
            "queries/s",
            &rate("queries"),
            "false positives/s",
            &rate("query_false_positives"),
        ],
        [
            "loop busy",
            &format!("{:.1} %", 100.0 * stats.number("loop_busy_ratio")),
            "errors/s",
            &rate("request_errors"),
            "timeouts/s",
            &rate("lookup_timeouts"),
        ],
        [
            "50 % in",
            &time("latency_p50_us"),
            "99 % in",
            &time("latency_p99_us"),
            "slow requests/s",
            &rate("slow_requests"),
        ],
    ];
    let mut lines = vec![
        format!(
            "olivia {address}   {ready}   up {}   version {}   (q quits)",
            span(up),
            stats.text("version")
        ),
        String::new(),
    ];
    lines.extend(
        metrics.map(|[a, av, b, bv, c, cv]| format!("{a:<10}{av:>12}   {b:<10}{bv:>12}   {c:<17}{cv:>12}")),
    );
    lines.push(String::new());
    lines.push(format!(
        "{} of {} configured peers linked; linked in all: {}",
        stats.text("peers_configured_linked"),
        stats.text("peers_configured"),
        stats.text("peers_linked")
    ));
    lines
}
