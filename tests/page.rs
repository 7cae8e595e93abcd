//! The page in a real browser, headless Chromium; where it is not installed the tests print that and pass.

mod common;
mod kit;

use common::server::Launch;
use common::wait_until;
use kit::ms;
use kit::peer::{Face, Link, World, heartbeat};
use olivia::config::Config;
use serde_json::{Value, json};
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The time that a browser may take for one page.
const BROWSER_MAX: Duration = Duration::from_secs(180);

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

/// The browser on a page, in a folder of its own for its profile, `document.html` and `log`. Its input and output are
/// also those of `--remote-debugging-pipe`.
fn command(browser: &Path, name: &str, addr: SocketAddr, more: &[&str]) -> (Command, PathBuf) {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&home).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$@\" 3<&0 4>&1", "sh"])
        .arg(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        .args(["--no-first-run", "--disable-dev-shm-usage", "--enable-logging=stderr"])
        .args(more)
        .arg(format!("--user-data-dir={}", home.display()))
        .arg(format!("http://{addr}/"))
        .stderr(File::create(home.join("log")).unwrap());
    (command, home)
}

/// A running browser and its folder, gone on drop.
struct Running {
    child: Child,
    home: PathBuf,
}

impl Running {
    /// Starts the browser on a page.
    fn start(browser: &Path, name: &str, addr: SocketAddr, more: &[&str]) -> Self {
        let (mut command, home) = command(browser, name, addr, more);
        let document = File::create(home.join("document.html")).unwrap();
        Self { child: command.stdin(Stdio::null()).stdout(document).spawn().unwrap(), home }
    }

    fn read(&self, file: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.home.join(file)).unwrap()).into_owned()
    }

    /// Waits until `is_so` of it; panics with its log if that takes too long.
    fn wait_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Child) -> bool) {
        let begin = Instant::now();
        while !is_so(&mut self.child) {
            assert!(begin.elapsed() < BROWSER_MAX, "timed out waiting until {what}: {}", self.read("log"));
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// A browser that is used by its keys: the DevTools protocol, each message ended by a zero byte.
struct Keyboard {
    _running: Running,
    input: ChildStdin,
    messages: Receiver<Value>,
    calls: u64,
    session: Value,
}

impl Keyboard {
    fn open(browser: &Path, name: &str, addr: SocketAddr) -> Self {
        let (mut command, home) = command(browser, name, addr, &["--remote-debugging-pipe"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || {
            let pieces = BufReader::new(output).split(0).map_while(Result::ok);
            let messages = pieces.filter_map(|piece| serde_json::from_slice(&piece).ok());
            messages.map_while(|message| sender.send(message).ok()).for_each(drop);
        });
        let _running = Running { child, home };
        let mut keyboard = Self { _running, input, messages, calls: 0, session: Value::Null };
        let target = loop {
            let targets = keyboard.call("Target.getTargets", &json!({}));
            let targets = targets["targetInfos"].as_array().unwrap();
            let is_page = |target: &&Value| target["url"] == format!("http://{addr}/");
            if let Some(page) = targets.iter().find(is_page) {
                break page["targetId"].clone();
            }
            thread::sleep(Duration::from_millis(50));
        };
        let attached =
            keyboard.call("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        keyboard.session = attached["sessionId"].clone();
        while keyboard.eval("document.readyState === 'complete' && document.querySelector('main') != null")
            != true
        {
            thread::sleep(Duration::from_millis(50));
        }
        keyboard
    }

    /// The result of a method.
    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        write!(self.input, "{message}\0").unwrap();
        loop {
            let mut message = self.messages.recv_timeout(BROWSER_MAX).expect(method);
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
        }
    }

    /// The value of an expression in the page.
    fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        self.call("Runtime.evaluate", &params)["result"]["value"].take()
    }

    /// Presses and releases a key, with the text that it types.
    fn press(&mut self, key: &str, code: u32, text: &str, is_shifted: bool) {
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            self.call(
                "Input.dispatchKeyEvent",
                &json!({
                    "type": kind, "key": key, "code": key, "text": text,
                    "windowsVirtualKeyCode": code, "modifiers": if is_shifted { 8 } else { 0 },
                }),
            );
        }
    }
}

/// The document as it stands after some seconds of the page's own time, and the messages of the browser. `meanwhile` is
/// called all the time.
fn open(
    browser: &Path,
    name: &str,
    addr: SocketAddr,
    seconds: u32,
    mut meanwhile: impl FnMut(),
) -> (String, String) {
    let budget = format!("--virtual-time-budget={}", 1_000 * seconds);
    // With the names and roles that the browser computes for readers of the screen.
    let names = "--enable-blink-features=ComputedAccessibilityInfo";
    let mut running = Running::start(browser, name, addr, &["--dump-dom", &budget, names]);
    running.wait_until("the browser ends", |child| {
        meanwhile();
        child.try_wait().unwrap().is_some()
    });
    (running.read("document.html"), running.read("log"))
}

/// Serves a page, made anew for each request, until the test ends. Counts the requests for it, and those for anything
/// else.
fn serve(page: impl Fn(usize) -> String + Send + 'static) -> (SocketAddr, Arc<[AtomicUsize; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let requests = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counts = Arc::clone(&requests);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let _ = reader.read_line(&mut line);
            let mut header = line.clone();
            while !header.trim().is_empty() {
                header.clear();
                let _ = reader.read_line(&mut header);
            }
            let Some(path) = line.split(' ').nth(1) else { continue };
            let before = counts[usize::from(path != "/")].fetch_add(1, Ordering::Relaxed);
            let body = page(before);
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{body}"
            );
        }
    });
    (addr, requests)
}

/// The page of a node in the kit.
fn page_of(world: &mut World) -> String {
    let client = world.driver.client();
    let response = world.driver.call(client, "GET / HTTP/1.0\r\n\r\n");
    response.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Nothing is on the console, but what the browser writes there when it has waited for a file of its own.
fn has_no_error(log: &str) {
    let is_of_the_page = |line: &&str| line.contains("CONSOLE") && !line.contains("Slow network is detected");
    assert_eq!(log.lines().find(is_of_the_page), None, "{log}");
}

#[test]
fn page_shows_one_node_and_a_mesh_and_which_peer_has_gone() {
    let Some(browser) = browser() else { return };
    // Links end by resets only, also where the browser takes the processors for seconds.
    let slow = |name| Launch::new(name).mesh("heartbeat_interval_ms", 60_000);
    let first = slow("page-first").start();
    let mut client = first.connect();
    client.call("SET a:1,b:2,c:3");
    let (alone, log) = open(&browser, "alone", first.addr(), 3, || ());
    assert!(alone.contains("<b>3</b><small>3 set") && alone.contains("No other node is known"), "{alone}");
    has_no_error(&log);
    let launch = |name| slow(name).peer(first.addr()).start();
    let mut second = launch("page-second");
    wait_until("one is linked", || client.stat("peers_linked") == 1);
    let (one, log) = open(&browser, "one", first.addr(), 3, || ());
    assert!(one.contains("Mesh: 1 of 1 other nodes linked"), "{one}");
    has_no_error(&log);
    let others = ["page-third", "page-fourth"].map(launch);
    wait_until("three are linked", || client.stat("peers_linked") == 3);
    // The client is listed while it has traffic.
    let (mesh, log) = open(&browser, "mesh", first.addr(), 3, || _ = client.call("PING"));
    assert!(
        mesh.contains("Mesh: 3 of 3 other nodes linked")
            && mesh.contains("<span class=\"good\">ready</span>"),
        "{mesh}"
    );
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
    second.kill();
    wait_until("the link is gone", || client.stat("peers_linked") == 2);
    let (after, log) = open(&browser, "after", first.addr(), 3, || ());
    assert!(after.contains("Mesh: 2 of 3 other nodes linked"), "{after}");
    assert!(!after.contains(&format!("<th scope=\"row\">{gone}</th><td class=\"good\">")), "{after}");
    has_no_error(&log);
}

#[test]
fn page_follows_a_hundred_peers_one_of_which_goes_and_requests_nothing_else() {
    let Some(browser) = browser() else { return };
    let mut world = World::new(Config::default());
    let links: Vec<Link> = (1..=100).map(|number| world.known(&Face::new(number))).collect();
    // Samples of 10 s with requests.
    for _ in 0..30 {
        world.call("GET own\nGET none\n");
        world.driver.node.took(ms(2));
        links.iter().for_each(|link| world.send(link, &[heartbeat(1)]));
        world.driver.pass(ms(1_000));
    }
    let before = page_of(&mut world);
    assert!(before.contains("Mesh: 100 of 100 other nodes linked"), "{before}");
    world.driver.lose(links[41].conn);
    world.driver.pass(ms(10));
    let after = page_of(&mut world);
    let (addr, requests) = serve(move |polls| if polls < 3 { before.clone() } else { after.clone() });
    let (document, log) = open(&browser, "hundred", addr, 6, || ());
    assert!(document.contains("Mesh: 99 of 100 other nodes linked"), "{document}");
    assert!(
        document.contains("<th scope=\"row\">127.0.0.1:6042</th><td class=\"warn\">not linked</td>"),
        "{document}"
    );
    assert_eq!(document.matches("<td class=\"good\">linked</td>").count(), 99);
    assert_eq!(document.matches("<circle class=\"node").count(), 100);
    assert_eq!(
        document.matches("<path class=\"curve").count(),
        12,
        "the charts of an hour and of a day are drawn"
    );
    assert_eq!(requests[1].load(Ordering::Relaxed), 0, "it requests something else");
    has_no_error(&log);
}

/// Checks of accessibility in the browser, for screen readers and keyboards.
const ACCESS: &str = r#"<script>
setTimeout(() => {
  const bad = [], all = selector => [...document.querySelectorAll(selector)];
  const check = (is, what, e) => { if (!is) bad.push(what + ': ' + (e ? e.outerHTML.slice(0, 90) : '')); };
  check(typeof document.body.computedName === 'string', 'the browser does not tell names');
  for (const e of all('svg')) check(e.closest('[aria-hidden=true]') || e.getAttribute('role') === 'img' && (e.closest('#charts-day') || e.computedName.trim()), 'a picture without a name', e);
  for (const e of all('table')) check(e.computedRole === 'table' && e.computedName.trim(), 'a table without a name', e);
  for (const e of all('th')) check(e.scope, 'a head of nothing', e);
  check(all('main').length === 1 && all('h1').length === 1 && document.documentElement.lang === 'en', 'no main part');
  check(all('[role=status]').length === 1 && all('[role=status]')[0].textContent.trim(), 'no state');
  const stops = all('a[href], button, input, summary, [tabindex]');
  check(stops.length >= 8, 'nothing to go to');
  for (const e of stops) {
    e.focus();
    check(e.tabIndex === 0 && document.activeElement === e, 'cannot be gone to in order', e);
    check(getComputedStyle(e).outlineStyle !== 'none', 'does not show that it has the focus', e);
    check(e.computedName.trim(), 'a stop without a name', e);
  }
  for (const e of all('.scroll')) check(e.tabIndex === 0 && e.computedRole === 'region', 'can be scrolled by the mouse alone', e);
  document.getElementById('day').click();
  document.getElementById('day').focus();
  setTimeout(() => {
    const shown = id => getComputedStyle(document.getElementById(id)).display !== 'none';
    check(document.activeElement.id === 'day' && shown('charts-day') && !shown('charts-hour'), 'a refresh loses the place', document.activeElement);
    check(!document.title.includes('findings'), 'ran twice');
    document.body.dataset.findings = bad.join('\n') || 'none';
  }, 2500);
}, 1500);
</script></body>"#;

#[test]
fn page_can_be_read_aloud_and_used_from_the_keyboard() {
    let Some(browser) = browser() else { return };
    let mut world = World::new(Config::default());
    world.known(&Face::new(1));
    let page = page_of(&mut world);
    // Nothing takes the keys away: there is no listener at all.
    assert!(!page.contains("addEventListener") && !page.contains("onkey"), "{page}");
    let page = page.replace("</body>", ACCESS);
    let (addr, _) = serve(move |_| page.clone());
    let (document, log) = open(&browser, "access", addr, 8, || ());
    let findings = document.split("data-findings=\"").nth(1).and_then(|rest| rest.split('"').next());
    assert_eq!(findings, Some("none"), "{log}");
}

/// Returns the focused element: its id, else that of its heading, else its tag.
const FOCUS: &str = "(e => e.id || e.getAttribute('aria-labelledby') || e.tagName)(document.activeElement)";

#[test]
fn page_is_walked_through_by_tab_and_opened_and_switched_by_keys() {
    let Some(browser) = browser() else { return };
    let mut world = World::new(Config::default());
    world.known(&Face::new(1));
    let page = page_of(&mut world);
    let (addr, _) = serve(move |_| page.clone());
    let mut keyboard = Keyboard::open(&browser, "keys", addr);
    // Of a group of radio buttons Tab reaches the one that is chosen.
    let stops =
        ["hour", "spans-title", "classes-title", "slow-title", "clients-title", "peers-title", "SUMMARY"];
    for (at, stop) in stops.iter().enumerate() {
        keyboard.press("Tab", 9, "", false);
        assert_eq!(keyboard.eval(FOCUS), *stop, "after Tab {} times", at + 1);
        let is_seen = "document.activeElement.matches(':focus-visible')";
        assert_eq!(keyboard.eval(is_seen), true, "{stop} does not show the focus");
    }
    let is_open = "document.querySelector('details').open";
    assert_eq!(keyboard.eval(is_open), false);
    keyboard.press("Enter", 13, "\r", false);
    assert_eq!(keyboard.eval(is_open), true);
    for stop in stops.iter().rev().skip(1) {
        keyboard.press("Tab", 9, "", true);
        assert_eq!(keyboard.eval(FOCUS), *stop, "back by Shift-Tab");
    }
    keyboard.press("ArrowRight", 39, "", false);
    let shown =
        "['hour', 'day'].filter(id => document.getElementById('charts-' + id).checkVisibility()).join()";
    assert_eq!((keyboard.eval(FOCUS), keyboard.eval(shown)), ("day".into(), "day".into()));
}

#[test]
fn page_without_javascript_is_drawn_and_loads_itself_again() {
    let Some(browser) = browser() else { return };
    let mut world = World::new(Config::default());
    let link = world.known(&Face::new(1));
    world.call("SET a:1\n");
    world.driver.pass(ms(500));
    let before = page_of(&mut world);
    world.driver.lose(link.conn);
    world.driver.pass(ms(10));
    let after = page_of(&mut world);
    for (page, linked, style) in [(&before, 1, ""), (&after, 0, " away")] {
        assert!(page.contains(&format!("Mesh: {linked} of 1 other nodes linked")), "{page}");
        assert!(
            page.contains(&format!("<circle class=\"node{style}\"")) && page.contains("<b>2</b>"),
            "{page}"
        );
    }
    let (addr, requests) = serve(move |_| before.clone());
    let mut running = Running::start(
        &browser,
        "plain",
        addr,
        &["--blink-settings=scriptEnabled=false", "--remote-debugging-port=0"],
    );
    running.wait_until("it is loaded again", |_| requests[0].load(Ordering::Relaxed) >= 2);
}
