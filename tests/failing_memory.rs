//! A node without memory: each request of clients and peers is carried out, gets an error, or ends its connection; the
//! process goes on, and others are served. While the node is called, the address space is limited to some MiB above the
//! used part, or the allocator refuses large blocks.
//!
//! Not here: real nodes whose address space is small from the start, in `tests/limits.rs`.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "a global allocator is one by an unsafe trait")]

mod kit;

use kit::peer::{Face, Link, WITHOUT_OWN, World, beat, bytes_of, deltas, executed, head};
use kit::{ClientId, Driver, request, resp};
use olivia::base::rng::Rng;
use olivia::base::time::Instant;
use olivia::config::Config;
use olivia::limits::Limits;
use olivia::store::{Eviction, Full, HashSecret, Store, Version};
use olivia::wire::encoder::Protocol;
use olivia::wire::frame::{
    Address, Arguments, Body, FRAGMENT_BYTES_MAX, Hints, KeyState, RemoteCommand, Wanted, put_blocks,
    put_discarded, put_fragment_head, put_peers, put_piece,
};
use olivia::wire::remote_reply::{KeyVersion, RequestResult, put_keys, put_result};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
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

/// The allocations that are refused during a call of the node.
#[derive(Debug, Clone, Copy)]
enum Refusing {
    /// Blocks from a size on.
    Large,
    /// Those above this many bytes more than are in use.
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
    assert_eq!(driver.call(other, "PING\n"), "0:PONG 1\n", "after {what}");
    driver.shut(other);
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

/// Ends connections, of which the node may have ended some.
fn end(driver: &mut Driver, conns: &[ClientId]) {
    conns.iter().for_each(|conn| driver.shut(*conn));
}

/// The limit is that of the process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn every_command_with_large_arguments_is_an_error_without_memory_and_others_are_served() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut driver = Driver::new(Config { limits: limits(), ..Config::default() });
    let large = "x".repeat(1 << 20);
    let names = commands(&mut driver);
    assert!(names.len() > 70, "{names:?}");
    for (name, left) in
        names.iter().filter(|name| *name != "shutdown").zip([2 << 20, 5 << 20, 8 << 20].into_iter().cycle())
    {
        // Some commands remove it, or end other connections.
        let filler = driver.client();
        assert_eq!(driver.call(filler, &resp(&["SET", "held", &large])), "+OK\r\n");
        driver.shut(filler);
        for (first, rest) in
            [("new", large.as_str()), ("held", large.as_str()), ("held", "1"), (large.as_str(), "1")]
        {
            for count in [0, 1, 2, 4] {
                let words: Vec<&str> =
                    [name.as_str(), first].into_iter().chain(std::iter::repeat_n(rest, count)).collect();
                let line = format!("{name} {first}{}\n", format!(":{rest}").repeat(count));
                for input in [request(&words), line.into_bytes()] {
                    for refusing in [Refusing::Beyond(left), Refusing::Large] {
                        let client = driver.client();
                        serve(&mut driver, client, &input, refusing);
                        driver.shut(client);
                    }
                }
            }
        }
        // So many words that their table is refused.
        let words: Vec<&str> =
            [name.as_str(), "new"].into_iter().chain(std::iter::repeat_n("1", 40_000)).collect();
        for refusing in [Refusing::Beyond(left), Refusing::Large] {
            let client = driver.client();
            serve(&mut driver, client, &request(&words), refusing);
            driver.shut(client);
        }
        answers(&mut driver, name);
    }
}

#[test]
fn what_is_made_from_small_arguments_is_an_error_without_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut driver = Driver::new(Config::default());
    let (filler, far) = (driver.client(), (2 << 20).to_string());
    for (key, text) in [("one", "ab".repeat(500)), ("other", "ba".repeat(500))] {
        driver.call(filler, &format!("SET {key}:{text}\n"));
    }
    for words in [&["SETRANGE", "absent", &far, "x"][..], &["LCS", "one", "other"]] {
        for refusing in [Refusing::Beyond(2 << 20), Refusing::Large] {
            let client = driver.client();
            serve(&mut driver, client, &request(words), refusing);
            driver.shut(client);
        }
    }
    answers(&mut driver, "a long value and a table");
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

/// Frames of every kind with as much in them as they may hold, each with its name and the request of a client that it
/// may answer.
fn frames_of_every_kind(world: &World, large: &[u8]) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let (get, forwarded) = ("GET far\n", "APPEND far:x\n");
    let (hash, key, hints) = (world.hash("far"), vec![b'k'; 60_000], [[7; 16], [8; 16]]);
    let many = |body: Body<'_>| bytes_of(&(0..200).map(|n| (n, body)).collect::<Vec<_>>());
    let first = |body: Body<'_>| bytes_of(&[(1, body)]);
    let words = vec![u64::MAX; 2_048];
    let (mut snapshot, mut images, mut discarded, mut peers) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    put_piece(&mut snapshot, 0, 0, &words);
    put_blocks(&mut images, 0, 0, (0..20_000).map(|number| (number % 2, [u64::MAX; 8])));
    (0..50).for_each(|at| put_discarded(&mut discarded, 0, 64 * at, 1, &words[..512]));
    let address =
        |n: u16| Address { id: [7; 16], addr: format!("127.0.0.1:{}", 10_000 + n).parse().unwrap() };
    put_peers(&mut peers, 0, (0..1_000).map(address));
    let hashes: Vec<u64> = (0..100_000).map(|n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
    let keys: Vec<KeyVersion> =
        hashes.iter().map(|hash| KeyVersion { hash: *hash, version: 1, state: KeyState::Held }).collect();
    let reply = |is_error: bool, keys: &[KeyVersion]| {
        let mut reply = Vec::new();
        put_keys(&mut reply, keys);
        put_result(&mut reply, RequestResult { is_error, bytes: large });
        reply
    };
    let mut arguments = Vec::new();
    let command = RemoteCommand {
        name: b"APPEND",
        arguments: Arguments::write(&mut arguments, [b"held", large].into_iter()),
        create: true,
        deadline: u64::MAX,
        refused: Hints::new(&hints),
        protocol: Protocol::Lines,
    };
    let none = Body::None { hash, moved_version: 1, hints: Hints::new(&hints) };
    let value = Body::Value { hash, version: 1, left_ms: None, value: large };
    let mut fragments = Vec::new();
    for part in first(value).chunks(FRAGMENT_BYTES_MAX) {
        put_fragment_head(&mut fragments, part.len());
        fragments.extend_from_slice(part);
    }
    vec![
        ("heartbeats", get, many(beat(head(1, 0), false))),
        ("additions", get, deltas(0, &hashes)),
        ("blocks", get, images),
        (
            "a snapshot",
            get,
            [first(Body::Snap { head: head(9, 0), size_log2: 20 }), snapshot.clone()].concat(),
        ),
        ("a piece", get, snapshot),
        ("ends of snapshots", get, many(Body::SnapEnd)),
        ("a resync", get, bytes_of(&[(0, Body::Resync(None))])),
        ("queries", get, many(Body::Get { key: b"held", wanted: Wanted::Value })),
        ("long queries", get, many(Body::Get { key: &key, wanted: Wanted::Value })),
        ("a value", get, first(value)),
        ("a value in fragments", get, fragments),
        ("no value", get, first(none)),
        ("no key", get, first(Body::NotTaken)),
        ("addresses", get, peers),
        ("notices", get, many(Body::Invalidate { key: &key, version: 1, state: KeyState::Gone })),
        ("newer versions", get, many(Body::Newer { key: &key, version: 1, state: KeyState::Held })),
        ("deletions", get, many(Body::Delete { key: &key, version: 1 })),
        (
            "a deletion",
            "DEL far\n",
            first(Body::Deleted { hash, version: 1, had: true, hints: Hints::new(&hints) }),
        ),
        ("a command", get, first(Body::Execute(command))),
        ("a reply", forwarded, first(executed(hash, 1, &reply(false, &[])))),
        ("an error", forwarded, first(executed(hash, 1, &reply(true, &[])))),
        ("a reply about many keys", forwarded, first(executed(hash, 1, &reply(false, &keys)))),
        (
            "another holder",
            forwarded,
            first(Body::NotHolder { hash, moved_version: 1, hints: Hints::new(&hints) }),
        ),
        ("a command not done", forwarded, first(Body::NotDone { hash })),
        ("a floor", get, first(Body::Floor(1))),
        ("no floor", "FLUSHALL MESH\n", first(Body::Floored(1))),
        ("discarded deletions", get, discarded),
        ("a long farewell", get, first(Body::Bye(&large[..60_000]))),
    ]
}

#[test]
fn every_frame_and_page_is_survived_without_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new(Config { limits: limits(), ..Config::default() });
    world.driver.watch = None;
    // One of the inputs is FLUSHALL MESH.
    world.last = WITHOUT_OWN;
    let large = vec![b'x'; 3 << 20];
    let value = String::from_utf8(large.clone()).unwrap();
    world.call(&format!("SET held:{value}\n"));
    let inputs = frames_of_every_kind(&world, &large);
    let kinds: BTreeSet<u8> = inputs.iter().flat_map(|(.., frames)| frames.get(1)).copied().collect();
    assert_eq!(kinds.len(), 24, "{kinds:?}");
    let beyond = [2, 6, 10].map(|mib| Refusing::Beyond(mib << 20));
    let all = || std::iter::once(Refusing::Large).chain(beyond);
    let cases = all().flat_map(|refusing| inputs.iter().map(move |input| (refusing, input)));
    for (number, (refusing, (what, request, input))) in (1..).zip(cases) {
        // Its filter is unknown, so that it is queried.
        let link: Link = world.linked(&Face::new(number));
        let client = world.driver.client();
        serve(&mut world.driver, client, request.as_bytes(), refusing);
        serve(&mut world.driver, link.conn, input, refusing);
        answers(&mut world.driver, what);
        end(&mut world.driver, &[client, link.conn]);
    }
    // Commands that peers have carried out here, and the handshake.
    let names = commands(&mut world.driver);
    for refusing in all() {
        let link = world.linked(&Face::new(1_000));
        for name in &names {
            for arguments in [&[b"held", &large[..]][..], &[b"held", b"1"], &[b"new", &large[..], b"1", b"x"]]
            {
                let mut bytes = Vec::new();
                let command = RemoteCommand {
                    name: name.as_bytes(),
                    arguments: Arguments::write(&mut bytes, arguments.iter().copied()),
                    create: true,
                    deadline: u64::MAX,
                    refused: Hints::default(),
                    protocol: if name.len().is_multiple_of(2) { Protocol::Lines } else { Protocol::Resp2 },
                };
                serve(&mut world.driver, link.conn, &bytes_of(&[(1, Body::Execute(command))]), refusing);
            }
            answers(&mut world.driver, name);
        }
        // Commands of clients that the peer is to carry out, or that wait.
        let client = world.driver.client();
        for words in [
            &["APPEND", "far", &value][..],
            &["MGET", "far", &value],
            &["WATCH", &value],
            &["MULTI"],
            &["SET", "far", &value],
            &["EXEC"],
        ] {
            serve(&mut world.driver, client, &request(words), refusing);
        }
        answers(&mut world.driver, "commands for the peer");
        end(&mut world.driver, &[client, link.conn]);
        let face = Face::new(1_001);
        let dialler = world.driver.connect(&face.seen).unwrap();
        serve(&mut world.driver, dialler, &face.offer_line(), refusing);
        serve(&mut world.driver, dialler, &large, refusing);
        answers(&mut world.driver, "a handshake");
        end(&mut world.driver, &[dialler]);
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
