//! Golden transcripts: the conversations in `tests/sessions/*.txt`, byte for byte, run four ways: each
//! step's input whole, byte by byte, and in random cuts through a node with a virtual clock, and over
//! TCP with the program itself. The transcripts are the documentation's examples.
//!
//! A transcript is lines. The mark at the beginning of a line, up to the first space, gives the meaning of the rest:
//!
//! ```text
//! #    a comment; an empty line is one too
//! ?    commands of RESP without which the transcript is left out
//! $    a line of configuration, in force from the start: `$ limits.args_max = 8`
//! >    the client sends the rest and LF
//! >>   the client sends the rest with escapes resolved, and no LF of its own
//! *    the client sends the words of the rest as one request in RESP, escapes resolved in each; `""` is empty
//! <    the client gets the rest and LF
//! <<   the client gets the rest with escapes resolved, and no LF of its own
//! ~    the client gets a line that matches the rest, where `*` stands for any bytes
//! @    time passes: `@ +30s` or `@ +1ms`; such a transcript is not run over TCP
//! %    the following lines are those of another client, by name; the first one is called `a`
//! =    `= shut`: the client ends its side; `= close`: the node has ended its side
//! ```
//!
//! Escapes: `\n` `\r` `\\` `\xHH`, and `\*N{text}` for N times that text.

mod common;
mod kit;

use common::WAIT_MAX;
use common::resp::request;
use common::server::{Launch, Server};
use kit::{ClientId, Driver, LOOPBACK};
use olivia::base::rng::Rng;
use olivia::config::{self, Config, FileRead, Sources};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Random cuts of each transcript.
const CUTS: u64 = 50;

#[derive(Debug)]
enum Step {
    Send(Vec<u8>),
    Expect(Vec<u8>),
    Like(String),
    Shut,
    Close,
    Pass(Duration),
}

/// One conversation.
#[derive(Debug, Default)]
struct Transcript {
    name: String,
    needs: Vec<String>,
    config: String,
    /// Line, client, what happens.
    steps: Vec<(usize, String, Step)>,
}

impl Transcript {
    fn read(path: &Path) -> Self {
        let mut transcript =
            Self { name: path.file_name().unwrap().to_string_lossy().into_owned(), ..Self::default() };
        let mut client = "a".to_owned();
        for (at, line) in fs::read_to_string(path).unwrap().lines().enumerate() {
            let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
            let step = match mark {
                "" | "#" => continue,
                "?" => {
                    transcript.needs.extend(rest.split(' ').map(str::to_owned));
                    continue;
                }
                "$" => {
                    transcript.config += &format!("{rest}\n");
                    continue;
                }
                "%" => {
                    rest.clone_into(&mut client);
                    continue;
                }
                ">" => Step::Send(format!("{rest}\n").into_bytes()),
                ">>" => Step::Send(unescape(rest)),
                "*" => Step::Send(in_resp(rest)),
                "<" => Step::Expect(format!("{rest}\n").into_bytes()),
                "<<" => Step::Expect(unescape(rest)),
                "~" => Step::Like(rest.to_owned()),
                "@" => Step::Pass(span(rest)),
                "=" if rest == "shut" => Step::Shut,
                "=" if rest == "close" => Step::Close,
                _ => panic!("{}:{}: what is {line:?}?", transcript.name, at + 1),
            };
            transcript.push(at + 1, &client, step);
        }
        transcript
    }

    /// Adds a step; what one client sends in a row is one step.
    fn push(&mut self, line: usize, client: &str, step: Step) {
        if let Step::Send(more) = &step
            && let Some((_, speaker, Step::Send(bytes))) = self.steps.last_mut()
            && speaker == client
        {
            bytes.extend_from_slice(more);
            return;
        }
        self.steps.push((line, client.to_owned(), step));
    }

    fn takes_time(&self) -> bool {
        self.steps.iter().any(|(_, _, step)| matches!(step, Step::Pass(_)))
    }

    fn config(&self) -> Config {
        let sources = Sources { args: vec!["--config".into(), "x.toml".into()], ..Sources::default() };
        let read = |_: &Path| Ok(FileRead { bytes: self.config.clone().into_bytes(), open_to_others: false });
        config::load(&sources, &read).unwrap().config
    }

    /// Goes through the conversation over `line`.
    fn hold(&self, line: &mut dyn Talk) {
        for (at, client, step) in &self.steps {
            let place = format!("{}:{at}", self.name);
            match step {
                Step::Send(bytes) => line.send(client, bytes),
                Step::Shut => line.shut(client),
                Step::Pass(span) => line.pass(*span),
                Step::Expect(bytes) => {
                    let got = line.get(client, &mut |got: &[u8]| got.len() == bytes.len());
                    assert_eq!(shown(&got), shown(bytes), "{place}");
                }
                Step::Like(pattern) => {
                    let got = line.get(client, &mut |got: &[u8]| got.ends_with(b"\n"));
                    let got = String::from_utf8(got).unwrap();
                    assert!(got.ends_with('\n') && is_like(got.trim_end(), pattern), "{place}: {got:?}");
                }
                Step::Close => {
                    let rest = line.rest(client).unwrap_or_else(|| panic!("{place}: not ended"));
                    assert_eq!(shown(&rest), "", "{place}");
                }
            }
        }
        assert_eq!(line.unread(), "", "{}: left over at the end", self.name);
    }
}

/// The transport of a transcript.
trait Talk {
    fn send(&mut self, client: &str, bytes: &[u8]);
    fn shut(&mut self, client: &str);
    /// Takes bytes one by one until there are enough, or none comes.
    fn get(&mut self, client: &str, enough: &mut dyn FnMut(&[u8]) -> bool) -> Vec<u8>;
    /// Returns the bytes before the end of the stream; `None` without an end.
    fn rest(&mut self, client: &str) -> Option<Vec<u8>>;
    fn pass(&mut self, span: Duration);
    /// Returns unexpected bytes.
    fn unread(&mut self) -> String;
}

/// The cuts of the input.
enum Cut {
    Whole,
    Bytes,
    Random(Rng),
}

/// Through a node with a virtual clock.
struct Virtual {
    driver: Driver,
    clients: BTreeMap<String, (ClientId, Vec<u8>)>,
    cut: Cut,
}

impl Virtual {
    fn new(transcript: &Transcript, cut: Cut) -> Self {
        Self { driver: Driver::new(transcript.config()), clients: BTreeMap::new(), cut }
    }

    fn client(&mut self, name: &str) -> &mut (ClientId, Vec<u8>) {
        let Self { driver, clients, .. } = self;
        clients.entry(name.to_owned()).or_insert_with(|| (driver.connect(LOOPBACK).unwrap(), Vec::new()))
    }

    fn gather(&mut self, name: &str) -> &mut Vec<u8> {
        let id = self.client(name).0;
        let arrived = self.driver.take_bytes(id);
        let (_, unread) = self.client(name);
        unread.extend(arrived);
        unread
    }
}

impl Talk for Virtual {
    fn send(&mut self, client: &str, bytes: &[u8]) {
        let id = self.client(client).0;
        let mut rest = bytes;
        while !rest.is_empty() {
            let longest = rest.len();
            let count = match &mut self.cut {
                Cut::Whole => longest,
                Cut::Bytes => 1,
                Cut::Random(rng) => {
                    let most = if rng.one_in(2) { longest.min(8) } else { longest };
                    1 + usize::try_from(rng.below(most as u64)).unwrap()
                }
            };
            self.driver.send(id, &rest[..count]);
            rest = &rest[count..];
        }
    }

    fn shut(&mut self, client: &str) {
        let id = self.client(client).0;
        self.driver.shut(id);
    }

    fn get(&mut self, client: &str, enough: &mut dyn FnMut(&[u8]) -> bool) -> Vec<u8> {
        let unread = self.gather(client);
        let count = (0..unread.len()).find(|&count| enough(&unread[..count])).unwrap_or(unread.len());
        unread.drain(..count).collect()
    }

    fn rest(&mut self, client: &str) -> Option<Vec<u8>> {
        let id = self.client(client).0;
        let rest = std::mem::take(self.gather(client));
        self.driver.has_ended(id).then_some(rest)
    }

    fn pass(&mut self, span: Duration) {
        self.driver.pass(span);
    }

    fn unread(&mut self) -> String {
        let names: Vec<String> = self.clients.keys().cloned().collect();
        names.iter().map(|name| shown(self.gather(name))).collect()
    }
}

/// Over TCP.
struct Real {
    streams: BTreeMap<String, TcpStream>,
    server: Server,
}

impl Real {
    fn stream(&mut self, name: &str) -> &mut TcpStream {
        let Self { server, streams } = self;
        streams.entry(name.to_owned()).or_insert_with(|| {
            let stream = TcpStream::connect(server.addr()).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
            stream.set_write_timeout(Some(WAIT_MAX)).unwrap();
            stream
        })
    }
}

impl Talk for Real {
    fn send(&mut self, client: &str, bytes: &[u8]) {
        // The node may have ended the connection already; then the transcript shows it.
        let _ = self.stream(client).write_all(bytes);
    }

    fn shut(&mut self, client: &str) {
        self.stream(client).shutdown(Shutdown::Write).unwrap();
    }

    fn get(&mut self, client: &str, enough: &mut dyn FnMut(&[u8]) -> bool) -> Vec<u8> {
        let mut got = Vec::new();
        let mut byte = [0];
        // An end, a reset or silence: then this is all that came.
        while !enough(&got) && matches!(self.stream(client).read(&mut byte), Ok(1)) {
            got.push(byte[0]);
        }
        got
    }

    fn rest(&mut self, client: &str) -> Option<Vec<u8>> {
        let mut rest = Vec::new();
        match self.stream(client).read_to_end(&mut rest) {
            Ok(_) => Some(rest),
            Err(error) => (error.kind() == std::io::ErrorKind::ConnectionReset).then_some(rest),
        }
    }

    fn pass(&mut self, _: Duration) {
        panic!("real time is not waited for");
    }

    fn unread(&mut self) -> String {
        let names: Vec<String> = self.streams.keys().cloned().collect();
        let unread = names.iter().map(|name| {
            let _ = self.stream(name).shutdown(Shutdown::Write);
            shown(&self.rest(name).unwrap())
        });
        unread.collect()
    }
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn span(text: &str) -> Duration {
    let text = text.strip_prefix('+').unwrap();
    match text.strip_suffix("ms") {
        Some(millis) => Duration::from_millis(millis.parse().unwrap()),
        None => Duration::from_secs(text.strip_suffix('s').unwrap().parse().unwrap()),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        rest = &escape[1..];
        match &escape[..1] {
            "n" => bytes.push(b'\n'),
            "r" => bytes.push(b'\r'),
            "\\" => bytes.push(b'\\'),
            "x" => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                rest = &rest[2..];
            }
            "*" => {
                let (count, behind) = rest.split_once('{').unwrap();
                let (what, behind) = behind.split_once('}').unwrap();
                bytes.extend(unescape(what).repeat(count.parse().unwrap()));
                rest = behind;
            }
            other => panic!("no such escape: \\{other}"),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// The words of a line as one request in RESP.
fn in_resp(line: &str) -> Vec<u8> {
    let words = line.split(' ').map(|word| if word == "\"\"" { Vec::new() } else { unescape(word) });
    request(&words.collect::<Vec<_>>())
}

/// Whether `text` is `pattern`, where `*` stands for any bytes.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap()) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    last.map_or(rest.is_empty(), |last| last.is_empty() || text.ends_with(last))
}

/// The files of the transcripts of ours, and of those held with redis-server.
fn paths() -> Vec<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sessions");
    let folders = [home.clone(), home.join("redis")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths
}

/// The transcripts whose commands the node has.
fn transcripts() -> Vec<Transcript> {
    let paths = paths();
    let spoken = spoken();
    let (held, left_out): (Vec<_>, Vec<_>) = paths
        .iter()
        .map(|path| Transcript::read(path))
        .partition(|transcript| transcript.needs.iter().all(|name| spoken.contains(name)));
    assert!(held.len() > 10);
    left_out.iter().for_each(|transcript| println!("left out: {}", transcript.name));
    held
}

/// The commands that a node has in RESP.
fn spoken() -> BTreeSet<String> {
    let mut driver = Driver::new(Config::default());
    let client = driver.connect(LOOPBACK).unwrap();
    driver.send(client, in_resp("COMMAND LIST"));
    let listed = String::from_utf8(driver.take_bytes(client)).unwrap();
    listed.lines().filter(|line| !line.starts_with(['*', '$'])).map(str::to_uppercase).collect()
}

/// docs/compatibility.md is written from the table.
#[test]
fn every_row_of_the_command_table_stands_in_a_conversation() {
    let requests: Vec<String> = paths().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let sent =
        |mark| requests.iter().flat_map(|text| text.lines()).filter_map(move |line| line.strip_prefix(mark));
    let in_resp: BTreeSet<String> = sent("* ")
        .flat_map(|line| {
            let words: Vec<String> = line.split(' ').map(str::to_uppercase).collect();
            [words[0].clone(), words[..words.len().min(2)].join(" ")]
        })
        .collect();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md");
    let page = fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0));
    let missing: Vec<&str> = rows.clone().filter(|row| !in_resp.contains(*row)).collect();
    assert!(rows.count() > 100 && missing.is_empty(), "in no transcript, in RESP: {missing:?}");
    let in_lines: BTreeSet<&str> = sent("> ").flat_map(|line| line.split([' ', ':'])).collect();
    let mut driver = Driver::new(Config::default());
    let client = driver.connect(LOOPBACK).unwrap();
    driver.send(client, b"HELP\n");
    let help = String::from_utf8(driver.take_bytes(client)).unwrap();
    let mut verbs =
        help.trim_start_matches(":HELP ").split(',').filter_map(|form| form.split([' ', '\n']).next());
    assert_eq!(verbs.find(|verb| !in_lines.contains(verb)), None, "in no transcript, in lines");
}

#[test]
fn every_conversation_goes_as_written() {
    for transcript in transcripts() {
        transcript.hold(&mut Virtual::new(&transcript, Cut::Whole));
    }
}

#[test]
fn every_conversation_goes_the_same_byte_by_byte() {
    for transcript in transcripts() {
        transcript.hold(&mut Virtual::new(&transcript, Cut::Bytes));
    }
}

#[test]
fn every_conversation_goes_the_same_however_it_is_cut() {
    for transcript in transcripts() {
        for seed in 0..CUTS {
            transcript.hold(&mut Virtual::new(&transcript, Cut::Random(Rng::new(seed))));
        }
    }
}

#[test]
fn every_conversation_goes_the_same_when_input_waits_for_its_turn() {
    for transcript in transcripts() {
        let mut late = Virtual::new(&transcript, Cut::Whole);
        late.driver.is_late = true;
        transcript.hold(&mut late);
    }
}

#[test]
fn every_conversation_goes_the_same_over_tcp() {
    for transcript in transcripts().into_iter().filter(|transcript| !transcript.takes_time()) {
        let launch = Launch::new(&format!("sessions-{}", transcript.name)).config(&transcript.config);
        transcript.hold(&mut Real { streams: BTreeMap::new(), server: launch.start() });
    }
}
