//! Each system call of the shell fails in turn, by a library that is preloaded into the program: at most one connection
//! may be closed by it, all others get all of their replies, and the program goes on.
//!
//! The library, `failing_calls/shim.c`, is built here with `cc`; without a compiler these tests are skipped. mio
//! reports edges: a read that returns `WouldBlock` although bytes are there loses its edge, which real systems do not
//! do. So a waiting client sends an empty line now and then, which has no reply.

#![cfg(target_os = "linux")]

mod common;

use common::client::{Client, End};
use common::server::{Launch, Server};
use common::{WAIT_MAX, wait_until};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Turns of the loop in a time in which nothing happens, above which it spins.
const TURNS_MAX: u64 = 20;

/// A fault: the system call, its error, the first call that fails, and the number of failures.
#[derive(Debug, Clone, Copy)]
struct Fault {
    call: &'static str,
    kind: &'static str,
    nth: u32,
    count: u32,
}

/// The library; `None` where it cannot be built for want of a compiler.
fn shim() -> Option<&'static Path> {
    static SHIM: OnceLock<Option<PathBuf>> = OnceLock::new();
    SHIM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/failing_calls/shim.c");
        let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (library, new) =
            (home.join("failing-calls.so"), home.join(format!("failing-calls-{}.so", std::process::id())));
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&new).arg(source).arg("-ldl");
        match cc.status() {
            Ok(status) => assert!(status.success(), "cc could not build the shim"),
            Err(error) => {
                eprintln!("SKIPPED: no system call is made to fail, since there is no cc: {error}");
                return None;
            }
        }
        // At once, since another run of the tests may be using the old one.
        fs::rename(&new, &library).unwrap();
        Some(library)
    })
    .as_deref()
}

/// The program with the fault in it.
fn launch(shim: &Path, fault: Fault) -> Launch {
    let Fault { call, kind, nth, count } = fault;
    Launch::new(&format!("fail-{call}-{kind}-{nth}-{count}"))
        .env("LD_PRELOAD", shim)
        .env("OLIVIA_TEST_FAIL", format!("{call}:{kind}:{nth}:{count}"))
}

/// One client of the script.
struct Actor {
    client: Client,
    name: char,
    /// Its connection ended before it had all of its replies.
    is_lost: bool,
}

impl Actor {
    fn new(server: &Server, name: char) -> Self {
        Self { client: server.connect(), name, is_lost: false }
    }

    /// Sends `input` and demands exactly `replies`; a connection that ends instead is lost.
    fn play(&mut self, server: &Server, input: &str, replies: &[String]) {
        if self.is_lost {
            return;
        }
        // Where this fails, so does the reading.
        let _ = self.client.try_send(input);
        for reply in replies {
            match patient_line(server, &mut self.client) {
                Ok(line) if line == *reply => {}
                Ok(line) if line.starts_with(":ERR this node has no room") => self.is_lost = true,
                Ok(line) => panic!("{} got {line:?} instead of {reply:?}", self.name),
                Err(End::Eof | End::Broken) => self.is_lost = true,
            }
            if self.is_lost {
                return;
            }
        }
    }

    /// Asks for the end of the connection, and demands that it comes properly.
    fn finish(&mut self, server: &Server, input: &str, reply: &str) {
        self.play(server, input, &[reply.to_owned()]);
        if !self.is_lost {
            let (text, end) = self.client.rest();
            assert_eq!(text, "", "{}", self.name);
            self.is_lost = end == End::Broken;
        }
    }
}

/// The next line. While none comes, lost edges are made up for: by an empty line on this connection,
/// and by one more connection to the listener.
fn patient_line(server: &Server, client: &mut Client) -> Result<String, End> {
    let begin = Instant::now();
    loop {
        if let Some(line) = client.line_within(Duration::from_millis(100))? {
            return Ok(line);
        }
        assert!(begin.elapsed() < WAIT_MAX, "no line; the log:\n{}", server.log());
        let _ = client.try_send("\n");
        drop(server.connect());
    }
}

/// Plays four clients side by side, and then a fresh one. Gives how many of them lost their connection.
fn play(server: &Server) -> usize {
    let mut actors = ['a', 'b', 'c', 'd'].map(|name| Actor::new(server, name));
    for round in 0..3 {
        for actor in &mut actors {
            play_few(server, actor, round);
        }
        play_large(server, &mut actors[1]);
        play_many(server, &mut actors[2]);
    }
    let mut fresh = Actor::new(server, 'e');
    play_few(server, &mut fresh, 0);
    is_calm(&mut fresh);
    let [a, b, c, d] = &mut actors;
    a.finish(server, "QUIT\nGET a\n", ":BYE ");
    b.play(server, "GET b\nGET", &[":GOT b:2".to_owned()]);
    if !b.is_lost {
        b.client.finish_sending();
    }
    b.finish(server, "", ":ERR the last line has no line end; it was not executed");
    c.finish(server, &"x".repeat(10_000_000), ":ERR line longer than 9437184 bytes (line_bytes_max)");
    d.finish(server, "REQUEST disconnect\n", ":FULFILLED bye");
    is_calm(&mut fresh);
    actors.iter().chain([&fresh]).filter(|actor| actor.is_lost).count()
}

/// A few requests, small.
fn play_few(server: &Server, actor: &mut Actor, round: u32) {
    let name = actor.name;
    let input = format!("SET {name}:{round}\n{round}:GET {name}\nPING\n");
    let replies =
        [format!(":SAT {name}:{round}"), format!("{round}:GOT {name}:{round}"), "0:PONG 1".to_owned()];
    actor.play(server, &input, &replies);
}

/// Replies that take several writes.
fn play_large(server: &Server, actor: &mut Actor) {
    let value = "v".repeat(50_000);
    actor.play(server, &format!("SET large:{value}\n"), &[format!(":SAT large:{value}")]);
    actor.play(server, &"GET large\n".repeat(4), &vec![format!(":GOT large:{value}"); 4]);
}

/// More requests than one step carries out.
fn play_many(server: &Server, actor: &mut Actor) {
    let input = (0..600).fold(String::new(), |mut all, n| {
        writeln!(all, "{n}:PING").unwrap();
        all
    });
    let replies: Vec<String> = (0..600).map(|n| format!("{n}:PONG 1")).collect();
    actor.play(server, &input, &replies);
}

/// Demands that the loop stands still while nothing happens.
fn is_calm(actor: &mut Actor) {
    if actor.is_lost {
        return;
    }
    let before = actor.client.stat("iterations");
    thread::sleep(Duration::from_millis(100));
    let iterations = actor.client.stat("iterations") - before;
    assert!(iterations <= TURNS_MAX, "{iterations} turns in 100 ms in which nothing happened");
}

/// Runs the script with each of the faults, and demands that each was reached, that it cost no more
/// than `lost_max` connections, that no file stays open, and that the program ends as it should.
fn survive(lost_max: usize, faults: &[(&'static str, &[&'static str], &[u32], u32)]) {
    let Some(shim) = shim() else { return };
    for &(call, kinds, places, count) in faults {
        for (&kind, &nth) in kinds.iter().flat_map(|kind| places.iter().map(move |nth| (kind, nth))) {
            let fault = Fault { call, kind, nth, count };
            eprintln!("{fault:?}");
            let server = launch(shim, fault).start();
            let files = server.open_files();
            let lost = play(&server);
            assert!(lost <= lost_max, "{lost} connections lost; the log:\n{}", server.log());
            wait_until("all files are closed", || server.open_files() == files);
            server.wait_for_log("shim: call ");
        }
    }
}

/// Demands that the program, with the fault in it, ends by itself with code 1 and `sentence`.
fn refuse(call: &'static str, kind: &'static str, nth: u32, sentence: &str) {
    let Some(shim) = shim() else { return };
    let mut server = launch(shim, Fault { call, kind, nth, count: 1 }).arg("--port").arg("0").spawn();
    let (code, log) = server.end();
    assert_eq!(code, Some(1), "{call} {kind} {nth}: {log}");
    assert!(log.contains(sentence) && !log.contains("panicked"), "{call} {kind} {nth}: {log}");
}

#[test]
fn eintr_and_eagain_cost_nothing() {
    survive(
        0,
        &[
            ("recv", &["EINTR", "EAGAIN"], &[1, 2, 9], 1),
            ("send", &["EINTR", "EAGAIN"], &[1, 2, 9], 1),
            ("accept4", &["EINTR", "EAGAIN"], &[1, 2, 4], 1),
            ("epoll_wait", &["EINTR"], &[1, 2, 9], 1),
        ],
    );
}

#[test]
fn repeatedly_interrupted_calls_cost_nothing() {
    survive(
        0,
        &[
            ("recv", &["EINTR"], &[3], 50),
            ("send", &["EINTR"], &[3], 50),
            ("accept4", &["EINTR"], &[2], 50),
            ("epoll_wait", &["EINTR"], &[2], 50),
        ],
    );
}

#[test]
fn short_reads_and_writes_cost_nothing() {
    survive(
        0,
        &[
            ("recv", &["SHORT"], &[1, 2, 6, 9], 1),
            ("recv", &["SHORT"], &[4], 5),
            ("send", &["SHORT"], &[1, 2, 6, 9], 1),
            ("send", &["SHORT"], &[4], 20_000),
        ],
    );
}

#[test]
fn broken_reads_and_writes_cost_one_connection() {
    survive(
        1,
        &[
            ("recv", &["ECONNRESET", "ENOBUFS"], &[1, 2, 5, 9], 1),
            ("send", &["ECONNRESET", "EPIPE", "ENOBUFS"], &[1, 2, 5, 9], 1),
        ],
    );
}

#[test]
fn listener_survives_every_error_of_accept() {
    survive(0, &[("accept4", &["ECONNABORTED", "ECONNRESET"], &[1, 2, 4], 1)]);
    survive(1, &[("accept4", &["EMFILE", "ENOBUFS", "ENOMEM"], &[1, 2, 4], 1)]);
    // Neither the connection nor the spare file's turn: they wait, and no event reports them again.
    survive(0, &[("accept4", &["EMFILE"], &[2], 6)]);
}

#[test]
fn connection_that_cannot_be_watched_is_the_only_one_lost() {
    survive(1, &[("epoll_ctl", &["ENOMEM", "ENOSPC"], &[3, 5], 1)]);
}

#[test]
fn failing_optional_calls_cost_nothing() {
    survive(
        0,
        &[
            ("setsockopt", &["EINVAL", "ENOBUFS"], &[2, 4], 1),
            ("close", &["EINTR", "EIO"], &[1, 2], 1),
            ("shutdown", &["ENOTCONN"], &[1], 1),
        ],
    );
}

#[test]
fn node_without_file_descriptors_serves_open_connections_without_spinning() {
    let Some(shim) = shim() else { return };
    // The first call finds no connection, the second the first client, the third none.
    let fault = Fault { call: "accept4", kind: "EMFILE", nth: 4, count: 1_000_000 };
    let server = launch(shim, fault).start();
    let mut first = server.connect();
    assert_eq!(first.call("PING"), "0:PONG 1");
    let _waiting: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    server.wait_for_log("shim: call ");
    let before = server.cpu_ticks();
    thread::sleep(Duration::from_secs(1));
    let used = server.cpu_ticks() - before;
    assert!(used <= 3, "{used} ticks of 10 ms in a second in which no client can be accepted");
    assert_eq!(first.call("PING"), "0:PONG 1");
    assert!(server.log().lines().count() <= 30, "{}", server.log());
}

/// As at the limit of maps of a process (`vm.max_map_count`), which buffers of very many clients could reach.
#[test]
fn node_that_can_map_no_more_memory_refuses_what_needs_it_and_goes_on() {
    let Some(shim) = shim() else { return };
    let value = "x".repeat(300_000);
    for nth in [3, 10, 300] {
        let mut server = launch(shim, Fault { call: "mmap", kind: "ENOMEM", nth, count: u32::MAX }).start();
        let mut client = server.connect();
        let refused = (0..nth).find(|n| {
            client.try_send(&format!("SET k{n}:{value}\n")).unwrap();
            patient_line(&server, &mut client).is_ok_and(|line| line.starts_with(":ERR "))
        });
        assert!(refused.is_some(), "maps from the {nth}. on fail, and all values were set");
        // Replies that nobody reads, and requests without an end, stay where they are or end their connections.
        let others: Vec<Client> = (0..50)
            .map(|_| {
                let mut other = server.connect();
                let _ = other.try_send(&format!("{}SET k:{}", "GET k0\n".repeat(20), "y".repeat(10_000)));
                other
            })
            .collect();
        let mut last = server.connect();
        last.try_send("PING\nGET none\n").unwrap();
        for reply in ["0:PONG 1", ":GOT "] {
            assert_eq!(patient_line(&server, &mut last).ok().as_deref(), Some(reply), "{}", server.log());
        }
        drop(others);
        server.signal("TERM");
        assert_eq!(server.end().0, Some(0), "{}", server.log());
    }
}

/// Has four clients send at once, so that they are read and written in batches, and demands all replies.
fn play_batches(server: &Server) {
    let mut clients = ['a', 'b', 'c', 'd'].map(|name| (name, server.connect()));
    for round in 0..5 {
        server.signal("STOP");
        for (name, client) in &mut clients {
            client.send(&format!("SET {name}:{round}\nGET {name}\n"));
        }
        server.signal("CONT");
        for (name, client) in &mut clients {
            assert_eq!(
                (client.line(), client.line()),
                (format!(":SAT {name}:{round}"), format!(":GOT {name}:{round}"))
            );
        }
    }
}

#[test]
fn failing_batches_cost_nothing() {
    let Some(shim) = shim() else { return };
    let fails = |call, kind, nth| {
        let server =
            launch(shim, Fault { call, kind, nth, count: 1 }).arg("--log-level").arg("debug").start();
        play_batches(&server);
        server
    };
    if fails("io_uring_enter", "EINTR", 1_000).log().contains("no io_uring") {
        eprintln!("SKIPPED: no batch is made to fail, since the system has or permits no io_uring");
        return;
    }
    for nth in [1, 2, 5] {
        let log = fails("io_uring_enter", "EINTR", nth).log();
        assert!(log.contains("of io_uring_enter") && !log.contains("io_uring fails"), "{log}");
        let log = fails("io_uring_enter", "EAGAIN", nth).log();
        assert!(log.contains("of io_uring_enter") && log.contains("io_uring fails"), "{log}");
    }
    let log = fails("io_uring_setup", "EPERM", 1).log();
    assert!(log.contains("no io_uring: Operation not permitted"), "{log}");
}

#[test]
fn failing_accept_is_logged() {
    let Some(shim) = shim() else { return };
    let fault = Fault { call: "accept4", kind: "ENOMEM", nth: 4, count: 1_000_000 };
    let server = launch(shim, fault).start();
    assert_eq!(server.connect().call("PING"), "0:PONG 1");
    let _waiting = server.connect();
    server.wait_for_log("cannot accept connections");
}

#[test]
fn failed_start_reports_the_failed_call() {
    refuse("socket", "EMFILE", 1, "cannot listen on 127.0.0.1:0: ");
    refuse("setsockopt", "ENOBUFS", 1, "cannot listen on 127.0.0.1:0: ");
    refuse("bind", "EACCES", 1, "cannot listen on 127.0.0.1:0: the system does not permit it");
    refuse("bind", "ENOBUFS", 1, "cannot listen on 127.0.0.1:0: ");
    refuse("listen", "ENOBUFS", 1, "cannot listen on 127.0.0.1:0: ");
    refuse("epoll_create1", "EMFILE", 1, "cannot wait for events: ");
    refuse("socketpair", "EMFILE", 1, "cannot listen to signals: ");
    refuse("epoll_ctl", "ENOSPC", 1, "cannot listen to signals: ");
    refuse("epoll_ctl", "ENOSPC", 2, "cannot wait for connections: ");
}

#[test]
fn failing_epoll_wait_exits_with_an_error() {
    refuse("epoll_wait", "EINVAL", 1, "cannot wait for events: ");
}

#[test]
fn ttl_counts_the_time_that_the_machine_slept() {
    let Some(shim) = shim() else { return };
    let fault = Fault { call: "clock_gettime", kind: "SLEPT", nth: 400, count: u32::MAX };
    let server = launch(shim, fault).start();
    let mut client = server.connect();
    assert_eq!(client.call("SETEX key:value:60"), ":SATEX key:value:60");
    client.call("SET lasting:value");
    assert_eq!(client.call("GET key"), ":GOT key:value");
    wait_until("the machine has slept", || {
        client.call("PING");
        server.log().contains("of clock_gettime")
    });
    assert_eq!(client.call("GET key,lasting"), ":GOT lasting:value");
}

#[test]
fn key_that_expires_during_a_pause_in_the_middle_of_an_iteration_is_not_served() {
    let Some(shim) = shim() else { return };
    let fault = Fault { call: "recv", kind: "PAUSE", nth: 2, count: 1 };
    let server = launch(shim, fault).start();
    let (mut first, mut second) = (server.connect(), server.connect());
    assert_eq!(first.call("SETEX key:value:1"), ":SATEX key:value:1");
    // Both are ready in one iteration, which the first one holds up.
    server.signal("STOP");
    first.send("PING\n");
    second.send("GET key");
    server.signal("CONT");
    server.wait_for_log("of recv");
    thread::sleep(Duration::from_millis(1_500));
    second.send("\n");
    assert_eq!((first.line(), second.line()), ("0:PONG 1".to_owned(), ":GOT ".to_owned()));
}
