//! A node without memory: whatever clients and peers request then is done, or is an error, or ends their connection;
//! nothing ends the process, and others are served. While the node is called, the address space ends some MiB above what
//! is in use, or the allocator refuses what is large.
//!
//! Not here: real nodes whose address space is small from the start: `limits`.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "a global allocator is one by an unsafe trait")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod kit;

use kit::peer::{Face, Link, World, bytes_of, deltas, head};
use kit::{ClientId, Driver};
use olivia::base::rng::Rng;
use olivia::base::time::Instant;
use olivia::config::Config;
use olivia::limits::Limits;
use olivia::store::{Eviction, Full, HashSecret, Store, Version};
use olivia::wire::frame::{Address, Body, KeyState, Wanted, put_peers, put_piece};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::sync::{Mutex, PoisonError};

/// Memory that is refused: more than any queue, table or buffer of a node has that does little.
const REFUSED_FROM: usize = 256 * 1024;

thread_local! {
    static IS_REFUSING: Cell<bool> = const { Cell::new(false) };
    static REFUSED: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, which refuses large memory to threads that say so.
struct Failing;

fn is_refused(bytes: usize) -> bool {
    let is_refused = bytes >= REFUSED_FROM && IS_REFUSING.try_with(Cell::get).unwrap_or(false);
    if is_refused {
        REFUSED.set(REFUSED.get() + 1);
    }
    is_refused
}

// SAFETY: each call is the system's with the same arguments, or returns no memory.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_refused(layout.size()) { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }

    /// Zeroed tables, such as filters, have no fallible call: it is looked before whether the system has room for them.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if is_refused(bytes) { std::ptr::null_mut() } else { unsafe { System.realloc(block, layout, bytes) } }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

fn limits() -> Limits {
    Limits { line_bytes_max: 16 << 20, ..Limits::default() }
}

/// What is refused to the node while it is called.
#[derive(Debug, Clone, Copy)]
enum Refusing {
    /// Blocks from a size on.
    Large,
    /// What is beyond so many bytes more than are in use.
    Beyond(u64),
}

impl Refusing {
    fn during<R>(self, call: impl FnOnce() -> R) -> R {
        let hard = rlimit::Resource::AS.get_hard().unwrap();
        match self {
            Self::Large => IS_REFUSING.set(true),
            Self::Beyond(bytes) => rlimit::Resource::AS.set(in_use() + bytes, hard).unwrap(),
        }
        let result = call();
        IS_REFUSING.set(false);
        rlimit::Resource::AS.set(hard, hard).unwrap();
        result
    }
}

/// Bytes of address space in use.
fn in_use() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4_096
}

/// Hands input to the node as the shell reads it, and has it do what follows.
fn serve(driver: &mut Driver, conn: ClientId, input: &[u8], refusing: Refusing) {
    for read in input.chunks(64 * 1024) {
        if driver.has_ended(conn) {
            return;
        }
        refusing.during(|| driver.deliver(conn, read));
        let mut steps = 0;
        while driver.node.has_work(driver.now) && steps < 10_000 {
            refusing.during(|| driver.node.tick(driver.now));
            driver.act();
            driver.read_now(conn);
            steps += 1;
        }
        driver.read_now(conn);
        driver.take_bytes(conn);
    }
}

fn answers(driver: &mut Driver, what: &str) {
    let other = driver.client();
    assert_eq!(driver.ask(other, "PING\n"), "0:PONG 1\n", "after {what}");
    driver.shut(other);
}

fn request(words: &[&str]) -> Vec<u8> {
    let bulks: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{bulks}", words.len()).into_bytes()
}

/// The names of all commands.
fn commands(driver: &mut Driver) -> Vec<String> {
    let client = driver.client();
    driver.deliver(client, &request(&["COMMAND", "LIST"]));
    driver.read_now(client);
    let reply = driver.take(client);
    driver.shut(client);
    reply
        .split("\r\n")
        .filter(|line| !line.starts_with(['*', '$', '-']) && !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The limit is that of the process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn every_command_with_large_arguments_is_an_error_without_memory_and_others_are_served() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut driver = Driver::new(Config { limits: limits(), ..Config::default() });
    let filler = driver.client();
    let large = "x".repeat(1 << 20);
    driver.ask(filler, &format!("SET held:{large}\n"));
    let names = commands(&mut driver);
    assert!(names.len() > 70, "{names:?}");
    for (name, left) in
        names.iter().filter(|name| *name != "shutdown").zip([2 << 20, 5 << 20, 8 << 20].into_iter().cycle())
    {
        for (first, rest) in
            [("new", large.as_str()), ("held", large.as_str()), ("held", "1"), (large.as_str(), "1")]
        {
            for count in [0, 1, 2, 4] {
                let words: Vec<&str> =
                    [name.as_str(), first].into_iter().chain(std::iter::repeat_n(rest, count)).collect();
                let line = format!("{name} {first}{}\n", format!(":{rest}").repeat(count));
                for input in [request(&words), line.into_bytes()] {
                    let client = driver.client();
                    serve(&mut driver, client, &input, Refusing::Beyond(left));
                    driver.shut(client);
                }
            }
        }
        answers(&mut driver, name);
    }
}

/// Segments split, a page or the ghost of eviction is wanted, while the system has nothing left.
#[test]
fn store_without_memory_evicts_for_writes_or_refuses_them_and_goes_on() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (mebibytes, len, left) in
        [(0, 20, 8 << 20), (0, 20_000, 0), (20, 20, 0), (8, 2_000, 0), (8, 20_000, 0), (8, 200_000, 0)]
    {
        let what = format!("limit {mebibytes} MiB, values of {len} B");
        let mut store = Store::new(HashSecret::draw(&mut Rng::new(1)), mebibytes << 20);
        store.set_eviction(Eviction::AnyItem);
        let value = vec![7; len];
        let set = |store: &mut Store, id: u64| {
            store.set(Instant::ZERO, store.key(&id.to_be_bytes()), &value, None, Version(id))
        };
        // Nearly up to the first eviction.
        let mut first = 0;
        while store.memory_bytes() + (1 << 16) + len as u64 <= mebibytes.max(8) << 20 {
            assert!(set(&mut store, first).is_ok(), "{what}");
            first += 1;
        }
        let refusals: Vec<Full> = Refusing::Beyond(left)
            .during(|| (first..2 * first).filter_map(|id| set(&mut store, id).err()).collect());
        let count = refusals.len() as u64;
        assert_eq!(mebibytes == 0, count > 0, "{what}: {count} of {first} are refused");
        assert!(refusals.iter().all(|refusal| *refusal == Full::System), "{what}: {refusals:?}");
        assert_eq!(store.len() as u64 + store.evicted() + count, 2 * first, "{what}");
        store.audit();
        assert!((0..1_000).all(|id| set(&mut store, u64::MAX - id).is_ok()), "{what}");
    }
}

#[test]
fn every_frame_and_page_is_survived_without_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new(Config { limits: limits(), ..Config::default() });
    world.driver.watch = None;
    let large = vec![b'x'; 3 << 20];
    let key = vec![b'k'; 60_000];
    let hash = world.hash("far");
    let words = vec![u64::MAX; 2_048];
    let mut pieces = Vec::new();
    put_piece(&mut pieces, 0, 0, &words);
    let hashes: Vec<u64> = (0..100_000).map(|n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
    let mut peers = Vec::new();
    let address =
        |n: u16| Address { id: [7; 16], addr: format!("127.0.0.1:{}", 10_000 + n).parse().unwrap() };
    put_peers(&mut peers, 0, (0..1_000).map(address));
    let inputs: Vec<(&str, Vec<u8>)> = vec![
        ("additions", deltas(0, &hashes)),
        ("a snapshot", [bytes_of(&[(0, Body::Snap { head: head(9, 0), size_log2: 20 })]), pieces].concat()),
        ("a value", bytes_of(&[(1, Body::Value { hash, version: 1, left_ms: None, value: &large })])),
        (
            "queries",
            (0..200)
                .flat_map(|n| bytes_of(&[(n, Body::Get { key: b"held", wanted: Wanted::Value })]))
                .collect(),
        ),
        (
            "long queries",
            (0..200).flat_map(|n| bytes_of(&[(n, Body::Get { key: &key, wanted: Wanted::Value })])).collect(),
        ),
        (
            "notices",
            (0..200)
                .flat_map(|_| {
                    bytes_of(&[(0, Body::Invalidate { key: &key, version: 1, state: KeyState::Gone })])
                })
                .collect(),
        ),
        (
            "deletions",
            (0..200).flat_map(|n| bytes_of(&[(n, Body::Delete { key: &key, version: 1 })])).collect(),
        ),
        ("addresses", peers),
        ("a resync", bytes_of(&[(0, Body::Resync(None))])),
        ("a long farewell", bytes_of(&[(0, Body::Bye(&large[..60_000]))])),
    ];
    let value = String::from_utf8(large.clone()).unwrap();
    world.ask(&format!("SET held:{value}\n"));
    let all = [Refusing::Large, Refusing::Beyond(2 << 20), Refusing::Beyond(6 << 20)];
    let cases = all.into_iter().flat_map(|refusing| inputs.iter().map(move |input| (refusing, input)));
    for (number, (refusing, (what, input))) in (1..).zip(cases) {
        let link: Link = world.known(&Face::new(number));
        let client = world.driver.client();
        // A lookup that waits for the value.
        serve(&mut world.driver, client, b"GET far\n", refusing);
        serve(&mut world.driver, link.conn, input, refusing);
        answers(&mut world.driver, what);
    }
    // The own filter grows beyond what there is memory for.
    let filler = world.driver.client();
    for first in (0..120_000).step_by(500) {
        let lines: String = (first..first + 500).map(|n| format!("SET n{n}:1\n")).collect();
        serve(&mut world.driver, filler, lines.as_bytes(), Refusing::Beyond(6 << 20));
    }
    answers(&mut world.driver, "many keys");
    for path in ["/", "/status.json", "/metrics", "/history.json", "/livez"] {
        let client = world.driver.client();
        serve(
            &mut world.driver,
            client,
            format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes(),
            Refusing::Beyond(5 << 20),
        );
        answers(&mut world.driver, path);
    }
    assert!(REFUSED.get() > 0);
}
