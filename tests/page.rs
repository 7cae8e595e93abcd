//! The page in a real browser: headless Chromium, where one is installed; without one the tests print so and pass.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod common;

use common::server::Launch;
use common::wait_until;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The time that a browser may take for one page.
const BROWSER_MAX: Duration = Duration::from_secs(90);

/// The browser, if there is one.
fn browser() -> Option<PathBuf> {
    let found = env::var_os("PATH").and_then(|path| {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name))).find(|path| path.is_file())
    });
    if found.is_none() {
        eprintln!("skipped: no Chromium on PATH (Debian: apt-get install chromium)");
    }
    found
}

/// The document as it stands after some seconds of the page's own time, and the messages of the browser.
fn open(browser: &Path, name: &str, addr: SocketAddr, seconds: u32) -> (String, String) {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&home).unwrap();
    let (document, log) = (home.join("document.html"), home.join("log"));
    let mut child = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        .args(["--no-first-run", "--disable-dev-shm-usage", "--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--user-data-dir={}", home.display()))
        .arg(format!("--virtual-time-budget={}", 1_000 * seconds))
        .arg(format!("http://{addr}/"))
        .stdin(Stdio::null())
        .stdout(File::create(&document).unwrap())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > BROWSER_MAX {
            child.kill().unwrap();
            panic!("the browser does not end: {}", fs::read_to_string(&log).unwrap());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let texts = (read(&document), read(&log));
    fs::remove_dir_all(&home).unwrap();
    texts
}

/// Serves a page, and a status that is made anew for each request, until the test ends.
fn serve(
    page: String,
    history: String,
    status: impl Fn(usize) -> String + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let strangers = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&strangers);
    thread::spawn(move || {
        let mut polls = 0;
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let _ = reader.read_line(&mut line);
            let mut header = line.clone();
            while !header.trim().is_empty() {
                header.clear();
                let _ = reader.read_line(&mut header);
            }
            let (kind, body) = match line.split(' ').nth(1) {
                Some("/") => ("text/html; charset=utf-8", page.clone()),
                Some("/status.json") => {
                    polls += 1;
                    ("application/json", status(polls))
                }
                Some("/history.json") => ("application/json", history.clone()),
                Some(_) => {
                    seen.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                None => continue,
            };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    (addr, strangers)
}

fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn has_no_error(log: &str) {
    assert!(!log.contains("CONSOLE"), "{log}");
}

#[test]
fn page_shows_one_node_and_a_mesh_and_which_peer_has_gone() {
    let Some(browser) = browser() else { return };
    let first = Launch::new("page-first").start();
    let mut client = first.connect();
    client.ask("SET a:1,b:2,c:3");
    let (alone, log) = open(&browser, "alone", first.addr(), 3);
    assert!(alone.contains("<b id=\"keys\">3</b>") && alone.contains("This node knows no other"), "{alone}");
    has_no_error(&log);
    let start = |name| Launch::new(name).peer(first.addr()).start();
    let second = start("page-second");
    wait_until("one is linked", || client.stat("peers_linked") == 1);
    let (one, log) = open(&browser, "one", first.addr(), 3);
    assert!(one.contains("Mesh: 1 of 1 other nodes linked"), "{one}");
    has_no_error(&log);
    let others = ["page-third", "page-fourth"].map(start);
    wait_until("three are linked", || client.stat("peers_linked") == 3);
    let (mesh, log) = open(&browser, "mesh", first.addr(), 3);
    assert!(mesh.contains("Mesh: 3 of 3 other nodes linked") && mesh.contains(">ready</span>"), "{mesh}");
    for other in others.iter().chain([&second]) {
        assert!(
            mesh.contains(&format!("<th scope=\"row\">{}</th><td class=\"good\">linked</td>", other.addr()))
        );
    }
    // The requests of the last minute, the memory, and this client.
    assert!(
        mesh.contains("<th scope=\"row\">minute</th>") && mesh.contains("Items up to 16 KiB</dt>"),
        "{mesh}"
    );
    let own = client.writer().local_addr().unwrap();
    assert!(mesh.contains(&format!("<th scope=\"row\">{own}</th><td></td><td>lines</td>")), "{own}: {mesh}");
    has_no_error(&log);
    let gone = second.addr();
    second.signal("KILL");
    wait_until("the link is gone", || client.stat("peers_linked") == 2);
    let (after, log) = open(&browser, "after", first.addr(), 3);
    assert!(after.contains("Mesh: 2 of 3 other nodes linked"), "{after}");
    assert!(!after.contains(&format!("<th scope=\"row\">{gone}</th><td class=\"good\">")), "{after}");
    has_no_error(&log);
    drop(client);
    others.into_iter().for_each(common::server::Server::end_well);
    first.end_well();
}

#[test]
fn page_follows_a_hundred_peers_one_of_which_goes_and_asks_nobody_else() {
    let Some(browser) = browser() else { return };
    let node = Launch::new("page-hundred").start();
    let page = get(node.addr(), "/");
    let status = get(node.addr(), "/status.json");
    let own = status.strip_suffix("\n]}\n").unwrap().to_owned();
    node.end_well();
    let history = "{\"hour\":{\"seconds\":3600,\"sample_seconds\":10,\"samples\":[[90,10,5,5,100,900,2000,5],[80,20,9,1,90,800,\
                   3000,9],[20,20,0,0,90,800,3000,7]]},\"day\":{\"seconds\":86400,\"sample_seconds\":240,\"samples\":[]}}";
    let (addr, strangers) = serve(page, history.to_owned(), move |polls| {
        let mut status = own.clone();
        for peer in 0..100 {
            let comma = if peer > 0 { "," } else { "" };
            let is_linked = peer != 42 || polls < 3;
            write!(
                status,
                "{comma}\n{{\"address\":\"10.0.0.{peer}:5454\",\"id\":null,\"linked\":{is_linked},\"failures\":2,\
                 \"round_trip_us\":{},\"filter_known\":true,\"filter_age_ms\":5,\"fill\":0.3,\"claimed_keys\":{},\
                 \"false_positives_predicted\":0.0002,\"false_positives_measured\":null,\"queries\":1,\
                 \"circuit_open\":false}}",
                100 + peer,
                1_000 * peer
            )
            .unwrap();
        }
        status + "\n]}\n"
    });
    let (document, log) = open(&browser, "hundred", addr, 6);
    assert!(document.contains("Mesh: 99 of 100 other nodes linked"), "{document}");
    assert!(document.contains("<th scope=\"row\">10.0.0.42:5454</th><td class=\"bad\">unreachable</td>"));
    assert_eq!(document.matches("<td class=\"good\">linked</td>").count(), 99);
    assert_eq!(document.matches("<path class=\"curve").count(), 6, "the charts are drawn");
    assert_eq!(strangers.load(Ordering::Relaxed), 0, "it asks for something else");
    has_no_error(&log);
}
